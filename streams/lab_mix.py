"""How many times more failures the labs behind a cell's window find than their peers would.

A cell that severe labs test looks bad without being bad. The effects are those of the last comparison
(:mod:`streams.labs`), each taken from the lab's other cells; the mix of labs is that of the window in question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from schemas.alerts import Against
from streams.columns import INDICATORS
from streams.config import PassRateRules
from streams.state import AssessState

__all__ = ["PEER_DAYS", "CellLeaves", "LabFactor", "LabMix"]

Ints = npt.NDArray[np.int64]
_Tests: TypeAlias = tuple[tuple[int, int], tuple[int, int | None]]
"""First and last day; a cell's row, and None for the cell itself or, for what lies beside it, that of the wider one."""

PEER_DAYS = 90
"""Peers are looked at over this many days at least."""
_PASS: Final = INDICATORS.index("pass")
_MOST_HELD: Final = 1_000_000
"""Leaves that are kept, each as often as cells hold it."""


class LabFactor(Protocol):
    """Tells by how much the labs of cells' windows explain their failures, [cells]; ``asked`` has each one's window, in
    days, and reference."""

    def __call__(self, rows: npt.NDArray[np.intp], asked: Sequence[tuple[int, Against]]) -> npt.NDArray[np.float64]: ...


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
        size = len(self._state.leaves_under(_PASS, row)) + len(self._state.leaves_under(_PASS, wider))
        held = self._beside.get(row)
        if held is None or held[0] != size:
            around = self.under(wider)
            leaves = np.setdiff1d(around, self.under(row), assume_unique=True)
            self._make_room(len(around))
            held = self._beside[row] = size, leaves
        return held[1]

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

    def __call__(self, rows: npt.NDArray[np.intp], asked: Sequence[tuple[int, Against]]) -> npt.NDArray[np.float64]:
        """The factors, 1 where the labs are like their peers or lenient: lenient labs excuse nothing."""
        cells = list(zip(rows.tolist(), self._wider(rows).tolist(), asked, strict=True))
        own: list[_Tests] = [((self._day - window + 1, self._day), (row, None)) for row, _, (window, _) in cells]
        others = [self._reference(row, wider, window, against) for row, wider, (window, against) in cells]
        found = self._severities([*own, *(other for other in others if other is not None)])
        factors = np.array([found[tests] for tests in own])
        factors /= np.array([1.0 if tests is None else found[tests] for tests in others])
        return np.array([max(1.0, float(f"{factor:.4g}")) for factor in factors.tolist()])

    def _reference(self, row: int, wider: int, window: int, against: Against) -> _Tests | None:
        """The tests that a window's are held against, if any."""
        if against == "own-history":
            return (self._day - window - self._history, self._day - window), (row, None)
        if against == "peers":
            return (self._day - max(window, PEER_DAYS) + 1, self._day), (row, wider)
        return None

    def _severities(self, wanted: Sequence[_Tests]) -> dict[_Tests, float]:
        """Several windows, and several references, ask for the same: each is looked up once, those of the same days
        together."""
        by_days: dict[tuple[int, int], list[_Tests]] = {}
        for tests in dict.fromkeys(wanted):
            by_days.setdefault(tests[0], []).append(tests)
        leaves = {cells: self._leaves_of(*cells) for cells in dict.fromkeys(cells for _, cells in wanted)}
        found: dict[_Tests, float] = {}
        for days, some in by_days.items():
            factors = self._sheet.severities([leaves[cells] for _, cells in some], *days)
            found.update(zip(some, factors.tolist(), strict=True))
        return found

    def _leaves_of(self, row: int, wider: int | None) -> Ints:
        return self._leaves.under(row) if wider is None else self._leaves.beside(row, wider)
