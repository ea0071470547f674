"""Ticks, days and watermarks: time as a value, computed from the records and never read from a clock.

A tick is a numbered interval of arrival time, aligned to the deployment's local midnight (a week's tick to Monday).
A watermark says of one origin (a raw partition) that no later record of it can arrive before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt

__all__ = ["COMPLETE", "MS_PER_DAY", "Calendar", "Origin", "Watermarks", "day_start_iso"]

MS_PER_DAY = 86_400_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_MS = -62_135_596_800_000 + MS_PER_DAY
_LAST_MS = 253_402_300_799_999 - MS_PER_DAY
"""From 0001-01-02 through 9999-12-30 (UTC): the instants that a datetime can show in any offset."""
_MONDAY_SHIFT = 3 * MS_PER_DAY  # day 0 of the epoch is a Thursday
_WEEK_MS = 7 * MS_PER_DAY
COMPLETE = 2**62
"""The watermark of an exhausted bounded source."""

Origin = tuple[str, int]
"""A raw partition: short topic name and partition number."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """Arithmetic on ticks and local days for a fixed offset from UTC; all times are epoch milliseconds."""

    tick_ms: int
    offset_ms: int

    @property
    def _shift(self) -> int:
        return self.offset_ms + (_MONDAY_SHIFT if self.tick_ms == _WEEK_MS else 0)

    def tick(self, arrival_ms: int) -> int:
        """The tick to which an arrival belongs."""
        return (arrival_ms + self._shift) // self.tick_ms

    def tick_start(self, tick: int) -> int:
        return tick * self.tick_ms - self._shift

    def tick_end(self, tick: int) -> int:
        """First instant after the tick."""
        return self.tick_start(tick + 1)

    def ticks(self, arrivals: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return (arrivals + self._shift) // self.tick_ms

    def day(self, ms: int) -> int:
        """Number of the local day since 1970-01-01."""
        return (ms + self.offset_ms) // MS_PER_DAY

    def day_of_tick(self, tick: int) -> int:
        """The local day on which the tick's last instant lies."""
        return self.day(self.tick_end(tick) - 1)

    def first_tick_of_day(self, day: int) -> int:
        """The first tick whose last instant lies on that local day or later."""
        tick = self.tick(day * MS_PER_DAY - self.offset_ms)
        while self.day_of_tick(tick) < day:
            tick += 1
        return tick

    def moment(self, ms: int) -> datetime:
        """A datetime in the deployment's offset; times before year 1 or after 9999 show as the nearest that can be
        written (a record's given time may be any 64-bit number)."""
        local_epoch = datetime.fromtimestamp(0, timezone(timedelta(milliseconds=self.offset_ms)))
        return local_epoch + timedelta(milliseconds=min(max(ms, _FIRST_MS), _LAST_MS))

    def epoch_ms(self, moment: datetime) -> int:
        """Epoch milliseconds; a naive moment is read in the deployment's offset."""
        if moment.tzinfo is None:
            return int((moment.replace(tzinfo=UTC) - _EPOCH) / _MILLISECOND) - self.offset_ms
        return int((moment - _EPOCH) / _MILLISECOND)


def day_start_iso(day: int) -> str:
    """ISO date of a local day's number."""
    return (_EPOCH + timedelta(days=day)).date().isoformat()


class Watermarks:
    """The watermark of every origin, and the tick through which all of them have passed.

    Parameters
    ----------
    origins
        Every raw partition there is: a tick stays open until the slowest has passed it.
    calendar
        The deployment's calendar.
    """

    def __init__(self, origins: tuple[Origin, ...], calendar: Calendar) -> None:
        self._calendar = calendar
        self._marks: dict[Origin, int] = dict.fromkeys(sorted(origins), -COMPLETE)
        self._last: dict[Origin, int] = dict.fromkeys(sorted(origins), -COMPLETE)

    def advance(self, origin: Origin, mark: int, last_arrival: int) -> None:
        """Raise an origin's watermark; one that runs back is ignored, so order of messages cannot show."""
        if origin not in self._marks:
            self._marks[origin] = self._last[origin] = -COMPLETE
        self._marks[origin] = max(self._marks[origin], mark)
        self._last[origin] = max(self._last[origin], last_arrival)

    def closed_through(self) -> int | None:
        """The last closed tick, or None while nothing is known.

        When every origin is exhausted, the tick of the last arrival of all closes too.
        """
        if not self._marks:
            return None
        low = min(self._marks.values())
        if low == COMPLETE:
            last = max(self._last.values())
            return None if last == -COMPLETE else self._calendar.tick(last)
        return None if low == -COMPLETE else self._calendar.tick(low) - 1

    def slowest(self, among: tuple[Origin, ...]) -> Origin:
        """The origin to read next: the one that holds everything up; ties by name."""
        return min(among, key=lambda origin: (self._marks[origin], origin))

    def snapshot(self) -> list[tuple[str, int, int, int]]:
        return [(topic, part, mark, self._last[topic, part]) for (topic, part), mark in self._marks.items()]

    def restore(self, rows: list[tuple[str, int, int, int]], bound: int) -> None:
        """Take up stored marks, none of them beyond ``bound``."""
        for topic, part, mark, last in rows:
            self.advance((topic, part), min(mark, bound), last)
