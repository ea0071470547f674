"""The doctor: each thing broken in turn, and named with the way to mend it; and nothing is changed by looking."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import START, body, encoded
from small_world import fill, invoke, succeeds

from streams import doctor, doctor_embedded
from streams import log as log_module
from streams.assess import PROGRESS_VERSION
from streams.commands.doctor import command as doctor_command
from streams.datadir import Wanted
from streams.doctor import Finding, check_backlog, check_clock, check_letters, check_python, check_space, worst
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing

CHECKS = {
    "python", "blas", "directory", "disk", "catalogue", "severity", "configuration", "run", "log", "write-ahead log",
    "topics", "state", "lag", "dead letters", "clock",
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ran")
    data = fill(folder / "data", folder)
    succeeds("run", "--until-end", "--data", data)
    return data


@pytest.fixture
def data(ran: Path, tmp_path: Path) -> Path:
    """A directory of its own, in which all is well."""
    return Path(shutil.copytree(ran, tmp_path / "data"))


def examine(data: Path, *args: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit status and findings by check; the gravest where a check has several."""
    result = invoke("doctor", "--json", "--data", data, *args)
    assert result.stderr == ""
    report = json.loads(result.stdout)
    order = ("ok", "warning", "failure")
    found: dict[str, dict[str, Any]] = {}
    for one in sorted(report["findings"], key=lambda one: order.index(one["verdict"])):
        found[one["check"]] = one
    assert report["verdict"] == max((one["verdict"] for one in report["findings"]), key=order.index)
    assert result.exit_code == (1 if report["verdict"] == "failure" else 0)
    assert all(one.get("mend") for one in report["findings"] if one["verdict"] == "warning")
    return result.exit_code, found


def broken(data: Path, check: str, *args: str) -> tuple[str, str]:
    """What is seen and how to mend it, of the one check that must have failed."""
    status, found = examine(data, *args)
    assert status == 1
    assert [name for name, one in found.items() if one["verdict"] == "failure"] == [check]
    return found[check]["seen"], found[check].get("mend", "")


def change(data: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(data / "log.sqlite")
    with db:
        db.execute(statement, values)
    db.close()


def state(data: Path, name: str, value: bytes) -> None:
    change(data, "UPDATE state SET value = ? WHERE name = ?", value, name)


def contents(data: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in data.iterdir()
        if not file.name.endswith("-shm")
    }


def test_a_directory_in_which_all_is_well(data: Path) -> None:
    status, found = examine(data)
    assert status == 0
    assert set(found) == CHECKS
    assert {one["verdict"] for one in found.values()} == {"ok"}
    table = succeeds("doctor", "--data", data).stdout
    assert all(check in table for check in CHECKS)
    assert table.splitlines()[-1] == f"{data}: {len(CHECKS)} well, 0 worth a look, 0 wrong"


def test_looking_changes_nothing(data: Path) -> None:
    before = contents(data)
    examine(data)
    after = contents(data)
    assert {name: one for name, one in after.items() if name in before} == before
    assert {name for name in after if name not in before} <= {"log.sqlite-wal"}


def test_no_directory_and_an_empty_one(tmp_path: Path) -> None:
    seen, mend = broken(tmp_path / "no", "directory")
    assert "is not there" in seen
    assert "--data" in mend
    assert not (tmp_path / "no").exists()
    status, found = examine(tmp_path)
    assert (status, found["log"]["verdict"]) == (0, "warning")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_without_rights(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_embedded.os, "access", lambda *_: False)  # root may do everything
    (found,) = doctor_embedded.examine(data, Wanted())
    assert (found.check, found.verdict, found.mend) == ("directory", "failure", "give it to whoever runs this")


def test_a_configuration_that_cannot_be_read_and_one_that_is_another(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "c.toml"
    other.write_text("tick_seconds = 86400\n")
    status, found = examine(data, "--config", str(other))
    assert status == 1
    assert "another configuration" in found["configuration"]["seen"]
    (data / "tocsin.toml").write_text("tick_secondz = 1\n")
    seen, mend = broken(data, "configuration")
    assert "tick_secondz" in seen
    assert "tocsin.toml" in mend


@pytest.mark.parametrize("what", ["catalogue", "severity"])
def test_a_catalogue_or_severity_file_that_is_gone(data: Path, what: str) -> None:
    text = (data / "tocsin.toml").read_text()
    old = {"catalogue": 'catalogue = "tianjin"', "severity": 'severity = "default"'}[what]
    assert old in text
    (data / "tocsin.toml").write_text(text.replace(old, f'{what} = "/no/such.toml"'))
    seen, _ = broken(data, what)
    assert "/no/such.toml" in seen


def test_a_log_that_is_no_database_and_one_with_a_damaged_page(data: Path) -> None:
    size = (data / "log.sqlite").stat().st_size
    change(data, "PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        (data / f"log.sqlite{suffix}").unlink(missing_ok=True)
    with (data / "log.sqlite").open("r+b") as file:
        file.seek(8 * 4096)
        file.write(os.urandom(min(size // 2, 16 * 4096)))
    seen, mend = broken(data, "log")
    assert "restore log.sqlite" in mend
    (data / "log.sqlite").write_bytes(b"x" * 10_000)
    seen, mend = broken(data, "log")
    assert "not a database" in seen


def test_a_large_write_ahead_log(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_embedded, "_BIG_WAL", -1)
    status, found = examine(data)
    assert (status, found["write-ahead log"]["verdict"]) == (0, "warning")


@pytest.mark.parametrize(("step", "mend"), [(1, "use the newer tocsin"), (-1, "tocsin state rebuild")])
def test_another_layout(data: Path, step: int, mend: str) -> None:
    change(data, "UPDATE meta SET value = ? WHERE name = 'layout'", log_module.LAYOUT + step)
    assert mend in broken(data, "layout")[1]


def test_partitions_that_disagree_and_topics_of_nobody(data: Path) -> None:
    change(data, "INSERT INTO partitions (topic, part, latest) VALUES ('of-another-version', 0, 0)")
    status, found = examine(data)
    assert (status, found["topics"]["verdict"]) == (0, "warning")
    assert "of-another-version" in found["topics"]["seen"]
    change(data, "UPDATE meta SET value = 9 WHERE name = 'partitions'")
    assert "partitions is 9 in the log, 4 are configured" in broken(data, "topics")[0]


def test_state_of_another_version_damaged_or_of_other_rules(data: Path) -> None:
    state(data, "config", b"0123+4567")
    assert "was built under 0123+4567" in broken(data, "state")[0]
    state(data, "progress", msgspec.msgpack.encode([PROGRESS_VERSION + 1, 0]))
    seen, mend = broken(data, "state")
    assert f"of version {PROGRESS_VERSION + 1}" in seen
    assert f"tocsin state rebuild --data {data}" in mend
    state(data, "progress", b"\x98")
    assert "cannot be read" in broken(data, "state")[0]


def test_what_was_never_run_and_what_waits_while_nobody_works(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    status, found = examine(data)
    assert (status, found["state"]["verdict"], found["lag"]["verdict"]) == (1, "warning", "failure")
    assert "121 records wait, and nobody works (accidents 1, inspections 120)" in found["lag"]["seen"]
    log = SqliteLog(data, 4)
    log.lock()
    status, found = examine(data)
    assert status == 0
    assert found["run"]["seen"] == f"process {os.getpid()} runs on it"
    log.close()


def test_asking_who_runs_hinders_nobody(data: Path) -> None:
    examine(data)
    with (data / "run.lock").open("a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert examine(data)[1]["run"]["seen"] == "nobody runs on it now"


def test_dead_letters_are_counted_until_they_are_requeued(data: Path) -> None:
    medium = EmbeddedMedium(SqliteLog(data, 4))
    wrong = encoded(body("complaints", "a", START, region="999999"))
    medium.write("complaints", [Outgoing(START, None, wrong), Outgoing(START, None, b"{")])
    medium.close()
    succeeds("run", "--until-end", "--data", data)
    found = examine(data)[1]["dead letters"]
    assert found["verdict"] == "warning"
    assert found["seen"] == "2 for 123 records (malformed-json 1, unknown-code 1)"
    succeeds("dead-letters", "requeue", "--where", "field=region", "--set", "region=120101", "--data", data)
    assert examine(data)[1]["dead letters"]["seen"] == "1 for 124 records (malformed-json 1)"


def test_a_record_from_the_future(data: Path) -> None:
    medium = EmbeddedMedium(SqliteLog(data, 4))
    medium.write("complaints", [Outgoing(int(time.time() * 1_000) + 3 * 3_600_000, None, b"{")])
    medium.close()
    status, found = examine(data)
    assert status == 1
    assert "the newest record is 3.0 h ahead of this machine's clock" in found["clock"]["seen"]


def test_a_broker_that_nobody_answers_for(tmp_path: Path) -> None:
    result = invoke("doctor", "--json", "--broker", "kafka://127.0.0.1:1")
    assert result.exit_code == 1
    found = {one["check"]: one for one in json.loads(result.stdout)["findings"]}
    assert "no Kafka broker can be reached" in found["broker"]["seen"]
    assert found["catalogue"]["verdict"] == "ok"
    bad = tmp_path / "bad.toml"
    bad.write_text("[escalate]\nhold_dayz = 3\n")
    result = invoke("doctor", "--json", "--broker", "kafka://127.0.0.1:1", "--config", bad)
    assert "hold_dayz" in result.stdout


# --- the checks by themselves --------------------------------------------------------------------------------------


def test_space_python_and_blas() -> None:
    assert [check_space(free, Path("/d")).verdict for free in (0, 1 << 30, 1 << 40)] == ["failure", "warning", "ok"]
    assert [one.verdict for one in check_python((3, 10), "openblas 0.3")] == ["failure", "ok"]
    assert [one.verdict for one in check_python((3, 11), "netlib")] == ["ok", "warning"]
    assert {one.verdict for one in check_python()} == {"ok"}


def test_backlog_letters_and_clocks() -> None:
    assert check_backlog({"a": 0}, None).verdict == "ok"
    assert check_backlog({"a": 5}, "3 workers").verdict == "ok"
    assert check_backlog({"a": 5, "b": 10**6}, "3 workers").verdict == "warning"
    assert check_backlog({"a": 1}, None).verdict == "failure"
    assert check_letters(0, {}, 5).verdict == "ok"
    assert check_letters(3, {}, 5).seen == "3 for 5 records"
    assert [check_clock(10**12, at, "it").verdict for at in (None, 10**12 + 1_999, 10**12 + 2_001)] == [
        "ok", "ok", "failure",
    ]  # fmt: skip
    assert worst([]) == "ok"
    assert worst([Finding("a", "warning", ""), Finding("b", "ok", "")]) == "warning"
    assert doctor.failed("x", ValueError("a\nb")).seen == "a b"
    assert doctor_command.name == "doctor"
