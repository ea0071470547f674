"""Stage 1, intake: raw records in; columns of valid events, dead letters and grave signals out.

The stage is a function of the records of one raw partition and of nothing else: arrival is the record's timestamp
made monotone by a running maximum, which the caller keeps with the partition's offset. It holds no state of its own
but caches, so any worker may take over any partition.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.alerts import DeadLetter, Disposition, Signal
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from schemas.events import EVENT_TYPES, KINDS, REPORTERS, AnyEvent, Injury, Inspection, Kind, QualityLoss, Survey
from schemas.personal import PERSONAL_KINDS
from schemas.severity import Severity
from schemas.topics import kind_of_topic
from streams.bulk import BULK_KINDS, LEAST, Bulk, Taken
from streams.columns import COLUMN_TYPES, LONGEST_DELAY, NOTE, WITHDRAWN, EventColumns, Grave, concatenate
from streams.config import Config
from streams.decode import Decoded, EventDecoder, Record, has_unknown_fields, kind_in
from streams.grave import grave_id, grave_level, ladder_evidence, severity_of
from streams.identity import identity
from streams.privacy import REASON as PERSONAL
from streams.privacy import is_personal, personal_field, personal_rejection, redacted
from streams.ticks import Calendar, Origin

__all__ = [
    "ATTEMPTS_HEADER",
    "SAMPLE",
    "SHARDS",
    "Intake",
    "IntakeResult",
    "attempts_of",
    "dead_letter",
    "reporter",
    "route",
    "shard_of",
]

SHARDS = 64
"""Branches of the product tree are spread over this many shards, and shards over the keyed partitions."""
ATTEMPTS_HEADER = "tocsin-requeued"
"""On a record that was refused and is written again (:mod:`streams.requeue`): how often so far. It decides nothing."""
SAMPLE = 16
"""Of every so many offsets one is looked into for unknown fields: whoever sends them sends them all the time."""
_DEAD_VALUE_BOUND = 65_536
_PLAIN = ("event", "revision", "flags", "indicator", "severity", "day", "arrival", "offset", "n", "x", "delay")


@dataclass(slots=True)
class IntakeResult:
    """What one batch of one raw partition became."""

    origin: Origin
    columns: EventColumns
    shards: npt.NDArray[np.int32]
    dead: list[DeadLetter]
    grave: list[Signal]
    dispositions: list[tuple[int, Disposition]]
    last_arrival: int
    next_offset: int
    looked_into: int = 0
    """How many of the accepted records were looked into for fields that this version does not know,"""
    unknown: int = 0
    """and how many of those had some."""
    requeued: int = 0
    """How many of the records had been refused before, and were written again."""


class Intake:
    """The intake stage for one configuration and catalogue."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        self._config = config
        self._catalogue = catalogue
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._severity = config.grades.load()
        self.decoder = EventDecoder(config, catalogue)
        self._bulk = {kind: Bulk(kind, self.decoder, config, self._severity) for kind in sorted(BULK_KINDS)}

    def process(self, origin: Origin, records: Iterable[Record], running_max: int) -> IntakeResult:
        """Decode, check and pack the records of one raw partition, in offset order.

        Parameters
        ----------
        origin
            The raw partition.
        records
            Consecutive records of it.
        running_max
            The greatest timestamp before these records, ``-COMPLETE`` at the partition's beginning.
        """
        if origin[0] == "dispositions":
            return self._dispositions(origin, records, running_max)
        kind = kind_of_topic(origin[0])
        records = records if isinstance(records, list) else list(records)
        if not records:
            return IntakeResult(origin, EventColumns.empty(), np.empty(0, np.int32), [], [], [], running_max, 0)
        values = [record.value for record in records]
        headers = [record.headers for record in records]
        given = np.array([record.timestamp for record in records], np.int64)
        offsets = _offsets_of(records)
        arrivals = np.maximum.accumulate(np.maximum(given, running_max))
        bulk = self._bulk.get(kind) if len(records) >= LEAST else None
        taken = bulk.take(values, headers, offsets, arrivals, origin) if bulk is not None else None
        left = np.ones(len(records), np.bool_)
        if taken is not None:
            left[taken.rows] = False
        build = _Builder(kind, origin)
        dead: list[DeadLetter] = []
        grave: list[Signal] = []
        refused = np.zeros(len(records), np.bool_)
        for row in np.flatnonzero(left).tolist():
            record, arrival = records[row], int(arrivals[row])
            try:
                decoded = self._decode(kind, record, arrival)
            except Rejection as error:
                dead.append(dead_letter(origin, record, error, kind))
                refused[row] = True
                continue
            signal = self._grave(kind, decoded, record)
            if signal is not None:
                grave.append(signal)
            build.add(decoded, arrival, record.offset, self._days(decoded, arrival), signal, self._severity)
        columns, shards = build.finish()
        if taken is not None:
            columns, shards = _merged(taken, columns, shards)
        sampled = (offsets % SAMPLE == 0) & ~refused
        return IntakeResult(
            origin,
            columns,
            shards,
            dead,
            grave,
            [],
            int(arrivals[-1]),
            records[-1].offset + 1,
            looked_into=int(sampled.sum()),
            unknown=_with_unknown_fields(kind, values, sampled, taken),
            requeued=sum(1 for told in headers if told and attempts_of(told)) if any(headers) else 0,
        )

    def _dispositions(self, origin: Origin, records: Iterable[Record], running_max: int) -> IntakeResult:
        """Dispositions count at the tick of their arrival; they add to no cell."""
        taken: list[tuple[int, Disposition]] = []
        dead: list[DeadLetter] = []
        arrival, next_offset, requeued = running_max, 0, 0
        for record in records:
            arrival, next_offset = max(arrival, record.timestamp), record.offset + 1
            requeued += attempts_of(record.headers or ()) > 0
            try:
                taken.append((arrival, self.decoder.disposition(record.value)))
            except Rejection as error:
                dead.append(dead_letter(origin, record, error, None))
        nothing = np.empty(0, np.int32)
        return IntakeResult(
            origin, EventColumns.empty(), nothing, dead, [], taken, arrival, next_offset, requeued=requeued
        )

    def _decode(self, kind: Kind, record: Record, arrival: int) -> Decoded:
        for name, text in record.headers or ():
            if name == "ce_type" and text is not None:
                said = kind_in(text)
                if said not in KINDS:
                    known = ", ".join(KINDS)
                    raise Rejection("unknown-kind", "ce_type", f"no event kind {said[:64]!r}; known: {known}")
                if said != kind:
                    raise Rejection("wrong-topic", "ce_type", f"the header says {said}, the topic carries {kind}s")
        return self.decoder.decode(kind, record.value, arrival)

    def _days(self, decoded: Decoded, arrival: int) -> tuple[int, int]:
        """The local day on which the event counts, and the days that its news took to arrive."""
        calendar, occurred = self._calendar, decoded.event.occurred_at
        counts = calendar.day(decoded.reported_ms)
        since = calendar.day(calendar.epoch_ms(occurred)) if occurred is not None else counts
        return counts, min(max(calendar.day(arrival) - since, 0), LONGEST_DELAY)

    def _grave(self, kind: Kind, decoded: Decoded, record: Record) -> Signal | None:
        event = decoded.event
        level = grave_level(event, self._severity)
        if level is None or record.value is None:
            return None
        if self._catalogue.key_supervision(event.product):
            level = max(1, level - 1)
        return Signal(
            tick=-1,
            as_of=self._calendar.moment(decoded.reported_ms),
            kind="grave-event",
            product=event.product,
            region=event.region,
            role="primary",
            level=level,
            scope="cell",
            p_value=0.0,
            excess=1.0,
            evidence=ladder_evidence(event, self._severity),
            alert_id=grave_id(kind, record.value),
            severity=severity_of(event, self._severity),
        )


def _offsets_of(records: Sequence[Record]) -> npt.NDArray[np.int64]:
    """Offsets only ever grow: where as many lie between the first and the last as there are records, none is left
    out."""
    first, last = records[0].offset, records[-1].offset
    if last - first == len(records) - 1:
        return np.arange(first, last + 1)
    return np.fromiter((record.offset for record in records), np.int64, len(records))


def _with_unknown_fields(
    kind: Kind, values: Sequence[bytes | None], sampled: npt.NDArray[np.bool_], taken: Taken | None
) -> int:
    """How many of the sampled records have fields that this version does not know."""
    left, found = sampled.copy(), 0
    for rows, unknown_fields in [] if taken is None else taken.alike:  # nothing need be decoded for these
        found += int(left[rows].sum()) * unknown_fields
        left[rows] = False
    sample = (values[row] for row in np.flatnonzero(left).tolist())
    return found + sum(has_unknown_fields(kind, value) for value in sample if value is not None)


class _Builder:
    """Collects rows as Python lists and turns them into columns once a batch."""

    def __init__(self, kind: Kind, origin: Origin) -> None:
        self._kind = kind
        self._number = KINDS.index(kind)
        self._origin = origin
        texts = ("product", "region", "trace", "reporter", "hazard")
        self._lists: dict[str, list[int]] = {name: [] for name in (*_PLAIN, *texts)}
        self._shards: list[int] = []
        self._products: dict[str, int] = {}
        self._regions: dict[str, int] = {}
        self._traces: dict[str, int] = {}
        self._reporters: dict[str, int] = {}
        self._hazards: dict[str, int] = {}
        self._graves: list[Grave] = []
        self._shard_of: dict[str, int] = {}

    def add(
        self,
        decoded: Decoded,
        arrival: int,
        offset: int,
        days: tuple[int, int],
        signal: Signal | None,
        rules: Severity,
    ) -> None:
        event, lists = decoded.event, self._lists
        n, x = _measure(event)
        day, delay = days
        severity = severity_of(event, rules)
        if signal is not None and signal.alert_id is not None:
            self._graves.append(Grave(len(self._shards), signal.alert_id, signal.level))
        row = (
            identity(self._kind, event.source, event.event_id), event.revision, WITHDRAWN if event.withdrawn else 0,
            self._number, severity, day, arrival, offset, n, x, delay,
        )  # fmt: skip
        for name, value in zip(_PLAIN, row, strict=True):
            lists[name].append(value)
        lists["product"].append(self._products.setdefault(event.product, len(self._products)))
        lists["region"].append(self._regions.setdefault(event.region, len(self._regions)))
        lists["trace"].append(self._trace(event, x))
        lists["reporter"].append(self._reporters.setdefault(_reporter(event), len(self._reporters)))
        hazard = event.injury if isinstance(event, Injury) else None
        lists["hazard"].append(-1 if hazard is None else self._hazards.setdefault(hazard, len(self._hazards)))
        self._shards.append(self._shard(decoded.product[0]))

    def _trace(self, event: AnyEvent, x: int) -> int:
        if x == 0 or isinstance(event, Survey | QualityLoss):
            return -1
        text = msgspec.json.encode([_reporter(event), event.producer, event.batch, event.gtin]).decode()
        return self._traces.setdefault(text, len(self._traces))

    def _shard(self, branch: str) -> int:
        shard = self._shard_of.get(branch)
        if shard is None:
            shard = self._shard_of[branch] = shard_of(branch)
        return shard

    def finish(self) -> tuple[EventColumns, npt.NDArray[np.int32]]:
        columns: dict[str, npt.NDArray[Any]] = {
            name: np.array(values, COLUMN_TYPES[name]) for name, values in self._lists.items()
        }
        columns["origin"] = np.zeros(len(self._shards), COLUMN_TYPES["origin"])
        packed = EventColumns(
            columns,
            list(self._products),
            list(self._regions),
            list(self._traces),
            [self._origin],
            self._graves,
            list(self._reporters),
            list(self._hazards),
        )
        return packed, np.array(self._shards, np.int32)


def _merged(
    taken: Taken, columns: EventColumns, shards: npt.NDArray[np.int32]
) -> tuple[EventColumns, npt.NDArray[np.int32]]:
    """What came in bulk and what came one by one, in the order of offsets."""
    of_branch = np.array([shard_of(branch) for branch in taken.branches], np.int32)
    own = of_branch[taken.columns["product"]] if len(taken.rows) else np.empty(0, np.int32)
    if not len(columns):
        return taken.columns, own
    both = concatenate([taken.columns, columns])
    order = np.argsort(both["offset"], kind="stable")
    return both.take(order).trimmed(), np.concatenate([own, shards])[order]


def _measure(event: AnyEvent) -> tuple[int, int]:
    """The integers (n, x) that an event adds to its cell: integers, so that no order of adding can show."""
    if isinstance(event, Inspection):
        if event.tested is not None and event.failed is not None:
            return event.tested, event.failed
        return 1, int(event.verdict == "fail")
    if isinstance(event, Survey):
        return event.respondents, round(event.score * 100) * event.respondents
    if isinstance(event, QualityLoss):
        return round(event.output_cny), round(event.loss_cny)
    return 1, 1


def _reporter(event: AnyEvent) -> str:
    return reporter(event)[1]


def reporter(event: AnyEvent) -> tuple[str, str]:
    """Who speaks of an event, and the field that says so: its lab, site, channel, authority, surveyor or source."""
    field = next(field for kind, field in REPORTERS.items() if isinstance(event, EVENT_TYPES[kind]))
    return field, getattr(event, field)


def shard_of(branch: str) -> int:
    """The shard of a branch of the product tree."""
    return zlib.crc32(branch.encode()) % SHARDS


def route(result: IntakeResult, partitions: int) -> Mapping[int, EventColumns]:
    """Split a batch over the keyed partitions; corrections leave a note in every other partition."""
    if partitions == 1:
        return {0: result.columns}
    target = result.shards % partitions
    corrections = np.flatnonzero(result.columns["revision"] > 0)
    parts: dict[int, EventColumns] = {}
    for partition in range(partitions):
        own = np.flatnonzero(target == partition)
        notes = corrections[target[corrections] != partition]
        rows = np.sort(np.concatenate([own, notes]))  # the order of arrival is kept
        part = result.columns.take(rows)
        foreign = target[rows] != partition
        if foreign.any():
            part.columns["flags"] = part["flags"] | np.where(foreign, np.uint8(NOTE), np.uint8(0))
        part.graves = [grave for grave in part.graves if not foreign[grave.row]]
        parts[partition] = part.trimmed()
    return parts


def attempts_of(headers: Iterable[tuple[str, bytes | None]]) -> int:
    """How often a record with these headers was written again after a refusal; what is no such number counts as 0."""
    for name, text in headers:
        if name == ATTEMPTS_HEADER and text is not None and len(text) <= 4 and text.isdigit():
            return int(text)
    return 0


def dead_letter(
    origin: Origin, record: Record, error: Rejection, kind: Kind | None, *, withhold: bool = False
) -> DeadLetter:
    """The original bytes and why they were refused; a value over the bound is cut, with the whole's size and hash.

    Where personal data is seen in the record, or ``withhold`` says that it may be there, the letter keeps the names of
    its fields and its headers only (:mod:`streams.privacy`).
    """
    value = record.value
    kept = value[:_DEAD_VALUE_BOUND] if value is not None else None
    hide = withhold or error.reason == PERSONAL or (kept is not None and is_personal(kept))
    if hide:
        error = _without_content(error, kept or b"", kind)
    return DeadLetter(
        reason=error.reason,
        field=error.field,
        detail=error.detail,
        topic=origin[0],
        partition=origin[1],
        offset=record.offset,
        timestamp=record.timestamp,
        stage="intake",
        kind=kind,
        key=None if hide else record.key[:1_024] if record.key else record.key,
        value=redacted(kept) if hide and kept is not None else kept,
        size=len(value) if value is not None else 0,
        sha256=hashlib.sha256(value).hexdigest() if value and len(value) > _DEAD_VALUE_BOUND and not hide else None,
        headers={name: b"" if hide else (text or b"")[:1_024] for name, text in list(record.headers or ())[:32]},
        redacted=hide,
    )


def _without_content(error: Rejection, value: bytes, kind: Kind | None) -> Rejection:
    """The same refusal in words that quote nothing; for the kinds that are about persons it is one of its own."""
    if error.reason == PERSONAL:
        return error
    field = personal_field(value, kind) if kind in PERSONAL_KINDS else None
    if field is not None:
        return personal_rejection(field)
    where = error.field or "the record"
    return Rejection(error.reason, error.field, f"correct {where}; the value is not kept: it may hold personal data")
