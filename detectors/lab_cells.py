"""Cells (product x region) judged net of the labs that tested them.

A cell that a severe lab tests may look bad without being bad. Its expected failures are therefore those that *these*
labs, with their effects from all their other cells (:mod:`detectors.lab_effects`), would find at the reference rate.
What is not known of the labs widens the law under which the p-value is taken: a cell whose labs test nothing
else must stand out by more than labs differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.evidence import BoolArray, FloatArray, as_parameter
from detectors.lab_effects import LabFit
from detectors.lab_rows import LARGEST_CORRELATION, LabRows, group_sum, only
from detectors.tails import beta_binomial_tail

__all__ = ["CellEvidence", "cell_evidence", "expected_failures", "mixed_tails"]


@dataclass(frozen=True, slots=True)
class CellEvidence:
    """What the tests say about each stratum, its labs' effects allowed for; every field is an array ``[strata]``.

    Attributes
    ----------
    tested, failed
        Items and failures.
    unadjusted, expected
        Failures expected at the reference rate, from the labs as if all were alike, and from these labs.
    p_value
        P(failures >= failed); 1 where not defined.
    separable
        As in :class:`~detectors.lab_effects.LabFit`.
    defined
        False where nothing was tested.
    """

    tested: FloatArray
    failed: FloatArray
    unadjusted: FloatArray
    expected: FloatArray
    p_value: FloatArray
    separable: FloatArray
    defined: BoolArray


def expected_failures(rows: LabRows, fit: LabFit, rate: npt.ArrayLike) -> FloatArray:
    """Failures expected of each row at a reference rate and with its lab's effect, ``[rows]`` in the input's order.

    Parameters
    ----------
    rows, fit
        From :func:`~detectors.lab_rows.lab_rows` and :func:`~detectors.lab_effects.fit_labs`.
    rate
        Failure rate that an average lab would find, strictly between 0 and 1: one, or ``[rows]`` in the input's order.
    """
    given = as_parameter(rate, "rate", rows.tested.shape, low=0.0, high=1.0)[rows.order]
    expected = np.empty(rows.tested.size)
    expected[rows.order] = rows.tested * special.expit(special.logit(given) + fit.pair_log_odds[rows.pair_of])
    return expected


def cell_evidence(
    rows: LabRows,
    fit: LabFit,
    rate: npt.ArrayLike | None = None,
    *,
    use: npt.ArrayLike | None = None,
    natural_spread: bool = True,
) -> CellEvidence:
    """Judge every stratum against a reference rate, allowing for what its labs do elsewhere.

    Parameters
    ----------
    rows, fit
        From :func:`~detectors.lab_rows.lab_rows` and :func:`~detectors.lab_effects.fit_labs`.
    rate
        Failure rate expected of the stratum with an average lab, strictly between 0 and 1: one, or ``[rows]`` in
        the input's order. By default the branch's common rate.
    use
        Rows to judge (a recent window, say), ``[rows]`` of bool in the input's order; all by default.
    natural_spread
        Whether strata may differ from that rate by the branch's ``stratum_variance``: True asks for strata that stand
        out from the others, False for any that is above the rate.

    Returns
    -------
    CellEvidence
        The p-value is the beta-binomial tail whose variance holds the sampling of correlated items, what is not
        known of the labs' effects, and the natural spread.
    """
    rows = only(rows, use)
    if rate is None:
        base = fit.base[rows.branch_of]
    else:
        base = special.logit(as_parameter(rate, "rate", rows.tested.shape, low=0.0, high=1.0)[rows.order])
    strata = rows.stratum.size
    p = special.expit(base + fit.pair_log_odds[rows.pair_of])
    plain = rows.tested * p * (1.0 - p)
    total = group_sum(rows.stratum_of, plain, strata)
    by_pair = group_sum(rows.pair_of, plain, rows.pair_lab.size)
    variance = group_sum(rows.stratum_of, plain * (1.0 + np.maximum(rows.tested - 1.0, 0.0) * rows.rho), strata)
    variance += group_sum(rows.pair_stratum, by_pair**2 * fit.pair_variance, strata)
    if natural_spread:
        variance += total**2 * fit.stratum_variance[rows.stratum_branch]
    n, x = group_sum(rows.stratum_of, rows.tested, strata), group_sum(rows.stratum_of, rows.failed, strata)
    expected = group_sum(rows.stratum_of, rows.tested * p, strata)
    return CellEvidence(
        tested=n,
        failed=x,
        unadjusted=group_sum(rows.stratum_of, rows.tested * special.expit(base), strata),
        expected=expected,
        p_value=mixed_tails(n, x, expected, variance)[0],
        separable=fit.separable,
        defined=n > 0,
    )


def mixed_tails(
    tested: FloatArray, failed: FloatArray, expected: FloatArray, variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """P(X >= failed) and P(X <= failed) for X beta-binomial with a given mean and variance, ``[groups]``.

    The variance counts as no less than the binomial one. Both are 1 where nothing was tested.
    """
    some = tested > 0
    n = np.where(some, tested, 1.0)
    rate = np.clip(np.where(some, expected, 0.5) / n, 1e-12, 1.0 - 1e-12)
    binomial = n * rate * (1.0 - rate)
    rho = np.clip((variance / binomial - 1.0) / np.maximum(n - 1.0, 1.0), 0.0, LARGEST_CORRELATION)
    precision = np.divide(1.0 - rho, rho, out=np.full(rho.shape, np.inf), where=rho > 1e-9)
    x = np.where(some, failed, 0.0)
    high = beta_binomial_tail(x, n, rate, precision)
    low = beta_binomial_tail(n - x, n, 1.0 - rate, precision)
    return np.where(some, high, 1.0), np.where(some, low, 1.0)
