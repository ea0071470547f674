"""``tocsin demo``."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.text import Text

from streams.commands.screen import Lang, alert_line, bar, grade, moment, out, safe, say, table, title, words

if TYPE_CHECKING:
    from schemas.alerts import Alert
    from streams.demo import Demo, Finding

__all__ = ["command"]


@click.command("demo")
@click.option("--json", "as_json", is_flag=True, help="The same for machines.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=2024, show_default=True, help="Of all chance.")
@click.option("--scale", type=float, default=1.0, show_default=True, help="How many events, against 180,000 a year.")
@click.option("--keep", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Keep the log and the alerts in DIR, to look at with the other commands.")  # fmt: skip
@click.option("--lang", type=click.Choice(["zh", "en", "both"]), default="both", show_default=True)
def command(as_json: bool, seed: int, scale: float, keep: Path | None, lang: Lang) -> None:
    """Run a simulated year of Tianjin with planted incidents, and show what was found.

    Every record is made up. Exit status 1 when an incident that should have been alerted was missed.
    """
    from streams.demo import run_demo

    with _folder(keep) as folder, bar("simulating") as update:

        def progress(what: str, done: int, total: int) -> None:
            update(done, total, what)

        demo = run_demo(folder, seed=seed, scale=scale, progress=progress)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(as_document(demo)), indent=2).decode() + "\n")
    else:
        _print(demo, keep, lang)
    if demo.missed:
        raise click.exceptions.Exit(1)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="tocsin-demo-") as name:
        yield Path(name)


# --- for machines --------------------------------------------------------------------------------------------------


def as_document(demo: Demo) -> dict[str, Any]:
    """The demonstration as plain values."""
    return {
        "simulated": True,
        "seed": demo.seed,
        "scale": demo.scale,
        "planted": [_finding(finding) for finding in demo.judged.findings],
        "missed": demo.missed,
        "alerts": demo.alerts,
        "related": [_brief(alert) for alert in demo.judged.related],
        "false": [_brief(alert) for alert in demo.judged.false],
        "false_count": len(demo.judged.false),
        "events": demo.events,
        "alert_revisions": demo.revisions,
        "seconds": round(demo.seconds, 3),
        "run_seconds": round(demo.run_seconds, 3),
        "events_per_second": round(demo.events / demo.run_seconds),
        "peak_memory_mb": round(demo.memory_mb, 1),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    planted = finding.planted
    first = finding.alerts[0] if finding.alerts else None
    return {
        "key": planted.key,
        "kind": planted.kind,
        "zh": planted.zh,
        "en": planted.en,
        "product": planted.product,
        "region": planted.region,
        "start": planted.start,
        "end": planted.end,
        "expected": planted.expected,
        "found": finding.found,
        "delay_days": finding.delay_days,
        "first_alert": None if first is None else _brief(first),
        "alerts": [alert.id for alert in finding.alerts],
    }


def _brief(alert: Alert) -> dict[str, Any]:
    return {
        "id": alert.id,
        "kind": alert.kind,
        "grade": alert.grade,
        "scope": alert.scope,
        "product": alert.product,
        "region": alert.region,
        "as_of": alert.as_of,
        "headline": alert.headline,
    }


# --- for people ----------------------------------------------------------------------------------------------------


def _print(demo: Demo, keep: Path | None, lang: Lang) -> None:
    from streams.demo import GRACE_DAYS

    say(Text("A simulated year: every record is made up, none is about a real product, firm or district.", "bold"))
    say(f"seed {demo.seed}, scale {demo.scale:g}: {demo.events:,} events")
    say()
    made = table("planted", "from", "found", "first alert", "delay", "grade", "alert", "others",
                 fixed=("from", "found", "first alert", "delay", "alert"))  # fmt: skip
    for finding in demo.judged.findings:
        made.add_row(*_row(finding, lang))
    out().print(made)
    say()
    matching = demo.alerts - len(demo.judged.related) - len(demo.judged.false)
    say(
        f"{demo.alerts} alerts were opened: {matching} match a planted incident, {len(demo.judged.related)} "
        f"are echoes, {len(demo.judged.false)} are false."
    )
    say(
        "A match is of an expected kind, names the planted product and region or what lies above or below them, and "
        f"was opened or raised from the first day to {GRACE_DAYS} days after the last. An echo matches none, but is "
        "of an incident's branch and stood when it did."
    )
    _print_alerts("Echoes", demo.judged.related, lang)
    _print_alerts("False alerts", demo.judged.false, lang)
    say()
    say(
        f"{demo.seconds:.1f} s in all, {demo.run_seconds:.1f} s of it in the pipeline: "
        f"{demo.events / demo.run_seconds:,.0f} events/s; {demo.memory_mb:,.0f} MB at most"
    )
    _print_next(demo, keep)


def _row(finding: Finding, lang: Lang) -> tuple[str | Text, ...]:
    planted = finding.planted
    what = words(planted.zh, planted.en, lang)
    start = planted.start.isoformat()
    if not planted.expected and not finding.found:
        return what, start, Text("not covered yet", style="dim"), "", "", "", "", ""
    if not finding.found:
        return what, start, Text("MISSED", style="bold red"), "", "", "", "", ""
    first = finding.alerts[0]
    others = f"+{len(finding.alerts) - 1}" if len(finding.alerts) > 1 else ""
    return (
        what, start, Text("yes", style="green"), moment(first.as_of), f"{finding.delay_days} d", grade(first.level),
        safe(first.id), others,
    )  # fmt: skip


def _print_alerts(heading: str, alerts: list[Alert], lang: Lang) -> None:
    if alerts:
        title(heading)
    for alert in alerts:
        say(alert_line(alert, lang))


def _print_next(demo: Demo, keep: Path | None) -> None:
    title("Where to look next")
    if keep is None:
        say("  tocsin demo --keep demo-data             keep the log, then:")
    folder = keep or Path("demo-data")
    first = next((finding.alerts[0].id for finding in demo.judged.findings if finding.alerts), "ID")
    for text, why in (
        (f"tocsin alerts list --data {folder}", "all alerts"),
        (f"tocsin alerts show {first} --data {folder}", "one, with its evidence"),
        (f"tocsin replay --data {folder} --out again", "the same alerts once more, from the record"),
        ("tocsin publish --help", "your own events"),
    ):
        say(f"  {text:<60}  {why}")
