"""Kafka as a medium for the commands: publish, replay, watch, dispose (see :mod:`streams.medium`).

The workers do not go through here; they have Faust and :mod:`streams.transport`. A broker gives and takes records only
over kafka-python, raw bytes both ways, and whatever goes wrong is one :class:`BrokerError` of one line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from kafka import TopicPartition, errors
from kafka.admin import OffsetSpec

from schemas.topics import topic_name
from streams.decode import Record
from streams.kafka_connection import MAX_RECORD_BYTES, BrokerError, Connection, quietly
from streams.kafka_records import read_quickly
from streams.kafka_security import BrokerAddress, Security
from streams.kafka_topics import (
    TopicProblems,
    TopicState,
    check_topics,
    create_topics,
    describe,
    topic_metadata,
    topic_settings,
)
from streams.log import partition_for
from streams.medium import Outgoing
from streams.ticks import Origin

__all__ = [
    "MAX_RECORD_BYTES",
    "BrokerAddress",
    "BrokerError",
    "KafkaMedium",
    "Security",
    "TopicProblems",
    "TopicState",
    "check_topics",
    "create_topics",
    "describe",
    "topic_settings",
]

CHUNK_RECORDS = 10_000
"""Records in flight at once: enough to keep the broker busy, few enough that waiting for them costs no memory."""
FETCH_BYTES = 4 * 1024 * 1024
"""Of one partition at once: what is fetched is lost when another partition is read in between, so a turn takes all."""
POLL_RECORDS = 200_000
POLL_MS = 200
COUNT_SECONDS = 30.0
"""For so long a topic's partition count is believed."""
REFRESH_SECONDS = 5.0
"""How often ``follow`` looks for new partitions, and whether the broker is still there."""

_Answer = TypeVar("_Answer")


class KafkaMedium:
    """Topics on a Kafka broker, for commands. It connects when it is first used; one thread writes or reads at a time.

    Parameters
    ----------
    address
        The brokers; ``kafka+ssl://`` makes ``security`` use TLS.
    prefix
        Stands before every topic's name.
    security
        Who we are.
    timeout
        Seconds that a broker may take for an answer. A write is tried for three times as long.
    """

    def __init__(self, address: BrokerAddress, prefix: str, security: Security, *, timeout: float = 10.0) -> None:
        self.prefix = prefix
        self._connection = Connection.of(address, security, timeout)
        self._lock = threading.RLock()
        self._admin: Any = None
        self._producer: Any = None
        self._consumer: Any = None
        self._standing: tuple[Any, int] | None = None
        self._counts: dict[str, tuple[float, int]] = {}

    def close(self) -> None:
        """Give the connections back. What ``write`` returned from is on the broker already."""
        with self._lock:
            self._drop_producer()
            for client in (self._consumer, self._admin):
                if client is not None:
                    quietly(client.close)
            self._consumer = self._admin = self._standing = None

    # --- writing ---------------------------------------------------------------------------------------------------

    def write(self, topic: str, records: Sequence[Outgoing]) -> None:
        """Append; returns when every record is acknowledged by all replicas in sync, else raises BrokerError.

        After an error some of the records may be there: writing them again is safe, as events have ids.
        """
        name = topic_name(self.prefix, topic)
        with self._lock, self._connection.explained(name):
            if not records:
                return
            count = self._ready(name)
            try:
                for start in range(0, len(records), CHUNK_RECORDS):
                    self._send(name, count, records[start : start + CHUNK_RECORDS])
            except BaseException:
                # What it still holds must not go out later, when the caller has been told that it failed.
                self._drop_producer()
                raise

    def _ready(self, name: str) -> int:
        """See to a producer; returns the topic's partition count, in which the producer has to agree with us."""
        for _ in range(2):
            count = self._count(name)
            if self._producer is None:
                self._producer = self._connection.producer()
            if len(self._producer.partitions_for(name)) == count:
                return count
            self._counts.clear()
            self._drop_producer()
        raise BrokerError(f"topic {name}: its partitions are being changed; try again when that is done")

    def _send(self, name: str, count: int, records: Sequence[Outgoing]) -> None:
        send = self._producer.send
        parts: dict[bytes | None, int] = {}
        waiting = []
        for time_ms, key, value, headers in records:
            part = parts.get(key)
            if part is None:
                part = parts[key] = partition_for(key, count)
            if (key is None and value is None) or time_ms < 0:
                raise BrokerError(f"topic {name}: a record needs a key or a value, and a time not before 1970")
            try:
                waiting.append(send(name, value, key, list(headers), part, time_ms))
            except errors.KafkaError as error:
                raise self._connection.broker_error(error, name, _size(key, value)) from None
        # Not flush(): it fails where the client has to split a batch.
        deadline = time.monotonic() + self._connection.patience + self._connection.timeout
        for record, sent in zip(records, waiting, strict=True):
            try:
                sent.succeeded() or sent.get(max(0.0, deadline - time.monotonic()))
            except errors.KafkaError as error:
                raise self._connection.broker_error(error, name, _size(record.key, record.value)) from None

    def _drop_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            quietly(producer.close, 1)

    # --- reading ---------------------------------------------------------------------------------------------------

    def ends(self, topics: Sequence[str]) -> dict[Origin, int]:
        """The end of every partition, in order: before the first record of a transaction that is still open."""
        return self._offsets(topics, OffsetSpec.LATEST)

    def starts(self, topics: Sequence[str]) -> dict[Origin, int]:
        """The first offset that every partition still holds, in order."""
        return self._offsets(topics, OffsetSpec.EARLIEST)

    def read(self, origin: Origin, offset: int, end: int, batch: int) -> Iterator[Sequence[Record]]:
        """The records of a partition from ``offset`` below ``end``, in batches.

        Offset 0 stands for the beginning, wherever retention has moved it; any other that is gone is an error. The
        end is a position: markers and compacted records take up offsets that no record has.
        """
        if offset >= end:
            return
        topic, part = origin
        place = TopicPartition(topic_name(self.prefix, topic), part)
        with self._connection.explained(place.topic), self._lock:
            if part >= self._count(place.topic):
                raise BrokerError(f"topic {place.topic} has no partition {part}")
        position = offset or self.starts([topic])[origin]
        came = time.monotonic()
        while position < end:
            records, following = self._fetch(place, position, end)
            for start in range(0, len(records), batch):
                yield records[start : start + batch]
            if following > position:
                position, came = following, time.monotonic()
            elif position >= self.ends([topic])[origin]:
                return
            elif time.monotonic() - came > self._connection.patience:
                raise BrokerError(
                    f"topic {place.topic}: nothing came for {self._connection.patience:g} s at offset {position}"
                )

    def _fetch(self, place: Any, position: int, end: int) -> tuple[list[Record], int]:
        """What one poll brings, and the position after it. All readers share one consumer, in turns: a turn is a whole
        fetch, so that merging many partitions does not fetch anything twice, nor take a thread for each."""
        with self._lock, self._connection.explained(place.topic):
            if self._consumer is None:
                self._consumer = read_quickly(self._connection.consumer(max_partition_fetch_bytes=FETCH_BYTES))
            consumer = self._consumer
            if self._standing != (place, position):
                consumer.assign([place])
                consumer.seek(place, position)
            self._standing = None
            polled = consumer.poll(POLL_MS, max_records=POLL_RECORDS).get(place, [])
            following = consumer.position(place, timeout_ms=int(self._connection.timeout * 1_000))
            if following is None:
                return [], position
            self._standing = (place, following)
        records: list[Record] = polled if following <= end else [record for record in polled if record.offset < end]
        return records, following

    def follow(
        self, topics: Sequence[str], stop: Callable[[], bool], *, from_start: bool
    ) -> Iterator[tuple[Origin, Record]]:
        """Records as they come, from the beginning or from now on, until ``stop`` answers True.

        Where to begin is settled by this call, not by the first record asked for. What was there then is delivered
        even if ``stop`` answers True at once. Partitions that are added later are read from their beginning.
        """
        goal = self.ends(topics)
        return self._follow(list(topics), stop, self.starts(topics) if from_start else dict(goal), goal)

    def _follow(
        self, topics: list[str], stop: Callable[[], bool], at: dict[Origin, int], goal: dict[Origin, int]
    ) -> Iterator[tuple[Origin, Record]]:
        with self._connection.explained():
            consumer = self._connection.consumer()
        try:
            places = self._take(consumer, at)
            seen = looked = time.monotonic()
            names = self._names(topics)
            while True:
                with self._connection.explained(names):
                    polled = consumer.poll(POLL_MS)
                for place, found in polled.items():
                    for record in found:
                        at[places[place]] = record.offset + 1
                        yield places[place], record
                if stop():
                    with self._connection.explained(names):
                        if all(consumer.position(place) >= goal.get(origin, 0) for place, origin in places.items()):
                            return
                if time.monotonic() - looked > REFRESH_SECONDS:
                    looked = time.monotonic()
                    try:
                        fresh = {o: 0 for o in self._origins(topics) if o not in at}
                        seen = time.monotonic()
                    except BrokerError:
                        if time.monotonic() - seen > self._connection.patience:
                            raise
                        fresh = {}
                    if fresh:
                        at.update(fresh)
                        places = self._take(consumer, at)
        finally:
            quietly(consumer.close)

    def _take(self, consumer: Any, at: dict[Origin, int]) -> dict[Any, Origin]:
        places = {TopicPartition(topic_name(self.prefix, topic), part): (topic, part) for topic, part in at}
        consumer.assign(list(places))
        for place, origin in places.items():
            consumer.seek(place, at[origin])
        return places

    # --- metadata --------------------------------------------------------------------------------------------------

    def _count(self, name: str) -> int:
        """How many partitions a topic has."""
        known = self._counts.get(name)
        if known is None or time.monotonic() - known[0] > COUNT_SECONDS:
            found = self._metadata([name])[name]
            known = self._counts[name] = (time.monotonic(), len(found["partitions"]))
        return known[1]

    def _ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        """Put a question to the broker; over a new connection where the one we had has been lost."""
        with self._lock:
            held, self._admin = self._admin, None
            if held is not None:
                try:
                    answer = question(held)
                    self._admin = held
                    return answer
                except (errors.KafkaError, OSError) as error:
                    quietly(held.close)
                    if not getattr(error, "retriable", True):
                        raise
            self._admin = self._connection.admin()
            return question(self._admin)

    def _metadata(self, names: Sequence[str]) -> dict[str, Any]:
        found = self._ask(lambda admin: topic_metadata(admin, self._connection, names))
        for name in names:
            if name not in found:
                raise self._connection.broker_error(errors.UnknownTopicOrPartitionError(), name)
        return found

    def _names(self, topics: Iterable[str]) -> str:
        return ", ".join(topic_name(self.prefix, topic) for topic in topics)

    def _origins(self, topics: Iterable[str]) -> list[Origin]:
        short = {topic_name(self.prefix, topic): topic for topic in topics}
        with self._connection.explained():
            found = self._metadata(list(short))
        return sorted((short[name], part["partition_index"]) for name in found for part in found[name]["partitions"])

    def _offsets(self, topics: Sequence[str], which: Any) -> dict[Origin, int]:
        origins = self._origins(topics)
        asked = {TopicPartition(topic_name(self.prefix, topic), part): which for topic, part in origins}
        with self._connection.explained(self._names(topics)):
            found = self._ask(lambda admin: admin.list_partition_offsets(asked, "read_committed")) if asked else {}
        return {
            (topic, part): found[TopicPartition(topic_name(self.prefix, topic), part)].offset for topic, part in origins
        }


def _size(key: bytes | None, value: bytes | None) -> int:
    return len(key or b"") + len(value or b"")
