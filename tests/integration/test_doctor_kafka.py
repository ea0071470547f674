"""The doctor on a real broker: wrong settings, a missing topic, a group that is behind, a state that cannot be read."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from broker import KafkaBroker
from click.testing import CliRunner
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from schemas.topics import ALL_TOPICS
from streams.cli import cli
from streams.kafka_client import KafkaMedium
from streams.kafka_security import BrokerAddress, Security
from streams.medium import Outgoing

pytestmark = pytest.mark.kafka


def run(*args: str) -> tuple[int, str]:
    done = CliRunner(env={"TOCSIN_DATA": None, "TOCSIN_BROKER": None}).invoke(cli, args, catch_exceptions=False)
    assert done.stderr == ""
    return done.exit_code, done.stdout


def findings(*place: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    status, text = run("doctor", "--json", *place)
    found: dict[str, list[dict[str, Any]]] = {}
    for one in json.loads(text)["findings"]:
        found.setdefault(one["check"], []).append(one)
    return status, found


def test_the_doctor_names_what_is_wrong_with_topics_group_and_state(kafka: KafkaBroker, topic_prefix: str) -> None:
    prefix = f"{topic_prefix}."
    place = ("--broker", f"kafka://{kafka.bootstrap}", "--prefix", prefix)

    def topic(name: str) -> str:
        return f"{prefix}{name}"

    def alter(name: str, **settings: str) -> None:
        named = {key.replace("_", "."): value for key, value in settings.items()}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic(name), configs=named)])

    status, found = findings(*place)
    assert status == 1
    assert len(found["topics"]) == len(ALL_TOPICS)
    assert all("is absent" in one["seen"] for one in found["topics"])

    run("topics", "create", "--partitions", "1", *place)
    status, found = findings(*place)
    assert (status, [one["verdict"] for one in found["topics"]]) == (0, ["ok"])
    assert found["broker"][0]["verdict"] == "ok"
    assert found["group"][0]["verdict"] == found["state"][0]["verdict"] == "warning"

    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    medium = KafkaMedium(BrokerAddress.parse(place[1]), prefix, Security())
    try:
        now = int(time.time() * 1_000)
        medium.write("complaints", [Outgoing(now, None, b"{")] * 7)
        admin.alter_group_offsets(
            topic("tocsin"), {TopicPartition(topic("complaints"), 0): OffsetAndMetadata(2, "", -1)}
        )
        medium.write("dead-letters", [Outgoing(now, b"r", b"{}")] * 3)
        alter("keyed-events", message_timestamp_type="CreateTime", max_message_bytes="8388608")
        alter("assess-changelog", cleanup_policy="delete", max_message_bytes="8388608")
        alter("injuries", message_timestamp_type="LogAppendTime", retention_ms=str(86_400_000))
        alter("losses", message_timestamp_type="CreateTime", retention_ms="-1")
        row = msgspec.msgpack.encode([msgspec.msgpack.encode([99, 0]), 0, 0, ""])
        medium.write("assess-changelog", [Outgoing(now, b"progress", row)])
        # Given times let a stranger write from the future; here it plays a broker whose clock is ahead.
        medium.write("keyed-events", [Outgoing(now + 600_000, b"k", b"v")])

        deadline = time.monotonic() + 10
        while True:
            status, found = findings(*place)
            if len(found["topics"]) == 3 or time.monotonic() > deadline:
                break
        assert status == 1
        seen = {one["seen"]: one for one in found["topics"]}
        assert [one for one in seen if topic("assess-changelog") in one and "cleanup.policy is delete" in one]
        assert [one for one in seen if topic("keyed-events") in one and "message.timestamp.type is CreateTime" in one]
        (mixed,) = [one for one in seen if "CreateTime for losses, and LogAppendTime for others" in one]
        assert seen[mixed]["verdict"] == "warning"
        assert all(one["mend"] for one in found["topics"])
        assert found["retention"][0]["seen"] == f"{topic('injuries')} keeps records for 1 days"
        assert found["lag"][0]["seen"] == "5 records wait, and nobody works (complaints 5)"
        assert found["group"][0]["seen"].startswith(f"{topic('tocsin')}: no worker")
        assert found["state"][0]["seen"].startswith("assess-changelog-0: the progress row is of version 99")
        assert found["dead letters"][0]["seen"] == "3 for 7 records"
        assert "ahead of this machine's clock" in found["clock"][0]["seen"]

        admin.delete_topics([topic("signals")])
        while "is absent" not in str(findings(*place)[1]["topics"]):
            assert time.monotonic() < deadline + 20
        assert f"{topic('signals')} is absent" in str(findings(*place)[1]["topics"])
    finally:
        medium.close()
        admin.close()
