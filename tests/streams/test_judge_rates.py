"""Pass rates under settings at the edge of what the configuration allows."""

from __future__ import annotations

import numpy as np
import pytest
from builders import START, settings_with

from streams.cells import CellStore
from streams.config import Config
from streams.judge_rates import judge_rates

DAY = START // 86_400_000


@pytest.mark.parametrize("history", [1, 6, 7, 30])
@pytest.mark.parametrize("windows", [(7,), (7, 30), (90,)])
@pytest.mark.parametrize("later", [0, 6, 45, 90])
def test_a_short_history_is_judged_like_any_other(history: int, windows: tuple[int, ...], later: int) -> None:
    config: Config = settings_with(pass_rate={"windows_days": windows, "history_days": history})
    store, day = CellStore(2), DAY + 200 + later  # somewhere in the running epoch of thirteen weeks
    row = store.rows_for(["F", "F01"], ["120000"])[-1]
    days = np.arange(day - 199, day + 1, dtype=np.int32)
    failed = np.full(200, 6)
    store.fold(np.full(200, row), days, np.stack([failed, np.full(200, 20)], axis=1))
    (found,) = judge_rates(store, np.array([row]), day, np.array([0.98]), config.pass_rate)
    assert {one.against for one in found.evidence} >= {"target"}
    assert found.e_value is not None
    assert found.e_value > 1
