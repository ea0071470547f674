"""What the tests of the stages build with: records, worlds of records, drivers of the stages, and an oracle.

:class:`Cluster` is the Kafka runtime in small: intake, P assess workers and escalate, each reading a log at its own
pace, each checkpointing and crashing when the test says so.
"""

from __future__ import annotations

import json
import random
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import numpy as np
import pytest
from checkpoints import Store

from schemas.alerts import Alert, DeadLetter, Disposition, Signal
from schemas.catalogue import Catalogue
from streams.assess import Assess
from streams.columns import INDICATORS, EventColumns
from streams.config import Config
from streams.embedded import Pipeline
from streams.escalate import Escalate
from streams.intake import Intake, route
from streams.log import LogRecord
from streams.ticks import COMPLETE, Calendar, Origin
from streams.wire import Told

CHINA = timezone(timedelta(hours=8))
HOUR = 3_600_000
DAY = 24 * HOUR
START = int(datetime(2024, 1, 1, tzinfo=CHINA).timestamp() * 1_000)
"""Monday, 1 January 2024, local midnight."""
EVENT_ORIGINS: tuple[Origin, ...] = tuple(
    (topic, part) for topic in ("accidents", "complaints", "injuries", "inspections") for part in (0, 1)
)
ORIGINS: tuple[Origin, ...] = tuple(sorted([*EVENT_ORIGINS, ("surveys", 0), ("losses", 0), ("dispositions", 0)]))
GOOD_USCC = "91350100M000100Y43"
GOOD_GTIN = "6901234567892"

Raw = dict[Origin, list[LogRecord]]
Cells = dict[tuple[str, str, str, int], tuple[int, ...]]
"""(indicator, product, region, day) -> the integers that the cell holds on that day; zeros left out."""


def known_bug(what: str) -> pytest.MarkDecorator:
    """A test that fails today for a reason that was reported: take the mark away with the mending."""
    return pytest.mark.xfail(strict=True, reason=f"BUG: {what}")


# --- records -------------------------------------------------------------------------------------------------------


def iso(ms: int) -> str:
    """An RFC 3339 time in China's offset."""
    return datetime.fromtimestamp(ms / 1_000, CHINA).isoformat()


def body(topic: str, event_id: str, reported: int, /, **fields: Any) -> dict[str, Any]:
    """A well-formed event of the topic's kind, with some fields set otherwise."""
    common = {"event_id": event_id, "source": "s", "reported_at": iso(reported), "product": "F0101", "region": "120101"}
    own: dict[str, dict[str, Any]] = {
        "inspections": {"lab": "lab-1", "tested": 10, "failed": 1},
        "injuries": {"site": "hospital-1", "severity": 2},
        "complaints": {"channel": "12315"},
        "accidents": {"authority": "bureau", "seriously_injured": 1},
        "surveys": {"surveyor": "office", "score": 81.5, "respondents": 20},
        "losses": {"producer": GOOD_USCC, "loss_cny": 1_000.0, "output_cny": 90_000.0},
    }
    return {**common, **own[topic], **fields}


def encoded(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode()


def record(
    offset: int, arrival: int, value: Mapping[str, Any] | bytes | None, headers: Sequence[tuple[str, Any]] = ()
) -> LogRecord:
    return LogRecord(offset, arrival, None, encoded(value) if isinstance(value, Mapping) else value, headers)


def numbered(rows: Iterable[tuple[int, Mapping[str, Any] | bytes | None]]) -> list[LogRecord]:
    """(arrival, value) rows as the records of one partition."""
    return [record(offset, arrival, value) for offset, (arrival, value) in enumerate(rows)]


def settings_with(**changes: Any) -> Config:
    """The defaults with some keys changed; sections are given as dicts."""
    base = Config().to_dict()
    for name, value in changes.items():
        base[name] = {**base[name], **value} if isinstance(value, dict) else value
    return Config.parse(base, "test")


# --- a world of records --------------------------------------------------------------------------------------------

PRODUCTS = ("F0101", "F0102", "F0301", "L0101", "C0101", "N0101", "B0101", "E0101", "A0101")
REGIONS = ("120101", "120102", "120104", "120116", "120000")
RUBBISH: tuple[bytes | None, ...] = (
    b"", None, b"{", b"[]", b"\xff\xfe", b'{"event_id": 3}', encoded(body("injuries", "no", START, region="990000"))
)  # fmt: skip


@dataclass(slots=True)
class World:
    """Raw records and nothing else; ``dispositions`` are added once the alerts' ids are known."""

    config: Config
    catalogue: Catalogue
    raw: Raw
    poison: int = 0

    @property
    def records(self) -> int:
        return sum(len(records) for records in self.raw.values())


def build_world(seed: int, *, days: int = 140, scale: float = 1.0) -> World:
    """Many records with all that is awkward: late, doubled, corrected, moved, withdrawn, malformed; and surges.

    Copies of an event are alike in product, so that every number of partitions sees the same; what happens where they
    are not is the affair of tests of its own.
    """
    rng = random.Random(seed)
    sent: dict[Origin, list[tuple[int, bytes | None]]] = {origin: [] for origin in ORIGINS}
    surge = START + (days - 35) * DAY
    poison = 0

    def send(topic: str, arrival: int, value: bytes | None, part: int | None = None) -> None:
        parts = [origin for origin in ORIGINS if origin[0] == topic]
        sent[rng.choice(parts) if part is None else (topic, part)].append((arrival, value))

    def event(topic: str, name: str, reported: int, **fields: Any) -> None:
        late = rng.choice((0, 0, 0, rng.randrange(DAY), rng.randrange(40 * DAY)))
        first = encoded(body(topic, name, reported, **fields))
        send(topic, reported + late, first)
        for _ in range(rng.choice((0, 0, 0, 0, 1, 2))):
            send(topic, reported + rng.choice((late, rng.randrange(60 * DAY))), first)
        correct(topic, name, reported, fields)

    def correct(topic: str, name: str, reported: int, fields: dict[str, Any]) -> None:
        for revision in range(1, rng.choice((0, 0, 0, 0, 0, 1, 1, 3)) + 1):
            change = rng.choice(("move", "withdraw", "day", "region", "same"))
            changed: dict[str, Any] = {**fields, "revision": revision}
            if change == "move":
                changed["product"] = rng.choice(PRODUCTS)
            elif change == "region":
                changed["region"] = rng.choice(REGIONS)
            elif change == "withdraw":
                changed["withdrawn"] = True
            moment = max(reported - 3 * DAY, START) if change == "day" else reported
            # Some corrections overtake what they correct.
            send(topic, reported + rng.choice((0, rng.randrange(DAY), rng.randrange(50 * DAY))), encoded(
                body(topic, name, moment, **changed)
            ))  # fmt: skip

    def someday() -> int:
        return START + rng.randrange(days * DAY)

    def place() -> dict[str, Any]:
        return {"product": rng.choice(PRODUCTS), "region": rng.choice(REGIONS[1:])}

    for n in range(int(160 * scale)):
        event("injuries", f"i{n}", someday(), severity=rng.randrange(1, 5), batch=f"b{n % 7}", **place())
    for n in range(int(160 * scale)):
        event("complaints", f"c{n}", someday(), **place())
    for n in range(int(260 * scale)):
        tested = rng.randrange(1, 60)
        event("inspections", f"p{n}", someday(), tested=tested, failed=int(tested * rng.random() * 0.03), **place())
    for n in range(int(25 * scale)):
        event("accidents", f"a{n}", someday(), deaths=rng.choice((0, 0, 1, 4, 11)), **place())
    for n in range(int(30 * scale)):
        event(
            "surveys",
            f"s{n}",
            someday(),
            score=float(rng.randrange(40, 95)),
            respondents=rng.randrange(1, 90),
            **place(),
        )
        event("losses", f"l{n}", someday(), loss_cny=float(rng.randrange(90_000)), **place())
    # The surges: injuries by one product, injuries and complaints by another, failures of a third that spread.
    for n in range(45):
        when = surge + rng.randrange(12 * DAY)
        event("injuries", f"surge{n}", when, product="F0101", region=rng.choice(REGIONS[1:3]), severity=3, batch="bad")
        event("complaints", f"surge{n}", when, product="L0101", region=rng.choice(REGIONS[1:]))
    for n in range(24):
        event("inspections", f"bad{n}", surge + rng.randrange(9 * DAY), product="C0101",
              region=rng.choice(REGIONS[1:4]), tested=20, failed=rng.randrange(5, 16), severity="critical",
              producer=GOOD_USCC)  # fmt: skip
    event("injuries", "death", surge, product="E0101", region="120104", outcome="died", severity=4)
    for origin in EVENT_ORIGINS:
        for value in rng.sample(RUBBISH, 3):
            poison += 1
            send(origin[0], someday(), value, origin[1])
    raw = {origin: numbered(sorted(rows, key=lambda row: row[0])) for origin, rows in sent.items()}
    disturb_clocks(raw, rng)
    return World(world_config(), Config().load_catalogue(), raw, poison)


def disturb_clocks(raw: Raw, rng: random.Random) -> None:
    """Let some given times run back within their partition: arrival is the running maximum."""
    for records in raw.values():
        for at in rng.sample(range(len(records)), len(records) // 20):
            records[at] = records[at]._replace(timestamp=records[at].timestamp - rng.randrange(2 * DAY))


def world_config(**changes: Any) -> Config:
    """Quick to ring and quick to calm down, so that every kind of revision shows within weeks."""
    return settings_with(**{
        "tick_seconds": 43_200,
        "pass_rate": {"alpha": 1e-4, "history_days": 90, "windows_days": [7, 30]},
        "counts": {"alpha": 1e-4, "min_history_weeks": 4},
        "escalate": {"hold_days": 5, "lower_after_days": 2, "grave_hold_days": 12},
        **changes,
    })  # fmt: skip


def add_dispositions(world: World, alerts: Sequence[Alert], seed: int) -> None:
    """Let operations answer some alerts after they were opened."""
    rng = random.Random(seed)
    end = max(record.timestamp for records in world.raw.values() for record in records)
    opened = [alert for alert in alerts if alert.revision == 1]
    rows: list[tuple[int, Mapping[str, Any] | bytes | None]] = []
    for n, alert in enumerate(rng.sample(opened, min(12, len(opened)))):
        # A grave alert may arrive up to forty days after its report, late copies and all.
        when = int(alert.as_of.timestamp() * 1_000) + 61 * DAY * (alert.kind == "grave-event") + rng.randrange(5 * DAY)
        action = rng.choice(("acknowledge", "assess", "dispose", "close"))
        rows.append((min(when, end), {
            "disposition_id": f"d{n}", "alert_id": alert.id, "action": action, "by": f"officer {n}", "at": iso(when)
        }))  # fmt: skip
        if n % 3 == 0:
            rows.append(rows[-1])
    rows.append((end, b"{"))
    world.raw["dispositions", 0] = numbered(sorted(rows, key=lambda row: row[0]))
    world.poison += 1


# --- the oracle ----------------------------------------------------------------------------------------------------


def oracle_cells(raw: Raw, decoder_rejects: Iterable[tuple[Origin, int]]) -> Cells:
    """The cell counts recomputed from the set of records, in plain Python and without any code of the stages.

    The highest revision of an event wins, among equals the first to arrive. Of an event that nobody corrected every
    shard of the product tree counts its own first report. An event counts on its own reported day in every cell of
    product path x region path of Tianjin's code scheme.
    """
    refused = set(decoder_rejects)
    best: dict[tuple[str, str, str, int | None], tuple[Any, str, dict[str, Any]]] = {}
    for origin in sorted(raw):
        if origin[0] == "dispositions":
            continue
        arrival = -COMPLETE
        for row in raw[origin]:
            arrival = max(arrival, row.timestamp)
            if (origin, row.offset) in refused:
                continue
            event = json.loads(row.value or b"")
            revision = event.get("revision", 0)
            rank = (-revision, arrival, origin, row.offset)
            shard = None if revision else zlib.crc32(event["product"][:1].encode()) % 64
            key = (origin[0], event["source"], event["event_id"], shard)
            if key not in best or rank < best[key][0]:
                best[key] = (rank, origin[0], event)
    for key in [key for key in best if key[3] is not None and (*key[:3], None) in best]:
        del best[key]
    cells: dict[tuple[str, str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    for _, topic, event in best.values():
        if event.get("withdrawn"):
            continue
        day = datetime.fromisoformat(event["reported_at"]).astimezone(CHINA).date().toordinal() - 719_163
        x, n = _measured(topic, event)
        for product in {event["product"][:length] for length in (1, 3, 5)}:
            for region in {"120000", event["region"]}:
                cell = cells[INDICATORS[list(_TOPIC_ORDER).index(topic)], product, region, day]
                cell[0], cell[1] = cell[0] + x, cell[1] + n
    rates = ("pass", "satisfaction", "loss")
    return {key: (x, n) if key[0] in rates else (x,) for key, (x, n) in cells.items() if x or (n and key[0] in rates)}


_TOPIC_ORDER = ("inspections", "injuries", "complaints", "accidents", "surveys", "losses")


def _measured(topic: str, event: Mapping[str, Any]) -> tuple[int, int]:
    if topic == "inspections":
        return event["failed"], event["tested"]
    if topic == "surveys":
        return round(event["score"] * 100) * event["respondents"], event["respondents"]
    if topic == "losses":
        return round(event["loss_cny"]), round(event["output_cny"])
    return 1, 1


def cells_of(assess: Iterable[Assess]) -> Cells:
    """All non-zero counts of some partitions; a cell that two of them hold is an error."""
    out: Cells = {}
    for stage in assess:
        for name, store in stage.state.stores.items():
            blocks = sorted(store._blocks)
            if not blocks:
                continue
            first, last = blocks[0] * 64, blocks[-1] * 64 + 63
            counts = store.daily(np.arange(len(store)), last, last - first + 1)
            for row, column in np.argwhere(counts.any(axis=2)).tolist():
                key = (name, *store.cells[row], first + column)
                assert key not in out, f"two partitions count {key}"
                out[key] = tuple(counts[row, column].tolist())
    return out


# --- what came out -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Outcome:
    """The whole effect of a run in a form that can be compared."""

    alerts: list[str]
    signals: dict[tuple[Any, ...], str]
    dead: list[str]
    cells: Cells


def alert_texts(alerts: Iterable[Alert]) -> list[str]:
    """Alerts as JSON without the wall clock, by id and revision; a revision sent again must be the same."""
    held: dict[tuple[str, int], str] = {}
    for alert in alerts:
        text = msgspec.json.encode(msgspec.structs.replace(alert, emitted_at=None)).decode()
        assert held.setdefault((alert.id, alert.revision), text) == text
    for (name, revision), text in held.items():
        assert revision == 1 or (name, revision - 1) in held, f"a revision before {text} is lost"
    return [held[key] for key in sorted(held)]


def signal_texts(signals: Iterable[Signal]) -> dict[tuple[Any, ...], str]:
    held: dict[tuple[Any, ...], str] = {}
    for signal in signals:
        key = (signal.tick, signal.kind, signal.product, signal.region, signal.alert_id)
        text = msgspec.json.encode(signal).decode()
        assert held.setdefault(key, text) == text
    return held


def outcome(
    alerts: Iterable[Alert], signals: Iterable[Signal], dead: Iterable[DeadLetter], assess: Iterable[Assess]
) -> Outcome:
    letters = sorted({msgspec.json.encode(letter).decode() for letter in dead})
    return Outcome(alert_texts(alerts), signal_texts(signals), letters, cells_of(assess))


# --- drivers -------------------------------------------------------------------------------------------------------


def plain_run(world: World, *, batch: int = 5_000, seed: int | None = None) -> tuple[Outcome, list[Alert]]:
    """One partition, no crash. Batches come slowest origin first, or with ``seed`` in a shuffled order."""
    pipeline = Pipeline(world.config, world.catalogue, tuple(world.raw))
    step = feed_all(pipeline, world.raw, batch=batch, seed=seed)
    return outcome(step.alerts, step.signals, step.dead, [pipeline.assess]), step.alerts


def feed_all(pipeline: Pipeline, raw: Raw, *, batch: int = 5_000, seed: int | None = None) -> Any:
    """Feed every record, mark every origin complete, close all; returns what came out."""
    rng = random.Random(seed)
    at = dict.fromkeys(raw, 0)
    pending = [origin for origin in sorted(raw) if raw[origin]]
    for origin in raw:
        if not raw[origin]:
            pipeline.mark(origin, COMPLETE)
    while pending:
        origin = pipeline.assess.watermarks.slowest(tuple(pending)) if seed is None else rng.choice(pending)
        records = raw[origin][at[origin] : at[origin] + batch]
        pipeline.feed(origin, records)
        at[origin] += len(records)
        if at[origin] >= len(raw[origin]):
            pending.remove(origin)
            pipeline.mark(origin, COMPLETE)
        pipeline.close(rng.choice((None, 1, 3)) if seed is not None else None)
    while pipeline.close(7).ticks:
        pass
    pipeline.close()
    return pipeline.take()


@dataclass(slots=True)
class _Keyed:
    """A message of keyed-events: an origin's rows for one partition, its watermark and its last arrival."""

    origin: Origin
    packed: bytes
    mark: int
    last: int
    next_offset: int


@dataclass(slots=True)
class _Worker:
    assess: Assess
    at: int = 0
    store: Store = field(default_factory=Store)
    committed: int = 0


class Cluster:
    """Intake, P assess workers and escalate over logs, with checkpoints and crashes as in DESIGN.md section 5."""

    def __init__(self, config: Config, catalogue: Catalogue, origins: Sequence[Origin], partitions: int) -> None:
        self._config, self._catalogue, self._origins = config, catalogue, tuple(origins)
        self._partitions = partitions
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._intake = Intake(config, catalogue)
        self.keyed: list[list[_Keyed]] = [[] for _ in range(partitions)]
        self.reports: list[Any] = []
        self.workers = [_Worker(self._new_assess()) for _ in range(partitions)]
        self.escalate, self._read = self._new_escalate(), 0
        self._saved: tuple[int, bytes] | None = None
        self._oversight: bytes | None = None
        self.alerts: list[Alert] = []
        self.signals: list[Signal] = []
        self.dead: list[DeadLetter] = []

    def _new_assess(self) -> Assess:
        return Assess(self._config, self._catalogue, self._origins)

    def _new_escalate(self) -> Escalate:
        return Escalate(self._config, self._catalogue, self._partitions)

    # intake

    def feed(self, origin: Origin, records: Sequence[LogRecord], running_max: int, *, last: bool) -> int:
        """Intake of one batch; returns the running maximum after it."""
        result = self._intake.process(origin, records, running_max)
        self.dead += result.dead
        self.signals += result.grave
        self.reports += [("grave", msgspec.json.encode(signal)) for signal in result.grave]
        self.reports += [("disposition", arrival, d) for arrival, d in result.dispositions]
        mark = COMPLETE if last else result.last_arrival
        for partition, part in route(result, self._partitions).items():
            message = _Keyed(origin, part.pack(), mark, result.last_arrival, result.next_offset)
            self.keyed[partition].append(message)
        return result.last_arrival

    def idle(self, origin: Origin, last: int) -> None:
        """Say again that an origin is exhausted: a worker that came back may not know it any more."""
        for log in self.keyed:
            log.append(_Keyed(origin, EventColumns.empty().pack(), COMPLETE, last, -1))

    # assess

    def assess(self, partition: int, messages: int, limit: int | None = None) -> bool:
        """Let one worker read some messages and close what it can; False when it had nothing to do."""
        worker = self.workers[partition]
        todo = self.keyed[partition][worker.at : worker.at + messages]
        for message in todo:
            late = worker.assess.offer(message.origin, EventColumns.unpack(message.packed))
            assert not len(late), "what was folded before a crash is taken for new"
            worker.assess.watermarks.advance(message.origin, message.mark, message.last)
        worker.at += len(todo)
        closed = worker.assess.close(limit)
        self.signals += closed.signals
        if closed.through is not None:
            packed = [msgspec.json.encode(signal) for signal in closed.signals]
            told = [msgspec.json.encode(Told(tick, tally)) for tick, tally in closed.tallies]
            self.reports.append(("closed", partition, closed.through, packed, told))
        return bool(todo or closed.ticks)

    def checkpoint(self, partition: int) -> None:
        """Store the segment and the progress, and commit the position below the oldest event that waits."""
        worker = self.workers[partition]
        worker.store.keep(worker.assess.checkpoint())
        worker.committed = worker.at
        for origin in self._origins:
            oldest = worker.assess.oldest_waiting(origin)
            if oldest is not None:
                log = self.keyed[partition]
                first = next(n for n, m in enumerate(log) if m.origin == origin and m.next_offset > oldest[0])
                worker.committed = min(worker.committed, first)

    def crash(self, partition: int) -> None:
        """Lose the worker's memory; take up its last checkpoint and read again from there."""
        held = self.workers[partition]
        fresh = _Worker(held.store.restored(self._new_assess()), held.committed, held.store, held.committed)
        self.workers[partition] = fresh

    # escalate

    def escalate_some(self, messages: int) -> bool:
        todo = self.reports[self._read : self._read + messages]
        self._read += len(todo)
        for message in todo:
            if message[0] == "grave":
                self.alerts += self.escalate.grave(msgspec.json.decode(message[1], type=Signal))
            elif message[0] == "disposition":
                self.escalate.dispose(message[1], message[2])
            else:
                signals = [msgspec.json.decode(packed, type=Signal) for packed in message[3]]
                told = [msgspec.json.decode(packed, type=Told) for packed in message[4]]
                self.escalate.offer(message[1], message[2], signals, [(one.tick, one.tally) for one in told])
            self.alerts += self.escalate.close()
        return bool(todo)

    def save_escalate(self) -> None:
        self._saved = (self._read, self.escalate.snapshot())
        # Written only where it has changed, as both runtimes do it.
        self._oversight = self.escalate.oversight.snapshot() or self._oversight

    def crash_escalate(self) -> None:
        self.escalate, self._read = self._new_escalate(), 0
        if self._saved is not None:
            self._read = self._saved[0]
            self.escalate.restore(self._saved[1])
        if self._oversight is not None:
            self.escalate.oversight.restore(self._oversight)

    def outcome(self) -> Outcome:
        return outcome(self.alerts, self.signals, self.dead, [worker.assess for worker in self.workers])


def cluster_run(world: World, partitions: int, seed: int, *, batch: int = 40, crashes: float = 0.0) -> Cluster:
    """Run a cluster with every stage at its own pace in a shuffled order, crashing with some probability a step."""
    rng = random.Random(seed)
    cluster = Cluster(world.config, world.catalogue, tuple(world.raw), partitions)
    at = dict.fromkeys(world.raw, 0)
    marks = dict.fromkeys(world.raw, -COMPLETE)
    pending = sorted(world.raw)
    while pending:
        origin = rng.choice(pending)
        count = rng.randrange(1, 2 * batch)
        records = world.raw[origin][at[origin] : at[origin] + count]
        last = at[origin] + count >= len(world.raw[origin])
        if not last and rng.random() < crashes:
            cluster.feed(origin, records, marks[origin], last=False)  # sent, not committed: sent again
        marks[origin] = cluster.feed(origin, records, marks[origin], last=last)
        at[origin] += count
        if last:
            pending.remove(origin)
        for partition in range(partitions):
            _maybe(cluster, partition, rng, crashes)
        if rng.random() < 0.5:
            cluster.escalate_some(rng.randrange(1, 9))
        if rng.random() < 0.2:
            cluster.save_escalate()
        if rng.random() < crashes:
            cluster.crash_escalate()
    for partition in range(partitions):
        for _ in range(9):
            _maybe(cluster, partition, rng, crashes / 2)
    for origin in sorted(marks, key=lambda _: rng.random()):
        cluster.idle(origin, marks[origin])
    rest = list(range(partitions))
    while rest:
        partition = rng.choice(rest)
        if not cluster.assess(partition, 5, rng.choice((None, 5))):
            rest.remove(partition)
    while cluster.escalate_some(13):
        if rng.random() < crashes / 4:
            cluster.crash_escalate()
        elif rng.random() < 0.3:
            cluster.save_escalate()
    return cluster


def _maybe(cluster: Cluster, partition: int, rng: random.Random, crashes: float) -> None:
    if rng.random() < 0.5:
        cluster.assess(partition, rng.randrange(1, 6), rng.choice((None, 1, 3)))
    if rng.random() < 0.3:
        cluster.checkpoint(partition)
    if rng.random() < crashes:
        cluster.crash(partition)


def refused_in(world: World) -> set[tuple[Origin, int]]:
    """Where the records lie that intake refuses."""
    intake = Intake(world.config, world.catalogue)
    return {
        (origin, letter.offset)
        for origin, records in world.raw.items()
        for letter in intake.process(origin, records, -COMPLETE).dead
    }


def disposition(alert_id: str, action: str, name: str = "d1", at: int = START) -> Disposition:
    moment = datetime.fromtimestamp(at / 1_000, UTC)
    return msgspec.convert(
        {"disposition_id": name, "alert_id": alert_id, "action": action, "by": "officer", "at": moment}, Disposition
    )
