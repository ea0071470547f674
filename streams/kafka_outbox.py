"""What a stage writes at once: records of several partitions, packed into batches here and acknowledged together.

aiokafka's ``send`` takes a record at a time, with a future for each, and holds up who has filled a batch until it has
gone out. And it lets a transaction commit without a record that the broker refused, unless somebody asks that future.
So a stage collects what it has to say in an :class:`Outbox`, whose ``deliver`` raises where anything was refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from schemas.topics import topic_name

__all__ = ["Outbox"]

Headers = Sequence[tuple[str, bytes]]
Row = tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]
"""Key, value and headers of a record."""


class Outbox:
    """Records to be written, by topic and partition, in order; ``prefix`` of the topics' names."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._rows: dict[tuple[str, int], list[Row]] = {}

    def add(self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> None:
        """Note a record for a partition of a topic (its short name)."""
        self._rows.setdefault((topic_name(self._prefix, topic), partition), []).append((key, value, list(headers)))

    def add_pieces(self, topic: str, partition: int, kind: bytes, pieces: Sequence[bytes], before: int) -> int:
        """Note numbered records of a kind, and tombstones for those of ``before`` that are needed no more. Returns how
        many there are now."""
        for number, piece in enumerate([*pieces, *[None] * (before - len(pieces))]):
            self.add(topic, partition, kind + b"%d" % number, piece)
        return len(pieces)

    async def deliver(self, producer: Any) -> None:
        """Send everything and await its acknowledgement.

        Within a transaction this comes before its offsets, and the first batches of all partitions go out together:
        a broker that is asked to add a partition or a group to a transaction meanwhile refuses what is written in
        it (``NOT_ENOUGH_REPLICAS``, since Kafka 4), and the client would try again only after its long pause.

        Raises
        ------
        aiokafka.errors.KafkaError
            The broker refuses a record.
        """
        packed = {where: _packed(producer, rows) for where, rows in self._rows.items()}
        self._rows = {}
        sent = [
            await producer.send_batch(batches[0], topic, partition=part) for (topic, part), batches in packed.items()
        ]
        for (topic, part), batches in packed.items():
            sent += [await producer.send_batch(batch, topic, partition=part) for batch in batches[1:]]
        await asyncio.gather(*sent)


def _packed(producer: Any, rows: list[Row]) -> list[Any]:
    """aiokafka's batches with the records; one that is too large for any has a batch of its own."""
    batches = [producer.create_batch()]
    for key, value, headers in rows:
        while batches[-1].append(timestamp=None, key=key, value=value, headers=headers) is None:
            batches.append(producer.create_batch())
    return batches
