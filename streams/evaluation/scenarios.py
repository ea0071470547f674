"""The benchmark's 42 scenarios: weekly counts with outbreaks that are known.

Noufaily, Enki, Farrington, Garthwaite, Andrews and Charlett (2013), "An improved algorithm for outbreak detection in
multiple surveillance systems", *Statistics in Medicine* 32, 1206-1222, section 4 and table II; as used to compare 21
methods by Bedubourg and Le Strat (2017), *PLoS ONE* 12(7), e0181227.

The counts of week t have the mean::

    mu(t) = exp(theta + beta t + sum_{j <= m} [gamma1 cos(2 pi j t / 52) + gamma2 sin(2 pi j t / 52)])

and a negative binomial law of variance phi mu (Poisson at phi = 1). Of weeks 1 to 624, weeks 313 to 575 are baseline
and weeks 576 to 624 are scored; the first 312 are never looked at, and not drawn. An outbreak that starts in week s
has Poisson(k sqrt(phi mu(s))) cases, drawn again until there are 2, each in week s + floor(LogNormal(0, 0.5)). Four lie
in the baseline, one each of k = 2, 3, 5 and 10. The current one starts in a scored week, with k from 1 to 10; starts
and sizes are equally likely. Cases after week 624 are not seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.evidence import BoolArray, FloatArray, IntArray

__all__ = ["FIRST_WEEK", "LAST_WEEK", "SCORED_FROM", "Draws", "Scenario", "draw", "draw_outbreak", "scenarios"]

FIRST_WEEK: Final = 313
SCORED_FROM: Final = 576
LAST_WEEK: Final = 624
PAST_SIZES: Final = (2, 3, 5, 10)
LARGEST_CURRENT: Final = 10
LEAST_CASES: Final = 2


@dataclass(frozen=True, slots=True)
class Scenario:
    """One row of the published table."""

    number: int
    theta: float
    phi: float
    beta: float
    gamma1: float
    gamma2: float
    m: int

    def mean(self, week: npt.ArrayLike) -> FloatArray:
        """mu(t), events expected in each week without any outbreak."""
        t = np.asarray(week, dtype=np.float64)
        log_mean = self.theta + self.beta * t
        for j in range(1, self.m + 1):
            angle = 2.0 * np.pi * j * t / 52.0
            log_mean = log_mean + self.gamma1 * np.cos(angle) + self.gamma2 * np.sin(angle)
        return np.asarray(np.exp(log_mean))


@cache
def scenarios() -> tuple[Scenario, ...]:
    """The 42 rows, by number."""
    text = (files("streams.evaluation") / "noufaily42.csv").read_text(encoding="ascii")
    rows = (line.split(",") for line in text.splitlines()[1:])
    return tuple(
        Scenario(int(number), float(theta), float(phi), float(beta), float(gamma1), float(gamma2), int(m))
        for number, theta, phi, beta, gamma1, gamma2, m, _ in rows
    )


@dataclass(frozen=True, slots=True)
class Draws:
    """Many series of the benchmark, cases by origin.

    Attributes
    ----------
    scenario, rep
        Of which scenario, and which replicate of it, ``[series]``.
    first_week
        Number of the week of the first column; the last is week 624.
    baseline, past, current
        Cases of the background, of the past outbreaks, of the current one, ``[series, week]``.
    """

    scenario: IntArray
    rep: IntArray
    first_week: int
    baseline: IntArray
    past: IntArray
    current: IntArray

    def __len__(self) -> int:
        return len(self.scenario)

    @property
    def weeks(self) -> IntArray:
        """Numbers of the columns' weeks."""
        return np.arange(self.first_week, LAST_WEEK + 1)

    @property
    def scored(self) -> slice:
        """The columns that are scored."""
        return slice(SCORED_FROM - self.first_week, None)

    @property
    def outbreak(self) -> BoolArray:
        """Scored weeks with a case of the current outbreak, ``[series, scored week]``."""
        return np.asarray(self.current[:, self.scored] > 0)


def draw(replicates: int, seed: int, only: tuple[Scenario, ...] | None = None) -> Draws:
    """Draw replicates 1 to `replicates` of every scenario (or of those in `only`).

    Each series has a generator of its own, keyed by seed, scenario and replicate: it is the same whichever others are
    drawn with it.
    """
    rows = [(scenario, rep) for scenario in only or scenarios() for rep in range(1, replicates + 1)]
    weeks = LAST_WEEK - FIRST_WEEK + 1
    cases = np.zeros((3, len(rows), weeks), dtype=np.int64)
    for row, (scenario, rep) in enumerate(rows):
        sequence = np.random.SeedSequence(seed, spawn_key=(scenario.number, rep))
        cases[:, row] = _draw_series(np.random.Generator(np.random.Philox(sequence)), scenario)
    return Draws(
        scenario=np.array([scenario.number for scenario, _ in rows], dtype=np.int64),
        rep=np.array([rep for _, rep in rows], dtype=np.int64),
        first_week=FIRST_WEEK,
        baseline=cases[0],
        past=cases[1],
        current=cases[2],
    )


def _draw_series(rng: np.random.Generator, scenario: Scenario) -> IntArray:
    """Baseline, past and current cases, ``[3, week]``."""
    mean = scenario.mean(np.arange(FIRST_WEEK, LAST_WEEK + 1))
    deviation = np.sqrt(scenario.phi * mean)
    scored = SCORED_FROM - FIRST_WEEK
    cases = np.zeros((3, mean.size), dtype=np.int64)
    if scenario.phi > 1.0:
        cases[0] = rng.negative_binomial(mean / (scenario.phi - 1.0), 1.0 / scenario.phi)
    else:
        cases[0] = rng.poisson(mean)
    for k in PAST_SIZES:
        start = int(rng.integers(scored))
        cases[1] += draw_outbreak(rng, start, k * deviation[start], mean.size)
    start = int(rng.integers(scored, mean.size))
    k = int(rng.integers(1, LARGEST_CURRENT + 1))
    cases[2] = draw_outbreak(rng, start, k * deviation[start], mean.size)
    return cases


def draw_outbreak(rng: np.random.Generator, start: int, expected: float, weeks: int) -> IntArray:
    """Cases by column of one outbreak of `expected` cases (before it is drawn again until there are 2)."""
    size = 0
    while size < LEAST_CASES:
        size = int(rng.poisson(expected))
    delay = np.floor(rng.lognormal(0.0, 0.5, size)).astype(np.int64)
    at = start + delay
    return np.bincount(at[at < weeks], minlength=weeks)
