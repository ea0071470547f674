"""What one assess partition remembers: corrections, withdrawals, notes, graves, and the bound on strangers' codes."""

from __future__ import annotations

import itertools
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from builders import DAY, START, body, numbered, settings_with
from hypothesis import given
from hypothesis import strategies as st

from streams import state as module
from streams.columns import COLUMN_TYPES, NOTE, EventColumns
from streams.config import Config
from streams.decode import EventDecoder
from streams.intake import Intake, route
from streams.state import OVERFLOW, AssessState, Folded, _daily
from streams.ticks import COMPLETE

CONFIG = settings_with()
INTAKE = Intake(CONFIG, CONFIG.load_catalogue())
DAY_0 = (START + 8 * 3_600_000) // DAY


def new_state(config: Config = CONFIG) -> AssessState:
    return AssessState(EventDecoder(config, config.load_catalogue()), config.intake.max_codes_per_shard)


def columns(*events: dict[str, Any], topic: str = "injuries", part: int = 0, first: int = 0) -> EventColumns:
    """Events as intake packs them, arriving a second after one another."""
    records = [
        r._replace(offset=r.offset + first) for r in numbered((START + 1_000 * n, e) for n, e in enumerate(events))
    ]
    result = INTAKE.process((topic, part), records, -COMPLETE)
    assert not result.dead
    return result.columns


def injury(name: str = "a", **fields: Any) -> dict[str, Any]:
    return body("injuries", name, START, **fields)


def fold(state: AssessState, *ticks: list[EventColumns]) -> list[Folded]:
    return [state.fold_tick(tick, parts) for tick, parts in enumerate(ticks, start=1)]


def counts(state: AssessState, name: str = "injury") -> dict[tuple[str, str], int]:
    """Non-zero totals of an indicator's cells."""
    store = state.stores[name]
    totals = store.daily(np.arange(len(store)), DAY_0 + 40, 80).sum(axis=1)[:, 0].tolist()
    return {cell: total for cell, total in zip(store.cells, totals, strict=True) if total}


def cells(product: str, region: str, count: int = 1) -> dict[tuple[str, str], int]:
    return {(product[:length], where): count for length in (1, 3, 5) for where in {"120000", region}}


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(-9, 30_000) | st.integers(0, 2), st.integers(-4, 4)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([0, 16, 1_000_000]),
)
def test_the_sums_of_a_leafs_days_are_those_of_a_dict(rows: list[tuple[int, int, int]], sparse: int) -> None:
    plain = dict[tuple[int, int], int]()
    for leaf, day, x in rows:
        plain[leaf, day] = plain.get((leaf, day), 0) + x
    leaf_of, day_of, x_of = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    with patch.object(module, "_SPARSE", sparse):
        leaves, days, sums = _daily(leaf_of.astype(np.int32), day_of.astype(np.int32), [x_of, -x_of])
    assert list(zip(leaves.tolist(), days.tolist(), strict=True)) == sorted(plain)
    assert sums.tolist() == [[plain[key], -plain[key]] for key in sorted(plain)]


def test_an_event_counts_in_every_cell_of_its_two_paths() -> None:
    state = new_state()
    (folded,) = fold(state, [columns(injury())])
    assert counts(state) == cells("F0101", "120101")
    assert len(folded.dirty["injury"]) == 6
    assert folded.duplicates == 0


def test_the_same_event_counts_once_within_a_tick_and_across_ticks() -> None:
    state = new_state()
    first, second = fold(state, [columns(injury(), injury())], [columns(injury(), injury(), part=1)])
    assert counts(state) == cells("F0101", "120101")
    assert (first.duplicates, second.duplicates) == (1, 2)
    assert second.dirty == {}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_highest_revision_stands_in_whatever_order_they_come(order: tuple[int, ...], apart: bool) -> None:
    events = [injury(), injury(revision=1, region="120102"), injury(revision=2, product="F0301", region="120104")]
    parts = [columns(events[at], first=at) for at in order]
    state = new_state()
    fold(state, *([part] for part in parts) if apart else [parts])
    assert counts(state) == cells("F0301", "120104")


def test_a_correction_to_another_day_leaves_nothing_on_the_old_one() -> None:
    state = new_state()
    fold(state, [columns(injury())], [columns(body("injuries", "a", START - 3 * DAY, revision=1))])
    store = state.stores["injury"]
    assert store.daily(np.array([0]), DAY_0, 4)[0, :, 0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("withdrawn_first", [False, True])
def test_a_withdrawn_event_counts_nowhere(withdrawn_first: bool) -> None:
    parts = [[columns(injury())], [columns(injury(revision=1, withdrawn=True), first=9)]]
    state = new_state()
    fold(state, *reversed(parts)) if withdrawn_first else fold(state, *parts)
    assert counts(state) == {}
    fold_back = state.fold_tick(9, [columns(injury(revision=2), first=10)])
    assert counts(state) == cells("F0101", "120101")
    assert fold_back.duplicates == 0


def test_a_note_takes_back_what_a_correction_in_another_partition_replaces() -> None:
    there = columns(injury(revision=1, product="N0101"), first=5)
    result = INTAKE.process(("injuries", 0), numbered([(START, injury(revision=1, product="N0101"))]), -COMPLETE)
    notes = [part for part in route(result, 2).values() if (part["flags"] > 0).any()]
    assert len(notes) == 1
    for ticks in ([[columns(injury())], notes], [notes, [columns(injury(), first=6)]], [[columns(injury()), *notes]]):
        state = new_state()
        fold(state, *ticks)
        assert counts(state) == {}
    state = new_state()
    fold(state, [columns(injury())], [there])
    assert counts(state) == cells("N0101", "120101")


def test_rates_keep_both_numbers() -> None:
    state = new_state()
    first = columns(body("inspections", "a", START, tested=50, failed=7), topic="inspections")
    second = columns(body("inspections", "a", START, tested=40, failed=0, revision=1), topic="inspections", first=1)
    fold(state, [first], [second])
    store = state.stores["pass"]
    assert store.daily(np.array([0]), DAY_0, 1).tolist() == [[[0, 40]]]


def grave_ids(folded: Folded) -> list[str]:
    return [alert_id for alert_id, *_ in folded.withdrawn_graves]


def test_a_grave_report_that_loses_is_taken_back_and_a_copy_of_the_one_that_stands_is_not() -> None:
    death = injury(outcome="died")
    alert_id = columns(death).graves[0].alert_id
    state = new_state()
    stands, copied, lighter, late = fold(
        state, [columns(death)], [columns(death, first=4)], [columns(injury(revision=1), first=5)],
        [columns(death, first=6)],
    )  # fmt: skip
    assert [grave_ids(folded) for folded in (stands, copied, lighter)] == [[], [], [alert_id]]
    assert set(grave_ids(late)) <= {alert_id}


def test_within_a_tick_a_grave_report_that_was_corrected_is_taken_back_at_once() -> None:
    death, worse = injury(outcome="died"), injury(outcome="died", revision=1, age=7)
    both = columns(death, worse)
    (folded,) = fold(new_state(), [both])
    assert grave_ids(folded) == [both.graves[0].alert_id]


def test_an_id_that_two_branches_report_counts_once_in_each_until_a_correction_decides() -> None:
    both = [injury(product="F0101"), injury(product="N0101"), injury(product="F0301"), injury(product="N0101")]
    parts = [columns(event, first=at) for at, event in enumerate(both)]
    for ticks in ([parts], [[part] for part in parts]):
        state = new_state()
        duplicates = sum(folded.duplicates for folded in fold(state, *ticks))
        assert counts(state) == {**cells("F0101", "120101"), **cells("N0101", "120101")}
        assert duplicates == 2
        state.fold_tick(8, [columns(injury(revision=1, product="L0101"), first=8)])
        assert counts(state) == cells("L0101", "120101")
        assert state.fold_tick(9, parts).duplicates == 4
        assert counts(state) == cells("L0101", "120101")


def test_what_is_held_or_superseded_is_known_and_a_new_branch_or_revision_is_not() -> None:
    state = new_state()
    fold(state, [columns(injury(), injury("b", revision=2))])
    asked = columns(
        injury(), injury(product="F0301"), injury(product="N0101"), injury(revision=1),
        injury("b"), injury("b", product="N0101"), injury("b", revision=1), injury("b", revision=2),
        injury("b", revision=3), injury("c"), injury("c", revision=1),
    )  # fmt: skip
    assert state.known(asked).tolist() == [
        True, True, False, False,
        True, True, True, True,
        False, False, False,
    ]  # fmt: skip


drawn = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from(["here", "here", "withdrawn", "elsewhere"]),
              st.sampled_from(["F0101", "F0102", "L0101", "N0101"]), st.integers(0, 3),
              st.sampled_from(["unknown", "died"])),
    max_size=16,
)  # fmt: skip


def drawn_columns(events: Any) -> dict[int, list[EventColumns]]:
    """Drawn reports by tick; of what is corrected in another partition there is only a note here."""
    by_tick: dict[int, list[EventColumns]] = {}
    for at, (name, revision, state, product, tick, outcome) in enumerate(events):
        gone = state == "withdrawn"
        made = columns(
            injury(f"e{name}", revision=revision, withdrawn=gone, product=product, outcome=outcome), first=at
        )
        if state == "elsewhere" and revision:
            made.columns["flags"] |= NOTE
            made.graves = []
        by_tick.setdefault(tick, []).append(made)
    return by_tick


@given(drawn, st.randoms())
def test_neither_order_nor_cutting_within_ticks_shows_and_a_restored_state_is_the_same(events: Any, rng: Any) -> None:
    by_tick = drawn_columns(events)
    states, notes = [], []
    for shuffled in (False, True):
        state, taken_back = new_state(), []
        for tick, parts in sorted(by_tick.items()):
            if shuffled:
                rng.shuffle(parts)
            taken_back.append(sorted(set(state.fold_tick(tick, parts).withdrawn_graves)))
        states.append(state)
        notes.append(taken_back)
    restored = new_state()
    again = new_state()
    for tick, parts in sorted(by_tick.items()):
        restored.apply(tick, EventColumns.unpack(again.fold_tick(tick, parts).rows.pack()))
    assert notes[0] == notes[1]
    every = columns(*(injury(f"e{name}", revision=r, product=p) for name in range(5) for r in range(4) for p in "FLN"))
    for state in (states[1], restored):
        assert counts(state) == counts(states[0])
        assert len(state.ledger) == len(states[0].ledger)
        for name in ("event", "revision", "shard", "live", "day", "n", "x", "leaf", "severity"):
            assert np.array_equal(state.ledger[name], states[0].ledger[name])
        assert state.ledger.ticks == states[0].ledger.ticks
        assert state.stores["injury"].cells == states[0].stores["injury"].cells
        assert state._graves == states[0]._graves
        assert np.array_equal(state.known(every), states[0].known(every))
    for parts in by_tick.values():
        assert all(restored.known(part).all() for part in parts)


# --- overflow ------------------------------------------------------------------------------------------------------


def strangers(products: list[str], regions: list[str], first: int = 0) -> EventColumns:
    """Many injuries, one for each pair, without the cost of decoding them."""
    size = len(products)
    table = {name: dict(zip(dict.fromkeys(of), itertools.count())) for name, of in (("p", products), ("r", regions))}
    made = {name: np.zeros(size, dtype) for name, dtype in COLUMN_TYPES.items()}
    made["event"] = np.arange(first, first + size, dtype=np.uint64)
    made["indicator"][:] = 1
    made["day"][:] = DAY_0
    made["arrival"][:] = START
    made["offset"] = np.arange(size, dtype=np.int64)
    made["trace"][:] = made["hazard"][:] = -1
    made["n"][:] = made["x"][:] = 1
    made["product"] = np.array([table["p"][code] for code in products], np.int32)
    made["region"] = np.array([table["r"][code] for code in regions], np.int32)
    return EventColumns(made, list(table["p"]), list(table["r"]), [], [("injuries", 0)], [], ["site"])


def test_a_hundred_thousand_rubbish_codes_fill_no_memory_and_still_count() -> None:
    state = new_state(settings_with(catalogue="open", intake={"max_codes_per_shard": 40}))
    codes = [f"x{n % 7}/{n:x}" for n in range(100_000)]
    for tick in range(4):
        some = slice(tick * 25_000, tick * 25_000 + 25_000)
        state.fold_tick(tick, [strangers(codes[some], codes[some], first=some.start)])
    assert max(len(held) for held in state._codes.values()) <= 40
    assert len(state.leaves) < 1_000
    assert len(state.stores["injury"]) < 3_000
    branches = {cell: count for cell, count in counts(state).items() if "/" not in cell[0] and cell[1] == "*"}
    assert sum(branches.values()) == 100_000
    assert any(OVERFLOW in product for product, _ in counts(state))


def test_a_rubbish_branch_each_fills_no_memory_either() -> None:
    state = new_state(settings_with(catalogue="open", intake={"max_codes_per_shard": 20}))
    state.fold_tick(0, [strangers([f"{n:x}" for n in range(20_000)], ["here"] * 20_000)])
    assert len(state.stores["injury"]) < 5_000
    whole = {cell: n for cell, n in counts(state).items() if "/" not in cell[0] and cell[1] == "*"}
    assert sum(whole.values()) == 20_000


def test_codes_that_were_known_before_the_flood_keep_their_own_cells() -> None:
    state = new_state(settings_with(catalogue="open", intake={"max_codes_per_shard": 30}))
    state.fold_tick(0, [strangers(["25/PETER"], ["TX"])])
    state.fold_tick(1, [strangers([f"25/{n}" for n in range(1, 500)], ["TX"] * 499, first=1)])
    state.fold_tick(2, [strangers(["25/PETER"], ["TX"], first=500)])
    assert counts(state)["25/PETER", "TX"] == 2
    assert counts(state)["25", "*"] == 501
    assert counts(state)["25", "TX"] == counts(state)["25", "*"] - counts(state)["25", OVERFLOW]


def test_a_closed_catalogue_has_no_overflow() -> None:
    state = new_state(settings_with(intake={"max_codes_per_shard": 1}))
    fold(state, [columns(injury(), injury("b", product="F0102"))])
    assert not any(OVERFLOW in product for product, _ in counts(state))


def test_the_pairs_of_known_codes_are_bounded_too() -> None:
    state = new_state(settings_with(catalogue="open", intake={"max_codes_per_shard": 150}))
    pairs = [(f"25/{p}", f"r{r}") for p in range(70) for r in range(70)]
    state.fold_tick(0, [strangers([p for p, _ in pairs], [r for _, r in pairs])])
    assert len(state.leaves) <= 10 * 150
