"""Lines of JSON: what is in them, what must never be, and how many there are."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from test_metrics import alert, letter

from streams.logs import JsonFormatter, Refusals, log_alert


def test_a_record_is_one_line_whatever_is_in_it() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "p", 1, "a\nb %s\u2028", ("c",), sys.exc_info())
    record.fields = {"product": 'x"\ny', "number": 3}
    text = JsonFormatter().format(record)
    assert len(text.splitlines()) == 1 or "\u2028" in text
    assert "\n" not in text
    line = json.loads(text)
    assert line["level"] == "error"
    assert line["message"] == "a\nb c\u2028"
    assert (line["product"], line["number"]) == ('x"\ny', 3)
    assert line["traceback"].endswith("ValueError: two\nlines")
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize(
    ("level", "status", "expected"),
    [
        (1, "opened", "WARNING"),
        (2, "raised", "WARNING"),
        (2, "acknowledged", "INFO"),
        (1, "resolved", "INFO"),
        (3, "opened", "INFO"),
        (4, "raised", "INFO"),
    ],
)
def test_only_a_grave_alert_that_begins_or_rises_is_a_warning(
    level: int, status: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tocsin.alerts")
    log_alert(alert(1, level=level, status=status))
    assert [record.levelname for record in caplog.records] == [expected]


def test_a_line_on_an_alert_has_its_id_and_no_person(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tocsin.alerts")
    log_alert(alert(1, acknowledged_by="Zhang San", reason="call 13800000000", source="nurse Li", event_id="e-77"))
    line = json.loads(JsonFormatter().format(caplog.records[0]))
    assert (line["alert_id"], line["grade"], line["kind"]) == ("pass-rate-000001", "II", "pass-rate")
    text = json.dumps(line)
    assert not [word for word in ("Zhang", "1380", "nurse", "e-77") if word in text]


def test_a_thousand_refusals_are_a_few_lines_and_none_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    refusals = Refusals(pause=10.0, clock=lambda: now[0])
    refusals.tell(now=True)
    for second in range(25):
        now[0] = float(second)
        refusals.add([letter("bad-code")] * 39 + [letter("too-large")])
    refusals.tell(now=True)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [line["records"] for line in lines] == [40, 400, 400, 160]
    assert lines[1]["reasons"] == {"bad-code": 390, "too-large": 10}
    assert {line["level"] for line in lines} == {"warning"}
