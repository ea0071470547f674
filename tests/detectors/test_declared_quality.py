from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone
from scipy import stats

from detectors import DetectorError
from detectors.declared_quality import (
    acceptance_limit,
    clopper_pearson_interval,
    declared_quality,
    hypergeometric_tail,
    limiting_quality,
)


def test_the_example_of_the_standard_comes_out():
    # ISO 2859-4:2002, 7.2: of 125 items against a DQL of 0.65% two do not contradict it, three do.
    found = declared_quality([125, 125], [2, 3], 0.0065)
    assert found.limit.tolist() == [2, 2]
    assert found.contradicted.tolist() == [False, True]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.floats(1e-5, 0.5), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_limit_is_the_least_that_keeps_the_risk(n, declared, risk):
    limit = acceptance_limit([n], declared, risk=risk)[0]
    assert stats.binom.sf(limit, n, declared) <= risk * (1 + 1e-9)
    if limit > 0:
        assert stats.binom.sf(limit - 1, n, declared) > risk * (1 - 1e-9)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_small_lot_is_judged_by_the_hypergeometric_law(data):
    lot = data.draw(st.integers(1, 400))
    n = data.draw(st.integers(0, lot))
    declared = data.draw(st.integers(0, lot - 1)) / lot
    bad = round(declared * lot)
    limit = acceptance_limit([n], declared, lot_size=lot)[0]
    law = stats.hypergeom(lot, bad, n)
    assert law.sf(limit) <= 0.05 * (1 + 1e-9)
    if limit > 0:
        assert law.sf(limit - 1) > 0.05 * (1 - 1e-9)


def test_the_hypergeometric_tail_is_scipys():
    rng = np.random.default_rng(1)
    lot = rng.integers(1, 500, 600).astype(float)
    n, bad = np.floor(rng.uniform(0, 1, (2, 600)) * (lot + 1))
    x = np.floor(rng.uniform(0, 1, 600) * (n + 2))
    np.testing.assert_allclose(
        hypergeometric_tail(x, n, bad, lot), stats.hypergeom.sf(x - 1, lot, bad, n), rtol=1e-9, atol=1e-12
    )


def test_a_lot_of_a_milliard_is_near_its_normal_limit():
    lot, n = np.array([1e9]), np.array([1e8])
    sd = np.sqrt(1e8 * 0.1 * 0.9 * 0.9)
    tail = hypergeometric_tail(1e7 + np.round(2 * sd) + 0 * lot, n, 0.1 * lot, lot)
    assert tail[0] == pytest.approx(stats.norm.sf((np.round(2 * sd) - 0.5) / sd), rel=1e-3)


def test_a_whole_lot_is_judged_with_certainty():
    found = declared_quality([40, 40], [4, 5], 0.1, lot_size=40)
    assert found.contradicted.tolist() == [False, True]
    assert found.p_value.tolist() == [1.0, 0.0]


def test_the_limiting_quality_escapes_with_a_tenth():
    n = np.array([32, 125, 1000])
    limit = acceptance_limit(n, 0.01)
    np.testing.assert_allclose(stats.binom.cdf(limit, n, limiting_quality(n, limit)), 0.1, rtol=1e-9)


def test_a_first_failure_contradicts_a_declaration_of_none():
    found = declared_quality([10, 10], [0, 1], 0.0)
    assert found.contradicted.tolist() == [False, True]
    assert declared_quality([10], [1], 0.0, lot_size=1000).contradicted.tolist() == [True]


def test_exact_intervals_match_the_published_ones(table):
    rows = table("clopper_pearson")
    low, high = clopper_pearson_interval(rows["n"], rows["x"])
    np.testing.assert_allclose(low, rows["low"], atol=1e-11)
    np.testing.assert_allclose(high, rows["high"], atol=1e-11)


def test_a_level_outside_the_one_sided_exact_interval_is_contradicted():
    n, x = np.full(61, 60), np.arange(61)
    low, _ = clopper_pearson_interval(n, x, confidence=0.9)
    for declared in (0.013, 0.1, 0.35):
        assert (declared_quality(n, x, declared).contradicted == (low > declared)).all()


def test_degenerate_samples_give_defined_evidence():
    n, x = np.array([0, 1, 1, 10**9, 10**9]), np.array([0, 0, 1, 0, 10**9])
    for lot in (None, 10**9):
        found = declared_quality(n, x, 0.02, lot_size=lot)
        assert found.contradicted.tolist() == [False, False, True, False, True]
        assert found.defined.tolist() == [False, True, True, True, True]
        assert found.p_value[0] == 1
        assert np.all((found.p_value >= 0) & (found.p_value <= 1))
        assert np.all((found.limiting >= 0) & (found.limiting <= 1))
    assert declared_quality([], [], 0.1).limit.shape == (0,)


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(2)
    n = rng.integers(0, 3000, 41)
    x, lot = rng.binomial(n, 0.03), n + rng.integers(0, 4000, 41)
    declared = rng.uniform(0, 0.06, 41)
    assert_rows_stand_alone(lambda r: declared_quality(n[r], x[r], declared[r]), 41)
    assert_rows_stand_alone(lambda r: declared_quality(n[r], x[r], declared[r], lot_size=lot[r]), 41)
    assert_rows_stand_alone(lambda r: clopper_pearson_interval(n[r], x[r]), 41)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: declared_quality([5], [1], 1.0), "declared"),
        (lambda: declared_quality([5], [1], np.nan), "declared"),
        (lambda: declared_quality([5], [6], 0.1), "failed"),
        (lambda: declared_quality([5], [1], 0.1, lot_size=4), "lot_size"),
        (lambda: declared_quality([5], [1], 0.1, lot_size=5.5), "lot_size"),
        (lambda: acceptance_limit([5], 0.1, risk=0.0), "risk"),
        (lambda: limiting_quality([5], [6]), "limit"),
        (lambda: clopper_pearson_interval([5], [1], 1.0), "confidence"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
