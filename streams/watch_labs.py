"""Labs that fail more, or fewer, than they did before and than their peers would in the same cells.

Each lab's groups of products are added up and judged as one (:mod:`detectors.lab_drift`).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from detectors.lab_drift import DriftEvidence, DriftParts, judge_drift
from schemas.alerts import Against, Evidence, Signal
from streams.config import LabRules
from streams.finding import rounded
from streams.tally import LabCount

__all__ = ["judge_labs"]

_WEEK: Final = 7
_PARTS: Final = (
    "tested", "failed", "own", "own_variance", "peers", "peers_variance", "both", "both_variance",
)  # fmt: skip


def judge_labs(counts: list[LabCount], rules: LabRules, about: dict[str, Any]) -> list[Signal]:
    """Signals for the labs that have drifted; ``counts`` of all groups."""
    if not counts:
        return []
    # Added up in the order of the groups, so that the number of partitions cannot show.
    ordered = sorted(counts, key=lambda one: (one.lab, one.group))
    labs = sorted({one.lab for one in ordered})
    place = {lab: at for at, lab in enumerate(labs)}
    of = np.array([place[one.lab] for one in ordered])
    sums = (np.bincount(of, [float(getattr(one, name)) for one in ordered], len(labs)) for name in _PARTS)
    parts = DriftParts(*(column.astype(np.float64) for column in sums))
    found = judge_drift(parts, np.arange(len(labs)), np.ones(len(labs), bool))
    hits = np.flatnonzero((found.p_value <= rules.alpha) & _matters(found, rules))
    return [_signal(labs[at], found, at, rules, about) for at in hits.tolist()]


def _matters(found: DriftEvidence, rules: LabRules) -> npt.NDArray[np.bool_]:
    """Whether all three comparisons say that the lab finds that many times more, or fewer, failures."""
    expected = np.stack([found.expected_own, found.expected_peers, found.expected_both])
    severe = (found.failed >= rules.ratio * expected).all(axis=0)
    lenient = (found.failed * rules.ratio <= expected).all(axis=0)
    return np.asarray((severe | lenient) & (expected >= rules.min_expected).all(axis=0))


def _signal(lab: str, found: DriftEvidence, at: int, rules: LabRules, about: dict[str, Any]) -> Signal:
    references: tuple[tuple[Against, str, float], ...] = (
        ("own-history", "indirect-standardisation", float(found.expected_own[at])),
        ("peers", "indirect-standardisation", float(found.expected_peers[at])),
        ("peers", "indirect-standardisation+usual-difference", float(found.expected_both[at])),
    )
    p, failed = float(found.p_value[at]), float(found.failed[at])
    evidence = [
        Evidence(
            detector=detector,
            against=against,
            window_days=rules.window_weeks * _WEEK,
            observed=failed,
            expected=rounded(expected),
            tested=int(found.tested[at]),
            statistic=rounded(failed / expected),
            p_value=rounded(p),
            recurrence_days=rounded(_WEEK / max(p, 1e-300)),
        )
        for against, detector, expected in references
    ]
    return Signal(
        **about,
        kind="lab-drift",
        product="*",
        region="*",
        level=4,
        p_value=p,
        excess=failed - float(found.expected_peers[at]),
        evidence=evidence,
        source=lab,
    )
