"""How the labs judge: what each has tested and failed in every leaf cell (product x region), week by week.

Every second Monday (by default) the labs are compared (:mod:`detectors.lab_drift`) within groups of products that may
change as one: with their own past, and with their peers on the same cells. What is found of a lab in a group goes to
escalate, which adds up all groups; how severe the labs are is kept until the next time, so that cells can be judged net
of their labs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import numpy.typing as npt

from detectors.lab_drift import DriftParts, drift_parts
from detectors.lab_effects import pair_effects
from detectors.lab_rows import LabRows, lab_rows
from streams.cells import BlockPiece
from streams.config import LabRules
from streams.lab_sums import MOST_ITEMS, LabSums, nearest
from streams.lab_weeks import LabPairs, LabWeeks
from streams.radix import order_of
from streams.tally import LabCount

__all__ = ["Effects", "LabSheet", "monday_of", "week_of"]

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Places = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]
Effects = list[tuple[str, list[int], list[int], list[float]]]
"""Of each group: leaves, labs, log odds ratios."""
_WEEK = 7
_TO_MONDAY = 3
_NEVER = -(2**62)
_FEW_WEEKS = 4
"""So many are gone through one by one: mostly a tick brings tests of one."""
PART_ROWS = 50_000
"""Groups are compared together up to this many sums of pairs: few enough that their arrays stay near the processor,
many enough that calls cost little."""


def week_of(day: int) -> int:
    """Number of a day's calendar week (Monday first; day 0 of the epoch is a Thursday)."""
    return (day + _TO_MONDAY) // _WEEK


def monday_of(week: int) -> int:
    """The local day with which a calendar week begins."""
    return week * _WEEK - _TO_MONDAY


class LabSheet:
    """Tests of one assess partition by leaf cell, lab and week, and the labs' effects as of the last comparison."""

    def __init__(self) -> None:
        self._pairs = LabPairs()
        self._weeks = LabWeeks()
        self._newest = np.zeros(0, np.int64)
        """The newest week of every group, by its number."""
        self._compared: set[str] = set()
        self._effect = np.zeros(0)
        """Of every pair; beyond its end there are none."""
        self._sums = LabSums(self._pairs, self._weeks, self._effects_of)
        self._packed: Effects | None = None

    @property
    def nbytes(self) -> int:
        held = self._pairs, self._weeks, self._newest, self._effect, self._sums
        return sum(one.nbytes for one in held)

    def fold(
        self,
        group_of: Callable[[int], str],
        leaves: npt.NDArray[np.int32],
        labs: npt.NDArray[np.int32],
        days: npt.NDArray[np.int32],
        values: Ints,
    ) -> None:
        """Add (failed, tested) ``values`` [rows, 2] of leaves (numbers), labs (numbers) and local days; ``group_of``
        tells a leaf's group."""
        weeks = (days + _TO_MONDAY) // _WEEK
        pairs = self._pairs.numbers(group_of, leaves, labs)
        self._note_newest(self._pairs.group_of(leaves), weeks)
        kept = self._weeks.fold(pairs, weeks, values)
        self._sums.change(leaves[kept], pairs[kept], weeks[kept], values[kept, 1])

    def _note_newest(self, groups: Numbers, weeks: npt.NDArray[np.int32]) -> None:
        """Note the newest week of each group among some rows."""
        newest = self._room_for_groups()
        first, last = int(weeks.min()), int(weeks.max())
        if last - first < _FEW_WEEKS:  # a week after the other, so that the last one stands
            for week in range(first, last + 1):
                there = np.flatnonzero(np.bincount(groups[weeks == week] if first < last else groups))
                newest[there] = np.maximum(newest[there], week)
        else:
            np.maximum.at(newest, groups.astype(np.intp), weeks.astype(np.int64))

    def _room_for_groups(self) -> Ints:
        new = len(self._pairs.groups) - len(self._newest)
        if new:
            self._newest = np.concatenate([self._newest, np.full(new, _NEVER)])
        return self._newest

    def expire(self, before_day: int) -> None:
        """Forget the weeks that lie wholly before a day; what comes for them later is passed over."""
        if self._weeks.expire(week_of(before_day)):
            self._sums.forget()

    def stored(self) -> tuple[Numbers, Numbers, dict[str, int], Iterator[BlockPiece]]:
        """Leaf and lab of every pair in order, the newest week of every group, and the counts."""
        newest = sorted(zip(self._pairs.groups, self._newest.tolist(), strict=True))
        return self._pairs.leaf, self._pairs.lab, dict(newest), self._weeks.pieces(len(self._pairs))

    def take_up_rows(self, groups: Sequence[str], leaves: Sequence[int], labs: Sequence[int]) -> None:
        """Make the pairs of a stored sheet, numbered as they were."""
        self._pairs.add(groups, leaves, labs)

    def take_up_newest(self, newest: Mapping[str, int]) -> None:
        numbers = [self._pairs.group(group) for group in newest]
        self._room_for_groups()[numbers] = list(newest.values())

    def take_up(self, piece: BlockPiece) -> None:
        """Take up stored counts."""
        self._weeks.take_up(piece)
        self._sums.forget()

    def watched(self, monday: int, rules: LabRules) -> bool:
        """Whether on that Monday there will be recent tests to compare."""
        return int(self._newest.max(initial=_NEVER)) >= week_of(monday) - rules.window_weeks

    # --- the comparison --------------------------------------------------------------------------------------------

    def compare(self, monday: int, rules: LabRules, names: Sequence[str]) -> list[LabCount]:
        """Compare the labs of every group that has recent tests, as of the end of the week before a Monday; ``names``
        are the labs' by number."""
        end = week_of(monday)
        middle = end - rules.window_weeks
        recent = self._weeks.totals(middle, end - 1, len(self._pairs))
        past = self._weeks.totals(middle - rules.history_weeks, middle - 1, len(self._pairs))
        group = self._pairs.group_of(self._pairs.leaf)
        groups = sorted(np.unique(group[recent[1] > 0]).tolist(), key=self._pairs.groups.__getitem__)
        if not groups:
            return []
        number = np.full(len(self._pairs.groups), -1)
        number[groups] = np.arange(len(groups))
        failed, tested = (np.concatenate(columns) for columns in zip(recent, past, strict=True))
        some = np.flatnonzero((tested > 0) & (np.tile(number[group], 2) >= 0))
        pairs, lately = some % len(self._pairs), some < len(self._pairs)
        lab = self._pairs.lab[pairs]
        # Sums run in the order of the labs, and a lab's number tells which branches lie in this partition: so by name.
        labs = np.array(sorted(np.unique(lab).tolist(), key=names.__getitem__))
        rank = np.zeros(int(labs.max()) + 1, np.int64)
        rank[labs] = np.arange(len(labs))
        rows = _Rows(
            pairs, self._pairs.leaf[pairs], rank[lab], number[group[pairs]],
            tested[some], np.minimum(failed, tested)[some], lately,
        )  # fmt: skip
        self._forget_effects(group, groups)
        named = [self._pairs.groups[number] for number in groups]
        by_rank = [names[lab] for lab in labs.tolist()]
        counts = [one for part in rows.parts() for one in self._judge(part, rules, named, by_rank)]
        return sorted(counts, key=lambda one: (one.group, one.lab))

    def _judge(self, rows: _Rows, rules: LabRules, groups: Sequence[str], labs: Sequence[str]) -> Iterator[LabCount]:
        """Work out the effects of some groups, and what is to be told of their labs; names are by rank."""
        table = rows.table() if rules.adjust else None
        if table is not None:  # else nobody asks for the effects
            self._note_effects(table, rows.pairs)
            self._compared.update(groups[number] for number in table.branch.tolist())
        known = rows.with_past(len(groups))
        if not len(known.pairs):
            return iter(())
        if table is None or len(known.pairs) < len(rows.pairs):
            table = known.table()
        parts, defined = drift_parts(table, known.lately)
        return _counts(parts, np.flatnonzero(defined), table, groups, labs)

    # --- effects ---------------------------------------------------------------------------------------------------

    def _forget_effects(self, group: Numbers, groups: list[int]) -> None:
        self._effect = np.concatenate([self._effect, np.zeros(len(self._pairs) - len(self._effect))])
        self._effect[np.isin(group, groups)] = 0.0
        self._compared -= {self._pairs.groups[number] for number in groups}
        self._sums.forget()
        self._packed = None

    def _note_effects(self, table: LabRows, pairs: Places) -> None:
        """Keep the effects of every group's labs by leaf cell, each taken from the lab's other cells; ``pairs`` are the
        numbers of the table's rows as they were given."""
        number = np.empty(table.pair_lab.size, np.intp)
        number[table.pair_of] = pairs[table.order]
        self._effect[number] = np.round(pair_effects(table), 4)

    def severities(self, cells: Sequence[Sequence[int] | Ints], first_day: int, last_day: int) -> Floats:
        """How many times the failures of their peers the labs find that tested some leaf cells, for each of several
        sets of them, ``[cells]``: the mean over the items tested from the week of one day through that of another, 1
        where nothing is known."""
        out = np.ones(len(cells))
        if not self._compared or not len(cells):
            return out
        first, last = week_of(first_day), week_of(last_day)
        leaves = np.concatenate([np.asarray(cell, np.int64) for cell in cells])
        kept = self._sums.of(leaves, first, last)
        running = np.zeros((len(leaves) + 1, 3), np.int64)
        np.cumsum(kept, axis=0, out=running[1:])
        sums = np.diff(running[np.cumsum([0, *map(len, cells)])], axis=0)
        some = np.flatnonzero(sums[:, 0])
        for cell, (items, high, low) in zip(some.tolist(), sums[some].tolist(), strict=True):
            if items <= MOST_ITEMS:
                out[cell] = nearest(high, low) / items
            else:
                out[cell] = self._sums.severity(np.asarray(cells[cell], np.int64), first, last)
        return out

    def _effects_of(self, pairs: Numbers) -> Floats:
        held = pairs < len(self._effect)
        return np.where(held, self._effect[np.where(held, pairs, 0)], 0.0)

    def pack(self) -> Effects:
        """The effects, for the progress row: what was folded comes back with the ledger. Every checkpoint asks for
        them, and only a comparison changes them."""
        if self._packed is None:
            pairs = np.flatnonzero(self._effect)
            leaf, lab = self._pairs.leaf[pairs], self._pairs.lab[pairs]
            groups = self._pairs.group_of(leaf)
            order = np.arange(len(pairs))
            for key in (lab + 1, leaf, groups):  # by group, leaf and lab; to be without a lab is -1
                order = order.take(order_of(key.take(order)))
            columns = [column[order].tolist() for column in (leaf, lab, self._effect[pairs])]
            ends = np.searchsorted(groups[order], np.arange(len(self._pairs.groups) + 1)).tolist()
            self._packed = []
            for name in sorted(self._compared):
                number = self._pairs.group(name)
                leaves, labs, effects = (column[ends[number] : ends[number + 1]] for column in columns)
                self._packed.append((name, leaves, labs, effects))
        return self._packed

    def unpack(self, effects: Effects) -> None:
        """Take up packed effects."""
        for name, leaves, labs, values in effects:
            group_of = dict.fromkeys(leaves, name).__getitem__
            pairs = self._pairs.numbers(group_of, np.array(leaves, np.int32), np.array(labs, np.int32))
            self._effect = np.concatenate([self._effect, np.zeros(len(self._pairs) - len(self._effect))])
            self._effect[pairs] = values
            self._compared.add(name)
        self._sums.forget()
        self._packed = None


@dataclass(slots=True)
class _Rows:
    """What a pair has tested and failed, lately or before; every field is an array [rows]. Labs and groups by rank."""

    pairs: Places
    leaf: Numbers
    lab: Ints
    group: Ints
    tested: Ints
    failed: Ints
    lately: npt.NDArray[np.bool_]

    def take(self, some: npt.NDArray[np.generic]) -> _Rows:
        return _Rows(*(getattr(self, one.name)[some] for one in fields(self)))

    def parts(self) -> Iterator[_Rows]:
        """A few groups at a time, so that what a comparison touches stays small: groups are judged each by itself."""
        order = order_of(self.group)
        ends = np.cumsum(np.bincount(self.group))
        first = 0
        while first < len(order):
            # Whole groups, as many as fit, and one at least.
            last = max(ends.searchsorted(first + PART_ROWS, side="right") - 1, ends.searchsorted(first, side="right"))
            end = int(ends[last])
            yield self.take(order[first:end])
            first = end

    def table(self) -> LabRows:
        return lab_rows(self.lab, self.leaf, self.tested, self.failed, branch=self.group)

    def with_past(self, groups: int) -> _Rows:
        """The rows of the groups that have a past: of the others no drift is defined."""
        past = np.zeros(groups, np.bool_)
        past[self.group[~self.lately]] = True
        return self.take(past[self.group])


def _counts(
    parts: DriftParts, at: Places, table: LabRows, groups: Sequence[str], labs: Sequence[str]
) -> Iterator[LabCount]:
    group_of, lab_of = table.branch[table.lab_branch[at]].tolist(), table.lab[at].tolist()
    tested, failed, *rest = (part[at].tolist() for part in astuple(parts))
    for group, lab, n, x, *floats in zip(group_of, lab_of, tested, failed, *rest, strict=True):
        yield LabCount(groups[group], labs[lab], int(n), int(x), *floats)
