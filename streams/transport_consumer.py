"""The transport's side of Faust: the gate, the hand-over and the commits. See :mod:`streams.transport`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, cast

from faust.sensors import Sensor
from faust.transport.conductor import Conductor as FaustConductor
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode import Service

from schemas.errors import TocsinError
from streams.transport_client import ClientThread, Offsets
from streams.transport_ledger import Ledger, RecordBatch

__all__ = ["Conductor", "Consumer", "PartitionOwner", "Transport", "end_process"]

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
PATIENCE_SECONDS = 10.0
STOP_SECONDS = 30.0


class PartitionOwner(Protocol):
    """Who keeps state for partitions: hears when they come and go."""

    async def on_assigned(self, tps: frozenset[TP], generation: int) -> Mapping[TP, int]:
        """Restore; return where partitions are to start. Cancelled if they are revoked meanwhile."""

    async def on_revoked(self, tps: frozenset[TP]) -> None:
        """Let go of all partitions; the last chance to commit under their generation."""

    async def on_end(self) -> None:
        """Close what outlives generations: the process is about to end in order."""


def end_process(error: BaseException, where: str) -> None:
    """Log an error and end the process with status 1, without any cleaning up. What a person can mend is one line;
    all else is a bug, and has its traceback."""
    # Not its repr: a UnicodeDecodeError's has all the bytes.
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, TocsinError):
        logger.critical("%s failed; ending the process: %s", where, error)
    else:
        logger.critical("%s failed; ending the process: %s", where, said, exc_info=error)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class Consumer(driver.Consumer):
    """Hands over batches, commits on demand, keeps the gate. All methods belong to the app's event loop."""

    _thread: ClientThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        transport = cast(Transport, self.transport)
        self.ledger = Ledger(transport.max_batches, transport.max_bytes)
        self._restoring: asyncio.Task[None] | None = None
        self._in_hand: dict[RecordBatch, int] = {}
        self._retiring = asyncio.Lock()
        self._wake = asyncio.Event()
        self._hands_changed = asyncio.Event()
        self.app.sensors.add(_Hands(self))

    def _new_consumer_thread(self) -> ClientThread:
        return ClientThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def owner(self) -> PartitionOwner | None:
        """The owner that the transport was given."""
        return cast(Transport, self.transport).owner

    # -- what agents and owners use

    @property
    def generation(self) -> int:
        """The number of the present assignment, from 1; 0 before the first."""
        return self.ledger.generation

    def is_current(self, batch: RecordBatch) -> bool:
        """Tell whether a batch is of the present generation and from after the last seek."""
        return self.ledger.is_current(batch)

    # Faust's is a coroutine, and tells how far the client has fetched, finished or not.
    def position(self, tp: TP) -> int | None:  # type: ignore[override]
        """The offset below which nothing is left to do; None while not known, or not ours."""
        return self.ledger.position(tp)

    def end_offset(self, tp: TP) -> int | None:
        """The last stable offset as of the last poll of the partition; None while it is not known."""
        return self.ledger.end_offset(tp)

    async def fetch_end_offsets(self, tps: Iterable[TP]) -> dict[TP, int]:
        """Ask the broker for the last stable offsets, of any partitions."""
        return await self._thread.end_offsets(tps)

    async def committed_offsets(self, tps: Iterable[TP]) -> dict[TP, tuple[int, str]]:
        """Ask the broker for the group's committed offsets and metadata; a partition without is left out."""
        return await self._thread.committed_offsets(tps)

    async def commit_offsets(self, offsets: Offsets, generation: int) -> bool:
        """Commit exactly these offsets with their metadata.

        Parameters
        ----------
        offsets
            By partition, the next offset to read, and metadata (at most 4 KiB by the broker's default).
        generation
            The generation under which the records below were read.

        Returns
        -------
        bool
            True when the broker has confirmed; False when the generation is over and nothing was committed.

        Raises
        ------
        ValueError
            A partition is not assigned in the generation.
        aiokafka.errors.KafkaError
            The broker refuses, and would again.
        """
        ledger = self.ledger
        if not ledger.may_commit(generation):
            return False
        if foreign := offsets.keys() - ledger.tps:
            raise ValueError(f"cannot commit partitions that are not assigned: {sorted(foreign)}")
        if not offsets:
            return True
        return await self._thread.commit_offsets(
            dict(offsets), ledger.kafka_generation, lambda: ledger.may_commit(generation)
        )

    async def seek_to(self, tp: TP, offset: int) -> None:
        """Go on reading a partition elsewhere; batches fetched before no longer count."""
        if tp not in self.ledger.tps:
            raise ValueError(f"cannot seek in a partition that is not assigned: {tp}")
        generation, run = self.ledger.generation, self.ledger.new_run(tp)
        await self._thread.start_reading(generation, {tp: run}, {tp: offset})
        self.ledger.sought(tp, run, offset)
        self._wake.set()

    # -- assignment and revocation

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Begin a generation; restore in the background, since heartbeats only begin when this returns."""
        await super().on_partitions_assigned(assigned, generation_id)
        if self.app.should_stop:
            return
        generation = self.ledger.begin(assigned, generation_id)
        logger.info("generation %d: assigned %s", generation, _names(assigned))
        self._restoring = asyncio.create_task(self._guard(self._restore(generation), "restoring partitions"))

    async def _restore(self, generation: int) -> None:
        tps = self.ledger.tps
        await self._hands_empty(None)
        if not tps:
            return
        chosen = await self.owner.on_assigned(tps, generation) if self.owner else {}
        offsets = await self._starts(tps, {tp: chosen[tp] for tp in tps if tp in chosen})
        runs = self.ledger.runs()
        await self._thread.start_reading(generation, runs, offsets)
        for tp, offset in offsets.items():
            self.ledger.sought(tp, runs[tp], offset)
        self.ledger.open = True
        self._wake.set()

    async def _starts(self, tps: frozenset[TP], chosen: Mapping[TP, int]) -> dict[TP, int]:
        """Return where each partition starts: as chosen, else as committed, else at its first offset."""
        committed = await self._thread.committed_offsets(tps - chosen.keys())
        starts = {tp: offset for tp, (offset, _) in committed.items()} | dict(chosen)
        first, end = await self._thread.begin_offsets(tps), await self._thread.end_offsets(tps)
        for tp, offset in starts.items():
            if not first[tp] <= offset <= end[tp]:
                # The client falls back to the first offset; records are missing or will be seen again.
                logger.error("%s should start at %d, but holds %d to %d", tp, offset, first[tp], end[tp])
        return {tp: starts.get(tp, first[tp]) for tp in tps}

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Close the gate, let Faust clear its queues, let agents and owner finish."""
        self.ledger.close()
        await super().on_partitions_revoked(revoked)
        await self.retire(self.app.conf.broker_rebalance_timeout / 2)

    async def retire(self, patience: float) -> None:
        """Give up all partitions: close the gate, wait for agents to finish their batch, tell the owner."""
        ledger = self.ledger
        ledger.close()
        async with self._retiring:
            await self._cancel_restore()
            tps = ledger.tps
            if not ledger.live:
                return
            if not await self._hands_empty(patience):
                # Half a batch may be in the owner's state: nothing of this generation may be committed now.
                logger.error("an agent did not finish its batch in %.0f s: its generation is over", patience)
                ledger.live = False
            if tps and self.owner:
                await self._guard(self.owner.on_revoked(tps), "giving up partitions")
            logger.info("generation %d: gave up %s", ledger.generation, _names(tps))
            ledger.end()

    async def retire_for_good(self) -> None:
        """Give up all partitions before a shutdown, which must not wait for ever for a lost broker."""
        try:
            await asyncio.wait_for(self.retire(PATIENCE_SECONDS), STOP_SECONDS)
        except TimeoutError:
            logger.error("the owner did not let go of its partitions in %.0f s", STOP_SECONDS)
            self.ledger.end()

    async def _cancel_restore(self) -> None:
        task, self._restoring = self._restoring, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    # -- delivery

    async def _drain_messages(self, fetcher: Any) -> None:
        """Poll and hand over, for as long as Faust's fetcher runs."""
        try:
            await self._guard(self._deliver_until_stopped(fetcher), "delivery")
        except asyncio.CancelledError:
            # During a rebalance Faust's fetcher would take this for a crash, and no stop would be clean.
            if not self.app.should_stop:
                raise

    async def _deliver_until_stopped(self, fetcher: Any) -> None:
        while not (self.should_stop or fetcher.should_stop):
            wanted = self.ledger.fetchable() if self.flow_active else set()
            if not wanted:
                self._wake.clear()
                await _first(self._wake.wait(), IDLE_SECONDS)
                continue
            try:
                fetched = await self._thread.poll(wanted)
            except self.consumer_stopped_errors:
                if self.app.should_stop:
                    return
                raise
            for batch in self.ledger.accept(fetched):
                await self._hand_over(batch)

    async def _hand_over(self, batch: RecordBatch) -> None:
        if not (self.ledger.open and self.ledger.is_current(batch)):
            return  # overtaken while an earlier batch of the same poll was handed over
        tp = batch.tp
        message = ConsumerMessage(
            topic=batch.topic,
            partition=batch.partition,
            offset=batch.first_offset,
            timestamp=batch.records[0].timestamp / 1000.0,
            timestamp_type=0,
            headers={},
            key=None,
            value=cast(Any, batch),
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=batch.nbytes,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        # Faust's flow control may block here until the rebalance is over; the batch is stale by then.
        await self.wait_first(cast(Any, self.callback(message)), cast(Any, self.suspend_flow.wait()))

    def taken(self, batch: RecordBatch) -> None:
        """Note that a stream has handed a batch to its agent."""
        self._in_hand[batch] = self._in_hand.get(batch, 0) + 1

    def given_back(self, batch: RecordBatch, *, by_all: bool) -> None:
        """Note that an agent is done with a batch; ``by_all`` if no other agent is still to have it."""
        self._in_hand[batch] = self._in_hand.get(batch, 1) - 1
        if not self._in_hand[batch]:
            del self._in_hand[batch]
        if by_all:
            self.ledger.finish(batch)
        self._wake.set()
        self._hands_changed.set()

    async def _hands_empty(self, patience: float | None) -> bool:
        """Wait until no agent holds a batch; False if patience ends first."""
        waited = 0.0
        while self._in_hand:
            self._hands_changed.clear()
            pause = PATIENCE_SECONDS if patience is None else min(PATIENCE_SECONDS, patience - waited)
            if pause <= 0:
                return False
            started = self.loop.time()
            await _first(self._hands_changed.wait(), pause)
            waited += self.loop.time() - started
            if waited >= PATIENCE_SECONDS:
                logger.warning("still waiting for agents to finish %s", _names(b.tp for b in self._in_hand))
        return True

    # -- Faust's own bookkeeping, out of action

    @Service.task
    async def _commit_handler(self) -> None:
        """Instead of committing now and then: see that the client is well, and say that we are."""
        while not self.should_stop:
            await self._guard(self._thread.sign_of_life(), "the Kafka client")
            await self.sleep(IDLE_SECONDS)

    @Service.task
    async def _commit_livelock_detector(self) -> None:
        """Complain about nothing: Faust's detector counts its own commits."""

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing: Faust does not know what is safe."""
        return False

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit nothing."""
        return False

    def ack(self, message: Any) -> bool:
        """Acknowledge nothing."""
        return False

    async def perform_seek(self) -> None:
        """Seek nowhere: the restore does."""

    def resume_flow(self) -> None:
        """Go on after a rebalance."""
        super().resume_flow()
        self._wake.set()

    def close(self) -> None:
        """Leave closing to the client's thread."""

    async def on_task_error(self, exc: BaseException) -> None:
        """End the process: an agent failed, and what it held is unfinished."""
        self.fail(exc, "an agent")

    def fail(self, error: BaseException, where: str) -> None:
        """Refuse all further commits and end the process."""
        self.ledger.end()
        cast(Transport, self.transport).end_process(error, where)

    async def _guard(self, work: Awaitable[Any], where: str) -> None:
        try:
            await work
        except Exception as error:
            self.fail(error, where)

    async def on_stop(self) -> None:
        """Give up what is left; commit nothing (so not Faust's own ``on_stop``, which would)."""
        await self.retire_for_good()
        if self.owner is not None:
            try:
                await asyncio.wait_for(self._guard(self.owner.on_end(), "closing"), PATIENCE_SECONDS)
            except TimeoutError:
                logger.warning("the owner did not close in %.0f s", PATIENCE_SECONDS)
        cast(Transport, self.transport)._topic_waiters.clear()


class _Hands(Sensor):
    """Learns from Faust's streams which batches are in agents' hands."""

    def __init__(self, consumer: Consumer, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._consumer = consumer

    def on_stream_event_in(self, tp: TP, offset: int, stream: Any, event: Any) -> None:
        if isinstance(event.value, RecordBatch):
            self._consumer.taken(event.value)

    def on_stream_event_out(self, tp: TP, offset: int, stream: Any, event: Any, state: Any = None) -> None:
        if isinstance(event.value, RecordBatch):
            self._consumer.given_back(event.value, by_all=event.message.acked)


class Conductor(FaustConductor):
    """Faust's conductor, which keeps no list of acknowledged offsets."""

    def acks_enabled_for(self, topic: str) -> bool:
        """Say no: the list would only grow."""
        return False


class Transport(driver.Transport):
    """The transport for ``tocsin://host:port``. Set ``owner`` before the app starts."""

    Consumer = Consumer
    Conductor = Conductor
    owner: PartitionOwner | None = None
    max_batches = 8
    """A partition with so many batches that its agents have not finished is not polled."""
    max_bytes = 4 * 1024 * 1024
    """Nor one with about so much memory in such batches."""
    end_process: Callable[[BaseException, str], None] = staticmethod(end_process)


async def _first(work: Awaitable[Any], seconds: float) -> None:
    """Wait for something, but not longer."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(work, seconds)


def _names(tps: Iterable[TP]) -> str:
    return ", ".join(f"{tp.topic}-{tp.partition}" for tp in sorted(tps)) or "nothing"
