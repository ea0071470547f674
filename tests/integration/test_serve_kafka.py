"""``tocsin serve --broker``: what was answered with 202 is on the broker, as kcat reads it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from broker import KafkaBroker, read_all

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).resolve().parents[2]


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "streams.cli", *(str(arg) for arg in args)]


def event(name: str, **fields: Any) -> dict[str, Any]:
    at = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    common = {"source": "lab-07", "reported_at": at, "product": "F0201", "region": "120110", "lab": "lab-07"}
    return {"event_id": name, **common, "verdict": "pass", **fields}


def post(port: int, events: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        body = "".join(json.dumps(one) + "\n" for one in events)
        connection.request("POST", "/v1/events/inspection", body, {"Content-Type": "application/x-ndjson"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_uploads_at_once_are_all_on_the_broker_and_live_topics_refuse_what_is_too_old(
    kafka: KafkaBroker, kcat: Path, topic_prefix: str
) -> None:
    place = ("--broker", f"kafka://{kafka.bootstrap}", "--prefix", f"{topic_prefix}.")
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TOCSIN")}
    absent = subprocess.run(
        command("serve", "--port", 0, *place), capture_output=True, text=True, timeout=120, cwd=ROOT, env=clean
    )
    assert absent.returncode == 1
    assert len(absent.stderr.splitlines()) == 1, absent.stderr
    subprocess.run(command("topics", "create", *place), check=True, capture_output=True, cwd=ROOT, env=clean)
    with subprocess.Popen(
        command("serve", "--port", 0, *place), stderr=subprocess.PIPE, text=True, cwd=ROOT, env=clean
    ) as serving:
        try:
            assert serving.stderr is not None
            found = re.search(r":(\d+)/; Ctrl-C", serving.stderr.readline())
            assert found is not None
            port = int(found[1])
            batches = [[event(f"e-{upload}-{row}") for row in range(50)] for upload in range(8)]
            with ThreadPoolExecutor(4) as pool:
                answers = list(pool.map(lambda batch: post(port, batch), batches))
            assert [status for status, _ in answers] == [202] * 8
            old = event("old", reported_at="2020-01-01T00:00:00Z")
            status, told = post(port, [old, event("good"), event("bad", product="F9999")])
            assert status == 207
            assert [(one["line"], one["reason"]) for one in told["verdicts"]] == [(1, "too-late"), (3, "unknown-code")]
            serving.send_signal(signal.SIGTERM)
            assert serving.wait(60) == 0
        finally:
            if serving.poll() is None:
                serving.kill()
    ids = sorted(
        json.loads(line)["event_id"] for line in read_all(kcat, kafka.bootstrap, f"{topic_prefix}.inspections")
    )
    assert ids == sorted(["good", *(one["event_id"] for batch in batches for one in batch)])
    dead = read_all(kcat, kafka.bootstrap, f"{topic_prefix}.dead-letters")
    assert sorted(json.loads(line)["reason"] for line in dead) == ["too-late", "unknown-code"]
