"""Files into events: native files as they are, foreign ones through a mapping.

The rows that come out carry their event as JSON bytes, ready for a raw topic, with the key and the time that
a record of imported history takes. A row that cannot become an event keeps its place, its bytes, and the
reason; the rest goes through. What is checked here is the form (:mod:`schemas.events`); codes and clocks are
the intake's.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from schemas.errors import ConfigError, Rejection
from schemas.events import EVENT_TYPES, TOPICS, AnyEvent, Kind, check
from streams.cell_rules import Value, normal_cell
from streams.conversion import TableColumns, Worksheet, missing_columns
from streams.decode import _explain as explain
from streams.mapping import Distinct, Mapping, Rule
from streams.row_readers import Chunk, Format, header_of, read_rows

__all__ = [
    "SORT_LIMIT_BYTES",
    "Converter",
    "Progress",
    "Row",
    "import_rows",
    "names_for",
    "native_mapping",
    "native_rows",
]

SORT_LIMIT_BYTES: Final = 512 << 20
"""Tables of up to this size on disk are put in order in memory; larger ones keep the file's order."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes of the file that are done, and the bytes that it has (None where that is not
known)."""

_BATCH_ROWS: Final = 8_192
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_ENCODER: Final = msgspec.json.Encoder()


class Row(msgspec.Struct, gc=False):
    """One row of a file on its way to a raw topic.

    Parameters
    ----------
    origin
        Where it stood: ``results.ndjson:17``.
    kind, topic, key, value
        The event's kind, its topic (short name), the product code as the record's key, the event as JSON. A
        refused row has no key, and its raw bytes as value.
    reported_at_ms
        The record's timestamp; None for a refused row.
    rejection
        Why the row is refused, and by which field; None for a good one.
    raw
        What to keep as evidence: a native row's line; of a refused row of a table its cells as JSON; of a
        good row of a table the event itself.
    """

    origin: str
    kind: Kind
    topic: str
    key: bytes | None
    value: bytes
    reported_at_ms: int | None
    rejection: Rejection | None
    raw: bytes


def import_rows(
    path: str | Path,
    mapping: Mapping,
    *,
    format: Format | None = None,
    utc_offset_minutes: int = 0,
    progress: Progress | None = None,
) -> Iterator[list[Row]]:
    """Turn a foreign file into events through a mapping.

    Tables with an ``order_by`` are sorted (stably) before the first row comes out, so that history is
    published in the order in which it was reported; standard input, NDJSON and very large files keep their
    own order.

    Parameters
    ----------
    utc_offset_minutes
        How times without an offset are read, for ``reported_at_ms``; the event keeps them as they are.

    Raises
    ------
    UnreadableFile, ConfigError
        The file cannot be read, or has not the columns that the mapping needs. A bad row never raises.
    """
    chunks = read_rows(
        path,
        format=format,
        columns=mapping.headers(),
        encoding=mapping.encoding,
        delimiter=mapping.delimiter,
    )
    converter = Converter(mapping, utc_offset_minutes)
    ordered = mapping.order_by is not None and _fits_in_memory(path)
    for chunk in _in_order(chunks, mapping, utc_offset_minutes) if ordered else chunks:
        rows = converter.rows(chunk)
        if progress is not None:
            progress(chunk.bytes_done, chunk.bytes_total)
        if rows:
            yield rows


def native_rows(
    path: str | Path,
    kind: Kind,
    *,
    format: Format | None = None,
    utc_offset_minutes: int = 0,
    progress: Progress | None = None,
) -> Iterator[list[Row]]:
    """Read a file whose rows are events already: NDJSON, or a table with columns named like the event's
    fields.

    An empty cell is an absent field; columns that the event has not are ignored, as unknown JSON fields are;
    an ``items`` column holds JSON. NDJSON lines go through byte for byte.
    """
    mapping = native_mapping(kind)
    converter = Converter(mapping, utc_offset_minutes)
    for chunk in read_rows(path, format=format, columns=mapping.headers()):
        rows = converter.lines(chunk) if chunk.table is None else converter.rows(chunk)
        if progress is not None:
            progress(chunk.bytes_done, chunk.bytes_total)
        if rows:
            yield rows


def names_for(mapping: Mapping, path: str | Path) -> dict[str, str]:
    """The names of the codes in ``path``, from the mapping's file of names beside it; empty where there is
    none.

    Raises
    ------
    ConfigError
        The file of names has not the columns that the mapping says.
    """
    names = mapping.catalogue.names
    if names is None or str(path) == "-":
        return {}
    file = Path(path).parent / names.file
    if not file.exists():
        return {}
    open_text = gzip.open if file.suffix == ".gz" else open
    with open_text(file, "rt", encoding="utf-8-sig", newline="") as text:
        reader = csv.DictReader(text)
        lacking = [name for name in (names.code, names.title) if name not in (reader.fieldnames or ())]
        if lacking:
            raise ConfigError(f"{file}: has no column {lacking[0]!r}, which mapping {mapping.name} names")
        return {row[names.code].strip(): row[names.title].strip() for row in reader if row[names.code]}


class Converter:
    """One file's conversion: the worksheet, made at the first chunk, and the rows already seen."""

    def __init__(self, mapping: Mapping, utc_offset_minutes: int) -> None:
        self._mapping = mapping
        self._kind = mapping.kind
        self._topic = TOPICS[mapping.kind]
        self._type: Any = EVENT_TYPES[mapping.kind]
        self._clock = _Clock(utc_offset_minutes)
        self._seen = None if mapping.distinct is None else _Seen(mapping.distinct)
        self._sheet: Worksheet | None = None

    def lines(self, chunk: Chunk) -> list[Row]:
        """Native NDJSON: decode, check, pass the line on."""
        decode = msgspec.json.Decoder(self._type).decode
        rows: list[Row] = []
        for source in chunk.rows:
            if source.rejection is not None:
                rows.append(self._refused(source.origin, source.raw, source.rejection))
                continue
            try:
                event = decode(source.raw)
                check(event)
            except Rejection as rejection:
                rows.append(self._refused(source.origin, source.raw, rejection))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                rows.append(self._refused(source.origin, source.raw, explain(source.raw, error)))
            else:
                rows.append(self._good(source.origin, event, source.raw))
        return rows

    def rows(self, chunk: Chunk) -> list[Row]:
        """A chunk through the mapping: first what could not be read, then the rest in its order."""
        rows = [self._refused(one.origin, one.raw, one.rejection) for one in chunk.rows if one.rejection]
        piece = _table_piece(chunk) if chunk.table is not None else _line_piece(chunk, self._mapping.headers())
        sheet = self._sheet or self._open(chunk)
        sheet.load(piece.columns, len(piece.origins))
        kept = sheet.kept()
        keys = None if self._seen is None else sheet.keys(self._seen.on)
        fields = sheet.fields()
        for place, values in enumerate(zip(*fields.values(), strict=True)):
            doubt = piece.bad.get(place, kept[place])
            if isinstance(doubt, Rejection):
                rows.append(self._refused(piece.origins[place], piece.raw(place), doubt))
                continue
            if not doubt or (keys is not None and self._seen is not None and self._seen.has(keys[place])):
                continue
            row = self._row(piece, place, dict(zip(fields, values, strict=True)))
            # A refused row does not stand for its like: a good one after it still counts.
            if keys is not None and self._seen is not None and row.rejection is None:
                self._seen.add(keys[place])
            rows.append(row)
        return rows

    def _open(self, chunk: Chunk) -> Worksheet:
        header = None if chunk.table is None else header_of(chunk.table)
        if header is not None:
            missing_columns(self._mapping, header)
        self._sheet = Worksheet(self._mapping, header)
        return self._sheet

    def _row(self, piece: _Piece, place: int, fields: dict[str, Value]) -> Row:
        document = {name: value for name, value in fields.items() if value is not None}
        try:
            for value in document.values():
                if value.__class__ is Rejection:
                    raise value
            event: AnyEvent = msgspec.convert(document, self._type, strict=False)
            check(event)
            return self._good(piece.origins[place], event, _ENCODER.encode(event))
        except Rejection as rejection:
            refused = rejection
        except msgspec.ValidationError as error:
            refused = _name_cell(explain(b"", error), document)
        return self._refused(piece.origins[place], piece.raw(place), refused)

    def _good(self, origin: str, event: AnyEvent, value: bytes) -> Row:
        time = self._clock.ms(event.reported_at)
        return Row(origin, self._kind, self._topic, event.product.encode(), value, time, None, value)

    def _refused(self, origin: str, raw: bytes, rejection: Rejection) -> Row:
        # Its traceback holds the frames of this conversion, and with them the whole chunk: a cycle through the row, at
        # which the garbage collector does not look (gc=False), so it would never be freed.
        rejection.__traceback__ = rejection.__context__ = None
        return Row(origin, self._kind, self._topic, None, raw, None, rejection, raw)


class _Clock:
    """Epoch milliseconds of times, those without an offset read in the deployment's."""

    def __init__(self, utc_offset_minutes: int) -> None:
        self._shift = utc_offset_minutes * 60_000
        self._known: dict[datetime, int] = {}

    def ms(self, moment: datetime) -> int:
        if moment.tzinfo is not None:
            return (moment - _EPOCH) // _MILLISECOND
        found = self._known.get(moment)
        if found is None:
            if len(self._known) > 100_000:
                self._known.clear()
            found = (moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND - self._shift
            self._known[moment] = found
        return found


class _Seen:
    """Keys already imported, as 64-bit hashes: about 70 bytes a row, whatever the keys are."""

    def __init__(self, distinct: Distinct) -> None:
        self.on = distinct.on
        self._adjacent = distinct.within == "adjacent"
        self._hashes: set[bytes] = set()

    def has(self, key: str) -> bool:
        return self._hash(key) in self._hashes

    def add(self, key: str) -> None:
        if self._adjacent:
            self._hashes.clear()
        self._hashes.add(self._hash(key))

    @staticmethod
    def _hash(key: str) -> bytes:
        return hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest()


def native_mapping(kind: Kind) -> Mapping:
    """Every field from the column of its own name."""
    types = {field.name: str(field.type) for field in msgspec.structs.fields(EVENT_TYPES[kind])}
    fields: dict[str, tuple[Rule, ...]] = {
        name: (Rule(column=name, date=[] if "datetime" in said else None, json=name == "items"),)
        for name, said in types.items()
    }
    return Mapping(name=f"native {kind}", kind=kind, fields=fields)


def _fits_in_memory(path: str | Path) -> bool:
    if str(path) == "-":
        return False
    file = Path(path)
    return file.is_file() and file.stat().st_size <= SORT_LIMIT_BYTES


def _in_order(chunks: Iterator[Chunk], mapping: Mapping, utc_offset_minutes: int) -> Iterator[Chunk]:
    """The same rows, those of tables sorted by the field that ``order_by`` names; rows without it come
    last."""
    tables: list[Chunk] = []
    for chunk in chunks:
        if chunk.table is None:
            yield chunk
        else:
            tables.append(chunk)
    if not tables:
        return
    missing_columns(mapping, header_of(tables[0].table))
    refused = [row for chunk in tables for row in chunk.rows]
    times = np.concatenate([_sort_keys(chunk, mapping, utc_offset_minutes) for chunk in tables])
    order = np.argsort(times, kind="stable")
    whole = pa.concat_tables([chunk.table for chunk in tables]).unify_dictionaries()
    places = np.concatenate([np.asarray(chunk.places, np.int64) for chunk in tables])[order]
    total = tables[-1].bytes_total
    name = tables[0].name
    tables.clear()
    yield Chunk(refused, whole.slice(0, 0), name, [], 0, total)
    for start in range(0, len(order), _BATCH_ROWS):
        stop = min(start + _BATCH_ROWS, len(order))
        piece = whole.take(pa.array(order[start:stop]))
        done = None if total is None else total * stop // len(order)
        yield Chunk([], piece, name, places[start:stop].tolist(), done or 0, total)


def _sort_keys(chunk: Chunk, mapping: Mapping, utc_offset_minutes: int) -> Any:
    clock = _Clock(utc_offset_minutes)
    sheet = Worksheet(mapping, header_of(chunk.table))
    sheet.load(TableColumns(chunk.table), chunk.table.num_rows)
    values = sheet.field(mapping.order_by or "reported_at")
    last = np.iinfo(np.int64).max
    return np.asarray([clock.ms(v) if isinstance(v, datetime) else last for v in values], np.int64)


class _Piece(msgspec.Struct):
    """A chunk as the worksheet takes it: columns of cells, with what each row was."""

    columns: Any
    names: Collection[str]
    origins: list[str]
    lines: list[bytes] | None = None
    bad: dict[int, Rejection] = {}

    def raw(self, place: int) -> bytes:
        """The row as evidence: its line, or its cells as JSON."""
        if self.lines is not None:
            return self.lines[place]
        cells = {name: self.columns.get(name)[place] for name in self.names}
        return _ENCODER.encode({name: cell for name, cell in cells.items() if cell is not None})


def _table_piece(chunk: Chunk) -> _Piece:
    origins = [f"{chunk.name}:{place}" for place in chunk.places]
    return _Piece(TableColumns(chunk.table), chunk.table.column_names, origins)


def _line_piece(chunk: Chunk, names: frozenset[str]) -> _Piece:
    """Foreign NDJSON as columns; a line that is no JSON object is kept aside with what is wrong with it."""
    rows = [row for row in chunk.rows if row.rejection is None]
    columns: dict[str, list[Value]] = {name: [None] * len(rows) for name in names}
    piece = _Piece(columns, names, [row.origin for row in rows], [row.raw for row in rows])
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for place, row in enumerate(rows):
        try:
            document = decode(row.raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            piece.bad[place] = explain(row.raw, error)
            continue
        for name in names & document.keys():
            columns[name][place] = normal_cell(document[name])
    return piece


def _name_cell(rejection: Rejection, document: dict[str, Value]) -> Rejection:
    """The same rejection with the cell that earned it."""
    cell = document.get(rejection.field.partition("[")[0].partition(".")[0])
    if cell is None:
        return rejection
    return Rejection(rejection.reason, rejection.field, f"{str(cell)[:60]!r}: {rejection.detail}")
