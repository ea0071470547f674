"""EARS C1, C2 and C3: a moving mean and standard deviation of seven periods, for series without a past.

Hutwagner, Thompson, Seeman and Treadwell (2003), "The bioterrorism preparedness and response Early Aberration
Reporting System (EARS)", *Journal of Urban Health* 80, i89-i96; Fricker, Hegler and Dunfee (2008),
*Statistics in Medicine* 27, 3407-3429.

C1 compares the count with the seven periods before it; C2 leaves a gap of two between, so that the first days
of an outbreak do not raise their own baseline; C3 adds up what C2 has had over 1 in the latest three
periods::

    C_t = (y_t - mean) / sd        C3_t = sum_{i = t-2}^{t} max(0, C2_i - 1)
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, CountEvidence, FloatArray, as_counts, check_fraction, excess_score

__all__ = ["EarsMethod", "ears"]

EarsMethod = Literal["C1", "C2", "C3"]

GAP = {"C1": 0, "C2": 2, "C3": 2}
LOOK_BACK = {"C1": 0, "C2": 0, "C3": 2}
USUAL_ALPHA = {"C1": 0.001, "C2": 0.001, "C3": 0.025}


def ears(
    counts: npt.ArrayLike,
    method: EarsMethod = "C2",
    alpha: float | None = None,
    *,
    at: int | None = None,
    baseline: int = 7,
    min_sigma: float = 0.5,
    r_compatible: bool = False,
) -> CountEvidence:
    """Judge one period of many series by an EARS chart.

    Parameters
    ----------
    counts
        Events a period (day or week), ``[series, time]``, oldest first.
    method
        ``"C1"``, ``"C2"`` or ``"C3"``.
    alpha
        One-sided level; by default 0.001, and 0.025 for C3.
    at
        Column to judge; the last by default.
    baseline
        Periods that the mean and the standard deviation are taken over.
    min_sigma
        Floor of the standard deviation, events: after seven zeros a single event is no proof. 0 gives the
        charts as published.
    r_compatible
        For C3, leave this period's own excess out of the sum, as R `surveillance` 1.20.3 does (its C3 alarms
        one period late). For checks against R only.

    Returns
    -------
    CountEvidence
        ``p_value`` is the normal tail of the chart's statistic, rough for small counts. ``defined`` is False
        where the history is under 8, 10 or 12 periods.

    Raises
    ------
    DetectorError
        If `counts` has NaN or negatives, or an option is out of range.

    Examples
    --------
    >>> found = ears([[1, 0, 5, 2, 1, 2, 0, 9]], "C1")
    >>> bool(found.alarm[0]), round(float(found.upper[0]), 4)
    (True, 6.8812)
    """
    y = as_counts(counts, "counts")
    if method not in get_args(EarsMethod):
        raise DetectorError(f"method: C1, C2 or C3, found {method!r}")
    if baseline < 2 or not 0 <= min_sigma < np.inf:
        raise DetectorError("baseline: at least 2 periods; min_sigma: finite and not negative")
    z = float(special.ndtri(1.0 - check_fraction(USUAL_ALPHA[method] if alpha is None else alpha, "alpha")))
    now = y.shape[1] - 1 if at is None else at
    if y.shape[1] and not 0 <= now < y.shape[1]:
        raise DetectorError(f"at: must be a column from 0 to {y.shape[1] - 1}, found {now}")
    gap = GAP[method]
    if now < baseline + gap + LOOK_BACK[method]:
        return _silent(y[:, now] if y.shape[1] else np.zeros(y.shape[0]))
    mean, sigma = _baseline(y, now, baseline, gap, min_sigma)
    carried = np.zeros(y.shape[0])
    for past in range(now - LOOK_BACK[method], now):
        carried += _excess(y[:, past], *_baseline(y, past, baseline, gap, min_sigma))
    observed = y[:, now].copy()
    if method != "C3":
        statistic, upper = _standard(observed, mean, sigma), mean + z * sigma
    elif r_compatible:
        statistic, upper = carried, np.maximum(observed + (z - carried) * sigma, 0.0)
    else:
        statistic = carried + _excess(observed, mean, sigma)
        # Where the two periods before are over the limit alone, any event at all is an alarm.
        upper = np.where(carried > z, 0.0, mean + (1.0 + z - carried) * sigma)
    defined = np.ones(observed.shape, dtype=np.bool_)
    return CountEvidence(
        observed=observed,
        expected=mean,
        upper=upper,
        p_value=special.ndtr(-statistic),
        score=excess_score(observed, mean, upper, defined),
        dispersion=np.maximum(np.divide(sigma**2, mean, out=np.ones_like(mean), where=mean > 0), 1.0),
        alarm=observed > upper,
        trend_used=np.zeros(observed.shape, dtype=np.bool_),
        defined=defined,
    )


def _baseline(y: FloatArray, now: int, length: int, gap: int, min_sigma: float) -> tuple[FloatArray, FloatArray]:
    window = np.ascontiguousarray(y[:, now - gap - length : now - gap])
    mean = window.sum(axis=1) / length
    variance = ((window - mean[:, None]) ** 2).sum(axis=1) / (length - 1)
    return mean, np.maximum(np.sqrt(variance), min_sigma)


def _standard(observed: FloatArray, mean: FloatArray, sigma: FloatArray) -> FloatArray:
    """(y - mean) / sd; where sd is 0, any rise is beyond every limit."""
    rise = observed - mean
    beyond = np.where(rise > 0, np.inf, 0.0)
    return np.asarray(np.divide(rise, sigma, out=beyond, where=sigma > 0))


def _excess(observed: FloatArray, mean: FloatArray, sigma: FloatArray) -> FloatArray:
    # Finite even with a standard deviation of 0: infinity times 0 would follow.
    return np.clip(_standard(observed, mean, sigma) - 1.0, 0.0, 1e9)


def _silent(observed: FloatArray) -> CountEvidence:
    unknown = np.full(observed.shape, np.nan)
    no: BoolArray = np.zeros(observed.shape, dtype=np.bool_)
    one = np.ones(observed.shape)
    return CountEvidence(
        observed.copy(),
        unknown,
        unknown.copy(),
        one,
        np.zeros(observed.shape),
        one.copy(),
        no,
        no.copy(),
        no.copy(),
    )
