"""Tests by branch, lab and stratum: checked, sorted and numbered, for the detectors of lab effects.

Rows are sorted by what they say, and sums by group run in that order: a branch's results have the same bits whichever
other branches are there and in whatever order the rows came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray, as_parameter, as_samples

__all__ = ["LARGEST_CORRELATION", "LabRows", "group_sum", "lab_rows", "only"]

LARGEST_CORRELATION = 0.95
"""Intra-class correlations above this are taken as this."""

_SMALL = 2**16


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
    by = _sortable(*keys)
    order = _order(by)
    b, lab_key, s = (key[order] for key in keys)
    new_branch = _fresh(b)
    new_lab = new_branch | _fresh(lab_key)
    new_pair = new_lab | _fresh(s)
    if not new_pair.all():
        # By the counts too: rows of one pair in another order then give the same sums to the last bit.
        order = np.lexsort((*(_small(counts) for counts in (correlation, x, n)), *by))
    (branch_of, at_branch), (lab_of, at_lab), (pair_of, at_pair) = map(_runs, (new_branch, new_lab, new_pair))
    stratum_of, at_stratum = _number(branch_of, s)
    return LabRows(
        tested=n[order],
        failed=x[order],
        rho=correlation[order],
        order=order,
        lab_of=lab_of,
        stratum_of=stratum_of,
        pair_of=pair_of,
        branch_of=branch_of,
        lab=lab_key[at_lab],
        lab_branch=branch_of[at_lab],
        stratum=s[at_stratum],
        stratum_branch=branch_of[at_stratum],
        pair_lab=lab_of[at_pair],
        pair_stratum=stratum_of[at_pair],
        branch=b[at_branch],
    )


def _index(values: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> IntArray:
    array = as_parameter(values, name, shape, low=0.0, high=2.0**53, open_ends=False)
    if np.any(array != np.floor(array)):
        raise DetectorError(f"{name}: must be whole numbers")
    return array.astype(np.int64)


def _number(*keys: IntArray) -> tuple[IntArray, IntArray]:
    """Number the distinct combinations of keys in their order: position of each row, and a row of each position."""
    order = _order(_sortable(*keys))
    fresh = np.zeros(order.size, dtype=np.bool_)
    for key in keys:
        fresh |= _fresh(key[order])
    run, first = _runs(fresh)
    position = np.empty(order.size, dtype=np.int64)
    position[order] = run
    return position, order[first]


def _fresh(key: IntArray) -> BoolArray:
    """Where another value begins than that of the row before."""
    fresh = np.ones(key.size, dtype=np.bool_)
    np.not_equal(key[1:], key[:-1], out=fresh[1:])
    return fresh


def _runs(fresh: BoolArray) -> tuple[IntArray, IntArray]:
    """Number of the run that each row belongs to, and the first row of each run, from where one begins."""
    first = np.flatnonzero(fresh)
    return np.arange(first.size).repeat(np.diff(first, append=fresh.size)), first


def _sortable(*keys: IntArray) -> tuple[npt.NDArray[np.integer], ...]:
    """Keys for ``np.lexsort``, the first given one first: small ones, or all in one number where it can hold them."""
    spans = [int(key.max(initial=0)) + 1 for key in keys]
    if max(spans) <= _SMALL or math.prod(spans) >= 2**63:
        return tuple(_small(key) for key in keys[::-1])
    packed = keys[0]
    for key, span in zip(keys[1:], spans[1:], strict=True):
        packed = packed * span + key
    return (packed,)


def _small(key: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Whole numbers from 0 as such of 16 bits where these can hold them: they are sorted by their digits, which is ten
    times as fast."""
    if key.max(initial=0) >= _SMALL:
        return key
    small = key.astype(np.uint16)
    return small if (small == key).all() else key


def _order(by: tuple[npt.NDArray[np.integer], ...]) -> IntArray:
    """Some order of the rows by keys from :func:`_sortable`, those of equal keys in any."""
    return np.lexsort(by) if len(by) > 1 else np.argsort(by[0])


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
