"""The Grafana dashboards: current, made of metrics that exist, and every query answered by a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from test_prometheus_rules import series
from tooling import ROOT, dashboards, load, monitoring

from streams.config import Config
from streams.log import SqliteLog
from streams.simulate import Record

producer = load("producer")
QUERIES = monitoring.dashboard_queries()
CONFIG = Config.parse({**Config().to_dict(), "tick_seconds": 86_400}, "test")


def test_the_dashboards_are_those_that_the_generator_writes() -> None:
    kept = {path.name: path.read_text("utf-8") for path in dashboards.FOLDER.glob("*.json")}
    assert kept == dashboards.rendered(), "run deploy/generate.py"


def test_panels_are_named_once_described_and_do_not_overlap() -> None:
    for path in dashboards.FOLDER.glob("*.json"):
        panels = json.loads(path.read_text("utf-8"))["panels"]
        titles = [panel["title"] for panel in panels]
        assert len(titles) == len(set(titles))
        assert all(len(panel["description"]) > 5 for panel in panels)
        taken = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"].get("x", 0), panel["gridPos"].get("x", 0) + panel["gridPos"]["w"])
            for y in range(panel["gridPos"].get("y", 0), panel["gridPos"].get("y", 0) + panel["gridPos"]["h"])
        ]
        assert len(taken) == len(set(taken)), path.name
        assert max(x for x, _ in taken) < 24
    assert set(dashboards.QUIET) <= {title for _, title, _ in QUERIES}


def test_every_metric_on_a_panel_is_exported_or_recorded() -> None:
    recorded = set(re.findall(r"- record: (\S+)", (ROOT / "deploy/prometheus/recording.yml").read_text("utf-8")))
    known = series() | {"process_resident_memory_bytes", "process_cpu_seconds_total"}
    for board, title, expr in QUERIES:
        named = re.findall(r"\b\w+:tocsin_\w+:\w+", expr)
        assert set(named) <= recorded, (board, title)
        plain = set(re.findall(r"(?<![\w:])(?:tocsin|process)_\w+", expr))
        assert plain <= known, (board, title)
        assert named or plain or re.search(r"\bup\{|ALERTS\{", expr), (board, title)


# --- alive ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Watched:
    """A running Tocsin on the simulated city, and the Prometheus that scrapes it."""

    prometheus: Any
    log: SqliteLog
    process: subprocess.Popen[bytes]
    output: Path

    def publish(self, records: Iterable[Record]) -> None:
        """Append records with the times that they are given."""
        by_topic: dict[str, list[tuple[int, int, bytes | None, bytes | None, tuple[()]]]] = {}
        for one in sorted(records, key=lambda one: one.reported_at):
            by_topic.setdefault(one.topic, []).append((0, one.reported_at, one.key, one.value, ()))
        with self.log.transaction():
            for topic, found in by_topic.items():
                self.log.append(topic, found)

    def empty(self, chosen: Callable[[str], bool]) -> list[tuple[str, str, str]]:
        """The queries of chosen panels that bring no number."""
        return [one for one in QUERIES if chosen(one[1]) and not monitoring.finite(self.prometheus.query(one[2]))]

    def wait_for(self, chosen: Callable[[str], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while left := self.empty(chosen):
            assert self.process.poll() is None, self.output.read_text()[-3_000:]
            assert time.monotonic() < deadline, left
            time.sleep(0.5)


@pytest.fixture
def watched(tool: Callable[[str], Path], alertmanager: Any, tmp_path: Path) -> Iterator[Watched]:
    program = tool("prometheus")
    port, output = monitoring.free_port(), tmp_path / "run.log"
    configured = monitoring.prometheus_config(
        tmp_path / "prometheus", [f"127.0.0.1:{port}"], f"127.0.0.1:{alertmanager.port}"
    )
    (tmp_path / "tocsin.toml").write_text(f"tick_seconds = {CONFIG.tick_seconds}\n")
    command = [
        sys.executable, "-m", "streams.cli", "run", "--data", str(tmp_path / "data"), "--metrics-port", str(port),
        "--config", str(tmp_path / "tocsin.toml"), "--alertmanager", alertmanager.url, "--log-format", "json",
        "--metrics-cell", ":".join(producer.CELL),
    ]  # fmt: skip
    log = SqliteLog(tmp_path / "data", CONFIG.partitions)
    with output.open("wb") as out, monitoring.Prometheus(program, tmp_path / "prometheus", configured) as prometheus:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 40
            while prometheus.query('tocsin_ready{job="tocsin"}') == []:
                assert time.monotonic() < deadline, output.read_text()[-3_000:]
                time.sleep(0.2)
            yield Watched(prometheus, log, process, output)
        finally:
            process.terminate()
            process.wait(20)
            log.close()


def test_every_panel_has_data_and_those_that_may_be_empty_when_calm_say_why(watched: Watched) -> None:
    rules = watched.prometheus.get("/api/v1/rules")["data"]["groups"]
    assert {group["name"] for group in rules} == {"tocsin-recording", "tocsin-system", "tocsin-risk"}
    now = datetime.now(UTC)
    # Food is enough of the city; its days end three to ten days ago, before the incidents.
    watched.publish(producer.last_days(now - timedelta(days=3), 240, 0.01, b"F"))
    watched.wait_for(lambda title: title not in dashboards.QUIET)
    watched.publish(producer.incidents(datetime.now(UTC)))
    watched.wait_for(lambda title: True)
    (refused,) = watched.prometheus.query('sum(tocsin_events_total{verdict="rejected"})')
    assert refused["value"][1] == "1", "the rubbish, and no event of the producer's"
    kinds = {one["metric"]["kind"] for one in watched.prometheus.query("tocsin_alert_level")}
    assert {"grave-event", "injury-surge", "pass-rate"} <= kinds
    assert list(watched.prometheus.targets_up().values()) == [True]
