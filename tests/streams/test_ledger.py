"""The ledger against the rule in plain Python: what counts at each tick, what is known, what a correction replaces."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ledger import LEDGER_TYPES, Ledger, winners

IDS = st.integers(0, 5) | st.sampled_from([2**63, 2**64 - 1])
SHARDS = (0, 7, 63)
Report = tuple[int, int, int, int, int, int]
"""Event, revision, shard, arrival, origin, offset."""


def rows(reports: list[Report]) -> dict[str, Any]:
    """Reports as the ledger's columns, all live."""
    columns = {name: np.zeros(len(reports), dtype) for name, dtype in LEDGER_TYPES.items()}
    for at, name in enumerate(("event", "revision", "shard")):
        columns[name] = np.array([report[at] for report in reports], LEDGER_TYPES[name])
    columns["live"][:] = True
    return columns


def plain(events: list[int]) -> list[Report]:
    return [(event, 0, 0, 0, 0, 0) for event in events]


def identity(reports: list[Report]) -> tuple[Any, Any, Any]:
    columns = rows(reports)
    return columns["event"], columns["revision"], columns["shard"]


class ByHand:
    """The rule, one report at a time."""

    def __init__(self) -> None:
        self.first: dict[tuple[int, int], int] = {}
        self.corrected: dict[int, tuple[int, int]] = {}
        self.size = 0

    def known(self, event: int, revision: int, shard: int) -> bool:
        held = self.corrected.get(event, (0, 0))[0]
        return revision <= held if revision or held else (event, shard) in self.first

    def tick(self, reports: list[Report]) -> list[Report]:
        """The reports of one tick that count, by event and shard."""
        best: dict[tuple[int, int], Report] = {}
        corrected = {report[0] for report in reports if report[1]}
        for report in sorted(reports, key=lambda report: (-report[1], *report[3:])):
            event, revision, shard = report[:3]
            if (revision or event not in corrected) and not self.known(event, revision, shard):
                best.setdefault((event, -1 if revision else shard), report)
        won = [best[key] for key in sorted(best)]
        for event, revision, shard, *_ in won:
            if revision:
                self.corrected[event] = (revision, self.size)
            else:
                self.first[event, shard] = self.size
            self.size += 1
        return won

    def replaced(self, event: int) -> set[int]:
        """The rows that a new correction of an id takes back: its first reports and its last correction."""
        last = {self.corrected[event][1]} if event in self.corrected else set()
        return last | {row for (held, _), row in self.first.items() if held == event}


reports = st.tuples(IDS, st.integers(0, 3), st.sampled_from(SHARDS), st.integers(0, 2), st.integers(0, 1))


@given(st.lists(st.lists(reports, min_size=1, max_size=20), max_size=12), st.randoms())
def test_what_counts_at_each_tick_is_what_the_rule_says_in_any_order_of_rows(
    ticks: list[list[tuple[int, int, int, int, int]]], rng: random.Random
) -> None:
    ledger, by_hand = Ledger(), ByHand()
    for tick, drawn in enumerate(ticks):
        table: list[Report] = [(*report, offset) for offset, report in enumerate(drawn)]
        expected = by_hand.tick(table)
        rng.shuffle(table)
        event, revision, shard = identity(table)
        tie = {
            name: np.array([row[at] for row in table]) for name, at in (("arrival", 3), ("origin", 4), ("offset", 5))
        }
        best = winners(event, revision, shard, tie)
        best = best[~ledger.known(event[best], revision[best], shard[best])]
        won = [table[at] for at in best.tolist()]
        assert won == expected
        ledger.append(tick, rows(won))
    asked = [(e, r, s, 0, 0, 0) for e in (*range(7), 2**63, 2**64 - 1) for r in range(5) for s in SHARDS]
    assert ledger.known(*identity(asked)).tolist() == [by_hand.known(*report[:3]) for report in asked]
    for event in range(6):
        found = ledger.replaced(np.array([event], np.uint64)).tolist()
        assert len(found) == len(set(found))
        assert set(found) == by_hand.replaced(event)


@given(st.lists(st.lists(st.integers(0, 40), unique=True, max_size=9), min_size=1, max_size=9), st.data())
def test_killed_rows_are_dead_and_no_others(batches: list[list[int]], data: st.DataObject) -> None:
    ledger = Ledger()
    for batch in batches:
        ledger.append(0, rows(plain(batch)))
    dead = data.draw(st.sets(st.integers(0, max(len(ledger) - 1, 0)), max_size=len(ledger)))
    ledger.kill(np.array(sorted(dead), np.int64))
    assert np.flatnonzero(~ledger["live"]).tolist() == sorted(dead)


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(-1, 12))
def test_rows_since_a_tick_are_those_folded_at_it_or_later(steps: list[int], since: int) -> None:
    ledger, tick, ticks = Ledger(), 0, list[int]()
    for n, step in enumerate(steps):
        tick += step
        ticks.append(tick)
        ledger.append(tick, rows(plain([n])))
    expected = [n for n, tick in enumerate(ticks) if tick >= since]
    assert ledger["event"][ledger.since(since)].tolist() == expected
    assert ledger.first_tick == (ticks[0] if ticks else None)


NUMBERS = st.integers(-1, 40) | st.sampled_from([127, 128, 32_767, 32_768, 2**31 - 1])


@given(st.lists(st.lists(st.tuples(NUMBERS, st.integers(0, 2**62)), max_size=5), max_size=6), st.integers(0, 7))
def test_numbers_come_back_whatever_came_before_and_after_them(
    batches: list[list[tuple[int, int]]], forgotten: int
) -> None:
    ledger, held = Ledger(), list[tuple[int, int]]()
    for tick, batch in enumerate(batches):
        columns = rows(plain(list(range(len(held), len(held) + len(batch)))))
        for name in ("leaf", "day", "trace"):
            columns[name][:] = [number for number, _ in batch]
        for name in ("n", "x", "offset"):
            columns[name][:] = [number for _, number in batch]
        ledger.append(tick, columns)
        held += batch
    held = held[ledger.drop_before(forgotten) :]
    every = np.arange(len(held))
    for at, names in enumerate((("leaf", "day", "trace"), ("n", "x", "offset"))):
        for name in names:
            assert ledger.at(name, every).tolist() == ledger[name].tolist() == [numbers[at] for numbers in held]
            assert ledger.at(name, every).dtype == LEDGER_TYPES[name]


def test_small_numbers_take_a_byte_each_and_one_that_is_large_widens_its_column() -> None:
    ledger = Ledger()
    ledger.append(0, rows(plain(list(range(1_000)))))
    others = len(LEDGER_TYPES) - 1
    assert sum(ledger[name].itemsize for name in LEDGER_TYPES) == 8 + others
    columns = rows(plain([1_000]))
    columns["n"][:] = 40_000
    ledger.append(0, columns)
    assert ledger["n"].dtype == np.int32
    assert sum(ledger[name].itemsize for name in LEDGER_TYPES) == 8 + others + 3


@pytest.mark.parametrize("expected", [0, 5_000, 100_000])
def test_tens_of_thousands_of_ids_are_found_through_every_growth(expected: int) -> None:
    rng = np.random.default_rng(3)
    ledger, held = Ledger(), dict[int, int]()
    ledger.append(0, rows(plain([30_500])))
    held[30_500] = 0
    ledger.expect(expected)
    for size in rng.integers(1, 3_000, 40).tolist():
        batch = [event for event in np.unique(rng.integers(0, 30_000, size)).tolist() if event not in held]
        held |= {event: len(ledger) + at for at, event in enumerate(batch)}
        ledger.append(0, rows(plain(batch)))
    asked = list(range(31_000))
    assert ledger.known(*identity(plain(asked))).tolist() == [event in held for event in asked]
    assert sorted(ledger.replaced(np.array(asked, np.uint64)).tolist()) == sorted(held.values())


@pytest.mark.parametrize("spread", [1, 0x9E3779B97F4A7C15])
def test_ids_are_found_and_forgotten_whether_or_not_they_look_like_hashes(spread: int) -> None:
    rng = np.random.default_rng(4)
    ledger, held, made = Ledger(), list[int](), 0

    def ids(count: int) -> list[int]:
        return [(made + at) * spread % 2**64 for at in range(count)]

    for tick, size in enumerate(rng.integers(1, 4_000, 30).tolist()):
        batch = ids(size)
        held, made = held + batch, made + size
        ledger.append(tick, rows(plain(batch)))
        if tick % 12 == 11:
            gone = ledger.drop_before(tick - 5)
            expected = [False] * gone + [True] * (len(held) - gone) + [False] * 5_000
            assert ledger.known(*identity(plain(held + ids(5_000)))).tolist() == expected
            held = held[gone:]
            assert np.sort(ledger.replaced(np.array(held, np.uint64))).tolist() == list(range(len(held)))


@given(st.lists(st.lists(reports, min_size=1, max_size=12), min_size=1, max_size=8), st.integers(0, 8))
def test_what_was_forgotten_counts_again_and_nothing_else(
    ticks: list[list[tuple[int, int, int, int, int]]], kept_from: int
) -> None:
    ledger, by_hand, after = Ledger(), ByHand(), ByHand()
    for tick, drawn in enumerate(ticks):
        won = by_hand.tick([(*report, offset) for offset, report in enumerate(drawn)])
        ledger.append(tick, rows(won))
        if tick >= kept_from:
            for event, revision, shard, *_ in won:
                if revision:
                    after.corrected[event] = (revision, after.size)
                else:
                    after.first[event, shard] = after.size
                after.size += 1
    ledger.drop_before(kept_from)
    assert len(ledger) == after.size
    asked = [(e, r, s, 0, 0, 0) for e in (*range(7), 2**63, 2**64 - 1) for r in range(5) for s in SHARDS]
    assert ledger.known(*identity(asked)).tolist() == [after.known(*report[:3]) for report in asked]
    for event in (*range(6), 2**63):
        assert set(ledger.replaced(np.array([event], np.uint64)).tolist()) == after.replaced(event)


def test_an_id_that_is_reported_and_corrected_without_end_is_found_no_slower() -> None:
    ledger = Ledger()
    ledger.append(0, rows([(1, 0, shard, 0, 0, 0) for shard in range(256)]))
    ledger.append(0, rows([(1, revision, 0, 0, 0, 0) for revision in range(1, 5_000)]))
    ledger.append(0, rows(plain([2])))
    assert ledger.known(*identity([(1, 4_998, 0, 0, 0, 0), (1, 5_000, 0, 0, 0, 0), (2, 0, 0, 0, 0, 0)])).tolist() == (
        [True, False, True]
    )
    assert sorted(ledger.replaced(np.array([1], np.uint64)).tolist()) == [*range(256), 256 + 4_998]


def test_a_plain_report_costs_tens_of_bytes() -> None:
    ledger = Ledger()
    ledger.append(0, rows(plain(list(range(100_000)))))
    assert ledger.nbytes < 95 * 100_000
