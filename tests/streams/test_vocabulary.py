"""Texts get the numbers that a dictionary would give them, wherever they lie and whatever their hashes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import vocabulary
from streams.vocabulary import LONGEST, PADDING, Buffer, Vocabulary

UNTOLD = -2

TEXTS = st.lists(st.binary(max_size=LONGEST + 3) | st.sampled_from([b"", b"\0", b"\0\0", b"a", b"a\0", b"a" * 8]))


def looked_up(held: Vocabulary, texts: list[bytes], owners: int = 1) -> list[int]:
    """Numbers of texts, which belong to owners in equal shares, one owner's after the other's."""
    whole = b"|".join(texts) + b"\xff" * PADDING
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.cumsum(lengths + 1) - lengths - 1
    shape = owners, len(texts) // owners
    found = held.codes(Buffer(whole), np.arange(owners), starts.reshape(shape), lengths.reshape(shape))
    assert found.shape == shape
    return found.ravel().tolist()


class Numbers(dict[Any, int]):
    def __missing__(self, text: Any) -> int:
        self[text] = len(self) * 3 - 1  # any number will do, negative ones too
        return self[text]


@given(st.lists(TEXTS, max_size=4), st.integers(1, 3))
def test_equal_texts_of_an_owner_have_equal_numbers_and_each_is_learned_once(batches: Any, owners: int) -> None:
    expected = Numbers()
    learned: list[tuple[int, bytes]] = []
    held = Vocabulary(lambda *one: learned.append(one) or expected[one], UNTOLD)
    for texts in batches:
        share = len(texts) // owners
        some = texts[: share * owners]
        assert looked_up(held, some, owners) == [
            expected[at // share, text] if len(text) <= LONGEST else UNTOLD for at, text in enumerate(some)
        ]
    assert len(learned) == len(set(learned)) == len(held)


@pytest.mark.parametrize("hashes", [None, 0, 2**31 - 1])
def test_thousands_of_texts_are_told_apart_even_if_all_hashes_are_equal(
    hashes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hashes is not None:
        monkeypatch.setattr(vocabulary, "_hashed", lambda words, tags: np.full(len(tags), hashes, np.uint64))
    rng = random.Random(1)
    texts = [f"P{number:05d}"[: rng.randrange(1, 9)].encode() * rng.randrange(1, 3) for number in range(3_000)]
    expected = Numbers()
    held = Vocabulary(lambda _, text: expected[text], UNTOLD)
    for start in range(0, len(texts), 500):
        some = texts[: start + 500]
        assert looked_up(held, some) == [expected[text] for text in some]


@pytest.mark.parametrize("distinct", [3, 300, 40_000])
def test_a_large_first_batch_is_learned_as_a_small_one(distinct: int) -> None:
    rng = random.Random(2)
    texts = [f"P{rng.randrange(distinct)}".encode() for _ in range(30_000)]
    learned: list[bytes] = []
    expected = Numbers()
    held = Vocabulary(lambda _, text: learned.append(text) or expected[text], UNTOLD)
    assert looked_up(held, texts) == [expected[text] for text in texts]
    assert sorted(learned) == sorted(set(texts))


def test_what_is_forgotten_is_learned_anew() -> None:
    told = iter(range(10))
    held = Vocabulary(lambda *_: next(told), UNTOLD)
    assert looked_up(held, [b"a", b"b", b"a"]) == [0, 1, 0]
    held.forget()
    assert len(held) == 0
    assert looked_up(held, [b"b", b"a"]) == [2, 3]
