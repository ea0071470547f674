"""Sums over days, as judging takes them: what plain sums of the days are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import judge_sums
from streams.cells import CellStore
from streams.judge_sums import (
    calendar_weeks,
    kept_failures_back,
    kept_peer_sums_back,
    kept_sums_back,
    peer_sums_back,
    pieces,
    sums_back,
    weeks_back,
)

FIRST, DAYS = 20_000, 150
SEEDS = st.integers(0, 2**32 - 1)


def world(seed: int, fields: int) -> tuple[CellStore, np.ndarray]:
    """A store of eight cells of two products in a city and its districts, and its days [cells, days, fields]; a few
    days stand below zero, and not every city's days are the sum of its districts'."""
    rng, store = np.random.default_rng(seed), CellStore(fields)
    for product in ("A", "B"):
        for region in ("1", "2", "3"):
            store.rows_for((product,), ("city", region))
    daily = rng.integers(-1, 6, (len(store), DAYS, fields)) * (rng.random((len(store), DAYS, 1)) < 0.4)
    for day in range(DAYS):
        store.fold(np.arange(len(store)), np.full(len(store), FIRST + day, np.int32), daily[:, day])
    return store, daily


def some_rows(seed: int, store: CellStore) -> np.ndarray:
    return np.flatnonzero(np.random.default_rng(seed).random(len(store)) < 0.7)


@pytest.fixture(autouse=True, scope="module", params=[1, 3, 256])
def cached(request: pytest.FixtureRequest) -> object:
    """Few cells at a time, or all at once: it cannot show."""
    held = judge_sums.CACHED
    judge_sums.CACHED = request.param  # type: ignore[misc]
    yield
    judge_sums.CACHED = held  # type: ignore[misc]


@given(SEEDS, st.sets(st.integers(1, 120), min_size=1, max_size=6), st.integers(110, DAYS - 1))
def test_sums_back_are_the_sums_of_the_days_that_stand_above_zero(seed: int, ends: set[int], today: int) -> None:
    store, daily = world(seed, 2)
    rows = some_rows(seed, store)
    found = sums_back(store, rows, FIRST + today, sorted(ends))
    for end in ends:
        days = np.maximum(daily[rows, max(today + 1 - end, 0) : today + 1], 0).sum(axis=1)
        assert [part.tolist() for part in found[end]] == days.T.tolist()


@given(SEEDS, st.sets(st.integers(1, 120), min_size=1, max_size=3))
def test_peers_are_what_the_wider_cell_has_beyond_the_cell_day_by_day(seed: int, ends: set[int]) -> None:
    store, daily = world(seed, 2)
    rows = some_rows(seed, store)
    wider = store.wider(rows)
    found = peer_sums_back(store, rows, wider, FIRST + DAYS - 1, sorted(ends))
    for end in ends:
        rest = np.maximum(daily[wider] - np.maximum(daily[rows], 0), 0)[:, -end:].sum(axis=1)
        rest[wider < 0] = 0
        assert [part.tolist() for part in found[end]] == rest.T.tolist()


@given(SEEDS, st.integers(0, 12))
def test_weeks_back_are_sevens_of_days_that_end_with_the_last(seed: int, weeks: int) -> None:
    store, daily = world(seed, 2)
    rows = some_rows(seed, store)
    last = np.maximum(daily[rows, DAYS - weeks * 7 :], 0).reshape(len(rows), weeks, 7, 2).sum(axis=2)
    assert weeks_back(store, rows, FIRST + DAYS - 1, weeks).tolist() == last.tolist()


@given(SEEDS, st.integers(1, 12), st.integers(100, DAYS - 1))
def test_calendar_weeks_are_the_stores_own(seed: int, weeks: int, today: int) -> None:
    store, _ = world(seed, 1)
    rows = some_rows(seed, store)
    plain = np.maximum(store.weekly(rows, FIRST + today, weeks)[:, :, 0], 0)
    assert calendar_weeks(store, rows, FIRST + today, weeks).tolist() == plain.tolist()


Come = list[tuple[int, int, int, int]]
FOLDS: st.SearchStrategy[Come] = st.lists(
    st.tuples(st.integers(0, 7), st.integers(0, 130), st.integers(-4, 4), st.integers(-4, 4)), max_size=6
)  # fmt: skip
"""Row, days before today (or, of few, after), and what comes."""
_MOVES = {"yesterday": -1, "tomorrow": 1, "some days later": 4, "many days later": 11}


@given(
    SEEDS,
    st.sets(st.integers(1, 120), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(["fold", "expire", "grow", *_MOVES]), FOLDS), max_size=8),
)
def test_what_is_kept_is_what_summing_anew_gives(seed: int, ends: set[int], steps: list[tuple[str, Come]]) -> None:
    store, _ = world(seed, 2)
    today, asked = FIRST + DAYS - 20, sorted(ends)
    for at, (name, folds) in enumerate(steps):
        if name == "expire":
            store.expire(today - 70)
        today += _MOVES.get(name, 0)
        if name == "grow":
            store.rows_for(("A",), ("city", f"new {at}"))
        some = [(row if row % 3 else len(store) - 1, today - back + 5, x, n) for row, back, x, n in folds]
        if some:
            rows, days, *values = np.array(some).T
            store.fold(rows, days.astype(np.int32), np.stack(values, axis=1))
        rows = some_rows(seed + at, store)
        wider = store.wider(rows)
        for kept, anew in (
            (kept_sums_back(store, rows, today, asked), sums_back(store, rows, today, asked)),
            (kept_peer_sums_back(store, rows, wider, today, asked), peer_sums_back(store, rows, wider, today, asked)),
        ):
            assert list(kept) == list(anew)
            for end in asked:
                assert [part.tolist() for part in kept[end]] == [part.tolist() for part in anew[end]]
        for end in asked:
            plain = store.daily(rows, today, end)[:, :, 0].sum(axis=1)
            assert kept_failures_back(store, rows, today, end).tolist() == plain.tolist()


def test_what_is_taken_up_is_not_hidden_by_what_is_kept() -> None:
    store, _ = world(1, 2)
    rows, today = np.arange(len(store)), FIRST + DAYS - 1
    fresh = CellStore(2)
    for cell in store.cells:
        fresh.rows_for((cell[0],), ("city", cell[1])[: 1 + (cell[1] != "city")])
    for piece in store.pieces():
        kept_sums_back(fresh, rows, today, [100])
        fresh.take_up(piece)
    found, expected = (kept_sums_back(one, rows, today, [100])[100] for one in (fresh, store))
    assert [part.tolist() for part in found] == [part.tolist() for part in expected]


def test_pieces_make_up_the_whole() -> None:
    assert [list(range(10)[part]) for part in pieces(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(pieces(0, 4)) == []
