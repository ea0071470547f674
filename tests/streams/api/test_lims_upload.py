"""A LIMS export with known faults, sent twice over HTTP and by the page: every fault told, the rest counted once."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
from pathlib import Path

import pytest
from lims_export import ANALYST, FAULTS, LAB, MAPPING, Export, build
from serving import Client, counted, letters, records, running, service

from streams.mapping import Mapping
from streams.tokens import add_token

ROWS = 100_000 if os.environ.get("TOCSIN_LONG") == "1" else 5_000


@pytest.fixture(scope="module")
def export() -> Export:
    return build(20_260_302, ROWS)


def test_every_fault_is_told_and_the_good_rows_count_once_however_often_and_by_whatever_way_they_come(
    tmp_path: Path, export: Export
) -> None:
    data, tokens = tmp_path / "data", tmp_path / "tokens.json"
    _, token = add_token(tokens, "Lab 07", ("submit",), labs=(LAB,), sources=(LAB,))
    mappings = {"lims": Mapping.parse(MAPPING, "lims.toml")}
    with running(service(data, tokens, mappings=mappings)) as port:
        client = Client(port, token)
        first = client.post(export.csv(), "text/csv")
        again = client.post(gzip.compress(export.csv()), "text/csv", Content_Encoding="gzip")
        fields = {"kind": "inspection", "token": token, "encoding": "GB18030", "mapping": "lims"}
        coded = export.chinese().decode().encode("gb18030")
        page = Client(port).form(fields, ("导出.csv", coded), "/?lang=zh")
        link = re.search(r'href="(/rejected/[^"]+\.csv)"', page.body.decode())
        assert link is not None
        told = list(csv.DictReader(io.StringIO(Client(port).get(link[1]).body.decode("utf-8-sig"))))

    for answer in (first, again):
        assert answer.status == 207
        receipt = answer.json()
        assert (receipt["accepted"], receipt["rejected"]) == (export.good, len(export.faults))
        found = {one["line"]: (one.get("field", ""), one["reason"]) for one in receipt["verdicts"]}
        assert found == export.faults
        assert all(one["verdict"] == "rejected" and one["detail"] for one in receipt["verdicts"])
    assert page.status == 207
    assert f"<strong>{export.good:,}</strong>" in page.body.decode()
    assert {int(one["line"]): (one["field"], one["reason"]) for one in told} == export.faults

    assert len(records(data, "inspections")) == 3 * export.good
    dead = letters(data)
    assert len(dead) == 3 * len(export.faults)
    assert {letter.stage for letter in dead} == {"publish"}
    assert {(letter.field, letter.reason) for letter in dead} >= set(FAULTS)
    assert not any(ANALYST.encode() in value for value in records(data, "inspections"))
    assert counted(data) == export.cells
