"""What is the echo of what: one incident shows in its cell and in every cell above it.

A cell is *explained* when few cells below it carry most of its excess, and *part* when a broader cell stands for it;
what remains is *primary*, and only that may open an alert.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from schemas.alerts import Role
from streams.finding import Finding
from streams.state import AssessState

__all__ = ["roles"]

_ONE_EXPLAINS: Final = 0.6
_FEW: Final = 2
_FEW_EXPLAIN: Final = 0.8


def roles(state: AssessState, indicator: int, findings: Sequence[Finding]) -> dict[int, Role]:
    """Primary, explained or part, for the row of every cell with a finding."""
    below = _nesting(state, indicator, findings)
    by_row = {finding.row: finding for finding in findings}
    explained = {
        finding.row
        for finding in findings
        if _explained(state, indicator, finding, [by_row[row] for row in below[finding.row]])
    }
    covered = {row for other, rows in below.items() if other not in explained for row in rows}
    return {
        row: "explained" if row in explained else "part" if row in covered else "primary"
        for row in (finding.row for finding in findings)
    }


def _nesting(state: AssessState, indicator: int, findings: Sequence[Finding]) -> dict[int, list[int]]:
    """For each cell the other cells with findings that lie wholly below it.

    A cell lies below few others: they are all on the way to any of its leaves.
    """
    below: dict[int, list[int]] = {finding.row: [] for finding in findings}
    for low in list(below):
        leaf = state.leaves[state.leaves_under(indicator, low)[0]]
        depths: dict[int, tuple[int, int]] = {}
        for place, row in enumerate(leaf.rows.tolist()):
            if row in below:
                depths.setdefault(row, divmod(place, leaf.regions))
        deep = depths.pop(low)
        for high, depth in depths.items():
            if depth[0] <= deep[0] and depth[1] <= deep[1]:
                below[high].append(low)
    return below


def _explained(state: AssessState, indicator: int, finding: Finding, below: Sequence[Finding]) -> bool:
    """Whether one cell below carries most of the excess, or a few disjoint ones nearly all of it."""
    if not below:
        return False
    window = max(sorted(finding.excess), key=finding.excess.__getitem__)
    total = finding.excess[window]
    shares = sorted(((other.excess.get(window, 0.0), -other.row) for other in below), reverse=True)
    if shares[0][0] >= _ONE_EXPLAINS * total:
        return True
    covered, taken, used = 0.0, 0, set[int]()
    for excess, negative_row in shares:
        leaves = state.leaves_under(indicator, -negative_row)
        if used.isdisjoint(leaves):
            covered, taken = covered + excess, taken + 1
            if taken == _FEW:
                break
            used.update(leaves)
    return covered >= _FEW_EXPLAIN * total
