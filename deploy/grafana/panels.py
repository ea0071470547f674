"""The Grafana dashboards of Tocsin. deploy/generate.py writes the files in deploy/grafana/dashboards from this.

*situation* is for whoever asks what is at risk, *drilldown* for one product or district, *pipeline* for whoever keeps
the system running. Every query is executed against a real Prometheus by the tests and by deploy/verify.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER: Final = Path(__file__).resolve().parent / "dashboards"
SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
JOB: Final = 'job="$job"'
HERE: Final = f'{JOB}, product=~"$product", region=~"$region"'
COLOURS: Final = {"I": "#c4162a", "II": "#fa6400", "III": "#f2cc0c", "IV": "#3274d9"}
"""Of the grades: red, orange, yellow, blue."""

QUIET: Final = {
    "Evidence on named cells": "a named cell has no evidence against it, which is how it should be",
    "Injury surges: reports and what was expected": "no surge of injuries stands",
    "Grade of what is at risk, product by district": "no alert stands",
    "Open alerts": "no alert stands",
    "Open alerts here": "no alert stands here",
    "Open alerts by kind": "no alert stands",
    "p-value of open alerts": "no alert with a p-value stands",
    "Adverse events and what was expected": "no alert stands",
    "Alerts opened, an hour": "no alert was ever opened",
    "Alert latency, 99th percentile": "no alert was opened in the last hour",
    "Cells with an alert, by the gravest": "no alert stands",
    "Refused records by reason": "nothing was ever refused",
    "Tick duration": "no tick with work in it has closed in a quarter of an hour",
    "Event-time lag": "nothing has come for a day: a history that is read to its end has no watermark",
    "Watermark behind the clock": "nothing has come for a day: a history that is read to its end has no watermark",
    "Alertmanager": "this deployment pushes to none (TOCSIN_ALERTMANAGER is not set)",
    "Pass rate against target (30 days)": "no cell is named (--metrics-cell) and no pass-rate alert stands",
    "Pass rate below target, in points": "no cell is named (--metrics-cell) and no pass-rate alert stands",
    "Pass rate with its interval": "no cell is named (--metrics-cell) and no pass-rate alert stands",
    "Items tested in the window": "no cell is named (--metrics-cell) and no pass-rate alert stands",
}
"""Panels that may be empty in a calm run, and why; in a run with incidents none of them is."""


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression, and how its series are called."""

    expr: str
    legend: str = "__auto"


# --- panels --------------------------------------------------------------------------------------------------------


def _about(title: str, description: str) -> str:
    return f"{description} Empty where {QUIET[title]}." if title in QUIET else description


def _dress(panel: Any, title: str, description: str, queries: Sequence[Query], unit: str, *, instant: bool) -> Any:
    panel = panel.title(title).description(_about(title, description)).datasource(SOURCE).unit(unit)
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        target = target.datasource(SOURCE)
        target = target.instant().format(PromQueryFormat.TABLE) if instant else target.range()
        panel = panel.with_target(target)
    return panel


def lines(title: str, description: str, *queries: Query, unit: str = "short", span: int = 12, log: bool = False) -> Any:
    """Curves over time."""
    legend = (
        common_builders.VizLegendOptions()
        .display_mode(common.LegendDisplayMode.LIST)
        .placement(common.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    panel = _dress(timeseries.Panel(), title, description, queries, unit, instant=False)
    panel = panel.legend(legend).line_width(1).fill_opacity(8).show_points(common.VisibilityMode.NEVER)
    if log:
        scale = common_builders.ScaleDistributionConfig().type(common.ScaleDistribution.LOG).log(10)
        panel = panel.scale_distribution(scale)
    return panel.span(span).height(8)


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str = "short",
    span: int = 4,
    warn: float | None = None,
    bad: float | None = None,
    good: float | None = None,
) -> Any:
    """One figure, or one for each series; it turns yellow at ``warn``, red at ``bad``, and is red below ``good``."""
    steps = [model.Threshold(value=None, color="green" if good is None else "red")]
    for at, colour in ((good, "green"), (warn, "yellow"), (bad, "red")):
        if at is not None:
            steps.append(model.Threshold(value=at, color=colour))
    limits = build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    panel = _dress(stat.Panel(), title, description, [query], unit, instant=False)
    reduced = common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
    panel = panel.reduce_options(reduced).thresholds(limits).no_value("0")
    panel = panel.graph_mode(common.BigValueGraphMode.NONE).color_mode(common.BigValueColorMode.BACKGROUND)
    for level, colour in COLOURS.items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel = panel.override_by_name(level, [model.DynamicConfigValue(id_val="color", value=fixed)])
    return panel.span(span).height(4)


def rows(title: str, description: str, query: Query, hidden: Sequence[str], *, span: int = 24, height: int = 9) -> Any:
    """A table with a row for each series, the gravest first."""
    panel = _dress(table.Panel(), title, description, [query], "short", instant=True)
    excluded = dict.fromkeys(("Time", "__name__", "instance", "job", *hidden), True)
    order = ["level", "product_name", "region_name", "kind", "scope", "acknowledged", "product", "region", "alert_id"]
    places = {name: place for place, name in enumerate(order)}
    organise = {"excludeByName": {**excluded, "Value": True}, "indexByName": places, "renameByName": {}}
    sort = {"sort": [{"field": "Value"}]}
    panel = panel.with_transformation(model.DataTransformerConfig(id_val="sortBy", options=sort))
    panel = panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organise))
    mapped = [_grade_words({grade: (grade, colour) for grade, colour in COLOURS.items()})]
    shown = {"type": "color-background", "mode": "basic"}
    properties = [
        model.DynamicConfigValue(id_val="mappings", value=mapped),
        model.DynamicConfigValue(id_val="custom.cellOptions", value=shown),
        model.DynamicConfigValue(id_val="custom.width", value=60),
    ]
    return panel.override_by_name("level", properties).span(span).height(height)


def matrix(title: str, description: str, query: Query, *, span: int = 24, height: int = 10) -> Any:
    """Products down, districts across, each cell in the colour of its gravest alert."""
    panel = _dress(table.Panel(), title, description, [query], "short", instant=True)
    options = {"rowField": "product_name", "columnField": "region_name", "valueField": "Value"}
    panel = panel.with_transformation(model.DataTransformerConfig(id_val="groupingToMatrix", options=options))
    words = _grade_words({str(at): (grade, colour) for at, (grade, colour) in enumerate(COLOURS.items(), 1)})
    shown = {"type": "color-background", "mode": "basic"}
    properties = [
        model.DynamicConfigValue(id_val="mappings", value=[words]),
        model.DynamicConfigValue(id_val="custom.cellOptions", value=shown),
        model.DynamicConfigValue(id_val="custom.align", value="center"),
    ]
    return panel.override_by_regexp("^(?!product_name).*$", properties).span(span).height(height)


def _grade_words(words: dict[str, tuple[str, str]]) -> dict[str, Any]:
    options = {value: {"text": said, "color": colour} for value, (said, colour) in words.items()}
    return {"type": "value", "options": options}


# --- dashboards ----------------------------------------------------------------------------------------------------


def _board(uid: str, title: str, description: str, *variables: Any) -> Any:
    source = build.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    job = _values("job", "Job", "label_values(tocsin_build_info, job)")
    board = build.Dashboard(title).uid(uid).description(description).tags(["tocsin"]).timezone("browser")
    board = board.readonly().refresh("15s").time("now-6h", "now").tooltip(model.DashboardCursorSync.CROSSHAIR)
    links = build.DashboardLink("Tocsin").type(model.DashboardLinkType.DASHBOARDS).tags(["tocsin"]).include_vars(True)
    board = board.link(links.keep_time(True).as_dropdown(False))
    for variable in (source, job, *variables):
        board = board.with_variable(variable)
    return board


def _values(name: str, title: str, query: str, *, every: bool = False) -> Any:
    made = build.QueryVariable(name).label(title).query(query).datasource(SOURCE)
    made = made.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
    return made.include_all(True).all_value(".*").multi(False) if every else made


def situation() -> Any:
    """What is at risk."""
    board = _board("tocsin-situation", "Tocsin: situation", "What is at risk now, and how gravely.")
    alerts = f"tocsin_alert_level{{{JOB}}}"
    target = "tocsin_pass_rate_target_ratio"
    beside = "on (job, of, product, region) group_left ()"
    rate = f'tocsin_pass_rate_ratio{{{JOB}, window_days="30"}}'
    panels = [
        number("Open alerts by grade", "I red, II orange, III yellow, IV blue.",
               Query(f"sum by (level) (job_level_kind_scope:tocsin_open_alerts:max5m{{{JOB}}}) or vector(0)",
                     "{{level}}"), span=8),
        number("Not acknowledged in time", "Open alerts past the time of their first action.",
               Query(f"sum(job_level_kind_scope:tocsin_overdue_alerts:max5m{{{JOB}}}) or vector(0)", "overdue"), bad=1),
        number("District, industry or systemic", "Open alerts that concern more than single cells.",
               Query(f'sum(job_level_kind_scope:tocsin_open_alerts:max5m{{{JOB}, scope!="cell"}}) or vector(0)',
                     "wide"), warn=1),
        number("Cells with an alert, by the gravest", "Cells are products in districts.",
               Query(f"job_level:tocsin_alerting_cells:max5m{{{JOB}}}", "{{level}}"), span=4),
        number("Cells watched", "By indicator; the larger number is what is watched at all.",
               Query(f"max(job_indicator:tocsin_cells:sum{{{JOB}}})", "cells"), span=4),
        rows("Open alerts", "The gravest hundred. For evidence: `tocsin alerts show ALERT_ID`, or the board.",
             Query(alerts), []),
        matrix("Grade of what is at risk, product by district", "The gravest open alert of each cell.",
               Query(f"min by (product_name, region_name) ({alerts})")),
        lines("Pass rate against target (30 days)", "Of named cells now, of open alerts as of their last revision.",
              Query(rate, "{{product}} {{region}} ({{of}})"),
              Query(f"{target}{{{JOB}}}", "target {{product}} {{region}}"), unit="percentunit"),
        lines("Pass rate below target, in points", "Above zero: so much is missing.",
              Query(f"-({rate} - {beside} {target}{{{JOB}}})", "{{product}} {{region}}"), unit="percentunit"),
        lines("Injury surges: reports and what was expected", "Of open alerts on injuries, in their strongest window.",
              Query(f'tocsin_alert_observed{{{JOB}, kind="injury-surge"}}', "reports {{product}} {{region}}"),
              Query(f'tocsin_alert_expected{{{JOB}, kind="injury-surge"}}', "expected {{product}} {{region}}")),
        lines("Open alerts by kind", "All grades.",
              Query(f"sum by (kind) (job_level_kind_scope:tocsin_open_alerts:max5m{{{JOB}}})", "{{kind}}")),
        lines("Alerts opened, an hour", "By grade.",
              Query(f'sum by (level) (increase(tocsin_alert_revisions_total{{{JOB}, status="opened"}}[1h]))',
                    "{{level}}")),
    ]  # fmt: skip
    return _with(board, panels)


def drilldown() -> Any:
    """One product or one district."""
    board = _board(
        "tocsin-drilldown",
        "Tocsin: product or district",
        "Alerts, evidence and pass rates of one product or district.",
        _values("product", "Product", f"label_values(tocsin_alert_level{{{JOB}}}, product)", every=True),
        _values("region", "District", f"label_values(tocsin_alert_level{{{JOB}}}, region)", every=True),
        _values("window", "Window (days)", f"label_values(tocsin_pass_rate_ratio{{{JOB}}}, window_days)", every=True),
    )
    here = f'{HERE}, window_days=~"$window"'
    name = "{{product}} {{region}} {{window_days}} d"
    panels = [
        rows("Open alerts here", "The gravest hundred of all are shown.", Query(f"tocsin_alert_level{{{HERE}}}"), [],
             height=7),
        lines("p-value of open alerts", "As of their last revision, on a logarithmic scale: lower is stronger.",
              Query(f"tocsin_alert_p_value{{{HERE}}}", "{{kind}} {{product}} {{region}}"), log=True),
        lines("Adverse events and what was expected", "In the strongest window of each open alert.",
              Query(f"tocsin_alert_observed{{{HERE}}}", "observed {{kind}} {{product}} {{region}}"),
              Query(f"tocsin_alert_expected{{{HERE}}}", "expected {{kind}} {{product}} {{region}}")),
        lines("Pass rate with its interval", "Of named cells now, of open alerts as of their last revision.",
              Query(f"tocsin_pass_rate_ratio{{{here}}}", name),
              Query(f"tocsin_pass_rate_lower_ratio{{{here}}}", f"lower {name}"),
              Query(f"tocsin_pass_rate_upper_ratio{{{here}}}", f"upper {name}"),
              Query(f"tocsin_pass_rate_target_ratio{{{HERE}}}", "target {{product}} {{region}}"),
              unit="percentunit", span=24),
        lines("Items tested in the window", "Few items make a wide interval.",
              Query(f"tocsin_pass_rate_tested_items{{{here}}}", name)),
        lines("Evidence on named cells", "p-values of the last day of ticks, on a logarithmic scale.",
              Query(f"tocsin_cell_p_value{{{HERE}}}", "{{kind}} {{product}} {{region}}"), log=True),
    ]  # fmt: skip
    return _with(board, panels)


def pipeline() -> Any:
    """Whether the system is well, and how far behind."""
    board = _board("tocsin-pipeline", "Tocsin: pipeline health", "Is the system well, and how far behind is it?")

    def each(name: str, by: str = "instance") -> str:
        return f"sum by ({by}) (rate({name}{{{JOB}}}[$__rate_interval]))"

    def quantile(name: str, by: str = "stage", share: float = 0.99) -> str:
        return f"histogram_quantile({share}, {each(f'{name}_bucket', f'{by}, le')})"

    def mean(name: str, by: str = "stage") -> str:
        return f"{each(f'{name}_sum', by)} / {each(f'{name}_count', by)}"

    panels = [
        number("Workers up", "Targets that answer.", Query(f"sum(up{{{JOB}}})", "up"), good=1),
        number("Workers ready", "Restored and caught up.", Query(f"sum(tocsin_ready{{{JOB}}})", "ready"), good=1),
        number("Firing", "Alerting rules of Prometheus that fire.",
               Query('count(ALERTS{alertname=~"Tocsin.+", alertstate="firing"}) or vector(0)', "firing"), bad=1),
        number("Records behind", "Over all topics.",
               Query(f"sum(job_topic:tocsin_consumer_lag_records:sum{{{JOB}}})", "records"), warn=1_000, bad=10_000),
        number("Event-time lag", "Clock less the slowest watermark: so old is what decisions rest on.",
               Query(f"job:tocsin_event_time_lag_seconds:max{{{JOB}}}", "lag"), unit="s", warn=120, bad=900),
        number("Since the last checkpoint", "Of the stage that has waited longest; grows where nothing comes.",
               Query(f"time() - min(tocsin_last_checkpoint_timestamp_seconds{{{JOB}}})", "ago"), unit="s"),
        lines("Events", "Records worked off, by topic and verdict.",
              Query(f"job_topic_verdict:tocsin_events:rate5m{{{JOB}}}", "{{topic}} {{verdict}}"), unit="cps"),
        lines("Refused", "Share of records that go to dead-letters.",
              Query(f"job:tocsin_rejected_events:ratio_rate15m{{{JOB}}}", "refused"), unit="percentunit"),
        lines("Refused records by reason", "Dead letters.",
              Query(f"sum by (stage, reason) (increase(tocsin_dead_letters_total{{{JOB}}}[1h]))",
                    "{{stage}}: {{reason}}")),
        lines("Lag by partition", "Records not worked off yet.",
              Query(f"tocsin_consumer_lag_records{{{JOB}}}", "{{topic}}/{{partition}}")),
        lines("Watermark behind the clock", "Of each raw partition; the slowest holds up every tick.",
              Query(f"time() - tocsin_watermark_timestamp_seconds{{{JOB}}}", "{{topic}}/{{partition}}"), unit="s"),
        lines("Alert latency, 99th percentile", "From arrival (grave) or the tick's end (tick) to the alert.",
              Query(f"job_path:tocsin_alert_latency_seconds:p99_1h{{{JOB}}}", "{{path}}"), unit="s"),
        lines("Stage duration, 99th percentile", "A batch's time in a stage; intake is decoding and packing.",
              Query(quantile("tocsin_stage_duration_seconds"), "{{stage}}"), unit="s"),
        lines("Batch size", "Records in a batch, on average.", Query(mean("tocsin_batch_records"), "{{stage}}")),
        lines("Tick duration", "Mean over a quarter of an hour. While a tick closes, nothing else is done.",
              Query(f"job_instance:tocsin_tick_duration_seconds:mean15m{{{JOB}}}", "{{instance}}"), unit="s"),
        lines("Checkpoint duration, 99th percentile", "By stage.",
              Query(quantile("tocsin_checkpoint_duration_seconds"), "{{stage}}"), unit="s"),
        lines("Checkpoints and ticks", "A second.", Query(each("tocsin_checkpoints_total", "stage"), "{{stage}}"),
              Query(each("tocsin_ticks_total", "job"), "ticks"), unit="cps"),
        lines("State written", "Bytes a second to the changelogs.",
              Query(each("tocsin_changelog_bytes_total", "stage"), "{{stage}}"), unit="Bps"),
        lines("Changelog backlog", "Records that a restore would have to read, at most.",
              Query(f"tocsin_changelog_backlog_records{{{JOB}}}", "{{topic}}/{{partition}}")),
        lines("Restore", "How far, and how long the last ones took on average.",
              Query(f"tocsin_restore_progress_ratio{{{JOB}}}", "{{stage}}/{{partition}}"),
              Query(f"sum by (stage) (tocsin_restore_duration_seconds_sum{{{JOB}}})"
                    f" / sum by (stage) (tocsin_restore_duration_seconds_count{{{JOB}}})", "{{stage}} seconds")),
        lines("Rebalances", "Assignments of partitions, a quarter of an hour.",
              Query(f"increase(tocsin_rebalances_total{{{JOB}}}[15m])", "{{instance}}")),
        lines("Partitions", "Which worker works on how many.",
              Query(f"tocsin_assigned_partitions{{{JOB}}}", "{{instance}} {{stage}}")),
        lines("State in memory", "By assess partition.",
              Query(f"tocsin_state_bytes{{{JOB}}}", "partition {{partition}}"), unit="bytes"),
        lines("Rows of state", "Events in the ledger, and events whose tick is still open.",
              Query(f"sum(tocsin_state_rows{{{JOB}}})", "rows"),
              Query(f"sum(tocsin_waiting_events{{{JOB}}})", "waiting")),
        lines("Cells", "Products in districts with counts, by indicator.",
              Query(f"job_indicator:tocsin_cells:sum{{{JOB}}}", "{{indicator}}")),
        lines("Copies and latecomers", "Events a second that were sent twice, and that came after their tick.",
              Query(each("tocsin_duplicate_events_total", "job"), "copies"),
              Query(each("tocsin_late_events_total", "job"), "late"), unit="cps"),
        lines("Signals", "Evidence a second, by kind.", Query(each("tocsin_signals_total", "kind"), "{{kind}}"),
              unit="cps"),
        lines("Alertmanager", "Attempts to bring it in step, a second.",
              Query(each("tocsin_alertmanager_pushes_total", "outcome"), "{{outcome}}"), unit="cps"),
        lines("Memory", "Of each worker.",
              Query(f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"), unit="bytes"),
        lines("Processor", "Cores in use.",
              Query(f"rate(process_cpu_seconds_total{{{JOB}}}[$__rate_interval])", "{{instance}}")),
        rows("What runs", "Version, configuration and catalogue of each worker: they should agree.",
             Query(f"tocsin_build_info{{{JOB}}}"), [], height=5),
    ]  # fmt: skip
    return _with(board, panels)


def _with(board: Any, panels: Sequence[Any]) -> Any:
    for panel in panels:
        board = board.with_panel(panel)
    return board


# --- files ---------------------------------------------------------------------------------------------------------

DASHBOARDS: Final = {"situation": situation, "drilldown": drilldown, "pipeline": pipeline}


def rendered() -> dict[str, str]:
    """Each dashboard's file name and text."""
    return {
        f"{name}.json": json.dumps(make().build(), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, make in DASHBOARDS.items()
    }
