"""Test of a declared quality level: does the sample contradict what the producer states?

ISO 2859-4 (GB/T 2828.4), *Procedures for assessment of declared quality levels*: a sample of n items contradicts the
declared quality level (DQL, the share nonconforming that is claimed not to be exceeded) if it has more than L_d
nonconforming ones, and L_d is such that a correct declaration is contradicted with a risk of at most 5%. The standard's
tables list pairs (n, L_d) for preferred DQLs and four levels of discrimination; here L_d is computed for any n and any
DQL from the exact law, which gives the same pairs (125 items against 0.65% nonconforming: L_d = 2), and by the
hypergeometric law where the lot is small. The limiting quality, at which a false declaration escapes with a risk of
10%, tells how sharp the sample is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, as_counts, as_parameter, as_samples, check_fraction

__all__ = [
    "DeclaredQualityEvidence",
    "acceptance_limit",
    "clopper_pearson_interval",
    "declared_quality",
    "hypergeometric_tail",
    "limiting_quality",
]

BLOCK = 512
"""Terms of a hypergeometric tail added at a time."""

NEGLIGIBLE = 1e-17
"""A term under this share of the sum no longer moves it."""


@dataclass(frozen=True, slots=True)
class DeclaredQualityEvidence:
    """What the samples say about the declared quality levels; every field is an array ``[series]``.

    Attributes
    ----------
    tested, failed
        Items in the sample; nonconforming ones among them.
    limit
        L_d: the largest number of nonconforming items that does not contradict the declaration.
    p_value
        Probability of so many nonconforming items or more at the declared level; 1 where not defined.
    contradicted
        failed > limit.
    limiting
        Share nonconforming at which the sample would fail to contradict with a probability of 10%; 1 where it has none.
    defined
        False where nothing was tested.
    """

    tested: FloatArray
    failed: FloatArray
    limit: FloatArray
    p_value: FloatArray
    contradicted: BoolArray
    limiting: FloatArray
    defined: BoolArray


def declared_quality(
    tested: npt.ArrayLike,
    failed: npt.ArrayLike,
    declared: npt.ArrayLike,
    *,
    lot_size: npt.ArrayLike | None = None,
    risk: float = 0.05,
) -> DeclaredQualityEvidence:
    """Judge whether samples contradict their declared quality levels.

    Parameters
    ----------
    tested, failed
        Items in the sample and nonconforming ones, ``[series]``.
    declared
        DQL, the share nonconforming, from 0 to under 1: one or ``[series]``.
    lot_size
        Items in the lot, one or ``[series]``; unlimited by default. A lot conforms if it has at most
        floor(declared * lot_size) nonconforming items. With a whole lot tested the judgement is certain.
    risk
        Largest probability of contradicting a correct declaration.

    Raises
    ------
    DetectorError
        If counts are not counts, more failed than were tested or more tested than the lot has, or a
        parameter is out of range.

    Examples
    --------
    >>> found = declared_quality([125, 125], [2, 3], 0.0065)
    >>> found.limit.tolist(), found.contradicted.tolist(), found.limiting.round(4).tolist()
    ([2.0, 2.0], [False, True], [0.042, 0.042])
    """
    n, x = as_samples(tested, failed)
    share = _share(declared, n.shape)
    lot = _lot(lot_size, n)
    limit = acceptance_limit(n, share, lot_size=lot, risk=risk)
    defined = n > 0
    return DeclaredQualityEvidence(
        tested=n,
        failed=x,
        limit=limit,
        p_value=np.where(defined, _tail(x, n, share, lot), 1.0),
        contradicted=defined & (x > limit),
        limiting=limiting_quality(n, limit),
        defined=defined,
    )


def acceptance_limit(
    tested: npt.ArrayLike, declared: npt.ArrayLike, *, lot_size: npt.ArrayLike | None = None, risk: float = 0.05
) -> FloatArray:
    """L_d, ``[series]``: the least whole number L with P(nonconforming > L) <= risk at the declared level.

    Parameters as for :func:`declared_quality`.

    Examples
    --------
    >>> acceptance_limit([5, 32, 80, 125], 0.01).tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    n = as_counts(tested, "tested", ndim=1)
    share, lot = _share(declared, n.shape), _lot(lot_size, n)
    most = check_fraction(risk, "risk")
    low, high = np.full(n.shape, -1.0), n.copy()  # P(X > low) > risk, P(X > high) <= risk
    for _ in range(64):
        middle = np.floor((low + high) / 2.0)
        enough = _tail(middle + 1.0, n, share, lot) <= most
        open_ = high - low > 1.0
        high = np.where(open_ & enough, middle, high)
        low = np.where(open_ & ~enough, middle, low)
    return high


def limiting_quality(tested: npt.ArrayLike, limit: npt.ArrayLike, escape: float = 0.10) -> FloatArray:
    """Share nonconforming at which P(nonconforming <= limit) = `escape`, ``[series]``, of an unlimited lot.

    Over the DQL it is the standard's limiting quality ratio. 1 where the limit is the whole sample.
    """
    n = as_counts(tested, "tested", ndim=1)
    most = as_counts(limit, "limit", ndim=1)
    if most.shape != n.shape or np.any(most > n):
        raise DetectorError("limit: one for each sample, at most its size")
    miss = 1.0 - check_fraction(escape, "escape")
    return np.asarray(np.where(most < n, special.betaincinv(most + 1.0, np.maximum(n - most, 1.0), miss), 1.0))


def clopper_pearson_interval(
    tested: npt.ArrayLike, hits: npt.ArrayLike, confidence: float = 0.95
) -> tuple[FloatArray, FloatArray]:
    """Exact interval of the rate hits / tested, ``[series]``: the levels that a sample does not contradict.

    Clopper and Pearson (1934), *Biometrika* 26, 404-413. (0, 1) where nothing was tested.

    Examples
    --------
    >>> low, high = clopper_pearson_interval([50], [5])
    >>> round(float(low[0]), 6), round(float(high[0]), 6)
    (0.033275, 0.218135)
    """
    n, x = as_samples(tested, hits)
    half = (1.0 - check_fraction(confidence, "confidence")) / 2.0
    low = np.where(x > 0, special.betaincinv(np.maximum(x, 1.0), n - x + 1.0, half), 0.0)
    high = np.where(x < n, 1.0 - special.betaincinv(np.maximum(n - x, 1.0), x + 1.0, half), 1.0)
    return low, high


def hypergeometric_tail(failed: FloatArray, tested: FloatArray, bad: FloatArray, lot: FloatArray) -> FloatArray:
    """P(X >= failed) where `tested` of the `lot` items are drawn, `bad` of them nonconforming; arrays ``[series]``.

    Terms are added from the observed count outward, on whichever side of the mean it lies, so that a lot of 1e9 needs
    no more of them than a few standard deviations.
    """
    least, most = np.maximum(0.0, tested - (lot - bad)), np.minimum(tested, bad)
    above = failed > tested * (bad / np.maximum(lot, 1.0))
    tail = np.where(failed <= least, 1.0, 0.0)
    inside = (failed > least) & (failed <= most)
    rows = np.flatnonzero(inside & above)
    tail[rows] = _one_side(failed[rows], tested[rows], bad[rows], lot[rows])
    # Downward it is the same law, counted in conforming items.
    rows = np.flatnonzero(inside & ~above)
    rest = tested[rows] - (failed[rows] - 1.0)
    tail[rows] = 1.0 - _one_side(rest, tested[rows], lot[rows] - bad[rows], lot[rows])
    return np.clip(tail, 0.0, 1.0)


def _one_side(x: FloatArray, n: FloatArray, bad: FloatArray, lot: FloatArray) -> FloatArray:
    """Add the terms from x up, each from the one before, until they no longer matter."""
    term = np.exp(_log_choose(bad, x) + _log_choose(lot - bad, n - x) - _log_choose(lot, n))
    total, k = term.copy(), x.copy()
    todo = np.flatnonzero(term > 0)
    while todo.size:
        at = k[todo, None] + np.arange(BLOCK)
        left, draws = np.maximum(bad[todo, None] - at, 0.0), np.maximum(n[todo, None] - at, 0.0)
        room = np.maximum((lot - bad - n)[todo, None] + at + 1.0, 1.0)
        ratio = left / (at + 1.0) * (draws / room)
        terms = term[todo, None] * np.cumprod(ratio, axis=1)
        total[todo] = np.cumsum(np.concatenate([total[todo, None], terms], axis=1), axis=1)[:, -1]
        term[todo], k[todo] = terms[:, -1], k[todo] + BLOCK
        todo = todo[term[todo] > NEGLIGIBLE * total[todo]]
    return np.minimum(total, 1.0)


def _log_choose(n: FloatArray, k: FloatArray) -> FloatArray:
    return np.asarray(-np.log1p(n) - special.betaln(k + 1.0, np.maximum(n - k, 0.0) + 1.0))


def _tail(x: FloatArray, n: FloatArray, share: FloatArray, lot: FloatArray) -> FloatArray:
    """P(X >= x) at the declared level."""
    within = np.minimum(np.maximum(x, 1.0), np.maximum(n, 1.0))
    binomial = special.betainc(within, np.maximum(n - within, 0.0) + 1.0, share)
    tail = np.where(x <= 0, 1.0, np.where(x > n, 0.0, binomial))
    rows = np.flatnonzero(np.isfinite(lot))
    bad = np.floor(share[rows] * lot[rows] * (1.0 + 1e-12))
    tail[rows] = hypergeometric_tail(x[rows], n[rows], bad, lot[rows])
    return tail


def _share(declared: npt.ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    share = as_parameter(declared, "declared", shape, low=0.0, high=1.0, open_ends=False)
    if np.any(share == 1.0):
        raise DetectorError("declared: a share nonconforming under 1")
    return share


def _lot(lot_size: npt.ArrayLike | None, n: FloatArray) -> FloatArray:
    if lot_size is None:
        return np.full(n.shape, np.inf)
    lot = as_parameter(lot_size, "lot_size", n.shape, low=0.0, high=np.inf, open_ends=False)
    if (
        np.any(lot < n)
        or np.any(np.isfinite(lot) & (lot != np.floor(lot)))
        or np.any(np.isfinite(lot) & (lot > 2.0**53))
    ):
        raise DetectorError("lot_size: whole, at most 2**53, and not smaller than the sample")
    return lot
