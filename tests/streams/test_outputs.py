"""Files of signals: the same lines and rows however the signals came, and nothing where the writing failed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest

from schemas.alerts import Contributor, Evidence, Signal, SourceRange
from streams import outputs
from streams.outputs import OutputError, SignalFiles
from streams.ticks import Calendar

CALENDAR = Calendar(3_600_000, 8 * 3_600_000)


def some(count: int) -> list[Signal]:
    """Signals with every sort of field there is: lists, an id, texts that are not ASCII."""
    evidence = Evidence(detector="glr-cusum", against="peers", window_days=7, observed=5.0, regions=["河西区", 'a"b'])
    behind = {
        "contributors": [Contributor(role="lab", code="lab-1", adverse=2)],
        "sources": [SourceRange(topic="inspections", partition=1, first_offset=0, last_offset=9, events=3)],
    }
    return [
        Signal(
            tick=at,
            as_of=CALENDAR.moment(CALENDAR.tick_end(at)),
            kind="pass-rate",
            product=f"P{at}",
            region="R",
            role="primary",
            level=3,
            scope="cell",
            p_value=10.0**-at,
            excess=1.5,
            evidence=[evidence] * (at % 3),
            alert_id="grave-1" if at % 5 == 0 else None,
            withdrawn=at % 5 == 0,
            severity=at % 5,
            **behind if at % 2 else {},  # type: ignore[arg-type]
        )
        for at in range(count)
    ]


def row_of(signal: Signal) -> dict[str, Any]:
    """What a table is to hold of a signal."""
    names = (
        "tick", "as_of", "kind", "product", "region", "role", "level", "scope", "p_value", "excess", "severity",
        "alert_id", "withdrawn",
    )  # fmt: skip
    texts = ("evidence", "contributors", "sources")
    return {name: getattr(signal, name) for name in names} | {
        name: msgspec.json.encode(getattr(signal, name)).decode() for name in texts
    }


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize(("at_once", "rows"), [(1, 1), (4, 10), (10, 4), (256, 20_000)])
def test_batches_show_neither_in_lines_nor_in_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, at_once: int, rows: int
) -> None:
    monkeypatch.setattr(outputs, "_AT_ONCE", at_once)
    monkeypatch.setattr(outputs, "_ROWS", rows)
    signals = some(50)
    lines, table = tmp_path / "signals.ndjson", tmp_path / "signals.parquet"
    with SignalFiles([lines, table]) as files:
        for start in range(0, len(signals), batch):
            files.add(signals[start : start + batch])
    assert files.count == len(signals)
    assert lines.read_bytes() == b"".join(msgspec.json.encode(one) + b"\n" for one in signals)
    assert pq.read_table(table).to_pylist() == [row_of(one) for one in signals]


def test_no_signals_are_empty_files(tmp_path: Path) -> None:
    lines, table = tmp_path / "signals.ndjson", tmp_path / "signals.parquet"
    with SignalFiles([lines, table]) as files:
        files.add([])
    assert files.count == 0
    assert lines.read_bytes() == b""
    assert pq.read_table(table).num_rows == 0


def test_what_fails_leaves_the_files_of_before(tmp_path: Path) -> None:
    lines, table = tmp_path / "signals.ndjson", tmp_path / "signals.parquet"
    lines.write_bytes(b"before\n")

    def until_it_breaks(files: SignalFiles) -> None:
        files.add(some(300))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), SignalFiles([lines, table]) as files:
        until_it_breaks(files)
    assert [path.name for path in tmp_path.iterdir()] == ["signals.ndjson"]
    assert lines.read_bytes() == b"before\n"


def test_a_full_disk_is_told_in_one_line_whenever_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(outputs._ParquetSignals, "add", full)
    with pytest.raises(OutputError, match="no space left"), SignalFiles([tmp_path / "signals.parquet"]) as files:
        files.add(some(300))
    assert not list(tmp_path.iterdir())
