"""``tocsin tune``."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from schemas.errors import TocsinError
from streams.commands.compare import in_days, incident_options, plain_score
from streams.commands.place import Place, placed
from streams.commands.record import check_sources, held_config, laid_over, records_of
from streams.commands.screen import bar, note, out, say, table
from streams.datadir import Wanted

if TYPE_CHECKING:
    from streams.sweep import Point

__all__ = ["command"]

_COLUMNS: Final = ("found", "visible", "median_days", "mean_days", "false", "false_a_year", "alerts", "front")


@click.command("tune")
@click.argument("sources", nargs=-1, metavar="[TOPIC=FILE | FILE]...")
@click.option("--vary", "varied", multiple=True, required=True, metavar="KEY=VALUES",
              help="As counts.alpha=1e-6..1e-3:log5 or counts.detector=surge,farrington; repeatable.")  # fmt: skip
@click.option("--mapping", metavar="NAME|FILE.toml", help="How the columns of files without TOPIC= become events.")
@incident_options(required=True)
@click.option("--jobs", type=click.IntRange(1, 64), default=os.cpu_count() or 1, help="Processes, one a run.")
@click.option("--max-runs", type=click.IntRange(1, 10_000), default=64, show_default=True,
              help="Refuse a sweep with more runs.")  # fmt: skip
@click.option("--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.csv",
              help="Write the curve there.")  # fmt: skip
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.html|FILE.png",
              help="Draw the curve (needs the extra report: plotly; for PNG kaleido too).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The whole sweep as one JSON object.")
@placed
def command(
    place: Place,
    sources: tuple[str, ...],
    varied: tuple[str, ...],
    mapping: str | None,
    incidents: Path,
    dataset: str | None,
    jobs: int,
    max_runs: int,
    csv_file: Path | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Run a record under many configurations, and show what each finds: delay against false alerts.

    --config FILE is what all of them have in common, laid over the record's own configuration; each --vary names a key
    and its values, and all combinations are run. Those marked with * are on the front: no other is better in delay and
    in false alerts at once. A missed incident counts with its whole time in the mean delay.

    \b
    tocsin tune --data caers --incidents known.csv --vary counts.alpha=1e-6..1e-3:log4
    """
    check_sources(place, sources, mapping)
    from streams.incidents import read_incidents, score
    from streams.sweep import Point, front, parse_vary, settings
    from streams.trials import Trial, run_trials

    if plot is not None:
        from streams.curve import check_plot

        check_plot(plot)
    base = held_config(place, sources, mapping)
    if place.wanted.file is not None:
        base = laid_over(base, place.wanted.file)
    base = Wanted(None, place.wanted.catalogue, place.wanted.prefix).over(base)
    chosen = settings(base, [parse_vary(text, base) for text in varied], max_runs)
    known = read_incidents(incidents, dataset)
    with (
        records_of(place, sources, mapping, [setting.config for setting in chosen]) as records,
        bar(f"{len(chosen)} runs") as progress,
    ):
        trials = [Trial(setting.config, record) for setting, record in zip(chosen, records, strict=True)]
        runs = run_trials(trials, jobs, progress)
    points = []
    for setting, run in zip(chosen, runs, strict=True):
        worth = score(known, run.alerts, run.first, run.last)
        points.append(Point(setting, len({alert.id for alert in run.alerts}), worth))
    points = front(points)
    if not any(point.score.visible for point in points):
        note("no incident of the file lies within the record: there is no delay to show")
    if csv_file is not None:
        _write_csv(csv_file, points)
    if plot is not None:
        from streams.curve import draw

        draw(points, plot)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode({"points": [_plain(point) for point in points]}) + b"\n")
    else:
        _print(points)


def _plain(point: Point) -> dict[str, Any]:
    return {
        "values": dict(point.setting.values),
        "config": point.setting.config.digest,
        "alerts": point.alerts,
        "front": point.front,
        "score": plain_score(point.score),
    }


def _write_csv(path: Path, points: list[Point]) -> None:
    names = [name for name, _ in points[0].setting.values]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*names, *_COLUMNS])
            for point in points:
                worth = point.score
                figures = (
                    worth.found, worth.visible, worth.median_days, worth.mean_days, worth.false, worth.false_a_year,
                    point.alerts, int(point.front),
                )  # fmt: skip
                writer.writerow([*(value for _, value in point.setting.values), *figures])
    except OSError as error:
        raise TocsinError(f"{path}: cannot be written ({(error.strerror or '').lower()}); check the path") from None


def _print(points: list[Point]) -> None:
    names = [name for name, _ in points[0].setting.values]
    made = table("", *names, "found", "median delay", "mean delay", "false", "a year", "alerts")
    for point in points:
        worth = point.score
        made.add_row(
            "*" if point.front else "", *(f"{value}" for _, value in point.setting.values),
            f"{worth.found} of {worth.visible}", in_days(worth.median_days), in_days(worth.mean_days),
            str(worth.false), f"{worth.false_a_year:.2f}", str(point.alerts),
        )  # fmt: skip
    out().print(made)
    say("* no other is better in mean delay (a missed incident in full) and in false alerts a year at once")
