"""A replay gives the alerts of the live run, byte for byte, and leaves its source alone."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from builders import DAY, START, body
from small_world import DAYS, accident, fails, fill, inspections, succeeds, write_ndjson

from schemas.alerts import Alert, Signal
from streams.config import Config
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium
from streams.outputs import canonical
from streams.replay import sealed_until


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was filled and run."""
    folder = tmp_path_factory.mktemp("live")
    data = fill(folder / "data", folder)
    succeeds("run", "--until-end", "--data", data)
    return data


def exported(data: Path, to: Path) -> bytes:
    succeeds("alerts", "export", to, "--data", data)
    return to.read_bytes()


def contents(data: Path) -> list[Any]:
    log = SqliteLog(data, 4)
    try:
        topics = ("inspections", "accidents", "emergency-response", "signals", "dead-letters")
        return [list(log.read(origin, 0, 10_000)) for origin in log.ends(topics)]
    finally:
        log.close()


@pytest.mark.parametrize("batch", [1, 7, 5_000])
def test_a_replay_equals_the_live_run_whatever_the_batch(live: Path, tmp_path: Path, batch: int) -> None:
    before = contents(live)
    result = succeeds("replay", "--data", live, "--out", tmp_path / "again", "--batch", batch)
    assert result.stdout.startswith("121 records, 0 refused, ")
    replayed = (tmp_path / "again" / "alerts.ndjson").read_bytes()
    assert replayed == exported(live, tmp_path / "live.ndjson")
    assert replayed == succeeds("alerts", "list", "--canonical", "--data", live).stdout_bytes
    assert len(replayed.splitlines()) >= 2
    assert b"emitted_at" not in replayed
    assert contents(live) == before


def test_processes_beside_show_in_no_result(live: Path, tmp_path: Path) -> None:
    for jobs in (1, 3):
        succeeds("replay", "--data", live, "--out", tmp_path / str(jobs), "--jobs", jobs, "--batch", 7)
        part = ("--as-of", "2024-01-26", "--since", "2024-01-02")
        succeeds("replay", "--data", live, "--out", tmp_path / f"part-{jobs}", "--jobs", jobs, *part)
    for name in ("", "part-"):
        for file in ("alerts.ndjson", "signals.ndjson"):
            one, three = ((tmp_path / f"{name}{jobs}" / file).read_bytes() for jobs in (1, 3))
            assert one == three != b""


def test_a_replay_of_files_equals_the_live_run(live: Path, tmp_path: Path) -> None:
    events = write_ndjson(tmp_path / "i.ndjson", inspections())
    grave = write_ndjson(tmp_path / "a.ndjson", [accident()])
    out = tmp_path / "again"
    succeeds("replay", f"inspections={events}", f"accidents={grave}", "--out", out)
    assert (out / "alerts.ndjson").read_bytes() == exported(live, tmp_path / "live.ndjson")
    assert sorted(file.name for file in out.iterdir()) == [
        "alerts.ndjson", "signals.ndjson", "signals.parquet", "tocsin.toml",
    ]  # fmt: skip


def test_a_mapped_file_can_be_replayed(tmp_path: Path) -> None:
    file = tmp_path / "caers.csv"
    file.write_text("report_id,created_date,role,industry,product\n1,01/02/2009,Suspect,25,PETER PAN\n")
    result = succeeds("replay", file, "--mapping", "fda-caers", "--out", tmp_path / "out")
    assert result.stdout.startswith("1 records, 0 refused")


def test_signals_come_as_ndjson_and_parquet_alike(live: Path, tmp_path: Path) -> None:
    succeeds("replay", "--data", live, "--out", tmp_path / "again")
    lines = (tmp_path / "again" / "signals.ndjson").read_bytes().splitlines()
    signals = [msgspec.json.decode(line, type=Signal) for line in lines]
    rows = pq.read_table(tmp_path / "again" / "signals.parquet").to_pylist()
    assert [(row["tick"], row["kind"], row["product"], row["p_value"]) for row in rows] == [
        (one.tick, one.kind, one.product, one.p_value) for one in signals
    ]
    assert len(rows) > 5
    assert msgspec.json.decode(rows[0]["evidence"])


def test_another_configuration_is_for_a_replay_to_try(live: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("partitions = 2\n[pass_rate]\nmin_failed = 1000000\n")
    out = tmp_path / "other"
    result = succeeds("replay", "--data", live, "--config", tmp_path / "c.toml", "--out", out)
    assert "121 records" in result.stdout
    kinds = {msgspec.json.decode(line)["kind"] for line in (out / "alerts.ndjson").read_bytes().splitlines()}
    assert "grave-event" in kinds
    assert Config.load(out / "tocsin.toml").pass_rate.min_failed == 1_000_000


def test_a_replay_goes_as_far_as_the_live_run_went(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    log = SqliteLog(data, 4)
    far = START + (DAYS + 200) * DAY
    with log.transaction():
        log.raise_floor(far)
    assert sealed_until(EmbeddedMedium(log), Config()) == far
    log.close()
    succeeds("replay", "--data", data, "--out", tmp_path / "out")
    last: dict[str, str] = {}
    for line in (tmp_path / "out" / "alerts.ndjson").read_bytes().splitlines():
        alert = msgspec.json.decode(line, type=Alert)
        last[alert.id] = alert.status
    assert set(last.values()) == {"resolved"}


def test_a_digest_of_the_canonical_form_does_not_hang_on_the_order_read(live: Path, tmp_path: Path) -> None:
    alerts = [msgspec.json.decode(line, type=Alert) for line in exported(live, tmp_path / "l").splitlines()]
    digests = {hashlib.sha256(b"".join(canonical(some))).hexdigest() for some in (alerts, alerts[::-1])}
    assert len(digests) == 1


def test_wrong_calls_of_replay_are_one_line(live: Path, tmp_path: Path) -> None:
    file = write_ndjson(tmp_path / "e.ndjson", [body("injuries", "e", START)])
    out = tmp_path / "out"
    assert fails("replay", file, "--out", out).line.endswith("or give --mapping; see tocsin replay --help")
    assert "different sources" in fails("replay", f"injuries={file}", "--data", live, "--out", out).line
    assert "is no file" in fails("replay", "injuries=absent.ndjson", "--out", out).line
    assert "is a data directory" in fails("replay", "--data", live, "--out", live).line
    assert "nothing has been published" in fails("replay", "--data", tmp_path / "no", "--out", out).line
    assert "cannot be written" in fails("replay", "--data", live, "--out", file / "below").line
    succeeds("replay", f"injuries={file}", "--out", out)
    assert "holds a replay already" in fails("replay", f"injuries={file}", "--out", out).line
