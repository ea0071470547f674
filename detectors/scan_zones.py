"""Zones of a space-time scan: which groups of regions may form a cluster.

Three catalogues of zones. :func:`nearest_zones` draws circles of growing radius around every region, after
Kulldorff (1997), "A spatial scan statistic", *Communications in Statistics: Theory and Methods* 26,
1481-1496. :func:`connected_zones` takes every connected group of neighbouring regions up to a size, after
Tango and Takahashi (2005), "A flexibly shaped spatial scan statistic for detecting clusters",
*International Journal of Health Geographics* 4:11. :func:`ball_zones` grows circles by steps along the graph
of neighbours, for catalogues with too many regions for the second and no coordinates for the first.

A zone is stored as a smaller one and the region that it has more. Sums over all zones then cost one addition
each, size by size, and regions that stand in a hundred zones are not added up a hundred times. Zones are made
once for a catalogue of regions and serve every tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray

__all__ = ["Zones", "ball_zones", "connected_zones", "nearest_zones"]

EARTH_RADIUS_KM = 6371.0
"""Mean radius of the Earth."""

TIE = 1e-9
"""Two distances this close, as a share of the larger, are one: the last bits of a cosine order no regions."""

LARGEST_ZONES = 1_000_000
"""More connected zones than this are refused: one pass over them would hold gigabytes."""

BLOCK = 256
"""Centres whose distances to all regions are held at a time."""

Distances = Callable[[slice], FloatArray]
"""From a slice of centres to their distances from all regions, ``[centres, regions]``; infinite where out of reach."""


@dataclass(frozen=True, slots=True)
class Zones:
    """A catalogue of zones, without repeats, smaller ones first.

    Attributes
    ----------
    n_regions
        Regions in the catalogue.
    parent
        Zone that each zone extends by one region, ``[zones]``; -1 for a single region.
    added
        The region that it has more than its parent, ``[zones]``.
    start
        First zone of each size, ``[sizes + 1]``: the zones of k regions are ``start[k - 1] : start[k]``.
    scored
        Whether the zone may be a cluster, ``[zones]``; False for a step between two circles, where regions at
        one distance have not all joined.
    """

    n_regions: int
    parent: IntArray
    added: IntArray
    start: IntArray
    scored: BoolArray

    def __len__(self) -> int:
        """Zones that may be a cluster."""
        return int(np.count_nonzero(self.scored))

    def members(self, zone: int) -> IntArray:
        """Regions of a zone in ascending order; none for -1."""
        found = []
        while zone >= 0:
            found.append(self.added[zone])
            zone = int(self.parent[zone])
        return np.array(sorted(found), dtype=np.int64)

    def by_size(self) -> Iterator[slice]:
        """Slices of the zones of one region, two, three, ..."""
        for first, last in zip(self.start[:-1].tolist(), self.start[1:].tolist(), strict=True):
            yield slice(first, last)


def nearest_zones(
    coordinates: npt.ArrayLike,
    *,
    most: int = 50,
    radius: float = np.inf,
    weights: npt.ArrayLike | None = None,
    share: float = 0.5,
    geographic: bool = True,
) -> Zones:
    """Take the circles around every region: the region itself, then with its nearest, then with its two nearest, ...

    Parameters
    ----------
    coordinates
        ``[regions, 2]``, latitude and longitude in degrees; if not `geographic`, Cartesian, ``[regions, axes]``.
    most
        Regions in a zone at most; 50 to 100 keep 3,000 districts cheap.
    radius
        Farthest region from the centre, in km; in the unit of the coordinates if they are Cartesian.
    weights
        Population, or whatever `share` is a share of, ``[regions]``.
    share
        Part of all `weights` that a zone may hold.
    geographic
        Whether distances are great circles on the Earth.

    Returns
    -------
    Zones
        A single region is always a zone. Regions at one distance from the centre join together, so the order
        in which regions are listed touches nothing.

    Raises
    ------
    DetectorError
        If coordinates or weights are no finite numbers, or an option is out of range.

    Examples
    --------
    >>> zones = nearest_zones([[0.0], [1.0], [3.0]], geographic=False)
    >>> [zones.members(zone).tolist() for zone in range(len(zones))]
    [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]]
    """
    points = _coordinates(coordinates, geographic)

    def distances(centres: slice) -> FloatArray:
        square = np.zeros((points[centres].shape[0], points.shape[0]))
        for axis in points.T:  # axis by axis: a matrix product would cost near neighbours their digits
            square += (axis[centres, None] - axis[None, :]) ** 2
        distance = np.sqrt(square)
        if geographic:
            distance = 2.0 * EARTH_RADIUS_KM * np.arcsin(np.minimum(distance / 2.0, 1.0))
        return np.where(distance <= radius * (1.0 + TIE), distance, np.inf)

    if not radius >= 0:
        raise DetectorError(f"radius: must not be negative, found {radius!r}")
    return _circles(distances, points.shape[0], most, weights, share)


def ball_zones(
    n_regions: int,
    edges: npt.ArrayLike,
    *,
    most: int = 50,
    weights: npt.ArrayLike | None = None,
    share: float = 0.5,
) -> Zones:
    """Take the balls in the graph of neighbours: a region, then with its neighbours, then with theirs, ...

    Parameters
    ----------
    n_regions
        Regions in the catalogue, numbered from 0.
    edges
        Pairs of neighbours, ``[edges, 2]``, in either order; a region may have none.
    most, weights, share
        As for :func:`nearest_zones`.

    Raises
    ------
    DetectorError
        If an edge names no region, or an option is out of range.

    Examples
    --------
    >>> zones = ball_zones(4, [[0, 1], [1, 2]])
    >>> [zones.members(zone).tolist() for zone in np.flatnonzero(zones.scored)]
    [[0], [1], [2], [3], [0, 1], [1, 2], [0, 1, 2]]
    """
    first, flat = _neighbours(n_regions, edges, themselves=True)

    def distances(centres: slice) -> FloatArray:
        rows = np.arange(n_regions)[centres]
        hops = np.full((rows.size, n_regions), np.inf)
        hops[np.arange(rows.size), rows] = 0.0
        for hop in range(1, n_regions):
            within = np.isfinite(hops)
            reached = np.logical_or.reduceat(within[:, flat], first[:-1], axis=1) & ~within
            if not np.any(reached & (within.sum(axis=1, keepdims=True) <= most)):
                break
            hops[reached] = hop
        return hops

    return _circles(distances, n_regions, most, weights, share)


def connected_zones(n_regions: int, edges: npt.ArrayLike, *, most: int) -> Zones:
    """Take every connected group of at most `most` regions.

    Sixteen districts have some thousands of such groups; a larger graph needs a smaller `most`.

    Parameters
    ----------
    n_regions
        Regions in the catalogue, numbered from 0.
    edges
        Pairs of neighbours, ``[edges, 2]``, in either order; a region may have none.
    most
        Regions in a zone at most.

    Raises
    ------
    DetectorError
        If an edge names no region, `most` is under 1, or there are about a million such groups or more.

    Examples
    --------
    >>> zones = connected_zones(4, [[0, 1], [1, 2]], most=3)
    >>> [zones.members(zone).tolist() for zone in range(len(zones))]
    [[0], [1], [2], [3], [0, 1], [1, 2], [0, 1, 2]]
    """
    first, flat = _neighbours(n_regions, edges, themselves=False)
    if most < 1:
        raise DetectorError(f"most: must be at least 1, found {most}")
    degree = np.diff(first)
    sets = np.arange(n_regions)[:, None]
    parents, added, sizes = [np.full(n_regions, -1)], [np.arange(n_regions)], [n_regions]
    while sets.shape[1] < most:
        reach = degree[sets].sum(axis=1)
        if sum(sizes) > LARGEST_ZONES or reach.sum() > 6 * LARGEST_ZONES:
            raise DetectorError(
                f"most: {most} gives about {LARGEST_ZONES} connected zones or more; lower it, or use ball_zones"
            )
        zone = np.repeat(np.arange(reach.size), reach)
        other = flat[_ranges(first[sets.ravel()], degree[sets.ravel()])]
        outside = ~np.any(sets[zone] == other[:, None], axis=1)
        zone, other = zone[outside], other[outside]
        if zone.size == 0:
            break
        wider = np.sort(np.concatenate([sets[zone], other[:, None]], axis=1), axis=1)
        once, _ = _distinct(wider)
        parents.append(zone[once] + sum(sizes[:-1]))
        added.append(other[once])
        sizes.append(once.size)
        sets = wider[once]
    return _frozen(n_regions, parents, added, [np.ones(size, dtype=np.bool_) for size in sizes])


def _circles(distances: Distances, n_regions: int, most: int, weights: npt.ArrayLike | None, share: float) -> Zones:
    """Zones of the regions in the order of their distance from each centre, whole circles only."""
    if n_regions < 1 or most < 1 or not 0.0 < share <= 1.0:
        raise DetectorError("zones: at least one region, most at least 1, share over 0 and up to 1")
    weight = np.zeros(n_regions) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != (n_regions,) or not np.all((weight >= 0) & np.isfinite(weight)):
        raise DetectorError(f"weights: expected {n_regions} finite numbers, none negative")
    cap = share * float(weight.sum()) * (1.0 + TIE)
    width = min(most, n_regions)
    order = np.empty((n_regions, width), dtype=np.int64)
    whole = np.zeros((n_regions, width), dtype=np.bool_)
    for begin in range(0, n_regions, BLOCK):
        rows = np.arange(begin, min(begin + BLOCK, n_regions))
        far = distances(slice(begin, begin + BLOCK))
        far[np.arange(rows.size), rows] = -1.0  # the centre comes first, even where another region lies on it
        near = np.argsort(far, axis=1, kind="stable")[:, : width + 1]
        reach = np.take_along_axis(far, near, axis=1)
        beyond = np.concatenate([reach[:, 1:], np.full((rows.size, 1), np.inf)], axis=1)[:, :width]
        near, reach = near[:, :width], reach[:, :width]
        inside = np.isfinite(reach) & (np.cumsum(weight[near], axis=1) <= cap)
        order[rows] = near
        whole[rows] = inside & ~(reach >= beyond * (1.0 - TIE))
    whole[:, 0] = True
    return _chains(n_regions, order, whole)


def _chains(n_regions: int, order: IntArray, whole: BoolArray) -> Zones:
    """Zones from one chain of regions a centre, ``[centres, size]``; `whole` says which beginnings are zones."""
    width = order.shape[1]
    length = width - np.argmax(whole[:, ::-1], axis=1)
    node = np.full(order.shape[0], -1)
    parents, added, scored, made = [], [], [], 0
    for size in range(1, width + 1):
        rows = np.flatnonzero(length >= size)
        if rows.size == 0:
            break
        once, same = _distinct(np.sort(order[rows, :size], axis=1))
        is_zone = np.zeros(once.size, dtype=np.bool_)
        np.logical_or.at(is_zone, same, whole[rows, size - 1])
        parents.append(node[rows[once]])
        added.append(order[rows[once], size - 1])
        scored.append(is_zone)
        node[rows] = made + same
        made += once.size
    return _frozen(n_regions, parents, added, scored)


def _distinct(rows: IntArray) -> tuple[IntArray, IntArray]:
    """First place of each distinct row, in lexicographic order, and for each row which of them it is."""
    order = np.lexsort(rows.T[::-1])
    ordered = rows[order]
    new = np.ones(order.size, dtype=np.bool_)
    new[1:] = np.any(ordered[1:] != ordered[:-1], axis=1)
    same = np.empty(order.size, dtype=np.int64)
    same[order] = np.cumsum(new) - 1
    return order[new], same


def _frozen(n_regions: int, parents: list[IntArray], added: list[IntArray], scored: list[BoolArray]) -> Zones:
    """Join the sizes, and make the arrays read-only: zones are shared by all ticks."""
    start = np.concatenate([[0], np.cumsum([part.size for part in added])]).astype(np.int64)
    arrays = np.concatenate(parents).astype(np.int64), np.concatenate(added).astype(np.int64), start
    marks = np.concatenate(scored)
    for array in (*arrays, marks):
        array.flags.writeable = False
    return Zones(n_regions, *arrays, marks)


def _coordinates(coordinates: npt.ArrayLike, geographic: bool) -> FloatArray:
    """Points as float64, ``[regions, axes]``; on the unit sphere where geographic."""
    try:
        points = np.asarray(coordinates, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DetectorError(f"coordinates: not an array of numbers ({error})") from None
    if points.ndim != 2 or points.shape[0] < 1 or points.shape[1] < 1 or not np.all(np.isfinite(points)):
        raise DetectorError("coordinates: expected finite numbers, [regions, axes]")
    if not geographic:
        return points
    if points.shape[1] != 2 or np.any(np.abs(points) > (90.0, 360.0)):
        raise DetectorError("coordinates: expected latitude and longitude in degrees, [regions, 2]")
    latitude, longitude = np.radians(points).T
    across = np.cos(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], axis=1)


def _neighbours(n_regions: int, edges: npt.ArrayLike, *, themselves: bool) -> tuple[IntArray, IntArray]:
    """Each region's neighbours in ascending order: those of region i are ``flat[first[i] : first[i + 1]]``."""
    if n_regions < 1:
        raise DetectorError("n_regions: at least 1")
    pairs = np.asarray(edges)
    pairs = pairs.reshape(0, 2) if pairs.size == 0 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2 or (pairs.size and pairs.dtype.kind not in "iu"):
        raise DetectorError("edges: expected pairs of region numbers, [edges, 2]")
    if np.any((pairs < 0) | (pairs >= n_regions)):
        raise DetectorError(f"edges: regions are numbered from 0 to {n_regions - 1}")
    pairs = pairs.astype(np.int64)[pairs[:, 0] != pairs[:, 1]]
    own = np.repeat(np.arange(n_regions)[:, None], 2, axis=1) if themselves else np.empty((0, 2), np.int64)
    both = np.concatenate([pairs, pairs[:, ::-1], own])
    both = both[_distinct(both)[0]]
    first = np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=n_regions))])
    return first.astype(np.int64), both[:, 1]


def _ranges(begin: IntArray, length: IntArray) -> IntArray:
    """The numbers begin[i] .. begin[i] + length[i] - 1 for every i, one after the other."""
    before = np.cumsum(length) - length
    return np.asarray(np.repeat(begin - before, length) + np.arange(int(length.sum())))
