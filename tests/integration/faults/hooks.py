"""What a test worker does to itself before it starts: its clock jumps, or one of the protections is taken out.

With a protection taken out the harness must fail: that is how the fault tests are tested themselves.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MUTATIONS", "bend_clock", "mutate"]


def _forget() -> None:
    """The ledger knows no event: what comes again counts again."""
    import numpy as np

    from streams.ledger import Ledger

    def known(self: Ledger, events: Any, revisions: Any, shards: Any) -> Any:
        return np.zeros(len(events), bool)

    Ledger.known = known  # type: ignore[method-assign]


def _commit_ahead() -> None:
    """Input positions run past the events that still wait for their tick."""
    from streams.assess import Assess
    from streams.kafka_assess import KafkaAssess

    Assess.oldest_waiting = lambda self, origin: None  # type: ignore[method-assign]
    KafkaAssess._resume_offset = lambda self: self.offset  # type: ignore[method-assign]


def _torn() -> None:
    """Outputs are durable before the state that knows of them, and not with it."""
    from streams.log import SqliteLog

    add = SqliteLog.add_segment

    def apart(self: SqliteLog, value: bytes, last: int) -> None:
        self._db.execute("COMMIT")
        time.sleep(0.5)
        self._db.execute("BEGIN IMMEDIATE")
        add(self, value, last)

    SqliteLog.add_segment = apart  # type: ignore[method-assign]


MUTATIONS: dict[str, Callable[[], None]] = {"forget": _forget, "commit-ahead": _commit_ahead, "torn": _torn}


def mutate(name: str) -> None:
    """Take a protection out of this process."""
    MUTATIONS[name]()


def bend_clock(seed: int, hours: Sequence[float], every: float) -> None:
    """Let this process's wall clock jump by one of ``hours`` each ``every`` seconds or so; its steady clock goes on."""
    import datetime

    from streams import embedded, kafka_escalate

    rng, real, began = random.Random(seed), time.time, time.monotonic()
    jumps = [(0.0, 0.0)]
    for _ in range(10_000):
        jumps.append((jumps[-1][0] + rng.uniform(0.3, 1.7) * every, rng.choice(hours)))
    at = 0

    def bent() -> float:
        nonlocal at
        since = time.monotonic() - began
        while at + 1 < len(jumps) and jumps[at + 1][0] <= since:
            at += 1
        return real() + jumps[at][1] * 3_600

    class Bent(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.fromtimestamp(bent(), tz)

    time.time = bent
    time.time_ns = lambda: int(bent() * 1e9)
    embedded.datetime = kafka_escalate.datetime = Bent  # type: ignore[attr-defined]
