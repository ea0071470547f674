"""What stands: the open alerts, those that ended lately, and the dispositions that have not taken effect yet.

A pure state, fed with the records of ``emergency-response`` and ``dispositions`` in the order of their partitions. Each
change has a number, so that a page can ask for what came after the one that it knows.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import msgspec

from schemas.alerts import Alert, Contributor, Disposition, Evidence, Text
from streams.evidence_words import evidence_words

__all__ = ["MAX_ENDED", "MAX_OPEN", "MAX_SHOWN", "Detail", "News", "Pending", "Row", "Situation"]

MAX_OPEN: Final = 20_000
"""Open alerts that are held; beyond that the least grave are left out, and counted."""
MAX_SHOWN: Final = 2_000
"""Open alerts that pages get, the gravest first."""
MAX_ENDED: Final = 200
_MAX_HISTORY: Final = 50
_MAX_PENDING: Final = 20
_MAX_PENDING_ALERTS: Final = 5_000
_MAX_CONTRIBUTORS: Final = 40


class Pending(msgspec.Struct, frozen=True):
    """A disposition that is in the log, and waits for its tick to close."""

    id: str
    action: str
    by: str
    arrived: datetime
    reason: str | None


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """An alert as lists and the matrix show it. ``due``: when its first action must be done; None once it is."""

    id: str
    revision: int
    status: str
    level: int
    grade: str
    kind: str
    scope: str
    product: str
    product_name: Text
    region: str
    region_name: Text
    headline: Text
    onset: datetime
    as_of: datetime
    due: datetime | None = None
    by: str | None = None
    reason: str | None = None
    pending: list[Pending] = []


class Revision(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of an alert's history."""

    as_of: datetime
    grade: str
    status: str
    by: str | None = None
    reason: str | None = None


class Step(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What to do, and by when."""

    text: Text
    due: datetime | None = None


class Found(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A piece of evidence with its words."""

    words: Text
    evidence: Evidence


class Detail(msgspec.Struct, kw_only=True, omit_defaults=True):
    """All that the board tells of one alert, its chart apart."""

    row: Row
    evidence: list[Found]
    contributors: list[Contributor]
    steps: list[Step]
    history: list[Revision]
    source: str = ""
    hazard: str = ""
    p_value: float | None = None
    configuration: str = ""
    events: int = 0


class News(msgspec.Struct, kw_only=True):
    """What has changed since a version: rows that are new or other than before. ``whole``: these rows are all there
    are, whatever was known before. ``left_out``: open alerts beyond the bound, that are not among them."""

    version: str
    whole: bool
    rows: list[Row]
    open: int
    left_out: int
    following: bool


@dataclass(slots=True)
class _Held:
    alert: Alert
    history: list[Revision]
    opened: datetime
    dues: dict[str, datetime]
    """By the text of its step; the first step is one step at every level, and goes by none."""
    changed: int = 0
    pending: list[Pending] = field(default_factory=list)


class Situation:
    """The situation; see the module. ``region`` tells the names of districts."""

    def __init__(self, region: Callable[[str], Text] | None = None) -> None:
        self._region = region
        self._ranked: tuple[int, list[_Held]] = (-1, [])
        """The open alerts in order, and the change as of which they are."""
        self._everything: News | None = None
        self._epoch = secrets.token_hex(4)
        self._changes = 0
        self._open: dict[str, _Held] = {}
        self._ended: OrderedDict[str, _Held] = OrderedDict()
        self._early: OrderedDict[str, list[Pending]] = OrderedDict()
        """Dispositions of alerts that are not known (yet)."""
        self._forgotten = 0
        """The change before which ended alerts may have been forgotten."""
        self._left_out: set[str] = set()
        self.following = False

    # --- what comes in ---------------------------------------------------------------------------------------------

    def follow(self, well: bool) -> None:
        """Whether the topics can be read."""
        self._changes += self.following != well
        self.following = well

    def take(self, alert: Alert) -> None:
        """The next revision of an alert; one that is known already changes nothing."""
        held = self._open.pop(alert.id, None) or self._ended.pop(alert.id, None)
        self._left_out.discard(alert.id)
        if held is None:
            held = _Held(alert, [], alert.as_of, {}, pending=self._early.pop(alert.id, []))
        elif alert.revision <= held.alert.revision:
            (self._ended if held.alert.status == "resolved" else self._open)[alert.id] = held
            return
        held.alert = alert
        line = Revision(
            as_of=alert.as_of, grade=alert.grade, status=alert.status, by=alert.acknowledged_by, reason=alert.reason
        )
        held.history = [*held.history[:1], *held.history[1:][-(_MAX_HISTORY - 2) :], line]
        if alert.status in ("opened", "raised"):
            for step, action in zip(_steps(alert), alert.actions, strict=True):
                if action.deadline_hours is not None:
                    due = alert.as_of + timedelta(hours=action.deadline_hours)
                    held.dues[step] = min(due, held.dues.get(step, due))
        if alert.status in ("acknowledged", "resolved"):
            # A disposition takes effect at the end of its arrival's tick: what arrived before has taken effect.
            held.pending = [one for one in held.pending if one.arrived >= alert.as_of]
        self._changes += 1
        held.changed = self._changes
        if alert.status == "resolved":
            self._end(held)
        else:
            self._open[alert.id] = held
            self._bound()

    def _end(self, held: _Held) -> None:
        held.pending = []
        self._ended[held.alert.id] = held
        while len(self._ended) > MAX_ENDED:
            _, oldest = self._ended.popitem(last=False)
            self._forgotten = max(self._forgotten, oldest.changed)

    def _bound(self) -> None:
        if len(self._open) > MAX_OPEN:
            least = max(self._open.values(), key=_rank)
            del self._open[least.alert.id]
            self._left_out.add(least.alert.id)
            self._forgotten = self._changes

    def dispose(self, arrived: datetime, disposition: Disposition) -> None:
        """A disposition that has arrived."""
        one = Pending(
            disposition.disposition_id, disposition.action, disposition.by, arrived, disposition.reason
        )  # fmt: skip
        held = self._open.get(disposition.alert_id)
        if held is None:
            if disposition.alert_id not in self._ended:
                self._early.setdefault(disposition.alert_id, []).append(one)
                while len(self._early) > _MAX_PENDING_ALERTS:
                    self._early.popitem(last=False)
            return
        if any(line.status == "acknowledged" and arrived < line.as_of for line in held.history):
            return
        if len(held.pending) < _MAX_PENDING and all(one.id != other.id for other in held.pending):
            held.pending.append(one)
            self._changes += 1
            held.changed = self._changes

    # --- what is told ----------------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """Names the present state."""
        return f"{self._epoch}-{self._changes}"

    @property
    def held(self) -> int:
        """How many open alerts are held."""
        return len(self._open)

    @property
    def count(self) -> int:
        """How many alerts are open, those that are not held too."""
        return len(self._open) + len(self._left_out)

    @property
    def open_alerts(self) -> list[Alert]:
        """The open alerts, gravest first."""
        return [held.alert for held in self._gravest()]

    def _gravest(self) -> list[_Held]:
        if self._ranked[0] != self._changes:
            self._ranked = (self._changes, sorted(self._open.values(), key=_rank))
        return self._ranked[1]

    def news(self, since: str = "") -> News:
        """What a page that knows a version has to learn; everything where the version is not of this process."""
        epoch, _, number = since.partition("-")
        known = (
            int(number) if epoch == self._epoch and number.isascii() and number.isdigit() and len(number) < 18 else -1
        )
        if known < self._forgotten or known > self._changes or len(self._open) > MAX_SHOWN:
            return self._all()
        held = [*self._gravest(), *self._ended.values()]
        return self._told([one for one in held if one.changed > known], whole=False)

    def _all(self) -> News:
        """Everything; made once for all pages that ask for it."""
        if self._everything is None or self._everything.version != self.version:
            self._everything = self._told([*self._gravest()[:MAX_SHOWN], *self._ended.values()], whole=True)
        return self._everything

    def _told(self, held: Sequence[_Held], *, whole: bool) -> News:
        return News(
            version=self.version,
            whole=whole,
            rows=[_row(one) for one in held],
            open=self.count,
            left_out=self.count - min(len(self._open), MAX_SHOWN),
            following=self.following,
        )

    def alert(self, alert_id: str) -> Alert | None:
        """The last revision of an alert that is held."""
        held = self._open.get(alert_id) or self._ended.get(alert_id)
        return None if held is None else held.alert

    def detail(self, alert_id: str) -> Detail | None:
        """All of one alert; None where it is not held."""
        held = self._open.get(alert_id) or self._ended.get(alert_id)
        if held is None:
            return None
        alert = held.alert
        return Detail(
            row=_row(held),
            evidence=[
                Found(words=evidence_words(alert.kind, one, self._region), evidence=one) for one in alert.evidence
            ],
            contributors=alert.contributors[:_MAX_CONTRIBUTORS],
            steps=[
                Step(text=action.text, due=held.dues.get(step))
                for step, action in zip(_steps(alert), alert.actions, strict=True)
            ],
            history=held.history,
            source=alert.source,
            hazard=alert.hazard,
            p_value=alert.p_value,
            configuration=alert.provenance.config,
            events=sum(one.events for one in alert.provenance.sources),
        )


def _rank(held: _Held) -> tuple[int, float, str]:
    alert = held.alert
    return alert.level, -alert.as_of.timestamp(), alert.id


def _steps(alert: Alert) -> list[str]:
    return ["" if at == 0 else action.text.en for at, action in enumerate(alert.actions)]


def _row(held: _Held) -> Row:
    alert = held.alert
    answered = alert.acknowledged_by is not None or alert.status == "resolved" or bool(held.pending)
    return Row(
        id=alert.id, revision=alert.revision, status=alert.status, level=alert.level, grade=alert.grade,
        kind=alert.kind, scope=alert.scope, product=alert.product, product_name=alert.product_name,
        region=alert.region, region_name=alert.region_name, headline=alert.headline, onset=held.opened,
        as_of=alert.as_of, due=None if answered else held.dues.get(""), by=alert.acknowledged_by, reason=alert.reason,
        pending=held.pending,
    )  # fmt: skip
