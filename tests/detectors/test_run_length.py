from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from detectors import DetectorError, arl, lr_cusum, threshold_for_arl
from detectors.run_length import cusum_increments


def test_bernoulli_charts_have_the_published_run_lengths(table):
    for row in table("arl_bernoulli"):
        if row["limit"] > 700:
            continue  # a dense matrix of thousands of states: a second each
        steps, limit = [row["m"] - 1, -1], row["limit"]
        for start, suffix in ((0, ""), (limit // 2, "_half")):
            for p, name in ((row["p0"], "arl0"), (row["p1"], "arl1")):
                got = arl(steps, [p, 1 - p], limit, step=1, inclusive=True, start=start)
                assert got == pytest.approx(row[name + suffix], rel=1e-6)


def test_poisson_charts_have_the_published_run_lengths(table):
    x = np.arange(80)
    for row in table("arl_poisson"):
        law = stats.poisson.pmf(x, row["mu"])
        got = arl(x - row["k"], law / law.sum(), row["h"], step=1, inclusive=True)
        assert got == pytest.approx(row["arl"], rel=2e-5)


def test_a_normal_chart_has_the_published_run_length():
    edges = np.linspace(-8, 8, 4001)
    middle, law = (edges[1:] + edges[:-1]) / 2, np.diff(stats.norm.cdf(edges))
    assert arl(middle - 0.5, law, 4.0) == pytest.approx(335.3676, rel=2e-3)
    assert arl(middle - 0.5, law, 5.0, states=600) == pytest.approx(930.887, rel=5e-4)


def test_a_finer_chain_says_the_same():
    steps = cusum_increments(0.03, 2.0, 40, 0.01, rate=0.03)
    assert arl(*steps, 4.0) == pytest.approx(arl(*steps, 4.0, states=1500), rel=0.01)


@pytest.mark.parametrize(
    ("p0", "ratio", "n", "rho"), [(0.05, 2.0, 30, 0.02), (0.1, 1.5, 200, 0.01), (0.02, 2.0, 25, 0.0)]
)
def test_a_simulated_chart_runs_as_long_as_its_threshold_promises(p0, ratio, n, rho):
    rng = np.random.default_rng(8)
    arl0, series, times = 100.0, 3000, 900
    m = (1 - rho) / rho if rho else 0
    rate = rng.beta(p0 * m, (1 - p0) * m, (series, times)) if rho else np.full((series, times), p0)
    failed = rng.binomial(n, rate)
    h = threshold_for_arl(p0, ratio, n, rho, arl0)
    chart = lr_cusum(np.full_like(failed, n), failed, p0, ratio, threshold=h, rho=rho)
    alarms = chart.alarm.any(axis=1)
    assert alarms.mean() > 0.99
    lengths = np.where(alarms, chart.alarm.argmax(axis=1) + 1, times)
    exact = arl(*cusum_increments(p0, ratio, n, rho, rate=p0), h, states=800)
    assert lengths.mean() == pytest.approx(exact, rel=0.06)
    assert exact == pytest.approx(arl0, rel=0.35)


def test_the_threshold_rises_with_the_promise():
    h = [threshold_for_arl(0.05, 2.0, 30, 0.01, arl0) for arl0 in (20, 100, 1000, 10000)]
    assert np.all(np.diff(h) > 0)


def test_cells_on_the_grid_promise_what_they_keep():
    p0 = 10 ** (-36 / 30)
    h = threshold_for_arl(p0, 2.0, 10, 0.01, 500)
    assert arl(*cusum_increments(p0, 2.0, 10, 0.01, rate=p0), h, states=1200) == pytest.approx(500, rel=0.02)


def test_thousands_of_cells_need_few_solutions():
    rng = np.random.default_rng(9)
    p0, n = 10 ** rng.uniform(-2, -1, 4000), rng.integers(20, 100, 4000)
    h = {threshold_for_arl(float(p), 2.0, int(k), 0.01, 1000.0) for p, k in zip(p0, n, strict=True)}
    assert len(h) < 400


@pytest.mark.parametrize(
    "cell",
    [
        (1e-6, 2.0, 1, 0.0),
        (0.999, 2.0, 5000, 0.9),
        (0.3, 0.5, 20, 0.0),
        (0.3, 10.0, 5000, 0.0),
        (1e-12, 3.0, 10**9, 0.5),
    ],
)
def test_extreme_cells_have_a_threshold(cell):
    assert 0 < threshold_for_arl(*cell, 1000.0) <= 512


def test_no_alarm_in_reach_is_an_infinite_run():
    assert arl([-1.0, 0.0], [0.5, 0.5], 3, step=1) == np.inf
    assert arl([-0.3], [1.0], 3.0) == np.inf


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: arl([1, -1], [0.5, 0.6], 3), "increment_probs"),
        (lambda: arl([1, -1], [1.5, -0.5], 3), "increment_probs"),
        (lambda: arl([1, np.nan], [0.5, 0.5], 3), "increment_values"),
        (lambda: arl([1, -1], [0.5, 0.5], 0), "h"),
        (lambda: arl([1, -1], [0.5, 0.5], 3, start=4), "start"),
        (lambda: arl([1.5, -1], [0.5, 0.5], 3, step=1), "step"),
        (lambda: threshold_for_arl(0.0, 2.0, 10, 0.0, 100), "p0"),
        (lambda: threshold_for_arl(0.1, 1.0, 10, 0.0, 100), "odds_ratio"),
        (lambda: threshold_for_arl(0.1, 2.0, 0, 0.0, 100), "n"),
        (lambda: threshold_for_arl(0.1, 2.0, 10, 0.0, 1.0), "arl0"),
    ],
)
def test_what_has_no_run_length_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
