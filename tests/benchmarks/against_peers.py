"""Tocsin and its peers on the same job, the same machine and the same records, one after the other.

Each engine has one core to itself (the first), the broker and the measuring the others. The topic is full before an
engine starts. A peer's time runs from the broker's stamp on its first alert record, which the very first events
provoke, to that on the last, which the very last ones do: so its start is not counted. Tocsin decides at ticks, here
the ends of days, and the last tick of imported history closes only after a rest. So its time runs from the first
output that its first events provoke, the first batch of its first stage, until the last tick but one is closed and
committed in every partition, and the events of that last day, most of them read by then, are not counted. Every
answer, of the last day too, is compared with the brute force of :mod:`tests.benchmarks.load`; a wrong one is no result.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.benchmarks.engines import PEERS, Peer
from tests.benchmarks.installs import Unavailable
from tests.benchmarks.load import LEAST_FAILED, TARGET, WINDOW_DAYS, CellDay, Load, expected, inspected, limits, rolling
from tests.benchmarks.rates import ROOT, Figures, Setting, peak_mb

PARTITIONS = 4
EVENTS, QUICK_EVENTS = 2_000_000, 60_000
ROUNDS, QUICK_ROUNDS = 3, 1
GIVE_UP_AFTER = 600.0
STOP_WITHIN = 20.0
QUIET_SECONDS = 2.0
OURS = "tocsin"


class Wrong(RuntimeError):
    """An engine did not give the answer, or gave none."""


@dataclass(frozen=True)
class Run:
    """One run of one engine: the time and the CPU time of its process over the events, and the most memory it held."""

    events: int
    seconds: float
    cpu_seconds: float
    peak_mb: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds

    @property
    def rate_of_cpu(self) -> float:
        """Events a CPU second: the rate had nothing else run on its core, and nothing kept it waiting."""
        return self.events / self.cpu_seconds


@dataclass
class Line:
    """What became of an engine."""

    title: str
    state: str
    runs: list[Run] = field(default_factory=list)
    word: str = ""
    """Why there is no figure, where there is none."""

    def median(self, what: str) -> float:
        return statistics.median(getattr(run, what) for run in self.runs)


def against_peers(setting: Setting) -> Figures:
    """Every engine in turn, several rounds; prints the table and writes it as Markdown."""
    quick = setting.scale < 1.0
    load = f"Load of the machine before: {os.getloadavg()[0]:.2f}, cores: {os.cpu_count()}."
    lines = measure(QUICK_EVENTS if quick else EVENTS, QUICK_ROUNDS if quick else ROUNDS)
    report(lines, setting.out / "peers.md", load)
    figures: Figures = {}
    for name, line in lines.items():
        if line.runs:
            figures[f"{name}: events/s"] = line.median("rate")
            figures[f"{name}: events/CPU s"] = line.median("rate_of_cpu")
    return figures


def measure(events: int, rounds: int, only: Sequence[str] = ()) -> dict[str, Line]:
    """Tocsin and the peers (all, or ``only`` some), ``rounds`` times in turn."""
    from broker import KafkaBroker

    lines = {OURS: Line("Tocsin, all three stages", "own changelog, exactly-once")}
    lines |= {peer.name: Line(peer.title, peer.state) for peer in PEERS}
    if only:
        lines = {name: line for name, line in lines.items() if name in only}
    commands = {
        peer.name: command
        for peer in PEERS
        if peer.name in lines and (command := fetched(peer, lines[peer.name])) is not None
    }
    with tempfile.TemporaryDirectory(prefix="tocsin-peers-") as name, off_first_core(), KafkaBroker() as broker:
        parts = {engine: next((peer.part for peer in PEERS if peer.name == engine), 1) for engine in lines}
        fields = {part: Field(broker.bootstrap, part, events, Path(name)) for part in sorted(set(parts.values()))}
        for number in range(rounds):
            for engine, line in lines.items():
                if line.word or (engine != OURS and engine not in commands):
                    continue
                print(f"round {number + 1}, {engine} ...", file=sys.stderr, flush=True)
                place, name_of_run = fields[parts[engine]], f"{engine}-{number}"
                try:
                    if engine == OURS:
                        line.runs.append(run_tocsin(place, name_of_run))
                    else:
                        line.runs.append(run_peer(place, name_of_run, commands[engine]))
                except Wrong as error:
                    line.word = f"wrong: {error}"
    return lines


def fetched(peer: Peer, line: Line) -> list[str] | None:
    """How to start a peer; None, and a word in its line, where it cannot be had."""
    try:
        return peer.command()
    except Unavailable as error:
        line.word = f"could not be run: {error}"
        return None


# --- the field -----------------------------------------------------------------------------------------------------


class Field:
    """An input topic with a load in it, and the answer to it."""

    def __init__(self, bootstrap: str, part: int, events: int, folder: Path) -> None:
        from broker import create_topics

        from streams.kafka_client import BrokerAddress, KafkaMedium, Security

        self.bootstrap, self.folder, self.topic = bootstrap, folder, f"part-{part}.inspections"
        self.load = Load(events // part, bells=bells())
        self.answer = expected(self.load)
        tested, _ = rolling(self.load)
        self.limits = folder / f"limits-{part}.json"
        self.limits.write_text(json.dumps(limits(int(tested.max()) + 1)))
        # The records bear the times of their reports: the broker would soon take them for old.
        create_topics(bootstrap, self.topic, partitions=PARTITIONS, config={"retention.ms": "-1"})
        medium = KafkaMedium(BrokerAddress.parse(bootstrap), f"part-{part}.", Security())
        medium.write("inspections", self.outgoing())
        medium.close()

    def outgoing(self) -> list[Any]:
        """The load, as our media write it."""
        from streams.medium import Outgoing

        return [Outgoing(*record) for record in self.load.records()]


def bells() -> tuple[str, ...]:
    """A product in each partition."""
    from streams.log import partition_for

    found: dict[int, str] = {}
    number = 0
    while len(found) < PARTITIONS:
        found.setdefault(partition_for(f"BELL{number}".encode(), PARTITIONS), f"BELL{number}")
        number += 1
    return tuple(found[part] for part in range(PARTITIONS))


# --- processes -----------------------------------------------------------------------------------------------------


@contextmanager
def off_first_core() -> Iterator[None]:
    """Keep this process, and the broker that it starts, off the core that the engines get."""
    if _pinned():
        os.sched_setaffinity(0, set(_CORES[1:]))
    try:
        yield
    finally:
        if _pinned():
            os.sched_setaffinity(0, set(_CORES))


_CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _pinned() -> bool:
    return len(_CORES) > 1 and shutil.which("taskset") is not None


class Engine:
    """An engine's process, on the core for engines or on the ``core``-th after it."""

    def __init__(self, command: list[str], log: Path, *, core: int = 0, **environment: str) -> None:
        self.log = log
        pin = ["taskset", "-c", str(_CORES[core % len(_CORES)])] if _pinned() else []
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*pin, *command], stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, **environment}
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def cpu(self) -> float:
        """The CPU seconds that it has used so far; NaN where the system does not tell."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return float("nan")
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> float:
        """End it; the most memory that it held, in MB, and NaN where the system does not tell."""
        peak = peak_mb(self._process.pid)
        self._process.terminate()
        try:
            self._process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return peak

    def must_live(self, deadline: float) -> None:
        """Wrong, with its last words, where it has ended or the time is over."""
        if not self.alive or time.monotonic() > deadline:
            how = "ended by itself" if not self.alive else "gave no complete answer in time"
            words = self.log.read_text("utf-8", "replace").strip().splitlines()[-12:]
            print("\n".join(words), file=sys.stderr)
            raise Wrong(f"{how} ({words[-1][:160] if words else 'said nothing'})")


# --- a peer --------------------------------------------------------------------------------------------------------


def run_peer(field: Field, name: str, command: list[str]) -> Run:
    """Start a peer on the field and time it; Wrong where its answer is."""
    from broker import create_topics

    output = f"alerts-{name}"
    create_topics(field.bootstrap, output, config={"message.timestamp.type": "LogAppendTime"})
    state = field.folder / f"state-{name}"
    state.mkdir()
    job = {
        "bootstrap": field.bootstrap, "input": field.topic, "output": output, "group": f"group-{name}",
        "state": str(state), "limits": str(field.limits), "partitions": PARTITIONS,
    }  # fmt: skip
    engine = Engine(command, field.folder / f"{name}.log", PEER=json.dumps(job))
    try:
        given, seconds, cpu = heard(field, output, engine)
    finally:
        peak = engine.stop()
        shutil.rmtree(state, ignore_errors=True)
    compare(given, field.answer)
    return Run(len(field.load), seconds, cpu, peak)


def heard(field: Field, output: str, engine: Engine) -> tuple[set[CellDay], float, float]:
    """What the alert records come to; seconds, by the broker's clock, and CPU seconds from the first to the last."""
    last_day = field.load.date(field.load.days - 1)
    open_bells, times = set(field.load.bells), list[int]()
    standing: dict[CellDay, bool] = {}
    began = ended = heard_last = 0.0
    try:
        for batch in batches(field.bootstrap, output, engine):
            began = began if times else engine.cpu()
            for timestamp, alert in batch:
                times.append(timestamp)
                standing[alert["product"], alert["region"], alert["day"]] = alert["below"]
                if alert["day"] == last_day:
                    open_bells.discard(alert["product"])
            ended = engine.cpu() if batch else ended
            heard_last = time.monotonic() if batch else heard_last
            # Some engines work through a batch cell by cell: then the bell is not the very last.
            if not open_bells and time.monotonic() - heard_last > QUIET_SECONDS:
                break
    except Wrong as error:
        raise Wrong(f"{error}; {len(times)} alert records came, {len(open_bells)} partitions were not done") from None
    seconds = (max(times) - min(times)) / 1_000.0
    return {cell for cell, below in standing.items() if below}, seconds, ended - began


def batches(bootstrap: str, topic: str, engine: Engine) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Alert records of the topic's one partition with the broker's times, as they come; an empty list where none do."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    try:
        consumer.assign([TopicPartition(topic, 0)])
        deadline = time.monotonic() + GIVE_UP_AFTER
        while True:
            polled = consumer.poll(timeout_ms=200).get(TopicPartition(topic, 0), [])
            yield [(record.timestamp, json.loads(record.value)) for record in polled]
            engine.must_live(deadline)
    finally:
        consumer.close()


def compare(given: set[CellDay], answer: dict[CellDay, tuple[int, int]]) -> None:
    """Wrong, unless exactly the cells and days of the answer were given."""
    missing, surplus = answer.keys() - given, given - answer.keys()
    if missing or surplus:
        raise Wrong(f"{len(missing)} of {len(answer)} alerts are missing and {len(surplus)} are not right")


# --- Tocsin --------------------------------------------------------------------------------------------------------

CATALOGUE = """\
name = "peers"
version = "1"
[products]
separator = "/"
[regions]
separator = "/"
[[targets]]
products = {products}
pass_rate = {target}
"""


def run_tocsin(field: Field, prefix: str) -> Run:
    """``tocsin run --broker`` on topics of its own with the same records; Wrong where its answer is."""
    from law import Dataset, Group

    from streams.config import Config
    from streams.datadir import to_toml

    folder = field.folder / prefix
    folder.mkdir()
    catalogue = folder / "catalogue.toml"
    products = sorted({product for product, _ in field.load.names()})
    catalogue.write_text(CATALOGUE.format(products=json.dumps(products), target=TARGET))
    # The rule of the job is Tocsin's rule "target" when nothing but the interval decides. Wherever the interval lies
    # under this target, the failures are at least 1.33 times as many as it allows, and their p-value, whatever their
    # correlation, is under 0.3 (for up to 700 tests in a window): these two never say no. Nor may the labs' severity.
    rule = {
        "windows_days": [WINDOW_DAYS], "history_days": 61, "alpha": 0.3, "min_failed": LEAST_FAILED,
        "confidence": 0.95, "min_rate_ratio": 1.33, "correlation": 0.0,
    }  # fmt: skip
    labs = {"adjust": False}
    config = Config().replace(catalogue=str(catalogue), tick_seconds=86_400, pass_rate=rule, labs=labs)
    group = Group(field.bootstrap, prefix, Dataset("peers", config, {"inspections": field.outgoing()}), folder)
    last_day = field.load.date(field.load.days - 1)
    try:
        group.fill()
        file = folder / "tocsin.toml"
        file.write_text(to_toml(group.config), "utf-8")
        place = ["--broker", group.address.url, "--config", str(file)]
        command = [sys.executable, "-m", "streams.cli", "run", "--log-format", "json", *place]
        engine = Engine(command, folder / "tocsin.log", PYTHONPATH=str(ROOT))
        try:
            seconds, cpu = timed(engine, group, datetime.fromisoformat(f"{last_day}T00:00:00+08:00"))
        finally:
            peak = engine.stop()
        compare(signalled(group, field.load), field.answer)
    finally:
        group.close()
    return Run(int((field.load.day < field.load.days - 1).sum()), seconds, cpu, peak)


def timed(engine: Engine, group: Any, before_last: datetime) -> tuple[float, float]:
    """Seconds and CPU seconds from the first output until the ticks before the last day are closed.

    Returns when nothing is left to do at all.
    """
    deadline = time.monotonic() + GIVE_UP_AFTER
    while "assess partitions" not in engine.log.read_text("utf-8", "replace"):
        engine.must_live(deadline)
        time.sleep(0.02)
    while not any(group.medium.ends(["keyed-events"]).values()):
        engine.must_live(deadline)
        time.sleep(0.005)
    began, used = time.monotonic(), engine.cpu()
    while group.closed_through() < before_last.timestamp() * 1_000:
        engine.must_live(deadline)
        time.sleep(0.05)
    found = time.monotonic() - began, engine.cpu() - used
    while not group.done():
        engine.must_live(deadline)
        time.sleep(0.2)
    return found


def signalled(group: Any, load: Load) -> set[CellDay]:
    """The cells and days, of those with inspections, that Tocsin holds against the target; Wrong for a wrong count."""
    tested, failed = rolling(load)
    seen = inspected(load)
    row = {cell: number for number, cell in enumerate(load.names())}
    first = datetime.fromisoformat(load.date(0)).date()
    found: set[CellDay] = set()
    for signalled in _signals(group):
        against = [one for one in signalled["evidence"] if one["detector"].startswith("jeffreys")]
        cell = row.get((signalled["product"], signalled["region"]))
        if signalled["kind"] != "pass-rate" or cell is None or not against:
            continue
        # A signal is of the end of its tick: midnight, local time.
        day = (datetime.fromisoformat(signalled["as_of"]) - timedelta(seconds=1)).date()
        at = (cell, (day - first).days)
        if (against[0]["tested"], against[0]["observed"]) != (tested[at], failed[at]):
            raise Wrong(f"{signalled['product']} {signalled['region']} on {day}: its counts are not right")
        if seen[at]:
            found.add((signalled["product"], signalled["region"], day.isoformat()))
    return found


def _signals(group: Any) -> Iterator[dict[str, Any]]:
    from streams.wire import kind_of

    end = group.medium.ends(["signals"])["signals", 0]
    for batch in group.medium.read(("signals", 0), 0, end, 5_000):
        for record in batch:
            if kind_of(record.headers)[0] == "signal" and record.value is not None:
                yield json.loads(record.value)


# --- the report ----------------------------------------------------------------------------------------------------


ABOUT = """\
One core an engine, the broker on another. The job: raw JSON to alert records, the rolling 30-day pass rate by day of
10,000 product x region cells against a target. Every answer was compared with a brute force. Events/CPU s is what the
engine's process used. In the same time Tocsin also checks every field and code, knows copies and corrections by event
id, judges cells against their history and their peers, watches labs and sources, and raises, grades and lowers alerts,
exactly once in effect; the peers do the job alone, and their alert records are delivered at least once. Tocsin waits
three seconds before it takes an empty topic of imported history for complete, which weighs in short runs; so does the
warming up of Java.
"""


def report(lines: dict[str, Line], file: Path, load: str) -> None:
    """Print the table and write it as Markdown."""
    head = ["engine", "state", "events/s (spread)", "Tocsin / engine (spread)", "events/CPU s", "peak MB", "runs"]
    text = markdown(head, [[line.title, line.state, *_cells(line, lines[OURS])] for line in lines.values()])
    text = f"{text}\n{ABOUT}\n{load}\n"
    print(text)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    print(f"written to {file}", file=sys.stderr)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table that can be read as it stands."""
    wide = [max(len(cells[column]) for cells in (head, *rows)) for column in range(len(head))]
    lines = [[cell.ljust(width) for cell, width in zip(cells, wide, strict=True)] for cells in (head, *rows)]
    lines.insert(1, ["-" * width for width in wide])
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


def _cells(line: Line, ours: Line) -> list[str]:
    if line.word or not line.runs:
        return [line.word or "not run", "", "", "", ""]
    rates = [run.rate for run in line.runs]
    ratios = [our.rate / run.rate for our, run in zip(ours.runs, line.runs, strict=False)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
    return [
        f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        ratio,
        f"{line.median('rate_of_cpu'):,.0f}",
        f"{line.median('peak_mb'):,.0f}",
        f"{len(rates)} x {line.runs[0].events:,}",
    ]
