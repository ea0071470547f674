from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import DetectorError
from detectors.scan_zones import Zones, ball_zones, connected_zones, nearest_zones


def groups(zones: Zones) -> list[frozenset[int]]:
    """The zones that may be a cluster, in order, as sets."""
    return [frozenset(zones.members(zone).tolist()) for zone in np.flatnonzero(zones.scored)]


def circles(distance, most=10**9, radius=math.inf, weights=None, share=1.0):
    """By the definition: all regions within some distance of a centre."""
    n = len(distance)
    found = {frozenset([i]) for i in range(n)}
    for i in range(n):
        for reach in sorted(distance[i]):
            zone = frozenset(j for j in range(n) if distance[i][j] <= reach * (1 + 1e-9))
            light = weights is None or sum(weights[j] for j in zone) <= share * sum(weights) * (1 + 1e-9)
            if len(zone) <= most and reach <= radius and light:
                found.add(zone)
    return found


def connected(n, edges, most):
    """By the definition: all groups in which one can walk from any region to any other."""
    found = set()
    for code in range(1, 2**n):
        zone = {i for i in range(n) if code >> i & 1}
        if len(zone) > most:
            continue
        seen, todo = set(), [min(zone)]
        while todo:
            i = todo.pop()
            if i not in seen:
                seen.add(i)
                todo += [b if a == i else a for a, b in edges if i in (a, b) and {a, b} <= zone]
        if seen == zone:
            found.add(frozenset(zone))
    return found


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(1, 14), st.booleans())
def test_nearest_zones_are_the_circles_of_the_definition(seed, n, most, lattice):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 4, (n, 2)).astype(float) if lattice else rng.uniform(0, 9, (n, 2))
    weights = rng.uniform(0.1, 2.0, n)
    distance = np.array([[math.dist(a, b) for b in points] for a in points])
    radius = float(rng.uniform(1, 9))
    plain = groups(nearest_zones(points, most=most, geographic=False))
    assert len(plain) == len(set(plain))
    assert set(plain) == circles(distance, most)
    capped = nearest_zones(points, most=most, radius=radius, weights=weights, share=0.4, geographic=False)
    assert set(groups(capped)) == circles(distance, most, radius, weights, 0.4)


def test_geographic_distances_are_great_circles():
    towns = [[39.1256, 117.1901], [39.9042, 116.4074], [38.0428, 114.5149]]  # Tianjin, Beijing, Shijiazhuang

    def haversine(a, b):
        (la, lo), (lb, lp) = np.radians(a), np.radians(b)
        h = math.sin((lb - la) / 2) ** 2 + math.cos(la) * math.cos(lb) * math.sin((lp - lo) / 2) ** 2
        return 2 * 6371.0 * math.asin(math.sqrt(h))

    far = haversine(towns[0], towns[1])
    assert frozenset({0, 1}) in groups(nearest_zones(towns, radius=far * (1 + 1e-12)))
    assert frozenset({0, 1}) not in groups(nearest_zones(towns, radius=far - 1e-6))
    across_the_date_line = [[0.0, 179.9], [0.0, -179.9], [0.0, 178.0]]
    assert frozenset({0, 1}) in groups(nearest_zones(across_the_date_line, most=2))
    assert frozenset({1, 2}) not in groups(nearest_zones(across_the_date_line, most=2))


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.6))
def test_connected_zones_are_those_of_the_definition(seed, n, most, density):
    rng = np.random.default_rng(seed)
    edges = [(i, j) for i in range(n) for j in range(i) if rng.random() < density]
    found = groups(connected_zones(n, edges, most=most))
    assert len(found) == len(set(found))
    assert set(found) == connected(n, edges, most)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(1, 12), st.integers(1, 12), st.floats(0, 0.4))
def test_ball_zones_hold_all_within_so_many_steps(seed, n, most, density):
    rng = np.random.default_rng(seed)
    edges = [(i, j) for i in range(n) for j in range(i) if rng.random() < density]
    steps = np.full((n, n), np.inf)
    np.fill_diagonal(steps, 0)
    for a, b in edges:
        steps[a, b] = steps[b, a] = 1
    for k in range(n):
        steps = np.minimum(steps, steps[:, k : k + 1] + steps[k : k + 1])
    expected = circles(np.where(np.isinf(steps), 1e6, steps), most, radius=1e5)
    assert set(groups(ball_zones(n, edges, most=most))) == expected


@pytest.mark.parametrize("make", ["nearest", "connected", "ball"])
def test_zones_do_not_hang_on_the_order_in_which_regions_and_edges_are_listed(make):
    rng = np.random.default_rng(4)
    grid = np.array([[i, j] for i in range(5) for j in range(5)], dtype=float)
    edges = np.array([(i, j) for i in range(25) for j in range(i) if math.dist(grid[i], grid[j]) == 1])
    order = rng.permutation(25)  # the new number of an old region is its place in the order
    place = np.argsort(order)

    def build(points, pairs):
        if make == "nearest":
            return nearest_zones(points, most=12, geographic=False)
        return (connected_zones if make == "connected" else ball_zones)(25, pairs, most=5)

    plain = groups(build(grid, edges))
    shuffled = groups(build(grid[order], rng.permutation(place[edges])[:, ::-1]))
    assert {frozenset(order[list(zone)].tolist()) for zone in shuffled} == set(plain)


def test_a_zone_is_a_smaller_one_and_one_region_more():
    zones = connected_zones(6, [(0, 1), (1, 2), (2, 3), (1, 4)], most=4)
    for size, ids in enumerate(zones.by_size(), 1):
        for zone in range(ids.start, ids.stop):
            own = zones.members(zone)
            assert own.size == size
            assert sorted([*zones.members(int(zones.parent[zone])), zones.added[zone]]) == own.tolist()
    assert zones.members(-1).size == 0
    assert len(zones) == zones.parent.size == zones.start[-1]
    with pytest.raises(ValueError, match="read-only"):
        zones.parent[0] = 3


def test_regions_on_one_spot_and_regions_without_neighbours_have_their_own_zone():
    same = groups(nearest_zones([[1.0, 1.0]] * 3 + [[2.0, 2.0]], geographic=False))
    assert set(same) == {frozenset(z) for z in ([0], [1], [2], [3], [0, 1, 2], [0, 1, 2, 3])}
    assert groups(connected_zones(3, [], most=3)) == [frozenset([i]) for i in range(3)]
    assert groups(ball_zones(3, np.empty((0, 2), int))) == [frozenset([i]) for i in range(3)]
    assert groups(nearest_zones([[5.0, 5.0]])) == groups(connected_zones(1, [[0, 0]], most=1)) == [frozenset([0])]
    heavy = nearest_zones([[0.0], [1.0], [2.0]], weights=[98.0, 1.0, 1.0], share=0.5, geographic=False)
    assert set(groups(heavy)) == {frozenset(z) for z in ([0], [1], [2], [1, 2])}


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: nearest_zones([[np.nan, 1.0]]), "coordinates"),
        (lambda: nearest_zones([[91.0, 1.0]]), "coordinates"),
        (lambda: nearest_zones([["north", "east"]]), "coordinates"),
        (lambda: nearest_zones(np.empty((0, 2))), "coordinates"),
        (lambda: nearest_zones([[1.0, 1.0]], most=0), "most"),
        (lambda: nearest_zones([[1.0, 1.0]], radius=-1.0), "radius"),
        (lambda: nearest_zones([[1.0, 1.0]], share=0.0), "share"),
        (lambda: nearest_zones([[1.0, 1.0]], weights=[np.nan]), "weights"),
        (lambda: connected_zones(2, [[0, 2]], most=2), "edges"),
        (lambda: connected_zones(2, [[0, -1]], most=2), "edges"),
        (lambda: connected_zones(2, [[0.5, 1.0]], most=2), "edges"),
        (lambda: connected_zones(2, [0, 1], most=2), "edges"),
        (lambda: connected_zones(2, [[0, 1]], most=0), "most"),
        (lambda: ball_zones(0, []), "n_regions"),
        (lambda: connected_zones(40, [(i, j) for i in range(40) for j in range(i)], most=12), "most"),
    ],
)
def test_what_makes_no_zones_is_refused_by_name(make, word):
    with pytest.raises(DetectorError, match=word):
        make()
