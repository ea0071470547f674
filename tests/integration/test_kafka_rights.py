"""TLS, passwords and rights together: the pipeline works with what each role is granted, and nothing else does.

The rights are granted as the commands say that ``tocsin topics acls`` prints. What each role may do is
written out once more below, apart from the table in :mod:`streams.kafka_rights`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from broker import ROOT, KafkaBroker, certificate, tls_and_acls
from test_cli_kafka import environment, fails, month, run

from schemas.topics import ALL_TOPICS
from streams.kafka_client import BrokerAddress, KafkaMedium, Security
from streams.kafka_connection import BrokerError
from streams.kafka_rights import ROLES
from streams.medium import Outgoing

pytestmark = pytest.mark.kafka

PREFIX = "qa."
RECORD = Outgoing(1_700_000_000_000, b"k", b"{}")
MECHANISMS = {
    "lab": "SCRAM-SHA-256", "worker": "SCRAM-SHA-512", "analyst": "PLAIN", "operator": "SCRAM-SHA-512",
    "board": "SCRAM-SHA-512",
}  # fmt: skip
RAW = ("inspections", "injuries", "complaints", "accidents", "surveys", "losses")
MAY_WRITE = {
    "lab": {*RAW, "dead-letters"},
    "worker": {
        "keyed-events", "assess-changelog", "escalate-changelog", "signals", "emergency-response", "dead-letters"
    },
    "analyst": set(),
    "operator": {"dispositions"},
    "board": {"dispositions"},
}  # fmt: skip
MAY_READ = {
    "lab": set(),
    "worker": {*RAW, "dispositions", "keyed-events", "assess-changelog", "escalate-changelog", "signals"},
    "analyst": {*RAW, "dispositions", "signals", "emergency-response", "dead-letters"},
    "operator": {"dispositions", "signals", "emergency-response", "dead-letters"},
    "board": {"dispositions", "signals", "emergency-response", "assess-changelog"},
}


_KAFKA_ACLS = argparse.ArgumentParser(exit_on_error=False, allow_abbrev=False)
"""The options of kafka-acls.sh that grant something."""
_KAFKA_ACLS.add_argument("--add", action="store_true", required=True)
for _name in ("--bootstrap-server", "--command-config", "--allow-principal"):
    _KAFKA_ACLS.add_argument(_name, required=True)
for _name in ("--operation", "--topic", "--group", "--transactional-id"):
    _KAFKA_ACLS.add_argument(_name, action="append", default=[])
_KAFKA_ACLS.add_argument("--resource-pattern-type", choices=["literal", "prefixed"], default="literal")


class Office:
    """A cluster of four people: how each of them gives commands, and talks to the topics."""

    def __init__(self, broker: KafkaBroker, pem: Path, folder: Path) -> None:
        self.broker, self._pem, self._folder = broker, pem, folder
        self.admin = ("--broker", f"kafka://{broker.bootstrap}", "--prefix", PREFIX)
        self.place = ("--broker", f"kafka+ssl://{broker.sasl_bootstrap}", "--prefix", PREFIX)

    def env(self, role: str) -> dict[str, str]:
        password = self._folder / role
        password.write_text(self.broker.users[role] + "\n")
        password.chmod(0o600)
        named = {"SASL_MECHANISM": MECHANISMS[role], "USERNAME": role, "PASSWORD_FILE": str(password)}
        return {f"TOCSIN_KAFKA_{name}": text for name, text in {**named, "CA_FILE": str(self._pem)}.items()}

    def medium(self, role: str) -> KafkaMedium:
        address = BrokerAddress.parse(self.place[1])
        return KafkaMedium(address, PREFIX, Security.from_environment(self.env(role), address), timeout=5)

    def grant(self, role: str) -> None:
        """Do what the printed commands say, word for word. (Kafka's own script is in no jar that the harness has.)"""
        from kafka import KafkaAdminClient
        from kafka.admin import (
            ACL,
            ACLOperation,
            ACLPermissionType,
            ACLResourcePatternType,
            ResourcePattern,
            ResourceType,
        )

        printed = run("topics", "acls", role, "--principal", f"User:{role}", *self.admin).stdout.splitlines()
        admin = KafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        with closing(admin):
            for line in printed:
                tool, *words = shlex.split(line)
                said = _KAFKA_ACLS.parse_args(words)
                assert (tool, said.bootstrap_server, said.add) == ("kafka-acls.sh", self.broker.bootstrap, True)
                pattern = ACLResourcePatternType[said.resource_pattern_type.upper()]
                named = {"TOPIC": said.topic, "GROUP": said.group, "TRANSACTIONAL_ID": said.transactional_id}
                admin.create_acls([
                    ACL(said.allow_principal, "*", ACLOperation[re.sub("(?<=[a-z])(?=[A-Z])", "_", operation).upper()],
                        ACLPermissionType.ALLOW, ResourcePattern(ResourceType[resource], name, pattern))
                    for resource, names in named.items() for name in names for operation in said.operation
                ])  # fmt: skip


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    pem = certificate(folder)
    users = {role: f"{role} and its word" for role in ROLES}
    with KafkaBroker(users=users, settings=tls_and_acls(pem)) as broker:
        made = Office(broker, pem, folder)
        run("topics", "create", "--history", "--partitions", "1", *made.admin)
        for role in ROLES:
            made.grant(role)
        yield made


def test_the_pipeline_works_with_the_rights_of_each_role_and_every_other_act_is_refused(
    office: Office, tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("partitions = 1\n")
    given = ("--config", config, *office.place)
    rows = tmp_path / "i.ndjson"
    rows.write_text("".join(json.dumps(one) + "\n" for one in [*month(), {"event_id": "bad"}]))

    published = run("publish", "inspections", rows, "--allow-rejects", *given, **office.env("lab"))
    assert published.stdout.startswith("30 events published")
    run("run", "--until-end", *given, **office.env("worker"))
    listed = run("alerts", "list", "--canonical", *given, **office.env("operator")).stdout
    assert '"pass-rate"' in listed
    alert = json.loads(listed.splitlines()[0])["id"]
    run("replay", "--out", tmp_path / "again", *given, **office.env("analyst"))
    assert (tmp_path / "again" / "alerts.ndjson").read_text() == listed
    run("dispose", alert, "acknowledge", "--by", "officer", *given, **office.env("operator"))
    with board_process(*given, **office.env("board")) as address:
        shown = until(lambda: asked(f"{address}/v1/board/news")["rows"])
        assert alert in {row["id"] for row in shown}
        behind = asked(f"{address}/v1/board/alerts/{alert}/evidence")
        assert (behind["why"], behind["chart"]["unit"]) == (None, "rate")
        assert any(behind["chart"]["alarm"])
        assert behind["said"]
        answer = {"action": "close", "key": "123e4567-e89b-12d3-a456-426614174000", "name": "Li"}
        assert asked(f"{address}/v1/board/alerts/{alert}/dispositions", answer)["disposition_id"].startswith("board-")
        until(lambda: any(len(row.get("pending", ())) for row in asked(f"{address}/v1/board/news")["rows"]))
    assert "bad" in run("dead-letters", "list", *given, **office.env("analyst")).stdout

    # The commands say in a line that they may not.
    for role, words in (
        ("lab", ("alerts", "list")),
        ("analyst", ("publish", "inspections", rows)),
        ("analyst", ("dispose", alert, "close", "--by", "me")),
        ("operator", ("publish", "injuries", rows)),
    ):
        assert f"user {role!r} may not do this" in fails(*words, *given, **office.env(role))
    # What a process gets is the name of the password's file.
    passwords = set(office.broker.users.values())
    assert not [value for role in ROLES for value in office.env(role).values() if value in passwords]


@contextmanager
def board_process(*args: object, **extra: str) -> Iterator[str]:
    """A board's address."""
    words = [sys.executable, "-m", "streams.cli", "board", "--port", "0", *map(str, args)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environment(**extra)) as running:
        assert running.stderr is not None
        try:
            said: list[str] = []
            for line in running.stderr:
                said.append(line)
                if found := re.search(r"at (http://\S+:\d+)/", line):
                    yield found[1]
                    break
            else:
                pytest.fail(f"the board did not start: {said}")
        finally:
            running.terminate()
            running.communicate(timeout=60)


def asked(address: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        return json.load(answer)


def until(done: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


@pytest.mark.skipif(
    os.environ.get("TOCSIN_LONG") != "1", reason="every role against every topic: TOCSIN_LONG=1 runs it"
)
@pytest.mark.parametrize("role", ROLES)
def test_no_role_reads_or_writes_more_than_it_should(office: Office, role: str) -> None:
    with closing(KafkaMedium(BrokerAddress.parse(office.broker.bootstrap), PREFIX, Security())) as anyone:
        for spec in ALL_TOPICS:
            anyone.write(spec.name, [RECORD])
    # In a process of its own: kafka-python leaves a thread behind for each producer that was refused.
    done = subprocess.run(
        [sys.executable, __file__, office.place[1]],
        capture_output=True, text=True, timeout=300, check=False,
        env=environment(PYTHONPATH=str(ROOT), **office.env(role)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tried = json.loads(done.stdout)
    assert tried["other answers"] == []
    assert set(tried["read"]) == MAY_READ[role]
    assert set(tried["write"]) == MAY_WRITE[role]


def try_everything(url: str) -> dict[str, list[str]]:
    """Read and write each topic as the environment's user: what went through, and what was said but a refusal."""
    address = BrokerAddress.parse(url)
    tried: dict[str, list[str]] = {"read": [], "write": [], "other answers": []}
    medium: Any = KafkaMedium(address, PREFIX, Security.from_environment(os.environ, address), timeout=5)
    for spec in ALL_TOPICS:
        for act in ("read", "write"):
            try:
                if act == "write":
                    medium.write(spec.name, [RECORD])
                else:
                    ((origin, end),) = medium.ends([spec.name]).items()
                    next(medium.read(origin, end - 1, end, 10))
            except BrokerError as error:
                if "may not do this" not in str(error):
                    tried["other answers"].append(f"{act} {spec.name}: {error}")
            else:
                tried[act].append(spec.name)
    return tried


def test_strangers_get_no_further_than_the_door(office: Office) -> None:
    address = BrokerAddress.parse(office.place[1])
    stranger = {**office.env("lab"), "TOCSIN_KAFKA_USERNAME": "stranger"}
    medium = KafkaMedium(address, PREFIX, Security.from_environment(stranger, address), timeout=5)
    with closing(medium), pytest.raises(BrokerError, match="does not accept user 'stranger'"):
        medium.ends(["inspections"])
    wrong = office.env("worker")["TOCSIN_KAFKA_PASSWORD_FILE"]
    env = {**office.env("lab"), "TOCSIN_KAFKA_PASSWORD_FILE": wrong}
    assert "does not accept user 'lab'" in fails("alerts", "list", *office.place, **env)


if __name__ == "__main__":
    print(json.dumps(try_everything(sys.argv[1])))
