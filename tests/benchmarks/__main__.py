"""The command: measure, and print a table.

    python -m tests.benchmarks [--quick] [--only NAME]... [--json FILE] [--out DIR]

Nothing is asserted: how fast a machine is, is no property of the code. The table says how busy it was.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.against_peers import against_peers
from tests.benchmarks.against_r import against_r
from tests.benchmarks.board import board
from tests.benchmarks.false_alarms import FALSE_ALARMS
from tests.benchmarks.latency import latency_under_load
from tests.benchmarks.rates import BENCHMARKS as RATES
from tests.benchmarks.rates import Figures, Setting
from tests.benchmarks.real_data import REAL_DATA
from tests.benchmarks.replay import replays
from tests.benchmarks.restore import restore
from tests.benchmarks.scaling import scaling
from tests.benchmarks.scan import SCANS
from tests.benchmarks.soak import SOAKS
from tests.benchmarks.ticks import ticks

ONCE = {
    **FALSE_ALARMS, **REAL_DATA, **SOAKS,
    "peers": against_peers, "replay": replays, "scaling": scaling, "ticks": ticks,
}  # fmt: skip
"""What chance and the data decide, not the machine: taking it again gives the same. Or what has rounds of its own."""
BENCHMARKS = {
    **RATES,
    "latency-under-load": latency_under_load,
    "board": board,
    "against-r": against_r,
    "restore": restore,
    **SCANS,
    **ONCE,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure Tocsin.")
    parser.add_argument("--quick", action="store_true", help="a fifth of the simulated year, each measure taken once")
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="measure this; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Setting.out, help="reports go there: %(default)s")
    given = parser.parse_args()
    setting = Setting(
        scale=0.2 if given.quick else 1.0,
        runs=1 if given.quick else 3,
        samples=20 if given.quick else 50,
        out=given.out,
    )
    results: dict[str, Figures] = {}
    for name in given.only or BENCHMARKS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results[name] = measure(name, setting)
    show(results, setting)
    if given.json is not None:
        about = {"machine": machine(), "scale": setting.scale, "runs": setting.runs}
        given.json.write_text(json.dumps({**about, "figures": results}, indent=2) + "\n", "utf-8")
    return 0


def measure(name: str, setting: Setting) -> Figures:
    """Each figure's median over the runs, with the load of the machine beside it."""
    runs, loads = [], []
    for _ in range(1 if name in ONCE else setting.runs):
        loads.append(os.getloadavg()[0])
        runs.append(BENCHMARKS[name](setting))
    figures = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**figures, "load before": max(loads)}


def machine() -> str:
    return f"{os.cpu_count()} x {platform.machine()}, Python {platform.python_version()}"


def show(results: dict[str, Figures], setting: Setting) -> None:
    table = Table(title=f"{machine()}; simulated year x {setting.scale:g}; medians of {setting.runs}")
    table.add_column("measure")
    table.add_column("figure")
    table.add_column("", justify="right")
    for name, figures in results.items():
        for number, (key, value) in enumerate(figures.items()):
            table.add_row(name if number == 0 else "", key, f"{value:,.0f}" if value >= 100 else f"{value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
