"""Faults of the embedded runtime: ``tocsin run`` on a data directory, while another process publishes to it.

The run is a process as a user starts it; it is killed, starved of disk, misled by its clock or fed badly. A supervisor
(:meth:`Scene.tend`) starts again what ended, as systemd does. At the end the backlog is worked off and the last ticks
are closed by ``tocsin run --until-end``.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from law import PARTITIONS, Dataset, Worker, embedded, folded_in, read, values, written

from faults.record import Chunk, chunks, duplicated, poisoned, recent, reordered, summer, undisturbed
from faults.verdict import Run, compare
from streams import datadir
from streams.embedded import INPUTS
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing

__all__ = ["FAULTS", "NOT_HERE", "Scene"]

HERE = Path(__file__).resolve().parent
DEADLINE = 300.0
"""Seconds to wait for anything: a machine may be busy. What is slow is told by the recovery times, not by this."""
DISK = 48 << 20
_PACE = 0.3
"""Seconds between two chunks, each a day of the record, while a run is hit."""
_SETTLE = 0.05
"""Seconds of quiet after which a run closes what came: less than the pace, so that the ticks close one by one."""
NOT_HERE = {
    "broker-kill": "there is no broker",
    "broker-pause": "there is no broker",
    "network-cut": "there is no network: publishers and the run share a file",
    "scale": "one process runs on a data directory; a second is refused",
}


class Stuck(Exception):
    """The run did not come so far in time; the text has its last words."""


class Scene:
    """A data directory, its run and its publisher.

    Parameters
    ----------
    folder
        Of this run alone.
    data
        The data directory.
    pieces
        What is to be published.
    hooks
        For the run: ``settle``, ``mutation``, ``clock``, ``options`` (see embedded_process.py).
    """

    def __init__(self, folder: Path, data: Path, dataset: Dataset, pieces: list[Chunk], run: Run, **hooks: Any) -> None:
        self.folder, self.data, self.run, self._hooks = folder, data, run, hooks
        self._chunks, self._acknowledged = folder / "chunks", folder / "acknowledged"
        self._chunks.write_bytes(msgspec.msgpack.encode(pieces))
        self._gate = folder / "gate"
        self.pieces = len(pieces)
        self.allow(self.pieces)
        self.config = dataset.config.replace(partitions=PARTITIONS)
        file = folder / "wanted.toml"
        file.write_text(datadir.to_toml(self.config), "utf-8")
        datadir.settle(data, datadir.Wanted(file=file))
        SqliteLog(data, PARTITIONS).close()
        self.worker: Worker | None = None
        self.publisher: Worker | None = None
        self.pace = 0.0
        self._logs = 0
        self.moved = 0.0
        self.last_words: list[str] = []

    # --- processes -------------------------------------------------------------------------------------------------

    def _launch(self, what: str, orders: dict[str, Any]) -> Worker:
        self._logs += 1
        command = [sys.executable, str(HERE / "embedded_process.py"), what, json.dumps(orders)]
        return Worker(command, self.folder / f"{what}-{self._logs}.log")

    def work(self, *options: str) -> Worker:
        """Start the run."""
        mine = [*self._hooks.get("options", []), *options]
        self.worker = self._launch("run", {"data": str(self.data), **self._hooks, "options": mine})
        return self.worker

    def publish(self, pace: float | None = None) -> Worker:
        """Start the publisher; it goes on where the last one's acknowledgements end."""
        self.pace = self.pace if pace is None else pace
        orders = {"data": str(self.data), "chunks": str(self._chunks), "acknowledged": str(self._acknowledged)}
        orders["gate"] = str(self._gate)
        self.publisher = self._launch("publish", {**orders, "pace": self.pace})
        return self.publisher

    def allow(self, pieces: int) -> None:
        """How many chunks may be published by now, so that every part of a run has something to work on."""
        fresh = self._gate.with_suffix(".new")
        fresh.write_text(str(pieces))
        fresh.rename(self._gate)

    def acknowledged(self) -> int:
        """How many chunks are."""
        text = self._acknowledged.read_bytes() if self._acknowledged.exists() else b""
        return len(set(text.split(b"\n")[:-1]))

    def tend(self) -> None:
        """Start again what ended by itself."""
        if self.worker is not None and not self.worker.alive:
            self.note_end(self.worker)
            self.work()
        if self.publisher is not None and not self.publisher.alive and self.acknowledged() < self.pieces:
            self.publish()

    def note_end(self, worker: Worker) -> None:
        """A run that ended by itself must have said why in one line."""
        self.run.ended += 1
        lines = worker.log.read_text(errors="replace").strip().splitlines() or ["(it said nothing)"]
        self.last_words.append(lines[-1])
        if any("Traceback" in line for line in lines) or worker.process.returncode != 1:
            self.run.words.append(f"the run ended with {worker.process.returncode}: {' / '.join(lines[-6:])}")

    def close(self) -> None:
        """End the processes."""
        for one in (self.worker, self.publisher):
            if one is not None:
                one.process.kill()
                one.process.wait(10)

    # --- how far it is ---------------------------------------------------------------------------------------------

    def _ask(self, query: str, *values: str) -> Any:
        uri = f"file:{self.data / 'log.sqlite'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as db:
            return db.execute(query, values).fetchone()[0]

    def progress(self) -> object:
        """Changes with every checkpoint."""
        return self._ask(
            "SELECT (SELECT hex(value) FROM state WHERE name = 'progress') || (SELECT SUM(seen) FROM positions)"
        )

    def caught_up(self) -> bool:
        """Whether a checkpoint covers every record that there is."""
        rows = "partitions p LEFT JOIN positions q ON q.part = p.id WHERE COALESCE(q.seen, 0) < p.next"
        marks = ", ".join("?" for _ in INPUTS)
        left = self._ask(f"SELECT COUNT(*) FROM {rows} AND p.topic IN ({marks})", *INPUTS)  # noqa: S608  # only "?"
        return bool(left == 0)

    def wait(self, until: Callable[[], object], seconds: float = DEADLINE) -> bool:
        """Wait for something while the supervisor is at work; False when it did not come."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.tend()
            if until():
                return True
            time.sleep(0.02)
        return False

    def up(self) -> bool:
        """Whether the run has read its state and begun."""
        return self.worker is not None and "watching" in self.worker.log.read_text(errors="replace")

    def moves(self, before: object, seconds: float) -> bool:
        """Let so much time pass, and say whether a checkpoint came meanwhile; ``moved`` is when."""
        ends, self.moved = time.monotonic() + seconds, 0.0
        while time.monotonic() < ends:
            if not self.moved and self.progress() != before:
                self.moved = time.monotonic()
            time.sleep(0.01)
        return self.moved > 0

    def recovered(self, since: float, before: object) -> None:
        """Wait for the first checkpoint after a fault, and note how long it took."""
        if self.wait(lambda: self.progress() != before):
            self.run.recoveries.append(time.monotonic() - since)
        else:
            self.run.words.append(f"no checkpoint for {DEADLINE} s")

    def finish(self) -> None:
        """Work off what there is, and close the last ticks."""
        self.allow(self.pieces)
        for until in (lambda: self.acknowledged() == self.pieces, self.caught_up):
            if not self.wait(until):
                raise Stuck(f"it did not finish in {DEADLINE} s: {self.worker and self.worker.tail()}")
        # Until it says so it cannot stop in order: its signals are not in its hands yet.
        self.wait(self.up)
        if self.worker is not None and self.worker.stop(seconds=DEADLINE) != 0:
            self.run.words.append(f"it did not stop in order: {self.worker.tail(600)}")
        last = self.work("--until-end")
        if last.process.wait(DEADLINE) != 0:
            self.run.words.append(f"--until-end ended with {last.process.returncode}: {last.tail(600)}")

    def judge(self, dataset: Dataset, scale: float, room: Path, refused: int = 0) -> None:
        """Compare with the undisturbed run of the base."""
        with self._medium() as medium:
            compare(
                self.run, dataset, folded_in(medium.log.segments()), written(medium), undisturbed(scale, room),
                values(medium, "dead-letters"), offsets=False, refused=refused,
            )  # fmt: skip

    @contextmanager
    def _medium(self) -> Iterator[EmbeddedMedium]:
        log = SqliteLog(self.data, PARTITIONS)
        try:
            yield EmbeddedMedium(log)
        finally:
            log.close()


# --- the faults ----------------------------------------------------------------------------------------------------


@contextmanager
def _scene(run: Run, room: Path, dataset: Dataset, pieces: list[Chunk], disk: int = 0, **hooks: Any) -> Iterator[Scene]:
    folder = room / f"{run.fault}-{run.seed}"
    folder.mkdir(parents=True)
    data = folder / "data"
    data.mkdir()
    if disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", str(data)], check=True)
    scene = Scene(folder, data, dataset, pieces, run, **hooks)
    try:
        yield scene
    finally:
        scene.close()
        if disk:
            subprocess.run(["umount", str(data)], check=False)
        if run.clean:
            shutil.rmtree(folder, ignore_errors=True)


def kill(run: Run, rng: random.Random, scale: float, room: Path, blows: int, **hooks: Any) -> None:
    """SIGKILL for the run at random moments of its work, restore and start, while a publisher publishes; and now and
    then for the publisher, which then sends again what it has no acknowledgement for."""
    pieces = list(chunks(summer(scale)))
    with _scene(run, room, summer(scale), pieces, settle=_SETTLE, **hooks) as scene:
        scene.allow(0)
        scene.publish(_PACE)
        scene.work()
        since, before = time.monotonic(), scene.progress()
        for number in range(blows):
            amid = rng.random() < 0.75
            if amid:  # only a run that is up has something to do, and then until it is killed
                scene.wait(scene.up)
            scene.allow((number + 1) * scene.pieces // (blows + 1))
            if scene.moves(before, rng.uniform(0.0, 2.4 if amid else 2.0)) and number:
                run.recoveries.append(scene.moved - since)
            if rng.random() < 0.3 and scene.publisher is not None and scene.publisher.alive:
                scene.publisher.stop(signal.SIGKILL)
            if scene.worker is not None and scene.worker.alive:
                scene.worker.stop(signal.SIGKILL)
                run.blows += 1
            since, before = time.monotonic(), scene.progress()
            scene.work()
            scene.tend()
        scene.allow(scene.pieces)
        scene.recovered(since, before)
        scene.finish()
        scene.judge(summer(scale), scale, room)


def disk_full(run: Run, rng: random.Random, scale: float, room: Path, blows: int, **hooks: Any) -> None:
    """Other files take all the space of the data directory's disk, and give it back."""
    pieces = list(chunks(summer(scale)))
    with _scene(run, room, summer(scale), pieces, DISK, settle=_SETTLE, **hooks) as scene:
        scene.allow(0)
        scene.publish(0.3)
        scene.work()
        for number in range(blows):
            before = scene.progress()
            scene.allow((number + 1) * scene.pieces // (blows + 1))
            scene.wait(lambda: scene.progress() != before)  # noqa: B023  # used at once
            time.sleep(rng.uniform(0.0, 1.0))
            ended, ballast = run.ended, scene.data / "ballast"
            _fill(ballast, rng.choice((0, 0, 4_096, 20_000)))
            scene.wait(lambda: run.ended > ended, 10)  # noqa: B023
            run.blows += run.ended > ended
            time.sleep(rng.uniform(0.0, 1.0))
            scene.tend()  # it may try again, in vain
            time.sleep(rng.uniform(0.0, 2.0))
            before = scene.progress()
            scene.allow((number + 1) * scene.pieces // (blows + 1) + 1)  # something is left to show that it goes on
            ballast.unlink()
            scene.recovered(time.monotonic(), before)
        scene.finish()
        if not run.blows:
            run.words.append("the full disk was never noticed")
        unclear = [words for words in scene.last_words if "full" not in words and "space" not in words]
        run.words += [f"does not say that the disk is full: {words}" for words in unclear[:1]]
        scene.judge(summer(scale), scale, room)


def _fill(ballast: Path, leave: int) -> None:
    """Take the whole disk but for a few bytes."""
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
    try:
        while (room := shutil.disk_usage(ballast.parent).free - leave) > 0:
            try:
                os.posix_fallocate(handle, os.fstat(handle).st_size, room)
            except OSError as error:  # the run took some of it meanwhile, and then we are given nothing: once more
                if error.errno != errno.ENOSPC:
                    raise
    finally:
        os.close(handle)


def clock_jump(run: Run, rng: random.Random, scale: float, room: Path, blows: int, **hooks: Any) -> None:
    """The run's wall clock jumps by hours, forth and back, while events of today come in.

    The log is sealed by that clock, so when an event *arrives* may move, as it would for a sender who is late. What
    must hold: every event is there and counts once, and the outcome is that of a fresh run over the log as it stands.
    """
    dataset = recent(scale, int(time.time() * 1_000))
    pieces = list(chunks(dataset, 6 * 3_600_000))
    jumps = [rng.randrange(1, 2**31), [-30.0, -9.0, -2.0, 0.0, 3.0, 11.0], 0.6]
    with _scene(run, room, dataset, pieces, clock=jumps, **hooks) as scene:
        run.blows += blows
        scene.publish(0.04)
        scene.work()
        scene.finish()
        with scene._medium() as medium:
            topics = {name: [Outgoing(*r[1:]) for r in read(medium, name)] for name in INPUTS}
            sent = Counter((name, r.value) for name, records in dataset.topics.items() for r in records)
            kept = Counter((name, r.value) for name, records in topics.items() for r in records)
            run.lost += (sent - kept).total()
            run.duplicated += (kept - sent).total()
            fresh = SqliteLog(scene.folder / "fresh", PARTITIONS)
            with fresh.transaction():
                for name in INPUTS:
                    for (_, part), end in medium.ends([name]).items():
                        rows = [r for batch in medium.read((name, part), 0, end, 5_000) for r in batch]
                        fresh.append(name, [(part, *r[1:]) for r in rows])
            fresh.close()
            again = Dataset("as it stands", scene.config, topics)
            expected = embedded(Dataset("nothing more", scene.config, {}), scene.folder / "fresh")
            letters = values(medium, "dead-letters")
            compare(run, again, folded_in(medium.log.segments()), written(medium), expected, letters)


def _fed(run: Run, sent: Dataset, rng: random.Random, scale: float, room: Path, refused: int, **hooks: Any) -> None:
    """Let a run work on what a careless sender sends."""
    pieces = list(chunks(sent, rng=rng))
    options = ["--batch", str(rng.choice((7, 100, 5_000)))]
    with _scene(run, room, sent, pieces, settle=_SETTLE, options=options, **hooks) as scene:
        run.blows += 1
        scene.publish(0.01)
        scene.work()
        scene.finish()
        scene.judge(summer(scale), scale, room, refused)


def duplicate(run: Run, rng: random.Random, scale: float, room: Path, blows: int, **hooks: Any) -> None:
    """Every third record comes several times."""
    _fed(run, duplicated(summer(scale), rng), rng, scale, room, 0, **hooks)


def reorder(run: Run, rng: random.Random, scale: float, room: Path, blows: int, **hooks: Any) -> None:
    """Within a tick, nothing is in order."""
    _fed(run, reordered(summer(scale), rng), rng, scale, room, 0, **hooks)


def poison(run: Run, rng: random.Random, scale: float, room: Path, blows: int, **hooks: Any) -> None:
    """Records that must be refused lie among the others."""
    sent, refused = poisoned(summer(scale), rng, 6_000_000)
    _fed(run, sent, rng, scale, room, refused, **hooks)


def careless(run: Run, rng: random.Random, scale: float, room: Path, blows: int, **hooks: Any) -> None:
    """Copies, poison and topics in any order at once: what a short test does in one run."""
    sent, refused = poisoned(duplicated(summer(scale), rng), rng)
    _fed(run, sent, rng, scale, room, refused, **hooks)


FAULTS: dict[str, Callable[..., None]] = {
    "kill": kill,
    "disk-full": disk_full,
    "clock-jump": clock_jump,
    "duplicate": duplicate,
    "reorder": reorder,
    "poison": poison,
}
