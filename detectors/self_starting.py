"""From satisfaction surveys and quality losses to scores that a chart can take: standard normal if nothing has changed.

A period's mean score, or its log loss rate, has its own standard error, and the series' centre and scale are unknown.
Each period is judged by all before it: Student's t of the new value, turned into a normal score (Hawkins 1987, *The
Statistician* 36, 299-315; Quesenberry 1991, *Journal of Quality Technology* 23, 213-224). Under a normal law these
scores are independent standard normal from the fifth period on, so that the charts of :mod:`detectors.ewma` need no
first phase, and their run lengths hold as stated. Values far out enter the history drawn in.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import FloatArray, as_counts

__all__ = ["log_loss_rate", "self_starting", "survey_variance"]

FARTHEST = 8.0
"""Scores end here: beyond, a normal law says nothing any more."""

DRAWN_IN = 3.0
"""Score beyond which a value enters the history drawn in to it."""

LEAST_HISTORY = 4


def survey_variance(respondents: npt.ArrayLike, correlation: float = 0.0) -> FloatArray:
    """Variance of each period's mean score, in units of one answer's variance: correlation + (1 - correlation) / n.

    Parameters
    ----------
    respondents
        Answers in each period, ``[series, time]``; 0 where there was no survey, which gives NaN.
    correlation
        Intra-class correlation of the answers of one period, 0 to under 1: what differs from survey to survey (mode,
        interviewers, season) does not average out over respondents.

    Examples
    --------
    >>> survey_variance([[100, 400, 0]], 0.01).round(6).tolist()
    [[0.0199, 0.012475, nan]]
    """
    n = as_counts(respondents, "respondents")
    if not 0.0 <= correlation < 1.0:
        raise DetectorError(f"correlation: must be from 0 to under 1, found {correlation!r}")
    return np.where(n > 0, correlation + (1.0 - correlation) / np.maximum(n, 1.0), np.nan)


def log_loss_rate(loss: npt.ArrayLike, output: npt.ArrayLike) -> FloatArray:
    """Natural log of quality loss over output, ``[series, time]``, for :func:`self_starting`.

    Losses are sums of money with a heavy tail; their logs are near enough to normal. A period of output without loss
    gets half the smallest rate the series has shown so far (itself a bound: something was there to lose), and is
    missing before the series' first loss. Periods without output are missing (NaN).

    Parameters
    ----------
    loss, output
        Money in one currency, ``[series, time]``.

    Raises
    ------
    DetectorError
        If either is not an array of amounts, or the shapes differ.

    Examples
    --------
    >>> log_loss_rate([[0.0, 2.0, 0.0, 1.0]], [[100.0, 100.0, 100.0, 0.0]]).round(3).tolist()
    [[nan, -3.912, -4.605, nan]]
    """
    lost, made = as_counts(loss, "loss"), as_counts(output, "output")
    if lost.shape != made.shape:
        raise DetectorError(f"loss and output: shapes {lost.shape} and {made.shape} differ")
    rate = np.divide(lost, made, out=np.zeros_like(lost), where=made > 0)
    least = np.minimum.accumulate(np.where(rate > 0, rate, np.inf), axis=1)
    filled = np.where(rate > 0, rate, least / 2.0)
    known = (made > 0) & np.isfinite(filled)
    return np.where(known, np.log(np.where(known, filled, 1.0)), np.nan)


def self_starting(
    values: npt.ArrayLike,
    variance: npt.ArrayLike = 1.0,
    *,
    least_history: int = LEAST_HISTORY,
    least_scale: float = 0.0,
    clip: float = FARTHEST,
) -> FloatArray:
    """Score each period of each series by the periods before it: standard normal if nothing has changed.

    With weights 1 / v_t, the weighted mean m and the residual variance s^2 of the n observed periods before,
    t = (x - m) / (s sqrt(v + 1 / sum(weights))) has Student's law with n - 1 degrees of freedom, independent of all
    earlier ones; its normal score is returned. A value whose score is beyond 3 enters m and s as if it had scored 3,
    so that one outlier does not blind the chart; a lasting change is still absorbed, over about as many periods as
    the series had before it.

    Parameters
    ----------
    values
        Period means (scores, log loss rates), ``[series, time]``; NaN where missing.
    variance
        Variance of each period's value up to one unknown factor per series, above 0: a scalar or ``[series, time]``,
        from :func:`survey_variance`; NaN makes the period missing.
    least_history
        Observed periods, 3 or more, before the first score.
    least_scale
        Floor of s, in units of the values: what differs by less is no change, and a series that never varied has a
        scale.
    clip
        Bound of the scores, above 0 and at most 8. For loss rates 3, with a ``lam`` of 0.1: one period then never
        alarms alone, and the run length keeps nine tenths of what is stated even where the logs follow Student's law
        with 3 degrees of freedom (half, unbounded).

    Returns
    -------
    FloatArray
        Scores ``[series, time]``; NaN where the value is missing, the history too short, or its scale is 0.

    Raises
    ------
    DetectorError
        If values are beyond 1e50, or an option is out of range.

    Examples
    --------
    >>> self_starting([[80.0, 81.0, 79.0, 80.0, 83.0]]).round(3).tolist()
    [[nan, nan, nan, nan, 1.994]]
    """
    if least_history < 3 or not 0.0 <= least_scale < np.inf or not 0.0 < clip <= FARTHEST:
        raise DetectorError("least_history: at least 3; least_scale: not negative; clip: above 0, at most 8")
    x, v = _values(values, variance)
    series, times = x.shape
    there = np.isfinite(x) & np.isfinite(v)
    scores = np.full((series, times), np.nan)
    count, weight, mean, square = (np.zeros(series) for _ in range(4))
    for t in range(times):
        now = there[:, t]
        value, spread = np.where(now, x[:, t], 0.0), np.where(now, v[:, t], 1.0)
        free = np.maximum(count - 1.0, 1.0)
        scale = np.maximum(np.sqrt(square / free), least_scale)
        # A scale of nothing but rounding is no scale.
        ready = now & (count >= least_history) & (scale > 1e-9 * np.abs(mean))
        reach = np.where(ready, scale * np.sqrt(spread + 1.0 / np.where(ready, weight, 1.0)), 1.0)
        student = np.where(ready, value - mean, 0.0) / reach
        tail = special.stdtr(free, -np.abs(student))
        scores[ready, t] = np.copysign(np.minimum(-special.ndtri(tail), clip), student)[ready]
        # What lies beyond goes in as if it stood at the edge.
        edge = -special.stdtrit(free, special.ndtr(-DRAWN_IN)) * reach
        value = np.where(ready, np.clip(value, mean - edge, mean + edge), value)
        step, share = value - mean, np.where(now, 1.0 / spread, 0.0)
        part = np.divide(share, weight + share, out=np.zeros(series), where=now)
        square += np.where(now, weight * part * step**2, 0.0)
        mean += part * step
        weight, count = weight + share, count + now
    return scores


def _values(values: npt.ArrayLike, variance: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x = np.ascontiguousarray(values, dtype=np.float64)
    # Squares stay finite up to here.
    if x.ndim != 2 or np.any(np.abs(x) > 1e50):
        raise DetectorError("values: an array [series, time] of moderate numbers; NaN where a period is missing")
    given = np.asarray(variance, dtype=np.float64)
    try:
        v = np.ascontiguousarray(np.broadcast_to(given, x.shape))
    except ValueError:
        raise DetectorError(f"variance: shape {given.shape} does not fit {x.shape}") from None
    if np.any(v <= 0) or np.any(v > 1e50) or np.any(v < 1e-50):
        raise DetectorError("variance: must be above 0 and finite; NaN where a period is missing")
    return x, v
