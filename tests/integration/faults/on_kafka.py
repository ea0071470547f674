"""Faults of the Kafka runtime: workers of one group on a real broker, hit while they work off a record.

The record is in the raw topics before the first worker starts, with its given times, so that the outcome must be that
of the undisturbed embedded run to the last byte. Workers are slowed down while the fault lasts, so that it has
something to hit. A supervisor (:meth:`Crew.tend`) starts again what ended by itself.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from law import Dataset, Group, Worker, values, written

from faults.proxy import ProxiedBroker
from faults.record import duplicated, poisoned, reordered, summer, undisturbed
from faults.verdict import Run, compare
from schemas.topics import ALL_TOPICS, topic_name
from streams.embedded import INPUTS
from streams.kafka_connection import BrokerError, quietly

__all__ = ["FAULTS", "NOT_HERE", "ProxiedBroker"]

DEADLINE = 300.0
"""Seconds to wait for anything: a machine may be busy. What is slow is told by the recovery times, not by this."""
BATCHES = 150
_JUMPS = [-30.0, -9.0, -2.0, 0.0, 3.0, 11.0]
"""Hours by which a clock is off."""
NOT_HERE = {"disk-full": "a worker keeps nothing on its disk; the broker's disk is the broker's to watch"}


class Stuck(Exception):
    """The group did not come so far in time; the text has its workers' last words."""


class Crew(Group):
    """The workers of a group, each with a name, and their supervisor.

    Parameters
    ----------
    run
        Where to note what happens.
    broker, folder, sent
        As for the group: where the topics are, where logs go, and what is in the raw topics.
    orders
        For every worker (see worker_main.py).
    """

    def __init__(self, run: Run, broker: ProxiedBroker, folder: Path, sent: Dataset, **orders: Any) -> None:
        super().__init__(broker.bootstrap, f"{run.fault}-{run.seed}-{uuid.uuid4().hex[:6]}", sent, folder)
        self.run, self.broker = run, broker
        self.orders: dict[str, Any] = {"checkpoint_seconds": 0.2, "settle": 0.5, **orders}
        self._hurry = folder / "hurry"
        self.static = True
        self.crew: dict[str, Worker] = {}
        self._began: dict[str, float] = {}
        self._seen = (0, 0)
        self._asks: Any = None
        self._records = sent.records

    def load(self, seconds: float) -> None:
        """Slow workers down so that the record lasts about so long."""
        slow = {"slow": seconds / BATCHES, "hurry": str(self._hurry)}
        self.orders |= {"poll_records": max(10, self.dataset.records // BATCHES), **slow}

    def employ(self, name: str) -> None:
        """Start a worker; one with a fixed name takes up its partitions at once when it comes again."""
        self._began[name] = time.monotonic()
        self.crew[name] = self.start(**self.orders, **({"instance": name} if self.static else {}))

    def tend(self) -> None:
        """Start again what ended by itself, a second after its start at the earliest."""
        for name, worker in list(self.crew.items()):
            if not worker.alive and time.monotonic() - self._began[name] > 1.0:
                self.run.ended += 1
                self.employ(name)

    def dismiss(self, name: str, how: signal.Signals) -> None:
        """End a worker, for good if nobody employs it again."""
        self.crew.pop(name).stop(how, DEADLINE)

    def durable(self) -> tuple[int, int]:
        """How far intake and assess have committed, as far as the broker can be asked."""
        prefix = self.config.topic_prefix
        with suppress(KafkaError):
            if self._asks is None:
                self._asks = KafkaAdminClient(bootstrap_servers=self.bootstrap, request_timeout_ms=10_000)
            found = self._asks.list_group_offsets([self.name])[self.name]
            keyed, raw = f"{prefix}keyed-events", {f"{prefix}{name}" for name in INPUTS}
            sums = [
                sum(max(0, at.offset) for place, at in found.items() if place.topic in topics)
                for topics in (raw, {keyed})
            ]
            self._seen = max(self._seen[0], sums[0]), max(self._seen[1], sums[1])
        return self._seen

    def ready(self) -> bool:
        """Whether all is worked off, as far as the broker can be asked."""
        try:
            return self.done()
        except BrokerError:
            return False

    def until(self, what: Callable[[], object], seconds: float = DEADLINE) -> None:
        """Wait for something while the supervisor is at work."""
        deadline = time.monotonic() + seconds
        while True:
            self.tend()
            if what():
                return
            if time.monotonic() > deadline:
                words = "\n".join(worker.tail(1_500) for worker in self.crew.values())
                raise Stuck(f"it did not come so far in {seconds} s\n{words}")
            time.sleep(0.25)

    def moves(self, before: tuple[int, int]) -> None:
        """Wait until intake has committed more than before, or assess where intake has nothing left. Neither does
        before the state of all partitions is restored."""

        def moved() -> bool:
            raw, keyed = self.durable()
            return raw > before[0] or (raw >= self._records and (keyed > before[1] or self.ready()))

        self.until(moved)

    def recovered(self, since: float, before: tuple[int, int]) -> None:
        """Wait for the first work that is durable after a fault, and note how long it took."""
        self.moves(before)
        self.run.recoveries.append(time.monotonic() - since)

    def finish(self) -> None:
        """Work off the rest at full speed."""
        self._hurry.touch()
        self.until(self.ready)

    def judge(self, scale: float, room: Path, *, offsets: bool = True, refused: int = 0) -> None:
        """Compare with the undisturbed run of the base."""
        compare(
            self.run, summer(scale), self.folded(), written(self.medium), undisturbed(scale, room),
            values(self.medium, "dead-letters"), offsets=offsets, refused=refused, resent=True,
        )  # fmt: skip

    def close(self) -> None:
        """End the workers and remove the topics."""
        super().close()
        if self._asks is not None:
            quietly(self._asks.close)
        with suppress(Exception):  # the verdict is in; what fails here is only untidy
            admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
            admin.delete_topics([topic_name(self.config.topic_prefix, spec.name) for spec in ALL_TOPICS])
            admin.close()


@contextmanager
def _crew(
    run: Run, room: Path, broker: ProxiedBroker, scale: float, how: dict[str, Any], sent: Dataset | None = None
) -> Iterator[Crew]:
    folder = room / f"{run.fault}-{run.seed}"
    folder.mkdir(parents=True)
    orders = {name: how[name] for name in ("mutation", "clock", "bootstrap") if name in how}
    crew = Crew(run, broker, folder, summer(scale) if sent is None else sent, **orders)
    try:
        crew.fill()
        yield crew
    finally:
        crew.close()
        if run.clean:
            shutil.rmtree(folder, ignore_errors=True)


# --- the faults ----------------------------------------------------------------------------------------------------


def kill(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """SIGKILL for one worker or both, at random moments of their work, their start and their restore."""
    with _crew(run, room, broker, scale, how) as crew:
        crew.load(2.2 * blows)
        names = ["a", "b"][: rng.choice((1, 2))]
        for name in names:
            crew.employ(name)
        since, before = time.monotonic(), (0, 0)
        while run.blows < blows:
            if rng.random() < 0.75:
                crew.moves(before)
                if run.blows:
                    run.recoveries.append(time.monotonic() - since)
                time.sleep(rng.uniform(0.0, 1.0))
            else:
                time.sleep(rng.uniform(1.0, 5.0))
            if crew.ready():
                break
            for name in rng.sample(names, rng.randint(1, len(names))):
                crew.dismiss(name, signal.SIGKILL)
                run.blows += 1
                crew.employ(name)
            since, before = time.monotonic(), crew.durable()
        crew.recovered(since, before)
        crew.finish()
        crew.judge(scale, room)


def _outage(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, broker: ProxiedBroker, how: dict[str, Any],
    begin: Callable[[], None], last: float, end: Callable[[], object],
) -> None:  # fmt: skip
    """Something is away for a while, several times over."""
    with _crew(run, room, broker, scale, how) as crew:
        crew.load(8.0 * blows)
        crew.employ("a")
        before = (0, 0)
        for _ in range(blows):
            crew.moves(before)
            time.sleep(rng.uniform(0.0, 1.0))
            if crew.ready():
                break
            before = crew.durable()
            begin()
            run.blows += 1
            try:
                ends = time.monotonic() + last
                while time.monotonic() < ends:
                    crew.tend()
                    time.sleep(0.1)
            finally:
                end()
            crew.recovered(time.monotonic(), before)
            before = crew.durable()
        crew.finish()
        crew.judge(scale, room)


def broker_kill(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """SIGKILL for the broker, which starts again on its data."""
    blows = max(1, blows // 4)
    _outage(run, rng, scale, room, blows, broker, how, broker.kill, rng.uniform(0.0, 2.0), broker.start)


def broker_pause(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, pause: float,
    **how: Any,
) -> None:  # fmt: skip
    """SIGSTOP for the broker: connections stand, and nothing is answered."""
    _outage(run, rng, scale, room, 1, broker, how, broker.pause, pause, broker.resume)


def network_cut(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, pause: float,
    **how: Any,
) -> None:  # fmt: skip
    """The network between the workers and the broker breaks off, or falls silent for a while."""
    reset = rng.random() < 0.5
    how = {**how, "bootstrap": broker.through_proxy}
    blows = max(1, blows // 5)
    last = rng.uniform(0.3, 1.0) * pause
    _outage(
        run, rng, scale, room, blows, broker, how, lambda: broker.proxy.cut(reset=reset), last, broker.proxy.heal
    )  # fmt: skip


def scale_up_and_down(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """One worker, then four, then two; those who go stop in order or die."""
    with _crew(run, room, broker, scale, how) as crew:
        crew.static = False
        crew.load(45.0)
        crew.employ("a")
        crew.moves((0, 0))
        since, before = time.monotonic(), crew.durable()
        for name in "bcd":
            crew.employ(name)
        # All four have joined when the last has had a share.
        crew.until(lambda: all(worker.shares() for worker in crew.crew.values()) or crew.ready())
        crew.recovered(since, before)
        run.blows += 1
        time.sleep(rng.uniform(0.0, 1.0))
        since, before = time.monotonic(), crew.durable()
        for name in rng.sample("abcd", 2):
            crew.dismiss(name, rng.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)))
        crew.recovered(since, before)
        run.blows += 1
        crew.finish()
        if sum(bool(worker.shares()) for worker in crew.workers) < 4:
            run.words.append("fewer than four workers ever had a share")
        crew.judge(scale, room)


def _fed(
    run: Run, scale: float, room: Path, broker: ProxiedBroker, how: dict[str, Any], sent: Dataset, refused: int = 0
) -> None:
    """Let two workers work on what a careless sender sent."""
    with _crew(run, room, broker, scale, how, sent) as crew:
        run.blows += 1
        for name in "ab":
            crew.employ(name)
        crew.until(crew.ready)
        crew.judge(scale, room, offsets=sent is summer(scale), refused=refused)


def clock_jump(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """The workers' wall clocks jump by hours, forth and back."""
    jumps = [rng.randrange(1, 2**31), _JUMPS, 0.6]
    _fed(run, scale, room, broker, {**how, "clock": jumps}, summer(scale))


def duplicate(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """Every third record comes several times."""
    _fed(run, scale, room, broker, how, duplicated(summer(scale), rng))


def reorder(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """Within a tick, nothing is in order."""
    _fed(run, scale, room, broker, how, reordered(summer(scale), rng))


def poison(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """Records that must be refused lie among the others."""
    sent, refused = poisoned(summer(scale), rng)
    _fed(run, scale, room, broker, how, sent, refused)


def careless(
    run: Run, rng: random.Random, scale: float, room: Path, blows: int, *, broker: ProxiedBroker, **how: Any
) -> None:
    """Copies and poison at once, for workers whose clocks jump: what a short test does in one run."""
    sent, refused = poisoned(duplicated(summer(scale), rng), rng)
    jumps = [rng.randrange(1, 2**31), _JUMPS, 0.6]
    run.blows += 1
    _fed(run, scale, room, broker, {**how, "clock": jumps}, sent, refused)


FAULTS: dict[str, Callable[..., None]] = {
    "kill": kill,
    "broker-kill": broker_kill,
    "broker-pause": broker_pause,
    "scale": scale_up_and_down,
    "network-cut": network_cut,
    "clock-jump": clock_jump,
    "duplicate": duplicate,
    "reorder": reorder,
    "poison": poison,
}
