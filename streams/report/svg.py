"""Drawing: a control chart and a bar of time, as SVG text. No script, no outside resource; colours are classes, for the
page's style sheet, so that a chart follows dark mode and print."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.report.charts import Chart, Unit
from streams.report.periods import Span, day_number, iso

__all__ = ["Bar", "Mark", "bar", "draw", "in_unit", "ticks"]

WIDTH: Final = 480
HEIGHT: Final = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 10, 20, 32
_MOST_DATES: Final = 5
_REACH: Final = 0.7
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of an alert: its day, its level then, and what happened, in words."""

    day: int
    level: int
    text: str
    over: bool = False
    """Whether it is the alert's end."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The life of an alert in a span: from when to when it stood at which level."""

    pieces: tuple[tuple[float, float, int], ...]
    text: str


def in_unit(value: float, unit: Unit) -> str:
    """A value for people.

    Examples
    --------
    >>> in_unit(0.98765, "percent"), in_unit(81.234, "points"), in_unit(1234.0, "count")
    ('98.77%', '81.23', '1,234')
    """
    if unit == "percent":
        return f"{100 * value:.2f}%"
    return f"{value:.2f}" if unit == "points" else f"{value:,.2f}".rstrip("0").rstrip(".")


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from at most ``low`` to at least ``high``, about ``most`` of them.

    Examples
    --------
    >>> ticks(0.0, 23.0)
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0]
    """
    rough = max(high - low, 1e-12) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


class _Frame:
    """The scales of one chart. What was observed and expected is seen whole; bands and thresholds that lie far from it
    are cut off, lest they press it flat."""

    def __init__(self, chart: Chart) -> None:
        core = _finite(chart.observed, chart.expected)
        core += [] if chart.said is None else [chart.said[1]]
        low, high = min(core, default=0.0), max(core, default=1.0)
        reach = _REACH * max(high - low, {"percent": 0.01, "points": 1.0, "count": 2.0}.get(chart.unit, 1.0))
        others = [value for value in _finite(chart.threshold, chart.lower, chart.upper)
                  if low - reach <= value <= high + reach]  # fmt: skip
        low, high = min([low, *others]), max([high, *others])
        if chart.unit in ("count", "ratio"):
            low = 0.0
        if high - low < 1e-9:
            low, high = low - 0.5 * (chart.unit != "count"), high + 0.5
        if chart.unit == "percent":
            low, high = max(low, 0.0), min(max(high, low + 0.005), 1.0)
        self.values = ticks(low, high)
        if chart.unit == "percent":
            self.values = [value for value in self.values if value <= 1.0 + 1e-9]
        if chart.unit == "count" and len(self.values) > 1 and self.values[1] < 1.0:
            self.values = [0.0, 1.0]
        self.first, self.last = int(chart.days[0]) - 3, int(chart.days[-1]) + 3
        self.low, self.high = self.values[0], max(self.values[-1], high)
        self.step = (WIDTH - _LEFT - _RIGHT) / (self.last - self.first)

    def x(self, day: float) -> float:
        return _LEFT + (day - self.first) * self.step

    def y(self, value: float) -> float:
        share = (value - self.low) / max(self.high - self.low, 1e-12)
        return HEIGHT - _BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - _TOP - _BOTTOM)

    def shows(self, value: float) -> bool:
        return self.low - 1e-12 <= value <= self.high + 1e-12


def draw(chart: Chart, marks: Sequence[Mark], label: str, point: Callable[[int, str], str]) -> str:
    """One chart.

    Parameters
    ----------
    marks
        Moments of the alert; those outside the chart are left out.
    label
        What it shows, for those who cannot see it.
    point
        The words of one point's tip, from its day and its value.
    """
    frame = _Frame(chart)
    inside = [mark for mark in marks if frame.first <= mark.day <= frame.last]
    body = [*_grid(frame, chart.unit), *_band(frame, chart)]
    body += _bars(frame, chart, point) if chart.form == "bars" else []
    body += [*_steps(frame, chart.days, chart.expected, "mean"), *_steps(frame, chart.days, chart.threshold, "limit")]
    body += _line(frame, chart, point) if chart.form == "line" else []
    body += [*_marks(frame, inside), *_said(frame, chart, point)]
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{''.join(body)}</svg>"
    )


def _finite(*series: Floats | None) -> list[float]:
    return [float(value) for one in series if one is not None for value in one if math.isfinite(value)]


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _grid(frame: _Frame, unit: Unit) -> Iterable[str]:
    decimals = _decimals(frame.values, 100.0 if unit == "percent" else 1.0)
    for value in frame.values:
        y = _n(frame.y(value))
        said = f"{100 * value:.{decimals}f}%" if unit == "percent" else f"{value:,.{decimals}f}"
        yield f'<path class="grid" d="M{_LEFT} {y}H{WIDTH - _RIGHT}"/>'
        yield f'<text class="end" x="{_LEFT - 5}" y="{y}" dy=".35em">{said}</text>'
    months = _months(frame.first, frame.last)
    step = next(step for step in (1, 2, 3, 6, 12, 24, 60, 120) if len(months[::step]) <= _MOST_DATES)
    for day in [day for day in months if (int(iso(day)[5:7]) - 1) % min(step, 12) == 0][:: max(step // 12, 1)]:
        x = _n(frame.x(day))
        yield f'<path class="grid" d="M{x} {HEIGHT - _BOTTOM}v4"/>'
        if _LEFT + 8 < frame.x(day) < WIDTH - 30:
            yield f'<text class="mid" x="{x}" y="{HEIGHT - 9}">{iso(day)[:7]}</text>'


def _decimals(values: Sequence[float], scale: float) -> int:
    """The least decimals that tell the values apart."""
    for decimals in range(4):
        if all(abs(round(value * scale, decimals) - value * scale) < 1e-9 for value in values):
            return decimals
    return 4


def _months(first: int, last: int) -> list[int]:
    """The first days of the months in between."""
    begin = date.fromisoformat(iso(first))
    number, found = begin.year * 12 + begin.month - 1, []
    while (day := day_number(date(number // 12, number % 12 + 1, 1))) <= last:
        if day >= first:
            found.append(day)
        number += 1
    return found


def _runs(*series: Floats) -> Iterable[range]:
    """Stretches without a gap in any series."""
    there = [all(map(math.isfinite, point)) for point in zip(*(one.tolist() for one in series), strict=True)]
    at = 0
    while at < len(there):
        begin = at
        while at < len(there) and there[at]:
            at += 1
        if at > begin:
            yield range(begin, at)
        at += 1


def _band(frame: _Frame, chart: Chart) -> Iterable[str]:
    if chart.lower is None or chart.upper is None:
        return
    for run in _runs(chart.lower, chart.upper):
        up = [f"{_n(frame.x(chart.days[i]))} {_n(frame.y(chart.upper[i]))}" for i in run]
        down = [f"{_n(frame.x(chart.days[i]))} {_n(frame.y(chart.lower[i]))}" for i in reversed(run)]
        yield f'<path class="band" d="M{"L".join(up + down)}Z"/>'


def _steps(frame: _Frame, days: npt.NDArray[np.int64], values: Floats | None, name: str) -> Iterable[str]:
    """A level a point: flat around it, for it holds for that point alone."""
    if values is None:
        return
    half = float(days[1] - days[0]) / 2 if len(days) > 1 else 3.0
    values = np.array([value if frame.shows(value) else np.nan for value in values.tolist()])
    for run in _runs(values):
        parts = [f"M{_n(frame.x(days[run[0]] - half))} {_n(frame.y(values[run[0]]))}"]
        for i in run:
            parts.append(f"V{_n(frame.y(values[i]))}H{_n(frame.x(days[i] + half))}")
        yield f'<path class="{name}" d="{"".join(parts)}"/>'


def _outside(chart: Chart, i: int) -> bool:
    """Whether a point is beyond its threshold."""
    if chart.threshold is None or not math.isfinite(chart.threshold[i]) or not math.isfinite(chart.observed[i]):
        return False
    if chart.unit == "count" or (chart.unit in ("deviations", "ratio") and chart.threshold[i] > 0):
        return bool(chart.observed[i] >= chart.threshold[i])
    return bool(chart.observed[i] <= chart.threshold[i])


def _line(frame: _Frame, chart: Chart, point: Callable[[int, str], str]) -> Iterable[str]:
    for run in _runs(chart.observed):
        path = "L".join(f"{_n(frame.x(chart.days[i]))} {_n(frame.y(chart.observed[i]))}" for i in run)
        yield f'<path class="line" d="M{path}"/>'
    for i in np.flatnonzero(np.isfinite(chart.observed)).tolist():
        tip = escape(point(int(chart.days[i]), in_unit(float(chart.observed[i]), chart.unit)))
        name, size = ("dot out", 3.2) if _outside(chart, i) else ("dot", 2)
        yield (
            f'<circle class="{name}" cx="{_n(frame.x(chart.days[i]))}" cy="{_n(frame.y(chart.observed[i]))}" '
            f'r="{size}"><title>{tip}</title></circle>'
        )


def _bars(frame: _Frame, chart: Chart, point: Callable[[int, str], str]) -> Iterable[str]:
    width = 5.2 * frame.step
    for i in np.flatnonzero(np.nan_to_num(chart.observed) > 0).tolist():
        top, base = frame.y(float(chart.observed[i])), HEIGHT - _BOTTOM
        tip = escape(point(int(chart.days[i]), in_unit(float(chart.observed[i]), chart.unit)))
        name = "bar out" if _outside(chart, i) else "bar"
        yield (
            f'<rect class="{name}" x="{_n(frame.x(chart.days[i]) - width / 2)}" y="{_n(top)}" width="{_n(width)}" '
            f'height="{_n(base - top)}"><title>{tip}</title></rect>'
        )


def _marks(frame: _Frame, marks: Sequence[Mark]) -> Iterable[str]:
    for mark in marks:
        x = _n(frame.x(mark.day))
        yield (
            f'<g class="mark l{mark.level}"><path d="M{x} {_TOP}V{HEIGHT - _BOTTOM}"/>'
            f'<path class="{"over" if mark.over else "flag"}" d="M{x} {_TOP}l-5 -9h10z">'
            f"<title>{escape(mark.text)}</title></path></g>"
        )


def _said(frame: _Frame, chart: Chart, point: Callable[[int, str], str]) -> Iterable[str]:
    if chart.said is None or not frame.first <= chart.said[0] <= frame.last:
        return
    day, value = chart.said
    x, y = _n(frame.x(day)), _n(frame.y(value))
    tip = escape(point(day, in_unit(value, chart.unit)))
    yield f'<path class="said" d="M{x} {y}m0 -5l5 5l-5 5l-5 -5z"><title>{tip}</title></path>'


# --- time ----------------------------------------------------------------------------------------------------------


def bar(one: Bar, span: Span) -> str:
    """The life of one alert along a span; it takes the width that there is."""
    length = max(span[1] - span[0], 1)
    parts = []
    months = _months(*span)
    for day in months[:: max(len(months) // 12, 1)]:
        x = _n(1_000 * (day - span[0]) / length)
        parts.append(f'<path class="grid" d="M{x} 0V10"/>')
    for begin, end, level in one.pieces:
        low = 1_000 * min(max((begin - span[0]) / length, 0.0), 1.0)
        high = 1_000 * min(max((end - span[0]) / length, 0.0), 1.0)
        width = max(high - low, 4.0)
        parts.append(
            f'<rect class="piece l{level}" x="{_n(min(low, 1_000 - width))}" y="1.5" width="{_n(width)}" height="7"/>'
        )
    return (
        f'<svg class="life" viewBox="0 0 1000 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(one.text)}"><title>{escape(one.text)}</title>{"".join(parts)}</svg>'
    )
