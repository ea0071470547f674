"""The trade-off curve of a sweep as a picture: delay against false alerts a year (needs the extra ``report``)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from schemas.errors import TocsinError
from streams.sweep import Point

__all__ = ["check_plot", "draw"]


def check_plot(path: Path) -> None:
    """Say at once, not after an hour's sweep, that a picture cannot be drawn.

    Raises
    ------
    TocsinError
        Its name ends in something else, or a package is not there.
    """
    if path.suffix not in (".html", ".png"):
        raise TocsinError(f"--plot {path}: name it .html or .png")
    _plotly()
    if path.suffix == ".png" and find_spec("kaleido") is None:
        raise TocsinError(f"--plot {path}: a PNG needs the package kaleido; name it .html, or install it")


def _plotly() -> Any:
    try:
        return import_module("plotly.graph_objects")
    except ImportError:
        raise TocsinError("--plot: needs the package plotly; install it with: pip install 'tocsin[report]'") from None


def draw(points: Sequence[Point], path: Path) -> None:
    """Write the curve to ``path``: every point, those on the front joined by a line. The HTML is self-contained."""
    graph = _plotly()
    figure = graph.Figure()
    ahead = sorted((point for point in points if point.front), key=lambda one: one.score.false_a_year)
    for name, some, mode in (("all", points, "markers"), ("front", ahead, "lines+markers")):
        figure.add_trace(
            graph.Scatter(
                name=name,
                mode=mode,
                x=[point.score.false_a_year for point in some],
                y=[point.score.mean_days for point in some],
                text=[_label(point) for point in some],
                hovertemplate="%{text}<br>%{x:.2f} false a year, mean delay %{y:.1f} days<extra></extra>",
            )
        )
    figure.update_layout(
        title="Delay against false alerts",
        xaxis_title="false alerts a year",
        yaxis_title="mean delay in days, missed incidents in full",
        template="plotly_white",
    )
    try:
        if path.suffix == ".png":
            figure.write_image(path, width=1_000, height=600, scale=2)
        else:
            figure.write_html(path, include_plotlyjs=True)
    except OSError as error:
        raise TocsinError(f"{path}: cannot be written ({(error.strerror or '').lower()}); check the path") from None


def _label(point: Point) -> str:
    """Values can be any text of a configuration: as HTML they must stay text."""
    said = ", ".join(f"{name}={value}" for name, value in point.setting.values)
    return escape(f"{said} ({point.score.found} of {point.score.visible} found)")
