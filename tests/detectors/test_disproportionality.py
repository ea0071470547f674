"""Pairs against R openEBGM 0.9.1 (FDA CAERS, 17,189 pairs), scipy's laws, and sets counted in a loop.

Fixtures: ``ebgm_cells`` is the whole table, as N, product margin x injury margin, and how many pairs have the two in
common (3,356 reports); ``ebgm_scores`` is R's first 150 pairs by EBGM and every 114th from there.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone, assert_same_bits
from scipy import stats

from detectors.disproportionality import information_component, score_pairs, two_by_two
from detectors.errors import DetectorError
from detectors.gamma_poisson import (
    GammaMixture,
    fit_mixture,
    log_likelihood,
    ordinary_tail,
    posterior_quantile,
)
from detectors.pair_counts import expected_counts, pair_counts

REPORTS = 3356
R_THETA = GammaMixture(3.25595263263194, 0.399988179133347, 2.0237463953138, 1.9061299631659, 0.0653075296269156)
R_LOG_LIKELIHOOD = -4162.455710
R_HALF_DIGIT = 0.005 + 1e-9
R_BISECTION = 0.008
"""openEBGM halves down to a hundredth, so its quantiles are off by up to this; ours are checked against scipy below."""

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "reference" / "ebgm"
shared_data = pytest.mark.shared_data
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="../shared/reference/ebgm is absent")


@pytest.fixture(scope="module")
def cells(table):
    rows = table("ebgm_cells")
    n, margins = (np.repeat(rows[name], rows["pairs"]).astype(float) for name in ("n", "margins"))
    return n, margins / REPORTS


# --- The fit ------------------------------------------------------------------------------------------------


def test_the_likelihood_at_the_reference_theta_is_the_reference_one(cells):
    assert cells[0].size == 17189
    assert log_likelihood(*cells, R_THETA) == pytest.approx(R_LOG_LIKELIHOOD, abs=1e-6)


def test_the_fit_is_at_least_as_good_as_the_reference_and_the_same(cells):
    found = fit_mixture(*cells)
    assert found.defined
    assert found.cells == 17189
    assert found.log_likelihood >= log_likelihood(*cells, R_THETA)
    for name in GammaMixture.__slots__:
        assert getattr(found.theta, name) == pytest.approx(getattr(R_THETA, name), rel=2e-5)
    again = fit_mixture(*cells, start=found.theta)
    assert again.log_likelihood == pytest.approx(found.log_likelihood, abs=1e-8)


def test_a_higher_top_of_the_likelihood_gives_almost_the_same_signals(cells):
    usual = fit_mixture(*cells)
    other = fit_mixture(*cells, start=GammaMixture(20.0, 5.0, 20.0, 20.0, 0.01))
    assert other.log_likelihood == pytest.approx(usual.log_likelihood + 0.275, abs=0.001)
    one, two = (score_pairs(*cells, found.theta).signal for found in (usual, other))
    assert np.count_nonzero(one & two) >= 0.96 * np.count_nonzero(one | two)


def test_neither_the_order_of_the_cells_nor_zero_cells_touch_a_bit_of_the_fit():
    rng = np.random.default_rng(0)
    n, expected = rng.poisson(1.0, 400).astype(float), rng.choice([0.3, 0.9, 2.0], 400)
    whole, order = fit_mixture(n, expected), rng.permutation(400)
    assert fit_mixture(n[order], expected[order]) == whole
    assert fit_mixture(n[n > 0], expected[n > 0]) == whole


def test_the_fit_recovers_the_mixture_that_the_cells_were_drawn_from():
    rng = np.random.default_rng(1)
    expected = np.exp(rng.normal(0.0, 1.0, 40_000).round(1))
    extreme = rng.random(expected.size) < 0.1
    alpha, beta = np.where(extreme, 3.0, 8.0), np.where(extreme, 0.5, 8.0)
    law = stats.nbinom(alpha, beta / (beta + expected))
    n = law.ppf(law.cdf(0) + law.sf(0) * rng.random(expected.size))  # at least 1
    found = fit_mixture(n, expected)
    assert found.theta.weight == pytest.approx(0.1, rel=0.05)
    assert found.theta.alpha1 / found.theta.beta1 == pytest.approx(6.0, rel=0.05)
    assert found.theta.alpha2 / found.theta.beta2 == pytest.approx(1.0, rel=0.02)


def test_the_likelihood_is_that_of_truncated_negative_binomials():
    rng = np.random.default_rng(2)
    expected, n = rng.uniform(0.01, 20.0, 50), rng.integers(1, 30, 50)
    total = np.zeros(50)
    for alpha, beta, weight in ((3.25595, 0.4, 0.065), (2.02, 1.9, 0.935)):
        law = stats.nbinom(alpha, beta / (beta + expected))
        total += weight * law.pmf(n) / law.sf(0)
    theta = GammaMixture(3.25595, 0.4, 2.02, 1.9, 0.065)
    assert log_likelihood(n, expected, theta) == pytest.approx(np.log(total).sum(), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "expected", "defined"),
    [
        ([], [], False),
        ([3], [0.1], False),
        (np.zeros(100), np.ones(100), False),
        (np.ones(100), np.zeros(100), False),
        (np.ones(1000), np.ones(1000), True),
        (np.ones(100), np.full(100, 1e-300), True),
        (np.ones(100), np.full(100, 1e300), True),
        (np.full(100, 1e9), np.ones(100), True),
        (np.full(1000, 50.0), np.full(1000, 50.0), True),
        (np.append(np.ones(60), 1e9), np.append(np.full(60, 1e-6), 1e9), True),
    ],
)
def test_a_degenerate_table_is_fitted_or_left_with_the_start(n, expected, defined):
    found = fit_mixture(n, expected)
    assert found.defined == defined
    assert np.isfinite(found.log_likelihood) == defined
    scores = score_pairs(n, expected, found.theta)
    for values in (scores.weight, scores.ebgm, scores.eb05, scores.eb95):
        assert np.all(np.isfinite(values) == scores.defined)
    assert np.all((scores.p_value >= 0) & (scores.p_value <= 1))


# --- Scores -------------------------------------------------------------------------------------------------


def test_scores_are_those_of_openebgm(table):
    rows = table("ebgm_scores")
    found = score_pairs(rows["n"], rows["margins"] / REPORTS, R_THETA)
    np.testing.assert_allclose(found.weight, rows["weight"], rtol=1e-11)
    np.testing.assert_allclose(found.ebgm, rows["ebgm"], rtol=0, atol=R_HALF_DIGIT)
    np.testing.assert_allclose(found.eb05, rows["eb05"], rtol=0, atol=R_BISECTION)
    np.testing.assert_allclose(found.eb95, rows["eb95"], rtol=0, atol=R_BISECTION)


def test_131_pairs_of_the_whole_table_have_an_eb05_of_2(cells):
    found = score_pairs(*cells, R_THETA)
    assert np.count_nonzero(found.eb05 >= 2) == 131
    np.testing.assert_array_equal(found.signal, (found.eb05 >= 2) & (cells[0] >= 3))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.0, 1e6).map(np.floor),
    st.floats(1e-6, 1e5),
    st.tuples(*[st.floats(0.01, 50.0)] * 4, st.floats(1e-6, 1 - 1e-6)).map(lambda theta: GammaMixture(*theta)),
    st.sampled_from([0.01, 0.05, 0.5, 0.95]),
)
def test_a_quantile_has_its_share_of_the_posterior_below_it(n, expected, theta, level):
    count, mean = np.array([n]), np.array([expected])
    x = posterior_quantile(count, mean, theta, level)[0]
    one = stats.nbinom(theta.alpha1, theta.beta1 / (theta.beta1 + expected)).logpmf(n) + np.log(theta.weight)
    two = stats.nbinom(theta.alpha2, theta.beta2 / (theta.beta2 + expected)).logpmf(n) + np.log1p(-theta.weight)
    share = np.exp(one - np.logaddexp(one, two))
    below = [
        stats.gamma(alpha + n, scale=1 / (beta + expected)).cdf(x)
        for alpha, beta in ((theta.alpha1, theta.beta1), (theta.alpha2, theta.beta2))
    ]
    assert share * below[0] + (1 - share) * below[1] == pytest.approx(level, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.floats(1e-4, 50.0))
def test_more_reports_raise_every_score_and_a_larger_expectation_lowers_it(n, expected):
    low = score_pairs([n, n + 1, n], [expected, expected, 1.5 * expected], R_THETA)
    for values in (low.ebgm, low.eb05, low.eb95, -low.p_value):
        assert values[1] >= values[0] >= values[2]
    assert np.all((low.eb05 < low.ebgm) & (low.ebgm < low.eb95))


def test_a_pair_of_which_nothing_was_expected_is_not_defined():
    found = score_pairs([0, 5], [0.0, 0.0], R_THETA)
    assert not found.defined.any()
    assert not found.signal.any()
    assert found.p_value.tolist() == [1.0, 1.0]


def test_the_least_of_a_signal_is_an_option():
    n, expected = [16, 2], [0.406436, 0.01]
    assert score_pairs(n, expected, R_THETA).signal.tolist() == [True, False]
    assert score_pairs(n, expected, R_THETA, least_eb05=16.0).signal.tolist() == [False, False]
    assert score_pairs(n, expected, R_THETA, least_eb05=1.0, least_reports=2.0).signal.tolist() == [True, True]


def test_a_pair_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(3)
    n = rng.choice([0, 1, 2, 5, 40, 10**9], 60).astype(float)
    expected = np.exp(rng.normal(-1.0, 3.0, 60))
    strata = rng.integers(0, 50, (60, 3))
    margins = n + rng.integers(0, 50, 60), n + rng.integers(0, 50, 60)
    assert_rows_stand_alone(lambda r: score_pairs(n[r], expected[r], R_THETA), 60)
    assert_rows_stand_alone(lambda r: information_component(n[r], expected[r]), 60)
    assert_rows_stand_alone(lambda r: two_by_two(n[r], margins[0][r], margins[1][r], 10**10), 60)
    assert_rows_stand_alone(lambda r: expected_counts(strata[r], strata[r] + 1, [90, 70, 1000]), 60)


# --- The p-value of a new pair ------------------------------------------------------------------------------


@pytest.mark.parametrize("expected", [1e-9, 1e-3, 0.4, 7.0, 2000.0])
def test_the_p_value_is_the_tail_of_the_truncated_negative_binomial(expected):
    n = np.array([1.0, 2.0, 3.0, 10.0, 100.0])
    law = stats.nbinom(2.0237463953138, 1.9061299631659 / (1.9061299631659 + expected))
    found = ordinary_tail(n, np.full(5, expected), R_THETA)
    np.testing.assert_allclose(found, law.sf(n - 1) / law.sf(0), rtol=1e-6)


@pytest.mark.parametrize("expected", [0.01, 0.4, 3.0])
def test_reported_pairs_of_the_ordinary_kind_have_a_small_p_value_no_oftener_than_it_says(expected):
    law = stats.nbinom(R_THETA.alpha2, R_THETA.beta2 / (R_THETA.beta2 + expected))
    n = np.arange(1.0, 400.0)
    p_value = ordinary_tail(n, np.full(n.size, expected), R_THETA)
    chance = law.pmf(n) / law.sf(0)
    for alpha in (0.1, 0.01, 1e-4):
        assert chance[p_value <= alpha].sum() <= alpha


def test_the_first_report_of_a_pair_proves_nothing_and_independence_is_never_news():
    assert ordinary_tail(np.array([1.0]), np.array([1e-9]), R_THETA).tolist() == [1.0]
    rare = GammaMixture(3.0, 0.5, 5.0, 500.0, 0.1)  # most pairs a hundred times rarer than independence has them
    assert ordinary_tail(np.array([20.0]), np.array([20.0]), rare)[0] > 0.4


def test_the_ordinary_kind_is_the_one_that_most_pairs_are_of():
    mostly_first = GammaMixture(8.0, 8.0, 0.001, 100.0, 0.999)
    law = stats.nbinom(8.0, 8.0 / (8.0 + 0.5))
    assert ordinary_tail(np.array([6.0]), np.array([0.5]), mostly_first)[0] == pytest.approx(law.sf(5) / law.sf(0))


# --- 2 x 2 --------------------------------------------------------------------------------------------------


def test_the_measures_of_the_2_by_2_table_are_the_reference_ones(table):
    rows = table("two_by_two")
    a, b, c, d = (rows[name].astype(float) for name in "abcd")
    level = 2 * stats.norm.cdf(1.959964) - 1  # the reference's z has seven digits
    found = two_by_two(a, a + b, a + c, a + b + c + d, level=level)
    exact = two_by_two(a, a + b, a + c, a + b + c + d)
    some = a > 0  # R has no standard error without a report; the interval is then all there is
    for value, name in [
        (found.prr, "prr"),
        (found.ror, "ror"),
        (found.chi2, "chi2_yates"),
        (exact.ic, "ic"),
        (exact.ic_lower, "ic025"),
        (exact.ic_upper, "ic975"),
    ]:
        np.testing.assert_allclose(value, rows[name], rtol=1e-11, err_msg=name)
    for value, name in [
        (found.prr_lower, "prr_lo"),
        (found.prr_upper, "prr_hi"),
        (found.ror_lower, "ror_lo"),
        (found.ror_upper, "ror_hi"),
    ]:
        np.testing.assert_allclose(value[some], rows[name][some], rtol=1e-11, err_msg=name)
    assert found.prr_lower[~some].tolist() == [0.0]
    assert found.prr_upper[~some].tolist() == [np.inf]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=4, max_size=4).filter(lambda v: min(v) > 0))
def test_the_chi_square_is_scipys(v):
    a, b, c, d = v
    found = two_by_two([a], [a + b], [a + c], [a + b + c + d])
    assert found.chi2[0] == pytest.approx(stats.chi2_contingency([[a, b], [c, d]]).statistic, rel=1e-7, abs=1e-9)


def test_degenerate_tables_have_a_defined_answer():
    n, row, column = [0, 0, 5, 5, 5, 1, 10**9], [0, 5, 5, 9, 5, 1, 10**9], [5, 0, 5, 5, 9, 1, 10**9]
    found = two_by_two(n, row, column, [10, 10, 10, 10, 10, 1, 2 * 10**9])
    assert found.defined.tolist() == [False, False, True, True, True, True, True]
    assert np.isnan(found.ic[:2]).all()
    assert found.prr[[2, 3, 4, 6]].tolist() == [np.inf, np.inf, 1.25, np.inf]
    assert np.isnan(found.prr[5])  # no other report at all
    assert found.ror[[2, 3, 4, 6]].tolist() == [np.inf] * 4
    assert np.isnan(found.ror[5])
    assert found.prr_lower[[2, 5]].tolist() == [0.0, 0.0]
    assert np.all(np.isfinite(found.chi2[2:]) & np.isfinite(found.ic_lower[2:]))


# --- Counting -----------------------------------------------------------------------------------------------


def arrays(counts):
    return [getattr(counts, name) for name in counts.__slots__ if name != "total"]


ROWS = st.lists(st.tuples(st.integers(0, 8), st.integers(-2, 3), st.integers(0, 3), st.integers(0, 2)), max_size=60)


@settings(max_examples=80, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_counts_are_those_of_sets_of_reports_in_any_order_of_the_rows(rows, random):
    found = pair_counts(*np.array(rows, dtype=int).reshape(-1, 4).T[:3])
    random.shuffle(rows)
    columns = np.array(rows + rows[:7], dtype=int).reshape(-1, 4).T  # some rows twice
    again = pair_counts(*columns[:3])
    assert again.total == found.total
    assert_same_bits(tuple(arrays(again)), tuple(arrays(found)))
    pairs = sorted({(p, i) for _, p, i, _ in rows})
    assert list(zip(found.product.tolist(), found.injury.tolist(), strict=True)) == pairs
    assert found.total == len({r for r, *_ in rows})
    for at, (p, i) in enumerate(pairs):
        both = {r for r, q, j, _ in rows if (q, j) == (p, i)}
        one, other = {r for r, q, *_ in rows if q == p}, {r for r, _, j, _ in rows if j == i}
        assert (found.n[at], found.product_margin[at], found.injury_margin[at]) == (len(both), len(one), len(other))
        assert found.expected[at] == pytest.approx(len(one) * len(other) / found.total)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_strata_expect_within_themselves(rows):
    columns = np.array(rows, dtype=int).reshape(-1, 4).T
    found = pair_counts(*columns[:3], strata=columns[3])
    for at, (p, i) in enumerate(zip(found.product.tolist(), found.injury.tolist(), strict=True)):
        expected = 0.0
        for stratum in {s for *_, s in rows}:
            inside = [row for row in rows if row[3] == stratum]
            one, other = {r for r, q, *_ in inside if q == p}, {r for r, _, j, _ in inside if j == i}
            expected += len(one) * len(other) / len({r for r, *_ in inside})
        assert found.expected[at] == pytest.approx(expected)


def test_a_stratum_without_reports_expects_nothing():
    assert expected_counts([[1, 0]], [[1, 0]], [2, 0]).tolist() == [0.5]


# --- The whole reference ------------------------------------------------------------------------------------


@shared_data
@needs_reference
def test_all_pairs_of_the_reference_are_counted_and_scored_as_by_openebgm():
    def read(name):
        with gzip.open(REFERENCE / name, "rt", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))

    rows = read("ebgm_input_caers.csv.gz")
    reference = {(row["var1"], row["var2"]): row for row in read("ebgm_scores_nostrat.csv.gz")}
    products = sorted({row["var1"] for row in rows})
    injuries = sorted({row["var2"] for row in rows})
    counted = pair_counts(
        [int(row["id"]) for row in rows],
        np.searchsorted(products, [row["var1"] for row in rows]),
        np.searchsorted(injuries, [row["var2"] for row in rows]),
    )
    assert (counted.total, counted.n.size, len(reference)) == (REPORTS, 17189, 17189)
    names = zip(counted.product.tolist(), counted.injury.tolist(), strict=True)
    ordered = [reference[products[p], injuries[i]] for p, i in names]

    def column(name):
        return np.array([float(row[name]) for row in ordered])

    np.testing.assert_array_equal(counted.n, column("N"))
    np.testing.assert_allclose(counted.expected, column("E"), rtol=1e-13)
    measures = two_by_two(counted.n, counted.product_margin, counted.injury_margin, counted.total)
    np.testing.assert_allclose(measures.prr, column("PRR"), rtol=0, atol=R_HALF_DIGIT)
    found = score_pairs(counted.n, counted.expected, R_THETA)
    np.testing.assert_allclose(found.weight, column("Qn"), rtol=1e-11)
    np.testing.assert_allclose(found.ebgm, column("EBGM"), rtol=0, atol=R_HALF_DIGIT)
    np.testing.assert_allclose(found.eb05, column("QUANT_05"), rtol=0, atol=R_BISECTION)
    np.testing.assert_allclose(found.eb95, column("QUANT_95"), rtol=0, atol=R_BISECTION)
    reumofan = products.index("REUMOFAN PLUS"), injuries.index("WEIGHT INCREASED")
    at = list(zip(counted.product.tolist(), counted.injury.tolist(), strict=True)).index(reumofan)
    assert (counted.n[at], round(counted.expected[at], 6), round(found.ebgm[at], 2)) == (16, 0.406436, 23.26)


# --- Callers' mistakes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: GammaMixture(0.0, 1.0, 1.0, 1.0, 0.5), "theta"),
        (lambda: GammaMixture(1.0, 1.0, 1.0, np.inf, 0.5), "theta"),
        (lambda: GammaMixture(1.0, 1.0, 1.0, 1.0, 1.0), "weight"),
        (lambda: score_pairs([-1], [1.0], R_THETA), "n"),
        (lambda: score_pairs([1], [np.nan], R_THETA), "expected"),
        (lambda: score_pairs([1, 2], [1.0, 1.0, 1.0], R_THETA), "expected"),
        (lambda: fit_mixture([1], [-1.0]), "expected"),
        (lambda: posterior_quantile(np.ones(1), np.ones(1), R_THETA, 1.0), "level"),
        (lambda: information_component([1], [1.0], level=0.0), "level"),
        (lambda: two_by_two([3], [2], [5], 10), "margin"),
        (lambda: two_by_two([0], [6], [5], 10), "margin"),
        (lambda: pair_counts([1, 2], [1], [1, 2]), "products"),
        (lambda: pair_counts([1], [1.5], [1]), "products"),
        (lambda: pair_counts([1], [1], [1], strata=[1, 2]), "strata"),
        (lambda: expected_counts([1, 2], [1], 10), "product_margin"),
        (lambda: expected_counts([1], [1], -1), "total"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
