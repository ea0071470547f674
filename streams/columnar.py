"""Tables of events into columns, without a row ever being an object.

A table whose columns bear the names of the event's fields (:func:`streams.importers.native_rows`) repeats itself:
products, labs and words come again and again. So each distinct cell is converted and checked once, by the same rules
as in the row's journey (a :class:`~streams.conversion.Worksheet` of the one field, then msgspec), and the rows are
arrays of numbers. Times and counts are checked as arrays. What is left per row is the hash of its id.

As in :mod:`streams.bulk`, this module only says yes: :meth:`TableIntake.take` gives the rows that it can vouch for,
and whatever else there is, is left to the way of a single row, which also says what is wrong with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import KINDS, REPORTERS, Kind
from streams.columns import COLUMN_TYPES, WITHDRAWN, EventColumns
from streams.decode import LAST_MS, EventDecoder
from streams.distinct import ABSENT, Numbers, distinct_of, numbers_of, simple_ids, times_of
from streams.importers import native_mapping
from streams.ticks import MS_PER_DAY, Calendar

if TYPE_CHECKING:
    from schemas.severity import Severity
    from streams.config import Config

__all__ = ["LEAST_BYTES", "PlainRows", "TableIntake"]

LEAST_BYTES: Final = 131_072
"""A deployment that takes no records of so many bytes (``intake.max_record_bytes``) has every row's JSON measured:
the longest that is vouched for here is shorter."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class PlainRows:
    """The rows of a table that are ordinary events.

    Parameters
    ----------
    rows
        Their places in the table, ascending.
    reported
        ``reported_at`` in epoch milliseconds: the time of the record.
    since
        The local day of the occurrence, or of the report where that is unknown.
    columns
        The events; their arrival, offset and delay are yet to be told.
    """

    rows: npt.NDArray[np.intp]
    reported: Ints
    since: Ints
    columns: EventColumns


class TableIntake:
    """Takes the ordinary rows of tables of one kind of event.

    Parameters
    ----------
    kind
        Of all rows.
    decoder
        Knows the codes.
    config, severity
        Of the deployment.
    """

    def __init__(self, kind: Kind, decoder: EventDecoder, config: Config, severity: Severity) -> None:
        self._kind: Kind = kind
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._skew_ms = config.intake.clock_skew_seconds * 1_000
        self._severity = severity
        self._mapping = native_mapping(kind)
        self._vouches = config.intake.max_record_bytes >= LEAST_BYTES
        self._fields = distinct_of(kind, self._mapping, decoder)

    def take(self, table: Any, now_ms: int) -> PlainRows:
        """The ordinary rows of an Arrow table.

        Parameters
        ----------
        table
            With a column for each field that the events have; at most some ten thousand rows.
        now_ms
            The wall clock: what was reported after it is not ordinary.
        """
        size = table.num_rows if self._vouches and len(set(table.column_names)) == len(table.column_names) else 0
        for field in self._fields.values():
            field.bound()
        columns = {name: table[name].combine_chunks() for name in table.column_names} if size else {}
        good = np.ones(size, np.bool_)
        codes: dict[str, npt.NDArray[np.int32]] = {}
        counts: dict[str, Numbers] = {}
        for name, field in self._fields.items():
            column = columns.get(name)
            if name in ("reported_at", "occurred_at", "event_id"):
                continue
            if field.bounds is not None:
                counts[name] = numbers_of(field, column, size)
                good &= counts[name].good
            else:
                codes[name] = field.codes(column, size)
                good &= codes[name] >= (0 if field.required else ABSENT)
        reported, since = self._clocks(columns, good, now_ms)
        ids = self._event_ids(columns.get("event_id"), good)
        return self._packed(good, codes, counts, reported, since, ids)

    def _clocks(self, columns: dict[str, Any], good: Bools, now_ms: int) -> tuple[Ints, Ints]:
        """Epoch milliseconds of the report, and the local day of the occurrence; takes the yes from doubtful rows."""
        offset, size = self._calendar.offset_ms, len(good)
        reported, known, sound = times_of(self._fields["reported_at"], columns.get("reported_at"), size, offset)
        good &= known & sound & (reported >= MS_PER_DAY) & (reported < LAST_MS) & (reported <= now_ms + self._skew_ms)
        occurred, told, sound = times_of(self._fields["occurred_at"], columns.get("occurred_at"), size, offset)
        good &= ~told | (sound & (occurred <= reported + MS_PER_DAY))
        return reported, (np.where(told, occurred, reported) + offset) // MS_PER_DAY

    def _event_ids(self, column: Any, good: Bools) -> list[bytes]:
        """The bytes of each row's ``event_id``; takes the yes from rows that have no good one."""
        if column is None:
            good[:] = False
            return []
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        simple = simple_ids(column)
        if simple is not None:
            return simple
        field = self._fields["event_id"]
        codes = field.codes(column, len(good))
        good &= codes >= 0
        values = np.array([*(text.encode() for text in field.values), b""], object)
        found: list[bytes] = values[codes].tolist()
        return found

    def _packed(
        self,
        good: Bools,
        codes: dict[str, npt.NDArray[np.int32]],
        counts: dict[str, Numbers],
        reported: Ints,
        since: Ints,
        ids: list[bytes],
    ) -> PlainRows:
        """The rows that are good so far as columns, less those whose fields do not agree with one another."""
        kind = self._kind
        withdrawn = self._flags("withdrawn", codes)
        columns: dict[str, npt.NDArray[Any]] = {"flags": np.where(withdrawn, WITHDRAWN, 0)}
        columns["n"], columns["x"] = self._measures(codes, counts, withdrawn, good)
        columns["severity"] = self._severities(codes, counts, withdrawn, good)
        rows = np.flatnonzero(good)
        columns = {name: column[rows] for name, column in columns.items()}
        for name, field in (("product", "product"), ("region", "region"), ("reporter", REPORTERS[kind])):
            columns[name] = codes[field][rows]
        hazard = self._fields["injury"].values if kind == "injury" else []
        columns["hazard"] = codes["injury"][rows] if kind == "injury" else np.full(len(rows), -1, np.int32)
        columns["trace"], traces = self._traces(rows, codes, columns["x"])
        columns["event"] = self._hashes(rows, codes["source"], ids)
        columns["revision"] = counts["revision"].of(rows, 0)
        columns["indicator"] = np.full(len(rows), KINDS.index(kind))
        columns["day"] = (reported[rows] + self._calendar.offset_ms) // MS_PER_DAY
        for name in ("arrival", "offset", "origin", "delay"):
            columns[name] = np.zeros(len(rows), np.int64)
        typed = {name: columns[name].astype(dtype, copy=False) for name, dtype in COLUMN_TYPES.items()}
        values = [self._fields[name].values for name in ("product", "region", REPORTERS[kind])]
        events = EventColumns(typed, values[0], values[1], traces, [], [], values[2], hazard)
        return PlainRows(rows, reported[rows], since[rows], events)

    def _flags(self, name: str, codes: dict[str, npt.NDArray[np.int32]]) -> Bools:
        """A truth of each row, false where absent."""
        return np.array([*self._fields[name].values, False, False], np.bool_)[codes[name]]

    def _measures(
        self, codes: dict[str, npt.NDArray[np.int32]], counts: dict[str, Numbers], withdrawn: Bools, good: Bools
    ) -> tuple[Ints, Ints]:
        """n and x of each row, as :func:`streams.intake._measure` has them."""
        size, kind = len(good), self._kind
        if kind == "survey":
            n = counts["respondents"].whole(1)
            return n, _rounded(counts["score"].values * 100.0) * n
        if kind == "loss":
            loss, output = counts["loss_cny"].values, counts["output_cny"].values
            good &= withdrawn | (loss <= output)
            return _rounded(output), _rounded(loss)
        if kind != "inspection":
            return np.ones(size, np.int64), np.ones(size, np.int64)
        tested, failed = counts["tested"].whole(-1), counts["failed"].whole(-1)
        verdict = np.array([*(word == "fail" for word in self._fields["verdict"].values), False, False])
        told, fails = codes["verdict"] >= 0, verdict[codes["verdict"]]
        single = (tested < 0) & (failed < 0) & told & (fails | ~self._flags("items", codes))
        aggregate = (tested > 0) & (failed >= 0) & (failed <= tested) & ~told
        good &= single | aggregate
        return np.where(single, 1, tested), np.where(single, fails, failed)

    def _severities(
        self, codes: dict[str, npt.NDArray[np.int32]], counts: dict[str, Numbers], withdrawn: Bools, good: Bools
    ) -> npt.NDArray[Any]:
        """Severity of each row on the injury scale; takes the yes from what must ring by itself."""
        kind, rules = self._kind, self._severity
        if kind == "injury":
            died = np.array([*(word == "died" for word in self._fields["outcome"].values), False, False])
            good &= ~died[codes["outcome"]]
            return counts["severity"].whole(0)
        if kind == "accident":
            deaths, hurt = counts["deaths"].whole(0), counts["seriously_injured"].whole(0)
            loss = np.nan_to_num(counts["loss_cny"].values)
            said = list(zip(deaths.tolist(), hurt.tolist(), loss.tolist(), strict=True))
            known = {one: rules.accident_level(*one) for one in set(said)}
            level = np.array([known[one] for one in said], np.int64)
            rings = (level <= rules.grave.from_level) | (deaths > 0)
            good &= withdrawn | ~(rings | (self._flags("structural", codes) & rules.grave.structural))
            return 5 - level
        if kind in ("inspection", "complaint"):
            words = [int(getattr(rules.nonconformity, word)) for word in self._fields["severity"].values]
            return np.array([*words, 0, 0], np.int64)[codes["severity"]]
        return np.zeros(len(good), np.int64)

    def _traces(
        self, rows: npt.NDArray[np.intp], codes: dict[str, npt.NDArray[np.int32]], x: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], list[str]]:
        """Who, of which producer, batch and GTIN, for each row that counts against a product."""
        found = np.full(len(rows), -1, np.int64)
        counted = np.flatnonzero(x)
        if self._kind in ("survey", "loss") or not len(counted):
            return found, []
        names = (REPORTERS[self._kind], "producer", "batch", "gtin")
        behind = [codes[name][rows[counted]] for name in names]
        texts = [[*self._fields[name].values, None] for name in names]
        first, found[counted] = _numbered(behind, [len(values) for values in texts])
        said = zip(*(column[first].tolist() for column in behind), strict=True)
        return found, [
            msgspec.json.encode([values[code] for values, code in zip(texts, one, strict=True)]).decode()
            for one in said
        ]

    def _hashes(
        self, rows: npt.NDArray[np.intp], sources: npt.NDArray[np.int32], ids: list[bytes]
    ) -> npt.NDArray[np.uint64]:
        """The hash of (kind, source, event_id): the one thing that costs a call a row."""
        begun = [
            hashlib.blake2b(f"{self._kind}\0{source}\0".encode(), digest_size=8)
            for source in self._fields["source"].values
        ]
        digests = bytearray()
        if len(rows) < len(ids):
            ids = [ids[row] for row in rows.tolist()]
        for source, name in zip(sources[rows].tolist(), ids, strict=True):
            hashed = begun[source].copy()
            hashed.update(name)
            digests += hashed.digest()
        return np.frombuffer(bytes(digests), "<u8").astype(np.uint64)


def _numbered(columns: list[npt.NDArray[np.int32]], sizes: list[int]) -> tuple[npt.NDArray[np.intp], Ints]:
    """The distinct combinations of several columns of codes (-1 and up): a row of each, and the number of each row's.

    Parameters
    ----------
    sizes
        For each column one more than its greatest code.
    """
    key, many = np.zeros(len(columns[0]), np.int64), 1
    for column, size in zip(columns, sizes, strict=True):
        if many * (size + 1) > 2**62:
            distinct, key = np.unique(key, return_inverse=True)
            many = len(distinct)
        key, many = key * (size + 1) + column + 1, many * (size + 1)
    _, first, places = np.unique(key, return_index=True, return_inverse=True)
    return first, places


def _rounded(values: npt.NDArray[np.float64]) -> Ints:
    """The nearest integers, half to even, as Python's ``round``; 0 where there is no number."""
    return np.rint(np.nan_to_num(values)).astype(np.int64)
