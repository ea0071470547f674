"""Assess on Kafka: one keyed partition's state, and its checkpoints as transactions.

The protocol of a checkpoint, one Kafka transaction of the partition's own producer:

1. signals, tallies and the marker "closed through" go to ``signals``;
2. state segments, the progress row and, from time to time, a new base go to the partition's changelog, and tombstones
   for segments that are no longer needed;
3. the input offset, below the oldest event that still waits, goes to the consumer group.

All or nothing: a crash leaves the last checkpoint, and what was sent after it is invisible to readers of committed
records. The producer's transactional id belongs to the partition, so that whoever takes the partition over fences off
its former owner before it reads the changelog.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Partition

from schemas.alerts import DeadLetter, Signal
from schemas.catalogue import Catalogue
from schemas.errors import ConfigError
from schemas.topics import topic_name
from streams.assess import PROGRESS_VERSION, Assess, Progress, Saved, too_late
from streams.columns import EventColumns
from streams.config import Config, built_under
from streams.kafka_outbox import Outbox
from streams.meter import SILENT, Meter
from streams.stored import KAFKA_MEND, mend, reading, unpack
from streams.tally import Tally
from streams.ticks import COMPLETE, Calendar, Origin
from streams.transport import RecordBatch
from streams.wire import KEYED_VERSION, ClosedMarker, Keyed, Told, header, kind_of, signal_key

__all__ = [
    "PROGRESS_KEY",
    "KafkaAssess",
    "ProgressRow",
    "check_built",
    "end_of",
    "parts_of",
    "read_changelog",
    "read_committed",
]

PROGRESS_KEY = b"progress"
"""Key of a changelog's progress row; every checkpoint writes it last."""
_IDLE_PAUSES = 10
"""So many times as long as between other checkpoints an offset waits that has only watermarks below it."""
_SEGMENT = b"segment-"
_BASE = b"base-"
_EFFECTS = b"effects-"


class ProgressRow(msgspec.Struct, array_like=True):
    """The progress row: the stage's progress, where its input goes on, the next segment's number, under which
    configuration and catalogue all of it came about, and how many pieces the base and the labs' effects have."""

    progress: bytes
    offset: int
    segments: int
    built_under: str = ""
    said_through: int | None = None
    """The last tick of which the signals were sent before the state was given up, None where it never was."""
    pieces: int = 0
    effects: int = 0


def check_built(held: str, now: str, topic: str) -> None:
    """Refuse a state that came about under other rules: half of each would be the outcome of neither."""
    if held and held != now:
        raise ConfigError(
            f"{topic}: the state was built under another configuration or catalogue ({held}, now {now}); run with that "
            "one, or replay the topics under another topic_prefix"
        )


async def read_changelog(
    client: dict[str, Any], topic: str, partition: int, progress: Callable[[float], None] = lambda done: None
) -> dict[bytes, bytes]:
    """The last committed value of every key of a changelog partition; tells ``progress`` the share read."""
    rows: dict[bytes, bytes | None] = {}
    async for row in read_committed(client, topic, partition, progress):
        rows[row.key] = row.value
    return {key: value for key, value in rows.items() if value is not None}


def parts_of(
    row: ProgressRow, held: dict[bytes, bytes]
) -> tuple[list[tuple[int, int]], Iterator[bytes], Iterator[bytes], Iterator[bytes]]:
    """The numbers of a changelog's segments, the segments, the pieces of the base and of the labs' effects; all leave
    ``held`` as they are read."""
    with reading("the keys of the state"):
        kept = sorted(_numbers(key) for key in held if key.startswith(_SEGMENT))
    segments = (held.pop(_key(_SEGMENT, *one)) for one in kept)
    base = (held.pop(_key(_BASE, piece)) for piece in range(row.pieces))
    return kept, segments, base, (held.pop(_key(_EFFECTS, piece)) for piece in range(row.effects))


async def _last_closed(client: dict[str, Any], topic: str, partition: int) -> int | None:
    """The last tick that an assess partition has said to be closed."""
    last: int | None = None
    async for row in read_committed(client, topic, 0):
        kind, about = kind_of(row.headers)
        if kind == "closed" and about == partition and row.value is not None:
            try:
                marker = msgspec.json.decode(row.value, type=ClosedMarker)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # not ours; escalate says so
            last = max(marker.through, -COMPLETE if last is None else last)
    return last


@asynccontextmanager
async def _consumer(client: dict[str, Any], **options: Any) -> AsyncIterator[Any]:
    """A consumer of committed records."""
    consumer = AIOKafkaConsumer(**client, isolation_level="read_committed", enable_auto_commit=False, **options)
    try:  # a start that is broken off must be closed too
        await consumer.start()
        yield consumer
    finally:
        await consumer.stop()


async def end_of(client: dict[str, Any], topic: str, partition: int) -> int:
    """The present end of a partition, before the first record of a transaction that is still open."""
    tp = Partition(topic, partition)
    async with _consumer(client) as consumer:
        return int((await consumer.end_offsets([tp]))[tp])


async def read_committed(
    client: dict[str, Any], topic: str, partition: int, progress: Callable[[float], None] = lambda done: None
) -> AsyncIterator[Any]:
    """All committed records of a partition, in order, up to its present end."""
    tp = Partition(topic, partition)
    async with _consumer(client, max_partition_fetch_bytes=8 << 20) as consumer:
        consumer.assign([tp])
        await consumer.seek_to_beginning(tp)
        end = (await consumer.end_offsets([tp]))[tp]
        first = await consumer.position(tp)
        while (position := await consumer.position(tp)) < end:
            progress((position - first) / (end - first))
            for records in (await consumer.getmany(tp, timeout_ms=500)).values():
                for record in records:
                    yield record


def _key(kind: bytes, *numbers: int) -> bytes:
    """``segment-NUMBER-TICK``, where the tick is the segment's last; ``base-PIECE``; ``effects-PIECE``."""
    return kind + "-".join(map(str, numbers)).encode()


def _numbers(key: bytes) -> tuple[int, int]:
    """Number and last tick of a segment's key."""
    number, _, tick = key.removeprefix(_SEGMENT).partition(b"-")
    return int(number), int(tick)


class KafkaAssess:
    """One partition of the assess stage with its transactional producer."""

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        origins: tuple[Origin, ...],
        partition: int,
        group: str,
        meter: Meter = SILENT,
    ) -> None:
        self._meter = meter
        self._prefix = config.topic_prefix
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._group = group
        self._built_under = built_under(config, catalogue)
        self.partition = partition
        self.stage = Assess(config, catalogue, origins)
        self.offset = 0
        self._segments = 0
        self._kept: list[tuple[int, int]] = []
        """Number and last tick of the segments that are there."""
        self._pieces = self._effects = 0
        self._unfolded: deque[tuple[int, int]] = deque()
        self._signals: list[Signal] = []
        self._tallies: list[tuple[int, Tally]] = []
        self._late: list[DeadLetter] = []
        self._sent_through: int | None = None
        self._said_through: int | None = None
        self._dirty = False
        self._moved = False
        """Whether the input went on, if only by watermarks that changed nothing."""
        self._checkpointed = time.monotonic()

    async def restore(self, client: dict[str, Any]) -> int:
        """Rebuild the state from the changelog; returns the offset at which the input goes on."""
        topic = topic_name(self._prefix, "assess-changelog")
        self._meter.restoring("assess", self.partition, 0.0)
        rows = await read_changelog(
            client, topic, self.partition, lambda done: self._meter.restoring("assess", self.partition, 0.9 * done)
        )
        progress: ProgressRow | None = None
        with mend(f"{topic}-{self.partition}", KAFKA_MEND):
            if PROGRESS_KEY in rows:
                with reading("the progress row"):
                    progress = msgspec.msgpack.decode(rows[PROGRESS_KEY], type=ProgressRow)
                unpack(progress.progress, Progress, PROGRESS_VERSION, "the progress row")  # before the long part
                check_built(progress.built_under, self._built_under, topic)
                self._restore_stage(progress, rows)
        if progress is None:
            # The state was given up (streams.kafka_rebuild), or never was: what was said once is not said again.
            self._said_through = await _last_closed(client, topic_name(self._prefix, "signals"), self.partition)
        self._meter.restoring("assess", self.partition, 1.0)
        self._meter.assessed(self.partition, self.stage)
        return self.offset

    def _restore_stage(self, row: ProgressRow, held: dict[bytes, bytes]) -> None:
        self._kept, *parts = parts_of(row, held)
        self.stage.restore(row.progress, *parts)
        self.offset, self._segments, self._pieces, self._effects = row.offset, row.segments, row.pieces, row.effects
        self._sent_through, self._said_through = self.stage.closed_through, row.said_through

    def take(self, batch: RecordBatch) -> None:
        """Take a batch of keyed events and watermarks."""
        began = time.perf_counter()
        for record in batch.records:
            with mend(f"{batch.tp.topic}-{batch.partition}@{record.offset}", KAFKA_MEND):
                keyed = unpack(record.value or b"", Keyed, KEYED_VERSION, "a record")
                columns = EventColumns.unpack(keyed.columns) if keyed.columns else None
            if columns is not None and keyed.origin is not None:
                late = self.stage.offer(keyed.origin, columns)
                self._late += too_late(late)
                self._meter.late(len(late))
                self._unfolded.append((record.offset, int(columns["arrival"][-1])))
                self._dirty = True
            for topic, partition, mark, last in keyed.marks:
                self.stage.watermarks.advance((topic, partition), mark, last)
        self.offset = batch.next_offset
        self._moved = True
        self._meter.took("assess", len(batch.records), time.perf_counter() - began)

    def close(self, limit: int) -> bool:
        """Close some ticks; True while there may be more to close."""
        began = time.perf_counter()
        closed = self.stage.close(limit)
        self._meter.closed(closed, time.perf_counter() - began)
        self._signals += [signal for signal in closed.signals if self._is_news(signal.tick)]
        self._tallies += [(tick, tally) for tick, tally in closed.tallies if self._is_news(tick)]
        return len(closed.ticks) >= limit

    def _is_news(self, tick: int) -> bool:
        return self._said_through is None or tick > self._said_through

    def due(self, pause: float, *, at_rest: bool = False) -> bool:
        """Whether a checkpoint is worth its while; watermarks that closed no tick never end, and can wait longer.

        What a tick has found need not wait for more to go along with it when the worker is ``at_rest``.
        """
        waited = time.monotonic() - self._checkpointed
        told = bool(self._signals) or self.stage.closed_through != self._sent_through
        if told and at_rest:
            return True
        news = self._dirty or told
        return waited >= pause if news else self._moved and waited >= _IDLE_PAUSES * pause

    def _resume_offset(self) -> int:
        """Offset below the oldest record with an event that still waits."""
        through = self.stage.closed_through
        if through is not None:
            bound = self._calendar.tick_end(through)
            while self._unfolded and self._unfolded[0][1] < bound:
                self._unfolded.popleft()
        return self._unfolded[0][0] if self._unfolded else self.offset

    async def checkpoint(self, producer: Any) -> None:
        """Write a checkpoint by the protocol above."""
        began = time.perf_counter()
        through, resume = self.stage.closed_through, self._resume_offset()
        saved = self.stage.checkpoint()
        signals, self._signals = self._signals, []
        tallies, self._tallies = self._tallies, []
        late, self._late = self._late, []
        out = Outbox(self._prefix)
        encode = msgspec.json.encode
        for letter in late:
            out.add("dead-letters", 0, letter.reason.encode(), encode(letter))
        told = header("signal", self.partition)
        for signal in signals:
            out.add("signals", 0, signal_key(signal), encode(signal), told)
        told = header("tally", self.partition)
        for tick, tally in tallies:
            out.add("signals", 0, b"tally", encode(Told(tick, tally)), told)
        if through is not None and through != self._sent_through and self._is_news(through):
            marker = encode(ClosedMarker(self.partition, through))
            out.add("signals", 0, b"closed", marker, header("closed", self.partition))
        nbytes = self._add_state(out, saved, resume)
        async with producer.transaction():
            await out.deliver(producer)
            tp = Partition(topic_name(self._prefix, "keyed-events"), self.partition)
            await producer.send_offsets_to_transaction({tp: resume}, self._group)
        self._sent_through, self._dirty, self._moved = through, False, False
        self._checkpointed = time.monotonic()
        self._meter.checkpointed("assess", time.perf_counter() - began, nbytes)
        self._meter.refused(late)
        self._meter.assessed(self.partition, self.stage)

    def _add_state(self, out: Outbox, saved: Saved, resume: int) -> int:
        """Add what is to be stored; returns its bytes."""
        changelog = "assess-changelog", self.partition
        for last, segment in saved.segments:
            out.add(*changelog, _key(_SEGMENT, self._segments, last), segment)
            self._kept.append((self._segments, last))
            self._segments += 1
        if saved.base is not None:
            self._pieces = out.add_pieces(*changelog, _BASE, saved.base, self._pieces)
            before = saved.forgotten_before
            gone = [kept for kept in self._kept if before is not None and kept[1] < before]
            for kept in gone:
                out.add(*changelog, _key(_SEGMENT, *kept), None)
            self._kept = self._kept[len(gone) :]
        if saved.effects is not None:
            self._effects = out.add_pieces(*changelog, _EFFECTS, saved.effects, self._effects)
        built, said = self._built_under, self._said_through
        row = ProgressRow(saved.progress, resume, self._segments, built, said, self._pieces, self._effects)
        packed = msgspec.msgpack.encode(row)
        out.add(*changelog, PROGRESS_KEY, packed)
        return saved.nbytes + len(packed) - len(saved.progress)
