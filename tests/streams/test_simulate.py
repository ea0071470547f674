"""The simulated year: same seed same bytes, only valid records, and every planted thing visible."""

from collections import Counter
from collections.abc import Callable
from datetime import date

import msgspec
import pytest

from schemas.catalogue import Catalogue
from schemas.codes import check_gtin, check_region_shape, check_uscc
from schemas.events import EVENT_TYPES, AnyEvent, Complaint, Injury, Inspection, check
from schemas.topics import kind_of_topic
from streams.simulate import Planted, Simulation, simulate
from streams.simulation.city import LABS, NEAR_TARGET

CATALOGUE = Catalogue.builtin("tianjin")


@pytest.fixture(scope="module")
def year() -> Simulation:
    return simulate()


@pytest.fixture(scope="module")
def events(year: Simulation) -> list[AnyEvent]:
    decoders = {kind: msgspec.json.Decoder(struct) for kind, struct in EVENT_TYPES.items()}
    return [decoders[kind_of_topic(record.topic)].decode(record.value) for record in year.events]


def planted(year: Simulation, key: str) -> Planted:
    return next(one for one in year.planted if one.key == key)


def within(one: Planted, event: AnyEvent) -> bool:
    return one.start <= event.reported_at.date() <= one.end


def failure_rate(events: list[AnyEvent], wanted: Callable[[Inspection], bool]) -> tuple[int, float]:
    """Samples and the share that failed, by brute force; each report in its last revision."""
    last: dict[tuple[str, str], Inspection] = {}
    for event in events:
        if isinstance(event, Inspection) and wanted(event):
            last[event.source, event.event_id] = event
    tested = sum(event.tested or 1 for event in last.values())
    failed = sum(event.failed if event.failed is not None else event.verdict == "fail" for event in last.values())
    return tested, failed / max(tested, 1)


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    first, again, other = simulate(scale=0.05), simulate(scale=0.05), simulate(seed=7, scale=0.05)
    assert first.events == again.events
    assert first.planted == again.planted
    assert first.events != other.events


def test_a_year_is_of_the_promised_size_and_in_order(year: Simulation) -> None:
    assert 150_000 <= len(year.events) <= 250_000
    times = [record.reported_at for record in year.events]
    assert times == sorted(times)
    counts = Counter(record.topic for record in year.events)
    assert counts["inspections"] > counts["complaints"] > counts["injuries"] > counts["surveys"] > 0
    assert counts["losses"] > 0
    assert counts["accidents"] == 13


def test_history_goes_before_and_changes_nothing_after() -> None:
    alone, after = simulate(scale=0.02), simulate(scale=0.02, history_years=2)
    assert after.events[-len(alone.events) :] == alone.events
    years = Counter(msgspec.json.decode(record.value)["reported_at"][:4] for record in after.events)
    assert set(years) == {"2022", "2023", "2024"}
    assert after.planted == alone.planted
    assert all(one.start.year == 2024 for one in after.planted)


def test_every_record_is_valid_and_says_that_it_is_simulated(year: Simulation, events: list[AnyEvent]) -> None:
    ids = Counter()  # type: ignore[var-annotated]
    for record, event in zip(year.events, events, strict=True):
        check(event)
        assert event.source.startswith("sim-")
        assert len(CATALOGUE.products.path(event.product)) == 3
        assert CATALOGUE.regions.path(event.region)[0] == "120000"
        assert record.key == event.product.encode()
        assert record.reported_at == event.reported_at.timestamp() * 1000
        assert event.reported_at.year == 2024
        assert event.occurred_at is None or event.occurred_at <= event.reported_at
        ids[record.topic, event.source, event.event_id, event.revision] += 1
        if isinstance(event, Complaint):
            assert event.channel in CATALOGUE.hotlines
    assert set(ids.values()) == {1}


def test_every_code_has_its_check_character(events: list[AnyEvent]) -> None:
    producers = {event.producer for event in events} - {None}
    gtins = {getattr(event, "gtin", None) for event in events} - {None}
    assert len(producers) > 500
    assert len(gtins) > 300
    for producer in producers:
        check_uscc(producer)  # type: ignore[arg-type]
    for gtin in gtins:
        check_gtin(gtin)  # type: ignore[arg-type]
    for region in {event.region for event in events}:
        check_region_shape(region)


def test_a_healthy_product_stays_well_within_its_target(year: Simulation, events: list[AnyEvent]) -> None:
    hurt = {"F0201", "F0301", *CATALOGUE.products.children("L01")}
    rates: dict[str, list[int]] = {}
    for event in events:
        if isinstance(event, Inspection) and event.product not in hurt:
            tally = rates.setdefault(event.product, [0, 0])
            tally[0] += event.tested or 1
            tally[1] += event.failed if event.failed is not None else event.verdict == "fail"
    for product, (tested, failed) in rates.items():
        allowed = 1 - (CATALOGUE.targets_for(product).pass_rate or 0.92)
        assert failed / tested < allowed * (0.9 if product in NEAR_TARGET else 0.5), product


def test_what_must_not_fail_does_not(events: list[AnyEvent]) -> None:
    for stage in ("export", "works-acceptance"):
        tested, rate = failure_rate(events, lambda event, stage=stage: event.stage == stage)  # type: ignore[misc]
        assert tested > 1000
        assert rate == 0


def test_the_laboratories_differ_modestly_and_all_report(events: list[AnyEvent]) -> None:
    for lab in LABS[:4]:
        tested, rate = failure_rate(
            events, lambda event, lab=lab: event.lab == lab and event.product[0] == "F"  # type: ignore[misc]
        )  # fmt: skip
        assert tested > 3000
        assert 0.005 < rate < 0.025
    assert {event.lab for event in events if isinstance(event, Inspection)} == set(LABS)


def test_only_failures_are_corrected_and_only_later(events: list[AnyEvent]) -> None:
    first = {event.event_id: event for event in events if isinstance(event, Inspection) and not event.revision}
    retests = [event for event in events if isinstance(event, Inspection) and event.revision]
    assert len(retests) > 10
    for event in retests:
        assert event.verdict == "pass"
        assert first[event.event_id].verdict == "fail"
        assert first[event.event_id].reported_at < event.reported_at


def test_the_bad_batch_is_one_batch_of_one_maker_in_three_districts(year: Simulation, events: list[AnyEvent]) -> None:
    one = planted(year, "bad-batch")
    mine = [event for event in events if getattr(event, "batch", None) == one.batch]
    assert {event.producer for event in mine} == {one.producer}
    assert {event.region for event in mine} == set(one.regions)
    assert all(within(one, event) for event in mine)
    assert sum(isinstance(event, Injury) for event in mine) >= 15
    assert sum(isinstance(event, Complaint) for event in mine) >= 40
    tested, rate = failure_rate(events, lambda event: event.batch == one.batch)
    assert tested > 30
    assert rate > 0.5


@pytest.mark.parametrize("key", ["district-meat", "industry-appliances"])
def test_a_planted_pass_rate_breaks_the_target_then_and_only_then(
    year: Simulation, events: list[AnyEvent], key: str
) -> None:
    one = planted(year, key)
    allowed = 1 - (CATALOGUE.targets_for(one.product or "").pass_rate or 1)

    def mine(event: Inspection) -> bool:
        return event.product.startswith(one.product or "?") and event.region in one.regions

    tested, rate = failure_rate(events, lambda event: mine(event) and within(one, event))
    assert tested > 60
    assert rate > 1.3 * allowed
    _, rate = failure_rate(events, lambda event: mine(event) and not within(one, event))
    assert rate < 0.6 * allowed


def test_the_industry_incident_shows_in_most_districts_and_every_product(
    year: Simulation, events: list[AnyEvent]
) -> None:
    one = planted(year, "industry-appliances")
    assert len(one.regions) == 13
    for product in CATALOGUE.products.children("L01"):
        _, rate = failure_rate(
            events, lambda event, product=product: event.product == product and within(one, event)  # type: ignore[misc]
        )  # fmt: skip
        assert rate > 0.08, product


def test_the_grave_accident_is_the_only_death(year: Simulation, events: list[AnyEvent]) -> None:
    one = planted(year, "metro-accident")
    deadly = [event for event in events if getattr(event, "deaths", 0) or getattr(event, "outcome", "") == "died"]
    assert [(event.product, event.region) for event in deadly] == [(one.product, one.region)]
    assert deadly[0].deaths == 12  # type: ignore[union-attr]
    assert deadly[0].structural  # type: ignore[union-attr]
    assert within(one, deadly[0])


def test_the_injury_surge_stands_out_of_its_cell(year: Simulation, events: list[AnyEvent]) -> None:
    one = planted(year, "ebike-injuries")
    cell = [
        event
        for event in events
        if isinstance(event, Injury) and (event.product, event.region) == (one.product, one.region)
    ]
    inside = sum(within(one, event) for event in cell)
    days = (one.end - one.start).days + 1
    usual = (len(cell) - inside) / (366 - days) * days
    assert inside > 20
    assert inside > 4 * usual


def test_the_drifting_laboratory_passes_ever_more_and_the_silent_one_stops(
    year: Simulation, events: list[AnyEvent]
) -> None:
    drift, silence = planted(year, "lab-drift"), planted(year, "lab-silence")
    _, before = failure_rate(events, lambda event: event.lab == drift.source and not within(drift, event))
    autumn = date(2024, 9, 1)
    _, after = failure_rate(events, lambda event: event.lab == drift.source and event.reported_at.date() >= autumn)
    assert after < before / 3
    reports = [event for event in events if event.source == silence.source]
    assert len(reports) > 1000
    assert not any(within(silence, event) for event in reports)


def test_every_incident_is_expected_to_raise_an_alert(year: Simulation) -> None:
    assert all(one.expected for one in year.planted)
    assert [one.source is not None for one in year.planted] == [one.product is None for one in year.planted]
    assert all(bool(one.expected_kinds) == one.expected for one in year.planted)
    assert len({one.key for one in year.planted}) == 7


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": -1.0}, {"scale": 1e9}, {"history_years": -1}])
def test_a_senseless_size_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give"):
        simulate(**wrong)  # type: ignore[arg-type]
