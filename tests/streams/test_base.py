"""Events are forgotten after a time and their counts later; a base lets old segments go. Neither may show."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import DAY, HOUR, REGIONS, START, body, numbered, settings_with, signal_texts
from checkpoints import Store
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.errors import ConfigError
from streams import assess as assess_module
from streams.assess import Assess
from streams.base import base_pieces, take_up_base
from streams.columns import EventColumns
from streams.config import Config
from streams.intake import Intake
from streams.ledger import LEDGER_TYPES
from streams.stored import StoredStateError, reading
from streams.ticks import COMPLETE, Origin

A: Origin = ("injuries", 0)
B: Origin = ("inspections", 0)
REMEMBER = 60
SHORT: dict[str, Any] = {
    "tick_seconds": 86_400,
    "intake": {"lateness_days": 30},
    "pass_rate": {"windows_days": (7, 30), "history_days": 30, "min_failed": 3, "alpha": 1e-3},
    "satisfaction": {"window_days": 30},
    "counts": {"history_years": 3, "min_history_weeks": 8, "alpha": 1e-3},
    "drift": {"periods": 8},
    "state": {"remember_days": REMEMBER},
}
CONFIG = settings_with(**SHORT)
OPEN = settings_with(**SHORT, catalogue="open")
LATE = 30 * DAY

Rows = list[tuple[int, dict[str, Any]]]


def history(seed: int, days: int, per_day: float) -> tuple[Rows, Rows]:
    """Injuries and inspections of so many days: some late, some sent twice, some corrected months afterwards."""
    rng = random.Random(seed)
    made: tuple[Rows, Rows] = ([], [])
    for number in range(int(days * per_day)):
        at = START + int(number / per_day * DAY) + rng.randrange(DAY)
        topic, rows = rng.choice((("injuries", made[0]), ("inspections", made[1])))
        fields: dict[str, Any] = {
            "product": rng.choice(("F0101", "F0301", "L0101", "A0101")),
            "region": rng.choice(REGIONS[:4]),
            "batch": f"batch-{number // 20}",
        }
        if topic == "inspections":
            fields |= {"lab": f"lab-{rng.randrange(4)}", "tested": 20, "failed": rng.choice((0, 0, 1, 2))}
        else:
            fields |= {"injury": rng.choice(("burn", "cut")), "severity": rng.choice((1, 2, 4))}
        event = body(topic, f"e{number}", at, **fields)
        arrival = at + rng.choice((0, 0, 0, rng.randrange(LATE)))
        rows.append((arrival, event))
        if rng.random() < 0.1:
            rows.append((arrival + rng.randrange(1, at + LATE - arrival + 1), event))
        if rng.random() < 0.15:
            later = at + rng.randrange(200) * DAY
            again = body(topic, f"e{number}", later, **{**fields, "revision": 1, "withdrawn": rng.random() < 0.5})
            rows.append((later, again))
    end = START + days * DAY
    return (*(sorted((row for row in rows if row[0] < end), key=lambda row: row[0]) for rows in made),)  # type: ignore[return-value]


def run(
    config: Config, streams: dict[Origin, EventColumns], stops: Iterable[int] = (), store: Store | None = None
) -> tuple[Assess, list[str]]:
    """Close the ticks up to each stop (epoch ms), store, and go on in a new process; then to the end."""
    catalogue = config.load_catalogue()

    def new() -> Assess:
        return Assess(config, catalogue, tuple(streams))

    assess, signals = new(), []
    for origin, columns in streams.items():
        assess.offer(origin, columns)
    for stop in stops:
        for origin in streams:
            assess.watermarks.advance(origin, stop, stop)
        signals += assess.close().signals
        assert store is not None
        store.keep(assess.checkpoint())
        assess = store.restored(new())
        for origin, columns in streams.items():
            # What waited is read again, and with it, where another origin is years ahead, what was forgotten since.
            assert not len(assess.offer(origin, columns))
    for origin, columns in streams.items():
        assess.watermarks.advance(origin, COMPLETE, int(columns["arrival"].max(initial=-COMPLETE)))
    signals += assess.close().signals
    return assess, signal_texts(signals)


def columns_of(config: Config, rows: Rows, origin: Origin) -> EventColumns:
    result = Intake(config, config.load_catalogue()).process(origin, numbered(rows), -COMPLETE)
    assert not result.dead
    return result.columns


def parts_of(assess: Assess) -> dict[str, Any]:
    """Everything that a state is made of, numbers and names in their order."""
    state = assess.state
    ledger = {name: state.ledger[name].tolist() for name in LEDGER_TYPES if name not in ("trace", "origin")}
    ledger["origin"] = [state.origins[number] for number in state.ledger["origin"].tolist()]
    traces = [state.traces[number] if number >= 0 else None for number in state.ledger["trace"].tolist()]
    days = (START + 4_000 * DAY) // DAY
    counts = {name: (store.cells, store.daily(np.arange(len(store)), days, 6_000).tolist(), store.first_days)
              for name, store in state.stores.items() if len(store)}  # fmt: skip
    leaves = [(leaf.product, leaf.region, leaf.group, leaf.rows.tolist()) for leaf in state.leaves]
    names = {what: (held.held, held.known()) for what, held in state.names.items()}
    leaf, lab, newest, pieces = state.labs.stored()
    labs = (leaf.tolist(), lab.tolist(), newest, [msgspec.to_builtins(piece) for piece in pieces], state.labs.pack())
    return {
        "ledger": ledger, "ticks": state.ledger.ticks, "traces": traces, "counts": counts, "leaves": leaves,
        "names": names, "labs": labs,
        "codes": state._codes, "graves": state._graves, "standing": assess._judge.standing_cells(),
    }  # fmt: skip


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    seed=st.integers(0, 10_000),
    stops=st.lists(st.integers(1, 280), max_size=5, unique=True).map(sorted),  # before the last event
    catalogue=st.sampled_from([CONFIG, OPEN]),
    rows=st.sampled_from([1, 150]),
)
def test_where_a_run_is_stored_and_taken_up_again_does_not_show(
    seed: int, stops: list[int], catalogue: Config, rows: int
) -> None:
    made = dict(zip((A, B), history(seed, 300, 1.2), strict=True))
    streams = {origin: columns_of(catalogue, each, origin) for origin, each in made.items()}
    plain, expected = run(catalogue, streams)
    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assess_module, "BASE_ROWS", rows)
        patch.setattr(assess_module, "SEGMENT_ROWS", 7)
        patch.setattr(assess_module, "EFFECTS_A_PIECE", 2)
        again, found = run(catalogue, streams, [START + day * DAY for day in stops], store)
    assert found == expected
    assert again.closed_through == plain.closed_through
    mine, theirs = parts_of(again), parts_of(plain)
    for part, value in theirs.items():
        assert mine[part] == value, part


def test_old_segments_are_deleted_and_what_is_stored_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assess_module, "BASE_ROWS", 100)
    monkeypatch.setattr(assess_module, "SEGMENT_ROWS", 10)
    made = dict(zip((A, B), history(3, 900, 1.0), strict=True))
    streams = {origin: columns_of(CONFIG, each, origin) for origin, each in made.items()}
    store = Store()
    assess, _ = run(CONFIG, streams, [START + day * DAY for day in range(20, 900, 40)], store)
    events = sum(map(len, streams.values()))
    assert store.bases > 3
    assert len(assess.state.ledger) < 0.2 * events
    assert len(assess.state.traces) <= len(assess.state.ledger)
    assert store.deleted > 0.7 * (store.deleted + len(store.segments))


def test_the_effects_of_the_labs_are_stored_when_a_comparison_has_made_new_ones_and_come_back_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assess_module, "EFFECTS_A_PIECE", 2)
    made = dict(zip((A, B), history(3, 300, 3.0), strict=True))
    streams = {origin: columns_of(CONFIG, each, origin) for origin, each in made.items()}
    store, stops = Store(), [START + day * DAY for day in range(100, 280)]
    again, _ = run(CONFIG, streams, stops, store)
    effects = run(CONFIG, streams)[0].state.labs.pack()
    assert max(len(values) for *_, values in effects) > 2  # so some pieces belong together
    assert again.state.labs.pack() == effects
    assert 0 < store.comparisons < len(stops) / 3  # of a checkpoint each day


def test_counts_are_kept_as_long_as_a_detector_looks_back_and_a_block_more_at_the_most() -> None:
    days = range(0, 2_400, 20)
    rows = [(START + day * DAY, body("injuries", f"e{day}", START + day * DAY)) for day in days]
    store = run(CONFIG, {A: columns_of(CONFIG, rows, A)})[0].state.stores["injury"]
    last_day = (START + days[-1] * DAY + 8 * HOUR) // DAY
    kept = store.daily(np.array([0]), last_day, 3_000)[0, :, 0]
    assert not store.daily(np.array([0]), last_day - CONFIG.lookback_days - 32 - 64, 2_000).any()
    assert kept[-CONFIG.lookback_days :].sum() == len(range(days[-1], days[-1] - CONFIG.lookback_days, -20))


def test_a_copy_or_a_correction_within_the_time_of_memory_is_exact_and_a_later_correction_adds() -> None:
    def count(gap_days: int) -> int:
        later = START + gap_days * DAY
        rows = [
            (START, body("injuries", "a", START)),
            (later, body("injuries", "a", later, revision=1)),
            (later + 40 * DAY, body("injuries", "end", later + 40 * DAY, product="L0101")),
        ]
        assess, _ = run(CONFIG, {A: columns_of(CONFIG, rows, A)})
        store = assess.state.stores["injury"]
        row = store.row(("F0101", "120101"))
        assert row is not None
        return int(store.daily(np.array([row]), (later + 50 * DAY) // DAY, 400).sum())

    assert [count(gap) for gap in (1, REMEMBER - 1)] == [1, 1]
    assert count(REMEMBER + 40) == 2


def test_a_late_event_of_a_day_that_is_forgotten_is_passed_over() -> None:
    assess = Assess(CONFIG, CONFIG.load_catalogue(), (A,))
    store = assess.state.stores["injury"]
    row = np.array(store.rows_for(("F",), ("120000",)))
    store.expire(640)
    store.fold(np.repeat(row, 2), np.array([639, 640], np.int32), np.array([[5], [7]]))
    assert store.daily(row, 700, 700).sum() == 7


def test_what_was_forgotten_is_no_news_when_it_is_read_again_and_what_never_came_is() -> None:
    early = columns_of(CONFIG, [(START + n * HOUR, body("inspections", f"e{n}", START)) for n in range(9)], B)
    far = columns_of(CONFIG, [(START + 400 * DAY, body("injuries", "f", START + 399 * DAY))], A)
    store = Store()
    assess = Assess(CONFIG, CONFIG.load_catalogue(), (A, B))
    assess.offer(B, early.between(0, 6))
    assess.offer(A, far)
    for origin in (A, B):
        assess.watermarks.advance(origin, START + 401 * DAY, START + 401 * DAY)
    assess.close()
    assert len(assess.state.ledger) == 1  # of the six nothing is remembered
    store.keep(assess.checkpoint())
    for one in (assess, store.restored(Assess(CONFIG, CONFIG.load_catalogue(), (A, B)))):
        assert one.offer(B, early)["offset"].tolist() == [6, 7, 8]
        assert one.offer(B, early)["offset"].tolist() == []


def test_a_large_tick_is_stored_in_several_segments_and_folded_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assess_module, "SEGMENT_ROWS", 3)
    rows = [(START + n, body("injuries", f"e{n}", START, product=("L0101", "F0101")[n % 2])) for n in range(11)]
    rows.append((START + 2 * DAY, body("injuries", "last", START + 2 * DAY)))
    streams = {A: columns_of(CONFIG, rows, A)}
    store = Store()
    again, _ = run(CONFIG, streams, [START + DAY + HOUR], store)
    assert len(store.segments) == 4
    assert [leaf.product for leaf in again.state.leaves] == ["F0101", "L0101"]
    assert parts_of(again) == parts_of(run(CONFIG, streams)[0])


def test_a_base_that_cannot_be_read_is_a_clear_error() -> None:
    state = Assess(CONFIG, CONFIG.load_catalogue(), (A,)).state
    for bad in (b"", b"\xc1", msgspec.msgpack.encode(["strange", 1]), next(base_pieces(state))[:-1]):
        with pytest.raises(StoredStateError, match="the base cannot be read"), reading("the base"):
            take_up_base(state, [bad])


def test_events_must_be_remembered_as_long_as_copies_may_come() -> None:
    with pytest.raises(ConfigError, match=r"state\.remember_days: at least 400"):
        settings_with(state={"remember_days": 399})
    assert settings_with(state={"remember_days": 400}).lookback_days == Config().lookback_days
