"""A laboratory's export with known faults, from a seed: the file, what is wrong in it, and what the rest must count.

The counts are added up here, in plain Python, from the rows that are good; nothing of the stages has a part in it.
"""

from __future__ import annotations

import csv
import io
import random
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from schemas.codes import gtin_with_check, uscc_with_check

LAB = "lab-07"
PRODUCTS = ("F0101", "F0102", "F0201", "F0301", "L0101", "C0101", "N0101", "B0101", "E0101")
REGIONS = ("120101", "120102", "120104", "120110", "120116")
COLUMNS = (
    "event_id", "source", "reported_at", "product", "region", "lab", "producer", "gtin", "batch", "standard",
    "tested", "failed", "verdict", "severity", "analyst",
)  # fmt: skip
"""The last is of the LIMS only, and names a person: it must not get anywhere."""
CHINESE = (
    "报告编号", "来源", "报告时间", "产品代码", "行政区划", "检验机构", "统一社会信用代码", "商品条码", "批号",
    "执行标准", "抽检数", "不合格数", "结论", "严重程度", "检验员",
)  # fmt: skip
ANALYST = "王某某"

MAPPING = """
name = "lims"
kind = "inspection"
[fields]
event_id = { column = "报告编号" }
source = { column = "来源" }
reported_at = { column = "报告时间", date = ["%Y/%m/%d %H:%M"] }
product = { column = "产品代码" }
region = { column = "行政区划" }
lab = { column = "检验机构" }
producer = { column = "统一社会信用代码" }
gtin = { column = "商品条码" }
batch = { column = "批号" }
standard = { column = "执行标准" }
tested = { column = "抽检数" }
failed = { column = "不合格数" }
verdict = { column = "结论", map = { "合格" = "pass", "不合格" = "fail" } }
severity = { column = "严重程度", map = { "严重" = "critical", "一般" = "major", "轻微" = "minor" } }
[catalogue]
products = "closed"
regions = "closed"
"""
"""How the Chinese export's columns become events."""

_VERDICTS = {"pass": "合格", "fail": "不合格", "": "", "perhaps": "待定"}
_SEVERITIES = {"critical": "严重", "major": "一般", "minor": "轻微", "": ""}

FAULTS: tuple[tuple[str, str], ...] = (
    ("producer", "bad-check-digit"),
    ("gtin", "bad-check-digit"),
    ("product", "unknown-code"),
    ("region", "unknown-code"),
    ("reported_at", "bad-time"),
    ("reported_at", "clock-ahead"),
    ("verdict", "unknown-value"),
    ("event_id", "missing-field"),
    ("failed", "inconsistent"),
    ("tested", "out-of-range"),
    ("tested", "wrong-type"),
    ("lab", "not-allowed"),
    ("source", "not-allowed"),
    ("", "malformed-row"),
)
"""(field, reason) of every kind of fault that is planted."""


@dataclass(frozen=True)
class Export:
    """A file's rows, and the truth about them."""

    rows: list[list[str]]
    faults: dict[int, tuple[str, str]]
    cells: dict[tuple[str, str, str, int], tuple[int, int]]
    """(indicator, product, region, day) -> failed and tested, as the stages must come to."""

    @property
    def good(self) -> int:
        return len(self.rows) - len(self.faults)

    def csv(self) -> bytes:
        """With columns named like the fields."""
        return _csv(COLUMNS, self.rows)

    def chinese(self) -> bytes:
        """With the columns and words of a Chinese LIMS, for :data:`MAPPING`."""
        return _csv(CHINESE, [_chinese(row) for row in self.rows])


def build(seed: int, size: int, *, start: date = date(2026, 3, 2), days: int = 60, share: float = 0.01) -> Export:
    """``size`` rows of which ``share`` have one fault each, of every kind in turn."""
    rng = random.Random(seed)
    producers = [uscc_with_check(f"91120110MA{rng.randrange(10**7):07d}") for _ in range(40)]
    gtins = [gtin_with_check(f"690{rng.randrange(10**9):09d}") for _ in range(40)]
    bad = sorted(rng.sample(range(size), round(size * share)))
    kinds = {at: FAULTS[place % len(FAULTS)] for place, at in enumerate(bad)}
    rows, faults = [], {}
    cells: dict[tuple[str, str, str, int], list[int]] = defaultdict(lambda: [0, 0])
    for at in range(size):
        day = start + timedelta(days=at * days // size)
        row = _good(rng, at, day, rng.choice(producers), rng.choice(gtins))
        if at in kinds:
            faults[at + 2] = kinds[at]
            rows.append(_spoilt(row, kinds[at]))
            continue
        rows.append(list(row.values()))
        tested = int(row["tested"] or 1)
        failed = int(row["failed"]) if row["tested"] else int(row["verdict"] == "fail")
        product = row["product"]
        for code in (product[:1], product[:3], product):
            for region in ("120000", row["region"]):
                cell = cells["pass", code, region, day.toordinal() - 719_163]
                cell[0], cell[1] = cell[0] + failed, cell[1] + tested
    return Export(rows, faults, {key: (x, n) for key, (x, n) in cells.items()})


def _good(rng: random.Random, at: int, day: date, producer: str, gtin: str) -> dict[str, str]:
    single = rng.random() < 0.7
    failing = rng.random() < 0.02
    tested = rng.randrange(5, 60)
    moment = datetime(day.year, day.month, day.day, rng.randrange(8, 18), rng.randrange(60))
    return {
        "event_id": f"R{at:07d}",
        "source": LAB,
        "reported_at": moment.strftime("%Y-%m-%dT%H:%M:%S"),
        "product": rng.choice(PRODUCTS),
        "region": rng.choice(REGIONS),
        "lab": LAB,
        "producer": producer,
        "gtin": gtin if rng.random() < 0.5 else "",
        "batch": f"B{rng.randrange(10_000):04d}",
        "standard": "GB 2760, 表 A.1" if rng.random() < 0.3 else "",
        "tested": "" if single else str(tested),
        "failed": "" if single else str(int(failing)),
        "verdict": ("fail" if failing else "pass") if single else "",
        "severity": rng.choice(("critical", "major", "minor")) if single and failing else "",
        "analyst": ANALYST,
    }


def _spoilt(row: dict[str, str], fault: tuple[str, str]) -> list[str]:
    """The row with one fault in it."""
    field, reason = fault
    producer = row["producer"]
    gtin = row["gtin"] or "6901234567892"
    aggregate = {"verdict": "", "severity": "", "tested": "10", "failed": "1"}
    changes: dict[tuple[str, str], dict[str, str]] = {
        ("producer", "bad-check-digit"): {"producer": producer[:-1] + ("0" if producer[-1] != "0" else "1")},
        ("gtin", "bad-check-digit"): {"gtin": gtin[:-1] + str((int(gtin[-1]) + 1) % 10)},
        ("product", "unknown-code"): {"product": "F9999"},
        ("region", "unknown-code"): {"region": "120999"},
        ("reported_at", "bad-time"): {"reported_at": "2026-02-30T09:00:00"},
        ("reported_at", "clock-ahead"): {"reported_at": "2199-01-01T09:00:00"},
        ("verdict", "unknown-value"): {"verdict": "perhaps", "tested": "", "failed": ""},
        ("event_id", "missing-field"): {"event_id": ""},
        ("failed", "inconsistent"): {**aggregate, "failed": "11"},
        ("tested", "out-of-range"): {**aggregate, "tested": "-10"},
        ("tested", "wrong-type"): {**aggregate, "tested": "ten"},
        ("lab", "not-allowed"): {"lab": "lab-08"},
        ("source", "not-allowed"): {"source": "=lab-08"},
        ("", "malformed-row"): {},
    }
    cells = list({**row, **changes[field, reason]}.values())
    return cells[:-2] if reason == "malformed-row" else cells


def _chinese(row: list[str]) -> list[str]:
    """A row in the words of the Chinese LIMS."""
    told = list(row)
    moment = told[2]
    if moment and not moment.startswith("2026-02-30"):
        told[2] = datetime.fromisoformat(moment).strftime("%Y/%m/%d %H:%M")
    if len(told) == len(COLUMNS):
        told[12], told[13] = _VERDICTS[told[12]], _SEVERITIES[told[13]]
    return told


def _csv(header: tuple[str, ...], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
