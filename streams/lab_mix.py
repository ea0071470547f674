"""How many times more failures the labs behind a cell's window find than their peers would.

A cell that severe labs test looks bad without being bad. The effects are those of the last comparison
(:mod:`streams.labs`), each taken from the lab's other cells; the mix of labs is that of the window in question.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas.alerts import Against
from streams.columns import INDICATORS
from streams.config import PassRateRules
from streams.state import AssessState

__all__ = ["PEER_DAYS", "LabFactor", "LabMix"]

PEER_DAYS = 90
"""Peers are looked at over this many days at least."""
_PASS = INDICATORS.index("pass")


class LabFactor(Protocol):
    """Tells by how much the labs of cells' windows explain their failures, against a reference, [cells]."""

    def __call__(self, rows: npt.NDArray[np.intp], window: int, against: Against) -> npt.NDArray[np.float64]: ...


class LabMix:
    """The labs' part in the failures of cells, at one tick; in whole calendar weeks, for mixes change slowly.

    Parameters
    ----------
    state
        Cells and lab effects.
    day
        The local day of the tick.
    rules
        Days of history.
    """

    def __init__(self, state: AssessState, day: int, rules: PassRateRules) -> None:
        self._state = state
        self._day = day
        self._history = rules.history_days

    def __call__(self, rows: npt.NDArray[np.intp], window: int, against: Against) -> npt.NDArray[np.float64]:
        """The factors, 1 where the labs are like their peers or lenient: lenient labs excuse nothing."""
        sheet, day = self._state.labs, self._day
        own = [self._state.leaves_under(_PASS, row) for row in rows.tolist()]
        factors = sheet.severities(own, day - window + 1, day)
        if against == "own-history":
            factors /= sheet.severities(own, day - window - self._history, day - window)
        elif against == "peers":
            factors /= sheet.severities(self._beside(rows, own), day - max(window, PEER_DAYS) + 1, day)
        return np.array([max(1.0, float(f"{factor:.4g}")) for factor in factors.tolist()])

    def _beside(self, rows: npt.NDArray[np.intp], own: list[list[int]]) -> list[list[int]]:
        """The leaves of the same products elsewhere in the next wider region."""
        wider = self._state.stores["pass"].wider(rows).tolist()
        around = {row: set(self._state.leaves_under(_PASS, row)) for row in set(wider) if row >= 0}
        return [sorted(around.get(row, set()).difference(leaves)) for row, leaves in zip(wider, own, strict=True)]
