"""SipHash against its authors' values and a library in C; the identities of events that are made of it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from siphash24 import siphash24

from schemas.events import Kind
from streams.identity import _KEPT, Identities, _key, identity
from streams.siphash import Texts, siphash

# Of the texts 00, 00 01, ... of so many bytes under the key 00 01 .. 0f: the 16th is the example of the paper's
# appendix, the others are from the table of its reference code.
PUBLISHED = {
    0: 0x726FDB47DD0E0E31,
    1: 0x74F839C593DC67FD,
    7: 0xAB0200F58B01D137,
    8: 0x93F5F5799A932462,
    15: 0xA129CA6149BE45E5,
    63: 0x958A324CEB064572,
}


def by_library(text: bytes, key: bytes) -> int:
    return int.from_bytes(siphash24(text, key=key).digest(), "little")


def keys_of(keys: list[bytes]) -> Any:
    return np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2).T


@pytest.mark.parametrize("together", [False, True])
def test_the_published_values_come_out(together: bool) -> None:
    texts = [bytes(range(size)) for size in PUBLISHED]
    parts = [texts] if together else [[text] for text in texts]
    key = bytes(range(16))
    found = [int(one) for part in parts for one in siphash(Texts.of(part), keys_of([key] * len(part)))]
    assert found == list(PUBLISHED.values())
    assert [by_library(text, key) for text in texts] == found


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=200), st.binary(min_size=16, max_size=16)), max_size=40))
def test_texts_of_any_length_and_key_are_hashed_as_by_the_library(pairs: list[tuple[bytes, bytes]]) -> None:
    found = siphash(Texts.of([text for text, _ in pairs]), keys_of([key for _, key in pairs]))
    assert found.tolist() == [by_library(text, key) for text, key in pairs]


def test_more_texts_than_go_at_once_and_some_of_them() -> None:
    ids = [b"e%d" % number for number in range(99_990, 110_010)]  # some of one block, some of two
    ids += [b"longer-than-a-word-%d" % number for number in range(5_000)]
    texts, key = Texts.of(ids), bytes(range(16, 32))
    keys = keys_of([key] * len(ids))
    expected = [by_library(one, key) for one in ids]
    assert siphash(texts, keys).tolist() == expected
    some = np.arange(0, len(ids), 3)[::-1]
    assert siphash(texts.take(some), keys[:, some]).tolist() == [expected[at] for at in some.tolist()]


def by_definition(kind: str, source: str, event_id: str) -> int:
    key = hashlib.blake2b(f"{kind}\0{source}".encode(), digest_size=16).digest()
    return by_library(event_id.encode(), key)


def test_identities_of_many_are_those_of_each_while_sources_are_learned_and_forgotten() -> None:
    kind: Kind = "complaint"
    many = Identities(kind)
    for sources in (["a"], ["a", "b", "检测"], ["a", "b", "检测", "d"], ["b"], []):
        codes = np.arange(3 * len(sources), dtype=np.int32) % max(len(sources), 1)
        ids = [f"编号-{number}" for number in range(len(codes))]
        found = many.of(sources, codes, Texts.of([one.encode() for one in ids])).tolist()
        assert found == [by_definition(kind, sources[code], one) for code, one in zip(codes, ids, strict=True)]
        assert found == [identity(kind, sources[code], one) for code, one in zip(codes, ids, strict=True)]


def test_more_sources_than_keys_are_kept_have_the_same_identities() -> None:
    sources = [f"source-{number}" for number in range(2 * _KEPT + 1)]
    expected = [by_definition("complaint", source, "a") for source in sources]
    ids = Texts.of([b"a"] * len(sources))
    codes = np.arange(len(sources), dtype=np.int32)
    many = Identities("complaint")
    for order in (1, -1):  # the second time the keys of some are still there
        assert [identity("complaint", source, "a") for source in sources[::order]] == expected[::order]
        assert many.of(sources[::order], codes, ids).tolist() == expected[::order]
    assert _key.cache_info().currsize == _KEPT


def test_an_identity_is_told_by_kind_source_and_id() -> None:
    told: list[tuple[Kind, str, str]] = [
        ("complaint", "s", "a"), ("injury", "s", "a"), ("complaint", "t", "a"), ("complaint", "s", "b"),
        ("complaint", "sa", ""), ("complaint", "", "sa"),
    ]  # fmt: skip
    assert len({identity(*one) for one in told}) == len(told)
