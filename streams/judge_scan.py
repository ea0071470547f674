"""Clusters of a few neighbouring districts that neither a district nor the city shows: a daily space-time scan.

For every product with new reports the space-time permutation statistic (:mod:`detectors.scan`) looks for the zone and
the days, up to yesterday, in which its cases stand together more than its districts' and its days' own levels explain.
It needs a catalogue whose regions name their neighbours. Replicates are drawn only where the statistic is large; their
seed is made of the product and the day, so that a replay draws the same.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from detectors.scan import permutation_scan, permutation_screen
from detectors.scan_run import ScanEvidence, ScanOptions
from detectors.scan_significance import gumbel_tail, table_dispersion
from detectors.scan_zones import Zones, ball_zones, connected_zones
from schemas.alerts import Evidence
from schemas.catalogue import Catalogue
from streams.cells import CellStore
from streams.config import ScanRules
from streams.finding import Finding, rounded
from streams.judge_sums import CACHED, pieces

__all__ = ["ClusterScan"]

_FEW_REGIONS = 64
_PRODUCTS = 256
"""Products that are scanned together: so the counts of thousands need no more memory than theirs."""
_UNIT_SCALE = math.pi / math.sqrt(6.0)
"""Standard deviation of a Gumbel law of scale 1."""
_WEEK = 7


class ClusterScan:
    """The scan of one deployment's regions."""

    def __init__(self, catalogue: Catalogue, rules: ScanRules) -> None:
        self._rules = rules
        self._options = ScanOptions(
            longest=rules.window_days, least_cases=rules.min_cases, clusters=1, replicates=rules.replicates
        )
        tree = catalogue.regions
        self._regions = [] if tree.is_open else sorted(code for code in tree.codes if tree.neighbours(code))
        self._zones = self._make_zones(catalogue) if len(self._regions) > 1 and rules.enabled else None

    def _make_zones(self, catalogue: Catalogue) -> Zones:
        place = {code: at for at, code in enumerate(self._regions)}
        near = {(place[a], place[b]) for a in self._regions for b in catalogue.regions.neighbours(a) if b in place}
        edges = np.array(sorted({(min(pair), max(pair)) for pair in near}), np.int64)
        if len(self._regions) <= _FEW_REGIONS:
            return connected_zones(len(self._regions), edges, most=self._rules.most_regions)
        return ball_zones(len(self._regions), edges)

    def findings(self, store: CellStore, products: Sequence[str], day: int) -> list[Finding]:
        """Findings for the products (sorted) with a cluster that ended yesterday; one finding a product at most.

        A cluster of one district is that district's cell, one of several the product's widest cell.
        """
        if self._zones is None or not products:
            return []
        found: list[Finding] = []
        for part in pieces(len(products), _PRODUCTS):
            found += self._piece(store, products[part], day, self._zones)
        return found

    def _piece(self, store: CellStore, products: Sequence[str], day: int, zones: Zones) -> list[Finding]:
        rules = self._rules
        rows = self._rows(store, products)
        # Without replicates only the days of the windows count one by one.
        recent = self._counts(store, rows, day, folded=True)
        enough = recent[:, :, -rules.window_days :].sum(axis=(1, 2)) >= rules.min_cases
        enough &= recent.sum(axis=(1, 2)) >= 2 * rules.min_cases
        at = np.flatnonzero(enough)
        if not len(at):
            return []
        ratio = permutation_screen(recent[at], zones, floor=rules.screen_llr, options=self._options)
        at = at[ratio >= rules.screen_llr]
        if not len(at):
            return []
        counts = self._counts(store, rows[at], day, folded=False)
        seeds = np.array([zlib.crc32(f"{products[n]}\0{day}".encode()) for n in at.tolist()], np.int64)
        found = permutation_scan(counts, zones, seed=seeds, options=self._options)
        p_values = self._p_values(counts, found)
        made = [self._finding(store, products[n], found, row, p_values[row]) for row, n in enumerate(at.tolist())]
        return [finding for finding in made if finding is not None]

    def _rows(self, store: CellStore, products: Sequence[str]) -> npt.NDArray[np.intp]:
        """The cells' rows [products, regions], -1 where there is none."""
        rows = [store.row((product, code)) for product in products for code in self._regions]
        held = np.array([-1 if row is None else row for row in rows], np.intp)
        return held.reshape(len(products), len(self._regions))

    def _counts(self, store: CellStore, rows: npt.NDArray[np.intp], day: int, *, folded: bool) -> npt.NDArray[np.int64]:
        """Daily counts [products, regions, days] up to yesterday; ``folded`` has the days before the longest cluster
        in one column."""
        rules = self._rules
        apart = np.arange(rules.history_days)
        if folded and rules.window_days < rules.history_days:
            apart = np.append(0, apart[-rules.window_days :])
        flat = rows.reshape(-1)
        out = np.empty((len(flat), len(apart)), np.int64)
        for part in pieces(len(flat), CACHED):
            daily = store.daily(np.maximum(flat[part], 0), day - 1, rules.history_days)[:, :, 0]
            out[part] = np.add.reduceat(np.maximum(daily, 0), apart, axis=1)
        out[flat < 0] = 0
        return out.reshape(*rows.shape, len(apart))

    def _p_values(self, counts: npt.NDArray[np.int64], found: ScanEvidence) -> list[float]:
        """Gumbel's tail of the ratio over the dispersion that the weeks before the windows show.

        Far out a log-likelihood ratio's tail falls as exp(-ratio), not faster, as a narrow sample of replicates has it.
        And a scan a day, where a week's count is one test, has seven chances for one.
        """
        weeks = (counts.shape[2] - self._rules.window_days) // _WEEK
        past = counts[:, :, : weeks * _WEEK].reshape(*counts.shape[:2], weeks, _WEEK).sum(axis=3)
        ratio = found.llr[:, 0] / table_dispersion(past)
        tail = gumbel_tail(ratio, found.null_mean, np.maximum(found.null_spread, _UNIT_SCALE))
        return [min(1.0, _WEEK * p) for p in tail.tolist()]

    def _finding(self, store: CellStore, product: str, found: ScanEvidence, at: int, p: float) -> Finding | None:
        rules = self._rules
        observed, expected = float(found.observed[at, 0]), float(found.expected[at, 0])
        if p > rules.alpha or observed < rules.min_ratio * expected or self._zones is None:
            return None
        members = [self._regions[region] for region in self._zones.members(int(found.zone[at, 0])).tolist()]
        row = store.row((product, members[0]))
        while row is not None and len(members) > 1 and (wider := int(store.wider(np.array([row]))[0])) >= 0:
            row = wider
        if row is None:
            return None
        days = int(found.duration[at, 0])
        entry = Evidence(
            detector="space-time-permutation-scan",
            against="baseline",
            window_days=days,
            observed=observed,
            expected=rounded(expected),
            statistic=rounded(float(found.llr[at, 0])),
            p_value=rounded(p),
            recurrence_days=rounded(_WEEK / max(p, 1e-300)),
            regions=sorted(members),
        )
        return Finding(row, p, {0: observed - expected}, [entry], days + 1)
