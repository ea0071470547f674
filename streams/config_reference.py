"""The configuration reference: every key with its default, its unit, its bounds and its meaning, from the Structs."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from typing import Final, cast

import msgspec
from msgspec import inspect as typed

from streams.config import Config

__all__ = ["reference"]

_HEAD: Final = """\
# Configuration

One TOML file, given by `--config FILE`. Every key may be left out: its default holds. What is not here is an error that
names the key. `tocsin config show` prints all keys with their values; a data directory remembers those that it was
first used with. The severity rules, a file of their own, explain themselves:
[`schemas/severity/default.toml`](../schemas/severity/default.toml).

Written by `python deploy/generate.py` from the code: do not edit. `tocsin config reference` prints it.
"""


def reference() -> str:
    """The reference as Markdown."""
    info = cast(typed.StructType, typed.type_info(Config))
    plain = [field for field in info.fields if not isinstance(field.type, typed.StructType)]
    parts = [_HEAD, "## Top level\n", _doc(Config), _table(plain)]
    for field in info.fields:
        if isinstance(field.type, typed.StructType):
            parts += [f"## `[{field.encode_name}]`\n", _doc(field.type.cls), _table(field.type.fields)]
    return "\n".join(parts)


def _doc(struct: type) -> str:
    return " ".join((inspect.getdoc(struct) or "").replace("``", "`").split()) + "\n"


def _table(fields: Sequence[typed.Field]) -> str:
    lines = ["| key | default | unit | bounds | meaning |", "| --- | --- | --- | --- | --- |"]
    for field in fields:
        schema, unit = _described(field.type)
        kind = _bounds(field.type)
        cells = (f"`{field.encode_name}`", f"`{_default(field)}`", unit, kind, schema)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _described(kind: typed.Type) -> tuple[str, str]:
    """Meaning and unit, as the key's own annotation has them."""
    if not isinstance(kind, typed.Metadata):
        raise TypeError(f"a key without a meaning: {kind}")
    return str((kind.extra_json_schema or {})["description"]), str((kind.extra or {}).get("unit", ""))


def _default(field: typed.Field) -> str:
    """The default as TOML has it."""
    value = msgspec.to_builtins(field.default)
    if isinstance(value, tuple | list):
        return json.dumps(list(value))
    return json.dumps(value, ensure_ascii=False)


def _bounds(kind: typed.Type) -> str:
    if isinstance(kind, typed.Metadata):
        return _bounds(kind.type)
    if isinstance(kind, typed.LiteralType):
        return ", ".join(f"`{value}`" for value in kind.values)
    if isinstance(kind, typed.BoolType):
        return "true, false"
    if isinstance(kind, typed.VarTupleType):
        return f"a list, each {_bounds(kind.item_type)}"
    if isinstance(kind, typed.TupleType):
        return f"{len(kind.item_types)} values, each {_bounds(kind.item_types[0])}"
    if isinstance(kind, typed.StrType):
        return f"`{kind.pattern}`" if kind.pattern is not None else "text"
    return " and ".join(_numeric(kind)) or "any"


def _numeric(kind: typed.Type) -> Iterator[str]:
    """The bounds of a number in words of arithmetic."""
    for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        bound = getattr(kind, name, None)
        if bound is not None:
            yield f"{sign} {bound:,g}" if abs(bound) < 1e6 else f"{sign} {round(bound):,}"
