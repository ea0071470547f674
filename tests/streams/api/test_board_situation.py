"""What stands, as the board knows it: revisions, answers on their way, deadlines, and an end to everything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from schemas.alerts import Action, Alert, Disposition, Evidence, Provenance, Text
from streams.board import situation as module
from streams.board.situation import Situation
from streams.evidence_words import evidence_words

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def alert(number: int = 1, revision: int = 1, **changes: Any) -> Alert:
    level = changes.pop("level", 2)
    made = Alert(
        id=f"pass-rate-{number:04d}", revision=revision, status="opened", level=level,
        grade=("I", "II", "III", "IV")[level - 1], colour=("red", "orange", "yellow", "blue")[level - 1],
        kind="pass-rate", scope="cell", product="F0101", product_name=Text("奶", "milk"), region="120101",
        region_name=Text("和平", "Heping"), onset=NOON - HOUR, as_of=NOON, headline=Text("标题", "headline"),
        actions=[Action(text=Text("一", "first"), deadline_hours=4.0), Action(text=Text("二", "second"))],
        provenance=Provenance(config="c", version="v", catalogue="k"),
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def answer(number: int = 1, action: Any = "acknowledge", name: str = "d-1") -> Disposition:
    return Disposition(disposition_id=name, alert_id=f"pass-rate-{number:04d}", action=action, by="Li", at=NOON)


def known(situation: Situation, *alerts: Alert) -> Situation:
    for one in alerts:
        situation.take(one)
    return situation


def test_a_page_learns_everything_first_and_then_only_what_has_changed() -> None:
    situation = known(Situation(), alert(1), alert(2, level=1))
    first = situation.news()
    assert first.whole
    assert [row.grade for row in first.rows] == ["I", "II"]
    assert situation.news(first.version).rows == []
    situation.take(alert(1, 2, status="raised", level=1))
    second = situation.news(first.version)
    assert (second.whole, [row.id for row in second.rows]) == (False, ["pass-rate-0001"])
    assert second.rows[0].onset == NOON, "when it was opened"
    for stranger in (
        "",
        "x",
        "beef-1",
        f"{first.version}9",
        first.version.replace("-", "-x"),
        "9" * 40,
        first.version.partition("-")[0] + "-²",
    ):
        assert situation.news(stranger).whole


def test_a_revision_that_is_known_changes_nothing() -> None:
    situation = known(Situation(), alert(1, 2, status="raised"))
    version = situation.version
    known(situation, alert(1, 2, status="raised"), alert(1, 1))
    assert situation.version == version


def test_an_answer_is_on_its_way_until_the_tick_of_its_arrival_has_closed() -> None:
    situation = known(Situation(), alert())
    situation.dispose(NOON + HOUR / 2, answer())
    situation.dispose(NOON + HOUR / 2, answer())
    (row,) = situation.news().rows
    assert [(one.action, one.by) for one in row.pending] == [("acknowledge", "Li")]
    assert row.due is None, "somebody has answered"
    situation.take(alert(1, 2, status="acknowledged", as_of=NOON + HOUR, acknowledged_by="Li"))
    (row,) = situation.news().rows
    assert (row.pending, row.by, row.status) == ([], "Li", "acknowledged")
    # The topics are read one after the other: an answer that has taken effect long ago is not on its way.
    situation.dispose(NOON + HOUR / 2, answer(name="d-0"))
    assert situation.news().rows[0].pending == []
    situation.dispose(NOON + 2 * HOUR, answer(name="d-2", action="close"))
    assert [one.action for one in situation.news().rows[0].pending] == ["close"]


def test_an_answer_that_is_read_before_its_alert_waits_for_it() -> None:
    situation = Situation()
    situation.dispose(NOON + HOUR / 2, answer())
    known(situation, alert())
    assert len(situation.news().rows[0].pending) == 1


def test_the_first_deadline_is_the_earliest_that_any_revision_set() -> None:
    later = alert(1, 2, status="raised", level=1, as_of=NOON + HOUR)
    later.actions[0].deadline_hours = 1.0
    situation = known(Situation(), alert(), later)
    assert situation.news().rows[0].due == NOON + 2 * HOUR
    known(situation, alert(1, 3, status="lowered", level=4, as_of=NOON + 2 * HOUR))
    detail = situation.detail("pass-rate-0001")
    assert detail is not None
    assert [step.due for step in detail.steps] == [NOON + 2 * HOUR, None]
    assert [line.status for line in detail.history] == ["opened", "raised", "lowered"]


def test_what_has_ended_is_told_and_then_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 2)
    situation = known(Situation(), *(alert(number) for number in range(4)))
    version = situation.version
    situation.take(alert(0, 2, status="resolved"))
    told = situation.news(version)
    assert [(row.id, row.status) for row in told.rows] == [("pass-rate-0000", "resolved")]
    assert told.open == 3
    for number in (1, 2):
        situation.take(alert(number, 2, status="resolved"))
    assert situation.alert("pass-rate-0000") is None
    assert situation.news(version).whole, "the page may hold an alert of which nothing is known any more"


def test_the_gravest_are_held_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 3)
    monkeypatch.setattr(module, "MAX_SHOWN", 2)
    situation = known(Situation(), *(alert(number, level=4) for number in range(3)), alert(9, level=1))
    news = situation.news()
    assert (len(news.rows), news.open, news.left_out, news.whole) == (2, 4, 2, True)
    assert news.rows[0].id == "pass-rate-0009"
    assert len(situation.open_alerts) == 3
    assert situation.news(situation.version).whole, "who is shown may change with every change"


def test_history_has_an_end() -> None:
    revisions = [alert(1, number, status="acknowledged") for number in range(1, 200)]
    situation = known(Situation(), *revisions)
    detail = situation.detail("pass-rate-0001")
    assert detail is not None
    assert len(detail.history) == 50


@pytest.mark.parametrize(
    ("kind", "evidence", "zh", "en"),
    [
        (
            "pass-rate",
            {"detector": "d", "against": "target", "window_days": 30, "observed": 12.0, "tested": 400, "rate": 0.97,
             "lower": 0.95, "upper": 0.985, "reference": 0.98, "recurrence_days": 60.0, "lab_factor": 1.3},
            "近30天检验400件，不合格12件，合格率97.00%（区间95.00%至98.50%），目标为98.00%；检验机构偏严的影响（1.3倍）已扣除；"
            "单一监测单元因偶然出现这样的结果，约60天一次。",
            "12 of 400 items failed in 30 days: pass rate 97.00% (interval 95.00% to 98.50%) against the target, "
            "98.00%; that its labs find 1.3 times as much is allowed for; chance alone shows as much in one cell "
            "about once in 60 days.",
        ),
        (
            "satisfaction",
            {"detector": "d", "against": "target", "window_days": 90, "observed": 12.0, "tested": 400, "rate": 71.25,
             "reference": 80.0},
            "近90天满意度71.2，400人受访，目标为80.0。",
            "Satisfaction 71.2 over 90 days, 400 respondents, against the target, 80.0.",
        ),
        (
            "grave-event",
            {"detector": "accident-ladder:deaths", "against": "ladder", "window_days": 0, "observed": 12.0,
             "threshold": 10.0},
            "死亡人数12，达到该级事故标准（10及以上）。",
            "Deaths 12: this rung of the ladder begins at 10.",
        ),
        (
            "injury-surge",
            {"detector": "d", "against": "baseline", "window_days": 6, "observed": 9.0, "expected": 2.0,
             "regions": ["120101", "120102"], "recurrence_days": 1e12},
            "近6天9起，预期2（历史基线）；聚集于和平、河东；单一监测单元因偶然出现这样的结果，约百万年以上一次。",
            "9 reports in 6 days where 2 were expected (against its baseline); clustered in Heping, Hedong; chance "
            "alone shows as much in one cell about once in more than a million years.",
        ),
    ],
)  # fmt: skip
def test_evidence_is_a_sentence_in_both_languages(kind: Any, evidence: dict[str, Any], zh: str, en: str) -> None:
    names = {"120101": Text("和平", "Heping"), "120102": Text("河东", "Hedong")}
    assert evidence_words(kind, Evidence(**evidence), names.__getitem__) == Text(zh, en)
