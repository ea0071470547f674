"""What a run left behind against what an undisturbed run leaves: events lost and counted twice, alerts that differ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from law import Dataset, Folded, Outcome

__all__ = ["Run", "compare", "without_offsets"]


@dataclass
class Run:
    """A run and its verdict.

    ``recoveries`` are the seconds from the end of each fault (from the fault, where it has no length) to the first
    work that was durable after it. ``blows`` counts the faults done, ``ended`` the processes that ended by themselves
    and were started again, as a supervisor does. ``words`` say what is wrong.
    """

    fault: str
    seed: int
    events: int = 0
    lost: int = 0
    duplicated: int = 0
    differing: int = 0
    blows: int = 0
    ended: int = 0
    seconds: float = 0.0
    recoveries: list[float] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.differing or self.words)


def without_offsets(lines: Iterable[str]) -> list[str]:
    """Alerts and signals without the offsets of the records that they refer to, which other records may have moved."""
    found = []
    for line in lines:
        row = json.loads(line)
        for source in [*row.get("sources", []), *row.get("provenance", {}).get("sources", [])]:
            del source["first_offset"], source["last_offset"]
        found.append(json.dumps(row, sort_keys=True))
    return sorted(found)


def compare(
    run: Run,
    dataset: Dataset,
    folded: list[Folded],
    found: Outcome,
    expected: Outcome,
    letters: Iterable[bytes],
    *,
    offsets: bool = True,
    refused: int = 0,
    resent: bool = False,
) -> None:
    """Enter into ``run`` what is not as it should be.

    Parameters
    ----------
    dataset
        What was sent, each event once: says how often each must be in the state.
    folded
        What is in the state.
    found, expected
        What came out, and what comes out undisturbed.
    letters
        The dead letters that came out.
    offsets
        False where the records lie at other offsets than in the undisturbed run.
    refused
        How many records must be among the dead letters.
    resent
        Whether a crash may bring a dead letter again (Kafka: intake sends before it commits); it is then known by the
        place of its record.
    """
    rows, wanted = Counter(event for event, _, _ in folded), dataset.expected_rows()
    run.events += wanted.total()
    run.lost += (wanted - rows).total()
    run.duplicated += (rows - wanted).total()
    run.duplicated += len(folded) - len({(origin, offset) for _, origin, offset in folded})
    run.duplicated += len(found.twice)
    if found.twice:
        run.words.append(f"there twice: {found.twice[:2]}")
    for part in ("alerts", "signals"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        if not offsets:
            ours, theirs = without_offsets(ours), without_offsets(theirs)
        missing, more = Counter(theirs) - Counter(ours), Counter(ours) - Counter(theirs)
        run.differing += max(missing.total(), more.total())
        run.words += [f"{part}: {words}" for words in _differences(list(missing), list(more))[:2]]
    named = list(map(_place, letters))
    places = set(named)
    run.lost += max(0, refused - len(places))
    run.duplicated += max(0, len(places) - refused) + (0 if resent else len(named) - len(places))
    if len(places) != refused:
        run.words.append(f"dead letters: {len(places)} instead of {refused}")


def _differences(missing: list[str], more: list[str]) -> list[str]:
    """What is lost, what is there instead, and in which fields it differs, as briefly as can be."""
    gained = {_name(row): row for row in map(json.loads, more)}
    found = []
    for row in map(json.loads, missing):
        other = gained.pop(_name(row), None)
        if other is None:
            found.append(f"lost {_name(row)}")
            continue
        differing = [key for key in sorted({*row, *other}) if row.get(key) != other.get(key)]
        shown = "; ".join(f"{key}: {row.get(key)!r:.200} became {other.get(key)!r:.200}" for key in differing)
        found.append(f"{_name(row)}: {shown}")
    return sorted(found) + [f"gained {name}" for name in sorted(gained)]


def _name(row: dict[str, Any]) -> str:
    names = ("id", "revision", "status") if "revision" in row else ("tick", "kind", "product", "region", "alert_id")
    return " ".join(str(row.get(name)) for name in names)


def _place(value: bytes) -> tuple[str, int, int]:
    letter = json.loads(value)
    return letter["topic"], letter["partition"], letter["offset"]
