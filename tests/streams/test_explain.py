"""The events behind an alert are those of a brute force over the raw records, corrections and withdrawals respected."""

from __future__ import annotations

import json
import zlib
from collections import Counter, defaultdict
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import (
    CHINA,
    DAY,
    GOOD_USCC,
    START,
    Raw,
    World,
    body,
    build_world,
    feed_all,
    numbered,
    refused_in,
    settings_with,
)
from held import Held
from small_world import accident, fails, fill, succeeds, write_ndjson

from schemas.alerts import Alert
from streams.embedded import Pipeline
from streams.explain import Explanation, basis, explain
from streams.producer_record import Year, producer_records
from streams.recall import lots, tallied, untraced
from streams.ticks import COMPLETE, Origin

TOPIC = {"pass-rate": "inspections", "injury-surge": "injuries", "complaint-surge": "complaints"}
OWN = ("opened", "raised", "lowered")


@cache
def world(seed: int) -> tuple[World, tuple[Alert, ...], frozenset[tuple[Origin, int]]]:
    made = build_world(seed, scale=0.3)
    pipeline = Pipeline(made.config, made.catalogue, tuple(made.raw))
    return made, tuple(feed_all(pipeline, made.raw).alerts), frozenset(refused_in(made))


def explained(seed: int, alert: Alert) -> Explanation:
    made, _, _ = world(seed)
    return explain(Held(made.raw), alert, made.config, made.catalogue)


def brute_force(seed: int, alert: Alert) -> set[tuple[str, int, int]]:
    """In plain Python: of what had arrived the winning report of each event, and of those the ones in the window."""
    made, _, refused = world(seed)
    end = alert.as_of.timestamp() * 1_000
    best: dict[tuple[str, int | None], tuple[Any, tuple[str, int, int], dict[str, Any]]] = {}
    for origin in sorted(made.raw):
        if origin[0] != TOPIC[alert.kind]:
            continue
        arrival = -COMPLETE
        for row in made.raw[origin]:
            arrival = max(arrival, row.timestamp)
            if arrival >= end or (origin, row.offset) in refused:
                continue
            event = json.loads(row.value or b"")
            rank = (-event.get("revision", 0), arrival, origin, row.offset)
            shard = None if event.get("revision", 0) else zlib.crc32(event["product"][:1].encode()) % 64
            key = (event["event_id"], shard)
            if key not in best or rank < best[key][0]:
                best[key] = (rank, (*origin, row.offset), event)
    corrected = {name for name, shard in best if shard is None}
    last = datetime.fromtimestamp((end - 1) / 1_000, CHINA).date().toordinal()
    found = set()
    for (name, shard), (_, place, event) in best.items():
        day = datetime.fromisoformat(event["reported_at"]).astimezone(CHINA).date().toordinal()
        if (
            not event.get("withdrawn")
            and not (shard is not None and name in corrected)
            and event["product"].startswith(alert.product)
            and alert.region in ("120000", event["region"])
            and day > last - alert.provenance.window_days
            and event.get("failed", 1) > 0
        ):
            found.add(place)
    return found


@pytest.mark.parametrize("seed", range(2))
def test_the_events_are_those_of_a_brute_force(seed: int) -> None:
    _, alerts, _ = world(seed)
    mine = [alert for alert in alerts if alert.kind in TOPIC and alert.status in OWN and alert.provenance.sources]
    assert len(mine) >= 3
    for alert in mine:
        found = explained(seed, alert)
        assert {one.place for one in found.events} == brute_force(seed, alert)
        assert found.complete
        assert found.named == len(found.events)
        assert alert.provenance.window_days in (7, 14, 30)


def test_some_of_them_needed_the_whole_topic_and_some_only_their_ranges() -> None:
    how = Counter[bool]()
    for seed in range(2):
        _, alerts, _ = world(seed)
        for alert in alerts:
            if alert.kind in TOPIC and alert.status in OWN and alert.provenance.sources:
                ranges = sum(one.last_offset + 1 - one.first_offset for one in alert.provenance.sources)
                how[explained(seed, alert).read > ranges] += 1
    assert how[True] > 0
    assert how[False] > 0


@pytest.mark.parametrize("seed", range(2))
def test_who_contributes_is_what_the_alert_says(seed: int) -> None:
    _, alerts, _ = world(seed)
    for alert in alerts:
        if alert.kind in TOPIC and alert.status in OWN:
            found = explained(seed, alert)
            for role in ("lab", "producer", "batch", "gtin"):
                said = [(one.code, one.adverse) for one in alert.contributors if one.role == role]
                assert [(one.code, one.adverse) for one in tallied(found.events, role)][: len(said)] == said


def test_a_grave_event_is_its_one_record() -> None:
    made, alerts, _ = world(0)
    graves = [alert for alert in alerts if alert.kind == "grave-event" and alert.status == "opened"]
    assert graves
    for alert in graves:
        found = explained(0, alert)
        # Copies of the same bytes have the same id: the first of them rang.
        values = {made.raw[one.topic, one.partition][one.offset].value for one in found.events}
        assert len(values) == 1
        assert json.loads(values.pop() or b"")["product"] == alert.product


@pytest.mark.parametrize("kind", ["lab-drift", "silent-source"])
def test_what_is_about_a_source_lists_that_sources_reports(kind: Any) -> None:
    _, alerts, _ = world(0)
    base = next(alert for alert in alerts if alert.kind == "pass-rate")
    empty = msgspec.structs.replace(base.provenance, sources=[], window_days=56)
    alert = msgspec.structs.replace(base, kind=kind, product="*", region="*", source="lab-1", provenance=empty)
    events = explained(0, alert).events
    assert all(getattr(one.event, "lab", None) == "lab-1" for one in events)


def test_other_catalogues_and_lost_records_are_told_as_incomplete() -> None:
    made, alerts, _ = world(0)
    alert = next(one for one in alerts if one.kind == "pass-rate" and one.status == "opened")
    gone = {origin: rows[: len(rows) // 2] for origin, rows in made.raw.items()}
    found = explain(Held(gone), alert, made.config, made.catalogue)
    assert not found.complete
    assert found.named is not None
    assert len(found.events) < found.named


# --- the scope of a recall, and the producers' record -----------------------------------------------------------------


def test_lots_add_up_to_the_events_that_name_a_producer() -> None:
    _, alerts, _ = world(0)
    for alert in alerts:
        if alert.kind == "pass-rate" and alert.status == "opened":
            events = explained(0, alert).events
            scope = lots(events)
            assert sum(lot.events for lot in scope) + untraced(events) == len(events)
            assert [lot.adverse for lot in scope] == sorted((lot.adverse for lot in scope), reverse=True)
            assert all(lot.scope == ("batch" if lot.batch else "gtin" if lot.gtin else "producer") for lot in scope)


def test_a_producers_years_are_those_of_a_brute_force() -> None:
    made, alerts, refused = world(0)
    alert = max(alerts, key=lambda one: one.as_of)
    (record,) = producer_records(
        Held(made.raw), [GOOD_USCC], alert, alerts, made.config, made.catalogue
    )  # fmt: skip
    best: dict[tuple[str, str], tuple[Any, dict[str, Any]]] = {}
    end = alert.as_of.timestamp() * 1_000
    for origin in made.raw:
        arrival = -COMPLETE
        for row in made.raw[origin]:
            arrival = max(arrival, row.timestamp)
            if arrival < end and (origin, row.offset) not in refused and origin[0] in (
                "inspections", "injuries", "complaints", "accidents",
            ):  # fmt: skip
                event = json.loads(row.value or b"")
                rank = (-event.get("revision", 0), arrival, *origin, row.offset)
                key = (origin[0], event["event_id"])
                if key not in best or rank < best[key][0]:
                    best[key] = (rank, event)
    wanted: dict[int, Year] = defaultdict(lambda: Year(0))
    for (topic, _), (_, event) in best.items():
        if event.get("producer") == GOOD_USCC and not event.get("withdrawn"):
            year = datetime.fromisoformat(event["reported_at"]).astimezone(CHINA).year
            assert topic == "inspections"
            wanted[year].year = year
            wanted[year].tested += event["tested"]
            wanted[year].failed += event["failed"]
    assert record.years == [wanted[year] for year in sorted(wanted)]
    assert sum(year.failed for year in record.years) > 0
    named = {one.id for one in alerts if one.as_of < alert.as_of and one.id != alert.id
             for c in one.contributors if c.code == GOOD_USCC}  # fmt: skip
    assert record.earlier == len(named)
    assert record.repeat is bool(named)


def test_a_correction_that_takes_an_event_from_a_producer_counts() -> None:
    other = "914403001922038216"
    at = START + DAY
    rows = [
        body("inspections", "a", at, tested=5, failed=2, producer=GOOD_USCC),
        body("inspections", "b", at, tested=5, failed=1, producer=GOOD_USCC),
        body("inspections", "a", at, tested=5, failed=2, producer=other, revision=1),
        body("inspections", "b", at, tested=5, failed=1, revision=2, withdrawn=True),
        body("inspections", "c", at, tested=9, failed=3, producer=GOOD_USCC),
        body("inspections", "c", at, tested=9, failed=3, producer=GOOD_USCC),
    ]
    raw: Raw = {("inspections", 0): numbered((at, row) for row in rows)}
    _, alerts, _ = world(0)
    late = msgspec.structs.replace(alerts[0], as_of=datetime.fromtimestamp((at + DAY) / 1_000, CHINA))
    config = settings_with()
    (record,) = producer_records(
        Held(raw), [GOOD_USCC], late, [], config, config.load_catalogue()
    )  # fmt: skip
    assert record.years == [Year(2024, tested=9, failed=3)]


def test_basis_is_the_last_revision_with_evidence_of_its_own() -> None:
    _, alerts, _ = world(0)
    ids = {alert.id for alert in alerts if alert.status == "resolved"} & {a.id for a in alerts if a.status == "raised"}
    assert ids
    for name in ids:
        mine = [alert for alert in alerts if alert.id == name]
        assert basis(mine).revision == max(alert.revision for alert in mine if alert.status in OWN)


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explain")
    data = fill(folder / "data", folder)
    grave = write_ndjson(folder / "more.ndjson", [accident(event_id="a-2", producer=GOOD_USCC, batch="B7")])
    succeeds("publish", "accidents", grave, "--data", data)
    succeeds("run", "--until-end", "--data", data)
    return data


def alert_ids(data: Path, kind: str) -> list[str]:
    lines = succeeds("alerts", "list", "--json", "--data", data).stdout_bytes.splitlines()
    return sorted(alert.id for alert in (msgspec.json.decode(line, type=Alert) for line in lines) if alert.kind == kind)


def test_the_command_tells_events_scope_and_record(data: Path) -> None:
    (name,) = alert_ids(data, "pass-rate")
    told = msgspec.json.decode(succeeds("alerts", "explain", name[:-3], "--json", "--data", data).stdout_bytes)
    assert told["complete"]
    assert told["events"] == told["named"] == len(told["list"])
    assert {row["event"]["region"] for row in told["list"]} == {"120110"}
    assert told["recall"]["events_without_producer"] == told["events"]
    assert told["by"]["district"]["first"] == [{"code": "120110", "adverse": told["adverse"], "events": told["events"]}]
    short = msgspec.json.decode(
        succeeds("alerts", "explain", name, "--json", "--limit", 1, "--data", data).stdout_bytes
    )
    assert (len(short["list"]), short["events"]) == (1, told["events"])
    text = succeeds("alerts", "explain", name, "--data", data, "--limit", 1).stdout
    assert "Districts (1)" in text
    assert "trace them first" in text


def test_the_command_tells_a_grave_events_producer(data: Path) -> None:
    told = [
        msgspec.json.decode(succeeds("alerts", "explain", name, "--json", "--data", data).stdout_bytes)
        for name in alert_ids(data, "grave-event")
    ]
    (mine,) = (one for one in told if one["recall"]["lots"])
    (lot,) = mine["recall"]["lots"]
    assert (lot["producer"], lot["batch"], lot["scope"]) == (GOOD_USCC, "B7", "batch")
    (record,) = mine["producers"]
    assert (record["producer"], record["repeat"]) == (GOOD_USCC, False)


def test_wrong_calls_are_one_line(data: Path, tmp_path: Path) -> None:
    (name,) = alert_ids(data, "pass-rate")
    assert "no such alert" in fails("alerts", "explain", "absent", "--data", data).line
    assert "has no revision 99" in fails("alerts", "explain", name, "--revision", 99, "--data", data).line
    assert "nothing has been published" in fails("alerts", "explain", name, "--data", tmp_path / "no").line
