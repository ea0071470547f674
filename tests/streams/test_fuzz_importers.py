"""Files of any bytes, cells of any text: rows with a verdict each, or one error that names the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz.material import MAPPING_TOML
from fuzz.targets import ImportersTarget, _csv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FIELDS = ("event_id", "source", "reported_at", "product", "region", "site", "severity", "age", "items", "name")
QUIET = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(
    st.binary(max_size=400), st.sampled_from([".csv", ".tsv", ".ndjson", ".parquet", ".csv.gz", ".txt"]), st.booleans()
)
@QUIET
def test_any_bytes_as_any_file(tmp_path: Path, given_bytes: bytes, suffix: str, mapped: bool) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(given_bytes)
    verdicts = list(ImportersTarget.read(file, "injuries", MAPPING_TOML if mapped else None, given_bytes))
    assert verdicts
    assert "accepted" not in dict(verdicts)


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), st.text(max_size=30), min_size=1), min_size=1, max_size=6))
@QUIET
def test_tables_of_any_text(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(_csv(rows))
    verdicts = [verdict for verdict, _ in ImportersTarget.read(file, "injuries", None, rows)]
    assert verdicts
    assert "accepted" not in verdicts or any(len(row) >= 7 for row in rows)


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".parquet"])
def test_an_empty_file_of_each_sort(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    file.write_bytes(b"")
    assert len(list(ImportersTarget.read(file, "losses", None, b""))) == 1
