"""Prometheus metrics of one worker process: every definition, and the meter that fills them.

Each process has an endpoint of its own (:mod:`streams.health`) with what it did and owns; Prometheus adds up. A
partition's series vanish from a worker that has lost it. Labels are bounded: topics, partitions, stages and the words
of our own schemas; products and regions only for the gravest open alerts and for the cells that were named, never for
every cell. No label names a person, a source or an event.
"""

from __future__ import annotations

import platform
import re
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Final, get_args

from prometheus_client import CollectorRegistry, Counter, GCCollector, Histogram, Info, ProcessCollector
from prometheus_client import disable_created_metrics as no_creation_times
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from schemas.alerts import Alert, AlertKind, DeadLetter
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from schemas.topics import RAW_TOPICS
from streams.assess import Assess, Closed
from streams.config import Config
from streams.escalate import VERSION
from streams.intake import IntakeResult, attempts_of
from streams.meter import Meter, Stage
from streams.readiness import Readiness
from streams.risk_series import RiskSeries, label
from streams.ticks import COMPLETE, Calendar, Origin
from streams.wording import GRADES

__all__ = ["MAX_PARTITION_SERIES", "Metrics", "Table"]

MAX_PARTITION_SERIES: Final = 10_000
"""Series of one table by partition: more than any sensible deployment has."""
_MAX_REASONS: Final = 40
_REASON: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_MAX_ARRIVALS: Final = 10_000
_STAGES: Final = {"embedded": ("pipeline",), "kafka": ("intake", "assess", "escalate")}
"""Who writes checkpoints."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LONG_SECONDS: Final = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800)
_LATENCY_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)
_RECORDS: Final = (1, 10, 100, 500, 1_000, 2_500, 5_000, 10_000, 20_000)


class Table(Collector):
    """A gauge whose series are replaced as a whole, so that what has gone is shown no more.

    Parameters
    ----------
    registry
        Where to register.
    name, text, labels
        As for any gauge.
    """

    def __init__(self, registry: CollectorRegistry, name: str, text: str, *labels: str) -> None:
        self._about = (name, text)
        self._labels = labels
        self._values: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def set(self, values: Mapping[tuple[str, ...], float]) -> None:
        """Show these series and no others, the first :data:`MAX_PARTITION_SERIES` of them."""
        self._values = dict(list(values.items())[:MAX_PARTITION_SERIES])

    def put(self, labels: tuple[str, ...], value: float) -> None:
        """Set one series among the others."""
        if labels in self._values or len(self._values) < MAX_PARTITION_SERIES:
            self._values = {**self._values, labels: value}

    def describe(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(*self._about, labels=self._labels)

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(*self._about, labels=self._labels)
        for labels, value in self._values.items():
            family.add_metric(labels, value)
        yield family


class Metrics(Meter):
    """A worker's metrics, in a registry of their own.

    Parameters
    ----------
    config, catalogue
        The worker's: their digests are shown, ticks and windows are measured by them.
    runtime
        ``embedded`` or ``kafka``.
    cells
        Products and regions whose pass rate is always shown, at most :data:`streams.risk_series.MAX_CELLS`.
    now
        The wall clock in epoch seconds.
    """

    on: ClassVar[bool] = True

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        runtime: str,
        *,
        cells: Sequence[tuple[str, str]] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        # The library's switch is global; a second series for each counter helps nobody.
        no_creation_times()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.readiness = Readiness()
        self.risk = RiskSeries(config, cells, now, _targets(catalogue, cells))
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._now = now
        self._arrivals: dict[str, int] = {}
        self._reasons: set[str] = set()
        self._restore_began: dict[tuple[str, int], float] = {}
        self._define()
        self._begin_at_zero(_STAGES[runtime])
        about = {"version": VERSION, "runtime": runtime, "config": config.digest, "catalogue": catalogue.digest[:12],
                 "group": f"{config.topic_prefix}{config.name}", "python": platform.python_version()}  # fmt: skip
        Info("tocsin_build", "What runs, and by which rules.", registry=self.registry).info(about)
        self.registry.register(self.risk)
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def _define(self) -> None:
        self._define_work()
        self._define_state()

    def _begin_at_zero(self, stages: Sequence[str]) -> None:
        """Let counters be there before they count: what is first seen with 1 is no increase to Prometheus."""
        for topic in (*RAW_TOPICS, "dispositions"):
            for verdict in ("accepted", "rejected"):
                self._events.labels(topic, verdict)
        for kind in get_args(AlertKind):
            self._signals.labels(kind)
            for grade in GRADES:
                self._alerts.labels(kind, grade, "opened")
        for stage in stages:
            self._checkpoints.labels(stage)
            self._checkpoint.labels(stage)
            self._bytes.labels(stage)
        for stage in ("intake", "assess", "escalate"):
            self._stage.labels(stage)
        for stage in stages if "pipeline" not in stages else ("intake",):
            self._batch.labels(stage)
        for path in ("grave", "tick"):
            self._latency.labels(path)

    def _define_work(self) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(name, text, labels, registry=self.registry, buckets=buckets)

        self._events = counter("tocsin_events", "Records worked off by intake.", "topic", "verdict")
        self._requeued = counter(
            "tocsin_requeued_events", "Records worked off by intake that were refused before and written again.",
            "topic", "verdict",
        )  # fmt: skip
        self._looked_into = counter(
            "tocsin_events_looked_into", "Accepted records looked into for unknown fields: one of 16 offsets.",
            "topic",
        )  # fmt: skip
        self._unknown = counter(
            "tocsin_events_unknown_fields", "Records looked into that had fields which this version ignores.", "topic"
        )
        for topic in RAW_TOPICS:
            self._looked_into.labels(topic)
            self._unknown.labels(topic)
        self._dead = counter("tocsin_dead_letters", "Records refused.", "stage", "reason")
        self._duplicates = counter("tocsin_duplicate_events", "Copies of events, counted once all the same.")
        self._late = counter("tocsin_late_events", "Events that came after their tick was closed: not counted.")
        self._folded = counter(
            "tocsin_folded_events", "Events that waited for their tick, and were folded at its close."
        )
        self._ticks = counter("tocsin_ticks", "Ticks closed with work in them.")
        self._signals = counter("tocsin_signals", "Evidence on a cell at a tick.", "kind")
        self._alerts = counter("tocsin_alert_revisions", "Revisions of alerts written.", "kind", "level", "status")
        self._checkpoints = counter("tocsin_checkpoints", "Checkpoints that are durable.", "stage")
        self._bytes = counter("tocsin_changelog_bytes", "State written at checkpoints: segments, snapshots.", "stage")
        self._pushes = counter(
            "tocsin_alertmanager_pushes", "Times that Alertmanager was brought in step, or could not be.", "outcome"
        )
        self._rebalances = counter("tocsin_rebalances", "Assignments of partitions to this worker.")
        self._stage = histogram(
            "tocsin_stage_duration_seconds", "A stage's work on one batch (intake: decoding and packing).",
            _SECONDS, "stage",
        )  # fmt: skip
        self._batch = histogram("tocsin_batch_records", "Records in a batch.", _RECORDS, "stage")
        self._tick = histogram(
            "tocsin_tick_duration_seconds", "Closing a tick: the mean of those that were closed together.", _SECONDS
        )
        self._checkpoint = histogram("tocsin_checkpoint_duration_seconds", "Writing a checkpoint.", _SECONDS, "stage")
        self._restore = histogram(
            "tocsin_restore_duration_seconds", "Restoring a partition's state.", _LONG_SECONDS, "stage"
        )
        self._latency = histogram(
            "tocsin_alert_latency_seconds",
            "From an event's arrival (path grave), or the end of its tick (path tick), to the alert's opening or rise.",
            _LATENCY_SECONDS, "path",
        )  # fmt: skip

    def _define_state(self) -> None:
        def table(name: str, text: str, *labels: str) -> Table:
            return Table(self.registry, name, text, *labels)

        self._ready = table("tocsin_ready", "1 when restored and caught up.")
        self._restoring = table("tocsin_restoring", "1 while partitions are assigned or restored.")
        self._progress = table("tocsin_restore_progress_ratio", "How far a restore has come.", "stage", "partition")
        self._owned = table("tocsin_assigned_partitions", "Partitions that this worker works on.", "stage")
        self._backlog = table(
            "tocsin_changelog_backlog_records", "Records that a restore would have to read, at most.",
            "topic", "partition",
        )  # fmt: skip
        self._lag = table("tocsin_consumer_lag_records", "Records not worked off yet.", "topic", "partition")
        self._marks = table(
            "tocsin_watermark_timestamp_seconds", "No later record of this raw partition arrives before this time.",
            "topic", "partition",
        )  # fmt: skip
        self._closed_at = table(
            "tocsin_closed_tick_timestamp_seconds", "End of the last closed tick of an assess partition.", "partition"
        )
        self._waiting = table("tocsin_waiting_events", "Events whose tick is not closed yet.", "partition")
        self._cells = table("tocsin_cells", "Cells (product x region) with counts.", "partition", "indicator")
        self._rows = table("tocsin_state_rows", "Events held in the ledger.", "partition")
        self._held = table("tocsin_state_bytes", "State of an assess partition in memory.", "partition")
        self._by_partition = (self._closed_at, self._waiting, self._cells, self._rows, self._held)
        self._checkpoint_at = table("tocsin_last_checkpoint_timestamp_seconds", "When it was.", "stage")
        self._pushed = table("tocsin_alertmanager_alerts", "Open alerts that Alertmanager was told of.")
        self._pushed_at = table("tocsin_alertmanager_last_push_timestamp_seconds", "When it was last brought in step.")
        self._show_readiness()

    # --- the life of a worker --------------------------------------------------------------------------------------

    def _show_readiness(self) -> None:
        self._ready.set({(): float(self.readiness.ready)})
        self._restoring.set({(): float(self.readiness.restoring)})

    def beat(self) -> None:
        self.readiness.beat()

    def assigning(self) -> None:
        self.readiness.assigning()
        self._restore_began.clear()
        for shown in (*self._by_partition, self._lag, self._backlog, self._marks, self._progress, self._owned):
            shown.set({})
        self.risk.forget()
        self._show_readiness()

    def restoring(self, stage: Stage, partition: int, done: float) -> None:
        self.readiness.beat()
        began = self._restore_began.setdefault((stage, partition), time.monotonic())
        self._progress.put((stage, str(partition)), done)
        if done >= 1.0:
            del self._restore_began[stage, partition]
            self._restore.labels(stage).observe(time.monotonic() - began)

    def serving(self, partitions: Mapping[Stage, int]) -> None:
        if self.readiness.restoring:  # a worker that stands by says so again and again
            self._rebalances.inc()
        self._owned.set({(stage,): float(count) for stage, count in partitions.items()})
        self.readiness.serving(any(partitions.values()))
        self._show_readiness()

    def positions(self, places: Mapping[Origin, tuple[int | None, int | None]]) -> None:
        self.readiness.positions(places)
        known = {key: (at, end) for key, (at, end) in places.items() if at is not None and end is not None}
        self._lag.set({(topic, str(part)): float(max(end - at, 0)) for (topic, part), (at, end) in known.items()})
        self._show_readiness()

    def changelogs(self, records: Mapping[Origin, int]) -> None:
        self._backlog.set({(topic, str(part)): float(count) for (topic, part), count in records.items()})

    def watermarks(self, marks: Mapping[Origin, int]) -> None:
        known = {origin: at / 1_000 for origin, at in marks.items() if abs(at) != COMPLETE}
        self._marks.set({(topic, str(part)): at for (topic, part), at in known.items()})

    # --- work ------------------------------------------------------------------------------------------------------

    def decoded(self, result: IntakeResult, records: int, seconds: float) -> None:
        topic, refused = result.origin[0], len(result.dead)
        self._events.labels(topic, "accepted").inc(records - refused)
        self._events.labels(topic, "rejected").inc(refused)
        if result.looked_into:
            self._looked_into.labels(topic).inc(result.looked_into)
            self._unknown.labels(topic).inc(result.unknown)
        if result.requeued:
            again = sum(attempts_of(letter.headers.items()) > 0 for letter in result.dead)
            self._requeued.labels(topic, "accepted").inc(result.requeued - again)
            self._requeued.labels(topic, "rejected").inc(again)
        self.took("intake", records, seconds)

    def refused(self, letters: Sequence[DeadLetter]) -> None:
        for (stage, reason), count in Tally((letter.stage, letter.reason) for letter in letters).items():
            self._dead.labels(stage, self._reason(reason)).inc(count)

    def _reason(self, reason: str) -> str:
        """The reason as a label; ours are few, and what is more than that can only be a bug."""
        if reason not in self._reasons and (len(self._reasons) >= _MAX_REASONS or not _REASON.fullmatch(reason)):
            return "other"
        self._reasons.add(reason)
        return reason

    def late(self, events: int) -> None:
        self._late.inc(events)

    def took(self, stage: Stage, records: int, seconds: float) -> None:
        self._stage.labels(stage).observe(seconds)
        self._batch.labels(stage).observe(records)

    def closed(self, closed: Closed, assess: float, escalate: float | None = None) -> None:
        ticks = len(closed.ticks)
        if not ticks:
            return
        self._ticks.inc(ticks)
        self._folded.inc(closed.events)
        self._duplicates.inc(closed.duplicates)
        self._stage.labels("assess").observe(assess)
        if escalate is not None:
            self._stage.labels("escalate").observe(escalate)
        for _ in range(ticks):
            self._tick.observe((assess + (escalate or 0.0)) / ticks)
        for kind, count in Tally(signal.kind for signal in closed.signals).items():
            self._signals.labels(kind).inc(count)
        self.risk.signalled(closed.signals, self._calendar.tick_end(max(closed.ticks)))

    def checkpointed(self, stage: Stage, seconds: float, nbytes: int = 0) -> None:
        self._checkpoints.labels(stage).inc()
        self._checkpoint.labels(stage).observe(seconds)
        self._bytes.labels(stage).inc(nbytes)
        self._checkpoint_at.put((stage,), self._now())

    def pushed(self, alerts: int, ok: bool) -> None:
        self._pushes.labels("told" if ok else "failed").inc()
        if ok:
            self._pushed.set({(): float(alerts)})
            self._pushed_at.set({(): self._now()})

    # --- what stands -----------------------------------------------------------------------------------------------

    def assessed(self, partition: int, assess: Assess) -> None:
        name, state = str(partition), assess.state
        for indicator, store in state.stores.items():
            self._cells.put((name, indicator), float(len(store)))
        self._rows.put((name,), float(len(state.ledger)))
        self._held.put((name,), float(state.nbytes))
        self._waiting.put((name,), float(assess.waiting()))
        through = assess.closed_through
        if through is not None:
            self._closed_at.put((name,), self._calendar.tick_end(through) / 1_000)
            self.risk.measure(partition, state.stores["pass"], self._calendar.day_of_tick(through))

    def arrived(self, alert_ids: Sequence[str | None], arrival_ms: int) -> None:
        for alert_id in alert_ids:
            if alert_id is not None and len(self._arrivals) < _MAX_ARRIVALS:
                self._arrivals.setdefault(alert_id, arrival_ms)

    def emitted(self, alerts: Sequence[Alert]) -> None:
        for alert in alerts:
            self._alerts.labels(alert.kind, alert.grade, alert.status).inc()
            if alert.status not in ("opened", "raised") or alert.emitted_at is None:
                continue
            arrival = self._arrivals.get(alert.id)
            since = alert.as_of.timestamp() if arrival is None else arrival / 1_000
            if arrival is not None or alert.kind != "grave-event":
                path = "grave" if alert.kind == "grave-event" else "tick"
                waited = max(alert.emitted_at.timestamp() - since, 0.0)
                # The exemplar leads from a slow bucket to the alert that it kept waiting (OpenMetrics only).
                self._latency.labels(path).observe(waited, {"alert_id": label(alert.id)})
        self._arrivals.clear()

    def standing(self, alerts: Sequence[Alert]) -> None:
        self.risk.standing(alerts)


def _targets(catalogue: Catalogue, cells: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """The pass rate that is asked of each named cell, where any is."""
    found = {}
    for product, region in cells:
        try:
            wanted = catalogue.targets_for(product).pass_rate
        except Rejection:
            continue
        if wanted is not None:
            found[product, region] = wanted
    return found
