"""The events behind evidence, and what is the echo of what: as plain loops over ledger and cells tell them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.alerts import Contributor, SourceRange
from streams import judge_events
from streams.columns import COLUMN_TYPES, INDICATORS, EventColumns
from streams.config import Config
from streams.decode import EventDecoder
from streams.finding import Finding
from streams.judge_events import AdverseRows, Behind, events_behind
from streams.judge_roles import roles
from streams.ledger import LEDGER_TYPES, Ledger
from streams.state import AssessState
from streams.ticks import MS_PER_DAY, Calendar

CALENDAR = Calendar(MS_PER_DAY, 0)
TODAY, DAYS, EVENTS = 20_000, 30, 400
CODES = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
SEEDS = st.integers(0, 2**32 - 1)


def state_of(seed: int) -> AssessState:
    """A state with some weeks of reports, corrected here and there, of products and regions of two levels."""
    return [state for _, state in days_of(seed)][-1]


def days_of(seed: int) -> Iterator[tuple[int, AssessState]]:
    """The same state at the end of each of its days."""
    rng = np.random.default_rng(seed)
    config = Config().replace(catalogue="open")
    state = AssessState(EventDecoder(config, config.load_catalogue()), 1_000)
    roles_of = [
        [str(rng.choice(CODES)) if rng.random() < 0.8 else None for _ in ("lab", "producer", "batch", "gtin")]
        for _ in range(60)
    ]
    traces = sorted({msgspec.json.encode(values).decode() for values in roles_of})
    for day in range(TODAY - DAYS + 1, TODAY + 1):
        count = EVENTS // DAYS
        columns: dict[str, Any] = {name: np.zeros(count, dtype) for name, dtype in COLUMN_TYPES.items()}
        columns["event"] = rng.integers(0, EVENTS, count).astype(np.uint64)
        columns["revision"] = rng.integers(0, 3, count).astype(np.int32)
        columns["indicator"] = rng.integers(0, 2, count).astype(np.uint8)
        columns["severity"] = rng.integers(0, 5, count).astype(np.uint8)
        columns["day"] = (day - rng.integers(0, 10, count)).astype(np.int32)
        columns["arrival"][:] = day * MS_PER_DAY
        columns["offset"] = rng.permutation(count) + 1_000 * day
        columns["origin"] = rng.integers(0, 3, count).astype(np.int16)
        columns["trace"] = rng.integers(-1, len(traces), count).astype(np.int32)
        columns["product"] = rng.integers(0, 4, count).astype(np.int32)
        columns["region"] = rng.integers(0, 3, count).astype(np.int32)
        columns["hazard"][:] = columns["reporter"][:] = -1
        columns["n"], columns["x"] = rng.integers(5, 9, count), rng.integers(0, 4, count)
        tables = {"products": ["A/1", "A/2", "B/1", "C"], "regions": ["X/1", "X/2", "Y"], "traces": traces}
        origins = [("inspections", 1), ("inspections", 0), ("injuries", 3)]
        state.fold_tick(day, [EventColumns(columns, origins=origins, **tables)])
        yield day, state


def findings_in(state: AssessState, indicator: int, seed: int) -> list[Finding]:
    """Findings of some cells, of windows of any length."""
    rng, store = np.random.default_rng(seed), state.stores[INDICATORS[indicator]]
    rows = np.flatnonzero(rng.random(len(store)) < rng.random()).tolist()
    made = []
    for row in rows:
        excess = {int(window): float(rng.integers(-2, 12)) for window in rng.permutation(3)[: rng.integers(1, 4)]}
        made.append(Finding(row, 0.001, excess, [], int(rng.integers(1, DAYS + 5))))
    return made


def plainly(state: AssessState, indicator: int, finding: Finding, today: int = TODAY) -> Behind:
    ledger, leaves = state.ledger, set(state.leaves_under(indicator, finding.row))
    first = today - finding.window_days + 1
    mine = [
        row
        for row in range(len(ledger))
        if ledger["live"][row]
        and ledger["indicator"][row] == indicator
        and ledger["leaf"][row] in leaves
        and ledger["day"][row] >= first
        and row >= ledger.since(first - 1).start
        and (indicator != 0 or ledger["x"][row] > 0)
    ]
    severities, adverse = [0] * 5, Counter[tuple[int, str]]()
    for row in mine:
        severities[ledger["severity"][row]] += int(ledger["x"][row])
        if ledger["trace"][row] >= 0:
            for role, code in enumerate(msgspec.json.decode(state.traces[ledger["trace"][row]])):
                if code:
                    adverse[role, code] += int(ledger["x"][row])
    contributors = []
    for role, name in enumerate(("lab", "producer", "batch", "gtin")):
        ranked = sorted((-events, code) for (kind, code), events in adverse.items() if kind == role)
        contributors += [Contributor(role=name, code=code, adverse=-less) for less, code in ranked[:10]]  # type: ignore[arg-type]
    sources = []
    for origin in sorted({state.origins[ledger["origin"][row]] for row in mine}):
        offsets = [int(ledger["offset"][row]) for row in mine if state.origins[ledger["origin"][row]] == origin]
        topic, partition = origin
        sources.append(
            SourceRange(
                topic=topic,
                partition=partition,
                first_offset=min(offsets),
                last_offset=max(offsets),
                events=len(offsets),
            )
        )
    touched = [state.leaves[leaf] for leaf in {int(ledger["leaf"][row]) for row in mine}]
    return Behind(
        rows=len(mine),
        products=len({leaf.product for leaf in touched}),
        regions=len({leaf.region for leaf in touched}),
        severities=tuple(severities),
        gravest=max((int(ledger["severity"][row]) for row in mine), default=0),
        contributors=contributors,
        sources=sources,
    )


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([0, 1]), st.sampled_from([1, 2, 1_024]))
def test_the_events_behind_findings_are_those_of_a_plain_search(seed: int, indicator: int, together: int) -> None:
    state = state_of(seed)
    findings = findings_in(state, indicator, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_events, "_TOGETHER", together)
        found = events_behind(state, AdverseRows(state.ledger, indicator), CALENDAR, findings, TODAY)
    assert found == [plainly(state, indicator, finding) for finding in findings]


@settings(max_examples=25)
@given(SEEDS, st.sampled_from([0, 1]), st.sampled_from([1, 3, 4_096]), st.sampled_from([24, 8 * 256]))
def test_what_was_told_before_is_told_again_only_while_it_is_still_so(
    seed: int, indicator: int, cells: int, longest: int
) -> None:
    """Asked day by day, of windows that stand still or move, while events come, are corrected and forgotten."""
    rng, adverse = np.random.default_rng(seed), None
    still = bool(rng.integers(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_events, "_CELLS_REMEMBERED", cells)
        patch.setattr(judge_events, "_LONGEST_REMEMBERED", longest)
        for day, state in days_of(seed):
            adverse = adverse or AdverseRows(state.ledger, indicator)
            if rng.random() < 0.2:
                state.expire(day - int(rng.integers(0, 10)), day - 2 * DAYS)
            findings = findings_in(state, indicator, seed)
            for finding in findings if still else ():
                finding.window_days += day - (TODAY - DAYS)
            for _ in range(2):
                found = events_behind(state, adverse, CALENDAR, findings, day)
                assert found == [plainly(state, indicator, finding, day) for finding in findings]


def test_what_has_not_changed_is_not_looked_at_again() -> None:
    state = state_of(1)
    adverse, findings = AdverseRows(state.ledger, 0), findings_in(state, 0, 3)
    first, again = (events_behind(state, adverse, CALENDAR, findings, TODAY) for _ in range(2))
    assert findings
    assert all(one is two for one, two in zip(first, again, strict=True))


def test_another_event_in_the_place_of_one_that_was_forgotten_is_told() -> None:
    config = Config().replace(catalogue="open")
    state = AssessState(EventDecoder(config, config.load_catalogue()), 1_000)
    adverse, found = AdverseRows(state.ledger, 0), list[Behind]()
    for number, code in enumerate(("before", "after")):
        state.expire(TODAY + number, TODAY - DAYS)
        columns: dict[str, Any] = {name: np.full(1, number, dtype) for name, dtype in COLUMN_TYPES.items()}
        for name in ("flags", "indicator", "trace", "product", "region", "origin", "revision"):
            columns[name][:] = 0
        columns["hazard"][:], columns["reporter"][:], columns["x"][:], columns["day"][:] = -1, -1, 1, TODAY
        traces = [msgspec.json.encode([code, None, None, None]).decode()]
        tables: dict[str, Any] = {"products": ["A"], "regions": ["X"], "traces": traces}
        state.fold_tick(TODAY + number, [EventColumns(columns, origins=[("inspections", 0)], **tables)])
        found += events_behind(state, adverse, CALENDAR, [Finding(0, 0.001, {0: 1.0}, [], 9)], TODAY + 1)
    assert len(state.ledger) == 1
    assert [one.code for behind in found for one in behind.contributors] == ["before", "after"]


@pytest.mark.parametrize("indicator", [0, 1])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.lists(st.tuples(*[st.integers(-1, 2)] * 2, st.integers(0, 2)), max_size=5)),
            st.tuples(st.just("drop"), st.integers(0, 6)),
            st.tuples(st.just("ask"), st.integers(0, 12)),
        ),
        max_size=20,
    )
)
def test_adverse_rows_are_those_of_the_ledger_however_it_grows_and_forgets(
    indicator: int, steps: list[tuple[str, Any]]
) -> None:
    ledger, event = Ledger(), 0
    adverse = AdverseRows(ledger, indicator)
    for tick, (name, value) in enumerate(steps, start=100):
        if name == "drop":
            ledger.drop_before(tick - value)
        elif name == "add" and value:
            columns: dict[str, Any] = {key: np.zeros(len(value), dtype) for key, dtype in LEDGER_TYPES.items()}
            columns["event"] = np.arange(event, event + len(value)).astype(np.uint64)
            columns["x"], columns["day"], leaves = (np.array(column) for column in zip(*value, strict=True))
            columns["leaf"], columns["indicator"] = leaves, leaves % 2
            ledger.append(tick, columns)
            event += len(value)
        else:
            start = value if name == "ask" else 0
            mine = ledger["indicator"] == indicator
            if indicator == 0:
                mine &= ledger["x"] > 0
            for wanted in ([True, True, True], [False, True, False], [True, False, False]):
                told = adverse.of_leaves(start, 0, np.array(wanted))
                some = mine & np.array(wanted)[ledger["leaf"]] & (ledger["day"] >= 0)
                assert told.rows.tolist() == [row for row in np.flatnonzero(some).tolist() if row >= start]
                assert told.leaf.tolist() == ledger.at("leaf", told.rows).tolist()
                assert told.day.tolist() == ledger["day"][told.rows].tolist()


def roles_plainly(state: AssessState, indicator: int, findings: list[Finding]) -> dict[int, str]:
    """All pairs of cells, by the codes of their products and regions."""
    cells = state.stores[INDICATORS[indicator]].cells

    def lies_below(low: Finding, high: Finding) -> bool:
        inside = [b in (a, "*") or a.startswith(f"{b}/") for a, b in zip(cells[low.row], cells[high.row], strict=True)]
        return low is not high and all(inside)

    below = {high.row: [low for low in findings if lies_below(low, high)] for high in findings}
    explained = set()
    for finding in findings:
        window = min(finding.excess, key=lambda one: (-finding.excess[one], one))
        total = finding.excess[window]
        shares = sorted(below[finding.row], key=lambda one: (-one.excess.get(window, 0.0), one.row))
        apart: list[Finding] = []
        for one in shares:
            leaves = set(state.leaves_under(indicator, one.row))
            if len(apart) < 2 and all(leaves.isdisjoint(state.leaves_under(indicator, two.row)) for two in apart):
                apart.append(one)
        most = shares[0].excess.get(window, 0.0) if shares else None
        few = sum(one.excess.get(window, 0.0) for one in apart)
        if most is not None and (most >= 0.6 * total or few >= 0.8 * total):
            explained.add(finding.row)
    covered = {low.row for high in findings if high.row not in explained for low in below[high.row]}
    return {
        one.row: "explained" if one.row in explained else "part" if one.row in covered else "primary"
        for one in findings
    }


@settings(max_examples=60)
@given(SEEDS, st.sampled_from([0, 1]))
def test_roles_are_those_of_a_comparison_of_all_pairs(seed: int, indicator: int) -> None:
    state = state_of(seed % 7)
    findings = findings_in(state, indicator, seed)
    assert roles(state, indicator, findings) == roles_plainly(state, indicator, findings)
