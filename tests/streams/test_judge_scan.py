"""Clusters of neighbouring districts: found where they stand, and only then."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from detectors.scan_significance import gumbel_tail, table_dispersion
from schemas.catalogue import Catalogue
from streams.cells import CellStore
from streams.config import ScanRules
from streams.judge_scan import ClusterScan

CATALOGUE = Catalogue.builtin("tianjin")
RULES = ScanRules()
TREE = CATALOGUE.regions
DISTRICTS = sorted(code for code in TREE.codes if TREE.neighbours(code))
CITY = TREE.path(DISTRICTS[0])[0]
DAY = 20_000


def cluster_of(size: int) -> list[str]:
    """Districts that hang together, the first with neighbours enough."""
    start = next(code for code in DISTRICTS if len(TREE.neighbours(code)) >= size)
    return sorted([start, *TREE.neighbours(start)[: size - 1]])


def world(seed: int, mean: float = 0.15, products: int = 4) -> np.ndarray:
    """Daily counts [products, districts, days] without a cluster."""
    return np.random.default_rng(seed).poisson(mean, (products, len(DISTRICTS), RULES.history_days))


def stored(counts: np.ndarray) -> tuple[CellStore, list[str]]:
    """The counts in a store, with the city above the districts; the last column is yesterday."""
    store = CellStore(1)
    products = [f"P{n}" for n in range(len(counts))]
    for product, table in zip(products, counts, strict=True):
        for code, daily in zip(DISTRICTS, table, strict=True):
            rows = np.array(store.rows_for((product,), (CITY, code)), np.intp)
            for at in np.flatnonzero(daily).tolist():
                day = np.full(len(rows), DAY - len(daily) + at, np.int32)
                store.fold(rows, day, np.full((len(rows), 1), daily[at]))
    return store, products


def found(counts: np.ndarray, rules: ScanRules = RULES) -> dict[str, list[str]]:
    store, products = stored(counts)
    findings = ClusterScan(CATALOGUE, rules).findings(store, products, DAY)
    return {"/".join(store.cells[one.row]): one.evidence[0].regions for one in findings}


@pytest.mark.parametrize("seed", range(6))
def test_chance_alone_rings_nothing(seed: int) -> None:
    assert found(world(seed, products=20)) == {}


def test_three_neighbours_that_rise_together_are_found_as_one_cluster_of_the_city() -> None:
    counts, members = world(1), cluster_of(3)
    counts[2, [DISTRICTS.index(code) for code in members], -7:] += 2
    assert found(counts) == {f"P2/{CITY}": members}


def test_one_district_that_rises_is_found_as_that_district() -> None:
    counts = world(2)
    counts[0, 4, -6:] += 4
    assert found(counts) == {f"P0/{DISTRICTS[4]}": [DISTRICTS[4]]}


def test_a_rise_of_the_whole_city_is_no_cluster() -> None:
    counts = world(3)
    counts[1, :, -7:] += 2
    assert found(counts) == {}


def test_a_district_that_has_always_had_more_is_no_cluster() -> None:
    counts = world(4)
    counts[1, 3] += 3
    assert found(counts) == {}


def test_a_cluster_that_has_ended_is_no_longer_told() -> None:
    counts = world(5)
    counts[0, 4, -40:-30] += 4
    assert found(counts) == {}


def test_bundled_reports_need_more_than_independent_ones() -> None:
    rng = np.random.default_rng(6)
    counts = 6 * (rng.random((8, len(DISTRICTS), RULES.history_days)) < 0.02)
    counts[0, 4, -3:] += 6
    assert found(counts) == {}


def test_a_product_is_judged_alike_alone_and_among_others() -> None:
    counts = world(7)
    counts[2, 4, -6:] += 4
    store, products = stored(counts)
    scan = ClusterScan(CATALOGUE, RULES)
    assert scan.findings(store, products, DAY) == scan.findings(store, ["P2"], DAY) != []


def test_without_neighbours_or_when_switched_off_nothing_is_scanned() -> None:
    counts = world(8)
    counts[0, 4, -6:] += 4
    assert found(counts, ScanRules(enabled=False)) == {}
    store, products = stored(counts)
    assert ClusterScan(Catalogue.open("open"), RULES).findings(store, products, DAY) == []
    assert ClusterScan(CATALOGUE, RULES).findings(store, [], DAY) == []
    assert ClusterScan(CATALOGUE, RULES).findings(store, ["unknown"], DAY) == []


def test_the_gumbel_tail_is_scipys() -> None:
    law = stats.gumbel_r(loc=3.0, scale=0.8)
    x = np.array([2.0, 4.0, 12.0])
    assert gumbel_tail(x, law.mean(), law.std()) == pytest.approx(law.sf(x), rel=1e-9)


def test_the_dispersion_of_a_table_is_that_of_its_counts() -> None:
    rng = np.random.default_rng(9)
    plain, bundled = rng.poisson(4.0, (400, 8, 20)), 3 * rng.poisson(4.0, (400, 8, 20))
    assert table_dispersion(plain).mean() == pytest.approx(1.05, abs=0.05)  # it is cut at 1
    assert table_dispersion(bundled).mean() == pytest.approx(3.0, abs=0.05)
    assert table_dispersion(np.zeros((1, 3, 3)))[0] == 1.0
