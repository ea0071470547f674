"""Refused records on a real broker: found again where a letter was cut, written again, and read by kcat."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from broker import KafkaBroker, run_kcat
from click.testing import CliRunner, Result
from kafka import KafkaAdminClient, TopicPartition

from streams.cli import cli
from streams.config import Config
from streams.intake import Intake
from streams.kafka_client import KafkaMedium
from streams.kafka_security import BrokerAddress, Security
from streams.medium import Outgoing
from streams.ticks import COMPLETE

pytestmark = pytest.mark.kafka


def inspection(name: str, region: str, **more: object) -> bytes:
    now = datetime.now(timezone(timedelta(hours=8))).isoformat()
    about = {"event_id": name, "source": "s", "reported_at": now, "product": "F0101", "region": region, "lab": "l"}
    return json.dumps({**about, "verdict": "pass", **more}).encode()


def run(*args: str, status: int = 0) -> Result:
    """Run a command in this process."""
    done = CliRunner(env={"TOCSIN_DATA": None, "TOCSIN_BROKER": None}).invoke(cli, args)
    assert done.exit_code == status, (done.stdout, done.stderr)
    return done


def test_a_cut_record_is_read_from_the_broker_written_again_and_missed_once_it_is_gone(
    kafka: KafkaBroker, kcat: Path, topic_prefix: str
) -> None:
    prefix = f"{topic_prefix}."
    place = ("--broker", f"kafka://{kafka.bootstrap}", "--prefix", prefix)
    run("topics", "create", "--partitions", "2", *place)
    items = [{"parameter": f"p{n}", "value": "v" * 199, "unit": "u" * 30, "conforming": True} for n in range(256)]
    now = int(time.time() * 1_000)
    headers = (("trace", "追踪 1".encode()),)
    sent = [
        Outgoing(now, b"k", inspection("big", "999999", items=items), headers),
        Outgoing(now, b"k", inspection("small", "999999"), headers),
        Outgoing(now, b"k", inspection("lost", "999999", items=items), headers),
    ]
    medium = KafkaMedium(BrokerAddress.parse(place[1]), prefix, Security())
    try:
        medium.write("inspections", sent)
        (origin,) = [origin for origin, end in medium.ends(["inspections"]).items() if end]
        (records,) = medium.read(origin, 0, 3, 10)
        config = Config()
        dead = Intake(config, config.load_catalogue()).process(origin, records, -COMPLETE).dead
        assert [letter.offset for letter in dead] == [0, 1, 2]
        medium.write("dead-letters", [Outgoing(now, b"r", msgspec.json.encode(letter)) for letter in dead])

        assert "read from inspections-" in run("dead-letters", "show", "0", *place).stderr
        fix = ("--set", "region=120101")
        done = run("dead-letters", "requeue", "--where", "place!=2", "--where", "reason=unknown-code", *fix, *place)
        assert done.stdout == "2 requeued\n"
        read = run_kcat(
            kcat, kafka.bootstrap, "-C", "-q", "-e", "-J", "-t", f"{prefix}inspections", "-p", str(origin[1]),
            "-o", "3",
        )  # fmt: skip
        again = [json.loads(line) for line in read.splitlines()]
        assert [one["key"] for one in again] == ["k", "k"]
        for one, place_of_letter in zip(again, "01", strict=True):
            assert json.loads(one["payload"]) == {
                **json.loads(sent[int(place_of_letter)].value or b""), "region": "120101",
            }  # fmt: skip
            assert one["headers"][:6] == [
                "tocsin-requeued", "1", "tocsin-requeued-from", f"inspections-{origin[1]}@{place_of_letter}",
                "tocsin-dead-letter", place_of_letter,
            ]  # fmt: skip
            assert one["headers"][6:] == ["trace", "追踪 1"]
        done = run("dead-letters", "requeue", "--where", "place!=2", *fix, *place)
        assert done.stdout == "0 requeued, 2 left alone, requeued before\n"

        admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        try:
            admin.delete_records({TopicPartition(f"{prefix}inspections", origin[1]): 3})
        finally:
            admin.close()
        lost = run("dead-letters", "requeue", "--where", "place=2", *fix, *place, status=1)
        assert f"inspections-{origin[1]}@2 is no longer there" in lost.stderr
        assert lost.stdout == "0 requeued, 1 without their original\n"
    finally:
        medium.close()
