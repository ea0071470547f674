"""What is behind an alert, for its page: the chart of its counts, and what the signals said of its cell.

Reading the stored state costs as much as a restore, so the gravest alerts' cells are excerpted along with the one that
is asked for, and the excerpts serve for a while. The signals are read once and then followed; of each cell the last few
are kept.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Final, Literal

import msgspec

from schemas.alerts import Alert
from schemas.catalogue import Catalogue
from schemas.errors import TocsinError
from streams.board.chart import Chart, draw, indicators_of
from streams.board.counts import Counts, Watched, read_counts
from streams.config import Config
from streams.medium import Medium
from streams.ticks import Origin
from streams.wire import kind_of

__all__ = ["Behind", "EvidenceDesk", "Said"]

logger = logging.getLogger("tocsin.serve")

_EXCERPTS: Final = 500
"""Cells that are excerpted along with the one that is asked for: those that were asked for before, and the gravest."""
_LEAST_AGE: Final = 20.0
_AGE_PER_COST: Final = 10.0
_CELLS: Final = 5_000
_SAID: Final = 120
_BATCH: Final = 2_000
_Why = Literal["no-series", "no-counts", "unreadable"]


class Said(msgspec.Struct, frozen=True):
    """A signal in short: when, how grave, how improbable by chance, and whether it stood for itself."""

    as_of: datetime
    level: int
    p_value: float
    role: str


class Behind(msgspec.Struct, kw_only=True):
    """The chart, or why there is none: the alert is not about a cell's counts, nothing is stored, or it cannot be read;
    and what the signals said."""

    chart: Chart | None
    why: _Why | None
    said: list[Said]


class EvidenceDesk:
    """Answers for one place; any thread may ask, one at a time is served.

    Parameters
    ----------
    medium
        Opens the place's topics, for the thread that asks.
    config, catalogue
        The workers' own: the state is read by them.
    clock
        Monotonic seconds.
    """

    def __init__(
        self,
        medium: Callable[[], AbstractContextManager[Medium]],
        config: Config,
        catalogue: Catalogue,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._medium = medium
        self._config = config
        self._catalogue = catalogue
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[Watched, Counts] = {}
        self._asked: set[Watched] = set()
        self._recent: list[Watched] = []
        self._until = -1.0
        self._at: dict[Origin, int] = {}
        self._said: OrderedDict[bytes, deque[Said]] = OrderedDict()
        self._decode = msgspec.json.Decoder(Said).decode

    def behind(self, alert: Alert, others: Sequence[Alert]) -> Behind:
        """What is behind an alert; ``others`` are those whose charts may be asked for next, the likeliest first."""
        with self._lock:
            said: list[Said] = []
            chart, why = None, None  # type: Chart | None, _Why | None
            try:
                with self._medium() as medium:
                    chart, why = self._chart(medium, alert, others)
                    self._follow(medium)
                said = list(self._said.get(_key(alert), ()))
            except (TocsinError, sqlite3.Error, OSError) as error:
                logger.warning("what is behind %s cannot be read: %s", alert.id, error)
                chart, why = None, "unreadable"
            return Behind(chart=chart, why=why, said=said)

    def _chart(self, medium: Medium, alert: Alert, others: Sequence[Alert]) -> tuple[Chart | None, _Why | None]:
        mine = _watched(alert)
        if not mine:
            return None, "no-series"
        self._recent = list(dict.fromkeys([*mine, *self._recent]))[: _EXCERPTS // 2]
        if self._clock() >= self._until or not self._asked.issuperset(mine):
            began = self._clock()
            rest = [*self._recent, *(one for other in others[:_EXCERPTS] for one in _watched(other))]
            wanted = list(dict.fromkeys([*mine, *rest]))[:_EXCERPTS]
            self._counts = read_counts(medium, self._config, self._catalogue, wanted)
            self._asked = set(wanted)
            now = self._clock()
            self._until = now + max(_LEAST_AGE, _AGE_PER_COST * (now - began))
        for one in mine:
            counts = self._counts.get(one)
            if counts is not None:
                return draw(alert, one[0], counts, self._config, self._catalogue), None
        return None, "no-counts"

    def _follow(self, medium: Medium) -> None:
        for origin, end in medium.ends(["signals"]).items():
            if end < self._at.get(origin, 0):
                self._at.clear()
                self._said.clear()
            for records in medium.read(origin, self._at.get(origin, 0), end, _BATCH):
                for record in records:
                    if record.key and record.value and kind_of(record.headers)[0] in ("", "signal"):
                        self._note(record.key, record.value)
                self._at[origin] = records[-1].offset + 1

    def _note(self, key: bytes, value: bytes) -> None:
        held = self._said.get(key)
        if held is None:
            held = self._said[key] = deque(maxlen=_SAID)
            while len(self._said) > _CELLS:
                self._said.popitem(last=False)
        else:
            self._said.move_to_end(key)
        held.append(self._decode(value))


def _watched(alert: Alert) -> list[Watched]:
    return [(indicator, alert.product, alert.region) for indicator in indicators_of(alert)]


def _key(alert: Alert) -> bytes:
    """The key of the signals on an alert's cell."""
    return f"{alert.kind}|{alert.product}|{alert.region}".encode()
