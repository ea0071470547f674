"""Many records of one kind at a time: what is ordinary becomes columns without a Python object's journey each.

:class:`Bulk` takes the records that it can vouch for: well formed, of known codes, with clocks in bounds and nothing
grave about them. Whatever else there is it leaves to :mod:`streams.intake`, one record after the other, which
also says what is wrong with it. So this module only says yes, and a yes means what it means there: the tests compare
the two, record by record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.events import EVENT_TYPES, KINDS, Kind
from schemas.personal import FREE_TEXT, PERSONAL_KINDS, has_personal_number
from streams.columns import COLUMN_TYPES, LONGEST_DELAY, WITHDRAWN, EventColumns
from streams.decode import LAST_MS, MANY_BRACKETS, EventDecoder, Record
from streams.lean import with_patterns, without_patterns
from streams.ticks import MS_PER_DAY, Calendar, Origin

if TYPE_CHECKING:
    from schemas.severity import Severity
    from streams.config import Config

__all__ = ["BULK_KINDS", "LEAST", "REPORTERS", "Bulk", "Taken"]

REPORTERS: Final[dict[Kind, str]] = {"inspection": "lab", "injury": "site", "complaint": "channel"}
"""The kinds that come in bulk, and the field of each that says who speaks."""
BULK_KINDS: Final = frozenset(REPORTERS)
LEAST: Final = 32
"""Fewer records than this are taken one by one: arrays would cost more than they spare."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Taken:
    """The ordinary among some records: their places, their columns, and the branch of each one's product."""

    rows: npt.NDArray[np.intp]
    columns: EventColumns
    branches: list[str]
    """One for each entry of ``columns.products``."""


class Bulk:
    """Takes the ordinary records of one kind.

    Parameters
    ----------
    kind
        One of :data:`BULK_KINDS`.
    decoder
        Knows the codes; its memory of good ones is shared.
    config, severity
        Of the deployment.
    """

    def __init__(self, kind: Kind, decoder: EventDecoder, config: Config, severity: Severity) -> None:
        self._kind: Kind = kind
        self._known = decoder
        self._longest = config.intake.max_record_bytes
        self._skew_ms = config.intake.clock_skew_seconds * 1_000
        self._late_ms = config.intake.lateness_days * MS_PER_DAY
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._zone = timezone(timedelta(milliseconds=config.offset_ms))
        # Personal data is refused by the names of unknown fields, so one that is unknown needs a look.
        strict = kind in PERSONAL_KINDS
        self._plain = msgspec.json.Decoder(without_patterns(EVENT_TYPES[kind], forbid=strict)).decode
        self._exact = msgspec.json.Decoder(with_patterns(EVENT_TYPES[kind], forbid=strict)).decode
        self._hash = hashlib.blake2b(f"{kind}\0".encode(), digest_size=8)
        words = severity.nonconformity
        self._severity: dict[str | None, int] = {
            name: int(getattr(words, name)) for name in ("critical", "major", "minor")
        }
        self._severity[None] = 0

    def take(self, records: Sequence[Record], arrivals: Ints, origin: Origin) -> Taken:
        """The ordinary among consecutive records of a raw partition.

        Parameters
        ----------
        records
            In the order of offsets.
        arrivals
            Shape ``[record]``, epoch milliseconds, made monotone.
        origin
            The raw partition.
        """
        events, places = self._decode(records)
        if not events:
            return Taken(np.empty(0, np.intp), EventColumns.empty(), [])
        rows = np.array(places, np.intp)
        arrival = arrivals[rows]
        columns: dict[str, npt.NDArray[Any]] = {"arrival": arrival}
        good = self._clocks(events, arrival, columns)
        columns["n"], columns["x"], sound = self._measures(events)
        good &= sound & self._codes(events)
        columns["product"], products = _coded([event.product for event in events])
        columns["region"], regions = _coded([event.region for event in events])
        branches = [self._known.branch_of(code) for code in products]
        good &= _each([branch is not None for branch in branches], columns["product"])
        good &= _each(map(self._known.is_region, regions), columns["region"])
        said = [getattr(event, REPORTERS[self._kind]) for event in events]
        columns["reporter"], reporters = _coded(said)
        columns["trace"], traces = _traces(events, said, columns["x"])
        columns["hazard"], hazards = self._hazards(events)
        columns["severity"] = self._severities(events)
        columns["event"] = self._ids(events)
        columns["revision"] = np.array([event.revision for event in events], np.int32)
        columns["flags"] = np.array([WITHDRAWN if event.withdrawn else 0 for event in events], np.uint8)
        columns["indicator"] = np.full(len(events), KINDS.index(self._kind), np.uint8)
        columns["offset"] = np.array([records[place].offset for place in places], np.int64)
        columns["origin"] = np.zeros(len(events), np.int16)
        typed = {name: columns[name].astype(dtype, copy=False) for name, dtype in COLUMN_TYPES.items()}
        taken = EventColumns(typed, products, regions, traces, [origin], [], reporters, hazards)
        if not good.all():
            kept = np.flatnonzero(good)
            rows, taken = rows[kept], taken.take(kept).trimmed()
            branches = [self._known.branch_of(code) for code in taken.products]
        return Taken(rows, taken, [branch or "" for branch in branches])

    # --- from bytes to Structs -------------------------------------------------------------------------------------

    def _decode(self, records: Sequence[Record]) -> tuple[list[Any], list[int]]:
        """The Structs of those that are well formed, and their places."""
        plain, exact, longest = self._plain, self._exact, self._longest
        events: list[Any] = []
        places: list[int] = []
        for place, record in enumerate(records):
            value = record.value
            if (
                not value
                or len(value) > longest
                or (record.headers and any(name == "ce_type" for name, _ in record.headers))
                or value.count(b"[") + value.count(b"{") > MANY_BRACKETS
            ):
                continue
            try:
                if not value.isascii():
                    value.decode("utf-8")
                # Without a backslash and a DEL no text of well-formed JSON can hold what the patterns forbid.
                events.append((exact if b"\\" in value or b"\x7f" in value else plain)(value))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            places.append(place)
        return events, places

    # --- from Structs to columns, and what is ordinary -------------------------------------------------------------

    def _clocks(self, events: list[Any], arrival: Ints, columns: dict[str, npt.NDArray[Any]]) -> Bools:
        calendar = self._calendar
        reported = self._epoch_ms([event.reported_at for event in events])
        told = [event.occurred_at for event in events]
        later = zip(events, told, strict=True)
        occurred = self._epoch_ms([event.reported_at if at is None else at for event, at in later])
        columns["day"] = (reported + calendar.offset_ms) // MS_PER_DAY
        since = (occurred + calendar.offset_ms) // MS_PER_DAY
        come = (arrival + calendar.offset_ms) // MS_PER_DAY
        columns["delay"] = np.clip(come - since, 0, LONGEST_DELAY)
        return (
            (reported >= MS_PER_DAY)
            & (reported < LAST_MS)
            & (occurred >= 0)
            & (occurred <= reported + MS_PER_DAY)
            & (reported <= arrival + self._skew_ms)
            & (reported >= arrival - self._late_ms)
        )

    def _epoch_ms(self, moments: list[datetime]) -> Ints:
        """Epoch milliseconds, exact from 1970 to :data:`LAST_MS`: there a float of seconds is so to the microsecond."""
        zone = self._zone
        seconds = [(at if at.tzinfo is not None else at.replace(tzinfo=zone)).timestamp() for at in moments]
        return np.rint(np.array(seconds, np.float64) * 1e6).astype(np.int64) // 1_000

    def _measures(self, events: list[Any]) -> tuple[Ints, Ints, Bools]:
        """n and x of each event, and whether its fields agree with one another."""
        count = len(events)
        if self._kind != "inspection":
            return np.ones(count, np.int64), np.ones(count, np.int64), np.ones(count, np.bool_)
        tested = np.array([-1 if event.tested is None else event.tested for event in events], np.int64)
        failed = np.array([-1 if event.failed is None else event.failed for event in events], np.int64)
        verdict = [event.verdict for event in events]
        passes = np.array([word == "pass" for word in verdict], np.bool_)
        fails = np.array([word == "fail" for word in verdict], np.bool_)
        broken = np.array([bool(e.items) and not all(i.conforming for i in e.items) for e in events], np.bool_)
        single = (tested < 0) & (failed < 0) & (fails | (passes & ~broken))
        aggregate = (tested > 0) & (failed >= 0) & (failed <= tested) & ~passes & ~fails
        return np.where(single, 1, tested), np.where(single, fails, failed), single | aggregate

    def _codes(self, events: list[Any]) -> Bools:
        """Whether producer, GTIN and free text of each event are good, and its kind the topic's."""
        known, kind = self._known, self._kind
        good = np.array([event.kind is None or event.kind == kind for event in events], np.bool_)
        good &= _vouched([event.producer for event in events], known.is_producer)
        good &= _vouched([event.gtin for event in events], known.is_gtin)
        if kind in FREE_TEXT:
            for name in FREE_TEXT[kind]:
                good &= _vouched([getattr(event, name) for event in events], _is_harmless)
        return good if kind != "injury" else good & np.array([event.outcome != "died" for event in events], np.bool_)

    def _severities(self, events: list[Any]) -> npt.NDArray[Any]:
        if self._kind == "injury":
            return np.array([event.severity for event in events], np.uint8)
        words = self._severity
        return np.array([words[event.severity] for event in events], np.uint8)

    def _hazards(self, events: list[Any]) -> tuple[npt.NDArray[Any], list[str]]:
        if self._kind != "injury":
            return np.full(len(events), -1, np.int32), []
        return _coded([event.injury for event in events])

    def _ids(self, events: list[Any]) -> npt.NDArray[np.uint64]:
        begun, digests = self._hash, []
        for event in events:
            hashed = begun.copy()
            hashed.update(f"{event.source}\0{event.event_id}".encode())
            digests.append(hashed.digest())
        return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _traces(events: list[Any], said: list[str], x: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[str]]:
    """Who, of which producer, batch and GTIN, for each event that counts against a product."""
    codes = np.full(len(events), -1, np.int32)
    places: dict[tuple[Any, ...], int] = {}
    for row in np.flatnonzero(x).tolist():
        event = events[row]
        behind = (said[row], event.producer, event.batch, event.gtin)
        codes[row] = places.setdefault(behind, len(places))
    return codes, [msgspec.json.encode(behind).decode() for behind in places]


def _coded(values: Iterable[str | None]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Indices into a table of the distinct values in the order of their first appearance; -1 for None."""
    table: dict[str, int] = {}
    codes = [-1 if value is None else table.setdefault(value, len(table)) for value in values]
    return np.array(codes, np.int32), list(table)


def _each(flags: Iterable[bool], codes: npt.NDArray[Any]) -> Bools:
    """A flag of each table entry, for each row."""
    table = np.array(list(flags), np.bool_)
    return table[codes] if len(table) else np.ones(len(codes), np.bool_)


def _is_harmless(text: str) -> bool:
    return not has_personal_number(text)


def _vouched(values: list[str | None], is_good: Callable[[str], bool]) -> Bools:
    """Whether each value is absent or good; each distinct one is looked at once."""
    bad = {value for value in set(values) if value is not None and not is_good(value)}
    if not bad:
        return np.ones(len(values), np.bool_)
    return np.array([value not in bad for value in values], np.bool_)
