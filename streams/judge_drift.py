"""Judging slow change: an EWMA over periods of four weeks, of the quality-loss rate and of the satisfaction index.

Each period is scored by the periods before it (:mod:`detectors.self_starting`), so that no phase of learning is needed
and the chart's limit follows from a stated average run length. The running period is scored with what it has so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from detectors.ewma import ewma_chart, ewma_limit
from detectors.self_starting import log_loss_rate, self_starting, survey_variance
from schemas.alerts import Evidence
from streams.cells import CellStore
from streams.config import DriftRules
from streams.finding import Finding, rounded

__all__ = ["PERIOD_DAYS", "drift_path", "judge_index_drift", "judge_losses"]

PERIOD_DAYS = 28
STALE_PERIODS = 4
_TO_MONDAY = 3
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Chart:
    """Path (in standard deviations) and limit of each cell, and the cells that are beyond it; ``whole`` has the path
    after each period, ``path`` after the last."""

    hits: npt.NDArray[np.intp]
    path: Floats
    limit: float
    whole: Floats


def judge_losses(store: CellStore, rows: npt.NDArray[np.intp], day: int, rules: DriftRules) -> list[Finding]:
    """Findings for the cells whose quality loss over output has risen lastingly."""
    sums = _periods(store, rows, day, rules)
    loss, output = sums[:, :, 0], sums[:, :, 1]
    chart = _run(log_loss_rate(loss, output), None, "high", rules)
    found: list[Finding] = []
    for at in chart.hits.tolist():
        past, made = int(loss[at, :-1].sum()), int(output[at, :-1].sum())
        last = int(np.flatnonzero(output[at] > 0)[-1])
        now, base = int(loss[at, last]), int(output[at, last])
        usual = past / max(made, 1)
        if now < rules.min_ratio * usual * base:
            continue
        window = PERIOD_DAYS * (sums.shape[1] - last)
        entry = Evidence(
            detector="log-loss-rate-ewma",
            against="run-length",
            window_days=window,
            observed=float(now),
            expected=rounded(usual * base),
            rate=rounded(now / base),
            reference=rounded(usual),
            statistic=rounded(float(chart.path[at])),
            threshold=rounded(chart.limit),
            recurrence_days=rules.arl_days,
        )
        found.append(Finding(int(rows[at]), _chance(rules), {0: now - usual * base}, [entry], window))
    return found


def judge_index_drift(store: CellStore, rows: npt.NDArray[np.intp], day: int, rules: DriftRules) -> list[Finding]:
    """Findings for the cells whose satisfaction index has fallen lastingly, whatever their target."""
    sums = _periods(store, rows, day, rules)
    respondents = sums[:, :, 1]
    points = sums[:, :, 0] / 100.0
    index = np.divide(points, respondents, out=np.full(points.shape, np.nan), where=respondents > 0)
    chart = _run(index, survey_variance(respondents, rules.correlation), "low", rules)
    found: list[Finding] = []
    for at in chart.hits.tolist():
        last = int(np.flatnonzero(respondents[at] > 0)[-1])
        usual = float(points[at, :last].sum() / max(int(respondents[at, :last].sum()), 1))
        if usual - index[at, last] < rules.min_points:
            continue
        window = PERIOD_DAYS * (sums.shape[1] - last)
        asked, missing = int(respondents[at, last]), float(respondents[at, last] * (100.0 - index[at, last]) / 100.0)
        expected = asked * (100.0 - usual) / 100.0
        entry = Evidence(
            detector="satisfaction-ewma",
            against="run-length",
            window_days=window,
            observed=rounded(missing) or 0.0,
            expected=rounded(expected),
            tested=asked,
            rate=rounded(float(index[at, last])),
            reference=rounded(usual),
            statistic=rounded(float(chart.path[at])),
            threshold=rounded(-chart.limit),
            recurrence_days=rules.arl_days,
        )
        found.append(Finding(int(rows[at]), _chance(rules), {1: missing - expected}, [entry], window))
    return found


def drift_path(
    store: CellStore, row: int, day: int, indicator: Literal["satisfaction", "loss"], rules: DriftRules
) -> tuple[int, Floats, float]:
    """The chart of one cell up to a day: the last day of the last period, the path period by period in standard
    deviations, and the limit (the loss rate alarms above it, the index below its negative)."""
    rows = np.array([row], np.intp)
    sums = _periods(store, rows, day, rules)
    if indicator == "loss":
        chart = _run(log_loss_rate(sums[:, :, 0], sums[:, :, 1]), None, "high", rules)
    else:
        asked = sums[:, :, 1]
        index = np.divide(sums[:, :, 0] / 100.0, asked, out=np.full(asked.shape, np.nan), where=asked > 0)
        chart = _run(index, survey_variance(asked, rules.correlation), "low", rules)
    return _last_day(day), chart.whole[0], chart.limit


def _last_day(day: int) -> int:
    """The last day of the period that holds a day."""
    return (day + _TO_MONDAY) // PERIOD_DAYS * PERIOD_DAYS + PERIOD_DAYS - 1 - _TO_MONDAY


def _periods(store: CellStore, rows: npt.NDArray[np.intp], day: int, rules: DriftRules) -> Ints:
    """Sums [rows, periods, fields] of the periods up to the running one."""
    daily = np.maximum(store.daily(rows, _last_day(day), rules.periods * PERIOD_DAYS), 0)
    return cast(Ints, daily.reshape(len(rows), rules.periods, PERIOD_DAYS, 2).sum(axis=2))


def _run(values: Floats, variance: Floats | None, side: Literal["high", "low"], rules: DriftRules) -> _Chart:
    scores = self_starting(
        values, 1.0 if variance is None else variance, least_history=rules.least_periods, clip=rules.clip
    )
    # Clipping makes the scores' law narrower than the normal one: the stated run length is kept, and exceeded.
    limit = ewma_limit(max(rules.arl_days / PERIOD_DAYS, 2.0), rules.lam)
    chart = ewma_chart(scores, rules.lam, limit)
    # Losses come by the quarter: the last period with a score speaks until the next should have come.
    age = np.argmax(np.isfinite(scores)[:, ::-1], axis=1)
    last = scores.shape[1] - 1 - age
    beyond = (chart.high if side == "high" else chart.low)[np.arange(len(scores)), last]
    return _Chart(np.flatnonzero(beyond & (age < STALE_PERIODS)), chart.path[:, -1], limit, chart.path)


def _chance(rules: DriftRules) -> float:
    """Of an alarm in one period."""
    return PERIOD_DAYS / rules.arl_days
