"""From changed cells to signals: which cells are judged, what is the echo of what, how grave it is.

One incident shows in its cell and in every cell above it. A cell is *explained* when few cells below it carry most
of its excess, and *part* when a broader cell stands for it; what remains is *primary*, and only that may open an
alert.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from schemas.alerts import AlertKind, Contributor, Role, Scope, Signal, SourceRange
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from streams.columns import INDICATORS
from streams.config import Config
from streams.finding import Finding
from streams.grades import statistical_level
from streams.judge_counts import judge_counts
from streams.judge_drift import judge_index_drift, judge_losses
from streams.judge_rates import judge_rates
from streams.judge_satisfaction import judge_satisfaction
from streams.judge_scan import ClusterScan
from streams.lab_mix import LabMix
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
_ONE_EXPLAINS = 0.6
_FEW = 2
_FEW_EXPLAIN = 0.8
_LISTED = 10
_ROLES: Final = ("lab", "producer", "batch", "gtin")


@dataclass(slots=True)
class _Window:
    """The live adverse ledger rows behind a cell's evidence; ``severities`` counts their events by severity, 0 to 4."""

    rows: npt.NDArray[np.intp]
    products: int
    regions: int
    severities: tuple[int, ...]


_NOTHING = _Window(np.empty(0, np.intp), 0, 0, (0,) * 5)


class Judge:
    """Judges the cells of one assess partition, tick by tick."""

    def __init__(self, config: Config, catalogue: Catalogue, state: AssessState, calendar: Calendar) -> None:
        self._config = config
        self._catalogue = catalogue
        self._state = state
        self._calendar = calendar
        self._severity = config.grades.load()
        self._scan = ClusterScan(catalogue, config.scan)
        self._standing: dict[str, set[int]] = {name: set() for name in _KINDS}

    @property
    def standing(self) -> bool:
        """Whether any cell's evidence stood when it was last judged."""
        return any(self._standing.values())

    def standing_cells(self) -> list[tuple[str, str, str]]:
        """The standing cells (indicator, product, region), sorted."""
        stores = self._state.stores
        return sorted((name, *stores[name].cells[row]) for name, rows in self._standing.items() for row in rows)

    def restore_standing(self, cells: list[tuple[str, str, str]]) -> None:
        for name, product, region in cells:
            row = self._state.stores[name].row((product, region))
            if row is not None:
                self._standing[name].add(row)

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
        store = self._state.stores[name]
        standing = self._standing[name]
        if standing and not whole:
            branches = {store.branch(row) for row in dirty.tolist()}
            standing = {row for row in standing if store.branch(row) in branches}
        if not standing:
            return dirty
        return np.union1d(dirty, np.fromiter(sorted(standing), np.intp, len(standing)))

    def _reported(self, name: str, since: int, tick: int) -> list[str]:
        """Products, at every level, with reports in the ticks from ``since`` before ``tick``; sorted."""
        ledger = self._state.ledger
        span = slice(ledger.since(since).start, ledger.since(tick).start)
        mine = ledger["live"][span] & (ledger["indicator"][span] == INDICATORS.index(name))
        store, leaves = self._state.stores[name], np.unique(ledger["leaf"][span][mine]).tolist()
        return sorted({store.cells[row][0] for leaf in leaves for row in self._state.leaves[leaf].rows.tolist()})

    def _indicator(
        self, name: str, rows: npt.NDArray[np.intp], clusters: list[Finding], tick: int, day: int
    ) -> list[Signal]:
        store = self._state.stores[name]
        if name == "pass":
            labs = LabMix(self._state, day, self._config.pass_rate) if self._config.labs.adjust else None
            findings = judge_rates(store, rows, day, self._targets(name, rows), self._config.pass_rate, labs)
        elif name == "satisfaction":
            findings = self._satisfaction(rows, day)
        elif name == "loss":
            findings = judge_losses(store, rows, day, self._config.drift)
        else:
            findings = _merged(judge_counts(store, rows, day, self._config.counts), clusters)
        self._standing[name] -= set(rows.tolist())
        self._standing[name] |= {finding.row for finding in findings}
        roles = self._roles(INDICATORS.index(name), findings)
        made = [self._signal(name, finding, roles[finding.row], tick, day) for finding in findings]
        return sorted(made, key=lambda signal: (signal.product, signal.region))

    def _satisfaction(self, rows: npt.NDArray[np.intp], day: int) -> list[Finding]:
        """Below target, or falling."""
        store = self._state.stores["satisfaction"]
        targets = self._targets("satisfaction", rows)
        below = judge_satisfaction(store, rows, day, targets, self._config.satisfaction)
        return _merged(below, judge_index_drift(store, rows, day, self._config.drift))

    def _targets(self, name: str, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        store = self._state.stores[name]
        out = np.full(len(rows), np.nan)
        for at, row in enumerate(rows.tolist()):
            try:
                targets = self._catalogue.targets_for(store.cells[row][0])
            except Rejection:  # the overflow leaf is in no catalogue
                continue
            value = targets.pass_rate if name == "pass" else targets.satisfaction
            out[at] = np.nan if value is None else value
        return out

    def _roles(self, indicator: int, findings: list[Finding]) -> dict[int, Role]:
        """Primary, explained or part, for every cell with a finding."""
        below = self._nesting(indicator, findings)
        by_row = {finding.row: finding for finding in findings}
        explained = {
            finding.row
            for finding in findings
            if self._explained(indicator, finding, [by_row[row] for row in below[finding.row]])
        }
        roles: dict[int, Role] = dict.fromkeys(explained, "explained")
        for row in (finding.row for finding in findings if finding.row not in explained):
            wider = any(row in below[other] for other in below if other not in explained)
            roles[row] = "part" if wider else "primary"
        return roles

    def _nesting(self, indicator: int, findings: list[Finding]) -> dict[int, list[int]]:
        """For each cell the other cells with findings that lie wholly below it."""
        rows = [finding.row for finding in findings]
        below: dict[int, list[int]] = {row: [] for row in rows}
        for low in rows:
            leaf = self._state.leaves_under(indicator, low)[0]
            deep = self._state.position(indicator, low, leaf)
            above = set(self._state.leaves[leaf].rows.tolist())
            for high in rows:
                if high != low and high in above:
                    depth = self._state.position(indicator, high, leaf)
                    if depth[0] <= deep[0] and depth[1] <= deep[1]:
                        below[high].append(low)
        return below

    def _explained(self, indicator: int, finding: Finding, below: list[Finding]) -> bool:
        """Whether one cell below carries most of the excess, or a few disjoint ones nearly all of it."""
        window = max(sorted(finding.excess), key=finding.excess.__getitem__)
        total = finding.excess[window]
        shares = sorted(((other.excess.get(window, 0.0), -other.row) for other in below), reverse=True)
        if shares and shares[0][0] >= _ONE_EXPLAINS * total:
            return True
        covered, taken, used = 0.0, 0, set[int]()
        for excess, negative_row in shares:
            leaves = set(self._state.leaves_under(indicator, -negative_row))
            if taken < _FEW and not leaves & used:
                covered, taken, used = covered + excess, taken + 1, used | leaves
        return taken > 0 and covered >= _FEW_EXPLAIN * total

    def _signal(self, name: str, finding: Finding, role: Role, tick: int, day: int) -> Signal:
        store, indicator = self._state.stores[name], INDICATORS.index(name)
        product, region = store.cells[finding.row]
        # Echoes need no contributors: the primary cell lists them.
        window = self._window(indicator, finding, day) if role == "primary" else _NOTHING
        scope: Scope = "cell"
        if window.products >= 2 and window.regions >= self._config.escalate.industry_regions:
            scope = "industry"
        return Signal(
            tick=tick,
            as_of=self._calendar.moment(self._calendar.tick_end(tick)),
            kind=_KINDS[name],
            product=product,
            region=region,
            role=role,
            level=self._level(_KINDS[name], product, finding, window, scope),
            scope=scope,
            p_value=finding.p_value,
            excess=max(finding.excess.values()),
            evidence=finding.evidence,
            e_value=finding.e_value,
            contributors=self._contributors(window.rows),
            sources=self._sources(window.rows),
            window_days=finding.window_days if len(window.rows) else 0,
            severity=int(self._state.ledger["severity"][window.rows].max(initial=0)),
        )

    def _level(self, kind: AlertKind, product: str, finding: Finding, window: _Window, scope: Scope) -> int:
        """By the product-risk matrix; key supervision and breadth raise it (:mod:`streams.grades`)."""
        try:
            key = self._catalogue.key_supervision(product)
        except Rejection:
            key = False
        return statistical_level(
            kind, finding, window.severities, self._severity, key=key, industry=scope == "industry"
        )

    def _window(self, indicator: int, finding: Finding, day: int) -> _Window:
        state, ledger = self._state, self._state.ledger
        first = day - finding.window_days + 1
        # An event counts on the day of its report, and cannot have arrived (much) earlier.
        since = ledger.since(self._calendar.first_tick_of_day(first - 1))
        leaves = np.array(sorted(state.leaves_under(indicator, finding.row)), np.int32)
        hit = ledger["live"][since] & (ledger["indicator"][since] == indicator) & (ledger["day"][since] >= first)
        if indicator == INDICATORS.index("pass"):
            hit &= ledger["x"][since] > 0
        rows = np.flatnonzero(hit) + since.start
        rows = rows[np.isin(ledger["leaf"][rows], leaves)]
        touched = [state.leaves[leaf] for leaf in np.unique(ledger["leaf"][rows]).tolist()]
        severities = np.zeros(5, np.int64)
        np.add.at(severities, ledger["severity"][rows], ledger["x"][rows])
        counts = tuple(severities.tolist())
        return _Window(rows, len({t.product for t in touched}), len({t.region for t in touched}), counts)

    def _contributors(self, rows: npt.NDArray[np.intp]) -> list[Contributor]:
        ledger, counts = self._state.ledger, Counter[tuple[str, str]]()
        for trace, x in zip(ledger["trace"][rows].tolist(), ledger["x"][rows].tolist(), strict=True):
            if trace >= 0:
                values = msgspec.json.decode(self._state.traces[trace], type=list[str | None])
                counts.update({(role, value): x for role, value in zip(_ROLES, values, strict=True) if value})
        out: list[Contributor] = []
        for role in _ROLES:
            ranked = sorted((-adverse, code) for (kind, code), adverse in counts.items() if kind == role)
            out += [Contributor(role=role, code=code, adverse=-less) for less, code in ranked[:_LISTED]]
        return out

    def _sources(self, rows: npt.NDArray[np.intp]) -> list[SourceRange]:
        ledger, out = self._state.ledger, []
        for number in np.unique(ledger["origin"][rows]).tolist():
            offsets = ledger["offset"][rows[ledger["origin"][rows] == number]]
            topic, partition = self._state.origins[number]
            out.append(
                SourceRange(
                    topic=topic,
                    partition=partition,
                    first_offset=int(offsets.min()),
                    last_offset=int(offsets.max()),
                    events=len(offsets),
                )
            )
        return sorted(out, key=lambda source: (source.topic, source.partition))

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
