from __future__ import annotations

import doctest
import importlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from same_bits import assert_rows_stand_alone, assert_same_bits
from scipy import stats

from detectors import DetectorError
from detectors.scan import ScanOptions, conditional_scan, expectation_scan, permutation_scan, permutation_screen
from detectors.scan_pass import Null
from detectors.scan_replicates import multinomial_sampler, permutation_sampler, poisson_sampler, tables_with_margins
from detectors.scan_significance import besag_clifford_length, gumbel_p, monte_carlo_p
from detectors.scan_zones import Zones, ball_zones, connected_zones, nearest_zones

QUIET = ScanOptions(replicates=0)
LINE = connected_zones(4, [[0, 1], [1, 2], [2, 3]], most=4)
seeds = st.integers(0, 2**32 - 1)


# --- the definition, in plain loops -----------------------------------------------------------------------------


def ratio(c, mu, total=None):
    if total is None:
        return c * math.log(c / mu) + mu - c
    rest = 0.0 if c == total else (total - c) * math.log((total - c) / (total - mu))
    return c * math.log(c / mu) + rest


def permutation_mu(y, strata, zone, times):
    mu = 0.0
    for s in set(strata):
        inside = [t for t in range(y.shape[1]) if strata[t] == s]
        total = y[:, inside].sum()
        if total:
            by_time = sum(y[:, t].sum() for t in times if strata[t] == s)
            mu += y[np.ix_(zone, inside)].sum() * by_time / total
    return mu


def brute(y, mu_of, zones, options, total=None):
    """Clusters (llr, regions, start, duration, observed, expected), the best first, none sharing a region."""
    times = y.shape[1]
    scored = []
    for number in np.flatnonzero(zones.scored):
        zone = zones.members(number).tolist()
        for end in range(1, times + 1) if options.retrospective else [times]:
            for start in range(max(0, end - options.longest), end):
                c, mu = y[zone, start:end].sum(), mu_of(zone, range(start, end))
                if c >= options.least_cases and c > mu * (1 + 1e-9):
                    scored.append((ratio(c, mu, total), set(zone), start, end - start, c, mu))
    found = []
    while scored and len(found) < options.clusters:
        top = max(row[0] for row in scored)
        found.append(next(row for row in scored if row[0] >= top - 1e-9))
        scored = [row for row in scored if not row[1] & found[-1][1]]
    return found


def assert_is(evidence, row, zones, expected, y, mu_of, total=None):
    """Every cluster is what it is said to be, and as strong as the definition's; of equals, either may come first."""
    assert (evidence.zone[row] >= 0).sum() == len(expected)
    for place, (llr, members, start, duration, *_) in enumerate(expected):
        zone = zones.members(evidence.zone[row, place]).tolist()
        first, last = evidence.start[row, place], evidence.start[row, place] + evidence.duration[row, place]
        c, mu = y[zone, first:last].sum(), mu_of(zone, range(first, last))
        assert evidence.observed[row, place] == c
        assert evidence.expected[row, place] == pytest.approx(mu, rel=1e-12)
        assert evidence.llr[row, place] == pytest.approx(ratio(c, mu, total), abs=1e-9, rel=1e-9)
        assert evidence.llr[row, place] == pytest.approx(llr, abs=1e-9, rel=1e-9)
        if (set(zone), first, last - first) != (members, start, duration):
            return  # a tie: what comes next may differ


def some_zones(rng, regions):
    kind = rng.integers(3)
    if kind == 0:
        return nearest_zones(rng.uniform(0, 9, (regions, 2)), most=int(rng.integers(1, 8)), geographic=False)
    edges = [(i, j) for i in range(regions) for j in range(i) if rng.random() < 0.4]
    return (connected_zones if kind == 1 else ball_zones)(regions, edges, most=int(rng.integers(1, 5)))


@settings(max_examples=80, deadline=None)
@given(seeds, st.sampled_from([0.1, 1.0, 30.0]), st.booleans())
def test_the_permutation_scan_is_the_loop_of_the_definition(seed, rate, retrospective):
    rng = np.random.default_rng(seed)
    regions, times = int(rng.integers(1, 8)), int(rng.integers(1, 9))
    zones = some_zones(rng, regions)
    y = rng.poisson(rate * rng.uniform(0.2, 2.0, (3, regions, 1)), (3, regions, times))
    strata = rng.integers(0, 3, times)
    options = ScanOptions(longest=5, replicates=0, retrospective=retrospective)
    for labels in (None, strata):
        found = permutation_scan(y, zones, seed=0, strata=labels, options=options)
        used = [0] * times if labels is None else strata.tolist()
        for i in range(3):

            def mu_of(zone, window, i=i, used=used):
                return permutation_mu(y[i], used, zone, window)

            assert_is(found, i, zones, brute(y[i], mu_of, zones, options, y[i].sum()), y[i], mu_of, y[i].sum())


@settings(max_examples=80, deadline=None)
@given(seeds, st.sampled_from([0.1, 1.0, 30.0]), st.sampled_from([1e-9, 0.5, 2.0, 6.0]), st.integers(1, 4))
def test_the_screen_has_every_ratio_that_reaches_its_floor_to_the_last_bit(seed, rate, floor, least):
    rng = np.random.default_rng(seed)
    regions, times = int(rng.integers(1, 8)), int(rng.integers(6, 12))
    zones = some_zones(rng, regions)
    y = rng.poisson(rate * rng.uniform(0.0, 2.0, (6, regions, 1)), (6, regions, times))
    options = ScanOptions(longest=5, least_cases=least, replicates=0)
    full = permutation_scan(y, zones, seed=0, options=options).llr[:, 0]
    folded = np.concatenate([y[:, :, :-5].sum(axis=2, keepdims=True), y[:, :, -5:]], axis=2)
    for counts in (y, y[:, :, -3:], folded):
        ratio = permutation_screen(counts, zones, floor=floor, options=options)
        exact = permutation_scan(counts, zones, seed=0, options=options).llr[:, 0]
        assert ratio[exact >= floor].tolist() == exact[exact >= floor].tolist()
        assert (ratio[exact < floor] < floor).all()
        if counts is folded:
            assert exact.tolist() == full.tolist()


@settings(max_examples=80, deadline=None)
@given(seeds, st.sampled_from([0.1, 1.0, 30.0]), st.booleans(), st.booleans())
def test_the_poisson_scans_are_the_loop_of_the_definition(seed, rate, retrospective, conditional):
    rng = np.random.default_rng(seed)
    regions, times = int(rng.integers(1, 8)), int(rng.integers(1, 9))
    zones = some_zones(rng, regions)
    mean = rate * rng.uniform(0.2, 2.0, (3, regions, times))
    y = rng.poisson(mean)
    options = ScanOptions(longest=4, least_cases=1, replicates=0, retrospective=retrospective)
    found = (conditional_scan if conditional else expectation_scan)(y, mean, zones, seed=0, options=options)
    for i in range(3):
        total = y[i].sum()
        share = mean[i] * total / mean[i].sum() if conditional else mean[i]

        def mu_of(zone, window, share=share):
            return share[np.ix_(zone, list(window))].sum()

        given_total = total if conditional else None
        expected = brute(y[i], mu_of, zones, options, given_total) if total else []
        assert_is(found, i, zones, expected, y[i], mu_of, given_total)


@pytest.fixture(scope="module")
def synthetic(table):
    rows = table("scan_synthetic")
    y = np.array([[rows[f"d{t}"][i] for t in range(10)] for i in range(rows.size)])
    return y, nearest_zones(np.column_stack([rows["x"], rows["y"]]), most=6, geographic=False)


def test_a_small_data_set_has_the_clusters_of_its_definition(synthetic):
    y, zones = synthetic
    options = ScanOptions(longest=4, replicates=999)
    found = permutation_scan(y[None], zones, seed=3, options=options)

    def mu_of(zone, window):
        return permutation_mu(y, [0] * 10, zone, window)

    expected = brute(y, mu_of, zones, options, y.sum())
    assert len(expected) == 3
    assert_is(found, 0, zones, expected, y, mu_of, y.sum())
    np.testing.assert_allclose(found.relative_risk, found.observed / found.expected, rtol=1e-12)
    assert found.llr[0, 0] == pytest.approx(1.437377, abs=1e-6)  # frozen, so that no one moves it unawares


# --- replicates -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([0.2, 3.0, 1e4, 1e9]))
def test_tables_keep_their_margins_exactly(seed, rate):
    rng = np.random.default_rng(seed)
    y = rng.poisson(rate, (int(rng.integers(1, 20)), int(rng.integers(1, 12))))
    drawn = tables_with_margins(y.sum(axis=1), y.sum(axis=0), 5, rng)
    assert drawn.min(initial=0) >= 0
    assert np.array_equal(drawn.sum(axis=1), np.broadcast_to(y.sum(axis=0), (5, y.shape[1])))
    assert np.array_equal(drawn.sum(axis=2), np.broadcast_to(y.sum(axis=1), (5, y.shape[0])))


@settings(max_examples=60, deadline=None)
@given(seeds, st.sampled_from([0.2, 3.0, 300.0]))
def test_a_permutation_keeps_cases_by_region_and_by_time_in_every_stratum(seed, rate):
    rng = np.random.default_rng(seed)
    regions, times = int(rng.integers(1, 9)), int(rng.integers(1, 12))
    y, strata = rng.poisson(rate, (regions, times)), rng.integers(0, 3, times)
    drawn = permutation_sampler(y, times, strata, rng)(4)
    keep = int(rng.integers(1, times + 1))
    latest = permutation_sampler(y, keep, strata, rng)(4)
    for replicate in range(4):
        assert np.array_equal(drawn[replicate].sum(axis=0), y.sum(axis=0))
        assert np.array_equal(latest[replicate].sum(axis=0), y[:, times - keep :].sum(axis=0))
        for s in range(3):
            of_stratum = y[:, strata == s].sum(axis=1)
            assert np.array_equal(drawn[replicate][:, strata == s].sum(axis=1), of_stratum)
            assert np.all(latest[replicate][:, strata[times - keep :] == s].sum(axis=1) <= of_stratum)


@pytest.mark.parametrize("way", ["shuffled", "tables"])
def test_a_permutation_has_the_exact_law_of_tables_with_fixed_margins(way, monkeypatch):
    y = np.array([[2, 1, 1], [1, 0, 2], [0, 1, 1]])
    monkeypatch.setattr("detectors.scan_replicates.SHUFFLE_BELOW", 10**9 if way == "shuffled" else 0)
    drawn = permutation_sampler(y, 2, np.zeros(3, dtype=np.int64), np.random.default_rng(5))(40_000)
    tables, seen = np.unique(drawn.reshape(40_000, -1), axis=0, return_counts=True)
    rows, columns = y.sum(axis=1), y.sum(axis=0)
    chance = []
    for table in tables:
        full = np.column_stack([rows - table.reshape(3, 2).sum(axis=1), table.reshape(3, 2)])
        log = sum(math.lgamma(n + 1) for n in [*rows, *columns])
        chance.append(math.exp(log - math.lgamma(y.sum() + 1) - sum(math.lgamma(n + 1) for n in full.ravel())))
    assert sum(chance) == pytest.approx(1.0, abs=1e-3)  # all but the rarest tables have been drawn
    expected = np.array(chance) * 40_000
    many = expected >= 5
    p = stats.chisquare(
        np.append(seen[many], seen[~many].sum()), np.append(expected[many], 40_000 - expected[many].sum())
    )
    assert p.pvalue > 0.01


@pytest.mark.parametrize("total", [3, 5_000])
def test_multinomial_replicates_have_their_shares(total):
    expected = np.array([[1.0, 2.0, 0.5], [0.0, 3.0, 1.5]])
    expected *= total / expected.sum()
    drawn = multinomial_sampler(expected, 2, total, np.random.default_rng(6))(20_000)
    assert drawn.shape == (20_000, 2, 2)
    assert drawn.sum(axis=(1, 2)).max() <= total
    assert not drawn[:, :, :0].size
    share = expected[:, 1:] / total
    error = np.sqrt(total * share * (1 - share) / 20_000)
    np.testing.assert_array_less(np.abs(drawn.mean(axis=0) - total * share), 4 * error)
    np.testing.assert_allclose(drawn.var(axis=0), total * share * (1 - share), rtol=0.06)
    assert not multinomial_sampler(expected, 3, total, np.random.default_rng(6))(50)[:, 1, 0].any()


def test_poisson_replicates_have_their_means():
    mean = np.array([[9.0, 0.0, 4.0], [9.0, 2.5, 1e6]])
    drawn = poisson_sampler(mean, 2, np.random.default_rng(7))(20_000)
    np.testing.assert_allclose(drawn.mean(axis=0), mean[:, 1:], rtol=0.02)
    np.testing.assert_allclose(drawn.var(axis=0), mean[:, 1:], rtol=0.05)


SCANS = {
    "permutation": lambda y, mean, zones, **rest: permutation_scan(y, zones, **rest),
    "expectation": expectation_scan,
    "conditional": conditional_scan,
}


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("rate", [0.05, 1.0, 40.0])
def test_the_maxima_of_replicates_are_those_of_the_definition(scan, rate, monkeypatch):
    """Most counts are dismissed by a bound and never scored: no maximum may be lost by that."""
    seen, drawn = [], []
    monkeypatch.setattr("detectors.scan_run.gumbel_p", lambda llr, maxima: seen.append(maxima) or np.ones_like(llr))
    for name in ("permutation_sampler", "multinomial_sampler", "poisson_sampler"):
        real = getattr(importlib.import_module("detectors.scan_replicates"), name)

        def spy(*given_, real=real):
            draw = real(*given_)
            return lambda replicates: drawn.append(draw(replicates)) or drawn[-1]

        monkeypatch.setattr(f"detectors.scan.{name}", spy)
    monkeypatch.setattr("detectors.scan_run.BATCH", 1 << 9)  # many small blocks
    rng = np.random.default_rng(8)
    zones = nearest_zones(rng.uniform(0, 9, (9, 2)), most=5, geographic=False)
    mean = rate * rng.uniform(0.5, 2.0, (9, 1)) * np.ones((9, 12))
    y = rng.poisson(mean)
    y[2, -2:] += 4
    options = ScanOptions(longest=5, replicates=60, clusters=1)
    SCANS[scan](y[None], mean[None], zones, seed=9, options=options)
    replicates, total = np.concatenate(drawn), y.sum()
    assert len(drawn) > 3
    assert seen[0].size == len(replicates) == 60
    for maximum, cases in zip(seen[0], replicates, strict=True):

        def mu_of(zone, window):
            if scan == "permutation":
                late = [t + 7 for t in window]
                return y[zone].sum() * y[:, late].sum() / total
            return mean[np.ix_(zone, list(window))].sum() * (total / mean.sum() if scan == "conditional" else 1.0)

        best = brute(cases, mu_of, zones, options, None if scan == "expectation" else total)
        assert maximum == pytest.approx(best[0][0] if best else 0.0, abs=1e-9)


@pytest.mark.parametrize("total", [1, 125, 126, 127, 128, 32_766, 32_767, 2**31 - 1, 2**53])
def test_counts_of_replicates_fit_their_type_and_never_reach_what_cannot_be_reached(total):
    zones = ball_zones(5, [[0, i] for i in range(1, 5)], most=5)  # a star: most balls grow in steps not scored
    expected = np.full((5, 2), total / 10).cumsum(axis=1)
    null = Null.of(zones, expected, float(total), 2)
    assert np.iinfo(null.least.dtype).max > total
    assert np.all(null.least[~zones.scored] > total)
    assert np.all(null.least_for(3.0) >= null.least)


# --- significance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", SCANS)
def test_p_values_are_uniform_where_nothing_happens(scan):
    rng = np.random.default_rng(10)
    zones = nearest_zones(rng.uniform(0, 9, (12, 2)), most=6, geographic=False)
    mean = 2.0 * rng.uniform(0.3, 2.0, (12, 1)) * np.ones((400, 12, 15))
    y = rng.poisson(mean)
    options = ScanOptions(longest=5, replicates=39, clusters=1)
    found = SCANS[scan](y, mean, zones, seed=np.arange(400), options=options)
    bins = np.bincount(np.minimum((found.p_value[:, 0] * 40 - 0.5).astype(int) // 4, 9), minlength=10)
    assert stats.chisquare(bins).pvalue > 0.01
    assert stats.kstest(found.p_gumbel[:, 0], "uniform").pvalue > 0.001
    assert np.abs(found.p_gumbel - found.p_value).mean() < 0.05  # 39 replicates: a standard error is up to 0.08


def test_weekly_rest_is_news_without_strata_and_none_with_them():
    rng = np.random.default_rng(11)
    weekday = np.arange(70) % 7
    mean = np.full((20, 12, 70), 3.0)
    mean[:, 0, weekday == 6] = 24.0  # one region reports its week on Sundays, and the last day is one
    y = rng.poisson(mean)
    options = ScanOptions(longest=1, replicates=39, clusters=1)
    zones = nearest_zones(np.arange(12.0)[:, None], most=3, geographic=False)
    blind = permutation_scan(y, zones, seed=1, options=options)
    aware = permutation_scan(y, zones, seed=1, strata=weekday, options=options)
    assert np.mean(blind.p_value[:, 0] <= 0.05) > 0.8
    assert np.mean(aware.p_value[:, 0] <= 0.05) < 0.25


def test_a_crowd_is_found_where_and_when_it_is():
    rng = np.random.default_rng(12)
    zones = nearest_zones(rng.uniform(0, 9, (30, 2)), most=10, geographic=False)
    own = zones.members(int(zones.start[3]) + 4)  # a zone of four
    mean = np.full((5, 30, 40), 1.0)
    y = rng.poisson(mean)
    y[:, own[:, None], np.arange(37, 40)] += 5
    for name, scan in SCANS.items():
        found = scan(y, mean, zones, seed=1, options=ScanOptions(replicates=99, tick=7.0))
        for i in range(5):
            assert set(zones.members(found.zone[i, 0]).tolist()) == set(own.tolist()), name
        assert found.duration[:, 0].tolist() == [3] * 5
        assert found.p_value[:, 0].tolist() == [0.01] * 5
        assert np.all(found.p_gumbel[:, 0] < 1e-6)
        np.testing.assert_allclose(found.recurrence[:, 0], 7.0 / found.p_gumbel[:, 0])


def test_early_ending_gives_the_share_at_which_it_ended():
    rng = np.random.default_rng(13)
    zones = nearest_zones(rng.uniform(0, 9, (10, 2)), most=5, geographic=False)
    y = rng.poisson(2.0, (12, 10, 20))
    full = permutation_scan(y, zones, seed=5, options=ScanOptions(replicates=499))
    short = permutation_scan(y, zones, seed=5, options=ScanOptions(replicates=499, stop_after=10))
    again = permutation_scan(y, zones, seed=5, options=ScanOptions(replicates=499, stop_after=10))
    assert_same_bits(short, again)
    ended = short.replicates < 499
    assert 0 < short.replicates[ended].max() < 499
    np.testing.assert_allclose(short.p_value[ended, 0], 10 / short.replicates[ended])
    np.testing.assert_array_equal(short.p_value[~ended], full.p_value[~ended])
    assert np.all(np.abs(short.p_value[:, 0] - full.p_value[:, 0]) < 0.35)
    assert besag_clifford_length(5.0, np.array([1.0, 5.0 - 1e-12, 9.0]), 2) == 3
    assert besag_clifford_length(5.0, np.array([9.0, 1.0]), 2) is None


def test_gumbel_tail_is_the_law_with_these_moments():
    maxima = stats.gumbel_r.rvs(loc=4.0, scale=0.8, size=999, random_state=14)
    scale = np.std(maxima) * math.sqrt(6) / math.pi
    x = np.array([0.0, 3.0, 5.0, 9.0, 40.0])
    expected = stats.gumbel_r.sf(x, loc=maxima.mean() - np.euler_gamma * scale, scale=scale)
    np.testing.assert_allclose(gumbel_p(x, maxima), expected, rtol=1e-12)
    assert gumbel_p(np.array([2.0]), np.array([3.0])).tolist() == [1.0]
    assert gumbel_p(np.array([2.0, 4.0]), np.full(9, 3.0)).tolist() == [1.0, 0.1]
    assert monte_carlo_p(np.array([2.0]), np.empty(0)).tolist() == [1.0]


# --- bits, order, degenerate input ------------------------------------------------------------------------------


@pytest.mark.parametrize("scan", SCANS)
def test_a_series_has_the_same_bits_in_any_batch(scan, monkeypatch):
    monkeypatch.setattr("detectors.scan_run.BATCH", 1 << 11)  # so that batches are cut differently
    rng = np.random.default_rng(15)
    zones = nearest_zones(rng.uniform(0, 9, (11, 2)), most=6, geographic=False)
    mean = rng.uniform(0.0, 3.0, (13, 11, 17))
    y = rng.poisson(mean * rng.choice([0.02, 1.0, 1e5], (13, 1, 1)))
    seeds_ = rng.integers(0, 2**63, 13)
    options = ScanOptions(longest=6, replicates=19)
    assert_rows_stand_alone(lambda r: SCANS[scan](y[r], mean[r], zones, seed=seeds_[r], options=options), 13)


def test_the_order_of_the_regions_touches_nothing_but_rounding():
    rng = np.random.default_rng(16)
    points, mean = rng.uniform(0, 9, (15, 2)), rng.uniform(0.5, 3.0, (4, 15, 12))
    y = rng.poisson(mean)
    order = rng.permutation(15)
    zones = nearest_zones(points, most=6, geographic=False)
    moved = nearest_zones(points[order], most=6, geographic=False)
    for scan in SCANS.values():
        one = scan(y, mean, zones, seed=1, options=QUIET)
        two = scan(y[:, order], mean[:, order], moved, seed=1, options=QUIET)
        np.testing.assert_allclose(one.llr, two.llr, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(one.duration, two.duration)
        for i in range(4):
            for place in range(3):
                there = order[moved.members(two.zone[i, place])]
                assert set(there.tolist()) == set(zones.members(one.zone[i, place]).tolist())


def test_a_seed_gives_the_same_replicates_again_and_another_gives_others():
    rng = np.random.default_rng(17)
    y = rng.poisson(3.0, (1, 4, 20))
    options = ScanOptions(replicates=199)
    one, two, three = (permutation_scan(y, LINE, seed=seed, options=options) for seed in (1, 1, 2))
    assert_same_bits(one, two)
    assert one.p_gumbel[0, 0] != three.p_gumbel[0, 0]
    assert one.llr.tobytes() == three.llr.tobytes()


@pytest.mark.parametrize("scan", SCANS)
def test_degenerate_series_give_defined_evidence(scan):
    y = np.zeros((7, 4, 10))
    y[1, 2, 9] = 1  # one event ever
    y[2, 2, 9] = 2
    y[3] = 10**9
    y[4] = 10**9
    y[4, 1, 8:] *= 2
    y[5, 3, 2] = 5  # all of them long ago
    y[6, :, :] = np.arange(10)
    mean = np.full((7, 4, 10), 1.5)
    mean[3:5] = 10**9
    found = SCANS[scan](y, mean, LINE, seed=1, options=ScanOptions(longest=3, replicates=19))
    assert found.defined.tolist() == [False] + [True] * 6
    for name in ("observed", "llr", "p_value", "p_gumbel", "recurrence"):
        assert np.all(np.isfinite(getattr(found, name))), name
    assert np.all((found.p_value > 0) & (found.p_value <= 1))
    assert np.all((found.p_gumbel >= 0) & (found.p_gumbel <= 1))
    none = found.zone < 0
    assert none[[0, 1, 3, 5]].all()
    assert np.all(np.isnan(found.expected[none]) & (found.p_value[none] == 1) & (found.duration[none] == 0))
    assert LINE.members(found.zone[4, 0]).tolist() == [1]
    assert (found.start[4, 0], found.duration[4, 0], found.p_value[4, 0]) == (8, 2, 0.05)
    assert not found.replicates[none[:, 0]].any()


def test_cases_where_none_are_expected_are_strong_evidence_not_an_infinity():
    y = np.zeros((1, 4, 5))
    y[0, 1, 4], y[0, 3, 1] = 3, 2
    mean = np.where(np.arange(4)[:, None] == 1, 0.0, np.ones((4, 5)))[None]
    for scan in (expectation_scan, conditional_scan):
        found = scan(y, mean, LINE, seed=1, options=ScanOptions(longest=2, replicates=19))
        assert LINE.members(found.zone[0, 0]).tolist() == [1]
        assert np.isfinite(found.llr[0, 0])
        assert found.llr[0, 0] > 100
        assert found.p_value[0, 0] == 0.05
        assert np.isinf(found.relative_risk[0, 0])
    nowhere = conditional_scan(y, np.zeros_like(mean), LINE, seed=1)
    assert not nowhere.defined[0]
    assert nowhere.zone[0, 0] == -1


def test_shapes_without_anything_in_them_are_fine():
    single = connected_zones(1, [], most=1)
    assert permutation_scan(np.full((2, 1, 5), 4), single, seed=1).zone.tolist() == [[-1] * 3] * 2
    assert expectation_scan(np.full((1, 1, 5), 4), np.ones((1, 1, 5)), single, seed=1).p_value[0, 0] == 0.01
    assert permutation_scan(np.zeros((0, 1, 5)), single, seed=1).zone.shape == (0, 3)
    assert not permutation_scan(np.zeros((2, 1, 0)), single, seed=1).defined.any()
    assert permutation_scan(np.full((1, 1, 1), 4), single, seed=1).zone[0, 0] == -1
    alone = connected_zones(3, [[0, 1]], most=3)  # region 2 has no neighbours
    y = np.ones((1, 3, 8))
    y[0, 2, 7] = 9
    assert alone.members(permutation_scan(y, alone, seed=1).zone[0, 0]).tolist() == [2]


def test_a_series_without_an_excess_costs_no_replicates():
    found = permutation_scan(np.ones((1, 4, 6)), LINE, seed=1, options=ScanOptions(replicates=10**9, tick=7.0))
    assert (found.replicates[0], found.p_value[0, 0], found.recurrence[0, 0]) == (0, 1.0, 7.0)


GOOD: dict = {"counts": np.ones((2, 4, 6)), "expected": np.ones((2, 4, 6)), "seed": 1, "strata": None}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("counts", np.full((2, 4, 6), np.nan)),
        ("counts", np.full((2, 4, 6), -1)),
        ("counts", np.full((2, 4, 6), 0.5)),
        ("counts", np.full((2, 4, 6), 2.0**52)),
        ("counts", np.ones((2, 3, 6))),
        ("counts", np.ones((4, 6))),
        ("expected", np.full((2, 4, 6), np.nan)),
        ("expected", np.full((2, 4, 6), np.inf)),
        ("expected", np.ones((2, 4, 5))),
        ("expected", np.full((2, 4, 6), 2.0**52)),
        ("seed", -1),
        ("seed", 0.5),
        ("seed", [1, 2, 3]),
        ("strata", [0, 1]),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_by_name(argument, value):
    arguments = GOOD | {argument: value}
    without = "expected" if argument == "strata" else "strata"
    arguments.pop(without)
    scan = permutation_scan if argument == "strata" else expectation_scan
    with pytest.raises(DetectorError, match=argument):
        scan(zones=LINE, **arguments)


@pytest.mark.parametrize(
    ("option", "value"),
    [("longest", 0), ("least_cases", 0), ("clusters", 0), ("replicates", -1), ("stop_after", 0), ("tick", 0.0)],
)
def test_options_out_of_range_are_refused_by_name(option, value):
    with pytest.raises(DetectorError, match=option):
        ScanOptions(**{option: value})


@pytest.mark.parametrize("module", ["scan", "scan_significance", "scan_zones"])
def test_the_examples_in_the_docstrings_say_what_happens(module):
    failed, tried = doctest.testmod(importlib.import_module(f"detectors.{module}"))
    assert tried > 0
    assert failed == 0


def test_zones_are_shared_and_frozen():
    assert isinstance(LINE, Zones)
    with pytest.raises(AttributeError):
        LINE.n_regions = 5
