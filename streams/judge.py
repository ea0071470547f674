"""From changed cells to signals: which cells are judged, what is found of them, how grave it is.

What is the echo of what is told by :mod:`streams.judge_roles`, what lies behind a finding by
:mod:`streams.judge_events`.
"""

from __future__ import annotations

import math
from datetime import datetime
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from schemas.alerts import AlertKind, Role, Scope, Signal
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from streams.columns import INDICATORS
from streams.config import Config
from streams.finding import Finding
from streams.grades import statistical_level
from streams.judge_counts import judge_counts
from streams.judge_drift import judge_index_drift, judge_losses
from streams.judge_events import AdverseRows, Behind, events_behind
from streams.judge_rates import judge_rates
from streams.judge_roles import roles
from streams.judge_rows import RowFacts
from streams.judge_satisfaction import judge_satisfaction
from streams.judge_scan import ClusterScan
from streams.lab_mix import CellLeaves, LabMix
from streams.state import AssessState, Folded
from streams.ticks import Calendar

__all__ = ["Judge"]

_KINDS: dict[str, AlertKind] = {
    "pass": "pass-rate",
    "injury": "injury-surge",
    "complaint": "complaint-surge",
    "satisfaction": "satisfaction",
    "loss": "quality-loss",
}
_SCANNED: Final = ("injury", "complaint")


class Judge:
    """Judges the cells of one assess partition, tick by tick."""

    def __init__(self, config: Config, catalogue: Catalogue, state: AssessState, calendar: Calendar) -> None:
        self._config = config
        self._catalogue = catalogue
        self._state = state
        self._calendar = calendar
        self._severity = config.grades.load()
        self._leaves = CellLeaves(state)
        self._scan = ClusterScan(catalogue, config.scan)
        self._facts = {name: RowFacts(state.stores[name], partial(self._target, name)) for name in _KINDS}
        self._adverse = {name: AdverseRows(state.ledger, INDICATORS.index(name)) for name in _KINDS}
        self._standing: dict[str, npt.NDArray[np.intp]] = {name: np.empty(0, np.intp) for name in _KINDS}
        """Rows, ascending."""

    @property
    def standing(self) -> bool:
        """Whether any cell's evidence stood when it was last judged."""
        return any(len(rows) for rows in self._standing.values())

    def standing_cells(self) -> list[tuple[str, str, str]]:
        """The standing cells (indicator, product, region), sorted."""
        stores = self._state.stores
        return sorted(
            (name, *stores[name].cells[row]) for name, rows in self._standing.items() for row in rows.tolist()
        )

    def restore_standing(self, cells: list[tuple[str, str, str]]) -> None:
        for name in _KINDS:
            found = [self._state.stores[name].row((product, region)) for kind, product, region in cells if kind == name]
            rows = np.array([row for row in found if row is not None], np.intp)
            self._standing[name] = np.union1d(self._standing[name], rows)

    def tick(self, tick: int, day: int, folded: Folded, *, since: int | None) -> list[Signal]:
        """Signals of one tick in a stated order.

        At the first tick of a day ``since`` is the first tick of the day that was worked on before: every standing cell
        is judged again, and what was reported since is scanned for clusters.
        """
        signals = [self._withdrawal(tick, alert_id, level) for alert_id, level, _ in folded.withdrawn_graves]
        for name in _KINDS:
            dirty = folded.dirty.get(name, np.empty(0, np.intp))
            rows = self._to_judge(name, dirty, since is not None)
            clusters: list[Finding] = []
            if since is not None and name in _SCANNED:
                clusters = self._scan.findings(self._state.stores[name], self._reported(name, since, tick), day)
            if len(rows) or clusters:
                signals += self._indicator(name, rows, clusters, tick, day)
        return signals

    def _to_judge(self, name: str, dirty: npt.NDArray[np.intp], whole: bool) -> npt.NDArray[np.intp]:
        standing = self._standing[name]
        if not len(standing) or not (whole or len(dirty)):
            return dirty
        chosen = np.zeros(len(self._state.stores[name]), np.bool_)
        chosen[dirty] = True
        if not whole:
            branches = self._facts[name].branches
            touched = np.zeros(self._facts[name].branch_count, np.bool_)
            touched[branches(dirty)] = True
            standing = standing[touched[branches(standing)]]
        chosen[standing] = True
        return np.flatnonzero(chosen)

    def _reported(self, name: str, since: int, tick: int) -> list[str]:
        """Products, at every level, with reports in the ticks from ``since`` before ``tick``; sorted."""
        ledger, leaves, facts = self._state.ledger, self._state.leaves, self._facts[name]
        span = slice(ledger.since(since).start, ledger.since(tick).start)
        mine = ledger["live"][span] & (ledger["indicator"][span] == INDICATORS.index(name))
        reported = np.unique(ledger.at("leaf", span.start + np.flatnonzero(mine))).tolist()
        if not reported:
            return []
        numbers = facts.product_numbers(np.concatenate([leaves[leaf].rows for leaf in reported]))
        return sorted(facts.products[number] for number in np.unique(numbers).tolist())

    def _indicator(
        self, name: str, rows: npt.NDArray[np.intp], clusters: list[Finding], tick: int, day: int
    ) -> list[Signal]:
        store = self._state.stores[name]
        if name == "pass":
            rules = self._config.pass_rate
            labs = LabMix(self._state, self._leaves, day, rules) if self._config.labs.adjust else None
            targets = self._facts[name].targets(rows)
            findings = judge_rates(store, rows, day, targets, rules, labs)
        elif name == "satisfaction":
            findings = self._satisfaction(rows, day)
        elif name == "loss":
            findings = judge_losses(store, rows, day, self._config.drift)
        else:
            findings = _merged(judge_counts(store, rows, day, self._config.counts), clusters)
        standing = np.zeros(len(store), np.bool_)
        standing[self._standing[name]] = True
        standing[rows] = False
        standing[[finding.row for finding in findings]] = True
        self._standing[name] = np.flatnonzero(standing)
        return self._signals(name, findings, tick, day)

    def _satisfaction(self, rows: npt.NDArray[np.intp], day: int) -> list[Finding]:
        """Below target, or falling."""
        store = self._state.stores["satisfaction"]
        targets = self._facts["satisfaction"].targets(rows)
        below = judge_satisfaction(store, rows, day, targets, self._config.satisfaction)
        return _merged(below, judge_index_drift(store, rows, day, self._config.drift))

    def _target(self, name: str, product: str) -> float:
        try:
            targets = self._catalogue.targets_for(product)
        except Rejection:  # the overflow leaf is in no catalogue
            return math.nan
        value = targets.pass_rate if name == "pass" else targets.satisfaction
        return math.nan if value is None else value

    def _signals(self, name: str, findings: list[Finding], tick: int, day: int) -> list[Signal]:
        """Of each finding one, by product and region."""
        indicator = INDICATORS.index(name)
        role = roles(self._state, indicator, findings)
        # Echoes need no contributors: the primary cell lists them.
        primary = [finding for finding in findings if role[finding.row] == "primary"]
        told = events_behind(self._state, self._adverse[name], self._calendar, primary, day)
        behind = {finding.row: one for finding, one in zip(primary, told, strict=True)}
        as_of = self._calendar.moment(self._calendar.tick_end(tick))
        made = [
            self._signal(name, one, role[one.row], behind.get(one.row) or Behind(), tick, as_of) for one in findings
        ]
        return sorted(made, key=lambda signal: (signal.product, signal.region))

    def _signal(self, name: str, finding: Finding, role: Role, behind: Behind, tick: int, as_of: datetime) -> Signal:
        product, region = self._state.stores[name].cells[finding.row]
        scope: Scope = "cell"
        if behind.products >= 2 and behind.regions >= self._config.escalate.industry_regions:
            scope = "industry"
        return Signal(
            tick=tick,
            as_of=as_of,
            kind=_KINDS[name],
            product=product,
            region=region,
            role=role,
            level=self._level(_KINDS[name], product, finding, behind, scope),
            scope=scope,
            p_value=finding.p_value,
            excess=max(finding.excess.values()),
            evidence=finding.evidence,
            e_value=finding.e_value,
            contributors=behind.contributors,
            sources=behind.sources,
            window_days=finding.window_days if behind.rows else 0,
            severity=behind.gravest,
        )

    def _level(self, kind: AlertKind, product: str, finding: Finding, behind: Behind, scope: Scope) -> int:
        """By the product-risk matrix; key supervision and breadth raise it (:mod:`streams.grades`)."""
        try:
            key = self._catalogue.key_supervision(product)
        except Rejection:
            key = False
        return statistical_level(
            kind, finding, behind.severities, self._severity, key=key, industry=scope == "industry"
        )

    def _withdrawal(self, tick: int, alert_id: str, level: int) -> Signal:
        """A grave event was corrected or withdrawn: its alert no longer stands."""
        return Signal(
            tick=tick,
            as_of=self._calendar.moment(self._calendar.tick_end(tick)),
            kind="grave-event",
            product="",
            region="",
            role="primary",
            level=level,
            scope="cell",
            p_value=1.0,
            excess=0.0,
            evidence=[],
            alert_id=alert_id,
            withdrawn=True,
        )


def _merged(findings: list[Finding], others: list[Finding]) -> list[Finding]:
    """Findings of two detectors, one a row: a cell that both found has the evidence of both."""
    by_row = {one.row: one for one in findings}
    for other in others:
        held = by_row.setdefault(other.row, other)
        if held is not other:
            if other.p_value < held.p_value:
                held.p_value, held.window_days = other.p_value, other.window_days
            for window, excess in other.excess.items():
                held.excess[window] = max(held.excess.get(window, 0.0), excess)
            held.evidence += other.evidence
    return [by_row[row] for row in sorted(by_row)]
