"""The baseline of a surge: a smooth season and trend with shrunk terms, fitted robustly to many series at once.

For weeks before the judged one, with t in years (0 at the judged week)::

    log mu_t = level + slope t + sum_j [a_j cos(2 pi j t) + b_j sin(2 pi j t)],      Var(Y_t) = phi mu_t

fitted by quasi-likelihood (McCullagh and Nelder, *Generalized Linear Models*, 1989, chapter 9), with normal
priors on slope and harmonics: a long history speaks for itself, half a year of it hardly moves them, and the
posterior covariance says so. The level has Jeffreys' half event, so that a series without events has a rate.

Past outbreaks are weighed down smoothly, by (c / s)^4 where the Anscombe residual s is above c: without the
step of the 1 / s^2 of Noufaily et al. 2013, which takes away much that is no outbreak, and with it dispersion;
and faster beyond, so that the largest outbreaks count least.

The dispersion of one series is poorly known where events are few, so its logarithm is shrunk toward a prior
over all series (empirical Bayes: Efron and Morris 1975), and what remains unknown of it is handed on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detectors.errors import DetectorError
from detectors.evidence import FloatArray

__all__ = ["Baseline", "BaselineModel", "DispersionPrior", "fit_baseline", "pool_dispersion"]

HALF_EVENT = 0.5
"""Events that every baseline has at least (Jeffreys): none so far is no proof of a rate of 0."""

PLAIN_STEPS, ROBUST_STEPS = 3, 7
"""Scoring steps without weights, to be near, and then with them; the last ones change nothing that shows."""

LONGEST_STEP = 2.0
LOG_RANGE = (-30.0, 40.0)
"""Logarithms of the means kept in a float64's comfortable reach."""

LEAST_DISPERSION = 0.3
"""Floor of a single series' estimate before shrinkage; under 1 it says no more than: Poisson."""

BLOCK = 64
"""Series fitted together. A short block is filled up, for the bits of a matrix product hang on its shape."""


@dataclass(frozen=True, slots=True)
class DispersionPrior:
    """What is known of the dispersion of any series before it is looked at: log phi ~ normal.

    Attributes
    ----------
    typical
        Median variance over mean.
    spread
        Standard deviation of its logarithm. The default, 2 and 0.8, has 95% of all series between 0.4 (that
        is: Poisson) and 10.
    """

    typical: float = 2.0
    spread: float = 0.8

    def __post_init__(self) -> None:
        if not (1.0 <= self.typical < math.inf and 0.0 < self.spread < math.inf):
            raise DetectorError("prior: typical must be finite and at least 1, spread finite and above 0")


@dataclass(frozen=True, slots=True)
class BaselineModel:
    """How the baseline is set; see :class:`detectors.surge.SurgeOptions` for the meaning of each."""

    harmonics: int
    trend_sd: float
    season_sd: float
    weights_threshold: float
    freq: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """The judged week (``now``) and the one before (``last``), as the history foretells them; ``[series]``.

    Attributes
    ----------
    now, last
        Expected counts.
    now_variance, last_variance, covariance
        Posterior (co)variances of their logarithms.
    dispersion
        Shrunk variance over mean, at least 1.
    log_dispersion_sd
        Posterior standard deviation of its logarithm.
    raw_dispersion, raw_variance
        Estimate of the series alone, and the sampling variance of its logarithm.
    """

    now: FloatArray
    last: FloatArray
    now_variance: FloatArray
    last_variance: FloatArray
    covariance: FloatArray
    dispersion: FloatArray
    log_dispersion_sd: FloatArray
    raw_dispersion: FloatArray
    raw_variance: FloatArray


def fit_baseline(y: FloatArray, used: FloatArray, prior: DispersionPrior, model: BaselineModel) -> Baseline:
    """Fit all series.

    Parameters
    ----------
    y
        Counts ``[series, weeks]``, the last column being the week just before the judged one.
    used
        1 where a week is baseline, else 0, ``[series, weeks]``; a row has at least one.
    """
    found = [np.empty((9, 0))]
    for first in range(0, y.shape[0], BLOCK):
        rows = y[first : first + BLOCK]
        block, weight = np.zeros((BLOCK, y.shape[1])), np.ones((BLOCK, y.shape[1]))
        block[: len(rows)], weight[: len(rows)] = rows, used[first : first + BLOCK]
        found.append(_fit_block(block, weight, prior, model)[:, : len(rows)])
    return Baseline(*np.concatenate(found, axis=1))


def pool_dispersion(raw: FloatArray, variance: FloatArray) -> DispersionPrior:
    """Learn the prior from the estimates of many series (moments: DerSimonian and Laird 1986).

    Sums are exactly rounded (:func:`math.fsum`): the order of the series does not touch them.
    """
    if raw.size < 2:
        return DispersionPrior()
    log_phi, weight = np.log(raw), 1.0 / variance
    total = math.fsum(weight)
    mean = math.fsum(weight * log_phi) / total
    excess = math.fsum(weight * (log_phi - mean) ** 2) - (raw.size - 1)
    between = max(excess / (total - math.fsum(weight**2) / total), 0.01)
    weight = 1.0 / (variance + between)
    mean = math.fsum(weight * log_phi) / math.fsum(weight)
    return DispersionPrior(typical=max(math.exp(mean), 1.0), spread=math.sqrt(between))


# --- The fit ------------------------------------------------------------------------------------------------


def _design(t: FloatArray, harmonics: int) -> FloatArray:
    """``[weeks, terms]``: level, slope, and cosine and sine of each harmonic; t in years."""
    angle = 2.0 * np.pi * np.arange(1, harmonics + 1) * t[:, None]
    waves = np.stack([np.cos(angle), np.sin(angle)], axis=2).reshape(t.size, 2 * harmonics)
    return np.concatenate([np.ones((t.size, 1)), t[:, None], waves], axis=1)


def _precision(model: BaselineModel) -> FloatArray:
    """Prior precision of each term; the j-th harmonic's standard deviation is season_sd / j."""
    order = np.repeat(np.arange(1, model.harmonics + 1), 2)
    return np.concatenate([[0.0, model.trend_sd**-2.0], (order / model.season_sd) ** 2])


def _fit_block(y: FloatArray, used: FloatArray, prior: DispersionPrior, model: BaselineModel) -> FloatArray:
    weeks = y.shape[1]
    x = _design(-np.arange(weeks, 0, -1) / model.freq, model.harmonics)
    terms = x.shape[1]
    squares = np.ascontiguousarray((x[:, :, None] * x[:, None, :]).reshape(weeks, terms * terms))
    precision = _precision(model)
    n = used.sum(axis=1)
    beta = np.zeros((y.shape[0], terms))
    beta[:, 0] = np.log(((used * y).sum(axis=1) + HALF_EVENT) / n)
    phi, root = np.full(y.shape[0], prior.typical), np.cbrt(y) ** 2
    w, shrunk = used, np.zeros((4, y.shape[0]))
    for step in range(PLAIN_STEPS + ROBUST_STEPS):
        mu = np.exp(np.clip(beta @ x.T, *LOG_RANGE))
        if step >= PLAIN_STEPS:
            w = used * _weight(root, mu, phi, model.weights_threshold)
            shrunk = _shrunk_dispersion(y, mu, w, used, phi, terms, prior)
            phi = shrunk[0]
        ridge = phi[:, None] * precision
        score = (w * (y - mu)) @ x - ridge * beta
        score[:, 0] += HALF_EVENT
        information = ((w * mu) @ squares).reshape(-1, terms, terms) + ridge[:, :, None] * np.eye(terms)
        information[:, 0, 0] += 1e-9
        move = np.linalg.solve(information, score[:, :, None])[:, :, 0]
        longest = np.abs(move).max(axis=1, keepdims=True)
        beta = beta + move * (LONGEST_STEP / np.maximum(longest, LONGEST_STEP))
    covariance = np.linalg.inv(information) * phi[:, None, None]
    return np.concatenate([_foretell(beta, covariance, model), shrunk])


def _weight(root: FloatArray, mu: FloatArray, phi: FloatArray, threshold: float) -> FloatArray:
    """(c / s)^4 above c, for the Anscombe residual s; `root` is y^(2/3).

    The power 2/3 takes the Poisson law's skewness away, not the (phi - 1) / sqrt(phi mu) that over-dispersion
    adds; the limit moves with it as a quantile does (Cornish and Fisher 1938), or weeks of rare and clustered
    events would lose their dispersion.
    """
    half, deviation = np.sqrt(mu), np.sqrt(phi)[:, None]
    s = 1.5 * (root / np.cbrt(half) - half) / deviation
    limit = threshold + (threshold**2 - 1.0) / 6.0 * (phi[:, None] - 1.0) / (deviation * half)
    return np.asarray((limit / np.maximum(s, limit)) ** 4)


def _shrunk_dispersion(
    y: FloatArray,
    mu: FloatArray,
    w: FloatArray,
    used: FloatArray,
    phi: FloatArray,
    terms: int,
    prior: DispersionPrior,
) -> FloatArray:
    """Dispersion, the sd of its logarithm, the estimate before shrinkage and its variance: ``[4, series]``.

    The variance of Pearson's estimate of log phi is (2 + excess kurtosis) / n, that of the negative binomial
    law being 6 (phi - 1) / mu + 1 / (phi mu). Half of it is the bias of the logarithm (Jensen).
    """
    n = used.sum(axis=1)
    pearson = (w * (y - mu) ** 2 / mu).sum(axis=1)
    raw = np.maximum(pearson / np.maximum(w.sum(axis=1) - terms, 1.0), LEAST_DISPERSION)
    kurtosis = (used / mu).sum(axis=1) / n * (6.0 * (phi - 1.0) + 1.0 / phi)
    variance = (2.0 + kurtosis) / n
    precision = 1.0 / variance + prior.spread**-2.0
    log_phi = (
        (np.log(raw) + np.minimum(variance, 1.0) / 2.0) / variance + math.log(prior.typical) * prior.spread**-2.0
    ) / precision
    return np.stack([np.exp(np.maximum(log_phi, 0.0)), precision**-0.5, raw, variance])


def _foretell(beta: FloatArray, covariance: FloatArray, model: BaselineModel) -> FloatArray:
    """Means of the judged week and the one before, and the (co)variances of their logs: ``[5, series]``.

    Sums of a few terms one by one: they have the same bits in any batch.
    """
    now, last = _design(np.array([0.0, -1.0 / model.freq]), model.harmonics)
    terms = range(now.size)

    def quadratic(one: FloatArray, other: FloatArray) -> FloatArray:
        return np.asarray(sum(one[i] * other[j] * covariance[:, i, j] for i in terms for j in terms))

    means = [np.exp(np.clip(sum(beta[:, i] * at[i] for i in terms), *LOG_RANGE)) for at in (now, last)]
    return np.stack([*means, quadratic(now, now), quadratic(last, last), quadratic(now, last)])
