"""The law of all detectors: a series' evidence has the same bits whichever others it is computed with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

Detect = Callable[[Any], Any]
"""From row numbers to evidence (or a tuple or an array) for those rows."""


def fields(evidence: Any) -> list[np.ndarray]:
    if dataclasses.is_dataclass(evidence):
        return [getattr(evidence, f.name) for f in dataclasses.fields(evidence)]
    return list(evidence) if isinstance(evidence, tuple) else [evidence]


def assert_same_bits(one: Any, other: Any) -> None:
    for a, b in zip(fields(one), fields(other), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()


def assert_rows_stand_alone(detect: Detect, n_series: int, seed: int = 0) -> None:
    """Alone, in halves, in odd batches or permuted: every row of the evidence keeps its bits."""
    rng = np.random.default_rng(seed)
    whole = fields(detect(np.arange(n_series)))
    batches = [np.array([i]) for i in range(n_series)]
    batches += np.array_split(np.arange(n_series), 2) + np.array_split(np.arange(n_series), 3)
    batches += [rng.permutation(n_series), np.arange(n_series)[::-1], np.repeat(np.arange(n_series), 3)]
    for rows in batches:
        for all_rows, part in zip(whole, fields(detect(rows)), strict=True):
            assert np.ascontiguousarray(all_rows[rows]).tobytes() == np.ascontiguousarray(part).tobytes()
