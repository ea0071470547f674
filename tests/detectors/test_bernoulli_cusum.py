from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from detectors import DetectorError, arl, lr_cusum
from detectors.bernoulli_cusum import bernoulli_arl, bernoulli_chart


def test_charts_of_thousands_of_states_have_the_published_run_lengths(table):
    for row in table("arl_bernoulli"):
        step, limit = int(row["m"]), int(row["limit"])
        for start, suffix in ((0, ""), (limit // 2, "_half")):
            assert bernoulli_arl(row["p0"], step, limit, start=start) == pytest.approx(row["arl0" + suffix], rel=1e-8)
            # p1 is printed to eight decimals only.
            assert bernoulli_arl(row["p1"], step, limit, start=start) == pytest.approx(row["arl1" + suffix], rel=4e-6)


@pytest.mark.parametrize(
    ("rate", "step", "limit"), [(0.9, 15, 75), (0.3, 3, 60), (0.999, 2, 9), (1e-6, 5, 4), (0.2, 4, 1)]
)
def test_the_run_length_is_the_dense_chains(rate, step, limit):
    want = arl([step - 1, -1], [rate, 1 - rate], limit, step=1, inclusive=True)
    assert bernoulli_arl(rate, step, limit) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(
    "cell", [(0.01, 2.4, 7500), (0.3, 1.5, 1e4), (0.9, 5.0, 100), (0.05, 1.01, 500), (1e-4, 2.0, 1e4)]
)
def test_the_limit_is_the_least_that_keeps_the_promise(cell):
    p0, _, arl0 = cell
    chart = bernoulli_chart(*cell)
    assert chart.arl0 == pytest.approx(bernoulli_arl(p0, chart.step, chart.limit), rel=1e-12)
    assert chart.arl0 >= arl0
    if chart.limit > 1:
        assert bernoulli_arl(p0, chart.step, chart.limit - 1) < arl0


def test_the_chart_is_the_likelihood_ratio_chart_on_a_lattice():
    chart = bernoulli_chart(0.05, 2.0, 500)
    rng = np.random.default_rng(1)
    failed = rng.binomial(1, 0.08, (1, 400))
    # The odds ratio at which m is whole: log(odds ratio) = m unit.
    odds_ratio = optimize.brentq(lambda r: math.log(r) / unit(0.05, r) - chart.step, 1.5, 2.5, xtol=1e-14)
    path = lr_cusum(np.ones((1, 400)), failed, 0.05, odds_ratio, threshold=1e9).path[0] / unit(0.05, odds_ratio)
    s, steps = 0, []
    for x in failed[0]:
        s = max(s + (chart.step - 1 if x else -1), 0)
        steps.append(s)
    np.testing.assert_allclose(path, steps, atol=1e-6)


def unit(p0, odds_ratio):
    p1 = odds_ratio * p0 / (1 - p0 + odds_ratio * p0)
    return math.log((1 - p0) / (1 - p1))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: bernoulli_arl(0.0, 5, 10), "rate"),
        (lambda: bernoulli_arl(0.1, 1, 10), "step"),
        (lambda: bernoulli_arl(0.1, 5, 0), "limit"),
        (lambda: bernoulli_arl(0.1, 5, 10, start=10), "start"),
        (lambda: bernoulli_chart(0.1, 1.0, 100), "odds_ratio"),
        (lambda: bernoulli_chart(0.1, 2.0, 1.0), "arl0"),
        (lambda: bernoulli_chart(1e-7, 2.0, 1e9), "batches"),
    ],
)
def test_what_has_no_run_length_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
