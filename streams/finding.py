"""What a judge says of one cell before it becomes a signal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from schemas.alerts import Evidence

__all__ = ["Finding", "rounded"]


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
