"""The record that a report is about: every event once, as the stages count it, and what became of each alert.

Reading and folding are the stages' own (:class:`streams.intake.Intake`, :class:`streams.state.AssessState`), so a
figure of the report is the figure that the detectors saw. Only the events of all ticks are folded at once: what counts
in the end is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.alerts import Alert, DeadLetter
from schemas.catalogue import Catalogue
from schemas.topics import RAW_TOPICS
from streams.columns import INDICATORS, EventColumns, concatenate
from streams.config import Config
from streams.decode import Record as RawRecord
from streams.intake import Intake
from streams.medium import Medium
from streams.outputs import read_values
from streams.overdue import Answer, read_answers
from streams.report.periods import Span
from streams.state import AssessState
from streams.ticks import COMPLETE, Calendar

__all__ = ["Gathered", "Record", "Refusal", "fold", "gather"]

_BATCH: Final = 5_000
Ints = npt.NDArray[np.int64]
Refusal = tuple[str, str, str]
"""Topic, reason, field."""


@dataclass(slots=True)
class Gathered:
    """All reports that arrived, as columns, with the refused ones counted by the day of their arrival."""

    config: Config
    catalogue: Catalogue
    calendar: Calendar
    intake: Intake
    columns: EventColumns
    refused: Counter[tuple[int, Refusal]]
    answers: list[Answer]
    last_ms: int | None
    """When the last record arrived, epoch ms; None where there is none."""


@dataclass(slots=True)
class Record:
    """What counts in the end, and the alerts made of it."""

    gathered: Gathered
    state: AssessState
    alerts: list[Alert]
    live: npt.NDArray[np.intp] = field(init=False)
    """The rows of the ledger that count."""

    def __post_init__(self) -> None:
        self.live = np.flatnonzero(self.state.ledger["live"])

    @property
    def first_day(self) -> int | None:
        """The day of the first event that counts."""
        return int(self.state.ledger.at("day", self.live).min()) if len(self.live) else None

    @property
    def config(self) -> Config:
        return self.gathered.config

    @property
    def catalogue(self) -> Catalogue:
        return self.gathered.catalogue

    @property
    def calendar(self) -> Calendar:
        return self.gathered.calendar

    def rows(self, indicator: str, span: Span) -> npt.NDArray[np.intp]:
        """The ledger's rows of an indicator that count on the days of a span."""
        ledger, live = self.state.ledger, self.live
        day = ledger.at("day", live)
        mine = (ledger.at("indicator", live) == INDICATORS.index(indicator)) & (day >= span[0]) & (day < span[1])
        return np.asarray(live[mine])

    def leaf_sums(self, indicator: str, span: Span) -> dict[int, tuple[int, int]]:
        """(x, n) of every leaf with an event in a span, by its number: failed and tested, score and respondents, loss
        and output; twice the events where there is no denominator."""
        ledger, rows = self.state.ledger, self.rows(indicator, span)
        leaves, place = np.unique(ledger.at("leaf", rows), return_inverse=True)
        sums = np.zeros((len(leaves), 2), np.int64)
        np.add.at(sums, place, np.stack([ledger.at("x", rows), ledger.at("n", rows)], axis=1))
        return {leaf: (x, n) for leaf, (x, n) in zip(leaves.tolist(), sums.tolist(), strict=True)}


def gather(
    medium: Medium, config: Config, catalogue: Catalogue, progress: Callable[[int, int], None] | None = None
) -> Gathered:
    """Read all raw topics of a medium (a :class:`streams.slices.Sliced` one: as far as they were known then)."""
    intake, calendar = Intake(config, catalogue), Calendar(config.tick_ms, config.offset_ms)
    parts: list[EventColumns] = []
    refused: Counter[tuple[int, Refusal]] = Counter()
    last, done = -COMPLETE, 0
    ends = medium.ends(RAW_TOPICS)
    total = sum(ends.values())
    for origin, end in ends.items():
        running = -COMPLETE
        for records in medium.read(origin, 0, end, _BATCH):
            result = intake.process(origin, records, running)
            if result.dead:
                arrivals = _arrivals(records, running)
                for letter in result.dead:
                    day = calendar.day(arrivals[letter.offset])
                    refused[day, (origin[0], letter.reason, letter.field)] += 1
            running = result.last_arrival
            if len(result.columns):
                parts.append(result.columns)
            done += len(records)
            if progress is not None:
                progress(done, total)
        last = max(last, running)
    for letter in _refused_before(medium):
        refused[calendar.day(letter.timestamp), (letter.topic, letter.reason, letter.field)] += 1
    answers = read_answers(medium, calendar)
    columns = concatenate(parts)
    return Gathered(
        config, catalogue, calendar, intake, columns, refused, answers, None if last == -COMPLETE else last
    )  # fmt: skip


def _arrivals(records: Sequence[RawRecord], running: int) -> dict[int, int]:
    """The arrival of each record by its offset: the greatest time so far."""
    found = {}
    for record in records:
        running = found[record.offset] = max(running, record.timestamp)
    return found


def _refused_before(medium: Medium) -> Iterator[DeadLetter]:
    """Letters on rows that never came to a topic: they were refused when they were published or sent in."""
    decode = msgspec.json.Decoder(DeadLetter).decode
    for _, _, value in read_values(medium, "dead-letters"):
        try:
            letter = decode(value)
        except msgspec.DecodeError:
            continue
        if letter.stage == "publish" and letter.topic in RAW_TOPICS:
            yield letter


def fold(gathered: Gathered, alerts: Sequence[Alert], first_day: int) -> Record:
    """Count the reports; cells hold no day much before ``first_day``, which bounds their size."""
    state = AssessState(gathered.intake.decoder, gathered.config.intake.max_codes_per_shard)
    state.expire(0, first_day)
    if len(gathered.columns):
        state.fold_tick(0, [gathered.columns])
    return Record(gathered, state, list(alerts))
