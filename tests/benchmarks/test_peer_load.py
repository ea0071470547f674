"""The load that engines are compared on, and the answer that they are held to."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from datetime import date

from tests.benchmarks.load import LEAST_FAILED, WINDOW_DAYS, Load, below_target, expected, limits
from tests.benchmarks.peers.window import count, new_row

LOAD = Load(12_000, cells=120, regions=4, days=40, bells=("BELL",))


def test_a_bell_alone_is_an_alert_on_the_first_and_on_the_last_day() -> None:
    assert expected(Load(0, cells=4, regions=2, days=31, bells=("BELL",))) == {
        ("BELL", "R000", "2026-01-01"): (3, 3),
        ("BELL", "R000", "2026-01-31"): (3, 3),
    }
    assert expected(Load(0, cells=4, regions=2, days=30, bells=("BELL",)))["BELL", "R000", "2026-01-30"] == (6, 6)


def test_the_answer_is_what_a_plain_count_over_the_json_gives() -> None:
    windows: dict[tuple[str, str], deque[tuple[int, bool]]] = defaultdict(deque)
    answer = {}
    for record in LOAD.records():
        event = json.loads(record.value)
        assert record.key == event["product"].encode()
        day = date.fromisoformat(event["reported_at"][:10])
        seen = windows[event["product"], event["region"]]
        seen.append((day.toordinal(), event["verdict"] == "fail"))
        while seen[0][0] <= day.toordinal() - WINDOW_DAYS:
            seen.popleft()
        cell = (event["product"], event["region"], day.isoformat())
        counts = (len(seen), sum(fails for _, fails in seen))
        answer.pop(cell, None)
        if bool(below_target(*counts)):
            answer[cell] = counts
    assert answer == expected(LOAD)
    assert len(answer) > 10


def test_the_window_that_peers_share_tells_the_answer() -> None:
    rows: dict[tuple[str, str], dict[str, object]] = defaultdict(new_row)
    standing = {}
    least = limits(1_000)
    for record in LOAD.records():
        event = json.loads(record.value)
        alert = count(rows[event["product"], event["region"]], event, least)
        if alert is not None:
            standing[alert["product"], alert["region"], alert["day"]] = alert["below"]
    assert {cell for cell, below in standing.items() if below} == expected(LOAD).keys()


def test_the_limits_are_where_the_interval_falls_below_the_target() -> None:
    for tested, least in enumerate(limits(200)):
        assert least >= LEAST_FAILED
        assert least > tested or bool(below_target(tested, least))
        assert least == LEAST_FAILED or not below_target(tested, least - 1)


def test_the_load_is_the_same_for_the_same_seed() -> None:
    again = Load(12_000, cells=120, regions=4, days=40, bells=("BELL",))
    assert list(again.records()) == list(LOAD.records())
    times = [record.time_ms for record in LOAD.records()]
    assert times == sorted(times)
