"""``tocsin serve``."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from schemas.errors import ConfigError
from streams.commands.http_process import log_requests, measured, run_service
from streams.commands.place import Place, placed
from streams.commands.screen import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from streams.api.limits import Limits
    from streams.config import Config
    from streams.mapping import Mapping
    from streams.medium import Medium

__all__ = ["command"]

_MIB: Final = 1 << 20


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, envvar="TOCSIN_SERVE_HOST", help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8_080, show_default=True, envvar="TOCSIN_SERVE_PORT",
              help="Where to listen; 0 takes a free one.")  # fmt: skip
@click.option("--tokens", "tokens_file", type=click.Path(path_type=Path), envvar="TOCSIN_TOKENS_FILE", metavar="FILE",
              help="Who may submit what (`tocsin tokens add`). Without it only this machine is served.")  # fmt: skip
@click.option("--tls-cert", type=click.Path(path_type=Path), metavar="FILE", help="Certificate and chain, PEM.")
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Its key, PEM.")
@click.option("--mapping", "mappings", multiple=True, metavar="NAME|FILE.toml",
              help="Offer this mapping to those who upload tables; may be repeated.")  # fmt: skip
@click.option("--max-rows", type=click.IntRange(1, 5_000_000), default=200_000, show_default=True, help="Of an upload.")
@click.option("--max-mib", type=click.IntRange(1, 4_096), default=64, show_default=True,
              help="Of an upload as it is sent; four times as much unpacked.")  # fmt: skip
@click.option("--requests-per-minute", type=click.IntRange(1, 1_000_000), default=120, show_default=True,
              help="Of each token.")  # fmt: skip
@click.option("--uploads", type=click.IntRange(1, 64), default=4, show_default=True, help="At the same time.")
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
    mappings: tuple[str, ...],
    max_rows: int,
    max_mib: int,
    requests_per_minute: int,
    uploads: int,
    metrics_port: int,
    metrics_host: str,
    log_format: str,
) -> None:
    """Take events over HTTP: POST /v1/events/KIND, described at /openapi.json, and a page for spreadsheets at /.

    It may run beside `tocsin run`, on the same data directory or with the same --broker.

    \b
    tocsin tokens add "Lab 07" --lab lab-07 --tokens tokens.json
    tocsin serve --tokens tokens.json
    curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: text/csv" --data-binary @results.csv \\
         http://127.0.0.1:8080/v1/events/inspection
    """
    import asyncio

    from streams.api.gate import is_loopback
    from streams.api.limits import Limits
    from streams.api.server import tls_context
    from streams.api.service import Service
    from streams.tokens import TokenFile

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together; give both")
    if tokens_file is None and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: without --tokens everybody who reaches it could submit events; make tokens with "
            "`tocsin tokens add`, or listen on 127.0.0.1"
        )
    tls = None if tls_cert is None or tls_key is None else tls_context(tls_cert, tls_key)
    tokens = None if tokens_file is None else TokenFile(tokens_file)
    limits = Limits(
        rows=max_rows, body_bytes=max_mib * _MIB, unpacked_bytes=4 * max_mib * _MIB, uploads=uploads,
        uploads_per_token=max(1, uploads // 2) if tokens is not None else uploads,
        requests_per_minute=requests_per_minute, burst=max(1, requests_per_minute // 2),
    )  # fmt: skip
    log_requests(log_format)
    config = place.config()
    with _desk(place, config, mappings, limits) as desk, measured(desk.meter, metrics_host, metrics_port):
        service = Service(desk, tokens, tls=tls is not None)
        if tls is None and not is_loopback(host):
            note("no --tls-cert: tokens and events go over the network as they are; put a proxy with TLS before it")
        asyncio.run(run_service(service, place, host, port, tls))
    note("stopped; every upload that was answered is in the log")


@contextmanager
def _desk(place: Place, config: Config, names: tuple[str, ...], limits: Limits) -> Iterator[Any]:
    """The desk of the place. The embedded log is opened for each upload, by the thread that writes; a broker's
    connections are made once, and shared."""
    from schemas.events import TOPICS
    from streams.api.submit import Desk
    from streams.publish import find_mapping

    catalogue = config.load_catalogue()
    found: dict[str, Mapping] = {mapping.name: mapping for mapping in map(find_mapping, names)}
    if place.broker is None:
        # What is wrong with the directory is told now, not to the first lab; and as this connection stays, SQLite need
        # not clear up after each upload as if it were the last.
        with place.medium(config):
            yield Desk(config, catalogue, lambda: place.medium(config), mappings=found, limits=limits)
        return
    with place.medium(config) as shared:
        shared.ends([*TOPICS.values(), "dead-letters"])  # an absent topic is told now
        states = place.broker.describe(config.topic_prefix, list(TOPICS.values()))
        given = {kind: states[topic].given_times for kind, topic in TOPICS.items()}

        def opened() -> AbstractContextManager[Medium]:
            return nullcontext(shared)

        yield Desk(config, catalogue, opened, given_times=given, mappings=found, limits=limits)
