"""Rows of files into raw topics: converted, judged as intake will judge them, appended in batches.

A row that is refused goes to ``dead-letters`` with the file and line it came from; the others go through. Appending
the same file again does no harm: events have ids, and the second of the same is dropped.
"""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import msgspec

from schemas.alerts import DeadLetter, Disposition
from schemas.catalogue import Catalogue
from schemas.errors import ConfigError, Rejection
from schemas.events import Kind
from schemas.personal import PERSONAL_KINDS
from schemas.topics import RAW_TOPICS, kind_of_topic
from streams.config import Config
from streams.decode import Decoded, EventDecoder
from streams.importers import Progress, Row, import_rows, native_rows
from streams.intake import dead_letter
from streams.log import LogRecord
from streams.mapping import Mapping
from streams.medium import Outgoing, Writer
from streams.row_readers import Format, UnreadableFile, read_rows, sniff_format
from streams.ticks import Calendar

__all__ = [
    "BATCH",
    "DISPOSITIONS",
    "Candidate",
    "DispositionJudge",
    "EventJudge",
    "Judge",
    "Refused",
    "Tally",
    "check_codes_open",
    "disposition_record",
    "find_mapping",
    "judged",
    "publish",
    "raw_candidates",
    "read_candidates",
]

BATCH: Final = 5_000
DISPOSITIONS: Final = "dispositions"
_RAW_LIMIT: Final = 16 << 20


class Candidate(NamedTuple):
    """A row on its way: where it stood, its value for the topic, its bytes as evidence, and whether it is refused
    already."""

    origin: str
    value: bytes
    raw: bytes
    rejection: Rejection | None = None


class Refused(NamedTuple):
    """A row that does not go through, and why."""

    origin: str
    raw: bytes
    rejection: Rejection


Judge = Callable[[bytes], Outgoing]
"""Turns a value into a record, or raises the Rejection that says why not."""


@dataclass(slots=True)
class Tally:
    """How many rows went through and how many did not; it holds what is durable, also when publishing breaks off."""

    published: int = 0
    rejected: int = 0
    seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows a second."""
        return (self.published + self.rejected) / self.seconds if self.seconds else 0.0


# --- what may go in ------------------------------------------------------------------------------------------------


class EventJudge:
    """Everything that intake checks, and the wall clock beside.

    Parameters
    ----------
    given_times
        Records keep ``reported_at`` as their time; else the broker will stamp them, and they arrive now.
    clock
        Gives epoch seconds.
    allow
        Asked last, of each event that is good in itself: raises the Rejection of one that its sender may not send.
    """

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        kind: Kind,
        *,
        given_times: bool = True,
        clock: Callable[[], float] = time.time,
        allow: Callable[[Decoded], None] | None = None,
    ) -> None:
        self._decode = EventDecoder(config, catalogue).decode
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._skew = config.intake.clock_skew_seconds * 1_000
        self._kind: Kind = kind
        self._given = given_times
        self._clock = clock
        self._allow = allow

    def __call__(self, value: bytes) -> Outgoing:
        now = int(self._clock() * 1_000)
        decoded = self._decode(self._kind, value, None if self._given else now)
        if decoded.reported_ms > now + self._skew:
            raise Rejection(
                "clock-ahead",
                "reported_at",
                f"{decoded.event.reported_at.isoformat()} lies ahead of this machine's clock "
                f"({self._calendar.moment(now).isoformat(timespec='seconds')}); set the sender's clock or UTC offset",
            )
        if self._allow is not None:
            self._allow(decoded)
        return Outgoing(decoded.reported_ms, decoded.event.product.encode(), value)


class DispositionJudge:
    """Dispositions arrive when they are given, whatever time they bear."""

    def __init__(self, config: Config, catalogue: Catalogue, *, clock: Callable[[], float] = time.time) -> None:
        self._decode = EventDecoder(config, catalogue).disposition
        self._clock = clock

    def __call__(self, value: bytes) -> Outgoing:
        return disposition_record(self._decode(value), self._clock(), value)


def disposition_record(disposition: Disposition, now: float, value: bytes | None = None) -> Outgoing:
    """A disposition as a record, keyed by its alert."""
    return Outgoing(int(now * 1_000), disposition.alert_id.encode(), value or msgspec.json.encode(disposition))


# --- where rows come from ------------------------------------------------------------------------------------------


def find_mapping(name: str) -> Mapping:
    """A mapping by its built-in name or by the path of its file."""
    return Mapping.load(name) if name.endswith(".toml") or "/" in name else Mapping.builtin(name)


def check_codes_open(mapping: Mapping, catalogue: Catalogue) -> None:
    """Say at once, rather than for every row, that a catalogue does not take a mapping's codes."""
    needs = mapping.catalogue
    for tree, wants in ((catalogue.products, needs.products), (catalogue.regions, needs.regions)):
        if wants == "open" and not tree.is_open:
            raise ConfigError(
                f"mapping {mapping.name} brings its own codes, and catalogue {catalogue.name} is closed; use a data "
                "directory begun with --catalogue open"
            )


def read_candidates(
    path: str,
    topic: str,
    *,
    mapping: Mapping | None = None,
    format: Format | None = None,
    utc_offset_minutes: int = 0,
    progress: Progress | None = None,
) -> Iterator[list[Candidate]]:
    """The rows of a file (``-``: standard input) for one topic.

    Raises
    ------
    UnreadableFile, ConfigError
        As :func:`streams.importers.import_rows`.
    """
    if mapping is not None:
        return _of_rows(
            import_rows(path, mapping, format=format, utc_offset_minutes=utc_offset_minutes, progress=progress)
        )
    kind = format or sniff_format(path, _head(path))
    if kind == "ndjson":
        # Native lines are events already: the judge decodes them, and once is enough.
        return _of_lines(path, progress)
    if topic == DISPOSITIONS:
        raise UnreadableFile(f"{path}: dispositions are taken as NDJSON only; convert the file")
    return _of_rows(
        native_rows(path, kind_of_topic(topic), format=kind, utc_offset_minutes=utc_offset_minutes, progress=progress)
    )


def _head(path: str) -> bytes:
    """The first bytes, for a file whose name does not say its format."""
    if path == "-":
        peek: Callable[[int], bytes] | None = getattr(sys.stdin.buffer, "peek", None)
        return b"{" if peek is None else peek(64)
    with _open_raw(path) as stream:
        try:
            return stream.read(64)
        except (OSError, EOFError, zlib.error):
            return b""  # the reader meets the same fault and says so with the file's name


def _of_lines(path: str, progress: Progress | None) -> Iterator[list[Candidate]]:
    for chunk in read_rows(path, format="ndjson"):
        if progress is not None:
            progress(chunk.bytes_done, chunk.bytes_total)
        yield [Candidate(row.origin, row.raw, row.raw, row.rejection) for row in chunk.rows]


def _of_rows(batches: Iterable[list[Row]]) -> Iterator[list[Candidate]]:
    for rows in batches:
        yield [Candidate(row.origin, row.value, row.raw, row.rejection) for row in rows]


def raw_candidates(path: str, *, progress: Progress | None = None) -> Iterator[list[Candidate]]:
    """The lines of a file as they are: not decoded, not checked, however long, empty ones too."""
    done = 0
    with _open_raw(path) as stream:
        batch: list[Candidate] = []
        for number in range(1, sys.maxsize):
            line = stream.readline(_RAW_LIMIT)
            if not line:
                break
            if len(line) == _RAW_LIMIT:
                raise UnreadableFile(f"{path}:{number}: the line has more than {_RAW_LIMIT} bytes; split the file")
            done += len(line)
            value = line.rstrip(b"\r\n")
            batch.append(Candidate(f"{path}:{number}", value, value))
            if len(batch) >= BATCH or done > _RAW_LIMIT:
                yield batch
                batch, done = [], 0
                if progress is not None:
                    progress(stream.tell() if path != "-" else 0, None)
        yield batch


@contextmanager
def _open_raw(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        disk = Path(path).open("rb")  # noqa: SIM115  # closed below
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be opened ({error.strerror}); check the path") from None
    with disk:
        yield cast("BinaryIO", gzip.GzipFile(fileobj=disk)) if path.endswith(".gz") else disk


# --- into the topic ------------------------------------------------------------------------------------------------


def publish(
    medium: Writer,
    topic: str,
    batches: Iterable[list[Candidate]],
    judge: Judge | None,
    tally: Tally,
    *,
    refuse: Callable[[Refused], None] | None = None,
) -> None:
    """Judge rows and append those that pass to ``topic``, the others to ``dead-letters``.

    Parameters
    ----------
    judge
        None: take every row as it is, arriving now.
    tally
        Counted up after each batch, once it is durable.
    refuse
        Told of each refused row.
    """
    began = time.monotonic() - tally.seconds
    kind = kind_of_topic(topic) if topic in RAW_TOPICS else None
    for whole in batches:
        for start in range(0, len(whole), BATCH):
            good, bad = judged(whole[start : start + BATCH], judge)
            if good:
                medium.write(topic, good)
            if bad:
                medium.write("dead-letters", [_letter(topic, kind, refused) for refused in bad])
            tally.published += len(good)
            tally.rejected += len(bad)
            for refused in bad:
                reason = refused.rejection.reason
                tally.reasons[reason] = tally.reasons.get(reason, 0) + 1
                if refuse is not None:
                    refuse(refused)
            tally.seconds = time.monotonic() - began


def judged(rows: Sequence[Candidate], judge: Judge | None) -> tuple[list[Outgoing], list[Refused]]:
    """The rows that pass as records, and the others; without a judge all pass, arriving now."""
    if judge is None:
        now = int(time.time() * 1_000)
        return [Outgoing(now, None, row.value) for row in rows], []
    good: list[Outgoing] = []
    bad: list[Refused] = []
    for origin, value, raw, rejection in rows:
        if rejection is not None:
            bad.append(Refused(origin, raw, rejection))
            continue
        try:
            good.append(judge(value))
        except Rejection as error:
            bad.append(Refused(origin, raw, error))
    return good, bad


def _letter(topic: str, kind: Kind | None, refused: Refused) -> Outgoing:
    """The dead letter of a row that never became a record: it has no offset, but a file and a line."""
    now = int(datetime.now(UTC).timestamp() * 1_000)
    # Of a line without names for its cells nobody can tell whether there is personal data in it.
    withhold = kind in PERSONAL_KINDS and refused.rejection.reason in ("malformed-row", "too-large")
    record = LogRecord(-1, now, None, refused.raw)
    letter: DeadLetter = msgspec.structs.replace(
        dead_letter((topic, -1), record, refused.rejection, kind, withhold=withhold),
        stage="publish",
        origin=refused.origin,
        kind="disposition" if kind is None else kind,
    )
    return Outgoing(now, letter.reason.encode(), msgspec.json.encode(letter))
