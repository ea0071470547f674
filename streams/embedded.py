"""The embedded runtime: the three stages in one process on the SQLite log.

The protocol of one checkpoint, all in one SQLite transaction:

1. alerts, signals and dead letters are appended to their topics;
2. the state segments, the progress row and the escalate snapshot are stored;
3. the input positions are stored: per raw partition the offset of the oldest event that still waits for its tick, the
   running maximum of time before it, and how far records were *seen* (their dead letters written).

So a crash at any moment leaves the state of the last checkpoint, and the run goes on from there as if nothing had been.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from schemas.alerts import Alert, DeadLetter, Signal
from schemas.catalogue import Catalogue
from schemas.errors import ConfigError
from schemas.topics import RAW_TOPICS
from streams.assess import Assess, Closed, too_late
from streams.config import Config, built_under
from streams.escalate import Escalate
from streams.intake import Intake, IntakeResult
from streams.log import Position, SqliteLog
from streams.meter import SILENT, Meter
from streams.stored import mend
from streams.ticks import COMPLETE, MS_PER_DAY, Calendar, Origin

__all__ = ["INPUTS", "EmbeddedRuntime", "Pipeline", "Step", "restore_stages", "store_stages"]

_TICKS_AT_ONCE = 10
INPUTS: tuple[str, ...] = (*RAW_TOPICS, "dispositions")
"""The topics that are inputs: their partitions are the origins."""


@dataclass(slots=True)
class Step:
    """What one step of the pipeline brought."""

    alerts: list[Alert] = field(default_factory=list)
    signals: list[Signal] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    events: int = 0
    ticks: int = 0


class Pipeline:
    """The three stages wired in memory, for the embedded runtime, replay and the tests.

    Parameters
    ----------
    config, catalogue
        As for the stages.
    origins
        All raw partitions.
    meter
        Hears of the work.
    stored
        Whether the state will be stored.
    """

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        origins: Sequence[Origin],
        meter: Meter = SILENT,
        *,
        stored: bool = False,
    ) -> None:
        self._meter = meter
        self.calendar = Calendar(config.tick_ms, config.offset_ms)
        self.intake = Intake(config, catalogue)
        self.assess = Assess(config, catalogue, tuple(origins), stored=stored)
        self.escalate = Escalate(config, catalogue, 1)
        self.running_max: dict[Origin, int] = dict.fromkeys(origins, -COMPLETE)
        self._step = Step()

    def feed(self, origin: Origin, records: Sequence[object], *, seen: int = 0) -> None:
        """Take consecutive records of one raw partition; dead letters of offsets under ``seen`` were written before."""
        began = time.perf_counter()
        result = self.intake.process(origin, records, self.running_max[origin])  # type: ignore[arg-type]
        self._meter.decoded(result, len(records), time.perf_counter() - began)
        self.offer(origin, result, len(records), seen=seen)

    def offer(self, origin: Origin, result: IntakeResult, count: int, *, seen: int = 0) -> None:
        """Take what intake made of ``count`` consecutive records of one raw partition."""
        self.running_max[origin] = result.last_arrival
        self._step.events += count
        for signal in result.grave:
            self._step.alerts += self.escalate.grave(signal)
            self._step.signals.append(signal)
        self._meter.arrived([signal.alert_id for signal in result.grave], result.last_arrival)
        for arrival, disposition in result.dispositions:
            self.escalate.dispose(arrival, disposition)
        late = self.assess.offer(origin, result.columns)
        self._meter.late(len(late))
        self._step.dead += [letter for letter in (*result.dead, *too_late(late)) if letter.offset >= seen]
        self.mark(origin, result.last_arrival)

    def mark(self, origin: Origin, watermark: int) -> None:
        """Say that no later record of the origin arrives before ``watermark``."""
        self.assess.watermarks.advance(origin, watermark, self.running_max[origin])

    def close(self, limit: int | None = None) -> Closed:
        """Close the ticks that all origins have passed, and escalate what they brought."""
        began = time.perf_counter()
        closed = self.assess.close(limit)
        assessed = time.perf_counter()
        self.escalate.offer(0, closed.through, closed.signals, closed.tallies)
        self._step.signals += closed.signals
        self._step.ticks += len(closed.ticks)
        self._step.alerts += self.escalate.close()
        self._meter.closed(closed, assessed - began, time.perf_counter() - assessed)
        return closed

    def take(self) -> Step:
        """What has come out since the last call."""
        step, self._step = self._step, Step()
        return step


class EmbeddedRuntime:
    """Runs the pipeline on a log.

    Parameters
    ----------
    log
        The log; this process must hold its lock.
    config, catalogue
        As for the stages.
    batch
        Records read at a time. It cannot show in any output.
    on_step
        Called after each checkpoint with what came out.
    meter
        Hears of the work.
    """

    def __init__(
        self,
        log: SqliteLog,
        config: Config,
        catalogue: Catalogue,
        *,
        batch: int = 5_000,
        checkpoint_seconds: float = 1.0,
        on_step: Callable[[Step], None] | None = None,
        meter: Meter = SILENT,
    ) -> None:
        self._meter = meter
        self._log = log
        self._built_under = built_under(config, catalogue)
        self._batch = batch
        self._pause = checkpoint_seconds
        self._on_step = on_step
        self._ends = log.ends(INPUTS)
        self.pipeline = Pipeline(config, catalogue, tuple(self._ends), meter, stored=True)
        self._next: dict[Origin, int] = {}
        self._seen: dict[Origin, int] = {}
        self._checkpointed = 0.0
        meter.assigning()
        meter.restoring("pipeline", 0, 0.0)
        self._restore()
        meter.restoring("pipeline", 0, 1.0)
        meter.serving({"pipeline": 1})
        self._tell_state()

    # --- running ---------------------------------------------------------------------------------------------------

    def run_to_end(self) -> None:
        """Work off all that is in the log, and close every tick through the last arrival's."""
        floor: int | None = None
        while True:
            with self._log.transaction():
                latest = self._log.latest(INPUTS)
                if latest is not None:
                    calendar = self.pipeline.calendar
                    floor = calendar.tick_end(calendar.tick(latest))
                    self._log.raise_floor(floor)
                self._ends = self._log.ends(INPUTS)
            self._tell_positions()
            if self._exhausted():
                break
            self._read_through(floor)
        self._mark_all(floor)
        self._close()
        self._checkpoint()

    def catch_up(self) -> None:
        """Work off what is in the log and close the ticks that the log is sealed to, without sealing it any further:
        what runs before have come to, come to again (:mod:`streams.rebuild`)."""
        floor = self._log.meta("floor")
        self._ends = self._log.ends(INPUTS)
        self._read_through(floor)
        self._mark_all(floor)
        self._close()
        self._checkpoint()

    def watch(self, stop: Callable[[], bool], *, settle: float = 2.0, poll: float = 0.2) -> None:
        """Go on for ever: work off what comes, and close ticks as the log's floor passes them."""
        quiet_since = time.monotonic()
        while not stop():
            with self._log.transaction():
                ends = self._log.ends(INPUTS)
                if ends != self._ends:
                    quiet_since = time.monotonic()
                floor = self._floor(time.monotonic() - quiet_since >= settle, settle)
                if floor is not None:
                    self._log.raise_floor(floor)
                self._ends = ends
            self._tell_positions()
            idle = self._exhausted()
            self._read_through(floor)
            self._mark_all(floor)
            self._close()
            if self._dirty() and time.monotonic() - self._checkpointed >= (0.0 if idle else self._pause):
                self._checkpoint()
            if idle:
                time.sleep(poll)
        self._checkpoint()

    def _floor(self, quiet: bool, settle: float) -> int | None:
        """How far the log may be sealed: to the clock where events are of today, else to the end of the last
        arrival's tick, once publishers have been quiet for a while (history in several files comes in between)."""
        latest = self._log.latest(INPUTS)
        if latest is None:
            return None
        now = int(time.time() * 1_000)
        if max(latest, self._log.meta("floor") or latest) > now - MS_PER_DAY:
            return now - int(settle * 1_000)
        calendar = self.pipeline.calendar
        return calendar.tick_end(calendar.tick(latest)) if quiet else None

    def _exhausted(self) -> bool:
        return all(self._next[origin] >= end for origin, end in self._ends.items())

    def _read_through(self, mark: int | None) -> None:
        """Read to the ends that were seen, slowest origin first, so that little waits."""
        pending = [origin for origin, end in self._ends.items() if self._next[origin] < end]
        if mark is not None:
            for origin in (origin for origin in self._ends if origin not in pending):
                self.pipeline.mark(origin, mark)
        while pending:
            origin = self.pipeline.assess.watermarks.slowest(tuple(pending))
            records = self._log.read(origin, self._next[origin], self._batch, self._ends[origin])
            self.pipeline.feed(origin, records, seen=self._seen[origin])
            self._next[origin] = records[-1].offset + 1
            self._seen[origin] = max(self._seen[origin], self._next[origin])
            if self._next[origin] >= self._ends[origin]:
                pending.remove(origin)
                if mark is not None:
                    self.pipeline.mark(origin, mark)
            self._close()
            self._meter.beat()
            if time.monotonic() - self._checkpointed >= self._pause:
                self._checkpoint()

    def _mark_all(self, mark: int | None) -> None:
        if mark is not None and self._exhausted():
            for origin in self._ends:
                self.pipeline.mark(origin, mark)

    def _close(self) -> None:
        """Close what can be closed, with checkpoints in between: alerts do not wait for a long record's end."""
        while len(self.pipeline.close(_TICKS_AT_ONCE).ticks) == _TICKS_AT_ONCE:
            self._meter.beat()
            if time.monotonic() - self._checkpointed >= self._pause:
                self._checkpoint()

    # --- state -----------------------------------------------------------------------------------------------------

    def _dirty(self) -> bool:
        step = self.pipeline._step
        return bool(step.alerts or step.dead or step.ticks or step.events or step.signals)

    def _checkpoint(self) -> None:
        began = time.perf_counter()
        step = self.pipeline.take()
        with self._log.transaction():
            self._append_outputs(step)
            written = store_stages(self._log, self.pipeline)
            self._log.set_state("config", self._built_under.encode())
            for origin in self._ends:
                if self._next[origin] > 0:
                    self._log.set_position(origin, self._position(origin))
        self._checkpointed = time.monotonic()
        self._meter.checkpointed("pipeline", time.perf_counter() - began, written)
        self._meter.refused(step.dead)
        self._meter.emitted(step.alerts)
        self._tell_state()
        if self._on_step is not None:
            self._on_step(step)

    def _tell_state(self) -> None:
        """What stands now, for whoever measures; nobody else pays for it."""
        if self._meter.on:
            self._tell_positions()
            self._meter.assessed(0, self.pipeline.assess)
            self._meter.changelogs({("assess-changelog", 0): self._log.segment_count()})
            self._meter.standing(self.pipeline.escalate.standing_alerts())

    def _tell_positions(self) -> None:
        """Where the origins stand. One that was read to its end is exhausted, unless its end moves with the clock."""
        if not self._meter.on:
            return
        self._meter.positions({origin: (self._next[origin], end) for origin, end in self._ends.items()})
        long_ago = int(time.time() * 1_000) - MS_PER_DAY
        marks = {(topic, part): mark for topic, part, mark, _ in self.pipeline.assess.watermarks.snapshot()}
        self._meter.watermarks(
            {
                origin: mark
                for origin, mark in marks.items()
                if mark > long_ago or self._next[origin] < self._ends[origin]
            }
        )

    def _position(self, origin: Origin) -> Position:
        oldest = self.pipeline.assess.oldest_waiting(origin)
        if oldest is None:
            return Position(self._next[origin], self.pipeline.running_max[origin], self._seen[origin])
        return Position(oldest[0], oldest[1], self._seen[origin])

    def _append_outputs(self, step: Step) -> None:
        now = datetime.now(UTC)
        stamp = int(now.timestamp() * 1_000)
        for alert in step.alerts:
            alert.emitted_at = now
        encode = msgspec.json.encode
        rows = (
            ("emergency-response", [(alert.id, encode(alert)) for alert in step.alerts]),
            ("signals", [(f"{s.kind}|{s.product}|{s.region}", encode(s)) for s in step.signals]),
            ("dead-letters", [(letter.reason, encode(letter)) for letter in step.dead]),
        )
        for topic, values in rows:
            if values:
                self._log.append(topic, [(0, stamp, key.encode(), value, ()) for key, value in values])

    def _restore(self) -> None:
        held = self._log.state("config")
        if held is not None and held.decode() != self._built_under:
            raise ConfigError(
                f"{self._log.folder}: its state was built under another configuration or catalogue ({held.decode()}, "
                f"now {self._built_under}); run with that one, or replay the topics into a new directory; where only "
                "an upgrade has changed it, use `tocsin state rebuild`"
            )
        with mend(str(self._log.folder), f"`tocsin state rebuild --data {self._log.folder}` builds it anew"):
            restore_stages(self._log, self.pipeline)
        for origin in self._ends:
            position = self._log.position(origin)
            self._next[origin], self._seen[origin] = position.offset, position.seen
            self.pipeline.running_max[origin] = position.running_max


def store_stages(log: SqliteLog, pipeline: Pipeline) -> int:
    """Store what the stages need to go on from here, inside a transaction; returns its bytes."""
    saved = pipeline.assess.checkpoint()
    for last, segment in saved.segments:
        log.add_segment(segment, last)
    if saved.base is not None:
        log.set_base(saved.base)
        if saved.forgotten_before is not None:
            log.drop_segments(saved.forgotten_before)
    if saved.effects is not None:
        log.set_state("effects", msgspec.msgpack.encode(saved.effects))
    log.set_state("progress", saved.progress)
    escalate, oversight = pipeline.escalate.snapshot(), pipeline.escalate.oversight.snapshot()
    log.set_state("escalate", escalate)
    if oversight is not None:
        log.set_state("oversight", oversight)
    return saved.nbytes + len(escalate) + len(oversight or b"")


def restore_stages(log: SqliteLog, pipeline: Pipeline) -> None:
    """Bring new stages to where :func:`store_stages` has stored them."""
    progress, escalate, oversight = (log.state(name) for name in ("progress", "escalate", "oversight"))
    if progress is not None:
        pipeline.assess.restore(progress, log.segments(), log.base(), held_effects(log))
    if escalate is not None:
        pipeline.escalate.restore(escalate)
    if oversight is not None:
        pipeline.escalate.oversight.restore(oversight)


def held_effects(log: SqliteLog) -> Iterator[bytes]:
    """The stored pieces of the labs' effects, decoded as they are asked for: who takes them up says what damaged ones
    mean."""
    held = log.state("effects")
    yield from () if held is None else msgspec.msgpack.decode(held, type=list[bytes])
