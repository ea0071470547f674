"""Leaves of cells as arrays: what the state says of them, however they grow and whatever is kept."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders import settings_with
from hypothesis import given
from hypothesis import strategies as st

from streams import lab_mix as module
from streams.columns import INDICATORS
from streams.lab_mix import CellLeaves, LabMix


class Growing:
    """A state of which only the leaves are asked for."""

    def __init__(self) -> None:
        self.leaves: defaultdict[int, list[int]] = defaultdict(list)

    def leaves_under(self, indicator: int, row: int) -> list[int]:
        assert INDICATORS[indicator] == "pass"
        return self.leaves[row]


@pytest.mark.parametrize("held", [0, 6, 1_000])
@given(st.lists(st.tuples(st.integers(0, 3), st.sets(st.integers(0, 3))), max_size=25))
def test_leaves_are_those_of_the_state_however_it_grows(held: int, steps: list[tuple[int, set[int]]]) -> None:
    state: Any = Growing()
    kept = CellLeaves(state)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_HELD", held)
        for leaf, (row, rows) in enumerate(steps):
            for one in sorted(rows):
                state.leaves[one].append(leaf)
            assert kept.under(row).tolist() == state.leaves[row]
            around = state.leaves[row - 1] if row else []
            assert kept.beside(row, row - 1).tolist() == sorted(set(around) - set(state.leaves[row]))


DAY, HISTORY = 20_000, 300


def severity(leaves: list[int], first: int, last: int) -> float:
    """As severe as some labs are."""
    return 0.5 + (7 * sum(leaves) + 3 * first + 5 * last + len(leaves)) % 1_009 / 700


class Sheet:
    """Labs that remember what was asked of them."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[int, ...], int, int]] = []

    def severities(self, cells: list[np.ndarray], first: int, last: int) -> np.ndarray:
        self.asked += [(tuple(cell.tolist()), first, last) for cell in cells]
        return np.array([severity(cell.tolist(), first, last) for cell in cells])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.sampled_from([7, 30, 90, 120]), st.sampled_from(["target", "own-history", "peers"])
        ),
        max_size=20,
    )
)
def test_factors_are_those_of_one_cell_after_the_other_and_nothing_is_asked_twice(
    asked: list[tuple[int, int, Any]],
) -> None:
    leaves, wider = {0: [0, 1, 2, 3], 1: [1, 3], 2: [2], 3: [7]}, np.array([-1, 0, 0, -1])
    sheet = Sheet()
    state: Any = SimpleNamespace(
        labs=sheet,
        stores={"pass": SimpleNamespace(wider=lambda rows: wider[rows])},
        leaves_under=lambda _, row: leaves[row],
    )
    rules = settings_with(pass_rate={"history_days": HISTORY}).pass_rate
    rows = np.array([row for row, _, _ in asked], np.intp)
    found = LabMix(state, CellLeaves(state), DAY, rules)(rows, [one[1:] for one in asked])
    expected = []
    for row, window, against in asked:
        factor = severity(leaves[row], DAY - window + 1, DAY)
        if against == "own-history":
            factor /= severity(leaves[row], DAY - window - HISTORY, DAY - window)
        elif against == "peers":
            beside = sorted(set(leaves[0]) - set(leaves[row])) if wider[row] == 0 else []
            factor /= severity(beside, DAY - max(window, 90) + 1, DAY)
        expected.append(max(1.0, float(f"{factor:.4g}")))
    assert found.tolist() == expected
    # Of the cells without any wider one nothing lies beside, which looks alike.
    some = [one for one in sheet.asked if one[0]]
    assert len(some) == len(set(some))
