"""Cold start: is this week's count more than a few weeks of history allow, their number being few?

The rate has Jeffreys' gamma prior; the next count then follows a negative binomial law, exactly, however
short the history (Gelman et al., *Bayesian Data Analysis*, 2013, section 2.6; Bayesian limits in
surveillance: Riebler 2004). Counts that vary more than Poisson are counted as ``1 / phi`` of an event each
(McCullagh and Nelder, *Generalized Linear Models*, 1989, section 6.2)::

    rate | n weeks with Y events ~ Gamma(1/2 + Y / phi, n / phi)
    next week's count: mean m = (Y + phi / 2) / n, variance phi (1 + 1/n) m

phi is estimated by Pearson's chi-square, shrunk toward a value pooled over all series: ten weeks alone say
little about it. Nothing here knows a season; with three years of history use :mod:`detectors.farrington`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, CountEvidence, FloatArray, as_counts, check_fraction, excess_score
from detectors.tails import count_tail, count_upper

__all__ = ["count_dispersion", "predictive"]

LEAST_WEEKS = 4
"""Weeks of baseline under which the detector is silent."""


def predictive(
    counts: npt.ArrayLike,
    *,
    pool: float,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    weeks: int = 52,
    gap: int = 2,
    pool_weight: float = 10.0,
    alpha: float = 0.01,
    least_cases: tuple[int, int] = (3, 4),
) -> CountEvidence:
    """Judge one week of many short series by the gamma-Poisson predictive law.

    Parameters
    ----------
    counts
        Events a week, ``[series, time]``, oldest first.
    pool
        Variance over mean in the pool, at least 1: from :func:`count_dispersion`, or 1 for the Poisson law.
        An argument, so that no series' evidence hangs on which others came along.
    at
        Column to judge; the last by default.
    history
        Weeks, the judged one included, for which each series has really been watched, ``[series]``.
    weeks, gap
        Longest baseline; weeks left out between it and the judged week.
    pool_weight
        Weeks of history that the pooled dispersion counts for.
    alpha
        One-sided level of the limit.
    least_cases
        (cases, weeks): no alarm with fewer cases in the latest weeks. One event after a year of none would
        be.

    Returns
    -------
    CountEvidence
        ``defined`` is False with under four weeks of baseline.

    Raises
    ------
    DetectorError
        If an array has NaN or negatives, or an option is out of range.

    Examples
    --------
    >>> found = predictive([[0, 1, 0, 0, 1, 0, 0, 0, 0, 6]], pool=1.0)
    >>> bool(found.alarm[0]), round(float(found.expected[0]), 4)
    (True, 0.3571)
    """
    if not 1.0 <= pool < np.inf or not 0.0 <= pool_weight < np.inf:
        raise DetectorError("pool: a dispersion of at least 1; pool_weight: not negative")
    check_fraction(alpha, "alpha")
    y, now, used = _frame(counts, at, history, weeks, gap)
    n, total, chi2 = _moments(y, used)
    defined: BoolArray = n >= LEAST_WEEKS
    free = np.where(total > 0, np.maximum(n - 1.0, 0.0), 0.0)
    weight = free + pool_weight
    # Before division: chi2 is already free * phi.
    phi = np.divide(chi2 + pool_weight * pool, weight, out=np.full_like(n, pool), where=weight > 0)
    phi = np.maximum(phi, 1.0)
    length = np.maximum(n, 1.0)
    mean, spread = (total + phi / 2.0) / length, phi * (1.0 + 1.0 / length)
    observed = y[:, now].copy() if y.shape[1] else np.zeros(y.shape[0])
    recent = y[:, max(now - least_cases[1] + 1, 0) : now + 1].sum(axis=1)
    upper = np.where(defined, count_upper(mean, spread, alpha), np.nan)
    expected = np.where(defined, mean, np.nan)
    return CountEvidence(
        observed=observed,
        expected=expected,
        upper=upper,
        p_value=np.where(defined, count_tail(observed, mean, spread), 1.0),
        score=excess_score(observed, expected, upper, defined),
        dispersion=phi,
        alarm=defined & (observed > upper) & (recent >= least_cases[0]),
        trend_used=np.zeros(observed.shape, dtype=np.bool_),
        defined=defined,
    )


def count_dispersion(
    counts: npt.ArrayLike,
    *,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    weeks: int = 52,
    gap: int = 2,
) -> float:
    """Pool the dispersion (variance over mean, at least 1) over the baselines of all series.

    The parameters are those of :func:`predictive`. Series without an event say nothing. The sum is exactly
    rounded (:func:`math.fsum`), so the order of the series does not touch it.

    Examples
    --------
    >>> round(count_dispersion([[0, 4, 0, 4, 0, 4, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0, 0]]), 4)
    1.2
    """
    y, _, used = _frame(counts, at, history, weeks, gap)
    n, total, chi2 = _moments(y, used)
    free = math.fsum(np.maximum(n - 1.0, 0.0)[total > 0])
    return max(math.fsum(chi2) / free, 1.0) if free > 0 else 1.0


def _frame(
    counts: npt.ArrayLike, at: int | None, history: npt.ArrayLike | None, weeks: int, gap: int
) -> tuple[FloatArray, int, FloatArray]:
    """Checked counts, the judged column, and which columns are baseline (1 or 0, ``[series, time]``)."""
    y = as_counts(counts, "counts")
    now = y.shape[1] - 1 if at is None else at
    if y.shape[1] and not 0 <= now < y.shape[1]:
        raise DetectorError(f"at: must be a column from 0 to {y.shape[1] - 1}, found {now}")
    if weeks < LEAST_WEEKS or gap < 0:
        raise DetectorError(f"weeks: at least {LEAST_WEEKS}; gap: not negative")
    age = now - np.arange(y.shape[1])
    watched = np.full(y.shape[0], np.inf) if history is None else as_counts(history, "history", ndim=1)
    if watched.shape != (y.shape[0],):
        raise DetectorError(f"history: expected {y.shape[0]} entries, one a series")
    used = (age > gap) & (age <= gap + weeks) & (age < watched[:, None])
    return y, now, used.astype(np.float64)


def _moments(y: FloatArray, used: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weeks, events and Pearson's chi-square of each baseline; chi-square is 0 without an event."""
    n = used.sum(axis=1)
    total = (used * y).sum(axis=1)
    mean = total / np.maximum(n, 1.0)
    square = (used * (y - mean[:, None]) ** 2).sum(axis=1)
    return n, total, np.divide(square, mean, out=np.zeros_like(mean), where=mean > 0)
