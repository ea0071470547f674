"""Bernoulli CUSUM of single items: its run length, and its limit from a stated one, both exact.

Reynolds and Stoumbos (1999), "A CUSUM chart for monitoring a proportion when inspecting continuously", *Journal of
Quality Technology* 31, 87-108. A failure moves the chart m - 1 up, a pass 1 down, not under 0; alarm at S >= limit.
With whole m and limit this is the log-likelihood-ratio CUSUM of p0 against p1, in units of log((1 - p0) / (1 - p1)),
where::

    m = 1 + log(p1 / p0) / log((1 - p0) / (1 - p1))

The Markov chain of Brook and Evans (1972) has as many states as the limit, thousands where failures are rare, but only
a pass leads down, one place. Eliminating the states from 0 upward therefore gives, for each state s, the mean time k_s
until the chart first stands above it and where it then stands: positive sums only, nothing to cancel (as in Grassmann,
Taksar and Heyman 1985, *Operations Research* 33, 1107-1116). None of it depends on the limit, so one pass serves all of
them::

    ARL(limit) = sum over s < limit of P(s is a record) k_s

For batches see :func:`detectors.run_length.threshold_for_arl`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np

from detectors.errors import DetectorError
from detectors.evidence import check_fraction

__all__ = ["BernoulliChart", "bernoulli_arl", "bernoulli_chart"]

LARGEST_LIMIT = 200_000
LARGEST_STEP = 10_000
"""Beyond these the elimination takes seconds; items so good are better watched in batches."""


@dataclass(frozen=True, slots=True)
class BernoulliChart:
    """A chart: a failure adds ``step - 1``, a pass takes 1, not under 0; alarm at ``limit`` or more.

    Attributes
    ----------
    step, limit
        m and the limit, whole numbers.
    unit
        log((1 - p0) / (1 - p1)): one place in units of the log-likelihood ratio.
    arl0
        Items between false alarms at p0, exactly, from a start at 0: at least what was asked for.
    """

    step: int
    limit: int
    unit: float
    arl0: float


def bernoulli_arl(rate: float, step: int, limit: int, *, start: int = 0) -> float:
    """Average number of items to an alarm.

    Parameters
    ----------
    rate
        Share that fails, strictly between 0 and 1.
    step
        m, from 2 to 10,000.
    limit
        From 1 to 200,000.
    start
        Statistic at the start, from 0 to under the limit (half of it for a fast initial response).

    Raises
    ------
    DetectorError
        If an argument is out of range.

    Examples
    --------
    >>> round(bernoulli_arl(0.05, 15, 75), 2), round(bernoulli_arl(0.0863991, 15, 75), 3)
    (1894.13, 187.784)
    """
    p = check_fraction(rate, "rate")
    if not 2 <= step <= LARGEST_STEP or not 1 <= limit <= LARGEST_LIMIT or not 0 <= start < limit:
        raise DetectorError(
            f"step: from 2 to {LARGEST_STEP}; limit: from 1 to {LARGEST_LIMIT}; start: from 0 to under the limit"
        )
    return sum(islice(_record_times(p, step, start), limit))


def bernoulli_chart(p0: float, odds_ratio: float, arl0: float) -> BernoulliChart:
    """Chart with the least limit at which a false alarm comes once in `arl0` items, or more seldom.

    Parameters
    ----------
    p0
        In-control failure rate, strictly between 0 and 1.
    odds_ratio
        Rise of the odds to detect, above 1; m is rounded, so that the chart is tuned to a neighbour of it.
    arl0
        Items between false alarms, above 1.

    Raises
    ------
    DetectorError
        If an argument is out of range, or no limit up to 1,000,000 does it.

    Examples
    --------
    >>> chart = bernoulli_chart(0.01, 2.4, 7500)
    >>> chart.step, chart.limit, round(chart.arl0)
    (63, 251, 7537)
    """
    check_fraction(p0, "p0")
    if not 1.0 < odds_ratio < np.inf or not 1.0 < arl0 < np.inf:
        raise DetectorError("odds_ratio: above 1 and finite; arl0: above 1 and finite")
    return _chart(float(p0), float(odds_ratio), float(arl0))


@lru_cache(maxsize=4096)
def _chart(p0: float, odds_ratio: float, arl0: float) -> BernoulliChart:
    p1 = odds_ratio * p0 / (1.0 - p0 + odds_ratio * p0)
    unit = math.log1p(-p0) - math.log1p(-p1)
    step = max(round(1.0 + math.log(p1 / p0) / unit), 2)
    length = 0.0
    if step <= LARGEST_STEP:
        for limit, time in enumerate(islice(_record_times(p0, step, 0), LARGEST_LIMIT), start=1):
            length += time
            if length >= arl0:
                return BernoulliChart(step, limit, unit, length)
    raise DetectorError(f"arl0: {arl0:g} items at p0 = {p0:g} ask for too long a chart; watch batches instead")


def _record_times(p: float, step: int, start: int) -> Iterator[float]:
    """For s = 0, 1, ...: P(s is a record from `start`) times the mean time until the chart stands above s."""
    q = 1.0 - p
    landing = np.zeros(step - 1)  # law of the first place above s, from s + 1 on
    landing[-1] = 1.0
    records = np.zeros(step)  # P(record) of s, s + 1, ...
    mean = 1.0 / p
    for s in range(LARGEST_LIMIT):
        if s == start:
            records[0] = 1.0
        yield float(records[0]) * mean
        records[1:] += records[0] * landing
        records[:-1] = records[1:]
        records[-1] = 0.0
        away = p + q * float(landing[1:].sum())  # not back to s + 1 by way of s
        mean = (1.0 + q * mean) / away
        landing[:-1] = landing[1:] * (q / away)
        landing[-1] = p / away
