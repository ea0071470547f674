"""New product x injury pairs: is a pair reported more often than its product and its injury lead to expect?

:mod:`detectors.pair_counts` counts N reports that name both, and the E that independence expects. N / E alone
is mostly noise where E is 0.01, so the pair's rate is shrunk toward what all pairs of the table look like: the
gamma-Poisson shrinker of DuMouchel (1999), fitted once in a while by
:func:`detectors.gamma_poisson.fit_mixture`. Its EBGM is the shrunk N / E, EB05 and EB95 its 90% interval; the
usual signal is EB05 >= 2 with three reports at least (Szarfman, Machado and O'Neill 2002, *Drug Safety* 25,
381-392).

Beside it stand the measures that a reader may know: PRR (Evans, Waller and Davis 2001,
*Pharmacoepidemiology and Drug Safety* 10, 483-486), ROR, Yates's chi-square, and the information component
with its gamma quantiles (Norén, Hopstadius and Bate 2013, *Statistical Methods in Medical Research* 22,
57-69)::

    IC = log2((N + 1/2) / (E + 1/2)),   bounds: log2 of the quantiles of Gamma(N + 1/2, rate E + 1/2)

Nothing here keeps state. As reports arrive the caller counts them up, and scores the pairs that changed with
the mixture that it has; margins are arguments, so a pair's scores never hang on which others came along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, as_counts, as_parameter, check_fraction
from detectors.gamma_poisson import (
    GammaMixture,
    as_cells,
    ordinary_tail,
    posterior_geometric_mean,
    posterior_quantile,
    posterior_weight,
)

__all__ = [
    "PairEvidence",
    "TwoByTwo",
    "information_component",
    "score_pairs",
    "two_by_two",
]


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """What the gamma-Poisson shrinker says about each pair; every field is an array ``[pairs]``.

    Attributes
    ----------
    observed, expected
        Reports of the pair; reports expected under independence.
    weight
        Probability that the pair belongs to the mixture's first component, the one of high rates.
    ebgm, eb05, eb95
        Geometric mean, 5% and 95% quantile of the rate given N; NaN where not defined.
    p_value
        Probability of so many reports if the pair is an ordinary one that was reported at all, see
        :func:`detectors.gamma_poisson.ordinary_tail`; 1 where not defined.
    signal
        eb05 and observed both reach their least.
    defined
        False where nothing was expected.
    """

    observed: FloatArray
    expected: FloatArray
    weight: FloatArray
    ebgm: FloatArray
    eb05: FloatArray
    eb95: FloatArray
    p_value: FloatArray
    signal: BoolArray
    defined: BoolArray


@dataclass(frozen=True, slots=True)
class TwoByTwo:
    """Measures of one pair against all else; every field is an array ``[pairs]``, NaN where not defined.

    Attributes
    ----------
    prr, prr_lower, prr_upper
        Proportional reporting ratio and its interval; 0 without a report of the pair, infinite if no other
        product has the injury, NaN if there is no other report, and the interval is then (0, infinity).
    ror, ror_lower, ror_upper
        Reporting odds ratio, likewise.
    chi2
        Chi-square with Yates's correction, never more than takes the difference to 0.
    ic, ic_lower, ic_upper
        Information component, in bits, and its interval.
    defined
        False where the product or the injury was never reported.
    """

    prr: FloatArray
    prr_lower: FloatArray
    prr_upper: FloatArray
    ror: FloatArray
    ror_lower: FloatArray
    ror_upper: FloatArray
    chi2: FloatArray
    ic: FloatArray
    ic_lower: FloatArray
    ic_upper: FloatArray
    defined: BoolArray


def score_pairs(
    n: npt.ArrayLike,
    expected: npt.ArrayLike,
    theta: GammaMixture,
    *,
    least_eb05: float = 2.0,
    least_reports: float = 3.0,
) -> PairEvidence:
    """Score pairs by the gamma-Poisson shrinker: all of them, or the ones that a new report changed.

    Parameters
    ----------
    n, expected
        Reports of each pair and reports expected, ``[pairs]``.
    theta
        The mixture, from :func:`detectors.gamma_poisson.fit_mixture`.
    least_eb05, least_reports
        What a signal takes.

    Raises
    ------
    DetectorError
        If `n` is not an array of counts, `expected` has NaN or negatives, or the shapes differ.

    Examples
    --------
    >>> theta = GammaMixture(3.25595, 0.399988, 2.02375, 1.90613, 0.0653075)
    >>> found = score_pairs([16, 1], [0.406436, 0.406436], theta)
    >>> found.ebgm.round(2).tolist(), found.eb05.round(2).tolist(), found.signal.tolist()
    ([23.26, 1.17], [15.69, 0.37], [True, False])
    """
    count, mean = as_cells(n, expected)
    defined: BoolArray = mean > 0
    eb05 = np.where(defined, posterior_quantile(count, mean, theta, 0.05), np.nan)
    return PairEvidence(
        observed=count,
        expected=mean,
        weight=np.where(defined, posterior_weight(count, mean, theta), np.nan),
        ebgm=np.where(defined, posterior_geometric_mean(count, mean, theta), np.nan),
        eb05=eb05,
        eb95=np.where(defined, posterior_quantile(count, mean, theta, 0.95), np.nan),
        p_value=np.where(defined, ordinary_tail(count, mean, theta), 1.0),
        signal=defined & (eb05 >= least_eb05) & (count >= least_reports),
        defined=defined,
    )


def information_component(
    n: npt.ArrayLike, expected: npt.ArrayLike, *, level: float = 0.95
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """IC and the lower and upper bound of its central interval, in bits, each ``[pairs]``.

    Raises
    ------
    DetectorError
        If `n` is not an array of counts, `expected` has NaN or negatives, or `level` is no fraction.

    Examples
    --------
    >>> [float(value.round(4)[0]) for value in information_component([25], [0.65])]
    [4.4708, 3.8498, 4.9806]
    """
    count, mean = as_cells(n, expected)
    side = (1.0 - check_fraction(level, "level")) / 2.0
    shape, rate = count + 0.5, mean + 0.5
    lower, upper = (np.log2(special.gammaincinv(shape, at)) - np.log2(rate) for at in (side, 1.0 - side))
    return np.log2(shape) - np.log2(rate), lower, upper


def two_by_two(
    n: npt.ArrayLike,
    product_margin: npt.ArrayLike,
    injury_margin: npt.ArrayLike,
    total: npt.ArrayLike,
    *,
    level: float = 0.95,
) -> TwoByTwo:
    """PRR, ROR, chi-square and IC of pairs, each against all other reports.

    Parameters
    ----------
    n, product_margin, injury_margin
        Reports of the pair, of its product and of its injury, ``[pairs]``.
    total
        Reports in all, one or ``[pairs]``.
    level
        Level of the intervals.

    Raises
    ------
    DetectorError
        If an array does not hold counts, or a pair has more reports than its margins allow.

    Examples
    --------
    >>> found = two_by_two([25], [100], [65], 10_000)
    >>> found.prr.tolist(), found.ror.round(3).tolist(), found.ic.round(5).tolist()
    ([61.875], [82.167], [4.47079])
    """
    a = as_counts(n, "n", ndim=1)
    row, column = (
        as_parameter(margin, name, a.shape, low=0.0, high=2.0**53, open_ends=False)
        for margin, name in ((product_margin, "product_margin"), (injury_margin, "injury_margin"))
    )
    size = as_parameter(total, "total", a.shape, low=0.0, high=2.0**53, open_ends=False)
    b, c, d = row - a, column - a, size - row - column + a
    if np.any((b < 0) | (c < 0) | (d < 0)):
        raise DetectorError("n: must be at most either margin, and the margins together at most n + total")
    defined: BoolArray = (row > 0) & (column > 0)
    z = float(special.ndtri((1.0 + check_fraction(level, "level")) / 2.0))
    inverse_a, inverse_c = _ratio(1.0, a, np.inf), _ratio(1.0, c, np.inf)
    prr_variance = np.maximum(inverse_a + inverse_c - _ratio(1.0, row, 0.0) - _ratio(1.0, c + d, 0.0), 0.0)
    ror_variance = inverse_a + inverse_c + _ratio(1.0, b, np.inf) + _ratio(1.0, d, np.inf)
    expected = _ratio(row * column, size, 0.0)
    prr = _with_interval(a * (c + d), row * c, prr_variance, z)
    ror = _with_interval(a * d, b * c, ror_variance, z)
    ic = information_component(a, expected, level=level)
    measures = (*prr, *ror, _yates(a, expected, row, column, size), *ic)
    shown = [np.where(defined, value, np.nan) for value in measures]
    return TwoByTwo(
        prr=shown[0],
        prr_lower=shown[1],
        prr_upper=shown[2],
        ror=shown[3],
        ror_lower=shown[4],
        ror_upper=shown[5],
        chi2=shown[6],
        ic=shown[7],
        ic_lower=shown[8],
        ic_upper=shown[9],
        defined=defined,
    )


def _with_interval(
    over: FloatArray, under: FloatArray, variance: FloatArray, z: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """over / under and its log-normal interval; (0, infinity) where the logarithm has no variance."""
    estimate = _ratio(over, under, np.where(over > 0, np.inf, np.nan))
    known = np.isfinite(variance) & (over > 0) & (under > 0)
    log = np.log(np.where(known, estimate, 1.0))
    reach = z * np.sqrt(np.where(known, variance, 0.0))
    return estimate, np.where(known, np.exp(log - reach), 0.0), np.where(known, np.exp(log + reach), np.inf)


def _yates(a: FloatArray, expected: FloatArray, row: FloatArray, column: FloatArray, size: FloatArray) -> FloatArray:
    """Chi-square of the 2 x 2 table: all four cells differ from expectation by the same."""
    off = np.maximum(np.abs(a - expected) - 0.5, 0.0)
    spread = expected * _ratio(size - row, size, 0.0) * _ratio(size - column, size, 0.0)
    return _ratio(off**2, spread, 0.0)


def _ratio(over: FloatArray | float, under: FloatArray, otherwise: FloatArray | float) -> FloatArray:
    """over / under; `otherwise` where `under` is 0."""
    given = under != 0
    return np.where(given, over / np.where(given, under, 1.0), otherwise)
