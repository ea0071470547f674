"""Laney's p' chart: the control chart of pass rates that large batches do not make cry wolf.

Laney (2002), "Improved control charts for attributes", *Quality Engineering* 14, 531-537. The plain p-chart takes every
batch for a sample from one rate, so that with thousands of items each ripple is an alarm. Laney's widens (or
narrows) the limits by the spread that is really there between neighbouring batches::

    z_t = (p_t - p_bar) / sqrt(p_bar (1 - p_bar) / n_t),    sigma_z = mean |z_t - z_{t-1}| / 1.128
    limits: p_bar +- width * sigma_z * sqrt(p_bar (1 - p_bar) / n_t)

It is the chart to show and to explain; alarms with a stated run length come from :mod:`detectors.lr_cusum`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, as_samples

__all__ = ["LaneyChart", "laney_chart"]

MEAN_RANGE_OF_TWO = 1.128
"""d2 for ranges of two normal values, in the three digits of the published charts."""


@dataclass(frozen=True, slots=True)
class LaneyChart:
    """A p' chart.

    Attributes
    ----------
    rate
        Share failed of each batch, ``[series, time]``; NaN where nothing was tested.
    centre
        Share failed over the baseline, ``[series]``; NaN where nothing was tested there.
    sigma_z
        Spread between neighbouring batches in units of the binomial one, ``[series]``: near 1 if batches
        differ by sampling only. NaN where not defined.
    lower, upper
        Control limits from 0 to 1, ``[series, time]``; NaN where nothing was tested or not defined.
    high, low
        The rate lies above or below its limits, ``[series, time]``.
    defined
        False where the baseline has fewer than two batches, or no failure, or nothing but failures, ``[series]``.
    """

    rate: FloatArray
    centre: FloatArray
    sigma_z: FloatArray
    lower: FloatArray
    upper: FloatArray
    high: BoolArray
    low: BoolArray
    defined: BoolArray


def laney_chart(
    tested: npt.ArrayLike, failed: npt.ArrayLike, *, baseline: int | None = None, width: float = 3.0
) -> LaneyChart:
    """Draw the p' chart of many series.

    Parameters
    ----------
    tested, failed
        Items in each batch, ``[series, time]``. An empty batch has no point, and its neighbours become neighbours.
    baseline
        Leading columns from which centre and spread are taken; all of them by default.
    width
        Distance of the limits from the centre in standard deviations.

    Raises
    ------
    DetectorError
        If counts are not counts, more failed than were tested, or an option is out of range.

    Examples
    --------
    >>> chart = laney_chart([[1000, 1000, 1000, 1000, 1000]], [[10, 14, 9, 12, 30]], baseline=4)
    >>> chart.sigma_z.round(3).tolist(), chart.upper[0, 0].round(4).tolist(), chart.high[0].tolist()
    ([1.063], 0.0219, [False, False, False, False, True])
    """
    n, x = as_samples(tested, failed, ndim=2)
    columns = n.shape[1] if baseline is None else baseline
    if not 0 <= columns <= n.shape[1]:
        raise DetectorError(f"baseline: must be from 0 to {n.shape[1]} columns, found {columns}")
    if not 0.0 < width < np.inf:
        raise DetectorError("width: must be above 0 and finite")
    items, failures = n[:, :columns].sum(axis=1), x[:, :columns].sum(axis=1)
    centre = np.divide(failures, items, out=np.full(items.shape, np.nan), where=items > 0)
    rate = np.divide(x, n, out=np.full(n.shape, np.nan), where=n > 0)
    mixed = (failures > 0) & (failures < items)
    unit = np.where(mixed, centre * (1.0 - centre), np.nan)[:, None]
    deviation = np.sqrt(np.divide(unit, n, out=np.full(n.shape, np.nan), where=n > 0))
    sigma_z = _spread((rate - centre[:, None]) / deviation, columns)
    reach = width * sigma_z[:, None] * deviation
    lower, upper = np.maximum(centre[:, None] - reach, 0.0), np.minimum(centre[:, None] + reach, 1.0)
    return LaneyChart(rate, centre, sigma_z, lower, upper, rate > upper, rate < lower, np.isfinite(sigma_z))


def _spread(z: FloatArray, columns: int) -> FloatArray:
    """Mean moving range of the baseline's batches over 1.128; NaN under two batches."""
    last = np.full(z.shape[0], np.nan)
    total, ranges = np.zeros(z.shape[0]), np.zeros(z.shape[0])
    for t in range(columns):
        here = np.isfinite(z[:, t])
        both = here & np.isfinite(last)
        total += np.where(both, np.abs(z[:, t] - last), 0.0)
        ranges += both
        last = np.where(here, z[:, t], last)
    mean = np.divide(total, ranges, out=np.full(total.shape, np.nan), where=ranges > 0)
    return np.asarray(mean / MEAN_RANGE_OF_TWO)
