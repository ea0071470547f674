"""The lock: every package at one version with hashes, enforced wherever it is installed; and the audit of it."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from tooling import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """Each package of a lock: its version and its hashes."""
    text = re.sub(r"\\\n\s*", "", (ROOT / name).read_text("utf-8"))
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)(?:\s*;[^#]*?)?((?:\s*--hash=\S+)*)\s*", line)
        assert match, line
        found[match[1].lower()] = (match[2], re.findall(r"--hash=(\S+)", match[3]))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_is_pinned_by_hashes(name: str) -> None:
    packages = locked(name)
    assert len(packages) > 20
    for package, (_, hashes) in packages.items():
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), package


def test_the_lock_for_development_holds_the_other_one_and_both_hold_what_the_project_needs() -> None:
    plain, dev = (locked(name) for name in LOCKS)
    assert {name: dev[name] for name in plain} == plain
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = [re.match(r"[A-Za-z0-9._-]+", line)[0].lower() for line in project["dependencies"]]  # type: ignore[index]
    assert set(needed) <= set(plain)


def test_whoever_installs_the_lock_asks_for_its_hashes() -> None:
    for file in ("deploy/setup", "deploy/Dockerfile"):
        lines = [
            line for line in (ROOT / file).read_text("utf-8").splitlines() if "pip install" in line and "-r " in line
        ]
        assert lines
        assert all("--require-hashes" in line for line in lines)


# --- the audit -----------------------------------------------------------------------------------------------------

REPORT = """{"dependencies": [{"name": "a", "version": "1", "vulns": [%s]}, {"name": "b", "skip_reason": "unknown"}]}"""
KNOWN = '{"id": "PYSEC-2020-1", "fix_versions": ["2"]}'


@pytest.mark.parametrize(
    ("report", "must", "status", "says"),
    [
        (REPORT % KNOWN, "0", 1, "a 1: PYSEC-2020-1; fixed in 2"),
        (REPORT % "", "0", 0, "1 packages asked about, 0 vulnerabilities known"),
        ('{"dependencies": [{"name": "b", "skip_reason": "unknown"}]}', "0", 0, "NOT ASKED"),
        ("", "0", 0, "NOT ASKED"),
        ("", "1", 1, "NOT ASKED"),
    ],
)
def test_the_audit_fails_on_known_vulnerabilities_and_says_loudly_when_it_could_not_ask(
    tmp_path: Path, report: str, must: str, status: int, says: str
) -> None:
    """With a service of our own in the place of pip-audit: what it finds, or that it cannot be reached."""
    fake = tmp_path / "pip-audit"
    fake.write_text(
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = --output ] && out=$2; shift; done\n"
        f"cat > \"$out\" <<'END'\n{report}\nEND\n" if report else "#!/bin/sh\necho no route to host >&2\nexit 1\n"
    )  # fmt: skip
    fake.chmod(0o755)
    env = {**os.environ, "TOCSIN_PIP_AUDIT": str(fake), "TOCSIN_AUDIT_MUST": must}
    done = subprocess.run(["sh", ROOT / "deploy" / "audit"], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert says in done.stdout + done.stderr
