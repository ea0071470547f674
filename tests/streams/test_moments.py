"""Times read as arrays are the times that msgspec reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.moments import moments
from streams.ticks import Calendar
from streams.vocabulary import PADDING, Buffer

OFFSET_MS = 8 * 3_600_000
ZONES = st.integers(-14 * 60 + 1, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(datetime(1971, 1, 1), datetime(2199, 12, 31), timezones=ZONES | st.just(UTC) | st.none())


def read(texts: list[str]) -> tuple[list[int], list[bool]]:
    whole = [text.encode() for text in texts]
    lengths = np.array([len(text) for text in whole], np.int64)
    buffer = Buffer(b"\n".join(whole) + b"\n" * PADDING)
    found, good = moments(buffer, np.cumsum(lengths + 1) - lengths - 1, lengths, OFFSET_MS)
    return found.tolist(), good.tolist()


def expected(text: str) -> int | None:
    """In microseconds first: a float of seconds would round up what must be cut off."""
    try:
        moment = msgspec.json.decode(f'"{text}"', type=datetime)
    except msgspec.DecodeError:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(milliseconds=1) - (0 if moment.tzinfo else OFFSET_MS)


@given(st.lists(st.tuples(TIMES, st.sampled_from(["seconds", "milliseconds", "microseconds"]), st.booleans())))
def test_plain_times_are_read_as_msgspec_reads_them(times: list[tuple[datetime, str, bool]]) -> None:
    texts = [time.isoformat(timespec=spec).replace("+00:00", "Z" if short else "+00:00") for time, spec, short in times]
    found, good = read(texts)
    assert all(good)
    assert found == [expected(text) for text in texts]


@given(st.lists(st.tuples(TIMES, st.integers(0, 31), st.sampled_from("0123456789-:.+TtZz /６"))))
def test_a_spoiled_time_is_read_as_msgspec_reads_it_or_not_at_all(spoiled: list[tuple[datetime, int, str]]) -> None:
    texts = [
        (whole := time.isoformat(timespec="milliseconds"))[:at] + mark + whole[at + 1 :] for time, at, mark in spoiled
    ]
    for text, moment, known in zip(texts, *read(texts), strict=True):
        assert not known or moment == expected(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2026-04-31T00:00:00Z", "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z", "2026-01-00T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:60Z", "2026-01-01T00:00:00+08:60", "2026-01-01T00:00:00+15:00", "2026-01-01T00:00:00 08:00",
        "2026-01-01t00:00:00Z", "2026-01-01 00:00:00Z", "2026-01-01T00:00:00z", "2026-01-01", "",
        "2026-01-01T00:00:00,123", "1969-12-31T23:59:59Z", "2200-01-01T00:00:00Z", "2026-01-01T00:00:00.1Z",
        "2026-01-01T00:00:00.000/08:00",
    ],
)  # fmt: skip
def test_what_is_no_plain_time_is_left_to_others(text: str) -> None:
    assert read([text])[1] == [False]


def test_a_leap_day_and_the_turn_of_a_day_are_read() -> None:
    texts = [
        "2000-02-29T23:59:59.999Z",
        "2024-02-29T00:00:00+08:00",
        "2024-03-01T00:00:00.000999-03:30",
        "1970-01-01T00:00:00",
    ]
    found, good = read(texts)
    assert all(good)
    calendar = Calendar(1, OFFSET_MS)
    assert found == [calendar.epoch_ms(datetime.fromisoformat(text)) for text in texts]
