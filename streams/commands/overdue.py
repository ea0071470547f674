"""``tocsin alerts overdue``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click
import msgspec

from schemas.errors import TocsinError
from streams.commands.place import Place, placed
from streams.commands.screen import Lang, grade, moment, out, safe, say, table, words

__all__ = ["command"]


@click.command("overdue")
@click.option("--as-of", metavar="TIME", help="What was overdue then (default: now), as 2024-03-01T08:00:00+08:00.")
@click.option("--all", "every", is_flag=True, help="Also the duties that are open, done, or done late.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option("--lang", type=click.Choice(["zh", "en", "both"]), default="both", show_default=True)
@placed
def command(place: Place, as_of: str | None, every: bool, as_json: bool, lang: Lang) -> None:
    """The duties of alerts whose deadline has passed and that nobody has answered, the oldest first.

    The first report and the duties to report are due by the severity rules; assessing, disposing and closing by
    [deadlines] of the configuration, which --config may change at any time.
    """
    from streams.outputs import read_alerts
    from streams.overdue import duties, read_answers
    from streams.ticks import Calendar

    config = place.present()
    calendar = Calendar(config.tick_ms, config.offset_ms)
    now = datetime.now(UTC)
    if as_of is not None:
        try:
            now = calendar.moment(calendar.epoch_ms(datetime.fromisoformat(as_of)))
        except ValueError:
            raise TocsinError(f"--as-of {as_of}: is no time; write it as 2024-03-01T08:00:00+08:00") from None
    with place.medium(config) as medium:
        found = duties(read_alerts(medium), read_answers(medium, calendar), now, config.deadlines)
    shown = [duty for duty in found if every or duty.state == "overdue"]
    if as_json:
        for duty in shown:
            plain = {
                "alert_id": duty.alert.id, "grade": duty.alert.grade, "kind": duty.alert.kind, "state": duty.state,
                "stage": duty.stage, "step": duty.text, "due": duty.due,
                "hours_over": max(0.0, (now - duty.due).total_seconds() / 3_600),
                "done_at": duty.done.arrival if duty.done else None,
                "by": duty.done.disposition.by if duty.done else None,
            }  # fmt: skip
            sys.stdout.buffer.write(msgspec.json.encode(plain) + b"\n")
        return
    facts = ("grade", "state", "due", "alert")
    made = table(*facts, "step", "done by", fixed=facts)
    for duty in shown:
        by = "-" if duty.done is None else f"{safe(duty.done.disposition.by)} ({moment(duty.done.arrival)})"
        step = words(duty.text.zh, duty.text.en, lang)
        made.add_row(grade(duty.alert.level), duty.state, moment(duty.due), safe(duty.alert.id), step, by)
    if shown:
        out().print(made)
    late = sum(duty.state == "overdue" for duty in found)
    say(f"{late:,} overdue of {len(found):,} duties")
