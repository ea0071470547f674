"""Events as columns: what goes in comes out, whatever was cut, joined, trimmed and packed on the way."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import columns as columns_module
from streams.columns import COLUMN_TYPES, EventColumns, Grave, concatenate, constant, constant_if_same

TEXT = st.sampled_from(["a", "b", "乳制品", "x" * 160, ""])
rows_of = st.lists(
    st.tuples(
        st.integers(0, 2**64 - 1), st.integers(0, 65_535), TEXT, TEXT, st.none() | TEXT,
        st.tuples(st.sampled_from(["injuries", "losses"]), st.integers(0, 300)),
        st.integers(-(2**62), 2**62), st.integers(-800, 90_000), st.none() | st.integers(1, 4),
    ),
    max_size=12,
)  # fmt: skip
Row = tuple[Any, ...]


def columns_of(rows: list[Row], spare: int = 0) -> EventColumns:
    """Rows as columns; ``spare`` entries that nothing uses pad the dictionaries."""
    tables: list[dict[Any, int]] = [{f"spare {n}": n for n in range(spare)} for _ in range(3)]
    tables.append({("spare", n): n for n in range(spare)})
    tables += [{f"spare {n}": n for n in range(spare)} for _ in range(2)]
    lists: dict[str, list[int]] = {name: [] for name in COLUMN_TYPES}
    graves = []
    for at, (event, revision, product, region, trace, origin, x, day, grave) in enumerate(rows):
        values = dict.fromkeys(COLUMN_TYPES, 0) | {
            "event": event,
            "revision": revision,
            "x": x,
            "n": -x,
            "day": day,
        }
        for table, name, text in zip(
            tables,
            ("product", "region", "trace", "origin", "reporter", "hazard"),
            (product, region, trace, origin, region, trace),
            strict=True,
        ):
            values[name] = -1 if text is None else table.setdefault(text, len(table))
        for name, value in values.items():
            lists[name].append(value)
        if grave is not None:
            graves.append(Grave(at, f"grave-{event}", grave))
    packed = {name: np.array(lists[name], dtype) for name, dtype in COLUMN_TYPES.items()}
    if len(rows) % 2:  # some of the parts have constant columns, some have not
        packed = {name: constant_if_same(column) for name, column in packed.items()}
    products, regions, traces, origins, reporters, hazards = (list(table) for table in tables)
    return EventColumns(packed, products, regions, traces, origins, graves, reporters, hazards)


def rows_in(columns: EventColumns) -> list[Row]:
    graves = {grave.row: grave for grave in columns.graves}
    out: list[Row] = []
    for at in range(len(columns)):
        trace = int(columns["trace"][at])
        assert columns.reporters[columns["reporter"][at]] == columns.regions[columns["region"][at]]
        hazard = int(columns["hazard"][at])
        assert (hazard < 0) == (trace < 0)
        assert hazard < 0 or columns.hazards[hazard] == columns.traces[trace]
        grave = graves.get(at)
        assert grave is None or grave.alert_id == f"grave-{columns['event'][at]}"
        out.append((
            int(columns["event"][at]), int(columns["revision"][at]), columns.products[columns["product"][at]],
            columns.regions[columns["region"][at]], None if trace < 0 else columns.traces[trace],
            tuple(columns.origins[columns["origin"][at]]), int(columns["x"][at]), int(columns["day"][at]),
            None if grave is None else grave.level,
        ))  # fmt: skip
    return out


@given(rows_of, st.integers(0, 3))
def test_packing_and_unpacking_give_the_rows_back(rows: list[Row], spare: int) -> None:
    columns = columns_of(rows, spare)
    again = EventColumns.unpack(columns.pack())
    assert rows_in(again) == rows
    assert again.pack() == columns.pack()
    assert {name: column.dtype for name, column in again.columns.items()} == {
        name: np.dtype(dtype) for name, dtype in COLUMN_TYPES.items()
    }


@given(rows_of, st.integers(0, 3))
def test_trimming_keeps_the_rows_and_only_the_texts_that_they_use(rows: list[Row], spare: int) -> None:
    trimmed = columns_of(rows, spare).trimmed()
    assert rows_in(trimmed) == rows
    assert set(trimmed.products) == {row[2] for row in rows}
    assert set(trimmed.traces) == {row[4] for row in rows} - {None}
    assert set(trimmed.origins) == {row[5] for row in rows}


@given(rows_of, st.data())
def test_taking_rows_takes_their_texts_and_their_graves(rows: list[Row], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(rows)))) if rows else []
    some = order[: data.draw(st.integers(0, len(rows)))]
    taken = columns_of(rows).take(np.array(some, np.intp))
    assert rows_in(taken) == [rows[at] for at in some]


@given(rows_of, st.data())
def test_the_rows_between_two_places_are_those_rows(rows: list[Row], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    assert rows_in(columns_of(rows).between(start, stop)) == rows[start:stop]


@pytest.mark.parametrize(("spare", "kept"), [(0, True), (30, True), (300, False)])
def test_a_part_keeps_dictionaries_unless_they_are_far_larger(spare: int, kept: bool) -> None:
    rows: list[Row] = [(n, 0, f"P{n}", "r", None, ("losses", 0), n, 0, None) for n in range(9)]
    whole = columns_of(rows, spare)
    part = whole.between(2, 4)
    assert rows_in(part) == rows[2:4]
    assert part.products == (whole.products if kept else ["P2", "P3"])


@given(st.lists(st.tuples(rows_of, st.integers(0, 2)), max_size=4))
def test_joining_gives_all_rows_in_order(parts: list[tuple[list[Row], int]]) -> None:
    joined = concatenate([columns_of(rows, spare) for rows, spare in parts])
    assert rows_in(joined) == [row for rows, _ in parts for row in rows]
    assert rows_in(EventColumns.unpack(joined.trimmed().pack())) == rows_in(joined)


@given(rows_of, st.integers(0, 12), rows_of)
def test_parts_of_one_whole_are_joined_by_its_dictionaries(rows: list[Row], cut: int, others: list[Row]) -> None:
    whole = columns_of(rows)
    parts = [whole.between(0, min(cut, len(rows))), whole.between(min(cut, len(rows)), len(rows))]
    joined = concatenate(parts)
    assert rows_in(joined) == rows
    assert joined.products is whole.products
    assert rows_in(concatenate([*parts, columns_of(others)])) == rows + others


@pytest.mark.parametrize("size", [0, 1, 2, 1_000])
def test_a_constant_column_is_that_value_so_many_times_and_cannot_be_written_to(size: int) -> None:
    column = constant(-7, size, np.int16)
    assert column.dtype == np.int16
    assert column.tolist() == [-7] * size
    with pytest.raises(ValueError, match="read-only"):
        column[:] = 1
    assert constant_if_same(np.full(size, 9)).tolist() == [9] * size
    assert constant_if_same(np.arange(size)).tolist() == list(range(size))


def test_what_is_constant_stays_so_however_it_is_cut_joined_and_stored() -> None:
    columns = columns_of([(at, 3, "a", "b", None, ("losses", 0), 1, 5, None) for at in range(31)])
    taken = columns.take(np.arange(30, 0, -2))
    joined = concatenate([taken.between(0, 4), columns, EventColumns.empty()])
    back = EventColumns.unpack(joined.pack())
    for part in (columns, taken, joined, back):
        assert part["revision"].strides == part["day"].strides == (0,)
        assert part["revision"].tolist() == [3] * len(part)
    assert back["event"].tolist() == [30, 28, 26, 24, *range(31)]
    repeated = columns.take(np.zeros(40, np.intp))
    assert repeated["revision"].tolist() == [3] * 40
    other = columns_of([(99, 4, "a", "b", None, ("losses", 0), 1, 5, None)])
    assert concatenate([columns, other])["revision"].tolist() == [*[3] * 31, 4]


def test_nothing_at_all_packs_and_unpacks() -> None:
    assert len(EventColumns.unpack(EventColumns.empty().pack())) == 0
    assert len(concatenate([EventColumns.empty(), EventColumns.empty()]).trimmed()) == 0


def test_columns_of_another_version_are_refused_in_words() -> None:
    packed = msgspec.msgpack.decode(EventColumns.empty().pack())
    packed[0] = 99
    with pytest.raises(ValueError, match="version 99"):
        EventColumns.unpack(msgspec.msgpack.encode(packed))


def test_damaged_columns_are_refused_as_a_whole() -> None:
    rows: list[Row] = [(n, 0, "p", "r", None, ("losses", 0), n * 300, 0, None) for n in range(4)]
    for columns in (EventColumns.empty(), columns_of(rows)):
        version, events, narrow, *rest = msgspec.msgpack.decode(columns.pack())
        bad: list[Any] = [[version, events + b"\0" * 8, narrow, *rest], [version, events + b"\0", narrow, *rest]]
        for name, dtype in COLUMN_TYPES.items():
            if name == "event":
                continue
            least, width, data = narrow[name]
            size = np.dtype(dtype).itemsize
            others: list[Any] = [
                [least, width, data + b"\0"], [least, 3, b"\0" * 12], [least, 2 * size, b"\0" * 8 * size],
                [least, -1, b""], [2**63, 0, b""], "columns", None,
            ]  # fmt: skip
            bad += [[version, events, {**narrow, name: other}, *rest] for other in others]
            bad.append([version, events, {key: value for key, value in narrow.items() if key != name}, *rest])
        for damaged in bad[1:] if not len(columns) else bad:
            with pytest.raises(ValueError, match="damaged"):
                EventColumns.unpack(msgspec.msgpack.encode(damaged))


EDGES = [0, 1, 2, 127, 128, 255, 256, 257, 2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32]


@pytest.mark.parametrize("name", [name for name in COLUMN_TYPES if name != "event"])
@pytest.mark.parametrize("span", EDGES)
def test_numbers_of_any_span_are_stored_narrow_and_come_back(name: str, span: int) -> None:
    info = np.iinfo(COLUMN_TYPES[name])
    for least in {info.min, -1, 0, info.max - span}:
        if not info.min <= least <= least + span <= info.max:
            continue
        columns = EventColumns({one: np.zeros(3, dtype) for one, dtype in COLUMN_TYPES.items()})
        columns.columns[name] = np.array([least + span // 2, least, least + span], COLUMN_TYPES[name])
        packed = columns.pack()
        again = EventColumns.unpack(packed)[name]
        assert again.tolist() == columns[name].tolist()
        assert again.dtype == COLUMN_TYPES[name]
        needed = (span.bit_length() + 7) // 8
        width = next(one for one in (0, 1, 2, 4, 8) if one >= needed)
        assert len(msgspec.msgpack.decode(packed)[2][name][2]) == 3 * min(width, info.bits // 8)


def test_the_whole_range_of_a_type_comes_back() -> None:
    columns = EventColumns(
        {name: np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype) for name, dtype in COLUMN_TYPES.items()}
    )
    again = EventColumns.unpack(columns.pack())
    assert all(again[name].tolist() == columns[name].tolist() for name in COLUMN_TYPES)


@pytest.mark.parametrize(("count", "size"), [(300, 7), (5_000, 3_000), (256, 1), (257, 60_000), (300, 0)])
def test_many_rows_keep_the_tables_that_few_rows_keep(count: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(count)
    texts = [f"text {number}" for number in range(size)]
    columns = {name: np.zeros(count, dtype) for name, dtype in COLUMN_TYPES.items()}
    for name in ("product", "region", "trace", "reporter", "hazard"):
        columns[name] = rng.integers(-1, size, count).astype(COLUMN_TYPES[name]) if size else columns[name] - 1
    made = EventColumns(columns, texts, texts, texts, [("losses", 0)], [], texts, texts)
    many = made.trimmed()
    monkeypatch.setattr(columns_module, "_FEW", count + 1)
    few = made.trimmed()
    assert many.tables == few.tables
    assert all((many[name] == few[name]).all() and many[name].dtype == few[name].dtype for name in COLUMN_TYPES)
