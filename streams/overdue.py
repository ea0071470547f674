"""Duties that alerts bring, and which of them are overdue.

Each step of an alert's playbook that has a deadline is a duty: due so many hours after the alert was opened, or after
it was raised where that is earlier or brings a new step. The first step is done when the first disposition of the alert
arrives, whatever it says; every later one when one arrives that disposes of it or closes it. What must become of an
alert after its first report is a duty too, by the deadlines of its level (:class:`streams.config.DeadlineRules`): it is
assessed, disposed of, closed. Each of these is done by a disposition that says so, or by one that goes further. A duty
that was done after its time stays *late*; one that is not done is *overdue* from its time on, and *open* before.

All is a function of the topics ``emergency-response`` and ``dispositions`` and of one instant, to which arrivals are
held: asked again for the same instant, the same record gives the same answer, and the history can be replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from schemas.alerts import Alert, Disposition, Text
from streams.config import DeadlineRules, Hours
from streams.medium import Medium
from streams.ticks import COMPLETE, Calendar

__all__ = ["NO_DEADLINES", "Answer", "Duty", "duties", "read_answers"]

_NONE: Final[Hours] = (0.0, 0.0, 0.0, 0.0)
NO_DEADLINES: Final = DeadlineRules(assess_hours=_NONE, dispose_hours=_NONE, close_hours=_NONE)
"""Only the playbook's own deadlines hold."""

State = Literal["open", "overdue", "done", "late"]
Stage = Literal["first-report", "report", "assess", "dispose", "close"]
_DONE_BY: Final[dict[Stage, tuple[str, ...]]] = {
    "first-report": ("acknowledge", "assess", "dispose", "close"),
    "report": ("dispose", "close"),
    "assess": ("assess", "dispose", "close"),
    "dispose": ("dispose", "close"),
    "close": ("close",),
}
"""The dispositions that do a duty, by its stage."""
_TEXTS: Final[dict[Stage, Text]] = {
    "assess": Text(zh="评估风险", en="assess the risk"),
    "dispose": Text(zh="完成处置", en="dispose of it"),
    "close": Text(zh="核查整改并关闭", en="verify what was done, and close"),
}
_Step = tuple[Stage, Text, datetime]


@dataclass(frozen=True, slots=True)
class Answer:
    """A disposition and when it arrived."""

    arrival: datetime
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class Duty:
    """One step of an alert with a deadline."""

    alert: Alert
    stage: Stage
    text: Text
    due: datetime
    done: Answer | None
    state: State


def duties(
    revisions: Iterable[Alert], answers: Iterable[Answer], now: datetime, rules: DeadlineRules = NO_DEADLINES
) -> list[Duty]:
    """Every duty of every alert that was open by ``now``, what is due first standing first.

    ``rules`` say by when an alert is assessed, disposed of and closed; by default there are no such duties.

    What arrived after ``now`` is left out, so that it can be asked what was overdue at any moment. An alert that was
    resolved for want of evidence keeps the duties that were due before, and loses those that were not.
    """
    by_alert: dict[str, list[Alert]] = {}
    for alert in revisions:
        if alert.as_of <= now:
            by_alert.setdefault(alert.id, []).append(alert)
    said: dict[str, list[Answer]] = {}
    for answer in answers:
        if answer.arrival <= now:
            said.setdefault(answer.disposition.alert_id, []).append(answer)
    found: list[Duty] = []
    for name, mine in by_alert.items():
        mine.sort(key=lambda alert: alert.revision)
        found += _of_alert(mine, sorted(said.get(name, []), key=lambda one: one.arrival), now, rules)
    return sorted(found, key=lambda duty: (duty.due, duty.alert.id, duty.text.en))


def _of_alert(mine: Sequence[Alert], answers: Sequence[Answer], now: datetime, rules: DeadlineRules) -> Iterator[Duty]:
    ended = next((one.as_of for one in mine if one.status == "resolved"), None)
    for stage, text, due in (*_playbook(mine), *_disposal(mine, rules)):
        done = next((one for one in answers if one.disposition.action in _DONE_BY[stage]), None)
        if done is None and ended is not None and ended <= due:
            continue
        state: State = "overdue" if done is None and now > due else "open"
        if done is not None:
            state = "late" if done.arrival > due else "done"
        yield Duty(mine[-1], stage, text, due, done, state)


def _playbook(mine: Sequence[Alert]) -> list[_Step]:
    """Each step's earliest deadline, in the order of the playbook; the first step is one step at every level."""
    steps: dict[tuple[int, str], _Step] = {}
    for alert in mine:
        if alert.status not in ("opened", "raised"):
            continue
        for at, action in enumerate(alert.actions):
            if action.deadline_hours is None:
                continue
            key = (min(at, 1), "" if at == 0 else action.text.en)
            due = alert.as_of + timedelta(hours=action.deadline_hours)
            held = steps.get(key)
            if held is None or due < held[2]:
                steps[key] = ("report" if at else "first-report", action.text, due)
    return [step for _, step in sorted(steps.items(), key=lambda one: one[0][0])]


def _disposal(mine: Sequence[Alert], rules: DeadlineRules) -> Iterator[_Step]:
    """What must become of the alert, each by its earliest deadline."""
    by_level: tuple[tuple[Stage, Hours], ...] = (
        ("assess", rules.assess_hours), ("dispose", rules.dispose_hours), ("close", rules.close_hours)
    )  # fmt: skip
    for stage, hours in by_level:
        due = [
            alert.as_of + timedelta(hours=hours[alert.level - 1])
            for alert in mine
            if alert.status in ("opened", "raised") and hours[alert.level - 1] > 0
        ]
        if due:
            yield stage, _TEXTS[stage], min(due)


def read_answers(medium: Medium, calendar: Calendar) -> list[Answer]:
    """Every disposition that can be read, once each, with its arrival."""
    decode = msgspec.json.Decoder(Disposition).decode
    found: dict[str, Answer] = {}
    for origin, end in medium.ends(["dispositions"]).items():
        latest = -COMPLETE
        for records in medium.read(origin, 0, end, 2_000):
            for record in records:
                latest = max(latest, record.timestamp)
                try:
                    one = decode(record.value or b"")
                except msgspec.DecodeError:  # a dead letter tells of it
                    continue
                found.setdefault(one.disposition_id, Answer(calendar.moment(latest), one))
    return list(found.values())
