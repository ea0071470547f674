"""A record of events run again: the same stages at full speed, under any configuration, into files.

Nothing is written to the source. Ends are taken once, so that a topic that still grows can be replayed; partitions
are read slowest first, so that little waits for its tick. The same records give the same ``alerts.ndjson`` as the
live run did (see :mod:`streams.outputs` for the form in which they compare).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from schemas.alerts import Alert
from schemas.catalogue import Catalogue
from schemas.errors import TocsinError
from schemas.topics import partitions_of
from streams import datadir
from streams import keeper as keeping
from streams.config import Config, built_under
from streams.embedded import INPUTS, Pipeline, Step
from streams.garbage import few_collections
from streams.keeper import Keeper, Plan
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Medium
from streams.outputs import SignalFiles, explained, write_alerts
from streams.reading import Crew, Readers, Stretch, reading
from streams.slices import Slice, Sliced
from streams.spool import Spool
from streams.ticks import COMPLETE, Calendar, Origin

__all__ = ["Outcome", "prepare", "replay", "replay_spool", "scratch", "sealed_until", "steps"]


WHOLE: Final = Slice()
"""All of a record."""


@dataclass(slots=True)
class Outcome:
    """What a replay brought."""

    events: int = 0
    ticks: int = 0
    dead: int = 0
    signals: int = 0
    alerts: list[Alert] = field(default_factory=list)


def sealed_until(medium: Medium, config: Config) -> int | None:
    """How far the live run has closed ticks beyond the last arrival; None where a replay ends with that arrival's tick.

    A run that goes on while nothing comes still resolves alerts. The embedded log knows until when it did.
    """
    if not isinstance(medium, EmbeddedMedium):
        return None
    floor, latest = medium.log.meta("floor"), medium.log.latest(INPUTS)
    if floor is None or latest is None:
        return None
    calendar = Calendar(config.tick_ms, config.offset_ms)
    return floor if floor > calendar.tick_end(calendar.tick(latest)) else None


def steps(
    medium: Medium,
    ends: Mapping[Origin, int],
    config: Config,
    catalogue: Catalogue,
    *,
    batch: int = 5_000,
    sealed: int | None = None,
    keeper: Keeper | None = None,
    crew: Crew | None = None,
) -> Iterator[Step]:
    """Run the stages over all records below ``ends``, and give what each batch brought.

    Parameters
    ----------
    sealed
        From :func:`sealed_until`.
    keeper
        Gets every step before it is given, and may have begun already: then only the rest is run.
    crew
        Reads and takes in beside this process. It cannot show in any result.
    """
    pipeline = Pipeline(config, catalogue, tuple(ends), stored=keeper is not None)
    # An exhausted partition holds nothing up: complete, or passed as far as the live run went.
    last_mark = COMPLETE if sealed is None else sealed
    begun = {} if keeper is None else keeper.restore(pipeline)
    seen = {} if keeper is None else keeper.seen
    stretches = {
        origin: Stretch(begun.get(origin, 0), end, seen.get(origin, 0), pipeline.running_max[origin])
        for origin, end in ends.items()
        if end > begun.get(origin, 0)
    }
    with few_collections(), reading(medium, pipeline.intake, stretches, batch, config, crew) as readers:
        for step, nexts in _met(pipeline, readers, tuple(ends), last_mark):
            if keeper is not None:
                keeper.took(pipeline, step, nexts)
            yield step


def _met(
    pipeline: Pipeline, readers: Readers, origins: tuple[Origin, ...], last_mark: int
) -> Iterator[tuple[Step, dict[Origin, int]]]:
    """Let what the readers give meet, slowest partition first, and close what can be closed after each piece: what that
    brought, and where its partition goes on. A partition that is exhausted, or has no reader, is marked as passed."""
    for origin in origins:
        if origin not in readers:
            pipeline.mark(origin, last_mark)
    while readers:
        origin = pipeline.assess.watermarks.slowest(tuple(readers))
        taken = next(readers[origin], None)
        nexts: dict[Origin, int] = {}
        if taken is None:
            del readers[origin]
            pipeline.mark(origin, last_mark)
        else:
            nexts[origin] = taken.following
            pipeline.offer(origin, taken.result, taken.records)
            if taken.again:  # all that they brought before the checkpoint is kept
                pipeline.take()
        pipeline.close()
        yield pipeline.take(), nexts


def prepare(folder: Path, config: Config, *, resume: bool = False) -> None:
    """Make the folder for a replay's files, and note the configuration there.

    Parameters
    ----------
    resume
        A replay that was stopped there may be gone on with.

    Raises
    ------
    TocsinError
        The folder holds a log or an earlier replay, or cannot be written.
    """
    if datadir.has_log(folder):
        raise TocsinError(f"{folder}: is a data directory; give a replay a folder of its own with --out")
    if (folder / keeping.FOLDER).exists() and not resume:
        raise TocsinError(f"{folder}: holds an unfinished replay; go on with --resume, or name another with --out")
    if (folder / "alerts.ndjson").exists():
        raise TocsinError(f"{folder}: holds a replay already (alerts.ndjson); name another folder with --out")
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / datadir.FILE).write_text(datadir.to_toml(config), "utf-8")


def replay(
    medium: Medium,
    config: Config,
    catalogue: Catalogue,
    folder: Path,
    *,
    batch: int = 5_000,
    part: Slice = WHOLE,
    source: str = "",
    keep_seconds: float = 10.0,
    crew: Crew | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Replay a medium's raw topics into ``alerts.ndjson``, ``signals.ndjson`` and ``signals.parquet`` of a folder.

    One that was stopped goes on where its last checkpoint stood, to the ends that were seen when it was begun.

    Parameters
    ----------
    part
        The part of the record to replay. What arrives at ``part.until`` or later does not exist, and the ticks that had
        ended by then are closed.
    source
        Says which record it is: another's unfinished replay is not gone on with.
    keep_seconds
        Least time between two checkpoints.
    crew
        As for :func:`steps`.
    progress
        Called with the records done and the records there are (on Kafka at most that many).
    """
    keeper = Keeper(folder, every=keep_seconds)
    try:
        sealed = sealed_until(medium, config) if part.until is None else part.until
        read: Medium = medium if part.whole else Sliced(medium, part)
        ends = tuple((topic, number, end) for (topic, number), end in read.ends(INPUTS).items())
        plan = keeper.plan(Plan(f"{source}{part}", built_under(config, catalogue), ends, sealed))
        bounds = {(topic, number): end for topic, number, end in plan.ends}
        total = sum(max(0, end - part.offsets(origin)[0]) for origin, end in bounds.items())
        for _ in steps(read, bounds, config, catalogue, batch=batch, sealed=plan.sealed, keeper=keeper, crew=crew):
            if progress is not None:
                progress(keeper.totals.events, total)
        done = keeper.totals
        outcome = Outcome(done.events, done.ticks, done.dead, alerts=keeper.alerts())
        with SignalFiles([folder / "signals.ndjson", folder / "signals.parquet"]) as files:
            for signal in keeper.signals():
                files.add([signal])
        outcome.signals = files.count
        write_alerts(folder / "alerts.ndjson", outcome.alerts)
        keeper.done()
    finally:
        keeper.close()
    return outcome


def replay_spool(
    spool: Spool,
    config: Config,
    catalogue: Catalogue,
    folder: Path,
    *,
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Replay the record of files (:mod:`streams.spool`) into the same files as :func:`replay`.

    Parameters
    ----------
    until
        Where the record ends; ticks that had ended by then are closed.
    """
    outcome = Outcome(dead=spool.refused)
    count = config.partitions
    origins = tuple(sorted((topic, part) for topic in INPUTS for part in range(partitions_of(topic, count))))
    pipeline = Pipeline(config, catalogue, origins)
    pipeline.assess.expect(spool.records, spool.span_ms)
    readers = {origin: spool.read(origin) for origin in spool.origins()}
    with few_collections(), SignalFiles([folder / "signals.ndjson", folder / "signals.parquet"]) as files:
        for step, _ in _met(pipeline, readers, origins, COMPLETE if until is None else until):
            files.add(step.signals)
            outcome.alerts += step.alerts
            outcome.events += step.events
            outcome.ticks += step.ticks
            outcome.dead += len(step.dead)
            if progress is not None:
                progress(outcome.events, spool.records)
    outcome.signals = files.count
    write_alerts(folder / "alerts.ndjson", outcome.alerts)
    return outcome


@contextmanager
def scratch(folder: Path, config: Config, *, keep: bool = False) -> Iterator[Medium]:
    """A log for the time of a replay: files are published to it as they would be to a live one, and so fare alike.

    It lies in a folder of its own below ``folder`` and goes at the end; with ``keep`` it is ``folder`` itself.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        place: AbstractContextManager[str] = nullcontext(str(folder))
        if not keep:
            place = tempfile.TemporaryDirectory(dir=folder, prefix=".scratch-")
    with place as name:
        medium = EmbeddedMedium(SqliteLog(Path(name), config.partitions))
        try:
            yield medium
        finally:
            medium.close()
