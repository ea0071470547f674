"""The events of a fault run, and the same events as a careless sender would send them.

The base is a piece of the simulated year (a summer with e-bike injuries and a tunnel that collapses) with copies,
corrections, retractions and dispositions strewn in, under an ear so fine that alerts of every status come about in
seconds. A copy, another order or rubbish in between may move offsets, and so the alerts' references to them; nothing
else of the outcome.
"""

from __future__ import annotations

import functools
import json
import random
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from law import DAY, ROOT, Dataset, Outcome, Topics, disturbed, embedded, in_order, simulated

from streams.medium import Outgoing
from streams.ticks import Calendar

__all__ = ["Chunk", "chunks", "duplicated", "poisoned", "recent", "reordered", "summer", "undisturbed"]

A_DAY = 86_400
NEW_YEAR = 1_704_038_400_000
_FIRST, _LAST = 160, 238
_EAR: dict[str, Any] = {
    "escalate": {"lower_after_days": 1, "hold_days": 5, "grave_hold_days": 6},
    "counts": {"min_history_weeks": 4, "alpha": 0.05, "min_recent": 3, "min_ratio": 1.2},
    "pass_rate": {"min_failed": 3, "alpha": 1e-4},
    "sources": {"min_history_days": 300, "history_days": 300},
    "scan": {"enabled": False},
    "multiplicity": {"false_alarms_per_month": 1e5},
}

Chunk = list[tuple[str, list[Outgoing]]]
"""What a publisher appends at once: the records of some whole ticks, by topic."""


def _piece(scale: float) -> Dataset:
    year = simulated(scale, 20, tick_seconds=A_DAY, **_EAR)
    first, last = NEW_YEAR + _FIRST * DAY, NEW_YEAR + _LAST * DAY
    topics = {name: [r for r in records if first <= r.time < last] for name, records in year.topics.items()}
    return Dataset(f"summer-{scale}", year.config, {name: records for name, records in topics.items() if records})


@functools.cache
def summer(scale: float) -> Dataset:
    """The base: about 42,000 events at scale 1."""
    return disturbed(_piece(scale))


def recent(scale: float, now_ms: int) -> Dataset:
    """The base moved by whole days, so that its last event is of the day before ``now_ms``, within 24 hours."""
    piece = _piece(scale)
    last = max(record.time for records in piece.topics.values() for record in records)
    days = (now_ms - last) // DAY
    moved: Topics = {
        topic: [r._replace(time=r.time + days * DAY, value=_moved(r.value or b"", days)) for r in records]
        for topic, records in piece.topics.items()
    }
    return disturbed(Dataset(f"recent-{scale}", piece.config, moved))


def _moved(value: bytes, days: int) -> bytes:
    event = json.loads(value)
    for name in ("reported_at", "occurred_at"):
        if event.get(name):
            event[name] = (datetime.fromisoformat(event[name]) + timedelta(days=days)).isoformat()
    return json.dumps(event, ensure_ascii=False).encode()


@functools.cache
def _outcome(scale: float, folder: Path) -> Outcome:
    return embedded(summer(scale), folder / f"undisturbed-{scale}")


def undisturbed(scale: float, folder: Path) -> Outcome:
    """What an embedded run makes of the base when nobody disturbs it."""
    return _outcome(scale, folder)


# --- careless senders ----------------------------------------------------------------------------------------------


def _rows(dataset: Dataset) -> list[tuple[str, Outgoing]]:
    return [(topic, record) for topic, records in dataset.topics.items() for record in records]


def _last_tick(dataset: Dataset) -> tuple[Calendar, int]:
    calendar = Calendar(dataset.config.tick_ms, dataset.config.offset_ms)
    return calendar, max(calendar.tick(record.time) for _, record in _rows(dataset))


def duplicated(dataset: Dataset, rng: random.Random) -> Dataset:
    """Every third record, and every disposition, comes again: at once or days later, once or more, by any partition."""
    calendar, last = _last_tick(dataset)
    end = calendar.tick_end(last) - 1
    keys = sorted({record.key for _, record in _rows(dataset) if record.key})
    rows = _rows(dataset)
    for topic, record in list(rows):
        if topic == "dispositions" or rng.random() < 1 / 3:
            for _ in range(rng.choice((1, 1, 1, 2, 3))):
                days = 3 if topic == "dispositions" else 30
                later = record.time + rng.choice((0, 0, 1 + rng.randrange(DAY), 1 + rng.randrange(days * DAY)))
                # Of two that arrive at once the lower partition's counts: the same event, under another reference.
                key = record.key if later == record.time or rng.random() < 0.5 else rng.choice(keys)
                rows.append((topic, Outgoing(min(later, end), key, record.value)))
    return Dataset(f"duplicated-{dataset.name}", dataset.config, in_order(rows))


def reordered(dataset: Dataset, rng: random.Random) -> Dataset:
    """Within a tick the records of each topic come in any order, and the topics in any order among each other."""
    calendar, _ = _last_tick(dataset)
    topics: Topics = {}
    for topic in rng.sample(sorted(dataset.topics), len(dataset.topics)):
        records = list(dataset.topics[topic])
        rng.shuffle(records)
        topics[topic] = sorted(records, key=lambda record: calendar.tick(record.time))
    return Dataset(f"reordered-{dataset.name}", dataset.config, topics)


def poisoned(dataset: Dataset, rng: random.Random, largest: int = 900_000) -> tuple[Dataset, int]:
    """Records among the others that must be refused, each kind several times; and how many they are."""
    bad = [row for row in _bad() if len(row.value or b"") <= largest]
    calendar, last = _last_tick(dataset)
    first, end = min(record.time for _, record in _rows(dataset)), calendar.tick_end(last)
    keys = sorted({record.key for _, record in _rows(dataset) if record.key})
    rows = _rows(dataset)
    poison = [
        (row.topic, Outgoing(rng.randrange(first, end), rng.choice(keys), row.value, _headers(row.headers)))
        for row in bad
        for _ in range(3)
    ]
    poison += [("dispositions", Outgoing(rng.randrange(first, end), b"x", value)) for value in (b"{", b"[]", b"{}")]
    return Dataset(f"poisoned-{dataset.name}", dataset.config, in_order([*rows, *poison])), len(poison)


def _headers(headers: tuple[tuple[str, Any], ...]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, text or b"") for name, text in headers)


def _bad() -> list[Any]:
    """The table of bad records that the stages' own tests have."""
    folder = str(ROOT / "tests" / "streams")
    if folder not in sys.path:
        sys.path.append(folder)
    from bad_input import BAD

    return [one.values[0] for one in BAD]


# --- the way into the log ------------------------------------------------------------------------------------------


def chunks(dataset: Dataset, span_ms: int | None = None, rng: random.Random | None = None) -> Iterator[Chunk]:
    """The records in pieces of a tick, or of ``span_ms``; with ``rng`` the topics of each piece in any order.

    A live run seals the ticks of history once its publishers pause, and what a publisher appends later must not lie
    under the seal: so it appends whole ticks, all topics at once.
    """
    calendar, _ = _last_tick(dataset)
    pieces: dict[int, dict[str, list[Outgoing]]] = {}
    for topic, records in dataset.topics.items():
        for record in records:
            number = calendar.tick(record.time) if span_ms is None else record.time // span_ms
            pieces.setdefault(number, {}).setdefault(topic, []).append(record)
    for number in sorted(pieces):
        names = sorted(pieces[number])
        if rng is not None:
            rng.shuffle(names)
        yield [(name, pieces[number][name]) for name in names]
