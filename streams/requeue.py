"""Refused records into their raw topics again, once their cause is mended.

A record that is written again is a new record, to intake and to every replay like any other: an event that was counted
all the same is known by its id and counts once. Its key, value and headers are the original's, but for what was mended;
headers before them say how often it was written again, from which letter, and where it came from in the first place.

1. The original is had (:func:`streams.letters.original`), mended, and judged by the intake stage itself, by the present
   configuration: what would only be refused again is not written.
2. The records are written, and acknowledged.
3. A note of each is appended to ``dead-letters``. A crash in between writes a record twice, which counts once.

It never loops: a letter whose record was written again already, or was refused after it was, is left alone unless that
is asked for, and after :data:`MAX_ATTEMPTS` times it always is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import msgspec

from schemas.alerts import DeadLetter
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from schemas.topics import RAW_TOPICS, kind_of_topic
from streams.config import Config
from streams.intake import ATTEMPTS_HEADER, Intake
from streams.letters import TOPIC, Gone, Letter, Original, original, source
from streams.log import LogRecord
from streams.medium import EmbeddedMedium, Medium, Outgoing
from streams.publish import DispositionJudge, EventJudge, Judge
from streams.repair import Change, Repaired, RepairError, changed
from streams.ticks import COMPLETE

__all__ = ["FROM_HEADER", "LETTER_HEADER", "MAX_ATTEMPTS", "Requeue", "Tally", "Verdict"]

FROM_HEADER: Final = "tocsin-requeued-from"
"""Where the record stood when it was first refused."""
LETTER_HEADER: Final = "tocsin-dead-letter"
"""The place of the letter from which it was written again."""
MAX_ATTEMPTS: Final = 5
_OURS: Final = (ATTEMPTS_HEADER, FROM_HEADER, LETTER_HEADER)
_INPUTS: Final = (*RAW_TOPICS, "dispositions")
_BATCH: Final = 1_000

Verdict = Literal["requeued", "requeued-before", "attempts-spent", "original-gone", "not-mended", "still-refused"]


class _Ready(NamedTuple):
    letter: Letter
    attempt: int
    record: Outgoing


class _Left(NamedTuple):
    """A letter that is left where it is, and why."""

    verdict: Verdict
    why: str


@dataclass(slots=True)
class Tally:
    """How many letters came to which end; what is counted as requeued is durable."""

    ends: Counter[Verdict] = field(default_factory=Counter)

    @property
    def failed(self) -> int:
        """Letters whose record could not be written again, though that was asked for."""
        return sum(self.ends[end] for end in ("original-gone", "not-mended", "still-refused"))


class Requeue:
    """Writes the records of dead letters again.

    Parameters
    ----------
    medium
        Where the topics live.
    config, catalogue
        As intake's.
    given_times
        Whether a raw topic's records keep the time that they are given (else the broker stamps them).
    before
        How often the record of each letter was written again already, by place.
    changes, repaired
        What to mend.
    again
        Take letters whose record was written again before.
    write
        False: say what would be done, and do nothing.
    tell
        Hears of every letter: its end, and why.
    clock
        Gives epoch seconds.
    """

    def __init__(
        self,
        medium: Medium,
        config: Config,
        catalogue: Catalogue,
        given_times: Callable[[str], bool],
        before: Mapping[int, int],
        *,
        changes: Sequence[Change] = (),
        repaired: Mapping[int, Repaired] | None = None,
        again: bool = False,
        write: bool = True,
        tell: Callable[[Letter, Verdict, str], None] = lambda letter, verdict, why: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._medium = medium
        self._config, self._catalogue = config, catalogue
        self._intake = Intake(config, catalogue)
        self._given = given_times
        self._before = before
        self._changes = changes
        self._repaired = repaired
        self._again = again
        self._write = write
        self._tell = tell
        self._clock = clock
        self._judges: dict[str, tuple[Judge, bool]] = {}
        self.tally = Tally()

    def run(self, letters: Iterable[Letter]) -> Tally:
        """Take letters, in their order."""
        ready: list[_Ready] = []
        for letter in letters:
            one = self._prepare(letter)
            if isinstance(one, _Left):
                self.tally.ends[one.verdict] += 1
                self._tell(letter, *one)
                continue
            ready.append(one)
            if len(ready) >= _BATCH:
                self._send(ready)
                ready = []
        self._send(ready)
        return self.tally

    def _prepare(self, letter: Letter) -> _Ready | _Left:
        about = letter.letter
        attempt = letter.attempts + self._before.get(letter.place, 0) + 1
        if attempt > MAX_ATTEMPTS:
            return _Left("attempts-spent", f"it was written again {MAX_ATTEMPTS} times; publish it anew")
        if attempt > 1 and not self._again:
            after = "and refused after that" if letter.attempts else "and once is enough"
            return _Left("requeued-before", f"written again already, {after}; --again insists")
        if about.topic not in _INPUTS:
            return _Left("still-refused", f"{about.topic} is not a raw topic")
        try:
            first = original(self._medium, about)
            mended = self._repaired[letter.place].over(first.value) if self._repaired is not None else first.value
            return _Ready(letter, attempt, self._record(letter, attempt, first, changed(mended, self._changes)))
        except Gone as error:
            return _Left("original-gone", str(error))
        except RepairError as error:
            return _Left("not-mended", str(error))
        except Rejection as error:
            return _Left("still-refused", f"{error.reason}: {error}")

    def _record(self, letter: Letter, attempt: int, first: Original, value: bytes | None) -> Outgoing:
        """The record to write, judged as intake will judge it; Rejection where it would only be refused again."""
        about = letter.letter
        if value is None:
            raise Rejection("tombstone", "", "the record has a null value; there is nothing to write again")
        judge, given = self._judge(about.topic)
        judged = judge(value)
        kept = [(name, text) for name, text in first.headers if name not in _OURS]
        came = next((text for name, text in first.headers if name == FROM_HEADER), source(about).encode())
        ours = [
            (ATTEMPTS_HEADER, str(attempt).encode()),
            (FROM_HEADER, came),
            (LETTER_HEADER, str(letter.place).encode()),
        ]
        # Ours go first: a dead letter keeps so many headers and no more.
        key = judged.key if about.offset < 0 else first.key
        record = Outgoing(judged.time, key, value, (*ours, *kept))
        arrival = max(judged.time, self._floor() or judged.time) if given else int(self._clock() * 1_000)
        result = self._intake.process((about.topic, 0), [LogRecord(0, arrival, *record[1:])], -COMPLETE)
        if result.dead:
            again = result.dead[0]
            raise Rejection(again.reason, again.field, again.detail)
        return record

    def _floor(self) -> int | None:
        """The time at which the embedded log lets a record arrive at the earliest."""
        return self._medium.log.meta("floor") if isinstance(self._medium, EmbeddedMedium) else None

    def _judge(self, topic: str) -> tuple[Judge, bool]:
        if topic not in self._judges:
            if topic == "dispositions":
                self._judges[topic] = DispositionJudge(self._config, self._catalogue, clock=self._clock), False
            else:
                given, kind = self._given(topic), kind_of_topic(topic)
                judge = EventJudge(self._config, self._catalogue, kind, given_times=given, clock=self._clock)
                self._judges[topic] = judge, given
        return self._judges[topic]

    def _send(self, ready: Sequence[_Ready]) -> None:
        if self._write:
            for topic in sorted({one.letter.letter.topic for one in ready}):
                self._medium.write(topic, [one.record for one in ready if one.letter.letter.topic == topic])
            if ready:
                self._medium.write(TOPIC, [self._note(one) for one in ready])
        for one in ready:
            self.tally.ends["requeued"] += 1
            self._tell(one.letter, "requeued", f"attempt {one.attempt}")

    def _note(self, one: _Ready) -> Outgoing:
        now = int(self._clock() * 1_000)
        about = one.letter.letter
        note = DeadLetter(
            reason="requeued",
            field="",
            detail=f"written to {about.topic} again, attempt {one.attempt}; it came from {source(about)}",
            topic=TOPIC,
            partition=0,
            offset=one.letter.place,
            timestamp=now,
            stage="requeue",
            kind=about.kind,
        )
        return Outgoing(now, b"requeued", msgspec.json.encode(note))
