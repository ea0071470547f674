"""What one assess partition remembers: the ledger of events, the cells folded from it, and who is active.

State is the ledger; cells are folded from it and never stored. A *segment* is the rows that one checkpoint added, in
the same packed form in which events travel; restoring folds the segments in order. So the state after a restart is
the state before it, to the last bit, by the very code that built it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.cells import CellStore
from streams.columns import INDICATORS, NOTE, WITHDRAWN, EventColumns, concatenate
from streams.decode import EventDecoder
from streams.intake import shard_of
from streams.labs import LabSheet
from streams.leaves import Leaf, LeafIndex
from streams.ledger import Ledger, winners
from streams.names import OVERFLOW, Names
from streams.radix import order_of, starts_of
from streams.tally import Activity

__all__ = ["OVERFLOW", "AssessState", "Folded"]

_SPARSE = 16
"""With up to so many places for an event, all of them are gone through rather than the events sorted."""
_MANY_CODES = 100_000
"""So many product codes are remembered with their shards; strangers may think of more."""
_CHANGE = ("indicator", "leaf", "day", "reporter", "n", "x")
_FIELDS = {"pass": 2, "injury": 1, "complaint": 1, "accident": 1, "satisfaction": 2, "loss": 2}


@dataclass(slots=True)
class Folded:
    """What one tick changed: the cells touched (by indicator), duplicates, and grave alerts that no longer stand."""

    dirty: dict[str, npt.NDArray[np.intp]]
    rows: EventColumns
    duplicates: int
    withdrawn_graves: list[tuple[str, int, int]] = field(default_factory=list)


class AssessState:
    """Ledger and cells of one assess partition."""

    def __init__(self, decoder: EventDecoder, max_codes_per_shard: int) -> None:
        self._decoder = decoder
        self._bound = max_codes_per_shard
        self._codes: dict[int, set[tuple[str, str]]] = {}
        self.stores = {name: CellStore(_FIELDS[name]) for name in INDICATORS}
        self.ledger = Ledger()
        self.labs = LabSheet()
        self.activity = Activity()
        self.reporters: list[str] = []
        self.hazards: list[str] = []
        self.names = {
            "reporter": Names(max_codes_per_shard, self.reporters),
            "hazard": Names(max_codes_per_shard, self.hazards),
        }
        self.traces: list[str] = []
        self._trace_of: dict[str, int] = {}
        self.origins: list[tuple[str, int]] = []
        self._origin_of: dict[tuple[str, int], int] = {}
        self._leaf_of: dict[tuple[int, str, str], int] = {}
        self.leaves: list[Leaf] = []
        self._index = LeafIndex()
        self._shard_of: dict[str, int] = {}
        self._under: dict[tuple[int, int], list[int]] = {}
        self._graves: dict[int, tuple[str, int]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes in arrays (dictionaries of codes apart)."""
        return self.ledger.nbytes + self.labs.nbytes + sum(store.nbytes for store in self.stores.values())

    def leaves_under(self, indicator: int, row: int) -> list[int]:
        """Numbers of the leaves that a cell sums."""
        return self._under[indicator, row]

    def known(self, rows: EventColumns) -> npt.NDArray[np.bool_]:
        """Which rows add nothing to what is held: held already, or superseded by a correction."""
        return self.ledger.known(rows["event"], rows["revision"], self._shards(rows))

    def fold_tick(self, tick: int, parts: list[EventColumns], *, stored: bool = True) -> Folded:
        """Fold all events of one tick at once; the result depends on their set alone. Rows that will be ``stored`` get
        dictionaries of their own."""
        batch = concatenate([part for part in parts if len(part)])
        event, revision, shard = batch["event"], batch["revision"], self._shards(batch)
        tie = {
            "arrival": batch["arrival"],
            "origin": self._origin_ranks(batch),
            "offset": batch["offset"],
        }
        best = winners(event, revision, shard, tie)
        best = best[~self.ledger.known(event[best], revision[best], shard[best])]
        rows = batch.take(best)
        if stored or sum(map(len, rows.tables.values())) > len(rows):
            rows = rows.trimmed()
        folded = self.apply(tick, rows, shards=shard[best])
        folded.duplicates = int((batch["flags"] & NOTE == 0).sum()) - int((rows["flags"] & NOTE == 0).sum())
        folded.withdrawn_graves += self._losing_graves(batch, best)
        folded.withdrawn_graves.sort()
        return folded

    def apply(
        self, tick: int, rows: EventColumns, *, counted: bool = False, shards: npt.NDArray[np.uint8] | None = None
    ) -> Folded:
        """Fold winning rows of one tick (also used to restore a segment).

        ``counted`` where the counts have come back by themselves (:mod:`streams.base`): then only the ledger, and who
        is active, learns of the rows. ``shards`` are theirs, where they are known.
        """
        shards = self._shards(rows) if shards is None else shards
        old = self.ledger.replaced(rows["event"][rows["revision"] > 0])
        withdrawn = self._drop_graves(old)
        content = (rows["flags"] & (NOTE | WITHDRAWN)) == 0
        entries = {
            **{name: rows[name] for name in ("event", "revision", "indicator", "severity", "day", "offset")},
            "shard": shards,
            "live": content,
            "leaf": self._leaves(rows),
            "n": np.where(content, rows["n"], 0),
            "x": np.where(content, rows["x"], 0),
            "origin": self._recode_origins(rows),
            "trace": self._recode(rows, "trace", rows.traces, self.traces, self._trace_of),
            "reporter": self.names["reporter"].recode(shards, rows["reporter"], rows.reporters),
            "hazard": self.names["hazard"].recode(shards, rows["hazard"], rows.hazards),
        }
        back = None if counted else self._taken_back(old)  # told from what is live before it is killed
        self._note_pairs(tick, old, entries, content)
        at = np.flatnonzero(content)
        if len(rows):
            self.activity.report(tick, entries["indicator"][at], entries["reporter"][at], rows["delay"][at])
        self.ledger.kill(old)
        for grave in rows.graves:
            if content[grave.row]:
                self._graves[len(self.ledger) + grave.row] = (grave.alert_id, grave.level)
        self.ledger.append(tick, entries)
        if back is None:
            return Folded({}, rows, 0, withdrawn)
        # Whole columns where all is news and nothing is taken back: the rule.
        come: Any = slice(None) if len(at) == len(rows) else at
        merged = {name: entries[name][come] for name in _CHANGE}
        if len(back["n"]):
            merged = {name: np.concatenate([back[name], some]) for name, some in merged.items()}
        self._fold_labs(merged)
        return Folded(self._fold_cells(merged), rows, 0, withdrawn)

    def expire(self, tick: int, day: int) -> None:
        """Forget the events that arrived before a tick, and the counts of days before ``day``."""
        gone = self.ledger.drop_before(tick)
        for store in self.stores.values():
            store.expire(day)
        self.labs.expire(day)
        if not gone:
            return
        self._graves = {row - gone: grave for row, grave in self._graves.items() if row >= gone}
        used = np.unique(self.ledger["trace"]).astype(np.int32)
        used = used[used >= 0]
        table = np.full(len(self.traces), -1, np.int32)
        table[used] = np.arange(len(used))
        self.ledger.renumber("trace", table)
        self.traces = [self.traces[number] for number in used.tolist()]
        self._trace_of = {text: number for number, text in enumerate(self.traces)}

    def _shards(self, rows: EventColumns) -> npt.NDArray[np.uint8]:
        """Shard of each row's product branch."""
        known = self._shard_of
        if len(known) > _MANY_CODES:
            known.clear()
        for code in rows.products:
            if code not in known:
                known[code] = shard_of(self._decoder.branch(code))
        table = np.array([known[code] for code in rows.products] or [0], np.uint8)
        return np.asarray(table[rows["product"]], np.uint8)

    def _taken_back(self, at: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """What superseded rows had added, with the sign turned."""
        at = at[self.ledger["live"][at]] if len(at) else at
        taken = {name: self.ledger.at(name, at) for name in _CHANGE}
        return {**taken, "n": -taken["n"], "x": -taken["x"]}

    def _fold_labs(self, changes: dict[str, npt.NDArray[Any]]) -> None:
        tests = changes["indicator"] == INDICATORS.index("pass")
        if tests.any():
            mine: Any = slice(None) if tests.all() else tests
            values = np.stack([changes["x"][mine], changes["n"][mine]], axis=1)
            leaves, labs, days = (changes[name][mine] for name in ("leaf", "reporter", "day"))
            self.labs.fold(lambda leaf: self.leaves[leaf].group, leaves, labs, days, values)

    def _note_pairs(
        self,
        tick: int,
        old: npt.NDArray[np.int64],
        entries: dict[str, npt.NDArray[Any]],
        content: npt.NDArray[np.bool_],
    ) -> None:
        """Tell which pairs of product and kind of injury have a report more or less."""
        gone = old[self.ledger["live"][old] & (self.ledger["hazard"][old] >= 0)] if len(old) else old
        come = np.flatnonzero(content & (entries["hazard"] >= 0))
        for change, leaves, hazards in (
            (-1, self.ledger.at("leaf", gone), self.ledger.at("hazard", gone)),
            (1, entries["leaf"][come], entries["hazard"][come]),
        ):
            if not len(leaves):
                continue
            pairs, reports = np.unique(leaves.astype(np.int64) << 32 | hazards, return_counts=True)
            for pair, count in zip(pairs.tolist(), reports.tolist(), strict=True):
                product, hazard = self.leaves[pair >> 32].product, self.hazards[pair & 0xFFFFFFFF]
                self.activity.pair(tick, product, hazard, change * count)

    def _fold_cells(self, changes: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[np.intp]]:
        dirty: dict[str, npt.NDArray[np.intp]] = {}
        numbers = np.flatnonzero(np.bincount(changes["indicator"])).tolist()
        for number in numbers:
            name = INDICATORS[number]
            store = self.stores[name]
            mine: Any = slice(None) if len(numbers) == 1 else changes["indicator"] == number
            fields = ("x",) if _FIELDS[name] == 1 else ("x", "n")
            leaves, days, sums = _daily(
                changes["leaf"][mine], changes["day"][mine], [changes[field][mine] for field in fields]
            )
            first = starts_of(leaves)  # days ascend within a leaf
            for branch, day in self._index.first_days(leaves[first], days[first]):
                store.note_day(branch, day)
            rows, times = self._index.reach(leaves)
            store.fold(rows, np.repeat(days, times), np.repeat(sums, times, axis=0))
            touched = np.zeros(len(store), np.bool_)
            touched[rows] = True
            dirty[name] = np.flatnonzero(touched)
        return dirty

    def _leaves(self, rows: EventColumns) -> npt.NDArray[np.int32]:
        """Leaf number of each row; leaves are made in the order of their codes, so numbering never shows."""
        note = (rows["flags"] & NOTE) != 0  # it has no leaf: its content lives in another partition
        if not note.any():
            return self._leaves_of(rows)
        out = np.full(len(rows), -1, np.int32)
        content = np.flatnonzero(~note)
        if len(content):
            out[content] = self._leaves_of(rows.take(content))
        return out

    def _leaves_of(self, rows: EventColumns) -> npt.NDArray[np.int32]:
        """Of rows with content."""
        numbers = self._index.find(rows)
        missing = np.flatnonzero(numbers < 0)
        if len(missing):
            columns = (rows[name][missing].tolist() for name in ("indicator", "product", "region"))
            keys = [(ind, rows.products[p], rows.regions[r]) for ind, p, r in zip(*columns, strict=True)]
            made = {key: self._leaf(*key) for key in sorted(set(keys))}
            numbers[missing] = [made[key] for key in keys]
        return numbers

    def _leaf(self, indicator: int, product: str, region: str) -> int:
        path, where = self._bounded(*self._decoder.paths(product, region))
        leaf = self._leaf_of.get((indicator, path[-1], where[-1]))
        if leaf is None:
            leaf = self._make_leaf(indicator, path, where)
        return leaf

    def _make_leaf(self, indicator: int, path: tuple[str, ...], where: tuple[str, ...]) -> int:
        rows = self.stores[INDICATORS[indicator]].rows_for(path, where)
        leaf = self._leaf_of[indicator, path[-1], where[-1]] = len(self.leaves)
        made = np.array(rows, np.intp)
        self.leaves.append(Leaf(path[-1], where[-1], path[:2][-1], len(where), made, indicator, (path, where)))
        self._index.add(self.leaves[-1])
        for row in rows:
            self._under.setdefault((indicator, row), []).append(leaf)
        return leaf

    def take_up_leaf(self, indicator: int, path: tuple[str, ...], where: tuple[str, ...]) -> None:
        """Make a stored leaf; they must come in the order of their numbers."""
        self._make_leaf(indicator, path, where)
        if self._decoder.is_open and where[-1] != OVERFLOW:
            self._codes.setdefault(shard_of(path[0]), set()).update(_codes_of(path, where))

    def _bounded(self, path: tuple[str, ...], where: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Codes beyond the shard's bound count under a common leaf, so that strangers cannot fill the memory."""
        if not self._decoder.is_open:
            return path, where
        shard = shard_of(path[0])
        codes = self._codes.setdefault(shard, set())
        known = _codes_of(path, where)
        if known <= codes:
            return path, where
        if len(codes) + len(known - codes) > self._bound:
            branch = path[0] if (path[0], "") in codes else f"{OVERFLOW}{shard}"
            widest = where[0] if ("", where[0]) in codes else OVERFLOW
            return (branch, f"{branch}/{OVERFLOW}"), (widest, OVERFLOW)
        codes |= known
        return path, where

    def _origin_ranks(self, batch: EventColumns) -> npt.NDArray[np.int64]:
        order = {origin: rank for rank, origin in enumerate(sorted(batch.origins))}
        ranks = np.array([order[origin] for origin in batch.origins] or [0], np.int64)
        return np.asarray(ranks[batch["origin"]], np.int64)

    def _recode_origins(self, rows: EventColumns) -> npt.NDArray[np.int16]:
        for origin in rows.origins:
            if origin not in self._origin_of:
                self._origin_of[origin] = len(self.origins)
                self.origins.append(origin)
        table = np.array([self._origin_of[origin] for origin in rows.origins] or [0], np.int16)
        return np.asarray(table[rows["origin"]], np.int16)

    @staticmethod
    def _recode(
        rows: EventColumns, column: str, table: list[str], held: list[str], place: dict[str, int]
    ) -> npt.NDArray[np.int32]:
        """Numbers of a column's texts in this state's own table; -1 stays."""
        for text in table:
            if text not in place:
                place[text] = len(held)
                held.append(text)
        numbers = np.array([place[text] for text in table] or [0], np.int32)
        return np.asarray(np.where(rows[column] >= 0, numbers[np.maximum(rows[column], 0)], -1), np.int32)

    def _losing_graves(self, batch: EventColumns, best: npt.NDArray[np.intp]) -> list[tuple[str, int, int]]:
        """The grave reports of a batch that do not count; a copy of one that does takes nothing back."""
        if not batch.graves:
            return []
        won, standing = set(best.tolist()), {alert_id for alert_id, _ in self._graves.values()}
        lost = [grave for grave in batch.graves if grave.row not in won and grave.alert_id not in standing]
        return [(grave.alert_id, grave.level, int(batch["indicator"][grave.row])) for grave in lost]

    def _drop_graves(self, at: npt.NDArray[np.int64]) -> list[tuple[str, int, int]]:
        if not self._graves:
            return []
        gone = [int(row) for row in at.tolist() if int(row) in self._graves]
        return [(*self._graves.pop(row), int(self.ledger["indicator"][row])) for row in gone]


def _daily(
    leaves: npt.NDArray[np.int32], days: npt.NDArray[np.int32], fields: list[npt.NDArray[np.int64]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Sums of each field by leaf and day, [sums, fields], in their order: for what lies above a leaf is then added up
    once for all of its events of a day."""
    first = int(days.min())
    span = int(days.max()) - first + 1
    keys = leaves.astype(np.int64) * span + (days - first)
    size = (int(leaves.max()) + 1) * span
    if size <= _SPARSE * len(keys):
        there = np.zeros(size, np.bool_)
        there[keys] = True
        distinct = np.flatnonzero(there)
        sums = np.zeros((len(fields), size), np.int64)
        for whole, field in zip(sums, fields, strict=True):
            np.add.at(whole, keys, field)
        values = sums[:, distinct].T
    else:  # few events in many leaves, or days far apart
        order = order_of(keys)
        ordered = keys[order]
        starts = starts_of(ordered)
        distinct = ordered[starts]
        values = np.stack([np.add.reduceat(field[order], starts) for field in fields], axis=1)
    return distinct // span, (distinct % span + first).astype(np.int32), values


def _codes_of(path: tuple[str, ...], where: tuple[str, ...]) -> set[tuple[str, str]]:
    """What a leaf takes of its shard's room: its codes, and the pair of them."""
    return {(code, "") for code in path} | {("", code) for code in where} | {(path[-1], where[-1])}
