"""What a replay keeps while it runs, so that it can go on where it was stopped.

The folder of the results holds a small log of the replay's own, with the alerts and signals so far and the state of the
stages, under the protocol of :mod:`streams.embedded`: outputs, state and positions in one transaction. It is made at
the first checkpoint, and goes when the results are written. What is to be replayed, how far and under what, is written
down with it: a replay of anything else is refused there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from schemas.alerts import Alert, Signal
from schemas.errors import TocsinError
from streams.embedded import Pipeline, Step, restore_stages, store_stages
from streams.log import Position, SqliteLog
from streams.ticks import Origin

__all__ = ["FOLDER", "Keeper", "Plan", "Totals"]

FOLDER: Final = ".unfinished"
_BATCH: Final = 5_000


class Plan(msgspec.Struct, array_like=True, frozen=True):
    """What is replayed: the source and its part, as text, what it is replayed under, and the ends that were seen."""

    source: str
    built_under: str
    ends: tuple[tuple[str, int, int], ...]
    sealed: int | None

    def same(self, other: Plan) -> bool:
        """Whether the other is a plan for the same, begun at another time."""
        return (self.source, self.built_under) == (other.source, other.built_under)


class Totals(msgspec.Struct, array_like=True):
    """How much has been done."""

    events: int = 0
    ticks: int = 0
    dead: int = 0


class Keeper:
    """The checkpoints of one replay.

    Parameters
    ----------
    folder
        The folder of the results.
    every
        Least seconds between two checkpoints. It cannot show in any result.
    """

    def __init__(self, folder: Path, *, every: float = 10.0) -> None:
        self._folder = folder / FOLDER
        self._every = every
        self._log: SqliteLog | None = SqliteLog(self._folder, 1, alone=True) if self._folder.exists() else None
        self._saved = time.monotonic()
        self._alerts: list[Alert] = []
        self._signals: list[Signal] = []
        self.totals = Totals()
        self._next: dict[Origin, int] = {}
        self.seen: dict[Origin, int] = {}

    @property
    def unfinished(self) -> bool:
        """Whether there is a replay to go on with."""
        return self._log is not None and self._log.state("plan") is not None

    def plan(self, wanted: Plan) -> Plan:
        """The plan to go by: the one that was begun, where it is for the same, else the one that is wanted.

        Raises
        ------
        TocsinError
            What was begun there is a replay of something else.
        """
        held = None if self._log is None else self._log.state("plan")
        if held is None:
            self._plan = wanted
            return wanted
        self._plan = msgspec.msgpack.decode(held, type=Plan)
        if not self._plan.same(wanted):
            raise TocsinError(
                f"{self._folder.parent}: holds an unfinished replay of another record or configuration "
                f"({self._plan.source}, {self._plan.built_under}); name another folder with --out"
            )
        return self._plan

    def restore(self, pipeline: Pipeline) -> dict[Origin, int]:
        """Bring the stages to the last checkpoint; returns where reading goes on."""
        if self._log is None or self._log.state("plan") is None:
            return {}
        restore_stages(self._log, pipeline)
        self.totals = msgspec.msgpack.decode(self._log.state("totals") or b"\x93\x00\x00\x00", type=Totals)
        for topic, part, _ in self._plan.ends:
            position = self._log.position((topic, part))
            self._next[topic, part], self.seen[topic, part] = position.offset, position.seen
            pipeline.running_max[topic, part] = position.running_max
        return dict(self._next)

    def took(self, pipeline: Pipeline, step: Step, nexts: Mapping[Origin, int]) -> None:
        """Take what a step brought, and keep it where a checkpoint is due."""
        self._alerts += step.alerts
        self._signals += step.signals
        self.totals = Totals(
            self.totals.events + step.events, self.totals.ticks + step.ticks, self.totals.dead + len(step.dead)
        )
        self._next.update(nexts)
        for origin, offset in nexts.items():
            self.seen[origin] = max(self.seen.get(origin, 0), offset)
        if time.monotonic() - self._saved >= self._every:
            self._save(pipeline)

    def _save(self, pipeline: Pipeline) -> None:
        if self._log is None:
            self._log = SqliteLog(self._folder, 1, alone=True)
        log, encode = self._log, msgspec.json.encode
        with log.transaction():
            log.append("emergency-response", [(0, 0, None, encode(alert), ()) for alert in self._alerts])
            log.append("signals", [(0, 0, None, encode(signal), ()) for signal in self._signals])
            store_stages(log, pipeline)
            log.set_state("plan", msgspec.msgpack.encode(self._plan))
            log.set_state("totals", msgspec.msgpack.encode(self.totals))
            for origin, following in self._next.items():
                oldest = pipeline.assess.oldest_waiting(origin)
                running, seen = pipeline.running_max[origin], self.seen.get(origin, 0)
                at = Position(following, running, seen) if oldest is None else Position(oldest[0], oldest[1], seen)
                log.set_position(origin, at)
        self._alerts, self._signals = [], []
        self._saved = time.monotonic()

    def alerts(self) -> list[Alert]:
        """All alert revisions, those of before the checkpoint too."""
        decode = msgspec.json.Decoder(Alert).decode
        return [*map(decode, self._kept("emergency-response")), *self._alerts]

    def signals(self) -> Iterator[Signal]:
        """All signals, in the order in which they came."""
        decode = msgspec.json.Decoder(Signal).decode
        yield from map(decode, self._kept("signals"))
        yield from self._signals

    def _kept(self, topic: str) -> Iterator[bytes]:
        at = 0
        while self._log is not None:
            records = self._log.read((topic, 0), at, _BATCH)
            yield from (record.value or b"" for record in records)
            if len(records) < _BATCH:
                return
            at = records[-1].offset + 1

    def close(self) -> None:
        """Let go of the log; what was kept stays."""
        if self._log is not None:
            self._log.close()
            self._log = None

    def done(self) -> None:
        """The results are written: nothing need be kept."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)
