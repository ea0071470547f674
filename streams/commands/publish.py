"""``tocsin publish``."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from schemas.errors import TocsinError
from schemas.topics import RAW_TOPICS
from streams.commands.place import Place, placed
from streams.commands.screen import bar, note, safe, say

if TYPE_CHECKING:
    from streams.config import Config
    from streams.mapping import Mapping
    from streams.medium import Medium
    from streams.publish import Judge, Refused, Tally
    from streams.row_readers import Format

__all__ = ["command", "summary"]

_SHOWN: Final = 20
_TOPICS: Final = (*RAW_TOPICS, "dispositions")


@click.command("publish")
@click.argument("args", nargs=-1, metavar="[TOPIC] FILE...")
@click.option("--mapping", metavar="NAME|FILE.toml", help="How the file's columns become events; it knows its topic.")
@click.option("--format", type=click.Choice(["ndjson", "csv", "parquet"]), help="Overrules the file's name.")
@click.option("--raw", is_flag=True, help="Append lines unchecked, arriving now: intake will judge them.")
@click.option("--allow-rejects", is_flag=True, help="Exit with 0 although rows were rejected.")
@placed
def command(
    place: Place, args: tuple[str, ...], mapping: str | None, format: Format | None, raw: bool, allow_rejects: bool
) -> None:
    """Check the rows of files and append them to TOPIC.

    TOPIC is inspections, injuries, complaints, accidents, surveys, losses or dispositions; with --mapping it may be
    left out. FILE is NDJSON, CSV or Parquet, plain or gzipped; - is standard input. Every rejected row is told, and
    kept in dead-letters.

    \b
    tocsin publish inspections results.ndjson
    tocsin publish --mapping fda-caers caers.parquet
    cat events.ndjson | tocsin publish complaints -
    """
    from streams.publish import Tally, find_mapping

    found = None if mapping is None else find_mapping(mapping)
    topic, files = _what(args, found)
    if raw and (found is not None or format is not None):
        raise click.UsageError("--raw takes lines as they are: leave --mapping and --format out")
    for file in files:
        if file != "-" and not Path(file).is_file():
            raise TocsinError(f"{file}: is no file; check the path")
    opens = found is not None and "open" in (found.catalogue.products, found.catalogue.regions)
    config = place.config(open_codes=opens)
    tally = Tally()
    with place.medium(config) as medium:
        medium.ends([topic, "dead-letters"])  # an absent topic is told before the first row is read
        judge = None if raw else _judge(place, config, topic, found)
        try:
            _publish(medium, config, topic, files, found, format, judge, tally)
        except TocsinError as error:
            if not tally.published:
                raise
            raise TocsinError(f"{error}; {_so_far(tally)}") from None
        except KeyboardInterrupt:
            note(_so_far(tally))
            raise
    say(summary(tally, topic, place))
    if opens and place.broker is not None and place.wanted.nothing:
        note("these codes are not in the default catalogue: run the workers with --catalogue open")
    if tally.rejected and not allow_rejects:
        raise click.exceptions.Exit(1)


def _what(args: tuple[str, ...], mapping: Mapping | None) -> tuple[str, tuple[str, ...]]:
    """The topic and the files that the arguments name."""
    from schemas.events import TOPICS

    named, files = (args[0], args[1:]) if args and args[0] in _TOPICS else (None, args)
    if mapping is None and named is None:
        said = f"{args[0]!r} is not a topic" if args else "a topic is missing"
        raise click.UsageError(f"{said}: name one of {', '.join(_TOPICS)}, or give --mapping")
    if mapping is not None and named not in (None, TOPICS[mapping.kind]):
        raise click.UsageError(f"mapping {mapping.name} makes {TOPICS[mapping.kind]}, not {named}")
    if not files:
        raise click.UsageError("no file is named (- is standard input)")
    return named or TOPICS[mapping.kind] if mapping is not None else str(named), files


def _judge(place: Place, config: Config, topic: str, mapping: Mapping | None) -> Judge:
    from schemas.topics import kind_of_topic
    from streams.publish import DispositionJudge, EventJudge, check_codes_open

    catalogue = config.load_catalogue()
    if topic == "dispositions":
        return DispositionJudge(config, catalogue)
    if mapping is not None:
        check_codes_open(mapping, catalogue)
    given = True
    if place.broker is not None:
        given = place.broker.describe(config.topic_prefix, [topic])[topic].given_times
    return EventJudge(config, catalogue, kind_of_topic(topic), given_times=given)


def _publish(
    medium: Medium,
    config: Config,
    topic: str,
    files: tuple[str, ...],
    mapping: Mapping | None,
    format: Format | None,
    judge: Judge | None,
    tally: Tally,
) -> None:
    from streams.publish import publish, raw_candidates, read_candidates

    for file in files:
        with bar("standard input" if file == "-" else Path(file).name) as progress:
            if judge is None:
                rows = raw_candidates(file, progress=progress)
            else:
                minutes = config.offset_ms // 60_000
                rows = read_candidates(
                    file, topic, mapping=mapping, format=format, utc_offset_minutes=minutes, progress=progress
                )
            with closing(rows):  # type: ignore[type-var]
                publish(medium, topic, rows, judge, tally, refuse=lambda refused: tell(refused, tally))
    if tally.rejected > _SHOWN:
        note(f"... and {tally.rejected - _SHOWN:,} more; `tocsin dead-letters list` shows them all")


def _so_far(tally: Tally) -> str:
    return f"{tally.published:,} events are published; publish the same again, as no event counts twice"


def tell(refused: Refused, tally: Tally) -> None:
    """A line for a refused row; after the first few they are only counted."""
    if sum(tally.reasons.values()) <= _SHOWN:
        error = refused.rejection
        note(f"{refused.origin}: {error.reason}: {error.field or 'record'}: {error.detail}")


def summary(tally: Tally, topic: str, place: Place | str) -> str:
    """What was published, in one line."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(tally.reasons.items()))
    rejected = f"{tally.rejected:,} rejected" + (f" ({safe(reasons)})" if reasons else "")
    return (
        f"{tally.published:,} events published to {topic} in {place}, {rejected}, "
        f"{tally.seconds:.1f} s, {tally.rate:,.0f} rows/s"
    )
