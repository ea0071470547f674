"""``tocsin report``: from a data directory, a replay and files; as it was known then; what it refuses."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from small_world import accident, fails, fill, inspections, succeeds, write_ndjson


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    made = fill(folder / "data", folder)
    succeeds("run", "--until-end", "--data", made)
    succeeds("replay", "--data", made, "--out", folder / "again")
    write_ndjson(folder / "i.ndjson", inspections())
    write_ndjson(folder / "a.ndjson", [accident()])
    return made


def report(out: Path, *args: object) -> str:
    said = succeeds("report", "--out", out, "--period", "2024-01", *args).stdout
    assert said.startswith(f"{out}: ")
    return out.read_text("utf-8")


def test_record_replay_and_files_give_the_same_page(data: Path, tmp_path: Path) -> None:
    live = report(tmp_path / "live.html", "--data", data)
    again = data.parent / "again"
    assert report(tmp_path / "replay.html", "--data", data, "--alerts-of", again) == live
    assert report(tmp_path / "file.html", "--data", data, "--alerts-of", again / "alerts.ndjson") == live
    files = [f"inspections={data.parent / 'i.ndjson'}", f"accidents={data.parent / 'a.ndjson'}"]
    assert report(tmp_path / "files.html", *files, "--alerts-of", again) == live
    assert "东丽区" in live
    assert live.count("<article") == 1
    assert "重大单起事件（无时间序列）" in live


def test_language_and_period_are_chosen(data: Path, tmp_path: Path) -> None:
    page = report(tmp_path / "en.html", "--data", data, "--language", "en")
    assert "Tianjin Quality and safety risk report 2024-01" in page
    # 30 days x 4 districts x 20 tested; from day 20 on 10 of Dongli's fail.
    assert "95.83%" in page
    assert f"{100 * (1 - 100 / 600):.2f}%" in page
    out = tmp_path / "own.html"
    succeeds(
        "report", "--out", out, "--data", data, "--since", "2024-01-05", "--until", "2024-01-20", "--language", "en"
    )
    assert "Period: 2024-01-05 to 2024-01-19" in out.read_text("utf-8")


def test_as_of_a_time_is_what_was_known_then(data: Path, tmp_path: Path) -> None:
    early = report(tmp_path / "early.html", "--data", data, "--as-of", "2024-01-12", "--language", "en")
    assert "100.00%" in early
    assert "figures through 2024-01-11" in early or "figures through 2024-01-12" in early
    assert "<article" not in early  # the failures have not begun
    assert "Liquid milk, Heping: grave event" in early


def test_what_it_cannot_do_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ("--out", tmp_path / "x.html", "--data", data)
    assert "is no period" in fails("report", *out, "--period", "soon").line
    assert "either --period" in fails("report", *out, "--since", "2024-01-01").line
    assert "is no date" in fails("report", *out, "--since", "now", "--until", "2024-02-01").line
    assert "is no time" in fails("report", *out, "--as-of", "noon").line
    assert "the record ends on" in fails("report", *out, "--period", "2031").line
    assert "cannot be read" in fails("report", *out, "--alerts-of", tmp_path / "none.ndjson").line
    (tmp_path / "bad.ndjson").write_text("{}\n")
    assert "line 1 is no alert" in fails("report", *out, "--alerts-of", tmp_path / "bad.ndjson").line
    assert "nothing has been published" in fails("report", "--data", tmp_path / "empty").line
    assert "--alerts-of" in fails("report", f"inspections={data.parent / 'i.ndjson'}").line
    assert "cannot be written" in fails("report", "--data", data, "--out", tmp_path / "no" / "x.html").line
    monkeypatch.setenv("PATH", str(tmp_path))
    line = fails("report", *out, "--pdf", tmp_path / "x.pdf").line
    assert line == (
        "tocsin: --pdf: needs Chromium on PATH (chromium, google-chrome); install it, or print the HTML"
    )  # fmt: skip
    assert not (tmp_path / "x.html").exists()


def test_a_browser_that_makes_no_file_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    fake = folder / "chromium"
    fake.write_text("#!/bin/sh\necho 'no display' >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    line = fails_after_page("report", "--data", data, "--out", tmp_path / "y.html", "--pdf", tmp_path / "y.pdf")
    assert "made no file (status 3): no display" in line
    assert shutil.which("chromium") == str(fake)


def fails_after_page(*args: object) -> str:
    """The page is written and said; the print fails."""
    from small_world import invoke

    result = invoke(*args)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    return lines[0]
