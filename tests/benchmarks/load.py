"""The load that every engine gets, and what must come out of it, worked out by brute force.

The job: inspections of product x region cells; a cell's pass rate over the 30 days that end with a day; (cell, day)
stands in the answer when the cell was inspected on that day and, counting all of the day, at least three samples have
failed and the upper end of the 95 % Jeffreys interval of that rate is under the target.

Nothing here knows any engine, nor any detector of ours: the bound is SciPy's beta quantile, the sums are plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = [
    "LEAST_FAILED",
    "TARGET",
    "WINDOW_DAYS",
    "Cell",
    "CellDay",
    "Load",
    "Raw",
    "below_target",
    "expected",
    "inspected",
    "limits",
    "rolling",
]

WINDOW_DAYS = 30
TARGET = 0.95
LEAST_FAILED = 3
CONFIDENCE = 0.95
FIRST_DAY = date(2026, 1, 1)
MS_PER_DAY = 86_400_000
UTC_OFFSET_MS = 8 * 3_600_000
LABS = 40
_OPENS_MS, _OPEN_MS = 8 * 3_600_000, 9 * 3_600_000
_GOOD, _BAD, _SHARE_BAD = 0.01, 0.25, 0.03

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Cell = tuple[str, str]
CellDay = tuple[str, str, str]


class Raw(NamedTuple):
    """A record as it goes to the input topic."""

    time_ms: int
    key: bytes
    value: bytes


@dataclass(frozen=True)
class Load:
    """Inspections of so many cells over so many days, in the order in which they are reported; from a seed.

    ``bells`` are products with one cell each. A bell fails often enough for an alert before all else, and again after
    all else, so that its first and its last alert tell when an engine began and ended what lies between: with one bell
    in each partition, that is the whole.
    """

    events: int
    cells: int = 10_000
    regions: int = 20
    days: int = 45
    seed: int = 5
    bells: tuple[str, ...] = ()
    cell: Ints = field(init=False, repr=False)
    time_ms: Ints = field(init=False, repr=False)
    failed: Bools = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cells % self.regions:
            raise ValueError(f"{self.cells} cells do not fill {self.regions} regions")
        rng = np.random.default_rng(self.seed)
        weight = rng.lognormal(0.0, 0.7, self.cells)
        turns = np.where(rng.random(self.cells) < _SHARE_BAD, rng.integers(0, self.days, self.cells), self.days)
        cell = rng.choice(self.cells, self.events, p=weight / weight.sum())
        day = np.sort(rng.integers(0, self.days, self.events))
        time = day * MS_PER_DAY + _OPENS_MS + rng.integers(0, _OPEN_MS, self.events)
        failed = rng.random(self.events) < np.where(day >= turns[cell], _BAD, _GOOD)
        order = np.argsort(time, kind="stable")
        ring = np.tile(np.arange(self.cells, self.cells + len(self.bells)), LEAST_FAILED)
        first, last = np.full(len(ring), _OPENS_MS - 1), np.full(len(ring), self.days * MS_PER_DAY - 1)
        fails = np.ones(len(ring), bool)
        object.__setattr__(self, "cell", np.concatenate([ring, cell[order], ring]))
        object.__setattr__(self, "time_ms", np.concatenate([first, time[order], last]))
        object.__setattr__(self, "failed", np.concatenate([fails, failed[order], fails]))

    def __len__(self) -> int:
        return len(self.cell)

    @property
    def day(self) -> Ints:
        """Of each event, counted from the first day."""
        return self.time_ms // MS_PER_DAY

    def names(self) -> list[Cell]:
        """Product and region of every cell."""
        plain = [(f"P{n // self.regions:05d}", f"R{n % self.regions:03d}") for n in range(self.cells)]
        return plain + [(bell, "R000") for bell in self.bells]

    def date(self, day: int) -> str:
        return (FIRST_DAY + timedelta(days=day)).isoformat()

    def records(self) -> Iterator[Raw]:
        """The events as JSON, keyed by product."""
        results = ('"verdict":"fail"' if fails else '"verdict":"pass"' for fails in self.failed.tolist())
        yield from self._written(0, self.cell, self.time_ms, results)

    def one_each(self, lot: int = 200, rate: float = 0.04) -> Iterator[Raw]:
        """An aggregate for every cell on the day after the last: so many tests that no detector can pass over it."""
        time = np.full(self.cells, self.days * MS_PER_DAY + _OPENS_MS)
        failed = np.random.default_rng(self.seed + 1).binomial(lot, rate, self.cells)
        results = (f'"tested":{lot},"failed":{fails}' for fails in failed.tolist())
        yield from self._written(len(self), np.arange(self.cells), time, results)

    def _written(self, number: int, cells: Ints, times: Ints, results: Iterable[str]) -> Iterator[Raw]:
        names = self.names()
        keys = [product.encode() for product, _ in names]
        dates = [self.date(day) for day in range(self.days + 1)]
        zero = (FIRST_DAY - date(1970, 1, 1)).days * MS_PER_DAY - UTC_OFFSET_MS
        for cell, time, result in zip(cells.tolist(), times.tolist(), results, strict=True):
            day, rest = divmod(time, MS_PER_DAY)
            seconds, ms = divmod(rest, 1_000)
            clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"
            product, region = names[cell]
            lab = number % LABS
            value = (
                f'{{"event_id":"e{number}","source":"lims-{lab:02d}","reported_at":"{dates[day]}T{clock}+08:00",'
                f'"product":"{product}","region":"{region}","lab":"lab-{lab:02d}","stage":"circulation",'
                f"{result}}}"
            )
            yield Raw(zero + time, keys[cell], value.encode())
            number += 1


def below_target(tested: npt.ArrayLike, failed: npt.ArrayLike, target: float = TARGET) -> Bools:
    """Whether enough failed, and the Jeffreys interval of the pass rate lies under the target."""
    n, x = np.asarray(tested, float), np.asarray(failed, float)
    upper = stats.beta.ppf(0.5 + CONFIDENCE / 2.0, n - x + 0.5, x + 0.5)
    return np.asarray((x >= LEAST_FAILED) & (upper < target))


def limits(most: int, target: float = TARGET) -> list[int]:
    """The fewest failures among 0, 1, ... ``most`` tests that put a cell under the target.

    Every peer judges by this list: so none is measured by the statistics library of its language.

    Examples
    --------
    >>> limits(20)
    [3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4]
    """
    found, least = [LEAST_FAILED], LEAST_FAILED
    for n in range(1, most + 1):
        while least <= n and not below_target(n, least, target):
            least += 1
        found.append(least)
    return found


def rolling(load: Load) -> tuple[Ints, Ints]:
    """Tested and failed over the window that ends with a day, both [cell, day]."""
    cells, days = load.cells + len(load.bells), load.days
    place = load.cell * days + load.day
    sums = []
    for counted in (np.ones(len(load), bool), load.failed):
        daily = np.bincount(place[counted], minlength=cells * days).reshape(cells, days)
        windows = [daily[:, max(0, day + 1 - WINDOW_DAYS) : day + 1].sum(axis=1) for day in range(days)]
        sums.append(np.stack(windows, axis=1).astype(np.int64))
    return sums[0], sums[1]


def inspected(load: Load) -> Bools:
    """Whether a cell was inspected on a day, [cell, day]."""
    found = np.zeros((load.cells + len(load.bells), load.days), bool)
    found[load.cell, load.day] = True
    return found


def expected(load: Load) -> dict[CellDay, tuple[int, int]]:
    """The answer: tested and failed by product, region and day."""
    tested, failed = rolling(load)
    names = load.names()
    cells, days = np.nonzero(inspected(load) & (failed >= LEAST_FAILED))
    n, x = tested[cells, days], failed[cells, days]
    rows = zip(cells.tolist(), days.tolist(), n.tolist(), x.tolist(), below_target(n, x).tolist(), strict=True)
    return {(*names[cell], load.date(day)): (tests, fails) for cell, day, tests, fails, below in rows if below}
