"""The form of a JSON record: what all records of one producer have in common, byte for byte.

A program that writes records writes them alike: the same fields in the same order, the same blanks, and only the
values differ. Such a form is learned from one record, and then told of many by comparing bytes: between the values
stands exactly what stood there in the first. No parser looks at them again, and yet they mean what a parser would say:

- the form was learned from a flat object whose fields are distinct;
- no record that is compared holds a backslash but before a ``u``, so every quote begins or ends a string;
- as the bytes between the values are the same, the quotes among them are too, and each value lies where it lay;
- no control character is in a record, and its text is UTF-8, so what stands between two quotes is a string.

What stands in the place of a number, ``true``, ``false`` or ``null`` is judged by whoever reads it (:class:`Literal`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from streams.vocabulary import MASKS, WORD, Buffer

__all__ = ["LONGEST_FIXED", "Form", "Span", "literal_in"]

_MOST_FIELDS: Final = 64
LONGEST_FIXED: Final = 128
"""Bytes that may stand between two values."""
_QUOTE: Final = b'"'
_ESCAPE: Final = re.compile(rb"\\(?!u)")
_OPENS, _COLON, _NEXT = (re.compile(rb"\A" + one + rb" *\Z") for one in (rb"\{", rb" *:", rb" *,"))
_CLOSES: Final = re.compile(rb"\A *\}\Z")
_LITERAL, _LAST_LITERAL = (
    re.compile(rb'\A *: *(?P<literal>[^\s",:{}\[\]]+) *' + end + rb"\Z") for end in (rb", *", rb"\}")
)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """Where the value of a field lies in each record: between two quotes, or from a quote to the next or the end.

    Parameters
    ----------
    opens
        The number of the quote after which it begins.
    closes
        The number of the quote before which it ends, ``None`` for the record's end.
    text
        Whether it is a string; else it is a literal with its colon and its comma or bracket (:func:`literal_in`).
    """

    opens: int
    closes: int | None
    text: bool


def literal_in(raw: bytes, *, last: bool) -> bytes | None:
    """What stands between a colon and a comma (after the last field: a closing bracket); ``None`` where it is not one
    literal."""
    match = (_LAST_LITERAL if last else _LITERAL).match(raw)
    return match["literal"] if match else None


class Form:
    """What records of one form have in common.

    Attributes
    ----------
    quotes
        How many quotes such a record has.
    spans
        Of each field, by its name as it is written.
    """

    def __init__(self, quotes: int, spans: dict[bytes, Span], fixed: list[tuple[int | None, bytes]]) -> None:
        self.quotes = quotes
        self.spans = spans
        pieces = [
            (quotes if anchor is None else anchor, at, text[at : at + WORD])
            for anchor, text in fixed
            for at in range(0, len(text), WORD)
        ]
        self._words = [
            (anchor, at, np.uint64(int.from_bytes(text, "little")), MASKS[len(text)]) for anchor, at, text in pieces
        ]
        """Of each word of what stands between the values: the mark from which it is counted, how far it lies from
        there, what it is, and which of its bytes count."""
        last = list(spans.values())[-1].closes
        self._tail = None if last is None else (last, len(fixed[-1][1]))
        """What the last value ends with, and how far from there the record ends; ``None`` where it ends with it."""

    @classmethod
    def of(cls, record: bytes) -> Form | None:
        """The form of a record, ``None`` where it is no flat object of few fields or is not written plainly."""
        if _ESCAPE.search(record):
            return None
        try:
            read = msgspec.json.decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        quotes = [at.start() for at in re.finditer(_QUOTE, record)]
        if not isinstance(read, dict) or not 0 < len(read) <= _MOST_FIELDS or len(quotes) % 2:
            return None
        gaps = [
            record[first + 1 : end] for first, end in zip([-1, *quotes], [*quotes, len(record)], strict=True)
        ]  # a gap before each quote, and one after the last
        try:
            named = list(_spans(record, gaps, quotes))
        except _OddForm:
            return None
        # What is read has each field once.
        if len(named) != len(read) or not _OPENS.match(gaps[0]) or any(b"\\" in name for name, _ in named):
            return None
        fixed = list(_between(record, quotes, named))
        if max(len(text) for _, text in fixed) > LONGEST_FIXED:
            return None
        return cls(len(quotes), dict(named), fixed)

    def matches(self, buffer: Buffer, marks: Ints) -> npt.NDArray[np.bool_]:
        """Which of some records have this form, ``[records]``.

        Parameters
        ----------
        marks
            The places of each record's quotes, then of its beginning and its end; shape ``[quotes + 2, records]``.
        """
        odd = np.zeros(marks.shape[1], np.uint64)
        # Word by word, not all in one array: so it stays in the nearer caches.
        for anchor, at, word, mask in self._words:
            found = buffer.words[marks[anchor] + at]
            found ^= word
            found &= mask
            odd |= found
        same: npt.NDArray[np.bool_] = odd == 0
        if self._tail is not None:
            mark, length = self._tail
            same &= marks[mark] + length == marks[-1]
        return same

    def places(self, marks: Ints, names: Sequence[bytes]) -> tuple[Ints, Ints]:
        """Where the values of some fields begin and how long they are, each ``[fields, records]``."""
        spans = [self.spans[name] for name in names]
        starts = marks[[span.opens for span in spans]] + 1
        return starts, marks[[-1 if span.closes is None else span.closes for span in spans]] - starts


class _OddForm(Exception):
    """A record that is not written plainly."""


def _spans(record: bytes, gaps: list[bytes], quotes: list[int]) -> Iterator[tuple[bytes, Span]]:
    """Names and places of all fields; raises where anything else stands between them."""
    at = 0
    while at < len(quotes):
        name = record[quotes[at] + 1 : quotes[at + 1]]
        if _COLON.match(gaps[at + 2]) and at + 4 <= len(quotes):
            last = at + 4 == len(quotes)
            if not (_CLOSES if last else _NEXT).match(gaps[at + 4]):
                raise _OddForm
            yield name, Span(at + 2, at + 3, text=True)
            at += 4
        else:
            last = at + 2 == len(quotes)
            if literal_in(gaps[at + 2], last=last) is None:
                raise _OddForm
            yield name, Span(at + 1, None if last else at + 2, text=False)
            at += 2


def _between(record: bytes, quotes: list[int], named: list[tuple[bytes, Span]]) -> Iterator[tuple[int | None, bytes]]:
    """What stands before, between and after the values, and the quote at which each begins."""
    anchor: int | None = None
    for _, span in named:
        begin = 0 if anchor is None else quotes[anchor]
        yield anchor, record[begin : quotes[span.opens] + 1]
        if span.closes is None:
            return
        anchor = span.closes
    if anchor is not None:
        yield anchor, record[quotes[anchor] :]
