"""The six events that labs, hospitals, hotlines and authorities send, as msgspec Structs.

A Struct here says what is *well formed*; :mod:`schemas.codes` and :mod:`schemas.catalogue` say which codes are
known; the rules that tie fields together stand in :func:`check`. Unknown fields are ignored, so that a newer
producer can send more than this version knows.

Times may carry an offset (``2026-03-01T08:00:00+08:00``); one without is read in the deployment's own offset.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.errors import Rejection

__all__ = [
    "EVENT_TYPES",
    "KINDS",
    "REPORTERS",
    "TOPICS",
    "Accident",
    "Complaint",
    "Event",
    "Injury",
    "Inspection",
    "Item",
    "Kind",
    "QualityLoss",
    "Survey",
    "check",
]

Kind = Literal["inspection", "injury", "complaint", "accident", "survey", "loss"]

# Bounds on what strangers may send: long enough for every real code, short enough to stay harmless.
_PRINTABLE = r"^[^\x00-\x1f\x7f]+(?![\s\S])"  # to the very end: "$" would let a last newline pass
Id = Annotated[str, Meta(min_length=1, max_length=128, pattern=_PRINTABLE)]
Code = Annotated[str, Meta(min_length=1, max_length=160, pattern=_PRINTABLE)]
Word = Annotated[str, Meta(min_length=1, max_length=200, pattern=_PRINTABLE)]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Money = Annotated[float, Meta(ge=0, le=1e15)]

Severity = Literal["critical", "major", "minor"]
Subject = Literal["product", "works", "service"]
SamplingStage = Literal["production", "circulation", "import", "export", "online", "works-acceptance"]
Scheme = Literal["supervision", "risk-monitoring", "complaint-driven", "certification"]
Outcome = Literal["treated-released", "transferred", "admitted", "observed", "left-untreated", "died", "unknown"]
Sex = Literal["female", "male", "unknown"]


class Event(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """What every event carries.

    ``event_id`` is unique within ``source``; the same id with a higher ``revision`` replaces the earlier report
    (a retest, a correction); ``withdrawn`` takes it back altogether. ``reported_at`` decides the day on which the
    event counts, ``occurred_at`` serves delay-corrected views. ``kind`` may be left out: the topic says it.
    """

    event_id: Id
    source: Id
    reported_at: datetime
    occurred_at: datetime | None = None
    revision: Annotated[int, Meta(ge=0, le=65_535)] = 0
    withdrawn: bool = False
    kind: Kind | None = None


class Item(msgspec.Struct, kw_only=True, gc=False, omit_defaults=True):
    """One measured parameter of an inspection: what was found, the limit, and whether it conforms."""

    parameter: Word
    value: float | Word | None = None
    limit: float | Word | None = None
    unit: Annotated[str, Meta(max_length=32)] | None = None
    conforming: bool


class Inspection(Event, kw_only=True, gc=False, omit_defaults=True):
    """A result of an inspection: one sample with a verdict, or an aggregate of ``tested`` and ``failed``."""

    product: Code
    region: Code
    lab: Id
    producer: Annotated[str, Meta(max_length=18)] | None = None
    batch: Id | None = None
    gtin: Annotated[str, Meta(max_length=14)] | None = None
    standard: Word | None = None
    stage: SamplingStage | None = None
    scheme: Scheme | None = None
    items: Annotated[list[Item], Meta(max_length=256)] = []
    verdict: Literal["pass", "fail"] | None = None
    severity: Severity | None = None
    tested: Count | None = None
    failed: Count | None = None


class Injury(Event, kw_only=True, gc=False, omit_defaults=True):
    """An injury by a product, works or a service, seen at a sentinel site.

    ``severity``: 1 first aid, 2 emergency visit, 3 hospitalisation or permanent loss, 4 can be fatal or more than
    10 % disability. ``weight`` is the site's sampling weight. No field names a person, and none may be added.
    """

    product: Code
    region: Code
    site: Id
    severity: Annotated[int, Meta(ge=1, le=4)]
    subject: Subject = "product"
    outcome: Outcome = "unknown"
    age: Annotated[float, Meta(ge=0, le=130)] | None = None
    sex: Sex = "unknown"
    injury: Word | None = None
    body_part: Word | None = None
    weight: Annotated[float, Meta(gt=0, le=1e6)] = 1.0
    producer: Annotated[str, Meta(max_length=18)] | None = None
    batch: Id | None = None
    gtin: Annotated[str, Meta(max_length=14)] | None = None


class Complaint(Event, kw_only=True, gc=False, omit_defaults=True):
    """A complaint, a report to a hotline (12315, 12345, ...) or a border finding without a denominator."""

    product: Code
    region: Code
    channel: Id
    category: Word | None = None
    severity: Severity | None = None
    producer: Annotated[str, Meta(max_length=18)] | None = None
    batch: Id | None = None
    gtin: Annotated[str, Meta(max_length=14)] | None = None


class Accident(Event, kw_only=True, gc=False, omit_defaults=True):
    """A quality accident, graded by the ladder of deaths, serious injuries and direct loss."""

    product: Code
    region: Code
    authority: Id
    subject: Subject = "product"
    category: Word | None = None
    structural: bool = False
    deaths: Count = 0
    seriously_injured: Count = 0
    loss_cny: Money = 0.0
    producer: Annotated[str, Meta(max_length=18)] | None = None
    batch: Id | None = None
    gtin: Annotated[str, Meta(max_length=14)] | None = None


class Survey(Event, kw_only=True, gc=False, omit_defaults=True):
    """A satisfaction survey: the mean ``score`` (0 to 100) of ``respondents`` answers."""

    product: Code
    region: Code
    surveyor: Id
    score: Annotated[float, Meta(ge=0, le=100)]
    respondents: Annotated[int, Meta(ge=1, le=10_000_000)] = 1
    producer: Annotated[str, Meta(max_length=18)] | None = None


class QualityLoss(Event, kw_only=True, gc=False, omit_defaults=True):
    """The quality loss of a producer in a period against its output: both in CNY."""

    product: Code
    region: Code
    producer: Annotated[str, Meta(max_length=18)]
    loss_cny: Money
    output_cny: Annotated[float, Meta(gt=0, le=1e15)]


AnyEvent = Inspection | Injury | Complaint | Accident | Survey | QualityLoss

EVENT_TYPES: dict[Kind, type[AnyEvent]] = {
    "inspection": Inspection,
    "injury": Injury,
    "complaint": Complaint,
    "accident": Accident,
    "survey": Survey,
    "loss": QualityLoss,
}
KINDS: tuple[Kind, ...] = tuple(EVENT_TYPES)
"""The kinds in their one stated order; a kind's number is its place here."""

REPORTERS: dict[Kind, str] = {
    "inspection": "lab",
    "injury": "site",
    "complaint": "channel",
    "accident": "authority",
    "survey": "surveyor",
    "loss": "source",
}
"""The field of each kind that says who speaks."""

TOPICS: dict[Kind, str] = {
    "inspection": "inspections",
    "injury": "injuries",
    "complaint": "complaints",
    "accident": "accidents",
    "survey": "surveys",
    "loss": "losses",
}


def check(event: AnyEvent) -> None:
    """Check the rules that tie fields of one event together.

    Raises
    ------
    Rejection
        With the field at fault and the way to mend it.
    """
    if event.withdrawn:
        return
    if isinstance(event, Inspection):
        _check_inspection(event)
    elif isinstance(event, QualityLoss) and event.loss_cny > event.output_cny:
        raise Rejection("inconsistent", "loss_cny", "the loss exceeds the output; give both in CNY for one period")


def _check_inspection(event: Inspection) -> None:
    tested, failed = event.tested, event.failed
    if tested is None and failed is None:
        if event.verdict is None:
            raise Rejection("missing-field", "verdict", "give verdict (pass or fail), or tested and failed")
        if event.verdict == "pass" and any(not item.conforming for item in event.items):
            raise Rejection("inconsistent", "verdict", "verdict is pass, yet an item does not conform")
        return
    if tested is None or failed is None:
        missing = "tested" if tested is None else "failed"
        raise Rejection("missing-field", missing, f"an aggregate needs both tested and failed; {missing} is absent")
    if tested == 0:
        raise Rejection("out-of-range", "tested", "an aggregate of no tests says nothing; leave the record out")
    if failed > tested:
        raise Rejection("inconsistent", "failed", f"failed ({failed}) exceeds tested ({tested})")
    if event.verdict is not None:
        raise Rejection("inconsistent", "verdict", "an aggregate has no single verdict; leave verdict out")
