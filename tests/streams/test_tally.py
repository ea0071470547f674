"""What an assess partition tells of a day: sums that no spread over partitions, no restart and no copy can change."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import DAY, START, body, numbered, settings_with
from checkpoints import Store
from hypothesis import given, settings
from hypothesis import strategies as st
from test_state import columns, fold, injury, new_state, strangers
from watch_world import DAY_0

from streams import tally
from streams.assess import Assess
from streams.config import Config
from streams.intake import Intake
from streams.state import OVERFLOW, AssessState
from streams.tally import DELAY_EDGES, Activity, LabCount, PairCount, SourceCount, Tally, merged
from streams.ticks import COMPLETE, Calendar, Origin
from streams.wire import Told

CLASSES = len(DELAY_EDGES) + 1


def reported(activity: Activity, tick: int, *rows: tuple[int, int, int]) -> None:
    kind, reporter, delay = np.array(rows, np.int64).reshape(-1, 3).T
    activity.report(tick, kind.astype(np.uint8), reporter.astype(np.int32), delay.astype(np.int16))


def told(state: AssessState) -> tuple[list[SourceCount], list[PairCount]]:
    return state.activity.take(state.reporters.__getitem__)


def volumes(state: AssessState) -> dict[str, int]:
    return {one.reporter: one.events for one in told(state)[0]}


# --- collecting ----------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-1, 40), max_size=30) | st.lists(st.integers(0, 2**40), max_size=30))
def test_codes_are_counted_alike_whether_they_lie_close_or_far_apart(codes: list[int]) -> None:
    distinct, times = tally._counted(np.array(codes, np.int64))
    assert list(zip(distinct.tolist(), times.tolist(), strict=True)) == sorted(Counter(codes).items())
    assert distinct.dtype == times.dtype == np.int64


@pytest.mark.parametrize(
    ("delay", "place"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (14, 4), (15, 5), (30, 5), (31, 6), (90, 6), (91, 7),
     (32_767, 7)],
)  # fmt: skip
def test_a_delay_falls_into_the_class_that_begins_at_or_before_it(delay: int, place: int) -> None:
    activity = Activity()
    reported(activity, 1, (1, 0, delay))
    ((one,), _) = activity.take(["a"].__getitem__)
    assert one.delays == tuple(int(at == place) for at in range(CLASSES))


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 200)), max_size=30), st.data())
def test_events_are_summed_by_kind_and_reporter_in_their_order_however_ticks_cut_them(rows: Any, data: Any) -> None:
    names = ["zebra", "alpha", "~other", "中检院", "b\u2028"]
    activity, tick = Activity(), 0
    left = list(rows)
    while left:
        cut = data.draw(st.integers(1, len(left)))
        reported(activity, tick := tick + 1, *left[:cut])
        left = left[cut:]
    sources, pairs = activity.take(names.__getitem__)
    counts = Counter((kind, names[reporter]) for kind, reporter, _ in rows)
    assert [((one.kind, one.reporter), one.events) for one in sources] == sorted(counts.items())
    assert all(sum(one.delays) == one.events for one in sources)
    assert pairs == []
    assert not activity


def test_a_pair_that_is_given_and_taken_back_within_the_day_is_not_told() -> None:
    activity = Activity()
    for product, change in (("F0101", 1), ("N0101", 1), ("F0101", -1), ("A0101", -1)):
        activity.pair(3, product, "burn", change)
    assert activity
    assert activity.take(str)[1] == [PairCount("A0101", "burn", -1), PairCount("N0101", "burn", 1)]
    assert activity.take(str) == ([], [])


def test_what_was_told_before_a_tick_is_dropped_and_the_tick_itself_is_not() -> None:
    activity = Activity()
    for tick in (1, 2, 3):
        reported(activity, tick, (1, tick, 0))
        activity.pair(tick, "F0101", f"h{tick}", 1)
    activity.drop_before(2)
    sources, pairs = activity.take("abcd".__getitem__)
    assert [one.reporter for one in sources] == ["c", "d"]
    assert [one.hazard for one in pairs] == ["h2", "h3"]


counted = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["a", "b", "~other", "中"]), st.integers(0, CLASSES - 1)), max_size=20
)
paired = st.lists(st.tuples(st.sampled_from("FLN"), st.sampled_from(["burn", "cut"]), st.sampled_from([-1, 1])))


def tally_of(sources: Any, pairs: Any) -> Tally:
    activity, tick, names = Activity(), 1, ["a", "b", "~other", "中"]
    least = (0, *DELAY_EDGES)
    reported(activity, tick, *((kind, names.index(name), least[place]) for kind, name, place in sources))
    for product, hazard, change in pairs:
        activity.pair(tick, product, hazard, change)
    return Tally(9, *activity.take(names.__getitem__), [], {})


@given(counted, paired, st.integers(1, 4), st.randoms())
def test_the_sums_over_partitions_are_those_of_one_whatever_their_number_and_order(
    sources: Any, pairs: Any, partitions: int, rng: random.Random
) -> None:
    whole = tally_of(sources, pairs)
    spread: list[tuple[list[Any], list[Any]]] = [([], []) for _ in range(partitions)]
    for one in sources:
        rng.choice(spread)[0].append(one)
    for pair in pairs:
        rng.choice(spread)[1].append(pair)
    parts = [tally_of(*part) for part in spread]
    rng.shuffle(parts)
    assert msgspec.json.encode(merged(parts)) == msgspec.json.encode((whole.sources, whole.pairs))


@given(
    st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable()),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_tally_comes_through_a_topic_to_the_last_bit(name: str, value: float) -> None:
    sources = [SourceCount(1, name, 3, (3,) + (0,) * (CLASSES - 1))]
    labs = [LabCount("F01", name, 3, 1, *[value] * 6)]
    told = Told(7, Tally(9, sources, [PairCount(name, name, -1)], labs, {"pass": 4}))
    assert msgspec.json.decode(msgspec.json.encode(told), type=Told) == told


# --- what the state collects ---------------------------------------------------------------------------------------


def test_a_copy_of_an_event_is_counted_once_as_activity_of_its_reporter() -> None:
    state = new_state()
    fold(state, [columns(injury(), injury())], [columns(injury(), injury("b"), part=1)])
    assert volumes(state) == {"hospital-1": 2}


def test_a_correction_is_activity_of_its_own_and_a_withdrawal_is_none() -> None:
    state = new_state()
    fold(state, [columns(injury(site="one"))], [columns(injury(site="two", revision=1), first=1)])
    assert volumes(state) == {"one": 1, "two": 1}
    fold(state, [columns(injury(site="two", revision=2, withdrawn=True), first=2)])
    assert volumes(state) == {}


def test_a_day_that_only_took_something_back_has_something_to_tell() -> None:
    # A withdrawal that overtakes its report makes cells, and how many there are must not hang on other branches' days.
    state = new_state()
    fold(state, [columns(injury(revision=1, withdrawn=True))])
    assert state.activity
    assert told(state) == ([], [])
    fold(state, [columns(injury())])
    assert not state.activity


@pytest.mark.parametrize("apart", [False, True])
def test_a_withdrawn_injury_takes_its_pair_back(apart: bool) -> None:
    state = new_state()
    first, second = injury(injury="burn"), injury(injury="burn", revision=1, withdrawn=True)
    fold(state, [columns(first, injury("b", injury="cut"))])
    pairs = told(state)[1] if apart else []
    fold(state, [columns(second, first=5)])
    pairs += told(state)[1]
    expected = [PairCount("F0101", "burn", 1), PairCount("F0101", "cut", 1), PairCount("F0101", "burn", -1)]
    assert pairs == (expected if apart else [PairCount("F0101", "cut", 1)])


def test_a_correction_of_the_kind_of_injury_or_the_product_moves_the_pair() -> None:
    state = new_state()
    fold(state, [columns(injury(injury="burn"))])
    told(state)
    fold(state, [columns(injury(injury="cut", revision=1), first=1)])
    assert told(state)[1] == [PairCount("F0101", "burn", -1), PairCount("F0101", "cut", 1)]
    fold(state, [columns(injury(injury="cut", product="N0101", revision=2), first=2)])
    assert told(state)[1] == [PairCount("F0101", "cut", -1), PairCount("N0101", "cut", 1)]
    fold(state, [columns(injury(revision=3), first=3)])
    assert told(state)[1] == [PairCount("N0101", "cut", -1)]


def test_reporters_beyond_a_shards_bound_go_by_a_common_name_and_known_ones_keep_their_own() -> None:
    state = new_state(settings_with(intake={"max_codes_per_shard": 3}))
    hostile = [injury(f"h{n}", site=name) for n, name in enumerate(("a", "b", "c", "d", "~", "\U0001f4a3", "a" * 128))]
    fold(state, [columns(*hostile[:2])], [columns(*hostile[2:], injury("again", site="a"), first=2)])
    # Within a tick the names come in their order, not in that of arrival.
    assert volumes(state) == {"a": 2, "b": 1, "a" * 128: 1, OVERFLOW: 4}
    fold(state, [columns(injury("other branch", site="d", product="N0101"), first=20)])
    assert volumes(state) == {"d": 1}
    assert len(state.reporters) == 5


def test_a_hundred_thousand_made_up_reporters_fill_no_memory_and_are_counted() -> None:
    state = new_state(settings_with(intake={"max_codes_per_shard": 50}))
    made = strangers(["F0101"] * 100_000, ["120101"] * 100_000)
    made.reporters = [f"stranger {n}" for n in range(100_000)]
    made.columns["reporter"] = np.arange(100_000, dtype=np.int32)
    state.fold_tick(1, [made])
    assert len(state.reporters) == 51
    assert sum(volumes(state).values()) == 100_000


# --- when it is told -----------------------------------------------------------------------------------------------

A: Origin = ("injuries", 0)
TICKS = (3_600, 21_600, 43_200, 86_400, 604_800)


def events(seed: int, days: int = 24) -> list[tuple[int, dict[str, Any]]]:
    rng, rows = random.Random(seed), list[tuple[int, dict[str, Any]]]()
    for n in range(45):
        at = START + rng.randrange(days) * DAY + rng.randrange(DAY)
        own = {
            "site": rng.choice("abc"),
            "injury": rng.choice(["burn", "cut"]),
            "product": rng.choice(["F0101", "N0101"]),
        }
        late = rng.choice((0, 0, 5 * DAY))
        rows.append((at + late, body("injuries", f"e{n}", at, occurred_at=None, **own)))
        if n % 9 == 0:
            rows.append((at + late + 3 * DAY, body("injuries", f"e{n}", at, revision=1, withdrawn=True, **own)))
    return sorted(rows, key=lambda row: row[0])


def tallies_of(config: Config, rows: list[tuple[int, dict[str, Any]]], stops: list[int]) -> list[bytes]:
    """Every tally with its tick, as JSON; the run is stopped and taken up again after some of the rows."""
    catalogue = config.load_catalogue()
    result = Intake(config, catalogue).process(A, numbered(rows), -COMPLETE)
    assess, store, out = Assess(config, catalogue, (A,)), Store(), list[tuple[int, Tally]]()
    assess.offer(A, result.columns)
    for stop in stops:
        assess.watermarks.advance(A, rows[stop][0], rows[stop][0])
        out += assess.close().tallies
        store.keep(assess.checkpoint())
        assess = store.restored(Assess(config, catalogue, (A,)))
        assert not len(assess.offer(A, result.columns))
    assess.watermarks.advance(A, COMPLETE, result.last_arrival)
    # The clock of another, longer topic lets the last day end too.
    assess.watermarks.advance(("injuries", 1), COMPLETE, result.last_arrival + 40 * DAY)
    out += assess.close().tallies
    return [msgspec.json.encode(Told(tick, tally)) for tick, tally in out]


@pytest.mark.parametrize("seconds", TICKS)
def test_every_day_is_told_once_at_the_first_tick_after_it(seconds: int) -> None:
    config, rows = settings_with(tick_seconds=seconds), events(3)
    calendar = Calendar(config.tick_ms, config.offset_ms)
    days = [msgspec.json.decode(text, type=Told) for text in tallies_of(config, rows, [])]
    assert [one.tick for one in days] == sorted({one.tick for one in days})
    for one in days:
        assert one.tick == calendar.first_tick_of_day(one.tally.day + 1)
    counts = Counter[tuple[int, str]]()
    taken = {(calendar.tick(at), event["event_id"]) for at, event in rows if event.get("withdrawn")}
    for arrival, event in rows:
        if (calendar.tick(arrival), event["event_id"]) not in taken:  # within a tick the withdrawal wins
            counts[calendar.day_of_tick(calendar.tick(arrival)), event["site"]] += 1
    assert {(one.tally.day, s.reporter): s.events for one in days for s in one.tally.sources} == dict(counts)
    pairs = Counter[tuple[str, str]]()
    for one in days:
        for pair in one.tally.pairs:
            pairs[pair.product, pair.hazard] += pair.reports
    expected = Counter[tuple[str, str]]()
    for _, event in rows:
        expected[event["product"], event["injury"]] += -1 if event.get("withdrawn") else 1
    assert pairs == expected


@given(st.sampled_from(TICKS), st.lists(st.integers(0, 48), min_size=1, max_size=3).map(sorted), st.integers(0, 3))
@settings(max_examples=14)
def test_restarts_anywhere_change_no_tally_and_tell_none_twice(seconds: int, stops: list[int], seed: int) -> None:
    config, rows = settings_with(tick_seconds=seconds), events(seed)
    assert tallies_of(config, rows, stops) == tallies_of(config, rows, [])


def test_a_partition_that_never_had_an_event_tells_nothing() -> None:
    config = settings_with()
    assess = Assess(config, config.load_catalogue(), (A,))
    assess.watermarks.advance(A, START + 400 * DAY, START)
    closed = assess.close()
    assert (closed.tallies, closed.ticks) == ([], [])


def test_the_days_of_the_worlds_here_are_what_they_are_taken_for() -> None:
    assert date.fromordinal(719_163 + DAY_0).isoformat() == "2024-01-01"
