"""Files are read a piece at a time: places, progress, bounds, and what is said of a row that is none."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from streams.row_readers import MAX_LINE_BYTES, Chunk, UnreadableFile, read_rows, sniff_format


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_ndjson_lines_carry_their_line_numbers_past_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ndjson", b'\xef\xbb\xbf{"a":1}\r\n\n  {"a":2}\n{"a":3}')
    rows = [row for chunk in read_rows(path) for row in chunk.rows]
    assert [(row.origin, row.raw) for row in rows] == [
        ("a.ndjson:1", b'{"a":1}'),
        ("a.ndjson:3", b'{"a":2}'),
        ("a.ndjson:4", b'{"a":3}'),
    ]


def test_a_line_longer_than_a_mebibyte_is_cut_and_refused_and_the_next_is_read(tmp_path: Path) -> None:
    long = b'{"x":"' + b"y" * (3 * MAX_LINE_BYTES) + b'"}'
    path = write(tmp_path / "long.ndjson", b'{"a":1}\n' + long + b'\n{"a":2}\n' + long)
    rows = [row for chunk in read_rows(path) for row in chunk.rows]
    assert [row.origin for row in rows] == [f"long.ndjson:{n}" for n in (1, 2, 3, 4)]
    assert [row.rejection.reason if row.rejection else None for row in rows] == [
        None,
        "too-large",
        None,
        "too-large",
    ]
    assert max(len(row.raw) for row in rows) < 10_000


def test_a_line_of_exactly_a_mebibyte_is_taken(tmp_path: Path) -> None:
    line = b'{"x":"' + b"y" * (MAX_LINE_BYTES - 8) + b'"}'
    assert len(line) == MAX_LINE_BYTES
    rows = [row for chunk in read_rows(write(tmp_path / "a.ndjson", line + b"\n" + line)) for row in chunk.rows]
    assert [row.rejection for row in rows] == [None, None]


def test_gzip_and_progress_count_the_bytes_on_disk(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ndjson.gz", gzip.compress(b'{"a":1}\n' * 50_000))
    chunks = list(read_rows(path))
    assert sum(len(chunk.rows) for chunk in chunks) == 50_000
    assert chunks[-1].bytes_done == chunks[-1].bytes_total == path.stat().st_size


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("cut.ndjson.gz", gzip.compress(b'{"a":1}\n' * 9_000)[:-20], "cut short"),
        ("not.csv.gz", b"a,b\n1,2\n", "gzip"),
        ("wide.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        ("empty.csv", b"", "empty"),
        ("not.parquet", b"PAR1 it is not", "parquet"),
    ],
)
def test_a_file_that_is_not_what_it_claims_raises_one_clear_line(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(UnreadableFile, match=says) as caught:
        list(read_rows(path))
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"nowhere\.csv"):
        list(read_rows(tmp_path / "nowhere.csv"))


def test_csv_follows_rfc_4180_and_places_are_the_lines_on_which_records_start(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeffa,b\r\n"x ""y""","1\n2"\r\n\r\n"p,q",3\r\n')
    (chunk,) = read_rows(path)
    assert chunk.table.to_pylist() == [{"a": 'x "y"', "b": "1\n2"}, {"a": "p,q", "b": "3"}]
    assert chunk.places == [2, 5]


def test_ragged_rows_unclosed_quotes_and_overlong_lines_are_refused_with_their_lines(
    tmp_path: Path,
) -> None:
    text = "a,b\n1,2\n3\n4,5,6\n" + "z" * (MAX_LINE_BYTES + 1) + '\n7,8\n9,"open\n' + "q\n" * 80_000 + "5,6\n"
    (chunk,) = read_rows(write(tmp_path / "a.csv", text))
    assert [(row.origin, row.rejection.reason) for row in chunk.rows if row.rejection][:4] == [
        ("a.csv:3", "malformed-row"),
        ("a.csv:4", "malformed-row"),
        ("a.csv:5", "too-large"),
        ("a.csv:7", "malformed-row"),
    ]
    assert chunk.table.to_pylist() == [{"a": "1", "b": "2"}, {"a": "7", "b": "8"}, {"a": "5", "b": "6"}]
    assert chunk.places[:2] == [2, 6]


def test_tsv_and_a_stated_delimiter(tmp_path: Path) -> None:
    (tabs,) = read_rows(write(tmp_path / "a.tsv", "a\tb\n1\t2,5\n"))
    (semicolons,) = read_rows(write(tmp_path / "a.csv", "a;b\n1;2,5\n"), delimiter=";")
    assert tabs.table.to_pylist() == semicolons.table.to_pylist() == [{"a": "1", "b": "2,5"}]


@pytest.mark.parametrize(("data", "rows"), [(b'\n {"event_id":"e1"}\n', 1), (b"event_id,source\ne1,s\n", 0), (b"", 0)])
def test_standard_input_is_sniffed(monkeypatch: pytest.MonkeyPatch, data: bytes, rows: int) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(data))))
    if not data:
        with pytest.raises(UnreadableFile, match="empty"):
            list(read_rows("-"))
        return
    chunks = list(read_rows("-"))
    assert sum(len(chunk.rows) for chunk in chunks) == rows
    assert chunks[-1].bytes_total is None


@pytest.mark.parametrize(
    ("name", "head", "format"),
    [
        ("a.jsonl.gz", b"", "ndjson"),
        ("a.dat", b"PAR1", "parquet"),
        ("a.dat", b" {", "ndjson"),
        ("a", b"x,y", "csv"),
    ],
)
def test_format_is_told_by_name_then_by_first_bytes(name: str, head: bytes, format: str) -> None:
    assert sniff_format(name, head) == format


def test_parquet_is_read_in_batches_and_only_the_columns_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": range(20_000), "b": range(20_000)}), path, row_group_size=6_000)
    chunks: list[Chunk] = list(read_rows(path, columns={"a", "absent"}))
    assert len(chunks) > 2
    assert chunks[0].table.column_names == ["a"]
    assert [place for chunk in chunks for place in chunk.places] == list(range(1, 20_001))
    assert chunks[-1].bytes_done == chunks[-1].bytes_total


def test_a_parquet_file_with_a_broken_footer_is_unreadable(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": ["x"]}), out)
    file = tmp_path / "a.parquet"
    file.write_bytes(out.getvalue()[:-60] + b"\xff" * 52 + out.getvalue()[-8:])
    with pytest.raises(UnreadableFile, match="cannot be read as parquet"):
        list(read_rows(file))


@pytest.mark.parametrize("head", [b"\r\0", b'"' + b"x" * 200_000])
def test_a_first_line_that_is_no_csv_record_is_told(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(UnreadableFile, match="first line is no CSV record"):
        list(read_rows(write(tmp_path / "a.csv", head)))


def test_a_parquet_file_with_text_that_is_not_utf_8_is_unreadable(tmp_path: Path) -> None:
    out = io.BytesIO()
    text = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xb7x")])
    pq.write_table(pa.table({"a": text}), out)
    with pytest.raises(UnreadableFile, match="UTF8"):
        list(read_rows(write(tmp_path / "a.parquet", out.getvalue())))
