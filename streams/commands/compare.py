"""``tocsin compare``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from streams.commands.place import Place, placed
from streams.commands.record import check_sources, held_config, laid_over, records_of
from streams.commands.screen import bar, grade, moment, out, safe, say, table, title
from streams.datadir import Wanted

if TYPE_CHECKING:
    from streams.compare import Episode
    from streams.incidents import Score, Told
    from streams.trials import Run

__all__ = ["command", "in_days", "incident_options", "plain_score", "said"]

_GRADES: Final = ("I", "II", "III", "IV")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def incident_options(*, required: bool = False) -> Callable[[_Command], _Command]:
    """``--incidents`` and ``--dataset``, alike for every command that has them."""

    def decorate(command: _Command) -> _Command:
        for option in (
            click.option("--dataset", metavar="NAME", help="Of --incidents: the rows of this dataset only."),
            click.option(
                "--incidents", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.csv", required=required,
                help="Known incidents: columns incident, product, region, kind, since, until, visible.",
            ),
        ):  # fmt: skip
            command = option(command)
        return command

    return decorate


@click.command("compare")
@click.argument("before", metavar="A.toml", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("after", metavar="B.toml", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("sources", nargs=-1, metavar="[TOPIC=FILE | FILE]...")
@click.option("--mapping", metavar="NAME|FILE.toml", help="How the columns of files without TOPIC= become events.")
@incident_options()
@click.option("--jobs", type=click.IntRange(1, 2), default=min(2, os.cpu_count() or 1), help="Processes.")
@click.option("--limit", type=click.IntRange(0, 100_000), default=50, show_default=True,
              help="List so many changed alerts (--json: all of them).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="The whole comparison as one JSON object.")
@placed
def command(
    place: Place,
    before: Path,
    after: Path,
    sources: tuple[str, ...],
    mapping: str | None,
    incidents: Path | None,
    dataset: str | None,
    jobs: int,
    limit: int,
    as_json: bool,
) -> None:
    """Run a record under two configurations, and tell the alerts gained, lost, earlier and later.

    The record is that of a data directory (--data), of the topics on a broker (--broker), or of files; it is only read.
    A.toml and B.toml need only say what differs from the record's own configuration; an empty file is that itself.

    With --incidents, both are held against known incidents: found, with what delay, false alerts a year.
    """
    if place.wanted.file is not None:
        raise click.UsageError("--config has no place here: A.toml and B.toml are the configurations")
    if dataset is not None and incidents is None:
        raise click.UsageError("--dataset chooses among --incidents; name the file")
    check_sources(place, sources, mapping)
    base = held_config(place, sources, mapping)
    wanted = Wanted(None, place.wanted.catalogue, place.wanted.prefix)
    configs = [wanted.over(laid_over(base, file)) for file in (before, after)]
    from streams.compare import compare
    from streams.incidents import read_incidents, score
    from streams.trials import Trial, run_trials

    known = None if incidents is None else read_incidents(incidents, dataset)
    catalogues = [config.load_catalogue() for config in configs]
    with records_of(place, sources, mapping, configs) as records, bar("replay") as progress:
        trials = [Trial(config, record) for config, record in zip(configs, records, strict=True)]
        runs = run_trials(trials, jobs, progress)
    episodes = compare(runs[0].alerts, runs[1].alerts, catalogues[1])
    scores = None if known is None else [score(known, run.alerts, run.first, run.last) for run in runs]
    names = (str(before), str(after))
    if as_json:
        digests = [config.digest for config in configs]
        sys.stdout.buffer.write(msgspec.json.encode(_plain(names, digests, runs, episodes, scores)) + b"\n")
        return
    _print_counts(episodes, names, runs)
    _print_changes(episodes, limit)
    if scores is not None:
        _print_incidents(scores)


# --- as JSON -------------------------------------------------------------------------------------------------------


def _plain(
    names: tuple[str, str], digests: list[str], runs: list[Run], episodes: list[Episode], scores: list[Score] | None
) -> dict[str, Any]:
    return {
        "runs": [
            {
                "file": name,
                "config": digest,
                "events": run.events,
                "refused": run.dead,
                "first": run.first,
                "last": run.last,
                "alerts": len({alert.id for alert in run.alerts}),
                "score": None if scores is None else plain_score(scores[at]),
            }
            for at, (name, digest, run) in enumerate(zip(names, digests, runs, strict=True))
        ],
        "counts": [
            {"kind": kind, "level": _GRADES[level - 1], **counts} for (kind, level), counts in _counts(episodes)
        ],
        "episodes": [_plain_episode(episode) for episode in episodes],
    }


def _plain_episode(one: Episode) -> dict[str, Any]:
    shift, levels = one.shift, one.levels
    return {
        "change": one.change,
        "kind": one.alert.kind,
        "product": one.alert.product,
        "region": one.alert.region,
        "source": one.alert.source,
        "hazard": one.alert.hazard,
        "shift_seconds": None if shift is None else shift.total_seconds(),
        "levels": [None if level is None else _GRADES[level - 1] for level in levels],
        "before": [{"id": life.first.id, "opened": life.opened, "resolved": life.ended} for life in one.before],
        "after": [{"id": life.first.id, "opened": life.opened, "resolved": life.ended} for life in one.after],
        "beside": one.beside or None,
    }


def plain_score(one: Score) -> dict[str, Any]:
    """A score as plain values."""
    return {
        "found": one.found,
        "visible": one.visible,
        "median_days": one.median_days,
        "mean_days": one.mean_days,
        "false": one.false,
        "false_a_year": one.false_a_year,
        "years": one.years,
        "incidents": [
            {
                "incident": told.incident.name,
                "since": told.incident.since,
                "visible": told.incident.visible,
                "outside": told.outside,
                "days": told.days,
                "alert": None if told.alert is None else told.alert.id,
            }
            for told in one.told
        ],
    }


def _counts(episodes: list[Episode]) -> list[tuple[tuple[str, int], dict[str, int]]]:
    """How many episodes changed how, by kind and gravest level; and which reached another level."""
    found: dict[tuple[str, int], Counter[str]] = {}
    for one in episodes:
        counts = found.setdefault((one.alert.kind, one.level), Counter())
        counts[one.change] += 1
        before, after = one.levels
        if before is not None and after is not None and before != after:
            counts["graver" if after < before else "milder"] += 1
    columns = ("lost", "gained", "earlier", "later", "same", "graver", "milder")
    return [(key, {name: found[key][name] for name in columns}) for key in sorted(found)]


# --- as tables -----------------------------------------------------------------------------------------------------


def _print_counts(episodes: list[Episode], names: tuple[str, str], runs: list[Run]) -> None:
    for letter, name, run in zip("AB", names, runs, strict=True):
        ids = len({alert.id for alert in run.alerts})
        say(
            f"{letter}  {name}: {ids:,} alerts from {run.events:,} records ({run.dead:,} refused), {run.first} to "
            f"{run.last}, {run.seconds:.1f} s"
        )
    title("Alerts of B against A")
    columns = ("lost", "gained", "earlier", "later", "same", "graver", "milder")
    made = table("kind", "level", *columns)
    for (kind, level), counts in _counts(episodes):
        made.add_row(kind, grade(level), *(str(counts[name] or "-") for name in columns))
    out().print(made)


def _print_changes(episodes: list[Episode], limit: int) -> None:
    changed = [one for one in episodes if one.change != "same" or len(set(one.levels)) > 1]
    if not changed or not limit:
        return
    title("What changed")
    facts = ("change", "by", "A", "B", "kind", "since", "id")
    made = table(*facts, "product", "region", "beside", fixed=facts)
    for one in changed[:limit]:
        shift = one.shift
        levels = ["-" if level is None else grade(level) for level in one.levels]
        about = one.alert.source or one.alert.product
        made.add_row(
            one.change, "-" if not shift else _days(shift), *levels, one.alert.kind, moment(one.alert.as_of),
            safe(one.alert.id), safe(about), safe(one.alert.region), safe(one.beside or "-"),
        )  # fmt: skip
    out().print(made)
    if len(changed) > limit:
        say(f"{len(changed) - limit:,} more; --limit or --json shows them")


def _days(shift: timedelta) -> str:
    days = shift / timedelta(days=1)
    return f"{days:+.1f} d" if abs(days) >= 1 else f"{24 * days:+.1f} h"


def _print_incidents(scores: list[Score]) -> None:
    title("Known incidents")
    made = table("incident", "since", "A", "B", fixed=("since", "A", "B"))
    for pair in zip(*(one.told for one in scores), strict=True):
        incident = pair[0].incident
        name = safe(incident.name) + ("" if incident.visible else "  (to stay quiet)")
        made.add_row(name, str(incident.since), *(said(told) for told in pair))
    out().print(made)
    summary = table("", "found", "median delay", "mean delay, missed ones in full", "false alerts", "a year")
    for letter, one in zip("AB", scores, strict=True):
        summary.add_row(
            letter, f"{one.found} of {one.visible}", in_days(one.median_days), in_days(one.mean_days), str(one.false),
            f"{one.false_a_year:.2f}",
        )  # fmt: skip
    say()
    out().print(summary)


def said(told: Told) -> str:
    """How an incident was told, in a few characters."""
    if told.outside:
        return "outside the record"
    if told.days is None:
        return "missed" if told.incident.visible else "quiet"
    return f"{told.days:+d} d" if told.incident.visible else f"rang {told.days:+d} d"


def in_days(value: float | None) -> str:
    """Days with a decimal, or a dash."""
    return "-" if value is None else f"{value:.1f} d"
