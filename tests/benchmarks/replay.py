"""Replay from a Parquet file, from the embedded log and from Kafka: events a second of one core, all detectors on.

The figures are CPU time of one process, split into reading with decoding (all that lies before the fold) and the rest
(fold, judging, escalation, files), so that what else runs on the machine shows little. What was there before stands
beside: of a Parquet file its rows published as JSON to a scratch log and read again, of Kafka its client's own parser.
The alerts of each way must be the same bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from tests.benchmarks.load import FIRST_DAY, LABS, MS_PER_DAY, UTC_OFFSET_MS, Load
from tests.benchmarks.rates import ROOT, Figures, Setting, child, peak_mb

EVENTS, QUICK_EVENTS = 2_000_000, 100_000
DENSER = 10
"""So many times as many inspections of the same cells and days, from Parquet: what a tick and a cell cost is shared by
more events, and what an event costs by itself shows."""
TOPIC = "inspections"
CHUNK = 100_000
HOUR, DAY = 3_600, 86_400


def replays(setting: Setting) -> Figures:
    """All of them over the same inspections: 10,000 cells, 45 days, hourly ticks; two of them with daily ticks too, and
    one over many more inspections."""
    events = EVENTS if setting.scale >= 1.0 else QUICK_EVENTS
    with tempfile.TemporaryDirectory() as name:
        made(Path(name), events)
        found: Figures = {"events": events}
        runs = {
            "Parquet": child("of_table", name, HOUR, module=__name__),
            "Parquet, by a scratch log": child("by_scratch", name, module=__name__),
            "embedded log": child("of_log", name, module=__name__),
            "Parquet, daily ticks": child("of_table", name, DAY, module=__name__),
            **of_dense_table(Path(name) / "dense", events * DENSER),
            **of_kafka(Path(name)),
        }
        for way, figures in runs.items():
            found |= {f"{way}: {key}": value for key, value in figures.items()}
        for tick in (HOUR, DAY):
            if len({file.read_bytes() for file in Path(name).glob(f"*-{tick}/alerts.ndjson")}) != 1:
                raise RuntimeError("the ways differ in their alerts")
    return found


def told(events: int, reading: float, whole: float) -> Figures:
    """The figures of a way: CPU seconds of reading and decoding, and of all."""
    return {
        "read and decode us/event": reading / events * 1e6,
        "fold, judge, write us/event": (whole - reading) / events * 1e6,
        "read and decode events/s": events / reading,
        "events/s": events / whole,
        "peak memory MB": peak_mb(),
    }


def arrow_is_ready() -> None:
    """pyarrow looks for pandas when it makes its first array, and imports it where it is: a third of a second, which
    only an environment for development has."""
    import pyarrow as pa

    pa.array([0])


def settings(tick: str | int = HOUR) -> Any:
    """The defaults, with codes learned from the data, and ticks of so many seconds."""
    from streams.config import Config

    return Config().replace(catalogue="open", tick_seconds=int(tick))


# --- what is replayed ----------------------------------------------------------------------------------------------


def made(folder: Path, events: int) -> None:
    """The load as a table, and in a log."""
    load = Load(events)
    write_table(folder, load)
    write(log_of(folder), load)


def made_table(folder: str, events: str) -> Figures:
    """The load as a table alone."""
    Path(folder).mkdir()
    write_table(Path(folder), Load(int(events)))
    return {}


def write_table(folder: Path, load: Load) -> None:
    """The load's records into ``events.parquet``."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = np.arange(len(load))
    names = load.names()
    zero = (FIRST_DAY - date(1970, 1, 1)).days * MS_PER_DAY - UTC_OFFSET_MS
    labs = [f"{at:02d}" for at in range(LABS)]

    def coded(values: list[str], codes: Any) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), values).cast(pa.string())

    table = pa.table({
        "event_id": pa.array([f"e{at}" for at in number.tolist()]),
        "source": coded([f"lims-{lab}" for lab in labs], number % LABS),
        "reported_at": pa.array(load.time_ms + zero, pa.timestamp("ms", "UTC")),
        "product": coded([product for product, _ in names], load.cell),
        "region": coded([region for _, region in names], load.cell),
        "lab": coded([f"lab-{lab}" for lab in labs], number % LABS),
        "stage": coded(["circulation"], number * 0),
        "verdict": coded(["pass", "fail"], load.failed.astype(np.int32)),
    })  # fmt: skip
    pq.write_table(table, folder / "events.parquet")


def write(medium: Any, load: Load) -> None:
    """The load's records into a medium."""
    from itertools import islice

    from streams.medium import Outgoing

    records = load.records()
    while some := [Outgoing(*record) for record in islice(records, CHUNK)]:
        medium.write(TOPIC, some)
    medium.close()


def log_of(folder: Path) -> Any:
    from streams.log import SqliteLog
    from streams.medium import EmbeddedMedium

    return EmbeddedMedium(SqliteLog(folder / "log", settings().partitions))


# --- the ways, each in a process of its own ------------------------------------------------------------------------


def of_table(folder: str, tick: str) -> Figures:
    """As `tocsin replay` does."""
    from streams.replay import prepare, replay_spool
    from streams.slices import Slice
    from streams.spool import FileIntake, Spool

    config, out = settings(tick), Path(folder) / f"of-table-{tick}"
    catalogue = config.load_catalogue()
    prepare(out, config)
    arrow_is_ready()
    began = time.process_time()
    with Spool(out) as spool:
        intake = FileIntake(config, catalogue, spool, Slice())
        intake.load(TOPIC, str(Path(folder) / "events.parquet"))
        reading = time.process_time() - began
        outcome = replay_spool(spool, config, catalogue, out)
    return told(outcome.events, reading, time.process_time() - began)


def of_dense_table(folder: Path, events: int) -> dict[str, Figures]:
    """As :func:`of_table`, of many more inspections of the same cells and days."""
    child("made_table", folder, events, module=__name__)
    return {
        f"Parquet, {events:,} inspections, {ticks} ticks": child("of_table", folder, tick, module=__name__)
        for ticks, tick in (("hourly", HOUR), ("daily", DAY))
    }


def by_scratch(folder: str) -> Figures:
    """As it was: rows as JSON into a log, and that log replayed."""
    from streams.commands.record import fill
    from streams.replay import scratch

    config = settings()
    arrow_is_ready()
    began = time.process_time()
    with scratch(Path(folder) / "scratch", config) as medium:
        fill(medium, config, [(TOPIC, str(Path(folder) / "events.parquet"))], None)
        return replayed(medium, Path(folder) / f"by-scratch-{HOUR}", time.process_time() - began)


def of_log(folder: str) -> Figures:
    medium = log_of(Path(folder))
    figures = replayed(medium, Path(folder) / f"of-log-{HOUR}", 0.0)
    medium.close()
    return figures


def replayed(medium: Any, out: Path, before: float, tick: str | int = HOUR) -> Figures:
    """Read and decode alone, then replay whole; ``before`` seconds went into making the medium."""
    from streams.embedded import INPUTS
    from streams.garbage import few_collections
    from streams.intake import Intake
    from streams.reading import Stretch, reading
    from streams.replay import prepare, replay
    from streams.ticks import COMPLETE

    config = settings(tick)
    catalogue = config.load_catalogue()
    stretches = {origin: Stretch(0, end, 0, -COMPLETE) for origin, end in medium.ends(INPUTS).items() if end}
    arrow_is_ready()
    began = time.process_time()
    with few_collections(), reading(medium, Intake(config, catalogue), stretches, 5_000, config, None) as readers:
        while readers:
            for origin in list(readers):
                if next(readers[origin], None) is None:
                    del readers[origin]
    read = time.process_time() - began
    prepare(out, config)
    began = time.process_time()
    outcome = replay(medium, config, catalogue, out)
    return told(outcome.events, before + read, before + time.process_time() - began)


# --- Kafka ---------------------------------------------------------------------------------------------------------


def of_kafka(folder: Path) -> dict[str, Figures]:
    """The same from a broker of our own, with either parser; nothing where no broker can be had."""
    from broker import KafkaBroker, KafkaUnavailable

    broker = KafkaBroker()
    try:
        broker.start()
    except KafkaUnavailable as error:
        print(f"without Kafka: {error}", file=sys.stderr)
        return {}
    url = f"kafka://{broker.bootstrap}"
    try:
        command = [sys.executable, "-m", "streams.cli", "topics", "create", "--broker", url, "--history"]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        events = sum(log_of(folder).ends([TOPIC]).values())
        write(kafka_medium(url), Load(events))
        return {
            "Kafka": child("of_topics", folder, url, "quick", HOUR, module=__name__),
            "Kafka, by kafka-python's parser": child("of_topics", folder, url, "plain", HOUR, module=__name__),
            "Kafka, daily ticks": child("of_topics", folder, url, "quick", DAY, module=__name__),
        }
    finally:
        broker.stop()


def kafka_medium(url: str) -> Any:
    from streams.kafka_client import KafkaMedium
    from streams.kafka_security import BrokerAddress, Security

    address = BrokerAddress.parse(url)
    return KafkaMedium(address, "", Security.from_environment({}, address))


def of_topics(folder: str, url: str, parser: str, tick: str) -> Figures:
    from streams import kafka_client

    if parser == "plain":
        kafka_client.read_quickly = lambda consumer: consumer  # type: ignore[assignment]
    medium = kafka_medium(url)
    figures = replayed(medium, Path(folder) / f"of-topics-{parser}-{tick}", 0.0, tick)
    medium.close()
    return figures


CHILDREN: dict[str, Callable[..., Figures]] = {
    "made_table": made_table, "of_table": of_table, "by_scratch": by_scratch, "of_log": of_log, "of_topics": of_topics,
}  # fmt: skip

if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
