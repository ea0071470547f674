"""What has been fetched, handed over and finished: the transport's book, without I/O.

The book belongs to one event loop. A *generation* is one assignment of partitions to this process; a *run*
is one unbroken stretch of a partition's records, ended by a seek or by the end of the generation. A batch
counts while both its generation and its run are the present ones; any other is as if it had never been
fetched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from faust.types import TP

if TYPE_CHECKING:
    from streams.decode import Record

__all__ = ["Fetched", "Ledger", "RecordBatch"]

RECORD_OVERHEAD = 400
"""Bytes that a fetched record costs in Python objects besides its key and value."""


@dataclass(frozen=True, slots=True, eq=False)
class RecordBatch:
    """Records of one partition, in order, as fetched: the value of the message that an agent receives.

    Attributes
    ----------
    topic, partition
        Where the records come from.
    generation
        The assignment under which they were fetched.
    run
        The stretch of reading that they belong to; each seek begins another.
    records
        ``offset``, ``timestamp`` (ms), ``key``, ``value``, ``headers`` of each; raw bytes or None. Never empty.
    next_offset
        Where reading goes on: past transaction markers and compacted records behind the last record.
    end_offset
        The last stable offset when the batch was fetched, if the broker said.
    nbytes
        About how much memory the batch holds.
    """

    topic: str
    partition: int
    generation: int
    run: int
    records: Sequence[Record]
    next_offset: int
    end_offset: int | None = None
    nbytes: int = 0

    @property
    def tp(self) -> TP:
        """The batch's topic and partition."""
        return TP(self.topic, self.partition)

    @property
    def first_offset(self) -> int:
        """The offset of the first record."""
        return self.records[0].offset


def batch_bytes(records: Sequence[Record]) -> int:
    """Estimate the memory that records hold."""
    values, keys = [record.value for record in records], [record.key for record in records]
    payload = sum(map(len, filter(None, values))) + sum(map(len, filter(None, keys)))
    return payload + RECORD_OVERHEAD * len(records)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The answer to one poll: batches, and how far every partition has been read, records or not."""

    batches: Sequence[RecordBatch] = ()
    positions: Mapping[TP, int] = field(default_factory=dict)
    ends: Mapping[TP, int] = field(default_factory=dict)
    runs: Mapping[TP, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Reading:
    """One partition of the present generation."""

    run: int
    position: int | None = None
    end: int | None = None
    unfinished: deque[RecordBatch] = field(default_factory=deque)
    nbytes: int = 0

    @property
    def at_rest(self) -> bool:
        read = self.position is not None and self.end is not None and self.position >= self.end
        return read and not self.unfinished


class Ledger:
    """The book of one consumer.

    Parameters
    ----------
    max_batches, max_bytes
        A partition is not polled while it has this many batches, or bytes in batches, that the agents have
        not finished. The batch that crosses the line is still taken: memory stays below ``max_bytes`` and one
        fetch.
    """

    def __init__(self, max_batches: int = 8, max_bytes: int = 4 * 1024 * 1024) -> None:
        self.max_batches = max_batches
        self.max_bytes = max_bytes
        self.generation = 0
        self.kafka_generation = -1
        self.open = False
        """Whether batches may be handed over."""
        self.live = False
        """Whether the generation may still commit: until its ``on_revoked`` has returned."""
        self._runs = 0
        self._readings: dict[TP, _Reading] = {}

    @property
    def tps(self) -> frozenset[TP]:
        """The partitions of the present generation."""
        return frozenset(self._readings)

    def begin(self, tps: Iterable[TP], kafka_generation: int) -> int:
        """Begin a generation, closed; whatever went before is forgotten."""
        self.generation += 1
        self.kafka_generation = kafka_generation
        self.open, self.live = False, True
        self._runs += 1
        self._readings = {tp: _Reading(self._runs) for tp in tps}
        return self.generation

    def close(self) -> None:
        """Hand over nothing more in this generation; it may still commit."""
        self.open = False

    def end(self) -> None:
        """End the generation: nothing of it may be committed any more."""
        self.open = self.live = False
        self._readings = {}

    def may_commit(self, generation: int) -> bool:
        """Tell whether offsets of this generation may be committed."""
        return self.live and generation == self.generation

    def new_run(self, tp: TP) -> int:
        """Begin another run of a partition, before a seek: its unfinished batches no longer count."""
        self._runs += 1
        self._readings[tp] = _Reading(self._runs, end=self._readings[tp].end)
        return self._runs

    def sought(self, tp: TP, run: int, offset: int) -> None:
        """Note where a run starts, unless it has been overtaken or has already been read from."""
        reading = self._readings.get(tp)
        if reading is not None and reading.run == run and reading.position is None:
            reading.position = offset

    def runs(self) -> dict[TP, int]:
        """The present run of every partition."""
        return {tp: reading.run for tp, reading in self._readings.items()}

    @property
    def at_rest(self) -> bool:
        """Whether all that there is has been read and finished, as of the last poll."""
        return self.open and all(reading.at_rest for reading in self._readings.values())

    def fetchable(self) -> set[TP]:
        """The partitions to poll: those whose agents keep up."""
        if not self.open:
            return set()
        return {
            tp
            for tp, reading in self._readings.items()
            if len(reading.unfinished) < self.max_batches and reading.nbytes < self.max_bytes
        }

    def accept(self, fetched: Fetched) -> Iterator[RecordBatch]:
        """Enter a poll's answer; yield what is to be handed over. What is stale is dropped here.

        Everything is entered before the first batch is yielded, so that a position never runs ahead of the
        batches that lead to it.
        """
        fresh = [batch for batch in fetched.batches if self.open and self.is_current(batch)]
        for batch in fresh:
            reading = self._readings[batch.tp]
            reading.unfinished.append(batch)
            reading.nbytes += batch.nbytes
        for tp, run in fetched.runs.items():
            known = self._readings.get(tp)
            if known is not None and known.run == run:
                known.position = fetched.positions.get(tp, known.position)
                known.end = fetched.ends.get(tp, known.end)
        return iter(fresh)

    def is_current(self, batch: RecordBatch) -> bool:
        """Tell whether a batch belongs to the present generation and run of its partition."""
        reading = self._readings.get(batch.tp)
        return reading is not None and batch.generation == self.generation and batch.run == reading.run

    def finish(self, batch: RecordBatch) -> None:
        """Note that the agents are done with a batch."""
        reading = self._readings.get(batch.tp)
        if reading is not None and batch in reading.unfinished:
            reading.unfinished.remove(batch)
            reading.nbytes -= batch.nbytes

    def position(self, tp: TP) -> int | None:
        """The offset below which nothing is left to do; None while it is not known."""
        reading = self._readings.get(tp)
        if reading is None:
            return None
        return reading.unfinished[0].first_offset if reading.unfinished else reading.position

    def end_offset(self, tp: TP) -> int | None:
        """The partition's end as of the last poll; None while it is not known."""
        reading = self._readings.get(tp)
        return None if reading is None else reading.end

    def unfinished(self, tp: TP) -> int:
        """How many batches of a partition have been fetched and not finished."""
        reading = self._readings.get(tp)
        return 0 if reading is None else len(reading.unfinished)
