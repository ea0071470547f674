"""A chart says at the alert's own moment what the alert said: the detector's evidence, computed by the pipeline, is the
oracle. For that the record is cut at the alert's tick; later reports may change a chart, and are meant to."""

from __future__ import annotations

import math
from collections import Counter

import msgspec
import numpy as np
import pytest
from builders import DAY, GOOD_USCC, HOUR, START, World, body, feed_all
from held import Held
from report_world import alerts_of, view_of, world_of
from watch_world import Row, complaints, daily, inspections
from watch_world import world_of as watched

from schemas.alerts import Alert
from streams.embedded import Pipeline
from streams.explain import basis
from streams.judge_rates import judge_rates
from streams.report.charts import Chart, chart_of, strongest
from streams.report.record import Record, fold, gather
from streams.slices import Slice, Sliced


def as_known_then(world: World, alert: Alert) -> Record:
    """The record as it was at the alert's tick."""
    then = round(alert.as_of.timestamp() * 1_000)
    medium = Sliced(Held(world.raw), Slice(until=then))  # type: ignore[arg-type]
    return fold(gather(medium, world.config, world.catalogue), [], 0)


def day_of(record: Record, alert: Alert) -> int:
    return record.calendar.day(record.calendar.epoch_ms(alert.as_of) - 1)


def at_moment(chart: Chart, day: int) -> int:
    """The place of the point that holds a day."""
    return int(np.flatnonzero(chart.days >= day)[0])


def run(world: World) -> list[Alert]:
    return list(feed_all(Pipeline(world.config, world.catalogue, tuple(world.raw)), world.raw).alerts)


@pytest.mark.parametrize("seed", range(2))
def test_a_chart_holds_what_the_alert_said_and_is_beyond_its_threshold(seed: int) -> None:
    seen: Counter[str] = Counter()
    for alert in alerts_of(seed):
        best = strongest(alert)
        if alert.status not in ("opened", "raised", "lowered") or best is None or alert.kind == "grave-event":
            continue
        record = as_known_then(world_of(seed), alert)
        day = day_of(record, alert)
        chart = chart_of(record, [alert], day)
        assert chart is not None
        at = at_moment(chart, day)
        if alert.kind == "pass-rate" and best.against != "run-length":
            assert chart.observed[at] == pytest.approx(best.rate, rel=1e-5)
            assert chart.expected[at] == pytest.approx(best.reference, rel=1e-5)
            assert chart.lower is not None
            assert chart.lower[at] == pytest.approx(best.lower, rel=1e-5)
            assert chart.threshold is not None
            assert chart.observed[at] <= chart.threshold[at]
        elif alert.kind.endswith("surge") and best.detector != "space-time-permutation-scan":
            # The week that rang, the running one or the one before.
            weeks = [(chart.observed[i], chart.expected[i]) for i in (at, at - 1)]
            mine = [i for i, (n, mean) in zip((at, at - 1), weeks, strict=True)
                    if n == best.observed and mean == pytest.approx(best.expected, rel=1e-5)]  # fmt: skip
            assert mine, (best, weeks)
            assert chart.threshold is not None
            assert chart.observed[mine[0]] >= chart.threshold[mine[0]]
        seen[alert.kind] += 1
    assert seen["pass-rate"] >= 3
    assert seen["injury-surge"] + seen["complaint-surge"] >= 3


def test_the_threshold_is_where_the_detector_itself_begins_to_ring() -> None:
    def rate(lab: str, cell: tuple[str, str], week: int) -> float:
        return 0.25 if cell == ("F0101", "120101") and 60 <= week < 66 else 0.02

    world = watched(inspections(70, rate, labs=("lab-0", "lab-1"), tested=40), daily(labs={"adjust": False}))
    judged: Counter[bool] = Counter()
    rang_first = next(one for one in run(world) if one.kind == "pass-rate" and one.status == "opened")
    record = fold(gather(Held(world.raw), world.config, world.catalogue), [], 0)  # type: ignore[arg-type]
    for against in ("own-history", "peers"):
        alert = rang_first
        evidence = [one for one in alert.evidence if one.against == against]
        assert evidence
        alert = msgspec.structs.replace(alert, evidence=evidence[:1])
        chart = chart_of(record, [alert], day_of(record, alert) + 28)
        assert chart is not None
        assert chart.threshold is not None
        store = record.state.stores["pass"]
        rows = np.array([store.row((alert.product, alert.region))], np.intp)
        for at in np.flatnonzero(np.isfinite(chart.threshold)).tolist():
            found = judge_rates(store, rows, int(chart.days[at]), np.array([np.nan]), record.config.pass_rate)
            rang = [one for finding in found for one in finding.evidence
                    if one.against == against and one.window_days == evidence[0].window_days]  # fmt: skip
            assert bool(rang) == (chart.observed[at] <= chart.threshold[at])
            judged[bool(rang)] += 1
    assert judged[True] >= 4
    assert judged[False] >= 20


def test_the_chart_of_a_slow_slide_is_the_statistic_that_rang() -> None:
    def rate(lab: str, cell: tuple[str, str], week: int) -> float:
        return 0.03 + (max(0, week - 26) * 0.0035 if cell[0] == "F0101" else 0.0)

    cells = [("F0101", "120101"), ("F0101", "120102"), ("L0101", "120101")]
    rows = inspections(44, rate, labs=("lab-0", "lab-1"), cells=cells, tested=60)
    world = watched(rows, daily(pass_rate={"alpha": 1e-12}))
    slides = [
        alert
        for alert in run(world)
        if alert.status == "opened" and (best := strongest(alert)) and best.against == "run-length"
    ]
    assert slides
    for alert in slides:
        best = strongest(alert)
        assert best is not None
        record = as_known_then(world, alert)
        chart = chart_of(record, [alert], day_of(record, alert))
        assert chart is not None
        assert chart.threshold is not None
        at = at_moment(chart, day_of(record, alert))
        assert chart.observed[at] == pytest.approx(best.statistic, rel=1e-5)
        assert chart.observed[at] > chart.threshold[at] == pytest.approx(best.threshold)


def losing(weeks: int) -> list[Row]:
    """Losses at 1 %, and at 4 % from week 80 on; answers that fall from 88 to 70 then, and others at 75 all along."""
    rows: list[Row] = []
    for week in range(0, weeks, 2):
        at, late = START + week * 7 * DAY + 9 * HOUR, week >= 80
        wobble = 1 + 0.1 * math.sin(week)
        lost = (40_000.0 if late else 10_000.0) * wobble
        own = {"product": "A0103", "producer": GOOD_USCC, "loss_cny": lost, "output_cny": 1_000_000.0}
        rows.append(("losses", at, body("losses", f"l{week}", at, **own)))
        score = (70.0 if late else 88.0) + 2 * math.sin(week)
        answers = {"product": "T0101", "score": score, "respondents": 200}
        rows.append(("surveys", at, body("surveys", f"s{week}", at, **answers)))
        always = {"product": "T0201", "score": 75.0 + math.sin(week), "respondents": 200}
        rows.append(("surveys", at, body("surveys", f"t{week}", at, **always)))
    return rows


def test_charts_of_drift_and_of_the_index_hold_what_the_alert_said() -> None:
    world = watched(losing(96), daily())
    seen: set[tuple[str, str]] = set()
    for alert in run(world):
        best = strongest(alert)
        if alert.kind not in ("quality-loss", "satisfaction") or best is None or alert.status == "resolved":
            continue
        record = as_known_then(world, alert)
        chart = chart_of(record, [alert], day_of(record, alert))
        assert chart is not None
        if best.against == "run-length":
            assert chart.unit == "deviations"
            assert chart.observed[-1] == pytest.approx(best.statistic, rel=1e-4)
            assert chart.threshold is not None
            assert chart.threshold[-1] == pytest.approx(best.threshold, rel=1e-4)
        else:
            at = at_moment(chart, day_of(record, alert))
            assert chart.observed[at] == pytest.approx(best.rate, rel=1e-5)
            assert chart.threshold is not None
            assert chart.observed[at] <= chart.threshold[at] + 1e-6
        seen.add((alert.kind, best.against))
    assert {("quality-loss", "run-length"), ("satisfaction", "target")} <= seen


def test_charts_of_labs_and_of_silent_sources_hold_what_the_alert_said() -> None:
    lenient = inspections(30, lambda lab, cell, week: 0.01 if lab == "lab-2" and week >= 18 else 0.06, tested=40)
    quiet = complaints(140, lambda channel, day: 0 if channel == "c1" and day >= 120 else 6, channels=("c0", "c1"))
    world = watched([*lenient, *quiet], daily())
    seen: set[str] = set()
    for alert in run(world):
        best = strongest(alert)
        if alert.kind not in ("lab-drift", "silent-source") or best is None or alert.status == "resolved":
            continue
        record = as_known_then(world, alert)
        chart = chart_of(record, [alert], day_of(record, alert))
        assert chart is not None
        if alert.kind == "lab-drift":
            before = (chart.days - day_of(record, alert)) < 0
            at = int(np.flatnonzero(before)[-1])
            assert chart.observed[at] == pytest.approx(1 - best.observed / best.tested, rel=1e-5)  # type: ignore[operator]
            assert chart.expected[at] == pytest.approx(1 - best.expected / best.tested, rel=1e-4)  # type: ignore[operator]
        else:
            assert chart.expected[-1] == pytest.approx(42.0)  # six a day
        seen.add(alert.kind)
    assert seen == {"lab-drift", "silent-source"}


def test_a_grave_event_has_no_chart_and_an_unknown_cell_has_none_either() -> None:
    grave = next(one for one in alerts_of(0) if one.kind == "grave-event" and one.status == "opened")
    record = view_of(0).record
    assert chart_of(record, [grave], day_of(record, grave)) is None
    surge = next(one for one in alerts_of(0) if one.kind == "injury-surge")
    elsewhere = msgspec.structs.replace(surge, product="Z9999")
    assert chart_of(record, [elsewhere], day_of(record, surge)) is None
    assert basis([surge]) is surge
