"""Intake on Kafka: raw batches in; keyed events, dead letters and grave signals out.

The protocol for one batch of a raw partition:

1. decode, check and pack (:mod:`streams.intake`);
2. send dead letters, grave signals and dispositions, and await their acknowledgements: a tick that a watermark lets
   close must find them written;
3. send the columns with the new watermark to every keyed partition, and await;
4. commit the raw offset, with the running maximum of time in its metadata.

A crash in between sends the same again; assess knows the events by their ids, escalate the grave alerts by theirs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
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
        """Work off one batch by the protocol above."""
        origin = self.origin(batch.tp)
        began = time.perf_counter()
        result = self._intake.process(origin, batch.records, self._running_max[origin])
        self._meter.decoded(result, len(batch.records), time.perf_counter() - began)
        self._quiet_since.pop(origin, None)
        await self._send_first(result, producer)
        mark = (*origin, result.last_arrival, result.last_arrival)
        parts = route(result, self._partitions)
        await self._send_keyed(
            producer,
            {p: Keyed(KEYED_VERSION, [mark], origin, part.pack() if len(part) else b"") for p, part in parts.items()},
        )
        if await consumer.commit_offsets({batch.tp: (batch.next_offset, str(result.last_arrival))}, batch.generation):
            self._running_max[origin] = self.marks[origin] = result.last_arrival
            self._meter.checkpointed("intake", time.perf_counter() - began)

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

    async def _send_keyed(self, producer: Any, messages: Mapping[int, Keyed]) -> None:
        topic = topic_name(self._prefix, "keyed-events")
        sent = [
            await producer.send(topic, msgspec.msgpack.encode(keyed), partition=partition)
            for partition, keyed in messages.items()
        ]
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
            await self._send_keyed(producer, {p: Keyed(KEYED_VERSION, marks) for p in range(self._partitions)})
