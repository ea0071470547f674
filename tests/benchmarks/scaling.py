"""How cost grows with cells and with the history held, and how the rate changes with partitions and workers.

The costs are those of the three stages in one process, in memory, on one core, with all detectors on: what an event
takes (decoding, checking, packing), and what the close of a tick takes for each cell that it brought news of. They are
CPU time, so that what else runs on the machine shows little. The last tick brings news of every cell, with failures
enough that each is judged in full. The rates are those of ``tocsin run --broker`` on Kafka, by the clock.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tests.benchmarks.against_peers import GIVE_UP_AFTER, Engine, Wrong, markdown, off_first_core
from tests.benchmarks.chart import chart
from tests.benchmarks.load import Load
from tests.benchmarks.rates import ROOT, Figures, Setting, child, peak_mb
from tests.benchmarks.restore import ORIGIN, batches, new_pipeline

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Size:
    """One point: so many cells, events and days of history."""

    cells: int
    days: int
    events: int


def _by_cells(cells: int) -> Size:
    return Size(cells, 30, max(50_000, 2 * cells))


CELLS = [_by_cells(cells) for cells in (1_000, 10_000, 100_000, 1_000_000)]
HISTORY = [Size(10_000, days, 100_000) for days in (30, 90, 365, 1_826)]
QUICK_CELLS = [_by_cells(cells) for cells in (1_000, 5_000, 20_000)]
QUICK_HISTORY = [Size(2_000, days, 20_000) for days in (30, 365)]
BYTES_A_CELL = 12_000
"""What a cell takes at the height of a tick over all, as measured, and half as much again; where there is less memory,
the size is left out."""
TOO_LARGE = "could not be run: too little memory"

ON_KAFKA = [(1, 1), (4, 1), (16, 1), (64, 1), (4, 2), (16, 2), (64, 2)]
QUICK_ON_KAFKA = [(4, 1), (4, 2)]
KAFKA_EVENTS, QUICK_KAFKA_EVENTS = 1_000_000, 20_000


def scaling(setting: Setting) -> Figures:
    """Cost against cells and history, rate against partitions and workers; a table and a plot in the report."""
    quick = setting.scale < 1.0
    sizes = QUICK_CELLS if quick else CELLS
    by_cells = [(size, cost(size)) for size in sizes if fits(size)]
    left_out = [size for size in sizes if size not in dict(by_cells)]
    by_history = [(size, cost(size)) for size in (QUICK_HISTORY if quick else HISTORY)]
    shapes = QUICK_ON_KAFKA if quick else ON_KAFKA
    rates = on_kafka(shapes, QUICK_KAFKA_EVENTS if quick else KAFKA_EVENTS)
    report(by_cells, by_history, rates, setting.out, left_out)
    figures: Figures = {}
    for size, found in by_cells:
        figures[f"{size.cells:,} cells: us an event"] = found["us an event"]
        figures[f"{size.cells:,} cells: tick over all, CPU s"] = found["last tick, CPU s"]
    for size, found in by_history:
        figures[f"{size.days:,} days, {size.cells:,} cells: tick over all, CPU s"] = found["last tick, CPU s"]
    for (partitions, workers), found_rate in rates.items():
        if isinstance(found_rate, float):
            figures[f"{partitions} partitions, {workers} workers: events/s"] = found_rate
    return figures


def fits(size: Size) -> bool:
    """Whether the memory will do."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return size.cells <= 100_000
    free = next(int(line.split()[1]) * 1_024 for line in lines if line.startswith("MemAvailable"))
    return size.cells * BYTES_A_CELL < free


# --- costs ---------------------------------------------------------------------------------------------------------


def cost(size: Size) -> Figures:
    """The costs of one size, from a process of its own."""
    print(f"{size.cells:,} cells, {size.days:,} days ...", file=sys.stderr, flush=True)
    return child("stages", size.cells, size.days, size.events, module=__name__)


def stages(cells: str, days: str, events: str) -> Figures:
    """A load through the stages in memory, in ticks of a day; then a tick that brings news of every cell."""
    from streams.ticks import COMPLETE

    load = Load(int(events), cells=int(cells), days=int(days))
    pipeline = new_pipeline(DAY_SECONDS)
    taken = closed = 0.0
    count = ticks = 0
    for records in batches(chain(load.records(), load.one_each())):
        began = time.process_time()
        pipeline.feed(ORIGIN, records)
        fed = time.process_time()
        ticks += len(pipeline.close().ticks)
        closed += time.process_time() - fed
        taken += fed - began
        count += len(records)
        pipeline.take()
        pipeline.assess.checkpoint()  # as a runtime does: else all segments would be held
    pipeline.mark(ORIGIN, COMPLETE)
    began = time.process_time()
    pipeline.close()
    last = time.process_time() - began
    return {
        "us an event": 1e6 * taken / count,
        "ms a tick before": 1e3 * closed / max(ticks, 1),
        "last tick, CPU s": last,
        "us a cell of it": 1e6 * last / load.cells,
        "peak memory MB": peak_mb(),
    }


# --- on Kafka ------------------------------------------------------------------------------------------------------


def on_kafka(shapes: list[tuple[int, int]], events: int) -> dict[tuple[int, int], float | str]:
    """Events a second to the end, by partitions and workers; a word where it did not come to an end.

    The second worker shares its core with the broker.
    """
    from broker import KafkaBroker

    found: dict[tuple[int, int], float | str] = {}
    with tempfile.TemporaryDirectory(prefix="tocsin-scaling-") as name, off_first_core(), KafkaBroker() as broker:
        for partitions, workers in shapes:
            print(f"{partitions} partitions, {workers} workers ...", file=sys.stderr, flush=True)
            try:
                found[partitions, workers] = rate(broker.bootstrap, Path(name), partitions, workers, Load(events))
            except Wrong as error:
                found[partitions, workers] = str(error)
    return found


def rate(bootstrap: str, folder: Path, partitions: int, workers: int, load: Load) -> float:
    """Events a second from the first assignment until everything is committed, with the rest of some seconds before the
    last tick of imported history closes."""
    from streams.config import Config
    from streams.datadir import to_toml
    from streams.kafka_client import BrokerAddress, KafkaMedium, Security, create_topics
    from streams.kafka_end import GroupProgress
    from streams.medium import Outgoing

    prefix = f"scaling-{partitions}-{workers}."
    config = Config().replace(
        catalogue="open", tick_seconds=DAY_SECONDS, partitions=partitions, topic_prefix=prefix, name="scaling"
    )
    address, file = BrokerAddress.parse(bootstrap), folder / f"{prefix}toml"
    file.write_text(to_toml(config), "utf-8")
    create_topics(address, prefix, partitions, Security(), history=True)
    medium = KafkaMedium(address, prefix, Security())
    medium.write("inspections", [Outgoing(*record) for record in load.records()])
    medium.close()
    command = [sys.executable, "-m", "streams.cli", "run", "--log-format", "json"]
    command += ["--broker", address.url, "--config", str(file)]
    logs = [folder / f"{prefix}{number}.log" for number in range(workers)]
    engines = [Engine(command, log, core=number, PYTHONPATH=str(ROOT)) for number, log in enumerate(logs)]
    progress = GroupProgress(address, config, Security(), f"{prefix}{config.name}")
    try:
        deadline = time.monotonic() + GIVE_UP_AFTER
        while not any("assess partitions" in log.read_text("utf-8", "replace") for log in logs):
            time.sleep(0.05)
            _all_live(engines, deadline)
        began = time.monotonic()
        while not progress.done():
            time.sleep(0.2)
            _all_live(engines, deadline)
        return len(load) / (time.monotonic() - began)
    finally:
        progress.close()
        for engine in engines:
            engine.stop()


def _all_live(engines: list[Engine], deadline: float) -> None:
    for engine in engines:
        engine.must_live(deadline)


# --- the report ----------------------------------------------------------------------------------------------------

Found = list[tuple[Size, Figures]]


def report(
    by_cells: Found, by_history: Found, rates: dict[tuple[int, int], float | str], out: Path, left_out: list[Size]
) -> None:
    """Print the tables, and write them as Markdown with the plot beside them."""
    names = list(by_cells[0][1])
    head = ["cells", "days of history", "events", *names]
    rows = [
        [f"{size.cells:,}", f"{size.days:,}", f"{size.events:,}", *(f"{found[name]:,.2f}" for name in names)]
        for size, found in (*by_cells, *by_history)
    ]
    nothing = [""] * (len(names) - 1)
    rows += [[f"{size.cells:,}", f"{size.days:,}", f"{size.events:,}", TOO_LARGE, *nothing] for size in left_out]
    shapes = [
        [str(partitions), str(workers), f"{found:,.0f}" if isinstance(found, float) else found]
        for (partitions, workers), found in rates.items()
    ]
    text = markdown(head, rows) + "\n" + markdown(["partitions", "workers", "events/s to the end"], shapes)
    print(text)
    out.mkdir(parents=True, exist_ok=True)
    series = {
        "an event": [(size.cells, found["us an event"]) for size, found in by_cells],
        "a cell of a tick over all": [(size.cells, found["us a cell of it"]) for size, found in by_cells],
    }
    (out / "scaling.svg").write_text(chart("Cost against cells", "cells", "microseconds", series), "utf-8")
    history = {"a cell of a tick over all": [(size.days, found["us a cell of it"]) for size, found in by_history]}
    (out / "history.svg").write_text(chart("Cost against history", "days", "microseconds", history), "utf-8")
    images = "\n![Cost against cells](scaling.svg)\n\n![Cost against history](history.svg)\n"
    (out / "scaling.md").write_text(text + images, "utf-8")
    print(f"written to {out / 'scaling.md'}", file=sys.stderr)


CHILDREN: dict[str, Callable[..., Figures]] = {"stages": stages}

if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
