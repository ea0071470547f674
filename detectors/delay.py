"""How many events have happened that are not reported yet?

A view by time of occurrence always seems to fall at its end, because the latest events are still to be
reported. The delays seen so far say how much is missing; but they are truncated on the right, the long ones
of the latest periods are not there to be seen, so they are estimated from the far end (Kalbfleisch and Lawless
1989, *Journal of the American Statistical Association* 84, 360-372; Lawless 1994, *Canadian Journal of
Statistics* 22, 15-31)::

    g(k) = P(delay = k | delay <= k) = n_k / N_k,     G(d) = P(delay <= d) = product_{k > d} (1 - g(k))

where n_k of the N_k reports with a delay of at most k, in periods at least k old, came with just k. A period
of age d with C reports will end up with about C / G(d). This is the actuaries' chain ladder, whose
development factors are 1 / (1 - g(k)).

In a sparse series C / G is wild: one report in a week that is 3% complete makes 33. So a period's rate has a
gamma prior around the series' usual rate, sum C / sum G (Verrall 2004, *North American Actuarial Journal* 8(3),
67-89: the Bornhuetter-Ferguson method and the chain ladder are its two ends). With dispersion phi and a
coefficient of variation v of the rates, the prior is worth k = phi / v^2 events in b = k / usual periods; the
reports to come follow a negative binomial law whose variance adds to the process's own the estimation error
of the hazards, as in the over-dispersed Poisson chain ladder (England and Verrall 2002, *British Actuarial
Journal* 8, 443-518)::

    mean      m = (C + k) (1 - G) / (G + b)
    variance  phi m (1 + b) / (G + b) + (m (1 + b) G / ((1 - G) (G + b)))^2 V
    V         phi sum_{k > d} g(k) / ((1 - g(k)) N_k), the variance of log G(d)

With v infinite the prior is gone, and expectation and standard error are the chain ladder's.

Series too sparse to have delays of their own lean on a pool: its law joins them as if it were a stated
number of their own reports, which is the conjugate prior (Höhle and an der Heiden 2014, *Biometrics* 70,
993-1002, section 3.2). "All" means all with a delay inside the triangle; later reports are never counted. The
delays are taken not to drift within the window: where they do, intervals are too short.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray, as_counts, check_fraction
from detectors.tails import count_upper

__all__ = ["DelayPool", "Nowcast", "ReportingTriangle", "nowcast", "pool_delays", "reporting_triangle"]

LEAST_COMPLETE = 1e-6
"""Completeness under which nothing is said about a period."""

LEAST_VARIATION = 1e-3

POOL_FREEDOM = 10.0
"""Degrees of freedom that the pooled dispersion counts for."""


@dataclass(frozen=True, slots=True)
class ReportingTriangle:
    """Reports by occurrence and delay, as known now.

    Attributes
    ----------
    counts
        Reports, ``[series, period, delay]``, the oldest period first. A period's age is its distance from
        the last; cells with a delay over the age are 0, they are still to come.
    used
        Which reports are in it, ``[reports]``.
    """

    counts: FloatArray
    used: BoolArray


@dataclass(frozen=True, slots=True)
class DelayPool:
    """What sparse series lean on.

    Attributes
    ----------
    pmf
        Probability of each delay, ``[delay]``; all 0 if too little is known to tell.
    dispersion
        Variance over mean of the cells, at least 1.
    """

    pmf: FloatArray
    dispersion: float


@dataclass(frozen=True, slots=True)
class Nowcast:
    """What is known and what is to be expected of each period.

    Attributes
    ----------
    reported
        Reports by now, ``[series, period]``.
    completeness
        Share of the period's reports that should be in by now, ``[series, period]``.
    expected
        The final count that is to be expected, ``[series, period]``; NaN where not defined.
    standard_error
        Of `expected` as a prediction of the final count, ``[series, period]``; NaN where not defined.
    lower, upper
        Prediction interval of the final count, ``[series, period]``; `reported` and infinity where not
        defined.
    pmf
        Probability of each delay, ``[series, delay]``.
    dispersion
        Variance over mean of the cells, at least 1, ``[series]``.
    defined
        False where no period is old enough, and has reports, to tell the delays from, or completeness is next
        to 0, ``[series, period]``.
    """

    reported: FloatArray
    completeness: FloatArray
    expected: FloatArray
    standard_error: FloatArray
    lower: FloatArray
    upper: FloatArray
    pmf: FloatArray
    dispersion: FloatArray
    defined: BoolArray


# --- From columns -------------------------------------------------------------------------------------------


def reporting_triangle(
    series: npt.ArrayLike,
    occurred: npt.ArrayLike,
    reported: npt.ArrayLike,
    *,
    now: int,
    n_series: int,
    periods: int,
    delays: int,
    days: int = 1,
) -> ReportingTriangle:
    """Count reports by series, occurrence and delay, as they were known at the end of a day.

    Periods are counted back from `now`: the last one ends with that day, so it is never half a week.

    Parameters
    ----------
    series
        Series number of each report, ``[reports]``, from 0 to under `n_series`.
    occurred, reported
        Day numbers, ``[reports]``. Reports after `now` are not known yet. Left out, too, are those that were
        reported before they occurred, that occurred too long ago, or that came with too long a delay.
    now
        Day number of the last day.
    n_series, periods, delays
        Shape of the triangle; delays run from 0 to `delays` - 1 periods.
    days
        Days in a period: 1, or 7 for weeks.

    Raises
    ------
    DetectorError
        If the columns are not whole numbers or differ in length, a series number is out of range, or a size
        is under 1.

    Examples
    --------
    >>> found = reporting_triangle([0, 0, 0, 0], [1, 1, 2, 3], [1, 3, 2, 9], now=3, n_series=1, periods=3, delays=3)
    >>> found.counts[0].tolist(), found.used.tolist()
    ([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [True, True, True, False])
    """
    row, happened, came = (
        _whole(column, name) for column, name in ((series, "series"), (occurred, "occurred"), (reported, "reported"))
    )
    if not row.shape == happened.shape == came.shape:
        raise DetectorError("series, occurred, reported: must have one entry a report each")
    if min(n_series, periods, delays, days) < 1:
        raise DetectorError("n_series, periods, delays, days: at least 1")
    if np.any((row < 0) | (row >= n_series)):
        raise DetectorError(f"series: must be from 0 to {n_series - 1}")
    age = (now - happened) // days
    delay = age - (now - came) // days
    used: BoolArray = (came <= now) & (came >= happened) & (age < periods) & (delay < delays)
    cell = (row[used] * periods + (periods - 1 - age[used])) * delays + delay[used]
    counts = np.bincount(cell, minlength=n_series * periods * delays).astype(np.float64)
    return ReportingTriangle(counts.reshape(n_series, periods, delays), used)


def _whole(values: npt.ArrayLike, name: str) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DetectorError(f"{name}: expected one column of whole numbers, found {array.ndim}-d {array.dtype}")
    return array.astype(np.int64)


# --- Nowcast ------------------------------------------------------------------------------------------------


def nowcast(
    counts: npt.ArrayLike,
    *,
    pool: DelayPool | None = None,
    pool_weight: float = 20.0,
    window: int | None = None,
    variation: float = 1.0,
    level: float = 0.9,
) -> Nowcast:
    """Estimate what the counts of all periods will be once everything is reported.

    Parameters
    ----------
    counts
        Reporting triangle, ``[series, period, delay]``, see :class:`ReportingTriangle`. Cells with a delay
        over the period's age are ignored, whatever they hold.
    pool
        Law of delays and dispersion to lean on, from :func:`pool_delays`. An argument, so that no series'
        nowcast hangs on which others came along.
    pool_weight
        Reports that the pooled law counts for, not negative.
    window
        Latest periods to learn the delays from; all by default. A delay longer than the oldest of them is
        known from the pool alone, or taken not to occur.
    variation
        Coefficient of variation, above 0, of a series' rate from period to period. 1 lets the rate be a
        third or threefold; the smaller, the more a young period follows the usual rate rather than its own
        few reports. Infinite for the plain chain ladder, ``expected = reported / completeness``, whose
        interval has Jeffreys' prior, so that a period without a report has one too.
    level
        Level of the prediction interval.

    Raises
    ------
    DetectorError
        If `counts` is not an array of counts, the pool does not fit it, or an option is out of range.

    Examples
    --------
    >>> found = nowcast([[[8, 2, 0], [6, 2, 2], [5, 5, 0], [4, 0, 0]]])
    >>> found.completeness.round(4).tolist(), found.expected.round(2).tolist()
    ([[1.0, 1.0, 0.9, 0.6107]], [[10.0, 10.0, 11.09, 6.81]])
    >>> found.lower.tolist(), found.upper.tolist()
    ([[10.0, 10.0, 10.0, 4.0]], [[10.0, 10.0, 14.0, 12.0]])
    >>> nowcast([[[8, 2, 0], [6, 2, 2], [5, 5, 0], [4, 0, 0]]], variation=np.inf).expected.round(2).tolist()
    [[10.0, 10.0, 11.11, 6.55]]
    """
    known, age = _known(counts)
    side = (1.0 - check_fraction(level, "level")) / 2.0
    if not 0.0 <= pool_weight < np.inf:
        raise DetectorError("pool_weight: must be finite and not negative")
    if not LEAST_VARIATION <= variation <= np.inf:
        raise DetectorError(f"variation: at least {LEAST_VARIATION:g}; infinite for the chain ladder")
    prior = _prior(pool, pool_weight, known.shape[2])
    hits, at_risk = _hazard_counts(known, age, window)
    cdf, pmf, error = _delay_law(hits + prior, at_risk + np.cumsum(prior))
    phi = _dispersion(*_pearson(known, age, window, pmf, cdf), pmf, pool)
    reach = np.minimum(age, known.shape[2] - 1)
    # np.take keeps the rows contiguous, whatever the number of series; sums over them then keep their bits.
    complete, error = np.take(cdf, reach, axis=1), np.take(error, reach, axis=1)
    reported = known.sum(axis=2)
    told = _told(at_risk + np.cumsum(prior), known.shape[1], window)
    defined: BoolArray = np.take(told, reach, axis=1) & (complete >= LEAST_COMPLETE)
    share = np.where(defined, complete, 1.0)
    shape, rate = _rate_prior(reported, share, age, window, phi, variation)
    mean, variance = _to_come(reported + shape, share, rate, error, phi)
    some_events = shape if np.isfinite(variation) else phi[:, None] / 2.0
    lower, upper = _interval(reported, *_to_come(reported + some_events, share, rate, error, phi), side)
    return Nowcast(
        reported=reported,
        completeness=complete,
        expected=np.where(defined, reported + mean, np.nan),
        standard_error=np.where(defined, np.sqrt(variance), np.nan),
        lower=lower,
        upper=np.where(defined, upper, np.inf),
        pmf=pmf,
        dispersion=phi,
        defined=defined,
    )


def pool_delays(counts: npt.ArrayLike, *, window: int | None = None) -> DelayPool:
    """Law of delays and dispersion over all series of a triangle, as if they were one.

    The sums are exactly rounded (:func:`math.fsum`), so the order of the series does not touch them.

    Raises
    ------
    DetectorError
        If `counts` is not an array of counts.

    Examples
    --------
    >>> pool_delays([[[8, 2], [5, 0]], [[2, 0], [1, 0]]]).pmf.round(4).tolist()
    [0.8333, 0.1667]
    """
    known, age = _known(counts)
    hits, at_risk = (_summed(part) for part in _hazard_counts(known, age, window))
    cdf, pmf, _ = _delay_law(hits, at_risk)
    if not (_told(at_risk, known.shape[1], window).all() and at_risk[0, 0] > 0):
        return DelayPool(np.zeros(known.shape[2]), 1.0)
    wide = (known.shape[0], known.shape[2])
    chi2, freedom = _pearson(known, age, window, np.broadcast_to(pmf, wide), np.broadcast_to(cdf, wide))
    free = math.fsum(freedom) - max(np.count_nonzero(pmf) - 1.0, 0.0)
    return DelayPool(pmf[0], max(math.fsum(chi2) / free, 1.0) if free > 0 else 1.0)


def _known(counts: npt.ArrayLike) -> tuple[FloatArray, IntArray]:
    """The triangle with what is still to come set to 0, and the age of each period."""
    given = as_counts(counts, "counts", ndim=3)
    if given.shape[2] == 0:
        raise DetectorError("counts: at least one delay")
    age = np.arange(given.shape[1])[::-1]
    return np.where(np.arange(given.shape[2]) <= age[:, None], given, 0.0), age


def _learned(known: FloatArray, age: IntArray, window: int | None) -> BoolArray:
    """Cells that the delays are learned from: those that can be known, in the latest periods, ``[period, delay]``."""
    if window is not None and window < 1:
        raise DetectorError("window: at least 1 period")
    oldest = known.shape[1] if window is None else window
    return (np.arange(known.shape[2]) <= age[:, None]) & (age < oldest)[:, None]


def _prior(pool: DelayPool | None, weight: float, delays: int) -> FloatArray:
    """Reports of each delay that the pool adds, ``[delay]``."""
    if pool is None:
        return np.zeros(delays)
    pmf = as_counts(pool.pmf, "pool", ndim=1)
    total = pmf.sum()
    if pmf.shape != (delays,) or min(abs(total - 1.0), total) > 1e-6 or not 1.0 <= pool.dispersion < np.inf:
        raise DetectorError(f"pool: a law of {delays} delays that sums to 1 (or 0: unknown), and a dispersion from 1")
    return weight * pmf


def _hazard_counts(known: FloatArray, age: IntArray, window: int | None) -> tuple[FloatArray, FloatArray]:
    """n_k and N_k: reports with a delay of k, and of at most k, in periods at least k old, ``[series, delay]``."""
    cells = _learned(known, age, window)
    hits = np.where(cells, known, 0.0).sum(axis=1)
    at_risk = np.where(cells, np.cumsum(known, axis=2), 0.0).sum(axis=1)
    return hits, at_risk


def _summed(parts: FloatArray) -> FloatArray:
    """Sum over series, exactly rounded, ``[1, delay]``."""
    return np.array([[math.fsum(column) for column in parts.T]])


def _delay_law(hits: FloatArray, at_risk: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """G(d), P(delay = d) and the variance of log G(d) at dispersion 1, each ``[series, delay]``."""
    hazard = np.divide(hits, at_risk, out=np.zeros_like(hits), where=at_risk > 0)
    later = 1.0 - hazard[:, :0:-1]  # from the longest delay to delay 1
    cdf = np.ones_like(hazard)
    cdf[:, -2::-1] = np.cumprod(later, axis=1)
    risk = at_risk[:, :0:-1] * later
    greenwood = np.divide(hazard[:, :0:-1], risk, out=np.zeros_like(risk), where=risk > 0)
    error = np.zeros_like(hazard)
    error[:, -2::-1] = np.cumsum(greenwood, axis=1)
    pmf = hazard * cdf
    pmf[:, 0] = cdf[:, 0]
    return cdf, pmf, error


def _told(at_risk: FloatArray, periods: int, window: int | None) -> BoolArray:
    """Whether there are reports to tell every hazard beyond a delay from, ``[series, delay]``."""
    oldest = periods - 1 if window is None else min(periods, window) - 1
    enough = (at_risk > 0) | (np.arange(at_risk.shape[1]) > oldest)
    told = np.ones_like(enough)
    told[:, -2::-1] = np.logical_and.accumulate(enough[:, :0:-1], axis=1)
    return told


def _dispersion(chi2: FloatArray, freedom: FloatArray, pmf: FloatArray, pool: DelayPool | None) -> FloatArray:
    """phi, at least 1, after the delays' own degrees of freedom, shrunk toward the pool's, ``[series]``."""
    free = np.maximum(freedom - np.count_nonzero(pmf, axis=1) + 1.0, 0.0)
    lent, pooled = (0.0, 0.0) if pool is None else (POOL_FREEDOM, pool.dispersion)
    weight = free + lent
    phi = np.divide(chi2 + lent * pooled, weight, out=np.ones_like(chi2), where=weight > 0)
    return np.asarray(np.maximum(phi, 1.0))


def _pearson(
    known: FloatArray, age: IntArray, window: int | None, pmf: FloatArray, cdf: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Pearson's chi-square of the known cells, and their number less that of the periods, each ``[series]``."""
    complete = np.take(cdf, np.minimum(age, known.shape[2] - 1), axis=1)
    total = known.sum(axis=2)
    some = (total > 0) & (complete >= LEAST_COMPLETE) & (age < (known.shape[1] if window is None else window))
    final = np.divide(total, complete, out=np.zeros_like(total), where=some)
    mean = np.where(_learned(known, age, window), final[:, :, None] * pmf[:, None, :], 0.0)
    square = np.divide((known - mean) ** 2, mean, out=np.zeros_like(mean), where=mean > 0)
    cells = np.count_nonzero(mean > 0, axis=(1, 2))
    flat = square.reshape(known.shape[0], known.shape[1] * known.shape[2])
    return flat.sum(axis=1), (cells - np.count_nonzero(some, axis=1)).astype(np.float64)


def _rate_prior(
    reported: FloatArray, share: FloatArray, age: IntArray, window: int | None, phi: FloatArray, variation: float
) -> tuple[FloatArray, FloatArray]:
    """Events and periods that the prior of a period's rate counts for, each ``[series, 1]``."""
    if not np.isfinite(variation):
        return np.zeros((phi.size, 1)), np.zeros((phi.size, 1))
    inside = age < (age.size if window is None else window)
    seen = np.where(inside, reported, 0.0).sum(axis=1) + phi / 2.0
    usual = seen / np.maximum(np.where(inside, share, 0.0).sum(axis=1), LEAST_COMPLETE)
    shape = phi / variation**2
    return shape[:, None], (shape / usual)[:, None]


def _to_come(
    events: FloatArray, share: FloatArray, rate: FloatArray, error: FloatArray, phi: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Mean and variance of the reports to come, each ``[series, period]``."""
    left, exposure = 1.0 - share, share + rate
    process = (1.0 + rate) / exposure
    mean = events * left / exposure
    slope = np.where(left > 0, events * process * share / exposure, 0.0)
    return mean, phi[:, None] * (mean * process + slope**2 * error)


def _interval(
    reported: FloatArray, mean: FloatArray, variance: FloatArray, side: float
) -> tuple[FloatArray, FloatArray]:
    """Quantiles of the final count at `side` and 1 - `side`, each ``[series, period]``."""
    lower, upper = reported.copy(), reported.copy()
    todo = mean > 0
    dispersion = variance[todo] / mean[todo]
    lower[todo] += count_upper(mean[todo], dispersion, 1.0 - side)
    upper[todo] += count_upper(mean[todo], dispersion, side)
    return lower, upper
