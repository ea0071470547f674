from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from lab_worlds import world
from scipy import optimize, stats
from scipy.special import expit

from detectors import DetectorError
from detectors.lab_cells import cell_evidence, expected_failures, mixed_tails
from detectors.lab_effects import fit_labs, winsorised_squares
from detectors.lab_rows import lab_rows


def rows_of(w, **keep):
    return lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch, rho=w.rho, **keep)


def centred(effect):
    return effect - effect.mean(axis=1, keepdims=True)


# --- The fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labs", "strata", "labs_a_cell", "items"),
    [(6, 40, 3, 100), (12, 60, 1, 300), (12, 60, 2, 3000), (2, 30, 2, 1000), (2, 30, 1, 1000), (5, 5, 1, 50000)],
)
def test_the_fit_is_the_mode_that_an_optimiser_finds(labs, strata, labs_a_cell, items):
    w = world(1, branches=1, labs=labs, strata=strata, labs_a_cell=labs_a_cell, windows=1, items=(1, items))
    rows = rows_of(w)
    fit = fit_labs(rows)
    n_strata = rows.stratum.size

    def minus_log_posterior(v):
        a, b = v[1 : 1 + n_strata], v[1 + n_strata :]
        log_odds = v[0] + a[rows.stratum_of] + b[rows.lab_of]
        rest = rows.failed - rows.tested * expit(log_odds)
        value = np.sum(rows.tested * np.logaddexp(0, log_odds) - rows.failed * log_odds)
        value += np.sum(a**2) / 2 / fit.stratum_variance[0] + np.sum(b**2) / 2 / fit.lab_variance[0]
        by_stratum = np.bincount(rows.stratum_of, rest) - a / fit.stratum_variance[0]
        by_lab = np.bincount(rows.lab_of, rest) - b / fit.lab_variance[0]
        return value, -np.concatenate([[rest.sum()], by_stratum, by_lab])

    found = np.concatenate([fit.base, fit.stratum_log_odds, fit.log_odds])
    start = np.zeros_like(found)
    start[0] = -2.5
    want = optimize.minimize(minus_log_posterior, start, jac=True, method="BFGS", options={"gtol": 1e-5})
    np.testing.assert_allclose(found, want.x, atol=2e-5)


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_planted_lab_effects_are_found_and_their_intervals_hold(rho):
    w = world(2, branches=60, rho=rho)
    fit = fit_labs(rows_of(w))
    truth, found = centred(w.lab_effect), fit.log_odds.reshape(w.lab_effect.shape)
    assert np.corrcoef(truth.ravel(), found.ravel())[0, 1] > 0.93
    covered = np.abs(found - truth) <= 1.96 * fit.error.reshape(truth.shape)
    assert 0.92 <= covered.mean() <= 0.99
    assert fit.lab_variance.mean() == pytest.approx(w.lab_effect.var(axis=1, ddof=1).mean(), rel=0.15)
    assert fit.stratum_variance.mean() == pytest.approx(0.09, rel=0.3)


def test_labs_that_do_not_differ_have_next_to_no_effects():
    fit = fit_labs(rows_of(world(3, lab_sd=0.0, stratum_sd=0.0)))
    assert np.abs(fit.log_odds).max() < 0.25
    assert fit.lab_variance.mean() < 0.02
    assert (np.abs(fit.log_odds) < 1.96 * fit.error).mean() > 0.93


def test_expected_failures_are_what_the_peers_find_in_the_same_strata():
    # Two kinds of products, 5% and 20%; lab 2 tests mostly the bad kind, as severely as the others.
    lab, stratum = np.repeat(np.arange(4), 10), np.tile(np.arange(10), 4)
    bad = stratum >= 5
    tested = np.where(lab == 2, np.where(bad, 4000, 100), 1000)
    failed = tested * np.where(bad, 0.20, 0.05)
    fit = fit_labs(lab_rows(lab, stratum, tested, failed))
    np.testing.assert_allclose(fit.ratio, 1, atol=0.01)
    crude = fit.failed / fit.tested
    assert crude[2] / crude[0] > 1.5
    # Lab 2 now fails half as much again: its ratio says so; the others', each with lab 2 for a peer, fall.
    failed = np.where(lab == 2, failed * 1.5, failed)
    fit = fit_labs(lab_rows(lab, stratum, tested, failed))
    assert fit.ratio[2] == pytest.approx(1.5, abs=0.03)
    assert fit.ratio[[0, 1, 3]].min() > 0.8


def test_an_outlier_does_not_widen_the_variance_between_the_others():
    z = np.r_[stats.norm.ppf((np.arange(200) + 0.5) / 200), [40.0, -60.0]]
    branch, active = np.zeros(202, dtype=np.int64), np.ones(202, dtype=np.bool_)
    assert winsorised_squares(branch, z, active, 1)[0] / 202 == pytest.approx(1.0, abs=0.05)
    few = winsorised_squares(branch[:9], z[-9:], active[:9], 1)[0]
    assert few == pytest.approx(np.sum(z[-9:] ** 2))


# --- What cannot be told apart ------------------------------------------------------------------------------


def test_a_lab_with_one_cell_of_its_own_takes_nothing_off_that_cell():
    # Labs 0 and 1 share cells 0-9; lab 2 alone tests cell 10, and nothing else.
    lab = np.r_[np.repeat([0, 1], 10), 2]
    stratum = np.r_[np.tile(np.arange(10), 2), 10]
    tested = np.full(21, 500)
    failed = np.r_[np.full(20, 25), 75]
    rows = lab_rows(lab, stratum, tested, failed)
    fit = fit_labs(rows)
    own = rows.pair_lab == 2
    assert fit.pair_log_odds[own][0] == pytest.approx(0.0, abs=1e-4)
    assert fit.pair_variance[own][0] == pytest.approx(fit.lab_variance[0])
    assert fit.separable[10] == 0.0
    assert fit.separable[:10].min() > 0.7
    # Both effects are shrunk: neither takes the whole of the excess.
    total = fit.log_odds[2] + fit.stratum_log_odds[10]
    assert 0.05 * total < fit.log_odds[2] < 0.95 * total
    assert total < np.log(75 / 425) - np.log(25 / 475)
    # The cell may still stand out, if by more than labs differ.
    cells = cell_evidence(rows, fit)
    assert cells.expected[10] == pytest.approx(cells.unadjusted[10], rel=1e-3)


def test_a_branch_with_one_lab_has_no_lab_effect():
    fit = fit_labs(lab_rows([0, 0, 0], [0, 1, 2], [100, 200, 300], [5, 30, 9]))
    assert fit.log_odds.tolist() == [0.0]
    assert fit.error.tolist() == [0.0]
    assert fit.separable.tolist() == [0.0, 0.0, 0.0]


def test_a_bad_product_tested_mostly_by_one_lab_is_not_that_labs_fault():
    # Lab 0 has 90% of its items in cell 0, whose odds are four times the others'.
    lab, stratum = np.repeat(np.arange(4), 12), np.tile(np.arange(12), 4)
    tested = np.where((lab == 0) & (stratum == 0), 5000, 50)
    failed = np.round(tested * np.where(stratum == 0, 0.17, 0.05))
    rows = lab_rows(lab, stratum, tested, failed)
    fit = fit_labs(rows)
    assert abs(fit.log_odds[0]) < 0.2
    assert abs(fit.pair_log_odds[(rows.pair_lab == 0) & (rows.pair_stratum == 0)][0]) < 0.15
    assert cell_evidence(rows, fit).p_value.argmin() == 0


# --- Cells --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.04])
def test_the_adjusted_test_finds_the_product_and_not_the_labs_cells(rho):
    w = world(4, branches=40, rho=rho, planted=(7, 3.0), items=(10, 60))
    rows = rows_of(w)
    adjusted = cell_evidence(rows, fit_labs(rows))
    nobody = lab_rows(np.zeros_like(w.lab), w.stratum, w.tested, w.failed, branch=w.branch, rho=rho)
    plain = cell_evidence(nobody, fit_labs(nobody))
    ignoring_all = cell_evidence(nobody, fit_labs(nobody), natural_spread=False)
    planted = rows.stratum == 7
    assert (adjusted.p_value[~planted] < 0.01).mean() < 0.015
    assert (adjusted.p_value[~planted] < 0.05).mean() < 0.06
    # Taken as products, the labs' differences are alarms by the dozen, or hide the product.
    assert (ignoring_all.p_value[~planted] < 0.01).mean() > 0.05
    power, plain_power = (adjusted.p_value[planted] < 0.01).mean(), (plain.p_value[planted] < 0.01).mean()
    assert power > plain_power + 0.1
    assert power > 0.55


def test_without_natural_spread_equal_cells_keep_the_level():
    w = world(5, branches=40, stratum_sd=0.0, rho=0.03)
    rows = rows_of(w)
    p = cell_evidence(rows, fit_labs(rows), natural_spread=False).p_value
    assert (p < 0.01).mean() < 0.013


def test_a_given_rate_is_met_by_each_rows_own_lab():
    w = world(6, branches=2)
    rows = rows_of(w)
    fit = fit_labs(rows)
    rate = np.random.default_rng(1).uniform(0.02, 0.2, w.tested.size)
    by_row = expected_failures(rows, fit, rate)
    cells = cell_evidence(rows, fit, rate)
    position = np.empty(by_row.size, dtype=np.int64)
    position[rows.order] = rows.stratum_of
    np.testing.assert_allclose(np.bincount(position, by_row), cells.expected, rtol=1e-12)
    np.testing.assert_allclose(np.bincount(position, w.tested * rate), cells.unadjusted, rtol=1e-9)


def test_a_recent_window_is_judged_with_effects_learned_before_it():
    w = world(7, branches=3, windows=5)
    late = np.arange(w.tested.size) % 5 == 4
    rows = rows_of(w)
    cells = cell_evidence(rows, fit_labs(rows, use=~late), use=late)
    assert cells.tested.sum() == w.tested[late].sum()
    assert cells.expected.sum() == pytest.approx(w.failed[late].sum(), rel=0.15)


def test_the_tails_have_the_mean_and_variance_asked_for():
    n, mean, rho = np.array([30.0, 30.0, 900.0]), np.array([3.0, 3.0, 45.0]), np.array([0.0, 0.1, 0.02])
    p = mean / n
    variance = n * p * (1 - p) * (1 + (n - 1) * rho)
    high, low = mixed_tails(n, np.array([6.0, 6.0, 70.0]), mean, variance)
    m = 1 / 0.1 - 1
    assert high[0] == pytest.approx(stats.binom.sf(5, 30, 0.1))
    assert low[0] == pytest.approx(stats.binom.cdf(6, 30, 0.1))
    assert high[1] == pytest.approx(stats.betabinom.sf(5, 30, 0.1 * m, 0.9 * m))
    assert high[2] == pytest.approx(stats.betabinom.sf(69, 900, 0.05 * 49, 0.95 * 49), rel=1e-6)
    np.testing.assert_allclose(high + low - 1, [stats.binom.pmf(6, 30, 0.1), *(high + low - 1)[1:]], rtol=1e-9)


# --- Bits, order, refusal -----------------------------------------------------------------------------------


def by_branch(w, branches, order=None):
    """Fit and cells of some branches alone, the rows in another order."""
    keep = np.flatnonzero(np.isin(w.branch, branches))
    keep = keep if order is None else keep[order.permutation(keep.size)]
    rows = lab_rows(w.lab[keep], w.stratum[keep], w.tested[keep], w.failed[keep], branch=w.branch[keep], rho=w.rho)
    fit = fit_labs(rows)
    return rows, fit, cell_evidence(rows, fit)


def test_a_branch_has_the_same_bits_in_any_company_and_any_order():
    w = world(8, branches=7, strata=20, windows=2, rho=0.02)
    rows, fit, cells = by_branch(w, range(7))
    rng = np.random.default_rng(1)
    at = {"[labs]": rows.lab_branch, "[strata]": rows.stratum_branch, "[branches]": np.arange(7)}
    pair = rows.lab_branch[rows.pair_lab]
    for some in ([0], [3], [6], [1, 4], [2, 3, 5], list(range(7))):
        _, alone, alone_cells = by_branch(w, some, rng)
        for whole, part in ((fit, alone), (cells, alone_cells)):
            for field in dataclasses.fields(whole):
                values = getattr(whole, field.name)
                branch = next(b for b in (*at.values(), pair) if b.size == values.size)
                assert values[np.isin(branch, some)].tobytes() == getattr(part, field.name).tobytes(), field.name


def test_rows_of_nothing_change_nothing():
    w = world(9, branches=2, strata=10)
    rows = rows_of(w)
    more = lab_rows(
        np.r_[w.lab, 3, 99], np.r_[w.stratum, 4, 99], np.r_[w.tested, 0, 0], np.r_[w.failed, 0, 0],
        branch=np.r_[w.branch, 0, 1], rho=w.rho,
    )  # fmt: skip
    fit, wide = fit_labs(rows), fit_labs(more)
    known = more.lab != 99
    np.testing.assert_allclose(wide.log_odds[known], fit.log_odds, atol=1e-9)
    assert wide.log_odds[~known].tolist() == [0.0]
    assert np.isnan(wide.ratio[~known]).all()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: lab_rows([0.5], [0], [1], [0]), "lab"),
        (lambda: lab_rows([-1], [0], [1], [0]), "lab"),
        (lambda: lab_rows([0], [np.nan], [1], [0]), "stratum"),
        (lambda: lab_rows([0], [0, 1], [1], [0]), "stratum"),
        (lambda: lab_rows([0], [0], [1], [2]), "failed"),
        (lambda: lab_rows([0], [0], [np.nan], [0]), "tested"),
        (lambda: lab_rows([0], [0], [1], [0], rho=-0.1), "rho"),
        (lambda: fit_labs(lab_rows([0], [0], [1], [0]), lab_pool=-1), "lab_pool"),
        (lambda: fit_labs(lab_rows([0], [0], [1], [0]), use=[1]), "use"),
        (lambda: cell_evidence(r := lab_rows([0], [0], [1], [0]), fit_labs(r), 1.5), "rate"),
    ],
)
def test_what_is_no_test_of_a_lab_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
