"""The joint mode of the effects of labs and strata at given variances, by Newton's method in all effects at once.

The strata are eliminated exactly. What is left of a step's equations, in mu and the labs, is solved by preconditioned
conjugate gradients (Hestenes and Stiefel 1952, *Journal of Research of the NBS* 49, 409-436): labs are coupled little,
so that a few of their steps suffice. Every branch has its own lengths of step and all take as many steps, so a branch's
results do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from scipy import special

from detectors.evidence import BoolArray, FloatArray, IntArray
from detectors.lab_pairs import LabPairs
from detectors.lab_rows import group_sum

__all__ = ["LARGEST_MOVE", "Effects", "Terms", "climb", "log_odds_at", "residuals"]

LARGEST_MOVE = 1.0
"""Of an effect in a step, on the log-odds: far from the mode a whole step may lead further away."""
MOST_STEPS = 40
"""Ordinary labs take one to eight, a lab that fails all that it tests up to eighteen."""
FEW = 4
"""When only every so-manieth branch has still to move, it is worth while to pick those out."""
SOLVER_STEPS = 6
"""Conjugate gradients in a Newton step: what they leave of it the next step takes up."""
_NOTHING = 1e-200
"""A squared length under this is none: the equations are solved."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Weighted residuals and information of the pairs at some effects, ``[pairs]``, and their sums by lab and by
    stratum."""

    pair: FloatArray
    pair_info: FloatArray
    lab: FloatArray
    lab_info: FloatArray
    stratum: FloatArray
    stratum_info: FloatArray

    @classmethod
    def of(cls, pairs: LabPairs, log_odds: FloatArray) -> Terms:
        """Those at the log-odds of the pairs, which it may overwrite."""
        pair, info = residuals(pairs.weighted_tested, pairs.weighted_failed, log_odds)
        return cls(
            pair=pair,
            pair_info=info,
            lab=pairs.lab_sum(pair),
            lab_info=pairs.lab_sum(info),
            stratum=pairs.stratum_sum(pair),
            stratum_info=pairs.stratum_sum(info),
        )


@dataclass(frozen=True, slots=True)
class Effects:
    """mu ``[branches]``, a ``[strata]`` and b ``[labs]``, and the terms of the pairs there."""

    mu: FloatArray
    a: FloatArray
    b: FloatArray
    terms: Terms

    @classmethod
    def at(cls, pairs: LabPairs, mu: FloatArray, a: FloatArray, b: FloatArray) -> Effects:
        return cls(mu, a, b, Terms.of(pairs, log_odds_at(pairs, mu, a, b)))

    def _parts(self, pairs: LabPairs, branches: BoolArray) -> Iterator[tuple[FloatArray, BoolArray]]:
        """Every array, and which of it belongs to some branches."""
        labs, strata = branches[pairs.lab_branch], branches[pairs.stratum_branch]
        of_pairs, terms = labs[pairs.pair_lab], self.terms
        yield from ((self.mu, branches), (self.a, strata), (self.b, labs))
        yield from ((terms.pair, of_pairs), (terms.pair_info, of_pairs), (terms.lab, labs), (terms.lab_info, labs))
        yield from ((terms.stratum, strata), (terms.stratum_info, strata))

    def of(self, pairs: LabPairs, branches: BoolArray) -> Effects:
        """Those of some branches."""
        mu, a, b, *terms = (values[some] for values, some in self._parts(pairs, branches))
        return Effects(mu, a, b, Terms(*terms))

    def put(self, pairs: LabPairs, branches: BoolArray, others: Effects) -> None:
        """Let others be those of some branches."""
        found = (others.mu, others.a, others.b, *(getattr(others.terms, one.name) for one in fields(Terms)))
        for (values, some), other in zip(self._parts(pairs, branches), found, strict=True):
            values[some] = other


def residuals(tested: FloatArray, failed: FloatArray, log_odds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What failed beyond its expectation, and the information, n p (1 - p), at some log-odds, which are overwritten."""
    p = special.expit(log_odds, out=log_odds)
    info = tested * p
    residual = failed - info
    info *= np.subtract(1.0, p, out=p)
    return residual, info


def log_odds_at(pairs: LabPairs, mu: FloatArray, a: FloatArray, b: FloatArray) -> FloatArray:
    """Of every pair, ``[pairs]``, the caller's own."""
    found = pairs.at_strata(mu[pairs.stratum_branch] + a)
    found += pairs.at_labs(b)
    return found


def climb(
    pairs: LabPairs,
    at: Effects,
    tau2: FloatArray,
    omega2: FloatArray,
    floor: FloatArray,
    *,
    tolerance: float,
    steps: int = MOST_STEPS,
) -> Effects:
    """The mode, by Newton steps from some effects, in every branch until none of its effects moves further.

    Parameters
    ----------
    tau2, omega2
        Variances between labs and between strata, ``[branches]``; where one is 0, so are the effects.
    floor
        mu is not let under this, nor over what is opposite, ``[branches]``.
    tolerance
        The largest last move, on the log-odds. What is left is about its square.
    steps
        Of a branch at most.
    """
    moving = np.ones(pairs.branches, np.bool_)
    while steps:
        steps -= 1
        mu, a, b = _moved(pairs, at, tau2, omega2, floor)
        # A branch that has arrived stays: its bits would else depend on how far others have to go.
        mu = np.where(moving, mu, at.mu)
        a = np.where(moving[pairs.stratum_branch], a, at.a)
        b = np.where(moving[pairs.lab_branch], b, at.b)
        moving = np.abs(mu - at.mu) > tolerance
        moving[pairs.stratum_branch[np.abs(a - at.a) > tolerance]] = True
        moving[pairs.lab_branch[np.abs(b - at.b) > tolerance]] = True
        at = Effects.at(pairs, mu, a, b)
        if FEW * np.count_nonzero(moving) <= pairs.branches:
            break
    if moving.any() and steps:  # they go on without the others
        few, its = pairs.of_branches(moving), (one[moving] for one in (tau2, omega2, floor))
        at.put(pairs, moving, climb(few, at.of(pairs, moving), *its, tolerance=tolerance, steps=steps))
    return at


def _moved(
    pairs: LabPairs, at: Effects, tau2: FloatArray, omega2: FloatArray, floor: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """mu, a and b after a step."""
    for_mu, for_a, for_b = (
        np.clip(move, -LARGEST_MOVE, LARGEST_MOVE) for move in _newton(pairs, at, tau2, omega2, floor)
    )
    mu, a, b = np.clip(at.mu + for_mu, floor, -floor), at.a + for_a, at.b + for_b
    b = np.where(tau2[pairs.lab_branch] > 0, b, 0.0)
    # Of all that are as likely by the tests the mode has means of 0.
    mu, a = _centre(mu, a, pairs.stratum_branch, pairs.stratum_active, pairs.strata_at_work, floor)
    mu, b = _centre(mu, b, pairs.lab_branch, pairs.lab_active, pairs.labs_at_work, floor)
    return mu, a, b


def _centre(
    mu: FloatArray, effect: FloatArray, branch: IntArray, active: FloatArray, at_work: FloatArray, floor: FloatArray
) -> tuple[FloatArray, FloatArray]:
    mean = group_sum(branch, effect * active, mu.size) / np.maximum(at_work, 1.0)
    moved = np.clip(mu + mean, floor, -floor)
    return moved, effect - active * (moved - mu)[branch]


def _newton(
    pairs: LabPairs, at: Effects, tau2: FloatArray, omega2: FloatArray, floor: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The whole step of mu, of the strata and of the labs."""
    left = _Left(pairs, at, tau2, omega2, floor)
    moves = left.solved(SOLVER_STEPS)
    labs, mu = left.by_lab(moves), moves[left.labs :]
    return mu, left.strata_alone - left.answer_of_strata(labs, mu), labs


class _Left:
    """A step's equations in the labs and mu, those of the strata eliminated; a vector has a place for each lab and then
    one for each branch, the labs' in units of tau: so they are well scaled, and labs that do not differ stay where
    they are.
    """

    def __init__(self, pairs: LabPairs, at: Effects, tau2: FloatArray, omega2: FloatArray, floor: FloatArray) -> None:
        terms, omega = at.terms, omega2[pairs.stratum_branch]
        self._pairs, self._terms = pairs, terms
        self.labs = pairs.lab_branch.size
        self._branch = np.concatenate([pairs.lab_branch, np.arange(pairs.branches)])
        self._tau = np.sqrt(tau2)[pairs.lab_branch]
        self._to_labs, self._to_strata = pairs.couplings(terms.pair_info)
        shrunk = omega * terms.stratum_info + 1.0
        self._give = omega / shrunk
        """By how much a stratum's effect gives way to a residual, ``[strata]``."""
        self.strata_alone = (omega * terms.stratum - at.a) / shrunk
        """The strata's own steps, were labs and mu to stay, ``[strata]``."""
        residual = pairs.branch_sum(terms.lab)
        # Where nothing fails mu would fall for ever: it stays at the floor, and the others do not count on it.
        self._may_move = ((at.mu > floor) | (residual > 0)) & ((at.mu < -floor) | (residual < 0))
        in_tau = np.divide(at.b, self._tau, out=np.zeros(self.labs), where=self._tau > 0)
        for_labs = self._tau * (terms.lab - self._to_labs @ self.strata_alone) - in_tau
        for_mu = residual - self._by_branch(terms.stratum_info * self.strata_alone)
        self._wanted = np.concatenate([for_labs, np.where(self._may_move, for_mu, 0.0)])
        own = self._by_branch(terms.stratum_info / shrunk)
        self._diagonal = np.concatenate([1.0 + self._tau**2 * terms.lab_info, np.where(own > 0, own, 1.0)])
        """About that of the equations: the labs' without what the strata take of it."""

    def _by_branch(self, values: FloatArray) -> FloatArray:
        return group_sum(self._pairs.stratum_branch, values, self._pairs.branches)

    def by_lab(self, vector: FloatArray) -> FloatArray:
        """The labs' moves on the log-odds, ``[labs]``."""
        return np.asarray(self._tau * vector[: self.labs])

    def answer_of_strata(self, labs: FloatArray, mu: FloatArray) -> FloatArray:
        """How far the strata move back when labs and mu move, ``[strata]``."""
        load = self._to_strata @ labs
        load += self._terms.stratum_info * mu[self._pairs.stratum_branch]
        load *= self._give
        return np.asarray(load)

    def _times(self, vector: FloatArray) -> FloatArray:
        """The equations' matrix times a vector."""
        labs, mu = self.by_lab(vector), vector[self.labs :]
        back = self.answer_of_strata(labs, mu)
        load = self._terms.lab_info * (labs + mu[self._pairs.lab_branch])
        for_mu = self._pairs.branch_sum(load) - self._by_branch(self._terms.stratum_info * back)
        for_labs = vector[: self.labs] + self._tau * (load - self._to_labs @ back)
        return np.concatenate([for_labs, np.where(self._may_move, for_mu, 0.0)])

    def solved(self, steps: int) -> FloatArray:
        """The moves, by so many conjugate gradients."""
        found, rest = np.zeros(self._wanted.size), self._wanted
        scaled = rest / self._diagonal
        way, length = scaled, self._inner(rest, scaled)
        for _ in range(steps):
            there = self._times(way)
            far = _ratio(length, self._inner(way, there))[self._branch]
            found = found + far * way
            rest = rest - far * there
            scaled = rest / self._diagonal
            length, before = self._inner(rest, scaled), length
            way = scaled + _ratio(length, before)[self._branch] * way
        return found

    def _inner(self, one: FloatArray, other: FloatArray) -> FloatArray:
        """The inner product in every branch, ``[branches]``."""
        return group_sum(self._branch, one * other, self._pairs.branches)


def _ratio(over: FloatArray, under: FloatArray) -> FloatArray:
    return np.divide(over, under, out=np.zeros(over.size), where=under > _NOTHING)
