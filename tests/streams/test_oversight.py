"""What only the whole shows: the same for any number of partitions, any restart and any other tick in between."""

from __future__ import annotations

import random
from typing import Any

import pytest
from builders import DAY, START, cluster_run, plain_run, settings_with
from hypothesis import given, settings
from hypothesis import strategies as st
from test_watch_pairs import injuries
from test_watch_sources import quiet_rows
from test_watch_sources import told as sources_told
from watch_world import DAY_0, WEEK, daily, inspections, texts, world_of

from schemas.alerts import Signal
from streams.config import Config
from streams.oversight import Oversight
from streams.tally import DELAY_EDGES, PairCount, SourceCount, Tally
from streams.ticks import Calendar

TICKS = (3_600, 21_600, 43_200, 86_400)
RULES: dict[str, Any] = {
    "sources": {"history_days": 70, "min_history_days": 35, "forget_days": 20},
    "hazards": {"window_weeks": 3, "min_total": 200, "alpha": 0.01, "eb05": 1.2, "min_reports": 3},
}
DAYS = 63


def new_oversight(config: Config) -> Oversight:
    return Oversight(config, Calendar(config.tick_ms, config.offset_ms))


def config_with(seconds: int = 86_400, **changes: Any) -> Config:
    return settings_with(tick_seconds=seconds, **{**RULES, **changes})


Branch = tuple[list[SourceCount], list[PairCount], dict[str, int]]


def branch_day(branch: int, day: int) -> Branch:
    """What one branch tells of a day: sources of which one stops, and pairs of which one comes up."""
    rng = random.Random(f"{branch} {day}")
    names = ["s0", "s1", "s2", f"own-{branch}"]
    quiet = {"s1"} if day >= 50 else set()
    sources = sources_told(lambda name, _: rng.randrange(2, 4), [name for name in names if name not in quiet], day)
    pairs = [
        PairCount(f"P{branch}{rng.randrange(3)}", f"h{rng.randrange(6)}", rng.choice((1, 1, 1, 2))) for _ in range(3)
    ]
    if branch == 2 and day >= 49:
        pairs.append(PairCount("P20", "new", 2))
    merged_pairs: dict[tuple[str, str], int] = {}
    for pair in pairs:
        merged_pairs[pair.product, pair.hazard] = merged_pairs.get((pair.product, pair.hazard), 0) + pair.reports
    return sources, [PairCount(*key, n) for key, n in sorted(merged_pairs.items())], {"injury": day + branch}


def day_tally(day: int, branches: list[int]) -> Tally:
    """The tally of a partition that holds some branches, as the stage sums it up."""
    sums: dict[tuple[int, str], list[int]] = {}
    pairs: list[PairCount] = []
    cells: dict[str, int] = {}
    for branch in branches:
        sources, own, held = branch_day(branch, day)
        for one in sources:
            total = sums.setdefault((one.kind, one.reporter), [0] * (len(DELAY_EDGES) + 1))
            total[:] = [a + b for a, b in zip(total, one.delays, strict=True)]
        pairs += own
        cells = {name: cells.get(name, 0) + n for name, n in held.items()}
    listed = [SourceCount(kind, name, sum(delays), tuple(delays)) for (kind, name), delays in sorted(sums.items())]
    return Tally(DAY_0 + day, listed, sorted(pairs, key=lambda one: (one.product, one.hazard)), [], cells)


def drive(
    config: Config,
    spread: list[list[int]],
    *,
    days: int = DAYS,
    restarts: frozenset[int] = frozenset(),
    others: frozenset[int] = frozenset(),
    order: random.Random | None = None,
) -> tuple[list[bytes], list[int]]:
    """Signals to the byte, and the cells counted after each day.

    ``restarts`` are days after which the state is taken up from a snapshot, ``others`` days on which escalate has a
    tick of its own somewhere; the partitions are offered in a shuffled order.
    """
    oversight, calendar = new_oversight(config), Calendar(config.tick_ms, config.offset_ms)
    made, cells = list[Signal](), list[int]()
    saved: bytes | None = None
    for day in range(days):
        tick = calendar.first_tick_of_day(DAY_0 + day + 1)
        parts = list(enumerate(spread))
        if order is not None:
            order.shuffle(parts)
        for partition, branches in parts:
            if branches:
                oversight.offer(partition, tick, day_tally(day, branches))
        if day in restarts:
            oversight, saved = again(config, oversight, saved)
        while oversight.due() and min(oversight.due()) <= tick:
            made += oversight.tick(min(oversight.due()))
        if day in others:
            made += oversight.tick(tick + day % max(1, DAY // config.tick_ms))
        if day in restarts and day % 2:
            oversight, saved = again(config, oversight, saved)
        cells.append(oversight.cells("injury"))
    return texts(made), cells


def again(config: Config, oversight: Oversight, saved: bytes | None) -> tuple[Oversight, bytes]:
    """The state as a restart finds it: the last snapshot, written only where something had changed."""
    data = oversight.snapshot() or saved
    assert data is not None
    assert oversight.snapshot() is None
    fresh = new_oversight(config)
    fresh.restore(data)
    assert fresh.snapshot() is None
    return fresh, data


@pytest.fixture(scope="module")
def expected() -> tuple[list[bytes], list[int]]:
    return drive(config_with(), [[0, 1, 2, 3]])


def test_the_world_here_has_a_silent_source_and_a_new_pair(expected: tuple[list[bytes], list[int]]) -> None:
    assert any(b'"silent-source"' in text and b'"s1"' in text for text in expected[0])
    assert any(b'"new-hazard"' in text and b'"new"' in text for text in expected[0])
    assert len(expected[0]) < 40


@given(
    st.integers(1, 4), st.randoms(), st.sets(st.integers(30, DAYS - 1)), st.sets(st.integers(0, DAYS - 1), max_size=9)
)
@settings(max_examples=8)
def test_neither_partitions_nor_restarts_nor_other_ticks_show(
    expected: tuple[list[bytes], list[int]], partitions: int, rng: Any, restarts: set[int], others: set[int]
) -> None:
    spread: list[list[int]] = [[] for _ in range(partitions)]
    for branch in range(4):
        rng.choice(spread).append(branch)
    outcome = drive(
        config_with(), spread, restarts=frozenset(restarts), others=frozenset(others), order=random.Random(partitions)
    )
    assert outcome == expected


@pytest.mark.parametrize("seconds", TICKS)
def test_days_are_judged_at_the_first_tick_after_them_whatever_the_tick(seconds: int) -> None:
    config = config_with(seconds)
    calendar = Calendar(config.tick_ms, config.offset_ms)
    days = []
    for spread, others in (([[0, 1, 2, 3]], frozenset()), ([[2], [0, 3], [1]], frozenset(range(0, DAYS, 5)))):
        made, _ = drive(config, spread, others=others)
        ticks = [int(text.split(b'"tick":')[1].split(b",")[0]) for text in made]
        days.append([calendar.day_of_tick(tick) for tick in ticks])
        assert all(tick == calendar.first_tick_of_day(day) for tick, day in zip(ticks, days[-1], strict=True))
    assert days[0] == days[1]
    assert days[0] == [
        int(text.split(b'"tick":')[1].split(b",")[0]) for text in drive(config_with(), [[0, 1, 2, 3]])[0]
    ]


def test_a_source_stays_watched_though_nobody_reports_any_more_and_only_until_it_is_forgotten() -> None:
    config = config_with()
    oversight = new_oversight(config)
    for day in range(40):
        oversight.offer(0, DAY_0 + day + 1, day_tally(day, [0]))
        oversight.tick(DAY_0 + day + 1)
    ticks = 0
    while due := oversight.due():
        oversight.tick(min(due))
        ticks += 1
        assert ticks < 100
    assert ticks == RULES["sources"]["forget_days"]


def test_before_anything_was_told_nothing_is_due_and_ticks_bring_nothing() -> None:
    oversight = new_oversight(config_with())
    assert oversight.due() == []
    assert oversight.snapshot() is None
    assert oversight.tick(DAY_0) == []
    assert oversight.due() == []
    assert oversight.cells("pass") == 0


def test_with_ticks_of_a_week_sources_are_not_watched_and_take_no_room_but_pairs_are_judged() -> None:
    config = config_with(604_800)
    oversight, calendar = new_oversight(config), Calendar(config.tick_ms, config.offset_ms)
    made = list[Signal]()
    for week in range(DAYS // 7 + 3):
        days = [day_tally(day, [0, 1, 2, 3]) for day in range(7 * week, min(7 * week + 7, DAYS))]
        if days:
            sources = [one for day in days for one in day.sources if one.kind == 1][:1]
            pairs = [pair for day in days for pair in day.pairs]
            tick = calendar.tick(START + week * WEEK) + 1
            oversight.offer(0, tick, Tally(DAY_0 + 7 * week + 6, sources, merge(pairs), [], {}))
        while due := oversight.due():
            made += oversight.tick(min(due))
    assert {signal.kind for signal in made} == {"new-hazard"}
    assert not oversight._sources.watched


def merge(pairs: list[PairCount]) -> list[PairCount]:
    sums: dict[tuple[str, str], int] = {}
    for pair in pairs:
        sums[pair.product, pair.hazard] = sums.get((pair.product, pair.hazard), 0) + pair.reports
    return [PairCount(*key, n) for key, n in sorted(sums.items())]


@pytest.mark.parametrize("section", ["sources", "hazards"])
def test_who_gets_the_last_room_does_not_hang_on_the_partition_that_told_of_it(section: str) -> None:
    bound = {"sources": {"max_sources": 3}, "hazards": {"max_pairs": 4}}[section]
    config = config_with(**{section: {**RULES[section], **bound}})
    held = []
    for spread in ([[0, 1, 2, 3]], [[3, 1], [2, 0]], [[3], [2], [1], [0]]):
        oversight = new_oversight(config)
        for partition, branches in enumerate(spread):
            oversight.offer(partition, DAY_0 + 1, day_tally(0, branches))
        oversight.tick(DAY_0 + 1)
        held.append((sorted(oversight._sources._row), sorted(oversight._pairs._held)))
    assert held[0] == held[1] == held[2]
    assert len(held[0][section == "hazards"]) == next(iter(bound.values()))


def test_what_a_partition_tells_again_replaces_what_it_told() -> None:
    config = config_with()
    once, twice = new_oversight(config), new_oversight(config)
    for oversight, times in ((once, 1), (twice, 3)):
        for _ in range(times):
            oversight.offer(0, DAY_0 + 1, day_tally(0, [0, 1]))
        oversight.tick(DAY_0 + 1)
    assert once.snapshot() == twice.snapshot()


def test_ten_thousand_sources_fit_into_a_message() -> None:
    config = settings_with(tick_seconds=86_400)
    oversight, rng = new_oversight(config), random.Random(1)
    for day in range(0, 60, 7):
        counts = [(n, rng.randrange(4)) for n in range(10_000)]
        listed = [SourceCount(1, f"hospital {n:05}", c, (c,) + (0,) * len(DELAY_EDGES)) for n, c in counts if c]
        oversight._sources.add(DAY_0 + day, listed)
    oversight._changed = True
    data = oversight.snapshot()
    assert data is not None
    assert len(data) < 4 << 20


# --- the whole pipeline --------------------------------------------------------------------------------------------


def test_any_number_of_partitions_and_crashes_come_to_the_same_alerts_of_the_whole() -> None:
    rows = [(topic, at, event) for topic, at, event in injuries(20, {14: 20, 15: 20}) if at < START + 20 * WEEK]
    rows += [
        (topic, at, {**event, "product": ("F0101", "N0101", "A0101")[n % 3]})
        for n, (topic, at, event) in enumerate(quiet_rows(100, range(75, 95)))
    ]
    rows += inspections(
        18,
        lambda lab, _, week: 0.12 if lab == "lab-2" and week >= 13 else 0.04,
        tested=40,
        labs=("lab-1", "lab-2", "lab-3"),
    )
    config = daily(
        labs={"window_weeks": 4, "history_weeks": 8, "alpha": 1e-3},
        sources={"history_days": 84},
        hazards={"window_weeks": 4, "min_total": 250, "alpha": 0.01, "eb05": 1.2},
    )
    world = world_of(rows, config)
    expected, alerts = plain_run(world, batch=400)
    assert {alert.kind for alert in alerts} >= {"silent-source", "new-hazard", "lab-drift"}
    for partitions, crashes in ((3, 0.02), (4, 0.0)):
        outcome = cluster_run(world, partitions, partitions, batch=600, crashes=crashes).outcome()
        assert outcome.alerts == expected.alerts
        assert outcome.signals == expected.signals
