"""E-detectors and e-processes of pass rates: evidence that may be looked at every day.

Shin, Ramdas and Rinaldo (2024), "E-detectors: a nonparametric framework for sequential change detection", *New England
Journal of Statistics in Data Science* 2, 229-260. Let L_t be a factor of batch t whose mean, whatever came before, is
at most 1 as long as nothing has gone wrong. Then::

    e-process   M_t = M_{t-1} L_t              E[M] <= 1 at any stopping time
    e-CUSUM     M_t = max(M_{t-1}, 1) L_t      stop at M >= 1 / alpha: average run length >= 1 / alpha
    e-SR        M_t = (M_{t-1} + 1) L_t        the same, sooner; E[M_t] <= t

A mixture of any of the three over alternatives k, with weights fixed beforehand, is one again.

Which factor protects which null hypothesis:

- :func:`likelihood_factors` with rho = 0: items fail independently, each with probability at most p0.
- :func:`likelihood_factors` with rho > 0: batches are beta-binomial with a rate of at most p0 and this very rho. The
  likelihood ratio rises in the failures and these rise in the rate, so that p0 is the worst case.
- :func:`betting_factors`: the mean of a batch's failed share, given the past, is at most p0. Nothing else: batches may
  be over-dispersed in any way, their items all alike (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random
  variables by betting", *JRSS B* 86, 1-27). Safe, and slower.

The batch size may depend on the past, not on what the batch will show. A detector's value is no e-value: for e-BH over
many streams take :func:`e_process` from a column fixed beforehand, or :func:`epoch_e_value`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, as_parameter, as_samples, check_fraction
from detectors.lr_cusum import log_likelihood_ratio

__all__ = [
    "EDetectorEvidence",
    "EKind",
    "betting_factors",
    "e_detector",
    "e_process",
    "epoch_e_value",
    "likelihood_factors",
]

EKind: TypeAlias = Literal["cusum", "sr"]

ODDS_RATIOS = (1.25, 1.5, 2.0, 3.0, 5.0, 8.0)
"""Alternatives of the default mixture: from a quarter more to eightfold."""

BETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Stakes of the default mixture, in units of the largest allowed, 1 / p0."""


@dataclass(frozen=True, slots=True)
class EDetectorEvidence:
    """What an e-detector or an e-process says.

    Attributes
    ----------
    log_value
        Natural logarithm of the mixture after each batch, ``[series, time]``.
    alarm
        log_value >= log(1 / alpha), ``[series, time]``.
    state
        Logarithm of each component, ``[series, alternatives]``: with it as ``start`` the next run goes on
        exactly as if it had never stopped.
    """

    log_value: FloatArray
    alarm: BoolArray
    state: FloatArray


def likelihood_factors(
    tested: npt.ArrayLike,
    failed: npt.ArrayLike,
    p0: npt.ArrayLike,
    *,
    odds_ratios: npt.ArrayLike = ODDS_RATIOS,
    rho: npt.ArrayLike = 0.0,
) -> FloatArray:
    """Log-likelihood ratio of each batch under each alternative, ``[series, time, alternatives]``.

    Parameters
    ----------
    tested, failed
        Items in each batch, ``[series, time]``; an empty batch has factor 1.
    p0
        Highest rate that is still in order, strictly between 0 and 1: one, ``[series]`` or ``[series, time]``.
    odds_ratios
        Alternatives, above 1, ``[alternatives]``: at rho = 0 the exponential tilts exp(lambda x - n log(1 - p0 + p0
        e^lambda)) with lambda the log of each.
    rho
        Intra-class correlation, one or ``[series]``, from 0 to under 1.

    Raises
    ------
    DetectorError
        If counts are not counts, more failed than were tested, or a parameter is out of range.
    """
    n, x = as_samples(tested, failed, ndim=2)
    ratios = _grid(odds_ratios, "odds_ratios", low=1.0, high=np.inf)
    mean = _rates(p0, n.shape)
    correlation = as_parameter(rho, "rho", n.shape[:1], low=0.0, high=1.0, open_ends=False)
    clustered = correlation > 0.0
    factors = np.empty((*n.shape, ratios.size))
    for k, ratio in enumerate(ratios):
        tilt = x * np.log(ratio) - n * np.log1p(mean * (ratio - 1.0))
        some = log_likelihood_ratio(n[clustered], x[clustered], mean[clustered], float(ratio), correlation[clustered])
        factors[:, :, k] = tilt
        factors[clustered, :, k] = some
    return factors


def betting_factors(
    tested: npt.ArrayLike, failed: npt.ArrayLike, p0: npt.ArrayLike, *, bets: npt.ArrayLike = BETS
) -> FloatArray:
    """log(1 + (bet / p0)(failed / tested - p0)) of each batch and bet, ``[series, time, bets]``.

    Parameters
    ----------
    tested, failed
        Items in each batch, ``[series, time]``; an empty batch has factor 1.
    p0
        Highest mean share that is still in order, strictly between 0 and 1: one, ``[series]`` or ``[series, time]``.
    bets
        Share of the capital that a batch without any failure costs, strictly between 0 and 1.

    Raises
    ------
    DetectorError
        If counts are not counts, more failed than were tested, or a parameter is out of range.
    """
    n, x = as_samples(tested, failed, ndim=2)
    mean = _rates(p0, n.shape)
    gain = np.where(n > 0, x / np.maximum(n, 1.0) / mean - 1.0, 0.0)
    return np.log1p(gain[:, :, None] * _grid(bets, "bets", low=0.0, high=1.0))


def e_detector(
    log_factors: npt.ArrayLike,
    kind: EKind = "cusum",
    *,
    alpha: float = 1e-3,
    weights: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
) -> EDetectorEvidence:
    """Run a mixture e-CUSUM or e-SR over the batches of many series.

    Parameters
    ----------
    log_factors
        ``[series, time, alternatives]``, from :func:`likelihood_factors` or :func:`betting_factors`.
    kind
        ``"cusum"`` or ``"sr"``.
    alpha
        Alarms come at a value of 1 / alpha, which is also the least average run length, in batches.
    weights
        Of the alternatives, not negative, of sum 1; equal by default.
    start
        ``state`` of the run before, ``[series, alternatives]``.

    Raises
    ------
    DetectorError
        If the factors hold NaN or infinity above, shapes disagree, or an option is out of range.

    Examples
    --------
    >>> factors = likelihood_factors([[50, 50, 50]], [[1, 6, 7]], 0.02)
    >>> found = e_detector(factors, "sr", alpha=0.01)
    >>> found.log_value.round(3).tolist(), found.alarm.tolist()
    ([[-0.638, 5.069, 12.612]], [[False, True, True]])
    """
    if kind not in get_args(EKind):
        raise DetectorError(f"kind: must be one of {', '.join(get_args(EKind))}, found {kind!r}")
    factors, mix = _checked(log_factors, weights)
    state = _start(start, factors)
    return _run(factors, mix, state, check_fraction(alpha, "alpha"), kind)


def e_process(
    log_factors: npt.ArrayLike,
    *,
    since: int = 0,
    alpha: float = 1e-3,
    weights: npt.ArrayLike | None = None,
    start: npt.ArrayLike | None = None,
) -> EDetectorEvidence:
    """Run the mixture e-process that starts with 1 before column `since`: an e-value at every column.

    Parameters
    ----------
    log_factors, weights
        As for :func:`e_detector`.
    since
        First column that counts. It must be fixed before any of the data from it on is seen.
    alpha
        By Ville's inequality an alarm ever comes with probability at most alpha.
    start
        ``state`` of the run before; by default a capital of 1 on each alternative.
    """
    factors, mix = _checked(log_factors, weights)
    if not 0 <= since <= factors.shape[1]:
        raise DetectorError(f"since: must be a column from 0 to {factors.shape[1]}, found {since}")
    state = np.zeros((factors.shape[0], factors.shape[2])) if start is None else _start(start, factors)
    factors[:, :since] = 0.0
    return _run(factors, mix, state, check_fraction(alpha, "alpha"), "process")


def epoch_e_value(log_factors: npt.ArrayLike, *, weights: npt.ArrayLike | None = None) -> FloatArray:
    """Log e-value of a change at some unknown column of an epoch, after each column, ``[series, time]``.

    The columns are one epoch of T batches, its start and length fixed beforehand (a calendar quarter). The change may
    have come before any of them, equally likely::

        e_t = (SR_t + (T - t)) / T,    E[e_t] <= 1 at any stopping time

    so that, unlike the e-SR itself, it is fit for e-BH; its cost against knowing the column is a factor of T.

    Parameters
    ----------
    log_factors, weights
        As for :func:`e_detector`.
    """
    factors, mix = _checked(log_factors, weights)
    length = factors.shape[1]
    state = np.full((factors.shape[0], factors.shape[2]), -np.inf)
    log_sr = _run(factors, mix, state, 0.5, "sr").log_value
    with np.errstate(divide="ignore"):
        rest = np.log(np.arange(length - 1, -1, -1.0))
    return np.asarray(np.logaddexp(log_sr, rest) - np.log(max(length, 1)))


def _run(
    factors: FloatArray, mix: FloatArray, state: FloatArray, alpha: float, kind: Literal["cusum", "sr", "process"]
) -> EDetectorEvidence:
    log_value = np.empty(factors.shape[:2])
    for t in range(factors.shape[1]):
        if kind == "cusum":
            state = np.maximum(state, 0.0)
        elif kind == "sr":
            state = np.logaddexp(state, 0.0)
        state = state + factors[:, t]
        log_value[:, t] = _mixed(state, mix)
    return EDetectorEvidence(log_value, log_value >= -np.log(alpha), state)


def _mixed(state: FloatArray, mix: FloatArray) -> FloatArray:
    """Log of the weighted sum, added from the left: a sum along an axis would hang on the batch's shape."""
    top = state.max(axis=1)
    base = np.where(np.isfinite(top), top, 0.0)
    total = np.cumsum(np.exp(state - base[:, None]) * mix, axis=1)[:, -1]
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(total) + base)


def _checked(log_factors: npt.ArrayLike, weights: npt.ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    factors = np.array(log_factors, dtype=np.float64)
    if factors.ndim != 3 or factors.shape[2] == 0:
        raise DetectorError("log_factors: expected [series, time, alternatives], at least one alternative")
    if not np.all(factors < np.inf):  # NaN too
        raise DetectorError("log_factors: NaN or infinite; fill gaps with 0")
    count = factors.shape[2]
    given = np.full(count, 1.0 / count) if weights is None else weights
    mix = as_parameter(given, "weights", (count,), low=0.0, high=1.0, open_ends=False)
    if abs(float(mix.sum()) - 1.0) > 1e-9:
        raise DetectorError("weights: must sum to 1")
    return factors, mix


def _start(start: npt.ArrayLike | None, factors: FloatArray) -> FloatArray:
    shape = (factors.shape[0], factors.shape[2])
    if start is None:
        return np.full(shape, -np.inf)
    return as_parameter(start, "start", shape, low=-np.inf, high=np.inf, open_ends=False)


def _rates(p0: npt.ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    given = np.asarray(p0, dtype=np.float64)
    return as_parameter(given[:, None] if given.ndim == 1 else given, "p0", shape, low=0.0, high=1.0)


def _grid(values: npt.ArrayLike, name: str, *, low: float, high: float) -> FloatArray:
    array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or array.size == 0:
        raise DetectorError(f"{name}: expected one row of values, at least one")
    return as_parameter(array, name, array.shape, low=low, high=high)
