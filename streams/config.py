"""The configuration: one TOML file, checked as a whole, hashed into every alert.

The *semantic* part (everything that can change an alert) is hashed; connections are not. Every key has a
default, so an empty file is a valid configuration.
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from schemas.catalogue import Catalogue
from schemas.errors import CatalogueError, ConfigError, TocsinError
from schemas.severity import Severity

__all__ = [
    "Config",
    "CountRules",
    "EscalateRules",
    "GradeRules",
    "IntakeRules",
    "PassRateRules",
    "built_under",
]

Probability = Annotated[float, Meta(gt=0, lt=1)]
Days = Annotated[int, Meta(ge=1, le=3650)]
MS_PER_DAY = 86_400_000


class _Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    pass


class IntakeRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What intake accepts. ``lateness_days`` bounds how long after its report an event may still arrive."""

    clock_skew_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 300
    lateness_days: Days = 400
    max_record_bytes: Annotated[int, Meta(ge=1_024, le=16_777_216)] = 262_144
    max_codes_per_shard: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000


class PassRateRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pass rates: windows in days; ``alpha`` is the chance per assessment that evidence must undercut.

    ``correlation`` is the intra-class correlation of failures assumed where a product's own history is short.
    """

    windows_days: tuple[Days, ...] = (7, 30, 90)
    history_days: Days = 365
    alpha: Probability = 1e-6
    min_failed: Annotated[int, Meta(ge=1)] = 5
    confidence: Probability = 0.95
    cusum_odds_ratio: Annotated[float, Meta(gt=1, le=100)] = 2.0
    cusum_arl_days: Annotated[float, Meta(ge=100, le=1e9)] = 1_000_000.0
    min_rate_ratio: Annotated[float, Meta(ge=1)] = 1.5
    correlation: Annotated[float, Meta(ge=0, lt=1)] = 0.01


class CountRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Counts without a denominator, in weeks. ``detector`` judges cells with ``min_surge_weeks`` of history (``surge``)
    or three years (``farrington``); younger cells have a cautious law of their own."""

    detector: Literal["surge", "farrington"] = "surge"
    min_surge_weeks: Annotated[int, Meta(ge=60)] = 156
    alpha: Probability = 1e-5
    min_recent: Annotated[int, Meta(ge=1)] = 5
    min_history_weeks: Annotated[int, Meta(ge=4)] = 26
    cold_dispersion: Annotated[float, Meta(ge=1, le=100)] = 1.5
    history_years: Annotated[int, Meta(ge=3, le=10)] = 5
    min_ratio: Annotated[float, Meta(ge=1)] = 1.5


class SatisfactionRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The satisfaction index against its target, as a mean over a window."""

    window_days: Days = 90
    alpha: Probability = 1e-6
    min_respondents: Annotated[int, Meta(ge=2)] = 100


class DriftRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Slow change of the quality-loss rate and of the satisfaction index: an EWMA over periods of four weeks.

    ``arl_days`` is the average time to a false alarm of one cell. A change matters when the loss rate is ``min_ratio``
    times the usual one, or the index ``min_points`` under it.
    """

    periods: Annotated[int, Meta(ge=8, le=260)] = 65
    least_periods: Annotated[int, Meta(ge=3)] = 6
    lam: Annotated[float, Meta(ge=0.05, le=1)] = 0.2
    clip: Annotated[float, Meta(ge=1, le=8)] = 3.0
    arl_days: Annotated[float, Meta(ge=1_000, le=1e10)] = 2.8e6
    correlation: Annotated[float, Meta(ge=0, lt=1)] = 0.01
    min_ratio: Annotated[float, Meta(ge=1)] = 1.25
    min_points: Annotated[float, Meta(ge=0, le=100)] = 2.0


class ScanRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The daily scan for clusters of neighbouring districts, where the catalogue names neighbours; days."""

    enabled: bool = True
    window_days: Annotated[int, Meta(ge=1, le=90)] = 14
    history_days: Annotated[int, Meta(ge=30, le=730)] = 182
    most_regions: Annotated[int, Meta(ge=1, le=6)] = 3
    min_cases: Annotated[int, Meta(ge=2)] = 6
    min_ratio: Annotated[float, Meta(ge=1)] = 2.0
    screen_llr: Annotated[float, Meta(gt=0)] = 9.0
    replicates: Annotated[int, Meta(ge=99, le=9_999)] = 99
    alpha: Probability = 1e-5


class LabRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Labs against their peers on the same cells, and against their own past; judged on every second Monday.

    ``ratio`` is how many times more, or fewer, failures than expected make an effect worth an alert. With ``adjust`` a
    cell's pass rate is judged net of its labs' effects.
    """

    every_weeks: Annotated[int, Meta(ge=1, le=52)] = 2
    window_weeks: Annotated[int, Meta(ge=1, le=52)] = 8
    history_weeks: Annotated[int, Meta(ge=4, le=520)] = 52
    alpha: Probability = 1e-5
    ratio: Annotated[float, Meta(gt=1)] = 1.8
    min_expected: Annotated[float, Meta(gt=0)] = 5.0
    adjust: bool = True


class SourceRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Sources (labs, hospitals, hotlines) that fall silent or drift; judged every day, where a tick is a day at most.

    A source that has been silent for ``forget_days`` has ceased to be one. A volume matters when it is down to
    ``drop_ratio`` of the usual one or up to ``rise_ratio`` times as much, a delay when late reports are that much more.
    """

    alpha: Probability = 1e-5
    drop_ratio: Annotated[float, Meta(gt=0, lt=1)] = 0.4
    rise_ratio: Annotated[float, Meta(gt=1)] = 4.0
    history_days: Annotated[int, Meta(ge=28, le=730)] = 182
    min_history_days: Annotated[int, Meta(ge=14)] = 56
    forget_days: Days = 90
    max_sources: Annotated[int, Meta(ge=1, le=1_000_000)] = 20_000


class HazardRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pairs of product and kind of injury, the last weeks against all before, by the gamma-Poisson shrinker; judged
    every Monday, once ``min_total`` reports lie in the past."""

    window_weeks: Annotated[int, Meta(ge=1, le=104)] = 13
    eb05: Annotated[float, Meta(gt=1)] = 2.0
    min_reports: Annotated[int, Meta(ge=2)] = 5
    alpha: Probability = 1e-6
    min_total: Annotated[int, Meta(ge=1)] = 1_000
    max_pairs: Annotated[int, Meta(ge=1, le=5_000_000)] = 200_000


class MultiplicityRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Many streams at once: the false alarms allowed in a month over all cells, or a false discovery rate a tick."""

    method: Literal["budget", "BH", "BY", "e-BH"] = "budget"
    false_alarms_per_month: Annotated[float, Meta(gt=0)] = 1.0
    fdr: Probability = 0.05


class GradeRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How grave, and by when to report: ``severity`` names the rules, built in or the path of a TOML file (they are law
    and policy, not code, and have a version and a digest of their own)."""

    severity: Annotated[str, Meta(min_length=1)] = "default"

    def load(self) -> Severity:
        """The rules that ``severity`` names; ConfigError says what is wrong with them."""
        return _severity(self.severity)


class EscalateRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Opening, lowering and resolving with hysteresis, in days of arrival time."""

    hold_days: Days = 14
    lower_after_days: Days = 7
    grave_hold_days: Days = 30
    regional_branches: Annotated[int, Meta(ge=2)] = 3
    industry_regions: Annotated[int, Meta(ge=2)] = 3


class StateRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long an event is remembered by its id after it arrived: so long a copy of it is known as one, and a
    correction replaces it exactly. Counts live on, as long as any detector looks back."""

    remember_days: Days = 730


class Config(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole configuration. ``tick_seconds`` runs from a minute to a week."""

    name: str = "tocsin"
    topic_prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,100}$")] = ""
    catalogue: str = "tianjin"
    utc_offset: Annotated[str, Meta(pattern=r"^[+-](0\d|1[0-4]):[0-5]\d$")] = "+08:00"
    tick_seconds: Annotated[int, Meta(ge=60, le=604_800)] = 3_600
    partitions: Annotated[int, Meta(ge=1, le=1_024)] = 4
    intake: IntakeRules = IntakeRules()
    pass_rate: PassRateRules = PassRateRules()
    counts: CountRules = CountRules()
    satisfaction: SatisfactionRules = SatisfactionRules()
    scan: ScanRules = ScanRules()
    drift: DriftRules = DriftRules()
    labs: LabRules = LabRules()
    sources: SourceRules = SourceRules()
    hazards: HazardRules = HazardRules()
    multiplicity: MultiplicityRules = MultiplicityRules()
    grades: GradeRules = GradeRules()
    escalate: EscalateRules = EscalateRules()
    state: StateRules = StateRules()

    @classmethod
    def load(cls, path: Path | None) -> Config:
        """Read a TOML file (None: the defaults); ConfigError names the key at fault."""
        if path is None:
            return cls()
        try:
            data = tomllib.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; leave --config out to use the defaults") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: {error}") from None
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: dict[str, Any], where: str) -> Config:
        """Check a decoded TOML document."""
        try:
            config = msgspec.convert(data, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{where}: {error}") from None
        if config.tick_seconds % 60 or (config.tick_seconds != 604_800 and 86_400 % config.tick_seconds):
            raise ConfigError(f"{where}: tick_seconds: whole minutes that divide a day (60, 3600, 86400), or 604800")
        shortest = max(config.intake.lateness_days, *config.pass_rate.windows_days, config.satisfaction.window_days)
        if config.state.remember_days < shortest:
            raise ConfigError(
                f"{where}: state.remember_days: at least {shortest}, for so late may copies come "
                "(intake.lateness_days) and so long are the windows of pass rates and satisfaction"
            )
        return config

    def replace(self, **changes: Any) -> Config:
        """A copy with some top-level keys changed, checked again."""
        return self.parse({**self.to_dict(), **changes}, "configuration")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as TOML holds them."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return built

    @property
    def tick_ms(self) -> int:
        return self.tick_seconds * 1_000

    @property
    def offset_ms(self) -> int:
        """The deployment's fixed offset from UTC. Fixed, so that a day never depends on a time-zone table."""
        sign = -1 if self.utc_offset[0] == "-" else 1
        return sign * (int(self.utc_offset[1:3]) * 60 + int(self.utc_offset[4:6])) * 60_000

    @property
    def lookback_days(self) -> int:
        """How far back any detector looks, or a late event counts: older counts can be forgotten."""
        rates, counts, drift, scan = self.pass_rate, self.counts, self.drift, self.scan
        return max(
            self.intake.lateness_days,
            max(rates.windows_days) + rates.history_days,
            (counts.history_years + 1) * 52 * 7 + 14,
            self.satisfaction.window_days,
            (drift.periods + 1) * 28,
            scan.history_days + scan.window_days + 1,
            (self.labs.window_weeks + self.labs.history_weeks) * 7,
        )

    @property
    def digest(self) -> str:
        """Hash of everything that can change an alert, the content of the severity rules among it. Connections, names
        and partition counts cannot; the catalogue has a digest of its own."""
        apart = ("name", "topic_prefix", "partitions", "catalogue")
        semantic = {k: v for k, v in self.to_dict().items() if k not in apart}
        semantic["grades"] = {"severity": self.grades.load().digest}
        return hashlib.sha256(msgspec.json.encode(semantic, order="sorted")).hexdigest()[:16]

    def load_catalogue(self) -> Catalogue:
        """The catalogue that ``catalogue`` names: ``open``, a built-in name, or the path of a TOML file."""
        return _catalogue(self.catalogue)


def built_under(config: Config, catalogue: Catalogue) -> str:
    """What a state depends on beside the events: stored with it; one built under another is refused."""
    return f"{config.digest}+{catalogue.digest[:12]}"


@lru_cache(maxsize=8)
def _severity(name: str) -> Severity:
    try:
        return Severity.load(Path(name)) if name.endswith(".toml") else Severity.builtin(name)
    except ConfigError as error:
        raise ConfigError(f"grades.severity: {error}") from None


@lru_cache(maxsize=8)
def _catalogue(name: str) -> Catalogue:
    if name == "open":
        return Catalogue.open("open")
    try:
        if name.endswith(".toml"):
            return Catalogue.load(Path(name))
        return Catalogue.builtin(name)
    except CatalogueError:
        raise
    except TocsinError as error:
        raise ConfigError(f"catalogue: {error}") from None
