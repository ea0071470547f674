"""Tests by branch, lab and stratum: checked, sorted and numbered, for the detectors of lab effects.

Rows are sorted by what they say, and sums by group run in that order: a branch's results have the same bits whichever
other branches are there and in whatever order the rows came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import FloatArray, IntArray, as_parameter, as_samples

__all__ = ["LARGEST_CORRELATION", "LabRows", "group_sum", "lab_rows", "only"]

LARGEST_CORRELATION = 0.95
"""Intra-class correlations above this are taken as this."""


@dataclass(frozen=True, slots=True)
class LabRows:
    """Tests by branch, lab and stratum, sorted; made by :func:`lab_rows`.

    Attributes
    ----------
    tested, failed, rho
        Items, failures and intra-class correlation, ``[rows]``.
    order
        Where each row stood in the input, ``[rows]``.
    lab_of, stratum_of, pair_of, branch_of
        Position of the row's lab, stratum, (lab, stratum) and branch in the arrays below, ``[rows]``.
    lab, lab_branch
        The labs' numbers as given, ``[labs]``, by branch and number, and the position of each one's branch.
        A lab that works in two branches is there twice.
    stratum, stratum_branch
        The same of the strata, ``[strata]``.
    pair_lab, pair_stratum
        Positions of each pair's lab and stratum, ``[pairs]``.
    branch
        The branches' numbers as given, ``[branches]``.
    """

    tested: FloatArray
    failed: FloatArray
    rho: FloatArray
    order: IntArray
    lab_of: IntArray
    stratum_of: IntArray
    pair_of: IntArray
    branch_of: IntArray
    lab: IntArray
    lab_branch: IntArray
    stratum: IntArray
    stratum_branch: IntArray
    pair_lab: IntArray
    pair_stratum: IntArray
    branch: IntArray


def lab_rows(
    lab: npt.ArrayLike,
    stratum: npt.ArrayLike,
    tested: npt.ArrayLike,
    failed: npt.ArrayLike,
    *,
    branch: npt.ArrayLike = 0,
    rho: npt.ArrayLike = 0.0,
) -> LabRows:
    """Check and sort rows of tests; a lab may have several rows (windows) in a stratum.

    Parameters
    ----------
    lab, stratum
        Whole numbers from 0, ``[rows]``; they need not be dense.
    tested, failed
        Items and failures, ``[rows]``.
    branch
        Whole number from 0, one or ``[rows]``: branches are fitted apart.
    rho
        Intra-class correlation of the failures in one row, one or ``[rows]``, from 0 to under 1: a row of n items then
        weighs as n / (1 + (n - 1) rho).

    Raises
    ------
    DetectorError
        If counts are not counts, more failed than were tested, a number is not whole, or shapes disagree.
    """
    n, x = as_samples(tested, failed)
    keys = [_index(branch, "branch", n.shape), _index(lab, "lab", n.shape), _index(stratum, "stratum", n.shape)]
    correlation = np.minimum(as_parameter(rho, "rho", n.shape, low=0.0, high=1.0, open_ends=False), LARGEST_CORRELATION)
    order = _in_order((correlation, x, n), _packed(*keys))
    b, lab_key, s = (key[order] for key in keys)
    branch_of, (branches,) = _number(b)
    lab_of, (lab_branch, labs) = _number(branch_of, lab_key)
    stratum_of, (stratum_branch, strata) = _number(branch_of, s)
    pair_of, (pair_lab, pair_stratum) = _number(lab_of, stratum_of)
    return LabRows(
        tested=n[order],
        failed=x[order],
        rho=correlation[order],
        order=order,
        lab_of=lab_of,
        stratum_of=stratum_of,
        pair_of=pair_of,
        branch_of=branch_of,
        lab=labs,
        lab_branch=lab_branch,
        stratum=strata,
        stratum_branch=stratum_branch,
        pair_lab=pair_lab,
        pair_stratum=pair_stratum,
        branch=branches,
    )


def _index(values: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> IntArray:
    array = as_parameter(values, name, shape, low=0.0, high=2.0**53, open_ends=False)
    if np.any(array != np.floor(array)):
        raise DetectorError(f"{name}: must be whole numbers")
    return array.astype(np.int64)


def _number(*keys: IntArray) -> tuple[IntArray, tuple[IntArray, ...]]:
    """Number the distinct combinations of keys in their order: position of each row, and the keys of each position."""
    order = _order(_packed(*keys))
    fresh = np.zeros(order.size, dtype=np.bool_)
    fresh[:1] = True
    for key in keys:
        fresh[1:] |= np.diff(key[order]) != 0
    position = np.empty(order.size, dtype=np.int64)
    position[order] = np.cumsum(fresh) - 1
    first = order[fresh]
    return position, tuple(key[first] for key in keys)


def _packed(*keys: IntArray) -> tuple[IntArray, ...]:
    """Keys for ``np.lexsort``, the first given one first, in one number where it can hold them: that sorts faster."""
    spans = [int(key.max(initial=0)) + 1 for key in keys]
    if math.prod(spans) >= 2**63:
        return keys[::-1]
    packed = keys[0]
    for key, span in zip(keys[1:], spans[1:], strict=True):
        packed = packed * span + key
    return (packed,)


def _in_order(counts: tuple[FloatArray, ...], keys: tuple[IntArray, ...]) -> IntArray:
    """Order of the rows by their keys, and by the counts too: equal keys in another order give the same sums to the
    last bit."""
    order = _order(keys)
    if len(keys) == 1 and bool((np.diff(keys[0][order]) > 0).all()):
        return order  # a row a pair, which is the rule: counts need not be sorted
    return np.lexsort((*counts, *keys))


def _order(keys: tuple[IntArray, ...]) -> IntArray:
    """Some order of the rows by their keys, those of equal keys in any."""
    if len(keys) > 1:
        return np.lexsort(keys)
    if bool((np.diff(keys[0]) >= 0).all()):
        return np.arange(keys[0].size)
    return np.argsort(keys[0])


def only(rows: LabRows, use: npt.ArrayLike | None) -> LabRows:
    """The same rows, those left out emptied: ``use`` is ``[rows]`` of bool in the input's order, None for all.

    Raises
    ------
    DetectorError
        If it is not one bool a row.
    """
    if use is None:
        return rows
    mask = np.asarray(use)
    if mask.dtype != np.bool_ or mask.shape != rows.order.shape:
        raise DetectorError(f"use: expected {rows.order.size} booleans, one a row")
    kept = mask[rows.order]
    return replace(rows, tested=np.where(kept, rows.tested, 0.0), failed=np.where(kept, rows.failed, 0.0))


def group_sum(groups: IntArray, values: FloatArray, count: int) -> FloatArray:
    """Sums by group, each added up in the order of the rows."""
    return np.bincount(groups, weights=values, minlength=count).astype(np.float64)
