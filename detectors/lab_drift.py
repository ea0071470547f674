"""Drift of a laboratory: has it of late grown lenient, or severe, on what it tests?

A lab's recent failures are held against three expectations, all of :mod:`detectors.lab_effects`, and all must point the
same way:

- its own past: what this lab, with its own effect, used to find in these strata;
- its peers: what the other labs find in the same strata in the same window;
- its peers, with the difference that it always had to them.

Products that really get better get better in the peers' hands too; a lab that was always severe and becomes like the
others is below its past, not below its peers; and where an industry gets worse, a lab that was always severe is above
its past and above its peers, not above both together. The p-value is the largest of the three (an intersection-union
test: Berger 1982, *Technometrics* 24, 295-300), so its level holds as soon as one of the comparisons is fair.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray
from detectors.lab_cells import mixed_tails
from detectors.lab_effects import LabFit, fit_labs
from detectors.lab_rows import LabRows, group_sum, only

__all__ = ["DriftEvidence", "DriftParts", "drift_parts", "judge_drift", "lab_drift"]


@dataclass(frozen=True, slots=True)
class DriftParts:
    """What a judgement is made of; every field is an array ``[labs]``, and a lab's branches may be added up.

    Attributes
    ----------
    tested, failed
        Items and failures in the recent window.
    own, own_variance, peers, peers_variance, both, both_variance
        Failures expected by the three comparisons, and the variances of failed - expected. All are 0 where the lab
        tested nothing in the window or before it, or no other lab of its branch was at work in the window.
    """

    tested: FloatArray
    failed: FloatArray
    own: FloatArray
    own_variance: FloatArray
    peers: FloatArray
    peers_variance: FloatArray
    both: FloatArray
    both_variance: FloatArray


@dataclass(frozen=True, slots=True)
class DriftEvidence:
    """What a lab's recent window says against its past and its peers; every field is an array ``[labs]``.

    Attributes
    ----------
    lab
        The labs' numbers.
    tested, failed
        Items and failures in the recent window.
    expected_own, expected_peers
        Failures that the lab would have found as it used to, and that its peers would have found.
    expected_both
        Failures that its peers would have found, with the lab's usual difference to them.
    p_lenient, p_severe
        The largest of the three probabilities of so few failures or fewer, so many or more; 1 where not defined.
    p_value
        Two-sided: twice the smaller of these, at most 1.
    defined
        False where the lab tested nothing in the window or before it, or no other lab of its branch was at
        work in the window.
    """

    lab: IntArray
    tested: FloatArray
    failed: FloatArray
    expected_own: FloatArray
    expected_peers: FloatArray
    expected_both: FloatArray
    p_lenient: FloatArray
    p_severe: FloatArray
    p_value: FloatArray
    defined: BoolArray


def lab_drift(
    rows: LabRows,
    recent: npt.ArrayLike,
    *,
    across_branches: bool = False,
    past: LabFit | None = None,
    peers: LabFit | None = None,
) -> DriftEvidence:
    """Judge every lab's recent window.

    Take for branches the kinds of product that may get worse as one (all appliances): peers who test other appliances
    then tell what a lab's own should show, and an industry's bad month is not taken for its labs' severity.

    Parameters
    ----------
    rows
        Tests of the past and of the window, from :func:`~detectors.lab_rows.lab_rows`; rows must not span both.
    recent
        Which rows lie in the window, ``[rows]`` of bool in the input's order.
    across_branches
        Add up each lab's branches, for one judgement a lab: the arrays of the result are then by lab number.
    past, peers
        Fits of the rows before the window and in it (``fit_labs(rows, use=...)``), if they are at hand.

    Raises
    ------
    DetectorError
        If `recent` is not one bool a row.

    Examples
    --------
    Four labs test three cells a year long; in the last month lab 0 finds 4 failures where it used to find 20.

    >>> from detectors.lab_rows import lab_rows
    >>> lab, cell = np.tile(np.repeat(np.arange(4), 3), 2), np.tile(np.arange(3), 8)
    >>> recent = np.arange(24) >= 12
    >>> tested, failed = np.where(recent, 200, 2000), np.where(recent, 20, 200)
    >>> failed[12:15] = 4
    >>> found = lab_drift(lab_rows(lab, cell, tested, failed), recent)
    >>> (found.p_lenient < 1e-6).tolist(), found.expected_own.round(0).tolist()
    ([True, False, False, False], [60.0, 60.0, 60.0, 60.0])
    """
    parts, defined = drift_parts(rows, recent, past=past, peers=peers)
    if not across_branches:
        return judge_drift(parts, rows.lab, defined)
    numbers, of = np.unique(rows.lab, return_inverse=True)
    summed = DriftParts(*(group_sum(of, part, numbers.size) for part in astuple(parts)))
    return judge_drift(summed, numbers, group_sum(of, defined.astype(np.float64), numbers.size) > 0)


def drift_parts(
    rows: LabRows, recent: npt.ArrayLike, *, past: LabFit | None = None, peers: LabFit | None = None
) -> tuple[DriftParts, BoolArray]:
    """What :func:`lab_drift` judges, for every lab of every branch, and where it is defined, ``[labs]``.

    For those who hold the branches apart and add them up elsewhere; arguments and errors are those of
    :func:`lab_drift`.
    """
    late = np.asarray(recent)
    if late.dtype != np.bool_ or late.shape != rows.order.shape:
        raise DetectorError(f"recent: expected {rows.order.size} booleans, one a row")
    before = past or fit_labs(rows, use=~late)
    around = peers or fit_labs(rows, use=late)
    now = only(rows, late)
    own, own_variance = _as_it_used_to(now, before)
    at_work = group_sum(rows.lab_branch, (around.tested > 0).astype(np.float64), rows.branch.size)
    defined = (around.tested > 0) & (before.tested > 0) & (at_work[rows.lab_branch] > 1)
    both, both_variance = _as_usual_beside_peers(now, before, around)
    parts = (around.tested, around.failed, own, own_variance, around.expected, around.variance, both, both_variance)
    return DriftParts(*(np.where(defined, part, 0.0) for part in parts)), defined


def judge_drift(parts: DriftParts, lab: IntArray, defined: BoolArray) -> DriftEvidence:
    """Judge parts, be they of one branch or added up over several; `lab` are the labs' numbers, ``[labs]``."""
    lenient, severe = np.zeros(parts.tested.size), np.zeros(parts.tested.size)
    for mean, spread in (
        (parts.own, parts.own_variance),
        (parts.peers, parts.peers_variance),
        (parts.both, parts.both_variance),
    ):
        high, low = mixed_tails(parts.tested, parts.failed, mean, spread)
        severe, lenient = np.maximum(severe, high), np.maximum(lenient, low)
    lenient, severe = np.where(defined, lenient, 1.0), np.where(defined, severe, 1.0)
    return DriftEvidence(
        lab=lab,
        tested=parts.tested,
        failed=parts.failed,
        expected_own=parts.own,
        expected_peers=parts.peers,
        expected_both=parts.both,
        p_lenient=lenient,
        p_severe=severe,
        p_value=np.minimum(2.0 * np.minimum(lenient, severe), 1.0),
        defined=defined,
    )


def _as_it_used_to(now: LabRows, before: LabFit) -> tuple[FloatArray, FloatArray]:
    """Failures expected of each lab in the window with its own effect, and the variance of the difference."""
    labs = now.lab.size
    log_odds = before.base[now.branch_of] + before.stratum_log_odds[now.stratum_of] + before.log_odds[now.lab_of]
    p = special.expit(log_odds)
    plain = now.tested * p * (1.0 - p)
    by_pair = group_sum(now.pair_of, plain, now.pair_lab.size)
    variance = group_sum(now.lab_of, plain * (1.0 + np.maximum(now.tested - 1.0, 0.0) * now.rho), labs)
    variance += group_sum(now.pair_lab, (by_pair * before.stratum_error[now.pair_stratum]) ** 2, labs)
    variance += (group_sum(now.lab_of, plain, labs) * before.error) ** 2
    return group_sum(now.lab_of, now.tested * p, labs), variance


def _as_usual_beside_peers(now: LabRows, before: LabFit, around: LabFit) -> tuple[FloatArray, FloatArray]:
    """Failures expected of each lab from its peers' rates in the window and its usual difference to them."""
    labs = now.lab.size
    p = special.expit(around.peer_log_odds[now.pair_of] + before.to_peers[now.lab_of])
    expected = group_sum(now.lab_of, now.tested * p, labs)
    growth = np.divide(expected, around.expected, out=np.ones(labs), where=around.expected > 0)
    # The sampling part of the variance grows with the mean, the peers' part with its square.
    variance = around.variance * np.maximum(growth, growth * growth)
    slope = group_sum(now.lab_of, now.tested * p * (1.0 - p), labs)
    variance += slope**2 * (before.error**2 + _unsteadiness_of_peers(now, before, around))
    return expected, variance


def _unsteadiness_of_peers(now: LabRows, before: LabFit, around: LabFit) -> FloatArray:
    """Variance of the mean change of each lab's peers, ``[labs]``, from how their changes differ among themselves.

    One peer that drifts moves the mean of a few; the lab itself is left out, so that it does not hide behind its own
    change. With one peer, or none, nothing shows but the variance between labs.
    """
    both = ((around.tested > 0) & (before.tested > 0)).astype(np.float64)
    change = both * (around.log_odds - before.log_odds)
    branch, branches = now.lab_branch, now.branch.size
    count, total, squares = (group_sum(branch, v, branches)[branch] for v in (both, change, change * change))
    others = count - both
    mean = (total - change) / np.maximum(others, 1.0)
    spread = np.maximum(squares - change * change - others * mean * mean, 0.0) / np.maximum(others - 1.0, 1.0)
    spread = np.where(others > 1, spread, around.lab_variance[branch])
    return np.asarray(spread / np.maximum(others, 1.0))
