"""Worlds for those who watch the whole: labs that test the same cells, sources with a rhythm, pairs that are usual."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from builders import DAY, HOUR, ORIGINS, START, World, body, encoded, numbered, plain_run, settings_with

from schemas.alerts import Alert, Signal
from streams.config import Config
from streams.ticks import Origin

Row = tuple[str, int, dict[str, Any]]
"""Topic, arrival, event."""
WEEK = 7 * DAY
DAY_0 = (START + 8 * HOUR) // DAY
"""The local day of START, a Monday."""
LABS = tuple(f"lab-{n}" for n in range(6))
CELLS = tuple((product, region) for product in ("F0101", "F0102", "L0101") for region in ("120101", "120102"))


def daily(**changes: Any) -> Config:
    """Ticks of a day, and alerts that do not outlive their evidence for long."""
    return settings_with(**{"tick_seconds": 86_400, "escalate": {"hold_days": 8}, **changes})


def world_of(rows: Iterable[Row], config: Config) -> World:
    """The rows as raw records, each topic's spread over its partitions by event."""
    sent: dict[Origin, list[tuple[int, Any]]] = {origin: [] for origin in ORIGINS}
    for n, (topic, arrival, event) in enumerate(sorted(rows, key=lambda row: (row[1], row[0], row[2]["event_id"]))):
        part = n % sum(origin[0] == topic for origin in ORIGINS)
        sent[topic, part].append((arrival, encoded(event)))
    return World(config, config.load_catalogue(), {origin: numbered(of) for origin, of in sent.items()})


def alerts_of(rows: Iterable[Row], config: Config, kind: str) -> list[Alert]:
    """All revisions of the alerts of a kind that the whole pipeline makes."""
    return [alert for alert in plain_run(world_of(rows, config))[1] if alert.kind == kind]


def inspections(
    weeks: int,
    rate: Callable[[str, tuple[str, str], int], float],
    *,
    cells: Iterable[tuple[str, str]] = CELLS,
    labs: Iterable[str] = LABS,
    tested: int = 50,
    seed: int = 1,
) -> list[Row]:
    """Every lab tests every cell once a week; ``rate`` is the chance of a failure by lab, cell and week."""
    rng, rows = random.Random(seed), list[Row]()
    for week in range(weeks):
        for lab in labs:
            for product, region in cells:
                at = START + week * WEEK + rng.randrange(5) * DAY + rng.randrange(9, 17) * HOUR
                p = rate(lab, (product, region), week)
                own = {"lab": lab, "tested": tested, "failed": sum(rng.random() < p for _ in range(tested))}
                name = f"{week}-{lab}-{product}-{region}"
                rows.append(("inspections", at, body("inspections", name, at, product=product, region=region, **own)))
    return rows


def complaints(
    days: int, volume: Callable[[str, int], int], *, channels: Iterable[str], product: str = "F0101"
) -> list[Row]:
    """Complaints of each channel; ``volume`` says how many on a day."""
    rows = list[Row]()
    for day in range(days):
        for channel in channels:
            for n in range(volume(channel, day)):
                at = START + day * DAY + (8 + n % 12) * HOUR
                event = body("complaints", f"{channel}-{day}-{n}", at, channel=channel, product=product)
                rows.append(("complaints", at, event))
    return rows


def texts(signals: Iterable[Signal]) -> list[bytes]:
    """Signals to the byte, in their order."""
    return [msgspec.json.encode(signal) for signal in signals]
