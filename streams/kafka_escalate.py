"""Escalate on Kafka: one transaction for the alerts and the state, which knows the input offset.

1. Signals, markers, grave signals and dispositions are applied in the order in which they stand in ``signals``.
2. Alerts go to ``emergency-response``, the snapshot with the offset to ``escalate-changelog``, in one transaction:
   each revision of an alert is there once, and never without the state that knows of it.

A snapshot that is larger than a record may be goes in pieces: the first in the row ``state`` (oversight's in
``oversight``), the others in rows of their own.
"""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from aiokafka import TopicPartition as Partition

from schemas.alerts import Alert, Signal
from schemas.catalogue import Catalogue
from schemas.topics import topic_name
from streams.config import Config, built_under
from streams.decode import Record
from streams.escalate import Escalate
from streams.kafka_assess import check_built, end_of, read_changelog, read_committed
from streams.kafka_intake import ARRIVAL_HEADER
from streams.kafka_outbox import Outbox
from streams.logs import log_alert
from streams.meter import SILENT, Meter
from streams.stored import KAFKA_MEND, mend, reading
from streams.transport import RecordBatch
from streams.wire import ClosedMarker, Routed, Told, kind_of

__all__ = ["KafkaEscalate"]

logger = logging.getLogger(__name__)

_STATE, _STATE_PIECE = b"state", b"state-"
_OVERSIGHT, _OVERSIGHT_PIECE = b"oversight", b"oversight-"
_OFFSET_PAUSE: Final = 1.0
"""Seconds for which the group's offset may lag behind what is written."""
_PIECE_BYTES: Final = 4 << 20
"""Of a snapshot in one row, with room to spare below the largest record (``MAX_RECORD_BYTES``)."""


def _whole(kind: bytes, first: bytes, pieces: int, rows: dict[bytes, bytes]) -> bytes:
    """A snapshot put together again."""
    return b"".join([first, *(rows[kind + b"%d" % number] for number in range(pieces))])


def _further(snapshot: bytes) -> list[bytes]:
    """What of a snapshot its first row cannot hold, in pieces."""
    return [snapshot[at : at + _PIECE_BYTES] for at in range(_PIECE_BYTES, len(snapshot), _PIECE_BYTES)]


def _say_foreign(partition: str, record: Record, error: Exception) -> None:
    mend = "let nobody but tocsin write to this topic"
    logger.error("%s@%d is passed over, it is no record of ours (%s); %s", partition, record.offset, error, mend)


class _Row(msgspec.Struct, array_like=True):
    snapshot: bytes
    offset: int
    built_under: str = ""
    again_until: int = 0
    """Below this offset of its input every alert was written before the state was given up."""
    pieces: int = 0
    """How many rows hold what is left of the snapshot,"""
    oversight_pieces: int = 0
    """and how many what is left of oversight's."""


class _Revision(msgspec.Struct):
    id: str
    revision: int


class KafkaEscalate:
    """The escalate stage with its transactional producer."""

    def __init__(
        self, config: Config, catalogue: Catalogue, partitions: int, group: str, meter: Meter = SILENT
    ) -> None:
        self._meter = meter
        self._prefix = config.topic_prefix
        self._group = group
        self._built_under = built_under(config, catalogue)
        self.stage = Escalate(config, catalogue, partitions)
        self.offset = 0
        self._alerts: list[Alert] = []
        self._again_until = 0
        self._written: set[tuple[str, int]] = set()
        """Alerts and revisions that a state that was given up had written, until its input has been read again."""
        self._pieces = self._oversight_pieces = 0
        self._dirty = False
        self._checkpointed = time.monotonic()
        """When the group's offset was told last."""

    async def restore(self, client: dict[str, Any]) -> int:
        """Rebuild the state from its last snapshot; returns the offset at which the input goes on."""
        topic = topic_name(self._prefix, "escalate-changelog")
        self._meter.restoring("escalate", 0, 0.0)
        last = await read_changelog(client, topic, 0)
        held, oversight = last.get(_STATE), last.get(_OVERSIGHT)
        with mend(topic, KAFKA_MEND):
            if held is not None:
                with reading("escalate's state"):
                    row = msgspec.msgpack.decode(held, type=_Row)
                    snapshot = _whole(_STATE_PIECE, row.snapshot, row.pieces, last)
                check_built(row.built_under, self._built_under, topic)
                self.stage.restore(snapshot)
                self.offset, self._again_until = row.offset, row.again_until
                self._pieces, self._oversight_pieces = row.pieces, row.oversight_pieces
            if oversight is not None:
                with reading("the state of oversight"):
                    oversight = _whole(_OVERSIGHT_PIECE, oversight, self._oversight_pieces, last)
                self.stage.oversight.restore(oversight)
        if held is None:
            # The state was given up (streams.kafka_rebuild), or never was.
            self._again_until = await end_of(client, topic_name(self._prefix, "signals"), 0)
        if self.offset < self._again_until:  # no revision is written twice
            responses = topic_name(self._prefix, "emergency-response")
            async for record in read_committed(client, responses, 0):
                try:
                    alert = msgspec.json.decode(record.value or b"", type=_Revision)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    _say_foreign(f"{responses}-0", record, error)
                else:
                    self._written.add((alert.id, alert.revision))
        self._meter.restoring("escalate", 0, 1.0)
        self._tell_standing()
        return self.offset

    def take(self, batch: RecordBatch) -> None:
        """Apply a batch of ``signals`` in order; records that are not ours are passed over."""
        began = time.perf_counter()
        for record in batch.records:
            try:
                self._take(record)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the broker's checksum was good: it is not ours
                _say_foreign(f"{batch.topic}-{batch.partition}", record, error)
        self.offset = batch.next_offset
        self._dirty = True
        self._meter.took("escalate", len(batch.records), time.perf_counter() - began)

    def _take(self, record: Record) -> None:
        kind, partition = kind_of(record.headers)
        if record.value is None:
            return
        if kind == "signal":
            self.stage.offer(partition, None, [msgspec.json.decode(record.value, type=Signal)])
        elif kind == "tally":
            told = msgspec.json.decode(record.value, type=Told)
            self.stage.offer(partition, None, (), [(told.tick, told.tally)])
        elif kind == "closed":
            marker = msgspec.json.decode(record.value, type=ClosedMarker)
            self.stage.offer(marker.partition, marker.through, ())
            self._alerts += self.stage.close()
        elif kind == "grave":
            signal = msgspec.json.decode(record.value, type=Signal)
            arrival = dict(record.headers).get(ARRIVAL_HEADER) or record.timestamp
            self._meter.arrived([signal.alert_id], int(arrival))
            self._alerts += self.stage.grave(signal)
        elif kind == "disposition":
            routed = msgspec.json.decode(record.value, type=Routed)
            self.stage.dispose(routed.arrival, routed.disposition)

    def due(self, pause: float) -> bool:
        """Alerts do not wait; the state alone may, for ``pause`` seconds."""
        return bool(self._alerts) or (self._dirty and time.monotonic() - self._checkpointed >= pause)

    async def checkpoint(self, producer: Any) -> None:
        """Write alerts and state in one transaction.

        The state says where the input goes on. The group's offset says the same to whoever measures the lag, and it
        alone, so it goes along only if it was not told for some time: its two requests would hold up the alerts.
        """
        began = time.perf_counter()
        alerts = [alert for alert in self._alerts if (alert.id, alert.revision) not in self._written]
        self._alerts = []
        if self.offset >= self._again_until:
            self._written.clear()
        now = datetime.now(UTC)
        out = Outbox(self._prefix)
        for alert in alerts:
            alert.emitted_at = now
            out.add("emergency-response", 0, alert.id.encode(), msgspec.json.encode(alert))
        nbytes = self._add_state(out)
        tells_offset = not alerts or time.monotonic() - self._checkpointed >= _OFFSET_PAUSE
        async with producer.transaction():
            await out.deliver(producer)
            if tells_offset:
                tp = Partition(topic_name(self._prefix, "signals"), 0)
                await producer.send_offsets_to_transaction({tp: self.offset}, self._group)
        self._dirty = not tells_offset
        if tells_offset:
            self._checkpointed = time.monotonic()
        self._meter.checkpointed("escalate", time.perf_counter() - began, nbytes)
        self._meter.emitted(alerts)
        self._tell_standing()
        for alert in alerts:
            log_alert(alert)

    def _add_state(self, out: Outbox) -> int:
        """Add what is to be stored; returns its bytes."""
        changelog = "escalate-changelog", 0
        snapshot, oversight = self.stage.snapshot(), self.stage.oversight.snapshot()
        self._pieces = out.add_pieces(*changelog, _STATE_PIECE, _further(snapshot), self._pieces)
        if oversight is not None:
            out.add(*changelog, _OVERSIGHT, oversight[:_PIECE_BYTES])
            more = _further(oversight)
            self._oversight_pieces = out.add_pieces(*changelog, _OVERSIGHT_PIECE, more, self._oversight_pieces)
        first, counts = snapshot[:_PIECE_BYTES], (self._pieces, self._oversight_pieces)
        row = msgspec.msgpack.encode(_Row(first, self.offset, self._built_under, self._again_until, *counts))
        out.add(*changelog, _STATE, row)
        return len(snapshot) - len(first) + len(row) + len(oversight or b"")

    def _tell_standing(self) -> None:
        if self._meter.on:
            self._meter.standing(self.stage.standing_alerts())
