"""A record's partitions read and taken in for a replay: in this process, or in others beside it.

Intake is a function of one partition's records, so partitions can be read and taken in apart; only what comes of them
meets, in the one process that closes ticks. That one asks for what it needs next and has a little asked for ahead, so
the order in which the partitions' pieces meet is the same, however many processes there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from schemas.errors import TocsinError
from streams.config import Config
from streams.intake import Intake, IntakeResult
from streams.medium import Medium
from streams.processes import CONTEXT, deaf
from streams.slices import Slice, Sliced
from streams.ticks import Origin
from streams.trials import Record

__all__ = ["Crew", "Readers", "Stretch", "Taken", "reading"]

_AHEAD: Final = 2
"""Pieces of a partition that are asked for before they are needed."""


class Stretch(NamedTuple):
    """What is to be read of a partition: offsets, up to where they were seen before, and the running maximum."""

    start: int
    end: int
    seen: int
    running_max: int


class Taken(NamedTuple):
    """Consecutive records of a partition as intake took them."""

    result: IntakeResult
    records: int
    again: bool
    """Whether they were seen before: they waited for their tick at a checkpoint."""
    following: int
    """The offset after them."""


@dataclass(frozen=True, slots=True)
class Crew:
    """Processes beside this one: how many, and the record as they can open it."""

    processes: int
    record: Record
    part: Slice


Readers = dict[Origin, Iterator[Taken]]
"""What is read of each partition, piece by piece."""


@contextmanager
def reading(
    medium: Medium, intake: Intake, stretches: Mapping[Origin, Stretch], batch: int, config: Config, crew: Crew | None
) -> Iterator[Readers]:
    """For each partition what intake makes of its stretch, in order.

    Parameters
    ----------
    medium, intake
        Used where there is no crew.
    batch
        Records read at a time.
    crew
        Reads and takes in beside this process; None: all is done here.
    """
    if crew is None or crew.processes < 1 or not stretches:
        yield {origin: _taken(medium, intake, origin, stretch, batch) for origin, stretch in stretches.items()}
        return
    with ExitStack() as stack:
        yield {
            origin: pieces
            for mine in _shared(stretches, crew.processes)
            for origin, pieces in _beside(stack, mine, batch, config, crew).items()
        }


def _taken(medium: Medium, intake: Intake, origin: Origin, stretch: Stretch, batch: int) -> Iterator[Taken]:
    running_max = stretch.running_max
    for records in medium.read(origin, stretch.start, stretch.end, batch):
        split = sum(record.offset < stretch.seen for record in records) if stretch.seen > stretch.start else 0
        for again, some in ((True, records[:split]), (False, records[split:])):
            if some:
                result = intake.process(origin, some, running_max)
                running_max = result.last_arrival
                yield Taken(result, len(some), again, some[-1].offset + 1)


def _shared(stretches: Mapping[Origin, Stretch], processes: int) -> list[dict[Origin, Stretch]]:
    """Partitions by process: the largest first, each to whom has least."""
    shares: list[dict[Origin, Stretch]] = [{} for _ in range(min(processes, len(stretches)))]
    loads = [0] * len(shares)
    for origin, stretch in sorted(stretches.items(), key=lambda item: (item[1].start - item[1].end, item[0])):
        at = loads.index(min(loads))
        shares[at][origin] = stretch
        loads[at] += stretch.end - stretch.start
    return shares


# --- beside --------------------------------------------------------------------------------------------------------


def _beside(stack: ExitStack, mine: dict[Origin, Stretch], batch: int, config: Config, crew: Crew) -> Readers:
    """The readers of a process's partitions; the process ends with the stack."""
    here, there = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(there, crew, config, mine, batch), daemon=True)
    with deaf():
        process.start()
    there.close()
    stack.callback(process.join)
    stack.callback(here.close)
    came: dict[Origin, deque[Any]] = {origin: deque() for origin in mine}
    return {origin: _asked(here, origin, came) for origin in mine}


def _asked(pipe: Any, origin: Origin, came: dict[Origin, deque[Any]]) -> Iterator[Taken]:
    """What the process sends of one partition; what it sends of others meanwhile is kept for them."""
    waiting = 0
    try:
        while True:
            while waiting < _AHEAD:
                pipe.send(origin)
                waiting += 1
            while not came[origin]:
                whose, piece = pipe.recv()
                if isinstance(piece, str):
                    raise TocsinError(piece)
                came[whose].append(piece)
            piece = came[origin].popleft()
            waiting -= 1
            if piece is None:
                return
            yield piece
    except (EOFError, OSError):
        raise TocsinError(
            "a process that reads the record died, perhaps for lack of memory; try fewer --jobs"
        ) from None


def _serve(pipe: Any, crew: Crew, config: Config, stretches: dict[Origin, Stretch], batch: int) -> None:
    """Give the next piece of each partition that is asked for, until the pipe is closed."""
    origin: Origin | None = None
    try:
        with crew.record.open() as whole:
            medium: Medium = whole if crew.part.whole else Sliced(whole, crew.part)
            intake = Intake(config, config.load_catalogue())
            readers = {one: _taken(medium, intake, one, stretch, batch) for one, stretch in stretches.items()}
            while True:
                origin = pipe.recv()
                pipe.send((origin, next(readers[origin], None)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # whoever asked is done
    except TocsinError as error:
        pipe.send((origin, str(error)))
