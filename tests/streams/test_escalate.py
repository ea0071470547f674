"""Escalate: opening, raising, lowering and resolving, dispositions, scope, grave events, restarts."""

from __future__ import annotations

from typing import Any

import pytest
from builders import CHINA, DAY, HOUR, START, alert_texts, disposition, settings_with
from hypothesis import given
from hypothesis import strategies as st

from schemas.alerts import Alert, Evidence, Signal
from streams.config import Config
from streams.escalate import Escalate
from streams.ticks import Calendar

CONFIG = settings_with(escalate={"hold_days": 14, "lower_after_days": 7, "grave_hold_days": 30, "regional_branches": 3})
CALENDAR = Calendar(CONFIG.tick_ms, CONFIG.offset_ms)
T0 = CALENDAR.tick(START)
TICKS_A_DAY = 24


def new_escalate(partitions: int = 1, config: Config = CONFIG) -> Escalate:
    return Escalate(config, config.load_catalogue(), partitions)


def signal(tick: int, level: int = 3, **fields: Any) -> Signal:
    own: dict[str, Any] = {
        "kind": "injury-surge", "product": "F0101", "region": "120101", "role": "primary", "scope": "cell",
        "p_value": 1e-8, "excess": 9.0,
        "evidence": [Evidence(detector="d", against="baseline", window_days=7, observed=9.0, p_value=1e-8)],
    }  # fmt: skip
    return Signal(tick=tick, as_of=CALENDAR.moment(CALENDAR.tick_end(tick)), level=level, **{**own, **fields})


def grave(name: str = "grave-1", level: int = 2, reported: int = START, **fields: Any) -> Signal:
    own: dict[str, Any] = {"kind": "grave-event", "alert_id": name, "evidence": [], **fields}
    made = signal(-1, level, **own)
    made.as_of = CALENDAR.moment(reported)
    return made


def withdrawal(tick: int, name: str = "grave-1") -> Signal:
    return signal(tick, kind="grave-event", product="", region="", alert_id=name, withdrawn=True, evidence=[])


def run(escalate: Escalate, *signals: Signal, through: int | None = None) -> list[Alert]:
    """Offer signals of one partition and close through a tick (that of the last signal)."""
    last = max([s.tick for s in signals], default=T0) if through is None else through
    escalate.offer(0, last, signals)
    return escalate.close()


def brief(alerts: list[Alert]) -> list[tuple[str, int, int]]:
    return [(alert.status, alert.revision, alert.level) for alert in alerts]


def day(n: float) -> int:
    return T0 + int(n * TICKS_A_DAY)


# --- opening, raising, lowering, resolving -------------------------------------------------------------------------


def test_a_primary_signal_opens_an_alert_with_its_onset_at_the_start_of_its_tick() -> None:
    (alert,) = run(new_escalate(), signal(T0))
    assert (alert.status, alert.revision, alert.level, alert.grade, alert.colour) == ("opened", 1, 3, "III", "yellow")
    assert alert.onset.timestamp() * 1_000 == START
    assert alert.as_of.timestamp() * 1_000 == START + HOUR
    assert (alert.product_name.zh, alert.region_name.zh) != ("", "")
    assert alert.actions[0].deadline_hours == CONFIG.grades.load().hours_to_first_report("injury-surge", 3)
    assert alert.provenance.config == CONFIG.digest


@pytest.mark.parametrize("role", ["explained", "part"])
def test_an_echo_opens_nothing(role: str) -> None:
    assert run(new_escalate(), signal(T0, role=role)) == []


def test_an_id_says_what_and_since_when_and_nothing_else() -> None:
    ids = {
        run(new_escalate(), s)[0].id
        for s in (signal(T0), signal(T0, level=2, p_value=1e-20, excess=70.0))
    }  # fmt: skip
    assert len(ids) == 1
    others = (
        signal(T0 + 1),
        signal(T0, region="120102"),
        signal(T0, product="F0102"),
        signal(T0, kind="complaint-surge"),
    )
    assert len(ids | {run(new_escalate(), s)[0].id for s in others}) == 5


def test_the_same_level_again_brings_no_revision() -> None:
    escalate = new_escalate()
    assert len(run(escalate, signal(T0), signal(T0 + 1), signal(T0 + 2))) == 1


def test_a_graver_level_raises_at_once_and_keeps_id_and_onset() -> None:
    escalate = new_escalate()
    opened, raised = run(escalate, signal(T0), signal(T0 + 5, level=2, p_value=1e-14))
    assert brief([opened, raised]) == [("opened", 1, 3), ("raised", 2, 2)]
    assert (raised.id, raised.onset, raised.p_value) == (opened.id, opened.onset, 1e-14)
    assert raised.as_of > opened.as_of


def test_a_calmer_level_lowers_only_after_it_has_held_for_the_days_asked() -> None:
    escalate = new_escalate()
    calm = [signal(day(n), level=3) for n in range(1, 10)]
    alerts = run(escalate, signal(T0, level=2), *calm)
    assert brief(alerts) == [("opened", 1, 2), ("lowered", 2, 3)]
    assert alerts[1].as_of == CALENDAR.moment(CALENDAR.tick_end(day(8)))


def test_a_relapse_starts_the_calm_anew() -> None:
    escalate = new_escalate()
    levels = [2, 3, 3, 3, 2, 3, 3, 3, 3, 3, 3]
    assert brief(run(escalate, *(signal(day(n), level=level) for n, level in enumerate(levels)))) == [("opened", 1, 2)]


def test_it_is_lowered_to_the_gravest_level_of_the_calm_days() -> None:
    escalate = new_escalate()
    levels = [2, 4, 3, 4, 4, 4, 4, 4, 4]
    alerts = run(escalate, *(signal(day(n), level=level) for n, level in enumerate(levels)))
    assert brief(alerts) == [("opened", 1, 2), ("lowered", 2, 3)]


def test_silence_resolves_at_exactly_the_hold_and_not_a_tick_before() -> None:
    escalate = new_escalate()
    run(escalate, signal(T0))
    due = T0 + 1 + 14 * TICKS_A_DAY  # the hold runs from the end of the signal's tick
    assert run(escalate, through=due - 1) == []
    (alert,) = run(escalate, through=due)
    assert (alert.status, alert.revision, alert.reason) == ("resolved", 2, "no evidence for 14 days")
    assert alert.as_of == CALENDAR.moment(CALENDAR.tick_end(due))
    assert run(escalate, through=day(400)) == []


def test_a_signal_in_the_last_tick_of_the_hold_keeps_the_alert_open() -> None:
    escalate = new_escalate()
    due = T0 + 1 + 14 * TICKS_A_DAY
    assert brief(run(escalate, signal(T0), signal(due), through=due + 14 * TICKS_A_DAY)) == [("opened", 1, 3)]


def test_a_part_of_a_broader_cell_keeps_an_alert_alive_that_stands() -> None:
    escalate = new_escalate()
    alerts = run(escalate, signal(T0), *(signal(day(n), role="part") for n in range(1, 40, 5)), through=day(40))
    assert brief(alerts) == [("opened", 1, 3)]


def test_a_part_neither_raises_nor_lowers() -> None:
    escalate = new_escalate()
    parts = [
        signal(day(n), level=level, role="part") for n, level in enumerate((1, 4, 4, 4, 4, 4, 4, 4, 4, 4), start=1)
    ]
    assert brief(run(escalate, signal(T0, level=2), *parts)) == [("opened", 1, 2)]


def test_what_turns_out_to_be_an_echo_neither_ends_at_once_nor_stays_alive_by_it() -> None:
    escalate = new_escalate()
    echoes = [signal(day(n), product="F", role="explained", level=1) for n in range(1, 15)]
    alerts = run(escalate, signal(T0, product="F"), *echoes, signal(T0 + 1, product="F0101"), through=day(14) + 1)
    assert [(a.product, a.status) for a in alerts] == [("F", "opened"), ("F0101", "opened"), ("F", "resolved")]


def test_after_it_was_resolved_a_new_onset_is_a_new_alert() -> None:
    escalate = new_escalate()
    alerts = run(escalate, signal(T0), signal(day(30)))
    assert [a.status for a in alerts] == ["opened", "resolved", "opened"]
    assert alerts[0].id != alerts[2].id


# --- several partitions --------------------------------------------------------------------------------------------


def test_a_tick_waits_for_every_partition() -> None:
    escalate = new_escalate(partitions=3)
    for partition in (0, 1):
        escalate.offer(partition, day(9), [signal(T0, region=f"12010{partition + 1}")])
        assert escalate.close() == []
    escalate.offer(2, T0 - 1, [])
    assert escalate.close() == []
    escalate.offer(2, T0, [])
    assert [a.region for a in escalate.close()] == ["120101", "120102"]
    assert escalate.through == T0


def test_what_a_partition_sends_again_after_a_crash_is_passed_over() -> None:
    escalate = new_escalate()
    assert len(run(escalate, signal(T0), signal(T0 + 1, level=2))) == 2
    assert run(escalate, signal(T0), signal(T0 + 1, level=2)) == []
    assert run(escalate, signal(T0 + 1, level=1), through=T0 + 1) == []
    escalate.offer(0, None, [signal(T0 + 2, level=1)])
    escalate.offer(0, None, [signal(T0 + 2, level=1)])
    assert brief(run(escalate, through=T0 + 2)) == [("raised", 3, 1)]


# --- scope ---------------------------------------------------------------------------------------------------------


def test_many_branches_in_one_region_are_a_regional_risk_and_a_level_graver() -> None:
    escalate = new_escalate()
    alerts = run(escalate, *(signal(T0 + n, product=f"{branch}0101") for n, branch in enumerate("FLC")))
    assert [(a.scope, a.level) for a in alerts] == [("cell", 3), ("cell", 3), ("regional", 2)]


def test_products_of_one_branch_are_none() -> None:
    escalate = new_escalate()
    alerts = run(escalate, *(signal(T0 + n, product=f"F010{n + 1}") for n in range(3)))
    assert {a.scope for a in alerts} == {"cell"}


def test_the_whole_city_is_no_region_of_its_own() -> None:
    escalate = new_escalate()
    alerts = run(escalate, *(signal(T0 + n, product=f"{b}0101", region="120000") for n, b in enumerate("FLC")))
    assert {a.scope for a in alerts} == {"cell"}


def test_an_industry_risk_in_a_crowded_region_is_systemic_and_red() -> None:
    escalate = new_escalate()
    signals = [
        signal(T0, product="L0101"),
        signal(T0, product="C0101"),
        signal(T0 + 1, product="F01", scope="industry"),
    ]
    assert [(a.scope, a.level) for a in run(escalate, *signals)][-1] == ("systemic", 1)


def test_flat_regions_of_an_open_catalogue_may_be_regional_too() -> None:
    escalate = new_escalate(config=settings_with(catalogue="open"))
    cells = [("F/x", "CA"), ("F/x", "TX"), ("L/x", "TX"), ("C/x", "TX")]
    alerts = run(escalate, *(signal(T0 + n, product=p, region=r) for n, (p, r) in enumerate(cells)))
    assert [a.scope for a in alerts] == ["cell", "cell", "cell", "regional"]


def test_the_only_region_of_an_open_catalogue_is_the_whole_and_never_regional() -> None:
    escalate = new_escalate(config=settings_with(catalogue="open"))
    alerts = run(escalate, *(signal(T0 + n, product=f"{branch}/x", region="US") for n, branch in enumerate("FLC")))
    assert [a.scope for a in alerts] == ["cell", "cell", "cell"]


def test_what_was_closed_no_longer_crowds_a_region() -> None:
    escalate = new_escalate()
    first, *_ = run(escalate, *(signal(T0, product=f"{branch}0101") for branch in "FL"))
    escalate.dispose(CALENDAR.tick_start(T0 + 1), disposition(first.id, "close", "d"))
    later = [signal(T0 + 1 + n, product=f"{branch}0101") for n, branch in enumerate("LCF")]
    alerts = run(escalate, *later)
    assert [(a.status, a.scope) for a in alerts] == [("resolved", "cell"), ("opened", "cell"), ("opened", "regional")]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["F0101", "F0102", "L0101", "C0101", "C0102"]), st.sampled_from(["120101", "120102"]),
            st.integers(2, 4), st.sampled_from([1, 30, 200, 400]),
            st.sampled_from(["signal", "signal", "pair", "close"]),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_the_scope_is_that_of_what_stands_at_that_moment(drawn: Any) -> None:
    escalate, tick = new_escalate(), T0
    for n, (product, region, level, gap, what) in enumerate(drawn):
        tick += gap
        run(escalate, through=tick - 1)
        standing = escalate.standing_alerts()
        if what == "close":
            target = standing[n % len(standing)].id if standing else "none"
            escalate.dispose(CALENDAR.tick_start(tick), disposition(target, "close", f"d{n}"))
        pair = {"kind": "new-hazard", "hazard": "burn"} if what == "pair" else {}
        told = run(escalate, signal(tick, level, product=product, region=region, **pair))
        branches = {one.product[0] for one in standing if one.region == region and not one.hazard} | {product[0]}
        crowded = len(branches) >= 3 and what != "pair"
        assert {one.scope for one in told if one.status != "resolved"} <= {"regional" if crowded else "cell"}


@pytest.mark.parametrize("cell", [("F/~other", "120101"), ("F0101", "~other")])
def test_a_surge_in_the_overflow_leaf_opens_an_alert_like_any_other(cell: tuple[str, str]) -> None:
    # With products closed and regions open, or the other way round, assess makes such cells.
    around = [signal(T0, product=f"{branch}0101", region=cell[1]) for branch in "LC"]
    alerts = run(new_escalate(), *around, signal(T0 + 1, product=cell[0], region=cell[1]))
    assert (alerts[-1].product, alerts[-1].region) == cell


# --- dispositions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["acknowledge", "assess", "dispose"])
def test_a_disposition_acknowledges_at_the_tick_of_its_arrival(action: str) -> None:
    escalate = new_escalate()
    (opened,) = run(escalate, signal(T0))
    escalate.dispose(START + 5 * HOUR, disposition(opened.id, action))
    assert run(escalate, through=T0 + 4) == []
    (alert,) = run(escalate, through=T0 + 5)
    assert (alert.status, alert.revision, alert.acknowledged_by, alert.reason) == ("acknowledged", 2, "officer", action)
    assert alert.as_of == CALENDAR.moment(CALENDAR.tick_end(T0 + 5))


def test_a_close_resolves_and_the_next_signal_opens_another() -> None:
    escalate = new_escalate()
    (opened,) = run(escalate, signal(T0))
    escalate.dispose(START + 5 * HOUR, disposition(opened.id, "close"))
    alerts = run(escalate, signal(T0 + 6))
    assert [(a.status, a.reason) for a in alerts] == [("resolved", "close"), ("opened", None)]
    assert alerts[0].acknowledged_by == "officer"


def test_a_disposition_comes_after_the_signals_of_its_own_tick() -> None:
    escalate = new_escalate()
    alert_id = run(new_escalate(), signal(T0))[0].id
    escalate.dispose(START, disposition(alert_id, "acknowledge"))
    assert [a.status for a in run(escalate, signal(T0))] == ["opened", "acknowledged"]


def test_who_acknowledged_stays_on_record_when_it_gets_worse() -> None:
    escalate = new_escalate()
    (opened,) = run(escalate, signal(T0))
    escalate.dispose(START + HOUR, disposition(opened.id, "acknowledge"))
    *_, raised = run(escalate, signal(T0 + 2, level=1))
    assert (raised.status, raised.revision, raised.acknowledged_by) == ("raised", 3, "officer")


def test_a_disposition_of_nothing_and_one_that_comes_twice_bring_nothing() -> None:
    escalate = new_escalate()
    (opened,) = run(escalate, signal(T0))
    escalate.dispose(START + HOUR, disposition("no such alert", "close", "d0"))
    for _ in range(2):
        escalate.dispose(START + HOUR, disposition(opened.id, "acknowledge", "d1"))
    assert len(run(escalate, through=T0 + 1)) == 1
    escalate.dispose(START + HOUR, disposition(opened.id, "acknowledge", "d1"))
    assert run(escalate, through=day(3)) == []


def test_a_copy_of_a_disposition_that_arrives_at_a_later_tick_brings_nothing() -> None:
    escalate = new_escalate()
    (opened,) = run(escalate, signal(T0))
    escalate.grave(grave())
    for target in (opened.id, "grave-1"):
        escalate.dispose(START + HOUR, disposition(target, "acknowledge", f"d-{target}"))
    assert [alert.revision for alert in run(escalate, through=T0 + 2)] == [2, 2]
    fresh = new_escalate()
    fresh.restore(escalate.snapshot())
    for target in (opened.id, "grave-1"):
        fresh.dispose(START + 5 * HOUR, disposition(target, "acknowledge", f"d-{target}"))
    assert run(fresh, through=T0 + 6) == []
    fresh.dispose(START + 8 * HOUR, disposition(opened.id, "acknowledge", "another"))
    assert [alert.revision for alert in run(fresh, through=T0 + 9)] == [3]


# --- grave events --------------------------------------------------------------------------------------------------


def test_a_grave_event_opens_at_once_and_a_copy_brings_nothing() -> None:
    escalate = new_escalate()
    (alert,) = escalate.grave(grave())
    assert (alert.id, alert.status, alert.revision, alert.level) == ("grave-1", "opened", 1, 2)
    assert alert.onset == alert.as_of == CALENDAR.moment(START)
    assert escalate.grave(grave()) == []


def test_a_withdrawn_grave_event_is_resolved_at_its_tick_and_stays_so() -> None:
    escalate = new_escalate()
    escalate.grave(grave())
    (alert,) = run(escalate, withdrawal(T0 + 3))
    assert (alert.status, alert.revision) == ("resolved", 2)
    assert "withdrawn" in (alert.reason or "")
    assert run(escalate, withdrawal(T0 + 4)) == []
    assert escalate.grave(grave()) == []


def test_a_grave_event_is_resolved_after_its_own_hold() -> None:
    escalate = new_escalate()
    escalate.grave(grave())
    assert run(escalate, through=day(30) - 1) == []
    (alert,) = run(escalate, through=day(30))
    assert (alert.status, alert.reason) == ("resolved", "30 days have passed")


@pytest.mark.parametrize(("action", "statuses"), [("acknowledge", ["acknowledged"]), ("close", ["resolved"])])
def test_a_grave_alert_takes_dispositions(action: str, statuses: list[str]) -> None:
    escalate = new_escalate()
    escalate.grave(grave())
    escalate.dispose(START + HOUR, disposition("grave-1", action))
    alerts = run(escalate, through=T0 + 1)
    assert [a.status for a in alerts] == statuses


def test_who_closed_a_grave_alert_stays_on_record() -> None:
    escalate = new_escalate()
    escalate.grave(grave())
    escalate.dispose(START + HOUR, disposition("grave-1", "close"))
    (alert,) = run(escalate, through=T0 + 1)
    assert (alert.status, alert.acknowledged_by) == ("resolved", "officer")


def test_the_id_of_a_grave_event_is_let_go_once_no_copy_can_come_and_what_is_sent_again_still_brings_nothing() -> None:
    def held(escalate: Escalate) -> int:
        return escalate.snapshot().count(b"grave-")

    escalate, days = new_escalate(), CONFIG.state.remember_days
    for number in range(50):
        assert escalate.grave(grave(f"grave-{number}", reported=START + number * DAY))
    assert len(run(escalate, through=day(days) - 1)) == 50  # resolved
    assert held(escalate) == 50
    assert escalate.grave(grave("grave-0")) == []
    run(escalate, through=day(days + 25) - 1)
    assert held(escalate) == 25
    restored = new_escalate()
    restored.restore(escalate.snapshot())
    for one in (escalate, restored):
        assert one.grave(grave("grave-0")) == one.grave(grave("grave-49", reported=START + 49 * DAY)) == []
        assert one.grave(grave("another", reported=START + 49 * DAY))


# --- restarts ------------------------------------------------------------------------------------------------------

steps = st.lists(
    st.tuples(
        st.sampled_from(["signal", "grave", "withdraw", "dispose", "tick"]), st.integers(0, 3), st.integers(1, 4),
        st.sampled_from([1, 5, 30, 200]), st.sampled_from(["primary", "primary", "part", "explained"]),
        st.booleans(),
    ),
    max_size=30,
)  # fmt: skip


@given(steps)
def test_snapshots_taken_anywhere_do_not_show(drawn: Any) -> None:
    def drive(restarts: bool) -> list[str]:
        escalate, tick, out = new_escalate(), T0, list[Alert]()
        for n, (what, which, level, gap, role, snap) in enumerate(drawn):
            tick += gap
            product = ("F0101", "L0101", "C0101", "F0102")[which]
            if what == "grave":
                out += escalate.grave(grave(f"grave-{which}", level, CALENDAR.tick_start(tick)))
            elif what == "dispose":
                target = out[which % len(out)].id if out else "none"
                action = ("acknowledge", "close")[level % 2]
                escalate.dispose(CALENDAR.tick_start(tick), disposition(target, action, f"d{n}"))
            signals = [signal(tick, level, product=product, role=role)] if what == "signal" else []
            signals += [withdrawal(tick, f"grave-{which}")] if what == "withdraw" else []
            escalate.offer(0, None, signals)
            if restarts and snap:
                fresh = new_escalate()
                fresh.restore(escalate.snapshot())
                assert fresh.snapshot() == escalate.snapshot()
                escalate = fresh
            out += run(escalate, through=tick)
        out += run(escalate, through=tick + day(60) - T0)
        return alert_texts(out)

    assert drive(restarts=True) == drive(restarts=False)


def test_a_restored_alert_still_tells_its_times_in_the_deployments_offset() -> None:
    escalate = new_escalate()
    run(escalate, signal(T0))
    escalate.grave(grave())
    fresh = new_escalate()
    fresh.restore(escalate.snapshot())
    for alert in run(fresh, through=day(60)):
        assert alert.onset.utcoffset() == alert.as_of.utcoffset() == CHINA.utcoffset(None)
