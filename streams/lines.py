"""Records one after the other in a buffer: their bounds, their quotes, and which of them are plainly written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from streams.vocabulary import Buffer

__all__ = ["Lines"]

_SPACE, _QUOTE, _BACKSLASH, _U, _DELETE = b' "\\u\x7f'
_BEYOND_ASCII: Final = 0x80

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]


class Lines:
    """Some records.

    Parameters
    ----------
    values
        The records; one that is empty or absent is not plain.
    longest
        How many bytes a plain one may have.

    Attributes
    ----------
    buffer
        All of them, with a line feed between two.
    starts, ends
        Their bounds, shape ``[records]``.
    plain
        Which of them are printable UTF-8, not too long, and without a backslash but before a ``u``: so a quote begins
        or ends a string, wherever it stands. ``[records]``.
    """

    def __init__(self, values: Sequence[bytes | None], longest: int) -> None:
        whole: Sequence[bytes]
        try:
            whole, text = values, b"\n".join(values)  # type: ignore[arg-type, assignment]
        except TypeError:  # some are absent
            whole = [value or b"" for value in values]
            text = b"\n".join(whole)
        lengths = np.fromiter(map(len, whole), np.int64, len(whole))
        self.ends: Ints = np.cumsum(lengths + 1) - 1
        self.starts: Ints = self.ends - lengths
        self.buffer = Buffer.padded(text)
        self._data = self.buffer.data[: len(text)]
        self._escapes = np.flatnonzero(self._data == _BACKSLASH) if b"\\" in text else np.zeros(0, np.int64)
        self._quotes = np.flatnonzero(self._data == _QUOTE)
        self.plain: Bools = (lengths > 0) & (lengths <= longest)
        if self._has_odd(text):
            self._find_odd(text)

    def _has_odd(self, text: bytes) -> bool:
        """Whether there is anything at all that a plain record has not."""
        return (
            bool(len(self._escapes))
            or b"\x7f" in text
            or not text.isascii()
            or np.count_nonzero(self._data < _SPACE) != len(self.ends) - 1
        )

    def _find_odd(self, text: bytes) -> None:
        odd = (self._data < _SPACE) | (self._data == _DELETE)
        odd[self.ends[:-1]] = False
        odd[self._escapes] |= self.buffer.data[self._escapes + 1] != _U
        if not text.isascii() and not _is_utf8(text):
            odd |= self._data >= _BEYOND_ASCII
        self.plain[np.searchsorted(self.ends, np.flatnonzero(odd))] = False

    def by_quotes(self, fewest: int) -> Iterator[tuple[int, Rows]]:
        """Numbers of quotes, and the plain records that have so many; none that fewer than ``fewest`` have."""
        each, rest = divmod(len(self._quotes), max(len(self.ends), 1))
        if not rest and each and self._all_have(each):
            counts = np.full(len(self.ends), each)
            self._before = np.arange(len(self.ends)) * each
        else:
            upto = np.searchsorted(self._quotes, self.ends)
            self._before = np.concatenate([[0], upto[:-1]])
            counts = upto - self._before
        plain = np.flatnonzero(self.plain)
        sizes = np.bincount(counts[plain]) if len(plain) else np.zeros(0, np.int64)
        for count in np.flatnonzero(sizes >= fewest).tolist():
            if count:
                yield count, plain[counts[plain] == count]

    def _all_have(self, quotes: int) -> bool:
        every = self._quotes.reshape(-1, quotes)
        return bool((every[:, 0] >= self.starts).all() and (every[:, -1] < self.ends).all())

    def marks(self, rows: Rows, quotes: int) -> Ints:
        """The places of the quotes of records that have so many, and their bounds: ``[quotes + 2, records]``."""
        out = np.empty((quotes + 2, len(rows)), np.int64)
        if len(rows) * quotes == len(self._quotes):
            out[:quotes] = self._quotes.reshape(len(rows), quotes).T
        else:
            out[:quotes] = self._quotes[self._before[rows] + np.arange(quotes)[:, None]]
        out[quotes], out[quotes + 1] = self.starts[rows], self.ends[rows]
        return out

    def unescaped(self, starts: Ints, lengths: Ints) -> Bools:
        """Which texts are what they say byte for byte, ``[starts]``."""
        if not len(self._escapes):
            return np.ones(len(starts), np.bool_)
        first, after = (np.searchsorted(self._escapes, edge) for edge in (starts, starts + lengths))
        return np.asarray(first == after)

    def line(self, row: int) -> bytes:
        """A record."""
        return self.buffer.text[int(self.starts[row]) : int(self.ends[row])]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
