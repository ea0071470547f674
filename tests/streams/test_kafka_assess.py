"""When a partition of assess writes its checkpoints; no broker."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from builders import DAY, START, body, world_config
from compacted import Compacted

from streams import kafka_assess
from streams.intake import Intake
from streams.kafka_assess import KafkaAssess
from streams.log import LogRecord
from streams.transport import RecordBatch
from streams.wire import KEYED_VERSION, Keyed

CONFIG = world_config(partitions=1, tick_seconds=86_400)
CATALOGUE = CONFIG.load_catalogue()
ORIGIN = ("injuries", 0)
PAUSE = 1.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(kafka_assess, "time", clock)
    return clock


def batch(offset: int, mark: int, *times: int) -> RecordBatch:
    """A keyed record with an event of each of these times, and a watermark."""
    records = [
        LogRecord(n, at, None, msgspec.json.encode(body("injuries", f"e{at}", at)), ()) for n, at in enumerate(times)
    ]
    columns = Intake(CONFIG, CATALOGUE).process(ORIGIN, records, 0).columns
    keyed = Keyed(KEYED_VERSION, [(*ORIGIN, mark, mark)], ORIGIN, columns.pack() if times else b"")
    record = LogRecord(offset, mark, None, msgspec.msgpack.encode(keyed), ())
    return RecordBatch("keyed-events", 0, 1, 1, [record], offset + 1)


def write(part: KafkaAssess) -> None:
    asyncio.run(part.checkpoint(Compacted("assess-changelog")))


def test_what_a_tick_has_found_is_written_at_once_when_nothing_else_is_to_be_done(clock: Clock) -> None:
    part = KafkaAssess(CONFIG, CATALOGUE, (ORIGIN,), 0, "g")
    part.take(batch(0, START))
    part.close(10)
    write(part)
    clock.now += 0.1
    part.take(batch(1, START + 1, START))
    part.close(10)
    # Events alone wait, so that more go along.
    assert not part.due(PAUSE, at_rest=True)
    part.take(batch(2, START + 2 * DAY))
    part.close(10)
    assert part.stage.closed_through is not None
    assert part.due(PAUSE, at_rest=True)
    assert not part.due(PAUSE)
    clock.now += PAUSE
    assert part.due(PAUSE)
    write(part)
    assert not part.due(PAUSE, at_rest=True)


def test_a_watermark_that_closes_nothing_waits_long_also_at_rest(clock: Clock) -> None:
    part = KafkaAssess(CONFIG, CATALOGUE, (ORIGIN,), 0, "g")
    part.take(batch(0, START + 2 * DAY, START))
    part.close(10)
    write(part)
    part.take(batch(1, START + 2 * DAY + 1))
    part.close(10)
    clock.now += 5 * PAUSE
    assert not part.due(PAUSE, at_rest=True)
    clock.now += 5 * PAUSE
    assert part.due(PAUSE, at_rest=True)
