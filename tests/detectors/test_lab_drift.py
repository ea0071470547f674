from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from lab_worlds import world

from detectors import DetectorError
from detectors.lab_drift import lab_drift
from detectors.lab_effects import fit_labs
from detectors.lab_rows import lab_rows

WINDOWS = 8


def drift(w, recent):
    return lab_drift(lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch, rho=w.rho), recent)


def last_window(w):
    return np.arange(w.tested.size) % WINDOWS == WINDOWS - 1


@pytest.mark.parametrize("rho", [0.0, 0.05])
def test_labs_that_stay_as_they_are_do_not_drift(rho):
    w = world(21, branches=60, labs=8, strata=20, windows=WINDOWS, rho=rho)
    found = drift(w, last_window(w))
    assert found.defined.all()
    assert (found.p_value < 0.02).mean() < 0.02
    assert (found.p_lenient < 0.05).mean() < 0.05
    assert (found.p_severe < 0.05).mean() < 0.05


def pair_of_worlds(seed, ratio):
    """The last window's odds of lab 3 times `ratio`, and the tests around it."""
    w = world(seed, branches=20, labs=8, strata=50, windows=WINDOWS, lab_sd=0.3)
    late = last_window(w)
    rng = np.random.default_rng(seed)
    changed = late & (w.lab == 3)
    if ratio < 1:
        failed = rng.binomial(w.failed, ratio)
    else:
        failed = np.minimum(w.failed + rng.binomial(w.tested - w.failed, (ratio - 1) * 0.08), w.tested)
    w.failed = np.where(changed, failed, w.failed)
    return w, late


def test_a_lab_that_lets_pass_nine_failures_in_ten_is_found_lenient():
    w, late = pair_of_worlds(22, 0.1)
    found = drift(w, late)
    three = np.arange(found.tested.size) % 8 == 3
    assert (found.p_lenient[three] < 1e-4).mean() > 0.9
    assert found.p_severe[three].min() > 0.5
    assert (found.p_value[~three] < 1e-3).mean() < 0.02
    assert np.all(found.failed[three] < 0.5 * found.expected_own[three])


def test_a_lab_that_fails_three_times_as_much_is_found_severe():
    w, late = pair_of_worlds(23, 3.0)
    found = drift(w, late)
    three = np.arange(found.tested.size) % 8 == 3
    assert (found.p_severe[three] < 1e-3).mean() > 0.9
    assert (found.p_value[~three] < 1e-3).mean() < 0.02


def test_products_that_really_get_better_are_no_lenience():
    w = world(24, branches=20, labs=8, strata=20, windows=WINDOWS)
    late = last_window(w)
    w.failed = np.where(late, np.random.default_rng(1).binomial(w.failed, 0.3), w.failed)
    found = drift(w, late)
    assert np.median(found.failed / found.expected_own) < 0.4
    assert (found.p_value < 0.01).mean() < 0.3
    equal = world(24, branches=20, labs=8, strata=20, windows=WINDOWS, lab_sd=0.0)
    equal.failed = np.where(late, np.random.default_rng(1).binomial(equal.failed, 0.3), equal.failed)
    assert (drift(equal, late).p_lenient < 0.01).mean() < 0.02


def test_a_severe_lab_that_becomes_like_its_peers_is_no_drift():
    lab, stratum = np.tile(np.repeat(np.arange(5), 8), 2), np.tile(np.arange(8), 10)
    recent = np.arange(80) >= 40
    rate = np.where((lab == 1) & ~recent, 0.25, 0.08)
    tested = np.where(recent, 60, 600)
    found = lab_drift(lab_rows(lab, stratum, tested, np.round(tested * rate)), recent)
    assert found.failed[1] < 0.5 * found.expected_own[1]
    assert found.p_lenient[1] > 0.1


def test_a_lab_without_a_past_or_peers_or_tests_is_not_judged():
    #        lab 0: both; 1: no past; 2: no window; branch 1: alone in the window
    lab, branch = np.array([0, 0, 1, 2, 3, 3, 4]), np.array([0, 0, 0, 0, 1, 1, 1])
    recent = np.array([False, True, True, False, False, True, False])
    found = lab_drift(lab_rows(lab, np.zeros(7), np.full(7, 90), np.full(7, 9), branch=branch), recent)
    assert found.defined.tolist() == [True, False, False, False, False]
    assert found.p_value[1:].tolist() == [1.0] * 4
    nothing = lab_drift(lab_rows([], [], [], []), np.zeros(0, dtype=np.bool_))
    assert nothing.p_value.shape == (0,)


def test_fits_at_hand_give_the_same_bits():
    w = world(25, branches=2, windows=WINDOWS)
    late = last_window(w)
    rows = lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch)
    given = lab_drift(rows, late, past=fit_labs(rows, use=~late), peers=fit_labs(rows, use=late))
    for field in dataclasses.fields(given):
        assert getattr(given, field.name).tobytes() == getattr(lab_drift(rows, late), field.name).tobytes()


def test_a_branch_has_the_same_bits_in_any_company_and_order():
    w = world(26, branches=4, strata=12, windows=WINDOWS)
    late = last_window(w)
    all_rows = lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch)
    whole = lab_drift(all_rows, late)
    rng = np.random.default_rng(1)
    for b in range(4):
        keep = rng.permutation(np.flatnonzero(w.branch == b))
        rows = lab_rows(w.lab[keep], w.stratum[keep], w.tested[keep], w.failed[keep], branch=w.branch[keep])
        alone = lab_drift(rows, late[keep])
        at = all_rows.lab_branch == b
        for field in dataclasses.fields(whole):
            assert getattr(whole, field.name)[at].tobytes() == getattr(alone, field.name).tobytes()


def test_a_window_that_is_no_choice_of_rows_is_refused():
    with pytest.raises(DetectorError, match="recent"):
        lab_drift(lab_rows([0], [0], [1], [0]), [1])


def appliances(seed, changes):
    """Branch 0, appliances: four labs, 24 cells, a year and a month; the month's odds are multiplied by lab."""
    rng = np.random.default_rng(seed)
    lab, stratum = np.tile(np.repeat(np.arange(4), 24), 2), np.tile(np.arange(24), 8)
    recent = np.arange(192) >= 96
    usual = np.array([1.0, 1.5, 0.7, 1.0])
    odds = 0.03 * usual[lab] * np.where(recent, np.array(changes)[lab], 1.0)
    tested = np.where(recent, 20, 240)
    return lab_rows(lab, stratum, tested, rng.binomial(tested, odds / (1 + odds))), recent


def test_an_industrys_bad_month_is_not_its_labs_severity():
    # All find six times the failures; lab 1, the severe one, too, and lab 2 lets most of them pass.
    severe, lenient = [], []
    for seed in range(25):
        found = lab_drift(*appliances(seed, [6.0, 6.0, 0.3, 6.0]))
        severe.append(found.p_severe)
        lenient.append(found.p_lenient)
        assert np.all(found.failed[[0, 1, 3]] > 2 * found.expected_own[[0, 1, 3]])
    assert (np.array(severe) < 0.01).mean() <= 0.03
    assert (np.array(lenient)[:, [0, 1, 3]] < 0.01).mean() == 0.0


def test_a_labs_branches_add_up_to_one_judgement():
    w, late = pair_of_worlds(27, 0.3)
    rows = lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch)
    apart, together = lab_drift(rows, late), lab_drift(rows, late, across_branches=True)
    assert together.lab.tolist() == list(range(8))
    for name in ("tested", "failed", "expected_own", "expected_peers", "expected_both"):
        np.testing.assert_allclose(getattr(together, name), np.bincount(rows.lab, getattr(apart, name)))
    assert together.p_lenient[3] < 1e-12
    assert together.p_lenient[3] < apart.p_lenient.min()
    assert np.delete(together.p_value, 3).min() > 0.005
