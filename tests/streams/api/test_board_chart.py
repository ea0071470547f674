"""Control charts say what the judges say: week by week, limits found by trying every count, from the stored state."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from board_world import surge_alert
from builders import DAY, HOUR, START, body, settings_with
from small_world import fill, succeeds, write_ndjson

from schemas.alerts import Evidence
from schemas.errors import TocsinError
from streams.board import evidence
from streams.board.chart import WEEKS, draw
from streams.board.counts import Counts, read_counts
from streams.board.evidence import EvidenceDesk
from streams.cells import CellStore
from streams.config import Config
from streams.judge_counts import judge_counts
from streams.judge_rates import judge_rates, rate_history
from streams.judge_satisfaction import judge_satisfaction
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium
from streams.outputs import latest_revisions, read_alerts

CONFIG = settings_with(counts={"alpha": 1e-3}, pass_rate={"alpha": 1e-3})
CATALOGUE = CONFIG.load_catalogue()
FIRST = 19_723  # a Monday
CELL = ("F0101", "120101")


def counts_store(weekly: list[int]) -> CellStore:
    store = CellStore(1)
    row = store.rows_for(("F", "F01", "F0101"), ("120000", "120101"))[-1]
    days = np.array([FIRST + 7 * at for at in range(len(weekly))], np.int32)
    store.fold(np.full(len(weekly), row), days, np.array(weekly, np.int64)[:, None])
    store.note_day(store.branch(row), FIRST)
    return store


def only_through(store: CellStore, weekly: list[int], weeks: int) -> CellStore:
    return counts_store(weekly[:weeks] + [0] * (len(weekly) - weeks))


@pytest.mark.parametrize("weeks", [70, 230])
def test_a_count_chart_alarms_in_the_weeks_in_which_the_judge_would_have(weeks: int) -> None:
    rng = np.random.default_rng(7)
    weekly = rng.poisson(4.0, weeks).tolist()
    for at in (weeks - 30, weeks - 29, weeks - 4):
        weekly[at] += 22
    store = counts_store(weekly)
    row = store.row(CELL)
    assert row is not None
    day = FIRST + 7 * weeks - 1
    chart = draw(surge_alert(), "injury", Counts(store, row, day), CONFIG, CATALOGUE)
    assert len(chart.days) == min(WEEKS, weeks)
    assert chart.value == [float(count) for count in weekly[-len(chart.days) :]]
    for place in range(len(chart.days)):
        lag = len(chart.days) - 1 - place
        then = only_through(store, weekly, weeks - lag)
        found = judge_counts(then, np.array([row], np.intp), day - 7 * lag, CONFIG.counts)
        said = [one for finding in found if 0 in finding.excess for one in finding.evidence]
        said = [one for one in said if one.observed == weekly[weeks - 1 - lag]]
        assert chart.alarm[place] == bool(said), chart.days[place]
        if said:
            assert chart.expected[place] == pytest.approx(said[0].expected, rel=1e-5)
            assert chart.limit[place] == pytest.approx(said[0].threshold, rel=1e-5)
            assert chart.detector[place] == said[0].detector
    assert sum(chart.alarm) >= 2


def rates_store(daily: list[tuple[int, int]]) -> CellStore:
    store = CellStore(2)
    rows = store.rows_for(("F", "F01", "F0101"), ("120000", "120101"))
    other = store.rows_for(("F", "F01", "F0101"), ("120000", "120102"))
    days = np.arange(FIRST, FIRST + len(daily), dtype=np.int32)
    for row in rows:
        store.fold(np.full(len(daily), row), days, np.array(daily, np.int64))
    for row in other:
        store.fold(np.full(len(daily), row), days, np.array([(n % 17 == 0, 9) for n in range(len(daily))], np.int64))
    store.note_day(store.branch(rows[-1]), FIRST)
    return store


@pytest.mark.parametrize(("against", "window"), [("target", 30), ("own-history", 7), ("peers", 30)])
def test_a_rate_chart_says_what_the_judge_says_and_its_limit_is_the_least_that_alarms(
    against: Any, window: int
) -> None:
    rng = np.random.default_rng(3)
    daily = [(int(rng.binomial(6, 0.01 if day < 440 else 0.12)), 6) for day in range(500)]
    store, rules = rates_store(daily), CONFIG.pass_rate
    row = store.row(CELL)
    assert row is not None
    days = [FIRST + 499 - 7 * lag for lag in range(20, -1, -1)]
    history = rate_history(store, row, days, window, against, 0.98, rules)
    for place, day in enumerate(days):
        assert history.alarm[place] == bool(_judged(store, row, day, against, window)), day
        tested = int(history.evidence.tested[place])
        least = _least(daily[: day - FIRST + 1], row, day, against, window)
        limit = history.limit[place]
        assert (np.isnan(limit) and least is None) or limit == pytest.approx(1.0 - (least or 0) / tested)
    assert 0 < history.alarm.sum() < len(days)


def _judged(store: CellStore, row: int, day: int, against: str, window: int) -> list[Any]:
    found = judge_rates(store, np.array([row], np.intp), day, np.array([0.98]), CONFIG.pass_rate)
    every = [one for finding in found for one in finding.evidence]
    return [one for one in every if (one.against, one.window_days) == (against, window) and one.rate is not None]


def _least(daily: list[tuple[int, int]], row: int, day: int, against: str, window: int) -> int | None:
    """By the judge alone: the least failures in the window that alarm, with the same items tested and the same past."""
    before, inside = daily[:-window], daily[-window:]
    items = sum(tested for _, tested in inside)
    for failed in range(1, items + 1):
        share, rest = [], failed
        for _, tested in inside:
            share.append((min(rest, tested), tested))
            rest -= share[-1][0]
        if _judged(rates_store(before + share), row, day, against, window):
            return failed
    return None


# --- from the stored state -----------------------------------------------------------------------------------------


def medium(data: Path) -> EmbeddedMedium:
    return EmbeddedMedium(SqliteLog(data, Config().partitions))


def test_the_counts_are_those_that_the_workers_stored_with_corrections(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    late = body(
        "inspections", "i-29-120110", START + 29 * DAY + 13 * HOUR, region="120110", tested=20, failed=2, revision=1
    )
    succeeds("publish", "inspections", write_ndjson(tmp_path / "c.ndjson", [late]), "--data", data)
    succeeds("run", "--until-end", "--data", data)
    wanted = [("pass", "F0101", "120110"), ("pass", "F0101", "120101"), ("injury", "F0101", "120101")]
    config = Config()
    with closing(medium(data)) as opened:
        found = read_counts(opened, config, config.load_catalogue(), wanted)
    assert set(found) == set(wanted[:2])
    held = found["pass", "F0101", "120110"]
    daily = held.store.daily(np.array([held.row], np.intp), held.day, 31)[0]
    assert daily[:, 0].tolist()[-10:-1] == [10] * 9
    assert (daily[-1].tolist(), int(daily[:, 1].sum())) == ([2, 20], 600), "the correction replaced the report"


def test_the_desk_draws_the_chart_of_an_alert_and_says_why_where_there_is_none(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    succeeds("run", "--until-end", "--data", data)
    config = Config()
    desk = EvidenceDesk(lambda: closing(medium(data)), config, config.load_catalogue())
    with closing(medium(data)) as opened:
        alerts = latest_revisions(read_alerts(opened))
    rate = next(one for one in alerts if one.kind == "pass-rate" and one.region == "120110")
    found = desk.behind(rate, alerts)
    assert found.chart is not None
    assert (found.why, found.chart.unit) == (None, "rate")
    chief = min((one for one in rate.evidence if one.rate is not None), key=lambda one: one.p_value or 1.0)
    assert found.chart.window_days == chief.window_days
    assert any(found.chart.alarm)
    assert len(found.said) >= 1
    assert {one.role for one in found.said} <= {"primary", "part", "explained"}
    source = msgspec.structs.replace(rate, source="lab-1")
    assert desk.behind(source, []).why == "no-series"
    elsewhere = msgspec.structs.replace(rate, product="A0101")
    assert desk.behind(elsewhere, []).why == "no-counts"
    other = EvidenceDesk(lambda: closing(medium(data)), settings_with(tick_seconds=60), config.load_catalogue())
    assert other.behind(rate, []).why == "unreadable", "a state that another configuration built is not guessed at"


def test_an_excerpt_keeps_the_cell_and_what_lies_above_it() -> None:
    store = rates_store([(1, 6)] * 200)
    part = store.excerpt([CELL, CELL, ("X", "Y")], FIRST + 150)
    assert part.cells == [CELL, ("F0101", "120000")]
    rows = np.array([0, 1], np.intp)
    whole = np.array([store.row(cell) for cell in part.cells], np.intp)
    day = FIRST + 199
    assert np.array_equal(part.daily(rows, day, 40), store.daily(whole, day, 40))
    assert part.wider(rows).tolist() == [1, -1]
    assert part.first_day(part.branch(0)) == FIRST
    assert part.nbytes < store.nbytes


def test_a_broken_log_is_told_and_not_raised(tmp_path: Path) -> None:
    def broken() -> Any:
        raise TocsinError("gone")

    config = Config()
    desk = EvidenceDesk(broken, config, config.load_catalogue())
    assert desk.behind(surge_alert(), []).why == "unreadable"


def test_the_state_is_read_once_for_many_alerts_and_again_when_a_cell_is_new_or_time_has_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fill(tmp_path / "data", tmp_path)
    succeeds("run", "--until-end", "--data", data)
    config, reads, now = Config(), [], [0.0]

    def counted(*given: Any) -> Any:
        reads.append(list(given[3]))
        return read_counts(*given)

    monkeypatch.setattr(evidence, "read_counts", counted)
    desk = EvidenceDesk(lambda: closing(medium(data)), config, config.load_catalogue(), clock=lambda: now[0])
    first, other = (msgspec.structs.replace(surge_alert(), kind="pass-rate", region=at) for at in ("120101", "120110"))
    assert desk.behind(first, [first, other]).chart is not None
    assert desk.behind(other, [first, other]).chart is not None
    assert len(reads) == 1
    third = msgspec.structs.replace(other, region="120102")
    assert desk.behind(third, []).chart is not None
    assert desk.behind(first, []).chart is not None, "what was asked for before is kept"
    assert len(reads) == 2
    now[0] += 21.0
    assert desk.behind(first, []).chart is not None
    assert [one[2] for one in reads[-1]] == ["120101", "120102", "120110"]


def paired_store(daily: list[tuple[int, int]], product: str) -> tuple[CellStore, int]:
    store = CellStore(2)
    row = store.rows_for((product,), ("120000", "120101"))[-1]
    days = np.arange(FIRST, FIRST + len(daily), dtype=np.int32)
    store.fold(np.full(len(daily), row), days, np.array(daily, np.int64))
    store.note_day(store.branch(row), FIRST)
    return store, row


def test_a_satisfaction_chart_alarms_where_the_judge_does() -> None:
    product = next(code for code in CATALOGUE.products.codes if CATALOGUE.targets_for(code).satisfaction)
    target = CATALOGUE.targets_for(product).satisfaction
    assert target is not None
    daily = [(int((target + 4 if day < 200 else target - 12) * 100 * 5), 5) for day in range(300)]
    store, row = paired_store(daily, product)
    alert = msgspec.structs.replace(surge_alert(), kind="satisfaction", product=product)
    chart = draw(alert, "satisfaction", Counts(store, row, FIRST + 299), CONFIG, CATALOGUE)
    assert (chart.unit, chart.window_days, set(chart.expected)) == ("index", 90, {target})
    for place, day in enumerate(range(FIRST + 299 - 7 * (len(chart.days) - 1), FIRST + 300, 7)):
        found = judge_satisfaction(store, np.array([row], np.intp), day, np.array([target]), CONFIG.satisfaction)
        assert chart.alarm[place] == bool(found), chart.days[place]
        if found:
            assert chart.value[place] == pytest.approx(found[0].evidence[0].rate)
            assert chart.lower[place] == pytest.approx(found[0].evidence[0].lower)
    assert 0 < sum(chart.alarm) < len(chart.days)


def test_a_loss_chart_has_the_share_of_each_four_weeks_and_what_was_usual() -> None:
    daily = [(200 if day < 250 else 500, 10_000) for day in range(300)]
    store, row = paired_store(daily, "F")
    usual = Evidence(detector="d", against="run-length", window_days=28, observed=1.0, rate=0.04, reference=0.02)
    alert = msgspec.structs.replace(surge_alert(), kind="quality-loss", product="F", evidence=[usual])
    chart = draw(alert, "loss", Counts(store, row, FIRST + 299), CONFIG, CATALOGUE)
    assert (chart.unit, chart.window_days, set(chart.expected)) == ("loss", 28, {0.02})
    assert (chart.value[-1], chart.value[20]) == (0.05, 0.02)
    assert chart.alarm == []


def test_accidents_are_counted_and_not_judged() -> None:
    store = counts_store([0, 2, 0, 1])
    row = store.row(CELL)
    assert row is not None
    chart = draw(surge_alert(), "accident", Counts(store, row, FIRST + 24), CONFIG, CATALOGUE)
    assert chart.value == [0.0, 2.0, 0.0, 1.0]
    assert (chart.running, set(chart.expected), chart.alarm) == (True, {None}, [False] * 4)
