"""The ledger: which events count, once each.

The rule, which makes the outcome the same for any number of keyed partitions:

- A *first report* (revision 0) counts once for its event id and the shard of its product branch. A shard is never split
  between partitions, so a sender that reports one id for two branches is counted alike everywhere: once for each shard.
- A *correction* (revision 1 and up) replaces the id in all shards. Every partition sees it, as content or as a note
  without content, and remembers its revision. What is no higher than that, first reports too, is dropped.
- Within a tick the highest revision wins; among equals the first to arrive, then the lowest (origin, offset).

Rows are appended in tick order. They are found by binary search in a few sorted runs of geometric sizes, so that a
lookup of many ids is a handful of vector operations and an event costs tens of bytes, not a Python object. First
reports and corrections have an index each: corrections are few, and looking for them in vain costs little.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from streams.radix import order_by_hash

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
    "tick": np.int64,
}

Columns = dict[str, npt.NDArray[Any]]


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


class _Marks:
    """A bit for the upper bits of every id that is held: most ids that are new are told by it at once.

    A byte for an id at the least and two at the most, so that one in sixteen to one in eight is asked for in vain.
    """

    def __init__(self) -> None:
        self._bits = 13
        self._bytes = np.zeros(2 ** (self._bits - 3), np.uint8)

    @property
    def nbytes(self) -> int:
        return self._bytes.nbytes

    @property
    def room(self) -> int:
        """So many ids may be held."""
        return len(self._bytes)

    def add(self, ids: npt.NDArray[np.uint64]) -> None:
        place, bit = self._places(ids)
        np.bitwise_or.at(self._bytes, place, bit)

    def maybe(self, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
        """Which of some ids may be held; the others are not."""
        place, bit = self._places(ids)
        return np.flatnonzero(self._bytes.take(place) & bit)

    def renewed(self, runs: list[npt.NDArray[np.uint64]]) -> None:
        """Hold the ids of these runs and no others, with room for as many again if they are many."""
        count = sum(map(len, runs))
        while 2 ** (self._bits - 3) < count:
            self._bits += 1
        self._bytes = np.zeros(2 ** (self._bits - 3), np.uint8)
        for ids in runs:
            self.add(ids)

    def _places(self, ids: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint8]]:
        slot = (ids >> np.uint64(64 - self._bits)).astype(np.intp)
        return slot >> 3, np.left_shift(1, slot & 7).astype(np.uint8)


class _Index:
    """Row numbers by event id, in a few sorted runs of geometric sizes (a log-structured merge index)."""

    def __init__(self) -> None:
        self._runs: list[tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]] = []
        self._marks = _Marks()

    @property
    def nbytes(self) -> int:
        return sum(ids.nbytes + places.nbytes for ids, places in self._runs) + self._marks.nbytes

    def add(self, events: npt.NDArray[np.uint64], places: npt.NDArray[np.int64]) -> None:
        """Add rows; they must lie behind all that were added before."""
        if not len(events):
            return
        order = np.argsort(events, kind="stable")
        self._runs.append((events[order], places[order]))
        if sum(len(ids) for ids, _ in self._runs) > self._marks.room:
            self._marks.renewed([ids for ids, _ in self._runs])
        else:
            self._marks.add(self._runs[-1][0])
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            self._merge_last()

    def drop(self, count: int) -> None:
        """Forget the first ``count`` rows; the others move up by as many."""
        kept = ((ids, places, places >= count) for ids, places in self._runs)
        self._runs = [(ids[stays], places[stays] - count) for ids, places, stays in kept if stays.any()]
        self._marks.renewed([ids for ids, _ in self._runs])

    def last(self, events: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The last row of each id, -1 where there is none."""
        rows = np.full(len(events), -1, np.int64)
        asked, some = self._asked(events)
        for ids, places in self._runs if len(asked) else ():
            at = np.maximum(np.searchsorted(ids, some, side="right") - 1, 0)
            hit = ids[at] == some
            rows[asked[hit]] = places[at[hit]]
        return rows

    def every(self, events: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
        """All rows of all ids, as pairs: which of the ids asked for, and its row."""
        which, rows = [np.empty(0, np.intp)], [np.empty(0, np.int64)]
        asked, some = self._asked(events)
        for ids, places in self._runs if len(asked) else ():
            start = np.minimum(np.searchsorted(ids, some), len(ids) - 1)
            hit = np.flatnonzero(ids[start] == some)
            if not len(hit):
                continue
            start = start[hit]
            count = np.searchsorted(ids, some[hit], side="right") - start
            before = np.cumsum(count) - count
            which.append(np.repeat(asked[hit], count))
            rows.append(places[np.repeat(start - before, count) + np.arange(count.sum())])
        return np.concatenate(which), np.concatenate(rows)

    def _asked(self, events: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint64]]:
        """Which of some ids are worth looking for, and these."""
        at = self._marks.maybe(events) if self._runs else np.empty(0, np.intp)
        return at, events[at]

    def _merge_last(self) -> None:
        (ids_a, at_a), (ids_b, at_b) = self._runs[-2:]
        ids, places = np.concatenate([ids_a, ids_b]), np.concatenate([at_a, at_b])
        order = np.argsort(ids, kind="stable")
        self._runs[-2:] = [(ids[order], places[order])]


class Ledger:
    """Append-only columns in tick order; a row that a correction replaced goes dead."""

    def __init__(self) -> None:
        self._columns: Columns = {name: np.empty(1_024, dtype) for name, dtype in LEDGER_TYPES.items()}
        self._size = 0
        self._first_reports = _Index()
        self._corrections = _Index()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A view of one column's rows."""
        return self._columns[name][: self._size]

    @property
    def nbytes(self) -> int:
        indexes = self._first_reports.nbytes + self._corrections.nbytes
        return sum(column.nbytes for column in self._columns.values()) + indexes

    def known(
        self, events: npt.NDArray[np.uint64], revisions: npt.NDArray[np.int32], shards: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.bool_]:
        """Which of these reports add nothing to what is held: held already, or superseded by a correction."""
        known = np.zeros(len(events), bool)
        which, rows = self._first_reports.every(events)
        known[which[self["shard"][rows] == shards[which]]] = True
        known &= revisions == 0
        last = self._corrections.last(events)
        corrected = last >= 0
        known[corrected] = revisions[corrected] <= self["revision"][last[corrected]]
        return known

    def replaced(self, events: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """The rows, live and dead, that new corrections of these ids replace."""
        if not len(events):
            return np.empty(0, np.int64)
        last = self._corrections.last(events)
        return np.concatenate([self._first_reports.every(events)[1], last[last >= 0]])

    def append(self, rows: Columns) -> None:
        """Add rows at the end, none of them known. Ticks must not decrease."""
        count = len(rows["event"])
        if count == 0:
            return
        self._reserve(self._size + count)
        for name, column in self._columns.items():
            column[self._size : self._size + count] = rows[name]
        correction = rows["revision"] > 0
        for index, mine in ((self._first_reports, ~correction), (self._corrections, correction)):
            at = np.flatnonzero(mine)
            index.add(rows["event"][at], at + self._size)
        self._size += count

    def kill(self, at: npt.NDArray[np.int64]) -> None:
        """Mark rows as replaced: they no longer count."""
        self._columns["live"][at] = False

    def drop_before(self, tick: int) -> int:
        """Forget the rows that were folded before a tick; returns how many. The others move up by as many."""
        count = int(np.searchsorted(self["tick"], tick))
        if count:
            self._size -= count
            for name, column in self._columns.items():
                self._columns[name] = column[count : count + self._size].copy()
            for index in (self._first_reports, self._corrections):
                index.drop(count)
        return count

    def renumber(self, name: str, table: npt.NDArray[np.int32]) -> None:
        """Put ``table[number]`` in the place of every number of a dictionary-coded column; -1 stays."""
        held = self[name]
        held[:] = np.where(held >= 0, table[np.maximum(held, 0)], -1)

    def since(self, tick: int) -> slice:
        """The rows that were folded at that tick or later."""
        return slice(int(np.searchsorted(self["tick"], tick)), self._size)

    def _reserve(self, size: int) -> None:
        capacity = len(self._columns["event"])
        if size <= capacity:
            return
        grown = max(size, capacity + capacity // 2)
        for name, column in self._columns.items():
            wider = np.empty(grown, column.dtype)
            wider[: self._size] = column[: self._size]
            self._columns[name] = wider
