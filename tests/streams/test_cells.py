"""The cell store against a dict: daily and weekly sums, growth, expiry."""

from __future__ import annotations

from collections import Counter
from datetime import date, timedelta

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.cells import CellStore

PATHS = (*((("F", f"F0{p}"), ("120000", f"12010{r}")) for p in range(3) for r in range(3)), (("L",), ("120000",)))
folds = st.lists(
    st.lists(st.tuples(st.integers(0, len(PATHS) - 1), st.integers(-90, 400), st.integers(-9, 99), st.integers(0, 999)),
             min_size=1, max_size=15),
    max_size=6,
)  # fmt: skip


def fold(
    store: CellStore, events: list[tuple[int, int, int, int]], fields: int, held: Counter[tuple[str, str, int, int]]
) -> None:
    rows: list[int] = []
    days: list[int] = []
    values: list[tuple[int, ...]] = []
    for path, day, x, n in events:
        product, region = PATHS[path]
        for row in store.rows_for(product, region):
            rows.append(row)
            days.append(day)
            values.append((x, n)[:fields])
        for p in product:
            for r in region:
                for field, value in enumerate((x, n)[:fields]):
                    held[p, r, day, field] += value
    store.fold(np.array(rows, np.intp), np.array(days, np.int32), np.array(values, np.int64))


@given(folds, st.sampled_from([1, 2]), st.integers(-99, 420), st.integers(1, 200))
def test_daily_counts_are_those_of_a_dict(batches, fields: int, last: int, days: int) -> None:  # type: ignore[no-untyped-def]
    store, held = CellStore(fields), Counter[tuple[str, str, int, int]]()
    for events in batches:
        fold(store, events, fields, held)
    daily = store.daily(np.arange(len(store)), last, days)
    for row, (product, region) in enumerate(store.cells):
        for at, day in enumerate(range(last - days + 1, last + 1)):
            assert daily[row, at].tolist() == [held[product, region, day, field] for field in range(fields)]
    assert store.total(np.arange(len(store)), last, days).tolist() == daily[:, :, 0].sum(axis=1).tolist()


@given(folds, st.integers(-99, 420), st.integers(1, 30))
def test_weeks_run_from_monday_to_sunday_up_to_the_one_that_holds_the_day(batches, last: int, weeks: int) -> None:  # type: ignore[no-untyped-def]
    store, held = CellStore(1), Counter[tuple[str, str, int, int]]()
    for events in batches:
        fold(store, events, 1, held)
    weekly = store.weekly(np.arange(len(store)), last, weeks)
    today = date(1970, 1, 1) + timedelta(days=last)
    monday = last - today.weekday()
    for row, (product, region) in enumerate(store.cells):
        wanted = [
            sum(held[product, region, day, 0] for day in range(monday - 7 * back, monday - 7 * back + 7))
            for back in range(weeks - 1, -1, -1)
        ]
        assert weekly[row, :, 0].tolist() == wanted


@given(folds, st.randoms())
def test_neither_the_order_nor_the_cutting_of_folds_shows(batches, rng) -> None:  # type: ignore[no-untyped-def]
    events = [event for batch in batches for event in batch]
    one, many = CellStore(2), CellStore(2)
    for store in (one, many):
        for product, region in PATHS:
            store.rows_for(product, region)
    if events:
        fold(one, events, 2, Counter())
    rng.shuffle(events)
    for event in events:
        fold(many, [event], 2, Counter())
    rows = np.arange(len(one))
    assert np.array_equal(one.daily(rows, 430, 600), many.daily(rows, 430, 600))


def test_the_first_day_is_that_of_the_whole_branch() -> None:
    store = CellStore(1)
    for day in (90, 70, 80):
        store.note_day("F", day)
    assert (store.first_day("F"), store.first_day("L")) == (70, None)


def test_the_wider_cell_is_the_same_product_in_the_region_above() -> None:
    store = CellStore(1)
    rows = store.rows_for(("F", "F01"), ("120000", "120101"))
    at = {store.cells[row]: row for row in rows}
    wider = store.wider(np.array([at["F01", "120101"], at["F", "120000"]]))
    assert wider.tolist() == [at["F01", "120000"], -1]


def test_counts_survive_beyond_thirty_two_bits_where_money_is_counted() -> None:
    store = CellStore(2)
    row = store.rows_for(("L",), ("120000",))
    for _ in range(3):
        store.fold(np.array(row), np.array([5], np.int32), np.array([[10**15, 10**15]]))
    assert store.daily(np.array(row), 5, 1).tolist() == [[[3 * 10**15, 3 * 10**15]]]


def test_expiry_forgets_whole_old_blocks_and_nothing_else() -> None:
    store = CellStore(1)
    row = np.array(store.rows_for(("L",), ("120000",)))
    for day in (10, 63, 64, 200):
        store.fold(row, np.array([day], np.int32), np.array([[1]]))
    store.expire(before_day=100)
    kept = store.daily(row, 255, 256)[0, :, 0]
    assert np.flatnonzero(kept).tolist() == [64, 200]
    assert store.nbytes > 0


def test_a_row_that_came_after_a_block_reads_as_zero_in_it() -> None:
    store = CellStore(1)
    store.fold(np.array(store.rows_for(("L",), ("120000",))), np.array([3], np.int32), np.array([[4]]))
    late = np.array(store.rows_for(("F",), ("120000",)))
    assert store.daily(late, 63, 64).sum() == 0
    assert store.row(("F", "120000")) == late[0]
    assert store.row(("F", "nowhere")) is None
