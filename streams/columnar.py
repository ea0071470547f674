"""Tables of events into columns, without a row ever being an object.

A table whose columns bear the names of the event's fields (:func:`streams.importers.native_rows`) repeats itself:
products, labs and words come again and again. So each distinct cell is converted and checked once, by the same rules
as in the row's journey (a :class:`~streams.conversion.Worksheet` of the one field, then msgspec), and the rows are
arrays of numbers. Times and counts are checked as arrays. Nothing is left that costs a call a row.

As in :mod:`streams.bulk`, this module only says yes: :meth:`TableIntake.take` gives the rows that it can vouch for,
and whatever else there is, is left to the way of a single row, which also says what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import Kind
from streams.decode import LAST_MS, EventDecoder
from streams.distinct import distinct_of, numbers_of, simple_ids, times_of
from streams.importers import native_mapping
from streams.packing import ABSENT, Numbers, PlainRows, RowPacker
from streams.siphash import Texts
from streams.ticks import MS_PER_DAY, Calendar

if TYPE_CHECKING:
    from schemas.severity import Severity
    from streams.config import Config

__all__ = ["LEAST_BYTES", "TableIntake"]

LEAST_BYTES: Final = 131_072
"""A deployment that takes no records of so many bytes (``intake.max_record_bytes``) has every row's JSON measured:
the longest that is vouched for here is shorter."""

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


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
        self._mapping = native_mapping(kind)
        self._vouches = config.intake.max_record_bytes >= LEAST_BYTES
        self._fields = distinct_of(kind, self._mapping, decoder)
        self._packer = RowPacker(kind, self._fields, config, severity)

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
        return self._packer.pack(good, codes, counts, reported, since, ids)

    def _clocks(self, columns: dict[str, Any], good: Bools, now_ms: int) -> tuple[Ints, Ints]:
        """Epoch milliseconds of the report, and the local day of the occurrence; takes the yes from doubtful rows."""
        offset, size = self._calendar.offset_ms, len(good)
        reported, known, sound = times_of(self._fields["reported_at"], columns.get("reported_at"), size, offset)
        good &= known & sound & (reported >= MS_PER_DAY) & (reported < LAST_MS) & (reported <= now_ms + self._skew_ms)
        occurred, told, sound = times_of(self._fields["occurred_at"], columns.get("occurred_at"), size, offset)
        good &= ~told | (sound & (occurred <= reported + MS_PER_DAY))
        return reported, (np.where(told, occurred, reported) + offset) // MS_PER_DAY

    def _event_ids(self, column: Any, good: Bools) -> Texts:
        """Each row's ``event_id``; takes the yes from rows that have no good one."""
        if column is None:
            good[:] = False
            return Texts.of([])
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        simple = simple_ids(column)
        if simple is not None:
            return simple
        field = self._fields["event_id"]
        codes = field.codes(column, len(good))
        good &= codes >= 0
        return Texts.of([*(text.encode() for text in field.values), b"", b""]).take(codes)
