"""Many streams at once: which of a tick's small p-values or large e-values are worth an alert?

Ten thousand daily streams at one false alarm in a thousand days are ten false alarms a day. Three answers:

- a *budget*: a p-value is enough when all m streams together would show one so small no more often than stated;
- the false discovery rate of one tick: Benjamini and Hochberg (1995), *Journal of the Royal Statistical Society B*
  57, 289-300, and Benjamini and Yekutieli (2001), *Annals of Statistics* 29, 1165-1188, which holds whatever the
  dependence;
- e-BH: Wang and Ramdas (2022), "False discovery rate control with e-values", *JRSS B* 84, 822-852, which holds
  whatever the dependence too, at no price. It needs e-values (mean at most 1 if nothing has changed). The value of an
  e-detector is none: its mean grows with time.

Only what passes a screening cut need be listed: what is not listed counts as p = 1 or e = 0, which never makes a
p-value or an e-value invalid, so the rate is kept at any cut. Where everything unlisted has p above the level (e below
1 / level), the decision is the one that all m values would have given, for none of those could be rejected.

Values that are equal are rejected together or not at all; lists are ordered by strength, then by position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray, as_parameter, check_fraction

__all__ = [
    "DAYS_PER_MONTH",
    "Calibrator",
    "PRule",
    "Rejections",
    "adjust",
    "e_bh",
    "e_to_p",
    "overlapping_tests",
    "p_to_e",
    "recurrence_days",
    "reject",
    "threshold_for_rate",
]

PRule = Literal["budget", "BH", "BY"]
Calibrator = Literal["power", "mixture", "shafer"]

DAYS_PER_MONTH: Final = 30.0


@dataclass(frozen=True, slots=True)
class Rejections:
    """Which streams of one tick stand out; arrays over the listed streams, in their order.

    Attributes
    ----------
    rejected
        Whether the stream stands out at the level asked for.
    adjusted
        The smallest level at which it would: a false discovery rate from 0 to 1, or under a budget the number of false
        alarms expected in this tick at so small a p-value.
    order
        Positions of the listed streams, strongest first; equal ones in the order given.
    """

    rejected: BoolArray
    adjusted: FloatArray
    order: IntArray


def reject(p_values: npt.ArrayLike, rule: PRule, level: float, *, tests: int | None = None) -> Rejections:
    """Decide which p-values of one tick stand out.

    Parameters
    ----------
    p_values
        P-values of the streams listed, one row, 0 to 1.
    rule
        ``"BH"`` (independent or positively dependent streams), ``"BY"`` (any dependence) or ``"budget"``.
    level
        False discovery rate, strictly between 0 and 1; for a budget, the false alarms expected in one tick, above 0.
    tests
        Streams tested in this tick, listed or not; as many as are listed by default.

    Raises
    ------
    DetectorError
        If a p-value is NaN or outside 0 to 1, or an option is out of range.

    Notes
    -----
    The rate is that of this tick. A test repeated at every tick on windows that overlap is another matter: see
    :func:`threshold_for_rate`.

    Examples
    --------
    >>> found = reject([1e-6, 0.02, 3e-5], "BH", 0.05, tests=1000)
    >>> found.rejected.tolist(), found.order.tolist()
    ([True, False, True], [0, 2, 1])
    """
    p = _p_values(p_values)
    m = _tests(tests, p.size)
    if rule not in get_args(PRule):
        raise DetectorError(f"rule: budget, BH or BY, found {rule!r}")
    if rule == "budget":
        if not 0.0 < level < np.inf:
            raise DetectorError(f"level: false alarms expected in a tick, above 0 and finite, found {level!r}")
        adjusted = p * float(m)
    else:
        check_fraction(level, "level")
        adjusted = adjust(p, rule, tests=m)
    return Rejections(adjusted <= level, adjusted, _ranked(p))


def adjust(p_values: npt.ArrayLike, rule: Literal["BH", "BY"] = "BH", *, tests: int | None = None) -> FloatArray:
    """Adjust p-values: the smallest false discovery rate at which each would be rejected.

    Parameters
    ----------
    p_values, rule, tests
        As for :func:`reject`. With more `tests` than listed p-values, an adjusted value up to the smallest unlisted
        p-value is exact, and a larger one an upper bound.

    Raises
    ------
    DetectorError
        If a p-value is NaN or outside 0 to 1, or there are fewer tests than p-values.

    Examples
    --------
    >>> adjust([0.01, 0.02, 0.03, 0.5]).round(6).tolist()
    [0.04, 0.04, 0.04, 0.5]
    """
    p = _p_values(p_values)
    m = float(_tests(tests, p.size))
    # The harmonic sum 1 + 1/2 + ... + 1/m, in one step for any m.
    price = float(special.digamma(m + 1.0) + np.euler_gamma) if rule == "BY" and m > 0 else 1.0
    return _step_up(p, m * price)


def e_bh(
    e_values: npt.ArrayLike, level: float, *, tests: int | None = None, weights: npt.ArrayLike | None = None
) -> Rejections:
    """Decide which e-values of one tick stand out: reject the k largest, k the last with e_[k] >= tests / (level k).

    Parameters
    ----------
    e_values
        E-values of the streams listed, one row, from 0 to infinity.
    level
        False discovery rate, strictly between 0 and 1.
    tests
        Streams tested in this tick, listed or not; as many as are listed by default.
    weights
        Weight of each listed stream, fixed before the data; those of *all* streams tested sum to at most `tests`.

    Raises
    ------
    DetectorError
        If an e-value is NaN or negative, the listed weights alone exceed `tests`, or an option is out of range.

    Examples
    --------
    >>> e_bh([900.0, 250.0, 3.0], 0.1, tests=50).rejected.tolist()
    [True, True, False]
    """
    e = _row(e_values, "e_values")
    m = _tests(tests, e.size)
    if not np.all(e >= 0):
        raise DetectorError("e_values: must not be negative or NaN; an e-value of a stream not tested is left out")
    check_fraction(level, "level")
    if weights is not None:
        w = as_parameter(weights, "weights", e.shape, low=0.0, high=np.inf, open_ends=False)
        if not np.all(np.isfinite(w)) or w.sum() > m * (1.0 + 1e-9):
            raise DetectorError("weights: must be finite, those of all streams sum to at most the number of tests")
        with np.errstate(over="ignore"):
            e = np.where(w > 0, e, 0.0) * w
    inverse = np.divide(1.0, e, out=np.full(e.shape, np.inf), where=e > 1e-300)
    adjusted = _step_up(inverse, float(m))
    return Rejections(adjusted <= level, adjusted, _ranked(inverse))


def p_to_e(p_values: npt.ArrayLike, calibrator: Calibrator = "mixture", kappa: float = 0.5) -> FloatArray:
    """Turn p-values into e-values (Vovk and Wang 2021, *Annals of Statistics* 49, 1736-1754, section 2).

    Parameters
    ----------
    p_values
        Any shape, 0 to 1.
    calibrator
        ``"power"``: kappa p^(kappa - 1). ``"mixture"``: its mean over kappa from 0 to 1,
        (1 - p + p ln p) / (p (ln p)^2). ``"shafer"``: p^(-1/2) - 1.
    kappa
        Of the power calibrator, strictly between 0 and 1.

    Examples
    --------
    >>> p_to_e([1.0, 0.01, 1e-6]).round(4).tolist()
    [0.5, 4.451, 5239.1362]
    """
    p = _checked_p(np.asarray(p_values, dtype=np.float64))
    check_fraction(kappa, "kappa")
    if calibrator not in get_args(Calibrator):
        raise DetectorError(f"calibrator: power, mixture or shafer, found {calibrator!r}")
    some = np.maximum(p, np.finfo(np.float64).tiny)
    if calibrator == "power":
        e = kappa * some ** (kappa - 1.0)
    elif calibrator == "shafer":
        e = 1.0 / np.sqrt(some) - 1.0
    else:
        # With u = -ln p it reads (exp(u) - 1 - u) / u^2; near u = 0 only the series keeps its digits.
        u = -np.log(some)
        series = 0.5 + u / 6.0 + u**2 / 24.0 + u**3 / 120.0 + u**4 / 720.0
        square = np.where(u > 0.01, u, 1.0) ** 2
        e = np.where(u > 0.01, (np.expm1(u) - u) / square, series)
    return np.asarray(np.where(p > 0, e, np.inf))


def e_to_p(e_values: npt.ArrayLike) -> FloatArray:
    """Turn e-values into p-values, min(1, 1 / e): the only admissible way (Markov's inequality).

    Examples
    --------
    >>> e_to_p([0.0, 0.5, 20.0]).tolist()
    [1.0, 1.0, 0.05]
    """
    e = np.asarray(e_values, dtype=np.float64)
    if not np.all(e >= 0):
        raise DetectorError("e_values: must not be negative or NaN")
    return np.asarray(1.0 / np.maximum(e, 1.0))


def threshold_for_rate(false_alarms_per_month: float, tests_per_month: float, *, streams: int = 1) -> float:
    """P-value threshold that keeps a budget of false alarms: streams * threshold * tests = false alarms per month.

    Parameters
    ----------
    false_alarms_per_month
        Expected over all streams, above 0.
    tests_per_month
        Times each stream is tested in a month of 30 days: 30 for daily tests, 720 for hourly ones. An expectation adds
        up whatever the dependence, so this bounds the ticks with a false alarm; tests whose windows overlap alarm in
        runs, and :func:`overlapping_tests` bounds the runs by far fewer tests.
    streams
        Streams tested.

    Returns
    -------
    float
        At most 1.

    Examples
    --------
    >>> threshold_for_rate(3.0, 30.0, streams=10_000)
    1e-05
    """
    if not 0.0 < false_alarms_per_month < np.inf or not 0.0 < tests_per_month < np.inf or streams < 1:
        raise DetectorError("false_alarms_per_month, tests_per_month: above 0 and finite; streams: at least 1")
    return float(min(false_alarms_per_month / (streams * tests_per_month), 1.0))


def overlapping_tests(tick_days: float, window_days: float, least_count: float) -> float:
    """Tests per month that count when each tick tests the events of a window reaching back from it.

    For Poisson events the window's count rises to k at a rate of (k / window) P(N = k), which is at most (k / window)
    P(N >= k): a stream whose alarm is "k or more in the window" begins a run of alarms no more often than k
    independent tests a window would, however short the tick (up-crossings as in Alm 1983, "On the distribution of the
    scan statistic of a Poisson process"). Events that come in clusters are outside this bound.

    Parameters
    ----------
    tick_days, window_days
        Days between tests; days that one test looks back.
    least_count
        Count k at which a stream alarms, at least 1; the largest of the streams' is the cautious one.

    Returns
    -------
    float
        For the `tests_per_month` of :func:`threshold_for_rate`; never more than the ticks in a month.

    Examples
    --------
    A running week tested every hour, alarm at 6 events: 26 tests a month, not 720.

    >>> round(overlapping_tests(1 / 24, 7.0, 6.0), 2)
    25.71
    """
    if not 0.0 < tick_days < np.inf or not 0.0 < window_days < np.inf or not 1.0 <= least_count < np.inf:
        raise DetectorError("tick_days, window_days: above 0 and finite; least_count: at least 1")
    return DAYS_PER_MONTH * min(1.0 / tick_days, max(least_count, 1.0) / window_days)


def recurrence_days(p_values: npt.ArrayLike, tick_days: float, *, streams: int = 1) -> FloatArray:
    """Days in which chance alone shows a p-value so small once (Kulldorff's recurrence interval).

    Parameters
    ----------
    p_values
        Any shape, 0 to 1.
    tick_days
        Days between tests of one stream; where windows overlap, 30 / :func:`overlapping_tests`.
    streams
        1 for one stream alone; all streams for the city as a whole.

    Returns
    -------
    FloatArray
        tick_days / (p * streams), of the shape of `p_values`; infinite at p = 0.

    Examples
    --------
    >>> recurrence_days([0.001, 0.5], 7.0).tolist()
    [7000.0, 14.0]
    """
    p = _checked_p(np.asarray(p_values, dtype=np.float64))
    if not 0.0 < tick_days < np.inf or streams < 1:
        raise DetectorError("tick_days: above 0 and finite; streams: at least 1")
    return np.asarray(np.divide(tick_days, p * float(streams), out=np.full(p.shape, np.inf), where=p > 1e-300))


def _row(values: npt.ArrayLike, name: str) -> FloatArray:
    try:
        row = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DetectorError(f"{name}: not an array of numbers ({error})") from None
    if row.ndim != 1:
        raise DetectorError(f"{name}: expected one row, found {row.ndim} dimension(s)")
    return row


def _p_values(values: npt.ArrayLike) -> FloatArray:
    return _checked_p(_row(values, "p_values"))


def _checked_p(p: FloatArray) -> FloatArray:
    if not np.all((p >= 0) & (p <= 1)):
        raise DetectorError("p_values: must lie between 0 and 1; a stream that was not judged has 1, not NaN")
    return p


def _tests(tests: int | None, listed: int) -> int:
    m = listed if tests is None else tests
    if m < listed:
        raise DetectorError(f"tests: {m} is fewer than the {listed} streams listed; count every stream tested")
    return m


def _ranked(p: FloatArray) -> IntArray:
    return np.argsort(p, kind="stable").astype(np.int64)


def _step_up(p: FloatArray, scale: float) -> FloatArray:
    """Smallest over j >= i of p_(j) * scale / j, at most 1, for each p_(i) in rising order; in the given order."""
    order = _ranked(p)
    rank = np.arange(1, p.size + 1, dtype=np.float64)
    stepped = np.minimum.accumulate((p[order] * (scale / rank))[::-1])[::-1]
    adjusted = np.empty(p.shape)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
