"""The transport's side of aiokafka: polling, seeking and committing in the consumer's own thread.

Faust runs its Kafka consumer in a thread with an event loop of its own, so that heartbeats go on while an
agent computes. All that touches aiokafka's inner objects is in this module. Four things there are not
plain:

- *What a poll returns is stamped with the run in force when it was drained*, not when the poll was asked
  for: a seek or a rebalance may come in between, and aiokafka then goes on from the new position.
- *A commit bears the Kafka generation of its assignment.* aiokafka's own ``commit()`` retries with whatever
  generation holds by then, and can so commit for a partition that another member already reads.
- *A sign of life stands in for a poll.* aiokafka leaves the group when nobody polled for
  ``max_poll_interval``; a restore polls nothing, and is not dead.
- *Each poll asks for the coordinator's errors.* Stock Faust does not, and hangs silently when joining
  fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import MethodQueue

from streams.transport_fetch import fetched
from streams.transport_ledger import Fetched, RecordBatch, batch_bytes

__all__ = ["ClientThread", "Offsets"]

Offsets = Mapping[TP, tuple[int, str]]
"""What is committed: the next offset to read and its metadata, by partition."""

POLL_RECORDS = 20_000
"""Records of one poll: a fetch of many tiny records comes in pieces, so that the loops stay responsive."""
POLL_SECONDS = 0.5
FETCH_WAIT_MS = 100
"""A waiting fetch holds up other questions to the same broker, so it must not wait long."""
FETCH_BYTES = 32 * 1024 * 1024
RETRY_SECONDS = 0.1
CLOSE_SECONDS = 10.0
START_POLL_SECONDS = 0.01

LOST_MEMBERSHIP = (
    errors.UnknownMemberIdError,
    errors.IllegalGenerationError,
    errors.RebalanceInProgressError,
)


class ClientThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with our client settings, polls and commits."""

    _generation = 0
    _runs: Mapping[TP, int]
    _told_to_stop = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._runs = {}
        self._committing = asyncio.Lock()

    @property
    def method_queue(self) -> MethodQueue:
        """Calls from the main loop. Faust's two workers could both be held by a poll and a commit."""
        if self._method_queue is None:
            self._method_queue = MethodQueue(num_workers=8, loop=self.thread_loop, beacon=self.beacon)
        return self._method_queue

    # -- the client

    def _create_worker_consumer(self, transport: Any) -> Any:
        conf = self.app.conf
        # Sticky, and balanced within each group of topics that have equally many partitions. Without tables
        # stock Faust takes aiokafka's round robin, which moves nearly every partition at each rebalance.
        self._assignor = self.app.assignor
        return AIOKafkaConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id or None,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_poll_interval_ms=int((conf.broker_max_poll_interval or 300.0) * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            fetch_max_wait_ms=FETCH_WAIT_MS,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            check_crcs=conf.broker_check_crcs,
            metadata_max_age_ms=conf.consumer_metadata_max_age_ms,
            connections_max_idle_ms=conf.consumer_connections_max_idle_ms,
            **driver.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    # -- its life

    async def start(self) -> None:
        """Start the thread, unless it was told to stop before: nobody would ever tell it again."""
        if not self._told_to_stop:
            await super().start()

    async def stop(self) -> None:
        """Stop the thread, also one that has begun but does not serve yet.

        Faust's own takes that one for never started and leaves it alone; it comes to life, nobody ends it, and the
        process hangs.
        """
        self._told_to_stop = True
        while self._thread_started.is_set() and not self._started.is_set() and self._thread_lives():
            await asyncio.sleep(START_POLL_SECONDS)
        await super().stop()

    def _thread_lives(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """Do nothing: Faust would use the wrong event loop, and ``on_thread_stop`` closes the client."""

    async def on_thread_stop(self) -> None:
        """Close the client; without a broker aiokafka's own cleaning up may raise, and Faust would hang."""
        try:
            await asyncio.wait_for(super().on_thread_stop(), CLOSE_SECONDS)
        except (asyncio.CancelledError, TimeoutError, errors.KafkaError) as error:
            self.log.warning("the Kafka client did not close cleanly: %r", error)

    async def sign_of_life(self) -> None:
        """Tell aiokafka that the consumer is not stuck, and raise what its background tasks ran into."""
        if self._consumer is not None:
            await self.call_thread(self._sign_of_life)

    async def _sign_of_life(self) -> None:
        client = self._ensure_consumer()
        client._coordinator.check_errors()
        with client._subscription.fetch_context():
            pass

    # -- reading

    async def poll(self, tps: Iterable[TP]) -> Fetched:
        """Return what there is in these partitions, waiting a little; at least one must be given."""
        answer: Fetched = await self.call_thread(self._poll, frozenset(tps))
        return answer

    async def _poll(self, tps: frozenset[TP]) -> Fetched:
        client = self._ensure_consumer()
        client._coordinator.check_errors()
        if client._closed or client._fetcher._closed:
            raise errors.ConsumerStoppedError()
        with client._subscription.fetch_context():
            drained = await fetched(client._fetcher, tps, POLL_SECONDS, POLL_RECORDS)
        # No await from here on: positions, runs and records must be of the same moment.
        return self._stamp(drained)

    def _stamp(self, drained: Mapping[Any, list[Any]]) -> Fetched:
        """Put the present runs, positions and ends on what was drained."""
        states = self._states(self._runs)
        positions = {tp: state.position for tp, state in states.items() if state.has_valid_position}
        ends = {tp: state.lso for tp, state in states.items() if state.lso is not None and state.lso >= 0}
        batches = [
            RecordBatch(
                topic=tp.topic,
                partition=tp.partition,
                generation=self._generation,
                run=self._runs[tp],
                records=records,
                next_offset=positions[tp],
                end_offset=ends.get(tp),
                nbytes=batch_bytes(records),
            )
            for tp, records in drained.items()
            if tp in self._runs and tp in positions
        ]
        return Fetched(batches, positions, ends, dict(self._runs))

    def _states(self, tps: Iterable[TP]) -> dict[TP, Any]:
        subscription = self._ensure_consumer()._subscription.subscription
        if subscription is None or subscription.assignment is None:
            return {}
        found = {tp: subscription.assignment.state_value(tp) for tp in tps}
        return {tp: state for tp, state in found.items() if state is not None}

    async def start_reading(self, generation: int, runs: Mapping[TP, int], offsets: Mapping[TP, int]) -> None:
        """Put partitions at their offsets, and stamp what is read from now on with a generation and runs."""
        await self.call_thread(self._start_reading, generation, runs, offsets)

    async def _start_reading(self, generation: int, runs: Mapping[TP, int], offsets: Mapping[TP, int]) -> None:
        same = generation == self._generation
        client = self._ensure_consumer()
        for tp, offset in offsets.items():
            client.seek(TopicPartition(*tp), offset)
        self._generation = generation
        self._runs = {**self._runs, **runs} if same else dict(runs)

    # -- offsets

    async def commit_offsets(self, offsets: Offsets, kafka_generation: int, may: Callable[[], bool]) -> bool:
        """Commit exactly these offsets as a member of a Kafka generation; False if that is over."""
        done: bool = await self.call_thread(self._commit_offsets, offsets, kafka_generation, may)
        return done

    async def _commit_offsets(self, offsets: Offsets, kafka_generation: int, may: Callable[[], bool]) -> bool:
        coordinator = self._ensure_consumer()._coordinator
        wanted = {TopicPartition(*tp): OffsetAndMetadata(*value) for tp, value in offsets.items()}
        # One at a time: a retried commit must not overwrite a later one.
        async with self._committing:
            while True:
                await coordinator.ensure_coordinator_known()
                # _do_commit_offsets builds its request, with the generation of this moment, before it yields.
                if not may() or coordinator.generation != kafka_generation:
                    return False
                try:
                    await coordinator._do_commit_offsets(None, wanted)
                except LOST_MEMBERSHIP:
                    return False
                except errors.KafkaError as error:
                    if not error.retriable:
                        raise
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    return True

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, tuple[int, str]]:
        """Return the group's committed offsets and metadata; partitions without are left out."""
        found = await self.call_thread(
            self._ensure_consumer()._coordinator.fetch_committed_offsets, [TopicPartition(*tp) for tp in tps]
        )
        return {TP(*tp): (value.offset, value.metadata) for tp, value in found.items()}

    async def begin_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Ask the broker for the first offsets."""
        return await self._ask(self._ensure_consumer().beginning_offsets, tps)

    async def end_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Ask the broker for the last stable offsets."""
        return await self._ask(self._ensure_consumer().end_offsets, tps)

    async def _ask(self, question: Callable[..., Any], tps: Iterable[TP]) -> dict[TP, int]:
        wanted = [TopicPartition(*tp) for tp in tps]
        found = await self.call_thread(question, wanted) if wanted else {}
        return {TP(*tp): offset for tp, offset in found.items()}
