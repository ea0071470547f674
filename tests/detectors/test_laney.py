from __future__ import annotations

import numpy as np
import pytest
from same_bits import assert_rows_stand_alone

from detectors import DetectorError
from detectors.laney import laney_chart

BASELINE_WEEKS = 104


def test_the_abattoir_chart_is_the_published_one(table):
    rows = table("laney_abattoir")
    chart = laney_chart(rows["tested"][None, :], rows["failed"][None, :], baseline=BASELINE_WEEKS)
    assert chart.centre[0] == pytest.approx(0.0106044754431851, rel=1e-12)
    assert chart.sigma_z[0] == pytest.approx(2.0749880057243, rel=1e-12)
    np.testing.assert_allclose(chart.upper[0], rows["upper"], rtol=1e-10)
    np.testing.assert_allclose(chart.lower[0], rows["lower"], atol=1e-14, rtol=1e-9)
    flagged = chart.high[0] | chart.low[0]
    np.testing.assert_array_equal(flagged, rows["out"] == 1)
    assert rows["week"][flagged].tolist() == [12, 45, 145]


def test_the_plain_chart_would_have_flagged_ten_weeks(table):
    rows = table("laney_abattoir")
    chart = laney_chart(rows["tested"][None, :], rows["failed"][None, :], baseline=BASELINE_WEEKS)
    reach = (chart.upper[0] - chart.centre[0]) / chart.sigma_z[0]
    np.testing.assert_allclose(chart.centre[0] + reach, rows["upper_plain"], rtol=1e-10)
    with np.errstate(invalid="ignore"):
        assert (chart.rate[0] > chart.centre[0] + reach).sum() == rows["out_plain"].sum() == 10


def test_batches_that_differ_by_sampling_only_have_a_spread_of_one():
    rng = np.random.default_rng(1)
    tested = rng.integers(50, 500, (300, 60))
    chart = laney_chart(tested, rng.binomial(tested, 0.1))
    assert chart.sigma_z.mean() == pytest.approx(1.0, abs=0.02)
    assert (chart.high | chart.low).mean() < 0.006


def test_an_empty_batch_has_no_point_and_its_neighbours_meet():
    with_gap = laney_chart([[100, 0, 100, 0, 0, 100]], [[5, 0, 9, 0, 0, 2]])
    without = laney_chart([[100, 100, 100]], [[5, 9, 2]])
    assert with_gap.sigma_z == without.sigma_z
    assert np.isnan(with_gap.upper[0, [1, 3, 4]]).all()
    assert with_gap.upper[0, [0, 2, 5]].tolist() == without.upper[0].tolist()
    assert not with_gap.high[0, [1, 3, 4]].any()


def test_a_series_that_says_nothing_has_no_limits():
    tested = [[0, 0, 0], [5, 0, 0], [9, 9, 9], [9, 9, 9], [10**9] * 3]
    failed = [[0, 0, 0], [1, 0, 0], [0, 0, 0], [9, 9, 9], [1, 10**9, 5]]
    chart = laney_chart(tested, failed)
    assert chart.defined.tolist() == [False, False, False, False, True]
    assert not (chart.high | chart.low)[:4].any()
    assert np.isnan(chart.upper[:4]).all()
    assert not laney_chart(np.empty((2, 0)), np.empty((2, 0))).defined.any()
    assert laney_chart(np.empty((0, 3)), np.empty((0, 3))).defined.shape == (0,)


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    tested = rng.integers(0, 300, (33, 20))
    failed = rng.binomial(tested, 0.05)
    assert_rows_stand_alone(lambda r: laney_chart(tested[r], failed[r], baseline=15), 33)


@pytest.mark.parametrize(("option", "value"), [("baseline", 4), ("baseline", -1), ("width", 0.0), ("width", np.nan)])
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(DetectorError, match=option):
        laney_chart([[5, 5, 5]], [[1, 1, 0]], **{option: value})
