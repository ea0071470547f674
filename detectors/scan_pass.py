"""One pass of a space-time scan: every zone with every window, scored, and the best of them.

A window is one column here: counts and expectations are first summed over time for each region and window,
and a pass then sums over regions for each zone, size by size, one addition a zone (:mod:`detectors.scan_zones`).
Series, or replicates of one series, stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from detectors.evidence import BoolArray, FloatArray, IntArray
from detectors.scan_zones import Zones

__all__ = [
    "Best",
    "Counts",
    "Null",
    "Windows",
    "best_of_zones",
    "largest",
    "log_likelihood_ratio",
    "maxima",
    "non_overlapping",
    "zone_sums",
]

Counts: TypeAlias = npt.NDArray[np.signedinteger[Any]]
Number = TypeVar("Number", bound=np.number[Any])

LEAST_EXPECTED = 1e-290
"""Stands for an expectation of nothing: 2**53 cases over it are still a number."""

EXCESS = 1e-9
"""Share by which a count must pass its expectation to be an excess and no rounding."""


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of a scan: the latest end first, and of one end the shortest first.

    Attributes
    ----------
    start, end
        First column and the column after the last, ``[windows]``.
    """

    start: IntArray
    end: IntArray

    @classmethod
    def of(cls, times: int, longest: int, *, retrospective: bool) -> Windows:
        """Windows of 1 to `longest` columns: those that end with the last column, or if `retrospective` all."""
        ends = range(times, 0, -1) if retrospective else [times]
        pairs = [(end - length, end) for end in ends for length in range(1, min(longest, end) + 1)]
        start, end = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        return cls(start, end)

    def sums(self, cells: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """Sum ``[..., time]`` over each window: ``[..., windows]``."""
        parts = [cells[..., :0]]
        for end in np.unique(self.end)[::-1].tolist():
            longest = end - int(self.start[self.end == end].min())
            parts.append(np.cumsum(cells[..., end - longest : end][..., ::-1], axis=-1))
        return np.concatenate(parts, axis=-1)


def log_likelihood_ratio(c: FloatArray, mu: FloatArray, total: FloatArray | float | None) -> FloatArray:
    """Log-likelihood ratio of a cluster of `c` cases where `mu` are expected, for c > mu.

    Given the `total` of all cases, Kulldorff's c ln(c / mu) + (C - c) ln((C - c) / (C - mu)); without, the
    expectation-based c ln(c / mu) + mu - c. The logarithms are taken of 1 + excess, which keeps its digits
    among 1e9 cases. Cases where none can be give a large number, not an infinite one.
    """
    excess = c - mu
    inside = c * np.log1p(excess / np.maximum(mu, LEAST_EXPECTED))
    if total is None:
        return np.asarray(inside - excess)
    share = np.minimum(excess / np.maximum(total - mu, LEAST_EXPECTED), 1.0 - 2.0**-53)  # 1: no case lies outside
    return np.asarray(inside + (total - c) * np.log1p(-share))


def zone_sums(zones: Zones, values: npt.NDArray[Number]) -> Iterator[tuple[slice, npt.NDArray[Number]]]:
    """Sum `values` ``[regions, ...]`` over all zones: for each size of zones, which they are and their sums."""
    smaller: npt.NDArray[Number] | None = None
    first = 0
    for ids in zones.by_size():
        sums = np.take(values, zones.added[ids], axis=0)
        if smaller is not None:
            sums += np.take(smaller, zones.parent[ids] - first, axis=0)
        yield ids, sums
        smaller, first = sums, ids.start


# --- the data themselves --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Best:
    """The best window of every zone, arrays ``[zones, series]``; llr is 0 where no window has an excess."""

    llr: FloatArray
    window: IntArray
    observed: FloatArray
    expected: FloatArray


def best_of_zones(
    zones: Zones, counts: FloatArray, expected: FloatArray, totals: FloatArray | None, least_cases: int
) -> Best:
    """Score all zones and windows of some series; of each zone, keep the best window, the first if several are.

    Parameters
    ----------
    zones
        Catalogue.
    counts, expected
        Sums over windows, ``[regions, series, windows]``.
    totals
        All cases of each series, ``[series]``; None for the expectation-based ratio.
    least_cases
        Fewer cases than this are no cluster.
    """
    shape = (zones.parent.size, counts.shape[1])
    best = Best(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape))
    if counts.shape[2] == 0:
        return best
    for (ids, c), (_, mu) in zip(zone_sums(zones, counts), zone_sums(zones, expected), strict=True):
        excess = (c >= least_cases) & (c > mu * (1.0 + EXCESS)) & zones.scored[ids, None, None]
        at = np.nonzero(excess)
        llr = np.zeros(c.shape)
        llr[at] = log_likelihood_ratio(c[at], mu[at], None if totals is None else totals[at[1]])
        window = np.argmax(llr, axis=2)
        pick = window[:, :, None]
        best.llr[ids] = np.take_along_axis(llr, pick, axis=2)[:, :, 0]
        best.observed[ids] = np.take_along_axis(c, pick, axis=2)[:, :, 0]
        best.expected[ids] = np.take_along_axis(mu, pick, axis=2)[:, :, 0]
        best.window[ids] = window
    return best


def largest(
    zones: Zones, counts: FloatArray, expected: FloatArray, totals: FloatArray, least_cases: int, floor: float
) -> FloatArray:
    """Largest ratio of each series, ``[series]``, where it is `floor` at least; anything less, or 0, elsewhere.

    The arguments are those of :func:`best_of_zones`. A ratio is d^2 (1 / (2 mu) + 1 / (C - mu)) at most, d being the
    excess (:meth:`Null.least_for`): a few products tell of nearly all counts that they need no logarithm.
    """
    best = np.zeros(counts.shape[1])
    for (ids, c), (_, mu) in zip(zone_sums(zones, counts), zone_sums(zones, expected), strict=True):
        room = totals[:, None] - mu
        excess = c - mu
        bound = room + 2.0 * mu
        bound *= excess
        bound *= excess
        room *= mu
        room *= 2.0 * floor * (1.0 - EXCESS)
        may = bound >= room
        may &= c >= least_cases
        may &= excess > 0.0
        zone, series, window = np.unravel_index(np.flatnonzero(may), may.shape)
        cases, usual = c[zone, series, window], mu[zone, series, window]
        ratio = log_likelihood_ratio(cases, usual, totals[series])
        counted = (cases > usual * (1.0 + EXCESS)) & zones.scored[ids][zone]
        np.maximum.at(best, series[counted], ratio[counted])
    return best


def non_overlapping(zones: Zones, llr: FloatArray, clusters: int) -> IntArray:
    """Zones of the most likely cluster and of the next ones that share no region with those before.

    Parameters
    ----------
    zones
        Catalogue.
    llr
        Best of each zone, ``[zones, series]``.
    clusters
        Clusters to find.

    Returns
    -------
    IntArray
        ``[series, clusters]``; -1 where there are no more. Of equals the smallest zone is taken.
    """
    found = np.full((llr.shape[1], clusters), -1)
    series = np.arange(llr.shape[1])
    taken = np.zeros((zones.n_regions, llr.shape[1]), dtype=np.bool_)
    open_ = llr
    for place in range(clusters):
        zone = np.argmax(open_, axis=0)
        zone = np.where(open_[zone, series] > 0, zone, -1)
        found[:, place] = zone
        if place + 1 == clusters or not np.any(zone >= 0):
            break
        while np.any(zone >= 0):
            rows = np.flatnonzero(zone >= 0)
            taken[zones.added[zone[rows]], rows] = True
            zone[rows] = zones.parent[zone[rows]]
        open_ = np.where(_touching(zones, taken), 0.0, llr)
    return found


def _touching(zones: Zones, taken: BoolArray) -> BoolArray:
    """Which zones hold a region that is taken, ``[zones, series]``."""
    touching = taken[zones.added]
    for ids in list(zones.by_size())[1:]:
        touching[ids] |= touching[zones.parent[ids]]
    return touching


# --- replicates -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Null:
    """What the replicates of one series have in common.

    Attributes
    ----------
    expected
        Of every zone and window, ``[zones, windows]``.
    total
        All cases; None for the expectation-based ratio.
    least
        Smallest count that is an excess, ``[zones, windows]``, in the type that the replicates' counts have.
    """

    expected: FloatArray
    total: float | None
    least: Counts

    @classmethod
    def of(cls, zones: Zones, expected: FloatArray, total: float | None, least_cases: int) -> Null:
        """Prepare the replicates of a series with sums over windows `expected`, ``[regions, windows]``."""
        over_zones = np.concatenate([sums for _, sums in zone_sums(zones, expected)])
        least = np.maximum(np.floor(over_zones * (1.0 + EXCESS)) + 1.0, least_cases)
        least[~zones.scored] = np.inf
        if total is not None:
            largest = total
        else:  # no Poisson count comes near this
            widest = float(expected.sum(axis=0).max(initial=0.0))
            largest = widest + 60.0 * widest**0.5 + 1_000.0
        return cls(over_zones, total, _narrow(least, np.min_scalar_type(-int(largest) - 2)))

    def least_for(self, llr: float) -> Counts:
        """Counts under which a zone and window cannot reach `llr`: not the largest such, but quickly found.

        With d = c - mu the ratio is at most d^2 (1 / (2 mu) + 1 / (C - mu)), since (1 + u) ln(1 + u) - u <=
        u^2 / 2 and x + (1 - x) ln(1 - x) <= x^2.
        """
        mu = np.maximum(self.expected, LEAST_EXPECTED)
        rest = 0.0 if self.total is None else 1.0 / np.maximum(self.total - mu, LEAST_EXPECTED)
        count = mu + np.sqrt(llr / (0.5 / mu + rest))
        return np.maximum(self.least, _narrow(np.ceil(count * (1.0 - EXCESS)), self.least.dtype))


def maxima(zones: Zones, null: Null, counts: Counts, least: Counts) -> FloatArray:
    """Largest ratio of each replicate among the zones and windows whose counts reach `least`; 0 if none does.

    Parameters
    ----------
    zones, null
        Catalogue, and what the replicates have in common.
    counts
        Sums over windows, ``[regions, replicates, windows]``.
    least
        ``null.least``, or ``null.least_for(...)``: most counts are then dismissed by one comparison.
    """
    best = np.zeros(counts.shape[1])
    for ids, c in zone_sums(zones, counts):
        hit = np.flatnonzero(c >= least[ids, None, :])
        if hit.size:
            zone, replicate, window = np.unravel_index(hit, c.shape)
            cases, mu = c.ravel()[hit].astype(np.float64), null.expected[ids][zone, window]
            np.maximum.at(best, replicate, log_likelihood_ratio(cases, mu, null.total))
    return best


def _narrow(values: FloatArray, dtype: np.dtype[Any]) -> Counts:
    """Convert to whole numbers of a type, its largest (or 2**62) standing for all that is beyond."""
    return np.asarray(np.minimum(values, min(np.iinfo(dtype).max, 2**62)).astype(dtype))
