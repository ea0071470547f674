"""One face for the two places where topics live: the embedded log and Kafka.

The commands publish to it and read from it without knowing which it is. Nothing here is on the hot path of a runtime.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from schemas.topics import partitions_of
from streams.decode import Record
from streams.log import SqliteLog, partition_for
from streams.ticks import Origin

__all__ = ["EmbeddedMedium", "Medium", "Outgoing", "Writer", "headers_of"]


class Outgoing(NamedTuple):
    """A record to be written: time is its given time in epoch milliseconds (a broker's append time may override)."""

    time: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


def headers_of(record: Record) -> tuple[tuple[str, bytes], ...]:
    """The headers of a record, to be written again; one without a value is empty."""
    return tuple((name, value or b"") for name, value in record.headers or ())


class Writer(Protocol):
    """Where records can be written to."""

    def write(self, topic: str, records: Sequence[Outgoing]) -> None:
        """Append; on return every record is acknowledged as durable."""
        ...


class Medium(Writer, Protocol):
    """Where topics live. Topics go by their short names."""

    def ends(self, topics: Sequence[str]) -> dict[Origin, int]:
        """The end offset of every partition of some topics, in order."""
        ...

    def starts(self, topics: Sequence[str]) -> dict[Origin, int]:
        """The first offset that every partition of some topics still holds, in order."""
        ...

    def read(self, origin: Origin, offset: int, end: int, batch: int) -> Iterator[Sequence[Record]]:
        """The records of a partition from ``offset`` below ``end``, in batches."""
        ...

    def follow(
        self, topics: Sequence[str], stop: Callable[[], bool], *, from_start: bool
    ) -> Iterator[tuple[Origin, Record]]:
        """Records as they come, for ever or until ``stop`` answers True."""
        ...

    def close(self) -> None: ...


class EmbeddedMedium:
    """The embedded log as a medium."""

    def __init__(self, log: SqliteLog) -> None:
        self.log = log

    def write(self, topic: str, records: Sequence[Outgoing]) -> None:
        parts = partitions_of(topic, self.log.partitions)
        with self.log.transaction():
            self.log.append(topic, [(partition_for(r.key, parts), r.time, r.key, r.value, r.headers) for r in records])

    def ends(self, topics: Sequence[str]) -> dict[Origin, int]:
        return self.log.ends(topics)

    def starts(self, topics: Sequence[str]) -> dict[Origin, int]:
        return dict.fromkeys(self.log.ends(topics), 0)  # the log keeps everything

    def read(self, origin: Origin, offset: int, end: int, batch: int) -> Iterator[Sequence[Record]]:
        while offset < end:
            records = self.log.read(origin, offset, batch, end)
            if not records:
                return
            yield records
            offset = records[-1].offset + 1

    def follow(
        self, topics: Sequence[str], stop: Callable[[], bool], *, from_start: bool
    ) -> Iterator[tuple[Origin, Record]]:
        position = dict.fromkeys(self.log.ends(topics), 0) if from_start else self.log.ends(topics)
        while True:
            ends = self.log.ends(topics)
            for origin, end in ends.items():
                for records in self.read(origin, position.get(origin, 0), end, 500):
                    yield from ((origin, record) for record in records)
                position[origin] = end
            if stop():
                return
            time.sleep(0.2)

    def close(self) -> None:
        self.log.close()
