"""The embedded log: the topics of Tocsin in one SQLite file (WAL), for a single machine without Kafka.

An append is durable when the call returns. Offsets count up from 0 in each partition, as on Kafka, and records with a
key go to the partition to which Kafka's default partitioner would send them.

Times are *given* (imported history keeps its own). So that a tick, once closed, stays closed, the log has a floor: a
record appended later arrives at the floor or after it. Raising the floor and looking at the ends of all partitions is
one transaction, so that what lies below the floor is all there.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import msgspec
from kafka.partitioner.default import murmur2

from schemas.errors import TocsinError
from schemas.topics import partitions_of
from streams.ticks import COMPLETE, Origin

__all__ = ["LAYOUT", "RECORD_TABLES", "LayoutError", "LogError", "LogRecord", "Position", "SqliteLog", "partition_for"]

LAYOUT = 2
RECORD_TABLES = ("meta", "partitions", "records", "positions")
"""What holds the record of topics and what was read of it. All other tables are state, which can be built anew; so a
new layout may change those, and :mod:`streams.rebuild` brings a log up to it."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, part INTEGER NOT NULL,
    next INTEGER NOT NULL DEFAULT 0, latest INTEGER NOT NULL, UNIQUE (topic, part));
CREATE TABLE IF NOT EXISTS records (
    part INTEGER NOT NULL, at INTEGER NOT NULL, time INTEGER NOT NULL,
    key BLOB, value BLOB, headers BLOB, PRIMARY KEY (part, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS segments (seq INTEGER PRIMARY KEY, value BLOB NOT NULL, last INTEGER);
CREATE TABLE IF NOT EXISTS base (piece INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS positions (
    part INTEGER PRIMARY KEY, at INTEGER NOT NULL, running_max INTEGER NOT NULL, seen INTEGER NOT NULL);
"""


class LogError(TocsinError):
    """The data directory cannot be used; the text says why and what to do."""


class LayoutError(LogError):
    """The log's tables are of another version of Tocsin; ``held`` is theirs."""

    def __init__(self, text: str, held: int) -> None:
        super().__init__(text)
        self.held = held


class LogRecord(NamedTuple):
    """A record of the log; the fields are those of a Kafka record."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Position(NamedTuple):
    """Where a consumer stands in a partition (see :mod:`streams.embedded`)."""

    offset: int = 0
    running_max: int = -COMPLETE
    seen: int = 0


@lru_cache(maxsize=65_536)
def partition_for(key: bytes | None, partitions: int) -> int:
    """Kafka's default partition of a key; records without one go to partition 0."""
    return 0 if key is None else (murmur2(key) & 0x7FFFFFFF) % partitions


class SqliteLog:
    """The log in a data directory.

    Parameters
    ----------
    folder
        The data directory; made where absent.
    partitions
        Partitions of each raw topic; that of an existing log must be the same.
    older
        Take a log of an older layout as it is, to bring it up to date by :meth:`state_from`; its state cannot be read.
    alone
        Nobody else opens it, and it is written seldom and much at once: then a rollback journal and large pages cost a
        quarter of what a write-ahead log does, which writes everything twice.
    """

    def __init__(self, folder: Path, partitions: int, *, older: bool = False, alone: bool = False) -> None:
        self.folder = folder
        self._lock: IO[str] | None = None
        self._ids: dict[Origin, int] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "log.sqlite", timeout=60, isolation_level=None)
            how = "PRAGMA page_size=65536; PRAGMA journal_mode=DELETE;" if alone else "PRAGMA journal_mode=WAL;"
            self._db.executescript(f"{how} PRAGMA synchronous=FULL;")
            with self.transaction():
                if self._is_of_this_layout(older):
                    self._make_tables()
                self._settle("partitions", partitions)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise self._unwritable(error) from None
            why = (
                f"log.sqlite is damaged ({error}); look with `tocsin doctor --data {folder}`, and restore a copy of it"
            )
            raise LogError(f"{folder}: {why}") from None
        except OSError as error:
            raise self._unwritable(error) from None
        self.partitions = partitions

    def _unwritable(self, error: Exception) -> LogError:
        return LogError(f"{self.folder}: the data directory cannot be written ({error}); check its owner and space")

    def _make_tables(self) -> None:
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)
        self.set_meta("layout", LAYOUT)

    def _is_of_this_layout(self, older: bool) -> bool:
        """Refuse a file whose tables another version made, before anything is changed in it."""
        known = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone()
        held = self.meta("layout") if known else None
        if held is None or held == LAYOUT:
            return True
        if older and held < LAYOUT:
            return False
        if held > LAYOUT:
            mend = "a newer tocsin made it; use that version, or a newer one"
        else:
            mend = f"an older tocsin made it; `tocsin state rebuild --data {self.folder}` brings it up to date"
        raise LayoutError(f"{self.folder}: the log's layout is {held}, this tocsin reads {LAYOUT}: {mend}", held)

    def _settle(self, name: str, wanted: int) -> None:
        held = self.meta(name)
        if held is None:
            self.set_meta(name, wanted)
        elif held != wanted:
            why = f"{name} is {held}, the configuration says {wanted}; use another directory or {held}"
            raise LogError(f"{self.folder}: {why}")

    def close(self) -> None:
        self._db.close()
        if self._lock is not None:
            self._lock.close()

    def lock(self) -> None:
        """Make this process the only one that runs on the directory (others may still publish to it)."""
        handle = (self.folder / "run.lock").open("a+")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.seek(0)
            raise LogError(
                f"{self.folder}: process {handle.read().strip() or '?'} already runs on this data directory"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        self._lock = handle

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at the end; LogError where the disk does not take it."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._ids.clear()
                if self._db.in_transaction:  # on a full disk SQLite may have rolled back by itself
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            mend = "make room on its disk" if full else "check its disk and its owner"
            why = f"the log cannot be written ({error}); {mend} and start again: what was acknowledged is safe"
            raise LogError(f"{self.folder}: {why}") from None

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """All that is read inside is of one instant, whatever others write meanwhile; they do not wait."""
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("ROLLBACK")

    # --- records ---------------------------------------------------------------------------------------------------

    def append(
        self, topic: str, records: Iterable[tuple[int, int, bytes | None, bytes | None, Sequence[tuple[str, bytes]]]]
    ) -> int:
        """Append (partition, time, key, value, headers) rows, inside a transaction; returns how many."""
        floor = self.meta("floor")
        rows = []
        ends: dict[int, tuple[int, int]] = {}
        numbers: dict[int, int] = {}
        for part, time, key, value, headers in records:
            number = numbers.get(part) or numbers.setdefault(part, self._id((topic, part)))
            at, latest = ends.get(number) or self._end(number)
            arrival = time if floor is None else max(time, floor)
            packed = msgspec.msgpack.encode(list(headers)) if headers else None
            rows.append((number, at, arrival, key, value, packed))
            ends[number] = (at + 1, max(latest, arrival))
        self._db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany(
            "UPDATE partitions SET next = ?, latest = ? WHERE id = ?", [(at, t, n) for n, (at, t) in ends.items()]
        )
        return len(rows)

    def read(self, origin: Origin, offset: int, limit: int, end: int | None = None) -> list[LogRecord]:
        """Up to ``limit`` records of a partition from an offset on, below ``end``."""
        rows = self._db.execute(
            "SELECT at, time, key, value, headers FROM records WHERE part = ? AND at >= ? AND at < ? "
            "ORDER BY at LIMIT ?",
            (self._id(origin), offset, COMPLETE if end is None else end, limit),
        )
        new = tuple.__new__  # as LogRecord(...) does, without a call in Python
        return [
            new(LogRecord, (at, time, key, value, _HEADERS.decode(headers) if headers else ()))
            for at, time, key, value, headers in rows
        ]

    def ends(self, topics: Iterable[str]) -> dict[Origin, int]:
        """The next offset of every partition of some topics, in order."""
        wanted = set(topics)
        rows = self._db.execute("SELECT topic, part, next FROM partitions ORDER BY topic, part").fetchall()
        held = {(topic, part): at for topic, part, at in rows if topic in wanted}
        every = {(name, p): 0 for name in wanted for p in range(partitions_of(name, self.partitions))}
        return dict(sorted({**every, **held}.items()))

    def latest(self, topics: Iterable[str]) -> int | None:
        """The greatest arrival in some topics, None where they are empty."""
        names = sorted(topics)
        marks = ",".join("?" for _ in names)
        query = f"SELECT MAX(latest) FROM partitions WHERE topic IN ({marks}) AND next > 0"  # noqa: S608  # only "?"
        found: int | None = self._db.execute(query, names).fetchone()[0]
        return found

    def raise_floor(self, floor: int) -> None:
        """Let nothing appended later arrive before ``floor``; inside a transaction."""
        self.set_meta("floor", max(floor, self.meta("floor") or -COMPLETE))

    def _id(self, origin: Origin) -> int:
        number = self._ids.get(origin)
        if number is None:
            row = self._db.execute("SELECT id FROM partitions WHERE topic = ? AND part = ?", origin).fetchone()
            if row is None:
                if not self._db.in_transaction:
                    return -1  # nothing was ever appended: reads find nothing
                cursor = self._db.execute(
                    "INSERT INTO partitions (topic, part, latest) VALUES (?, ?, ?)", (*origin, -COMPLETE)
                )
                row = (cursor.lastrowid,)
            number = int(row[0])
            if not self._db.in_transaction or self._committed(number):
                self._ids[origin] = number
        return number

    def _committed(self, number: int) -> bool:
        """Ids made in a transaction that may yet be rolled back are not remembered."""
        return self._end(number)[0] > 0

    def _end(self, number: int) -> tuple[int, int]:
        row = self._db.execute("SELECT next, latest FROM partitions WHERE id = ?", (number,)).fetchone()
        return int(row[0]), int(row[1])

    # --- state -----------------------------------------------------------------------------------------------------

    def meta(self, name: str) -> int | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else int(row[0])

    def set_meta(self, name: str, value: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def state(self, name: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_state(self, name: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO state VALUES (?, ?)", (name, value))

    def add_segment(self, value: bytes, last: int) -> None:
        """Store a segment whose last tick is ``last``."""
        self._db.execute("INSERT INTO segments (value, last) VALUES (?, ?)", (value, last))

    def drop_segments(self, before: int) -> None:
        """Delete the segments that end before a tick."""
        self._db.execute("DELETE FROM segments WHERE last < ?", (before,))

    def set_base(self, pieces: Iterable[bytes]) -> None:
        """Store a base in the place of the one before."""
        self._db.execute("DELETE FROM base")
        self._db.executemany("INSERT INTO base VALUES (?, ?)", enumerate(pieces))

    def base(self) -> Iterator[bytes]:
        """The pieces of the stored base, in order."""
        for (value,) in self._db.execute("SELECT value FROM base ORDER BY piece"):
            yield bytes(value)

    @contextmanager
    def state_from(self, other: Path) -> Iterator[None]:
        """Replace all state by that of another log (by its file), in one transaction with what is done inside."""
        self._db.execute("ATTACH ? AS fresh", (str(other),))
        try:
            with self.transaction():
                for name in self._state_tables("main"):
                    self._db.execute(f'DROP TABLE main."{name}"')
                self._make_tables()
                for name in self._state_tables("fresh"):
                    self._db.execute(f'INSERT INTO main."{name}" SELECT * FROM fresh."{name}"')  # noqa: S608  # ours
                yield
        finally:
            self._db.execute("DETACH fresh")

    def _state_tables(self, where: str) -> list[str]:
        rows = self._db.execute(f"SELECT name FROM {where}.sqlite_master WHERE type = 'table'")  # noqa: S608  # ours
        return sorted(name for (name,) in rows if name not in RECORD_TABLES and not name.startswith("sqlite_"))

    def segments(self) -> Iterator[bytes]:
        """The stored segments in the order in which they were written."""
        for (value,) in self._db.execute("SELECT value FROM segments ORDER BY seq"):
            yield bytes(value)

    def segment_count(self) -> int:
        """How many segments are stored."""
        return int(self._db.execute("SELECT COUNT(*) FROM segments").fetchone()[0])

    def position(self, origin: Origin) -> Position:
        row = self._db.execute(
            "SELECT at, running_max, seen FROM positions WHERE part = ?", (self._id(origin),)
        ).fetchone()
        return Position() if row is None else Position(*row)

    def set_position(self, origin: Origin, position: Position) -> None:
        self._db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", (self._id(origin), *position))


_HEADERS = msgspec.msgpack.Decoder(list[tuple[str, bytes]])
