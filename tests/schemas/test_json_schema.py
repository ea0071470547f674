"""The shipped JSON Schema files are current, and judge as the Structs do."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.__main__ import main
from schemas.events import EVENT_TYPES
from schemas.json_schema import FOLDER, PUBLISHED, render, schema_of, stale, write

COMMON = {"event_id": "e1", "source": "s", "reported_at": "2024-03-01T08:00:00+08:00"}
PLACE = {"product": "F0201", "region": "120101"}
ITEM = {"parameter": "Pb", "value": 0.7, "conforming": False}
TEXT = {"zh": "甲", "en": "A"}
GOOD: dict[str, dict[str, Any]] = {
    "inspection": {**COMMON, **PLACE, "lab": "L", "verdict": "fail", "items": [ITEM]},
    "injury": {**COMMON, **PLACE, "site": "H", "severity": 3},
    "complaint": {**COMMON, **PLACE, "channel": "12315"},
    "accident": {**COMMON, **PLACE, "authority": "A", "deaths": 12},
    "survey": {**COMMON, **PLACE, "surveyor": "S", "score": 81.5},
    "loss": {**COMMON, **PLACE, "producer": "91350100M000100Y43", "loss_cny": 1, "output_cny": 10},
    "signal": {
        **PLACE, "tick": 1, "as_of": COMMON["reported_at"], "kind": "pass-rate", "role": "primary",
        "level": 2, "scope": "cell", "p_value": 0.001, "excess": 2.5, "evidence": [],
    },
    "alert": {
        **PLACE, "id": "a", "revision": 1, "status": "opened", "level": 1, "grade": "I", "colour": "red",
        "kind": "pass-rate", "scope": "cell", "product_name": TEXT, "region_name": TEXT, "headline": TEXT,
        "onset": COMMON["reported_at"], "as_of": COMMON["reported_at"],
        "provenance": {"config": "c", "version": "1", "catalogue": "t"},
    },
    "disposition": {
        "disposition_id": "d", "alert_id": "a", "action": "close", "by": "x", "at": COMMON["reported_at"],
    },
    "dead-letter": {
        "reason": "r", "field": "", "detail": "d", "topic": "t", "partition": 0, "offset": 1, "timestamp": 2,
        "stage": "intake", "value": "AAA=",
    },
}  # fmt: skip
# What replaces a field to see whether both judges agree.
ODD: list[Any] = [
    None, "", "x", "a\tb", "x" * 20, "x" * 201, -1, 0, 1, 5, 1.5, 66_000, 2_000_000_000, 10**16, 101, True,
    [], {}, [1], "2024-03-01", "2024-03-01T08:00:00", "2024-03-01 08:00:00Z", "2024-13-01T08:00:00Z",
    "2024-03-01T25:00:00Z", "fail", "pass", "closed", "export", "male", "injury", "product",
]  # fmt: skip


def accepted(name: str, value: dict[str, Any]) -> bool:
    try:
        msgspec.json.decode(json.dumps(value).encode(), type=PUBLISHED[name])
    except msgspec.ValidationError:
        return False
    return True


def valid(name: str, value: dict[str, Any]) -> bool:
    return bool(jsonschema.Draft202012Validator(schema_of(name)).is_valid(value))


def test_the_shipped_files_are_current() -> None:
    assert stale() == []
    assert sorted(path.name for path in FOLDER.glob("*")) == sorted(f"{name}.schema.json" for name in PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_is_a_valid_titled_schema(name: str) -> None:
    schema = schema_of(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["title"] == PUBLISHED[name].__name__
    assert len(schema["description"]) > 20
    assert render(schema) == render(schema_of(name))
    assert set(GOOD) == set(PUBLISHED) >= set(EVENT_TYPES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_good_sample_passes_both(name: str) -> None:
    assert accepted(name, GOOD[name])
    assert valid(name, GOOD[name])
    assert valid(name, {**GOOD[name], "from-a-newer-version": 1})


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_missing_required_field_fails_both(name: str) -> None:
    for field in schema_of(name)["required"]:
        cut = {key: value for key, value in GOOD[name].items() if key != field}
        assert not accepted(name, cut), field
        assert not valid(name, cut), field


@pytest.mark.parametrize("name", PUBLISHED)
def test_both_judge_every_odd_value_of_every_field_alike(name: str) -> None:
    schema = schema_of(name)
    judge = jsonschema.Draft202012Validator(schema)
    for field, definition in schema["properties"].items():
        for odd in ODD:
            if "base64" in str(definition) and isinstance(odd, str):
                continue  # contentEncoding is an annotation in JSON Schema: it rejects nothing
            value = {**GOOD[name], field: odd}
            assert accepted(name, value) == bool(judge.is_valid(value)), (field, odd)


@given(st.sampled_from(sorted(EVENT_TYPES)), st.data())
def test_both_judge_random_texts_alike(name: str, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(["event_id", "product", "region"]))
    text = data.draw(st.text(st.characters(blacklist_categories=["Cs"]), max_size=170))
    value = {**GOOD[name], field: text}
    assert accepted(name, value) == valid(name, value)


def test_stale_names_what_is_missing_changed_and_stray(tmp_path: Path) -> None:
    write(tmp_path)
    assert stale(tmp_path) == []
    (tmp_path / "injury.schema.json").unlink()
    (tmp_path / "survey.schema.json").write_text("{}")
    (tmp_path / "old.schema.json").write_text("{}")
    said = "\n".join(stale(tmp_path))
    assert "injury.schema.json: is missing" in said
    assert "survey.schema.json: differs from the Struct Survey" in said
    assert "old.schema.json: belongs to no Struct" in said


def test_the_check_command_exits_1_only_when_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check"]) == 0
    assert "is current" in capsys.readouterr().out
    monkeypatch.setitem(PUBLISHED, "extra", PUBLISHED["injury"])
    assert main(["--check"]) == 1
    assert "extra.schema.json: is missing" in capsys.readouterr().err
