"""``tocsin doctor``."""

from __future__ import annotations

import sys
from typing import Final

import click
import msgspec
from rich.text import Text

from streams.commands.place import Place, placed
from streams.commands.screen import out, safe, say, table

__all__ = ["command"]

_STYLES: Final = {"ok": "green", "warning": "bold yellow", "failure": "bold red"}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for machines.")
@placed
def command(place: Place, as_json: bool) -> None:
    """Check everything that a run depends on, and say what to mend. It changes nothing.

    Exits with 1 where something is wrong (failure), with 0 where all is well or only worth a look (warning).
    """
    from streams.doctor import check_python, failed, worst

    findings = check_python()
    if place.broker is None:
        from streams.doctor_embedded import examine as examine_directory

        findings += examine_directory(place.data, place.wanted)
    else:
        from schemas.errors import TocsinError
        from streams.doctor_kafka import examine as examine_broker

        try:
            findings += examine_broker(place.broker.address, place.broker.security, place.config())
        except TocsinError as error:
            findings.append(failed("configuration", error, "mend the file that --config names"))
    verdict = worst(findings)
    if as_json:
        report = {"place": str(place), "verdict": verdict, "findings": findings}
        sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
    else:
        made = table("check", "", "seen", "to mend", fixed=("check", ""))
        for one in findings:
            made.add_row(one.check, Text(one.verdict, style=_STYLES[one.verdict]), safe(one.seen), safe(one.mend))
        out().print(made)
        count = {name: sum(one.verdict == name for one in findings) for name in _STYLES}
        say(f"{place}: {count['ok']} well, {count['warning']} worth a look, {count['failure']} wrong")
    if verdict == "failure":
        raise click.exceptions.Exit(1)
