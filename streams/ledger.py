"""The ledger: which events count, once each.

The rule, which makes the outcome the same for any number of keyed partitions:

- A *first report* (revision 0) counts once for its event id and the shard of its product branch. A shard is never split
  between partitions, so a sender that reports one id for two branches is counted alike everywhere: once for each shard.
- A *correction* (revision 1 and up) replaces the id in all shards. Every partition sees it, as content or as a note
  without content, and remembers its revision. What is no higher than that, first reports too, is dropped.
- Within a tick the highest revision wins; among equals the first to arrive, then the lowest (origin, offset).

Rows are appended in tick order. They are found by the hashes that their ids are (:mod:`streams.slots`), so that a
lookup of many ids is a handful of vector operations and an event costs tens of bytes, not a Python object. First
reports and corrections have an index each: of an id that has been corrected ever so often only the last one is asked
for, and its first reports are as many as there are shards at the most.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.radix import order_by_hash, starts_of
from streams.slots import Slots

__all__ = ["LEDGER_TYPES", "Ledger", "winners"]

LEDGER_TYPES: Final[dict[str, Any]] = {
    "event": np.uint64,
    "revision": np.int32,
    "shard": np.uint8,  # of the product branch
    "live": np.bool_,
    "indicator": np.uint8,
    "severity": np.uint8,
    "leaf": np.int32,
    "day": np.int32,
    "n": np.int64,
    "x": np.int64,
    "origin": np.int16,
    "offset": np.int64,
    "trace": np.int32,
    "reporter": np.int32,
    "hazard": np.int32,
}
"""What the values of a column are; they are held in less while all fit (:class:`Ledger`)."""
_WIDER: Final = (np.int8, np.int16, np.int32, np.int64)

Columns = dict[str, npt.NDArray[Any]]
Ids = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int32]

_CORRECTION: Final = 255
"""The group of an id's corrections; its first reports are grouped by shard."""


def winners(
    event: npt.NDArray[np.uint64], revision: npt.NDArray[np.int32], shard: npt.NDArray[np.uint8], tie: Columns
) -> npt.NDArray[np.intp]:
    """Rows that win within one tick, in the order of their ids and shards.

    Neither batching nor interleaving nor the number of partitions can show: notes compete like content.
    """
    order = order_by_hash(event)
    ids = event[order]
    if not (ids[1:] == ids[:-1]).any():  # nothing competes
        return order
    correction = revision > 0
    group = np.where(correction, np.uint8(_CORRECTION), shard)
    order = np.lexsort((tie["offset"], tie["origin"], tie["arrival"], -revision.astype(np.int64), group, event))
    ids, groups = event[order], group[order]
    first = np.ones(len(order), bool)
    first[1:] = (ids[1:] != ids[:-1]) | (groups[1:] != groups[:-1])
    best = order[first]
    if correction.any():
        best = best[correction[best] | ~np.isin(event[best], event[correction])]
    return best


class _Index:
    """The last row of every id, and of rows with an id that was there already the one before.

    The ids of the rows are held by the ledger: ``held``.
    """

    def __init__(self) -> None:
        self._slots = Slots(hashes=True)
        self._before = np.empty(0, np.int32)
        """Of the rows up to the last one that has one before it, -1 for none: mostly there is not any."""

    @property
    def nbytes(self) -> int:
        return self._slots.nbytes + self._before.nbytes

    def add(self, rows: Rows, held: Ids) -> None:
        """Add rows in their order; they must lie behind all that were added before."""
        if not len(rows):
            return
        ids = held.take(rows)
        if (ids[1:] > ids[:-1]).all():  # the rule: a tick's rows come in the order of their ids
            self._note_before(rows, self._slots.put(ids, rows, held))
            return
        order = np.argsort(ids, kind="stable")
        ids, rows = ids[order], rows[order]
        first = starts_of(ids)
        last = np.append(first[1:], len(ids)) - 1
        before = np.append(np.int32(-1), rows[:-1])
        before[first] = self._slots.put(ids[first], rows[last], held)
        self._note_before(rows, before)

    def expect(self, count: int, held: Ids) -> None:
        """Make room for so many ids."""
        self._slots.expect(count, held)

    def drop(self, count: int, held: Ids) -> None:
        """Forget the first ``count`` rows; the others move up by as many, and ``held`` has moved already."""
        self._slots.drop(count, held)
        self._before = np.maximum(self._before[count:] - np.int32(count), np.int32(-1))

    def last(self, ids: Ids, held: Ids) -> Rows:
        """The last row of each id, -1 where there is none."""
        return self._slots.find(ids, held)

    def every(self, ids: Ids, held: Ids) -> tuple[npt.NDArray[np.intp], Rows]:
        """All rows of all ids, as pairs: which of the ids asked for, and its row."""
        rows = self.last(ids, held)
        which = np.flatnonzero(rows >= 0)
        rows = rows[which]
        found = [(which, rows)]
        while len(which) and len(self._before):
            rows = np.where(rows < len(self._before), self._before.take(rows, mode="clip"), np.int32(-1))
            some = np.flatnonzero(rows >= 0)
            which, rows = which[some], rows[some]
            found.append((which, rows))
        return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])

    def _note_before(self, rows: Rows, before: Rows) -> None:
        some = before >= 0
        if not some.any():
            return
        rows, before = rows[some], before[some]
        size = int(rows.max()) + 1
        if size > len(self._before):
            more = np.full(size + size // 8 - len(self._before), -1, np.int32)
            self._before = np.concatenate([self._before, more])
        self._before[rows] = before


class Ledger:
    """Append-only columns in tick order; a row that a correction replaced goes dead.

    Most numbers are small, so a column of signed ones begins with a byte for each, and becomes as wide as the first
    value that needs it.
    """

    def __init__(self) -> None:
        self._columns: Columns = {name: np.empty(1_024, _least(dtype)) for name, dtype in LEDGER_TYPES.items()}
        self._size = 0
        self._ticks: list[int] = []
        self._starts: list[int] = []
        """The first row of each tick that has any."""
        self._first_reports = _Index()
        self._corrections = _Index()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A view of one column as it is held: to compare its values, not to reckon with them (:meth:`at`)."""
        return self._columns[name][: self._size]

    def at(self, name: str, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[Any]:
        """The values of a column in some rows, in their own type."""
        return self._columns[name].take(rows).astype(LEDGER_TYPES[name], copy=False)

    @property
    def ticks(self) -> list[tuple[int, int]]:
        """Each tick that has rows, and the first of them."""
        return list(zip(self._ticks, self._starts, strict=True))

    @property
    def first_tick(self) -> int | None:
        """The tick of the first row, if there is any."""
        return self._ticks[0] if self._ticks else None

    @property
    def nbytes(self) -> int:
        indexes = self._first_reports.nbytes + self._corrections.nbytes
        # What columns have room for beyond their rows was never written to, and takes no memory.
        return self._size * sum(column.itemsize for column in self._columns.values()) + indexes

    def known(
        self, events: npt.NDArray[np.uint64], revisions: npt.NDArray[np.int32], shards: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.bool_]:
        """Which of these reports add nothing to what is held: held already, or superseded by a correction."""
        known, held = np.zeros(len(events), bool), self["event"]
        which, rows = self._first_reports.every(events, held)
        known[which[self["shard"][rows] == shards[which]]] = True
        known &= revisions == 0
        last = self._corrections.last(events, held)
        corrected = last >= 0
        known[corrected] = revisions[corrected] <= self["revision"][last[corrected]]
        return known

    def replaced(self, events: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The rows, live and dead, that new corrections of these ids replace."""
        if not len(events):
            return np.empty(0, np.int64)
        held = self["event"]
        last = self._corrections.last(events, held)
        return np.concatenate([self._first_reports.every(events, held)[1], last[last >= 0]])

    def append(self, tick: int, rows: Columns) -> None:
        """Add rows of a tick at the end, none of them known. Ticks must not decrease."""
        count = len(rows["event"])
        if count == 0:
            return
        self._reserve(self._size + count)
        for name in self._columns:
            self._wide_enough(name, rows[name])[self._size : self._size + count] = rows[name]
        if self._ticks[-1:] != [tick]:
            self._ticks.append(tick)
            self._starts.append(self._size)
        new = np.arange(self._size, self._size + count, dtype=np.int32)
        self._size += count
        correction = rows["revision"] > 0
        for index, mine in ((self._first_reports, ~correction), (self._corrections, correction)):
            index.add(new[mine], self["event"])

    def expect(self, count: int) -> None:
        """Make room for so many rows in all: then none has to move on the way there."""
        self._reserve(count)
        self._first_reports.expect(count, self["event"])

    def kill(self, at: npt.NDArray[np.int64]) -> None:
        """Mark rows as replaced: they no longer count."""
        self._columns["live"][at] = False

    def drop_before(self, tick: int) -> int:
        """Forget the rows that were folded before a tick; returns how many. The others move up by as many."""
        count = int(self.since(tick).start)
        if count:
            gone = bisect_left(self._ticks, tick)
            self._ticks, self._starts = self._ticks[gone:], [start - count for start in self._starts[gone:]]
            self._size -= count
            for name, column in self._columns.items():
                self._columns[name] = column[count : count + self._size].copy()
            for index in (self._first_reports, self._corrections):
                index.drop(count, self["event"])
        return count

    def renumber(self, name: str, table: npt.NDArray[np.int32]) -> None:
        """Put ``table[number]`` in the place of every number of a dictionary-coded column; -1 stays."""
        held = self[name]
        held[:] = np.where(held >= 0, table[np.maximum(held, 0)], -1)

    def since(self, tick: int) -> slice:
        """The rows that were folded at that tick or later."""
        number = bisect_left(self._ticks, tick)
        return slice(self._starts[number] if number < len(self._ticks) else self._size, self._size)

    def _wide_enough(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A column in which some values have their place."""
        column = self._columns[name]
        if column.dtype == LEDGER_TYPES[name]:
            return column
        low, high = int(values.min()), int(values.max())
        needed = next(one for one in _WIDER if np.iinfo(one).min <= low and high <= np.iinfo(one).max)
        if np.dtype(needed).itemsize > column.itemsize:
            column = self._columns[name] = self._copied(column, len(column), needed)
        return column

    def _reserve(self, size: int) -> None:
        capacity = len(self._columns["event"])
        if size <= capacity:
            return
        grown = max(size, 2 * capacity)
        for name, column in self._columns.items():
            self._columns[name] = self._copied(column, grown, column.dtype)

    def _copied(self, column: npt.NDArray[Any], capacity: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        copy = np.empty(capacity, dtype)
        copy[: self._size] = column[: self._size]
        return copy


def _least(dtype: npt.DTypeLike) -> npt.DTypeLike:
    """What a column of values of a type begins with."""
    return np.int8 if np.issubdtype(dtype, np.signedinteger) else dtype
