"""What an outbox hands to the client, in which order and how packed, and what becomes of a refusal."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from streams.kafka_outbox import Outbox

ROOM = 1_000
"""Bytes in a batch."""


class Producer:
    """A client that keeps the batches, and acknowledges all at the end, or refuses those of a topic."""

    def __init__(self, refuses: str = "") -> None:
        self.sent: list[tuple[str, int, list[Any]]] = []
        self._refuses = refuses

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(ROOM, 0, is_transactional=1)

    async def send_batch(self, batch: BatchBuilder, topic: str, *, partition: int) -> asyncio.Future[None]:
        records: Any = MemoryRecords(bytes(batch._build())).next_batch()
        self.sent.append((topic, partition, [(r.key, r.value, r.headers) for r in records]))
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if topic == self._refuses:
            acknowledged.set_exception(MessageSizeTooLargeError())
        else:
            acknowledged.set_result(None)
        return acknowledged


def delivered(out: Outbox, producer: Producer) -> list[tuple[str, int, list[Any]]]:
    asyncio.run(out.deliver(producer))
    return producer.sent


def test_records_of_a_partition_go_out_together_and_in_order() -> None:
    out = Outbox("p.")
    out.add("signals", 0, b"a", b"1", [("h", b"x")])
    out.add("assess-changelog", 3, b"gone", None)
    out.add("signals", 0, b"b", b"2")
    assert delivered(out, Producer()) == [
        ("p.signals", 0, [(b"a", b"1", [("h", b"x")]), (b"b", b"2", [])]),
        ("p.assess-changelog", 3, [(b"gone", None, [])]),
    ]


def test_every_partition_begins_before_any_goes_on() -> None:
    out = Outbox("")
    for number in range(9):
        out.add("signals", 0, b"%d" % number, b"x" * 300)
    out.add("dead-letters", 0, b"k", b"v")
    sent = delivered(out, Producer())
    assert [topic for topic, _, _ in sent[:2]] == ["signals", "dead-letters"]
    keys = [key for topic, _, records in sent if topic == "signals" for key, _, _ in records]
    assert keys == [b"%d" % number for number in range(9)]
    assert len(sent) > 3


def test_a_record_larger_than_a_batch_goes_out_by_itself() -> None:
    out = Outbox("")
    for size in (1, 5 * ROOM, 2):
        out.add("signals", 0, b"k", b"x" * size)
    assert [[len(value) for _, value, _ in records] for _, _, records in delivered(out, Producer())] == [
        [1], [5 * ROOM], [2]
    ]  # fmt: skip


def test_pieces_are_numbered_and_those_needed_no_more_are_deleted() -> None:
    out = Outbox("")
    assert out.add_pieces("assess-changelog", 2, b"base-", [b"x", b"y"], 4) == 2
    assert out.add_pieces("assess-changelog", 2, b"effects-", [b"z"], 0) == 1
    rows = [(b"base-0", b"x"), (b"base-1", b"y"), (b"base-2", None), (b"base-3", None), (b"effects-0", b"z")]
    assert delivered(out, Producer()) == [("assess-changelog", 2, [(*row, []) for row in rows])]


def test_a_refusal_is_raised() -> None:
    out = Outbox("")
    out.add("signals", 0, b"k", b"v")
    out.add("dead-letters", 0, b"k", b"v")
    with pytest.raises(MessageSizeTooLargeError):
        asyncio.run(out.deliver(Producer(refuses="signals")))


def test_nothing_is_sent_where_there_is_nothing_and_nothing_twice() -> None:
    out, producer = Outbox(""), Producer()
    assert delivered(out, producer) == []
    out.add("signals", 0, b"k", b"v")
    delivered(out, producer)
    assert len(delivered(out, producer)) == 1
