"""More than can be worked off, more of one thing than of all others, and more names than there are things.

The embedded run is a process as a user starts it, with its metrics switched on; what is measured is what the kernel
says of its memory (RSS and its peak) and what Prometheus would see. ``TOCSIN_LONG=1`` measures at full size, and ``-s``
shows the figures.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from law import DAY, LONG, Dataset, Group, Worker, read
from prometheus_client.parser import text_string_to_metric_families

from streams import datadir
from streams.config import Config
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing
from tests.ports import free_port

NEW_YEAR = 1_704_038_400_000
CODES = ("F0101", "F0102", "A0101", "N0101", "L0101", "T0701")
REGIONS = ("120101", "120102", "120103", "120104", "120105", "120106")
BURST = 1_000_000 if LONG else 200_000
NAMES = 1_000_000 if LONG else 20_000
MB = 1 << 20
SUSTAINED = 800
"""Records a second that a worker takes which is to be outrun ten times."""


def complaints(
    count: int, products: Iterable[str], days: int = 30, *, since: int = NEW_YEAR
) -> Iterator[list[Outgoing]]:
    """Complaints about these products in turn, evenly over some days, in batches."""
    encode, zone = msgspec.json.encode, timezone(timedelta(hours=8))
    batch: list[Outgoing] = []
    for number, product in zip(range(count), products, strict=False):
        time_ms = since + number * days * DAY // count
        event = {
            "event_id": f"{since}-{number}", "source": "hotline", "channel": "12315", "product": product,
            "region": REGIONS[number % len(REGIONS)],
            "reported_at": datetime.fromtimestamp(time_ms / 1_000, zone).isoformat(),
        }  # fmt: skip
        batch.append(Outgoing(time_ms, product.encode(), encode(event)))
        if len(batch) == 5_000:
            yield batch
            batch = []
    yield batch


def in_turn(codes: tuple[str, ...], count: int) -> Iterator[str]:
    return (codes[number % len(codes)] for number in range(count))


@dataclass
class Watch:
    """A run under watch: the most that it lagged, what memory it took, and its counters in the end."""

    worker: Worker
    port: int
    lag: float = 0.0
    at_rest: int = 0
    seen: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.look()

    def look(self) -> None:
        """Take a measure."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                text = answer.read().decode()
        except OSError:
            return
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
        self.seen = found
        self.lag = max(self.lag, found.get("tocsin_consumer_lag_records", 0.0))

    def _memory(self, name: str) -> int:
        text = Path(f"/proc/{self.worker.process.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(name))

    def settle(self) -> None:
        """Wait until it has begun, and note what it takes before the load."""
        self.wait(lambda: bool(self.seen))
        self.at_rest = self._memory("VmRSS")

    def wait(self, until: Callable[[], object], seconds: float = 600 if LONG else 300) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            assert self.worker.alive, self.worker.tail()
            assert time.monotonic() < deadline, f"{self.seen}\n{self.worker.tail()}"
            time.sleep(0.05)

    def drained(self, records: int, rows: int, letters: int = 0) -> None:
        """Wait until so many records are read, nothing is left, so many events are folded and so many refused."""
        least = {
            "tocsin_events_total": records,
            "tocsin_state_rows": rows,
            "tocsin_dead_letters_total": letters,
            "tocsin_checkpoints_total": 1,
        }

        def idle() -> bool:
            seen = self.seen
            done = all(seen.get(name, 0.0) >= count for name, count in least.items())
            return done and seen["tocsin_consumer_lag_records"] == 0.0

        self.wait(idle)

    def grown(self) -> int:
        """How much its memory has grown under the load, at its peak."""
        return self._memory("VmHWM") - self.at_rest

    def close(self) -> None:
        """End the run and the thread that looks at it; a check that failed must leave neither behind."""
        self._stop.set()
        self._thread.join(10)
        self.worker.process.kill()
        self.worker.process.wait(10)


class Site:
    """A data directory with a run on it."""

    def __init__(self, folder: Path, **config: Any) -> None:
        folder.mkdir()
        file = folder / "wanted.toml"
        file.write_text(datadir.to_toml(Config().replace(tick_seconds=86_400, **config)), "utf-8")
        self.data = folder / "data"
        self.config = datadir.settle(self.data, datadir.Wanted(file=file))
        self.log = SqliteLog(self.data, self.config.partitions)
        port = free_port()
        command = [sys.executable, "-m", "streams.cli", "run", "--data", str(self.data), "--metrics-port", str(port)]
        self.watch = Watch(Worker(command, folder / "run.log"), port)

    def send(self, batches: Iterable[list[Outgoing]]) -> tuple[int, float]:
        """Publish as fast as it goes; how many records, and a second's share of them."""
        medium, sent, took = EmbeddedMedium(self.log), 0, 0.0
        for batch in batches:
            began = time.monotonic()
            medium.write("complaints", batch)
            took += time.monotonic() - began
            sent += len(batch)
        return sent, sent / took

    def letters(self) -> int:
        return sum(self.log.ends(["dead-letters"]).values())

    def close(self) -> None:
        self.watch.close()
        self.log.close()


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[Any]:
    with ExitStack() as made:

        def make(name: str, **config: Any) -> Site:
            site = made.enter_context(closing(Site(tmp_path / name, **config)))
            site.watch.settle()
            return site

        yield make


def test_a_burst_shows_as_lag_takes_bounded_memory_and_is_worked_off(sites: Any) -> None:
    """The same for a burst in which nine events of ten are about one product."""
    told = {}
    for name, codes in {"even": CODES, "hot": (CODES[0],) * 9 + CODES[1:2]}.items():
        site = sites(name)
        began = time.monotonic()
        sent, rate = site.send(list(complaints(BURST, in_turn(codes, BURST))))
        site.watch.drained(sent, sent)
        worked = sent / (time.monotonic() - began)
        told[name] = site.watch.grown()
        print(
            f"{name}: {sent:,} records published at {rate:,.0f}/s, worked off at {worked:,.0f}/s; the lag reached "
            f"{site.watch.lag:,.0f} records, memory {site.watch.at_rest / MB:.0f} MB at rest, "
            f"+{told[name] / MB:.0f} MB at its peak"
        )
        assert site.watch.lag > 0.05 * sent  # what a look ten times a second may catch of it
        assert site.watch.seen["tocsin_state_rows"] == sent
        # What is held of an event, at most twice (arrays grow by copying), and what a batch and a checkpoint take.
        assert told[name] < 60 * MB + 600 * sent
        # It is well, and goes on.
        more, _ = site.send(complaints(100, in_turn(codes, 100), 1, since=NEW_YEAR + 40 * DAY))
        site.watch.drained(sent + more, sent + more)
        assert site.watch.seen["tocsin_state_rows"] == sent + more
        site.close()
    assert told["hot"] < 1.5 * told["even"] + 20 * MB


def test_names_that_no_catalogue_knows_are_refused_and_take_no_memory(sites: Any) -> None:
    site = sites("closed")
    sent, _ = site.send(complaints(NAMES, (f"X{number:07d}" for number in range(NAMES))))
    site.watch.drained(sent, 0, sent)
    grown = site.watch.grown()
    print(f"closed catalogue: {sent:,} unknown product codes, all refused; +{grown / MB:.0f} MB")
    assert site.letters() == site.watch.seen["tocsin_dead_letters_total"] == sent
    assert site.watch.seen["tocsin_state_rows"] == 0
    assert grown < 80 * MB


def test_names_that_are_learned_are_bounded_and_what_is_beyond_the_bound_still_counts(sites: Any) -> None:
    bound = 200
    site = sites("open", catalogue="open", intake={"max_codes_per_shard": bound})
    half = NAMES // 2
    names = [f"X{number:07d}" for number in range(NAMES)]
    batches = list(complaints(NAMES, names))
    site.send(batches[: len(batches) // 2])
    site.watch.drained(half, half)
    cells, before = site.watch.seen["tocsin_cells"], site.watch.grown()
    site.send(batches[len(batches) // 2 :])
    site.watch.drained(NAMES, NAMES)
    grown = site.watch.grown()
    print(
        f"open catalogue: {NAMES:,} product codes, {bound} a shard; {site.watch.seen['tocsin_cells']:,.0f} cells, "
        f"+{before / MB:.0f} MB after half of them, +{grown / MB:.0f} MB after all"
    )
    assert site.watch.seen["tocsin_state_rows"] == NAMES
    assert site.letters() == 0
    assert site.watch.seen["tocsin_cells"] <= 1.1 * cells
    assert grown - before < 30 * MB + 600 * half


@pytest.fixture
def groups(kafka: Any, topic_prefix: str, tmp_path: Path) -> Iterator[Any]:
    """Makes a group with its topics, and puts the one worker that it starts under watch."""
    with ExitStack() as made:

        def make(config: Config, *, history: bool) -> tuple[Group, Callable[..., Watch]]:
            group = made.enter_context(
                closing(Group(kafka.bootstrap, topic_prefix, Dataset("burst", config, {}), tmp_path))
            )
            group.create(history=history)

            def start(**screws: Any) -> Watch:
                port = free_port()
                if screws:
                    worker = group.start(metrics_port=port, **screws)
                else:
                    worker = group.start_command("--metrics-port", str(port))
                watch = made.enter_context(closing(Watch(worker, port)))
                watch.settle()
                return watch

            return group, start

        yield make


def deaths(count: int, *, since: int) -> list[Outgoing]:
    """Each rings an alert of its own."""
    when = datetime.fromtimestamp(since / 1_000, timezone(timedelta(hours=8))).isoformat()
    common = {"source": "s", "reported_at": when, "product": "F0101", "region": "120101", "site": "hospital-1"}
    events = ({**common, "event_id": f"{since}-{number}", "severity": 4, "outcome": "died"} for number in range(count))
    return [Outgoing(since, str(number).encode(), msgspec.json.encode(event)) for number, event in enumerate(events)]


@pytest.mark.kafka
def test_more_alerts_may_stand_than_one_record_can_hold(groups: Any) -> None:
    """Some 1,300 bytes an alert: 8,000 are more than the 8 MB of the largest record that the broker takes."""
    group, start = groups(Config().replace(tick_seconds=60), history=False)
    count, now = 8_000, int(time.time() * 1_000)

    def work_off(alerts: int) -> None:
        watch = start()
        watch.wait(lambda: watch.seen.get("tocsin_open_alerts", 0.0) == alerts, 120)
        watch.wait(lambda: watch.seen.get("tocsin_consumer_lag_records") == 0.0, 120)  # it is told every two seconds
        assert watch.worker.stop() == 0

    group.publish({"injuries": deaths(count, since=now)})
    work_off(count)
    group.publish({"injuries": deaths(1, since=now + 1)})
    work_off(count + 1)  # it begins with what the first has stored
    written = [json.loads(record.value or b"") for record in read(group.medium, "emergency-response")]
    assert len({alert["id"] for alert in written}) == len(written) == count + 1


@pytest.mark.kafka
@pytest.mark.skipif(not LONG, reason="takes minutes: set TOCSIN_LONG=1")
def test_a_burst_on_kafka_shows_as_lag_takes_bounded_memory_and_is_worked_off(groups: Any) -> None:
    """The burst is there at once: the worker starts on a million records that were published before."""
    group, start = groups(Config().replace(tick_seconds=86_400), history=True)
    batches = list(complaints(BURST, in_turn(CODES, BURST)))
    began = time.monotonic()
    group.publish({"complaints": [record for batch in batches for record in batch]})
    published = time.monotonic() - began
    began = time.monotonic()
    watch = start()
    # Lag shows once it has its partitions. Not before: a group that nobody has joined has no coordinator to ask.
    watch.wait(lambda: watch.lag > 0)
    watch.wait(group.done)
    worked = time.monotonic() - began
    print(
        f"kafka: {BURST:,} records published at {BURST / published:,.0f}/s, worked off at {BURST / worked:,.0f}/s; "
        f"the lag reached {watch.lag:,.0f} records, memory {watch.at_rest / MB:.0f} MB at rest, "
        f"+{watch.grown() / MB:.0f} MB at its peak"
    )
    assert watch.lag > 0.2 * BURST
    watch.wait(lambda: watch.seen["tocsin_state_rows"] >= BURST)  # a scrape may be older than the end
    assert watch.seen["tocsin_state_rows"] == BURST
    # A row of the ledger with its index has some 90 bytes; arrays grow by half, and by copying. The burst itself would
    # be twice as much: a record has 250 bytes, and as an object in memory 400 more.
    assert watch.grown() < 150 * MB + 250 * BURST
    assert watch.worker.stop() == 0


def paced(group: Group, batches: list[list[Outgoing]], seconds: float) -> float:
    """Publish batches evenly over so many seconds; how many it took."""
    began = time.monotonic()
    for number, batch in enumerate(batches):
        time.sleep(max(0.0, began + number * seconds / len(batches) - time.monotonic()))
        group.publish({"complaints": batch})
    time.sleep(max(0.0, began + seconds - time.monotonic()))
    return time.monotonic() - began


@pytest.mark.kafka
@pytest.mark.skipif(not LONG, reason="takes minutes: set TOCSIN_LONG=1")
def test_a_minute_at_ten_times_the_rate_it_sustains_on_kafka_shows_as_lag_takes_bounded_memory_and_is_worked_off(
    groups: Any, tmp_path: Path
) -> None:
    """Live topics, ticks of a minute. So that one publisher can outrun it ten times, the worker is held to a modest
    rate (it waits before each batch); when the minute is over it is let go, lest working off take nine minutes more.
    """
    group, start = groups(Config().replace(tick_seconds=60), history=False)
    hurry = tmp_path / "hurry"
    count, month = 10 * SUSTAINED * 60, int(time.time() * 1_000) - 30 * DAY
    batches = list(complaints(count, in_turn(CODES, count), since=month))
    watch = start(at_most=SUSTAINED, hurry=str(hurry))
    watch.wait(lambda: "tocsin_consumer_lag_records" in watch.seen)
    took = paced(group, batches, 60)
    taken, lag, overloaded = watch.seen["tocsin_events_total"], watch.seen["tocsin_consumer_lag_records"], watch.grown()
    hurry.touch()
    began = time.monotonic()
    watch.drained(count, 0)
    watch.wait(group.done)
    worked = time.monotonic() - began
    print(
        f"kafka, a minute of overload: {count:,} records published in {took:.0f} s ({count / took:,.0f}/s), "
        f"{taken:,.0f} of them taken by then ({taken / took:,.0f}/s), lag {lag:,.0f}, memory "
        f"{watch.at_rest / MB:.0f} MB at rest, +{overloaded / MB:.0f} MB; the others worked off in {worked:.0f} s "
        f"({(count - taken) / worked:,.0f}/s), +{watch.grown() / MB:.0f} MB at its peak"
    )
    assert took < 66, "the publisher could not keep up with what the test asks of it"
    assert count >= 10 * taken > 0
    assert lag > 0.8 * count
    # What has not been read yet takes no memory but for what the transport fetches ahead: 4 MB of a partition.
    assert overloaded < 100 * MB + 250 * taken
    assert watch.grown() < 150 * MB + 250 * count
    watch.wait(lambda: watch.seen["tocsin_state_rows"] >= count)
    assert watch.seen["tocsin_state_rows"] == count
    assert watch.seen.get("tocsin_dead_letters_total", 0.0) == 0.0
    # It is well, and goes on.
    more = complaints(100, in_turn(CODES, 100), since=month + 1)
    group.publish({"complaints": [record for batch in more for record in batch]})
    watch.drained(count + 100, 0)
    assert watch.worker.stop() == 0
