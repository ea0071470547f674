"""Reports of the page's uploads, kept for a while so that their rejected rows can be downloaded.

An address that nobody can guess stands for the report; what is kept is bounded in number, size and time.
"""

from __future__ import annotations

import secrets
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["KEPT_MINUTES", "KeptReports"]

KEPT_MINUTES: Final = 30
_MOST: Final = 100
_MOST_BYTES: Final = 256 << 20


class KeptReports:
    """Files of verdicts by an unguessable name; the oldest go when there are too many. Used from one thread."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._folder = tempfile.TemporaryDirectory(prefix="tocsin-reports-")
        self._held: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, verdicts: Path) -> str:
        """Take over a file; returns its name."""
        name = secrets.token_urlsafe(24)
        size = verdicts.stat().st_size
        verdicts.replace(self._path(name))
        self._held[name] = (self._clock() + 60 * KEPT_MINUTES, size)
        self._forget()
        return name

    def find(self, name: str) -> Path | None:
        """The file of a name, while it is kept."""
        self._forget()
        return self._path(name) if name in self._held else None

    def close(self) -> None:
        """Delete them all."""
        self._held.clear()
        self._folder.cleanup()

    def _path(self, name: str) -> Path:
        return Path(self._folder.name) / name

    def _forget(self) -> None:
        now = self._clock()
        while self._held:
            oldest = next(iter(self._held))
            ends, _ = self._held[oldest]
            if ends > now and len(self._held) <= _MOST and sum(size for _, size in self._held.values()) <= _MOST_BYTES:
                return
            del self._held[oldest]
            self._path(oldest).unlink(missing_ok=True)
