"""Batches of records from Kafka through Faust, and commits that are exactly ours.

Faust forms the group, assigns partitions, runs agents and timers. How records reach the agents, and what is
committed, is decided here, by a subclass of Faust's aiokafka transport. The story of a partition:

1. **Assignment.** Kafka assigns partitions to this process. The transport begins a new *generation*, a
   number of its own (:attr:`Consumer.generation`). Nothing is handed over yet, and the callback returns to
   the client at once, because heartbeats only begin then. What follows may take as long as it needs while
   the event loop turns; a loop blocked for ``max_poll_interval`` counts as dead and loses its partitions.
2. **Letting go.** If an agent still holds a batch of an earlier generation, it is waited for: no owner
   restores state that an agent is still changing.
3. **Restore.** ``owner.on_assigned(partitions, generation)`` reads back state. It returns the offsets where
   partitions are to start; the others start at the group's committed offset, else at the first one there
   is. If the partitions are taken away meanwhile, the coroutine is cancelled.
4. **Gate.** Every partition is put at its offset, explicitly, since the client may have fetched already.
   Then the gate opens.
5. **Delivery.** What one poll brings for one partition is one Faust message, whose value is one
   :class:`RecordBatch`: raw bytes, not decoded. An agent has finished a batch when it asks for the next
   one. A partition with ``max_batches`` unfinished batches, or ``max_bytes`` bytes in them, is not polled.
   Batches of an older generation, or from before a seek, are dropped; an agent tells one that was already
   in its queue by :meth:`Consumer.is_current`.
6. **Commit.** Only :meth:`Consumer.commit_offsets` commits: those offsets with that metadata, as a member
   of the Kafka generation under which the partitions were assigned. It returns False when that is over; the
   broker checks too. Faust's acknowledgements, gaps and commit timers are out of action.
7. **Read to its end.** :meth:`Consumer.position` is the offset below which nothing is left to do:
   everything is finished, or is no record (a transaction marker, a compacted one). A partition was read to
   its end when the position is not below what :meth:`Consumer.fetch_end_offsets` answered *before* the
   position was asked for.
8. **Revocation.** The gate closes, queued batches are dropped, and agents may finish the one they hold.
   Then comes ``owner.on_revoked(partitions)``, in which the generation may still commit; then it is over.
   Kafka waits for this as long as ``rebalance_timeout``; who takes longer has its commits refused.
   Assignment is *eager*: at each rebalance every member gives up everything, and mostly gets the same
   again. A clean shutdown is revocation too; ``owner.on_end()`` comes after it.
9. **Failure.** An exception in an agent, in the owner, in a timer or in the client is logged and ends the
   process at once with status 1: no restart past unfinished events, no last commit, nothing flushed. It is
   no other than ``kill -9``.
"""

from __future__ import annotations

from typing import Any, cast

import faust
from faust.app import BootStrategy
from faust.types import TP
from faust.types.auth import CredentialsT
from mode.supervisors import SupervisorStrategy

from streams.transport_consumer import Consumer, PartitionOwner, Transport, end_process
from streams.transport_ledger import RecordBatch

__all__ = [
    "TP",
    "BatchApp",
    "Consumer",
    "PartitionOwner",
    "RecordBatch",
    "Transport",
    "consumer_of",
    "make_app",
]


class _Undecoded(faust.Schema[Any, Any]):
    """Passes a batch on as it is."""

    def compile(self, app: Any, **kwargs: Any) -> Any:
        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, {}, message)

        return decode


class _NoRestart(SupervisorStrategy):
    """Ends the process where Faust would restart an agent (one that was cancelled, say) past what it held."""

    async def restart_services(self, services: list[Any]) -> None:
        for service in services:
            end_process(service.crash_reason or RuntimeError("an agent died"), repr(service))


class _Boot(BootStrategy):
    """Starts no web server, even though Faust's command line would switch one on."""

    enable_web = False


class BatchApp(faust.App):
    """A Faust app on this transport. Use :func:`make_app`."""

    BootStrategy = _Boot

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Create none: nothing is stored beside Kafka."""

    async def _stop_consumer(self) -> None:
        """Let agents finish and the owner commit before Faust cancels them."""
        if self._consumer is not None:
            self.flow_control.suspend()
            self.flow_control.clear()
            await cast(Consumer, self._consumer).retire_for_good()
        await super()._stop_consumer()

    def _crash(self, reason: BaseException) -> None:
        """End the process: a timer, a task or a service failed."""
        cast(Transport, self.transport).end_process(reason, "the app")


def consumer_of(app: faust.App) -> Consumer:
    """Return the app's consumer by its real type."""
    return cast(Consumer, app.consumer)


def make_app(
    name: str,
    broker: str,
    *,
    owner: PartitionOwner | None = None,
    credentials: CredentialsT | None = None,
    session_timeout: float = 10.0,
    rebalance_timeout: float = 60.0,
    max_poll_interval: float = 300.0,
    max_partition_fetch_bytes: int = 1024 * 1024,
    group_instance_id: str | None = None,
    **settings: Any,
) -> BatchApp:
    """Make a Faust app that gets batches and commits nothing by itself.

    Parameters
    ----------
    name
        The app's name, and Kafka's consumer group.
    broker
        ``host:port``, several divided by commas.
    owner
        Hears of partitions that come and go.
    credentials
        Faust's: ``faust.SASLCredentials``, ``faust.SSLCredentials``, ...
    session_timeout
        Seconds without heartbeats after which the broker gives a dead worker's partitions to others (brokers
        refuse less than 6 by default).
    rebalance_timeout
        Seconds that members get to give up their partitions at a rebalance.
    max_poll_interval
        Seconds that the event loop may be blocked before the worker counts as stuck and leaves the group.
    max_partition_fetch_bytes
        How much of a partition one fetch brings, compressed.
    group_instance_id
        A name that survives restarts (a pod's, say): static membership. A worker that is back within
        ``session_timeout`` finds its partitions untouched; but until then nobody serves them, even after a
        clean stop.
    settings
        Further Faust settings.
    """
    urls = [f"tocsin://{host.strip().removeprefix('tocsin://')}" for host in broker.split(",")]
    app = BatchApp(
        name,
        broker=urls,
        broker_credentials=credentials,
        broker_session_timeout=session_timeout,
        broker_heartbeat_interval=min(1.0, session_timeout / 3),
        broker_rebalance_timeout=rebalance_timeout,
        broker_request_timeout=max(40.0, session_timeout),
        broker_max_poll_interval=max_poll_interval,
        consumer_max_fetch_size=max_partition_fetch_bytes,
        consumer_group_instance_id=group_instance_id or "",
        consumer_auto_offset_reset="earliest",
        agent_supervisor=_NoRestart,
        Schema=_Undecoded,
        store="memory://",
        stream_wait_empty=False,
        table_standby_replicas=0,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
        **settings,
    )
    cast(Transport, app.transport).owner = owner
    return app
