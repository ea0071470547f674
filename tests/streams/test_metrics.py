"""The metrics: what they count against what happened, and how many series they may ever have."""

from __future__ import annotations

import random
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from builders import CHINA, DAY, HOUR, START, body, encoded, numbered, settings_with
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_page
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from scipy import stats

from schemas.alerts import Action, Alert, DeadLetter, Evidence, Level, Provenance, Signal, Text
from streams.assess import Assess, Closed
from streams.config import Config
from streams.embedded import INPUTS, EmbeddedRuntime, Pipeline
from streams.health import HealthServer
from streams.log import SqliteLog
from streams.meter import SILENT
from streams.metrics import Metrics
from streams.risk_series import MAX_ALERTS, MAX_CELLS
from streams.simulate import simulate
from streams.wording import COLOURS, GRADES

CONFIG = settings_with(partitions=2, tick_seconds=86_400)
CATALOGUE = CONFIG.load_catalogue()
CELL = ("F0101", "120000")
"""A product in the whole city."""
HOSTILE = ('a"b\\c\nd', "x" * 10_000, "\x00\x1b[31m", "} 1\ntocsin_ready 0\n#", "产品\u202e", "", "{", 'le="+Inf"')
Key = tuple[str, frozenset[tuple[str, str]]]


def key(name: str, **labels: str) -> Key:
    return name, frozenset(labels.items())


def page(metrics: Metrics) -> bytes:
    return generate_latest(metrics.registry)


def samples(metrics: Metrics) -> dict[Key, float]:
    """What Prometheus' own parser reads; a series must be there once."""
    found: dict[Key, float] = {}
    for family in text_string_to_metric_families(page(metrics).decode()):
        for sample in family.samples:
            one = sample.name, frozenset(sample.labels.items())
            assert one not in found, one
            found[one] = sample.value
    return found


def values(found: dict[Key, float], name: str) -> dict[tuple[str, ...], float]:
    """The series of one metric, by the values of their labels in the order of the labels' names; zeros left out."""
    return {
        tuple(text for _, text in sorted(labels)): value
        for (one, labels), value in found.items()
        if one == name and value
    }


def metrics_with(**more: Any) -> Metrics:
    return Metrics(CONFIG, CATALOGUE, "embedded", **more)


def alert(number: int, **changes: Any) -> Alert:
    level: Level = changes.pop("level", 1 + number % 4)
    fields: dict[str, Any] = {
        "id": f"pass-rate-{number:06}",
        "revision": 1,
        "status": "opened",
        "level": level,
        "grade": GRADES[level - 1],
        "colour": COLOURS[level - 1],
        "kind": "pass-rate",
        "scope": "cell",
        "product": f"F{number:05}",
        "product_name": Text(zh="", en=""),
        "region": "120110",
        "region_name": Text(zh="", en=""),
        "onset": datetime.fromtimestamp(START / 1_000, CHINA),
        "as_of": datetime.fromtimestamp((START + DAY) / 1_000, CHINA),
        "headline": Text(zh="", en=""),
        "p_value": 1e-9,
        "evidence": [
            Evidence(detector="d", against="target", window_days=7, observed=9.0, expected=2.0, tested=90, rate=0.9,
                     lower=0.8, upper=0.95, p_value=1e-9),
        ],
        "actions": [Action(text=Text(zh="", en=""), deadline_hours=2.0)],
        "provenance": Provenance(config="", version="", catalogue=""),
        **changes,
    }  # fmt: skip
    return Alert(**fields)


def letter(reason: str) -> DeadLetter:
    return DeadLetter(
        reason=reason, field="", detail="", topic="injuries", partition=0, offset=0, timestamp=0, stage="intake"
    )


# --- a year that was worked off ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> SqliteLog:
    """The last nine months of a small simulated year, with copies and rubbish in it, in a log."""
    rng = random.Random(7)
    log = SqliteLog(tmp_path_factory.mktemp("year"), CONFIG.partitions)
    rows: dict[str, list[tuple[int, int, bytes | None, bytes | None, tuple[()]]]] = {}
    for topic, record_key, value, reported_at in simulate(scale=0.02).events:
        if reported_at < START + 90 * DAY:
            continue
        topic_rows = rows.setdefault(topic, [])
        topic_rows += [(rng.randrange(2), reported_at, record_key, value, ())] * rng.choice((1, 1, 1, 1, 2))
        if rng.random() < 0.02:
            topic_rows.append((0, reported_at, None, rng.choice((b"{", b"[]", encoded({"event_id": "e"}))), ()))
    # An accident at the end, so that some alert stands.
    last = START + 365 * DAY
    rows["accidents"].append((1, last, None, encoded(body("accidents", "deadly", last, deaths=3)), ()))
    with log.transaction():
        for topic, topic_rows in sorted(rows.items()):
            log.append(topic, topic_rows)
    return log


def read(log: SqliteLog, topic: str) -> list[bytes]:
    return [r.value or b"" for origin in log.ends([topic]) for r in log.read(origin, 0, 10**7)]


@pytest.fixture(scope="module")
def measured(year: SqliteLog) -> tuple[Metrics, EmbeddedRuntime]:
    metrics = metrics_with(cells=[CELL, ("E0101", "120110")])
    runtime = EmbeddedRuntime(year, CONFIG, CATALOGUE, checkpoint_seconds=0.2, meter=metrics)
    runtime.run_to_end()
    return metrics, runtime


def test_events_dead_letters_and_duplicates_are_those_of_the_log(
    year: SqliteLog, measured: tuple[Metrics, EmbeddedRuntime]
) -> None:
    found = samples(measured[0])
    letters = [msgspec.json.decode(value, type=DeadLetter) for value in read(year, "dead-letters")]
    refused = Counter(one.topic for one in letters)
    assert sum(refused.values()) > 50
    for topic in INPUTS:
        read_in_all = len(read(year, topic))
        assert found[key("tocsin_events_total", topic=topic, verdict="rejected")] == refused[topic]
        assert found[key("tocsin_events_total", topic=topic, verdict="accepted")] == read_in_all - refused[topic]
    reasons = Counter((one.reason, one.stage) for one in letters)
    assert values(found, "tocsin_dead_letters_total") == dict(reasons)
    # Every accepted record was folded at some tick; a report or a correction counts once, the rest are copies.
    accepted = [(topic, _event(value)) for topic in INPUTS for value in read(year, topic)]
    ids = Counter((topic, e["source"], e["event_id"], e.get("revision", 0)) for topic, e in accepted if e is not None)
    assert ids.total() > len(ids) + 1_000
    assert found[key("tocsin_folded_events_total")] == ids.total()
    assert found[key("tocsin_duplicate_events_total")] == ids.total() - len(ids)
    assert found[key("tocsin_state_rows", partition="0")] == len(ids)
    assert found[key("tocsin_late_events_total")] == 0


def _event(value: bytes) -> dict[str, Any] | None:
    """An event as plain JSON; None for the rubbish that was strewn in."""
    return msgspec.json.decode(value) if value not in (b"{", b"[]", encoded({"event_id": "e"})) else None


def test_alerts_and_signals_are_those_that_were_written(
    year: SqliteLog, measured: tuple[Metrics, EmbeddedRuntime]
) -> None:
    found = samples(measured[0])
    alerts = [msgspec.json.decode(value, type=Alert) for value in read(year, "emergency-response")]
    assert len(alerts) >= 10
    revisions = Counter((one.kind, one.grade, one.status) for one in alerts)
    assert values(found, "tocsin_alert_revisions_total") == dict(revisions)
    signals = [msgspec.json.decode(value, type=Signal) for value in read(year, "signals")]
    assert sum(values(found, "tocsin_signals_total").values()) == sum(one.tick >= 0 for one in signals)
    last = {one.id: one for one in alerts}
    standing = [one for one in last.values() if one.status != "resolved"]
    assert standing
    shown = Counter(("no", one.kind, one.grade, one.scope) for one in standing)
    assert values(found, "tocsin_open_alerts") == dict(shown)
    latencies = sum(values(found, "tocsin_alert_latency_seconds_count").values())
    assert latencies == sum(one.status in ("opened", "raised") for one in alerts)


def test_state_progress_and_checkpoints_are_those_of_the_runtime(
    year: SqliteLog, measured: tuple[Metrics, EmbeddedRuntime]
) -> None:
    found, assess = samples(measured[0]), measured[1].pipeline.assess
    for name, store in assess.state.stores.items():
        assert found[key("tocsin_cells", partition="0", indicator=name)] == len(store)
    assert found[key("tocsin_state_bytes", partition="0")] == assess.state.nbytes
    assert found[key("tocsin_waiting_events", partition="0")] == 0
    assert values(found, "tocsin_consumer_lag_records") == {}
    assert sum(name == "tocsin_consumer_lag_records" for name, _ in found) == len(year.ends(INPUTS))
    through = measured[1].pipeline.calendar.tick_end(assess.closed_through or 0)
    assert found[key("tocsin_closed_tick_timestamp_seconds", partition="0")] == through / 1_000
    assert found[key("tocsin_ticks_total")] == found[key("tocsin_tick_duration_seconds_count")] > 150
    assert found[key("tocsin_checkpoints_total", stage="pipeline")] >= 2
    backlog = found[key("tocsin_changelog_backlog_records", topic="assess-changelog", partition="0")]
    assert backlog == len(list(year.segments())) > 1
    written = found[key("tocsin_changelog_bytes_total", stage="pipeline")]
    assert written > sum(map(len, year.segments())) > 10_000
    assert found[key("tocsin_batch_records_sum", stage="intake")] == sum(len(read(year, topic)) for topic in INPUTS)
    assert found[key("tocsin_ready")] == 1
    assert found[key("tocsin_restoring")] == 0
    build = next(dict(labels) for name, labels in found if name == "tocsin_build_info")
    assert (build["config"], build["runtime"]) == (CONFIG.digest, "embedded")


def test_a_named_cell_shows_its_pass_rate_and_the_interval_of_a_textbook(
    year: SqliteLog, measured: tuple[Metrics, EmbeddedRuntime]
) -> None:
    found, runtime = samples(measured[0]), measured[1]
    first = runtime.pipeline.calendar.day_of_tick(runtime.pipeline.assess.closed_through or 0) - 89
    distinct = {event["event_id"]: event for event in map(_event, read(year, "inspections")) if event is not None}
    tested = failed = 0
    for event in distinct.values():
        day = datetime.fromisoformat(event["reported_at"]).astimezone(CHINA).date().toordinal() - 719_163
        if event["product"] == CELL[0] and day >= first:
            tested += event.get("tested", 1)
            failed += event["failed"] if "tested" in event else event["verdict"] == "fail"
    assert tested > 0
    labels = {"of": "cell", "product": CELL[0], "region": CELL[1], "window_days": "90"}
    assert found[key("tocsin_pass_rate_tested_items", **labels)] == tested
    assert found[key("tocsin_pass_rate_ratio", **labels)] == pytest.approx(1 - failed / tested)
    posterior = stats.beta(tested - failed + 0.5, failed + 0.5)
    assert found[key("tocsin_pass_rate_lower_ratio", **labels)] == pytest.approx(posterior.ppf(0.025))
    target = CATALOGUE.targets_for(CELL[0]).pass_rate
    assert target is not None
    assert found[key("tocsin_pass_rate_target_ratio", of="cell", product=CELL[0], region=CELL[1])] == target
    upper = 1.0 if failed == 0 else posterior.ppf(0.975)
    assert found[key("tocsin_pass_rate_upper_ratio", **labels)] == pytest.approx(upper)


def test_measuring_changes_no_byte_of_what_comes_out(year: SqliteLog, tmp_path: Path) -> None:
    written: list[list[bytes]] = []
    for meter in (SILENT, metrics_with(cells=[CELL])):
        log = SqliteLog(tmp_path / str(meter.on), CONFIG.partitions)
        with log.transaction():
            for topic, part in year.ends(INPUTS):
                rows = [row for row in year.read((topic, part), 0, 10**7) if row.timestamp < START + 150 * DAY]
                log.append(topic, [(part, r.timestamp, r.key, r.value, r.headers) for r in rows])
        EmbeddedRuntime(log, CONFIG, CATALOGUE, meter=meter).run_to_end()
        written.append([_timeless(v) for t in ("emergency-response", "signals", "dead-letters") for v in read(log, t)])
        log.close()
    assert len(written[0]) > 20
    assert written[0] == written[1]


def _timeless(value: bytes) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(value), "emitted_at": None})


# --- bounds --------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_cells_and_hostile_codes_make_a_small_page_that_can_be_read() -> None:
    named = [(f"P{number}{HOSTILE[number % len(HOSTILE)]}", HOSTILE[-1 - number % 3]) for number in range(3_000)]
    metrics = metrics_with(cells=named)
    assess = Assess(CONFIG, CATALOGUE, tuple((topic, 0) for topic in INPUTS))
    store = assess.state.stores["pass"]
    cells = [*named, *((f"P{number}", f"R{number % 16}") for number in range(97_000))]
    rows = np.array([store.rows_for(cell[:1], cell[1:])[0] for cell in cells], np.intp)
    store.fold(rows, np.full(len(rows), 19_723, np.int32), np.tile(np.array([[1, 10]], np.int64), (len(rows), 1)))
    assess.closed_through = assess._calendar.tick(19_723 * DAY)
    metrics.assessed(0, assess)
    for number in range(2_000):
        metrics.refused([letter(f"{HOSTILE[number % len(HOSTILE)]}{number}"), letter(f"reason-{number}")])
    metrics.standing([alert(n, product=HOSTILE[n % len(HOSTILE)] * 3, region=f"R{n}") for n in range(5_000)])
    metrics.positions({(topic, part): (5, 10) for topic in INPUTS for part in range(1_024)})
    metrics.watermarks({(topic, part): START for topic in INPUTS for part in range(1_024)})

    found = samples(metrics)
    with HealthServer(metrics, "127.0.0.1", 0) as server:
        began = time.process_time()  # not the wall clock: the machine may have other work
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
            scraped = answer.read()
        seconds = time.process_time() - began
    assert len(scraped) < 5 << 20
    assert seconds < 1.0, "a scrape must not keep Prometheus waiting"
    assert found[key("tocsin_cells", partition="0", indicator="pass")] == 100_000
    coded = Counter(name for name, labels in found if "product" in dict(labels))
    assert coded["tocsin_alert_p_value"] == coded["tocsin_alert_level"] == MAX_ALERTS
    windows = len(CONFIG.pass_rate.windows_days)
    assert max(coded.values()) <= MAX_CELLS * windows + MAX_ALERTS
    assert found[key("tocsin_alerts_without_series")] == 5_000 - MAX_ALERTS
    assert all(len(text) <= 64 and text.isprintable() for _, labels in found for _, text in labels)
    assert len(values(found, "tocsin_dead_letters_total")) <= 41
    assert sum(values(found, "tocsin_dead_letters_total").values()) == 4_000
    assert found[key("tocsin_ready")] == 0, "no value of a label may be read as a series"


def test_the_gravest_alerts_have_the_series() -> None:
    metrics = metrics_with()
    metrics.standing([alert(number, level=4 if number else 1) for number in range(MAX_ALERTS + 50)])
    shown = {dict(labels)["level"]: 1 for name, labels in samples(metrics) if name == "tocsin_alert_p_value"}
    assert shown == {"I": 1, "IV": 1}
    assert values(samples(metrics), "tocsin_open_alerts")["no", "pass-rate", "I", "cell"] == 1


def test_labels_of_counters_are_words_of_our_own() -> None:
    metrics = metrics_with()
    metrics.emitted([alert(number, product=f"secret-{number}", acknowledged_by="Zhang San") for number in range(4)])
    assert b"secret" not in page(metrics)
    metrics.standing([alert(1, acknowledged_by="Zhang San", reason="call 13800000000", source="hospital-9")])
    assert not [word for word in (b"Zhang", b"1380", b"hospital-9") if word in page(metrics)]


# --- single facts --------------------------------------------------------------------------------------------------


def test_an_alert_is_overdue_once_its_first_actions_time_has_passed_and_nobody_acknowledged() -> None:
    now = [0.0]
    metrics = metrics_with(now=lambda: now[0])
    opened = (START + DAY) / 1_000  # the end of the onset's tick
    metrics.standing([
        alert(1, level=2),
        alert(2, level=2, acknowledged_by="officer"),
        alert(3, level=2, actions=[]),
        alert(4, level=1, kind="grave-event", p_value=None),  # opens at once: a tick earlier
    ])  # fmt: skip

    def overdue(at: float) -> dict[tuple[str, ...], float]:
        now[0] = at
        return values(samples(metrics), "tocsin_overdue_alerts")

    grave, pass_rate = ("grave-event", "I", "cell"), ("pass-rate", "II", "cell")
    assert overdue(START / 1_000 + 7_199) == {}
    assert overdue(START / 1_000 + 7_201) == {grave: 1}
    assert overdue(opened + 7_199) == {grave: 1}
    assert overdue(opened + 7_201) == {grave: 1, pass_rate: 1}


def test_latency_counts_from_the_events_arrival_or_from_the_end_of_the_tick() -> None:
    metrics = metrics_with()
    tick_end = datetime.fromtimestamp((START + DAY) / 1_000, UTC)
    metrics.arrived(["grave-1", None], START + HOUR)
    metrics.emitted([
        alert(1, id="grave-1", kind="grave-event", emitted_at=datetime.fromtimestamp((START + HOUR) / 1_000 + 2, UTC)),
        alert(2, emitted_at=tick_end + timedelta(seconds=7)),
        alert(3, status="resolved", emitted_at=tick_end + timedelta(seconds=500)),
    ])  # fmt: skip
    found = samples(metrics)
    assert found[key("tocsin_alert_latency_seconds_sum", path="grave")] == pytest.approx(2)
    assert found[key("tocsin_alert_latency_seconds_sum", path="tick")] == pytest.approx(7)
    assert found[key("tocsin_alert_latency_seconds_count", path="tick")] == 1


def test_what_a_worker_has_lost_is_shown_no_more() -> None:
    metrics = metrics_with(cells=[CELL])
    metrics.assigning()
    metrics.restoring("assess", 0, 0.0)
    metrics.restoring("assess", 0, 0.5)
    assert samples(metrics)[key("tocsin_restore_progress_ratio", stage="assess", partition="0")] == 0.5
    metrics.restoring("assess", 0, 1.0)
    metrics.serving({"assess": 1})
    metrics.assessed(0, Assess(CONFIG, CATALOGUE, (("injuries", 0),)))
    metrics.positions({("injuries", 0): (3, 10)})
    metrics.watermarks({("injuries", 0): START})
    metrics.standing([alert(1)])
    before = samples(metrics)
    assert before[key("tocsin_consumer_lag_records", topic="injuries", partition="0")] == 7
    assert before[key("tocsin_watermark_timestamp_seconds", topic="injuries", partition="0")] == START / 1_000
    assert before[key("tocsin_restore_duration_seconds_count", stage="assess")] == 1
    metrics.assigning()
    after = samples(metrics)
    gone = {name for name, labels in after if {"partition", "alert_id"} & dict(labels).keys()}
    assert gone == set()
    assert values(after, "tocsin_open_alerts") == {}
    assert after[key("tocsin_restoring")] == 1
    assert after[key("tocsin_rebalances_total")] == 1


def test_a_worker_that_stands_by_counts_no_rebalance_each_time_that_it_says_so() -> None:
    metrics = metrics_with()
    for _ in range(5):
        metrics.serving({"assess": 0})
    found = samples(metrics)
    assert found[key("tocsin_rebalances_total")] == 1
    assert found[key("tocsin_ready")] == 1


def test_open_alerts_are_told_with_names_and_cells_by_the_gravest_of_theirs() -> None:
    metrics = metrics_with()
    assert values(samples(metrics), "tocsin_alerting_cells") == {}
    names = {"product_name": Text(zh="米面", en=""), "region_name": Text(zh="东丽区", en="")}
    metrics.standing([
        alert(1, level=3, product="F01", acknowledged_by="officer", **names),
        alert(2, level=1, product="F01", kind="grave-event", p_value=None),
        alert(3, level=3, product="F02"),
    ])  # fmt: skip
    found = samples(metrics)
    assert values(found, "tocsin_alerting_cells") == {("I",): 1, ("III",): 1}
    shown = {dict(labels)["alert_id"]: dict(labels) for name, labels in found if name == "tocsin_alert_level"}
    assert shown["pass-rate-000001"]["region_name"] == "东丽区"
    assert [shown[name]["acknowledged"] for name in sorted(shown)] == ["yes", "no", "no"]
    assert sorted(values(found, "tocsin_alert_level").values()) == [1, 3, 3]


def test_a_named_cell_shows_its_evidence_until_a_day_of_ticks_has_brought_none() -> None:
    metrics = metrics_with(cells=[CELL])

    def close(tick: int, *signals: Signal) -> dict[tuple[str, ...], float]:
        metrics.closed(Closed(tick, list(signals), ticks=[tick]), 0.1)
        return values(samples(metrics), "tocsin_cell_p_value")

    def signal(product: str, p_value: float, **changes: Any) -> Signal:
        fields: dict[str, Any] = {
            "tick": 1, "as_of": datetime.fromtimestamp(0, UTC), "kind": "pass-rate", "product": product,
            "region": CELL[1], "role": "primary", "level": 3, "scope": "cell", "p_value": p_value, "excess": 1.0,
            "evidence": [], **changes,
        }  # fmt: skip
        return Signal(**fields)

    assert close(1, signal(CELL[0], 1e-5), signal("F0102", 1e-9)) == {("pass-rate", *CELL): 1e-5}
    assert close(1, signal(CELL[0], 1e-6), signal(CELL[0], 1e-9, source="lab-1")) == {("pass-rate", *CELL): 1e-6}
    assert close(2) == {}


def test_what_alertmanager_was_told_is_told() -> None:
    metrics = metrics_with(now=lambda: 1_000.0)
    metrics.pushed(0, False)
    metrics.pushed(7, True)
    metrics.pushed(0, False)
    found = samples(metrics)
    assert values(found, "tocsin_alertmanager_pushes_total") == {("failed",): 2, ("told",): 1}
    assert found[key("tocsin_alertmanager_alerts")] == 7
    assert found[key("tocsin_alertmanager_last_push_timestamp_seconds")] == 1_000


def test_a_slow_alert_is_named_by_an_exemplar_for_those_who_ask_for_openmetrics() -> None:
    metrics = metrics_with()
    tick_end = datetime.fromtimestamp((START + DAY) / 1_000, UTC)
    metrics.emitted([alert(2, id="x" * 500, emitted_at=tick_end + timedelta(seconds=7))])
    families = openmetrics_families(openmetrics_page(metrics.registry).decode())
    found = [one.exemplar for family in families for one in family.samples if one.exemplar]
    assert [(one.labels, one.value) for one in found] == [({"alert_id": "x" * 64}, pytest.approx(7))]
    assert b"x" * 64 not in page(metrics), "the classic text has no exemplars"


def test_a_worker_that_does_not_hold_a_named_cell_says_nothing_of_it() -> None:
    metrics = metrics_with(cells=[CELL])
    metrics.assessed(0, Assess(CONFIG, CATALOGUE, (("injuries", 0),)))
    assert not [name for name, labels in samples(metrics) if "product" in dict(labels)]


def test_an_empty_close_is_no_tick() -> None:
    metrics = metrics_with()
    metrics.closed(Closed(None), 0.1, 0.1)
    assert samples(metrics)[key("tocsin_ticks_total")] == 0


def test_late_events_are_counted_as_such(tmp_path: Path) -> None:
    """What arrives on an origin behind a closed tick: only a wrong use of given times can do that."""
    config = Config()
    metrics = Metrics(config, config.load_catalogue(), "embedded")
    pipeline = Pipeline(config, config.load_catalogue(), [("injuries", 0)], metrics)
    pipeline.mark(("injuries", 0), START + DAY)
    pipeline.close()
    pipeline.feed(("injuries", 0), numbered([(START + HOUR, body("injuries", "e", START + HOUR))]))
    assert samples(metrics)[key("tocsin_late_events_total")] == 1
    assert [one.reason for one in pipeline.take().dead] == ["arrived-too-late"]
