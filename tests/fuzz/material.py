"""Good records, codes and files of every kind, rich in optional fields: what the mutations begin with."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any

from schemas.codes import gtin_with_check, uscc_with_check
from schemas.events import TOPICS
from streams.mapping import builtin_names

ARRIVAL = int(datetime(2024, 6, 1, tzinfo=UTC).timestamp() * 1_000)
_NOW = datetime(2024, 6, 1, tzinfo=UTC)
PRODUCTS = ("F0101", "F0102", "F0301", "L0101", "C0101", "N0101", "B0101", "E0101", "A0101")
REGIONS = ("120101", "120102", "120104", "120116")
USCC = "91350100M000100Y43"
GTINS = ("6901234567892", "96385074", "036000291452", "10614141000415")
_EXTRA: dict[str, dict[str, Any]] = {
    "inspections": {
        "lab": "lab-1", "producer": USCC, "batch": "b-1", "gtin": GTINS[0], "standard": "GB 2760",
        "stage": "production",
        "scheme": "supervision", "verdict": "fail", "severity": "major",
        "items": [{"parameter": "铅", "value": 0.7, "limit": 0.5, "unit": "mg/kg", "conforming": False}],
    },
    "injuries": {
        "site": "hospital-1", "severity": 2, "subject": "product", "outcome": "admitted", "age": 33.5, "sex": "female",
        "injury": "烧伤", "body_part": "hand", "weight": 12.5, "producer": USCC, "batch": "b-1", "gtin": GTINS[1],
    },
    "complaints": {
        "channel": "12315", "category": "quality", "severity": "minor", "producer": USCC, "batch": "b-2",
        "gtin": GTINS[2],
    },
    "accidents": {
        "authority": "bureau", "subject": "works", "category": "collapse", "structural": True, "deaths": 1,
        "seriously_injured": 3, "loss_cny": 1e6, "producer": USCC, "batch": "b", "gtin": GTINS[3],
    },
    "surveys": {"surveyor": "office", "score": 81.5, "respondents": 20, "producer": USCC},
    "losses": {"producer": USCC, "loss_cny": 1_000.0, "output_cny": 90_000.0},
    "dispositions": {},
}  # fmt: skip
EVENT_TOPICS = tuple(TOPICS.values())
ALL_RAW = (*EVENT_TOPICS, "dispositions")


def good_record(topic: str, number: int, rng: random.Random) -> dict[str, Any]:
    """A record that intake takes."""
    when = _NOW - timedelta(minutes=rng.randrange(100_000))
    if topic == "dispositions":
        return {
            "disposition_id": f"d{number}", "alert_id": f"pass-rate-{number:06}", "action": "acknowledge",
            "by": "officer 7", "at": when.isoformat(), "reason": "looked at",
        }  # fmt: skip
    record = {
        "event_id": f"e{number}", "source": "s", "reported_at": when.isoformat(), "revision": rng.choice((0, 0, 1)),
        "product": rng.choice(PRODUCTS), "region": rng.choice(REGIONS), **_EXTRA[topic],
    }  # fmt: skip
    if rng.random() < 0.5:
        record["occurred_at"] = (when - timedelta(days=1)).isoformat()
    if topic == "inspections" and rng.random() < 0.5:
        record = {name: value for name, value in record.items() if name != "verdict"} | {"tested": 10, "failed": 1}
    return record


def good_code(kind: str, rng: random.Random) -> str:
    """A USCC, GTIN or region that checks."""
    if kind == "uscc":
        body = "".join(rng.choice("0123456789ABCDEFGHJKLMNPQRTUWXY") for _ in range(9))
        return uscc_with_check(f"91{rng.randrange(10**6):06}{body}")
    if kind == "gtin":
        length = rng.choice((7, 11, 12, 13))
        return gtin_with_check(f"{rng.randrange(10**length):0{length}}")
    return rng.choice(REGIONS)


def toml_of(package: str, folder: str, name: str) -> str:
    return (resources.files(package) / folder / f"{name}.toml").read_text("utf-8")


CONFIG_TOML = """\
name = "office"
topic_prefix = "qa."
catalogue = "tianjin"
utc_offset = "+08:00"
tick_seconds = 3600
partitions = 4
[intake]
clock_skew_seconds = 300
lateness_days = 400
max_record_bytes = 262144
[pass_rate]
windows_days = [7, 30, 90]
alpha = 1e-6
[counts]
detector = "surge"
alpha = 1e-5
[scan]
enabled = true
window_days = 14
[multiplicity]
method = "budget"
false_alarms_per_month = 1.0
[grades]
severity = "default"
[escalate]
hold_days = 14
"""
MAPPING_TOML = """\
name = "clinic"
kind = "injury"
[columns]
seen = ["Date seen", "seen"]
brand = { column = "Article", words = { take = 1 } }
[[when]]
column = "Role"
equals = "suspect"
if_present = true
[fields]
event_id = { template = "{Case}-{Town}" }
source = { const = "CLINIC" }
reported_at = { column = "seen", date = ["%d.%m.%Y", "%Y-%m-%d"], time = "12:00" }
product = { code = { parts = ["Group", "brand"], case = "upper" } }
region = { first_of = ["District", "Town"], default = "unknown" }
site = { const = "CLINIC" }
severity = { column = "Grade", map = { light = 1, grave = 4 } }
age = { column = "Months", scale = 0.5, clip = [0, 100] }
weight = { column = "Weight", default = 1.0 }
[distinct]
on = ["Case", "brand"]
[file]
order_by = "reported_at"
[catalogue]
products = "open"
regions = "open"
"""
CLINIC_HEADER = ("Case", "Town", "Date seen", "Group", "Article", "District", "Grade", "Months", "Weight", "Role")


def clinic_row(number: int, rng: random.Random) -> dict[str, str]:
    return dict(zip(CLINIC_HEADER, (
        f"c{number}", rng.choice(("Tianjin", "塘沽")), f"{rng.randrange(1, 29):02}.05.2024", "Toys",
        f"Robot {number % 7}",
        rng.choice(("", "Heping")), rng.choice(("light", "grave")), str(rng.randrange(200)), rng.choice(("", "1.5")),
        rng.choice(("suspect", "other")),
    ), strict=True))  # fmt: skip


def mapping_texts() -> list[str]:
    return [MAPPING_TOML, *(toml_of("streams", "mappings", name) for name in builtin_names())]


CATALOGUE_TOML = """\
name = "small"
version = "1"
[products]
prefix_lengths = [1, 3, 5]
[products.nodes]
F = { zh = "食品", en = "Food" }
F01 = { zh = "乳", en = "Dairy" }
F0101 = { zh = "奶", en = "Milk" }
[regions]
prefix_lengths = [2, 4, 6]
pad = "0"
[regions.nodes]
120000 = { zh = "天津市", en = "Tianjin" }
120101 = { zh = "和平区", en = "Heping" }
120102 = { zh = "河东区", en = "Hedong" }
[regions.neighbours]
120101 = ["120102"]
120102 = ["120101"]
[[targets]]
products = ["F"]
pass_rate = 0.98
stage = "production"
[[key_supervision]]
zh = "乳"
en = "Dairy"
products = ["F01"]
[hotlines]
12315 = { zh = "热线", en = "Hotline" }
"""
