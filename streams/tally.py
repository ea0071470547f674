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
        self._reports: list[tuple[int, npt.NDArray[np.int64]]] = []
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
        self._reports.append((tick, np.stack([kind, reporter, np.digitize(delay, DELAY_EDGES)]).astype(np.int64)))

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
        kind, reporter, bin_ = np.concatenate([rows for _, rows in reports], axis=1)
        if not len(kind):
            return [], told
        keys, place = np.unique(np.stack([kind, reporter]), axis=1, return_inverse=True)
        table = np.zeros((keys.shape[1], len(DELAY_EDGES) + 1), np.int64)
        np.add.at(table, (place.reshape(-1), bin_), 1)
        counts = [
            SourceCount(int(k), names(int(r)), int(row.sum()), tuple(row.tolist()))
            for k, r, row in zip(*keys, table, strict=True)
        ]
        return sorted(counts, key=lambda one: (one.kind, one.reporter)), told
