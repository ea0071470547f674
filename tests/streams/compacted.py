"""A transactional producer and a changelog in one, kept in memory: no broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class Batch:
    """Stands for aiokafka's: it takes whatever it is given."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, bytes | None]] = []

    def append(self, *, timestamp: None, key: bytes, value: bytes | None, headers: list[Any]) -> object:
        self.rows.append((key, value))
        return self


class Compacted:
    """Stands for aiokafka's producer and for a changelog: of what is sent there it holds the last value of each key."""

    def __init__(self, topic: str) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._topic = topic

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(self, batch: Batch, topic: str, *, partition: int) -> asyncio.Future[None]:
        for key, value in batch.rows if topic == self._topic else ():
            self.rows.pop(key, None)
            if value is not None:
                self.rows[key] = value
        acknowledged: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged

    async def send_offsets_to_transaction(self, *_: Any) -> None:
        """Nobody asks for them here."""

    async def read(self, *_: Any) -> dict[bytes, bytes]:
        """Stands for :func:`streams.kafka_assess.read_changelog`."""
        return dict(self.rows)
