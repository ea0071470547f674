"""The record that a command runs again: a data directory's, a broker's, or files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schemas.errors import TocsinError
from schemas.topics import RAW_TOPICS
from streams import datadir
from streams.commands.place import Place
from streams.commands.screen import bar, note
from streams.config import Config

if TYPE_CHECKING:
    from schemas.catalogue import Catalogue
    from streams.mapping import Mapping
    from streams.medium import Medium
    from streams.publish import Tally
    from streams.spool import FileIntake
    from streams.trials import Record

__all__ = ["check_sources", "fill", "held_config", "laid_over", "load", "named_files", "records_of"]

Files = list[tuple[str, str]]


def check_sources(place: Place, sources: tuple[str, ...], mapping: str | None) -> None:
    """Refuse a command line that names two records."""
    if sources and (place.broker is not None or place.explicit):
        raise click.UsageError("files, --data and --broker are different sources; give one of them")
    if mapping is not None and not sources:
        raise click.UsageError("--mapping is for files; name them")


def held_config(place: Place, sources: tuple[str, ...], mapping: str | None) -> Config:
    """The record's own configuration: what its directory remembers, or the defaults with the codes that files need."""
    if place.broker is None and not sources:
        if not datadir.has_log(place.data):
            raise TocsinError(
                f"{place.data}: nothing has been published to this data directory; name one with --data, or files"
            )
        return datadir.remembered(place.data) or Config()
    opens = False
    if mapping is not None:
        from streams.publish import find_mapping

        needs = find_mapping(mapping).catalogue
        opens = "open" in (needs.products, needs.regions)
    return Config().replace(catalogue="open") if opens and place.wanted.nothing else Config()


def laid_over(base: Config, file: Path) -> Config:
    """A configuration file laid over another configuration: what it does not mention stays.

    Raises
    ------
    ConfigError
        The file cannot be read, or names a key that there is not.
    """
    import tomllib

    Config.load(file)  # says what is wrong with the file itself
    said = tomllib.loads(file.read_text("utf-8"))
    whole = base.to_dict()
    for key, value in said.items():
        whole[key] = {**whole[key], **value} if isinstance(value, dict) and isinstance(whole.get(key), dict) else value
    return datadir.absolute(Config.parse(whole, str(file)), file.parent)


def named_files(sources: tuple[str, ...], mapping: str | None) -> Files:
    """(topic, file) of each source; the mapping's topic is told later, by an empty name."""
    found: Files = []
    for source in sources:
        topic, equals, file = source.partition("=")
        if equals and topic in (*RAW_TOPICS, "dispositions"):
            found.append((topic, file))
        elif mapping is not None:
            found.append(("", source))
        else:
            raise click.UsageError(f"{source}: say which topic it is for, as injuries={source}, or give --mapping")
        if not Path(found[-1][1]).is_file():
            raise TocsinError(f"{found[-1][1]}: is no file; check the path")
    return found


def fill(medium: Medium, config: Config, files: Files, mapping: str | None) -> None:
    """Publish files to a scratch log."""
    from schemas.topics import kind_of_topic
    from streams.publish import DispositionJudge, EventJudge, Judge, Tally, publish, read_candidates

    catalogue, minutes = config.load_catalogue(), config.offset_ms // 60_000
    tally = Tally()
    for name, file, found in _meant(files, mapping, catalogue):
        judge: Judge
        if name == "dispositions":
            judge = DispositionJudge(config, catalogue)
        else:
            judge = EventJudge(config, catalogue, kind_of_topic(name))
        with bar(Path(file).name) as progress:
            rows = read_candidates(file, name, mapping=found, utc_offset_minutes=minutes, progress=progress)
            publish(medium, name, rows, judge, tally)
    _tell(tally)


def load(intake: FileIntake, catalogue: Catalogue, files: Files, mapping: str | None) -> None:
    """Take files as columns, which fares as :func:`fill` and reading the log again."""
    for name, file, found in _meant(files, mapping, catalogue):
        with bar(Path(file).name) as progress:
            intake.load(name, file, found, progress)
    _tell(intake.tally)


def _meant(files: Files, mapping: str | None, catalogue: Catalogue) -> Iterator[tuple[str, str, Mapping | None]]:
    """Each file's topic, its path, and its mapping if it needs one."""
    from schemas.events import TOPICS
    from streams.publish import check_codes_open, find_mapping

    for topic, file in files:
        found = None if topic else find_mapping(mapping or "")
        if found is not None:
            check_codes_open(found, catalogue)
        yield topic or (TOPICS[found.kind] if found is not None else ""), file, found


def _tell(tally: Tally) -> None:
    if tally.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(tally.reasons.items()))
        note(f"{tally.rejected:,} rows rejected ({reasons}); `tocsin publish` tells which")


@contextmanager
def records_of(
    place: Place, sources: tuple[str, ...], mapping: str | None, configs: list[Config]
) -> Iterator[list[Record]]:
    """The record for each configuration, for :mod:`streams.trials`.

    Files are published to a scratch log, one for all configurations that take the same rows.
    """
    from streams.trials import Record

    if place.broker is not None:
        prefix = configs[0].topic_prefix
        yield [Record(None, configs[0].partitions, place.broker.address.url, prefix)] * len(configs)
        return
    if not sources:
        held = datadir.remembered(place.data) or Config()
        yield [Record(place.data, held.partitions)] * len(configs)
        return
    from tempfile import TemporaryDirectory

    from streams.replay import scratch

    files = named_files(sources, mapping)
    with TemporaryDirectory(prefix="tocsin-") as name:
        filled: dict[tuple[object, ...], Record] = {}
        records = []
        for config in configs:
            taking = (config.catalogue, config.utc_offset, config.intake, config.partitions)
            if taking not in filled:
                folder = Path(name) / str(len(filled))
                with scratch(folder, config, keep=True) as medium:
                    fill(medium, config, files, mapping)
                filled[taking] = Record(folder, config.partitions)
            records.append(filled[taking])
        yield records
