"""Real tools for the deployment files, and a loud word where there are none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lacking import need
from tooling import ROOT, Run, monitoring, tools


@pytest.fixture
def tool(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Where a program is; the test is skipped, or fails where CI runs, if it cannot be had."""

    def find(program: str) -> Path:
        found: Path = need(
            request.node, program, lambda: tools.find(program), tools.ToolUnavailable, unless="TOCSIN_ALLOW_NO_TOOLS"
        )
        return found

    return find


@pytest.fixture
def promtool(tool: Callable[[str], Path]) -> Run:
    """Runs promtool in deploy/prometheus, or in another folder."""
    program = tool("promtool")

    def run(*args: object, cwd: Path = ROOT / "deploy" / "prometheus") -> subprocess.CompletedProcess[str]:
        command = [str(program), *map(str, args)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def amtool(tool: Callable[[str], Path]) -> Run:
    """Runs amtool."""
    program = tool("amtool")

    def run(*args: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        command = [str(program), *map(str, args)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def alertmanager(tool: Callable[[str], Path], tmp_path: Path) -> Iterator[Any]:
    """A real Alertmanager with our configuration, for one test."""
    program = tool("prometheus-alertmanager")
    config = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
    with monitoring.Alertmanager(program, tmp_path / "alertmanager", config) as server:
        yield server
