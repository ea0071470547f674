"""Labs: what is compared on Mondays, which labs have drifted, and cells judged net of their labs."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from builders import CHINA, cluster_run, plain_run, settings_with
from hypothesis import given, settings
from hypothesis import strategies as st
from watch_world import CELLS, DAY_0, LABS, alerts_of, daily, inspections, texts, world_of

from schemas.alerts import Signal
from streams import labs as labs_module
from streams import radix
from streams.config import Config, LabRules
from streams.labs import LabSheet, week_of
from streams.tally import LabCount
from streams.watch_labs import judge_labs

RULES = LabRules(window_weeks=4, history_weeks=20)
Row = tuple[str, int, str, int, int, int]
"""Group, leaf, lab, week, tested, failed."""
ABOUT: dict[str, Any] = {"tick": 1, "as_of": "2024-01-01T00:00:00", "role": "primary", "scope": "cell"}
MONDAY = DAY_0 + 7 * 24


@given(st.integers(-800_000, 800_000))
def test_weeks_are_those_of_the_calendar(day: int) -> None:
    epoch = date(1970, 1, 1)
    moment = epoch + timedelta(days=day % 2_000_000 - 700_000 if abs(day) > 700_000 else day)
    number = (moment - epoch).days
    assert week_of(number) == week_of(number - moment.weekday()) == week_of(number + 6 - moment.weekday())
    assert week_of(number + 7) == week_of(number) + 1


def samples(seed: int = 1, severe: str = "", times: float = 1.0, groups: int = 3, weeks: int = 24) -> list[Row]:
    """Every lab tests two leaves of every group weekly; one lab finds so many times more in the last four weeks."""
    rng, rows = np.random.default_rng(seed), list[Row]()
    for week in range(weeks):
        for group in range(groups):
            for leaf in (2 * group, 2 * group + 1):
                for lab in LABS:
                    p = 0.05 * (times if lab == severe and week >= weeks - 4 else 1.0)
                    rows.append((f"G{group}", leaf, lab, week, 60, int(rng.binomial(60, min(p, 1.0)))))
    return rows


class Sheet:
    """A sheet that numbers labs and leaves as they come, like the state of a partition."""

    def __init__(self) -> None:
        self.sheet = LabSheet()
        self.names: list[str] = []
        self.leaves: list[int] = []
        self.groups: dict[int, str] = {}

    def fold(self, rows: list[Row], sign: int = 1) -> None:
        for name in (row[2] for row in rows):
            if name not in self.names:
                self.names.append(name)
        for leaf in sorted({row[1] for row in rows}):
            if leaf not in self.leaves:
                self.leaves.append(leaf)
        self.groups |= {self.leaves.index(row[1]): row[0] for row in rows}
        self.sheet.fold(
            self.groups.__getitem__,
            np.array([self.leaves.index(row[1]) for row in rows], np.int32),
            np.array([self.names.index(row[2]) for row in rows], np.int32),
            np.array([DAY_0 + 7 * row[3] + row[1] % 5 for row in rows], np.int32),
            np.array([[sign * row[5], sign * row[4]] for row in rows], np.int64),
        )

    def compare(self, monday: int = MONDAY, rules: LabRules = RULES) -> list[LabCount]:
        return self.sheet.compare(monday, rules, self.names)

    def effects(self) -> dict[tuple[str, int, str], float]:
        return {
            (group, self.leaves[leaf], self.names[lab]): value
            for group, leaves, labs, values in self.sheet.pack()
            for leaf, lab, value in zip(leaves, labs, values, strict=True)
        }


def sheet_of(rows: list[Row]) -> Sheet:
    made = Sheet()
    for week in sorted({row[3] for row in rows}):
        made.fold([row for row in rows if row[3] == week])
    return made


def found(rows: list[Row], rules: LabRules = RULES) -> list[Signal]:
    return judge_labs(sheet_of(rows).compare(rules=rules), rules, ABOUT)


# --- drift ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "sign"), [(2.6, 1), (0.15, -1)])
def test_a_lab_that_has_become_severe_or_lenient_is_signalled_and_no_other(times: float, sign: int) -> None:
    (signal,) = found(samples(severe="lab-2", times=times))
    assert (signal.kind, signal.source, signal.product, signal.region) == ("lab-drift", "lab-2", "*", "*")
    assert signal.excess * sign > 0
    assert signal.p_value <= RULES.alpha
    assert [evidence.against for evidence in signal.evidence] == ["own-history", "peers", "peers"]
    for evidence in signal.evidence:
        assert evidence.tested == 60 * 6 * 4
        assert evidence.expected is not None
        assert (evidence.observed - evidence.expected) * sign > 0


def test_labs_that_all_change_alike_have_not_drifted() -> None:
    rows = samples()
    worse = [(*row[:5], min(3 * row[5], 60) if row[3] >= 20 else row[5]) for row in rows]
    assert found(worse) == []


def test_a_lab_that_was_always_severe_has_not_drifted() -> None:
    assert found([(*row[:5], min(3 * row[5], 60) if row[2] == "lab-1" else row[5]) for row in samples()]) == []


def test_an_effect_too_small_to_matter_or_on_too_few_failures_is_no_signal() -> None:
    rows = samples(severe="lab-2", times=2.6)
    assert found(rows, LabRules(window_weeks=4, history_weeks=20, ratio=5.0)) == []
    assert found(rows, LabRules(window_weeks=4, history_weeks=20, min_expected=1e6)) == []


def test_a_lone_lab_has_no_peers_and_a_group_without_recent_tests_is_not_compared() -> None:
    alone = [row for row in samples(severe="lab-2", times=4.0) if row[2] == "lab-2"]
    assert sheet_of(alone).compare() == []
    assert judge_labs([], RULES, ABOUT) == []
    stopped = [row for row in samples() if row[0] != "G1" or row[3] < 20]
    assert {one.group for one in sheet_of(stopped).compare()} == {"G0", "G2"}
    assert sheet_of([row for row in samples() if row[3] < 20]).compare() == []


def test_a_group_without_a_past_has_effects_and_no_drift_and_changes_no_other_group() -> None:
    rows = samples(severe="lab-2", times=2.6)
    young = [row for row in rows if row[0] != "G1" or row[3] >= 20]
    made, whole = sheet_of(young), sheet_of(rows)
    counts, effects = whole.compare(), whole.effects()
    assert made.compare() == [one for one in counts if one.group != "G1"]
    mine = made.effects()
    assert {key: value for key, value in mine.items() if key[0] != "G1"} == (
        {key: value for key, value in effects.items() if key[0] != "G1"}
    )
    assert any(key[0] == "G1" for key in mine)
    only_young = sheet_of([row for row in rows if row[3] >= 20])
    assert only_young.compare() == []
    assert {key[0] for key in only_young.effects()} == {"G0", "G1", "G2"}


def test_effects_that_nobody_asks_for_are_not_worked_out_and_drift_is_the_same() -> None:
    rows = samples(severe="lab-2", times=2.6)
    made = sheet_of(rows)
    expected = made.compare()
    assert made.effects()
    assert made.compare(rules=LabRules(window_weeks=4, history_weeks=20, adjust=False)) == expected
    assert made.sheet.pack() == []
    assert severity(made.sheet, [0, 1], MONDAY - 28, MONDAY) == 1.0


@pytest.mark.parametrize("few", [0, 3, 1_000])
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9) | st.integers(0, 300)), min_size=1, max_size=12),
        max_size=6,
    )
)
def test_the_newest_week_of_each_group_is_known_however_many_come_together(
    few: int, batches: list[list[tuple[int, int]]]
) -> None:
    with patch.object(labs_module, "_FEW_WEEKS", few):
        made, newest = Sheet(), dict[str, int]()
        for batch in batches:
            made.fold([(f"G{group}", group, "lab", week, 5, 1) for group, week in batch])
            for group, week in batch:
                newest[f"G{group}"] = max(newest.get(f"G{group}", 0), week_of(DAY_0 + 7 * week + group % 5))
        assert made.sheet.stored()[2] == newest


def test_whether_there_will_be_something_to_compare_is_known_beforehand() -> None:
    made = sheet_of([row for row in samples() if row[3] < 20])
    for monday in range(DAY_0 + 7 * 20, DAY_0 + 7 * 30, 7):
        assert made.sheet.watched(monday, RULES) == bool(made.compare(monday))
    assert not LabSheet().watched(MONDAY, RULES)
    assert LabSheet().compare(MONDAY, RULES, []) == []


def test_results_that_were_taken_back_leave_no_trace() -> None:
    rows = samples()
    extra = [("G1", 2, "lab-4", 22, 900, 900), ("G1", 3, "lab-4", 23, 70, 70)]
    made = sheet_of(rows)
    expected = made.compare(), made.effects()
    made.fold(extra)
    assert made.compare() != expected[0]
    made.fold(extra, sign=-1)
    assert (made.compare(), made.effects()) == expected


def test_more_taken_back_than_was_tested_is_defined() -> None:
    made = sheet_of(samples())
    made.fold([("G1", 2, "lab-4", week, 500, 9) for week in (3, 22)], sign=-1)
    made.fold([("G1", 3, "lab-4", week, 10, -400) for week in (3, 22)])
    for one in made.compare():
        assert 0 <= one.failed <= one.tested
    judge_labs(made.compare(), RULES, ABOUT)


# --- partitions, order, restarts -----------------------------------------------------------------------------------


def test_the_order_in_which_another_branch_has_met_the_labs_does_not_show() -> None:
    rows = samples(severe="lab-2", times=2.6)
    plain, other = sheet_of(rows), Sheet()
    other.names = list(LABS[::-1])
    for week in range(24):
        other.fold([row for row in rows if row[3] == week])
    assert other.compare() == plain.compare()
    assert other.effects() == plain.effects()


@given(st.integers(1, 4), st.randoms(), st.booleans())
@settings(max_examples=5)
def test_signals_are_the_same_to_the_byte_for_any_spread_of_groups_and_any_order_of_labs(
    partitions: int, rng: random.Random, severe: bool
) -> None:
    rows = samples(severe="lab-2", times=2.6 if severe else 1.0, groups=4)
    whole = sheet_of(rows)
    expected = whole.compare()
    spread = {f"G{group}": rng.randrange(partitions) for group in range(4)}
    counts, effects = list[LabCount](), dict[Any, float]()
    for partition in range(partitions):
        mine = [row for row in rows if spread[row[0]] == partition]
        if mine:
            # Another branch of the partition has met the labs in another order.
            made = Sheet()
            made.names = rng.sample(LABS, len(LABS)) if rng.random() < 0.5 else []
            for week in sorted({row[3] for row in mine}):
                made.fold(rng.sample(some := [row for row in mine if row[3] == week], len(some)))
            counts += made.compare()
            effects |= made.effects()
    rng.shuffle(counts)
    assert sorted(counts, key=lambda one: (one.group, one.lab)) == expected
    assert effects == whole.effects()
    assert texts(judge_labs(counts, RULES, ABOUT)) == texts(judge_labs(expected, RULES, ABOUT))


@pytest.mark.parametrize("part", [1, 60, 500])
def test_how_many_groups_are_compared_together_does_not_show(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in samples(severe="lab-2", times=2.6, groups=7) if row[0] != "G1" or row[3] >= 20]
    whole = sheet_of(rows)
    expected = whole.compare()
    monkeypatch.setattr(labs_module, "PART_ROWS", part)
    made = sheet_of(rows)
    tables = list[int]()
    plain = labs_module.lab_rows
    monkeypatch.setattr(labs_module, "lab_rows", lambda *columns, **more: tables.append(1) or plain(*columns, **more))
    assert made.compare() == expected
    assert made.effects() == whole.effects()
    # A group has 24 rows; G1, which has no past, has 12, and those beside it in its part have a table of their own.
    assert len(tables) == {1: 7, 60: 3 + 1, 500: 1 + 1}[part]


def severity(sheet: LabSheet, leaves: Iterable[int], first_day: int, last_day: int) -> float:
    """The severity of the labs in one set of cells."""
    return float(sheet.severities([list(leaves)], first_day, last_day)[0])


def test_effects_come_back_with_a_restart_and_what_was_folded_with_the_ledger() -> None:
    rows = samples(severe="lab-2", times=2.6)
    made = sheet_of(rows)
    made.compare()
    fresh = sheet_of(rows)
    assert severity(fresh.sheet, [0, 1], MONDAY - 28, MONDAY) == 1.0
    fresh.sheet.unpack(made.sheet.pack())
    assert fresh.sheet.pack() == made.sheet.pack()
    for leaves in ([0], [2, 3], range(6)):
        before = severity(made.sheet, leaves, MONDAY - 28, MONDAY)
        assert severity(fresh.sheet, leaves, MONDAY - 28, MONDAY) == before


@pytest.mark.parametrize("few", [0, 1_000])
def test_effects_are_packed_by_group_leaf_and_lab(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radix, "_FEW", few)
    rows = samples(severe="lab-2", times=2.6)
    np.random.default_rng(2).shuffle(rows)
    made = Sheet()
    made.fold(rows)
    made.compare()
    before = made.sheet.pack()
    made.sheet.unpack([("G0", [7, 6], [3, -1], [0.5, 0.2])])
    packed = made.sheet.pack()
    assert [name for name, *_ in packed] == ["G0", "G1", "G2"]
    assert packed[1:] == before[1:]
    for _, leaves, labs, effects in packed:
        assert len(effects) >= 2 * len(LABS)
        assert list(zip(leaves, labs, strict=True)) == sorted(set(zip(leaves, labs, strict=True)))
    of_pair = dict(zip(zip(*packed[0][1:3], strict=True), packed[0][3], strict=True))
    assert of_pair.pop((7, 3)) == 0.5
    assert of_pair.pop((6, -1)) == 0.2
    assert of_pair == dict(zip(zip(*before[0][1:3], strict=True), before[0][3], strict=True))


def test_severity_is_the_mean_over_the_items_tested() -> None:
    rows = [row for row in samples() if row[2] != "lab-5"]
    rows += [(*row[:2], "lab-5", row[3], 60, min(4 * row[5] + 2, 60)) for row in samples() if row[2] == "lab-0"]
    made = sheet_of(rows)
    made.compare()
    effects, sheet = made.effects(), made.sheet
    last = MONDAY - 1
    by_hand = np.mean([np.exp(effects.get(("G0", 0, lab), 0.0)) for lab in LABS])
    assert severity(sheet, [0], last - 27, last) == pytest.approx(by_hand)
    assert np.exp(effects["G0", 0, "lab-5"]) > 2
    assert severity(sheet, [], last - 27, last) == severity(sheet, [99], last - 27, last) == 1.0
    assert severity(sheet, [0], last + 700, last + 800) == 1.0


def test_severities_of_many_cells_are_those_of_each() -> None:
    made = sheet_of(samples(severe="lab-2", times=2.6))
    made.compare()
    cells = [[0], [], [5, 2], [99], [0, 1, 2, 3, 4, 5], [2, 5], [0]]
    for first in (MONDAY - 28, MONDAY - 150, MONDAY + 70):
        each = [severity(made.sheet, leaves, first, MONDAY - 1) for leaves in cells]
        assert made.sheet.severities(cells, first, MONDAY - 1).tolist() == each
        assert each[2] == each[5]
    assert made.sheet.severities([], MONDAY - 28, MONDAY).tolist() == []


# --- the whole pipeline --------------------------------------------------------------------------------------------

CONFIG = daily(labs={"window_weeks": 4, "history_weeks": 16})
WEEKLY = daily(tick_seconds=604_800, labs={"window_weeks": 4, "history_weeks": 16})
WEEKS = 20


@pytest.mark.parametrize(("config", "times", "way"), [(WEEKLY, 3.0, "severe"), (CONFIG, 0.1, "lenient")])
def test_through_the_pipeline_a_lab_that_drifts_opens_one_alert_on_a_monday(
    config: Config, times: float, way: str
) -> None:
    def rate(lab: str, cell: tuple[str, str], week: int) -> float:
        return 0.05 * (times if lab == "lab-2" and week >= WEEKS - 4 else 1.0)

    alerts = alerts_of(inspections(WEEKS + 1, rate), config, "lab-drift")
    (opened,) = [alert for alert in alerts if alert.status == "opened"]
    assert {alert.source for alert in alerts} == {"lab-2"}
    assert opened.onset.astimezone(CHINA).weekday() == 0
    (evidence, *_) = opened.evidence
    assert evidence.expected is not None
    assert (evidence.observed > evidence.expected) == (way == "severe")
    assert "lab-2" in opened.headline.en
    assert "lab-2" in opened.headline.zh


@pytest.mark.parametrize("times", [3.0, 0.1])
def test_through_the_pipeline_labs_that_all_change_alike_open_no_lab_alert(times: float) -> None:
    def rate(lab: str, cell: tuple[str, str], week: int) -> float:
        return 0.05 * (times if week >= WEEKS - 4 else 1.0)

    assert alerts_of(inspections(WEEKS + 1, rate), WEEKLY, "lab-drift") == []


SEVERE = ("lab-4", "lab-5")
EXCUSED, BAD = ("F0101", "120104"), ("F0101", "120116")


def mixed(lab: str, cell: tuple[str, str], week: int) -> float:
    return 0.12 if lab in SEVERE else 0.03


def pass_rate(adjust: bool, excused: float, bad: float) -> list[Signal]:
    """Signals of the last weeks, where two labs are severe: they alone test one cell, the fair alone test another."""
    rows = inspections(26, mixed, cells=CELLS[:4])
    rows += inspections(26, lambda *_: excused, cells=[EXCUSED], labs=SEVERE, seed=2)
    rows += inspections(26, lambda *_: bad, cells=[BAD], labs=LABS[:4], tested=25, seed=4)
    config = settings_with(
        tick_seconds=604_800,
        labs={"window_weeks": 8, "adjust": adjust},
        pass_rate={"windows_days": [90], "history_days": 90, "alpha": 1e-5},
    )
    outcome, _ = plain_run(world_of(rows, config))
    made = [msgspec.json.decode(text, type=Signal) for key, text in outcome.signals.items() if key[1] == "pass-rate"]
    last = max(signal.tick for signal in made)
    return [signal for signal in made if signal.tick > last - 4]


def cells_in(signals: list[Signal]) -> set[tuple[str, str]]:
    return {(signal.product, signal.region) for signal in signals if len(signal.product) == 5}


def test_a_cell_that_only_its_labs_make_look_bad_is_let_off_and_a_bad_one_is_not() -> None:
    assert cells_in(pass_rate(adjust=False, excused=0.12, bad=0.12)) == {EXCUSED, BAD}
    assert cells_in(pass_rate(adjust=True, excused=0.12, bad=0.12)) == {BAD}


def test_the_factor_of_the_labs_stands_in_the_evidence_of_a_cell_that_is_bad_all_the_same() -> None:
    signals = pass_rate(adjust=True, excused=0.6, bad=0.03)
    assert EXCUSED in cells_in(signals)
    evidence = [one for signal in signals if signal.region == EXCUSED[1] for one in signal.evidence]
    factors = {one.against: one.lab_factor for one in evidence}
    assert factors["peers"] is not None
    # The severe labs find four times the failures of the others, and twice those of all.
    assert 1.4 < factors["peers"] < 4.5
    peers = next(one for one in evidence if one.against == "peers")
    alone = next(
        one
        for signal in pass_rate(adjust=False, excused=0.6, bad=0.03)
        if (signal.tick, signal.product, signal.region) == (signals[0].tick, *EXCUSED)
        for one in signal.evidence
        if one.against == "peers"
    )
    assert alone.lab_factor is None
    assert alone.expected is not None
    assert peers.expected is not None
    assert peers.expected > 1.3 * alone.expected


def test_four_partitions_that_crash_come_to_the_same_alerts_of_labs() -> None:
    def rate(lab: str, cell: tuple[str, str], week: int) -> float:
        return 0.05 * (3.0 if lab == "lab-2" and week >= 12 else 1.0)

    config = daily(tick_seconds=604_800, labs={"window_weeks": 4, "history_weeks": 8})
    world = world_of(inspections(17, rate, tested=40), config)
    expected, alerts = plain_run(world)
    assert any(alert.kind == "lab-drift" for alert in alerts)
    outcome = cluster_run(world, 4, 4, batch=300, crashes=0.02).outcome()
    assert outcome.alerts == expected.alerts
    assert outcome.signals == expected.signals
