"""The Tocsin count detector: is this week's count a surge, last week's excess being taken into account?

An outbreak rarely keeps to one week, and half of it may hide in each of two. Testing one- and two-week sums
side by side costs twice the false alarms. Here last week's surprise instead *weights* this week's test::

    p = P(Y_now >= y_now) / e(y_last),         E e(Y_last) = 1 if nothing has changed

A p-value divided by an e-value that is known beforehand is a p-value again, exactly, at any depth: P(p <= a)
= E min(1, a e) <= a (Genovese, Roeder and Wasserman 2006, *Biometrika* 93; Ignatiadis, Wang and Ramdas 2024,
"E-values as unnormalized weights in multiple testing", *Biometrika* 111). The e-value is a bet: the share
``carry`` is staked on an outbreak that began last week and raised it by ``rise`` standard deviations,

    e(y) = 1 - carry + carry [y <= u] f_rise(y) / (f_0(y) P_rise(Y <= u)),

u being last week's own limit: a week that raised the alarm by itself is not counted again for this one.

Both weeks' laws are negative binomial about :mod:`detectors.baseline`'s forecast. What the history leaves
unknown is in them: the mean's variance widens the law, last week updates it (so that both laws together are
those of the two weeks), and the tail is averaged over the dispersion's posterior.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.baseline import (
    Baseline,
    BaselineModel,
    DispersionPrior,
    fit_baseline,
    pool_dispersion,
)
from detectors.errors import DetectorError
from detectors.evidence import BoolArray, CountEvidence, FloatArray, as_counts, check_fraction, excess_score
from detectors.tails import count_tail, count_upper

__all__ = ["SurgeOptions", "dispersion_prior", "surge"]

LEAST_WEEKS = 26
"""Weeks of baseline under which the detector is silent; the cold-start detectors serve instead."""

NODES, NODE_WEIGHTS = (np.asarray(a) for a in np.polynomial.hermite_e.hermegauss(5))
"""Gauss-Hermite rule for the mean over the dispersion's posterior."""

MOST_LEVEL = 0.5
"""The weight never lifts the level above this, so that an alarm needs events."""

SMOOTH_ABOVE = 1e7
"""Counts above which likelihood ratios lose their digits; the weight is 1 there."""

HUGE = 1e12
"""Means above which the incomplete beta integral fails (SciPy gives NaN); the normal law serves there."""

MAX_GALLOP = 1100


@dataclass(frozen=True, slots=True)
class SurgeOptions:
    """How the detector is set.

    Attributes
    ----------
    alpha
        One-sided level: an alarm is a p-value of at most this. False alarms are fewer, counts being whole
        numbers and past outbreaks in the history: about 1% of weeks at the default.
    years
        Years of history used, where there are so many.
    exclude_recent
        Latest weeks before the judged one left out of the fit, so that an outbreak does not hide itself.
    harmonics
        Waves of the season.
    trend_sd, season_sd
        Prior standard deviations of the trend (log per year) and the first harmonic's coefficients; the j-th
        harmonic's is 1/j of that.
    weights_threshold
        Anscombe residual above which a past week is weighed down.
    rise, carry
        Rise of last week, in standard deviations, that the weight bets on, and the share staked; a carry of 0
        tests this week alone.
    least_cases
        (cases, weeks): no alarm with fewer cases in the latest weeks, this one included.
    freq
        Weeks in a year.
    """

    alpha: float = 0.0157
    years: int = 5
    exclude_recent: int = 4
    harmonics: int = 2
    trend_sd: float = 0.2
    season_sd: float = 1.0
    weights_threshold: float = 3.0
    rise: float = 2.25
    carry: float = 0.5
    least_cases: tuple[int, int] = (3, 4)
    freq: int = 52

    def __post_init__(self) -> None:
        check_fraction(self.alpha, "alpha")
        rules = {
            "alpha: at most 0.25": self.alpha <= 0.25,
            "years: at least 1": self.years >= 1,
            "exclude_recent: at least 1, under a year": 1 <= self.exclude_recent < self.freq,
            "harmonics: from 0 to a quarter of the weeks in a year": 0 <= self.harmonics <= self.freq // 4,
            "trend_sd and season_sd: from 1e-6 to 1e6": 1e-6 <= self.trend_sd <= 1e6 and 1e-6 <= self.season_sd <= 1e6,
            "weights_threshold: at least 1": self.weights_threshold >= 1,
            "rise: above 0, at most 100": 0 < self.rise <= 100,
            "carry: from 0 to under 1": 0 <= self.carry < 1,
            "least_cases: cases not negative, weeks at least 1": self.least_cases[0] >= 0 and self.least_cases[1] >= 1,
            "freq: at least 4": self.freq >= 4,
        }
        broken = [rule for rule, kept in rules.items() if not kept]
        if broken:
            raise DetectorError("; ".join(broken))


def surge(
    counts: npt.ArrayLike,
    *,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    prior: DispersionPrior | None = None,
    options: SurgeOptions | None = None,
) -> CountEvidence:
    """Judge one week of many series.

    Parameters
    ----------
    counts
        Events a week, ``[series, time]``, oldest first, without gaps.
    at
        Column of the week to judge; the last by default. Later columns are not looked at.
    history
        Weeks, the judged one included, for which each series has really been watched, ``[series]``; all of
        them by default. Columns before that are ignored, whatever they hold.
    prior
        What is known of the dispersion beforehand: from :func:`dispersion_prior`, or the default. An
        argument, so that no series' evidence hangs on which others came along.
    options
        :class:`SurgeOptions`.

    Returns
    -------
    CountEvidence
        ``p_value`` has last week's weight in it, and so has ``upper``: after a week of surprise it is lower. (The
        weight knows ``alpha``, for it leaves out what was an alarm; so the p-value hangs on it a little.)
        ``defined`` is False with under 26 weeks of baseline.

    Raises
    ------
    DetectorError
        If `counts` has NaN, negatives or another number of dimensions, or `at` is not one of its columns.

    Examples
    --------
    >>> weeks = np.full((1, 120), 4)
    >>> weeks[0, -1] = 15
    >>> found = surge(weeks)
    >>> bool(found.alarm[0]), float(found.upper[0])
    (True, 10.0)
    """
    options, prior = options or SurgeOptions(), prior or DispersionPrior()
    y, now, watched = _frame(counts, at, history)
    defined: BoolArray = watched - 1 - options.exclude_recent >= LEAST_WEEKS
    fitted = np.full((4, y.shape[0]), np.nan)
    if defined.any():
        baseline = _baseline(y[defined], now, watched[defined], prior, options)
        fitted[:, defined] = _judge(y[defined, now], y[defined, now - 1], baseline, options)
    expected, upper, p_value, dispersion = fitted
    observed = y[:, now].copy() if y.shape[1] else np.zeros(y.shape[0])
    least, weeks = options.least_cases
    recent = y[:, max(now - weeks + 1, 0) : now + 1].sum(axis=1)
    return CountEvidence(
        observed=observed,
        expected=expected,
        upper=upper,
        p_value=np.where(defined, p_value, 1.0),
        score=excess_score(observed, expected, upper, defined),
        dispersion=np.where(defined, dispersion, 1.0),
        alarm=defined & (observed > upper) & (recent >= least),
        trend_used=defined.copy(),
        defined=defined,
    )


def dispersion_prior(
    counts: npt.ArrayLike,
    *,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    options: SurgeOptions | None = None,
) -> DispersionPrior:
    """Learn the dispersion's prior from many series; the parameters are those of :func:`surge`.

    Series without an event, or with too short a history, say nothing. To be learned now and then and kept, as
    configuration is: evidence computed with another prior has other bits.
    """
    options = options or SurgeOptions()
    y, now, watched = _frame(counts, at, history)
    rows = watched - 1 - options.exclude_recent >= LEAST_WEEKS
    if y.shape[1]:
        rows &= (y[:, :now] * (np.arange(now) > now - watched[:, None])).sum(axis=1) > 0
    if not rows.any():
        return DispersionPrior()
    flat = DispersionPrior(spread=10.0)
    found = _baseline(y[rows], now, watched[rows], flat, options)
    return pool_dispersion(found.raw_dispersion, found.raw_variance)


def _frame(
    counts: npt.ArrayLike, at: int | None, history: npt.ArrayLike | None
) -> tuple[FloatArray, int, npt.NDArray[np.int64]]:
    """Checked counts, the judged column, and the weeks each series has been watched."""
    y = as_counts(counts, "counts")
    now = y.shape[1] - 1 if at is None else at
    if y.shape[1] and not 0 <= now < y.shape[1]:
        raise DetectorError(f"at: must be a column from 0 to {y.shape[1] - 1}, found {now}")
    weeks = now + 1 if history is None else as_counts(history, "history", ndim=1)
    if np.shape(weeks) not in ((), (y.shape[0],)):
        raise DetectorError(f"history: expected {y.shape[0]} entries, one a series")
    return y, now, np.minimum(np.broadcast_to(weeks, (y.shape[0],)), now + 1).astype(np.int64)


def _baseline(
    y: FloatArray, now: int, watched: npt.NDArray[np.int64], prior: DispersionPrior, options: SurgeOptions
) -> Baseline:
    # Always the same number of columns, for a row's last bits would hang on the longest history in the batch.
    first = max(now - options.years * options.freq, 0)
    age = now - np.arange(first, now)
    used = (age > options.exclude_recent) & (age < watched[:, None])
    model = BaselineModel(
        harmonics=options.harmonics,
        trend_sd=options.trend_sd,
        season_sd=options.season_sd,
        weights_threshold=options.weights_threshold,
        freq=options.freq,
    )
    past = np.where(used, y[:, first:now], 0.0)
    return fit_baseline(past, used.astype(np.float64), prior, model)


# --- The judgement ------------------------------------------------------------------------------------------


def _judge(observed: FloatArray, last: FloatArray, baseline: Baseline, options: SurgeOptions) -> FloatArray:
    """Expected, upper, p-value and dispersion, ``[4, series]``."""
    weight = _last_weeks_weight(last, baseline, options)
    b = _updated(last, baseline)
    nodes = _nodes(b)
    upper = _upper(b.now, nodes, np.minimum(options.alpha * weight, MOST_LEVEL))
    p_value = np.where(observed <= 0, 1.0, np.minimum(_tail(observed, b.now, nodes) / weight, 1.0))
    return np.stack([b.now, upper, p_value, b.dispersion])


def _last_weeks_weight(last: FloatArray, b: Baseline, options: SurgeOptions) -> FloatArray:
    """The e-value of last week's count."""
    mean, phi = b.last, b.dispersion + b.last * b.last_variance
    rise = options.rise * np.sqrt(phi * mean)
    raised, raised_phi = mean + rise, (phi * mean + rise) / (mean + rise)
    limit = count_upper(mean, phi, options.alpha)
    usable = (last <= limit) & (mean < SMOOTH_ABOVE)
    y, m, r = (np.where(usable, a, 1.0) for a in (last, mean, raised))
    ratio = np.exp(_log_pmf(y, r, raised_phi) - _log_pmf(y, m, phi))
    room = np.maximum(1.0 - count_tail(limit + 1.0, raised, raised_phi), np.finfo(np.float64).tiny)
    bet = np.where(usable, ratio / room, np.where(mean < SMOOTH_ABOVE, 0.0, 1.0))
    return np.asarray(np.minimum(1.0 - options.carry + options.carry * bet, MOST_LEVEL / options.alpha))


def _log_pmf(y: FloatArray, mean: FloatArray, phi: FloatArray) -> FloatArray:
    """Log probability under the negative binomial law, up to terms in y alone."""
    excess = np.maximum(phi - 1.0, 1e-6)
    size = mean / excess
    log_phi = np.log1p(excess)
    return np.asarray(
        special.gammaln(y + size) - special.gammaln(size) - size * log_phi + y * np.log(excess) - y * log_phi
    )


def _updated(last: FloatArray, b: Baseline) -> Baseline:
    """The forecast after last week's count has been seen (linear Bayes: Hartigan 1969).

    The count is cut at three standard deviations: beyond, it tells more of an outbreak than of the baseline.
    """
    phi = b.dispersion + b.last * b.last_variance
    seen = np.minimum(last - b.last, 3.0 * np.sqrt(phi * b.last))
    moved = b.now * np.maximum(1.0 + b.covariance * seen / phi, 0.1)
    known = b.covariance * (b.covariance * b.last / phi)
    return replace(b, now=moved, now_variance=np.maximum(b.now_variance - known, 0.0))


def _nodes(b: Baseline) -> FloatArray:
    """Variance over mean of the predictive law at each node of the dispersion's posterior, ``[5, series]``."""
    log_phi = np.log(b.dispersion) + NODES[:, None] * b.log_dispersion_sd
    return np.asarray(np.exp(np.maximum(log_phi, 0.0)) + b.now * b.now_variance)


def _tail(observed: FloatArray, mean: FloatArray, nodes: FloatArray) -> FloatArray:
    """P(Y >= observed), the dispersion being known only up to its posterior."""
    exact = np.minimum(mean, HUGE)
    total = NODE_WEIGHTS.sum()
    tail = sum(w / total * count_tail(observed, exact, phi) for w, phi in zip(NODE_WEIGHTS, nodes, strict=True))
    normal = special.ndtr((mean - observed + 0.5) / np.sqrt(nodes[2] * mean))
    return np.asarray(np.where(mean < HUGE, tail, normal))


def _upper(mean: FloatArray, nodes: FloatArray, level: FloatArray) -> FloatArray:
    """Smallest whole U with P(Y > U) <= level, searched as :func:`detectors.tails.count_upper` does."""
    z = -special.ndtri(level)
    spread = np.sqrt(4 / 9 * np.cbrt(mean) * nodes[2])
    at = np.floor(np.maximum(np.cbrt(mean) ** 2 + z * spread, 0.0) ** 1.5)
    low, high = np.full(mean.shape, -1.0), np.full(mean.shape, np.inf)
    stride = np.maximum(np.floor(0.01 * at), 1.0)
    todo = np.arange(mean.size)
    for _ in range(MAX_GALLOP):
        if todo.size == 0:
            break
        k = at[todo]
        enough = _tail(k + 1.0, mean[todo], nodes[:, todo]) <= level[todo]
        high[todo] = np.where(enough, k, high[todo])
        low[todo] = np.where(enough, low[todo], k)
        todo = todo[high[todo] - low[todo] > np.maximum(1.0, np.spacing(low[todo]))]
        halve = (low[todo] >= 0) & np.isfinite(high[todo])
        down, up = np.maximum(high[todo] - stride[todo], 0.0), low[todo] + stride[todo]
        middle = np.floor((low[todo] + high[todo]) / 2)
        at[todo] = np.where(halve, middle, np.where(np.isfinite(high[todo]), down, up))
        stride[todo] *= np.where(halve, 1.0, 2.0)
    return high
