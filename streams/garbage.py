"""How often Python's garbage collector looks for cycles while events go through by the hundred thousand."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["few_collections"]

_THRESHOLDS: Final = (100_000, 20, 20)


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the collector run seldom.

    A fetch brings tens of thousands of records, none of them in a cycle. At Python's own threshold of 700 objects the
    collector walks all that are held, again and again: a tenth of a worker's CPU.
    """
    before = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
