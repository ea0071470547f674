"""What a data directory remembers: the configuration with which it was first used.

The log in it, and the state built from the log, belong to one configuration. So the first command that uses a
directory leaves ``tocsin.toml`` there, every later one goes by it, and one that asks for another configuration is
refused.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError, TocsinError
from streams.config import Config

__all__ = ["FILE", "DataDirError", "Wanted", "absolute", "has_log", "remembered", "settle", "to_toml"]

FILE = "tocsin.toml"
_HEAD = "# Written by tocsin when this directory was first used; the log and the state in it go by it.\n"


class DataDirError(TocsinError):
    """The data directory cannot be used as asked; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command line says of the configuration; None where it says nothing."""

    file: Path | None = None
    catalogue: str | None = None
    prefix: str | None = None
    tick_seconds: int | None = None

    @property
    def nothing(self) -> bool:
        """Whether the command line leaves codes and rules to whoever knows better."""
        return self.file is None and self.catalogue is None

    def over(self, base: Config) -> Config:
        """The configuration that the command line asks for, where ``base`` holds what it does not mention."""
        config = base if self.file is None else absolute(Config.load(self.file), self.file.parent)
        changes: dict[str, Any] = {}
        if self.catalogue is not None:
            changes["catalogue"] = self.catalogue
        if self.prefix is not None:
            changes["topic_prefix"] = self.prefix
        if self.tick_seconds is not None:
            changes["tick_seconds"] = self.tick_seconds
        return absolute(config.replace(**changes), Path.cwd()) if changes else config


def absolute(config: Config, folder: Path) -> Config:
    """The paths of catalogue and severity made absolute: a later command may be given from elsewhere."""

    def resolved(name: str) -> str:
        return str((folder / name).resolve()) if name.endswith(".toml") and not Path(name).is_absolute() else name

    grades = {**config.to_dict()["grades"], "severity": resolved(config.grades.severity)}
    return config.replace(catalogue=resolved(config.catalogue), grades=grades)


def has_log(folder: Path) -> bool:
    """Whether anything was ever published to the directory."""
    return (folder / "log.sqlite").exists()


def remembered(folder: Path) -> Config | None:
    """The directory's configuration; None where it was never used."""
    file = folder / FILE
    try:
        return Config.load(file) if file.exists() else None
    except OSError as error:
        raise DataDirError(f"{folder}: the data directory cannot be read ({error.strerror}); check its owner") from None


def settle(folder: Path, wanted: Wanted, *, open_codes: bool = False) -> Config:
    """The configuration of a directory, written there when it is first used.

    Parameters
    ----------
    wanted
        What the command line says; it must not differ from what the directory remembers.
    open_codes
        A directory without a configuration learns codes from the data, unless the command line says otherwise.

    Raises
    ------
    ConfigError, DataDirError
        The configuration cannot be used, differs from the directory's, or the directory cannot be written.
    """
    held = remembered(folder)
    if held is not None:
        return _same(folder, held, wanted)
    first = Config().replace(catalogue="open") if open_codes and wanted.nothing else Config()
    config = wanted.over(first)
    config.load_catalogue()  # a directory must not begin with a catalogue that cannot be read
    config.grades.load()
    try:
        _write(folder, config)
    except FileExistsError as error:
        if not (folder / FILE).exists():
            raise _unwritable(folder, error) from None
        return _same(folder, remembered(folder) or config, wanted)  # another process was first
    except OSError as error:
        raise _unwritable(folder, error) from None
    return config


def _unwritable(folder: Path, error: OSError) -> DataDirError:
    why = (error.strerror or str(error)).lower()
    return DataDirError(f"{folder}: the data directory cannot be written ({why}); check its owner and space")


def _same(folder: Path, held: Config, wanted: Wanted) -> Config:
    asked = wanted.over(held)
    # What cannot change an alert may be asked for at any time; the directory keeps what it has.
    asked_of_alerts = asked.replace(deadlines=held.to_dict()["deadlines"])
    differing = next(_differences(held.to_dict(), asked_of_alerts.to_dict()), None)
    if differing is None:
        return held.replace(deadlines=asked.to_dict()["deadlines"])
    key, had, has = differing
    raise ConfigError(
        f"{folder}: {key} is {json.dumps(had, ensure_ascii=False)} there, {json.dumps(has, ensure_ascii=False)} is "
        "asked for; use another data directory, or replay this one under the other configuration"
    )


def _differences(held: dict[str, Any], asked: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key, had in held.items():
        has = asked.get(key)
        if isinstance(had, dict) and isinstance(has, dict):
            yield from _differences(had, has, f"{path}{key}.")
        elif had != has:
            yield f"{path}{key}", had, has


def _write(folder: Path, config: Config) -> None:
    """All or nothing: linking fails where another process was first."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".tocsin-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(_HEAD + to_toml(config))
            file.flush()
            os.fsync(file.fileno())
        os.link(name, folder / FILE)
    finally:
        os.unlink(name)


def to_toml(config: Config) -> str:
    """The whole configuration as TOML, which ``--config`` reads."""
    data = config.to_dict()
    lines = [f"{key} = {_value(value)}" for key, value in data.items() if not isinstance(value, dict)]
    for section, table in data.items():
        if isinstance(table, dict):
            lines += ["", f"[{section}]"]
            lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(inner) for inner in value) + "]"
    # JSON's strings, numbers and booleans are TOML's, but for one character that TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
