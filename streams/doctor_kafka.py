"""The doctor's round of a Kafka cluster: it reads metadata, offsets and the last rows of the changelogs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, Final

import msgspec
from kafka import TopicPartition, errors
from kafka.admin import OffsetSpec

from schemas.errors import TocsinError
from schemas.topics import ALL_TOPICS, topic_name
from streams.assess import PROGRESS_VERSION, Progress
from streams.config import Config, built_under
from streams.doctor import (
    Finding,
    check_backlog,
    check_built_under,
    check_clock,
    check_configuration,
    check_letters,
    failed,
)
from streams.embedded import INPUTS
from streams.kafka_assess import PROGRESS_KEY, ProgressRow
from streams.kafka_client import KafkaMedium
from streams.kafka_connection import Connection
from streams.kafka_security import BrokerAddress, Security
from streams.kafka_topics import TopicState, check_topics, describe
from streams.stored import reading, unpack
from streams.ticks import MS_PER_DAY

__all__ = ["examine", "group_members"]

_TAIL: Final = 200
"""So many records at the end of a changelog partition: every checkpoint writes its progress row last."""
_STALE_MS: Final = 60_000


def examine(address: BrokerAddress, security: Security, config: Config, *, timeout: float = 10.0) -> list[Finding]:
    """Look at a cluster, Tocsin's topics on it, and its group."""
    found = check_configuration(config)
    connection = Connection.of(address, security, timeout)
    try:
        with connection.explained(), closing(connection.admin()) as admin:
            cluster = admin.describe_cluster()
            versions = sorted({str(_version(admin, broker["broker_id"])) for broker in cluster["brokers"]})
            found.append(
                Finding("broker", "ok", f"{len(cluster['brokers'])} at {address}, API of {', '.join(versions)}")
            )
        states = describe(address, config.topic_prefix, security, timeout=timeout)
        found += _topics(address, security, config, states)
        if len(states) < len(ALL_TOPICS):
            return found
        medium = KafkaMedium(address, config.topic_prefix, security, timeout=timeout)
        try:
            with connection.explained(), closing(connection.admin()) as admin:
                found += _work(medium, admin, config)
        finally:
            medium.close()
    except TocsinError as error:
        found.append(failed("broker", error, "start it, or mend --broker and TOCSIN_KAFKA_*"))
    return found


def _version(admin: Any, node: int) -> str:
    return str(admin.get_broker_version_data(node)).strip("<>").removeprefix("BrokerVersionData ")


def _topics(
    address: BrokerAddress, security: Security, config: Config, states: Mapping[str, TopicState]
) -> Iterator[Finding]:
    # The partition count of a live deployment is that of its topics; a configuration may leave it at its default.
    keyed = states.get("keyed-events")
    partitions = config.partitions if keyed is None else keyed.partitions
    problems = check_topics(address, config.topic_prefix, partitions, security, history=None)
    for line in problems:
        seen, _, mend = line.rpartition("; ")
        yield Finding("topics", "failure", seen or line, mend)
    raw = {name: states[name] for name in INPUTS if name in states}
    kinds = {state.timestamp_type for name, state in raw.items() if name != "dispositions"}
    if len(kinds) > 1:
        given = ", ".join(sorted(name for name, state in raw.items() if state.given_times))
        seen = f"message.timestamp.type is CreateTime for {given}, and LogAppendTime for others"
        mend = "set LogAppendTime, unless history is being imported: late times are refused, early ones hold all up"
        yield Finding("topics", "warning", seen, mend)
    horizon = max(config.intake.lateness_days, config.pass_rate.history_days)
    for name, state in raw.items():
        if 0 <= state.retention_ms < horizon * MS_PER_DAY:
            seen = f"{topic_name(config.topic_prefix, name)} keeps records for {state.retention_ms / MS_PER_DAY:g} days"
            mend = f"set retention.ms to -1: replays and rebuilds need the record, detectors look back {horizon} days"
            yield Finding("retention", "failure", seen, mend)
    if not problems:
        yield Finding("topics", "ok", f"{len(states)} are there, as they must be; {partitions} partitions")


def group_members(admin: Any, group: str) -> tuple[str, int]:
    """State and number of members of a consumer group."""
    try:
        about = admin.describe_groups([group])[group]
    except (errors.CoordinatorNotAvailableError, errors.GroupIdNotFoundError):
        return "unknown to the brokers", 0  # no group has ever been there
    return str(about["group_state"]).lower(), len(about["members"])


def _committed(admin: Any, group: str) -> Mapping[Any, Any]:
    try:
        found: Mapping[Any, Any] = admin.list_group_offsets([group])[group]
    except (errors.CoordinatorNotAvailableError, errors.GroupIdNotFoundError):
        return {}
    return found


def _work(medium: KafkaMedium, admin: Any, config: Config) -> Iterator[Finding]:
    group = f"{config.topic_prefix}{config.name}"
    state, members = group_members(admin, group)
    if members:
        yield Finding("group", "ok", f"{group}: {members} workers, {state}")
    else:
        yield Finding("group", "warning", f"{group}: no worker ({state})", "start `tocsin run --broker ...`")
    committed = _committed(admin, group)
    ends, starts = medium.ends(INPUTS), medium.starts(INPUTS)
    lag: Counter[str] = Counter()
    for (topic, part), end in ends.items():
        at = committed.get(TopicPartition(topic_name(config.topic_prefix, topic), part))
        lag[topic] += max(0, end - max(starts[topic, part], 0 if at is None else at.offset))
    yield check_backlog(lag, f"{members} workers" if members else None)
    yield from _state(medium, config)
    first, last = (sum(offsets(["dead-letters"]).values()) for offsets in (medium.starts, medium.ends))
    yield check_letters(last - first, {}, sum(ends.values()) - sum(starts.values()))
    yield from _clock(medium, admin, config, members)


def _state(medium: KafkaMedium, config: Config) -> Iterator[Finding]:
    """The last progress row of every assess partition."""
    try:
        now = built_under(config, config.load_catalogue())
    except (TocsinError, OSError):
        return  # the catalogue has a finding of its own
    held: dict[int, str] = {}
    starts, ends = medium.starts(["assess-changelog"]), medium.ends(["assess-changelog"])
    for origin, end in ends.items():
        where = f"{origin[0]}-{origin[1]}"
        last = None
        for records in medium.read(origin, max(starts[origin], end - _TAIL), end, 1_000):
            last = next((r.value for r in reversed(records) if r.key == PROGRESS_KEY and r.value), last)
        if last is None:
            continue
        try:
            with reading("the progress row"):
                row = msgspec.msgpack.decode(last, type=ProgressRow)
            unpack(row.progress, Progress, PROGRESS_VERSION, "the progress row")
        except TocsinError as error:
            yield failed("state", TocsinError(f"{where}: {error}"), "`tocsin state rebuild --broker ...`")
            return
        held[origin[1]] = row.built_under
    other = sorted(part for part, under in held.items() if under and under != now)
    if other:
        yield check_built_under(f"assess-changelog-{other[0]}", held[other[0]], now)
    elif held:
        yield check_built_under(f"{len(held)} of {len(ends)} partitions", next(iter(held.values())), now)
    else:
        yield Finding("state", "warning", "nothing has been worked off yet", "start `tocsin run --broker ...`")


def _clock(medium: KafkaMedium, admin: Any, config: Config, members: int) -> Iterator[Finding]:
    """Workers write to keyed-events all the time, with the brokers' append time: that is how their clocks are read."""
    keyed = topic_name(config.topic_prefix, "keyed-events")
    asked = {TopicPartition(keyed, part): OffsetSpec.MAX_TIMESTAMP for _, part in medium.ends(["keyed-events"])}
    found = admin.list_partition_offsets(asked, "read_committed").values()
    times = [one.timestamp for one in found if one.offset >= 0 and one.timestamp is not None and one.timestamp >= 0]
    now, newest = int(time.time() * 1_000), max(times, default=None)
    yield check_clock(now, newest, "the brokers' newest append time")
    if members and newest is not None and now - newest > _STALE_MS:
        seen = f"workers are there, and nothing was written to {keyed} for {(now - newest) / 1_000:,.0f} s"
        yield Finding("clock", "warning", seen, "compare the clocks; look at the workers' logs")
