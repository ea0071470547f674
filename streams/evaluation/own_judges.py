"""The detectors as judges of every row of a reader's own series."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import stats

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray
from schemas.errors import TocsinError
from streams.evaluation.methods import METHODS, Detector

__all__ = ["RATE_DETECTORS", "Findings", "Judge", "RateSettings", "judge_of", "options_of"]

HISTORY: Final = 624
"""Latest rows that a detector is shown; none looks further back."""

RATE_DETECTORS: Final = {
    "below-target": "exact binomial tail against --target, row by row",
    "worse-than-history": "beta-binomial predictive law of up to 52 earlier rows",
    "lr-cusum": "beta-binomial log-likelihood-ratio CUSUM from --target on",
}
RATE_HISTORY: Final = 52


@dataclass(frozen=True, slots=True)
class RateSettings:
    """Options of the pass-rate detectors.

    Attributes
    ----------
    target
        Pass rate declared, as a share; needed by all but ``worse-than-history``.
    odds_ratio, arl, rho
        Of ``lr-cusum``: rise in the odds of failure to detect, rows between false alarms, intra-class correlation.
    """

    target: float | None = None
    odds_ratio: float = 2.0
    arl: float = 500.0
    rho: float = 0.0


@dataclass(frozen=True, slots=True)
class Findings:
    """A detector's evidence for equally long series, ``[series, row]``."""

    expected: FloatArray
    threshold: FloatArray
    p_value: FloatArray
    score: FloatArray
    alarm: BoolArray
    defined: BoolArray


Judge = Callable[[FloatArray, FloatArray | None, Callable[[int], None]], Findings]
"""Of events (or failures) and items tested, ``[series, row]``; is told of progress by calling with the rows done."""


def options_of(name: str) -> tuple[str, ...]:
    """The options that mean something to a detector."""
    special = {"below-target": ("alpha", "target"), "lr-cusum": ("target", "odds_ratio", "arl", "rho"), "rki-3": ()}
    return special.get(name, ("alpha",))


def judge_of(name: str, alpha: float | None, rates: RateSettings) -> Judge:
    """The judge of that name with its options."""
    if name not in RATE_DETECTORS:
        method = METHODS[name]
        assert method.detector is not None  # noqa: S101 - detector_names() has no oracle
        return _count_judge(method.detector, method.alpha if alpha is None else alpha)
    if name == "worse-than-history":
        return _history_judge(0.01 if alpha is None else alpha)
    if rates.target is None:
        raise TocsinError(f"{name} compares with a declared pass rate; give it as --target 0.98")
    if name == "below-target":
        return _target_judge(rates.target, 0.05 if alpha is None else alpha)
    return _cusum_judge(rates.target, rates)


def _count_judge(detector: Detector, alpha: float) -> Judge:
    def judge(counts: FloatArray, _: FloatArray | None, step: Callable[[int], None]) -> Findings:
        fields = ("expected", "upper", "p_value", "score", "alarm", "defined")
        said: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in fields}
        for at in range(counts.shape[1]):
            found = detector(np.ascontiguousarray(counts[:, max(at + 1 - HISTORY, 0) : at + 1]), alpha)
            for name in fields:
                said[name].append(getattr(found, name))
            step(at + 1)
        expected, upper, p_value, score, alarm, defined = (np.stack(said[name], axis=1) for name in fields)
        return Findings(expected, upper, np.where(defined, p_value, np.nan), score, alarm, defined)

    return judge


def _target_judge(target: float, alpha: float) -> Judge:
    def judge(failed: FloatArray, tested: FloatArray | None, step: Callable[[int], None]) -> Findings:
        from detectors.passrate import below_target

        n = _given(tested)
        found = below_target(n.ravel(), failed.ravel(), target, 1.0 - alpha)
        limit = stats.binom.ppf(1.0 - alpha, n, 1.0 - target)
        return _rate_findings(n * (1.0 - target), limit, found.p_value, found.alarm, found.defined, alpha)

    return judge


def _history_judge(alpha: float) -> Judge:
    def judge(failed: FloatArray, tested: FloatArray | None, step: Callable[[int], None]) -> Findings:
        from detectors.passrate import dispersion, worse_than_reference

        n = _given(tested)
        expected, p_value, alarm, defined = (np.zeros(n.shape) for _ in range(4))
        for at in range(n.shape[1]):
            before = slice(max(at - RATE_HISTORY, 0), at)
            past_n, past_x = np.ascontiguousarray(n[:, before]), np.ascontiguousarray(failed[:, before])
            found = worse_than_reference(
                n[:, at],
                failed[:, at],
                past_n.sum(axis=1),
                past_x.sum(axis=1),
                dispersion(past_n, past_x, pool=0.0),
                ref_windows=np.maximum((past_n > 0).sum(axis=1), 1),
                alpha=alpha,
            )
            expected[:, at] = n[:, at] * (1.0 - found.reference)
            p_value[:, at], alarm[:, at], defined[:, at] = found.p_value, found.alarm, found.defined
            step(at + 1)
        return _rate_findings(expected, np.full(n.shape, np.nan), p_value, alarm, defined, alpha)

    return judge


def _rate_findings(
    expected: FloatArray,
    limit: FloatArray,
    p_value: FloatArray,
    alarm: npt.NDArray[Any],
    defined: npt.NDArray[Any],
    alpha: float,
) -> Findings:
    shape, known = expected.shape, defined.astype(np.bool_).reshape(expected.shape)
    p = p_value.reshape(shape)
    score = np.log(np.maximum(p, 1e-300)) / math.log(alpha)
    return Findings(
        np.where(known, expected, np.nan),
        np.where(known, limit, np.nan),
        np.where(known, p, np.nan),
        np.where(known, score, 0.0),
        alarm.astype(np.bool_).reshape(shape),
        known,
    )


def _cusum_judge(target: float, rates: RateSettings) -> Judge:
    def judge(failed: FloatArray, tested: FloatArray | None, step: Callable[[int], None]) -> Findings:
        from detectors.lr_cusum import lr_cusum
        from detectors.run_length import threshold_for_arl

        n = _given(tested)
        limits = np.array([
            threshold_for_arl(1.0 - target, rates.odds_ratio, _usual(row), rates.rho, rates.arl) for row in n
        ])  # fmt: skip
        chart = lr_cusum(n, failed, 1.0 - target, rates.odds_ratio, threshold=limits, rho=rates.rho)
        limit = np.broadcast_to(limits[:, None], n.shape)
        unknown = np.full(n.shape, np.nan)
        return Findings(n * (1.0 - target), limit, unknown, chart.path / limit, chart.alarm, n > 0)

    return judge


def _usual(tested: FloatArray) -> int:
    """The usual size of a batch: the median of those that were tested at all."""
    return max(round(float(np.median(tested[tested > 0]))), 1) if (tested > 0).any() else 1


def _given(tested: FloatArray | None) -> FloatArray:
    if tested is None:
        raise DetectorError("tested: items in each batch")
    return tested
