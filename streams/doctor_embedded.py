"""The doctor's round of a data directory. It opens the log for reading only, and holds no lock."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from schemas.alerts import DeadLetter
from schemas.errors import TocsinError
from schemas.topics import ALL_TOPICS
from streams import datadir
from streams.assess import PROGRESS_VERSION, Progress
from streams.config import Config, built_under
from streams.doctor import (
    Finding,
    check_backlog,
    check_built_under,
    check_clock,
    check_configuration,
    check_letters,
    check_space,
    failed,
)
from streams.embedded import INPUTS
from streams.log import LAYOUT
from streams.stored import unpack

__all__ = ["examine"]

_BIG_WAL = 512 << 20
_RAW = ", ".join(f"'{name}'" for name in INPUTS)


def examine(folder: Path, wanted: datadir.Wanted) -> list[Finding]:
    """Look at a data directory and all that is in it."""
    return list(_examine(folder, wanted))


def _examine(folder: Path, wanted: datadir.Wanted) -> Iterator[Finding]:
    if not folder.is_dir():
        yield Finding("directory", "failure", f"{folder} is not there", "name it with --data, or publish first")
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("directory", "failure", f"{folder} cannot be read and written", "give it to whoever runs this")
        return
    yield Finding("directory", "ok", str(folder))
    yield check_space(shutil.disk_usage(folder).free, folder)
    config: Config | None = None
    try:
        held = datadir.remembered(folder)
        config = wanted.over(held or Config())
        if held is not None and config != held:
            other = "--config or --catalogue asks for another configuration than the directory remembers"
            yield Finding("configuration", "failure", other, "leave them out, or use another directory")
        yield from check_configuration(config)
    except TocsinError as error:
        yield failed("configuration", error, f"mend {folder / datadir.FILE}")
    running = _who_runs(folder)
    yield Finding("run", "ok", f"{running} runs on it" if running else "nobody runs on it now")
    if not datadir.has_log(folder):
        yield Finding("log", "warning", "nothing has been published yet", "use `tocsin publish`")
        return
    try:
        with closing(sqlite3.connect(f"file:{folder / 'log.sqlite'}?mode=ro", uri=True, timeout=5)) as db:
            yield from _log(db, folder, config, running)
    except sqlite3.Error as error:
        yield failed("log", error, "restore log.sqlite from a copy; `sqlite3 log.sqlite .recover` may save records")


def _who_runs(folder: Path) -> str | None:
    """The process that holds the lock; asked for a moment only, and shared."""
    try:
        with (folder / "run.lock").open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return f"process {handle.read(20).strip() or '?'}"
    except OSError:
        return None


def _log(db: sqlite3.Connection, folder: Path, config: Config | None, running: str | None) -> Iterator[Finding]:
    said = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
    if said != ["ok"]:
        mend = "restore log.sqlite from a copy; `sqlite3 log.sqlite .recover` may save records"
        yield Finding("log", "failure", "; ".join(said)[:300], mend)
        return
    yield Finding("log", "ok", "SQLite finds it sound")
    wal = folder / "log.sqlite-wal"
    size = wal.stat().st_size if wal.exists() else 0
    if size > _BIG_WAL:
        yield Finding(
            "write-ahead log",
            "warning",
            f"{size >> 20:,} MiB",
            "end readers that stay open; then it shrinks",
        )
    else:
        yield Finding("write-ahead log", "ok", f"{size / 2**20:,.1f} MiB")
    meta = dict(db.execute("SELECT name, value FROM meta"))
    if meta.get("layout") != LAYOUT:
        older = meta.get("layout", 0) < LAYOUT
        mend = f"`tocsin state rebuild --data {folder}`" if older else "use the newer tocsin that made it"
        yield Finding("layout", "failure", f"it is {meta.get('layout')}, this tocsin reads {LAYOUT}", mend)
        return
    yield from _topics(db, meta, config)
    yield from _state(db, folder, config)
    yield _backlog(db, running)
    records = db.execute(f"SELECT TOTAL(next) FROM partitions WHERE topic IN ({_RAW})").fetchone()[0]  # noqa: S608
    reasons = _reasons(db)
    yield check_letters(reasons.total(), reasons, int(records))
    newest = db.execute(
        f"SELECT MAX(latest) FROM partitions WHERE next > 0 AND topic IN ({_RAW})"  # noqa: S608  # our names
    ).fetchone()[0]
    skew = 2_000 if config is None else config.intake.clock_skew_seconds * 1_000
    yield check_clock(int(time.time() * 1_000), newest, "the newest record", skew)


def _topics(db: sqlite3.Connection, meta: dict[str, int], config: Config | None) -> Iterator[Finding]:
    held = meta.get("partitions")
    if config is not None and held != config.partitions:
        mend = f"set partitions = {held} in {datadir.FILE}"
        yield Finding("topics", "failure", f"partitions is {held} in the log, {config.partitions} are configured", mend)
        return
    known = {spec.name for spec in ALL_TOPICS}
    strange = sorted(name for (name,) in db.execute("SELECT DISTINCT topic FROM partitions") if name not in known)
    if strange:
        yield Finding("topics", "warning", f"unknown topics: {', '.join(strange)[:200]}", "another version made them?")
    else:
        yield Finding("topics", "ok", f"{held} partitions each")


def _state(db: sqlite3.Connection, folder: Path, config: Config | None) -> Iterator[Finding]:
    rows = {name: bytes(value) for name, value in db.execute("SELECT name, value FROM state")}
    if "progress" not in rows:
        yield Finding("state", "warning", "nothing has been worked off yet", "start `tocsin run`")
        return
    try:
        progress = unpack(rows["progress"], Progress, PROGRESS_VERSION, "the progress row")
    except TocsinError as error:
        yield failed("state", error, f"`tocsin state rebuild --data {folder}`")
        return
    if config is None:
        return
    try:
        now = built_under(config, config.load_catalogue())
    except (TocsinError, OSError):
        return  # the catalogue has a finding of its own
    closed = "no tick closed" if progress.closed_through is None else f"closed through tick {progress.closed_through}"
    yield check_built_under(closed, rows.get("config", b"").decode("utf-8", "replace"), now)


def _backlog(db: sqlite3.Connection, running: str | None) -> Finding:
    lag: Counter[str] = Counter()
    for topic, ahead in db.execute(
        "SELECT topic, next - COALESCE(seen, 0) FROM partitions LEFT JOIN positions "  # noqa: S608  # our names
        f"ON positions.part = partitions.id WHERE topic IN ({_RAW})"
    ):
        lag[topic] += max(ahead, 0)
    return check_backlog(lag, running)


def _reasons(db: sqlite3.Connection) -> Counter[str]:
    """The letters by reason, those that were written again left out."""
    decode = msgspec.json.Decoder(DeadLetter).decode
    found: dict[int, str] = {}
    rows = db.execute(
        "SELECT at, value FROM records JOIN partitions ON partitions.id = records.part WHERE topic = 'dead-letters' "
        "ORDER BY at"
    )
    for at, value in rows:
        try:
            letter = decode(value or b"")
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if letter.stage == "requeue":
            found.pop(letter.offset, None)
        else:
            found[at] = letter.reason
    return Counter(found.values())
