"""The identity of an event: a number that stands for its kind, its source and its id.

It is the SipHash-2-4 of the id under a key that is the BLAKE2b hash of kind and source. By chance two of n events share
one with a probability of n^2 / 2^65. The key is no secret, since a replay must come to the same numbers: against
someone who looks for an id with the number of another source's event stand the 64 bits alone, 2^64 trials as far as is
known.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from siphash24 import siphash24

from schemas.events import Kind
from streams.siphash import Texts, siphash

__all__ = ["Identities", "identity"]

_KEY_BYTES: Final = 16
_KEPT: Final = 4_096
"""So many keys are kept, those used last: whoever sends events chooses their sources, and may choose ever new ones."""


def identity(kind: Kind, source: str, event_id: str) -> int:
    """That of one event."""
    return int.from_bytes(siphash24(event_id.encode(), key=_key(kind, source)).digest(), "little")


@lru_cache(maxsize=_KEPT)
def _key(kind: Kind, source: str) -> bytes:
    return hashlib.blake2b(f"{kind}\0{source}".encode(), digest_size=_KEY_BYTES).digest()


class Identities:
    """Those of many events of one kind; the keys stay at hand as an array while the list of sources only grows."""

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        self._sources: list[str] = []
        self._keys = np.empty((2, 0), np.uint64)

    def of(self, sources: list[str], codes: npt.NDArray[np.int32], ids: Texts) -> npt.NDArray[np.uint64]:
        """The identity of each event, ``[events]``.

        Parameters
        ----------
        sources, codes
            A list that may grow from call to call, and of each event the place of its source there.
        ids
            Of each event its ``event_id``, in UTF-8.
        """
        known = len(self._sources)
        if sources[:known] != self._sources:
            self._sources, self._keys, known = [], self._keys[:, :0], 0
        if known < len(sources):
            fresh = b"".join(_key(self._kind, source) for source in sources[known:])
            halves = np.frombuffer(fresh, "<u8").reshape(-1, 2).T
            self._keys = np.concatenate([self._keys, halves.astype(np.uint64)], axis=1)
            self._sources = list(sources)
        return siphash(ids, self._keys.take(codes, axis=1))
