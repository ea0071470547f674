"""Four public data sets under one neutral configuration: incidents found, quiet ones quiet, inspectors told from food.

The truth is computed here from the raw files in plain Python, and compared with ``known_incidents.csv``. FDA's adverse
events have a module of their own, :mod:`test_known_incidents`.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache
from typing import Any

import pyarrow.parquet as pq
import pytest
from benchmarks.real_data import CHECKS, DATA, NEUTRAL, SETS, Check, Outcome, inspectors, run
from scipy import stats

from schemas.alerts import Alert, Evidence

MINE = ("rasff", "neiss", "chicago")
NEEDED = (*(SETS[name][0] for name in MINE), "known_incidents.csv")
ABSENT = [name for name in NEEDED if not (DATA / name).exists()]
pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(bool(ABSENT), reason=f"absent from ../shared/data: {', '.join(ABSENT)}"),
]
CHECK = {check.key: check for check in CHECKS}
BUDGET_A_YEAR = 12.0 * NEUTRAL.multiplicity.false_alarms_per_month
WEEK = timedelta(days=7)


@cache
def outcome(name: str) -> Outcome:
    return run(name)


@cache
def rows(name: str) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = pq.read_table(DATA / SETS[name][0]).to_pylist()
    for row in table:
        row["day"] = row["date"].date()
    return table


# --- incidents -----------------------------------------------------------------------------------------------------

MATCHES: dict[str, tuple[str, Callable[[dict[str, Any]], bool]]] = {
    "sesame": ("rasff", lambda row: "ethylene oxide" in (row["hazard"] or "") and "sesame" in (row["product"] or "")),
    "india-nuts": (
        "rasff",
        lambda row: row["origin_first"] == "india" and row["category"] == "nuts, nut products and seeds",
    ),
    "fireworks": ("neiss", lambda row: 1313 in (row["product1"], row["product2"])),
}


def first_crossing(key: str) -> date:
    """The first week, from the day on which the incident became public, whose count exceeds mean + 3 sd of the 52 weeks
    before (as many as there are; a limit of 3 at least)."""
    name, matches = MATCHES[key]
    monday = [row["day"] - timedelta(days=row["day"].weekday()) for row in rows(name)]
    counts = Counter(week for week, row in zip(monday, rows(name), strict=True) if matches(row))
    public = date.fromisoformat(CHECK[key].facts["public_date"])
    public -= timedelta(days=public.weekday())
    before = [counts[public - n * WEEK] for n in range(1, 53) if public - n * WEEK >= min(monday)]
    limit = max(statistics.mean(before) + 3.0 * statistics.stdev(before), 3.0)
    return next(week for week in sorted(set(monday)) if week >= public and counts[week] > limit)


@pytest.mark.parametrize("key", ["sesame", "india-nuts"])
def test_an_incident_of_2020_is_alerted_within_two_weeks_of_the_simple_thresholds_crossing(key: str) -> None:
    crossing = first_crossing(key)
    assert crossing.isoformat() == CHECK[key].facts["first_week_crossing"]
    assert CHECK[key].alerts(outcome("rasff"), crossing, crossing + 2 * WEEK)


def test_fireworks_are_alerted_in_the_week_of_4_july() -> None:
    crossing = first_crossing("fireworks")
    assert crossing <= date(2014, 7, 4) < crossing + WEEK
    assert CHECK["fireworks"].alerts(outcome("neiss"), crossing, crossing + WEEK)


@pytest.mark.parametrize("key", ["kinder", "poland-poultry"])
def test_what_is_no_surge_stays_quiet(key: str) -> None:
    check: Check = CHECK[key]
    assert check.facts["visible"] == "no"
    public = date.fromisoformat(check.facts["public_date"])
    assert not check.alerts(outcome("rasff"), public - 4 * WEEK, public + 12 * WEEK)


@pytest.mark.parametrize("name", ["rasff", "neiss"])
def test_all_surges_true_ones_included_are_fewer_than_the_false_alarms_that_the_budget_allows(name: str) -> None:
    found = outcome(name)
    assert found.refused == 0
    assert 0 < len(found.opened("injury-surge", "complaint-surge")) / found.years < BUDGET_A_YEAR


# --- silent sources ------------------------------------------------------------------------------------------------

REPORTER: dict[str, Callable[[dict[str, Any]], str]] = {
    "rasff": lambda row: f"RASFF {row['notifying']}",
    "neiss": lambda row: f"NEISS-{row['psu']}",
    "chicago": lambda row: row["sanitarian"] or "unknown",
}


@pytest.mark.parametrize("name", MINE)
def test_a_source_that_is_called_silent_reports_less_than_a_quarter_of_what_it_used_to(name: str) -> None:
    days = defaultdict(list)
    for row in rows(name):
        days[REPORTER[name](row)].append(row["day"])
    alerts = outcome(name).opened("silent-source")
    assert alerts
    for alert in alerts:
        end = alert.as_of.date() - timedelta(days=1)
        window = alert.evidence[0].window_days
        recent = sum(end - timedelta(days=window) < day <= end for day in days[alert.source])
        past = [day for day in days[alert.source] if end - timedelta(days=182) <= day <= end - timedelta(days=window)]
        usual = len(past) / ((end - timedelta(days=window) - min(past)).days + 1) * window
        assert recent < 0.25 * usual, (alert.source, alert.as_of)


def test_the_united_kingdom_is_missed_when_it_leaves_the_eu() -> None:
    alerts = [a for a in outcome("rasff").opened("silent-source") if a.source == "RASFF united kingdom"]
    assert [a.as_of.date() - date(2021, 1, 1) < timedelta(days=21) for a in alerts] == [True]


# --- Chicago's inspectors ------------------------------------------------------------------------------------------

LAX = {"pass_rate": {"alpha": 1e-3}, "multiplicity": {"false_alarms_per_month": 1e9}}
"""So lax that chance and inspectors alone open alerts: the defaults open none, and would show nothing."""
NO_SOURCES = {"sources": {"min_history_days": 3_650}}
UNTIL = date(2013, 7, 1)
"""Long enough to show it, and no longer than a test may take; ``tests.benchmarks.real_data`` has the whole."""


@cache
def lax(adjust: bool) -> list[Alert]:
    config = NEUTRAL.replace(labs={"adjust": adjust}, **LAX, **NO_SOURCES)
    return run("chicago", config, before=UNTIL).opened("pass-rate")


@cache
def severity() -> dict[str | None, float]:
    """Failures of each inspector group over those expected of all groups at the same types of facility."""
    total: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows("chicago"):
        total[row["facility_type"]][0] += 1
        total[row["facility_type"]][1] += row["result"] == "Fail"
    failed: dict[str | None, float] = defaultdict(float)
    expected: dict[str | None, float] = defaultdict(float)
    for row in rows("chicago"):
        failed[row["sanitarian"]] += row["result"] == "Fail"
        expected[row["sanitarian"]] += total[row["facility_type"]][1] / total[row["facility_type"]][0]
    return {group: failed[group] / expected[group] for group in failed}


def net_tail(alert: Alert, evidence: Evidence) -> float:
    """Binomial tail of the window's failures at the reference's rate times what the mix of inspectors explains."""
    day, window = alert.as_of.date(), evidence.window_days

    def inspected(own: bool, first: date, last: date) -> list[dict[str, Any]]:
        return [
            row
            for row in rows("chicago")
            if row["facility_type"] == alert.product
            and (alert.region in ("*", str(row["ward"] if row["ward"] is not None else "unknown"))) is own
            and first <= row["day"] <= last
        ]

    def mix(some: list[dict[str, Any]]) -> float:
        return statistics.fmean(severity()[row["sanitarian"]] for row in some)

    mine = inspected(True, day - timedelta(days=window - 1), day)
    if evidence.against == "peers":
        other = inspected(False, day - timedelta(days=max(window, 90) - 1), day)
    else:
        other = inspected(True, day - timedelta(days=window + 364), day - timedelta(days=window))
    failed = sum(row["result"] == "Fail" for row in mine)
    rate = (sum(row["result"] == "Fail" for row in other) + 0.5) / (len(other) + 1.0)
    return float(stats.binom.sf(failed - 1, len(mine), min(rate * max(mix(mine) / mix(other), 1.0), 1.0)))


def vanishes(alert: Alert) -> bool:
    """Whether none of its evidence is left once the inspectors are taken out, even by the narrow binomial law."""
    return all(net_tail(alert, evidence) > LAX["pass_rate"]["alpha"] for evidence in alert.evidence)


def test_five_of_six_inspector_groups_stand_outside_the_funnel_in_the_order_of_their_own_ratios() -> None:
    labs = {lab.name: lab for lab in inspectors()}
    outside = {name: lab.ratio for name, lab in labs.items() if lab.p_value < 1e-6}
    assert {name for name, ratio in outside.items() if ratio > 1.3} == {"purple", "blue", "orange"}
    assert {name for name, ratio in outside.items() if ratio < 0.6} == {"brown", "yellow"}
    plainly = severity()
    assert sorted(labs, key=lambda name: labs[name].ratio) == sorted(labs, key=lambda name: plainly[name])


def test_the_defaults_take_no_inspector_for_a_product_risk() -> None:
    assert not outcome("chicago").opened("pass-rate")
    assert outcome("chicago").cells["pass"] > 900


def test_at_a_lax_level_inspectors_alone_would_open_alerts_and_adjusted_cells_do_not() -> None:
    """In the first half-year little is known of the inspectors, and one such alert is left; later there is none."""
    known_from = date(2012, 3, 1)
    raw = [alert for alert in lax(False) if vanishes(alert)]
    assert len(raw) >= 5
    adjusted = [alert for alert in lax(True) if vanishes(alert)]
    assert len(adjusted) <= 1
    assert not [alert for alert in adjusted if alert.as_of.date() >= known_from]


def test_adjusting_for_inspectors_leaves_the_alerts_that_they_do_not_explain() -> None:
    """Where both runs judge the same cell at the same level, most of what they do not explain is alerted in both."""
    kept = {(alert.product, alert.region) for alert in lax(True)}
    unexplained = [alert for alert in lax(False) if not vanishes(alert)]
    assert unexplained
    still = [alert for alert in unexplained if (alert.product, alert.region) in kept]
    assert len(still) >= 0.8 * len(unexplained)
