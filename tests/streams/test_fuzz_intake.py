"""Whatever comes in is accepted, and then valid, or dead-lettered with its reason; nothing else ever happens.

The checks are those of ``python -m tests.fuzz``; here hypothesis makes the records, and shrinks what breaks them.
"""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from fuzz.material import ALL_RAW, ARRIVAL, good_record
from fuzz.targets import TARGETS, Escape, IntakeTarget
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.log import LogRecord

TARGET = IntakeTarget()
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
HEADERS = st.lists(
    st.tuples(st.sampled_from(["ce_type", "ce_id", "x"]), st.none() | st.binary(max_size=20)), max_size=3
)


def fed(topic: str, values: list[bytes | None], headers: Any = ()) -> list[str]:
    records = [LogRecord(n, ARRIVAL, None, value, headers) for n, value in enumerate(values)]
    return [verdict for verdict, _ in TARGET.feed(topic, records)]


@given(st.sampled_from(ALL_RAW), st.lists(st.none() | st.binary(max_size=300), min_size=1, max_size=5), HEADERS)
@settings(max_examples=100, deadline=None)
def test_bytes_are_refused(topic: str, values: list[bytes | None], headers: Any) -> None:
    assert len(fed(topic, values, headers)) == len(values)


@given(st.sampled_from(ALL_RAW), st.data())
@settings(max_examples=200, deadline=None)
def test_records_with_other_fields_and_values_are_judged_one_by_one(topic: str, data: Any) -> None:
    good = good_record(topic, 1, random.Random(1))
    changes = data.draw(st.dictionaries(st.sampled_from(sorted(good)) | st.text(max_size=10), VALUES, max_size=4))
    left_out = data.draw(st.sets(st.sampled_from(sorted(good)), max_size=2))
    changed = {name: value for name, value in {**good, **changes}.items() if name not in left_out}
    value = json.dumps(changed, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    verdicts = fed(topic, [json.dumps(good).encode(), value, json.dumps(good).encode()])
    assert (verdicts[0], verdicts[2]) == ("accepted", "accepted")


@pytest.mark.parametrize("target", TARGETS)
def test_a_seeded_run_has_no_escape_and_repeats_itself(target: str) -> None:
    count = {"intake": 3_000, "codes": 2_000, "importers": 400, "config": 150, "wire": 3_000}[target]
    runs = [list(TARGETS[target]().run(random.Random(11), count)) for _ in range(2)]
    assert runs[0] == runs[1]
    assert sum(number for _, number in runs[0]) >= count
    assert len({verdict for verdict, _ in runs[0]}) > 2


def test_the_checks_see_what_they_are_there_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that lets everything through, one that fails, and one that loses records are escapes."""
    from streams import intake

    good = json.dumps(good_record("injuries", 1, random.Random(1))).encode()
    records = [LogRecord(n, ARRIVAL, None, value, ()) for n, value in enumerate([good, b"{", good])]
    whole = TARGET._intakes[0]
    decode = whole.decoder.decode
    for broken in (lambda *_: 1 / 0, lambda kind, value, arrival: decode(kind, good, arrival)):
        monkeypatch.setattr(whole.decoder, "decode", broken)
        with pytest.raises(Escape):
            _many(records)
    monkeypatch.undo()
    letter = intake.dead_letter
    monkeypatch.setattr(intake, "dead_letter", lambda *a, **k: msgspec.structs.replace(letter(*a, **k), reason=""))
    with pytest.raises(Escape, match="without reason"):
        _many(records)


def _many(records: list[LogRecord]) -> None:
    """Often enough for a check that is made on a sample."""
    for _ in range(40):
        list(TARGET.feed("injuries", records))
