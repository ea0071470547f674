"""Native files become events as they are; foreign ones through a mapping, whose errors are named."""

from __future__ import annotations

import csv
import gc
import io
import json
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import ConfigError
from schemas.events import EVENT_TYPES
from streams.config import Config
from streams.importers import Row, import_rows, native_rows
from streams.mapping import Mapping

EVENT = {
    "event_id": "e1",
    "source": "s",
    "reported_at": "2024-05-01T08:00:00",
    "product": "F01",
    "region": "120101",
    "site": "h1",
    "severity": 2,
}

CLINIC = """
name = "clinic"
kind = "injury"
[columns]
seen = ["Date seen", "seen"]
[[when]]
column = "Role"
equals = "suspect"
if_present = true
[fields]
event_id = { template = "{Case}-{Town}" }
source = { const = "CLINIC" }
reported_at = { column = "seen", date = ["%d.%m.%Y"], time = "12:00" }
product = { code = { parts = ["Group", "Article"], case = "upper" } }
region = { first_of = ["District", "Town"], default = "unknown" }
site = { const = "CLINIC" }
severity = { column = "Grade", map = { light = 1, grave = 4 } }
age = { column = "Months", scale = 0.5, clip = [0, 100] }
weight = { column = "Weight" }
[file]
order_by = "reported_at"
"""


def rows_of(batches: Any) -> list[Row]:
    return [row for batch in batches for row in batch]


def documents(rows: list[Row]) -> list[dict[str, Any]]:
    return [json.loads(row.value) for row in rows if row.rejection is None]


def refusals(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [(r.origin, r.rejection.reason, r.rejection.field) for r in rows if r.rejection is not None]


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def injuries(*changes: dict[str, Any]) -> bytes:
    return b"".join(json.dumps({**EVENT, **change}).encode() + b"\n" for change in changes)


def clinic(tmp_path: Path, text: str, mapping: str = CLINIC, **options: Any) -> list[Row]:
    path = write(tmp_path / "clinic.csv", text)
    return rows_of(import_rows(path, Mapping.parse(mapping, "clinic.toml"), **options))


def test_native_ndjson_goes_through_byte_for_byte_and_bad_lines_are_named(tmp_path: Path) -> None:
    good = b'{ "site":"h1","event_id":"e1","source":"s","reported_at":"2024-05-01T08:00:00+08:00",'
    good += b'"product":"F01","region":"r","severity":2,"later_field":1}'
    lines = [
        good,
        b'{"event_id":',
        injuries({"severity": 9}).strip(),
        injuries({"reported_at": "yesterday"}).strip(),
        b'{"event_id":"e5"}',
        b'"text"',
        b'{"event_id":"\xff"}',
        b"[" * 5_000,
    ]
    rows = rows_of(native_rows(write(tmp_path / "n.ndjson", b"\n".join(lines)), "injury"))
    assert rows[0].value == rows[0].raw == good
    assert (rows[0].key, rows[0].topic) == (b"F01", "injuries")
    assert rows[0].reported_at_ms == 1_714_521_600_000
    assert refusals(rows)[1:4] == [
        ("n.ndjson:3", "out-of-range", "severity"),
        ("n.ndjson:4", "bad-time", "reported_at"),
        ("n.ndjson:5", "missing-field", "source"),
    ]
    assert len(refusals(rows)) == len(lines) - 1
    assert [row.raw for row in rows[1:]] == lines[1:]


def test_the_rules_that_tie_fields_together_are_checked(tmp_path: Path) -> None:
    header = "event_id,source,reported_at,product,region,lab,verdict,tested,failed,items\n"
    body = (
        'a,s,2024-05-01,F01,r,l,fail,,,"[{""parameter"":""Pb"",""value"":0.4,""conforming"":false}]"\n'
        "b,s,2024-05-01,F01,r,l,,10,11,\n"
        "c,s,2024-05-01,F01,r,l,,10.0,2,\n"
        "d,s,2024-05-01,F01,r,l,pass,,,{oops\n"
    )
    rows = rows_of(native_rows(write(tmp_path / "i.csv", header + body), "inspection"))
    assert refusals(rows) == [("i.csv:3", "inconsistent", "failed"), ("i.csv:5", "malformed-json", "items")]
    first, aggregate = documents(rows)
    assert first["items"] == [{"parameter": "Pb", "value": 0.4, "conforming": False}]
    assert first["reported_at"] == "2024-05-01T00:00:00"
    assert (aggregate["tested"], aggregate["failed"]) == (10, 2)


def test_parquet_with_pandas_floats_for_integers_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    table = {
        "event_id": pa.array([101.0, 102.0, 103.0]),
        "source": pa.array(["s", "s", "s"]).dictionary_encode(),
        "reported_at": pa.array([datetime(2024, 5, 1, 8)] * 3, pa.timestamp("ns")),
        "product": ["F01"] * 3,
        "region": [120101] * 3,
        "site": ["h"] * 3,
        "severity": [2.0, 2.5, 3.0],
        "age": [float("nan"), 30.5, 40.0],
        "withdrawn": [True, None, None],
        "unknown_column": [1, 2, 3],
    }
    pq.write_table(pa.table(table), path)
    rows = rows_of(native_rows(path, "injury", utc_offset_minutes=480))
    assert refusals(rows) == [("p.parquet:2", "wrong-type", "severity")]
    first, third = documents(rows)
    assert (first["event_id"], first["region"], first["severity"]) == ("101", "120101", 2)
    assert "age" not in first
    assert first["withdrawn"] is True
    assert third["age"] == 40.0
    assert first["reported_at"] == "2024-05-01T08:00:00"
    assert rows[0].reported_at_ms == 1_714_521_600_000


def test_a_native_table_without_a_required_column_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no column for field source.*'source'.*it has 'event_id'"):
        rows_of(native_rows(write(tmp_path / "n.csv", "event_id,region\n1,2\n"), "injury"))


def test_native_forms_of_one_event_give_the_same_bytes(tmp_path: Path) -> None:
    line = msgspec.json.encode(msgspec.convert(EVENT, EVENT_TYPES["injury"]))
    from_lines = rows_of(native_rows(write(tmp_path / "a.ndjson", line), "injury"))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(EVENT))
    writer.writeheader()
    writer.writerow(EVENT)
    from_csv = rows_of(native_rows(write(tmp_path / "a.csv", text.getvalue()), "injury"))
    pq.write_table(pa.Table.from_pylist([EVENT]), tmp_path / "a.parquet")
    from_parquet = rows_of(native_rows(tmp_path / "a.parquet", "injury"))
    assert from_lines[0].value == from_csv[0].value == from_parquet[0].value


HEADER = "Case,Date seen,Role,Group,Article,District,Town,Grade,Months,Weight\n"


def test_a_mapping_makes_events_in_the_order_in_which_they_were_reported(tmp_path: Path) -> None:
    text = HEADER + (
        "2,02.05.2024,Suspect,food / feed,nut  bar,,Tanggu,GRAVE,50,1\n"
        "1,01.05.2024 ,SUSPECT,,bar,Hexi,,light,500,2.5\n"
        "3,01.05.2024,witness,x,y,z,z,light,1,1\n"
        "4,2024-05-01T09:30:00+08:00,suspect,x,,,T,light,,\n"
    )
    seen: list[tuple[int, int | None]] = []
    rows = clinic(tmp_path, text, utc_offset_minutes=480, progress=lambda a, b: seen.append((a, b)))
    assert refusals(rows) == [("clinic.csv:3", "missing-field", "event_id")]  # its template lacks the town
    late, early = documents(rows)[1], documents(rows)[0]
    assert [row.origin for row in rows] == ["clinic.csv:5", "clinic.csv:3", "clinic.csv:2"]
    assert (late["event_id"], late["product"], late["region"]) == (
        "2-Tanggu",
        "FOOD - FEED/NUT BAR",
        "Tanggu",
    )
    assert (late["severity"], late["age"], late["reported_at"]) == (4, 25.0, "2024-05-02T12:00:00")
    assert early["product"] == "X"
    assert rows[0].reported_at_ms == 1_714_527_000_000
    assert seen[-1] == ((tmp_path / "clinic.csv").stat().st_size,) * 2


@pytest.mark.parametrize(
    ("cells", "reason", "field", "says"),
    [
        ({"Date seen": "soon"}, "bad-time", "reported_at", "seen: 'soon'"),
        ({"Date seen": "31.02.2024"}, "bad-time", "reported_at", "31.02.2024"),
        ({"Date seen": ""}, "missing-field", "reported_at", "absent"),
        ({"Case": ""}, "missing-field", "event_id", "absent"),
        ({"Case": "x" * 200}, "bad-length", "event_id", "xxx"),
        ({"Group": "", "Article": " "}, "missing-field", "product", "absent"),
        ({"Group": "g" * 99, "Article": "h" * 99}, "bad-length", "product", "GGG"),
        ({"Grade": "odd"}, "unknown-value", "severity", "Grade: 'odd'"),
        ({"Months": "many"}, "wrong-type", "age", "Months: 'many'"),
        ({"Weight": "heavy"}, "wrong-type", "weight", "heavy"),
        ({"Weight": "-1"}, "out-of-range", "weight", "-1"),
        ({"Weight": "nan"}, "out-of-range", "weight", "nan"),
    ],
)
def test_every_wrong_cell_is_named_and_the_rest_goes_through(
    tmp_path: Path, cells: dict[str, str], reason: str, field: str, says: str
) -> None:
    good = dict(
        zip(
            HEADER.strip().split(","),
            ["1", "01.05.2024", "suspect", "g", "a", "d", "t", "light", "5", "1"],
            strict=True,
        )
    )
    text = HEADER + "".join(
        ",".join(f'"{cell}"' for cell in row.values()) + "\n" for row in (good, {**good, **cells}, good)
    )
    rows = clinic(tmp_path, text)
    assert refusals(rows) == [("clinic.csv:3", reason, field)]
    (bad,) = [row for row in rows if row.rejection is not None]
    assert bad.rejection is not None
    assert says in bad.rejection.detail
    assert bad.key is None
    assert bad.reported_at_ms is None
    assert json.loads(bad.raw)["Role"] == "suspect"
    assert len(documents(rows)) == 2


def test_bytes_that_are_not_utf_8_are_named_unless_the_encoding_is_stated(tmp_path: Path) -> None:
    text = (HEADER + "1,01.05.2024,suspect,Käse,a,d,t,light,5,1\n").encode("cp1252")
    path = write(tmp_path / "clinic.csv", text)
    assert refusals(rows_of(import_rows(path, Mapping.parse(CLINIC, "m")))) == [
        ("clinic.csv:2", "not-utf-8", "product")
    ]
    stated = Mapping.parse(CLINIC.replace("[file]", '[file]\nencoding = "cp1252"'), "m")
    assert documents(rows_of(import_rows(path, stated)))[0]["product"] == "KÄSE/A"


def test_a_filter_that_cannot_tell_refuses_the_row_rather_than_losing_it(tmp_path: Path) -> None:
    mapping = CLINIC.replace(
        "[columns]", '[columns]\nrole = { column = "Role", map = { S = "suspect", W = "witness" } }'
    ).replace('column = "Role"\nequals', 'column = "role"\nequals')
    body = "".join(f"{n},01.05.2024,{role},g,a,d,t,light,5,1\n" for n, role in enumerate("SWX"))
    rows = clinic(tmp_path, HEADER + body, mapping)
    assert refusals(rows) == [("clinic.csv:4", "unknown-value", "")]
    assert [doc["event_id"] for doc in documents(rows)] == ["0-t"]


def test_templates_substitute_columns_and_nothing_else(tmp_path: Path) -> None:
    text = HEADER + '{Town.__class__},01.05.2024,suspect,g,a,d,"{0}{Case!r}",light,5,1\n'
    (row,) = clinic(tmp_path, text)
    assert json.loads(row.value)["event_id"] == "{Town.__class__}-{0}{Case!r}"


def test_foreign_ndjson_keeps_its_order_and_its_lines(tmp_path: Path) -> None:
    lines = [
        b'{"Case":2,"seen":"02.05.2024","Group":"g","Town":"t","Grade":"light"}',
        b"{oops",
        b'{"Case":1,"Date seen":"01.05.2024","Group":["g"],"Town":"t","Grade":"grave","Role":"suspect"}',
        b'{"Case":3,"seen":"later","Group":"g","Town":"t","Grade":"light"}',
    ]
    mapping = Mapping.parse(CLINIC.replace('[[when]]\ncolumn = "Role"\nequals = "suspect"\nif_present = true', ""), "m")
    rows = rows_of(import_rows(write(tmp_path / "c.ndjson", b"\n".join(lines)), mapping))
    assert [row.origin for row in rows] == [f"c.ndjson:{n}" for n in (1, 2, 3, 4)]
    assert [doc["event_id"] for doc in documents(rows)] == ["2-t", "1-t"]
    assert refusals(rows) == [("c.ndjson:2", "malformed-json", ""), ("c.ndjson:4", "bad-time", "reported_at")]
    assert [row.raw for row in rows if row.rejection] == [lines[1], lines[3]]


@pytest.mark.parametrize(("within", "kept"), [("file", ["1", "2"]), ("adjacent", ["1", "2", "1"])])
def test_distinct_drops_repeats_but_never_for_the_sake_of_a_refused_row(
    tmp_path: Path, within: str, kept: list[str]
) -> None:
    mapping = CLINIC.replace("{Case}-{Town}", "{Case}").replace('order_by = "reported_at"', "")
    mapping += f'[distinct]\non = ["Case"]\nwithin = "{within}"\n'
    body = "{},01.05.2024,suspect,g,a,d,t,{},5,1\n"
    cells = [("1", "odd"), ("1", "light"), ("1", "grave"), ("2", "light"), ("1", "light")]
    rows = clinic(tmp_path, HEADER + "".join(body.format(*pair) for pair in cells), mapping)
    assert refusals(rows) == [("clinic.csv:2", "unknown-value", "severity")]
    assert [doc["event_id"] for doc in documents(rows)] == kept


def test_sorting_unifies_dictionaries_of_several_row_groups_and_is_stable(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    names = [f"n{i % 7}" for i in range(30_000)]
    table = pa.table(
        {
            "Case": range(30_000),
            "Date seen": pa.array([f"{1 + i % 28:02d}.05.2024" for i in range(30_000)]).dictionary_encode(),
            "Group": pa.array(names).dictionary_encode(),
            "Town": ["t"] * 30_000,
            "Grade": ["light"] * 30_000,
        }
    )
    pq.write_table(table, path, row_group_size=4_000)
    rows = rows_of(import_rows(path, Mapping.parse(CLINIC, "m")))
    keys = [(row.reported_at_ms, int(row.origin.split(":")[1])) for row in rows]
    assert len(keys) == 30_000
    assert keys == sorted(keys, key=lambda key: (key[0] or 0, key[1]))
    assert all(doc["product"] == names[int(doc["event_id"][:-2])].upper() for doc in documents(rows))


def test_a_file_without_the_columns_is_refused_before_any_row(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "Report ID,Product Type\n1,SUSPECT\n")
    with pytest.raises(ConfigError, match=r"field event_id; looked for .*'brand2', 'product'; it has 'Report ID'"):
        rows_of(import_rows(path, Mapping.builtin("fda-caers")))
    with pytest.raises(ConfigError, match=r"no column for the filter on role.*'Product Type'"):
        rows_of(import_rows(write(tmp_path / "y.csv", "a\n1\n"), Mapping.builtin("fda-caers")))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[file]", "[fiel]", r"fiel: there is no such key, did you mean 'fields'\?; allowed here: .*fields"),
        ("order_by", "ordered_by", r"file\.ordered_by: .*did you mean 'order_by'\?; allowed here: encoding"),
        (
            "scale = 0.5",
            "scales = 0.5",
            r"fields\.age\.scales: .*did you mean 'scale'\?; allowed here: .*clip",
        ),
        ('case = "upper"', 'casing = "upper"', r"fields\.product\.code\.casing: .*allowed here: parts, case"),
        ('case = "upper"', 'case = "loud"', r"fields\.product\.code\.case: Invalid enum value 'loud'"),
        ("if_present", "ifpresent", r"when\[0\]\.ifpresent: .*did you mean 'if_present'"),
        ('equals = "suspect"', "", r"when\[0\]: needs exactly one of equals, in, not_null"),
        ('kind = "injury"', 'kind = "wound"', r"kind: Invalid enum value 'wound'"),
        (
            "severity =",
            "severities =",
            r"fields\.severities: .*did you mean 'severity'\?; they have event_id",
        ),
        ('site = { const = "CLINIC" }', "", r"fields\.site: is missing"),
        (
            '{ const = "CLINIC" }\nsev',
            '{ const = "a", column = "b" }\nsev',
            r"fields\.site: .*column and const",
        ),
        ('{ const = "CLINIC" }\nsev', '"CLINIC"\nsev', r"fields\.site: must be a rule"),
        ("{Case}-{Town}", "{Case", r"fields\.event_id\.template: has a stray brace"),
        ("{Case}-{Town}", "{}", r"fields\.event_id\.template: .*without a column's name"),
        ("clip = [0, 100]", "clip = [5]", r"fields\.age\.clip: must be \[least, most\]"),
        ('time = "12:00"', 'time = "noon"', r"fields\.reported_at\.time: 'noon'"),
        ("%d.%m.%Y", "%Q", r"fields\.reported_at\.date: '%Q'"),
        ('order_by = "reported_at"', 'order_by = "when"', r"file\.order_by: 'when'"),
        ('order_by = "reported_at"', 'encoding = "morse"', r"file\.encoding: .*'morse'"),
        ('column = "Months"', 'column = "Months", extract = "(a)(b)"', r"fields\.age\.extract: "),
        ('column = "Months"', 'column = "Months", tokens = ","', r"fields\.age\.tokens: "),
        ('column = "Months"', 'column = "Months", not_after = "nothing"', r"fields\.age\.not_after: "),
        ('name = "clinic"', "name = clinic", "is not TOML"),
    ],
)
def test_a_wrong_mapping_names_the_file_the_key_and_the_way_to_mend_it(old: str, new: str, says: str) -> None:
    assert old in CLINIC
    with pytest.raises(ConfigError, match=says) as caught:
        Mapping.parse(CLINIC.replace(old, new), "clinic.toml")
    assert str(caught.value).startswith("clinic.toml: ")


def test_a_mapping_is_loaded_from_a_file_and_a_missing_one_is_named(tmp_path: Path) -> None:
    assert Mapping.load(write(tmp_path / "clinic.toml", CLINIC)).name == "clinic"
    with pytest.raises(ConfigError, match=r"none\.toml"):
        Mapping.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="did you mean 'fda-caers'"):
        Mapping.builtin("fda-cears")


def test_the_example_in_the_documentation_is_a_mapping() -> None:
    from streams import mapping

    text = (mapping.__doc__ or "").split("::\n")[1].split("\nA name in")[0]
    example = Mapping.parse("\n".join(line.removeprefix("    ") for line in text.splitlines()), "example")
    assert example.catalogue.names is not None
    assert tomllib.loads(CLINIC)["kind"] == example.kind


def test_refused_rows_do_not_keep_what_was_converted(tmp_path: Path) -> None:
    """Rows are not seen by the garbage collector: a traceback in one would hold its whole chunk for good."""
    file = tmp_path / "many.csv"
    file.write_text(
        "event_id,source,reported_at,product,region,lab,verdict\n" + "e,s,never,F0101,120101,l,pass\n" * 3_000
    )
    held = []
    for _ in range(4):
        assert sum(len(rows) for rows in native_rows(file, "inspection")) == 3_000
        gc.collect()
        held.append(pa.total_allocated_bytes())
    assert held[-1] == held[0]


@pytest.mark.parametrize("text", ["a = " + "9" * 5_000, "a = " + "[" * 5_000])
def test_toml_that_python_cannot_hold_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "odd.toml", text)
    for load in (Mapping.load, Config.load):
        with pytest.raises(ConfigError, match=r"odd\.toml"):
            load(file)
