"""What comes out: signals (evidence), alerts, dispositions and dead letters, as msgspec Structs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from schemas.events import Id, Kind, Word

__all__ = [
    "Action",
    "Alert",
    "AlertKind",
    "Contributor",
    "DeadLetter",
    "Disposition",
    "Evidence",
    "Level",
    "Provenance",
    "Signal",
    "SourceRange",
    "Status",
    "Text",
]

AlertKind = Literal[
    "pass-rate",
    "injury-surge",
    "complaint-surge",
    "satisfaction",
    "quality-loss",
    "new-hazard",
    "lab-drift",
    "silent-source",
    "grave-event",
]
Level = Annotated[int, Meta(ge=1, le=4)]
"""China's grades: 1 (I, red), 2 (II, orange), 3 (III, yellow), 4 (IV, blue). A lower number is graver."""
Status = Literal["opened", "raised", "lowered", "acknowledged", "resolved"]
Role = Literal["primary", "explained", "part"]
Scope = Literal["cell", "regional", "industry", "systemic"]
Against = Literal["target", "own-history", "peers", "baseline", "run-length", "ladder", "independence"]


class Text(msgspec.Struct, frozen=True):
    """One sentence in Chinese and in English."""

    zh: str
    en: str


class Evidence(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one detector found in one window.

    ``observed`` and ``expected`` are counts of adverse events (failures, injuries, ...); ``rate`` with ``lower`` and
    ``upper`` is the pass rate or index with its interval; ``recurrence_days`` says how often chance alone would show
    as much in one cell. ``e_value`` has a mean of 1 at most where nothing is wrong, whenever it is looked at.
    ``lab_factor`` says how many times more failures the labs of the window find than their peers
    would: it is in ``expected`` already. ``regions`` are the districts of a cluster.
    """

    detector: str
    against: Against
    window_days: int
    observed: float
    expected: float | None = None
    tested: int | None = None
    rate: float | None = None
    lower: float | None = None
    upper: float | None = None
    reference: float | None = None
    statistic: float | None = None
    threshold: float | None = None
    p_value: float | None = None
    recurrence_days: float | None = None
    e_value: float | None = None
    lab_factor: float | None = None
    regions: list[str] = []


class Contributor(msgspec.Struct, kw_only=True):
    """Who or what contributes to the evidence: adverse events by lab or site, producer, batch, GTIN."""

    role: Literal["lab", "producer", "batch", "gtin"]
    code: str
    adverse: int


class SourceRange(msgspec.Struct, kw_only=True):
    """Where the events behind the evidence lie in a raw topic."""

    topic: str
    partition: int
    first_offset: int
    last_offset: int
    events: int


class Provenance(msgspec.Struct, kw_only=True):
    """From what: configuration, version, catalogue and the raw records.

    The records are those reported in the ``window_days`` days up to that of ``as_of``; 0 where none are named.
    """

    config: str
    version: str
    catalogue: str
    sources: list[SourceRange] = []
    window_days: int = 0


class Signal(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The evidence for one cell at one tick, with every score that mattered.

    ``role``: ``primary`` stands for itself, ``explained`` is the echo of a cell below it, ``part`` belongs to a
    broader primary cell. ``source`` names the lab, hospital, hotline or authority where the evidence is about one, and
    ``hazard`` the kind of injury where it is about a pair.
    """

    tick: int
    as_of: datetime
    kind: AlertKind
    product: str
    region: str
    role: Role
    level: Level
    scope: Scope
    p_value: float
    excess: float
    evidence: list[Evidence]
    e_value: float | None = None
    contributors: list[Contributor] = []
    sources: list[SourceRange] = []
    window_days: int = 0
    alert_id: str | None = None
    withdrawn: bool = False
    source: str = ""
    hazard: str = ""
    severity: Annotated[int, Meta(ge=0, le=4)] = 0


class Action(msgspec.Struct, kw_only=True):
    """What to do, and by when after the alert was opened."""

    text: Text
    deadline_hours: float | None = None


class Alert(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One revision of an alert, as it goes to ``emergency-response``.

    ``id`` is derived from what the alert is about (kind, product, region, onset tick, or the grave event);
    ``revision`` counts up from 1. ``emitted_at`` is the only wall-clock field.
    """

    id: str
    revision: int
    status: Status
    level: Level
    grade: Literal["I", "II", "III", "IV"]
    colour: Literal["red", "orange", "yellow", "blue"]
    kind: AlertKind
    scope: Scope
    product: str
    product_name: Text
    region: str
    region_name: Text
    onset: datetime
    as_of: datetime
    headline: Text
    p_value: float | None = None
    evidence: list[Evidence] = []
    contributors: list[Contributor] = []
    actions: list[Action] = []
    event_id: str | None = None
    acknowledged_by: str | None = None
    reason: str | None = None
    source: str = ""
    hazard: str = ""
    provenance: Provenance
    emitted_at: datetime | None = None


class Disposition(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What operations did about an alert: who, when and why."""

    disposition_id: Id
    alert_id: Id
    action: Literal["acknowledge", "assess", "dispose", "close"]
    by: Id
    at: datetime
    reason: Word | None = None


class DeadLetter(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A refused record: the original bytes, why, which field, and where it came from.

    ``value`` and ``key`` hold the original bytes (base64 in JSON). A value over the bound is cut; ``size`` and
    ``sha256`` are always those of the whole. Of a ``redacted`` one the original bytes stand in the raw topic only:
    ``value`` has the names of its fields without what was in them, because it held personal data. A letter of the stage
    ``requeue`` is a note: the record of the letter at ``offset`` of ``dead-letters`` was written to its topic again.
    """

    reason: str
    field: str
    detail: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    stage: Literal["publish", "intake", "assess", "escalate", "requeue"]
    kind: Kind | Literal["disposition"] | None = None
    key: bytes | None = None
    value: bytes | None = None
    size: int = 0
    sha256: str | None = None
    headers: dict[str, bytes] = {}
    origin: str | None = None
    redacted: bool = False
