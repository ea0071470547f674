"""What was stored is read by the version that wrote it, or refused in one line that says what to do.

Every stored Struct is an array whose first place is the version of its layout, so that the number can be read where
the rest cannot. There is no conversion from layout to layout: the state is a function of the raw topics, so that
building it anew from them is the one migration that cannot go wrong (:mod:`streams.rebuild`).

Bump a version when a layout changes, and also when its meaning does.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

import msgspec

from schemas.errors import TocsinError

__all__ = ["KAFKA_MEND", "StoredStateError", "Versioned", "mend", "reading", "unpack"]

KAFKA_MEND: Final = "stop all workers, then `tocsin state rebuild --broker ...` has them build it anew from the record"
_UNREADABLE: Final = (
    msgspec.DecodeError, zlib.error, UnicodeDecodeError, ValueError, KeyError, IndexError, TypeError, OverflowError,
)  # fmt: skip


class StoredStateError(TocsinError, ValueError):
    """What was stored cannot be read by this version; the text says which part, and why."""


class Versioned(Protocol):
    """A Struct with ``array_like`` whose first field is the version of its layout."""

    version: int


class _Head(msgspec.Struct, array_like=True):
    version: int


_Struct = TypeVar("_Struct", bound=Versioned)


def unpack(data: bytes, kind: type[_Struct], version: int, what: str) -> _Struct:
    """Decode a stored Struct.

    Parameters
    ----------
    version
        The one that can be read.
    what
        The stored thing, for the error's text.

    Raises
    ------
    StoredStateError
        It is of another version, or damaged.
    """
    try:
        found = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        held = _version_of(data)
        if held is None or held == version:
            raise _damaged(what, error) from None
    else:
        held = found.version
        if held == version:
            return found
    whose = "a newer one wrote it" if held > version else "an older one wrote it"
    raise StoredStateError(f"{what} is of version {held}, this tocsin reads version {version}: {whose}")


def _version_of(data: bytes) -> int | None:
    try:
        return msgspec.msgpack.decode(data, type=_Head).version
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _damaged(what: str, error: BaseException) -> StoredStateError:
    return StoredStateError(f"{what} cannot be read: it is damaged, or of a version long past or to come ({error})")


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around the taking up of something stored: whatever is wrong with its content is a StoredStateError."""
    try:
        yield
    except StoredStateError:
        raise
    except _UNREADABLE as error:
        raise _damaged(what, error) from error


@contextmanager
def mend(where: str, how: str) -> Iterator[None]:
    """Say where the stored thing stands, and what to do."""
    try:
        yield
    except StoredStateError as error:
        raise StoredStateError(f"{where}: {error}; {how}") from error.__cause__
