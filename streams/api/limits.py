"""What an upload may cost: bytes, rows, time, requests a minute, and how many go on at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import msgspec

__all__ = ["Busy", "Limits", "RateLimiter", "Slots"]

_MOST_BUCKETS: Final = 10_000


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on one upload and on one token.

    Parameters
    ----------
    body_bytes
        Of an upload as it is sent.
    unpacked_bytes
        Of an upload once it is unpacked (gzip, XLSX).
    document_bytes
        Of a JSON document, which has to be taken whole; NDJSON and CSV are read in pieces.
    rows
        Lines, sheet rows or array elements of an upload.
    idle_seconds, body_seconds
        For the next bytes of a body, and for all of it.
    head_seconds
        For a connection to come with a request.
    requests_per_minute, burst
        Of one token, over time and at once.
    uploads, uploads_per_token
        At the same time.
    connections
        At the same time; the longest idle is closed when there are more.
    """

    body_bytes: int = 64 << 20
    unpacked_bytes: int = 256 << 20
    document_bytes: int = 16 << 20
    rows: int = 200_000
    idle_seconds: float = 20.0
    body_seconds: float = 300.0
    head_seconds: float = 15.0
    requests_per_minute: int = 120
    burst: int = 60
    uploads: int = 4
    uploads_per_token: int = 2
    connections: int = 256


class RateLimiter:
    """A token bucket for each key.

    Examples
    --------
    >>> moments = iter([0.0, 0.0, 0.0, 30.0])
    >>> limiter = RateLimiter(2, burst=2, clock=lambda: next(moments))
    >>> [limiter.take("a") for _ in range(4)]
    [0, 0, 30, 0]
    """

    def __init__(self, per_minute: int, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = per_minute / 60.0
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> int:
        """Take one from the key's bucket; returns the whole seconds to wait where it is empty, else 0."""
        now = self._clock()
        level, since = self._buckets.get(key, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        wait = 0 if level >= 1.0 else max(1, math.ceil((1.0 - level) / self._rate))
        self._buckets[key] = (level if wait else level - 1.0, now)
        self._buckets.move_to_end(key)
        while len(self._buckets) > _MOST_BUCKETS:  # who was not seen for longest has a full bucket again
            self._buckets.popitem(last=False)
        return wait


class Busy(Exception):
    """No upload can be taken now."""


class Slots:
    """How many uploads go on, in all and of each key. Nobody waits in line: who comes too many is told to come back,
    as a line of waiting bodies would be memory that strangers command."""

    def __init__(self, every: int, each: int) -> None:
        self._every = every
        self._each = each
        self._held: Counter[str] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()

    @asynccontextmanager
    async def one(self, key: str) -> AsyncIterator[None]:
        """Hold a slot; Busy where there is none."""
        if self._held.total() >= self._every or self._held[key] >= self._each:
            raise Busy
        self._held[key] += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
            if not self._held:
                self._idle.set()

    async def idle(self) -> None:
        """Wait until no slot is held."""
        await self._idle.wait()
