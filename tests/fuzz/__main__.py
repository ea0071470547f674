"""Feed mutated input to what reads from outside, and count what becomes of it.

    python -m tests.fuzz --records 1000000 --seed 1
    python -m tests.fuzz --target config --records 20000

The same seed gives the same inputs. An escape (an exception that is none of ours, an accepted record that its schema
does not allow, a dead letter without reason) ends its target, is printed with its input, and makes the status 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from .targets import TARGETS, Escape

PIECE = 10_000
SHARES = {"intake": 0.9, "codes": 0.05, "importers": 0.03, "config": 0.01, "wire": 0.01}
"""How a number of records is spread where no target is named."""


@dataclass
class Outcome:
    """What became of one target's inputs."""

    target: str
    verdicts: Counter[str] = field(default_factory=Counter)
    escapes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run(target: str, records: int, seed: int) -> Outcome:
    """Fuzz one target, in pieces with a generator each: an escape can be found again by its seed and piece."""
    outcome, made = Outcome(target), TARGETS[target]()
    began = time.perf_counter()
    for piece in range((records + PIECE - 1) // PIECE):
        rng = random.Random(f"{seed}/{target}/{piece}")
        try:
            for verdict, count in made.run(rng, min(PIECE, records - piece * PIECE)):
                outcome.verdicts[verdict] += count
        except Escape as error:
            outcome.escapes.append(f"seed {seed}, target {target}, piece {piece}: {error}")
            if len(outcome.escapes) >= 5:
                break
    outcome.seconds = time.perf_counter() - began
    return outcome


def show(outcomes: list[Outcome], console: Console) -> None:
    table = Table("target", "inputs", "accepted", "refused", "escaped", "a second", title="Mutated input")
    for outcome in outcomes:
        total = outcome.verdicts.total()
        numbers = (total, outcome.verdicts["accepted"], total - outcome.verdicts["accepted"], len(outcome.escapes))
        rate = f"{total / outcome.seconds:,.0f}" if outcome.seconds else "-"
        table.add_row(outcome.target, *(f"{number:,}" for number in numbers), rate)
    console.print(table)
    reasons = Table("target", "refused for", "inputs")
    for outcome in outcomes:
        for reason, count in outcome.verdicts.most_common():
            if reason != "accepted":
                reasons.add_row(outcome.target, reason, f"{count:,}")
    console.print(reasons)
    for line in (line for outcome in outcomes for line in outcome.escapes):
        console.print(f"ESCAPED {line}", markup=False, style="bold red")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=100_000, help="inputs in all (default 100000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=sorted(TARGETS), help="only this one")
    given = parser.parse_args(arguments)
    shares = {given.target: 1.0} if given.target else SHARES
    outcomes = [run(target, max(1, int(given.records * share)), given.seed) for target, share in shares.items()]
    show(outcomes, Console())
    return int(any(outcome.escapes for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
