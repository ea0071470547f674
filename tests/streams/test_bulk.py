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

from schemas.codes import gtin_with_check
from schemas.events import EVENT_TYPES, KINDS, TOPICS, Inspection
from streams import intake as intake_module
from streams.bulk import BULK_KINDS
from streams.columns import COLUMN_TYPES, TABLES, EventColumns
from streams.config import Config
from streams.intake import Intake, IntakeResult
from streams.lean import with_patterns, without_patterns
from streams.log import LogRecord
from streams.simulate import simulate
from tests.fuzz.material import ARRIVAL, good_record
from tests.fuzz.mutate import dumped, mutated, mutated_bytes

BULK_TOPICS = sorted(TOPICS[kind] for kind in BULK_KINDS)
HEADERS: tuple[Any, ...] = (
    (), (), (), (("ce_id", b"1"),), (("ce_type", b"inspection"),), (("tocsin-requeued", b"2"),),
    (("ce_type", b"cn.tocsin.injury"),), (("ce_type", None),),
)  # fmt: skip


@functools.cache
def intakes() -> tuple[Intake, Intake]:
    """One for each way, so that what one has learned helps the other nothing."""
    config = Config()
    catalogue = config.load_catalogue()
    return Intake(config, catalogue), Intake(config, catalogue)


def both(topic: str, records: list[LogRecord], running_max: int = 0) -> tuple[IntakeResult, IntakeResult]:
    many, single = intakes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intake_module, "LEAST", len(records) + 1)
        one_by_one = single.process((topic, 0), records, running_max)
        patch.setattr(intake_module, "LEAST", 0)
        return many.process((topic, 0), records, running_max), one_by_one


def rows(columns: EventColumns) -> list[tuple[Any, ...]]:
    """Each row with its texts in the place of their numbers."""
    assert {name: columns[name].dtype for name in COLUMN_TYPES} == COLUMN_TYPES
    said = {name: columns[name].tolist() for name in COLUMN_TYPES}
    for name, table in TABLES:
        texts = getattr(columns, table)
        assert len(set(texts)) == len(texts)
        said[name] = [texts[code] if code >= 0 else None for code in said[name]]
    return list(zip(*said.values(), strict=True))


def assert_same(many: IntakeResult, single: IntakeResult) -> None:
    assert rows(many.columns) == rows(single.columns)
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


@pytest.mark.parametrize("topic", BULK_TOPICS)
def test_every_odd_time_is_read_alike(topic: str) -> None:
    moments = [
        "2024-05-31T23:59:59.999999+08:00", "2024-05-31T23:59:59.9999999Z", "2024-06-01T00:00:00", "2024-05-31",
        "2023-03-01T08:00:00.001-11:30", "1969-12-31T23:59:59.9995Z", "1970-01-02T00:00:00Z", "1970-01-01T23:59:59Z",
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
        many, single = both(topic, records)
        assert_same(many, single)
        assert len(many.columns) > 0


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
