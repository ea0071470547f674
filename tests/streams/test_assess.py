"""Assess: when ticks close, what waits, and going on after a restart."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from builders import DAY, HOUR, START, body, cells_of, numbered, settings_with, signal_texts
from checkpoints import Store
from hypothesis import given
from hypothesis import strategies as st

from streams.assess import Assess
from streams.columns import EventColumns
from streams.intake import Intake
from streams.ticks import COMPLETE, Calendar, Origin

CONFIG = settings_with()
CATALOGUE = CONFIG.load_catalogue()
CALENDAR = Calendar(CONFIG.tick_ms, CONFIG.offset_ms)
INTAKE = Intake(CONFIG, CATALOGUE)
A: Origin = ("injuries", 0)
B: Origin = ("injuries", 1)


def new_assess() -> Assess:
    return Assess(CONFIG, CATALOGUE, (A, B))


def columns(origin: Origin, *hours: float, first: int = 0) -> EventColumns:
    """Injuries that arrive at some hours after the start; the id is unique to origin and offset."""
    rows = [(START + int(h * HOUR), body("injuries", f"{origin[1]}-{first + n}", START)) for n, h in enumerate(hours)]
    records = [r._replace(offset=r.offset + first) for r in numbered(rows)]
    return INTAKE.process(origin, records, -COMPLETE).columns


def advance(assess: Assess, origin: Origin, hour: float) -> None:
    assess.watermarks.advance(origin, START + int(hour * HOUR), START + int(hour * HOUR))


def tick(hour: float) -> int:
    return CALENDAR.tick(START + int(hour * HOUR))


def test_a_tick_waits_for_the_slowest_origin() -> None:
    assess = new_assess()
    assess.offer(A, columns(A, 0.5, 1.5, 2.5))
    advance(assess, A, 2.5)
    assert assess.close().through is None
    assert assess.waiting() == 3
    advance(assess, B, 1)
    closed = assess.close()
    assert (closed.through, closed.ticks, closed.events) == (tick(0), [tick(0)], 1)
    advance(assess, B, 5)
    closed = assess.close()
    assert (closed.through, closed.ticks) == (tick(1), [tick(1)])
    assert assess.waiting() == 1


def test_empty_ticks_close_without_work() -> None:
    assess = new_assess()
    for origin in (A, B):
        advance(assess, origin, 1_000)
    closed = assess.close()
    assert (closed.through, closed.ticks) == (tick(999), [])


def test_closing_a_few_ticks_at_a_time_comes_to_the_same() -> None:
    assess = new_assess()
    assess.offer(A, columns(A, 0.5, 1.5, 2.5, 7.5))
    for origin in (A, B):
        advance(assess, origin, 30)
    seen = []
    while (closed := assess.close(2)).ticks:
        seen.append((closed.ticks, closed.through))
    # The first tick of the next day has no events, but what arrived on the day before is told there.
    assert seen == [([tick(0), tick(1)], tick(1)), ([tick(2), tick(7)], tick(7)), ([tick(24)], tick(29))]
    assert assess.closed_through == tick(29)


def test_the_oldest_waiting_event_is_known_by_its_offset_and_arrival() -> None:
    assess = new_assess()
    assert assess.oldest_waiting(A) is None
    assess.offer(A, columns(A, 0.5, 1.5, first=10))
    assess.offer(A, columns(A, 2.5, first=12))
    assert assess.oldest_waiting(A) == (10, START + HOUR // 2)
    for origin in (A, B):
        advance(assess, origin, 1)
    assess.close()
    assert assess.oldest_waiting(A) == (11, START + 3 * HOUR // 2)
    assert assess.oldest_waiting(B) is None


def test_what_is_folded_already_is_passed_over_in_silence_and_what_came_too_late_is_given_back() -> None:
    assess = new_assess()
    assess.offer(A, columns(A, 0.5, 1.5))
    for origin in (A, B):
        advance(assess, origin, 3)
    assess.close()
    again = assess.offer(A, columns(A, 0.5, 1.5, 4.5))
    assert len(again) == 0
    assert assess.waiting() == 1
    late = assess.offer(B, columns(B, 0.7, 5))
    assert late["offset"].tolist() == [0]
    assert assess.waiting() == 2


def test_a_checkpoint_without_folding_has_no_segment() -> None:
    assess = new_assess()
    assess.offer(A, columns(A, 0.5))
    saved = assess.checkpoint()
    assert (saved.segments, saved.base) == ([], None)
    new_assess().restore(saved.progress, [])


def test_after_a_restart_no_tick_closes_before_the_events_that_waited_were_read_again() -> None:
    assess = new_assess()
    assess.offer(A, columns(A, 0.5, 1.5, 2.5))
    advance(assess, A, 9)
    advance(assess, B, 1)
    assess.close()
    store = Store()
    store.keep(assess.checkpoint())
    assert len(store.segments) == 1
    assert assess.oldest_waiting(A) == (1, START + 3 * HOUR // 2)
    fresh = store.restored(new_assess())
    # B is read on first; A's watermark of nine o'clock rested on events that are not in memory any more.
    advance(fresh, B, 20)
    fresh.close()
    fresh.offer(A, columns(A, 0.5, 1.5, 2.5))
    advance(fresh, A, 9)
    fresh.close()
    assert len(fresh.state.ledger) == 3


def test_a_restart_of_nothing_is_a_start() -> None:
    fresh = new_assess()
    fresh.restore(new_assess().checkpoint().progress, [])
    assert fresh.closed_through is None
    assert fresh.close().through is None


hours = st.lists(st.integers(0, 60), max_size=12).map(sorted)


@given(hours, hours, st.data())
def test_a_run_with_restarts_anywhere_ends_in_the_state_of_a_run_without(a: list[int], b: list[int], data: Any) -> None:
    plain = new_assess()
    streams = {A: columns(A, *a), B: columns(B, *b)}
    for origin, rows in streams.items():
        plain.offer(origin, rows)
        plain.watermarks.advance(origin, COMPLETE, int(rows["arrival"].max(initial=-COMPLETE)))
    plain.close()
    assess, store = new_assess(), Store()
    at = {A: 0, B: 0}
    while any(at[origin] < len(streams[origin]) for origin in at):
        origin = data.draw(st.sampled_from([o for o in at if at[o] < len(streams[o])]))
        stop = data.draw(st.integers(at[origin] + 1, len(streams[origin])))
        some = streams[origin].between(at[origin], stop)
        assess.offer(origin, some)
        last = int(some["arrival"][-1])
        assess.watermarks.advance(origin, COMPLETE if stop == len(streams[origin]) else last, last)
        at[origin] = stop
        assess.close(data.draw(st.sampled_from([None, 1])))
        if data.draw(st.booleans()):
            store.keep(assess.checkpoint())
            for each in at:
                oldest = assess.oldest_waiting(each)
                at[each] = at[each] if oldest is None else oldest[0]
            assess = store.restored(new_assess())
    for origin, rows in streams.items():
        assess.watermarks.advance(origin, COMPLETE, int(rows["arrival"].max(initial=-COMPLETE)))
    while assess.close(1).ticks:
        pass
    assess.close()
    assert assess.closed_through == plain.closed_through
    assert cells_of([assess]) == cells_of([plain])
    assert len(assess.state.ledger) == len(a) + len(b)


def test_a_surge_signals_and_stands_until_a_day_on_which_it_no_longer_shows() -> None:
    config = settings_with(counts={"min_history_weeks": 4})
    assess = Assess(config, CATALOGUE, (A,))
    intake = Intake(config, CATALOGUE)
    rows = [(START + week * 7 * DAY, body("injuries", f"w{week}", START + week * 7 * DAY)) for week in range(12)]
    surge = START + 84 * DAY
    rows += [(surge + n * HOUR, body("injuries", f"s{n}", surge, batch="bad", severity=4)) for n in range(40)]
    rows += [(surge + 60 * DAY, body("injuries", "last", surge + 60 * DAY, product="L0101"))]
    result = intake.process(A, numbered(rows), -COMPLETE)
    assess.offer(A, result.columns)
    assess.watermarks.advance(A, COMPLETE, result.last_arrival)
    closed = assess.close()
    primary = [signal for signal in closed.signals if signal.role == "primary"]
    assert primary
    assert {signal.product for signal in primary} == {"F0101"}
    strongest = max(primary, key=lambda signal: signal.excess)
    assert (strongest.kind, strongest.severity, strongest.sources[0].topic) == ("injury-surge", 4, "injuries")
    assert [(c.role, c.code) for c in strongest.contributors] == [("lab", "hospital-1"), ("batch", "bad")]
    # Standing evidence is judged daily, though no event comes; and then it ends.
    days = {CALENDAR.day_of_tick(signal.tick) for signal in closed.signals}
    first, last = min(days), max(days)
    assert days == set(range(first, last + 1))
    assert last - first < 30
    assert not assess._judge.standing
    assert len(signal_texts(closed.signals)) == len(closed.signals)


@pytest.mark.parametrize("at", range(0, 84, 17))
def test_standing_evidence_survives_a_restart(at: int) -> None:
    config = settings_with(counts={"min_history_weeks": 4})
    rows = [(START + week * 7 * DAY, body("injuries", f"w{week}", START + week * 7 * DAY)) for week in range(12)]
    surge = START + 84 * DAY
    rows += [(surge + n * HOUR, body("injuries", f"s{n}", surge)) for n in range(40)]
    rows += [(surge + n * DAY, body("injuries", f"t{n}", surge, product="L0101")) for n in range(2, 30, 3)]
    result = Intake(config, CATALOGUE).process(A, numbered(rows), -COMPLETE)

    def run(stop: int | None) -> list[str]:
        assess, signals = Assess(config, CATALOGUE, (A,)), []
        assess.offer(A, result.columns)
        if stop is not None:
            assess.watermarks.advance(A, rows[min(stop, len(rows) - 1)][0], rows[0][0])
            signals += assess.close().signals
            store = Store()
            store.keep(assess.checkpoint())
            assess = store.restored(Assess(config, CATALOGUE, (A,)))
            assess.offer(A, result.columns)
        assess.watermarks.advance(A, COMPLETE, result.last_arrival)
        signals += assess.close().signals
        return [msgspec.json.encode(signal).decode() for signal in signals]

    whole = run(None)
    assert len(whole) > 20
    assert run(at) == whole
