"""``tocsin signals``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from streams.commands.place import Place, placed
from streams.commands.screen import note

__all__ = ["command"]


@click.group("signals")
def command() -> None:
    """The evidence behind the alerts: every score that mattered, by cell and tick."""


@command.command("export")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@placed
def export(place: Place, file: Path) -> None:
    """Write all signals to FILE: .parquet or .ndjson."""
    from schemas.alerts import Signal
    from streams.outputs import SignalFiles, read_signals

    if file.suffix not in (".parquet", ".ndjson", ".jsonl"):
        raise click.UsageError(f"{file}: name it .parquet or .ndjson, so that the format is clear")
    decode = msgspec.json.Decoder(Signal).decode
    with place.medium(place.present()) as medium, SignalFiles([file]) as files:
        for value in read_signals(medium):
            files.add([decode(value)])
    note(f"{files.count:,} signals written to {file}")
