"""Average run lengths of CUSUM charts by the exact Markov chain, and thresholds from a stated one.

Brook and Evans (1972), "An approach to the probability distribution of CUSUM run length", *Biometrika* 59,
539-549. The statistic S = max(0, S + step) moves on a lattice; from each state under the limit the expected
number of steps to an alarm solves (I - Q) L = 1, Q being the moves among those states. Where the steps
themselves lie on a lattice (Bernoulli and Poisson charts) the chain is the chart. Otherwise each step is
split between its two neighbours on a fine lattice so that its mean is kept, which errs by the square of the
lattice's spacing.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import FloatArray, as_parameter, check_fraction
from detectors.lr_cusum import log_likelihood_ratio
from detectors.tails import beta_binomial_log_pmf

__all__ = ["arl", "cusum_increments", "threshold_for_arl"]

STATES = 160
"""States of the approximating chain where the steps lie on no lattice."""

MOST_ITEMS = 5000
"""Batch sizes above this are taken as this: the threshold no longer moves."""

LOWEST = 0.001
HIGHEST = 500.0
"""Thresholds searched: where no alarm ever comes by chance, any threshold keeps the promise."""


def arl(
    increment_values: npt.ArrayLike,
    increment_probs: npt.ArrayLike,
    h: float,
    *,
    step: float | None = None,
    states: int = STATES,
    inclusive: bool = False,
    start: float = 0.0,
) -> float:
    """Average number of steps to an alarm of S = max(0, S + increment).

    Parameters
    ----------
    increment_values, increment_probs
        Values of one step and their probabilities, ``[values]``; the probabilities sum to 1.
    h
        Limit, above 0.
    step
        Lattice spacing of the increments, if they lie on one: the result is then exact. None for a chain of
        `states` states.
    states
        States of the approximating chain; ignored with `step`.
    inclusive
        Alarm at S >= h; by default at S > h.
    start
        Statistic at the start, from 0 to under h (``h / 2`` for a fast initial response).

    Returns
    -------
    float
        Average run length in steps; infinite where no alarm can come.

    Raises
    ------
    DetectorError
        If the probabilities are not a law, `h` is not above 0, or the increments do not lie on the lattice.

    Examples
    --------
    A Bernoulli CUSUM for p0 = 0.05: 15 - 1 up for a failure, 1 down for a pass, alarm at 75 (in items).

    >>> round(arl([14, -1], [0.05, 0.95], 75, step=1, inclusive=True), 2)
    1894.13
    """
    values, probs = _law(increment_values, increment_probs)
    if not 0.0 < h < np.inf or not 0.0 <= start <= h:
        raise DetectorError("h: must be above 0 and finite; start: from 0 to h")
    if step is None:
        spacing, limit = h / (states - 0.5), states - 1
    else:
        spacing = float(step)
        limit = math.ceil(h / spacing - 1e-9) - 1 if inclusive else math.floor(h / spacing + 1e-9)
    moves = _moves(values, probs, spacing, limit, exact=step is not None)
    lengths = _solve(moves, limit + 1)
    if np.isinf(lengths[0]):
        return math.inf
    at = start / spacing
    low = min(int(at), limit)
    share = min(at - low, 1.0)
    return float(lengths[low] * (1.0 - share) + lengths[min(low + 1, limit)] * share)


def _law(values: npt.ArrayLike, probs: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    v = np.asarray(values, dtype=np.float64)
    p = as_parameter(probs, "increment_probs", v.shape, low=0.0, high=1.0, open_ends=False)
    if v.ndim != 1 or not np.all(np.isfinite(v)) or abs(p.sum() - 1.0) > 1e-6:
        raise DetectorError("increment_values: one finite row; increment_probs: must sum to 1")
    return v, p


def _moves(values: FloatArray, probs: FloatArray, spacing: float, limit: int, *, exact: bool) -> FloatArray:
    """Probability of each move from -limit-1 (or further down) to limit+1 (or further up) lattice places."""
    place = np.clip(values / spacing, -(limit + 1.0), limit + 1.0)
    low = np.round(place) if exact else np.floor(place)
    if exact and np.any(np.abs(place - low) > 1e-6):
        raise DetectorError("step: the increments do not lie on this lattice")
    share = 0.0 if exact else place - low
    moves = np.zeros(2 * limit + 4)
    index = low.astype(np.int64) + limit + 1
    np.add.at(moves, index, probs * (1.0 - share))
    np.add.at(moves, index + 1, probs * share)
    return moves[:-1]


def _solve(moves: FloatArray, size: int) -> FloatArray:
    """Expected steps to the alarm from each of the states 0 .. size - 1."""
    state = np.arange(size)
    chain = moves[size + state[None, :] - state[:, None]]
    # Everything that would fall under 0 stays at 0.
    chain[:, 0] = np.cumsum(moves)[size - state]
    away = np.eye(size) - chain
    # An alarm out of reach leaves the matrix singular, or so nearly that its solution is noise.
    if moves[size + 1 :].sum() <= 0.0:
        return np.full(size, np.inf)
    try:
        lengths = np.linalg.solve(away, np.ones(size))
    except np.linalg.LinAlgError:
        return np.full(size, np.inf)
    return lengths if lengths.min() >= 1.0 - 1e-9 else np.full(size, np.inf)


def cusum_increments(p0: float, odds_ratio: float, n: int, rho: float, rate: float) -> tuple[FloatArray, FloatArray]:
    """Steps of the chart for batches of `n`, and their probabilities at a failure rate of `rate`."""
    x = np.arange(n + 1, dtype=np.float64)[None, :]
    tested = np.full_like(x, n)
    precision = np.full_like(x, np.inf if rho == 0 else (1.0 - rho) / rho)
    probs = np.exp(beta_binomial_log_pmf(x, tested, np.full_like(x, rate), precision))[0]
    return log_likelihood_ratio(tested, x, p0, odds_ratio, rho)[0], probs / probs.sum()


def threshold_for_arl(p0: float, odds_ratio: float, n: int, rho: float, arl0: float) -> float:
    """Threshold of :func:`detectors.lr_cusum.lr_cusum` at which a false alarm comes once in `arl0` batches.

    Cells are brought to a grid, so that thousands of them need few solutions, which are cached (7 ms each):
    p0 to 30 steps a decade (8% apart), n above 10 to 15 steps a decade (17%; at most 5,000), rho to 0 under
    1e-5 and else to 10 steps a decade. The odds ratio and arl0 come from configuration, of few values, and
    are taken as they are. A cell's own run length is then within about a third of `arl0`. The threshold is
    rounded to 3 decimals, so that it is the same on every machine.

    Parameters
    ----------
    p0
        In-control failure rate, strictly between 0 and 1.
    odds_ratio
        Change to detect, above 0 and not 1.
    n
        Items in a batch, at least 1.
    rho
        Intra-class correlation, from 0 to under 1.
    arl0
        Batches between false alarms, above 1.

    Returns
    -------
    float
        Threshold h, above 0.

    Raises
    ------
    DetectorError
        If an argument is out of range.
    """
    check_fraction(p0, "p0")
    if n < 1 or not 0.0 <= rho < 1.0 or not 1.0 < arl0 < np.inf or not 0.0 < odds_ratio < np.inf:
        raise DetectorError("n: at least 1; rho: from 0 to under 1; arl0: above 1; odds_ratio: above 0")
    if odds_ratio == 1.0:
        raise DetectorError("odds_ratio: 1 is no change to detect")
    return _threshold(
        min(_on_grid(p0, 30), 0.99),
        float(odds_ratio),
        min(n if n <= 10 else round(_on_grid(float(n), 15)), MOST_ITEMS),
        0.0 if rho < 1e-5 else min(_on_grid(rho, 10), 0.95),
        float(arl0),
    )


def _on_grid(value: float, steps_a_decade: int) -> float:
    return float(10.0 ** (round(math.log10(value) * steps_a_decade) / steps_a_decade))


@lru_cache(maxsize=65536)
def _threshold(p0: float, odds_ratio: float, n: int, rho: float, arl0: float) -> float:
    """Root of log(run length) - log(arl0), which rises with h and is nearly straight: the secant's ground. Once a step
    no longer halves the bracket, halve it (Dekker's safeguard)."""
    values, probs = cusum_increments(p0, odds_ratio, n, rho, rate=p0)

    def excess(h: float) -> float:
        return math.log(arl(values, probs, h) / arl0)

    low, high = 0.0, 1.0
    below, above = -math.inf, excess(high)
    while high < HIGHEST and above < 0:
        low, high, below = high, 2.0 * high, above
        above = excess(high)
    while high - low > 5e-4:
        middle, width = (low + high) / 2.0, high - low
        if math.isfinite(below) and above > below:
            # A hair beyond the secant, so that both ends close in.
            secant = low - below * width / (above - below)
            middle = min(max(secant + math.copysign(2e-4, middle - secant), low + 1e-4), high - 1e-4)
        value = excess(middle)
        low, below, high, above = (middle, value, high, above) if value < 0 else (low, below, middle, value)
        if high - low > width / 2.0:
            middle = (low + high) / 2.0
            value = excess(middle)
            low, below, high, above = (middle, value, high, above) if value < 0 else (low, below, middle, value)
    return max(round(high, 3), LOWEST)
