"""What the report is about, put together: the record, the period, the alerts that stood in it, and what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schemas.alerts import Alert
from schemas.errors import Rejection, TocsinError
from schemas.tree import Tree
from streams.compare import Life, lives
from streams.decode import EVERYWHERE
from streams.overdue import Answer, Duty, duties
from streams.report.periods import Period, Span, iso, quarter_of
from streams.report.record import Gathered, Record, fold
from streams.report.words import Language, Words
from streams.state import OVERFLOW
from streams.ticks import MS_PER_DAY

__all__ = ["Bounds", "Case", "View", "assemble"]

CHARTED_DAYS: Final = 60 * 7
"""How far back a chart shows; what its detector looks back comes on top."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is shown: charts, alerts, sources, ranked cells, districts and branches of the matrix."""

    charts: int = 24
    alerts: int = 100
    sources: int = 30
    ranked: int = 8
    reasons: int = 20
    regions: int = 40
    branches: int = 24


@dataclass(frozen=True, slots=True)
class Case:
    """One alert in the period: its revisions until the period's end, what was answered, and its duties."""

    life: Life
    revisions: tuple[Alert, ...]
    answers: tuple[Answer, ...]
    duties: tuple[Duty, ...]

    @property
    def last(self) -> Alert:
        return self.revisions[-1]

    def first_answer(self, action: str) -> Answer | None:
        return next((one for one in self.answers if one.disposition.action == action), None)


@dataclass(slots=True)
class View:
    """All that the page shows.

    Attributes
    ----------
    known_ms
        The instant as of which all is told, epoch ms.
    cases
        Alerts that stood in the period, gravest first, then newest first.
    """

    record: Record
    period: Period
    known_ms: int
    cases: list[Case]
    words: Words
    bounds: Bounds

    @property
    def known(self) -> int:
        """The last day that is known."""
        return self.record.calendar.day(self.known_ms)

    @property
    def told_period(self) -> Period:
        """The period as far as it is known."""
        return self.period.known_through(self.known)

    @property
    def told(self) -> Span:
        """The days of the period that are known."""
        return self.told_period.days

    def day_of(self, moment: datetime) -> int:
        """The local day that a tick's end belongs to: midnight ends the day before."""
        return self.record.calendar.day(self.record.calendar.epoch_ms(moment) - 1)

    def gravest(self) -> dict[tuple[str, str], int]:
        """The gravest level that an alert on a cell, or on one below it, reached, by region and product. On a city as a
        whole only its own alerts stand: those on its districts stand there."""
        found: dict[tuple[str, str], int] = {}
        trees = self.record.catalogue.regions, self.record.catalogue.products
        for case in self.cases:
            codes = case.last.region, case.last.product
            regions, products = (_path(tree, code) for tree, code in zip(trees, codes, strict=True))
            for region in regions[1:] or regions:
                for product in products:
                    key = (region, product)
                    found[key] = min(case.life.level, found.get(key, case.life.level))
        return found

    def product(self, code: str) -> str:
        if code == EVERYWHERE:
            return self.words("everywhere")
        return self._named(code, self.words.pick(self.record.catalogue.products.label(code)))

    def region(self, code: str) -> str:
        if code == EVERYWHERE:
            return self.words("everywhere")
        return self._named(code, self.words.pick(self.record.catalogue.regions.label(code)))

    def _named(self, code: str, name: str) -> str:
        return self.words("other") if OVERFLOW in code else name


def _path(tree: Tree, code: str) -> tuple[str, ...]:
    try:
        return tree.path(code)
    except Rejection:  # every region, or codes beyond the bound
        return (code,)


def assemble(
    gathered: Gathered,
    alerts: Sequence[Alert],
    period: Period | None,
    language: Language,
    bounds: Bounds,
    as_of: int | None = None,
) -> View:
    """Put the report together.

    Parameters
    ----------
    period
        None takes the quarter of the last event.
    as_of
        What was known then (epoch ms); None is the moment of the last record or alert.

    Raises
    ------
    TocsinError
        There is no record, or the period begins after its end.
    """
    calendar = gathered.calendar
    moments = [calendar.epoch_ms(alert.as_of) for alert in alerts]
    moments += [] if gathered.last_ms is None else [gathered.last_ms]
    if not moments:
        raise TocsinError("there is nothing to report: the record holds no event and no alert")
    known_ms = max(moments) if as_of is None else as_of
    known = calendar.day(known_ms)
    # A run that goes on while nothing comes resolves alerts long after the last event: that is no period to tell of.
    last = known if gathered.last_ms is None else min(known, calendar.day(gathered.last_ms))
    chosen = quarter_of(last) if period is None else period
    if chosen.days[0] > known:
        raise TocsinError(f"the period begins on {iso(chosen.days[0])}; the record ends on {iso(known)}")
    first = min(chosen.days[0], chosen.year_before[0]) - CHARTED_DAYS - gathered.config.lookback_days
    record = fold(gathered, alerts, first)
    end_ms = min(known_ms, chosen.days[1] * MS_PER_DAY - gathered.config.offset_ms)
    view = View(record, chosen, known_ms, [], Words(language), bounds)
    view.cases = _cases(record, chosen.days, calendar.moment(end_ms))
    return view


def _cases(record: Record, span: Span, end: datetime) -> list[Case]:
    """The alerts that stood in a span, as they were at its end."""
    calendar = record.calendar
    known = [alert for alert in record.alerts if alert.as_of <= end]
    revisions: dict[str, list[Alert]] = {}
    for alert in sorted(known, key=lambda one: one.revision):
        revisions.setdefault(alert.id, []).append(alert)
    answers: dict[str, list[Answer]] = {}
    for answer in sorted(record.gathered.answers, key=lambda one: (one.arrival, one.disposition.disposition_id)):
        if answer.arrival <= end:
            answers.setdefault(answer.disposition.alert_id, []).append(answer)
    owed: dict[str, list[Duty]] = {}
    for duty in duties(known, record.gathered.answers, end, record.config.deadlines):
        owed.setdefault(duty.alert.id, []).append(duty)
    found = []
    for life in lives(known):
        if life.ended is None or calendar.day(calendar.epoch_ms(life.ended)) >= span[0]:
            name = life.first.id
            found.append(
                Case(
                    life, tuple(revisions[name]), tuple(answers.get(name, ())), tuple(owed.get(name, ()))
                )
            )  # fmt: skip
    return sorted(found, key=lambda case: (case.life.level, -case.life.opened.timestamp(), case.life.first.id))
