"""What each lab has tested and failed in every leaf cell by calendar week: the counts behind :mod:`streams.labs`.

Pairs of leaf and lab are many and most have nothing in most weeks. So a pair has a number, and a week holds its pairs
that have a count, sorted by number: 20 bytes each, and growing copies one week only.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from streams.cells import BlockPiece

__all__ = ["LabPairs", "LabWeeks"]

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]
_Sorted = TypeVar("_Sorted", Ints, Numbers)
_PIECE_PAIRS = 4_096
_BLOCK_WEEKS = 64
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
        self._leaf = np.zeros(0, np.int32)
        self._lab = np.zeros(0, np.int32)
        self.groups: list[str] = []
        self._group_number: dict[str, int] = {}
        self._group_of = np.zeros(0, np.int32)
        """Number of each leaf's group, -1 of a leaf that was never met."""
        self._old = _Keys()
        self._new = _Keys()
        """Of the last pairs: so that not all are moved whenever one is new."""

    def __len__(self) -> int:
        return self._size

    @property
    def leaf(self) -> Numbers:
        return self._leaf[: self._size]

    @property
    def lab(self) -> Numbers:
        return self._lab[: self._size]

    @property
    def nbytes(self) -> int:
        held = self._leaf, self._lab, self._group_of, self._old, self._new
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
        order = np.argsort(keys)  # what is sorted is found much faster
        ordered = keys[order]
        found = self._find(ordered)
        missing = np.flatnonzero(found < 0)
        if len(missing):
            self._make(group_of, ordered[missing])
            found[missing] = self._find(ordered[missing])
        numbers = np.empty(len(keys), np.int32)
        numbers[order] = found
        return numbers

    def _make(self, group_of: Callable[[int], str], keys: Ints) -> None:
        """Make the pairs of some sorted keys, by group, leaf and lab."""
        new = keys[np.diff(keys, prepend=-1) != 0]
        leaves, labs = (new >> 32).astype(np.int32), ((new & 0xFFFFFFFF) - 1).astype(np.int32)
        self._note_groups(group_of, leaves)
        groups = self.group_of(leaves)
        by_name = sorted(np.unique(groups).tolist(), key=self.groups.__getitem__)
        rank = np.zeros(len(self.groups), np.intp)
        rank[by_name] = np.arange(len(by_name))
        order = np.argsort(rank[groups], kind="stable")
        self._append(leaves[order], labs[order])

    def add(self, groups: Sequence[str], leaves: Sequence[int], labs: Sequence[int]) -> None:
        """Make new pairs in the order given."""
        group_of = dict(zip(leaves, groups, strict=True))
        self._note_groups(group_of.__getitem__, np.array(leaves, np.int32))
        self._append(np.array(leaves, np.int32), np.array(labs, np.int32))

    def of_leaves(self, leaves: Ints) -> tuple[Numbers, Places]:
        """Numbers of the pairs of some leaves, and for each the place of its leaf among those given."""
        (numbers, owner), (new, owner_of_new) = self._old.of_leaves(leaves), self._new.of_leaves(leaves)
        if not len(new):
            return numbers, owner
        owner = np.concatenate([owner, owner_of_new])
        order = np.argsort(owner, kind="stable")
        return np.concatenate([numbers, new])[order], owner[order]

    def _find(self, keys: Ints) -> Numbers:
        """Numbers of pairs by key, -1 where new."""
        return np.maximum(self._old.find(keys), self._new.find(keys))

    def _append(self, leaves: Numbers, labs: Numbers) -> None:
        size = self._size + len(leaves)
        if size > len(self._leaf):
            more = np.zeros(size + size // 8 - len(self._leaf), np.int32)
            self._leaf, self._lab = np.concatenate([self._leaf, more]), np.concatenate([self._lab, more])
        self._leaf[self._size : size], self._lab[self._size : size] = leaves, labs
        self._new.add(_key(leaves, labs), np.arange(self._size, size, dtype=np.int32))
        self._size = size
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
        self.keys = np.zeros(0, np.int64)
        self.numbers = np.zeros(0, np.int32)

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.numbers.nbytes

    def add(self, keys: Ints, numbers: Numbers) -> None:
        order = np.argsort(keys)
        at = self.keys.searchsorted(keys[order])
        self.keys = np.insert(self.keys, at, keys[order])
        self.numbers = np.insert(self.numbers, at, numbers[order])

    def find(self, keys: Ints) -> Numbers:
        """Numbers by key, -1 where there is none."""
        if not len(self.keys):
            return np.full(len(keys), -1, np.int32)
        at = np.minimum(self.keys.searchsorted(keys), len(self.keys) - 1)
        return np.where(self.keys.take(at) == keys, self.numbers.take(at), np.int32(-1))

    def of_leaves(self, leaves: Ints) -> tuple[Numbers, Places]:
        """Numbers of the pairs of some leaves, and for each the place of its leaf among those given, ascending."""
        first, end = (self.keys.searchsorted(edge << 32) for edge in (leaves, leaves + 1))
        count = end - first
        owner = np.repeat(np.arange(len(leaves)), count)
        return self.numbers[np.arange(len(owner)) + (first - np.cumsum(count) + count)[owner]], owner


def _key(leaves: npt.NDArray[np.integer], labs: npt.NDArray[np.integer]) -> Ints:
    # A report without a lab has the number -1.
    return leaves.astype(np.int64) << 32 | (labs.astype(np.int64) + 1)


class LabWeeks:
    """(failed, tested) of pairs, by their numbers, and calendar weeks. All sums are of integers: no order can show."""

    def __init__(self) -> None:
        self._weeks: dict[int, _Week] = {}
        self._oldest: int | None = None
        """The oldest week that is kept; what belongs to an older one is passed over."""

    @property
    def nbytes(self) -> int:
        return sum(week.nbytes for week in self._weeks.values())

    def fold(self, pairs: Numbers, weeks: npt.NDArray[np.integer], values: Ints) -> Places:
        """Add (failed, tested) ``values`` [rows, 2] of pairs and weeks; what comes twice adds up. Returns the rows that
        were not passed over."""
        kept = np.arange(len(weeks)) if self._oldest is None else np.flatnonzero(weeks >= self._oldest)
        if not len(kept):
            return kept
        keys = weeks[kept].astype(np.int64) << 32 | pairs[kept]
        keys, failed, tested = _summed(keys, values[kept, 0], values[kept, 1])
        week_of = keys >> 32
        starts = np.flatnonzero(np.diff(week_of, prepend=week_of[:1] - 1))
        for first, end in zip(starts.tolist(), [*starts[1:].tolist(), len(keys)], strict=True):
            numbers = (keys[first:end] & 0xFFFFFFFF).astype(np.int32)
            self._week(int(week_of[first])).add(numbers, failed[first:end], tested[first:end])
        return kept

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

    def _between(self, first: int, last: int) -> Iterator[_Week]:
        return (week for number, week in self._weeks.items() if first <= number <= last)

    def _week(self, number: int) -> _Week:
        week = self._weeks.get(number)
        if week is None:
            week = self._weeks[number] = _Week()
        return week

    # --- storing: in the form of :class:`streams.cells.CellStore` with weeks for days --------------------------------

    def pieces(self, pairs: int) -> Iterator[BlockPiece]:
        """All counts, a few thousand pairs of 64 weeks at a time; what is zero is left out."""
        for block in sorted({number // _BLOCK_WEEKS for number in self._weeks}):
            first_week = block * _BLOCK_WEEKS
            held = [(number - first_week, self._weeks[number].settled()) for number in sorted(self._weeks)
                    if number // _BLOCK_WEEKS == block]  # fmt: skip
            for first in range(0, pairs, _PIECE_PAIRS):
                counts = _flat(held, first)
                places = np.flatnonzero(counts)
                if len(places):
                    gaps = np.diff(places, prepend=0).astype(np.uint32)
                    packed = (zlib.compress(part.tobytes(), 1) for part in (gaps, counts[places]))
                    yield BlockPiece(block, first, *packed)

    def take_up(self, piece: BlockPiece) -> None:
        """Put a stored piece in its place."""
        places = np.cumsum(np.frombuffer(zlib.decompress(piece.gaps), np.uint32), dtype=np.int64)
        values = np.frombuffer(zlib.decompress(piece.values), np.int64)
        week, pair = places // 2 % _BLOCK_WEEKS, piece.first + places // (2 * _BLOCK_WEEKS)
        tested = places % 2 == 1
        columns = np.stack([np.where(tested, 0, values), np.where(tested, values, 0)], axis=1)
        self.fold(pair.astype(np.int32), piece.number * _BLOCK_WEEKS + week, columns)


class _Week:
    """Counts of one week, in a few runs of geometric sizes: in each, pairs in the order of their numbers, each once."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        self._runs: list[tuple[Numbers, Ints, Ints]] = []

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for arrays in self._runs for array in arrays)

    def add(self, pairs: Numbers, failed: Ints, tested: Ints) -> None:
        """Add counts of pairs in the order of their numbers, each once."""
        self._runs.append((pairs, failed, tested))
        # So all is copied a few times at the most, and whoever looks for a few pairs has few runs to look through.
        while len(self._runs) > 1 and len(self._runs[-2][0]) <= 2 * len(self._runs[-1][0]):
            self._merge(2)

    def settled(self) -> tuple[Numbers, Ints, Ints]:
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


def _summed(keys: _Sorted, failed: Ints, tested: Ints) -> tuple[_Sorted, Ints, Ints]:
    """The distinct keys, sorted, and the sums of each."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    if len(starts) == len(keys):
        return keys, failed[order], tested[order]
    return keys[starts], np.add.reduceat(failed[order], starts), np.add.reduceat(tested[order], starts)


def _flat(held: list[tuple[int, tuple[Numbers, Ints, Ints]]], first: int) -> Ints:
    """Counts of a few thousand pairs: by pair, then week, failed before tested."""
    counts = np.zeros((_PIECE_PAIRS, _BLOCK_WEEKS, 2), np.int64)
    for week, (pairs, failed, tested) in held:
        some = slice(*pairs.searchsorted([first, first + _PIECE_PAIRS]).tolist())
        counts[pairs[some] - first, week, 0] = failed[some]
        counts[pairs[some] - first, week, 1] = tested[some]
    return counts.reshape(-1)
