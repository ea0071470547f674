"""Each fault of the Kafka runtime for a short time; the long form is ``python -m tests.integration.faults``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import on_kafka
from faults.command import NAMES, run_once
from faults.embedded import NOT_HERE
from faults.verdict import Run
from law import LONG

pytestmark = pytest.mark.kafka

SCALE = 0.04
SHORT = {"kill": 2, "broker-kill": 1, "broker-pause": 1, "scale": 2, "network-cut": 1}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def broker() -> Iterator[on_kafka.ProxiedBroker]:
    with on_kafka.ProxiedBroker() as started:
        yield started


def done(fault: str, room: Path, broker: on_kafka.ProxiedBroker, blows: int, **how: Any) -> Run:
    if fault in ("broker-pause", "network-cut"):
        how["pause"] = 30.0 if LONG else 4.0
    return run_once(fault, on_kafka.FAULTS[fault], 1, SCALE, room, blows, broker=broker, **how)


@pytest.mark.parametrize("fault", list(on_kafka.FAULTS) if LONG else list(SHORT))
def test_a_fault_does_not_show_in_state_and_alerts(fault: str, room: Path, broker: on_kafka.ProxiedBroker) -> None:
    run = done(fault, room, broker, 10 if LONG else SHORT[fault])
    assert run.clean, run.words
    assert run.blows
    assert run.events > 1_000


def test_copies_and_poison_under_a_jumping_clock_do_not_show(room: Path, broker: on_kafka.ProxiedBroker) -> None:
    run = run_once("careless", on_kafka.careless, 1, SCALE, room, 1, broker=broker)
    assert run.clean, run.words
    assert run.events > 1_000


def test_offsets_committed_past_waiting_events_show(room: Path, broker: on_kafka.ProxiedBroker) -> None:
    run = done("kill", room / "mutated", broker, 2, mutation="commit-ahead")
    assert run.events > 1_000, run.words
    assert run.lost
    assert not run.clean


def test_every_fault_is_done_to_a_runtime_or_said_to_be_none() -> None:
    assert set(on_kafka.FAULTS) | set(on_kafka.NOT_HERE) == set(NAMES)
    assert not set(on_kafka.FAULTS) & set(on_kafka.NOT_HERE)
    assert set(NOT_HERE) <= set(NAMES)
