"""Levels of statistical alerts, deadlines as actions, and the severity rules within the configuration."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from schemas.alerts import AlertKind, Evidence
from schemas.errors import ConfigError
from schemas.events import Accident, Inspection
from schemas.severity import Severity
from streams.config import Config, GradeRules
from streams.finding import Finding
from streams.grades import statistical_level
from streams.grave import ladder_evidence, severity_of
from streams.wording import actions

RULES = Severity.builtin()
TEXT = (resources.files("schemas") / "severity" / "default.toml").read_text(encoding="utf-8")
STRONG, WEAK = 1e-20, 1e-7
CRITICAL, MAJOR, MINOR = (0, 0, 0, 1, 0), (0, 0, 1, 0, 0), (0, 1, 0, 0, 0)
FATAL, ADMITTED, TREATED, FIRST_AID = (0, 0, 0, 0, 1), CRITICAL, MAJOR, MINOR


def rate(lower: float, *, p: float = STRONG, excess: float = 500.0, **fields: Any) -> Finding:
    """A pass-rate finding whose failure rate is at least ``lower``."""
    own: dict[str, Any] = {"detector": "d", "against": "target", "window_days": 30, "observed": 600.0, "tested": 1_000}
    return Finding(0, p, {0: excess}, [Evidence(**{**own, "upper": 1.0 - lower, **fields})], 30)


def count(observed: float, expected: float, p: float = STRONG) -> Finding:
    """A surge."""
    entry = Evidence(detector="d", against="baseline", window_days=7, observed=observed, expected=expected)
    return Finding(0, p, {0: observed - expected}, [entry], 7)


def level(
    kind: AlertKind, finding: Finding, severities: tuple[int, ...], *, key: bool = False, industry: bool = False
) -> int:
    return statistical_level(kind, finding, severities, RULES, key=key, industry=industry)


# --- the matrix ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lower", "severities", "expected"),
    [
        # Chance that an item hurts: failure rate x share x harm of a failure; its row and column of the matrix.
        (0.50, CRITICAL, 2),  # 0.05 at 3: S
        (0.011, CRITICAL, 2),  # 0.0011 at 3: S
        (0.009, CRITICAL, 3),  # 0.0009 at 3: H
        (0.0009, CRITICAL, 4),  # 0.00009 at 3: M
        (0.50, MAJOR, 3),  # 0.005 at 2: H
        (0.11, MAJOR, 3),  # 0.0011 at 2: H
        (0.09, MAJOR, 4),  # 0.0009 at 2: M
        (0.90, MINOR, 4),  # 0.0009 at 1: L
        (0.50, (0, 90, 0, 10, 0), 2),  # a tenth critical: 0.005 at 3, S
        (0.15, (0, 95, 0, 5, 0), 3),  # one in twenty: 0.00075 at 3, H
        (0.15, (0, 995, 0, 5, 0), 4),  # one in two hundred: 0.000075 at 3, M
    ],
)
def test_failing_items_are_graded_by_the_lower_bound_of_their_share_and_what_they_threaten(
    lower: float, severities: tuple[int, ...], expected: int
) -> None:
    assert level("pass-rate", rate(lower), severities) == expected


@pytest.mark.parametrize(
    ("observed", "expected_count", "severities", "expected"),
    [
        (200, 10.0, TREATED, 2),  # at least 163 of 10 000: 0.016 at 2, S
        (101, 0.5, TREATED, 3),  # 0.008 at 2: H
        (16, 1.7, TREATED, 4),  # 0.00074 at 2: M
        (16, 1.7, ADMITTED, 3),  # at 3: H
        (16, 1.7, FATAL, 2),  # at 4: S
        (16, 1.7, FIRST_AID, 4),
        (16, 1.7, (0, 0, 7, 0, 1), 3),  # an eighth fatal: 0.000093 at 4, H
        (16, 9.5, FATAL, 4),  # the excess may be none at all: its lower bound is under nought
    ],
)
def test_injuries_are_graded_by_the_lower_bound_of_their_excess_and_how_bad_they_are(
    observed: float, expected_count: float, severities: tuple[int, ...], expected: int
) -> None:
    assert level("injury-surge", count(observed, expected_count), severities) == expected


def test_the_bounds_are_the_exact_ones_of_scipy() -> None:
    """Where the level steps from M to H, the bound crosses the matrix's row: found by search, against scipy.stats."""
    steps = [level("injury-surge", count(float(n), 0.5), TREATED) for n in range(5, 200)]
    first = 5 + steps.index(3)
    bounds = [stats.chi2.ppf(0.025, 2 * n) / 2 - 0.5 for n in (first - 1, first)]  # Garwood's, by chi-squared
    assert bounds[0] <= 1e-3 * RULES.statistics.exposed < bounds[1]

    failed = np.arange(50, 300)
    chart = [level("pass-rate", rate(0.0, upper=None, observed=float(x), tested=1_000), MAJOR) for x in failed.tolist()]
    at = chart.index(3)
    low = stats.beta.ppf(0.025, failed + 0.5, 1_000 - failed + 0.5)
    assert low[at - 1] * 0.01 <= 1e-3 < low[at] * 0.01


def test_complaints_threaten_what_they_tell_and_injuries_have_happened() -> None:
    many = count(400.0, 5.0)
    assert level("injury-surge", many, TREATED) == 2
    assert level("complaint-surge", many, MAJOR) == 4
    assert level("complaint-surge", many, CRITICAL) == 2


def test_what_tells_no_severity_is_taken_for_what_the_rules_say() -> None:
    assert level("pass-rate", rate(0.5), (7, 0, 0, 0, 0)) == level("pass-rate", rate(0.5), (0,) * 5) == 3
    stern = Severity.parse(TEXT.replace("unknown = 2", "unknown = 3").encode(), "stern.toml")
    assert statistical_level("pass-rate", rate(0.5), (7, 0, 0, 0, 0), stern, key=False, industry=False) == 2


def test_the_worst_of_several_windows_counts() -> None:
    both = rate(0.09)
    both.evidence += rate(0.2).evidence
    assert level("pass-rate", both, MAJOR) == 3


def test_an_e_value_beside_the_finding_says_nothing_of_the_chance() -> None:
    finding = rate(0.09)
    finding.evidence += rate(0.9, upper=None, observed=3.0, tested=3, e_value=1e9).evidence
    assert level("pass-rate", finding, MAJOR) == 4


# --- strength, key supervision, breadth ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "excess", "expected"), [(1e-20, 100.0, 2), (1e-8, 100.0, 3), (1e-20, 5.0, 3), (1e-8, 5.0, 3)]
)
def test_only_a_small_p_value_and_many_cases_together_reach_level_ii(p: float, excess: float, expected: int) -> None:
    assert level("pass-rate", rate(0.5, p=p, excess=excess), CRITICAL) == expected
    assert level("pass-rate", rate(0.5, p=p, excess=excess), CRITICAL, key=True, industry=True) == expected


@pytest.mark.parametrize("kind", ["satisfaction", "quality-loss"])
def test_what_hurts_nobody_begins_at_the_plain_level_and_is_raised_by_supervision_and_breadth(kind: AlertKind) -> None:
    finding = rate(0.9)
    assert level(kind, finding, CRITICAL) == 4
    assert level(kind, finding, CRITICAL, key=True) == 3
    assert level(kind, finding, CRITICAL, industry=True) == 3
    assert level(kind, finding, CRITICAL, key=True, industry=True) == 2


findings = st.builds(
    lambda kind, observed, share, tested, p: (
        kind,
        rate(0.0, p=p, upper=None, observed=float(observed), tested=observed * tested, excess=observed * share)
        if kind == "pass-rate"
        else count(float(observed), observed * share, p),
    ),
    st.sampled_from(["pass-rate", "injury-surge", "complaint-surge", "satisfaction", "quality-loss"]),
    st.integers(1, 10**9),
    st.floats(0.0, 1.0),
    st.integers(1, 1_000),
    st.floats(0.0, 1.0),
)


@given(findings, st.tuples(*[st.integers(0, 10**9)] * 5), st.booleans(), st.booleans())
def test_every_level_is_ii_to_iv_and_nothing_graver_makes_it_milder(
    case: tuple[AlertKind, Finding], severities: tuple[int, ...], key: bool, industry: bool
) -> None:
    kind, finding = case
    found = level(kind, finding, severities, key=key, industry=industry)
    assert found in (2, 3, 4)
    if finding.p_value > RULES.statistics.strong_p:
        assert found >= 3
    assert level(kind, replace(finding, p_value=0.0), severities, key=key, industry=industry) <= found
    assert level(kind, finding, severities, key=True, industry=True) <= found
    unknown, first_aid, *worse = severities
    graver = (unknown, 0, *worse[:-1], worse[-1] + first_aid)
    assert level(kind, finding, graver, key=key, industry=industry) <= found or sum(severities) == 0


def test_the_assumptions_are_configuration() -> None:
    finding = count(16.0, 1.7)
    few = Severity.parse(TEXT.replace("exposed = 10_000", "exposed = 500").encode(), "few.toml")
    assert level("injury-surge", finding, TREATED) == 4
    assert statistical_level("injury-surge", finding, TREATED, few, key=False, industry=False) == 2
    calm = Severity.parse(TEXT.replace("gravest = 2", "gravest = 3").encode(), "calm.toml")
    assert statistical_level("pass-rate", rate(0.5), CRITICAL, calm, key=True, industry=True) == 3


# --- single grave events -------------------------------------------------------------------------------------------


def accident(**fields: Any) -> Accident:
    own = {"event_id": "a", "source": "s", "reported_at": "2024-01-01T00:00:00Z", "product": "E0101"}
    return msgspec.convert({**own, "region": "120101", "authority": "x", **fields}, Accident)


def test_evidence_stands_against_the_rung_that_was_reached_and_against_none_below_the_ladder() -> None:
    def shown(event: Accident) -> list[tuple[str, float, float | None]]:
        return [(e.detector.partition(":")[2], e.observed, e.threshold) for e in ladder_evidence(event, RULES)]

    assert shown(accident(deaths=12, loss_cny=2e6)) == [("deaths", 12.0, 10.0), ("loss-cny", 2e6, 5e7)]
    assert shown(accident(seriously_injured=10)) == [("seriously-injured", 10.0, 10.0)]
    assert shown(accident(deaths=1)) == [("deaths", 1.0, None)]


@pytest.mark.parametrize(("word", "number"), [("critical", 3), ("major", 2), ("minor", 1), (None, 0)])
def test_a_failing_result_threatens_what_the_rules_make_of_its_word(word: str | None, number: int) -> None:
    fields = {"event_id": "a", "source": "s", "reported_at": "2024-01-01T00:00:00Z", "product": "E0101", "lab": "l"}
    event = msgspec.convert({**fields, "region": "120101", "verdict": "fail", "severity": word}, Inspection)
    assert severity_of(event, RULES) == number
    stern = Severity.parse(TEXT.replace("major = 2", "major = 3").encode(), "stern.toml")
    assert severity_of(event, stern) == {2: 3}.get(number, number)


# --- deadlines as actions ------------------------------------------------------------------------------------------


def told(kind: AlertKind, at: int, severity: int = 0) -> list[tuple[str, float | None]]:
    return [(one.text.en, one.deadline_hours) for one in actions(kind, at, GradeRules(), severity)]


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_grave_event_brings_every_duty_with_its_hours(at: int) -> None:
    first, *_, province, final = told("grave-event", at)
    assert first == ("report at once, rescue and contain the hazard", 1.0)
    assert province == ("report to the province within 2 hours", 2.0)
    assert final == ("final report within 10 days", 240.0)
    assert told("grave-event", at, 4)[-1] == (
        "producers report a death or a serious injury within 2 working days",
        48.0,
    )


@pytest.mark.parametrize("kind", ["injury-surge", "new-hazard"])
def test_producers_are_told_to_report_from_serious_injuries_on(kind: AlertKind) -> None:
    duty = ("producers report a death or a serious injury within 2 working days", 48.0)
    assert [duty in told(kind, 3, severity) for severity in (0, 1, 2, 3, 4)] == [False, False, False, True, True]
    assert duty not in told("pass-rate", 3, 4)


@pytest.mark.parametrize("kind", sorted(set(get_args(AlertKind)) - {"grave-event"}))
def test_every_kind_of_alert_is_first_reported_the_sooner_the_graver(kind: AlertKind) -> None:
    assert [told(kind, at)[0][1] for at in (1, 2, 3, 4)] == [1.0, 2.0, 24.0, 72.0]


# --- the rules within the configuration ----------------------------------------------------------------------------


def named(path: Path) -> Config:
    return Config().replace(grades={"severity": str(path)})


def test_the_digest_is_of_what_the_rules_say_and_not_of_their_name(tmp_path: Path) -> None:
    same, other = tmp_path / "same.toml", tmp_path / "other.toml"
    same.write_text("# a copy\n" + TEXT, encoding="utf-8")
    other.write_text(TEXT.replace("hours = 24.0", "hours = 12.0"), encoding="utf-8")
    assert named(same).digest == Config().digest
    assert named(other).digest != Config().digest
    assert actions("pass-rate", 3, named(other).grades)[0].deadline_hours == 12.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("moon", r"grades.severity: no built-in severity rules 'moon'; there is default"),
        ("none.toml", r"grades.severity: none.toml: cannot be read"),
    ],
)
def test_rules_that_are_not_there_are_named(name: str, said: str) -> None:
    config = Config().replace(grades={"severity": name})
    with pytest.raises(ConfigError, match=said):
        config.grades.load()
    with pytest.raises(ConfigError, match=said):
        config.digest  # noqa: B018


@pytest.mark.parametrize("key", ["version", "ladder", "report_hours", "strong_p", "single_death_level"])
def test_what_now_stands_in_the_rules_is_refused_in_the_configuration(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Config.parse({"grades": {key: 1}}, "tocsin.toml")
