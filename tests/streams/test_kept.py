"""Tables of what is kept: nothing is worked out twice unless its days changed, and few tables are held."""

from __future__ import annotations

import numpy as np

from streams.kept import _FORWARD, _TABLES, Kept, KeptTables


def asked(table: Kept, rows: list[int], others: list[int] | None = None) -> tuple[list[int], list[int]]:
    """The values of rows, ten times their numbers, and the rows that were worked out for it."""
    worked: list[int] = []
    places, beside = np.array(rows, np.intp), None if others is None else np.array(others, np.intp)

    def work(at: np.ndarray) -> np.ndarray:
        worked.extend(places[at].tolist())
        return places[at] * 10

    return table.of(places, work, beside).tolist(), worked


def test_only_what_changed_is_worked_out_again() -> None:
    table = Kept(100, (), np.int64)
    assert asked(table, []) == ([], [])
    assert asked(table, [3, 1]) == ([30, 10], [3, 1])
    assert asked(table, [1, 2, 3]) == ([10, 20, 30], [2])
    table.change(np.array([3, 3, 900]))
    assert asked(table, [1, 2, 3, 900]) == ([10, 20, 30, 9000], [3, 900])
    assert asked(table, [900, 3, 1]) == ([9000, 30, 10], [])


def test_a_value_may_hang_on_another_row() -> None:
    table = Kept(100, (), np.int64)
    assert asked(table, [1, 2], [70, 2]) == ([10, 20], [1, 2])
    table.change(np.array([70]))
    assert asked(table, [1, 2], [70, 2]) == ([10, 20], [1])
    table.change(np.array([2]))
    assert asked(table, [1, 2], [70, 2]) == ([10, 20], [2])


def test_values_have_a_shape_and_a_type() -> None:
    table = Kept(100, (2, 3), np.float64)
    assert table.of(np.empty(0, np.intp), lambda at: np.ones((len(at), 2, 3))).shape == (0, 2, 3)
    found = table.of(np.array([4, 2]), lambda at: np.ones((len(at), 2, 3)) / 2)
    assert (found == np.full((2, 2, 3), 0.5)).all()
    assert table.nbytes > 0


def test_later_days_change_nothing_and_another_day_begins_anew() -> None:
    tables = KeptTables()
    rows = np.array([1, 2, 3])

    def worked(until: int) -> list[int]:
        return asked(tables.table("it", until, (), np.int64), [1, 2, 3])[1]

    assert worked(100) == [1, 2, 3]
    tables.change(rows, np.array([101, 100, 150], np.int32))
    assert worked(100) == [2]
    assert worked(101) == [1, 2, 3]
    assert worked(100) == [1, 2, 3]
    tables.forget()
    assert worked(100) == [1, 2, 3]


def test_what_did_not_change_is_brought_forward_and_the_rest_worked_out() -> None:
    tables, rows = KeptTables(), np.array([1, 2, 3])
    asked: list[tuple[str, list[int], int]] = []

    def work(at: np.ndarray) -> np.ndarray:
        asked.append(("work", rows[at].tolist(), 0))
        return rows[at] * 10

    def forward(at: np.ndarray, days: int) -> np.ndarray:
        asked.append(("forward", rows[at].tolist(), days))
        return np.full(len(at), days)

    def found(until: int) -> list[int]:
        return tables.table("it", until, (), np.int64).of(rows, work, forward=forward).tolist()

    assert found(100) == [10, 20, 30]
    tables.change(np.array([2, 3]), np.array([100, 101], np.int32))
    assert found(103) == [13, 20, 33]
    assert found(103) == [13, 20, 33]
    assert found(104) == [14, 21, 34]
    assert found(104 + _FORWARD + 1) == [10, 20, 30]
    assert asked == [
        ("work", [1, 2, 3], 0), ("forward", [1, 3], 3), ("work", [2], 0), ("forward", [1, 2, 3], 1),
        ("work", [1, 2, 3], 0),
    ]  # fmt: skip


def test_few_tables_are_held() -> None:
    tables = KeptTables()
    for at in range(50):
        asked(tables.table(at, 100, (), np.int64), [at % 3, 5])
        if at == _TABLES - 1:
            most = tables.nbytes
    assert tables.nbytes == most
