"""The state on Kafka given up, so that the workers build it anew from the raw topics.

1. Nobody may be at work, and the raw topics must still hold their beginning: else the state would be another.
2. The group's offsets and the internal topics (keyed events, both changelogs) are deleted; the topics are made anew.
3. The next workers begin at the beginning. Assess sends no signal of a tick that it had closed before (its own markers
   on ``signals`` say which), escalate builds its state from the signals that are there, and writes no alert revision
   that stands on ``emergency-response``. Dead letters, and signals of grave events, come a second time.

Broken off in between, it can be done again.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Final

from kafka import errors

from schemas.topics import topic_name
from streams.config import Config
from streams.doctor_kafka import group_members
from streams.embedded import INPUTS
from streams.kafka_client import KafkaMedium
from streams.kafka_connection import BrokerError, Connection
from streams.kafka_security import BrokerAddress, Security
from streams.kafka_topics import create_topics, describe

__all__ = ["INTERNAL", "give_up_state"]

INTERNAL: Final = ("keyed-events", "assess-changelog", "escalate-changelog")


def give_up_state(
    address: BrokerAddress, security: Security, config: Config, *, go: bool, timeout: float = 10.0
) -> list[str]:
    """Check that the state can be built anew, and delete it.

    Parameters
    ----------
    go
        False: check only.

    Returns
    -------
    list of str
        What is, or would be, deleted.

    Raises
    ------
    BrokerError
        Workers are running, or the record is not whole; nothing was deleted.
    """
    group = f"{config.topic_prefix}{config.name}"
    connection = Connection.of(address, security, timeout)
    states = describe(address, config.topic_prefix, security, timeout=timeout)
    raw = [name for name in INPUTS if name in states]
    if not raw:
        raise BrokerError(f"{address}: there are no topics with the prefix {config.topic_prefix!r}; check --prefix")
    doomed = [topic_name(config.topic_prefix, name) for name in INTERNAL if name in states]
    with connection.explained(), closing(connection.admin()) as admin:
        state, members = group_members(admin, group)
        if members:
            raise BrokerError(f"group {group}: {members} workers are running; stop them first")
        with closing(KafkaMedium(address, config.topic_prefix, security, timeout=timeout)) as medium:
            gone = [origin for origin, start in medium.starts(raw).items() if start > 0]
        if gone:
            raise BrokerError(
                f"topic {topic_name(config.topic_prefix, gone[0][0])}: retention has removed its beginning, so that "
                "the state cannot be built from it; go on with the version that wrote the state"
            )
        if go:
            _delete(admin, connection, group, doomed)
    if go:
        # The counts as they were: the configuration may not have been told of them.
        partitions = max(states[name].partitions for name in (*raw, *INTERNAL) if name in states)
        given = any(states[name].given_times for name in raw)
        create_topics(address, config.topic_prefix, partitions, security, history=given, timeout=timeout)
    return [f"the offsets of group {group} ({state})", *(f"topic {name}" for name in doomed)]


def _delete(admin: Any, connection: Connection, group: str, topics: list[str]) -> None:
    said = admin.delete_groups([group])[group]
    if said not in ("OK", errors.GroupIdNotFoundError.__name__):
        raise BrokerError(f"group {group}: its offsets cannot be deleted ({said})")
    if not topics:
        return
    for topic in admin.delete_topics(topics)["topics"]:
        error = errors.for_code(topic["error_code"])
        if error not in (errors.NoError, errors.UnknownTopicOrPartitionError):
            raise connection.broker_error(error(), topic["name"])
    deadline = time.monotonic() + connection.patience
    while any(name in admin.list_topics() for name in topics):
        if time.monotonic() > deadline:
            raise BrokerError(f"topics {', '.join(topics)}: the brokers have not deleted them yet; try again later")
        time.sleep(0.2)
