from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone
from scipy import stats

from detectors import DetectorError
from detectors.edetector import (
    betting_factors,
    e_detector,
    e_process,
    epoch_e_value,
    likelihood_factors,
)

P0, CHANGE = 0.02, 1500


def stream(table):
    failed = np.zeros((1, 2000))
    failed[0, table("edetector_failures")["item"] - 1] = 1
    return np.ones((1, 2000)), failed


def test_the_published_mixture_has_the_published_values(table):
    rows, mixture = table("edetector_bernoulli"), table("edetector_mixture")
    at = rows["item"] - 1
    factors = likelihood_factors(*stream(table), P0, odds_ratios=np.exp(mixture["lambda"]))
    options = {"alpha": 1e-3, "weights": mixture["weight"]}
    sr = e_detector(factors, "sr", **options)
    cusum = e_detector(factors, "cusum", **options)
    process = e_process(factors, **options)
    np.testing.assert_allclose(sr.log_value[0, at], rows["mix_sr"], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(cusum.log_value[0, at], rows["mix_cusum"], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(process.log_value[0, at], rows["mix_process"], rtol=1e-7, atol=1e-8)
    assert cusum.alarm[0].argmax() + 1 == 1623
    assert sr.alarm[0].argmax() + 1 == 594


def test_a_single_alternative_has_the_published_values(table):
    rows = table("edetector_bernoulli")
    at = rows["item"] - 1
    factors = likelihood_factors(*stream(table), P0, odds_ratios=[(0.05 / 0.95) / (0.02 / 0.98)])
    for kind in ("cusum", "sr"):
        found = e_detector(factors, kind).log_value[0, at]
        np.testing.assert_allclose(found, rows[f"lr_{kind}"], rtol=1e-7, atol=1e-8)


def mean_of(factor, n, law):
    """Exact mean of exp(factor) of one batch over all that it can show, ``[alternatives]``."""
    x = np.arange(n + 1)
    logs = factor(np.full((n + 1, 1), n), x[:, None])[:, 0]
    return law.pmf(x) @ np.exp(logs)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.floats(0.001, 0.9), st.one_of(st.just(1.0), st.floats(1e-6, 1)))
def test_a_likelihood_factor_is_an_e_value_at_every_rate_in_order(n, p0, share):
    law = stats.binom(n, p0 * share)
    mean = mean_of(lambda t, x: likelihood_factors(t, x, p0), n, law)
    assert np.all(mean <= 1 + 1e-9)
    if share == 1:
        np.testing.assert_allclose(mean, 1, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.floats(0.01, 0.9), st.floats(0.05, 1), st.floats(0.001, 0.8))
def test_a_beta_binomial_factor_is_an_e_value_at_every_rate_in_order(n, p0, share, rho):
    m, p = 1 / rho - 1, p0 * share
    mean = mean_of(lambda t, x: likelihood_factors(t, x, p0, rho=rho), n, stats.betabinom(n, p * m, (1 - p) * m))
    assert np.all(mean <= 1 + 1e-7)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.floats(0.01, 0.9), st.floats(0.05, 1), st.floats(0.001, 0.95))
def test_a_betting_factor_is_an_e_value_whatever_the_over_dispersion(n, p0, share, rho):
    m, p = 1 / rho - 1, p0 * share
    for law in (stats.binom(n, p), stats.betabinom(n, p * m, (1 - p) * m)):
        mean = mean_of(lambda t, x: betting_factors(t, x, p0), n, law)
        assert np.all(mean <= 1 + 1e-9)


def test_a_likelihood_factor_is_no_e_value_of_over_dispersed_batches():
    law = stats.betabinom(20, 0.1 * 4, 0.9 * 4)
    assert mean_of(lambda t, x: likelihood_factors(t, x, 0.1), 20, law).max() > 2


def paths(n, times, law):
    """All that `times` batches of `n` items can show, and how probable each is."""
    failed = np.array(list(product(range(n + 1), repeat=times)))
    return np.full_like(failed, n), failed, law.pmf(failed).prod(axis=1)


@pytest.mark.parametrize("rate", [0.2, 0.1, 0.0])
@pytest.mark.parametrize("over_dispersed", [False, True])
def test_the_processes_keep_their_promises_by_enumeration(rate, over_dispersed):
    n, times, p0 = 2, 5, 0.2
    law = stats.betabinom(n, max(rate, 1e-9) * 2, (1 - rate) * 2) if over_dispersed else stats.binom(n, rate)
    tested, failed, probability = paths(n, times, law)
    factors = (betting_factors if over_dispersed else likelihood_factors)(tested, failed, p0)
    t = np.arange(1, times + 1)
    process = e_process(factors, alpha=0.4)
    epoch = epoch_e_value(factors)
    sr = e_detector(factors, "sr", alpha=0.4).log_value
    cusum = e_detector(factors, "cusum", alpha=0.4).log_value
    for log_value in (process.log_value, epoch):
        assert np.all(probability @ np.exp(log_value) <= 1 + 1e-9)
        # Stopped when it is largest would be too much; stopped at a threshold it is not (Ville).
        stop = np.where((log_value >= np.log(1.5)).any(axis=1), (log_value >= np.log(1.5)).argmax(axis=1), times - 1)
        assert probability @ np.exp(log_value[np.arange(len(stop)), stop]) <= 1 + 1e-9
    assert probability @ process.alarm.any(axis=1) <= 0.4
    assert np.all(probability @ np.exp(sr) <= t + 1e-9)
    assert np.all(cusum <= sr + 1e-12)
    if rate == p0:
        np.testing.assert_allclose(probability @ np.exp(sr), t)
        np.testing.assert_allclose(probability @ np.exp(epoch), 1)


def test_a_false_alarm_takes_as_long_as_promised():
    rng = np.random.default_rng(3)
    tested = rng.integers(5, 40, (200, 800))
    m = 1 / 0.05 - 1
    failed = rng.binomial(tested, rng.beta(0.04 * m, 0.96 * m, tested.shape))
    for factors in (likelihood_factors(tested, failed, 0.04, rho=0.05), betting_factors(tested, failed, 0.04)):
        for kind in ("cusum", "sr"):
            alarm = e_detector(factors, kind, alpha=0.01).alarm
            length = np.where(alarm.any(axis=1), alarm.argmax(axis=1) + 1, 800)
            assert length.mean() >= 100


def test_a_change_is_found_soon_and_betting_takes_longer():
    rng = np.random.default_rng(4)
    tested = np.full((200, 120), 60)
    failed = rng.binomial(tested, np.where(np.arange(120) < 60, 0.05, 0.15))
    delay = []
    for factors in (likelihood_factors(tested, failed, 0.05), betting_factors(tested, failed, 0.05)):
        alarm = e_detector(factors, alpha=1e-3).alarm
        assert alarm[:, :60].any(axis=1).mean() < 0.06
        assert alarm.any(axis=1).mean() > 0.99
        delay.append(np.median(alarm[:, 60:].argmax(axis=1)))
    assert delay[0] <= 3 <= delay[1] + 2
    assert delay[0] <= delay[1] <= 15


def test_the_epoch_value_is_the_mean_over_all_starts():
    rng = np.random.default_rng(5)
    tested = np.full((3, 8), 25)
    factors = likelihood_factors(tested, rng.binomial(tested, 0.1), 0.06)
    starts = [np.exp(e_process(factors, since=j).log_value) for j in range(8)]
    np.testing.assert_allclose(np.exp(epoch_e_value(factors)), np.mean(starts, axis=0), rtol=1e-12)


def test_a_run_goes_on_as_if_it_had_never_stopped():
    rng = np.random.default_rng(6)
    tested = rng.integers(0, 60, (9, 40))
    factors = likelihood_factors(tested, rng.binomial(tested, 0.06), 0.04)
    runs = [lambda f, **o: e_detector(f, "cusum", **o), lambda f, **o: e_detector(f, "sr", **o), e_process]
    for run in runs:
        whole, first = run(factors), run(factors[:, :17])
        second = run(factors[:, 17:], start=first.state)
        both = np.ascontiguousarray(np.concatenate([first.log_value, second.log_value], axis=1))
        assert both.tobytes() == whole.log_value.tobytes()
        assert second.state.tobytes() == whole.state.tobytes()


def test_a_series_has_the_same_bits_in_any_batch():
    rng = np.random.default_rng(7)
    tested = rng.integers(0, 300, (29, 20))
    failed, p0 = rng.binomial(tested, 0.05), rng.uniform(0.02, 0.08, 29)
    rho = rng.choice([0.0, 0.03], 29)
    assert_rows_stand_alone(lambda r: likelihood_factors(tested[r], failed[r], p0[r], rho=rho[r]), 29)
    assert_rows_stand_alone(lambda r: betting_factors(tested[r], failed[r], p0[r]), 29)
    factors = likelihood_factors(tested, failed, p0, rho=rho)
    assert_rows_stand_alone(lambda r: e_detector(factors[r], "cusum"), 29)
    assert_rows_stand_alone(lambda r: e_detector(factors[r], "sr"), 29)
    assert_rows_stand_alone(lambda r: epoch_e_value(factors[r]), 29)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: likelihood_factors([[5]], [[1]], 0.1, odds_ratios=[0.9]), "odds_ratios"),
        (lambda: likelihood_factors([[5]], [[1]], 0.1, odds_ratios=[]), "odds_ratios"),
        (lambda: likelihood_factors([[5]], [[1]], 0.0), "p0"),
        (lambda: betting_factors([[5]], [[1]], 1.0), "p0"),
        (lambda: betting_factors([[5]], [[1]], 0.1, bets=[1.0]), "bets"),
        (lambda: e_detector([[[np.nan]]]), "log_factors"),
        (lambda: e_detector([[0.0]]), "log_factors"),
        (lambda: e_detector([[[0.0]]], "glr"), "kind"),
        (lambda: e_detector([[[0.0, 0.0]]], weights=[0.5, 0.6]), "weights"),
        (lambda: e_detector([[[0.0]]], alpha=0.0), "alpha"),
        (lambda: e_detector([[[0.0]]], start=[0.0, 1.0]), "start"),
        (lambda: e_process([[[0.0]]], since=2), "since"),
    ],
)
def test_what_is_no_evidence_is_refused_by_name(call, named):
    with pytest.raises(DetectorError, match=named):
        call()
