"""``tocsin board``."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streams.commands.http_process import admitted, listening, log_requests, measured, run_service, watched
from streams.commands.place import Place, placed
from streams.commands.screen import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.config import Config
    from streams.medium import Medium

__all__ = ["command"]


@click.command("board")
@listening("BOARD", 8_090, "Who may read and dispose")
@watched
@placed
def command(
    place: Place,
    host: str,
    port: int,
    tokens_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    metrics_port: int,
    metrics_host: str,
    log_format: str,
) -> None:
    """Show what stands in a browser: districts by products, each alert with its evidence and control chart.

    Those whose token has the role `dispose` acknowledge and close from there. It runs beside `tocsin run`, on the same
    data directory or with the same --broker and --config.

    \b
    tocsin tokens add "Duty room" --role read --role dispose --tokens tokens.json
    tocsin board --tokens tokens.json
    """
    import asyncio

    from streams.api.gate import is_loopback
    from streams.board.service import Board

    tokens, tls = admitted(
        host, tokens_file, tls_cert, tls_key, "dispose of alerts", "tocsin tokens add NAME --role read"
    )
    log_requests(log_format)
    config = place.config()
    catalogue = config.load_catalogue()
    with _media(place, config) as (following, reading):
        board = Board(config, catalogue, following, reading, tokens, tls=tls is not None)
        if tls is None and not is_loopback(host):
            note("no --tls-cert: tokens and alerts go over the network as they are; put a proxy with TLS before it")
        with measured(board.meter, metrics_host, metrics_port):
            asyncio.run(run_service(board, place, host, port, tls))
    note("stopped; every disposition that was answered is in the log")


@contextmanager
def _media(place: Place, config: Config) -> Iterator[tuple[Any, Any]]:
    """What opens the place's topics for the thread that follows them, and for the others. An embedded log is opened by
    each thread for itself; a broker's connection for reading and writing once is made once, and shared."""

    def alone() -> AbstractContextManager[Medium]:
        return place.medium(config)

    with place.medium(config) as shared:  # what is wrong with the place is told now
        if place.broker is None:
            yield alone, alone
            return
        shared.ends(["emergency-response", "dispositions", "signals"])

        def opened() -> AbstractContextManager[Medium]:
            return nullcontext(shared)

        yield alone, opened
