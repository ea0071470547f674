"""When a group on Kafka has nothing left to do: for workers that are to end by themselves.

Watermarks go on being written while a group is idle, so committed offsets never meet the ends of the inner topics.
What tells the end is the record itself: every raw partition is committed to its end, every assess partition has sent
the marker that it closed the last arrival's tick, and escalate has committed past those markers.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from typing import Any

import msgspec
from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.admin._partitions import IsolationLevel

from schemas.topics import topic_name
from streams.config import Config
from streams.embedded import INPUTS
from streams.kafka_client import KafkaMedium
from streams.kafka_connection import BrokerError, Connection
from streams.kafka_security import BrokerAddress, Security
from streams.ticks import Calendar
from streams.wire import ClosedMarker, kind_of

__all__ = ["GroupProgress", "end_when_done"]

logger = logging.getLogger("tocsin.worker")
_POLL_SECONDS = 1.0
_QUIET_SECONDS = 3.0


class GroupProgress:
    """How far a group has come, asked of the broker.

    Parameters
    ----------
    address, config, security
        As for the worker.
    group
        The group's name.
    """

    def __init__(self, address: BrokerAddress, config: Config, security: Security, group: str) -> None:
        self._prefix = config.topic_prefix
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._group = group
        self._medium = KafkaMedium(address, config.topic_prefix, security)
        self._connection = Connection.of(address, security, 10.0)
        self._admin: Any = None
        self._read = 0
        self._closed: dict[int, tuple[int, int]] = {}

    def close(self) -> None:
        """Give the connections back."""
        self._medium.close()
        if self._admin is not None:
            self._admin.close()

    def done(self) -> bool:
        """Whether nothing is left to do now."""
        with self._connection.explained():
            if self._admin is None:
                self._admin = self._connection.admin()
            committed = self._admin.list_group_offsets([self._group])[self._group]
        ends = self._medium.ends(INPUTS)
        raw = {TopicPartition(topic_name(self._prefix, topic), part): end for (topic, part), end in ends.items()}
        if any(_offset(committed, place) < end for place, end in raw.items()):
            return False
        last = self._last_arrival(list(raw))
        return last is None or self._closed_through(self._calendar.tick(last), committed)

    def _last_arrival(self, places: list[Any]) -> int | None:
        """The greatest time of any raw record."""
        with self._connection.explained():
            asked = dict.fromkeys(places, OffsetSpec.MAX_TIMESTAMP)
            found = self._admin.list_partition_offsets(asked, IsolationLevel.READ_COMMITTED)
        times = [one.timestamp for one in found.values() if one.offset >= 0 and one.timestamp is not None]
        return max((time for time in times if time >= 0), default=None)

    def _closed_through(self, tick: int, committed: dict[Any, Any]) -> bool:
        """Whether every assess partition has said that it closed the tick, and escalate has taken that up."""
        origin = ("signals", 0)
        end = self._medium.ends(["signals"])[origin]
        for records in self._medium.read(origin, self._read, end, 2_000):
            for record in records:
                if kind_of(record.headers)[0] == "closed" and record.value is not None:
                    marker = msgspec.json.decode(record.value, type=ClosedMarker)
                    through, _ = self._closed.get(marker.partition, (marker.through - 1, 0))
                    if marker.through > through:
                        self._closed[marker.partition] = (marker.through, record.offset)
        self._read = max(self._read, end)
        partitions = len(self._medium.ends(["keyed-events"]))
        taken = _offset(committed, TopicPartition(topic_name(self._prefix, "signals"), 0))
        reached = [p for p, (through, offset) in self._closed.items() if through >= tick and offset < taken]
        return len(reached) == partitions


def _offset(committed: dict[Any, Any], place: Any) -> int:
    found = committed.get(place)
    return 0 if found is None else max(0, int(found.offset))


def end_when_done(address: BrokerAddress, config: Config, security: Security, group: str) -> None:
    """Watch the group from a thread of its own; send this process SIGTERM once nothing has been left for a while."""
    progress = GroupProgress(address, config, security, group)

    def watch() -> None:
        since: float | None = None
        while True:
            time.sleep(_POLL_SECONDS)
            try:
                done = progress.done()
            except BrokerError as error:
                logger.warning("cannot tell whether the group is done: %s", error)
                done = False
            if not done:
                since = None
            elif since is None:
                since = time.monotonic()
            elif time.monotonic() - since >= _QUIET_SECONDS:
                progress.close()
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="until-end", daemon=True).start()
