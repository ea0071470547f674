"""Dead letters as they are read back: each refused record once, whatever a crash wrote twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.alerts import DeadLetter
from streams import letters as letters_module
from streams.letters import read_letters
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing


def letter(offset: int, **fields: Any) -> DeadLetter:
    about: dict[str, Any] = {
        "reason": "malformed-json", "field": "", "detail": "no JSON", "topic": "inspections", "partition": 0,
        "timestamp": 5, "stage": "intake", "value": b"{", "size": 1, **fields,
    }  # fmt: skip
    return DeadLetter(offset=offset, **about)


def read(folder: Path, *written: DeadLetter) -> list[tuple[int, DeadLetter]]:
    medium = EmbeddedMedium(SqliteLog(folder, 1))
    medium.write("dead-letters", [Outgoing(9, b"k", msgspec.json.encode(one)) for one in written])
    found = [(place, one) for place, one in read_letters(medium)]
    medium.close()
    return found


def test_a_batch_of_letters_sent_again_after_a_crash_is_read_once(tmp_path: Path) -> None:
    batch = [letter(3), letter(5, reason="bad-time"), letter(3, partition=1), letter(3, stage="assess")]
    assert read(tmp_path, *batch, letter(4, partition=1), *batch) == list(enumerate([*batch, letter(4, partition=1)]))


def test_another_record_at_the_same_offset_of_a_topic_made_anew_has_a_letter_of_its_own(tmp_path: Path) -> None:
    assert [place for place, _ in read(tmp_path, letter(3), letter(3, timestamp=6))] == [0, 1]


def test_rows_of_files_that_never_became_records_are_all_told(tmp_path: Path) -> None:
    assert [place for place, _ in read(tmp_path, letter(-1, origin="a:1"), letter(-1, origin="a:1"))] == [0, 1]


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters_module, "_MEMORY", 2)
    written = [letter(1), letter(2), letter(1), letter(3), letter(1)]
    assert [place for place, _ in read(tmp_path, *written)] == [0, 1, 3, 4]
