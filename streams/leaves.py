"""The leaves of one assess partition: which cells an event adds to, found for a whole tick at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.columns import EventColumns
from streams.radix import order_of, starts_of

__all__ = ["Leaf", "LeafIndex"]

_INDICATOR_BITS = 3
_REGION_BITS = 24
_NEVER = np.iinfo(np.int32).max
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Leaf:
    """A leaf product in a leaf region: ``rows`` are its cell and all cells above it, product path x region path.

    ``group`` is the second node of the product path: a kind of product whose quality may change as one.
    """

    product: str
    region: str
    group: str
    regions: int
    rows: npt.NDArray[np.intp]
    indicator: int
    paths: tuple[tuple[str, ...], tuple[str, ...]]


class LeafIndex:
    """Leaf numbers by (indicator, product code, region code), and the cells of each leaf, as arrays.

    Codes have numbers of their own here, so that a tick's events are looked up by integers: a dictionary is asked once
    for each distinct code of the tick, not for each pair of them.
    """

    def __init__(self) -> None:
        self._products: dict[str, int] = {}
        self._regions: dict[str, int] = {}
        self._keys: Ints = np.empty(0, np.int64)
        self._numbers = np.empty(0, np.int32)
        self._new: list[tuple[int, int]] = []
        self._branches: dict[str, int] = {}
        self._size = 0
        self._branch_of = np.empty(64, np.int32)
        self._told = np.full(64, _NEVER, np.int32)
        """The first day of each leaf that was told."""
        self._start = np.zeros(65, np.int64)
        self._cells = np.empty(256, np.intp)

    def add(self, leaf: Leaf) -> None:
        """Add the next leaf."""
        product = self._products.setdefault(leaf.product, len(self._products))
        region = self._regions.setdefault(leaf.region, len(self._regions))
        self._new.append((_key(leaf.indicator, product, region), self._size))
        if self._size == len(self._branch_of):
            self._branch_of = _wider(self._branch_of, 2 * self._size)
            self._told = _wider(self._told, 2 * self._size, _NEVER)
            self._start = _wider(self._start, 2 * self._size + 1)
        start = int(self._start[self._size])
        stop = start + len(leaf.rows)
        if stop > len(self._cells):
            self._cells = _wider(self._cells, 2 * stop)
        self._cells[start:stop] = leaf.rows
        self._branch_of[self._size] = self._branches.setdefault(leaf.paths[0][0], len(self._branches))
        self._size += 1
        self._start[self._size] = stop

    def find(self, rows: EventColumns, at: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        """Leaf numbers of the events ``at``, shape ``[len(at)]``; -1 where there is none yet."""
        self._settle()
        if not len(self._keys):
            return np.full(len(at), -1, np.int32)
        product = np.array([self._products.get(code, -1) for code in rows.products], np.int64)[rows["product"][at]]
        region = np.array([self._regions.get(code, -1) for code in rows.regions], np.int64)[rows["region"][at]]
        unknown = (product | region) < 0
        wanted = _key(rows["indicator"][at].astype(np.int64), product, region)
        wanted[unknown] = 0
        # What is more or less sorted is found twice as fast.
        order = order_of(np.where(unknown, 0, product * len(self._regions) + region))
        ordered = wanted.take(order)
        place = self._keys.searchsorted(ordered)
        found = np.where(
            self._keys.take(place, mode="clip") == ordered, self._numbers.take(place, mode="clip"), np.int32(-1)
        )
        numbers = np.empty(len(at), np.int32)
        numbers[order] = found
        numbers[unknown] = -1
        return numbers

    def reach(self, leaves: Ints) -> tuple[npt.NDArray[np.intp], Ints]:
        """The cells of some leaves, one leaf after the other, and how many each has."""
        starts = self._start[leaves]
        times = self._start[leaves + 1] - starts
        before = np.cumsum(times) - times
        return self._cells[np.repeat(starts - before, times) + np.arange(int(times.sum()))], times

    def first_days(self, leaves: Ints, days: npt.NDArray[np.int32]) -> list[tuple[str, int]]:
        """The least of the ``days`` of each branch among some leaves, each there once; leaves of which no later day was
        told before are passed over."""
        fresh = np.flatnonzero(days < self._told[leaves])
        if not len(fresh):
            return []
        leaves, days = leaves[fresh], days[fresh]
        self._told[leaves] = days
        branch = self._branch_of[leaves]
        order = order_of(branch)
        starts = starts_of(branch[order])
        names = list(self._branches)
        least = np.minimum.reduceat(days[order], starts)
        return [(names[at], day) for at, day in zip(branch[order[starts]].tolist(), least.tolist(), strict=True)]

    def _settle(self) -> None:
        """Sort in what is new."""
        if not self._new:
            return
        keys, numbers = np.array(self._new, np.int64).T
        self._new = []
        keys = np.concatenate([self._keys, keys])
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._numbers = np.concatenate([self._numbers, numbers.astype(np.int32)])[order]


def _key(indicator: Any, product: Any, region: Any) -> Any:
    """One integer for the three; of single ones or of arrays."""
    return ((product << _REGION_BITS) | region) << _INDICATOR_BITS | indicator


def _wider(held: npt.NDArray[Any], size: int, rest: int = 0) -> npt.NDArray[Any]:
    """A longer copy, with ``rest`` at its end."""
    grown = np.full(size, rest, held.dtype)
    grown[: len(held)] = held
    return grown
