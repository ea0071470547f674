"""The Kafka runtime: a Faust app with one agent a stage.

    raw topics -> intake -> keyed-events -> assess -> signals -> escalate -> emergency-response

Faust forms the group and spreads the partitions; the batch transport (:mod:`streams.transport`) hands over what was
fetched and commits only what a stage tells it to. Workers may join and leave at any time: a partition changes hands by
fencing its former owner, reading its changelog, and going on where the last checkpoint stood.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import faust
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from schemas.catalogue import Catalogue
from schemas.topics import topic_name
from streams.config import Config
from streams.embedded import INPUTS
from streams.garbage import few_collections
from streams.intake import Intake
from streams.kafka_assess import KafkaAssess
from streams.kafka_connection import BATCH_BYTES
from streams.kafka_escalate import KafkaEscalate
from streams.kafka_intake import KafkaIntake
from streams.logs import JSON_LOGGING, LogFormat
from streams.meter import SILENT, Meter
from streams.ticks import Origin
from streams.transport import TP, BatchApp, Consumer, RecordBatch, consumer_of, make_app

__all__ = ["KafkaWorker", "Topology"]

logger = logging.getLogger("tocsin.worker")
_TICKS_AT_ONCE = 50
_RESTORES_AT_ONCE = 8
_POLL_SECONDS = 0.5
_REST_SECONDS = 0.1
"""So soon what a tick has found goes out when nothing else is to be done."""
_MEASURE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Topology:
    """What the broker says of our topics: partitions of each, and which raw topics keep given times."""

    partitions: Mapping[str, int]
    given_time: frozenset[str]

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Every raw partition."""
        return tuple((name, p) for name in INPUTS for p in range(self.partitions[name]))


@dataclass(slots=True)
class _Owned:
    """The partitions of one generation."""

    generation: int
    raw: frozenset[TP]
    assess: dict[int, KafkaAssess] = field(default_factory=dict)
    escalate: KafkaEscalate | None = None
    producers: dict[str, AIOKafkaProducer] = field(default_factory=dict)
    busy: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By role: held while its state changes and while it is written, which partitions do beside one another."""


class _Process(faust.Worker):
    """Faust's process, which also heeds the signals that came before it could."""

    told: Sequence[int] = ()

    def install_signal_handlers(self) -> None:
        super().install_signal_handlers()
        for number in self.told:
            signal.raise_signal(number)


class KafkaWorker:
    """One worker process: owner of partitions and of the three agents.

    Parameters
    ----------
    config, catalogue
        As for the stages.
    bootstrap
        ``host:port``, several divided by commas.
    topology
        From :func:`streams.kafka_client.describe`.
    client
        Keyword arguments of aiokafka clients (bootstrap servers, security).
    credentials
        The same for Faust.
    checkpoint_seconds
        Least time between two checkpoints of a partition, but for what a tick has found when nothing else is to be
        done.
    meter
        Hears of the work.
    """

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        bootstrap: str,
        topology: Topology,
        *,
        client: dict[str, Any] | None = None,
        credentials: Any = None,
        instance: str | None = None,
        checkpoint_seconds: float = 1.0,
        settle: float = 3.0,
        meter: Meter = SILENT,
    ) -> None:
        self._meter = meter
        self._config = config
        self._catalogue = catalogue
        self._topology = topology
        self._client = {"bootstrap_servers": bootstrap, **(client or {})}
        self._pause = checkpoint_seconds
        self.group = f"{config.topic_prefix}{config.name}"
        self._keyed = topology.partitions["keyed-events"]
        self.intake = KafkaIntake(
            Intake(config, catalogue), config.topic_prefix, self._keyed, topology.given_time, settle, meter
        )
        self._owned: _Owned | None = None
        self._output: AIOKafkaProducer | None = None
        self.app: BatchApp = make_app(
            self.group, bootstrap, owner=self, credentials=credentials, group_instance_id=instance
        )
        self._declare()

    def _name(self, topic: str) -> str:
        return topic_name(self._config.topic_prefix, topic)

    def _declare(self) -> None:
        app = self.app
        raw = app.topic(*(self._name(topic) for topic in INPUTS))
        keyed, signals = app.topic(self._name("keyed-events")), app.topic(self._name("signals"))

        @app.agent(raw, name="intake")
        async def intake(batches: Any) -> None:
            async for batch in batches:
                await self._on_raw(batch)

        @app.agent(keyed, name="assess")
        async def assess(batches: Any) -> None:
            async for batch in batches:
                await self._on_keyed(batch)

        @app.agent(signals, name="escalate")
        async def escalate(batches: Any) -> None:
            async for batch in batches:
                await self._on_signals(batch)

        # One timer each: closing the ticks of a long record must not hold up the watermarks that others wait for.
        app.timer(interval=_POLL_SECONDS)(self._on_quiet)
        app.timer(interval=_POLL_SECONDS)(self._on_idle)
        app.timer(interval=_REST_SECONDS)(self._on_rest)
        if self._meter.on:
            app.timer(interval=_MEASURE_SECONDS)(self._on_measure)

    @property
    def escalates(self) -> bool:
        """Whether this worker is the one that raises alerts now."""
        return self._owned is not None and self._owned.escalate is not None

    @property
    def _consumer(self) -> Consumer:
        return consumer_of(self.app)

    # --- ownership -------------------------------------------------------------------------------------------------

    async def on_assigned(self, tps: frozenset[TP], generation: int) -> Mapping[TP, int]:
        """Fence former owners, restore the state of the partitions, and say where their input goes on."""
        self._meter.assigning()
        names = {self._name(topic) for topic in INPUTS}
        owned = _Owned(generation, frozenset(tp for tp in tps if tp.topic in names))
        self.intake.assigned(await self._consumer.committed_offsets(owned.raw) if owned.raw else {}, owned.raw)
        if self._output is None:
            self._output = await self._producer(acks="all")
        starts: dict[TP, int] = {}
        try:
            room = asyncio.Semaphore(_RESTORES_AT_ONCE)  # with dozens of partitions most of it is waiting
            keyed = sorted(tp for tp in tps if tp.topic == self._name("keyed-events"))
            offsets = await _all_of(self._restore_assess(owned, tp.partition, room) for tp in keyed)
            starts.update(zip(keyed, offsets, strict=True))
            for tp in tps:
                if tp.topic == self._name("signals"):
                    starts[tp] = await self._restore_escalate(owned)
        except BaseException:
            await self._release(owned)
            raise
        self._owned = owned
        escalates = int(owned.escalate is not None)
        self._meter.serving({"intake": len(owned.raw), "assess": len(owned.assess), "escalate": escalates})
        logger.info("generation %d: %d raw, %d assess partitions%s", generation, len(owned.raw), len(owned.assess),
                    ", escalate" if owned.escalate else "")  # fmt: skip
        return starts

    async def _restore_assess(self, owned: _Owned, partition: int, room: asyncio.Semaphore) -> int:
        async with room:
            await self._fence(owned, f"assess-{partition}")
            part = KafkaAssess(
                self._config, self._catalogue, self._topology.origins, partition, self.group, self._meter
            )
            offset = await part.restore(self._client)
            owned.assess[partition] = part
            return offset

    async def _restore_escalate(self, owned: _Owned) -> int:
        await self._fence(owned, "escalate")
        owned.escalate = KafkaEscalate(self._config, self._catalogue, self._keyed, self.group, self._meter)
        return await owned.escalate.restore(self._client)

    async def _fence(self, owned: _Owned, role: str) -> None:
        """Start the role's transactional producer: the broker ends a former owner's transaction and shuts it out."""
        owned.producers[role] = await self._producer(transactional_id=f"{self.group}-{role}")

    async def _producer(self, **settings: Any) -> AIOKafkaProducer:
        """A producer that is started, or closed again where a revocation breaks that off."""
        producer = AIOKafkaProducer(**self._client, **_SENDING, **settings)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def on_revoked(self, tps: frozenset[TP]) -> None:
        """Let go: what is not in a checkpoint is read again by the next owner."""
        owned, self._owned = self._owned, None  # from here on nobody begins anything
        self._meter.assigning()
        await self.intake.settled()
        if owned is not None:
            for role in sorted(owned.busy):
                async with owned.busy[role]:
                    pass  # who had begun has ended
            await self._release(owned)

    async def on_end(self) -> None:
        """Close the producer that all generations share."""
        if self._output is not None:
            await self._output.stop()

    async def _release(self, owned: _Owned) -> None:
        for role in sorted(owned.producers):
            await owned.producers[role].stop()

    # --- the three agents ------------------------------------------------------------------------------------------

    def _current(self, batch: RecordBatch) -> _Owned | None:
        owned = self._owned
        return owned if owned is not None and self._consumer.is_current(batch) else None

    async def _on_raw(self, batch: RecordBatch) -> None:
        if self._current(batch) is not None:
            await self.intake.batch(batch, self._output, self._consumer)

    async def _on_keyed(self, batch: RecordBatch) -> None:
        owned = self._current(batch)
        if owned is None:
            return
        part = owned.assess[batch.partition]
        async with owned.busy[f"assess-{part.partition}"]:
            if self._current(batch) is not owned:
                return
            part.take(batch)
        await self._advance(owned, part)

    async def _advance(self, owned: _Owned, part: KafkaAssess, *, at_rest: bool = False) -> None:
        """Close what can be closed, a little at a time: in between the other agents have their turn, and a rebalance,
        for which what is not in a checkpoint is dropped anyway."""
        more, role = True, f"assess-{part.partition}"
        while more:
            async with owned.busy[role]:
                if self._owned is not owned or not self._consumer.ledger.open:
                    return
                more = part.close(_TICKS_AT_ONCE)
                if part.due(self._pause, at_rest=at_rest and not more):
                    await part.checkpoint(owned.producers[role])
            await asyncio.sleep(0)

    async def _advance_all(self, owned: _Owned, *, at_rest: bool = False) -> None:
        """The same in every partition; ``at_rest`` only where something is to be written: whoever finished a batch has
        closed what it let close, so there is nothing else to do."""
        parts = [owned.assess[partition] for partition in sorted(owned.assess)]
        if at_rest:
            parts = [part for part in parts if part.due(self._pause, at_rest=True)]
        await asyncio.gather(*(self._advance(owned, part, at_rest=at_rest) for part in parts))

    async def _on_signals(self, batch: RecordBatch) -> None:
        owned = self._current(batch)
        if owned is None or owned.escalate is None:
            return
        async with owned.busy["escalate"]:
            if self._current(batch) is not owned:
                return
            owned.escalate.take(batch)
            if owned.escalate.due(self._pause):
                await owned.escalate.checkpoint(owned.producers["escalate"])

    async def _on_quiet(self) -> None:
        """Watermarks of idle partitions."""
        owned = self._owned
        self._meter.beat()
        if owned is not None and self._output is not None:
            await self.intake.idle(owned.raw, self._output, self._consumer, lambda: self._owned is owned)

    async def _on_idle(self) -> None:
        """The checkpoints of a tail that nothing follows."""
        owned = self._owned
        if owned is None:
            return
        await self._advance_all(owned)
        async with owned.busy["escalate"]:
            if self._owned is owned and owned.escalate is not None and owned.escalate.due(self._pause):
                await owned.escalate.checkpoint(owned.producers["escalate"])

    async def _on_rest(self) -> None:
        """What ticks have found, when nothing else is to be done."""
        owned = self._owned
        if owned is not None and self._consumer.ledger.at_rest:
            await self._advance_all(owned, at_rest=True)

    async def _on_measure(self) -> None:
        """Where the partitions stand, for the meter."""
        owned, ledger, at = self._owned, self._consumer.ledger, self._consumer.position
        if owned is None:
            if ledger.live and not ledger.tps:  # there are more workers than partitions: this one stands by
                self._meter.serving({"intake": 0, "assess": 0, "escalate": 0})
            return
        try:
            ends = await self._consumer.fetch_end_offsets(ledger.tps)
            kept = {TP(self._name("assess-changelog"), part) for part in owned.assess}
            kept |= {TP(self._name("escalate-changelog"), 0)} if owned.escalate is not None else set()
            logs = await self._consumer.fetch_end_offsets(kept)
        except KafkaError as error:
            logger.warning("cannot tell how far the partitions are behind: %r", error)
            return
        if self._owned is owned:
            self._meter.changelogs({self.intake.origin(tp): end for tp, end in logs.items()})
            self._meter.positions({self.intake.origin(tp): (at(tp), end) for tp, end in ends.items()})
            self._meter.watermarks(self.intake.marks)

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self, loglevel: str = "WARNING", log_format: LogFormat = "text", told: Sequence[int] = ()) -> None:
        """Run until SIGTERM or SIGINT, also one that came before and stands in ``told``; a failure ends the process
        with status 1."""
        # A timer that overlaps only says that the worker is busy, and how busy it is its metrics tell.
        logging.getLogger("mode.timers").setLevel(logging.ERROR)
        how = JSON_LOGGING if log_format == "json" else None
        worker = _Process(self.app, loglevel=loglevel, quiet=True, redirect_stdouts=False, logging_config=how)
        worker.told = told
        worker.spinner = None  # it would write a terminal's control characters to wherever standard output goes
        with few_collections():
            worker.execute_from_commandline()


async def _all_of(work: Iterable[Coroutine[Any, Any, int]]) -> list[int]:
    """What all come to. Where one fails, the others are ended before that is told: else they would go on with what is
    being given up."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


_SENDING: dict[str, Any] = {
    "max_request_size": 8 << 20,
    "compression_type": None,
    "max_batch_size": BATCH_BYTES,
    "linger_ms": 0,
    "enable_idempotence": True,
}
