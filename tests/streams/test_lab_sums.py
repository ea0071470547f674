"""Sums of labs that are kept: to the last bit what summing anew gives, whatever was folded, forgotten or changed."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams import lab_sums as module
from streams.lab_sums import LARGEST_EFFECT, MOST_ITEMS, LabSums, as_integers, nearest
from streams.lab_weeks import LabPairs, LabWeeks
from streams.labs import LabSheet, monday_of

Event = tuple[int, int, int, int]
"""Leaf, lab, week, tested."""
LEAVES, NAMES, WEEKS = 7, 4, 9
EVENTS = st.lists(
    st.tuples(st.integers(0, LEAVES - 1), st.integers(0, NAMES - 1), st.integers(0, WEEKS), st.integers(-3, 60)),
    min_size=1,
    max_size=12,
)
EFFECTS = st.lists(st.floats(-3, 3).map(lambda value: round(value, 4)), min_size=NAMES, max_size=NAMES)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fold"), EVENTS),
        st.tuples(st.just("fold"), EVENTS.map(lambda some: [(*one[:3], one[3] * 2**29) for one in some])),
        st.tuples(st.just("effects"), EFFECTS),
        st.tuples(st.just("effects"), st.just([8.0, -7.5, 0.1, 0.0])),
        st.tuples(st.just("expire"), st.integers(0, 5)),
        st.tuples(st.just("restart"), st.none()),
    ),
    min_size=1,
    max_size=12,
)


def group_of(leaf: int) -> str:
    return f"G{leaf % 3}"


class Both:
    """A sheet, and the same by dictionaries; effects, of every second leaf, are taken up as from a progress row."""

    def __init__(self) -> None:
        self.sheet = LabSheet()
        self.effects = [0.0] * NAMES
        self.tested: Counter[tuple[int, int, int]] = Counter()
        self.oldest = -1
        self.fold([(leaf, 0, 0, 0) for leaf in range(3)])  # a leaf of each group: others may come later

    def fold(self, events: list[Event]) -> None:
        leaves, labs, weeks, tested = np.array(events, np.int64).T
        days = np.array([monday_of(week) + at % 7 for at, week in enumerate(weeks.tolist())], np.int32)
        values = np.stack([tested * 0, tested], axis=1)
        self.sheet.fold(group_of, leaves.astype(np.int32), labs.astype(np.int32), days, values)
        for leaf, lab, week, items in events:
            if week >= self.oldest:
                self.tested[leaf, lab, week] += items

    def take_up_effects(self, effects: list[float]) -> None:
        self.effects = effects
        labs = list(range(NAMES))
        self.sheet.unpack([(group_of(leaf), [leaf] * NAMES, labs, effects) for leaf in range(0, LEAVES, 2)])

    def expire(self, oldest: int) -> None:
        self.oldest = max(oldest, self.oldest)
        self.sheet.expire(monday_of(oldest))
        self.tested = Counter({key: items for key, items in self.tested.items() if key[2] >= self.oldest})

    def restart(self) -> None:
        leaves, labs, newest, pieces = self.sheet.stored()
        fresh, held = LabSheet(), list(pieces)
        fresh.take_up_rows([group_of(leaf) for leaf in leaves.tolist()], leaves.tolist(), labs.tolist())
        fresh.take_up_newest(newest)
        fresh.unpack(self.sheet.pack())
        if self.oldest >= 0:
            fresh.expire(monday_of(self.oldest))
        every = [list(range(LEAVES))]
        for piece in held:  # what was asked for before a piece came is not what it is with it
            fresh.severities(every, monday_of(0), monday_of(WEEKS))
            fresh.take_up(piece)
        self.sheet = fresh

    def severity(self, leaves: list[int], first: int, last: int) -> float:
        items, found = 0, []
        for leaf in leaves:
            for lab in range(NAMES):
                tested = sum(self.tested[leaf, lab, week] for week in range(first, last + 1))
                if tested > 0:
                    items += tested
                    found.append(float(tested * np.exp(0.0 if leaf % 2 else self.effects[lab])))
        return math.fsum(found) / items if items else 1.0


@pytest.mark.parametrize("waiting", [0, 5, 16_384])
@settings(max_examples=60)
@given(STEPS, st.lists(st.tuples(st.integers(0, WEEKS), st.integers(0, 4)), min_size=1, max_size=3), st.data())
def test_what_is_kept_is_what_summing_anew_gives(
    waiting: int, steps: list[tuple[str, object]], asked: list[tuple[int, int]], data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MOST_WAITING", waiting)
        compare(steps, asked, data)


def compare(steps: list[tuple[str, object]], asked: list[tuple[int, int]], data: st.DataObject) -> None:
    """Fold, forget and ask, in any order."""
    both = Both()
    both.take_up_effects([0.3, -0.2, 1.5, 0.0])
    for name, value in steps:
        if name == "restart":
            both.restart()
        else:
            {"fold": both.fold, "effects": both.take_up_effects, "expire": both.expire}[name](value)  # type: ignore[operator]
        cells = data.draw(st.lists(st.lists(st.integers(0, LEAVES - 1), unique=True), max_size=4))
        for first, more in asked:
            found = both.sheet.severities(cells, monday_of(first), monday_of(first + more) + 6).tolist()
            assert found == [both.severity(leaves, first, first + more) for leaves in cells]


@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), st.floats(-LARGEST_EFFECT, LARGEST_EFFECT)), min_size=1, max_size=40
    )
)  # fmt: skip
def test_integers_say_exactly_what_the_floats_say(rows: list[tuple[int, float]]) -> None:
    items, effects = np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows])
    found = as_integers(items, effects)
    plain = (items * np.exp(effects)).tolist()
    for (_, high, low), value in zip(found.tolist(), plain, strict=True):
        assert Fraction(high * 2**34 + low, 2**60) == Fraction(value)
    _, high, low = found.sum(axis=0).tolist()
    assert nearest(high, low) == math.fsum(plain)


def test_as_much_as_may_be_does_not_overflow() -> None:
    most = as_integers(np.array([MOST_ITEMS]), np.array([LARGEST_EFFECT]))[0, 1]
    assert 2**62 < most < 2**63 - 1
    lows = [as_integers(np.array([1]), np.array([effect]))[0, 2] for effect in np.linspace(-5.5, 5.5, 1_001)]
    assert max(lows) * MOST_ITEMS < 2**63


@pytest.mark.parametrize(("items", "effect"), [(1, 5.6), (1, -5.6), (MOST_ITEMS + 1, 0.0), (2**62, 300.0)])
def test_what_does_not_fit_says_so(items: int, effect: float) -> None:
    assert as_integers(np.array([items]), np.array([effect])).tolist() == [[MOST_ITEMS + 1, 0, 0]]
    assert as_integers(np.array([MOST_ITEMS]), np.array([0.0])).tolist() == [[MOST_ITEMS, MOST_ITEMS << 26, 0]]


def test_leaves_are_worked_out_once_until_too_much_changes_and_few_stretches_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 2)
    pairs, weeks = LabPairs(), LabWeeks()
    sums = LabSums(pairs, weeks, lambda some: np.zeros(len(some)))
    anew: list[list[int]] = []
    plain = LabPairs.of_leaves
    monkeypatch.setattr(LabPairs, "of_leaves", lambda self, some: anew.append(some.tolist()) or plain(self, some))

    def fold(leaves: list[int], week: int, items: int) -> None:
        some, where = np.array(leaves, np.int32), np.full(len(leaves), week, np.int32)
        numbers = pairs.numbers(group_of, some, some * 0)
        weeks.fold(numbers, where, np.array([[0, items]] * len(leaves)))
        sums.change(some, numbers, where, np.full(len(leaves), items))

    def items(*leaves: int, first: int = 3) -> list[int]:
        return [row[0] for row in sums.of(np.array(leaves, np.int64), first, 5).tolist()]

    fold([1, 4, 9], 4, 7)
    assert items(4, 1, 4, 9) == items(4, 1, 4, 9) == [7, 7, 7, 7]
    assert anew == [[1, 4, 9]]
    fold([1, 4], 5, 2)
    fold([2, 3, 70], 5, 2)  # nobody has asked for these
    assert (items(4, 9), items(1)) == ([9, 7], [9])
    assert anew == [[1, 4, 9]]
    fold([1, 4], 3, 1)
    fold([9], 3, 1)
    assert items(4, 9, 1) == [10, 8, 10]
    assert anew == [[1, 4, 9], [1, 4, 9]]
    for first in range(module._STRETCHES):
        assert items(1, first=-first) == [10]
        held = sums.nbytes
    assert items(1, first=-module._STRETCHES) == [10]
    assert sums.nbytes == held
    assert items(1) == [10]
    assert len(anew) == 4 + module._STRETCHES


def test_numbers_of_any_size_have_their_mean() -> None:
    both = Both()
    both.take_up_effects([8.0, 1.0, 0.0, 0.0])
    both.fold([(0, 0, 1, 3), (2, 1, 1, 2**40), (4, 1, 1, 5)])
    for leaves in ([0], [2], [4], [0, 2, 4]):
        assert both.sheet.severities([leaves], monday_of(1), monday_of(1)).tolist() == [both.severity(leaves, 1, 1)]
