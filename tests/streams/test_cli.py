"""The command line: how commands end, what they print, and that nothing a user does brings a traceback."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from builders import DAY, START, body, encoded
from small_world import accident, fails, fill, inspections, invoke, succeeds, write_ndjson

from schemas.alerts import Signal
from streams.commands.screen import safe
from streams.config import Config
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing

COMMANDS = [
    tuple(line.split())
    for line in (
        "", "publish", "run", "alerts list", "alerts tail", "alerts show", "alerts export", "demo", "dispose",
        "dead-letters list", "signals export", "replay", "topics create", "topics list", "catalogue show",
        "config show", "compare", "tune", "alerts explain", "alerts overdue",
    )
]  # fmt: skip


def tocsin(*args: object, **options: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TOCSIN_")}
    command = [sys.executable, "-m", "streams.cli", *(str(arg) for arg in args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **options)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was filled and run; read only."""
    folder = tmp_path_factory.mktemp("ran")
    data = fill(folder / "data", folder)
    succeeds("run", "--until-end", "--data", data)
    return data


# --- the frame -----------------------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    assert succeeds("--version").stdout == "tocsin 0.1.0\n"
    for command in COMMANDS:
        text = succeeds(*command, "--help").stdout
        assert text.startswith(f"Usage: {' '.join(['tocsin', *command])} ")


@pytest.mark.parametrize("command", [one for one in COMMANDS if one and one != ("demo",)])
def test_every_command_but_the_demo_has_the_common_options(command: tuple[str, ...]) -> None:
    text = succeeds(*command, "--help").stdout
    assert all(f"{option} " in text for option in ("--data", "--broker", "--config", "--prefix", "--catalogue"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("frobnicate",), "no such command 'frobnicate'; there are demo, publish"),
        (("publish",), "a topic is missing: name one of inspections"),
        (("publish", "inspektions", "f"), "'inspektions' is not a topic: name one of inspections"),
        (("publish", "inspections"), "no file is named"),
        (("run", "--batch", "0"), "Invalid value for '--batch'"),
        (("alerts", "list", "--level", "V"), "Invalid value for '--level'"),
        (("alerts", "show"), "Missing argument 'ID'"),
        (("alerts", "list", "--canonical", "--open"), "--canonical is the whole record"),
        (("dispose", "a", "burn", "--by", "me"), "'burn' is not one of"),
        (("dispose", "a", "close"), "Missing option '--by'"),
        (("signals", "export", "signals.xlsx"), "name it .parquet or .ndjson"),
        (("topics", "create"), "name a Kafka cluster with --broker"),
        (("run", "--data", "d", "--broker", "kafka://h:1"), "--data and --broker are two places"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_status_2_and_one_line(args: tuple[str, ...], said: str) -> None:
    failure = fails(*args)
    assert failure.status == 2
    assert said in failure.line
    assert failure.line.startswith("tocsin")
    assert "--help" in failure.line


def test_what_cannot_be_done_is_status_1_and_one_line(tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "i.ndjson", inspections()[:1])
    bad = tmp_path / "bad.toml"
    bad.write_text("[escalate]\nhold_dayz = 3\n")
    broken = tmp_path / "broken.toml"
    broken.write_text("= no toml\n")
    (tmp_path / "not.parquet").write_bytes(b"not parquet")
    data = tmp_path / "data"
    table: list[tuple[tuple[object, ...], str]] = [
        (("publish", "inspections", file, "--data", file), "the data directory cannot be written"),
        (("publish", "inspections", file, "--data", "/proc/nothing"), "the data directory cannot be written"),
        (("run", "--until-end", "--data", file), "the data directory cannot be written"),
        (("publish", "inspections", "absent.ndjson", "--data", data), "absent.ndjson: is no file"),
        (("publish", "inspections", tmp_path, "--data", data), "is no file"),
        (("publish", "inspections", tmp_path / "not.parquet", "--data", tmp_path / "p"), "cannot be read as parquet"),
        (("publish", "inspections", file, "--config", bad, "--data", data), "unknown field `hold_dayz`"),
        (("publish", "inspections", file, "--config", broken, "--data", data), "broken.toml"),
        (("publish", "inspections", file, "--config", "absent.toml", "--data", data), "no such file"),
        (
            ("publish", "inspections", file, "--catalogue", "atlantis", "--data", data),
            "no built-in catalogue 'atlantis'",
        ),
        (("publish", file, "--mapping", "fda-caer", "--data", data), "no mapping is called 'fda-caer'"),
        (("publish", file, "--mapping", "absent.toml", "--data", data), "absent.toml: cannot be read"),
        (("alerts", "list", "--data", data), "nothing has been published to this data directory"),
        (("alerts", "tail", "--data", data), "nothing has been published to this data directory"),
        (("catalogue", "show", "ZZ"), "'ZZ' is not in the catalogue"),
        (("topics", "list", "--broker", "nonsense://x"), "nonsense://x"),
        (("topics", "list", "--broker", "kafka://user:pw@h:9092"), "leave user and password out"),
    ]
    for args, said in table:
        failure = fails(*args)
        assert failure.status == 1, args
        assert said in failure.line, (args, failure.line)
        assert failure.line.startswith("tocsin: "), args
    assert not data.exists() or not (data / "log.sqlite").exists()
    assert "pw" not in fails("topics", "list", "--broker", "kafka://user:pw@h:9092").line


def test_a_second_process_on_the_same_directory_is_turned_away(ran: Path) -> None:
    with (ran / "run.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        failure = fails("run", "--until-end", "--data", ran)
    assert failure.status == 1
    assert "already runs on this data directory" in failure.line


def test_another_configuration_on_the_same_directory_is_refused(ran: Path, tmp_path: Path) -> None:
    other = tmp_path / "c.toml"
    other.write_text("tick_seconds = 86400\n")
    failure = fails("run", "--until-end", "--config", other, "--data", ran)
    assert f"{ran}: tick_seconds is 3600 there, 86400 is asked for" in failure.line


def test_a_reader_that_goes_away_is_no_error(ran: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m streams.cli catalogue show | head -1"],
        capture_output=True,
        check=False,
        env={**os.environ, "TOCSIN_DATA": str(ran)},
    )
    assert done.stderr == b""
    assert done.returncode in (0, 141)


def test_a_locale_without_chinese_gets_escapes(ran: Path) -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "TOCSIN_DATA": str(ran)}
    command = [sys.executable, "-m", "streams.cli", "alerts", "list", "--lang", "zh"]
    done = subprocess.run(command, capture_output=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u" in done.stdout


# --- the environment -----------------------------------------------------------------------------------------------


def test_the_environment_names_the_place_and_the_command_line_goes_before_it(ran: Path, tmp_path: Path) -> None:
    both = {"TOCSIN_DATA": str(tmp_path / "no"), "TOCSIN_BROKER": "nonsense://x"}
    assert "nonsense" in invoke("topics", "list", env=both).stderr
    assert invoke("topics", "list", "--data", ran, env=both).exit_code == 0
    assert invoke("topics", "list", env={"TOCSIN_DATA": str(ran)}).exit_code == 0


# --- run and alerts ------------------------------------------------------------------------------------------------


def test_publish_run_list_show(ran: Path) -> None:
    listed = [json.loads(line) for line in succeeds("alerts", "list", "--json", "--data", ran).stdout.splitlines()]
    kinds = {one["kind"]: one for one in listed}
    assert {"grave-event", "pass-rate"} <= set(kinds)
    assert kinds["pass-rate"]["product"] == "F0101"
    table = succeeds("alerts", "list", "--lang", "en", "--data", ran).stdout
    assert f"{len(listed)} alerts, " in table
    assert all(one["id"] in table for one in listed)
    sheet = succeeds("alerts", "show", kinds["pass-rate"]["id"][:-4], "--data", ran).stdout
    assert all(part in sheet for part in ("Evidence", "lab-1", "What to do", "History", "opened"))
    revisions = succeeds("alerts", "show", kinds["pass-rate"]["id"], "--json", "--data", ran).stdout.splitlines()
    assert [json.loads(line)["revision"] for line in revisions] == list(range(1, len(revisions) + 1))
    assert "no such alert" in fails("alerts", "show", "xyz", "--data", ran).line


def test_the_list_can_be_narrowed(ran: Path) -> None:
    every = succeeds("alerts", "list", "--json", "--data", ran).stdout.splitlines()
    graver = succeeds("alerts", "list", "--json", "--level", "I", "--data", ran).stdout.splitlines()
    standing = succeeds("alerts", "list", "--json", "--open", "--data", ran).stdout.splitlines()
    assert graver == [line for line in every if json.loads(line)["grade"] == "I"]
    assert len(graver) < len(every)
    assert [json.loads(line)["status"] != "resolved" for line in every].count(True) == len(standing) > 0


def test_run_prints_each_alert_once_and_a_second_run_prints_none(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    first = succeeds("run", "--until-end", "--lang", "en", "--data", data)
    revisions = succeeds("alerts", "list", "--canonical", "--data", data).stdout.splitlines()
    assert len(first.stdout.splitlines()) == len(revisions) >= 2
    assert "121 events read" in first.stderr
    assert succeeds("run", "--until-end", "--data", data).stdout == ""
    late = write_ndjson(tmp_path / "late.ndjson", [accident(event_id="a-2", reported_at="2024-02-20T00:00:00+08:00")])
    succeeds("publish", "accidents", late, "--data", data)
    assert "grave" in succeeds("run", "--until-end", "--data", data).stdout


def test_tail_begins_at_the_start_or_waits(ran: Path) -> None:
    count = len(succeeds("alerts", "list", "--canonical", "--data", ran).stdout.splitlines())
    shown = succeeds("alerts", "tail", "--from-start", "--json", "--timeout", "0", "--data", ran).stdout.splitlines()
    assert len(shown) == count
    assert len(succeeds("alerts", "tail", "--from-start", "--count", "1", "--data", ran).stdout.splitlines()) == 1
    assert (
        "0 of 1 alerts came within 0.1 s"
        in fails("alerts", "tail", "--count", "1", "--timeout", "0.1", "--data", ran).line
    )


def test_dispose_publishes_and_the_next_run_obeys(tmp_path: Path) -> None:
    data = tmp_path / "data"
    now = int(time.time()) * 1_000
    events = write_ndjson(tmp_path / "a.ndjson", [accident(reported_at=_iso(now - DAY))])
    succeeds("publish", "accidents", events, "--data", data)
    succeeds("run", "--until-end", "--data", data)
    alert = json.loads(succeeds("alerts", "list", "--json", "--data", data).stdout)
    assert "no such alert" in fails("dispose", "nothing", "close", "--by", "me", "--data", data).line
    said = ("--by", "duty officer", "--reason", "处置完毕", "--data", data)
    succeeds("dispose", alert["id"], "close", *said)
    succeeds("run", "--until-end", "--data", data)
    after = json.loads(succeeds("alerts", "list", "--json", "--data", data).stdout)
    assert (after["status"], after["reason"]) == ("resolved", "处置完毕")
    assert "cannot be sent" in fails("dispose", alert["id"], "close", "--by", "a\nb", "--data", data).line


def _iso(ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1_000))


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`tocsin run` on a directory of its own."""
    data = tmp_path / "data"
    process = tocsin("run", "--lang", "en", "--data", data)
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith(b"watching ")
        yield process, data
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_watching_run_alerts_at_once_and_stops_with_a_checkpoint(
    watching: tuple[subprocess.Popen[bytes], Path], tmp_path: Path, number: signal.Signals
) -> None:
    process, data = watching
    succeeds("publish", "accidents", write_ndjson(tmp_path / "a.ndjson", [accident()]), "--data", data)
    assert process.stdout is not None
    assert b"grave-" in process.stdout.readline()
    failure = fails("run", "--data", data)
    assert f"process {process.pid} already runs" in failure.line
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"stopped with a checkpoint; 1 events read" in errors
    assert b"Traceback" not in errors
    assert succeeds("run", "--until-end", "--data", data).stdout.count("opened") == 0


# --- dead letters, signals -----------------------------------------------------------------------------------------


def test_dead_letters_show_reason_field_place_and_harmless_bytes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    evil = "\x1b]0;owned\x07\x1b[31m[red]\u202e"
    lines = [b"\x1b[2Jno json", b"", encoded(body("complaints", "e", START, product=evil)), b"\xff" * 300]
    succeeds("publish", "complaints", "-", "--raw", "--data", data, given=b"\n".join(lines) + b"\n")
    log = SqliteLog(data, 4)
    EmbeddedMedium(log).write("complaints", [Outgoing(START, None, None)])
    log.close()
    succeeds("run", "--until-end", "--data", data)
    table = succeeds("dead-letters", "list", "--data", data).stdout
    assert "\x1b" not in table
    assert "\x07" not in table
    assert "\u202e" not in table
    reasons = ("malformed-json", "empty-record", "bad-text", "not-utf-8", "tombstone")
    for number, reason in enumerate(reasons):
        line = next(line for line in table.splitlines() if line.startswith(f"complaints-0@{number} "))
        assert reason in line
    assert "\\x1b[2Jno json" in table
    assert "(300 bytes)" in table
    assert "(null)" in table
    only = succeeds("dead-letters", "list", "--reason", "tombstone", "--json", "--data", data).stdout.splitlines()
    assert [json.loads(line)["offset"] for line in only] == [4]
    assert "... and 4 more" in succeeds("dead-letters", "list", "--limit", "1", "--data", data).stdout
    assert succeeds("dead-letters", "list", "--reason", "none", "--data", data).stdout.startswith("no dead letters")


def test_outside_text_is_escaped() -> None:
    assert safe("a\x1b[31m\x9b\u202eb\u200b\n[red]产品\u3000é") == ("a\\x1b[31m\\x9b\\u202eb\\u200b\\n[red]产品\u3000é")


def test_signals_are_exported_to_both_formats(ran: Path, tmp_path: Path) -> None:
    succeeds("signals", "export", tmp_path / "s.ndjson", "--data", ran)
    succeeds("signals", "export", tmp_path / "s.parquet", "--data", ran)
    lines = (tmp_path / "s.ndjson").read_bytes().splitlines()
    assert lines
    assert [msgspec.json.decode(line, type=Signal).tick for line in lines] == pq.read_table(tmp_path / "s.parquet")[
        "tick"
    ].to_pylist()
    assert "cannot be written" in fails("signals", "export", tmp_path / "no" / "s.ndjson", "--data", ran).line
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.ndjson", "s.parquet"]


# --- catalogue, config, topics -------------------------------------------------------------------------------------


def test_the_catalogue_can_be_looked_up() -> None:
    whole = succeeds("catalogue", "show", "--lang", "en").stdout
    assert "F0201  Infant formula" in whole
    assert "120101" in whole
    one = succeeds("catalogue", "show", "F0201", "--lang", "en").stdout
    assert "Food > F02" in one
    assert "pass rate 0.98" in one
    assert "touches: " in succeeds("catalogue", "show", "120101").stdout


def test_the_configuration_shown_is_one_that_can_be_given(ran: Path, tmp_path: Path) -> None:
    shown = succeeds("config", "show", "--data", ran).stdout
    (tmp_path / "c.toml").write_text(shown)
    assert Config.load(tmp_path / "c.toml") == Config()
    again = succeeds("config", "show", "--config", tmp_path / "c.toml", "--data", tmp_path / "no").stdout
    assert again.splitlines()[1:] == shown.splitlines()[1:]
    assert not (tmp_path / "no").exists()


def test_topics_are_listed_with_their_records(ran: Path) -> None:
    rows = {line.split()[0]: line.split()[1:] for line in succeeds("topics", "list", "--data", ran).stdout.splitlines()}
    assert rows["inspections"] == ["raw", "4", "120"]
    assert rows["accidents"] == ["raw", "4", "1"]
