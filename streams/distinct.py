"""The columns of a table, looked at one distinct cell at a time (see :mod:`streams.columnar`).

What a cell becomes is told by the code that converts single rows: a worksheet of the one field, then msgspec. Numbers,
times and plain identifiers have a way of their own, whole arrays at a time, where Arrow's types allow it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import Kind
from streams.conversion import Worksheet, cells_of
from streams.decode import LAST_MS, EventDecoder
from streams.mapping import Mapping
from streams.packing import ABSENT, BAD, LONGEST_ID, FieldValues, Numbers, fields_of, vouching
from streams.siphash import Texts
from streams.ticks import Calendar
from streams.vocabulary import Buffer

__all__ = ["Distinct", "distinct_of", "numbers_of", "simple_ids", "times_of"]

_BOUND: Final = 100_000
_LONGEST_ITEMS: Final = 8_192
_FIXED_ZONE: Final = re.compile(r"UTC|Etc/UTC|[+-]\d\d:\d\d")

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Distinct(FieldValues):
    """One field: what each distinct cell of its column becomes.

    Parameters
    ----------
    mapping
        The mapping whose rule for the field is applied.
    field
        Its description by msgspec.
    type_
        Its type, with the bounds.
    becomes
        What a good value is kept as, ``None`` for a value that this code does not vouch for.
    """

    def __init__(self, mapping: Mapping, field: Any, type_: Any, becomes: Callable[[Any], Any] | None = None) -> None:
        super().__init__(field, becomes)
        self._name = name = field.encode_name
        alone = msgspec.structs.replace(mapping, fields={name: mapping.fields[name]})
        self._sheet = Worksheet(alone, [name])
        self._type = type_
        self._known: dict[Any, int] = {}

    def bound(self) -> None:
        """Forget all where it has become much. Codes hold until then."""
        if len(self._known) > _BOUND:
            self._known = {}
            self.forget()

    def codes(self, column: Any, size: int) -> npt.NDArray[np.int32]:
        """For every cell the place of its value in :attr:`values`, or ABSENT or BAD."""
        if column is None or pa.types.is_null(column.type):
            return np.full(size, ABSENT, np.int32)
        if pa.types.is_nested(column.type):
            return np.where(column.is_null().to_numpy(zero_copy_only=False), ABSENT, BAD).astype(np.int32)
        if pa.types.is_dictionary(column.type) and len(column.dictionary) > max(size, 64):
            column = column.dictionary_decode()  # of the whole file, and far larger than this piece
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        cells = cells_of(column.dictionary)
        self._learn(cells)
        known = self._known
        table = np.array([*(ABSENT if cell is None else known[cell] for cell in cells), ABSENT], np.int32)
        indices = column.indices.fill_null(len(cells)) if column.null_count else column.indices
        found: npt.NDArray[np.int32] = table[indices.to_numpy(zero_copy_only=False)]
        return found

    def _learn(self, cells: list[Any]) -> None:
        fresh = [cell for cell in dict.fromkeys(cells) if cell is not None and cell not in self._known]
        if not fresh:
            return
        self._sheet.load({self._name: fresh}, len(fresh))
        for cell, value in zip(fresh, self._sheet.fields()[self._name], strict=True):
            self._known[cell] = self._judge(value)

    def _judge(self, value: Any) -> int:
        try:
            return self.keep(None if value is None else msgspec.convert(value, self._type, strict=False))
        except msgspec.ValidationError:  # a Rejection too
            return BAD


def distinct_of(kind: Kind, mapping: Mapping, decoder: EventDecoder) -> dict[str, Distinct]:
    """Every field of a kind of event, with what its values must be known to the decoder for."""
    rules: dict[str, Callable[[Any], Any]] = {
        **vouching(kind, decoder),
        "items": _has_broken,
        "reported_at": _as_json_has_it,
        "occurred_at": _as_json_has_it,
    }
    return {name: Distinct(mapping, field, type_, rules.get(name)) for name, (field, type_) in fields_of(kind).items()}


def _has_broken(items: list[Any]) -> bool | None:
    """Whether an item does not conform; very many items are left to the single row."""
    if len(msgspec.json.encode(items)) > _LONGEST_ITEMS:
        return None
    return not all(item.conforming for item in items)


def _as_json_has_it(moment: datetime) -> datetime:
    """A time as it comes out of the record: JSON writes offsets in whole minutes."""
    return msgspec.json.decode(msgspec.json.encode(moment), type=datetime)


# --- whole arrays ---------------------------------------------------------------------------------------------------


def numbers_of(field: Distinct, column: Any, size: int) -> Numbers:
    """A column of numbers: as an array where it is one, else by its distinct cells."""
    assert field.bounds is not None  # noqa: S101 - for the type checker
    if column is None or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return field.numbers(field.codes(column, size))
    whole, low, high = field.bounds
    values = np.array(column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False))
    absent = np.isnan(values)
    good = (values >= low) & (values <= high)
    if whole:
        good &= values == np.rint(values)
    values[~good] = np.nan
    return Numbers(values, good if field.required else good | absent)


def times_of(field: Distinct, column: Any, size: int, offset_ms: int) -> tuple[Ints, Bools, Bools]:
    """Epoch milliseconds of a column of times, whether each is there, and whether it is one to vouch for."""
    if column is not None and pa.types.is_date32(column.type):
        column = column.cast(pa.timestamp("s"))
    zone = getattr(column, "type", None) and getattr(column.type, "tz", None)
    if column is None or not pa.types.is_timestamp(column.type) or not (zone is None or _FIXED_ZONE.fullmatch(zone)):
        codes = field.codes(column, size)
        calendar = Calendar(1, offset_ms)
        known = [calendar.epoch_ms(moment) for moment in field.values]
        return np.array([*known, 0, 0], np.int64)[codes], codes != ABSENT, codes >= 0
    there = column.is_valid().to_numpy(zero_copy_only=False)
    ticks = pc.fill_null(column.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    unit = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[column.type.unit]
    sound = (ticks >= 0) & (ticks < LAST_MS // 1_000 * unit)
    ms = np.where(sound, ticks, 0) * 1_000 // unit if unit < 1_000 else np.where(sound, ticks, 0) // (unit // 1_000)
    return ms - (offset_ms if zone is None else 0), there, sound


def simple_ids(column: Any) -> Texts | None:
    """Every cell of a column of identifiers; None where there is one that a closer look must judge.

    Simple is what neither stripping nor any pattern could change: printable ASCII without blanks, of a good length.
    """
    if pa.types.is_integer(column.type) or pa.types.is_string(column.type):
        column = column.cast(pa.large_string())
    if not pa.types.is_large_string(column.type) or column.null_count or not len(column):
        return None
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    lengths = np.diff(ends)
    if data is None or lengths.min() < 1 or lengths.max() > LONGEST_ID:
        return None
    text = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    if text.min() <= 0x20 or text.max() >= 0x7F:
        return None
    return Texts(Buffer.padded(text.tobytes()), ends[:-1] - ends[0], lengths)
