"""Event Structs without regular expressions, for decoding in bulk.

A pattern is a call of Python's ``re`` for each field of each record: more than all the rest of decoding. What the
patterns of :mod:`schemas.events` forbid are control characters; JSON text can only hold one behind a backslash, or as
the byte 0x7f. Whoever finds neither in a record may use the lean Struct and lose nothing.
"""

from __future__ import annotations

import types
import typing
from typing import Annotated, Any, Final

import msgspec

__all__ = ["with_patterns", "without_patterns"]

_BOUNDS: Final = ("gt", "ge", "lt", "le", "min_length", "max_length")


def with_patterns(struct: type[msgspec.Struct], *, forbid: bool) -> type[msgspec.Struct]:
    """The Struct itself, which also refuses unknown fields where ``forbid`` says so."""
    return msgspec.defstruct(struct.__name__, [], bases=(struct,), kw_only=True, gc=False, forbid_unknown_fields=forbid)


def without_patterns(struct: type[msgspec.Struct], *, forbid: bool = False) -> type[msgspec.Struct]:
    """A Struct of the same fields, defaults and bounds, and no patterns; those within it likewise."""
    hints = typing.get_type_hints(struct, include_extras=True)
    fields: list[Any] = []
    for one in msgspec.structs.fields(struct):
        default: tuple[Any, ...] = ()
        if one.default is not msgspec.NODEFAULT:
            default = (one.default,)
        elif one.default_factory is not msgspec.NODEFAULT:
            default = (msgspec.field(default_factory=one.default_factory),)
        fields.append((one.name, _stripped(hints[one.name]), *default))
    return msgspec.defstruct(struct.__name__, fields, kw_only=True, gc=False, forbid_unknown_fields=forbid)


def _stripped(hint: Any) -> Any:
    """A type without the patterns in its constraints."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return Annotated[(_stripped(parts[0]), *map(_bounds_of, parts[1:]))]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return without_patterns(hint)
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_stripped, parts))]  # noqa: UP007  # it is made of a tuple
    if origin is list:
        return types.GenericAlias(list, (_stripped(parts[0]),))
    return hint


def _bounds_of(meta: Any) -> Any:
    bounds: dict[str, Any] = {name: getattr(meta, name) for name in _BOUNDS if getattr(meta, name) is not None}
    return msgspec.Meta(**bounds)
