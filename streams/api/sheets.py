"""Workbooks (XLSX) to CSV, by calamine: cells as they were last computed; no formula is computed, no link followed.

The reader keeps a sheet as a rectangle in memory, so a workbook of a few bytes with one cell in the last corner would
ask for gigabytes. It therefore runs in a process of its own (:mod:`streams.api.sheet_child`) with its memory, its time
and what it may write limited by the kernel; what the limits stop is one refused upload, and nothing of ours.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.api.limits import Limits
from streams.api.problems import Problem

__all__ = ["XLSX", "sheet_to_csv"]

XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

_CHILD: Final = Path(__file__).with_name("sheet_child.py")
_COLUMNS: Final = 1_000
_MEMORY: Final = 1 << 30
_SECONDS: Final = 60


def sheet_to_csv(source: Path, target: Path, limits: Limits) -> int:
    """Write the one visible sheet with rows to CSV; the line of a row is its number in the sheet.

    Raises
    ------
    Problem
        ``malformed-body`` or ``too-large``.
    """
    bounds = (limits.rows, _COLUMNS, _MEMORY, _SECONDS, limits.unpacked_bytes)
    command = [sys.executable, "-I", str(_CHILD), str(source), str(target), *map(str, bounds)]
    try:
        done = subprocess.run(  # noqa: S603  # our own program; the paths are ours too
            command, capture_output=True, timeout=2 * _SECONDS, check=False, env={"LANG": "C.UTF-8"}
        )
    except subprocess.TimeoutExpired:
        raise _too_costly() from None
    if done.returncode or not done.stdout:
        raise _too_costly()
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    if "error" in answer:
        raise Problem("too-large" if answer.get("large") else "malformed-body", f"spreadsheet: {answer['error']}")
    return int(answer["rows"])


def _too_costly() -> Problem:
    return Problem("too-large", "the workbook takes too much memory or time to read; save the sheet as CSV")
