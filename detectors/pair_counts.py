"""Unique reports of every product x injury pair, and how many of them independence expects.

A report names products and injuries, any number of each, and may come in many rows; everything here counts
reports, never rows::

    N(p, i) reports name both,    E(p, i) = sum over strata s of N_s(p) N_s(i) / N_s

What :mod:`detectors.disproportionality` scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import FloatArray, IntArray, as_counts, as_parameter

__all__ = ["PairCounts", "expected_counts", "pair_counts"]


@dataclass(frozen=True, slots=True)
class PairCounts:
    """Reports of each pair that occurs, by product and then injury; arrays ``[pairs]``.

    Attributes
    ----------
    product, injury
        The pair's codes.
    n
        Reports that name both.
    product_margin, injury_margin
        Reports that name the product, and the injury.
    expected
        Reports expected under independence, within each stratum if strata were given.
    total
        Reports in all.
    """

    product: IntArray
    injury: IntArray
    n: FloatArray
    product_margin: FloatArray
    injury_margin: FloatArray
    expected: FloatArray
    total: int


def pair_counts(
    reports: npt.ArrayLike,
    products: npt.ArrayLike,
    injuries: npt.ArrayLike,
    *,
    strata: npt.ArrayLike | None = None,
) -> PairCounts:
    """Count unique reports of every pair, product and injury from rows of (report, product, injury).

    Parameters
    ----------
    reports, products, injuries
        Whole numbers ``[rows]``: the report's number and two codes. A row that comes twice counts once; a
        report that names two products and three injuries has six rows.
    strata
        Whole numbers ``[rows]``, the stratum (say year x sex) of each row's report: independence is then
        expected within each stratum only, which keeps an injury of children from telling on a toy.

    Raises
    ------
    DetectorError
        If the columns differ in length or do not hold whole numbers.

    Examples
    --------
    >>> found = pair_counts([1, 1, 2, 3, 3], [7, 7, 7, 8, 8], [0, 0, 0, 0, 1])
    >>> found.product.tolist(), found.injury.tolist(), found.n.tolist(), found.total
    ([7, 8, 8], [0, 0, 1], [2.0, 1.0, 1.0], 3)
    >>> found.expected.round(4).tolist()
    [2.0, 1.0, 0.3333]
    """
    report = _codes(reports, "reports", None)
    product, injury = (
        _codes(column, name, report.size) for column, name in ((products, "products"), (injuries, "injuries"))
    )
    stratum = np.zeros_like(report) if strata is None else _codes(strata, "strata", report.size)
    products_found, product_at = np.unique(product, return_inverse=True)
    injuries_found, injury_at = np.unique(injury, return_inverse=True)
    _, report_at = np.unique(report, return_inverse=True)
    pairs, pair_at = np.unique(product_at * injuries_found.size + injury_at, return_inverse=True)
    row_at, column_at = pairs // max(injuries_found.size, 1), pairs % max(injuries_found.size, 1)
    strata_found = _distinct(stratum)
    row, column = np.zeros((pairs.size, strata_found.size)), np.zeros((pairs.size, strata_found.size))
    for at, name in enumerate(strata_found):
        inside = stratum == name
        row[:, at] = _reports_of(product_at[inside], report_at[inside], products_found.size)[row_at]
        column[:, at] = _reports_of(injury_at[inside], report_at[inside], injuries_found.size)[column_at]
    sizes = [_distinct(report_at[stratum == name]).size for name in strata_found]
    return PairCounts(
        product=products_found[row_at],
        injury=injuries_found[column_at],
        n=_reports_of(pair_at, report_at, pairs.size),
        product_margin=_reports_of(product_at, report_at, products_found.size)[row_at],
        injury_margin=_reports_of(injury_at, report_at, injuries_found.size)[column_at],
        expected=expected_counts(row, column, sizes),
        total=_distinct(report).size,
    )


def expected_counts(product_margin: npt.ArrayLike, injury_margin: npt.ArrayLike, total: npt.ArrayLike) -> FloatArray:
    """Reports of a pair that independence expects, ``[pairs]``.

    Parameters
    ----------
    product_margin, injury_margin
        Reports of the pair's product and injury, ``[pairs]``, or ``[pairs, strata]`` to add up over strata.
    total
        Reports in all: one number, or ``[strata]``. A stratum without reports expects nothing.

    Raises
    ------
    DetectorError
        If an array does not hold counts, or the shapes disagree.

    Examples
    --------
    >>> expected_counts([10, 4], [5, 5], 100).tolist()
    [0.5, 0.2]
    """
    ndim = min(max(np.ndim(product_margin), 1), 2)
    row, column = (
        as_counts(margin, name, ndim=ndim)
        for margin, name in ((product_margin, "product_margin"), (injury_margin, "injury_margin"))
    )
    if row.shape != column.shape:
        raise DetectorError(f"product_margin and injury_margin: shapes {row.shape} and {column.shape} differ")
    size = as_parameter(total, "total", row.shape[1:], low=0.0, high=np.inf, open_ends=False)
    within = np.divide(row * column, size, out=np.zeros_like(row), where=np.broadcast_to(size > 0, row.shape))
    if ndim == 1:
        return within
    summed = np.zeros(row.shape[0])
    for stratum in range(row.shape[1]):  # one after the other, so that no batch shape changes the rounding
        summed += within[:, stratum]
    return summed


def _codes(values: npt.ArrayLike, name: str, length: int | None) -> IntArray:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise DetectorError(f"{name}: expected one column of whole numbers, found {array.ndim}-d {array.dtype}")
    if length is not None and array.size != length:
        raise DetectorError(f"{name}: {array.size} rows, but reports has {length}")
    return array.astype(np.int64)


def _reports_of(codes: npt.NDArray[np.intp], reports: npt.NDArray[np.intp], size: int) -> FloatArray:
    """Unique reports that name each code from 0 to `size` - 1; both columns are ranks, so their product fits."""
    span = int(reports.max()) + 1 if reports.size else 1
    return np.bincount(_distinct(codes * span + reports) // span, minlength=size).astype(np.float64)


def _distinct(values: IntArray) -> IntArray:
    """Distinct values in order. np.unique hashes whole numbers, which takes ten times as long on a million rows."""
    ordered = np.sort(values)
    return np.concatenate([ordered[:1], ordered[1:][ordered[1:] != ordered[:-1]]])
