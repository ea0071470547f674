"""What is on record of a producer: earlier alerts that name it, and what was found and reported of it, year by year.

For the credit record, and to tell a repeat offender from a first case. Each event counts once, by its highest revision;
one that was withdrawn does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from schemas.alerts import Alert
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from schemas.events import TOPICS, Inspection, Kind
from schemas.topics import kind_of_topic
from streams.config import Config
from streams.decode import EventDecoder, Record
from streams.medium import Medium
from streams.ticks import COMPLETE, Calendar

__all__ = ["ProducerRecord", "Year", "producer_records"]

_KINDS: Final[tuple[Kind, ...]] = ("inspection", "injury", "complaint", "accident")
_BATCH: Final = 2_000
_LISTED: Final = 20


class Year(msgspec.Struct):
    """One calendar year of one producer: items tested and failed, and reports."""

    year: int
    tested: int = 0
    failed: int = 0
    injuries: int = 0
    complaints: int = 0
    accidents: int = 0


@dataclass(slots=True)
class ProducerRecord:
    """The record of one producer before an alert.

    Attributes
    ----------
    earlier
        Alerts that were opened before and named it among their contributors: how many.
    alerts
        The last of them, newest first, :data:`_LISTED` at most.
    years
        In order; only those with an event.
    """

    producer: str
    earlier: int = 0
    alerts: list[Alert] = field(default_factory=list)
    years: list[Year] = field(default_factory=list)

    @property
    def repeat(self) -> bool:
        """Whether an earlier alert names it already."""
        return self.earlier > 0


_Entry = tuple[int, tuple[int, str, int, int], str | None, int, Kind, int, int]
"""Revision, order of arrival, producer (None: no longer one of ours), year, kind, tested, failed."""


def producer_records(
    medium: Medium,
    producers: Sequence[str],
    alert: Alert,
    alerts: Sequence[Alert],
    config: Config,
    catalogue: Catalogue,
) -> list[ProducerRecord]:
    """The records of some producers before ``alert``, in the order in which they were named.

    Parameters
    ----------
    alerts
        All alert revisions there are.
    """
    calendar = Calendar(config.tick_ms, config.offset_ms)
    end = calendar.epoch_ms(alert.as_of)
    records = {producer: ProducerRecord(producer) for producer in producers}
    _add_alerts(records, alert, alerts)
    years: dict[tuple[str, int], Year] = {}
    for _, _, producer, year, kind, tested, failed in _entries(medium, records, end, config, catalogue).values():
        if producer is None:
            continue
        held = years.setdefault((producer, year), Year(year))
        held.tested += tested
        held.failed += failed
        held.injuries += kind == "injury"
        held.complaints += kind == "complaint"
        held.accidents += kind == "accident"
    for producer, year in sorted(years):
        records[producer].years.append(years[producer, year])
    return list(records.values())


def _add_alerts(records: dict[str, ProducerRecord], alert: Alert, alerts: Sequence[Alert]) -> None:
    opened: dict[str, Alert] = {}
    named: dict[str, set[str]] = {}
    for one in alerts:
        if one.id == alert.id or one.as_of >= alert.as_of:
            continue
        if one.id not in opened or one.revision < opened[one.id].revision:
            opened[one.id] = one
        named.setdefault(one.id, set()).update(c.code for c in one.contributors if c.role == "producer")
    newest = sorted(opened.values(), key=lambda one: (one.as_of, one.id), reverse=True)
    for producer, record in records.items():
        mine = [one for one in newest if producer in named[one.id]]
        record.earlier, record.alerts = len(mine), mine[:_LISTED]


def _entries(
    medium: Medium, records: dict[str, ProducerRecord], end: int, config: Config, catalogue: Catalogue
) -> dict[tuple[Kind, str, str], _Entry]:
    """The winning report of every event that names one of the producers, or once did.

    A record is decoded only if it names one, or corrects something: a correction need not name the producer that it
    takes the event from.
    """
    decoder, calendar = EventDecoder(config, catalogue), Calendar(config.tick_ms, config.offset_ms)
    marks = [producer.encode() for producer in records] + [b'"revision"', b"\\u"]
    held: dict[tuple[Kind, str, str], _Entry] = {}
    for topic, part, record, arrival in _arrived(medium, end):
        if record.value is None or not any(mark in record.value for mark in marks):
            continue
        kind = kind_of_topic(topic)
        try:
            event = decoder.decode(kind, record.value, arrival).event
        except Rejection:
            continue
        key, order = (kind, event.source, event.event_id), (arrival, topic, part, record.offset)
        before = held.get(key)
        if before is not None and (-before[0], before[1]) < (-event.revision, order):
            continue
        tested, failed = _figures(event) if isinstance(event, Inspection) else (0, 0)
        producer = event.producer if event.producer in records and not event.withdrawn else None
        year = calendar.moment(calendar.epoch_ms(event.reported_at)).year
        held[key] = (event.revision, order, producer, year, kind, tested, failed)
    return held


def _arrived(medium: Medium, end: int) -> Iterator[tuple[str, int, Record, int]]:
    """Every record that arrived before an instant, with its arrival."""
    for (topic, part), last in medium.ends([TOPICS[kind] for kind in _KINDS]).items():
        arrival = -COMPLETE
        for batch in medium.read((topic, part), 0, last, _BATCH):
            for record in batch:
                arrival = max(arrival, record.timestamp)
                if arrival >= end:
                    break
                yield topic, part, record, arrival
            if arrival >= end:
                break


def _figures(event: Inspection) -> tuple[int, int]:
    if event.tested is not None and event.failed is not None:
        return event.tested, event.failed
    return 1, int(event.verdict == "fail")
