"""``tocsin report``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schemas.errors import TocsinError
from streams import datadir
from streams.commands.place import Place, placed
from streams.commands.record import check_sources, fill, held_config, named_files
from streams.commands.screen import bar, note, say
from streams.config import Config

if TYPE_CHECKING:
    from schemas.alerts import Alert
    from streams.medium import Medium
    from streams.report.periods import Period
    from streams.report.words import Language

__all__ = ["command"]


@click.command("report")
@click.argument("sources", nargs=-1, metavar="[TOPIC=FILE | FILE]...")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("report.html"), show_default=True,
              help="The page.")  # fmt: skip
@click.option("--pdf", type=click.Path(path_type=Path, dir_okay=False), help="Print it too, by Chromium on PATH.")
@click.option("--language", type=click.Choice(["zh", "en"]), default="zh", show_default=True)
@click.option(
    "--period", "name", metavar="NAME", help="2024, 2024-H1, 2024-Q3 or 2024-03 (default: the last event's quarter)."
)
@click.option("--since", metavar="DATE", help="Instead of --period: the first day,")
@click.option("--until", metavar="DATE", help="and the day after the last.")
@click.option("--as-of", metavar="TIME", help="What was known then, as 2024-03-01T08:00:00+08:00.")
@click.option("--alerts-of", "replayed", type=click.Path(path_type=Path), metavar="DIR|FILE",
              help="The alerts (and the configuration) of a replay, not those of the record itself.")  # fmt: skip
@click.option("--mapping", metavar="NAME|FILE.toml", help="How the columns of files without TOPIC= become events.")
@click.option("--charts", type=click.IntRange(0, 1_000), default=24, show_default=True,
              help="Control charts at most, of the gravest and newest alerts.")  # fmt: skip
@click.option("--alerts", "listed", type=click.IntRange(0, 10_000), default=100, show_default=True,
              help="Alerts in the timeline and the table at most.")  # fmt: skip
@click.option("--sources", "senders", type=click.IntRange(0, 10_000), default=30, show_default=True,
              help="Labs, hospitals, hotlines listed at most, the busiest first.")  # fmt: skip
@placed
def command(
    place: Place,
    sources: tuple[str, ...],
    out: Path,
    pdf: Path | None,
    language: Language,
    name: str | None,
    since: str | None,
    until: str | None,
    as_of: str | None,
    replayed: Path | None,
    mapping: str | None,
    charts: int,
    listed: int,
    senders: int,
) -> None:
    """Write one HTML page on a period: quality status by district, alerts and their disposal, charts, data quality.

    The record is that of a data directory (--data), of the topics on a broker (--broker), or of files; it is only read.
    The page needs nothing but itself, and is the same for the same record.

    \b
    tocsin report --data DIR --period 2024-Q3 --language en
    tocsin replay --data DIR --config B.toml --out again
    tocsin report --data DIR --alerts-of again --pdf report.pdf
    """
    from streams.report.pdf import find_chromium, print_pdf
    from streams.report.view import Bounds, assemble

    check_sources(place, sources, mapping)
    if sources and replayed is None:
        raise click.UsageError("files hold events and no alerts; name the folder of their replay with --alerts-of")
    chromium = find_chromium() if pdf is not None else None
    config = _config(place, sources, mapping, replayed)
    period, instant = _period(name, since, until), _instant(config, as_of)
    catalogue = config.load_catalogue()
    from streams.report.page import render
    from streams.report.record import gather
    from streams.slices import Slice, Sliced

    with _medium(place, config, sources, mapping) as medium, bar("reading") as progress:
        alerts = _alerts(medium, replayed, config, instant)
        known: Medium = medium if instant is None else Sliced(medium, Slice(until=instant))
        gathered = gather(known, config, catalogue, progress)
    bounds = Bounds(charts=charts, alerts=listed, sources=senders)
    view = assemble(gathered, alerts, period, language, bounds, instant)
    page = render(view).encode()
    from streams.outputs import explained, replacing

    with explained(out), replacing(out) as part:
        Path(part).write_bytes(page)
    say(f"{out}: {len(page) / 1024:,.0f} KB, period {view.period.name}, {len(view.cases):,} alerts")
    if chromium is not None and pdf is not None:
        print_pdf(chromium, out, pdf)
        say(f"{pdf}: printed")


def _config(place: Place, sources: tuple[str, ...], mapping: str | None, replayed: Path | None) -> Config:
    """The replay's own configuration where there is one, else the record's; the command line goes before both."""
    held = held_config(place, sources, mapping)
    folder = replayed if replayed is not None and replayed.is_dir() else None
    return place.wanted.over((datadir.remembered(folder) if folder is not None else None) or held)


def _period(name: str | None, since: str | None, until: str | None) -> Period | None:
    from streams.report.periods import between, named

    if (since is None) != (until is None) or (name is not None and since is not None):
        raise click.UsageError("give either --period, or --since and --until")
    if name is not None:
        return named(name)
    if since is None or until is None:
        return None
    days = []
    for option, text in (("--since", since), ("--until", until)):
        try:
            days.append(date.fromisoformat(text))
        except ValueError:
            raise TocsinError(f"{option} {text}: is no date; write it as 2024-03-01") from None
    return between(days[0], days[1])


def _instant(config: Config, text: str | None) -> int | None:
    from streams.ticks import Calendar

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TocsinError(f"--as-of {text}: is no time; write it as 2024-03-01T08:00:00+08:00") from None
    return Calendar(config.tick_ms, config.offset_ms).epoch_ms(moment)


def _alerts(medium: Medium, replayed: Path | None, config: Config, instant: int | None) -> list[Alert]:
    """Every revision that there was at an instant. The time of its own record is that of its writing, which for an
    imported history is today."""
    from streams.outputs import read_alert_file, read_alerts
    from streams.ticks import Calendar

    if replayed is None:
        found = read_alerts(medium)
        if not found:
            note("the record holds no alert: run it with `tocsin run`, or name a replay with --alerts-of")
    else:
        found = read_alert_file(replayed / "alerts.ndjson" if replayed.is_dir() else replayed)
    calendar = Calendar(config.tick_ms, config.offset_ms)
    return [alert for alert in found if instant is None or calendar.epoch_ms(alert.as_of) <= instant]


@contextmanager
def _medium(place: Place, config: Config, sources: tuple[str, ...], mapping: str | None) -> Iterator[Medium]:
    from streams.replay import scratch

    if not sources:
        held = None if place.broker is not None else datadir.remembered(place.data)
        with place.medium(config if held is None else held) as medium:
            yield medium
        return
    with tempfile.TemporaryDirectory(prefix="tocsin-") as folder, scratch(Path(folder), config) as medium:
        fill(medium, config, named_files(sources, mapping), mapping)
        yield medium
