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
    "DeadlineRules",
    "EscalateRules",
    "GradeRules",
    "IntakeRules",
    "PassRateRules",
    "built_under",
]

Probability = Annotated[float, Meta(gt=0, lt=1)]
Days = Annotated[int, Meta(ge=1, le=3650)]
Hour = Annotated[float, Meta(ge=0, le=8_784)]
Hours = tuple[Hour, Hour, Hour, Hour]
MS_PER_DAY = 86_400_000


def _about(text: str, unit: str = "") -> Meta:
    """What a key means, and in which unit; ``tocsin config reference`` prints it."""
    return Meta(description=text, extra={"unit": unit})


class _Section(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    pass


class IntakeRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What intake accepts. ``lateness_days`` bounds how long after its report an event may still arrive."""

    clock_skew_seconds: Annotated[
        int, Meta(ge=0, le=86_400), _about("How far `reported_at` may lie after the record's arrival.", "s")
    ] = 300
    lateness_days: Annotated[Days, _about("How long after its report an event may still arrive.", "days")] = 400
    max_record_bytes: Annotated[
        int, Meta(ge=1_024, le=16_777_216), _about("The longest record that is taken.", "bytes")
    ] = 262_144
    max_codes_per_shard: Annotated[
        int,
        Meta(ge=1, le=1_000_000),
        _about(
            "Codes and names that each of the 64 shards tells apart; those beyond count under a common one.", "codes"
        ),
    ] = 20_000


class PassRateRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pass rates: windows in days; ``alpha`` is the chance per assessment that evidence must undercut.

    ``correlation`` is the intra-class correlation of failures assumed where a product's own history is short.
    """

    windows_days: Annotated[tuple[Days, ...], _about("The rolling windows that are judged.", "days")] = (7, 30, 90)
    history_days: Annotated[Days, _about("The cell's own history before each window.", "days")] = 365
    alpha: Annotated[Probability, _about("The chance per assessment that evidence must undercut.", "chance")] = 1e-6
    min_failed: Annotated[
        int, Meta(ge=1), _about("Failures in the window below which nothing is evidence.", "items")
    ] = 5
    confidence: Annotated[
        Probability,
        _about("Confidence of the intervals; to be evidence, the whole of one lies under the target.", "share"),
    ] = 0.95
    cusum_odds_ratio: Annotated[
        float,
        Meta(gt=1, le=100),
        _about("The slow slide that the LR-CUSUM is tuned to: how many times the usual odds of failing.", "ratio"),
    ] = 2.0
    cusum_arl_days: Annotated[
        float, Meta(ge=100, le=1e9), _about("Average time to a false alarm of one cell's LR-CUSUM.", "days")
    ] = 1_000_000.0
    min_rate_ratio: Annotated[
        float, Meta(ge=1), _about("How many times the expected failures make an excess worth telling.", "ratio")
    ] = 1.5
    correlation: Annotated[
        float,
        Meta(ge=0, lt=1),
        _about("Intra-class correlation of failures assumed where a product's own history is short."),
    ] = 0.01


class CountRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Counts without a denominator, in weeks. ``detector`` judges cells with ``min_surge_weeks`` of history (``surge``)
    or three years (``farrington``); younger cells have a cautious law of their own."""

    detector: Annotated[Literal["surge", "farrington"], _about("The method for cells with enough history.")] = "surge"
    min_surge_weeks: Annotated[int, Meta(ge=60), _about("History from which `surge` judges.", "weeks")] = 156
    alpha: Annotated[Probability, _about("The chance per assessment that evidence must undercut.", "chance")] = 1e-5
    min_recent: Annotated[
        int, Meta(ge=1), _about("Reports in the last four weeks below which nothing is evidence.", "reports")
    ] = 5
    min_history_weeks: Annotated[int, Meta(ge=4), _about("History below which nothing is judged.", "weeks")] = 26
    cold_dispersion: Annotated[
        float, Meta(ge=1, le=100), _about("Variance over mean assumed where history is short.", "ratio")
    ] = 1.5
    history_years: Annotated[int, Meta(ge=3, le=10), _about("How far back baselines look.", "years")] = 5
    min_ratio: Annotated[
        float, Meta(ge=1), _about("How many times the expected reports make an excess worth telling.", "ratio")
    ] = 1.5


class SatisfactionRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The satisfaction index against its target, as a mean over a window."""

    window_days: Annotated[Days, _about("The window whose mean is held against the target.", "days")] = 90
    alpha: Annotated[Probability, _about("The chance per assessment that evidence must undercut.", "chance")] = 1e-6
    min_respondents: Annotated[
        int, Meta(ge=2), _about("Answers in the window below which nothing is evidence.", "answers")
    ] = 100


class DriftRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Slow change of the quality-loss rate and of the satisfaction index: an EWMA over periods of four weeks.

    ``arl_days`` is the average time to a false alarm of one cell. A change matters when the loss rate is ``min_ratio``
    times the usual one, or the index ``min_points`` under it.
    """

    periods: Annotated[int, Meta(ge=8, le=260), _about("Periods that the chart looks back.", "4 weeks")] = 65
    least_periods: Annotated[int, Meta(ge=3), _about("Periods observed before the first score.", "4 weeks")] = 6
    lam: Annotated[float, Meta(ge=0.05, le=1), _about("Weight of the latest period in the EWMA.")] = 0.2
    clip: Annotated[
        float, Meta(ge=1, le=8), _about("A score beyond this counts as this, so that one outlier is no drift.", "sd")
    ] = 3.0
    arl_days: Annotated[
        float, Meta(ge=1_000, le=1e10), _about("Average time to a false alarm of one cell.", "days")
    ] = 2.8e6
    correlation: Annotated[float, Meta(ge=0, lt=1), _about("Intra-class correlation of the answers of one period.")] = (
        0.01
    )
    min_ratio: Annotated[
        float, Meta(ge=1), _about("How many times the usual loss rate makes a rise worth telling.", "ratio")
    ] = 1.25
    min_points: Annotated[
        float,
        Meta(ge=0, le=100),
        _about("How far under its usual value an index must lie to be worth telling.", "points"),
    ] = 2.0


class ScanRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The daily scan for clusters of neighbouring districts, where the catalogue names neighbours; days."""

    enabled: Annotated[bool, _about("Whether districts are scanned for clusters.")] = True
    window_days: Annotated[int, Meta(ge=1, le=90), _about("The longest cluster.", "days")] = 14
    history_days: Annotated[int, Meta(ge=30, le=730), _about("The days that a cluster is compared with.", "days")] = 182
    most_regions: Annotated[
        int, Meta(ge=1, le=6), _about("The most neighbouring districts in a cluster.", "districts")
    ] = 3
    min_cases: Annotated[int, Meta(ge=2), _about("Reports in a cluster below which it is nothing.", "reports")] = 6
    min_ratio: Annotated[
        float, Meta(ge=1), _about("How many times the expected reports make a cluster worth telling.", "ratio")
    ] = 2.0
    screen_llr: Annotated[
        float, Meta(gt=0), _about("Log-likelihood ratio below which a cluster's chance is not worked out.")
    ] = 9.0
    replicates: Annotated[int, Meta(ge=99, le=9_999), _about("Permutations behind a cluster's chance.")] = 99
    alpha: Annotated[Probability, _about("The chance per day that a cluster must undercut.", "chance")] = 1e-5


class LabRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Labs against their peers on the same cells, and against their own past; judged on every second Monday.

    ``ratio`` is how many times more, or fewer, failures than expected make an effect worth an alert. With ``adjust`` a
    cell's pass rate is judged net of its labs' effects.
    """

    every_weeks: Annotated[int, Meta(ge=1, le=52), _about("How often labs are judged.", "weeks")] = 2
    window_weeks: Annotated[int, Meta(ge=1, le=52), _about("The weeks that are judged.", "weeks")] = 8
    history_weeks: Annotated[int, Meta(ge=4, le=520), _about("The lab's own past before them.", "weeks")] = 52
    alpha: Annotated[Probability, _about("The chance per assessment that evidence must undercut.", "chance")] = 1e-5
    ratio: Annotated[
        float,
        Meta(gt=1),
        _about("How many times more, or fewer, failures than expected make an effect worth telling.", "ratio"),
    ] = 1.8
    min_expected: Annotated[
        float, Meta(gt=0), _about("Expected failures below which a lab is not judged.", "failures")
    ] = 5.0
    adjust: Annotated[bool, _about("Whether a cell's pass rate is judged net of its labs' effects.")] = True


class SourceRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Sources (labs, hospitals, hotlines) that fall silent or drift; judged every day, where a tick is a day at most.

    A source that has been silent for ``forget_days`` has ceased to be one. A volume matters when it is down to
    ``drop_ratio`` of the usual one or up to ``rise_ratio`` times as much, a delay when late reports are that much more.
    """

    alpha: Annotated[Probability, _about("The chance per assessment that evidence must undercut.", "chance")] = 1e-5
    drop_ratio: Annotated[
        float, Meta(gt=0, lt=1), _about("A volume down to this share of the usual one is worth telling.", "ratio")
    ] = 0.4
    rise_ratio: Annotated[
        float, Meta(gt=1), _about("So is one up to this many times the usual; of late reports the same.", "ratio")
    ] = 4.0
    history_days: Annotated[int, Meta(ge=28, le=730), _about("The days that make a source's rhythm.", "days")] = 182
    min_history_days: Annotated[int, Meta(ge=14), _about("Days of reporting before a source is judged.", "days")] = 56
    forget_days: Annotated[Days, _about("A source that has been silent so long has ceased to be one.", "days")] = 90
    max_sources: Annotated[
        int, Meta(ge=1, le=1_000_000), _about("How many are watched; those beyond are not.", "sources")
    ] = 20_000


class HazardRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Pairs of product and kind of injury, the last weeks against all before, by the gamma-Poisson shrinker; judged
    every Monday, once ``min_total`` reports lie in the past."""

    window_weeks: Annotated[
        int, Meta(ge=1, le=104), _about("The last weeks, which are held against all before.", "weeks")
    ] = 13
    eb05: Annotated[
        float, Meta(gt=1), _about("The lower 5% bound of the shrunken ratio that a pair must exceed.", "ratio")
    ] = 2.0
    min_reports: Annotated[
        int, Meta(ge=2), _about("Reports of a pair in the window below which it is nothing.", "reports")
    ] = 5
    alpha: Annotated[Probability, _about("The chance per assessment that evidence must undercut.", "chance")] = 1e-6
    min_total: Annotated[int, Meta(ge=1), _about("Reports in the past before any pair is judged.", "reports")] = 1_000
    max_pairs: Annotated[
        int, Meta(ge=1, le=5_000_000), _about("How many are watched; those beyond are not.", "pairs")
    ] = 200_000


class MultiplicityRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Many streams at once: the false alarms allowed in a month over all cells, or a false discovery rate a tick."""

    method: Annotated[
        Literal["budget", "BH", "BY", "e-BH"],
        _about("A budget of false alarms over all cells, or a false discovery rate a tick."),
    ] = "budget"
    false_alarms_per_month: Annotated[
        float, Meta(gt=0), _about("Of `budget`: the false alarms allowed in a month over all cells together.", "alarms")
    ] = 1.0
    fdr: Annotated[
        Probability, _about("Of the others: the share of false ones among the alerts of a tick.", "share")
    ] = 0.05


class GradeRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How grave, and by when to report: ``severity`` names the rules, built in or the path of a TOML file (they are law
    and policy, not code, and have a version and a digest of their own)."""

    severity: Annotated[
        str, Meta(min_length=1), _about("The rules of severity and reporting: built in, or the path of a TOML file.")
    ] = "default"

    def load(self) -> Severity:
        """The rules that ``severity`` names; ConfigError says what is wrong with them."""
        return _severity(self.severity)


class EscalateRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """Opening, lowering and resolving with hysteresis, in days of arrival time."""

    hold_days: Annotated[Days, _about("An alert is resolved when its evidence has been gone so long.", "days")] = 14
    lower_after_days: Annotated[
        Days, _about("It is lowered when only weaker evidence has been there so long.", "days")
    ] = 7
    grave_hold_days: Annotated[Days, _about("A single grave event is resolved after so long.", "days")] = 30
    regional_branches: Annotated[
        int, Meta(ge=2), _about("Branches with evidence in one region that make a regional risk.", "branches")
    ] = 3
    industry_regions: Annotated[
        int, Meta(ge=2), _about("Districts with evidence on one product that make an industry's risk.", "districts")
    ] = 3


class DeadlineRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """By when an alert must be disposed of after it was opened, at the levels I, II, III, IV; 0 where no deadline is.

    The city's own rule, no statute: those stand in the severity rules, with the first report. They decide what is
    overdue and cannot change an alert.
    """

    assess_hours: Annotated[Hours, _about("Until its risk is assessed.", "hours")] = (4.0, 8.0, 48.0, 120.0)
    dispose_hours: Annotated[Hours, _about("Until it is disposed of.", "hours")] = (24.0, 72.0, 240.0, 480.0)
    close_hours: Annotated[Hours, _about("Until it is closed.", "hours")] = (720.0, 720.0, 1_440.0, 1_440.0)


class StateRules(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """How long an event is remembered by its id after it arrived: so long a copy of it is known as one, and a
    correction replaces it exactly. Counts live on, as long as any detector looks back."""

    remember_days: Annotated[Days, _about("How long an event is remembered by its id after it arrived.", "days")] = 730


class Config(_Section, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole configuration. ``tick_seconds`` runs from a minute to a week."""

    name: Annotated[str, _about("Name of the deployment; on Kafka, of its consumer groups.")] = "tocsin"
    topic_prefix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{0,100}$"), _about("Stands before every topic's name on the broker.")
    ] = ""
    catalogue: Annotated[
        str, _about("Product and region codes: built in (`tianjin`), `open`, or the path of a TOML file.")
    ] = "tianjin"
    utc_offset: Annotated[
        str,
        Meta(pattern=r"^[+-](0\d|1[0-4]):[0-5]\d$"),
        _about("The deployment's fixed offset: it says where a day begins, and how times without offset are read."),
    ] = "+08:00"
    tick_seconds: Annotated[
        int,
        Meta(ge=60, le=604_800),
        _about("The tick on which alerts are decided: whole minutes that divide a day, or a week.", "s"),
    ] = 3_600
    partitions: Annotated[int, Meta(ge=1, le=1_024), _about("Partitions of each raw topic.")] = 4
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
    deadlines: DeadlineRules = DeadlineRules()

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
        """Hash of everything that can change an alert, the content of the severity rules among it. Connections, names,
        partition counts and the deadlines of disposal cannot; the catalogue has a digest of its own."""
        apart = ("name", "topic_prefix", "partitions", "catalogue", "deadlines")
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
