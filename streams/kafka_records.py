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

from streams.decode import Record

__all__ = ["read_quickly"]

_PLAIN_OR_GZIP: Final = (0, 1)
"""What both clients can read without further libraries."""


def read_quickly(consumer: Any) -> Any:
    """Make a kafka-python consumer without deserializers give plain records (:class:`streams.decode.Record`) of what it
    fetches; returns it."""
    consumer._fetcher.PartitionRecords = _QuickRecords
    return consumer


class _QuickRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no types
    """What was fetched of one partition, handed on in lists: a step of a generator a record costs as much as parsing
    it."""

    def __init__(self, fetch_offset: int, place: Any, records: Any, *args: Any, **options: Any) -> None:
        super().__init__(fetch_offset, place, records, *args, **options)
        self._batches = self._unpack(records)
        self._left: list[Record] = []
        """Of the last batch, for which there was no room,"""
        self._onward = fetch_offset
        """and where that batch ends."""

    def take(self, n: int | None = None) -> list[Record]:
        """The next records, at most so many; an error waits until those before it were taken."""
        self._maybe_raise_next_inline_exception()
        taken, self._left = self._left, []
        try:
            while n is None or len(taken) < n:
                taken += next(self._batches)
        except StopIteration:
            self.next_fetch_offset = self._onward
            self.drain()
        except Exception as error:
            self.next_fetch_offset = self._onward
            if not taken:
                raise
            self._next_inline_exception = error
        else:
            taken, self._left = taken[:n], taken[n:]
            self.next_fetch_offset = taken[-1].offset + 1 if taken else self.next_fetch_offset
        return taken

    def _unpack(self, records: Any) -> Iterator[list[Record]]:
        """The records of every batch that has some for us."""
        while (batch := records.next_batch()) is not None:
            found = self._records_of(batch) if self._is_to_be_read(batch) else []
            if found and found[0].offset < self.fetch_offset:  # reading begins amid the batch
                found = [record for record in found if record.offset >= self.fetch_offset]
            if batch.magic == 2:
                self._onward = batch.next_offset
            elif found:
                self._onward = found[-1].offset + 1
            if found:
                yield found

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

    def _records_of(self, batch: Any) -> list[Record]:
        if batch.magic == 2 and batch.compression_type in _PLAIN_OR_GZIP:
            found: Any = DefaultRecordBatch(bytes(batch._buffer))
        else:
            found = batch
        if not batch.validate_crc():
            where = f"{self.topic_partition} at offset {batch.base_offset}"
            raise errors.CorruptRecordError(f"the record batch of {where} fails its checksum")
        records = list(found)
        self.records_read += len(records)
        self.bytes_read += len(batch._buffer)
        return records
