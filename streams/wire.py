"""What travels on the internal topics of the Kafka runtime.

``keyed-events`` carries :class:`Keyed` (msgpack): columns of one raw partition's events for one keyed partition, and
watermarks. ``signals`` carries JSON that analysts can read, told apart by a header: evidence, the marker that a
partition has closed its ticks, tallies of its days, and dispositions on their way to escalate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from schemas.alerts import Disposition, Signal
from streams.tally import Tally

__all__ = ["KEYED_VERSION", "ClosedMarker", "Keyed", "Routed", "Told", "header", "kind_of", "signal_key"]

KEYED_VERSION: Final = 1
TYPE_HEADER: Final = "tocsin-type"
MessageType = Literal["signal", "tally", "grave", "closed", "disposition"]


class Keyed(msgspec.Struct, array_like=True):
    """One record of ``keyed-events``: watermarks (topic, partition, mark, last arrival), then columns if any.

    The watermarks hold *after* the columns: whoever has folded the columns may believe them.
    """

    version: int
    marks: list[tuple[str, int, int, int]]
    origin: tuple[str, int] | None = None
    columns: bytes = b""


class ClosedMarker(msgspec.Struct):
    """One assess partition has closed every tick through ``through``; its signals stand before this record."""

    partition: int
    through: int


class Told(msgspec.Struct):
    """A partition's tally, and the tick at whose close it was made."""

    tick: int
    tally: Tally


class Routed(msgspec.Struct):
    """A disposition with the arrival (epoch ms) that decides its tick."""

    arrival: int
    disposition: Disposition


def header(kind: MessageType, partition: int = -1) -> list[tuple[str, bytes]]:
    """Headers of a record on ``signals``."""
    return [(TYPE_HEADER, kind.encode()), ("tocsin-partition", str(partition).encode())]


def kind_of(headers: Sequence[tuple[str, bytes | None]]) -> tuple[str, int]:
    """Type and assess partition of a record on ``signals``; both default for records that are not ours."""
    held = dict(headers)
    number = held.get("tocsin-partition") or b""
    partition = int(number) if number.isdigit() and len(number) <= 9 else -1
    return (held.get(TYPE_HEADER) or b"").decode("ascii", "replace"), partition


def signal_key(signal: Signal) -> bytes:
    """Key of a signal's record: its cell, or the alert of a grave event."""
    return (signal.alert_id or f"{signal.kind}|{signal.product}|{signal.region}").encode()
