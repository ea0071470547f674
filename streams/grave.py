"""Single grave events: a death, a major accident by the ladder, a structural failure of works."""

from __future__ import annotations

import hashlib

from schemas.alerts import Evidence
from schemas.events import Accident, AnyEvent, Complaint, Injury, Inspection, Kind
from schemas.severity import Severity

__all__ = ["accident_level", "grave_id", "grave_level", "ladder_evidence", "severity_of"]


def accident_level(event: Accident, rules: Severity) -> int:
    """The level of the gravest rung of the accident ladder that the event reaches, or of what lies below it."""
    return rules.accident_level(event.deaths, event.seriously_injured, event.loss_cny)


def grave_level(event: AnyEvent, rules: Severity) -> int | None:
    """The level at which a single event must ring at once, or None when it need not."""
    if event.withdrawn:
        return None
    if isinstance(event, Injury):
        return rules.grave.single_death_level if event.outcome == "died" else None
    if not isinstance(event, Accident):
        return None
    level = accident_level(event, rules)
    if event.structural and rules.grave.structural:
        level = min(level, rules.grave.from_level)
    return level if level <= rules.grave.from_level or event.deaths > 0 else None


def grave_id(kind: Kind, value: bytes) -> str:
    """The id of a grave event's alert: from the record alone, so that it may ring before its tick closes."""
    return "grave-" + hashlib.blake2b(kind.encode() + b"\0" + value, digest_size=8).hexdigest()


def ladder_evidence(event: AnyEvent, rules: Severity) -> list[Evidence]:
    """What rang: deaths, serious injuries and loss, each against the rung that the event reached, where it did."""
    if isinstance(event, Injury):
        return [Evidence(detector="single-death", against="ladder", window_days=0, observed=1.0, threshold=1.0)]
    if not isinstance(event, Accident):
        return []
    rung = rules.rung(event.deaths, event.seriously_injured, event.loss_cny)
    measured = (
        ("deaths", float(event.deaths), float(rung.deaths) if rung else None),
        ("seriously-injured", float(event.seriously_injured), float(rung.seriously_injured) if rung else None),
        ("loss-cny", event.loss_cny, rung.loss_cny if rung else None),
    )
    return [
        Evidence(detector=f"accident-ladder:{name}", against="ladder", window_days=0, observed=value, threshold=least)
        for name, value, least in measured
        if value > 0
    ]


def severity_of(event: AnyEvent, rules: Severity) -> int:
    """Severity 0 (unknown) to 4 on the injury scale, for any kind of event."""
    if isinstance(event, Injury):
        return 4 if event.outcome == "died" else event.severity
    if isinstance(event, Accident):
        return 5 - accident_level(event, rules)
    if isinstance(event, Inspection | Complaint) and event.severity is not None:
        return int(getattr(rules.nonconformity, event.severity))
    return 0
