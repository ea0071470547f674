"""The bytes of an upload into a file: counted, timed, unpacked, and in UTF-8 in the end.

A body goes to a temporary file as it comes, so memory does not grow with it. Nothing here looks at rows.
"""

from __future__ import annotations

import asyncio
import codecs
import gzip
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from streams.api.limits import Limits
from streams.api.problems import Problem

__all__ = ["CHARSETS", "check_length", "count_lines", "spool", "to_utf8", "unpack"]

CHARSETS: Final[dict[str, str]] = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "utf-8",
    "gb18030": "gb18030",
    "gbk": "gb18030",
    "gb2312": "gb18030",
}
"""The encodings of CSV that are taken, by the names that they go by; GB 18030 reads GBK and GB 2312."""

_PIECE: Final = 1 << 20


def check_length(length: int | None, limits: Limits) -> None:
    """Refuse by its announced length, before it is sent, what would be refused anyway."""
    if length is not None and length > limits.body_bytes:
        raise _too_large(limits.body_bytes)


async def spool(pieces: AsyncIterator[bytes], path: Path, limits: Limits) -> int:
    """Write a body to a file as it comes; returns its bytes.

    Raises
    ------
    Problem
        ``too-large`` or ``too-slow``.
    """
    size = 0
    deadline = asyncio.get_running_loop().time() + limits.body_seconds
    with path.open("wb") as file:
        while True:
            try:
                async with asyncio.timeout_at(min(deadline, asyncio.get_running_loop().time() + limits.idle_seconds)):
                    piece = await anext(pieces, b"")
            except TimeoutError:
                raise Problem(
                    "too-slow",
                    f"the body did not come within {limits.body_seconds:g} s, or stood still for "
                    f"{limits.idle_seconds:g} s; send smaller files, or gzip them",
                    {"Connection": "close"},
                ) from None
            if not piece:
                return size
            size += len(piece)
            if size > limits.body_bytes:
                raise _too_large(limits.body_bytes)
            file.write(piece)


def unpack(packed: Path, path: Path, limits: Limits) -> None:
    """Unpack gzip, no further than the limit: a small body may hold endless zeros.

    Raises
    ------
    Problem
        ``too-large``, or ``malformed-body`` where it is no gzip, or is cut short.
    """
    size = 0
    try:
        with gzip.open(packed, "rb") as source, path.open("wb") as target:
            while piece := source.read(_PIECE):
                size += len(piece)
                if size > limits.unpacked_bytes:
                    raise Problem(
                        "too-large", f"the body unpacks to more than {limits.unpacked_bytes} bytes; split the file"
                    )
                target.write(piece)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Problem("malformed-body", f"the gzip data is damaged or cut short ({error}); send it anew") from None


def to_utf8(source: Path, path: Path, charset: str) -> None:
    """Write a text file again in UTF-8; ``malformed-body`` where it is not in that encoding."""
    decode = codecs.getincrementaldecoder(charset)().decode
    done = 0
    with source.open("rb") as coded, path.open("wb") as target:
        while True:
            piece = coded.read(_PIECE)
            try:
                target.write(decode(piece, final=not piece).encode())
            except UnicodeDecodeError as error:
                raise Problem(
                    "malformed-body",
                    f"near byte {done + error.start} the text is not {charset}; say its encoding, or save it as UTF-8",
                ) from None
            if not piece:
                return
            done += len(piece)


def count_lines(path: Path, most: int) -> int:
    """How many lines a file has; ``too-large`` where there are more than ``most``, before any is published."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            lines += piece.count(b"\n")
            last = piece[-1:]
            if lines > most:
                raise Problem("too-large", f"the upload has more than {most} lines; split the file")
    lines += last != b"\n"
    if lines > most:
        raise Problem("too-large", f"the upload has more than {most} lines; split the file")
    return lines


def _too_large(most: int) -> Problem:
    return Problem("too-large", f"at most {most} bytes are taken; split the file, or gzip it", {"Connection": "close"})
