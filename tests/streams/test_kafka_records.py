"""What the compiled parser makes of fetched batches is what kafka-python makes of them, record by record."""

from __future__ import annotations

import random
import struct
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from kafka import TopicPartition, errors
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords

from streams.kafka_records import _QuickRecords
from streams.medium import headers_of

PLACE = TopicPartition("t", 0)
COMMITTED = 1
_ATTRIBUTES = 21
_CONTROL = 0x20


def batch(
    first: int, rows: list[tuple[Any, ...]], *, codec: int = 0, producer: int = -1, control: bool = False
) -> bytes:
    """A record batch as a broker has it; ``rows`` are (offset beyond the first, time, key, value, headers)."""
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=int(producer >= 0), producer_id=producer,
        producer_epoch=0 if producer >= 0 else -1, base_sequence=-1, batch_size=1 << 20,
    )  # fmt: skip
    for delta, time, key, value, headers in rows:
        builder.append(delta, time, key, value, headers)
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, first)
    if control:
        built[_ATTRIBUTES + 1] |= _CONTROL
        struct.pack_into(">I", built, 17, calc_crc32c(bytes(built[_ATTRIBUTES:])))
    return bytes(built)


def content(rng: random.Random) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]:
    """Key, value and headers."""
    headers: list[tuple[str, bytes | None]] = [("h", b"1"), ("n", None)]
    return rng.choice((None, b"", b"k")), rng.choice((None, b"", b"v" * 40)), headers if rng.random() < 0.3 else []


def fetched(seed: int) -> tuple[bytes, list[Any], int]:
    """Batches of some producers, some of whose transactions are aborted; gaps as compaction leaves them."""
    rng = random.Random(seed)
    parts, aborted, offset = [], [], rng.randrange(100)
    open_since: dict[int, int] = {}
    begin = offset
    for _ in range(rng.randrange(1, 14)):
        producer = rng.choice((-1, 7, 8))
        if producer in open_since and rng.random() < 0.4:
            ends_badly = rng.random() < 0.5
            if ends_badly:
                aborted.append(SimpleNamespace(producer_id=producer, first_offset=open_since[producer]))
            del open_since[producer]
            marker: tuple[Any, ...] = (
                0,
                5,
                struct.pack(">hh", 0, 0 if ends_badly else 1),
                struct.pack(">hi", 0, 0),
                [],
            )
            parts.append(batch(offset, [marker], producer=producer, control=True))
            offset += 1
            continue
        if producer >= 0:
            open_since.setdefault(producer, offset)
        deltas = sorted(rng.sample(range(12), rng.randrange(1, 8)))
        rows = [(delta, 1_700_000_000_000 + rng.randrange(99), *content(rng)) for delta in deltas]
        parts.append(batch(offset, rows, codec=rng.choice((0, 1)), producer=producer))
        offset += deltas[-1] + 1 + rng.randrange(3)
    return b"".join(parts), aborted, begin + rng.randrange(6)


def taken(kind: Any, data: bytes, aborted: list[Any], start: int, step: int) -> list[Any]:
    """What takes of so many give, each with the position after it."""
    reader = kind(start, PLACE, MemoryRecords(data), isolation_level=COMMITTED, aborted_transactions=aborted)
    found = []
    while reader:
        rows = reader.take(step)
        told = [(r.offset, r.timestamp, r.key, r.value, [(k, v or b"") for k, v in r.headers]) for r in rows]
        found.append((told, reader.next_fetch_offset, reader.leader_epoch))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_records_and_positions_are_those_of_kafka_python(seed: int) -> None:
    data, aborted, start = fetched(seed)
    for step in (1, 3, 1_000):
        quick = taken(_QuickRecords, data, aborted, start, step)
        assert quick == taken(Fetcher.PartitionRecords, data, aborted, start, step)


def test_records_have_what_intake_asks_for() -> None:
    data = batch(5, [(0, 1, b"k", b"v", []), (1, 2, None, b"w", [("h", None)])])
    found = _QuickRecords(5, PLACE, MemoryRecords(data), isolation_level=COMMITTED).take(10)
    told = [(one.offset, one.timestamp, one.key, one.value) for one in found]
    assert told == [
        (5, 1, b"k", b"v"),
        (6, 2, None, b"w"),
    ]
    assert [tuple(one.headers) for one in found] == [(), (("h", None),)]
    assert [headers_of(one) for one in found] == [(), (("h", b""),)]


def test_a_damaged_batch_is_told_after_what_was_good() -> None:
    good, bad = batch(0, [(0, 1, b"k", b"v", [])]), bytearray(batch(1, [(0, 1, b"k", b"v", [])]))
    bad[-1] ^= 1
    reader = _QuickRecords(0, PLACE, MemoryRecords(good + bytes(bad)), isolation_level=COMMITTED)
    assert len(reader.take(10)) == 1
    with pytest.raises(errors.CorruptRecordError, match="offset 1"):
        reader.take(10)
