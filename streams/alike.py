"""Records alike in form into columns, without a parser and without an object for any of them.

Programs write their records alike (:mod:`streams.forms`), and records repeat themselves (:mod:`streams.vocabulary`). So
of a batch those that have a known form are told by comparing bytes; of each field every distinct value is decoded and
checked once, by msgspec and the rules of :mod:`streams.decode`, and times are read as arrays (:mod:`streams.moments`).
Nothing is left that costs a call a record.

As in :mod:`streams.bulk`, this module only says yes: whatever else there is, is left to the parser.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.events import Kind
from schemas.personal import PERSONAL_KINDS
from streams.decode import EventDecoder
from streams.forms import Form, literal_in
from streams.lines import Lines
from streams.moments import moments
from streams.packing import ABSENT, BAD, LONGEST_ID, FieldValues, PlainRows, RowPacker, fields_of, vouching
from streams.siphash import Texts
from streams.ticks import MS_PER_DAY, Calendar
from streams.vocabulary import LONGEST, Vocabulary

if TYPE_CHECKING:
    from schemas.severity import Severity
    from streams.config import Config

__all__ = ["FEWEST", "AlikeIntake"]

FEWEST: Final = 800
"""Fewer records alike than this are left to the parser: arrays cost more than they spare (they break even at 700 to
800)."""
_FORMS: Final = 16
_REST: Final = 16
_BOUND: Final = 100_000
_ID, _REPORTED, _OCCURRED, _BATCH = "event_id", "reported_at", "occurred_at", "batch"

Bools = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int32]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """How the fields of a form are read.

    Parameters
    ----------
    form
        The form.
    looked_up, owners
        The fields whose distinct texts are looked at once, as they are written, and in whose vocabulary.
    fields
        What each of those is, ``None`` for one that is unknown.
    as_is
        The fields whose texts must be what they say byte for byte, and the fewest and the most bytes of those.
    occurred
        Whether the time of the occurrence is told as a text.
    batch
        The owner of the batches' vocabulary, where they are told as texts.
    unknown_fields
        Whether it has fields that this version does not know.
    """

    form: Form
    looked_up: list[bytes]
    owners: Ints
    fields: list[str | None]
    as_is: list[tuple[bytes, int, int]]
    occurred: bool
    batch: int | None
    unknown_fields: bool


class AlikeIntake:
    """Takes the records of one kind that are alike.

    Parameters
    ----------
    kind
        Of all records.
    decoder
        Knows the codes.
    config, severity
        Of the deployment.
    """

    def __init__(self, kind: Kind, decoder: EventDecoder, config: Config, severity: Severity) -> None:
        rules = vouching(kind, decoder)
        self._fields = {name: _Field(field, type_, rules.get(name)) for name, (field, type_) in fields_of(kind).items()}
        self._strict = kind in PERSONAL_KINDS
        self._longest = config.intake.max_record_bytes
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._packer = RowPacker(kind, self._fields, config, severity)
        self._owners: list[Callable[[bytes], int]] = [_scalar, _last_scalar]
        self._owner_of: dict[str, int] = {}
        for name, one in self._fields.items():
            self._owner_of[name] = len(self._owners)
            self._owners += [one.of_text, one.of_literal, one.of_last_literal]
        self._vocabulary = Vocabulary(lambda owner, text: self._owners[owner](text), BAD)
        self._plans: deque[_Plan] = deque(maxlen=_FORMS)
        self._rest = 0

    def take(self, values: Sequence[bytes | None]) -> list[PlainRows]:
        """The records that are alike and ordinary, one :class:`PlainRows` a form; their rows count through
        ``values``."""
        if len(values) < FEWEST or self._rest:
            self._rest = max(self._rest - 1, 0)
            return []
        if len(self._vocabulary) > _BOUND:
            self._vocabulary.forget()
            for field in self._fields.values():
                field.forget()
        lines = Lines(values, self._longest)
        before = len(self._vocabulary)
        found = [self._plain(lines, plan, rows, marks) for plan, rows, marks in self._alike(lines)]
        if len(self._vocabulary) - before > len(values) // 2:
            self._rest = _REST  # most is new each time: learning costs more than parsing
        return found

    # --- forms ---------------------------------------------------------------------------------------------------

    def _alike(self, lines: Lines) -> Iterator[tuple[_Plan, Rows, Ints]]:
        """Known forms and new ones, and of the records that have each: their rows and marks."""
        for quotes, rows in lines.by_quotes(FEWEST):
            marks = lines.marks(rows, quotes)
            plans = [plan for plan in self._plans if plan.form.quotes == quotes]
            tries = [rows[0], rows[len(rows) // 2]]
            while len(rows) >= FEWEST and (plans or tries):
                plan = plans.pop() if plans else self._learn(lines.line(int(tries.pop())))
                if plan is None:
                    continue
                same = plan.form.matches(lines.buffer, marks)
                if same.any():
                    self._use(plan)
                    whole = bool(same.all())
                    yield (plan, rows, marks) if whole else (plan, rows[same], marks[:, same])
                    rows, marks = rows[~same], marks[:, ~same]

    def _use(self, plan: _Plan) -> None:
        """Those that were used last are kept."""
        if plan in self._plans:
            self._plans.remove(plan)
        self._plans.append(plan)

    def _learn(self, record: bytes) -> _Plan | None:
        """How to read a form that is new; ``None`` where it lacks what an event must have, or where a field must be
        looked at record by record."""
        form = Form.of(record)
        if form is None:
            return None
        names = {name.encode(): name for name in self._fields}
        texts = {names[raw] for raw, span in form.spans.items() if span.text and raw in names}
        needed = {name for name, field in self._fields.items() if field.required}
        if not (needed <= {names.get(raw) for raw in form.spans} and {_ID, _REPORTED} <= texts):
            return None
        unknown_fields = any(raw not in names for raw in form.spans)
        if self._strict and unknown_fields:
            return None
        bounds = {_ID: (1, LONGEST_ID), _BATCH: (1, LONGEST)}
        as_is, looked_up = [], []
        for raw, span in form.spans.items():
            name = names.get(raw)
            if span.text and (name is None or name in bounds):
                as_is.append((raw, *bounds.get(name or "", (0, self._longest))))
            elif not (span.text and name in (_REPORTED, _OCCURRED)):
                looked_up.append(raw)
        owners = [self._owner(form, raw, names.get(raw)) for raw in looked_up]
        return _Plan(
            form, looked_up, np.array(owners, np.int64), [names.get(raw) for raw in looked_up], as_is,
            _OCCURRED in texts, self._owner_of[_BATCH] if _BATCH in texts else None, unknown_fields,
        )  # fmt: skip

    def _owner(self, form: Form, raw: bytes, name: str | None) -> int:
        span = form.spans[raw]
        last = span.closes is None
        if name is None:
            return int(last)
        return self._owner_of[name] + (0 if span.text else 1 + last)

    # --- values --------------------------------------------------------------------------------------------------

    def _plain(self, lines: Lines, plan: _Plan, rows: Rows, marks: Ints) -> PlainRows:
        good = np.ones(len(rows), np.bool_)
        for raw, fewest, most in plan.as_is:
            starts, lengths = plan.form.places(marks, [raw])
            good &= (lengths[0] >= fewest) & (lengths[0] <= most) & lines.unescaped(starts[0], lengths[0])
        codes = {name: np.full(len(rows), ABSENT, np.int32) for name in self._fields}
        told = self._vocabulary.codes(lines.buffer, plan.owners, *plan.form.places(marks, plan.looked_up))
        for name, found in zip(plan.fields, told, strict=True):
            good &= found >= (0 if name is None or self._fields[name].required else ABSENT)
            if name is not None:
                codes[name] = found
        counts = {name: one.numbers(codes[name]) for name, one in self._fields.items() if one.bounds is not None}
        reported, since = self._clocks(lines, plan, marks, good)
        behind = self._behind(lines, plan, marks, codes)
        starts, lengths = plan.form.places(marks, [_ID.encode()])
        ids = Texts(lines.buffer, starts[0], lengths[0])
        plain = self._packer.pack(good, codes, counts, reported, since, ids, behind)
        plain.rows, plain.unknown_fields = rows[plain.rows], plan.unknown_fields
        return plain

    def _clocks(self, lines: Lines, plan: _Plan, marks: Ints, good: Bools) -> tuple[Ints, Ints]:
        """Epoch milliseconds of the report, and the local day of the occurrence; takes the yes from doubtful rows."""
        offset = self._calendar.offset_ms
        starts, lengths = plan.form.places(marks, [_REPORTED.encode()])
        reported, known = moments(lines.buffer, starts[0], lengths[0], offset)
        good &= known
        occurred = reported
        if plan.occurred:
            starts, lengths = plan.form.places(marks, [_OCCURRED.encode()])
            occurred, known = moments(lines.buffer, starts[0], lengths[0], offset)
            good &= known & (occurred >= MS_PER_DAY) & (occurred <= reported + MS_PER_DAY)
        return reported, (occurred + offset) // MS_PER_DAY

    def _behind(self, lines: Lines, plan: _Plan, marks: Ints, codes: dict[str, Codes]) -> Callable[[str, Rows], Codes]:
        """Batches differ from record to record, and only those of failures are ever told: only they are learned."""

        def told(name: str, some: Rows) -> Codes:
            if name != _BATCH or plan.batch is None:
                return codes[name][some]
            places = plan.form.places(marks[:, some], [_BATCH.encode()])
            found: Codes = self._vocabulary.codes(lines.buffer, np.array([plan.batch]), *places)[0]
            return found

        return told


class _Field(FieldValues):
    """One field: what each distinct text that stands for a value becomes."""

    def __init__(self, field: Any, type_: Any, becomes: Callable[[Any], Any] | None = None) -> None:
        super().__init__(field, becomes)
        self._decode = msgspec.json.Decoder(type_).decode

    def of_text(self, raw: bytes) -> int:
        """The code of what stands between two quotes."""
        return self._judge(b'"' + raw + b'"')

    def of_literal(self, raw: bytes) -> int:
        return self._judge(literal_in(raw, last=False))

    def of_last_literal(self, raw: bytes) -> int:
        return self._judge(literal_in(raw, last=True))

    def _judge(self, value: bytes | None) -> int:
        if value is None:
            return BAD
        try:
            return self.keep(self._decode(value))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return BAD


def _scalar(raw: bytes, *, last: bool = False) -> int:
    """0 for a number, true, false or null; BAD for what is none."""
    literal = literal_in(raw, last=last)
    if literal is None:
        return BAD
    try:
        msgspec.json.decode(literal)
    except msgspec.DecodeError:
        return BAD
    return 0


def _last_scalar(raw: bytes) -> int:
    return _scalar(raw, last=True)
