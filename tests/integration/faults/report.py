"""The table of fault runs, and the same as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from faults.verdict import Run

__all__ = ["show", "write"]


def show(console: Console, runtime: str, runs: Mapping[str, Sequence[Run]], absent: Mapping[str, str]) -> None:
    """One line a fault; what is wrong, and what was not done, below."""
    table = Table(title=f"faults on the {runtime} runtime", title_justify="left")
    for name in ("fault", "runs", "blows", "ended", "events", "lost", "duplicated", "differing",
                 "recovery, median", "worst", "took"):  # fmt: skip
        table.add_column(name, justify="left" if name == "fault" else "right")
    for name, some in runs.items():
        times = [seconds for run in some for seconds in run.recoveries]
        total = [sum(getattr(run, what) for run in some) for what in ("blows", "ended", "events")]
        wrong = [sum(getattr(run, what) for run in some) for what in ("lost", "duplicated", "differing")]
        table.add_row(
            name, str(len(some)), *(f"{count:,}" for count in (*total, *wrong)),
            f"{statistics.median(times):.1f} s" if times else "-", f"{max(times):.1f} s" if times else "-",
            f"{sum(run.seconds for run in some):,.0f} s",
        )  # fmt: skip
    console.print(table)
    for some in runs.values():
        for run in some:
            for words in run.words:
                console.print(f"{run.fault}, seed {run.seed}: {words}", markup=False, highlight=False, soft_wrap=True)
    for name, why in absent.items():
        console.print(f"{name}: not on the {runtime} runtime: {why}", markup=False, highlight=False)


def write(file: Path, runtime: str, runs: Mapping[str, Sequence[Run]], absent: Mapping[str, str]) -> None:
    """All runs as JSON."""
    rows = [msgspec.to_builtins(run) for some in runs.values() for run in some]
    file.write_text(json.dumps({"runtime": runtime, "runs": rows, "not_here": dict(absent)}, indent=1), "utf-8")
