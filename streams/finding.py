"""What a judge says of one cell before it becomes a signal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from schemas.alerts import Evidence

__all__ = ["Finding", "rounded", "rounded_all"]

_DIGITS: Final = 6
_EXACT: Final = np.array([float(10**power) for power in range(23)])
"""The powers of ten that a float holds exactly."""
_LEAST, _MOST, _DOUBT = 1e-15, 1e15, 1e-9


@dataclass(slots=True)
class Finding:
    """Evidence on one cell: ``excess`` maps a window's number to adverse events above expectation in it."""

    row: int
    p_value: float
    excess: dict[int, float]
    evidence: list[Evidence]
    window_days: int
    e_value: float | None = None


def rounded(value: float) -> float | None:
    """Six significant digits, for people; None where there is no number."""
    if not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def rounded_all(values: npt.NDArray[np.float64]) -> list[float | None]:
    """:func:`rounded` of each of many, ``[values]``, to the last bit.

    With an exact power of ten the digits come out as an integer, and the integer over the power is the float nearest to
    what they say, for either step rounds once. Where that once could matter, or the power is no float, one by one.
    """
    size = np.abs(values)
    plain = (size >= _LEAST) & (size <= _MOST)
    places = _DIGITS - 1 - np.floor(np.log10(np.where(plain, size, 1.0))).astype(np.int64)
    up, down = _EXACT[np.maximum(places, 0)], _EXACT[np.maximum(-places, 0)]
    scaled = np.where(plain, size, 0.0) * up / down
    digits = np.rint(scaled)
    sure = np.abs(np.abs(scaled - digits) - 0.5) > _DOUBT
    sure &= plain & (scaled >= 10.0 ** (_DIGITS - 1)) & (scaled < 10.0**_DIGITS)
    out: list[float | None] = np.copysign(digits * down / up, values).tolist()
    for at in np.flatnonzero(~sure).tolist():
        out[at] = rounded(float(values[at]))
    return out
