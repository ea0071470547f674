"""What a method's alarms are worth: seven measures, each with its standard error.

Noufaily et al. (2013), section 4.3, and Bedubourg and Le Strat (2017), table 2. An *outbreak week* is a scored week
with a case of the current outbreak.

=================  =====================================================================================
``fpr``            alarms over scored weeks, in the series without the current outbreak
``specificity``    weeks without an alarm over weeks, of the weeks of the series with it that are no outbreak week
``pod``            outbreaks with an alarm in any outbreak week, over outbreaks (probability of detection)
``pod_first_week`` outbreaks with an alarm in their first week, over outbreaks
``sensitivity``    outbreak weeks with an alarm, over outbreak weeks
``ppv``            alarms that lie in an outbreak week, over alarms, in the series with the outbreak
``delay``          weeks from the first outbreak week to the first alarm in one; of the outbreaks detected
=================  =====================================================================================

Each is a ratio of two sums over series in which every scenario weighs the same, whatever its number of replicates. The
weeks of a series are not independent, so the standard error is that of a ratio with the series as the unit and the
scenarios as strata (Cochran, *Sampling Techniques*, 1977, section 6.11).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.evidence import BoolArray, FloatArray, IntArray

__all__ = ["MEASURES", "Estimate", "Parts", "cut_for", "estimate", "halves", "parts"]

MEASURES: Final = ("fpr", "specificity", "pod", "pod_first_week", "sensitivity", "ppv", "delay")

Parts = dict[str, tuple[FloatArray, FloatArray]]
"""Of each measure what every series adds to the two sums, ``[series]`` each."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measure's value and its standard error; NaN where there is nothing to take them from."""

    value: float
    se: float


def parts(without: BoolArray, with_current: BoolArray, outbreak: BoolArray) -> Parts:
    """Numerators and denominators of all measures.

    Parameters
    ----------
    without, with_current
        Alarms in the series without and with the current outbreak, ``[series, scored week]``.
    outbreak
        Outbreak weeks, of the same shape.
    """
    hit = with_current & outbreak
    quiet = ~outbreak
    there, detected = np.any(outbreak, axis=1), np.any(hit, axis=1)
    first = outbreak.argmax(axis=1)
    at_once = hit[np.arange(len(hit)), first]
    delay = np.where(detected, hit.argmax(axis=1) - first, 0)
    found: dict[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]] = {
        "fpr": (without.sum(axis=1), np.full(len(without), without.shape[1])),
        "specificity": ((quiet & ~with_current).sum(axis=1), quiet.sum(axis=1)),
        "pod": (detected, there),
        "pod_first_week": (at_once, there),
        "sensitivity": (hit.sum(axis=1), outbreak.sum(axis=1)),
        "ppv": (hit.sum(axis=1), with_current.sum(axis=1)),
        "delay": (delay, detected),
    }
    return {name: (over.astype(np.float64), under.astype(np.float64)) for name, (over, under) in found.items()}


def estimate(over: FloatArray, under: FloatArray, scenario: IntArray) -> Estimate:
    """The ratio of the sums, every scenario weighing the same, with its standard error.

    The error is NaN where a scenario has a single series.
    """
    _, stratum, size = np.unique(scenario, return_inverse=True, return_counts=True)
    weight = 1.0 / (len(size) * size[stratum])
    total = math.fsum(weight * under)
    if total == 0.0:
        return Estimate(math.nan, math.nan)
    value = math.fsum(weight * over) / total
    if size.min() < 2:
        return Estimate(value, math.nan)
    rest = (over - value * under) / total
    mean = np.bincount(stratum, rest) / size
    square = np.bincount(stratum, (rest - mean[stratum]) ** 2)
    variance = math.fsum(square / (size - 1) / size) / len(size) ** 2
    return Estimate(value, math.sqrt(variance))


# --- at a matched false-positive rate -----------------------------------------------------------------------


def halves(scenario: IntArray, rep: IntArray) -> BoolArray | None:
    """Split each scenario's series in two by the order of their replicates; None where one has a single series."""
    second = np.zeros(len(scenario), dtype=np.bool_)
    for number in np.unique(scenario):
        rows = np.flatnonzero(scenario == number)
        if rows.size < 2:
            return None
        second[rows[np.argsort(rep[rows], kind="stable")][1::2]] = True
    return second


def cut_for(score: FloatArray, scenario: IntArray, fpr: float) -> float:
    """The least cut with at most the false-positive rate `fpr`, when an alarm is a score above the cut.

    Infinite where more than that share of the weeks ties at the top, so that no cut can tell them apart.

    Parameters
    ----------
    score
        Scores of series without the current outbreak, ``[series, scored week]``.
    scenario
        ``[series]``; every scenario weighs the same.
    """
    _, stratum, size = np.unique(scenario, return_inverse=True, return_counts=True)
    weight = np.repeat(1.0 / (len(size) * size[stratum] * score.shape[1]), score.shape[1])
    values, place = np.unique(score, return_inverse=True)
    share = np.bincount(place.ravel(), weight, minlength=len(values))
    if share[-1] > fpr:
        return math.inf
    above = np.concatenate([np.cumsum(share[::-1])[::-1][1:], [0.0]])
    return float(values[np.argmax(above <= fpr + 1e-12)])
