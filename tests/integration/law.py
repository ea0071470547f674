"""What the tests of "replay = live" share: the records, the ways to run them, and the form in which outcomes compare.

A *way* ends in an :class:`Outcome`: the alerts and the signals as canonical lines (JSON with sorted keys, without the
wall clock's ``emitted_at``), and the dead letters. Two ways over the same records must give the same bytes.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from siphash24 import siphash24

from schemas.topics import RAW_TOPICS, kind_of_topic
from streams import datadir
from streams.assess import Segment
from streams.columns import NOTE, EventColumns
from streams.config import Config
from streams.embedded import INPUTS, EmbeddedRuntime, Pipeline
from streams.importers import import_rows
from streams.kafka_client import BrokerAddress, KafkaMedium, Security, create_topics
from streams.kafka_end import GroupProgress
from streams.log import LogRecord, SqliteLog, partition_for
from streams.mapping import Mapping as ColumnMapping
from streams.medium import EmbeddedMedium, Medium, Outgoing
from streams.simulate import simulate
from streams.ticks import COMPLETE, Calendar, Origin
from streams.wire import ClosedMarker, kind_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SHARED = ROOT.parent / "shared" / "data"
PARTITIONS = 4
LONG = os.environ.get("TOCSIN_LONG") == "1"
DAY = 86_400_000

# --- the records ---------------------------------------------------------------------------------------------------

Topics = dict[str, list[Outgoing]]


@dataclass(frozen=True)
class Dataset:
    """Records by topic in the order in which they are published, and the configuration to run them under."""

    name: str
    config: Config
    topics: Topics

    @property
    def records(self) -> int:
        return sum(len(records) for records in self.topics.values())

    def time_at(self, share: float) -> int:
        """When so large a share of the records had arrived."""
        times = sorted(record.time for records in self.topics.values() for record in records)
        return times[min(len(times) - 1, int(share * len(times)))]

    def expected_rows(self) -> Counter[int]:
        """How often each event must be in the state: once for each tick that brought a higher revision of it."""
        calendar = Calendar(self.config.tick_ms, self.config.offset_ms)
        brought: dict[int, dict[int, int]] = {}
        for topic in RAW_TOPICS:
            for record in self.topics.get(topic, ()):
                event, revision = identity(topic, record.value or b"")
                ticks, tick = brought.setdefault(event, {}), calendar.tick(record.time)
                ticks[tick] = max(revision, ticks.get(tick, -1))
        rows: Counter[int] = Counter()
        for event, ticks in brought.items():
            highest = list(accumulate((ticks[tick] for tick in sorted(ticks)), max, initial=-1))
            rows[event] = sum(after > before for before, after in pairwise(highest))
        return rows


def identity(topic: str, value: bytes) -> tuple[int, int]:
    """The ledger's hash of an event, computed from its JSON alone, and its revision."""
    event = json.loads(value)
    key = hashlib.blake2b(f"{kind_of_topic(topic)}\0{event['source']}".encode(), digest_size=16).digest()
    return int.from_bytes(siphash24(event["event_id"].encode(), key=key).digest(), "little"), event.get("revision", 0)


def in_order(rows: Iterable[tuple[str, Outgoing]]) -> Topics:
    topics: Topics = {}
    for topic, record in sorted(rows, key=lambda row: row[1].time):
        topics.setdefault(topic, []).append(record)
    return topics


def simulated(scale: float, share: int = 1, **config: Any) -> Dataset:
    """The simulated Tianjin year; of surveys and losses, which do not scale, every so-manieth."""
    rows = [(r.topic, Outgoing(r.reported_at, r.key, r.value)) for r in simulate(scale=scale).events]
    places: Counter[str] = Counter()
    kept = []
    for topic, record in rows:
        places[topic] += 1
        if topic not in ("surveys", "losses") or places[topic] % share == 0:
            kept.append((topic, record))
    return Dataset(f"simulated-{scale}", Config().replace(**config), in_order(kept))


def disturbed(dataset: Dataset, seed: int = 7) -> Dataset:
    """The same records and, among them, copies, corrections, retractions, and dispositions of its alerts.

    Copies may come by another partition; a correction may move an event to another product, and so to another
    partition of the stage that counts it. All of it comes an hour to twenty days after its original.
    """
    rng = random.Random(seed)
    rows = [(topic, record) for topic, records in dataset.topics.items() for record in records]
    products = sorted({record.key for topic, record in rows if topic == "complaints" and record.key})
    for topic, record in list(rows):
        fate, later = rng.random(), record.time + rng.randrange(3_600_000, 20 * DAY)
        if fate < 0.04:
            key = record.key if fate < 0.02 else rng.choice(products)
            rows += [(topic, Outgoing(later + n, key, record.value)) for n in range(rng.choice((1, 1, 2)))]
        elif fate < 0.07 and topic == "complaints":
            event = json.loads(record.value or b"")
            key = rng.choice(products) if fate < 0.06 else record.key
            event |= {"revision": 1, "product": (key or b"").decode(), "withdrawn": fate < 0.05}
            rows.append((topic, Outgoing(later, key, msgspec.json.encode(event))))
    whole = Dataset(f"disturbed-{dataset.name}", dataset.config, in_order(rows))
    return Dataset(whole.name, whole.config, in_order([*rows, *dispositions(whole)]))


def dispositions(dataset: Dataset) -> list[tuple[str, Outgoing]]:
    """Every other alert acknowledged a day and a half after it was opened, and half of those closed later."""
    rows = []
    opened = [
        alert for alert in map(json.loads, replayed(memory(dataset), dataset.config).alerts) if alert["revision"] == 1
    ]
    for number, alert in enumerate(opened[::2]):
        at = Calendar(dataset.config.tick_ms, 0).epoch_ms(datetime.fromisoformat(alert["as_of"])) + 3 * DAY // 2
        for action, time_ms in (("acknowledge", at), ("close", at + 2 * DAY))[: 1 + number % 2]:
            value = {
                "disposition_id": f"{action}-{number}", "alert_id": alert["id"], "action": action, "by": "duty officer",
                "at": alert["as_of"], "reason": "as the tests have it",
            }  # fmt: skip
            rows.append(("dispositions", Outgoing(time_ms, alert["id"].encode(), msgspec.json.encode(value))))
    return rows


def public(name: str, mapping: str, file: str, config: Mapping[str, Any]) -> Dataset:
    """Public data through a ready mapping; a test that asks for it is skipped where ../shared/data is absent."""
    path = SHARED / file
    if not path.exists():
        pytest.skip(f"no public data: {file} is not in ../shared/data beside the project")
    settings = Config.parse(dict(config), name)
    rows = []
    for batch in import_rows(path, ColumnMapping.builtin(mapping), utc_offset_minutes=settings.offset_ms // 60_000):
        for row in batch:
            assert row.rejection is None
            rows.append((row.topic, Outgoing(row.reported_at_ms or 0, row.key, row.value)))
    return Dataset(name, settings, in_order(rows))


def chicago() -> Dataset:
    """City of Chicago, with so fine an ear that it gives hundreds of alerts: under the defaults there are none."""
    ear = {"alpha": 1e-2, "min_failed": 3, "min_rate_ratio": 1.2}
    config = {"catalogue": "open", "utc_offset": "-06:00", "pass_rate": ear}
    return public("chicago", "city-of-chicago", "chicago_food_inspections_2011_2014.parquet", config)


def caers() -> Dataset:
    """FDA CAERS under the neutral configuration."""
    config = {"catalogue": "open", "utc_offset": "+00:00"}
    return public("caers", "fda-caers", "fda_caers_2004_2010.parquet", config)


# --- outcomes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came out, as canonical lines in a stated order; ``twice`` holds what was there more than once."""

    alerts: list[str]
    signals: list[str]
    dead: list[str]
    twice: list[str] = field(default_factory=list)


def plain(value: bytes) -> dict[str, Any]:
    """A record's JSON without the wall clock."""
    found: dict[str, Any] = json.loads(value)
    found.pop("emitted_at", None)
    return found


def canonical(alerts: Iterable[dict[str, Any]], signals: Iterable[dict[str, Any]], dead: Iterable[bytes]) -> Outcome:
    """Outcomes by id, not by the order in which they were written."""
    rows = sorted(alerts, key=lambda alert: (alert["id"], alert["revision"]))
    names = Counter((alert["id"], alert["revision"]) for alert in rows)
    marks = [mark for mark in signals if mark.get("alert_id") is None or mark.get("withdrawn")]
    # A grave signal goes out before its event is committed, and so again after a crash; escalate knows it by its id.
    graves = {mark["alert_id"]: mark for mark in signals if mark.get("alert_id") and not mark.get("withdrawn")}
    cells = Counter((m["tick"], m["kind"], m["product"], m["region"], m.get("alert_id")) for m in marks)
    twice = [str(name) for counted in (names, cells) for name, count in counted.items() if count > 1]
    lines = sorted(json.dumps(mark, sort_keys=True) for mark in [*marks, *graves.values()])
    return Outcome([json.dumps(row, sort_keys=True) for row in rows], lines, sorted(map(str, dead)), twice)


def values(medium: Medium, topic: str) -> list[bytes]:
    """Everything that a topic holds."""
    return [record.value for record in read(medium, topic) if record.value is not None]


def read(medium: Medium, topic: str) -> list[LogRecord]:
    ends = medium.ends([topic])
    return [
        record for origin, end in ends.items() for records in medium.read(origin, 0, end, 5_000) for record in records
    ]


def written(medium: Medium) -> Outcome:
    """What a run wrote to its topics."""
    kinds = ("", "signal", "grave")  # the stages' own markers travel on the topic too, on Kafka
    signals = [plain(r.value) for r in read(medium, "signals") if r.value and kind_of(r.headers)[0] in kinds]
    return canonical(map(plain, values(medium, "emergency-response")), signals, values(medium, "dead-letters"))


def same(found: Outcome, expected: Outcome) -> None:
    """Equal to the last byte; a failure shows the first lines that are not."""
    assert found.twice == []
    for part in ("alerts", "signals", "dead"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        if ours != theirs:
            lost, gained = Counter(theirs) - Counter(ours), Counter(ours) - Counter(theirs)
            shown = "".join(f"\n- {line}" for line in sorted(lost)[:2]) + "".join(
                f"\n+ {line}" for line in sorted(gained)[:2]
            )
            pytest.fail(
                f"{part}: {len(ours)} instead of {len(theirs)}; {lost.total()} lost, {gained.total()} gained{shown}"
            )


Folded = tuple[int, Origin, int]
"""An event in the stored state: its hash and the raw record (partition, offset) that it came from."""


def folded_in(segments: Iterable[bytes]) -> list[Folded]:
    """Every event in stored segments; notes, whose content lives elsewhere, are passed over."""
    rows: list[Folded] = []
    for segment in segments:
        for _, packed in msgspec.msgpack.decode(segment, type=Segment).ticks:
            columns = EventColumns.unpack(packed)
            for row in range(len(columns)):
                if not columns["flags"][row] & NOTE:
                    topic, part = columns.origins[columns["origin"][row]]
                    rows.append((int(columns["event"][row]), (topic, part), int(columns["offset"][row])))
    return rows


# --- ways without Kafka --------------------------------------------------------------------------------------------


def embedded(dataset: Dataset, folder: Path, batch: int = 5_000) -> Outcome:
    """The embedded runtime on its SQLite log."""
    log = SqliteLog(folder, PARTITIONS)
    try:
        log.lock()
        medium = EmbeddedMedium(log)
        for topic, records in dataset.topics.items():
            medium.write(topic, records)
        EmbeddedRuntime(log, dataset.config, dataset.config.load_catalogue(), batch=batch).run_to_end()
        return written(medium)
    finally:
        log.close()


def replayed(medium: Medium, config: Config, batch: int = 5_000) -> Outcome:
    """The stages in memory over the raw topics of a medium, slowest origin first, to their ends."""
    ends = medium.ends(INPUTS)
    pipeline = Pipeline(config, config.load_catalogue(), tuple(ends))
    readers = {origin: medium.read(origin, 0, end, batch) for origin, end in ends.items()}
    while readers:
        origin = pipeline.assess.watermarks.slowest(tuple(readers))
        records = next(readers[origin], None)
        if records:
            pipeline.feed(origin, records)
        elif records is None:
            del readers[origin]
            pipeline.mark(origin, COMPLETE)
        pipeline.close()
    step = pipeline.take()
    encode = msgspec.json.encode
    signals = [plain(encode(found)) for found in step.signals]
    return canonical([plain(encode(alert)) for alert in step.alerts], signals, map(encode, step.dead))


def memory(dataset: Dataset) -> Medium:
    """The records as a medium that is only read."""
    return cast("Medium", _Memory(dataset.topics))


class _Memory:
    def __init__(self, topics: Topics) -> None:
        self._parts: dict[Origin, list[LogRecord]] = {}
        for topic in INPUTS:
            for part in range(1 if topic == "dispositions" else PARTITIONS):
                self._parts[topic, part] = []
            for time_ms, key, value, headers in topics.get(topic, ()):
                part = self._parts[topic, 0 if topic == "dispositions" else partition_for(key, PARTITIONS)]
                part.append(LogRecord(len(part), time_ms, key, value, headers))

    def ends(self, topics: Sequence[str]) -> dict[Origin, int]:
        return {origin: len(records) for origin, records in sorted(self._parts.items()) if origin[0] in topics}

    def read(self, origin: Origin, offset: int, end: int, batch: int) -> Iterator[list[LogRecord]]:
        found = self._parts[origin]
        return (found[start : min(start + batch, end)] for start in range(offset, end, batch))


# --- on Kafka ------------------------------------------------------------------------------------------------------


class Worker:
    """A worker process and its log."""

    def __init__(self, command: list[str], log: Path) -> None:
        self.log = log
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, how: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal and wait for the end; returns the status."""
        self.process.send_signal(how)
        return self.process.wait(seconds)

    def shares(self) -> list[tuple[int, int]]:
        """How many raw and assess partitions it had in each generation in which it had any."""
        found = re.findall(r"generation \d+: (\d+) raw, (\d+) assess partitions", self.log.read_text(errors="replace"))
        return [(int(raw), int(keyed)) for raw, keyed in found if raw != "0"]

    def tail(self, characters: int = 3_000) -> str:
        return f"{self.log.name}: {self.log.read_text(errors='replace')[-characters:]}"


class Group:
    """Tocsin's topics under a prefix of their own, and the workers of one group on them."""

    def __init__(self, bootstrap: str, prefix: str, dataset: Dataset, folder: Path) -> None:
        self.folder, self.bootstrap = folder, bootstrap
        self.address, self.security = BrokerAddress.parse(bootstrap), Security()
        # A topic's name is long; a test's may be longer.
        self.config = dataset.config.replace(topic_prefix=f"{prefix[-60:].lstrip('-.')}.", partitions=PARTITIONS)
        self.dataset = dataset
        self.medium = KafkaMedium(self.address, self.config.topic_prefix, self.security)
        self.name = f"{self.config.topic_prefix}{self.config.name}"
        self.workers: list[Worker] = []
        self._progress: GroupProgress | None = None
        self._closed: dict[int, int] = {}
        self._read = 0

    def close(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.wait(10)
        if self._progress is not None:
            self._progress.close()
        self.medium.close()

    def create(self, *, history: bool = True) -> Group:
        create_topics(self.address, self.config.topic_prefix, PARTITIONS, self.security, history=history)
        return self

    def publish(self, topics: Topics | None = None) -> None:
        for topic, records in (self.dataset.topics if topics is None else topics).items():
            self.medium.write(topic, records)

    def fill(self) -> Group:
        """Topics with all records in them."""
        self.create()
        self.publish()
        return self

    def start(self, **orders: Any) -> Worker:
        """A worker with the given screws (see worker_main.py); the first may begin the work alone."""
        said = {"bootstrap": self.bootstrap, "config": self.config.to_dict(), "settle": 1.0, **orders}
        return self._launch([sys.executable, str(HERE / "worker_main.py"), json.dumps(said)])

    def start_command(self, *options: str) -> Worker:
        """A worker as a user starts one."""
        file = self.folder / "tocsin.toml"
        file.write_text(datadir.to_toml(self.config), "utf-8")
        place = ["--broker", self.address.url, "--config", str(file)]
        return self._launch([sys.executable, "-m", "streams.cli", "run", *place, *options])

    def _launch(self, command: list[str]) -> Worker:
        worker = Worker(command, self.folder / f"worker-{len(self.workers)}.log")
        self.workers.append(worker)
        return worker

    def closed_through(self) -> int:
        """The instant (epoch ms) before which all partitions have closed every tick, 0 while there is none."""
        end = self.medium.ends(["signals"])["signals", 0]
        for records in self.medium.read(("signals", 0), self._read, end, 5_000):
            for record in records:
                if kind_of(record.headers)[0] == "closed" and record.value is not None:
                    marker = msgspec.json.decode(record.value, type=ClosedMarker)
                    assert marker.through > self._closed.get(marker.partition, marker.through - 1), (
                        "a tick closed twice"
                    )
                    self._closed[marker.partition] = marker.through
        self._read = max(self._read, end)
        calendar = Calendar(self.config.tick_ms, self.config.offset_ms)
        return calendar.tick_end(min(self._closed.values())) if len(self._closed) == PARTITIONS else 0

    def taken_in(self) -> bool:
        """Whether intake has committed every raw record."""
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            found = admin.list_group_offsets([self.name])[self.name]
        finally:
            admin.close()
        committed = {(place.topic, place.partition): offset.offset for place, offset in found.items()}
        ends = self.medium.ends(INPUTS).items()
        prefix = self.config.topic_prefix
        return all(committed.get((f"{prefix}{topic}", part), 0) >= end for (topic, part), end in ends)

    def done(self) -> bool:
        """Whether the group has worked off what there is."""
        if self._progress is None:
            self._progress = GroupProgress(self.address, self.config, self.security, self.name)
        return self._progress.done()

    def wait(self, until: Callable[[], object], seconds: float = 120, *, alive: Sequence[Worker] = ()) -> None:
        """Wait for something; fail with the workers' last words when it does not come or one of ``alive`` ends."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline or not all(worker.alive for worker in alive):
                words = "\n".join(worker.tail() for worker in self.workers)
                pytest.fail(f"it did not come so far in {seconds} s, or a worker ended\n{words}")
            time.sleep(0.2)

    def wait_for_share(self, share: float, seconds: float = 120, *, alive: Sequence[Worker] = ()) -> None:
        """Wait until the ticks of the first so many records are closed."""
        goal = self.dataset.time_at(share)
        self.wait(lambda: self.closed_through() > goal, seconds, alive=alive)

    def folded(self) -> list[Folded]:
        """Every event in the stored state."""
        records = read(self.medium, "assess-changelog")
        return folded_in(r.value for r in records if r.value is not None and (r.key or b"").startswith(b"segment-"))

    def check(self, expected: Outcome, rows: Counter[int] | None = None) -> None:
        """What came out is what was expected, and every event is in the state as often as it must be: once."""
        same(written(self.medium), expected)
        folded = self.folded()
        assert Counter(event for event, _, _ in folded) == (self.dataset.expected_rows() if rows is None else rows)
        assert len({(origin, offset) for _, origin, offset in folded}) == len(folded)


@functools.cache
def disturbed_year() -> Dataset:
    """The record that most tests run: a simulated year, thin and in ticks of half a day, with all that is awkward."""
    if LONG:
        return disturbed(simulated(0.2, tick_seconds=3_600))
    # A finer ear for so thin a year: every kind and status is to come about.
    ear = {"escalate": {"lower_after_days": 1}, "counts": {"min_history_weeks": 9}}
    return disturbed(simulated(0.04, 5, tick_seconds=43_200, **ear))
