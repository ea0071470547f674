"""The benchmark: its generator, its measures, its run. R's figures: R surveillance 1.20.3, 42 x 20 series."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from detectors import FarringtonOptions, farrington
from schemas.errors import TocsinError
from streams.evaluation.measures import MEASURES, cut_for, estimate, halves, parts
from streams.evaluation.methods import METHODS, Panel, find
from streams.evaluation.run import Outcome, evaluate
from streams.evaluation.scenarios import Draws, Scenario, draw, draw_outbreak, scenarios

FIXTURES = Path(__file__).parent / "fixtures"
BASELINE = slice(0, 263)


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


# --- the generator -------------------------------------------------------------------------------------------------


def test_the_table_has_the_published_scenarios() -> None:
    table = scenarios()
    assert [scenario.number for scenario in table] == list(range(1, 43))
    assert table[0] == Scenario(1, 0.1, 1.5, 0.0, 0.0, 0.0, 0)
    assert table[29] == Scenario(30, 2.5, 3.0, 0.001, 1.0, 0.1, 2)
    assert sorted({scenario.theta for scenario in table}) == [-2.0, 0.1, 0.5, 1.5, 2.5, 3.75, 5.0]
    assert all(scenario.phi >= 1.0 for scenario in table)


def test_the_mean_follows_the_formula() -> None:
    scenario, week = scenarios()[5], 400
    expected = 0.1 + 0.0025 * week
    for j in (1, 2):
        expected += 0.6 * math.cos(2 * math.pi * j * week / 52) + 0.6 * math.sin(2 * math.pi * j * week / 52)
    assert scenario.mean(week) == pytest.approx(math.exp(expected), rel=1e-12)


@pytest.mark.parametrize("number", [1, 6, 9, 12, 15, 21, 30, 36, 41])
def test_the_background_has_the_mean_and_variance_of_its_scenario(number: int) -> None:
    scenario = scenarios()[number - 1]
    draws = draw(250, 5, (scenario,))
    mean = scenario.mean(draws.weeks)
    cells = draws.baseline.size
    z = (draws.baseline - mean) / np.sqrt(scenario.phi * mean)
    assert abs(z.mean()) < 4.5 / math.sqrt(cells)
    # The standard error of a mean square, from the squares themselves.
    assert abs((z**2).mean() - 1.0) < 4.5 * (z**2).std() / math.sqrt(cells)


def test_the_first_and_the_last_scored_week_have_the_law_itself() -> None:
    for scenario in (scenarios()[6], scenarios()[12]):
        counts = draw(2000, 6, (scenario,)).baseline[:, -1]
        mean = float(scenario.mean(624))
        if scenario.phi == 1.0:
            law = stats.poisson(mean)
        else:
            law = stats.nbinom(mean / (scenario.phi - 1.0), 1.0 / scenario.phi)
        top = int(law.ppf(0.98))
        expected = np.append(law.pmf(np.arange(top)), law.sf(top - 1)) * counts.size
        found = np.bincount(np.minimum(counts, top), minlength=top + 1)
        assert stats.chisquare(found, expected).pvalue > 1e-3


@pytest.mark.parametrize("expected", [0.5, 2.0, 9.0])
def test_outbreak_sizes_are_poisson_drawn_again_until_two(expected: float) -> None:
    source = rng()
    sizes = np.array([draw_outbreak(source, 0, expected, 400).sum() for _ in range(4000)])
    assert sizes.min() >= 2
    law = stats.poisson(expected)
    top = int(law.ppf(0.99)) + 1
    pmf = np.append(law.pmf(np.arange(2, top)), law.sf(top - 1)) / law.sf(1)
    found = np.bincount(np.minimum(sizes, top) - 2, minlength=top - 1)
    assert stats.chisquare(found, pmf * sizes.size).pvalue > 1e-3


def test_delays_are_the_whole_part_of_a_lognormal() -> None:
    source = rng()
    cases = sum(draw_outbreak(source, 3, 50.0, 60) for _ in range(200))
    assert isinstance(cases, np.ndarray)
    law = stats.lognorm(0.5)
    expected = np.append(np.diff(law.cdf(np.arange(5))), law.sf(4)) * cases.sum()
    found = np.append(cases[3:7], cases[7:].sum())
    assert cases[:3].sum() == 0
    assert stats.chisquare(found, expected).pvalue > 1e-3


def test_cases_beyond_the_last_week_are_not_seen() -> None:
    source = rng()
    assert all(draw_outbreak(source, 9, 30.0, 10).shape == (10,) for _ in range(50))
    assert draw_outbreak(source, 9, 400.0, 10)[9] == pytest.approx(200, abs=60)


def test_past_outbreaks_lie_in_the_baseline_and_the_current_one_in_the_scored_weeks() -> None:
    draws = draw(40, 8)
    assert not draws.current[:, BASELINE].any()
    starts = draws.current.argmax(axis=1)[draws.outbreak.any(axis=1)]
    # Where the first case falls: the start itself in about all outbreaks of several cases.
    assert starts.min() == 263
    assert starts.max() == 311
    assert draws.past[:, BASELINE].sum() > 0.98 * draws.past.sum()
    deviation = np.array([math.sqrt(s.phi) * np.sqrt(s.mean(draws.weeks[BASELINE])).mean() for s in scenarios()])
    large = deviation > 5  # where drawing again until two hardly matters
    wanted = (2 + 3 + 5 + 10) * deviation[large]
    found = draws.past.sum(axis=1).reshape(42, 40).mean(axis=1)[large]
    assert found == pytest.approx(wanted, rel=0.1)
    current = draws.current.sum(axis=1).reshape(42, 40)[large] / deviation[large][:, None]
    assert current.mean() == pytest.approx(5.5 * 0.98, rel=0.12)


def test_a_series_hangs_on_seed_scenario_and_replicate_alone() -> None:
    many, few = draw(3, 9), draw(2, 9, (scenarios()[20],))
    rows = (many.scenario == 21) & (many.rep <= 2)
    for name in ("baseline", "past", "current", "rep"):
        np.testing.assert_array_equal(getattr(many, name)[rows], getattr(few, name))
    assert (draw(2, 10, (scenarios()[20],)).baseline != few.baseline).any()
    assert (few.baseline[0] != few.baseline[1]).any()


# --- the measures --------------------------------------------------------------------------------------------------

SHAPE = (6, 9)
ALARMS = arrays(np.bool_, SHAPE)
SCENARIO = np.array([1, 1, 1, 2, 2, 7])


def by_hand(
    without: npt.NDArray[np.bool_], alarm: npt.NDArray[np.bool_], outbreak: npt.NDArray[np.bool_]
) -> dict[str, float | None]:
    """The seven measures in plain Python, by their definitions."""
    over = dict.fromkeys(MEASURES, 0.0)
    under = dict.fromkeys(MEASURES, 0.0)
    sizes = {number: SCENARIO.tolist().count(number) for number in SCENARIO.tolist()}

    def add(name: str, row: int, hit: float, of: float) -> None:
        over[name] += hit / sizes[int(SCENARIO[row])]
        under[name] += of / sizes[int(SCENARIO[row])]

    for row in range(SHAPE[0]):
        weeks = [week for week in range(SHAPE[1]) if outbreak[row, week]]
        hits = [week for week in weeks if alarm[row, week]]
        for week in range(SHAPE[1]):
            add("fpr", row, without[row, week], 1)
            if week not in weeks:
                add("specificity", row, not alarm[row, week], 1)
            else:
                add("sensitivity", row, alarm[row, week], 1)
            if alarm[row, week]:
                add("ppv", row, week in weeks, 1)
        if weeks:
            add("pod", row, bool(hits), 1)
            add("pod_first_week", row, weeks[0] in hits, 1)
        if hits:
            add("delay", row, hits[0] - weeks[0], 1)
    return {name: over[name] / under[name] if under[name] else None for name in MEASURES}


@given(ALARMS, ALARMS, ALARMS)
def test_the_measures_are_those_counted_by_hand(
    without: npt.NDArray[np.bool_], alarm: npt.NDArray[np.bool_], outbreak: npt.NDArray[np.bool_]
) -> None:
    wanted = by_hand(without, alarm, outbreak)
    found = parts(without, alarm, outbreak)
    for name in MEASURES:
        value = estimate(*found[name], SCENARIO).value
        if wanted[name] is None:
            assert math.isnan(value)
        else:
            assert value == pytest.approx(wanted[name], abs=1e-12)


def test_the_standard_error_is_the_spread_of_fresh_samples() -> None:
    source = rng()
    size = np.array([30, 60, 90])
    scenario = np.repeat([1, 2, 3], size)
    rate = np.repeat([0.2, 0.5, 0.9], size)
    values, errors = [], []
    for _ in range(600):
        under = source.poisson(4, scenario.size).astype(float)
        one = estimate(source.binomial(under.astype(int), rate).astype(float), under, scenario)
        values.append(one.value)
        errors.append(one.se)
    assert np.mean(values) == pytest.approx(1.6 / 3, abs=0.005)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_a_scenario_with_a_single_series_has_no_standard_error() -> None:
    one = estimate(np.array([1.0, 3.0]), np.array([4.0, 4.0]), np.array([1, 2]))
    assert one.value == 0.5
    assert math.isnan(one.se)


@given(arrays(np.int64, (5, 8), elements=st.integers(0, 9)), st.floats(0.01, 0.9))
def test_the_cut_keeps_the_rate_and_the_next_lower_one_does_not(scores: npt.NDArray[np.int64], fpr: float) -> None:
    scenario = np.array([1, 1, 2, 2, 2])
    cut = cut_for(scores.astype(float), scenario, fpr)

    def rate(at: float) -> float:
        return float(np.mean([(scores[scenario == number] > at).mean() for number in (1, 2)]))

    if cut == math.inf:
        assert rate(scores.max() - 0.5) > fpr
        return
    assert rate(cut) <= fpr + 1e-9
    lower = scores[scores < cut]
    if lower.size:
        assert rate(lower.max()) > fpr


def test_the_halves_share_each_scenario_out() -> None:
    second = halves(np.array([1, 1, 1, 2, 2]), np.array([3, 1, 2, 9, 8]))
    assert second is not None
    assert second.tolist() == [False, False, True, True, False]
    assert halves(np.array([1, 1, 2]), np.array([1, 2, 1])) is None


# --- the run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def draws() -> Draws:
    return draw(10, 2024)


@pytest.fixture(scope="module")
def outcomes(draws: Draws) -> dict[str, Outcome]:
    names = (
        "tocsin",
        "farrington",
        "ears-c1",
        "ears-c2",
        "bayes-1",
        "bayes-2",
        "bayes-3",
        "rki-3",
        "oracle",
        "oracle-2",
    )
    return {one.method: one for one in evaluate(draws, names, match_fpr=0.0102)}


def published() -> dict[str, dict[str, float]]:
    with (FIXTURES / "noufaily42_r.csv").open(newline="") as file:
        return {
            row["method"]: {name: float(value) for name, value in row.items() if name != "method"}
            for row in csv.DictReader(file)
        }


R_SERIES = 840
R_NAMES = {
    "fpr": "FPR",
    "specificity": "specificity",
    "pod": "POD",
    "pod_first_week": "POD1week",
    "sensitivity": "sensitivity",
    "ppv": "PPV",
}


@pytest.mark.parametrize(
    ("method", "in_r"),
    [
        ("farrington", "improved_farrington"),
        ("ears-c1", "earsC1"),
        ("ears-c2", "earsC2"),
        ("bayes-1", "bayes1"),
        ("bayes-2", "bayes2"),
        ("bayes-3", "bayes3"),
        ("rki-3", "rki3"),
    ],
)
def test_a_method_lies_within_sampling_error_of_the_same_in_r(
    outcomes: dict[str, Outcome], method: str, in_r: str
) -> None:
    found, wanted = outcomes[method].nominal.overall, published()[in_r]
    for name, name_in_r in R_NAMES.items():
        # R's own figures come from twice as many series as ours here.
        error = found[name].se * math.sqrt(1.0 + 420 / R_SERIES)
        assert abs(found[name].value - wanted[name_in_r]) < 3.0 * error, name


def test_tocsins_own_method_detects_more_than_farringtons_at_the_same_rate(outcomes: dict[str, Outcome]) -> None:
    own, other = outcomes["tocsin"].matched, outcomes["farrington"].matched
    assert own is not None
    assert other is not None
    assert own.overall["pod"].value > other.overall["pod"].value + other.overall["pod"].se
    assert outcomes["tocsin"].nominal.overall["fpr"].value <= 0.0102


def test_older_detectors_do_not_beat_the_oracle_by_more_than_chance(outcomes: dict[str, Outcome]) -> None:
    best = outcomes["oracle-2"].matched
    assert best is not None
    for name in ("farrington", "ears-c2", "bayes-2", "rki-3", "oracle"):
        matched = outcomes[name].matched
        assert matched is not None
        assert matched.overall["pod"].value < best.overall["pod"].value + best.overall["pod"].se


def test_a_matched_rate_is_the_rate_asked_for(outcomes: dict[str, Outcome]) -> None:
    for outcome in outcomes.values():
        assert outcome.matched is not None, outcome.method
        fpr = outcome.matched.overall["fpr"]
        assert abs(fpr.value - 0.0102) < 4.0 * fpr.se


def test_each_half_is_measured_with_the_other_halfs_cut(draws: Draws) -> None:
    outcome = evaluate(draws, ["oracle"], match_fpr=0.02)[0]
    mean = np.stack([scenarios()[number - 1].mean(draws.weeks) for number in draws.scenario.tolist()])
    phi = np.array([scenarios()[number - 1].phi for number in draws.scenario.tolist()])
    counts = (draws.baseline + draws.past).astype(float)
    start = np.full(len(draws), 263)
    score = METHODS["oracle"].judge(Panel(counts, 263, start, mean, phi)).score
    first = draws.rep % 2 == 1
    assert outcome.cuts is not None
    assert outcome.cuts[0] == cut_for(score[first], draws.scenario[first], 0.02)
    alarm = np.where(first[:, None], score > outcome.cuts[1], score > outcome.cuts[0])
    assert outcome.matched is not None
    assert outcome.matched.overall["fpr"].value == pytest.approx(alarm.mean(), abs=1e-12)


def test_a_single_replicate_has_no_matched_figures() -> None:
    outcome = evaluate(draw(1, 3), ["oracle"], match_fpr=0.0102)[0]
    assert outcome.matched is None
    assert outcome.cuts is None
    assert not math.isnan(outcome.nominal.overall["pod"].value)


def test_the_number_of_processes_shows_in_no_figure(draws: Draws) -> None:
    names = ["predictive", "cusum-rossi", "oracle-2"]
    seen: list[tuple[int, int]] = []
    one = evaluate(draws, names, match_fpr=0.05, jobs=1)
    two = evaluate(draws, names, match_fpr=0.05, jobs=2, advance=lambda done, total: seen.append((done, total)))
    assert repr(one) == repr(two)
    assert seen == [(done, 6) for done in range(1, 7)]


def test_judging_from_the_outbreak_on_is_judging_all_weeks(draws: Draws) -> None:
    rows = np.arange(0, len(draws), 7)
    few = Draws(draws.scenario[rows], draws.rep[rows], draws.first_week,
                draws.baseline[rows], draws.past[rows], draws.current[rows])  # fmt: skip
    found = evaluate(few, ["farrington"], match_fpr=0.0102)[0].nominal.overall
    alarms = []
    for counts in (few.baseline + few.past, few.baseline + few.past + few.current):
        alarms.append(np.stack([farrington(counts, at=at, options=FarringtonOptions()).alarm
                                for at in range(263, 312)], axis=1))  # fmt: skip
    wanted = parts(alarms[0], alarms[1], few.outbreak)
    for name in MEASURES:
        assert found[name].value == pytest.approx(estimate(*wanted[name], few.scenario).value, abs=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_judges_series_of_zeros_and_of_large_counts(name: str) -> None:
    counts = np.zeros((3, 312))
    counts[1:] = 7.0
    counts[2, -4:] = 1e6
    start = np.full(3, 263)
    found = find(name).judge(Panel(counts, 263, start, np.full((3, 312), 7.0), np.ones(3)))
    assert found.alarm.shape == found.score.shape == (3, 49)
    assert not np.isnan(found.score).any()
    assert not found.alarm[0].any()
    assert found.alarm[2, -4]
    assert (found.score[2, -4:].max() > found.score[1]).all()


def test_an_oracle_refuses_a_scenario_that_it_does_not_know(draws: Draws) -> None:
    other = Draws(draws.scenario + 42, draws.rep, draws.first_week, draws.baseline, draws.past, draws.current)
    with pytest.raises(TocsinError, match="scenario 43 is none of the 42"):
        evaluate(other, ["oracle"], match_fpr=0.0102)


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(TocsinError, match="no method is called 'magic'; there are tocsin, farrington"):
        find("magic")
