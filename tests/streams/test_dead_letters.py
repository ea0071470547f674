"""Dead letters: found by conditions, shown to the byte, mended, and written again without going round in circles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import DAY, START, body, encoded, iso
from hypothesis import given
from hypothesis import strategies as st
from small_world import fails, invoke, succeeds

from schemas.errors import TocsinError
from streams.config import Config
from streams.embedded import INPUTS, EmbeddedRuntime
from streams.letters import Letter, conditions, read_letters, requeued_places
from streams.log import LogRecord, SqliteLog
from streams.medium import EmbeddedMedium, Outgoing
from streams.metrics import Metrics
from streams.repair import changed, export_line, parse_changes, read_repaired
from streams.requeue import FROM_HEADER, LETTER_HEADER, MAX_ATTEMPTS

PARTS = 4
HEADERS = (("ce_type", b"org.tocsin.complaint"), ("trace", b"\x00\xff"))
WRONG_REGION = encoded(body("complaints", "wrong", START, region="999999"))


def put(data: Path, topic: str, *records: Outgoing) -> None:
    medium = EmbeddedMedium(SqliteLog(data, PARTS))
    medium.write(topic, records)
    medium.close()


def held(data: Path, topic: str) -> list[LogRecord]:
    """All records of a topic."""
    log = SqliteLog(data, PARTS)
    found = [record for origin in log.ends([topic]) for record in log.read(origin, 0, 10**6)]
    log.close()
    return found


def letters(data: Path) -> list[Letter]:
    medium = EmbeddedMedium(SqliteLog(data, PARTS))
    found = list(read_letters(medium))
    medium.close()
    return found


def run(data: Path) -> None:
    succeeds("run", "--until-end", "--data", data)


def ask(*args: object, data: Path, status: int = 0) -> tuple[str, str]:
    """What a subcommand of dead-letters says on its two streams."""
    result = invoke("dead-letters", *args, "--data", data)
    assert result.exit_code == status, (result.stdout, result.stderr)
    assert "Traceback" not in result.stderr
    return result.stdout, result.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six refused records and a good one: a wrong region, no JSON, fields missing, not UTF-8, a clock that was ahead,
    a tombstone."""
    place = tmp_path / "data"
    ahead = encoded(body("injuries", "ahead", START + DAY))
    put(
        place, "complaints",
        Outgoing(START, b"k\xff", WRONG_REGION, HEADERS),
        Outgoing(START + 1, None, b'{"event_id": "cut'),
        Outgoing(START + 2, None, encoded({"event_id": "e", "source": "s"})),
        Outgoing(START + 3, None, b"\xff\x1b[2J\n"),
        Outgoing(START + 4, None, encoded(body("complaints", "good", START))),
    )  # fmt: skip
    put(place, "injuries", Outgoing(START + 5, None, ahead), Outgoing(START + 6, None, None))
    run(place)
    return place


def by_reason(data: Path) -> dict[str, Letter]:
    return {one.letter.reason: one for one in letters(data)}


def wrong_region(data: Path) -> Letter:
    return next(one for one in letters(data) if one.letter.value == WRONG_REGION)


# --- looking -------------------------------------------------------------------------------------------------------


def test_the_list_can_be_narrowed_by_what_a_letter_says(data: Path) -> None:
    def places(*wheres: str) -> list[int]:
        options = [part for where in wheres for part in ("--where", where)]
        return [json.loads(line)["place"] for line in ask("list", "--json", *options, data=data)[0].splitlines()]

    every = {one.place: one.letter for one in letters(data)}
    assert places() == sorted(every) == list(range(6))
    for name in ("reason", "field", "topic", "stage", "partition", "offset"):
        for wanted in {getattr(letter, name) for letter in every.values()}:
            expected = [place for place, letter in every.items() if getattr(letter, name) == wanted]
            assert places(f"{name}={wanted}") == expected
            assert places(f"{name}!={wanted}") == [place for place in every if place not in expected]
    assert places("kind=injury") == [place for place, letter in every.items() if letter.kind == "injury"]
    assert places("topic=complaints", "reason!=not-utf-8", "offset!=0") == [
        place
        for place, letter in every.items()
        if letter.topic == "complaints" and letter.offset and letter.reason != "not-utf-8"
    ]
    assert places("place=2") == [2]
    assert places("attempts=0") == list(range(6))


def test_times_are_read_in_the_deployments_offset_and_before_leaves_its_moment_out(data: Path) -> None:
    def count(*wheres: str) -> int:
        options = [part for where in wheres for part in ("--where", where)]
        return len(ask("list", "--json", *options, data=data)[0].splitlines())

    assert count("after=2024-01-01") == count("after=2024-01-01T00:00:00+08:00") == 6
    assert count("before=2024-01-01T00:00:00.002+08:00") == 2
    assert count("after=2024-01-01T00:00:00.002+08:00", "before=2024-01-01T00:00:00.003+08:00") == 1
    assert count("after=2024-01-01T00:00:00Z") == 0


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("reason", "NAME=VALUE"),
        ("colour=red", "where NAME is one of reason, field"),
        ("__class__=x", "NAME=VALUE"),
        ("offset=3.5", "offset is a whole number"),
        ("offset=9999999999999999999999", "offset is a whole number"),
        ("after=soon", "a time is written as in 2026"),
        ("before!=2024-01-01", "a time is given as before=TIME"),
    ],
)
def test_a_condition_that_makes_no_sense_is_one_line(data: Path, where: str, said: str) -> None:
    for sub in (("list",), ("export", data / "f.ndjson"), ("requeue",)):
        result = invoke("dead-letters", *sub, "--where", where, "--data", data)
        assert result.exit_code == 1, sub
        assert said in result.stderr
        assert len(result.stderr.splitlines()) == 1


@given(st.text(max_size=60))
def test_no_text_of_a_condition_does_harm(text: str) -> None:
    try:
        found = conditions([text], Config())
    except TocsinError:
        return
    assert len(found) == 1


def test_one_letter_is_shown_with_its_fields_bytes_and_headers(data: Path) -> None:
    place = wrong_region(data).place
    shown, _ = ask("show", place, data=data)
    about = letters(data)[place].letter
    assert about.reason in shown
    assert about.detail.split(";")[0][:40] in shown
    assert f"complaints-{about.partition}@{about.offset}" in shown
    assert "k\\xff" in shown
    assert "org.tocsin.complaint" in shown
    assert "\\xff" in shown
    assert WRONG_REGION.decode() in shown
    as_json = json.loads(ask("show", place, "--json", data=data)[0])
    assert (as_json["place"], as_json["reason"], as_json["requeued"]) == (place, about.reason, 0)
    raw = by_reason(data)["not-utf-8"].place
    assert "\x1b" not in ask("show", raw, data=data)[0]
    assert "\\xff\\x1b[2J\\n" in ask("show", raw, data=data)[0]
    assert invoke("dead-letters", "show", raw, "--bytes", "--data", data).stdout_bytes == b"\xff\x1b[2J\n"
    assert "(null)" in ask("show", by_reason(data)["tombstone"].place, data=data)[0]


def test_a_place_without_a_letter_is_told(data: Path) -> None:
    assert "no dead letter stands at 99" in fails("dead-letters", "show", "99", "--data", data).line
    assert invoke("dead-letters", "show", "-1", "--data", data).exit_code == 2


def test_what_strangers_wrote_to_the_topic_is_passed_over(data: Path) -> None:
    put(data, "dead-letters", Outgoing(START, None, b"\xffno letter"), Outgoing(START, None, b'{"a":1}'))
    assert len(ask("list", "--json", data=data)[0].splitlines()) == 6


# --- writing again -------------------------------------------------------------------------------------------------


def test_a_mended_record_is_written_again_with_its_key_its_headers_and_where_it_came_from(data: Path) -> None:
    letter = wrong_region(data)
    fix = ("--where", f"place={letter.place}", "--set", "region=120101")
    said, _ = ask("requeue", *fix, "--dry-run", data=data)
    assert said == "1 would be requeued\n"
    assert len(held(data, "complaints")) == 5
    assert ask("requeue", *fix, data=data)[0] == "1 requeued\n"
    (added,) = [one for one in held(data, "complaints") if dict(one.headers).get("tocsin-requeued")]
    assert added.key == b"k\xff"
    assert json.loads(added.value or b"") == json.loads(WRONG_REGION) | {"region": "120101"}
    source = f"complaints-{letter.letter.partition}@{letter.letter.offset}".encode()
    assert list(added.headers) == [
        ("tocsin-requeued", b"1"), (FROM_HEADER, source), (LETTER_HEADER, str(letter.place).encode()), *HEADERS,
    ]  # fmt: skip
    run(data)
    assert len(letters(data)) == 6, "it was refused again"
    table, _ = ask("list", data=data)
    assert table.splitlines()[1 + letter.place].split()[-1] == "yes"
    assert ask("requeue", *fix, data=data)[0] == "0 requeued, 1 left alone, requeued before\n"
    assert len(held(data, "complaints")) == 6


def test_a_requeued_record_is_a_record_like_any_other_to_a_replay(data: Path, tmp_path: Path) -> None:
    dead = encoded(body("injuries", "grave", START, outcome="died", region="999999"))
    put(data, "injuries", Outgoing(START + 2 * DAY, None, dead))
    run(data)
    ask("requeue", "--where", "field=region", "--set", "region=120101", data=data)
    run(data)
    succeeds("replay", "--data", data, "--out", tmp_path / "again")
    succeeds("alerts", "export", tmp_path / "live.ndjson", "--data", data)
    live = (tmp_path / "live.ndjson").read_bytes()
    assert live == (tmp_path / "again" / "alerts.ndjson").read_bytes()
    assert live.count(b'"grave-event"') >= 1


def test_what_would_only_be_refused_again_is_not_written(data: Path) -> None:
    before = {topic: len(held(data, topic)) for topic in INPUTS}
    said, told = ask("requeue", "--all", data=data, status=1)
    # The record whose clock was ahead arrives late enough by now: it alone goes through.
    assert said == "1 requeued, 5 that would be refused again\n"
    assert "malformed-json" in told
    assert "tombstone" in told
    after = {topic: len(held(data, topic)) for topic in INPUTS}
    assert {topic: after[topic] - before[topic] for topic in INPUTS if after[topic] != before[topic]} == {"injuries": 1}


def test_a_record_refused_after_it_was_requeued_is_known_as_such_and_the_attempts_are_bounded(tmp_path: Path) -> None:
    data = tmp_path / "data"
    put(data, "complaints", Outgoing(START, None, WRONG_REGION))
    run(data)
    # Somebody else writes it again, still wrong, with our headers: no command of ours would.
    headers = (("tocsin-requeued", b"1"), (FROM_HEADER, b"complaints-0@0"), (LETTER_HEADER, b"0"))
    put(data, "complaints", Outgoing(START + DAY, None, WRONG_REGION, headers))
    run(data)
    assert [one.attempts for one in letters(data)] == [0, 1]
    assert "refused after 1" in ask("list", data=data)[0]
    fix = ("--where", "place=1", "--set", "region=120101")
    said, told = ask("requeue", *fix, data=data)
    assert said == "0 requeued, 1 left alone, requeued before\n"
    assert "--again insists" in told
    assert ask("requeue", *fix, "--again", data=data)[0] == "1 requeued\n"
    last = max(held(data, "complaints"), key=lambda record: record.offset)
    assert dict(last.headers)["tocsin-requeued"] == b"2"
    assert dict(last.headers)[FROM_HEADER] == b"complaints-0@0"
    assert len(last.headers) == 3
    for _ in range(MAX_ATTEMPTS - 2):
        assert ask("requeue", *fix, "--again", data=data)[0] == "1 requeued\n"
    assert ask("requeue", *fix, "--again", data=data)[0] == "0 requeued, 1 left alone, tried too often\n"
    assert requeued_places(EmbeddedMedium(SqliteLog(data, PARTS))) == {1: MAX_ATTEMPTS - 1}


@pytest.mark.parametrize("text", [b"many", b"-3", b"99999999", b"", "٣".encode(), b"1" * 100])
def test_a_stranger_who_writes_our_header_confuses_nobody(tmp_path: Path, text: bytes) -> None:
    put(tmp_path / "d", "complaints", Outgoing(START, None, WRONG_REGION, (("tocsin-requeued", text),)))
    run(tmp_path / "d")
    assert [one.attempts for one in letters(tmp_path / "d")] == [0]
    said, _ = ask("requeue", "--all", "--set", "region=120101", data=tmp_path / "d")
    assert said == "1 requeued\n"


def test_one_must_say_which(data: Path) -> None:
    failure = fails("dead-letters", "requeue", "--data", data)
    assert failure.status == 2
    assert "give --where, --from or --all" in failure.line


def test_a_row_that_never_became_a_record_becomes_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    row = encoded(body("complaints", "a", START, region="999999"))
    invoke("publish", "complaints", "-", "--data", data, given=row + b"\n")
    assert ask("requeue", "--all", "--set", "region=120101", data=data)[0] == "1 requeued\n"
    (record,) = held(data, "complaints")
    assert record.key == b"F0101"
    assert dict(record.headers)[FROM_HEADER].startswith(b"complaints<")


def test_an_event_counted_meanwhile_counts_once(data: Path) -> None:
    right = {**json.loads(WRONG_REGION), "region": "120101"}
    put(data, "complaints", Outgoing(START, None, encoded(right)))
    run(data)
    ask("requeue", "--where", f"place={wrong_region(data).place}", "--set", "region=120101", data=data)
    log = SqliteLog(data, PARTS)
    config = Config.load(data / "tocsin.toml")
    runtime = EmbeddedRuntime(log, config, config.load_catalogue())
    before = len(runtime.pipeline.assess.state.ledger)
    runtime.run_to_end()
    assert len(runtime.pipeline.assess.state.ledger) == before
    log.close()


def test_dispositions_can_be_requeued_too(tmp_path: Path) -> None:
    data = tmp_path / "data"
    row = {"disposition_id": "d", "alert_id": "a", "action": "burn", "by": "me", "at": iso(START)}
    put(data, "dispositions", Outgoing(START, b"a", encoded(row)))
    run(data)
    assert ask("requeue", "--all", "--set", "action=close", data=data)[0] == "1 requeued\n"
    assert [json.loads(one.value or b"")["action"] for one in held(data, "dispositions")] == ["burn", "close"]


def test_the_topic_that_a_letter_names_must_be_a_raw_one(data: Path) -> None:
    letter = msgspec.structs.replace(letters(data)[0].letter, topic="emergency-response")
    put(data, "dead-letters", Outgoing(START, None, msgspec.json.encode(letter)))
    said, told = ask("requeue", "--where", "topic=emergency-response", data=data, status=1)
    assert "emergency-response is not a raw topic" in told
    assert said.startswith("0 requeued")


# --- originals that are not in the letter --------------------------------------------------------------------------


def big(region: str) -> bytes:
    items = [{"parameter": f"p{n}", "unit": "u" * 30, "value": "v" * 199, "conforming": True} for n in range(256)]
    return encoded(body("inspections", "big", START, region=region, items=items))


def test_a_cut_value_is_read_from_the_raw_topic(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert 65_536 < len(big("999999")) < 262_144
    put(data, "inspections", Outgoing(START, b"k" * 2_000, big("999999"), (("h", b"x" * 3_000),)))
    run(data)
    shown, told = ask("show", "0", data=data)
    assert "read from inspections-" in told
    assert shown.rstrip().endswith(big("999999").decode()[-40:])
    assert ask("requeue", "--all", "--set", "region=120101", data=data)[0] == "1 requeued\n"
    (added,) = [one for one in held(data, "inspections") if dict(one.headers).get("tocsin-requeued")]
    assert json.loads(added.value or b"") == json.loads(big("120101"))
    assert added.key == b"k" * 2_000
    assert dict(added.headers)["h"] == b"x" * 3_000


@pytest.mark.parametrize("what", ["gone", "another"])
def test_a_cut_value_whose_record_is_gone_is_refused_in_clear_words(tmp_path: Path, what: str) -> None:
    data = tmp_path / "data"
    put(data, "inspections", Outgoing(START, None, big("999999")))
    run(data)
    (letter,) = letters(data)
    if what == "gone":
        changes: dict[str, Any] = {"offset": 7}
        said = "inspections-0@7 is no longer there; ask the sender"
    else:
        changes = {"sha256": "0" * 64}
        said = "inspections-0@0 is another record now"
    twin = msgspec.structs.replace(letter.letter, **changes)
    put(data, "dead-letters", Outgoing(START, None, msgspec.json.encode(twin)))
    out, told = ask("requeue", "--where", "place=1", "--set", "region=120101", data=data, status=1)
    assert out == "0 requeued, 1 without their original\n"
    assert f"the letter holds 65,536 of {len(big('999999')):,} bytes" in told
    assert said in told
    assert said in ask("show", "1", data=data)[1]
    out, told = ask("export", tmp_path / "f.ndjson", "--where", "place=1", data=data, status=1)
    assert said in told
    assert "0 letters written" in out


def test_a_cut_row_that_never_was_a_record_must_be_published_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    invoke("publish", "inspections", "-", "--data", data, given=big("999999") + b"\n")
    _, told = ask("requeue", "--all", "--set", "region=120101", data=data, status=1)
    assert "it never was a record; publish" in told


# --- files ---------------------------------------------------------------------------------------------------------


def test_export_edit_and_requeue_go_round(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "mend.ndjson"
    said, _ = ask("export", file, "--where", "topic=complaints", data=data)
    assert said == f"4 letters written to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    lines = {line["reason"]: line for line in map(json.loads, file.read_text().splitlines())}
    assert lines["not-utf-8"]["base64"]
    assert lines["malformed-json"]["text"] == '{"event_id": "cut'
    region = next(line for line in lines.values() if line.get("field") == "region")
    region["value"]["region"] = "120102"
    text = lines["malformed-json"]
    text["text"] = json.dumps(body("complaints", "whole", START))
    file.write_text("\n".join(json.dumps(line) for line in (region, text)) + "\n\n")
    assert ask("requeue", "--from", file, "--dry-run", data=data)[0] == "2 would be requeued\n"
    assert ask("requeue", "--from", file, data=data)[0] == "2 requeued\n"
    run(data)
    assert len(letters(data)) == 6
    added = [json.loads(one.value or b"") for one in held(data, "complaints") if one.headers and len(one.headers) > 2]
    assert {(one["event_id"], one["region"]) for one in added} == {("wrong", "120102"), ("whole", "120101")}


def test_a_line_that_comes_back_as_it_was_stands_for_the_original_bytes(tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "f.ndjson"
    odd = b'{ "region" : "120101",\n "weight":1.00, ' + encoded(body("injuries", "a", START + DAY))[1:]
    put(data, "injuries", Outgoing(START, None, odd))
    run(data)
    assert [one.letter.reason for one in letters(data)] == ["clock-ahead"]
    ask("export", file, data=data)
    assert ask("requeue", "--from", file, data=data)[0] == "1 requeued\n"
    assert [record.value for record in held(data, "injuries")] == [odd, odd]


@given(st.binary(max_size=200) | st.dictionaries(st.text(), st.integers() | st.floats() | st.text()).map(
    lambda event: json.dumps(event, allow_nan=False, default=str).encode() if _finite(event) else b"{}"))  # fmt: skip
def test_every_value_survives_the_file(value: bytes) -> None:
    import tempfile

    from schemas.alerts import DeadLetter

    letter = DeadLetter(
        reason="r", field="f", detail="d", topic="injuries", partition=0, offset=0, timestamp=0, stage="intake",
        value=value, size=len(value),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "f.ndjson"
        file.write_bytes(export_line(Letter(3, letter), value))
        assert file.read_bytes().count(b"\n") == 1
        found = read_repaired(file)
    assert list(found) == [3]
    assert found[3].over(value) == value


def _finite(event: dict[str, Any]) -> bool:
    try:
        json.dumps(event, allow_nan=False)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"no json", ":1: "),
        (b'{"value":{}}', "missing required field `place`"),
        (b'{"place":0}', "exactly one of value, text and base64"),
        (b'{"place":0,"value":{},"text":""}', "exactly one of value, text and base64"),
        (b'{"place":0,"base64":"?"}', "base64 is not base64"),
        (b'{"place":0,"text":"a"}\n{"place":0,"text":"b"}', ":2: place 0 stands there twice"),
        (b"\xff", ":1: "),
        (b"[" * 100_000, ":1: "),
    ],
)
def test_a_repaired_file_that_makes_no_sense_is_one_line(data: Path, tmp_path: Path, line: bytes, said: str) -> None:
    file = tmp_path / "f.ndjson"
    file.write_bytes(line)
    failure = fails("dead-letters", "requeue", "--from", file, "--data", data)
    assert failure.status == 1
    assert said in failure.line
    assert str(file) in failure.line


def test_a_repaired_line_without_a_letter_is_told_and_a_file_that_is_not_there(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "f.ndjson"
    file.write_text('{"place":77,"value":{}}')
    failure = fails("dead-letters", "requeue", "--from", file, "--data", data)
    assert "no dead letter stands at place 77" in failure.line
    assert "cannot be read" in fails("dead-letters", "requeue", "--from", tmp_path / "no", "--data", data).line


# --- fields --------------------------------------------------------------------------------------------------------


def test_fields_are_set_by_the_paths_that_letters_name() -> None:
    event = {"a": 1, "items": [{"value": 1}, {"value": 2}], "kept": 1.50}
    value = changed(
        json.dumps(event).encode(), parse_changes(["a=7", "items[1].value:=[null]", "new.deep=x", "eq=a=b", "j:=1.5"])
    )
    assert json.loads(value or b"") == {
        "a": "7", "items": [{"value": 1}, {"value": [None]}], "kept": 1.5, "new": {"deep": "x"}, "eq": "a=b", "j": 1.5,
    }  # fmt: skip
    assert changed(b"\xff", []) == b"\xff"


@pytest.mark.parametrize(
    "text", ["region", "=x", "a..b=x", "[0]=x", "a[=x", "a:=x", "a:=", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=1"]
)
def test_a_change_that_makes_no_sense_is_one_line(data: Path, text: str) -> None:
    assert f"--set {text}: " in fails("dead-letters", "requeue", "--all", "--set", text, "--data", data).line


@pytest.mark.parametrize("change", ["a.b=x", "items[9].value=x", "items.x=1", "items[0][0]=1"])
def test_a_change_that_does_not_fit_the_record_leaves_it_alone(change: str) -> None:
    with pytest.raises(TocsinError, match="there is no"):
        changed(b'{"a": 1, "items": [{}]}', parse_changes([change]))


# --- metrics -------------------------------------------------------------------------------------------------------


def test_requeued_records_and_refusals_by_reason_are_counted(data: Path) -> None:
    headers = (("tocsin-requeued", b"1"),)
    put(
        data, "complaints",
        Outgoing(START, None, WRONG_REGION, headers),
        Outgoing(START, None, encoded(body("complaints", "x", START)), headers),
        Outgoing(START, None, b"{"),
    )  # fmt: skip
    config = Config.load(data / "tocsin.toml")
    metrics = Metrics(config, config.load_catalogue(), "embedded")
    log = SqliteLog(data, PARTS)
    EmbeddedRuntime(log, config, config.load_catalogue(), meter=metrics).run_to_end()
    log.close()

    def sample(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    assert sample("tocsin_requeued_events_total", topic="complaints", verdict="accepted") == 1
    assert sample("tocsin_requeued_events_total", topic="complaints", verdict="rejected") == 1
    reasons = [one.letter.reason for one in letters(data)[6:]]
    assert len(reasons) == 2
    for reason in reasons:
        assert sample("tocsin_dead_letters_total", stage="intake", reason=reason) == 1
