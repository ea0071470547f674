"""A reader of the README who types what it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
STANDING = re.compile(r"tocsin (run(?!.*--until-end)|serve|board|alerts tail)\b")
PORTS = {"serve": "TOCSIN_SERVE_PORT", "board": "TOCSIN_BOARD_PORT", "run": "TOCSIN_METRICS_PORT"}
SECONDS = 120


def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def commands(name: str) -> list[str]:
    """Every line of the shell blocks, without its comment."""
    blocks = re.findall(r"```sh\n(.*?)```", text_of(name), re.S)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(re.sub(r"\s#\s.*$|\s{2,}#.*$", "", line).split()) for line in lines if line.strip()]


class Reader:
    """Runs lines in a folder. What stands until it is told to end is waited for, and ended in good order."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN")}
        python = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
        self._env = {**kept, "PATH": python, "PYTHONPATH": str(ROOT)}
        self._standing: subprocess.Popen[bytes] | None = None
        self._reads = False
        self._log = folder / "said.txt"

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._standing is not None:
            self._standing.kill()
            self._standing.wait()

    def run(self, line: str) -> str:
        """What a line prints; of one that stands, what it has said by the time that it is up."""
        line = re.sub(r" ID\b", f" {self._env.get('ID', 'ID')}", line)
        if line.startswith("curl"):
            line = line.replace(":8080", f":{self._env['SERVE']}")
        if STANDING.match(line):
            return self._start(line)
        done = subprocess.run(
            ["bash", "-c", line], cwd=self._folder, env=self._env, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        if line.startswith("tocsin tokens add"):
            self._env["TOKEN"] = done.stdout.strip()
        if line.startswith("tocsin alerts list"):
            self._env["ID"] = re.search(r"[a-z]+(?:-[a-z]+)*-[0-9a-f]{16}", done.stdout)[0]  # type: ignore[index]
        return done.stdout

    def _start(self, line: str) -> str:
        name = line.split()[1]
        self._reads = name == "alerts"
        port = free_port()
        line = re.sub(r"--metrics-port \d+", f"--metrics-port {port}", line)
        env = {**self._env, PORTS.get(name, "NO_PORT"): str(port)}
        with self._log.open("wb") as said:
            self._standing = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=self._folder, env=env, stdout=said, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + SECONDS
        while not (self._answers(name, port) if name in PORTS else time.monotonic() > deadline - SECONDS + 2.0):
            assert self._standing.poll() is None, f"{line}: {self._log.read_text('utf-8')}"
            assert time.monotonic() < deadline, f"{line}: {self._log.read_text('utf-8')}"
            time.sleep(0.05)
        if name == "serve":
            self._env["SERVE"] = str(port)
        return self._log.read_text("utf-8")

    @staticmethod
    def _answers(name: str, port: int) -> bool:
        """Whether it is up: of a worker, whether it says that it is ready."""
        if name == "run":
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as said:
                    return bool(said.status == 200)
            except OSError:
                return False
        with socket.socket() as tried:
            tried.settimeout(1.0)
            return tried.connect_ex(("127.0.0.1", port)) == 0

    def end(self) -> None:
        """End what stands as a service manager does; a mere reader may just die of it."""
        if self._standing is None:
            return
        standing, self._standing = self._standing, None
        standing.send_signal(signal.SIGTERM)
        status = standing.wait(SECONDS)
        assert status == 0 or (self._reads and status == -signal.SIGTERM), self._log.read_text("utf-8")
