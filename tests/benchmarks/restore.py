"""How long a crash lasts: the state of a million events, read back from the embedded log by a new process."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tests.benchmarks.load import Load, Raw
from tests.benchmarks.rates import Figures, Setting, child, peak_mb

EVENTS = 1_000_000
BATCH = 20_000
ORIGIN = ("inspections", 0)
WEEK_SECONDS = 604_800


def batches(records: Iterator[Raw], size: int = BATCH) -> Iterator[list[Any]]:
    """Records of one partition as a log gives them."""
    from streams.log import LogRecord

    offset = 0
    while taken := list(islice(records, size)):
        yield [LogRecord(offset + at, time_ms, key, value) for at, (time_ms, key, value) in enumerate(taken)]
        offset += len(taken)


def new_pipeline(tick_seconds: int) -> Any:
    """The three stages as the embedded runtime has them, on one partition, under the neutral configuration."""
    from streams.config import Config
    from streams.embedded import Pipeline

    config = Config().replace(catalogue="open", tick_seconds=tick_seconds, partitions=1)
    return Pipeline(config, config.load_catalogue(), [ORIGIN], stored=True)


def store(folder: str, events: str) -> Figures:
    """Fold the events, with a checkpoint after each batch."""
    from streams.embedded import store_stages
    from streams.log import SqliteLog
    from streams.ticks import COMPLETE

    pipeline = new_pipeline(WEEK_SECONDS)
    log = SqliteLog(Path(folder), 1)
    for records in batches(Load(int(events)).records()):
        pipeline.feed(ORIGIN, records)
        checkpoint(log, pipeline, store_stages)
    pipeline.mark(ORIGIN, COMPLETE)
    checkpoint(log, pipeline, store_stages)
    log.close()
    return {"ledger rows": len(pipeline.assess.state.ledger), "peak memory MB": peak_mb()}


def checkpoint(log: Any, pipeline: Any, store_stages: Callable[[Any, Any], int]) -> None:
    pipeline.close()
    pipeline.take()
    with log.transaction():
        store_stages(log, pipeline)


def read_back(folder: str) -> Figures:
    """Restore new stages from what is stored."""
    from streams.embedded import restore_stages
    from streams.log import SqliteLog

    pipeline = new_pipeline(WEEK_SECONDS)
    log = SqliteLog(Path(folder), 1)
    before = peak_mb()
    began = time.perf_counter()
    restore_stages(log, pipeline)
    seconds = time.perf_counter() - began
    log.close()
    return {
        "ledger rows": len(pipeline.assess.state.ledger),
        "restore s": seconds,
        "peak memory MB": peak_mb(),
        "of it before the restore MB": before,
    }


def restore(setting: Setting) -> Figures:
    """Seconds and memory to restore 1,000,000 ledger rows, scaled by the setting, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        stored = child("store", folder, int(EVENTS * setting.scale), module=__name__)
        disk = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / (1 << 20)
        found = child("read_back", folder, module=__name__)
    if found["ledger rows"] != stored["ledger rows"]:
        raise RuntimeError(f"{stored['ledger rows']:.0f} rows were stored, {found['ledger rows']:.0f} came back")
    return {**found, "rows/s": found["ledger rows"] / found["restore s"], "on disk MB": disk}


CHILDREN: dict[str, Callable[..., Figures]] = {"store": store, "read_back": read_back}

if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
