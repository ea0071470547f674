"""Which partitions of assess a worker turns to, and when; no broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from builders import world_config

from streams.app import KafkaWorker, Topology, _Owned
from streams.embedded import INPUTS
from streams.transport import TP
from streams.transport_ledger import Ledger

CONFIG = world_config(partitions=1)
TOPOLOGY = Topology({"keyed-events": 3, **dict.fromkeys(INPUTS, 1)}, frozenset())


class Part:
    """Stands for a partition, in which ticks have found something or not."""

    def __init__(self, partition: int, found: bool) -> None:
        self.partition = partition
        self.did: list[str] = []
        self._found = found

    def close(self, limit: int) -> bool:
        self.did.append("close")
        return False

    def due(self, pause: float, *, at_rest: bool = False) -> bool:
        return self._found and at_rest

    async def checkpoint(self, producer: str) -> None:
        self.did.append(producer)
        self._found = False


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> KafkaWorker:
    """One whose consumer has read and finished all that there is."""
    ledger = Ledger()
    ledger.open = True
    monkeypatch.setattr(KafkaWorker, "_consumer", SimpleNamespace(ledger=ledger))
    return KafkaWorker(CONFIG, CONFIG.load_catalogue(), "nowhere:1", TOPOLOGY)


def own(worker: KafkaWorker, *found: bool) -> list[Part]:
    """Give a worker partitions."""
    parts: list[Any] = [Part(number, one) for number, one in enumerate(found)]
    producers: dict[str, Any] = {f"assess-{part.partition}": f"producer {part.partition}" for part in parts}
    worker._owned = _Owned(1, frozenset(), dict(enumerate(parts)), producers=producers)
    return parts


def test_at_rest_only_partitions_with_something_to_write_are_touched(worker: KafkaWorker) -> None:
    parts = own(worker, True, False, True)
    asyncio.run(worker._on_rest())
    assert [part.did for part in parts] == [["close", "producer 0"], [], ["close", "producer 2"]]
    asyncio.run(worker._on_rest())
    assert [len(part.did) for part in parts] == [2, 0, 2]


def test_now_and_then_all_partitions_close_what_they_can(worker: KafkaWorker) -> None:
    parts = own(worker, True, False)
    asyncio.run(worker._on_idle())
    assert [part.did for part in parts] == [["close"], ["close"]]


def test_a_worker_that_is_not_at_rest_writes_nothing_yet(worker: KafkaWorker) -> None:
    parts = own(worker, True)
    worker._consumer.ledger.open = False
    asyncio.run(worker._on_rest())
    assert not parts[0].did


def test_when_the_restore_of_one_partition_fails_the_others_have_ended_before_what_they_made_is_closed(
    worker: KafkaWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []

    async def restore(self: KafkaWorker, owned: _Owned, partition: int, room: asyncio.Semaphore) -> int:
        if partition == 1:
            await asyncio.sleep(0)
            raise OSError("the changelog cannot be read")
        try:
            await asyncio.sleep(60)
        finally:
            did.append(f"ended {partition}")
        return 0

    async def release(self: KafkaWorker, owned: _Owned) -> None:
        did.append("released")

    monkeypatch.setattr(KafkaWorker, "_restore_assess", restore)
    monkeypatch.setattr(KafkaWorker, "_release", release)
    worker._output = object()
    tps = frozenset(TP("keyed-events", partition) for partition in range(3))
    with pytest.raises(OSError, match="cannot be read"):
        asyncio.run(worker.on_assigned(tps, 1))
    assert did == ["ended 0", "ended 2", "released"]
