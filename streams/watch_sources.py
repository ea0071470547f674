"""Sources (labs, hospitals, hotlines, authorities) that fall silent, or whose volume or delay changes.

Each source's reports are counted by the day of their arrival. A day is judged when it is over. A source that has been
silent for long is no longer one, and what it had is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.rhythm import SourcePool, pool_sources
from detectors.sources import delay_drift, silence, volume_change
from schemas.alerts import Evidence, Signal
from streams.config import SourceRules
from streams.finding import rounded
from streams.tally import DELAY_EDGES, SourceCount

__all__ = ["SourceWatch"]

_WEEK = 7
_TO_MONDAY = 3
_SUNDAY = 3  # of day 0, a Thursday: day 3 is a Sunday
_VOLUME_WEEKS = 4
_LEAST_WEEKS = 8
_MOST = 0.75
Key = tuple[int, str]
Ints = npt.NDArray[np.int32]


class _State(msgspec.Struct, array_like=True):
    keys: list[Key]
    last: int
    firsts: bytes
    daily: bytes
    delays: bytes


class SourceWatch:
    """Daily reports of every source, the last ``history_days`` of them, and their delays by week."""

    def __init__(self, rules: SourceRules) -> None:
        self._rules = rules
        self._days = rules.history_days + 1
        self._weeks = self._days // _WEEK + 2
        self._row: dict[Key, int] = {}
        self._last = 0
        """The day that stands in the last column."""
        self._first = np.zeros(0, np.int64)
        self._daily = np.zeros((0, self._days), np.int32)
        self._delays = np.zeros((0, self._weeks, len(DELAY_EDGES) + 1), np.int32)

    @property
    def watched(self) -> bool:
        """Whether there is any source."""
        return bool(self._row)

    def add(self, day: int, sources: list[SourceCount]) -> None:
        """Add what arrived on a day."""
        if not sources:
            return
        self._advance(day)
        new = [(one.kind, one.reporter) for one in sources if (one.kind, one.reporter) not in self._row]
        self._grow(new[: max(0, self._rules.max_sources - len(self._row))], day)
        column, week = day - self._last - 1, (day + 3) // _WEEK - (self._last + 3) // _WEEK - 1
        for one in sources:
            row = self._row.get((one.kind, one.reporter))
            if row is not None and -self._days <= column:
                self._daily[row, column] += one.events
                self._delays[row, week] += np.array(one.delays, np.int32)

    def _grow(self, keys: list[Key], day: int) -> None:
        for key in keys:
            self._row[key] = len(self._row)
        if keys:
            self._first = np.concatenate([self._first, np.full(len(keys), day, np.int64)])
            self._daily = np.concatenate([self._daily, np.zeros((len(keys), *self._daily.shape[1:]), np.int32)])
            self._delays = np.concatenate([self._delays, np.zeros((len(keys), *self._delays.shape[1:]), np.int32)])

    def _advance(self, day: int) -> None:
        """Make a day the last column."""
        if not self._row:
            self._last = day
        if day <= self._last:
            return
        self._daily = _shifted(self._daily, day - self._last)
        self._delays = _shifted(self._delays, (day + 3) // _WEEK - (self._last + 3) // _WEEK)
        self._last = day

    def _forget(self) -> None:
        """Let go of sources that have been silent for long."""
        alive = self._daily[:, -self._rules.forget_days :].sum(axis=1) > 0
        if alive.all():
            return
        keys = [key for key, row in self._row.items() if alive[row]]
        self._row = {key: at for at, key in enumerate(keys)}
        self._first, self._daily, self._delays = self._first[alive], self._daily[alive], self._delays[alive]

    def judge(self, day: int, about: dict[str, Any]) -> list[Signal]:
        """Signals for the sources that were silent, or unlike themselves, at the end of a day."""
        if not self._row:
            return []
        self._advance(day)
        self._forget()
        found: dict[str, _Found] = {}
        kinds = np.array([kind for kind, _ in self._row], np.int64)
        names = [name for _, name in self._row]
        for kind in np.unique(kinds).tolist():
            rows = np.flatnonzero(kinds == kind)
            self._judge_kind(rows, [names[row] for row in rows.tolist()], found)
        return [_signal(name, found[name], about) for name in sorted(found)]

    def _judge_kind(self, rows: npt.NDArray[np.intp], names: list[str], found: dict[str, _Found]) -> None:
        old = np.flatnonzero(self._last - self._first[rows] + 1 >= self._rules.min_history_days)
        quiet = old[self._may_be_silent(rows[old])]
        weekly = self._last % _WEEK == _SUNDAY
        if not len(quiet) and not (weekly and len(old)):
            return
        weekday = (self._last - self._days + 1 + _TO_MONDAY) % _WEEK
        pool = pool_sources(self._daily[rows], weekday)
        if len(quiet):
            self._judge_silence(rows[quiet], [names[at] for at in quiet.tolist()], weekday, pool, found)
        if weekly and len(old):
            self._judge_delay(rows[old], [names[at] for at in old.tolist()], found)
            steady = old[self._is_steady(rows[old])]
            self._judge_volume(rows[steady], [names[at] for at in steady.tolist()], weekday, pool, found)

    def _may_be_silent(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Sources whose silence would surprise if their reports were independent: clustering only makes it likelier."""
        daily = self._daily[rows]
        silent = np.argmax(daily[:, ::-1] > 0, axis=1)
        known = np.minimum(self._last - self._first[rows] + 1, self._days) - silent
        whole = self._days // _WEEK
        by_weekday = daily[:, -whole * _WEEK :].reshape(len(rows), whole, _WEEK).sum(axis=1)
        # What its weekdays usually bring from the judged day back, with half as much again for a rhythm that has risen.
        back = np.cumsum(by_weekday[:, ::-1], axis=1) * (1.5 * _WEEK / np.maximum(known, 1))[:, None]
        weeks, rest = np.divmod(silent, _WEEK)
        part = np.where(rest > 0, back[np.arange(len(rows)), np.maximum(rest - 1, 0)], 0.0)
        due = weeks * back[:, -1] + part
        return np.flatnonzero((silent > 0) & (due >= -np.log(self._rules.alpha)))

    def _is_steady(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Sources that have reported in most past weeks: for one that reports in bursts a quiet window is no news."""
        window = _VOLUME_WEEKS * _WEEK
        whole = (self._days - window) // _WEEK
        past = self._daily[rows, self._days - window - whole * _WEEK : self._days - window]
        active = past.reshape(len(rows), whole, _WEEK).sum(axis=2) > 0
        known = np.minimum((self._last - window - self._first[rows] + 1) // _WEEK, whole)
        return np.flatnonzero((active.sum(axis=1) >= _MOST * known) & (known >= _LEAST_WEEKS))

    def _judge_silence(
        self, rows: npt.NDArray[np.intp], names: list[str], weekday: int, pool: SourcePool, found: dict[str, _Found]
    ) -> None:
        silent = silence(self._daily[rows], weekday, pool=pool, weeks=self._days // _WEEK)
        for at in np.flatnonzero(silent.defined & (silent.p_value <= self._rules.alpha)).tolist():
            evidence = Evidence(
                detector="silence",
                against="own-history",
                window_days=int(silent.days_silent[at]),
                observed=0.0,
                expected=rounded(float(silent.expected[at])),
                threshold=rounded(float(silent.longest[at])),
                p_value=rounded(float(silent.p_value[at])),
            )
            _add(found, names[at], float(silent.p_value[at]), float(silent.expected[at]), evidence)

    def _judge_volume(
        self, rows: npt.NDArray[np.intp], names: list[str], weekday: int, pool: SourcePool, found: dict[str, _Found]
    ) -> None:
        window, rules = _VOLUME_WEEKS * _WEEK, self._rules
        volume = volume_change(self._daily[rows], weekday, window=window, pool=pool, weeks=self._days // _WEEK)
        apart = (volume.ratio <= rules.drop_ratio) | (volume.ratio >= rules.rise_ratio)
        for at in np.flatnonzero(volume.defined & apart & (volume.p_value <= rules.alpha)).tolist():
            observed, expected = float(volume.observed[at]), float(volume.expected[at])
            p = float(volume.p_value[at])
            evidence = Evidence(
                detector="volume-change",
                against="own-history",
                window_days=window,
                observed=observed,
                expected=rounded(expected),
                statistic=rounded(float(volume.ratio[at])),
                p_value=rounded(p),
                recurrence_days=rounded(_WEEK / max(p, 1e-300)),
            )
            _add(found, names[at], p, abs(observed - expected), evidence)

    def _judge_delay(self, rows: npt.NDArray[np.intp], names: list[str], found: dict[str, _Found]) -> None:
        drift = delay_drift(self._delays[rows])
        for at in np.flatnonzero(drift.defined & (drift.p_value <= self._rules.alpha)).tolist():
            late, p = float(drift.late[at]), float(drift.p_value[at])
            usual = float(drift.usual_share[at]) * float(drift.reports[at])
            if late < self._rules.rise_ratio * usual:
                continue
            evidence = Evidence(
                detector="delay-drift",
                against="own-history",
                window_days=_WEEK,
                observed=late,
                expected=rounded(usual),
                tested=int(drift.reports[at]),
                statistic=rounded(float(drift.later[at])),
                p_value=rounded(p),
                recurrence_days=rounded(_WEEK / max(p, 1e-300)),
            )
            _add(found, names[at], p, late - usual, evidence)

    def pack(self) -> bytes:
        return msgspec.msgpack.encode(
            _State(
                list(self._row),
                self._last,
                self._first.tobytes(),
                self._daily.tobytes(),
                self._delays.tobytes(),
            )
        )

    def unpack(self, data: bytes) -> None:
        state = msgspec.msgpack.decode(data, type=_State)
        self._row = {key: at for at, key in enumerate(state.keys)}
        count = len(state.keys)
        self._last = state.last
        self._first = np.frombuffer(state.firsts, np.int64).copy()
        self._daily = np.frombuffer(state.daily, np.int32).reshape(count, self._days).copy()
        self._delays = np.frombuffer(state.delays, np.int32).reshape(count, *self._delays.shape[1:]).copy()


@dataclass(slots=True)
class _Found:
    """What was found of one reporter, in whatever kinds of report."""

    p_value: float
    excess: float
    evidence: list[Evidence]


def _add(found: dict[str, _Found], name: str, p_value: float, excess: float, evidence: Evidence) -> None:
    held = found.setdefault(name, _Found(1.0, 0.0, []))
    held.p_value, held.excess = min(held.p_value, p_value), max(held.excess, excess)
    held.evidence.append(evidence)


def _signal(name: str, found: _Found, about: dict[str, Any]) -> Signal:
    return Signal(
        **about,
        kind="silent-source",
        product="*",
        region="*",
        level=4,
        p_value=found.p_value,
        excess=found.excess,
        evidence=found.evidence,
        source=name,
    )


def _shifted(table: Ints, columns: int) -> Ints:
    """The table with its columns moved to the left, zeros coming in."""
    out = np.zeros_like(table)
    if columns < table.shape[1]:
        out[:, : table.shape[1] - columns] = table[:, columns:]
    return out
