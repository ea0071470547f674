"""Getting the peers onto this machine: each into the cache, in an environment of its own, in pinned versions.

Python peers get a virtual environment made from ``peers/requirements/NAME.txt``; Java peers get their jars by Maven, as
``deploy/kafka.py`` gets Kafka's, and are compiled by ``javac``. The name of a folder holds a digest of all that went
into it, so that another version is another folder. Nothing is put into the project's own environment.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.rates import ROOT

PEERS = Path(__file__).resolve().parent / "peers"
SHARED_JAVA = ("Cell.java", "Job.java")


class Unavailable(RuntimeError):
    """A peer cannot be had here; the message says why."""


def kafka_module() -> Any:
    """``deploy/kafka.py``: the cache, Java and the way to Maven are its."""
    from broker import deploy  # rates has put tests/integration on the path

    return deploy


def python_environment(name: str) -> Path:
    """The interpreter of a peer's virtual environment, made where it is not there yet."""
    wanted = (PEERS / "requirements" / f"{name}.txt").read_bytes()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    place = _place(name, wanted, version.encode())
    if not place.exists():
        with _scratch(place) as scratch:
            environment = Path(scratch) / "content"
            _run([sys.executable, "-m", "venv", str(environment)], f"making an environment for {name}")
            pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
            # Wheels only: a peer that would have to be built here is one that does not install.
            requirements = PEERS / "requirements" / f"{name}.txt"
            _run([*pip, "--only-binary", ":all:", "-r", str(requirements)], f"installing {name}")
            _keep(environment, place)
    return place / "bin" / "python"


def java_program(main: str, coordinates: Sequence[str]) -> list[str]:
    """The command that runs a peer in Java, with its jars fetched and its sources compiled."""
    deploy = kafka_module()
    try:
        java = Path(deploy.find_java())
    except deploy.KafkaUnavailable as error:
        raise Unavailable(str(error)) from None
    sources = [PEERS / "java" / name for name in (*SHARED_JAVA, f"{main}.java")]
    place = _place(main, "\n".join(coordinates).encode(), *(source.read_bytes() for source in sources))
    if not place.exists():
        javac = shutil.which("javac") or shutil.which("javac", path=str(java.parent))
        if javac is None:
            raise Unavailable("no javac: a JDK is needed to compile it")
        with _scratch(place) as scratch:
            content = Path(scratch) / "content"
            _jars(coordinates, Path(scratch), content / "libs")
            command = [javac, "-nowarn", "-d", str(content / "classes"), "-cp", str(content / "libs" / "*")]
            _run([*command, *map(str, sources)], f"compiling {main}")
            _keep(content, place)
    classpath = f"{place / 'classes'}:{place / 'libs' / '*'}"
    return [str(java), "-Xmx2g", "-Dlog4j2.level=WARN", "-cp", classpath, main]


def _jars(coordinates: Sequence[str], folder: Path, libs: Path) -> None:
    if not shutil.which("mvn"):
        raise Unavailable("no Maven to fetch its jars with")
    rows = [one.split(":") for one in coordinates]
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        "</dependency>"
        for group, artifact, version in rows
    )
    pom = folder / "pom.xml"
    pom.write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>tocsin</groupId><artifactId>peer</artifactId>"
        f"<version>1</version><packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>\n"
    )
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={libs}"]
    _run(["mvn", "-B", "-q", "-f", str(pom), *goal], "fetching its jars by Maven")


def _place(name: str, *parts: bytes) -> Path:
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
    folder: Path = kafka_module().cache_directory() / "peers" / f"{name}-{digest}"
    return folder


def _scratch(place: Path) -> tempfile.TemporaryDirectory[str]:
    print(f"making {place.relative_to(place.parents[1])} ...", file=sys.stderr, flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".new-", dir=place.parent)


def _keep(made: Path, place: Path) -> None:
    try:
        made.rename(place)
    except OSError:  # another run was quicker
        if not place.exists():
            raise


def _run(command: list[str], what: str) -> None:
    deploy = kafka_module()
    try:
        deploy.run(command, what)
    except deploy.KafkaUnavailable as error:
        raise Unavailable(str(error).replace(str(ROOT), ".")) from None
