"""The methods that are measured, by name: what each says of a week, and a score that a cut can be put through.

Every count detector of :mod:`detectors` is here, and two oracles, which know the mean and the dispersion that the
series were drawn with. They are yardsticks and no bounds: oracle 2 spends many of its false alarms on saying the same
thing again in the week after.

The score is what two methods are compared on at one false-positive rate: -log10 of the p-value, or (observed -
expected) / (limit - expected) where the limit is not a quantile of the law behind the p-value. Where a detector is
silent, or has too few cases to speak by its own rule, its score is minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.ears import EarsMethod, ears
from detectors.evidence import BoolArray, CountEvidence, FloatArray, IntArray
from detectors.farrington import FarringtonOptions, ThresholdMethod, farrington
from detectors.glr import glr
from detectors.predictive import predictive
from detectors.rossi import rossi
from detectors.simple_baselines import bayes, cdc, rki
from detectors.surge import SurgeOptions, surge
from detectors.tails import count_tail
from schemas.errors import TocsinError

__all__ = ["METHODS", "ORACLES", "Detector", "Judgement", "Method", "Panel", "find", "log_score"]

LEAST_P: Final = 1e-300
LEAST_CASES: Final = 0.5
"""Cases that a baseline has at least, where a mean of 0 will not do."""

GLR_WEEKS: Final = 13
"""Weeks back to which the GLR chart looks for the change."""

POOL: Final = 1.5
"""Dispersion that stands in for the pool of all streams, which a live run of the predictive law has."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Series to judge.

    Attributes
    ----------
    counts
        Events a week, ``[series, week]``.
    scored
        First column to judge; all later ones are judged too.
    start
        First column in which each series is of interest, ``[series]``: earlier ones may be left unjudged.
    mean, dispersion
        What the series were drawn with, ``[series, week]`` and ``[series]``; for the oracles alone.
    """

    counts: FloatArray
    scored: int
    start: IntArray
    mean: FloatArray | None = None
    dispersion: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """Alarms and scores, ``[series, scored week]``."""

    alarm: BoolArray
    score: FloatArray


Detector = Callable[[FloatArray, float], CountEvidence]
"""Judges the last week of ``[series, week]`` at a level."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method by its name.

    Attributes
    ----------
    name, title
        For the command line, and for people.
    judge
        Alarms and scores at the nominal level.
    alpha
        Nominal level; NaN of charts whose limit is given otherwise.
    detector
        Judges one week, for a reader's own series; None where a week alone cannot be judged.
    """

    name: str
    title: str
    judge: Callable[[Panel], Judgement]
    alpha: float
    detector: Detector | None = None


# --- detectors that judge the last week of a window ---------------------------------------------------------


def log_score(p_value: FloatArray) -> FloatArray:
    """-log10 of a p-value."""
    return np.asarray(-np.log10(np.maximum(p_value, LEAST_P)))


def _weekly(
    name: str,
    title: str,
    alpha: float,
    detector: Detector,
    *,
    least: tuple[int, int] = (0, 1),
    by_excess: bool = False,
) -> Method:
    """A method from a detector; `least` is its own rule (cases, weeks) under which it is silent."""

    def judge(panel: Panel) -> Judgement:
        series, weeks = panel.counts.shape
        alarm = np.zeros((series, weeks - panel.scored), dtype=np.bool_)
        score = np.full(alarm.shape, -np.inf)
        for at in range(panel.scored, weeks):
            rows = np.flatnonzero(panel.start <= at)
            if rows.size == 0:
                continue
            found = detector(np.ascontiguousarray(panel.counts[rows, : at + 1]), alpha)
            recent = panel.counts[rows, max(at + 1 - least[1], 0) : at + 1].sum(axis=1)
            said = found.score if by_excess else log_score(found.p_value)
            alarm[rows, at - panel.scored] = found.alarm
            score[rows, at - panel.scored] = np.where(found.defined & (recent >= least[0]), said, -np.inf)
        return Judgement(alarm, score)

    return Method(name, title, judge, alpha, detector)


def _surge(counts: FloatArray, alpha: float) -> CountEvidence:
    return surge(counts, options=SurgeOptions(alpha=alpha))


def _farrington(threshold_method: ThresholdMethod) -> Detector:
    def detector(counts: FloatArray, alpha: float) -> CountEvidence:
        return farrington(counts, options=FarringtonOptions(alpha=alpha, threshold_method=threshold_method))

    return detector


def _original_farrington(counts: FloatArray, alpha: float) -> CountEvidence:
    """Farrington et al. (1996): reference windows only, and every past week over the expected is weighed down."""
    options = FarringtonOptions(
        alpha=alpha, n_periods=1, exclude_recent=3, weights_threshold=1.0, threshold_method="delta"
    )
    return farrington(counts, options=options)


def _ears(chart: EarsMethod) -> Detector:
    def detector(counts: FloatArray, alpha: float) -> CountEvidence:
        # As published, without a floor under the standard deviation: so the figures of others can be compared.
        return ears(counts, chart, alpha, min_sigma=0.0)

    return detector


def _predictive(counts: FloatArray, alpha: float) -> CountEvidence:
    return predictive(counts, pool=POOL, alpha=alpha)


def _bayes(years_back: int, half_window: int, this_year: bool) -> Detector:
    def detector(counts: FloatArray, alpha: float) -> CountEvidence:
        return bayes(counts, years_back=years_back, half_window=half_window, this_year=this_year, alpha=alpha)

    return detector


def _rki(counts: FloatArray, alpha: float) -> CountEvidence:
    """RKI 3; its level is fixed."""
    return rki(counts)


def _cdc(counts: FloatArray, alpha: float) -> CountEvidence:
    """Looks back 267 weeks, and so is silent in the benchmark's first four."""
    return cdc(counts, alpha=alpha)


# --- charts that carry a sum from week to week --------------------------------------------------------------


def _judge_rossi(panel: Panel) -> Judgement:
    """Rossi's CUSUM through the scored weeks, with the mean of the weeks before them."""
    baseline = panel.counts[:, : panel.scored]
    mean = np.maximum(baseline.sum(axis=1), LEAST_CASES) / panel.scored
    chart = rossi(panel.counts[:, panel.scored :], mean)
    return Judgement(chart.alarm, chart.path)


def _judge_glr(panel: Panel) -> Judgement:
    """The Poisson GLR chart through the scored weeks, each with the mean that Farrington's regression expects."""
    weeks = range(panel.scored, panel.counts.shape[1])
    expect = _farrington("nbPlugin")
    mean = np.stack([expect(np.ascontiguousarray(panel.counts[:, : at + 1]), ALPHA).expected for at in weeks], axis=1)
    if np.isnan(mean).any():
        raise TocsinError("glr: needs 263 weeks before the first one scored; leave it out with --methods")
    counts = panel.counts[:, panel.scored :]
    # For the score no alarm starts the chart anew: which would be one is not known yet.
    endless = glr(counts, mean, threshold=1e12, longest=GLR_WEEKS)
    return Judgement(glr(counts, mean, longest=GLR_WEEKS).alarm, endless.statistic)


# --- oracles ------------------------------------------------------------------------------------------------


def _oracle(weeks: int) -> Callable[[Panel], Judgement]:
    """The tail of the true law: of the week's count alone, or the smaller tail of it and of a two-week sum."""

    def judge(panel: Panel) -> Judgement:
        if panel.mean is None or panel.dispersion is None:
            raise TocsinError("the oracles know the law of scenarios 1 to 42 only; leave them out with --methods")
        p_value = np.ones((len(panel.counts), panel.counts.shape[1] - panel.scored))
        phi = np.broadcast_to(panel.dispersion[:, None], p_value.shape)
        count, mean = np.zeros(p_value.shape), np.zeros(p_value.shape)
        end = panel.counts.shape[1]
        for lag in range(weeks):
            columns = slice(panel.scored - lag, end - lag)
            count = count + panel.counts[:, columns]
            mean = mean + panel.mean[:, columns]
            p_value = np.minimum(p_value, count_tail(count, mean, phi))
        return Judgement(p_value <= ALPHA, log_score(p_value))

    return judge


# --- the registry -------------------------------------------------------------------------------------------

ALPHA: Final = 0.01
_FEW: Final = (5, 4)  # Farrington's rule: five cases in four weeks

_LISTED: Final = (
    _weekly("tocsin", "Tocsin's own: surge after surprise", SurgeOptions().alpha, _surge,
            least=SurgeOptions().least_cases),
    _weekly("farrington", "improved Farrington, negative binomial limit", ALPHA, _farrington("nbPlugin"), least=_FEW),
    _weekly(
        "farrington-delta", "improved Farrington, 2/3-power limit", ALPHA, _farrington("delta"), least=_FEW,
        by_excess=True,
    ),
    _weekly("farrington-muan", "improved Farrington, limit of the mean's limit", ALPHA, _farrington("muan"),
            least=_FEW),
    _weekly("farrington-original", "Farrington 1996", ALPHA, _original_farrington, least=_FEW, by_excess=True),
    _weekly("ears-c1", "EARS C1", ALPHA, _ears("C1")),
    _weekly("ears-c2", "EARS C2", ALPHA, _ears("C2")),
    _weekly("ears-c3", "EARS C3", ALPHA, _ears("C3")),
    _weekly("predictive", "gamma-Poisson predictive law, one year", ALPHA, _predictive, least=(3, 4)),
    _weekly("bayes-1", "Bayes 1: six weeks", 0.05, _bayes(0, 6, True)),
    _weekly("bayes-2", "Bayes 2: six weeks, and thirteen a year ago", 0.05, _bayes(1, 6, True)),
    _weekly("bayes-3", "Bayes 3: nine weeks in each of two years", 0.05, _bayes(2, 4, False)),
    _weekly("rki-3", "RKI 3: nine weeks in each of two years", 0.025, _rki, by_excess=True),
    _weekly("cdc", "CDC: four weeks against fifteen blocks of four", 0.0125, _cdc),
    Method("cusum-rossi", "Poisson CUSUM after Rossi", _judge_rossi, math.nan),
    Method("glr", "Poisson GLR chart on Farrington's regression", _judge_glr, math.nan),
    Method("oracle", "knows the law; the week alone", _oracle(1), ALPHA),
    Method("oracle-2", "knows the law; the better of one and two weeks", _oracle(2), ALPHA),
)  # fmt: skip

METHODS: Final[dict[str, Method]] = {method.name: method for method in _LISTED}
ORACLES: Final = frozenset(("oracle", "oracle-2"))


def find(name: str) -> Method:
    """The method of that name.

    Raises
    ------
    TocsinError
        If there is none.
    """
    if name not in METHODS:
        raise TocsinError(f"no method is called {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]
