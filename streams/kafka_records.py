"""Kafka's record batches into records, by aiokafka's compiled parser under kafka-python's consumer.

kafka-python reads records in Python, 7 us each with the object that it makes of them; aiokafka, which the workers have
with Faust, does so in C. Everything else stays kafka-python's: fetching, transactions, control batches, positions. All
that touches its inner objects for this is here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from aiokafka.record.default_records import DefaultRecordBatch
from kafka import errors
from kafka.consumer.fetcher import Fetcher

from streams.log import LogRecord

__all__ = ["read_quickly"]

_PLAIN_OR_GZIP: Final = (0, 1)
"""What both clients can read without further libraries."""


def read_quickly(consumer: Any) -> Any:
    """Make a kafka-python consumer without deserializers give :class:`LogRecord` of what it fetches; returns it."""
    consumer._fetcher.PartitionRecords = _QuickRecords
    return consumer


class _QuickRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """What was fetched of one partition."""

    def _unpack_records(self, _place: Any, records: Any, *_deserializers: Any) -> Iterator[LogRecord]:
        while (batch := records.next_batch()) is not None:
            if self._is_to_be_read(batch):
                for record in self._records_of(batch):
                    self.next_fetch_offset = record.offset + 1
                    yield record
            self.next_fetch_offset = batch.next_offset if batch.magic == 2 else self.next_fetch_offset
        self.drain()

    def _is_to_be_read(self, batch: Any) -> bool:
        """Whether a batch holds committed records: as kafka-python decides it."""
        if batch.magic != 2:
            return True
        self.leader_epoch = batch.leader_epoch
        if batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch

    def _records_of(self, batch: Any) -> list[LogRecord]:
        if batch.magic == 2 and batch.compression_type in _PLAIN_OR_GZIP:
            found: Any = DefaultRecordBatch(bytes(batch._buffer))
        else:
            found = batch
        if not found.validate_crc():
            where = f"{self.topic_partition} at offset {batch.base_offset}"
            raise errors.CorruptRecordError(f"the record batch of {where} fails its checksum")
        new = tuple.__new__
        records = [new(LogRecord, (r.offset, r.timestamp, r.key, r.value, r.headers or ())) for r in found]
        self.records_read += len(records)
        self.bytes_read += len(batch._buffer)
        if any(record.headers for record in records):
            return [record._replace(headers=_told(record.headers)) if record.headers else record for record in records]
        return records


def _told(headers: Any) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value or b"") for name, value in headers)
