"""The satisfaction index against its target, without knowing how single answers spread.

Only the mean of each survey is reported. For scores between 0 and 100 with mean m the variance is at most
m (100 - m) (Bhatia and Davis, 2000, "A better bound on the variance", American Mathematical Monthly 107), so that a
normal test with that variance errs on the side of silence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import RateEvidence, as_counts

__all__ = ["index_below_target"]

_HIGHEST = 100.0


def index_below_target(
    respondents: npt.ArrayLike, score_sum: npt.ArrayLike, target: npt.ArrayLike, confidence: float = 0.95
) -> RateEvidence:
    """Judge whether a mean score lies under its target.

    Parameters
    ----------
    respondents
        Answers in the window, ``[series]``.
    score_sum
        Sum of their scores (0 to 100 each), ``[series]``.
    target
        Target index, ``[series]`` or a scalar; NaN where there is none.
    confidence
        Of the two-sided interval.

    Returns
    -------
    RateEvidence
        ``tested`` are respondents, ``failed`` the points missing to 100 over 100, ``rate`` the index (0 to 100).

    Raises
    ------
    DetectorError
        If counts are negative or a sum exceeds 100 a respondent.

    Examples
    --------
    >>> found = index_below_target([400], [400 * 70.0], [80.0])
    >>> float(found.rate[0]), bool(found.p_value[0] < 1e-5)
    (70.0, True)
    """
    n = as_counts(respondents, "respondents", ndim=1)
    total = as_counts(score_sum, "score_sum", ndim=1)
    if np.any(total > n * _HIGHEST * (1 + 1e-12)):
        raise DetectorError("score_sum: more than 100 points a respondent")
    aim = np.broadcast_to(np.asarray(target, dtype=np.float64), n.shape)
    defined = (n > 0) & np.isfinite(aim)
    some = np.maximum(n, 1.0)
    mean = total / some
    error = np.sqrt(np.maximum(mean * (_HIGHEST - mean), 1.0) / some)
    z = np.where(defined, (mean - np.where(defined, aim, 0.0)) / error, 0.0)
    half = special.ndtri(0.5 + confidence / 2) * error
    p_value = np.where(defined, special.ndtr(z), 1.0)
    upper = np.minimum(mean + half, _HIGHEST)
    return RateEvidence(
        tested=n,
        failed=n - total / _HIGHEST,
        rate=np.where(n > 0, mean, np.nan),
        lower=np.maximum(mean - half, 0.0),
        upper=upper,
        reference=aim.copy(),
        p_value=p_value,
        alarm=defined & (p_value <= (1 - confidence) / 2) & (upper < aim),
        defined=defined,
    )
