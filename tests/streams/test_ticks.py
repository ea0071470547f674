"""Time as a value: ticks, local days, watermarks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import numpy as np
import pytest
from builders import DAY, HOUR, START, settings_with
from hypothesis import given
from hypothesis import strategies as st

from streams.ticks import COMPLETE, Calendar, Watermarks, day_start_iso

TICKS = (60_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000)
OFFSETS = tuple(int(h * HOUR) for h in (-12, -3.5, 0, 5.75, 8, 14))
calendars = st.builds(Calendar, st.sampled_from(TICKS), st.sampled_from(OFFSETS))
moments = st.integers(-40 * 365 * DAY, 200 * 365 * DAY)
MINUTES = (("a", 0), ("b", 0))


@given(calendars, moments)
def test_every_instant_lies_in_exactly_the_tick_that_it_is_given(calendar: Calendar, ms: int) -> None:
    tick = calendar.tick(ms)
    assert calendar.tick_start(tick) <= ms < calendar.tick_end(tick)
    assert calendar.tick_end(tick) == calendar.tick_start(tick + 1)
    assert calendar.ticks(np.array([ms]))[0] == tick


@given(st.sampled_from([t for t in TICKS if t <= DAY]), st.sampled_from(OFFSETS), moments)
def test_ticks_up_to_a_day_never_straddle_local_midnight(tick_ms: int, offset_ms: int, ms: int) -> None:
    calendar = Calendar(tick_ms, offset_ms)
    tick = calendar.tick(ms)
    assert calendar.day(calendar.tick_start(tick)) == calendar.day(calendar.tick_end(tick) - 1) == calendar.day(ms)


@given(st.sampled_from(OFFSETS), moments)
def test_a_week_begins_on_local_monday_at_midnight(offset_ms: int, ms: int) -> None:
    calendar = Calendar(7 * DAY, offset_ms)
    start = calendar.moment(calendar.tick_start(calendar.tick(ms)))
    assert (start.weekday(), start.hour, start.minute) == (0, 0, 0)


@given(calendars, st.integers(-10_000, 70_000))
def test_the_first_tick_of_a_day_is_the_least_that_ends_on_it_or_later(calendar: Calendar, day: int) -> None:
    first = calendar.first_tick_of_day(day)
    assert calendar.day_of_tick(first) >= day
    assert calendar.day_of_tick(first - 1) < day


@given(calendars, moments)
def test_the_day_of_a_tick_is_the_local_date_of_its_last_instant(calendar: Calendar, ms: int) -> None:
    tick = calendar.tick(ms)
    zone = timezone(timedelta(milliseconds=calendar.offset_ms))
    last = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=calendar.tick_end(tick) - 1)
    assert day_start_iso(calendar.day_of_tick(tick)) == last.astimezone(zone).date().isoformat()


@given(calendars, moments)
def test_moments_and_milliseconds_turn_into_each_other(calendar: Calendar, ms: int) -> None:
    assert calendar.epoch_ms(calendar.moment(ms)) == ms
    assert calendar.epoch_ms(calendar.moment(ms).replace(tzinfo=None)) == ms


@given(calendars, st.integers(-(2**63), 2**63 - 1))
def test_times_that_no_datetime_can_show_show_as_the_nearest_that_can(calendar: Calendar, ms: int) -> None:
    moment = calendar.moment(ms)
    assert moment.utcoffset() == timedelta(milliseconds=calendar.offset_ms)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(moment), type=datetime) == moment
    assert msgspec.json.decode(msgspec.json.encode(moment), type=datetime) == moment
    first, last = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, 23, 59, 59, 999_000, tzinfo=UTC)
    assert first <= moment <= last
    assert calendar.epoch_ms(moment) == ms or moment == (first if ms < 0 else last)


def test_a_time_without_an_offset_is_read_in_the_deployments_own() -> None:
    calendar = Calendar(HOUR, 8 * HOUR)
    assert calendar.epoch_ms(datetime(2024, 1, 1)) == START


@pytest.mark.parametrize(
    "seconds",
    [
        59, 61, 90, 172_800,
        420,  # divides a week, but its ticks would straddle local midnight
    ],
)  # fmt: skip
def test_ticks_that_divide_neither_a_day_nor_a_week_are_refused(seconds: int) -> None:
    with pytest.raises(Exception, match="tick_seconds"):
        settings_with(tick_seconds=seconds)


def test_nothing_is_closed_before_every_origin_was_heard() -> None:
    marks = Watermarks(MINUTES, Calendar(60_000, 0))
    assert marks.closed_through() is None
    marks.advance(("a", 0), 600_000, 600_000)
    assert marks.closed_through() is None
    marks.advance(("b", 0), 60_000, 60_000)
    assert marks.closed_through() == 0


def test_a_tick_closes_only_when_a_watermark_reaches_its_end() -> None:
    marks = Watermarks((("a", 0),), Calendar(60_000, 0))
    marks.advance(("a", 0), 119_999, 119_999)
    assert marks.closed_through() == 0
    marks.advance(("a", 0), 120_000, 120_000)
    assert marks.closed_through() == 1


def test_exhausted_origins_close_the_last_arrivals_own_tick_too() -> None:
    marks = Watermarks(MINUTES, Calendar(60_000, 0))
    marks.advance(("a", 0), COMPLETE, 130_000)
    marks.advance(("b", 0), 70_000, 70_000)
    assert marks.closed_through() == 0
    marks.advance(("b", 0), COMPLETE, 70_000)
    assert marks.closed_through() == 2


def test_origins_without_any_record_close_nothing() -> None:
    marks = Watermarks(MINUTES, Calendar(60_000, 0))
    for origin in MINUTES:
        marks.advance(origin, COMPLETE, -COMPLETE)
    assert marks.closed_through() is None


def test_the_slowest_origin_is_read_next_and_ties_go_by_name() -> None:
    marks = Watermarks(MINUTES, Calendar(60_000, 0))
    assert marks.slowest(MINUTES) == ("a", 0)
    marks.advance(("a", 0), 5, 5)
    assert marks.slowest(MINUTES) == ("b", 0)


@given(st.lists(st.tuples(st.sampled_from(MINUTES), st.integers(0, 10**7)), max_size=20), st.randoms())
def test_the_order_of_watermark_messages_never_shows(messages: list[tuple[tuple[str, int], int]], rng) -> None:  # type: ignore[no-untyped-def]
    def after(order: list[tuple[tuple[str, int], int]]) -> tuple[int | None, object]:
        marks = Watermarks(MINUTES, Calendar(60_000, 0))
        for origin, mark in order:
            marks.advance(origin, mark, mark)
        again = Watermarks(MINUTES, Calendar(60_000, 0))
        again.restore(marks.snapshot(), COMPLETE)
        assert again.closed_through() == marks.closed_through()
        return marks.closed_through(), marks.snapshot()

    shuffled = list(messages)
    rng.shuffle(shuffled)
    assert after(messages) == after(shuffled)


@given(st.lists(st.tuples(st.sampled_from(MINUTES), st.integers(0, 10**7)), max_size=9), st.integers(0, 10**7))
def test_no_restored_watermark_vouches_for_more_than_the_bound(
    messages: list[tuple[tuple[str, int], int]], bound: int
) -> None:
    marks, again = (Watermarks(MINUTES, Calendar(60_000, 0)) for _ in range(2))
    for origin, mark in messages:
        marks.advance(origin, mark, mark)
    again.restore(marks.snapshot(), bound)
    assert [mark for *_, mark, _ in again.snapshot()] == [min(mark, bound) for *_, mark, _ in marks.snapshot()]
