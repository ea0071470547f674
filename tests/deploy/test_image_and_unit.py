"""The image and the service unit, checked by the tools that know them; neither is run here.

There is no container engine and no running systemd in the tests: ``hadolint`` reads the Dockerfile,
``systemd-analyze`` the unit.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tooling import ROOT

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
UNIT = ROOT / "deploy" / "systemd" / "tocsin.service"


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=False)


# --- the image -----------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions: (word, the rest), continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def test_hadolint_finds_nothing(tool: Callable[[str], Path], tmp_path: Path) -> None:
    hadolint = tool("hadolint")
    done = run(hadolint, "--failure-threshold", "info", DOCKERFILE)
    assert done.returncode == 0, done.stdout + done.stderr
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python\nRUN cd /x && pip install faust\nUSER root\n")
    assert run(hadolint, bad).returncode == 1


def test_the_image_is_made_of_the_lock_alone() -> None:
    pip = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert len(pip) == 2
    assert all(option in pip[0] for option in ("--require-hashes", "--only-binary :all:", "-r requirements.lock"))
    assert all(option in pip[1] for option in ("--no-deps", "--no-index", "--no-build-isolation"))
    assert all(re.search(r":\d", rest) for word, rest in instructions() if word == "FROM")


def test_the_image_runs_as_nobody_in_particular_and_says_whether_it_is_well() -> None:
    last = instructions()[max(n for n, (word, _) in enumerate(instructions()) if word == "FROM") :]
    said = dict(last)
    user, group = said["USER"].split(":")
    assert int(user) >= 10_000
    assert int(group) >= 10_000
    assert "/healthz" in said["HEALTHCHECK"]
    check = json.loads(said["HEALTHCHECK"].split("CMD", 1)[1])
    compile(check[2], "healthcheck", "exec")
    assert json.loads(said["ENTRYPOINT"]) == ["tocsin"]
    assert not re.search(r"(?i)password|secret|token", DOCKERFILE.read_text("utf-8"))


def test_everything_that_is_copied_stands_in_the_build_context() -> None:
    ignore = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        name
        for word, rest in instructions()
        if word == "COPY" and "--from" not in rest
        for name in shlex.split(rest)[:-1]
    }
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)
    assert "*" in ignore


# --- the unit ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program in place of ours, which is not installed where the unit says."""
    text = UNIT.read_text("utf-8")
    assert text.count("/opt/tocsin/.venv/bin/tocsin run") == 1
    file = tmp_path / "tocsin.service"
    file.write_text(text.replace("/opt/tocsin/.venv/bin/tocsin run", "/bin/true run"), "utf-8")
    return file


def test_systemd_accepts_the_unit(unit: Path, tool: Callable[[str], Path]) -> None:
    analyze = tool("systemd-analyze")
    done = run(analyze, "verify", "--man=no", unit)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unit.write_text(unit.read_text("utf-8").replace("ProtectSystem=strict", "ProtectSystem=mostly"), "utf-8")
    assert "protect system" in run(analyze, "verify", "--man=no", unit).stderr


def test_the_unit_is_as_hardened_as_systemd_can_tell(unit: Path, tool: Callable[[str], Path]) -> None:
    analyze = tool("systemd-analyze")
    done = run(analyze, "security", "--offline=true", "--threshold=15", "--no-pager", unit)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr
    unit.write_text(
        unit.read_text("utf-8").replace("DynamicUser=yes\n", "").replace("ProtectSystem=strict\n", ""), "utf-8"
    )
    assert run(analyze, "security", "--offline=true", "--threshold=15", "--no-pager", unit).returncode != 0


def test_the_unit_holds_no_secret_and_writes_to_its_own_folder() -> None:
    keys = dict(re.findall(r"^(\w+)=(.+)$", UNIT.read_text("utf-8"), flags=re.MULTILINE))
    assert keys["StateDirectory"] == "tocsin"
    assert keys["EnvironmentFile"].startswith("-/etc/tocsin/")
    assert "PASSWORD" not in keys["Environment"]
    assert "%S/tocsin" in keys["Environment"]
