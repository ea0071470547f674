"""``tocsin dispose``."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from schemas.errors import TocsinError
from streams.commands.place import Place, placed
from streams.commands.screen import say

__all__ = ["command"]


@click.command("dispose")
@click.argument("alert_id")
@click.argument("action", type=click.Choice(["acknowledge", "assess", "dispose", "close"]))
@click.option("--by", required=True, metavar="WHO", help="Who does it.")
@click.option("--reason", metavar="TEXT", help="Why, or how.")
@placed
def command(place: Place, alert_id: str, action: Any, by: str, reason: str | None) -> None:
    """Say what was done about an alert. It takes effect at the tick of its arrival, which is now."""
    from schemas.alerts import Disposition
    from streams.outputs import read_alerts
    from streams.publish import disposition_record

    disposition = Disposition(
        disposition_id=f"cli-{uuid.uuid4()}",
        alert_id=alert_id,
        action=action,
        by=by,
        at=datetime.now(UTC),
        reason=reason,
    )
    try:
        msgspec.json.decode(msgspec.json.encode(disposition), type=Disposition)  # Structs check when they decode
    except msgspec.ValidationError as error:
        raise TocsinError(f"the disposition cannot be sent: {error}") from None
    with place.medium(place.present()) as medium:
        if not any(alert.id == alert_id for alert in read_alerts(medium)):
            raise TocsinError(f"{alert_id}: no such alert: see `tocsin alerts list`")
        medium.write("dispositions", [disposition_record(disposition, time.time())])
    say(f"{action} {alert_id}: published; it shows once the tick of its arrival has closed")
