"""Whole batches of aiokafka's reader against its own record-by-record reading; and what is taken from its fetcher."""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchError, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException, TopicAuthorizationFailedError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from streams.transport_fetch import fetched, unpack

A, B = TopicPartition("t", 0), TopicPartition("t", 1)
ALL = 1_000_000
CONTROL, GZIP = 0x20, 1


@dataclass(frozen=True)
class Batch:
    """A record batch as a broker may hold it: which of its offsets compaction left, whose it is, what it says."""

    span: int
    kept: frozenset[int]
    producer: int = -1
    transactional: bool = False
    marker: int | None = None
    """0 ends a transaction by aborting it, 1 by committing it; the batch is a control batch then."""
    codec: int = 0

    def build(self, base: int) -> bytes:
        builder = DefaultRecordBatchBuilder(2, self.codec, self.transactional, self.producer, 0, 0, 1 << 20)
        if self.marker is not None:
            builder.append(0, 7, struct.pack(">hh", 0, self.marker), b"\0" * 6, [])
        else:
            for place in sorted(self.kept):
                headers: list[tuple[str, bytes | None]] = [("h", b"x"), ("n", None)] if place % 3 == 0 else []
                value = None if place % 5 == 0 else b"v%d" % (base + place)
                builder.append(place, 1_000 + place, b"k" if place % 2 else None, value, headers)
        data = bytearray(builder.build())
        struct.pack_into(">q", data, 0, base)
        if self.marker is not None:
            (attributes,) = struct.unpack_from(">h", data, 21)
            struct.pack_into(">h", data, 21, attributes | CONTROL)
        struct.pack_into(">i", data, 23, self.span - 1)
        struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
        return bytes(data)


def log_of(batches: list[Batch]) -> bytes:
    data, base = b"", 0
    for batch in batches:
        data += batch.build(base)
        base += batch.span
    return data


def part(data: bytes, *, at: int = 0, aborted: Any = None, isolation: int = READ_COMMITTED) -> PartitionRecords:
    return PartitionRecords(A, MemoryRecords(data), aborted, at, None, None, True, isolation)


def plain(records: Any) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records]


@st.composite
def logs(draw: Any) -> tuple[list[Batch], list[tuple[int, int]]]:
    """Batches of a partition, and the aborted transactions in it as a broker tells them: producer, first offset."""
    batches: list[Batch] = []
    aborted: list[tuple[int, int]] = []
    opened: dict[int, int] = {}
    base = 0
    for _ in range(draw(st.integers(1, 12))):
        if opened and draw(st.integers(0, 1)):
            producer = draw(st.sampled_from(sorted(opened)))
            marker = draw(st.integers(0, 1))
            first = opened.pop(producer)
            if not marker:
                aborted.append((producer, first))
            batch = Batch(1, frozenset({0}), producer, True, marker)
        else:
            span = draw(st.integers(1, 6))
            # An emptied batch stays, but the reader of aiokafka cannot be made to build one.
            kept = draw(st.frozensets(st.integers(0, span - 1), min_size=1))
            producer = draw(st.integers(-1, 2))
            transactional = producer >= 0 and (producer in opened or bool(draw(st.integers(0, 1))))
            if transactional:
                opened.setdefault(producer, base)
            batch = Batch(span, kept, producer, transactional, codec=draw(st.sampled_from([0, GZIP])))
        batches.append(batch)
        base += batch.span
    return batches, aborted


@given(logs(), st.data(), st.sampled_from([READ_COMMITTED, READ_UNCOMMITTED]))
def test_whole_batches_hold_what_single_records_do(
    log: tuple[list[Batch], list[tuple[int, int]]], data: st.DataObject, isolation: int
) -> None:
    batches, aborted = log
    held = log_of(batches)
    at = data.draw(st.integers(0, batches[0].span - 1))
    one_by_one = part(held, at=at, aborted=aborted, isolation=isolation)
    expected = plain(one_by_one)
    by_batches = part(held, at=at, aborted=aborted, isolation=isolation)
    found: list[tuple[Any, ...]] = []
    end = sum(batch.span for batch in batches)
    while by_batches.next_fetch_offset < end:
        before, most = by_batches.next_fetch_offset, data.draw(st.integers(1, 9))
        records = plain(unpack(by_batches, most))
        assert len(records) <= most
        assert by_batches.next_fetch_offset > before
        found += records
    assert found == expected
    assert by_batches.next_fetch_offset == one_by_one.next_fetch_offset == end


def test_a_batch_for_which_there_is_no_room_is_cut() -> None:
    three = part(log_of([Batch(4, frozenset({0, 1, 3}))] * 3))
    assert [record.offset for record in unpack(three, 4)] == [0, 1, 3, 4]
    assert three.next_fetch_offset == 5
    assert [record.offset for record in unpack(three, 2)] == [5, 7]
    assert three.next_fetch_offset == 8
    assert [record.offset for record in unpack(three, 9)] == [8, 9, 11]
    assert unpack(three, 9) == []


def test_a_wrong_checksum_is_an_error() -> None:
    data = bytearray(log_of([Batch(2, frozenset({0, 1}))]))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        unpack(part(bytes(data)), ALL)


class Fetcher:
    """What is used of aiokafka's: results by partition, each of two batches of four, and where each stands."""

    def __init__(self, *tps: TopicPartition) -> None:
        data = log_of([Batch(4, frozenset(range(4)))] * 2)
        self.states = {tp: _State() for tp in tps}
        assignment = SimpleNamespace(active=True, state_value=self.states.__getitem__)
        self._records: OrderedDict[TopicPartition, Any] = OrderedDict(
            (tp, FetchResult(tp, assignment=assignment, partition_records=part(data), backoff=0)) for tp in tps
        )
        self._subscriptions = SimpleNamespace(reassignment_in_progress=False, is_assigned=self.states.__contains__)
        self._closed = False
        self._wait_consume_future = None
        self.waiters: list[asyncio.Future[None]] = []

    def _notify(self, _: Any) -> None:
        pass

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        self.waiters.append(asyncio.get_running_loop().create_future())
        return self.waiters[-1]


class _State:
    paused = False
    position = 0

    def consumed_to(self, position: int) -> None:
        self.position = position


def drained(fetcher: Fetcher, *tps: TopicPartition, most: int = ALL) -> dict[TopicPartition, list[int]]:
    found = asyncio.run(fetched(fetcher, frozenset(tps), 0.0, most))
    return {tp: [record.offset for record in records] for tp, records in found.items()}


def test_what_is_taken_is_consumed_and_makes_room() -> None:
    fetcher = Fetcher(A, B)
    assert drained(fetcher, A) == {A: list(range(8))}
    assert list(fetcher._records) == [B]
    assert (fetcher.states[A].position, fetcher.states[B].position) == (8, 0)


def test_what_is_not_taken_stays_for_the_next_time() -> None:
    fetcher = Fetcher(A, B)
    assert drained(fetcher, A, B, most=3) == {A: [0, 1, 2]}
    assert fetcher.states[A].position == 3
    assert drained(fetcher, A, B, most=6) == {A: [3, 4, 5, 6, 7], B: [0]}
    assert drained(fetcher, A, B, most=3) == {B: [1, 2, 3]}
    assert drained(fetcher, A, B) == {B: [4, 5, 6, 7]}
    assert not fetcher._records


def test_what_a_seek_has_overtaken_is_dropped() -> None:
    fetcher = Fetcher(A)
    fetcher.states[A].position = 3
    assert drained(fetcher, A) == {}
    assert fetcher.states[A].position == 3
    assert not fetcher._records


def test_what_was_fetched_of_a_lost_partition_is_dropped() -> None:
    fetcher = Fetcher(A, B)
    del fetcher.states[B]
    assert drained(fetcher, A) == {A: list(range(8))}
    assert not fetcher._records


def test_an_error_waits_until_the_records_before_it_were_taken() -> None:
    fetcher = Fetcher(A)
    fetcher.states[B] = _State()
    fetcher._records[B] = FetchError(error=TopicAuthorizationFailedError("t"), backoff=0)
    assert drained(fetcher, A, B) == {A: list(range(8))}
    with pytest.raises(TopicAuthorizationFailedError):
        drained(fetcher, A, B)
    assert not fetcher._records


def test_a_wait_ends_with_what_is_fetched_meanwhile() -> None:
    async def wait() -> dict[TopicPartition, list[Any]]:
        fetcher = Fetcher(A)
        later, fetcher._records = fetcher._records, OrderedDict()
        waiting = asyncio.create_task(fetched(fetcher, {A}, 60.0, ALL))
        while not fetcher.waiters:
            await asyncio.sleep(0)
        fetcher._records = later
        fetcher.waiters[0].set_result(None)
        return await waiting

    assert len(asyncio.run(wait())[A]) == 8
