"""Orders by digits against NumPy's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import radix
from streams.radix import order_by_hash, order_of, starts_of


@pytest.fixture(autouse=True)
def few_are_sorted_by_digits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radix, "_FEW", 0)


KEYS = st.integers(0, 2**16 - 1) | st.integers(0, 2**48) | st.integers(0, 2**63 - 1) | st.integers(0, 3)


@given(st.lists(KEYS, max_size=40))
def test_whole_numbers_come_in_their_stable_order(keys: list[int]) -> None:
    for dtype in (np.int64, np.uint64):
        some = np.array(keys, dtype)
        assert order_of(some).tolist() == np.argsort(some, kind="stable").tolist()
    small = np.array(keys, np.int64) & 0x7FFFFFFF
    assert order_of(small.astype(np.int32)).tolist() == np.argsort(small, kind="stable").tolist()


@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3) | st.integers(2**63, 2**63 + 2**33), max_size=40))
def test_hashes_come_in_their_stable_order_though_their_upper_halves_are_the_same(keys: list[int]) -> None:
    some = np.array(keys, np.uint64)
    assert order_by_hash(some).tolist() == np.argsort(some, kind="stable").tolist()


@pytest.mark.parametrize("count", [1_500, 40_000])
def test_many_hashes_too(count: int) -> None:
    some = np.random.default_rng(count).integers(0, 2**64, count, np.uint64)
    some[::7] = some[::-7]
    assert (order_by_hash(some) == np.argsort(some, kind="stable")).all()


@given(st.lists(st.integers(-3, 3), max_size=20))
def test_distinct_values_begin_where_they_begin(keys: list[int]) -> None:
    some: npt.NDArray[np.int64] = np.sort(np.array(keys, np.int64))
    assert starts_of(some).tolist() == [at for at in range(len(keys)) if not at or some[at] != some[at - 1]]
