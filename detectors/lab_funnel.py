"""Funnel plot of laboratories: whose failures are not explained by what it tests?

Spiegelhalter (2005), "Funnel plots for comparing institutional performance", *Statistics in Medicine* 24, 1185-1202.
Each lab's ratio of failures observed over expected (indirect standardisation: expected from the same strata without
this lab, :mod:`detectors.lab_effects`) stands against limits that narrow with its size: the exact binomial ones,
interpolated between whole counts, and wider ones that allow for the over-dispersion of the branch's labs,
phi = mean of the squared winsorised z-scores. Where six inspectors all differ, phi is large and the wider limits let
all of them pass: that is the plot's way to say that the spread is general. The p-values do not hide it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.declared_quality import acceptance_limit
from detectors.evidence import BoolArray, FloatArray, as_counts, as_parameter, check_fraction
from detectors.lab_cells import mixed_tails
from detectors.lab_effects import LabFit, winsorised_squares
from detectors.lab_rows import LabRows, group_sum

__all__ = ["FunnelEvidence", "funnel_limits", "lab_funnel"]


@dataclass(frozen=True, slots=True)
class FunnelEvidence:
    """What the funnel plot says about each lab; every field is an array ``[labs]``.

    Attributes
    ----------
    tested, failed, expected, ratio
        As in :class:`~detectors.lab_effects.LabFit`.
    lower, upper
        Exact binomial limits of the ratio for a lab of this size that is like its peers, as if the expected failures
        were known; the p-values do without that.
    wide_lower, wide_upper
        Limits with over-dispersion, ``1 -+ z sqrt(phi variance) / expected``, the lower one at least 0.
    z
        (failed - expected) over its standard deviation if the lab is like its peers.
    dispersion
        phi of the lab's branch, at least 1.
    p_severe, p_lenient
        Probability of so many failures or more, so few or fewer, if the lab is like its peers; 1 where not defined.
    severe, lenient
        p_severe, p_lenient <= alpha / 2.
    defined
        False where the lab tested nothing or its branch has no other lab that did.
    """

    tested: FloatArray
    failed: FloatArray
    expected: FloatArray
    ratio: FloatArray
    lower: FloatArray
    upper: FloatArray
    wide_lower: FloatArray
    wide_upper: FloatArray
    z: FloatArray
    dispersion: FloatArray
    p_severe: FloatArray
    p_lenient: FloatArray
    severe: BoolArray
    lenient: BoolArray
    defined: BoolArray


def lab_funnel(rows: LabRows, fit: LabFit, *, alpha: float = 0.002, natural_spread: bool = False) -> FunnelEvidence:
    """Place every lab in its branch's funnel plot.

    Parameters
    ----------
    rows, fit
        From :func:`~detectors.lab_rows.lab_rows` and :func:`~detectors.lab_effects.fit_labs`.
    alpha
        Two-sided level of the limits and flags: 0.002 for the customary 99.8% limits.
    natural_spread
        Whether labs may differ by the branch's ``lab_variance``: True flags labs that stand out from the
        others, False any that is unlike its peers.

    Raises
    ------
    DetectorError
        If alpha is out of range.
    """
    half = check_fraction(alpha, "alpha") / 2.0
    branches = rows.branch.size
    active = fit.tested > 0
    count = group_sum(rows.lab_branch, active.astype(np.float64), branches)
    defined = active & (count[rows.lab_branch] > 1)
    deviation = np.sqrt(fit.variance)
    rise = fit.failed - fit.expected
    z = np.divide(rise, deviation, out=np.zeros_like(rise), where=defined & (deviation > 0))
    squares = winsorised_squares(rows.lab_branch, z, defined, branches)
    phi = np.maximum(squares / np.maximum(count, 1.0), 1.0)[rows.lab_branch]
    share = np.divide(fit.expected, fit.tested, out=np.full(rise.shape, 0.5), where=active)
    lower, upper = funnel_limits(fit.tested, share, alpha)
    reach = float(special.ndtri(1.0 - half)) * np.sqrt(phi) * deviation
    wide = np.divide(reach, fit.expected, out=np.full(rise.shape, np.inf), where=fit.expected > 0)
    # Of the log-odds' variance to the counts': by the binomial part, n p (1 - p) at the lab's own mix of strata.
    spread = (fit.tested * share * (1.0 - share)) ** 2 * fit.lab_variance[rows.lab_branch]
    variance = fit.variance + (spread if natural_spread else 0.0)
    high, low = mixed_tails(fit.tested, fit.failed, fit.expected, variance)
    return FunnelEvidence(
        tested=fit.tested,
        failed=fit.failed,
        expected=fit.expected,
        ratio=fit.ratio,
        lower=lower / share,
        upper=upper / share,
        wide_lower=np.maximum(1.0 - wide, 0.0),
        wide_upper=1.0 + wide,
        z=z,
        dispersion=phi,
        p_severe=np.where(defined, high, 1.0),
        p_lenient=np.where(defined, low, 1.0),
        severe=defined & (high <= half),
        lenient=defined & (low <= half),
        defined=defined,
    )


def funnel_limits(tested: npt.ArrayLike, rate: npt.ArrayLike, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Exact binomial control limits of a share, interpolated between whole counts (appendix A.1.1 of the paper).

    With F the distribution function and r the least count with F(r) >= q, the limit at q is
    (r - (F(r) - q) / (F(r) - F(r - 1))) / n.

    Parameters
    ----------
    tested
        Items, ``[groups]``.
    rate
        Target, strictly between 0 and 1, one or ``[groups]``.
    alpha
        Two-sided level: q = alpha / 2 and 1 - alpha / 2.

    Returns
    -------
    tuple of FloatArray
        Lower and upper limit, from 0 to 1; (0, 1) where nothing was tested.

    Examples
    --------
    >>> low, high = funnel_limits([100, 1000], 0.1, 0.05)
    >>> low.round(4).tolist(), high.round(4).tolist()
    ([0.0404, 0.0813], [0.1577, 0.1185])
    """
    n = as_counts(tested, "tested", ndim=1)
    half = check_fraction(alpha, "alpha") / 2.0
    p = np.clip(as_parameter(rate, "rate", n.shape, low=0.0, high=1.0, open_ends=False), 1e-300, 1.0 - 2.0**-53)
    limits = []
    for upper_tail in (1.0 - half, half):
        r = acceptance_limit(n, p, risk=upper_tail)
        above = _more_than(r, n, p)  # 1 - F(r)
        gap = _more_than(r - 1.0, n, p) - above
        share = np.divide(upper_tail - above, gap, out=np.zeros_like(gap), where=gap > 0)
        limits.append(np.clip((r - share) / np.maximum(n, 1.0), 0.0, 1.0))
    return np.where(n > 0, limits[0], 0.0), np.where(n > 0, limits[1], 1.0)


def _more_than(r: FloatArray, n: FloatArray, p: FloatArray) -> FloatArray:
    """P(X > r) for X binomial."""
    inside = (r >= 0) & (r < n)
    k = np.where(inside, r, 0.0)
    tail = special.betainc(k + 1.0, np.maximum(n - k, 1.0), p)
    return np.asarray(np.where(r < 0, 1.0, np.where(inside, tail, 0.0)))
