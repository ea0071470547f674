"""Counts of labs by pair and week against plain dictionaries, and what is stored of them."""

from __future__ import annotations

from collections import Counter
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import lab_weeks as module
from streams.cells import CellStore
from streams.lab_weeks import LabPairs, LabWeeks

Event = tuple[int, int, int, int, int]
"""Leaf, lab, week, failed, tested."""
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.integers(-1, 5),
        st.one_of(st.integers(-70, 140), st.integers(0, 1)),
        st.integers(-9, 9),
        st.integers(-9, 9),
    ),
    min_size=1,
    max_size=30,
)
BATCHES = st.lists(EVENTS, min_size=1, max_size=6)


def group_of(leaf: int) -> str:
    return f"G{leaf * 7 % 4}"


class Plain:
    """The same by dictionaries, one event at a time."""

    def __init__(self) -> None:
        self.pairs: dict[tuple[int, int], int] = {}
        self.failed: Counter[tuple[int, int]] = Counter()
        self.tested: Counter[tuple[int, int]] = Counter()

    def fold(self, events: list[Event], oldest: int) -> None:
        new = {event[:2] for event in events} - set(self.pairs)
        for pair in sorted(new, key=lambda one: (group_of(one[0]), one)):
            self.pairs[pair] = len(self.pairs)
        for leaf, lab, week, failed, tested in events:
            if week >= oldest:
                self.failed[self.pairs[leaf, lab], week] += failed
                self.tested[self.pairs[leaf, lab], week] += tested

    def totals(self, first: int, last: int) -> tuple[list[int], list[int]]:
        failed, tested = ([0] * len(self.pairs) for _ in range(2))
        for counts, out in ((self.failed, failed), (self.tested, tested)):
            for (pair, week), count in counts.items():
                if first <= week <= last:
                    out[pair] += max(count, 0)
        return failed, tested


def folded(batches: list[list[Event]], oldest: int = -1_000) -> tuple[LabPairs, LabWeeks, Plain]:
    pairs, weeks, plain = LabPairs(), LabWeeks(), Plain()
    weeks.expire(oldest)
    for events in batches:
        leaf, lab, week, failed, tested = np.array(events, np.int32).T
        weeks.fold(pairs.numbers(group_of, leaf, lab), week, np.stack([failed, tested], axis=1).astype(np.int64))
        plain.fold(events, oldest)
    return pairs, weeks, plain


FRESH = st.sampled_from([0, 5, 4_096])


@given(BATCHES, st.integers(-80, 150), st.integers(-80, 150), FRESH)
def test_pairs_and_sums_are_those_of_a_plain_loop(
    batches: list[list[Event]], first: int, last: int, fresh: int
) -> None:
    with patch.object(module, "_FRESH", fresh):
        pairs, weeks, plain = folded(batches)
    assert dict(zip(zip(pairs.leaf.tolist(), pairs.lab.tolist(), strict=True), range(len(pairs)), strict=True)) == (
        plain.pairs
    )
    assert [pairs.groups[number] for number in pairs.group_of(pairs.leaf).tolist()] == (
        [group_of(leaf) for leaf in pairs.leaf.tolist()]
    )
    every = np.arange(len(pairs), dtype=np.int32)
    by_hand = [sum(plain.tested[pair, week] for week in range(first, last + 1)) for pair in every.tolist()]
    assert weeks.tested(every, first, last).tolist() == by_hand
    failed, tested = weeks.totals(first, last, len(pairs))
    assert (failed.tolist(), tested.tolist()) == plain.totals(first, last)
    assert weeks.tested(every, first, last).tolist() == by_hand
    twice = np.repeat(every, 2)
    assert weeks.tested(twice, first, last).tolist() == np.repeat(by_hand, 2).tolist()


@given(BATCHES, st.lists(st.integers(0, 30), max_size=6), FRESH)
def test_the_pairs_of_leaves_are_found_with_the_leaf_that_each_belongs_to(
    batches: list[list[Event]], leaves: list[int], fresh: int
) -> None:
    with patch.object(module, "_FRESH", fresh):
        pairs, _, plain = folded(batches)
    found, place = pairs.of_leaves(np.array(leaves, np.int64))
    expected = [
        (at, number) for at, leaf in enumerate(leaves) for pair, number in plain.pairs.items() if pair[0] == leaf
    ]
    assert sorted(zip(place.tolist(), found.tolist(), strict=True)) == sorted(expected)
    assert place.tolist() == sorted(place.tolist())


@given(BATCHES, st.integers(-70, 140))
def test_weeks_that_are_forgotten_stay_so_and_others_are_kept(batches: list[list[Event]], oldest: int) -> None:
    pairs, weeks, plain = folded(batches, oldest)
    failed, tested = weeks.totals(-100, 200, len(pairs))
    assert (failed.tolist(), tested.tolist()) == plain.totals(-100, 200)
    _, later, _ = folded(batches)
    later.expire(oldest)
    assert [part.tolist() for part in later.totals(-100, 200, len(pairs))] == [failed.tolist(), tested.tolist()]
    assert later.nbytes <= folded(batches)[1].nbytes


@given(BATCHES)
def test_what_is_stored_has_the_form_of_a_cell_store_and_comes_back(batches: list[list[Event]]) -> None:
    pairs, weeks, plain = folded(batches)
    cells = CellStore(2)
    for leaf, lab in plain.pairs:
        cells.rows_for((str(leaf),), (str(lab),))
    for events in batches:
        rows = np.array([plain.pairs[event[:2]] for event in events], np.intp)
        columns = np.array(events, np.int64)
        cells.fold(rows, columns[:, 2].astype(np.int32), columns[:, 3:])
    pieces = list(weeks.pieces(len(pairs)))
    assert pieces == list(cells.pieces())
    again = LabWeeks()
    for piece in pieces:
        again.take_up(piece)
    for mine, theirs in zip(again.totals(-100, 200, len(pairs)), weeks.totals(-100, 200, len(pairs)), strict=True):
        assert mine.tolist() == theirs.tolist()
    assert list(again.pieces(len(pairs))) == pieces


def test_pairs_beyond_one_piece_come_back() -> None:
    pairs, weeks = LabPairs(), LabWeeks()
    leaf, lab = np.divmod(np.arange(9_000, dtype=np.int32), 7)
    values = np.stack([leaf, leaf + lab + 1], axis=1).astype(np.int64)
    for week in (63, 64, 3):
        weeks.fold(pairs.numbers(group_of, leaf, lab), np.full(9_000, week, np.int32), values)
    pieces = list(weeks.pieces(len(pairs)))
    assert [(piece.number, piece.first) for piece in pieces] == [(n, f) for n in (0, 1) for f in (0, 4_096, 8_192)]
    again = LabWeeks()
    for piece in pieces[::-1]:
        again.take_up(piece)
    for week in (63, 64, 3, 62):
        for mine, theirs in zip(again.totals(week, week, 9_000), weeks.totals(week, week, 9_000), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@given(BATCHES)
def test_pairs_of_a_stored_sheet_keep_their_numbers(batches: list[list[Event]]) -> None:
    pairs, _, plain = folded(batches)
    again = LabPairs()
    names = [group_of(leaf) for leaf in pairs.leaf.tolist()]
    for some in (slice(0, 3), slice(3, None)):
        again.add(names[some], pairs.leaf[some].tolist(), pairs.lab[some].tolist())
    assert (again.leaf.tolist(), again.lab.tolist()) == (pairs.leaf.tolist(), pairs.lab.tolist())
    numbers = again.numbers(group_of, pairs.leaf, pairs.lab)
    assert numbers.tolist() == list(range(len(plain.pairs)))


@pytest.mark.parametrize("order", [1, -1])
def test_growing_takes_memory_for_what_is_counted_only_but_in_the_weeks_that_are_open(order: int) -> None:
    weeks = LabWeeks()
    pairs = np.arange(20_000, dtype=np.int32)
    weeks.fold(pairs, np.full(20_000, 5), np.ones((20_000, 2), np.int64))
    for week in range(6, 60)[::order]:
        weeks.fold(pairs[-1:], np.array([week]), np.ones((1, 2), np.int64))
    room = 2 * 8 * len(pairs) * 9 // 8  # failed and tested of every pair, and some to spare
    assert weeks.nbytes < 21 * 20_000 + module._OPEN_WEEKS * room


@given(BATCHES, st.integers(1, 3))
def test_whether_a_week_is_open_cannot_show(batches: list[list[Event]], count: int) -> None:
    pairs, weeks, _ = folded(batches)
    with patch.object(module, "_OPEN_WEEKS", count):
        _, others, _ = folded(batches)
    every = np.arange(len(pairs), dtype=np.int32)
    for first, last in ((-100, 200), (0, 0), (1, 1)):
        for mine, theirs in zip(
            weeks.totals(first, last, len(pairs)), others.totals(first, last, len(pairs)), strict=True
        ):
            assert mine.tolist() == theirs.tolist()
        assert weeks.tested(every, first, last).tolist() == others.tested(every, first, last).tolist()
    assert list(weeks.pieces(len(pairs))) == list(others.pieces(len(pairs)))


def test_a_week_of_which_all_was_taken_back_closes_without_a_trace() -> None:
    weeks, pair = LabWeeks(), np.zeros(1, np.int32)
    for week, tested in ((1, 5), (1, -5), (2, 3), (3, 4), (1, 0)):
        weeks.fold(pair, np.array([week]), np.array([[0, tested]]))
    assert [weeks.tested(pair, week, week).tolist() for week in range(4)] == [[0], [0], [3], [4]]
    assert weeks.totals(0, 4, 1)[1].tolist() == [7]
