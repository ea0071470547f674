"""From codes and numbers of fields to the columns of events: what two ways of reading rows have in common.

A table (:mod:`streams.columnar`) and records alike in form (:mod:`streams.alike`) both give, for every row, the number
of each field's value among the field's values. From there on it is the same: do the fields agree with one another, how
grave is it, who stands behind it, which event is it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.inspect import FloatType, IntType, NoneType, StructType, Type, UnionType, type_info

from schemas.events import EVENT_TYPES, KINDS, REPORTERS, Kind
from schemas.personal import FREE_TEXT, has_personal_number
from streams.columns import COLUMN_TYPES, LONGEST_DELAY, WITHDRAWN, EventColumns, constant, constant_if_same
from streams.decode import EventDecoder
from streams.identity import Identities
from streams.siphash import Texts
from streams.ticks import MS_PER_DAY, Calendar

if TYPE_CHECKING:
    from schemas.severity import Severity
    from streams.config import Config

__all__ = [
    "ABSENT",
    "BAD",
    "LONGEST_ID",
    "FieldValues",
    "Numbers",
    "PlainRows",
    "RowPacker",
    "delays",
    "fields_of",
    "vouching",
]

ABSENT: Final = -1
BAD: Final = -2
"""Codes beside those of values: an empty cell, and one that a single row's journey must judge."""
LONGEST_ID: Final = 128
"""Bytes of the longest ``event_id`` that needs no closer look."""
_MOSTLY_SAME: Final = ("revision", "flags", "severity", "n")
"""Columns in which most batches have one value."""

Bools = npt.NDArray[np.bool_]
Codes = dict[str, npt.NDArray[np.int32]]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


@dataclass(slots=True)
class PlainRows:
    """The rows of a table that are ordinary events.

    Parameters
    ----------
    rows
        Their places in the table, ascending.
    reported
        ``reported_at`` in epoch milliseconds: the time of the record.
    since
        The local day of the occurrence, or of the report where that is unknown.
    columns
        The events; their arrival, offset and delay are yet to be told.
    unknown_fields
        Whether all of them have fields that this version does not know; else none of them has.
    """

    rows: Rows
    reported: Ints
    since: Ints
    columns: EventColumns
    unknown_fields: bool = False

    def dated(self, some: Rows, offsets: Ints, arrivals: Ints, offset_ms: int) -> EventColumns:
        """The columns of some of the rows, with the offsets and arrivals of their records, and so with their delays."""
        columns = self.columns.take(some)
        told = {"arrival": arrivals, "offset": offsets, "delay": delays(self.since[some], arrivals, offset_ms)}
        for name, values in told.items():
            columns.columns[name] = values.astype(COLUMN_TYPES[name])
        return columns


def delays(since: Ints, arrivals: Ints, offset_ms: int) -> Ints:
    """Days from the local days of the occurrences to the arrivals."""
    return np.asarray(np.clip((arrivals + offset_ms) // MS_PER_DAY - since, 0, LONGEST_DELAY), np.int64)


@dataclass(slots=True)
class Numbers:
    """A number of each row: its value (NaN where absent or bad), and whether it may stand so."""

    values: Floats
    good: Bools

    def whole(self, absent: int) -> Ints:
        """As integers; the sums of those that are not good mean nothing."""
        return np.where(np.isnan(self.values), absent, self.values).astype(np.int64)

    def of(self, rows: Rows, absent: int) -> Ints:
        """The integers of some rows."""
        values = self.values[rows]
        return np.where(np.isnan(values), absent, values).astype(np.int64)


class FieldValues:
    """The good values of one field, each once, by number.

    Parameters
    ----------
    field
        Its description by msgspec.
    becomes
        What a good value is kept as, ``None`` for a value that this code does not vouch for.
    """

    def __init__(self, field: Any, becomes: Callable[[Any], Any] | None = None) -> None:
        self.required: bool = field.required
        self.bounds = _bounds(field.type)
        self.values: list[Any] = []
        self._becomes = becomes
        self._code: dict[Any, int] = {}
        self._numbers: Floats | None = None

    def forget(self) -> None:
        """Begin anew: no code holds any more."""
        self._code, self.values, self._numbers = {}, [], None

    def keep(self, value: Any) -> int:
        """The code of a value that is of the field's type."""
        if value is None:
            return ABSENT
        found = value if self._becomes is None else self._becomes(value)
        if found is None:
            return BAD
        code = self._code.setdefault(found, len(self._code))
        if code == len(self.values):
            self.values.append(found)
            self._numbers = None
        return code

    def numbers(self, codes: npt.NDArray[np.int32]) -> Numbers:
        """The numbers that codes stand for."""
        if self._numbers is None:
            self._numbers = np.array([*map(float, self.values), np.nan, np.nan], np.float64)
        return Numbers(self._numbers[codes], codes >= (0 if self.required else ABSENT))


def _bounds(type_: Type) -> tuple[bool, float, float] | None:
    """Of a number: whether it is whole, and what it must lie between; None for all else."""
    every = type_.types if isinstance(type_, UnionType) else (type_,)
    found = next((one for one in every if isinstance(one, IntType | FloatType)), None)
    if found is None or any(not isinstance(one, IntType | FloatType | NoneType) for one in every):
        return None
    low = -np.inf if found.gt is None else np.nextafter(found.gt, np.inf)
    high = np.inf if found.lt is None else np.nextafter(found.lt, -np.inf)
    low, high = (low if found.ge is None else found.ge), (high if found.le is None else found.le)
    return isinstance(found, IntType), float(low), float(high)


def fields_of(kind: Kind) -> dict[str, tuple[Any, Any]]:
    """Every field of a kind of event by name: its description by msgspec, and its type with the bounds."""
    struct = type_info(EVENT_TYPES[kind])
    assert isinstance(struct, StructType)  # noqa: S101 - for the type checker
    types = {field.name: field.type for field in msgspec.structs.fields(EVENT_TYPES[kind])}
    return {field.name: (field, types[field.name]) for field in struct.fields}


def vouching(kind: Kind, decoder: EventDecoder) -> dict[str, Callable[[Any], Any]]:
    """What values of some fields must be known to the decoder for: the value itself, or ``None``."""
    return {
        "product": _only(lambda code: decoder.branch_of(code) is not None),
        "region": _only(decoder.is_region),
        "producer": _only(decoder.is_producer),
        "gtin": _only(decoder.is_gtin),
        "kind": _only(lambda said: said == kind),
        **dict.fromkeys(FREE_TEXT.get(kind, ()), _only(lambda text: not has_personal_number(text))),
    }


def _only(is_good: Callable[[Any], bool]) -> Callable[[Any], Any]:
    return lambda value: value if is_good(value) else None


class RowPacker:
    """Makes columns of rows of one kind of event.

    Parameters
    ----------
    kind
        Of all rows.
    fields
        Every field, by its name.
    config, severity
        Of the deployment.
    """

    def __init__(self, kind: Kind, fields: Mapping[str, FieldValues], config: Config, severity: Severity) -> None:
        self._kind: Kind = kind
        self._fields = fields
        self._severity = severity
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._identities = Identities(kind)

    def pack(
        self,
        good: Bools,
        codes: Codes,
        counts: dict[str, Numbers],
        reported: Ints,
        since: Ints,
        ids: Texts,
        behind: Callable[[str, Rows], npt.NDArray[np.int32]] | None = None,
    ) -> PlainRows:
        """The rows that are good so far as columns, less those whose fields do not agree with one another.

        Parameters
        ----------
        good
            Shape ``[rows]``; takes the yes from rows that contradict themselves.
        codes, counts
            Of every field but times and ids, ``[rows]``.
        reported, since
            Epoch milliseconds, and the local day of the occurrence.
        ids
            Each row's ``event_id``, in UTF-8.
        behind
            The codes of a field for some rows, where they are told only for those that count against a product.
        """
        kind = self._kind
        withdrawn = self._flags("withdrawn", codes)
        columns: dict[str, npt.NDArray[Any]] = {"flags": np.where(withdrawn, WITHDRAWN, 0)}
        columns["n"], columns["x"] = self._measures(codes, counts, withdrawn, good)
        columns["severity"] = self._severities(codes, counts, withdrawn, good)
        rows = np.flatnonzero(good)
        columns = {name: column[rows] for name, column in columns.items()}
        for name, field in (("product", "product"), ("region", "region"), ("reporter", REPORTERS[kind])):
            columns[name] = codes[field][rows]
        hazard = self._fields["injury"].values if kind == "injury" else []
        columns["hazard"] = codes["injury"][rows] if kind == "injury" else constant(-1, len(rows), np.int32)
        columns["trace"], traces = self._traces(rows, behind or (lambda name, some: codes[name][some]), columns["x"])
        columns["event"] = self._identities.of(self._fields["source"].values, codes["source"][rows], ids.take(rows))
        columns["revision"] = counts["revision"].of(rows, 0)
        columns["indicator"] = constant(KINDS.index(kind), len(rows), COLUMN_TYPES["indicator"])
        columns["day"] = (reported[rows] + self._calendar.offset_ms) // MS_PER_DAY
        for name in ("arrival", "offset", "origin", "delay"):
            columns[name] = constant(0, len(rows), COLUMN_TYPES[name])
        typed = {name: columns[name].astype(dtype, copy=False) for name, dtype in COLUMN_TYPES.items()}
        for name in _MOSTLY_SAME:
            typed[name] = constant_if_same(typed[name])
        values = [self._fields[name].values for name in ("product", "region", REPORTERS[kind])]
        events = EventColumns(typed, values[0], values[1], traces, [], [], values[2], hazard)
        return PlainRows(rows, reported[rows], since[rows], events)

    def _flags(self, name: str, codes: Codes) -> Bools:
        """A truth of each row, false where absent."""
        return np.array([*self._fields[name].values, False, False], np.bool_)[codes[name]]

    def _measures(self, codes: Codes, counts: dict[str, Numbers], withdrawn: Bools, good: Bools) -> tuple[Ints, Ints]:
        """n and x of each row, as :func:`streams.intake._measure` has them."""
        size, kind = len(good), self._kind
        if kind == "survey":
            n = counts["respondents"].whole(1)
            return n, _rounded(counts["score"].values * 100.0) * n
        if kind == "loss":
            loss, output = counts["loss_cny"].values, counts["output_cny"].values
            good &= withdrawn | (loss <= output)
            return _rounded(output), _rounded(loss)
        if kind != "inspection":
            return np.ones(size, np.int64), np.ones(size, np.int64)
        tested, failed = counts["tested"].whole(-1), counts["failed"].whole(-1)
        verdict = np.array([*(word == "fail" for word in self._fields["verdict"].values), False, False])
        told, fails = codes["verdict"] >= 0, verdict[codes["verdict"]]
        single = (tested < 0) & (failed < 0) & told & (fails | ~self._flags("items", codes))
        aggregate = (tested > 0) & (failed >= 0) & (failed <= tested) & ~told
        good &= single | aggregate
        return np.where(single, 1, tested), np.where(single, fails, failed)

    def _severities(self, codes: Codes, counts: dict[str, Numbers], withdrawn: Bools, good: Bools) -> npt.NDArray[Any]:
        """Severity of each row on the injury scale; takes the yes from what must ring by itself."""
        kind, rules = self._kind, self._severity
        if kind == "injury":
            died = np.array([*(word == "died" for word in self._fields["outcome"].values), False, False])
            good &= ~died[codes["outcome"]]
            return counts["severity"].whole(0)
        if kind == "accident":
            deaths, hurt = counts["deaths"].whole(0), counts["seriously_injured"].whole(0)
            loss = np.nan_to_num(counts["loss_cny"].values)
            said = list(zip(deaths.tolist(), hurt.tolist(), loss.tolist(), strict=True))
            known = {one: rules.accident_level(*one) for one in set(said)}
            level = np.array([known[one] for one in said], np.int64)
            rings = (level <= rules.grave.from_level) | (deaths > 0)
            good &= withdrawn | ~(rings | (self._flags("structural", codes) & rules.grave.structural))
            return 5 - level
        if kind in ("inspection", "complaint"):
            words = [int(getattr(rules.nonconformity, word)) for word in self._fields["severity"].values]
            return np.array([*words, 0, 0], np.int64)[codes["severity"]]
        return np.zeros(len(good), np.int64)

    def _traces(
        self, rows: Rows, behind: Callable[[str, Rows], npt.NDArray[np.int32]], x: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], list[str]]:
        """Who, of which producer, batch and GTIN, for each row that counts against a product."""
        found = np.full(len(rows), -1, np.int64)
        counted = np.flatnonzero(x)
        if self._kind in ("survey", "loss") or not len(counted):
            return found, []
        names = (REPORTERS[self._kind], "producer", "batch", "gtin")
        coded = [behind(name, rows[counted]) for name in names]
        texts = [[*self._fields[name].values, None] for name in names]
        first, found[counted] = _numbered(coded, [len(values) for values in texts])
        said = zip(*(column[first].tolist() for column in coded), strict=True)
        return found, [
            msgspec.json.encode([values[code] for values, code in zip(texts, one, strict=True)]).decode()
            for one in said
        ]


def _numbered(columns: list[npt.NDArray[np.int32]], sizes: list[int]) -> tuple[npt.NDArray[np.intp], Ints]:
    """The distinct combinations of several columns of codes (-1 and up): a row of each, and the number of each row's.

    Parameters
    ----------
    sizes
        For each column one more than its greatest code.
    """
    key, many = np.zeros(len(columns[0]), np.int64), 1
    for column, size in zip(columns, sizes, strict=True):
        if many * (size + 1) > 2**62:
            distinct, key = np.unique(key, return_inverse=True)
            many = len(distinct)
        key, many = key * (size + 1) + column + 1, many * (size + 1)
    _, first, places = np.unique(key, return_index=True, return_inverse=True)
    return first, places


def _rounded(values: npt.NDArray[np.float64]) -> Ints:
    """The nearest integers, half to even, as Python's ``round``; 0 where there is no number."""
    return np.rint(np.nan_to_num(values)).astype(np.int64)
