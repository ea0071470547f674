"""Sources that fall silent or drift: a lab, hospital or hotline against its own rhythm.

A source that stops reporting looks like quality getting better. Three questions, each of a source's own past:

- :func:`silence`: how surprising is it that nothing has come since the last report?
- :func:`volume_change`: have reports dropped or risen, weekday for weekday?
- :func:`delay_drift`: do reports come later than they used to?

The rhythm (level, week, dispersion, empty days) is that of :mod:`detectors.rhythm`.

**The guard.** At Spring Festival *most* sources fall silent, and none of them is broken. The common factor, the share
of all sources' usual volume that came on a day, is an explicit argument (:func:`pool_sources` estimates it). Above 0.7
it thins the day's mean. Below, it is read as the worst case: a share of the sources was closed outright, the same ones
on every such day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray, as_counts
from detectors.passrate import dispersion as rate_dispersion
from detectors.passrate import worse_than_reference
from detectors.rhythm import (
    LEAST_REPORTS,
    POOL_DAYS,
    Rhythm,
    SourcePool,
    checked_volumes,
    first_report,
    last_axis_sum,
    last_report,
    row_sum,
)
from detectors.tails import POISSON_BELOW, count_tail

__all__ = [
    "DelayEvidence",
    "SilenceEvidence",
    "VolumeEvidence",
    "delay_drift",
    "silence",
    "volume_change",
]

OPEN_SHARE = 0.7
"""A common factor under this means that sources are closed, not that all are less busy."""


@dataclass(frozen=True, slots=True)
class SilenceEvidence:
    """How surprising each source's silence is; every field is an array ``[source]``.

    Attributes
    ----------
    days_silent
        Whole days without a report up to and including the judged one; -1 where the source never reported.
    expected
        Reports that its rhythm would have brought in these days, holidays allowed for; NaN where not defined.
    longest
        Longest past gap in expected reports, NaN where not defined: a silence within it is nothing new.
    p_value
        Chance of so long a silence after a report; 1 where not defined.
    defined
        False with too little history.
    """

    days_silent: IntArray
    expected: FloatArray
    longest: FloatArray
    p_value: FloatArray
    defined: BoolArray


@dataclass(frozen=True, slots=True)
class VolumeEvidence:
    """How a source's recent volume compares with its own past; every field is an array ``[source]``.

    Attributes
    ----------
    observed, expected
        Reports in the recent window; reports that its past, weekday for weekday, would have brought.
    ratio
        observed / expected.
    p_drop, p_rise
        Chance of so few, of so many; 1 where not defined.
    p_value
        Two-sided: twice the smaller, at most 1.
    dispersion
        Variance over mean of a whole window, at least 1.
    defined
        False with too little history.
    """

    observed: FloatArray
    expected: FloatArray
    ratio: FloatArray
    p_drop: FloatArray
    p_rise: FloatArray
    p_value: FloatArray
    dispersion: FloatArray
    defined: BoolArray


@dataclass(frozen=True, slots=True)
class DelayEvidence:
    """Whether a source's reports come later than they used to; every field is an array ``[source]``.

    Attributes
    ----------
    reports, late
        Reports of the judged period; those beyond the source's usual 90 % delay.
    usual_bin
        Bin that holds the usual 90 % delay; -1 where not defined.
    usual_share
        Share of past reports beyond that bin, at most 0.1.
    later
        Probability that a report of the period is later than a past one, ties halved (Mann and Whitney): 0.5 if
        nothing has changed.
    p_value
        Chance of so many late reports; 1 where not defined.
    defined
        False with too little history, or no reports in the period.
    """

    reports: FloatArray
    late: FloatArray
    usual_bin: IntArray
    usual_share: FloatArray
    later: FloatArray
    p_value: FloatArray
    defined: BoolArray


def silence(
    volumes: npt.ArrayLike, weekday: int, *, pool: SourcePool | None = None, weeks: int = 26
) -> SilenceEvidence:
    """Judge how surprising each source's present silence is.

    Parameters
    ----------
    volumes
        Reports that arrived on each day, ``[source, day]``, oldest first; the last, whole day is judged. History begins
        the day after a source's first report (that day was chosen for having one).
    weekday
        Weekday of the first column, 0 (Monday) to 6.
    pool
        From :func:`pool_sources`; :meth:`SourcePool.neutral` by default. An argument, so that no source's evidence
        hangs on which others came along.
    weeks
        Weeks before the last report that the rhythm is taken from.

    Returns
    -------
    SilenceEvidence
        The p-value is the larger of two: by the rhythm, and the share of the source's past gaps that were at least
        as long (in expected reports), so that a source that has been as silent before raises nothing. ``defined`` is
        False under 28 days or 5 reports of history.

    Raises
    ------
    DetectorError
        If volumes are not counts, or an option is out of range.

    Notes
    -----
    A p-value belongs to one gap after one report: testing the growing gap every day asks the same question with more
    data and is no new test. There are as many tests as gaps.

    Examples
    --------
    >>> found = silence([[4, 6, 5, 5, 4, 0, 0] * 9 + [0, 0, 0]], 0)
    >>> found.days_silent.tolist(), found.expected.round(1).tolist(), bool(found.p_value[0] < 1e-4)
    ([5], [15.1], True)
    """
    y, pool, day = checked_volumes(volumes, weekday, pool, weeks)
    columns = np.arange(y.shape[1])
    last = last_report(y)
    used = (columns > last[:, None] - 7 * weeks) & (columns <= last[:, None]) & (columns > first_report(y)[:, None])
    rhythm = Rhythm.of(y, used, pool, day)
    gap = (columns > last[:, None]) & (last[:, None] >= 0)
    closed = np.clip((OPEN_SHARE - pool.common) / OPEN_SHARE, 0.0, 1.0)
    usual = rhythm.mean_by_day(day) * np.clip(pool.common, OPEN_SHARE, 1.0)
    p_rhythm = _silence_chance(rhythm, usual, gap, closed)
    expected = row_sum(usual * (1.0 - closed), gap)
    share, longest = _past_gaps(y, usual * (1.0 - closed), used, expected)
    defined = rhythm.defined
    return SilenceEvidence(
        days_silent=np.where(last >= 0, y.shape[1] - 1 - last, -1),
        expected=np.where(defined, expected, np.nan),
        longest=np.where(defined, longest, np.nan),
        p_value=np.where(defined, np.maximum(p_rhythm, share), 1.0),
        defined=defined,
    )


def volume_change(
    volumes: npt.ArrayLike,
    weekday: int,
    *,
    window: int = 7,
    gap: int = 0,
    pool: SourcePool | None = None,
    weeks: int = 26,
) -> VolumeEvidence:
    """Judge whether each source reports less, or more, than it used to.

    Parameters
    ----------
    volumes, weekday, pool
        As for :func:`silence`.
    window
        Days judged, up to and including the last.
    gap
        Days left out between the past and the window, so that a slow change does not hide in its own past.
    weeks
        Weeks that the past is taken from.

    Returns
    -------
    VolumeEvidence
        Of quasi-Poisson counts against a past that is itself a sample. The dispersion is the larger of that of days
        and that of past windows, as days may hang together. ``defined`` is False under 28 days or 5 reports of past.

    Raises
    ------
    DetectorError
        If volumes are not counts, or an option is out of range.

    Examples
    --------
    >>> found = volume_change([[4, 6, 5, 5, 4, 0, 0] * 9 + [1, 2, 0, 2, 0, 0, 0]], 0)
    >>> found.observed.tolist(), found.ratio.round(2).tolist(), bool(found.p_drop[0] < 1e-3)
    ([5.0], [0.21], True)
    """
    if window < 1 or gap < 0:
        raise DetectorError("window: at least 1 day; gap: not negative")
    y, pool, day = checked_volumes(volumes, weekday, pool, weeks)
    times = y.shape[1]
    columns = np.arange(times)
    end = times - window - gap
    used = np.broadcast_to((columns < end) & (columns >= end - 7 * weeks), y.shape) & (
        columns > first_report(y)[:, None]
    )
    rhythm = Rhythm.of(y, used, pool, day)
    usual = rhythm.mean_by_day(day) * pool.common
    recent = np.broadcast_to(columns >= times - window, y.shape)
    observed, expected = row_sum(y, recent), row_sum(usual, recent)
    # Few reports in bundles hardly show their dispersion: allow for two standard errors of it.
    phi = rhythm.phi + 2.0 * rhythm.phi_error
    phi = np.maximum(phi, _window_dispersion(y, usual, used, window, end, phi))
    spread = phi * (1.0 + np.divide(expected, rhythm.total, out=np.zeros_like(expected), where=rhythm.total > 0))
    defined = rhythm.defined & (expected > 0)
    mean = np.where(defined, expected, 1.0)
    rise = np.where(defined, count_tail(observed, mean, spread), 1.0)
    drop = np.where(defined, _at_most(observed, mean, spread), 1.0)
    return VolumeEvidence(
        observed=observed,
        expected=np.where(defined, expected, np.nan),
        ratio=np.where(defined, observed / mean, np.nan),
        p_drop=drop,
        p_rise=rise,
        p_value=np.minimum(2.0 * np.minimum(drop, rise), 1.0),
        dispersion=phi,
        defined=defined,
    )


def delay_drift(
    delays: npt.ArrayLike, *, correlation: float = 0.02, quantile: float = 0.9, least_periods: int = 4
) -> DelayEvidence:
    """Judge whether the reports of the last period come later than those of the periods before.

    Parameters
    ----------
    delays
        Reports that arrived in each period (a week, say) by the bin of their delay, shortest first,
        ``[source, period, bin]``. By arrival: the delays of a week's arrivals are all known, those of a week's
        occurrences are not.
    correlation
        Pooled intra-class correlation of lateness within a period, 0 to under 1 (reports come in bundles); a source's
        own, with 10 periods' weight for this one, is used.
    quantile
        Share of past reports that the usual delay covers.
    least_periods
        Past periods with reports under which nothing is said.

    Raises
    ------
    DetectorError
        If delays are not counts ``[source, period, bin]``, or an option is out of range.

    Examples
    --------
    >>> past = [[8, 9, 3, 0], [9, 8, 2, 1]] * 5
    >>> found = delay_drift([[*past, [2, 6, 9, 3]]])
    >>> found.late.tolist(), found.usual_bin.tolist(), found.p_value.round(5).tolist()
    ([3.0], [2], [0.02217])
    """
    y = as_counts(delays, "delays", ndim=3)
    if not 0.0 < quantile < 1.0 or not 0.0 <= correlation < 1.0 or least_periods < 1:
        raise DetectorError("quantile: between 0 and 1; correlation: from 0 to under 1; least_periods: at least 1")
    if y.shape[1] == 0 or y.shape[2] == 0:
        y = np.zeros((y.shape[0], 1, 1))
    tested = last_axis_sum(y)
    past, now = np.cumsum(y[:, :-1], axis=1)[:, -1] if y.shape[1] > 1 else np.zeros_like(y[:, 0]), y[:, -1]
    up_to = np.cumsum(past, axis=1)
    total = up_to[:, -1]
    usual = np.argmax(up_to >= quantile * total[:, None] * (1.0 - 1e-12), axis=1)
    beyond = np.arange(y.shape[2]) > usual[:, None]
    late = last_axis_sum(np.where(beyond[:, None, :], y, 0.0))
    rho = rate_dispersion(tested[:, :-1], late[:, :-1], pool=correlation)
    periods = (tested[:, :-1] > 0).sum(axis=1).astype(np.float64)
    past_late = np.cumsum(late, axis=1)[:, -1] - late[:, -1]
    judged = worse_than_reference(
        tested[:, -1], late[:, -1], total, past_late, rho, ref_windows=np.maximum(periods, 1.0)
    )
    defined = judged.defined & (periods >= least_periods) & (total >= LEAST_REPORTS)
    return DelayEvidence(
        reports=tested[:, -1].copy(),
        late=late[:, -1].copy(),
        usual_bin=np.where(defined, usual, -1).astype(np.int64),
        usual_share=np.where(defined, past_late / np.maximum(total, 1.0), np.nan),
        later=np.where(defined, _superiority(now, past), np.nan),
        p_value=np.where(defined, judged.p_value, 1.0),
        defined=defined,
    )


def _silence_chance(rhythm: Rhythm, usual: FloatArray, gap: BoolArray, closed: FloatArray) -> FloatArray:
    """Mean of the chance of silence over sources closed on the days most were: closed at level u when closed_t > u."""
    levels = np.unique(np.concatenate([[0.0], closed]))
    chance = np.zeros(usual.shape[0])
    for low, high in zip(levels, np.append(levels[1:], 1.0), strict=True):
        chance += (high - low) * rhythm.chance_of_none(row_sum(usual, gap & (closed <= low)))
    return np.minimum(chance, 1.0)


def _past_gaps(y: FloatArray, due: FloatArray, used: BoolArray, expected: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share of past gaps (days without a report, in reports due) at least as long as `expected`; the longest."""
    run, longer, gaps, longest = (np.zeros(y.shape[0]) for _ in range(4))
    started = np.zeros(y.shape[0], dtype=np.bool_)
    for t in range(y.shape[1]):
        report = used[:, t] & (y[:, t] > 0)
        ends = report & started
        # Every report but the first ends a gap, be it of no length.
        longer += ends & (run >= expected * (1.0 - 1e-12))
        longest = np.where(ends, np.maximum(longest, run), longest)
        gaps += ends
        started |= report
        run = np.where(report, 0.0, run + np.where(used[:, t] & started, due[:, t], 0.0))
    return np.where(expected > 0, longer / (gaps + 1.0), 1.0), longest


def _window_dispersion(
    y: FloatArray, usual: FloatArray, used: BoolArray, window: int, end: int, pool: FloatArray
) -> FloatArray:
    """Variance over mean of whole past windows, with the days' value for weight of 20 / window windows."""
    chi2, free = np.zeros(y.shape[0]), np.zeros(y.shape[0])
    for start in range(end - window, -1, -window):
        part = slice(start, start + window)
        whole = used[:, part].all(axis=1)
        came, due = row_sum(y[:, part], used[:, part]), row_sum(usual[:, part], used[:, part])
        chi2 += np.divide((came - due) ** 2, due, out=np.zeros_like(due), where=whole & (due > 0))
        free += whole & (due > 0)
    weight = POOL_DAYS / window
    return np.asarray(np.maximum((chi2 + weight * pool) / (np.maximum(free - 1.0, 0.0) + weight), 1.0))


def _at_most(observed: FloatArray, mean: FloatArray, spread: FloatArray) -> FloatArray:
    """P(Y <= observed), negative binomial of this mean and variance spread * mean: the small end to full precision."""
    poisson = special.gammaincc(observed + 1.0, mean)
    size = np.maximum(mean / np.maximum(spread - 1.0, 1e-8), 1e-300)
    share = np.maximum(spread, POISSON_BELOW)
    negative_binomial = special.betaincc(observed + 1.0, size, (share - 1.0) / share)
    return np.asarray(np.where(spread < POISSON_BELOW, poisson, negative_binomial))


def _superiority(now: FloatArray, past: FloatArray) -> FloatArray:
    """P(now later than past) + half P(equal), over bins ``[source, bin]``."""
    before = np.cumsum(past, axis=1) - past / 2.0
    pairs = last_axis_sum(now) * last_axis_sum(past)
    return np.asarray(np.divide(last_axis_sum(now * before), pairs, out=np.full(pairs.shape, 0.5), where=pairs > 0))
