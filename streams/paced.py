"""A record sent again at N times real time, onto a sandbox where a run can be watched as it was live.

Records go out in the order of their arrival over all partitions, each as it is (key, value, headers, time), when as
much of the pace's time has passed as lay between the first arrival and its own. A sandbox is never a place that
production uses: on a broker its topics bear a prefix that begins with ``sandbox``, and a data directory is one that a
paced replay has made. Its topics keep given times (``tocsin topics create --history``): a broker's stamps would be
those of today.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from schemas.errors import TocsinError
from streams import datadir
from streams.decode import Record
from streams.medium import Medium, Outgoing, headers_of
from streams.ticks import COMPLETE, Origin

__all__ = ["MARK", "arrivals", "claim_folder", "claim_prefix", "send_paced"]

MARK: Final = ".tocsin-sandbox"
"""The file by which a paced replay knows a data directory of its own."""
_AT_ONCE: Final = 5_000
_NAP: Final = 0.2


def claim_prefix(prefix: str, record: str) -> str:
    """A broker's sandbox: its topics' prefix, which must be none that the record or production has.

    Raises
    ------
    TocsinError
        It is not a sandbox's.
    """
    if not prefix.startswith("sandbox"):
        raise TocsinError(f"--onto {prefix}: a paced replay writes only to topics whose prefix begins with sandbox")
    if prefix == record:
        raise TocsinError(f"--onto {prefix}: that is the record itself; name another prefix")
    return prefix


def claim_folder(folder: Path, source: Path | None) -> Path:
    """A data directory as a sandbox: a new one, or one that a paced replay has made; it is marked.

    Raises
    ------
    TocsinError
        It is the record itself, or holds what somebody else has published.
    """
    if source is not None and folder.resolve() == source.resolve():
        raise TocsinError(f"--onto {folder}: that is the record itself; name another folder")
    if datadir.has_log(folder) and not (folder / MARK).exists():
        raise TocsinError(
            f"--onto {folder}: is a data directory in use, not a sandbox; name a folder that is not there"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()
    except OSError as error:
        raise TocsinError(f"--onto {folder}: cannot be written ({(error.strerror or '').lower()})") from None
    return folder


def arrivals(medium: Medium, ends: Mapping[Origin, int], batch: int = 2_000) -> Iterator[tuple[int, Origin, Record]]:
    """All records below ``ends`` with their arrival, in its order; at one arrival by partition and offset."""
    return heapq.merge(
        *(_of(medium, origin, end, batch) for origin, end in sorted(ends.items())),
        key=lambda one: (one[0], one[1], one[2].offset),
    )


def _of(medium: Medium, origin: Origin, end: int, batch: int) -> Iterator[tuple[int, Origin, Record]]:
    latest = -COMPLETE
    for records in medium.read(origin, 0, end, batch):
        for record in records:
            latest = max(latest, record.timestamp)
            yield latest, origin, record


def send_paced(
    medium: Medium,
    ends: Mapping[Origin, int],
    target: Medium,
    speed: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Send every record below ``ends`` to ``target``; returns how many.

    Parameters
    ----------
    speed
        How many seconds of the record go by in one.
    """
    total, sent = sum(ends.values()), 0
    began, first = clock(), None
    waiting: dict[str, list[Outgoing]] = {}

    def flush() -> None:
        nonlocal sent
        for topic, records in waiting.items():
            target.write(topic, records)
            sent += len(records)
        waiting.clear()
        if progress is not None:
            progress(sent, total)

    for arrival, (topic, _), record in arrivals(medium, ends):
        first = arrival if first is None else first
        due = began + (arrival - first) / 1_000 / speed
        if clock() < due:
            flush()
        while (left := due - clock()) > 0:
            sleep(min(left, _NAP))
        waiting.setdefault(topic, []).append(
            Outgoing(record.timestamp, record.key, record.value, headers_of(record))
        )  # fmt: skip
        if sum(map(len, waiting.values())) >= _AT_ONCE:
            flush()
    flush()
    return sent
