"""How many times more failures the labs behind a cell's window find than their peers would.

A cell that severe labs test looks bad without being bad. The effects are those of the last comparison
(:mod:`streams.labs`), each taken from the lab's other cells; the mix of labs is that of the window in question.
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from schemas.alerts import Against
from streams.columns import INDICATORS
from streams.config import PassRateRules
from streams.state import AssessState

__all__ = ["PEER_DAYS", "CellLeaves", "LabFactor", "LabMix"]

Ints = npt.NDArray[np.int64]

PEER_DAYS = 90
"""Peers are looked at over this many days at least."""
_PASS: Final = INDICATORS.index("pass")
_MOST_HELD: Final = 1_000_000
"""Leaves that are kept, each as often as cells hold it."""


class LabFactor(Protocol):
    """Tells by how much the labs of cells' windows explain their failures, against a reference, [cells]."""

    def __call__(self, rows: npt.NDArray[np.intp], window: int, against: Against) -> npt.NDArray[np.float64]: ...


class CellLeaves:
    """The leaves of pass-rate cells, and those that lie beside them, as arrays: kept, for what is asked for is asked
    for again, and they only ever grow."""

    def __init__(self, state: AssessState) -> None:
        self._state = state
        self._under: dict[int, Ints] = {}
        self._beside: dict[int, tuple[int, Ints]] = {}
        """With how many leaves there were, of the cell and around it."""
        self._held = 0

    def under(self, row: int) -> Ints:
        """Numbers of the leaves that a cell sums."""
        leaves = self._state.leaves_under(_PASS, row)
        held = self._under.get(row)
        if held is None or len(held) != len(leaves):
            self._make_room(len(leaves))
            held = self._under[row] = np.array(leaves, np.int64)
        return held

    def beside(self, row: int, wider: int) -> Ints:
        """The leaves of the same product elsewhere in the next wider region, -1 where there is none."""
        if wider < 0:
            return np.empty(0, np.int64)
        own, around = self.under(row), self.under(wider)
        count, held = self._beside.get(row, (-1, own))
        if count != len(own) + len(around):
            self._make_room(len(around))
            held = np.setdiff1d(around, own, assume_unique=True)
            self._beside[row] = len(own) + len(around), held
        return held

    def _make_room(self, leaves: int) -> None:
        """Begin anew when too many are held."""
        self._held += leaves
        if self._held > _MOST_HELD:
            self._under.clear()
            self._beside.clear()
            self._held = leaves


class LabMix:
    """The labs' part in the failures of cells, at one tick; in whole calendar weeks, for mixes change slowly.

    Parameters
    ----------
    state
        Cells and lab effects.
    leaves
        Of the same state.
    day
        The local day of the tick.
    rules
        Days of history.
    """

    def __init__(self, state: AssessState, leaves: CellLeaves, day: int, rules: PassRateRules) -> None:
        self._sheet = state.labs
        self._wider = state.stores["pass"].wider
        self._leaves = leaves
        self._day = day
        self._history = rules.history_days

    def __call__(self, rows: npt.NDArray[np.intp], window: int, against: Against) -> npt.NDArray[np.float64]:
        """The factors, 1 where the labs are like their peers or lenient: lenient labs excuse nothing."""
        sheet, day = self._sheet, self._day
        own = [self._leaves.under(row) for row in rows.tolist()]
        factors = sheet.severities(own, day - window + 1, day)
        if against == "own-history":
            factors /= sheet.severities(own, day - window - self._history, day - window)
        elif against == "peers":
            pairs = zip(rows.tolist(), self._wider(rows).tolist(), strict=True)
            beside = [self._leaves.beside(row, wider) for row, wider in pairs]
            factors /= sheet.severities(beside, day - max(window, PEER_DAYS) + 1, day)
        return np.array([max(1.0, float(f"{factor:.4g}")) for factor in factors.tolist()])
