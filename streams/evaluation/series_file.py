"""The benchmark's series as a file, so that another tool can judge the very same draws; and columns of any file.

CSV (also gzipped, or tab-separated) or Parquet with the whole-number columns ``scenario, rep, week, baseline, past,
current``, a row a week, in any order. Other columns are ignored, and so are weeks 1 to 312.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from detectors.evidence import IntArray
from schemas.errors import TocsinError
from streams.evaluation.scenarios import FIRST_WEEK, LAST_WEEK, SCORED_FROM, Draws
from streams.outputs import explained, replacing
from streams.row_readers import read_rows

__all__ = ["COLUMNS", "FileColumns", "SeriesError", "read_draws", "read_file", "whole_numbers", "write_draws"]

COLUMNS: Final = ("scenario", "rep", "week", "baseline", "past", "current")
MAX_ROWS: Final = 14_000_000
MAX_COUNT: Final = 10**9


class SeriesError(TocsinError):
    """A file of series cannot be used; the text names the place and the way to mend it."""


@dataclass(frozen=True, slots=True)
class FileColumns:
    """Columns of a file.

    Attributes
    ----------
    name
        The file's, for messages.
    columns
        Arrow arrays by name, of those asked for that the file has.
    places
        For each row the line of a CSV (the header is line 1), or the number of the row of a Parquet file.
    header
        Names of all columns.
    """

    name: str
    columns: dict[str, Any]
    places: IntArray
    header: list[str]

    def refuse(self, row: int, what: str) -> NoReturn:
        """Raise a :class:`SeriesError` about a row."""
        raise SeriesError(f"{self.name}:{self.places[row]}: {what}")


def read_file(path: str | Path, wanted: Sequence[str], *, max_rows: int = MAX_ROWS) -> FileColumns:
    """Read some columns of a CSV or Parquet file.

    Raises
    ------
    SeriesError
        If a row cannot be read, or there are more than `max_rows`.
    """
    if str(path) != "-" and not Path(path).is_file():
        raise SeriesError(f"{path}: is no file; check the path")
    tables: list[Any] = []
    places: list[IntArray] = []
    header: list[str] = []
    name, rows = str(path), 0
    for chunk in read_rows(path, columns=wanted):
        name = chunk.name
        if chunk.table is None:
            raise SeriesError(f"{name}: is NDJSON; give CSV or Parquet")
        for refused in chunk.rows:
            detail = refused.rejection.detail if refused.rejection is not None else "not a row"
            raise SeriesError(f"{refused.origin}: {detail}")
        rows += len(chunk.places)
        if rows > max_rows:
            raise SeriesError(f"{name}: has more than {max_rows:,} rows; split it")
        header = header or _header(chunk.table)
        tables.append(chunk.table.replace_schema_metadata(None))
        places.append(np.array(chunk.places, dtype=np.int64))
    if not rows:
        raise SeriesError(f"{name}: has no rows")
    table = pa.concat_tables(tables, promote_options="permissive")
    columns = {column: table.column(column) for column in table.column_names}
    return FileColumns(name, columns, np.concatenate(places), header)


def _header(table: Any) -> list[str]:
    return list(msgspec.json.decode((table.schema.metadata or {})[b"header"]))


def whole_numbers(file: FileColumns, column: str, *, least: int = 0, most: int = MAX_COUNT) -> IntArray:
    """A column as whole numbers from `least` to `most`.

    Raises
    ------
    SeriesError
        Naming the first row that is none.
    """
    values = file.columns[column]
    try:
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            values = pc.utf8_trim_whitespace(values)
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        # Empty cells and words: the slow way, to name the place.
        numbers = np.array([_number(value) for value in values.to_pylist()])
    with np.errstate(invalid="ignore"):
        bad = ~((numbers >= least) & (numbers <= most) & (numbers == np.floor(numbers)))
    if bad.any():
        row = int(bad.argmax())
        found = values[row].as_py()
        file.refuse(row, f"{column}: must be a whole number from {least:,} to {most:,}, found {_shown(found)}")
    return np.asarray(numbers, dtype=np.int64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _shown(value: Any) -> str:
    return "nothing" if value is None or value == "" else repr(value if len(str(value)) < 40 else str(value)[:40])


# --- the benchmark's file -----------------------------------------------------------------------------------


def read_draws(path: str | Path) -> Draws:
    """Read series of the benchmark.

    Raises
    ------
    SeriesError
        If a column is missing, a value is no count, or a series does not have every week once from some week (313 or
        later, the same for all) to 624.
    """
    file = read_file(path, COLUMNS)
    missing = [column for column in COLUMNS if column not in file.columns]
    if missing:
        raise SeriesError(
            f"{file.name}: has no column {', '.join(missing)}; the benchmark's are {', '.join(COLUMNS)} (for a file of "
            "your own counts name a --detector)"
        )
    limits = {"scenario": (1, MAX_COUNT), "rep": (1, MAX_COUNT), "week": (1, LAST_WEEK)}
    values = {name: whole_numbers(file, name, least=low, most=high)
              for name, (low, high) in ((name, limits.get(name, (0, MAX_COUNT))) for name in COLUMNS)}  # fmt: skip
    kept = np.flatnonzero(values["week"] >= FIRST_WEEK)
    order = kept[np.lexsort((values["week"][kept], values["rep"][kept], values["scenario"][kept]))]
    scenario, rep, week = (values[name][order] for name in COLUMNS[:3])
    if not order.size:
        raise SeriesError(f"{file.name}: has no week from {FIRST_WEEK} to {LAST_WEEK}")
    begins = np.flatnonzero((np.diff(scenario, prepend=-1) != 0) | (np.diff(rep, prepend=-1) != 0))
    first = int(week[0])
    _check_weeks(file, order, begins, scenario, rep, week, first)
    shape = (begins.size, LAST_WEEK - first + 1)
    baseline, past, current = (np.ascontiguousarray(values[name][order].reshape(shape)) for name in COLUMNS[3:])
    return Draws(scenario[begins], rep[begins], first, baseline, past, current)


def _check_weeks(
    file: FileColumns,
    order: IntArray,
    begins: IntArray,
    scenario: IntArray,
    rep: IntArray,
    week: IntArray,
    first: int,
) -> None:
    """Every series has each week from `first` to 624 once; the rows come in order of series and week."""
    begin = np.zeros(len(week), dtype=np.bool_)
    begin[begins] = True
    ends = np.append(begins[1:], len(week)) - 1
    expected = np.where(begin, first, np.concatenate([[0], week[:-1]]) + 1)
    wrong = week != expected
    short = np.zeros(len(week), dtype=np.bool_)
    short[ends] = week[ends] != LAST_WEEK
    if first >= SCORED_FROM:
        file.refuse(int(order[0]), f"week: the earliest is {first}; weeks before {SCORED_FROM} are needed as history")
    if not (wrong | short).any():
        return
    at = int((wrong | short).argmax())
    series = f"scenario {scenario[at]}, rep {rep[at]}"
    if wrong[at] and not begin[at] and week[at] == week[at - 1]:
        file.refuse(int(order[at]), f"week: {series} has week {week[at]} twice; leave one out")
    if wrong[at]:
        file.refuse(int(order[at]), f"week: {series} has no week {expected[at]}; every series needs weeks {first} to "
                    f"{LAST_WEEK}, with 0 where there is no case")  # fmt: skip
    file.refuse(int(order[at]), f"week: {series} ends with week {week[at]}; every series goes on to {LAST_WEEK}")


def write_draws(path: Path, draws: Draws) -> int:
    """Write series as ``.csv`` or ``.parquet``, so that :func:`read_draws` gives them back; returns the rows.

    Raises
    ------
    SeriesError
        If the name ends otherwise.
    OutputError
        If the file cannot be written.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise SeriesError(f"{path}: name it .csv or .parquet, so that the format is clear")
    weeks = len(draws.weeks)
    table = pa.table(
        {
            "scenario": np.repeat(draws.scenario, weeks),
            "rep": np.repeat(draws.rep, weeks),
            "week": np.tile(draws.weeks, len(draws)),
            "baseline": draws.baseline.ravel(),
            "past": draws.past.ravel(),
            "current": draws.current.ravel(),
        }
    )
    with explained(path), replacing(path) as name:
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, name)
        else:
            pq.write_table(table, name, compression="zstd")
    return int(table.num_rows)
