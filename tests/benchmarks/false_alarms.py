"""False alarms: a year of 10,000 streams in which nothing happens, through the judges, the control and escalate.

What runs is what runs live: :func:`streams.judge_counts.judge_counts` and :func:`streams.judge_rates.judge_rates` on a
:class:`~streams.cells.CellStore`, tick by tick, and :class:`~streams.escalate.Escalate` with its multiplicity control,
under the default configuration; the alerts that it opens are counted. The budget is one a month, the bound two.

Counts are the 42 scenarios' baselines in turn, without any outbreak, or with four in each one's past (where a sensible
history has some). Young branches, watched for a year or less, have detectors of their own and are counted apart. Pass
rates are cells of product and region whose failures come in batches: a rate of its own for every day, or for every
week, of each cell, so that failures within one are correlated by rho; each product just keeps its target.

``python -m tests.benchmarks.false_alarms [--scale S] [--seeds N] [--only NAME]...`` prints all tables.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import stats

from schemas.alerts import AlertKind, Signal
from streams.cells import CellStore
from streams.config import Config
from streams.control import CONTROLLED
from streams.escalate import Escalate
from streams.evaluation.scenarios import draw
from streams.finding import Finding
from streams.judge_counts import judge_counts
from streams.judge_rates import judge_rates
from streams.tally import Tally
from streams.ticks import Calendar
from tests.benchmarks.rates import Figures, Setting

STREAMS: Final = 10_000
YEAR_WEEKS, YEAR_DAYS = 52, 364
QUIET_WEEKS: Final = 4
MONTHS: Final = YEAR_DAYS / 30.0
RULES: Final = ("budget", "BH", "BY", "e-BH")
MONDAY: Final = 18_260
"""30 December 2019: the first day of all series."""
ROWS_AT_ONCE: Final = 2_000
DEFAULTS: Final = Config(catalogue="open", utc_offset="+00:00")
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class Year:
    """What the judges found: (day, tick of the day, findings), in order."""

    kind: AlertKind
    streams: int
    config: Config
    ticks: list[tuple[int, int, list[Finding]]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def findings(self) -> list[Finding]:
        return [one for _, _, found in self.ticks for one in found]

    def opened(self, method: str) -> list[tuple[int, int]]:
        """Rows and days of the alerts that escalate opens under a rule of multiplicity."""
        config = self.config.replace(multiplicity={"method": method})
        calendar = Calendar(config.tick_ms, config.offset_ms)
        escalate = Escalate(config, config.load_catalogue(), 1)
        told = Tally(MONDAY, [], [], [], {CONTROLLED[self.kind]: self.streams})
        out: list[tuple[int, int]] = []
        for day, part, found in self.ticks:
            tick = calendar.first_tick_of_day(day) + part
            signals = [self._signal(one, tick, calendar) for one in found]
            escalate.offer(0, tick, signals, [(tick, told)])
            out += [
                (int(alert.product[1:]), day)
                for alert in escalate.close()
                if alert.status == "opened" and alert.kind == self.kind
            ]
        return out

    def _signal(self, finding: Finding, tick: int, calendar: Calendar) -> Signal:
        return Signal(
            tick=tick, as_of=calendar.moment(calendar.tick_end(tick)), kind=self.kind, product=f"c{finding.row}",
            region="r", role="primary", level=4, scope="cell", p_value=finding.p_value,
            excess=max(finding.excess.values()), evidence=finding.evidence, e_value=finding.e_value,
        )  # fmt: skip


def chunks(rows: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    """So that a year of history of all cells need not be in memory at once."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        yield rows[start : start + ROWS_AT_ONCE]


# --- counts --------------------------------------------------------------------------------------------------------


def null_counts(streams: int, seed: int, *, past_outbreaks: bool) -> Ints:
    """Weekly counts ``[streams, 312]`` of the scenarios in turn; nothing of the current outbreak is in them.

    Past outbreaks end four weeks before the year that is judged: what stands later would be no false alarm.
    """
    draws = draw(-(-streams // 42), seed)
    counts = draws.baseline.copy()
    if past_outbreaks:
        over = counts.shape[1] - YEAR_WEEKS - QUIET_WEEKS
        counts[:, :over] += draws.past[:, :over]
    return np.ascontiguousarray(counts[np.lexsort((draws.scenario, draws.rep))][:streams])


def year_of_counts(counts: Ints, watched: int, config: Config = DEFAULTS) -> Year:
    """Judge the last 52 weeks; each series is a branch that had been watched for `watched` weeks before them."""
    year, began = Year("complaint-surge", len(counts), config), time.perf_counter()
    weeks = counts.shape[1]
    first = weeks - YEAR_WEEKS - watched
    store = CellStore(1)
    for row in range(len(counts)):
        store.rows_for((f"c{row}",), ("r",))
        store.note_day(f"c{row}", MONDAY + 7 * first)
    row_of, week_of = np.nonzero(counts)
    keep = week_of >= first
    row_of, week_of = row_of[keep], week_of[keep]
    store.fold(row_of, (MONDAY + 7 * week_of).astype(np.int32), counts[row_of, week_of][:, None])
    for week in range(weeks - YEAR_WEEKS, weeks):
        # A week's last tick sees all of it; earlier ones saw less against the same expectation.
        sunday = MONDAY + 7 * week + 6
        rows = np.flatnonzero(counts[:, week - 1 : week + 1].sum(axis=1) > 0)
        # Later weeks stand in the store already, and are not looked at: sums end with the week of the day.
        found = [one for few in chunks(rows) for one in judge_counts(store, few, sunday, config.counts)]
        year.ticks.append((sunday, 0, found))
    year.seconds = time.perf_counter() - began
    return year


# --- pass rates ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cells:
    """Null pass-rate cells: (failed, tested) by day, and what they were drawn with; the first row of each product is
    that of all regions."""

    daily: Ints
    rate: Floats
    rho: Floats
    a_week: Floats


REGIONS: Final = 15
BEFORE: Final = 365 + 91
RATES: Final = (0.005, 0.1)
A_WEEK: Final = (5.0, 200.0)
RHOS: Final = (0.005, 0.01, 0.02)


def null_rates(streams: int, seed: int, batch_days: int) -> Cells:
    """Draw cells; failures are correlated by rho within a batch, which is what a cell tests in `batch_days` days."""
    rng = np.random.default_rng([seed, batch_days])
    products, days = max(streams // (REGIONS + 1), 1), BEFORE + YEAR_DAYS
    rate = RATES[0] * (RATES[1] / RATES[0]) ** rng.uniform(size=products)
    rho = np.array(RHOS)[np.arange(products) % len(RHOS)]
    a_week = A_WEEK[0] * (A_WEEK[1] / A_WEEK[0]) ** rng.uniform(size=(products, REGIONS))
    tested = rng.poisson(a_week[:, :, None] / 7.0, (products, REGIONS, days))
    strength = (1.0 - rho) / rho
    batches = -(-days // batch_days)
    shape = (products, REGIONS, batches)
    alpha, beta = (np.broadcast_to((share * strength)[:, None, None], shape) for share in (rate, 1.0 - rate))
    by_day = np.repeat(rng.beta(alpha, beta), batch_days, axis=2)[:, :, :days]
    own = np.stack([rng.binomial(tested, by_day), tested], axis=-1)
    daily = np.concatenate([own.sum(axis=1, keepdims=True), own], axis=1).reshape(-1, days, 2)
    wide = np.concatenate([a_week.sum(axis=1, keepdims=True), a_week], axis=1).reshape(-1)
    return Cells(daily, np.repeat(rate, REGIONS + 1), np.repeat(rho, REGIONS + 1), wide)


def year_of_rates(cells: Cells, ticks_a_day: int = 1) -> Year:
    """Judge the cells that have tests, tick by tick, against target, own history and peers, and by the CUSUM."""
    config = Config(catalogue="open", utc_offset="+00:00", tick_seconds=86_400 // ticks_a_day)
    year, began = Year("pass-rate", len(cells.daily), config), time.perf_counter()
    store, targets = CellStore(2), 1.0 - cells.rate
    for row in range(len(cells.daily)):
        product = row // (REGIONS + 1)
        path = ("*",) if row % (REGIONS + 1) == 0 else ("*", f"r{row}")
        assert store.rows_for([f"p{product}"], path)[-1] == row
        store.note_day(f"p{product}", MONDAY)
    _fold(store, cells.daily[:, :BEFORE], MONDAY)
    standing = np.zeros(len(cells.daily), np.bool_)
    for at in range(BEFORE, BEFORE + YEAR_DAYS):
        for part, values in enumerate(_parts(cells.daily[:, at], ticks_a_day)):
            _fold(store, values[:, None], MONDAY + at)
            rows = np.flatnonzero((values[:, 1] > 0) | standing)
            found = [
                one
                for few in chunks(rows)
                for one in judge_rates(store, few, MONDAY + at, targets[few], config.pass_rate)
            ]
            standing[rows] = False
            standing[[one.row for one in found]] = True
            year.ticks.append((MONDAY + at, part, found))
    year.seconds = time.perf_counter() - began
    return year


def _fold(store: CellStore, daily: Ints, first_day: int) -> None:
    row_of, day_of = np.nonzero(daily[:, :, 1])
    store.fold(row_of, (first_day + day_of).astype(np.int32), daily[row_of, day_of])


def _parts(day: Ints, parts: int) -> list[Ints]:
    """A day's samples in shares as even as whole items allow."""
    failed = [(day[:, 0] + part) // parts for part in range(parts)]
    passed = [(day[:, 1] - day[:, 0] + part) // parts for part in range(parts)]
    return [np.stack([x, x + y], axis=1) for x, y in zip(failed, passed, strict=True)]


# --- figures -------------------------------------------------------------------------------------------------------


def interval(events: int, months: float, confidence: float = 0.95) -> tuple[float, float]:
    """Exact (Garwood) interval of a Poisson rate."""
    half = (1.0 - confidence) / 2.0
    low = stats.chi2.ppf(half, 2 * events) / 2.0 if events else 0.0
    return float(low / months), float(stats.chi2.ppf(1.0 - half, 2 * events + 2) / 2.0 / months)


COUNTS: Final[dict[str, tuple[bool, int]]] = {
    "counts, 5 years watched": (False, 260),
    "counts, 5 years with outbreaks": (True, 260),
    "counts, 2 years watched": (False, 104),
    "counts, 1 year watched": (False, 52),
    "counts, 9 weeks watched": (False, 9),
}
PASS_RATES: Final[dict[str, tuple[int, int]]] = {
    "pass rates, daily batches": (1, 1),
    "pass rates, weekly batches": (7, 1),
    "pass rates, weekly batches, 12 h ticks": (7, 2),
}


def years(name: str, scale: float, seeds: int) -> list[Year]:
    """One case, once a seed."""
    streams = int(STREAMS * scale)
    if name in COUNTS:
        past, watched = COUNTS[name]
        return [year_of_counts(null_counts(streams, 1 + s, past_outbreaks=past), watched) for s in range(seeds)]
    batch_days, ticks_a_day = PASS_RATES[name]
    return [year_of_rates(null_rates(streams, 1 + s, batch_days), ticks_a_day) for s in range(seeds)]


def measured(cases: tuple[str, ...]) -> Callable[[Setting], Figures]:
    """A benchmark of the alerts a month in some cases, under the default rule; half the streams, half the alarms."""

    def benchmark(setting: Setting) -> Figures:
        figures: Figures = {"streams": float(int(STREAMS * setting.scale))}
        for name in cases:
            alerts = len(years(name, setting.scale, 1)[0].opened("budget"))
            figures[f"{name}: alerts a month"] = alerts / MONTHS
            figures[f"{name}: 95% upper limit"] = interval(alerts, MONTHS)[1]
        return figures

    return benchmark


FALSE_ALARMS: dict[str, Callable[[Setting], Figures]] = {
    "false-alarms-counts": measured(tuple(COUNTS)),
    "false-alarms-rates": measured(("pass rates, daily batches", "pass rates, weekly batches")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Count false alarms.")
    parser.add_argument("--scale", type=float, default=1.0, help="share of 10,000 streams")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", action="append", choices=[*COUNTS, *PASS_RATES])
    given = parser.parse_args()
    console = Console(width=150)
    for name in given.only or [*COUNTS, *PASS_RATES]:
        found = years(name, given.scale, given.seeds)
        months = MONTHS * given.seeds
        table = Table(title=f"{name}: {found[0].streams:,} streams, {given.seeds} year(s), "
                            f"{sum(year.seconds for year in found):.0f} s")  # fmt: skip
        for column in ("rule", "alerts", "a month", "95% interval"):
            table.add_column(column, justify="right" if column != "rule" else "left")
        for rule in RULES:
            alerts = sum(len(year.opened(rule)) for year in found)
            low, high = interval(alerts, months)
            table.add_row(rule, str(alerts), f"{alerts / months:.2f}", f"{low:.2f} to {high:.2f}")
        console.print(table)
        for line, number in by_detector(found).most_common():
            console.print(f"  {line}: {number}", highlight=False)


def by_detector(found: list[Year]) -> Counter[str]:
    """Cells with evidence, by what spoke, over the years: whether or not it could open an alert."""
    seen: set[tuple[int, int, str]] = set()
    for at, year in enumerate(found):
        for one in year.findings:
            for e in one.evidence:
                if e.p_value is not None or e.detector.endswith("cusum"):
                    window = f", {e.window_days} d" if year.kind == "pass-rate" else ""
                    seen.add((at, one.row, f"{e.detector} against {e.against}{window}"))
    return Counter(line for _, _, line in seen)


if __name__ == "__main__":
    main()
