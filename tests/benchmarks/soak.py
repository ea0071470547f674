"""Memory over a long run, and of many cells: ten million events through all three stages, with checkpoints.

    python -m tests.benchmarks --only soak --only many-cells

The events go to the stages directly and not through a log of their own, which would only fill the disk; the state is
stored as the embedded runtime stores it, so old segments and bases come and go. Memory is what the process holds at a
moment (RSS), not its peak. ``python -m tests.benchmarks.soak NAME ARGUMENT...`` is a process of its own.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.benchmarks.rates import ROOT, Figures, Setting

START: Final = datetime(2010, 1, 4, tzinfo=UTC)
SHARES: Final = {"inspections": 0.8, "complaints": 0.15, "injuries": 0.05}


def child(name: str, *arguments: object) -> Figures:
    """Run one of :data:`CHILDREN` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.soak", name, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def rss_mb() -> float:
    """What this process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def days_of(
    rng: random.Random,
    days: int,
    a_day: int,
    products: Sequence[str],
    regions: Sequence[str],
    shares: Mapping[str, float],
) -> Iterator[dict[str, list[Any]]]:
    """Day by day the records of some topics, as either runtime would hand them to intake. A region has two labs."""
    from streams.log import LogRecord

    offsets = dict.fromkeys(shares, 0)
    for day in range(days):
        made: dict[str, list[Any]] = {}
        at = START + timedelta(days=day, hours=4)
        time_ms, stamp = int(at.timestamp() * 1_000), at.isoformat()
        for topic, share in shares.items():
            records = made[topic] = []
            for _ in range(round(a_day * share)):
                number, region = offsets[topic], rng.choice(regions)
                head = (
                    f'{{"event_id":"{topic[0]}{number}","source":"soak","reported_at":"{stamp}",'
                    f'"product":"{rng.choice(products)}","region":"{region}",'
                )
                records.append(LogRecord(number, time_ms, None, f"{head}{_tail(topic, region, rng)}}}".encode()))
                offsets[topic] = number + 1
        yield made


def _tail(topic: str, region: str, rng: random.Random) -> str:
    if topic == "inspections":
        verdict = "fail" if rng.random() < 0.03 else "pass"
        return f'"lab":"lab-{region}-{rng.randrange(2)}","batch":"b{rng.randrange(10**6)}","verdict":"{verdict}"'
    if topic == "complaints":
        return '"channel":"12315"'
    return f'"site":"hospital-{rng.randrange(9)}","severity":{rng.randrange(1, 4)},"injury":"burn"'


def run_soak(days: str, a_day: str, folder: str) -> Figures:
    """So many days of so many events, under the default rules; memory half way and at the end."""
    from streams.config import Config

    config = Config().replace(tick_seconds=86_400)
    catalogue = config.load_catalogue()
    rng = random.Random(2024)
    branches = [code for code in catalogue.products.codes if len(code) == 5][:40]
    regions = [code for code in catalogue.regions.codes if not code.endswith("0000")]
    return _run(
        config, catalogue, days_of(rng, int(days), int(a_day), branches, regions, SHARES), int(days), Path(folder)
    )


def run_many_cells(products: str, regions: str, days: str, a_day: str, folder: str) -> Figures:
    """Pass rates of an open catalogue of products x regions; every cell that comes has its days counted."""
    from streams.config import Config

    intake = msgspec.structs.replace(Config().intake, max_codes_per_shard=100_000)
    config = Config().replace(tick_seconds=86_400, catalogue="open", intake=intake)
    rng = random.Random(2024)
    codes = [f"branch-{number % 100}/product-{number}" for number in range(int(products))]
    where = [f"region-{number}" for number in range(int(regions))]
    stream = days_of(rng, int(days), int(a_day), codes, where, {"inspections": 1.0})
    return _run(config, config.load_catalogue(), stream, int(days), Path(folder))


def _run(config: Any, catalogue: Any, stream: Iterator[dict[str, list[Any]]], days: int, folder: Path) -> Figures:
    from streams.embedded import Pipeline, store_stages
    from streams.log import SqliteLog

    origins = [(topic, 0) for topic in SHARES]
    pipeline = Pipeline(config, catalogue, origins, stored=True)
    log = SqliteLog(folder, 1)
    began = time.perf_counter()
    events = alerts = dead = 0
    held: dict[int, tuple[float, float]] = {}
    for day, made in enumerate(stream, start=1):
        for topic, records in made.items():
            pipeline.feed((topic, 0), records)
        for origin in origins:
            pipeline.mark(origin, int((START + timedelta(days=day)).timestamp() * 1_000))
        pipeline.close()
        step = pipeline.take()
        events, alerts, dead = events + step.events, alerts + len(step.alerts), dead + len(step.dead)
        if day % 10 == 0 or day == days:
            with log.transaction():
                store_stages(log, pipeline)
        if day in (days // 2, days):
            held[day] = (rss_mb(), sum(file.stat().st_size for file in folder.iterdir()) / (1 << 20))
    seconds = time.perf_counter() - began
    state = pipeline.assess.state
    log.close()
    return {
        "events": events,
        "refused": dead,
        "alert records": alerts,
        "cells": sum(len(store) for store in state.stores.values()),
        "ledger rows at the end": len(state.ledger),
        "events/s, making them included": events / seconds,
        "memory half way, MB": held[days // 2][0],
        "memory at the end, MB": held[days][0],
        "stored half way, MB": held[days // 2][1],
        "stored at the end, MB": held[days][1],
    }


def soak(setting: Setting) -> Figures:
    """Ten million events in 5,000 days: ids are remembered for 730, counts for 2,198."""
    with tempfile.TemporaryDirectory() as folder:
        return child("run_soak", 5_000, 2_000 if setting.scale == 1 else 60, folder)


def many_cells(setting: Setting) -> Figures:
    """400 days of 100,000 leaf cells, and the cells above them."""
    with tempfile.TemporaryDirectory() as folder:
        return child("run_many_cells", 2_000, 50 if setting.scale == 1 else 5, 400, 5_000, folder)


CHILDREN: dict[str, Callable[..., Figures]] = {"run_soak": run_soak, "run_many_cells": run_many_cells}
SOAKS: dict[str, Callable[[Setting], Figures]] = {"soak": soak, "many-cells": many_cells}

if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
