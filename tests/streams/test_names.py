"""Numbers of names against the rule, told name by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import names as module
from streams.names import OVERFLOW, Names


class Plain:
    """The rule: a tick's new names come in the order of shards and names; beyond the bound they are one."""

    def __init__(self, bound: int) -> None:
        self.bound, self.held, self.known = bound, list[str](), dict[int, set[str]]()

    def tick(self, rows: list[tuple[int, str | None]]) -> list[int]:
        given = {row: self._number(*row) for row in sorted({row for row in rows if row[1] is not None})}  # type: ignore[type-var]
        return [-1 if row[1] is None else given[row] for row in rows]

    def _number(self, shard: int, name: str) -> int:
        known = self.known.setdefault(shard, set())
        if name not in known and len(known) >= self.bound:
            name = OVERFLOW
        known.add(name)
        if name not in self.held:
            self.held.append(name)
        return self.held.index(name)


_ROWS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([None, *"abcdefgh"])), max_size=30)


@pytest.mark.parametrize("marked", [65_536, 3, 0])
@given(ticks=st.lists(_ROWS, max_size=6), bound=st.integers(1, 9), order=st.permutations("abcdefgh"))
def test_every_name_has_the_number_that_the_rule_gives_it(
    marked: int, ticks: list[list[tuple[int, str | None]]], bound: int, order: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MARKED", marked)  # few are marked, so that those that are not come up too
        plain, held = Plain(bound), list[str]()
        numbers = Names(bound, held)
        for rows in ticks:
            shards = np.array([shard for shard, _ in rows], np.uint8)
            column = np.array([-1 if name is None else order.index(name) for _, name in rows], np.int32)
            assert numbers.recode(shards, column, order).tolist() == plain.tick(rows)
            numbers = restored(numbers, bound)
        assert numbers.held == plain.held


def restored(numbers: Names, bound: int) -> Names:
    """The same, as taken up from what a base stores."""
    again = Names(bound, [])
    again.take_up_held(numbers.held)
    for shard, known in numbers.known():
        again.take_up_known(shard, known)
    return again


def test_thousands_of_names_in_every_shard_keep_their_numbers_through_growth() -> None:
    numbers, many = Names(10_000, []), [f"n{number:05d}" for number in range(5_000)]
    shards, column = np.arange(5_000) % 256, np.arange(5_000, dtype=np.int32)
    first = numbers.recode(shards.astype(np.uint8), column, many)
    assert sorted(first.tolist()) == list(range(5_000))
    assert (numbers.recode(shards.astype(np.uint8), column, many) == first).all()
    moved = numbers.recode(np.roll(shards, 1).astype(np.uint8), column, many)
    assert (moved == first).all()
    assert len(numbers.held) == 5_000
