"""Duties are due by the alert's own deadlines, answered by dispositions as they arrived, and asked of any moment."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from builders import START, disposition
from held import Held
from small_world import accident, fails, fill, succeeds

from schemas.alerts import Action, Alert, Provenance, Status, Text
from streams.config import Config, DeadlineRules
from streams.log import LogRecord
from streams.overdue import NO_DEADLINES, Answer, duties, read_answers
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


RULES = DeadlineRules(
    assess_hours=(1.0, 2.0, 30.0, 40.0), dispose_hours=(10.0, 20.0, 60.0, 80.0), close_hours=(0.0, 50.0, 100.0, 200.0)
)


def stages(
    revisions: list[Alert], answers: list[Answer], now: datetime, rules: DeadlineRules = RULES
) -> dict[str, str]:
    return {duty.stage: duty.state for duty in duties(revisions, answers, now, rules)}


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


def test_after_the_first_report_an_alert_is_assessed_disposed_of_and_closed_each_in_its_time() -> None:
    now = AT + 25 * HOUR
    assert stages([alert()], [], now) == {
        "first-report": "overdue", "assess": "open", "dispose": "open", "close": "open"
    }  # fmt: skip
    late = {"first-report": "overdue", "assess": "overdue", "dispose": "overdue", "close": "open"}
    assert stages([alert()], [], AT + 99 * HOUR) == late
    assert [duty.due for duty in duties([alert()], [], now, RULES)] == [AT + h * HOUR for h in (24, 30, 60, 100)]


@pytest.mark.parametrize(
    ("action", "done"),
    [
        ("acknowledge", {"first-report"}),
        ("assess", {"first-report", "assess"}),
        ("dispose", {"first-report", "assess", "dispose"}),
        ("close", {"first-report", "assess", "dispose", "close"}),
    ],
)
def test_a_disposition_does_its_own_duty_and_those_before_it(action: str, done: set[str]) -> None:
    found = stages([alert()], [answered(action, AT + HOUR)], AT + 999 * HOUR)
    assert found == {
        stage: "done" if stage in done else "overdue" for stage in ("first-report", "assess", "dispose", "close")
    }


def test_what_was_done_after_its_time_stays_late() -> None:
    answers = [answered("assess", AT + 31 * HOUR), answered("dispose", AT + 60 * HOUR)]
    found = stages([alert()], answers, AT + 99 * HOUR)
    assert (found["assess"], found["dispose"], found["close"]) == ("late", "done", "open")


def test_a_graver_level_brings_the_deadlines_nearer_and_a_milder_one_does_not_put_them_off() -> None:
    def at_level(revision: int, status: Status, level: int, hours: float) -> Alert:
        return msgspec.structs.replace(alert(revision, status, AT + hours * HOUR), level=level)

    raised = [alert(), at_level(2, "raised", 2, 5)]
    due = {duty.stage: duty.due for duty in duties(raised, [], AT + 6 * HOUR, RULES)}
    assert (due["assess"], due["dispose"], due["close"]) == (AT + 7 * HOUR, AT + 25 * HOUR, AT + 55 * HOUR)
    lowered = [*raised, at_level(3, "lowered", 4, 6)]
    assert {duty.stage: duty.due for duty in duties(lowered, [], AT + 6 * HOUR, RULES)} == due
    # No deadline holds at level I for closing; that of the milder level before stands.
    gravest = {duty.stage: duty.due for duty in duties([at_level(1, "opened", 1, 0)], [], AT, RULES)}
    assert "close" not in gravest


def test_an_alert_that_was_resolved_in_time_need_not_be_disposed_of() -> None:
    resolved = [alert(), alert(2, "resolved", AT + 40 * HOUR)]
    assert stages(resolved, [], AT + 999 * HOUR) == {"first-report": "overdue", "assess": "overdue"}


def test_deadlines_of_zero_and_no_rules_bring_no_duty() -> None:
    assert stages([alert()], [], AT, NO_DEADLINES) == {"first-report": "open"}
    assert [duty.stage for duty in duties([alert()], [], AT)] == ["first-report"]


def test_the_default_deadlines_never_come_later_for_a_graver_alert_or_earlier_for_a_later_step() -> None:
    rules = Config().deadlines
    steps = (rules.assess_hours, rules.dispose_hours, rules.close_hours)
    assert all(list(hours) == sorted(hours) and min(hours) > 0 for hours in steps)
    assert all(
        first < later for nearer, farther in pairwise(steps) for first, later in zip(nearer, farther, strict=True)
    )


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

    def told(hours: float, *more: object) -> list[dict[str, object]]:
        when = (event + hours * HOUR).isoformat()
        text = succeeds("alerts", "overdue", "--as-of", when, "--json", "--data", data, *more).stdout
        return [one for one in map(json.loads, text.splitlines()) if one["kind"] == "grave-event"]

    # By the default rules a grave event is reported within the hour, to the province within two.
    assert [len(told(hours)) for hours in (0.5, 1.5, 2.5)] == [0, 1, 2]
    assert {one["state"] for one in told(0.5, "--all")} == {"open"}
    assert {one["stage"] for one in told(2.5)} == {"first-report", "report"}
    # Level II: assessed within 8 hours, disposed of within 72, by the default configuration.
    assert [one["stage"] for one in told(9)].count("assess") == 1
    assert [one["stage"] for one in told(73)].count("dispose") == 1
    own = tmp_path / "own.toml"
    own.write_text("[deadlines]\nassess_hours = [0, 1, 0, 0]\n")
    assert [one["stage"] for one in told(1.5, "--config", own)].count("assess") == 1
    own.write_text("[counts]\nalpha = 1e-7\n")
    assert "counts.alpha" in fails("alerts", "overdue", "--config", own, "--data", data).line
    assert "overdue of" in succeeds("alerts", "overdue", "--data", data).stdout
    assert "is no time" in fails("alerts", "overdue", "--as-of", "noon", "--data", data).line
