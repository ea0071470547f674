"""Intake on Kafka: raw batches in; keyed events, dead letters and grave signals out.

The protocol for one batch of a raw partition:

1. decode, check and pack (:mod:`streams.intake`);
2. send dead letters, grave signals and dispositions, and await their acknowledgements: a tick that a watermark lets
   close must find them written;
3. send the columns with the new watermark to every keyed partition;
4. once they are acknowledged, commit the raw offset, with the running maximum of time in its metadata.

Nobody waits for the fourth step: the next batch is decoded meanwhile, and what waits to be committed goes in one
request. The order is kept all the same: a partition's batches are sent one after the other, by one producer, and a raw
offset is committed only after all that was sent before it is acknowledged. A crash in between sends the same again;
assess knows the events by their ids, escalate the grave alerts by theirs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from schemas.topics import topic_name
from streams.intake import Intake, IntakeResult, route
from streams.kafka_outbox import Outbox
from streams.logs import Refusals
from streams.meter import SILENT, Meter
from streams.ticks import COMPLETE, Origin
from streams.transport import TP, Consumer, RecordBatch
from streams.wire import KEYED_VERSION, Keyed, Routed, header, signal_key

__all__ = ["ARRIVAL_HEADER", "KafkaIntake"]

ARRIVAL_HEADER: Final = "tocsin-arrival"
"""On a grave signal: when its record arrived, to measure how soon its alert went out. It decides nothing."""
_AHEAD = 4
"""So many batches of a raw partition may be sent and not yet committed."""
_MARGIN_MS = 1_000
"""How far the brokers' clocks may differ from one another."""


class KafkaIntake:
    """The intake stage of one worker.

    Parameters
    ----------
    intake
        The pure stage.
    prefix, partitions
        Of the topics; how many keyed partitions there are.
    given_time
        Short names of the raw topics whose records keep their given time: their partitions count as exhausted once
        they have been read to their end and stayed quiet for ``settle`` seconds.
    meter
        Hears of the work.
    """

    def __init__(
        self,
        intake: Intake,
        prefix: str,
        partitions: int,
        given_time: frozenset[str],
        settle: float = 3.0,
        meter: Meter = SILENT,
    ) -> None:
        self._meter = meter
        self._refusals = Refusals()
        self.marks: dict[Origin, int] = {}
        self._intake = intake
        self._prefix = prefix
        self._partitions = partitions
        self._given = given_time
        self._settle = settle
        self._running_max: dict[Origin, int] = {}
        self._open: dict[TP, deque[asyncio.Task[None]]] = {}
        """Of each raw partition the batches that are sent and not yet committed."""
        self._acknowledged: dict[TP, tuple[int, tuple[int, str]]] = {}
        """What may be committed, and in which generation."""
        self._committing = asyncio.Lock()
        self._quiet_since: dict[Origin, float] = {}
        self._broker_time: int | None = None

    def origin(self, tp: TP) -> Origin:
        """The raw partition under its short name."""
        return tp.topic.removeprefix(self._prefix), tp.partition

    def assigned(self, committed: Mapping[TP, tuple[int, str]], tps: Iterable[TP]) -> None:
        """Take up raw partitions with the running maximum that was committed with their offsets."""
        self._running_max = {}
        self._quiet_since = {}
        self.marks = {}
        for tp in tps:
            text = committed[tp][1] if tp in committed else ""
            self._running_max[self.origin(tp)] = int(text) if text else -COMPLETE

    async def batch(self, batch: RecordBatch, producer: Any, consumer: Consumer) -> None:
        """Work off one batch by the protocol above; returns when it is sent."""
        origin = self.origin(batch.tp)
        began = time.perf_counter()
        result = self._intake.process(origin, batch.records, self._running_max[origin])
        self._running_max[origin] = self.marks[origin] = result.last_arrival
        self._meter.decoded(result, len(batch.records), time.perf_counter() - began)
        self._quiet_since.pop(origin, None)
        await self._send_first(result, producer)
        mark = (*origin, result.last_arrival, result.last_arrival)
        parts = route(result, self._partitions)
        sent = await self._send_keyed(
            producer,
            {p: Keyed(KEYED_VERSION, [mark], origin, part.pack() if len(part) else b"") for p, part in parts.items()},
        )
        before = self._open.setdefault(batch.tp, deque())
        while len(before) >= _AHEAD:
            await before.popleft()
        before.append(asyncio.create_task(self._follow([*before], sent, batch, result.last_arrival, consumer, began)))

    async def _follow(
        self,
        before: Sequence[asyncio.Task[None]],
        sent: Sequence[Awaitable[Any]],
        batch: RecordBatch,
        last_arrival: int,
        consumer: Consumer,
        began: float,
    ) -> None:
        """Commit a batch once it and those ``before`` it are acknowledged. A failure ends the process."""
        try:
            await asyncio.gather(*before)
            await self._acknowledgements(sent)
            self._acknowledged[batch.tp] = batch.generation, (batch.next_offset, str(last_arrival))
            await self._commit(consumer)
            self._meter.checkpointed("intake", time.perf_counter() - began)
        except Exception as error:
            consumer.fail(error, "intake")

    async def _commit(self, consumer: Consumer) -> None:
        """Commit all that is acknowledged; returns when it is done, by whomever."""
        async with self._committing:
            now, (acknowledged, self._acknowledged) = consumer.generation, (self._acknowledged, {})
            offsets = {tp: offset for tp, (generation, offset) in acknowledged.items() if generation == now}
            if offsets:
                await consumer.commit_offsets(offsets, now)

    async def settled(self) -> None:
        """Wait until all that was sent is committed, or no longer may be."""
        await asyncio.gather(*(task for tasks in self._open.values() for task in tasks))

    async def _send_first(self, result: IntakeResult, producer: Any) -> None:
        encode = msgspec.json.encode
        out = Outbox(self._prefix)
        for letter in result.dead:
            out.add("dead-letters", 0, letter.reason.encode(), encode(letter))
        for signal in result.grave:
            told = [*header("grave"), (ARRIVAL_HEADER, str(result.last_arrival).encode())]
            out.add("signals", 0, signal_key(signal), encode(signal), told)
        for arrival, disposition in result.dispositions:
            value = encode(Routed(arrival, disposition))
            out.add("signals", 0, disposition.alert_id.encode(), value, header("disposition"))
        await out.deliver(producer)
        self._meter.refused(result.dead)
        self._refusals.add(result.dead)

    async def _send_keyed(self, producer: Any, messages: Mapping[int, Keyed]) -> list[Awaitable[Any]]:
        """Send to keyed partitions; returns what is to be awaited: the acknowledgements."""
        topic = topic_name(self._prefix, "keyed-events")
        return [
            await producer.send(topic, msgspec.msgpack.encode(keyed), partition=partition)
            for partition, keyed in messages.items()
        ]

    async def _acknowledgements(self, sent: Sequence[Awaitable[Any]]) -> None:
        for acknowledged in await asyncio.gather(*sent):
            # keyed-events takes the broker's append time: this is how we read the broker's clock.
            self._broker_time = max(self._broker_time or 0, acknowledged.timestamp)

    async def idle(self, tps: frozenset[TP], producer: Any, consumer: Consumer, current: Callable[[], bool]) -> None:
        """Say how far the partitions that were read to their end have come, by the broker's clock.

        The clock is read before the end offsets: a record that comes later cannot carry an earlier append time.
        """
        clock = self._broker_time
        ends = await consumer.fetch_end_offsets(tps)
        now = time.monotonic()
        marks: list[tuple[str, int, int, int]] = []
        for tp in sorted(tps):
            origin, position = self.origin(tp), consumer.position(tp)
            if position is None or position < ends[tp] or origin not in self._running_max:
                self._quiet_since.pop(origin, None)
                continue
            last = self._running_max[origin]
            if origin[0] not in self._given:
                if clock is not None:
                    marks.append((*origin, clock - _MARGIN_MS, last))
            elif now - self._quiet_since.setdefault(origin, now) >= self._settle:
                marks.append((*origin, COMPLETE, last))
        if current():
            self.marks.update({(topic, part): mark for topic, part, mark, _ in marks})
            messages = {p: Keyed(KEYED_VERSION, marks) for p in range(self._partitions)}
            await self._acknowledgements(await self._send_keyed(producer, messages))
