from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone

from detectors import DetectorError, ears


@pytest.mark.parametrize(("method", "alarms"), [("C1", 16), ("C2", 20), ("C3", 36)])
def test_every_week_of_agona_has_the_published_limit(method, alarms, table, agona):
    rows = table("ears_agona")
    rows = rows[rows["method"] == method]
    found = [ears(agona, method, at=week - 1, min_sigma=0, r_compatible=True) for week in rows["week"]]
    upper = np.array([e.upper[0] for e in found])
    alarm = np.array([e.alarm[0] for e in found])
    np.testing.assert_allclose(upper, rows["upper"], rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(alarm, rows["alarm"] == 1)
    assert alarm.sum() == alarms


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_c3_adds_what_three_periods_have_over_one(seed):
    y = np.random.default_rng(seed).poisson(2.0, 14).astype(float)

    def c2(t):
        window = y[t - 9 : t - 2]
        return (y[t] - window.mean()) / max(window.std(ddof=1), 0.5)

    total = sum(max(0.0, c2(t) - 1.0) for t in (11, 12, 13))
    found = ears(y[None, :], "C3")
    before = sum(max(0.0, c2(t) - 1.0) for t in (11, 12))
    if before <= 1.9599639845400545:
        assert found.alarm[0] == (total > 1.9599639845400545)
    else:
        assert found.alarm[0] == (y[13] > 0)


def test_a_single_event_after_zeros_is_no_alarm():
    counts = np.zeros((1, 20))
    counts[0, -1] = 1
    for method in ("C1", "C2", "C3"):
        found = ears(counts, method)
        assert not found.alarm[0]
        assert 0 < found.p_value[0] < 1


def test_as_published_a_rise_over_a_constant_baseline_is_an_alarm():
    counts = np.full((2, 20), 3.0)
    counts[0, -1] = 4
    found = ears(counts, "C2", min_sigma=0)
    assert found.alarm.tolist() == [True, False]
    assert found.p_value.tolist() == [0.0, 0.5]


@pytest.mark.parametrize(("method", "periods"), [("C1", 7), ("C2", 9), ("C3", 11)])
def test_a_short_history_is_silent(method, periods):
    assert not ears(np.ones((2, periods)), method).defined.any()
    assert ears(np.ones((2, periods + 1)), method).defined.all()
    assert not ears(np.ones((2, 0)), method).alarm.any()


def test_counts_of_a_thousand_million_give_a_defined_result():
    found = ears(np.full((1, 20), 1e9), "C3")
    assert found.expected[0] == 1e9
    assert not found.alarm[0]


@pytest.mark.parametrize("method", ["C1", "C2", "C3"])
def test_a_series_has_the_same_bits_in_any_batch(method):
    counts = np.random.default_rng(2).poisson(3.0, (23, 30))
    assert_rows_stand_alone(lambda rows: ears(counts[rows], method), 23)


@pytest.mark.parametrize(
    "options", [{"method": "C4"}, {"alpha": 1.0}, {"baseline": 1}, {"min_sigma": -1}, {"at": 20}, {"at": -1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(DetectorError, match=next(iter(options))):
        ears(np.ones((1, 20)), **options)


def test_nan_is_refused():
    with pytest.raises(DetectorError, match="counts"):
        ears([[np.nan] * 20])
