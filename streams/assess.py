"""Stage 2, assess: columns of valid events in; evidence for every cell that changed out, tick by tick.

1. Events wait by origin until the watermarks of *all* origins have passed their tick.
2. At the close all events of the tick are folded at once (:mod:`streams.state`), whatever order they came in.
3. The cells touched, and in their branches the cells whose evidence stood, are judged (:mod:`streams.judge`).
   At the first tick of each day every standing cell is judged again, for its windows have moved.
4. The tick's signals and a marker "closed through" go out; then the state segment, then the input positions
   (one transaction in both runtimes).
5. Events are remembered for ``state.remember_days``, their counts as long as a detector looks back. What is older is
   forgotten at the first tick of every 32nd day: when, is told by the tick alone, so that a replay forgets alike. From
   time to time a checkpoint has a base (:mod:`streams.base`), after which old segments can be deleted.

The outcome at a tick is a function of the set of records that had arrived, and of nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np

from schemas.alerts import DeadLetter, Signal
from schemas.catalogue import Catalogue
from streams.base import base_pieces, take_up_base
from streams.columns import NOTE, EventColumns, concatenate
from streams.config import Config
from streams.decode import EventDecoder
from streams.judge import Judge
from streams.labs import Effects, monday_of, week_of
from streams.state import AssessState, Folded
from streams.stored import reading, unpack
from streams.tally import LabCount, Tally
from streams.ticks import MS_PER_DAY, Calendar, Origin, Watermarks

__all__ = ["PROGRESS_VERSION", "Assess", "Closed", "Saved", "Segment", "too_late"]

PROGRESS_VERSION: Final = 6
EFFECTS_A_PIECE: Final = 50_000
"""Effects of labs in one stored piece: well under the size of a message."""
BASE_ROWS: Final = 200_000
"""Events folded since the last base, at least, before the next one is worth its while."""
SEGMENT_ROWS: Final = 20_000
_EXPIRY_DAYS: Final = 32
_MOST_EXPECTED: Final = 1 << 25
"""Events that room is made for before they come: what is said of them may be wrong."""


class Segment(msgspec.Struct, array_like=True):
    """What a checkpoint adds to the stored state: the rows folded at each tick."""

    ticks: list[tuple[int, bytes]]


class Progress(msgspec.Struct, array_like=True):
    """Where the partition stands: stored with every checkpoint, in the same transaction as the segment."""

    version: int
    config: str
    closed_through: int | None
    watermarks: list[tuple[str, int, int, int]]
    standing: list[tuple[str, str, str]]
    last_day: int | None
    told_before: int | None
    base_through: int | None = None
    """The last tick whose counts are in the stored base."""
    offered: list[tuple[str, int, int]] = []
    """Of each origin, the greatest offset that was ever offered."""


@dataclass(slots=True)
class Saved:
    """What a checkpoint stores: segments with the last tick in each; the progress row; a new base, if it is time for
    one, and then the tick before which events are forgotten: segments that end before it can be deleted; the effects
    of the labs, where they have changed."""

    segments: list[tuple[int, bytes]]
    progress: bytes
    base: list[bytes] | None = None
    forgotten_before: int | None = None
    effects: list[bytes] | None = None

    @property
    def nbytes(self) -> int:
        pieces = sum(map(len, (*(self.base or ()), *(self.effects or ()))))
        return len(self.progress) + sum(len(data) for _, data in self.segments) + pieces


@dataclass(slots=True)
class Closed:
    """What closing ticks brought: signals in a stated order, tallies of the days before with their ticks, and how far
    the partition is closed."""

    through: int | None
    signals: list[Signal] = field(default_factory=list)
    tallies: list[tuple[int, Tally]] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    events: int = 0
    duplicates: int = 0


@dataclass(slots=True)
class _Part:
    """A batch that waits, and how many of its rows have been taken; arrivals are monotone within it."""

    columns: EventColumns
    start: int = 0

    def next_arrival(self) -> int:
        return int(self.columns["arrival"][self.start])


@dataclass(slots=True)
class _Waiting:
    """The batches of one origin that wait for their ticks: thousands of them, where an hour's tick is live."""

    parts: list[_Part] = field(default_factory=list)
    next_arrival: int | None = None
    """Of all that waits: asked for whenever anything comes, and so kept."""

    def add(self, columns: EventColumns) -> None:
        """Let a batch wait; it is not empty."""
        self.parts.append(_Part(columns))
        first = int(columns["arrival"][0])
        self.next_arrival = first if self.next_arrival is None else min(first, self.next_arrival)

    def take(self, bound: int) -> list[EventColumns]:
        """Remove and return the rows that arrived before ``bound``."""
        taken: list[EventColumns] = []
        for part in self.parts:
            stop = int(np.searchsorted(part.columns["arrival"], bound))
            if stop > part.start:
                taken.append(part.columns.between(part.start, stop))
                part.start = stop
        self.parts = [part for part in self.parts if part.start < len(part.columns)]
        self.next_arrival = min((part.next_arrival() for part in self.parts), default=None)
        return taken


class Assess:
    """The assess stage of one partition.

    Parameters
    ----------
    config, catalogue
        What to count and how to judge.
    origins
        Every raw partition; none may be missing, for a tick closes only when all have passed it.
    stored
        Whether checkpoints will be asked for; what they would store is not kept otherwise.
    """

    def __init__(
        self, config: Config, catalogue: Catalogue, origins: tuple[Origin, ...], *, stored: bool = True
    ) -> None:
        self._config = config
        self._stored = stored
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self.watermarks = Watermarks(origins, self._calendar)
        self.state = AssessState(EventDecoder(config, catalogue), config.intake.max_codes_per_shard)
        self._judge = Judge(config, catalogue, self.state, self._calendar)
        self._waiting: dict[Origin, _Waiting] = {}
        self.closed_through: int | None = None
        self._last_day: int | None = None
        self._told_before: int | None = None
        self._fresh: list[tuple[int, EventColumns]] = []
        self._expired_day: int | None = None
        self._base_through: int | None = None
        self._since_base = 0
        self._offered: dict[Origin, int] = {}
        self._stored_effects = self.state.labs.pack()

    def expect(self, events: int, span_ms: int) -> None:
        """Make room for so many events, evenly spread over a time; there may be more, or fewer."""
        remembered = (self._config.state.remember_days + _EXPIRY_DAYS) * MS_PER_DAY
        together = events * remembered // max(span_ms, remembered)
        self.state.ledger.expect(min(together, _MOST_EXPECTED))

    def offer(self, origin: Origin, columns: EventColumns) -> EventColumns:
        """Take events to wait for their tick.

        Returns
        -------
        EventColumns
            The events that came after their tick was closed. What is folded already (sent again after a crash) is
            passed over; the rest cannot be counted any more without breaking the law, and the caller must say so.
        """
        late = EventColumns.empty()
        offered = self._offered.get(origin, -1)
        if len(columns):
            self._offered[origin] = max(offered, int(columns["offset"].max()))
        if self.closed_through is not None and len(columns):
            stop = int(np.searchsorted(columns["arrival"], self._calendar.tick_end(self.closed_through)))
            late = self._unknown(columns.between(0, stop), offered) if stop else late
            columns = columns.between(stop, len(columns)) if stop else columns
        if len(columns):
            self._waiting.setdefault(origin, _Waiting()).add(columns)
        return late

    def _unknown(self, columns: EventColumns, offered: int) -> EventColumns:
        """The rows with content that are neither held nor superseded, and come for the first time.

        An origin is offered in the order of its offsets, so what lies at or below the greatest was dealt with before.
        Ids alone do not tell: where one origin is years ahead of another in history, a restart reads years again, and
        of those events that are forgotten the ids are gone.
        """
        news = columns.take(np.flatnonzero(((columns["flags"] & NOTE) == 0) & (columns["offset"] > offered)))
        return news.take(np.flatnonzero(~self.state.known(news)))

    def oldest_waiting(self, origin: Origin) -> tuple[int, int] | None:
        """Offset and arrival of the origin's oldest event that still waits, None where none does."""
        parts = self._waiting[origin].parts if origin in self._waiting else []
        oldest = ((int(part.columns["offset"][part.start]), part.next_arrival()) for part in parts)
        return min(oldest, default=None)

    def waiting(self) -> int:
        """Events that wait for their tick to close."""
        return sum(len(p.columns) - p.start for waiting in self._waiting.values() for p in waiting.parts)

    def close(self, limit: int | None = None) -> Closed:
        """Close every tick that all watermarks have passed (at most ``limit`` ticks with work in them)."""
        through = self.watermarks.closed_through()
        closed = Closed(self.closed_through)
        if through is None:
            return closed
        for tick in self._due(through):
            if limit is not None and len(closed.ticks) >= limit:
                closed.through = self.closed_through
                return closed
            self._close_tick(tick, closed)
            self.closed_through = tick
        if self.closed_through is None or through > self.closed_through:
            self.closed_through = through
        closed.through = self.closed_through
        return closed

    def _due(self, through: int) -> Iterator[int]:
        """Ticks with events, and the first tick of the next day while any evidence stands or a day is to be told."""
        while True:
            arrivals = [one.next_arrival for one in self._waiting.values() if one.next_arrival is not None]
            candidates = [self._calendar.tick(min(arrivals))] if arrivals else []
            if self._last_day is not None:
                if self._judge.standing or self.state.activity:
                    candidates.append(self._calendar.first_tick_of_day(self._last_day + 1))
                monday = _next_comparison(self._last_day, self._config.labs.every_weeks)
                if self.state.labs.watched(monday, self._config.labs):
                    candidates.append(self._calendar.first_tick_of_day(monday))
            tick = min(candidates, default=None)
            if tick is None or tick > through:
                return
            yield tick

    def _close_tick(self, tick: int, closed: Closed) -> None:
        bound = self._calendar.tick_end(tick)
        parts = [part for origin in sorted(self._waiting) for part in self._waiting[origin].take(bound)]
        day = self._calendar.day_of_tick(tick)
        since: int | None = None
        if self._last_day is None:
            since = tick
        elif day > self._last_day:
            since = self._calendar.first_tick_of_day(self._last_day)
            self._tell(tick, self._last_day, day, closed)
        self._last_day = day
        self._expire(day)
        folded = Folded({}, EventColumns.empty(), 0)
        if parts:
            folded = self.state.fold_tick(tick, parts, stored=self._stored)
        if len(folded.rows) and self._stored:
            self._fresh.append((tick, folded.rows))
        closed.ticks.append(tick)
        closed.events += sum(len(part) for part in parts)
        closed.duplicates += folded.duplicates
        closed.signals += self._judge.tick(tick, day, folded, since=since)

    def _tell(self, tick: int, past: int, day: int, closed: Closed) -> None:
        """Tell escalate of the days before, and on the first day of a week of the labs."""
        labs: list[LabCount] = []
        if _next_comparison(past, self._config.labs.every_weeks) <= day:
            labs = self.state.labs.compare(day, self._config.labs, self.state.reporters)
        if self.state.activity or labs:
            sources, pairs = self.state.activity.take(self.state.reporters.__getitem__)
            cells = {name: len(store) for name, store in self.state.stores.items()}
            closed.tallies.append((tick, Tally(past, sources, pairs, labs, cells)))
        self._told_before = tick

    def _expire(self, day: int) -> None:
        """Forget what is too old on a day; in steps, for each one copies what stays."""
        day -= day % _EXPIRY_DAYS
        if self._expired_day is not None and day <= self._expired_day:
            return
        self._expired_day = day
        self.state.expire(self._forgotten_before(day), day - self._config.lookback_days)

    def _forgotten_before(self, day: int) -> int:
        return self._calendar.first_tick_of_day(max(0, day - self._config.state.remember_days))

    # --- storing ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> Saved:
        """What is to be stored, beside what has been stored before, to go on from here."""
        fresh, self._fresh = self._fresh, []
        saved = Saved(list(_segments(fresh)), b"")
        self._since_base += sum(len(rows) for _, rows in fresh)
        if self._since_base >= max(BASE_ROWS, len(self.state.ledger) // 2) and self.closed_through is not None:
            saved.base = list(base_pieces(self.state))
            self._base_through, self._since_base = self.closed_through, 0
            if self._expired_day is not None:
                saved.forgotten_before = self._forgotten_before(self._expired_day)
        progress = Progress(
            PROGRESS_VERSION,
            self._config.digest,
            self.closed_through,
            self.watermarks.snapshot(),
            self._judge.standing_cells(),
            self._last_day,
            self._told_before,
            self._base_through,
            [(*origin, offset) for origin, offset in sorted(self._offered.items())],
        )
        saved.progress = msgspec.msgpack.encode(progress)
        effects = self.state.labs.pack()
        if effects is not self._stored_effects:  # only a comparison makes new ones
            saved.effects, self._stored_effects = list(_effect_pieces(effects)), effects
        return saved

    def restore(
        self, progress: bytes, segments: Iterable[bytes], base: Iterable[bytes] = (), effects: Iterable[bytes] = ()
    ) -> None:
        """Take up what checkpoints have stored: the last progress row, the base, the segments in their order, and the
        effects of the labs.

        Raises
        ------
        StoredStateError
            Something of it is of another version, or damaged.
        """
        held = unpack(progress, Progress, PROGRESS_VERSION, "the progress row")
        self._base_through = held.base_through
        if held.base_through is not None:
            with reading("the base of the state"):
                take_up_base(self.state, base)
        with reading("a state segment"):
            for tick, rows in _whole_ticks(segments):
                self._fold_again(tick, rows)
        self.closed_through = held.closed_through
        if self.closed_through is not None:
            # Marks beyond the closed ticks vouch for events that waited and are yet to be read again: they must be
            # earned anew.
            self.watermarks.restore(held.watermarks, self._calendar.tick_end(self.closed_through))
        self._offered = {(topic, part): offset for topic, part, offset in held.offered}
        self._last_day = held.last_day
        if self._last_day is not None:
            self._expire(self._last_day)
        self._told_before = held.told_before
        if self._told_before is not None:
            self.state.activity.drop_before(self._told_before)
        with reading("the effects of the labs"):
            self.state.labs.unpack(_effects(effects))
        self._stored_effects = self.state.labs.pack()
        self._judge.restore_standing(held.standing)

    def _fold_again(self, tick: int, rows: EventColumns) -> None:
        day = self._calendar.day_of_tick(tick)
        # What arrived on the days before was told when this tick closed: else all history would gather here.
        self.state.activity.drop_before(self._calendar.first_tick_of_day(day))
        self._expire(day)
        counted = self._base_through is not None and tick <= self._base_through
        self.state.apply(tick, rows, counted=counted)
        self._since_base += 0 if counted else len(rows)


def _effect_pieces(effects: Effects) -> Iterator[bytes]:
    for group, leaves, labs, values in effects:
        for at in range(0, len(values), EFFECTS_A_PIECE):
            span = slice(at, at + EFFECTS_A_PIECE)
            yield msgspec.msgpack.encode((group, leaves[span], labs[span], values[span]))


def _effects(pieces: Iterable[bytes]) -> Effects:
    """The inverse of :func:`_effect_pieces`."""
    held: dict[str, tuple[str, list[int], list[int], list[float]]] = {}
    for data in pieces:
        group, leaves, labs, values = msgspec.msgpack.decode(data, type=tuple[str, list[int], list[int], list[float]])
        whole = held.setdefault(group, (group, [], [], []))
        whole[1].extend(leaves)
        whole[2].extend(labs)
        whole[3].extend(values)
    return list(held.values())


def _segments(fresh: list[tuple[int, EventColumns]]) -> Iterator[tuple[int, bytes]]:
    """Folded rows as segments that fit into a message each, with the last tick in each; a large tick takes several."""
    ticks: list[tuple[int, bytes]] = []
    room = SEGMENT_ROWS
    for tick, rows in fresh:
        start = 0
        while start < len(rows):
            stop = min(len(rows), start + room)
            whole = start == 0 and stop == len(rows)
            ticks.append((tick, (rows if whole else rows.between(start, stop).trimmed()).pack()))
            room -= stop - start
            start = stop
            if not room:
                yield tick, msgspec.msgpack.encode(Segment(ticks))
                ticks, room = [], SEGMENT_ROWS
    if ticks:
        yield ticks[-1][0], msgspec.msgpack.encode(Segment(ticks))


def _whole_ticks(segments: Iterable[bytes]) -> Iterator[tuple[int, EventColumns]]:
    """The rows of each tick, put together again: what is numbered in a tick is numbered in an order of the whole."""
    last: int | None = None
    parts: list[EventColumns] = []
    for data in segments:
        for tick, packed in msgspec.msgpack.decode(data, type=Segment).ticks:
            if tick != last and last is not None:
                yield last, concatenate(parts)
                parts = []
            last = tick
            parts.append(EventColumns.unpack(packed))
    if last is not None:
        yield last, concatenate(parts)


def _next_comparison(day: int, every_weeks: int) -> int:
    """The first Monday after a day on which labs are compared."""
    week = week_of(day) + 1
    week += -week % every_weeks
    return monday_of(week)


def too_late(late: EventColumns) -> list[DeadLetter]:
    """Dead letters for the events that :meth:`Assess.offer` gave back."""
    rows = zip(late["origin"].tolist(), late["offset"].tolist(), late["arrival"].tolist(), strict=True)
    return [
        DeadLetter(
            reason="arrived-too-late",
            field="",
            detail="its tick was closed when it came: fill topics with given times before the run, or let the "
            "broker stamp them",
            topic=late.origins[origin][0],
            partition=late.origins[origin][1],
            offset=offset,
            timestamp=arrival,
            stage="assess",
        )
        for origin, offset, arrival in rows
    ]
