"""The control chart behind an alert: what its detector saw, week by week, computed again from the record.

Each point is judged by the detector's own functions on what lay before it: the same windows, references, correlation
and levels as when the alert was made. Two things differ, and are meant to: a chart shows what is known *now* (late
reports and corrections included), and what the alert itself said stands beside it as a point of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from detectors.lr_cusum import lr_cusum
from detectors.passrate import dispersion, jeffreys_interval, worse_than_reference
from detectors.satisfaction import index_below_target
from schemas.alerts import Alert, Evidence
from schemas.errors import Rejection
from streams.columns import INDICATORS
from streams.decode import EVERYWHERE
from streams.explain import basis
from streams.judge_counts import count_history
from streams.judge_drift import PERIOD_DAYS, drift_path
from streams.judge_rates import LEAST_HISTORY, P0_CONFIDENCE
from streams.lab_mix import PEER_DAYS
from streams.report.record import Record

__all__ = ["Chart", "Unit", "chart_of", "strongest"]

Unit = Literal["percent", "points", "count", "deviations", "ratio"]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_POINTS: Final = 53
_AFTER: Final = 4
"""Weeks that are shown after the alert's evidence."""
_WEEK: Final = 7
_SURE: Final = 1e9
"""Items of a target: a reference without an error of its own, as in :mod:`streams.judge_rates`."""
_COUNTED: Final = {"injury-surge": "injury", "complaint-surge": "complaint"}


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart; every series has a value a point, NaN where there is none.

    Attributes
    ----------
    form
        ``line`` for what is measured over a rolling window, ``bars`` for counts of single weeks.
    days
        The last local day of each point.
    threshold
        The value at which the alarm rings; None for kinds whose detector has none in these terms.
    said
        The day and the value that the alert's own evidence names.
    window_days
        What a point sums.
    against
        What ``expected`` is.
    """

    form: Literal["line", "bars"]
    unit: Unit
    days: Ints
    observed: Floats
    expected: Floats
    threshold: Floats | None = None
    lower: Floats | None = None
    upper: Floats | None = None
    said: tuple[int, float] | None = None
    window_days: int = _WEEK
    against: str = "baseline"


def strongest(alert: Alert) -> Evidence | None:
    """The evidence with the smallest p-value, which the headline quotes."""
    return min(alert.evidence, key=lambda one: one.p_value if one.p_value is not None else 1.0, default=None)


def chart_of(record: Record, revisions: Sequence[Alert], known: int) -> Chart | None:
    """The chart behind an alert, from all its revisions; None where there is none to draw (a single grave event, or a
    cell of which the record knows nothing).

    Parameters
    ----------
    known
        The last day that the record knows.
    """
    alert = basis(revisions)
    best = strongest(alert)
    if best is None or alert.kind == "grave-event":
        return None
    day = record.calendar.day(record.calendar.epoch_ms(alert.as_of) - 1)
    if alert.kind in _COUNTED:
        return _counts(record, alert, best, day, known)
    if alert.kind == "pass-rate":
        make = _slide if best.against == "run-length" else _rates
        return make(record, alert, best, day, known)
    if alert.kind == "satisfaction" and best.against == "target":
        return _index(record, alert, best, day, known)
    if alert.kind in ("satisfaction", "quality-loss"):
        return _drift(record, alert, day, known)
    return _of_some(record, alert, best, day, known)


def _row(record: Record, indicator: str, alert: Alert) -> int | None:
    return record.state.stores[indicator].row((alert.product, alert.region))


def _ends(day: int, known: int) -> Ints:
    """The days of a year's points, a week apart, among them ``day``; some weeks after it where they are known."""
    after = min(_AFTER, max((known - day) // _WEEK, 0))
    return day + _WEEK * np.arange(after - _POINTS + 1, after + 1)


# --- counts --------------------------------------------------------------------------------------------------------


def _counts(record: Record, alert: Alert, best: Evidence, day: int, known: int) -> Chart | None:
    name = _COUNTED[alert.kind]
    store, row, rules = record.state.stores[name], _row(record, name, alert), record.config.counts
    if row is None:
        return None
    last = int(_ends(day, known)[-1])
    found = count_history(store, row, last, _POINTS, rules)
    # An alarm needs more than the detector's bound: a least ratio to what is expected, and a least number of cases.
    rings = np.maximum(np.floor(found.upper) + 1.0, np.ceil(np.maximum(rules.min_ratio * found.expected, 2.0)))
    sunday = last + (6 - (last + 3) % _WEEK)
    days = sunday - _WEEK * np.arange(_POINTS - 1, -1, -1)
    said = (day + (6 - (day + 3) % _WEEK), best.observed) if best.window_days == _WEEK else None
    return Chart("bars", "count", days, found.counts.astype(np.float64), found.expected, rings, said=said)


# --- pass rates ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Daily:
    """Cumulative (failed, tested) of a row up to each of some days."""

    total: Ints
    first: int

    @classmethod
    def of(cls, record: Record, row: int, last: int, days: int) -> _Daily:
        daily = np.maximum(record.state.stores["pass"].daily(np.array([row], np.intp), last, days)[0], 0)
        return cls(np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(daily, axis=0)]), last - days + 1)

    def sums(self, ends: Ints, days: int) -> tuple[Floats, Floats]:
        """(tested, failed) of the ``days`` days up to each end."""
        at = ends - self.first + 1
        found = (self.total[at] - self.total[at - days]).astype(np.float64)
        return found[:, 1], found[:, 0]

    def weeks(self, ends: Ints, days: int) -> tuple[Ints, Ints]:
        """(tested, failed) of the whole weeks of those days, ``[end, week]``."""
        edges = (ends - self.first + 1)[:, None] - _WEEK * np.arange(days // _WEEK, -1, -1)
        found = np.diff(self.total[edges], axis=1)
        return found[:, :, 1], found[:, :, 0]


def _rates(record: Record, alert: Alert, best: Evidence, day: int, known: int) -> Chart | None:
    row = _row(record, "pass", alert)
    rules, window = record.config.pass_rate, best.window_days
    if row is None:
        return None
    ends = _ends(day, known)
    own, rho, span = _own(record, row, ends)
    wider = int(record.state.stores["pass"].wider(np.array([row], np.intp))[0])
    n, x = own.sums(ends, window)
    ref_n, ref_x, windows = _reference(record, alert, best, own, wider, ends, span)
    factor = best.lab_factor or 1.0
    ref_n = np.maximum(np.rint(ref_n / factor), ref_x)
    found = worse_than_reference(n, x, ref_n, ref_x, rho, ref_windows=windows, confidence=rules.confidence)
    rings = _ringing(n, ref_n, ref_x, rho, windows, rules.alpha)
    expected = n * (1.0 - found.reference)
    rings = np.maximum(rings, np.ceil(np.maximum(rules.min_rate_ratio * expected, rules.min_failed)))
    threshold = np.divide(n - rings, n, out=np.full(len(n), np.nan), where=(n > 0) & (rings <= n))
    low, high = jeffreys_interval(n, n - x, rules.confidence)
    empty = n == 0
    low[empty] = high[empty] = np.nan
    said = None if best.rate is None else (day, best.rate)
    return Chart("line", "percent", ends, found.rate, found.reference, threshold, low, high, said, window, best.against)


def _own(record: Record, row: int, ends: Ints) -> tuple[_Daily, Floats, int]:
    """A row's counts; at each end the correlation of its failures, or its product's where that is larger; and the days
    that are loaded."""
    rules, store = record.config.pass_rate, record.state.stores["pass"]
    longest = max(rules.windows_days)
    span = int(ends[-1] - ends[0]) + longest + rules.history_days + PEER_DAYS
    widest = row
    while (up := int(store.wider(np.array([widest], np.intp))[0])) >= 0:
        widest = up
    daily = [_Daily.of(record, one, int(ends[-1]), span) for one in (row, widest)]
    rho = [dispersion(*one.weeks(ends - longest, rules.history_days), pool=rules.correlation) for one in daily]
    return daily[0], np.maximum(*rho), span


def _slide(record: Record, alert: Alert, best: Evidence, day: int, known: int) -> Chart | None:
    """The LR-CUSUM over the weeks of the longest window, which each point runs anew as the detector does."""
    row, rules = _row(record, "pass", alert), record.config.pass_rate
    if row is None:
        return None
    ends, longest = _ends(day, known), max(rules.windows_days)
    own, rho, _ = _own(record, row, ends)
    n0, x0 = own.sums(ends - longest, rules.history_days)
    n, x = own.weeks(ends, longest)
    p0 = np.maximum(jeffreys_interval(n0, x0, P0_CONFIDENCE)[1], 1e-6)
    able = (n0 >= LEAST_HISTORY) & (n.sum(axis=1) // n.shape[1] >= 1)
    path = np.full(len(ends), np.nan)
    if able.any():
        chart = lr_cusum(
            n[able], x[able], p0[able], rules.cusum_odds_ratio, rho=rho[able], threshold=1.0, reset=False
        )  # fmt: skip
        path[able] = chart.statistic
    bound = best.threshold if best.threshold is not None else math.log(rules.cusum_arl_days / _WEEK)
    said = None if best.statistic is None else (day, best.statistic)
    flat = np.full(len(ends), bound)
    return Chart(
        "line", "ratio", ends, path, np.zeros(len(ends)), flat, said=said, window_days=longest, against="run-length"
    )  # fmt: skip


def _reference(
    record: Record, alert: Alert, best: Evidence, own: _Daily, wider: int, ends: Ints, span: int
) -> tuple[Floats, Floats, Floats]:
    """(tested, failed, windows) of what each point is judged against, as :mod:`streams.judge_rates` has it."""
    rules, window = record.config.pass_rate, best.window_days
    windows = np.full(len(ends), max(rules.history_days / window, 1.0))
    if best.against == "target" and best.reference is not None:
        items = np.full(len(ends), _SURE)
        return items, np.rint(items * (1.0 - best.reference)), items
    if best.against == "peers" and wider >= 0:
        days = max(window, PEER_DAYS)
        all_n, all_x = _Daily.of(record, wider, int(ends[-1]), span).sums(ends, days)
        own_n, own_x = own.sums(ends, days)
        return np.maximum(all_n - own_n, 0.0), np.maximum(all_x - own_x, 0.0), windows
    n, x = own.sums(ends - window, rules.history_days)
    return n, x, windows


def _ringing(n: Floats, ref_n: Floats, ref_x: Floats, rho: Floats, windows: Floats, alpha: float) -> Floats:
    """The least failures that are as unlikely as ``alpha``, by bisection; one more than were tested where none are."""
    low, high = np.zeros(len(n)), n + 1.0
    while np.any(high - low > 1.0):
        middle = np.floor((low + high) / 2.0)
        p = worse_than_reference(n, np.minimum(middle, n), ref_n, ref_x, rho, ref_windows=windows).p_value
        small = p <= alpha
        high, low = np.where(small, middle, high), np.where(small, low, middle)
    return high


# --- satisfaction and losses ---------------------------------------------------------------------------------------


def _index(record: Record, alert: Alert, best: Evidence, day: int, known: int) -> Chart | None:
    row, rules = _row(record, "satisfaction", alert), record.config.satisfaction
    if row is None or best.reference is None:
        return None
    ends = _ends(day, known)
    store, span = record.state.stores["satisfaction"], int(ends[-1] - ends[0]) + rules.window_days
    daily = np.maximum(store.daily(np.array([row], np.intp), int(ends[-1]), span)[0], 0)
    total = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(daily, axis=0)])
    at = ends - (int(ends[-1]) - span)
    sums = total[at] - total[at - rules.window_days]
    points, asked = sums[:, 0] / 100.0, sums[:, 1].astype(np.float64)
    found = index_below_target(asked, points, best.reference)
    low, high = np.zeros(len(ends)), np.full(len(ends), best.reference)
    for _ in range(40):
        middle = (low + high) / 2.0
        rings = index_below_target(asked, middle * asked, best.reference).p_value <= rules.alpha
        low, high = np.where(rings, middle, low), np.where(rings, high, middle)
    threshold = np.where(asked >= rules.min_respondents, low, np.nan)
    lower, upper = (np.where(asked > 0, one, np.nan) for one in (found.lower, found.upper))
    said = None if best.rate is None else (day, best.rate)
    expected = np.full(len(ends), best.reference)
    return Chart(
        "line", "points", ends, found.rate, expected, threshold, lower, upper, said, rules.window_days, "target"
    )  # fmt: skip


def _drift(record: Record, alert: Alert, day: int, known: int) -> Chart | None:
    name: Literal["satisfaction", "loss"] = "loss" if alert.kind == "quality-loss" else "satisfaction"
    row = _row(record, name, alert)
    if row is None:
        return None
    last, path, limit = drift_path(
        record.state.stores[name], row, min(day + _AFTER * _WEEK, max(known, day)), name, record.config.drift
    )
    begun = np.flatnonzero(path != 0.0)
    path = path[begun[0] if len(begun) else 0 :][-_POINTS:]
    days = last - PERIOD_DAYS * np.arange(len(path) - 1, -1, -1)
    bound = limit if name == "loss" else -limit
    zero = np.zeros(len(path))
    return Chart(
        "line", "deviations", days, path, zero, np.full(len(path), bound), window_days=PERIOD_DAYS, against="run-length"
    )  # fmt: skip


# --- labs, sources, pairs ------------------------------------------------------------------------------------------


def _of_some(record: Record, alert: Alert, best: Evidence, day: int, known: int) -> Chart | None:
    """Events of one source, or of one pair of product and injury; of a lab the share that passed."""
    mine = _rows_of(record, alert)
    if not len(mine):
        return None
    ledger = record.state.ledger
    last = int(_ends(day, known)[-1])
    last += 6 - (last + 3) % _WEEK
    weeks = (ledger.at("day", mine) - (last - _WEEK * _POINTS + 1)) // _WEEK
    inside = (weeks >= 0) & (weeks < _POINTS)
    sums = np.zeros((_POINTS, 3), np.int64)
    values = np.stack([np.ones(len(mine), np.int64), ledger.at("n", mine), ledger.at("x", mine)], axis=1)
    np.add.at(sums, weeks[inside], values[inside])
    days = last - _WEEK * np.arange(_POINTS - 1, -1, -1)
    if alert.kind == "lab-drift":
        return _lab(sums, days, best, day)
    window = max(best.window_days, 1)
    within = (days > day - window) & (days <= day + 6)
    expected = np.full(_POINTS, np.nan)
    if best.expected is not None:
        if alert.kind == "silent-source":
            begun = int(ledger.at("day", mine).min())
            before = (days <= day - window) & (days > day - window - 26 * _WEEK) & (days - 6 >= begun)
            expected[:] = sums[before, 0].mean() if before.any() else np.nan
        else:
            expected[within] = best.expected * _WEEK / window
    return Chart("bars", "count", days, sums[:, 0].astype(np.float64), expected, against=best.against)


def _lab(sums: Ints, days: Ints, best: Evidence, day: int) -> Chart:
    """A lab's share passed over the window that it is judged over; its peers' where the alert names it."""
    width = max(best.window_days // _WEEK, 1)
    total = np.concatenate([np.zeros((1, 3), np.int64), np.cumsum(sums, axis=0)])
    first = np.maximum(np.arange(1, len(sums) + 1) - width, 0)
    n, x = ((total[1:] - total[first])[:, column].astype(np.float64) for column in (1, 2))
    low, high = jeffreys_interval(n, n - x)
    rate = np.divide(n - x, n, out=np.full(len(n), np.nan), where=n > 0)
    low[n == 0] = high[n == 0] = np.nan
    expected = np.full(len(days), np.nan)
    if best.expected is not None and best.tested:
        expected[(days > day - best.window_days) & (days <= day)] = 1.0 - best.expected / best.tested
    said = (day, 1.0 - best.observed / best.tested) if best.tested else None
    return Chart("line", "percent", days, rate, expected, None, low, high, said, width * _WEEK, best.against)


def _rows_of(record: Record, alert: Alert) -> npt.NDArray[np.intp]:
    state, ledger = record.state, record.state.ledger
    live = record.live
    if alert.kind == "new-hazard":
        hazard = state.hazards.index(alert.hazard) if alert.hazard in state.hazards else -1
        if hazard < 0:
            return live[:0]
        leaves = [at for at, leaf in enumerate(state.leaves) if _below(record, leaf.product, alert.product)]
        return np.asarray(live[(ledger.at("hazard", live) == hazard) & np.isin(ledger.at("leaf", live), leaves)])
    reporter = state.reporters.index(alert.source) if alert.source in state.reporters else -1
    mine = (ledger.at("reporter", live) == reporter) & (reporter >= 0)
    if alert.kind == "lab-drift":
        mine &= ledger.at("indicator", live) == INDICATORS.index("pass")
    return np.asarray(live[mine])


def _below(record: Record, product: str, node: str) -> bool:
    if node in (product, EVERYWHERE):
        return True
    try:
        return node in record.catalogue.products.path(product)
    except Rejection:
        return False
