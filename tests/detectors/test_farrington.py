from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone, assert_same_bits
from scipy.stats import norm
from scipy.stats import t as t_law

from detectors import DetectorError, FarringtonOptions, farrington

SALMONELLA = {"years_back": 4, "alpha": 0.1, "r_compatible": True}
SETTINGS = {
    "old": FarringtonOptions(
        **SALMONELLA, n_periods=1, weights_threshold=1, exclude_recent=3, threshold_method="delta"
    ),
    "new_delta": FarringtonOptions(**SALMONELLA, p_threshold_trend=1, threshold_method="delta"),
    "new_muan": FarringtonOptions(**SALMONELLA, p_threshold_trend=1, threshold_method="muan"),
    "new_nbPlugin": FarringtonOptions(**SALMONELLA, p_threshold_trend=1),
    "new_nbPlugin_a005": FarringtonOptions(**{**SALMONELLA, "alpha": 0.005}, p_threshold_trend=1),
    "defaults": FarringtonOptions(n_periods=1, alpha=0.05, threshold_method="delta", r_compatible=True),
}
ALARMS = {
    "old": 11,
    "new_delta": 6,
    "new_muan": 2,
    "new_nbPlugin": 5,
    "new_nbPlugin_a005": 0,
    "defaults": 3,
}


def simulate(n_series, n_weeks, seed, low=-2.0, high=4.0):
    rng = np.random.default_rng(seed)
    week = np.arange(n_weeks)
    level = rng.uniform(low, high, (n_series, 1)) + rng.normal(0, 0.1, (n_series, 1)) * week / 52
    mean = np.exp(level + 0.5 * np.cos(2 * np.pi * week / 52))
    return rng.negative_binomial(mean / 0.5, 1 / 1.5).astype(float)


@pytest.mark.parametrize("setting", SETTINGS)
def test_r_compatible_mode_gives_the_published_figures(setting, table, agona):
    rows = table("farrington_agona")
    rows = rows[rows["setting"] == setting]
    found = [farrington(agona, at=week - 1, options=SETTINGS[setting]) for week in rows["week"]]
    got = {f: np.array([getattr(e, f)[0] for e in found]) for f in e_fields(found[0])}
    assert got["alarm"].sum() == ALARMS[setting]
    np.testing.assert_array_equal(got["alarm"], rows["alarm"] == 1)
    np.testing.assert_array_equal(got["trend_used"], rows["trend"] == 1)
    # R gives no limit where fewer than 5 cases came in 4 weeks.
    shown = np.isfinite(rows["upper"])
    for field in ("expected", "upper"):
        np.testing.assert_allclose(got[field][shown], rows[field][shown], rtol=2e-5)
    np.testing.assert_allclose(got["dispersion"], rows["dispersion"], rtol=1e-4)
    np.testing.assert_allclose(got["p_value"], rows["p_value"], rtol=1e-4)


def e_fields(evidence):
    return evidence.__dataclass_fields__


@pytest.mark.parametrize("setting", SETTINGS)
def test_r_compatible_mode_gives_the_published_scores(setting, table, agona):
    rows = table("farrington_agona_score")
    rows = rows[rows["setting"] == setting]
    found = [farrington(agona, at=week - 1, options=SETTINGS[setting]).score[0] for week in rows["week"]]
    np.testing.assert_allclose(found, rows["score"], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_published_limits_of_the_mean_follow_from_the_standard_error(setting, table, agona):
    """R's mu0: the mean itself (nbPlugin), exp(log mu + z se / mu) (muan), or exp(mu + z se) (delta)."""
    rows = table("farrington_agona_score")
    rows = rows[rows["setting"] == setting]
    options = SETTINGS[setting]
    z = norm.ppf(1 - options.alpha)
    for week, mu0 in zip(rows["week"], rows["mu0"], strict=True):
        # The same fit gives the standard error by the limit of the delta method.
        found = farrington(agona, at=week - 1, options=replace(options, threshold_method="delta"))
        mu, phi = found.expected[0], found.dispersion[0]
        spread = (found.upper[0] ** (2 / 3) - mu ** (2 / 3)) / z
        se = np.sqrt(mu * (spread**2 * 9 / 4 / mu ** (1 / 3) - phi))
        limit = {"delta": np.exp(mu + z * se), "muan": mu * np.exp(z * se / mu), "nbPlugin": mu}
        assert limit[options.threshold_method] == pytest.approx(mu0, rel=1e-4)


def test_first_week_of_the_old_algorithm_has_the_published_limit(agona):
    assert farrington(agona, at=281, options=SETTINGS["old"]).upper[0] == pytest.approx(3.022556, abs=5e-6)


def test_negative_binomial_limit_without_a_trend_test_is_immune_to_the_quirk(agona):
    for at in range(281, 312):
        quirk = farrington(agona, at=at, options=SETTINGS["new_nbPlugin"])
        plain = farrington(agona, at=at, options=FarringtonOptions(years_back=4, alpha=0.1, p_threshold_trend=1))
        # But for the score, which R takes from log mu: its own test is above.
        assert_same_bits(replace(quirk, score=plain.score), plain)


def test_the_correct_mode_differs_from_r_where_the_standard_error_enters(agona):
    options = FarringtonOptions(years_back=4, alpha=0.1, p_threshold_trend=1, threshold_method="delta")
    right = farrington(agona, at=290, options=options).upper
    assert right != farrington(agona, at=290, options=SETTINGS["new_delta"]).upper


@pytest.mark.parametrize(("seed", "trend_threshold"), [(1, 1.0), (2, 1.0), (3, 1e-12), (4, 0.05)])
def test_the_fit_is_the_generalised_linear_model_of_statsmodels(seed, trend_threshold):
    counts = simulate(1, 290, seed, low=1.0, high=3.0)
    options = FarringtonOptions(p_threshold_trend=trend_threshold, threshold_method="delta")
    found = farrington(counts, options=options)
    expected, upper, dispersion, trend = glm_by_hand(counts[0], options)
    assert bool(found.trend_used[0]) == trend
    assert found.expected[0] == pytest.approx(expected, rel=1e-6)
    assert found.upper[0] == pytest.approx(upper, rel=1e-6)
    assert found.dispersion[0] == pytest.approx(dispersion, rel=1e-6)


def glm_by_hand(y, options):
    """One series, week by week and with all eleven parameters, by statsmodels."""
    now = y.size - 1
    weeks, levels = [], []
    for week in range(now - options.years_back * 52 - 3, now - 26):
        for anniversary in range(options.years_back + 1):
            gap = week - (now - anniversary * 52)
            if -3 <= gap <= 3:
                weeks.append(week)
                levels.append(0)
            elif 4 <= gap <= 48:
                weeks.append(week)
                levels.append(1 + (gap - 4) // 5)
    weeks, levels = np.array(weeks), np.array(levels)
    response = y[weeks]

    def passes(trend):
        design = np.eye(10)[levels]
        here = np.eye(10)[0]
        if trend:
            design, here = np.column_stack([design, weeks - now]), np.append(here, 0.0)
        first = sm.GLM(response, design, family=sm.families.Poisson()).fit()
        free = response.size - design.shape[1]
        phi = max((first.resid_pearson**2).sum() / free, 1.0)
        mu = first.fittedvalues
        leverage = first.get_hat_matrix_diag()
        s = 1.5 * (response ** (2 / 3) * mu ** (-1 / 6) - mu**0.5) / np.sqrt(phi * (1 - leverage))
        w = 1 / np.where(s > 2.58, s, 1.0) ** 2
        w *= response.size / w.sum()
        again = sm.GLM(response, design, family=sm.families.Poisson(), freq_weights=w).fit()
        mu = again.fittedvalues
        phi = max((w * (response - mu) ** 2 / mu).sum() / free, 1.0)
        covariance = phi * np.linalg.inv(design.T @ (design * (w * mu)[:, None]))
        return np.exp(here @ again.params), here @ covariance @ here, phi, again.params, covariance, free

    expected, variance, phi, params, covariance, free = passes(trend=True)
    p_value = 2 * t_law.sf(abs(params[-1]) / covariance[-1, -1] ** 0.5, free)
    trend = (p_value < options.p_threshold_trend or options.p_threshold_trend == 1) and expected <= response.max()
    if not trend:
        expected, variance, phi, *_ = passes(trend=False)
    spread = (4 / 9 * expected ** (1 / 3) * (phi + expected * variance)) ** 0.5
    z = 2.3263478740408408
    return expected, (expected ** (2 / 3) + z * spread) ** 1.5, phi, trend


def test_a_series_has_the_same_bits_in_any_batch():
    counts = simulate(301, 300, seed=5)
    counts[7] = 0
    history = np.random.default_rng(1).integers(3, 301, 301)
    for method in ("delta", "nbPlugin", "muan"):
        options = FarringtonOptions(threshold_method=method)
        assert_rows_stand_alone(lambda rows, o=options: farrington(counts[rows], history=history[rows], options=o), 301)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(150, 330))
def test_a_series_has_the_same_bits_in_any_batch_whatever_the_data(seed, n_series, n_weeks):
    counts = simulate(n_series, n_weeks, seed, low=-6.0)
    assert_rows_stand_alone(lambda rows: farrington(counts[rows]), n_series, seed)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["delta", "nbPlugin", "muan"]),
    st.booleans(),
    st.sampled_from([1, 5, 10]),
)
def test_evidence_is_in_range_for_sparse_and_wild_series(seed, method, quirk, n_periods):
    rng = np.random.default_rng(seed)
    rare = rng.random((6, 290)) < rng.choice([0.0, 0.002, 0.02, 0.3], (6, 1))
    counts = np.floor(rare * 10.0 ** rng.uniform(0, rng.choice([1, 4, 9]), (6, 290)))
    found = farrington(
        counts, options=FarringtonOptions(threshold_method=method, r_compatible=quirk, n_periods=n_periods)
    )
    assert found.defined.all()
    assert np.all(found.expected > 0)
    assert np.all(np.isfinite(found.upper))
    assert np.all(np.isfinite(found.score))
    assert np.all((found.p_value >= 0) & (found.p_value <= 1))
    assert np.all(found.dispersion >= 1)


@pytest.mark.parametrize("method", ["delta", "nbPlugin", "muan"])
@pytest.mark.parametrize("quirk", [False, True])
def test_degenerate_series_give_defined_evidence(method, quirk):
    single = np.zeros(300)
    single[100] = 1
    late = np.zeros(300)
    late[-1] = 1
    burst = np.zeros(300)
    burst[60] = 1e9
    series = np.stack([np.zeros(300), single, late, burst, np.full(300, 1e9), np.full(300, 3.0), np.arange(300.0)])
    found = farrington(series, options=FarringtonOptions(threshold_method=method, r_compatible=quirk))
    assert found.defined.all()
    assert not found.alarm[:6].any()
    assert np.all(np.isfinite(found.upper))
    assert np.all(np.isfinite(found.p_value))
    assert found.expected[0] == pytest.approx(0.5 / 35)
    assert found.expected[4] == pytest.approx(1e9)
    assert found.expected[5] == pytest.approx(3.0)


def test_a_first_event_ever_has_a_small_p_value_but_not_none():
    counts = np.zeros((1, 300))
    counts[0, -1] = 1
    found = farrington(counts)
    assert 0.01 < found.p_value[0] < 0.02
    assert not found.alarm[0]


@pytest.mark.parametrize("weeks", [0, 1, 3, 159])
def test_a_short_history_is_silent(weeks):
    found = farrington(np.ones((2, weeks)))
    assert not found.defined.any()
    assert not found.alarm.any()
    assert np.all(found.p_value == 1)
    assert np.all(np.isnan(found.expected))


def test_three_years_and_a_window_are_enough():
    assert farrington(np.ones((1, 160))).defined.all()


def test_no_series_at_all_give_no_evidence():
    assert farrington(np.empty((0, 300))).alarm.shape == (0,)


def test_weeks_before_a_series_was_watched_are_ignored():
    counts = simulate(5, 300, seed=8)
    spoilt = counts.copy()
    spoilt[:, : 300 - 220] = 1000
    history = np.full(5, 220)
    assert_same_bits(farrington(counts, history=history), farrington(spoilt, history=history))
    clean = farrington(counts[:, -220:])
    np.testing.assert_allclose(farrington(spoilt, history=history).expected, clean.expected, rtol=1e-9)


def test_later_columns_are_not_looked_at():
    counts = simulate(4, 320, seed=9)
    assert_same_bits(farrington(counts, at=299), farrington(counts[:, :300]))


def test_fewer_cases_than_the_minimum_raise_no_alarm():
    counts = np.zeros((1, 300))
    counts[0, ::40] = 1
    counts[0, -3:] = [0, 0, 4]
    assert farrington(counts, options=FarringtonOptions(limit54=(4, 4))).alarm[0]
    assert not farrington(counts).alarm[0]


def test_the_alarm_is_the_p_value_under_alpha():
    counts = simulate(3000, 290, seed=10)
    found = farrington(counts, options=FarringtonOptions(limit54=(0, 1)))
    np.testing.assert_array_equal(found.alarm, found.p_value <= 0.01)


def test_false_alarms_come_at_about_the_stated_rate():
    counts = simulate(6000, 290, seed=11, low=1.0)
    found = farrington(counts, options=FarringtonOptions(alpha=0.05))
    assert 0.03 < found.alarm.mean() < 0.07


@pytest.mark.parametrize(
    "counts",
    [
        [["many"]],
        [[1.0], [1.0, 2.0]],
        [[np.nan] * 300],
        [[-1.0] * 300],
        [[np.inf] * 300],
        [1.0, 2.0],
        [[1e17] * 300],
    ],
)
def test_counts_that_are_no_counts_are_refused(counts):
    with pytest.raises(DetectorError, match="counts"):
        farrington(counts)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("alpha", 0.0),
        ("years_back", 2),
        ("half_window", 26),
        ("n_periods", 0),
        ("exclude_recent", 50),
        ("weights_threshold", 0.0),
        ("p_threshold_trend", 1.5),
        ("limit54", (5, 0)),
        ("threshold_method", "gamma"),
    ],
)
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(DetectorError, match=option):
        FarringtonOptions(**{option: value})


def test_a_column_or_a_history_that_does_not_fit_is_refused():
    with pytest.raises(DetectorError, match="at"):
        farrington(np.ones((1, 300)), at=300)
    with pytest.raises(DetectorError, match="history"):
        farrington(np.ones((2, 300)), history=[300])
