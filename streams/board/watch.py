"""Follows the topics that the board shows, in a thread: hands over what has come, tries again when it cannot read.

Every record is handed over once, in the order of its partition, alerts before dispositions. Where a topic has become
shorter than what was read of it, it is another topic: the reader is told to begin anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from schemas.errors import TocsinError
from streams.decode import Record
from streams.medium import Medium
from streams.ticks import Origin

__all__ = ["TOPICS", "Watch"]

logger = logging.getLogger("tocsin.serve")

TOPICS: Final = ("emergency-response", "dispositions")
_BATCH: Final = 1_000
_POLL_SECONDS: Final = 0.3
_AGAIN_SECONDS: Final = 3.0

Deliver = Callable[[str, Sequence[Record]], None]


class Watch:
    """The thread; it runs while it is entered.

    Parameters
    ----------
    medium
        Opens the place's topics, for this thread.
    deliver
        Takes a topic's name and records that have come.
    state
        Told True when all that is there has been handed over, False when the topics cannot be read.
    restart
        Told that everything comes again from the beginning.
    """

    def __init__(
        self,
        medium: Callable[[], AbstractContextManager[Medium]],
        deliver: Deliver,
        state: Callable[[bool], None],
        restart: Callable[[], None],
    ) -> None:
        self._medium = medium
        self._deliver = deliver
        self._state = state
        self._restart = restart
        self._at: dict[Origin, int] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._medium() as medium:
                    while not self._stop.is_set():
                        self._look(medium)
                        self._state(True)
                        self._stop.wait(_POLL_SECONDS)
            except (TocsinError, sqlite3.Error, OSError) as error:
                logger.warning("the alerts cannot be read: %s", error)
            except Exception:  # a thread that dies in silence would leave a board that shows the past
                logger.exception("the alerts cannot be followed")
            else:
                return
            self._state(False)
            self._stop.wait(_AGAIN_SECONDS)

    def _look(self, medium: Medium) -> None:
        ends = medium.ends(TOPICS)
        if any(end < self._at.get(origin, 0) for origin, end in ends.items()):
            self._at.clear()
            self._restart()
        for origin in sorted(ends, key=lambda one: (TOPICS.index(one[0]), one[1])):
            for records in medium.read(origin, self._at.get(origin, 0), ends[origin], _BATCH):
                self._deliver(origin[0], records)
                self._at[origin] = records[-1].offset + 1
                if self._stop.is_set():
                    return
            # Markers and compacted records take up offsets that no record has.
            self._at[origin] = max(self._at.get(origin, 0), ends[origin])
