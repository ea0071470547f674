from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.multitest import multipletests

from detectors import DetectorError
from detectors.multiplicity import (
    DAYS_PER_MONTH,
    adjust,
    e_bh,
    e_to_p,
    overlapping_tests,
    p_to_e,
    recurrence_days,
    reject,
    threshold_for_rate,
)

P_VALUES = st.lists(st.sampled_from([0.0, 1e-12, 1e-4, 0.001, 0.004, 0.01, 0.02, 0.05, 0.3, 1.0]), max_size=25)


def test_adjusted_p_values_are_those_of_r(table):
    rows = table("padjust")
    np.testing.assert_allclose(adjust(rows["p"], "BH"), rows["bh"], rtol=1e-12)
    np.testing.assert_allclose(adjust(rows["p"], "BY"), rows["by"], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from(["BH", "BY"]), st.sampled_from([0.01, 0.1, 0.3]))
def test_rejections_are_those_of_statsmodels(seed, size, rule, level):
    p = np.random.default_rng(seed).beta(0.4, 2.0, size)
    flags, adjusted, *_ = multipletests(p, level, "fdr_bh" if rule == "BH" else "fdr_by")
    found = reject(p, rule, level)
    np.testing.assert_allclose(found.adjusted, adjusted, rtol=1e-12)
    np.testing.assert_array_equal(found.rejected, flags)


@settings(max_examples=80, deadline=None)
@given(P_VALUES, st.integers(0, 30))
def test_benjamini_and_hochberg_reject_by_the_definition_ties_and_all(p, more):
    """In fractions: the k smallest, k the last with p_(k) <= k level / m."""
    m, level = len(p) + more, Fraction("0.073")  # 73 is prime and over m: no p here is a multiple of level / m
    passed = [k for k in range(1, len(p) + 1) if Fraction(sorted(p)[k - 1]) <= k * level / max(m, 1)]
    cut = sorted(p)[max(passed) - 1] if passed else -1.0
    found = reject(p, "BH", 0.073, tests=m)
    assert found.rejected.tolist() == [value <= cut for value in p]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["BH", "BY"]))
def test_the_list_above_the_cut_is_not_needed(seed, rule):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.2, 3.0, 300)
    level = 0.1
    small = np.flatnonzero(p <= level)
    whole, listed = reject(p, rule, level), reject(p[small], rule, level, tests=300)
    np.testing.assert_array_equal(whole.rejected[small], listed.rejected)
    assert whole.rejected.sum() == listed.rejected.sum()
    exact = whole.adjusted[small] <= level
    assert whole.adjusted[small][exact].tobytes() == listed.adjusted[exact].tobytes()
    assert np.all(listed.adjusted >= whole.adjusted[small])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_e_bh_needs_no_e_values_below_one_over_the_level(seed):
    rng = np.random.default_rng(seed)
    e = np.exp(rng.normal(0.0, 3.0, 200))
    large = np.flatnonzero(e >= 10.0)
    whole, listed = e_bh(e, 0.1), e_bh(e[large], 0.1, tests=200)
    np.testing.assert_array_equal(whole.rejected[large], listed.rejected)
    assert whole.rejected.sum() == listed.rejected.sum()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans())
def test_e_bh_rejects_by_the_definition(seed, size, weighted):
    """The k largest, k the last with k e_[k] / m >= 1 / level (Wang and Ramdas, section 4)."""
    rng = np.random.default_rng(seed)
    e = np.exp(rng.normal(0.0, 3.0, size)).round(2)
    weights = rng.dirichlet(np.ones(size)) * size if weighted else np.ones(size)
    weighed = np.sort(e * weights)[::-1]
    passed = [k for k in range(1, size + 1) if k * weighed[k - 1] / size >= 1 / 0.1]
    found = e_bh(e, 0.1, weights=weights if weighted else None)
    assert found.rejected.sum() == max(passed, default=0)
    assert np.all(found.rejected == (e * weights >= (weighed[max(passed) - 1] if passed else np.inf)))


def test_equal_values_stand_together_whatever_their_order():
    p = np.array([0.02, 1e-5, 0.02, 0.9, 1e-5, 0.02])
    found = reject(p, "BH", 0.05)
    assert found.order.tolist() == [1, 4, 0, 2, 5, 3]
    for seed in range(5):
        turned = np.random.default_rng(seed).permutation(p.size)
        again = reject(p[turned], "BH", 0.05)
        assert again.adjusted.tobytes() == found.adjusted[turned].tobytes()
        np.testing.assert_array_equal(again.rejected, found.rejected[turned])


def discoveries(rejected, true_null):
    false = (rejected & true_null).sum(axis=-1)
    return false / np.maximum(rejected.sum(axis=-1), 1)


def test_the_false_discovery_rate_is_what_was_asked_for():
    """Independent normal streams: BH keeps exactly level * share of true nulls, e-BH with likelihood ratios no more."""
    rng = np.random.default_rng(11)
    ticks, m, nulls, level, shift = 1500, 100, 80, 0.1, 3.0
    x = rng.normal(size=(ticks, m))
    x[:, nulls:] += shift
    true_null = np.arange(m) < nulls
    p, e = stats.norm.sf(x), np.exp(shift * x - shift**2 / 2)
    rates = {
        "BH": [discoveries(reject(row, "BH", level).rejected, true_null) for row in p],
        "BY": [discoveries(reject(row, "BY", level).rejected, true_null) for row in p],
        "e-BH": [discoveries(e_bh(row, level).rejected, true_null) for row in e],
    }
    error = {name: np.std(found) / np.sqrt(ticks) for name, found in rates.items()}
    assert np.mean(rates["BH"]) == pytest.approx(level * nulls / m, abs=3 * error["BH"])
    assert np.mean(rates["BY"]) < level * nulls / m
    assert np.mean(rates["e-BH"]) <= level * nulls / m + 3 * error["e-BH"]
    assert np.mean([e_bh(row, level).rejected[nulls:].mean() for row in e]) > 0.3


def test_e_bh_holds_under_dependence():
    """Nested cells share one shock: positively and negatively dependent e-values."""
    rng = np.random.default_rng(12)
    ticks, m, level, lam = 4000, 50, 0.1, 2.0
    sign = np.where(np.arange(m) % 2, 1.0, -1.0)
    x = 0.9 * sign * rng.normal(size=(ticks, 1)) + np.sqrt(1 - 0.81) * rng.normal(size=(ticks, m))
    e = np.exp(lam * x - lam**2 / 2)
    wrong = np.array([e_bh(row, level).rejected.any() for row in e])
    assert wrong.mean() <= level + 3 * wrong.std() / np.sqrt(ticks)


def test_a_budget_spends_what_it_says():
    rng = np.random.default_rng(13)
    alarms = [reject(rng.uniform(size=500), "budget", 0.2).rejected.sum() for _ in range(4000)]
    assert np.mean(alarms) == pytest.approx(0.2, abs=3 * np.std(alarms) / np.sqrt(4000))
    listed = reject([1e-6, 3e-4, 5e-3], "budget", 0.2, tests=500)
    assert listed.rejected.tolist() == [True, True, False]
    assert listed.adjusted.tolist() == pytest.approx([5e-4, 0.15, 2.5])


@pytest.mark.parametrize("calibrator", ["power", "mixture", "shafer"])
def test_calibrators_fall_and_have_mean_one(calibrator):
    """An admissible calibrator integrates to 1 over the p-value (Vovk and Wang, proposition 2.1)."""

    def area(low, high):
        # Over u = -ln p, where the integrand is smooth.
        return integrate.quad(lambda u: float(p_to_e(np.exp(-u), calibrator)) * np.exp(-u), low, high, limit=200)[0]

    # The mixture has 1 / u of its mass beyond u; the others next to none.
    beyond = 1 / 600 if calibrator == "mixture" else 0.0
    assert area(0, 2) + area(2, 50) + area(50, 600) + beyond == pytest.approx(1.0, abs=1e-4)
    e = p_to_e(np.linspace(0, 1, 1001), calibrator)
    assert np.all(np.diff(e) < 0)
    assert e[0] == np.inf


def test_the_mixture_calibrator_is_the_mean_of_the_power_calibrators():
    for p in (1e-9, 0.003, 0.4, 0.98, 0.9899, 0.9901, 0.9999):
        mean = integrate.quad(lambda k, p=p: k * p ** (k - 1), 0, 1, epsabs=1e-13, limit=200)[0]
        assert float(p_to_e(p)) == pytest.approx(mean, rel=1e-9)
    assert p_to_e([0.01], "power", 0.1)[0] == pytest.approx(0.1 * 0.01**-0.9)
    assert p_to_e([0.0625], "shafer")[0] == pytest.approx(3.0)


def test_an_e_value_is_a_p_value_by_markov():
    assert e_to_p([0.0, 1.0, 4.0, np.inf]).tolist() == [1.0, 1.0, 0.25, 0.0]


def test_the_threshold_and_the_recurrence_interval_are_one_arithmetic():
    alpha = threshold_for_rate(2.0, 30.0, streams=10_000)
    assert alpha == pytest.approx(2 / 300_000)
    # All streams together: 2 a month, one in 15 days.
    assert recurrence_days([alpha], 1.0, streams=10_000)[0] == pytest.approx(15.0)
    assert threshold_for_rate(1e9, 1.0) == 1.0
    assert recurrence_days([0.0, 1.0], 1 / 24).tolist() == pytest.approx([np.inf, 1 / 24])


def test_runs_of_false_alarms_of_an_overlapping_window_are_bounded():
    """A running week, tested every hour for Poisson streams: runs of alarms a month, against the bound."""
    rng = np.random.default_rng(14)
    streams, months, mean, k = 400, 24, 2.0, 8
    hours = int(months * DAYS_PER_MONTH * 24)
    total = np.cumsum(rng.poisson(mean / 168, (streams, hours + 168)).astype(np.int32), axis=1)
    over = total[:, 168:] - total[:, :-168] >= k
    runs = (over[:, 1:] & ~over[:, :-1]).sum(axis=1) / months
    alpha = stats.poisson.sf(k - 1, mean)
    bound = alpha * overlapping_tests(1 / 24, 7.0, k)
    assert runs.mean() <= bound
    assert runs.mean() > bound / 2  # and the bound is no waste
    assert bound < alpha * 720 / 15
    assert overlapping_tests(7.0, 7.0, 8.0) == pytest.approx(DAYS_PER_MONTH / 7)


def test_empty_lists_and_extremes_are_decided():
    assert reject([], "BH", 0.1).rejected.shape == (0,)
    assert reject([], "BY", 0.1, tests=10).order.shape == (0,)
    assert e_bh([], 0.1).rejected.shape == (0,)
    found = e_bh([np.inf, 0.0, 1e-320, 1e308], 0.1, weights=[1.0, 0.5, 0.5, 2.0])
    assert found.rejected.tolist() == [True, False, False, True]
    assert reject([0.0, 1.0], "BY", 0.1, tests=10**9).rejected.tolist() == [True, False]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: reject([0.1, np.nan], "BH", 0.1), "p_values"),
        (lambda: reject([1.1], "BH", 0.1), "p_values"),
        (lambda: reject([[0.1]], "BH", 0.1), "p_values"),
        (lambda: reject(["x"], "BH", 0.1), "p_values"),
        (lambda: reject([0.1, 0.2], "BH", 0.1, tests=1), "tests"),
        (lambda: reject([0.1], "holm", 0.1), "rule"),
        (lambda: reject([0.1], "BH", 0.0), "level"),
        (lambda: reject([0.1], "budget", 0.0), "level"),
        (lambda: e_bh([-1.0], 0.1), "e_values"),
        (lambda: e_bh([np.nan], 0.1), "e_values"),
        (lambda: e_bh([1.0, 1.0], 0.1, weights=[2.0, 1.0]), "weights"),
        (lambda: e_bh([1.0], 0.1, weights=[-1.0]), "weights"),
        (lambda: e_to_p([-1.0]), "e_values"),
        (lambda: p_to_e([0.1], "vovk"), "calibrator"),
        (lambda: p_to_e([0.1], "power", 1.0), "kappa"),
        (lambda: p_to_e([2.0]), "p_values"),
        (lambda: threshold_for_rate(0.0, 30.0), "false_alarms_per_month"),
        (lambda: overlapping_tests(0.0, 7.0, 5.0), "tick_days"),
        (lambda: recurrence_days([0.1], 0.0), "tick_days"),
    ],
)
def test_what_cannot_be_decided_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
