"""The state of a data directory built anew from its record, by whatever version of Tocsin reads this.

State is a function of the raw topics, so no stored layout is ever converted: the stages run over the whole record
again, as far as the log is sealed, into a log beside the old one.

1. What they bring that is written already (alerts by id and revision, signals by tick, dead letters by how far the
   inputs were seen) is passed over.
2. Every alert revision in the log must have come again. If not, this version or another catalogue judges otherwise,
   and nothing is changed unless that is accepted: then the old revisions stand, and what differs is appended.
3. One transaction drops the old state, whatever its layout, and puts the new one with its positions in its place.

A crash at any moment before leaves everything as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from schemas.alerts import Level, Status
from schemas.catalogue import Catalogue
from schemas.errors import TocsinError
from streams.config import Config
from streams.embedded import INPUTS, EmbeddedRuntime, Step
from streams.log import LogRecord, Position, SqliteLog
from streams.ticks import COMPLETE, Origin

__all__ = ["RebuildError", "Rebuilt", "rebuild"]

FOLDER: Final = ".rebuild"
_BATCH: Final = 2_000
_OUTPUTS: Final = ("emergency-response", "signals", "dead-letters")
Row = tuple[int, int, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
Revision = tuple[str, int]


class RebuildError(TocsinError):
    """The state is not built anew; the text says why and what to do."""


class _Alert(msgspec.Struct):
    """What makes two revisions the same to whoever acts on them; provenance names the version, and may differ."""

    id: str
    revision: int
    status: Status
    level: Level
    as_of: datetime


def _said(alert: _Alert) -> tuple[Status, Level, datetime]:
    return alert.status, alert.level, alert.as_of


class _Signal(msgspec.Struct):
    tick: int
    alert_id: str | None = None


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild came to: records read, revisions that came again, that were not in the log, and that are in the
    log and did not come again, or at another time or with another status or level."""

    events: int = 0
    again: int = 0
    appended: int = 0
    differing: int = 0
    first_differing: Revision | None = None


class _Fresh(SqliteLog):
    """A log for the new state, beside ``old``: it reads the record of that one, and keeps of the outputs those that are
    not there yet."""

    def __init__(self, folder: Path, old: SqliteLog) -> None:
        self._old = old
        super().__init__(folder, old.partitions)
        alerts = (msgspec.json.decode(record.value or b"", type=_Alert) for record in _all(old, "emergency-response"))
        self.written = {(one.id, one.revision): _said(one) for one in alerts}
        self.left = dict(self.written)
        """The revisions in the log that have not come again yet."""
        signals = [msgspec.json.decode(record.value or b"", type=_Signal) for record in _all(old, "signals")]
        self._last_tick = max((one.tick for one in signals), default=-COMPLETE)
        self._graves = {one.alert_id for one in signals if one.tick < 0}
        self.differing: list[Revision] = []

    def meta(self, name: str) -> int | None:
        return self._old.meta(name) if name == "floor" else super().meta(name)

    def ends(self, topics: Iterable[str]) -> dict[Origin, int]:
        return self._old.ends(topics)

    def read(self, origin: Origin, offset: int, limit: int, end: int | None = None) -> list[LogRecord]:
        return self._old.read(origin, offset, limit, end)

    def position(self, origin: Origin) -> Position:
        """The beginning; but what was seen there already has its dead letters."""
        return Position(seen=self._old.position(origin).seen)

    def append(self, topic: str, records: Iterable[Row]) -> int:
        kept = [row for row in records if not self._is_written(topic, row[3] or b"")]
        return super().append(topic, kept) if kept else 0

    def _is_written(self, topic: str, value: bytes) -> bool:
        if topic == "signals":
            signal = msgspec.json.decode(value, type=_Signal)
            return signal.alert_id in self._graves if signal.tick < 0 else signal.tick <= self._last_tick
        if topic != "emergency-response":
            return False
        alert = msgspec.json.decode(value, type=_Alert)
        revision = (alert.id, alert.revision)
        self.left.pop(revision, None)
        held = self.written.get(revision)
        if held is not None and held != _said(alert):
            self.differing.append(revision)
        return held is not None

    def fresh_outputs(self, topic: str) -> Iterator[list[LogRecord]]:
        """What is to be appended to the old log."""
        at = 0
        while records := super().read((topic, 0), at, _BATCH):
            yield records
            at = records[-1].offset + 1

    def fresh_position(self, origin: Origin) -> Position:
        """Where the new state stands."""
        return super().position(origin)


def _all(log: SqliteLog, topic: str) -> Iterator[LogRecord]:
    at = 0
    while records := log.read((topic, 0), at, _BATCH):
        yield from records
        at = records[-1].offset + 1


def rebuild(
    log: SqliteLog,
    config: Config,
    catalogue: Catalogue,
    *,
    accept: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Rebuilt:
    """Build the state anew; the caller holds the log's lock.

    Parameters
    ----------
    accept
        Go on although alerts in the log did not come again, or came otherwise.
    progress
        Called with the records done and the records there are.

    Raises
    ------
    RebuildError
        The record brings other alerts than those in the log; nothing was changed.
    """
    total = sum(log.ends(INPUTS).values())
    done = Rebuilt()

    def on_step(step: Step) -> None:
        done.events += step.events
        progress(done.events, total)

    with _beside(log, log.folder / FOLDER) as fresh:
        EmbeddedRuntime(fresh, config, catalogue, on_step=on_step).catch_up()
        differing = sorted([*fresh.differing, *fresh.left])
        done.again = len(fresh.written) - len(fresh.left)
        done.differing, done.first_differing = len(differing), next(iter(differing), None)
        if done.first_differing is not None and not accept:
            name, revision = done.first_differing
            raise RebuildError(
                f"{log.folder}: {len(differing)} of {len(fresh.written)} alert revisions in its log do not come out of "
                f"its record by this version and catalogue as they were (the first: {name}, revision {revision}); "
                "nothing was changed; replay the record into a new directory, or say --accept-differences"
            )
        with log.state_from(fresh.folder / "log.sqlite"):
            for origin in log.ends(INPUTS):
                position = fresh.fresh_position(origin)
                if position.offset or position.seen:
                    log.set_position(origin, position)
            for topic in _OUTPUTS:
                for records in fresh.fresh_outputs(topic):
                    log.append(topic, [(0, r.timestamp, r.key, r.value, r.headers) for r in records])
                    done.appended += len(records) if topic == "emergency-response" else 0
    return done


@contextmanager
def _beside(log: SqliteLog, folder: Path) -> Iterator[_Fresh]:
    """A new log in a folder of the old one's; what a rebuild that was killed left there goes."""
    shutil.rmtree(folder, ignore_errors=True)
    fresh = _Fresh(folder, log)
    try:
        yield fresh
    finally:
        fresh.close()
        shutil.rmtree(folder, ignore_errors=True)
