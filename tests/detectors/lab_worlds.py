"""Simulated laboratories, and plain readings of what the fit of lab effects should be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

Array = np.ndarray


@dataclass
class World:
    """Rows of tests: several windows of each lab in each of its cells, many independent branches."""

    branch: Array
    lab: Array
    stratum: Array
    tested: Array
    failed: Array
    lab_effect: Array  # [branches, labs], true
    rho: float


def world(
    seed: int,
    *,
    branches: int = 30,
    labs: int = 8,
    strata: int = 50,
    labs_a_cell: int = 2,
    windows: int = 4,
    items: tuple[int, int] = (5, 80),
    lab_sd: float = 0.5,
    stratum_sd: float = 0.3,
    rho: float = 0.0,
    planted: tuple[int, float] | None = None,
) -> World:
    """Draw one; `planted` is a stratum and the ratio by which its odds are raised in every branch."""
    rng = np.random.default_rng(seed)
    b, a = rng.normal(0, lab_sd, (branches, labs)), rng.normal(0, stratum_sd, (branches, strata))
    who = rng.permuted(np.broadcast_to(np.arange(labs), (branches, strata, labs)), axis=2)[:, :, :labs_a_cell]
    branch, stratum, _, _ = np.indices((*who.shape, windows))
    lab = np.broadcast_to(who[..., None], branch.shape)
    log_odds = -2.5 + b[branch, lab] + a[branch, stratum]
    if planted is not None:
        log_odds = log_odds + np.where(stratum == planted[0], np.log(planted[1]), 0.0)
    tested, rate = rng.integers(*items, branch.shape), expit(log_odds)
    if rho:
        m = 1 / rho - 1
        rate = rng.beta(rate * m, (1 - rate) * m)
    failed = rng.binomial(tested, rate)
    return World(*(v.ravel() for v in (branch, lab, stratum, tested, failed)), b, rho)
