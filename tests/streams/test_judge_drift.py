"""Slow change: quality-loss rates that rise and satisfaction that falls are found, steady ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from streams.cells import CellStore
from streams.config import DriftRules
from streams.judge_drift import PERIOD_DAYS, judge_index_drift, judge_losses

RULES = DriftRules()
START = 19_000 - (19_000 + 3) % PERIOD_DAYS
MILLION = 1_000_000


def filled(values: np.ndarray, every: int = 1) -> tuple[CellStore, np.ndarray, int]:
    """A store with one cell a row of ``values`` [cells, periods, 2]; each period's sums stand on its tenth day."""
    store = CellStore(2)
    cells, periods, _ = values.shape
    rows = np.array([store.rows_for((f"p{n}",), ("r",))[0] for n in range(cells)], np.intp)
    for period in range(0, periods, every):
        day = np.full(cells, START + period * PERIOD_DAYS + 10, np.int32)
        store.fold(rows, day, values[:, period].astype(np.int64))
    return store, rows, START + (periods - 1) * PERIOD_DAYS + 20


def losses(cells: int, periods: int, seed: int, factor: float = 1.0, since: int = 10_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rate = 0.01 * np.exp(rng.normal(0.0, 0.2, (cells, periods)))
    rate[:, since:] *= factor
    output = rng.integers(80, 120, (cells, periods)) * MILLION
    return np.stack([np.rint(rate * output), output], axis=2)


def surveys(cells: int, periods: int, seed: int, drop: float = 0.0, since: int = 10_000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    respondents = rng.integers(150, 250, (cells, periods))
    index = rng.normal(85.0, 1.0, (cells, periods))
    index[:, since:] -= drop
    return np.stack([np.rint(index * 100) * respondents, respondents], axis=2)


def test_steady_loss_rates_and_indices_ring_nothing() -> None:
    store, rows, day = filled(losses(300, 40, 1))
    assert judge_losses(store, rows, day, RULES) == []
    store, rows, day = filled(surveys(300, 40, 2))
    assert judge_index_drift(store, rows, day, RULES) == []


@pytest.mark.parametrize(("every", "factor", "needed", "least"), [(1, 2.0, 10, 30), (3, 4.0, 24, 30)])
def test_a_loss_rate_that_rises_for_good_is_found_monthly_and_quarterly(
    every: int, factor: float, needed: int, least: int
) -> None:
    store, rows, day = filled(losses(40, 40 + needed, 3, factor=factor, since=40), every)
    found = judge_losses(store, rows, day, RULES)
    assert len(found) >= least
    evidence = found[0].evidence[0]
    assert evidence.statistic is not None
    assert evidence.threshold is not None
    assert evidence.statistic > evidence.threshold
    assert evidence.rate is not None
    assert evidence.reference is not None
    assert evidence.rate > 1.25 * evidence.reference
    assert found[0].excess[0] > 0


def test_a_loss_rate_that_falls_rings_nothing() -> None:
    store, rows, day = filled(losses(40, 50, 4, factor=0.3, since=40))
    assert judge_losses(store, rows, day, RULES) == []


def test_an_index_that_falls_five_points_is_found_and_one_that_rises_is_not() -> None:
    store, rows, day = filled(surveys(40, 52, 5, drop=5.0, since=40))
    found = judge_index_drift(store, rows, day, RULES)
    assert len(found) >= 36
    assert found[0].evidence[0].rate == pytest.approx(80.0, abs=4.0)
    store, rows, day = filled(surveys(40, 52, 6, drop=-5.0, since=40))
    assert judge_index_drift(store, rows, day, RULES) == []


def test_a_cell_is_judged_alike_alone_and_among_others() -> None:
    store, rows, day = filled(losses(20, 50, 7, factor=2.5, since=38))
    together = {one.row: one for one in judge_losses(store, rows, day, RULES)}
    assert together
    for row in rows:
        alone = judge_losses(store, np.array([row]), day, RULES)
        assert alone == ([together[int(row)]] if int(row) in together else [])


def test_what_has_not_been_told_for_long_is_forgotten() -> None:
    store, rows, day = filled(losses(10, 60, 8, factor=3.0, since=40))
    assert judge_losses(store, rows, day, RULES)
    assert judge_losses(store, rows, day + 5 * PERIOD_DAYS, RULES) == []


@pytest.mark.parametrize("values", [np.zeros((3, 30, 2)), np.full((3, 30, 2), [0, MILLION]), np.full((3, 30, 2), 7)])
def test_nothing_without_variation_is_an_error(values: np.ndarray) -> None:
    store, rows, day = filled(values)
    assert judge_losses(store, rows, day, RULES) == []
    assert judge_index_drift(store, rows, day, RULES) == []
    assert judge_losses(store, rows[:0], day, RULES) == []
