"""The record that files make, as columns: what publishing them to a log and reading it again would give.

A file's rows become the records of a topic as :func:`streams.publish.publish` makes them: those that pass, in their
order, each in the partition of its product, at the time of its report. Rows that are plain (:mod:`streams.columnar`)
come as columns; every other row goes its own way through conversion, judgement and intake, and takes its place among
them. The columns are kept in pieces, one for each partition and stretch of the file, so that partitions can be read
apart whatever the order of the files; what is more than some megabytes lies in a temporary file, so memory stays flat.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from schemas.alerts import Disposition, Signal
from schemas.catalogue import Catalogue
from schemas.topics import RAW_TOPICS, kind_of_topic, partitions_of
from streams.columnar import TableIntake
from streams.columns import EventColumns, concatenate
from streams.config import Config
from streams.conversion import missing_columns
from streams.importers import Converter, Progress, native_mapping
from streams.intake import Intake, IntakeResult
from streams.log import LogRecord, partition_for
from streams.mapping import Mapping
from streams.medium import Outgoing
from streams.outputs import explained
from streams.packing import PlainRows
from streams.publish import DISPOSITIONS, Candidate, DispositionJudge, EventJudge, Judge, Tally, judged, read_candidates
from streams.reading import Taken
from streams.row_readers import Chunk, header_of, read_rows, sniff_format
from streams.slices import Slice
from streams.ticks import COMPLETE, MS_PER_DAY, Calendar, Origin

__all__ = ["FileIntake", "Spool"]

_IN_MEMORY: Final = 32 << 20
_OF_THE_FILE: Final = ("products", "regions", "reporters")
"""Dictionaries that all rows of a file have, where its codes are not too many for that."""
_MOST_SHARED: Final = 12
"""So many of these are held while the rest of their pieces lies in the file."""
_TEXT_BYTES: Final = 128
"""What an entry of a dictionary may take."""
_SINGLE_ROWS: Final = 8_192
"""Rows that go their own way are converted so many at a time."""

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class _Stored:
    """A piece as it is kept: its events, or only their dictionaries, while the rest lies in the file."""

    count: int
    held: EventColumns
    start: int
    size: int
    last_arrival: int
    following: int
    grave: list[Signal]
    dispositions: list[tuple[int, Disposition]]


class Spool:
    """Pieces by partition, in their order; a context manager, that leaves nothing behind.

    Parameters
    ----------
    folder
        Where the temporary file lies, once there is much.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._pieces: dict[Origin, list[_Stored]] = {}
        self._in_memory = 0
        self._end = 0
        self._shared: list[list[str]] = []
        self._first, self._last = COMPLETE, -COMPLETE
        self.records = 0
        self.refused = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, result: IntakeResult, count: int, refused: int) -> None:
        """Append a piece to its partition; ``refused`` of its ``count`` records were not taken by intake."""
        columns, entries = result.columns, sum(map(len, result.columns.tables.values()))
        # Pieces share the dictionaries of the file, so that they need not be merged, unless those are large.
        columns = columns if entries <= len(columns) else columns.trimmed()
        size, start = _memory(columns), self._end
        if self._in_memory + size <= _IN_MEMORY:
            self._in_memory += size
        else:
            columns = self._written(columns)
        self._pieces.setdefault(result.origin, []).append(
            _Stored(
                count, columns, start, self._end - start, result.last_arrival, result.next_offset, result.grave,
                result.dispositions,
            )
        )  # fmt: skip
        if len(result.columns):
            self._first = min(self._first, int(result.columns["arrival"][0]))
            self._last = max(self._last, result.last_arrival)
        self.records += count
        self.refused += refused

    @property
    def span_ms(self) -> int:
        """From the first arrival to the last."""
        return max(self._last - self._first, 0)

    def _written(self, columns: EventColumns) -> EventColumns:
        """Into the file, but for the dictionaries that other pieces have too: these are given back."""
        tables = columns.tables
        shared = {name: tables[name] for name in _OF_THE_FILE if self._is_shared(tables[name])}
        rest = columns.trimmed(shared)
        own = {name: table for name, table in rest.tables.items() if name not in shared}
        self._write(EventColumns(rest.columns, graves=rest.graves, **own).pack())
        return EventColumns({}, **shared)

    def _is_shared(self, table: list[str]) -> bool:
        """Whether a dictionary is to be held for several pieces."""
        held = any(table is one for one in self._shared)
        if not held and len(self._shared) < _MOST_SHARED:
            self._shared.append(table)
            return True
        return held

    def _write(self, data: bytes) -> None:
        with explained(self._folder):
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  # closed in exit
            self._file.seek(self._end)
            self._file.write(data)
        self._end += len(data)

    def origins(self) -> list[Origin]:
        """The partitions that hold anything."""
        return sorted(self._pieces)

    def read(self, origin: Origin) -> Iterator[Taken]:
        """The pieces of a partition, each given up as it is read."""
        pieces = self._pieces.get(origin, [])
        while pieces:
            one = pieces.pop(0)
            columns = one.held
            if one.size:
                assert self._file is not None  # noqa: S101 - for the type checker
                self._file.seek(one.start)
                read = EventColumns.unpack(self._file.read(one.size))
                shared = {name: table for name, table in columns.tables.items() if table}
                columns = EventColumns(read.columns, graves=read.graves, **{**read.tables, **shared})
            nothing = np.empty(0, np.int32)
            result = IntakeResult(
                origin, columns, nothing, [], one.grave, one.dispositions, one.last_arrival, one.following
            )
            yield Taken(result, one.count, again=False, following=one.following)


class FileIntake:
    """Files into a spool, as if they had been published to empty topics and read again.

    Parameters
    ----------
    config, catalogue
        As for the stages.
    spool
        Takes the pieces.
    part
        Only this part of the record is taken; its offsets and arrivals are those of the whole.
    """

    def __init__(self, config: Config, catalogue: Catalogue, spool: Spool, part: Slice) -> None:
        self._config, self._catalogue = config, catalogue
        self._spool, self._part = spool, part
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._late_ms = config.intake.lateness_days * MS_PER_DAY
        self._intake = Intake(config, catalogue)
        self._next: dict[Origin, int] = {}
        self._running: dict[Origin, int] = {}
        self.tally = Tally()

    def load(self, topic: str, file: str, mapping: Mapping | None = None, progress: Progress | None = None) -> None:
        """Take the rows of a file for one topic.

        Raises
        ------
        UnreadableFile, ConfigError
            As :func:`streams.publish.read_candidates`.
        """
        judge: Judge
        if topic in RAW_TOPICS:
            judge = EventJudge(self._config, self._catalogue, kind_of_topic(topic))
        else:
            judge = DispositionJudge(self._config, self._catalogue)
        if mapping is None and topic != DISPOSITIONS and _is_parquet(file):
            self._load_table(topic, file, judge, progress)
            return
        minutes = self._config.offset_ms // 60_000
        nothing = np.empty(0, np.intp)
        for rows in read_candidates(file, topic, mapping=mapping, utc_offset_minutes=minutes, progress=progress):
            good = self._judged(rows, judge)
            self._append(topic, None, nothing, np.arange(len(good)), good)

    def _load_table(self, topic: str, file: str, judge: Judge, progress: Progress | None) -> None:
        """A table of events: what is plain as columns, the rest row by row."""
        kind = kind_of_topic(topic)
        mapping = native_mapping(kind)
        plain_rows = TableIntake(kind, self._intake.decoder, self._config, self._config.grades.load())
        converter = Converter(mapping, self._config.offset_ms // 60_000)
        for number, chunk in enumerate(read_rows(file, format="parquet", columns=mapping.headers(), wide=True)):
            if not number:
                missing_columns(mapping, header_of(chunk.table))
            plain = plain_rows.take(chunk.table, int(time.time() * 1_000))
            left = np.ones(chunk.table.num_rows, np.bool_)
            left[plain.rows] = False
            places: list[int] = []
            good: list[Outgoing] = []
            single = np.flatnonzero(left)
            for start in range(0, len(single), _SINGLE_ROWS):
                some = single[start : start + _SINGLE_ROWS]
                rows = converter.rows(_picked(chunk, some))
                for place, row in zip(some.tolist(), rows, strict=True):
                    found = self._judged([Candidate(row.origin, row.value, row.raw, row.rejection)], judge)
                    good += found
                    places += [place] * len(found)
            self.tally.published += len(plain.rows)
            self._append(topic, plain, plain.rows, np.array(places, np.intp), good)
            if progress is not None:
                progress(chunk.bytes_done, chunk.bytes_total)

    def _judged(self, rows: Sequence[Candidate], judge: Judge) -> list[Outgoing]:
        good, bad = judged(rows, judge)
        self.tally.published += len(good)
        self.tally.rejected += len(bad)
        for refused in bad:
            reason = refused.rejection.reason
            self.tally.reasons[reason] = self.tally.reasons.get(reason, 0) + 1
        return good

    # --- into the partitions ---------------------------------------------------------------------------------------

    def _append(
        self,
        topic: str,
        plain: PlainRows | None,
        plain_places: npt.NDArray[np.intp],
        single_places: npt.NDArray[np.intp],
        single: list[Outgoing],
    ) -> None:
        """Rows that passed, by their places in a stretch of the file, to the ends of their partitions."""
        count = partitions_of(topic, self._config.partitions)
        parts = np.empty(0, np.int64)
        times = np.array([one.time for one in single], np.int64)
        if plain is not None:
            of_product = [partition_for(code.encode(), count) for code in plain.columns.products]
            parts = np.array([*of_product, 0], np.int64)[plain.columns["product"]]
            times = np.concatenate([plain.reported, times])
        parts = np.concatenate([parts, np.array([partition_for(one.key, count) for one in single], np.int64)])
        places = np.concatenate([plain_places, single_places])
        for part in range(count):
            rows = np.flatnonzero(parts == part)
            if len(rows):
                rows = rows[np.argsort(places[rows], kind="stable")]
                self._append_to((topic, part), plain, single, rows, times[rows])

    def _append_to(
        self, origin: Origin, plain: PlainRows | None, single: list[Outgoing], rows: npt.NDArray[np.intp], times: Ints
    ) -> None:
        """``rows`` count through the plain rows and then through the single ones."""
        before = self._running.get(origin, -COMPLETE)
        offsets, arrivals, kept = self._placed(origin, times)
        if not kept.any():
            return
        rows, offsets, arrivals = rows[kept], offsets[kept], arrivals[kept]
        split = 0 if plain is None else len(plain.rows)
        alone = rows >= split
        records = [
            LogRecord(offset, arrival, single[row].key, single[row].value, single[row].headers)
            for row, offset, arrival in zip(
                (rows[alone] - split).tolist(), offsets[alone].tolist(), arrivals[alone].tolist(), strict=True
            )
        ]
        result = self._intake.process(origin, records, before)
        refused = len(result.dead)
        if plain is not None and not alone.all():
            columns = self._dated(plain, rows[~alone], offsets[~alone], arrivals[~alone])
            refused += int((~alone).sum()) - len(columns)
            columns.origins = [origin]
            both = concatenate([columns, result.columns]) if len(result.columns) else columns
            if both is not columns:
                both = both.take(np.argsort(both["offset"], kind="stable"))
            result.columns = both
        result.last_arrival, result.next_offset = int(arrivals[-1]), int(offsets[-1]) + 1
        self._spool.add(result, len(rows), refused)

    def _placed(self, origin: Origin, times: Ints) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
        """Offsets and arrivals of the next records of a partition, and which of them are in the part."""
        begin = self._next.get(origin, 0)
        offsets = np.arange(begin, begin + len(times))
        first, end = self._part.offsets(origin)
        kept = (offsets >= first) & (offsets < (COMPLETE if end is None else end))
        given = np.where(kept, times, -COMPLETE)  # what lies before the part's offsets sets no clock
        arrivals = np.maximum.accumulate(np.maximum(given, self._running.get(origin, -COMPLETE)))
        self._next[origin], self._running[origin] = begin + len(times), int(arrivals[-1])
        if self._part.since is not None:
            kept &= arrivals >= self._part.since
        if self._part.until is not None:
            kept &= arrivals < self._part.until
        return offsets, arrivals, kept

    def _dated(self, plain: PlainRows, rows: npt.NDArray[np.intp], offsets: Ints, arrivals: Ints) -> EventColumns:
        """Plain rows with their offsets, arrivals and delays, less those that came too late."""
        timely = plain.reported[rows] >= arrivals - self._late_ms
        return plain.dated(rows[timely], offsets[timely], arrivals[timely], self._calendar.offset_ms)


def _memory(columns: EventColumns) -> int:
    """Bytes that columns take, or more."""
    entries = sum(map(len, columns.tables.values())) + len(columns.graves)
    return sum(column.nbytes for column in columns.columns.values()) + _TEXT_BYTES * entries


def _is_parquet(file: str) -> bool:
    with Path(file).open("rb") as stream:
        return sniff_format(file, stream.read(4)) == "parquet"


def _picked(chunk: Chunk, rows: npt.NDArray[np.intp]) -> Chunk:
    """Some rows of a chunk as a chunk."""
    places = [chunk.places[row] for row in rows.tolist()]
    return Chunk([], chunk.table.take(rows), chunk.name, places, chunk.bytes_done, chunk.bytes_total)
