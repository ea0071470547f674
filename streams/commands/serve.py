"""``tocsin serve``."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from streams.commands.http_process import admitted, listening, log_requests, measured, run_service, watched
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
@listening("SERVE", 8_080, "Who may submit what")
@click.option("--mapping", "mappings", multiple=True, metavar="NAME|FILE.toml",
              help="Offer this mapping to those who upload tables; may be repeated.")  # fmt: skip
@click.option("--max-rows", type=click.IntRange(1, 5_000_000), default=200_000, show_default=True, help="Of an upload.")
@click.option("--max-mib", type=click.IntRange(1, 4_096), default=64, show_default=True,
              help="Of an upload as it is sent; four times as much unpacked.")  # fmt: skip
@click.option("--requests-per-minute", type=click.IntRange(1, 1_000_000), default=120, show_default=True,
              help="Of each token.")  # fmt: skip
@click.option("--uploads", type=click.IntRange(1, 64), default=4, show_default=True, help="At the same time.")
@watched
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
    from streams.api.service import Service

    tokens, tls = admitted(host, tokens_file, tls_cert, tls_key, "submit events", "tocsin tokens add")
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
