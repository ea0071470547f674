"""``tocsin tokens``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from streams.commands.screen import note, out, safe, say, table

__all__ = ["command"]

_FILE = click.option(
    "--tokens", "file", type=click.Path(path_type=Path), required=True, envvar="TOCSIN_TOKENS_FILE", metavar="FILE",
    help="The tokens file. Also TOCSIN_TOKENS_FILE.",
)  # fmt: skip


@click.group("tokens")
def command() -> None:
    """Make, list and revoke the tokens of organisations that use `tocsin serve` and `tocsin board`.

    The file holds hashes only. A running service takes every change at once.
    """


@command.command("add")
@click.argument("organisation")
@click.option("--role", "roles", multiple=True, type=click.Choice(["submit", "dispose", "read"]), default=("submit",),
              show_default=True, help="What it is for; may be repeated.")  # fmt: skip
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Only events of this kind; may be repeated.")
@click.option("--region", "regions", multiple=True, metavar="CODE", help="Only this region and those below it.")
@click.option("--lab", "labs", multiple=True, metavar="ID",
              help="Only this lab (or site, channel, authority, surveyor), and its own name as source.")  # fmt: skip
@click.option("--source", "sources", multiple=True, metavar="ID", help="Only events of this source.")
@click.option("--any-source", is_flag=True, help="May write, and so correct, the events of every source.")
@click.option("--days", type=click.IntRange(1, 3_650), help="It ends after so many days.")
@_FILE
def add(
    organisation: str,
    roles: tuple[Any, ...],
    kinds: tuple[Any, ...],
    regions: tuple[str, ...],
    labs: tuple[str, ...],
    sources: tuple[str, ...],
    any_source: bool,
    days: int | None,
    file: Path,
) -> None:
    """Make a token for ORGANISATION and print it, once.

    \b
    tocsin tokens add "Lab 07" --lab lab-07 --kind inspection --region 120110 --tokens tokens.json
    """
    from schemas.events import KINDS
    from streams.tokens import add_token

    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise click.UsageError(f"--kind {unknown[0]}: no such kind; there are {', '.join(KINDS)}")
    if any_source and sources:
        raise click.UsageError("--source and --any-source contradict each other; give one of them")
    if "submit" in roles and not (sources or labs or any_source):
        raise click.UsageError(
            "whose events may it write? Who writes a source may also correct all of its events: name it with --source "
            "or --lab, or say --any-source"
        )
    until = None if days is None else datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    grant, token = add_token(
        file,
        organisation,
        roles,
        kinds=kinds or None,
        regions=regions or None,
        labs=labs or None,
        sources=None if any_source else sources or labs or None,
        expires=until,
    )
    note(f"token {grant.id} of {safe(organisation)}; it is shown only now, and the file keeps its hash")
    say(token)


@command.command("list")
@_FILE
def show(file: Path) -> None:
    """List the tokens of the file and what they may do."""
    from streams.tokens import stored_tokens

    view = table("id", "organisation", "roles", "kinds", "regions", "labs", "sources", "made", "ends", fixed=("id",))
    for grant, created, expires in stored_tokens(file):
        bounds = [
            "all" if bound is None else safe(" ".join(bound))
            for bound in (grant.kinds, grant.regions, grant.labs, grant.sources)
        ]
        end = "never" if expires is None else f"{expires:%Y-%m-%d}"
        view.add_row(
            grant.id, safe(grant.organisation), " ".join(grant.roles), *bounds, f"{created:%Y-%m-%d}", end
        )  # fmt: skip
    out().print(view)


@command.command("revoke")
@click.argument("token_id", metavar="ID")
@_FILE
def revoke(token_id: str, file: Path) -> None:
    """Take a token away; the next request with it is refused."""
    from streams.tokens import revoke_token

    grant = revoke_token(file, token_id)
    say(f"token {grant.id} of {safe(grant.organisation)} is revoked")
