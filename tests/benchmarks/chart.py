"""A line chart as SVG, both axes logarithmic: a straight line of slope 0 is a cost that does not grow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

__all__ = ["chart"]

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 80, 170, 40, 50
COLOURS = ("#0b5fa5", "#c1440e", "#2e7d32", "#6a1b9a", "#8d6e00")
Points = Sequence[tuple[float, float]]


def chart(title: str, x_name: str, y_name: str, series: Mapping[str, Points]) -> str:
    """The chart of several series of positive points, each with its name beside its last point.

    Examples
    --------
    >>> chart("cost", "cells", "us", {"event": [(1e3, 5.0), (1e4, 6.0)]}).startswith("<svg")
    True
    """
    xs = _bounds([x for points in series.values() for x, _ in points])
    ys = _bounds([y for points in series.values() for _, y in points])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - xs[0]) / (xs[1] - xs[0])
        up = (math.log10(y) - ys[0]) / (ys[1] - ys[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        _text(LEFT, 22, title, "start", 15),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name),
        f'<g transform="translate(18 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)">{_text(0, 0, y_name)}</g>',
    ]
    for power in range(xs[0], xs[1] + 1):
        x, y = at(10.0**power, 10.0 ** ys[0])
        parts += [_line(x, y, x, TOP), _text(x, y + 18, f"{10.0**power:,g}")]
    for power in range(ys[0], ys[1] + 1):
        x, y = at(10.0 ** xs[0], 10.0**power)
        parts += [_line(x, y, WIDTH - RIGHT, y), _text(x - 6, y + 4, f"{10.0**power:,g}", "end")]
    for number, (name, points) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(*point) for point in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
        parts.append(_text(places[-1][0] + 8, places[-1][1] + 4, name, "start", colour=colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _bounds(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around some values, one apart at least."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str = "middle", size: int = 12, colour: str = "#222") -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
