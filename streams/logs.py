"""Logs for machines: one JSON object a line, on standard error.

The levels, and who should care:

``critical``
    The process ends now. What it had not in a checkpoint is done again by the next one.
``error``
    Something failed and the work goes on, or the command could not begin.
``warning``
    Somebody should look: an alert of grade I or II opened or rose, records were refused.
``info``
    What a worker does: it began, owns partitions, ended; every other revision of an alert.

A line on an alert has codes and numbers only. No log has names of people, free text of reports or dispositions, bytes
of records, or credentials: whoever may see them finds them by the alert's id.
"""

from __future__ import annotations

import logging
import logging.config
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

from schemas.alerts import Alert, DeadLetter

__all__ = ["JSON_LOGGING", "JsonFormatter", "LogFormat", "Refusals", "log_alert", "to_json_lines"]

LogFormat = Literal["text", "json"]
_LONGEST: Final = 8_000
_GRAVE_LEVEL: Final = 2
_alerts = logging.getLogger("tocsin.alerts")
_intake = logging.getLogger("tocsin.intake")


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time (UTC), level, logger, message, then the record's ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST],
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)[-_LONGEST:]
        return msgspec.json.encode(line).decode()


JSON_LOGGING: Final[dict[str, Any]] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonFormatter}},
    "handlers": {"json": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "json"}},
    # Libraries speak when something is wrong, we also of what we do.
    "loggers": {"tocsin": {"level": "INFO"}, "streams": {"level": "INFO"}},
    "root": {"level": "WARNING", "handlers": ["json"]},
}
"""For :func:`logging.config.dictConfig`, and for Faust's worker."""


def to_json_lines() -> None:
    """Turn all logs of this process into JSON lines."""
    logging.config.dictConfig(JSON_LOGGING)


def log_alert(alert: Alert) -> None:
    """One line for one revision of an alert."""
    grave = alert.level <= _GRAVE_LEVEL and alert.status in ("opened", "raised")
    fields = {
        "alert_id": alert.id,
        "revision": alert.revision,
        "status": alert.status,
        "grade": alert.grade,
        "kind": alert.kind,
        "scope": alert.scope,
        "product": alert.product,
        "region": alert.region,
        "as_of": alert.as_of,
        "p_value": alert.p_value,
    }
    text = f"alert {alert.status}: {alert.grade} {alert.kind} {alert.id}"
    _alerts.log(logging.WARNING if grave else logging.INFO, text, extra={"fields": fields})


class Refusals:
    """Logs how many records were refused and why, at most once in ``pause`` seconds: a broken source sends thousands.

    Parameters
    ----------
    pause
        Seconds between two lines.
    clock
        Monotonic seconds.
    """

    def __init__(self, pause: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause = pause
        self._clock = clock
        self._told: float | None = None
        self._count: Counter[str] = Counter()

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Count dead letters, and say so when it is time."""
        self._count.update(letter.reason for letter in letters)
        self.tell()

    def tell(self, *, now: bool = False) -> None:
        """Log what was not logged yet, if it is time or must be ``now``."""
        if not self._count:
            return
        if not now and self._told is not None and self._clock() - self._told < self._pause:
            return
        self._told = self._clock()
        count, self._count = self._count, Counter()
        fields = {"records": count.total(), "reasons": dict(sorted(count.items()))}
        _intake.warning("refused %d records; see tocsin dead-letters list", count.total(), extra={"fields": fields})
