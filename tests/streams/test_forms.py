"""Whatever is said to have a form means what a parser says it means."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.forms import LONGEST_FIXED, Form, literal_in
from streams.lines import Lines

NAMES = st.sampled_from(["a", "b", "tested", "名", "long-name", ":", ",", "}", "1"])
TEXTS = st.text(st.sampled_from('ab1 ,:{}[]名"\\\n'), max_size=6)
VALUES = TEXTS | st.integers(-5, 10**6) | st.booleans() | st.none() | st.floats(allow_nan=False)
ODD = b'"{}[],: \\\n\t019.-eEtfna\x7f\xe5\x00'
BYTES = st.sampled_from([b"\\u0041", b"\\u0022", *(bytes([one]) for one in ODD)])


def record_of(fields: dict[str, Any], compact: bool = True) -> bytes:
    separators = (",", ":") if compact else (", ", ": ")
    return json.dumps(fields, ensure_ascii=not compact, separators=separators).encode()


def read(form: Form, values: list[bytes]) -> list[dict[str, Any] | None]:
    """What each of some records holds by the form, None where it has another or holds what no parser would take."""
    found: list[dict[str, Any] | None] = [None] * len(values)
    lines = Lines(values, 10_000)
    rows = dict(lines.by_quotes(1)).get(form.quotes)
    if rows is None:
        return found
    marks = lines.marks(rows, form.quotes)
    same = form.matches(lines.buffer, marks)
    rows, marks = rows[same], marks[:, same]
    places = zip(form.spans, *form.places(marks, list(form.spans)), strict=True)
    columns = {name: lines.buffer.cut(starts, lengths) for name, starts, lengths in places}
    for place, row in enumerate(rows.tolist()):
        try:
            found[row] = {name.decode(): _value(form, name, column[place]) for name, column in columns.items()}
        except msgspec.DecodeError:
            continue
    return found


def _value(form: Form, name: bytes, raw: bytes) -> Any:
    span = form.spans[name]
    literal = b'"' + raw + b'"' if span.text else literal_in(raw, last=span.closes is None)
    return msgspec.json.decode(literal or b"")


@given(st.dictionaries(NAMES, VALUES, min_size=1), st.booleans(), st.data())
def test_a_record_of_a_form_holds_what_the_parser_finds_in_it(fields: Any, compact: bool, data: st.DataObject) -> None:
    form = Form.of(record_of(fields, compact))
    if form is None:
        return
    others = data.draw(st.lists(st.fixed_dictionaries(dict.fromkeys(fields, VALUES)), max_size=4))
    values = [record_of(one, compact) for one in (fields, *others)]
    found = read(form, values)
    assert found[0] == fields
    for value, said in zip(values, found, strict=True):
        assert said is None or said == json.loads(value)


@given(st.dictionaries(NAMES, VALUES, min_size=1), st.data())
def test_a_spoiled_record_has_the_form_only_if_the_parser_takes_it_too(fields: Any, data: st.DataObject) -> None:
    record = record_of(fields)
    form = Form.of(record)
    if form is None:
        return
    spoiled = []
    for _ in range(8):
        at, cut = data.draw(st.integers(0, len(record))), data.draw(st.integers(0, 3))
        spoiled.append(record[:at] + b"".join(data.draw(st.lists(BYTES, max_size=3))) + record[at + cut :])
    for value, said in zip(spoiled, read(form, spoiled), strict=True):
        if said is not None:
            assert said == msgspec.json.decode(value)


@given(st.dictionaries(NAMES, st.text(st.sampled_from("ab1 ,:{}[]名")), min_size=1), st.booleans())
def test_flat_records_of_plain_texts_have_a_form(fields: dict[str, str], compact: bool) -> None:
    form = Form.of(record_of(fields, compact))
    if "名" in fields and not compact:  # its name is written with escapes
        assert form is None
    else:
        assert form is not None
        assert [name.decode() for name in form.spans] == list(fields)


@pytest.mark.parametrize(
    "record",
    [
        b'{"a":"1","a":"2"}', b'{"a":1,"a":2}', b'{"a":"1","a":2}', b'{"a":[1]}', b'{"a":{}}', b'{"a":{"b":"c"}}',
        b'{"\\u0061":"b"}', b'{"a":"\\n"}', b'{"a":"\\uq"}', b'{"a":"\\"}', b"{}", b'"a"', b'["a"]', b'{"a":"b"',
        b'{"a":"b"} ', b' {"a":"b"}', b'{"a" "b"}', b'{"a"}', b'{"a":"b","c"}', b'{"a":tru}', b'{"a":1"b":2}',
        b'{"a":"b""c":"d"}', b'{"a":,"b":1}', b'{"a":1 2}', b'{"a":"\xff"}', b"", b"x", b'{"a":"b",}', b'{"a":1,}',
        b'{,"a":1}', b'{"' + b"n" * LONGEST_FIXED + b'":1}',
    ],
)  # fmt: skip
def test_what_is_no_flat_object_plainly_written_has_no_form(record: bytes) -> None:
    assert Form.of(record) is None


def test_a_literal_that_closes_the_record_early_is_not_taken_for_one() -> None:
    form = Form.of(b'{"n":12,"b":"y"}')
    assert form is not None
    assert read(form, [b'{"n":12}"b":"y"}', b'{"n":7,"b":"z"}']) == [None, {"n": 7, "b": "z"}]


def test_records_after_the_last_do_not_reach_beyond_the_buffer() -> None:
    form = Form.of(b'{"a":"b","' + b"n" * 100 + b'":"c"}')
    assert form is not None
    assert read(form, [b'{"a":"""""""']) == [None]
