"""``tocsin evaluate``."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.text import Text

from streams.commands.screen import bar, note, out, safe, say, table

if TYPE_CHECKING:
    from streams.evaluation.measures import Estimate
    from streams.evaluation.own_judges import RateSettings
    from streams.evaluation.own_series import Scored
    from streams.evaluation.run import Figures, Outcome

__all__ = ["command"]

_LAST_ROWS: Final = 10
_OF_BENCHMARK: Final = ("seed", "replicates", "methods", "match_fpr", "jobs", "save_series")
_OF_DETECTOR: Final = ("alpha", "target", "odds_ratio", "arl", "rho", "show_all")
_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)


@click.command("evaluate")
@click.option("--methods", metavar="NAME,...", help="Of the benchmark: these methods only (the default is all).")
@click.option(
    "--replicates",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="Of the benchmark: series of each of the 42 scenarios.",
)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=2024, show_default=True, help="Of all chance.")
@click.option(
    "--match-fpr",
    type=_SHARE,
    default=0.0102,
    show_default=True,
    help="False-positive rate at which the methods are compared.",
)
@click.option(
    "--jobs", type=click.IntRange(1, 256), help="Processes (the default is one a core); no result hangs on it."
)
@click.option("--series", metavar="FILE", help="A CSV or Parquet file: with --detector your own, else the benchmark's.")
@click.option(
    "--save-series",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the benchmark's series to FILE.csv or FILE.parquet, for --series and for other tools.",
)
@click.option("--detector", metavar="NAME", help="Score your own series with this detector.")
@click.option("--alpha", type=_SHARE, help="With --detector: its level (the default is its own).")
@click.option("--target", type=_SHARE, help="With --detector, of pass rates: the rate declared, as 0.98.")
@click.option(
    "--odds-ratio",
    type=click.FloatRange(1, 100, min_open=True),
    default=2.0,
    show_default=True,
    help="With --detector lr-cusum: rise in the odds of failure to detect.",
)
@click.option(
    "--arl",
    type=click.FloatRange(1, 1e6, min_open=True),
    default=500.0,
    show_default=True,
    help="With --detector lr-cusum: rows between false alarms.",
)
@click.option(
    "--rho",
    type=click.FloatRange(0, 0.95),
    default=0.0,
    show_default=True,
    help="With --detector lr-cusum: intra-class correlation of failures.",
)
@click.option("--all", "show_all", is_flag=True, help="With --detector: every row, not alarms and the latest alone.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--out",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.parquet",
    help="Write the result as Parquet too; of the benchmark with every scenario.",
)
@click.pass_context
def command(
    ctx: click.Context,
    methods: str | None,
    replicates: int,
    seed: int,
    match_fpr: float,
    jobs: int | None,
    series: str | None,
    save_series: Path | None,
    detector: str | None,
    alpha: float | None,
    target: float | None,
    odds_ratio: float,
    arl: float,
    rho: float,
    show_all: bool,
    form: str,
    file: Path | None,
) -> None:  # fmt: skip
    """Measure the detectors on a published benchmark, or score a series of your own.

    The benchmark is that of Noufaily et al. (2013): 42 scenarios of weekly counts with outbreaks that are known. It is
    drawn anew from --seed, or read from --series: columns scenario, rep, week, baseline, past, current.

    \b
    tocsin evaluate --replicates 100
    tocsin evaluate --save-series draws.csv
    tocsin evaluate --series draws.csv --methods farrington,oracle

    With --detector, each row of your own file is scored, to be compared with another tool: columns count, or tested and
    failed; date or week; series if there are several.

    \b
    tocsin evaluate --series weekly.csv --detector farrington
    tocsin evaluate --series batches.csv --detector below-target --target 0.98
    """
    _check_options(ctx, series, detector, file)
    if detector is not None:
        from streams.evaluation.own_judges import RateSettings

        settings = RateSettings(target, odds_ratio, arl, rho)
        _score(str(series), detector, alpha, settings, show_all, form, file)
    else:
        names = None if methods is None else [name.strip() for name in methods.split(",")]
        workers = jobs or _cores()
        _benchmark(names, replicates, seed, match_fpr, workers, series, save_series, form, file)


def _check_options(ctx: click.Context, series: str | None, detector: str | None, file: Path | None) -> None:
    def given(names: tuple[str, ...]) -> list[str]:
        explicit = click.core.ParameterSource.COMMANDLINE
        options = {param.name: param.opts[0] for param in ctx.command.params}
        return [options[name] for name in names if ctx.get_parameter_source(name) is explicit]

    if detector is not None and series is None:
        raise click.UsageError("--detector scores a file of yours; name it with --series")
    strange = given(_OF_BENCHMARK if detector is not None else _OF_DETECTOR)
    if strange:
        why = "is for the benchmark; leave --detector out" if detector is not None else "is for --detector; name one"
        raise click.UsageError(f"{strange[0]} {why}")
    drawn = given(("seed", "replicates", "save_series"))
    if series is not None and drawn:
        raise click.UsageError(f"{drawn[0]} is for series that are drawn, and --series names a file")
    if detector is not None:
        from streams.evaluation.own_judges import options_of

        idle = given(tuple(name for name in _OF_DETECTOR[:-1] if name not in options_of(detector)))
        if idle:
            raise click.UsageError(f"{idle[0]} means nothing to {detector}; leave it out")
    if file is not None and file.suffix != ".parquet":
        raise click.UsageError(f"{file}: name it .parquet, so that the format is clear")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


# --- the benchmark -------------------------------------------------------------------------------------------------


def _benchmark(
    names: list[str] | None,
    replicates: int,
    seed: int,
    match_fpr: float,
    jobs: int,
    series: str | None,
    save_series: Path | None,
    form: str,
    file: Path | None,
) -> None:
    from streams.evaluation.methods import METHODS, find
    from streams.evaluation.report import as_document, write_outcomes
    from streams.evaluation.run import evaluate
    from streams.evaluation.scenarios import draw
    from streams.evaluation.series_file import read_draws, write_draws

    chosen = list(dict.fromkeys(find(name).name for name in names)) if names is not None else list(METHODS)
    began = time.monotonic()
    draws = draw(replicates, seed) if series is None else read_draws(series)
    if save_series is not None:
        note(f"{write_draws(save_series, draws):,} rows written to {save_series}")
    with bar("judging") as update:
        outcomes = evaluate(draws, chosen, match_fpr=match_fpr, jobs=jobs, advance=update)
    seconds = time.monotonic() - began
    if file is not None:
        note(f"{write_outcomes(file, outcomes):,} rows written to {file}")
    about = {
        "series": len(draws),
        "scenarios": len(set(draws.scenario.tolist())),
        "seed": seed if series is None else None,
        "replicates": replicates if series is None else None,
        "match_fpr": match_fpr,
    }
    if form == "json":
        _print_json(as_document(outcomes, about))
    else:
        _print_benchmark(outcomes, about, seconds)


def _print_benchmark(outcomes: list[Outcome], about: dict[str, Any], seconds: float) -> None:
    from streams.evaluation.measures import MEASURES

    source = "from a file" if about["seed"] is None else f"drawn from seed {about['seed']}"
    say(f"{about['series']:,} series of {about['scenarios']} scenarios, {source}; 49 weeks scored in each")
    for heading, setting in (("At nominal levels", "nominal"), (f"At a false-positive rate of {about['match_fpr']:g}",
                                                                "matched")):  # fmt: skip
        say()
        say(Text(heading, style="bold"))
        made = table("method", *(_HEADS[name] for name in MEASURES), fixed=("method", *_HEADS.values()))
        for outcome in outcomes:
            figures: Figures | None = getattr(outcome, setting)
            cells = ["-"] * len(MEASURES) if figures is None else [_cell(name, figures.overall[name])
                                                                   for name in MEASURES]  # fmt: skip
            made.add_row(outcome.method, *cells)
        out().print(made)
    say()
    say("± standard error, clustered by series; the scenarios weigh the same. delay: weeks, of the outbreaks detected.")
    if any(outcome.matched is None for outcome in outcomes):
        say("-: no cut of the method's score has that rate, or a scenario has a single series.")
    say(f"{seconds:.1f} s")


_HEADS: Final = {
    "fpr": "FPR",
    "specificity": "specificity",
    "pod": "POD",
    "pod_first_week": "first week",
    "sensitivity": "sensitivity",
    "ppv": "PPV",
    "delay": "delay",
}


def _cell(name: str, found: Estimate) -> str:
    digits = 4 if name in ("fpr", "specificity") else 2 if name == "delay" else 3
    if math.isnan(found.value):
        return "-"
    if math.isnan(found.se):
        return f"{found.value:.{digits}f}"
    return f"{found.value:.{digits}f}±{found.se:.{digits}f}"


# --- a reader's own series -----------------------------------------------------------------------------------------


def _score(
    series: str,
    detector: str,
    alpha: float | None,
    rates: RateSettings,
    show_all: bool,
    form: str,
    file: Path | None,
) -> None:
    from streams.evaluation.own_series import score_series
    from streams.evaluation.report import scored_document, write_scored

    with bar("scoring") as update:
        scored = score_series(series, detector, alpha=alpha, rates=rates, advance=update)
    if file is not None:
        note(f"{write_scored(file, scored):,} rows written to {file}")
    if form == "json":
        _print_json(scored_document(scored, detector))
    else:
        _print_scored(scored, show_all)


def _print_scored(scored: Scored, show_all: bool) -> None:
    rows = len(scored.when)
    named = any(scored.series)
    ends = {at for at in range(rows) if at + _LAST_ROWS >= rows or (named and _is_last(scored, at))}
    shown = range(rows) if show_all else [at for at in range(rows) if scored.alarm[at] or at in ends]
    heads = (["series"] if named else []) + ["time", "observed"] + ([] if scored.tested is None else ["tested"])
    made = table(*heads, "expected", "threshold", "p", "score", "alarm")
    for at in shown:
        cells = [safe(scored.series[at])] if named else []
        cells += [safe(scored.when[at]), f"{scored.observed[at]:,.0f}"]
        cells += [] if scored.tested is None else [f"{scored.tested[at]:,.0f}"]
        cells += [_number(value[at]) for value in (scored.expected, scored.threshold, scored.p_value)]
        alarm = Text("ALARM", style="bold red") if scored.alarm[at] else "" if scored.defined[at] else "too little past"
        made.add_row(*cells, f"{scored.score[at]:.3f}" if scored.defined[at] else "-", alarm)
    out().print(made)
    say()
    hidden = rows - len(shown)
    rest = f"; {hidden:,} rows without an alarm are not shown, see --all" if hidden else ""
    say(f"{rows:,} rows, {int(scored.alarm.sum()):,} alarms{rest}")


def _is_last(scored: Scored, at: int) -> bool:
    return at + 1 == len(scored.series) or scored.series[at + 1] != scored.series[at]


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
