"""From bytes to event Structs in bulk: without regular expressions, and many records in one call.

A pattern is a call of Python's ``re`` for each field of each record: more than all the rest of decoding. What the
patterns of :mod:`schemas.events` forbid are control characters; JSON text can only hold one as an escape of such a
character, or as the byte 0x7f. Whoever finds neither in a record may use the lean Struct and lose nothing.

Records are decoded as lines of one text. A line feed is white space to JSON, and no token can hold one. So where each
record begins with ``{`` and ends with ``}``, every line feed stands between a bracket that closes and one that opens:
inside an object or an array that is an error, for there a comma would have to stand. Hence a text that can be decoded
at all has all its line feeds *between* values, each record is one value or more, and as many values as records are one
for each. Whatever does not fit into this is decoded record by record.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from streams.decode import MANY_BRACKETS

__all__ = ["TOGETHER", "LeanDecoder", "with_patterns", "without_patterns"]

TOGETHER: Final = 256
"""So many records are decoded in one call: one that is not well formed sends its neighbours the slow way."""
_BOUNDS: Final = ("gt", "ge", "lt", "le", "min_length", "max_length")
_CONTROL: Final = re.compile(rb"\\(?:[bfnrt]|u00)")
"""Escapes of what the patterns forbid, and a few others; any other escape is of a harmless character."""
_FEED, _OPENS, _CLOSES, _LIST = b"\n{}["


class LeanDecoder:
    """Decodes the well-formed records of one kind.

    Parameters
    ----------
    struct
        The event's type.
    forbid
        Whether a record with an unknown field is none of them.
    longest
        Bytes of the longest record that is.
    """

    def __init__(self, struct: type[msgspec.Struct], *, forbid: bool, longest: int) -> None:
        plain = msgspec.json.Decoder(without_patterns(struct, forbid=forbid))
        self._plain, self._lines = plain.decode, plain.decode_lines
        self._exact = msgspec.json.Decoder(with_patterns(struct, forbid=forbid)).decode
        self._longest = longest

    def decode(self, values: Sequence[bytes | None]) -> tuple[list[Any], npt.NDArray[np.intp]]:
        """The Structs of those that are well formed, and their places."""
        events: list[Any] = []
        formed = np.ones(len(values), np.bool_)
        for start in range(0, len(values), TOGETHER):
            some = values[start : start + TOGETHER]
            read: list[Any] | None = self._together(some)
            if read is None:
                read = [self._single(value) if value else None for value in some]
                formed[start : start + len(some)] = [event is not None for event in read]
            events += read
        return [event for event in events if event is not None] if not formed.all() else events, np.flatnonzero(formed)

    def _together(self, values: Sequence[bytes | None]) -> list[Any] | None:
        """One Struct for each record, or None where they cannot all be vouched for."""
        if not all(values):
            return None
        text = b"\n".join(values)  # type: ignore[arg-type]  # none is None
        data = np.frombuffer(text, np.uint8)
        feeds = np.flatnonzero(data == _FEED)
        if (
            len(feeds) != len(values) - 1
            or data[0] != _OPENS
            or data[-1] != _CLOSES
            or (data[feeds - 1] != _CLOSES).any()
            or (data[feeds + 1] != _OPENS).any()
            or (len(text) > self._longest and len(max(values, key=len)) > self._longest)  # type: ignore[arg-type]
            or _most_brackets(data, feeds) > MANY_BRACKETS
            or b"\x7f" in text
            or (b"\\" in text and _CONTROL.search(text) is not None)
        ):
            return None
        try:
            if not text.isascii():
                text.decode("utf-8")
            read: list[Any] = self._lines(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return read if len(read) == len(values) else None

    def _single(self, value: bytes) -> Any:
        """The Struct of a record, None where it is not well formed."""
        if len(value) > self._longest or value.count(b"[") + value.count(b"{") > MANY_BRACKETS:
            return None
        risky = b"\x7f" in value or (b"\\" in value and _CONTROL.search(value) is not None)
        try:
            if not value.isascii():
                value.decode("utf-8")
            return (self._exact if risky else self._plain)(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


def _most_brackets(data: npt.NDArray[np.uint8], feeds: npt.NDArray[np.intp]) -> int:
    """The opening brackets of the line that has most, or a number that is no less, where that is few enough."""
    opening = (data == _OPENS) | (data == _LIST)
    beyond = int(np.count_nonzero(opening)) - len(feeds)  # every line has one
    if beyond <= MANY_BRACKETS:
        return beyond
    return int(np.bincount(np.searchsorted(feeds, np.flatnonzero(opening))).max())


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
