"""Real public data under one neutral configuration: the defaults, products learned from the data, nothing tuned.

Four sets in ``../shared/data`` run through the whole pipeline in memory. For each: what was watched, the alerts by
kind, a year and a thousand cells, and which of the incidents in ``known_incidents.csv`` were found, when, and what the
quiet ones showed. Chicago's inspectors stand beside, held against their peers on the same cells, and the pass-rate
alerts with and without what they explain: at the defaults, and at a level so lax that chance opens some.

``python -m tests.benchmarks.real_data [NAME]...`` prints it.
"""

from __future__ import annotations

import csv
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from detectors.lab_effects import fit_labs
from detectors.lab_funnel import lab_funnel
from detectors.lab_rows import lab_rows
from schemas.alerts import Alert, AlertKind, Signal
from streams.config import Config
from streams.embedded import INPUTS, Pipeline
from streams.importers import import_rows
from streams.incidents import Incident
from streams.log import LogRecord, partition_for
from streams.mapping import Mapping
from streams.ticks import COMPLETE

if TYPE_CHECKING:
    from tests.benchmarks.rates import Figures, Setting

__all__ = ["CHECKS", "DATA", "NEUTRAL", "REAL_DATA", "SETS", "Check", "Lab", "Outcome", "inspectors", "run"]

DATA: Final = Path(__file__).resolve().parents[3] / "shared" / "data"
SETS: Final = {
    "caers": ("fda_caers_2004_2010.parquet", "fda-caers"),
    "rasff": ("eu_rasff_2020_2024.parquet", "eu-rasff"),
    "neiss": ("neiss_2014_sample.parquet", "cpsc-neiss"),
    "chicago": ("chicago_food_inspections_2011_2014.parquet", "city-of-chicago"),
}
NEUTRAL: Final = Config(catalogue="open", utc_offset="+00:00")
PARTITIONS: Final = 4
SURGES: Final[tuple[AlertKind, ...]] = ("injury-surge", "complaint-surge")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run brought: all revisions and signals, cells by indicator, first and last day of the events."""

    events: int
    refused: int
    cells: dict[str, int]
    first: date
    last: date
    alerts: tuple[Alert, ...]
    signals: tuple[Signal, ...]
    seconds: float

    @property
    def years(self) -> float:
        return ((self.last - self.first).days + 1) / 365.25

    @property
    def watched(self) -> int:
        return sum(self.cells.values())

    def opened(self, *kinds: str) -> list[Alert]:
        """Alerts as they were opened, of some kinds or all."""
        return [a for a in self.alerts if a.status == "opened" and (not kinds or a.kind in kinds)]


def run(name: str, config: Config = NEUTRAL, before: date | None = None) -> Outcome:
    """One set through the pipeline in memory, all of it or what was reported before a day."""
    file, mapping = SETS[name]
    began = time.perf_counter()
    origins = [(topic, part) for topic in INPUTS for part in range(PARTITIONS)]
    records: dict[tuple[str, int], list[LogRecord]] = {origin: [] for origin in origins}
    refused, times = 0, []
    end = float("inf") if before is None else 1e3 * datetime.combine(before, datetime.min.time(), UTC).timestamp()
    for rows in import_rows(DATA / file, Mapping.builtin(mapping)):
        for row in rows:
            if row.rejection is not None or row.reported_at_ms is None:
                refused += 1
                continue
            if row.reported_at_ms >= end:
                continue
            held = records[row.topic, partition_for(row.key, PARTITIONS)]
            held.append(LogRecord(len(held), row.reported_at_ms, row.key, row.value))
            times.append(row.reported_at_ms)
    pipeline = Pipeline(config, config.load_catalogue(), origins)
    for origin in origins:
        if records[origin]:
            pipeline.feed(origin, records[origin])
        pipeline.mark(origin, COMPLETE)
    pipeline.close()
    step = pipeline.take()
    first, last = (datetime.fromtimestamp(ms / 1_000, UTC).date() for ms in (min(times), max(times)))
    cells = {kind: len(store) for kind, store in pipeline.assess.state.stores.items() if len(store)}
    return Outcome(
        step.events, refused + len(step.dead), cells, first, last, tuple(step.alerts), tuple(step.signals),
        time.perf_counter() - began,
    )  # fmt: skip


# --- the incidents -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """An incident of ``known_incidents.csv``: which row it is, and what an alert of it must be about, as patterns.

    Where the data has no such cell (sesame is a part of nuts and seeds), the narrowest one that holds it.
    """

    key: str
    data: str
    row: str
    product: str
    region: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """The row of the file, found by the beginning of its incident's name."""
        with (DATA / "known_incidents.csv").open(newline="", encoding="utf-8") as file:
            return next(row for row in csv.DictReader(file) if row["incident"].startswith(self.row))

    def alerts(self, outcome: Outcome, since: date, until: date) -> list[Alert]:
        """Surge alerts that were opened or raised about it, from a day to before another."""
        patterns = (re.compile(text, re.IGNORECASE) for text in (self.product, self.region))
        return Incident(self.row, since, until, *patterns, SURGES).alerts(outcome.alerts, since)


CHECKS: Final = (
    Check("peter-pan", "caers", "Peter Pan", "PETER PAN"),
    Check("hydroxycut", "caers", "Hydroxycut", "HYDROXYCUT"),
    Check("spinach", "caers", "Bagged spinach", "SPINACH|Vegetables-Vegetable Products"),
    Check("tomatoes", "caers", "Tomatoes", "TOMATO|Vegetables-Vegetable Products"),
    Check("eggs", "caers", "Shell eggs", "Egg-Egg Prod"),
    Check("peanut-corp", "caers", "Peanut Corp", "PEANUT|AUSTIN|CLIF|NUTRI"),
    Check("similac", "caers", "Similac", "SIMILAC"),
    Check("total-body", "caers", "Total Body", "TOTAL BODY"),
    Check("veggie-booty", "caers", "Veggie Booty", "VEGGIE BOOTY|Snack Food Item/VEGGIE"),
    Check("sesame", "rasff", "Ethylene oxide in sesame", "^nuts, nut products and seeds", r"^(india|\*)$"),
    Check("india-nuts", "rasff", "India nuts", "^nuts, nut products and seeds", r"^(india|\*)$"),
    Check("additives", "rasff", "Ethylene oxide in additives", "additive|ices|dessert|soup"),
    Check("poland-poultry", "rasff", "Poland poultry", "^poultry", r"^(poland|\*)$"),
    Check("kinder", "rasff", "Kinder", "cocoa|confectionery"),
    Check("fireworks", "neiss", "4 July fireworks", "1313"),
)


# --- Chicago's inspectors ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lab:
    """An inspector group against its peers: failures, those expected of the peers in the same cells, and the 99.8%
    limits within which the ratio lies if it is like them."""

    name: str
    tested: int
    failed: int
    expected: float
    ratio: float
    lower: float
    upper: float
    p_value: float


def inspectors() -> list[Lab]:
    """The groups' funnel plot over facility type x ward, all years; inspections without a group are left out."""
    rows = pq.read_table(DATA / SETS["chicago"][0], columns=["sanitarian", "facility_type", "ward", "result"])
    sums: dict[tuple[str, str], list[int]] = {}
    for row in rows.to_pylist():
        if row["sanitarian"] is not None:
            held = sums.setdefault((row["sanitarian"], f"{row['facility_type']}|{row['ward']}"), [0, 0])
            held[0] += 1
            held[1] += row["result"] == "Fail"
    names, cells = (sorted({key[at] for key in sums}) for at in (0, 1))
    place = {cell: at for at, cell in enumerate(cells)}
    tested, failed = np.array(list(sums.values())).T
    table = lab_rows([names.index(lab) for lab, _ in sums], [place[cell] for _, cell in sums], tested, failed)
    said = lab_funnel(table, fit_labs(table))
    return [
        Lab(
            names[int(number)], int(said.tested[at]), int(said.failed[at]), float(said.expected[at]),
            float(said.ratio[at]), float(said.lower[at]), float(said.upper[at]),
            2.0 * float(min(said.p_severe[at], said.p_lenient[at])),
        )
        for at, number in enumerate(table.lab)
    ]  # fmt: skip


# --- the report ----------------------------------------------------------------------------------------------------


def figures(name: str, outcome: Outcome) -> Figures:
    """The figures of one set by name."""
    found: Figures = {f"{name}: events": outcome.events, f"{name}: cells": outcome.watched}
    for kind, alerts in sorted(Counter(alert.kind for alert in outcome.opened()).items()):
        found[f"{name}: {kind} a year"] = alerts / outcome.years
        found[f"{name}: {kind} a year and 1,000 cells"] = alerts / outcome.years / outcome.watched * 1_000
    return found


def real_data(setting: Setting) -> Figures:
    """Alerts a year and a thousand cells on every public set that is there; once, for nothing in it is random."""
    found: Figures = {}
    for name, (file, _) in SETS.items():
        if (DATA / file).exists():
            found |= figures(name, run(name))
    return found or {"public data sets found in ../shared/data": 0.0}


REAL_DATA: dict[str, Callable[[Setting], Figures]] = {"real-data": real_data}


def show(name: str, outcome: Outcome, console: Console) -> None:
    """One set's tables."""
    cells = ", ".join(f"{number:,} of {kind}" for kind, number in outcome.cells.items())
    console.print(
        f"\n[bold]{name}[/]: {outcome.events:,} events ({outcome.refused} refused), {outcome.first} to {outcome.last} "
        f"({outcome.years:.2f} years), cells: {cells}; {outcome.seconds:.0f} s",
        highlight=False,
    )
    table = Table("kind", "opened", "a year", "a year and 1,000 cells", "a month")
    for kind, opened in sorted(Counter(alert.kind for alert in outcome.opened()).items()):
        a_year = opened / outcome.years
        table.add_row(
            kind, str(opened), f"{a_year:.2f}", f"{a_year / outcome.watched * 1_000:.2f}", f"{a_year / 12:.2f}"
        )
    console.print(table)
    for check in CHECKS:
        if check.data == name:
            console.print(_line(check, outcome), highlight=False)


def _line(check: Check, outcome: Outcome) -> str:
    facts = check.facts
    since = date.fromisoformat(facts["first_week_crossing"] or facts["extreme_week_start"])
    alerts = check.alerts(outcome, since - timedelta(days=7), since + timedelta(days=63))
    wanted = "to be found" if facts["visible"] == "yes" else "to be quiet"
    if not alerts:
        return f"  {facts['incident']} ({wanted}; week of {since}): no alert"
    first = alerts[0]
    days = (first.as_of.date() - since).days
    return (
        f"  {facts['incident']} ({wanted}; week of {since}): {first.as_of.date()}, {days:+d} days, "
        f"{first.product} in {first.region}, p = {first.p_value}"
    )


def show_inspectors(console: Console) -> None:
    table = Table("inspectors", "inspected", "failed", "expected of peers", "ratio", "99.8% limits", "p")
    for lab in inspectors():
        table.add_row(
            lab.name, f"{lab.tested:,}", f"{lab.failed:,}", f"{lab.expected:.0f}", f"{lab.ratio:.2f}",
            f"{lab.lower:.2f} to {lab.upper:.2f}", f"{lab.p_value:.1e}",
        )  # fmt: skip
    console.print(table)


def show_adjusting(console: Console) -> None:
    """Product alerts with and without the inspectors' part; sources are left out, for the time that they take."""
    lax = {"pass_rate": {"alpha": 1e-3}, "multiplicity": {"false_alarms_per_month": 1e9}}
    for title, changes in {"defaults": {}, "alpha 0.001, no control": lax}.items():
        opened = []
        for adjust in (False, True):
            config = NEUTRAL.replace(labs={"adjust": adjust}, sources={"min_history_days": 3_650}, **changes)
            opened.append({(a.product, a.region) for a in run("chicago", config).opened("pass-rate")})
        console.print(
            f"  {title}: product alerts in {len(opened[0])} cells with the inspectors' part in them, in "
            f"{len(opened[1])} without it, {len(opened[0] - opened[1])} cells gone",
            highlight=False,
        )


def main(given: list[Any]) -> None:
    console = Console(width=150)
    for name in given or SETS:
        if not (DATA / SETS[name][0]).exists():
            console.print(f"{name}: ../shared/data/{SETS[name][0]} is absent")
            continue
        show(name, run(name), console)
        if name == "chicago":
            show_inspectors(console)
            show_adjusting(console)


if __name__ == "__main__":
    main(sys.argv[1:])
