"""Periods, and what they are compared with."""

from __future__ import annotations

import doctest
from datetime import date, timedelta
from types import ModuleType

import pytest

from schemas.errors import TocsinError
from streams.report import markup, periods, svg
from streams.report.periods import between, day_number, iso, named, quarter_of


def spans(text: str) -> list[str]:
    found = named(text)
    return [f"{iso(first)}..{iso(end - 1)}" for first, end in (found.days, found.before, found.year_before)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("2024", ["2024-01-01..2024-12-31", "2023-01-01..2023-12-31", "2023-01-01..2023-12-31"]),
        ("2024-H1", ["2024-01-01..2024-06-30", "2023-07-01..2023-12-31", "2023-01-01..2023-06-30"]),
        ("2024-Q2", ["2024-04-01..2024-06-30", "2024-01-01..2024-03-31", "2023-04-01..2023-06-30"]),
        ("2024-03", ["2024-03-01..2024-03-31", "2024-02-01..2024-02-29", "2023-03-01..2023-03-31"]),
        ("2025-02", ["2025-02-01..2025-02-28", "2025-01-01..2025-01-31", "2024-02-01..2024-02-29"]),
    ],
)
def test_a_named_period_is_held_against_the_one_before_and_a_year_earlier(name: str, expected: list[str]) -> None:
    assert spans(name) == expected


@pytest.mark.parametrize("name", ["", "24", "2024-Q5", "2024-13", "2024-H3", "2024-W01", "2024-03-01", "2024-Q1\n"])
def test_what_is_no_period_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(TocsinError, match="is no period"):
        named(name)


def test_days_of_ones_own_are_held_against_as_many_days_before_and_the_same_dates_a_year_earlier() -> None:
    found = between(date(2024, 2, 29), date(2024, 3, 10))
    assert [iso(day) for day in found.before] == ["2024-02-19", "2024-02-29"]
    assert [iso(day) for day in found.year_before] == ["2023-03-01", "2023-03-10"]
    with pytest.raises(TocsinError, match="does not lie after"):
        between(date(2024, 3, 1), date(2024, 3, 1))


def test_a_period_that_has_not_ended_is_compared_with_as_many_days() -> None:
    whole = named("2024-Q3")
    cut = whole.known_through(day_number(date(2024, 7, 20)))
    assert [iso(day) for day in cut.days] == ["2024-07-01", "2024-07-21"]
    assert [iso(day) for day in cut.before] == ["2024-04-01", "2024-04-21"]
    assert [iso(day) for day in cut.year_before] == ["2023-07-01", "2023-07-21"]
    assert whole.known_through(whole.days[1] - 1) is whole


def test_every_day_lies_in_its_own_quarter() -> None:
    day = date(2023, 1, 1)
    while day < date(2025, 1, 1):
        first, end = quarter_of(day_number(day)).days
        assert first <= day_number(day) < end
        day += timedelta(days=1)


@pytest.mark.parametrize("module", [markup, periods, svg])
def test_the_examples_in_docstrings_hold(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)
