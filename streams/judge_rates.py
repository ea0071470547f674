"""Judging pass rates: rolling windows against the target, the cell's own history and its peers, and an LR-CUSUM.

Failures of one product come in batches, so that the binomial is too narrow: every comparison uses the intra-class
correlation of the cell or of the same product in all regions, functions of that product's data alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
from streams.judge_sums import CACHED, PIECE, peer_sums_back, pieces, sums_back, weeks_back
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
    """What is known of some cells on a day: sums over the last so many days, all arrays [cells] in order of ``rows``.

    Parameters
    ----------
    own, peers
        (failed, tested) by the number of days, of the cells and of the same products elsewhere in the next wider
        region.
    days
        How far back is looked at all.
    """

    store: CellStore
    rows: npt.NDArray[np.intp]
    widest: npt.NDArray[np.intp]
    targets: Floats
    day: int
    days: int
    own: dict[int, tuple[Ints, Ints]]
    peers: dict[int, tuple[Ints, Ints]]

    def between(self, after: int, until: int) -> tuple[Floats, Floats]:
        """Tested and failed of the days more than ``after`` and up to ``until`` days back."""
        (failed, tested), (less_failed, less_tested) = self.own[until], self.own[after]
        return (tested - less_tested).astype(np.float64), (failed - less_failed).astype(np.float64)


@dataclass(slots=True)
class _Suspects:
    """Cells (places in ``_Cells.rows``) that one window may speak against, and what it is held against there."""

    number: int
    window: int
    against: Against
    detector: str
    at: npt.NDArray[np.intp]
    n: Floats
    x: Floats
    ref_n: Floats
    ref_x: Floats
    ref_windows: Floats


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
    recent = [
        store.daily(rows[part], day, max(rules.windows_days))[:, :, 0].sum(axis=1) for part in pieces(len(rows), CACHED)
    ]
    busy = np.flatnonzero(np.concatenate([np.empty(0, np.int64), *recent]) >= rules.min_failed)
    # A running epoch of the e-values may reach back further than a short history.
    days = max(max(rules.windows_days) + rules.history_days, _EPOCH_WEEKS * _WEEK)
    kin, targets = _kin(store, rows[busy]), targets[busy]
    found: dict[int, Finding] = {}
    for part in pieces(len(busy), PIECE):
        cells = _load(store, kin[:, part], targets[part], day, days, rules.windows_days, rules)
        _judge_piece(cells, rules, labs, found)
    return [found[row] for row in sorted(found)]


def _judge_piece(cells: _Cells, rules: PassRateRules, labs: LabFactor | None, found: dict[int, Finding]) -> None:
    suspects = [
        suspect
        for number, window in enumerate(rules.windows_days)
        for suspect in _suspects(cells, number, window, rules)
    ]
    sliding = _sliding(cells, rules)
    rho = np.zeros(len(cells.rows))
    needed = np.unique(np.concatenate([sliding, *(one.at for one in suspects)]))
    if not len(needed):
        return
    rho[needed] = _correlation(cells, needed, rules)
    for one in suspects:
        _judge_window(cells, one, rho, rules, labs, found)
    _judge_cusum(cells, sliding, rho, rules, labs, found)
    _add_e_values(cells, found)


def _kin(store: CellStore, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """[3, rows]: the cells themselves, the same products in the next wider region (-1: none), and in all regions."""
    widest, wider = rows, store.wider(rows)
    up = wider
    while (up >= 0).any():
        widest = np.where(up >= 0, up, widest)
        up = store.wider(widest)
    return np.stack([rows, wider, widest])


def _load(
    store: CellStore,
    kin: npt.NDArray[np.intp],
    targets: Floats,
    day: int,
    days: int,
    windows: Sequence[int],
    rules: PassRateRules,
) -> _Cells:
    rows, wider, widest = kin
    longest = max(rules.windows_days)
    ends = {days, longest, *windows, *(window + rules.history_days for window in windows)}
    ends |= {longest // _WEEK * _WEEK}
    own = sums_back(store, rows, day, sorted(ends - {0}))
    own[0] = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    peers = peer_sums_back(store, rows, wider, day, sorted({max(window, PEER_DAYS) for window in windows}))
    return _Cells(store, rows, widest, targets, day, days, own, peers)


def _correlation(cells: _Cells, at: npt.NDArray[np.intp], rules: PassRateRules) -> Floats:
    """Correlation before the windows judged: that of the product in all regions (the widest row above the cell), where
    batches of one region are thinned out, or that of the cell itself, whichever is the larger."""
    widest, place = np.unique(cells.widest[at], return_inverse=True)
    longest = max(rules.windows_days)
    pool, own = (
        _dispersion(cells.store, rows, cells.day - longest, cells.days - longest, rules)
        for rows in (widest, cells.rows[at])
    )
    return np.maximum(pool[place], own)


def _dispersion(store: CellStore, rows: npt.NDArray[np.intp], last_day: int, days: int, rules: PassRateRules) -> Floats:
    out = np.empty(len(rows))
    for part in pieces(len(rows), CACHED):
        weekly = weeks_back(store, rows[part], last_day, days // _WEEK)
        out[part] = dispersion(weekly[:, :, 1], weekly[:, :, 0], pool=rules.correlation)
    return out


def _suspects(cells: _Cells, number: int, window: int, rules: PassRateRules) -> list[_Suspects]:
    """Against each reference the cells that even the narrow binomial finds unlikely."""
    n, x = cells.between(0, window)
    out = []
    for against, detector, ref_n, ref_x, ref_windows in _references(cells, window, rules):
        at = _suspect(n, x, ref_n, ref_x, rules)
        if len(at):
            taken = (values[at] for values in (n, x, ref_n, ref_x, ref_windows))
            out.append(_Suspects(number, window, against, detector, at, *taken))
    return out


def _judge_window(
    cells: _Cells,
    one: _Suspects,
    rho: Floats,
    rules: PassRateRules,
    labs: LabFactor | None,
    found: dict[int, Finding],
) -> None:
    at, factors = np.arange(len(one.at)), np.ones(len(one.at))
    for net_of_labs in (False, True):
        # More failures of as many items, said with whole numbers: as many failures of fewer items.
        items = np.maximum(np.rint(one.ref_n[at] / factors), one.ref_x[at])
        evidence = worse_than_reference(
            one.n[at], one.x[at], items, one.ref_x[at], rho[one.at[at]],
            ref_windows=one.ref_windows[at], confidence=rules.confidence,
        )  # fmt: skip
        if one.against == "target":
            evidence = replace(evidence, defined=evidence.defined & (evidence.upper < cells.targets[one.at[at]]))
        hits = _hits(evidence, rules)
        if net_of_labs or labs is None or not len(hits):
            break
        # Few cells come so far; only for them it is worth asking who tested what.
        at = at[hits]
        factors = labs(cells.rows[one.at[at]], one.window, one.against)
    _collect(cells.rows[one.at[at]], evidence, hits, factors, one, found)


def _references(
    cells: _Cells, window: int, rules: PassRateRules
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
    one: _Suspects,
    found: dict[int, Finding],
) -> None:
    expected = evidence.tested * (1.0 - evidence.reference)
    for at in hits.tolist():
        p = float(evidence.p_value[at])
        entry = Evidence(
            detector=one.detector,
            against=one.against,
            window_days=one.window,
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
        _add(found, int(rows[at]), p, one.number, excess, entry, one.window)


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


def _sliding(cells: _Cells, rules: PassRateRules) -> npt.NDArray[np.intp]:
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
    cells: _Cells,
    sliding: npt.NDArray[np.intp],
    correlation: Floats,
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
    weeks_n, weeks_x, rho = weekly[:, :, 1], weekly[:, :, 0], correlation[able]
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
        factor = 1.0 if labs is None else float(labs(np.array([row]), longest, "own-history")[0])
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
    kin, place = _kin(store, np.array([row], np.intp)), np.array([0], np.intp)
    held = [_load(store, kin, aims, day, days_back, (window,), rules) for day in days]
    found = [next(one for one in _references(cells, window, rules) if one[0] == against) for cells in held]
    ref_n, ref_x, ref_windows = (np.array([one[at][0] for one in found]) for at in (2, 3, 4))
    rho = np.array([_correlation(cells, place, rules)[0] for cells in held])
    daily = [np.maximum(store.daily(kin[0], day, window)[0], 0) for day in days]
    n = np.array([float(one[:, 1].sum()) for one in daily])
    x = np.array([float(one.min(axis=1).sum()) for one in daily])

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


def _add_e_values(cells: _Cells, found: dict[int, Finding]) -> None:
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
                reference=rounded(float(cells.targets[at[place]])),
                e_value=finding.e_value,
            )
        )
