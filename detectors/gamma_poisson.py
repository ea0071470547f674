"""The law of cell counts in a large sparse table: Poisson cells whose rates come from two gamma laws.

DuMouchel (1999), "Bayesian data mining in large frequency tables, with an application to the FDA spontaneous
reporting system", *The American Statistician* 53, 177-190. A cell with E events expected under independence
has N ~ Poisson(lambda E), where lambda is drawn from a mixture::

    lambda ~ w Gamma(alpha1, rate beta1) + (1 - w) Gamma(alpha2, rate beta2)
    f(n; alpha, beta, E) = Gamma(alpha + n) / (Gamma(alpha) n!) (E / (beta + E))^n (beta / (beta + E))^alpha

A table of reports lists only the pairs that were ever reported, so the mixture is fitted to the cells with
N > 0 by the zero-truncated likelihood ``w f1 / (1 - f1(0)) + (1 - w) f2 / (1 - f2(0))`` (DuMouchel and
Pregibon 2001, "Empirical Bayes screening for multi-item associations", *KDD-2001*, 67-76); w is thus the
share of component 1 among cells with events. Given N, lambda is again a mixture of two gammas, with
Gamma(alpha + N, beta + E) and the weights ``w f1 : (1 - w) f2``.

Only :func:`fit_mixture` looks at all cells together; its answer, a :class:`GammaMixture`, is an argument to
everything else, so a cell's score hangs on that cell and the mixture alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from detectors.errors import DetectorError
from detectors.evidence import FloatArray, IntArray, as_counts, as_parameter, check_fraction

__all__ = [
    "GammaMixture",
    "MixtureFit",
    "as_cells",
    "fit_mixture",
    "log_likelihood",
    "ordinary_tail",
    "posterior_geometric_mean",
    "posterior_quantile",
    "posterior_weight",
]

LEAST_CELLS = 50
"""Non-zero cells under which five parameters are not fitted."""

SEARCH = 12.0
"""Half-width of the search box: log alpha, log beta and logit w lie within it, and so the optimum exists."""

FIT_TOLERANCE = 1e-14
"""Relative gain of log-likelihood under which the search ends."""

FAR = 700.0
"""An exponent beyond which exp overflows; its reciprocal is 0 for any purpose here."""

SMALLEST_RATE = 1e-300
TOLERANCE = 1e-13
MAX_STEPS = 250
NEWTON_FIRST = 12


@dataclass(frozen=True, slots=True)
class GammaMixture:
    """Two gamma laws of the relative rate lambda; component 1 is the one with the larger mean.

    Attributes
    ----------
    alpha1, beta1, alpha2, beta2
        Shapes and rates (per expected event), above 0; the means are alpha / beta.
    weight
        Share of component 1, strictly between 0 and 1.

    Raises
    ------
    DetectorError
        If a parameter is out of range.
    """

    alpha1: float
    beta1: float
    alpha2: float
    beta2: float
    weight: float

    def __post_init__(self) -> None:
        if not all(0.0 < value < math.inf for value in (self.alpha1, self.beta1, self.alpha2, self.beta2)):
            raise DetectorError("theta: shapes and rates must be finite and above 0")
        check_fraction(self.weight, "theta: weight")


STARTS = (
    GammaMixture(0.2, 0.1, 2.0, 4.0, 1 / 3),  # DuMouchel 1999, section 3
    GammaMixture(2.0, 0.5, 2.0, 2.0, 0.1),
    GammaMixture(0.5, 0.05, 10.0, 10.0, 0.05),
)
"""Where the search begins: a wide first component, a moderate one, and one far out over a narrow rest.

The likelihood may have several tops of almost one height (FDA CAERS has one 0.27 above the top that these starts,
and openEBGM, find; 127 of 131 signals are the same). Starts like DuMouchel's keep the answer a comparable one.
"""


@dataclass(frozen=True, slots=True)
class MixtureFit:
    """What :func:`fit_mixture` found.

    Attributes
    ----------
    theta
        The mixture.
    log_likelihood
        Zero-truncated log-likelihood at `theta`; NaN where not defined.
    cells
        Non-zero cells that it was fitted to.
    defined
        False with under 50 cells, or if no search ended: `theta` is then what the search began with.
    """

    theta: GammaMixture
    log_likelihood: float
    cells: int
    defined: bool


# --- Fitting ------------------------------------------------------------------------------------------------


def fit_mixture(n: npt.ArrayLike, expected: npt.ArrayLike, *, start: GammaMixture | None = None) -> MixtureFit:
    """Fit the mixture to the non-zero cells by maximum likelihood.

    Equal cells are counted once, with their number as weight, and in sorted order, so neither the order of
    the cells nor their repetition touches the result. The optimiser's last digits may differ from machine to
    machine: keep a fitted theta with the state it scores, rather than fit it again in a replay.

    Parameters
    ----------
    n
        Events in each cell, ``[cells]``. Cells with 0 are left out.
    expected
        Events expected under independence, ``[cells]``, not negative. Cells with 0 are left out.
    start
        An earlier theta to begin with; the stated starts are then not all tried again, only DuMouchel's.

    Raises
    ------
    DetectorError
        If the counts are no counts, or the shapes differ.
    """
    count, mean = as_cells(n, expected)
    some = (count > 0) & (mean > 0)
    cells, weight = np.unique(np.stack([count[some], mean[some]], axis=1), axis=0, return_counts=True)
    table = _Table.of(cells[:, 0], cells[:, 1], weight.astype(np.float64))
    starts = STARTS if start is None else (start, STARTS[0])
    if some.sum() < LEAST_CELLS:
        return MixtureFit(starts[0], math.nan, int(some.sum()), False)
    best: tuple[float, FloatArray] | None = None
    for theta in starts:
        found = optimize.minimize(
            _objective,
            _to_search(theta),
            args=(table,),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-SEARCH, SEARCH)] * 5,
            options={"maxiter": 300, "ftol": FIT_TOLERANCE, "gtol": 1e-6},
        )
        if np.isfinite(found.fun) and (best is None or found.fun < best[0]):
            best = float(found.fun), found.x
    if best is None:
        return MixtureFit(starts[0], math.nan, int(some.sum()), False)
    theta = _from_search(best[1])
    return MixtureFit(theta, log_likelihood(count, mean, theta), int(some.sum()), True)


def log_likelihood(n: npt.ArrayLike, expected: npt.ArrayLike, theta: GammaMixture) -> float:
    """Zero-truncated log-likelihood of the cells with events; 0 if there are none."""
    count, mean = as_cells(n, expected)
    some = (count > 0) & (mean > 0)
    table = _Table.of(count[some], mean[some], np.ones(int(some.sum())))
    return math.fsum(_log_mixture(table, theta)[0])


@dataclass(frozen=True, slots=True)
class _Table:
    """Cells to fit to, and what does not change with theta; few counts differ, so gammas are of those alone."""

    n: FloatArray
    expected: FloatArray
    weight: FloatArray
    counts: FloatArray
    which: IntArray
    log_factorial: FloatArray
    log_expected: FloatArray

    @classmethod
    def of(cls, n: FloatArray, expected: FloatArray, weight: FloatArray) -> _Table:
        counts, which = np.unique(n, return_inverse=True)
        return cls(n, expected, weight, counts, which, special.gammaln(n + 1.0), np.log(expected))


def _objective(at: FloatArray, table: _Table) -> tuple[float, FloatArray]:
    """Minus log-likelihood and its gradient in (log alpha1, log beta1, log alpha2, log beta2, logit w)."""
    theta = _from_search(at, ordered=False)
    log_f, share = _log_mixture(table, theta)
    first, second = table.weight * share, table.weight * (1.0 - share)
    gradient = [
        *_component_gradient(table, theta.alpha1, theta.beta1, first),
        *_component_gradient(table, theta.alpha2, theta.beta2, second),
        float((table.weight * (share - theta.weight)).sum()),
    ]
    return -float((table.weight * log_f).sum()), -np.array(gradient)


def _log_mixture(table: _Table, theta: GammaMixture) -> tuple[FloatArray, FloatArray]:
    """Log of the truncated mixture in each cell, and the share of it that is component 1's."""
    one = math.log(theta.weight) + _log_truncated(table, theta.alpha1, theta.beta1)
    two = math.log1p(-theta.weight) + _log_truncated(table, theta.alpha2, theta.beta2)
    return np.logaddexp(one, two), special.expit(one - two)


def _log_truncated(table: _Table, alpha: float, beta: float) -> FloatArray:
    """log f(n) - log(1 - f(0)), ``[cells]``."""
    zero = alpha * np.log1p(table.expected / beta)  # -log f(0)
    odds = table.n * (table.log_expected - np.log(beta + table.expected))
    rising = (special.gammaln(alpha + table.counts) - special.gammaln(alpha))[table.which]
    return np.asarray(rising - table.log_factorial + odds - zero - np.log(-np.expm1(-zero)))


def _component_gradient(table: _Table, alpha: float, beta: float, weight: FloatArray) -> tuple[float, float]:
    """Weighted sums of d/d log alpha and d/d log beta of :func:`_log_truncated`."""
    n, mean = table.n, table.expected
    exposure = np.log1p(mean / beta)
    over_zero = 1.0 / np.expm1(np.minimum(alpha * exposure, FAR))  # f(0) / (1 - f(0))
    rising = (special.digamma(alpha + table.counts) - special.digamma(alpha))[table.which]
    by_alpha = rising - exposure * (1.0 + over_zero)
    by_beta = (alpha * mean / beta * (1.0 + over_zero) - n) / (beta + mean)
    return alpha * float((weight * by_alpha).sum()), beta * float((weight * by_beta).sum())


def _to_search(theta: GammaMixture) -> FloatArray:
    logs = np.log([theta.alpha1, theta.beta1, theta.alpha2, theta.beta2])
    return np.asarray(np.clip(np.append(logs, special.logit(theta.weight)), -SEARCH, SEARCH))


def _from_search(at: FloatArray, *, ordered: bool = True) -> GammaMixture:
    a1, b1, a2, b2 = (math.exp(value) for value in at[:4])
    weight = float(special.expit(at[4]))
    if ordered and a1 / b1 < a2 / b2:
        return GammaMixture(a2, b2, a1, b1, 1.0 - weight)
    return GammaMixture(a1, b1, a2, b2, weight)


# --- One cell, given the mixture ----------------------------------------------------------------------------


def as_cells(n: npt.ArrayLike, expected: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Check counts ``[cells]`` and their expectations, one or ``[cells]``, not negative and finite."""
    count = as_counts(n, "n", ndim=1)
    mean = as_parameter(expected, "expected", count.shape, low=0.0, high=np.finfo(np.float64).max, open_ends=False)
    return count, mean


def posterior_weight(n: FloatArray, expected: FloatArray, theta: GammaMixture) -> FloatArray:
    """Probability that each cell's rate came from component 1, ``[cells]``.

    E^n and n! cancel between the components, so a cell with next to nothing expected keeps its digits.
    """
    one = _log_marginal(n, expected, theta.alpha1, theta.beta1)
    two = _log_marginal(n, expected, theta.alpha2, theta.beta2)
    return np.asarray(special.expit(one - two + special.logit(theta.weight)))


def _log_marginal(n: FloatArray, expected: FloatArray, alpha: float, beta: float) -> FloatArray:
    """log f(n) without the terms that all components share."""
    rising = special.gammaln(alpha + n) - special.gammaln(alpha)
    return np.asarray(rising - n * np.log(beta + expected) - alpha * np.log1p(expected / beta))


def posterior_geometric_mean(n: FloatArray, expected: FloatArray, theta: GammaMixture) -> FloatArray:
    """exp(E[log lambda | N]), DuMouchel's EBGM, ``[cells]``."""
    share = posterior_weight(n, expected, theta)
    one = special.digamma(theta.alpha1 + n) - np.log(theta.beta1 + expected)
    two = special.digamma(theta.alpha2 + n) - np.log(theta.beta2 + expected)
    return np.asarray(np.exp(share * one + (1.0 - share) * two))


def posterior_quantile(n: FloatArray, expected: FloatArray, theta: GammaMixture, level: float) -> FloatArray:
    """Quantile of lambda given N, ``[cells]``; EB05 is at level 0.05.

    The root lies between the quantiles of the two components. Newton's method within that bracket, with
    halvings of it on the log scale, until a step is below 1e-13 of the value.

    Examples
    --------
    >>> theta = GammaMixture(3.25595, 0.399988, 2.02375, 1.90613, 0.0653075)
    >>> posterior_quantile(np.array([16.0]), np.array([0.406436]), theta, 0.05).round(4).tolist()
    [15.6859]
    """
    check_fraction(level, "level")
    share = posterior_weight(n, expected, theta)
    shapes = theta.alpha1 + n, theta.alpha2 + n
    rates = theta.beta1 + expected, theta.beta2 + expected
    ends = [special.gammaincinv(shape, level) / rate for shape, rate in zip(shapes, rates, strict=True)]
    low, high = (np.maximum(end, SMALLEST_RATE) for end in (np.minimum(*ends), np.maximum(*ends)))
    at: FloatArray = np.clip(share * ends[0] + (1.0 - share) * ends[1], low, high)
    todo = np.flatnonzero(high - low > TOLERANCE * high)
    for step in range(MAX_STEPS):
        if todo.size == 0:
            break
        x = at[todo]
        excess, density = _posterior_cdf(x, share[todo], [s[todo] for s in shapes], [r[todo] for r in rates])
        excess -= level
        low[todo] = np.where(excess <= 0, x, low[todo])
        high[todo] = np.where(excess >= 0, x, high[todo])
        newton = x - np.divide(excess, density, out=np.full_like(x, np.inf), where=density > SMALLEST_RATE)
        inside = (newton >= low[todo]) & (newton <= high[todo])
        # Far out Newton may creep along one side; every other step then halves the bracket.
        inside &= step < NEWTON_FIRST or step % 2 == 0
        at[todo] = np.where(inside, newton, np.sqrt(low[todo]) * np.sqrt(high[todo]))
        moved = np.where(inside, np.abs(at[todo] - x), high[todo] - low[todo])
        todo = todo[moved > TOLERANCE * at[todo]]
    return at


def _posterior_cdf(
    x: FloatArray, share: FloatArray, shapes: list[FloatArray], rates: list[FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """P(lambda <= x | N) and its derivative, ``[cells]``."""
    total, density = np.zeros_like(x), np.zeros_like(x)
    for part, shape, rate in zip((share, 1.0 - share), shapes, rates, strict=True):
        scaled = rate * x
        total += part * special.gammainc(shape, scaled)
        log_density = special.xlogy(shape, scaled) - scaled - special.gammaln(shape) - np.log(x)
        density += part * np.exp(np.minimum(log_density, FAR))
    return total, density


def ordinary_tail(n: FloatArray, expected: FloatArray, theta: GammaMixture) -> FloatArray:
    """P(N' >= n | N' >= 1) for a cell of the ordinary kind, ``[cells]``: the p-value of a new pair.

    The law is that of the component with the larger weight: gamma rates around independence, wider than the
    Poisson law by as much as the ordinary cells of the table really vary. If its mean is under 1 it is scaled
    up to 1, since a pair that is as frequent as independence has it is never news. It is conditional on one
    event at least because only pairs that were reported are ever looked at: the first report of a pair
    proves nothing (p = 1), and over the pairs of a tick the p-values can go to false-discovery control. The
    negative binomial tail is an incomplete beta integral (DLMF 8.17.24).

    Valid at a stated time, not at the worst of many times.

    Examples
    --------
    >>> theta = GammaMixture(3.25595, 0.399988, 2.02375, 1.90613, 0.0653075)
    >>> ordinary_tail(np.array([1.0, 3.0, 6.0]), np.array([0.4, 0.4, 0.4]), theta).round(6).tolist()
    [1.0, 0.058042, 0.000525]
    """
    first = theta.weight > 0.5
    alpha = theta.alpha1 if first else theta.alpha2
    beta = min(theta.beta1 if first else theta.beta2, alpha)
    above = special.betainc(np.maximum(np.ceil(n), 1.0), alpha, expected / (beta + expected))
    any_event = -np.expm1(-alpha * np.log1p(expected / beta))
    tail = np.divide(above, any_event, out=np.zeros_like(above), where=any_event > 0)
    return np.asarray(np.where(n <= 1, 1.0, np.minimum(tail, 1.0)))
