"""The broker of ``deploy/kafka.py``: one process of our own, from its free ports to its end."""

from __future__ import annotations

import atexit
import base64
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from kafka_fetch import Distribution, fetch
from kafka_java import find_java
from kafka_settings import HOST, LOGGING, SASL_MECHANISMS, server_properties

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a client that keeps
# reconnecting to a dead broker's port inside that range can connect to itself and occupy the port.
PORTS = range(20000, 32000)

# Holds the broker by a pidfd, which cannot come to mean another process.  When the pipe on its standard input
# closes without a word, whoever started the broker is gone: end the broker and remove what was temporary.
_WATCHDOG = """\
import os, shutil, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    broker = os.pidfd_open(int(sys.argv[1]))
except ProcessLookupError:
    sys.exit()
if not sys.stdin.buffer.read(1):
    try:
        signal.pidfd_send_signal(broker, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if sys.argv[2]:
        shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


class KafkaFailed(RuntimeError):
    """Kafka was there but did not start, or did not answer; the message ends with its last log lines."""


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on at this moment."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(PORTS, 500):
            listener = held.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                listener.bind((HOST, port))
                listener.listen(1)
                ports.append(port)
            if len(ports) == count:
                return ports
    raise KafkaFailed(f"no {count} free ports in {PORTS.start}-{PORTS.stop - 1}")


def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("the broker closed the connection")
        received += part
    return received


def answers(port: int, timeout: float = 2.0) -> bool:
    """Whether a broker on this port answers a Metadata request naming at least one live broker."""
    client = b"tocsin"
    # Metadata, version 1, of no topics: api key, api version, correlation id, client id, empty array.
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection((HOST, port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            (size,) = struct.unpack(">i", _receive(connection, 4))
            answer = _receive(connection, size)
    except OSError:
        return False
    correlation, brokers = struct.unpack(">ii", answer[:8])
    return bool(correlation == 1 and brokers >= 1)


def _stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped, as /proc tells it; where there is no /proc, taken as so."""
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = task.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        except OSError:  # the thread ended meanwhile
            continue
        if state not in "tTZX":
            return False
    return True


class KafkaBroker:
    """One Kafka broker of our own, on ports of 127.0.0.1 that stay the same over restarts.

    Without ``data`` everything it writes lies in a temporary directory that close() removes.  With ``users``
    (names to passwords) a second listener, ``sasl_bootstrap``, asks for SASL PLAIN or SCRAM; the first one,
    ``bootstrap``, never does.  ``settings`` are added to server.properties.
    """

    def __init__(
        self,
        *,
        users: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        data: Path | str | None = None,
        port: int | None = None,
        heap: str = "512m",
    ) -> None:
        self.users = dict(users or {})
        self.settings = dict(settings or {})
        self.heap = heap
        self.port = port or 0
        self.sasl_port = 0
        self.controller_port = 0
        self._wanted_port = port
        self._temporary = data is None
        self._data = Path(data).absolute() if data is not None else None
        self._java: Path | None = None
        self._distribution: Distribution | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._paused = False

    # What a test needs to know.

    @property
    def bootstrap(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def sasl_bootstrap(self) -> str:
        if not self.users:
            raise ValueError("this broker has no SASL listener: no users were given")
        return f"{HOST}:{self.sasl_port}"

    @property
    def version(self) -> str:
        return self._distribution.version if self._distribution else ""

    @property
    def data(self) -> Path:
        if self._data is None:
            raise ValueError("the broker was never started, or is closed")
        return self._data

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_lines(self, count: int = 20) -> str:
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except (OSError, ValueError):
            return "(no log)"
        return "\n".join(lines[-count:])

    # Its life.

    def start(self, timeout: float = 90) -> KafkaBroker:
        """Start it, or start it again on the same data and ports, and wait until it answers."""
        if self.running:
            return self
        self._java = self._java or find_java()
        self._distribution = self._distribution or fetch()
        if self._data is None:
            self._data = Path(tempfile.mkdtemp(prefix="tocsin-kafka-"))
        atexit.register(self.close)
        try:
            for attempt in (1, 2, 3):
                first = not (self.data / "log" / "meta.properties").exists()
                self._prepare(first)
                mark = self.log.stat().st_size if self.log.exists() else 0
                self._launch()
                try:
                    self._wait(timeout)
                except KafkaFailed:
                    # Between finding a free port and binding it somebody else may take it.
                    with self.log.open("rb") as log:
                        log.seek(mark)
                        taken = b"Address already in use" in log.read()
                    if not (first and taken and attempt < 3):
                        raise
                    self.kill()
                    shutil.rmtree(self.data / "log", ignore_errors=True)
                    self.port = self._wanted_port or 0
                    self.sasl_port = self.controller_port = 0
                else:
                    break
        except BaseException:
            self.kill()
            raise
        return self

    def _prepare(self, first: bool) -> None:
        data = self.data
        (data / "log").mkdir(parents=True, exist_ok=True)
        if not self.controller_port:
            kept = data / "ports.json"
            if not first and kept.exists():
                self.port, self.sasl_port, self.controller_port = json.loads(kept.read_text())
            else:
                free = free_ports(3)
                self.port = self.port or free[0]
                self.sasl_port, self.controller_port = free[1:]
                kept.write_text(json.dumps([self.port, self.sasl_port, self.controller_port]))
        (data / "log4j2.properties").write_text(LOGGING)
        properties = data / "server.properties"
        properties.write_text(self._properties())
        properties.chmod(0o600)
        if first:
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "A")
            scram = [
                f"--add-scram={mechanism}=[name={user},password={password}]"
                for user, password in self.users.items()
                for mechanism in SASL_MECHANISMS[1:]
            ]
            command = self._command("kafka.tools.StorageTool", quick=True)
            command += ["format", "-t", cluster, "-c", str(properties), *scram]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False)
            with self.log.open("ab") as log:
                log.write(done.stdout)
            if done.returncode:
                raise KafkaFailed(f"formatting Kafka's storage failed:\n{self.last_lines()}")

    def _properties(self) -> str:
        return server_properties(
            data=self.data,
            port=self.port,
            sasl_port=self.sasl_port,
            controller_port=self.controller_port,
            users=self.users,
            settings=self.settings,
        )

    def _command(self, main: str, quick: bool = False) -> list[str]:
        if self._java is None or self._distribution is None:
            raise ValueError("the broker was never started")
        machine = ["-Xmx256m", "-XX:TieredStopAtLevel=1"] if quick else [f"-Xmx{self.heap}"]
        logging = f"-Dlog4j2.configurationFile={self.data / 'log4j2.properties'}"
        options = [*machine, "-XX:+UseSerialGC", "-Djava.awt.headless=true", logging]
        return [str(self._java), *options, "-cp", self._distribution.classpath, main]

    def _launch(self) -> None:
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal is for us, and we then stop the broker in order.
            self._process = subprocess.Popen(
                [*self._command("kafka.Kafka"), str(self.data / "server.properties")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data,
                start_new_session=True,
            )
        if hasattr(os, "pidfd_open"):
            temporary = str(self.data) if self._temporary else ""
            self._watchdog = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCHDOG, str(self._process.pid), temporary],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._paused = False

    def _wait(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if not self.running:
                code = self._process.returncode if self._process else None
                raise KafkaFailed(f"Kafka ended at its start with code {code}:\n{self.last_lines()}")
            # The answer must come from our process, which holds the port as long as it lives.
            if answers(self.port) and self.running:
                return
            time.sleep(0.05)
        raise KafkaFailed(f"Kafka did not answer within {timeout:g} s:\n{self.last_lines()}")

    def stop(self, timeout: float = 30) -> None:
        """Ask it to end (SIGTERM); end it (SIGKILL) where it does not within the time.  The data stays."""
        if self._process is None or self._owner != os.getpid():
            return
        if self._process.poll() is None:
            if self._paused:
                self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None
        self._paused = False
        self._dismiss_watchdog()

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL).  The data stays."""
        if self._process is None or self._owner != os.getpid():
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process = None
        self._paused = False
        self._dismiss_watchdog()

    def restart(self, timeout: float = 90) -> KafkaBroker:
        """Stop and start on the same data and the same ports."""
        self.stop()
        return self.start(timeout)

    def pause(self, timeout: float = 10) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing is answered from the return of this call on."""
        if self._process is None or self._process.poll() is not None:
            raise KafkaFailed("the broker is not running")
        self._process.send_signal(signal.SIGSTOP)
        self._paused = True
        # The signal stops one thread after another; on a busy machine the last may still answer meanwhile.
        end = time.monotonic() + timeout
        while not _stopped(self._process.pid):
            if time.monotonic() > end:
                raise KafkaFailed(f"the broker did not stop within {timeout:g} s of SIGSTOP")
            time.sleep(0.01)

    def resume(self, timeout: float = 30) -> None:
        """Undo pause() and wait until it answers."""
        if self._process is None or self._process.poll() is not None:
            raise KafkaFailed("the broker is not running")
        self._process.send_signal(signal.SIGCONT)
        self._paused = False
        self._wait(timeout)

    def close(self) -> None:
        """Stop it and remove what was temporary."""
        if self._owner != os.getpid():
            return
        # Nothing is kept of temporary data, so there is nothing to flush either.
        if self._temporary:
            self.kill()
        else:
            self.stop()
        if self._temporary and self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)
            self._data = None
            self.port = self._wanted_port or 0
            self.sasl_port = self.controller_port = 0
        atexit.unregister(self.close)

    def _dismiss_watchdog(self) -> None:
        dog, self._watchdog = self._watchdog, None
        if dog is None or dog.stdin is None:
            return
        with contextlib.suppress(OSError):
            dog.stdin.write(b".")
            dog.stdin.close()
        dog.wait()

    def __enter__(self) -> KafkaBroker:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
