"""How soon an accident's alert can be read while the worker is busy with tens of thousands of inspections a second.

Live topics, the worker on a core of its own, the broker and all that measures on the others. The load is made and
packed beforehand and sent in slices of 50 ms at an even rate; each accident goes out at a moment of its own, and the
clock stops when another client has read its alert from ``emergency-response``. What stands in the figures as the load
is what was sent in the time; a worker that could not keep up would show by its lag at the end.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks.against_peers import GIVE_UP_AFTER, Engine, off_first_core
from tests.benchmarks.rates import ROOT, Figures, Setting, accident, percentile

PARTITIONS = 4
RATE, QUICK_RATE = 60_000, 4_000
"""Inspections a second: two fifths of what a worker on one core of a small machine works off (``--only peers``)."""
SLICE = 0.05
PAUSE = 0.4
REGIONS, PRODUCTS, LABS = 20, 500, 40


def latency_under_load(setting: Setting) -> Figures:
    """Accidents among inspections: seconds until the alert can be read."""
    from broker import KafkaBroker

    rate = RATE if setting.scale >= 1.0 else QUICK_RATE
    with tempfile.TemporaryDirectory(prefix="tocsin-latency-") as name, off_first_core(), KafkaBroker() as broker:
        return measured(broker.bootstrap, Path(name), rate, setting.samples)


def measured(bootstrap: str, folder: Path, rate: int, samples: int) -> Figures:
    """Start a worker and the load, and take the latencies of so many accidents."""
    from streams.config import Config
    from streams.datadir import to_toml
    from streams.kafka_client import BrokerAddress, KafkaMedium, Security, create_topics

    config = Config().replace(catalogue="open", partitions=PARTITIONS, topic_prefix="latency.", name="latency")
    address, file = BrokerAddress.parse(bootstrap), folder / "config.toml"
    file.write_text(to_toml(config), "utf-8")
    create_topics(address, config.topic_prefix, PARTITIONS, Security(), history=False)
    command = [sys.executable, "-m", "streams.cli", "run", "--log-format", "json"]
    engine = Engine([*command, "--broker", address.url, "--config", str(file)], folder / "log", PYTHONPATH=str(ROOT))
    medium = KafkaMedium(address, config.topic_prefix, Security())
    try:
        seconds = samples * PAUSE + 6.0
        load = Load(bootstrap, f"{config.topic_prefix}inspections", rate, seconds)
        deadline = time.monotonic() + GIVE_UP_AFTER
        alerts = medium.follow(["emergency-response"], lambda: False, from_start=False)
        latencies = list(_alerted(medium, alerts, 3))  # the first few wait for partitions and open connections
        load.start()
        time.sleep(3.0)
        engine.must_live(deadline)
        used, began = engine.cpu(), time.monotonic()
        latencies = list(_alerted(medium, alerts, samples))
        busy = (engine.cpu() - used) / (time.monotonic() - began)
        alerts.close()
        sent, took = load.join()
        behind = _behind(bootstrap, config, engine, deadline)
    finally:
        medium.close()
        engine.stop()
    return {
        "inspections sent/s": sent / took,
        "share of its core that the worker used": busy,
        "seconds to work off what was left": behind,
        "alert readable after s, p50": statistics.median(latencies),
        "p99": percentile(latencies, 0.99),
        "most": max(latencies),
    }


def _alerted(medium: Any, alerts: Iterator[Any], count: int) -> Iterator[float]:
    """Publish accidents one after the other and wait for each one's alert; the seconds that it took."""
    from streams.medium import Outgoing

    for _ in range(count):
        time.sleep(PAUSE / 2)
        began = time.perf_counter()
        medium.write("accidents", [Outgoing(int(time.time() * 1_000), b"F0101", accident(time.time_ns()))])
        while json.loads(next(alerts)[1].value)["kind"] != "grave-event":
            pass  # the inspections may bring alerts too
        yield time.perf_counter() - began


def _behind(bootstrap: str, config: Any, engine: Engine, deadline: float) -> float:
    """Seconds until the worker has committed all that was sent."""
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

    places = [TopicPartition(f"{config.topic_prefix}inspections", part) for part in range(PARTITIONS)]
    group = f"{config.topic_prefix}{config.name}"
    consumer, admin = KafkaConsumer(bootstrap_servers=bootstrap), KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        began, ends = time.monotonic(), consumer.end_offsets(places)
        while True:
            engine.must_live(deadline)
            held = admin.list_group_offsets([group])[group]
            if all(place in held and held[place].offset >= end for place, end in ends.items()):
                return time.monotonic() - began
            time.sleep(0.05)
    finally:
        admin.close()
        consumer.close()


class Load(threading.Thread):
    """Inspections of 10,000 cells at an even rate, packed before they are sent."""

    def __init__(self, bootstrap: str, topic: str, rate: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self._server, self._topic = bootstrap, topic
        self._each = int(rate * SLICE) // PARTITIONS
        self._slices = int(seconds / SLICE)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._form = (
            '{"event_id":"e%d","source":"lims-%02d","reported_at":"' + now + '","product":"P%05d","region":"R%03d",'
            '"lab":"lab-%02d","stage":"circulation","verdict":"%s"}'
        )
        self._values = [
            [self._some((at * PARTITIONS + part) * self._each) for part in range(PARTITIONS)]
            for at in range(self._slices)
        ]
        self._took = 0.0

    def _some(self, first: int) -> list[bytes]:
        return [self._value(number) for number in range(first, first + self._each)]

    def _value(self, number: int) -> bytes:
        lab, cell = number % LABS, number * 7_919 % (PRODUCTS * REGIONS)
        verdict = "fail" if number % 97 == 0 else "pass"
        return (self._form % (number, lab, cell // REGIONS, cell % REGIONS, lab, verdict)).encode()

    def run(self) -> None:
        """Send it."""
        asyncio.run(self._send())

    def join(self, timeout: float | None = None) -> Any:
        """Wait for the last; how many were sent, in how many seconds."""
        super().join(timeout)
        return self._slices * self._each * PARTITIONS, self._took

    async def _send(self) -> None:
        from aiokafka import AIOKafkaProducer

        producer = AIOKafkaProducer(bootstrap_servers=self._server, acks=1, max_batch_size=1 << 20)
        await producer.start()
        began = time.monotonic()
        waiting: list[Any] = []
        for at, parts in enumerate(self._values):
            await asyncio.sleep(max(0.0, began + at * SLICE - time.monotonic()))
            for part, values in enumerate(parts):
                batch = producer.create_batch()
                for value in values:
                    batch.append(timestamp=None, key=None, value=value)
                waiting.append(await producer.send_batch(batch, self._topic, partition=part))
        await asyncio.gather(*waiting)
        self._took = time.monotonic() - began
        await producer.stop()
