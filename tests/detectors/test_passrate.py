from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from detectors import (
    DetectorError,
    below_target,
    dispersion,
    jeffreys_interval,
    pooled_dispersion,
    wilson_interval,
    worse_than_reference,
)


def test_intervals_match_the_published_ones(table):
    rows = table("intervals")
    for name, interval in (("wilson", wilson_interval), ("jeffreys", jeffreys_interval)):
        low, high = interval(rows["n"], rows["x"])
        np.testing.assert_allclose(low, rows[f"{name}_low"], atol=1e-12)
        np.testing.assert_allclose(high, rows[f"{name}_high"], atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.999]))
def test_intervals_match_statsmodels(n, share, confidence):
    x = min(max(round(n * share), 1), n - 1)
    for method, interval in (("wilson", wilson_interval), ("jeffreys", jeffreys_interval)):
        low, high = interval([n], [x], confidence)
        want = proportion_confint(x, n, 1 - confidence, method=method)
        np.testing.assert_allclose([low[0], high[0]], want, rtol=1e-9, atol=1e-12)


def test_an_interval_of_nothing_is_everything():
    for interval in (wilson_interval, jeffreys_interval):
        low, high = interval([0], [0])
        assert (low[0], high[0]) == (0.0, 1.0)


def test_the_p_value_against_a_target_is_the_exact_binomial_tail():
    n, x = np.array([20, 100, 4000]), np.array([2, 5, 100])
    found = below_target(n, x, 0.98)
    np.testing.assert_allclose(found.p_value, stats.binom.sf(x - 1, n, 0.02), rtol=1e-10)


@pytest.mark.parametrize("target", [0.9, 0.98, 0.995])
@pytest.mark.parametrize("n", [13, 80, 500])
def test_a_conforming_population_is_denied_with_at_most_five_per_cent_risk(n, target):
    x = np.arange(n + 1)
    alarm = below_target(np.full(n + 1, n), x, target).alarm
    assert stats.binom.pmf(x, n, 1 - target)[alarm].sum() <= 0.05
    assert alarm[-1]


def test_one_failure_denies_a_target_of_all():
    found = below_target([10, 10], [0, 1], 1.0)
    assert found.alarm.tolist() == [False, True]


def test_without_correlation_the_reference_is_jeffreys_posterior():
    found = worse_than_reference([40], [5], [300], [9], 0.0)
    want = stats.betabinom.sf(4, 40, 9.5, 291.5)
    assert found.p_value[0] == pytest.approx(want, rel=1e-9)
    assert found.reference[0] == pytest.approx(1 - 9.5 / 301)


def test_correlation_makes_the_same_failures_weigh_less():
    rho = np.array([0.0, 0.002, 0.005, 0.01])
    same = np.ones(4)
    p = worse_than_reference(500 * same, 16 * same, 5000 * same, 80 * same, rho, ref_windows=10).p_value
    assert np.all(np.diff(p) > 0)


def test_p_values_of_correlated_windows_are_valid():
    rng = np.random.default_rng(2)
    size, windows, n, rho = 6000, 30, 60, 0.05
    rate = rng.beta(2, 30, size)[:, None]
    m = (1 - rho) / rho
    own = rng.beta(np.maximum(rate * m, 1e-6), (1 - rate) * m, (size, windows + 1))
    failed = rng.binomial(n, own)
    tested = np.full_like(failed, n)
    found = worse_than_reference(
        tested[:, -1],
        failed[:, -1],
        tested[:, :-1].sum(axis=1),
        failed[:, :-1].sum(axis=1),
        rho,
        ref_windows=windows,
    )
    assert (found.p_value <= 0.05).mean() < 0.055
    assert (found.p_value <= 0.01).mean() < 0.013


@pytest.mark.parametrize("rho", [0.0, 0.02, 0.1])
def test_the_pooled_correlation_is_found_again(rho):
    rng = np.random.default_rng(3)
    tested = rng.integers(20, 200, (1500, 12))
    rate = rng.uniform(0.05, 0.3, (1500, 1))
    if rho:
        m = (1 - rho) / rho
        rate = rng.beta(rate * m, (1 - rate) * m, tested.shape)
    failed = rng.binomial(tested, np.broadcast_to(rate, tested.shape))
    assert pooled_dispersion(tested, failed) == pytest.approx(rho, abs=0.002 + 0.1 * rho)


def test_correlation_is_shrunk_toward_the_pool():
    rng = np.random.default_rng(4)
    tested = np.full((50, 12), 100)
    failed = rng.binomial(100, 0.1, (50, 12))
    own = dispersion(tested, failed, pool=0.04, pool_weight=0)
    half = dispersion(tested, failed, pool=0.04, pool_weight=11)
    assert np.all(own >= 0)
    assert np.all(np.abs(half - 0.04) <= np.maximum(np.abs(own - 0.04), 0.021))
    np.testing.assert_allclose(dispersion(tested, failed, pool=0.04, pool_weight=1e12), 0.04, rtol=1e-6)


def test_series_that_say_nothing_take_the_pool():
    tested = np.array([[0, 0, 0], [5, 5, 5], [7, 0, 0], [3, 3, 3]])
    failed = np.array([[0, 0, 0], [0, 0, 0], [2, 0, 0], [3, 3, 3]])
    np.testing.assert_array_equal(dispersion(tested, failed, pool=0.03), 0.03)
    assert pooled_dispersion(tested, failed) == 0.0
    assert pooled_dispersion(np.empty((0, 3)), np.empty((0, 3))) == 0.0


def test_the_pool_does_not_hang_on_the_order_of_the_series():
    rng = np.random.default_rng(5)
    tested = rng.integers(1, 50, (300, 8))
    failed = rng.binomial(tested, 0.2)
    order = rng.permutation(300)
    assert pooled_dispersion(tested, failed) == pooled_dispersion(tested[order], failed[order])


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(6)
    n = rng.integers(0, 1500, 41)
    x = rng.binomial(n, 0.04)
    ref_n = rng.integers(0, 20000, 41)
    ref_x = rng.binomial(ref_n, 0.03)
    rho = rng.choice([0.0, 0.001, 0.05], 41)
    assert_rows_stand_alone(lambda r: worse_than_reference(n[r], x[r], ref_n[r], ref_x[r], rho[r], ref_windows=9), 41)
    assert_rows_stand_alone(lambda r: below_target(n[r], x[r], 0.98), 41)
    tested = rng.integers(0, 90, (41, 11))
    failed = rng.binomial(tested, 0.1)
    assert_rows_stand_alone(lambda r: dispersion(tested[r], failed[r], pool=0.01), 41)


def test_degenerate_windows_give_defined_evidence():
    n = np.array([0, 1, 1, 10**9, 10**9, 10**9])
    x = np.array([0, 0, 1, 0, 10**9, 10**7])
    target = below_target(n, x, 0.98)
    against = worse_than_reference(n, x, n[::-1], x[::-1], 0.01)
    for found in (target, against):
        assert not found.alarm[0]
        assert not found.defined[0]
        assert found.p_value[0] == 1
        assert np.isnan(found.rate[0])
        assert np.all((found.p_value >= 0) & (found.p_value <= 1))
    assert target.alarm.tolist() == [False, False, True, False, True, False]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: below_target([1], [2], 0.9), "failed"),
        (lambda: below_target([1.0], [np.nan], 0.9), "failed"),
        (lambda: below_target([1, 1], [1], 0.9), "failed"),
        (lambda: below_target([1], [1], 1.1), "target_pass_rate"),
        (lambda: below_target([1], [1], 0.9, confidence=1.0), "confidence"),
        (lambda: worse_than_reference([1], [1], [1], [2], 0.0), "ref_failed"),
        (lambda: worse_than_reference([1], [1], [1, 1], [0, 0], 0.0), "ref_tested"),
        (lambda: worse_than_reference([1], [1], [1], [1], -0.1), "rho"),
        (lambda: worse_than_reference([1], [1], [1], [1], 0.1, ref_windows=0), "ref_windows"),
        (lambda: dispersion([[1]], [[1]], pool=1.0), "pool"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
