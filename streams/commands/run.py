"""``tocsin run``: the stages on the embedded log, or one worker of them on Kafka."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from schemas.errors import ConfigError, Rejection, TocsinError
from streams.commands.place import Broker, Place, placed
from streams.commands.screen import Lang, alert_line, err, note, out, say, status_line

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from schemas.catalogue import Catalogue
    from streams.config import Config
    from streams.embedded import Step
    from streams.logs import LogFormat
    from streams.meter import Meter

__all__ = ["command"]

logger = logging.getLogger("tocsin.run")


@dataclass(frozen=True, slots=True)
class _Watch:
    """How the run is to be watched: the address of its metrics (port 0: none), and what its logs look like."""

    host: str
    port: int
    cells: tuple[str, ...]
    log_format: LogFormat
    alertmanager: str | None = None
    board: str = ""

    def link(
        self, place: Place, config: Config, meter: Meter, active: Callable[[], bool] = lambda: True
    ) -> AbstractContextManager[Any]:
        """What keeps an Alertmanager in step while it is entered."""
        if self.alertmanager is None:
            return nullcontext()
        from streams.alertmanager import Client, board_address
        from streams.alertmanager_link import AlertmanagerLink

        client, board = Client.from_environment(self.alertmanager), board_address(self.board)
        group = f"{config.topic_prefix}{config.name}"
        return AlertmanagerLink(lambda: place.medium(config), client, group, active=active, board=board, meter=meter)

    def meter(self, config: Config, catalogue: Catalogue, runtime: str) -> tuple[Meter, AbstractContextManager[Any]]:
        """The run's meter, and what serves it while it is entered."""
        from streams.meter import SILENT

        if not self.port:
            return SILENT, nullcontext()
        from streams.health import HealthServer
        from streams.metrics import Metrics

        metrics = Metrics(config, catalogue, runtime, cells=_cells(self.cells, catalogue))
        return metrics, HealthServer(metrics, self.host, self.port)

    def tell(self, text: str, **fields: object) -> None:
        """What the run says of itself."""
        if self.log_format == "json":
            logger.info(text, extra={"fields": fields})
        else:
            note(text)


class _Stopped(BaseException):
    """Raised right after a checkpoint, once a signal has asked for the end."""


@click.command("run")
@click.option("--until-end", is_flag=True, help="Work off what there is, close its last tick, and end.")
@click.option("--batch", type=click.IntRange(1, 1_000_000), default=5_000, show_default=True,
              help="Records read at a time (embedded). It cannot show in any alert.")  # fmt: skip
@click.option("--lang", type=click.Choice(["zh", "en", "both"]), default="both", show_default=True)
@click.option("--metrics-port", type=click.IntRange(0, 65_535), default=0, envvar="TOCSIN_METRICS_PORT",
              help="Port of /metrics, /healthz and /readyz; 0 for none. Also TOCSIN_METRICS_PORT.")  # fmt: skip
@click.option("--metrics-host", default="127.0.0.1", show_default=True, envvar="TOCSIN_METRICS_HOST",
              help="Address to serve them on. Also TOCSIN_METRICS_HOST.")  # fmt: skip
@click.option("--metrics-cell", "cells", multiple=True, metavar="PRODUCT:REGION",
              help="Always show this cell's pass rate in the metrics; may be repeated.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True,
              envvar="TOCSIN_LOG_FORMAT", help="json: one object a line, all on standard error.")  # fmt: skip
@click.option("--alertmanager", metavar="URL", envvar="TOCSIN_ALERTMANAGER",
              help="Keep this Alertmanager (http://HOST:9093) in step with the open alerts, and take its silences of "
                   "single alerts as acknowledgements. Also TOCSIN_ALERTMANAGER.")  # fmt: skip
@click.option("--board-url", default="", metavar="URL", envvar="TOCSIN_BOARD_URL",
              help="Where people look at alerts, for links in alerts. Also TOCSIN_BOARD_URL.")  # fmt: skip
@placed
def command(
    place: Place,
    until_end: bool,
    batch: int,
    lang: Lang,
    metrics_port: int,
    metrics_host: str,
    cells: tuple[str, ...],
    log_format: LogFormat,
    alertmanager: str | None,
    board_url: str,
) -> None:
    """Turn events into alerts.

    On the embedded log: prints each alert as it comes, and goes on until Ctrl-C or SIGTERM. With --broker: one worker
    of the group; start as many as you like, and read the alerts with `tocsin alerts tail --broker ...`.
    """
    watch = _Watch(metrics_host, metrics_port, cells, log_format, alertmanager or None, board_url)
    if log_format == "json":
        from streams.logs import to_json_lines

        to_json_lines()
    try:
        config = place.config()
        if place.broker is not None:
            _worker(place, place.broker, config, until_end, watch)
        else:
            _embedded(place, config, until_end, batch, lang, watch)
    except TocsinError as error:
        if log_format == "text":
            raise
        logger.error("%s", error)
        raise click.exceptions.Exit(1) from None


def _cells(texts: tuple[str, ...], catalogue: Catalogue) -> list[tuple[str, str]]:
    """The cells that were named, which must be in the catalogue."""
    from streams.risk_series import MAX_CELLS

    found = []
    for text in texts:
        product, _, region = text.rpartition(":")
        try:
            catalogue.products.path(product)
            catalogue.regions.path(region)
        except Rejection as error:
            raise ConfigError(f"--metrics-cell {text}: PRODUCT:REGION, as in F0101:120110; {error}") from None
        found.append((product, region))
    if len(found) > MAX_CELLS:
        raise ConfigError(f"--metrics-cell: {len(found)} cells; at most {MAX_CELLS} can be shown")
    return found


# --- embedded ------------------------------------------------------------------------------------------------------


def _embedded(place: Place, config: Config, until_end: bool, batch: int, lang: Lang, watch: _Watch) -> None:
    from streams.embedded import EmbeddedRuntime
    from streams.garbage import few_collections
    from streams.log import SqliteLog
    from streams.logs import Refusals, log_alert

    catalogue = config.load_catalogue()
    meter, served = watch.meter(config, catalogue, "embedded")
    link = watch.link(place, config, meter)
    refusals = Refusals()
    as_json = watch.log_format == "json"
    log = SqliteLog(place.data, config.partitions)
    stopped: list[int] = []
    total = {"events": 0, "ticks": 0, "alerts": 0}
    console = None if as_json else next((one for one in (out(), err()) if one.is_terminal), None)
    try:
        log.lock()
        with served, link, status_line(console) as show, _on_signals(stopped), few_collections():
            printer = out() if console is None or not out().is_terminal else console

            def on_step(step: Step) -> None:
                for alert in step.alerts:
                    log_alert(alert) if as_json else printer.print(alert_line(alert, lang), soft_wrap=True)
                if as_json:
                    refusals.add(step.dead)
                total["events"] += step.events
                total["ticks"] += step.ticks
                total["alerts"] += len(step.alerts)
                show(f"{total['events']:,} events, {total['ticks']:,} ticks, {total['alerts']:,} alert revisions")
                if stopped:
                    raise _Stopped

            show("reading the state")
            runtime = EmbeddedRuntime(log, config, catalogue, batch=batch, on_step=on_step, meter=meter)
            if not until_end:
                watch.tell(f"watching {place.data}; Ctrl-C ends")
            with suppress(_Stopped):
                runtime.run_to_end() if until_end else runtime.watch(lambda: bool(stopped))
    finally:
        log.close()
        refusals.tell(now=True)
    _told_the_end(stopped, until_end, total, watch)


def _told_the_end(stopped: list[int], until_end: bool, total: dict[str, int], watch: _Watch) -> None:
    done = f"{total['events']:,} events read, {total['ticks']:,} ticks closed, {total['alerts']:,} alert revisions"
    watch.tell(f"stopped with a checkpoint; {done}" if stopped else done, **total)
    if stopped and until_end:  # what was asked for is not done
        raise click.exceptions.Exit(128 + stopped[0])


@contextmanager
def _on_signals(stopped: list[int]) -> Iterator[None]:
    """Note SIGTERM and SIGINT, for whoever is able to stop in order; a second one ends at once, which loses nothing."""

    def handle(number: int, _: Any) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- Kafka ---------------------------------------------------------------------------------------------------------


def _worker(place: Place, broker: Broker, config: Config, until_end: bool, watch: _Watch) -> None:
    catalogue = config.load_catalogue()
    states = broker.describe(config.topic_prefix)
    _check_topics(broker, config, set(states))

    # Faust takes seconds to import: what can go wrong before has gone wrong by now.
    from streams.app import KafkaWorker, Topology

    given = frozenset(name for name, state in states.items() if state.given_times)
    meter, served = watch.meter(config, catalogue, "kafka")
    topology = Topology({name: state.partitions for name, state in states.items()}, given)
    worker = KafkaWorker(
        config,
        catalogue,
        str(broker.address),
        topology,
        client=broker.security.kafka_python(),
        credentials=broker.security.faust(),
        meter=meter,
    )
    # Faust listens for signals when its loop turns: who sees our port may tell us to end before.
    told: list[int] = []
    with _on_signals(told), served, watch.link(place, config, meter, lambda: worker.escalates):
        if until_end:
            from streams.kafka_end import end_when_done

            end_when_done(broker.address, config, broker.security, worker.group)
        began = (
            f"worker of group {worker.group} on {broker.address.url}: {sum(topology.partitions.values())} partitions"
        )
        say(began) if watch.log_format == "text" else logger.info(began)
        worker.run(log_format=watch.log_format, told=told)


def _check_topics(broker: Broker, config: Config, found: set[str]) -> None:
    from schemas.topics import ALL_TOPICS, topic_name

    absent = [topic_name(config.topic_prefix, spec.name) for spec in ALL_TOPICS if spec.name not in found]
    if absent:
        prefix = f" --prefix {config.topic_prefix}" if config.topic_prefix else ""
        raise ConfigError(
            f"{broker.address.url}: {len(absent)} topics are absent ({', '.join(absent[:3])}"
            f"{', ...' if len(absent) > 3 else ''}); create them with "
            f"`tocsin topics create --broker {broker.address.url}{prefix}`"
        )
