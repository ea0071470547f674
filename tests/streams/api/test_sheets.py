"""Workbooks: cells come as a person sees them, and what would cost too much is refused."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from serving import Client, records, running, service

from streams.api.limits import Limits
from streams.api.problems import Problem
from streams.api.sheets import XLSX, sheet_to_csv

HEADER = ("event_id", "source", "reported_at", "product", "region", "lab", "tested", "failed", "batch")
GOOD = ("R-1", "lab-07", datetime(2026, 3, 2, 9, 30), "F0201", 120110, "lab-07", 20, 1.0, "B\n1")


def workbook(*rows: tuple[Any, ...], **sheets: list[tuple[Any, ...]]) -> bytes:
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    for name, more in sheets.items():
        sheet = book.create_sheet(name)
        for row in more:
            sheet.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def text(tmp_path: Path, data: bytes, limits: Limits | None = None) -> str:
    source, target = tmp_path / "body", tmp_path / "out.csv"
    source.write_bytes(data)
    sheet_to_csv(source, target, limits or Limits())
    return target.read_text()


def refused(tmp_path: Path, data: bytes, limits: Limits | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        text(tmp_path, data, limits)
    return caught.value


def test_cells_become_what_csv_would_have_and_rows_keep_their_numbers(tmp_path: Path) -> None:
    found = text(tmp_path, workbook(HEADER, (), GOOD, (True, 0.25, None, "=1+1", "a,b", 1e20)))
    assert found.splitlines() == [
        ",".join(HEADER),
        "",
        "R-1,lab-07,2026-03-02T09:30:00,F0201,120110,lab-07,20,1,B 1",
        'true,0.25,,,"a,b",1e+20,,,',
    ]


def test_a_workbook_goes_through_the_api_with_verdicts_by_row(tmp_path: Path) -> None:
    bad = (*GOOD[:4], 999999, *GOOD[5:])
    with running(service(tmp_path / "data")) as port:
        answer = Client(port).post(workbook(HEADER, GOOD, (), bad), XLSX)
    assert answer.status == 207
    receipt = answer.json()
    assert receipt["accepted"] == 1
    assert [(one["line"], one["field"]) for one in receipt["verdicts"]] == [(4, "region")]
    assert len(records(tmp_path / "data", "inspections")) == 1


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"a,b\n1,2\n", b"\xd0\xcf\x11\xe0" * 100])
def test_what_is_no_workbook_is_told(tmp_path: Path, data: bytes) -> None:
    problem = refused(tmp_path, data)
    assert problem.kind.name == "malformed-body"
    assert str(tmp_path) not in problem.detail


def test_which_of_two_filled_sheets_is_meant_is_asked(tmp_path: Path) -> None:
    assert "2 sheets" in refused(tmp_path, workbook(HEADER, GOOD, notes=[("x",)])).detail
    assert "no visible sheet" in refused(tmp_path, workbook()).detail


def test_too_many_rows_or_columns_are_refused(tmp_path: Path) -> None:
    rows = [("x",)] * 6
    assert text(tmp_path, workbook(*rows), Limits(rows=5)).count("x") == 6  # the header is no row
    assert refused(tmp_path, workbook(*rows, ("x",)), Limits(rows=5)).kind.name == "too-large"
    assert "columns" in refused(tmp_path, workbook(("x",) * 1_001)).detail


def _with_sheet(xml: bytes) -> bytes:
    """A workbook whose sheet is this XML."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(workbook(("x",)))) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, xml if name == "xl/worksheets/sheet1.xml" else old.read(name))
    return out.getvalue()


_SHEET = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%s</sheetData></worksheet>'


def test_one_cell_in_the_last_corner_does_not_take_the_memory_of_all(tmp_path: Path) -> None:
    corner = b'<row r="1"><c r="A1"><v>1</v></c></row><row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'
    data = _with_sheet(_SHEET % corner)
    assert len(data) < 10_000
    assert refused(tmp_path, data).kind.name == "too-large"


def test_a_workbook_that_unpacks_to_more_than_the_limit_is_stopped(tmp_path: Path) -> None:
    data = _with_sheet(
        _SHEET % (b'<row r="1"><c r="A1" t="inlineStr"><is><t>' + b"x" * 3_000_000 + b"</t></is></c></row>")
    )
    assert len(data) < 20_000
    assert refused(tmp_path, data, Limits(unpacked_bytes=1_000_000)).kind.name in ("too-large", "malformed-body")


def test_an_entity_bomb_is_no_workbook(tmp_path: Path) -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
    ) + b"]>" + _SHEET % b'<row r="1"><c r="A1" t="inlineStr"><is><t>&j;</t></is></c></row>'  # fmt: skip
    try:
        assert len(text(tmp_path, _with_sheet(bomb))) < 10_000
    except Problem as problem:
        assert problem.kind.name in ("too-large", "malformed-body")  # noqa: PT017
