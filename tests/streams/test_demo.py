"""The demonstration: what counts as found, as an echo, as false; and the command that prints it."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from small_world import fails, invoke, succeeds

from schemas.alerts import Alert, Provenance, Text
from schemas.catalogue import Catalogue
from streams.demo import Judged, judge
from streams.simulate import Planted, Record, Simulation, simulate

CATALOGUE = Catalogue.builtin("tianjin")
MEAT = Planted(
    key="meat", kind="district", product="F0301", region="120114", regions=("120114",), start=date(2024, 6, 3),
    end=date(2024, 7, 7), zh="肉", en="meat", expected=True, expected_kinds=("pass-rate",), expected_scope="cell",
)  # fmt: skip
LAB = Planted(
    key="lab", kind="lab-drift", product=None, region=None, start=date(2024, 6, 3), end=date(2024, 12, 31),
    zh="机构", en="lab", expected=False,
)  # fmt: skip


def alert(day: str, **changes: Any) -> Alert:
    moment = datetime.fromisoformat(day).replace(tzinfo=UTC)
    fields: dict[str, Any] = {
        "id": "a", "revision": 1, "status": "opened", "level": 3, "grade": "III", "colour": "yellow",
        "kind": "pass-rate",
        "scope": "cell", "product": "F0301", "product_name": Text(zh="肉", en="meat"), "region": "120114",
        "region_name": Text(zh="武清", en="Wuqing"), "onset": moment, "as_of": moment,
        "headline": Text(zh="肉", en="meat"), "provenance": Provenance(config="c", version="v", catalogue="k"),
    }  # fmt: skip
    return Alert(**{**fields, **changes})


def verdict(*alerts: Alert) -> Judged:
    return judge([MEAT, LAB], alerts, CATALOGUE)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"product": "F03"},
        {"product": "F"},
        {"region": "120000"},
        {"status": "raised"},
    ],
)
def test_the_product_and_region_or_what_lies_above_them_are_found(changes: dict[str, Any]) -> None:
    judged = verdict(alert("2024-06-10", **changes))
    assert judged.findings[0].found
    assert judged.findings[0].delay_days == 7
    assert not judged.related
    assert not judged.false


@pytest.mark.parametrize(
    ("day", "found"), [("2024-06-02", False), ("2024-06-03", True), ("2024-08-06", True), ("2024-08-07", False)]
)
def test_an_alert_counts_from_the_first_day_to_thirty_after_the_last(day: str, found: bool) -> None:
    assert verdict(alert(day)).findings[0].found is found


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"kind": "complaint-surge"}, "related"),
        ({"region": "120101"}, "related"),
        ({"product": "F0101"}, "related"),
        ({"product": "L0101"}, "false"),
        (
            {"product": "F0101", "as_of": datetime(2024, 10, 1, tzinfo=UTC), "onset": datetime(2024, 9, 1, tzinfo=UTC)},
            "false",
        ),
    ],
)
def test_what_matches_nothing_is_an_echo_in_its_branch_and_time_and_else_false(
    changes: dict[str, Any], where: str
) -> None:
    judged = verdict(alert("2024-06-10", **changes))
    assert not judged.findings[0].found
    assert len(getattr(judged, where)) == 1
    assert len(judged.related) + len(judged.false) == 1


def test_every_alert_is_counted_once_and_the_first_is_shown() -> None:
    late, early = alert("2024-06-20", id="late"), alert("2024-06-10", id="early")
    again = alert("2024-06-25", id="early", revision=2, status="raised")
    judged = verdict(late, again, early)
    assert [one.id for one in judged.findings[0].alerts] == ["early", "late"]
    assert judged.findings[0].alerts[0].revision == 1


@pytest.mark.parametrize(
    ("changes", "found"),
    [({}, True), ({"source": "another-lab"}, False), ({"kind": "silent-source"}, False), ({"source": ""}, False)],
)
def test_what_a_lab_has_done_is_found_by_an_alert_that_names_the_lab(changes: dict[str, Any], found: bool) -> None:
    lab = msgspec.structs.replace(LAB, expected=True, expected_kinds=("lab-drift",), source="lab-7")
    named = {"kind": "lab-drift", "source": "lab-7", "product": "*", "region": "*", **changes}
    judged = judge([MEAT, lab], [alert("2024-09-10", **named)], CATALOGUE)
    assert judged.findings[1].found is found
    assert not judged.findings[0].found


def test_only_what_was_owed_can_be_missed() -> None:
    judged = verdict()
    assert [finding.missed for finding in judged.findings] == [True, False]


def small_year(seed: int, scale: float) -> Simulation:
    """Six weeks about the bad batch, of its own product only, with the accident moved into them."""
    whole = simulate(seed=seed, scale=0.05)
    batch, accident = (next(one for one in whole.planted if one.key == key) for key in ("bad-batch", "metro-accident"))
    begin = datetime.combine(batch.start - timedelta(days=14), datetime.min.time(), UTC).timestamp() * 1_000
    events = [one for one in whole.events if one.key == b"F0201" and 0 <= one.reported_at - begin < 42 * 86_400_000]
    deadly = next(one for one in whole.events if one.topic == "accidents" and b'"deaths":12' in one.value)
    events.append(Record(*deadly))
    silence = msgspec.structs.replace(whole.planted[-1], expected=False)
    return Simulation(events, (batch, accident, silence))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.demo.simulate", small_year)


@pytest.mark.usefixtures("short")
def test_the_demo_says_that_it_is_simulated_and_what_it_found(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    text = succeeds("demo", "--keep", kept, "--lang", "en").stdout
    assert text.startswith("A simulated year: every record is made up")
    assert "not covered yet" in text
    assert "MISSED" not in text
    assert f"tocsin alerts list --data {kept}" in text
    assert "infant formula" in text
    listed = succeeds("alerts", "list", "--data", kept, "--json").stdout.splitlines()
    document = json.loads(succeeds("demo", "--json").stdout)
    assert document["simulated"] is True
    assert document["alerts"] == len(listed)
    assert document["false_count"] == len(document["false"])
    assert document["missed"] == []
    assert [one["found"] for one in document["planted"]] == [True, True, False]
    assert document["planted"][1]["first_alert"]["kind"] == "grave-event"
    assert f"{kept}: holds a log already" in fails("demo", "--keep", kept).line


def test_a_missed_incident_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def quiet(seed: int, scale: float) -> Simulation:
        year = small_year(seed, scale)
        return Simulation(year.events[:5], year.planted)

    monkeypatch.setattr("streams.demo.simulate", quiet)
    result = invoke("demo", "--lang", "en")
    assert result.exit_code == 1
    assert result.stdout.count("MISSED") == 2
    document = json.loads(invoke("demo", "--json").stdout)
    assert document["missed"] == ["bad-batch", "metro-accident"]


def test_a_senseless_scale_is_one_line() -> None:
    failure = fails("demo", "--scale", "0")
    assert failure.status == 1
    assert "scale" in failure.line
