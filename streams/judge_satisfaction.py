"""Judging the satisfaction index of a window against its target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from detectors.satisfaction import index_below_target
from schemas.alerts import Evidence
from streams.cells import CellStore
from streams.config import SatisfactionRules
from streams.finding import Finding, rounded

__all__ = ["judge_satisfaction"]


def judge_satisfaction(
    store: CellStore,
    rows: npt.NDArray[np.intp],
    day: int,
    targets: npt.NDArray[np.float64],
    rules: SatisfactionRules,
) -> list[Finding]:
    """Findings for the cells whose mean score lies under ``targets`` [rows] (NaN: no target)."""
    sums = np.maximum(store.daily(rows, day, rules.window_days).sum(axis=1), 0)
    score, respondents = sums[:, 0] / 100.0, sums[:, 1]
    found = index_below_target(respondents, score, targets)
    hits = found.defined & (found.p_value <= rules.alpha) & (respondents >= rules.min_respondents)
    out: list[Finding] = []
    for at in np.flatnonzero(hits).tolist():
        p, missing = float(found.p_value[at]), float(found.failed[at])
        expected = float(found.tested[at] * (1.0 - found.reference[at] / 100.0))
        entry = Evidence(
            detector="satisfaction-index",
            against="target",
            window_days=rules.window_days,
            observed=rounded(missing) or 0.0,
            expected=rounded(expected),
            tested=int(found.tested[at]),
            rate=rounded(float(found.rate[at])),
            lower=rounded(float(found.lower[at])),
            upper=rounded(float(found.upper[at])),
            reference=rounded(float(found.reference[at])),
            p_value=rounded(p),
            recurrence_days=rounded(1.0 / max(p, 1e-300)),
        )
        out.append(Finding(int(rows[at]), p, {0: missing - expected}, [entry], rules.window_days))
    return out
