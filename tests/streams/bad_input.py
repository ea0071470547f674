"""Records that must be refused: one table for the decoder and for intake.

A row is (topic, value, headers, reason, field).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from builders import DAY, START, body, encoded, iso

__all__ = ["BAD", "Bad"]


class Bad(NamedTuple):
    topic: str
    value: bytes | None
    reason: str
    field: str = ""
    headers: tuple[tuple[str, Any], ...] = ()


def _event(topic: str, **fields: Any) -> bytes:
    return encoded({name: value for name, value in body(topic, "bad", START, **fields).items() if value is not ...})


def _item(**fields: Any) -> dict[str, Any]:
    return {"parameter": "lead", "conforming": True, **fields}


_CUT = _event("injuries")[:-7]
_DEEP = _event("injuries")[:-1] + b', "more": ' + b"[" * 4_000 + b"]" * 4_000 + b"}"
_ROWS: dict[str, Bad] = {
    # not JSON at all
    "cut short": Bad("injuries", _CUT, "malformed-json"),
    "plain text": Bad("injuries", b"hello", "malformed-json"),
    "two objects in one record": Bad("injuries", _event("injuries") * 2, "malformed-json"),
    "NaN": Bad("injuries", _event("injuries", age=float("nan")), "malformed-json"),
    "infinity": Bad("accidents", _event("accidents", loss_cny=float("inf")), "malformed-json"),
    "a lone surrogate": Bad("injuries", _event("injuries", site="@").replace(b"@", rb"\ud800"), "malformed-json"),
    "a lone surrogate in the id": Bad("injuries", _event("injuries").replace(b"bad", rb"\udc00"), "malformed-json"),
    "nested 4,000 deep": Bad("injuries", _DEEP, "malformed-json"),
    "a byte-order mark": Bad("injuries", b"\xef\xbb\xbf" + _event("injuries"), "malformed-json"),
    "latin-1": Bad("injuries", _event("injuries", site="@").replace(b"@", b"\xe9\xe8"), "not-utf-8"),
    "gb18030": Bad("injuries", '{"site": "南开"}'.encode("gb18030"), "not-utf-8"),
    "latin-1 in a field that nobody knows": Bad(
        "injuries", _event("injuries", x="@").replace(b"@", b"\xe9\xe8"), "not-utf-8"
    ),
    "UTF-16": Bad("injuries", _event("injuries").decode().encode("utf-16"), "not-utf-8"),
    "an empty record": Bad("injuries", b"", "empty-record"),
    "a tombstone": Bad("injuries", None, "tombstone"),
    "5 MB of text": Bad("complaints", _event("complaints", category="x" * 5_000_000), "too-large"),
    "5 MB of rubbish": Bad("complaints", b"\xff" * 5_000_000, "too-large"),
    # JSON, but no event
    "a list": Bad("injuries", b"[]", "wrong-type"),
    "null": Bad("injuries", b"null", "wrong-type"),
    "a number": Bad("injuries", b"7", "wrong-type"),
    "text for a number": Bad("injuries", _event("injuries", severity="2"), "wrong-type", "severity"),
    "a number for text": Bad("injuries", _event("injuries", site=5), "wrong-type", "site"),
    "a boolean for a number": Bad("injuries", _event("injuries", severity=True), "wrong-type", "severity"),
    "a fraction for an integer": Bad("inspections", _event("inspections", failed=0.5), "wrong-type", "failed"),
    "null for a time": Bad("injuries", _event("injuries", reported_at=None), "wrong-type", "reported_at"),
    "seconds for a time": Bad("injuries", _event("injuries", reported_at=1_704_067_200), "wrong-type", "reported_at"),
    "no id": Bad("injuries", _event("injuries", event_id=...), "missing-field", "event_id"),
    "no source": Bad("injuries", _event("injuries", source=...), "missing-field", "source"),
    "no time": Bad("injuries", _event("injuries", reported_at=...), "missing-field", "reported_at"),
    "no product": Bad("losses", _event("losses", product=...), "missing-field", "product"),
    "no verdict and no counts": Bad(
        "inspections", _event("inspections", tested=..., failed=...), "missing-field", "verdict"
    ),
    "tested alone": Bad("inspections", _event("inspections", failed=...), "missing-field", "failed"),
    "failed alone": Bad("inspections", _event("inspections", tested=...), "missing-field", "tested"),
    "an item without its verdict": Bad(
        "inspections",
        _event("inspections", items=[_item(), {"parameter": "lead"}]),
        "missing-field",
        "items[1].conforming",
    ),
    "a newline in the id": Bad("injuries", _event("injuries", event_id="a\n"), "bad-text", "event_id"),
    "a NUL in the source": Bad("injuries", _event("injuries", source="a\0b"), "bad-text", "source"),
    "an empty id": Bad("injuries", _event("injuries", event_id=""), "bad-length", "event_id"),
    "an id of 129 characters": Bad("injuries", _event("injuries", event_id="x" * 129), "bad-length", "event_id"),
    "an outcome that nobody knows": Bad("injuries", _event("injuries", outcome="vanished"), "unknown-value", "outcome"),
    "too many items": Bad("inspections", _event("inspections", items=[_item()] * 257), "bad-length", "items"),
    # numbers
    "a negative count": Bad("inspections", _event("inspections", failed=-1), "out-of-range", "failed"),
    "negative deaths": Bad("accidents", _event("accidents", deaths=-3), "out-of-range", "deaths"),
    "a negative loss": Bad("losses", _event("losses", loss_cny=-0.01), "out-of-range", "loss_cny"),
    "no output": Bad("losses", _event("losses", output_cny=0), "out-of-range", "output_cny"),
    "a score of 101": Bad("surveys", _event("surveys", score=101), "out-of-range", "score"),
    "a survey of nobody": Bad("surveys", _event("surveys", respondents=0), "out-of-range", "respondents"),
    "severity 0": Bad("injuries", _event("injuries", severity=0), "out-of-range", "severity"),
    "an age of 131": Bad("injuries", _event("injuries", age=131), "out-of-range", "age"),
    "a huge integer": Bad("injuries", _event("injuries", severity=10**40), "out-of-range", "severity"),
    "an integer of 400 digits for a float": Bad("injuries", _event("injuries", age=10**399), "out-of-range", "age"),
    "revision 65,536": Bad("injuries", _event("injuries", revision=65_536), "out-of-range", "revision"),
    "a negative revision": Bad("injuries", _event("injuries", revision=-1), "out-of-range", "revision"),
    # fields that contradict one another
    "failed more than tested": Bad("inspections", _event("inspections", tested=3, failed=4), "inconsistent", "failed"),
    "tested nothing": Bad("inspections", _event("inspections", tested=0, failed=0), "out-of-range", "tested"),
    "an aggregate with a verdict": Bad("inspections", _event("inspections", verdict="pass"), "inconsistent", "verdict"),
    "a pass with a bad item": Bad(
        "inspections",
        _event("inspections", tested=..., failed=..., verdict="pass", items=[_item(conforming=False)]),
        "inconsistent",
        "verdict",
    ),
    "a loss beyond the output": Bad("losses", _event("losses", loss_cny=9e9), "inconsistent", "loss_cny"),
    "occurred long after it was reported": Bad(
        "injuries", _event("injuries", occurred_at=iso(START + 2 * DAY)), "inconsistent", "occurred_at"
    ),
    # codes
    "an unknown product": Bad("injuries", _event("injuries", product="F0199"), "unknown-code", "product"),
    "an unknown region": Bad("injuries", _event("injuries", region="110101"), "unknown-code", "region"),
    "a USCC with a typing error": Bad(
        "injuries", _event("injuries", producer="91350100M000100Y44"), "bad-check-digit", "producer"
    ),
    "a USCC of 17 characters": Bad(
        "injuries", _event("injuries", producer="91350100M000100Y4"), "bad-code", "producer"
    ),
    "a USCC of 19 characters": Bad("losses", _event("losses", producer="1" * 19), "bad-length", "producer"),
    "a USCC in fullwidth digits": Bad(
        "injuries", _event("injuries", producer="９1350100M000100Y43"), "bad-code", "producer"
    ),
    "a GTIN with a typing error": Bad("injuries", _event("injuries", gtin="6901234567893"), "bad-check-digit", "gtin"),
    "a GTIN of 11 digits": Bad("complaints", _event("complaints", gtin="69012345678"), "bad-code", "gtin"),
    # times
    "the year 2090": Bad(
        "injuries", _event("injuries", reported_at="2090-01-01T00:00:00Z"), "clock-ahead", "reported_at"
    ),
    "the year 9999": Bad(
        "injuries", _event("injuries", reported_at="9999-12-31T23:59:59-12:00"), "clock-ahead", "reported_at"
    ),
    "the year 1": Bad(
        "injuries", _event("injuries", reported_at="0001-01-01T00:00:00+14:00"), "too-late", "reported_at"
    ),
    "two years late": Bad(
        "injuries", _event("injuries", reported_at=iso(START - 730 * DAY)), "too-late", "reported_at"
    ),
    "30 February": Bad("injuries", _event("injuries", reported_at="2024-02-30T00:00:00Z"), "bad-time", "reported_at"),
    "a date without a time": Bad("injuries", _event("injuries", reported_at="2024-01-01"), "bad-time", "reported_at"),
    # kinds
    "a kind that is none": Bad("injuries", _event("injuries", kind="party"), "unknown-kind", "kind"),
    "a kind of another topic": Bad("injuries", _event("injuries", kind="survey"), "wrong-topic", "kind"),
    "a CloudEvents type that is none": Bad(
        "injuries", _event("injuries"), "unknown-kind", "ce_type", (("ce_type", b"cn.tocsin.party"),)
    ),
    "a CloudEvents type that is not UTF-8": Bad(
        "injuries", _event("injuries"), "unknown-kind", "ce_type", (("ce_type", b"\xff\xfe"),)
    ),
    "a bad record with an empty header": Bad(
        "injuries", _event("injuries", severity=9), "out-of-range", "severity", (("trace", None),)
    ),
}
BAD = [pytest.param(row, id=name) for name, row in _ROWS.items()]
