"""Metrics of the risk itself: open alerts by grade, and pass rates and evidence for a bounded set of cells.

Series by product and region are few by design: the gravest :data:`MAX_ALERTS` open alerts and the cells that were
named. How many open alerts have no series of their own is told by ``tocsin_alerts_without_series``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detectors.passrate import jeffreys_interval
from schemas.alerts import Alert, Evidence, Signal
from streams.cells import CellStore
from streams.config import Config
from streams.ticks import MS_PER_DAY

__all__ = ["MAX_ALERTS", "MAX_CELLS", "RiskSeries", "label"]

MAX_ALERTS: Final = 100
MAX_CELLS: Final = 100
_LONGEST_LABEL: Final = 64
_Series = dict[tuple[str, ...], float]
_HOUR: Final = 3_600.0


def label(text: str) -> str:
    """A code from outside as a label's value: printable and short.

    Examples
    --------
    >>> label('F0101')
    'F0101'
    >>> len(label('x' * 1000))
    64
    """
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:_LONGEST_LABEL])


class RiskSeries(Collector):
    """Collects the series of open alerts and of named cells; what is overdue is found when it is asked.

    Parameters
    ----------
    config
        Windows, confidence and ticks.
    cells
        Products and regions whose pass rate is always shown; those after :data:`MAX_CELLS` are not.
    now
        The wall clock in epoch seconds.
    targets
        The pass rate that is asked of a named cell, where any is.
    """

    def __init__(
        self,
        config: Config,
        cells: Sequence[tuple[str, str]],
        now: Callable[[], float],
        targets: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        self._windows = config.pass_rate.windows_days
        self._confidence = config.pass_rate.confidence
        self._tick_seconds = config.tick_seconds
        self._named = tuple(dict.fromkeys(cells))[:MAX_CELLS]
        self._now = now
        self._alerts: tuple[Alert, ...] | None = None
        self._targets = {cell: target for cell, target in (targets or {}).items() if cell in self._named}
        self._signals: dict[tuple[str, str, str], tuple[int, float]] = {}
        self._rates: dict[int, tuple[_Series, _Series, _Series, _Series]] = {}
        self._held: dict[int, tuple[tuple[str, str], ...]] = {}

    def forget(self) -> None:
        """Another worker owns the partitions from now on."""
        self._alerts, self._rates, self._held, self._signals = None, {}, {}, {}

    def standing(self, alerts: Sequence[Alert]) -> None:
        """All open alerts."""
        self._alerts = tuple(sorted(alerts, key=lambda alert: (alert.level, alert.id)))

    def signalled(self, signals: Iterable[Signal], end: int) -> None:
        """Take the evidence on named cells that ticks brought, the last of which ended then (epoch ms)."""
        kept = {key: held for key, held in self._signals.items() if end - held[0] < MS_PER_DAY}
        for signal in signals:
            if (signal.product, signal.region) in self._named and not signal.source and not signal.hazard:
                kept[signal.kind, signal.product, signal.region] = (end, signal.p_value)
        self._signals = kept

    def measure(self, partition: int, store: CellStore, day: int) -> None:
        """Take the named cells' pass rates, as of a day, from a partition's store."""
        rate, lower, upper, tested = shown = ({}, {}, {}, {})  # type: tuple[_Series, _Series, _Series, _Series]
        held = [(cell, row) for cell in self._named if (row := store.row(cell)) is not None]
        self._held[partition] = tuple(cell for cell, _ in held)
        if held:
            counts = store.daily(np.array([row for _, row in held], np.intp), day, max(self._windows))
            for window in self._windows:
                failed, n = np.maximum(counts[:, -window:].sum(axis=1), 0).T
                low, high = jeffreys_interval(n, np.maximum(n - failed, 0), self._confidence)
                for at in np.flatnonzero(n).tolist():
                    key = ("cell", label(held[at][0][0]), label(held[at][0][1]), str(window))
                    rate[key], tested[key] = 1.0 - float(failed[at]) / float(n[at]), float(n[at])
                    lower[key], upper[key] = float(low[at]), float(high[at])
        self._rates[partition] = shown

    # --- collecting ------------------------------------------------------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        yield from self._open(self._alerts)
        yield from self._evidence((self._alerts or ())[:MAX_ALERTS])
        yield from self._pass_rates((self._alerts or ())[:MAX_ALERTS])
        yield from self._named_cells()

    def _open(self, alerts: tuple[Alert, ...] | None) -> Iterable[Metric]:
        labels = ("level", "kind", "scope")
        known = alerts or ()
        now = self._now()
        said: Counter[tuple[str, ...]] = Counter(
            (a.grade, a.kind, a.scope, "no" if a.acknowledged_by is None else "yes") for a in known
        )
        overdue: Counter[tuple[str, ...]] = Counter(
            (a.grade, a.kind, a.scope) for a in known if self._deadline(a) < now
        )
        yield _gauge("tocsin_open_alerts", "Alerts that stand.", (*labels, "acknowledged"), said)
        gravest: dict[tuple[str, str], str] = {}
        for alert in known:  # gravest first
            gravest.setdefault((alert.product, alert.region), alert.grade)
        cells: Counter[tuple[str, ...]] = Counter((grade,) for grade in gravest.values())
        text = "Cells (product x region) with an open alert, by the gravest of them."
        yield _gauge("tocsin_alerting_cells", text, ("level",), {} if alerts is None else cells)
        text = "Open alerts that nobody acknowledged within the time of their first action."
        yield _gauge("tocsin_overdue_alerts", text, labels, overdue)
        left: _Series = {} if alerts is None else {(): float(max(len(alerts) - MAX_ALERTS, 0))}
        yield _gauge("tocsin_alerts_without_series", "Open alerts beyond those with series of their own.", (), left)

    def _deadline(self, alert: Alert) -> float:
        """Epoch seconds by which somebody must have acknowledged the alert; never, where somebody has."""
        hours = alert.actions[0].deadline_hours if alert.actions else None
        if alert.acknowledged_by is not None or hours is None:
            return float("inf")
        # An alert opens at the end of its onset's tick, a grave event's at once.
        opened = alert.onset.timestamp() + (0 if alert.kind == "grave-event" else self._tick_seconds)
        return opened + hours * _HOUR

    def _evidence(self, alerts: Sequence[Alert]) -> Iterable[Metric]:
        labels = ("alert_id", "level", "kind", "product", "region")
        about = (*labels, "scope", "acknowledged", "product_name", "region_name")
        p_values, observed, expected, levels = {}, {}, {}, {}  # type: _Series, _Series, _Series, _Series
        for alert in alerts:
            key = (label(alert.id), alert.grade, alert.kind, label(alert.product), label(alert.region))
            said = "no" if alert.acknowledged_by is None else "yes"
            names = (label(alert.product_name.zh), label(alert.region_name.zh))
            levels[(*key, alert.scope, said, *names)] = float(alert.level)
            if alert.p_value is not None:
                p_values[key] = alert.p_value
            best = _strongest(alert.evidence)
            if best is not None:
                observed[key] = best.observed
            if best is not None and best.expected is not None:
                expected[key] = best.expected
        yield _gauge("tocsin_alert_level", "Of an open alert: 1 (I, gravest) to 4.", about, levels)
        yield _gauge("tocsin_alert_p_value", "Of an open alert, as of its last revision.", labels, p_values)
        yield _gauge("tocsin_alert_observed", "Adverse events in the strongest evidence.", labels, observed)
        yield _gauge("tocsin_alert_expected", "What chance explains of them.", labels, expected)

    def _pass_rates(self, alerts: Sequence[Alert]) -> Iterable[Metric]:
        labels = ("of", "product", "region", "window_days")
        rate, lower, upper, tested = ({}, {}, {}, {})  # type: tuple[_Series, _Series, _Series, _Series]
        targets: _Series = {
            ("cell", label(cell[0]), label(cell[1])): self._targets[cell]
            for cells in list(self._held.values())  # of its owner alone: several workers would say it several times
            for cell in cells
            if cell in self._targets
        }
        for alert in (one for one in alerts if one.kind == "pass-rate"):
            for evidence in (one for one in alert.evidence if one.rate is not None):
                key = ("alert", label(alert.product), label(alert.region), str(evidence.window_days))
                held = ((rate, evidence.rate), (lower, evidence.lower), (upper, evidence.upper),
                        (tested, evidence.tested))  # fmt: skip
                if evidence.against == "target" and evidence.reference is not None:
                    targets[key[:3]] = evidence.reference
                for series, value in held:
                    if value is not None:
                        series.setdefault(key, float(value))
        for shown in list(self._rates.values()):
            for series, more in zip((rate, lower, upper, tested), shown, strict=True):
                series.update(more)
        text = "Share of tested items that pass: of named cells now, of open alerts as of their last revision."
        yield _gauge("tocsin_pass_rate_ratio", text, labels, rate)
        yield _gauge("tocsin_pass_rate_lower_ratio", "Lower end of its interval.", labels, lower)
        yield _gauge("tocsin_pass_rate_upper_ratio", "Upper end of its interval.", labels, upper)
        yield _gauge("tocsin_pass_rate_target_ratio", "What is asked of it.", labels[:3], targets)
        yield _gauge("tocsin_pass_rate_tested_items", "Items tested in the window.", labels, tested)

    def _named_cells(self) -> Iterable[Metric]:
        signals: _Series = {(kind, label(p), label(r)): held[1] for (kind, p, r), held in self._signals.items()}
        text = "Of the evidence that a named cell showed within the last day of ticks."
        yield _gauge("tocsin_cell_p_value", text, ("kind", "product", "region"), signals)


def _strongest(evidence: Sequence[Evidence]) -> Evidence | None:
    return min(evidence, key=lambda one: one.p_value if one.p_value is not None else 1.0, default=None)


def _gauge(name: str, text: str, labels: tuple[str, ...], series: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in series.items():
        family.add_metric(values, value)
    return family
