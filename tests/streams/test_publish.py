"""Rows of files go to a raw topic, or to dead-letters with their file and line."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import DAY, START, body, encoded
from small_world import fails, inspections, invoke, succeeds, write_ndjson

from schemas.alerts import DeadLetter
from schemas.errors import ConfigError, Rejection
from streams.config import Config
from streams.log import LogRecord, SqliteLog
from streams.mapping import Mapping
from streams.medium import EmbeddedMedium
from streams.publish import Candidate, EventJudge, Tally, check_codes_open, publish, raw_candidates, read_candidates

CONFIG = Config()
CATALOGUE = CONFIG.load_catalogue()


def records(data: Path, topic: str) -> list[LogRecord]:
    log = SqliteLog(data, CONFIG.partitions)
    try:
        medium = EmbeddedMedium(log)
        return [
            record
            for origin, end in medium.ends([topic]).items()
            for batch in medium.read(origin, 0, end, 100)
            for record in batch
        ]
    finally:
        log.close()


def letters(data: Path) -> list[DeadLetter]:
    return [msgspec.json.decode(one.value, type=DeadLetter) for one in records(data, "dead-letters") if one.value]


def judged(value: bytes, now: int, **options: Any) -> Any:
    return EventJudge(CONFIG, CATALOGUE, "inspection", clock=lambda: now / 1_000, **options)(value)


# --- the judge -----------------------------------------------------------------------------------------------------


def test_a_good_event_takes_its_product_as_key_and_its_report_as_time() -> None:
    value = encoded(body("inspections", "e", START))
    assert judged(value, START + 900 * DAY) == (START, b"F0101", value, ())


@pytest.mark.parametrize(("ahead", "good"), [(299_000, True), (301_000, False)])
def test_a_report_from_the_future_is_refused_by_the_wall_clock(ahead: int, good: bool) -> None:
    value = encoded(body("inspections", "e", START + ahead))
    if good:
        judged(value, START)
        return
    with pytest.raises(Rejection, match="lies ahead of this machine's clock") as caught:
        judged(value, START)
    assert (caught.value.reason, caught.value.field) == ("clock-ahead", "reported_at")


def test_history_goes_only_where_it_keeps_its_time() -> None:
    value = encoded(body("inspections", "e", START))
    judged(value, START + 500 * DAY)
    with pytest.raises(Rejection) as caught:
        judged(value, START + 500 * DAY, given_times=False)
    assert caught.value.reason == "too-late"


# --- files ---------------------------------------------------------------------------------------------------------


def as_csv(events: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(events[0]))
    writer.writeheader()
    writer.writerows(events)
    return text.getvalue().encode()


def test_ndjson_csv_parquet_gzip_and_standard_input_give_the_same_events(tmp_path: Path) -> None:
    events = inspections()
    lines = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
    (tmp_path / "e.ndjson").write_bytes(lines)
    (tmp_path / "e").write_bytes(lines)
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "e.csv").write_bytes(as_csv(events))
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "e.parquet")
    found = []
    for name in ("e.ndjson", "e", "e.jsonl.gz", "e.csv", "e.parquet"):
        result = succeeds("publish", "inspections", tmp_path / name, "--data", tmp_path / f"d-{name}")
        assert result.stdout.startswith("120 events published to inspections in ")
        found.append(tmp_path / f"d-{name}")
    succeeds("publish", "inspections", "-", "--data", tmp_path / "stdin", given=lines)
    succeeds("publish", "inspections", "-", "--format", "csv", "--data", tmp_path / "csv", given=as_csv(events))
    sets = [
        sorted(
            (one.timestamp, one.key, str(sorted(msgspec.json.decode(one.value or b"").items())))
            for one in records(data, "inspections")
        )
        for data in (*found, tmp_path / "stdin", tmp_path / "csv")
    ]
    # Tables give times with seconds and numbers as numbers: the same events, if not the same bytes.
    assert len({tuple((time, key) for time, key, _ in one) for one in sets}) == 1
    assert len({tuple(one) for one in sets[:3]}) == 1
    assert len(sets[0]) == 120


def test_a_line_of_ndjson_goes_through_byte_for_byte(tmp_path: Path) -> None:
    line = b'{ "event_id":"e",  "source" :"s","reported_at":"2024-01-01T00:00:00","product":"F0101","x":[1],'
    line += b'"region":"120101","lab":"l","verdict":"pass"}'
    succeeds("publish", "inspections", "-", "--data", tmp_path, given=line + b"\r\n")
    assert [one.value for one in records(tmp_path, "inspections")] == [line]


def test_a_mapping_knows_its_topic_and_opens_the_catalogue(tmp_path: Path) -> None:
    rows = [
        {
            "report_id": str(n),
            "created_date": "01/02/2009",
            "role": "Suspect",
            "industry": "25",
            "product": f"PETER PAN {n}",
        }
        for n in range(3)
    ]
    file = tmp_path / "caers.csv"
    file.write_bytes(as_csv(rows))
    for args in ((file,), ("injuries", file)):
        succeeds("publish", *args, "--mapping", "fda-caers", "--data", tmp_path / "d")
    found = records(tmp_path / "d", "injuries")
    assert {one.key for one in found} == {b"25/PETER/PETER PAN"}
    assert 'catalogue = "open"' in (tmp_path / "d" / "tocsin.toml").read_text()
    assert fails("publish", "losses", file, "--mapping", "fda-caers", "--data", tmp_path / "d").status == 2


def test_a_closed_catalogue_is_told_before_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="brings its own codes, and catalogue tianjin is closed"):
        check_codes_open(Mapping.builtin("fda-caers"), CATALOGUE)
    succeeds("publish", "inspections", write_ndjson(tmp_path / "i", inspections()[:1]), "--data", tmp_path / "d")
    failure = fails("publish", tmp_path / "i", "--mapping", "fda-caers", "--data", tmp_path / "d")
    assert "catalogue tianjin is closed" in failure.line


# --- rejected rows -------------------------------------------------------------------------------------------------

CORRUPT = [
    (b"no json", "malformed-json"),
    (b'{"event_id":"e"}', "missing-field"),
    (b"\xff\xfe{}", "not-utf-8"),
    (b'{"x":' * 3_000, "malformed-json"),
    (encoded(body("inspections", "e", START, failed=-1)), "out-of-range"),
    (encoded(body("inspections", "e", START, tested=1, failed=2)), "inconsistent"),
    (encoded(body("inspections", "e", START, product="ZZ")), "unknown-code"),
    (encoded(body("inspections", "e", START, producer="91350100M000100Y44")), "bad-check-digit"),
    (encoded(body("inspections", "e", START, reported_at="2090-01-01T00:00:00")), "clock-ahead"),
    (encoded(body("inspections", "e", START, tested=float("nan"))), "malformed-json"),
    (encoded(body("inspections", "e", START, lab="x" * 5_000_000)), "too-large"),
]


def test_each_bad_row_is_told_kept_and_passed(tmp_path: Path) -> None:
    good = encoded(body("inspections", "good", START))
    lines = [line for line, _ in CORRUPT]
    result = invoke("publish", "inspections", "-", "--data", tmp_path, given=b"\n".join([*lines, good]))
    assert result.exit_code == 1
    told = [line.split(": ")[:2] for line in result.stderr.splitlines()]
    assert sorted(told) == sorted([f"stdin:{n}", reason] for n, (_, reason) in enumerate(CORRUPT, 1))
    assert f"1 events published to inspections in {tmp_path}, {len(CORRUPT)} rejected (" in result.stdout
    assert len(records(tmp_path, "inspections")) == 1
    kept = {letter.origin: letter for letter in letters(tmp_path)}
    for number, (line, reason) in enumerate(CORRUPT, 1):
        letter = kept[f"stdin:{number}"]
        assert (letter.reason, letter.stage, letter.topic, letter.kind) == (
            reason,
            "publish",
            "inspections",
            "inspection",
        )
        assert letter.value is not None
        assert line.startswith(letter.value)
        assert letter.detail


def test_rejects_may_be_allowed(tmp_path: Path) -> None:
    succeeds("publish", "inspections", "-", "--allow-rejects", "--data", tmp_path, given=b"{}\n")


def test_only_the_first_rejects_are_told_one_by_one(tmp_path: Path) -> None:
    result = invoke("publish", "inspections", "-", "--data", tmp_path, given=b"{}\n" * 50)
    assert len(result.stderr.splitlines()) == 21
    assert result.stderr.splitlines()[-1].startswith("... and 30 more")
    assert len(letters(tmp_path)) == 50


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path: Path) -> None:
    line = encoded(body("inspections", "e", START, product="\u001b[31mred"))
    result = invoke("publish", "inspections", "-", "--data", tmp_path, given=line)
    assert result.exit_code == 1
    assert "\x1b" not in result.stderr + result.stdout


def test_raw_takes_lines_as_they_are_and_stamps_them_now(tmp_path: Path) -> None:
    lines = [b"no json", b"", b"\xff", b"x" * 3_000_000]
    before = datetime.now(UTC).timestamp() * 1_000
    succeeds("publish", "complaints", "-", "--raw", "--data", tmp_path, given=b"\r\n".join(lines) + b"\n")
    found = records(tmp_path, "complaints")
    assert [one.value for one in found] == lines
    assert all(one.timestamp >= int(before) for one in found)
    assert letters(tmp_path) == []


def test_dispositions_are_events_of_their_own_kind(tmp_path: Path) -> None:
    line = b'{"disposition_id":"d","alert_id":"a","action":"close","by":"me","at":"2024-01-01T00:00:00Z"}'
    bad = line.replace(b"close", b"burn")
    result = invoke("publish", "dispositions", "-", "--data", tmp_path, given=line + b"\n" + bad)
    assert result.exit_code == 1
    assert [(one.key, one.value) for one in records(tmp_path, "dispositions")] == [(b"a", line)]
    assert [(one.reason, one.kind) for one in letters(tmp_path)] == [("unknown-value", "disposition")]


# --- appending -----------------------------------------------------------------------------------------------------


class Failing(EmbeddedMedium):
    """Breaks at the second batch."""

    written = 0

    def write(self, topic: str, records: Any) -> None:
        if self.written:
            raise OSError("full")
        self.written += 1
        super().write(topic, records)


def test_the_tally_holds_what_is_durable_when_writing_fails(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 4)
    tally = Tally()
    value = encoded(body("inspections", "e", START))
    batches = [[Candidate("f:1", value, value)] * 3] * 2
    with pytest.raises(OSError, match="full"):
        publish(Failing(log), "inspections", batches, EventJudge(CONFIG, CATALOGUE, "inspection"), tally)
    assert (tally.published, tally.rejected) == (3, 0)
    log.close()


def test_progress_goes_to_the_end_of_the_file(tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "i.ndjson", inspections())
    seen: list[tuple[int, int | None]] = []
    list(read_candidates(str(file), "inspections", progress=lambda done, total: seen.append((done, total))))
    size = file.stat().st_size
    assert seen[-1] == (size, size)
    assert sum(map(len, raw_candidates(str(file)))) == 120
