"""Keeps an Alertmanager in step with ``emergency-response``, from a thread of its own beside the pipeline.

It follows the durable topics over a connection of its own, as any other reader would. The pipeline does not know of
it: however slow, broken or absent Alertmanager is, no event waits, and no failure here ends a worker.

1. Read ``emergency-response`` from its beginning, then what comes: what stands is the last revision of each alert that
   is not resolved. So a start needs no memory of the former run.
2. Soon after a change, and every few seconds, ask what Alertmanager holds, and post the difference
   (:func:`streams.alertmanager.plan`); refresh all well before they would expire there.
3. Silences that name one alert become dispositions, each once: their ids come from the silence, and those that are on
   ``dispositions`` already are known by reading it.
4. After a failure wait, twice as long each time up to a minute, and do it all again.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final

import msgspec

from schemas.alerts import Alert, Disposition
from schemas.errors import TocsinError
from streams.alertmanager import MAX_PUSHED, AlertmanagerError, Client, acknowledgements, plan
from streams.medium import Medium
from streams.meter import SILENT, Meter
from streams.ticks import Origin

__all__ = ["AlertmanagerLink", "Follower"]

logger = logging.getLogger("tocsin.alertmanager")
_TOPICS: Final = ("dispositions", "emergency-response")
_BATCH: Final = 1_000
_LONGEST_WAIT: Final = 60.0
_FAREWELL_SECONDS: Final = 10.0
_decode_alert = msgspec.json.Decoder(Alert).decode
_decode_disposition = msgspec.json.Decoder(Disposition).decode


class Follower:
    """What stands, and which silences have been heard, as the topics tell it."""

    def __init__(self) -> None:
        self.standing: dict[str, Alert] = {}
        self.heard: set[str] = set()
        self._revisions: dict[str, int] = {}
        self._next: dict[Origin, int] = {}

    def read_on(self, medium: Medium) -> bool:
        """Read what is new; whether that changed anything."""
        changed = False
        for origin, end in medium.ends(_TOPICS).items():
            for records in medium.read(origin, self._next.get(origin, 0), end, _BATCH):
                for record in records:
                    changed |= record.value is not None and self._take(origin[0], record.value)
            self._next[origin] = max(end, self._next.get(origin, 0))
        return changed

    def _take(self, topic: str, value: bytes) -> bool:
        try:
            if topic == "dispositions":
                name = _decode_disposition(value).disposition_id
                if name.startswith("silence-"):
                    self.heard.add(name)
                return False
            alert = _decode_alert(value)
        except msgspec.MsgspecError:  # anybody may write to dispositions; intake has dead-lettered it
            return False
        if alert.revision <= self._revisions.get(alert.id, 0):
            return False
        self._revisions[alert.id] = alert.revision
        if alert.status == "resolved":
            self.standing.pop(alert.id, None)
        else:
            self.standing[alert.id] = alert
        return True


class AlertmanagerLink:
    """The thread, which runs while this is entered; leaving it tries once more to tell what is not told yet.

    Parameters
    ----------
    open_medium
        Opens the topics; called in the thread, and again after a failure.
    client
        The Alertmanager.
    group
        The deployment's name.
    active
        Whether this process is the one that speaks: of several workers the one that escalates.
    board
        The address of the board, for links; may be empty.
    poll, listen, refresh
        Seconds between two looks at the topics, at Alertmanager, and two refreshes.
    hold
        Seconds that Alertmanager keeps an alert of which it hears no more: long enough for a restart, so that an
        outage of ours does not end a standing alert there.
    meter
        Hears how it went.
    """

    def __init__(
        self,
        open_medium: Callable[[], AbstractContextManager[Medium]],
        client: Client,
        group: str,
        *,
        active: Callable[[], bool] = lambda: True,
        board: str = "",
        poll: float = 0.5,
        listen: float = 5.0,
        refresh: float = 60.0,
        hold: float = 900.0,
        meter: Meter = SILENT,
    ) -> None:
        self._open_medium = open_medium
        self._client = client
        self._group = group
        self._active = active
        self._board = board
        self._poll, self._listen, self._refresh = poll, listen, refresh
        self._hold = timedelta(seconds=hold)
        self._meter = meter
        self._follower = Follower()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alertmanager", daemon=True)
        self._changed = True
        self._synced = self._refreshed = -float("inf")
        self._failures = 0
        self._left_out = 0

    def __enter__(self) -> AlertmanagerLink:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_FAREWELL_SECONDS)

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                with self._open_medium() as medium:
                    while not self._stop.is_set():
                        self.turn(medium)
                        self._stop.wait(self._poll)
                    self.turn(medium, last=True)
                    return
            except Exception as error:  # whatever it is, the pipeline goes on, and so do we
                self._failed(error)
                if self._stop.wait(self._backoff()):
                    return

    def turn(self, medium: Medium, *, last: bool = False) -> None:
        """Look at the topics, and speak with Alertmanager when it is time."""
        self._changed |= self._follower.read_on(medium)
        if not self._active():
            self._changed = True  # whoever takes over does not know what the other has told
            return
        since = time.monotonic() - self._synced
        if self._failures:
            due = since >= self._backoff()
        else:
            due = self._changed or since >= self._listen
        if not due and not (last and self._changed):
            return
        self._synced = time.monotonic()
        try:
            self._sync(medium)
        except AlertmanagerError as error:
            self._failed(error)
        else:
            if self._failures:
                logger.warning("Alertmanager is told again, after %d failures", self._failures)
            self._failures = 0

    def _sync(self, medium: Medium) -> None:
        standing = self._follower.standing
        refresh = time.monotonic() - self._refreshed >= self._refresh
        held = self._client.held(self._group)
        now = datetime.now(UTC)
        self._client.post(
            plan(
                standing.values(),
                held,
                now,
                group=self._group,
                hold=self._hold,
                refresh=refresh,
                board=self._board,
            )
        )
        self._changed = False
        if refresh:
            self._refreshed = time.monotonic()
        self._meter.pushed(min(len(standing), MAX_PUSHED), True)
        self._tell_left_out(len(standing) - MAX_PUSHED)
        if any(one.status.silenced_by for one in held):
            said = acknowledgements(standing, held, self._client.silences())
            self._acknowledge(medium, [one for one in said if one.disposition_id not in self._follower.heard])

    def _acknowledge(self, medium: Medium, dispositions: list[Disposition]) -> None:
        from streams.publish import disposition_record

        if not dispositions:
            return
        medium.write("dispositions", [disposition_record(one, time.time()) for one in dispositions])
        for one in dispositions:
            self._follower.heard.add(one.disposition_id)
            logger.info("a silence acknowledges %s", one.alert_id, extra={"fields": {"alert_id": one.alert_id}})

    def _tell_left_out(self, count: int) -> None:
        if count > 0 and self._left_out <= 0:
            logger.warning("%d open alerts beyond the gravest %d are not pushed", count, MAX_PUSHED)
        self._left_out = count

    # --- failures --------------------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._meter.pushed(0, False)
        if self._failures == 1:  # an outage is one line, not one every second
            bug = error if not isinstance(error, (TocsinError, OSError, sqlite3.Error)) else None
            logger.warning("%s; it is tried again, and no event waits for it", error, exc_info=bug)

    def _backoff(self) -> float:
        return min(2.0 ** min(self._failures - 1, 6), _LONGEST_WAIT)
