"""The flows without a laboratory: injuries, complaints, accidents, surveys and quality losses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Final

import numpy as np

from schemas.events import Accident, AnyEvent, Complaint, Injury, QualityLoss, Subject, Survey
from streams.simulation.batch import batch_complaints, batch_injuries
from streams.simulation.draws import (
    DAY,
    Draw,
    choose,
    happenings,
    hospitals,
    summer_wave,
    week_activity,
    when,
)

__all__ = ["accidents", "complaints", "injuries", "losses", "surveys"]

INJURIES: Final = 24_000
COMPLAINTS: Final = 55_000
"""Of a year at scale 1."""
_ACCIDENTS: Final = 12

_HARMS: Final = {
    "F": ("疑似食物中毒", "消化道"),
    "P": ("疑似食物中毒", "消化道"),
    "B": ("不良反应", "皮肤"),
    "L": ("挫伤", "上肢"),
    "E": ("切割伤", "手"),
    "W": ("砸伤", "下肢"),
}
_CATEGORIES: Final = ("质量", "安全", "售后服务", "虚假宣传", "计量")


def _subject(code: str) -> Subject:
    return "works" if code[0] == "W" else "service" if code[0] in "ST" else "product"


def injuries(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    """Injuries seen at the sentinel hospitals of the districts, and those by the bad batch."""
    city, rng = draw.city, draw.rng
    summer = summer_wave(draw, ("L05", "T03", "P03", "F09"), 0.2)
    cells = happenings(draw, INJURIES, city.hurts, week_activity(draw, 1.25, 1.2), draw.pressure.injuries * summer)
    size = cells.leaf.size
    reported = draw.at(cells.day, 0, 24)
    happened = reported - (rng.gamma(1.2, 0.8, size) * DAY).astype(np.int64)
    severity = choose(rng, (1, 2, 3), (0.52, 0.41, 0.07), size)
    outcome = ["admitted" if grade == 3 else "treated-released" for grade in severity]
    ages = np.round(rng.gamma(2.2, 16.0, size).clip(0, 100)).tolist()
    sexes = choose(rng, ("female", "male"), (0.47, 0.53), size)
    hospital = hospitals(draw, cells.district)
    columns = (cells.leaf.tolist(), cells.district.tolist(), hospital, reported.tolist(), happened.tolist())
    rows = zip(*columns, severity, outcome, ages, sexes, strict=True)
    for number, (leaf, district, site, at, then, grade, end, age, sex) in enumerate(rows):
        code = city.leaves[leaf]
        harm, part = _HARMS.get(code[0], ("其他伤害", "其他"))
        yield (
            at,
            Injury(
                event_id=f"{draw.year}-i{number:06d}",
                source=site,
                reported_at=when(at),
                occurred_at=when(then),
                product=code,
                region=city.districts[district],
                site=site,
                severity=grade,
                subject=_subject(code),
                outcome=end,
                age=age,
                sex=sex,
                injury=harm,
                body_part=part,
            ),
        )
    yield from batch_injuries(draw)


def _hotline(code: str) -> str:
    """Which of the five hotlines a complaint goes to, mostly."""
    if code[0] in "FPB":
        return "12331"
    if code[0] == "W":
        return "12319"
    if code[:3] in ("T05", "T06"):
        return "8890"
    return "12365" if code[0] in "ACNEID" else "12315"


def complaints(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    """Complaints through the five hotlines, and those about the bad batch."""
    city, rng = draw.city, draw.rng
    factor = draw.pressure.complaints * summer_wave(draw, ("L0101",), 0.3) * summer_wave(draw, ("L0104",), -0.3)
    cells = happenings(draw, COMPLAINTS, city.complained, week_activity(draw, 0.8, 0.6), factor)
    size = cells.leaf.size
    reported = draw.at(cells.day, 8, 21)
    happened = reported - (rng.gamma(1.0, 6.0, size) * DAY).astype(np.int64)
    categories = choose(rng, _CATEGORIES, (0.5, 0.12, 0.22, 0.1, 0.06), size)
    named = rng.random(size)
    columns = (cells.leaf, cells.district, reported, happened, named)
    rows = zip(*(column.tolist() for column in columns), categories, strict=True)
    for number, (leaf, district, at, then, chance, category) in enumerate(rows):
        code = city.leaves[leaf]
        # A fifth take the general number; three in ten name the maker.
        channel = "12315" if chance > 0.8 else _hotline(code)
        makers = city.producers[leaf]
        producer = makers[int(chance / 0.3 * len(makers))].uscc if chance < 0.3 else None
        yield (
            at,
            Complaint(
                event_id=f"{draw.year}-c{number:06d}",
                source=f"sim-hotline-{channel}",
                reported_at=when(at),
                occurred_at=when(then),
                product=code,
                region=city.districts[district],
                channel=channel,
                category=category,
                producer=producer,
            ),
        )
    yield from batch_complaints(draw)


def accidents(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    """A dozen small accidents without deaths, and the grave one."""
    city, rng = draw.city, draw.rng
    prone = [place for place, code in enumerate(city.leaves) if code[:3] in ("W01", "W02", "E04", "L05", "C03")]
    for number in range(_ACCIDENTS):
        leaf, district = int(rng.choice(prone)), int(rng.choice(len(city.districts), p=city.residents))
        happened = draw.midnight + int(rng.integers(0, draw.days - 2)) * DAY + int(rng.integers(7, 20)) * 3600
        at = happened + int(rng.integers(30, 300)) * 60
        code = city.leaves[leaf]
        event = Accident(
            event_id=f"{draw.year}-x{number:03d}",
            source="sim-authority",
            reported_at=when(at),
            occurred_at=when(happened),
            product=code,
            region=city.districts[district],
            authority="sim-authority",
            subject=_subject(code),
            category="一般事故",
            seriously_injured=int(rng.integers(0, 3)),
            loss_cny=float(rng.integers(20, 800)) * 1000.0,
        )
        yield at, event
    yield from _grave_accident(draw)


def _grave_accident(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    for planted in draw.pressure.planted:
        if planted.kind != "accident" or planted.product is None or planted.region is None:
            continue
        days = (planted.start - date(draw.year, 1, 1)).days
        happened = draw.midnight + days * DAY + 14 * 3600 + 20 * 60
        at = happened + 50 * 60
        event = Accident(
            event_id=f"{draw.year}-grave-001",
            source="sim-authority",
            reported_at=when(at),
            occurred_at=when(happened),
            product=planted.product,
            region=planted.region,
            authority="sim-authority",
            subject="works",
            category="坍塌",
            structural=True,
            deaths=12,
            seriously_injured=21,
            loss_cny=38_000_000.0,
            producer=planted.producer,
        )
        yield at, event


def surveys(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    """Every month a satisfaction survey of each service in each district."""
    city, rng = draw.city, draw.rng
    services = [place for place, code in enumerate(city.leaves) if code[0] in "ST"]
    local = rng.normal(0.0, 0.6, (len(city.leaves), len(city.districts)))
    number = 0
    for month in range(1, 13):
        day = (date(draw.year, month, 25) - date(draw.year, 1, 1)).days
        for leaf in services:
            answers = rng.integers(60, 240, len(city.districts))
            # One answer spreads by about 14 points.
            scores = city.satisfaction[leaf] + local[leaf] + rng.normal(0.0, 14.0, answers.size) / np.sqrt(answers)
            times = draw.at(np.full(answers.size, day), 9, 17)
            rows = zip(city.districts, answers.tolist(), scores.clip(0, 100).tolist(), times.tolist(), strict=True)
            for region, respondents, score, at in rows:
                event = Survey(
                    event_id=f"{draw.year}-v{number:05d}",
                    source="sim-survey",
                    reported_at=when(at),
                    product=city.leaves[leaf],
                    region=region,
                    surveyor="sim-survey",
                    score=round(score, 1),
                    respondents=respondents,
                )
                number += 1
                yield at, event


def losses(draw: Draw) -> Iterator[tuple[int, AnyEvent]]:
    """Every quarter the quality loss of each maker of industrial goods; the rates fall a little."""
    city, rng = draw.city, draw.rng
    number = 0
    for quarter, (month, dom) in enumerate(((3, 28), (6, 28), (9, 28), (12, 28))):
        day = (date(draw.year, month, dom) - date(draw.year, 1, 1)).days
        for leaf, code in enumerate(city.leaves):
            if code[0] not in "ACNEBILD":
                continue
            home = rng.choice(len(city.districts), len(city.producers[leaf]), p=city.residents)
            output = rng.lognormal(17.0, 0.8, home.size)
            rate = 0.016 * (1 - 0.03 * quarter) * rng.lognormal(0.0, 0.2, home.size)
            times = draw.at(np.full(home.size, day), 9, 17)
            rows = zip(
                city.producers[leaf],
                home.tolist(),
                output.tolist(),
                rate.tolist(),
                times.tolist(),
                strict=True,
            )
            for producer, district, made, share, at in rows:
                event = QualityLoss(
                    event_id=f"{draw.year}-q{number:05d}",
                    source="sim-statistics",
                    reported_at=when(at),
                    product=code,
                    region=city.districts[district],
                    producer=producer.uscc,
                    loss_cny=round(made * share, 2),
                    output_cny=round(made, 2),
                )
                number += 1
                yield at, event
