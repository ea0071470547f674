"""The metrics of the HTTP services, as a scraper gets them: linted by promtool, and they count what was sent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as families
from tooling import ROOT, monitoring

EVENT = {
    "event_id": "R-1", "source": "lab-07", "reported_at": "2026-03-02T09:30:00+08:00", "product": "F0201",
    "region": "120110", "lab": "lab-07", "verdict": "fail",
}  # fmt: skip


@contextmanager
def process(command: str, data: Path) -> Iterator[tuple[str, str]]:
    """A serving process: its address, and that of its metrics."""
    port = monitoring.free_port()
    words = [command, "--data", str(data), "--port", "0", "--metrics-port", str(port)]
    clean = {name: text for name, text in os.environ.items() if not name.startswith("TOCSIN_")}
    with subprocess.Popen(
        [sys.executable, "-m", "streams.cli", *words], stderr=subprocess.PIPE, text=True, cwd=ROOT, env=clean
    ) as running:
        assert running.stderr is not None
        try:
            found = next(match for line in running.stderr if (match := re.search(r"at (http://\S+:\d+)/", line)))
            yield found[1], f"http://127.0.0.1:{port}/metrics"
        finally:
            running.terminate()
            running.communicate(timeout=60)
    assert running.returncode == 0


def get(address: str, body: object = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def values(text: str) -> dict[tuple[str, ...], float]:
    """Samples by name and labels' values, buckets left out."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(text)
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


@pytest.fixture
def linted(tool: Callable[[str], Path]) -> Callable[[str], None]:
    """Has promtool check what a scrape brought."""
    program = tool("promtool")

    def check(text: str) -> None:
        done = subprocess.run(
            [str(program), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    return check


def test_serve_counts_requests_rows_refusals_and_appends(tmp_path: Path, linted: Callable[[str], None]) -> None:
    with process("serve", tmp_path / "data") as (address, metrics):
        good = [{**EVENT, "event_id": f"R-{number}"} for number in range(3)]
        assert get(f"{address}/v1/events/inspection", [*good, {**EVENT, "product": "ZZ"}])[0] == 207
        assert get(f"{address}/v1/events/inspection", [{**EVENT, "region": "990000"}])[0] == 422
        for path in ("/no/such", "/v1/events/<b>", "/rejected/a.csv", "/rejected/b.csv"):
            assert get(address + path)[0] >= 400
        _, text = get(metrics)
    linted(text)
    found = values(text)
    assert found["tocsin_service_info", "serve", "0.1.0"] == 1
    assert found["tocsin_submitted_rows_total", "inspection", "accepted"] == 3
    assert found["tocsin_submitted_rows_total", "inspection", "rejected"] == 2
    assert found["tocsin_submitted_rows_refused_total", "unknown-code"] == 2
    assert found["tocsin_log_append_duration_seconds_count", "inspections"] == 1
    assert found["tocsin_log_append_duration_seconds_count", "dead-letters"] == 2
    asked = {key[1:]: value for key, value in found.items() if key[0] == "tocsin_http_requests_total"}
    assert asked == {
        ("/v1/events/{kind}", "2xx"): 1, ("/v1/events/{kind}", "4xx"): 1, ("-", "4xx"): 2,
        ("/rejected/{name}.csv", "4xx"): 2,
    }  # fmt: skip
    assert found["tocsin_http_request_duration_seconds_count", "/v1/events/{kind}"] == 2
    assert found["process_resident_memory_bytes",] > 0


def test_the_board_counts_its_pages_and_says_whether_it_follows(tmp_path: Path, linted: Callable[[str], None]) -> None:
    with process("board", tmp_path / "data") as (address, metrics):
        for _ in range(100):
            if get(f"{address}/healthz")[0] == 200:
                break
        assert get(f"{address}/v1/board/news")[0] == 200
        _, text = get(metrics)
    linted(text)
    found = values(text)
    assert found["tocsin_service_info", "board", "0.1.0"] == 1
    assert found["tocsin_board_following",] == 1
    assert (found["tocsin_board_clients",], found["tocsin_board_open_alerts",]) == (0, 0)
    assert found["tocsin_http_requests_total", "/v1/board/news", "2xx"] == 1
