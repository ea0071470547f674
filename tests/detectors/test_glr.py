from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone
from scipy import optimize, stats

from detectors.errors import DetectorError
from detectors.glr import glr

PUBLISHED = {
    "value": {},
    "cases": {"ret": "cases"},
    "mu3": {},
    "mu3_dec": {"direction": "dec", "r_compatible": True},
    "epi": {"change": "epi", "r_compatible": True},
    "nb_mu3": {"dispersion": 0.2},
}
ALARMS = {"value": 6, "cases": 6, "mu3": 17, "mu3_dec": 11, "epi": 1, "nb_mu3": 9}


@pytest.fixture(scope="session")
def shadar(table):
    """Weekly cases of Salmonella Hadar, 2001-2006, ``[295]``; the charts begin with week 105."""
    return table("shadar")["observed"].astype(float)


@pytest.mark.parametrize("chart", PUBLISHED)
def test_every_week_of_shadar_has_the_published_figure(chart, table, shadar):
    rows = table("glr_shadar")
    mu0 = np.full(191, 3.0) if "mu3" in chart else rows["mu0"]
    found = glr(shadar[None, 104:], mu0, **PUBLISHED[chart])
    figure = found.cases if chart == "cases" else found.statistic
    np.testing.assert_allclose(figure[0], rows[chart], rtol=1e-5, atol=1e-12)
    np.testing.assert_array_equal(found.alarm[0], rows[f"alarm_{chart}"] == 1)
    assert found.alarm.sum() == ALARMS[chart]


def test_the_negative_binomial_chart_has_the_published_figures_with_the_dispersion_of_the_first_two_years(
    table, shadar
):
    rows = table("glr_shadar")
    # R estimates the dispersion together with the means, which repeat every 52 weeks; it does not print it.
    mean = rows["mu0_S2"][:104]
    a = optimize.minimize_scalar(
        lambda a: -stats.nbinom.logpmf(shadar[:104], 1 / a, 1 / (1 + a * mean)).sum(), bounds=(0.01, 1.0)
    ).x
    assert a == pytest.approx(0.22597, abs=1e-4)
    found = glr(shadar[None, 104:], rows["mu0_S2"], dispersion=a)
    np.testing.assert_allclose(found.statistic[0], rows["nb_S2"], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.alarm[0], rows["alarm_nb_S2"] == 1)
    assert rows["week"][found.alarm[0]].tolist() == [281, 284, 292]


def test_the_epidemic_chart_finds_what_r_passes_over(table, shadar):
    mu0 = table("glr_shadar")["mu0"]
    right = glr(shadar[None, 104:], mu0, change="epi")
    quirk = glr(shadar[None, 104:], mu0, change="epi", r_compatible=True)
    assert np.flatnonzero(right.alarm[0])[0] + 105 == 280
    assert np.flatnonzero(quirk.alarm[0])[0] + 105 == 293


def by_hand(x, m, threshold, law, direction, shortest=1, longest=None):
    """The definition: every k, and a numerical maximum over the size of the change."""
    change, a = law
    path, first = [], 0
    bounds = {"epi": (0.0, 60.0), "inc": (0.0, 6.0), "dec": (-40.0, 0.0)}["epi" if change == "epi" else direction]

    def log_pmf(x, mean):
        return stats.poisson.logpmf(x, mean) if a == 0 else stats.nbinom.logpmf(x, 1 / a, 1 / (1 + a * mean))

    for n in range(x.size):
        best = 0.0
        for k in range(max(first, 0 if longest is None else n - longest + 1), n - shortest + 2):
            t = slice(k, n + 1)
            lag = np.array([x[i - 1] if i else 0.0 for i in range(k, n + 1)])

            def ratio(size, t=t, lag=lag):
                mean = m[t] + size * lag if change == "epi" else m[t] * np.exp(size)
                return -(log_pmf(x[t], mean) - log_pmf(x[t], m[t])).sum()

            fitted = optimize.minimize_scalar(ratio, bounds=bounds, method="bounded", options={"xatol": 1e-9})
            best = max(best, -fitted.fun)
        path.append(best)
        if best >= threshold:
            first = n + 1
    return np.array(path)


LAWS = [("intercept", 0.0, "inc"), ("intercept", 0.0, "dec"), ("intercept", 0.3, "inc"), ("intercept", 0.3, "dec")]


@pytest.mark.parametrize(("change", "a", "direction"), [*LAWS, ("epi", 0.0, "inc")])
@pytest.mark.parametrize(("shortest", "longest"), [(1, None), (2, 6)])
def test_the_chart_is_the_maximum_of_the_definition(change, a, direction, shortest, longest):
    rng = np.random.default_rng(len(change) + int(10 * a) + shortest)
    m = rng.uniform(1.0, 6.0, (3, 16))
    x = rng.poisson(m * (1.8 if direction == "inc" else 0.4)).astype(float)
    found = glr(
        x, m, threshold=3.0, dispersion=a, change=change, direction=direction, shortest=shortest, longest=longest
    )
    for i in range(3):
        hand = by_hand(x[i], m[i], 3.0, (change, a), direction, shortest, longest)
        np.testing.assert_allclose(found.statistic[i], hand, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("change", "a", "direction"), [*LAWS, ("epi", 0.0, "inc")])
def test_the_cases_wanted_are_just_those_that_raise_the_alarm(change, a, direction):
    rng = np.random.default_rng(3)
    m = rng.uniform(2.0, 9.0, (4, 20))
    x = rng.poisson(m).astype(float)
    options = {"change": change, "dispersion": a, "direction": direction, "threshold": 2.0}
    found = glr(x, m, ret="cases", **options)
    step = 1.0 if direction == "inc" else -1.0
    checked = 0
    for n in range(20):
        wanted = found.cases[:, n]
        for enough, count in ((True, wanted), (False, wanted - step)):
            some = np.isfinite(wanted) & (count >= 0)
            if some.any():
                trial = x[some, : n + 1].copy()
                trial[:, n] = count[some]
                assert np.all(glr(trial, m[some, : n + 1], **options).alarm[:, n] == enough)
                checked += some.sum()
    assert checked > 60
    beyond = x >= found.cases if direction == "inc" else x <= found.cases
    np.testing.assert_array_equal(found.alarm, beyond)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-8, 1e-5))
def test_a_slight_overdispersion_is_next_to_none(seed, a):
    rng = np.random.default_rng(seed)
    m = rng.uniform(0.5, 20.0, (3, 12))
    x = rng.poisson(1.5 * m)
    poisson, near = glr(x, m, threshold=1e6), glr(x, m, threshold=1e6, dispersion=a)
    np.testing.assert_allclose(near.statistic, poisson.statistic, rtol=0.02, atol=1e-3)


def test_the_change_point_and_its_size_are_those_of_a_plain_step():
    x = np.array([[4.0] * 10 + [12.0] * 3])
    found = glr(x, [4.0] * 13, threshold=100.0)
    assert found.change_point[0].tolist() == [-1] * 10 + [10] * 3
    np.testing.assert_allclose(found.kappa[0, 10:], np.log(3.0))
    assert found.kappa[0, :10].tolist() == [0.0] * 10


def test_a_fall_to_nothing_is_found_where_r_passes_over_it():
    x = np.array([[3.0, 3.0, 0.0, 0.0]])
    found = glr(x, [3.0] * 4, direction="dec")
    assert found.statistic[0].tolist() == [0.0, 0.0, 3.0, 6.0]
    assert found.kappa[0, 3] == -np.inf
    assert glr(x, [3.0] * 4, direction="dec", r_compatible=True).statistic[0, 2] < 3.0


@pytest.mark.parametrize("quirk", [False, True])
@pytest.mark.parametrize(("change", "a", "direction"), [*LAWS, ("epi", 0.0, "inc")])
def test_a_series_has_the_same_bits_in_any_batch(change, a, direction, quirk):
    rng = np.random.default_rng(7)
    m = rng.uniform(0.3, 9.0, (13, 25))
    x = rng.poisson(m * rng.uniform(0.5, 2.0, (13, 1))).astype(float)
    options = {"change": change, "dispersion": a, "direction": direction, "r_compatible": quirk}
    options["ret"] = "value" if quirk else "cases"
    assert_rows_stand_alone(lambda rows: glr(x[rows], m[rows], **options), 13)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("mu0", 0.0),
        ("mu0", np.nan),
        ("mu0", [1.0, 1.0, 1.0]),
        ("threshold", 0.0),
        ("dispersion", -1.0),
        ("change", "slope"),
        ("direction", "both"),
        ("ret", "all"),
        ("shortest", 0),
        ("longest", 0),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(option, value):
    given_options = {"mu0": 2.0, option: value}
    with pytest.raises(DetectorError, match=option):
        glr([[5, 5]], **given_options)


@pytest.mark.parametrize("options", [{"dispersion": 0.1}, {"direction": "dec"}])
def test_the_epidemic_change_is_poisson_and_up_only(options):
    with pytest.raises(DetectorError, match="epi"):
        glr([[5, 5]], 2.0, change="epi", **options)
