"""Injury reports and complaints carry no persons: refused, and what they said stands nowhere else."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import GOOD_GTIN, START, body, encoded, record, settings_with

from schemas.alerts import DeadLetter
from schemas.errors import Rejection
from schemas.events import EVENT_TYPES, Kind
from schemas.topics import kind_of_topic
from streams.decode import EventDecoder
from streams.intake import Intake
from streams.logs import JsonFormatter, Refusals
from streams.privacy import GuardedDecoder, personal_field, redacted
from streams.publish import EventJudge, _letter, judged, read_candidates

CONFIG = settings_with()
INTAKE = Intake(CONFIG, CONFIG.load_catalogue())
SECRET = "Zhang-Wei-Secret"
ABOUT_PERSONS = ("injuries", "complaints")


def letter_of(topic: str, value: bytes, **extra: Any) -> DeadLetter:
    row = record(0, START, value, extra.get("headers", ()))._replace(key=extra.get("key"))
    result = INTAKE.process((topic, 0), [row], START)
    assert len(result.columns) == 0
    (letter,) = result.dead
    return letter


@pytest.mark.parametrize("topic", ABOUT_PERSONS)
@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"patient_name": SECRET}, "patient_name"),
        ({"note": 1, "name": SECRET}, "name"),
        ({"姓名": SECRET}, "姓名"),
        ({"xingming": SECRET}, "xingming"),
        ({"phone": None}, "phone"),
        ({"address": {"street": SECRET}}, "address"),
        ({"more": {"deep": [{"victim": {"dob": SECRET}}]}}, "more.victim"),
        ({"more": [1, [{"Id-Number": SECRET}]]}, "more.Id-Number"),
    ],
)
def test_a_field_for_personal_data_is_refused_and_its_value_is_not_kept(
    topic: str, extra: dict[str, Any], field: str
) -> None:
    value = encoded(body(topic, "e1", START, **extra))
    letter = letter_of(topic, value, key=SECRET.encode(), headers=[("ce_subject", SECRET.encode())])
    assert (letter.reason, letter.field, letter.redacted) == ("personal-data", field, True)
    assert SECRET not in repr(letter)
    kept = json.loads(letter.value or b"")
    assert list(kept) == list(json.loads(value))
    assert {kept[name] for name in extra} == {"[redacted]"}
    assert (kept["event_id"], kept["source"], kept["product"]) == ("e1", "s", "[redacted]")
    assert kept[{"injuries": "site", "complaints": "channel"}[topic]] == "[redacted]"
    assert (letter.key, letter.size, list(letter.headers.values())) == (None, len(value), [b""])
    assert msgspec.json.decode(msgspec.json.encode(letter), type=DeadLetter) == letter


def test_an_escaped_key_is_the_same_key() -> None:
    value = encoded(body("injuries", "e1", START, zzz=SECRET)).replace(b"zzz", rb"n\u0061me")
    assert letter_of("injuries", value).field == "name"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda value: value[:-20],  # cut short
        lambda value: b"\xef\xbb\xbf" + value,
        lambda value: value.replace(b'"severity": 2', b'"severity": 9'),
        lambda value: value.replace(b'"product": "F0101"', b'"product": "none"'),
        lambda value: value + b" " * 300_000,  # too large
        lambda value: value.replace(b'"more": 1', b'"more": ' + b"[" * 500 + b"]" * 500),
        lambda value: value.replace(b'"more": 1', b'"more": "\xff"'),
        lambda value: value.decode().encode("utf-16"),
        lambda value: value.replace(b'"', b"'"),
    ],
)
def test_personal_data_is_kept_nowhere_whatever_else_is_wrong(spoil: Any) -> None:
    value = encoded(body("injuries", "e1", START, name=SECRET, more=1))
    bad = spoil(value)
    assert bad != value
    letter = letter_of("injuries", bad)
    assert (letter.reason, letter.field) == ("personal-data", "name")
    assert SECRET not in repr(letter)
    assert SECRET.encode("utf-16-le") not in (letter.value or b"")


def test_keys_in_chinese_are_found_in_gb18030_too() -> None:
    letter = letter_of("injuries", f'{{"姓名": "{SECRET}"}}'.encode("gb18030"))
    assert (letter.reason, letter.field) == ("personal-data", "姓名")
    assert SECRET not in repr(letter)


def test_a_header_that_sends_a_report_elsewhere_does_not_save_it() -> None:
    letter = letter_of(
        "injuries", encoded(body("injuries", "e1", START, name=SECRET)), headers=[("ce_type", b"cn.tocsin.survey")]
    )
    assert letter.reason == "personal-data"
    assert SECRET not in repr(letter)


def test_on_a_topic_of_another_kind_the_reason_stays_and_the_value_goes() -> None:
    wrong = encoded(body("injuries", "e1", START, name=SECRET, gtin=SECRET))
    letter = letter_of("inspections", wrong)
    assert (letter.reason, letter.redacted) == ("wrong-type", True)
    assert SECRET not in repr(letter)
    # A good event of another kind is no concern of this rule: a lab may give the name of whoever signed.
    good = record(0, START, body("inspections", "e1", START, name="Li"))
    assert INTAKE.process(("inspections", 0), [good], START).dead == []


@pytest.mark.parametrize(
    ("topic", "field"), [("injuries", "injury"), ("injuries", "body_part"), ("complaints", "category")]
)
@pytest.mark.parametrize("number", ["13800138000", "11010519491231002X"])
def test_a_number_that_names_a_person_is_refused_in_free_text(topic: str, field: str, number: str) -> None:
    for _ in range(2):
        letter = letter_of(topic, encoded(body(topic, "e1", START, **{field: f"burn; call {number}"})))
        assert (letter.reason, letter.field) == ("personal-data", field)
        assert number not in repr(letter)
    free = record(0, START, body(topic, "e1", START, **{field: f"burn by {GOOD_GTIN}"}))
    assert INTAKE.process((topic, 0), [free], START).dead == []


def test_a_number_in_a_code_is_quoted_by_no_letter() -> None:
    letter = letter_of("injuries", encoded(body("injuries", "e1", START, gtin="13800138000")))
    assert (letter.reason, letter.field, letter.redacted) == ("bad-code", "gtin", True)
    assert "13800138000" not in repr(letter)


def test_a_letter_without_personal_data_keeps_every_byte() -> None:
    value = encoded(body("injuries", "e1", START, severity=9, site="shop"))
    letter = letter_of("injuries", value, key=b"k")
    assert (letter.value, letter.key, letter.redacted) == (value, b"k", False)


@pytest.mark.parametrize("kind", ["injury", "complaint"])
def test_unknown_fields_change_nothing_and_the_order_of_records_neither(kind: Kind) -> None:
    """The guarded decoder learns names as it goes: what it says must not depend on what it has learned."""
    topic = {"injury": "injuries", "complaint": "complaints"}[kind]
    extras: list[dict[str, Any]] = [
        {},
        {"x_1": "a"},
        {"x_1": {"a": 1}},
        {"x_1": {"name": 1}},
        {"x_1": [1e400]},
        {"x_1": 10**40},
    ]
    extras += [{f"field {n}": n, "x_1": None} for n in range(60)]
    values = [encoded(body(topic, "e", START, **extra)) for extra in extras]
    values += [values[1].replace(b'"a"', text) for text in (b'"\xff"', rb'"\ud800"', b"[\xff]", b"01", b"")]
    used = GuardedDecoder(kind)
    plain = msgspec.json.Decoder(EVENT_TYPES[kind])
    for value in values + values[::-1]:
        said = [_outcome(decoder, value) for decoder in (used, GuardedDecoder(kind))]
        assert said[0] == said[1]
        if personal_field(value, kind) is None:
            assert said[0] == _outcome(plain, value)
    assert len(used._cleared) == 32


@pytest.mark.parametrize("name", ['ba"tch', "a\\b", '"', "\\", "`", "x` - at `$`", "cleared_0", "event_id ", "\u2028"])
@pytest.mark.parametrize("topic", ["injuries", "complaints"])
def test_no_name_of_an_unknown_field_ends_the_work(topic: str, name: str) -> None:
    decoder = GuardedDecoder(kind_of_topic(topic))
    for _ in range(3):
        for extra in ({name: "x"}, {"another": 1, name: 2}, {}):
            assert decoder.decode(encoded({**body(topic, "e1", START), **extra})).event_id == "e1"


def _outcome(decoder: Any, value: bytes) -> Any:
    try:
        event = decoder.decode(value)
    except Exception as error:
        return type(error).__name__, str(error)
    return [
        getattr(event, name)
        for name in EVENT_TYPES["injury" if hasattr(event, "site") else "complaint"].__struct_fields__
    ]


def test_redaction_is_bounded_and_never_fails() -> None:
    for value in (
        b"",
        b"[]",
        b"7",
        b"\xff",
        b"{" * 5_000,
        b'{"a": ' * 5_000,
        encoded({f"k{n}": n for n in range(9_999)}),
    ):
        assert len(redacted(value)) < 10_000
    kept = json.loads(redacted(encoded({"event_id": "13800138000", "source": "s" * 999, "product": ["x"], "a": 3})))
    assert kept == dict.fromkeys(("event_id", "source", "product", "a"), "[redacted]")


# --- files ---------------------------------------------------------------------------------------------------------


def letters_of_file(path: Path, topic: str) -> list[DeadLetter]:
    judge = EventJudge(CONFIG, CONFIG.load_catalogue(), kind_of_topic(topic))
    rows = read_candidates(str(path), topic)
    refused = [one for batch in rows for one in judged(batch, judge)[1]]
    return [
        msgspec.json.decode(_letter(topic, kind_of_topic(topic), one).value or b"", type=DeadLetter) for one in refused
    ]


def test_publish_refuses_and_redacts_lines_of_json(tmp_path: Path) -> None:
    file = tmp_path / "a.ndjson"
    file.write_bytes(
        encoded(body("injuries", "e1", START, name=SECRET)) + b"\n" + encoded({"name": SECRET})[:-4] + b"\n"
    )
    letters = letters_of_file(file, "injuries")
    assert [letter.reason for letter in letters] == ["personal-data"] * 2
    assert SECRET not in repr(letters)
    assert [letter.origin for letter in letters] == ["a.ndjson:1", "a.ndjson:2"]


def test_a_row_of_a_table_that_cannot_be_read_is_told_by_its_place_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    header = "event_id,source,reported_at,product,region,site,severity,name"
    file.write_text(f"{header}\ne1,s,2024-01-01T00:00:00Z,F0101,120101,h,9,{SECRET}\ne2,s,{SECRET}\n", "utf-8")
    letters = letters_of_file(file, "injuries")
    assert sorted((letter.reason, letter.origin, letter.redacted) for letter in letters) == [
        ("malformed-row", "a.csv:3", True), ("out-of-range", "a.csv:2", False)
    ]  # fmt: skip
    assert SECRET not in repr(letters)  # of the other row the columns of the event were read and no more


# --- logs ----------------------------------------------------------------------------------------------------------


def test_nothing_of_a_refused_record_shows_in_the_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refusals = Refusals()
    values = [
        encoded(body("injuries", SECRET, START, **fields))
        for fields in ({"name": SECRET}, {"sex": SECRET}, {"product": SECRET}, {"gtin": "1" * 13, "batch": SECRET})
    ]
    rows = [record(n, START, value) for n, value in enumerate([*values, SECRET.encode(), b"{"])]
    dead = INTAKE.process(("injuries", 0), rows, START).dead
    assert len(dead) == len(rows)
    refusals.add(dead)
    refusals.tell(now=True)
    lines = [JsonFormatter().format(row) for row in caplog.records]
    assert len(lines) == 1
    assert "personal-data" in lines[0]
    assert SECRET not in "".join(lines)


def test_the_rejection_itself_says_no_more_than_the_fields_name() -> None:
    with pytest.raises(Rejection) as caught:
        EventDecoder(CONFIG, CONFIG.load_catalogue()).decode(
            "injury", encoded(body("injuries", "e", START, name=SECRET))
        )
    assert str(caught.value).startswith("name: personal data is not taken")
    assert SECRET not in str(caught.value)
