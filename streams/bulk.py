"""Many records of one kind at a time: what is ordinary becomes columns without a Python object's journey each.

:class:`Bulk` takes the records that it can vouch for: well formed, of known codes, with clocks in bounds and nothing
grave about them. Whatever else there is it leaves to :mod:`streams.intake`, one record after the other, which
also says what is wrong with it. So this module only says yes, and a yes means what it means there: the tests compare
the two, record by record.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.events import EVENT_TYPES, KINDS, REPORTERS, Kind
from schemas.personal import FREE_TEXT, PERSONAL_KINDS, has_personal_number
from streams.alike import AlikeIntake
from streams.columns import COLUMN_TYPES, WITHDRAWN, EventColumns, concatenate
from streams.decode import LAST_MS, EventDecoder, kind_in
from streams.identity import Identities
from streams.lean import LeanDecoder
from streams.packing import delays
from streams.siphash import Texts
from streams.ticks import MS_PER_DAY, Calendar, Origin

if TYPE_CHECKING:
    from schemas.severity import Severity
    from streams.config import Config

__all__ = ["BULK_KINDS", "LEAST", "Bulk", "Taken"]

BULK_KINDS: Final[frozenset[Kind]] = frozenset({"inspection", "injury", "complaint"})
LEAST: Final = 16
"""Fewer records than this are taken one by one: arrays cost more than they spare (they break even at 12 to 16)."""
_conforms = attrgetter("conforming")
_VERDICTS: Final[dict[str | None, int]] = {"pass": 0, "fail": 1, None: -1}

_Value = TypeVar("_Value", bound=Hashable)
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Headers = Sequence[tuple[str, bytes | None]] | None
Part = tuple[npt.NDArray[np.intp], EventColumns]
"""Places of some records, and their columns."""


@dataclass(slots=True)
class Taken:
    """The ordinary among some records: their places, their columns, and the branch of each one's product."""

    rows: npt.NDArray[np.intp]
    columns: EventColumns
    branches: list[str]
    """One for each entry of ``columns.products``."""
    alike: list[tuple[npt.NDArray[np.intp], bool]] = field(default_factory=list)
    """The places of those that were told by their form, and whether it has fields that this version does not know."""


class Bulk:
    """Takes the ordinary records of one kind.

    Parameters
    ----------
    kind
        One of :data:`BULK_KINDS`.
    decoder
        Knows the codes; its memory of good ones is shared.
    config, severity
        Of the deployment.
    """

    def __init__(self, kind: Kind, decoder: EventDecoder, config: Config, severity: Severity) -> None:
        self._kind: Kind = kind
        self._known = decoder
        self._skew_ms = config.intake.clock_skew_seconds * 1_000
        self._late_ms = config.intake.lateness_days * MS_PER_DAY
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._zone = timezone(timedelta(milliseconds=config.offset_ms))
        # Personal data is refused by the names of unknown fields, so one that is unknown needs a look.
        strict = kind in PERSONAL_KINDS
        self._decoder = LeanDecoder(EVENT_TYPES[kind], forbid=strict, longest=config.intake.max_record_bytes)
        self._alike = AlikeIntake(kind, decoder, config, severity)
        self._reporter = attrgetter(REPORTERS[kind])
        self._behind = attrgetter(REPORTERS[kind], "producer", "batch", "gtin")
        self._identities = Identities(kind)
        words = severity.nonconformity
        self._severity: dict[str | None, int] = {
            name: int(getattr(words, name)) for name in ("critical", "major", "minor")
        }
        self._severity[None] = 0

    def take(
        self,
        values: Sequence[bytes | None],
        headers: Sequence[Headers],
        offsets: Ints,
        arrivals: Ints,
        origin: Origin,
    ) -> Taken:
        """The ordinary among consecutive records of a raw partition.

        Parameters
        ----------
        values, headers
            Of the records, in the order of offsets.
        offsets
            Shape ``[record]``.
        arrivals
            Shape ``[record]``, epoch milliseconds, made monotone.
        origin
            The raw partition.
        """
        if any(headers):
            values = [
                value if not told or self._agrees(told) else None for value, told in zip(values, headers, strict=True)
            ]
        alike = self._alike_among(values, offsets, arrivals, origin)
        parts = [(rows, columns) for rows, columns, _ in alike]
        left = np.ones(len(values), np.bool_)
        for rows, _ in parts:
            left[rows] = False
        others = np.flatnonzero(left)
        if len(others):
            some = values if len(others) == len(values) else [values[row] for row in others.tolist()]
            rows, columns = self._parsed(some, offsets[others], arrivals[others], origin)
            parts.append((others[rows], columns))
        taken = self._together([part for part in parts if len(part[0])])
        taken.alike = [(rows, unknown_fields) for rows, _, unknown_fields in alike]
        return taken

    def _alike_among(
        self, values: Sequence[bytes | None], offsets: Ints, arrivals: Ints, origin: Origin
    ) -> list[tuple[npt.NDArray[np.intp], EventColumns, bool]]:
        """Those that need no parser (:mod:`streams.alike`), form by form; whether the form has unknown fields."""
        parts: list[tuple[npt.NDArray[np.intp], EventColumns, bool]] = []
        for plain in self._alike.take(values):
            kept = np.flatnonzero(self._timely(plain.reported, arrivals[plain.rows]))
            rows = plain.rows[kept]
            columns = plain.dated(kept, offsets[rows], arrivals[rows], self._calendar.offset_ms)
            columns.origins = [origin]
            parts.append((rows, columns.trimmed(), plain.unknown_fields))
        return parts

    def _together(self, parts: list[Part]) -> Taken:
        """Parts of a batch in the order of its records."""
        if not parts:
            return Taken(np.empty(0, np.intp), EventColumns.empty(), [])
        rows, columns = parts[0]
        if len(parts) > 1:
            rows = np.concatenate([rows for rows, _ in parts])
            order = np.argsort(rows)
            rows, columns = rows[order], concatenate([columns for _, columns in parts]).take(order)
        return Taken(rows, columns, [self._known.branch_of(code) or "" for code in columns.products])

    def _parsed(self, values: Sequence[bytes | None], offsets: Ints, arrivals: Ints, origin: Origin) -> Part:
        """Those that are good by the parser, and their columns."""
        events, rows = self._decoder.decode(values)
        if not events:
            return rows, EventColumns.empty()
        columns: dict[str, npt.NDArray[Any]] = {"arrival": arrivals[rows], "offset": offsets[rows]}
        good = self._clocks(events, columns)
        columns["n"], columns["x"], sound = self._measures(events)
        good &= sound & self._codes(events)
        columns["product"], products = _coded([event.product for event in events])
        columns["region"], regions = _coded([event.region for event in events])
        good &= _each([self._known.branch_of(code) is not None for code in products], columns["product"])
        good &= _each(map(self._known.is_region, regions), columns["region"])
        columns["reporter"], reporters = _coded(list(map(self._reporter, events)))
        columns["trace"], traces = self._traces(events, columns["x"])
        columns["hazard"], hazards = self._hazards(events)
        columns["severity"] = self._severities(events)
        columns["event"] = self._ids(events)
        columns["revision"] = np.array([event.revision for event in events], np.int32)
        columns["flags"] = np.array([event.withdrawn for event in events], np.bool_) * np.uint8(WITHDRAWN)
        columns["indicator"] = np.full(len(events), KINDS.index(self._kind), np.uint8)
        columns["origin"] = np.zeros(len(events), np.int16)
        typed = {name: columns[name].astype(dtype, copy=False) for name, dtype in COLUMN_TYPES.items()}
        taken = EventColumns(typed, products, regions, traces, [origin], [], reporters, hazards)
        if not good.all():
            kept = np.flatnonzero(good)
            rows, taken = rows[kept], taken.take(kept).trimmed()
        return rows, taken

    def _agrees(self, headers: Headers) -> bool:
        """Whether the headers of a record name no kind but this."""
        said = [text for name, text in headers or () if name == "ce_type" and text is not None]
        return all(kind_in(text) == self._kind for text in said)

    # --- from Structs to columns, and what is ordinary -------------------------------------------------------------

    def _clocks(self, events: list[Any], columns: dict[str, npt.NDArray[Any]]) -> Bools:
        calendar, arrival = self._calendar, columns["arrival"]
        reported = self._epoch_ms([event.reported_at for event in events])
        told = [event.occurred_at for event in events]
        occurred = reported
        if told.count(None) < len(told):
            occurred = reported.copy()
            occurred[[at is not None for at in told]] = self._epoch_ms([at for at in told if at is not None])
        columns["day"] = (reported + calendar.offset_ms) // MS_PER_DAY
        columns["delay"] = delays((occurred + calendar.offset_ms) // MS_PER_DAY, arrival, calendar.offset_ms)
        # Before the second day, parts of a millisecond are cut off the other way.
        return self._timely(reported, arrival) & (occurred >= MS_PER_DAY) & (occurred <= reported + MS_PER_DAY)

    def _timely(self, reported: Ints, arrival: Ints) -> Bools:
        """Whether reports come neither before their time nor too late."""
        return (
            (reported >= MS_PER_DAY)
            & (reported < LAST_MS)
            & (reported <= arrival + self._skew_ms)
            & (reported >= arrival - self._late_ms)
        )

    def _epoch_ms(self, moments: list[datetime]) -> Ints:
        """Epoch milliseconds, rounded down."""
        zone = moments[0].tzinfo or self._zone
        try:
            # Differences of moments in one zone are by far the cheapest; those in others are as exact.
            begin = datetime(1970, 1, 1, tzinfo=moments[0].tzinfo)
            since = [at - begin for at in moments]
        except TypeError:  # some have a zone, some have none
            begin = datetime(1970, 1, 1, tzinfo=zone)
            since = [(at if at.tzinfo is not None else at.replace(tzinfo=self._zone)) - begin for at in moments]
        days = np.array([span.days for span in since], np.int64)
        seconds = np.array([span.seconds for span in since], np.int64)
        micros = np.array([span.microseconds for span in since], np.int64)
        ahead = zone.utcoffset(None) or timedelta()
        return days * MS_PER_DAY + seconds * 1_000 + micros // 1_000 - ahead // timedelta(milliseconds=1)

    def _measures(self, events: list[Any]) -> tuple[Ints, Ints, Bools]:
        """n and x of each event, and whether its fields agree with one another."""
        size = len(events)
        if self._kind != "inspection":
            return np.ones(size, np.int64), np.ones(size, np.int64), np.ones(size, np.bool_)
        tested = _numbers([event.tested for event in events])
        failed = _numbers([event.failed for event in events])
        verdict = np.fromiter(map(_VERDICTS.__getitem__, [event.verdict for event in events]), np.int8, size)
        passes, fails = verdict == 0, verdict == 1
        single = (tested < 0) & (failed < 0) & (fails | (passes & ~self._broken(events, passes)))
        aggregate = (tested > 0) & (failed >= 0) & (failed <= tested) & ~passes & ~fails
        return np.where(single, 1, tested), np.where(single, fails, failed), single | aggregate

    def _broken(self, events: list[Any], passes: Bools) -> Bools:
        """Whether an item of an event does not conform, for those with a verdict that then contradicts it."""
        items = [event.items for event in events]
        broken = np.zeros(len(items), np.bool_)
        if any(items):
            rows = np.flatnonzero(passes)
            broken[rows] = [not all(map(_conforms, items[row])) for row in rows.tolist()]
        return broken

    def _codes(self, events: list[Any]) -> Bools:
        """Whether producer, GTIN and free text of each event are good, and its kind the topic's."""
        known, kind = self._known, self._kind
        good = _vouched([event.kind for event in events], kind.__eq__)
        good &= _vouched([event.producer for event in events], known.is_producer)
        good &= _vouched([event.gtin for event in events], known.is_gtin)
        for name in FREE_TEXT.get(kind, ()):
            good &= _vouched(list(map(attrgetter(name), events)), _is_harmless)
        if kind == "injury":
            good &= _vouched([event.outcome for event in events], "died".__ne__)
        return good

    def _severities(self, events: list[Any]) -> npt.NDArray[Any]:
        if self._kind == "injury":
            return np.array([event.severity for event in events], np.uint8)
        words = self._severity
        return np.fromiter(map(words.__getitem__, [event.severity for event in events]), np.uint8, len(events))

    def _hazards(self, events: list[Any]) -> tuple[npt.NDArray[Any], list[str]]:
        if self._kind != "injury":
            return np.full(len(events), -1, np.int32), []
        return _coded([event.injury for event in events])

    def _traces(self, events: list[Any], x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str]]:
        """Who, of which producer, batch and GTIN, for each event that counts against a product."""
        rows = np.flatnonzero(x)
        codes = np.full(len(events), -1, np.int32)
        codes[rows], behind = _coded([self._behind(events[row]) for row in rows.tolist()])
        return codes, [msgspec.json.encode(one).decode() for one in behind]

    def _ids(self, events: list[Any]) -> npt.NDArray[np.uint64]:
        codes, sources = _coded([event.source for event in events])
        return self._identities.of(sources, codes, Texts.of([event.event_id.encode() for event in events]))


def _numbers(values: list[int | None]) -> Ints:
    """The numbers, none of them negative, and -1 for None."""
    if values.count(None) == len(values):
        return np.full(len(values), -1, np.int64)
    return np.array([-1 if value is None else value for value in values], np.int64)


def _coded(values: Sequence[_Value | None]) -> tuple[npt.NDArray[np.int32], list[_Value]]:
    """Indices into a table of the distinct values in the order of their first appearance; -1 for None."""
    table: defaultdict[_Value | None, int] = defaultdict(count().__next__)
    codes = np.fromiter(map(table.__getitem__, values), np.int32, len(values))
    if None in table:
        absent = table[None]
        codes = np.where(codes == absent, -1, codes - (codes > absent)).astype(np.int32)
    return codes, [value for value in table if value is not None]


def _each(flags: Iterable[bool], codes: npt.NDArray[Any]) -> Bools:
    """A flag of each table entry, for each row."""
    table = np.array(list(flags), np.bool_)
    return table[codes] if len(table) else np.ones(len(codes), np.bool_)


def _is_harmless(text: str) -> bool:
    return not has_personal_number(text)


def _vouched(values: list[str | None], is_good: Callable[[str], bool]) -> Bools:
    """Whether each value is absent or good; each distinct one is looked at once."""
    bad: set[str | None] = set()
    if values.count(None) < len(values):
        bad = {value for value in set(values) if value is not None and not is_good(value)}
    if not bad:
        return np.ones(len(values), np.bool_)
    return np.array([value not in bad for value in values], np.bool_)
