"""Control charts: for each of the last weeks what was counted, what was expected, and where an alarm begins.

The detectors themselves say so, week by week, of the counts as they are known now: late reports and corrections are in
them, so that a chart may differ from what was said at the time. What was said then stands in the signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.satisfaction import index_below_target
from schemas.alerts import Against, Alert, Evidence
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from streams.board.counts import Counts
from streams.config import Config
from streams.judge_counts import CountHistory, count_history, weeks_watched
from streams.judge_drift import PERIOD_DAYS
from streams.judge_rates import rate_history
from streams.ticks import day_start_iso

__all__ = ["WEEKS", "Chart", "draw", "indicators_of"]

WEEKS: Final = 78
"""Points of a chart, at most: a year and a half, so that the season before is seen."""
_INDICATORS: Final[dict[str, tuple[str, ...]]] = {
    "pass-rate": ("pass",),
    "injury-surge": ("injury",),
    "complaint-surge": ("complaint",),
    "satisfaction": ("satisfaction",),
    "quality-loss": ("loss",),
    "grave-event": ("accident", "injury"),
}
_WEEK: Final = 7
_RATES: Final[tuple[Against, ...]] = ("target", "own-history", "peers")
_Values = list[float | None]


class Chart(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One control chart; every list is as long as ``days``.

    ``unit``: ``count`` a week, ``rate`` (pass rate, 0 to 1), ``index`` (0 to 100) or ``loss`` (loss over output), each
    over the ``window_days`` that end with the day. ``limit`` is where an alarm begins: above it for counts, at or under
    it for rates. ``against`` is what rates are held against.
    """

    unit: Literal["count", "rate", "index", "loss"]
    window_days: int
    days: list[str]
    value: _Values
    expected: _Values = []
    limit: _Values = []
    lower: _Values = []
    upper: _Values = []
    observed: list[float] = []
    tested: list[float] = []
    alarm: list[bool] = []
    detector: list[str] = []
    against: str = ""
    running: bool = False
    """Whether the last week is not over."""


def indicators_of(alert: Alert) -> tuple[str, ...]:
    """The indicators whose counts may be behind an alert; none for those about labs, sources and pairs."""
    return () if alert.source or alert.hazard else _INDICATORS.get(alert.kind, ())


def draw(alert: Alert, indicator: str, counts: Counts, config: Config, catalogue: Catalogue) -> Chart:
    """The chart behind an alert."""
    if indicator == "pass":
        return _rates(alert, counts, config, catalogue)
    if indicator == "satisfaction":
        return _index(alert, counts, config, catalogue)
    if indicator == "loss":
        return _losses(alert, counts)
    return _counts(counts, config, judged=indicator != "accident")


# --- counts --------------------------------------------------------------------------------------------------------


def _counts(counts: Counts, config: Config, *, judged: bool) -> Chart:
    store, day = counts.store, counts.day
    row = np.array([counts.row], np.intp)
    shown = max(1, min(WEEKS, int(weeks_watched(store, row, day)[0])))
    if judged:
        history = count_history(store, counts.row, day, shown, config.counts)
    else:
        weekly, silent = np.maximum(store.weekly(row, day, shown)[0, :, 0], 0), np.full(shown, np.nan)
        history = CountHistory(weekly, silent, silent, np.zeros(shown, np.bool_), [""] * shown)
    monday = day - (day + 3) % _WEEK
    ends = [monday + _WEEK - 1 - _WEEK * lag for lag in range(shown - 1, -1, -1)]
    values = history.counts.astype(np.float64)
    return Chart(
        unit="count", window_days=_WEEK, days=[day_start_iso(end) for end in ends], value=_plain(values),
        observed=values.tolist(), expected=_plain(history.expected), limit=_plain(history.upper),
        alarm=history.alarm.tolist(), detector=history.detector, against="baseline", running=day < ends[-1],
    )  # fmt: skip


# --- shares --------------------------------------------------------------------------------------------------------


def _rates(alert: Alert, counts: Counts, config: Config, catalogue: Catalogue) -> Chart:
    held = [one for one in alert.evidence if one.rate is not None and one.against in _RATES]
    chief = min(held, key=lambda one: one.p_value if one.p_value is not None else 1.0, default=None)
    window = (
        chief.window_days
        if chief is not None
        else sorted(config.pass_rate.windows_days)[len(config.pass_rate.windows_days) // 2]
    )
    against: Against = chief.against if chief is not None else "own-history"
    target = _target(alert, catalogue, chief)
    days = _days(counts)
    history = rate_history(counts.store, counts.row, days, window, against, target, config.pass_rate)
    found = history.evidence
    some = found.tested > 0
    return Chart(
        unit="rate", window_days=window, days=[day_start_iso(day) for day in days], against=against,
        value=_plain(found.rate), lower=_plain(np.where(some, found.lower, np.nan)),
        upper=_plain(np.where(some, found.upper, np.nan)),
        expected=_plain(np.where(found.defined, found.reference, np.nan)), limit=_plain(history.limit),
        observed=found.failed.tolist(), tested=found.tested.tolist(), alarm=history.alarm.tolist(),
    )  # fmt: skip


def _target(alert: Alert, catalogue: Catalogue, chief: Evidence | None) -> float:
    """The target that the alert was judged by, or the catalogue's."""
    if chief is not None and chief.against == "target" and chief.reference is not None:
        return chief.reference
    try:
        wanted = catalogue.targets_for(alert.product).pass_rate
    except Rejection:
        wanted = None
    return np.nan if wanted is None else wanted


def _index(alert: Alert, counts: Counts, config: Config, catalogue: Catalogue) -> Chart:
    window, days = config.satisfaction.window_days, _days(counts)
    sums = _sums(counts, days, window)
    try:
        target = catalogue.targets_for(alert.product).satisfaction
    except Rejection:
        target = None
    found = index_below_target(sums[:, 1], sums[:, 0] / 100.0, np.nan if target is None else target)
    hit = found.defined & (found.p_value <= config.satisfaction.alpha)
    hit &= found.tested >= config.satisfaction.min_respondents
    some = found.tested > 0
    return Chart(
        unit="index", window_days=window, days=[day_start_iso(day) for day in days], against="target",
        value=_plain(found.rate), lower=_plain(np.where(some, found.lower, np.nan)),
        upper=_plain(np.where(some, found.upper, np.nan)), expected=_plain(found.reference),
        tested=found.tested.tolist(), alarm=hit.tolist(),
    )  # fmt: skip


def _losses(alert: Alert, counts: Counts) -> Chart:
    days = _days(counts)
    sums = _sums(counts, days, PERIOD_DAYS)
    share = np.divide(sums[:, 0], sums[:, 1], out=np.full(len(days), np.nan), where=sums[:, 1] > 0)
    usual = next((one.reference for one in alert.evidence if one.reference is not None), None)
    return Chart(
        unit="loss", window_days=PERIOD_DAYS, days=[day_start_iso(day) for day in days], against="run-length",
        value=_plain(share), expected=[usual] * len(days), observed=sums[:, 0].tolist(), tested=sums[:, 1].tolist(),
    )  # fmt: skip


def _days(counts: Counts) -> list[int]:
    """The last day, and that of each week before, as far back as the branch has counts."""
    first = counts.store.first_day(counts.store.branch(counts.row))
    weeks = WEEKS if first is None else min(WEEKS, max(1, (counts.day - first) // _WEEK + 1))
    return [counts.day - _WEEK * lag for lag in range(weeks - 1, -1, -1)]


def _sums(counts: Counts, days: Sequence[int], window: int) -> npt.NDArray[np.float64]:
    row = np.array([counts.row], np.intp)
    sums = [np.maximum(counts.store.daily(row, day, window)[0].sum(axis=0), 0) for day in days]
    return np.array(sums, np.float64)


def _plain(values: npt.NDArray[np.float64]) -> _Values:
    """Numbers for JSON, six digits of them; None where there is none."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
