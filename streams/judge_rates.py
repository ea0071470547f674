"""Judging pass rates: rolling windows against the target, the cell's own history and its peers, and an LR-CUSUM.

Failures of one product come in batches, so that the binomial is too narrow: every comparison uses the intra-class
correlation of the cell or of the same product in all regions, functions of that product's data alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import special

from detectors.edetector import betting_factors, epoch_e_value
from detectors.evidence import RateEvidence
from detectors.lr_cusum import lr_cusum
from detectors.passrate import dispersion, jeffreys_interval, worse_than_reference
from detectors.run_length import threshold_for_arl
from schemas.alerts import Against, Evidence
from streams.cells import CellStore
from streams.config import PassRateRules
from streams.finding import Finding, rounded
from streams.lab_mix import PEER_DAYS, LabFactor

__all__ = ["RateHistory", "judge_rates", "rate_history"]

_WEEK = 7
_TO_MONDAY = 3
_EPOCH_WEEKS = 13
_SURE = 1e9
_OVERSHOOT = 4.0
LEAST_HISTORY = 200
P0_CONFIDENCE = 0.99
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Cells:
    """Daily (failed, tested) of the cells and of the same products in the next wider region, ending with the day."""

    rows: npt.NDArray[np.intp]
    failed: Ints
    tested: Ints
    peer_failed: Ints
    peer_tested: Ints
    rho: Floats
    labs: LabFactor | None


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
    """
    longest = max(rules.windows_days)
    recent = store.daily(rows, day, longest)[:, :, 0].sum(axis=1)
    busy = recent >= rules.min_failed
    rows, targets = rows[busy], targets[busy]
    if not len(rows):
        return []
    # A running epoch of the e-values may reach back further than a short history.
    held = max(longest + rules.history_days, _EPOCH_WEEKS * _WEEK)
    cells = _load(store, rows, day, held, rules, labs)
    found: dict[int, Finding] = {}
    for number, window in enumerate(rules.windows_days):
        _judge_window(cells, targets, number, window, rules, found)
    _judge_cusum(cells, len(rules.windows_days), rules, found)
    _add_e_values(cells, targets, day, found)
    return [found[row] for row in sorted(found)]


def _load(
    store: CellStore, rows: npt.NDArray[np.intp], day: int, days: int, rules: PassRateRules, labs: LabFactor | None
) -> _Cells:
    own = np.maximum(store.daily(rows, day, days), 0)
    failed, tested = own[:, :, 0], own[:, :, 1]
    wider = store.wider(rows)
    total = store.daily(np.maximum(wider, 0), day, days)
    has_peers = (wider >= 0)[:, None]
    # Correlation before the windows judged: that of the product in all regions (the widest row above the cell), where
    # batches of one region are thinned out, or that of the cell itself, whichever is the larger.
    widest = rows.copy()
    while ((up := store.wider(widest)) >= 0).any():
        widest = np.where(up >= 0, up, widest)
    pool = np.maximum(store.daily(widest, day, days), 0)[:, : -max(rules.windows_days)]
    before = own[:, : -max(rules.windows_days)]
    return _Cells(
        rows,
        failed,
        tested,
        np.where(has_peers, np.maximum(total[:, :, 0] - failed, 0), 0),
        np.where(has_peers, np.maximum(total[:, :, 1] - tested, 0), 0),
        np.maximum(
            dispersion(_weeks(pool[:, :, 1]), _weeks(pool[:, :, 0]), pool=rules.correlation),
            dispersion(_weeks(before[:, :, 1]), _weeks(before[:, :, 0]), pool=rules.correlation),
        ),
        labs,
    )


def _weeks(daily: Ints) -> Ints:
    """Sums of seven days, counted back from the last."""
    weeks, rest = divmod(daily.shape[1], _WEEK)
    return cast(Ints, daily[:, rest:].reshape(len(daily), weeks, _WEEK).sum(axis=2))


def _judge_window(
    cells: _Cells, targets: Floats, number: int, window: int, rules: PassRateRules, found: dict[int, Finding]
) -> None:
    n, x = _total(cells.tested[:, -window:]), _total(cells.failed[:, -window:])
    for against, detector, ref_n, ref_x, ref_windows in _references(cells, targets, window, rules):
        at = _suspect(n, x, ref_n, ref_x, rules)
        if not len(at):
            continue
        factors = np.ones(len(at))
        for net_of_labs in (False, True):
            # More failures of as many items, said with whole numbers: as many failures of fewer items.
            items = np.maximum(np.rint(ref_n[at] / factors), ref_x[at])
            evidence = worse_than_reference(
                n[at], x[at], items, ref_x[at], cells.rho[at],
                ref_windows=ref_windows[at], confidence=rules.confidence,
            )  # fmt: skip
            if against == "target":
                evidence = replace(evidence, defined=evidence.defined & (evidence.upper < targets[at]))
            hits = _hits(evidence, rules)
            if net_of_labs or cells.labs is None or not len(hits):
                break
            # Few cells come so far; only for them it is worth asking who tested what.
            at = at[hits]
            factors = cells.labs(cells.rows[at], window, against)
        _collect(cells.rows[at], evidence, hits, factors, against, detector, number, window, found)


def _references(
    cells: _Cells, targets: Floats, window: int, rules: PassRateRules
) -> tuple[tuple[Against, str, Floats, Floats, Floats], ...]:
    """What a window is held against: the detector's name, items, failures, and of how many windows that is made."""
    before = slice(-window - rules.history_days, -window)
    peers = slice(-max(window, PEER_DAYS), None)
    # The target is a reference known exactly: so many items that its own error vanishes. A target of 1 leaves nothing
    # to test (the first failure breaks it), so only targets under 1 are judged.
    aimed = np.where(targets < 1.0, _SURE, 0.0)
    allowed = np.rint(np.where(targets < 1.0, _SURE * (1.0 - targets), 0.0))
    periods = np.full(len(cells.rows), max(rules.history_days / window, 1.0))
    return (
        ("target", "jeffreys+beta-binomial", aimed, allowed, np.full(len(cells.rows), _SURE)),
        ("own-history", "beta-binomial", _total(cells.tested[:, before]), _total(cells.failed[:, before]), periods),
        ("peers", "beta-binomial", _total(cells.peer_tested[:, peers]), _total(cells.peer_failed[:, peers]), periods),
    )


def _total(daily: Ints) -> Floats:
    return np.asarray(daily.sum(axis=1), np.float64)


def _suspect(n: Floats, x: Floats, ref_n: Floats, ref_x: Floats, rules: PassRateRules) -> npt.NDArray[np.intp]:
    """Cells that even the narrow binomial finds unlikely: correlation only fattens the tail, so no other can hit."""
    rate = (ref_x + 0.5) / (ref_n + 1.0)
    tail = special.betainc(np.maximum(x, 1.0), np.maximum(n - x, 0.0) + 1.0, rate)
    enough = x >= np.maximum(rules.min_rate_ratio * rate * n, rules.min_failed)
    return np.flatnonzero((ref_n > 0) & enough & (tail <= rules.alpha))


def _hits(evidence: RateEvidence, rules: PassRateRules) -> npt.NDArray[np.intp]:
    """The cells whose evidence is strong enough, and whose excess is large enough to matter."""
    expected = evidence.tested * (1.0 - evidence.reference)
    grave = evidence.failed >= np.maximum(rules.min_rate_ratio * expected, rules.min_failed)
    return np.flatnonzero(evidence.defined & (evidence.p_value <= rules.alpha) & grave)


def _collect(
    rows: npt.NDArray[np.intp],
    evidence: RateEvidence,
    hits: npt.NDArray[np.intp],
    factors: Floats,
    against: Against,
    detector: str,
    number: int,
    window: int,
    found: dict[int, Finding],
) -> None:
    expected = evidence.tested * (1.0 - evidence.reference)
    for at in hits.tolist():
        p = float(evidence.p_value[at])
        entry = Evidence(
            detector=detector,
            against=against,
            window_days=window,
            observed=float(evidence.failed[at]),
            expected=rounded(float(expected[at])),
            tested=int(evidence.tested[at]),
            rate=rounded(float(evidence.rate[at])),
            lower=rounded(float(evidence.lower[at])),
            upper=rounded(float(evidence.upper[at])),
            reference=rounded(float(evidence.reference[at])),
            p_value=rounded(p),
            recurrence_days=rounded(1.0 / max(p, 1e-300)),
            lab_factor=float(factors[at]) if factors[at] > 1.0 else None,
        )
        excess = float(evidence.failed[at] - expected[at])
        _add(found, int(rows[at]), p, number, excess, entry, window)


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


def _judge_cusum(cells: _Cells, number: int, rules: PassRateRules, found: dict[int, Finding]) -> None:
    """Beta-binomial LR-CUSUM over the weeks of the longest window, in control as in the history before it."""
    longest = max(rules.windows_days)
    n0 = cells.tested[:, :-longest].sum(axis=1)
    x0 = cells.failed[:, :-longest].sum(axis=1)
    weeks_n, weeks_x = _weeks(cells.tested[:, -longest:]), _weeks(cells.failed[:, -longest:])
    usual = weeks_n.sum(axis=1) // weeks_n.shape[1]
    # It is for the slow slide that no window shows: cells with a finding need no second one.
    silent = np.array([row not in found for row in cells.rows.tolist()])
    able = np.flatnonzero((n0 >= LEAST_HISTORY) & (usual >= 1) & silent)
    if not len(able):
        return
    # In control is what history allows at its upper limit, so that a short history cannot shorten the run length.
    p0 = np.maximum(jeffreys_interval(n0[able], x0[able], P0_CONFIDENCE)[1], 1e-6)
    arl0 = rules.cusum_arl_days / _WEEK
    chart = lr_cusum(
        weeks_n[able], weeks_x[able], p0, rules.cusum_odds_ratio, rho=cells.rho[able], threshold=1.0, reset=False
    )
    p = _WEEK / rules.cusum_arl_days
    # The run length is at least exp(h) (Lorden 1971), and more by the overshoot only: the exact threshold lies a little
    # under log(arl0), so it is solved for only where the statistic is near.
    sure = math.log(arl0)
    for at in np.flatnonzero(chart.statistic > sure - _OVERSHOOT).tolist():
        row, threshold = able[at], sure
        if chart.statistic[at] <= sure:
            threshold = threshold_for_arl(
                float(p0[at]), rules.cusum_odds_ratio, int(usual[row]), float(cells.rho[row]), arl0
            )
        if chart.statistic[at] <= threshold or not _stands_net_of_labs(cells, row, weeks_n, weeks_x, p0[at], rules):
            continue
        total_x, total_n = int(weeks_x[row].sum()), int(weeks_n[row].sum())
        expected = total_n * float(p0[at])
        if total_x < max(rules.min_failed, rules.min_rate_ratio * expected):
            continue
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
        _add(found, int(cells.rows[row]), p, number, total_x - expected, entry, longest)


def _stands_net_of_labs(cells: _Cells, row: int, weeks_n: Ints, weeks_x: Ints, p0: float, rules: PassRateRules) -> bool:
    """Whether the chart still exceeds its bound when in control is what these labs would find."""
    if cells.labs is None:
        return True
    factor = float(cells.labs(cells.rows[row : row + 1], max(rules.windows_days), "own-history")[0])
    if factor <= 1.0:
        return True
    chart = lr_cusum(
        weeks_n[row : row + 1], weeks_x[row : row + 1], np.array([min(p0 * factor, 0.5)]), rules.cusum_odds_ratio,
        rho=cells.rho[row : row + 1], threshold=1.0, reset=False,
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
    longest = max(max(rules.windows_days), window)
    held = [_load(store, np.array([row], np.intp), day, longest + rules.history_days, rules, None) for day in days]
    aims = np.array([target])
    found = [next(one for one in _references(c, aims, window, rules) if one[0] == against) for c in held]
    ref_n, ref_x, ref_windows = (np.array([one[at][0] for one in found]) for at in (2, 3, 4))
    rho = np.array([cells.rho[0] for cells in held])
    n, x = (np.array([float(part[0, -window:].sum()) for part in parts]) for parts in (
        [cells.tested for cells in held], [np.minimum(cells.failed, cells.tested) for cells in held]))  # fmt: skip

    def said(failed: Floats) -> tuple[RateEvidence, npt.NDArray[np.bool_]]:
        evidence = worse_than_reference(
            n, failed, ref_n, ref_x, rho, ref_windows=ref_windows, confidence=rules.confidence
        )
        hit = np.zeros(len(n), np.bool_)
        hit[_hits(evidence, rules)] = True
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


def _add_e_values(cells: _Cells, targets: Floats, day: int, found: dict[int, Finding]) -> None:
    """Beside each finding whose cell has a target, a genuine e-value against it: the bet that in some week of the
    running 13, an epoch that the calendar fixes, the mean share of failures has exceeded what the target allows."""
    at = np.array([at for at, row in enumerate(cells.rows.tolist()) if row in found and targets[at] < 1.0], np.intp)
    if not len(at):
        return
    week, weekday = divmod(day + _TO_MONDAY, _WEEK)
    column = week % _EPOCH_WEEKS
    days = column * _WEEK + weekday + 1
    ahead = ((0, 0), (0, _EPOCH_WEEKS * _WEEK - days))
    tested, failed = (
        np.pad(daily[at, -days:], ahead).reshape(len(at), _EPOCH_WEEKS, _WEEK).sum(axis=2)
        for daily in (cells.tested, cells.failed)
    )
    allowed = np.clip(1.0 - targets[at], 1e-6, 1.0 - 1e-6)
    log_e = epoch_e_value(betting_factors(tested, np.minimum(failed, tested), allowed))[:, column]
    for place, value in enumerate(np.exp(np.minimum(log_e, 700.0)).tolist()):
        finding = found[int(cells.rows[at[place]])]
        finding.e_value = rounded(value)
        finding.evidence.append(
            Evidence(
                detector="betting-e-process",
                against="target",
                window_days=days,
                observed=float(failed[place].sum()),
                expected=rounded(float(allowed[place] * tested[place].sum())),
                tested=int(tested[place].sum()),
                reference=rounded(float(targets[at[place]])),
                e_value=finding.e_value,
            )
        )
