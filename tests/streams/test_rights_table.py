"""The rights of each role as commands and as KafkaUsers, and as the guide on security prints them."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from schemas.errors import ConfigError
from schemas.topics import ALL_TOPICS
from streams.cli import cli
from streams.kafka_rights import ROLES, kafka_acls_commands, kafka_user, rights_of

GUIDE = Path(__file__).resolve().parents[2] / "deploy" / "SECURITY.md"


def printed(*words: str) -> str:
    done = CliRunner().invoke(cli, ["topics", "acls", *words, "--broker", "kafka:9093"])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_guide_prints_what_the_command_prints() -> None:
    said = "".join(f"# {role}\n{printed(role, '--principal', f'User:{role}')}" for role in ROLES)
    stands = GUIDE.read_text("utf-8").split("<!-- printed by: tocsin topics acls -->\n")[1].split("\n\n")[0]
    assert "".join(f"{line.removeprefix('    ')}\n" for line in stands.splitlines()) == said


def test_only_the_worker_has_a_group_and_transactions_and_nobody_has_everything() -> None:
    for role in ROLES:
        rights = rights_of(role, "qa.", "office")
        assert {one.resource for one in rights} == (
            {"topic", "group", "transactional-id"} if role == "worker" else {"topic"}
        )
        assert all(name.startswith("qa.") for one in rights for name in one.names)
        topics = [name.removeprefix("qa.") for one in rights if one.resource == "topic" for name in one.names]
        assert set(topics) <= {spec.name for spec in ALL_TOPICS}
        assert len(topics) == len(set(topics))
        assert not {"All", "Alter", "Delete", "Create"} & {operation for one in rights for operation in one.operations}


def test_a_kafka_user_grants_the_same() -> None:
    text = printed("worker", "--principal", "User:worker", "--strimzi")
    rights = rights_of("worker")
    assert text.count("- {resource:") == sum(len(one.names) for one in rights)
    assert text.count("patternType: prefix}") == 1
    assert "name: worker\n" in text


@pytest.mark.parametrize("principal", ["lab", "User:", "User:*", "User:a b", "User:$(reboot)", 'User:"', "User:a\nb"])
def test_a_principal_that_a_shell_or_a_broker_would_misread_is_refused(principal: str) -> None:
    with pytest.raises(ConfigError, match="User:NAME"):
        kafka_acls_commands(principal, rights_of("lab"), "k:1")
    with pytest.raises(ConfigError, match="User:NAME"):
        kafka_user(principal, rights_of("lab"))
