"""A worker in a process of its own, as `tocsin run --broker` starts one, with a few screws more.

    python worker_main.py '{"bootstrap": ..., "config": {...}, ...}'

The orders, beside ``bootstrap`` and ``config``:

``settle``, ``checkpoint_seconds``, ``instance``
    Go to :class:`streams.app.KafkaWorker`.
``session_timeout``
    Seconds after which the broker takes a silent worker for dead.
``fetch_bytes``, ``poll_records``
    How much one fetch brings of a partition, and one poll in all: they set the size of the batches.
``slow``
    Seconds to wait before each raw batch, so that a test has time to interfere.
``at_most``
    How many raw records a second it takes at most, whatever their batches.
``hurry``
    A file; once it is there, nothing is slow any more.
``metrics_port``
    Where it tells of itself.
``mutation``, ``clock``
    A protection to take out, and jumps of the wall clock: see :mod:`faults.hooks`.
``crash``
    ``[point, n]``: the process kills itself with SIGKILL when it is at that point (:data:`POINTS`) for the n-th time.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from streams.transport import RecordBatch

POINTS = (
    "intake-first-sent",  # dead letters, grave signals and dispositions are out, the columns not
    "intake-half-sent",  # some keyed partitions have the columns, others not
    "intake-sent",  # the columns are out, the offset is not committed
    "intake-committed",
    "assess-open",  # everything sent, the transaction neither committed nor aborted
    "assess-ending",  # the commit is on its way
    "assess-committed",
    "escalate-open",
    "escalate-ending",
    "escalate-committed",
)
"""Before, amid and after every step of the three protocols."""


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Fuse:
    """Ends the process when its point is reached for the n-th time."""

    def __init__(self, point: str, n: int) -> None:
        if point not in POINTS:
            raise ValueError(f"no such point: {point}")
        self.point, self.left = point, n

    def at(self, point: str) -> bool:
        """Whether it is time to die here."""
        if point != self.point:
            return False
        self.left -= 1
        return self.left <= 0

    def burn(self, point: str) -> None:
        if self.at(point):
            die()


def lay(fuse: Fuse) -> None:
    """Put the fuse into the stages and their producers."""
    from streams.kafka_assess import KafkaAssess
    from streams.kafka_escalate import KafkaEscalate
    from streams.kafka_intake import KafkaIntake

    send_first, send_keyed, commit = KafkaIntake._send_first, KafkaIntake._send_keyed, KafkaIntake._commit

    async def first(self: KafkaIntake, result: Any, producer: Any) -> None:
        await send_first(self, result, producer)
        if result.grave or result.dispositions or result.dead:
            fuse.burn("intake-first-sent")

    async def keyed(self: KafkaIntake, producer: Any, messages: Any) -> Any:
        events = any(message.columns for message in messages.values())
        if events and fuse.at("intake-half-sent"):
            some = sorted(messages)[: (len(messages) + 1) // 2]
            await asyncio.gather(*await send_keyed(self, producer, {part: messages[part] for part in some}))
            die()
        sent = await send_keyed(self, producer, messages)
        if events and fuse.at("intake-sent"):
            await asyncio.gather(*sent)
            die()
        return sent

    async def committed(self: KafkaIntake, *arguments: Any) -> None:
        await commit(self, *arguments)
        fuse.burn("intake-committed")

    KafkaIntake._send_first, KafkaIntake._send_keyed, KafkaIntake._commit = first, keyed, committed  # type: ignore[method-assign]
    _around_checkpoint(KafkaAssess, "assess", fuse)
    _around_checkpoint(KafkaEscalate, "escalate", fuse)


def _around_checkpoint(stage: Any, name: str, fuse: Fuse) -> None:
    checkpoint: Callable[..., Any] = stage.checkpoint

    async def watched(self: Any, producer: Any) -> None:
        # Only checkpoints with something to lose: a segment or signals; alerts.
        worth = bool(self.stage._fresh or self._signals) if name == "assess" else bool(self._alerts)
        if not worth or fuse.point not in (f"{name}-open", f"{name}-ending"):
            await checkpoint(self, producer)
        else:
            commit = producer.commit_transaction

            async def ending() -> None:
                await producer.flush()
                fuse.burn(f"{name}-open")
                if fuse.at(f"{name}-ending"):
                    asyncio.get_running_loop().call_later(0.001, die)
                await commit()

            producer.commit_transaction = ending
            try:
                await checkpoint(self, producer)
            finally:
                del producer.commit_transaction
        if worth:
            fuse.burn(f"{name}-committed")

    stage.checkpoint = watched


def slow_down(orders: dict[str, Any]) -> None:
    """Have intake wait before each batch, as long as the batch is large or as it is told."""
    from streams.kafka_intake import KafkaIntake

    batch = KafkaIntake.batch

    async def slowly(self: KafkaIntake, taken: RecordBatch, *arguments: Any) -> None:
        until = time.monotonic() + orders.get("slow", 0.0)
        if "at_most" in orders:
            until += len(taken.records) / orders["at_most"]
        while (left := until - time.monotonic()) > 0 and not os.path.exists(orders.get("hurry", "")):
            await asyncio.sleep(min(left, 0.2))
        await batch(self, taken, *arguments)

    KafkaIntake.batch = slowly  # type: ignore[method-assign]


def work(orders: dict[str, Any]) -> None:
    from streams import transport_client
    from streams.app import KafkaWorker, Topology
    from streams.config import Config
    from streams.health import HealthServer
    from streams.kafka_client import BrokerAddress, Security, describe
    from streams.meter import SILENT
    from streams.metrics import Metrics

    config = Config.parse(orders["config"], "orders")
    address = BrokerAddress.parse(orders["bootstrap"])
    states = describe(address, config.topic_prefix, Security())
    topology = Topology(
        {name: state.partitions for name, state in states.items()},
        frozenset(name for name, state in states.items() if state.given_times),
    )
    if "poll_records" in orders:
        transport_client.POLL_RECORDS = orders["poll_records"]
    if "crash" in orders:
        lay(Fuse(*orders["crash"]))
    if "mutation" in orders:
        from faults.hooks import mutate

        mutate(orders["mutation"])
    if "clock" in orders:
        from faults.hooks import bend_clock

        bend_clock(*orders["clock"])
    if "slow" in orders or "at_most" in orders:
        slow_down(orders)
    catalogue = config.load_catalogue()
    metrics = Metrics(config, catalogue, "kafka", cells=[]) if "metrics_port" in orders else None
    worker = KafkaWorker(
        config,
        catalogue,
        str(address),
        topology,
        instance=orders.get("instance"),
        checkpoint_seconds=orders.get("checkpoint_seconds", 1.0),
        settle=orders.get("settle", 3.0),
        meter=metrics or SILENT,
    )
    settings = worker.app.conf
    settings.broker_session_timeout = orders.get("session_timeout", 6.0)
    settings.consumer_max_fetch_size = orders.get("fetch_bytes", settings.consumer_max_fetch_size)
    with HealthServer(metrics, "127.0.0.1", orders["metrics_port"]) if metrics is not None else nullcontext():
        worker.run("INFO")


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
