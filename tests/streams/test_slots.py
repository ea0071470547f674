"""Numbers of keys by hash against a dictionary."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import slots as module
from streams.slots import Slots

KEYS = st.integers(0, 30) | st.integers(2**64 - 5, 2**64 - 1) | st.integers(0, 2**64 - 1)
BATCHES = st.lists(st.lists(KEYS, unique=True, max_size=12), max_size=8)
SPREADS = st.sampled_from([module._SPREAD, np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)])
"""Good and bad: with some of them all keys have the same slot, the first or the last."""


def put(slots: Slots, held: list[int], keys: list[int]) -> list[int]:
    """Give keys the next numbers."""
    numbers = np.arange(len(held), len(held) + len(keys), dtype=np.int32)
    held += keys
    return slots.put(np.array(keys, np.uint64), numbers, np.array(held, np.uint64)).tolist()


@given(
    BATCHES, st.lists(KEYS, max_size=20), st.integers(0, 60), SPREADS, st.integers(1, 10), st.booleans(),
    st.integers(0, 200),
)  # fmt: skip
def test_keys_have_the_last_numbers_that_they_were_given(
    batches: list[list[int]], others: list[int], count: int, spread: np.uint64, bits: int, hashes: bool, expected: int
) -> None:
    with patch.multiple(module, _SPREAD=spread, _FEWEST_BITS=bits):
        slots, held, plain = Slots(hashes=hashes), list[int](), dict[int, int]()
        for number, keys in enumerate(batches):
            if number == len(batches) // 2:
                slots.expect(expected, np.array(held, np.uint64))
            before = [plain.get(key, -1) for key in keys]
            plain |= {key: len(held) + at for at, key in enumerate(keys)}
            assert put(slots, held, keys) == before
        asked = [*held, *others]
        found = slots.find(np.array(asked, np.uint64), np.array(held, np.uint64))
        assert found.tolist() == [plain.get(key, -1) for key in asked]
        assert len(slots) == len(plain)
        slots.drop(count, np.array(held[count:], np.uint64))
        found = slots.find(np.array(asked, np.uint64), np.array(held[count:], np.uint64))
        assert found.tolist() == [max(plain.get(key, -1) - count, -1) for key in asked]
        assert len(slots) == sum(number >= count for number in plain.values())


@pytest.mark.parametrize("spread", [1, 2**32, 2**40 + 1, 0x9E3779B97F4A7C15])
def test_a_key_takes_8_to_32_bytes_and_few_steps_however_the_keys_are_spread(spread: int) -> None:
    slots, held = Slots(), (np.arange(300_000, dtype=np.uint64) * np.uint64(spread)).astype(np.uint64)
    for numbers in np.array_split(np.arange(200_000, dtype=np.int32), 70):
        assert (slots.put(held[numbers], numbers, held) == -1).all()
    assert slots.find(held, held).tolist() == [*range(200_000), *[-1] * 100_000]
    assert slots.nbytes <= 32 * 200_000
    first, stride = slots._way(held)
    taken = slots._walk(held, held)[0] - first
    # Times the inverse of the stride: how many steps lead there.
    steps = taken * np.array([pow(one, -1, 2**slots._bits) for one in stride.tolist()]) & 2**slots._bits - 1
    assert steps.mean() < 1
    assert steps.max() < 40


def test_room_that_was_made_beforehand_is_enough_for_the_keys_expected() -> None:
    held = np.random.default_rng(6).integers(0, 2**64, 20_000, np.uint64)
    slots = Slots(hashes=True)
    slots.put(held[:10], np.arange(10, dtype=np.int32), held)
    slots.expect(20_000, held)
    size = slots.nbytes
    slots.put(held[10:], np.arange(10, 20_000, dtype=np.int32), held)
    assert slots.nbytes == size <= 4 * 20_000 * 4
    assert slots.find(held, held).tolist() == list(range(20_000))


def test_hashes_have_their_slots_in_their_own_order() -> None:
    held = np.sort(np.random.default_rng(7).integers(0, 2**64, 5_000, np.uint64))
    slots = Slots(hashes=True)
    slots.expect(5_000, held)
    assert (np.diff(slots._way(held)[0]) >= 0).all()


@pytest.mark.parametrize("hashes", [False, True])
def test_keys_that_were_made_to_meet_in_one_slot_go_apart(hashes: bool) -> None:
    rng = np.random.default_rng(5)
    some = rng.integers(0, 2**63, 3_000_000).astype(np.uint64) * np.uint64(2) + np.uint64(1)
    slots = Slots(hashes=hashes)
    slots._bits, slots._numbers = 16, np.full(1 << 16, -1, np.int32)
    meeting = np.unique(some[slots._way(some)[0] < 128])
    assert len(meeting) > 5_000
    numbers = np.arange(len(meeting), dtype=np.int32)
    slots.put(meeting, numbers, meeting)
    assert slots._bits == 16
    looked: list[int] = []
    find = np.ndarray.take

    class Counted(np.ndarray):
        def take(self, *args: Any, **options: Any) -> Any:
            looked.append(len(args[0]))
            return find(self, *args, **options)

    slots._numbers = slots._numbers.view(Counted)
    assert slots.find(meeting, meeting).tolist() == numbers.tolist()
    assert sum(looked) < 4 * len(meeting)
