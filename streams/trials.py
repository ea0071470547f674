"""One record under many configurations, each in a process of its own.

The ends of the record are taken once, so that all trials see the same records even where the record still grows. What
comes back hangs neither on the number of processes nor on which of them is done first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import msgspec

from schemas.alerts import Alert
from schemas.errors import TocsinError
from streams.config import Config
from streams.decode import Record as RawRecord
from streams.embedded import INPUTS
from streams.medium import Medium
from streams.processes import CONTEXT, deaf, pool
from streams.ticks import COMPLETE, Calendar, Origin

__all__ = ["Record", "Run", "Trial", "run_trials"]

_POLL_SECONDS: Final = 0.3
_SHOW_EVERY: Final = 2_000

Advance = Callable[[int, int], None]
"""Called with the records that are done, over all trials, and those there are."""


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record lies, so that another process can open it: the folder of a log, or a broker."""

    folder: Path | None
    partitions: int
    broker: str | None = None
    prefix: str = ""

    @contextmanager
    def open(self) -> Iterator[Medium]:
        """The topics, closed at the end. Who we are to a broker is told by the environment, in every process."""
        medium: Medium
        if self.broker is not None:
            from streams.kafka_client import KafkaMedium
            from streams.kafka_security import BrokerAddress, Security

            address = BrokerAddress.parse(self.broker)
            medium = KafkaMedium(address, self.prefix, Security.from_environment(os.environ, address))
        else:
            from streams.log import SqliteLog
            from streams.medium import EmbeddedMedium

            if self.folder is None:
                raise TocsinError("a record is either a folder or a broker; neither was named")
            medium = EmbeddedMedium(SqliteLog(self.folder, self.partitions))
        try:
            yield medium
        finally:
            medium.close()


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration over a record."""

    config: Config
    record: Record


@dataclass(frozen=True, slots=True)
class Run:
    """What a trial brought: every alert revision, and the first and last day of the record."""

    alerts: tuple[Alert, ...]
    events: int
    dead: int
    first: date
    last: date
    seconds: float

    @property
    def years(self) -> float:
        return ((self.last - self.first).days + 1) / 365.25


def run_trials(trials: Sequence[Trial], jobs: int, advance: Advance | None = None) -> list[Run]:
    """Run every trial; the results stand in the order of the trials.

    Parameters
    ----------
    jobs
        Processes; 1 runs all in this one.
    """
    ends = _ends(trials)
    totals = [sum(ends[trial.record].values()) for trial in trials]
    tell = advance or (lambda done, total: None)
    if jobs <= 1 or len(trials) == 1:
        done, runs = 0, []
        for trial, total in zip(trials, totals, strict=True):
            runs.append(_run(trial, ends[trial.record], _adding(tell, done, sum(totals))))
            done += total
        return runs
    shown = CONTEXT.Array("q", len(trials), lock=False)
    with pool(min(jobs, len(trials)), _share, shown) as executor:
        with deaf():
            futures = [
                executor.submit(_run_packed, at, trial, ends[trial.record]) for at, trial in enumerate(trials)
            ]  # fmt: skip
            _watch(futures, shown, totals, tell)
        return [_unpacked(*future.result()) for future in futures]


def _adding(tell: Advance, before: int, total: int) -> Callable[[int], None]:
    return lambda done: tell(before + done, total)


def _ends(trials: Sequence[Trial]) -> dict[Record, dict[Origin, int]]:
    ends: dict[Record, dict[Origin, int]] = {}
    for trial in trials:
        if trial.record not in ends:
            with trial.record.open() as medium:
                ends[trial.record] = medium.ends(INPUTS)
            if not any(ends[trial.record].values()):
                raise TocsinError(f"{trial.record.folder or trial.record.broker}: the record is empty; publish to it")
    return ends


def _watch(futures: list[Future[Any]], shown: Any, totals: list[int], tell: Advance) -> None:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
        tell(sum(shown), sum(totals))
        for future in done:
            if future.exception() is not None:
                for other in waiting:
                    other.cancel()
                future.result()


# --- in the process ------------------------------------------------------------------------------------------------

_shown: Any = None
"""Records done, a number a trial; the parent reads them."""


def _share(shown: Any) -> None:
    global _shown
    _shown = shown


def _run_packed(at: int, trial: Trial, ends: Mapping[Origin, int]) -> tuple[bytes, int, int, date, date, float]:
    def show(done: int) -> None:
        _shown[at] = done

    run = _run(trial, ends, show)
    return msgspec.json.encode(run.alerts), run.events, run.dead, run.first, run.last, run.seconds


def _unpacked(alerts: bytes, *rest: Any) -> Run:
    return Run(tuple(msgspec.json.decode(alerts, type=list[Alert])), *rest)


def _run(trial: Trial, ends: Mapping[Origin, int], show: Callable[[int], None]) -> Run:
    from streams.replay import sealed_until, steps

    began, config = perf_counter(), trial.config
    alerts: list[Alert] = []
    events = dead = 0
    with trial.record.open() as medium:
        timed = _Timed(medium)
        sealed = sealed_until(medium, config)
        for step in steps(timed, ends, config, config.load_catalogue(), batch=_SHOW_EVERY, sealed=sealed):
            alerts += step.alerts
            events += step.events
            dead += len(step.dead)
            show(events)
    show(sum(ends.values()))
    calendar = Calendar(config.tick_ms, config.offset_ms)
    first, last = (calendar.moment(ms).date() for ms in (timed.first, timed.last))
    return Run(tuple(alerts), events, dead, first, last, perf_counter() - began)


class _Timed:
    """A medium that notes the first and the last time of what was read from it."""

    def __init__(self, medium: Medium) -> None:
        self._medium = medium
        self.first, self.last = COMPLETE, -COMPLETE

    def __getattr__(self, name: str) -> Any:
        return getattr(self._medium, name)

    def read(self, origin: Origin, offset: int, end: int, batch: int) -> Iterator[Sequence[RawRecord]]:
        for records in self._medium.read(origin, offset, end, batch):
            # Dispositions come when operations act: they do not make the record longer.
            if records and origin[0] != "dispositions":
                times = [record.timestamp for record in records]
                self.first, self.last = min(self.first, min(times)), max(self.last, max(times))
            yield records
