"""The simulated Tianjin year: a city's quality and safety reports, with a few incidents planted among them.

The same seed gives the same bytes. The way of a year: the standing city (:mod:`streams.simulation.city`) says
how often what happens; the incidents (:mod:`streams.simulation.incidents`) bend those rates; the flows
(:mod:`streams.simulation.inspections`, :mod:`streams.simulation.reports`) draw happenings and make events of
them. Nothing here reads a clock, and every ``source`` begins with ``sim-``.

Each flow of each year draws from a stream of its own, so that a change to one leaves the others as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Final, NamedTuple

import msgspec
from numpy.random import PCG64, Generator, SeedSequence

from schemas.catalogue import Catalogue
from schemas.events import TOPICS, AnyEvent, Kind
from streams.simulation.city import build_city
from streams.simulation.draws import Draw
from streams.simulation.incidents import Planted, Pressure, plant
from streams.simulation.inspections import inspections
from streams.simulation.reports import accidents, complaints, injuries, losses, surveys

__all__ = ["Planted", "Record", "Simulation", "simulate"]

_FLOWS: Final[dict[Kind, Callable[[Draw], Iterator[tuple[int, AnyEvent]]]]] = {
    "inspection": inspections,
    "injury": injuries,
    "complaint": complaints,
    "accident": accidents,
    "survey": surveys,
    "loss": losses,
}


class Record(NamedTuple):
    """One record for a raw topic: short topic name, product code as key, JSON value, Unix milliseconds."""

    topic: str
    key: bytes
    value: bytes
    reported_at: int


@dataclass(frozen=True, slots=True)
class Simulation:
    """The records in the order of ``reported_at``, and what was planted among them."""

    events: list[Record]
    planted: tuple[Planted, ...]


def simulate(seed: int = 2024, year: int = 2024, scale: float = 1.0, history_years: int = 0) -> Simulation:
    """Simulate a year of Tianjin, after ``history_years`` healthy ones.

    Parameters
    ----------
    seed
        Of all chance.
    year
        The year in which the incidents are planted.
    scale
        How many inspections, injuries and complaints there are, against about 180,000 events a year. Surveys,
        losses, accidents and the bad batch do not scale.
    history_years
        Healthy years before it.

    Raises
    ------
    ValueError
        When a scale or a number of years makes no sense.

    Examples
    --------
    >>> year = simulate(scale=0.01)
    >>> year.events[0].topic in {"inspections", "injuries", "complaints"}
    True
    >>> [planted.key for planted in year.planted if not planted.expected]
    ['lab-drift', 'lab-silence']
    """
    if not 0.0 < scale <= 100.0:
        raise ValueError(f"scale is {scale}; give a number above 0, at most 100")
    if not 0 <= history_years <= 20:
        raise ValueError(f"history_years is {history_years}; give 0 to 20")
    # One stream for the city, one for each flow of each year counted back from the last: asking for more
    # history adds years before and changes nothing after.
    city = build_city(Catalogue.builtin("tianjin"), Generator(PCG64(SeedSequence([seed, 0]))))
    encoder = msgspec.json.Encoder()
    records: list[Record] = []
    planted: list[Planted] = []
    for back in range(history_years, -1, -1):
        days = (date(year - back + 1, 1, 1) - date(year - back, 1, 1)).days
        pressure = plant(city, year, days) if back == 0 else Pressure.none(city, days)
        planted += pressure.planted
        for number, (kind, flow) in enumerate(_FLOWS.items()):
            rng = Generator(PCG64(SeedSequence([seed, 1, back, number])))
            topic = TOPICS[kind]
            records += [
                Record(topic, event.product.encode(), encoder.encode(event), unix * 1000)
                for unix, event in flow(Draw(city, pressure, rng, year - back, scale))
            ]
    # A stable sort: records of one second keep the order in which the flows made them.
    records.sort(key=lambda record: record.reported_at)
    return Simulation(records, tuple(planted))
