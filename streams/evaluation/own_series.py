"""A reader's own series, scored row by row by one detector, to be checked against his own tool.

The file is CSV or Parquet. Of counts it has the column ``count`` (or ``cases``, ``observed``); of pass rates ``tested``
and ``failed`` (or ``positives``). ``date`` (2024-03-18) or ``week`` (2024-W12, or a number) gives the order; without
either the rows are taken as they stand. A column ``series`` holds the names of several series.

Row t is judged by what came before it and by itself alone, as in a live run.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from detectors.errors import DetectorError
from detectors.evidence import BoolArray, FloatArray, IntArray
from schemas.errors import TocsinError
from streams.evaluation.methods import METHODS
from streams.evaluation.own_judges import RATE_DETECTORS, Judge, RateSettings, judge_of
from streams.evaluation.series_file import FileColumns, SeriesError, read_file, whole_numbers

__all__ = ["Scored", "detector_names", "score_series"]

COUNT_COLUMNS: Final = ("count", "cases", "observed")
FAILED_COLUMNS: Final = ("failed", "positives")
MAX_ROWS: Final = 1_000_000
MAX_WEEKS: Final = 20_000
WEEK_FREE: Final = ("ears-", "predictive")
"""Detectors that take any period; all others know a year of 52 weeks."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a detector says of every row, ``[row]``, series after series, each in order of time.

    Attributes
    ----------
    series, when
        Name of the series, and what the file calls the time of the row; names are empty where there are none.
    place
        Line of a CSV, number of the row of a Parquet file.
    observed, tested
        Events (or failures); items tested, None for counts.
    expected, threshold
        Events expected; the most that raise no alarm (of a CUSUM the statistic's limit). NaN where there is none.
    p_value
        NaN where the detector has none.
    score
        Of counts (observed - expected) / (threshold - expected), of pass rates log(p) / log(alpha), of a CUSUM the
        statistic over its limit: an alarm is about 1 or more.
    alarm, defined
        ``defined`` is False where the detector has too little to speak.
    """

    series: list[str]
    when: list[str]
    place: IntArray
    observed: FloatArray
    tested: FloatArray | None
    expected: FloatArray
    threshold: FloatArray
    p_value: FloatArray
    score: FloatArray
    alarm: BoolArray
    defined: BoolArray


def detector_names() -> list[str]:
    """Names that ``--detector`` takes."""
    return [name for name, method in METHODS.items() if method.detector is not None] + list(RATE_DETECTORS)


def score_series(
    path: str | Path,
    detector: str,
    *,
    alpha: float | None = None,
    rates: RateSettings | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Scored:
    """Score every row of a file.

    Parameters
    ----------
    path
        The file.
    detector
        One of :func:`detector_names`.
    alpha
        Level; the detector's own by default (0.05 for pass rates against a target).
    rates
        Options of the pass-rate detectors.
    advance
        Told of progress: rows of time done, and all there are.

    Raises
    ------
    SeriesError
        If the file is not fit for the detector.
    TocsinError
        If there is no such detector, or an option is missing.
    """
    names = detector_names()
    if detector not in names:
        raise TocsinError(f"no detector is called {detector!r}; there are {', '.join(names)}")
    of_rates = detector in RATE_DETECTORS
    wanted = ("series", "date", "week", "tested", *FAILED_COLUMNS, *COUNT_COLUMNS)
    file = read_file(path, wanted, max_rows=MAX_ROWS)
    observed, tested = _values(file, detector, of_rates)
    series, labels, ordinal, dated = _names_and_times(file)
    order = np.lexsort((np.arange(len(series)), ordinal, _codes(series)))
    blocks = np.split(order, np.flatnonzero(np.diff(_codes(series)[order])) + 1)
    free = of_rates or detector.startswith(WEEK_FREE)
    for block in blocks:
        _check_times(file, block, labels, ordinal, equal_steps=not of_rates, weeks=dated and not free)
    try:
        found = _by_length(blocks, observed, tested, judge_of(detector, alpha, rates or RateSettings()), advance)
    except DetectorError as error:
        raise TocsinError(f"{detector}: {error}") from None
    return Scored(
        series=[series[row] for row in order.tolist()],
        when=[labels[row] for row in order.tolist()],
        place=file.places[order],
        observed=observed[order],
        tested=None if tested is None else tested[order],
        **{name: values[order] for name, values in found.items()},
    )


# --- the file -----------------------------------------------------------------------------------------------


def _values(file: FileColumns, detector: str, of_rates: bool) -> tuple[FloatArray, FloatArray | None]:
    """Events (or failures), and items tested."""
    if not of_rates:
        column = _one_of(file, COUNT_COLUMNS, detector)
        return whole_numbers(file, column).astype(np.float64), None
    failed = whole_numbers(file, column := _one_of(file, FAILED_COLUMNS, detector))
    tested = whole_numbers(file, _one_of(file, ("tested",), detector))
    if (failed > tested).any():
        row = int((failed > tested).argmax())
        file.refuse(row, f"{column}: {failed[row]:,} of {tested[row]:,} tested; it cannot be more than were tested")
    return failed.astype(np.float64), tested.astype(np.float64)


def _one_of(file: FileColumns, names: tuple[str, ...], detector: str) -> str:
    found = [name for name in names if name in file.columns]
    if len(found) == 1:
        return found[0]
    if found:
        raise SeriesError(f"{file.name}: has both columns {' and '.join(found)}; leave one out")
    kind = "pass rates: tested and failed" if detector in RATE_DETECTORS else "counts: count"
    raise SeriesError(
        f"{file.name}: has no column {' or '.join(names)} (it has {', '.join(file.header[:12])}); "
        f"{detector} needs {kind}"
    )


def _names_and_times(file: FileColumns) -> tuple[list[str], list[str], IntArray, bool]:
    """Of each row the name of its series, what its time is called, a number that orders it; and whether those numbers
    are days."""
    rows = len(file.places)
    series = [""] * rows if "series" not in file.columns else [_text(one) for one in file.columns["series"].to_pylist()]
    if "date" in file.columns and "week" in file.columns:
        raise SeriesError(f"{file.name}: has both columns date and week; leave one out")
    column = next((name for name in ("date", "week") if name in file.columns), None)
    if column is None:
        return series, [str(place) for place in file.places.tolist()], np.arange(rows), False
    times = file.columns[column]
    if pa.types.is_timestamp(times.type):
        times = times.cast(pa.date32())
    labels = [_text(one) for one in times.to_pylist()]
    dated = column == "date" or "W" in labels[0]
    ordinal = np.zeros(rows, dtype=np.int64)
    for row, label in enumerate(labels):
        try:
            ordinal[row] = _day(label) if dated else int(label)
        except (ValueError, OverflowError):
            form = "2024-03-18" if column == "date" else "2024-W12, as in the first row" if dated else "a whole number"
            file.refuse(row, f"{column}: must be {form}, found {label[:40]!r}")
    return series, labels, ordinal, dated


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _day(label: str) -> int:
    week = re.fullmatch(r"(\d{4})-?W(\d\d)", label)
    if week:
        return dt.date.fromisocalendar(int(week[1]), int(week[2]), 1).toordinal()
    return dt.date.fromisoformat(label[:10]).toordinal()


def _codes(names: list[str]) -> IntArray:
    """Numbers for names, in the order in which they first come."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64)


def _check_times(
    file: FileColumns, block: IntArray, labels: list[str], ordinal: IntArray, *, equal_steps: bool, weeks: bool
) -> None:
    """No time twice; for counts equal steps, of a week where the detector knows a year of weeks."""
    if block.size > MAX_WEEKS:
        raise SeriesError(f"{file.name}: a series has {block.size:,} rows; at most {MAX_WEEKS:,}")
    steps = np.diff(ordinal[block])
    if not steps.size:
        return
    if (steps == 0).any():
        row = int(block[int((steps == 0).argmax()) + 1])
        file.refuse(row, f"time {labels[row]} comes twice; add the rows up, or tell series apart by a column series")
    step = int(steps.min())
    if equal_steps and (steps != step).any():
        at = int((steps != step).argmax())
        file.refuse(
            int(block[at + 1]),
            f"time {labels[block[at + 1]]} follows {labels[block[at]]}, elsewhere the step is {step}"
            " (days for dates); counts need a row for every period, with 0 where nothing happened",
        )
    if weeks and step != 7:
        apart = f"the rows are {step} day{'s' * (step > 1)} apart, and this detector knows weeks"
        file.refuse(int(block[1]), f"{apart}; add up to weeks, or use --detector ears-c2 or predictive")


# --- the judging ----------------------------------------------------------------------------------------------------


def _by_length(
    blocks: list[IntArray],
    observed: FloatArray,
    tested: FloatArray | None,
    judge: Judge,
    advance: Callable[[int, int], None] | None,
) -> dict[str, npt.NDArray[Any]]:
    """Judge series of equal length together; the findings by row of the file."""
    lengths: dict[int, list[IntArray]] = {}
    for block in blocks:
        lengths.setdefault(block.size, []).append(block)
    total, before = sum(lengths), 0
    found: dict[str, npt.NDArray[Any]] = {}
    for length, same in lengths.items():
        rows = np.stack(same)

        def step(done: int, before: int = before) -> None:
            if advance is not None:
                advance(before + done, total)

        said = judge(observed[rows], None if tested is None else tested[rows], step)
        for name in ("expected", "threshold", "p_value", "score", "alarm", "defined"):
            values = getattr(said, name)
            found.setdefault(name, np.zeros(observed.shape, dtype=values.dtype))[rows] = values
        before += length
    return found
