"""``tocsin topics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from schemas.topics import ALL_TOPICS, topic_name
from streams.commands.place import Place, placed
from streams.commands.screen import out, safe, say, table

if TYPE_CHECKING:
    from streams.config import Config
    from streams.kafka_rights import Role

__all__ = ["command"]


@click.group("topics")
def command() -> None:
    """Create and list topics, and say who needs which rights."""


@command.command("create")
@click.option("--partitions", type=click.IntRange(1, 1_024), help="Of each topic that has no fixed count.")
@click.option("--history", is_flag=True, help="Raw records keep the times they are given: for imported history.")
@placed
def create(place: Place, partitions: int | None, history: bool) -> None:
    """Create those topics that are missing on the broker."""
    if place.broker is None:
        raise click.UsageError("the embedded log has its topics already; name a Kafka cluster with --broker")
    from streams.kafka_topics import create_topics

    config = place.config()
    made = create_topics(
        place.broker.address,
        config.topic_prefix,
        partitions or config.partitions,
        place.broker.security,
        history=history,
    )
    for name in made:
        say(f"created {name}")
    if not made:
        say("all topics are there")


@command.command("acls")
@click.argument("role", type=click.Choice(["lab", "worker", "analyst", "operator", "board"]))
@click.option("--principal", required=True, metavar="User:NAME", help="Whom the broker knows by that name.")
@click.option("--strimzi", is_flag=True, help="As a KafkaUser for Strimzi, instead of kafka-acls.sh commands.")
@placed
def acls(place: Place, role: Role, principal: str, strimzi: bool) -> None:
    """Print the commands that grant a role what it needs on the broker, and no more."""
    from streams.kafka_rights import kafka_acls_commands, kafka_user, rights_of

    if place.broker is None:
        raise click.UsageError("the embedded log is protected by the rights of its files; name a cluster with --broker")
    config = place.config()
    rights = rights_of(role, config.topic_prefix, config.name)
    if strimzi:
        click.echo(kafka_user(principal, rights), nl=False)
        return
    for line in kafka_acls_commands(principal, rights, str(place.broker.address)):
        click.echo(line)


@command.command("list")
@placed
def list_topics(place: Place) -> None:
    """The topics, their partitions and how many records they hold."""
    config = place.present()
    if place.broker is None:
        _list_embedded(place, config)
        return
    states = place.broker.describe(config.topic_prefix)
    made = table("topic", "role", "partitions", "records", "times", "cleanup", fixed=("topic",))
    with place.medium(config) as medium:
        ends = medium.ends(list(states))
    for spec in ALL_TOPICS:
        name, state = topic_name(config.topic_prefix, spec.name), states.get(spec.name)
        if state is None:
            made.add_row(safe(name), spec.role, "absent", "", "", "")
            continue
        count = sum(end for (topic, _), end in ends.items() if topic == spec.name)
        times = "given" if state.given_times else "broker's"
        made.add_row(safe(name), spec.role, str(state.partitions), f"<= {count:,}", times, state.cleanup_policy)
    out().print(made)


def _list_embedded(place: Place, config: Config) -> None:
    made = table("topic", "role", "partitions", "records", fixed=("topic",))
    with place.medium(config) as medium:
        ends = medium.ends([spec.name for spec in ALL_TOPICS if spec.role != "internal"])
    for spec in ALL_TOPICS:
        if spec.role == "internal":
            continue  # stages of one process hand over in memory
        mine = [end for (topic, _), end in ends.items() if topic == spec.name]
        made.add_row(spec.name, spec.role, str(len(mine)), f"{sum(mine):,}")
    out().print(made)
