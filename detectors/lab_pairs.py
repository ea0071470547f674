"""Tests by pair (lab in a stratum), and sums over pairs by lab, by stratum and by branch: what a fit is computed with.

All rows of a pair have one rate, so a fit needs but their sums. Sums run in the order of the pairs, as those of
:func:`~detectors.lab_rows.group_sum` do, but through sparse matrices, which take a third of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from detectors.evidence import BoolArray, FloatArray, IntArray
from detectors.lab_rows import LabRows, group_sum

__all__ = ["LabPairs", "lab_pairs"]

_Places = npt.NDArray[np.int32]


class LabPairs:
    """Tests by pair, sorted by branch, lab and stratum.

    Attributes
    ----------
    tested, weighted_tested, weighted_failed, spread
        Of the rows of each pair, ``[pairs]``: the sums of n, w n, w x and n / w for n items, x failures and
        w = 1 / (1 + (n - 1) rho).
    pair_lab, pair_stratum
        Positions of each pair's lab and stratum, ``[pairs]``.
    lab_branch, stratum_branch
        Positions of the branch, ``[labs]`` and ``[strata]``.
    branches
        How many there are.
    lab_tested, lab_failed
        Items and failures, ``[labs]``.
    lab_active, stratum_active, labs_at_work, strata_at_work
        1 where anything was tested, and how many such there are; ``[labs]``, ``[strata]``, ``[branches]``.
    """

    def __init__(
        self,
        sums: tuple[FloatArray, ...],
        pair_lab: IntArray,
        pair_stratum: IntArray,
        lab_branch: IntArray,
        stratum_branch: IntArray,
        branches: int,
    ) -> None:
        self.tested, self.failed, self.weighted_tested, self.weighted_failed, self.spread = sums
        self.pair_lab, self.pair_stratum = pair_lab, pair_stratum
        self.lab_branch, self.stratum_branch, self.branches = lab_branch, stratum_branch, branches
        self._index()
        self.lab_tested, self.lab_failed = self.lab_sum(self.tested), self.lab_sum(self.failed)
        self.lab_active = (self.lab_tested > 0).astype(np.float64)
        self.stratum_active = (self.stratum_sum(self.tested) > 0).astype(np.float64)
        self.labs_at_work = self.branch_sum(self.lab_active)
        self.strata_at_work = group_sum(stratum_branch, self.stratum_active, branches)

    def _index(self) -> None:
        labs, strata = self.lab_branch.size, self.stratum_branch.size
        stratum, ends = self.pair_stratum.astype(np.int32), _ends(self.pair_lab, labs)
        self._pairs_of_lab = np.diff(ends)
        self._each_lab, self._each_stratum = np.ones(labs), np.ones(strata)
        self._sums, self._couplings = (_Sparse(stratum, ends, strata) for _ in range(2))

    def tested_only(self) -> LabPairs:
        """The same without the pairs in which nothing was tested: they add nothing to any sum."""
        some = self.tested > 0
        if some.all():
            return self
        sums = tuple(one[some] for one in self._by_pair)
        return LabPairs(
            sums, self.pair_lab[some], self.pair_stratum[some], self.lab_branch, self.stratum_branch, self.branches
        )

    def of_branches(self, some: BoolArray) -> LabPairs:
        """Some branches, ``[branches]``, with their labs, strata and pairs; their sums have the same bits."""
        labs, strata = some[self.lab_branch], some[self.stratum_branch]
        of_pairs = labs[self.pair_lab]
        branch, lab, stratum = (np.cumsum(kept) - 1 for kept in (some, labs, strata))
        return LabPairs(
            tuple(one[of_pairs] for one in self._by_pair),
            lab[self.pair_lab[of_pairs]],
            stratum[self.pair_stratum[of_pairs]],
            branch[self.lab_branch[labs]],
            branch[self.stratum_branch[strata]],
            int(branch[-1]) + 1,
        )

    @property
    def _by_pair(self) -> tuple[FloatArray, ...]:
        return self.tested, self.failed, self.weighted_tested, self.weighted_failed, self.spread

    def at_labs(self, values: FloatArray) -> FloatArray:
        """What ``[labs]`` say of each pair's lab, ``[pairs]``, the caller's own."""
        return values.repeat(self._pairs_of_lab)

    def at_strata(self, values: FloatArray) -> FloatArray:
        """What ``[strata]`` say of each pair's stratum, ``[pairs]``, the caller's own."""
        return values.take(self.pair_stratum)

    def lab_sum(self, values: FloatArray) -> FloatArray:
        """Sums of ``[pairs]`` by lab, ``[labs]``."""
        return np.asarray(self._sums.of(values)[0] @ self._each_stratum)

    def stratum_sum(self, values: FloatArray) -> FloatArray:
        """Sums of ``[pairs]`` by stratum, ``[strata]``."""
        return np.asarray(self._sums.of(values)[1] @ self._each_lab)

    def branch_sum(self, values: FloatArray) -> FloatArray:
        """Sums of ``[labs]`` by branch, ``[branches]``."""
        return group_sum(self.lab_branch, values, self.branches)

    def couplings(self, values: FloatArray) -> tuple[Any, Any]:
        """Sparse matrices ``[labs, strata]`` and ``[strata, labs]`` with a value at each pair, until the next call."""
        return self._couplings.of(values)


class _Sparse:
    """A value at each pair as a matrix ``[labs, strata]`` and as its transpose, on the same three arrays: the former
    adds up by lab, the latter by stratum, both in the order of the pairs.

    Parameters
    ----------
    stratum
        Of each pair, in the order of labs.
    ends
        Where each lab ends among the pairs, led by 0, ``[labs + 1]``.
    strata
        How many there are.
    """

    def __init__(self, stratum: _Places, ends: _Places, strata: int) -> None:
        parts, labs = (np.ones(stratum.size), stratum, ends), ends.size - 1
        self._to_labs = sparse.csr_array(parts, shape=(labs, strata))
        self._to_strata = sparse.csc_array(parts, shape=(strata, labs))

    def of(self, values: FloatArray) -> tuple[Any, Any]:
        """The matrix and its transpose with other values, until the next call."""
        self._to_labs.data = self._to_strata.data = values
        return self._to_labs, self._to_strata


def lab_pairs(rows: LabRows) -> LabPairs:
    """The rows by pair."""
    weight = 1.0 / (1.0 + np.maximum(rows.tested - 1.0, 0.0) * rows.rho)
    by_row: tuple[FloatArray, ...] = (
        rows.tested,
        rows.failed,
        weight * rows.tested,
        weight * rows.failed,
        rows.tested / weight,
    )
    if rows.pair_lab.size < rows.tested.size:
        by_row = tuple(group_sum(rows.pair_of, values, rows.pair_lab.size) for values in by_row)
    return LabPairs(
        by_row,
        rows.pair_lab,
        rows.pair_stratum,
        rows.lab_branch,
        rows.stratum_branch,
        rows.branch.size,
    )


def _ends(groups: IntArray, count: int) -> _Places:
    """Where each group ends among the sorted, led by 0: ``[count + 1]``."""
    return np.concatenate([[0], np.cumsum(np.bincount(groups, minlength=count))]).astype(np.int32)
