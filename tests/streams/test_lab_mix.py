"""Leaves of cells as arrays: what the state says of them, however they grow and whatever is kept."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import lab_mix as module
from streams.columns import INDICATORS
from streams.lab_mix import CellLeaves


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
