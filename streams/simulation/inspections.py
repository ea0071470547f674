"""The laboratories' flow: sampling visits become single verdicts, aggregates and retests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.events import AnyEvent, Inspection, Item
from streams.simulation.batch import batch_inspections
from streams.simulation.city import LABS, Floats, Ints
from streams.simulation.draws import DAY, Cells, Draw, choose, happenings, pick, season, week_activity, when

__all__ = ["inspections"]

VISITS: Final = 68_000
"""Of a year at scale 1."""

_STAGES: Final = ("production", "circulation", "online", "export")
_STAGE_SHARES: Final = (0.35, 0.45, 0.15, 0.05)
_SEVERITIES: Final = ("minor", "major", "critical")
_PARAMETERS: Final = {
    "F": ("菌落总数", "CFU/g"),
    "P": ("农药残留", "mg/kg"),
    "B": ("含量", "%"),
    "L": ("安全结构", ""),
    "I": ("电磁兼容", "dB"),
    "E": ("机械强度", "MPa"),
    "C": ("有害物质限量", "mg/kg"),
    "N": ("力学性能", "MPa"),
    "W": ("混凝土强度", "MPa"),
}


class _Visits(NamedTuple):
    """Sampling visits: one laboratory, one maker, one batch or a mixed lot."""

    cells: Cells
    lab: Ints
    maker: Ints
    batch: Ints
    stage: NDArray[np.str_]
    failure: Floats
    aggregate: NDArray[np.bool_]


def inspections(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    """Single verdicts and aggregates of the laboratories, retests of some failures, and the bad batch."""
    visits = _visits(draw)
    yield from _singles(draw, visits)
    yield from _aggregates(draw, visits)
    yield from batch_inspections(draw)


def _visits(draw: Draw) -> _Visits:
    city, rng, pressure = draw.city, draw.rng, draw.pressure
    week = week_activity(draw, weekend=0.15, holiday=0.3)
    cells = happenings(draw, VISITS, city.inspected, week, pressure.sampling)
    lab = np.minimum(pick(rng, city.lab_share[cells.leaf]), len(LABS) - 1)
    open_ = pressure.lab_open[lab, cells.day] > 0
    cells, lab = Cells(*(index[open_] for index in cells)), lab[open_]
    makers = np.array([len(makers) for makers in city.producers])
    maker = (rng.random(lab.size) * makers[cells.leaf]).astype(np.int64)
    # A batch is a fortnight of one maker's work on one of three lines.
    batch = ((cells.leaf * 8 + maker) * 27 + cells.day // 14) * 3 + rng.integers(0, 3, lab.size)
    aggregate = rng.random(lab.size) < 0.4
    works = np.char.startswith(np.array(city.leaves), "W")[cells.leaf]
    stage = np.array(_STAGES)[rng.choice(4, lab.size, p=_STAGE_SHARES)].astype("<U16")
    stage[works] = np.where(rng.random(int(works.sum())) < 0.5, "works-acceptance", "")
    failure = _failure(draw, cells, lab, batch, aggregate)
    # What the opinion wants without a single failure is, in a healthy city, without one.
    failure[(stage == "export") | (stage == "works-acceptance")] = 0.0
    return _Visits(cells, lab, maker, batch, stage, failure, aggregate)


def _failure(draw: Draw, cells: Cells, lab: Ints, batch: Ints, aggregate: NDArray[np.bool_]) -> Floats:
    """The chance that a sample fails: product, season, incident, laboratory, and the luck of its batch."""
    city, rng, pressure = draw.city, draw.rng, draw.pressure
    base = city.failure[cells.leaf] * season(city, draw.days)[cells.leaf, cells.day]
    base = base + pressure.failure_added[cells]
    base = base * city.strictness[lab] * pressure.lab_odds[lab, cells.day]
    # Samples of one batch share their fate; an aggregate mixes batches, which evens out.
    _, same = np.unique(batch, return_inverse=True)
    luck = rng.gamma(2.0, 1 / 2.0, int(same.max(initial=-1)) + 1)[same]
    mixed = rng.gamma(8.0, 1 / 8.0, lab.size)
    return np.asarray(np.minimum(base * np.where(aggregate, mixed, luck), 0.9))


def _singles(draw: Draw, visits: _Visits) -> Iterator[tuple[int, AnyEvent]]:
    city, rng = draw.city, draw.rng
    one = np.nonzero(~visits.aggregate)[0]
    row = np.repeat(one, rng.choice([1, 2, 3], one.size, p=[0.55, 0.3, 0.15]))
    fails = rng.random(row.size) < visits.failure[row]
    reported = draw.at(visits.cells.day[row], 8, 18)
    taken = reported - rng.integers(2, 9, row.size) * DAY
    grades = choose(rng, _SEVERITIES, (0.65, 0.34, 0.01), row.size)
    retested = rng.random(row.size) < 0.03
    cells = visits.cells
    columns = (
        cells.leaf[row], cells.district[row], visits.lab[row], visits.maker[row], visits.batch[row],
        visits.stage[row], fails, reported, taken, retested,
    )  # fmt: skip
    rows = zip(*(column.tolist() for column in columns), grades, strict=True)
    for number, (leaf, district, lab, maker, batch, stage, failed, at, sampled, again, grade) in enumerate(rows):
        code, producer = city.leaves[leaf], city.producers[leaf][maker]
        event = Inspection(
            event_id=f"{draw.year}-s{number:06d}",
            source=LABS[lab],
            reported_at=when(at),
            occurred_at=when(sampled),
            product=code,
            region=city.districts[district],
            lab=LABS[lab],
            producer=producer.uscc,
            batch=f"{draw.year}-{batch:06d}",
            gtin=producer.gtin,
            stage=stage or None,
            scheme="supervision",
            verdict="fail" if failed else "pass",
            severity=grade if failed else None,
            items=[_bad_item(code)] if failed else [],
        )
        yield at, event
        if failed and again:
            yield from _retest(draw, event, at)


def _bad_item(code: str) -> Item:
    parameter, unit = _PARAMETERS.get(code[0], ("性能", ""))
    return Item(parameter=parameter, value="不符合", limit="标准要求", unit=unit or None, conforming=False)


def _retest(draw: Draw, event: Inspection, at: int) -> Iterator[tuple[int, AnyEvent]]:
    """A correction ten days later: the retest passed."""
    later = at + 10 * DAY
    day = (later - draw.midnight) // DAY
    if day < draw.days and draw.pressure.lab_open[LABS.index(event.lab), day] > 0:
        fields = {name: getattr(event, name) for name in event.__struct_fields__}
        fields |= {
            "revision": 1,
            "reported_at": when(later),
            "verdict": "pass",
            "items": [],
            "severity": None,
        }
        yield later, Inspection(**fields)


def _aggregates(draw: Draw, visits: _Visits) -> Iterator[tuple[int, AnyEvent]]:
    city, rng = draw.city, draw.rng
    row = np.nonzero(visits.aggregate)[0]
    tested = rng.integers(5, 31, row.size)
    failed = rng.binomial(tested, visits.failure[row])
    reported = draw.at(visits.cells.day[row], 8, 18)
    cells = visits.cells
    columns = (
        cells.leaf[row], cells.district[row], visits.lab[row], visits.stage[row], tested, failed, reported,
    )  # fmt: skip
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for number, (leaf, district, lab, stage, samples, failures, at) in enumerate(rows):
        yield (
            at,
            Inspection(
                event_id=f"{draw.year}-a{number:06d}",
                source=LABS[lab],
                reported_at=when(at),
                product=city.leaves[leaf],
                region=city.districts[district],
                lab=LABS[lab],
                stage=stage or None,
                scheme="risk-monitoring",
                tested=samples,
                failed=failures,
            ),
        )
