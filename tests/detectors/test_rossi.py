from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone

from detectors.errors import DetectorError
from detectors.rossi import rossi


def test_every_week_of_agona_has_the_published_path_and_limit(table, agona):
    rows = table("rossi_agona")
    found = rossi(agona[:, 104:], agona[0, :104].mean())
    np.testing.assert_allclose(found.path[0], rows["path"], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.upper[0], rows["upper"], rtol=1e-10)
    np.testing.assert_array_equal(found.alarm[0], rows["alarm"] == 1)
    assert found.alarm.sum() == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_chart_is_the_loop_of_the_definition(seed, reset):
    rng = np.random.default_rng(seed)
    x = rng.poisson(3.0, (3, 30)).astype(float)
    m = rng.uniform(0.5, 5.0, (3, 30))
    found = rossi(x, m, k=0.5, h=3.0, reset=reset)
    for i in range(3):
        s = 0.0
        for t in range(30):
            s = max(0.0, s + (x[i, t] - 3 * m[i, t] + 2 * np.sqrt(x[i, t] * m[i, t])) / (2 * np.sqrt(m[i, t])) - 0.5)
            assert found.path[i, t] == pytest.approx(s, abs=1e-9)
            assert found.alarm[i, t] == (found.path[i, t] >= 3.0)
            if reset and s >= 3.0:
                s = 0.0
        assert found.statistic[i] == pytest.approx(s, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_count_at_the_limit_is_an_alarm_and_one_below_is_none(seed, reset):
    x = np.random.default_rng(seed).poisson(3.0, (5, 30)).astype(float)
    found = rossi(x, 2.0, reset=reset)
    clear = np.abs(x - found.upper) > 1e-6
    np.testing.assert_array_equal(found.alarm[clear], (x >= found.upper)[clear])


def test_standardised_poisson_counts_have_mean_0_and_variance_1():
    counts = np.random.default_rng(6).poisson(8.0, (1, 200_000))
    # With k = 0 and an enormous start the path only adds up.
    path = rossi(counts, 8.0, k=0.0, h=1.0, start=1e7).path[0]
    z = np.diff(path)
    assert z.mean() == pytest.approx(0.0, abs=0.05)
    assert z.std() == pytest.approx(1.0, abs=0.02)


def test_a_chart_goes_on_as_if_it_had_never_stopped():
    x = np.random.default_rng(1).poisson(4.0, (9, 40))
    for reset in (False, True):
        whole = rossi(x, 3.0, reset=reset)
        first = rossi(x[:, :17], 3.0, reset=reset)
        second = rossi(x[:, 17:], 3.0, reset=reset, start=first.statistic)
        assert np.concatenate([first.path, second.path], axis=1).tobytes() == whole.path.tobytes()
        assert second.statistic.tobytes() == whole.statistic.tobytes()


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    x, m = rng.poisson(3.0, (23, 30)), rng.uniform(1.0, 4.0, 23)
    assert_rows_stand_alone(lambda rows: rossi(x[rows], m[rows]), 23)


@pytest.mark.parametrize(("option", "value"), [("mean", 0.0), ("mean", np.nan), ("k", -1.0), ("h", 0.0), ("start", -1)])
def test_parameters_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(DetectorError, match=option):
        rossi([[5, 5]], **{"mean": 2.0, option: value})
