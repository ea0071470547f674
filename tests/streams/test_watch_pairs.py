"""Pairs of product and kind of injury: what is news, what is not, and how much room strangers get."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, timedelta
from typing import Any

import msgspec
import numpy as np
from builders import CHINA, DAY, HOUR, START, body
from hypothesis import given, settings
from hypothesis import strategies as st
from watch_world import DAY_0, WEEK, Row, alerts_of, daily, texts

from schemas.alerts import Signal
from streams.config import HazardRules
from streams.tally import PairCount
from streams.watch_pairs import PairWatch

PRODUCTS = tuple(f"P{n}" for n in range(12))
HAZARDS = tuple(f"h{n}" for n in range(8))
RATES = np.outer(np.linspace(0.3, 2.0, 12), np.linspace(0.2, 1.6, 8)) * np.random.default_rng(5).gamma(
    2.0, 0.5, (12, 8)
)
RULES = HazardRules(window_weeks=4, min_total=400, alpha=1e-4)


def about(day: int) -> dict[str, Any]:
    moment = date(2024, 1, 1) + timedelta(days=day)
    return {"tick": day, "as_of": f"{moment}T00:00:00", "role": "primary", "scope": "cell"}


def weekly(seed: int, week: int, new: int = 0) -> list[PairCount]:
    """Reports of a week: pairs go together more or less, as pairs do, one pair (P0, h0) very much so from the
    first week on; and ``new`` reports of (P1, h1) on top."""
    rng = np.random.default_rng([seed, week])
    rate = RATES.copy()
    rate[0, 0] *= 20.0
    counts = rng.poisson(rate)
    counts[1, 1] += new
    return [PairCount(PRODUCTS[p], HAZARDS[h], int(counts[p, h])) for p, h in np.argwhere(counts).tolist()]


def sunday(week: int) -> int:
    return DAY_0 + 7 * week + 6


def run(watch: PairWatch, weeks: range, new_from: int = 10**6, new: int = 20) -> list[Signal]:
    out = list[Signal]()
    for week in weeks:
        watch.add(sunday(week) - 3, weekly(1, week, new if week >= new_from else 0))
        out += watch.judge(sunday(week), about(sunday(week)))
    return out


def test_a_new_pair_is_news_and_a_pair_that_has_always_been_frequent_is_none() -> None:
    signals = run(PairWatch(RULES), range(30), new_from=27)
    assert {(signal.product, signal.hazard) for signal in signals} == {("P1", "h1")}
    first = signals[0]
    assert first.tick == sunday(27)
    assert (first.kind, first.region, first.source) == ("new-hazard", "*", "")
    past, independence = first.evidence
    assert (past.against, independence.against) == ("own-history", "independence")
    assert past.p_value is not None
    assert past.p_value <= RULES.alpha
    assert independence.lower is not None
    assert independence.lower >= RULES.eb05
    window = (pair for week in range(24, 28) for pair in weekly(1, week, 20 * (week == 27)))
    assert past.observed == sum(pair.reports for pair in window if (pair.product, pair.hazard) == ("P1", "h1"))


def test_nothing_is_said_before_enough_reports_lie_in_the_past() -> None:
    weeks = 0
    total, first = 0, 2
    while total < RULES.min_total:
        total += sum(pair.reports for pair in weekly(1, weeks, 50 * (weeks >= first)))
        weeks += 1
    # In the last of these weeks all but the window's lie in the past, and a week's less than are needed.
    watch = PairWatch(RULES)
    assert run(watch, range(weeks + RULES.window_weeks - 1), new_from=first, new=50) == []
    assert watch._theta is None
    run(watch, range(weeks + RULES.window_weeks - 1, weeks + RULES.window_weeks), new_from=first, new=50)
    assert watch._theta is not None


def test_with_margins_but_no_table_to_fit_nothing_is_said() -> None:
    # Under fifty pairs no mixture can be fitted.
    watch = PairWatch(RULES)
    for week in range(30):
        watch.add(sunday(week), [PairCount(p, "h", 100) for p in "ab"])
        assert watch.judge(sunday(week), about(sunday(week))) == []


def test_reports_that_are_taken_back_are_no_news_any_more() -> None:
    watch = PairWatch(RULES)
    run(watch, range(27))
    watch.add(sunday(27), [PairCount("P1", "h1", 12)])
    watch.add(sunday(27), [PairCount("P1", "h1", -12)])
    assert watch.judge(sunday(27), about(0)) == []
    quiet = PairWatch(RULES)
    run(quiet, range(27))
    quiet.judge(sunday(27), about(0))
    assert watch.pack() == quiet.pack()


def test_more_taken_back_than_the_window_holds_is_defined_and_silent() -> None:
    watch = PairWatch(RULES)
    run(watch, range(20))
    back = Counter({(pair.product, pair.hazard): pair.reports for week in range(20) for pair in weekly(1, week)})
    watch.add(sunday(20), [PairCount(*key, -count * 9) for key, count in back.items()] + [PairCount("P1", "h1", 30)])
    for week in range(20, 32):
        for signal in watch.judge(sunday(week), about(week)):
            assert (signal.product, signal.hazard) == ("P1", "h1")
        watch.add(sunday(week + 1), [PairCount("P1", "h1", 1)])


def test_the_weeks_are_those_of_the_calendar_however_seldom_it_is_judged() -> None:
    often, seldom, jumps = PairWatch(RULES), PairWatch(RULES), random.Random(3)
    for week in range(30):
        if week in (7, 8, 9, 15):
            continue  # weeks without a report
        for watch in (often, seldom):
            watch.add(sunday(week) - 6, weekly(1, week))
        for day in range(sunday(week), sunday(week) + 6):
            often.judge(day, about(day))
        if jumps.random() < 0.5:
            seldom.judge(sunday(week), about(week))
    for watch in (often, seldom):
        watch.judge(sunday(30), about(0))
    held = [msgspec.msgpack.decode(watch.pack()) for watch in (often, seldom)]
    # Week, past and weeks are alike; what was fitted is fitted when it is asked for.
    assert held[0][:3] == held[1][:3]
    assert held[0][0] == (sunday(30) + 3) // 7
    assert len(held[0][2]) == RULES.window_weeks


def test_a_running_week_is_not_judged_before_it_ends_and_an_ended_one_once() -> None:
    watch = PairWatch(RULES)
    run(watch, range(27))
    watch.add(sunday(27) - 6, weekly(1, 27, 40))
    for day in range(sunday(27) - 6, sunday(27)):
        assert watch.judge(day, about(day)) == []
    assert len(watch.judge(sunday(27), about(0))) == 1
    watch.add(sunday(27) + 1, [PairCount("P2", "h2", 1)])
    assert watch.judge(sunday(27) + 1, about(0)) == []


@given(st.sets(st.integers(24, 33)), st.booleans())
@settings(max_examples=4)
def test_a_snapshot_taken_in_any_week_does_not_show(restarts: set[int], midweek: bool) -> None:
    plain, watch = PairWatch(RULES), PairWatch(RULES)
    run(plain, range(24))
    watch.unpack(plain.pack())
    expected, signals = run(plain, range(24, 34), new_from=30), list[Signal]()
    for week in range(24, 34):
        if week in restarts and not midweek:
            watch = restored(watch, RULES)
        watch.add(sunday(week) - 3, weekly(1, week, 20 if week >= 30 else 0))
        if week in restarts and midweek:
            watch = restored(watch, RULES)
        signals += watch.judge(sunday(week), about(sunday(week)))
    assert texts(signals) == texts(expected)
    assert signals
    assert watch.pack() == plain.pack()


def restored(watch: PairWatch, rules: HazardRules) -> PairWatch:
    fresh = PairWatch(rules)
    fresh.unpack(watch.pack())
    assert fresh.pack() == watch.pack()
    return fresh


SMALL = HazardRules(window_weeks=2, max_pairs=5)
flood = st.lists(
    st.tuples(st.integers(0, 6), st.lists(st.tuples(st.integers(0, 8), st.sampled_from([-2, -1, 1, 2])), max_size=7)),
    max_size=14,
)


@given(flood, st.data())
def test_there_are_never_more_pairs_than_the_bound_and_a_restart_does_not_move_it(days: Any, data: Any) -> None:
    plain, watch, day = PairWatch(SMALL), PairWatch(SMALL), DAY_0
    for gap, drawn in days:
        day += gap
        sums = Counter[str]()
        for name, change in drawn:
            sums[f"p{name}"] += change
        pairs = [PairCount(name, "h", count) for name, count in sorted(sums.items()) if count]
        for one in (plain, watch):
            one.add(day, pairs)
            one.judge(day, about(day))
        if data.draw(st.booleans()):
            watch = restored(watch, SMALL)
        assert watch.pack() == plain.pack()
        held = set(plain._past).union(*plain._weeks)
        assert held == plain._held
        assert len(held) <= SMALL.max_pairs
        assert all(0 not in table.values() for table in (plain._past, *plain._weeks))


def test_a_pair_that_had_no_room_takes_nothing_back() -> None:
    watch = PairWatch(SMALL)
    watch.add(DAY_0, [PairCount(f"p{n}", "h", 1) for n in range(6)])
    watch.add(DAY_0, [PairCount("p5", "h", -1), PairCount("p0", "h", -1)])
    assert dict(watch._weeks[-1]) == {(f"p{n}", "h"): 1 for n in range(1, 5)}
    watch.add(DAY_0, [PairCount("p5", "h", -1), PairCount("p6", "h", 3)])
    assert ("p6", "h") in watch._weeks[-1]


def test_hostile_names_are_names_like_any_other() -> None:
    watch = PairWatch(RULES)
    run(watch, range(27))
    names = [("~other", "~other"), ("*", "*"), ("P1|h", "\u202eh1"), ("\U0001f4a3" * 40, "a" * 200), ("P0", "P0")]
    watch.add(sunday(27), [*weekly(1, 27), *(PairCount(*key, 20) for key in names)])
    signals = watch.judge(sunday(27), about(0))
    assert {(signal.product, signal.hazard) for signal in signals} == set(names)
    assert texts(signals) == [msgspec.json.encode(msgspec.json.decode(text, type=Signal)) for text in texts(signals)]


# --- the whole pipeline --------------------------------------------------------------------------------------------


def injuries(weeks: int, extra: dict[int, int]) -> list[Row]:
    """Injuries of ten products and six kinds; one pair is frequent from the start, one comes up as ``extra`` says."""
    rng, rows = random.Random(7), list[Row]()
    products = ("F0101", "F0102", "F0301", "L0101", "C0101", "N0101", "B0101", "E0101", "A0101", "A0102")

    liking = {product: [rng.gammavariate(2.0, 1.0) * n for n in (0.7, 2, 3, 4, 5, 3)] for product in products}

    def report(week: int, product: str, hazard: str, outcome: int) -> None:
        at = START + week * WEEK + rng.randrange(7) * DAY + rng.randrange(24) * HOUR
        event = body("injuries", f"e{len(rows)}", at, product=product, injury=hazard, severity=1 + outcome % 2)
        rows.append(("injuries", at, event))

    for week in range(weeks):
        for n in range(32):
            product = rng.choice(products)
            report(week, product, rng.choices(["h0", "h1", "h2", "h3", "h4", "h5"], liking[product])[0], n % 2)
        for _ in range(5):
            report(week, "F0101", "allergy", 0)
        for _ in range(extra.get(week, 0)):
            report(week, "N0101", "h0", 1)
    return rows


HAZARD_CONFIG = daily(hazards={"window_weeks": 6, "min_total": 500, "alpha": 3e-3, "eb05": 1.5})


def test_through_the_pipeline_an_old_pair_is_no_news_and_a_new_one_opens_an_alert_on_a_monday() -> None:
    alerts = alerts_of(injuries(34, {30: 16, 31: 20}), HAZARD_CONFIG, "new-hazard")
    assert {(alert.product, alert.hazard) for alert in alerts} == {("N0101", "h0")}
    opened = alerts[0]
    assert (opened.status, opened.region, opened.scope) == ("opened", "*", "cell")
    assert opened.onset.astimezone(CHINA).weekday() == 0
    assert opened.headline.zh
    assert "h0" in opened.headline.en


def test_through_the_pipeline_a_new_pair_whose_reports_were_withdrawn_opens_nothing() -> None:
    rows = injuries(34, {30: 16, 31: 20})
    back = list[Row]()
    for topic, at, event in rows:
        if (event["product"], event["injury"]) == ("N0101", "h0") and at >= START + 30 * WEEK:
            back.append((topic, at + HOUR, {**event, "revision": 1, "withdrawn": True}))
    assert len(back) >= 36
    assert alerts_of([*rows, *back], HAZARD_CONFIG, "new-hazard") == []


def test_through_the_pipeline_copies_of_reports_make_no_pair_new() -> None:
    rows = injuries(34, {})
    rare = [row for row in rows if (row[2]["product"], row[2]["injury"]) == ("N0101", "h0")]
    again = [(topic, START + 30 * WEEK + n * HOUR, event) for topic, _, event in rare for n in range(9)]
    assert len(again) > 50
    assert alerts_of([*rows, *again], HAZARD_CONFIG, "new-hazard") == []
