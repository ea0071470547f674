"""Sums over days, of many cells: what nearly every judgement begins with.

Cells are taken a few hundred at a time, so that their days pass through the processor's cache once and only the sums
are kept. A cell's day that stands below zero counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.cells import CellStore

__all__ = [
    "CACHED",
    "PIECE",
    "calendar_weeks",
    "kept_failures_back",
    "kept_peer_sums_back",
    "kept_sums_back",
    "peer_sums_back",
    "pieces",
    "sums_back",
    "weeks_back",
]

CACHED: Final = 256
"""Cells whose days, some hundreds each, stay in a processor's cache."""
_CACHED_DAYS: Final = 32_768
"""Of fewer days those of more cells do."""
PIECE: Final = 4_096
"""Cells that are judged together: enough that the cost of a call is nothing, few enough that memory stays bounded."""
_WEEK: Final = 7
_LIVELY: Final = 8
"""So many days up to the last still change all the time; sums over the days before are kept."""
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


def pieces(count: int, size: int) -> Iterator[slice]:
    """The slices of ``size`` that make up so many."""
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def sums_back(store: CellStore, rows: Rows, last_day: int, ends: Sequence[int]) -> dict[int, tuple[Ints, Ints]]:
    """For each of ``ends`` (days, ascending, from 1 on) both fields' sums [rows] over so many days up to a day."""
    out = np.empty((len(rows), len(ends), 2), np.int64)
    for part in pieces(len(rows), max(CACHED, _CACHED_DAYS // ends[-1])):
        daily = store.daily(rows[part], last_day, ends[-1])
        out[part] = _running(np.maximum(daily, 0, out=daily), ends)
    return _by_end(out, ends)


def peer_sums_back(
    store: CellStore, rows: Rows, wider: Rows, last_day: int, ends: Sequence[int]
) -> dict[int, tuple[Ints, Ints]]:
    """Like :func:`sums_back`, of what the ``wider`` rows have beyond ``rows`` day by day; 0 where it is -1."""
    out = np.zeros((len(rows), len(ends), 2), np.int64)
    nested = np.flatnonzero(wider >= 0)
    above, place = np.unique(wider[nested], return_inverse=True)
    if not len(above):
        return _by_end(out, ends)
    total = store.daily(above, last_day, ends[-1])
    for part in pieces(len(nested), max(CACHED, _CACHED_DAYS // ends[-1])):
        at = nested[part]
        own = store.daily(rows[at], last_day, ends[-1])
        rest = total[place[part]] - np.maximum(own, 0, out=own)
        out[at] = _running(np.maximum(rest, 0, out=rest), ends)
    return _by_end(out, ends)


def kept_sums_back(store: CellStore, rows: Rows, last_day: int, ends: Sequence[int]) -> dict[int, tuple[Ints, Ints]]:
    """:func:`sums_back`, of which the store keeps what lies some days back."""
    return _partly_kept(store, "sums", rows, last_day, ends, lambda at, *to: sums_back(store, rows[at], *to), None)


def kept_peer_sums_back(
    store: CellStore, rows: Rows, wider: Rows, last_day: int, ends: Sequence[int]
) -> dict[int, tuple[Ints, Ints]]:
    """:func:`peer_sums_back` of rows and the next wider ones, of which the store keeps what lies some days back."""
    above = np.where(wider >= 0, wider, rows)
    return _partly_kept(
        store, "peer sums", rows, last_day, ends, lambda at, *to: peer_sums_back(store, rows[at], wider[at], *to), above
    )


def kept_failures_back(store: CellStore, rows: Rows, last_day: int, days: int) -> Ints:
    """The first field's sum [rows] over so many days up to a day, whatever stands below zero, of which the store keeps
    what lies some days back."""
    lively = min(days, _LIVELY)
    late = _failures(store, rows, last_day, lively)
    if days == lively:
        return late
    until = last_day - lively
    table = store.kept.table(("failures", days), until, (), np.int64)
    return late + table.of(
        rows,
        lambda at: _failures(store, rows[at], until, days - lively),
        forward=lambda at, since: (
            _failures(store, rows[at], until, since) - _failures(store, rows[at], until - (days - lively), since)
        ),
    )


def weeks_back(store: CellStore, rows: Rows, last_day: int, weeks: int) -> Ints:
    """Sums [rows, weeks, fields] of seven days each, counted back from a day."""
    daily = np.maximum(store.daily(rows, last_day, weeks * _WEEK), 0)
    return _by_seven(daily, weeks)


def calendar_weeks(store: CellStore, rows: Rows, last_day: int, weeks: int) -> Ints:
    """:meth:`CellStore.weekly` of a count, [rows, weeks], some hundred cells at a time; below zero is zero."""
    sunday = last_day + (6 - (last_day + 3) % _WEEK)
    out = np.empty((len(rows), weeks), np.int64)
    for part in pieces(len(rows), CACHED):
        daily = store.daily(rows[part], sunday, weeks * _WEEK)[:, :, 0]
        out[part] = np.add.reduceat(daily, np.arange(0, weeks * _WEEK, _WEEK), axis=1)
    return np.maximum(out, 0, out=out)


def _failures(store: CellStore, rows: Rows, last_day: int, days: int) -> Ints:
    out = np.empty(len(rows), np.int64)
    for part in pieces(len(rows), PIECE):
        out[part] = store.total(rows[part], last_day, days)
    return out


def _partly_kept(
    store: CellStore,
    name: str,
    rows: Rows,
    last_day: int,
    ends: Sequence[int],
    sums: Callable[[Rows | slice, int, Sequence[int]], dict[int, tuple[Ints, Ints]]],
    others: Rows | None,
) -> dict[int, tuple[Ints, Ints]]:
    """``sums`` of places in ``rows``: over the lively days found anew, over the days before kept by the store under a
    name, and moved on with the days: what has come in is added, what has gone out is taken off. Each row's hang on that
    of ``others`` [rows] too."""
    early, until = [end - _LIVELY for end in ends if end > _LIVELY], last_day - _LIVELY
    out = sums(slice(None), last_day, sorted({min(end, _LIVELY) for end in ends}))
    if early:
        table = store.kept.table((name, *early), until, (len(early), 2), np.int64)

        def forward(at: Rows, days: int) -> Ints:
            come, *gone = (_stacked(sums(at, day, [days])) for day in (until, *(until - end for end in early)))
            return come - np.concatenate(gone, axis=1)

        settled = table.of(rows, lambda at: _stacked(sums(at, until, early)), others, forward)
        failed, tested = out[_LIVELY]
        for at, end in enumerate(early):
            out[end + _LIVELY] = failed + settled[:, at, 0], tested + settled[:, at, 1]
    return {end: out[end] for end in ends}


def _stacked(sums: dict[int, tuple[Ints, Ints]]) -> Ints:
    """Sums [rows, ends, fields]."""
    return np.stack([np.stack(fields, axis=1) for fields in sums.values()], axis=1)


def _running(daily: Ints, ends: Sequence[int]) -> Ints:
    """Sums [rows, ends, fields] over the last so many days of [rows, days, fields]."""
    starts = [daily.shape[1] - end for end in reversed(ends)]
    apart = np.add.reduceat(daily, starts, axis=1)
    return np.asarray(np.cumsum(apart[:, ::-1], axis=1), np.int64)


def _by_seven(daily: Ints, weeks: int) -> Ints:
    """Day after day of all weeks at once: many times as fast as a sum along an axis of seven."""
    days = daily.reshape(len(daily), weeks, _WEEK, daily.shape[2])
    out = days[:, :, 0].copy()
    for day in range(1, _WEEK):
        out += days[:, :, day]
    return out


def _by_end(sums: Ints, ends: Sequence[int]) -> dict[int, tuple[Ints, Ints]]:
    return {end: (sums[:, at, 0].copy(), sums[:, at, 1].copy()) for at, end in enumerate(ends)}
