"""A part of a record, as a medium: from a time on, up to a time, between offsets.

*Up to a time* is what was known then: a record that arrived later does not exist. Arrival is the running maximum of the
times of a partition, as everywhere; so a partition ends at the first record that arrived at that time or after it, and
begins at the first that arrived at the other or after it. Nothing is written through a slice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from schemas.errors import TocsinError
from streams.decode import Record
from streams.embedded import INPUTS
from streams.medium import Medium, Outgoing
from streams.ticks import COMPLETE, Origin

__all__ = ["Slice", "Sliced", "parse_range"]

_RANGE = re.compile(r"(?P<topic>[a-z-]+?)(-(?P<part>\d{1,4}))?=(?P<first>\d{0,18})\.\.(?P<end>\d{0,18})")


@dataclass(frozen=True, slots=True)
class Slice:
    """Which part: arrivals from ``since`` and before ``until`` (epoch ms), offsets from the first below the second."""

    since: int | None = None
    until: int | None = None
    ranges: Mapping[tuple[str, int | None], tuple[int, int | None]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        return self.since is None and self.until is None and not self.ranges

    def offsets(self, origin: Origin) -> tuple[int, int | None]:
        """The bounds of a partition, its own before those of its topic."""
        return self.ranges.get(origin) or self.ranges.get((origin[0], None)) or (0, None)


def parse_range(text: str) -> tuple[tuple[str, int | None], tuple[int, int | None]]:
    """``TOPIC-PARTITION=FIRST..END``, or ``TOPIC=FIRST..END`` for all partitions; either bound may be left out.

    Raises
    ------
    TocsinError
        Saying what is wrong with it.
    """
    found = _RANGE.fullmatch(text)
    if found is None or found["topic"] not in INPUTS:
        known = ", ".join(INPUTS)
        raise TocsinError(f"--range {text}: TOPIC-PARTITION=FIRST..END, as in injuries-0=100..2000; topics: {known}")
    part = None if found["part"] is None else int(found["part"])
    first, end = int(found["first"] or 0), int(found["end"]) if found["end"] else None
    if end is not None and end < first:
        raise TocsinError(f"--range {text}: ends before it begins")
    return (found["topic"], part), (first, end)


class Sliced:
    """A medium of which only a slice is there."""

    def __init__(self, medium: Medium, part: Slice) -> None:
        self._medium = medium
        self._part = part

    def ends(self, topics: Sequence[str]) -> dict[Origin, int]:
        """The ends, no further than the slice's offsets."""
        found = {}
        for origin, end in self._medium.ends(topics).items():
            bound = self._part.offsets(origin)[1]
            found[origin] = end if bound is None else min(end, bound)
        return found

    def starts(self, topics: Sequence[str]) -> dict[Origin, int]:
        """The first offsets, no earlier than the slice's."""
        return {
            origin: max(start, self._part.offsets(origin)[0]) for origin, start in self._medium.starts(topics).items()
        }

    def read(self, origin: Origin, offset: int, end: int, batch: int) -> Iterator[Sequence[Record]]:
        """The records of the slice, in batches.

        Whoever goes on in the middle of a partition gets the arrivals of what lies between: times that ran back before
        ``offset`` can no more be seen, so that reading begins at the slice's first offset.
        """
        first, _ = self._part.offsets(origin)
        since, until = self._part.since, self._part.until
        latest = -COMPLETE
        if since is None and until is None:
            first = max(first, offset)
        for records in self._medium.read(origin, first, end, batch):
            kept = []
            for record in records:
                latest = max(latest, record.timestamp)
                if until is not None and latest >= until:
                    break
                if record.offset >= offset and (since is None or latest >= since):
                    kept.append(record)
            if kept:
                yield kept
            if until is not None and latest >= until:
                return

    def write(self, topic: str, records: Sequence[Outgoing]) -> NoReturn:
        raise TocsinError(f"{topic}: a part of a record is only read")

    def follow(self, topics: Sequence[str], stop: Callable[[], bool], *, from_start: bool) -> NoReturn:
        raise TocsinError("a part of a record has an end; it cannot be followed")

    def close(self) -> None:
        self._medium.close()
