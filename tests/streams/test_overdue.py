"""Duties are due by the alert's own deadlines, answered by dispositions as they arrived, and asked of any moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from builders import START, disposition
from held import Held
from small_world import accident, fails, fill, succeeds

from schemas.alerts import Action, Alert, Provenance, Status, Text
from streams.log import LogRecord
from streams.overdue import Answer, duties, read_answers
from streams.ticks import Calendar

AT = datetime(2024, 3, 1, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)
NOWHERE = Text(zh="", en="")


def alert(
    revision: int = 1, status: Status = "opened", at: datetime = AT, hours: float = 24.0, final: float | None = None
) -> Alert:
    steps = [Action(text=Text(zh="核", en="check"), deadline_hours=hours), Action(text=Text(zh="追", en="trace"))]
    steps += [] if final is None else [Action(text=Text(zh="终报", en="final"), deadline_hours=final)]
    return Alert(
        id="a", revision=revision, status=status, level=3, grade="III", colour="yellow", kind="pass-rate", scope="cell",
        product="F0101", product_name=NOWHERE, region="120110", region_name=NOWHERE, onset=at, as_of=at,
        headline=NOWHERE, actions=steps, provenance=Provenance(config="c", version="1", catalogue="t"),
    )  # fmt: skip


def states(revisions: list[Alert], answers: list[Answer], now: datetime) -> list[tuple[str, str]]:
    return [(duty.text.en, duty.state) for duty in duties(revisions, answers, now)]


def answered(action: str, at: datetime) -> Answer:
    return Answer(at, disposition("a", action, f"d{action}{at}"))


@pytest.mark.parametrize(("hours", "state"), [(1, "open"), (24, "open"), (24.001, "overdue"), (999, "overdue")])
def test_it_is_overdue_once_its_time_has_passed(hours: float, state: str) -> None:
    assert states([alert()], [], AT + hours * HOUR) == [("check", state)]


def test_before_the_alert_there_is_no_duty() -> None:
    assert states([alert()], [], AT - HOUR) == []


@pytest.mark.parametrize("action", ["acknowledge", "assess", "dispose", "close"])
def test_any_answer_does_the_first_step_in_time_or_late(action: str) -> None:
    now = AT + 99 * HOUR
    assert states([alert()], [answered(action, AT + 24 * HOUR)], now) == [("check", "done")]
    assert states([alert()], [answered(action, AT + 25 * HOUR)], now) == [("check", "late")]


def test_an_answer_that_had_not_arrived_does_not_count() -> None:
    answers = [answered("close", AT + 30 * HOUR)]
    assert states([alert()], answers, AT + 29 * HOUR) == [("check", "overdue")]
    assert states([alert()], answers, AT + 31 * HOUR) == [("check", "late")]


def test_a_later_step_needs_more_than_an_acknowledgement() -> None:
    mine, now = [alert(final=240.0)], AT + 300 * HOUR
    assert states(mine, [answered("acknowledge", AT + HOUR)], now) == [("check", "done"), ("final", "overdue")]
    both = [answered("acknowledge", AT + HOUR), answered("dispose", AT + 200 * HOUR)]
    assert states(mine, both, now) == [("check", "done"), ("final", "done")]


def test_a_raised_alert_is_due_earlier_and_never_later() -> None:
    raised = alert(2, "raised", AT + 2 * HOUR, hours=2.0)
    (duty,) = duties([alert(), raised], [], AT + 5 * HOUR)
    assert (duty.due, duty.state) == (AT + 4 * HOUR, "overdue")
    late = alert(2, "raised", AT + 23 * HOUR, hours=2.0)
    (duty,) = duties([alert(), late], [], AT + 99 * HOUR)
    assert duty.due == AT + 24 * HOUR


def test_what_was_resolved_in_time_is_no_duty_any_more() -> None:
    assert states([alert(), alert(2, "resolved", AT + 20 * HOUR)], [], AT + 99 * HOUR) == []
    assert states([alert(), alert(2, "resolved", AT + 30 * HOUR)], [], AT + 99 * HOUR) == [("check", "overdue")]


def test_answers_arrive_by_the_running_maximum_each_once_and_rubbish_is_passed_over() -> None:
    def row(offset: int, at: int, value: bytes) -> LogRecord:
        return LogRecord(offset, at, None, value)

    one, two = (msgspec.json.encode(disposition("a", "assess", name)) for name in ("d1", "d2"))
    rows = [row(0, START + 10_000, one), row(1, START, two), row(2, START + 20_000, one), row(3, START, b"{")]
    found = read_answers(Held({("dispositions", 0): rows}), Calendar(3_600_000, 0))
    assert [(one.disposition.disposition_id, int(one.arrival.timestamp() * 1_000) - START) for one in found] == [
        ("d1", 10_000), ("d2", 10_000),
    ]  # fmt: skip


def test_the_command_tells_what_was_overdue_at_a_time(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    succeeds("run", "--until-end", "--data", data)
    event = datetime.fromisoformat(accident()["reported_at"])

    def told(hours: float, *more: str) -> list[dict[str, object]]:
        when = (event + hours * HOUR).isoformat()
        text = succeeds("alerts", "overdue", "--as-of", when, "--json", "--data", data, *more).stdout
        return [one for one in map(json.loads, text.splitlines()) if one["kind"] == "grave-event"]

    # By the default rules a grave event is reported within the hour, to the province within two.
    assert [len(told(hours)) for hours in (0.5, 1.5, 2.5)] == [0, 1, 2]
    assert {one["state"] for one in told(0.5, "--all")} == {"open"}
    assert "overdue of" in succeeds("alerts", "overdue", "--data", data).stdout
    assert "is no time" in fails("alerts", "overdue", "--as-of", "noon", "--data", data).line
