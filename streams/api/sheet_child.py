"""Run by :mod:`streams.api.sheets` in a process of its own: one sheet of a workbook to CSV, under hard limits.

Stands alone on purpose: it imports nothing of ours. Answers on standard output with one JSON object: ``rows``, or
``error`` with what is wrong.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
from datetime import date, datetime, time, timedelta
from typing import Any


def main(source: str, target: str, rows: int, columns: int, memory: int, seconds: int, size: int) -> dict[str, Any]:
    """Convert, and say how many rows there were or what is wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from python_calamine import CalamineError, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

    try:
        with CalamineWorkbook.from_path(source) as book:
            shown = [
                sheet.name
                for sheet in book.sheets_metadata
                if sheet.typ == SheetTypeEnum.WorkSheet and sheet.visible == SheetVisibleEnum.Visible
            ]
            filled = [(sheet, sheet.end) for sheet in map(book.get_sheet_by_name, shown) if sheet.end is not None]
            if not filled:
                return {"error": "the workbook has no visible sheet with rows"}
            if len(filled) > 1:
                names = ", ".join(repr(sheet.name[:40]) for sheet, _ in filled[:4])
                return {"error": f"{len(filled)} sheets have rows ({names}); save the one to upload as a file"}
            ((sheet, end),) = filled
            if end[0] > rows:  # counted from 0, and the first row is the header
                return {"error": f"the sheet has more than {rows} rows; split the file", "large": True}
            if end[1] >= columns:
                return {"error": f"the sheet has more than {columns} columns; delete those that hold nothing"}
            return {"rows": write(sheet.to_python(skip_empty_area=False), target)}
    except (CalamineError, OSError, ValueError) as error:
        return {"error": f"cannot be read as a workbook ({' '.join(str(error).split())[:200]})"}


def write(rows: list[list[Any]], target: str) -> int:
    """Rows to CSV, each on the line of its own number; an empty row is an empty line."""
    with open(target, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in rows:
            cells = [text(cell) for cell in row]
            writer.writerow(cells if any(cells) else [])
    return len(rows)


def text(cell: object) -> str:
    """A cell as its text would be in CSV; whole numbers without a fraction, times as ISO 8601, one line."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() and abs(cell) < 1e15 else repr(cell)
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return str(cell)
    return " ".join(str(cell).splitlines())


if __name__ == "__main__":
    try:
        answer = main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
    except MemoryError:
        answer = {"error": "the workbook needs too much memory; save it as CSV", "large": True}
    print(json.dumps(answer))
