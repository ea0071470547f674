"""Every command of the README is run, in the order in which it stands there, by one reader with small files.

What needs a broker stands in ``tests/integration/test_readme_kafka.py``; ``deploy/demo`` is run by ``test_demo.py`` in
effect, and ``deploy/test`` is what runs this.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from builders import DAY, START
from readme import Reader, commands
from small_world import inspections, write_ndjson

from streams.config import Config
from streams.log import SqliteLog

ELSEWHERE = re.compile(r"sh deploy/|.*--broker ")
SHORTER = {"evaluate --replicates 20": "evaluate --replicates 1"}
"""What would only take longer."""


def caers(path: Path) -> None:
    """Three years of a few reports a week of six brands, and one that surges in May 2009."""
    rows = []
    for week in range(156):
        day = date(2007, 1, 1) + timedelta(weeks=week)
        for number in range(6):
            surges = number == 3 and date(2009, 5, 1) <= day < date(2009, 6, 1)
            for report in range(9 if surges else 1):
                rows.append((f"{week}-{number}-{report}", day, f"BRAND{number}"))
    table = {
        "report_id": [name for name, _, _ in rows], "created_date": [day for _, day, _ in rows],
        "role": ["Suspect"] * len(rows), "industry": ["Snack Food"] * len(rows),
        "product": [brand for _, _, brand in rows], "brand1": [brand for _, _, brand in rows],
        "brand2": [brand for _, _, brand in rows], "severity": [2] * len(rows), "symptoms": ["NAUSEA"] * len(rows),
    }  # fmt: skip
    pa.parquet.write_table(pa.table(table), path)


def files(folder: Path) -> None:
    """What the README takes to be there."""
    write_ndjson(folder / "results.ndjson", inspections())
    rows = [
        {**event, "event_id": f"again-{event['event_id']}", "lab": "lab-07", "source": "lab-07"}
        for event in inspections()[2::4]
    ]
    names = ("event_id", "source", "reported_at", "product", "region", "lab", "tested", "failed")
    pa.csv.write_csv(pa.table({name: [row[name] for row in rows] for name in names}), folder / "results.csv")
    caers(folder / "caers.parquet")
    (folder / "known.csv").write_text("incident,product,region,since\nbrand 3,BRAND3,,2009-05-11\n")
    (folder / "A.toml").write_text("")
    (folder / "B.toml").write_text("[counts]\nalpha = 1e-4\n")
    (folder / "counts.csv").write_text(
        "\n".join(["week,count", *(f"{week},{week % 5}" for week in range(200)), "200,40"])
    )
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "2", "-subj", "/CN=board", "-keyout", "key.pem", "-out", "cert.pem"],
                   cwd=folder, check=True, capture_output=True)  # fmt: skip


def refuse_one(folder: Path) -> None:
    """A record with an unknown region, as a client that checks nothing would write it."""
    log = SqliteLog(folder / ".tocsin", Config().partitions)
    good = (folder / "results.ndjson").read_bytes().splitlines()[0]
    with log.transaction():
        bad = good.replace(b'"i-0-120101"', b'"mistyped"').replace(b'"120101"', b'"990000"')
        log.append("inspections", [(0, START + 40 * DAY, None, bad, ())])
    log.close()


@pytest.mark.skipif(
    not all(map(shutil.which, ("openssl", "curl", "cmp"))), reason="the README's lines need openssl, curl and cmp"
)
def test_every_command_of_the_readme_does_its_work(tmp_path: Path) -> None:
    files(tmp_path)
    done: dict[str, str] = {}
    with Reader(tmp_path) as reader:
        for line in commands("README.md"):
            if ELSEWHERE.match(line):
                continue
            for given, shorter in SHORTER.items():
                line = line.replace(given, shorter)
            if shutil.which("chromium") is None:
                line = line.replace(" --pdf report.pdf", "")
            if not line.startswith("curl"):
                reader.end()
            if line == "tocsin doctor":
                reader.run("tocsin run --until-end")  # as the run beside it would: nothing waits
            done[line] = reader.run(line)
            if line.startswith("tocsin publish inspections"):
                refuse_one(tmp_path)
    assert len(done) >= 30
    assert '"accepted":30' in next(out for line, out in done.items() if line.startswith("curl")).replace(" ", "")
    assert "1 requeued" in next(out for line, out in done.items() if "requeue" in line)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert list((tmp_path / "cap").iterdir())
    assert pa.parquet.read_table(tmp_path / "signals.parquet").num_rows > 0
