"""Many valid events as columns: what travels from intake to assess, and what a state segment holds.

One :class:`EventColumns` holds events of any kinds. Text is dictionary-coded: ``products``, ``regions`` and
``traces`` hold each distinct value once. A *note* row has no content: it says that a higher revision of the id
exists in another partition, so that a correction that moves an event to another product leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from streams.stored import reading, unpack

__all__ = [
    "COLUMNS_VERSION",
    "COLUMN_TYPES",
    "INDICATORS",
    "LONGEST_DELAY",
    "NOTE",
    "TABLES",
    "WITHDRAWN",
    "EventColumns",
    "Grave",
    "concatenate",
    "constant",
    "constant_if_same",
]

INDICATORS: Final = ("pass", "injury", "complaint", "accident", "satisfaction", "loss")
"""What is measured; an indicator's number is its place, which is also the place of its event kind."""

TABLES: Final = (
    ("product", "products"),
    ("region", "regions"),
    ("trace", "traces"),
    ("origin", "origins"),
    ("reporter", "reporters"),
    ("hazard", "hazards"),
)
"""The dictionary-coded columns, and the tables that their indices point to."""

COLUMNS_VERSION: Final = 3
LONGEST_DELAY: Final = 32_767
"""Days; a longer one is told as this."""
_WIDTHS: Final = (0, 1, 2, 4)
"""Bytes that a stored value may take, beside those of its type."""
_FEW: Final = 256
_MOST: Final = 4
"""A part keeps the dictionaries of the whole up to so many entries a row: trimming would cost more."""
WITHDRAWN: Final = 1
NOTE: Final = 2

COLUMN_TYPES: Final[dict[str, Any]] = {
    "event": np.uint64,  # of (kind, source, event_id): streams/identity.py
    "revision": np.int32,
    "flags": np.uint8,
    "indicator": np.uint8,
    "severity": np.uint8,  # 0 unknown, 1..4
    "day": np.int32,  # local day on which it counts
    "arrival": np.int64,  # epoch ms, monotone within an origin
    "offset": np.int64,
    "origin": np.int16,  # index into origins
    "product": np.int32,
    "region": np.int32,
    "trace": np.int32,  # index into traces, -1 for none
    "reporter": np.int32,  # index into reporters: the lab, site, channel, authority or surveyor
    "hazard": np.int32,  # index into hazards: the kind of injury, -1 for none
    "delay": np.int16,  # days from the occurrence (or, where unknown, the report) to the arrival
    "n": np.int64,  # tested, respondents, output; 1 for plain counts
    "x": np.int64,  # failed, events, score in hundredths times respondents, loss
}


class Grave(msgspec.Struct, array_like=True):
    """A grave event among the rows: its row, the id of its alert, and its level."""

    row: int
    alert_id: str
    level: int


class _Narrow(msgspec.Struct, array_like=True):
    """A column as it is stored: what its values are above the least of them, in as few bytes as the greatest needs, and
    none at all where all are the same (frame of reference: Goldstein, Ramakrishnan and Shaft 1998)."""

    least: int
    width: int
    data: bytes

    @classmethod
    def of(cls, column: npt.NDArray[Any]) -> _Narrow:
        if len(column) and _is_constant(column):
            return cls(int(column[0]), 0, b"")
        least = int(column.min()) if len(column) else 0
        span = int(column.max()) - least if len(column) else 0
        width = next((width for width in _WIDTHS if span < 1 << 8 * width), column.itemsize)
        if width >= column.itemsize:
            return cls(0, column.itemsize, column.tobytes())
        above = (column - column.dtype.type(least)).astype(f"<u{width}") if width else column[:0]
        return cls(least, width, above.tobytes())

    def column(self, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The column of so many rows."""
        kind = np.dtype(dtype)
        if self.width not in (*_WIDTHS, kind.itemsize) or self.width > kind.itemsize:
            raise ValueError(f"no value of {kind.name} has {self.width} bytes")
        if len(self.data) != size * self.width:
            raise ValueError("its columns are of different lengths")
        if self.width == kind.itemsize:
            return np.frombuffer(self.data, kind)
        if not self.width:
            return constant(self.least, size, kind)
        above = np.frombuffer(self.data, f"<u{self.width}").astype(kind)
        above += kind.type(self.least)
        return above


class _Packed(msgspec.Struct, array_like=True):
    version: int
    events: bytes
    columns: dict[str, _Narrow]
    products: list[str]
    regions: list[str]
    traces: list[str]
    origins: list[tuple[str, int]]
    reporters: list[str]
    hazards: list[str]
    graves: list[Grave]


@dataclass(slots=True)
class EventColumns:
    """Equal-length columns (see ``COLUMN_TYPES``) and the dictionaries that their indices point to.

    Nobody writes into a column, for several may share its memory, and one of a single value (:func:`constant`) has but
    one place.
    """

    columns: dict[str, npt.NDArray[Any]]
    products: list[str] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    origins: list[tuple[str, int]] = field(default_factory=list)
    graves: list[Grave] = field(default_factory=list)
    reporters: list[str] = field(default_factory=list)
    hazards: list[str] = field(default_factory=list)

    @property
    def tables(self) -> dict[str, list[Any]]:
        """The tables by their names."""
        return {table: getattr(self, table) for _, table in TABLES}

    def __len__(self) -> int:
        return len(self.columns["event"])

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    @classmethod
    def empty(cls) -> EventColumns:
        return cls({name: np.empty(0, dtype) for name, dtype in COLUMN_TYPES.items()})

    def take(self, rows: npt.NDArray[np.intp]) -> EventColumns:
        """Some rows, in the given order; the dictionaries are shared, not trimmed."""
        graves = []
        if self.graves:
            place = {int(row): at for at, row in enumerate(rows)}
            graves = [Grave(place[g.row], g.alert_id, g.level) for g in self.graves if g.row in place]
        picked = {
            name: column[: len(rows)] if _is_constant(column) and len(rows) <= len(column) else column.take(rows)
            for name, column in self.columns.items()
        }
        return EventColumns(picked, graves=graves, **self.tables)

    def between(self, start: int, stop: int) -> EventColumns:
        """The rows from ``start`` to ``stop``; with dictionaries of their own where those of the whole are far larger
        than the part."""
        graves = [Grave(g.row - start, g.alert_id, g.level) for g in self.graves if start <= g.row < stop]
        rows = {name: column[start:stop] for name, column in self.columns.items()}
        tables = self.tables
        part = EventColumns(rows, graves=graves, **tables)
        return part if sum(map(len, tables.values())) <= (stop - start) * _MOST + _FEW else part.trimmed()

    def trimmed(self, whole: Container[str] = ()) -> EventColumns:
        """The same rows with dictionaries that hold only what they use, for storing; those named ``whole`` stay."""
        columns = dict(self.columns)
        texts: dict[str, list[Any]] = {}
        for name, table in TABLES:
            values: list[Any] = getattr(self, table)
            if table in whole:
                texts[table] = values
                continue
            used, codes = _recoded(columns[name], len(values))
            texts[table] = [values[number] for number in used]
            columns[name] = codes.astype(COLUMN_TYPES[name], copy=False)
        return EventColumns(columns, graves=self.graves, **texts)

    def pack(self) -> bytes:
        """Bytes for a topic or a state row."""
        narrow = {name: _Narrow.of(column) for name, column in self.columns.items() if name != "event"}
        events = self.columns["event"].tobytes()
        return msgspec.msgpack.encode(_Packed(COLUMNS_VERSION, events, narrow, graves=self.graves, **self.tables))

    @classmethod
    def unpack(cls, data: bytes) -> EventColumns:
        """The inverse of :meth:`pack`; StoredStateError when the bytes are not of this version."""
        packed = unpack(data, _Packed, COLUMNS_VERSION, "a batch of event columns")
        with reading("a batch of event columns"):
            columns: dict[str, npt.NDArray[Any]] = {"event": np.frombuffer(packed.events, COLUMN_TYPES["event"])}
            for name, dtype in COLUMN_TYPES.items():
                if name != "event":
                    columns[name] = packed.columns[name].column(len(columns["event"]), dtype)
        return cls(columns, graves=packed.graves, **{table: getattr(packed, table) for _, table in TABLES})


def _recoded(codes: npt.NDArray[Any], size: int) -> tuple[list[int], npt.NDArray[Any]]:
    """The entries of a table of ``size`` that are used, in the order of their first use, and the codes among those."""
    count = len(codes)
    if (size == 0 and (codes < 0).all()) or (size == 1 and count and not codes.any()):
        return list(range(size)), codes  # kinds without hazards, batches of one origin
    if count < _FEW or size > count * _FEW:
        # A dictionary, not arrays: ticks are mostly a handful of rows.
        place: dict[int, int] = {}
        few = [place.setdefault(code, len(place)) if code >= 0 else -1 for code in codes.tolist()]
        return list(place), np.array(few, np.int64)
    first = np.full(size + 1, count)
    first[codes[::-1]] = np.arange(count)[::-1]  # the last to be written is the first use; -1 goes to the end
    first[-1] = count
    used = np.argsort(first)[: int((first < count).sum())]  # no two have the same first use
    table = np.full(size + 1, -1)
    table[used] = np.arange(len(used))
    return used.tolist(), table[codes]


def concatenate(parts: list[EventColumns]) -> EventColumns:
    """One EventColumns of all rows in order, with merged dictionaries."""
    if not parts:
        return EventColumns.empty()
    if len(parts) == 1:
        return parts[0]
    columns = {name: [part[name] for part in parts] for name in COLUMN_TYPES}
    tables: dict[str, list[Any]] = {}
    for name, where in TABLES:
        lists: list[list[Any]] = [getattr(part, where) for part in parts]
        if all(values is lists[0] for values in lists):  # parts of one whole
            tables[where] = lists[0]
            continue
        table: dict[Any, int] = {}
        for at, (part, values) in enumerate(zip(parts, lists, strict=True)):
            codes = [table.setdefault(value, len(table)) for value in values]
            if codes != list(range(len(codes))):  # else they stay what they are; the last entry is that of -1, none
                columns[name][at] = np.array([*codes, -1], COLUMN_TYPES[name]).take(part[name])
        tables[where] = list(table)
    graves: list[Grave] = []
    start = 0
    for part in parts:
        graves += [Grave(g.row + start, g.alert_id, g.level) for g in part.graves]
        start += len(part)
    return EventColumns({name: _joined(some) for name, some in columns.items()}, graves=graves, **tables)


def constant(value: int, size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A column of one value, which takes the memory of that alone, and next to no time to pick from."""
    column: npt.NDArray[Any] = np.ndarray((size,), dtype, np.array([value], dtype), strides=(0,))
    column.flags.writeable = False
    return column


def constant_if_same(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A column, as a constant one where all of its values are the same."""
    if len(column) and (column == column[0]).all():
        return constant(int(column[0]), len(column), column.dtype)
    return column


def _is_constant(column: npt.NDArray[Any]) -> bool:
    return column.strides[0] == 0


def _joined(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The parts of a column in order; constant where they are, all with the same value."""
    some = [part for part in parts if len(part)]
    if some and all(map(_is_constant, some)) and all(part[0] == some[0][0] for part in some[1:]):
        return constant(int(some[0][0]), sum(map(len, some)), some[0].dtype)
    return np.concatenate(parts)
