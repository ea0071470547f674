from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone
from scipy import stats

from detectors import DetectorError, lr_cusum

CHARTS = {
    # chart: odds ratio, threshold, sigma, weeks of alarm, tolerance (R's sigma is printed to 4 digits only)
    "binomial_const_R2_h4": (2.0, 4.0, 0.0, [144, 145], 1e-9),
    "binomial_glm_R2_h4": (2.0, 4.0, 0.0, [134, 135, 144, 145, 155], 1e-9),
    "betabin_R2_h4": (2.0, 4.0, 0.0007917, [145], 5e-4),
    "betabin_pi001_sigma0001_R15_h5": (1.5, 5.0, 0.001, [145], 1e-8),
}


@pytest.mark.parametrize("chart", CHARTS)
def test_the_abattoir_charts_are_the_published_ones(chart, table):
    odds_ratio, threshold, sigma, weeks, tolerance = CHARTS[chart]
    rows = table("abattoir_cusum")
    rows = rows[rows["chart"] == chart]
    found = lr_cusum(
        rows["tested"][None, :],
        rows["failed"][None, :],
        rows["p0"][None, :],
        odds_ratio,
        threshold=threshold,
        rho=sigma / (1 + sigma),
    )
    np.testing.assert_allclose(found.path[0], rows["path"], atol=tolerance)
    np.testing.assert_array_equal(found.alarm[0], rows["alarm"] == 1)
    assert rows["week"][found.alarm[0]].tolist() == weeks


def log_pmf(x, n, p, rho):
    if rho == 0:
        return stats.binom.logpmf(x, n, p)
    m = (1 - rho) / rho
    return stats.betabinom.logpmf(x, n, p * m, (1 - p) * m)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from([0.0, 0.01, 0.3]))
def test_the_chart_is_the_loop_of_the_definition(seed, reset, rho):
    rng = np.random.default_rng(seed)
    tested = rng.integers(0, 40, (3, 25))
    failed = rng.binomial(tested, 0.15)
    p0, ratio, h = rng.uniform(0.05, 0.2, 3), rng.uniform(1.2, 3.0, 3), rng.uniform(0.5, 4.0, 3)
    found = lr_cusum(tested, failed, p0, ratio, threshold=h, rho=rho, reset=reset)
    for i in range(3):
        p1 = ratio[i] * p0[i] / (1 - p0[i] + ratio[i] * p0[i])
        s, last = 0.0, -1
        for t in range(25):
            n, x = tested[i, t], failed[i, t]
            if n:
                s = max(0.0, s + log_pmf(x, n, p1, rho) - log_pmf(x, n, p0[i], rho))
            assert found.path[i, t] == pytest.approx(s, abs=1e-9)
            if reset and s > h[i]:
                s = 0.0
            if s < 1e-12:
                last = t
        assert found.statistic[i] == pytest.approx(s, abs=1e-9)
        assert found.last_reset[i] == last


def test_a_chart_goes_on_as_if_it_had_never_stopped():
    rng = np.random.default_rng(1)
    tested = rng.integers(0, 60, (9, 40))
    failed = rng.binomial(tested, 0.05)
    options = {"p0": 0.04, "odds_ratio": 2.0, "threshold": 3.0, "rho": 0.01}
    whole = lr_cusum(tested, failed, **options)
    first = lr_cusum(tested[:, :17], failed[:, :17], **options)
    second = lr_cusum(tested[:, 17:], failed[:, 17:], **options, start=first.statistic)
    path = np.ascontiguousarray(np.concatenate([first.path, second.path], axis=1))
    assert path.tobytes() == whole.path.tobytes()
    assert second.statistic.tobytes() == whole.statistic.tobytes()


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    tested = rng.integers(0, 300, (33, 20))
    failed = rng.binomial(tested, 0.05)
    p0, rho = rng.uniform(0.02, 0.1, 33), rng.choice([0.0, 1e-4, 0.05], 33)
    assert_rows_stand_alone(lambda r: lr_cusum(tested[r], failed[r], p0[r], 2.0, threshold=4.0, rho=rho[r]), 33)


def test_degenerate_batches_give_a_defined_chart():
    tested = np.array([[0, 0, 0], [1, 1, 1], [10**9] * 3, [10**9] * 3])
    failed = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 0], [10**9] * 3])
    for rho in (0.0, 1e-12, 0.1):
        found = lr_cusum(tested, failed, [0.01, 1e-12, 0.5, 1 - 1e-12], 2.0, threshold=4.0, rho=rho)
        assert np.all(np.isfinite(found.path))
    assert not lr_cusum(tested, failed, 0.01, 2.0, threshold=4.0).alarm[:3].any()
    assert lr_cusum(np.empty((2, 0)), np.empty((2, 0)), 0.01, 2.0, threshold=4.0).last_reset.tolist() == [
        -1,
        -1,
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("p0", 0.0),
        ("p0", np.nan),
        ("odds_ratio", 0.0),
        ("threshold", 0.0),
        ("rho", 1.0),
        ("start", -1.0),
        ("p0", [0.1] * 3),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(option, value):
    given_options = {"p0": 0.1, "odds_ratio": 2.0, "threshold": 4.0, option: value}
    with pytest.raises(DetectorError, match=option):
        lr_cusum([[5, 5]], [[1, 1]], **given_options)
