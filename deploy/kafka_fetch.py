"""Apache Kafka's jars for ``deploy/kafka.py``: found, unpacked or fetched, in the order that its head gives."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from kafka_cache import KafkaUnavailable, cache_directory, locked, run, say

KAFKA_VERSION = "4.4.0"
SLF4J_BINDING_VERSION = "2.25.5"
JARS_LIST = Path(__file__).resolve().with_name("kafka-jars.txt")


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
    with locked("kafka") as cache:
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
        with locked("kafka") as cache:
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
    say(f"installing the Debian package {package}")
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends"]
    try:
        run(["env", "DEBIAN_FRONTEND=noninteractive", *command, package], f"apt-get install {package}")
    except KafkaUnavailable:
        # Package lists that are missing or old are the usual reason.
        run(["apt-get", "-qq", "update"], "apt-get update")
        run(["env", "DEBIAN_FRONTEND=noninteractive", *command, package], f"apt-get install {package}")


def _download_by_maven(wanted: str, libs: Path) -> None:
    version = "[4.0,4.999)" if wanted == "latest" else wanted
    say(f"fetching Apache Kafka {wanted} by Maven")
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
    run(["mvn", "-B", "-q", "-f", str(pom), *goal], "mvn dependency:copy-dependencies")


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
    say(f"fetching Apache Kafka {KAFKA_VERSION}, {len(jars)} jars, from a Maven repository")
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
