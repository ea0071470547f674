"""Known incidents, and how well a run's alerts tell them: found, with what delay, at how many false alerts a year.

A file of incidents is CSV with a header. These columns are read, all others are passed over:

``incident``
    Its name; the one column that must be there and filled.
``product``, ``region``
    What an alert of it is about: regular expressions, searched for without regard to case in the code and in the names
    of the alert's product and region. An empty one fits all. Where there is no ``product``, ``key`` is taken.
``kind``
    The kinds of alert that may tell it, divided by ``|``; empty: every kind that is about a product's figures
    (:data:`STATISTICAL`).
``since``
    The day from which the delay counts, as 2007-02-14. Where it is empty the first of ``first_week_crossing``,
    ``extreme_week_start`` and ``public_date`` that is not.
``until``
    The day from which on an alert no longer belongs to it; empty: 63 days after ``since``.
``visible``
    ``no`` for an incident that the record cannot show: no alert is to be raised about it. Empty: ``yes``.
``dataset``
    The record to which it belongs, where one file serves several.

An alert belongs to an incident when it is opened or raised from seven days before ``since`` (a detector may be faster
than the public) until before ``until``, and is about it. An alert of these kinds that belongs to no visible incident is
counted as false: so the figure is of use where the file knows all that happened, and an upper bound elsewhere.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import fmean, median
from typing import Final, cast, get_args

from schemas.alerts import Alert, AlertKind
from schemas.errors import TocsinError

__all__ = ["STATISTICAL", "Incident", "IncidentError", "Score", "Told", "read_incidents", "score"]

STATISTICAL: Final[tuple[AlertKind, ...]] = (
    "pass-rate", "injury-surge", "complaint-surge", "satisfaction", "quality-loss", "new-hazard",
)  # fmt: skip
LEAD: Final = timedelta(days=7)
WITHIN: Final = timedelta(days=63)
_STARTS: Final = ("since", "first_week_crossing", "extreme_week_start", "public_date")
_MOST_ROWS: Final = 10_000
_LONGEST: Final = 500
_DAYS_PER_YEAR: Final = 365.25


class IncidentError(TocsinError):
    """A file of incidents cannot be used; the text names file, line and column."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One known incident; ``until`` is the first day that is no longer its."""

    name: str
    since: date
    until: date
    product: re.Pattern[str]
    region: re.Pattern[str]
    kinds: tuple[AlertKind, ...] = STATISTICAL
    visible: bool = True

    def is_about(self, alert: Alert) -> bool:
        """Whether an alert is about this incident, whenever it rang."""
        product = (alert.product, alert.product_name.zh, alert.product_name.en)
        region = (alert.region, alert.region_name.zh, alert.region_name.en)
        return (
            alert.kind in self.kinds
            and any(self.product.search(text) for text in product)
            and any(self.region.search(text) for text in region)
        )

    def alerts(self, alerts: Iterable[Alert], since: date | None = None, until: date | None = None) -> list[Alert]:
        """The revisions, opened or raised, that tell it; other days than its own can be asked for."""
        first, end = since or self.since - LEAD, until or self.until
        return [
            alert
            for alert in alerts
            if alert.status in ("opened", "raised") and first <= alert.as_of.date() < end and self.is_about(alert)
        ]


@dataclass(frozen=True, slots=True)
class Told:
    """How one incident was told: by its first alert, so many days after ``since`` (before it: negative); or not."""

    incident: Incident
    alert: Alert | None
    days: int | None
    outside: bool = False
    """Whether it lies outside the record, and so counts in no figure."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a run is worth against a file of incidents.

    Attributes
    ----------
    found, visible
        Incidents that were told, of those that could be.
    median_days
        Of the found ones; None where there are none.
    mean_days
        Over all that could be told, one that was missed counted with the whole time in which it could have been: the
        figure that a trade-off can be drawn with.
    false, false_a_year
        Alerts that belong to no visible incident.
    """

    told: tuple[Told, ...]
    found: int
    visible: int
    median_days: float | None
    mean_days: float | None
    false: int
    false_a_year: float
    years: float


def score(incidents: Sequence[Incident], alerts: Sequence[Alert], first: date, last: date) -> Score:
    """Hold alert revisions against incidents; ``first`` and ``last`` are the days of the record."""
    ordered = sorted(alerts, key=lambda alert: (alert.as_of, alert.id, alert.revision))
    told = tuple(_told(incident, ordered, first, last) for incident in incidents)
    able = [one for one in told if one.incident.visible and not one.outside]
    days = [one.days for one in able if one.days is not None]
    delays = [
        one.days if one.days is not None else (one.incident.until - one.incident.since).days for one in able
    ]  # fmt: skip
    belongs = {alert.id for one in able for alert in one.incident.alerts(ordered)}
    kinds = {kind for incident in incidents for kind in incident.kinds}
    false = sum(alert.status == "opened" and alert.kind in kinds and alert.id not in belongs for alert in ordered)
    years = ((last - first).days + 1) / _DAYS_PER_YEAR
    return Score(
        told=told,
        found=len(days),
        visible=len(able),
        median_days=median(days) if days else None,
        mean_days=fmean(delays) if delays else None,
        false=false,
        false_a_year=false / years,
        years=years,
    )


def _told(incident: Incident, alerts: Sequence[Alert], first: date, last: date) -> Told:
    if not first <= incident.since <= last:
        return Told(incident, None, None, outside=True)
    rung = next(iter(incident.alerts(alerts)), None)
    return Told(incident, rung, None if rung is None else (rung.as_of.date() - incident.since).days)


# --- reading -------------------------------------------------------------------------------------------------------


def read_incidents(path: Path, dataset: str | None = None) -> list[Incident]:
    """The incidents of a file, in its order; of one ``dataset`` only where that is given.

    Raises
    ------
    IncidentError
        Naming the line and the column at fault.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "incident" not in (reader.fieldnames or ()):
                raise IncidentError(f"{path}: has no column incident; it is a CSV file with a header")
            if dataset is not None and "dataset" not in (reader.fieldnames or ()):
                raise IncidentError(f"{path}: has no column dataset; leave --dataset out")
            found: list[Incident] = []
            names: set[str] = set()
            for row in reader:
                names.add(_cell(row, "dataset"))
                if dataset is None or _cell(row, "dataset") == dataset:
                    found.append(_incident(row, f"{path}, line {reader.line_num}"))
                if len(found) > _MOST_ROWS:
                    raise IncidentError(f"{path}: has more than {_MOST_ROWS:,} incidents; divide the file")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise IncidentError(f"{path}: cannot be read as CSV in UTF-8 ({error})") from None
    if not found:
        held = f"; its datasets are {', '.join(sorted(names)[:10])}" if dataset is not None and names else ""
        raise IncidentError(f"{path}: has no incident{'' if dataset is None else f' of dataset {dataset}'}{held}")
    return found


def _cell(row: Mapping[str, str | None], column: str) -> str:
    return (row.get(column) or "").strip()


def _incident(row: Mapping[str, str | None], where: str) -> Incident:
    name = _cell(row, "incident")
    if not name:
        raise IncidentError(f"{where}: incident: is empty; give it a name")
    start = next((column for column in _STARTS if _cell(row, column)), None)
    if start is None:
        raise IncidentError(f"{where}: since: is empty; say from which day the delay counts, as 2007-02-14")
    since = _day(row, start, where)
    until = _day(row, "until", where) if _cell(row, "until") else since + WITHIN
    if until <= since:
        raise IncidentError(f"{where}: until: {until} does not lie after {since}")
    visible = _cell(row, "visible").lower() or "yes"
    if visible not in ("yes", "no"):
        raise IncidentError(f"{where}: visible: {visible!r} is neither yes nor no")
    product = "product" if _cell(row, "product") else "key"
    return Incident(
        name=name,
        since=since,
        until=until,
        product=_pattern(row, product, where),
        region=_pattern(row, "region", where),
        kinds=_kinds(row, where),
        visible=visible == "yes",
    )


def _day(row: Mapping[str, str | None], column: str, where: str) -> date:
    try:
        return date.fromisoformat(_cell(row, column))
    except ValueError:
        raise IncidentError(f"{where}: {column}: {_cell(row, column)!r} is no day; write it as 2007-02-14") from None


def _pattern(row: Mapping[str, str | None], column: str, where: str) -> re.Pattern[str]:
    text = _cell(row, column)
    if len(text) > _LONGEST:
        raise IncidentError(f"{where}: {column}: has {len(text)} characters, at most {_LONGEST} are taken")
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise IncidentError(f"{where}: {column}: {text!r} is no regular expression ({error})") from None


def _kinds(row: Mapping[str, str | None], where: str) -> tuple[AlertKind, ...]:
    text = _cell(row, "kind")
    if not text:
        return STATISTICAL
    kinds = tuple(kind.strip() for kind in text.split("|"))
    for kind in kinds:
        if kind not in get_args(AlertKind):
            known = ", ".join(get_args(AlertKind))
            raise IncidentError(f"{where}: kind: {kind!r} is no kind of alert; there are {known}")
    return cast("tuple[AlertKind, ...]", kinds)
