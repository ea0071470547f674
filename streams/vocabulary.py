"""Short texts by number, looked up for many places of a buffer at once.

Records repeat themselves: products, labs and words come again and again. So each distinct text is looked at once, by
whoever owns the vocabulary, and from then on a place in a buffer is told by integers alone: the eight-byte words that
lie there, a hash of them, and a comparison with what was learned. The hash only says where to look; equal is what is
equal in all its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["LONGEST", "MASKS", "PADDING", "WORD", "Buffer", "Vocabulary"]

LONGEST: Final = 64
"""Bytes of the longest text that is looked up."""
PADDING: Final = 2 * LONGEST
"""Bytes that must follow the last text of a buffer: nothing that is looked up or compared is longer."""
WORD: Final = 8
_OWNER_SHIFT: Final = 32
_PROBES: Final = 8
_SAMPLE: Final = 4_096
_FEWEST_SLOTS: Final = 64
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
MASKS: Final = np.array([(1 << (8 * size)) - 1 for size in range(WORD + 1)], np.uint64)
"""What of a word belongs to a text, by the bytes that are left of it."""

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]


class Buffer:
    """Some bytes, and what starts at any place of them.

    Parameters
    ----------
    text
        Followed by :data:`PADDING` bytes of anything.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.data = np.frombuffer(text, np.uint8)
        # Every place begins a word: they overlap.
        self.words: Words = np.ndarray((len(text) - WORD + 1,), "<u8", buffer=text, strides=(1,))

    @classmethod
    def padded(cls, text: bytes) -> Buffer:
        """That of a text which nothing follows yet; the one copy that is made of it is the buffer's."""
        return cls(text + bytes(PADDING))

    def cut(self, starts: Ints, lengths: Ints) -> list[bytes]:
        """The texts at some places."""
        text = self.text
        return [text[first:end] for first, end in zip(starts.tolist(), (starts + lengths).tolist(), strict=True)]


class Vocabulary:
    """Numbers of distinct texts, of several owners: the same text may mean another thing to each.

    Parameters
    ----------
    learn
        The number of a text that is new to an owner, any integer.
    beyond
        The number of all texts beyond :data:`LONGEST`.
    """

    def __init__(self, learn: Callable[[int, bytes], int], beyond: int) -> None:
        self._learn = learn
        self._beyond = beyond
        self.forget()

    def __len__(self) -> int:
        return len(self._known)

    def forget(self) -> None:
        """Learn all anew."""
        self._known: dict[tuple[int, bytes], int] = {}
        self._words = np.zeros((LONGEST // WORD, 0), np.uint64)
        self._tags = np.zeros(0, np.int64)
        self._codes = np.zeros(0, np.int32)
        self._slots = np.full(_FEWEST_SLOTS, -1, np.int32)

    def codes(self, buffer: Buffer, owners: Ints, starts: Ints, lengths: Ints) -> Codes:
        """The numbers of texts, for each owner as many as there are records.

        Parameters
        ----------
        owners
            Shape ``[owners]``.
        starts, lengths
            Where the texts lie, shape ``[owners, records]``.

        Returns
        -------
        Codes
            Shape ``[owners, records]``.
        """
        found = np.empty(starts.shape, np.int32)
        if not found.size:
            return found
        widths = -(-lengths.max(axis=1) // WORD)
        # Owners whose texts are equally long go together: short words are most, and cost least.
        for width in np.unique(widths).tolist():
            some = np.flatnonzero(widths == width)
            tags = (lengths[some] + (owners[some] << _OWNER_SHIFT)[:, None]).ravel()
            found[some] = self._flat(buffer, width, tags, starts[some].ravel()).reshape(len(some), -1)
        return found

    def _flat(self, buffer: Buffer, width: int, tags: Ints, starts: Ints) -> Codes:
        """The numbers of texts of so many words at the most, all in a row."""
        if width > LONGEST // WORD:
            found = np.full(len(starts), self._beyond, np.int32)
            short = np.flatnonzero(_lengths_of(tags) <= LONGEST)
            found[short] = self._flat(buffer, LONGEST // WORD, tags[short], starts[short])
            return found
        words = _words_at(buffer, width, starts, _lengths_of(tags))
        entries = self._entries(words, tags)
        missing = np.flatnonzero(entries < 0)
        if len(missing) > 4 * _SAMPLE:  # in the beginning: what a sample teaches need not be named one by one
            some = missing[:: len(missing) // _SAMPLE]
            self._by_name(*_named(buffer, tags[some], starts[some]))
            entries[missing] = self._entries([word[missing] for word in words], tags[missing])
            missing = missing[entries[missing] < 0]
        found = self._codes.take(entries, mode="wrap") if len(self._codes) else np.empty(len(entries), np.int32)
        if len(missing):
            found[missing] = self._by_name(*_named(buffer, tags[missing], starts[missing]))
        return found

    def _entries(self, words: list[Words], tags: Ints) -> Ints:
        """Places among what was learned, -1 where there is none or it is not soon found."""
        mask = len(self._slots) - 1
        slots = (_hashed(words, tags) & np.uint64(mask)).astype(np.int64)
        entries = self._slots[slots].astype(np.int64)
        wrong = np.flatnonzero((entries >= 0) & ~self._equal(entries, words, tags))
        for step in range(1, _PROBES):
            if not len(wrong):
                break
            there = self._slots[(slots[wrong] + step) & mask].astype(np.int64)
            entries[wrong] = there
            same = self._equal(there, [word[wrong] for word in words], tags[wrong])
            wrong = wrong[(there >= 0) & ~same]
        entries[wrong] = -1
        return entries

    def _equal(self, entries: Ints, words: list[Words], tags: Ints) -> npt.NDArray[np.bool_]:
        if not len(self._tags):
            return np.zeros(len(entries), np.bool_)
        same: npt.NDArray[np.bool_] = self._tags[entries] == tags
        for word, learned in zip(words, self._words, strict=False):
            same &= learned[entries] == word
        return same

    def _by_name(self, owners: list[int], texts: list[bytes]) -> list[int]:
        """The numbers of texts, one by one; what is new is learned."""
        known, named = self._known, list(zip(owners, texts, strict=True))
        fresh = [one for one in dict.fromkeys(named) if one not in known]
        for one in fresh:
            known[one] = self._learn(*one)
        if fresh:
            self._add(fresh)
        return [known[one] for one in named]

    def _add(self, fresh: list[tuple[int, bytes]]) -> None:
        first = len(self._tags)
        padded = b"".join(text.ljust(LONGEST, b"\0") for _, text in fresh)
        words = np.frombuffer(padded, "<u8").reshape(len(fresh), -1).T
        tags = [len(text) + (owner << _OWNER_SHIFT) for owner, text in fresh]
        self._words = np.concatenate([self._words, words], axis=1)
        self._tags = np.concatenate([self._tags, np.array(tags, np.int64)])
        self._codes = np.concatenate([self._codes, np.array([self._known[one] for one in fresh], np.int32)])
        if 2 * len(self._tags) > len(self._slots):
            while 2 * len(self._tags) > len(self._slots):
                self._slots = np.full(2 * len(self._slots), -1, np.int32)
            first = 0
        self._place(first)

    def _place(self, first: int) -> None:
        """Give the entries from one on a slot each; one that finds none near is left to the dictionary."""
        mask, slots = len(self._slots) - 1, self._slots
        # Words beyond a text's end are zero, and count as if they were not there.
        hashes = _hashed(list(self._words[:, first:]), self._tags[first:]) & np.uint64(mask)
        for entry, slot in enumerate(hashes.tolist(), start=first):
            for step in range(_PROBES):
                if slots[(slot + step) & mask] < 0:
                    slots[(slot + step) & mask] = entry
                    break


def _named(buffer: Buffer, tags: Ints, starts: Ints) -> tuple[list[int], list[bytes]]:
    """Owners and texts."""
    return (tags >> _OWNER_SHIFT).tolist(), buffer.cut(starts, _lengths_of(tags))


def _lengths_of(tags: Ints) -> Ints:
    return tags & ((1 << _OWNER_SHIFT) - 1)


def _words_at(buffer: Buffer, width: int, starts: Ints, lengths: Ints) -> list[Words]:
    """The words of texts that lie at some places, zeros behind their ends."""
    if width == 1:
        return [buffer.words[starts] & MASKS[lengths]]
    at = range(0, width * WORD, WORD)
    return [buffer.words[starts + place] & MASKS[np.clip(lengths - place, 0, WORD)] for place in at]


def _hashed(words: list[Words], tags: Ints) -> Words:
    """A number for each text; the same whether or not words of zeros follow."""
    mixed: Words = tags.astype(np.uint64)
    factor = int(_ODD)
    for word in words:
        # A sum, so that a word of zeros adds nothing; another factor for each place.
        mixed += (word ^ (word >> np.uint64(29))) * np.uint64(factor)
        factor = factor * int(_ODD) & (2**64 - 1)
    mixed ^= mixed >> np.uint64(32)
    return np.asarray((mixed * _ODD) >> np.uint64(33), np.uint64)
