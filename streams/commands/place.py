"""Where a command works: the options that every command has, and what they come to."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from streams import datadir
from streams.config import Config
from streams.datadir import DataDirError, Wanted

if TYPE_CHECKING:
    from streams.kafka_security import BrokerAddress, Security
    from streams.kafka_topics import TopicState
    from streams.medium import Medium

__all__ = ["Broker", "Place", "placed"]


@dataclass(frozen=True, slots=True)
class Broker:
    """A Kafka cluster and how to talk to it."""

    address: BrokerAddress
    security: Security

    def medium(self, prefix: str) -> Medium:
        """The topics there."""
        from streams.kafka_client import KafkaMedium

        return KafkaMedium(self.address, prefix, self.security)

    def describe(self, prefix: str, topics: list[str] | None = None) -> dict[str, TopicState]:
        """The topics that are there, by short name."""
        from streams.kafka_topics import describe

        return describe(self.address, prefix, self.security, topics)


@dataclass(frozen=True, slots=True)
class Place:
    """What the common options say: a data directory or a broker, and a configuration.

    ``explicit`` tells a data directory that was named from the default one.
    """

    data: Path
    broker: Broker | None
    wanted: Wanted
    explicit: bool

    def __str__(self) -> str:
        return str(self.data) if self.broker is None else self.broker.address.url

    def config(self, *, open_codes: bool = False) -> Config:
        """The configuration of a command that may be the first to use the place."""
        if self.broker is None:
            return datadir.settle(self.data, self.wanted, open_codes=open_codes)
        first = Config().replace(catalogue="open") if open_codes and self.wanted.nothing else Config()
        return self.wanted.over(first)

    def present(self) -> Config:
        """The configuration of a command that reads what others wrote: it makes no directory."""
        if self.broker is None and not datadir.has_log(self.data):
            raise DataDirError(
                f"{self.data}: nothing has been published to this data directory; name another with --data, or use "
                "`tocsin publish` first"
            )
        return self.config()

    @contextmanager
    def medium(self, config: Config) -> Iterator[Medium]:
        """The topics of the place, closed at the end."""
        if self.broker is not None:
            medium = self.broker.medium(config.topic_prefix)
        else:
            from streams.log import SqliteLog
            from streams.medium import EmbeddedMedium

            medium = EmbeddedMedium(SqliteLog(self.data, config.partitions))
        try:
            yield medium
        finally:
            medium.close()


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--data", type=click.Path(path_type=Path), default=Path(".tocsin"), envvar="TOCSIN_DATA", metavar="DIR",
        show_default=True, help="Data directory of the embedded log. Also TOCSIN_DATA.",
    ),
    click.option(
        "--broker", envvar="TOCSIN_BROKER", metavar="kafka://HOST:PORT",
        help="Use topics on Kafka. Also TOCSIN_BROKER; who we are is told by TOCSIN_KAFKA_* variables.",
    ),
    click.option(
        "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE",
        help="Configuration (TOML). A data directory remembers it from its first use on.",
    ),
    click.option("--prefix", metavar="TEXT", help="Stands before every topic's name on the broker."),
    click.option(
        "--catalogue", metavar="NAME|open|FILE.toml",
        help="Product and region codes: built in (tianjin), learned from the data (open), or a file.",
    ),
)  # fmt: skip


def placed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the common options; it gets a :class:`Place` as ``place``."""

    @click.pass_context
    @functools.wraps(command)
    def run(
        context: click.Context,
        /,
        *,
        data: Path,
        broker: str | None,
        config_file: Path | None,
        prefix: str | None,
        catalogue: str | None,
        **rest: Any,
    ) -> Any:
        named = {name: context.get_parameter_source(name) for name in ("data", "broker")}
        given = [name for name, source in named.items() if source is ParameterSource.COMMANDLINE]
        if len(given) == 2:
            raise click.UsageError("--data and --broker are two places; give one of them", context)
        # What stands on the command line goes before what the environment says.
        chosen = None if given == ["data"] or not broker else _broker(broker)
        explicit = chosen is None and named["data"] is not ParameterSource.DEFAULT
        place = Place(data, chosen, Wanted(config_file, catalogue, prefix), explicit)
        return command(place=place, **rest)

    decorated: Callable[..., Any] = run
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _broker(text: str) -> Broker:
    from streams.kafka_security import BrokerAddress, Security

    address = BrokerAddress.parse(text)
    return Broker(address, Security.from_environment(os.environ, address))
