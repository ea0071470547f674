"""Alerts and signals as files: the one form in which the record of a live run and of its replay can be compared.

Canonical alerts are NDJSON, a revision a line, ordered by (as_of, id, revision), without the wall clock's
``emitted_at``. Two runs over the same records give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas.alerts import Alert, Signal
from schemas.errors import TocsinError
from streams.medium import Medium

__all__ = [
    "OutputError",
    "SignalFiles",
    "canonical",
    "latest_revisions",
    "one_alert",
    "read_alert_file",
    "read_alerts",
    "read_signals",
    "read_values",
    "write_alerts",
]

_ROWS: Final = 20_000
"""Signals of a Parquet file that are written together."""
_AT_ONCE: Final = 256
"""Signals that are encoded together: soon, while they lie in the processor's cache, and so that few are held."""
_AS_JSON: Final = ("evidence", "contributors", "sources")


class OutputError(TocsinError):
    """A file cannot be written; the text names it."""


# --- reading a medium ----------------------------------------------------------------------------------------------


def read_values(medium: Medium, topic: str, batch: int = 2_000) -> Iterator[tuple[int, int, bytes]]:
    """(partition, offset, value) of every record that a topic holds now."""
    for origin, end in medium.ends([topic]).items():
        for records in medium.read(origin, 0, end, batch):
            for record in records:
                if record.value is not None:
                    yield origin[1], record.offset, record.value


def read_alerts(medium: Medium) -> list[Alert]:
    """Every alert revision on ``emergency-response``, each (id, revision) once."""
    decode = msgspec.json.Decoder(Alert).decode
    found: dict[tuple[str, int], Alert] = {}
    for _, _, value in read_values(medium, "emergency-response"):
        alert = decode(value)
        found[alert.id, alert.revision] = alert
    return list(found.values())


def read_alert_file(path: Path) -> list[Alert]:
    """Every alert revision of a canonical file, as a replay leaves it.

    Raises
    ------
    TocsinError
        It cannot be read, or a line is no alert.
    """
    decode = msgspec.json.Decoder(Alert).decode
    found: dict[tuple[str, int], Alert] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise TocsinError(f"{path}: cannot be read ({why}); name a replay's folder or its alerts.ndjson") from None
    for number, line in enumerate(lines, start=1):
        try:
            alert = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TocsinError(f"{path}: line {number} is no alert ({error}); name a replay's alerts.ndjson") from None
        found[alert.id, alert.revision] = alert
    return list(found.values())


def read_signals(medium: Medium) -> Iterator[bytes]:
    """Every signal on ``signals``; on Kafka the stages' own markers travel there too, and are left out."""
    from streams.wire import kind_of

    for origin, end in medium.ends(["signals"]).items():
        for records in medium.read(origin, 0, end, 2_000):
            for record in records:
                if record.value is not None and kind_of(record.headers)[0] in ("", "signal", "grave"):
                    yield record.value


def one_alert(revisions: Iterable[Alert], name: str) -> list[Alert]:
    """The revisions, in order, of the one alert whose id is ``name`` or begins with it.

    Raises
    ------
    TocsinError
        There is none, or there are several.
    """
    every = list(revisions)
    ids = sorted({alert.id for alert in every if alert.id.startswith(name)})
    if name in ids:
        ids = [name]
    if len(ids) != 1:
        said = f"{len(ids)} alerts begin with it; give more of the id" if ids else "see `tocsin alerts list`"
        raise TocsinError(f"{name}: {'not one alert' if ids else 'no such alert'}: {said}")
    return sorted((alert for alert in every if alert.id == ids[0]), key=lambda alert: alert.revision)


def latest_revisions(alerts: Iterable[Alert]) -> list[Alert]:
    """The last revision of each alert, gravest first, then newest first."""
    last: dict[str, Alert] = {}
    for alert in alerts:
        if alert.id not in last or last[alert.id].revision < alert.revision:
            last[alert.id] = alert
    return sorted(last.values(), key=lambda alert: (alert.level, -alert.as_of.timestamp(), alert.id))


# --- writing files -------------------------------------------------------------------------------------------------


def canonical(alerts: Iterable[Alert]) -> Iterator[bytes]:
    """The canonical lines of alert revisions."""
    for alert in sorted(alerts, key=lambda one: (one.as_of, one.id, one.revision)):
        yield msgspec.json.encode(msgspec.structs.replace(alert, emitted_at=None)) + b"\n"


def write_alerts(path: Path, alerts: Iterable[Alert]) -> int:
    """Write the canonical form; returns the number of lines."""
    lines = list(canonical(alerts))
    with explained(path), replacing(path) as name:
        Path(name).write_bytes(b"".join(lines))
    return len(lines)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """An OutputError for what goes wrong with a file."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(f"{error.filename or path}: cannot be written ({why}); check the path and space") from None


@contextmanager
def replacing(path: Path) -> Iterator[str]:
    """A name beside ``path`` to write to; it takes the path's place only when all went well."""
    name = f"{path}.part"
    try:
        yield name
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    os.replace(name, path)


class SignalFiles:
    """Signals into NDJSON and Parquet files, a batch at a time; a context manager, that replaces files at its end.

    Parameters
    ----------
    paths
        ``.parquet`` files get a column a field, with evidence and contributors as JSON; all others are NDJSON.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._text: list[Any] = []
        self._tables: list[_ParquetSignals] = []
        self._waiting: list[Signal] = []
        self._encoder = msgspec.json.Encoder()
        self.count = 0

    def __enter__(self) -> SignalFiles:
        for path in self._paths:
            with explained(path):
                if path.suffix == ".parquet":
                    self._tables.append(_ParquetSignals(_part(path)))
                else:
                    self._text.append(_part(path).open("wb"))
        return self

    def add(self, signals: Iterable[Signal]) -> None:
        """Take signals, in the order in which they are to stand."""
        self._waiting += signals
        if len(self._waiting) >= _AT_ONCE:
            self._flush()

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        self.count += len(waiting)
        with explained(self._paths[0]):
            for file in self._text:
                file.write(self._encoder.encode_lines(waiting))
            for table in self._tables:
                table.add(waiting)

    def __exit__(self, failed: object, *_: object) -> None:
        try:
            if failed is None:
                self._flush()
                with explained(self._paths[0]):
                    for table in self._tables:
                        table.flush()
        finally:
            for file in (*self._text, *self._tables):
                file.close()
        for path in self._paths:
            with explained(path):
                if failed is None:
                    os.replace(_part(path), path)
                else:
                    _part(path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return Path(f"{path}.part")


class _ParquetSignals:
    """One Parquet file of signals."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._pa = pa
        text, json = pa.string(), pa.string()
        self._schema = pa.schema(
            [
                ("tick", pa.int64()), ("as_of", pa.timestamp("ms", tz="UTC")), ("kind", text), ("product", text),
                ("region", text), ("role", text), ("level", pa.int8()), ("scope", text), ("p_value", pa.float64()),
                ("excess", pa.float64()), ("severity", pa.int8()), ("alert_id", text), ("withdrawn", pa.bool_()),
                ("evidence", json), ("contributors", json), ("sources", json),
            ]
        )  # fmt: skip
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._encode = msgspec.json.Encoder().encode
        self._columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}

    def add(self, signals: Sequence[Signal]) -> None:
        """Take signals; a group of rows is written when there are enough of them."""
        for name, column in self._columns.items():
            values = [getattr(signal, name) for signal in signals]
            column += map(self._encode, values) if name in _AS_JSON else values
        if len(self._columns["tick"]) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._columns["tick"]:
            self._writer.write_table(self._pa.table(self._columns, schema=self._schema))
            self._columns = {name: [] for name in self._columns}

    def close(self) -> None:
        self._writer.close()
