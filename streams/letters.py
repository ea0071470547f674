"""Dead letters, read back: each by its place, with conditions that narrow them down, and with the original record.

A letter's *place* is its offset on ``dead-letters``. The original is in the letter, unless it was cut or never copied;
then it is read from the raw topic, whose partition and offset the letter names, and checked against what the letter
knows of it. Where that is gone too, there is no original, and nobody guesses one.

When a record is written again (:mod:`streams.requeue`), a *note* of it follows on ``dead-letters``, with the letter's
place as its offset: so every later reader knows how often that was done.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from schemas.alerts import DeadLetter
from schemas.errors import TocsinError
from streams.config import Config
from streams.intake import attempts_of
from streams.medium import Medium, headers_of
from streams.ticks import Calendar

__all__ = [
    "CONDITIONS",
    "TOPIC",
    "Condition",
    "Gone",
    "Letter",
    "Original",
    "conditions",
    "find",
    "is_whole",
    "original",
    "read_letters",
    "requeued_places",
    "source",
]

TOPIC: Final = "dead-letters"
_PARTITION: Final = 0
_BATCH: Final = 2_000
_KEY_BOUND: Final = 1_024
_HEADERS_BOUND: Final = 32
_MEMORY: Final = 100_000
_decode = msgspec.json.Decoder(DeadLetter).decode


class Letter(NamedTuple):
    """A dead letter and its place."""

    place: int
    letter: DeadLetter

    @property
    def attempts(self) -> int:
        """How often the refused record had been written again before it was refused."""
        return attempts_of(self.letter.headers.items())


class Original(NamedTuple):
    """The record that was refused, as it was."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class Gone(TocsinError):
    """The original cannot be had any more; the text says why and what to do."""


# --- reading -------------------------------------------------------------------------------------------------------


def read_letters(medium: Medium) -> Iterator[Letter]:
    """Every dead letter that is there now, oldest first. What strangers wrote to the topic is passed over.

    Intake on Kafka sends its letters before it commits how far it has read, so a crash in between sends them again. A
    record has one place in its raw topic and is refused there once: the same letter of the same place is a copy, and
    is passed over where it follows within :data:`_MEMORY` letters, far more than a batch has.
    """
    recent: dict[bytes, None] = {}
    for place, letter in _read(medium):
        if letter.stage == "requeue":
            continue
        if letter.offset >= 0:
            key = hashlib.blake2b(msgspec.json.encode(letter), digest_size=16).digest()
            if key in recent:
                continue
            recent[key] = None
            if len(recent) > _MEMORY:
                del recent[next(iter(recent))]
        yield Letter(place, letter)


def requeued_places(medium: Medium) -> Counter[int]:
    """How often the record of each letter was written again, by the letter's place."""
    return Counter(letter.offset for _, letter in _read(medium) if letter.stage == "requeue")


def find(medium: Medium, place: int) -> Letter:
    """The letter at a place."""
    end = medium.ends([TOPIC])[TOPIC, _PARTITION]
    if 0 <= place < end:
        for found, letter in _read(medium, place, place + 1):
            if found == place and letter.stage != "requeue":
                return Letter(place, letter)
    raise TocsinError(f"{TOPIC}: no dead letter stands at {place}; `tocsin dead-letters list` shows the places")


def _read(medium: Medium, start: int = 0, end: int | None = None) -> Iterator[Letter]:
    origin = (TOPIC, _PARTITION)
    for records in medium.read(origin, start, medium.ends([TOPIC])[origin] if end is None else end, _BATCH):
        for record in records:
            try:
                yield Letter(record.offset, _decode(record.value or b""))
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue


def source(letter: DeadLetter) -> str:
    """Where the record came from: topic-partition@offset, or the file and line of a row that never became a record."""
    if letter.offset < 0:
        return f"{letter.topic}<{letter.origin or '?'}"
    return f"{letter.topic}-{letter.partition}@{letter.offset}"


# --- the original --------------------------------------------------------------------------------------------------


def is_whole(letter: DeadLetter) -> bool:
    """Whether key, value and headers are in the letter as they were."""
    if letter.stage == "assess" or getattr(letter, "redacted", False):
        return False  # such letters have no bytes of the record, or not all of them
    cut = [len(letter.value or b"") != letter.size, len(letter.key or b"") >= _KEY_BOUND]
    cut += [len(letter.headers) >= _HEADERS_BOUND, *(len(text) >= _KEY_BOUND for text in letter.headers.values())]
    return not any(cut)


def original(medium: Medium, letter: DeadLetter) -> Original:
    """The refused record, from the letter where it is whole, else from its raw topic.

    Raises
    ------
    Gone
        The letter was cut, and the raw topic does not hold the record any more.
    """
    if is_whole(letter):
        return Original(letter.key, letter.value, tuple(letter.headers.items()))
    about = f"the letter holds {len(letter.value or b''):,} of {letter.size:,} bytes"
    if letter.stage == "assess":
        about = "the letter holds no bytes of the record"
    if letter.offset < 0:
        raise Gone(f"{about}, and it never was a record; publish {letter.origin or 'the row'} again")
    origin = (letter.topic, letter.partition)
    where = f"{letter.topic}-{letter.partition}@{letter.offset}"
    if not medium.starts([letter.topic]).get(origin, 0) <= letter.offset < medium.ends([letter.topic]).get(origin, 0):
        raise Gone(f"{about}, and {where} is no longer there; ask the sender for it")
    for records in medium.read(origin, letter.offset, letter.offset + 1, 1):
        for record in records:
            if record.offset == letter.offset and _is_the_same(letter, record.value):
                return Original(record.key, record.value, headers_of(record))
    raise Gone(f"{about}, and {where} is another record now; ask the sender for it")


def _is_the_same(letter: DeadLetter, value: bytes | None) -> bool:
    """Whether a raw record can be the one that the letter is about: the topic may have been made anew."""
    if letter.stage == "assess":
        return value is not None
    if letter.sha256 is not None:
        return value is not None and hashlib.sha256(value).hexdigest() == letter.sha256
    return len(value or b"") == letter.size


# --- conditions ----------------------------------------------------------------------------------------------------


CONDITIONS: Final = (
    "reason", "field", "topic", "stage", "kind", "partition", "offset", "place", "attempts", "after", "before",
)  # fmt: skip
_CONDITION: Final = re.compile(r"(?P<name>[a-z]+)(?P<sign>!?=)(?P<value>.*)", re.DOTALL)
_NUMBERS: Final = ("partition", "offset", "place", "attempts")
_TIMES: Final = ("after", "before")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on a letter: a field that is, or is not, a value; or the time at which the record arrived."""

    name: str
    wanted: str | int
    negated: bool = False

    def holds(self, letter: Letter) -> bool:
        """Whether the letter meets it."""
        about, wanted = letter.letter, self.wanted
        if isinstance(wanted, int) and self.name in _TIMES:
            return (about.timestamp >= wanted) == (self.name == "after")
        found: Mapping[str, str | int | None] = {
            "reason": about.reason, "field": about.field, "topic": about.topic, "stage": about.stage,
            "kind": about.kind or "", "partition": about.partition, "offset": about.offset, "place": letter.place,
            "attempts": letter.attempts,
        }  # fmt: skip
        return (found[self.name] == wanted) != self.negated


def conditions(texts: Iterable[str], config: Config) -> list[Condition]:
    """Conditions as a command line has them: ``reason=bad-time``, ``topic!=losses``, ``after=2026-03-01T08:00``.

    ``after`` takes in its moment, ``before`` does not; a time without an offset is the deployment's.

    Raises
    ------
    TocsinError
        A condition makes no sense; the text says which.
    """
    calendar = Calendar(config.tick_ms, config.offset_ms)
    return [_condition(text, calendar) for text in texts]


def _condition(text: str, calendar: Calendar) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None or found["name"] not in CONDITIONS:
        raise TocsinError(f"--where {text}: NAME=VALUE or NAME!=VALUE, where NAME is one of {', '.join(CONDITIONS)}")
    name, value, negated = found["name"], found["value"], found["sign"] == "!="
    if name in _TIMES:
        if negated:
            raise TocsinError(f"--where {text}: a time is given as {name}=TIME")
        try:
            return Condition(name, calendar.epoch_ms(datetime.fromisoformat(value)))
        except ValueError:
            raise TocsinError(f"--where {text}: a time is written as in 2026-03-01T08:00:00+08:00") from None
    if name in _NUMBERS:
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise TocsinError(f"--where {text}: {name} is a whole number")
        return Condition(name, int(value), negated)
    return Condition(name, value, negated)
