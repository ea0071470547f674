"""The leaf index against dictionaries."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.columns import COLUMN_TYPES, EventColumns
from streams.leaves import Leaf, LeafIndex

_LETTERS = "ABCDE"
_TRIPLES = st.tuples(st.integers(0, 5), st.sampled_from(_LETTERS), st.sampled_from("xyz"))


def leaf(indicator: int, product: str, region: str, cells: list[int]) -> Leaf:
    rows = np.array(cells, np.intp)
    return Leaf(product, region, product, 1, rows, indicator, ((f"branch-{product}", product), (region,)))


def events(triples: list[tuple[int, str, str]], products: list[str], regions: list[str]) -> EventColumns:
    columns = {name: np.zeros(len(triples), dtype) for name, dtype in COLUMN_TYPES.items()}
    columns["indicator"] = np.array([one[0] for one in triples], np.uint8)
    columns["product"] = np.array([products.index(one[1]) for one in triples], np.int32)
    columns["region"] = np.array([regions.index(one[2]) for one in triples], np.int32)
    return EventColumns(columns, products, regions)


@given(
    st.lists(_TRIPLES, unique=True), st.lists(_TRIPLES, min_size=1), st.permutations(_LETTERS), st.permutations("xyz")
)
def test_a_leaf_is_found_by_its_codes_whatever_numbers_a_batch_gives_them(
    held: list[tuple[int, str, str]],
    asked: list[tuple[int, str, str]],
    products: list[str],
    regions: list[str],
) -> None:
    index, plain = LeafIndex(), dict[tuple[int, str, str], int]()
    for number, triple in enumerate(held):
        index.add(leaf(*triple, [number]))
        plain[triple] = number
        if number == len(held) // 2:  # some are sorted in before others come
            index.find(events(asked, products, regions))
    at = np.arange(len(asked))[::2]
    found = index.find(events(asked, products, regions).take(at))
    assert found.tolist() == [plain.get(asked[place], -1) for place in at.tolist()]


@given(
    st.lists(st.lists(st.integers(0, 10**6), min_size=1, max_size=8), min_size=1, max_size=150),
    st.data(),
)
def test_the_cells_of_leaves_come_one_leaf_after_the_other(cells: list[list[int]], data: st.DataObject) -> None:
    index = LeafIndex()
    for number, mine in enumerate(cells):
        index.add(leaf(0, f"P{number}", "r", mine))
    asked = data.draw(st.lists(st.integers(0, len(cells) - 1), min_size=1))
    rows, times = index.reach(np.array(asked, np.int64))
    assert times.tolist() == [len(cells[number]) for number in asked]
    assert rows.tolist() == [cell for number in asked for cell in cells[number]]


@given(st.lists(st.tuples(st.sampled_from(_LETTERS), st.integers(0, 30_000)), min_size=1))
def test_a_branch_has_the_least_of_its_leaves_first_days(days: list[tuple[str, int]]) -> None:
    index, plain = LeafIndex(), dict[str, int]()
    for number, (product, day) in enumerate(days):
        index.add(leaf(0, product, f"r{number}", [number]))
        plain[f"branch-{product}"] = min(day, plain.get(f"branch-{product}", day))
    found = index.first_days(np.arange(len(days)), np.array([day for _, day in days], np.int32))
    assert dict(found) == plain
    assert len(found) == len(plain)


def test_only_an_earlier_day_of_a_leaf_is_told_again() -> None:
    index = LeafIndex()
    for number in range(100):
        index.add(leaf(0, _LETTERS[number % 5], f"r{number}", [number]))
    every = np.arange(100)
    days = 50 + every.astype(np.int32)
    assert dict(index.first_days(every, days)) == {f"branch-{letter}": 50 + at for at, letter in enumerate(_LETTERS)}
    assert index.first_days(every, days + 1) == []
    assert index.first_days(every[7:9], days[7:9] - 3) == [("branch-C", 54), ("branch-D", 55)]


def test_thousands_of_events_find_their_leaves() -> None:
    rng = np.random.default_rng(1)
    products, regions = [f"P{number}" for number in range(60)], [f"r{number}" for number in range(30)]
    index, plain = LeafIndex(), dict[tuple[int, str, str], int]()
    for place in rng.permutation(2 * 50 * 25).tolist():
        plain[place % 2, products[place // 2 % 50], regions[place // 100]] = len(plain)
        index.add(leaf(place % 2, products[place // 2 % 50], regions[place // 100], [len(plain)]))
    asked = [(at % 3, products[at % 60], regions[at // 60 % 30]) for at in rng.integers(0, 5_400, 4_000).tolist()]
    found = index.find(events(asked, products, regions))
    assert found.tolist() == [plain.get(one, -1) for one in asked]
