"""Judging pass rates: rolling windows against the target, the cell's own history and its peers, and an LR-CUSUM.

Failures of one product come in batches, so that the binomial is too narrow: every comparison uses the intra-class
correlation of the cell or of the same product in all regions, functions of that product's data alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.edetector import betting_factors, epoch_e_value
from detectors.evidence import RateEvidence
from detectors.lr_cusum import lr_cusum
from detectors.passrate import chance_by_reference, jeffreys_interval, pass_rate, worse_than_reference
from detectors.run_length import threshold_for_arl
from schemas.alerts import Against, Evidence
from streams.cells import CellStore
from streams.config import PassRateRules
from streams.finding import Finding, rounded, rounded_all
from streams.judge_sums import PIECE, kept_failures_back, pieces, weeks_back
from streams.lab_mix import PEER_DAYS, LabFactor
from streams.rate_cells import RateCells, correlation, kin_of, load

__all__ = ["RateHistory", "judge_rates", "rate_history"]

_WEEK = 7
_TO_MONDAY = 3
_EPOCH_WEEKS = 13
_SURE = 1e9
_OVERSHOOT = 4.0
_EXACT_TAILS = 1e-10
LEAST_HISTORY = 200
P0_CONFIDENCE = 0.99
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class _Question(NamedTuple):
    """What one window (its place and days) is held against, and the detector that says so."""

    number: int
    window: int
    against: Against
    detector: str


@dataclass(slots=True)
class _Suspects:
    """Windows of cells that may be evidence, question by question; every field is an array [suspects].

    ``question`` is a place in the questions, ``at`` one in ``RateCells.rows``.
    """

    question: npt.NDArray[np.intp]
    at: npt.NDArray[np.intp]
    n: Floats
    x: Floats
    ref_n: Floats
    ref_x: Floats
    ref_windows: Floats

    def take(self, some: npt.NDArray[np.intp]) -> _Suspects:
        return _Suspects(*(getattr(self, one.name)[some] for one in fields(self)))


def judge_rates(
    store: CellStore,
    rows: npt.NDArray[np.intp],
    day: int,
    targets: Floats,
    rules: PassRateRules,
    labs: LabFactor | None = None,
) -> list[Finding]:
    """Findings for the cells whose pass rate is below target or has become worse than history or peers allow.

    ``targets`` [rows] holds each cell's target pass rate, NaN where it has none. With ``labs`` a finding must stand
    when the failures that its labs' severity explains are expected.

    A cell's sums tell of nearly all cells that no detector can speak against them; days one by one, and with them the
    correlation, are only looked at for the few others. All this goes piece by piece, so that memory stays bounded.
    """
    busy = np.flatnonzero(kept_failures_back(store, rows, day, max(rules.windows_days)) >= rules.min_failed)
    # A running epoch of the e-values may reach back further than a short history.
    days = max(max(rules.windows_days) + rules.history_days, _EPOCH_WEEKS * _WEEK)
    kin, targets = kin_of(store, rows[busy]), targets[busy]
    found: dict[int, Finding] = {}
    for part in pieces(len(busy), PIECE):
        cells = load(store, kin[:, part], targets[part], day, days, rules.windows_days, rules, keep=True)
        _judge_piece(cells, rules, labs, found)
    return [found[row] for row in sorted(found)]


def _judge_piece(cells: RateCells, rules: PassRateRules, labs: LabFactor | None, found: dict[int, Finding]) -> None:
    questions, suspects = _suspects(cells, rules)
    sliding = _sliding(cells, rules)
    needed = np.union1d(sliding, suspects.at)
    if not len(needed):
        return
    rho = np.zeros(len(cells.rows))
    rho[needed] = correlation(cells, needed, rules)
    _judge_windows(cells, questions, suspects, rho, rules, labs, found)
    _judge_cusum(cells, sliding, rho, rules, labs, found)
    _add_e_values(cells, found)


def _suspects(cells: RateCells, rules: PassRateRules) -> tuple[list[_Question], _Suspects]:
    """Window by window and reference by reference the cells that even the narrow binomial finds unlikely."""
    questions, held = list[_Question](), list[tuple[Floats, ...]]()
    for number, window in enumerate(rules.windows_days):
        n, x = cells.between(0, window)
        for against, detector, *reference in _references(cells, window, rules):
            questions.append(_Question(number, window, against, detector))
            held.append((n, x, *reference))
    n, x, ref_n, ref_x, ref_windows = (np.concatenate(column) for column in zip(*held, strict=True))
    some = _suspect(n, x, ref_n, ref_x, rules)
    question, at = np.divmod(some, max(len(cells.rows), 1))
    return questions, _Suspects(question, at, n[some], x[some], ref_n[some], ref_x[some], ref_windows[some])


def _judge_windows(
    cells: RateCells,
    questions: Sequence[_Question],
    suspects: _Suspects,
    rho: Floats,
    rules: PassRateRules,
    labs: LabFactor | None,
    found: dict[int, Finding],
) -> None:
    """Weigh all suspects together, for most of what weighing one costs is the call; then, net of their labs, those
    that are still evidence."""
    factors = np.ones(len(suspects.at))
    reference, p_value, hit = _weighed(cells, questions, suspects, rho, factors, rules)
    if labs is not None:
        # Few cells come so far; only for them it is worth asking who tested what.
        asked = [(questions[number].window, questions[number].against) for number in suspects.question[hit].tolist()]
        factors[hit] = labs(cells.rows[suspects.at[hit]], asked)
        severe = np.flatnonzero(factors > 1.0)
        if len(severe):
            again = cells, questions, suspects.take(severe), rho, factors[severe], rules
            reference[severe], p_value[severe], still = _weighed(*again)
            hit = np.setdiff1d(hit, np.delete(severe, still), assume_unique=True)
    _collect(cells, questions, suspects.take(hit), reference[hit], p_value[hit], factors[hit], rules, found)


def _weighed(
    cells: RateCells,
    questions: Sequence[_Question],
    some: _Suspects,
    rho: Floats,
    factors: Floats,
    rules: PassRateRules,
) -> tuple[Floats, Floats, npt.NDArray[np.intp]]:
    """The pass rates of the references and the p-values, [suspects], and which of them are evidence, when labs find so
    many times more failures."""
    # More failures of as many items, said with whole numbers: as many failures of fewer items.
    items = np.maximum(np.rint(some.ref_n / factors), some.ref_x)
    # Of what is far from evidence the exact chance is nobody's concern. Twice alpha, and no less than what the tail is
    # good for, leaves room for its rounding: that must not decide otherwise.
    plenty = max(2.0 * rules.alpha, _EXACT_TAILS)
    reference, p_value, defined = chance_by_reference(
        some.n, some.x, items, some.ref_x, rho[some.at], ref_windows=some.ref_windows, plenty=plenty
    )
    hit = _hits(some.n, some.x, reference, p_value, defined, rules)
    aimed = np.array([one.against == "target" for one in questions])[some.question[hit]]
    n, x, target = some.n[hit[aimed]], some.x[hit[aimed]], cells.targets[some.at[hit[aimed]]]
    stays = np.ones(len(hit), np.bool_)
    stays[aimed] = jeffreys_interval(n, n - x, rules.confidence)[1] < target
    return reference, p_value, hit[stays]


def _references(
    cells: RateCells, window: int, rules: PassRateRules
) -> tuple[tuple[Against, str, Floats, Floats, Floats], ...]:
    """What a window is held against: the detector's name, items, failures, and of how many windows that is made."""
    # The target is a reference known exactly: so many items that its own error vanishes. A target of 1 leaves nothing
    # to test (the first failure breaks it), so only targets under 1 are judged.
    aimed = np.where(cells.targets < 1.0, _SURE, 0.0)
    allowed = np.rint(np.where(cells.targets < 1.0, _SURE * (1.0 - cells.targets), 0.0))
    periods = np.full(len(cells.rows), max(rules.history_days / window, 1.0))
    peer_failed, peer_tested = (part.astype(np.float64) for part in cells.peers[max(window, PEER_DAYS)])
    return (
        ("target", "jeffreys+beta-binomial", aimed, allowed, np.full(len(cells.rows), _SURE)),
        ("own-history", "beta-binomial", *cells.between(window, window + rules.history_days), periods),
        ("peers", "beta-binomial", peer_tested, peer_failed, periods),
    )


def _suspect(n: Floats, x: Floats, ref_n: Floats, ref_x: Floats, rules: PassRateRules) -> npt.NDArray[np.intp]:
    """Cells that even the narrow binomial finds unlikely: correlation only fattens the tail, so no other can hit."""
    rate = (ref_x + 0.5) / (ref_n + 1.0)
    enough = x >= np.maximum(rules.min_rate_ratio * rate * n, rules.min_failed)
    at = np.flatnonzero((ref_n > 0) & enough)
    tail = special.betainc(np.maximum(x[at], 1.0), np.maximum(n[at] - x[at], 0.0) + 1.0, rate[at])
    return np.asarray(at[tail <= rules.alpha], np.intp)


def _hits(
    n: Floats, x: Floats, reference: Floats, p_value: Floats, defined: npt.NDArray[np.bool_], rules: PassRateRules
) -> npt.NDArray[np.intp]:
    """The cells whose evidence is strong enough, and whose excess is large enough to matter."""
    expected = n * (1.0 - reference)
    grave = x >= np.maximum(rules.min_rate_ratio * expected, rules.min_failed)
    return np.flatnonzero(defined & (p_value <= rules.alpha) & grave)


def _collect(
    cells: RateCells,
    questions: Sequence[_Question],
    hits: _Suspects,
    reference: Floats,
    p_value: Floats,
    factors: Floats,
    rules: PassRateRules,
    found: dict[int, Finding],
) -> None:
    n, x = hits.n, hits.x
    expected, rate = n * (1.0 - reference), pass_rate(n, x)
    lower, upper = jeffreys_interval(n, n - x, rules.confidence)
    shown = expected, rate, lower, upper, reference, p_value, 1.0 / np.maximum(p_value, 1e-300)
    told = rounded_all(np.stack(shown, axis=1).reshape(-1))
    columns = hits.question, cells.rows[hits.at], n, x, p_value, x - expected, factors
    for at, (number, row, tested, failed, p, excess, factor) in enumerate(
        zip(*(column.tolist() for column in columns), strict=True)
    ):
        question = questions[number]
        usual, share, low, high, aim, chance, days = told[at * len(shown) : (at + 1) * len(shown)]
        entry = Evidence(
            detector=question.detector,
            against=question.against,
            window_days=question.window,
            observed=failed,
            expected=usual,
            tested=int(tested),
            rate=share,
            lower=low,
            upper=high,
            reference=aim,
            p_value=chance,
            recurrence_days=days,
            lab_factor=factor if factor > 1.0 else None,
        )
        _add(found, row, p, question.number, excess, entry, question.window)


def _add(
    found: dict[int, Finding], row: int, p: float, number: int, excess: float, entry: Evidence, window: int
) -> None:
    finding = found.get(row)
    if finding is None:
        found[row] = Finding(row, p, {number: excess}, [entry], window)
        return
    if p < finding.p_value:
        finding.p_value, finding.window_days = p, window
    finding.excess[number] = max(finding.excess.get(number, 0.0), excess)
    finding.evidence.append(entry)


def _sliding(cells: RateCells, rules: PassRateRules) -> npt.NDArray[np.intp]:
    """Places of the cells that fail so much more in the weeks of the longest window than in the history before that an
    LR-CUSUM over them, in control as in the history, would be told.

    The rate in control is an upper bound of the history's, and so above the plain rate: that spares most cells the
    quantile.
    """
    longest = max(rules.windows_days)
    weeks = longest // _WEEK
    if not weeks:
        return np.empty(0, np.intp)
    (n0, x0), (n, x) = cells.between(longest, cells.days), cells.between(0, weeks * _WEEK)
    able = (n0 >= LEAST_HISTORY) & (n >= weeks) & (x >= rules.min_failed)
    at = np.flatnonzero(able & (x >= rules.min_rate_ratio * (n * (x0 / (n0 + 1.0)))))
    grave = x[at] >= np.maximum(rules.min_failed, rules.min_rate_ratio * (n[at] * _in_control(n0[at], x0[at])))
    return at[grave]


def _in_control(n0: Floats, x0: Floats) -> Floats:
    """What history allows at its upper limit, so that a short history cannot shorten the run length."""
    return np.maximum(jeffreys_interval(n0, x0, P0_CONFIDENCE)[1], 1e-6)


def _judge_cusum(
    cells: RateCells,
    sliding: npt.NDArray[np.intp],
    rho: Floats,
    rules: PassRateRules,
    labs: LabFactor | None,
    found: dict[int, Finding],
) -> None:
    """Beta-binomial LR-CUSUM over the weeks of the longest window, in control as in the history before it."""
    # It is for the slow slide that no window shows: cells with a finding need no second one.
    able = sliding[[row not in found for row in cells.rows[sliding].tolist()]]
    if not len(able):
        return
    longest, number = max(rules.windows_days), len(rules.windows_days)
    weekly = weeks_back(cells.store, cells.rows[able], cells.day, longest // _WEEK)
    weeks_n, weeks_x, rho = weekly[:, :, 1], weekly[:, :, 0], rho[able]
    n0, x0 = cells.between(longest, cells.days)
    p0 = _in_control(n0[able], x0[able])
    arl0 = rules.cusum_arl_days / _WEEK
    chart = lr_cusum(weeks_n, weeks_x, p0, rules.cusum_odds_ratio, rho=rho, threshold=1.0, reset=False)
    p = _WEEK / rules.cusum_arl_days
    # The run length is at least exp(h) (Lorden 1971), and more by the overshoot only: the exact threshold lies a little
    # under log(arl0), so it is solved for only where the statistic is near.
    sure = math.log(arl0)
    for at in np.flatnonzero(chart.statistic > sure - _OVERSHOOT).tolist():
        row, threshold = int(cells.rows[able[at]]), sure
        total_x, total_n = int(weeks_x[at].sum()), int(weeks_n[at].sum())
        if chart.statistic[at] <= sure:
            usual = total_n // weeks_n.shape[1]
            threshold = threshold_for_arl(float(p0[at]), rules.cusum_odds_ratio, usual, float(rho[at]), arl0)
        if chart.statistic[at] <= threshold:
            continue
        factor = 1.0 if labs is None else float(labs(np.array([row]), [(longest, "own-history")])[0])
        if not _stands_net_of_labs(factor, weeks_n[at], weeks_x[at], p0[at], rho[at], rules):
            continue
        expected = total_n * float(p0[at])
        entry = Evidence(
            detector="beta-binomial-lr-cusum",
            against="run-length",
            window_days=longest,
            observed=float(total_x),
            expected=rounded(expected),
            tested=total_n,
            reference=rounded(1.0 - float(p0[at])),
            statistic=rounded(float(chart.statistic[at])),
            threshold=rounded(threshold),
            recurrence_days=rules.cusum_arl_days,
        )
        _add(found, row, p, number, total_x - expected, entry, longest)


def _stands_net_of_labs(
    factor: float, weeks_n: Ints, weeks_x: Ints, p0: float, rho: float, rules: PassRateRules
) -> bool:
    """Whether the chart still exceeds its bound when in control is what these labs would find."""
    if factor <= 1.0:
        return True
    chart = lr_cusum(
        weeks_n[None], weeks_x[None], np.array([min(p0 * factor, 0.5)]), rules.cusum_odds_ratio,
        rho=np.array([rho]), threshold=1.0, reset=False,
    )  # fmt: skip
    return bool(chart.statistic[0] > math.log(rules.cusum_arl_days / _WEEK))


@dataclass(frozen=True, slots=True)
class RateHistory:
    """A cell's rolling window at the end of several days; every field is an array [days].

    ``limit`` is the highest pass rate that would have been evidence, NaN where none would; labs are not allowed for.
    """

    evidence: RateEvidence
    limit: Floats
    alarm: npt.NDArray[np.bool_]


def rate_history(
    store: CellStore, row: int, days: Sequence[int], window: int, against: Against, target: float, rules: PassRateRules
) -> RateHistory:
    """What would be said at the end of each day of a cell's last ``window`` days, of the counts as they are known now.

    Parameters
    ----------
    against
        What to hold it against: ``target``, ``own-history`` or ``peers``.
    target
        The pass rate that is asked, NaN where none is.
    """
    days_back, aims = max(max(rules.windows_days), window) + rules.history_days, np.array([target])
    kin, place = kin_of(store, np.array([row], np.intp)), np.array([0], np.intp)
    held = [load(store, kin, aims, day, days_back, (window,), rules) for day in days]
    found = [next(one for one in _references(cells, window, rules) if one[0] == against) for cells in held]
    ref_n, ref_x, ref_windows = (np.array([one[at][0] for one in found]) for at in (2, 3, 4))
    rho = np.array([correlation(cells, place, rules)[0] for cells in held])
    daily = [np.maximum(store.daily(kin[0], day, window)[0], 0) for day in days]
    n = np.array([float(one[:, 1].sum()) for one in daily])
    x = np.array([float(one.min(axis=1).sum()) for one in daily])

    def said(failed: Floats) -> tuple[RateEvidence, npt.NDArray[np.bool_]]:
        evidence = worse_than_reference(
            n, failed, ref_n, ref_x, rho, ref_windows=ref_windows, confidence=rules.confidence
        )
        hit = np.zeros(len(n), np.bool_)
        told = evidence.tested, evidence.failed, evidence.reference, evidence.p_value, evidence.defined
        hit[_hits(*told, rules)] = True
        return evidence, hit & (evidence.upper < target) if against == "target" else hit

    # The least number of failures that is evidence, by bisection: more failures are never weaker evidence.
    low, high = np.zeros(len(n)), n + 1.0
    while (high - low > 1.0).any():
        middle = np.floor((low + high) / 2.0)
        hit = said(np.minimum(middle, n))[1] & (middle > low)
        low, high = np.where(hit | (high - low <= 1.0), low, middle), np.where(hit, middle, high)
    limit = np.where(high <= n, 1.0 - high / np.maximum(n, 1.0), np.nan)
    evidence, alarm = said(x)
    return RateHistory(evidence, limit, alarm)


def _add_e_values(cells: RateCells, found: dict[int, Finding]) -> None:
    """Beside each finding whose cell has a target, a genuine e-value against it: the bet that in some week of the
    running 13, an epoch that the calendar fixes, the mean share of failures has exceeded what the target allows."""
    told = [at for at, row in enumerate(cells.rows.tolist()) if row in found]
    at = np.array([at for at in told if cells.targets[at] < 1.0], np.intp)
    if not len(at):
        return
    week, weekday = divmod(cells.day + _TO_MONDAY, _WEEK)
    column = week % _EPOCH_WEEKS
    days = column * _WEEK + weekday + 1
    ahead = ((0, 0), (0, _EPOCH_WEEKS * _WEEK - days))
    daily = np.maximum(cells.store.daily(cells.rows[at], cells.day, days), 0)
    tested, failed = (
        np.pad(daily[:, :, part], ahead).reshape(len(at), _EPOCH_WEEKS, _WEEK).sum(axis=2) for part in (1, 0)
    )
    allowed = np.clip(1.0 - cells.targets[at], 1e-6, 1.0 - 1e-6)
    log_e = epoch_e_value(betting_factors(tested, np.minimum(failed, tested), allowed))[:, column]
    total_n, total_x = tested.sum(axis=1), failed.sum(axis=1)
    value, expected, target = np.exp(np.minimum(log_e, 700.0)), allowed * total_n, cells.targets[at]
    shown = (rounded_all(column) for column in (value, expected, target))
    columns = cells.rows[at].tolist(), total_x.tolist(), total_n.tolist(), *shown
    for row, x, n, e_value, usual, aim in zip(*columns, strict=True):
        finding = found[row]
        finding.e_value = e_value
        finding.evidence.append(
            Evidence(
                detector="betting-e-process",
                against="target",
                window_days=days,
                observed=float(x),
                expected=usual,
                tested=n,
                reference=aim,
                e_value=e_value,
            )
        )
