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
from detectors.lab_rows import LabRows, group_sum, only

__all__ = ["LabFit", "fit_labs", "winsorised_squares"]

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


@dataclass(slots=True)
class _Terms:
    """Weighted residuals and information of the rows at the current effects, summed by group."""

    row: FloatArray
    info: FloatArray
    pair: FloatArray
    pair_info: FloatArray
    lab: FloatArray
    lab_info: FloatArray
    stratum: FloatArray
    stratum_info: FloatArray


def fit_labs(
    rows: LabRows,
    *,
    use: npt.ArrayLike | None = None,
    lab_pool: float = 0.05,
    stratum_pool: float = 0.1,
    pool_weight: float = 2.0,
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
    rows = only(rows, use)
    labs, strata, branches = rows.lab.size, rows.stratum.size, rows.branch.size
    weight = 1.0 / (1.0 + np.maximum(rows.tested - 1.0, 0.0) * rows.rho)
    mu = _common_rate(rows)
    floor = _least_log_odds(group_sum(rows.branch_of, rows.tested, branches))
    a, b = np.zeros(strata), np.zeros(labs)
    many_labs = group_sum(rows.lab_branch, _active(rows.lab_of, rows, labs), branches) > 1
    many_strata = group_sum(rows.stratum_branch, _active(rows.stratum_of, rows, strata), branches) > 1
    tau2, omega2 = np.where(many_labs, START_VARIANCE, 0.0), np.where(many_strata, START_VARIANCE, 0.0)
    for _ in range(ROUNDS):
        mu, a, b = _iterate(rows, weight, mu, a, b, tau2, omega2, floor, STEPS)
        terms = _terms(rows, weight, mu, a, b)
        tau, omega = tau2[rows.lab_branch], omega2[rows.stratum_branch]
        alone, unknown = _left_out(rows, terms, "stratum", a, omega, tau)
        labs_apart = _against(rows, weight, mu, b, "lab", alone, unknown)
        alone, unknown = _left_out(rows, terms, "lab", b, tau, omega)
        strata_apart = _against(rows, weight, mu, a, "stratum", alone, unknown)
        tau2_next = _between(rows.lab_branch, labs_apart, branches, lab_pool, pool_weight)
        omega2_next = _between(rows.stratum_branch, strata_apart, branches, stratum_pool, pool_weight)
        tau2, omega2 = np.where(many_labs, tau2_next, 0.0), np.where(many_strata, omega2_next, 0.0)
    mu, a, b = _iterate(rows, weight, mu, a, b, tau2, omega2, floor, LAST_STEPS)
    return _report(rows, weight, mu, a, b, tau2, omega2)


def _active(groups: IntArray, rows: LabRows, count: int) -> FloatArray:
    return (group_sum(groups, rows.tested, count) > 0).astype(np.float64)


def _common_rate(rows: LabRows) -> FloatArray:
    items = group_sum(rows.branch_of, rows.tested, rows.branch.size)
    failures = group_sum(rows.branch_of, rows.failed, rows.branch.size)
    return np.asarray(np.log(failures + 0.5) - np.log(items - failures + 0.5))


def _least_log_odds(items: FloatArray) -> FloatArray:
    """A quarter of a failure in all: no rate lower than that can be learned."""
    return np.asarray(np.log(0.25) - np.log(items + 0.25))


def _terms(rows: LabRows, weight: FloatArray, mu: FloatArray, a: FloatArray, b: FloatArray) -> _Terms:
    p = special.expit(mu[rows.branch_of] + a[rows.stratum_of] + b[rows.lab_of])
    row = weight * (rows.failed - rows.tested * p)
    info = weight * rows.tested * p * (1.0 - p)
    pairs, labs, strata = rows.pair_lab.size, rows.lab.size, rows.stratum.size
    return _Terms(
        row=row,
        info=info,
        pair=group_sum(rows.pair_of, row, pairs),
        pair_info=group_sum(rows.pair_of, info, pairs),
        lab=group_sum(rows.lab_of, row, labs),
        lab_info=group_sum(rows.lab_of, info, labs),
        stratum=group_sum(rows.stratum_of, row, strata),
        stratum_info=group_sum(rows.stratum_of, info, strata),
    )


def _iterate(
    rows: LabRows,
    weight: FloatArray,
    mu: FloatArray,
    a: FloatArray,
    b: FloatArray,
    tau2: FloatArray,
    omega2: FloatArray,
    floor: FloatArray,
    steps: int,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Newton steps for both effects at once; then the means of both go into mu: at the mode they are 0.

    The strata are eliminated exactly; what then couples the labs is solved by damped Jacobi steps.
    """
    omega, tau = omega2[rows.stratum_branch], tau2[rows.lab_branch]
    for _ in range(steps):
        terms = _terms(rows, weight, mu, a, b)
        alone = omega / (omega * terms.stratum_info + 1.0)
        first = (omega * terms.stratum - a) / (omega * terms.stratum_info + 1.0)
        wanted = terms.lab - group_sum(rows.pair_lab, terms.pair_info * first[rows.pair_stratum], b.size)
        known = group_sum(rows.pair_lab, _information(rows, terms, "lab", omega), b.size)
        down, up = np.zeros(a.size), np.zeros(b.size)
        for _ in range(INNER_STEPS):
            coupled = terms.lab_info * up - group_sum(rows.pair_lab, terms.pair_info * down[rows.pair_stratum], b.size)
            up = up + DAMPING * (tau * (wanted - coupled) - b - up) / (tau * known + 1.0)
            down = alone * group_sum(rows.pair_stratum, terms.pair_info * up[rows.pair_lab], a.size)
        a = a + np.clip(first - down, -LARGEST_MOVE, LARGEST_MOVE)
        b = b + np.clip(up, -LARGEST_MOVE, LARGEST_MOVE)
        mu, a = _centre(mu, a, rows.stratum_branch, _active(rows.stratum_of, rows, a.size), floor)
        mu, b = _centre(mu, b, rows.lab_branch, _active(rows.lab_of, rows, b.size), floor)
    return mu, a, b


def _information(rows: LabRows, terms: _Terms, of: Side, variance: FloatArray) -> FloatArray:
    """What each pair tells of its lab (or stratum), the other one's effect unknown: v (1 - v / (V + 1 / variance)),
    little where the stratum has no other lab (the lab no other stratum)."""
    total, other = (terms.stratum_info, rows.pair_stratum) if of == "lab" else (terms.lab_info, rows.pair_lab)
    v, free = terms.pair_info, variance[other]
    rest = np.maximum(total[other] - v, 0.0)
    return np.asarray(v * (1.0 + free * rest) / (1.0 + free * (rest + v)))


def _centre(
    mu: FloatArray, effect: FloatArray, branch: IntArray, active: FloatArray, floor: FloatArray
) -> tuple[FloatArray, FloatArray]:
    mean = group_sum(branch, effect * active, mu.size) / np.maximum(group_sum(branch, active, mu.size), 1.0)
    moved = np.clip(mu + mean, floor, -floor)
    return moved, effect - active * (moved - mu)[branch]


# --- Standardisation and variances --------------------------------------------------------------------------


def _left_out(
    rows: LabRows, terms: _Terms, of: Side, effect: FloatArray, variance: FloatArray, nuisance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Effect of each pair's lab (or stratum) without the pair's own rows, and its variance, ``[pairs]``."""
    index, score = (rows.pair_lab, terms.lab) if of == "lab" else (rows.pair_stratum, terms.stratum)
    own = _information(rows, terms, of, nuisance)
    rest = np.maximum(group_sum(index, own, effect.size)[index] - own, 0.0)
    free = variance[index]
    step = (free * (score[index] - terms.pair) - effect[index]) / (free * rest + 1.0)
    moved = effect[index] + np.clip(step, -LARGEST_MOVE, LARGEST_MOVE)
    return moved, np.asarray(free / (free * rest + 1.0))


@dataclass(slots=True)
class _Apart:
    """Groups (labs or strata) against what is expected without them, ``[groups]``."""

    log_odds: FloatArray  # against the others
    weight: FloatArray  # 1 / its variance if there is none
    expected: FloatArray
    variance: FloatArray  # of failed - expected if there is none
    base: FloatArray  # [pairs] log-odds without the group
    others: FloatArray  # mean effect of the other groups


def _against(
    rows: LabRows,
    weight: FloatArray,
    mu: FloatArray,
    effect: FloatArray,
    of: Side,
    alone: FloatArray,
    unknown: FloatArray,
) -> _Apart:
    """Hold labs (strata) against the others: `alone` are the strata's (labs') effects without them, ``[pairs]``."""
    if of == "lab":
        group_of, pair_group, branch = rows.lab_of, rows.pair_lab, rows.lab_branch
    else:
        group_of, pair_group, branch = rows.stratum_of, rows.pair_stratum, rows.stratum_branch
    count = effect.size
    active = _active(group_of, rows, count)
    # The mean of the others' effects, where that of all is 0.
    others = -active * effect / np.maximum(group_sum(branch, active, mu.size) - 1.0, 1.0)[branch]
    by_pair = mu[branch[pair_group]] + alone + others[pair_group]
    base = by_pair[rows.pair_of]
    p = special.expit(base)
    plain = rows.tested * p * (1.0 - p)
    info = group_sum(group_of, weight * plain, count)
    pair_info = group_sum(rows.pair_of, weight * plain, unknown.size)
    spread = info + group_sum(pair_group, pair_info**2 * unknown, count)
    pair_plain = group_sum(rows.pair_of, plain, unknown.size)
    return _Apart(
        log_odds=_solved(rows, weight, base, group_of, count),
        weight=np.divide(info**2, spread, out=np.zeros(count), where=spread > 0),
        expected=group_sum(group_of, rows.tested * p, count),
        variance=group_sum(group_of, plain / weight, count) + group_sum(pair_group, pair_plain**2 * unknown, count),
        base=by_pair,
        others=others,
    )


def _solved(rows: LabRows, weight: FloatArray, base: FloatArray, group_of: IntArray, count: int) -> FloatArray:
    """Log-odds ratio of each group to its base, all but unshrunk: a weak prior keeps none failed, all failed finite."""
    y = np.zeros(count)
    for _ in range(RATIO_STEPS):
        p = special.expit(base + y[group_of])
        score = group_sum(group_of, weight * (rows.failed - rows.tested * p), count)
        info = group_sum(group_of, weight * rows.tested * p * (1.0 - p), count)
        y = y + np.clip((score - WEAK * y) / (info + WEAK), -LARGEST_MOVE, LARGEST_MOVE)
    return y


def _between(branch: IntArray, apart: _Apart, branches: int, pool: float, pool_weight: float) -> FloatArray:
    """Variance between a branch's groups: DerSimonian and Laird's moments of winsorised z-scores, shrunk."""
    # Groups of a failure or two say next to nothing of the variance, but their skewed z-scores would bias it.
    w = np.where(apart.weight >= LEAST_WEIGHT, apart.weight, 0.0)
    square = winsorised_squares(branch, apart.log_odds * np.sqrt(w), w > 0, branches)
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
    order = rows[np.lexsort((z[rows], branch[rows]))]
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


def _report(
    rows: LabRows,
    weight: FloatArray,
    mu: FloatArray,
    a: FloatArray,
    b: FloatArray,
    tau2: FloatArray,
    omega2: FloatArray,
) -> LabFit:
    terms = _terms(rows, weight, mu, a, b)
    tau, omega = tau2[rows.lab_branch], omega2[rows.stratum_branch]
    strata_alone, strata_unknown = _left_out(rows, terms, "stratum", a, omega, tau)
    apart = _against(rows, weight, mu, b, "lab", strata_alone, strata_unknown)
    alone, unknown = _left_out(rows, terms, "lab", b, tau, omega)
    info = group_sum(rows.pair_lab, _information(rows, terms, "lab", omega), b.size)
    stratum_info = group_sum(rows.pair_stratum, _information(rows, terms, "stratum", tau), a.size)
    tested, failed = group_sum(rows.lab_of, rows.tested, b.size), group_sum(rows.lab_of, rows.failed, b.size)
    prior = tau[rows.pair_lab]
    known = np.divide(prior - unknown, prior, out=np.zeros(prior.size), where=prior > 0)
    in_stratum = group_sum(rows.stratum_of, rows.tested, a.size)
    told = group_sum(rows.pair_stratum, known * group_sum(rows.pair_of, rows.tested, prior.size), a.size)
    return LabFit(
        base=mu,
        lab_variance=tau2,
        stratum_variance=omega2,
        log_odds=b,
        error=np.sqrt(tau / (tau * info + 1.0)),
        tested=tested,
        failed=failed,
        expected=apart.expected,
        variance=apart.variance,
        ratio=np.divide(failed, apart.expected, out=np.full(b.size, np.nan), where=tested > 0),
        stratum_log_odds=a,
        stratum_error=np.sqrt(omega / (omega * stratum_info + 1.0)),
        pair_log_odds=alone,
        pair_variance=unknown,
        peer_log_odds=apart.base,
        to_peers=b - apart.others,
        separable=np.divide(told, in_stratum, out=np.zeros(a.size), where=in_stratum > 0),
    )
