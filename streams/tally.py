"""What one assess partition tells escalate of a day: who reported how much and how late, which kinds of injury came
with which products, how the labs judged, and how many cells are watched.

Whoever watches sources, labs and pairs needs the sums over all branches, which no assess partition has. A tally holds
sums of one partition's branches; sums of whole numbers do not depend on how the branches are spread. What is no whole
number (expected failures) is told branch by branch, so that it can be added in the order of the branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

__all__ = ["DELAY_EDGES", "Activity", "LabCount", "PairCount", "SourceCount", "Tally", "merged"]

DELAY_EDGES: Final = (1, 2, 4, 8, 15, 31, 91)
"""Days at which the next class of reporting delay begins: on the day, the next, 2 to 3, 4 to 7, ... 91 and more."""

_EDGES: Final = np.array(DELAY_EDGES)
_SPARSE: Final = 16
"""So many times as many places as codes, and sorting the codes is faster than counting in all places."""
_KIND_BITS: Final = 3
_CLASS_BITS: Final = 3
Ints = npt.NDArray[np.int64]


class SourceCount(msgspec.Struct, array_like=True, frozen=True):
    """Events of one kind (its number) that one reporter sent, and how many of them in each class of delay."""

    kind: int
    reporter: str
    events: int
    delays: tuple[int, ...]


class PairCount(msgspec.Struct, array_like=True, frozen=True):
    """Reports that name a product together with a kind of injury; negative where reports were taken back."""

    product: str
    hazard: str
    reports: int


class LabCount(msgspec.Struct, array_like=True, frozen=True):
    """One lab in one group of products: items tested and failed in the recent weeks, and the failures expected with
    their variances (see :class:`detectors.lab_drift.DriftParts`)."""

    group: str
    lab: str
    tested: int
    failed: int
    own: float
    own_variance: float
    peers: float
    peers_variance: float
    both: float
    both_variance: float


class Tally(msgspec.Struct, array_like=True):
    """One day of arrival of one partition. ``cells`` is the number of cells that are watched, by indicator."""

    day: int
    sources: list[SourceCount]
    pairs: list[PairCount]
    labs: list[LabCount]
    cells: dict[str, int]


def merged(tallies: Iterable[Tally]) -> tuple[list[SourceCount], list[PairCount]]:
    """The sums of one day over partitions, in the order of kinds, reporters, products and hazards: what comes first
    where room is short must not hang on which partition told it."""
    sources: dict[tuple[int, str], SourceCount] = {}
    pairs: dict[tuple[str, str], int] = {}
    for tally in tallies:
        for one in tally.sources:
            held = sources.get((one.kind, one.reporter))
            if held is not None:
                delays = tuple(a + b for a, b in zip(held.delays, one.delays, strict=True))
                one = SourceCount(one.kind, one.reporter, held.events + one.events, delays)
            sources[one.kind, one.reporter] = one
        for pair in tally.pairs:
            pairs[pair.product, pair.hazard] = pairs.get((pair.product, pair.hazard), 0) + pair.reports
    return [sources[key] for key in sorted(sources)], [
        PairCount(*key, pairs[key]) for key in sorted(pairs) if pairs[key]
    ]


class Activity:
    """Collects what arrived, tick by tick, until its day is over. Kept in memory only: restoring the ledger's segments
    fills it again, and what has been told by then is dropped."""

    def __init__(self) -> None:
        self._reports: list[tuple[int, Ints, Ints]] = []
        """Of each tick: codes of reporter, kind and class of delay, and how many events have each."""
        self._pairs: list[tuple[int, str, str, int]] = []

    def __bool__(self) -> bool:
        return bool(self._reports or self._pairs)

    def report(
        self,
        tick: int,
        kind: npt.NDArray[np.uint8],
        reporter: npt.NDArray[np.int32],
        delay: npt.NDArray[np.int16],
    ) -> None:
        """Events of one tick: their kinds, reporters (numbers) and delays in days. A tick that only took something
        back has none, and yet its day has something to tell."""
        classes = np.searchsorted(_EDGES, delay, side="right")
        codes = (reporter.astype(np.int64) << _KIND_BITS | kind) << _CLASS_BITS | classes
        self._reports.append((tick, *_counted(codes)))

    def pair(self, tick: int, product: str, hazard: str, change: int) -> None:
        """One report more or less that names both."""
        self._pairs.append((tick, product, hazard, change))

    def drop_before(self, tick: int) -> None:
        """Forget what has been told already."""
        self._reports = [entry for entry in self._reports if entry[0] >= tick]
        self._pairs = [entry for entry in self._pairs if entry[0] >= tick]

    def take(self, names: Callable[[int], str]) -> tuple[list[SourceCount], list[PairCount]]:
        """Everything collected, in the order of kinds, reporters, products and hazards."""
        reports, self._reports = self._reports, []
        pairs, self._pairs = self._pairs, []
        sums: dict[tuple[str, str], int] = {}
        for _, product, hazard, change in pairs:
            sums[product, hazard] = sums.get((product, hazard), 0) + change
        told = [PairCount(product, hazard, n) for (product, hazard), n in sorted(sums.items()) if n]
        if not reports:
            return [], told
        codes = np.concatenate([codes for _, codes, _ in reports])
        if not len(codes):
            return [], told
        events = np.concatenate([events for _, _, events in reports])
        who, place = np.unique(codes >> _CLASS_BITS, return_inverse=True)
        table = np.zeros((len(who), len(DELAY_EDGES) + 1), np.int64)
        np.add.at(table, (place, codes & ((1 << _CLASS_BITS) - 1)), events)
        kinds, reporters = (who & ((1 << _KIND_BITS) - 1)).tolist(), (who >> _KIND_BITS).tolist()
        counts = [
            SourceCount(kind, names(reporter), sum(row), tuple(row))
            for kind, reporter, row in zip(kinds, reporters, table.tolist(), strict=True)
        ]
        return sorted(counts, key=lambda one: (one.kind, one.reporter)), told


def _counted(codes: Ints) -> tuple[Ints, Ints]:
    """The distinct ones of some codes, ascending, and how often each is there."""
    if not len(codes) or codes.min() < 0 or codes.max() >= _SPARSE * len(codes):
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes)
    there = np.flatnonzero(counts)
    return there, counts[there]
