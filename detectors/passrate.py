"""Pass rates of one window: under the declared target, or worse than the reference?

Intervals after Brown, Cai and DasGupta (2001), "Interval estimation for a binomial proportion", *Statistical
Science* 16, 101-133: Jeffreys for evidence, Wilson for display. A target is judged by the exact binomial
tail, so that a conforming population is denied with at most the stated risk (the rule of GB/T 2828.4, ISO
2859-4).

A reference (own history, or the peers) is itself a sample, and batches of one producer fail together. Both go
into a beta-binomial predictive law (Griffiths 1973, *Biometrics* 29, 637-648). With rho the intra-class
correlation of the failures in one window, the window's own rate varies with variance p (1 - p) tau::

    tau = rho + (1 - rho) / (n_eff + 2),    n_eff = ref_tested / (1 + (m - 1) rho),   m = ref_tested /
    ref_windows

At rho = 0 this is Jeffreys' posterior of the reference, exactly. Without the correlation, large windows alarm
at trifles: see the abattoir series, where the plain p-chart flags ten weeks and Laney's three.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, RateEvidence, as_parameter, as_samples, check_fraction
from detectors.tails import beta_binomial_tail

__all__ = [
    "below_target",
    "chance_by_reference",
    "dispersion",
    "jeffreys_interval",
    "pass_rate",
    "pooled_dispersion",
    "wilson_interval",
    "worse_than_reference",
]

LARGEST_RHO = 0.95
"""Beyond this, windows pass or fail as one, and the predictive law has no middle left."""


def jeffreys_interval(
    tested: npt.ArrayLike, hits: npt.ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Equal-tailed Jeffreys interval of the rate hits / tested; 0 and 1 close it where no or all items hit.

    Parameters
    ----------
    tested, hits
        Counts, ``[series]``. Where nothing was tested the interval is (0, 1).
    confidence
        Two-sided.

    Examples
    --------
    >>> low, high = jeffreys_interval([50], [5])
    >>> round(float(low[0]), 6), round(float(high[0]), 6)
    (0.039194, 0.205355)
    """
    n, x = as_samples(tested, hits)
    half = (1.0 - check_fraction(confidence, "confidence")) / 2.0
    low = np.where(x > 0, special.betaincinv(x + 0.5, n - x + 0.5, half), 0.0)
    high = np.where(x < n, 1.0 - special.betaincinv(n - x + 0.5, x + 0.5, half), 1.0)
    return low, high


def wilson_interval(
    tested: npt.ArrayLike, hits: npt.ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Wilson's score interval of the rate hits / tested; parameters as for :func:`jeffreys_interval`.

    Examples
    --------
    >>> low, high = wilson_interval([50], [5])
    >>> round(float(low[0]), 6), round(float(high[0]), 6)
    (0.043476, 0.213602)
    """
    n, x = as_samples(tested, hits)
    z = float(special.ndtri(0.5 + check_fraction(confidence, "confidence") / 2.0))
    scale = n + z * z
    centre = (x + z * z / 2.0) / scale
    half = z * np.sqrt(np.maximum(x * (n - x) / np.maximum(n, 1.0), 0.0) + z * z / 4.0) / scale
    # At the ends the formula gives 0 and 1 only to rounding.
    return np.where(x > 0, centre - half, 0.0), np.where(x < n, centre + half, 1.0)


def below_target(
    tested: npt.ArrayLike,
    failed: npt.ArrayLike,
    target_pass_rate: npt.ArrayLike,
    confidence: float = 0.95,
) -> RateEvidence:
    """Judge whether the pass rate is under its declared target.

    Parameters
    ----------
    tested, failed
        Items in the window, ``[series]``.
    target_pass_rate
        Target as a share from 0 to 1, one or ``[series]``. With a target of 1 the first failure is proof.
    confidence
        Of the Jeffreys interval; ``1 - confidence`` is also the risk of denying a conforming population.

    Returns
    -------
    RateEvidence
        ``p_value`` is P(failures >= failed) at the target, exact; the single item that fails is then evidence
        enough against a target of 95% or more, at confidence 0.95. ``alarm``: p_value <= 1 - confidence and
        the interval's upper end under the target.

    Raises
    ------
    DetectorError
        If counts are not counts, more failed than were tested, or the target is out of range.

    Examples
    --------
    >>> found = below_target([200, 200], [4, 12], 0.98)
    >>> found.alarm.tolist(), found.p_value.round(4).tolist()
    ([False, True], [0.5685, 0.0008])
    """
    n, x = as_samples(tested, failed)
    target = as_parameter(target_pass_rate, "target_pass_rate", n.shape, low=0.0, high=1.0, open_ends=False)
    lower, upper = jeffreys_interval(n, n - x, confidence)
    p_value = np.where(x > 0, special.betainc(np.maximum(x, 1.0), n - x + 1.0, 1.0 - target), 1.0)
    defined = n > 0
    return RateEvidence(
        tested=n,
        failed=x,
        rate=pass_rate(n, x),
        lower=lower,
        upper=upper,
        reference=target,
        p_value=p_value,
        alarm=defined & (p_value <= 1.0 - confidence) & (upper < target),
        defined=defined,
    )


def worse_than_reference(
    tested: npt.ArrayLike,
    failed: npt.ArrayLike,
    ref_tested: npt.ArrayLike,
    ref_failed: npt.ArrayLike,
    rho: npt.ArrayLike,
    *,
    ref_windows: npt.ArrayLike = 1,
    alpha: float = 0.01,
    confidence: float = 0.95,
) -> RateEvidence:
    """Judge whether a window fails more than its reference, allowing for over-dispersion and a small
    reference.

    Parameters
    ----------
    tested, failed
        Items in the window, ``[series]``.
    ref_tested, ref_failed
        Items in the reference (own history without this window, or the peers), ``[series]``.
    rho
        Intra-class correlation from 0 to under 1, one or ``[series]``: from :func:`dispersion`.
    ref_windows
        Windows that the reference is made of, one or ``[series]``. 1, the default, is the cautious end: the
        reference's items are then taken to be as correlated as those of a single window.
    alpha
        Level of ``alarm``.
    confidence
        Of the Jeffreys interval shown.

    Returns
    -------
    RateEvidence
        ``reference`` is the reference's pass rate, Jeffreys' posterior mean. ``defined`` is False where
        nothing was tested in the window or in the reference.

    Raises
    ------
    DetectorError
        If counts are not counts, more failed than were tested, or a parameter is out of range.

    Examples
    --------
    >>> plain = worse_than_reference([500], [16], [5000], [80], 0.0)
    >>> clustered = worse_than_reference([500], [16], [5000], [80], 0.02, ref_windows=10)
    >>> plain.p_value.round(4).tolist(), clustered.p_value.round(4).tolist()
    ([0.0115], [0.1647])
    """
    n, x = as_samples(tested, failed)
    reference, p_value, defined = chance_by_reference(n, x, ref_tested, ref_failed, rho, ref_windows=ref_windows)
    lower, upper = jeffreys_interval(n, n - x, confidence)
    return RateEvidence(
        tested=n,
        failed=x,
        rate=pass_rate(n, x),
        lower=lower,
        upper=upper,
        reference=reference,
        p_value=p_value,
        alarm=defined & (p_value <= check_fraction(alpha, "alpha")),
        defined=defined,
    )


def chance_by_reference(
    tested: npt.ArrayLike,
    failed: npt.ArrayLike,
    ref_tested: npt.ArrayLike,
    ref_failed: npt.ArrayLike,
    rho: npt.ArrayLike,
    *,
    ref_windows: npt.ArrayLike = 1,
    plenty: float = np.inf,
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """``reference``, ``p_value`` and ``defined`` of :func:`worse_than_reference` alone, which has the parameters: many
    windows are weighed for each that is shown with an interval. Where a p-value is surely above ``plenty``, something
    above ``plenty`` and not above the p-value may stand for it."""
    n, x = as_samples(tested, failed)
    ref_n, ref_x = as_samples(ref_tested, ref_failed, prefix="ref_")
    if ref_n.shape != n.shape:
        raise DetectorError(f"ref_tested: shape {ref_n.shape} differs from tested, {n.shape}")
    correlation = np.minimum(as_parameter(rho, "rho", n.shape, low=0.0, high=1.0, open_ends=False), LARGEST_RHO)
    windows = as_parameter(ref_windows, "ref_windows", n.shape, low=1.0, high=np.inf, open_ends=False)
    size = np.maximum(ref_n / windows, 1.0)
    tau = correlation + (1.0 - correlation) / (ref_n / (1.0 + (size - 1.0) * correlation) + 2.0)
    reference = (ref_x + 0.5) / (ref_n + 1.0)
    defined = (n > 0) & (ref_n > 0)
    p_value = np.where(defined, beta_binomial_tail(x, n, reference, 1.0 / tau - 1.0, plenty=plenty), 1.0)
    return np.where(ref_n > 0, 1.0 - reference, np.nan), p_value, defined


def dispersion(tested: npt.ArrayLike, failed: npt.ArrayLike, *, pool: float, pool_weight: float = 10.0) -> FloatArray:
    """Intra-class correlation of the failures in each series' windows, shrunk toward a pooled one.

    Moments of Pearson's chi-square: under the beta-binomial law its mean is, to first order,
    ``(T - 1) + rho sum_t (n_t - 1)(1 - n_t / N)`` over T windows of n_t items, N in all.

    Parameters
    ----------
    tested, failed
        Items in each window, ``[series, time]``; windows without items are skipped.
    pool
        The pooled correlation, from :func:`pooled_dispersion`, or any value from 0 to under 1.
    pool_weight
        Windows that the pooled value counts for.

    Returns
    -------
    FloatArray
        rho, ``[series]``, from 0 to 0.95. The pooled value itself where a series has no failure (or nothing
        but).
    """
    if not 0.0 <= pool < 1.0 or not 0.0 <= pool_weight < np.inf:
        raise DetectorError("pool: a correlation from 0 to under 1; pool_weight: not negative")
    excess, room, free = _excess(*as_samples(tested, failed, ndim=2))
    own = np.divide(excess, room, out=np.full_like(room, pool), where=room > 0)
    weight = np.where(room > 0, free, 0.0)
    total = weight + pool_weight
    mixed = np.divide(weight * own + pool_weight * pool, total, out=np.full_like(own, pool), where=total > 0)
    return np.clip(mixed, 0.0, LARGEST_RHO)


def pooled_dispersion(tested: npt.ArrayLike, failed: npt.ArrayLike) -> float:
    """One intra-class correlation for all series, each with its own pass rate: ``[series, time]`` to a
    number.

    The sums are exactly rounded (:func:`math.fsum`), so the order of the series does not touch them. 0 where
    there is nothing to estimate from.
    """
    excess, room, _ = _excess(*as_samples(tested, failed, ndim=2))
    total = math.fsum(room)
    return min(max(math.fsum(excess[room > 0]) / total, 0.0), LARGEST_RHO) if total > 0 else 0.0


def _excess(n: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Pearson's chi-square over its mean at rho = 0; what it gains per unit of rho; degrees of freedom."""
    items, failures = n.sum(axis=1), x.sum(axis=1)
    rate = failures / np.maximum(items, 1.0)
    unit = n * (rate * (1.0 - rate))[:, None]
    square = np.divide((x - n * rate[:, None]) ** 2, unit, out=np.zeros_like(n), where=unit > 0)
    free = np.maximum((n > 0).sum(axis=1) - 1.0, 0.0)
    share = n / np.maximum(items, 1.0)[:, None]
    room = (np.maximum(n - 1.0, 0.0) * (1.0 - share)).sum(axis=1)
    mixed = (failures > 0) & (failures < items)
    return square.sum(axis=1) - free, np.where(mixed, room, 0.0), free


def pass_rate(n: FloatArray, x: FloatArray) -> FloatArray:
    """Share of the n tested that is not among the x failed; NaN where nothing was tested."""
    return np.asarray(np.divide(n - x, n, out=np.full_like(n, np.nan), where=n > 0))
