"""What the commands share that serve HTTP until they are told to end: their log, their metrics, their signals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import ConfigError
from streams.commands.place import Place
from streams.commands.screen import note

if TYPE_CHECKING:
    from streams.api.front import Front
    from streams.api.meter import ServiceMetrics
    from streams.tokens import TokenFile

__all__ = ["admitted", "listening", "log_requests", "measured", "run_service", "watched"]


def _with(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def listening(name: str, port: int, who: str) -> Callable[[Any], Any]:
    """Give a command the options of where it listens and whom it serves: ``who`` says what a token is for."""
    return _with((
        click.option("--host", default="127.0.0.1", show_default=True, envvar=f"TOCSIN_{name}_HOST",
                     help="Where to listen."),
        click.option("--port", type=click.IntRange(0, 65_535), default=port, show_default=True,
                     envvar=f"TOCSIN_{name}_PORT", help="Where to listen; 0 takes a free one."),
        click.option("--tokens", "tokens_file", type=click.Path(path_type=Path), envvar="TOCSIN_TOKENS_FILE",
                     metavar="FILE", help=f"{who} (`tocsin tokens add`). Without it only this machine is served."),
        click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE",
                     help="Certificate and chain, PEM."),
        click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Its key, PEM."),
    ))  # fmt: skip


watched = _with((
    click.option("--metrics-port", type=click.IntRange(0, 65_535), default=0, envvar="TOCSIN_METRICS_PORT",
                 help="Port of /metrics; 0 for none. Also TOCSIN_METRICS_PORT."),
    click.option("--metrics-host", default="127.0.0.1", show_default=True, envvar="TOCSIN_METRICS_HOST",
                 help="Address to serve it on. Also TOCSIN_METRICS_HOST."),
    click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
                 envvar="TOCSIN_LOG_FORMAT", help="How requests are logged, on standard error."),
))  # fmt: skip
"""Give a command the options of its metrics and its log."""


def admitted(
    host: str, tokens_file: Path | None, tls_cert: Path | None, tls_key: Path | None, harm: str, mend: str
) -> tuple[TokenFile | None, Any]:
    """The tokens and the TLS context that the options name, None where they name none.

    Raises
    ------
    ConfigError
        Others than this machine would be served without tokens: ``harm`` says what they could do, ``mend`` how tokens
        for it are made.
    """
    from streams.api.gate import is_loopback
    from streams.api.server import tls_context
    from streams.tokens import TokenFile

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together; give both")
    if tokens_file is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: without --tokens everybody who reaches it could {harm}; make tokens with "
            f"`{mend}`, or listen on 127.0.0.1"
        )
    tls = None if tls_cert is None or tls_key is None else tls_context(tls_cert, tls_key)
    return None if tokens_file is None else TokenFile(tokens_file), tls


def measured(meter: ServiceMetrics, host: str, port: int) -> AbstractContextManager[Any]:
    """Serves the metrics while it is entered; not where the port is 0."""
    if not port:
        return nullcontext()
    from streams.health import HealthServer

    return HealthServer(meter, host, port)


async def run_service(service: Front, place: Place, host: str, port: int, tls: Any) -> None:
    """Serve until SIGTERM or SIGINT."""
    import asyncio
    import signal

    from streams.api.server import serve

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ready: asyncio.Future[int] = loop.create_future()

    def tell(listening: asyncio.Future[int]) -> None:
        if not listening.cancelled():
            shown = f"[{host}]" if ":" in host else host
            scheme = "http" if tls is None else "https"
            note(f"serving {place} at {scheme}://{shown}:{listening.result()}/; Ctrl-C ends")

    ready.add_done_callback(tell)
    await serve(service, host, port, stop=stop, tls=tls, ready=ready)


def log_requests(log_format: str) -> None:
    """How requests are logged: ``text`` or ``json``, on standard error."""
    if log_format == "json":
        from streams.logs import to_json_lines

        to_json_lines()
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("tocsin.serve")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
