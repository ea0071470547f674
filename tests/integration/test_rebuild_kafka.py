"""State on Kafka given up and built anew: no alert and no signal twice, and the state goes on from there."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from broker import KafkaBroker, read_all
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from test_cli_kafka import BEGIN, accident, month, run

pytestmark = pytest.mark.kafka


@pytest.mark.skipif(os.environ.get("TOCSIN_LONG") != "1", reason="two workers' lives: TOCSIN_LONG=1 runs it")
def test_a_state_that_was_given_up_comes_again_and_nothing_is_written_twice(
    kafka: KafkaBroker, kcat: Path, topic_prefix: str, tmp_path: Path
) -> None:
    prefix = f"{topic_prefix}."
    place = ("--broker", f"kafka://{kafka.bootstrap}", "--prefix", prefix)
    run("topics", "create", "--history", "--partitions", "2", *place)
    lines = tmp_path / "i.ndjson"
    lines.write_text("".join(json.dumps(one) + "\n" for one in month()))
    deadly = tmp_path / "a.ndjson"
    deadly.write_text(json.dumps(accident(BEGIN)) + "\n")
    run("publish", "inspections", lines, *place)
    run("publish", "accidents", deadly, *place)
    run("run", "--until-end", *place)
    before = {topic: read_all(kcat, kafka.bootstrap, prefix + topic) for topic in ("emergency-response", "signals")}
    assert len(before["emergency-response"]) >= 2

    plan = run("state", "rebuild", *place, status=1)
    assert "would be deleted: topic" in plan.stdout
    assert "say --yes" in plan.stderr
    done = run("state", "rebuild", "--yes", *place)
    assert done.stdout.count("deleted: topic") == 3
    run("run", "--until-end", *place)
    after = {topic: read_all(kcat, kafka.bootstrap, prefix + topic) for topic in before}
    assert after["emergency-response"] == before["emergency-response"]

    def told(lines: list[bytes]) -> list[bytes]:
        """Evidence of ticks; graves, tallies and markers apart."""
        return [line for line in lines if b'"evidence"' in line and b'"grave-event"' not in line]

    assert told(after["signals"]) == told(before["signals"]) != []

    # With a worker at work, or without the beginning of the record, nothing is given up.
    member = KafkaConsumer(
        f"{prefix}surveys", group_id=f"{prefix}tocsin", bootstrap_servers=kafka.bootstrap, enable_auto_commit=False
    )
    deadline = time.monotonic() + 30
    while not member.assignment():
        member.poll(timeout_ms=200)
        assert time.monotonic() < deadline
    assert "1 workers are running; stop them first" in run("state", "rebuild", "--yes", *place, status=1).stderr
    member.close()
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    ends = {TopicPartition(f"{prefix}inspections", part): -1 for part in (0, 1)}
    admin.delete_records(ends)
    admin.close()
    assert "retention has removed its beginning" in run("state", "rebuild", "--yes", *place, status=1).stderr
