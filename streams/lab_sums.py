"""What the labs of each leaf have tested in a stretch of weeks, and what they find of it: sums that are kept.

Every tick asks for the same leaves over the same few stretches of weeks, and from one tick to the next a few pairs of
leaf and lab test something more. So a leaf's sums are kept, what changes waits until the leaf is asked for again, and
then only the pairs that changed are looked at: of every pair that went into a sum its part is known.

Sums of floats hang on their order, so they are kept as integers that say exactly what the floats say, and a sum of any
leaves, in any order, is the float nearest to the true sum: what :func:`math.fsum` gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.lab_weeks import LabPairs, LabWeeks

__all__ = ["LARGEST_EFFECT", "MOST_ITEMS", "LabSums", "as_integers", "nearest"]

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
Change = tuple[Ints, Numbers, Ints]
"""Leaves, pairs, and how much more these have tested."""
_STRETCHES: Final = 8
"""Stretches of weeks that are kept: three windows and what lies before them, and some room."""
_MOST_WAITING: Final = 16_384
"""Changes of one stretch that may wait."""
_HIGH, _LOW = 26, 34
"""Places behind the point of the higher and, from there on, of the lower part of a number."""
LARGEST_EFFECT: Final = 5.5
"""A log odds ratio up to which the factor lies between 2**-8 and 2**8: a number of items times it then has no digit
behind the 60th place."""
MOST_ITEMS: Final = 2**29
"""So many items times such a factor still fit, and the lower parts of as many pairs."""


def as_integers(items: Ints, effects: Floats) -> Ints:
    """Of each row the items, and these times the factor of the effect in two parts, ``[rows, 3]``: columns that can be
    added up. What does not fit has more than :data:`MOST_ITEMS`; less than nothing is nothing."""
    fits = (items <= MOST_ITEMS) & (np.abs(effects) <= LARGEST_EFFECT)
    scaled = np.where(fits, np.maximum(items, 0) * np.exp(effects), 0.0) * 2.0**_HIGH
    high = np.floor(scaled)
    low = (scaled - high) * 2.0**_LOW
    counted = np.where(fits | (items <= 0), np.maximum(items, 0), MOST_ITEMS + 1)
    return np.stack([counted, high.astype(np.int64), low.astype(np.int64)], axis=1)


def nearest(high: int, low: int) -> float:
    """The float nearest to what the two parts of a sum say (Python divides integers so)."""
    return ((high << _LOW) + low) / (1 << _HIGH + _LOW)


class _Stretch:
    """Sums of leaves by number, ``[leaves, 3]``, where they are known, what their pairs had tested, ``[pairs]``, and
    what has come since."""

    __slots__ = ("known", "sums", "tested", "waiting")

    def __init__(self) -> None:
        self.known = np.zeros(0, np.bool_)
        self.sums = np.zeros((0, 3), np.int64)
        self.tested = np.zeros(0, np.int64)
        self.waiting: list[Change] = []

    @property
    def nbytes(self) -> int:
        waiting = sum(part.nbytes for one in self.waiting for part in one)
        return self.known.nbytes + self.sums.nbytes + self.tested.nbytes + waiting

    def reserve(self, leaves: int, pairs: int) -> None:
        """Have room for so many leaves and pairs."""
        if leaves > len(self.known):
            more = leaves + leaves // 4 - len(self.known)
            self.known = np.concatenate([self.known, np.zeros(more, np.bool_)])
            self.sums = np.concatenate([self.sums, np.zeros((more, 3), np.int64)])
        if pairs > len(self.tested):
            self.tested = np.concatenate([self.tested, np.zeros(pairs + pairs // 8 - len(self.tested), np.int64)])

    def put_by(self, leaves: Ints, pairs: Numbers, more: Ints) -> None:
        """Let changes of leaves that are known wait; when there are too many, none of their leaves is known."""
        mine = np.flatnonzero(leaves < len(self.known))
        mine = mine[self.known[leaves[mine]]]
        if len(mine):
            self.waiting.append((leaves[mine], pairs[mine], more[mine]))
        if sum(len(one[0]) for one in self.waiting) > _MOST_WAITING:
            for one in self.waiting:
                self.known[one[0]] = False
            self.waiting = []

    def due(self, leaves: Ints) -> Change:
        """The changes that wait of some leaves: they wait no more."""
        leaf, pair, more = (np.concatenate(column) for column in zip(*self.waiting, strict=True))
        asked = np.zeros(len(self.known), np.bool_)
        asked[leaves] = True
        mine = asked[leaf]
        self.waiting = [(leaf[~mine], pair[~mine], more[~mine])]
        return leaf[mine], pair[mine], more[mine]


class LabSums:
    """Sums of leaves over the stretches of weeks that were asked for last.

    Parameters
    ----------
    pairs, weeks
        What the labs have tested.
    effects_of
        The effects of some pairs as they are now; when they change, :meth:`forget`.
    """

    def __init__(self, pairs: LabPairs, weeks: LabWeeks, effects_of: Callable[[Numbers], Floats]) -> None:
        self._pairs = pairs
        self._weeks = weeks
        self._effects_of = effects_of
        self._held: dict[tuple[int, int], _Stretch] = {}
        """By first and last week; what was asked for last stands last."""

    @property
    def nbytes(self) -> int:
        return sum(one.nbytes for one in self._held.values())

    def of(self, leaves: Ints, first: int, last: int) -> Ints:
        """The sums of :func:`as_integers`, ``[leaves, 3]``, of leaves over the weeks from one through another."""
        stretch = self._held.pop((first, last), None) or _Stretch()
        self._held[first, last] = stretch
        if len(self._held) > _STRETCHES:
            del self._held[next(iter(self._held))]
        stretch.reserve(int(leaves.max(initial=-1)) + 1, len(self._pairs))
        if stretch.waiting:
            self._catch_up(stretch, leaves)
        missing = leaves[~stretch.known[leaves]]
        if len(missing):
            missing = np.unique(missing)
            pairs, place, items = self._tested(missing, first, last)
            stretch.tested[pairs] = items
            stretch.sums[missing] = self._summed(len(missing), pairs, place, items)
            stretch.known[missing] = True
        return stretch.sums[leaves]

    def change(self, leaves: Numbers, pairs: Numbers, weeks: npt.NDArray[np.integer], more: Ints) -> None:
        """These leaves and pairs have tested so many items more in these weeks."""
        for (first, last), stretch in self._held.items():
            mine = (weeks >= first) & (weeks <= last)
            stretch.put_by(leaves[mine].astype(np.int64), pairs[mine], more[mine])

    def forget(self) -> None:
        """Anything may have changed."""
        self._held.clear()

    def severity(self, leaves: Ints, first: int, last: int) -> float:
        """The mean factor of some leaves' labs over what they have tested, whatever its numbers."""
        pairs, _, tested = self._tested(leaves, first, last)
        some = np.flatnonzero(tested > 0)
        pairs, items = pairs[some], tested[some]
        # fsum, for the order of the pairs depends on what else the partition holds, and the sum must not.
        return math.fsum((items * np.exp(self._effects_of(pairs))).tolist()) / int(items.sum())

    def _catch_up(self, stretch: _Stretch, leaves: Ints) -> None:
        """Add to the sums of leaves what has come for their pairs."""
        leaf, pair, more = stretch.due(leaves)
        if not len(leaf):
            return
        pair, start, place = np.unique(pair, return_index=True, return_inverse=True)
        come = np.zeros(len(pair), np.int64)
        np.add.at(come, place, more)
        before, effects = stretch.tested[pair], self._effects_of(pair)
        stretch.tested[pair] = now = before + come
        np.add.at(stretch.sums, leaf[start], as_integers(now, effects) - as_integers(before, effects))

    def _summed(self, leaves: int, pairs: Numbers, place: Places, tested: Ints) -> Ints:
        """The sums, ``[leaves, 3]``, of what the pairs at each leaf's place, ascending, have tested."""
        out = np.zeros((leaves, 3), np.int64)
        if len(pairs):
            starts = np.flatnonzero(np.diff(place, prepend=-1))
            out[place[starts]] = np.add.reduceat(as_integers(tested, self._effects_of(pairs)), starts)
        return out

    def _tested(self, leaves: Ints, first: int, last: int) -> tuple[Numbers, Places, Ints]:
        """The pairs of leaves, the place of each one's leaf, ascending, and the items that they have tested."""
        pairs, place = self._pairs.of_leaves(leaves)
        order = np.argsort(pairs, kind="stable")
        tested = np.empty(len(pairs), np.int64)
        tested[order] = self._weeks.tested(pairs[order], first, last)
        return pairs, place, tested
