from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = [
    "bernoulli_cusum", "declared_quality", "delay", "disproportionality", "ears", "edetector", "ewma", "farrington",
    "gamma_poisson", "glr", "lab_drift", "lab_effects", "lab_funnel", "laney", "lr_cusum", "multiplicity",
    "pair_change", "pair_counts", "passrate", "predictive", "rossi", "run_length", "scan", "scan_significance",
    "scan_zones", "self_starting", "simple_baselines", "sources", "surge", "tails",
]  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_in_the_docstrings_say_what_happens(module):
    failed, tried = doctest.testmod(importlib.import_module(f"detectors.{module}"))
    assert tried > 0
    assert failed == 0
