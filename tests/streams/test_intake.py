"""Intake: what is wrong goes to the dead letters, once each, and the rest goes on."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
import numpy as np
import pytest
from bad_input import BAD, Bad
from builders import DAY, HOUR, START, body, encoded, numbered, record, settings_with
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import DeadLetter
from streams.columns import NOTE, WITHDRAWN, EventColumns
from streams.intake import Intake, IntakeResult, route
from streams.log import LogRecord
from streams.ticks import COMPLETE

CONFIG = settings_with()
INTAKE = Intake(CONFIG, CONFIG.load_catalogue())


def process(topic: str, *records: LogRecord, running_max: int = -COMPLETE) -> IntakeResult:
    return INTAKE.process((topic, 3), records, running_max)


@pytest.mark.parametrize("row", BAD)
def test_a_bad_record_leaves_one_dead_letter_and_the_good_ones_around_it_count(row: Bad) -> None:
    good = [encoded(body(row.topic, name, START)) for name in "ab"]
    at = START + DAY
    result = process(
        row.topic,
        record(70, at, good[0]),
        LogRecord(71, at + 5, b"key", row.value, row.headers),
        record(72, at, good[1]),
    )
    assert result.columns["offset"].tolist() == [70, 72]
    assert result.columns["arrival"].tolist() == [at, at + 5]
    (letter,) = result.dead
    assert (letter.reason, letter.field) == (row.reason, row.field)
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp) == (row.topic, 3, 71, at + 5)
    assert (letter.stage, letter.key, letter.size) == ("intake", b"key", len(row.value or b""))
    assert letter.value == (None if row.value is None else row.value[:65_536])
    assert msgspec.json.decode(msgspec.json.encode(letter), type=DeadLetter) == letter
    assert (result.next_offset, result.last_arrival) == (73, at + 5)


def test_a_value_over_the_bound_is_cut_and_keeps_its_size_and_hash() -> None:
    value = b"\xff" * 5_000_000
    (letter,) = process("injuries", record(0, START, value)).dead
    assert (len(letter.value or b""), letter.size) == (65_536, 5_000_000)
    assert letter.sha256 == hashlib.sha256(value).hexdigest()


def test_headers_are_kept_with_the_dead_letter_and_bounded() -> None:
    headers = [("ce_source", b"hotline"), ("long", b"x" * 5_000), *((f"h{n}", b"") for n in range(99))]
    (letter,) = process("injuries", record(0, START, b"{", headers)).dead
    assert letter.headers["ce_source"] == b"hotline"
    assert len(letter.headers["long"]) == 1_024
    assert len(letter.headers) == 32


@pytest.mark.parametrize("text", [b"injury", b"cn.tocsin.injury", b"org.example.v2.injury"])
def test_a_cloudevents_type_that_ends_in_a_kind_is_taken(text: bytes) -> None:
    headers = [("ce_type", text), ("ce_id", b"\xff")]
    assert len(process("injuries", record(0, START, body("injuries", "a", START), headers)).columns) == 1


def test_a_header_without_a_value_is_no_reason_to_stop() -> None:
    assert len(process("injuries", record(0, START, body("injuries", "a", START), [("ce_type", None)])).columns) == 1


def test_a_cloudevents_type_of_another_kind_is_refused_like_the_kind_field() -> None:
    headers = [("ce_type", b"cn.tocsin.survey")]
    (letter,) = process("injuries", record(0, START, body("injuries", "a", START), headers)).dead
    assert letter.reason == "wrong-topic"


@given(st.lists(st.tuples(st.integers(-3 * DAY, 3 * DAY), st.booleans()), min_size=1, max_size=30), st.data())
def test_arrival_is_the_running_maximum_however_the_partition_is_cut(rows: list[tuple[int, bool]], data: Any) -> None:
    records = numbered(
        (START + 5 * DAY + late, body("injuries", f"e{n}", START) if good else b"{")
        for n, (late, good) in enumerate(rows)
    )
    whole = process("injuries", *records)
    expected = np.maximum.accumulate([row.timestamp for row in records])
    assert whole.columns["arrival"].tolist() == [int(expected[at]) for at in whole.columns["offset"].tolist()]
    cut = data.draw(st.integers(0, len(records) - 1))
    first = process("injuries", *records[:cut])
    second = process("injuries", *records[cut:], running_max=first.last_arrival)
    for name in ("event", "arrival", "offset", "day", "n", "x"):
        assert [*first.columns[name], *second.columns[name]] == whole.columns[name].tolist()
    assert first.dead + second.dead == whole.dead
    assert second.last_arrival == whole.last_arrival


@pytest.mark.parametrize(
    ("topic", "fields", "expected"),
    [
        ("inspections", {"tested": 50, "failed": 7}, (50, 7)),
        ("inspections", {"tested": None, "failed": None, "verdict": "fail"}, (1, 1)),
        ("inspections", {"tested": None, "failed": None, "verdict": "pass"}, (1, 0)),
        ("injuries", {}, (1, 1)),
        ("complaints", {}, (1, 1)),
        ("accidents", {"deaths": 9}, (1, 1)),
        ("surveys", {"score": 81.37, "respondents": 11}, (11, 8_137 * 11)),
        ("losses", {"loss_cny": 10.6, "output_cny": 99.4}, (99, 11)),
    ],
)
def test_what_an_event_adds_to_its_cell(topic: str, fields: dict[str, Any], expected: tuple[int, int]) -> None:
    columns = process(topic, record(0, START, body(topic, "a", START, **fields))).columns
    assert (columns["n"][0], columns["x"][0]) == expected


def test_an_event_counts_on_the_local_day_of_its_report() -> None:
    late = process(
        "injuries",
        record(0, START + 9 * DAY, body("injuries", "a", START - 1)),
        record(1, START, body("injuries", "b", START)),
    )
    assert np.diff(late.columns["day"]).tolist() == [1]


def test_an_id_is_its_own_within_its_source_and_kind_alone() -> None:
    same = [process("injuries", record(n, START, body("injuries", "a", START))).columns["event"][0] for n in (0, 9)]
    others = [
        process("injuries", record(0, START, body("injuries", "a", START, source="t"))),
        process("complaints", record(0, START, body("complaints", "a", START))),
        process("injuries", record(0, START, body("injuries", "b", START))),
    ]
    assert same[0] == same[1]
    assert len({same[0], *(result.columns["event"][0] for result in others)}) == 4


@pytest.mark.parametrize(
    ("topic", "fields", "level"),
    [
        ("injuries", {"outcome": "died", "product": "E0101"}, 3),
        ("injuries", {"outcome": "died", "product": "F0101"}, 2),  # under key supervision
        ("injuries", {"outcome": "admitted"}, None),
        ("accidents", {"deaths": 1, "product": "E0101"}, 4),
        ("accidents", {"deaths": 3, "product": "E0101"}, 3),
        ("accidents", {"deaths": 10, "product": "E0101"}, 2),
        ("accidents", {"deaths": 30, "product": "E0101"}, 1),
        ("accidents", {"deaths": 30}, 1),
        ("accidents", {"seriously_injured": 10, "product": "E0101"}, 3),
        ("accidents", {"loss_cny": 5e7, "product": "E0101"}, 2),
        ("accidents", {"structural": True, "product": "E0101"}, 3),
        ("accidents", {"deaths": 0}, None),
        ("accidents", {"deaths": 30, "withdrawn": True}, None),
    ],
)
def test_a_grave_event_rings_at_the_level_of_its_rung(topic: str, fields: dict[str, Any], level: int | None) -> None:
    result = process(topic, record(0, START + HOUR, body(topic, "a", START, **fields)))
    assert [signal.level for signal in result.grave] == ([] if level is None else [level])
    assert [grave.level for grave in result.columns.graves] == ([] if level is None else [level])


def test_dispositions_go_on_with_their_arrival_and_bad_ones_to_the_dead_letters() -> None:
    good = {"disposition_id": "d", "alert_id": "a", "action": "close", "by": "x", "at": "2024-01-01T00:00:00Z"}
    result = INTAKE.process(
        ("dispositions", 0), numbered([(START, good), (START - 9, b"{"), (START - 5, good)]), -COMPLETE
    )
    assert [(arrival, d.action) for arrival, d in result.dispositions] == [(START, "close")] * 2
    assert [(letter.offset, letter.reason) for letter in result.dead] == [(1, "malformed-json")]
    assert (result.next_offset, result.last_arrival, len(result.columns)) == (3, START, 0)


changes = st.lists(
    st.tuples(st.sampled_from("FLNBECA"), st.integers(0, 2), st.booleans(), st.booleans()), min_size=1, max_size=25
)


@given(changes, st.sampled_from([1, 2, 3, 4, 7, 64, 100]))
def test_routing_sends_each_row_once_and_a_note_of_each_correction_everywhere_else(rows: Any, partitions: int) -> None:
    result = process("injuries", *numbered(
        (START + n, body("injuries", f"e{n}", START, product=f"{branch}0101", revision=revision, withdrawn=gone,
                         outcome="died" if grave else "unknown"))
        for n, (branch, revision, gone, grave) in enumerate(rows)
    ))  # fmt: skip
    parts = route(result, partitions)
    assert sorted(parts) == list(range(partitions))
    content: list[tuple[int, int]] = []
    for partition, part in parts.items():
        again = EventColumns.unpack(part.pack())
        assert (np.diff(again["arrival"]) >= 0).all()
        own = (again["flags"] & NOTE) == 0
        content += [(offset, partition) for offset in again["offset"][own].tolist()]
        notes = set(again["offset"][~own].tolist())
        elsewhere = {n for n, row in enumerate(rows) if row[1] > 0} - set(again["offset"][own].tolist())
        assert notes == elsewhere
        assert all(own[grave.row] for grave in again.graves)
        assert {int(again["offset"][g.row]) for g in again.graves} == {
            n for n, row in enumerate(rows) if row[3] and not row[2] and (n, partition) in content
        }
        assert [again.products[at][0] for at in again["product"][own]] == [rows[n][0] for n in again["offset"][own]]
        assert ((again["flags"][own] & WITHDRAWN) > 0).tolist() == [rows[n][2] for n in again["offset"][own]]
    assert sorted(offset for offset, _ in content) == list(range(len(rows)))
    by_branch = {rows[offset][0]: partition for offset, partition in content}
    assert all(by_branch[rows[offset][0]] == partition for offset, partition in content)
