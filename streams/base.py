"""The base of a state: what has been folded, stored as it is, so that old segments can be let go.

A segment holds events, and a state could always be folded from all of them anew. But events are remembered for a time
only, and their counts much longer. So from time to time a checkpoint writes a base beside its segments: every number
and name that restoring by folding would have given again, and all counts. Then the segments whose events are forgotten
are deleted. A restore takes up the base, gives the events of the remaining segments to the ledger, and folds what is
younger than the base. The outcome is the same, to the last bit: numbers too come back as they were.

A base is a list of pieces, each small enough for a message; their order matters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from streams.cells import BlockPiece
from streams.columns import INDICATORS
from streams.state import AssessState

__all__ = ["base_pieces", "take_up_base"]

_MANY: Final = 10_000
_Item = TypeVar("_Item")


class _Leaves(msgspec.Struct, array_like=True, tag="leaves"):
    leaves: list[tuple[int, tuple[str, ...], tuple[str, ...]]]


class _Held(msgspec.Struct, array_like=True, tag="held"):
    """Names in the order of their numbers."""

    what: str
    names: list[str]


class _Known(msgspec.Struct, array_like=True, tag="known"):
    what: str
    shard: int
    numbers: list[int]


class _FirstDays(msgspec.Struct, array_like=True, tag="first-days"):
    indicator: str
    days: dict[str, int]


class _LabRows(msgspec.Struct, array_like=True, tag="lab-rows"):
    leaves: list[int]
    labs: list[int]


class _LabWeeks(msgspec.Struct, array_like=True, tag="lab-weeks"):
    newest: dict[str, int]


class _Counts(msgspec.Struct, array_like=True, tag="counts"):
    """Counts of an indicator, or of the labs where it is None."""

    indicator: str | None
    piece: BlockPiece


_Piece = _Leaves | _Held | _Known | _FirstDays | _LabRows | _LabWeeks | _Counts
_DECODER = msgspec.msgpack.Decoder(_Piece)


def base_pieces(state: AssessState) -> Iterator[bytes]:
    """The base of a state, piece by piece."""
    return map(msgspec.msgpack.encode, _pieces(state))


def _pieces(state: AssessState) -> Iterator[_Piece]:
    for leaves in _batches((leaf.indicator, *leaf.paths) for leaf in state.leaves):
        yield _Leaves(leaves)
    for what, names in sorted(state.names.items()):
        for held in _batches(names.held):
            yield _Held(what, held)
        for shard, numbers in names.known():
            yield _Known(what, shard, numbers)
    for indicator in INDICATORS:
        store = state.stores[indicator]
        yield _FirstDays(indicator, store.first_days)
        for piece in store.pieces():
            yield _Counts(indicator, piece)
    leaf, lab, newest, pieces = state.labs.stored()
    for start in range(0, len(leaf), _MANY):
        yield _LabRows(leaf[start : start + _MANY].tolist(), lab[start : start + _MANY].tolist())
    yield _LabWeeks(newest)
    for piece in pieces:
        yield _Counts(None, piece)


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _MANY)):
        yield batch


def take_up_base(state: AssessState, pieces: Iterable[bytes]) -> None:
    """Take up a stored base into an empty state; who calls says what a damaged one means (:mod:`streams.stored`)."""
    for data in pieces:
        _take_up(state, _DECODER.decode(data))


def _take_up(state: AssessState, piece: Any) -> None:
    match piece:
        case _Leaves(leaves):
            for indicator, path, where in leaves:
                state.take_up_leaf(indicator, path, where)
        case _Held(what, names):
            state.names[what].take_up_held(names)
        case _Known(what, shard, numbers):
            state.names[what].take_up_known(shard, numbers)
        case _FirstDays(indicator, days):
            for branch, day in days.items():
                state.stores[indicator].note_day(branch, day)
        case _LabRows(leaves, labs):
            state.labs.take_up_rows([state.leaves[leaf].group for leaf in leaves], leaves, labs)
        case _LabWeeks(newest):
            state.labs.take_up_newest(newest)
        case _Counts(indicator, counts):
            (state.labs if indicator is None else state.stores[indicator]).take_up(counts)
