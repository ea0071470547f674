"""The space-time scan: one product over 3,000 districts, 50 neighbours and 30 days, and many over a city's sixteen.

The plain one visits zone by zone, adds up its regions, and scores its windows: what one writes first. It is also
told apart from ours by its answer: both must find the same ratio, or there is no figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from detectors.scan import ScanOptions, permutation_scan
from detectors.scan_zones import Zones, connected_zones, nearest_zones
from tests.benchmarks.rates import Figures, Setting

REGIONS, NEIGHBOURS, DAYS, HISTORY, REPLICATES = 3_000, 50, 30, 90, 99


def scan(setting: Setting) -> Figures:
    """Seconds for one product over a country of districts, scaled by the setting."""
    regions = max(int(REGIONS * setting.scale), NEIGHBOURS)
    rng = np.random.default_rng(1)
    places = np.column_stack([rng.uniform(20.0, 50.0, regions), rng.uniform(80.0, 130.0, regions)])
    counts = rng.poisson(rng.gamma(2.0, 0.2, (1, regions, 1)), (1, regions, HISTORY))
    began = time.perf_counter()
    zones = nearest_zones(places, most=NEIGHBOURS)
    built = time.perf_counter() - began
    ours, found = timed(counts, zones, 0)
    simulated, _ = timed(counts, zones, REPLICATES)
    members = [zones.members(zone) for zone in np.flatnonzero(zones.scored).tolist()]
    began = time.perf_counter()
    plain = plain_scan(counts[0], members)
    plainly = time.perf_counter() - began
    if abs(plain - found) > 1e-9 * plain:
        raise RuntimeError(f"the plain scan found a ratio of {plain}, ours {found}")
    return {
        "zones": float(len(zones)),
        "zones made in s, once": built,
        "one pass, s": ours,
        f"with {REPLICATES} replicates, s": simulated,
        "one replicate, ms": 1e3 * (simulated - ours) / REPLICATES,
        "plain NumPy pass, s": plainly,
        "plain pass / our pass": plainly / ours,
        "plain pass / our replicate": plainly / ((simulated - ours) / REPLICATES),
    }


def scan_city(setting: Setting) -> Figures:
    """Seconds for many products over sixteen districts on a 4 x 4 lattice, all connected zones of up to six."""
    products = int(1_000 * setting.scale)
    lattice = [(i, j) for i in range(16) for j in range(i) if (i - j == 4) or (i - j == 1 and i % 4)]
    zones = connected_zones(16, lattice, most=6)
    rng = np.random.default_rng(2)
    counts = rng.poisson(rng.gamma(1.0, 0.5, (products, 16, 1)), (products, 16, HISTORY))
    figures: Figures = {"products": products, "zones": float(len(zones))}
    for name, options in {
        "pass alone": ScanOptions(replicates=0),
        "with 99 replicates": ScanOptions(),
        "with up to 999, ended early": ScanOptions(replicates=999, stop_after=10),
    }.items():
        began = time.perf_counter()
        permutation_scan(counts, zones, seed=np.arange(products), options=options)
        figures[f"{name}, ms a product"] = 1e3 * (time.perf_counter() - began) / products
    return figures


def timed(counts: npt.NDArray[np.int64], zones: Zones, replicates: int) -> tuple[float, float]:
    """Seconds, and the ratio of the most likely cluster."""
    began = time.perf_counter()
    found = permutation_scan(counts, zones, seed=1, options=ScanOptions(longest=DAYS, replicates=replicates))
    return time.perf_counter() - began, float(found.llr[0, 0])


def plain_scan(counts: npt.NDArray[np.int64], members: list[npt.NDArray[np.int64]]) -> float:
    """The largest ratio, zone by zone; the lists of members, made once like our zones, are no work of a pass."""
    total, by_time = counts.sum(), counts.sum(axis=0)
    latest = np.cumsum(by_time[::-1])[:DAYS]
    best = 0.0
    for zone in members:
        cases = counts[zone].sum(axis=0)
        c, mu = np.cumsum(cases[::-1])[:DAYS], cases.sum() * latest / total
        high = (c >= 2) & (c > mu)
        if high.any():
            c, mu = c[high], mu[high]
            llr = c * np.log(c / mu) + (total - c) * np.log((total - c) / (total - mu))
            best = max(best, float(llr.max()))
    return best


SCANS: dict[str, Callable[[Setting], Figures]] = {"scan": scan, "scan-city": scan_city}
