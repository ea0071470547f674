"""State built anew from the record: every byte of what was written stays, nothing comes twice, and the run goes on."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import START, World, add_dispositions, body, build_world, encoded, plain_run, world_config
from small_world import fails, fill, succeeds
from test_embedded import fill as fill_log
from test_embedded import in_sessions, put, response, runtime
from test_embedded import replayed as replay_of

from schemas.alerts import Alert
from streams import log as log_module
from streams import rebuild as rebuild_module
from streams.embedded import INPUTS, EmbeddedRuntime
from streams.log import SqliteLog
from streams.outputs import canonical
from streams.rebuild import FOLDER, RebuildError, rebuild

CONFIG = world_config(partitions=2, tick_seconds=43_200)
CATALOGUE = CONFIG.load_catalogue()
OUTPUTS = ("emergency-response", "signals", "dead-letters")


@pytest.fixture(scope="module")
def world() -> World:
    made = build_world(5, days=45, scale=0.2)
    made.config = CONFIG
    add_dispositions(made, plain_run(made)[1], 5)
    return made


@pytest.fixture(scope="module")
def ran(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the world was run to its end."""
    folder = tmp_path_factory.mktemp("ran")
    log = SqliteLog(folder, 2)
    fill_log(log, world.raw)
    runtime(log).run_to_end()
    log.close()
    return folder


def copied(ran: Path, folder: Path) -> SqliteLog:
    for file in ran.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return SqliteLog(folder, 2)


def everything(log: SqliteLog) -> dict[Any, list[Any]]:
    """Every record of every topic."""
    topics = (*INPUTS, *OUTPUTS)
    return {origin: log.read(origin, 0, 10**7) for origin in log.ends(topics)}


def positions(log: SqliteLog) -> dict[Any, Any]:
    return {origin: log.position(origin) for origin in log.ends(INPUTS)}


def spoil(log: SqliteLog, version: int) -> None:
    """As another version would have left it."""
    log.set_state("progress", msgspec.msgpack.encode([version, "?", {"other": "layout"}]))


def test_every_topic_is_the_same_to_the_byte_and_the_state_is_that_of_an_undisturbed_run(
    world: World, tmp_path: Path
) -> None:
    portions = in_sessions(world, 2)
    log, twin = SqliteLog(tmp_path / "a", 2), SqliteLog(tmp_path / "b", 2)
    for number, rows in enumerate(portions):
        for one in (log, twin):
            put(one, rows)
            runtime(one, batch=70).run_to_end()
        if number == 0:
            before, at = everything(log), positions(log)
            assert before["emergency-response", 0]
            assert before["dead-letters", 0]
            spoil(log, 1)
            done = rebuild(log, CONFIG, CATALOGUE)
            assert (done.again, done.appended, done.differing) == (len(before["emergency-response", 0]), 0, 0)
            assert done.events == sum(len(before[origin]) for origin in log.ends(INPUTS))
            assert everything(log) == before
            assert positions(log) == at
            assert not (tmp_path / "a" / FOLDER).exists()
    assert response(log) == response(twin) == replay_of(log)
    for topic in OUTPUTS[1:]:
        assert [r.value for r in log.read((topic, 0), 0, 10**7)] == [r.value for r in twin.read((topic, 0), 0, 10**7)]
    standing = [list(canonical(runtime(one).pipeline.escalate.standing_alerts())) for one in (log, twin)]
    assert standing[0] == standing[1] != []


def test_a_run_that_watched_beyond_its_last_record_is_come_to_again(ran: Path, tmp_path: Path) -> None:
    """What was alerted in a time without records must not be alerted a second time."""
    log = copied(ran, tmp_path)
    count = len(log.read(("emergency-response", 0), 0, 10**6))
    with log.transaction():
        log.raise_floor((log.meta("floor") or 0) + 40 * 86_400_000)
    runtime(log).catch_up()
    before = everything(log)
    assert len(before["emergency-response", 0]) > count
    rebuild(log, CONFIG, CATALOGUE)
    assert everything(log) == before
    runtime(log).catch_up()
    assert everything(log) == before


def test_records_that_were_not_worked_off_yet_bring_their_alerts_once(world: World, tmp_path: Path) -> None:
    log, twin = SqliteLog(tmp_path / "a", 2), SqliteLog(tmp_path / "b", 2)
    first, second = in_sessions(world, 2)
    for one in (log, twin):
        put(one, first)
        runtime(one).run_to_end()
        put(one, second)
    rebuild(log, CONFIG, CATALOGUE)
    for one in (log, twin):
        runtime(one).run_to_end()
    assert response(log) == response(twin)
    assert len(log.read(("dead-letters", 0), 0, 10**6)) == len(twin.read(("dead-letters", 0), 0, 10**6))


class Killed(BaseException):
    """What stands for ``kill -9``."""


@pytest.mark.parametrize("moment", ["while it reads", "in the last transaction"])
def test_killed_in_the_midst_it_has_changed_nothing_and_can_be_done_again(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    log = copied(ran, tmp_path)
    before, state = everything(log), log.state("escalate")
    with monkeypatch.context() as patch:
        if moment == "while it reads":
            patch.setattr(EmbeddedRuntime, "_read_through", lambda *_: (_ for _ in ()).throw(Killed))
            patch.setattr(rebuild_module.shutil, "rmtree", lambda *_, **__: None)
        else:
            patch.setattr(log, "set_position", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            rebuild(log, CONFIG, CATALOGUE)
    log.close()
    log = SqliteLog(tmp_path, 2)
    assert (everything(log), log.state("escalate")) == (before, state)
    assert len(list(log.segments())) > 0
    rebuild(log, CONFIG, CATALOGUE)
    assert everything(log) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["log.sqlite", "log.sqlite-shm", "log.sqlite-wal"]


def test_where_the_record_now_says_otherwise_nothing_is_changed_unless_that_is_accepted(
    ran: Path, tmp_path: Path
) -> None:
    log = copied(ran, tmp_path)
    before, state = everything(log), log.state("config")
    other = world_config(partitions=2, escalate={"hold_days": 3})
    with pytest.raises(RebuildError, match=r"\d+ of \d+ alert revisions in its log do not come out .* nothing was"):
        rebuild(log, other, CATALOGUE)
    assert (everything(log), log.state("config")) == (before, state)
    done = rebuild(log, other, CATALOGUE, accept=True)
    assert done.differing > 0
    after = everything(log)
    held = len(before["emergency-response", 0])
    assert after["emergency-response", 0][:held] == before["emergency-response", 0]
    assert len(after["emergency-response", 0]) == held + done.appended
    keys = [(one.id, one.revision) for one in map(_alert, after["emergency-response", 0])]
    assert len(keys) == len(set(keys))
    EmbeddedRuntime(log, other, CATALOGUE)


def _alert(record: Any) -> Alert:
    return msgspec.json.decode(record.value, type=Alert)


def test_a_log_of_an_older_layout_is_refused_until_it_is_rebuilt_and_a_newer_one_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fill(tmp_path / "data", tmp_path)
    succeeds("run", "--until-end", "--data", data)
    alerts = succeeds("alerts", "list", "--canonical", "--data", data).stdout
    db = sqlite3.connect(data / "log.sqlite")
    with db:
        db.execute("DROP TABLE segments")
        db.execute("CREATE TABLE segments (old INTEGER)")
        db.execute("CREATE TABLE of_old (x)")
        db.execute("UPDATE meta SET value = ? WHERE name = 'layout'", (log_module.LAYOUT - 1,))
    db.close()
    line = fails("run", "--until-end", "--data", data).line
    assert f"the log's layout is {log_module.LAYOUT - 1}, this tocsin reads {log_module.LAYOUT}: an older" in line
    assert f"`tocsin state rebuild --data {data}`" in line
    said = succeeds("state", "rebuild", "--data", data).stdout
    assert "built anew from 121 records" in said
    assert succeeds("run", "--until-end", "--data", data).stdout == ""
    assert succeeds("alerts", "list", "--canonical", "--data", data).stdout == alerts
    db = sqlite3.connect(data / "log.sqlite")
    assert not db.execute("SELECT * FROM sqlite_master WHERE name = 'of_old'").fetchall()
    with db:
        db.execute("UPDATE meta SET value = ? WHERE name = 'layout'", (log_module.LAYOUT + 1,))
    db.close()
    for args in (("run", "--until-end"), ("state", "rebuild")):
        assert "a newer tocsin made it; use that version" in fails(*args, "--data", data).line


def test_the_command_wants_a_directory_that_nobody_runs_on(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    log = SqliteLog(data, 4)
    log.lock()
    assert "already runs on this data directory" in fails("state", "rebuild", "--data", data).line
    log.close()
    assert "nothing has been published" in fails("state", "rebuild", "--data", tmp_path / "no").line


def test_a_file_that_is_no_log_is_told_as_such(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    for suffix in ("-wal", "-shm"):
        (data / f"log.sqlite{suffix}").unlink(missing_ok=True)
    (data / "log.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    line = fails("run", "--until-end", "--data", data).line
    assert "log.sqlite is damaged (file is not a database)" in line
    assert "tocsin doctor" in line


def test_catching_up_seals_the_log_no_further(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, [("injuries", 0, START, encoded(body("injuries", "a", START)))])
    running = runtime(log)
    running.catch_up()
    assert log.meta("floor") is None
    assert running.pipeline.assess.waiting() == 1
