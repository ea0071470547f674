"""Prometheus and Alertmanager as processes on free ports of this machine, for the tests and for deploy/verify.

    with Alertmanager(tools.find("prometheus-alertmanager"), folder, config) as alertmanager:
        alertmanager.get("/api/v2/alerts")

Each listens on 127.0.0.1 only, keeps everything in the folder that it is given, and ends with the ``with``.
"""

from __future__ import annotations

import http.client
import json
import math
import shutil
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

HOST: Final = "127.0.0.1"
_START_SECONDS: Final = 30.0
_DEPLOY: Final = Path(__file__).resolve().parent
_VARIABLES: Final = {
    "$__rate_interval": "1m", "$job": "tocsin", "$product": ".*", "$region": ".*", "$window": ".*",
}  # fmt: skip
_TEMPLATES: Final = Path("/usr/share/prometheus/alertmanager/default.tmpl")


class ServerFailed(RuntimeError):
    """A server did not start or did not answer as it should; the message has the end of its log."""


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def prometheus_config(folder: Path, targets: Sequence[str], alertmanager: str) -> Path:
    """deploy/prometheus/prometheus.yml for these addresses, and once a second, beside the rules as they are."""
    written = (_DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8")
    for was, now in (
        ("localhost:9464", ", ".join(targets)),
        ("localhost:9093", alertmanager),
        ("scrape_interval: 15s", "scrape_interval: 1s"),
        ("scrape_timeout: 10s", "scrape_timeout: 1s"),
        ("evaluation_interval: 15s", "evaluation_interval: 1s"),
    ):
        if was not in written:
            raise ServerFailed(f"deploy/prometheus/prometheus.yml has no {was!r} any more")
        written = written.replace(was, now)
    folder.mkdir(parents=True, exist_ok=True)
    for rules in ("recording.yml", "alerts.yml"):
        shutil.copy(_DEPLOY / "prometheus" / rules, folder)
    (folder / "prometheus.yml").write_text(written, "utf-8")
    return folder / "prometheus.yml"


def dashboard_queries() -> list[tuple[str, str, str]]:
    """Dashboard, panel and PromQL of every query of deploy/grafana/dashboards, with the variables filled in."""
    found = []
    for path in sorted((_DEPLOY / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                expr = target["expr"]
                for name, value in _VARIABLES.items():
                    expr = expr.replace(name, value)
                found.append((path.stem, panel["title"], expr))
    return found


def finite(result: Sequence[dict[str, Any]]) -> bool:
    """Whether a query's result has a number in it."""
    return any(math.isfinite(float(one["value"][1])) for one in result)


class Server:
    """A process with an HTTP port; subclasses say how it is started."""

    name = "server"

    def __init__(self, program: Path, folder: Path, config: Path, *, port: int | None = None) -> None:
        self.program = program
        self.folder = folder
        self.config = config
        self.port = port or free_port()
        self.log = folder / f"{self.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def prefix(self) -> list[str]:
        """What stands before the program."""
        return []

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            command = [*self.prefix(), str(self.program), *self.arguments()]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                if self.ask("GET", "/-/ready")[0] == 200:
                    return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(f"{self.name} did not start:\n{self.last_lines()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, at once if it will not."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def last_lines(self) -> str:
        return self.log.read_text("utf-8", "replace")[-3_000:] if self.log.exists() else "(no log)"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # --- asking ----------------------------------------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Status and body of one request; a body is sent as JSON."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=20)
        try:
            if body is None:
                connection.request(method, path)
            else:
                connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The JSON that a path answers."""
        status, said = self.ask("GET", path)
        if status != 200:
            raise ServerFailed(f"{self.name}: {path} answers {status}: {said[:300]!r}")
        return json.loads(said)


class Alertmanager(Server):
    """One Alertmanager, without its gossip."""

    name = "alertmanager"

    def prefix(self) -> list[str]:
        """Debian's build reads its templates from /usr/share. Where the package is only unpacked, give
        it a mount namespace of its own, in which they are there; the system is left as it is."""
        shared = self.program.absolute().parents[1] / "share"
        own = shared / "prometheus" / "alertmanager" / "default.tmpl"
        if _TEMPLATES.exists() or not own.exists():
            return []
        bound = 'mount --bind "$0" /usr/share && exec "$@"'
        return ["unshare", "--map-root-user", "--mount", "sh", "-c", bound, str(shared)]

    def arguments(self) -> list[str]:
        return [
            f"--config.file={self.config}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def alerts(self) -> list[dict[str, Any]]:
        """What stands there."""
        found: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return found


class Prometheus(Server):
    """One Prometheus."""

    name = "prometheus"

    def arguments(self) -> list[str]:
        return [
            f"--config.file={self.config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
            "--log.level=warn",
        ]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The result of an instant query: a vector, or a scalar as a vector of one."""
        data = self.get("/api/v1/query?" + urllib.parse.urlencode({"query": expression}))["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        found: list[dict[str, Any]] = data["result"]
        return found

    def targets_up(self) -> dict[str, bool]:
        """Each scraped instance, and whether it is up."""
        active = self.get("/api/v1/targets?state=active")["data"]["activeTargets"]
        return {one["labels"]["instance"]: one["health"] == "up" for one in active}
