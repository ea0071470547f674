"""GLR charts of counts: has the mean changed since some week, by an amount that nobody stated before?

Höhle and Paul (2008), "Count data regression charts for the monitoring of surveillance time series",
*Computational Statistics & Data Analysis* 52, 4357-4368. With the in-control means m_t known (from a
regression on season and trend), every past week k is tried as the week of the change, each with the size of
the change that fits it best::

    GLR_n = max_k max_theta sum_{t=k}^{n} log f(x_t; theta) / f(x_t; in control),    alarm when GLR_n >= c

after which the chart starts anew with week n + 1. The changes:

- ``"intercept"``: the mean is m_t u, for Poisson counts or for negative binomial ones of variance
  m + a m^2. For Poisson counts u = sum x / sum m, in closed form; else u solves
  sum (x - m u) / (1 + a m u) = 0.
- ``"epi"``: each case makes l more a week later, so that the mean is m_t + l x_{t-1}; Poisson, increase only.
  l solves sum x_{t-1} (x_t / (m_t + l x_{t-1}) - 1) = 0.

Both equations are convex and fall in the unknown, so Newton's method reaches the root from any start, and
from the left without a step too far. A week costs the square of the stretch looked at (the stretch itself for
the closed form): set `longest` for long series.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import LARGEST_COUNT, BoolArray, FloatArray, IntArray, as_counts, as_parameter

__all__ = ["Change", "Direction", "GlrEvidence", "glr"]

Change = Literal["intercept", "epi"]
Direction = Literal["inc", "dec"]
_Best: TypeAlias = tuple[FloatArray, IntArray, FloatArray]
"""Statistic, place of the change in the stretch, its kappa; all ``[series]``."""
_Part: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
"""Counts, means and the counts a week before, of some stretches; all ``[stretches, time]``."""
_Scan: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray, BoolArray], _Best]
"""From counts, means, the counts a week before and the k to try, ``[series, time]``, to the best change."""

POISSON_BELOW = 1e-9
"""A negative binomial `a` under this is the Poisson law."""

SMALLEST_MEAN = 1e-30
NO_MEAN = 1e-60
"""Mean of a week outside the stretch: it adds nothing to any sum, and may be divided by."""

LARGEST_CASES = 1e12
"""Counts up to which the one that is needed for an alarm is searched."""

R_START, R_LOST, R_MOST = float(np.log(0.5)), -18.0, 300.0
"""Start, end and bound of the search for log l as R does it; found from its figures."""

NEWTON_STEPS = 400
"""Steps double the size where the change is enormous; a handful is usual."""
NEWTON_CLOSE = 1e-11
MOST_ELEMENTS = 500_000
"""Elements of a block of stretches solved together: few enough to stay near the cache."""


@dataclass(frozen=True, slots=True)
class GlrEvidence:
    """What the chart says; every field is an array ``[series, time]``.

    Attributes
    ----------
    statistic
        GLR of each week.
    alarm
        statistic >= threshold.
    change_point
        Column in which the change is estimated to have come; -1 where the statistic is 0.
    kappa
        Size of that change: log u, or l for ``"epi"``; 0 where the statistic is 0, minus infinity for a fall
        to no events at all.
    cases
        With ``ret="cases"``: the least count of the week that would have been an alarm (the largest for
        ``"dec"``); NaN where none would, and everywhere with ``ret="value"``.
    """

    statistic: FloatArray
    alarm: BoolArray
    change_point: IntArray
    kappa: FloatArray
    cases: FloatArray


def glr(
    counts: npt.ArrayLike,
    mu0: npt.ArrayLike,
    *,
    threshold: float = 5.0,
    dispersion: float = 0.0,
    change: Change = "intercept",
    direction: Direction = "inc",
    ret: Literal["value", "cases"] = "value",
    shortest: int = 1,
    longest: int | None = None,
    r_compatible: bool = False,
) -> GlrEvidence:
    """Run the chart over many series.

    Parameters
    ----------
    counts
        Events a week, ``[series, time]``, oldest first, without gaps.
    mu0
        In-control mean, above 0: ``[time]`` or ``[series, time]``.
    threshold
        Limit c (``c.ARL`` in R), above 0.
    dispersion
        a in the variance m + a m^2 of the negative binomial law; 0 for the Poisson law.
    change, direction
        What changes, see the module; whether for more or for less.
    ret
        ``"cases"`` fills ``cases``, for some thirty times the work.
    shortest, longest
        Weeks since the change that are looked at: from `shortest` (``Mtilde`` in R) to `longest` (``M + 1``
        in R), or to the last alarm.
    r_compatible
        Reproduce R `surveillance` 1.20.3, which passes over stretches without any event (``"dec"``), and
        whose search for l gets stuck (``"epi"``: it goes on from one k to the next by Newton's method in
        log l, which runs away to 0 where that is not concave, so that most changes go unseen). For checks
        against R only.

    Returns
    -------
    GlrEvidence
        Defined for any history: the chart needs none but the means.

    Raises
    ------
    DetectorError
        If an array has NaN or is out of range, or the options do not go together.

    Examples
    --------
    >>> chart = glr([[3, 2, 9, 8, 3]], [3.0] * 5, ret="cases")
    >>> chart.statistic.round(3).tolist(), chart.alarm.tolist()
    ([[0.0, 0.0, 3.888, 6.705, 0.0]], [[False, False, False, True, False]])
    """
    x = as_counts(counts, "counts")
    m = as_parameter(mu0, "mu0", x.shape, low=SMALLEST_MEAN, high=LARGEST_COUNT)
    _check(threshold, dispersion, change, direction, ret, shortest, longest)
    rise = direction == "inc"
    scan: _Scan
    if change == "epi":
        scan = _epi_as_r if r_compatible else _epi
    elif dispersion < POISSON_BELOW:
        scan = partial(_poisson, rise=rise, skip_empty=r_compatible)
    else:
        scan = partial(_negative_binomial, a=dispersion, rise=rise, skip_empty=r_compatible)
    return _run(x, m, scan, threshold, shortest, longest, rise=rise, cases=ret == "cases")


def _check(
    threshold: float, dispersion: float, change: str, direction: str, ret: str, shortest: int, longest: int | None
) -> None:
    rules = {
        "threshold: finite and above 0": 0.0 < threshold < np.inf,
        "dispersion: finite and not negative": 0.0 <= dispersion < np.inf,
        "change: intercept or epi": change in get_args(Change),
        "direction: inc or dec": direction in get_args(Direction),
        "ret: value or cases": ret in ("value", "cases"),
        "shortest: at least 1": shortest >= 1,
        "longest: at least shortest": longest is None or longest >= shortest,
        "change: epi goes with dispersion 0 and direction inc": change != "epi"
        or (dispersion == 0.0 and direction == "inc"),
    }
    broken = [rule for rule, kept in rules.items() if not kept]
    if broken:
        raise DetectorError("; ".join(broken))


# --- The chart ----------------------------------------------------------------------------------------------


def _run(
    x: FloatArray,
    m: FloatArray,
    scan: _Scan,
    threshold: float,
    shortest: int,
    longest: int | None,
    *,
    rise: bool,
    cases: bool,
) -> GlrEvidence:
    before = np.concatenate([np.zeros((x.shape[0], 1)), x], axis=1)  # the count of the week before
    statistic, kappa, wanted = np.zeros(x.shape), np.zeros(x.shape), np.full(x.shape, np.nan)
    change_point = np.full(x.shape, -1, dtype=np.int64)
    anew = np.zeros(x.shape[0], dtype=np.int64)  # the week after the last alarm
    for n in range(x.shape[1]):
        left = 0 if longest is None else max(n + 1 - longest, 0)
        k = np.arange(left, n + 1)
        stretch = _columns((x, m, before), slice(left, n + 1))
        tried: BoolArray = (k >= anew[:, None]) & (k <= n + 1 - shortest)
        statistic[:, n], place, kappa[:, n] = scan(*stretch, tried)
        change_point[:, n] = np.where(statistic[:, n] > 0, left + place, -1)
        if cases:
            wanted[:, n] = _cases(stretch, tried, scan, threshold, rise=rise)
        anew = np.where(statistic[:, n] >= threshold, n + 1, anew)
    return GlrEvidence(statistic, statistic >= threshold, change_point, kappa, wanted)


def _cases(stretch: _Part, tried: BoolArray, scan: _Scan, threshold: float, *, rise: bool) -> FloatArray:
    """The count of the last week at which the alarm begins (rise) or ends; by doubling, then halving."""
    x, m, _ = stretch
    low = np.full(x.shape[0], -1.0)
    high = np.full(x.shape[0], np.inf)
    at = np.ceil(m[:, -1])
    todo = np.arange(x.shape[0])
    while todo.size:
        trial = np.take(x, todo, axis=0)
        trial[:, -1] = at[todo]
        _, means, lagged = _rows(stretch, todo)
        value, _, _ = scan(trial, means, lagged, np.take(tried, todo, axis=0))
        beyond = (value >= threshold) == rise
        high[todo] = np.where(beyond, at[todo], high[todo])
        low[todo] = np.where(beyond, low[todo], at[todo])
        at = np.where(np.isfinite(high), np.floor((low + high) / 2), 2.0 * low + 2.0)
        todo = todo[(high[todo] - low[todo] > 1.0) & (low[todo] < LARGEST_CASES)]
    edge = high if rise else high - 1.0
    return np.where(np.isfinite(high) & (edge >= 0), edge, np.nan)


def _best(value: FloatArray, kappa: FloatArray) -> _Best:
    """Pick the week of the change (the earliest of equals); `value` is 0 where there is none."""
    place = value.argmax(axis=1)
    rows = np.arange(place.size)
    statistic = value[rows, place]
    return statistic, place.astype(np.int64), np.where(statistic > 0, kappa[rows, place], 0.0)


def _from_here(values: FloatArray) -> FloatArray:
    """Sums from each week to the last, ``[series, time]``; added one by one, so that no bit hangs on others."""
    return np.cumsum(values[:, ::-1], axis=1)[:, ::-1]


# --- Changes of the level -----------------------------------------------------------------------------------


def _poisson(
    x: FloatArray, m: FloatArray, before: FloatArray, tried: BoolArray, *, rise: bool, skip_empty: bool
) -> _Best:
    events, expected = _from_here(x), _from_here(m)
    meant = tried & ((events > expected) if rise else (events < expected))
    if skip_empty:
        meant &= events > 0
    value = np.where(meant, np.maximum(special.kl_div(events, expected), 0.0), 0.0)
    ratio = events / expected
    return _best(value, np.log(ratio, out=np.full_like(ratio, -np.inf), where=ratio > 0))


def _negative_binomial(
    x: FloatArray, m: FloatArray, before: FloatArray, tried: BoolArray, *, a: float, rise: bool, skip_empty: bool
) -> _Best:
    gain = _from_here((x - m) / (1.0 + a * m))
    meant = tried & ((gain > 0) if rise else (gain < 0))
    if skip_empty:
        meant &= _from_here(x) > 0

    def slope(part: _Part, u: FloatArray) -> tuple[FloatArray, FloatArray]:
        x, m, _ = part
        bulk = 1.0 + a * m * u
        return ((x - m * u) / bulk).sum(axis=1), (m * (1.0 + a * x) / bulk**2).sum(axis=1)

    def value(part: _Part, u: FloatArray) -> FloatArray:
        x, m, _ = part
        terms = special.xlogy(x, u) - (x + 1.0 / a) * (np.log1p(a * m * u) - np.log1p(a * m))
        return np.asarray(terms.sum(axis=1))

    found, u = _maximise(x, m, before, meant, slope, value, 1.0 if rise else 0.0)
    return _best(found, np.log(u, out=np.full_like(u, -np.inf), where=u > 0))


# --- Changes that feed on themselves ------------------------------------------------------------------------


def _epi(x: FloatArray, m: FloatArray, before: FloatArray, tried: BoolArray) -> _Best:
    meant = tried & (_from_here(before * (x - m) / m) > 0)
    return _best(*_maximise(x, m, before, meant, _epi_slope, _epi_value, 0.0))


def _epi_slope(part: _Part, rate: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Slope of the log-likelihood in l, and its fall."""
    x, m, before = part
    mean = m + rate * before
    return (before * (x / mean - 1.0)).sum(axis=1), (x * (before / mean) ** 2).sum(axis=1)


def _epi_value(part: _Part, rate: FloatArray) -> FloatArray:
    x, m, before = part
    more = rate * before
    return np.asarray((x * np.log1p(more / m) - more).sum(axis=1))


def _epi_as_r(x: FloatArray, m: FloatArray, before: FloatArray, tried: BoolArray) -> _Best:
    """Newton's method in log l, from one k to the next, until it stands still or has run away."""
    log_rate = np.full(x.shape[0], R_START)
    value, kappa = np.zeros(x.shape), np.zeros(x.shape)
    for k in range(x.shape[1]):
        stretch = _columns((x, m, before), slice(k, None))
        todo = np.flatnonzero(tried[:, k] & (log_rate >= R_LOST))
        for _ in range(NEWTON_STEPS):
            if todo.size == 0:
                break
            rate = np.exp(log_rate[todo])
            slope, fall = _epi_slope(_rows(stretch, todo), rate[:, None])
            bend = slope - rate * fall
            step = np.divide(slope, bend, out=np.zeros_like(bend), where=np.abs(bend) > 1e-200)
            log_rate[todo] = np.minimum(log_rate[todo] - step, R_MOST)
            todo = todo[(np.abs(step) > NEWTON_CLOSE) & (log_rate[todo] >= R_LOST)]
        rows = np.flatnonzero(tried[:, k])
        rate = np.exp(log_rate[rows])
        value[rows, k] = np.maximum(_epi_value(_rows(stretch, rows), rate[:, None]), 0.0)
        kappa[rows, k] = rate
    return _best(value, kappa)


def _columns(part: _Part, wanted: slice) -> _Part:
    x, m, before = (np.ascontiguousarray(array[:, wanted]) for array in part)
    return x, m, before


def _rows(part: _Part, rows: IntArray) -> _Part:
    x, m, before = (np.take(array, rows, axis=0) for array in part)
    return x, m, before


# --- The size of a change -----------------------------------------------------------------------------------


def _maximise(
    x: FloatArray,
    m: FloatArray,
    before: FloatArray,
    meant: BoolArray,
    slope: Callable[[_Part, FloatArray], tuple[FloatArray, FloatArray]],
    value: Callable[[_Part, FloatArray], FloatArray],
    start: float,
) -> tuple[FloatArray, FloatArray]:
    """Fit the size of the change for every series and k that are `meant`: log-likelihood ratio and size.

    `slope` gives a convex falling function and its fall; `start` lies left of its root.
    """
    found, size = np.zeros(x.shape), np.full(x.shape, start)
    series, places = np.nonzero(meant)
    width = x.shape[1]
    block = max(MOST_ELEMENTS // max(width, 1), 1)
    for first in range(0, series.size, block):
        rows, k = series[first : first + block], places[first : first + block]
        late = np.arange(width) >= k[:, None]
        part = (
            np.where(late, np.take(x, rows, axis=0), 0.0),
            np.where(late, np.take(m, rows, axis=0), NO_MEAN),
            np.where(late, np.take(before, rows, axis=0), 0.0),
        )
        root = _newton(part, slope, start)
        found[rows, k] = np.maximum(value(part, root[:, None]), 0.0)
        size[rows, k] = root
    return found, size


def _newton(
    part: _Part, slope: Callable[[_Part, FloatArray], tuple[FloatArray, FloatArray]], start: float
) -> FloatArray:
    root = np.full(part[0].shape[0], start)
    todo = np.arange(root.size)
    for _ in range(NEWTON_STEPS):
        if todo.size == 0:
            break
        height, fall = slope(_rows(part, todo), root[todo, None])
        step = np.divide(height, fall, out=np.zeros_like(fall), where=fall > 0)
        root[todo] = np.maximum(root[todo] + step, start)
        # From the left every step goes up, but for the last one's rounding.
        todo = todo[step > NEWTON_CLOSE * root[todo]]
    return root
