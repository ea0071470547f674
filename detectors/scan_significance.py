"""How sure a scan is: p-values from the maxima of replicates, and how often such a cluster turns up by chance.

Monte Carlo: Dwass (1957), "Modified randomization tests for nonparametric hypotheses", *Annals of
Mathematical Statistics* 28, 181-187; ended early where the answer is plainly no, after Besag and Clifford
(1991), "Sequential Monte Carlo p-values", *Biometrika* 78, 301-304. Gumbel: Abrams, Kulldorff and Kleinman
(2010), "Gumbel based p-value approximations for spatial scan statistics", *International Journal of Health
Geographics* 9:61; it reaches below the 1 / (R + 1) at which counting replicates ends.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from detectors.evidence import BoolArray, FloatArray

__all__ = [
    "besag_clifford_length",
    "gumbel_p",
    "gumbel_tail",
    "monte_carlo_p",
    "reached",
    "recurrence_interval",
    "table_dispersion",
]

TIE = 1e-9
"""A replicate that falls short of the observed by no more than rounding has reached it."""

LEAST_P = 1e-300
"""Under this a recurrence interval would overflow."""

FEW = 10
"""Replicates that must have reached the observed, the observed counted too, for their share to say how rare it is."""


def reached(observed: FloatArray, maxima: FloatArray) -> BoolArray:
    """Which of the replicates' `maxima` ``[replicates]`` are as large as each `observed`: ``[..., replicates]``."""
    least = observed - TIE * (1.0 + np.abs(observed))
    return np.asarray(maxima >= least[..., None])


def besag_clifford_length(top: float, maxima: FloatArray, stop_after: int | None) -> int | None:
    """Replicates after which `stop_after` of them have reached `top`; None while they have not.

    Examples
    --------
    >>> besag_clifford_length(2.0, np.array([1.0, 3.0, 1.0, 2.0, 5.0]), 2)
    4
    """
    if stop_after is None:
        return None
    places = np.flatnonzero(reached(np.array(top), maxima))
    return int(places[stop_after - 1]) + 1 if places.size >= stop_after else None


def monte_carlo_p(observed: FloatArray, maxima: FloatArray, *, stopped: bool = False) -> FloatArray:
    """Share of replicates, the data themselves counted as one of them, that are as large as `observed`.

    Parameters
    ----------
    observed
        Log-likelihood ratios of clusters, any shape.
    maxima
        Largest log-likelihood ratio of each replicate, ``[replicates]``.
    stopped
        Whether the last of them is the one at which :func:`besag_clifford_length` called the end: the p-value
        is then the plain share h / l, which that design makes exact.

    Returns
    -------
    FloatArray
        (1 + number as large) / (replicates + 1); 1 with no replicate.

    Examples
    --------
    >>> monte_carlo_p(np.array([4.0, 0.5]), np.array([1.0, 3.0, 2.0])).tolist()
    [0.25, 1.0]
    """
    beyond = reached(observed, maxima).sum(axis=-1)
    if stopped:
        return np.asarray(beyond / maxima.size)
    return np.asarray((beyond + 1.0) / (maxima.size + 1.0))


def gumbel_p(observed: FloatArray, maxima: FloatArray) -> FloatArray:
    """Upper tail of the Gumbel law that has the mean and the standard deviation of the replicates' maxima.

    Parameters
    ----------
    observed, maxima
        As for :func:`monte_carlo_p`.

    Returns
    -------
    FloatArray
        The Monte Carlo p-value where fewer than two replicates, or all the same maximum, fix no law.

    Examples
    --------
    >>> gumbel_p(np.array([2.0, 9.0]), np.array([1.0, 2.0, 3.0, 2.0])).round(6).tolist()
    [0.429624, 2e-06]
    """
    spread = float(np.std(maxima)) if maxima.size > 1 else 0.0
    if not spread > 0:
        return monte_carlo_p(observed, maxima)
    return gumbel_tail(observed, np.mean(maxima), np.float64(spread))


def gumbel_tail(observed: npt.ArrayLike, mean: npt.ArrayLike, spread: npt.ArrayLike) -> FloatArray:
    """Upper tail of the Gumbel law of a given mean and standard deviation (above 0), elementwise.

    Where cases are over-dispersed the replicates' law is too narrow for the log-likelihood ratio; divided by the
    dispersion it is a quasi-likelihood ratio, and this its p-value.
    """
    scale = np.asarray(spread, np.float64) * math.sqrt(6.0) / math.pi
    location = np.asarray(mean, np.float64) - np.euler_gamma * scale
    # The exponent is bounded for a hopelessly small observation only; there the tail is 1 long before.
    exponent = np.minimum((location - np.asarray(observed, np.float64)) / scale, 700.0)
    return np.asarray(-np.expm1(-np.exp(exponent)))


def table_dispersion(counts: npt.ArrayLike) -> FloatArray:
    """Variance over mean of cases in tables region x period beyond their margins, at least 1, ``[series]``.

    Pearson's chi-square of the model row x column over its degrees of freedom (McCullagh and Nelder 1989, section 4.5).

    Parameters
    ----------
    counts
        Cases ``[series, regions, periods]``; 1 where a table has no degrees of freedom or no cases.

    Examples
    --------
    >>> table_dispersion([[[5, 5, 5], [5, 5, 5]], [[9, 1, 5], [1, 9, 5]]]).round(3).tolist()
    [1.0, 6.4]
    """
    y = np.asarray(counts, np.float64)
    by_region, by_period = y.sum(axis=2), y.sum(axis=1)
    total = by_region.sum(axis=1)
    expected = by_region[:, :, None] * by_period[:, None, :] / np.maximum(total, 1.0)[:, None, None]
    chi2 = np.divide((y - expected) ** 2, expected, out=np.zeros_like(y), where=expected > 0).sum(axis=(1, 2))
    free = ((by_region > 0).sum(axis=1) - 1.0) * ((by_period > 0).sum(axis=1) - 1.0)
    return np.asarray(np.maximum(np.divide(chi2, free, out=np.ones_like(chi2), where=free > 0), 1.0))


def recurrence_interval(
    p_monte_carlo: FloatArray, p_gumbel: FloatArray, replicates: int, *, tick: float, stopped: bool = False
) -> FloatArray:
    """Time between clusters as strong as this one if nothing ever changes, in the unit of `tick`: tick / p.

    p is the Monte Carlo p-value where ten or more reached the observed, itself counted, or the replicates were
    ended early; below that the Gumbel tail, since a share of one or two in R + 1 says only "rare".

    Examples
    --------
    >>> recurrence_interval(np.array([0.25, 0.001]), np.array([0.22, 1e-5]), 999, tick=7.0).round(3).tolist()
    [28.0, 700000.0]
    """
    counted = stopped | (p_monte_carlo * (replicates + 1.0) > FEW - 0.5)
    p = np.where(counted, p_monte_carlo, p_gumbel)
    return np.asarray(tick / np.maximum(p, LEAST_P))
