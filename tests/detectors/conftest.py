"""Reference figures (R surveillance 1.20.3, exact Markov chains), as facts: columns by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

FIXTURES = Path(__file__).parent / "fixtures"
Table = npt.NDArray[np.void]


@pytest.fixture(scope="session")
def table() -> Callable[[str], Table]:
    def load(name: str) -> Table:
        return np.genfromtxt(FIXTURES / f"{name}.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")

    return load


@pytest.fixture(scope="session")
def agona(table: Callable[[str], Table]) -> npt.NDArray[np.float64]:
    """Weekly cases of Salmonella Agona, 1990-1995, ``[1, 312]``."""
    return table("agona")["observed"].astype(np.float64)[None, :]
