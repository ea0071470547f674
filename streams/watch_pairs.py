"""Pairs of product and kind of injury that come together more often than before, and more often than chance.

The last weeks are held against all that came before (:mod:`detectors.pair_change`): a drug that has always had its
adverse reactions is no news. A pair must stand out against independence too, by the lower bound of the gamma-Poisson
shrinker. The shrinker's parameters are fitted to the past when that has grown by a tenth, and kept in the state.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from detectors.disproportionality import PairEvidence, score_pairs
from detectors.gamma_poisson import GammaMixture, fit_mixture
from detectors.pair_change import PairChange, pair_change
from schemas.alerts import Evidence, Signal
from streams.config import HazardRules
from streams.finding import rounded
from streams.labs import week_of
from streams.tally import PairCount

__all__ = ["PairWatch"]

_GROWN = 1.1
_WEEK = 7
Pair = tuple[str, str]
Rows = list[tuple[str, str, int]]
Floats = npt.NDArray[np.float64]


class _State(msgspec.Struct, array_like=True):
    week: int | None
    past: Rows
    weeks: list[Rows]
    theta: tuple[float, float, float, float, float] | None
    fitted: int


class PairWatch:
    """Reports by product and kind of injury, over all branches: the past, and the last weeks one by one."""

    def __init__(self, rules: HazardRules) -> None:
        self._rules = rules
        self._week: int | None = None
        """The running week; it stands last in the list."""
        self._past: Counter[Pair] = Counter()
        self._weeks: list[Counter[Pair]] = [Counter()]
        self._held: set[Pair] = set()
        """Every pair in any of these tables; none of them holds a zero."""
        self._theta: GammaMixture | None = None
        self._fitted = 0

    def add(self, day: int, pairs: list[PairCount]) -> None:
        """Add a day's reports to its week. Beyond the bound new pairs are left out, and what is taken back of them."""
        if not pairs:
            return
        self._turn(week_of(day))
        running = self._weeks[-1]
        for pair in pairs:
            key = (pair.product, pair.hazard)
            if key in self._held or (pair.reports > 0 and len(self._held) < self._rules.max_pairs):
                running[key] += pair.reports
                self._settle(running, key)

    def _settle(self, table: Counter[Pair], key: Pair) -> None:
        """Keep no zeros: a restored state has none."""
        if table[key]:
            self._held.add(key)
            return
        del table[key]
        if key not in self._past and not any(key in week for week in self._weeks):
            self._held.discard(key)

    def _turn(self, week: int) -> None:
        """Make a week the running one; weeks that leave the window become the past."""
        if self._week is None:
            self._week = week
        for _ in range(min(week - self._week, self._rules.window_weeks)):
            self._weeks.append(Counter())
            if len(self._weeks) > self._rules.window_weeks:
                gone = self._weeks.pop(0)
                self._past.update(gone)
                for key in gone:
                    self._settle(self._past, key)
        self._week = max(self._week, week)

    def judge(self, past: int, about: dict[str, Any]) -> list[Signal]:
        """Signals for pairs reported in the week that has ended with a day, or last before it."""
        if self._week is None:
            return []
        ended = week_of(past + 1) - 1
        self._turn(ended)
        if self._week > ended:
            return []
        fresh = sorted(key for key, count in self._weeks[-1].items() if count > 0)
        recent: Counter[Pair] = Counter()
        for week in self._weeks:
            recent.update(week)
        keys = [key for key in fresh if recent[key] >= self._rules.min_reports]
        return self._judge(keys, recent, about) if keys else []

    def _judge(self, keys: list[Pair], recent: Counter[Pair], about: dict[str, Any]) -> list[Signal]:
        total = self._past.total()
        if total < self._rules.min_total:
            return []
        self._fit(total)
        if self._theta is None:
            return []
        n, margin = _counts(recent, keys), _expected(recent, keys)
        change = pair_change(_counts(self._past, keys), _expected(self._past, keys), n, margin, self._theta)
        shrunk = score_pairs(n, margin, self._theta, least_eb05=self._rules.eb05, least_reports=self._rules.min_reports)
        hits = np.flatnonzero(shrunk.signal & change.defined & (change.p_value <= self._rules.alpha))
        return [self._signal(keys[at], change, shrunk, at, about) for at in hits.tolist()]

    def _fit(self, total: int) -> None:
        if self._theta is not None and total < _GROWN * self._fitted:
            return
        keys = sorted(key for key, count in self._past.items() if count > 0)
        fit = fit_mixture(_counts(self._past, keys), _expected(self._past, keys), start=self._theta)
        self._fitted = total
        if fit.defined:
            self._theta = fit.theta

    def _signal(self, key: Pair, change: PairChange, shrunk: PairEvidence, at: int, about: dict[str, Any]) -> Signal:
        p, observed = float(change.p_value[at]), float(change.observed[at])
        window = self._rules.window_weeks * _WEEK
        evidence = [
            Evidence(
                detector="gamma-poisson-predictive",
                against="own-history",
                window_days=window,
                observed=observed,
                expected=rounded(float(change.expected[at])),
                p_value=rounded(p),
                recurrence_days=rounded(_WEEK / max(p, 1e-300)),
            ),
            Evidence(
                detector="gamma-poisson-shrinker",
                against="independence",
                window_days=window,
                observed=observed,
                expected=rounded(float(change.independent[at])),
                statistic=rounded(float(shrunk.ebgm[at])),
                lower=rounded(float(shrunk.eb05[at])),
                upper=rounded(float(shrunk.eb95[at])),
                threshold=self._rules.eb05,
            ),
        ]
        return Signal(
            **about,
            kind="new-hazard",
            product=key[0],
            region="*",
            level=4,
            p_value=p,
            excess=observed - float(change.expected[at]),
            evidence=evidence,
            hazard=key[1],
        )

    def pack(self) -> bytes:
        theta = self._theta
        held = None if theta is None else (theta.alpha1, theta.beta1, theta.alpha2, theta.beta2, theta.weight)
        weeks = [_rows(week) for week in self._weeks]
        return msgspec.msgpack.encode(_State(self._week, _rows(self._past), weeks, held, self._fitted))

    def unpack(self, data: bytes) -> None:
        state = msgspec.msgpack.decode(data, type=_State)
        self._week = state.week
        self._past = _counter(state.past)
        self._weeks = [_counter(week) for week in state.weeks]
        self._held = set(self._past).union(*self._weeks)
        self._theta = None if state.theta is None else GammaMixture(*state.theta)
        self._fitted = state.fitted


def _counts(table: Counter[Pair], keys: list[Pair]) -> Floats:
    # A report taken back in a later week leaves a negative number in that week.
    return np.array([max(table[key], 0) for key in keys], np.float64)


def _expected(table: Counter[Pair], keys: list[Pair]) -> Floats:
    """Reports expected under independence: margin times margin over the total."""
    products: Counter[str] = Counter()
    hazards: Counter[str] = Counter()
    for (product, hazard), count in table.items():
        products[product] += count
        hazards[hazard] += count
    margins = [max(products[product], 0) * max(hazards[hazard], 0) for product, hazard in keys]
    return np.array(margins, np.float64) / max(table.total(), 1)


def _rows(table: Counter[Pair]) -> Rows:
    return [(*key, table[key]) for key in sorted(table)]


def _counter(rows: Rows) -> Counter[Pair]:
    return Counter({(product, hazard): count for product, hazard, count in rows})
