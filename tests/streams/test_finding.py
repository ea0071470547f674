"""Numbers for people: six significant digits, one at a time or many."""

from __future__ import annotations

import math
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.finding import rounded, rounded_all

ANY = st.floats()
SHORT = st.builds(lambda digits, power: digits * 10.0**power, st.integers(-(10**8), 10**8), st.integers(-24, 24))
HALVES = st.builds(
    lambda digits, power, step: math.nextafter(float(f"{digits}5e{power}"), step),
    st.integers(99_998, 1_000_001),
    st.integers(-24, 12),
    st.sampled_from([-math.inf, 0.0, math.inf]),
)
EDGES = st.builds(lambda power, steps: 10.0**power * (1.0 + steps * 2.0**-52), st.integers(-20, 20), st.integers(-3, 3))


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


@given(st.lists(st.one_of(ANY, SHORT, HALVES, EDGES, st.floats(0.0, 1.0), st.floats(-1e7, 1e7)), max_size=30))
def test_many_are_rounded_like_each(values: list[float]) -> None:
    assert [bits(one) for one in rounded_all(np.array(values, np.float64))] == [bits(rounded(one)) for one in values]


def test_a_great_many_are_rounded_like_each() -> None:
    rng = np.random.default_rng(5)
    for values in (
        rng.random(20_000),
        np.exp(rng.normal(0.0, 12.0, 20_000)),
        rng.integers(0, 10**9, 20_000) / 1_000.0,
        np.round(rng.random(20_000), 7),
        -rng.integers(0, 10**7, 20_000) / 2.0,
    ):
        assert [bits(one) for one in rounded_all(values)] == [bits(rounded(one)) for one in values.tolist()]


def test_what_is_no_number_is_none() -> None:
    assert rounded_all(np.array([math.nan, math.inf, -math.inf, 0.0, 1.23456789e-300])) == [None] * 3 + [
        0,
        1.23457e-300,
    ]
    assert rounded_all(np.empty(0)) == []
