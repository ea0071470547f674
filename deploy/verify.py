"""What ``deploy/verify`` does: the whole deployment on this machine, with the real programs, from event to resolution.

Kafka, two workers, the board, Prometheus and Alertmanager are started on free ports of 127.0.0.1 and ended again. A
part of the simulated year is fed, then incidents, then a live accident with twelve deaths, which is answered from the
board by the requests that its page makes. Each check prints one line.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
if sys.path and Path(sys.path[0]).resolve() == ROOT / "deploy":
    sys.path[0] = str(ROOT)  # beside this file is a kafka.py, which is not kafka-python
TICK_SECONDS: Final = 60
ALERT_SECONDS: Final = 15.0
_TICKS: Final = 2.5 * TICK_SECONDS + 30
"""For so long something may take that waits for a tick to close."""


class Failed(Exception):
    """Something is not as it should be."""


def load(stem: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"tocsin_deploy_{stem}", ROOT / "deploy" / f"{stem}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"deploy/{stem}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


monitoring, tools, brokers, producer = load("monitoring"), load("tools"), load("kafka"), load("producer")


class Deployment:
    """Everything that runs, and what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[subprocess.Popen[bytes]] = []
        self.ports: list[int] = []
        self.board = ""
        self._token = ""
        self.broker: Any = None
        self.prometheus: Any = None
        self.alertmanager: Any = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            try:
                worker.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        self._stack.close()

    @property
    def address(self) -> str:
        return f"kafka://{self.broker.bootstrap}"

    def tocsin(self, *args: str) -> str:
        """Run a command to its end."""
        command = [sys.executable, "-m", "streams.cli", *args, "--broker", self.address]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise Failed(f"tocsin {' '.join(args[:2])}: {done.stderr.strip()}")
        return done.stdout

    def start(self) -> None:
        self.broker = self._stack.enter_context(brokers.KafkaBroker())
        self.tocsin("topics", "create", "--partitions", "2")
        routes = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
        program = tools.find("prometheus-alertmanager")
        self.alertmanager = self._stack.enter_context(
            monitoring.Alertmanager(program, self.folder / "alertmanager", routes)
        )
        (self.folder / "tocsin.toml").write_text(f"tick_seconds = {TICK_SECONDS}\npartitions = 2\n")
        self._start_board()
        for number in (1, 2):
            self.ports.append(monitoring.free_port())
            self._start_worker(number, self.ports[-1])
        config = monitoring.prometheus_config(
            self.folder / "prometheus",
            [f"127.0.0.1:{port}" for port in self.ports],
            f"127.0.0.1:{self.alertmanager.port}",
        )
        self.prometheus = self._stack.enter_context(
            monitoring.Prometheus(tools.find("prometheus"), self.folder / "prometheus", config)
        )

    def _start_worker(self, number: int, port: int) -> None:
        command = [
            sys.executable, "-m", "streams.cli", "run", "--broker", self.address, "--metrics-port", str(port),
            "--config", str(self.folder / "tocsin.toml"), "--alertmanager", self.alertmanager.url, "--log-format",
            "json", "--metrics-cell", ":".join(producer.CELL), "--board-url", f"{self.board}/",
        ]  # fmt: skip
        with (self.folder / f"worker-{number}.log").open("wb") as log:
            self.workers.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log))

    def _start_board(self) -> None:
        tokens, port = self.folder / "tokens.json", monitoring.free_port()
        made = [
            sys.executable,
            "-m",
            "streams.cli",
            "tokens",
            "add",
            "duty room",
            "--role",
            "read",
            "--role",
            "dispose",
        ]
        done = subprocess.run([*made, "--tokens", str(tokens)], cwd=ROOT, capture_output=True, text=True, check=True)
        self._token, self.board = done.stdout.strip(), f"http://127.0.0.1:{port}"
        command = [
            sys.executable, "-m", "streams.cli", "board", "--broker", self.address, "--port", str(port), "--tokens",
            str(tokens), "--config", str(self.folder / "tocsin.toml"),
        ]  # fmt: skip
        with (self.folder / "board.log").open("wb") as log:
            running = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self._stack.callback(running.wait, 60)
        self._stack.callback(running.terminate)

    # --- what is asked ---------------------------------------------------------------------------------------------

    def value(self, expression: str) -> float:
        """The sum of a query's values; 0 where there are none."""
        return sum(float(one["value"][1]) for one in self.prometheus.query(expression))

    def kill_the_one_that_escalates(self) -> str:
        """End a worker as a crash would; the other must take over. Returns its instance."""
        (found,) = self.prometheus.query('tocsin_assigned_partitions{stage="escalate"} == 1')
        instance = str(found["metric"]["instance"])
        worker = self.workers[self.ports.index(int(instance.rpartition(":")[2]))]
        worker.kill()
        worker.wait()
        return instance

    def in_alertmanager(self) -> dict[str, dict[str, Any]]:
        """What Tocsin has pushed, by the alert's id."""
        pushed = [one for one in self.alertmanager.alerts() if "tocsin_group" in one["labels"]]
        ids = [one["labels"]["alert_id"] for one in pushed]
        if len(ids) != len(set(ids)):
            raise Failed(f"Alertmanager has an alert twice: {ids}")
        return dict(zip(ids, pushed, strict=True))

    def ask_board(self, path: str, body: dict[str, str] | None = None) -> Any:
        """What the page would ask; None while the board does not answer or has nothing there."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.board}/v1/board{path}", data, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Failed(f"the board: {path}: {error.code} {error.read()[:300]!r}") from None
        except OSError:
            return None

    def on_board(self, alert_id: str) -> dict[str, Any]:
        """The alert as the board lists it; empty where it does not."""
        news = self.ask_board("/news") or {"rows": []}
        return next((row for row in news["rows"] if row["id"] == alert_id), {})

    def answer(self, alert_id: str, action: str, reason: str) -> None:
        """Answer an alert from the board."""
        what = {"action": action, "key": str(uuid.uuid4()), "name": "duty officer", "reason": reason}
        if self.ask_board(f"/alerts/{alert_id}/dispositions", what) is None:
            raise Failed(f"the board does not take {action} of {alert_id}")

    def status(self, alert_id: str) -> str:
        """An alert's status on emergency-response."""
        listed = [json.loads(line) for line in self.tocsin("alerts", "list", "--json").splitlines()]
        return next((str(one["status"]) for one in listed if one["id"] == alert_id), "absent")

    def empty_queries(self) -> list[tuple[str, str, str]]:
        queries = monitoring.dashboard_queries()
        return [one for one in queries if not monitoring.finite(self.prometheus.query(one[2]))]

    @contextlib.contextmanager
    def medium(self) -> Iterator[Any]:
        address = producer.BrokerAddress.parse(self.address)
        medium = producer.KafkaMedium(address, "", producer.Security.from_environment({}, address))
        try:
            yield medium
        finally:
            medium.close()


_began = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - _began:6.1f} s  {text}", flush=True)


def wait(what: str, done: Callable[[], Any], seconds: float, left: Callable[[], object] | None = None) -> float:
    """Wait until something is so; returns how long that took."""
    began = time.monotonic()
    while not done():
        if time.monotonic() - began > seconds:
            raise Failed(f"{what}: not within {seconds:g} s" + (f": {left()}" if left is not None else ""))
        time.sleep(0.2)
    took = time.monotonic() - began
    say(f"ok  {what} ({took:.1f} s)")
    return took


def check(deployment: Deployment, days: int) -> None:
    """All of it, in order."""
    prometheus, alertmanager = deployment.prometheus, deployment.alertmanager
    wait("both workers up", lambda: list(prometheus.targets_up().values()) == [True, True], 60)
    wait("both workers ready", lambda: deployment.value("tocsin_ready") == 2, 90)
    groups = prometheus.get("/api/v1/rules")["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    wrong = [rule["name"] for rule in rules if rule["health"] == "err"]
    if len(groups) != 3 or wrong:
        raise Failed(f"rules: {len(groups)} groups of 3, wrong: {wrong}")
    say(f"ok  {len(rules)} rules loaded, none in error")
    wait(
        "Prometheus knows Alertmanager",
        lambda: prometheus.get("/api/v1/alertmanagers")["data"]["activeAlertmanagers"],
        20,
    )

    with deployment.medium() as medium:
        now = datetime.now(UTC)
        records = list(producer.last_days(now, days, 0.02))
        producer.feed(medium, records, 2_000)
        say(f"    {len(records):,} simulated events of {days} days fed")
        producer.feed(medium, list(producer.incidents(datetime.now(UTC))), 100)
        say("    incidents fed")
        wait("all records worked off", lambda: deployment.value("tocsin_consumer_lag_records") == 0, 120)
        total = len(monitoring.dashboard_queries())
        wait(
            f"all {total} queries of the dashboards have data",
            lambda: not deployment.empty_queries(),
            2 * _TICKS,
            deployment.empty_queries,
        )
        known = set(deployment.in_alertmanager())
        sent = datetime.now(UTC)
        producer.send(medium, [producer.accident(sent, f"live-{sent.timestamp():.0f}")])

    def fresh() -> list[str]:
        found = deployment.in_alertmanager()
        return [name for name in set(found) - known if found[name]["labels"]["kind"] == "grave-event"]

    wait("the live accident is in Alertmanager", fresh, ALERT_SECONDS)
    (live,) = fresh()
    level = deployment.in_alertmanager()[live]["labels"]["level"]
    if level != "I":
        raise Failed(f"the live accident is of level {level}")
    say(f"ok  its level is I, {(datetime.now(UTC) - sent).total_seconds():.1f} s after the event: {live}")
    here = producer.CELL[0]
    graves = {n: one["labels"] for n, one in deployment.in_alertmanager().items() if n in known}
    other = next(n for n, about in graves.items() if (about["kind"], about["product"]) == ("grave-event", here))

    page = deployment.in_alertmanager()[live]["generatorURL"]
    if page != f"{deployment.board}/#{live}":
        raise Failed(f"Alertmanager leads to {page}, which is not the board")
    wait("the live accident is on the board", lambda: deployment.on_board(live), 10)
    check_charts(deployment)
    deployment.answer(live, "acknowledge", "team sent")
    wait("the board shows the answer on its way", lambda: deployment.on_board(live).get("pending"), 10)
    silence = subprocess.run(
        [str(tools.find("amtool")), "silence", "add", f"alert_id={other}", "--author=night-officer",
         "--comment=on site", "--duration=1h", f"--alertmanager.url={alertmanager.url}"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    if silence.returncode:
        raise Failed(f"amtool: {silence.stderr}")

    def acknowledged(name: str) -> bool:
        one = deployment.in_alertmanager().get(name)
        return one is not None and one["annotations"]["acknowledged"] == "yes"

    wait("the live accident is acknowledged from the board", lambda: acknowledged(live), _TICKS)
    wait("the other one by a silence in Alertmanager", lambda: acknowledged(other), _TICKS)
    query = f'tocsin_alert_level{{acknowledged="yes", alert_id=~"{live}|{other}"}}'
    wait(
        "the board shows it acknowledged, and by whom",
        lambda: deployment.on_board(live).get("by") == "duty officer (duty room)",
        10,
        lambda: deployment.on_board(live),
    )
    wait("Prometheus says so too", lambda: len(prometheus.query(query)) == 2, 30)

    killed = deployment.kill_the_one_that_escalates()
    say(f"    kill -9 of the worker that escalates ({killed})")
    deployment.answer(live, "close", "over")
    wait("the closed accident has left Alertmanager", lambda: live not in deployment.in_alertmanager(), _TICKS)
    wait("and is resolved on emergency-response", lambda: deployment.status(live) == "resolved", 30)
    gone = f'tocsin_alert_level{{alert_id="{live}"}}'
    wait("and shown no more by Prometheus", lambda: not prometheus.query(gone), 30)
    if acknowledged(other) is False:
        raise Failed("the other accident has gone too")
    down = [instance for instance, up in prometheus.targets_up().items() if not up]
    if down != [killed]:
        raise Failed(f"targets down at the end: {down}, killed was {killed}")
    if not prometheus.query('ALERTS{alertname="TocsinWorkerDown"}'):
        raise Failed("TocsinWorkerDown is not even pending, though a worker was killed")
    say("ok  the other accident stands, and Prometheus has noticed the killed worker and no other")


def check_charts(deployment: Deployment) -> None:
    """Every open alert about a cell's counts has its control chart, and one at least an alarm in it."""
    rows = [row for row in deployment.ask_board("/news")["rows"] if row["status"] != "resolved"]
    kinds = ("pass-rate", "injury-surge", "complaint-surge", "satisfaction", "quality-loss")
    charts = {
        row["id"]: deployment.ask_board(f"/alerts/{row['id']}/evidence") for row in rows if row["kind"] in kinds
    }  # fmt: skip
    bare = [name for name, found in charts.items() if found["chart"] is None]
    if not charts or bare:
        raise Failed(f"of {len(charts)} alerts about counts, without a chart: {bare}")
    if not any(any(found["chart"].get("alarm", ())) for found in charts.values()):
        raise Failed("no chart has an alarm in it")
    say(f"ok  {len(rows)} open alerts on the board, {len(charts)} of them with a control chart")


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/verify", description="Run everything for real, and check it.")
    parser.add_argument("--days", type=int, default=240, help="Simulated days to feed; 200 at least for a surge.")
    days = parser.parse_args().days
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="tocsin-verify-") as name, Deployment(Path(name)) as deployment:
        try:
            deployment.start()
            say(f"    Kafka {deployment.address}, Prometheus {deployment.prometheus.url}, "
                f"Alertmanager {deployment.alertmanager.url}")  # fmt: skip
            check(deployment, days)
        except (Failed, tools.ToolUnavailable, brokers.KafkaUnavailable, brokers.KafkaFailed,
                monitoring.ServerFailed) as error:  # fmt: skip
            say(f"FAILED  {error}")
            for log in sorted(Path(name).glob("*.log")):
                print(f"--- {log.name}\n{log.read_text('utf-8', 'replace')[-2_000:]}", file=sys.stderr)
            return 1
    say("deploy/verify: all checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
