"""A data directory remembers the configuration with which it was first used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import CatalogueError, ConfigError
from streams.config import Config, EscalateRules
from streams.datadir import FILE, DataDirError, Wanted, remembered, settle, to_toml


def test_the_first_use_writes_the_configuration_and_later_ones_read_it(tmp_path: Path) -> None:
    data = tmp_path / "deep" / "data"
    first = settle(data, Wanted(catalogue="open"))
    assert first.catalogue == "open"
    assert settle(data, Wanted()) == first == remembered(data)
    assert sorted(os.listdir(data)) == [FILE]


def test_every_value_survives_the_toml(tmp_path: Path) -> None:
    odd = Config(name='a "b" \\ \x7f 产品', partitions=7, escalate=EscalateRules(hold_days=3))
    odd = odd.replace(
        grades={"severity": 'rules "of" \\ 天津.toml'}, pass_rate={"alpha": 1e-300, "windows_days": [1, 2]}
    )
    file = tmp_path / "odd.toml"
    file.write_text(to_toml(odd), "utf-8")
    assert Config.load(file) == odd


def test_another_configuration_is_refused_with_the_key_that_differs(tmp_path: Path) -> None:
    settle(tmp_path, Wanted())
    other = tmp_path / "other.toml"
    other.write_text("[intake]\nlateness_days = 7\n")
    with pytest.raises(ConfigError, match=r"intake\.lateness_days is 400 there, 7 is asked for; use another"):
        settle(tmp_path, Wanted(file=other))
    with pytest.raises(ConfigError, match='catalogue is "tianjin" there, "open" is asked for'):
        settle(tmp_path, Wanted(catalogue="open"))


def test_the_same_configuration_said_again_is_welcome(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("partitions = 2\n")
    assert settle(tmp_path / "d", Wanted(file=file)) == settle(tmp_path / "d", Wanted(file=file))


def test_codes_are_open_only_where_nobody_says_otherwise(tmp_path: Path) -> None:
    assert settle(tmp_path / "a", Wanted(), open_codes=True).catalogue == "open"
    assert settle(tmp_path / "b", Wanted(catalogue="tianjin"), open_codes=True).catalogue == "tianjin"
    settle(tmp_path / "c", Wanted())
    assert settle(tmp_path / "c", Wanted(), open_codes=True).catalogue == "tianjin"


def test_a_catalogue_file_is_found_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'name = "x"\nversion = "1"\n[products]\nseparator = "/"\n[regions]\nseparator = "/"\n'
    (tmp_path / "codes.toml").write_text(text)
    (tmp_path / "c.toml").write_text('catalogue = "codes.toml"\n')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    by_file = settle(tmp_path / "d", Wanted(file=tmp_path / "c.toml"))
    assert by_file.catalogue == str(tmp_path / "codes.toml")
    monkeypatch.chdir(tmp_path)
    assert settle(tmp_path / "d", Wanted(catalogue="codes.toml")) == by_file


def test_a_bad_configuration_leaves_no_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pytest.raises(CatalogueError, match="tianjinn"):
        settle(data, Wanted(catalogue="tianjinn"))
    with pytest.raises(ConfigError, match="no such file"):
        settle(data, Wanted(file=tmp_path / "absent.toml"))
    assert not data.exists()


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for place in (file, file / "below", Path("/proc/nothing")):
        with pytest.raises(DataDirError, match="cannot be written"):
            settle(place, Wanted())
