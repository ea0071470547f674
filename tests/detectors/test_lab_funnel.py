from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_worlds import world
from scipy import stats

from detectors import DetectorError
from detectors.lab_effects import fit_labs
from detectors.lab_funnel import funnel_limits, lab_funnel
from detectors.lab_rows import lab_rows


def funnel(w, **options):
    rows = lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch, rho=w.rho)
    return lab_funnel(rows, fit_labs(rows), **options)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 5000), st.floats(0.001, 0.999), st.sampled_from([0.002, 0.05]))
def test_the_limits_are_the_interpolated_binomial_quantiles(n, rate, alpha):
    low, high = funnel_limits([n], rate, alpha)
    for got, q in ((low[0], alpha / 2), (high[0], 1 - alpha / 2)):
        # A tie of q with a value of F may round to either side: both give the same limit.
        r = stats.binom.ppf(q, n, rate)
        share = (stats.binom.cdf(r, n, rate) - q) / stats.binom.pmf(r, n, rate)
        assert got == pytest.approx(np.clip((r - share) / n, 0, 1), abs=1e-6)


def test_equal_labs_lie_inside_as_often_as_promised():
    w = world(11, branches=60, lab_sd=0.0, stratum_sd=0.3)
    found = funnel(w, alpha=0.05)
    assert (found.severe | found.lenient).mean() < 0.06
    outside = (found.ratio < found.lower) | (found.ratio > found.upper)
    # The exact limits take the expected failures as known.
    assert outside.mean() < 0.12
    assert ((found.ratio < found.wide_lower) | (found.ratio > found.wide_upper)).mean() < 0.06


def test_over_dispersed_items_do_not_make_outliers():
    w = world(12, branches=60, lab_sd=0.0, rho=0.08)
    assert (lambda f: f.severe | f.lenient)(funnel(w, alpha=0.05)).mean() < 0.06
    w.rho = 0.0
    assert (lambda f: f.severe | f.lenient)(funnel(w, alpha=0.05)).mean() > 0.1


def test_labs_that_differ_as_labs_do_stand_out_of_the_exact_limits_only():
    w = world(13, branches=60, lab_sd=0.5)
    exact, natural = funnel(w, alpha=0.02), funnel(w, alpha=0.02, natural_spread=True)
    assert (exact.severe | exact.lenient).mean() > 0.4
    assert (natural.severe | natural.lenient).mean() < 0.07
    assert exact.dispersion.min() >= 1
    assert np.median(exact.dispersion) > 5


def test_one_lenient_lab_among_equals_is_the_outlier():
    lab, stratum = np.repeat(np.arange(12), 10), np.tile(np.arange(10), 12)
    tested = np.full(120, 300)
    failed = np.random.default_rng(1).binomial(tested, np.where(lab == 5, 0.02, 0.08))
    rows = lab_rows(lab, stratum, tested, failed)
    found = lab_funnel(rows, fit_labs(rows), natural_spread=True)
    assert np.flatnonzero(found.lenient).tolist() == [5]
    assert not found.severe.any()
    assert found.ratio[5] < found.wide_lower[5] < 1
    assert found.z.argmin() == 5


def test_a_lab_without_tests_or_peers_is_not_placed():
    rows = lab_rows([0, 1, 0, 1, 2], [0, 0, 0, 0, 0], [50, 0, 40, 60, 50], [5, 0, 4, 60, 0], branch=[0, 0, 1, 1, 2])
    found = lab_funnel(rows, fit_labs(rows))
    assert found.defined.tolist() == [False, False, True, True, False]
    assert not (found.severe | found.lenient)[~found.defined].any()
    assert found.p_severe[~found.defined].tolist() == [1.0] * 3


def test_a_branch_has_the_same_bits_in_any_company():
    w = world(14, branches=5, strata=12)
    rows = lab_rows(w.lab, w.stratum, w.tested, w.failed, branch=w.branch)
    whole = lab_funnel(rows, fit_labs(rows))
    for b in range(5):
        keep = np.flatnonzero(w.branch == b)[::-1]
        alone_rows = lab_rows(w.lab[keep], w.stratum[keep], w.tested[keep], w.failed[keep], branch=w.branch[keep])
        alone = lab_funnel(alone_rows, fit_labs(alone_rows))
        at = rows.lab_branch == b
        for name in ("ratio", "lower", "wide_upper", "z", "dispersion", "p_severe", "p_lenient"):
            assert getattr(whole, name)[at].tobytes() == getattr(alone, name).tobytes()


def test_a_level_out_of_range_is_refused():
    rows = lab_rows([0], [0], [1], [0])
    with pytest.raises(DetectorError, match="alpha"):
        lab_funnel(rows, fit_labs(rows), alpha=1.0)
    with pytest.raises(DetectorError, match="rate"):
        funnel_limits([5], 1.2, 0.05)
