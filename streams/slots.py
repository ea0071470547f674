"""Numbers of keys by hash, for many keys at once: a table of slots with open addressing.

A key's number lies in the slot that the key says, or, where others were there before, in the first free one in steps
of a length that the key says too: so keys that were made to meet in one slot go apart from there (double hashing). A
lookup is a few gathers over all keys, and nothing is sorted: some 30 ns a key, however many are held.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Slots"]

Keys = npt.NDArray[np.uint64]
Numbers = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]
_FEWEST_BITS: Final = 10
_ROOM: Final = 2
"""Slots for a key at the least: with fewer, more keys stand in each other's way."""
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)
"""2**64 divided by the golden ratio: times this, neighbours lie far apart in the upper bits."""


class Slots:
    """The numbers of distinct keys, with two to eight slots for each: all move when room is made, so that is done
    fourfold at once.

    The keys themselves are held by whoever asks: in ``held``, the key of number ``i`` is ``held[i]``.

    Parameters
    ----------
    hashes
        Whether the keys are hashes. Then their slots lie as the keys do, and who asks in the order of keys goes through
        the table, and the memory, in one direction.
    """

    def __init__(self, *, hashes: bool = False) -> None:
        self._hashes = hashes
        self._bits = _FEWEST_BITS
        self._numbers = np.full(1 << _FEWEST_BITS, -1, np.int32)
        self._count = 0
        self._walked: tuple[Keys, Places] | None = None
        """The keys that were looked for last, and where that ended, while no slot has changed."""

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return self._numbers.nbytes

    def expect(self, count: int, held: Keys) -> None:
        """Make room for so many keys in all: then none has to move on the way there."""
        if _ROOM * count > len(self._numbers):
            self._renew(self._numbers[self._numbers >= 0], count, held)

    def find(self, keys: Keys, held: Keys) -> Numbers:
        """The number of each key, ``[n]``, -1 where it has none. The array of keys must stay as it is."""
        if not self._count:
            return np.full(len(keys), -1, np.int32)
        slot, found = self._walk(keys, held)
        self._walked = keys, slot
        return found

    def put(self, keys: Keys, numbers: Numbers, held: Keys) -> Numbers:
        """Give distinct keys new numbers; ``held`` holds these keys too. Returns what they had before, -1 for none."""
        if _ROOM * (self._count + len(keys)) > len(self._numbers):
            self._renew(self._numbers[self._numbers >= 0], 2 * (self._count + len(keys)), held)
        if self._walked is not None and np.array_equal(self._walked[0], keys):  # whoever asks first, and then puts
            slot = self._walked[1]
            before = self._numbers.take(slot)
        else:
            slot, before = self._walk(keys, held)
        self._walked = None
        self._place(slot, keys, numbers)
        self._count += int((before < 0).sum())
        return before

    def drop(self, count: int, held: Keys) -> None:
        """Forget the numbers below ``count``; the others go down by as many, and ``held`` holds their keys."""
        kept = self._numbers[self._numbers >= count] - np.int32(count)
        self._bits = _FEWEST_BITS
        self._renew(kept, len(kept), held)

    def _walk(self, keys: Keys, held: Keys) -> tuple[Places, Numbers]:
        """Of each key the slot that it has, or the free one where it is looked for last, and the number there."""
        slot, stride = self._way(keys)
        found = self._numbers.take(slot)
        # Who stands before a free slot is compared with the last key held, whatever that is: both are done then.
        at = ((found >= 0) & (held.take(found) != keys)).nonzero()[0]
        keys, here, stride = keys[at], slot[at], stride[at]
        while len(at):
            here = here + stride & len(self._numbers) - 1
            there = self._numbers.take(here)
            slot[at], found[at] = here, there
            on = ((there >= 0) & (held.take(there) != keys)).nonzero()[0]
            at, keys, here, stride = at[on], keys[on], here[on], stride[on]
        return slot, found

    def _place(self, slot: Places, keys: Keys, numbers: Numbers) -> None:
        """Put the numbers of keys into slots that are free or theirs. Where several want the same, one of them gets it,
        and the others the next on their ways that are free."""
        self._numbers[slot] = numbers
        on = (self._numbers.take(slot) != numbers).nonzero()[0]
        stride = self._way(keys[on])[1]
        slot, numbers = slot[on], numbers[on]
        while len(slot):
            slot = slot + stride & len(self._numbers) - 1
            free = (self._numbers.take(slot) < 0).nonzero()[0]
            self._numbers[slot[free]] = numbers[free]
            on = (self._numbers.take(slot) != numbers).nonzero()[0]
            slot, stride, numbers = slot[on], stride[on], numbers[on]

    def _renew(self, numbers: Numbers, count: int, held: Keys) -> None:
        """Hold these numbers only, with room for so many keys."""
        while _ROOM * count > 1 << self._bits:
            self._bits += 1
        self._numbers = np.full(1 << self._bits, -1, np.int32)
        self._count, self._walked = len(numbers), None
        keys = held.take(numbers)
        self._place(self._way(keys)[0], keys, numbers)

    def _way(self, keys: Keys) -> tuple[Places, Places]:
        """The slot that a key's hash says, and the steps from there: odd, so that they come by every slot."""
        last = np.uint64(len(self._numbers) - 1)
        if not self._hashes:
            keys = (keys ^ keys >> np.uint64(32)) * _SPREAD
        return (keys >> np.uint64(64 - self._bits)).view(np.int64), (keys & last | np.uint64(1)).view(np.int64)
