"""The engines that are set against each other: how each is called, fetched and started, and what it promises.

Adding a peer: a file under ``peers/`` that reads ``PEER`` and writes alert records, and an entry in :data:`PEERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.installs import PEERS as FOLDER
from tests.benchmarks.installs import java_program, python_environment

__all__ = ["PEERS", "Peer"]

_LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"


@dataclass(frozen=True)
class Peer:
    """An engine other than ours.

    ``command`` fetches what is needed and returns how to start the peer, or raises
    :class:`tests.benchmarks.installs.Unavailable`. ``part``: it gets one so-manieth of the events, where all of them
    would take it too long; the rate is its own all the same.
    """

    name: str
    title: str
    state: str
    command: Callable[[], list[str]]
    part: int = 1


def _python(environment: str, program: str, *arguments: str) -> Callable[[], list[str]]:
    return lambda: [str(python_environment(environment)), str(FOLDER / program), *arguments]


def _java(main: str, *coordinates: str) -> Callable[[], list[str]]:
    return lambda: java_program(main, (*coordinates, _LOGGING))


PEERS: tuple[Peer, ...] = (
    Peer(
        "kafka-streams", "Kafka Streams 4.4.0 (Java)", "RocksDB + changelog topic",
        _java("KafkaStreamsPeer", "org.apache.kafka:kafka-streams:4.4.0"),
    ),
    Peer(
        "flink", "Flink 2.2.1 (Java)", "heap + checkpoints of 10 s",
        _java(
            "FlinkPeer",
            "org.apache.flink:flink-streaming-java:2.2.1",
            "org.apache.flink:flink-clients:2.2.1",
            "org.apache.flink:flink-connector-base:2.2.1",
            "org.apache.flink:flink-connector-kafka:5.0.0-2.2",
            "com.fasterxml.jackson.core:jackson-core:2.21.7",
            "com.fasterxml.jackson.core:jackson-databind:2.21.7",
        ),
    ),
    Peer("bytewax", "Bytewax 0.21.1", "recovery snapshots of 10 s", _python("bytewax", "bytewax_flow.py")),
    Peer("quix", "Quix Streams 3.28.1", "RocksDB + changelog topic", _python("quix", "quix.py"), part=4),
    Peer(
        "quix-windows", "Quix Streams 3.28.1, windows", "RocksDB + changelog topics",
        _python("quix", "quix_windows.py"), part=8,
    ),
    Peer(
        "faust", "stock Faust 0.15.3, table", "RocksDB + changelog topic",
        _python("faust", "faust_table.py", "worker", "-l", "warn", "--without-web"), part=20,
    ),
)  # fmt: skip
