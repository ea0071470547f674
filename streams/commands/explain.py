"""``tocsin alerts explain``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.text import Text

from streams.commands.place import Place, placed
from streams.commands.screen import GRADE_STYLES, Lang, moment, note, out, safe, say, table, title, words

if TYPE_CHECKING:
    from schemas.alerts import Alert
    from streams.explain import Explanation, Traced
    from streams.producer_record import ProducerRecord

__all__ = ["command"]

_TABLE_LIMIT: Final = 20
_JSON_LIMIT: Final = 1_000
_PRODUCERS: Final = 10
_NAMES: Final = {"lab": "labs, sites, channels", "gtin": "GTINs", "batch": "batches"}


@click.command("explain")
@click.argument("alert_id", metavar="ID")
@click.option("--revision", type=click.IntRange(1), help="The events behind this revision, not the last.")
@click.option("--limit", type=click.IntRange(0, 1_000_000),
              help=f"List so many of each (else {_TABLE_LIMIT}, of --json {_JSON_LIMIT:,}).")  # fmt: skip
@click.option("--history/--no-history", default=True, show_default=True,
              help="The producers' record before the alert; it reads the whole record.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--lang", type=click.Choice(["zh", "en", "both"]), default="both", show_default=True)
@placed
def command(
    place: Place, alert_id: str, revision: int | None, limit: int | None, history: bool, as_json: bool, lang: Lang
) -> None:
    """The events behind an alert: who found them, whose products, which batches, where; what to recall; who is known.

    The first characters of the alert's id will do. Read from the raw topics, by the offsets that the alert names;
    corrections and withdrawals count as they did when the alert was made.
    """
    from schemas.errors import TocsinError
    from streams.explain import basis, explain
    from streams.outputs import one_alert, read_alerts
    from streams.producer_record import producer_records
    from streams.recall import tallied

    config = place.present()
    catalogue = config.load_catalogue()
    with place.medium(config) as medium:
        alerts = read_alerts(medium)
        mine = one_alert(alerts, alert_id)
        if revision is not None:
            mine = [one for one in mine if one.revision <= revision]
            if not mine or mine[-1].revision != revision:
                raise TocsinError(f"{alert_id}: has no revision {revision}: see `tocsin alerts show`")
        alert = basis(mine)
        found = explain(medium, alert, config, catalogue)
        producers = [one.code for one in tallied(found.events, "producer")[:_PRODUCERS]]
        known: list[ProducerRecord] = []
        if history and producers:
            known = producer_records(medium, producers, alert, alerts, config, catalogue)
    if alert.provenance.config != config.digest:
        note(f"the alert was made under configuration {alert.provenance.config}, this one is {config.digest}")
    if as_json:
        plain = _plain(found, known, _JSON_LIMIT if limit is None else limit)
        sys.stdout.buffer.write(msgspec.json.encode(plain) + b"\n")
    else:
        _print(found, known, _TABLE_LIMIT if limit is None else limit, lang)


# --- as JSON -------------------------------------------------------------------------------------------------------


def _plain(found: Explanation, known: list[ProducerRecord], limit: int) -> dict[str, Any]:
    from streams.recall import ROLES, lots, tallied, untraced

    scope = lots(found.events)
    return {
        "id": found.alert.id,
        "revision": found.alert.revision,
        "events": len(found.events),
        "adverse": sum(one.adverse for one in found.events),
        "named": found.named,
        "complete": found.complete,
        "records_read": found.read,
        "by": {
            role: {"count": len(every), "first": every[:limit]}
            for role in ROLES
            for every in [tallied(found.events, role)]
        },
        "recall": {
            "lots": [{"scope": lot.scope, **msgspec.to_builtins(lot)} for lot in scope[:limit]],
            "count": len(scope),
            "events_without_producer": untraced(found.events),
        },
        "producers": [
            {
                "producer": one.producer,
                "repeat": one.repeat,
                "earlier_alerts": one.earlier,
                "last_alerts": [_plain_alert(alert) for alert in one.alerts],
                "years": one.years,
            }
            for one in known
        ],
        "list": [
            {"topic": one.topic, "partition": one.partition, "offset": one.offset, "event": one.event}
            for one in found.events[:limit]
        ],
    }


def _plain_alert(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id, "kind": alert.kind, "grade": alert.grade, "product": alert.product, "region": alert.region,
        "opened": alert.as_of,
    }  # fmt: skip


# --- as tables -----------------------------------------------------------------------------------------------------


def _print(found: Explanation, known: list[ProducerRecord], limit: int, lang: Lang) -> None:
    alert = found.alert
    badge = Text(f" {alert.grade} ", style=GRADE_STYLES[alert.level - 1])
    say(badge + Text(f" {words(alert.headline.zh, alert.headline.en, lang)}"))
    adverse = sum(one.adverse for one in found.events)
    said = f"{len(found.events):,} events, {adverse:,} adverse, behind revision {alert.revision}"
    if not found.complete:
        said += f"; the alert names {found.named:,}: not all of them can be found under this configuration"
    say(f"{said} ({found.read:,} records read)")
    _print_roles(found, limit)
    _print_scope(found, limit)
    _print_known(known)
    _print_events(found.events, limit)


def _print_roles(found: Explanation, limit: int) -> None:
    from streams.recall import ROLES, tallied

    for role in ROLES:
        every = tallied(found.events, role)
        if not every:
            continue
        title(f"{_NAMES.get(role, f'{role}s').capitalize() if role != 'gtin' else 'GTINs'} ({len(every):,})")
        made = table("code", "adverse", "events", fixed=("adverse", "events"))
        for one in every[:limit]:
            made.add_row(safe(one.code), f"{one.adverse:,}", f"{one.events:,}")
        out().print(made)


def _print_scope(found: Explanation, limit: int) -> None:
    from streams.recall import lots, untraced

    scope, nameless = lots(found.events), untraced(found.events)
    if scope:
        title(f"Proposed recall scope ({len(scope):,} lots)")
        made = table("scope", "producer", "GTIN", "batch", "adverse", "reported", "districts", "products")
        for lot in scope[:limit]:
            days = f"{lot.first.date()} to {lot.last.date()}"
            made.add_row(
                lot.scope, safe(lot.producer), safe(lot.gtin or "-"), safe(lot.batch or "-"), f"{lot.adverse:,}", days,
                safe(", ".join(lot.districts)), safe(", ".join(lot.product)),
            )  # fmt: skip
        out().print(made)
    if nameless and found.alert.kind not in ("satisfaction", "silent-source", "lab-drift"):
        say(f"{nameless:,} of the events name no producer: trace them first")


def _print_known(known: list[ProducerRecord]) -> None:
    if not known:
        return
    title("The producers' record before the alert")
    made = table("producer", "earlier alerts", "last of them", "year", "tested", "failed", "injuries", "complaints",
                 "accidents")  # fmt: skip
    for one in known:
        last = f"{one.alerts[0].id} ({moment(one.alerts[0].as_of)})" if one.alerts else "-"
        head = (safe(one.producer), f"{one.earlier}" if one.repeat else "-", safe(last))
        if not one.years:
            made.add_row(*head)
        for year in one.years:
            counts = (year.tested, year.failed, year.injuries, year.complaints, year.accidents)
            made.add_row(*head, str(year.year), *(f"{value:,}" if value else "-" for value in counts))
            head = ("", "", "")
    out().print(made)


def _print_events(events: tuple[Traced, ...], limit: int) -> None:
    from streams.explain import reporter

    if not events or not limit:
        return
    title("Events")
    made = table("place", "reported", "id", "by", "product", "region", "adverse")
    for one in events[:limit]:
        made.add_row(
            f"{one.topic}-{one.partition}@{one.offset}", moment(one.event.reported_at), safe(one.event.event_id),
            safe(reporter(one.event)), safe(one.product[-1]), safe(one.region[-1]), f"{one.adverse:,}",
        )  # fmt: skip
    out().print(made)
    if len(events) > limit:
        say(f"{len(events) - limit:,} more; --limit or --json shows them")
