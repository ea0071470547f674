"""SaTScan's own samples: New Mexico lung cancer and New York fever, against its own output of four runs."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from detectors.scan import ScanOptions, conditional_scan, permutation_scan
from detectors.scan_pass import log_likelihood_ratio
from detectors.scan_significance import gumbel_p, monte_carlo_p, recurrence_interval
from detectors.scan_zones import nearest_zones

SATSCAN = Path(__file__).resolve().parents[3] / "shared" / "reference" / "satscan"
RUNS = ["nm_prosp_st_poisson", "nm_retro_st_poisson", "nm_spatial_poisson", "nyc_stp"]

samples = pytest.mark.skipif(not SATSCAN.exists(), reason="../shared/reference/satscan is absent")


def clusters(table, run):
    rows = table("scan_clusters")
    return rows[rows["run"] == run]


def simulated(table, run):
    maxima = table("scan_simulated")[run]
    return maxima[~np.isnan(maxima)]


def days(text):
    return date(*map(int, text.split("/"))).toordinal()


# --- no input data needed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_ratio_and_relative_risk_follow_from_the_printed_counts(run, table):
    total = 194.0 if run == "nyc_stp" else 1175.0
    for row in clusters(table, run):
        near = np.array([row["expected"] - 0.005, row["expected"] + 0.005])  # printed to two digits
        high, low = log_likelihood_ratio(np.full(2, float(row["observed"])), near, total)
        assert low < row["llr"] < high


def test_gumbel_and_monte_carlo_p_values_are_those_printed(table):
    for run in RUNS[:3]:
        rows, maxima = clusters(table, run), simulated(table, run)
        assert maxima.size == 999
        counted, gumbel = monte_carlo_p(rows["llr"], maxima), gumbel_p(rows["llr"], maxima)
        # SaTScan prints the Gumbel tail where fewer than ten reached the cluster, itself counted
        printed = np.where(counted * 1000 > 9.5, counted, gumbel)
        np.testing.assert_allclose(printed, rows["p_value"], atol=5e-4, rtol=5e-4)
    top = clusters(table, RUNS[0])["llr"][:1]
    maxima = simulated(table, RUNS[0])
    assert gumbel_p(top, maxima)[0] == pytest.approx(0.00971, abs=5e-6)
    years = recurrence_interval(monte_carlo_p(top, maxima), gumbel_p(top, maxima), 999, tick=1.0)
    assert years[0] == pytest.approx(103.0, abs=0.05)


def test_p_values_of_a_run_that_was_ended_early_are_those_printed(table):
    rows, maxima = clusters(table, "nyc_stp"), simulated(table, "nyc_stp")
    assert maxima.size == 207
    found = monte_carlo_p(rows["llr"], maxima, stopped=True)
    np.testing.assert_allclose(found[1:], rows["p_value"][1:], atol=5e-4)
    # Two replicates equal the first cluster to all six digits; SaTScan counted them as under it.
    assert found[0] - 2 / 207 == pytest.approx(rows["p_value"][0], abs=5e-4)


# --- from its input -----------------------------------------------------------------------------------------------


def read(name):
    return [line.split() for line in (SATSCAN / name).read_text("utf-8").splitlines() if line.strip()]


def new_mexico():
    """Cases and expected cases by county and year, standardised by age and sex, and the circles.

    The population of a stratum is counted on the first of July of 1973, 1982 and 1991, and taken as linear between,
    as constant before and after; expected cases are person-days times the stratum's rate in the whole state.
    """
    names = [row[0] for row in read("nm.geo")]
    place = {name: i for i, name in enumerate(names)}
    ends = np.array([date(year, 1, 1).toordinal() for year in range(1973, 1993)], dtype=float)
    cases, by_stratum = np.zeros((32, 19)), {}
    for county, number, year, *stratum in read("nm.cas"):
        cases[place[county], int(year) - 1973] += int(number)
        by_stratum[tuple(stratum)] = by_stratum.get(tuple(stratum), 0) + int(number)
    counted = {}
    for county, year, people, *stratum in read("nm.pop"):
        counted.setdefault((county, tuple(stratum)), []).append((date(1900 + int(year), 7, 1).toordinal(), int(people)))
    person_days = {}
    for key, points in counted.items():
        when, people = np.array(sorted(points), dtype=float).T
        knots = np.union1d(ends, when)
        height = np.interp(knots, when, people)
        area = np.concatenate([[0.0], np.cumsum(np.diff(knots) * (height[1:] + height[:-1]) / 2)])
        person_days[key] = np.diff(np.interp(ends, knots, area))
    at_risk = {}
    for (_, stratum), area in person_days.items():
        at_risk[stratum] = at_risk.get(stratum, 0.0) + area.sum()
    expected = np.zeros((32, 19))
    for (county, stratum), area in person_days.items():
        expected[place[county]] += area * by_stratum.get(stratum, 0) / at_risk[stratum]
    where = [[float(row[1]), float(row[2])] for row in read("nm.geo")]
    zones = nearest_zones(where, most=32, weights=expected.sum(axis=1), share=0.5)
    return names, zones, cases, expected


def scan(run, **options):
    """The named run by our own scan: names of regions, zones, evidence, and each column's first and last day."""
    if run == "nyc_stp":
        names = [row[0] for row in read("NYCfever.geo")]
        cases = np.zeros((len(names), 24))
        for code, number, day in read("NYCfever.cas"):
            cases[names.index(code), int(day.split("/")[2]) - 1] += int(number)
        where = [[float(row[1]), float(row[2])] for row in read("NYCfever.geo")]
        zones = nearest_zones(where, most=len(names), weights=cases.sum(axis=1), share=0.5, radius=3.0)
        found = permutation_scan(cases[None], zones, seed=1, options=ScanOptions(longest=7, **options))
        columns = [(f"2001/11/{day}", f"2001/11/{day}") for day in range(1, 25)]
        return names, zones, found, columns
    names, zones, cases, expected = new_mexico()
    columns = [(f"{year}/1/1", f"{year}/12/31") for year in range(1973, 1992)]
    if run == "nm_spatial_poisson":
        cases, expected = cases.sum(axis=1, keepdims=True), expected.sum(axis=1, keepdims=True)
        columns = [("1973/1/1", "1991/12/31")]
    retrospective = run == "nm_retro_st_poisson"
    chosen = ScanOptions(longest=9, retrospective=retrospective, **options)
    return names, zones, conditional_scan(cases[None], expected[None], zones, seed=1, options=chosen), columns


@samples
@pytest.mark.shared_data
@pytest.mark.parametrize("run", RUNS)
def test_every_cluster_that_satscan_found_is_found(run, table):
    names, zones, found, columns = scan(run, replicates=0)
    members = {}
    for row in read(f"{run}.gis.txt"):
        members.setdefault(int(row[1]), set()).add(row[0])
    for place, row in enumerate(clusters(table, run)):
        assert found.llr[0, place] == pytest.approx(row["llr"], abs=1e-6)
        assert {names[i] for i in zones.members(found.zone[0, place])} == members[row["cluster"]]
        first = found.start[0, place]
        assert columns[first][0] == row["start"]
        assert columns[first + found.duration[0, place] - 1][1] == row["end"]
        assert found.observed[0, place] == row["observed"]
        assert found.expected[0, place] == pytest.approx(row["expected"], abs=0.00501)
        assert found.relative_risk[0, place] == pytest.approx(row["relative_risk"], abs=0.00501)


@samples
@pytest.mark.shared_data
@pytest.mark.parametrize("run", RUNS)
def test_its_p_values_are_ours_within_monte_carlo_error(run, table):
    _, _, found, _ = scan(run, replicates=1999)
    assert found.replicates[0] == 1999
    for place, row in enumerate(clusters(table, run)):
        p = found.p_value[0, place]
        draws = simulated(table, run).size
        assert abs(p - row["p_value"]) < 3 * np.sqrt(p * (1 - p) * (1 / draws + 1 / 1999)) + 1e-3
        # The law of the maxima is not exactly Gumbel's; its tail is what matters.
        assert found.p_gumbel[0, place] == pytest.approx(p, rel=0.25, abs=0.03)


@samples
@pytest.mark.shared_data
@pytest.mark.parametrize("run", RUNS)
def test_its_replicates_have_the_law_of_ours(run, table, monkeypatch):
    seen = []
    monkeypatch.setattr("detectors.scan_run.gumbel_p", lambda llr, maxima: seen.append(maxima) or np.ones_like(llr))
    scan(run, replicates=1999)
    theirs, ours = simulated(table, run).round(5), seen[0].round(5)  # their ties are ties to six digits
    assert stats.ks_2samp(theirs, ours).pvalue > 0.01
