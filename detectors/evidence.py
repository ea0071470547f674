"""The shapes that all detectors share: evidence out, checked arrays in.

Every detector takes arrays ``[series, time]`` and returns one frozen dataclass of arrays ``[series]``, so
that a reader, a test and the stream can treat an improved Farrington, an EARS chart and a cold-start tail
alike.

A row's evidence never depends on the other rows, to the last bit: a replay may batch series otherwise than
the live run did, and both must write the same bytes. Where series do borrow strength from each other, the
pooled quantity is an explicit argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError

__all__ = [
    "BoolArray",
    "CountEvidence",
    "FloatArray",
    "IntArray",
    "RateEvidence",
    "as_counts",
    "as_parameter",
    "as_samples",
    "check_fraction",
    "excess_score",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

LARGEST_COUNT = 2.0**53
"""Above this a float64 no longer tells a count from the next one."""


@dataclass(frozen=True, slots=True)
class CountEvidence:
    """What a count detector says about the current week of each series; every field is an array ``[series]``.

    Attributes
    ----------
    observed, expected, upper
        Events in the week; events expected; the largest count that raises no alarm (fractional for
        normal-theory limits). NaN where not defined.
    p_value
        P(Y >= observed) if nothing has changed; 1 where not defined.
    score
        (observed - expected) / (upper - expected): above 1 means an alarm; 0 where not defined.
    dispersion
        Variance over mean, at least 1.
    alarm
        observed > upper, and the detector's own minimum of cases is met.
    trend_used
        Whether a time trend went into ``expected``.
    defined
        False where the history is too short for this detector to speak.
    """

    observed: FloatArray
    expected: FloatArray
    upper: FloatArray
    p_value: FloatArray
    score: FloatArray
    dispersion: FloatArray
    alarm: BoolArray
    trend_used: BoolArray
    defined: BoolArray


@dataclass(frozen=True, slots=True)
class RateEvidence:
    """What a pass-rate detector says about one window of each series; every field is an array ``[series]``.

    Attributes
    ----------
    tested, failed
        Items in the window.
    rate, lower, upper
        Pass rate and the interval it is shown with; NaN, 0 and 1 where nothing was tested.
    reference
        The pass rate it is judged against: the target, or the reference's own rate.
    p_value
        Probability of so many failures or more if the reference holds; 1 where not defined.
    alarm
        p_value <= alpha and, for targets, the whole interval lies under the target.
    defined
        False where nothing was tested, or there is nothing to compare with.
    """

    tested: FloatArray
    failed: FloatArray
    rate: FloatArray
    lower: FloatArray
    upper: FloatArray
    reference: FloatArray
    p_value: FloatArray
    alarm: BoolArray
    defined: BoolArray


def as_counts(values: npt.ArrayLike, name: str, *, ndim: int = 2) -> FloatArray:
    """Check an array of counts and return it as C-contiguous float64.

    Raises
    ------
    DetectorError
        If it has another number of dimensions than `ndim`, or holds NaN, an infinity, a negative number, or
        one beyond 2**53.
    """
    try:
        array = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DetectorError(f"{name}: not an array of numbers ({error})") from None
    if array.ndim != ndim:
        raise DetectorError(f"{name}: expected {ndim} dimension(s), found {array.ndim}")
    if not np.all((array >= 0) & (array <= LARGEST_COUNT)):
        raise DetectorError(f"{name}: counts must be finite, not negative, at most 2**53; fill gaps first")
    return array


def as_samples(
    tested: npt.ArrayLike, failed: npt.ArrayLike, *, ndim: int = 1, prefix: str = ""
) -> tuple[FloatArray, FloatArray]:
    """Check a pair of arrays (items tested, items failed) of one shape, with failed <= tested.

    Raises
    ------
    DetectorError
        If either is not an array of counts, if the shapes differ, or if more failed than were tested.
    """
    n = as_counts(tested, f"{prefix}tested", ndim=ndim)
    x = as_counts(failed, f"{prefix}failed", ndim=ndim)
    if n.shape != x.shape:
        raise DetectorError(f"{prefix}tested and {prefix}failed: shapes {n.shape} and {x.shape} differ")
    if np.any(x > n):
        raise DetectorError(f"{prefix}failed: more items failed than were tested")
    return n, x


def as_parameter(
    value: npt.ArrayLike,
    name: str,
    shape: tuple[int, ...],
    *,
    low: float,
    high: float,
    open_ends: bool = True,
) -> FloatArray:
    """Broadcast a parameter to `shape` and check that it lies between `low` and `high`.

    Raises
    ------
    DetectorError
        If it does not broadcast, is NaN, or is out of range.
    """
    given = np.asarray(value, dtype=np.float64)
    try:
        array = np.ascontiguousarray(np.broadcast_to(given, shape))
    except ValueError:
        raise DetectorError(f"{name}: shape {given.shape} does not fit {shape}") from None
    inside = (array > low) & (array < high) if open_ends else (array >= low) & (array <= high)
    if not np.all(inside):
        raise DetectorError(f"{name}: must lie between {low:g} and {high:g}")
    return array


def check_fraction(value: float, name: str) -> float:
    """Return `value` if it lies strictly between 0 and 1; raise :class:`DetectorError` otherwise."""
    if not 0.0 < value < 1.0:
        raise DetectorError(f"{name}: must lie strictly between 0 and 1, found {value!r}")
    return float(value)


def excess_score(observed: FloatArray, expected: FloatArray, upper: FloatArray, defined: BoolArray) -> FloatArray:
    """(observed - expected) / (upper - expected); 0 where not defined or the limit equals the expectation."""
    room = np.where(defined, upper - expected, 0.0)
    rise = np.where(defined, observed - expected, 0.0)
    return np.asarray(np.divide(rise, room, out=np.zeros_like(rise), where=room != 0))
