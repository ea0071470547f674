"""Refused records mended: single fields set from a command line, or whole values from a file that was edited.

The file is NDJSON, a letter a line: ``place`` says which, then what the record held, as ``value`` where that is a JSON
object, else as ``text`` or ``base64``; all else in a line is there for the reader. A line that comes back as it was
stands for the original bytes, to the byte.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.alerts import DeadLetter
from schemas.errors import TocsinError
from streams.letters import Letter, source

__all__ = ["Change", "RepairError", "Repaired", "changed", "export_line", "parse_changes", "read_repaired"]

_LONGEST_LINE: Final = 24 << 20
_MOST_STEPS: Final = 16
_CHANGE: Final = re.compile(r"(?P<path>[^=:]+)(?P<sign>:?=)(?P<value>.*)", re.DOTALL)
_STEP: Final = re.compile(r"\.?(?P<name>[^.\[\]]+)|\[(?P<place>[0-9]{1,4})\]")


class RepairError(TocsinError):
    """A record cannot be mended as asked; the text says why."""


# --- single fields -------------------------------------------------------------------------------------------------


class Change(msgspec.Struct, frozen=True):
    """A field, by the path that a dead letter names it with (``items[2].value``), and what it is to be."""

    path: tuple[str | int, ...]
    value: Any


def parse_changes(texts: Iterable[str]) -> list[Change]:
    """Changes as a command line has them: ``region=120110`` sets a text, ``tested:=20`` any JSON value."""
    return [_change(text) for text in texts]


def _change(text: str) -> Change:
    found = _CHANGE.fullmatch(text)
    if found is None:
        raise RepairError(f"--set {text}: FIELD=TEXT, or FIELD:=JSON as in tested:=20")
    path: list[str | int] = []
    at = 0
    while at < len(found["path"]):
        step = _STEP.match(found["path"], at)
        if step is None or len(path) >= _MOST_STEPS:
            raise RepairError(f"--set {text}: a field is written as in producer, or items[2].value")
        path.append(step["name"] if step["place"] is None else int(step["place"]))
        at = step.end()
    if not path or isinstance(path[0], int):
        raise RepairError(f"--set {text}: an event is an object; begin with the name of a field")
    if found["sign"] == "=":
        return Change(tuple(path), found["value"])
    try:
        return Change(tuple(path), msgspec.json.decode(found["value"].encode()))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise RepairError(f"--set {text}: what follows := is not JSON; say = for a text") from None


def changed(value: bytes | None, changes: Sequence[Change]) -> bytes | None:
    """A record's value with fields changed; the same bytes where there is nothing to change."""
    if not changes:
        return value
    event = _object(value)
    if event is None:
        raise RepairError("it is not a JSON object, so that no field of it can be set; mend it in an exported file")
    for change in changes:
        target: Any = event
        for step, following in zip(change.path, change.path[1:], strict=False):
            target = _step(target, step, {} if isinstance(following, str) else None)
        last = change.path[-1]
        if isinstance(last, int):
            _step(target, last, None)
        elif not isinstance(target, dict):
            raise RepairError(f"there is no object to hold {last}")
        target[last] = change.value
    return msgspec.json.encode(event)


def _step(target: Any, step: str | int, otherwise: Any) -> Any:
    if isinstance(step, int):
        if isinstance(target, list) and step < len(target):
            return target[step]
        raise RepairError(f"there is no list with a place [{step}]")
    if not isinstance(target, dict):
        raise RepairError(f"there is no object to hold {step}")
    if step not in target and otherwise is not None:
        target[step] = otherwise
    return target.get(step)


def _object(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


# --- files ---------------------------------------------------------------------------------------------------------


class _Line(msgspec.Struct, omit_defaults=True):
    place: int
    reason: str = ""
    field: str = ""
    detail: str = ""
    source: str = ""
    value: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET


def export_line(letter: Letter, value: bytes) -> bytes:
    """A letter and the record's bytes as a line of the file."""
    about: DeadLetter = letter.letter
    line = _Line(letter.place, about.reason, about.field, about.detail, source(about))
    if _object(value) is not None:
        line.value = msgspec.Raw(msgspec.json.format(value, indent=-1))
    else:
        try:
            line.text = value.decode()
        except UnicodeDecodeError:
            line.base64 = base64.b64encode(value).decode()
    return msgspec.json.encode(line) + b"\n"


class Repaired(msgspec.Struct, frozen=True):
    """What a line of the file says that a record is to be."""

    place: int
    value: bytes
    is_object: bool

    def over(self, original: bytes | None) -> bytes:
        """The bytes to write: the original ones where the line says the same."""
        if self.is_object and original is not None and _object(original) == _object(self.value):
            return original
        return self.value


def read_repaired(path: Path) -> dict[int, Repaired]:
    """The lines of a repaired file, by place; RepairError names the line that cannot be used."""
    found: dict[int, Repaired] = {}
    decode = msgspec.json.Decoder(_Line).decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), 1):
                if not line.strip():
                    continue
                where = f"{path}:{number}"
                if len(line) > _LONGEST_LINE:
                    raise RepairError(f"{where}: the line has more than {_LONGEST_LINE} bytes")
                try:
                    one = _repaired(decode(line), where)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise RepairError(f"{where}: {error}; write a line as `dead-letters export` does") from None
                if one.place in found:
                    raise RepairError(f"{where}: place {one.place} stands there twice; keep one of the lines")
                found[one.place] = one
    except OSError as error:
        raise RepairError(f"{path}: cannot be read ({(error.strerror or str(error)).lower()})") from None
    return found


def _repaired(line: _Line, where: str) -> Repaired:
    given = [name for name in ("value", "text", "base64") if getattr(line, name) is not msgspec.UNSET]
    if len(given) != 1:
        raise RepairError(f"{where}: give exactly one of value, text and base64")
    if isinstance(line.value, msgspec.Raw):
        return Repaired(line.place, bytes(line.value), True)
    if isinstance(line.text, str):
        return Repaired(line.place, line.text.encode(), False)
    try:
        return Repaired(line.place, base64.b64decode(str(line.base64), validate=True), False)
    except binascii.Error:
        raise RepairError(f"{where}: base64 is not base64") from None
