"""Numbers of names that strangers choose, such as reporters and hazards, bounded by shard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["OVERFLOW", "Names"]

OVERFLOW: Final = "~other"
"""What takes the place of names and codes beyond a shard's bound, so that they still count."""
_SHARDS: Final = 256
_MARKED: Final = 65_536
"""Names with a number below this are marked in a table of shards; others are few, and looked up one by one."""


class Names:
    """Numbers of names that strangers choose: beyond a shard's bound they go by a common one."""

    def __init__(self, bound: int, held: list[str]) -> None:
        self._bound = bound
        self.held = held
        self._number: dict[str, int] = {}
        self._known: dict[int, set[str]] = {}
        self._marks = np.zeros((64, _SHARDS), np.bool_)

    def recode(
        self, shards: npt.NDArray[np.uint8], column: npt.NDArray[Any], names: list[str]
    ) -> npt.NDArray[np.int32]:
        """Numbers of a column's names; -1 stays."""
        if not names:
            return np.full(len(column), -1, np.int32)
        numbers = np.array([self._number.get(name, _MARKED) for name in names], np.int32)
        numbers[numbers >= len(self._marks)] = -1
        some = column >= 0
        out = np.where(some, numbers[np.maximum(column, 0)], np.int32(-1))
        out[(out >= 0) & ~self._marks[np.maximum(out, 0), shards]] = -1
        rest = np.flatnonzero(some & (out < 0))
        if len(rest):
            out[rest] = self._one_by_one(shards[rest], column[rest], names)
        return out

    def _one_by_one(
        self, shards: npt.NDArray[np.uint8], column: npt.NDArray[Any], names: list[str]
    ) -> npt.NDArray[np.int32]:
        """Numbers of names of which some may be new to their shard; new ones come in the order of shards and names."""
        distinct, place = np.unique(shards.astype(np.int64) << 32 | column, return_inverse=True)
        keys = [(pair >> 32, names[pair & 0xFFFFFFFF]) for pair in distinct.tolist()]
        numbers = {key: self._of(*key) for key in sorted(keys)}
        return np.array([numbers[key] for key in keys], np.int32)[place]

    def known(self) -> list[tuple[int, list[int]]]:
        """Of each shard the numbers of the names that are known there."""
        return [(shard, sorted(self._number[name] for name in names)) for shard, names in sorted(self._known.items())]

    def take_up_held(self, names: Iterable[str]) -> None:
        """Give stored names the numbers that they had."""
        for name in names:
            self._number[name] = len(self.held)
            self.held.append(name)

    def take_up_known(self, shard: int, numbers: Iterable[int]) -> None:
        """Take up the numbers of the names that were known in a shard."""
        known = self._known.setdefault(shard, set())
        for number in numbers:
            known.add(self.held[number])
            self._mark(shard, number)

    def _of(self, shard: int, name: str) -> int:
        known = self._known.setdefault(shard, set())
        if name not in known:
            if len(known) >= self._bound:
                name = OVERFLOW
            known.add(name)
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self.held)
            self.held.append(name)
        self._mark(shard, number)
        return number

    def _mark(self, shard: int, number: int) -> None:
        if number >= _MARKED:
            return
        if number >= len(self._marks):
            grown = np.zeros((min(_MARKED, max(number + 1, 2 * len(self._marks))), _SHARDS), np.bool_)
            grown[: len(self._marks)] = self._marks
            self._marks = grown
        self._marks[number, shard] = True
