"""The standing population of the simulated city: who inspects, makes, heals and complains, and how often.

Everything here is invented and says so: every ``source`` begins with ``sim-``. Rates are set *against the
targets of the catalogue*, so that a healthy city stays clearly within them and a few products come close.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.catalogue import Catalogue
from schemas.codes import USCC_ALPHABET, gtin_with_check, uscc_with_check

__all__ = [
    "BRANCH_LABS",
    "HOSPITALS",
    "LABS",
    "NEAR_TARGET",
    "City",
    "Floats",
    "Ints",
    "Producer",
    "build_city",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LABS: Final = tuple(f"sim-lab-{number:02d}" for number in range(1, 13))

BRANCH_LABS: Final = {
    # Each branch of products goes to a few laboratories; the numbers are places in LABS.
    "F": (0, 1, 2, 3, 4),
    "P": (0, 1, 2, 3),
    "B": (4, 5),
    "L": (5, 6, 7, 8),
    "I": (6, 7),
    "E": (7, 8, 9),
    "C": (8, 9),
    "N": (9, 10),
    "W": (10, 11),
    "A": (9, 11),
    "D": (9, 11),
}

NEAR_TARGET: Final = ("F0502", "L0303", "L0503", "C0403")
"""The products whose failure rate is close to what the target allows."""

# Residents in tens of thousands, rounded: they only set who has more of everything.
_RESIDENTS: Final = {
    "120101": 36, "120102": 86, "120103": 82, "120104": 89, "120105": 65, "120106": 48, "120110": 86,
    "120111": 120, "120112": 93, "120113": 91, "120114": 115, "120115": 72, "120116": 207, "120117": 40,
    "120118": 79, "120119": 80,
}  # fmt: skip

# How often each branch or class is inspected, hurts people, is complained about: relative; a class goes
# before its branch.
_INSPECTED: Final = {
    "F": 2.0, "F01": 2.5, "F02": 2.5, "F03": 2.5, "F09": 3.0, "P": 2.0, "B": 0.8, "L": 1.2, "L01": 2.0,
    "L03": 2.0, "L05": 1.5, "I": 0.6, "E": 0.6, "C": 0.7, "N": 0.5, "N04": 1.2, "A": 0.15, "D": 0.15,
    "W": 0.8,
}  # fmt: skip
_HURTS: Final = {
    "L": 0.6, "L03": 1.5, "L05": 5.0, "L01": 1.2, "F": 0.7, "F09": 2.5, "P": 0.3, "E": 0.4, "E04": 1.0,
    "E06": 1.2, "C": 0.3, "N": 0.2, "N01": 1.0, "B": 0.4, "I": 0.2, "W": 0.6, "T": 0.5, "T03": 1.5,
    "T07": 1.2, "A": 0.02, "D": 0.02, "S04": 0.8,
}  # fmt: skip
_COMPLAINED: Final = {
    "F": 1.0, "F09": 4.0, "P": 0.8, "L": 1.2, "L01": 2.0, "L05": 2.0, "I": 1.2, "E": 0.4, "E01": 2.0,
    "C": 0.4, "N": 0.4, "B": 0.4, "W": 0.8, "W01": 2.5, "S": 1.0, "T": 2.0, "T01": 4.0, "T02": 3.0,
    "A": 0.03, "D": 0.03,
}  # fmt: skip

HOSPITALS: Final = 20


@dataclass(frozen=True, slots=True)
class Producer:
    """A maker: its credit code, and the GTIN of what it makes where goods carry one."""

    uscc: str
    gtin: str | None


@dataclass(frozen=True, slots=True)
class City:
    """The standing facts; arrays over leaves and districts follow ``leaves`` and ``districts``."""

    leaves: tuple[str, ...]
    districts: tuple[str, ...]
    residents: Floats
    failure: Floats
    inspected: Floats
    hurts: Floats
    complained: Floats
    satisfaction: Floats
    lab_share: Floats
    strictness: Floats
    producers: tuple[tuple[Producer, ...], ...]
    hospital_district: Ints

    def leaf(self, code: str) -> int:
        """The place of a product in every array over leaves."""
        return self.leaves.index(code)

    def below(self, code: str) -> list[int]:
        """The places of all leaves below a class or branch."""
        return [place for place, leaf in enumerate(self.leaves) if leaf.startswith(code)]

    def district(self, code: str) -> int:
        """The place of a district in every array over districts."""
        return self.districts.index(code)


def build_city(catalogue: Catalogue, rng: np.random.Generator) -> City:
    """Draw the standing facts of the city for the products and districts of the Tianjin catalogue."""
    leaves, districts = catalogue.products.leaves, catalogue.regions.leaves
    residents = np.array([_RESIDENTS[code] for code in districts], dtype=float)
    residents /= residents.sum()
    return City(
        leaves=leaves,
        districts=districts,
        residents=residents,
        failure=_failure(catalogue, rng),
        inspected=_weights(leaves, _INSPECTED, rng),
        hurts=_weights(leaves, _HURTS, rng),
        complained=_weights(leaves, _COMPLAINED, rng),
        satisfaction=rng.uniform(83.0, 89.0, len(leaves)),
        lab_share=_lab_share(leaves, rng),
        strictness=np.exp(rng.normal(0.0, 0.1, len(LABS))),
        producers=tuple(_makers(code, districts, rng) for code in leaves),
        # Every district has a hospital; the most populous have a second.
        hospital_district=np.concatenate([np.arange(len(districts)), np.argsort(-residents)])[:HOSPITALS],
    )


def _failure(catalogue: Catalogue, rng: np.random.Generator) -> Floats:
    """The healthy failure rate of each leaf: a fraction of what its target allows."""
    rates = []
    for code in catalogue.products.leaves:
        target = catalogue.targets_for(code).pass_rate
        allowed = 1.0 - target if target is not None else 0.08
        rates.append(allowed * (0.65 if code in NEAR_TARGET else rng.uniform(0.15, 0.35)))
    return np.array(rates)


def _weights(leaves: tuple[str, ...], table: dict[str, float], rng: np.random.Generator) -> Floats:
    """Relative frequencies that sum to 1: by the longest prefix in the table, with some play."""
    base = np.array([table.get(code[:3], table.get(code[0], 0.0)) for code in leaves])
    weights = base * np.exp(rng.normal(0.0, 0.25, len(leaves)))
    return np.asarray(weights / weights.sum())


def _lab_share(leaves: tuple[str, ...], rng: np.random.Generator) -> Floats:
    """[leaf, lab]: the share of a leaf's samples; rows sum to 1, or to 0 where none inspects."""
    share = np.zeros((len(leaves), len(LABS)))
    by_branch = {branch: rng.dirichlet(np.full(len(labs), 8.0)) for branch, labs in BRANCH_LABS.items()}
    for place, code in enumerate(leaves):
        if code[0] in BRANCH_LABS:
            share[place, list(BRANCH_LABS[code[0]])] = by_branch[code[0]]
    return share


def _makers(code: str, districts: tuple[str, ...], rng: np.random.Generator) -> tuple[Producer, ...]:
    """Four to eight makers of one product, some in other provinces, each with a well-formed credit code."""
    makers = []
    for _ in range(int(rng.integers(4, 9))):
        region = str(rng.choice(districts)) if rng.random() < 0.7 else str(rng.choice(["110108", "131002", "370102"]))
        body = "".join(USCC_ALPHABET[digit] for digit in rng.integers(0, 31, 7))
        uscc = uscc_with_check(f"91{region}MA{body}")
        barcoded = code[0] in "FLIBE" or code[:3] in ("C03", "N01", "N04")
        gtin = gtin_with_check("69" + "".join(map(str, rng.integers(0, 10, 10)))) if barcoded else None
        makers.append(Producer(uscc, gtin))
    return tuple(makers)
