from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab_worlds import world
from scipy.special import expit

from detectors import lab_effects, lab_newton
from detectors.lab_effects import fit_labs, pair_effects
from detectors.lab_newton import Effects, climb
from detectors.lab_pairs import LabPairs, lab_pairs
from detectors.lab_rows import LabRows, lab_rows, only


def rows_of(w, use=None) -> LabRows:
    return only(lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch, rho=w.rho), use)


def test_sums_are_those_of_a_plain_loop_over_the_rows():
    w = world(1, branches=5, labs=4, strata=9, windows=2, rho=0.02)
    rows = rows_of(w, np.random.default_rng(1).random(w.tested.size) < 0.7)
    found = lab_pairs(rows)
    values = np.arange(found.tested.size) + 1.0
    to_labs, to_strata = found.couplings(values)
    by_hand = np.zeros((found.lab_branch.size, found.stratum_branch.size))
    by_hand[found.pair_lab, found.pair_stratum] = values
    np.testing.assert_array_equal(to_labs @ np.eye(by_hand.shape[1]), by_hand)
    np.testing.assert_array_equal(to_strata @ np.eye(by_hand.shape[0]), by_hand.T)
    np.testing.assert_array_equal(found.lab_sum(values), by_hand.sum(axis=1))
    np.testing.assert_array_equal(found.stratum_sum(values), by_hand.sum(axis=0))
    weight = 1 / (1 + np.maximum(rows.tested - 1, 0) * rows.rho)
    pairs = found.tested, found.weighted_tested, found.weighted_failed, found.spread
    by_row = rows.tested, weight * rows.tested, weight * rows.failed, rows.tested / weight
    for of, got, columns in (
        (rows.lab_of, (found.lab_tested, found.lab_failed), (rows.tested, rows.failed)),
        (rows.pair_of, pairs, by_row),
    ):
        want = np.zeros((len(got), len(got[0])))
        for row, group in enumerate(of.tolist()):
            want[:, group] += [column[row] for column in columns]
        np.testing.assert_allclose(got, want, rtol=1e-13)


def random_pairs(seed: int, keep: float = 0.6):
    """Pairs of three branches, and labs and strata of several, of one and (what they tested is left out) of none."""
    rng = np.random.default_rng(seed)
    branch, lab, stratum = np.unravel_index(np.flatnonzero(rng.random(120) < keep), (3, 8, 5))
    tested = rng.integers(0, 3, branch.size) * rng.integers(1, 10_000, branch.size)
    rho = rng.integers(0, 2, branch.size) / 50
    rows = lab_rows(lab, stratum, tested, rng.integers(0, tested + 1), branch=branch, rho=rho)
    return lab_pairs(rows).tested_only(), rng


@given(seed=st.integers(0, 2**32), keep=st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_sums_run_in_the_order_of_the_pairs_to_the_last_bit(seed, keep):
    pairs, rng = random_pairs(seed, keep)
    values, up, down = (np.exp(rng.normal(0, 9, one.size)) for one in
                        (pairs.tested, pairs.lab_branch, pairs.stratum_branch))  # fmt: skip
    by_lab, by_stratum, to_labs, to_strata = ([0.0] * n for n in (up.size, down.size, up.size, down.size))
    for lab, stratum, value in zip(pairs.pair_lab.tolist(), pairs.pair_stratum.tolist(), values.tolist(), strict=True):
        by_lab[lab] += value
        by_stratum[stratum] += value
        to_labs[lab] += value * float(down[stratum])
        to_strata[stratum] += value * float(up[lab])
    couplings = pairs.couplings(values)
    assert pairs.lab_sum(values).tolist() == by_lab
    assert pairs.stratum_sum(values).tolist() == by_stratum
    assert (couplings[0] @ down).tolist() == to_labs  # the sums in between do not change them
    assert (couplings[1] @ up).tolist() == to_strata
    np.testing.assert_array_equal(pairs.at_labs(up), up[pairs.pair_lab])
    np.testing.assert_array_equal(pairs.at_strata(down), down[pairs.pair_stratum])


@given(seed=st.integers(0, 2**32), some=st.lists(st.booleans(), min_size=3, max_size=3).filter(any))
def test_some_branches_have_what_they_have_among_all(seed, some):
    pairs, rng = random_pairs(seed)
    some = np.array(some)[: pairs.branches]
    if not some.any():
        return
    values, few = rng.normal(0, 9, pairs.tested.size), pairs.of_branches(some)
    labs, strata = some[pairs.lab_branch], some[pairs.stratum_branch]
    its = values[labs[pairs.pair_lab]]
    np.testing.assert_array_equal(few.tested, pairs.tested[labs[pairs.pair_lab]])
    np.testing.assert_array_equal(few.lab_sum(its), pairs.lab_sum(values)[labs])
    np.testing.assert_array_equal(few.stratum_sum(its), pairs.stratum_sum(values)[strata])
    np.testing.assert_array_equal(few.labs_at_work, pairs.labs_at_work[some])
    np.testing.assert_array_equal(few.strata_at_work, pairs.strata_at_work[some])


@given(seed=st.integers(0, 2**32), scale=st.sampled_from([0.0, 1e-9, 1.0, 1e9]))
def test_what_a_pair_tells_is_not_negative_and_not_more_than_all_pairs_tell(seed, scale):
    pairs, rng = random_pairs(seed)
    effects = (rng.normal(0, 3, size) for size in (pairs.branches, pairs.stratum_branch.size, pairs.lab_branch.size))
    terms = Effects.at(pairs, *effects).terms
    free = scale * rng.random(pairs.tested.size)
    for of, add, at in (("lab", pairs.lab_sum, pairs.at_labs), ("stratum", pairs.stratum_sum, pairs.at_strata)):
        told = lab_effects._information(pairs, terms, of, free)
        other = terms.stratum_info[pairs.pair_stratum] if of == "lab" else terms.lab_info[pairs.pair_lab]
        rest = np.maximum(other - terms.pair_info, 0.0)
        by_hand = (free * rest + 1.0) * terms.pair_info / ((rest + terms.pair_info) * free + 1.0)
        np.testing.assert_array_equal(told, by_hand)
        assert (told >= 0).all()
        assert (at(add(told)) >= told).all()


def test_pairs_without_tests_are_left_out_and_their_labs_and_strata_stay():
    w = world(2, branches=3, labs=4, strata=9)
    full = lab_pairs(rows_of(w, w.lab != 1))
    some = full.tested_only()
    assert (full.tested == 0).any()
    np.testing.assert_array_equal(some.tested, full.tested[full.tested > 0])
    np.testing.assert_array_equal(some.lab_tested, full.lab_tested)
    np.testing.assert_array_equal(some.labs_at_work, full.labs_at_work)
    np.testing.assert_array_equal(some.stratum_active, full.stratum_active)
    assert some.tested_only() is some


def test_no_rows_are_no_pairs():
    empty = np.zeros(0)
    fit = fit_labs(lab_rows(empty, empty, empty, empty))
    assert all(getattr(fit, field.name).size == 0 for field in dataclasses.fields(fit))


def plain_steps(rows: LabRows, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mu, a, b of one branch at variances of 0.25, by Newton steps: gradient and Hessian of all effects, row by row."""
    strata, labs = rows.stratum.size, rows.lab.size
    x, n = rows.failed.sum(), rows.tested.sum()
    mu, a, b = np.log(x + 0.5) - np.log(n - x + 0.5), np.zeros(strata), np.zeros(labs)
    for _ in range(steps):
        gradient = np.concatenate([[0.0], -a / 0.25, -b / 0.25])
        hessian = np.diag(np.r_[0.0, np.full(strata + labs, 1 / 0.25)])
        for lab, stratum, items, failures in zip(rows.lab_of, rows.stratum_of, rows.tested, rows.failed, strict=True):
            p = expit(mu + a[stratum] + b[lab])
            at = [0, 1 + stratum, 1 + strata + lab]
            gradient[at] += failures - items * p
            hessian[np.ix_(at, at)] += items * p * (1 - p)
        move = np.clip(np.linalg.solve(hessian, gradient), -1, 1)
        mu, a, b = mu + move[0], a + move[1 : 1 + strata], b + move[1 + strata :]
        mu, a, b = mu + a.mean() + b.mean(), a - a.mean(), b - b.mean()
    return np.array([mu]), a, b


def climbed(pairs: LabPairs, *, tolerance: float, steps: int = 40) -> Effects:
    start = Effects.at(
        pairs, lab_effects._common_rate(pairs), np.zeros(pairs.stratum_branch.size), np.zeros(pairs.lab_branch.size)
    )
    quarter, low = np.full(pairs.branches, 0.25), np.full(pairs.branches, -20.0)
    return climb(pairs, start, quarter, quarter, low, tolerance=tolerance, steps=steps)


def test_the_steps_are_those_of_a_plain_reading():
    # With the five labs there are six equations, which six conjugate gradients solve exactly.
    rows = rows_of(world(4, branches=1, labs=5, strata=14, windows=3))
    for steps in (1, 2, 3, 9):
        found = climbed(lab_pairs(rows), tolerance=0.0, steps=steps)
        for got, want in zip((found.mu, found.a, found.b), plain_steps(rows, steps), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-8, atol=1e-10)


def hard_and_easy(seed: int) -> LabRows:
    """Branches where all labs find failures, where few do and where none does: they take 2 to 15 steps."""
    w = world(seed, branches=12, labs=15, strata=12, labs_a_cell=5)
    share = np.array([1.0, 0.5, 0.15, 0.0])[w.branch % 4]
    finds = np.random.default_rng(seed).random((12, 15))[w.branch, w.lab] < share
    return lab_rows(w.lab, w.stratum, w.tested, w.failed * finds, branch=w.branch)


@pytest.mark.parametrize("seed", range(4))
def test_a_branch_goes_as_far_as_it_would_alone(seed):
    pairs = lab_pairs(hard_and_easy(seed))
    together = climbed(pairs, tolerance=1e-3)
    for branch in range(pairs.branches):
        some = np.arange(pairs.branches) == branch
        alone, its = climbed(pairs.of_branches(some), tolerance=1e-3), together.of(pairs, some)
        for name in ("mu", "a", "b"):
            np.testing.assert_array_equal(getattr(its, name), getattr(alone, name))
        for field in dataclasses.fields(alone.terms):
            np.testing.assert_array_equal(getattr(its.terms, field.name), getattr(alone.terms, field.name))


@pytest.mark.parametrize("seed", range(4))
def test_the_effects_of_a_branch_have_the_bits_that_they_have_alone(seed):
    rows = hard_and_easy(seed)
    found = pair_effects(rows)
    for branch in range(rows.branch.size):
        its = rows.branch_of == branch
        columns = rows.lab[rows.lab_of], rows.stratum[rows.stratum_of], rows.tested, rows.failed
        alone = pair_effects(lab_rows(*(column[its] for column in columns)))
        np.testing.assert_array_equal(found[np.unique(rows.pair_of[its])], alone)


@pytest.mark.parametrize("seed", range(4))
def test_what_steps_are_left_out_does_not_show_in_four_decimals(seed, monkeypatch):
    rows = hard_and_easy(seed)
    found = pair_effects(rows)
    monkeypatch.setattr(lab_effects, "TOLERANCE", 1e-11)
    monkeypatch.setattr(lab_effects, "LAST_TOLERANCE", 1e-11)
    monkeypatch.setattr(lab_effects, "MOST_RATIO_STEPS", 100)
    monkeypatch.setattr(lab_newton, "SOLVER_STEPS", 20)
    np.testing.assert_allclose(found, pair_effects(rows), atol=1e-4)


@pytest.mark.parametrize("scale", [1, 21_845, 21_846, 2**40])
def test_rows_are_sorted_alike_whether_their_keys_are_small_or_fit_in_one_number_or_not(scale):
    rng = np.random.default_rng(6)
    branch, lab, stratum = (rng.integers(0, 4, 300) for _ in range(3))
    tested = rng.integers(1, 9, 300)
    failed = rng.integers(0, 2, 300)
    rows = lab_rows(lab * scale, stratum * scale, tested, failed, branch=branch)
    want = np.lexsort((failed, tested, stratum, lab, branch))
    np.testing.assert_array_equal(rows.order, want)
    keys = np.stack([branch, lab * scale, stratum * scale], axis=1)[want]
    np.testing.assert_array_equal(rows.branch[rows.branch_of], keys[:, 0])
    np.testing.assert_array_equal(rows.lab[rows.lab_of], keys[:, 1])
    np.testing.assert_array_equal(rows.stratum[rows.stratum_of], keys[:, 2])
    np.testing.assert_array_equal(rows.lab[rows.pair_lab][rows.pair_of], keys[:, 1])
    np.testing.assert_array_equal(rows.stratum[rows.pair_stratum][rows.pair_of], keys[:, 2])


@given(
    pairs=st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=40, unique=True),
    again=st.lists(st.integers(0, 39), max_size=3),
    seed=st.integers(0, 9),
    scale=st.sampled_from([1, 2**16, 2**40]),
)
def test_rows_of_a_pair_or_two_are_sorted_as_by_all_that_they_say(pairs, again, seed, scale):
    pairs = [(branch, lab * scale, stratum) for branch, lab, stratum in pairs]
    pairs = pairs + [pairs[at % len(pairs)] for at in again if pairs]
    rng = np.random.default_rng(seed)
    branch, lab, stratum = np.array(pairs, np.int64).reshape(-1, 3).T
    tested = rng.choice([[1, 2, 3], [1, 2.5, 3], [1, 2, 70_000]][seed % 3], len(pairs))
    failed, rho = rng.integers(0, 2, len(pairs)), rng.integers(0, 2, len(pairs)) / 10
    rows = lab_rows(lab, stratum, tested, failed, branch=branch, rho=rho)
    np.testing.assert_array_equal(rows.order, np.lexsort((rho, failed, tested, stratum, lab, branch)))
    keys = np.stack([rows.branch[rows.branch_of], rows.lab[rows.lab_of], rows.stratum[rows.stratum_of]], axis=1)
    np.testing.assert_array_equal(keys, np.array(pairs, np.int64).reshape(-1, 3)[rows.order])
    np.testing.assert_array_equal(np.unique(rows.pair_of), np.arange(len(set(pairs))))


@pytest.mark.parametrize("empty", [False, True])
def test_the_effects_of_pairs_alone_are_those_of_the_whole_report(empty):
    w = world(5, branches=4, labs=5, strata=9)
    rows = rows_of(w, w.lab != 1 if empty else None)
    np.testing.assert_array_equal(pair_effects(rows), fit_labs(rows).pair_log_odds)
