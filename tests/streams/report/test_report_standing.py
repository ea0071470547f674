"""The report's figures are those of a brute force over the raw records, and its verdicts those of the targets."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import pytest
from builders import DAY, GOOD_USCC, START, Cells, Raw, body, encoded, numbered, oracle_cells, world_config
from held import Held
from report_world import alerts_of, refused_of, view_of, world_of

from streams.config import Config
from streams.report.periods import Period, Span, between
from streams.report.record import Record, fold, gather
from streams.report.sources import by_kind, refusals, reporters
from streams.report.standing import COUNTS, RATES, Standing, matrix, rank, standings

PERIOD = between(date(2024, 3, 1), date(2024, 4, 15))
ALL = between(date(2023, 12, 1), date(2025, 6, 1))
CITY = "120000"


def summed(cells: Cells, indicator: str, region: str, span: Span, *, product: str = "") -> tuple[int, int]:
    """(x, n) of the cells of whole branches (or of one product node) in a region."""
    x = n = 0
    for (name, node, where, day), counts in cells.items():
        right = node == product if product else len(node) == 1
        if name == indicator and right and where == region and span[0] <= day < span[1]:
            x, n = x + counts[0], n + counts[-1]
    return x, n


@pytest.mark.parametrize("seed", range(2))
def test_figures_of_every_region_are_those_of_a_brute_force(seed: int) -> None:
    cells = oracle_cells(world_of(seed).raw, refused_of(seed))
    view = view_of(seed, PERIOD)
    found = standings(view.record, PERIOD)
    assert found[0].region == CITY
    assert len(found) == 17  # the city and its sixteen districts, with events or not
    for one in found:
        for name in RATES:
            figure = one.rates.get(name)
            got = (0, 0) if figure is None else (figure.x, figure.n)
            assert got == summed(cells, name, one.region, PERIOD.days)
            if figure is not None:
                x, n = summed(cells, name, one.region, PERIOD.before)
                assert (figure.before is None) == (n == 0)
                if name == "pass" and n:
                    assert figure.before == pytest.approx(1 - x / n)
        for name in COUNTS:
            spans = (PERIOD.days, PERIOD.before, PERIOD.year_before)
            assert one.counts[name] == tuple(summed(cells, name, one.region, span)[0] for span in spans)
    assert sum(one.rates["pass"].n for one in found if "pass" in one.rates) > 0


@pytest.mark.parametrize("seed", range(2))
def test_ranked_cells_and_the_matrix_are_those_of_a_brute_force(seed: int) -> None:
    cells = oracle_cells(world_of(seed).raw, refused_of(seed))
    record = view_of(seed, ALL).record
    found = rank(record, ALL, "pass", 5)
    for one in (*found.worst, *found.best):
        assert (one.figure.x, one.figure.n) == summed(cells, "pass", one.region, ALL.days, product=one.product)
    uppers = [one.figure.upper or 0.0 for one in found.worst]
    assert uppers == sorted(uppers)
    assert min(one.figure.lower or 0.0 for one in found.best) >= min(one.figure.lower or 0.0 for one in found.worst)
    table = matrix(record, ALL, (40, 24))
    assert table.indicator == "pass"
    assert table.regions[0] == CITY
    for (region, product), figure in table.cells.items():
        assert (figure.x, figure.n) == summed(cells, "pass", region, ALL.days, product=product)
    small = matrix(record, ALL, (2, 3))
    assert (len(small.regions), len(small.products)) == (2, 3)
    assert small.left_out == (len(table.regions) - 2, len(table.products) - 3)


def test_the_data_quality_section_accounts_for_every_record() -> None:
    world, view = world_of(0), view_of(0, ALL)
    facts = {one.topic: one for one in by_kind(view.record, ALL.days)}
    for topic, one in facts.items():
        records = sum(len(rows) for origin, rows in world.raw.items() if origin[0] == topic)
        assert one.arrived + one.refused == records
        assert one.counted <= one.arrived
    refused = len([origin for origin, _ in refused_of(0) if origin[0] in facts])
    assert sum(count for _, count in refusals(view.record, ALL.days)) == refused > 0
    assert sum(one.arrived for one in reporters(view.record, ALL.days)) == sum(one.arrived for one in facts.values())
    tested = sum(one.tested for one in reporters(view.record, ALL.days))
    assert tested == standings(view.record, ALL)[0].rates["pass"].n


# --- verdicts ------------------------------------------------------------------------------------------------------


def record_of(events: Iterable[tuple[str, dict[str, object]]]) -> Record:
    raw: Raw = {}
    for topic, event in events:
        raw.setdefault((topic, 0), []).extend(numbered([(START + 400 * DAY, encoded(event))]))
    raw = {
        origin: [row._replace(offset=at) for at, row in enumerate(rows)] for origin, rows in raw.items()
    }  # fmt: skip
    config = world_config(intake={"lateness_days": 1_000}, state={"remember_days": 2_000})
    gathered = gather(Held(raw), config, Config().load_catalogue())  # type: ignore[arg-type]
    return fold(gathered, [], 0)


def inspection(name: str, product: str, tested: int, failed: int, day: int = 10) -> tuple[str, dict[str, object]]:
    own = {"product": product, "tested": tested, "failed": failed}
    return "inspections", body("inspections", name, START + day * DAY, **own)


def city(record: Record, period: Period = ALL) -> Standing:
    return standings(record, period)[0]


def test_a_region_is_held_against_the_target_of_its_own_mix() -> None:
    # 98 % is asked of dairy, 90 % of drones, nothing of construction works.
    found = city(record_of([
        inspection("a", "F0101", 300, 9), inspection("b", "A0103", 100, 5), inspection("c", "W0101", 50, 50),
    ])).rates["pass"]  # fmt: skip
    assert found.target == pytest.approx((300 * 0.98 + 100 * 0.90) / 400)
    assert found.value == pytest.approx(1 - 64 / 450)  # all that was tested
    assert found.verdict == "met"  # 386 of 400 passed, 384 are asked


@pytest.mark.parametrize(("failed", "verdict"), [(0, "met"), (6, "met"), (8, "short"), (60, "below")])
def test_missed_by_chance_is_told_from_missed_for_sure(failed: int, verdict: str) -> None:
    assert city(record_of([inspection("a", "F0101", 300, failed)])).rates["pass"].verdict == verdict


@pytest.mark.parametrize(("loss", "verdict"), [(800.0, "met"), (1_000.0, "below"), (1_200.0, "below")])
def test_the_loss_rate_is_to_lie_below_last_years(loss: float, verdict: str) -> None:
    def one(name: str, day: int, lost: float) -> tuple[str, dict[str, object]]:
        own = {"product": "A0103", "producer": GOOD_USCC, "loss_cny": lost, "output_cny": 90_000.0}
        return "losses", body("losses", name, START + day * DAY, **own)

    record = record_of([one("past", 10, 1_000.0), one("now", 376, loss)])
    year = between(date(2025, 1, 1), date(2025, 2, 1))
    found = city(record, year).rates["loss"]
    assert (found.verdict, found.target) == (verdict, pytest.approx(1 / 90))
    assert city(record, between(date(2024, 1, 1), date(2024, 2, 1))).rates["loss"].verdict == "none"


def test_satisfaction_is_a_mean_over_answers() -> None:
    def one(name: str, score: float, respondents: int) -> tuple[str, dict[str, object]]:
        own = {"product": "T0101", "score": score, "respondents": respondents}
        return "surveys", body("surveys", name, START + 10 * DAY, **own)

    found = city(record_of([one("a", 90.0, 300), one("b", 60.0, 100)])).rates["satisfaction"]
    assert (found.value, found.n, found.target, found.verdict) == (pytest.approx(82.5), 400, 80.0, "met")


def test_alerts_that_stood_in_the_period_are_there_as_they_were_at_its_end() -> None:
    spring = between(date(2024, 3, 1), date(2024, 5, 15))
    view = view_of(0, spring)
    end = view.record.calendar.moment(spring.days[1] * DAY - 8 * 3_600_000)
    assert view.cases
    expected = set()
    for alert in alerts_of(0):
        mine = [one for one in alerts_of(0) if one.id == alert.id and one.as_of <= end]
        over = [one.as_of for one in mine if one.status == "resolved"]
        if mine and not (over and view.record.calendar.day(view.record.calendar.epoch_ms(over[0])) < spring.days[0]):
            expected.add(alert.id)
    assert {case.last.id for case in view.cases} == expected
    assert all(one.as_of <= end for case in view.cases for one in case.revisions)
    assert any(case.answers for case in view.cases)
