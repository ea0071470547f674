"""Lab effects: how much more, or less, does a laboratory fail than its peers on the same products and regions?

Laboratories and inspectors differ: a cell (product x region) that a severe lab tests looks bad without being bad.
Within a branch the failures of lab l in stratum s (a cell) follow a crossed random-effects logistic model, fitted by
its joint mode (penalised quasi-likelihood: Breslow and Clayton 1993, *JASA* 88, 9-25)::

    logit p_ls = mu + a_s + b_l,    a_s ~ N(0, omega^2),    b_l ~ N(0, tau^2)

tau^2 and omega^2 come from moments, as Spiegelhalter (2005), "Funnel plots for comparing institutional performance",
*Statistics in Medicine* 24, 1185-1202, does it: each lab's z-score against what its strata would show without it
(indirect standardisation), winsorised so that an outlier does not widen its own limits, then the estimator of
DerSimonian and Laird (1986). A cell is judged with lab effects from the labs' *other* cells only, so that a bad product
is not taken for a bad lab.

Where a lab tests one cell only and a cell has one lab only, nothing can tell the two apart: both effects are shrunk,
that lab's effect for judging that cell is 0, and ``separable`` says so. A branch with one lab has no lab effects.

A branch's results have the same bits whichever other branches are there and in whatever order the rows come: rows are
sorted first, sums run in that order within a branch, and it decides by itself when an iteration is at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray
from detectors.lab_newton import FEW, LARGEST_MOVE, Effects, Terms, climb, residuals
from detectors.lab_pairs import LabPairs, lab_pairs
from detectors.lab_rows import LabRows, group_sum, only

__all__ = ["LabFit", "fit_labs", "pair_effects", "winsorised_squares"]

ROUNDS = 4
"""Variances are worked out so often, each time at the mode of those before."""

TOLERANCE, LAST_TOLERANCE = 1e-2, 1e-3
"""Largest last moves of effects while the variances still change, and in the end; what is left is about their square,
under 1e-4."""

MOST_RATIO_STEPS = 20
"""Of a lab against the others: ordinary ones take two to eleven, one that fails all that it tests up to twenty."""
WEAK = 0.25
LEAST_WEIGHT = 3.0
START_VARIANCE = 0.25
WINSOR = 0.1
LAB_POOL = 0.05
STRATUM_POOL = 0.1
POOL_WEIGHT = 2.0

Side: TypeAlias = Literal["lab", "stratum"]


@dataclass(frozen=True, slots=True)
class LabFit:
    """Effects on the log-odds of failure.

    Attributes
    ----------
    base, lab_variance, stratum_variance
        mu, tau^2 and omega^2, ``[branches]``.
    log_odds, error
        b_l, shrunk, and its standard error, ``[labs]``; with 1.96 errors on either side its 95% interval. It is
        measured from the mean of the branch's labs: that all of them are severe shows nowhere.
    tested, failed, expected, variance
        Of each lab, ``[labs]``: items, failures, the failures that the same strata would have shown with its
        peers (their rates without this lab, other labs' effects taken off), and the variance of failed - expected
        if the lab is like its peers, over-dispersion and the peers' own uncertainty included.
    ratio
        failed / expected, ``[labs]``; NaN where nothing was tested.
    stratum_log_odds, stratum_error
        a_s, shrunk, and its standard error, ``[strata]``: the strata net of their labs.
    pair_log_odds, pair_variance
        Effect of each pair's lab without that pair's own rows, and its variance, ``[pairs]``.
    peer_log_odds
        What each pair's stratum would show with the lab's peers, ``[pairs]``: ``expected`` is made of it.
    to_peers
        b_l less the mean of the other labs' effects, ``[labs]``.
    separable
        ``[strata]``, 0 to 1: how much of the variance between labs is known, from other cells, of the labs that test
        this one. Near 0 its labs cannot be told from the cell.
    """

    base: FloatArray
    lab_variance: FloatArray
    stratum_variance: FloatArray
    log_odds: FloatArray
    error: FloatArray
    tested: FloatArray
    failed: FloatArray
    expected: FloatArray
    variance: FloatArray
    ratio: FloatArray
    stratum_log_odds: FloatArray
    stratum_error: FloatArray
    pair_log_odds: FloatArray
    pair_variance: FloatArray
    peer_log_odds: FloatArray
    to_peers: FloatArray
    separable: FloatArray


# --- The fit ------------------------------------------------------------------------------------------------


def fit_labs(
    rows: LabRows,
    *,
    use: npt.ArrayLike | None = None,
    lab_pool: float = LAB_POOL,
    stratum_pool: float = STRATUM_POOL,
    pool_weight: float = POOL_WEIGHT,
) -> LabFit:
    """Fit the effects of labs and strata in every branch.

    Parameters
    ----------
    rows
        From :func:`~detectors.lab_rows.lab_rows`.
    use
        Rows to learn from, ``[rows]`` of bool in the input's order; all by default. The arrays of the result keep
        the labs and strata of all rows.
    lab_pool, stratum_pool
        tau^2 and omega^2 expected beforehand: a branch's own estimates are shrunk toward them.
    pool_weight
        Labs (strata) that these count for. With 0 a branch stands on its own.

    Raises
    ------
    DetectorError
        If an option is negative or not finite, or `use` is not one bool a row.

    Examples
    --------
    Three labs test the same five cells; the third fails twice as much.

    >>> from detectors.lab_rows import lab_rows
    >>> lab, cell = np.repeat(np.arange(3), 5), np.tile(np.arange(5), 3)
    >>> fit = fit_labs(lab_rows(lab, cell, np.full(15, 400), np.repeat([40, 40, 80], 5)))
    >>> fit.ratio.round(2).tolist()
    [0.7, 0.7, 2.0]
    """
    if not (0.0 <= lab_pool < np.inf and 0.0 <= stratum_pool < np.inf and 0.0 <= pool_weight < np.inf):
        raise DetectorError("lab_pool, stratum_pool, pool_weight: must be finite and not negative")
    return _report(_mode(lab_pairs(only(rows, use)), lab_pool, stratum_pool, pool_weight))


def pair_effects(rows: LabRows) -> FloatArray:
    """The ``pair_log_odds`` of :func:`fit_labs`, ``[pairs]``, for those who need no more.

    Examples
    --------
    >>> from detectors.lab_rows import lab_rows
    >>> lab, cell = np.repeat(np.arange(3), 5), np.tile(np.arange(5), 3)
    >>> pair_effects(lab_rows(lab, cell, np.full(15, 400), np.repeat([40, 40, 80], 5))).round(1).tolist()[::5]
    [-0.3, -0.3, 0.5]
    """
    mode = _mode(lab_pairs(rows), LAB_POOL, STRATUM_POOL, POOL_WEIGHT)
    tau, omega = mode.tau2[mode.pairs.lab_branch], mode.omega2[mode.pairs.stratum_branch]
    return _left_out(mode.pairs, mode.at.terms, "lab", mode.at.b, tau, omega)[0]


def _mode(full: LabPairs, lab_pool: float, stratum_pool: float, pool_weight: float) -> _Mode:
    """The joint mode, and the variances."""
    pairs = full.tested_only()
    labs, strata = np.zeros(pairs.lab_branch.size), np.zeros(pairs.stratum_branch.size)
    floor = _least_log_odds(pairs.branch_sum(pairs.lab_tested))
    many_labs, many_strata = pairs.labs_at_work > 1, pairs.strata_at_work > 1
    tau2, omega2 = np.where(many_labs, START_VARIANCE, 0.0), np.where(many_strata, START_VARIANCE, 0.0)
    at = Effects.at(pairs, _common_rate(pairs), strata, labs)
    for _ in range(ROUNDS):
        at = climb(pairs, at, tau2, omega2, floor, tolerance=TOLERANCE)
        tau, omega = tau2[pairs.lab_branch], omega2[pairs.stratum_branch]
        strata_alone = _left_out(pairs, at.terms, "stratum", at.a, omega, tau)
        labs_alone = _left_out(pairs, at.terms, "lab", at.b, tau, omega)
        labs, of_labs = _apart(pairs, at.mu, at.b, "lab", *strata_alone, labs)
        strata, of_strata = _apart(pairs, at.mu, at.a, "stratum", *labs_alone, strata)
        tau2_next = _between(pairs.lab_branch, labs, of_labs, pairs.branches, lab_pool, pool_weight)
        omega2_next = _between(pairs.stratum_branch, strata, of_strata, pairs.branches, stratum_pool, pool_weight)
        tau2, omega2 = np.where(many_labs, tau2_next, 0.0), np.where(many_strata, omega2_next, 0.0)
    at = climb(pairs, at, tau2, omega2, floor, tolerance=LAST_TOLERANCE)
    return _Mode(full, at if pairs is full else Effects.at(full, at.mu, at.a, at.b), tau2, omega2)


def _common_rate(pairs: LabPairs) -> FloatArray:
    items, failures = pairs.branch_sum(pairs.lab_tested), pairs.branch_sum(pairs.lab_failed)
    return np.asarray(np.log(failures + 0.5) - np.log(items - failures + 0.5))


def _least_log_odds(items: FloatArray) -> FloatArray:
    """A quarter of a failure in all: no rate lower than that can be learned."""
    return np.asarray(np.log(0.25) - np.log(items + 0.25))


@dataclass(slots=True)
class _Mode:
    """The effects at the joint mode, with the terms of all pairs, those without tests too, and the variances."""

    pairs: LabPairs
    at: Effects
    tau2: FloatArray
    omega2: FloatArray


def _information(pairs: LabPairs, terms: Terms, of: Side, free: FloatArray) -> FloatArray:
    """What each pair tells of its lab (or stratum), the other one's effect unknown: v (1 - v / (V + 1 / free)), little
    where the stratum has no other lab (the lab no other stratum); `free` is the variance of that effect, ``[pairs]``.

    It is not negative, nor more than its sum by lab (stratum): as V is no less than v, for what is not negative never
    takes from a sum, however that is rounded.
    """
    v = terms.pair_info
    rest = pairs.at_strata(terms.stratum_info) if of == "lab" else pairs.at_labs(terms.lab_info)
    rest -= v
    told = free * rest
    told += 1.0
    told *= v
    # In place, for this is a good part of the time: 1 + free (rest + v).
    rest += v
    rest *= free
    rest += 1.0
    told /= rest
    return told


# --- Standardisation and variances --------------------------------------------------------------------------


def _left_out(
    pairs: LabPairs, terms: Terms, of: Side, effect: FloatArray, variance: FloatArray, nuisance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Effect of each pair's lab (or stratum) without the pair's own rows, and its variance, ``[pairs]``."""
    if of == "lab":
        at, score, own = pairs.at_labs, terms.lab, _information(pairs, terms, of, pairs.at_strata(nuisance))
        total = pairs.lab_sum(own)
    else:
        at, score, own = pairs.at_strata, terms.stratum, _information(pairs, terms, of, pairs.at_labs(nuisance))
        total = pairs.stratum_sum(own)
    # In place: 1 + free (total - own), and the step (free (score - that of the pair) - effect) / shrunk.
    free, here = at(variance), at(effect)
    shrunk = at(total)
    shrunk -= own
    shrunk *= free
    shrunk += 1.0
    step = at(score)
    step -= terms.pair
    step *= free
    step -= here
    step /= shrunk
    here += np.clip(step, -LARGEST_MOVE, LARGEST_MOVE, out=step)
    free /= shrunk
    return here, free


def _beside_others(
    pairs: LabPairs, mu: FloatArray, effect: FloatArray, of: Side, alone: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Log-odds of each pair without its lab (stratum), ``[pairs]``, and the mean effect of the other labs (strata),
    ``[groups]``: `alone` are the strata's (labs') effects without them, ``[pairs]``."""
    if of == "lab":
        at, branch, active, at_work = pairs.at_labs, pairs.lab_branch, pairs.lab_active, pairs.labs_at_work
    else:
        at, branch = pairs.at_strata, pairs.stratum_branch
        active, at_work = pairs.stratum_active, pairs.strata_at_work
    # The mean of the others' effects, where that of all is 0.
    others = -active * effect / np.maximum(at_work - 1.0, 1.0)[branch]
    base = at(mu[branch])
    base += alone
    base += at(others)
    return base, others


def _apart(
    pairs: LabPairs,
    mu: FloatArray,
    effect: FloatArray,
    of: Side,
    alone: FloatArray,
    unknown: FloatArray,
    start: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Labs (strata) against the others: log-odds against them, by Newton steps from `start` until none moves further,
    and 1 / its variance if there is none, ``[groups]``."""
    base, _ = _beside_others(pairs, mu, effect, of, alone)
    group = pairs.pair_lab if of == "lab" else pairs.pair_stratum
    left = _Ratios(base, pairs.weighted_tested, pairs.weighted_failed, group, effect.size)
    score, pair_info = left.terms(np.zeros(effect.size))
    info = left.sums(pair_info)
    spread = info + left.sums(pair_info**2 * unknown)
    known = np.divide(info**2, spread, out=np.zeros(effect.size), where=spread > 0)
    y, at, moving = start.copy(), np.arange(effect.size), np.ones(effect.size, np.bool_)
    for step in range(MOST_RATIO_STEPS):
        if step or start.any():  # else all stand at the others' rate, where the terms are known
            score, pair_info = left.terms(y[at])
            info = left.sums(pair_info)
        # All but unshrunk: a weak prior keeps none failed, all failed finite.
        move = np.clip((score - WEAK * y[at]) / (info + WEAK), -LARGEST_MOVE, LARGEST_MOVE)
        move[~moving] = 0.0
        y[at] += move
        moving = np.abs(move) > TOLERANCE
        if not moving.any():
            break
        if FEW * np.count_nonzero(moving) <= at.size:
            left, at, moving = left.only(moving), at[moving], moving[moving]
    return y, known


@dataclass(slots=True)
class _Ratios:
    """Pairs whose log-odds differ from a base by what their group has; arrays are ``[pairs]``."""

    base: FloatArray
    tested: FloatArray
    failed: FloatArray
    group: IntArray
    groups: int

    def terms(self, log_odds: FloatArray) -> tuple[FloatArray, FloatArray]:
        """At what every group has: residuals, ``[groups]``, and the information of the pairs."""
        there = log_odds[self.group]
        there += self.base
        residual, info = residuals(self.tested, self.failed, there)
        return self.sums(residual), info

    def sums(self, values: FloatArray) -> FloatArray:
        return group_sum(self.group, values, self.groups)

    def only(self, some: BoolArray) -> _Ratios:
        """Some groups, renumbered."""
        rows = some[self.group]
        number = np.cumsum(some) - 1
        base, tested, failed = (one[rows] for one in (self.base, self.tested, self.failed))
        return _Ratios(base, tested, failed, number[self.group[rows]], int(number[-1]) + 1)


def _between(
    branch: IntArray, log_odds: FloatArray, known: FloatArray, branches: int, pool: float, pool_weight: float
) -> FloatArray:
    """Variance between a branch's groups: DerSimonian and Laird's moments of winsorised z-scores, shrunk."""
    # Groups of a failure or two say next to nothing of the variance, but their skewed z-scores would bias it.
    w = np.where(known >= LEAST_WEIGHT, known, 0.0)
    square = winsorised_squares(branch, log_odds * np.sqrt(w), w > 0, branches)
    count = group_sum(branch, (w > 0).astype(np.float64), branches)
    weight, weight2 = group_sum(branch, w, branches), group_sum(branch, w * w, branches)
    room = weight - np.divide(weight2, weight, out=np.zeros(branches), where=weight > 0)
    # From the mean of the others a group differs by count / (count - 1) of its distance from the mean of all.
    mean_of_all = (np.maximum(count - 1.0, 0.0) / np.maximum(count, 1.0)) ** 2
    excess = np.maximum(square - (count - 1.0), 0.0) * mean_of_all
    own = np.divide(excess, room, out=np.zeros(branches), where=room > 1e-9 * np.maximum(weight, 1e-300))
    total = count + pool_weight
    return np.asarray(np.divide(count * own + pool_weight * pool, total, out=np.zeros(branches), where=total > 0))


def winsorised_squares(branch: IntArray, z: FloatArray, active: BoolArray, branches: int) -> FloatArray:
    """Sum of the squared z-scores of each branch, ``[branches]``, its outliers brought in.

    The lowest and the highest tenth become the next ones inside. That takes a third off the squares of a normal law,
    for which the sum is made up: without outliers it is on the scale of the plain one. Of under ten none moves.
    """
    rows = np.flatnonzero(active)
    order = rows[np.argsort(z[rows])]
    # Small numbers are sorted by their digits, which is much faster; ties in z are of no account.
    order = order[np.argsort(branch[order].astype(np.min_scalar_type(max(branches, 1))), kind="stable")]
    count = np.bincount(branch[rows], minlength=branches)
    first = np.cumsum(count) - count
    cut = np.floor(WINSOR * count).astype(np.int64)
    held = np.zeros(z.size)
    if rows.size:
        last = rows.size - 1
        low = z[order[np.minimum(first + cut, last)]][branch[rows]]
        high = z[order[np.clip(first + count - 1 - cut, 0, last)]][branch[rows]]
        held[rows] = np.clip(z[rows], low, high)
    share = cut / np.maximum(count, 1)
    bound = -special.ndtri(np.where(cut > 0, share, 0.5))
    density = np.exp(-bound * bound / 2.0) / np.sqrt(2.0 * np.pi)
    normal = np.where(cut > 0, 1.0 - 2.0 * share - 2.0 * bound * density + 2.0 * share * bound * bound, 1.0)
    return np.asarray(group_sum(branch, held * held, branches) / normal)


def _report(mode: _Mode) -> LabFit:
    pairs, mu, a, b, terms = mode.pairs, mode.at.mu, mode.at.a, mode.at.b, mode.at.terms
    tau2, omega2 = mode.tau2, mode.omega2
    tau, omega = tau2[pairs.lab_branch], omega2[pairs.stratum_branch]
    strata_alone, strata_unknown = _left_out(pairs, terms, "stratum", a, omega, tau)
    peers, others = _beside_others(pairs, mu, b, "lab", strata_alone)
    alone, unknown = _left_out(pairs, terms, "lab", b, tau, omega)
    p = special.expit(peers)
    expected = pairs.lab_sum(pairs.tested * p)
    variance = pairs.lab_sum(pairs.spread * p * (1.0 - p))
    variance += pairs.lab_sum((pairs.tested * p * (1.0 - p)) ** 2 * strata_unknown)
    prior = pairs.at_labs(tau)
    info = pairs.lab_sum(_information(pairs, terms, "lab", pairs.at_strata(omega)))
    stratum_info = pairs.stratum_sum(_information(pairs, terms, "stratum", prior))
    known = np.divide(prior - unknown, prior, out=np.zeros(prior.size), where=prior > 0)
    in_stratum, told = pairs.stratum_sum(pairs.tested), pairs.stratum_sum(known * pairs.tested)
    return LabFit(
        base=mu,
        lab_variance=tau2,
        stratum_variance=omega2,
        log_odds=b,
        error=np.sqrt(tau / (tau * info + 1.0)),
        tested=pairs.lab_tested,
        failed=pairs.lab_failed,
        expected=expected,
        variance=variance,
        ratio=np.divide(pairs.lab_failed, expected, out=np.full(b.size, np.nan), where=pairs.lab_tested > 0),
        stratum_log_odds=a,
        stratum_error=np.sqrt(omega / (omega * stratum_info + 1.0)),
        pair_log_odds=alone,
        pair_variance=unknown,
        peer_log_odds=peers,
        to_peers=b - others,
        separable=np.divide(told, in_stratum, out=np.zeros(a.size), where=in_stratum > 0),
    )
