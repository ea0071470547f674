from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone, assert_same_bits
from scipy import stats

from detectors.errors import DetectorError
from detectors.simple_baselines import CROW_GARDNER_UPPER, bayes, cdc, rki

SYSTEMS = {
    1: {"years_back": 0, "half_window": 6, "this_year": True},
    2: {"years_back": 1, "half_window": 6, "this_year": True},
    3: {"years_back": 2, "half_window": 4, "this_year": False},
}
EACH = [(bayes, SYSTEMS[1]), (bayes, SYSTEMS[2]), (bayes, SYSTEMS[3]), (rki, SYSTEMS[2]), (rki, SYSTEMS[3]), (cdc, {})]


@pytest.mark.parametrize(("system", "detect", "alarms"), [("bayes1", bayes, 9), ("cdc", cdc, 0)])
def test_every_week_of_agona_has_the_published_limit(system, detect, alarms, table, agona):
    rows = table("simple_agona")
    rows = rows[rows["system"] == system]
    found = [detect(agona, at=week - 1) for week in rows["week"]]
    np.testing.assert_allclose([e.upper[0] for e in found], rows["upper"], rtol=1e-11)
    np.testing.assert_array_equal([e.alarm[0] for e in found], rows["alarm"] == 1)
    assert sum(e.alarm[0] for e in found) == alarms


def reference_weeks(y, now, years_back, half_window, this_year):
    """The reference of one series, week by week."""
    weeks = [y[now - i] for i in range(1, half_window + 1)] if this_year else []
    for year in range(1, years_back + 1):
        weeks += [y[now - 52 * year + i] for i in range(-half_window, half_window + 1)]
    return np.array(weeks)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.sampled_from([0.001, 0.05, 0.2]))
def test_bayes_is_the_quantile_of_the_negative_binomial_predictive_law(seed, system, alpha):
    rng = np.random.default_rng(seed)
    y = rng.poisson(rng.uniform(0.05, 9.0, (5, 1)), (5, 130)).astype(float)
    found = bayes(y, alpha=alpha, **SYSTEMS[system])
    for i in range(5):
        weeks = reference_weeks(y[i], 129, **SYSTEMS[system])
        law = stats.nbinom(weeks.sum() + 0.5, weeks.size / (weeks.size + 1))
        assert found.expected[i] == pytest.approx(law.mean())
        assert found.dispersion[i] == pytest.approx(law.var() / law.mean())
        assert found.p_value[i] == pytest.approx(law.sf(y[i, -1] - 1))
        assert found.upper[i] == law.ppf(1 - alpha)
        assert found.alarm[i] == (found.p_value[i] <= alpha)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]))
def test_rki_is_two_deviations_over_a_mean_of_20_and_the_table_below(seed, system):
    rng = np.random.default_rng(seed)
    y = rng.poisson(rng.choice([0.3, 4.0, 19.0, 21.0, 300.0], (5, 1)), (5, 130)).astype(float)
    found = rki(y, **SYSTEMS[system])
    for i in range(5):
        weeks = reference_weeks(y[i], 129, **SYSTEMS[system])
        mean = weeks.mean()
        limit = mean + 2 * weeks.std(ddof=1) if mean > 20 else CROW_GARDNER_UPPER[int(mean)]
        assert found.expected[i] == pytest.approx(mean)
        assert found.upper[i] == pytest.approx(limit)
        assert found.alarm[i] == (y[i, -1] > limit)


def lowest_accepted(mean):
    """The lower end of Crow and Gardner's acceptance region: the shortest of 95%, of equals the highest."""
    below = np.concatenate([[0.0], stats.poisson.cdf(np.arange(90), mean)])
    ends = np.searchsorted(below, below[:40] + 0.95)
    length = np.where(ends < below.size, ends - np.arange(40), 1000)
    return np.flatnonzero(length == length.min())[-1]


def test_the_table_of_the_poisson_limits_is_that_of_the_shortest_acceptance_regions():
    grid = np.arange(0.01, 32.0, 0.02)
    lowest = np.array([lowest_accepted(mean) for mean in grid])
    for x, limit in enumerate(CROW_GARDNER_UPPER):
        assert lowest_accepted(limit - 0.001) <= x < lowest_accepted(limit + 0.001)
        assert np.all(lowest[grid > limit] > x)


def test_cdc_compares_four_weeks_with_fifteen_blocks_of_four():
    rng = np.random.default_rng(4)
    y = rng.poisson(5.0, (6, 300)).astype(float)
    found = cdc(y, alpha=0.005)
    for i in range(6):
        blocks = [
            y[i, 299 - 52 * year + 4 * block - 3 : 299 - 52 * year + 4 * block + 1].sum()
            for year in range(1, 6)
            for block in (-1, 0, 1)
        ]
        sigma = np.std(blocks, ddof=1) * np.sqrt(1 + 1 / 15)
        assert found.observed[i] == y[i, -4:].sum()
        assert found.expected[i] == pytest.approx(np.mean(blocks))
        assert found.upper[i] == pytest.approx(np.mean(blocks) + stats.norm.ppf(0.995) * sigma)
        assert found.p_value[i] == pytest.approx(stats.norm.sf((found.observed[i] - np.mean(blocks)) / sigma))
        assert found.alarm[i] == (found.p_value[i] < 0.005)


@pytest.mark.parametrize(
    ("detect", "options", "weeks"),
    [(bayes, SYSTEMS[1], 7), (bayes, SYSTEMS[2], 59), (rki, SYSTEMS[3], 109), (cdc, {}, 268)],
)
def test_a_short_history_is_silent(detect, options, weeks):
    y = np.ones((2, weeks))
    y[:, -1] = 50
    assert not detect(y[:, 1:], **options).defined.any()
    assert not detect(y[:, 1:], **options).alarm.any()
    found = detect(y, **options, history=[weeks, weeks - 1])
    assert found.defined.tolist() == [True, False]
    assert found.p_value[1] == 1
    assert np.isnan(found.upper[1])


@pytest.mark.parametrize(("detect", "options"), EACH)
def test_later_columns_are_not_looked_at(detect, options):
    y = np.random.default_rng(9).poisson(3.0, (4, 320))
    assert_same_bits(detect(y, at=299, **options), detect(y[:, :300], **options))


@pytest.mark.parametrize(("detect", "options"), EACH)
def test_a_series_has_the_same_bits_in_any_batch(detect, options):
    rng = np.random.default_rng(2)
    y = rng.poisson(rng.choice([0.1, 3.0, 50.0], (19, 1)), (19, 280))
    history = rng.integers(0, 290, 19)
    assert_rows_stand_alone(lambda rows: detect(y[rows], history=history[rows], **options), 19)


@pytest.mark.parametrize(
    ("detect", "options"),
    [
        (bayes, {"alpha": 0.0}),
        (bayes, {"years_back": -1}),
        (bayes, {"half_window": 26}),
        (bayes, {"at": 20}),
        (bayes, {"history": [1, 2]}),
        (rki, {"half_window": -1}),
        (rki, {"years_back": 0}),
        (cdc, {"alpha": 1.0}),
        (cdc, {"years_back": 0}),
        (cdc, {"half_blocks": 9}),
    ],
)
def test_options_out_of_range_are_refused_by_name(detect, options):
    with pytest.raises(DetectorError, match=next(iter(options))):
        detect(np.ones((1, 20)), **options)


@pytest.mark.parametrize("detect", [bayes, rki, cdc])
def test_nan_is_refused(detect):
    with pytest.raises(DetectorError, match="counts"):
        detect([[np.nan] * 20])
