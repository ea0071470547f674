"""What each lab has tested and failed in every leaf cell by calendar week: the counts behind :mod:`streams.labs`.

Pairs of leaf and lab are many and most have nothing in most weeks. So a pair has a number, and a week holds its pairs
that have a count, sorted by number: 20 bytes each, and growing copies one week only. Only the newest two weeks, of
which nearly all reports tell, have room for every pair: adding to them takes no sorting.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from streams.cells import BlockPiece
from streams.radix import order_of, starts_of
from streams.slots import Slots

__all__ = ["LabPairs", "LabWeeks"]

Ints = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]
Run = tuple[Numbers, Ints, Ints]
"""Pairs, what failed, what was tested."""
_LAB_BITS, _LAB_MASK = np.uint64(32), np.uint64(0xFFFFFFFF)
_PIECE_PAIRS = 4_096
_BLOCK_WEEKS = 64
_OPEN_WEEKS = 2
"""Weeks that have room for every pair: those of which nearly all reports tell, this one and the last."""
_FRESH = 4_096
"""Pairs that may be new, however few there are."""


class LabPairs:
    """The pairs (leaf, lab) that were met, by number, and the groups of the leaves.

    Attributes
    ----------
    leaf, lab
        Of each pair, ``[pairs]``.
    groups
        Names of the groups by their numbers.
    """

    def __init__(self) -> None:
        self._size = 0
        self._key = np.zeros(0, np.uint64)
        """Of each pair; some room at the end."""
        self._slots = Slots()
        self.groups: list[str] = []
        self._group_number: dict[str, int] = {}
        self._rank = np.zeros(0, np.int32)
        """Of each group by name; worked out anew where one is."""
        self._group_of = np.zeros(0, np.int32)
        """Number of each leaf's group, -1 of a leaf that was never met."""
        self._sorted = 0
        """So many pairs are in one of the two below, for who looks for the pairs of a leaf; others wait until then."""
        self._old = _Keys()
        self._new = _Keys()
        """Of the last pairs: so that not all are moved whenever one is new."""

    def __len__(self) -> int:
        return self._size

    @property
    def leaf(self) -> Numbers:
        return (self._key[: self._size] >> _LAB_BITS).astype(np.int32)

    @property
    def lab(self) -> Numbers:
        return (self._key[: self._size] & _LAB_MASK).astype(np.int32) - np.int32(1)

    @property
    def nbytes(self) -> int:
        held = self._key, self._slots, self._group_of, self._old, self._new
        return sum(one.nbytes for one in held)

    def group_of(self, leaves: npt.NDArray[np.integer]) -> Numbers:
        """Numbers of the groups of leaves that were met."""
        return self._group_of.take(leaves)

    def group(self, name: str) -> int:
        """Number of a group (made where new)."""
        number = self._group_number.get(name)
        if number is None:
            number = self._group_number[name] = len(self.groups)
            self.groups.append(name)
        return number

    def numbers(
        self, group_of: Callable[[int], str], leaves: npt.NDArray[np.integer], labs: npt.NDArray[np.integer]
    ) -> Numbers:
        """Numbers of pairs; new ones are made in the order of group, leaf and lab."""
        keys = _key(leaves, labs)
        numbers = self._slots.find(keys, self._key)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            self._make(group_of, np.sort(keys[missing]))
            numbers[missing] = self._slots.find(keys[missing], self._key)
        return numbers

    def _make(self, group_of: Callable[[int], str], keys: Keys) -> None:
        """Make the pairs of some sorted keys, by group, leaf and lab."""
        new = keys[starts_of(keys)]
        leaves = (new >> _LAB_BITS).astype(np.int32)
        self._note_groups(group_of, leaves)
        if len(self._rank) < len(self.groups):
            by_name = sorted(range(len(self.groups)), key=self.groups.__getitem__)
            self._rank = np.empty(len(by_name), np.int32)
            self._rank[by_name] = np.arange(len(by_name))
        self._append(new[order_of(self._rank[self.group_of(leaves)])])

    def add(self, groups: Sequence[str], leaves: Sequence[int], labs: Sequence[int]) -> None:
        """Make new pairs in the order given."""
        group_of = dict(zip(leaves, groups, strict=True))
        self._note_groups(group_of.__getitem__, np.array(leaves, np.int32))
        self._append(_key(np.array(leaves, np.int32), np.array(labs, np.int32)))

    def of_leaves(self, leaves: Ints) -> tuple[Numbers, Places]:
        """Numbers of the pairs of some leaves, and for each the place of its leaf among those given."""
        self._sort()
        (numbers, owner), (new, owner_of_new) = self._old.of_leaves(leaves), self._new.of_leaves(leaves)
        if not len(new):
            return numbers, owner
        owner = np.concatenate([owner, owner_of_new])
        order = np.argsort(owner, kind="stable")
        return np.concatenate([numbers, new])[order], owner[order]

    def _append(self, keys: Keys) -> None:
        size = self._size + len(keys)
        if size > len(self._key):
            self._key = np.concatenate([self._key, np.zeros(size + size // 8 - len(self._key), np.uint64)])
        self._key[self._size : size] = keys
        self._slots.put(keys, np.arange(self._size, size, dtype=np.int32), self._key)
        self._size = size

    def _sort(self) -> None:
        """Sort in the pairs that wait."""
        if self._sorted == self._size:
            return
        waiting = np.arange(self._sorted, self._size, dtype=np.int32)
        self._new.add(self._key[waiting], waiting)
        self._sorted = self._size
        if len(self._new.keys) > max(_FRESH, len(self._old.keys) // 8):
            self._old.add(self._new.keys, self._new.numbers)
            self._new = _Keys()

    def _note_groups(self, group_of: Callable[[int], str], leaves: Numbers) -> None:
        room = int(leaves.max(initial=-1)) + 1 - len(self._group_of)
        if room > 0:
            self._group_of = np.concatenate([self._group_of, np.full(room, -1, np.int32)])
        for leaf in np.unique(leaves[self._group_of[leaves] < 0]).tolist():
            self._group_of[leaf] = self.group(group_of(leaf))


class _Keys:
    """Keys of pairs, sorted, and the number of each."""

    __slots__ = ("keys", "numbers")

    def __init__(self) -> None:
        self.keys = np.zeros(0, np.uint64)
        self.numbers = np.zeros(0, np.int32)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.numbers.nbytes

    def add(self, keys: Keys, numbers: Numbers) -> None:
        order = np.argsort(keys)
        at = self.keys.searchsorted(keys[order])
        self.keys = np.insert(self.keys, at, keys[order])
        self.numbers = np.insert(self.numbers, at, numbers[order])

    def of_leaves(self, leaves: Ints) -> tuple[Numbers, Places]:
        """Numbers of the pairs of some leaves, and for each the place of its leaf among those given, ascending."""
        first, end = (self.keys.searchsorted(edge.astype(np.uint64) << _LAB_BITS) for edge in (leaves, leaves + 1))
        count = end - first
        owner = np.repeat(np.arange(len(leaves)), count)
        return self.numbers[np.arange(len(owner)) + (first - np.cumsum(count) + count)[owner]], owner


def _key(leaves: npt.NDArray[np.integer], labs: npt.NDArray[np.integer]) -> Keys:
    # A report without a lab has the number -1.
    return (leaves.astype(np.int64) << 32 | (labs.astype(np.int64) + 1)).view(np.uint64)


class LabWeeks:
    """(failed, tested) of pairs, by their numbers, and calendar weeks. All sums are of integers: no order can show."""

    def __init__(self) -> None:
        self._weeks: dict[int, _Week | _OpenWeek] = {}
        self._oldest: int | None = None
        """The oldest week that is kept; what belongs to an older one is passed over."""

    @property
    def nbytes(self) -> int:
        return sum(week.nbytes for week in self._weeks.values())

    def fold(self, pairs: Numbers, weeks: npt.NDArray[np.integer], values: Ints) -> Places | slice:
        """Add (failed, tested) ``values`` [rows, 2] of pairs and weeks; what comes twice adds up. Returns the rows that
        were not passed over, if any were."""
        kept: Places | slice = slice(None)
        if self._oldest is not None and len(weeks) and weeks.min() < self._oldest:
            kept = np.flatnonzero(weeks >= self._oldest)
            pairs, weeks, values = pairs[kept], weeks[kept], values[kept]
        if not len(weeks):
            return kept
        if weeks.min() == weeks.max():
            self._add(int(weeks[0]), pairs, values)
        else:
            # The newest first: so none is made to be open for a moment only.
            for week in np.unique(weeks)[::-1].tolist():
                mine = np.flatnonzero(weeks == week)
                self._add(week, pairs[mine], values[mine])
        return kept

    def _add(self, number: int, pairs: Numbers, values: Ints) -> None:
        week = self._weeks.get(number)
        if week is None:
            week = self._weeks[number] = self._new_week(number)
        week.add(pairs, values[:, 0], values[:, 1])

    def _new_week(self, number: int) -> _Week | _OpenWeek:
        """A week that was not there: open if it is one of the newest, and then it closes the oldest that is open."""
        open_weeks = sorted(number for number, week in self._weeks.items() if isinstance(week, _OpenWeek))
        if len(open_weeks) >= _OPEN_WEEKS:
            if number < open_weeks[0]:
                return _Week()
            closed = self._weeks.pop(open_weeks[0]).settled()
            if len(closed[0]):  # else all was taken back
                self._weeks[open_weeks[0]] = _Week([closed])
        return _OpenWeek()

    def expire(self, oldest: int) -> bool:
        """Forget the weeks before one; what comes for them later is passed over. Returns whether there were any."""
        self._oldest = oldest if self._oldest is None else max(oldest, self._oldest)
        gone = [number for number in self._weeks if number < self._oldest]
        for number in gone:
            del self._weeks[number]
        return bool(gone)

    def totals(self, first: int, last: int, pairs: int) -> tuple[Ints, Ints]:
        """Failed and tested of all pairs in the weeks from one through another, a week's counts no less than 0."""
        failed, tested = np.zeros(pairs, np.int64), np.zeros(pairs, np.int64)
        for week in self._between(first, last):
            numbers, x, n = week.settled()
            failed[numbers] += np.maximum(x, 0)
            tested[numbers] += np.maximum(n, 0)
        return failed, tested

    def tested(self, pairs: Numbers, first: int, last: int) -> Ints:
        """Items that some pairs, in the order of their numbers, have tested in the weeks from one through another."""
        tested = np.zeros(len(pairs), np.int64)
        for week in self._between(first, last):
            week.add_tested(pairs, tested)
        return tested

    def _between(self, first: int, last: int) -> Iterator[_Week | _OpenWeek]:
        return (week for number, week in self._weeks.items() if first <= number <= last)

    # --- storing: in the form of :class:`streams.cells.CellStore` with weeks for days --------------------------------

    def pieces(self, pairs: int) -> Iterator[BlockPiece]:
        """All counts, a few thousand pairs of 64 weeks at a time; what is zero is left out."""
        for block in sorted({number // _BLOCK_WEEKS for number in self._weeks}):
            numbers = [number for number in sorted(self._weeks) if number // _BLOCK_WEEKS == block]
            runs = [self._weeks[number].settled() for number in numbers]
            within = np.array(numbers) % _BLOCK_WEEKS
            for first in range(0, pairs, _PIECE_PAIRS):
                places, counts = _counted(runs, within, first)
                if len(places):
                    gaps = np.diff(places, prepend=0).astype(np.uint32)
                    packed = (zlib.compress(part.tobytes(), 1) for part in (gaps, counts))
                    yield BlockPiece(block, first, *packed)

    def take_up(self, piece: BlockPiece) -> None:
        """Put a stored piece in its place."""
        places = np.cumsum(np.frombuffer(zlib.decompress(piece.gaps), np.uint32), dtype=np.int64)
        values = np.frombuffer(zlib.decompress(piece.values), np.int64)
        week, pair = places // 2 % _BLOCK_WEEKS, piece.first + places // (2 * _BLOCK_WEEKS)
        tested = places % 2 == 1
        columns = np.stack([np.where(tested, 0, values), np.where(tested, values, 0)], axis=1)
        self.fold(pair.astype(np.int32), piece.number * _BLOCK_WEEKS + week, columns)


class _OpenWeek:
    """Counts of one week of all pairs, by their numbers."""

    __slots__ = ("_failed", "_tested")

    def __init__(self) -> None:
        self._failed = np.zeros(0, np.int64)
        self._tested = np.zeros(0, np.int64)

    @property
    def nbytes(self) -> int:
        return self._failed.nbytes + self._tested.nbytes

    def add(self, pairs: Numbers, failed: Ints, tested: Ints) -> None:
        """Add counts of pairs, in any order."""
        size = int(pairs.max(initial=-1)) + 1
        if size > len(self._failed):
            more = np.zeros(size + size // 8 - len(self._failed), np.int64)
            self._failed, self._tested = (np.concatenate([held, more]) for held in (self._failed, self._tested))
        np.add.at(self._failed, pairs, failed)
        np.add.at(self._tested, pairs, tested)

    def settled(self) -> Run:
        """Pairs in the order of their numbers, each once; failed; tested."""
        pairs = np.flatnonzero(self._failed | self._tested)
        return pairs.astype(np.int32), self._failed[pairs], self._tested[pairs]

    def add_tested(self, pairs: Numbers, tested: Ints) -> None:
        """Add what each of some pairs has tested."""
        held = pairs < len(self._tested)
        tested[held] += self._tested[pairs[held]]


class _Week:
    """Counts of one week, in a few runs of geometric sizes: in each, pairs in the order of their numbers, each once."""

    __slots__ = ("_runs",)

    def __init__(self, runs: Sequence[Run] = ()) -> None:
        self._runs = list(runs)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for arrays in self._runs for array in arrays)

    def add(self, pairs: Numbers, failed: Ints, tested: Ints) -> None:
        """Add counts of pairs, in any order."""
        self._runs.append(_summed(pairs, failed, tested))
        # So all is copied a few times at the most, and whoever looks for a few pairs has few runs to look through.
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            self._merge(2)

    def settled(self) -> Run:
        """Pairs in the order of their numbers, each once; failed; tested."""
        self._merge(len(self._runs))
        return self._runs[0]

    def add_tested(self, pairs: Numbers, tested: Ints) -> None:
        """Add what each of some pairs has tested."""
        for numbers, _, n in self._runs:
            at = numbers.searchsorted(pairs)
            tested += np.where(numbers.take(at, mode="clip") == pairs, n.take(at, mode="clip"), 0)

    def _merge(self, last: int) -> None:
        """Make one run of the last ones."""
        if last > 1:
            columns = zip(*self._runs[-last:], strict=True)
            self._runs[-last:] = [_summed(*(np.concatenate(one) for one in columns))]


def _summed(pairs: Numbers, failed: Ints, tested: Ints) -> Run:
    """The distinct pairs, sorted, and the sums of each."""
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    starts = starts_of(pairs)
    if len(starts) == len(pairs):
        return pairs, failed[order], tested[order]
    return pairs[starts], np.add.reduceat(failed[order], starts), np.add.reduceat(tested[order], starts)


def _counted(runs: list[Run], weeks: Ints, first: int) -> tuple[Places, Ints]:
    """Counts of a few thousand pairs that are not zero, and where they stand among all of the block's weeks: by pair,
    then week, failed before tested. ``weeks`` are the runs', within the block."""
    counts = np.zeros((_PIECE_PAIRS, len(runs), 2), np.int64)
    for at, (pairs, failed, tested) in enumerate(runs):
        some = slice(*pairs.searchsorted(np.array([first, first + _PIECE_PAIRS], np.int32)).tolist())
        counts[pairs[some] - first, at, 0] = failed[some]
        counts[pairs[some] - first, at, 1] = tested[some]
    flat = counts.reshape(-1)
    found = np.flatnonzero(flat)
    pair_and_week, field = found >> 1, found & 1
    pair, week = pair_and_week // len(runs), weeks[pair_and_week % len(runs)]
    return (pair * _BLOCK_WEEKS + week) * 2 + field, flat[found]
