"""The rhythm of a source of reports: its level, its week, how its days scatter, and how often they are empty.

A source's reports on a day have mean r f_w c_t (its level, its weekday's factor, the day's common factor) and variance
phi times that (quasi-Poisson). Under a negative binomial law of that variance a day is empty with chance
exp(-kappa mean), kappa = ln(phi) / (phi - 1). Where reports are few and come in bundles, phi cannot be told from a
source's own past, but its empty days can be counted: kappa is also solved from ::

    sum over days of exp(-kappa mean) = empty days + 1/2

and the smaller of the two, the cautious one, is kept: a source known to have empty days keeps the right to them.

What sources have in common (the shape of the week, dispersion, holidays) comes in as an explicit :class:`SourcePool`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray, as_counts, as_parameter
from detectors.tails import POISSON_BELOW

__all__ = [
    "Rhythm",
    "SourcePool",
    "checked_volumes",
    "first_report",
    "last_axis_sum",
    "last_report",
    "pool_sources",
    "row_sum",
]

LEAST_DAYS = 28
LEAST_REPORTS = 5.0
WEEKDAY_REPORTS = 1.0
"""Reports (at a dispersion of 1) that the pooled weekday profile counts for, in each weekday."""

POOL_DAYS = 20.0
"""Days of history that the pooled dispersion counts for."""

CLOSED_AT = 3.0

NEWTON_STEPS = 15
"""Newton climbs toward kappa from below, so that stopping early errs on the side of silence."""


@dataclass(frozen=True, slots=True)
class SourcePool:
    """What all sources of one kind have in common.

    Attributes
    ----------
    profile
        Share of a week's volume that falls on each weekday times 7, ``[7]``, Monday first.
    dispersion
        Variance over mean of a day's reports, at least 1.
    common
        Share of all sources' usual volume that came on each day, ``[time]``.
    """

    profile: FloatArray
    dispersion: float
    common: FloatArray

    @classmethod
    def neutral(cls, days: int, dispersion: float = 1.5) -> SourcePool:
        """A pool that knows nothing: flat weeks, no holidays."""
        return cls(np.ones(7), dispersion, np.ones(days))


def pool_sources(volumes: npt.ArrayLike, weekday: int, *, cap: float = 20.0, weeks: int = 26) -> SourcePool:
    """Estimate what all sources of one kind have in common.

    Parameters
    ----------
    volumes, weekday
        As for :func:`detectors.sources.silence`: all sources of the kind.
    cap
        Reports a day above which a source weighs no more, so that no large source's own silence passes for a holiday.
    weeks
        Weeks that each source's usual volume is taken from (up to the last day).

    Notes
    -----
    Sums over sources are exactly rounded (:func:`math.fsum`), so that their order does not touch them. A day's common
    factor is drawn toward 1 by 20 reports' worth; where sources are few, give factors from a calendar instead.
    """
    y, neutral, day = checked_volumes(volumes, weekday, None, weeks)
    columns = np.arange(y.shape[1])
    used = columns > np.maximum(first_report(y), y.shape[1] - 7 * weeks - 1)[:, None]
    by_day = [row_sum(y, used & (day == w)) for w in range(7)]
    days = [row_sum(np.ones_like(y), used & (day == w)) for w in range(7)]
    level = np.divide(sum(by_day), sum(days), out=np.zeros(y.shape[0]), where=np.asarray(sum(days)) > 0)
    weight = np.minimum(1.0, np.divide(cap, level, out=np.ones_like(level), where=level > 0))
    came = np.array([math.fsum(weight * one) for one in by_day])
    due = np.array([math.fsum(weight * level * one) for one in days])
    profile = np.divide(came, due, out=np.ones(7), where=due > 0)
    rhythm = Rhythm.of(y, used, SourcePool(profile, 1.0, neutral.common), day)
    usual = rhythm.mean_by_day(day)
    common = np.ones(y.shape[1])
    for t in columns:
        rows = used[:, t] & rhythm.defined
        common[t] = (math.fsum((weight * y[:, t])[rows]) + 20.0) / (math.fsum((weight * usual[:, t])[rows]) + 20.0)
    thinned = SourcePool(profile, 1.0, common)
    rhythm = Rhythm.of(y, used, thinned, day)
    free = math.fsum(rhythm.free)
    return SourcePool(profile, max(math.fsum(rhythm.chi2) / free, 1.0) if free > 0 else 1.0, common)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The rhythm of many sources; arrays ``[source]`` but for ``rates``.

    Attributes
    ----------
    total, active
        Reports, and days with a report, in the days used.
    rates
        Reports a day by weekday at a common factor of 1, ``[source, 7]``.
    phi
        Variance over mean of a day's reports, at least 1, shrunk toward the pool's.
    phi_error
        Its standard error.
    kappa
        -ln(chance of an empty day) over its mean, above 0 and at most 1.
    chi2, free
        Pearson's chi-square of the days used, and its degrees of freedom; 0 where not defined.
    defined
        At least 28 days and 5 reports.
    """

    total: FloatArray
    active: FloatArray
    rates: FloatArray
    phi: FloatArray
    phi_error: FloatArray
    kappa: FloatArray
    chi2: FloatArray
    free: FloatArray
    defined: BoolArray

    @classmethod
    def of(cls, y: FloatArray, used: BoolArray, pool: SourcePool, day: IntArray) -> Rhythm:
        """Learn the rhythm from the days marked in `used`, ``[source, day]``; `day` holds the weekdays."""
        total, days = row_sum(y, used), used.sum(axis=1).astype(np.float64)
        exposure = row_sum(np.broadcast_to(pool.profile[day] * pool.common, y.shape), used)
        level = np.divide(total, exposure, out=np.zeros_like(total), where=exposure > 0)
        phi = np.full(total.shape, pool.dispersion)
        closed = _closed_weekdays(y, used, day)
        watched = used & ~closed[:, day]
        watched_days = watched.sum(axis=1).astype(np.float64)
        free = np.where(total > 0, np.maximum(watched_days - (~closed).sum(axis=1), 0.0), 0.0)
        # The weekday rates want phi (how much the pool's profile weighs) and phi wants the rates: twice is enough.
        for _ in range(2):
            rates = _weekday_rates(y, used, pool, day, level, phi)
            mean = rates[:, day] * pool.common
            chi2 = row_sum(np.divide((y - mean) ** 2, mean, out=np.zeros_like(y), where=mean > 0), watched)
            phi = np.maximum((chi2 + POOL_DAYS * pool.dispersion) / (free + POOL_DAYS), 1.0)
        active = row_sum((y > 0).astype(np.float64), used)
        empty = row_sum((y == 0).astype(np.float64), watched)
        defined = (days >= LEAST_DAYS) & (total >= LEAST_REPORTS)
        return cls(
            total,
            active,
            rates,
            phi,
            _phi_error(phi, total, watched_days),
            np.minimum(_kappa_of(phi), _kappa_of_empty_days(mean, watched, empty)),
            np.where(defined, chi2, 0.0),
            np.where(defined, free, 0.0),
            defined,
        )

    def mean_by_day(self, day: IntArray) -> FloatArray:
        """Mean reports on days of these weekdays at a common factor of 1, ``[source, day]``."""
        return self.rates[:, day]

    def chance_of_none(self, expected: FloatArray) -> FloatArray:
        """Chance of no report where `expected` are due, ``[source]``.

        The level is known from the days with a report only: exp(-kappa expected) is averaged over its gamma law.
        """
        shape = 0.5 + self.active
        return np.asarray(np.exp(-shape * np.log1p(self.kappa * expected / shape)))


def _weekday_rates(
    y: FloatArray, used: BoolArray, pool: SourcePool, day: IntArray, level: FloatArray, phi: FloatArray
) -> FloatArray:
    """Each weekday's rate, the pooled profile counting for WEEKDAY_REPORTS * phi reports."""
    rates = np.zeros((y.shape[0], 7))
    some, prior = np.maximum(level, 1e-300), WEEKDAY_REPORTS * phi
    for w in range(7):
        here = used & (day == w)
        came, days = row_sum(y, here), row_sum(np.broadcast_to(pool.common, y.shape), here)
        rates[:, w] = (came + prior * pool.profile[w]) / (days + prior / some)
    return np.where(level[:, None] > 0, rates, 0.0)


def _phi_error(phi: FloatArray, total: FloatArray, days: FloatArray) -> FloatArray:
    """Standard error of Pearson's dispersion for negative binomial days (from their fourth cumulant)."""
    per_report = np.divide(days, total, out=np.zeros_like(total), where=total > 0)
    one = 2.0 * phi**2 + phi * (1.0 + 6.0 * phi * (phi - 1.0)) * per_report
    return np.sqrt(one / (np.maximum(days - 7.0, 0.0) + POOL_DAYS))


def _kappa_of(phi: FloatArray) -> FloatArray:
    return np.divide(np.log(phi), phi - 1.0, out=np.ones_like(phi), where=phi > POISSON_BELOW)


def _closed_weekdays(y: FloatArray, used: BoolArray, day: IntArray) -> BoolArray:
    """Weekdays, ``[source, 7]``, on which the source is closed: no report ever, where its other weekdays' habits would
    have brought three days with one. They say nothing of how often its open days are empty.
    """
    report = used & (y > 0)
    active = np.stack([(report & (day == w)).sum(axis=1) for w in range(7)], axis=1)
    days = np.stack([(used & (day == w)).sum(axis=1) for w in range(7)], axis=1)
    open_days = np.where(active > 0, days, 0).sum(axis=1)
    share = active.sum(axis=1) / np.maximum(open_days, 1)
    return np.asarray((active == 0) & (share[:, None] * days >= CLOSED_AT))


def _kappa_of_empty_days(mean: FloatArray, used: BoolArray, empty: FloatArray) -> FloatArray:
    kappa = np.zeros(empty.shape)
    for _ in range(NEWTON_STEPS):
        none = np.exp(-kappa[:, None] * mean)
        above = row_sum(none, used) - (empty + 0.5)
        slope = row_sum(none * mean, used)
        kappa += np.divide(np.maximum(above, 0.0), slope, out=np.zeros_like(kappa), where=slope > 1e-300)
        kappa = np.minimum(kappa, 1.0)
    return kappa


def checked_volumes(
    volumes: npt.ArrayLike, weekday: int, pool: SourcePool | None, weeks: int
) -> tuple[FloatArray, SourcePool, IntArray]:
    """Volumes ``[source, day]`` and a pool that fits them, checked, and each column's weekday."""
    y = as_counts(volumes, "volumes")
    if not 0 <= weekday <= 6 or weeks < 4:
        raise DetectorError("weekday: of the first column, 0 (Monday) to 6; weeks: at least 4")
    if pool is None:
        pool = SourcePool.neutral(y.shape[1])
    profile = as_parameter(pool.profile, "pool.profile", (7,), low=0.0, high=np.inf, open_ends=False)
    common = as_parameter(pool.common, "pool.common", (y.shape[1],), low=0.0, high=np.inf, open_ends=False)
    if not 1.0 <= pool.dispersion < np.inf or np.any(np.isinf(profile)) or np.any(np.isinf(common)):
        raise DetectorError("pool: a dispersion of at least 1; finite profile and common factors")
    return y, SourcePool(profile, pool.dispersion, common), (np.arange(y.shape[1]) + weekday) % 7


def last_report(y: FloatArray) -> IntArray:
    """Column of each source's last report; -1 where there is none."""
    some = y > 0
    return np.where(some.any(axis=1), y.shape[1] - 1 - np.argmax(some[:, ::-1], axis=1), -1) if y.shape[1] else _none(y)


def first_report(y: FloatArray) -> IntArray:
    """Column of each source's first report; beyond the last column where there is none."""
    some = y > 0
    return (
        np.where(some.any(axis=1), np.argmax(some, axis=1), y.shape[1])
        if y.shape[1]
        else np.zeros(y.shape[0], np.int64)
    )


def _none(y: FloatArray) -> IntArray:
    return np.full(y.shape[0], -1, dtype=np.int64)


def row_sum(values: FloatArray, where: BoolArray) -> FloatArray:
    """Sum along each row from the left: neither other rows nor the memory layout touch a bit."""
    return last_axis_sum(np.where(where, values, 0.0))


def last_axis_sum(values: FloatArray) -> FloatArray:
    """Sum over the last axis, from the left."""
    if values.shape[-1] == 0:
        return np.zeros(values.shape[:-1])
    return np.asarray(np.cumsum(values, axis=-1)[..., -1])
