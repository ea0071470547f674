"""Let every method judge every scored week of every series, on all cores, and measure what it said.

The work is cut into pieces of a fixed number of series, whatever the number of processes, and no detector's evidence
for one series hangs on another's: so the result is the same for any number of jobs.

Each method judges twice: the series without the current outbreak, and with it. The two are the same up to the first
case of the outbreak, so the second judging starts there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np

from detectors.evidence import BoolArray, FloatArray, IntArray
from schemas.errors import TocsinError
from streams.evaluation.measures import MEASURES, Estimate, Parts, cut_for, estimate, halves, parts
from streams.evaluation.methods import METHODS, ORACLES, Judgement, Panel
from streams.evaluation.scenarios import Draws, scenarios
from streams.processes import deaf, pool

__all__ = ["Figures", "Outcome", "evaluate"]

PIECE: Final = 256
"""Series judged together."""

Advance = Callable[[int, int], None]
"""Called with the pieces that are done, and those there are."""


@dataclass(frozen=True, slots=True)
class Figures:
    """All measures of one method at one setting: over all scenarios, and in each."""

    overall: dict[str, Estimate]
    by_scenario: dict[int, dict[str, Estimate]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was measured of a method.

    Attributes
    ----------
    method
        Its name.
    nominal, matched
        At its nominal level; at the false-positive rate asked for, None where there are too few replicates, or where
        more than that share of all weeks has the method's highest score.
    cuts
        The two cuts of the score behind ``matched``, of the first half of the replicates and of the second. Each half
        is measured with the other's.
    """

    method: str
    nominal: Figures
    matched: Figures | None
    cuts: tuple[float, float] | None


def evaluate(
    draws: Draws, methods: Sequence[str], *, match_fpr: float, jobs: int = 1, advance: Advance | None = None
) -> list[Outcome]:
    """Measure methods on series.

    Parameters
    ----------
    draws
        The series.
    methods
        Names in :data:`~streams.evaluation.methods.METHODS`.
    match_fpr
        False-positive rate at which the methods are compared.
    jobs
        Processes; 1 for this one alone.
    advance
        Told of progress.
    """
    tasks = [_Task(method, rows, draws) for method in methods for rows in _pieces(len(draws))]
    per_method = len(_pieces(len(draws)))
    outcomes: list[Outcome] = []
    held: list[_Judged] = []
    with _mapped(tasks, min(jobs, len(tasks))) as results:
        for done, judged in enumerate(results, 1):
            held.append(judged)
            if len(held) == per_method:
                outcomes.append(_outcome(methods[len(outcomes)], held, draws, match_fpr))
                held = []
            if advance is not None:
                advance(done, len(tasks))
    return outcomes


def _pieces(series: int) -> list[slice]:
    return [slice(first, first + PIECE) for first in range(0, series, PIECE)]


# --- in the workers -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    """A method and some of the series; the pickle of a task holds those series only."""

    method: str
    rows: slice
    draws: Draws

    def __reduce__(self) -> tuple[Callable[..., _Task], tuple[str, Draws]]:
        return _whole_task, (self.method, _cut_out(self.draws, self.rows))


def _whole_task(method: str, draws: Draws) -> _Task:
    return _Task(method, slice(None), draws)


def _cut_out(draws: Draws, rows: slice) -> Draws:
    return Draws(
        draws.scenario[rows],
        draws.rep[rows],
        draws.first_week,
        draws.baseline[rows],
        draws.past[rows],
        draws.current[rows],
    )


@dataclass(frozen=True, slots=True)
class _Judged:
    """Judgements of the series without and with the current outbreak."""

    without: Judgement
    with_current: Judgement


def _judge(task: _Task) -> _Judged:
    draws = _cut_out(task.draws, task.rows)
    judge = METHODS[task.method].judge
    mean, dispersion = _law(draws) if task.method in ORACLES else (None, None)
    scored = draws.scored.start
    past = (draws.baseline + draws.past).astype(np.float64)
    start = np.full(len(draws), scored)
    without = judge(Panel(past, scored, start, mean, dispersion))
    touched = draws.current > 0
    start = np.where(touched.any(axis=1), touched.argmax(axis=1), draws.current.shape[1])
    found = judge(Panel(past + draws.current, scored, start, mean, dispersion))
    same = np.arange(scored, past.shape[1]) < start[:, None]
    with_current = Judgement(np.where(same, without.alarm, found.alarm), np.where(same, without.score, found.score))
    return _Judged(without, with_current)


def _law(draws: Draws) -> tuple[FloatArray, FloatArray]:
    """Mean and dispersion that the series were drawn with."""
    known = {scenario.number: scenario for scenario in scenarios()}
    strange = sorted(set(draws.scenario.tolist()) - set(known))
    if strange:
        raise TocsinError(
            f"scenario {strange[0]} is none of the 42, so the oracles do not know its law; leave them out: --methods"
        )
    rows = [known[number] for number in draws.scenario.tolist()]
    return np.stack([row.mean(draws.weeks) for row in rows]), np.array([row.phi for row in rows])


# --- the processes ------------------------------------------------------------------------------------------


@contextmanager
def _mapped(tasks: Sequence[_Task], jobs: int) -> Iterator[Iterator[_Judged]]:
    """The tasks' results, in the order of the tasks."""
    if jobs <= 1:
        yield map(_judge, tasks)
        return
    with pool(jobs) as executor:
        with deaf():
            results = executor.map(_judge, tasks)
        yield results


# --- measuring ----------------------------------------------------------------------------------------------


def _outcome(method: str, judged: Sequence[_Judged], draws: Draws, match_fpr: float) -> Outcome:
    without, with_current = (
        Judgement(
            np.concatenate([getattr(one, name).alarm for one in judged]),
            np.concatenate([getattr(one, name).score for one in judged]),
        )
        for name in ("without", "with_current")
    )
    nominal = _figures(parts(without.alarm, with_current.alarm, draws.outbreak), draws.scenario)
    second = halves(draws.scenario, draws.rep)
    if second is None:
        return Outcome(method, nominal, None, None)
    cuts = tuple(cut_for(without.score[half], draws.scenario[half], match_fpr) for half in (~second, second))
    if max(cuts) == np.inf:
        return Outcome(method, nominal, None, None)
    cut = np.where(second, cuts[0], cuts[1])[:, None]
    matched = parts(without.score > cut, with_current.score > cut, draws.outbreak)
    return Outcome(method, nominal, _figures(matched, draws.scenario), (cuts[0], cuts[1]))


def _figures(found: Parts, scenario: IntArray) -> Figures:
    overall = {name: estimate(*found[name], scenario) for name in MEASURES}
    by_scenario: dict[int, dict[str, Estimate]] = {}
    for number in np.unique(scenario).tolist():
        rows: BoolArray = scenario == number
        by_scenario[number] = {
            name: estimate(found[name][0][rows], found[name][1][rows], scenario[rows]) for name in MEASURES
        }
    return Figures(overall, by_scenario)
