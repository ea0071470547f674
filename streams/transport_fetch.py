"""Taking out of aiokafka's fetcher what it has fetched, whole record batches at a time.

``Fetcher.fetched_records`` makes each record in Python: a step of a generator and a dataclass of eleven fields, which
costs about as much as decoding the record's JSON. A record batch of aiokafka is a list of records already, made by its
compiled reader, with all that our stages ask for: ``offset``, ``timestamp``, ``key``, ``value``, ``headers``. Here
such lists are handed on as they are. What aiokafka decides about whole batches is decided as it does: checksums,
aborted transactions, control batches, where reading goes on, what a seek or a rebalance has overtaken.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.structs import TopicPartition

if TYPE_CHECKING:
    from collections.abc import Set

    from streams.decode import Record

__all__ = ["fetched", "unpack"]


async def fetched(
    fetcher: Any, tps: Set[TopicPartition], timeout: float, most: int
) -> dict[TopicPartition, list[Record]]:
    """Records of these partitions, from where each was read to; waits at most ``timeout`` seconds for the first.

    Takes at ``most`` so many. What is fetched and not taken stays for the next time, as do the partitions that were
    not asked for.
    """
    if fetcher._subscriptions.reassignment_in_progress:
        await fetcher._subscriptions.wait_for_assignment()
    drained = _drained(fetcher, tps, most)
    if not drained:
        waiter = fetcher._create_fetch_waiter()
        await asyncio.wait([waiter], timeout=timeout)
        if not waiter.done():
            waiter.cancel()
        elif not (fetcher._closed or fetcher._subscriptions.reassignment_in_progress):
            waiter.result()  # raises what the coordinator could not mend
            drained = _drained(fetcher, tps, most)
    return drained


def _drained(fetcher: Any, tps: Set[TopicPartition], most: int) -> dict[TopicPartition, list[Record]]:
    """What there is now. An error is raised only when nothing was taken before it."""
    drained: dict[TopicPartition, list[Record]] = {}
    for tp, result in list(fetcher._records.items()):
        if tp not in tps:
            if not fetcher._subscriptions.is_assigned(tp):
                del fetcher._records[tp]
        elif isinstance(result, FetchResult):
            records = _take(result, most)
            if not result.has_more():
                _make_room(fetcher, tp)
            if records:
                drained[tp] = records
                most -= len(records)
                if not most:
                    break
        elif not drained:
            _make_room(fetcher, tp)
            result.check_raise()
        else:
            break
    return drained


def _make_room(fetcher: Any, tp: TopicPartition) -> None:
    """Let the fetcher ask the broker for more of a partition."""
    del fetcher._records[tp]
    fetcher._notify(fetcher._wait_consume_future)


def _take(result: Any, most: int) -> list[Record]:
    """``FetchResult.getall``, by way of :func:`unpack`."""
    if not (result.check_assignment(result._topic_partition) and result.has_more()):
        return []
    left: PartitionRecords = result._partition_records
    records = unpack(left, most)
    result._update_position()
    if _CUT not in vars(left) and not left._records.has_next():
        result._partition_records = None
    return records


_CUT = "tocsin_cut"
"""Name of what is kept with a fetch: the records of a batch for which there was no room, and where its end lies."""


def unpack(left: PartitionRecords, most: int) -> list[Record]:
    """The next records of what was fetched of a partition; at ``most`` so many.

    Takes the place of ``PartitionRecords._unpack_records``, and keeps its books: ``next_fetch_offset`` moves past
    every batch, whether it had records for us or not.
    """
    taken: list[Record]
    taken, onward = vars(left).pop(_CUT, ([], left.next_fetch_offset))
    while len(taken) < most and left._records.has_next():
        batch: Any = left._records.next_batch()
        if left._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {left._tp}")
        if not (_is_aborted(left, batch) or batch.is_control_batch):
            records = list(batch)
            if records and records[0].offset < onward:  # reading began amid the batch
                records = [record for record in records if record.offset >= onward]
            taken += records
        onward = batch.next_offset
    if len(taken) > most:
        vars(left)[_CUT] = taken[most:], onward
        del taken[most:]
        onward = taken[-1].offset + 1
    left.next_fetch_offset = onward
    return taken


def _is_aborted(left: PartitionRecords, batch: Any) -> bool:
    """Whether a batch belongs to a transaction that was aborted, noting which of them begin and end with it."""
    if left._isolation_level != READ_COMMITTED or batch.producer_id is None:
        return False
    left._consume_aborted_up_to(batch.base_offset)
    if batch.is_control_batch and left._contains_abort_marker(batch):
        left._aborted_producers.discard(batch.producer_id)
    return bool(batch.is_transactional and batch.producer_id in left._aborted_producers)
