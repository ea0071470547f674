"""The topic catalogue: every topic's short name, who writes it, and how a broker must keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.events import TOPICS, Kind

__all__ = ["ALL_TOPICS", "RAW_TOPICS", "TopicSpec", "kind_of_topic", "partitions_of", "topic_name"]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic: its role (raw is written from outside) and its partitions (None takes the configured count)."""

    name: str
    role: Literal["raw", "output", "internal"]
    partitions: int | None = None
    compacted: bool = False


RAW_TOPICS: tuple[str, ...] = tuple(TOPICS.values())

ALL_TOPICS: tuple[TopicSpec, ...] = (
    *(TopicSpec(name, "raw") for name in RAW_TOPICS),
    TopicSpec("dispositions", "raw", partitions=1),
    TopicSpec("keyed-events", "internal"),
    TopicSpec("assess-changelog", "internal", compacted=True),
    TopicSpec("escalate-changelog", "internal", partitions=1, compacted=True),
    TopicSpec("signals", "output", partitions=1),
    TopicSpec("emergency-response", "output", partitions=1),
    TopicSpec("dead-letters", "output", partitions=1),
)


def topic_name(prefix: str, name: str) -> str:
    """The topic's name on the broker: the configured prefix before the short name."""
    return f"{prefix}{name}"


def partitions_of(name: str, configured: int) -> int:
    """Partitions of a topic (short name): its fixed count, or the configured one."""
    return next((spec.partitions for spec in ALL_TOPICS if spec.name == name), None) or configured


_KINDS: dict[str, Kind] = {topic: kind for kind, topic in TOPICS.items()}


def kind_of_topic(name: str) -> Kind:
    """The event kind that a raw topic (short name) carries; KeyError for any other topic."""
    return _KINDS[name]
