"""The ready mappings: on made-up rows in the publishers' own form, and on the public data.

Every count on the public data is held against one made straight from Arrow.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from schemas.errors import ConfigError
from streams.importers import Row, import_rows, names_for
from streams.mapping import Mapping, builtin_names

FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"


def rows_of(batches: Any) -> list[Row]:
    return [row for batch in batches for row in batch]


def documents(rows: list[Row]) -> list[dict[str, Any]]:
    return [json.loads(row.value) for row in rows if row.rejection is None]


def refusals(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [(r.origin, r.rejection.reason, r.rejection.field) for r in rows if r.rejection is not None]


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared public data are absent: {path}")
    return path


def test_there_are_four_ready_mappings_and_each_says_what_its_catalogue_needs() -> None:
    assert builtin_names() == ("city-of-chicago", "cpsc-neiss", "eu-rasff", "fda-caers")
    for name in builtin_names():
        mapping = Mapping.builtin(name)
        assert mapping.name == name
        assert (mapping.catalogue.products, mapping.catalogue.regions) == ("open", "open")


def test_fda_caers_in_the_form_of_2019() -> None:
    rows = rows_of(import_rows(FIXTURES / "fda_caers_2019.csv", Mapping.builtin("fda-caers")))
    assert refusals(rows) == [("fda_caers_2019.csv:7", "bad-time", "reported_at")]
    assert documents(rows) == [
        {
            "event_id": "900002-ZEST O",
            "source": "FDA-CAERS",
            "reported_at": "2019-01-09T00:00:00",
            "product": "Soft Drink-Water/ZEST/ZEST O",
            "region": "US",
            "site": "FDA-CAERS",
            "severity": 1,
            "injury": "HEADACHE",
        },
        {
            "event_id": "900003-MOONPILL",
            "source": "FDA-CAERS",
            "reported_at": "2019-02-01T00:00:00",  # the event's date lies after it and is left out
            "product": "Vit-Min-Prot-Unconv Diet(Human-Animal)/MOONPILL/MOONPILL",
            "region": "US",
            "site": "FDA-CAERS",
            "severity": 4,
            "outcome": "died",
            "age": 44.0,
            "sex": "male",
            "injury": "DEATH",
        },
        {
            "event_id": "900001-ACORNS BEST",
            "source": "FDA-CAERS",
            "reported_at": "2019-03-05T00:00:00",
            "occurred_at": "2019-02-28T00:00:00",
            "product": "Nuts-Edible Seed/ACORNS/ACORNS BEST",
            "region": "US",
            "site": "FDA-CAERS",
            "severity": 3,
            "outcome": "admitted",
            "age": 1.5,
            "sex": "female",
            "injury": "NAUSEA",
        },
    ]


def test_fda_caers_in_the_form_of_2017() -> None:
    (document,) = documents(rows_of(import_rows(FIXTURES / "fda_caers_2017.csv", Mapping.builtin("fda-caers"))))
    assert document["event_id"] == "800001-HARBOR LIGHT"
    assert document["product"] == "Fishery-Seafood Prod/HARBOR/HARBOR LIGHT"
    assert (document["severity"], document["occurred_at"]) == (4, "2011-12-30T00:00:00")
    assert "age" not in document  # 250 years


def test_cpsc_neiss_in_the_publishers_form() -> None:
    rows = rows_of(import_rows(FIXTURES / "cpsc_neiss.csv", Mapping.builtin("cpsc-neiss")))
    assert sorted(refusals(rows)) == [
        ("cpsc_neiss.csv:7", "unknown-value", "severity"),
        ("cpsc_neiss.csv:8", "wrong-type", "age"),
        ("cpsc_neiss.csv:9", "out-of-range", "weight"),
    ]
    by_id = {document["event_id"][-1]: document for document in documents(rows)}
    assert [by_id[n]["severity"] for n in "12345"] == [2, 3, 4, 3, 1]
    assert [by_id[n].get("outcome") for n in "12345"] == [
        "treated-released",
        "treated-released",
        "died",
        "admitted",
        "left-untreated",
    ]
    assert by_id["1"]["age"] == pytest.approx(13 / 12, abs=1e-6)
    assert "age" not in by_id["3"]
    assert (by_id["1"]["sex"], by_id["2"]["sex"], by_id["3"].get("sex")) == ("female", "male", None)
    assert (by_id["2"]["injury"], by_id["2"]["body_part"]) == ("amputation", "finger")
    assert (by_id["4"]["region"], by_id["4"]["site"], by_id["4"]["product"]) == ("61", "NEISS-61", "611")
    assert documents(rows)[0]["reported_at"] == "2023-01-01T00:00:00"


def test_eu_rasff_in_the_publishers_form() -> None:
    rows = rows_of(import_rows(FIXTURES / "eu_rasff.csv", Mapping.builtin("eu-rasff")))
    assert refusals(rows) == []
    fish, seeds, water = documents(rows)
    assert fish == {
        "event_id": "2024.9001",
        "source": "EU-RASFF",
        "reported_at": "2024-05-01T09:00:00",
        "product": "fish and fish products",
        "region": "türkiye",
        "channel": "RASFF Spain",
    }
    assert (seeds["region"], seeds["category"], seeds["severity"]) == (
        "india",
        "pesticide residues",
        "critical",
    )
    assert (water["product"], water["region"], water["severity"]) == (
        "natural mineral waters",
        "unknown origin",
        "minor",
    )


def test_city_of_chicago_in_the_publishers_form() -> None:
    rows = rows_of(import_rows(FIXTURES / "city_of_chicago.csv", Mapping.builtin("city-of-chicago")))
    assert [row.origin for row in rows] == ["city_of_chicago.csv:5", "city_of_chicago.csv:2"]
    gas, diner = documents(rows)
    assert (gas["product"], gas["region"], gas["verdict"]) == ("GAS STATION-STORE", "unknown", "fail")
    assert (diner["product"], diner["region"], diner["verdict"]) == ("Restaurant", "60699", "pass")
    assert diner["lab"] == "unknown"
    assert "severity" not in diner


def test_names_are_read_beside_the_file_and_may_be_absent(tmp_path: Path) -> None:
    mapping = Mapping.builtin("cpsc-neiss")
    names = tmp_path / "neiss_product_codes.csv.gz"
    assert names_for(mapping, tmp_path / "neiss.csv") == {}
    names.write_bytes(gzip.compress(b"code,title\n1807, Floors\n"))
    assert names_for(mapping, tmp_path / "neiss.csv") == {"1807": "Floors"}
    names.write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with pytest.raises(ConfigError, match="has no column 'code'"):
        names_for(mapping, tmp_path / "neiss.csv")


def count_by(rows: list[Row], field: str) -> Counter[str]:
    return Counter(document.get(field) for document in documents(rows))


@pytest.mark.shared_data
def test_fda_caers_public_data_count_each_report_once_a_brand() -> None:
    path = shared("fda_caers_2004_2010.parquet")
    rows = rows_of(import_rows(path, Mapping.builtin("fda-caers")))
    table = pq.read_table(path)
    suspects = table.filter(pc.equal(table["role"].cast(pa.string()), "Suspect"))
    pairs = pa.table({"r": suspects["report_id"], "b": suspects["brand2"].cast(pa.string())})
    assert refusals(rows) == []
    assert len(rows) == pairs.group_by(["r", "b"]).aggregate([]).num_rows == 21_930
    brands = Counter(row.key.decode().split("/")[2] for row in rows if row.key is not None)
    for brand in ("PETER PAN", "TOTAL BODY", "HYDROXYCUT"):
        assert brands[brand] == pc.count_distinct(pairs.filter(pc.equal(pairs["b"], brand))["r"]).as_py()
    assert brands["PETER PAN"] == 728
    hit = pc.match_substring(pc.utf8_upper(suspects["product"]), "PETER PAN")
    # Three more reports name it after another brand.
    assert pc.count_distinct(suspects.filter(hit)["report_id"]).as_py() == 731
    family = pairs.filter(pc.equal(suspects["brand1"].cast(pa.string()), "HYDROXYCUT"))
    expected = family.group_by(["r", "b"]).aggregate([]).num_rows
    assert sum(row.key is not None and b"/HYDROXYCUT/" in row.key for row in rows) == expected
    assert len({json.loads(row.value)["event_id"] for row in rows}) == len(rows)
    assert [row.reported_at_ms for row in rows] == sorted(row.reported_at_ms or 0 for row in rows)


@pytest.mark.shared_data
def test_fda_caers_brands_and_severity_follow_from_the_publishers_columns(tmp_path: Path) -> None:
    path = shared("fda_caers_2004_2010.parquet")
    mapping = Mapping.builtin("fda-caers")
    bare = tmp_path / "bare.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["brand1", "brand2", "severity"]), bare)
    tidy, publisher = rows_of(import_rows(path, mapping)), rows_of(import_rows(bare, mapping))
    assert [row.value for row in publisher] == [row.value for row in tidy]


@pytest.mark.shared_data
def test_cpsc_neiss_public_data() -> None:
    path = shared("neiss_2014_sample.parquet")
    rows = rows_of(import_rows(path, Mapping.builtin("cpsc-neiss")))
    table = pq.read_table(path)
    assert refusals(rows) == []
    assert len(rows) == table.num_rows == 65_499
    pairs = {(row.key, json.loads(row.value)["region"]) for row in rows}
    assert len(pairs) == table.group_by(["product1", "psu"]).aggregate([]).num_rows == 13_291
    outcomes = count_by(rows, "outcome")
    for code, outcome in (
        (1, "treated-released"),
        (2, "transferred"),
        (4, "admitted"),
        (5, "observed"),
        (8, "died"),
    ):
        assert outcomes[outcome] == pc.sum(pc.equal(table["disposition"], code)).as_py()
    severe = pc.or_(
        pc.is_in(table["disposition"], pa.array([2, 4, 5], pa.uint8())),
        pc.and_(pc.equal(table["diagnosis"], 50), pc.not_equal(table["disposition"], 8)),
    )
    assert count_by(rows, "severity")[3] == pc.sum(severe).as_py()
    ages = [doc["age"] for doc in documents(rows) if "age" in doc]
    assert sum(age < 2 for age in ages) == pc.sum(pc.greater_equal(table["age"], 200)).as_py()
    assert len(ages) == table.num_rows - 1  # one patient's age was not recorded
    assert names_for(Mapping.builtin("cpsc-neiss"), path)["101"].startswith("washing machines")


@pytest.mark.shared_data
def test_eu_rasff_public_data() -> None:
    path = shared("eu_rasff_2020_2024.parquet")
    rows = rows_of(import_rows(path, Mapping.builtin("eu-rasff")))
    table = pq.read_table(path)
    assert refusals(rows) == []
    assert len(rows) == table.num_rows == 21_871
    india_seeds = pc.and_(
        pc.equal(table["origin_first"], "india"), pc.equal(table["category"], "nuts, nut products and seeds")
    )
    found = sum(
        doc["region"] == "india" and doc["product"] == "nuts, nut products and seeds" for doc in documents(rows)
    )
    assert found == pc.sum(pc.fill_null(india_seeds, False)).as_py()
    products = count_by(rows, "product")
    assert len(products) == pc.count_distinct(table["category"]).as_py() - 3  # three names were changed
    assert products["dietetic foods, food supplements and fortified foods"] == 1_460 + 164
    assert count_by(rows, "region")["unknown origin"] == 505 + 167


@pytest.mark.shared_data
def test_city_of_chicago_public_data() -> None:
    path = shared("chicago_food_inspections_2011_2014.parquet")
    rows = rows_of(import_rows(path, Mapping.builtin("city-of-chicago")))
    table = pq.read_table(path)
    assert refusals(rows) == []
    assert count_by(rows, "verdict") == {"pass": 18_494 + 3_651, "fail": 5_455}
    assert count_by(rows, "severity")["critical"] == pc.sum(pc.greater(table["critical"], 0)).as_py()
    failed = Counter(doc["lab"] for doc in documents(rows) if doc["verdict"] == "fail")
    labs = count_by(rows, "lab")
    assert labs["unknown"] == table["sanitarian"].null_count
    assert failed["yellow"] / labs["yellow"] == pytest.approx(0.087, abs=0.0005)
    assert failed["purple"] / labs["purple"] == pytest.approx(0.335, abs=0.0005)
    assert count_by(rows, "region")["unknown"] == table["ward"].null_count
