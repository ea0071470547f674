"""The measures. Each takes a :class:`Setting` and returns figures by name, units in the names.

What is measured runs in a process of its own, and what it needs is made ready before: so nobody else's memory counts,
nor the time to simulate a year. ``python -m tests.benchmarks.rates NAME ARGUMENT...`` is such a process.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "integration"))

Figures = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """How large the simulated year is, how often a measure is taken, how many events a latency is taken from.

    Reports go into the folder ``out``.
    """

    scale: float
    runs: int
    samples: int
    out: Path = ROOT / "build" / "benchmarks"


# --- processes -----------------------------------------------------------------------------------------------------


def child(name: str, *arguments: object, module: str = "tests.benchmarks.rates") -> Figures:
    """Run one of :data:`CHILDREN`, or of another module's, in a process of its own; its figures."""
    command = [sys.executable, "-m", module, name, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found: Figures = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mb(process: int | None = None) -> float:
    """The most memory that this or another process has held, in MB; NaN where the system does not tell."""
    try:
        # Not what getrusage and wait4 tell: that begins with what the parent held.
        status = Path(f"/proc/{process or 'self'}/status").read_text()
    except OSError:
        if process is not None:
            return float("nan")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) / (1 << 10) if found else float("nan")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# --- embedded ------------------------------------------------------------------------------------------------------


def fill(folder: str, scale: str) -> Figures:
    """A simulated year as NDJSON bytes in an embedded log."""
    from streams.config import Config
    from streams.log import SqliteLog
    from streams.medium import EmbeddedMedium, Outgoing
    from streams.simulate import simulate

    by_topic: dict[str, list[Outgoing]] = {}
    for topic, key, value, reported_at in simulate(scale=float(scale)).events:
        by_topic.setdefault(topic, []).append(Outgoing(reported_at, key, value))
    medium = EmbeddedMedium(SqliteLog(Path(folder), Config().partitions))
    for topic, records in by_topic.items():
        medium.write(topic, records)
    medium.close()
    return {"events": sum(map(len, by_topic.values()))}


def run_embedded(folder: str) -> Figures:
    """The three stages over all that is in a log, with their checkpoints."""
    from streams.config import Config
    from streams.embedded import EmbeddedRuntime, Step
    from streams.log import SqliteLog

    config = Config()
    log = SqliteLog(Path(folder), config.partitions)
    log.lock()
    events = 0
    first: list[float] = []

    def on_step(step: Step) -> None:
        nonlocal events
        events += step.events
        if step.alerts and not first:
            first.append(time.perf_counter())

    catalogue = config.load_catalogue()
    began = time.perf_counter()
    EmbeddedRuntime(log, config, catalogue, on_step=on_step).run_to_end()
    seconds = time.perf_counter() - began
    log.close()
    return {
        "events": events,
        "seconds": seconds,
        "events/s": events / seconds,
        "first alert after s": first[0] - began if first else float("nan"),
        "peak memory MB": peak_mb(),
    }


def run_intake(scale: str) -> Figures:
    """Decoding, checking and packing alone, on bytes in memory."""
    from streams.config import Config
    from streams.intake import Intake
    from streams.log import LogRecord
    from streams.simulate import simulate
    from streams.ticks import COMPLETE

    by_topic: dict[str, list[LogRecord]] = {}
    for topic, key, value, reported_at in simulate(scale=float(scale)).events:
        records = by_topic.setdefault(topic, [])
        records.append(LogRecord(len(records), reported_at, key, value))
    config = Config()
    intake = Intake(config, config.load_catalogue())
    began = time.perf_counter()
    for topic, records in by_topic.items():
        for start in range(0, len(records), 5_000):
            intake.process((topic, 0), records[start : start + 5_000], -COMPLETE)
    seconds = time.perf_counter() - began
    return {"events/s": sum(map(len, by_topic.values())) / seconds, "peak memory MB": peak_mb()}


def intake(setting: Setting) -> Figures:
    """Stage 1 by itself."""
    return child("run_intake", setting.scale)


def embedded(setting: Setting) -> Figures:
    """Intake, assess and escalate in one process, from bytes in the SQLite log to alerts in it."""
    with tempfile.TemporaryDirectory() as folder:
        child("fill", folder, setting.scale)
        return child("run_embedded", folder)


def run_publish(folder: str, file: str) -> Figures:
    """A file of events through all checks into a log, durable after every batch."""
    from streams.config import Config
    from streams.log import SqliteLog
    from streams.medium import EmbeddedMedium
    from streams.publish import EventJudge, Tally, publish, read_candidates

    config = Config()
    medium = EmbeddedMedium(SqliteLog(Path(folder), config.partitions))
    judge, tally = EventJudge(config, config.load_catalogue(), "complaint"), Tally()
    publish(medium, "complaints", read_candidates(file, "complaints"), judge, tally)
    medium.close()
    if tally.rejected:
        raise RuntimeError(f"{tally.rejected} rows were rejected")
    return {"rows": tally.published, "rows/s": tally.rate, "peak memory MB": peak_mb()}


def publish_embedded(setting: Setting) -> Figures:
    """`tocsin publish` of NDJSON into the embedded log."""
    from streams.simulate import simulate

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "complaints.ndjson"
        year = simulate(scale=setting.scale).events
        file.write_bytes(b"".join(record.value + b"\n" for record in year if record.topic == "complaints"))
        return child("run_publish", Path(folder) / "data", file)


def embedded_latency(setting: Setting) -> Figures:
    """A fatal accident appended to a watched log, until its alert can be read from it."""
    from streams.config import Config
    from streams.embedded import EmbeddedRuntime
    from streams.log import SqliteLog
    from streams.medium import EmbeddedMedium, Outgoing
    from streams.outputs import read_values

    config = Config()
    stop = threading.Event()

    def watch(folder: Path) -> None:
        log = SqliteLog(folder, config.partitions)
        log.lock()
        EmbeddedRuntime(log, config, config.load_catalogue()).watch(stop.is_set)
        log.close()

    with tempfile.TemporaryDirectory() as name:
        medium = EmbeddedMedium(SqliteLog(Path(name), config.partitions))
        runner = threading.Thread(target=watch, args=[Path(name)])
        runner.start()
        seconds = []
        for number in range(setting.samples):
            began = time.perf_counter()
            now = int(time.time() * 1_000)
            medium.write("accidents", [Outgoing(now, b"F0101", accident(number))])
            while len(list(read_values(medium, "emergency-response"))) <= number:
                time.sleep(0.002)
            seconds.append(time.perf_counter() - began)
        stop.set()
        runner.join()
        medium.close()
    return {"alert readable after s, p50": statistics.median(seconds), "p99": percentile(seconds, 0.99)}


def accident(number: int) -> bytes:
    """A fatal accident of this moment."""
    event = {
        "event_id": f"a{number}", "source": "benchmark", "reported_at": datetime.now(UTC).isoformat(),
        "product": "F0101", "region": "120101", "authority": "bureau", "deaths": 3,
    }  # fmt: skip
    return json.dumps(event).encode()


# --- Kafka ---------------------------------------------------------------------------------------------------------


def _group(folder: Path, dataset: Any) -> tuple[Any, Any]:
    """A broker of our own, and Tocsin's topics on it."""
    from broker import KafkaBroker
    from law import Group

    broker = KafkaBroker()
    broker.start()
    return broker, Group(broker.bootstrap, "benchmark", dataset, folder)


def kafka(setting: Setting) -> Figures:
    """One worker on topics filled beforehand, from the assignment of its partitions to the last alert."""
    from law import simulated

    dataset = simulated(setting.scale)
    with tempfile.TemporaryDirectory() as name:
        broker, group = _group(Path(name), dataset)
        try:
            began = time.perf_counter()
            group.fill()
            published = time.perf_counter() - began
            worker = group.start(settle=0.5)
            group.wait(lambda: "assess partitions" in worker.log.read_text(), 60, alive=[worker])
            began = time.perf_counter()
            group.wait(group.taken_in, 600, alive=[worker])
            taken = time.perf_counter() - began
            group.wait(group.done, 600, alive=[worker])
            seconds = time.perf_counter() - began
            worker.process.terminate()
            _, _, used = os.wait4(worker.process.pid, 0)
            worker.process.returncode = 0
        finally:
            group.close()
            broker.stop()
    return {
        "events": dataset.records,
        "published/s": dataset.records / published,
        "taken in by intake/s": dataset.records / taken,
        "seconds to the last alert": seconds,
        "events/s to the last alert": dataset.records / seconds,
        "peak memory MB": used.ru_maxrss / 1024,
    }


def kafka_latency(setting: Setting) -> Figures:
    """A fatal accident produced to a live topic, until another client reads its alert."""
    from law import Dataset

    from streams.config import Config
    from streams.medium import Outgoing

    with tempfile.TemporaryDirectory() as name:
        broker, group = _group(Path(name), Dataset("live", Config(), {}))
        try:
            group.create(history=False)
            worker = group.start()
            group.wait(lambda: "assess partitions" in worker.log.read_text(), 60, alive=[worker])
            alerts = group.medium.follow(["emergency-response"], lambda: False, from_start=False)
            seconds = []
            for number in range(-3, setting.samples):  # the first few open connections
                began = time.perf_counter()
                group.medium.write("accidents", [Outgoing(int(time.time() * 1_000), b"F0101", accident(number))])
                next(alerts)
                if number >= 0:
                    seconds.append(time.perf_counter() - began)
            alerts.close()
        finally:
            group.close()
            broker.stop()
    return {"alert readable after s, p50": statistics.median(seconds), "p99": percentile(seconds, 0.99)}


def demo(setting: Setting) -> Figures:
    """`tocsin demo` as a newcomer runs it: from the command to the table."""
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        command = [sys.executable, "-m", "streams.cli", "demo", "--json", "--scale", str(setting.scale)]
        subprocess.run([*command, "--keep", f"{name}/demo"], cwd=ROOT, stdout=subprocess.PIPE, check=False)
        return {"seconds from command to table": time.perf_counter() - began}


CHILDREN: dict[str, Callable[..., Figures]] = {
    "fill": fill, "run_intake": run_intake, "run_embedded": run_embedded, "run_publish": run_publish,
}  # fmt: skip
BENCHMARKS: dict[str, Callable[[Setting], Figures]] = {
    "intake": intake,
    "embedded": embedded,
    "publish": publish_embedded,
    "demo": demo,
    "embedded-latency": embedded_latency,
    "kafka": kafka,
    "kafka-latency": kafka_latency,
}

if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*sys.argv[2:])))
