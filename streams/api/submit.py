"""Rows into the log, and a verdict for each: the work of an upload, done in a thread.

Publishing is :func:`streams.publish.publish`, as for ``tocsin publish``: judged as intake will judge them, good rows to
the raw topic, refused ones to ``dead-letters``, batch by batch, each durable (SQLite's commit, or acknowledged by all
replicas in sync) before the next begins. The verdicts of a batch are written down once it is durable, to a file:
memory holds one batch, however many rows are refused.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

from schemas.catalogue import Catalogue
from schemas.errors import ConfigError, TocsinError
from schemas.events import TOPICS, Kind
from streams.api.limits import Limits
from streams.api.meter import ServiceMetrics
from streams.api.problems import Problem
from streams.api.rows import Upload, read
from streams.config import Config
from streams.mapping import Mapping as ColumnMapping
from streams.medium import Medium, Outgoing
from streams.publish import Candidate, EventJudge, Refused, Tally, check_codes_open, publish
from streams.row_readers import UnreadableFile
from streams.tokens import Grant

__all__ = ["Desk", "Report", "Summary", "Verdict", "verdicts_of"]

RETRY_SECONDS: Final = 30


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one row. Accepted: it is in the log; whether it is a repetition shows when it is counted.

    ``line`` is its line (CSV, NDJSON), row (sheets) or place (JSON arrays), from 1; ``reason`` is a stable token,
    ``field`` the JSON path of the field at fault (absent: the whole row), ``detail`` what was found and how to mend it.
    """

    line: int
    verdict: Literal["accepted", "rejected"]
    reason: str | None = None
    field: str | None = None
    detail: str | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows of an upload were accepted and rejected, and why; ``verdicts`` of the answer goes with it."""

    request_id: str
    kind: Kind
    accepted: int
    rejected: int
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class Report:
    """What an upload came to: its summary, and the file of its verdicts, one JSON object a line."""

    summary: Summary
    verdicts: Path


_ENCODE: Final = msgspec.json.Encoder().encode
_VERDICT: Final = msgspec.json.Decoder(Verdict)


class _Ledger:
    """Writes the verdicts of each batch, in the order of their lines, when publishing comes back for the next one."""

    def __init__(self, file: BinaryIO, every: bool) -> None:
        self._file = file
        self._every = every
        self._refused: dict[int, Verdict] = {}

    def refuse(self, refused: Refused) -> None:
        error, line = refused.rejection, _line(refused.origin)
        self._refused[line] = Verdict(
            line=line, verdict="rejected", reason=error.reason, field=error.field or None, detail=error.detail
        )

    def follow(self, batches: Iterable[list[Candidate]]) -> Iterator[list[Candidate]]:
        for batch in batches:
            yield batch
            lines = sorted({_line(row.origin) for row in batch}) if self._every else sorted(self._refused)
            for line in lines:
                verdict = self._refused.get(line) or Verdict(line=line, verdict="accepted")
                self._file.write(_ENCODE(verdict) + b"\n")
            self._refused.clear()


class _Timed:
    """A place to write to, and how long its writes take."""

    def __init__(self, medium: Medium, meter: ServiceMetrics) -> None:
        self._medium = medium
        self._meter = meter

    def write(self, topic: str, records: Sequence[Outgoing]) -> None:
        began = time.perf_counter()
        self._medium.write(topic, records)
        self._meter.appended(topic, time.perf_counter() - began)


def _line(origin: str) -> int:
    return int(origin.rpartition(":")[2])


class Desk:
    """Takes uploads for one place. Any number of threads may call :meth:`submit` at once.

    Parameters
    ----------
    config, catalogue
        What events are judged by.
    medium
        Opens the place's topics, for one upload.
    given_times
        Of each kind, whether its topic keeps the time that a record is given.
    mappings
        Those that an upload may name.
    limits
        What an upload may cost.
    clock
        Gives epoch seconds.
    meter
        Hears of every row.
    """

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        medium: Callable[[], AbstractContextManager[Medium]],
        *,
        given_times: Mapping[Kind, bool] | None = None,
        mappings: Mapping[str, ColumnMapping] | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] | None = None,
        meter: ServiceMetrics | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.meter = meter or ServiceMetrics("serve")
        self.mappings = dict(mappings or {})
        for mapping in self.mappings.values():
            check_codes_open(mapping, catalogue)
        self._config = config
        self._catalogue = catalogue
        self._medium = medium
        self._given = dict(given_times or {})
        self._clock = {} if clock is None else {"clock": clock}

    def mapping(self, name: str | None, kind: Kind) -> ColumnMapping | None:
        """The mapping that a request names; ``malformed-request`` where it may not."""
        if not name:
            return None
        found = self.mappings.get(name)
        if found is None:
            known = ", ".join(sorted(self.mappings)) or "none"
            raise Problem("malformed-request", f"mapping {name[:60]!r} is not offered here; offered: {known}")
        if found.kind != kind:
            raise Problem("malformed-request", f"mapping {found.name} makes {found.kind} events, not {kind}")
        return found

    def submit(self, upload: Upload, grant: Grant, request_id: str, *, every: bool = False) -> Report:
        """Publish an upload's rows; returns once all of them are durable.

        Parameters
        ----------
        every
            Also give a verdict on each row that was accepted.

        Raises
        ------
        Problem
            Nothing of the upload can be taken; or the log failed, and a part of it has been.
        """
        kind = upload.kind
        judge = EventJudge(
            self._config, self._catalogue, kind,
            given_times=self._given.get(kind, True), allow=grant.check, **self._clock,
        )  # fmt: skip
        tally = Tally()
        verdicts = upload.folder / "verdicts.ndjson"
        try:
            rows = read(upload, self.limits, self._config.offset_ms // 60_000)
            with verdicts.open("wb") as file, self._medium() as medium:
                ledger = _Ledger(file, every)
                publish(
                    _Timed(medium, self.meter), TOPICS[kind], ledger.follow(rows), judge, tally, refuse=ledger.refuse
                )
        except (UnreadableFile, ConfigError) as error:
            raise Problem("malformed-body", str(error)) from None
        except (TocsinError, sqlite3.Error, OSError) as error:
            raise _unavailable(tally) from error
        finally:
            self.meter.took(kind, tally.published, tally.rejected, tally.reasons)
        if not tally.published + tally.rejected:
            raise Problem("malformed-body", "the upload holds no row; send at least one event")
        reasons = dict(sorted(tally.reasons.items()))
        summary = Summary(
            request_id=request_id, kind=kind, accepted=tally.published, rejected=tally.rejected, reasons=reasons
        )
        return Report(summary, verdicts)


def _unavailable(tally: Tally) -> Problem:
    """What the log said is for our own log, as the cause: it may name paths and hosts."""
    return Problem(
        "log-unavailable",
        f"the log could not be written after {tally.published} events; send the same upload again later: no event "
        "counts twice",
        {"Retry-After": str(RETRY_SECONDS)},
    )


def verdicts_of(path: Path) -> Iterator[Verdict]:
    """The verdicts of a report's file."""
    with path.open("rb") as file:
        for line in file:
            yield _VERDICT.decode(line)
