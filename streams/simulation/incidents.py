"""What is planted in the simulated year, as changes to its rates: the answers to hold alerts against.

Seven incidents: five of products, works and services, and two of laboratories.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

import msgspec
import numpy as np

from schemas.alerts import AlertKind, Scope
from streams.simulation.city import LABS, City, Floats

__all__ = ["BATCH", "Planted", "Pressure", "plant"]

BATCH = "sim-bad-batch-01"
"""The bad batch's number."""


class Planted(msgspec.Struct, frozen=True, kw_only=True):
    """One planted incident.

    Parameters
    ----------
    key
        A short stable name.
    kind
        ``batch``, ``district``, ``industry``, ``accident``, ``injuries``, ``lab-drift`` or ``lab-silence``.
    product, region
        The node where it shows best; None where it has none.
    regions
        The districts concerned.
    start, end
        First and last day, in the city's own time, on which its records are *reported*.
    expected
        Whether an alert must be raised.
    expected_kinds
        The kinds of alert of which at least one must be raised.
    expected_scope
        The scope that fits.
    source, producer, batch
        The laboratory, maker and batch concerned.
    """

    key: str
    kind: str
    product: str | None
    region: str | None
    regions: tuple[str, ...] = ()
    start: date
    end: date
    zh: str
    en: str
    expected: bool
    expected_kinds: tuple[AlertKind, ...] = ()
    expected_scope: Scope | None = None
    source: str | None = None
    producer: str | None = None
    batch: str | None = None


@dataclass(slots=True)
class Pressure:
    """How a year departs from health; arrays are [leaf, district, day] or [lab, day]."""

    failure_added: Floats
    sampling: Floats
    injuries: Floats
    complaints: Floats
    lab_odds: Floats
    lab_open: Floats
    planted: list[Planted] = field(default_factory=list)

    @classmethod
    def none(cls, city: City, days: int) -> Pressure:
        """A healthy year."""
        shape = (len(city.leaves), len(city.districts), days)
        labs = (len(LABS), days)
        return cls(
            np.zeros(shape), np.ones(shape), np.ones(shape), np.ones(shape), np.ones(labs), np.ones(labs)
        )  # fmt: skip


def plant(city: City, year: int, days: int) -> Pressure:
    """The pressure of the year in which everything is planted."""
    pressure = Pressure.none(city, days)
    for step in (_batch, _district, _industry, _accident, _injuries, _lab_drift, _lab_silence):
        pressure.planted.append(step(pressure, city, year))
    return pressure


def _span(start: date, end: date) -> slice:
    first = date(start.year, 1, 1)
    return slice((start - first).days, (end - first).days + 1)


def _batch(_: Pressure, city: City, year: int) -> Planted:
    # Its records are made one by one (streams.simulation.batch): rates cannot express one batch of one maker.
    return Planted(
        key="bad-batch",
        kind="batch",
        product="F0201",
        region="120000",
        regions=("120104", "120110", "120116"),
        start=date(year, 4, 8),
        end=date(year, 5, 3),
        zh="一家企业一个批次的婴幼儿配方乳粉不合格，三个区出现投诉和伤害",
        en="One maker's batch of infant formula fails; complaints and injuries in three districts",
        expected=True,
        expected_kinds=("pass-rate", "injury-surge", "complaint-surge"),
        expected_scope="cell",
        producer=city.producers[city.leaf("F0201")][0].uscc,
        batch=BATCH,
    )


def _district(pressure: Pressure, city: City, year: int) -> Planted:
    start, end = date(year, 6, 3), date(year, 7, 7)
    cell = (city.leaf("F0301"), city.district("120114"), _span(start, end))
    pressure.failure_added[cell] = 0.18
    pressure.sampling[cell] = 2.0
    return Planted(
        key="district-meat",
        kind="district",
        product="F0301",
        region="120114",
        regions=("120114",),
        start=start,
        end=end,
        zh="武清区酱卤肉合格率五周内大幅下降",
        en="The pass rate of cooked meat collapses in Wuqing for five weeks",
        expected=True,
        expected_kinds=("pass-rate",),
        expected_scope="cell",
    )


def _industry(pressure: Pressure, city: City, year: int) -> Planted:
    start, end = date(year, 9, 2), date(year, 10, 13)
    spared = {"120101", "120117", "120119"}
    districts = tuple(code for code in city.districts if code not in spared)
    span = _span(start, end)
    for leaf in city.below("L01"):
        for code in districts:
            pressure.failure_added[leaf, city.district(code), span] = 0.15
    return Planted(
        key="industry-appliances",
        kind="industry",
        product="L01",
        region="120000",
        regions=districts,
        start=start,
        end=end,
        zh="家用电器合格率在多数区同时下滑六周",
        en="The pass rate of household appliances sags over most districts for six weeks",
        expected=True,
        expected_kinds=("pass-rate",),
        expected_scope="industry",
    )


def _accident(_: Pressure, city: City, year: int) -> Planted:
    day = date(year, 8, 21)
    return Planted(
        key="metro-accident",
        kind="accident",
        product="W0401",
        region="120103",
        regions=("120103",),
        start=day,
        end=day,
        zh="河西区地铁隧道结构坍塌，12人死亡（Ⅱ级）",
        en="A metro tunnel collapses in Hexi: 12 deaths (level II)",
        expected=True,
        expected_kinds=("grave-event",),
        expected_scope="cell",
        producer=city.producers[city.leaf("W0401")][0].uscc,
    )


def _injuries(pressure: Pressure, city: City, year: int) -> Planted:
    start, end = date(year, 7, 15), date(year, 8, 11)
    cell = (city.leaf("L0502"), city.district("120111"), _span(start, end))
    pressure.injuries[cell] = 7.0
    pressure.complaints[cell] = 2.0
    return Planted(
        key="ebike-injuries",
        kind="injuries",
        product="L0502",
        region="120111",
        regions=("120111",),
        start=start,
        end=end,
        zh="西青区电动自行车伤害四周内激增",
        en="Injuries by electric bicycles surge in Xiqing for four weeks",
        expected=True,
        expected_kinds=("injury-surge",),
        expected_scope="cell",
    )


def _lab_drift(pressure: Pressure, city: City, year: int) -> Planted:
    start, end = date(year, 6, 1), date(year, 12, 31)
    span = _span(start, end)
    days = np.arange(span.stop - span.start)
    # It passes ever more of what it sees: down to a tenth of its failures after three months.
    pressure.lab_odds[7, span] = np.maximum(0.1, 1.0 - 0.9 * days / 90.0)
    return Planted(
        key="lab-drift",
        kind="lab-drift",
        product=None,
        region=None,
        start=start,
        end=end,
        zh="一家检验机构的判定逐渐变宽",
        en="A laboratory grows ever more lenient",
        expected=True,
        expected_kinds=("lab-drift",),
        source=LABS[7],
    )


def _lab_silence(pressure: Pressure, city: City, year: int) -> Planted:
    start, end = date(year, 10, 8), date(year, 12, 31)
    pressure.lab_open[2, _span(start, end)] = 0.0
    return Planted(
        key="lab-silence",
        kind="lab-silence",
        product=None,
        region=None,
        start=start,
        end=end,
        zh="一家检验机构不再报送结果",
        en="A laboratory falls silent",
        expected=True,
        expected_kinds=("silent-source",),
        source=LABS[2],
    )
