from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone
from scipy import stats

from detectors import DetectorError, arl
from detectors.ewma import (
    cusum_arl,
    cusum_limit,
    ewma_arl,
    ewma_chart,
    ewma_limit,
    normal_cusum,
)
from detectors.self_starting import log_loss_rate, self_starting, survey_variance

# --- Run lengths ------------------------------------------------------------------------------------------------


def test_ewma_charts_have_the_published_run_lengths(table):
    """R spc 0.6.7: fixed limits, and limits that widen with the variance."""
    for row in table("arl_ewma_normal"):
        got = ewma_arl(row["limit"], row["lam"], row["shift"], exact_limits=bool(row["exact_limits"]))
        assert got == pytest.approx(row["arl"], rel=1e-8)


def test_cusum_charts_have_the_published_run_lengths(table):
    """R spc 0.6.7: one side, both, with a head start. (Its column ``two_k.25_h8`` is that of h = 8.01.)"""
    for row in table("arl_cusum_normal"):
        got = cusum_arl(row["h"], row["k"], row["shift"], sides=int(row["sides"]), head_start=row["head_start"])
        assert got == pytest.approx(row["arl"], rel=1e-10)


def test_the_integral_equation_and_the_markov_chain_agree():
    edges = np.linspace(-8, 8, 4001)
    middle, law = (edges[1:] + edges[:-1]) / 2, np.diff(stats.norm.cdf(edges))
    for h, k in ((3.0, 0.75), (8.0, 0.25)):
        assert cusum_arl(h, k, sides=1) == pytest.approx(arl(middle - k, law, h, states=600), rel=1e-3)


def test_an_ewma_without_memory_is_a_shewhart_chart():
    for limit, shift in ((3.0, 0.0), (2.5, 1.0)):
        beyond = stats.norm.sf(limit - shift) + stats.norm.cdf(-limit - shift)
        for exact in (False, True):
            assert ewma_arl(limit, 1.0, shift, exact_limits=exact) == pytest.approx(1 / beyond, rel=1e-9)


@pytest.mark.parametrize("lam", [0.02, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("exact", [False, True])
def test_a_limit_keeps_the_run_length_it_was_made_for(lam, exact):
    limits = [ewma_limit(arl0, lam, exact_limits=exact) for arl0 in (50.0, 500.0)]
    assert limits[0] < limits[1]
    assert ewma_arl(limits[1], lam, exact_limits=exact) == pytest.approx(500.0, rel=5e-4)


def test_a_cusum_limit_keeps_the_run_length_it_was_made_for():
    assert cusum_limit(930.887, 0.5, sides=1) == pytest.approx(5.0, abs=1e-4)
    for arl0 in (20.0, 1e4, 1e9):
        assert cusum_arl(cusum_limit(arl0, 0.5), 0.5) == pytest.approx(arl0, rel=1e-3)
    # A first score beyond k is rarer than the run length asked for.
    assert cusum_limit(2.0, 1.0) == 1e-4


def test_simulated_charts_run_as_long_as_stated():
    z = np.random.default_rng(21).normal(size=(4000, 900))
    for chart, name in (
        (ewma_chart(z, 0.2, ewma_limit(100.0, 0.2, exact_limits=True), exact_limits=True), "ewma"),
        (normal_cusum(z, 0.5, cusum_limit(100.0, 0.5)), "cusum"),
    ):
        alarm = chart.high | chart.low
        assert alarm.any(axis=1).mean() > 0.999, name
        lengths = alarm.argmax(axis=1) + 1.0
        assert lengths.mean() == pytest.approx(100.0, abs=3.5 * lengths.std() / np.sqrt(4000)), name


# --- Charts -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_ewma_is_the_loop_of_the_definition(seed, exact):
    rng = np.random.default_rng(seed)
    z = np.where(rng.random((3, 30)) < 0.2, np.nan, rng.normal(size=(3, 30)))
    lam, limit = float(rng.uniform(0.05, 0.9)), float(rng.uniform(0.5, 2.0))
    found = ewma_chart(z, lam, limit, exact_limits=exact)
    for i in range(3):
        seen = [value for value in z[i] if not np.isnan(value)]
        w = 0.0
        for value in seen:
            w = (1 - lam) * w + lam * value
        sd = np.sqrt(sum((lam * (1 - lam) ** j) ** 2 for j in range(len(seen) if exact else 2000)))
        assert found.statistic[i] == pytest.approx(w, abs=1e-12)
        assert found.seen[i] == len(seen)
        assert found.path[i, -1] == pytest.approx(w / sd, abs=1e-9)
        assert found.p_value[i] == pytest.approx(2 * stats.norm.sf(abs(w / sd)), abs=1e-9)
    np.testing.assert_array_equal(found.high, ~np.isnan(z) & (found.path > limit))
    np.testing.assert_array_equal(found.low, ~np.isnan(z) & (found.path < -limit))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_cusum_is_the_loop_of_the_definition(seed, reset):
    rng = np.random.default_rng(seed)
    z = np.where(rng.random((2, 30)) < 0.2, np.nan, rng.normal(0.3, 1.0, (2, 30)))
    found = normal_cusum(z, 0.4, 1.5, reset=reset)
    for i in range(2):
        up = down = 0.0
        for t in range(30):
            if not np.isnan(z[i, t]):
                up, down = max(0.0, up + z[i, t] - 0.4), max(0.0, down - z[i, t] - 0.4)
                assert found.high[i, t] == (up > 1.5)
                assert found.low[i, t] == (down > 1.5)
            else:
                assert not found.high[i, t]
            assert found.upper_path[i, t] == pytest.approx(up, abs=1e-12)
            assert found.lower_path[i, t] == pytest.approx(down, abs=1e-12)
            if reset:
                up, down = (0.0 if up > 1.5 else up), (0.0 if down > 1.5 else down)
        assert found.upper[i] == pytest.approx(up, abs=1e-12)
        assert found.lower[i] == pytest.approx(down, abs=1e-12)


def test_charts_go_on_as_if_they_had_never_stopped():
    z = np.random.default_rng(22).normal(0.5, 1.0, (7, 40))
    for exact in (False, True):
        whole = ewma_chart(z, 0.1, 2.0, exact_limits=exact)
        first = ewma_chart(z[:, :13], 0.1, 2.0, exact_limits=exact)
        rest = ewma_chart(z[:, 13:], 0.1, 2.0, exact_limits=exact, start=first.statistic, seen=first.seen)
        assert rest.path.tobytes() == np.ascontiguousarray(whole.path[:, 13:]).tobytes()
    long = normal_cusum(z, 0.5, 3.0)
    short = normal_cusum(z[:, :13], 0.5, 3.0)
    rest = normal_cusum(z[:, 13:], 0.5, 3.0, upper=short.upper, lower=short.lower)
    assert rest.upper_path.tobytes() == np.ascontiguousarray(long.upper_path[:, 13:]).tobytes()


# --- Scores -----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_score_is_the_two_sample_t_test_of_one_value_against_those_before(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(80, 2, 12)
    z = self_starting(x[None, :])[0]
    for t in range(12):
        if t < 4:
            assert np.isnan(z[t])
        elif np.all(np.abs(z[4:t]) < 3):  # nothing was drawn in
            t_value, p = stats.ttest_ind(x[t : t + 1], x[:t], equal_var=True)
            assert z[t] == pytest.approx(float(np.sign(t_value) * stats.norm.isf(p / 2)), abs=1e-8)


def test_a_score_weighs_periods_by_their_respondents():
    """Against the weighted least squares prediction, written out."""
    rng = np.random.default_rng(23)
    v = survey_variance(rng.integers(50, 900, (1, 10)), 0.002)
    x = 75 + 18 * np.sqrt(v) * rng.normal(size=(1, 10))
    w, past, last = 1 / v[0, :9], x[0, :9], x[0, 9]
    mean = np.average(past, weights=w)
    s2 = (w * (past - mean) ** 2).sum() / 8
    t_value = (last - mean) / np.sqrt(s2 * (v[0, 9] + 1 / w.sum()))
    expected = np.sign(t_value) * -stats.norm.ppf(stats.t.sf(abs(t_value), 8))
    assert self_starting(x, v)[0, 9] == pytest.approx(expected, rel=1e-9)


def test_scores_of_a_steady_series_are_independent_standard_normal():
    rng = np.random.default_rng(24)
    n = rng.integers(50, 800, (6000, 24))
    v = survey_variance(n, 0.003)
    x = np.where(rng.random(n.shape) < 0.1, np.nan, 75 + 18 * np.sqrt(v) * rng.normal(size=n.shape))
    z = self_starting(x, v)
    for t in (5, 8, 15, 23):
        column = z[:, t][~np.isnan(z[:, t])]
        assert stats.kstest(column, "norm").pvalue > 1e-3
    pair = z[:, 10] * z[:, 11]
    pair = pair[~np.isnan(pair)]
    assert abs(pair.mean()) < 3.5 * pair.std() / np.sqrt(pair.size)


def test_a_chart_without_a_first_phase_keeps_its_run_length():
    z = self_starting(np.random.default_rng(25).normal(3.0, 0.2, (3000, 504)))[:, 4:]
    chart = ewma_chart(z, 0.2, ewma_limit(100.0, 0.2, exact_limits=True), exact_limits=True)
    alarm = chart.high | chart.low
    lengths = np.where(alarm.any(axis=1), alarm.argmax(axis=1) + 1.0, 500.0)
    expected = 100 * (1 - np.exp(-5))
    assert lengths.mean() == pytest.approx(expected, abs=3.5 * lengths.std() / np.sqrt(3000))


def test_a_drop_of_two_standard_errors_is_found_within_a_year():
    rng = np.random.default_rng(26)
    x = rng.normal(80, 1.5, (500, 36))
    x[:, 24:] -= 3.0
    chart = ewma_chart(self_starting(x), 0.2, ewma_limit(200.0, 0.2, exact_limits=True), exact_limits=True)
    assert chart.low[:, 24:].any(axis=1).mean() > 0.9
    assert not chart.high[:, 30:].any()


def test_one_wild_month_neither_alarms_nor_blinds_the_chart_of_losses():
    rng = np.random.default_rng(27)
    loss = np.exp(rng.normal(np.log(2.0), 0.4, (200, 48)))
    loss[:, 20] *= 1000.0
    loss[:, 36:] *= 3.0
    scores = self_starting(log_loss_rate(loss, np.full_like(loss, 100.0)), clip=3.0)
    chart = ewma_chart(scores, 0.1, ewma_limit(200.0, 0.1))
    alone = ewma_chart(np.where(np.arange(48) == 20, scores, 0.0), 0.1, ewma_limit(200.0, 0.1))
    assert not alone.high.any()
    assert chart.high[:, 36:].any(axis=1).mean() > 0.9


def test_heavy_tails_leave_most_of_the_run_length():
    x = stats.t.rvs(3, size=(2000, 604), random_state=np.random.default_rng(28))
    chart = ewma_chart(self_starting(x, clip=3.0)[:, 4:], 0.1, ewma_limit(200.0, 0.1))
    alarm = chart.high | chart.low
    lengths = np.where(alarm.any(axis=1), alarm.argmax(axis=1) + 1.0, 600.0)
    assert lengths.mean() > 0.8 * 200 * (1 - np.exp(-3))


def test_months_without_loss_are_low_but_not_infinitely_so():
    rate = log_loss_rate([[0.0, 5.0, 0.0, 4.0, 0.0, 1.0]], [[100.0, 100.0, 100.0, 0.0, 100.0, 1e9]])
    assert np.isnan(rate[0]).tolist() == [True, False, False, True, False, False]
    np.testing.assert_allclose(np.exp(rate[0, [1, 2, 4, 5]]), [0.05, 0.025, 0.025, 1e-9])


# --- The house's law ----------------------------------------------------------------------------------------------


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(29)
    n = rng.integers(0, 500, (33, 25))
    x = rng.normal(70, 5, (33, 25))
    v = survey_variance(n, 0.01)

    def detect(rows):
        z = self_starting(x[rows], v[rows], least_scale=0.1)
        chart = ewma_chart(z, 0.2, 2.5, exact_limits=True)
        cusum = normal_cusum(z, 0.5, 3.0)
        loss = log_loss_rate(n[rows] % 3, n[rows])
        return z, chart.path, chart.p_value, cusum.upper_path, cusum.lower, loss

    assert_rows_stand_alone(detect, 33)


def test_degenerate_series_give_defined_charts():
    x = np.full((6, 8), np.nan)
    x[1] = 80.0
    x[2, :3] = [1.0, 2.0, 3.0]
    x[3] = [80, 80, 80, 80, 80, 80, 80, 81]
    x[4] = [1e40, -1e40] * 4
    x[5] = [0.1, 0.1, 0.1, 0.1 + 1e-16, 0.1, 0.1, 0.1, 0.2]
    z = self_starting(x)
    assert np.isnan(z[[0, 1, 2, 5]]).all()
    assert np.isfinite(z[4, 4:]).all()
    assert self_starting(x, least_scale=0.2)[3, 7] > 2
    assert (self_starting(x, least_scale=0.2)[1, 4:] == 0).all()
    chart = ewma_chart(z, 0.2, 2.9)
    assert np.isfinite(chart.path).all()
    assert chart.p_value[:3].tolist() == [1.0, 1.0, 1.0]
    assert not normal_cusum(z, 0.5, 4.0).high[:3].any()
    assert ewma_chart(np.empty((2, 0)), 0.2, 2.9).path.shape == (2, 0)
    assert self_starting(np.empty((0, 5))).shape == (0, 5)
    assert np.isnan(survey_variance([[0, 0]])).all()
    assert np.isnan(log_loss_rate([[0.0, 0.0]], [[1e9, 0.0]])).all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ewma_chart([[np.inf]], 0.2, 3.0), "scores"),
        (lambda: ewma_chart([1.0], 0.2, 3.0), "scores"),
        (lambda: ewma_chart([[1.0]], 0.0, 3.0), "lam"),
        (lambda: ewma_chart([[1.0]], 0.2, 0.0), "limit"),
        (lambda: normal_cusum([[1.0]], -0.1, 3.0), "k"),
        (lambda: normal_cusum([[1.0]], 0.5, np.inf), "h"),
        (lambda: normal_cusum([[1.0]], 0.5, 3.0, lower=-1.0), "lower"),
        (lambda: ewma_arl(np.nan, 0.2), "limit"),
        (lambda: ewma_limit(1.0, 0.2), "arl0"),
        (lambda: ewma_limit(1e10, 0.2), "arl0"),
        (lambda: cusum_arl(4.0, 0.5, sides=3), "sides"),
        (lambda: cusum_arl(4.0, 0.5, head_start=5.0), "head_start"),
        (lambda: cusum_limit(100.0, 0.0), "k"),
        (lambda: survey_variance([[10]], 1.0), "correlation"),
        (lambda: log_loss_rate([[1.0]], [[1.0, 2.0]]), "shapes"),
        (lambda: log_loss_rate([[-1.0]], [[1.0]]), "loss"),
        (lambda: self_starting([[np.inf]]), "values"),
        (lambda: self_starting([[1.0]], 0.0), "variance"),
        (lambda: self_starting([[1.0]], [[1.0, 2.0]]), "variance"),
        (lambda: self_starting([[1.0]], least_history=2), "least_history"),
        (lambda: self_starting([[1.0]], clip=9.0), "clip"),
    ],
)
def test_what_cannot_be_charted_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
