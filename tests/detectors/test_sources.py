from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest
from same_bits import assert_rows_stand_alone
from scipy import stats

from detectors import DetectorError
from detectors.rhythm import SourcePool, pool_sources
from detectors.sources import delay_drift, silence, volume_change

WEEK = np.array([1.2, 1.2, 1.1, 1.1, 1.2, 0.8, 0.4])
OPEN = np.array([1.4, 1.4, 1.4, 1.4, 1.4, 0.0, 0.0])


def reports(rng, sources, days, mean, phi, week=WEEK, common=None):
    """Daily counts of this mean over the week; negative binomial, variance phi times the mean (phi = 1: Poisson)."""
    by_day = (week / week.mean())[np.arange(days) % 7] * mean * (1.0 if common is None else common)
    by_day = np.broadcast_to(by_day, (sources, days))
    if phi == 1:
        return rng.poisson(by_day)
    return rng.poisson(np.where(by_day > 0, rng.gamma(np.maximum(by_day, 1e-9) / (phi - 1), phi - 1), 0.0))


# --- Silence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "phi", "week", "weeks"),
    [
        (1 / 7, 1, WEEK, 26),
        (1 / 7, 2, OPEN, 26),
        (1.0, 5, WEEK, 8),
        (1.0, 1, OPEN, 26),
        (5.0, 2, WEEK, 8),
        (20.0, 5, OPEN, 8),
    ],
)
def test_silences_of_steady_sources_are_as_rare_as_their_p_values(mean, phi, week, weeks):
    rng = np.random.default_rng(31)
    p_values = []
    for more in (0, 5):  # ends on a Sunday, on a Friday
        found = silence(reports(rng, 4000, weeks * 7 + more, mean, phi, week), 0)
        p_values.append(found.p_value[found.defined])
    p = np.concatenate(p_values)
    assert p.size > 3000
    for alpha in (0.01, 0.001):
        assert (p <= alpha).mean() <= 1.5 * alpha + 3 * np.sqrt(alpha / p.size)


def days_until_found(mean, phi, alpha, limit, week=WEEK, sources=100):
    rng = np.random.default_rng(32)
    y = np.concatenate([reports(rng, sources, 182, mean, phi, week), np.zeros((sources, limit))], axis=1)
    found = np.full(sources, limit + 1.0)
    for days in range(limit, 0, -1):
        found[silence(y[:, : 182 + days], 0).p_value <= alpha] = days
    return found


def test_a_source_of_twenty_reports_a_day_is_missed_within_two_days():
    for phi, week in ((1, WEEK), (3, WEEK), (3, OPEN)):
        assert np.quantile(days_until_found(20.0, phi, 1e-4, 4, week), 0.9) <= 2


def test_rarer_sources_are_missed_after_as_many_reports_as_it_takes():
    assert np.median(days_until_found(5.0, 2, 1e-4, 6)) <= 3
    assert 7 <= np.median(days_until_found(1.0, 1.5, 1e-4, 25)) <= 14
    # One a week: exp(-7) is 1e-3, and seven weeks' silence it takes.
    assert 42 <= np.median(days_until_found(1 / 7, 1, 1e-3, 90, sources=60)) <= 65


def test_a_closed_weekend_is_no_silence_but_the_monday_after_is():
    y = np.tile([12.0, 15, 11, 14, 13, 0, 0], 20)
    assert silence(y[None, :], 0).p_value[0] > 0.5
    monday, tuesday = (silence(np.append(y, [0.0] * days)[None, :], 0) for days in (1, 2))
    assert monday.days_silent[0] == 3
    assert monday.p_value[0] < 0.02
    assert tuesday.p_value[0] < 1e-4


def test_a_source_that_was_as_silent_before_raises_nothing():
    rng = np.random.default_rng(33)
    y = reports(rng, 1, 182, 20.0, 1)
    y[0, 60:67] = 0  # a week of repairs
    quiet = np.concatenate([y, np.zeros((1, 4))], axis=1)
    found = silence(quiet, 0)
    assert found.longest[0] > found.expected[0]
    assert found.p_value[0] > 1e-3
    longer = silence(np.concatenate([y, np.zeros((1, 9))], axis=1), 0)
    assert longer.p_value[0] < found.p_value[0]
    assert longer.p_value[0] < 1e-4


def test_the_chance_of_silence_is_the_poisson_one_where_the_past_is_long_and_plain():
    """Poisson days, 20 years of them: exp(-reports due)."""
    y = np.random.default_rng(34).poisson(1.0, (1, 7300)).astype(float)
    y[0, -6:], y[0, -7] = 0.0, 1.0
    found = silence(y, 0, weeks=1040, pool=SourcePool.neutral(7300, 1.0))
    assert found.days_silent[0] == 6
    assert found.p_value[0] == pytest.approx(np.exp(-6.0), rel=0.4)


# --- Holidays ---------------------------------------------------------------------------------------------------


def spring_festival(rng, open_share):
    """60 sources of 10 a day; for the last 7 days only this share of them works."""
    y = reports(rng, 60, 210, 10.0, 1.5).astype(float)
    y[int(60 * open_share) :, -7:] = 0
    return y


def test_when_most_sources_fall_silent_it_is_not_the_single_source():
    y = spring_festival(np.random.default_rng(35), 0.2)
    blind, guarded = silence(y, 0), silence(y, 0, pool=pool_sources(y, 0))
    assert (blind.p_value[12:] < 1e-6).all()
    # Some had an empty Sunday before, which is not the holiday's doing.
    assert (guarded.p_value[12:][guarded.days_silent[12:] == 7] > 0.3).all()
    assert (guarded.p_value[12:] > 0.01).all()


def test_a_source_that_stays_silent_after_the_holiday_is_found():
    rng = np.random.default_rng(36)
    y = spring_festival(rng, 0.2)
    after = reports(rng, 60, 4, 10.0, 1.5).astype(float)
    after[59] = 0
    y = np.concatenate([y, after], axis=1)
    found = silence(y, 0, pool=pool_sources(y, 0))
    assert found.p_value[59] < 1e-4
    assert (found.p_value[:59] > 1e-3).all()


def test_one_silent_source_among_many_leaves_the_common_factor_alone():
    rng = np.random.default_rng(37)
    y = reports(rng, 40, 200, 10.0, 1.5).astype(float)
    y[0] *= 30  # a giant
    y[0, -5:] = 0
    pool = pool_sources(y, 0)
    assert pool.common[-5:].min() > 0.7  # no holiday
    assert silence(y, 0, pool=pool).p_value[0] < 1e-6


def test_the_pool_knows_the_week_the_dispersion_and_the_holidays():
    rng = np.random.default_rng(38)
    common = np.ones(182)
    common[100:107] = 0.3
    y = reports(rng, 200, 182, 8.0, 3, common=common)
    pool = pool_sources(y, 0)
    np.testing.assert_allclose(pool.profile, WEEK / WEEK.mean(), atol=0.05)
    assert pool.dispersion == pytest.approx(3.0, rel=0.15)
    np.testing.assert_allclose(pool.common, common, atol=0.25)  # Sundays bring 700 reports of dispersion 3
    assert np.abs(pool.common - common).mean() < 0.06
    turned = pool_sources(y[rng.permutation(200)], 0)
    assert turned.common.tobytes() == pool.common.tobytes()
    assert (turned.profile.tobytes(), turned.dispersion) == (pool.profile.tobytes(), pool.dispersion)


# --- Volume -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "phi", "week"), [(1.0, 1, WEEK), (5.0, 2, WEEK), (20.0, 5, WEEK), (20.0, 5, OPEN)])
def test_changes_of_steady_sources_are_as_rare_as_their_p_values(mean, phi, week):
    y = reports(np.random.default_rng(39), 8000, 185, mean, phi, week)
    found = volume_change(y, 0)
    for p in (found.p_drop, found.p_rise):
        for alpha in (0.01, 0.001):
            assert (p <= alpha).mean() <= 1.5 * alpha + 3 * np.sqrt(alpha / p.size)


def test_a_halved_volume_and_a_doubled_one_are_found():
    rng = np.random.default_rng(40)
    y = reports(rng, 300, 182, 10.0, 2)
    recent = np.stack([reports(rng, 300, 7, mean, 2) for mean in (5.0, 20.0)])
    drop, rise = (volume_change(np.concatenate([y, one], axis=1), 0) for one in recent)
    assert (drop.p_drop < 1e-2).mean() > 0.7  # who knows mean and dispersion exactly finds 81 %
    assert (rise.p_rise < 1e-3).mean() > 0.9
    assert np.median(drop.ratio) == pytest.approx(0.5, abs=0.05)
    assert np.median(rise.ratio) == pytest.approx(2.0, abs=0.15)


def test_a_window_is_compared_weekday_for_weekday():
    y = np.tile([12.0, 15, 11, 14, 13, 2, 1], 20)
    found = volume_change(y[None, :-5], 0, window=2)  # the last two days: Monday and Tuesday
    assert found.expected[0] == pytest.approx(27.0, rel=0.05)
    found = volume_change(y[None, :], 0, window=2)  # Saturday and Sunday
    assert found.expected[0] == pytest.approx(3.0, rel=0.15)
    assert found.p_value[0] > 0.5


def test_a_week_that_all_lost_is_no_drop_of_one():
    y = spring_festival(np.random.default_rng(41), 1.0)
    y[:, -7:] = np.floor(y[:, -7:] / 4)
    assert (volume_change(y, 0).p_drop < 1e-3).all()
    assert (volume_change(y, 0, pool=pool_sources(y, 0)).p_drop > 1e-3).all()


def test_the_tails_of_a_window_are_those_of_scipy():
    """A level known from 6,999 days, and the dispersion that the evidence states."""
    y = np.concatenate([np.tile(5.0, 7000), [0.0, 3, 1, 2, 0, 4, 1]])[None, :]
    found = volume_change(y, 0, weeks=1000, pool=SourcePool.neutral(7007, 1.2))
    assert found.expected[0] == pytest.approx(35.0)
    spread = found.dispersion[0] * (1 + 35 / 34_995)  # the first report only starts the clock
    law = stats.nbinom(35 / (spread - 1), 1 / spread)
    assert found.p_drop[0] == pytest.approx(law.cdf(11), rel=1e-6)
    assert found.p_rise[0] == pytest.approx(law.sf(10), rel=1e-6)


# --- Delay ------------------------------------------------------------------------------------------------------


def test_the_usual_delay_and_the_late_share_are_counted():
    past = np.tile([50.0, 30, 12, 8], (10, 1))
    found = delay_drift(np.concatenate([past, [[10.0, 20, 30, 40]]])[None])
    assert found.usual_bin.tolist() == [2]
    assert found.usual_share.tolist() == [0.08]
    assert (found.late[0], found.reports[0]) == (40.0, 100.0)
    assert found.p_value[0] < 1e-4
    a, b = np.repeat(np.arange(4), [10, 20, 30, 40]), np.repeat(np.arange(4), [500, 300, 120, 80])
    assert found.later[0] == pytest.approx(stats.mannwhitneyu(a, b).statistic / (a.size * b.size))


def test_delays_that_have_not_changed_raise_nothing():
    rng = np.random.default_rng(42)
    y = rng.multinomial(40, [0.4, 0.3, 0.15, 0.1, 0.05], (4000, 27)).astype(float)
    found = delay_drift(y)
    assert found.defined.all()
    for alpha in (0.01, 0.001):
        assert (found.p_value <= alpha).mean() <= alpha + 3 * np.sqrt(alpha / 4000)
    assert found.later.mean() == pytest.approx(0.5, abs=0.01)
    y[:, -1] = rng.multinomial(40, [0.1, 0.2, 0.2, 0.2, 0.3], 4000)
    assert (delay_drift(y).p_value <= 1e-2).mean() > 0.9


# --- The house's law ----------------------------------------------------------------------------------------------


def test_a_source_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(43)
    y = np.stack([reports(rng, 1, 120, mean, 2.0)[0] for mean in rng.uniform(0.05, 30, 25)])
    y[:5, -9:] = 0
    pool = pool_sources(y, 3)
    delays = rng.poisson(3.0, (25, 9, 6))
    assert_rows_stand_alone(lambda r: silence(y[r], 3, pool=pool), 25)
    assert_rows_stand_alone(lambda r: volume_change(y[r], 3, pool=pool, gap=7), 25)
    assert_rows_stand_alone(lambda r: delay_drift(delays[r]), 25)


def test_thin_histories_are_undefined_and_extremes_are_survived():
    y = np.zeros((6, 60))
    y[1, 30] = 1
    y[2, -3:] = 5
    y[3] = 1e9
    y[4] = 1e9
    y[4, -10:] = 0
    y[5, ::2] = 10**9
    found = silence(y, 0)
    assert found.defined.tolist() == [False, False, False, True, True, True]
    assert found.days_silent.tolist() == [-1, 29, 0, 0, 10, 1]
    assert found.p_value[:4].tolist() == [1.0, 1.0, 1.0, 1.0]
    assert found.p_value[4] < 1e-6
    assert found.p_value[5] > 0.1
    change = volume_change(y, 0)
    assert change.defined.tolist() == [False, False, False, True, True, True]
    assert np.isfinite(change.p_value).all()
    pool = pool_sources(y, 0)
    assert np.isfinite(pool.common).all()
    assert silence(y[:, :21], 0).defined.tolist() == [False] * 6
    for empty in (np.empty((2, 0)), np.empty((0, 40))):
        assert not silence(empty, 0).defined.any()
        assert not volume_change(empty, 0).defined.any()
        assert pool_sources(empty, 0).dispersion == 1.0
    assert not delay_drift(np.zeros((3, 8, 4))).defined.any()
    assert not delay_drift(np.empty((3, 0, 4))).defined.any()
    assert delay_drift(np.full((1, 8, 4), 1e9)).p_value[0] > 0.01


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: silence([[np.nan]], 0), "volumes"),
        (lambda: silence([1.0], 0), "volumes"),
        (lambda: silence([[1.0]], 7), "weekday"),
        (lambda: silence([[1.0]], 0, weeks=1), "weeks"),
        (lambda: silence([[1.0]], 0, pool=SourcePool.neutral(2)), "common"),
        (lambda: silence([[1.0]], 0, pool=SourcePool(np.ones(6), 1.0, np.ones(1))), "profile"),
        (lambda: silence([[1.0]], 0, pool=SourcePool.neutral(1, 0.5)), "dispersion"),
        (lambda: volume_change([[1.0]], 0, window=0), "window"),
        (lambda: volume_change([[1.0]], 0, gap=-1), "gap"),
        (lambda: delay_drift([[1.0]]), "delays"),
        (lambda: delay_drift([[[1.0]]], quantile=1.0), "quantile"),
        (lambda: delay_drift([[[1.0]]], correlation=1.0), "correlation"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()


@pytest.mark.parametrize("module", ["sources", "multiplicity", "ewma", "self_starting"])
def test_the_examples_in_the_docstrings_say_what_happens(module):
    failed, tried = doctest.testmod(importlib.import_module(f"detectors.{module}"))
    assert tried > 0
    assert failed == 0
