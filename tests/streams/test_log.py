"""The embedded log: appends, floors, partitions, locks, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import ALL_TOPICS
from streams.log import LogError, LogRecord, Position, SqliteLog, partition_for
from streams.ticks import COMPLETE


def put(log: SqliteLog, part: int, *times: int, topic: str = "injuries") -> None:
    with log.transaction():
        log.append(topic, [(part, time, b"k", b"v%d" % time, ()) for time in times])


def fail_after(log: SqliteLog, *times: int) -> None:
    """Append in one transaction, one call each, and fail before its end."""
    with log.transaction():
        for time in times:
            log.append("injuries", [(0, time, None, b"", ())])
        raise KeyError


def times(log: SqliteLog, part: int = 0, topic: str = "injuries") -> list[int]:
    return [record.timestamp for record in log.read((topic, part), 0, 1_000)]


def test_offsets_count_up_from_zero_in_each_partition(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, 0, 5, 6)
    put(log, 1, 7)
    put(log, 0, 8)
    assert [(r.offset, r.timestamp) for r in log.read(("injuries", 0), 0, 9)] == [(0, 5), (1, 6), (2, 8)]
    assert [(r.offset, r.timestamp) for r in log.read(("injuries", 1), 0, 9)] == [(0, 7)]
    assert log.read(("injuries", 0), 1, 1) == [LogRecord(1, 6, b"k", b"v6", ())]
    assert [r.offset for r in log.read(("injuries", 0), 0, 9, end=2)] == [0, 1]
    assert log.read(("accidents", 0), 0, 9) == []


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 1)
    rows = [(0, 1, None, None, ()), (0, 2, b"", b"", [("a", b"\xff"), ("a", b"")]), (0, 3, b"\x00", b"\x00" * 9, [])]
    with log.transaction():
        assert log.append("losses", rows) == 3
    held = log.read(("losses", 0), 0, 9)
    assert [(0, r.timestamp, r.key, r.value, list(r.headers)) for r in held] == [
        (*row[:4], list(row[4])) for row in rows
    ]


def test_what_was_appended_is_there_after_closing_and_opening(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "made" / "here", 2)
    put(log, 1, 3)
    log.close()
    assert times(SqliteLog(tmp_path / "made" / "here", 2), 1) == [3]


def test_the_ends_name_every_partition_the_empty_ones_too(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 3)
    put(log, 2, 9, 9)
    ends = log.ends(["injuries", "dispositions"])
    assert ends == {("dispositions", 0): 0, ("injuries", 0): 0, ("injuries", 1): 0, ("injuries", 2): 2}
    assert list(ends) == sorted(ends)
    assert log.ends([spec.name for spec in ALL_TOPICS])


def test_an_append_that_fails_halfway_leaves_nothing(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 1)
    put(log, 0, 1)
    with pytest.raises(KeyError):
        fail_after(log, 2)
    assert times(log) == [1]
    put(log, 0, 3)
    assert times(log) == [1, 3]


def test_after_a_failed_first_append_the_next_one_works(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 1)
    with pytest.raises(KeyError):
        fail_after(log, 1, 2)
    put(log, 0, 3)
    assert times(log) == [3]


# --- the floor -----------------------------------------------------------------------------------------------------


def test_what_is_appended_below_the_floor_arrives_at_the_floor(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 1)
    put(log, 0, 50)
    with log.transaction():
        log.raise_floor(100)
    put(log, 0, 70, 100, 130, 5)
    assert times(log) == [50, 100, 100, 130, 100]
    log.close()
    again = SqliteLog(tmp_path, 1)
    put(again, 0, 1, topic="losses")
    assert times(again, topic="losses") == [100]


def test_the_floor_never_sinks(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 1)
    with log.transaction():
        log.raise_floor(100)
        log.raise_floor(40)
    assert log.meta("floor") == 100


def test_the_latest_arrival_is_that_of_all_partitions_of_the_topics_asked_for(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    assert log.latest(["injuries"]) is None
    put(log, 0, 9, 4)
    put(log, 1, 7)
    put(log, 0, 99, topic="signals")
    assert log.latest(["injuries", "losses"]) == 9


# --- state ---------------------------------------------------------------------------------------------------------


def test_state_segments_and_positions_are_kept(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 1)
    put(log, 0, 1)
    assert (log.state("progress"), log.position(("injuries", 0))) == (None, Position(0, -COMPLETE, 0))
    with log.transaction():
        for last, value in enumerate((b"gone", b"first", b"second")):
            log.set_state("progress", value)
            log.add_segment(value, last)
            log.set_base([value, b"more"])
            log.set_position(("injuries", 0), Position(1, 77, 5))
            log.set_position(("losses", 0), Position(3, 1, 3))
        log.drop_segments(before=1)
        log.set_base([b"base"])
    log.close()
    again = SqliteLog(tmp_path, 1)
    assert (again.state("progress"), list(again.segments())) == (b"second", [b"first", b"second"])
    assert list(again.base()) == [b"base"]
    assert again.position(("injuries", 0)) == Position(1, 77, 5)
    assert again.position(("losses", 0)) == Position(3, 1, 3)


# --- partitions ----------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=40), st.integers(1, 64))
def test_a_key_goes_where_kafkas_own_partitioner_sends_it(key: bytes, partitions: int) -> None:
    every = list(range(partitions))
    assert partition_for(key, partitions) == DefaultPartitioner()(key, every, every)


def test_a_record_without_a_key_goes_to_the_first_partition() -> None:
    assert partition_for(None, 9) == 0


# --- what it says when it cannot -----------------------------------------------------------------------------------


def test_another_number_of_partitions_is_refused_with_both_numbers_and_the_way_out(tmp_path: Path) -> None:
    SqliteLog(tmp_path, 4).close()
    with pytest.raises(LogError, match=r"partitions is 4, the configuration says 8; use another directory or 4"):
        SqliteLog(tmp_path, 8)
    SqliteLog(tmp_path, 4).close()


def test_a_second_runner_is_refused_by_the_number_of_the_first(tmp_path: Path) -> None:
    first, second = SqliteLog(tmp_path, 1), SqliteLog(tmp_path, 1)
    first.lock()
    with pytest.raises(LogError, match=f"process {os.getpid()} already runs"):
        second.lock()
    put(second, 0, 1)  # publishing goes on
    first.close()
    second.lock()


def test_the_lock_of_another_process_is_seen_and_ends_with_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom streams.log import SqliteLog\n"
        "log = SqliteLog(Path(sys.argv[1]), 1)\nlog.lock()\nprint('locked', flush=True)\nsys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        log = SqliteLog(tmp_path, 1)
        with pytest.raises(LogError, match=f"process {other.pid} already runs"):
            log.lock()
        other.kill()
        other.wait()
    log.lock()


@pytest.mark.parametrize("what", ["a file in its place", "a file above it", "no database", "/proc"])
def test_a_directory_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "data"
    if what == "a file in its place":
        folder.write_text("")
    elif what == "a file above it":
        folder.write_text("")
        folder = folder / "below"
    elif what == "/proc":
        folder = Path("/proc/tocsin")
    else:
        folder.mkdir()
        (folder / "log.sqlite").write_bytes(b"this is no database" * 99)
    with pytest.raises(LogError, match=re.escape(str(folder))) as caught:
        SqliteLog(folder, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(LogError, match="cannot be written"):
            SqliteLog(tmp_path, 1)
    finally:
        tmp_path.chmod(0o700)


def test_a_full_disk_is_one_clear_error_and_the_log_goes_on_when_there_is_room(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 1)
    put(log, 0, 1)
    pages = log._db.execute("PRAGMA page_count").fetchone()[0]
    log._db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite then says what it says on a full disk
    with pytest.raises(LogError, match=rf"^{re.escape(str(tmp_path))}: .*full.*make room on its disk and start again"):
        put(log, 0, *range(2, 2_000))
    assert times(log) == [1]
    log._db.execute("PRAGMA max_page_count = 100000")
    put(log, 0, 2, 3)
    assert times(log) == [1, 2, 3]
    assert log.ends(["injuries"]) == {("injuries", 0): 3}
