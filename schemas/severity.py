"""How grave, and by when to report: the product-risk matrix, the rules for statistical alerts and for single grave
events, the accident ladder and the deadlines, as configuration.

They are law and policy, differ by region and change: a versioned TOML file holds them all, checked as a whole. The one
that ships, ``schemas/severity/default.toml``, explains its own keys. Whatever is not in its grammar is an error that
names the key and the way to mend it.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal, cast

import msgspec
from msgspec import Meta

from schemas.alerts import Level, Text
from schemas.errors import ConfigError

__all__ = ["Deadline", "Grave", "Nonconformity", "Risk", "Rung", "Severity", "Statistics"]

Risk = Literal["S", "H", "M", "L"]
"""Serious, high, medium, low."""
InjurySeverity = Annotated[int, Meta(ge=1, le=4)]
Word = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,63}$")]
Chance = Annotated[float, Meta(ge=0, le=1)]
Fraction = Annotated[float, Meta(gt=0, lt=1)]
StatisticalLevel = Annotated[int, Meta(ge=2, le=4)]
Raise = Annotated[int, Meta(ge=0, le=2)]

SEVERITIES: Final = (1, 2, 3, 4)
RISING: Final = "LMHS"


class _Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    pass


class Injury(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One step of the injury scale, in words."""

    severity: InjurySeverity
    zh: str
    en: str


class Band(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A row of the matrix: probabilities above ``above``, and the risk at each injury severity."""

    above: Annotated[float, Meta(ge=0, lt=1)]
    risk: Annotated[str, Meta(pattern="^[SHML]{4}$")]


class Matrix(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The risk matrix, most probable band first."""

    bands: Annotated[tuple[Band, ...], Meta(min_length=1)]
    source: str = ""


class Levels(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The grade of each risk: 1 (I, red) to 4 (IV, blue)."""

    S: Level
    H: Level
    M: Level
    L: Level


class Nonconformity(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The injury severity that a failing result or a complaint threatens, by its own word; ``unknown`` where it gives
    none."""

    critical: InjurySeverity
    major: InjurySeverity
    minor: InjurySeverity
    unknown: InjurySeverity


class Statistics(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """From the evidence to the level of a statistical alert (:mod:`streams.grades` has the reasoning).

    ``harm`` gives, for a kind of alert, the chance that one adverse event or item hurts somebody, at severity 1 to 4; a
    kind without it is of ``plain_level``. Evidence is strong with a p-value of at most ``strong_p`` and an excess of at
    least ``strong_excess``: then the level is at most ``gravest``, else ``gravest_if_weak``. No statistics reach I.
    """

    harm: dict[Word, tuple[Chance, Chance, Chance, Chance]]
    exposed: Annotated[float, Meta(ge=1)]
    confidence: Fraction
    plain_level: StatisticalLevel
    raised_by_key_supervision: Raise
    raised_by_industry: Raise
    gravest: StatisticalLevel
    gravest_if_weak: StatisticalLevel
    strong_p: Fraction
    strong_excess: Annotated[float, Meta(gt=0)]


class Grave(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Which single events ring at once: an accident of level ``from_level`` or graver or with a death, a death by an
    injury (of ``single_death_level``), and, with ``structural``, a structural failure of works (of ``from_level`` or
    graver)."""

    from_level: Level
    single_death_level: Level
    structural: bool


class Rung(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One rung of the accident ladder: the least deaths, serious injuries or direct loss that reach its level."""

    level: Level
    deaths: Annotated[int, Meta(ge=1)]
    seriously_injured: Annotated[int, Meta(ge=1)]
    loss_cny: Annotated[float, Meta(gt=0)]


class Ladder(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The accident ladder, gravest rung first; what reaches no rung is of the level ``below``."""

    rungs: Annotated[tuple[Rung, ...], Meta(min_length=1)]
    below: Level
    source: str = ""


class Deadline(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One duty to report: who, at which stage, for which alerts, and how soon after knowing."""

    stage: Word
    reporter: Literal["authority", "producer"]
    zh: str
    en: str
    kinds: Annotated[tuple[Word, ...], Meta(min_length=1)] | None = None
    levels: Annotated[tuple[Level, ...], Meta(min_length=1)] | None = None
    severity_from: InjurySeverity | None = None
    hours: Annotated[float, Meta(gt=0, le=8784)] | None = None
    days: Annotated[int, Meta(ge=1, le=366)] | None = None
    working_days: Annotated[int, Meta(ge=1, le=366)] | None = None

    @property
    def text(self) -> Text:
        """The duty in Chinese and English."""
        return Text(zh=self.zh, en=self.en)

    @property
    def least_hours(self) -> float:
        """Hours from knowing that never run past :meth:`due`: 24 for a day, as if it were known just before midnight
        and no day were off."""
        return self.hours if self.hours is not None else 24.0 * (self.working_days or self.days or 0)

    def due(self, known_at: datetime, is_off: Callable[[date], bool] | None = None) -> datetime:
        """The moment by which to report.

        Parameters
        ----------
        known_at
            When the reporter knew, in the region's own time zone (a day is a calendar day there).
        is_off
            Whether a date is no working day; Saturdays and Sundays by default. Public holidays move from year to year
            and are the caller's.

        Returns
        -------
        datetime
            For days and working days, the end of the last one; the day of knowing does not count.
        """
        if self.hours is not None:
            return known_at + timedelta(hours=self.hours)
        off = is_off if self.working_days is not None else _never
        off = _weekend if off is None else off
        day, left = known_at.date(), self.working_days or self.days or 0
        for _ in range(3700):
            if left == 0:
                break
            day += timedelta(days=1)
            left -= not off(day)
        return datetime.combine(day + timedelta(days=1), datetime.min.time(), known_at.tzinfo)


class Severity(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The rules of one region; :meth:`builtin` has those that ship, :meth:`load` reads a file.

    Examples
    --------
    >>> rules = Severity.builtin()
    >>> rules.risk(0.002, 3), rules.level_of_risk("S"), rules.accident_level(3, 0, 0.0)
    ('S', 2, 3)
    """

    name: Word
    version: Annotated[str, Meta(min_length=1, max_length=64)]
    injury: tuple[Injury, ...]
    nonconformity: Nonconformity
    matrix: Matrix
    levels: Levels
    statistics: Statistics
    grave: Grave
    ladder: Ladder
    deadlines: tuple[Deadline, ...]

    @classmethod
    def load(cls, path: str | Path) -> Severity:
        """Read a TOML file.

        Raises
        ------
        ConfigError
            When the file cannot be read, or an entry is wrong; the text names it and how to mend it.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of severity rules") from None
        return cls.parse(data, str(path))

    @classmethod
    def builtin(cls, name: str = "default") -> Severity:
        """Read rules that ship with the package.

        Raises
        ------
        ConfigError
            When there are none of this name.
        """
        folder = resources.files("schemas") / "severity"
        known = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))
        if name not in known:
            raise ConfigError(
                f"no built-in severity rules {name!r}; there is {', '.join(known)}, or give a file's path"
            )
        return cls.parse((folder / f"{name}.toml").read_bytes(), f"{name}.toml")

    @classmethod
    def parse(cls, data: bytes, where: str) -> Severity:
        """Check a file's bytes; ``where`` names it in errors. Raises ConfigError as :meth:`load` does."""
        try:
            raw = tomllib.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: is not TOML in UTF-8 ({error}); mend it there") from None
        try:
            rules = msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}: {error}; correct or remove it") from None
        for check in (
            _check_injury, _check_matrix, _check_levels, _check_statistics, _check_ladder, _check_deadlines
        ):  # fmt: skip
            fault = check(rules)
            if fault is not None:
                raise ConfigError(f"{where}: {fault}")
        return rules

    @property
    def digest(self) -> str:
        """Hash of everything that can change an alert: the rules, whatever the file's layout and comments."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:16]

    def risk(self, probability: float, severity: int) -> Risk:
        """The risk of a product: probability of the injury over the product's life, 0 to 1, and its severity, 1 to 4.

        Raises
        ------
        ValueError
            When either is out of range.
        """
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"probability: must be from 0 to 1, found {probability!r}")
        if severity not in SEVERITIES:
            raise ValueError(f"severity: must be 1, 2, 3 or 4, found {severity!r}")
        for band in self.matrix.bands:
            if probability > band.above:
                break
        return cast(Risk, band.risk[severity - 1])  # the last band holds the rest

    def level_of_risk(self, risk: Risk) -> int:
        """The grade, 1 to 4, of a risk."""
        if risk not in RISING:
            raise ValueError(f"risk: must be S, H, M or L, found {risk!r}")
        return int(getattr(self.levels, risk))

    def accident_level(self, deaths: int, seriously_injured: int, loss_cny: float) -> int:
        """The gravest level that an accident reaches by any of its measures; ``ladder.below`` where it reaches no rung.

        Raises
        ------
        ValueError
            When a measure is negative or NaN.
        """
        rung = self.rung(deaths, seriously_injured, loss_cny)
        return self.ladder.below if rung is None else rung.level

    def rung(self, deaths: int, seriously_injured: int, loss_cny: float) -> Rung | None:
        """The gravest rung that an accident reaches, None where it reaches none; raises as :meth:`accident_level`."""
        measures = {"deaths": deaths, "seriously_injured": seriously_injured, "loss_cny": loss_cny}
        for name, value in measures.items():
            if not value >= 0:
                raise ValueError(f"{name}: must not be negative, found {value!r}")
        for rung in self.ladder.rungs:
            if any(value >= getattr(rung, name) for name, value in measures.items()):
                return rung
        return None

    def deadlines_for(self, kind: str, level: int, severity: int = 0) -> tuple[Deadline, ...]:
        """The duties that an alert brings, in the file's order.

        Parameters
        ----------
        kind, level
            The alert's (``"grave-event"``; 1 to 4).
        severity
            Gravest injury behind it, 1 to 4; 0 where there is none or it is unknown.
        """
        return tuple(
            one
            for one in self.deadlines
            if (one.kinds is None or kind in one.kinds)
            and (one.levels is None or level in one.levels)
            and (one.severity_from is None or severity >= one.severity_from)
        )

    def hours_to_first_report(self, kind: str, level: int) -> float | None:
        """Hours of the ``first-report`` deadline of an alert; None where no such duty."""
        duties = self.deadlines_for(kind, level)
        return min((one.least_hours for one in duties if one.stage == "first-report"), default=None)


def _weekend(day: date) -> bool:
    return day.weekday() >= 5


def _never(day: date) -> bool:
    return False


# --- Checks: each says what is wrong and how to mend it, or nothing -------------------------------------------


def _check_injury(rules: Severity) -> str | None:
    if tuple(one.severity for one in rules.injury) != SEVERITIES:
        return "injury: describe the severities 1, 2, 3 and 4, once each and in this order"
    return None


def _check_matrix(rules: Severity) -> str | None:
    bands = rules.matrix.bands
    for i, band in enumerate(bands):
        entry = f"matrix.bands[{i}]"
        if i and band.above >= bands[i - 1].above:
            return (
                f"{entry}.above: {band.above:g} is not under {bands[i - 1].above:g}; list the most probable band first"
            )
        if not _rises(band.risk):
            return (
                f"{entry}.risk: {band.risk} falls as injuries grow more severe; give each severity at least the last's"
            )
        if i and not all(_rises(low + high) for low, high in zip(band.risk, bands[i - 1].risk, strict=True)):
            return f"{entry}.risk: {band.risk} is above that of a more probable band, {bands[i - 1].risk}; lower it"
    if bands[-1].above != 0.0:
        return f"matrix.bands[{len(bands) - 1}].above: the last band holds the rest; give 0.0"
    return None


def _check_levels(rules: Severity) -> str | None:
    grades = [rules.level_of_risk(cast(Risk, letter)) for letter in RISING]
    if grades != sorted(grades, reverse=True):
        return "levels: a graver risk has a milder level (1 is the gravest); give S, H, M, L numbers that never fall"
    return None


def _check_statistics(rules: Severity) -> str | None:
    strong, weak = rules.statistics.gravest, rules.statistics.gravest_if_weak
    if weak < strong:
        return f"statistics.gravest_if_weak: {weak} is graver than strong evidence may reach; give {strong} or more"
    return None


def _check_ladder(rules: Severity) -> str | None:
    rungs = rules.ladder.rungs
    for i, (upper, lower) in enumerate(pairwise(rungs), start=1):
        entry = f"ladder.rungs[{i}]"
        if lower.level <= upper.level:
            return f"{entry}.level: {lower.level} is not milder than {upper.level}; list the gravest rung first"
        for name in ("deaths", "seriously_injured", "loss_cny"):
            if getattr(lower, name) >= getattr(upper, name):
                return f"{entry}.{name}: must be under that of the graver rung, {getattr(upper, name):g}; lower it"
    if rules.ladder.below < rungs[-1].level:
        return f"ladder.below: {rules.ladder.below} is graver than the last rung; give {rungs[-1].level} or more"
    return None


def _check_deadlines(rules: Severity) -> str | None:
    for i, one in enumerate(rules.deadlines):
        terms: Sequence[float | None] = (one.hours, one.days, one.working_days)
        if sum(term is not None for term in terms) != 1:
            return f"deadlines[{i}]: give exactly one of hours, days, working_days"
    return None


def _rises(letters: str) -> bool:
    ranks = [RISING.index(letter) for letter in letters]
    return ranks == sorted(ranks)
