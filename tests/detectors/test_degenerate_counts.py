"""Every count detector, on every kind of thin, wild or missing history: a defined result, no warning."""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np
import pytest

from detectors import DetectorError, FarringtonOptions, count_dispersion, ears, farrington, predictive
from detectors.glr import glr
from detectors.rossi import rossi
from detectors.simple_baselines import bayes, cdc, rki

WEEKS = 330


def farringtons():
    for method in ("delta", "nbPlugin", "muan"):
        for quirk in (False, True):
            for periods in (1, 10):
                options = FarringtonOptions(threshold_method=method, r_compatible=quirk, n_periods=periods)
                yield f"farrington-{method}-{periods}{'-r' * quirk}", partial(farrington, options=options)


ONE_WEEK = {
    **{f"ears-{m}-{s}": partial(ears, method=m, min_sigma=s) for m in ("C1", "C2", "C3") for s in (0.0, 0.5)},
    **{f"ears-{m}-r": partial(ears, method=m, min_sigma=0.0, r_compatible=True) for m in ("C1", "C2", "C3")},
    **{f"predictive-{pool:g}": partial(predictive, pool=pool) for pool in (1.0, 2.5, 1e9)},
    "predictive-no-pool": partial(predictive, pool=1.0, pool_weight=0.0),
    **dict(farringtons()),
    "bayes-1": bayes,
    "bayes-2": partial(bayes, years_back=1),
    "bayes-3": partial(bayes, years_back=2, half_window=4, this_year=False),
    "rki-1": partial(rki, years_back=0, half_window=6, this_year=True),
    "rki-2": partial(rki, years_back=1, half_window=6, this_year=True),
    "rki-3": rki,
    "cdc": cdc,
}
"""Detectors that judge one week: from counts to CountEvidence."""

GLR_LAWS = {
    "poisson": {},
    "poisson-dec": {"direction": "dec"},
    "negative-binomial": {"dispersion": 0.5},
    "negative-binomial-dec": {"dispersion": 0.5, "direction": "dec"},
    "epi": {"change": "epi"},
    "epi-r": {"change": "epi", "r_compatible": True},
}
CHARTS = {
    "rossi": lambda counts, mean: rossi(counts, mean),
    "rossi-reset": lambda counts, mean: rossi(counts, mean, reset=True),
    **{
        f"glr-{name}": lambda counts, mean, options=options: glr(counts, mean, longest=30, **options)
        for name, options in GLR_LAWS.items()
    },
    **{
        f"glr-{name}-cases": lambda counts, mean, options=options: glr(counts, mean, longest=5, ret="cases", **options)
        for name, options in GLR_LAWS.items()
        if name != "epi-r"
    },
}
"""Charts with a memory: from counts and in-control means to their own evidence."""


def series(weeks=WEEKS):
    """Name and counts of each kind of degenerate series."""
    zeros = np.zeros(weeks)
    kinds = {"all zeros": zeros, "constant": np.full(weeks, 3.0), "constant 1e9": np.full(weeks, 1e9)}
    for name, week, count in [("one event first", 0, 1), ("one event last", -1, 1), ("1e9 once", weeks // 2, 1e9)]:
        kinds[name] = zeros.copy()
        kinds[name][week] = count
    kinds["1e9 now"] = zeros.copy()
    kinds["1e9 now"][-1] = 1e9
    kinds["one event ever"] = zeros.copy()
    kinds["one event ever"][weeks // 3] = 1
    kinds["falls to nothing"] = np.where(np.arange(weeks) < weeks // 2, 1e9, 0.0)
    kinds["doubles"] = np.floor(2.0 ** (30 * np.arange(weeks) / weeks))
    kinds["zeros and 1e9"] = np.where(np.arange(weeks) % 2, 1e9, 0.0)
    return kinds


ALL = np.stack(list(series().values()))


def assert_defined(found, shape):
    """Every field has the shape, and nothing in it contradicts the rest."""
    for field in dataclasses.fields(found):
        assert getattr(found, field.name).shape == shape, field.name
    assert np.all((found.p_value >= 0) & (found.p_value <= 1))
    assert np.all(np.isfinite(found.score))
    assert np.all(found.dispersion >= 1)
    assert np.all(np.isfinite(found.dispersion))
    assert np.all(found.observed >= 0)
    for limit in (found.expected, found.upper):
        assert np.all(np.isfinite(limit[found.defined]))
        assert np.all(limit[found.defined] >= 0)
        assert np.all(np.isnan(limit[~found.defined]))
    assert not np.any(found.alarm & ~found.defined)
    assert not np.any(found.alarm[found.defined] & ~(found.observed > found.upper)[found.defined])
    assert np.all(found.p_value[~found.defined] == 1)
    assert np.all(found.score[~found.defined] == 0)


@pytest.mark.parametrize("name", ONE_WEEK)
def test_a_long_degenerate_history_gives_defined_evidence(name):
    found = ONE_WEEK[name](ALL)
    assert_defined(found, (len(ALL),))
    assert found.defined.all()


@pytest.mark.parametrize("name", ONE_WEEK)
@pytest.mark.parametrize("kind", ["all zeros", "constant", "constant 1e9", "one event ever"])
def test_a_week_like_all_others_is_no_alarm(name, kind):
    assert not ONE_WEEK[name](series()[kind][None, :]).alarm.any()


# R leaves the judged period out of its C3; with a pooled dispersion of 1e9 a thousand million are few.
@pytest.mark.parametrize("name", sorted(set(ONE_WEEK) - {"ears-C3-r", "predictive-1e+09"}))
def test_a_thousand_million_events_after_none_are_an_alarm(name):
    assert ONE_WEEK[name](series()["1e9 now"][None, :]).alarm.all()


@pytest.mark.parametrize("weeks", [0, 1, 2, 3, 4, 5, 12, 60])
@pytest.mark.parametrize("name", ONE_WEEK)
def test_a_short_degenerate_history_gives_defined_evidence(name, weeks):
    counts = np.stack(list(series(weeks).values())) if weeks else np.zeros((3, 0))
    found = ONE_WEEK[name](counts)
    assert_defined(found, (len(counts),))
    if weeks <= 3:
        assert not found.defined.any()


@pytest.mark.parametrize("name", [name for name in ONE_WEEK if not name.startswith("ears")])
@pytest.mark.parametrize("watched", [0, 1, 3, 4, 20, 200])
def test_a_history_that_is_missing_gives_defined_evidence(name, watched):
    found = ONE_WEEK[name](ALL, history=np.full(len(ALL), watched))
    assert_defined(found, (len(ALL),))
    if watched <= 3:
        assert not found.defined.any()


@pytest.mark.parametrize("name", ONE_WEEK)
@pytest.mark.parametrize("weeks", [0, 3, WEEKS])
@pytest.mark.parametrize("rows", [0, 1])
def test_one_series_or_none_at_all_gives_as_much_evidence(name, rows, weeks):
    assert_defined(ONE_WEEK[name](np.ones((rows, weeks))), (rows,))


@pytest.mark.parametrize("name", ONE_WEEK)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_what_is_no_count_is_refused(name, wrong):
    counts = np.ones((2, WEEKS))
    counts[1, 7] = wrong
    with pytest.raises(DetectorError, match="counts"):
        ONE_WEEK[name](counts)


@pytest.mark.parametrize("counts", [ALL, ALL[:1], ALL[:0], ALL[:, :3], ALL[:, :0]])
def test_the_pooled_dispersion_is_always_a_number(counts):
    pool = count_dispersion(counts)
    assert np.isfinite(pool)
    assert pool >= 1


def assert_a_chart(found, shape):
    path = found.path if hasattr(found, "path") else found.statistic
    assert path.shape == found.alarm.shape == shape
    assert np.all(np.isfinite(path))
    assert np.all(path >= 0)
    for name in ("upper", "cases"):
        least = getattr(found, name, np.zeros(shape))
        assert least.shape == shape
        assert np.all(np.isnan(least) | (np.isfinite(least) & (least >= 0)))
    if hasattr(found, "kappa"):
        assert np.all((found.change_point >= -1) & (found.change_point <= np.arange(shape[1])))
        assert not np.any(np.isnan(found.kappa))


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("mean", [1e-12, 0.01, 3.0, 1e9])
def test_a_chart_over_a_degenerate_series_is_defined(name, mean):
    every = ALL[:, -40:] if "cases" not in name else ALL[:, -12:]
    assert_a_chart(CHARTS[name](every, mean), every.shape)


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_over_its_own_means_never_alarms(name):
    for kind in ("constant", "constant 1e9"):
        row = series()[kind][None, :20]
        assert not CHARTS[name](row, row).alarm.any()


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("shape", [(0, 0), (0, 9), (2, 0), (1, 1), (1, 3)])
def test_a_chart_over_next_to_nothing_is_defined(name, shape):
    assert_a_chart(CHARTS[name](np.zeros(shape), 2.0), shape)
    assert_a_chart(CHARTS[name](np.full(shape, 1e9), 2.0), shape)


@pytest.mark.parametrize("name", CHARTS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_a_chart_refuses_what_is_no_count(name, wrong):
    with pytest.raises(DetectorError, match="counts"):
        CHARTS[name](np.full((1, 4), wrong), 2.0)
