"""What Tocsin tells a real Alertmanager, what it takes from it, and the routes of deploy/alertmanager."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tooling import ROOT, Run, monitoring

from schemas.alerts import Action, Alert, Disposition, Level, Provenance, Text
from schemas.errors import ConfigError
from streams.alertmanager import (
    MAX_PUSHED,
    NAMES,
    AlertmanagerError,
    Client,
    Held,
    HeldStatus,
    Matcher,
    Silence,
    acknowledgements,
    annotations_of,
    board_address,
    labels_of,
    plan,
)
from streams.alertmanager_link import AlertmanagerLink
from streams.config import Config
from streams.embedded import EmbeddedRuntime
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Medium
from streams.meter import Meter
from streams.publish import disposition_record
from streams.wording import COLOURS, GRADES

CHINA = timezone(timedelta(hours=8))
CONFIG = Config.parse({**Config().to_dict(), "tick_seconds": 60}, "test")
GROUP = CONFIG.name
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOLD = timedelta(minutes=15)
FILE = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"


def alert(name: str = "pass-rate-1", *, level: Level = 3, **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": name,
        "revision": 1,
        "status": "opened",
        "level": level,
        "grade": GRADES[level - 1],
        "colour": COLOURS[level - 1],
        "kind": "pass-rate",
        "scope": "cell",
        "product": "F0101",
        "product_name": Text(zh="米面", en="rice and flour"),
        "region": "120110",
        "region_name": Text(zh="东丽区", en="Dongli"),
        "onset": datetime(2026, 3, 1, 8, tzinfo=CHINA),
        "as_of": datetime(2026, 3, 1, 9, tzinfo=CHINA),
        "headline": Text(zh="东丽区·米面：合格率异常", en="rice and flour, Dongli: pass rate"),
        "actions": [Action(text=Text(zh="核对检验机构与样品", en="check the labs and samples"), deadline_hours=2.0)],
        "provenance": Provenance(config="", version="", catalogue=""),
        **changes,
    }
    return Alert(**fields)


def again(one: Alert, *, level: Level | None = None, **changes: Any) -> Alert:
    """The next revision of an alert."""
    if level is not None:
        changes |= {"level": level, "grade": GRADES[level - 1], "colour": COLOURS[level - 1]}
    return msgspec.structs.replace(one, revision=one.revision + 1, **changes)


def held(one: Alert, **status: Any) -> Held:
    """An alert as Alertmanager gives it back."""
    return Held(labels_of(one, GROUP), NOW, HeldStatus(**{"state": "active", **status}), annotations_of(one))


def planned(standing: list[Alert], there: list[Held], *, refresh: bool = False) -> list[dict[str, Any]]:
    return plan(standing, there, NOW, group=GROUP, hold=HOLD, refresh=refresh)


# --- pure ----------------------------------------------------------------------------------------------------------


def test_labels_are_few_bounded_and_name_nobody() -> None:
    hostile = 'a"b\\c\nd\x00' + "x" * 5_000
    one = alert(hostile, product=hostile, region=hostile, source="hospital-9", acknowledged_by="Zhang San")
    found = labels_of(one, GROUP)
    assert set(found) == {
        "alertname", "alert_id", "level", "colour", "severity", "kind", "scope", "product", "region", "tocsin_group",
    }  # fmt: skip
    assert all(len(value) <= 64 and value.isprintable() for value in found.values())
    assert "Zhang" not in str(found) + str(annotations_of(one))
    assert "hospital-9" not in str(found)
    assert all(len(value) <= 1_000 and value.isprintable() for value in annotations_of(one).values())


def test_labels_change_with_the_level_and_with_nothing_else_that_a_revision_brings() -> None:
    one = alert()
    same = again(one, as_of=NOW, headline=Text(zh="新", en="new"), acknowledged_by="officer", status="acknowledged")
    assert labels_of(one, GROUP) == labels_of(same, GROUP)
    assert labels_of(one, GROUP) != labels_of(again(one, level=1), GROUP)


def test_annotations_speak_both_languages_and_link_to_the_board() -> None:
    said = annotations_of(alert("a/b #1"), "https://board.example/")
    assert said["headline_zh"] == "东丽区·米面：合格率异常"
    assert said["headline_en"] == "rice and flour, Dongli: pass rate"
    assert (said["action_zh"], said["deadline_hours"]) == ("核对检验机构与样品", "2")
    assert said["board"] == "https://board.example/#a%2Fb%20%231"


def test_nothing_is_posted_that_is_known_until_it_is_time_to_refresh() -> None:
    one = alert()
    assert planned([one], [held(one)]) == []
    (posted,) = planned([one], [held(one)], refresh=True)
    assert datetime.fromisoformat(posted["endsAt"]) == NOW + HOLD
    (posted,) = planned([again(one, status="acknowledged", acknowledged_by="officer")], [held(one)])
    assert posted["annotations"]["acknowledged"] == "yes"


def test_a_raised_alert_ends_its_old_labels_and_says_why() -> None:
    one = alert(level=3)
    fresh, ended = planned([again(one, level=1)], [held(one)])
    assert (fresh["labels"]["level"], ended["labels"]["level"]) == ("I", "III")
    assert datetime.fromisoformat(ended["endsAt"]) == NOW < datetime.fromisoformat(fresh["endsAt"])
    assert ended["annotations"]["ended"] == "now level I"
    (ended,) = planned([], [held(one)])
    assert ended["annotations"]["ended"] == "resolved"


def test_no_alert_begins_after_it_ends() -> None:
    future = alert(onset=NOW + timedelta(days=9))
    for posted in planned([future], []) + planned(
        [], [Held(labels_of(future, GROUP), future.onset, HeldStatus("active"))]
    ):
        assert datetime.fromisoformat(posted["startsAt"]) <= datetime.fromisoformat(posted["endsAt"])


def test_of_very_many_alerts_the_gravest_are_pushed() -> None:
    many = [alert(f"n-{number}", level=4) for number in range(MAX_PUSHED)] + [alert("grave", level=1)]
    posted = planned(many, [])
    assert len(posted) == MAX_PUSHED
    assert posted[0]["labels"]["alert_id"] == "grave"


def test_only_a_silence_that_names_the_alert_acknowledges_it() -> None:
    one = alert()

    def said(*matchers: Matcher, state: str = "suppressed", **changes: Any) -> list[Disposition]:
        silence = Silence("s1", list(matchers), NOW, "officer\n", "on\x00site" + "!" * 900)
        shown = msgspec.structs.replace(one, **changes)
        return acknowledgements({one.id: shown}, [held(one, state=state, silenced_by=["s1"])], [silence])

    (found,) = said(Matcher("alert_id", one.id, False), Matcher("level", "III", False))
    assert (found.disposition_id, found.alert_id, found.action, found.by) == (
        "silence-s1", one.id, "acknowledge", "officer",
    )  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(found), type=Disposition) == found, "what intake will accept"
    assert said(Matcher("level", "III", False)) == []
    assert said(Matcher("alert_id", ".+", True)) == []
    assert said(Matcher("alert_id", one.id, False, False)) == []
    assert said(Matcher("alert_id", one.id, False), acknowledged_by="officer") == []


@pytest.mark.parametrize("kind", list(NAMES))
def test_names_are_like_those_of_the_rules(kind: str) -> None:
    assert NAMES[kind].removeprefix("Tocsin").lower() == kind.replace("-", "")  # type: ignore[index]


@pytest.mark.parametrize(
    "url", ["localhost:9093", "ftp://x", "http://", "http://me:secret@host", "http://host:99999", "http://h/?a=b", ""]
)
def test_an_address_that_cannot_be_used_is_told_in_one_line_without_what_is_secret(url: str) -> None:
    with pytest.raises(ConfigError, match="--alertmanager") as caught:
        Client(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["board", "javascript:alert(1)", "https://me@board", "https://board/#x"])
def test_a_board_that_is_no_address_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="--board-url"):
        board_address(url)
    assert board_address("") == ""
    assert board_address("https://board") == "https://board/"


def test_a_token_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    client = Client.from_environment("http://h", {"TOCSIN_ALERTMANAGER_TOKEN_FILE": str(tmp_path / "token")})
    assert client._headers == {"Authorization": "Bearer from-file"}
    with pytest.raises(ConfigError, match=r"TOCSIN_ALERTMANAGER_TOKEN_FILE.*none"):
        Client.from_environment("http://h", {"TOCSIN_ALERTMANAGER_TOKEN_FILE": str(tmp_path / "none")})
    with pytest.raises(ConfigError, match="one line") as caught:
        Client.from_environment("http://h", {"TOCSIN_ALERTMANAGER_TOKEN": "two\nlines"})
    assert "lines'" not in str(caught.value)


# --- a real Alertmanager -------------------------------------------------------------------------------------------


class Told(Meter):
    """Remembers what the link says of itself."""

    def __init__(self) -> None:
        self.said: list[tuple[int, bool]] = []

    def pushed(self, alerts: int, ok: bool) -> None:
        self.said.append((alerts, ok))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    made = SqliteLog(tmp_path / "data", CONFIG.partitions)
    yield made
    made.close()


def emit(log: SqliteLog, *revisions: Alert) -> None:
    with log.transaction():
        rows = [(0, 0, one.id.encode(), msgspec.json.encode(one), ()) for one in revisions]
        log.append("emergency-response", rows)


def link(log: SqliteLog, server: Any, **more: Any) -> tuple[AlertmanagerLink, Medium]:
    """A link whose turns the test takes itself, always due."""
    medium = EmbeddedMedium(log)

    def opened() -> AbstractContextManager[Medium]:
        return nullcontext(medium)

    return AlertmanagerLink(opened, Client(server.url), GROUP, **{"listen": 0.0, "refresh": 0.0, **more}), medium


def by_id(server: Any) -> dict[str, dict[str, Any]]:
    """What stands there; an alert must be there once."""
    found = server.alerts()
    ids = [one["labels"]["alert_id"] for one in found]
    assert len(ids) == len(set(ids)), ids
    return dict(zip(ids, found, strict=True))


def test_an_alert_is_there_is_refreshed_changes_its_level_and_goes(alertmanager: Any, log: SqliteLog) -> None:
    one, other = alert("pass-rate-1"), alert("grave-2", level=1, kind="grave-event")
    emit(log, one, other)
    told, medium = link(log, alertmanager)
    told.turn(medium)
    there = by_id(alertmanager)
    assert set(there) == {one.id, other.id}
    assert there[one.id]["labels"] == labels_of(one, GROUP)
    assert there[one.id]["annotations"]["headline_zh"] == one.headline.zh
    first = datetime.fromisoformat(there[one.id]["endsAt"])

    told.turn(medium)
    assert first < datetime.fromisoformat(by_id(alertmanager)[one.id]["endsAt"])

    emit(log, again(one, status="raised", level=2))
    told.turn(medium)
    there = by_id(alertmanager)
    assert there[one.id]["labels"]["level"] == "II"
    assert set(there) == {one.id, other.id}

    emit(log, again(again(one), status="resolved", level=2))
    told.turn(medium)
    assert set(by_id(alertmanager)) == {other.id}


def test_what_changed_while_we_were_away_is_made_good_at_the_next_start(alertmanager: Any, log: SqliteLog) -> None:
    one, other = alert("pass-rate-1"), alert("pass-rate-2")
    emit(log, one, other)
    told, medium = link(log, alertmanager)
    told.turn(medium)
    emit(log, again(one, status="resolved"), again(other, status="raised", level=1))
    fresh, medium = link(log, alertmanager)
    fresh.turn(medium)
    assert {name: found["labels"]["level"] for name, found in by_id(alertmanager).items()} == {other.id: "I"}


def test_of_another_deployments_alerts_none_is_touched(alertmanager: Any, log: SqliteLog) -> None:
    foreign = labels_of(alert("theirs"), GROUP + "-another" + "x" * 90)
    alertmanager.ask("POST", "/api/v2/alerts", [{"labels": foreign}, {"labels": {"alertname": "TocsinNoInput"}}])
    told, medium = link(log, alertmanager)
    told.turn(medium)
    assert len(alertmanager.alerts()) == 2


def test_alerts_end_there_when_we_are_gone_for_long_and_not_before(alertmanager: Any, log: SqliteLog) -> None:
    emit(log, alert())
    told, medium = link(log, alertmanager, hold=1.5)
    for _ in range(8):
        told.turn(medium)
        time.sleep(0.25)
    assert len(by_id(alertmanager)) == 1
    deadline = time.monotonic() + 10
    while by_id(alertmanager):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_alertmanager_that_is_away_hurts_nobody_and_is_told_all_when_it_is_back(
    alertmanager: Any, log: SqliteLog, caplog: pytest.LogCaptureFixture
) -> None:
    meter = Told()
    emit(log, alert())
    told, medium = link(log, alertmanager, meter=meter)
    alertmanager.stop()
    for _ in range(3):
        told.turn(medium)
    assert meter.said == [(0, False)], "it waits before it tries again"
    assert len([line for line in caplog.messages if "tried again" in line]) == 1
    alertmanager.start()
    deadline = time.monotonic() + 10
    while not meter.said[-1][1]:
        assert time.monotonic() < deadline
        told.turn(medium)
        time.sleep(0.05)
    assert set(by_id(alertmanager)) == {"pass-rate-1"}
    # One that has lost its memory is told again, though nothing has changed here.
    alertmanager.stop()
    for kept in (alertmanager.folder / "data").glob("*"):
        kept.unlink()
    alertmanager.start()
    told.turn(medium)
    assert set(by_id(alertmanager)) == {"pass-rate-1"}


def test_a_worker_that_does_not_escalate_says_nothing(alertmanager: Any, log: SqliteLog) -> None:
    speaks = [False]
    emit(log, alert())
    told, medium = link(log, alertmanager, active=lambda: speaks[0])
    told.turn(medium)
    assert by_id(alertmanager) == {}
    speaks[0] = True
    told.turn(medium)
    assert len(by_id(alertmanager)) == 1


def test_what_is_no_alertmanager_is_said_to_be_none(tmp_path: Path) -> None:
    closed = monitoring.free_port()
    with pytest.raises(AlertmanagerError, match=f"127.0.0.1:{closed}"):
        Client(f"http://127.0.0.1:{closed}", timeout=1).held(GROUP)


def accident(at: datetime) -> dict[str, Any]:
    return {
        "event_id": "A-1", "source": "bureau", "reported_at": at.isoformat(), "product": "F0101", "region": "120110",
        "authority": "bureau", "deaths": 12,
    }  # fmt: skip


def test_from_a_deadly_accident_over_a_silence_to_the_end(alertmanager: Any, amtool: Run, log: SqliteLog) -> None:
    """The pipeline and the Alertmanager, both real: opened, silenced with amtool, acknowledged, closed."""
    at = datetime.now(CHINA) - timedelta(hours=1)
    ms = int(at.timestamp() * 1_000)
    with log.transaction():
        log.append("accidents", [(0, ms, None, json.dumps(accident(at)).encode(), ())])

    def run() -> list[Alert]:
        EmbeddedRuntime(log, CONFIG, CONFIG.load_catalogue()).run_to_end()
        values = [record.value or b"" for record in log.read(("emergency-response", 0), 0, 10_000)]
        return [msgspec.json.decode(value, type=Alert) for value in values]

    told, medium = link(log, alertmanager)
    (opened,) = run()
    assert opened.grade == "I"
    told.turn(medium)
    (there,) = alertmanager.alerts()
    assert there["labels"]["alertname"] == "TocsinGraveEvent"
    assert there["annotations"]["acknowledged"] == "no"

    said = amtool("silence", "add", f"alert_id={opened.id}", "--author=duty officer", "--comment=team sent",
                  "--duration=1h", f"--alertmanager.url={alertmanager.url}")  # fmt: skip
    assert said.returncode == 0, said.stderr
    silence = said.stdout.strip()
    for _ in range(3):  # Alertmanager needs no turn of its own, but a second look must not say it twice
        told.turn(medium)
    fresh, medium = link(log, alertmanager)
    fresh.turn(medium)
    records = [record.value or b"" for record in log.read(("dispositions", 0), 0, 100)]
    (disposition,) = [msgspec.json.decode(value, type=Disposition) for value in records]
    assert (disposition.disposition_id, disposition.by, disposition.reason) == (
        f"silence-{silence}", "duty officer", "team sent",
    )  # fmt: skip

    *_, acknowledged = run()
    assert (acknowledged.status, acknowledged.acknowledged_by) == ("acknowledged", "duty officer")
    fresh.turn(medium)
    (there,) = alertmanager.alerts()
    assert there["annotations"]["acknowledged"] == "yes"

    close = Disposition(disposition_id="d-2", alert_id=opened.id, action="close", by="officer", at=NOW)
    medium.write("dispositions", [disposition_record(close, time.time())])
    *_, resolved = run()
    assert resolved.status == "resolved"
    fresh.turn(medium)
    assert alertmanager.alerts() == []
    assert len(list(log.read(("dispositions", 0), 0, 100))) == 2


def test_the_command_tells_alertmanager_before_it_ends(alertmanager: Any, tmp_path: Path) -> None:
    events = tmp_path / "accidents.ndjson"
    events.write_text(json.dumps(accident(datetime.now(CHINA) - timedelta(minutes=5))) + "\n")
    environment = {**os.environ, "TOCSIN_DATA": str(tmp_path / "d"), "TOCSIN_ALERTMANAGER": alertmanager.url,
                   "TOCSIN_BOARD_URL": "http://board.example"}  # fmt: skip
    for command in (("publish", "accidents", str(events)), ("run", "--until-end")):
        done = subprocess.run(
            [sys.executable, "-m", "streams.cli", *command],
            env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    (there,) = alertmanager.alerts()
    assert there["labels"]["level"] == "I"
    assert there["generatorURL"].startswith("http://board.example/#grave-")


def test_a_wrong_address_is_one_line_and_status_1(tmp_path: Path) -> None:
    environment = {**os.environ, "TOCSIN_DATA": str(tmp_path / "d"), "TOCSIN_ALERTMANAGER": "localhost:9093"}
    done = subprocess.run(
        [sys.executable, "-m", "streams.cli", "run", "--until-end"],
        env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "--alertmanager 'localhost:9093': an address like http://localhost:9093 is needed" in done.stderr


# --- the configuration ---------------------------------------------------------------------------------------------


def test_amtool_accepts_the_configuration(amtool: Run, tmp_path: Path) -> None:
    done = amtool("check-config", FILE)
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(FILE.read_text("utf-8").replace("receiver: risk-urgent", "receiver: nobody"))
    assert amtool("check-config", broken).returncode != 0


@pytest.mark.parametrize(
    ("given", "receiver"),
    [
        (labels_of(alert(level=1), GROUP), "risk-emergency"),
        (labels_of(alert(level=2), GROUP), "risk-urgent"),
        (labels_of(alert(level=3), GROUP), "risk-daily"),
        (labels_of(alert(level=4), GROUP), "risk-daily"),
        ({"alertname": "TocsinGraveAlertOverdue", "severity": "critical", "level": "II"}, "risk-emergency"),
        ({"alertname": "TocsinNoWorker", "severity": "critical"}, "operations-on-call"),
        ({"alertname": "TocsinNoInput", "severity": "warning"}, "operations"),
    ],
)
def test_each_alert_goes_where_it_should(amtool: Run, given: dict[str, str], receiver: str) -> None:
    done = amtool("config", "routes", "test", f"--config.file={FILE}", *(f"{k}={v}" for k, v in given.items()))
    assert (done.returncode, done.stdout.strip()) == (0, receiver), done.stderr


def test_messages_are_grouped_by_region_and_product_and_a_grade_i_hides_the_milder_ones(alertmanager: Any) -> None:
    here = [labels_of(alert(f"n-{level}", level=level), GROUP) for level in (1, 2, 3)]
    elsewhere = labels_of(alert("n-9", level=3, region="120111"), GROUP)
    alertmanager.ask("POST", "/api/v2/alerts", [{"labels": one} for one in (*here, elsewhere)])
    deadline = time.monotonic() + 15
    while True:  # inhibition is worked out when a group is first dispatched
        states = {one["labels"]["alert_id"]: one["status"]["state"] for one in alertmanager.alerts()}
        if states == {"n-1": "active", "n-2": "active", "n-3": "suppressed", "n-9": "active"}:
            break
        assert time.monotonic() < deadline, states
        time.sleep(0.2)
    groups = {(one["receiver"]["name"], one["labels"]["region"]) for one in alertmanager.get("/api/v2/alerts/groups")}
    assert groups == {
        ("risk-emergency", "120110"), ("risk-urgent", "120110"), ("risk-daily", "120110"), ("risk-daily", "120111"),
    }  # fmt: skip
