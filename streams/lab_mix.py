"""How many times more failures the labs behind a cell's window find than their peers would.

A cell that severe labs test looks bad without being bad. The effects are those of the last comparison
(:mod:`streams.labs`), each taken from the lab's other cells; the mix of labs is that of the window in question.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from schemas.alerts import Against
from streams.columns import INDICATORS
from streams.config import PassRateRules
from streams.state import AssessState

__all__ = ["PEER_DAYS", "LabFactor", "LabMix"]

PEER_DAYS = 90
"""Peers are looked at over this many days at least."""
_PASS = INDICATORS.index("pass")


class LabFactor(Protocol):
    """Tells by how much the labs of a cell's window explain its failures, against a reference."""

    def __call__(self, row: int, window: int, against: Against) -> float: ...


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

    def __call__(self, row: int, window: int, against: Against) -> float:
        """The factor, 1 where the labs are like their peers or lenient: lenient labs excuse nothing."""
        state, day = self._state, self._day
        store, own = state.stores["pass"], state.leaves_under(_PASS, row)
        factor = state.labs.severity(own, day - window + 1, day)
        if against == "own-history":
            factor /= state.labs.severity(own, day - window - self._history, day - window)
        elif against == "peers":
            wider = int(store.wider(np.array([row]))[0])
            others = set(state.leaves_under(_PASS, wider)) - set(own) if wider >= 0 else set()
            factor /= state.labs.severity(sorted(others), day - max(window, PEER_DAYS) + 1, day)
        return max(1.0, float(f"{factor:.4g}"))
