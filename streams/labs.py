"""How the labs judge: what each has tested and failed in every leaf cell (product x region), week by week.

Every second Monday (by default) the labs are compared (:mod:`detectors.lab_drift`) within groups of products that may
change as one: with their own past, and with their peers on the same cells. What is found of a lab in a group goes to
escalate, which adds up all groups; how severe the labs are is kept until the next time, so that cells can be judged net
of their labs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from detectors.lab_drift import DriftParts, drift_parts
from detectors.lab_effects import LabFit, fit_labs
from detectors.lab_rows import LabRows, lab_rows
from streams.cells import BlockPiece, CellStore
from streams.config import LabRules
from streams.tally import LabCount

__all__ = ["Effects", "LabSheet", "monday_of", "week_of"]

Ints = npt.NDArray[np.int64]
Effects = list[tuple[str, list[int], list[int], list[float]]]
"""Of each group: leaves, labs, log odds ratios."""
_WEEK = 7
_TO_MONDAY = 3


def week_of(day: int) -> int:
    """Number of a day's calendar week (Monday first; day 0 of the epoch is a Thursday)."""
    return (day + _TO_MONDAY) // _WEEK


def monday_of(week: int) -> int:
    """The local day with which a calendar week begins."""
    return week * _WEEK - _TO_MONDAY


class LabSheet:
    """Tests of one assess partition by leaf cell, lab and week, and the labs' effects as of the last comparison."""

    def __init__(self) -> None:
        self._store = CellStore(2)
        self._row: dict[tuple[int, int], int] = {}
        self._keys: list[tuple[int, int]] = []
        self._group: list[str] = []
        self._in: dict[str, list[int]] = {}
        self._of_leaf: dict[int, list[int]] = {}
        self._newest: dict[str, int] = {}
        self._effects: dict[str, dict[tuple[int, int], float]] = {}
        self._packed: Effects | None = None

    @property
    def nbytes(self) -> int:
        return self._store.nbytes

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
        # A report without a lab has the number -1.
        pairs, place = np.unique(leaves.astype(np.int64) << 32 | (labs.astype(np.int64) + 1), return_inverse=True)
        keys = [(pair >> 32, (pair & 0xFFFFFFFF) - 1) for pair in pairs.tolist()]
        for group, key in sorted((group_of(key[0]), key) for key in keys if key not in self._row):
            self._add(group, key)
        newest = np.full(len(keys), weeks.min())
        np.maximum.at(newest, place, weeks)
        for key, week in zip(keys, newest.tolist(), strict=True):
            group = group_of(key[0])
            self._newest[group] = max(self._newest.get(group, week), week)
        rows = np.array([self._row[key] for key in keys], np.intp)[place]
        self._store.fold(rows, weeks.astype(np.int32), values)

    def expire(self, before_day: int) -> None:
        """Forget the weeks that lie wholly before a day."""
        self._store.expire(week_of(before_day))

    def stored(self) -> tuple[Ints, Ints, dict[str, int], Iterator[BlockPiece]]:
        """Leaf and lab of every row in order, the newest week of every group, and the counts."""
        keys = np.array(self._keys, np.int64).reshape(-1, 2)
        return keys[:, 0], keys[:, 1], dict(sorted(self._newest.items())), self._store.pieces()

    def take_up_rows(self, groups: Sequence[str], leaves: Iterable[int], labs: Iterable[int]) -> None:
        """Make the rows of a stored sheet, numbered as they were."""
        for group, leaf, lab in zip(groups, leaves, labs, strict=True):
            self._add(group, (leaf, lab))

    def take_up_newest(self, newest: Mapping[str, int]) -> None:
        self._newest.update(newest)

    def take_up(self, piece: BlockPiece) -> None:
        """Take up stored counts."""
        self._store.take_up(piece)

    def _add(self, group: str, key: tuple[int, int]) -> None:
        row = self._row[key] = self._store.row_in(group, (str(key[0]), str(key[1])))
        self._keys.append(key)
        self._group.append(group)
        self._in.setdefault(group, []).append(row)
        self._of_leaf.setdefault(key[0], []).append(row)

    def watched(self, monday: int, rules: LabRules) -> bool:
        """Whether on that Monday there will be recent tests to compare."""
        first = week_of(monday) - rules.window_weeks
        return any(newest >= first for newest in self._newest.values())

    def compare(self, monday: int, rules: LabRules, names: Sequence[str]) -> list[LabCount]:
        """Compare the labs of every group that has recent tests, as of the end of the week before a Monday; ``names``
        are the labs' by number."""
        last = week_of(monday) - 1
        groups: list[str] = []
        rows: list[npt.NDArray[np.intp]] = []
        sums: list[Ints] = []
        for group in sorted(self._in):
            mine = np.array(self._in[group], np.intp)
            weekly = np.maximum(self._store.daily(mine, last, rules.window_weeks + rules.history_weeks), 0)
            recent, past = weekly[:, -rules.window_weeks :].sum(axis=1), weekly[:, : -rules.window_weeks].sum(axis=1)
            if recent[:, 1].any():
                groups.append(group)
                rows.append(mine)
                sums.append(np.stack([recent, past], axis=1))
        if not groups:
            return []
        number = np.repeat(np.arange(len(groups)), [len(mine) for mine in rows])
        return self._judge(groups, np.concatenate(rows), number, np.concatenate(sums), names)

    def _judge(
        self, groups: list[str], rows: npt.NDArray[np.intp], number: Ints, sums: Ints, names: Sequence[str]
    ) -> list[LabCount]:
        leaf, lab = np.array([self._keys[row] for row in rows.tolist()], np.int64).T
        # Sums run in the order of the labs, and a lab's number tells which branches lie in this partition: so by name.
        labs = np.array(sorted(set(lab.tolist()), key=names.__getitem__), np.int64)
        rank = np.zeros(int(labs.max()) + 1, np.int64)
        rank[labs] = np.arange(len(labs))
        tested = sums[:, :, 1].reshape(-1)
        some = np.flatnonzero(tested > 0)
        recent = np.tile([True, False], len(rows))[some]
        table = lab_rows(
            np.repeat(rank[lab], 2)[some],
            np.repeat(leaf, 2)[some],
            tested[some],
            np.minimum(sums[:, :, 0].reshape(-1), tested)[some],
            branch=np.repeat(number, 2)[some],
        )
        for group, effects in zip(groups, _pair_effects(table, fit_labs(table), labs), strict=True):
            self._effects[group] = effects
        self._packed = None
        parts, defined = drift_parts(table, recent)
        return _counts(parts, np.flatnonzero(defined).tolist(), table, groups, [names[lab] for lab in labs.tolist()])

    def severity(self, leaves: Iterable[int], first_day: int, last_day: int) -> float:
        """How many times the failures of its peers the labs find that tested some leaf cells, in the weeks from one day
        through another: the mean over the items tested, 1 where nothing is known."""
        rows = np.array([row for leaf in leaves for row in self._of_leaf.get(leaf, ())], np.intp)
        if not len(rows) or not self._effects:
            return 1.0
        last = week_of(last_day)
        tested = self._store.daily(rows, last, last - week_of(first_day) + 1)[:, :, 1].sum(axis=1)
        some = np.flatnonzero(tested > 0)
        if not len(some):
            return 1.0
        factors = np.exp([self._effect(row) for row in rows[some].tolist()])
        # fsum, for the order of the rows depends on what else the partition holds, and the sum must not.
        return math.fsum((tested[some] * factors).tolist()) / int(tested[some].sum())

    def _effect(self, row: int) -> float:
        return self._effects.get(self._group[row], {}).get(self._keys[row], 0.0)

    def pack(self) -> Effects:
        """The effects, for the progress row: what was folded comes back with the ledger. Every checkpoint asks for
        them, and only a comparison changes them."""
        if self._packed is None:
            ordered = [(group, sorted(held.items())) for group, held in sorted(self._effects.items())]
            self._packed = [
                (group, [key[0] for key, _ in rows], [key[1] for key, _ in rows], [value for _, value in rows])
                for group, rows in ordered
            ]
        return self._packed

    def unpack(self, effects: Effects) -> None:
        """Take up packed effects."""
        for group, leaves, labs, values in effects:
            self._effects[group] = dict(zip(zip(leaves, labs, strict=True), values, strict=True))
        self._packed = None


def _pair_effects(table: LabRows, fit: LabFit, numbers: Ints) -> list[dict[tuple[int, int], float]]:
    """Effects of every group's labs by leaf cell, each taken from the lab's other cells; the table's labs are places in
    ``numbers``."""
    out: list[dict[tuple[int, int], float]] = [{} for _ in table.branch]
    groups = table.lab_branch[table.pair_lab].tolist()
    leaves, labs = table.stratum[table.pair_stratum].tolist(), numbers[table.lab[table.pair_lab]].tolist()
    for group, leaf, lab, effect in zip(groups, leaves, labs, np.round(fit.pair_log_odds, 4).tolist(), strict=True):
        if effect:
            out[group][leaf, lab] = effect
    return out


def _counts(
    parts: DriftParts, at: list[int], table: LabRows, groups: list[str], names: Sequence[str]
) -> list[LabCount]:
    counts = [
        LabCount(
            groups[int(table.branch[table.lab_branch[lab]])],
            names[int(table.lab[lab])],
            int(parts.tested[lab]),
            int(parts.failed[lab]),
            *(
                float(column[lab])
                for column in (
                    parts.own, parts.own_variance, parts.peers, parts.peers_variance, parts.both, parts.both_variance,
                )
            ),
        )
        for lab in at
    ]  # fmt: skip
    return sorted(counts, key=lambda one: (one.group, one.lab))
