"""``tocsin alerts``: list, tail, show, explain, overdue, export."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from schemas.errors import TocsinError
from streams.commands.explain import command as explain
from streams.commands.overdue import command as overdue
from streams.commands.place import Place, placed
from streams.commands.screen import Lang, alert_line, grade, moment, note, out, safe, say, table, words

if TYPE_CHECKING:
    from schemas.alerts import Alert
    from streams.cap import Status

__all__ = ["command"]

_LANG = click.option("--lang", type=click.Choice(["zh", "en", "both"]), default="both", show_default=True)
_LEVEL = click.Choice(["I", "II", "III", "IV"])


@click.group("alerts")
def command() -> None:
    """List, follow, show and export alerts."""


command.add_command(explain)
command.add_command(overdue)


@command.command("list")
@click.option("--open", "only_open", is_flag=True, help="Leave resolved alerts out.")
@click.option("--level", type=_LEVEL, help="This grade and the graver ones (I is the gravest).")
@click.option("--json", "as_json", is_flag=True, help="The last revision of each alert as NDJSON.")
@click.option("--canonical", is_flag=True, help="Every revision, in the form that `tocsin replay` writes.")
@_LANG
@placed
def list_alerts(place: Place, only_open: bool, level: str | None, as_json: bool, canonical: bool, lang: Lang) -> None:
    """The alerts there are, gravest first."""
    from streams import outputs

    if canonical and (only_open or level or as_json):
        raise click.UsageError("--canonical is the whole record: leave --open, --level and --json out")
    with place.medium(place.present()) as medium:
        revisions = outputs.read_alerts(medium)
    if canonical:
        for line in outputs.canonical(revisions):
            sys.stdout.write(line.decode())
        return
    bound = 4 if level is None else ("I", "II", "III", "IV").index(level) + 1
    chosen = [
        alert
        for alert in outputs.latest_revisions(revisions)
        if alert.level <= bound and not (only_open and alert.status == "resolved")
    ]
    if as_json:
        for alert in chosen:
            sys.stdout.write(msgspec.json.encode(alert).decode() + "\n")
        return
    _print_table(chosen, lang)


def _print_table(alerts: Sequence[Alert], lang: Lang) -> None:
    if not alerts:
        say("no alerts")
        return
    facts = ("grade", "status", "since", "as of", "id")
    made = table(*facts, "headline", fixed=facts)
    for alert in alerts:
        headline = words(alert.headline.zh, alert.headline.en, lang)
        made.add_row(
            grade(alert.level), alert.status, moment(alert.onset), moment(alert.as_of), safe(alert.id), headline
        )
    out().print(made)
    standing = sum(alert.status != "resolved" for alert in alerts)
    say(f"{len(alerts)} alerts, {standing} of them open")


@command.command("tail")
@click.option("--from-start", is_flag=True, help="Begin with the first alert there is, not with the next.")
@click.option("--json", "as_json", is_flag=True, help="Each revision as a line of JSON.")
@click.option("--count", type=click.IntRange(1), help="End after so many revisions.")
@click.option("--timeout", type=click.FloatRange(0), help="End after so many seconds; too few for --count: status 1.")
@_LANG
@placed
def tail(place: Place, from_start: bool, as_json: bool, count: int | None, timeout: float | None, lang: Lang) -> None:
    """Print alert revisions as they come, until Ctrl-C."""
    from schemas.alerts import Alert

    deadline = None if timeout is None else time.monotonic() + timeout
    decode = msgspec.json.Decoder(Alert).decode
    console, seen = out(), 0
    with place.medium(place.present()) as medium:
        records = medium.follow(
            ["emergency-response"],
            lambda: deadline is not None and time.monotonic() >= deadline,
            from_start=from_start,
        )
        for _, record in records:
            if record.value is None:
                continue
            if as_json:
                sys.stdout.write(record.value.decode("utf-8", "backslashreplace") + "\n")
                sys.stdout.flush()
            else:
                console.print(alert_line(decode(record.value), lang), soft_wrap=True)
            seen += 1
            if count is not None and seen >= count:
                return
    if count is not None:
        raise TocsinError(f"{seen} of {count} alerts came within {timeout:g} s")


@command.command("show")
@click.argument("alert_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Every revision as NDJSON.")
@_LANG
@placed
def show(place: Place, alert_id: str, as_json: bool, lang: Lang) -> None:
    """All that is known of one alert; the first characters of its id will do."""
    from streams import outputs
    from streams.commands.alert_sheet import print_alert

    with place.medium(place.present()) as medium:
        mine = outputs.one_alert(outputs.read_alerts(medium), alert_id)
    if as_json:
        for alert in mine:
            sys.stdout.write(msgspec.json.encode(alert).decode() + "\n")
    else:
        print_alert(mine, lang)


@command.command("export")
@click.argument("to", type=click.Path(path_type=Path), metavar="FILE|DIR")
@click.option("--format", "form", type=click.Choice(["ndjson", "cap"]), default="ndjson", show_default=True,
              help="cap: a message of the Common Alerting Protocol 1.2 a revision, into a folder.")  # fmt: skip
@click.option("--sender", default="tocsin", show_default=True, help="Of --format cap: who sends the messages.")
@click.option("--status", type=click.Choice(["Actual", "Exercise", "System", "Test", "Draft"]), default="Actual",
              show_default=True, help="Of --format cap: what the messages are for.")  # fmt: skip
@placed
def export(place: Place, to: Path, form: str, sender: str, status: Status) -> None:
    """Write every revision to FILE in canonical form: equal bytes mean that two runs agree.

    With --format cap: each revision as DIR/ID.REVISION.xml, in Chinese and English.
    """
    from streams import outputs

    config = place.present()
    with place.medium(config) as medium:
        revisions = outputs.read_alerts(medium)
    if form == "cap":
        from streams.cap import messages, write_messages

        count = write_messages(to, messages(revisions, config.escalate, sender, status))
        note(f"{count:,} messages written to {to}")
        return
    if to.is_dir():
        raise TocsinError(f"{to}: is a folder; name a file, or give --format cap")
    count = outputs.write_alerts(to, revisions)
    note(f"{count:,} alert revisions written to {to}")
