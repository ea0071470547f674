"""Nowcasts against the published chain ladder, a Poisson GLM, simulated delays, and FDA reports as they came in."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone

from detectors.delay import DelayPool, nowcast, pool_delays, reporting_triangle
from detectors.errors import DetectorError

CAERS = Path(__file__).resolve().parents[3] / "shared" / "data" / "fda_caers_2004_2010.parquet"
PMF = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])


def square(triangle):
    """``[1, period, delay]`` from rows (period, delay, value)."""
    size = int(triangle["period"].max()) + 1
    counts = np.zeros((1, size, size))
    counts[0, triangle["period"], triangle["delay"]] = triangle["paid"]
    return counts


def reports(rng, series, periods, mean, dispersion=1.0):
    """All reports, also those to come: each cell of variance `dispersion` times its mean."""
    cell = mean * PMF * np.ones((series, periods, 1))
    if dispersion == 1.0:
        return rng.poisson(cell).astype(float)
    return rng.negative_binomial(cell / (dispersion - 1.0), 1.0 / dispersion).astype(float)


# --- The published chain ladder -----------------------------------------------------------------------------


def test_taylor_and_ashes_triangle_has_the_published_factors_and_reserves(table):
    found = nowcast(square(table("taylor_ashe")), variation=np.inf)
    cdf = np.cumsum(found.pmf[0])
    factors = [3.4906, 1.7473, 1.4574, 1.1739, 1.1038, 1.0863, 1.0539, 1.0766, 1.0177]
    np.testing.assert_allclose(cdf[1:] / cdf[:-1], factors, atol=5e-5)  # Mack 1993, table 2
    reserves = (found.expected - found.reported)[0]
    published = [0, 94634, 469511, 709638, 984889, 1419459, 2177641, 3920301, 4278972, 4625811]
    np.testing.assert_array_equal(reserves.round(), published)
    assert round(reserves.sum()) == 18_680_856


def test_taylor_and_ashes_triangle_has_the_published_prediction_errors(table):
    found = nowcast(square(table("taylor_ashe")), variation=np.inf)
    assert found.dispersion.round().tolist() == [52_601]
    reserves = (found.expected - found.reported)[0, 1:]
    percent = 100 * found.standard_error[0, 1:] / reserves
    # England and Verrall 1999, over-dispersed Poisson, analytic
    np.testing.assert_array_equal(percent.round(), [116, 46, 37, 31, 26, 23, 20, 24, 43])


@pytest.mark.parametrize("seed", range(4))
def test_expectation_and_error_are_those_of_the_poisson_glm_of_periods_and_delays(seed):
    rng = np.random.default_rng(seed)
    counts = reports(rng, 1, 12, 60.0, 2.0)
    found = nowcast(counts, variation=np.inf)
    period, delay = np.indices(counts.shape[1:])
    known = (delay <= 11 - period).ravel()
    design = np.column_stack([period.ravel()[:, None] == np.arange(12), delay.ravel()[:, None] == np.arange(1, 8)])
    design = design.astype(float)
    fit = sm.GLM(counts[0].ravel()[known], design[known], family=sm.families.Poisson()).fit(scale="X2", tol=1e-12)
    assert found.dispersion[0] == pytest.approx(max(fit.scale, 1.0), rel=1e-6)
    mean = np.exp(design @ fit.params)
    covariance = fit.cov_params() * max(1.0, 1.0 / fit.scale)
    for i in range(12):
        to_come = (period.ravel() == i) & ~known
        gradient = (mean[to_come, None] * design[to_come]).sum(axis=0)
        variance = max(fit.scale, 1.0) * mean[to_come].sum() + gradient @ covariance @ gradient
        assert found.expected[0, i] == pytest.approx(counts[0, i][: 12 - i].sum() + mean[to_come].sum(), rel=1e-6)
        assert found.standard_error[0, i] == pytest.approx(np.sqrt(variance), rel=1e-5, abs=1e-9)


# --- Intervals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variation", [1.0, np.inf])
@pytest.mark.parametrize("level", [0.9, 0.98])
@pytest.mark.parametrize(
    ("mean", "dispersion", "pooled"),
    [
        (20.0, 1.0, False),
        (20.0, 3.0, False),
        (20.0, 3.0, True),
        (0.5, 1.0, True),
        (0.5, 2.0, True),
        (200.0, 1.0, False),
    ],
)
def test_the_interval_holds_the_final_count_as_often_as_it_says(mean, dispersion, pooled, level, variation):
    counts = reports(np.random.default_rng(7), 600, 40, mean, dispersion)
    final = counts.sum(axis=2)[:, -7:]
    pool = pool_delays(counts) if pooled else None
    found = nowcast(counts, pool=pool, level=level, variation=variation)
    assert found.defined.all()
    inside = np.mean((found.lower[:, -7:] <= final) & (final <= found.upper[:, -7:]))
    assert inside >= level - 0.015  # 4,200 draws; estimated dispersion costs a little
    if mean >= 20:  # whole numbers make the intervals of small counts too wide
        assert inside <= level + (1.0 - level) * 0.7
    assert found.expected[:, -7:].sum() == pytest.approx(final.sum(), rel=0.1)


def test_the_pool_of_many_sparse_series_is_the_law_that_they_share():
    counts = reports(np.random.default_rng(8), 800, 30, 0.5, 2.0)
    pool = pool_delays(counts)
    np.testing.assert_allclose(pool.pmf, PMF, atol=0.01)
    assert pool.pmf.sum() == pytest.approx(1.0)
    assert pool.dispersion == pytest.approx(2.0, rel=0.3)


def test_an_outbreak_of_the_latest_periods_is_not_taken_for_the_usual_rate():
    counts = reports(np.random.default_rng(9), 300, 40, 20.0)
    counts[:, -4:] = reports(np.random.default_rng(10), 300, 4, 80.0)
    found = nowcast(counts)
    shares = found.expected[:, -4:].sum(axis=0) / counts[:, -4:].sum(axis=(0, 2))
    assert np.all((shares > 0.85) & (shares < 1.05))


def test_a_young_period_of_a_sparse_series_follows_the_usual_rate_and_not_its_one_report():
    pool = DelayPool(np.array([0.03, 0.97 / 3, 0.97 / 3, 0.97 / 3]), 1.0)
    counts = np.zeros((1, 50, 4))
    counts[0, ::5, 2] = 1.0
    counts[0, 48:] = 0.0
    counts[0, -1, 0] = 1.0
    assert nowcast(counts, pool=pool, pool_weight=1e6, variation=np.inf).expected[0, -1] > 30
    assert nowcast(counts, pool=pool, pool_weight=1e6).expected[0, -1] < 2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.2, 1.0, np.inf]), st.booleans())
def test_a_nowcast_never_falls_below_what_is_reported_and_old_periods_are_final(seed, variation, pooled):
    rng = np.random.default_rng(seed)
    counts = reports(rng, 5, 12, rng.choice([0.1, 2.0, 50.0]))
    found = nowcast(counts, pool=pool_delays(counts) if pooled else None, variation=variation)
    some = found.defined
    assert np.all(found.lower >= found.reported)
    assert np.all(found.upper >= found.lower)
    assert np.all(found.expected[some] >= found.reported[some])
    assert np.all(np.isfinite(found.upper) == some)
    assert np.all((found.completeness >= 0) & (found.completeness <= 1))
    assert np.all(np.diff(found.completeness, axis=1) <= 1e-15)
    old = slice(0, 5)  # seven periods and more
    np.testing.assert_array_equal(found.upper[:, old], counts.sum(axis=2)[:, old])
    np.testing.assert_array_equal(found.expected[:, old], counts.sum(axis=2)[:, old])


def test_cells_that_cannot_be_known_yet_are_ignored():
    counts = reports(np.random.default_rng(11), 3, 20, 10.0)
    age = np.arange(20)[::-1]
    hidden = np.where(np.arange(8) <= age[:, None], counts, 0.0)
    whole, part = nowcast(counts), nowcast(hidden)
    np.testing.assert_array_equal(whole.upper, part.upper)
    np.testing.assert_array_equal(whole.reported, hidden.sum(axis=2))


def test_the_window_leaves_out_the_delays_of_old_periods():
    rng = np.random.default_rng(12)
    counts = reports(rng, 1, 60, 50.0)
    counts[:, :40] = counts[:, :40, ::-1]  # reports used to be slow
    slow, recent = nowcast(counts), nowcast(counts, window=20)
    np.testing.assert_array_equal(recent.pmf, nowcast(counts[:, 40:]).pmf)
    np.testing.assert_allclose(recent.pmf[0], PMF, atol=0.05)
    assert slow.completeness[0, -1] < recent.completeness[0, -1]


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(13)
    counts = np.concatenate([reports(rng, 9, 20, mean, 1.5) for mean in (0.1, 3.0, 1000.0)])
    counts[13] = 0.0
    counts[14] /= 3.0
    pool = pool_delays(counts)
    assert_rows_stand_alone(lambda r: nowcast(counts[r]), 27)
    assert_rows_stand_alone(lambda r: nowcast(counts[r], pool=pool, variation=np.inf, window=12), 27)
    assert_rows_stand_alone(lambda r: nowcast(counts[r][:, :, :1]), 27)
    order = rng.permutation(27)
    again = pool_delays(counts[order])
    assert again.pmf.tobytes() == pool.pmf.tobytes()
    assert again.dispersion == pool.dispersion


# --- Thin data ----------------------------------------------------------------------------------------------


def test_without_delays_the_counts_are_final():
    counts = np.zeros((2, 10, 4))
    counts[:, :, 0] = np.arange(10)
    found = nowcast(counts)
    assert found.defined.all()
    np.testing.assert_array_equal(found.expected, counts.sum(axis=2))
    np.testing.assert_array_equal(found.upper, counts.sum(axis=2))
    np.testing.assert_array_equal(nowcast(counts[:, :, :1]).upper, counts.sum(axis=2))


def test_a_series_without_a_report_is_defined_only_where_it_is_complete_or_has_a_pool():
    found = nowcast(np.zeros((1, 6, 3)))
    assert found.defined.tolist() == [[True, True, True, True, False, False]]
    assert found.upper.tolist() == [[0.0, 0.0, 0.0, 0.0, np.inf, np.inf]]
    pool = DelayPool(np.array([0.5, 0.25, 0.25]), 1.0)
    pooled = nowcast(np.zeros((1, 6, 3)), pool=pool)
    assert pooled.defined.all()
    assert pooled.completeness[0].tolist() == [1.0, 1.0, 1.0, 1.0, 0.75, 0.5]
    assert 0 <= pooled.expected[0, -1] < 0.2


def test_reports_in_young_periods_alone_do_not_tell_how_many_are_to_come():
    counts = np.zeros((1, 6, 3))
    counts[0, -1, 0] = 4.0
    found = nowcast(counts)
    assert found.defined[0].tolist() == [True, True, True, True, False, False]
    assert np.isnan(found.expected[0, -1])
    assert found.lower[0, -1] == 4.0
    assert pool_delays(counts).pmf.tolist() == [0.0, 0.0, 0.0]
    assert not nowcast(counts, pool=pool_delays(counts)).defined[0, -1]


def test_a_delay_that_every_old_report_had_leaves_young_periods_undefined():
    counts = np.zeros((1, 8, 3))
    counts[0, :, 2] = 5.0
    found = nowcast(counts)
    assert found.completeness[0].tolist() == [1.0] * 6 + [0.0, 0.0]
    assert found.defined[0].tolist() == [True] * 6 + [False, False]


@pytest.mark.parametrize("variation", [1e-3, 1.0, np.inf])
def test_degenerate_triangles_give_numbers_and_no_warning(variation):
    rng = np.random.default_rng(14)
    for counts in (
        np.empty((0, 5, 3)),
        np.empty((2, 0, 3)),
        np.zeros((2, 1, 3)),
        np.ones((2, 2, 5)),
        rng.poisson(1e8, (2, 9, 4)) * 10.0,
        rng.choice([0.0, 1e9], (4, 9, 4)),
        np.where(rng.random((6, 9, 4)) < 0.03, 1.0, 0.0),
    ):
        pool = pool_delays(counts)
        for found in (
            nowcast(counts, variation=variation),
            nowcast(counts, variation=variation, pool=replace(pool, dispersion=1e6)),
        ):
            assert np.all(np.isfinite(found.expected) == found.defined)
            assert np.all(np.isfinite(found.standard_error) == found.defined)
            assert np.all(np.isfinite(found.upper) == found.defined)
            assert np.all(found.dispersion >= 1)


# --- From columns -------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(-30, 45), st.integers(-30, 45)), max_size=60),
    st.sampled_from([1, 7]),
)
def test_a_triangle_is_counted_as_in_a_loop(rows, days):
    columns = np.array(rows, dtype=int).reshape(-1, 3).T
    found = reporting_triangle(*columns, now=30, n_series=3, periods=5, delays=3, days=days)
    expected = np.zeros((3, 5, 3))
    for at, (series, occurred, reported) in enumerate(rows):
        period = 4 - (30 - occurred) // days  # the last period ends with day 30
        delay = (30 - occurred) // days - (30 - reported) // days
        fits = reported <= 30 and occurred <= reported and period >= 0 and delay < 3
        assert found.used[at] == fits
        if fits:
            expected[series, period, delay] += 1
    np.testing.assert_array_equal(found.counts, expected)


def test_reports_with_a_delay_beyond_the_triangle_are_left_out():
    found = reporting_triangle([0, 0], [0, 0], [2, 3], now=9, n_series=1, periods=10, delays=3)
    assert found.used.tolist() == [True, False]
    assert found.counts.sum() == 1


# --- Real reports -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def caers():
    """Industry, day of the event and day of the report of each suspect report that names the event's date."""
    table = pq.read_table(CAERS, columns=["report_id", "created_date", "event_date", "role", "industry"])
    start = datetime(2000, 1, 1)
    found = {}
    for row in table.to_pylist():
        if row["role"] == "Suspect" and row["event_date"] is not None:
            days = (row["event_date"] - start).days, (row["created_date"] - start).days
            found.setdefault((row["report_id"], row["industry"]), days)
    industries = sorted({industry for _, industry in found})
    series = np.array([industries.index(industry) for _, industry in found])
    occurred, reported = np.array(list(found.values())).T
    return series, occurred, reported, len(industries)


@pytest.mark.shared_data
@pytest.mark.skipif(not CAERS.exists(), reason="../shared/data/fda_caers_2004_2010.parquet is absent")
def test_nowcasts_of_fda_reports_are_much_nearer_the_final_counts_than_what_was_reported(caers):
    series, occurred, reported, industries = caers
    shape = {"n_series": industries, "periods": 104, "delays": 26, "days": 7}
    latest = slice(-12, None)
    error = {"reported": [], "nowcast": [], "industry reported": [], "industry nowcast": []}
    inside = []
    for now in range(2563, 3654, 84):  # every twelfth Sunday of 2007, 2008 and 2009
        known = reporting_triangle(series, occurred, reported, now=now, **shape).counts
        later = {**shape, "periods": 104 + 26}
        final = reporting_triangle(series, occurred, reported, now=now + 26 * 7, **later).counts
        final = final.sum(axis=2)[:, :104]  # complete by now + 26 weeks
        alone = nowcast(known.sum(axis=0, keepdims=True))
        pooled = nowcast(known, pool=pool_delays(known))
        total = final.sum(axis=0)[latest]
        error["reported"].append(np.abs(alone.reported[0, latest] - total).sum())
        error["nowcast"].append(np.abs(alone.expected[0, latest] - total).sum())
        error["industry reported"].append(((pooled.reported - final)[:, latest] ** 2).sum())
        error["industry nowcast"].append(((pooled.expected - final)[:, latest] ** 2).sum())
        inside.append(((pooled.lower <= final) & (final <= pooled.upper))[:, latest].mean())
    sums = {name: np.array(values) for name, values in error.items()}
    assert np.all(sums["nowcast"] < 0.75 * sums["reported"])
    assert sums["nowcast"].sum() < 0.45 * sums["reported"].sum()
    assert sums["industry nowcast"].sum() < 0.65 * sums["industry reported"].sum()
    assert np.mean(inside) > 0.9


# --- Callers' mistakes --------------------------------------------------------------------------------------

ONE = np.ones((1, 3, 2))


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: nowcast([[1.0]]), "counts"),
        (lambda: nowcast(-ONE), "counts"),
        (lambda: nowcast(np.empty((1, 3, 0))), "counts"),
        (lambda: nowcast(ONE, level=1.0), "level"),
        (lambda: nowcast(ONE, window=0), "window"),
        (lambda: nowcast(ONE, variation=0.0), "variation"),
        (lambda: nowcast(ONE, pool_weight=np.nan), "pool_weight"),
        (lambda: nowcast(ONE, pool=DelayPool(np.array([0.5, 0.4]), 1.0)), "pool"),
        (lambda: nowcast(ONE, pool=DelayPool(np.array([1.0]), 1.0)), "pool"),
        (lambda: nowcast(ONE, pool=DelayPool(np.array([0.5, 0.5]), 0.5)), "pool"),
        (lambda: reporting_triangle([0], [1, 2], [1, 2], now=3, n_series=1, periods=1, delays=1), "occurred"),
        (lambda: reporting_triangle([0], [1.5], [2], now=3, n_series=1, periods=1, delays=1), "occurred"),
        (lambda: reporting_triangle([1], [1], [2], now=3, n_series=1, periods=1, delays=1), "series"),
        (lambda: reporting_triangle([0], [1], [2], now=3, n_series=1, periods=0, delays=1), "periods"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
