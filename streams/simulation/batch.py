"""The bad batch: records of one maker's one batch, which no rate over products and districts can express."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from schemas.events import AnyEvent, Complaint, Injury, Inspection, Item
from streams.simulation.city import LABS, Ints, Producer
from streams.simulation.draws import DAY, Draw, hospitals, when
from streams.simulation.incidents import Planted

__all__ = ["batch_complaints", "batch_injuries", "batch_inspections"]


def _bad_batch(draw: Draw, share: float, size: int) -> tuple[Planted, Producer, list[str], Ints] | None:
    """The incident, its maker, and districts and days for ``size`` records from ``share`` of its span on."""
    planted = next((one for one in draw.pressure.planted if one.kind == "batch"), None)
    if planted is None or planted.product is None:
        return None
    producer = draw.city.producers[draw.city.leaf(planted.product)][0]
    first = (planted.start - planted.start.replace(month=1, day=1)).days
    span = (planted.end - planted.start).days + 1
    days = first + np.sort(draw.rng.integers(int(share * span), span, size))
    regions = [planted.regions[i] for i in draw.rng.integers(0, len(planted.regions), size).tolist()]
    return planted, producer, regions, days


def batch_inspections(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    """Samples drawn after the first complaints; most fail."""
    found = _bad_batch(draw, 0.2, 48)
    if found is None:
        return
    planted, producer, regions, days = found
    reported = draw.at(days, 8, 18).tolist()
    fails = (draw.rng.random(days.size) < 0.65).tolist()
    labs = draw.rng.choice([0, 1, 3], days.size).tolist()
    for number, (at, region, failed, lab) in enumerate(zip(reported, regions, fails, labs, strict=True)):
        event = Inspection(
            event_id=f"{draw.year}-b{number:03d}",
            source=LABS[lab],
            reported_at=when(at),
            occurred_at=when(at - 2 * DAY),
            product=planted.product or "",
            region=region,
            lab=LABS[lab],
            producer=producer.uscc,
            batch=planted.batch,
            gtin=producer.gtin,
            stage="circulation",
            scheme="complaint-driven",
            verdict="fail" if failed else "pass",
            severity="major" if failed else None,
            items=[Item(parameter="阪崎肠杆菌", value="检出", limit="不得检出", conforming=False)] if failed else [],
        )
        yield at, event


def batch_injuries(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    found = _bad_batch(draw, 0.0, 22)
    if found is None:
        return
    planted, producer, regions, days = found
    places = np.array([draw.city.district(region) for region in regions])
    sites = hospitals(draw, places)
    ages = np.round(draw.rng.uniform(0.1, 2.5, days.size), 1).tolist()
    reported = draw.at(days, 0, 24).tolist()
    for number, (at, region, site, age) in enumerate(zip(reported, regions, sites, ages, strict=True)):
        event = Injury(
            event_id=f"{draw.year}-j{number:03d}",
            source=site,
            reported_at=when(at),
            occurred_at=when(at - DAY),
            product=planted.product or "",
            region=region,
            site=site,
            severity=3 if number % 4 == 0 else 2,
            outcome="admitted" if number % 4 == 0 else "treated-released",
            age=age,
            injury="疑似食物中毒",
            body_part="消化道",
            producer=producer.uscc,
            batch=planted.batch,
            gtin=producer.gtin,
        )
        yield at, event


def batch_complaints(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    found = _bad_batch(draw, 0.0, 60)
    if found is None:
        return
    planted, producer, regions, days = found
    for number, (at, region) in enumerate(zip(draw.at(days, 8, 21).tolist(), regions, strict=True)):
        event = Complaint(
            event_id=f"{draw.year}-k{number:03d}",
            source="sim-hotline-12331",
            reported_at=when(at),
            product=planted.product or "",
            region=region,
            channel="12331",
            category="安全",
            severity="major",
            producer=producer.uscc,
            batch=planted.batch,
            gtin=producer.gtin,
        )
        yield at, event
