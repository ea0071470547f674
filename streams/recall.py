"""Who and what the events behind an alert name, and the recall that this proposes.

The proposal is what the evidence names, as narrowly as it does: a *lot* for each producer, GTIN and batch among the
adverse events, the worst first, with the districts in which it was found. Where events name no batch, no narrower scope
than their GTIN (or all that the producer makes of the product) is known; what names no producer is told apart, for it
must be traced first. A person decides: an event is a finding or a report, not a proof.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from streams.explain import Traced, reporter

__all__ = ["ROLES", "Lot", "Tallied", "lots", "tallied", "untraced"]

ROLES: Final = ("lab", "producer", "gtin", "batch", "product", "district")


class Tallied(msgspec.Struct):
    """One code in one role: adverse events or failed items, and the events that bring them."""

    code: str
    adverse: int
    events: int


class Lot(msgspec.Struct):
    """What may have to be recalled: of a producer, a GTIN and a batch, as far as they are known."""

    producer: str
    gtin: str | None
    batch: str | None
    product: list[str]
    districts: list[str]
    adverse: int
    events: int
    first: datetime
    last: datetime

    @property
    def scope(self) -> str:
        """How narrow it is: a batch, all of a GTIN, or all that the producer makes of the product."""
        return "batch" if self.batch is not None else "gtin" if self.gtin is not None else "producer"


def _code(one: Traced, role: str) -> str | None:
    if role == "lab":
        return reporter(one.event)
    if role == "product":
        return one.product[-1]
    if role == "district":
        return one.region[-1]
    value: str | None = getattr(one.event, role, None)
    return value


def tallied(events: Sequence[Traced], role: str) -> list[Tallied]:
    """Every code of a role, the one with the most adverse events first."""
    weight, count = Counter[str](), Counter[str]()
    for one in events:
        code = _code(one, role)
        if code is not None:
            weight[code] += one.adverse
            count[code] += 1
    return [Tallied(code, weight[code], count[code]) for code in sorted(weight, key=lambda code: (-weight[code], code))]


def lots(events: Sequence[Traced]) -> list[Lot]:
    """The proposed scope, the worst lot first."""
    groups: dict[tuple[str, str | None, str | None], list[Traced]] = {}
    for one in events:
        producer = _code(one, "producer")
        if producer is not None:
            groups.setdefault((producer, _code(one, "gtin"), _code(one, "batch")), []).append(one)
    found = [
        Lot(
            *key,
            product=sorted({one.product[-1] for one in mine}),
            districts=sorted({one.region[-1] for one in mine}),
            adverse=sum(one.adverse for one in mine),
            events=len(mine),
            first=min(one.event.reported_at for one in mine),
            last=max(one.event.reported_at for one in mine),
        )
        for key, mine in groups.items()
    ]
    return sorted(found, key=lambda lot: (-lot.adverse, lot.producer, lot.gtin or "", lot.batch or ""))


def untraced(events: Sequence[Traced]) -> int:
    """Events that name no producer."""
    return sum(_code(one, "producer") is None for one in events)
