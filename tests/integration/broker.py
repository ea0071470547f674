"""What the integration tests use to talk to a real broker; deploy/kafka.py is what starts it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    # By path: ``import kafka`` is kafka-python.
    name = "tocsin_deploy_kafka"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / "kafka.py")
    if spec is None or spec.loader is None:
        raise ImportError("deploy/kafka.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


deploy = _load()
KafkaBroker = deploy.KafkaBroker
KafkaFailed = deploy.KafkaFailed
KafkaUnavailable = deploy.KafkaUnavailable

USER, PASSWORD = "tocsin", 'bell "tower" \\ 7'


def find_kcat() -> Path:
    """Debian's kcat, installed where that is possible."""
    for name in ("kcat", "kafkacat"):
        found = shutil.which(name)
        if found:
            return Path(found)
    how = "apt-get install kcat"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise KafkaUnavailable(f"kcat is not installed and only root on Debian can do that here: {how}")
    deploy.apt_install("kcat")
    found = shutil.which("kcat")
    if not found:
        raise KafkaUnavailable(f"kcat is still not on PATH after {how}")
    return Path(found)


def create_topics(bootstrap: str, *names: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
    """Create topics and wait until every partition has a leader."""
    from kafka import KafkaAdminClient

    options: dict[str, Any] = {"num_partitions": partitions, "replication_factor": 1}
    if config:
        options["configs"] = dict(config)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.create_topics(dict.fromkeys(names, options), wait_for_metadata=True)
    finally:
        admin.close()


def produce(bootstrap: str, topic: str, values: Sequence[bytes], **options: Any) -> None:
    """Send values one after the other, and return when the broker has acknowledged all of them."""
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", **options)
    try:
        waiting = [producer.send(topic, value) for value in values]
        for sent in waiting:
            sent.get(timeout=30)
    finally:
        producer.close()


def run_kcat(kcat: Path, bootstrap: str, *arguments: str, given: bytes = b"", timeout: float = 60) -> bytes:
    """Run kcat against a broker; what it prints."""
    command = [str(kcat), "-b", bootstrap, *arguments]
    done = subprocess.run(command, input=given, capture_output=True, timeout=timeout, check=False)
    if done.returncode:
        raise RuntimeError(f"kcat ended with {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}")
    return done.stdout


def read_all(kcat: Path, bootstrap: str, topic: str, *, committed: bool = True) -> list[bytes]:
    """All values of a topic up to its present end, read by librdkafka, one line each."""
    isolation = "read_committed" if committed else "read_uncommitted"
    out = run_kcat(
        kcat,
        bootstrap,
        "-C",
        "-q",
        "-e",
        "-o",
        "beginning",
        "-t",
        topic,
        "-X",
        f"isolation.level={isolation}",
    )
    return out.splitlines()


def topic_name(text: str) -> str:
    """A text as part of a topic name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:120]


def certificate(folder: Path) -> Path:
    """A key and a certificate of 127.0.0.1 that signs itself, in one file."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "k"), "-out", str(folder / "c")]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl")
    both = folder / "both.pem"
    both.write_text((folder / "k").read_text() + (folder / "c").read_text())
    both.chmod(0o600)
    return both


def tls_and_acls(pem: Path) -> dict[str, str]:
    """Settings that put the harness's second listener behind TLS, and every act of its users before an authorizer."""
    return {
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pem),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
