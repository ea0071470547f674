"""EWMA and two-sided CUSUM of continuous scores: has the satisfaction index, or the loss rate, drifted?

Roberts (1959), *Technometrics* 1, 239-250; Lucas and Saccucci (1990), *Technometrics* 32, 1-12; Page (1954),
*Biometrika* 41, 100-115; Lucas and Crosier (1982), *Technometrics* 24, 199-205. Scores z are standard normal if nothing
has changed::

    EWMA    W_t = (1 - lam) W_{t-1} + lam z_t,        alarm where |W_t| > L sd(W_t)
    CUSUM   C+_t = max(0, C+_{t-1} + z_t - k), C-_t = max(0, C-_{t-1} - z_t - k), alarm where one exceeds h

Limits come from a stated average run length (ARL), in observed periods, never from a guess. The run lengths solve
Page's integral equation by Gauss-Legendre nodes (Crowder 1987, *Technometrics* 29, 401-407), to eight digits
or more.

Scores of a satisfaction index or a loss rate come from :mod:`detectors.self_starting`.
A missing period (NaN) leaves every statistic as it is: run lengths count periods with data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray, as_parameter

__all__ = [
    "EwmaEvidence",
    "NormalCusumEvidence",
    "cusum_arl",
    "cusum_limit",
    "ewma_arl",
    "ewma_chart",
    "ewma_limit",
    "normal_cusum",
]

LEAST_LAM = 0.02
LEAST_K = 0.05
LONGEST_RUN = 1e9
"""Run lengths asked for end here: beyond, the integral equation loses its digits."""


@dataclass(frozen=True, slots=True)
class EwmaEvidence:
    """What an EWMA chart says.

    Attributes
    ----------
    path
        W over its standard deviation after each period, ``[series, time]``: compare with the limit L.
    high, low
        Alarm above and below, ``[series, time]``; False in missing periods.
    p_value
        Two-sided normal tail of the latest value, ``[series]``; 1 before any data. Tests of successive periods are
        strongly dependent: for alarms use the limit.
    statistic, seen
        W and the number of observed periods, ``[series]``: to go on with.
    """

    path: FloatArray
    high: BoolArray
    low: BoolArray
    p_value: FloatArray
    statistic: FloatArray
    seen: IntArray


@dataclass(frozen=True, slots=True)
class NormalCusumEvidence:
    """What a two-sided CUSUM says.

    Attributes
    ----------
    upper_path, lower_path
        C+ and C- after each period, before any reset, ``[series, time]``.
    high, low
        Where they exceed the limit, ``[series, time]``; False in missing periods.
    upper, lower
        What the next period adds to, ``[series]``.
    """

    upper_path: FloatArray
    lower_path: FloatArray
    high: BoolArray
    low: BoolArray
    upper: FloatArray
    lower: FloatArray


# --- Charts ---------------------------------------------------------------------------------------------------


def ewma_chart(
    scores: npt.ArrayLike,
    lam: float,
    limit: float,
    *,
    exact_limits: bool = False,
    start: npt.ArrayLike = 0.0,
    seen: npt.ArrayLike = 0,
) -> EwmaEvidence:
    """Run an EWMA over the scores of many series.

    Parameters
    ----------
    scores
        Standard normal if nothing has changed, ``[series, time]``; NaN where a period is missing.
    lam
        Weight of the latest period, 0.02 to 1.
    limit
        L in standard deviations of W, from :func:`ewma_limit`.
    exact_limits
        Whether the standard deviation is that of the periods seen so far, lam / (2 - lam) (1 - (1 - lam)^(2 t)),
        which makes the first periods as sharp as later ones; by default that of the long run, lam / (2 - lam).
    start, seen
        W and the number of periods before the first column, one or ``[series]``: the last run's, to go on.

    Raises
    ------
    DetectorError
        If scores are infinite, or a parameter is out of range.

    Examples
    --------
    >>> chart = ewma_chart([[0.0, -2.5, float("nan"), -2.5, -2.5]], 0.25, 2.998)
    >>> chart.low.tolist(), chart.path.round(3).tolist()
    ([[False, False, False, False, True]], [[0.0, -1.654, -1.654, -2.894, -3.824]])
    """
    z = _scores(scores)
    series, times = z.shape
    _check_lam(lam)
    if not 0.0 < limit < np.inf:
        raise DetectorError(f"limit: must be above 0 and finite, found {limit!r}")
    now = as_parameter(start, "start", (series,), low=-np.inf, high=np.inf).copy()
    count = as_parameter(seen, "seen", (series,), low=0.0, high=2.0**53, open_ends=False).copy()
    path = np.empty((series, times))
    there = np.isfinite(z)
    for t in range(times):
        now = np.where(there[:, t], now + lam * (np.where(there[:, t], z[:, t], 0.0) - now), now)
        count += there[:, t]
        path[:, t] = now / _ewma_sd(lam, count, exact_limits)
    last = now / _ewma_sd(lam, count, exact_limits)
    p_value = np.where(count > 0, 2.0 * special.ndtr(-np.abs(last)), 1.0)
    return EwmaEvidence(path, there & (path > limit), there & (path < -limit), p_value, now, count.astype(np.int64))


def normal_cusum(
    scores: npt.ArrayLike,
    k: float,
    h: float,
    *,
    reset: bool = True,
    upper: npt.ArrayLike = 0.0,
    lower: npt.ArrayLike = 0.0,
) -> NormalCusumEvidence:
    """Run a two-sided CUSUM over the scores of many series.

    Parameters
    ----------
    scores
        Standard normal if nothing has changed, ``[series, time]``; NaN where a period is missing.
    k
        Half the shift to detect, in standard deviations, not negative.
    h
        Limit, from :func:`cusum_limit`.
    reset
        Whether a side starts again from 0 after its alarm.
    upper, lower
        Statistics before the first column, one or ``[series]``: the last run's, or a head start (h / 2).

    Raises
    ------
    DetectorError
        If scores are infinite, or a parameter is out of range.

    Examples
    --------
    >>> chart = normal_cusum([[2.0, 2.0, 2.0, 2.0]], 0.5, 4.0)
    >>> chart.upper_path.tolist(), chart.high.tolist()
    ([[1.5, 3.0, 4.5, 1.5]], [[False, False, True, False]])
    """
    z = _scores(scores)
    series, times = z.shape
    _check_k(k)
    if not 0.0 < h < np.inf:
        raise DetectorError(f"h: must be above 0 and finite, found {h!r}")
    there = np.isfinite(z)
    paths = []
    ends = []
    for sign, start, name in ((1.0, upper, "upper"), (-1.0, lower, "lower")):
        now = as_parameter(start, name, (series,), low=0.0, high=np.inf, open_ends=False).copy()
        path = np.empty((series, times))
        for t in range(times):
            step = sign * np.where(there[:, t], z[:, t], 0.0) - k
            path[:, t] = now = np.where(there[:, t], np.maximum(now + step, 0.0), now)
            if reset:
                now = np.where(now > h, 0.0, now)
        paths.append(path)
        ends.append(now)
    above, below = paths
    return NormalCusumEvidence(above, below, there & (above > h), there & (below > h), ends[0], ends[1])


# --- Run lengths and limits -----------------------------------------------------------------------------------


def ewma_arl(limit: float, lam: float, shift: float = 0.0, *, exact_limits: bool = False) -> float:
    """Average run length of :func:`ewma_chart` from its start, in observed periods.

    Parameters
    ----------
    limit, lam, exact_limits
        As for the chart.
    shift
        Mean of the scores from the first period on.

    Examples
    --------
    >>> round(ewma_arl(2.998, 0.25), 2), round(ewma_arl(2.998, 0.25, 1.0), 2)
    (499.84, 11.14)
    """
    _check_lam(lam)
    if not 0.0 < limit < np.inf or not np.isfinite(shift):
        raise DetectorError("limit: above 0 and finite; shift: finite")
    return _ewma_arl(float(limit), float(lam), float(shift), exact_limits)


def ewma_limit(arl0: float, lam: float, *, exact_limits: bool = False) -> float:
    """Limit L at which a false alarm, high or low, comes once in `arl0` observed periods; to 4 decimals, cached.

    Examples
    --------
    >>> ewma_limit(500.0, 0.25)
    2.9981
    """
    _check_lam(lam)
    _check_arl0(arl0)
    return _ewma_limit(float(arl0), float(lam), exact_limits)


def cusum_arl(h: float, k: float, shift: float = 0.0, *, sides: int = 2, head_start: float = 0.0) -> float:
    """Average run length of :func:`normal_cusum`, in observed periods.

    Parameters
    ----------
    h, k
        Limit and reference value, as for the chart.
    shift
        Mean of the scores from the first period on.
    sides
        2 for the chart, 1 for its upper side alone.
    head_start
        Where the statistics start, from 0 to h.

    Examples
    --------
    >>> round(cusum_arl(4.0, 0.5), 2), round(cusum_arl(5.0, 0.5, sides=1), 3)
    (167.68, 930.887)
    """
    _check_k(k)
    if not 0.0 < h < np.inf or not np.isfinite(shift) or not 0.0 <= head_start <= h:
        raise DetectorError("h: above 0 and finite; shift: finite; head_start: from 0 to h")
    if sides not in (1, 2):
        raise DetectorError(f"sides: 1 or 2, found {sides!r}")
    up, up_ahead = _one_sided(h, k, shift, head_start)
    if sides == 1:
        return up_ahead
    down, down_ahead = _one_sided(h, k, -shift, head_start)
    # Lucas and Crosier: when one side alarms, the other stands at 0.
    return (up_ahead * down + down_ahead * up - up * down) / (up + down)


def cusum_limit(arl0: float, k: float, *, sides: int = 2) -> float:
    """Limit h at which a false alarm comes once in `arl0` observed periods; to 4 decimals, cached.

    Examples
    --------
    >>> cusum_limit(465.44, 0.5)
    5.0
    """
    if not LEAST_K <= k < np.inf:
        raise DetectorError(f"k: must be finite and at least {LEAST_K}, found {k!r}; for smaller shifts use an EWMA")
    _check_arl0(arl0)
    if sides not in (1, 2):
        raise DetectorError(f"sides: 1 or 2, found {sides!r}")
    return _cusum_limit(float(arl0), float(k), sides)


@lru_cache(maxsize=4096)
def _ewma_limit(arl0: float, lam: float, exact_limits: bool) -> float:
    def excess(limit: float) -> float:
        return math.log(_ewma_arl(limit, lam, 0.0, exact_limits) / arl0)

    # At lam = 1, where L is largest, a run of LONGEST_RUN needs 6.11.
    return round(float(optimize.brentq(excess, 0.01, 6.2, xtol=1e-6)), 4)


@lru_cache(maxsize=4096)
def _cusum_limit(arl0: float, k: float, sides: int) -> float:
    def excess(h: float) -> float:
        length = cusum_arl(h, k, sides=sides)
        # Far beyond LONGEST_RUN the equations are singular to rounding.
        return math.log(length / arl0) if 0.0 < length < 1e4 * LONGEST_RUN else math.inf

    low, high = 1e-4, 2.0
    if excess(low) >= 0:
        return low  # with so large a k even the first score beyond it comes too seldom
    while excess(high) < 0:
        low, high = high, 1.25 * high
    # An infinite end is no end for the root finder; halve toward the root first.
    while math.isinf(excess(high)):
        middle = (low + high) / 2.0
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    return round(float(optimize.brentq(excess, low, high, xtol=1e-6)), 4)


def _ewma_arl(limit: float, lam: float, shift: float, exact_limits: bool) -> float:
    """L(w) = 1 + integral over the next W inside the limits of L(W) times its density, solved at the nodes."""
    end = limit * math.sqrt(lam / (2.0 - lam))
    at, weight = _nodes(-end, end, lam)

    def kernel(start: FloatArray, to: FloatArray, mass: FloatArray) -> FloatArray:
        return _density((to - (1.0 - lam) * start[:, None]) / lam - shift) * (mass / lam)

    later = np.linalg.solve(np.eye(at.size) - kernel(at, at, weight), np.ones(at.size))
    if not exact_limits or lam == 1.0:
        return float(1.0 + kernel(np.zeros(1), at, weight)[0] @ later)
    # Backwards from a period whose limits are those of the long run.
    for t in range(math.ceil(math.log(1e-10) / (2.0 * math.log1p(-lam))), 0, -1):
        inside, before = (math.sqrt(-math.expm1(2.0 * s * math.log1p(-lam))) for s in (t, t - 1))
        later = 1.0 + kernel(at * before, at * inside, weight * inside) @ later
    # The number of nodes is odd: the middle one is 0, where the chart starts.
    return float(later[at.size // 2])


def _one_sided(h: float, k: float, shift: float, head_start: float) -> tuple[float, float]:
    """Run lengths of max(0, C + z - k) from 0 and from `head_start`."""
    at, weight = _nodes(0.0, h, 1.0)
    start = np.concatenate([[0.0, head_start], at])
    to_zero = special.ndtr(k - shift - start)
    inside = _density(at + k - shift - start[:, None]) * weight
    # Unknowns: the length from 0 and from each node.
    rows = np.concatenate([[0], np.arange(2, start.size)])
    system = np.eye(rows.size) - np.concatenate([to_zero[rows, None], inside[rows]], axis=1)
    lengths = np.linalg.solve(system, np.ones(rows.size))
    ahead = 1.0 + to_zero[1] * lengths[0] + inside[1] @ lengths[1:]
    return float(lengths[0]), float(ahead)


def _nodes(low: float, high: float, spread: float) -> tuple[FloatArray, FloatArray]:
    """Gauss-Legendre nodes and weights on (low, high), enough for a normal density of this standard deviation."""
    number = min(41 + 4 * math.ceil((high - low) / spread), 801) | 1
    unit, weight = _legendre(number)
    half = (high - low) / 2.0
    return (low + high) / 2.0 + half * unit, half * weight


@lru_cache(maxsize=64)
def _legendre(number: int) -> tuple[FloatArray, FloatArray]:
    unit, weight = special.roots_legendre(number)
    return np.asarray(unit), np.asarray(weight)


def _density(z: FloatArray) -> FloatArray:
    return np.asarray(np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi))


# --- Checks ---------------------------------------------------------------------------------------------------


def _ewma_sd(lam: float, count: FloatArray, exact_limits: bool) -> FloatArray:
    full = lam / (2.0 - lam)
    if not exact_limits or lam == 1.0:
        return np.full(count.shape, math.sqrt(full))
    return np.sqrt(full * -np.expm1(2.0 * np.maximum(count, 1.0) * math.log1p(-lam)))


def _scores(scores: npt.ArrayLike) -> FloatArray:
    z = np.ascontiguousarray(scores, dtype=np.float64)
    if z.ndim != 2 or np.any(np.isinf(z)):
        raise DetectorError("scores: an array [series, time] without infinities; NaN where a period is missing")
    return z


def _check_lam(lam: float) -> None:
    if not LEAST_LAM <= lam <= 1.0:
        raise DetectorError(f"lam: must be from {LEAST_LAM} to 1, found {lam!r}")


def _check_k(k: float) -> None:
    if not 0.0 <= k < np.inf:
        raise DetectorError(f"k: must be finite and not negative, found {k!r}")


def _check_arl0(arl0: float) -> None:
    if not 2.0 <= arl0 <= LONGEST_RUN:
        raise DetectorError(f"arl0: from 2 to {LONGEST_RUN:g} periods, found {arl0!r}")
