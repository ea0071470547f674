"""``tocsin config``."""

from __future__ import annotations

import sys

import click

from streams import datadir
from streams.commands.place import Place, placed
from streams.config import Config

__all__ = ["command"]


@click.group("config")
def command() -> None:
    """Show the configuration, and what each key means."""


@command.command("reference")
def print_reference() -> None:
    """Every key as Markdown: default, unit, bounds and meaning."""
    from streams.config_reference import reference

    sys.stdout.write(reference())


@command.command("show")
@placed
def show(place: Place) -> None:
    """The whole configuration as TOML, every default filled in; --config reads it."""
    held = None if place.broker is not None else datadir.remembered(place.data)
    config = place.wanted.over(held or Config())
    if held is not None:
        origin = f"of {place.data}"
    else:
        origin = str(place.wanted.file) if place.wanted.file else "defaults"
    catalogue = config.load_catalogue()
    sys.stdout.write(f"# {origin}; digest {config.digest}; catalogue {catalogue.name}@{catalogue.digest[:12]}\n")
    sys.stdout.write(datadir.to_toml(config))
