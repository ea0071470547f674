"""Which evidence may open an alert when thousands of streams are watched at once.

Each kind of stream that there is gets an equal share of the false alarms that are allowed in a month. A signal opens an
alert only if all streams of its kind together would show a p-value so small no more often than that (``budget``), or if
it stands out in its tick at a stated false discovery rate (``BH``, ``BY``, ``e-BH``; see
:mod:`detectors.multiplicity`). How many streams there are the assess partitions tell every day. What may not open an
alert stays in ``signals``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from detectors.multiplicity import DAYS_PER_MONTH, e_bh, overlapping_tests, p_to_e, reject, threshold_for_rate
from schemas.alerts import AlertKind, Signal
from streams.config import Config
from streams.judge_drift import PERIOD_DAYS

__all__ = ["CONTROLLED", "Control"]

CONTROLLED: Final[dict[AlertKind, str]] = {
    "pass-rate": "pass",
    "injury-surge": "injury",
    "complaint-surge": "complaint",
    "satisfaction": "satisfaction",
    "quality-loss": "loss",
}
"""The kinds whose streams are cells, and the indicator of the cells."""
_WEEK = 7.0
_REFERENCES = 3
"""A pass rate is held against its target, its past and its peers."""


class Control:
    """Decides, tick by tick, which signals may open an alert.

    Parameters
    ----------
    config
        The allowed rate and the rule.
    cells
        Tells how many cells of an indicator are watched.
    """

    def __init__(self, config: Config, cells: Callable[[str], int]) -> None:
        self._rules = config.multiplicity
        self._cells = cells
        self._tests = _tests_per_month(config)

    def admitted(self, signals: Sequence[Signal]) -> set[int]:
        """Places of the signals (all of one tick) that may open an alert."""
        admitted = {at for at, signal in enumerate(signals) if signal.kind not in CONTROLLED}
        for kind, indicator in CONTROLLED.items():
            mine = [at for at, signal in enumerate(signals) if signal.kind == kind]
            if mine:
                streams = max(self._cells(indicator), len(mine))
                hits = self._stand_out(kind, [signals[at] for at in mine], streams)
                admitted |= {at for at, hit in zip(mine, hits, strict=True) if hit}
        return admitted

    def _stand_out(self, kind: AlertKind, signals: list[Signal], streams: int) -> list[bool]:
        method, p = self._rules.method, np.array([signal.p_value for signal in signals])
        if method == "budget":
            kinds = sum(self._cells(indicator) > 0 for indicator in CONTROLLED.values())
            share = self._rules.false_alarms_per_month / max(kinds, 1)
            hits = p <= threshold_for_rate(share, self._tests[kind], streams=streams)
        elif method == "e-BH":
            # Genuine e-values where there are any; a p-value turned into one pays for it.
            held = np.array([np.nan if signal.e_value is None else signal.e_value for signal in signals])
            hits = e_bh(np.where(np.isnan(held), p_to_e(p), held), self._rules.fdr, tests=streams).rejected
        else:
            hits = reject(p, method, self._rules.fdr, tests=streams).rejected
        return [bool(hit) for hit in hits]


def _tests_per_month(config: Config) -> dict[AlertKind, float]:
    """How often in a month each kind of stream is tested, as far as it counts.

    Counts are of calendar weeks: the running week's count only grows, so that a week is one test however short the
    tick. Windows that roll are tested as often as :func:`detectors.multiplicity.overlapping_tests` says.
    """
    tick_days, rates = config.tick_seconds / 86_400.0, config.pass_rate
    weekly = DAYS_PER_MONTH / _WEEK
    windows = sum(overlapping_tests(tick_days, float(days), float(rates.min_failed)) for days in rates.windows_days)
    return {
        "pass-rate": _REFERENCES * windows,
        "injury-surge": weekly,
        "complaint-surge": weekly,
        "satisfaction": min(1.0 / tick_days, 1.0) * DAYS_PER_MONTH,
        "quality-loss": DAYS_PER_MONTH / PERIOD_DAYS,
    }
