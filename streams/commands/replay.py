"""``tocsin replay``."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from schemas.errors import TocsinError
from streams import datadir
from streams.commands.place import Place, placed
from streams.commands.record import check_sources, held_config, load, named_files
from streams.commands.screen import Update, bar, say
from streams.config import Config

if TYPE_CHECKING:
    from schemas.catalogue import Catalogue
    from streams.medium import Medium
    from streams.reading import Crew
    from streams.replay import Outcome
    from streams.slices import Slice

__all__ = ["command"]

_LONG: Final = 500_000
"""Records that are worth the seconds that further processes take to start."""


@click.command("replay")
@click.argument("sources", nargs=-1, metavar="[TOPIC=FILE | FILE]...")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the results.")
@click.option("--mapping", metavar="NAME|FILE.toml", help="How the columns of files without TOPIC= become events.")
@click.option("--since", metavar="TIME", help="Leave out what arrived before, as 2024-03-01 or 2024-03-01T08:00+08:00.")
@click.option("--as-of", metavar="TIME", help="What was known then: what arrived at that time or later does not exist.")
@click.option("--range", "ranges", multiple=True, metavar="TOPIC-PARTITION=FIRST..END",
              help="Of that partition (or TOPIC=: of each) these offsets only; may be repeated.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with a replay that was stopped (not one of files).")
@click.option("--speed", type=click.FloatRange(0, min_open=True), metavar="N",
              help="Send the record again, N times as fast as it came, to the sandbox that --onto names.")  # fmt: skip
@click.option(
    "--onto", metavar="PREFIX|DIR", help="Of --speed: a topic prefix that begins with sandbox, or a new folder."
)
@click.option("--batch", type=click.IntRange(1, 1_000_000), default=5_000, show_default=True,
              help="Records read at a time. It cannot show in any result.")  # fmt: skip
@click.option("--jobs", type=click.IntRange(1, 64), metavar="N",
              help="Processes: one judges, the others read and decode beside it (one a core where the record is long). "
              "No result hangs on it.")  # fmt: skip
@placed
def command(
    place: Place,
    sources: tuple[str, ...],
    out: Path | None,
    mapping: str | None,
    since: str | None,
    as_of: str | None,
    ranges: tuple[str, ...],
    resume: bool,
    speed: float | None,
    onto: str | None,
    batch: int,
    jobs: int | None,
) -> None:
    """Run a record of events again at full speed, into alerts.ndjson, signals.ndjson and signals.parquet.

    The record is that of a data directory (--data), of the topics on a broker (--broker), or of files. It is only
    read, to the ends that it has at the start. --config and --catalogue may differ from the live run's; where they do
    not, the alerts are the same:

    \b
    tocsin replay --data DIR --out again
    tocsin alerts export live.ndjson --data DIR
    cmp live.ndjson again/alerts.ndjson

    With --speed nothing is judged here: the record is sent again at a pace, to be watched by a run on the sandbox.
    """
    check_sources(place, sources, mapping)
    if (speed is None) != (onto is None):
        raise click.UsageError("--speed and --onto go together: at which pace, and to which sandbox")
    if (out is None) == (speed is None):
        raise click.UsageError("name either a folder for the results with --out, or a pace with --speed and --onto")
    if resume and (sources or speed is not None):
        raise click.UsageError("--resume is for a replay of --data or --broker into --out")
    config = place.wanted.over(held_config(place, sources, mapping))
    part = _part(config, since, as_of, ranges)
    if out is None or speed is not None:
        _paced(place, config, sources, mapping, part, speed or 1.0, onto or "")
        return
    catalogue = config.load_catalogue()
    from streams.replay import prepare, replay

    prepare(out, config, resume=resume)
    began = time.monotonic()
    if sources:
        outcome = _of_files(config, catalogue, named_files(sources, mapping), mapping, part, out)
    else:
        with _source(place, config) as medium, bar("replay") as progress:
            told = f"{place} {config.topic_prefix} "
            outcome = replay(
                medium, config, catalogue, out, batch=batch, part=part, source=told,
                crew=_crew(place, config, medium, part, jobs), progress=_rated(progress),
            )  # fmt: skip
    seconds = time.monotonic() - began
    ids = len({alert.id for alert in outcome.alerts})
    say(
        f"{outcome.events:,} records, {outcome.dead:,} refused, {outcome.ticks:,} ticks, {outcome.signals:,} signals, "
        f"{ids:,} alerts ({len(outcome.alerts):,} revisions), {seconds:.1f} s, "
        f"{outcome.events / seconds:,.0f} records/s"
    )
    say(f"configuration {config.digest}; see {out}/alerts.ndjson")


def _part(config: Config, since: str | None, as_of: str | None, ranges: tuple[str, ...]) -> Slice:
    from streams.slices import Slice, parse_range
    from streams.ticks import Calendar

    def instant(option: str, text: str | None) -> int | None:
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise TocsinError(f"{option} {text}: is no time; write it as 2024-03-01T08:00:00+08:00") from None
        return Calendar(config.tick_ms, config.offset_ms).epoch_ms(moment)

    first, end = instant("--since", since), instant("--as-of", as_of)
    if first is not None and end is not None and end <= first:
        raise TocsinError(f"--as-of {as_of}: does not lie after --since {since}")
    return Slice(first, end, dict(parse_range(text) for text in ranges))


def _rated(update: Update) -> Callable[[int, int], None]:
    """A bar that tells the rate as well; the time left is its own."""
    began = time.monotonic()

    def show(done: int, total: int) -> None:
        update(done, total, f"replay, {done / max(time.monotonic() - began, 1e-3):,.0f} records/s")

    return show


def _paced(
    place: Place, config: Config, sources: tuple[str, ...], mapping: str | None, part: Slice, speed: float, onto: str
) -> None:
    """Send the record again, to a sandbox and nowhere else."""
    from streams.embedded import INPUTS
    from streams.log import SqliteLog
    from streams.medium import EmbeddedMedium
    from streams.paced import claim_folder, claim_prefix, send_paced
    from streams.slices import Sliced

    if sources:
        raise click.UsageError("--speed is for a record that arrived: --data or --broker; publish files instead")
    target: Medium
    if place.broker is not None:
        target = place.broker.medium(claim_prefix(onto, config.topic_prefix))
    else:
        folder = claim_folder(Path(onto), place.data)
        (folder / datadir.FILE).write_text(datadir.to_toml(config), "utf-8")
        target = EmbeddedMedium(SqliteLog(folder, config.partitions))
    try:
        with _source(place, config) as medium, bar("paced") as progress:
            read: Medium = Sliced(medium, part)
            sent = send_paced(read, read.ends(INPUTS), target, speed, progress=_rated(progress))
    finally:
        target.close()
    say(f"{sent:,} records sent to {onto} at {speed:g} times their own pace")


def _of_files(
    config: Config, catalogue: Catalogue, files: list[tuple[str, str]], mapping: str | None, part: Slice, out: Path
) -> Outcome:
    """Replay files: each becomes columns, and those are replayed."""
    from streams.replay import replay_spool
    from streams.spool import FileIntake, Spool

    with Spool(out) as spool:
        intake = FileIntake(config, catalogue, spool, part)
        load(intake, catalogue, files, mapping)
        with bar("replay") as progress:
            return replay_spool(spool, config, catalogue, out, until=part.until, progress=_rated(progress))


def _crew(place: Place, config: Config, medium: Medium, part: Slice, jobs: int | None) -> Crew | None:
    """Who reads beside this process, and where."""
    from streams.embedded import INPUTS
    from streams.reading import Crew
    from streams.trials import Record

    if jobs is None and sum(medium.ends(INPUTS).values()) >= _LONG:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if jobs is None or jobs < 2:
        return None
    if place.broker is not None:
        record = Record(None, config.partitions, place.broker.address.url, config.topic_prefix)
    else:
        record = Record(place.data, (datadir.remembered(place.data) or config).partitions)
    return Crew(jobs - 1, record, part)


@contextmanager
def _source(place: Place, config: Config) -> Iterator[Medium]:
    # The log's own partitions, whatever another configuration says of them.
    held = None if place.broker is not None else datadir.remembered(place.data)
    with place.medium(config if held is None else held) as medium:
        yield medium
