"""The leaves of one assess partition: which cells an event adds to, found for a whole tick at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.columns import EventColumns
from streams.radix import order_of, starts_of
from streams.slots import Slots

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
        self._slots = Slots()
        self._keys = np.empty(64, np.uint64)
        self._listed = 0
        """So many leaves have their keys in the table; those that are new wait until something is looked for."""
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
        if self._size == len(self._branch_of):
            self._keys = _wider(self._keys, 2 * self._size)
            self._branch_of = _wider(self._branch_of, 2 * self._size)
            self._told = _wider(self._told, 2 * self._size, _NEVER)
            self._start = _wider(self._start, 2 * self._size + 1)
        start = int(self._start[self._size])
        stop = start + len(leaf.rows)
        if stop > len(self._cells):
            self._cells = _wider(self._cells, 2 * stop)
        self._cells[start:stop] = leaf.rows
        self._keys[self._size] = _key(leaf.indicator, product, region)
        self._branch_of[self._size] = self._branches.setdefault(leaf.paths[0][0], len(self._branches))
        self._size += 1
        self._start[self._size] = stop

    def find(self, rows: EventColumns) -> npt.NDArray[np.int32]:
        """Leaf numbers of events, ``[rows]``; -1 where there is none yet."""
        if self._listed < self._size:
            new = np.arange(self._listed, self._size, dtype=np.int32)
            self._slots.put(self._keys[new], new, self._keys)
            self._listed = self._size
        product = _numbers_of(rows.products, self._products).take(rows["product"])
        region = _numbers_of(rows.regions, self._regions).take(rows["region"])
        wanted = _key(rows["indicator"], product, region)
        numbers = self._slots.find(wanted.view(np.uint64), self._keys)
        numbers[(product | region) < 0] = -1
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


def _key(indicator: Any, product: Any, region: Any) -> Any:
    """One integer for the three; of single ones or of arrays."""
    return ((product << _REGION_BITS) | region) << _INDICATOR_BITS | indicator


def _numbers_of(codes: list[str], numbers: dict[str, int]) -> Ints:
    """Numbers of codes, -1 where there is none."""
    return np.array([numbers.get(code, -1) for code in codes], np.int64)


def _wider(held: npt.NDArray[Any], size: int, rest: int = 0) -> npt.NDArray[Any]:
    """A longer copy, with ``rest`` at its end."""
    grown = np.full(size, rest, held.dtype)
    grown[: len(held)] = held
    return grown
