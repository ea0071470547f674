"""The demonstration: a simulated year with planted incidents, run through the embedded pipeline and held against
what was planted.

What counts as found, as an echo, and as false, stands in :func:`judge`; the same words are printed with the table.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final

from schemas.alerts import Alert
from schemas.catalogue import Catalogue
from schemas.errors import ConfigError, Rejection, TocsinError
from schemas.tree import Tree
from streams import datadir
from streams.datadir import Wanted
from streams.embedded import EmbeddedRuntime, Step
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing
from streams.simulate import Planted, Record, simulate

__all__ = ["GRACE_DAYS", "Demo", "Finding", "Judged", "judge", "run_demo"]

GRACE_DAYS: Final = 30
"""For so long after its last record an incident may still be alerted: windows look back."""
_WRITE_AT_ONCE: Final = 20_000

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(slots=True)
class Finding:
    """A planted incident, the alerts that match it (first revision of each, in time's order), and the first."""

    planted: Planted
    alerts: list[Alert] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether any alert matches."""
        return bool(self.alerts)

    @property
    def missed(self) -> bool:
        """Whether an alert was owed and none came."""
        return self.planted.expected and not self.alerts

    @property
    def delay_days(self) -> int | None:
        """Days from the incident's first record to its first alert."""
        return (self.alerts[0].as_of.date() - self.planted.start).days if self.alerts else None


@dataclass(slots=True)
class Judged:
    """All opened alerts, divided: those that match a planted incident, echoes of one, and false ones."""

    findings: list[Finding]
    related: list[Alert]
    false: list[Alert]


@dataclass(slots=True)
class Demo:
    """One demonstration: its verdicts and its figures."""

    seed: int
    scale: float
    judged: Judged
    events: int
    revisions: int
    alerts: int
    run_seconds: float
    seconds: float
    memory_mb: float

    @property
    def missed(self) -> list[str]:
        """Keys of incidents that should have been alerted and were not."""
        return [finding.planted.key for finding in self.judged.findings if finding.missed]


TICK_SECONDS = 21_600
"""The demo decides four times a day, not every hour: a newcomer waits a quarter of the time."""


def run_demo(folder: Path, *, seed: int = 2024, scale: float = 1.0, progress: Progress | None = None) -> Demo:
    """Simulate a year, publish it to an embedded log in ``folder``, run it to its end, and judge the alerts.

    Raises
    ------
    ConfigError, TocsinError
        The size makes no sense, or the folder has a log already.
    """
    tell: Progress = progress or (lambda what, done, total: None)
    if datadir.has_log(folder):
        raise TocsinError(f"{folder}: holds a log already; name a new directory")
    began = time.monotonic()
    tell("simulating", 0, 1)
    try:
        year = simulate(seed=seed, scale=scale)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    config = datadir.settle(folder, Wanted(catalogue="tianjin", tick_seconds=TICK_SECONDS))
    log = SqliteLog(folder, config.partitions)
    alerts: list[Alert] = []
    events = 0
    try:
        log.lock()
        _write(EmbeddedMedium(log), year.events, tell)
        total, started = len(year.events), time.monotonic()

        def on_step(step: Step) -> None:
            nonlocal events
            alerts.extend(step.alerts)
            events += step.events
            tell("watching the year go by", events, total)

        EmbeddedRuntime(log, config, config.load_catalogue(), on_step=on_step).run_to_end()
    finally:
        log.close()
    done = time.monotonic()
    judged = judge(year.planted, alerts, config.load_catalogue())
    opened = sum(alert.revision == 1 for alert in alerts)
    return Demo(
        seed, scale, judged, events, len(alerts), opened, done - started, done - began, _peak_memory_mb()
    )  # fmt: skip


def _write(medium: EmbeddedMedium, events: Sequence[Record], tell: Progress) -> None:
    for start in range(0, len(events), _WRITE_AT_ONCE):
        by_topic: dict[str, list[Outgoing]] = {}
        for topic, key, value, reported_at in events[start : start + _WRITE_AT_ONCE]:
            by_topic.setdefault(topic, []).append(Outgoing(reported_at, key, value))
        for topic, records in by_topic.items():
            medium.write(topic, records)
        tell("publishing", min(start + _WRITE_AT_ONCE, len(events)), len(events))


def _peak_memory_mb() -> float:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# --- what was found ------------------------------------------------------------------------------------------------


def judge(planted: Iterable[Planted], revisions: Iterable[Alert], catalogue: Catalogue) -> Judged:
    """Divide the alerts into findings, echoes and false ones.

    An alert *matches* an incident when it was opened or raised between the incident's first day and
    :data:`GRACE_DAYS` after its last, is of an expected kind, and names the incident's product and region, or what
    lies above or below them in their trees; where the incident is a lab's, it names the lab. An alert that matches none
    is an *echo* where it names any product of an incident's branch, or its lab, and stood at a time when that incident
    did; else it is *false*.
    """
    history: dict[str, list[Alert]] = {}
    for alert in sorted(revisions, key=lambda one: (one.as_of, one.id, one.revision)):
        history.setdefault(alert.id, []).append(alert)
    findings = [Finding(one) for one in planted]
    judged = Judged(findings, [], [])
    for mine in history.values():
        matches = [(finding, _match(finding.planted, mine, catalogue)) for finding in findings]
        for finding, hit in matches:
            if hit is not None:
                finding.alerts.append(hit)
        if any(hit is not None for _, hit in matches):
            continue
        echo = any(_echoes(finding.planted, mine, catalogue) for finding in findings)
        (judged.related if echo else judged.false).append(mine[0])
    for finding in findings:
        finding.alerts.sort(key=lambda one: (one.as_of, one.id))
    return judged


def _match(planted: Planted, history: Sequence[Alert], catalogue: Catalogue) -> Alert | None:
    """The first revision that speaks of the incident."""
    last = planted.end + timedelta(days=GRACE_DAYS)
    regions = planted.regions or ((planted.region,) if planted.region else ())
    for alert in history:
        if (
            alert.status in ("opened", "raised")
            and alert.kind in planted.expected_kinds
            and planted.start <= alert.as_of.date() <= last
            and _names(planted, alert, regions, catalogue)
        ):
            return alert
    return None


def _names(planted: Planted, alert: Alert, regions: Sequence[str], catalogue: Catalogue) -> bool:
    """Whether the alert is about what the incident is about."""
    if planted.product is None:
        return alert.source == planted.source
    return _akin(catalogue.products, alert.product, planted.product) and any(
        _akin(catalogue.regions, alert.region, region) for region in regions
    )


def _echoes(planted: Planted, history: Sequence[Alert], catalogue: Catalogue) -> bool:
    if planted.product is None:
        return history[0].source == planted.source
    stood: tuple[date, date] = (history[0].onset.date(), history[-1].as_of.date())
    overlaps = stood[0] <= planted.end + timedelta(days=GRACE_DAYS) and planted.start <= stood[1]
    branch, planted_branch = (_path(catalogue.products, code)[0] for code in (history[0].product, planted.product))
    return overlaps and branch == planted_branch


def _akin(tree: Tree, one: str, other: str) -> bool:
    """Whether one code is the other, or lies above or below it."""
    return one in _path(tree, other) or other in _path(tree, one)


def _path(tree: Tree, code: str) -> tuple[str, ...]:
    try:
        return tree.path(code)
    except Rejection:
        return (code,)
