"""Judging counts without a denominator: injuries, complaints, accidents by calendar week.

The running week is judged as soon as it has events: its count can only grow, so a bound that holds for the whole
week holds for its part, and no false alarm is added. The week before is judged too, for late reports.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy import special

from detectors.ears import ears
from detectors.evidence import CountEvidence
from detectors.farrington import FarringtonOptions, farrington
from detectors.predictive import predictive
from detectors.surge import SurgeOptions, surge
from schemas.alerts import Evidence
from streams.cells import CellStore
from streams.config import CountRules
from streams.finding import Finding, rounded
from streams.judge_sums import PIECE, calendar_weeks, pieces

__all__ = ["CountHistory", "count_history", "detect", "is_surge", "judge_counts", "weeks_watched"]

_WEEK = 7
_RECENT = 4
_YEAR = 52
_NEVER = 2**62
"""Stands for weeks before anybody watched: behind all counts in a sort."""


def judge_counts(store: CellStore, rows: npt.NDArray[np.intp], day: int, rules: CountRules) -> list[Finding]:
    """Findings for the cells whose recent count is more than chance allows.

    Parameters
    ----------
    store
        Counts of one indicator.
    rows
        Cells to judge.
    day
        The local day of the tick.
    rules
        Levels and minima.
    """
    busy = [part.start + _busy(store, rows[part], day, rules) for part in pieces(len(rows), PIECE)]
    rows = rows[np.concatenate([np.empty(0, np.intp), *busy])]
    watched = weeks_watched(store, rows, day)
    suspects = [np.empty((2, 0), np.intp)]
    for part in pieces(len(rows), PIECE):
        lag, at = _suspects(store, rows[part], day, watched[part], rules)
        suspects.append(np.stack([lag, part.start + at]))
    lags, places = np.concatenate(suspects, axis=1)
    spans, told = _spans(watched, rules), np.unique(places)
    found: dict[int, Finding] = {}
    for part in pieces(len(told), PIECE):  # all weeks of a cell in one piece
        mine = (places >= told[part][0]) & (places <= told[part][-1])
        lag, at = lags[mine], places[mine]
        for span in np.unique(spans[at]).tolist():
            mine = spans[at] == span
            _judge_span(store, rows[at[mine]], day, span, watched[at[mine]], lag[mine], rules, found)
    return [found[row] for row in sorted(found)]


def _busy(store: CellStore, rows: npt.NDArray[np.intp], day: int, rules: CountRules) -> npt.NDArray[np.intp]:
    recent = store.weekly(rows, day, _RECENT + 1)[:, :, 0]
    most = np.maximum(recent[:, 1:].sum(axis=1), recent[:, :-1].sum(axis=1))
    return np.flatnonzero(most >= rules.min_recent)


def _spans(watched: npt.NDArray[np.int64], rules: CountRules) -> npt.NDArray[np.int64]:
    """Weeks to load for each cell, in whole years, from how long its own branch has been watched: sums over arrays of
    another length may differ in their last bit, and no other branch's history may show in a cell's evidence."""
    years = np.minimum(-(-watched // _YEAR), rules.history_years)
    return years * _YEAR + _YEAR


def _judge_span(
    store: CellStore,
    rows: npt.NDArray[np.intp],
    day: int,
    span: int,
    watched: npt.NDArray[np.int64],
    lags: npt.NDArray[np.intp],
    rules: CountRules,
    found: dict[int, Finding],
) -> None:
    """Judge weeks that stand out (a row for each, ``lags`` weeks ago) by ``span`` weeks that end with them."""
    weekly = calendar_weeks(store, rows, day, span)
    before = np.concatenate([np.zeros((len(rows), 1), np.int64), weekly[:, :-1]], axis=1)
    weeks = np.where(lags[:, None] == 1, before, weekly)
    _judge_weeks(rows, weeks, np.minimum(watched, span) - lags, lags, rules, found)


def _suspects(
    store: CellStore, rows: npt.NDArray[np.intp], day: int, watched: npt.NDArray[np.int64], rules: CountRules
) -> npt.NDArray[np.intp]:
    """[2, suspects]: how many weeks ago (0 or 1), and which of the rows, some week stands out; by lag, then row."""
    weekly = calendar_weeks(store, rows, day, _YEAR + 2)
    ends = (weekly[:, 1:], np.maximum(watched, 1)), (weekly[:, :-1], np.maximum(watched - 1, 1))
    found = [_suspect(weeks, known, rules) for weeks, known in ends]
    return np.stack([np.repeat([0, 1], [len(at) for at in found]), np.concatenate(found)])


def _suspect(weekly: npt.NDArray[np.int64], watched: npt.NDArray[np.int64], rules: CountRules) -> npt.NDArray[np.intp]:
    """Cells whose week would surprise even a Poisson law with half the mean of the quieter half of the last year.

    Nearly all cells fall out here at the price of a sort; the detectors proper see the rest. ``weekly`` has the year
    and then the week [cells, 53].
    """
    at = np.flatnonzero(weekly[:, -1] >= 2)
    year, now, watched = weekly[at, :-1], weekly[at, -1].astype(np.float64), np.minimum(watched[at] - 1, _YEAR)
    ordered = np.sort(np.where(np.arange(_YEAR) < _YEAR - watched[:, None], _NEVER, year), axis=1)
    half = np.maximum(watched // 2, 1)
    quiet = (np.arange(_YEAR) < half[:, None]) & (ordered < _NEVER)
    mean = np.where(quiet, ordered, 0).sum(axis=1) / half / 2.0
    tail = special.gammainc(np.maximum(now, 1.0), np.maximum(mean, 1e-9))  # P(Y >= now) for a Poisson law
    return np.asarray(at[tail <= rules.alpha], np.intp)


def weeks_watched(store: CellStore, rows: npt.NDArray[np.intp], day: int) -> npt.NDArray[np.int64]:
    """Weeks since the branch's first event, this one included: a brand new to a watched branch has a past of zeros."""
    firsts = [store.first_day(store.branch(row)) for row in rows.tolist()]
    weeks = [(day + 3) // _WEEK - ((first if first is not None else day) + 3) // _WEEK + 1 for first in firsts]
    return np.array(weeks, np.int64)


def _judge_weeks(
    rows: npt.NDArray[np.intp],
    weekly: npt.NDArray[np.int64],
    watched: npt.NDArray[np.int64],
    lags: npt.NDArray[np.int64],
    rules: CountRules,
    found: dict[int, Finding],
) -> None:
    for at, evidence, detector in detect(weekly, watched, rules):
        _collect(rows[at], evidence, detector, lags[at], rules, found)


def detect(
    weekly: npt.NDArray[np.int64], watched: npt.NDArray[np.int64], rules: CountRules
) -> list[tuple[npt.NDArray[np.intp], CountEvidence, str]]:
    """What is said of the last week of each series: the series' numbers, the evidence on them, the detector's name.

    Parameters
    ----------
    weekly
        Events a week [series, weeks].
    watched
        Weeks for which each series has been watched, the last one included [series].
    rules
        They choose the detector; series too young for it have one of their own, whose evidence comes after.
    """
    if rules.detector == "surge":
        able = np.where(watched >= rules.min_surge_weeks, watched, 0)
        chosen = SurgeOptions(alpha=rules.alpha, years=rules.history_years, least_cases=(rules.min_recent, _RECENT))
        warm, name = surge(weekly, history=able, options=chosen), "surge"
    else:
        options = FarringtonOptions(
            years_back=rules.history_years, alpha=rules.alpha, limit54=(rules.min_recent, _RECENT)
        )
        warm, name = farrington(weekly, history=np.maximum(watched, 0), options=options), "farrington-improved"
    said = [(np.arange(len(weekly)), warm, name)]
    cold = np.flatnonzero(~warm.defined & (watched >= rules.min_history_weeks))
    if len(cold):
        said.append((cold, _judge_cold(weekly[cold], watched[cold], rules), "ears-c2+predictive"))
    return said


@dataclass(frozen=True, slots=True)
class CountHistory:
    """A cell's counts in the calendar weeks up to a day; every field is an array [weeks].

    ``expected`` and ``upper`` are NaN in weeks of which no detector speaks, ``detector`` is empty there.
    """

    counts: npt.NDArray[np.int64]
    expected: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    alarm: npt.NDArray[np.bool_]
    detector: list[str]


def count_history(store: CellStore, row: int, day: int, weeks: int, rules: CountRules) -> CountHistory:
    """What would be said of each of a cell's last ``weeks`` weeks, of the counts as they are known now."""
    at = np.array([row], np.intp)
    watched = weeks_watched(store, at, day)
    span = int(_spans(watched, rules)[0])
    weekly = np.maximum(store.weekly(at, day, span + weeks - 1)[0, :, 0], 0)
    known = np.clip(int(watched[0]) - np.arange(weeks)[::-1], 1, span)
    expected, upper = np.full(weeks, np.nan), np.full(weeks, np.nan)
    alarm, detector = np.zeros(weeks, np.bool_), [""] * weeks
    for place, evidence, name in detect(np.ascontiguousarray(sliding_window_view(weekly, span)), known, rules):
        spoken = evidence.defined
        expected[place[spoken]], upper[place[spoken]] = evidence.expected[spoken], evidence.upper[spoken]
        alarm[place] |= is_surge(evidence, rules)
        for week in place[spoken].tolist():
            detector[week] = name
    return CountHistory(weekly[-weeks:], expected, upper, alarm, detector)


def is_surge(evidence: CountEvidence, rules: CountRules) -> npt.NDArray[np.bool_]:
    """Where the evidence is strong enough, and the excess large enough to matter."""
    enough = evidence.observed >= np.maximum(rules.min_ratio * evidence.expected, 2.0)
    strong: npt.NDArray[np.bool_] = evidence.defined & evidence.alarm & (evidence.p_value <= rules.alpha) & enough
    return strong


def _judge_cold(weekly: npt.NDArray[np.int64], watched: npt.NDArray[np.int64], rules: CountRules) -> CountEvidence:
    """Too little history for the detectors proper: EARS C2 must alarm, and the predictive tail must be small."""
    chart = ears(weekly, method="C2")
    tail = predictive(
        weekly,
        pool=rules.cold_dispersion,
        history=watched,
        alpha=rules.alpha,
        least_cases=(rules.min_recent, _RECENT),
    )
    return replace(
        tail,
        upper=np.maximum(chart.upper, tail.upper),
        alarm=tail.alarm & chart.alarm,
        defined=tail.defined & chart.defined,
    )


def _collect(
    rows: npt.NDArray[np.intp],
    evidence: CountEvidence,
    detector: str,
    lags: npt.NDArray[np.int64],
    rules: CountRules,
    found: dict[int, Finding],
) -> None:
    for at in np.flatnonzero(is_surge(evidence, rules)).tolist():
        p, row, lag = float(evidence.p_value[at]), int(rows[at]), int(lags[at])
        observed, expected = float(evidence.observed[at]), float(evidence.expected[at])
        entry = Evidence(
            detector=detector,
            against="baseline",
            window_days=_WEEK,
            observed=observed,
            expected=rounded(expected),
            threshold=rounded(float(evidence.upper[at])),
            statistic=rounded(float(evidence.score[at])),
            p_value=rounded(p),
            recurrence_days=rounded(_WEEK / max(p, 1e-300)),
        )
        finding = found.setdefault(row, Finding(row, p, {}, [], (lag + 1) * _WEEK))
        finding.p_value = min(finding.p_value, p)
        finding.excess[lag] = observed - expected
        finding.evidence.append(entry)
        finding.window_days = max(finding.window_days, (lag + 1) * _WEEK)
