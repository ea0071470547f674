"""The improved Farrington algorithm: is this week's count more than five years of the same season explain?

Noufaily, Enki, Farrington, Garthwaite, Andrews and Charlett (2013), "An improved algorithm for outbreak
detection in multiple surveillance systems", *Statistics in Medicine* 32, 1206-1222; after Farrington,
Andrews, Beale and Catchpole (1996), *JRSS A* 159, 547-563.

For the week at hand, on weeks from years back (the latest half year left out, so that a growing outbreak does
not hide itself):

1. fit log mu = season + trend, where season is a factor: the weeks around this date in each year are one
   level, the rest of the year is cut into ``n_periods - 1`` more;
2. weigh down past outbreaks: weight 1/s^2 where the Anscombe residual s is over a threshold; fit again;
3. drop the trend where it is not significant or would predict more than was ever seen; then fit again
   without;
4. alarm when the count is over the (1 - alpha) limit of its predictive law.

The fit is a quasi-Poisson GLM. Season being a factor, its levels have a closed form given the slope, and only
the slope is searched for, by Newton's method on the profile likelihood, which is concave::

    mu_i = Y_l r_i / w_i,   r_i = w_i exp(b t_i) / sum_l w exp(b t),   Y_l = sum_l w y     (i in level l)
    score(b) = sum_i w_i y_i t_i - sum_l Y_l mean_l(t),   information(b) = sum_l Y_l var_l(t)

with mean_l, var_l under the weights r. It is the same maximum as iterated least squares over all eleven
parameters, at a fraction of the cost; leverages and standard errors come from the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import (
    BoolArray,
    CountEvidence,
    FloatArray,
    IntArray,
    as_counts,
    check_fraction,
    excess_score,
)
from detectors.tails import count_tail, count_upper

__all__ = ["FarringtonOptions", "ThresholdMethod", "farrington"]

ThresholdMethod = Literal["delta", "nbPlugin", "muan"]

LEAST_YEARS = 3
"""Under three years a season and a trend cannot be told apart; the cold-start detectors serve instead."""

STEEPEST = 8.0
"""Largest slope searched, per year: a series that wants more (all its cases in one week) has no trend."""

LEAST_CASES = 0.5
"""Cases a reference window has at least (Jeffreys): none in five years is no proof of a rate of 0."""

NEWTON_STEPS = 40
NEWTON_CLOSE = 1e-10
BLOCK = 128
"""Series fitted together: few enough that a block's arrays stay in the cache."""


@dataclass(frozen=True, slots=True)
class FarringtonOptions:
    """How the algorithm is set; the defaults are those of Noufaily (2013) with the negative binomial limit.

    Attributes
    ----------
    years_back, half_window, n_periods
        Years of reference (fewer are used where there are fewer, down to 3); weeks on either side of this
        date that form the reference window; levels of the season (1 keeps the reference windows only, as in
        1996).
    exclude_recent
        Latest weeks left out of the fit.
    weights_threshold
        Anscombe residual above which a past week is weighed down (1996: 1).
    alpha
        One-sided level of the limit.
    threshold_method
        ``"nbPlugin"``: quantile of the negative binomial with the fitted mean; ``"muan"``: the same with the
        mean at its own 1 - alpha upper limit; ``"delta"``: normal limit on the 2/3-power scale.
    p_threshold_trend
        The trend is kept where its p-value is under this; 1 keeps it unless it extrapolates.
    limit54
        (cases, weeks): no alarm with fewer than so many cases in the latest so many weeks, this one included.
    freq
        Weeks in a year.
    r_compatible
        Reproduce R `surveillance` 1.20.3, which overwrites the model's weights after reweighting, so that its
        standard error and trend test divide by sum(w ((y - mu)/mu)^2)/(n - p); the p-value of ``"delta"`` is
        then the normal one, and the score of the other two is (y - log mu) / (upper - log mu), R taking the
        linear predictor for the mean. For checks against R only.
    """

    years_back: int = 5
    half_window: int = 3
    n_periods: int = 10
    exclude_recent: int = 26
    weights_threshold: float = 2.58
    alpha: float = 0.01
    threshold_method: ThresholdMethod = "nbPlugin"
    p_threshold_trend: float = 0.05
    limit54: tuple[int, int] = (5, 4)
    freq: int = 52
    r_compatible: bool = False

    def __post_init__(self) -> None:
        check_fraction(self.alpha, "alpha")
        rest = self.freq - 2 * self.half_window - 1
        rules = {
            f"years_back: at least {LEAST_YEARS}": self.years_back >= LEAST_YEARS,
            "half_window: not negative, and the window shorter than a year": self.half_window >= 0 and rest > 0,
            "n_periods: from 1 to the weeks outside the window, plus one": 1 <= self.n_periods <= rest + 1,
            "exclude_recent: from 0 to under a year less half a window": 0
            <= self.exclude_recent
            < self.freq - self.half_window,
            "weights_threshold: above 0": self.weights_threshold > 0,
            "p_threshold_trend: from 0 to 1": 0 <= self.p_threshold_trend <= 1,
            "limit54: cases not negative, weeks at least 1": self.limit54[0] >= 0 and self.limit54[1] >= 1,
            "threshold_method: delta, nbPlugin or muan": self.threshold_method in get_args(ThresholdMethod),
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise DetectorError("; ".join(broken))


def farrington(
    counts: npt.ArrayLike,
    *,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    options: FarringtonOptions | None = None,
) -> CountEvidence:
    """Judge one week of many series by the improved Farrington algorithm.

    Parameters
    ----------
    counts
        Events a week, ``[series, time]``, oldest first, without gaps.
    at
        Column of the week to judge; the last by default. Later columns are not looked at.
    history
        Weeks, the judged one included, for which each series has really been watched, ``[series]``; all of
        them by default. Columns before that are ignored, whatever they hold.
    options
        :class:`FarringtonOptions`.

    Returns
    -------
    CountEvidence
        ``defined`` is False (and there is no alarm) where there are fewer than three years of reference. The
        expected count is never under half an event in the whole reference window, so that a first event ever
        has a small p-value but not none.

    Raises
    ------
    DetectorError
        If `counts` has NaN, negatives or another number of dimensions, or `at` is not one of its columns.

    Examples
    --------
    >>> weeks = np.full((1, 300), 4.0)
    >>> weeks[0, -1] = 15
    >>> found = farrington(weeks)
    >>> bool(found.alarm[0]), float(found.upper[0]), round(float(found.p_value[0]), 6)
    (True, 9.0, 2e-05)
    """
    options = options or FarringtonOptions()
    y = as_counts(counts, "counts")
    now = y.shape[1] - 1 if at is None else at
    if y.shape[1] and not 0 <= now < y.shape[1]:
        raise DetectorError(f"at: must be a column from 0 to {y.shape[1] - 1}, found {now}")
    watched = _watched(history, y.shape[0], now + 1)
    years = np.minimum((watched - 1 - options.half_window) // options.freq, options.years_back)
    defined: BoolArray = years >= LEAST_YEARS
    parts = [np.empty((5, 0))]
    if defined.any():
        layout = _layout(now, options)
        rows = np.flatnonzero(defined)
        for b in (rows[i : i + BLOCK] for i in range(0, rows.size, BLOCK)):
            reference = np.take(y[b], layout.columns, axis=1)
            parts.append(_judge(reference, y[b, now], years[b], layout, options))
    fitted = np.full((5, y.shape[0]), np.nan)
    fitted[:, defined] = np.concatenate(parts, axis=1)
    return _evidence(y, now, fitted, defined, options)


def _watched(history: npt.ArrayLike | None, n_series: int, available: int) -> IntArray:
    weeks = available if history is None else as_counts(history, "history", ndim=1)
    if np.shape(weeks) not in ((), (n_series,)):
        raise DetectorError(f"history: expected {n_series} entries, one a series")
    return np.asarray(np.minimum(np.broadcast_to(weeks, (n_series,)), available), dtype=np.int64)


def _evidence(
    y: FloatArray, now: int, fitted: FloatArray, defined: BoolArray, options: FarringtonOptions
) -> CountEvidence:
    """Turn the fitted rows (expected, upper, p-value, dispersion, trend) into evidence for all series."""
    observed = y[:, now] if y.shape[1] else np.zeros(y.shape[0])
    expected, upper, p_value, dispersion, trend = fitted
    least, weeks = options.limit54
    recent = y[:, max(now - weeks + 1, 0) : now + 1].sum(axis=1)
    takes_log = options.r_compatible and options.threshold_method != "delta"
    return CountEvidence(
        observed=observed.copy(),
        expected=expected,
        upper=upper,
        p_value=np.where(defined, p_value, 1.0),
        score=excess_score(observed, np.log(expected) if takes_log else expected, upper, defined),
        dispersion=np.where(defined, dispersion, 1.0),
        alarm=defined & (observed > upper) & (recent >= least),
        trend_used=trend == 1.0,
        defined=defined,
    )


# --- The reference weeks ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """Reference weeks of one date, sorted by level of the season; the judged week belongs to level 0."""

    columns: IntArray  # [n] columns of `counts`; those before the first are 0 and get no weight
    year: IntArray  # [n] fewest years of reference with which the week is used
    starts: IntArray  # [levels] where each level begins
    level: IntArray  # [n] level of each week
    t: FloatArray  # [n] years from the middle of the reference
    t_now: float


def _layout(now: int, options: FarringtonOptions) -> _Layout:
    # Always the full number of years: with the most that any has, a row's last bits would hang on the others.
    years, freq, w = options.years_back, options.freq, options.half_window
    age = np.arange(years * freq + w, options.exclude_recent, -1)
    phase = (w - age) % freq  # weeks since the latest reference window began
    inside = phase <= 2 * w
    rest = freq - 2 * w - 1
    level = np.where(inside, 0, 1 + (phase - 2 * w - 1) * (options.n_periods - 1) // rest)
    if options.n_periods == 1:
        age, level = age[inside], level[inside]
    order = np.argsort(level, kind="stable")
    age, level = age[order], level[order]
    middle = (years * freq + w + options.exclude_recent) / 2
    return _Layout(
        columns=np.maximum(now - age, 0),
        year=-((w - age) // freq),
        starts=np.flatnonzero(np.diff(level, prepend=-1)),
        level=level,
        t=(middle - age) / freq,
        t_now=middle / freq,
    )


# --- The fit ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Fit:
    """A quasi-Poisson fit of a block of series."""

    mu: FloatArray  # [series, n]
    share: FloatArray  # [series, n] r_i, the week's share of its level
    lean: FloatArray  # [series, n] t_i less its level's mean
    slope: FloatArray  # [series] per year
    information: FloatArray  # [series] of the slope
    log_mean: FloatArray  # [series] of the judged week
    log_variance: FloatArray  # [series] its variance per unit of dispersion
    converged: BoolArray  # [series]
    trend: bool


def _fit(y: FloatArray, w: FloatArray, start: FloatArray | None, layout: _Layout) -> _Fit:
    """Fit a block, with a trend from the slopes `start`, or without one where `start` is None."""
    totals = np.add.reduceat(w * y, layout.starts, axis=1)
    if start is None:
        slope, converged = np.zeros(y.shape[0]), np.ones(y.shape[0], dtype=np.bool_)
    else:
        slope, converged = _slope(y, w, totals, start, layout)
    growth = np.exp(slope[:, None] * layout.t)
    mass, mean, information = _moments(w * growth, totals, layout)
    share = w * growth / _spread(mass, layout)
    # A week left out (w = 0) has a mean too, hence not Y_l r_i / w_i.
    mu = _spread(totals / mass, layout) * growth
    cases = np.maximum(totals[:, 0], LEAST_CASES)
    log_mean = np.log(cases) - np.log(mass[:, 0]) + slope * layout.t_now
    log_variance = 1.0 / cases
    if start is not None:
        information = np.maximum(information, 1e-300)
        log_variance = log_variance + (layout.t_now - mean[:, 0]) ** 2 / information
    lean = layout.t - _spread(mean, layout)
    trend = start is not None
    return _Fit(mu, share, lean, slope, information, log_mean, log_variance, converged, trend)


def _spread(by_level: FloatArray, layout: _Layout) -> FloatArray:
    """``[series, level]`` to ``[series, n]``. By `take`: a plain index may give Fortran order, where sums of
    a row are taken in another order and end in other last bits."""
    return np.take(by_level, layout.level, axis=1)


def _slope(
    y: FloatArray, w: FloatArray, totals: FloatArray, start: FloatArray, layout: _Layout
) -> tuple[FloatArray, BoolArray]:
    """Maximise the profile likelihood in the slope, each series until it stands still."""
    slope = start.copy()
    wanted = (w * y * layout.t).sum(axis=1)
    todo = np.arange(slope.size)
    for _ in range(NEWTON_STEPS):
        if todo.size == 0:
            break
        b = slope[todo]
        _, mean, information = _moments(w[todo] * np.exp(b[:, None] * layout.t), totals[todo], layout)
        score = wanted[todo] - (totals[todo] * mean).sum(axis=1)
        step = np.divide(score, information, out=np.zeros_like(score), where=information > 1e-12)
        moved = np.clip(b + np.clip(step, -1.0, 1.0), -STEEPEST, STEEPEST)
        slope[todo] = moved
        todo = todo[np.abs(moved - b) > NEWTON_CLOSE]
    converged = np.abs(slope) < STEEPEST
    converged[todo] = False
    return slope, converged


def _moments(rise: FloatArray, totals: FloatArray, layout: _Layout) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mass and mean date of every level under the weights `rise`, and the slope's information."""
    # A level without any weight has no cases either: its mass must only not be 0.
    mass = np.maximum(np.add.reduceat(rise, layout.starts, axis=1), 1e-300)
    turn = rise * layout.t
    mean = np.add.reduceat(turn, layout.starts, axis=1) / mass
    square = np.add.reduceat(turn * layout.t, layout.starts, axis=1) / mass
    information = (totals * np.maximum(square - mean * mean, 0.0)).sum(axis=1)
    return mass, mean, information


def _reweigh(y: FloatArray, prior: FloatArray, fit: _Fit, layout: _Layout, threshold: float) -> FloatArray:
    """Weights that take past outbreaks down, by the Anscombe residual; their sum is the number of weeks."""
    phi = np.maximum(_pearson(y, prior, fit, layout), 1.0)
    leverage = fit.share
    if fit.trend:
        leverage = leverage + prior * fit.mu * fit.lean**2 / fit.information[:, None]
    room = np.sqrt(phi[:, None] * np.maximum(1.0 - leverage, 1e-12))
    root = np.sqrt(fit.mu)
    ratio = np.divide(np.cbrt(y) ** 2, np.cbrt(root), out=np.zeros_like(y), where=root > 0)
    s = 1.5 * (ratio - root) / room
    high = s > threshold
    weight = prior * np.where(high, 1.0 / np.where(high, s, 1.0) ** 2, 1.0)
    return np.asarray(weight * (prior.sum(axis=1) / weight.sum(axis=1))[:, None])


def _pearson(y: FloatArray, w: FloatArray, fit: _Fit, layout: _Layout, power: int = 1) -> FloatArray:
    """sum(w (y - mu)^2 / mu^power) / (n - p), over the weeks in use."""
    square = np.divide(w * (y - fit.mu) ** 2, fit.mu**power, out=np.zeros_like(y), where=fit.mu > 0)
    return np.asarray(square.sum(axis=1) / _free(w, fit, layout))


def _free(w: FloatArray, fit: _Fit, layout: _Layout) -> IntArray:
    return np.asarray(np.maximum((w > 0).sum(axis=1) - layout.starts.size - fit.trend, 1))


# --- The judgement ------------------------------------------------------------------------------------------


def _judge(
    y: FloatArray, observed: FloatArray, years: IntArray, layout: _Layout, options: FarringtonOptions
) -> FloatArray:
    """Expected, upper, p-value, dispersion and trend, ``[5, series]``, of one block."""
    prior = (layout.year <= years[:, None]).astype(np.float64)
    result = np.empty((5, y.shape[0]))
    fit, w = _two_passes(y, prior, layout, options, trend=True)
    keep = _keeps_trend(y, prior, w, fit, layout, options)
    plain, w_plain = _two_passes(y[~keep], prior[~keep], layout, options, trend=False)
    result[:, keep] = _predict(y, observed, w, fit, prior, layout, options)[:, keep]
    result[:, ~keep] = _predict(y[~keep], observed[~keep], w_plain, plain, prior[~keep], layout, options)
    return result


def _two_passes(
    y: FloatArray, prior: FloatArray, layout: _Layout, options: FarringtonOptions, *, trend: bool
) -> tuple[_Fit, FloatArray]:
    """Fit, weigh past outbreaks down, fit again (steps 1 and 2)."""
    first = _fit(y, prior, np.zeros(y.shape[0]) if trend else None, layout)
    w = _reweigh(y, prior, first, layout, options.weights_threshold)
    return _fit(y, w, first.slope if trend else None, layout), w


def _keeps_trend(
    y: FloatArray, prior: FloatArray, w: FloatArray, fit: _Fit, layout: _Layout, options: FarringtonOptions
) -> BoolArray:
    """Step 3: significant, and the prediction no more than was ever seen."""
    error = np.sqrt(_sampling_dispersion(y, w, fit, layout, options) / fit.information)
    p_value = 2.0 * special.stdtr(_free(w, fit, layout), -np.abs(fit.slope) / error)
    significant = (p_value < options.p_threshold_trend) | (options.p_threshold_trend == 1.0)
    seen = np.exp(fit.log_mean) <= (y * prior).max(axis=1)
    return np.asarray(significant & seen & fit.converged)


def _sampling_dispersion(
    y: FloatArray, w: FloatArray, fit: _Fit, layout: _Layout, options: FarringtonOptions
) -> FloatArray:
    """Dispersion behind the standard errors: the model's own, or what R makes of it."""
    if options.r_compatible:
        return np.maximum(_pearson(y, w, fit, layout, power=2), 1e-12)
    return np.maximum(_pearson(y, w, fit, layout), 1.0)


def _predict(
    y: FloatArray,
    observed: FloatArray,
    w: FloatArray,
    fit: _Fit,
    prior: FloatArray,
    layout: _Layout,
    options: FarringtonOptions,
) -> FloatArray:
    """Step 4: the limit and the p-value under the predictive law."""
    z = float(special.ndtri(1.0 - options.alpha))
    phi = np.maximum(_pearson(y, w, fit, layout), 1.0)
    mean = np.maximum(np.exp(fit.log_mean), LEAST_CASES / (prior * (layout.level == 0)).sum(axis=1))
    log_variance = _sampling_dispersion(y, w, fit, layout, options) * fit.log_variance
    if options.threshold_method == "delta":
        spread = np.sqrt(4 / 9 * np.cbrt(mean) * (phi + mean * log_variance))
        centre = np.cbrt(mean) ** 2
        upper = np.maximum(centre + z * spread, 0.0) ** 1.5
        if options.r_compatible:
            p_value = special.ndtr((centre - np.cbrt(observed) ** 2) / spread)
        else:
            p_value = count_tail(observed, mean, phi)
    else:
        # The limit of the mean is kept in a float64's reach: a lone case leaves it all but unknown.
        lift = np.minimum(z * np.sqrt(log_variance), 20.0) if options.threshold_method == "muan" else 0.0
        upper = count_upper(mean * np.exp(lift), phi, options.alpha)
        p_value = count_tail(observed, mean * np.exp(lift), phi)
    return np.stack([mean, upper, p_value, phi, np.full(mean.shape, float(fit.trend))])
