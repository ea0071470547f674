"""Data sets as they would be without any cluster: the random part of a space-time scan.

Three null hypotheses, each a sampler that gives the next so many replicates ``[replicates, regions, time]``:

- space-time permutation: cases keep their region and swap their times, within a stratum of times (Kulldorff
  et al. 2005, *PLoS Medicine* 2:e59). Few cases are shuffled one by one; many are drawn as a table with fixed
  margins, column by column, each column by halving the regions again and again with one hypergeometric draw.
- conditional Poisson: the cases fall on the cells by their expected shares (multinomial).
- expectation-based: every cell is Poisson.

All draws come from the generator handed in, in one fixed order, so that the same seed gives the same replicates.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detectors.evidence import FloatArray, IntArray

__all__ = ["Sampler", "multinomial_sampler", "permutation_sampler", "poisson_sampler", "tables_with_margins"]

Sampler = Callable[[int], IntArray]
"""From a number of replicates to that many, ``[replicates, regions, time]``."""

SHUFFLE_BELOW = 4
"""Cases a cell under which shuffling the cases is cheaper than drawing the cells."""

HYPERGEOMETRIC_BELOW = 10**9
"""NumPy draws hypergeometric counts exactly under this population; above, a normal law is right to its 4th digit."""


def permutation_sampler(counts: IntArray, keep: int, strata: IntArray, rng: np.random.Generator) -> Sampler:
    """Permute the times of the cases within each stratum.

    Parameters
    ----------
    counts
        Cases of one series, ``[regions, time]``.
    keep
        Last columns to give; how the cases fall on the earlier ones is left open.
    strata
        Stratum of each time, ``[time]``: 0, 1, ... Times swap within a stratum only.
    rng
        Source of the draws.
    """
    regions, times = counts.shape
    parts = []
    for stratum in range(int(strata.max(initial=-1)) + 1):
        columns = np.flatnonzero(strata == stratum)
        kept = columns[columns >= times - keep]
        by_time = counts[:, kept].sum(axis=0)
        by_region = counts[:, columns].sum(axis=1)
        if by_time.any():
            parts.append((kept - (times - keep), by_region, by_time))

    def draw(replicates: int) -> IntArray:
        out = np.zeros((replicates, regions, keep), dtype=np.int64)
        for kept, by_region, by_time in parts:
            few = by_region.sum() < SHUFFLE_BELOW * regions * (kept.size + 1)
            table = _shuffled if few else tables_with_margins
            out[:, :, kept] = table(by_region, by_time, replicates, rng)
        return out

    return draw


def multinomial_sampler(expected: FloatArray, keep: int, total: int, rng: np.random.Generator) -> Sampler:
    """Let `total` cases fall on the cells of `expected` ``[regions, time]``, whose sum is `total`, by their shares."""
    regions, times = expected.shape
    cells = np.ascontiguousarray(expected[:, times - keep :]).ravel() / max(total, 1)
    shares = np.append(cells, max(1.0 - float(cells.sum()), 0.0))
    shares /= shares.sum()
    edges = np.cumsum(shares[:-1])

    def draw(replicates: int) -> IntArray:
        if total > cells.size:
            drawn = rng.multinomial(total, shares, size=replicates)[:, :-1]
        else:  # case by case: most cells stay empty
            cell = np.searchsorted(edges, rng.random((replicates, total)), side="right")
            places = cell + (np.arange(replicates) * shares.size)[:, None]
            drawn = np.bincount(places.ravel(), minlength=replicates * shares.size)
            drawn = drawn.reshape(replicates, shares.size)[:, :-1]
        return np.asarray(drawn.reshape(replicates, regions, keep), dtype=np.int64)

    return draw


def poisson_sampler(expected: FloatArray, keep: int, rng: np.random.Generator) -> Sampler:
    """Draw every cell from the Poisson law of its mean in `expected`, ``[regions, time]``."""
    mean = expected[:, expected.shape[1] - keep :]

    def draw(replicates: int) -> IntArray:
        return rng.poisson(mean, size=(replicates, *mean.shape))

    return draw


def _shuffled(by_region: IntArray, by_time: IntArray, replicates: int, rng: np.random.Generator) -> IntArray:
    """As :func:`tables_with_margins`, by shuffling the times of single cases."""
    regions, times = by_region.size, by_time.size
    cases = int(by_region.sum())
    region = np.repeat(np.arange(regions), by_region)
    label = np.full(cases, times, dtype=np.min_scalar_type(times))  # past the end: a time that is not kept
    label[: int(by_time.sum())] = np.repeat(np.arange(times), by_time)
    labels = rng.permuted(np.broadcast_to(label, (replicates, cases)), axis=1)
    replicate, case = np.nonzero(labels < times)
    place = (replicate * regions + region[case]) * times + labels[replicate, case]
    return np.bincount(place, minlength=replicates * regions * times).reshape(replicates, regions, times)


def tables_with_margins(by_region: IntArray, by_time: IntArray, replicates: int, rng: np.random.Generator) -> IntArray:
    """Random tables ``[replicates, regions, time]`` with given margins, as if the cases had been dealt out.

    Parameters
    ----------
    by_region
        Cases of each region, ``[regions]``.
    by_time
        Cases of each time, ``[time]``; what `by_region` has more than these falls on no time.
    replicates
        Tables to draw.
    rng
        Source of the draws.

    Returns
    -------
    IntArray
        ``sum(axis=1)`` is `by_time`, exactly; ``sum(axis=2)`` is nowhere above `by_region`.
    """
    left = np.broadcast_to(by_region, (replicates, by_region.size)).copy()
    tables = np.empty((replicates, by_region.size, by_time.size), dtype=np.int64)
    for time, cases in enumerate(by_time.tolist()):
        tables[:, :, time] = drawn = _without_replacement(left, cases, rng)
        left -= drawn
    return tables


def _without_replacement(left: IntArray, cases: int, rng: np.random.Generator) -> IntArray:
    """Draw `cases` without replacement from regions that hold `left` ``[replicates, regions]``: how many of each.

    The regions are halved until single: in each half's share of a draw, the split is hypergeometric.
    """
    replicates, regions = left.shape
    width = 1 << (regions - 1).bit_length()
    levels = [np.zeros((replicates, width), dtype=np.int64)]
    levels[0][:, :regions] = left
    while levels[-1].shape[1] > 1:
        levels.append(levels[-1][:, 0::2] + levels[-1][:, 1::2])
    share = np.full((replicates, 1), cases, dtype=np.int64)
    for level in levels[-2::-1]:
        first = _hypergeometric(level[:, 0::2], level[:, 1::2], share, rng)
        share = np.stack([first, share - first], axis=2).reshape(replicates, -1)
    return share[:, :regions]


def _hypergeometric(good: IntArray, bad: IntArray, sample: IntArray, rng: np.random.Generator) -> IntArray:
    """How many of `sample` drawn without replacement are good; arrays of one shape."""
    size = good + bad
    exact = size < HYPERGEOMETRIC_BELOW
    drawn = rng.hypergeometric(np.where(exact, good, 0), np.where(exact, bad, 0), np.where(exact, sample, 0))
    if exact.all():
        return np.asarray(drawn)
    n, of, g = sample[~exact].astype(np.float64), size[~exact].astype(np.float64), good[~exact].astype(np.float64)
    mean = n * (g / of)
    deviation = np.sqrt(mean * ((of - g) / of) * ((of - n) / (of - 1.0)))
    normal = np.rint(mean + deviation * rng.standard_normal(n.size)).astype(np.int64)
    drawn[~exact] = np.clip(normal, np.maximum(sample - bad, 0)[~exact], np.minimum(good, sample)[~exact])
    return np.asarray(drawn)
