"""``tocsin board``."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import ConfigError
from streams.commands.http_process import log_requests, measured, run_service
from streams.commands.place import Place, placed
from streams.commands.screen import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.config import Config
    from streams.medium import Medium

__all__ = ["command"]


@click.command("board")
@click.option("--host", default="127.0.0.1", show_default=True, envvar="TOCSIN_BOARD_HOST", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8_090, show_default=True, envvar="TOCSIN_BOARD_PORT",
              help="Where to listen; 0 takes a free one.")  # fmt: skip
@click.option("--tokens", "tokens_file", type=click.Path(path_type=Path), envvar="TOCSIN_TOKENS_FILE", metavar="FILE",
              help="Who may read and dispose (`tocsin tokens add`). Without it only this machine is served.",
)  # fmt: skip
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="Certificate and chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Its key, PEM.")
@click.option("--metrics-port", type=click.IntRange(0, 65_535), default=0, envvar="TOCSIN_METRICS_PORT",
              help="Port of /metrics; 0 for none. Also TOCSIN_METRICS_PORT.")  # fmt: skip
@click.option("--metrics-host", default="127.0.0.1", show_default=True, envvar="TOCSIN_METRICS_HOST",
              help="Address to serve it on. Also TOCSIN_METRICS_HOST.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              envvar="TOCSIN_LOG_FORMAT", help="How requests are logged, on standard error.")  # fmt: skip
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
    from streams.api.server import tls_context
    from streams.board.service import Board
    from streams.tokens import TokenFile

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together; give both")
    if tokens_file is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: without --tokens everybody who reaches it could dispose of alerts; make tokens with "
            "`tocsin tokens add NAME --role read`, or listen on 127.0.0.1"
        )
    tls = None if tls_cert is None or tls_key is None else tls_context(tls_cert, tls_key)
    tokens = None if tokens_file is None else TokenFile(tokens_file)
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
