"""Prometheus metrics of the HTTP services: requests, the rows that they brought, the log behind them, the board.

Labels are bounded: route templates, not addresses; classes of status; the words of our own schemas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, Info, ProcessCollector
from prometheus_client import disable_created_metrics as no_creation_times

from streams.escalate import VERSION

__all__ = ["ServiceMetrics"]

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_MAX_REASONS: Final = 40
_REASON: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")


class ServiceMetrics:
    """A service's metrics, in a registry of their own. Any thread may tell it things.

    Parameters
    ----------
    what
        ``serve`` or ``board``: what the process is.
    """

    readiness: Final = None
    """A service that answers is ready."""

    def __init__(self, what: str = "serve") -> None:
        # The library's switch is global; a second series for each counter helps nobody.
        no_creation_times()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._reasons: set[str] = set()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        Info("tocsin_service", "This process.", registry=self.registry).info({"service": what, "version": VERSION})
        self._requests = Counter(
            "tocsin_http_requests", "Requests that were answered; status 0xx: the client hung up before.",
            ("route", "status"), registry=self.registry,
        )  # fmt: skip
        self._durations = Histogram(
            "tocsin_http_request_duration_seconds", "From a request's head to the end of its answer.", ("route",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        if what == "serve":
            self._define_intake()
        else:
            self._define_board()

    def _define_intake(self) -> None:
        self._rows = Counter(
            "tocsin_submitted_rows", "Rows of uploads.", ("kind", "verdict"), registry=self.registry
        )  # fmt: skip
        self._refused = Counter(
            "tocsin_submitted_rows_refused", "Rows that were refused, by reason.", ("reason",), registry=self.registry
        )
        self._append = Histogram(
            "tocsin_log_append_duration_seconds", "Until a batch of rows was durable in the log.", ("topic",),
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    def _define_board(self) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(name, text, registry=self.registry)

        self._clients = gauge("tocsin_board_clients", "Pages that wait for news.")
        self._held = gauge("tocsin_board_open_alerts", "Open alerts that the board holds.")
        self._left_out = gauge("tocsin_board_left_out_alerts", "Open alerts beyond its bound, the least grave.")
        self._following = gauge("tocsin_board_following", "1 while the board reads the topic of alerts.")
        self._sent = Counter(
            "tocsin_board_dispositions", "Dispositions sent from the board.", ("action",), registry=self.registry
        )
        self._chart = Histogram(
            "tocsin_board_chart_duration_seconds", "Reading the counts and the signals behind a control chart.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip

    # --- every service ---------------------------------------------------------------------------------------------

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request has ended."""
        self._requests.labels(route, f"{status // 100}xx").inc()
        self._durations.labels(route).observe(seconds)

    # --- serve -----------------------------------------------------------------------------------------------------

    def took(self, kind: str, accepted: int, rejected: int, reasons: Mapping[str, int]) -> None:
        """An upload, or the part of it that was taken before the log failed."""
        self._rows.labels(kind, "accepted").inc(accepted)
        self._rows.labels(kind, "rejected").inc(rejected)
        for reason, count in reasons.items():
            self._refused.labels(self._reason(reason)).inc(count)

    def _reason(self, reason: str) -> str:
        """The reason as a label; ours are few, and what is more than that can only be a bug."""
        if reason not in self._reasons and (len(self._reasons) >= _MAX_REASONS or not _REASON.fullmatch(reason)):
            return "other"
        self._reasons.add(reason)
        return reason

    def appended(self, topic: str, seconds: float) -> None:
        """The log has taken a batch."""
        self._append.labels(topic).observe(seconds)

    # --- board -----------------------------------------------------------------------------------------------------

    def clients(self, count: int) -> None:
        """So many pages wait for news now."""
        self._clients.set(count)

    def standing(self, held: int, left_out: int) -> None:
        """So many alerts stand on the board."""
        self._held.set(held)
        self._left_out.set(left_out)

    def following(self, well: bool) -> None:
        """Whether the topic of alerts can be read."""
        self._following.set(float(well))

    def disposed(self, action: str) -> None:
        """A disposition is in the log."""
        self._sent.labels(action).inc()

    def charted(self, seconds: float) -> None:
        """What is behind a chart has been read."""
        self._chart.observe(seconds)
