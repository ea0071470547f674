"""What the labs of each leaf have tested in a stretch of weeks, and what they find of it: sums that are kept.

Every tick asks for the same leaves over the same few stretches of weeks, and from one tick to the next few of them
change. So the sums of a leaf are kept until something of its weeks changes.

Sums of floats hang on their order, so they are kept as integers that say exactly what the floats say, and a sum of any
leaves, in any order, is the float nearest to the true sum: what :func:`math.fsum` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["LARGEST_EFFECT", "MOST_ITEMS", "LabSums", "as_integers", "nearest"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_STRETCHES: Final = 8
"""Stretches of weeks that are kept: three windows and what lies before them, and some room."""
_HIGH, _LOW = 21, 41
"""Places behind the point of the higher and, from there on, of the lower part of a number."""
LARGEST_EFFECT: Final = 10 * 0.6931471805599453
"""A log odds ratio up to which the factor lies between 2**-10 and 2**10: a number of items times it then has no digit
behind the 62nd place."""
MOST_ITEMS: Final = 2**31
"""So many items times such a factor still fit."""


def as_integers(items: Ints, effects: Floats) -> Ints:
    """Of each row the items, and these times the factor of the effect in two parts, ``[rows, 3]``: columns that can be
    added up. What does not fit has more than :data:`MOST_ITEMS`."""
    fits = (items <= MOST_ITEMS) & (np.abs(effects) <= LARGEST_EFFECT)
    scaled = np.where(fits, items * np.exp(effects), 0.0) * 2.0**_HIGH
    high = np.floor(scaled)
    low = (scaled - high) * 2.0**_LOW
    return np.stack([np.where(fits, items, MOST_ITEMS + 1), high.astype(np.int64), low.astype(np.int64)], axis=1)


def nearest(high: int, low: int) -> float:
    """The float nearest to what the two parts of a sum say (Python divides integers so)."""
    return ((high << _LOW) + low) / (1 << _HIGH + _LOW)


@dataclass(slots=True)
class _Stretch:
    """Sums of leaves by number, ``[leaves, 3]``, where they are known."""

    known: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    sums: Ints = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    def reserve(self, leaves: int) -> None:
        more = leaves + leaves // 4 - len(self.known)
        if leaves > len(self.known):
            self.known = np.concatenate([self.known, np.zeros(more, np.bool_)])
            self.sums = np.concatenate([self.sums, np.zeros((more, 3), np.int64)])


class LabSums:
    """Sums of leaves over the stretches of weeks that were asked for last."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], _Stretch] = {}
        """By first and last week; what was asked for last stands last."""

    @property
    def nbytes(self) -> int:
        return sum(one.known.nbytes + one.sums.nbytes for one in self._held.values())

    def of(self, leaves: Ints, first: int, last: int, added: Callable[[Ints], Ints]) -> Ints:
        """The sums, ``[leaves, 3]``, of leaves from one week through another; ``added`` works out those of some
        leaves, each once."""
        stretch = self._held.pop((first, last), None) or _Stretch()
        self._held[first, last] = stretch
        if len(self._held) > _STRETCHES:
            del self._held[next(iter(self._held))]
        stretch.reserve(int(leaves.max(initial=-1)) + 1)
        missing = leaves[~stretch.known[leaves]]
        if len(missing):
            missing = np.unique(missing)
            stretch.sums[missing] = added(missing)
            stretch.known[missing] = True
        return stretch.sums[leaves]

    def change(self, leaves: npt.NDArray[np.integer], weeks: npt.NDArray[np.integer]) -> None:
        """Something of these leaves and weeks has changed."""
        for (first, last), stretch in self._held.items():
            touched = leaves[(weeks >= first) & (weeks <= last)]
            stretch.known[touched[touched < len(stretch.known)]] = False

    def expire(self, oldest: int) -> None:
        """The weeks before one are forgotten."""
        for stretch in [stretch for stretch in self._held if stretch[0] < oldest]:
            del self._held[stretch]

    def forget(self) -> None:
        """Anything may have changed."""
        self._held.clear()
