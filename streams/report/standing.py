"""The quality status: pass rate, satisfaction index and quality-loss rate of the city and of each district, against the
target, the period before and the year before; and the cells that stand worst and best.

Targets are asked of products, not of districts. So a district's target is that of its own mix: each item tested, each
answer, with the target of its product; what has no target is left out of that comparison, and only of that. Targets for
one sampling stage alone are not compared here: a cell does not hold the stage. A loss rate has met its target, to fall
from year to year, when it is below that of the year before.

A cell stands worst, or best, by the end of its 95% interval that is nearer to the others: what is surely bad stands
before what is perhaps worse and was tested ten times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from detectors.passrate import jeffreys_interval
from detectors.satisfaction import index_below_target
from schemas.errors import Rejection
from streams.columns import INDICATORS
from streams.report.periods import Period, Span
from streams.report.record import Record

__all__ = ["COUNTS", "RATES", "Cell", "Figure", "Matrix", "Ranked", "Standing", "matrix", "rank", "standings"]

Verdict = Literal["met", "short", "below", "none"]
"""Against the target: met; missed, but within chance; missed for sure; none there."""
RATES: Final = ("pass", "satisfaction", "loss")
COUNTS: Final = ("injury", "complaint", "accident")
LEAST: Final[dict[str, int]] = {"pass": 30, "satisfaction": 30, "loss": 1}
"""Items, answers or CNY of output below which a cell is not ranked."""

Sums = tuple[int, int]
Part = tuple[str, Sums]
"""The sums of one product."""
Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Figure:
    """One rate with its 95% interval (none for losses), its target, and what it was before."""

    x: int
    n: int
    value: float | None
    lower: float | None = None
    upper: float | None = None
    target: float | None = None
    verdict: Verdict = "none"
    before: float | None = None
    year_before: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How one region stands: rates by indicator, and counts (now, before, a year before)."""

    region: str
    rates: Mapping[str, Figure]
    counts: Mapping[str, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Cell:
    """One group of products in one district."""

    product: str
    region: str
    figure: Figure


@dataclass(frozen=True, slots=True)
class Ranked:
    """The worst cells and the best of one indicator, of ``cells`` that are large enough."""

    worst: tuple[Cell, ...]
    best: tuple[Cell, ...]
    cells: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """Districts by branches, of one indicator; ``left_out`` says how many of each there was no room for."""

    indicator: str
    regions: tuple[str, ...]
    products: tuple[str, ...]
    cells: Mapping[tuple[str, str], Figure]
    left_out: tuple[int, int]


def value_of(indicator: str, x: int, n: int) -> float | None:
    """The rate that sums make: share passed, index from 0 to 100, share lost; None of nothing."""
    if n <= 0:
        return None
    return 1.0 - x / n if indicator == "pass" else x / 100.0 / n if indicator == "satisfaction" else x / n


def _interval(indicator: str, x: int, n: int) -> tuple[float | None, float | None]:
    if n <= 0 or indicator not in ("pass", "satisfaction"):
        return None, None
    if indicator == "pass":
        low, high = jeffreys_interval([n], [n - x])
        return float(low[0]), float(high[0])
    found = index_below_target([n], [x / 100.0], np.nan)
    return float(found.lower[0]), float(found.upper[0])


class _Sums:
    """Sums of an indicator by place, in one span."""

    def __init__(self, record: Record, indicator: str, span: Span) -> None:
        self.indicator = indicator
        self._leaves = record.state.leaves
        self._record = record
        self.by_leaf = record.leaf_sums(indicator, span)

    def products(self) -> dict[Place, Sums]:
        """By every region on the way to a leaf, and the leaf's product."""
        found: dict[Place, list[int]] = {}
        for leaf, (x, n) in self.by_leaf.items():
            _, where = self._leaves[leaf].paths
            for region in where[:2]:
                held = found.setdefault((region, self._leaves[leaf].product), [0, 0])
                held[0], held[1] = held[0] + x, held[1] + n
        return {place: (x, n) for place, (x, n) in found.items()}

    def regions(self) -> dict[str, Sums]:
        found: dict[str, Sums] = {}
        for (region, _), (x, n) in self.products().items():
            held = found.get(region, (0, 0))
            found[region] = (held[0] + x, held[1] + n)
        return found

    def cells(self, depth: int, *, cities: bool = False) -> dict[Place, list[Part]]:
        """By the product node at a depth (or the leaf itself, where it lies above) and the district: the parts. With
        ``cities`` by the whole city too."""
        found: dict[Place, list[Part]] = {}
        for leaf, sums in sorted(self.by_leaf.items()):
            path, where = self._leaves[leaf].paths
            for region in where[:2] if cities else where[1:2]:
                found.setdefault((path[: depth + 1][-1], region), []).append((self._leaves[leaf].product, sums))
        return found


def _target(record: Record, indicator: str, product: str) -> float | None:
    try:
        targets = record.catalogue.targets_for(product)
    except Rejection:  # the overflow leaf is in no catalogue
        return None
    return targets.pass_rate if indicator == "pass" else targets.satisfaction if indicator == "satisfaction" else None


def _falls(record: Record, product: str) -> bool:
    try:
        return bool(record.catalogue.targets_for(product).loss_rate_falls)
    except Rejection:
        return False


def _judged(record: Record, indicator: str, parts: Iterable[Part]) -> tuple[float | None, Verdict]:
    """The target of a mix of products, and how it is kept."""
    x, n, asked = 0, 0, 0.0
    for product, (part_x, part_n) in parts:
        target = _target(record, indicator, product)
        if target is not None:
            x, n, asked = x + part_x, n + part_n, asked + target * part_n
    value = value_of(indicator, x, n)
    if value is None:
        return None, "none"
    target, upper = asked / n, _interval(indicator, x, n)[1]
    if value >= target:
        return target, "met"
    return target, "below" if upper is not None and upper < target else "short"


def _fallen(record: Record, parts: Iterable[Part], earlier: Mapping[str, Sums]) -> tuple[float | None, Verdict]:
    """Whether the loss rate of what is to fall lies below that of the year before."""
    now, past = [0, 0], [0, 0]
    for product, (x, n) in parts:
        if _falls(record, product):
            now[0], now[1] = now[0] + x, now[1] + n
            x, n = earlier.get(product, (0, 0))
            past[0], past[1] = past[0] + x, past[1] + n
    value, target = value_of("loss", *now), value_of("loss", *past)
    if value is None or target is None:
        return None, "none"
    return target, "met" if value < target else "below"


def _figure(indicator: str, sums: Sums, target: tuple[float | None, Verdict], past: Iterable[Sums]) -> Figure:
    x, n = sums
    before, year_before = (value_of(indicator, *one) for one in past)
    return Figure(x, n, value_of(indicator, x, n), *_interval(indicator, x, n), *target, before, year_before)


def regions_of(record: Record) -> list[str]:
    """The city, then its districts: those of a closed tree, and all with an event."""
    tree = record.catalogue.regions
    found = {region for leaf in record.state.leaves for region in leaf.paths[1][:2]}
    found |= {code for code in tree.codes if len(tree.path(code)) <= 2} if not tree.is_open else set()
    tops = {leaf.paths[1][0] for leaf in record.state.leaves}
    tops |= {code for code in tree.codes if len(tree.path(code)) == 1} if not tree.is_open else set()
    return sorted(found, key=lambda code: (code not in tops, code))


def standings(record: Record, period: Period) -> list[Standing]:
    """How the city and each district stand, the city first."""
    spans = (period.days, period.before, period.year_before)
    rates: dict[str, dict[str, Figure]] = {}
    for indicator in RATES:
        now, before, year = (_Sums(record, indicator, span) for span in spans)
        now_products, year_products = now.products(), year.products()
        sums, past = now.regions(), (before.regions(), year.regions())
        for region in sorted(sums.keys() | past[0].keys() | past[1].keys()):
            parts = [(product, part) for (where, product), part in sorted(now_products.items()) if where == region]
            if indicator == "loss":
                earlier = {product: part for (where, product), part in year_products.items() if where == region}
                target = _fallen(record, parts, earlier)
            else:
                target = _judged(record, indicator, parts)
            held = [one.get(region, (0, 0)) for one in past]
            rates.setdefault(region, {})[indicator] = _figure(indicator, sums.get(region, (0, 0)), target, held)
    counts = {name: [_counted(_Sums(record, name, span)) for span in spans] for name in COUNTS}
    return [
        Standing(
            region,
            rates.get(region, {}),
            {name: (some[0][region], some[1][region], some[2][region]) for name, some in counts.items()},
        )
        for region in regions_of(record)
    ]


def _counted(sums: _Sums) -> Counter[str]:
    return Counter({region: x for region, (x, _) in sums.regions().items()})


def _total(parts: Iterable[Part]) -> Sums:
    sums = [part for _, part in parts]
    return sum(x for x, _ in sums), sum(n for _, n in sums)


def rank(record: Record, period: Period, indicator: str, count: int) -> Ranked:
    """The worst and the best groups of products in a district."""
    now, before, year = (
        _Sums(record, indicator, span).cells(1) for span in (period.days, period.before, period.year_before)
    )
    cells = []
    for key, parts in sorted(now.items()):
        sums = _total(parts)
        if sums[1] >= LEAST[indicator]:
            past = [_total(one.get(key, [])) for one in (before, year)]
            target = _judged(record, indicator, parts)
            cells.append(Cell(*key, _figure(indicator, sums, target, past)))
    bad, good = (_by_end(cells, indicator, worst=worst) for worst in (True, False))
    count = min(count, max(len(cells) // 2, 1))
    return Ranked(tuple(bad[:count]), tuple(good[:count]), len(cells))


def _by_end(cells: list[Cell], indicator: str, *, worst: bool) -> list[Cell]:
    """In order of goodness: by the upper end of the interval where the worst are asked for, else by the lower."""

    def key(cell: Cell) -> tuple[float, str, str]:
        one = cell.figure
        if indicator == "loss":
            end = -(one.value or 0.0)
        else:
            end = (one.upper if worst else one.lower) or 0.0
        return end if worst else -end, cell.product, cell.region

    return sorted(cells, key=key)


def matrix(record: Record, period: Period, most: tuple[int, int]) -> Matrix:
    """Districts by branches of products: pass rates, or where nothing was tested the most frequent kind of report.

    Parameters
    ----------
    most
        Districts and branches that there is room for; those with the most items or reports are kept.
    """
    totals = {name: sum(n for _, n in record.leaf_sums(name, period.days).values()) for name in INDICATORS}
    indicator = "pass"
    if not totals["pass"]:
        indicator = max(COUNTS, key=lambda name: (totals[name], -INDICATORS.index(name)))
    found = _Sums(record, indicator, period.days).cells(0, cities=True)
    weight: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for (product, region), parts in found.items():
        weight[0][region] += _total(parts)[1]
        weight[1][product] += _total(parts)[1]
    kept = [sorted(some, key=lambda code: (-some[code], code))[:room] for some, room in zip(weight, most, strict=True)]
    order = {code: at for at, code in enumerate(regions_of(record))}
    kept = [sorted(kept[0], key=order.__getitem__), sorted(kept[1])]
    figures = {}
    for (product, region), parts in sorted(found.items()):
        if region in kept[0] and product in kept[1]:
            target = _judged(record, indicator, parts)
            figures[region, product] = _figure(indicator, _total(parts), target, [(0, 0), (0, 0)])
    left = (len(weight[0]) - len(kept[0]), len(weight[1]) - len(kept[1]))
    return Matrix(indicator, tuple(kept[0]), tuple(kept[1]), figures, left)
