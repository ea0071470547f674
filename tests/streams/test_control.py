"""Which signals may open an alert when thousands of streams are watched: budgets and discovery rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import settings_with
from hypothesis import given
from hypothesis import strategies as st
from test_escalate import T0, brief, day, new_escalate, run, signal

from detectors.multiplicity import e_bh, p_to_e, reject
from schemas.alerts import AlertKind, Signal
from streams.config import Config
from streams.control import CONTROLLED, Control
from streams.escalate import Escalate
from streams.tally import Tally

FREE: tuple[AlertKind, ...] = ("new-hazard", "lab-drift", "silent-source", "grave-event")


def config_with(tick_seconds: int = 3_600, **multiplicity: Any) -> Config:
    return settings_with(tick_seconds=tick_seconds, multiplicity=multiplicity)


def control(config: Config, **cells: int) -> Control:
    return Control(config, lambda indicator: cells.get(indicator, 0))


def signals(kind: AlertKind, *p_values: float) -> list[Signal]:
    return [signal(T0, kind=kind, product=f"F{n}", p_value=p) for n, p in enumerate(p_values)]


# --- the budget ----------------------------------------------------------------------------------------------------


def test_a_months_budget_is_shared_equally_by_the_kinds_that_exist_and_within_one_by_its_cells() -> None:
    # Two false alarms a month, three kinds; counts are tested 30 / 7 times a month in each of 500 cells.
    rule = control(config_with(false_alarms_per_month=2.0), injury=500, complaint=40, satisfaction=7)
    threshold = 2.0 / 3 / 500 / (30 / 7)
    listed = signals("injury-surge", threshold * 0.999, threshold * 1.001, threshold / 2)
    assert rule.admitted(listed) == {0, 2}
    threshold = 2.0 / 3 / 40 / (30 / 7)
    assert rule.admitted(signals("complaint-surge", threshold * 1.001, threshold * 0.999)) == {1}


@pytest.mark.parametrize(
    ("tick_seconds", "tests"),
    [
        # Windows of 7, 30, 90 days with at least five failures, against target, past and peers: 30 * 5 / window a
        # month, and never more than there are ticks.
        (3_600, 3 * (30 * 5 / 7 + 30 * 5 / 30 + 30 * 5 / 90)),
        (86_400, 3 * (30 * 5 / 7 + 30 * 5 / 30 + 30 * 5 / 90)),
        (604_800, 3 * (30 / 7 + 30 / 7 + 30 * 5 / 90)),
    ],
)
def test_a_pass_rate_is_tested_as_often_as_its_windows_renew_themselves(tick_seconds: int, tests: float) -> None:
    rule = control(config_with(tick_seconds, false_alarms_per_month=0.5), **{"pass": 1_000})
    threshold = 0.5 / 1_000 / tests
    assert rule.admitted(signals("pass-rate", threshold * 0.999, threshold * 1.001)) == {0}


@pytest.mark.parametrize(("tick_seconds", "tests"), [(3_600, 30.0), (86_400, 30.0), (604_800, 30 / 7)])
def test_satisfaction_is_tested_once_a_day_or_a_tick(tick_seconds: int, tests: float) -> None:
    rule = control(config_with(tick_seconds, false_alarms_per_month=1.0), satisfaction=100)
    threshold = 1.0 / 100 / tests
    assert rule.admitted(signals("satisfaction", threshold * 0.999, threshold * 1.001)) == {0}


def test_before_any_partition_has_told_of_its_cells_those_that_signal_are_all() -> None:
    threshold = 1.0 / 2 / (30 / 7)
    assert control(config_with()).admitted(signals("injury-surge", threshold * 0.999, threshold * 1.001)) == {0}


def test_a_huge_budget_admits_all_and_a_p_value_of_nothing_is_always_admitted() -> None:
    assert control(config_with(false_alarms_per_month=1e9), injury=9).admitted(signals("injury-surge", 1.0)) == {0}
    assert control(config_with(false_alarms_per_month=1e-9), injury=10**9).admitted(signals("injury-surge", 0.0)) == {0}


@pytest.mark.parametrize("kind", FREE)
@pytest.mark.parametrize("method", ["budget", "BH", "BY", "e-BH"])
def test_kinds_that_are_no_cells_are_not_controlled(kind: AlertKind, method: str) -> None:
    rule = control(config_with(method=method), injury=10**6)
    assert rule.admitted([*signals(kind, 0.9), *signals("injury-surge", 0.9)]) == {0}


def test_nothing_comes_of_nothing() -> None:
    assert control(config_with()).admitted([]) == set()


# --- discovery rates -----------------------------------------------------------------------------------------------

p_lists = st.lists(st.floats(0, 1) | st.floats(0, 1e-6), min_size=1, max_size=12)


@given(p_lists, st.integers(0, 10_000), st.sampled_from(["BH", "BY", "e-BH"]), st.sampled_from([0.01, 0.05, 0.4]))
def test_a_discovery_rate_is_that_of_the_detectors_over_all_cells(
    p_values: list[float], cells: int, method: Any, fdr: float
) -> None:
    streams = max(cells, len(p_values))
    if method == "e-BH":
        expected = e_bh(p_to_e(np.array(p_values)), fdr, tests=streams).rejected
    else:
        expected = reject(p_values, method, fdr, tests=streams).rejected
    rule = control(config_with(method=method, fdr=fdr), complaint=cells)
    assert rule.admitted(signals("complaint-surge", *p_values)) == set(np.flatnonzero(expected).tolist())


@given(p_lists, p_lists, st.sampled_from(["budget", "BH", "BY", "e-BH"]), st.randoms())
def test_kinds_are_judged_apart_and_the_order_of_signals_does_not_show(
    one: list[float], other: list[float], method: str, rng: Any
) -> None:
    rule = control(config_with(method=method), injury=50, complaint=70)
    both = [*signals("injury-surge", *one), *signals("complaint-surge", *other)]
    admitted = rule.admitted(both)
    assert {at for at in admitted if at < len(one)} == rule.admitted(both[: len(one)])
    assert {at - len(one) for at in admitted if at >= len(one)} == rule.admitted(both[len(one) :])
    order = rng.sample(range(len(both)), len(both))
    assert {order[at] for at in rule.admitted([both[at] for at in order])} == admitted


def test_every_controlled_kind_has_an_indicator_of_its_own() -> None:
    assert len(set(CONTROLLED.values())) == len(CONTROLLED)
    assert not set(CONTROLLED) & set(FREE)


# --- in escalate ---------------------------------------------------------------------------------------------------


def strict(cells: int = 10**9) -> Escalate:
    """Ever so many cells are watched, so that a p-value of 1e-8 may open nothing."""
    escalate = new_escalate()
    escalate.offer(0, T0 - 1, [], [(T0 - 1, Tally(0, [], [], [], {"injury": cells}))])
    assert escalate.close() == []
    assert escalate.oversight.cells("injury") == cells
    return escalate


def test_a_signal_that_is_not_admitted_opens_nothing_and_one_that_is_does() -> None:
    assert run(strict(), signal(T0)) == []
    assert brief(run(strict(), signal(T0, p_value=1e-14))) == [("opened", 1, 3)]
    assert brief(run(strict(cells=10), signal(T0))) == [("opened", 1, 3)]


def test_an_alert_that_stands_lives_on_by_signals_that_could_open_none() -> None:
    escalate = strict()
    weak = [signal(day(n)) for n in range(1, 30)]
    assert brief(run(escalate, signal(T0, p_value=1e-14), *weak, through=day(30))) == [("opened", 1, 3)]
    (raised,) = run(escalate, signal(day(31), level=2))
    assert (raised.status, raised.level) == ("raised", 2)


@pytest.mark.parametrize("role", ["explained", "part"])
def test_echoes_are_remembered_whatever_control_says(role: str) -> None:
    # The echo's strength is known later, when the cell stands for itself: only tenfold evidence rings.
    escalate = strict()
    run(escalate, signal(T0, role=role, p_value=1e-14))
    assert run(escalate, signal(T0 + 1, p_value=5e-15)) == []
    assert brief(run(escalate, signal(T0 + 2, p_value=1e-16))) == [("opened", 1, 3)]


def test_sources_labs_and_pairs_open_alerts_however_many_cells_there_are() -> None:
    about = {"product": "*", "region": "*", "p_value": 1e-6}
    made = run(
        strict(),
        signal(T0, kind="silent-source", source="s", **about),
        signal(T0, kind="lab-drift", source="s", **about),
        signal(T0, kind="new-hazard", hazard="h", **about),
        signal(T0, **about),
    )
    assert sorted(alert.kind for alert in made) == ["lab-drift", "new-hazard", "silent-source"]
    assert len({alert.id for alert in made}) == 3
