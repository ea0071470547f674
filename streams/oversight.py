"""What only the whole shows: sources, labs, and pairs of product and kind of injury, over all branches.

The assess partitions tell of each day (:mod:`streams.tally`); here the days are added up and judged, at ticks like all
else. What is found becomes signals, which escalate treats as it treats those of cells. The sums are of whole numbers,
or added in the order of the branches, so that the number of partitions cannot show.
"""

from __future__ import annotations

import zlib

import msgspec

from schemas.alerts import Signal
from streams.config import Config
from streams.labs import week_of
from streams.stored import reading, unpack
from streams.tally import LabCount, Tally, merged
from streams.ticks import MS_PER_DAY, Calendar
from streams.watch_labs import judge_labs
from streams.watch_pairs import PairWatch
from streams.watch_sources import SourceWatch

__all__ = ["OVERSIGHT_VERSION", "Oversight"]

OVERSIGHT_VERSION = 1


class _State(msgspec.Struct, array_like=True):
    version: int
    judged_day: int | None
    pending: list[tuple[int, int, Tally]]
    cells: list[tuple[int, dict[str, int]]]
    sources: bytes
    pairs: bytes


class Oversight:
    """The tables of the whole, and when they are judged."""

    def __init__(self, config: Config, calendar: Calendar) -> None:
        self._config = config
        self._calendar = calendar
        self._pending: dict[int, dict[int, Tally]] = {}
        self._cells: dict[int, dict[str, int]] = {}
        # A tick of a week cannot tell on which day a source was silent.
        self._daily = config.tick_ms <= MS_PER_DAY
        self._judged_day: int | None = None
        self._sources = SourceWatch(config.sources)
        self._pairs = PairWatch(config.hazards)
        self._changed = False

    def cells(self, indicator: str) -> int:
        """How many cells of an indicator are watched, over all partitions."""
        return sum(counts.get(indicator, 0) for counts in self._cells.values())

    def offer(self, partition: int, tick: int, tally: Tally) -> None:
        """Take a partition's tally, to be added at its tick."""
        self._pending.setdefault(tick, {})[partition] = tally
        self._changed = True

    def due(self) -> list[int]:
        """The next ticks at which there is something to do."""
        ticks = sorted(self._pending)[:1]
        if self._daily and self._judged_day is not None and self._sources.watched:
            ticks.append(self._calendar.first_tick_of_day(self._judged_day + 2))
        return ticks

    def tick(self, tick: int) -> list[Signal]:
        """Add up what was told at the tick, and judge: sources at the first tick of a day, labs and pairs when told."""
        labs: list[LabCount] = []
        tallies = self._pending.pop(tick, {})
        for partition in sorted(tallies):
            tally = tallies[partition]
            self._cells[partition] = tally.cells
            labs += tally.labs
        if tallies:
            # The partitions whose day it was all tell of the same one; one that has but labs to tell may say an older.
            day = max(tally.day for tally in tallies.values())
            sources, pairs = merged(tallies.values())
            if self._daily:
                self._sources.add(day, sources)
            self._pairs.add(day, pairs)
        signals: list[Signal] = []
        past = self._calendar.day_of_tick(tick) - 1
        if self._judged_day is None or past > self._judged_day:
            if self._daily:
                signals += self._sources.judge(past, self._about(tick))
            if self._judged_day is not None and week_of(past + 1) > week_of(self._judged_day + 1):
                signals += self._pairs.judge(past, self._about(tick))
            self._judged_day = past if tallies or self._judged_day is not None else None
            self._changed = True
        signals += judge_labs(labs, self._config.labs, self._about(tick))
        self._changed |= bool(tallies)
        return signals

    def _about(self, tick: int) -> dict[str, object]:
        """What every signal of the tick has in common."""
        return {
            "tick": tick,
            "as_of": self._calendar.moment(self._calendar.tick_end(tick)),
            "role": "primary",
            "scope": "cell",
        }

    # --- state -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes | None:
        """The whole state, or None where nothing has changed since the last snapshot."""
        if not self._changed:
            return None
        self._changed = False
        pending = [(tick, part, told[part]) for tick, told in sorted(self._pending.items()) for part in sorted(told)]
        cells = sorted(self._cells.items())
        state = _State(OVERSIGHT_VERSION, self._judged_day, pending, cells, self._sources.pack(), self._pairs.pack())
        # Tables are mostly zeros, and the record must fit into a message.
        return zlib.compress(msgspec.msgpack.encode(state), 1)

    def restore(self, data: bytes) -> None:
        """Take up a snapshot."""
        with reading("the state of oversight"):
            self._restore(unpack(zlib.decompress(data), _State, OVERSIGHT_VERSION, "the state of oversight"))

    def _restore(self, state: _State) -> None:
        self._judged_day, self._cells = state.judged_day, dict(state.cells)
        for tick, partition, tally in state.pending:
            self._pending.setdefault(tick, {})[partition] = tally
        self._sources.unpack(state.sources)
        self._pairs.unpack(state.pairs)
        self._changed = False
