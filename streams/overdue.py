"""Duties that alerts bring, and which of them are overdue.

Each step of an alert's playbook that has a deadline is a duty: due so many hours after the alert was opened, or after
it was raised where that is earlier or brings a new step. The first step is done when the first disposition of the alert
arrives, whatever it says; every later one when one arrives that disposes of it or closes it. A duty that was done after
its time stays *late*; one that is not done is *overdue* from its time on, and *open* before.

All is a function of the topics ``emergency-response`` and ``dispositions`` and of one instant, to which arrivals are
held: asked again for the same instant, the same record gives the same answer, and the history can be replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from schemas.alerts import Alert, Disposition, Text
from streams.medium import Medium
from streams.ticks import COMPLETE, Calendar

__all__ = ["Answer", "Duty", "duties", "read_answers"]

State = Literal["open", "overdue", "done", "late"]
_ENDS: Final = ("dispose", "close")


@dataclass(frozen=True, slots=True)
class Answer:
    """A disposition and when it arrived."""

    arrival: datetime
    disposition: Disposition


@dataclass(frozen=True, slots=True)
class Duty:
    """One step of an alert with a deadline."""

    alert: Alert
    text: Text
    due: datetime
    done: Answer | None
    state: State


def duties(revisions: Iterable[Alert], answers: Iterable[Answer], now: datetime) -> list[Duty]:
    """Every duty of every alert that was open by ``now``, what is due first standing first.

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
        found += _of_alert(mine, sorted(said.get(name, []), key=lambda one: one.arrival), now)
    return sorted(found, key=lambda duty: (duty.due, duty.alert.id, duty.text.en))


def _of_alert(mine: Sequence[Alert], answers: Sequence[Answer], now: datetime) -> Iterator[Duty]:
    ended = next((one.as_of for one in mine if one.status == "resolved"), None)
    steps = _deadlines(mine)
    for at, (text, due) in enumerate(steps.values()):
        done = next((one for one in answers if at == 0 or one.disposition.action in _ENDS), None)
        if done is None and ended is not None and ended <= due:
            continue
        state: State = "overdue" if done is None and now > due else "open"
        if done is not None:
            state = "late" if done.arrival > due else "done"
        yield Duty(mine[-1], text, due, done, state)


def _deadlines(mine: Sequence[Alert]) -> Mapping[tuple[int, str], tuple[Text, datetime]]:
    """Each step's earliest deadline, in the order of the playbook; the first step is one step at every level."""
    steps: dict[tuple[int, str], tuple[Text, datetime]] = {}
    for alert in mine:
        if alert.status not in ("opened", "raised"):
            continue
        for at, action in enumerate(alert.actions):
            if action.deadline_hours is None:
                continue
            key = (min(at, 1), "" if at == 0 else action.text.en)
            due = alert.as_of + timedelta(hours=action.deadline_hours)
            held = steps.get(key)
            if held is None or due < held[1]:
                steps[key] = (action.text, due)
    return dict(sorted(steps.items(), key=lambda one: one[0][0]))


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
