"""What is known of some cells on a day, before they are judged: sums, and how far failures come in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from detectors.passrate import dispersion
from streams.cells import CellStore
from streams.config import PassRateRules
from streams.judge_sums import (
    CACHED,
    kept_peer_sums_back,
    kept_sums_back,
    peer_sums_back,
    pieces,
    sums_back,
    weeks_back,
)
from streams.lab_mix import PEER_DAYS

__all__ = ["RateCells", "correlation", "kin_of", "load"]

_WEEK: Final = 7
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(slots=True)
class RateCells:
    """What is known of some cells on a day: sums over the last so many days, all arrays [cells] in order of ``rows``.

    Parameters
    ----------
    own, peers
        (failed, tested) by the number of days, of the cells and of the same products elsewhere in the next wider
        region.
    days
        How far back is looked at all.
    keep
        Whether the store is to keep what lies some days back: who judges tick after tick asks for it again.
    """

    store: CellStore
    rows: npt.NDArray[np.intp]
    widest: npt.NDArray[np.intp]
    targets: Floats
    day: int
    days: int
    own: dict[int, tuple[Ints, Ints]]
    peers: dict[int, tuple[Ints, Ints]]
    keep: bool

    def between(self, after: int, until: int) -> tuple[Floats, Floats]:
        """Tested and failed of the days more than ``after`` and up to ``until`` days back."""
        (failed, tested), (less_failed, less_tested) = self.own[until], self.own[after]
        return (tested - less_tested).astype(np.float64), (failed - less_failed).astype(np.float64)


def kin_of(store: CellStore, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """[3, rows]: the cells themselves, the same products in the next wider region (-1: none), and in all regions."""
    widest, wider = rows, store.wider(rows)
    up = wider
    while (up >= 0).any():
        widest = np.where(up >= 0, up, widest)
        up = store.wider(widest)
    return np.stack([rows, wider, widest])


def load(
    store: CellStore,
    kin: npt.NDArray[np.intp],
    targets: Floats,
    day: int,
    days: int,
    windows: Sequence[int],
    rules: PassRateRules,
    *,
    keep: bool = False,
) -> RateCells:
    rows, wider, widest = kin
    longest = max(rules.windows_days)
    ends = {days, longest, *windows, *(window + rules.history_days for window in windows)}
    ends |= {longest // _WEEK * _WEEK}
    own = (kept_sums_back if keep else sums_back)(store, rows, day, sorted(ends - {0}))
    own[0] = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    peer_ends = sorted({max(window, PEER_DAYS) for window in windows})
    peers = (kept_peer_sums_back if keep else peer_sums_back)(store, rows, wider, day, peer_ends)
    return RateCells(store, rows, widest, targets, day, days, own, peers, keep)


def correlation(cells: RateCells, at: npt.NDArray[np.intp], rules: PassRateRules) -> Floats:
    """Correlation before the windows judged: that of the product in all regions (the widest row above the cell), where
    batches of one region are thinned out, or that of the cell itself, whichever is the larger."""
    widest, place = np.unique(cells.widest[at], return_inverse=True)
    longest = max(rules.windows_days)
    pool, own = (
        _dispersion(cells, rows, cells.day - longest, cells.days - longest, rules.correlation)
        for rows in (widest, cells.rows[at])
    )
    return np.maximum(pool[place], own)


def _dispersion(cells: RateCells, rows: npt.NDArray[np.intp], last_day: int, days: int, pool: float) -> Floats:
    def anew(at: npt.NDArray[np.intp]) -> Floats:
        out = np.empty(len(at))
        for part in pieces(len(at), CACHED):
            weekly = weeks_back(cells.store, rows[at[part]], last_day, days // _WEEK)
            out[part] = dispersion(weekly[:, :, 1], weekly[:, :, 0], pool=pool)
        return out

    if not cells.keep:
        return anew(np.arange(len(rows)))
    return cells.store.kept.table(("dispersion", days, pool), last_day, (), np.float64).of(rows, anew)
