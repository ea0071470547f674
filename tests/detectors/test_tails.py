from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from detectors.tails import beta_binomial_log_pmf, beta_binomial_tail, count_tail, count_upper


@given(st.integers(0, 300), st.floats(0.01, 200), st.floats(1.01, 20))
@settings(deadline=None)
def test_the_count_tail_is_the_negative_binomials(y, mean, phi):
    law = stats.nbinom(mean / (phi - 1), 1 / phi)
    got = count_tail(np.array([float(y)]), np.array([mean]), np.array([phi]))[0]
    assert got == pytest.approx(law.sf(y - 1), rel=1e-7, abs=1e-280)


@given(st.floats(1e-6, 1e9), st.floats(1, 1e4), st.sampled_from([0.3, 0.05, 0.01, 1e-4, 1e-9]))
@settings(deadline=None, max_examples=200)
def test_the_limit_is_the_smallest_count_that_keeps_the_level(mean, phi, alpha):
    m, p = np.array([mean]), np.array([phi])
    upper = count_upper(m, p, alpha)
    assert upper[0] == np.floor(upper[0]) >= 0
    assert count_tail(upper + 1, m, p)[0] <= alpha
    assert upper[0] == 0 or count_tail(upper, m, p)[0] > alpha


def test_a_dispersion_of_almost_one_is_the_poisson_law():
    y, mean = np.arange(0.0, 30.0), np.full(30, 7.0)
    poisson = stats.poisson.sf(y - 1, 7.0)
    for phi in (1.0, 1.0 + 1e-12, 1.0 + 1e-8, 1.0 + 1e-7):
        np.testing.assert_allclose(count_tail(y, mean, np.full(30, phi)), poisson, rtol=1e-5)


def test_the_beta_binomial_tail_is_the_sum_of_its_terms():
    rng = np.random.default_rng(1)
    size = 400
    n = np.floor(10 ** rng.uniform(0, 3.5, size))
    p, m = 10 ** rng.uniform(-3.5, -0.1, size), 10 ** rng.uniform(0, 5, size)
    x = np.minimum(np.ceil(n * p * rng.uniform(0.5, 3, size)), n)
    got = beta_binomial_tail(x, n, p, m)
    for i in range(size):
        k = np.arange(x[i], n[i] + 1)
        terms = beta_binomial_log_pmf(k, *(np.full(k.shape, v[i]) for v in (n, p, m)))
        want = math.fsum(np.exp(terms))
        assert got[i] == pytest.approx(want, rel=1e-7, abs=1e-13)


def test_the_log_probability_is_scipys():
    k = np.arange(41.0)
    got = beta_binomial_log_pmf(k, np.full(41, 40.0), np.full(41, 0.1), np.full(41, 30.0))
    np.testing.assert_allclose(got, stats.betabinom.logpmf(k, 40, 3.0, 27.0), rtol=1e-10)


def test_a_thousand_million_items_still_have_a_tail():
    n = np.full(2, 1e9)
    got = beta_binomial_tail(n * 0.012, n, np.full(2, 0.01), np.array([1000.0, np.inf]))
    assert got[0] == pytest.approx(stats.beta.sf(0.012, 10, 990), rel=1e-4)
    assert got[1] < 1e-300


def some_tails(seed: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = np.floor(10 ** rng.uniform(0, 3.5, size))
    p, m = 10 ** rng.uniform(-3.5, -0.1, size), 10 ** rng.uniform(0, 10, size)
    return np.minimum(np.floor(n * p * rng.uniform(0, 6, size)), n), n, p, m


@given(st.integers(0, 2**32 - 1), st.integers(1, 200))
@settings(deadline=None, max_examples=20)
def test_a_beta_binomial_tail_does_not_depend_on_the_others_to_the_last_bit(seed, size):
    columns = some_tails(seed, size)
    alone = [beta_binomial_tail(*(column[at : at + 1] for column in columns))[0] for at in range(size)]
    assert beta_binomial_tail(*columns).tolist() == alone


@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-10, 1e-6, 1e-2, 0.5, 1.0]))
@settings(deadline=None, max_examples=20)
def test_only_tails_that_are_more_than_plenty_are_not_worked_out(seed, plenty):
    columns = some_tails(seed, 300)
    exact, got = beta_binomial_tail(*columns), beta_binomial_tail(*columns, plenty=plenty)
    other = got != exact
    assert (got[other] > plenty).all()
    assert (got[other] <= exact[other] * (1 + 1e-6)).all()
    assert other.any() or plenty > 0.1
