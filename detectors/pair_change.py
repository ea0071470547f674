"""Is a pair of product and kind of injury reported more often than its own past, and its margins, lead to expect?

That a drug comes with adverse reactions and a lift with bruises is no news. What a pair's past tells of its rate is the
posterior of the gamma-Poisson shrinker (:mod:`detectors.gamma_poisson`); with lambda drawn from it, the reports of a
later period are Poisson with mean lambda E, so that their law is a mixture of two negative binomials (the posterior
predictive law of DuMouchel 1999). Its upper tail is the p-value here: small only where the pair has changed. A pair
that was never seen is judged by what all pairs of the table look like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray
from detectors.gamma_poisson import GammaMixture, as_cells, posterior_weight

__all__ = ["PairChange", "pair_change"]


@dataclass(frozen=True, slots=True)
class PairChange:
    """What a later period says about each pair; every field is an array ``[pairs]``.

    Attributes
    ----------
    observed
        Reports of the pair in the period.
    expected
        Reports that its past and the period's margins lead to expect (the predictive mean).
    independent
        Reports expected under independence, past or no past.
    p_value
        P(reports >= observed) if the pair goes on as before; 1 where not defined.
    defined
        False where nothing was expected.
    """

    observed: FloatArray
    expected: FloatArray
    independent: FloatArray
    p_value: FloatArray
    defined: BoolArray


def pair_change(
    past_n: npt.ArrayLike, past_expected: npt.ArrayLike, n: npt.ArrayLike, expected: npt.ArrayLike, theta: GammaMixture
) -> PairChange:
    """Hold a period's reports against the past of each pair.

    Parameters
    ----------
    past_n, past_expected
        Reports of the pair before the period, and reports expected then under independence, ``[pairs]``.
    n, expected
        The same of the period itself.
    theta
        The mixture, fitted to the past.

    Raises
    ------
    DetectorError
        If counts are no counts, an expectation is NaN or negative, or the shapes differ.

    Examples
    --------
    Twenty reports where three would do: news for a pair that had none, none for one that was always so.

    >>> theta = GammaMixture(3.25595, 0.399988, 2.02375, 1.90613, 0.0653075)
    >>> pair_change([0, 200], [30.0, 30.0], [20, 20], [3.0, 3.0], theta).p_value.round(4).tolist()
    [0.0, 0.5292]
    """
    before, margin = as_cells(past_n, past_expected)
    count, mean = as_cells(n, expected)
    if before.shape != count.shape:
        raise DetectorError("past_n and n: one of each for every pair")
    share = posterior_weight(before, margin, theta)
    defined: BoolArray = mean > 0
    tail, predicted = np.zeros(count.shape), np.zeros(count.shape)
    for weight, alpha, beta in (
        (share, theta.alpha1, theta.beta1),
        (1.0 - share, theta.alpha2, theta.beta2),
    ):
        shape, rate = alpha + before, beta + margin
        # P(X >= n) of a negative binomial is a regularised incomplete beta function of its success probability.
        upper = special.betainc(np.maximum(count, 1.0), shape, mean / (mean + rate))
        tail += weight * np.where(count > 0, upper, 1.0)
        predicted += weight * mean * shape / rate
    return PairChange(
        observed=count,
        expected=np.where(defined, predicted, np.nan),
        independent=mean,
        p_value=np.where(defined, np.minimum(tail, 1.0), 1.0),
        defined=defined,
    )
