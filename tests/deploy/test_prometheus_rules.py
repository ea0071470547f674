"""The Prometheus files: checked by promtool, every metric real, every alert with a runbook and a test both ways."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tooling import ROOT, Run, tools

from streams.alertmanager import RUNBOOK
from streams.config import Config
from streams.metrics import Metrics

FOLDER = ROOT / "deploy" / "prometheus"
RULES = ("recording.yml", "alerts.yml")


def text(name: str) -> str:
    return (FOLDER / name).read_text("utf-8")


def alerts() -> dict[str, str]:
    """Each alerting rule's text by its name."""
    parts = re.split(r"^ +- alert: (\w+)$", text("alerts.yml"), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def families() -> dict[str, str]:
    """What a worker defines: the type of each metric by its name."""
    config = Config()
    metrics = Metrics(config, config.load_catalogue(), "embedded")
    return {family.name: family.type for family in metrics.registry.collect()}


def series() -> set[str]:
    """The names of the series on a worker's page."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "info": ("_info",)}
    return {name + suffix for name, kind in families().items() for suffix in suffixes.get(kind, ("",))}


def test_promtool_accepts_the_rules_and_the_configuration(promtool: Run) -> None:
    done = promtool("check", "rules", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_fire_when_they_should_and_only_then(promtool: Run) -> None:
    done = promtool("test", "rules", "rules_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("was", "now"),
    [("> 900", "> 90000"), ("> 10000", "> 1"), ('level=~"I|II"', 'level=~"I|II|III"'), ("for: 10m", "for: 1m")],
)
def test_the_rule_tests_notice_a_changed_rule(promtool: Run, tmp_path: Path, was: str, now: str) -> None:
    for name in (*RULES, "rules_test.yml"):
        shutil.copy(FOLDER / name, tmp_path)
    changed = text("alerts.yml").replace(was, now)
    assert changed != text("alerts.yml")
    (tmp_path / "alerts.yml").write_text(changed, "utf-8")
    assert promtool("test", "rules", "rules_test.yml", cwd=tmp_path).returncode == 1


def test_every_metric_in_the_rules_and_in_the_runbook_is_exported() -> None:
    recorded = set(re.findall(r"- record: (\S+)", text("recording.yml")))
    used = set()
    for source in (text("recording.yml"), text("alerts.yml"), text("rules_test.yml")):
        assert set(re.findall(r"\b\w+:tocsin_\w+:\w+", source)) <= recorded
        used |= set(re.findall(r"(?<![\w:])tocsin_\w+", source))
    assert len(used) > 10
    assert used <= series()
    runbook = (ROOT / "deploy" / "RUNBOOK.md").read_text("utf-8")
    named = set(re.findall(r"\btocsin_\w+", runbook))
    assert len(named) > 8
    assert named <= series() | set(families())


def test_every_alert_says_how_grave_it_is_and_where_its_runbook_stands() -> None:
    runbook = (ROOT / "deploy" / "RUNBOOK.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (.+)\n\n((?:(?!## ).*\n?)+)", runbook, flags=re.MULTILINE))
    anchors = {title.lower().replace(" ", "-"): body for title, body in sections.items()}
    pointed = {RUNBOOK.partition("#")[2]}  # of the alerts that Tocsin pushes itself
    for name, rule in alerts().items():
        assert re.search(r"severity: (critical|warning)}", rule), name
        assert re.search(r"^ +summary: \".+\"$", rule, flags=re.MULTILINE), name
        assert re.search(r"^ +description: \".+\"$", rule, flags=re.MULTILINE), name
        anchor = re.search(r"runbook: deploy/RUNBOOK\.md#(\S+)", rule)
        assert anchor is not None, name
        pointed.add(anchor.group(1))
    assert pointed == set(anchors), "a section for each alert, and no other"
    assert all(all(f"**{word}**" in body for word in ("Means", "Look at", "Do")) for body in anchors.values())


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    fired = set(re.findall(r'alertname="(\w+)"\}\'', text("rules_test.yml")))
    assert fired == set(alerts())


def test_a_tool_on_path_is_taken_and_an_unknown_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "promtool"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TOCSIN_TOOLS", str(tmp_path / "kept"))
    assert tools.find("promtool") == mine
    with pytest.raises(tools.ToolUnavailable, match="not on PATH"):
        tools.find("no-such-tool")
    # Without apt-get there is a reason, and no half-made folder.
    with pytest.raises(tools.ToolUnavailable, match="no Debian"):
        tools.find("amtool")
    assert not (tmp_path / "kept" / "prometheus-alertmanager").exists()
