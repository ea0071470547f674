"""Every pass-rate detector on input that says nothing, or too much: defined evidence, no warning, no exception."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detectors import (
    DetectorError,
    below_target,
    dispersion,
    jeffreys_interval,
    lr_cusum,
    pooled_dispersion,
    threshold_for_arl,
    wilson_interval,
    worse_than_reference,
)
from detectors.declared_quality import acceptance_limit, clopper_pearson_interval, declared_quality, limiting_quality
from detectors.edetector import betting_factors, e_detector, e_process, epoch_e_value, likelihood_factors
from detectors.lab_cells import cell_evidence, expected_failures
from detectors.lab_drift import lab_drift
from detectors.lab_effects import fit_labs
from detectors.lab_funnel import funnel_limits, lab_funnel
from detectors.lab_rows import lab_rows
from detectors.laney import laney_chart

HUGE = 10**9
SAMPLES = {
    "nothing tested": (0, 0),
    "one item, passed": (1, 0),
    "one item, failed": (1, 1),
    "none failed": (200, 0),
    "all failed": (200, 200),
    "huge, none failed": (HUGE, 0),
    "huge, one failed": (HUGE, 1),
    "huge, all failed": (HUGE, HUGE),
    "huge, half failed": (HUGE, HUGE // 2),
}
N = np.array([n for n, _ in SAMPLES.values()])
X = np.array([x for _, x in SAMPLES.values()])
WINDOWS_N, WINDOWS_X = np.repeat(N[:, None], 6, axis=1), np.repeat(X[:, None], 6, axis=1)


def arrays(evidence):
    if dataclasses.is_dataclass(evidence):
        return {f.name: getattr(evidence, f.name) for f in dataclasses.fields(evidence)}
    return dict(enumerate(evidence if isinstance(evidence, tuple) else (evidence,)))


WINDOW = {
    "below_target": lambda n, x: below_target(n, x, 0.98),
    "below_target of all": lambda n, x: below_target(n, x, 1.0),
    "below_target of none": lambda n, x: below_target(n, x, 0.0),
    "jeffreys": jeffreys_interval,
    "wilson": wilson_interval,
    "clopper_pearson": clopper_pearson_interval,
    "worse_than_reference": lambda n, x: worse_than_reference(n, x, n, x, 0.02),
    "worse_than_reference, certain correlation": lambda n, x: worse_than_reference(n, x, n, x, 1.0),
    "declared_quality": lambda n, x: declared_quality(n, x, 0.01),
    "declared_quality of a lot": lambda n, x: declared_quality(n, x, 0.01, lot_size=n + 5),
    "funnel_limits": lambda n, x: funnel_limits(n, 0.1, 0.002),
    "funnel_limits at the ends": lambda n, x: funnel_limits(n, 0.0, 0.002),
}
SERIES = {
    "laney": laney_chart,
    "dispersion": lambda n, x: dispersion(n, x, pool=0.02),
    "lr_cusum": lambda n, x: lr_cusum(n, x, 0.02, 2.0, threshold=4.0),
    "lr_cusum, correlated": lambda n, x: lr_cusum(n, x, 0.02, 2.0, threshold=4.0, rho=0.05),
    "likelihood_factors": lambda n, x: likelihood_factors(n, x, 0.02),
    "likelihood_factors, correlated": lambda n, x: likelihood_factors(n, x, 0.02, rho=0.05),
    "betting_factors": lambda n, x: betting_factors(n, x, 0.02),
    "e_cusum": lambda n, x: e_detector(likelihood_factors(n, x, 0.02), "cusum"),
    "e_sr": lambda n, x: e_detector(betting_factors(n, x, 0.02), "sr"),
    "e_process": lambda n, x: e_process(likelihood_factors(n, x, 0.02)),
    "epoch": lambda n, x: epoch_e_value(betting_factors(n, x, 0.02)),
}


@pytest.mark.parametrize("detector", WINDOW)
def test_a_window_that_says_nothing_or_too_much_gives_defined_evidence(detector):
    for name, values in arrays(WINDOW[detector](N, X)).items():
        assert values.shape == N.shape, name
        allowed = np.isfinite(values) | (np.array([name in ("rate", "reference")] * N.size) & (N == 0))
        assert np.all(allowed), name
        if str(name).startswith("p_"):
            assert np.all((values >= 0) & (values <= 1))
            assert values[0] == 1
    for values in arrays(WINDOW[detector](N[:0], X[:0])).values():
        assert values.shape == (0,)


@pytest.mark.parametrize("detector", SERIES)
def test_a_series_that_says_nothing_or_too_much_gives_defined_evidence(detector):
    found = arrays(SERIES[detector](WINDOWS_N, WINDOWS_X))
    for name, values in found.items():
        assert values.shape[0] == N.size, name
        if detector != "laney" and values.dtype == np.float64:
            assert not np.isnan(values).any(), name
        if values.dtype == np.bool_ and name != "defined":
            assert not values[0].any(), name
    for empty in (SERIES[detector](WINDOWS_N[:0], WINDOWS_X[:0]), SERIES[detector](WINDOWS_N[:, :0], WINDOWS_X[:, :0])):
        assert all(values.size == 0 or values.shape[0] == N.size for values in arrays(empty).values())


@pytest.mark.parametrize("detector", [*WINDOW, *SERIES])
def test_what_is_no_count_is_refused(detector):
    one = np.array([5.0]) if detector in WINDOW else np.array([[5.0]])
    call = {**WINDOW, **SERIES}[detector]
    for bad in (np.nan, np.inf, -1.0, 2.0**54):
        with pytest.raises(DetectorError):
            call(one * 0 + bad, one * 0)
    if "funnel" not in detector:
        for bad in (np.nan, -1.0, 6.0):
            with pytest.raises(DetectorError):
                call(one, one * 0 + bad)


def test_numbers_without_a_sample_are_defined():
    assert pooled_dispersion(WINDOWS_N, WINDOWS_X) >= 0
    assert pooled_dispersion(WINDOWS_N[:0], WINDOWS_X[:0]) == 0
    assert threshold_for_arl(1e-9, 2.0, 1, 0.0, 1000.0) > 0
    assert acceptance_limit([0, HUGE], 0.0).tolist() == [0, 0]
    assert limiting_quality([0, 1], [0, 1]).tolist() == [1, 1]


TABLES = {
    "no rows": ([], [], [], []),
    "one row of nothing": ([0], [0], [0], [0]),
    "one row": ([3], [5], [100], [7]),
    "one item": ([0], [0], [1], [1]),
    "one lab, many cells": ([0, 0, 0], [0, 1, 2], [10, 20, 30], [1, 2, 3]),
    "one cell, many labs": ([0, 1, 2], [0, 0, 0], [10, 20, 30], [1, 2, 30]),
    "none failed": ([0, 0, 1, 1], [0, 1, 0, 1], [50] * 4, [0] * 4),
    "all failed": ([0, 0, 1, 1], [0, 1, 0, 1], [50] * 4, [50] * 4),
    "one lab fails all, the other none": ([0, 0, 1, 1], [0, 1, 0, 1], [50] * 4, [50, 50, 0, 0]),
    "huge": ([0, 0, 1, 1], [0, 1, 0, 1], [HUGE] * 4, [HUGE, 0, HUGE // 2, 3]),
    "huge beside one item": ([0, 0, 1, 1], [0, 1, 0, 1], [HUGE, 1, 1, 1], [HUGE // 7, 1, 0, 1]),
    "each lab its own cell, huge": ([0, 1, 2], [0, 1, 2], [HUGE] * 3, [HUGE // 3, 9, HUGE]),
}


@pytest.mark.parametrize("rho", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("case", TABLES)
def test_labs_that_say_nothing_or_too_much_give_defined_evidence(case, rho):
    rows = lab_rows(*TABLES[case], rho=rho)
    fit = fit_labs(rows)
    cells = cell_evidence(rows, fit)
    funnel = lab_funnel(rows, fit)
    recent = np.arange(rows.tested.size) % 2 == 1
    drift = lab_drift(rows, recent)
    for evidence in (fit, cells, funnel, drift):
        for name, values in arrays(evidence).items():
            if name not in ("ratio", "wide_upper"):
                assert np.all(np.isfinite(values)), name
            if name.startswith("p_"):
                assert np.all((values >= 0) & (values <= 1)), name
    assert np.all(fit.lab_variance >= 0)
    assert np.all(fit.variance >= 0)
    assert np.all(np.isfinite(expected_failures(rows, fit, 0.1)))
    assert np.all(np.isnan(fit.ratio) == (fit.tested == 0))
    if np.unique(TABLES[case][0]).size < 2:
        assert not fit.log_odds.any()
        assert not funnel.defined.any()


def test_labs_given_what_is_no_count_are_refused():
    for bad in (np.nan, np.inf, -1.0, 2.0**54):
        with pytest.raises(DetectorError):
            lab_rows([0], [0], [bad], [0])
        with pytest.raises(DetectorError):
            lab_rows([0], [0], [5], [bad])
        with pytest.raises(DetectorError):
            lab_rows([bad], [0], [5], [0])
