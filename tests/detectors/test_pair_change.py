"""The later period of a pair against its past: numerical integration, limits and degenerate input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from detectors.errors import DetectorError
from detectors.gamma_poisson import GammaMixture
from detectors.pair_change import pair_change

THETA = GammaMixture(3.25595, 0.399988, 2.02375, 1.90613, 0.0653075)


def tail_by_integration(past_n: int, past_e: float, n: int, e: float) -> float:
    """P(X >= n) by integrating the Poisson tail over prior times past likelihood, no conjugacy used."""

    def prior(rate: float) -> float:
        one = stats.gamma.pdf(rate, THETA.alpha1, scale=1 / THETA.beta1)
        two = stats.gamma.pdf(rate, THETA.alpha2, scale=1 / THETA.beta2)
        return float(THETA.weight * one + (1 - THETA.weight) * two)

    def likelihood(rate: float) -> float:
        return float(stats.poisson.pmf(past_n, rate * past_e))

    grid = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]

    def over(weight: object) -> float:
        parts = (integrate.quad(weight, low, high, limit=200)[0] for low, high in itertools.pairwise(grid))
        return sum(parts)

    total = over(lambda rate: prior(rate) * likelihood(rate))
    upper = over(lambda rate: prior(rate) * likelihood(rate) * stats.poisson.sf(n - 1, rate * e))
    return upper / total


@pytest.mark.parametrize(
    ("past_n", "past_e", "n", "e"), [(0, 0.5, 3, 0.2), (4, 2.0, 9, 1.5), (30, 3.0, 12, 1.0), (1, 8.0, 4, 2.0)]
)
def test_the_tail_is_that_of_the_posterior_predictive_law(past_n: int, past_e: float, n: int, e: float) -> None:
    found = pair_change([past_n], [past_e], [n], [e], THETA)
    assert found.p_value[0] == pytest.approx(tail_by_integration(past_n, past_e, n, e), rel=1e-6)


def test_what_was_always_so_is_no_news_and_what_is_new_is() -> None:
    found = pair_change([0, 200, 0], [30.0, 30.0, 0.01], [20, 20, 6], [3.0, 3.0, 0.02], THETA)
    assert found.p_value[0] < 1e-6
    assert found.p_value[1] > 0.4
    assert found.p_value[2] < 1e-3
    assert found.expected[1] == pytest.approx(20.0, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 50), st.integers(0, 500), st.floats(0, 50)), max_size=8))
def test_a_pair_has_the_same_bits_alone_and_among_others(rows: list[tuple[int, float, int, float]]) -> None:
    columns = [np.array(column, np.float64) for column in zip(*rows, strict=True)] if rows else [np.empty(0)] * 4
    together = pair_change(*columns, THETA)
    for at, row in enumerate(rows):
        alone = pair_change(*([value] for value in row), THETA)
        assert alone.p_value.tobytes() == together.p_value[at : at + 1].tobytes()
        assert 0.0 <= together.p_value[at] <= 1.0


def test_more_reports_are_never_less_surprising() -> None:
    n = np.arange(0, 60)
    p = pair_change(np.full(60, 5), np.full(60, 4.0), n, np.full(60, 3.0), THETA).p_value
    assert p[0] == 1.0
    assert np.all(np.diff(p) <= 0)


def test_nothing_expected_is_not_defined_and_huge_counts_are() -> None:
    found = pair_change([0, 10**9], [0.0, 1e9], [5, 10**9], [0.0, 1e9], THETA)
    assert found.defined.tolist() == [False, True]
    assert found.p_value[0] == 1.0
    assert 0.0 < found.p_value[1] < 1.0


def test_one_past_for_every_pair() -> None:
    with pytest.raises(DetectorError, match="past_n"):
        pair_change([1, 2], [1.0, 1.0], [1], [1.0], THETA)
