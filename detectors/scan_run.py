"""The run of a space-time scan: batches of series through the pass, then each series' replicates.

What the three scans of :mod:`detectors.scan` share: options, evidence, and the order of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray
from detectors.scan_pass import Null, Windows, best_of_zones, maxima, non_overlapping
from detectors.scan_replicates import Sampler
from detectors.scan_significance import besag_clifford_length, gumbel_p, monte_carlo_p, recurrence_interval
from detectors.scan_zones import Zones

__all__ = ["Prepared", "ScanEvidence", "ScanOptions", "run_scan", "side_by_side"]

BATCH = 1 << 18
"""Sums of one size of zones held at a time: series or replicates side by side, few enough to stay in the cache."""

BEST = 1 << 22
"""Zones times series whose best windows are held at a time."""

CASES = 1 << 22
"""Cells or cases times replicates drawn at a time."""

PILOT = 4
"""Replicates searched in full, to learn how large a maximum is."""

FLOOR = 0.6
"""Part of their least maximum under which later replicates are searched again, in full."""


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What a scan looks for, and how hard it tries to be sure.

    Attributes
    ----------
    longest
        Time units in a cluster at most.
    least_cases
        Fewer cases than this are no cluster.
    clusters
        Clusters to report for each series: the most likely, then others that share no region with it.
    replicates
        Monte Carlo replicates for a series that has any excess; 0 for none.
    stop_after
        End the replicates of a series once so many of them have reached its most likely cluster: what is
        clearly nothing is cheap. None for never.
    tick
        Time between two scans, the unit of the recurrence interval.
    retrospective
        Scan also windows that ended before the last column.
    """

    longest: int = 14
    least_cases: int = 2
    clusters: int = 3
    replicates: int = 99
    stop_after: int | None = None
    tick: float = 1.0
    retrospective: bool = False

    def __post_init__(self) -> None:
        for name, least in {"longest": 1, "least_cases": 1, "clusters": 1, "replicates": 0}.items():
            if getattr(self, name) < least:
                raise DetectorError(f"{name}: must be at least {least}, found {getattr(self, name)}")
        if self.stop_after is not None and self.stop_after < 1:
            raise DetectorError(f"stop_after: must be at least 1, or None, found {self.stop_after}")
        if not 0.0 < self.tick < 1e6:
            raise DetectorError(f"tick: must lie between 0 and 1e6, found {self.tick}")


@dataclass(frozen=True, slots=True)
class ScanEvidence:
    """Most likely cluster of each series first, then those that do not overlap; arrays ``[series, clusters]``.

    Attributes
    ----------
    zone
        Number of the zone, -1 where there is no (further) cluster; ``Zones.members(zone)`` are its regions.
    start, duration
        First column of the cluster, -1 for none; columns that it lasts, 0 for none.
    observed, expected
        Cases in the cluster; cases expected. 0 and NaN for none.
    relative_risk
        Rate inside over rate outside for :func:`conditional_scan`, observed over expected for the others; NaN
        for none, infinite where no case lies outside or none was expected.
    llr
        Log-likelihood ratio, 0 for none.
    p_value
        Monte Carlo: share of replicates whose most likely cluster is as strong. 1 for none, or no replicates.
    p_gumbel
        The same from the Gumbel law with the moments of the replicates' maxima.
    recurrence
        Time between such clusters by chance, in the unit of ``tick``:
        :func:`detectors.scan_significance.recurrence_interval`.
    replicates
        Replicates drawn, ``[series]``.
    null_mean, null_spread
        Mean and standard deviation of the replicates' maxima, ``[series]``; NaN without replicates.
    defined
        False where a series has no cases, or nothing is expected, ``[series]``.
    """

    zone: IntArray
    start: IntArray
    duration: IntArray
    observed: FloatArray
    expected: FloatArray
    relative_risk: FloatArray
    llr: FloatArray
    p_value: FloatArray
    p_gumbel: FloatArray
    recurrence: FloatArray
    replicates: IntArray
    null_mean: FloatArray
    null_spread: FloatArray
    defined: BoolArray


@dataclass(frozen=True, slots=True)
class Prepared:
    """Some series, ready to be scanned: sums over windows ``[series, regions, windows]``, and their samplers."""

    counts: FloatArray
    expected: FloatArray
    totals: FloatArray | None
    defined: BoolArray
    sampler: Callable[[int, np.random.Generator], Sampler]


def run_scan(
    shape: tuple[int, ...],
    zones: Zones,
    seed: npt.ArrayLike,
    prepare: Callable[[slice, Windows, int], Prepared],
    options: ScanOptions | None,
    *,
    in_and_out: bool = False,
) -> ScanEvidence:
    """Scan the series of a batch ``(series, regions, time)``, as many side by side as memory permits.

    Parameters
    ----------
    shape
        Of the counts.
    zones, seed, options
        As for :func:`detectors.scan.permutation_scan`.
    prepare
        From some series, the windows, and the last columns that replicates are needed for, to what is scanned.
    in_and_out
        Whether the relative risk compares with the rate outside the cluster.
    """
    series, regions, times = shape
    chosen = options or ScanOptions()
    seeds = _seeds(seed, series)
    evidence = _nothing(series, chosen)
    if times == 0:
        return evidence
    windows = Windows.of(times, chosen.longest, retrospective=chosen.retrospective)
    keep = times if chosen.retrospective else min(times, chosen.longest)
    kept = Windows.of(keep, chosen.longest, retrospective=chosen.retrospective)  # the same, in replicates
    cached = side_by_side(zones, windows)
    room = max(1, min(cached, BEST // zones.parent.size))
    for begin in range(0, series, room):
        rows = slice(begin, min(begin + room, series))
        batch = prepare(rows, windows, keep)
        _locate(evidence, rows, batch, zones, windows, chosen, in_and_out)
        for row in np.flatnonzero(evidence.zone[rows, 0] >= 0).tolist() if chosen.replicates else []:
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seeds[begin + row])))
            total = None if batch.totals is None else float(batch.totals[row])
            null = Null.of(zones, batch.expected[row], total, chosen.least_cases)
            block = max(1, min(cached, CASES // max(regions * keep, int(total or 0)), 128))
            top = float(evidence.llr[begin + row, 0])
            simulated, stopped = _simulate(zones, null, kept, batch.sampler(row, rng), block, top, chosen)
            _judge(evidence, begin + row, simulated, stopped, chosen)
    return evidence


def side_by_side(zones: Zones, windows: Windows) -> int:
    """Series, or replicates, whose sums over zones of one size stay in the cache together."""
    return max(1, BATCH // (int(np.diff(zones.start).max()) * windows.end.size))


def _locate(
    evidence: ScanEvidence,
    rows: slice,
    batch: Prepared,
    zones: Zones,
    windows: Windows,
    options: ScanOptions,
    in_and_out: bool,
) -> None:
    """Write where the clusters of a batch of series are, and how strong."""
    counts = np.where(batch.defined[:, None, None], batch.counts, 0.0)
    by_region = [np.ascontiguousarray(values.transpose(1, 0, 2)) for values in (counts, batch.expected)]
    best = best_of_zones(zones, by_region[0], by_region[1], batch.totals, options.least_cases)
    zone = non_overlapping(zones, best.llr, options.clusters)
    some = zone >= 0
    at = np.maximum(zone, 0), np.arange(zone.shape[0])[:, None]
    c, mu = np.where(some, best.observed[at], 0.0), np.where(some, best.expected[at], np.nan)
    outside = np.ones_like(c)
    if in_and_out and batch.totals is not None:
        rest = batch.totals[:, None]
        outside = (rest - c) / np.maximum(rest - mu, np.finfo(np.float64).tiny)
    start, end = windows.start[best.window[at]], windows.end[best.window[at]]
    evidence.zone[rows] = zone
    evidence.start[rows] = np.where(some, start, -1)
    evidence.duration[rows] = np.where(some, end - start, 0)
    evidence.observed[rows] = c
    evidence.expected[rows] = mu
    evidence.llr[rows] = np.where(some, best.llr[at], 0.0)
    evidence.defined[rows] = batch.defined
    with np.errstate(divide="ignore", over="ignore"):
        evidence.relative_risk[rows] = c / mu / outside


def _simulate(
    zones: Zones, null: Null, windows: Windows, draw: Sampler, block: int, top: float, options: ScanOptions
) -> tuple[FloatArray, bool]:
    """Largest ratio of each replicate, and whether `stop_after` of them reached `top` and ended it.

    The first few tell how large a maximum is: from then on, counts that cannot come near are passed over by a
    comparison, and a replicate in which none came near is searched again in full. The maxima are exact.
    """
    simulated = np.zeros(options.replicates)
    least = null.least
    for begin in range(0, options.replicates, block):
        drawn = windows.sums(draw(min(block, options.replicates - begin)))
        counts = np.ascontiguousarray(drawn.transpose(1, 0, 2).astype(least.dtype))
        found = simulated[begin : begin + block]
        searched = 0
        if begin == 0:
            searched = min(PILOT, found.size)
            found[:searched] = maxima(zones, null, counts[:, :searched], null.least)
            least = null.least_for(FLOOR * float(found[:searched].min()))
        found[searched:] = maxima(zones, null, counts[:, searched:], least)
        missed = searched + np.flatnonzero(found[searched:] == 0)
        if missed.size:
            found[missed] = maxima(zones, null, counts[:, missed], null.least)
        length = besag_clifford_length(top, simulated[: begin + found.size], options.stop_after)
        if length is not None:
            return simulated[:length], True
    return simulated, False


def _judge(evidence: ScanEvidence, row: int, simulated: FloatArray, stopped: bool, options: ScanOptions) -> None:
    """Write the p-values of one series' clusters."""
    some = evidence.zone[row] >= 0
    llr = evidence.llr[row, some]
    p_value = monte_carlo_p(llr, simulated, stopped=stopped)
    p_gumbel = gumbel_p(llr, simulated)
    evidence.p_value[row, some] = p_value
    evidence.p_gumbel[row, some] = p_gumbel
    evidence.recurrence[row, some] = recurrence_interval(
        p_value, p_gumbel, simulated.size, tick=options.tick, stopped=stopped
    )
    evidence.replicates[row] = simulated.size
    evidence.null_mean[row], evidence.null_spread[row] = np.mean(simulated), np.std(simulated)


def _nothing(series: int, options: ScanOptions) -> ScanEvidence:
    """Evidence of no cluster anywhere."""
    shape = (series, options.clusters)
    return ScanEvidence(
        zone=np.full(shape, -1),
        start=np.full(shape, -1),
        duration=np.full(shape, 0),
        observed=np.zeros(shape),
        expected=np.full(shape, np.nan),
        relative_risk=np.full(shape, np.nan),
        llr=np.zeros(shape),
        p_value=np.ones(shape),
        p_gumbel=np.ones(shape),
        recurrence=np.full(shape, options.tick),
        replicates=np.zeros(series, dtype=np.int64),
        null_mean=np.full(series, np.nan),
        null_spread=np.full(series, np.nan),
        defined=np.zeros(series, dtype=np.bool_),
    )


def _seeds(seed: npt.ArrayLike, series: int) -> list[int]:
    given = np.asarray(seed)
    if given.dtype.kind not in "iu" or given.shape not in ((), (series,)) or np.any(given < 0):
        raise DetectorError(f"seed: expected whole numbers from 0 on, one or {series}")
    return [int(value) for value in np.broadcast_to(given, (series,))]
