"""The events behind evidence: who contributes to it, how severe they are, and where in the raw topics they lie.

The adverse rows of the ledger are noted as they come, so that few of its rows are ever looked at twice. Those that are
live are looked through once for all cells of an indicator, from the first day of the widest window; by their leaves
they then fall to the cells, and each cell keeps those of its own window. What they say is only told anew where they
are others than the last time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.alerts import Contributor, SourceRange
from streams.columns import INDICATORS
from streams.finding import Finding
from streams.judge_sums import pieces
from streams.ledger import Ledger
from streams.radix import order_of
from streams.state import AssessState
from streams.ticks import Calendar

__all__ = ["AdverseRows", "Behind", "events_behind"]

_ROLES: Final = ("lab", "producer", "batch", "gtin")
_LISTED: Final = 10
_TOGETHER: Final = 1_024
"""Cells whose events are held together."""
_CELLS_REMEMBERED: Final = 4_096
_LONGEST_REMEMBERED: Final = 256 * np.dtype(np.intp).itemsize
"""Bytes of the numbers of 256 rows."""
_PASS: Final = INDICATORS.index("pass")
_KNOWN_TRACES: Final = 4_096
_trace: Final = msgspec.json.Decoder(list[str | None])
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


@dataclass(slots=True)
class Behind:
    """What the events of a cell's window say; ``severities`` counts the adverse ones by severity, 0 to 4."""

    rows: int = 0
    products: int = 0
    regions: int = 0
    severities: tuple[int, ...] = (0,) * 5
    gravest: int = 0
    contributors: list[Contributor] = field(default_factory=list)
    sources: list[SourceRange] = field(default_factory=list)


class Adverse(NamedTuple):
    """Rows of a ledger with their leaves and days, which lie far apart there."""

    rows: Rows
    leaf: npt.NDArray[np.int32]
    day: npt.NDArray[np.int32]

    def take(self, some: npt.NDArray[Any]) -> Adverse:
        """The rows at some places, or where a mask is true."""
        return Adverse(self.rows[some], self.leaf[some], self.day[some])


class AdverseRows:
    """Which rows of a ledger, live or dead, are adverse events of one indicator, and what was told of cells' events.

    Most cells with findings have had them for many ticks, and no new event lies behind them. What some rows of the
    ledger say never changes while they have their numbers, so it is told once.
    """

    def __init__(self, ledger: Ledger, indicator: int) -> None:
        self._ledger = ledger
        self.indicator = indicator
        self._rows, self._leaf, self._day = (np.zeros(0, np.int32) for _ in range(3))
        self._seen = 0
        self._first: int | None = None
        """Tick of the ledger's first row: whole ticks are dropped, and then the others move up."""
        self._told: dict[int, tuple[bytes, Behind]] = {}
        """By cell, the rows that were told of last and what they said; no one may change that."""

    def of_leaves(self, start: int, first: int, wanted: npt.NDArray[np.bool_]) -> Adverse:
        """The adverse rows from one on, ascending, of days from one on and of the leaves ``wanted`` [leaves]."""
        self._go_on()
        begin = self._rows.searchsorted(start)
        leaf, day = self._leaf[begin:], self._day[begin:]
        hit = np.flatnonzero(wanted[leaf] & (day >= first))
        return Adverse(self._rows[begin:][hit].astype(np.intp), leaf[hit], day[hit])

    def recalled(self, cell: int, rows: bytes) -> Behind | None:
        """What was told of a cell when these rows lay behind it, if they were the last that did."""
        held = self._told.get(cell)
        return held[1] if held is not None and held[0] == rows else None

    def remember(self, cell: int, rows: bytes, behind: Behind) -> None:
        """Hold on to what was told of a cell. What many events say changes with nearly every tick."""
        if len(rows) > _LONGEST_REMEMBERED:
            return
        if len(self._told) >= _CELLS_REMEMBERED:
            self._told.clear()
        self._told[cell] = rows, behind

    def _go_on(self) -> None:
        ledger = self._ledger
        first = ledger.first_tick
        if first != self._first:
            self._first, self._seen = first, 0
            self._rows, self._leaf, self._day = self._rows[:0], self._leaf[:0], self._day[:0]
            self._told.clear()
        hit = ledger["indicator"][self._seen :] == self.indicator
        if self.indicator == _PASS:
            hit &= ledger["x"][self._seen :] > 0
        fresh = np.flatnonzero(hit) + self._seen
        self._rows = np.concatenate([self._rows, fresh.astype(np.int32)])
        self._leaf = np.concatenate([self._leaf, ledger.at("leaf", fresh)])
        self._day = np.concatenate([self._day, ledger.at("day", fresh)])
        self._seen = len(ledger)


def events_behind(
    state: AssessState, adverse: AdverseRows, calendar: Calendar, findings: Sequence[Finding], day: int
) -> list[Behind]:
    """The events of each finding's window and cell, in the order of the findings."""
    if not findings:
        return []
    first = np.array([day - finding.window_days + 1 for finding in findings], np.int64)
    # An event counts on the day of its report, and cannot have arrived (much) earlier.
    days, place = np.unique(first, return_inverse=True)
    starts = [state.ledger.since(calendar.first_tick_of_day(one - 1)).start for one in days.tolist()]
    since = np.array(starts, np.intp)[place]
    under = [state.leaves_under(adverse.indicator, finding.row) for finding in findings]
    sizes = np.array([len(one) for one in under], np.intp)
    leaves = np.fromiter(chain.from_iterable(under), np.intp, int(sizes.sum()))
    adverse_rows = _by_leaf(state, adverse, int(since.min()), int(days[0]), leaves)
    ends = [0, *np.cumsum(sizes).tolist()]
    found: list[Behind] = []
    for part in pieces(len(findings), _TOGETHER):
        cell = np.repeat(np.arange(part.stop - part.start), sizes[part])
        own = leaves[ends[part.start] : ends[part.stop]]
        of, mine = _of_cells(adverse_rows, cell, own, first[part], since[part])
        found += _recalled_or_told(state, adverse, [one.row for one in findings[part]], of, mine)
    return found


def _by_leaf(state: AssessState, adverse: AdverseRows, start: int, first: int, leaves: Rows) -> Adverse:
    """Those adverse rows from one on that are live, of some leaves and of days from one on; in order of the leaves."""
    wanted = np.zeros(len(state.leaves), np.bool_)
    wanted[leaves] = True
    found = adverse.of_leaves(start, first, wanted)
    found = found.take(state.ledger["live"][found.rows])
    return found.take(order_of(found.leaf))


def _of_cells(found: Adverse, cell: Rows, leaf: Rows, first: Ints, since: Rows) -> tuple[Rows, Rows]:
    """The rows of some cells' windows, cell after cell, and the cell of each; from the rows of all, by leaf, and pairs
    of a cell and a leaf of it."""
    start = np.searchsorted(found.leaf, leaf)
    times = np.searchsorted(found.leaf, leaf, side="right") - start
    of = np.repeat(cell, times)
    at = np.repeat(start - (np.cumsum(times) - times), times) + np.arange(len(of))
    mine = found.rows[at]
    inside = (mine >= since[of]) & (found.day[at] >= first[of])
    return of[inside], mine[inside]


def _recalled_or_told(
    state: AssessState, adverse: AdverseRows, cells: Sequence[int], of: Rows, mine: Rows
) -> list[Behind]:
    """What the rows of each cell say, looked at only where they are others than when it was last told."""
    ends = np.searchsorted(of, np.arange(len(cells) + 1)).tolist()
    keys = [mine[low:high].tobytes() for low, high in pairwise(ends)]
    found = [adverse.recalled(cell, key) for cell, key in zip(cells, keys, strict=True)]
    unknown = np.array([one is None for one in found])
    at = np.flatnonzero(unknown[of])
    told = iter(_told(state, int(unknown.sum()), (np.cumsum(unknown) - 1)[of[at]], mine[at]))
    out: list[Behind] = []
    for cell, key, behind in zip(cells, keys, found, strict=True):
        if behind is None:
            behind = next(told)
            adverse.remember(cell, key, behind)
        out.append(behind)
    return out


def _told(state: AssessState, count: int, of: Rows, mine: Rows) -> list[Behind]:
    """What the events of so many cells say: the rows ``mine``, cell after cell and leaf after leaf, of the cells
    ``of``."""
    told = [Behind(rows=size) for size in np.bincount(of, minlength=count).tolist()]
    if not len(mine):
        return told
    ledger = state.ledger
    x, severity, leaf = (ledger.at(name, mine) for name in ("x", "severity", "leaf"))
    severities, gravest = np.zeros((count, 5), np.int64), np.zeros(count, np.int64)
    np.add.at(severities, (of, severity), x)
    np.maximum.at(gravest, of, severity)
    for behind, by_severity, most in zip(told, severities.tolist(), gravest.tolist(), strict=True):
        behind.severities, behind.gravest = tuple(by_severity), most
    touched = np.flatnonzero((np.diff(of, prepend=-1) != 0) | (np.diff(leaf, prepend=-1) != 0))
    _count_places(state, told, of[touched], leaf[touched])
    _name_contributors(state, told, of, ledger.at("trace", mine), x)
    _name_sources(state, told, of, ledger.at("origin", mine), ledger.at("offset", mine))
    return told


def _count_places(state: AssessState, told: list[Behind], cell: Rows, leaf: Rows) -> None:
    """Products and regions that events lie in, from pairs of cell and leaf with events, in order of the cells."""
    bounds = np.searchsorted(cell, np.arange(len(told) + 1)).tolist()
    numbers = leaf.tolist()
    for behind, (low, high) in zip(told, pairwise(bounds), strict=True):
        leaves = [state.leaves[number] for number in numbers[low:high]]
        behind.products, behind.regions = len({one.product for one in leaves}), len({one.region for one in leaves})


def _name_contributors(state: AssessState, told: list[Behind], of: Rows, trace: npt.NDArray[Any], x: Ints) -> None:
    """Who the adverse events come from: of each role the most frequent, ties by code."""
    some = np.flatnonzero(trace >= 0)
    distinct, place = np.unique(trace[some], return_inverse=True)
    traces = [_codes_in(state.traces[number]) for number in distinct.tolist()]
    codes = sorted({code for one in traces for code in one if code})
    number = {code: at for at, code in enumerate(codes)}
    for role in _ROLES:  # one after the other: so they come in their order
        column = _ROLES.index(role)
        coded = np.array([number.get(one[column] or "", -1) for one in traces], np.int64)[place]
        if not (coded >= 0).any():
            continue
        named = some[coded >= 0]
        keys, which = np.unique(of[named] * len(codes) + coded[coded >= 0], return_inverse=True)
        adverse = np.zeros(len(keys), np.int64)
        np.add.at(adverse, which, x[named])
        cell, code = np.divmod(keys, max(len(codes), 1))
        order = np.lexsort((code, -adverse, cell))
        cell, code, adverse = cell[order], code[order], adverse[order]
        listed = np.flatnonzero(np.arange(len(cell)) - np.searchsorted(cell, cell) < _LISTED)
        for at, name, events in zip(*(one[listed].tolist() for one in (cell, code, adverse)), strict=True):
            told[at].contributors.append(Contributor(role=role, code=codes[name], adverse=events))


@lru_cache(maxsize=_KNOWN_TRACES)
def _codes_in(trace: str) -> tuple[str | None, ...]:
    """The code of each role."""
    return tuple(_trace.decode(trace))


def _name_sources(state: AssessState, told: list[Behind], of: Rows, origin: npt.NDArray[Any], offset: Ints) -> None:
    """Where the events lie, by topic and partition."""
    order = sorted(range(len(state.origins)), key=state.origins.__getitem__)
    rank = np.argsort(order)
    keys = of * len(order) + rank[origin]
    by_key = np.argsort(keys, kind="stable")
    keys, offset = keys[by_key], offset[by_key]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    events = np.diff(starts, append=len(keys))
    least, most = np.minimum.reduceat(offset, starts), np.maximum.reduceat(offset, starts)
    cell, place = np.divmod(keys[starts], len(order))
    columns = (one.tolist() for one in (cell, place, least, most, events))
    for at, where, low, high, count in zip(*columns, strict=True):
        topic, partition = state.origins[order[where]]
        told[at].sources.append(
            SourceRange(topic=topic, partition=partition, first_offset=low, last_offset=high, events=count)
        )
