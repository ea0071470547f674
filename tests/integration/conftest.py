"""A real Kafka broker for the tests marked ``kafka``, and a loud word where there is none.

Only tests under tests/integration may carry the marker: the fixtures and the check live here.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import PASSWORD, USER, KafkaBroker, KafkaUnavailable, deploy, find_kcat, topic_name
from lacking import need

_MENDS = {
    "Kafka": "python deploy/kafka.py fetch   (its head lists the ways: mvn, TOCSIN_MAVEN_REPOSITORY, KAFKA_HOME, "
    "KAFKA_ARCHIVE; Java 17 or pip install tocsin[java])",
    "kcat": "apt-get install kcat",
}
_now: dict[str, pytest.Item] = {}


def _need(what: str, probe: Callable[[], Any]) -> Any:
    """What the probe yields; without it, skip the test that runs now, or fail it where CI runs."""
    return need(_now["test"], what, probe, KafkaUnavailable, unless="TOCSIN_ALLOW_NO_KAFKA", mend=_MENDS[what])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _now["test"] = item
    if item.get_closest_marker("kafka"):
        _need("Kafka", lambda: (deploy.find_java(), deploy.fetch()))


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaBroker]:
    """One broker for the whole session, with a SASL listener beside the open one.  Leave it running."""
    _need("Kafka", lambda: (deploy.find_java(), deploy.fetch()))
    with KafkaBroker(users={USER: PASSWORD}) as broker:
        yield broker


@pytest.fixture
def own_kafka() -> Iterator[KafkaBroker]:
    """A broker for one test, to be killed, paused and restarted at will."""
    _need("Kafka", lambda: (deploy.find_java(), deploy.fetch()))
    with KafkaBroker() as broker:
        yield broker


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A start for topic, group and transaction names that no other test has."""
    return f"{topic_name(request.node.name)}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def kcat() -> Path:
    """Debian's kcat: a client that shares no code with ours."""
    found: Path = _need("kcat", find_kcat)
    return found
