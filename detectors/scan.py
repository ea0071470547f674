"""Space-time scan: do the latest cases crowd somewhere, in some group of regions and for some time?

Kulldorff (2001), "Prospective time periodic geographical disease surveillance using a scan statistic",
*Journal of the Royal Statistical Society A* 164, 61-72: of all cylinders, a zone of regions for the last 1, 2,
... time units, the one with the largest log-likelihood ratio is the most likely cluster. Three expectations:

- :func:`permutation_scan` (Kulldorff et al. 2005, *PLoS Medicine* 2:e59) needs cases only: a region has its
  share of all cases, a day its own, mu = C_z C_d / C. It cannot see a rise everywhere at once.
- :func:`expectation_scan` (Neill 2006, *Detection of Spatial and Spatio-Temporal Clusters*, Carnegie Mellon)
  holds the cases against forecasts, and sees that too: LLR = c ln(c / mu) + mu - c.
- :func:`conditional_scan` (Kulldorff's discrete Poisson model) shares out the cases seen by population at risk.

The first and the third: LLR = c ln(c / mu) + (C - c) ln((C - c) / (C - mu)), c cases of C in the cylinder and
mu expected, for c > mu. As the best of many cylinders is judged by the best of as many in each replicate, the
p-value allows for all the looking around in one tick (not for the ticks: see the recurrence interval).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import LARGEST_COUNT, FloatArray, as_counts
from detectors.scan_pass import Windows, largest
from detectors.scan_replicates import Sampler, multinomial_sampler, permutation_sampler, poisson_sampler
from detectors.scan_run import Prepared, ScanEvidence, ScanOptions, run_scan, side_by_side
from detectors.scan_zones import Zones

__all__ = [
    "ScanEvidence",
    "ScanOptions",
    "conditional_scan",
    "expectation_scan",
    "permutation_scan",
    "permutation_screen",
]


def permutation_scan(
    counts: npt.ArrayLike,
    zones: Zones,
    *,
    seed: npt.ArrayLike,
    strata: npt.ArrayLike | None = None,
    options: ScanOptions | None = None,
) -> ScanEvidence:
    """Scan by the space-time permutation statistic: no population, no forecast, cases only.

    Parameters
    ----------
    counts
        Whole numbers of cases, ``[series, regions, time]``, oldest first. The history before the longest
        window says what is usual: some months of it.
    zones
        From :mod:`detectors.scan_zones`.
    seed
        Whole number from 0, one or ``[series]``, that the replicates hang on: derive it from the data (the
        tick, the series' key), so that a replay draws the same.
    strata
        Stratum of each time, such as its day of the week, ``[time]``: then mu is summed over strata, and cases
        swap times within theirs. Regions that rest on Sundays are then no news on Mondays.
    options
        Windows, replicates and so on.

    Returns
    -------
    ScanEvidence
        ``relative_risk`` is observed over expected.

    Raises
    ------
    DetectorError
        If counts are not whole numbers, shapes disagree, or a seed is none.

    Examples
    --------
    >>> from detectors.scan_zones import nearest_zones
    >>> zones = nearest_zones([[0.0], [1.0], [5.0]], geographic=False)
    >>> cases = [[[1, 0, 1, 0, 1, 4], [0, 1, 0, 1, 0, 3], [4, 3, 4, 5, 4, 1]]]
    >>> found = permutation_scan(cases, zones, seed=1)
    >>> zones.members(found.zone[0, 0]).tolist(), int(found.start[0, 0]), found.llr[0, 0].round(6).tolist()
    ([0, 1], 5, 2.347196)
    """
    y = _whole_counts(counts, zones)
    labels = np.zeros(y.shape[2], dtype=np.int64) if strata is None else np.asarray(strata)
    if labels.shape != (y.shape[2],):
        raise DetectorError(f"strata: expected {y.shape[2]} labels, one a time, found shape {labels.shape}")
    labels = np.unique(labels, return_inverse=True)[1].reshape(-1)

    def prepare(rows: slice, windows: Windows, keep: int) -> Prepared:
        part = y[rows]
        expected = np.zeros((*part.shape[:2], windows.end.size))
        for stratum in range(int(labels.max(initial=-1)) + 1):
            expected += _shared_out(np.where(labels == stratum, part, 0.0), windows)
        totals = part.sum(axis=(1, 2))

        def sampler(row: int, rng: np.random.Generator) -> Sampler:
            return permutation_sampler(part[row].astype(np.int64), keep, labels, rng)

        return Prepared(windows.sums(part), expected, totals, totals > 0, sampler)

    return run_scan(y.shape, zones, seed, prepare, options)


def permutation_screen(
    counts: npt.ArrayLike, zones: Zones, *, floor: float, options: ScanOptions | None = None
) -> FloatArray:
    """Which series are worth a :func:`permutation_scan`: their largest ratio, where that is `floor` at least.

    Only sums are looked at, no replicates are drawn, and most zones and windows are dismissed by a comparison. The
    columns before the longest window may be added up to one.

    Parameters
    ----------
    counts, zones, options
        As for :func:`permutation_scan`, without strata; only windows that end with the last column.
    floor
        Ratio, above 0, under which a series' figure may be anything less than it.

    Returns
    -------
    FloatArray
        The largest log-likelihood ratio, ``[series]``, to the last bit that of :func:`permutation_scan`.

    Raises
    ------
    DetectorError
        If counts are not whole numbers, or the zones are of other regions.
    """
    y, chosen = _whole_counts(counts, zones), options or ScanOptions()
    if not floor > 0.0:
        raise DetectorError(f"floor: must be above 0, found {floor!r}")
    best = np.zeros(y.shape[0])
    windows = Windows.of(y.shape[2], chosen.longest, retrospective=False)
    step = side_by_side(zones, windows) if windows.end.size else 1
    for begin in range(0, y.shape[0], step):
        part = y[begin : begin + step]
        cases, usual = (
            np.ascontiguousarray(sums.transpose(1, 0, 2)) for sums in (windows.sums(part), _shared_out(part, windows))
        )
        totals = part.sum(axis=(1, 2))
        best[begin : begin + step] = largest(zones, cases, usual, totals, chosen.least_cases, floor)
    return best


def _shared_out(part: FloatArray, windows: Windows) -> FloatArray:
    """Cases of each window ``[series, regions, windows]`` if every region had its share of all cases in it."""
    by_region, by_time = part.sum(axis=2), part.sum(axis=1)
    share = by_region / np.maximum(by_region.sum(axis=1, keepdims=True), 1.0)
    return np.asarray(share[:, :, None] * windows.sums(by_time)[:, None, :])


def expectation_scan(
    counts: npt.ArrayLike,
    expected: npt.ArrayLike,
    zones: Zones,
    *,
    seed: npt.ArrayLike,
    options: ScanOptions | None = None,
) -> ScanEvidence:
    """Scan by the expectation-based Poisson statistic: cases against forecasts.

    Parameters
    ----------
    counts, zones, seed, options
        As for :func:`permutation_scan`; no history is needed, the forecasts stand for it.
    expected
        Forecast cases, ``[series, regions, time]``, not negative.

    Returns
    -------
    ScanEvidence
        ``relative_risk`` is observed over expected.

    Raises
    ------
    DetectorError
        As :func:`permutation_scan`; also if expectations are negative or no numbers.

    Examples
    --------
    >>> from detectors.scan_zones import connected_zones
    >>> zones = connected_zones(3, [[0, 1], [1, 2]], most=3)
    >>> found = expectation_scan([[[1, 2, 9], [2, 1, 7], [1, 1, 2]]], np.full((1, 3, 3), 1.5), zones, seed=1)
    >>> zones.members(found.zone[0, 0]).tolist(), round(float(found.llr[0, 0]), 6), float(found.p_value[0, 0])
    ([0, 1], 13.783623, 0.01)
    """
    y = _whole_counts(counts, zones)
    forecast = _expectations(expected, y)

    def prepare(rows: slice, windows: Windows, keep: int) -> Prepared:
        part = forecast[rows]

        def sampler(row: int, rng: np.random.Generator) -> Sampler:
            return poisson_sampler(part[row], keep, rng)

        defined = np.any(part > 0, axis=(1, 2)) & np.any(y[rows] > 0, axis=(1, 2))
        return Prepared(windows.sums(y[rows]), windows.sums(part), None, defined, sampler)

    return run_scan(y.shape, zones, seed, prepare, options)


def conditional_scan(
    counts: npt.ArrayLike,
    population: npt.ArrayLike,
    zones: Zones,
    *,
    seed: npt.ArrayLike,
    options: ScanOptions | None = None,
) -> ScanEvidence:
    """Scan by Kulldorff's discrete Poisson statistic: the cases seen, shared out by population at risk.

    Parameters
    ----------
    counts, zones, seed, options
        As for :func:`permutation_scan`.
    population
        Population at risk, or expected cases, on any scale, ``[series, regions, time]``, not negative.

    Returns
    -------
    ScanEvidence
        ``relative_risk`` is the rate inside over the rate outside.

    Raises
    ------
    DetectorError
        As :func:`expectation_scan`.

    Examples
    --------
    >>> from detectors.scan_zones import connected_zones
    >>> zones = connected_zones(3, [[0, 1], [1, 2]], most=2)
    >>> found = conditional_scan([[[1, 2, 9], [2, 1, 7], [1, 1, 2]]], np.ones((1, 3, 3)), zones, seed=1)
    >>> zones.members(found.zone[0, 0]).tolist(), round(float(found.llr[0, 0]), 6)
    ([0, 1], 9.255143)
    """
    y = _whole_counts(counts, zones)
    at_risk = _expectations(population, y)

    def prepare(rows: slice, windows: Windows, keep: int) -> Prepared:
        totals = y[rows].sum(axis=(1, 2))
        people = np.cumsum(at_risk[rows].reshape(totals.size, -1), axis=1)[:, -1:]  # in one order for any batch
        scale = np.divide(totals[:, None], people, out=np.zeros_like(people), where=people > 0)
        part = at_risk[rows] * scale[:, :, None]

        def sampler(row: int, rng: np.random.Generator) -> Sampler:
            return multinomial_sampler(part[row], keep, int(totals[row]), rng)

        return Prepared(windows.sums(y[rows]), windows.sums(part), totals, scale[:, 0] > 0, sampler)

    return run_scan(y.shape, zones, seed, prepare, options, in_and_out=True)


# --- checks ---------------------------------------------------------------------------------------------------


def _whole_counts(counts: npt.ArrayLike, zones: Zones) -> FloatArray:
    y = as_counts(counts, "counts", ndim=3)
    if y.shape[1] != zones.n_regions:
        raise DetectorError(f"counts: {y.shape[1]} regions, but the zones are of {zones.n_regions}")
    if np.any(y != np.floor(y)) or np.any(y.sum(axis=(1, 2)) > LARGEST_COUNT):
        raise DetectorError("counts: must be whole numbers, at most 2**53 a series")
    return y


def _expectations(expected: npt.ArrayLike, y: FloatArray) -> FloatArray:
    mu = as_counts(expected, "expected", ndim=3)
    if mu.shape != y.shape:
        raise DetectorError(f"expected: shape {mu.shape} differs from that of counts, {y.shape}")
    if np.any(mu.sum(axis=(1, 2)) > LARGEST_COUNT):
        raise DetectorError("expected: at most 2**53 a series; for a population, take thousands of people")
    return mu
