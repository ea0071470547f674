"""Tocsin's topics on a broker: made with the settings they need, and checked where they are there already."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType

from schemas.topics import ALL_TOPICS, TopicSpec, topic_name
from streams.kafka_connection import MAX_RECORD_BYTES, BrokerError, Connection
from streams.kafka_security import BrokerAddress, Security

__all__ = [
    "TopicProblems",
    "TopicState",
    "check_topics",
    "create_topics",
    "describe",
    "topic_metadata",
    "topic_settings",
]

WEEK_MS = 7 * 86_400_000
HOUR_MS = 3_600_000
FOR_EVER = "9223372036854775807"


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is on the broker; ``given_times`` where records keep the time their writer gave them."""

    partitions: int
    timestamp_type: str
    cleanup_policy: str
    retention_ms: int
    max_message_bytes: int
    replicas: int

    @property
    def given_times(self) -> bool:
        return self.timestamp_type == "CreateTime"


class TopicProblems(BrokerError):
    """Topics that are there cannot be used as they are; ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def topic_settings(spec: TopicSpec, *, history: bool, replicas: int = 1) -> dict[str, str]:
    """What a topic is created with; ``history`` where raw records bring their own times."""
    settings = {"cleanup.policy": "compact" if spec.compacted else "delete"}
    if replicas >= 3:
        settings["min.insync.replicas"] = "2"
    if spec.role == "raw":
        # Raw topics are what analysts replay, so nothing leaves them by itself. How far ahead of its clock the broker
        # takes given times is left alone: one record of the year 2100 would close every tick until then.
        return {
            **settings,
            "retention.ms": "-1",
            "retention.bytes": "-1",
            "message.timestamp.type": "CreateTime" if history else "LogAppendTime",
        }
    # A topic's own limit overrides the broker's message.max.bytes, and fetches always bring at least one batch,
    # however large. Dead letters hold a whole raw record and more, so outputs need the room too.
    settings["max.message.bytes"] = str(MAX_RECORD_BYTES)
    if spec.compacted:
        # The open segment is never compacted: small ones keep the restore short. Append times, as ticks of imported
        # history would make segments roll at every record.
        return settings | {
            "segment.bytes": str(64 * 1024 * 1024),
            "segment.ms": str(6 * HOUR_MS),
            "min.cleanable.dirty.ratio": "0.2",
            "max.compaction.lag.ms": str(24 * HOUR_MS),
            "message.timestamp.type": "LogAppendTime",
        }
    if spec.role == "internal":
        return settings | {"retention.ms": str(WEEK_MS), "message.timestamp.type": "LogAppendTime"}
    # Alerts bear the time of their tick; a broker whose clock lags must not refuse one.
    return settings | {
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": FOR_EVER,
    }


def create_topics(
    address: BrokerAddress, prefix: str, partitions: int, security: Security, *, history: bool, timeout: float = 10.0
) -> list[str]:
    """Create those of Tocsin's topics that are missing.

    Parameters
    ----------
    partitions
        Of each topic that has no fixed count.
    history
        Raw records keep the times they are given (imported history); else the broker's clock counts.

    Returns
    -------
    list of str
        The topics created, as they are named on the broker; empty where all were there.

    Raises
    ------
    TopicProblems
        A topic is there with other settings. Nothing is created then.
    """
    connection = Connection.of(address, security, timeout)
    with connection.explained(), closing(connection.admin()) as admin:
        states = _states(admin, connection, prefix)
        problems = _problems(states, prefix, partitions, history)
        if problems:
            raise TopicProblems(problems)
        replicas = min(3, len(admin.describe_cluster()["brokers"]))
        wanted = {
            topic_name(prefix, spec.name): {
                "num_partitions": spec.partitions or partitions,
                "replication_factor": replicas,
                "configs": topic_settings(spec, history=history, replicas=replicas),
            }
            for spec in ALL_TOPICS
            if spec.name not in states
        }
        return _create(admin, connection, wanted) if wanted else []


def check_topics(
    address: BrokerAddress,
    prefix: str,
    partitions: int,
    security: Security,
    *,
    history: bool | None,
    timeout: float = 10.0,
) -> list[str]:
    """What is wrong with Tocsin's topics on the broker, a line each; ``history`` None takes either kind of times."""
    connection = Connection.of(address, security, timeout)
    with connection.explained(), closing(connection.admin()) as admin:
        states = _states(admin, connection, prefix)
    absent = [
        str(connection.broker_error(errors.UnknownTopicOrPartitionError(), topic_name(prefix, spec.name)))
        for spec in ALL_TOPICS
        if spec.name not in states
    ]
    return absent + _problems(states, prefix, partitions, history)


def describe(
    address: BrokerAddress,
    prefix: str,
    security: Security,
    topics: Sequence[str] | None = None,
    *,
    timeout: float = 10.0,
) -> dict[str, TopicState]:
    """The topics that are there, by short name; all of Tocsin's, or those asked for."""
    connection = Connection.of(address, security, timeout)
    with connection.explained(), closing(connection.admin()) as admin:
        return _states(admin, connection, prefix, topics)


def topic_metadata(admin: Any, connection: Connection, names: Sequence[str]) -> dict[str, Any]:
    """Metadata of those topics (named as on the broker) that are there; BrokerError where we may not know."""
    found = {}
    for topic in admin.describe_topics(list(names)) if names else []:
        error = errors.for_code(topic["error_code"])
        if error is errors.UnknownTopicOrPartitionError:
            continue
        # A partition without a leader for the moment is no reason to fail: the clients wait for one.
        if error not in (errors.NoError, errors.LeaderNotAvailableError):
            raise connection.broker_error(error(), topic["name"])
        found[topic["name"]] = topic
    return found


def _states(
    admin: Any, connection: Connection, prefix: str, topics: Sequence[str] | None = None
) -> dict[str, TopicState]:
    short = {topic_name(prefix, name): name for name in ([s.name for s in ALL_TOPICS] if topics is None else topics)}
    metadata = topic_metadata(admin, connection, list(short))
    if not metadata:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in metadata]
    settings = admin.describe_configs(asked, config_filter="all")["topic"]
    states = {}
    for name in short:
        if name not in metadata:
            continue
        topic = metadata[name]
        of = {key: entry["value"] for key, entry in settings[name].items()}
        if "cleanup.policy" not in of:
            raise connection.broker_error(errors.TopicAuthorizationFailedError("DescribeConfigs"), name)
        states[short[name]] = TopicState(
            len(topic["partitions"]),
            of["message.timestamp.type"],
            ",".join(sorted(part.strip() for part in of["cleanup.policy"].split(","))),
            int(of["retention.ms"]),
            int(of["max.message.bytes"]),
            min(len(part["replica_nodes"]) for part in topic["partitions"]),
        )
    return states


def _problems(states: dict[str, TopicState], prefix: str, partitions: int, history: bool | None) -> list[str]:
    found = []
    for spec in ALL_TOPICS:
        state = states.get(spec.name)
        if state is not None:
            name = topic_name(prefix, spec.name)
            found += [f"topic {name}: {line}" for line in _faults(spec, state, partitions, history)]
    return found


def _faults(spec: TopicSpec, state: TopicState, partitions: int, history: bool | None) -> list[str]:
    wanted = topic_settings(spec, history=bool(history))
    count = spec.partitions or partitions
    faults = []
    if state.partitions != count:
        mend = "give it that many" if spec.partitions else "set partitions to that, or use another topic_prefix"
        faults.append(f"it has {state.partitions} partitions, {count} are configured; {mend}")
    if state.cleanup_policy != (policy := wanted["cleanup.policy"]):
        faults.append(f"cleanup.policy is {state.cleanup_policy}, {policy} is needed; change it on the broker")
    timed = (spec.role == "raw" and history is not None) or spec.name == "keyed-events"
    if timed and state.timestamp_type != wanted["message.timestamp.type"]:
        mend = "say --history or not, or use another topic_prefix" if spec.role == "raw" else "change it on the broker"
        kind = wanted["message.timestamp.type"]
        faults.append(f"message.timestamp.type is {state.timestamp_type}, {kind} is needed; {mend}")
    if spec.role == "internal" and state.max_message_bytes < MAX_RECORD_BYTES:
        faults.append(f"max.message.bytes is {state.max_message_bytes}, {MAX_RECORD_BYTES} is needed; raise it there")
    return faults


def _create(admin: Any, connection: Connection, wanted: dict[str, dict[str, Any]]) -> list[str]:
    made, failed = [], None
    for topic in admin.create_topics(wanted, raise_errors=False)["topics"]:
        error = errors.for_code(topic["error_code"])
        if error is errors.NoError:
            made.append(topic["name"])
        elif error is not errors.TopicAlreadyExistsError:  # somebody else made it meanwhile
            failed = failed or connection.broker_error(error(topic["error_message"]), topic["name"])
    if failed:
        raise failed
    admin.wait_for_topics(list(wanted), timeout_ms=int(connection.patience * 1_000))
    return made
