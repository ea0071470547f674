"""Which days a report is about, and which it is held against: the period before, and the same days a year earlier."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from schemas.errors import TocsinError

__all__ = ["Period", "Span", "between", "day_number", "iso", "named", "quarter_of"]

Span = tuple[int, int]
"""Local days since 1970-01-01: the first, and the one after the last."""

_EPOCH: Final = date(1970, 1, 1).toordinal()
_NAME: Final = re.compile(r"(?P<year>[12]\d{3})(-(H(?P<half>[12])|Q(?P<quarter>[1-4])|(?P<month>0[1-9]|1[0-2])))?")


@dataclass(frozen=True, slots=True)
class Period:
    """The days of a report, and those that they are compared with."""

    name: str
    days: Span
    before: Span
    year_before: Span

    @property
    def length(self) -> int:
        return self.days[1] - self.days[0]

    def known_through(self, day: int) -> Period:
        """The period as far as it is known: like is compared with like, so the other spans are cut alike."""
        past = self.days[1] - 1 - day
        if past <= 0:
            return self
        length = max(self.length - past, 0)
        spans = [(first, min(first + length, end)) for first, end in (self.days, self.before, self.year_before)]
        return Period(self.name, *spans)


def day_number(when: date) -> int:
    """Days since 1970-01-01."""
    return when.toordinal() - _EPOCH


def iso(day: int) -> str:
    """ISO date of a day's number."""
    return date.fromordinal(day + _EPOCH).isoformat()


def named(text: str) -> Period:
    """A year (``2024``), half (``2024-H1``), quarter (``2024-Q3``) or month (``2024-03``).

    Raises
    ------
    TocsinError
        It is none of them.

    Examples
    --------
    >>> period = named("2024-Q1")
    >>> [iso(day) for day in (*period.days, *period.before, *period.year_before)]
    ['2024-01-01', '2024-04-01', '2023-10-01', '2024-01-01', '2023-01-01', '2023-04-01']
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise TocsinError(f"--period {text}: is no period; write 2024, 2024-H1, 2024-Q3 or 2024-03")
    year = int(found["year"])
    months, number = next(
        (months, int(found[unit]))
        for unit, months in (("half", 6), ("quarter", 3), ("month", 1), ("year", 12))
        if found[unit]
    )
    first = year * 12 + (months * (number - 1) if months < 12 else 0)
    days, before, year_before = (_months(start, months) for start in (first, first - months, first - 12))
    return Period(text, days, before, year_before)


def _months(first: int, count: int) -> Span:
    """Whole months, counted from year 0."""
    return _month(first), _month(first + count)


def _month(number: int) -> int:
    return day_number(date(number // 12, number % 12 + 1, 1))


def quarter_of(day: int) -> Period:
    """The quarter in which a day lies."""
    when = date.fromordinal(day + _EPOCH)
    return named(f"{when.year}-Q{(when.month + 2) // 3}")


def between(since: date, until: date) -> Period:
    """The days from ``since`` before ``until``; the period before is as long, and ends where it begins.

    Raises
    ------
    TocsinError
        There is no day between them.
    """
    if until <= since:
        raise TocsinError(f"--until {until}: does not lie after --since {since}")
    first, end = day_number(since), day_number(until)
    name = f"{since.isoformat()}..{(until - timedelta(days=1)).isoformat()}"
    return Period(name, (first, end), (2 * first - end, first), (_year_earlier(since), _year_earlier(until)))


def _year_earlier(when: date) -> int:
    try:
        return day_number(when.replace(year=when.year - 1))
    except ValueError:  # the 29th of February
        return day_number(when.replace(year=when.year - 1, day=28)) + 1
