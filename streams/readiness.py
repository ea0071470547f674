"""Whether a worker is alive, and whether it is ready: restored and caught up.

A worker is *caught up* once it has worked off everything that was in its partitions when it had restored them. Records
that come later do not make it unready: a busy worker lags a little all the time, and the lag is a metric of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final, Literal

from streams.ticks import Origin

__all__ = ["STALLED_SECONDS", "Readiness", "State"]

State = Literal["starting", "restoring", "catching-up", "ready"]
STALLED_SECONDS: Final = 300.0
"""A loop that has not turned for so long is stuck; on Kafka it has lost its partitions by then."""


class Readiness:
    """The state of one worker, written by its runtime and read by the server's thread.

    Parameters
    ----------
    clock
        Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._beat = clock()
        self._targets: dict[Origin, int] | None = None
        self.state: State = "starting"
        self.left = 0

    @property
    def ready(self) -> bool:
        return self.state == "ready"

    @property
    def restoring(self) -> bool:
        return self.state in ("starting", "restoring")

    @property
    def silent_seconds(self) -> float:
        """Since the runtime's loop last turned."""
        return self._clock() - self._beat

    @property
    def alive(self) -> bool:
        return self.silent_seconds < STALLED_SECONDS

    def beat(self) -> None:
        self._beat = self._clock()

    def assigning(self) -> None:
        """Partitions come or go."""
        self.beat()
        self.state, self._targets, self.left = "restoring", None, 0

    def serving(self, anything: bool) -> None:
        """Restored; a worker without any partition stands by, and is ready for one."""
        self.beat()
        self._targets = None
        self.state = "catching-up" if anything else "ready"

    def positions(self, places: Mapping[Origin, tuple[int | None, int | None]]) -> None:
        """Where the partitions stand; the first full answer after a restore says what is to be caught up with."""
        self.beat()
        if self.state != "catching-up":
            return
        if self._targets is None:
            known = {origin: end for origin, (_, end) in places.items() if end is not None}
            if not known or len(known) < len(places):
                return
            self._targets = known
        at = {origin: position for origin, (position, _) in places.items() if position is not None}
        self.left = sum(max(end - at.get(origin, 0), 0) for origin, end in self._targets.items())
        if not self.left:
            self.state = "ready"
