"""From a table's columns to the values of an event's fields, a column at a time.

A rule's steps make one function of one cell. It is applied to a column through a memo of the values already
seen: real columns repeat themselves (dates, codes, brands), so most cells cost one dict lookup. What a cell
cannot be turned into is a :class:`Rejection` in the value's place; it stays with its row and never ends the
column.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from itertools import repeat
from typing import Any, Final, Protocol

import msgspec
import pyarrow as pa

from schemas.errors import ConfigError, Rejection
from schemas.events import EVENT_TYPES
from streams.cell_rules import (
    Step,
    Value,
    code_part,
    folded,
    guarded,
    limits_of,
    normal_cell,
    number_of,
    steps_of,
    text_of,
)
from streams.mapping import TEMPLATE_NAME, Code, Filter, Mapping, Rule, ScaleBy

__all__ = ["Columns", "TableColumns", "Worksheet", "missing_columns"]

_MEMO_BOUND: Final = 100_000


def cells_of(array: Any) -> list[Value]:
    """The cells of an Arrow column; each distinct value is turned into a Python object once."""
    if not len(array):
        return []
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":
        array = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    if pa.types.is_nested(array.type):
        return [normal_cell(value) for value in array.to_pylist()]
    if pa.types.is_dictionary(array.type):
        # The dictionary may be the whole file's, and far larger than this piece.
        array = array.dictionary_decode()
    array = array.dictionary_encode()
    known = [normal_cell(value) for value in array.dictionary.to_pylist()]
    known.append(None)  # where the index is -1
    return [known[index] for index in array.indices.fill_null(-1).to_pylist()]


class Columns(Protocol):
    """Columns by header; a dict of lists will do."""

    def get(self, name: str, /) -> list[Value] | None:
        """The cells of a column, or None where there is no such column."""


class TableColumns:
    """The columns of an Arrow table, each turned into cells when it is first asked for."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._cells: dict[str, list[Value]] = {}

    def get(self, name: str, /) -> list[Value] | None:
        """The cells of a column, or None where there is no such column."""
        if name not in self._cells and name in self._table.column_names:
            self._cells[name] = cells_of(self._table[name])
        return self._cells.get(name)


class Worksheet:
    """The rules of one mapping over one file: made once, applied to its pieces, memos kept between them.

    Parameters
    ----------
    mapping
        The rules.
    header
        The file's headers; None where a file has none (NDJSON): then a declared column takes the first of its
        names that the row has.
    """

    def __init__(self, mapping: Mapping, header: Collection[str] | None) -> None:
        self._mapping = mapping
        self._header = header
        self._order = {name: place for place, name in enumerate(mapping.columns)}
        types = msgspec.inspect.type_info(EVENT_TYPES[mapping.kind])
        assert isinstance(types, msgspec.inspect.StructType)  # noqa: S101 - for the type checker
        self._text_fields = {field.name for field in types.fields if _is_text(field.type)}
        self._functions: dict[int, tuple[Step, dict[Value, Value]]] = {}
        self._columns: Columns = {}
        self._done: dict[tuple[str, int], list[Value]] = {}
        self._size = 0

    def load(self, columns: Columns, size: int) -> None:
        """Take the next piece of the file: its columns, all of ``size`` cells."""
        self._columns, self._size, self._done = columns, size, {}

    def kept(self) -> list[bool | Rejection]:
        """For every row, whether it meets all filters, or why a filter cannot tell."""
        keep: list[bool | Rejection] = [True] * self._size
        for one in self._mapping.when:
            if one.if_present and not self._has(one.column):
                continue
            accepts = _accepts(one)
            cells = self._column(one.column)
            keep = [before and accepts(cell) for before, cell in zip(keep, cells, strict=True)]
        return keep

    def fields(self) -> dict[str, list[Value]]:
        """Every field's values, as text where the field is text; rejections name the field."""
        made = {name: self._choose(rules, len(self._order)) for name, rules in self._mapping.fields.items()}
        for name, rules in self._mapping.fields.items():
            for rule in rules:
                if rule.not_after is not None:
                    limits = made[rule.not_after]
                    made[name] = [_not_after(v, limit) for v, limit in zip(made[name], limits, strict=True)]
        return {
            name: [
                v if v is None or v.__class__ is str else _finish(name, v, name in self._text_fields) for v in values
            ]
            for name, values in made.items()
        }

    def field(self, name: str) -> list[Value]:
        """One field's values."""
        return self._choose(self._mapping.fields[name], len(self._order))

    def keys(self, names: Sequence[str]) -> list[str]:
        """For every row its cells of several columns as one text, for telling repeated rows."""
        columns = [self._column(name) for name in names]
        return ["\x1f".join(["" if v is None else text_of(v) for v in row]) for row in zip(*columns, strict=True)]

    def _has(self, name: str) -> bool:
        return self._header is None or bool(_found(self._mapping, name, self._header, len(self._order)))

    def _column(self, name: str, before: int | None = None) -> list[Value]:
        """A declared column, or the file's own; ``before`` is the place of the declaration that asks.

        A declaration sees only those above it, so that ``brand = { column = "brand" }`` means the file's.
        """
        place = self._order.get(name, -1)
        if place < 0 or (before is not None and place >= before):
            return self._columns.get(name) or [None] * self._size
        key = (name, place)
        if key not in self._done:
            self._done[key] = self._declared(self._mapping.columns[name], place)
        return self._done[key]

    def _declared(self, column: tuple[Any, ...], place: int) -> list[Value]:
        if isinstance(column[0], Rule):
            return self._choose(column, place)
        if self._header is not None:
            name = next((one for one in column if one in self._header), column[0])
            return self._columns.get(name) or [None] * self._size
        return _first([self._columns.get(name) or [None] * self._size for name in column])

    def _choose(self, rules: tuple[Rule, ...], before: int) -> list[Value]:
        values = self._apply(rules[0], before)
        for rule in rules[1:]:
            if not any(v is None or _is_soft(v) for v in values):
                break  # every row has its value; the later rules have nothing to add
            others = self._apply(rule, before)
            values = [_prefer(one, other) for one, other in zip(values, others, strict=True)]
        return values

    def _apply(self, rule: Rule, before: int) -> list[Value]:
        cells, scales = self._source(rule, before), None
        if rule.scale_by is not None:
            scales = self._column(rule.scale_by.column, before)
        step, memo = self._functions.setdefault(id(rule), (steps_of(rule), {}))
        if len(memo) > _MEMO_BOUND:
            memo.clear()
        for cell in set(cells).difference(memo):
            memo[cell] = guarded(step, cell, rule)
        values = [memo[cell] for cell in cells]
        if rule.scale_by is not None and scales is not None:
            values = _scaled(values, scales, rule.scale_by)
            limits = limits_of(rule)
            values = [None if v is None else limits(v) for v in values]
        if rule.default is not None:
            values = [rule.default if v is None or _is_soft(v) else v for v in values]
        return values

    def _source(self, rule: Rule, before: int) -> list[Value]:
        if rule.column is not None:
            return self._column(rule.column, before)
        if rule.first_of is not None:
            return _first([self._column(name, before) for name in rule.first_of])
        if rule.template is not None:
            return self._template(rule.template, before)
        if rule.code is not None:
            return self._code(rule.code, before)
        return [rule.const] * self._size

    def _template(self, template: str, before: int) -> list[Value]:
        """Only columns are put in: no attribute, index or format of them can be asked for."""
        pieces = TEMPLATE_NAME.split(template)
        columns = [
            self._column(piece, before) if place % 2 else repeat(piece, self._size)
            for place, piece in enumerate(pieces)
        ]
        return [_joined(row) for row in zip(*columns, strict=True)]

    def _code(self, code: Code, before: int) -> list[Value]:
        memo: dict[Value, str] = {}
        parts = []
        for name in code.parts:
            column = self._column(name, before)
            for cell in set(column).difference(memo):
                memo[cell] = code_part(cell, code.case)
            parts.append([memo[cell] for cell in column])
        return ["/".join([part for part in row if part]) or None for row in zip(*parts, strict=True)]


def missing_columns(mapping: Mapping, header: Collection[str]) -> None:
    """Refuse a file that cannot yield a required field, or has not the column of a filter.

    Raises
    ------
    ConfigError
        Naming the field, the columns looked for, and those that the file has.
    """
    every = len(mapping.columns)
    lacking: list[tuple[str, tuple[str, ...]]] = [
        (f"the filter on {one.column}", (one.column,))
        for one in mapping.when
        if not one.if_present and not _found(mapping, one.column, header, every)
    ]
    for field in msgspec.structs.fields(EVENT_TYPES[mapping.kind]):
        rules = mapping.fields.get(field.name, ())
        if field.required and not any(_possible(mapping, rule, header, every) for rule in rules):
            lacking.append((f"field {field.name}", tuple(name for rule in rules for name in rule.reads)))
    if lacking:
        what, names = lacking[0]
        absent = [name for name in names if not _found(mapping, name, header, every)]
        sought = ", ".join(sorted({repr(one) for name in absent for one in _leaves(mapping, name, every)}))
        there = ", ".join(map(repr, list(header)[:40]))
        raise ConfigError(
            f"mapping {mapping.name}: the file has no column for {what}; looked for {sought}; it has {there}"
        )


def _possible(mapping: Mapping, rule: Rule, header: Collection[str], before: int) -> bool:
    if rule.const is not None or rule.default is not None:
        return True
    if rule.any_source:
        return any(_found(mapping, name, header, before) for name in rule.any_source)
    return all(_found(mapping, name, header, before) for name in rule.sources)


def _found(mapping: Mapping, name: str, header: Collection[str], before: int) -> bool:
    """Whether a name, as seen from the declaration at ``before``, leads to a column of the file."""
    place = list(mapping.columns).index(name) if name in mapping.columns else before
    if place >= before:
        return name in header
    return any(
        entry in header if isinstance(entry, str) else _possible(mapping, entry, header, place)
        for entry in mapping.columns[name]
    )


def _leaves(mapping: Mapping, name: str, before: int) -> set[str]:
    """The headers that a name may stand for."""
    place = list(mapping.columns).index(name) if name in mapping.columns else before
    if place >= before:
        return {name}
    found: set[str] = set()
    for entry in mapping.columns[name]:
        names = (entry,) if isinstance(entry, str) else entry.reads
        found.update(*({one} if isinstance(entry, str) else _leaves(mapping, one, place) for one in names))
    return found


def _is_text(type_: msgspec.inspect.Type) -> bool:
    if isinstance(type_, msgspec.inspect.UnionType):
        return any(_is_text(one) for one in type_.types)
    return isinstance(type_, msgspec.inspect.StrType | msgspec.inspect.LiteralType)


def _accepts(one: Filter) -> Callable[[Value], bool | Rejection]:
    allowed = one.one_of if one.one_of is not None else [one.equals]
    accepted = {folded(normal_cell(value)) for value in allowed}

    def accepts(cell: Value) -> bool | Rejection:
        if cell is None or isinstance(cell, Rejection):
            return cell or False
        return one.not_null or folded(cell) in accepted

    return accepts


def _is_soft(value: Value) -> bool:
    """Whether a rejection only says that a table lacks the value: another rule, or a default, may know it."""
    return isinstance(value, Rejection) and value.reason == "unknown-value"


def _prefer(one: Value, other: Value) -> Value:
    if one is None:
        return other
    return other if _is_soft(one) and other is not None else one


def _first(columns: list[list[Value]]) -> list[Value]:
    return [next((v for v in row if v is not None), None) for row in zip(*columns, strict=True)]


def _joined(row: tuple[Value, ...]) -> Value:
    bad = next((v for v in row if v is None or isinstance(v, Rejection)), "")
    return "".join([text_of(v) for v in row]) if bad == "" else bad


def _finish(name: str, value: Value, text: bool) -> Value:
    if isinstance(value, Rejection):
        return Rejection(value.reason, name, value.detail)
    return text_of(value) if text else value


def _not_after(value: Value, limit: Value) -> Value:
    if not isinstance(value, datetime) or not isinstance(limit, datetime):
        return value
    # A time without an offset is compared as if it were UTC: a day's doubt at most, and only in mixed
    # columns.
    return None if _as_utc(value) > _as_utc(limit) else value


def _as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _scaled(values: list[Value], units: list[Value], by: ScaleBy) -> list[Value]:
    factors = {key.strip().casefold(): factor for key, factor in by.map.items()}
    return [
        value if value is None or isinstance(value, Rejection) else _times(value, factors.get(folded(unit)))
        for value, unit in zip(values, units, strict=True)
    ]


def _times(value: Value, factor: float | None) -> Value:
    try:
        return None if factor is None else round(number_of(value) * factor, 6)
    except Rejection as refused:
        return Rejection(refused.reason, "", f"{str(value)[:60]!r} {refused.detail}")
