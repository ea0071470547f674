"""Limits from a handful of comparable weeks: the Bayes, RKI and CDC systems.

Three routine systems that the newer ones are measured against. Each takes a few past weeks for exchangeable
with the judged one (the weeks before it, and a window around its date in earlier years) and has no model of
season, trend or past outbreaks.

- Bayes: Riebler (2004), *Empirischer Vergleich von statistischen Methoden zur Ausbruchserkennung bei
  Surveillance Daten*, Munich. Jeffreys' prior; the next count follows a negative binomial law.
- RKI: the rule of the Robert Koch Institute, as R `surveillance` has it (Höhle 2007, *Computational
  Statistics* 22, 571-582): mean plus two standard deviations over a mean of 20, else the upper 95% limit of a
  Poisson mean from a table in Sachs, *Angewandte Statistik*. We take the table to be that of Crow and Gardner
  (1959), *Biometrika* 46, 441-453, entered at the whole part of the mean: of the readings tried, it comes
  nearest to the rates measured with R. No figure of R's for single weeks was at hand.
- CDC: Stroup, Williamson, Herndon and Karon (1989), *Statistics in Medicine* 8, 323-329. Four weeks together
  against fifteen blocks of four weeks, three in each of five years; with the prediction error of Farrington
  and Andrews (2003), equation 8-1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import (
    BoolArray,
    CountEvidence,
    FloatArray,
    IntArray,
    as_counts,
    check_fraction,
    excess_score,
)
from detectors.tails import count_tail, count_upper

__all__ = ["bayes", "cdc", "rki"]

BLOCK_WEEKS = 4
"""Weeks that the CDC system takes together."""

POISSON_UP_TO = 20
"""Mean of the reference weeks up to which the RKI system uses the table."""

# fmt: off
CROW_GARDNER_UPPER = np.array([
    3.285, 5.323, 6.686, 8.102, 9.598, 11.177, 12.817, 13.765, 14.921, 16.768, 17.633,
    19.050, 20.335, 21.364, 22.945, 23.762, 25.400, 26.306, 27.735, 28.966, 30.017,
])
# fmt: on
"""Upper 95% limits of a Poisson mean at 0 to 20 events (Crow and Gardner 1959, table 1)."""


def bayes(
    counts: npt.ArrayLike,
    *,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    years_back: int = 0,
    half_window: int = 6,
    this_year: bool = True,
    alpha: float = 0.05,
    freq: int = 52,
) -> CountEvidence:
    """Judge one week of many series by the Bayes system.

    Bayes 1, 2 and 3 are (`years_back`, `half_window`, `this_year`) = (0, 6, True), (1, 6, True) and (2, 4,
    False).

    Parameters
    ----------
    counts
        Events a week, ``[series, time]``, oldest first.
    at
        Column to judge; the last by default. Later columns are not looked at.
    history
        Weeks, the judged one included, for which each series has really been watched, ``[series]``.
    years_back, half_window
        Years from which the weeks around this date are taken; weeks on either side of it.
    this_year
        Whether the latest `half_window` weeks are taken, too.
    alpha
        One-sided level of the limit.
    freq
        Weeks in a year.

    Returns
    -------
    CountEvidence
        With n reference weeks and Y events in them, the count has mean (Y + 1/2) / n and variance
        (1 + 1/n) times that. ``defined`` is False where not all reference weeks were watched.

    Raises
    ------
    DetectorError
        If an array has NaN or negatives, or an option is out of range.

    Examples
    --------
    >>> found = bayes([[1, 0, 2, 1, 0, 1, 5]])
    >>> bool(found.alarm[0]), float(found.upper[0]), round(float(found.p_value[0]), 5)
    (True, 3.0, 0.00609)
    """
    check_fraction(alpha, "alpha")
    y, now, watched = _frame(counts, at, history)
    weeks, defined = _reference(y, now, watched, _window_ages(years_back, half_window, this_year, freq))
    n = max(weeks.shape[1], 1)
    mean = (weeks.sum(axis=1) + 0.5) / n
    spread = np.full(mean.shape, 1.0 + 1.0 / n)
    observed = y[:, now].copy() if y.shape[1] else np.zeros(y.shape[0])
    upper = count_upper(mean, spread, alpha)
    return _evidence(observed, mean, upper, count_tail(observed, mean, spread), spread, defined)


def rki(
    counts: npt.ArrayLike,
    *,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    years_back: int = 2,
    half_window: int = 4,
    this_year: bool = False,
    freq: int = 52,
) -> CountEvidence:
    """Judge one week of many series by the rule of the Robert Koch Institute; its level is fixed.

    RKI 1, 2 and 3 are (`years_back`, `half_window`, `this_year`) = (0, 6, True), (1, 6, True) and (2, 4,
    False). The table is entered at the whole part of the mean.

    Parameters
    ----------
    counts, at, history, years_back, half_window, this_year, freq
        As for :func:`bayes`.

    Returns
    -------
    CountEvidence
        ``p_value`` is rough, and not what the rule decides by: the Poisson tail at the mean (of half an event
        at least in all reference weeks), over a mean of 20 the normal one. ``defined`` is False where not all
        reference weeks were watched.

    Raises
    ------
    DetectorError
        If an array has NaN or negatives, or an option is out of range.

    Examples
    --------
    >>> found = rki([[1, 0, 2, 1, 0, 1, 5]], years_back=0, half_window=6, this_year=True)
    >>> bool(found.alarm[0]), float(found.upper[0])
    (True, 3.285)
    """
    y, now, watched = _frame(counts, at, history)
    weeks, defined = _reference(y, now, watched, _window_ages(years_back, half_window, this_year, freq))
    n = max(weeks.shape[1], 1)
    mean, sigma = _mean_and_sigma(weeks)
    observed = y[:, now].copy() if y.shape[1] else np.zeros(y.shape[0])
    few = mean <= POISSON_UP_TO
    events = np.where(few, mean, 0.0).astype(np.int64)
    upper = np.where(few, np.take(CROW_GARDNER_UPPER, events), mean + 2.0 * sigma)
    p_value = np.where(
        few,
        count_tail(observed, np.maximum(mean, 0.5 / n), np.ones(mean.shape)),
        special.ndtr(-_standard(observed - mean, sigma)),
    )
    return _evidence(observed, mean, upper, p_value, _dispersion(sigma, mean), defined)


def cdc(
    counts: npt.ArrayLike,
    *,
    at: int | None = None,
    history: npt.ArrayLike | None = None,
    years_back: int = 5,
    half_blocks: int = 1,
    alpha: float = 0.0125,
    freq: int = 52,
) -> CountEvidence:
    """Judge the latest four weeks of many series by the CDC system.

    Parameters
    ----------
    counts, at, history, freq
        As for :func:`bayes`; the judged column is the last of the four weeks.
    years_back, half_blocks
        Years that blocks are taken from; blocks of four weeks on either side of the one a whole year ago.
    alpha
        One-sided level of the limit. R `surveillance` halves its own: its 0.025 is 0.0125 here.

    Returns
    -------
    CountEvidence
        ``observed``, ``expected`` and ``upper`` are those of *four weeks*; ``p_value`` is the normal tail.
        ``defined`` is False where not all reference weeks were watched.

    Raises
    ------
    DetectorError
        If an array has NaN or negatives, or an option is out of range.

    Examples
    --------
    >>> weeks = np.tile([2.0, 3.0, 1.0, 3.0, 4.0], (1, 60))
    >>> weeks[0, -3:] = 7
    >>> found = cdc(weeks)
    >>> bool(found.alarm[0]), float(found.observed[0]), float(found.upper[0].round(4))
    (True, 24.0, 12.8436)
    """
    z = float(special.ndtri(1.0 - check_fraction(alpha, "alpha")))
    if years_back < 1 or half_blocks < 0 or 2 * (2 * half_blocks + 1) > freq // 2:
        raise DetectorError("years_back: at least 1; half_blocks: not negative, and the blocks shorter than a year")
    y, now, watched = _frame(counts, at, history)
    blocks = np.arange(-half_blocks, half_blocks + 1) * BLOCK_WEEKS
    lasts = (np.arange(1, years_back + 1)[:, None] * freq + blocks).ravel()
    weeks, defined = _reference(y, now, watched, (lasts[:, None] + np.arange(BLOCK_WEEKS)).ravel())
    totals = weeks.reshape(y.shape[0], lasts.size, BLOCK_WEEKS).sum(axis=2)
    mean, sigma = _mean_and_sigma(totals)
    error = sigma * np.sqrt(1.0 + 1.0 / lasts.size)
    observed = y[:, max(now - BLOCK_WEEKS + 1, 0) : now + 1].sum(axis=1)
    p_value = special.ndtr(-_standard(observed - mean, error))
    return _evidence(observed, mean, mean + z * error, p_value, _dispersion(sigma, mean), defined)


# --- The reference weeks ------------------------------------------------------------------------------------


def _frame(counts: npt.ArrayLike, at: int | None, history: npt.ArrayLike | None) -> tuple[FloatArray, int, IntArray]:
    """Checked counts, the judged column, and for how many weeks each series was watched."""
    y = as_counts(counts, "counts")
    now = y.shape[1] - 1 if at is None else at
    if y.shape[1] and not 0 <= now < y.shape[1]:
        raise DetectorError(f"at: must be a column from 0 to {y.shape[1] - 1}, found {now}")
    weeks = np.full(y.shape[0], now + 1.0) if history is None else as_counts(history, "history", ndim=1)
    if weeks.shape != (y.shape[0],):
        raise DetectorError(f"history: expected {y.shape[0]} entries, one a series")
    return y, now, np.minimum(weeks, now + 1.0).astype(np.int64)


def _window_ages(years_back: int, half_window: int, this_year: bool, freq: int) -> IntArray:
    """How many weeks before the judged one the reference weeks lie."""
    if years_back < 0 or not 0 <= 2 * half_window < freq:
        raise DetectorError("years_back: not negative; half_window: not negative, and the window shorter than a year")
    latest = np.arange(1, half_window + 1) if this_year else np.empty(0, dtype=np.int64)
    around = np.arange(1, years_back + 1)[:, None] * freq + np.arange(-half_window, half_window + 1)
    ages: IntArray = np.concatenate([latest, around.ravel()]).astype(np.int64)
    if ages.size < 2:
        raise DetectorError("years_back, this_year: the system needs two reference weeks at least")
    return ages


def _reference(y: FloatArray, now: int, watched: IntArray, ages: IntArray) -> tuple[FloatArray, BoolArray]:
    """The reference weeks, ``[series, ages]``, and which series were watched in all of them."""
    defined: BoolArray = watched > ages.max()
    if y.shape[1] == 0:
        return np.zeros((y.shape[0], ages.size)), defined
    return np.take(y, np.maximum(now - ages, 0), axis=1), defined


# --- The judgement ------------------------------------------------------------------------------------------


def _mean_and_sigma(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    n = values.shape[1]
    mean = values.sum(axis=1) / n
    return mean, np.sqrt(((values - mean[:, None]) ** 2).sum(axis=1) / (n - 1))


def _standard(rise: FloatArray, sigma: FloatArray) -> FloatArray:
    """Rise over sigma; where sigma is 0, any rise is beyond every limit."""
    beyond = np.where(rise > 0, np.inf, 0.0)
    return np.asarray(np.divide(rise, sigma, out=beyond, where=sigma > 0))


def _dispersion(sigma: FloatArray, mean: FloatArray) -> FloatArray:
    return np.maximum(np.divide(sigma**2, mean, out=np.ones_like(mean), where=mean > 0), 1.0)


def _evidence(
    observed: FloatArray,
    mean: FloatArray,
    limit: FloatArray,
    p_value: FloatArray,
    dispersion: FloatArray,
    defined: BoolArray,
) -> CountEvidence:
    expected, upper = np.where(defined, mean, np.nan), np.where(defined, limit, np.nan)
    return CountEvidence(
        observed=observed,
        expected=expected,
        upper=upper,
        p_value=np.where(defined, p_value, 1.0),
        score=excess_score(observed, expected, upper, defined),
        dispersion=np.where(defined, dispersion, 1.0),
        alarm=defined & (observed > limit),
        trend_used=np.zeros(observed.shape, dtype=np.bool_),
        defined=defined,
    )
