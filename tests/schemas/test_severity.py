"""Risk matrix, accident ladder and deadlines, against what is published; and every way a file can be wrong."""

from __future__ import annotations

import doctest
import re
from datetime import UTC, date, datetime, timedelta, timezone
from importlib import resources
from pathlib import Path

import pytest

from schemas import severity as module
from schemas.errors import ConfigError
from schemas.severity import Severity

TEXT = (resources.files("schemas") / "severity" / "default.toml").read_text(encoding="utf-8")

# Delegated Regulation (EU) 2024/3173: probability of injury over the product's life, risk at severity 1, 2, 3, 4.
PUBLISHED = {
    (0.5, 1.0): "HSSS",
    (1 / 10, 0.5): "MSSS",
    (1 / 100, 1 / 10): "MSSS",
    (1 / 1_000, 1 / 100): "LHSS",
    (1 / 10_000, 1 / 1_000): "LMHS",
    (1 / 100_000, 1 / 10_000): "LLMH",
    (1 / 1_000_000, 1 / 100_000): "LLLM",
    (0.0, 1 / 1_000_000): "LLLL",
}


@pytest.fixture(scope="module")
def rules() -> Severity:
    return Severity.builtin()


@pytest.mark.parametrize(("band", "letters"), PUBLISHED.items())
def test_every_cell_of_the_matrix_is_the_published_one(
    rules: Severity, band: tuple[float, float], letters: str
) -> None:
    low, high = band
    for probability in (low * 1.000001 + 1e-12, (low + high) / 2, high):
        assert "".join(rules.risk(probability, severity) for severity in (1, 2, 3, 4)) == letters


def test_no_chance_at_all_is_in_the_last_band(rules: Severity) -> None:
    assert [rules.risk(0.0, severity) for severity in (1, 2, 3, 4)] == ["L", "L", "L", "L"]


@pytest.mark.parametrize(("probability", "severity"), [(-0.1, 1), (1.1, 1), (float("nan"), 1), (0.5, 0), (0.5, 5)])
def test_a_risk_of_what_is_out_of_range_is_refused(rules: Severity, probability: float, severity: int) -> None:
    with pytest.raises(ValueError, match=r"probability|severity"):
        rules.risk(probability, severity)


def test_risks_map_to_grades_and_the_mapping_is_configuration(rules: Severity) -> None:
    assert [rules.level_of_risk(letter) for letter in ("S", "H", "M", "L")] == [2, 3, 4, 4]
    stern = Severity.parse(TEXT.replace("S = 2", "S = 1").encode(), "stern.toml")
    assert stern.level_of_risk("S") == 1
    assert stern.digest != rules.digest


@pytest.mark.parametrize(
    ("deaths", "injured", "loss", "level"),
    [
        (30, 0, 0, 1),
        (29, 0, 0, 2),
        (10, 0, 0, 2),
        (9, 0, 0, 3),
        (3, 0, 0, 3),
        (2, 0, 0, 4),
        (0, 100, 0, 1),
        (0, 99, 0, 2),
        (0, 50, 0, 2),
        (0, 49, 0, 3),
        (0, 10, 0, 3),
        (0, 9, 0, 4),
        (0, 0, 100e6, 1),
        (0, 0, 99_999_999.99, 2),
        (0, 0, 50e6, 2),
        (0, 0, 49_999_999.99, 3),
        (0, 0, 10e6, 3),
        (0, 0, 9_999_999.99, 4),
        (0, 0, 0, 4),
        (2, 9, 100e6, 1),
        (3, 50, 0, 2),
    ],
)
def test_the_accident_ladder_is_the_regulation_s(
    rules: Severity, deaths: int, injured: int, loss: float, level: int
) -> None:
    """Regulation 493, article 3: "or more" includes the number, and the gravest measure decides."""
    assert rules.accident_level(deaths, injured, loss) == level
    rung = rules.rung(deaths, injured, loss)
    assert (rung.level if rung else 4) == level


def test_negative_measures_are_refused_by_name(rules: Severity) -> None:
    with pytest.raises(ValueError, match="seriously_injured"):
        rules.accident_level(0, -1, 0.0)
    with pytest.raises(ValueError, match="loss_cny"):
        rules.accident_level(0, 0, float("nan"))


def test_a_grave_event_is_due_in_one_hour_two_hours_and_ten_days(rules: Severity) -> None:
    due = {one.stage: (one.hours, one.days, one.working_days) for one in rules.deadlines_for("grave-event", 1, 4)}
    assert due == {
        "first-report": (1.0, None, None),
        "province-report": (2.0, None, None),
        "final-report": (None, 10, None),
        "producer-report": (None, None, 2),
    }
    assert [one.stage for one in rules.deadlines_for("grave-event", 4)] == [
        "first-report",
        "province-report",
        "final-report",
    ]


def test_producers_report_deaths_and_serious_injuries_only(rules: Severity) -> None:
    reporters = [
        sorted(one.reporter for one in rules.deadlines_for("injury-surge", 3, severity)) for severity in (2, 3, 4)
    ]
    assert reporters == [["authority"], ["authority", "producer"], ["authority", "producer"]]


def test_statistical_alerts_are_reported_the_sooner_the_graver(rules: Severity) -> None:
    hours = [rules.hours_to_first_report("pass-rate", level) for level in (1, 2, 3, 4)]
    assert hours == [1.0, 2.0, 24.0, 72.0]
    assert rules.hours_to_first_report("grave-event", 3) == 1.0
    assert rules.hours_to_first_report("unheard-of", 1) is None
    slow = Severity.parse(TEXT.replace("hours = 72.0", "days = 4").encode(), "slow.toml")
    assert slow.hours_to_first_report("pass-rate", 4) == 96.0


def test_due_moments_count_hours_days_and_working_days(rules: Severity) -> None:
    china = timezone(timedelta(hours=8))
    friday = datetime(2025, 9, 26, 15, 30, tzinfo=china)
    first, province, final, producer = rules.deadlines_for("grave-event", 2, 4)
    assert first.due(friday) == friday + timedelta(hours=1)
    assert province.due(friday) == friday + timedelta(hours=2)
    assert final.due(friday) == datetime(2025, 10, 7, tzinfo=china)
    assert producer.due(friday) == datetime(2025, 10, 1, tzinfo=china)  # the end of Tuesday

    # Sunday 28 September 2025 was worked; 1 to 8 October were holidays.
    def is_off(day: date) -> bool:
        holiday = date(2025, 10, 1) <= day <= date(2025, 10, 8)
        return holiday or (day.weekday() >= 5 and day != date(2025, 9, 28))

    assert producer.due(friday, is_off) == datetime(2025, 9, 30, tzinfo=china)  # the end of Monday
    wednesday = datetime(2025, 9, 30, 23, 59, tzinfo=china)
    assert producer.due(wednesday, is_off) == datetime(2025, 10, 11, tzinfo=china)  # Thursday 9 and Friday 10
    assert final.due(friday, is_off) == final.due(friday)
    assert producer.due(datetime(2025, 1, 1, tzinfo=UTC), lambda day: True) > datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("minute", range(0, 7 * 24 * 60, 37))
def test_hours_never_run_past_the_moment_due(rules: Severity, minute: int) -> None:
    known = datetime(2025, 9, 22, tzinfo=UTC) + timedelta(minutes=minute)
    for one in rules.deadlines:
        assert known + timedelta(hours=one.least_hours) <= one.due(known)
        assert one.least_hours > 0


def test_the_injury_scale_is_in_words(rules: Severity) -> None:
    assert [one.severity for one in rules.injury] == [1, 2, 3, 4]
    assert all(one.zh and one.en for one in rules.injury)
    assert all(one.text.zh and one.text.en for one in rules.deadlines)


def test_the_digest_is_of_the_rules_and_not_of_the_layout(rules: Severity) -> None:
    assert Severity.parse(("# a remark\n" + TEXT).encode(), "x.toml").digest == rules.digest
    assert Severity.parse(TEXT.replace("hours = 24.0", "hours = 12.0").encode(), "x.toml").digest != rules.digest


def test_rules_are_read_from_a_file_as_from_the_package(tmp_path: Path, rules: Severity) -> None:
    path = tmp_path / "city.toml"
    path.write_text(TEXT.replace('name = "default"', 'name = "city"'), encoding="utf-8")
    assert Severity.load(path).name == "city"
    assert Severity.load(path).matrix == rules.matrix


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('version = "2025.2"', "", "version"),
        ("[matrix]", "[matrix]\ncolour = 1", "colour"),
        ('risk = "LMHS"', 'risk = "LMHX"', r"matrix.bands\[4\].risk"),
        ('risk = "LMHS"', 'risk = "LHMS"', r"matrix.bands\[4\].risk: LHMS falls"),
        ('risk = "LMHS"', 'risk = "MHHS"', r"matrix.bands\[4\].risk: MHHS is above"),
        ("above = 0.001", "above = 0.02", r"matrix.bands\[3\].above: 0.02 is not under 0.01"),
        ("above = 0.0\n", "above = 0.0000001\n", r"matrix.bands\[7\].above: the last band"),
        ("above = 0.5", "above = 1.5", r"matrix.bands\[0\].above"),
        ("above = 0.5", "above = nan", "above"),
        ("severity = 3\nzh", "severity = 2\nzh", "injury: describe"),
        ("S = 2", "S = 5", "levels.S"),
        ("H = 3", "H = 1", "levels: a graver risk has a milder level"),
        ("unknown = 2", "", "nonconformity"),
        ("unknown = 2", "unknown = 0", "nonconformity.unknown"),
        ("gravest = 2", "gravest = 1", "statistics.gravest"),
        ("gravest_if_weak = 3", "gravest_if_weak = 1", "statistics.gravest_if_weak"),
        ("gravest = 2", "gravest = 4", "statistics.gravest_if_weak: 3 is graver than strong evidence may reach"),
        ("plain_level = 4", "plain_level = 1", "statistics.plain_level"),
        ("exposed = 10_000", "exposed = 0", "statistics.exposed"),
        ("strong_p = 1e-9", "strong_p = 0.0", "statistics.strong_p"),
        ("pass-rate = [0.001, 0.01, 0.1, 0.1]", "pass-rate = [0.001, 0.01, 0.1]", "statistics.harm"),
        ("injury-surge = [1.0, 1.0, 1.0, 1.0]", "injury-surge = [1.0, 1.0, 1.0, 2.0]", "statistics.harm"),
        ("structural = true", "structural = 1", "grave.structural"),
        ("from_level = 3", "from_level = 5", "grave.from_level"),
        ("level = 2\ndeaths", "level = 1\ndeaths", r"ladder.rungs\[1\].level"),
        ("deaths = 10", "deaths = 30", r"ladder.rungs\[1\].deaths: must be under"),
        ("loss_cny = 10_000_000.0", "loss_cny = 60_000_000.0", r"ladder.rungs\[2\].loss_cny: must be under"),
        ("loss_cny = 10_000_000.0", "loss_cny = nan", "loss_cny"),
        ("below = 4", "below = 2", "ladder.below"),
        ("days = 10", "days = 10\nhours = 3.0", r"deadlines\[2\]: give exactly one"),
        ("working_days = 2", "", r"deadlines\[3\]: give exactly one"),
        ("hours = 1.0", "hours = -1.0", "hours"),
        ('reporter = "producer"', 'reporter = "press"', "reporter"),
        ('stage = "final-report"', 'stage = "Final Report"', "stage"),
        ("[matrix]", "[matrix", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_the_way_to_mend_it(old: str, new: str, said: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=said) as caught:
        Severity.parse(TEXT.replace(old, new, 1).encode(), "city.toml")
    assert str(caught.value).startswith("city.toml: ")


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path / "none.toml"))):
        Severity.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="there is default"):
        Severity.builtin("moon")


def test_the_example_in_the_docstring_says_what_happens() -> None:
    assert doctest.testmod(module) == (0, 2)
