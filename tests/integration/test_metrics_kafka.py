"""What a worker that the command started tells of itself while it works on a real broker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from broker import PASSWORD, USER, KafkaBroker, produce
from prometheus_client.parser import text_string_to_metric_families
from test_cli_kafka import accident, command, environment, run

from streams.embedded import INPUTS
from tests.ports import free_port

pytestmark = pytest.mark.kafka

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
SASL = {
    "TOCSIN_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "TOCSIN_KAFKA_USERNAME": USER,
    "TOCSIN_KAFKA_PASSWORD": PASSWORD,
    "TOCSIN_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
}


class Worker:
    """A worker with an endpoint, its log in a file."""

    def __init__(self, *args: str, log: Path, **extra: str) -> None:
        self.port = free_port()
        self.log = log
        given = command("run", *args, "--metrics-port", self.port, "--log-format", "json")
        with log.open("wb") as out:  # both streams: nothing else may come in between
            self.process = subprocess.Popen(given, env=environment(**extra), stdout=out, stderr=out)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def samples(self) -> Samples:
        families = text_string_to_metric_families(self.get("/metrics")[1])
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def wait_until(self, done: Callable[[Samples], bool]) -> Samples:
        """The samples at the first moment at which they are as wanted."""
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            found = self.samples()
            if done(found):
                return found
            time.sleep(0.2)
        raise AssertionError(f"{found}\n{self.log.read_text()[-3000:]}")


def series(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def all_of(found: Samples, name: str) -> dict[str, float]:
    """The values of a metric by topic."""
    return {dict(labels)["topic"]: value for (one, labels), value in found.items() if one == name}


@pytest.fixture
def started() -> Iterator[list[Worker]]:
    made: list[Worker] = []
    yield made
    for worker in made:
        worker.process.kill()
        worker.process.wait()


class Pushed:
    """Stands where Alertmanager would (tests/deploy has the real one): it keeps what it is told."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        told = self.alerts

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"[]")

            def do_POST(self) -> None:
                told.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(b"")

            def _answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def pushed() -> Iterator[Pushed]:
    stand_in = Pushed()
    yield stand_in
    stand_in.server.shutdown()
    stand_in.server.server_close()


def test_a_worker_goes_ready_counts_what_it_does_and_shows_its_lag(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, started: list[Worker], pushed: Pushed
) -> None:
    prefix = f"{topic_prefix}."
    place = ("--broker", f"kafka://{kafka.sasl_bootstrap}", "--prefix", prefix)
    run("topics", "create", "--partitions", "1", *place, **SASL)  # type: ignore[arg-type]
    now = datetime.now(UTC)
    # Two records are there before the worker is: it must have worked them off before it is ready.
    produce(kafka.bootstrap, f"{prefix}accidents", [json.dumps(accident(now)).encode(), b"no json at all"])
    worker = Worker(*place, log=tmp_path / "worker.log", TOCSIN_ALERTMANAGER=pushed.url, **SASL)
    started.append(worker)
    unready: set[str] = set()
    deadline = time.monotonic() + 60
    while (answer := worker.get("/readyz"))[0] != 200:
        assert time.monotonic() < deadline, worker.log.read_text()[-3000:]
        assert worker.process.poll() is None, worker.log.read_text()[-3000:]
        if answer[0]:
            unready.add(json.loads(answer[1])["status"])
            assert answer[0] == 503
        time.sleep(0.05)
    assert unready <= {"starting", "restoring", "catching-up"}
    assert "starting" in unready
    assert worker.get("/healthz")[0] == 200
    found = worker.samples()
    assert found[series("tocsin_events_total", topic="accidents", verdict="accepted")] == 1
    assert found[series("tocsin_dead_letters_total", stage="intake", reason="malformed-json")] == 1
    assert set(all_of(found, "tocsin_consumer_lag_records")) == {*INPUTS, "keyed-events", "signals"}

    opened = series("tocsin_open_alerts", level="II", kind="grave-event", scope="cell", acknowledged="no")
    worker.wait_until(lambda now: now.get(opened) == 1)
    found = worker.wait_until(lambda now: set(all_of(now, "tocsin_watermark_timestamp_seconds")) == set(INPUTS))
    assert all(abs(mark - time.time()) < 60 for mark in all_of(found, "tocsin_watermark_timestamp_seconds").values())
    assert all(all_of(found, "tocsin_consumer_lag_records")[topic] == 0 for topic in INPUTS)
    assert found[series("tocsin_alert_latency_seconds_count", path="grave")] == 1
    assert found[series("tocsin_alert_latency_seconds_sum", path="grave")] < 60
    assert found[series("tocsin_checkpoints_total", stage="escalate")] >= 1
    assert found[series("tocsin_changelog_bytes_total", stage="assess")] > 0
    assert found[series("tocsin_rebalances_total")] >= 1

    worker.wait_until(lambda now: now.get(series("tocsin_alertmanager_alerts")) == 1)
    assert {(one["labels"]["alertname"], one["labels"]["level"]) for one in pushed.alerts} == {
        ("TocsinGraveEvent", "II")
    }
    assert {one["labels"]["tocsin_group"] for one in pushed.alerts} == {f"{prefix}tocsin"}
    changelogs = {"assess-changelog", "escalate-changelog"}
    name = "tocsin_changelog_backlog_records"
    worker.wait_until(lambda now: {topic for topic, held in all_of(now, name).items() if held} == changelogs)

    worker.process.terminate()
    assert worker.process.wait(30) == 0
    lines = [json.loads(line) for line in worker.log.read_text().splitlines()]
    told = [line for line in lines if line["logger"] == "tocsin.alerts"]
    assert [(line["level"], line["status"], line["kind"]) for line in told] == [("warning", "opened", "grave-event")]
    refused = [line for line in lines if line["logger"] == "tocsin.intake"]
    assert [(line["level"], line["reasons"]) for line in refused] == [("warning", {"malformed-json": 1})]
    assert PASSWORD not in worker.log.read_text()
    assert "no json at all" not in worker.log.read_text()


_TOLD_AT_ONCE = """
import os, signal
from streams.cli import main
from streams.health import HealthServer
enter = HealthServer.__enter__
def enter_and_be_told(self):
    server = enter(self)
    os.kill(os.getpid(), signal.SIGTERM)
    return server
HealthServer.__enter__ = enter_and_be_told
main()
"""


def test_a_worker_that_is_told_to_end_as_soon_as_it_can_be_seen_ends_in_order(
    kafka: KafkaBroker, topic_prefix: str
) -> None:
    place = ("--broker", f"kafka://{kafka.bootstrap}", "--prefix", f"{topic_prefix}.")
    run("topics", "create", "--partitions", "1", *place)
    told = [sys.executable, "-c", _TOLD_AT_ONCE, "run", *place, "--metrics-port", str(free_port())]
    ended = subprocess.run(told, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert "Traceback" not in ended.stderr


def test_a_worker_may_be_told_to_end_at_any_moment_of_its_start(
    kafka: KafkaBroker, topic_prefix: str, tmp_path: Path, started: list[Worker]
) -> None:
    place = ("--broker", f"kafka://{kafka.bootstrap}", "--prefix", f"{topic_prefix}.")
    run("topics", "create", "--partitions", "1", *place)
    for pause in (0.0, 0.02, 0.1, 0.3, 1.0, 2.0):
        worker = Worker(*place, log=tmp_path / f"after-{pause}.log")
        started.append(worker)
        deadline = time.monotonic() + 60
        while not worker.get("/healthz")[0]:
            assert time.monotonic() < deadline, worker.log.read_text()[-3000:]
        time.sleep(pause)
        worker.process.terminate()
        assert (pause, worker.process.wait(60)) == (pause, 0), worker.log.read_text()[-3000:]
        logged = worker.log.read_text()
        assert "Traceback" not in logged
        assert "Unclosed" not in logged, logged[-3000:]
