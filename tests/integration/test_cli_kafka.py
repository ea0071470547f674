"""The commands against a real broker, in processes of their own, with kcat as the client that we did not write."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from broker import PASSWORD, USER, KafkaBroker, run_kcat

pytestmark = pytest.mark.kafka

CHINA = timezone(timedelta(hours=8))
BEGIN = datetime(2024, 1, 1, 8, tzinfo=CHINA)


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN")}
    return {**kept, **extra}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "streams.cli", *(str(arg) for arg in args)]


def run(*args: object, status: int = 0, timeout: float = 180, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, which must be with that status."""
    done = subprocess.run(
        command(*args), capture_output=True, text=True, timeout=timeout, check=False, env=environment(**extra)
    )
    assert done.returncode == status, f"{done.args[3:]}: {done.returncode}\n{done.stdout}\n{done.stderr[-3000:]}"
    return done


def fails(*args: object, **extra: str) -> str:
    """Run a command that must fail with one line."""
    done = run(*args, status=1, timeout=60, **extra)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def event(number: int, day: int, **fields: Any) -> dict[str, Any]:
    at = (BEGIN + timedelta(days=day, minutes=number)).isoformat()
    return {
        "event_id": f"e-{number}",
        "source": "s",
        "reported_at": at,
        "product": "F0101",
        "region": "120110",
        **fields,
    }


def month() -> list[dict[str, Any]]:
    """Thirty days of inspections, half of which fail from day 20 on."""
    return [
        event(day, day, lab="lab-1", tested=20, failed=10 if day >= 20 else 0, event_id=f"i-{day}") for day in range(30)
    ]


def accident(at: datetime) -> dict[str, Any]:
    return event(0, 0, event_id="a-1", reported_at=at.isoformat(), authority="bureau", deaths=3)


@pytest.fixture
def place(kafka: KafkaBroker, topic_prefix: str) -> tuple[str, ...]:
    return "--broker", f"kafka://{kafka.bootstrap}", "--prefix", f"{topic_prefix}."


@pytest.fixture
def month_file(tmp_path: Path) -> Path:
    file = tmp_path / "i.ndjson"
    file.write_text("".join(json.dumps(one) + "\n" for one in month()))
    return file


def test_history_published_run_to_its_end_and_replayed_gives_the_embedded_alerts(
    place: tuple[str, ...], month_file: Path, tmp_path: Path
) -> None:
    made = run("topics", "create", "--history", "--partitions", "2", *place)
    assert "inspections" in made.stdout
    assert run("topics", "create", "--history", "--partitions", "2", *place).stdout == "all topics are there\n"
    config = tmp_path / "c.toml"
    config.write_text("partitions = 2\n")
    given = ("--config", config)
    published = run("publish", "inspections", month_file, *given, *place)
    assert published.stdout.startswith("30 events published to inspections in kafka://")
    deadly = tmp_path / "a.ndjson"
    deadly.write_text(json.dumps(accident(BEGIN + timedelta(days=5))) + "\n")
    run("publish", "accidents", deadly, *given, *place)
    assert run("publish", "complaints", "-", "--raw", *given, *place).stdout.startswith("0 events")
    run("run", "--until-end", *given, *place)

    data = tmp_path / "data"
    run("publish", "inspections", month_file, *given, "--data", data)
    run("publish", "accidents", deadly, "--data", data)
    run("run", "--until-end", "--data", data)
    embedded = run("alerts", "list", "--canonical", "--data", data).stdout
    assert "grave-event" in embedded
    assert '"pass-rate"' in embedded
    assert run("alerts", "list", "--canonical", *place).stdout == embedded
    run("replay", "--out", tmp_path / "again", *given, *place)
    assert (tmp_path / "again" / "alerts.ndjson").read_text() == embedded

    listed = run("topics", "list", *place).stdout
    assert "given" in listed
    run("signals", "export", tmp_path / "s.ndjson", *place)
    assert json.loads((tmp_path / "s.ndjson").read_text().splitlines()[0])["kind"]
    assert run("alerts", "show", "grave", *place).stdout.count("opened") >= 1


@pytest.fixture
def worker(place: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A live worker: the broker stamps the records."""
    run("topics", "create", "--partitions", "1", *place)
    process = subprocess.Popen(
        command("run", *place), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"worker of group ")
        yield process
    finally:
        process.kill()
        process.communicate()


def test_kcat_sends_a_fatal_accident_and_reads_the_alert(
    worker: subprocess.Popen[bytes], place: tuple[str, ...], kafka: KafkaBroker, kcat: Path, tmp_path: Path
) -> None:
    prefix = place[3]
    now = datetime.now(CHINA)
    sent = json.dumps(accident(now)).encode()
    run_kcat(kcat, kafka.bootstrap, "-P", "-t", f"{prefix}accidents", "-k", "F0101", given=sent)
    run_kcat(kcat, kafka.bootstrap, "-P", "-t", f"{prefix}accidents", given=b"no json at all")
    told = json.loads(run("alerts", "tail", "--from-start", "--json", "--count", "1", "--timeout", "90", *place).stdout)
    assert (told["kind"], told["status"], told["product"]) == ("grave-event", "opened", "F0101")
    read = run_kcat(
        kcat, kafka.bootstrap, "-C", "-q", "-c", "1", "-o", "beginning", "-t", f"{prefix}emergency-response",
        "-X", "isolation.level=read_committed",
    )  # fmt: skip
    assert json.loads(read) == told
    letters = run("dead-letters", "list", *place).stdout
    assert "malformed-json" in letters
    assert "no json at all" in letters
    run("dispose", told["id"], "acknowledge", "--by", "duty officer", *place)
    old = tmp_path / "old.ndjson"
    old.write_text(json.dumps(accident(BEGIN)) + "\n")
    refused = run("publish", "accidents", old, *place, status=1)
    assert "too-late" in refused.stderr
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=60)
    assert worker.returncode == 0


def test_what_is_wrong_with_a_broker_is_one_line(
    kafka: KafkaBroker, place: tuple[str, ...], month_file: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"kafka://127.0.0.1:{free.getsockname()[1]}"
        for args in (("topics", "list"), ("run",), ("alerts", "tail"), ("publish", "inspections", month_file)):
            assert "no Kafka broker can be reached" in fails(*args, "--broker", nobody)
    assert "is absent" in fails("publish", "inspections", month_file, *place)
    assert "is absent" in fails("alerts", "tail", *place)
    assert "topics are absent" in fails("run", *place)
    assert "is absent" in fails("replay", "--out", tmp_path / "out", *place)
    sasl = {
        "TOCSIN_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "TOCSIN_KAFKA_USERNAME": USER,
        "TOCSIN_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    }
    secured = ("--broker", f"kafka://{kafka.sasl_bootstrap}")
    line = fails("topics", "list", *secured, TOCSIN_KAFKA_PASSWORD="wrong-secret", **sasl)
    assert "does not accept user" in line
    assert "wrong-secret" not in line
    run("topics", "list", *secured, TOCSIN_KAFKA_PASSWORD=PASSWORD, **sasl)
