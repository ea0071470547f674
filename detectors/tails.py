"""Upper tails and quantiles of the counting laws: Poisson, negative binomial, beta-binomial.

The negative binomial stands here in the form that over-dispersion takes in surveillance: mean ``mean``,
variance ``dispersion * mean``; a dispersion of 1 is the Poisson law. Its tail is an incomplete beta integral,
the Poisson's an incomplete gamma integral (DLMF 8.17.5 and 8.17.24; Johnson, Kemp and Kotz, *Univariate
Discrete Distributions*, 2005, chapters 4 and 5), so both are exact for any count, and each element's value
depends on that element alone.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from detectors.evidence import FloatArray

__all__ = ["beta_binomial_log_pmf", "beta_binomial_tail", "count_tail", "count_upper"]

POISSON_BELOW = 1.0 + 1e-8
"""A dispersion under this is the Poisson law: 1 / (dispersion - 1) would cost the other its digits."""

MAX_GALLOP = 1100
"""Doublings and halvings after which a quantile search has ended: more than a float64 has binary places."""


def count_tail(observed: FloatArray, mean: FloatArray, dispersion: FloatArray) -> FloatArray:
    """P(Y >= observed) for Y of mean `mean` and variance ``dispersion * mean``.

    Parameters
    ----------
    observed, mean, dispersion
        Arrays of one shape. `observed` may be fractional: the tail is then that of the next whole number.

    Returns
    -------
    FloatArray
        1 where `observed` is 0 (or under), whatever the mean.

    Examples
    --------
    >>> count_tail(np.array([4.0, 4.0]), np.array([1.5, 1.5]), np.array([1.0, 1.5])).round(6)
    array([0.065642, 0.100137])
    """
    least = np.maximum(np.ceil(observed), 1.0)
    spread = np.maximum(dispersion, POISSON_BELOW)
    some = np.maximum(mean, np.finfo(np.float64).tiny)
    poisson = special.gammainc(least, some)
    negative_binomial = special.betainc(least, np.maximum(some / (spread - 1.0), 1e-300), (spread - 1.0) / spread)
    tail = np.where(dispersion < POISSON_BELOW, poisson, negative_binomial)
    return np.asarray(np.where(observed <= 0, 1.0, tail))


def count_upper(mean: FloatArray, dispersion: FloatArray, alpha: float) -> FloatArray:
    """Return the smallest whole U with P(Y > U) <= alpha: a count above U is an alarm at level `alpha`.

    Gallops from a normal guess on the 2/3-power scale, then halves; a series takes a few tail evaluations.
    """
    z = float(special.ndtri(1.0 - alpha))
    guess = np.maximum(mean ** (2 / 3) + z * np.sqrt(4 / 9 * mean ** (1 / 3) * dispersion), 0.0) ** 1.5
    low = np.full(mean.shape, -1.0)  # P(Y > low) > alpha
    high = np.full(mean.shape, np.inf)  # P(Y > high) <= alpha
    at = np.floor(guess)
    stride = np.maximum(np.floor(0.01 * guess), 1.0)
    todo = np.arange(mean.size)
    for _ in range(MAX_GALLOP):
        if todo.size == 0:
            break
        k = at[todo]
        enough = count_tail(k + 1.0, mean[todo], dispersion[todo]) <= alpha
        high[todo] = np.where(enough, k, high[todo])
        low[todo] = np.where(enough, low[todo], k)
        todo = todo[high[todo] - low[todo] > np.maximum(1.0, np.spacing(low[todo]))]
        halve = (low[todo] >= 0) & np.isfinite(high[todo])
        down = np.maximum(high[todo] - stride[todo], 0.0)
        up = low[todo] + stride[todo]
        middle = np.floor((low[todo] + high[todo]) / 2)
        at[todo] = np.where(halve, middle, np.where(np.isfinite(high[todo]), down, up))
        stride[todo] *= np.where(halve, 1.0, 2.0)
    return high


# --- Beta-binomial ------------------------------------------------------------------------------------------

BINOMIAL_ABOVE = 1e9
"""A precision above this is the binomial law: differences of log-gammas would lose their digits."""

SUM_UP_TO = 512
"""Items up to which the beta-binomial tail is summed term by term; beyond, it is integrated."""

BLOCK = 64
NODES = 160
FAR = 1e-18


def beta_binomial_tail(
    failed: FloatArray, tested: FloatArray, rate: FloatArray, precision: FloatArray, *, plenty: float = np.inf
) -> FloatArray:
    """P(X >= failed) for X beta-binomial: the rate of a window is Beta(rate * precision, (1 - rate) *
    precision).

    Parameters
    ----------
    failed, tested
        Counts of one shape, ``[series]``.
    rate
        Mean rate, strictly between 0 and 1.
    precision
        a + b of the beta law, above 0; infinite for the binomial law. The intra-class correlation is
        1 / (precision + 1).
    plenty
        A tail of which the first term alone, P(X = failed), exceeds it is not worked out: that term stands for it.

    Returns
    -------
    FloatArray
        Exact to rounding up to 512 items, by the recurrence of the terms; above that by the trapezoid rule on
        the logit scale, good to nine digits down to tails of 1e-10.

    Examples
    --------
    >>> beta_binomial_tail(np.array([2.0]), np.array([2.0]), np.array([0.5]), np.array([2.0])).round(6)
    array([0.333333])
    """
    tail = np.ones(failed.shape)
    some = failed > 0
    certain = some & ~(precision < BINOMIAL_ABOVE)
    x, n = failed[certain], tested[certain]
    tail[certain] = special.betainc(x, n - x + 1.0, rate[certain])
    todo = some & ~certain
    if plenty < 1.0:
        # Beyond so many items differences of log-gammas lose their digits.
        rows = np.flatnonzero(todo & (tested <= BINOMIAL_ABOVE))
        first = np.exp(beta_binomial_log_pmf(failed[rows], tested[rows], rate[rows], precision[rows]))
        enough = first > plenty
        tail[rows[enough]] = np.minimum(first[enough], 1.0)
        todo[rows[enough]] = False
    for rows, rule in (
        (np.flatnonzero(todo & (tested <= SUM_UP_TO)), _summed),
        (np.flatnonzero(todo & (tested > SUM_UP_TO)), _integrated),
    ):
        if rows.size:
            p, m = rate[rows], precision[rows]
            tail[rows] = np.minimum(rule(failed[rows], tested[rows], p * m, (1.0 - p) * m), 1.0)
    return tail


def beta_binomial_log_pmf(
    failed: FloatArray, tested: FloatArray, rate: FloatArray, precision: FloatArray
) -> FloatArray:
    """Log probability of `failed` out of `tested`; the arguments are those of :func:`beta_binomial_tail`."""
    choose = -np.log1p(tested) - special.betaln(failed + 1.0, tested - failed + 1.0)
    binomial = special.xlogy(failed, rate) + special.xlog1py(tested - failed, -rate)
    m = np.minimum(precision, BINOMIAL_ABOVE)
    a, b = rate * m, (1.0 - rate) * m
    mixed = special.betaln(failed + a, tested - failed + b) - special.betaln(a, b)
    return np.asarray(choose + np.where(precision < BINOMIAL_ABOVE, mixed, binomial))


def _summed(x: FloatArray, n: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """Add the terms from x to n, each from the one before: p(k+1)/p(k) = (n-k)(a+k) / ((k+1)(b+n-k-1)).

    Products and sums run along each row from the left, so that zeros behind a row's end, and other rows, touch no bit.
    """
    first = np.exp(beta_binomial_log_pmf(x, n, a / (a + b), a + b))
    total = first.copy()
    order = np.argsort(n - x)  # rows of about one length lie together, so that few zeros are added up
    for block in range(0, x.size, BLOCK):
        rows = order[block : block + BLOCK]
        xx, nn, aa, bb = (parameter[rows, None] for parameter in (x, n, a, b))
        k = xx + np.arange(nn[-1, 0] - xx[-1, 0])
        left = np.maximum(nn - k, 0.0)
        terms = np.empty((rows.size, k.shape[1] + 1))
        terms[:, 0] = first[rows]
        np.multiply(left, aa + k, out=terms[:, 1:])
        terms[:, 1:] /= (k + 1.0) * np.maximum(bb + left - 1.0, np.finfo(np.float64).tiny)
        total[rows] = np.cumsum(np.cumprod(terms, axis=1), axis=1)[:, -1]
    return total


def _integrated(x: FloatArray, n: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """P(X >= x) = P(V < R), V ~ Beta(x, n - x + 1) and R ~ Beta(a, b): integrate over the narrower of the
    two.

    On the logit scale a beta density is smooth and falls off exponentially, where the trapezoid rule
    converges exponentially too.
    """
    narrow_v = _logit_variance(x, n - x + 1.0) < _logit_variance(a, b)
    c, d = np.where(narrow_v, x, a), np.where(narrow_v, n - x + 1.0, b)
    e, f = np.where(narrow_v, a, x), np.where(narrow_v, b, n - x + 1.0)
    left, right = _logit_reach(c, d), -_logit_reach(d, c)
    step = (right - left) / (NODES - 1)
    total = np.zeros(x.shape)
    nodes = np.arange(NODES, dtype=np.float64)
    for block in range(0, x.size, BLOCK):  # a block's [series, nodes] arrays stay in the cache
        rows = np.arange(block, min(block + BLOCK, x.size))
        cc, dd, ee, ff = (parameter[rows, None] for parameter in (c, d, e, f))
        s = left[rows, None] + nodes * step[rows, None]
        density = np.exp(cc * special.log_expit(s) + dd * special.log_expit(-s) - special.betaln(cc, dd))
        # P(R > v) = I_{1-v}(b, a) where we integrate over v; P(V < r) = I_r(x, n - x + 1) where over r.
        over_v = narrow_v[rows, None]
        first, second = np.where(over_v, ff, ee), np.where(over_v, ee, ff)
        tail = special.betainc(first, second, special.expit(np.where(over_v, -s, s)))
        total[rows] = (density * tail).sum(axis=1)
    return np.asarray(total * step)


def _logit_variance(c: FloatArray, d: FloatArray) -> FloatArray:
    return np.asarray(special.polygamma(1, c) + special.polygamma(1, d))


def _logit_reach(c: FloatArray, d: FloatArray) -> FloatArray:
    """A logit under which Beta(c, d) has next to nothing."""
    low = special.betaincinv(c, d, FAR)
    tiny = np.finfo(np.float64).tiny
    return np.asarray(np.log(np.maximum(low, tiny)) - np.log1p(-np.minimum(low, 1.0 - 1e-16)))
