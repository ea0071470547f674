"""Incidents are read from files as people write them, and matched to alerts as the module says."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from benchmarks.real_data import CHECKS, DATA

from schemas.alerts import Alert, AlertKind, Provenance, Status, Text
from streams.incidents import STATISTICAL, IncidentError, read_incidents, score

SINCE = date(2024, 3, 4)


def alert(
    name: str,
    day: date,
    *,
    kind: AlertKind = "injury-surge",
    product: str = "Snacks/NUT BAR",
    region: str = "US",
    status: Status = "opened",
    revision: int = 1,
    level: int = 3,
) -> Alert:
    at = datetime(day.year, day.month, day.day, 8, tzinfo=UTC)
    return Alert(
        id=name, revision=revision, status=status, level=level, grade="III", colour="yellow", kind=kind, scope="cell",
        product=product, product_name=Text(zh="坚果棒", en=product), region=region,
        region_name=Text(zh="全国", en="whole country"), onset=at, as_of=at, headline=Text(zh="", en=""),
        provenance=Provenance(config="c", version="1", catalogue="t"),
    )  # fmt: skip


def written(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "incidents.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, sorted({column for row in rows for column in row}))
        writer.writeheader()
        writer.writerows(rows)
    return path


def scored(folder: Path, *alerts: Alert, **columns: str) -> Any:
    row = {"incident": "nuts", "product": "nut bar", "since": "2024-03-04", **columns}
    return score(read_incidents(written(folder, row)), alerts, date(2024, 1, 1), date(2024, 12, 31))


@pytest.mark.parametrize(("shift", "days"), [(-7, -7), (0, 0), (5, 5), (62, 62)])
def test_an_alert_within_the_time_finds_it_with_its_delay(tmp_path: Path, shift: int, days: int) -> None:
    found = scored(tmp_path, alert("a", SINCE + timedelta(days=shift)))
    assert (found.found, found.told[0].days, found.false) == (1, days, 0)
    assert found.median_days == found.mean_days == days


@pytest.mark.parametrize("shift", [-8, 63])
def test_one_outside_it_is_false_and_the_miss_counts_in_full(tmp_path: Path, shift: int) -> None:
    found = scored(tmp_path, alert("a", SINCE + timedelta(days=shift)))
    assert (found.found, found.visible, found.false, found.mean_days, found.median_days) == (0, 1, 1, 63, None)
    assert found.false_a_year == pytest.approx(1 / (366 / 365.25))


def test_until_ends_it(tmp_path: Path) -> None:
    late = alert("a", SINCE + timedelta(days=10))
    assert scored(tmp_path, late, until="2024-03-14").found == 0
    assert scored(tmp_path, late, until="2024-03-15").found == 1


def test_names_in_both_languages_are_searched_without_regard_to_case(tmp_path: Path) -> None:
    one = alert("a", SINCE)
    assert scored(tmp_path, one, product="坚果").found == 1
    assert scored(tmp_path, one, region="WHOLE").found == 1
    assert scored(tmp_path, one, region="^canada$").found == 0


def test_kinds_limit_what_finds_it_and_what_is_false(tmp_path: Path) -> None:
    alerts = [alert("a", SINCE, kind="pass-rate"), alert("b", date(2024, 8, 1), kind="grave-event")]
    assert scored(tmp_path, *alerts).found == 1
    only = scored(tmp_path, *alerts, kind="injury-surge|grave-event")
    assert (only.found, only.false) == (0, 1)


def test_an_alert_that_was_raised_in_time_is_no_false_one_though_it_opened_before(tmp_path: Path) -> None:
    before, raised = alert("a", SINCE - timedelta(days=20)), alert("a", SINCE, status="raised", revision=2)
    assert scored(tmp_path, before).false == 1
    assert (lambda one: (one.found, one.told[0].days, one.false))(scored(tmp_path, before, raised)) == (1, 0, 0)
    resolved = alert("a", SINCE, status="resolved", revision=2)
    assert scored(tmp_path, before, resolved).found == 0


def test_an_alert_about_what_cannot_be_seen_is_a_false_one(tmp_path: Path) -> None:
    found = scored(tmp_path, alert("a", SINCE), visible="no")
    assert (found.found, found.visible, found.false, found.told[0].days) == (0, 0, 1, 0)


def test_an_incident_outside_the_record_counts_in_nothing(tmp_path: Path) -> None:
    found = scored(tmp_path, since="2003-01-01")
    assert (found.visible, found.mean_days, found.told[0].outside) == (0, None, True)


def test_dates_fall_back_and_key_stands_for_product(tmp_path: Path) -> None:
    row = {
        "dataset": "d", "incident": "n", "key": "PEANUT|CLIF", "public_date": "2024-01-09", "first_week_crossing": "",
        "extreme_week_start": "2024-02-05",
    }  # fmt: skip
    (found,) = read_incidents(written(tmp_path, row, {**row, "dataset": "other"}), "d")
    assert (found.since, found.product.pattern, found.kinds) == (date(2024, 2, 5), "PEANUT|CLIF", STATISTICAL)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"incident": " "}, "line 2: incident: is empty"),
        ({"since": ""}, "line 2: since: is empty"),
        ({"since": "4 March"}, "line 2: since: '4 March' is no day; write it as 2007-02-14"),
        ({"until": "2024-03-04"}, "line 2: until: 2024-03-04 does not lie after 2024-03-04"),
        ({"visible": "perhaps"}, "line 2: visible: 'perhaps' is neither yes nor no"),
        ({"product": "("}, "line 2: product: '(' is no regular expression"),
        ({"product": "x" * 501}, "line 2: product: has 501 characters"),
        ({"kind": "surge"}, "line 2: kind: 'surge' is no kind of alert; there are pass-rate"),
    ],
)
def test_a_bad_cell_is_named_with_its_line(tmp_path: Path, columns: dict[str, str], said: str) -> None:
    row = {"incident": "n", "since": "2024-03-04", **columns}
    with pytest.raises(IncidentError, match=r"incidents\.csv, line") as failed:
        read_incidents(written(tmp_path, row))
    assert said in str(failed.value)


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(IncidentError, match="has no column incident"):
        read_incidents(written(tmp_path, {"name": "n"}))
    with pytest.raises(IncidentError, match="cannot be read"):
        read_incidents(tmp_path / "absent.csv")
    held = written(tmp_path, {"dataset": "d", "incident": "n", "since": "2024-03-04"})
    with pytest.raises(IncidentError, match="no incident of dataset e; its datasets are d"):
        read_incidents(held, "e")


@pytest.mark.shared_data
@pytest.mark.skipif(not (DATA / "known_incidents.csv").exists(), reason="../shared/data/known_incidents.csv is absent")
def test_the_shared_file_is_read_as_it_is_and_agrees_with_the_checks_of_the_benchmark() -> None:
    every = read_incidents(DATA / "known_incidents.csv")
    assert len(every) == len(CHECKS)
    for check in CHECKS:
        (mine,) = (one for one in every if one.name.startswith(check.row))
        facts = check.facts
        assert mine.since.isoformat() == (facts["first_week_crossing"] or facts["extreme_week_start"])
        assert mine.visible is (facts["visible"] == "yes")
    caers = read_incidents(DATA / "known_incidents.csv", "fda_caers_2004_2010")
    pan = next(one for one in caers if one.name.startswith("Peter Pan"))
    told = alert("a", date(2007, 2, 21), product="Nuts-Edible Seed/PETER/PETER PAN")
    assert pan.alerts([told, msgspec.structs.replace(told, product="Nuts", product_name=Text(zh="", en=""))]) == [told]
