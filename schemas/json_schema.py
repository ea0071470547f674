"""JSON Schema (2020-12) of everything that goes in or comes out, made from the Structs.

The files under ``schemas/json`` are for those who write producers and consumers in other languages. They
say what is well formed, as the Structs do; the rules that tie fields together (:func:`schemas.events.check`)
and the codes (:mod:`schemas.codes`, :mod:`schemas.catalogue`) are checked at intake. One difference cannot
be stated: to JSON Schema 1.0 is an integer, to msgspec it is not. ``python -m schemas`` writes the files.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import msgspec

from schemas import alerts
from schemas.events import EVENT_TYPES

__all__ = ["FOLDER", "PUBLISHED", "render", "schema_of", "stale", "write"]

FOLDER = Path(__file__).with_name("json")
"""Where the files stand that the package ships."""

PUBLISHED: dict[str, type[msgspec.Struct]] = {
    **{str(kind): struct for kind, struct in EVENT_TYPES.items()},
    "signal": alerts.Signal,
    "alert": alerts.Alert,
    "disposition": alerts.Disposition,
    "dead-letter": alerts.DeadLetter,
}
"""The Structs that have a schema, by the name of its file."""

# RFC 3339; an absent offset is the deployment's own, hence not the format "date-time".
_TIME = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?"
    r"([Zz]|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])?$"
)
_SUFFIX = ".schema.json"
_INTAKE = "Codes, and rules that tie fields together, are checked at intake as well."


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of one published Struct, self-contained.

    Raises
    ------
    KeyError
        When no Struct is published under this name.
    """
    struct = PUBLISHED[name]
    (root,), definitions = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    for title, definition in definitions.items():
        _tidy(title, definition)
    for title, field in _times(msgspec.inspect.type_info(struct)):
        _state_time(definitions[title]["properties"][field])
    # The Struct itself becomes the document; nothing refers back to it.
    body = definitions.pop(root["$ref"].rsplit("/", 1)[-1])
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:tocsin:schema:{name}",
        "title": struct.__name__,
        "description": inspect.getdoc(struct) or "",
    }
    if name in EVENT_TYPES:
        head["$comment"] = _INTAKE
    rest = {key: value for key, value in body.items() if key not in head}
    return head | rest | ({"$defs": definitions} if definitions else {})


def _tidy(title: str, definition: dict[str, Any]) -> None:
    """Give a definition its title and an unindented description."""
    definition["title"] = title
    if "description" in definition:
        definition["description"] = inspect.cleandoc(definition["description"])


def _times(info: msgspec.inspect.Type) -> set[tuple[str, str]]:
    """The (Struct, field) pairs below a type that hold a time."""
    if isinstance(info, msgspec.inspect.ListType):
        return _times(info.item_type)
    if isinstance(info, msgspec.inspect.UnionType):
        return set().union(*map(_times, info.types))
    if not isinstance(info, msgspec.inspect.StructType):
        return set()
    found: set[tuple[str, str]] = set()
    for field in info.fields:
        options = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
        if any(isinstance(option, msgspec.inspect.DateTimeType) for option in options):
            found.add((info.cls.__name__, field.encode_name))
        found |= _times(field.type)
    return found


def _state_time(definition: dict[str, Any]) -> None:
    """Say what a time looks like: msgspec says no more than "a string" where the offset may be absent."""
    for option in definition.get("anyOf", [definition]):
        if option.get("type") == "string":
            option["pattern"] = _TIME


def render(schema: dict[str, Any]) -> bytes:
    """A schema as the bytes of its file: the same for the same schema."""
    return (json.dumps(schema, ensure_ascii=False, indent=2) + "\n").encode()


def write(folder: Path = FOLDER) -> list[Path]:
    """Write every schema to ``<folder>/<name>.schema.json`` and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in PUBLISHED:
        path = folder / f"{name}{_SUFFIX}"
        path.write_bytes(render(schema_of(name)))
        paths.append(path)
    return paths


def stale(folder: Path = FOLDER) -> list[str]:
    """One line for every file that is missing, differs from its Struct, or belongs to none."""
    found = []
    for name in PUBLISHED:
        path = folder / f"{name}{_SUFFIX}"
        if not path.exists():
            found.append(f"{path.name}: is missing; run python -m schemas")
        elif path.read_bytes() != render(schema_of(name)):
            found.append(f"{path.name}: differs from the Struct {PUBLISHED[name].__name__}; run python -m schemas")
    known = {f"{name}{_SUFFIX}" for name in PUBLISHED}
    strays = sorted(path.name for path in folder.glob("*.json") if path.name not in known)
    return found + [f"{name}: belongs to no Struct; delete it" for name in strays]
