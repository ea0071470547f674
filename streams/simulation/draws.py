"""How rates become happenings: the draws that every flow of the simulated year shares."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Final, NamedTuple, TypeVar

import numpy as np

from streams.simulation.city import City, Floats, Ints
from streams.simulation.incidents import Pressure

__all__ = [
    "CITY_TIME",
    "DAY",
    "Cells",
    "Draw",
    "choose",
    "happenings",
    "hospitals",
    "pick",
    "season",
    "summer_wave",
    "week_activity",
    "when",
]

_T = TypeVar("_T")

CITY_TIME: Final = timezone(timedelta(hours=8))
DAY: Final = 86_400


@dataclass(slots=True)
class Draw:
    """What a flow draws from: one year of one city, at a scale, with its own source of chance."""

    city: City
    pressure: Pressure
    rng: np.random.Generator
    year: int
    scale: float

    @property
    def days(self) -> int:
        """Days of the year."""
        return int(self.pressure.sampling.shape[2])

    @property
    def midnight(self) -> int:
        """The first second of the year in the city's time, as a Unix time."""
        return int(datetime(self.year, 1, 1, tzinfo=CITY_TIME).timestamp())

    def at(self, days: Ints, first_hour: float, last_hour: float) -> Ints:
        """Unix seconds on the given days, anywhere between two hours."""
        seconds = self.rng.uniform(first_hour * 3600, last_hour * 3600, days.size)
        return self.midnight + days * DAY + seconds.astype(np.int64)


class Cells(NamedTuple):
    """Where and when each drawn happening lies: places in the city's arrays, and the day of the year."""

    leaf: Ints
    district: Ints
    day: Ints


def when(unix: int) -> datetime:
    """A Unix time in the city's own time."""
    return datetime.fromtimestamp(unix, CITY_TIME)


def week_activity(draw: Draw, weekend: float, holiday: float) -> Floats:
    """The relative activity of each day: weekends and public holidays differ."""
    first = datetime(draw.year, 1, 1, tzinfo=CITY_TIME).weekday()
    weekday = (first + np.arange(draw.days)) % 7
    activity = np.where(weekday >= 5, weekend, 1.0)
    # New Year, about the Spring Festival (its true date moves with the moon), May Day, National Day.
    for start, end in ((0, 1), (38, 46), (120, 123), (273, 279)):
        activity[start:end] *= holiday
    return np.asarray(activity / activity.mean())


def season(city: City, days: int) -> Floats:
    """[leaf, day]: what spoils does so in summer."""
    wave = np.cos(2 * np.pi * (np.arange(days) - 200) / 365.25)
    spoils = np.array([code[:3] in ("F03", "F06", "F09", "P01", "P03") for code in city.leaves])
    return np.asarray(1.0 + 0.2 * spoils[:, None] * wave[None, :])


def happenings(draw: Draw, total: float, leaf: Floats, day: Floats, factor: Floats) -> Cells:
    """Poisson counts over leaf x district x day, made uneven from week to week, unrolled to one row each."""
    city, rng = draw.city, draw.rng
    weeks = draw.days // 7 + 1
    uneven = rng.gamma(12.0, 1 / 12.0, (len(city.leaves), len(city.districts), weeks))
    rate = (total * draw.scale / draw.days) * leaf[:, None, None] * city.residents[None, :, None] * day * factor
    rate *= np.repeat(uneven, 7, axis=2)[:, :, : draw.days]
    counts = rng.poisson(rate)
    where = np.nonzero(counts)
    times = counts[where]
    return Cells(*(np.repeat(index, times) for index in where))


def pick(rng: np.random.Generator, shares: Floats) -> Ints:
    """One choice for each row of shares."""
    return np.asarray((rng.random(len(shares))[:, None] > np.cumsum(shares, axis=1)).sum(axis=1))


def choose(rng: np.random.Generator, options: tuple[_T, ...], shares: tuple[float, ...], size: int) -> list[_T]:
    """Independent choices among a few options, by their shares."""
    return [options[i] for i in rng.choice(len(options), size, p=shares).tolist()]


def summer_wave(draw: Draw, classes: tuple[str, ...], height: float) -> Floats:
    """[leaf, 1, day]: a summer wave for some classes of products, 1 for the others."""
    wave = np.cos(2 * np.pi * (np.arange(draw.days) - 200) / 365.25)
    swings = np.array([code.startswith(classes) for code in draw.city.leaves])
    return np.asarray(1.0 + height * swings[:, None, None] * wave[None, None, :])


def hospitals(draw: Draw, district: Ints) -> list[str]:
    """A hospital of each district: one of its own at random."""
    by_district = [np.nonzero(draw.city.hospital_district == d)[0] for d in range(len(draw.city.districts))]
    chance = draw.rng.random(district.size).tolist()
    chosen = [by_district[d][int(u * by_district[d].size)] for d, u in zip(district.tolist(), chance, strict=True)]
    return [f"sim-hospital-{number + 1:02d}" for number in chosen]
