"""Poisson CUSUM of standardised counts: small rises that last.

Rossi, Lampugnani and Marchi (1999), "An approximate CUSUM procedure for surveillance of health events",
*Statistics in Medicine* 18, 2111-2122. A count x of mean m is brought to about a standard normal by the mean
of two transformations, (x - m) / sqrt(m) and 2 (sqrt(x) - sqrt(m)), and added up::

    z_t = (x_t - 3 m_t + 2 sqrt(x_t m_t)) / (2 sqrt(m_t)),   S_t = max(0, S_{t-1} + z_t - k)

Alarm when S >= h. As published there is no reset: the alarm lasts until the sum comes down again. The mean is
taken as known: where it has drifted since it was estimated, the chart alarms week after week.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, as_counts, as_parameter

__all__ = ["RossiEvidence", "rossi"]


@dataclass(frozen=True, slots=True)
class RossiEvidence:
    """What the chart says; arrays ``[series, time]`` but for the last.

    Attributes
    ----------
    path
        S after each week, before any reset.
    upper
        Least count (fractional) that would have brought S to h; 0 where any count would have.
    alarm
        path >= h.
    statistic
        What the next week adds to, ``[series]``.
    """

    path: FloatArray
    upper: FloatArray
    alarm: BoolArray
    statistic: FloatArray


def rossi(
    counts: npt.ArrayLike,
    mean: npt.ArrayLike,
    *,
    k: float = 1.04,
    h: float = 2.26,
    reset: bool = False,
    start: npt.ArrayLike = 0.0,
) -> RossiEvidence:
    """Run the chart over many series.

    Parameters
    ----------
    counts
        Events a week, ``[series, time]``, oldest first, without gaps.
    mean
        In-control mean, above 0: one, ``[series]`` or ``[series, time]``. Rossi takes that of a baseline
        before the first column.
    k, h
        Reference value and limit, in standard deviations. The defaults are those of R `surveillance`.
    reset
        Whether S starts again from 0 after an alarm.
    start
        S before the first column, one or ``[series]``: with the last run's ``statistic`` a chart goes on as
        if it had never stopped.

    Returns
    -------
    RossiEvidence
        Defined for any history: the chart needs none but the mean.

    Raises
    ------
    DetectorError
        If `counts` has NaN or negatives, or a parameter is out of range.

    Examples
    --------
    >>> chart = rossi([[3, 9, 8, 1, 0]], 3.0)
    >>> chart.path.round(3).tolist(), chart.alarm.tolist()
    ([[0.0, 1.96, 3.46, 1.11, 0.0]], [[False, False, True, False, False]])
    """
    x = as_counts(counts, "counts")
    if not 0.0 <= k < np.inf or not 0.0 < h < np.inf:
        raise DetectorError("k: finite and not negative; h: finite and above 0")
    given = np.asarray(mean, dtype=np.float64)
    m = as_parameter(given[:, None] if given.ndim == 1 else given, "mean", x.shape, low=0.0, high=np.inf)
    now = as_parameter(start, "start", (x.shape[0],), low=0.0, high=np.inf, open_ends=False).copy()
    root = np.sqrt(m)
    z = ((x - m) / root + 2.0 * (np.sqrt(x) - root)) / 2.0
    path, before = np.empty(x.shape), np.empty(x.shape)
    for t in range(x.shape[1]):
        before[:, t] = now
        path[:, t] = now = np.maximum(now + z[:, t] - k, 0.0)
        if reset:
            now = np.where(now >= h, 0.0, now)
    # The z that is wanted, solved for the count: sqrt(x) = sqrt(4 m + 2 sqrt(m) z) - sqrt(m), if not negative.
    wanted = h + k - before
    upper = np.maximum(np.sqrt(np.maximum(4.0 * m + 2.0 * root * wanted, 0.0)) - root, 0.0) ** 2
    return RossiEvidence(path=path, upper=upper, alarm=path >= h, statistic=now)
