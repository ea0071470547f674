"""What is taken many at a time is what is taken one by one: the same rows, refusals and signals, record by record."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from column_rows import told
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import gtin_with_check
from schemas.events import EVENT_TYPES, KINDS, TOPICS, Inspection
from streams import alike
from streams import intake as intake_module
from streams.bulk import BULK_KINDS
from streams.config import Config
from streams.intake import Intake, IntakeResult
from streams.lean import TOGETHER, LeanDecoder, with_patterns, without_patterns
from streams.log import LogRecord
from streams.simulate import simulate
from tests.fuzz.material import ARRIVAL, good_record
from tests.fuzz.mutate import dumped, mutated, mutated_bytes

BULK_TOPICS = sorted(TOPICS[kind] for kind in BULK_KINDS)
HEADERS: tuple[Any, ...] = (
    (), (), (), (("ce_id", b"1"),), (("ce_type", b"inspection"),), (("tocsin-requeued", b"2"),),
    (("ce_type", b"cn.tocsin.injury"),), (("ce_type", None),), (("ce_type", b"complaint"), ("ce_type", b"a.complaint")),
    (("ce_type", b"org.example.inspection"), ("ce_type", None)), (("ce_type", b"\xff"),), (("ce_type", b"injury."),),
)  # fmt: skip


@functools.cache
def intakes(utc_offset: str = "+08:00") -> tuple[Intake, Intake, Intake]:
    """One for each way, so that what one has learned helps the other nothing."""
    config = Config().replace(utc_offset=utc_offset)
    catalogue = config.load_catalogue()
    return Intake(config, catalogue), Intake(config, catalogue), Intake(config, catalogue)


def both(
    topic: str, records: list[LogRecord], running_max: int = 0, utc_offset: str = "+08:00"
) -> tuple[IntakeResult, IntakeResult]:
    """Many at a time, as they are parsed; and one by one. What needs no parser must be the same in the first place."""
    many, single, unparsed = intakes(utc_offset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake_module, "LEAST", len(records) + 1)
        one_by_one = single.process((topic, 0), records, running_max)
        patch.setattr(intake_module, "LEAST", 0)
        patch.setattr(alike, "FEWEST", 1)
        assert_same(unparsed.process((topic, 0), records, running_max), one_by_one)
        patch.setattr(alike, "FEWEST", len(records) + 1)
        return many.process((topic, 0), records, running_max), one_by_one


def assert_same(many: IntakeResult, single: IntakeResult) -> None:
    assert told(many.columns) == told(single.columns)
    assert many.columns.graves == single.columns.graves
    assert many.shards.tolist() == single.shards.tolist()
    for field in dataclasses.fields(IntakeResult):
        if field.name not in ("columns", "shards"):
            assert getattr(many, field.name) == getattr(single, field.name), field.name


def records_of(topic: str, seed: int, count: int, spoil: float) -> list[LogRecord]:
    rng = random.Random(seed)
    values: list[bytes | None] = []
    for number in range(count):
        record = good_record(topic, number, rng)
        if rng.random() < spoil:
            value = dumped(mutated(record, rng), rng)
            values.append(mutated_bytes(value, rng) if rng.random() < 0.3 else value)
        else:
            values.append(json.dumps(record, ensure_ascii=rng.random() < 0.5).encode())
        if rng.random() < 0.01:
            values[-1] = rng.choice((None, b""))
    times = [ARRIVAL + rng.choice((0, 0, -5_000, 60_000, -(86_400_000 * 900))) for _ in values]
    return [
        LogRecord(offset + 7, time, b"k", value, rng.choice(HEADERS))
        for offset, (time, value) in enumerate(zip(times, values, strict=True))
    ]


@pytest.mark.parametrize("spoil", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("topic", BULK_TOPICS)
def test_good_and_spoiled_records_are_taken_as_one_by_one(topic: str, spoil: float) -> None:
    for seed in range(6):
        assert_same(*both(topic, records_of(topic, seed, 400, spoil), running_max=ARRIVAL - 1_000))


def test_ordinary_records_are_taken_in_bulk_and_not_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    decode = Intake._decode
    monkeypatch.setattr(Intake, "_decode", lambda self, kind, *rest: seen.append(kind) or decode(self, kind, *rest))
    by_topic: dict[str, list[LogRecord]] = {}
    for topic, key, value, reported in simulate(scale=0.02).events:
        records = by_topic.setdefault(topic, [])
        records.append(LogRecord(len(records), reported, key, value, ()))
    for topic in BULK_TOPICS:
        seen.clear()
        assert len(by_topic[topic]) > 300
        result = intakes()[0].process((topic, 0), by_topic[topic], 0)
        assert len(result.columns) == len(by_topic[topic])
        assert len(seen) <= len(result.grave)


def test_a_header_that_names_the_topics_kind_sends_no_record_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    headers = [("ce_id", b"1"), ("ce_type", b"cn.tocsin.inspection"), ("ce_type", None)]
    records = [record._replace(headers=headers) for record in records_of("inspections", 1, 300, 0.0) if record.value]
    monkeypatch.setattr(Intake, "_decode", None)
    assert len(intakes()[0].process(("inspections", 0), records, 0).columns) == len(records)


@pytest.mark.parametrize("utc_offset", ["-05:00", "+00:00", "+08:00"])
@pytest.mark.parametrize("topic", BULK_TOPICS)
def test_every_odd_time_is_read_alike(topic: str, utc_offset: str) -> None:
    moments = [
        "2024-05-31T23:59:59.999999+08:00", "2024-05-31T23:59:59.9999999Z", "2024-06-01T00:00:00", "2024-05-31",
        "2023-03-01T08:00:00.001-11:30", "1969-12-31T23:59:59.9995Z", "1970-01-02T00:00:00Z", "1970-01-01T23:59:59Z",
        "1969-12-31T23:59:59.9995", "1970-01-01T00:00:00.0005", "1970-01-02T01:00:00.9999-11:30",
        "2199-01-01T00:00:00.000001Z", "2400-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
    ]  # fmt: skip
    rng = random.Random(1)
    pairs = [(reported, occurred) for reported in moments for occurred in (None, *moments)]
    for arrival in (
        datetime(1970, 1, 3, tzinfo=UTC),
        datetime(2024, 6, 1, tzinfo=UTC),
        datetime(2199, 1, 2, tzinfo=UTC),
    ):
        time = int(arrival.timestamp() * 1_000)
        records = []
        for number, (reported, occurred) in enumerate(pairs):
            record = {**good_record(topic, number, rng), "reported_at": reported, "occurred_at": occurred}
            records.append(LogRecord(number, time, None, json.dumps(record).encode(), ()))
        many, single = both(topic, records, utc_offset=utc_offset)
        assert_same(many, single)
        assert len(many.columns) > 0


@given(st.lists(st.sampled_from([
    "2024-05-31T23:59:59.999999+08:00", "2024-05-31T12:00:00+08:00", "2024-05-31T12:00:00Z", "2024-05-31T12:00:00",
    "2024-05-31T12:00:00.0019-03:30", "1969-12-31T23:59:59.9995", "2024-02-30T00:00:00Z", "2024-05-31 12:00:00.5",
]), min_size=1, max_size=6))  # fmt: skip
def test_times_of_many_zones_and_of_none_are_read_alike_in_any_order(moments: list[str]) -> None:
    record = good_record("inspections", 1, random.Random(4))
    records = []
    for number, moment in enumerate(moments):
        value = {**record, "event_id": f"e{number}", "reported_at": moment, "occurred_at": moments[-number]}
        records.append(LogRecord(number, ARRIVAL, None, json.dumps(value).encode(), ()))
    assert_same(*both("inspections", records, utc_offset="-05:00"))


def test_a_good_code_of_one_sort_is_not_good_for_another() -> None:
    """What was seen before must not decide what is taken."""
    gtin = gtin_with_check("1061414100041")
    record = good_record("inspections", 1, random.Random(2))
    first = {**record, "gtin": gtin, "producer": None}
    second = {**record, "event_id": "e2", "gtin": None, "producer": gtin}
    records = [LogRecord(n, ARRIVAL, None, json.dumps(one).encode(), ()) for n, one in enumerate((first, second))]
    for result in both("inspections", records):
        assert len(result.columns) == 1
        assert [(letter.offset, letter.field, letter.reason) for letter in result.dead] == [(1, "producer", "bad-code")]


def test_nothing_and_next_to_nothing() -> None:
    for records in ([], [LogRecord(3, ARRIVAL, None, None, ())], records_of("inspections", 0, 1, 0.0)):
        assert_same(*both("inspections", records))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["\\n", "\\u0000", "\x7f", "\t", "\x00", "a\\u007f", "ok", "", "名", "\u0085", "\\/"])
def test_where_neither_backslash_nor_del_is_seen_patterns_would_find_nothing(kind: Any, text: str) -> None:
    exact = msgspec.json.Decoder(with_patterns(EVENT_TYPES[kind], forbid=False))
    lean = msgspec.json.Decoder(without_patterns(EVENT_TYPES[kind]))
    record = json.dumps(good_record(TOPICS[kind], 1, random.Random(3)), ensure_ascii=False)
    for field in ("event_id", "source", "product", "region"):
        value = json.loads(record)
        value[field] = "MARK"
        data = json.dumps(value, ensure_ascii=False).replace("MARK", text).encode()
        if b"\\" in data or b"\x7f" in data:
            continue
        assert _taken(lean, data) == _taken(exact, data)


def _taken(decoder: Any, data: bytes) -> Any:
    try:
        event = decoder.decode(data)
    except msgspec.DecodeError as error:
        return str(error)
    return _told(event)


def _told(event: Any) -> Any:
    items = [msgspec.structs.asdict(item) for item in getattr(event, "items", ())]
    return {**msgspec.structs.asdict(event), "items": items}


def test_a_lean_struct_keeps_bounds_and_defaults_and_loses_patterns_alone() -> None:
    lean = without_patterns(Inspection)
    schema, bare = (json.dumps(msgspec.json.schema(one)) for one in (Inspection, lean))
    assert '"pattern"' in schema
    assert '"pattern"' not in bare

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(one) for key, one in value.items() if key not in ("pattern", "description")}
        return [without(one) for one in value] if isinstance(value, list) else value

    assert without(json.loads(bare)) == without(json.loads(schema))


# --- many records in one call ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b'{"x":"a\n"}', b'{"x\n":1}', b'{"x":["\n"]}', b'{"x":{"a\n":1}}', b'{"x":"\\\n"}', b'{"x":"\\u00\n41"}',
        b'{"x":t\nrue}',
        b'{"x":1\n2}', b'{"x":-\n1}', b'{"x":1\n.5}', b'{"x":1e\n5}', b'{"x":"\xe5\n"}', b'{"event_id":"a\n"}',
        b'{"x":{}\n{}}', b'{"x":[{}\n{}]}', b'{"x":[{}\n,{}\n{}]}', b'{"x":{"a":{}\n{}}}', b'{\n{}}', b'{"x":\n{}{}}',
    ],
)  # fmt: skip
def test_no_token_holds_a_line_feed_and_no_value_follows_another_without_a_comma(value: bytes) -> None:
    """What decoding many records as lines rests on; also where nobody looks at a field."""

    class Lone(msgspec.Struct):
        event_id: str = ""

    with pytest.raises(msgspec.DecodeError):
        msgspec.json.Decoder(Lone).decode_lines(value)


@functools.cache
def decoders(kind: Any) -> tuple[LeanDecoder, Any]:
    forbid = kind != "inspection"
    lean = LeanDecoder(EVENT_TYPES[kind], forbid=forbid, longest=4_000)
    return lean, msgspec.json.Decoder(with_patterns(EVENT_TYPES[kind], forbid=forbid))


def assert_decoded_as_singly(kind: Any, values: list[bytes | None]) -> None:
    """Also: how deep records of many brackets nest is looked into elsewhere."""
    lean, exact = decoders(kind)
    events, places = lean.decode(values)
    expected = {}
    for place, value in enumerate(values):
        if value and len(value) <= 4_000 and value.count(b"[") + value.count(b"{") <= 64:
            try:
                value.decode()
                expected[place] = _told(exact.decode(value))
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
    assert dict(zip(places.tolist(), map(_told, events), strict=True)) == expected


def lines(kind: Any, number: int, rng: random.Random) -> list[bytes | None]:
    """Good records, of which some are cut in two, run together, or end in what may pass for an end."""
    values: list[bytes | None] = []
    for n in range(number):
        record = good_record(TOPICS[kind], n, rng)
        value = json.dumps(record, ensure_ascii=rng.random() < 0.7).encode()
        at = rng.choice([n for n in range(1, len(value)) if value[n : n + 1] in b'{}[],"\\:'])
        more = b', "x": ' + rng.choice([b"[{}", b'{"a": {}', b'"}', b"{}", b"[]", b"[{},{}]", b"[" * 63, b"{}{"])
        match rng.randrange(24):  # most are good: one that is not hides the others
            case 0:
                values += [value[:at], value[at:]]
            case 1:
                values += [value[:-1] + more, b"{}" + rng.choice([b"]}", b"}}", b'"}', b"}", b"]" * 63 + b"}"])]
            case 2:
                values.append(value + rng.choice([b"", b"\n", b",", b" "]) + value)
            case 3:
                values.append(value[:-1] + more + b"}")
            case 4:
                values += [b"{" + rng.choice([b"", b'"x": "']), b'"}']
            case 5:
                values.append(
                    rng.choice([None, b"", b"{}", b"\n", b" " + value, value + b"\n", value[:-1] + b"\n}", b"\xff"])
                )
            case _:
                values.append(value)
    return values


@pytest.mark.parametrize("kind", sorted(BULK_KINDS))
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_records_that_run_into_one_another_are_decoded_as_singly(kind: Any, seed: int, number: int) -> None:
    assert_decoded_as_singly(kind, lines(kind, number, random.Random(seed)))


@pytest.mark.parametrize("between", [b"", b" ", b"\n", b","])
def test_two_that_make_one_and_one_that_makes_two_are_none(between: bytes) -> None:
    """Cut at any place, with another that makes up for the count."""
    items = [{"parameter": "a{}b", "conforming": True}, {"parameter": "c", "conforming": True}]
    record = json.dumps({**good_record("inspections", 1, random.Random(5)), "items": items, "x": {"y": {}}}).encode()
    double = record + between + record
    lean, _ = decoders("inspection")
    for at in range(1, len(record)):
        for values in ([record[:at], record[at:], double], [double, record, record[:at], record[at:]], [double]):
            _, places = lean.decode(values)
            assert places.tolist() == [1] * (len(values) == 4)


@pytest.mark.parametrize("bad", [b"{", b"", None, b'{"x": "\\n"}', b"[1]", b"\xff"])
@pytest.mark.parametrize("at", [0, 7, TOGETHER - 1, TOGETHER, 2 * TOGETHER + 9])
def test_a_bad_record_costs_none_of_its_neighbours(at: int, bad: bytes | None) -> None:
    rng = random.Random(6)
    values: list[bytes | None] = [
        json.dumps(good_record("inspections", n, rng)).encode() for n in range(2 * TOGETHER + 10)
    ]
    values[at] = bad
    events, places = decoders("inspection")[0].decode(values)
    assert places.tolist() == [place for place in range(len(values)) if place != at]
    assert [event.event_id for event in events] == [f"e{place}" for place in places]


@pytest.mark.parametrize("opening", [63, 64, 65, 66])
@pytest.mark.parametrize("around", [0, 300])
def test_a_record_of_more_brackets_than_may_be_is_not_decoded_among_others_either(opening: int, around: int) -> None:
    record = json.dumps(good_record("inspections", 1, random.Random(7))).encode()
    bare = record.count(b"{") + record.count(b"[")
    deep = opening - bare
    value = record[:-1] + b', "x": ' + b"[" * deep + b"]" * deep + b"}"
    _, places = decoders("inspection")[0].decode([record] * around + [value] + [record] * around)
    assert (around in places) == (opening <= 64)
    assert len(places) == 2 * around + (opening <= 64)


@pytest.mark.parametrize("text", [r"\u98df\u54c1", r"\"a\"", r"\/", r"\\", r"a\\u0041", "\\\\n"])
@pytest.mark.parametrize("bad", ["", r"\u001f", r"\n", "\x7f", r"\u007f"])
def test_escapes_of_harmless_characters_are_decoded_as_they_are_and_others_refused(text: str, bad: str) -> None:
    text += bad
    record = json.dumps({**good_record("inspections", 1, random.Random(8)), "lab": "MARK"}).replace("MARK", text)
    events, _ = decoders("inspection")[0].decode([record.encode()] * 3)
    assert [event.lab for event in events] == ([] if bad else [json.loads(f'"{text}"')] * 3)


def test_bytes_that_are_no_text_and_a_record_too_long_are_seen_among_others() -> None:
    record = json.dumps(good_record("inspections", 1, random.Random(9))).encode()
    wrong = record[:-1] + b', "x": "\xe9\xe8"}'
    fits, longer = (record[:-1] + b" " * (length - len(record)) + b"}" for length in (4_000, 4_001))
    _, places = decoders("inspection")[0].decode([record, fits, record])
    assert places.tolist() == [0, 1, 2]
    for bad in (wrong, longer):
        _, places = decoders("inspection")[0].decode([record, bad, record])
        assert places.tolist() == [0, 2]


@pytest.mark.parametrize("verdict", ["pass", "fail", None])
def test_items_that_contradict_the_verdict_are_refused_either_way(verdict: str | None) -> None:
    records = []
    for number, conform in enumerate(([], [True], [False], [True, False], [False, True], [True, True])):
        record = good_record("inspections", number, random.Random(10))
        record |= {"verdict": verdict, "items": [{"parameter": "a", "conforming": one} for one in conform]}
        record |= {"tested": 10, "failed": 0} if verdict is None else {"tested": None, "failed": None}
        records.append(LogRecord(number, ARRIVAL, None, json.dumps(record).encode(), ()))
    many, single = both("inspections", records)
    assert_same(many, single)
    assert [letter.offset for letter in many.dead] == ([2, 3, 4] if verdict == "pass" else [])
