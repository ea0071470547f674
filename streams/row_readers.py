"""Files of rows, read a piece at a time: NDJSON, CSV and Parquet, plain or gzipped, or standard input.

Every reader gives :class:`Chunk` after :class:`Chunk`, each small, so that memory stays flat whatever the
file's size. NDJSON chunks carry raw lines; CSV and Parquet chunks carry an Arrow table of the columns asked
for. What cannot be read as a row (a line of more than 1 MiB, a CSV record with too few cells) is given as a
refused row with its place in the file and the reading goes on; only a file that cannot be read at all raises.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import Rejection, TocsinError

__all__ = ["MAX_LINE_BYTES", "Chunk", "Format", "SourceRow", "UnreadableFile", "header_of", "read_rows", "sniff_format"]

Format = Literal["ndjson", "csv", "parquet"]

MAX_LINE_BYTES: Final = 1 << 20
"""The longest line that is taken; a longer one is refused, with its beginning kept as evidence."""

_BLOCK = 1 << 20
_BATCH_ROWS = 8_192
_WIDE_ROWS = 65_536
_SMALL_PIECE = 4
_SMALL_DICTIONARY = 1 << 18
"""A column of text whose pieces have at most so many bytes a row, and so many beside, repeats itself."""
_KEPT_OF_A_LONG_LINE = 4_096
_BOM = b"\xef\xbb\xbf"
_SUFFIXES: Final[dict[str, Format]] = {
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
    ".json": "ndjson",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


class UnreadableFile(TocsinError):
    """A file cannot be read as what it claims to be; the text names it and says what to do."""


class SourceRow(msgspec.Struct, gc=False):
    """One row as it stood in the file: where (``results.ndjson:17``), its bytes, and why it is refused, if it
    is."""

    origin: str
    raw: bytes
    rejection: Rejection | None = None


class Chunk(msgspec.Struct):
    """A piece of a file.

    Parameters
    ----------
    rows
        NDJSON: the lines. CSV and Parquet: only the rows that cannot be read at all, each with its rejection.
    table
        CSV and Parquet: an Arrow table of the columns asked for; None for NDJSON.
    places
        For each row of ``table`` its place in the file: ``results.csv:17`` is the line on which the record
        starts (the header is line 1), ``results.parquet:17`` the 17th row.
    bytes_done, bytes_total
        How far into the file this chunk reaches, for a progress bar; the total is None where it is not known.
    """

    rows: list[SourceRow]
    table: Any = None
    name: str = ""
    places: Sequence[int] = ()
    bytes_done: int = 0
    bytes_total: int | None = None


def read_rows(
    path: str | Path,
    *,
    format: Format | None = None,
    columns: Collection[str] | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    wide: bool = False,
) -> Iterator[Chunk]:
    """Read a file, or standard input when ``path`` is ``"-"``.

    Parameters
    ----------
    path
        A file; ``.gz`` at the end of its name means gzip.
    format
        Overrules what the file's name, or its first byte, says.
    columns
        CSV and Parquet: read only these columns (those that the file has). All by default.
    encoding, delimiter
        Of CSV. The delimiter is a comma, or a tabulator for ``.tsv``.
    wide
        Parquet: larger chunks, their texts dictionary-coded, for those who work on whole columns.

    Raises
    ------
    UnreadableFile
        There is no such file, or it is not of that format.
    """
    name = _display_name(path)
    if str(path) == "-":
        source: _Source = _Source(sys.stdin.buffer, "standard input", None)
    else:
        source = _Source.open(Path(path))
    with source:
        kind = format or sniff_format(path, source.peek())
        try:
            if kind == "parquet":
                yield from _read_parquet(source, name, columns, wide)
            elif kind == "csv":
                tab = Path(name.removesuffix(".gz")).suffix == ".tsv"
                yield from _CsvReader(source, name, columns, encoding, delimiter or ("\t" if tab else ",")).chunks()
            else:
                yield from _read_ndjson(source, name)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UnreadableFile(f"{name}: the gzip data is damaged or cut short ({error}); fetch it anew") from None
        except (pa.ArrowException, OSError) as error:  # of a damaged Parquet file Arrow says OSError
            text = next(iter(str(error).splitlines()), type(error).__name__)
            raise UnreadableFile(
                f"{name}: cannot be read as {kind} ({text}); check the file, or say its format"
            ) from None


def header_of(table: Any) -> list[str]:
    """The columns that the file of a chunk's table has, those too that were not read."""
    return msgspec.json.decode(table.schema.metadata[b"header"], type=list[str])


def sniff_format(path: str | Path, head: bytes) -> Format:
    """The format that a file's name says, else its first bytes: ``PAR1`` is Parquet, ``{`` NDJSON, all else
    CSV."""
    suffix = Path(str(path).removesuffix(".gz")).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if head.startswith(b"PAR1"):
        return "parquet"
    return "ndjson" if head.removeprefix(_BOM).lstrip()[:1] in (b"{", b"[") else "csv"


def _display_name(path: str | Path) -> str:
    return "stdin" if str(path) == "-" else Path(path).name


class _Source:
    """An open file, with what progress needs: the position in the bytes on disk, before decompression."""

    def __init__(self, stream: BinaryIO, name: str, total: int | None, disk: BinaryIO | None = None) -> None:
        self.stream = cast("io.BufferedReader", stream)
        self.name = name
        self.total = total
        self._disk = disk
        self._read = 0

    @classmethod
    def open(cls, path: Path) -> _Source:
        try:
            disk = path.open("rb")
        except OSError as error:
            raise UnreadableFile(f"{path}: cannot be opened ({error.strerror}); check the path") from None
        total = os.fstat(disk.fileno()).st_size
        if path.suffix != ".gz":
            return cls(disk, path.name, total)
        return cls(cast("BinaryIO", gzip.GzipFile(fileobj=disk)), path.name, total, disk)

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stream is not sys.stdin.buffer:
            self.stream.close()
        if self._disk is not None:
            self._disk.close()

    def peek(self) -> bytes:
        """The first bytes, without taking them."""
        try:
            return self.stream.peek(64)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return b""  # the reader meets the same fault and says so with the file's name

    def block(self) -> bytes:
        """The next bytes, at most a block; empty at the end."""
        data = self.stream.read1(_BLOCK)
        self._read += len(data)
        return data

    @property
    def done(self) -> int:
        return self._disk.tell() if self._disk is not None else self._read


class _Lines:
    """Lines out of blocks: numbered, bounded in length, the byte-order mark taken off."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._number = 0

    def blocks(self) -> Iterator[list[tuple[int, bytes, bool]]]:
        """Per block read, its complete lines as (number, bytes with the newline, too long)."""
        tail, skipping, first = b"", False, True
        while block := self._source.block():
            if first and block.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UnreadableFile(f"{self._source.name}: is UTF-16; save it as UTF-8")
            data = tail + (block.removeprefix(_BOM) if first else block)
            first = False
            pieces = data.split(b"\n")
            tail = pieces.pop()
            lines: list[tuple[int, bytes, bool]] = []
            for piece in pieces:
                if skipping:
                    skipping = False  # the rest of a line that was already refused
                    continue
                lines.append(self._line(piece + b"\n"))
            if skipping:
                tail = b""
            elif len(tail) > MAX_LINE_BYTES:
                lines.append(self._line(tail))
                tail, skipping = b"", True
            yield lines
        if tail and not skipping:
            yield [self._line(tail)]

    def _line(self, line: bytes) -> tuple[int, bytes, bool]:
        self._number += 1
        if len(line) > MAX_LINE_BYTES + 1:
            return self._number, line[:_KEPT_OF_A_LONG_LINE], True
        return self._number, line, False


def _too_long(name: str, number: int, head: bytes) -> SourceRow:
    detail = f"the line is longer than {MAX_LINE_BYTES} bytes; it was cut and left out"
    return SourceRow(f"{name}:{number}", head, Rejection("too-large", "", detail))


def _read_ndjson(source: _Source, name: str) -> Iterator[Chunk]:
    for lines in _Lines(source).blocks():
        rows: list[SourceRow] = []
        for number, line, long in lines:
            if long:
                rows.append(_too_long(name, number, line))
            elif text := line.strip():
                rows.append(SourceRow(f"{name}:{number}", text))
        for start in range(0, len(rows), _BATCH_ROWS):
            yield Chunk(rows[start : start + _BATCH_ROWS], None, name, [], source.done, source.total)


class _CsvReader:
    """RFC 4180 through Python's csv, a batch of records at a time.

    The reader's own error does not end it: csv starts the next record on the next line, so one unclosed quote
    costs the records up to csv's field limit (128 KiB) and no more.
    """

    def __init__(
        self, source: _Source, name: str, columns: Collection[str] | None, encoding: str, delimiter: str
    ) -> None:
        self._source, self._name, self._wanted, self._encoding = source, name, columns, encoding
        self._refused: list[SourceRow] = []
        self._start = 0  # line on which the record being read starts; 0 until csv takes its first line
        self._last = b""
        self._records = csv.reader(self._decoded(), delimiter=delimiter)

    def _decoded(self) -> Iterator[str]:
        for lines in _Lines(self._source).blocks():
            for number, line, long in lines:
                if long:
                    self._refused.append(_too_long(self._name, number, line))
                    continue
                self._start = self._start or number
                self._last = line
                # A byte that does not decode becomes U+FFFD; a cell that has one is refused when it is used.
                yield line.decode(self._encoding, "replace")

    def chunks(self) -> Iterator[Chunk]:
        """The file's chunks."""
        header = self._header()
        batch: list[list[str]] = []
        places: list[int] = []
        while True:
            self._start = 0
            try:
                record = next(self._records, None)
            except csv.Error as error:
                self._refuse(f"not a CSV record ({error}); look for an unclosed quote")
                continue
            if record is None:
                break
            if not record:
                continue  # a blank line
            if len(record) != len(header):
                self._refuse(f"the row has {len(record)} cells, the header {len(header)}")
                continue
            batch.append(record)
            places.append(self._start)
            if len(batch) >= _BATCH_ROWS:
                yield self._chunk(header, batch, places)
                batch, places = [], []
        yield self._chunk(header, batch, places)

    def _header(self) -> list[str]:
        try:
            for record in self._records:
                if any(cell.strip() for cell in record):
                    return [cell.strip() for cell in record]
        except csv.Error as error:
            raise UnreadableFile(f"{self._name}: its first line is no CSV record ({error}); save it as CSV") from None
        raise UnreadableFile(f"{self._name}: is empty; a CSV file starts with a line of column names")

    def _refuse(self, detail: str) -> None:
        raw = self._last[:_KEPT_OF_A_LONG_LINE].rstrip(b"\r\n")
        self._refused.append(SourceRow(f"{self._name}:{self._start}", raw, Rejection("malformed-row", "", detail)))

    def _chunk(self, header: list[str], batch: list[list[str]], places: list[int]) -> Chunk:
        cells = list(zip(*batch, strict=True)) if batch else [()] * len(header)
        kept = {
            name: pa.array(values, pa.large_string())
            for name, values in zip(header, cells, strict=True)
            if name and (self._wanted is None or name in self._wanted)
        }
        refused, self._refused = self._refused, []
        return Chunk(refused, _table(kept, header), self._name, places, self._source.done, self._source.total)


def _table(columns: dict[str, Any], header: list[str]) -> Any:
    """An Arrow table that also remembers the names of the columns that were not read."""
    return pa.table(columns).replace_schema_metadata({"header": msgspec.json.encode(header)})


def _read_parquet(source: _Source, name: str, columns: Collection[str] | None, wide: bool) -> Iterator[Chunk]:
    if source.total is None:
        raise UnreadableFile("standard input cannot be Parquet, which is read from its end; give a file")
    file = pq.ParquetFile(source.stream)
    header = list(file.schema_arrow.names)
    wanted = None if columns is None else [one for one in header if one in columns]
    if wide:
        file = pq.ParquetFile(source.stream, metadata=file.metadata, read_dictionary=_repeating(file, header))
    rows = file.metadata.num_rows
    done = 0
    for batch in file.iter_batches(batch_size=_WIDE_ROWS if wide else _BATCH_ROWS, columns=wanted):
        batch.validate(full=True)  # a text that is not UTF-8 would be met no sooner than where it is used
        table = pa.Table.from_batches([batch]).replace_schema_metadata({"header": msgspec.json.encode(header)})
        places = range(done + 1, done + batch.num_rows + 1)
        done += batch.num_rows
        yield Chunk([], table, name, places, source.total * done // max(rows, 1), source.total)
    if not rows:
        empty = file.schema_arrow.empty_table().replace_schema_metadata({"header": msgspec.json.encode(header)})
        yield Chunk([], empty, name, [], source.total, source.total)


def _repeating(file: Any, header: list[str]) -> list[str]:
    """The columns of text whose writer kept a dictionary to the end, as far as their first piece tells."""
    if not file.metadata.num_row_groups:
        return []
    group = file.metadata.row_group(0)
    pieces = {group.column(at).path_in_schema: group.column(at) for at in range(group.num_columns)}
    return [
        name
        for name in header
        if name in pieces
        and pa.types.is_string(file.schema_arrow.field(name).type)
        and pieces[name].encodings
        and "RLE_DICTIONARY" in pieces[name].encodings
        and pieces[name].total_uncompressed_size < _SMALL_PIECE * group.num_rows + _SMALL_DICTIONARY
    ]
