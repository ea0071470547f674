"""From bytes to a checked event, and what is said of those that are refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from bad_input import BAD, Bad
from builders import DAY, GOOD_GTIN, GOOD_USCC, START, body, encoded, iso, settings_with
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.errors import Rejection
from schemas.events import EVENT_TYPES, TOPICS, Kind
from schemas.topics import kind_of_topic
from streams.decode import EVERYWHERE, EventDecoder

CONFIG = settings_with()
DECODER = EventDecoder(CONFIG, CONFIG.load_catalogue())


def rejection(topic: str, value: bytes | None, arrival: int = START + DAY) -> Rejection:
    with pytest.raises(Rejection) as caught:
        DECODER.decode(kind_of_topic(topic), value, arrival)
    return caught.value


@pytest.mark.parametrize("row", [p for p in BAD if not p.values[0].headers])
def test_a_bad_record_is_refused_with_its_reason_and_field_in_one_line(row: Bad) -> None:
    error = rejection(row.topic, row.value)
    assert (error.reason, error.field) == (row.reason, row.field)
    assert error.detail
    assert "\n" not in error.detail
    assert len(error.detail) < 500


@pytest.mark.parametrize("topic", TOPICS.values())
def test_a_good_record_of_every_kind_comes_with_its_paths_and_its_time(topic: str) -> None:
    value = encoded(body(topic, "a", START, kind=kind_of_topic(topic), unknown_field={"may": ["come"]}))
    decoded = DECODER.decode(kind_of_topic(topic), value, START)
    assert isinstance(decoded.event, EVENT_TYPES[kind_of_topic(topic)])
    assert (decoded.reported_ms, decoded.product, decoded.region) == (
        START,
        ("F", "F01", "F0101"),
        ("120000", "120101"),
    )


def test_codes_that_check_are_taken() -> None:
    DECODER.decode("injury", encoded(body("injuries", "a", START, producer=GOOD_USCC, gtin=GOOD_GTIN)))


def test_a_time_without_offset_is_read_as_the_deployments() -> None:
    value = encoded(body("injuries", "a", START, reported_at="2024-01-01T00:00:00"))
    assert DECODER.decode("injury", value).reported_ms == START


def test_a_clock_may_run_ahead_by_the_skew_and_not_a_millisecond_more() -> None:
    skew = CONFIG.intake.clock_skew_seconds * 1_000
    value = encoded(body("injuries", "a", START))
    DECODER.decode("injury", value, START - skew)
    assert rejection("injuries", value, START - skew - 1).reason == "clock-ahead"


def test_a_report_may_be_late_by_the_bound_and_not_a_millisecond_more() -> None:
    late = CONFIG.intake.lateness_days * DAY
    value = encoded(body("injuries", "a", START))
    DECODER.decode("injury", value, START + late)
    assert rejection("injuries", value, START + late + 1).reason == "too-late"


def test_a_record_is_taken_up_to_the_bound_of_bytes() -> None:
    bound = CONFIG.intake.max_record_bytes
    value = encoded(body("injuries", "a", START))
    DECODER.decode("injury", value.ljust(bound))
    assert rejection("injuries", value.ljust(bound + 1)).reason == "too-large"


def test_a_withdrawal_needs_no_counts() -> None:
    fields = body("inspections", "a", START, withdrawn=True, revision=1)
    del fields["tested"], fields["failed"]
    assert DECODER.decode("inspection", encoded(fields)).event.withdrawn


def test_an_open_catalogue_takes_any_code_and_roots_all_regions_in_one() -> None:
    config = settings_with(catalogue="open")
    decoder = EventDecoder(config, config.load_catalogue())
    decoded = decoder.decode("injury", encoded(body("injuries", "a", START, product="25/PETER", region="TX")))
    assert (decoded.product, decoded.region) == (("25", "25/PETER"), (EVERYWHERE, "TX"))
    for code in ("a//b", "/a", "a/", "/".join("abcdefghi")):
        value = encoded(body("injuries", "a", START, product=code))
        with pytest.raises(Rejection) as caught:
            decoder.decode("injury", value)
        assert (caught.value.reason, caught.value.field) == ("bad-code", "product")


@pytest.mark.parametrize("depth", [600, 900])
def test_whether_a_nested_record_is_taken_does_not_depend_on_the_callers_stack(depth: int) -> None:
    value = encoded(body("injuries", "a", START))[:-1] + b', "more": ' + b"[" * depth + b"]" * depth + b"}"

    def verdict(frames: int) -> str:
        if frames:
            return verdict(frames - 1)
        try:
            DECODER.decode("injury", value, START)
        except Rejection as error:
            return error.reason
        return "taken"

    assert len({verdict(frames) for frames in (0, 200, 500)}) == 1


def verdict_on(kind: Kind, value: bytes) -> str:
    """The reason for which a record is refused, ``taken`` where it is not."""
    try:
        DECODER.decode(kind, value, START + DAY)
    except Rejection as error:
        return error.reason
    return "taken"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(TOPICS.values())), st.data())
@settings(max_examples=300)
def test_whatever_stands_in_a_field_it_is_taken_or_refused_and_nothing_else_happens(topic: str, data: Any) -> None:
    fields = body(topic, "a", START, producer=GOOD_USCC)
    names = [field.encode_name for field in msgspec.structs.fields(EVENT_TYPES[kind_of_topic(topic)])]
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        fields[name] = data.draw(JSON)
    value = json.dumps(fields).encode()
    assert verdict_on(kind_of_topic(topic), value)


@given(st.binary(max_size=60) | st.text(max_size=40).map(str.encode), st.integers(0, 200))
@example(b"", 0)
@settings(max_examples=200)
def test_no_bytes_put_anywhere_into_a_record_break_the_decoder(junk: bytes, at: int) -> None:
    value = encoded(body("injuries", "a", START))
    for broken in (junk, value[:at] + junk + value[at:], value[:at] + junk):
        assert verdict_on("injury", broken)


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "tombstone"), (b"", "empty-record"), (b"{}", "missing-field"), (b"\xff", "not-utf-8"),
     (b'{"disposition_id":"d","alert_id":"a","action":"dance","by":"x","at":"2024-01-01T00:00:00Z"}', "unknown-value")],
)  # fmt: skip
def test_a_bad_disposition_is_refused_like_an_event(value: bytes | None, reason: str) -> None:
    with pytest.raises(Rejection) as caught:
        DECODER.disposition(value)
    assert caught.value.reason == reason


def test_a_good_disposition_is_taken() -> None:
    value = {"disposition_id": "d", "alert_id": "a", "action": "close", "by": "officer", "at": iso(START)}
    assert DECODER.disposition(encoded(value)).action == "close"
