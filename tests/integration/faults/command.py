"""The command: do faults to a runtime, print the table, exit with 1 on any difference."""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from faults import report
from faults.hooks import MUTATIONS
from faults.verdict import Run

__all__ = ["main", "run_once"]

NAMES = (
    "kill", "broker-kill", "broker-pause", "scale", "network-cut", "disk-full", "clock-jump", "duplicate", "reorder",
    "poison",
)  # fmt: skip


def run_once(fault: str, act: Callable[..., None], seed: int, scale: float, room: Path, blows: int, **how: Any) -> Run:
    """One run of a fault. All that is drawn is drawn from the seed and the fault's name."""
    run = Run(fault, seed)
    began = time.monotonic()
    try:
        act(run, random.Random(f"{fault}-{seed}"), scale, room, blows, **how)
    except Exception as error:  # whatever a run dies of is a finding, and the other runs go on
        run.words.append(f"{type(error).__name__}: {error}")
    run.seconds = time.monotonic() - began
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.integration.faults", description=__doc__)
    parser.add_argument("--runtime", choices=["embedded", "kafka"], required=True)
    parser.add_argument("--fault", choices=[*NAMES, "all"], action="append", required=True, help="may be repeated")
    parser.add_argument("--runs", type=int, default=1, help="of each fault (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the others count up from it")
    parser.add_argument("--scale", type=float, default=0.04, help="share of the record's events (default: 0.04)")
    parser.add_argument("--blows", type=int, default=10, help="how often a run is hit, where it can be (default: 10)")
    parser.add_argument("--pause", type=float, default=30.0, help="seconds of a paused broker, of a cut network")
    parser.add_argument("--mutation", choices=sorted(MUTATIONS), help="take a protection out: the runs must fail")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all runs there too")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)  # so that the processes of a run end with it
    names = NAMES if "all" in given.fault else tuple(dict.fromkeys(given.fault))
    how: dict[str, Any] = {} if given.mutation is None else {"mutation": given.mutation}
    console = Console()
    if not console.is_terminal:
        console = Console(width=130)
    with tempfile.TemporaryDirectory(prefix="tocsin-faults-", ignore_cleanup_errors=True) as folder:
        if given.runtime == "embedded":
            from faults import embedded

            return _all(given, names, embedded.FAULTS, embedded.NOT_HERE, Path(folder), console, how)
        from faults import on_kafka

        with on_kafka.ProxiedBroker() as broker:
            how |= {"broker": broker, "pause": given.pause}
            return _all(given, names, on_kafka.FAULTS, on_kafka.NOT_HERE, Path(folder), console, how)


def _end(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _all(
    given: argparse.Namespace,
    names: Sequence[str],
    faults: Mapping[str, Callable[..., None]],
    not_here: Mapping[str, str],
    room: Path,
    console: Console,
    how: dict[str, Any],
) -> int:
    runs: dict[str, list[Run]] = {}
    absent = {name: not_here[name] for name in names if name in not_here}
    for name in names:
        for seed in range(given.seed, given.seed + given.runs) if name in faults else ():
            run = run_once(name, faults[name], seed, given.scale, room, given.blows, **how)
            runs.setdefault(name, []).append(run)
            said = "clean" if run.clean else "NOT CLEAN"
            console.print(f"{name}, seed {seed}: {said}, {run.blows} blows, {run.seconds:.1f} s", highlight=False)
            if given.json is not None:
                report.write(given.json, given.runtime, runs, absent)
    report.show(console, given.runtime, runs, absent)
    return 0 if runs and all(run.clean for some in runs.values() for run in some) else 1
