"""What the close of one tick costs that brings news of every cell, and what part of judging takes the time.

N leaf cells (products in branches x districts that neighbour each other) have a history of inspections, injuries and
complaints, folded straight into the columns of the cell store; then each has one event of each kind on one day, and
that tick is closed with all detectors on, under the default rules. A million cells have inspections only, and a month
of them, so that the state fits into a few gigabytes. What is measured is CPU time and memory of that one close; half of
the cells fail or are reported often enough that nothing but the detectors can tell that all is well.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.benchmarks.against_peers import markdown
from tests.benchmarks.rates import Figures, Setting, child, peak_mb

DAY_MS = 86_400_000
OFFSET_MS = 8 * 3_600_000
TODAY = 20_606
"""A Tuesday: no labs are compared on it."""
REGIONS, PRODUCTS_A_BRANCH = 20, 50
ORIGIN = ("inspections", 0)
LOT, LABS = 200, 40
KINDS = ("pass", "injury", "complaint")
BLOCK = 20_000

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """So many leaf cells, with so many days of history, of the first so many kinds."""

    cells: int
    days: int
    kinds: int = 3

    def __str__(self) -> str:
        return f"{self.cells:,} cells x {self.kinds} kinds, {self.days:,} days"


SIZES = [Size(1_000, 400), Size(10_000, 400), Size(100_000, 400), Size(1_000_000, 30, 1)]
QUICK = [Size(1_000, 400), Size(5_000, 400)]
OLD = Size(10_000, 1_200)
"""More than three years: the count detector proper speaks, not the one for young cells."""


def ticks(setting: Setting) -> Figures:
    """CPU of one tick over all cells, by the number of cells; a table in the report."""
    sizes = QUICK if setting.scale < 1.0 else [*SIZES, OLD]
    found = []
    for size in sizes:
        print(f"{size} ...", file=sys.stderr, flush=True)
        found.append((size, child("tick", size.cells, size.days, size.kinds, module=__name__)))
    names = list(found[0][1])
    rows = [[str(size), *(f"{one[name]:,.2f}" for name in names)] for size, one in found]
    text = markdown(["leaf cells", *names], rows)
    print(text)
    setting.out.mkdir(parents=True, exist_ok=True)
    (setting.out / "ticks.md").write_text(text, "utf-8")
    return {f"{size}: tick, CPU s": one["tick, CPU s"] for size, one in found}


def tick(cells: str, days: str, kinds: str) -> Figures:
    """The figures of one size."""
    size = Size(int(cells), int(days), int(kinds))
    assess = filled(size)
    held = peak_mb()
    offer(assess, size, TODAY, seed=2)
    with spent(assess) as seconds:
        began = time.process_time()
        closed = assess.close()
        total = time.process_time() - began
    counting = seconds["pass rates"] + seconds["counts"] + seconds["scan"]
    return {
        "dirty cells": sum(len(store) for store in assess.state.stores.values()),
        "tick, CPU s": total,
        "of it fold": seconds["fold"],
        "pass rates": seconds["pass rates"],
        "counts": seconds["counts"],
        "scan": seconds["scan"],
        "signals": seconds["judging"] - counting,
        "us a dirty cell": 1e6 * total / sum(len(store) for store in assess.state.stores.values()),
        "signals found": len(closed.signals),
        "memory before MB": held,
        "peak memory MB": peak_mb(),
    }


@contextmanager
def spent(assess: Any) -> Iterator[dict[str, float]]:
    """CPU seconds in the parts of a close."""
    import streams.judge as judge

    seconds = dict.fromkeys(("fold", "judging", "pass rates", "counts", "scan"), 0.0)

    def timed(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            try:
                return inner(*arguments, **named)
            finally:
                seconds[name] += time.process_time() - began

        return run

    whole: Any = judge
    held = whole.judge_rates, whole.judge_counts, whole.ClusterScan.findings, whole.Judge.tick
    fold = type(assess.state).fold_tick
    whole.judge_rates, whole.judge_counts = timed("pass rates", held[0]), timed("counts", held[1])
    whole.ClusterScan.findings, whole.Judge.tick = timed("scan", held[2]), timed("judging", held[3])
    type(assess.state).fold_tick = timed("fold", fold)
    try:
        yield seconds
    finally:
        whole.judge_rates, whole.judge_counts, whole.ClusterScan.findings, whole.Judge.tick = held
        type(assess.state).fold_tick = fold


# --- the world -----------------------------------------------------------------------------------------------------


def names(cells: int) -> list[str]:
    """The products, each sold in every district."""
    return [f"B{at // PRODUCTS_A_BRANCH:04d}/P{at:05d}" for at in range(-(-cells // REGIONS))]


def catalogue(cells: int) -> str:
    """Districts in a ring with a chord, so that clusters are looked for; a target for every branch."""
    near = {at: sorted({(at + step) % REGIONS for step in (-4, -1, 1, 4)}) for at in range(REGIONS)}
    nodes = ['C = { zh = "市", en = "City" }']
    nodes += [f'R{at:02d} = {{ zh = "区", en = "District", parent = "C" }}' for at in range(REGIONS)]
    neighbours = [f"R{at:02d} = {json.dumps([f'R{other:02d}' for other in others])}" for at, others in near.items()]
    branches = json.dumps(sorted({name.split("/")[0] for name in names(cells)}))
    parts = ['name = "ticks"\nversion = "1"\n[products]\nseparator = "/"\n[regions.nodes]', *nodes]
    parts += ["[regions.neighbours]", *neighbours, f"[[targets]]\nproducts = {branches}\npass_rate = 0.95\n"]
    return "\n".join(parts)


def filled(size: Size) -> Any:
    """The stage with its history: on the day before, one event of each kind in every cell, so that all are known."""
    from streams.assess import Assess
    from streams.config import Config

    with tempfile.NamedTemporaryFile("w", suffix=".toml", encoding="utf-8") as file:
        file.write(catalogue(size.cells))
        file.flush()
        config = Config().replace(catalogue=file.name, tick_seconds=DAY_MS // 1_000, partitions=1)
        assess = Assess(config, config.load_catalogue(), (ORIGIN,), stored=False)
    offer(assess, size, TODAY - 1, seed=1, judged=False)
    rng = np.random.default_rng(7)
    for name in KINDS[: size.kinds]:
        fill(assess.state, name, size.cells, size.days, rng)
    return assess


def offer(assess: Any, size: Size, day: int, seed: int, *, judged: bool = True) -> None:
    """One event of each kind in each cell."""
    from streams.columns import COLUMN_TYPES, INDICATORS, EventColumns

    rng, cells, kinds = np.random.default_rng(seed), size.cells, KINDS[: size.kinds]
    products, regions, count = names(cells), [f"R{at:02d}" for at in range(REGIONS)], len(kinds) * cells
    arrival = day * DAY_MS - OFFSET_MS + 1_000
    columns: dict[str, npt.NDArray[Any]] = {name: np.zeros(count, dtype) for name, dtype in COLUMN_TYPES.items()}
    columns["event"] = rng.integers(0, 2**63, count).astype(np.uint64)
    columns["offset"] = np.arange(count) + day * count
    columns["arrival"][:], columns["day"][:] = arrival, day
    columns["hazard"][:] = -1
    columns["reporter"] = rng.integers(0, LABS, count).astype(np.int32)
    columns["trace"] = columns["reporter"].copy()
    columns["indicator"] = np.repeat([INDICATORS.index(name) for name in kinds], cells).astype(np.uint8)
    columns["product"] = np.tile(np.arange(cells) // REGIONS, len(kinds)).astype(np.int32)
    columns["region"] = np.tile(np.arange(cells) % REGIONS, len(kinds)).astype(np.int32)
    columns["n"][:], columns["x"][:] = 1, 1
    columns["n"][:cells], columns["x"][:cells] = LOT, rng.binomial(LOT, 0.04, cells)
    labs = [f"lab-{at:02d}" for at in range(LABS)]
    traces = [json.dumps([lab, None, None, None]) for lab in labs]
    tables = {"products": products, "regions": regions, "reporters": labs, "traces": traces}
    batch = EventColumns(columns, origins=[ORIGIN], **tables)
    if judged:
        assess.offer(ORIGIN, batch)
        assess.watermarks.advance(ORIGIN, arrival + DAY_MS, arrival)
    else:
        assess.state.fold_tick((arrival + OFFSET_MS) // DAY_MS, [batch])
        assess._last_day = day


def fill(state: Any, name: str, cells: int, days: int, rng: np.random.Generator) -> None:
    """Fold a history into one indicator's store, some thousand cells at a time."""
    from streams.columns import INDICATORS

    store, number = state.stores[name], INDICATORS.index(name)
    reach = np.array([leaf.rows for leaf in state.leaves if leaf.indicator == number])
    for branch in sorted({store.branch(int(row)) for row in reach[:, -1]}):
        store.note_day(branch, TODAY - days)
    level = rng.lognormal(0.0, 0.5, cells)
    sick = rng.random(cells) < 0.001
    for first in range(0, cells, BLOCK):
        rows, part = reach[first : first + BLOCK], slice(first, first + BLOCK)
        for day in range(TODAY - days, TODAY):
            worse = np.where(sick[part] & (day > TODAY - 20), 5.0, 1.0)
            if name == "pass":
                tested = rng.poisson(3.0 * level[part])
                values = np.stack([rng.binomial(tested, np.minimum(0.04 * worse, 0.5)), tested], axis=1)
            else:
                values = rng.poisson((0.2 if name == "injury" else 0.5) * level[part] * worse)[:, None]
            some = np.flatnonzero(values.any(axis=1))
            times = rows.shape[1]
            on = np.full(times * len(some), day, np.int32)
            store.fold(rows[some].reshape(-1), on, np.repeat(values[some].astype(np.int64), times, axis=0))


CHILDREN: dict[str, Callable[..., Figures]] = {"tick": tick}

if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
