"""Records of one form, taken without a parser, become what they become one by one."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from test_bulk import BULK_TOPICS, both
from test_bulk import intakes as intakes_of

from schemas.events import TOPICS
from streams import alike
from streams.alike import FEWEST, AlikeIntake
from streams.bulk import BULK_KINDS
from streams.config import Config
from streams.intake import Intake
from streams.log import LogRecord
from tests.fuzz.material import ARRIVAL, GTINS, PRODUCTS, REGIONS, USCC, good_record

KIND_OF = {TOPICS[kind]: kind for kind in BULK_KINDS}
ODD: tuple[Any, ...] = (
    None, "", "x", "a" * 64, "a" * 65, "a" * 129, "名" * 20, 0, 1, -1, 3, 65_536, 12.0, 12.5, 1e300, True, "pass",
    "fail", "died", "a\x07b", "a\x7f", 'a"b', "a\\u0041", "critical", "inspection", "injury", "complaint",
    "2024-02-30T00:00:00Z", "2024-05-31T12:00:00.1234567Z", "2024-05-31 12:00:00Z", "2300-01-01T00:00:00Z",
    "2024-05-01T00:00:00", "2024-05-30T23:59:59.999999-03:30", "call 13912345678", "110101199003078515", *GTINS, USCC,
    USCC[:-1] + "0", "120199", PRODUCTS[0], REGIONS[1], [], {},
)  # fmt: skip


def records_alike(topic: str, seed: int, count: int, odd: float, compact: bool = True) -> list[LogRecord]:
    """Records with the same fields in the same order; a share of the values is none that the field may have."""
    rng = random.Random(seed)
    template = good_record(topic, 0, rng)
    if rng.random() < 0.8:
        template.pop("items", None)
    names = rng.sample(sorted(template), len(template))
    extra = {"extra": "x", "more": 1} if rng.random() < 0.3 else {}
    values = []
    for number in range(count):
        drawn = {**template, **good_record(topic, number, rng)}
        record = {name: drawn[name] for name in names} | extra
        if rng.random() < odd:
            record[rng.choice(names)] = rng.choice(ODD)
        separators = (",", ":") if compact else (", ", ": ")
        values.append(json.dumps(record, ensure_ascii=rng.random() < 0.5, separators=separators).encode())
    times = [ARRIVAL + rng.choice((0, 0, -5_000, 60_000, -(86_400_000 * 900))) for _ in values]
    return [LogRecord(at, time, b"k", value, ()) for at, (time, value) in enumerate(zip(times, values, strict=True))]


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("odd", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("topic", BULK_TOPICS)
def test_records_alike_are_taken_as_one_by_one(topic: str, odd: float, compact: bool) -> None:
    for seed in range(8):
        both(topic, records_alike(topic, seed, 300, odd, compact), running_max=ARRIVAL - 1_000)  # compares all ways


MARKS = b'"{}[],: \\u\n\t019.-eEtfna\x7f\xe5\x00'


@pytest.mark.parametrize("topic", BULK_TOPICS)
def test_records_spoiled_here_and_there_are_taken_as_one_by_one(topic: str) -> None:
    for seed in range(12):
        rng = random.Random(seed)
        records = records_alike(topic, seed, 200, 0.2, compact=rng.random() < 0.5)
        for at in rng.sample(range(len(records)), 60):
            value = bytearray(records[at].value or b"")
            for _ in range(rng.randrange(1, 4)):
                place = rng.randrange(len(value) + 1)
                value[place : place + rng.randrange(3)] = bytes(rng.choices(MARKS, k=rng.randrange(4)))
            records[at] = records[at]._replace(value=bytes(value))
        both(topic, records, running_max=ARRIVAL - 1_000)


def plain_records(topic: str, count: int, **more: Any) -> list[LogRecord]:
    """Ordinary ones of one form."""
    rng = random.Random(3)
    template = good_record(topic, 0, rng)
    template.pop("items", None)
    template |= {"revision": 0, **more}
    return [
        LogRecord(at, ARRIVAL, None, json.dumps({**template, "event_id": f"e{at}"}).encode(), ()) for at in range(count)
    ]


def unparsed(topic: str, records: list[LogRecord]) -> int:
    """How many of them need no parser."""
    config = Config()
    intake = Intake(config, config.load_catalogue())
    taken = AlikeIntake(KIND_OF[topic], intake.decoder, config, config.grades.load())
    return sum(len(one.rows) for one in taken.take([record.value for record in records]))


@pytest.mark.parametrize("topic", BULK_TOPICS)
def test_ordinary_records_of_one_form_need_no_parser(topic: str) -> None:
    assert unparsed(topic, plain_records(topic, FEWEST)) == FEWEST
    assert unparsed(topic, plain_records(topic, FEWEST - 1)) == 0


def test_two_forms_in_one_batch_are_both_learned() -> None:
    records = [*plain_records("inspections", FEWEST), *plain_records("inspections", FEWEST, note="of another form")]
    longer = [*records, *plain_records("inspections", FEWEST, extra=7)]
    assert unparsed("inspections", records) == 2 * FEWEST
    assert unparsed("inspections", longer) == 3 * FEWEST


def test_an_odd_record_at_the_head_hides_none_of_the_others() -> None:
    records = plain_records("inspections", FEWEST + 1)
    value = records[0].value
    assert value is not None
    for spoiled in (value[:-1] + b', "a": [""]}', value.replace(b'"e0"', b'"\\/0"'), b"", b'{"' + b"x" * 999):
        assert unparsed("inspections", [records[0]._replace(value=spoiled), *records[1:]]) == FEWEST


@pytest.mark.parametrize("topic", [topic for topic in BULK_TOPICS if topic != "inspections"])
def test_what_is_about_persons_and_has_an_unknown_field_is_looked_at_one_by_one(topic: str) -> None:
    assert unparsed(topic, plain_records(topic, FEWEST, patient="x")) == 0


def test_where_most_values_are_new_each_time_the_parser_is_left_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(4)
    template = {**good_record("inspections", 0, rng), "revision": 0}
    template.pop("items")
    many = intakes_of("+00:00")[2]
    values = [
        json.dumps({**template, "event_id": f"e{at}", "standard": f"GB {at}", "lab": f"lab-{at}"}).encode()
        for at in range(2 * FEWEST)
    ]
    records = [LogRecord(at, ARRIVAL, None, value, ()) for at, value in enumerate(values)]
    seen: list[int] = []
    read = AlikeIntake._plain
    monkeypatch.setattr(AlikeIntake, "_plain", lambda self, *rest: seen.append(1) or read(self, *rest))
    for _ in range(alike._REST + 1):
        assert len(many.process(("inspections", 0), records, 0).columns) == len(records)
    assert len(seen) == 1  # once, and then a rest
    many.process(("inspections", 0), records, 0)
    assert len(seen) == 2  # by now nothing is new


def test_values_beyond_the_bound_are_forgotten_and_codes_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "_BOUND", 40)
    for seed in range(3):
        records = [one for at in range(4) for one in records_alike("inspections", 7 * seed + at, 200, 0.2)]
        records = [record._replace(offset=at) for at, record in enumerate(records)]
        both("inspections", records, running_max=ARRIVAL)
