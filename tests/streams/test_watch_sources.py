"""Sources: who is missed when silent, who is not, whose volume or delay has changed, and what is forgotten."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from builders import CHINA, DAY, START
from hypothesis import given, settings
from hypothesis import strategies as st
from watch_world import DAY_0, Row, alerts_of, complaints, daily, texts

from schemas.alerts import Signal
from streams.config import SourceRules
from streams.tally import DELAY_EDGES, SourceCount
from streams.watch_sources import SourceWatch

RULES = SourceRules(history_days=112, min_history_days=56, forget_days=40)
CLASSES = len(DELAY_EDGES) + 1
Volume = Callable[[str, int], int]


def about(day: int) -> dict[str, Any]:
    return {"tick": day, "as_of": "2024-01-01T00:00:00", "role": "primary", "scope": "cell"}


def told(volume: Volume, names: list[str], day: int, kind: int = 1, late: int = 0) -> list[SourceCount]:
    """What a day brings: every report on the day itself, or so many classes late."""
    counts = [(name, volume(name, day)) for name in sorted(names)]
    return [
        SourceCount(kind, name, count, tuple(count * (at == late) for at in range(CLASSES)))
        for name, count in counts
        if count
    ]


def run(watch: SourceWatch, volume: Volume, names: list[str], days: range) -> dict[int, list[Signal]]:
    """Signals by day, from a first day on that is a Monday."""
    out: dict[int, list[Signal]] = {}
    for day in days:
        watch.add(DAY_0 + day, told(volume, names, day))
        out[day] = watch.judge(DAY_0 + day, about(day))
    return {day: signals for day, signals in out.items() if signals}


def busy(name: str, day: int) -> int:
    """Three to six reports on every day of the week, fewer at its end."""
    return (2 if day % 7 >= 5 else 4) + random.Random(f"{name}{day}").randrange(3)


NAMES = [f"s{n}" for n in range(8)]


def test_steady_sources_bring_no_signals() -> None:
    assert run(SourceWatch(RULES), busy, NAMES, range(150)) == {}


def test_a_source_that_stops_is_signalled_daily_until_it_comes_back_and_no_longer() -> None:
    def volume(name: str, day: int) -> int:
        return 0 if name == "s3" and 100 <= day < 115 else busy(name, day)

    found = run(SourceWatch(RULES), volume, NAMES, range(117))
    silent = [
        day for day, signals in found.items() if any(e.detector == "silence" for s in signals for e in s.evidence)
    ]
    assert silent == list(range(silent[0], 115))
    assert 101 <= silent[0] <= 106
    (signal,) = found[silent[0]]
    assert (signal.kind, signal.source, signal.product, signal.region) == ("silent-source", "s3", "*", "*")
    (evidence,) = signal.evidence
    assert (evidence.observed, evidence.window_days) == (0.0, silent[0] - 99)
    assert evidence.expected is not None
    assert evidence.expected > 8
    assert signal.p_value <= RULES.alpha


def test_a_source_that_reports_once_a_month_is_not_missed_between_its_batches() -> None:
    def volume(name: str, day: int) -> int:
        return (60 if day % 30 == 4 else 0) if name == "monthly" else busy(name, day)

    assert run(SourceWatch(RULES), volume, [*NAMES, "monthly"], range(200)) == {}


def test_a_holiday_that_all_sources_keep_rings_nothing_and_one_that_goes_on_alone_does() -> None:
    def volume(name: str, day: int) -> int:
        closed = 100 <= day < (112 if name == "s5" else 107)
        return 0 if closed else busy(name, day)

    found = run(SourceWatch(RULES), volume, NAMES, range(112))
    assert found
    assert min(found) >= 107
    assert {signal.source for signals in found.values() for signal in signals} == {"s5"}


def test_a_young_source_is_not_judged() -> None:
    def volume(name: str, day: int) -> int:
        return busy(name, day) if name != "s0" or 60 <= day < 60 + RULES.min_history_days - 20 else 0

    assert run(SourceWatch(RULES), volume, NAMES, range(60 + RULES.min_history_days - 2)) == {}


def test_what_is_silent_for_long_is_forgotten_and_begins_anew_when_it_returns() -> None:
    def volume(name: str, day: int) -> int:
        return 0 if name == "s3" and 100 <= day < 160 else busy(name, day)

    watch = SourceWatch(RULES)
    found = run(watch, volume, NAMES, range(160))
    assert max(found) == 99 + RULES.forget_days - 1
    assert ("s3" in {name for _, name in watch._row}) is False
    assert len(watch._row) == len(NAMES) - 1
    assert run(watch, volume, NAMES, range(160, 200)) == {}
    assert watch._first[watch._row[1, "s3"]] == DAY_0 + 160


def test_all_are_forgotten_when_nothing_comes_any_more() -> None:
    watch = SourceWatch(RULES)
    run(watch, busy, NAMES, range(70))
    assert watch.watched
    run(watch, lambda name, day: 0, NAMES, range(70, 70 + RULES.forget_days + 1))
    assert not watch.watched
    assert watch._daily.shape[0] == 0
    assert watch.judge(DAY_0 + 500, about(0)) == []
    run(watch, busy, NAMES, range(600, 603))
    assert len(watch._row) == len(NAMES)


@pytest.mark.parametrize(("factor", "sign"), [(0.0, -1), (8.0, 1)])
def test_a_volume_that_drops_or_rises_is_signalled_at_the_end_of_a_week(factor: float, sign: int) -> None:
    def volume(name: str, day: int) -> int:
        # One report a week keeps the dropped source from being silent.
        changed = max(round(busy(name, day) * factor), int(day % 7 == 2))
        return changed if name == "s2" and day >= 119 else busy(name, day)

    found = run(SourceWatch(RULES), volume, NAMES, range(150))
    volumes = {
        day: evidence
        for day, signals in found.items()
        for signal in signals
        for evidence in signal.evidence
        if evidence.detector == "volume-change" and signal.source == "s2"
    }
    assert volumes
    for day, evidence in volumes.items():
        assert day % 7 == 6
        assert evidence.expected is not None
        assert (evidence.observed - evidence.expected) * sign > 0
    assert {signal.source for signals in found.values() for signal in signals} == {"s2"}


def test_reports_that_come_later_than_usual_are_signalled_though_as_many_come() -> None:
    watch, found = SourceWatch(RULES), dict[int, list[Signal]]()
    for day in range(126):
        late = 5 if day >= 112 else 0
        watch.add(DAY_0 + day, told(busy, NAMES[1:], day) + told(busy, ["slow"], day, late=late))
        found[day] = watch.judge(DAY_0 + day, about(day))
    signals = [(day, signal) for day, made in found.items() for signal in made]
    assert {(signal.source, signal.evidence[0].detector) for _, signal in signals} == {("slow", "delay-drift")}
    assert next(day for day, _ in signals) == 118


def test_one_reporter_of_two_kinds_is_one_source_with_the_evidence_of_both() -> None:
    watch, last = SourceWatch(RULES), list[Signal]()
    for day in range(112):
        for kind in (1, 2):
            names = NAMES[1:] if day >= 100 else NAMES
            watch.add(DAY_0 + day, told(busy, names, day, kind=kind))
        last = watch.judge(DAY_0 + day, about(day))
    (signal,) = last
    assert signal.source == "s0"
    assert [evidence.detector for evidence in signal.evidence].count("silence") == 2


# --- bounds --------------------------------------------------------------------------------------------------------


def test_beyond_the_bound_new_sources_are_passed_over_until_old_ones_are_forgotten() -> None:
    rules = SourceRules(history_days=60, forget_days=10, max_sources=3)
    watch = SourceWatch(rules)
    once = tuple(int(at == 0) for at in range(CLASSES))
    watch.add(DAY_0, [SourceCount(1, name, 1, once) for name in "abcde"])
    assert sorted(watch._row) == [(1, "a"), (1, "b"), (1, "c")]
    for day in range(1, 12):
        watch.add(DAY_0 + day, [SourceCount(1, name, 1, once) for name in "cz"])
        watch.judge(DAY_0 + day, about(day))
        assert len(watch._row) <= 3
    assert sorted(watch._row) == [(1, "c"), (1, "z")]


def test_hostile_names_are_told_as_they_are() -> None:
    names = ["~other", "*", "\u202egnp.exe", "\U0001f4a3" * 32, "a|b|c", "a" * 128, "<script>"]

    def volume(name: str, day: int) -> int:
        return 0 if name in names and day >= 100 else busy(name, day)

    many = [f"n{n}" for n in range(30)]
    watch = SourceWatch(RULES)
    found = run(watch, volume, [*many, *names], range(110))
    assert {signal.source for signal in found[109]} == set(names)
    assert [signal.source for signal in found[109]] == sorted(names)
    assert restored(watch, RULES).pack() == watch.pack()


# --- days and restarts ---------------------------------------------------------------------------------------------


def restored(watch: SourceWatch, rules: SourceRules) -> SourceWatch:
    fresh = SourceWatch(rules)
    fresh.unpack(watch.pack())
    return fresh


@given(st.lists(st.tuples(st.integers(0, 45), st.sampled_from("abc"), st.integers(1, 5)), max_size=12), st.data())
def test_every_report_stands_on_its_day_and_in_its_week_whatever_the_gaps_and_restarts(steps: Any, data: Any) -> None:
    rules = SourceRules(history_days=28, forget_days=3650, min_history_days=14)
    watch, day = SourceWatch(rules), DAY_0
    sent: dict[str, dict[int, int]] = {}
    for gap, name, count in steps:
        day += gap
        watch.add(day, [SourceCount(1, name, count, (count,) + (0,) * (CLASSES - 1))])
        sent.setdefault(name, {})[day] = sent.get(name, {}).get(day, 0) + count
        if data.draw(st.booleans()):
            watch = restored(watch, rules)
    for name, by_day in sent.items():
        row = watch._row[1, name]
        days = range(day - rules.history_days, day + 1)
        assert watch._daily[row].tolist() == [by_day.get(one, 0) for one in days]
        weeks = watch._delays.shape[1]
        by_week = [
            sum(n for one, n in by_day.items() if (day + 3) // 7 - (one + 3) // 7 == back) for back in range(weeks)
        ]
        assert watch._delays[row, :, 0].tolist() == by_week[::-1]
        assert watch._first[row] == min(by_day)


@given(st.sets(st.integers(85, 125), max_size=4))
@settings(max_examples=4)
def test_a_snapshot_taken_on_any_day_does_not_show(restarts: set[int]) -> None:
    def volume(name: str, day: int) -> int:
        return 0 if name in ("s1", "s6") and 100 <= day < 118 else busy(name, day)

    plain, watch, found = SourceWatch(RULES), SourceWatch(RULES), dict[int, list[Signal]]()
    run(plain, volume, NAMES, range(85))
    watch.unpack(plain.pack())
    expected = run(plain, volume, NAMES, range(85, 127))
    assert expected
    for day in range(85, 127):
        if day in restarts:
            watch = restored(watch, RULES)
        found |= run(watch, volume, NAMES, range(day, day + 1))
    assert {day: texts(signals) for day, signals in found.items()} == {
        day: texts(signals) for day, signals in expected.items()
    }


def test_one_sources_evidence_is_the_same_whatever_the_order_in_which_sources_came() -> None:
    def volume(name: str, day: int) -> int:
        return 0 if name in ("s1", "s6") and day >= 100 else busy(name, day)

    outcomes = []
    for order in (NAMES, NAMES[::-1]):
        watch, last = SourceWatch(RULES), list[Signal]()
        for day in range(110):
            for name in order if day % 2 else order[3:] + order[:3]:
                watch.add(DAY_0 + day, told(volume, [name], day))
            last = watch.judge(DAY_0 + day, about(day))
        outcomes.append(texts(last))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 2


@pytest.mark.parametrize("history", [28, 29, 60, 182, 730])
def test_any_length_of_history_is_judged_without_a_fault(history: int) -> None:
    rules = SourceRules(history_days=history, min_history_days=14, forget_days=90)
    watch = SourceWatch(rules)
    found = run(watch, lambda name, day: 0 if name == "s1" and day >= 40 else busy(name, day), NAMES[:3], range(58))
    assert {signal.source for signals in found.values() for signal in signals} <= {"s1"}
    assert msgspec.msgpack.decode(watch.pack())


# --- the whole pipeline --------------------------------------------------------------------------------------------

CHANNELS = tuple(f"hotline-{n}" for n in range(5))


def quiet_rows(days: int, quiet: range) -> list[Row]:
    def volume(channel: str, day: int) -> int:
        return 0 if channel == "hotline-3" and day in quiet else 2 + (day + len(channel)) % 2

    return complaints(days, volume, channels=CHANNELS)


def test_through_the_pipeline_a_hotline_that_stops_is_an_alert_that_is_resolved_when_it_comes_back() -> None:
    config = daily(sources={"history_days": 84})
    alerts = alerts_of(quiet_rows(120, range(75, 95)), config, "silent-source")
    assert [(alert.source, alert.status) for alert in alerts] == [("hotline-3", "opened"), ("hotline-3", "resolved")]
    opened, resolved = alerts
    assert START + 78 * DAY <= opened.onset.timestamp() * 1_000 <= START + 84 * DAY
    # The last silent day is told on the day after, and the evidence holds for the days of hysteresis.
    back = (resolved.as_of.timestamp() * 1_000 - START) / DAY
    # On the Sunday after its return the four weeks' volume is still low.
    assert 95 + 8 <= back <= 97 + 8 + 3
    assert resolved.as_of.astimezone(CHINA).hour == 0


def test_through_the_pipeline_ticks_of_a_week_say_nothing_of_sources() -> None:
    config = daily(tick_seconds=604_800, sources={"history_days": 84})
    assert alerts_of(quiet_rows(120, range(75, 110)), config, "silent-source") == []


def test_through_the_pipeline_copies_of_old_reports_do_not_hide_a_silence() -> None:
    rows = quiet_rows(95, range(75, 95))
    old = [row for row in rows if row[2]["channel"] == "hotline-3"][-40:]
    copies = [(topic, START + (76 + n // 3) * DAY, event) for n, (topic, _, event) in enumerate(old)]
    config = daily(sources={"history_days": 84})
    expected = alerts_of(rows, config, "silent-source")
    assert [alert.source for alert in expected] == ["hotline-3"]
    assert [alert.id for alert in alerts_of([*rows, *copies], config, "silent-source")] == [expected[0].id]
