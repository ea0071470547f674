"""How good the data of a period are: who reported how much and how late, what was refused, corrected, taken back.

What arrived is counted by the day of its arrival, copies and all; what counts, by the day of its report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.events import KINDS, TOPICS
from streams.columns import INDICATORS, WITHDRAWN
from streams.report.periods import Span
from streams.report.record import Record, Refusal
from streams.ticks import MS_PER_DAY

__all__ = ["KindFacts", "Reporter", "by_kind", "refusals", "reporters"]


@dataclass(frozen=True, slots=True)
class KindFacts:
    """One kind of event: reports that arrived, events that count, and what became of the others; delays in days from
    the occurrence (or the report, where that is unknown) to the arrival."""

    topic: str
    arrived: int
    counted: int
    refused: int
    corrections: int
    withdrawn: int
    median_delay: int | None
    late_delay: int | None
    """Nine of ten reports came within so many days."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """One lab, hospital, hotline, authority, surveyor or producer that sends."""

    code: str
    topics: tuple[str, ...]
    arrived: int
    corrections: int
    tested: int
    failed: int
    median_delay: int
    late_delay: int
    last_day: int
    """Day of its last report that was known at the end of the period."""


class _Arrived:
    """The reports that arrived in a span, and all before its end."""

    def __init__(self, record: Record, span: Span) -> None:
        self.columns = record.gathered.columns
        self.days = (self.columns["arrival"] + record.config.offset_ms) // MS_PER_DAY
        self.mine = np.flatnonzero((self.days >= span[0]) & (self.days < span[1]))


def _middle(delays: npt.NDArray[np.int16]) -> tuple[int, int]:
    """Median and ninth decile; delays must be sorted and some."""
    last = len(delays) - 1
    return int(delays[last // 2]), int(delays[last * 9 // 10])


def by_kind(record: Record, span: Span) -> list[KindFacts]:
    """One entry a kind with anything to tell."""
    arrived = _Arrived(record, span)
    columns, mine = arrived.columns, arrived.mine
    dropped = Counter[str]()
    for (day, (topic, _, _)), count in record.gathered.refused.items():
        if span[0] <= day < span[1]:
            dropped[topic] += count
    found = []
    for number, (kind, indicator) in enumerate(zip(KINDS, INDICATORS, strict=True)):
        rows = mine[columns["indicator"][mine] == number]
        counted, topic = len(record.rows(indicator, span)), TOPICS[kind]
        if not len(rows) and not counted and not dropped[topic]:
            continue
        middle = _middle(np.sort(columns["delay"][rows])) if len(rows) else (None, None)
        corrections = int((columns["revision"][rows] > 0).sum())
        withdrawn = int((columns["flags"][rows] & WITHDRAWN > 0).sum())
        found.append(KindFacts(topic, len(rows), counted, dropped[topic], corrections, withdrawn, *middle))
    return found


def reporters(record: Record, span: Span) -> list[Reporter]:
    """Everyone who sent anything in the span, the busiest first."""
    arrived = _Arrived(record, span)
    columns, mine = arrived.columns, arrived.mine
    if not len(mine):
        return []
    order = mine[np.lexsort((columns["delay"][mine], columns["reporter"][mine]))]
    who, first = np.unique(columns["reporter"][order], return_index=True)
    last_day = np.full(len(columns.reporters), -1, np.int64)
    known = np.flatnonzero(arrived.days < span[1])
    np.maximum.at(last_day, columns["reporter"][known], columns["day"][known])
    tested = _tested(record, span)
    found = []
    for number, rows in zip(who.tolist(), np.split(order, first[1:]), strict=True):
        code = columns.reporters[number]
        n, x = tested.get(code, (0, 0))
        topics = [TOPICS[KINDS[kind]] for kind in np.unique(columns["indicator"][rows]).tolist()]
        corrections = int((columns["revision"][rows] > 0).sum())
        middle, late = _middle(columns["delay"][rows])
        found.append(
            Reporter(code, tuple(topics), len(rows), corrections, n, x, middle, late, int(last_day[number]))
        )  # fmt: skip
    return sorted(found, key=lambda one: (-one.arrived, one.code))


def _tested(record: Record, span: Span) -> dict[str, tuple[int, int]]:
    """(tested, failed) of every lab on the days of a span."""
    ledger, rows = record.state.ledger, record.rows("pass", span)
    who, place = np.unique(ledger.at("reporter", rows), return_inverse=True)
    sums = np.zeros((len(who), 2), np.int64)
    np.add.at(sums, place, np.stack([ledger.at("n", rows), ledger.at("x", rows)], axis=1))
    names = record.state.reporters
    return {names[number]: (n, x) for number, (n, x) in zip(who.tolist(), sums.tolist(), strict=True)}


def refusals(record: Record, span: Span) -> list[tuple[Refusal, int]]:
    """What was refused in a span, and how often, the most frequent first."""
    return _ranked((why, count) for (day, why), count in record.gathered.refused.items() if span[0] <= day < span[1])


def _ranked(some: Iterable[tuple[Refusal, int]]) -> list[tuple[Refusal, int]]:
    total: Counter[Refusal] = Counter()
    for why, count in some:
        total[why] += count
    return sorted(total.items(), key=lambda one: (-one[1], one[0]))
