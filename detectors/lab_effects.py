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
sorted first, sums run in that order within a branch, and the iterations are of a fixed number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray
from detectors.lab_pairs import LabPairs, lab_pairs
from detectors.lab_rows import LabRows, group_sum, only

__all__ = ["LabFit", "fit_labs", "pair_effects", "winsorised_squares"]

ROUNDS = 4
STEPS = 8
LAST_STEPS = 20
INNER_STEPS = 6
"""Iterations: rounds of `STEPS` with the variances held, each ending in new ones; then the last ones."""

DAMPING = 0.6
"""Of a lab's step, which leaves the other labs' simultaneous steps out of account: under 1 it cannot swing."""

RATIO_STEPS = 6
LARGEST_MOVE = 1.0
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
    return _left_out(mode.pairs, mode.terms, "lab", mode.b, tau, omega)[0]


def _mode(full: LabPairs, lab_pool: float, stratum_pool: float, pool_weight: float) -> _Mode:
    """The joint mode, and the variances."""
    pairs = full.tested_only()
    mu = _common_rate(pairs)
    floor = _least_log_odds(pairs.branch_sum(pairs.lab_tested))
    a, b = np.zeros(pairs.stratum_branch.size), np.zeros(pairs.lab_branch.size)
    many_labs, many_strata = pairs.labs_at_work > 1, pairs.strata_at_work > 1
    tau2, omega2 = np.where(many_labs, START_VARIANCE, 0.0), np.where(many_strata, START_VARIANCE, 0.0)
    terms = _terms(pairs, mu, a, b)
    for _ in range(ROUNDS):
        terms, mu, a, b = _iterate(pairs, terms, mu, a, b, tau2, omega2, floor, STEPS)
        tau, omega = tau2[pairs.lab_branch], omega2[pairs.stratum_branch]
        labs_apart = _apart(pairs, mu, b, "lab", *_left_out(pairs, terms, "stratum", a, omega, tau))
        strata_apart = _apart(pairs, mu, a, "stratum", *_left_out(pairs, terms, "lab", b, tau, omega))
        tau2_next = _between(pairs.lab_branch, labs_apart, pairs.branches, lab_pool, pool_weight)
        omega2_next = _between(pairs.stratum_branch, strata_apart, pairs.branches, stratum_pool, pool_weight)
        tau2, omega2 = np.where(many_labs, tau2_next, 0.0), np.where(many_strata, omega2_next, 0.0)
    terms, mu, a, b = _iterate(pairs, terms, mu, a, b, tau2, omega2, floor, LAST_STEPS)
    return _Mode(full, terms if pairs is full else _terms(full, mu, a, b), mu, a, b, tau2, omega2)


def _common_rate(pairs: LabPairs) -> FloatArray:
    items, failures = pairs.branch_sum(pairs.lab_tested), pairs.branch_sum(pairs.lab_failed)
    return np.asarray(np.log(failures + 0.5) - np.log(items - failures + 0.5))


def _least_log_odds(items: FloatArray) -> FloatArray:
    """A quarter of a failure in all: no rate lower than that can be learned."""
    return np.asarray(np.log(0.25) - np.log(items + 0.25))


@dataclass(slots=True)
class _Terms:
    """Weighted residuals and information of the pairs at the current effects, and their sums by group."""

    pair: FloatArray
    pair_info: FloatArray
    lab: FloatArray
    lab_info: FloatArray
    stratum: FloatArray
    stratum_info: FloatArray


@dataclass(slots=True)
class _Mode:
    """mu, a and b at the joint mode, the variances, and the terms of all pairs, those without tests too."""

    pairs: LabPairs
    terms: _Terms
    mu: FloatArray
    a: FloatArray
    b: FloatArray
    tau2: FloatArray
    omega2: FloatArray


def _terms(pairs: LabPairs, mu: FloatArray, a: FloatArray, b: FloatArray) -> _Terms:
    p = pairs.at_strata(mu[pairs.stratum_branch] + a)
    p += pairs.at_labs(b)
    special.expit(p, out=p)
    info = pairs.weighted_tested * p
    pair = pairs.weighted_failed - info
    info *= np.subtract(1.0, p, out=p)
    return _Terms(
        pair=pair,
        pair_info=info,
        lab=pairs.lab_sum(pair),
        lab_info=pairs.lab_sum(info),
        stratum=pairs.stratum_sum(pair),
        stratum_info=pairs.stratum_sum(info),
    )


def _iterate(
    pairs: LabPairs,
    terms: _Terms,
    mu: FloatArray,
    a: FloatArray,
    b: FloatArray,
    tau2: FloatArray,
    omega2: FloatArray,
    floor: FloatArray,
    steps: int,
) -> tuple[_Terms, FloatArray, FloatArray, FloatArray]:
    """Newton steps for both effects at once; then the means of both go into mu: at the mode they are 0.

    The strata are eliminated exactly; what then couples the labs is solved by damped Jacobi steps. `terms` are those of
    the effects, before and after.
    """
    omega, tau = omega2[pairs.stratum_branch], tau2[pairs.lab_branch]
    free = pairs.at_strata(omega)
    for _ in range(steps):
        shrunk = omega * terms.stratum_info + 1.0
        alone, first = omega / shrunk, (omega * terms.stratum - a) / shrunk
        to_labs, to_strata = pairs.couplings(terms.pair_info)
        wanted = terms.lab - to_labs @ first
        known = tau * pairs.lab_sum(_information(pairs, terms, "lab", free)) + 1.0
        up = DAMPING * (tau * wanted - b) / known
        down = alone * (to_strata @ up)
        for _ in range(INNER_STEPS - 1):
            # up + DAMPING (tau (wanted - coupled) - b - up) / known, in place: it is done hundreds of times.
            move = terms.lab_info * up
            move -= to_labs @ down
            np.subtract(wanted, move, out=move)
            move *= tau
            move -= b
            move -= up
            move *= DAMPING
            move /= known
            up += move
            down = alone * (to_strata @ up)
        a = a + np.clip(first - down, -LARGEST_MOVE, LARGEST_MOVE)
        b = b + np.clip(up, -LARGEST_MOVE, LARGEST_MOVE)
        mu, a = _centre(mu, a, pairs.stratum_branch, pairs.stratum_active, pairs.strata_at_work, floor)
        mu, b = _centre(mu, b, pairs.lab_branch, pairs.lab_active, pairs.labs_at_work, floor)
        terms = _terms(pairs, mu, a, b)
    return terms, mu, a, b


def _information(pairs: LabPairs, terms: _Terms, of: Side, free: FloatArray) -> FloatArray:
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


def _centre(
    mu: FloatArray, effect: FloatArray, branch: IntArray, active: FloatArray, at_work: FloatArray, floor: FloatArray
) -> tuple[FloatArray, FloatArray]:
    mean = group_sum(branch, effect * active, mu.size) / np.maximum(at_work, 1.0)
    moved = np.clip(mu + mean, floor, -floor)
    return moved, effect - active * (moved - mu)[branch]


# --- Standardisation and variances --------------------------------------------------------------------------


def _left_out(
    pairs: LabPairs, terms: _Terms, of: Side, effect: FloatArray, variance: FloatArray, nuisance: FloatArray
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
    pairs: LabPairs, mu: FloatArray, effect: FloatArray, of: Side, alone: FloatArray, unknown: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Labs (strata) against the others: log-odds against them, and 1 / its variance if there is none, ``[groups]``."""
    base, _ = _beside_others(pairs, mu, effect, of, alone)
    at, add = (pairs.at_labs, pairs.lab_sum) if of == "lab" else (pairs.at_strata, pairs.stratum_sum)
    known, y = np.zeros(effect.size), np.zeros(effect.size)
    for step in range(RATIO_STEPS):
        p = at(y)
        p += base
        special.expit(p, out=p)
        pair_info = pairs.weighted_tested * p
        score = add(pairs.weighted_failed - pair_info)
        pair_info *= np.subtract(1.0, p, out=p)
        info = add(pair_info)
        if not step:  # still at the others' rate
            spread = info + add(pair_info**2 * unknown)
            np.divide(info**2, spread, out=known, where=spread > 0)
        # All but unshrunk: a weak prior keeps none failed, all failed finite.
        y = y + np.clip((score - WEAK * y) / (info + WEAK), -LARGEST_MOVE, LARGEST_MOVE)
    return y, known


def _between(
    branch: IntArray, apart: tuple[FloatArray, FloatArray], branches: int, pool: float, pool_weight: float
) -> FloatArray:
    """Variance between a branch's groups: DerSimonian and Laird's moments of winsorised z-scores, shrunk."""
    log_odds, known = apart
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
    pairs, terms, mu, a, b = mode.pairs, mode.terms, mode.mu, mode.a, mode.b
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
