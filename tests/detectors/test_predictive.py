from __future__ import annotations

import numpy as np
import pytest
from same_bits import assert_rows_stand_alone, assert_same_bits
from scipy import stats

from detectors import DetectorError, count_dispersion, predictive


def test_without_over_dispersion_it_is_the_exact_gamma_poisson_law():
    history = np.array([[2, 0, 1, 3, 1, 0, 2, 1]])
    counts = np.concatenate([history, [[9, 9, 6]]], axis=1)
    found = predictive(counts, pool=1.0, pool_weight=1e9)
    law = stats.nbinom(history.sum() + 0.5, 8 / 9)
    assert found.p_value[0] == pytest.approx(law.sf(5), rel=1e-6)
    assert found.upper[0] == law.ppf(0.99)
    assert found.expected[0] == pytest.approx(law.mean(), rel=1e-6)


def test_p_values_of_short_poisson_series_are_valid():
    rng = np.random.default_rng(3)
    rate = np.exp(rng.uniform(-2, 2, 20000))
    counts = rng.poisson(rate[:, None], (20000, 11))
    p = predictive(counts, pool=1.0, pool_weight=1e9).p_value
    for alpha in (0.1, 0.01, 0.001):
        assert (p <= alpha).mean() < 1.2 * alpha


def test_pooled_over_dispersion_keeps_false_alarms_down():
    rng = np.random.default_rng(4)
    mean = np.exp(rng.uniform(0.5, 2.5, (8000, 1)))
    counts = rng.negative_binomial(np.broadcast_to(mean, (8000, 20)), 0.5)
    pool = count_dispersion(counts)
    assert pool == pytest.approx(2.0, abs=0.1)
    alone = predictive(counts, pool=1.0, pool_weight=1e9).p_value
    pooled = predictive(counts, pool=pool).p_value
    assert (alone <= 0.01).mean() > 0.025
    assert (pooled <= 0.01).mean() < 0.015


def test_the_pool_does_not_hang_on_the_order_of_the_series():
    rng = np.random.default_rng(5)
    counts = rng.poisson(2.0, (500, 20))
    assert count_dispersion(counts) == count_dispersion(counts[rng.permutation(500)])


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(6)
    counts = rng.negative_binomial(2, 0.4, (37, 25))
    counts[3] = 0
    history = rng.integers(1, 26, 37)
    assert_rows_stand_alone(lambda rows: predictive(counts[rows], pool=1.7, history=history[rows]), 37)


def test_weeks_before_a_series_was_watched_are_ignored():
    rng = np.random.default_rng(7)
    counts = rng.poisson(2.0, (4, 30))
    spoilt = counts.copy()
    spoilt[:, :15] = 500
    history = np.full(4, 15)
    assert_same_bits(predictive(counts, pool=1.0, history=history), predictive(spoilt, pool=1.0, history=history))


def test_weeks_in_the_gap_do_not_raise_the_baseline():
    counts = np.ones((1, 30))
    counts[0, -3:] = 20
    assert predictive(counts, pool=1.0).expected[0] == pytest.approx(1 + 0.5 / 27)


@pytest.mark.parametrize("weeks", [0, 1, 3, 6])
def test_three_weeks_of_history_are_silent(weeks):
    found = predictive(np.full((2, weeks), 5), pool=1.0)
    assert not found.defined.any()
    assert not found.alarm.any()
    assert np.all(found.p_value == 1)


def test_degenerate_series_give_defined_evidence():
    single = np.zeros(30)
    single[-1] = 1
    found = predictive(np.stack([np.zeros(30), single, np.full(30, 1e9), np.full(30, 4.0)]), pool=1.0)
    assert found.defined.all()
    assert not found.alarm.any()
    assert np.all(np.isfinite(found.upper))
    assert 0 < found.p_value[1] < 0.05
    assert count_dispersion(np.zeros((3, 30))) == 1.0
    assert count_dispersion(np.zeros((0, 30))) == 1.0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("pool", 0.5),
        ("pool_weight", -1.0),
        ("alpha", 0.0),
        ("weeks", 3),
        ("gap", -1),
        ("at", 30),
        ("history", [1, 2]),
    ],
)
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(DetectorError, match=option):
        predictive(np.ones((1, 30)), **{"pool": 1.0, option: value})
