"""The events behind an alert, from the raw topics.

An alert's provenance says in which offsets the records behind its evidence lie, how many they are, and over how many
days they were reported. So its events are found in two steps:

1. The ranges are read by offset. What is in the alert's cell and window, adverse, and arrived before the alert's tick
   closed, is a candidate. Every event behind the evidence is one; so where as many candidates as events are named for
   each range, they are the events, and nothing else need be read.
2. Where there are more, some were sent twice, corrected or withdrawn. Then the whole topic is read for reports of the
   candidates' ids, and they are folded tick by tick by the very code that folded them when the alert was made
   (:class:`streams.state.AssessState`): what is live then is what counted.

Kinds of alert without ranges (a lab, a source, a pair of product and injury, one grave event) begin at the second step,
over the whole topic.

:attr:`Explanation.complete` says whether the events found are as many as the alert names. They are not where retention
has removed records, where another configuration or catalogue is used than the alert was made under, or where the alert
is about codes beyond the bound, which count together under one node.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas.alerts import Alert, AlertKind
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from schemas.events import TOPICS, AnyEvent, Inspection, Kind
from schemas.topics import kind_of_topic
from streams.columns import EventColumns, concatenate
from streams.config import Config
from streams.decode import EVERYWHERE, Decoded, Record
from streams.grave import grave_id
from streams.intake import Intake
from streams.labs import monday_of, week_of
from streams.medium import Medium
from streams.state import AssessState
from streams.ticks import COMPLETE, Calendar, Origin

__all__ = ["Explanation", "Traced", "basis", "explain", "reporter"]

_BATCH: Final = 2_000
_KINDS: Final[dict[AlertKind, tuple[Kind, ...]]] = {
    "pass-rate": ("inspection",),
    "injury-surge": ("injury",),
    "complaint-surge": ("complaint",),
    "satisfaction": ("survey",),
    "quality-loss": ("loss",),
    "new-hazard": ("injury",),
    "lab-drift": ("inspection",),
    "silent-source": ("inspection", "injury", "complaint", "accident", "survey", "loss"),
    "grave-event": ("accident", "injury"),
}

Belongs = Callable[[Kind, Decoded, Record, int], bool]
"""Whether a record, with its kind and its arrival, is in the alert's cell and window, and adverse."""


@dataclass(frozen=True, slots=True)
class Traced:
    """One event behind an alert: where its record lies, and what it says."""

    topic: str
    partition: int
    offset: int
    event: AnyEvent
    adverse: int
    product: tuple[str, ...]
    region: tuple[str, ...]

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Explanation:
    """The events behind one revision of an alert, in the order of their places; ``named`` is how many it names (None:
    it does not say)."""

    alert: Alert
    events: tuple[Traced, ...]
    named: int | None
    complete: bool
    read: int
    """Records that were read."""


def basis(revisions: Sequence[Alert]) -> Alert:
    """The revision whose evidence the last one still carries: what only changed the status has none of its own."""
    own = [alert for alert in revisions if alert.status in ("opened", "raised", "lowered")]
    return max(own or revisions, key=lambda alert: alert.revision)


def reporter(event: AnyEvent) -> str:
    """Who reported an event: the lab, site, channel, authority or surveyor."""
    for name in ("lab", "site", "channel", "authority", "surveyor"):
        value = getattr(event, name, None)
        if value is not None:
            return str(value)
    return event.source


def adverse(event: AnyEvent) -> int:
    """How much an event adds to the adverse side; surveys and losses have no count of their own and add one."""
    if isinstance(event, Inspection):
        return event.failed if event.failed is not None else int(event.verdict == "fail")
    return 1


def explain(medium: Medium, alert: Alert, config: Config, catalogue: Catalogue) -> Explanation:
    """Find the events behind an alert's revision (see :func:`basis`)."""
    trace = _Trace(medium, alert, config, catalogue)
    sources = alert.provenance.sources
    named: int | None
    if sources:
        named = sum(source.events for source in sources)
        found = [one for source in sources for one in trace.span(source.topic, source.partition, source.first_offset,
                                                                 source.last_offset + 1)]  # fmt: skip
        counts = {(source.topic, source.partition): source.events for source in sources}
        if not _agree(found, counts):
            found = trace.settled(found)
        complete = _agree(found, counts)
    else:
        found = list(trace.everywhere())
        if alert.kind != "grave-event":
            found = trace.settled(found)
        complete, named = _as_observed(alert, found)
    return Explanation(alert, tuple(sorted(found, key=lambda one: one.place)), named, complete, trace.read)


def _agree(found: Sequence[Traced], counts: dict[Origin, int]) -> bool:
    held: dict[Origin, int] = {}
    for one in found:
        held[one.topic, one.partition] = held.get((one.topic, one.partition), 0) + 1
    return held == counts


def _as_observed(alert: Alert, found: Sequence[Traced]) -> tuple[bool, int | None]:
    """For alerts without ranges: the evidence's own count, where it is one of events."""
    if alert.kind == "grave-event":
        return len(found) == 1, 1
    if alert.kind == "silent-source" or not alert.evidence:
        return True, None
    named = round(alert.evidence[0].observed)
    return sum(one.adverse for one in found) == named, named


class _Trace:
    """Reads and judges records for one alert."""

    def __init__(self, medium: Medium, alert: Alert, config: Config, catalogue: Catalogue) -> None:
        self._medium = medium
        self._intake = Intake(config, catalogue)
        self._bound = config.intake.max_codes_per_shard
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._alert = alert
        # A grave event rings at once: its alert bears the time of the report, before which nothing arrives.
        self._end = COMPLETE if alert.kind == "grave-event" else self._calendar.epoch_ms(alert.as_of)
        self._belongs = self._rule()
        self._topics = [TOPICS[kind] for kind in _KINDS[alert.kind]]
        self.read = 0

    # --- which events ----------------------------------------------------------------------------------------------

    def _rule(self) -> Belongs:
        alert, calendar = self._alert, self._calendar
        day = calendar.day(calendar.epoch_ms(alert.as_of) - 1)
        window = alert.provenance.window_days or max((one.window_days for one in alert.evidence), default=0)
        first = day - window + 1
        if alert.kind == "grave-event":
            return lambda kind, decoded, record, arrival: (
                record.value is not None and grave_id(kind, record.value) == alert.id
            )
        if alert.kind == "silent-source":
            return lambda kind, decoded, record, arrival: (
                reporter(decoded.event) == alert.source and calendar.day(decoded.reported_ms) >= first
            )
        if alert.kind == "lab-drift":
            # Judged over the whole weeks before the running one.
            begins = monday_of(week_of(day)) - window
            return lambda kind, decoded, record, arrival: (
                reporter(decoded.event) == alert.source
                and begins <= calendar.day(decoded.reported_ms) < begins + window
                and adverse(decoded.event) > 0
            )
        if alert.kind == "new-hazard":
            begins = monday_of(week_of(day)) - window
            return lambda kind, decoded, record, arrival: (
                decoded.product[-1] == alert.product
                and getattr(decoded.event, "injury", None) == alert.hazard
                and begins <= calendar.day(arrival) < begins + window
            )
        return lambda kind, decoded, record, arrival: (
            alert.product in decoded.product
            and (alert.region in decoded.region or alert.region == EVERYWHERE)
            and calendar.day(decoded.reported_ms) >= first
            and (kind != "inspection" or adverse(decoded.event) > 0)
        )

    def _traced(self, origin: Origin, record: Record, arrival: int | None) -> Traced | None:
        """The record as an event behind the alert; None where it is not one. Where the arrival is not known the clocks
        are not checked against it, and the record's own time, which is no later, stands for it."""
        when = record.timestamp if arrival is None else arrival
        if when >= self._end:
            return None
        kind = kind_of_topic(origin[0])
        try:
            decoded = self._intake.decoder.decode(kind, record.value, arrival)
        except Rejection:
            return None
        if decoded.event.withdrawn or not self._belongs(kind, decoded, record, when):
            return None
        return Traced(
            *origin, record.offset, decoded.event, adverse(decoded.event), decoded.product, decoded.region
        )  # fmt: skip

    # --- reading ---------------------------------------------------------------------------------------------------

    def span(self, topic: str, partition: int, first: int, end: int) -> Iterator[Traced]:
        """The candidates of a range of offsets."""
        origin = (topic, partition)
        for records in self._medium.read(origin, first, end, _BATCH):
            self.read += len(records)
            for record in records:
                one = self._traced(origin, record, None)
                if one is not None:
                    yield one

    def everywhere(self) -> Iterator[Traced]:
        """The candidates of the whole topics."""
        for origin, records, before in self._whole():
            arrival = before
            for record in records:
                arrival = max(arrival, record.timestamp)
                one = self._traced(origin, record, arrival)
                if one is not None:
                    yield one

    def _whole(self) -> Iterator[tuple[Origin, list[Record], int]]:
        """All records of the topics that arrived before the alert's tick closed, in batches, each batch with the
        greatest time before it."""
        for origin, end in self._medium.ends(self._topics).items():
            latest = -COMPLETE
            for records in self._medium.read(origin, 0, end, _BATCH):
                kept, before = [], latest
                for record in records:
                    latest = max(latest, record.timestamp)
                    if latest >= self._end:
                        break
                    kept.append(record)
                self.read += len(kept)
                if kept:
                    yield origin, kept, before
                if latest >= self._end:
                    break

    def settled(self, found: Sequence[Traced]) -> list[Traced]:
        """Of the candidates those that counted when the alert's tick was closed."""
        places = {one.place for one in found}
        if not places:
            return []
        reports: list[EventColumns] = []
        ids: set[int] = set()
        for wanted in (True, False):  # first the candidates' ids, then every report of them
            for origin, records, before in self._whole():
                if wanted and not any((*origin, record.offset) in places for record in records):
                    continue
                columns = self._intake.process(origin, records, before).columns
                if wanted:
                    pairs = zip(columns["event"].tolist(), columns["offset"].tolist(), strict=True)
                    ids.update(event for event, offset in pairs if (*origin, offset) in places)
                else:
                    mine = np.flatnonzero(np.isin(columns["event"], np.fromiter(ids, np.uint64, len(ids))))
                    if len(mine):
                        reports.append(columns.take(mine).trimmed())
        live = self._live(reports)
        return [one for one in found if one.place in live]

    def _live(self, reports: list[EventColumns]) -> set[tuple[str, int, int]]:
        """The places of the reports that count at the end, folded as the stage folds them."""
        state = AssessState(self._intake.decoder, self._bound)
        if reports:
            batch = concatenate(reports)
            ticks = self._calendar.ticks(batch["arrival"])
            for tick in np.unique(ticks).tolist():
                state.fold_tick(tick, [batch.take(np.flatnonzero(ticks == tick))])
        ledger = state.ledger
        rows = np.flatnonzero(ledger["live"])
        places = zip(ledger.at("origin", rows).tolist(), ledger.at("offset", rows).tolist(), strict=True)
        return {(*state.origins[origin], offset) for origin, offset in places}
