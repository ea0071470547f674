"""The transport on a real broker, in worker processes of their own.

Run as a program, this file *is* such a worker: it takes its orders as JSON and tells what happens to it, a
line of JSON an event. The tests read these lines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
Event = dict[str, Any]

# -- the worker


def tell(kind: str, **what: Any) -> None:
    print(json.dumps({"event": kind, "at": time.time(), **what}), flush=True)


def names(tps: Any) -> list[str]:
    return sorted(f"{tp.topic}:{tp.partition}" for tp in tps)


def work(orders: dict[str, Any]) -> None:
    """Be a worker: consume topics, one agent each, and do as told."""
    import faust
    from faust.types import TP

    from streams.transport import RecordBatch, consumer_of, make_app

    class Owner:
        async def on_assigned(self, tps: frozenset[TP], generation: int) -> Mapping[TP, int]:
            committed = await consumer_of(app).committed_offsets(tps)
            found = {f"{tp.topic}:{tp.partition}": value for tp, value in committed.items()}
            tell("assigned", generation=generation, tps=names(tps), committed=found)
            if orders.get("fail") == "hook":
                raise RuntimeError("told to fail in the hook")
            try:
                await asyncio.sleep(orders.get("restore", 0))
            except asyncio.CancelledError:
                tell("cancelled", generation=generation)
                raise
            tell("restored", generation=generation)
            return {tp: orders["starts"][key] for tp in tps if (key := names([tp])[0]) in orders.get("starts", {})}

        async def on_revoked(self, tps: frozenset[TP]) -> None:
            consumer = consumer_of(app)
            tell("revoked", tps=names(tps), generation=consumer.generation)
            if orders.get("commit_on_revoke"):
                offsets = {tp: (consumer.position(tp) or 0, "final") for tp in tps}
                tell("final", done=await consumer.commit_offsets(offsets, consumer.generation))

        async def on_end(self) -> None:
            tell("end")

    credentials = None
    if "user" in orders:
        credentials = faust.SASLCredentials(username=orders["user"], password=orders["password"], mechanism="PLAIN")
    app = make_app(
        orders["group"],
        orders["bootstrap"],
        owner=Owner(),
        credentials=credentials,
        session_timeout=orders.get("session_timeout", 6.0),
        rebalance_timeout=15.0,
        max_poll_interval=orders.get("max_poll_interval", 300.0),
        group_instance_id=orders.get("instance"),
        max_partition_fetch_bytes=orders.get("fetch_bytes", 1024 * 1024),
    )

    async def handle(batch: RecordBatch) -> None:
        consumer = consumer_of(app)
        tell(
            "batch",
            tp=names([batch.tp])[0],
            generation=batch.generation,
            current=consumer.is_current(batch),
            offsets=[r.offset for r in batch.records] if orders.get("offsets") else None,
            values=[r.value and r.value.decode() for r in batch.records] if orders.get("values") else None,
            first=batch.first_offset,
            last=batch.records[-1].offset,
            next=batch.next_offset,
            end=batch.end_offset,
            unfinished=consumer.ledger.unfinished(batch.tp),
            position=consumer.position(batch.tp),
        )
        if orders.get("fail") == "agent" and batch.next_offset > orders["fail_at"]:
            raise RuntimeError("told to fail in the agent")
        if orders.get("fail") == "cancelled":
            raise asyncio.CancelledError("told to fail by cancellation")
        await asyncio.sleep(orders.get("slow", 0))
        if orders.get("commit"):
            to = orders.get("commit_to", batch.next_offset)
            metadata = orders.get("metadata", "")
            done = await consumer.commit_offsets({batch.tp: (to, metadata)}, batch.generation)
            tell("commit", tp=names([batch.tp])[0], first=batch.first_offset, next=to, done=done)

    for topic in orders["topics"]:

        @app.agent(app.topic(topic), name=f"agent-{topic}")
        async def agent(stream: Any) -> None:
            async for batch in stream:
                await handle(batch)

    @app.timer(0.5)
    async def report() -> None:
        consumer = consumer_of(app)
        if orders.get("fail") == "timer":
            raise RuntimeError("told to fail in a timer")
        tps = consumer.ledger.tps
        ends = await consumer.fetch_end_offsets(tps)
        there = {tp: (consumer.position(tp), end) for tp, end in ends.items()}
        caught_up = bool(there) and all(p is not None and p >= end for p, end in there.values())
        at = {names([tp])[0]: value for tp, value in there.items()}
        tell("report", caught_up=caught_up, positions=at, generation=consumer.generation)

    faust.Worker(app, loglevel=orders.get("loglevel", "WARN")).execute_from_commandline()


# -- and the tests


class Worker:
    """A worker process, and what it told."""

    def __init__(self, directory: Path, name: str, orders: Mapping[str, Any]) -> None:
        self.name = name
        self.out, self.err = directory / f"{name}.out", directory / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, __file__, json.dumps(orders)], stdout=out, stderr=err, cwd=ROOT
            )

    def events(self, kind: str | None = None) -> list[Event]:
        lines = self.out.read_text().splitlines(keepends=True)
        # Faust's spinner may have written a few control characters before an event.
        events = [json.loads(line[line.index("{") :]) for line in lines if line.endswith("}\n")]
        return [event for event in events if kind is None or event["event"] == kind]

    def wait_for(self, true: Callable[[list[Event]], object], seconds: float = 40) -> list[Event]:
        """Wait until the events show something; return them."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            events = self.events()
            if true(events):
                return events
            if self.process.poll() is not None and not true(self.events()):
                break
            time.sleep(0.05)
        pytest.fail(f"{self.name} did not come so far: {self.events()[-5:]}\n{self.err.read_text()[-3000:]}")

    def caught_up(self, seconds: float = 40) -> list[Event]:
        """Wait for a report, from now on, that everything has been read."""
        now = time.time()
        return self.wait_for(lambda events: any(e.get("caught_up") and e["at"] > now for e in events), seconds)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(30)


class Crew:
    """Starts workers of one group on one set of topics, and ends them with the test."""

    def __init__(self, directory: Path, bootstrap: str, prefix: str) -> None:
        self.directory, self.bootstrap, self.group = directory, bootstrap, prefix
        self.workers: list[Worker] = []
        self.topics: list[str] = []

    def topic(self, name: str, partitions: int) -> str:
        from broker import create_topics

        topic = f"{self.group}-{name}"
        create_topics(self.bootstrap, topic, partitions=partitions)
        self.topics.append(topic)
        return topic

    def fill(self, topic: str, counts: Mapping[int, int], start: int = 0) -> None:
        """Send so many records to each partition; the value is the offset that each will have."""
        from kafka import KafkaProducer

        # Small producer batches: the broker does not divide them, however little a consumer asks for.
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5, batch_size=1024)
        for partition, count in counts.items():
            for n in range(start, start + count):
                producer.send(topic, str(n).encode(), partition=partition)
        producer.flush()
        producer.close()

    def start(self, **orders: Any) -> Worker:
        said = {"group": self.group, "bootstrap": self.bootstrap, "topics": self.topics, **orders}
        worker = Worker(self.directory, f"worker-{len(self.workers)}", said)
        self.workers.append(worker)
        return worker

    def committed(self) -> dict[str, tuple[int, str]]:
        """Ask with another client what the group has committed."""
        from kafka import KafkaAdminClient

        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            found = admin.list_group_offsets(self.group)
        finally:
            admin.close()
        found = found.get(self.group, found)
        return {f"{tp.topic}:{tp.partition}": (o.offset, o.metadata) for tp, o in found.items() if o.offset >= 0}

    def end(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.process.kill()
            worker.process.wait(10)


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
    sys.exit()

pytestmark = pytest.mark.kafka


@pytest.fixture
def crew(tmp_path: Path, kafka: Any, topic_prefix: str) -> Iterator[Crew]:
    crew = Crew(tmp_path, kafka.bootstrap, topic_prefix)
    yield crew
    crew.end()


def batches(events: list[Event]) -> dict[str, list[Event]]:
    """The batches handed over, by partition."""
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event["event"] == "batch":
            found[event["tp"]].append(event)
    return found


def test_every_record_comes_once_and_in_order_tombstones_too(crew: Crew) -> None:
    from kafka import KafkaProducer

    topic = crew.topic("t", 4)
    counts = {0: 3000, 1: 1, 2: 500}
    crew.fill(topic, counts)
    producer = KafkaProducer(bootstrap_servers=crew.bootstrap)
    producer.send(topic, key=b"gone", value=None, partition=3).get(10)
    producer.close()
    worker = crew.start(values=True, fetch_bytes=4096)
    events = worker.caught_up()
    assert worker.stop() == 0
    values = {tp: [v for b in found for v in b["values"]] for tp, found in batches(events).items()}
    expected: dict[str, list[Any]] = {f"{topic}:{p}": [str(n) for n in range(c)] for p, c in counts.items()}
    assert values == {**expected, f"{topic}:3": [None]}
    assert all(b["current"] for found in batches(events).values() for b in found)


def test_a_commit_is_exact_and_survives(crew: Crew) -> None:
    topic = crew.topic("t", 1)
    crew.fill(topic, {0: 100})
    worker = crew.start(commit=True, commit_to=37, metadata="tick=12;max=1700")
    worker.wait_for(lambda events: any(e["event"] == "commit" and e["done"] for e in events))
    worker.stop()
    assert crew.committed() == {f"{topic}:0": (37, "tick=12;max=1700")}
    again = crew.start()
    events = again.caught_up()
    assert events[0]["committed"] == {f"{topic}:0": [37, "tick=12;max=1700"]}
    assert batches(events)[f"{topic}:0"][0]["first"] == 37
    again.stop()
    assert crew.committed() == {f"{topic}:0": (37, "tick=12;max=1700")}


def test_nothing_is_committed_but_by_us(crew: Crew) -> None:
    topic = crew.topic("t", 4)
    crew.fill(topic, dict.fromkeys(range(4), 200))
    first = crew.start()
    first.caught_up()
    second = crew.start()
    second.caught_up()
    assert first.stop() == 0
    second.caught_up()
    assert second.stop() == 0
    assert crew.committed() == {}


def test_a_long_restore_keeps_the_gate_shut_and_the_membership(crew: Crew) -> None:
    topic = crew.topic("t", 2)
    crew.fill(topic, {0: 100, 1: 100})
    worker = crew.start(restore=9, session_timeout=6.0, max_poll_interval=4.0, starts={f"{topic}:1": 60}, offsets=True)
    events = worker.caught_up()
    worker.stop()
    assert [e["generation"] for e in events if e["event"] == "assigned"] == [1]
    restored = next(e["at"] for e in events if e["event"] == "restored")
    handed = batches(events)
    assert min(b["at"] for found in handed.values() for b in found) > restored
    assert [o for b in handed[f"{topic}:0"] for o in b["offsets"]] == list(range(100))
    assert [o for b in handed[f"{topic}:1"] for o in b["offsets"]] == list(range(60, 100))


def test_a_restore_is_cancelled_when_the_partitions_go(crew: Crew) -> None:
    crew.topic("t", 2)
    first = crew.start(restore=60)
    first.wait_for(lambda events: events)
    crew.start()
    events = first.wait_for(lambda events: any(e["event"] == "assigned" and e["generation"] == 2 for e in events))
    kinds = [e["event"] for e in events if e["event"] != "report"]
    assert kinds == ["assigned", "cancelled", "revoked", "assigned"]


def test_an_agent_finishes_and_commits_what_it_holds_before_the_partitions_go(crew: Crew) -> None:
    topic = crew.topic("t", 2)
    crew.fill(topic, {0: 5000, 1: 5000})
    first = crew.start(commit=True, slow=3, fetch_bytes=2048, commit_on_revoke=True)
    first.wait_for(lambda events: batches(events))
    crew.start()
    events = first.wait_for(lambda events: sum(e["event"] == "assigned" for e in events) == 2)
    events = [e for e in events if e["event"] != "report"]
    again = next(n for n, e in enumerate(events) if e["event"] == "assigned" and e["generation"] == 2)
    events = events[: again + 1]
    kinds = [e["event"] for e in events]
    handed = kinds.count("batch")
    assert kinds == ["assigned", "restored", *["batch", "commit"] * handed, "revoked", "final", "assigned"]
    assert [e["done"] for e in events if e["event"] in ("commit", "final")] == [True] * (handed + 1)


def test_a_stop_during_a_restore_is_clean(crew: Crew) -> None:
    crew.topic("t", 1)
    worker = crew.start(restore=60)
    worker.wait_for(lambda events: events)
    assert worker.stop() == 0
    assert [e["event"] for e in worker.events()] == ["assigned", "cancelled", "revoked", "end"]


def check_crew(crew: Crew, counts: Mapping[str, int]) -> None:
    """Each worker sees only what it owns; no two commit the same records."""
    tiles: dict[str, list[tuple[int, int]]] = defaultdict(list)
    seen: dict[str, set[int]] = defaultdict(set)
    for worker in crew.workers:
        owned: tuple[int, set[str]] = (0, set())
        for event in worker.events():
            if event["event"] == "assigned":
                owned = (event["generation"], set(event["tps"]))
            elif event["event"] == "revoked":
                owned = (event["generation"], set())
            elif event["event"] == "batch":
                assert (event["generation"], event["current"]) == (owned[0], True)
                assert event["tp"] in owned[1]
                seen[event["tp"]].update(range(event["first"], event["next"]))
            elif event["event"] == "commit" and event["done"]:
                tiles[event["tp"]].append((event["first"], event["next"]))
    assert {tp: len(offsets) for tp, offsets in seen.items()} == counts
    for tp, pieces in tiles.items():
        pieces.sort()
        for (_, before), (after, _) in pairwise(pieces):
            assert after >= before, f"{tp}: two owners committed the same records"


class Feed(threading.Thread):
    """Sends the same number of records to every partition, again and again, until it is stopped."""

    def __init__(self, crew: Crew, partitions: Mapping[str, int]) -> None:
        super().__init__()
        self.crew, self.partitions = crew, partitions
        self.sent = 0
        self.enough = threading.Event()

    def run(self) -> None:
        from kafka import KafkaProducer

        producer = KafkaProducer(bootstrap_servers=self.crew.bootstrap, linger_ms=5)
        while not self.enough.wait(0.05):
            for topic, count in self.partitions.items():
                for partition in range(count):
                    for n in range(self.sent, self.sent + 10):
                        producer.send(topic, str(n).encode(), partition=partition)
            self.sent += 10
        producer.close()

    def stop(self) -> int:
        self.enough.set()
        self.join()
        return self.sent


def test_workers_join_and_leave_and_nothing_is_lost_or_shared(crew: Crew) -> None:
    partitions = {crew.topic("t", 6): 6, crew.topic("s", 1): 1}
    orders = {"commit": True, "slow": 0.01, "fetch_bytes": 2048}
    feed = Feed(crew, partitions)
    feed.start()

    def join() -> Worker:
        worker = crew.start(**orders)
        worker.wait_for(lambda events: len(batches(events)) > 1)
        return worker

    try:
        first, second, third = join(), join(), join()
        assert second.stop() == 0
        join()
        third.stop(signal.SIGKILL)
        fifth = join()
        assert first.stop() == 0
        fifth.wait_for(lambda events: sum(e["event"] == "assigned" for e in events) > 1)
    finally:
        sent = feed.stop()
    everything = {f"{topic}:{p}": sent for topic, count in partitions.items() for p in range(count)}
    left = [worker for worker in crew.workers if worker.process.poll() is None]
    for worker in left:
        worker.caught_up(90)
    assert [worker.stop() for worker in left] == [0, 0]
    assert {tp: offset for tp, (offset, _) in crew.committed().items()} == everything
    check_crew(crew, everything)


@pytest.mark.parametrize("where", ["agent", "hook", "timer"])
def test_a_failure_ends_the_process_loudly_and_commits_nothing(crew: Crew, where: str) -> None:
    topic = crew.topic("t", 1)
    crew.fill(topic, {0: 1000})
    worker = crew.start(fail=where, fail_at=500, commit=where == "agent", fetch_bytes=4096)
    assert worker.process.wait(40) == 1
    assert f"told to fail in {'the ' if where != 'timer' else 'a '}{where}" in worker.err.read_text()
    assert "Traceback" in worker.err.read_text()
    done = [e["next"] for e in worker.events("commit")]
    assert {tp: o for tp, (o, _) in crew.committed().items()} == ({f"{topic}:0": done[-1]} if done else {})
    if where == "agent":
        assert done[-1] <= 500
        assert batches(worker.events())[f"{topic}:0"][-1]["first"] == done[-1]


def test_a_cancelled_agent_is_not_restarted_past_its_batch(crew: Crew) -> None:
    crew.fill(crew.topic("t", 1), {0: 1000})
    worker = crew.start(fail="cancelled", fetch_bytes=1024)
    assert worker.process.wait(40) == 1
    assert len(worker.events("batch")) == 1


def test_an_outage_of_the_broker_is_survived(tmp_path: Path, own_kafka: Any) -> None:
    crew = Crew(tmp_path, own_kafka.bootstrap, "outage")
    topic = crew.topic("t", 2)
    worker = crew.start(commit=True)
    try:
        worker.caught_up()
        own_kafka.kill()
        time.sleep(8)
        own_kafka.start()
        crew.fill(topic, {0: 100, 1: 100})
        worker.wait_for(lambda events: sum(e["event"] == "commit" and e["next"] == 100 for e in events) == 2)
        own_kafka.kill()
        assert worker.stop() == 0
    finally:
        crew.end()


def test_a_slow_agent_bounds_what_is_fetched(crew: Crew) -> None:
    topic = crew.topic("t", 2)
    crew.fill(topic, {0: 20_000, 1: 20_000})
    worker = crew.start(slow=0.3, fetch_bytes=2048)
    events = worker.wait_for(lambda events: sum(e["event"] == "batch" for e in events) >= 24)
    unfinished = [e["unfinished"] for e in events if e["event"] == "batch"]
    assert 2 < max(unfinished) <= 8
    assert all(e["position"] == e["first"] for e in events if e["event"] == "batch")
    assert worker.stop() == 0


def test_the_end_is_known_behind_transaction_markers(crew: Crew) -> None:
    from aiokafka import AIOKafkaProducer

    topic = crew.topic("t", 1)

    async def transactions() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=crew.bootstrap, transactional_id=crew.group)
        await producer.start()
        for n, good in enumerate([True, False, True, False]):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, f"{n}".encode(), partition=0)
            await (producer.commit_transaction() if good else producer.abort_transaction())
        await producer.stop()

    asyncio.run(transactions())
    worker = crew.start(values=True)
    events = worker.caught_up()
    assert worker.stop() == 0
    assert [v for b in batches(events)[f"{topic}:0"] for v in b["values"]] == ["0", "2"]
    assert batches(events)[f"{topic}:0"][-1]["next"] == 8
    assert worker.events("report")[-1]["positions"] == {f"{topic}:0": [8, 8]}


def test_partitions_are_spread_and_mostly_stay(crew: Crew) -> None:
    raw = [crew.topic(f"raw{n}", 4) for n in range(6)]
    keyed, signals = crew.topic("keyed", 4), crew.topic("signals", 1)
    workers = [crew.start()]
    workers[0].wait_for(lambda events: events)
    for _ in range(2):
        workers.append(crew.start())
        workers[-1].wait_for(lambda events: any(e["event"] == "assigned" and e["tps"] for e in events))
        time.sleep(3)
    held = [set(worker.events("assigned")[-1]["tps"]) for worker in workers]
    assert set.union(*held) == {f"{t}:{p}" for t in [*raw, keyed] for p in range(4)} | {f"{signals}:0"}
    assert sum(map(len, held)) == 29
    for topic in [*raw, keyed]:
        assert sorted(sum(tp.startswith(topic) for tp in tps) for tps in held) == [1, 1, 2]


def test_static_members_come_back_to_their_partitions(crew: Crew) -> None:
    topic = crew.topic("t", 4)
    crew.fill(topic, dict.fromkeys(range(4), 50))
    orders = {"commit": True, "session_timeout": 20.0}
    first, second = (crew.start(instance=f"w{n}", **orders) for n in range(2))
    for worker in (first, second):
        worker.wait_for(lambda events: any(e["event"] == "assigned" and len(e["tps"]) == 2 for e in events))
    before = {e["generation"] for e in second.events("assigned")}
    mine = first.events("assigned")[-1]["tps"]
    first.stop(signal.SIGKILL)
    back = crew.start(instance="w0", **orders)
    back.wait_for(lambda events: any(e["event"] == "assigned" for e in events))
    assert back.events("assigned")[0]["tps"] == mine
    print("static: second's generations", before, {e["generation"] for e in second.events("assigned")})


def test_credentials_reach_the_broker(crew: Crew, kafka: Any) -> None:
    from broker import PASSWORD, USER

    topic = crew.topic("t", 1)
    crew.fill(topic, {0: 10})
    worker = crew.start(bootstrap=kafka.sasl_bootstrap, user=USER, password=PASSWORD)
    events = worker.caught_up()
    assert batches(events)[f"{topic}:0"][-1]["next"] == 10
