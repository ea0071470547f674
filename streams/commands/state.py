"""``tocsin state``."""

from __future__ import annotations

import click

from streams.commands.place import Place, placed
from streams.commands.screen import bar, note, say

__all__ = ["command"]


@click.group("state")
def command() -> None:
    """What the stages have stored beside the record, and can build anew from it."""


@command.command("rebuild")
@click.option("--accept-differences", is_flag=True, help="Go on although the record now brings other alerts.")
@click.option("--yes", is_flag=True, help="On Kafka: delete the internal topics and the group's offsets.")
@placed
def rebuild(place: Place, accept_differences: bool, yes: bool) -> None:
    """Build the state anew from the record, after an upgrade or where it is damaged.

    Stop the run, or all workers, first. Raw topics stay as they are; alerts that stand there are not written twice. On
    Kafka the internal topics and the group's offsets are deleted (with --yes), and the workers do the rest.
    """
    from streams.log import SqliteLog
    from streams.rebuild import rebuild as built

    if place.broker is not None:
        _on_kafka(place, yes)
        return
    config = place.present()
    log = SqliteLog(place.data, config.partitions, older=True)
    try:
        log.lock()
        with bar(f"rebuilding {place.data}") as update:
            done = built(log, config, config.load_catalogue(), accept=accept_differences, progress=update)
    finally:
        log.close()
    say(
        f"state of {place.data} built anew from {done.events:,} records: {done.again:,} alert revisions came again, "
        f"{done.appended:,} were appended"
    )
    if done.differing:
        note(f"{done.differing:,} revisions in the log are not what this version says of the same record")


def _on_kafka(place: Place, yes: bool) -> None:
    from streams.kafka_rebuild import give_up_state

    if place.broker is None:
        return
    doomed = give_up_state(place.broker.address, place.broker.security, place.config(), go=yes)
    for line in doomed:
        say(("deleted: " if yes else "would be deleted: ") + line)
    if not yes:
        note("nothing was done; say --yes to do it")
        raise click.exceptions.Exit(1)
    say("start the workers again: they build the state from the raw topics")
