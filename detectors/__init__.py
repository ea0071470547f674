"""Detectors: pure functions from arrays ``[series, time]`` to evidence ``[series]``.

Counts without a denominator
    :mod:`~detectors.surge`, our own, for a year of history or more; :mod:`~detectors.farrington`,
    :mod:`~detectors.ears` and :mod:`~detectors.predictive`; :mod:`~detectors.simple_baselines` (Bayes, RKI, CDC),
    :mod:`~detectors.glr` and :mod:`~detectors.rossi` to compare with; :mod:`~detectors.delay` for late reports.
Pass rates
    :mod:`~detectors.passrate` for one window, :mod:`~detectors.lr_cusum` for batches,
    :mod:`~detectors.bernoulli_cusum` for single items, :mod:`~detectors.laney`, :mod:`~detectors.declared_quality`,
    :mod:`~detectors.edetector`; thresholds by :mod:`~detectors.run_length`.
Labs and other sources
    :mod:`~detectors.lab_effects`, :mod:`~detectors.lab_cells`, :mod:`~detectors.lab_funnel`,
    :mod:`~detectors.lab_drift`; :mod:`~detectors.sources`.
Districts, and pairs of product and injury
    :mod:`~detectors.scan`; :mod:`~detectors.disproportionality` and :mod:`~detectors.pair_change`.
Scores and rates of money
    :mod:`~detectors.satisfaction`, :mod:`~detectors.self_starting`, :mod:`~detectors.ewma`.
Many streams at once
    :mod:`~detectors.multiplicity`.

Nothing here reads a clock, a file or an unseeded random number, and a series' evidence has the same bits
whichever other series it is computed with. Each module names the paper that it implements.
"""

from detectors.disproportionality import score_pairs
from detectors.ears import ears
from detectors.errors import DetectorError
from detectors.evidence import CountEvidence, RateEvidence
from detectors.farrington import FarringtonOptions, farrington
from detectors.lr_cusum import CusumEvidence, lr_cusum
from detectors.multiplicity import e_bh, reject
from detectors.passrate import (
    below_target,
    dispersion,
    jeffreys_interval,
    pooled_dispersion,
    wilson_interval,
    worse_than_reference,
)
from detectors.predictive import count_dispersion, predictive
from detectors.run_length import arl, threshold_for_arl
from detectors.scan import conditional_scan, expectation_scan, permutation_scan
from detectors.surge import SurgeOptions, surge

__all__ = [
    "CountEvidence",
    "CusumEvidence",
    "DetectorError",
    "FarringtonOptions",
    "RateEvidence",
    "SurgeOptions",
    "arl",
    "below_target",
    "conditional_scan",
    "count_dispersion",
    "dispersion",
    "e_bh",
    "ears",
    "expectation_scan",
    "farrington",
    "jeffreys_interval",
    "lr_cusum",
    "permutation_scan",
    "pooled_dispersion",
    "predictive",
    "reject",
    "score_pairs",
    "surge",
    "threshold_for_arl",
    "wilson_interval",
    "worse_than_reference",
]
