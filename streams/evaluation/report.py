"""What was measured, as plain values for JSON and as rows for Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streams.evaluation.measures import MEASURES, Estimate
from streams.evaluation.methods import METHODS
from streams.evaluation.own_series import Scored
from streams.evaluation.run import Figures, Outcome
from streams.outputs import explained, replacing

__all__ = ["as_document", "scored_document", "settings", "write_outcomes", "write_scored"]


def settings(outcome: Outcome) -> Iterator[tuple[str, Figures]]:
    """The settings at which a method was measured."""
    yield "nominal", outcome.nominal
    if outcome.matched is not None:
        yield "matched", outcome.matched


def as_document(outcomes: Sequence[Outcome], about: dict[str, Any]) -> dict[str, Any]:
    """The benchmark's result; `about` says what was run. NaN becomes null."""
    return {
        **about,
        "methods": [
            {
                "method": outcome.method,
                "title": METHODS[outcome.method].title,
                "alpha": METHODS[outcome.method].alpha,
                **{name: _figures(figures) for name, figures in settings(outcome)},
                "cuts": outcome.cuts,
            }
            for outcome in outcomes
        ],
    }


def _figures(figures: Figures) -> dict[str, Any]:
    return {name: {"value": one.value, "se": one.se} for name, one in figures.overall.items()}


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> int:
    """Write Parquet: a row for each method, setting, scenario (null for the average of all) and measure."""
    rows: list[tuple[str, str, int | None, str, Estimate]] = []
    for outcome in outcomes:
        for setting, figures in settings(outcome):
            each: list[tuple[int | None, dict[str, Estimate]]] = [(None, figures.overall), *figures.by_scenario.items()]
            for scenario, found in each:
                rows.extend((outcome.method, setting, scenario, name, found[name]) for name in MEASURES)
    columns = {
        "method": [row[0] for row in rows],
        "setting": [row[1] for row in rows],
        "scenario": [row[2] for row in rows],
        "measure": [row[3] for row in rows],
        "value": [row[4].value for row in rows],
        "se": [row[4].se for row in rows],
    }
    return _write(path, columns)


# --- a reader's own series ----------------------------------------------------------------------------------


def _scored_columns(scored: Scored) -> dict[str, Any]:
    columns: dict[str, Any] = {"series": scored.series} if any(scored.series) else {}
    columns |= {"time": scored.when, "line": scored.place, "observed": scored.observed}
    if scored.tested is not None:
        columns["tested"] = scored.tested
    for name in ("expected", "threshold", "p_value", "score", "alarm", "defined"):
        columns[name] = getattr(scored, name)
    return columns


def scored_document(scored: Scored, detector: str) -> dict[str, Any]:
    """Every row of a scored series; NaN becomes null."""
    columns = {name: values if isinstance(values, list) else values.tolist()
               for name, values in _scored_columns(scored).items()}  # fmt: skip
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"detector": detector, "alarms": int(scored.alarm.sum()), "rows": rows}


def write_scored(path: Path, scored: Scored) -> int:
    """Write every row of a scored series as Parquet."""
    return _write(path, _scored_columns(scored))


def _write(path: Path, columns: dict[str, Any]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(columns)
    with explained(path), replacing(path) as name:
        pq.write_table(table, name, compression="zstd")
    return int(table.num_rows)
