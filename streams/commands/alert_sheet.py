"""One alert, all of it, for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from streams.commands.screen import GRADE_STYLES, Lang, moment, out, safe, say, table, title, words

if TYPE_CHECKING:
    from schemas.alerts import Alert

__all__ = ["print_alert"]


def print_alert(revisions: Sequence[Alert], lang: Lang) -> None:
    """Print the last revision with its evidence, and what happened in the ones before."""
    alert = revisions[-1]
    badge = Text(f" {alert.grade} ", style=GRADE_STYLES[alert.level - 1])
    say(badge + Text(f" {words(alert.headline.zh, alert.headline.en, lang)}"))
    product = words(alert.product_name.zh, alert.product_name.en, lang)
    region = words(alert.region_name.zh, alert.region_name.en, lang)
    facts = [
        ("id", safe(alert.id)),
        ("kind, scope", f"{alert.kind}, {alert.scope}"),
        ("status", alert.status + (f" by {safe(alert.acknowledged_by)}" if alert.acknowledged_by else "")),
        ("product", f"{safe(alert.product)}  {product}"),
        ("region", f"{safe(alert.region)}  {region}"),
        *([("source", safe(alert.source))] if alert.source else []),
        *([("kind of injury", safe(alert.hazard))] if alert.hazard else []),
        ("onset", moment(alert.onset)),
        ("as of", moment(alert.as_of)),
        ("p-value", "-" if alert.p_value is None else f"{alert.p_value:.3g}"),
        ("from", f"configuration {alert.provenance.config}, catalogue {safe(alert.provenance.catalogue)}"),
    ]
    made = table("", "")
    made.show_header = False
    for name, value in facts:
        made.add_row(Text(name, style="dim"), value)
    out().print(made)
    _print_evidence(alert)
    _print_contributors(alert)
    _print_sources(alert)
    _print_actions(alert, lang)
    _print_history(revisions)


def _print_evidence(alert: Alert) -> None:
    if not alert.evidence:
        return
    title("Evidence")
    made = table(
        "detector", "against", "days", "observed", "expected", "rate", "interval", "reference", "p", "recurs every"
    )  # fmt: skip
    for one in alert.evidence:
        interval = "-" if one.lower is None or one.upper is None else f"{one.lower:.4g} to {one.upper:.4g}"
        observed = f"{one.observed:g}" if one.tested is None else f"{one.observed:g} of {one.tested:,}"
        recurs = "-" if one.recurrence_days is None else f"{one.recurrence_days:.3g} days"
        made.add_row(
            safe(one.detector), one.against, str(one.window_days), observed, _number(one.expected), _number(one.rate),
            interval, _number(one.reference), _number(one.p_value), recurs,
        )  # fmt: skip
    out().print(made)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _print_contributors(alert: Alert) -> None:
    if not alert.contributors:
        return
    title("Who and what contributes (adverse events)")
    made = table("", "code", "adverse")
    made.show_header = False
    for one in alert.contributors:
        made.add_row(Text(one.role, style="dim"), safe(one.code), str(one.adverse))
    out().print(made)


def _print_sources(alert: Alert) -> None:
    for one in alert.provenance.sources:
        say(f"  {one.events:,} events in {one.topic}-{one.partition}, offsets {one.first_offset} to {one.last_offset}")


def _print_actions(alert: Alert, lang: Lang) -> None:
    if not alert.actions:
        return
    title("What to do")
    for action in alert.actions:
        limit = f"  (within {action.deadline_hours:g} h)" if action.deadline_hours is not None else ""
        say(f"  {words(action.text.zh, action.text.en, lang)}{limit}")


def _print_history(revisions: Sequence[Alert]) -> None:
    title("History")
    made = table("", "", "", "")
    made.show_header = False
    for one in revisions:
        reason = safe(one.reason) if one.reason else ""
        made.add_row(moment(one.as_of), one.grade, one.status, reason)
    out().print(made)
