"""The counts behind alerts, from the state that the workers store: excerpts for the cells that are asked for.

The state is read as a worker reads it when it restores: in a data directory from the tables of the state, on a broker
from ``assess-changelog``. So the counts are those that the detectors saw, corrections and repetitions settled, and the
raw topics need not be read. The state as a whole is let go at once; the excerpts are a few kilobytes a cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from streams.assess import Assess
from streams.cells import CellStore
from streams.config import Config, built_under
from streams.embedded import held_effects
from streams.intake import shard_of
from streams.medium import EmbeddedMedium, Medium
from streams.stored import StoredStateError, reading
from streams.ticks import Calendar

__all__ = ["Counts", "Watched", "read_counts"]

Watched = tuple[str, str, str]
"""Indicator, product, region."""


@dataclass(frozen=True, slots=True)
class Counts:
    """A cell's counts: its row in a small store, and the local day through which they are known."""

    store: CellStore
    row: int
    day: int


def read_counts(
    medium: Medium, config: Config, catalogue: Catalogue, wanted: Sequence[Watched]
) -> dict[Watched, Counts]:
    """The counts of some cells; cells in which nothing was ever counted are left out.

    Raises
    ------
    StoredStateError
        The state cannot be read by this version, or was built under another configuration or catalogue.
    """
    calendar = Calendar(config.tick_ms, config.offset_ms)
    found: dict[Watched, Counts] = {}
    for assess in _stored(medium, config, catalogue, wanted):
        if assess.closed_through is None:
            continue
        day = calendar.day_of_tick(assess.closed_through)
        for indicator, store in assess.state.stores.items():
            cells = [(product, region) for name, product, region in wanted if name == indicator]
            part = store.excerpt(cells, day - config.lookback_days)
            for product, region in cells:
                row = part.row((product, region))
                if row is not None:
                    found[indicator, product, region] = Counts(part, row, day)
    return found


def _stored(medium: Medium, config: Config, catalogue: Catalogue, wanted: Sequence[Watched]) -> Iterator[Assess]:
    """The stored assess stages in which the cells lie, one after the other."""
    if isinstance(medium, EmbeddedMedium):
        yield from _embedded(medium, config, catalogue)
    else:
        yield from _on_kafka(medium, config, catalogue, wanted)


def _embedded(medium: EmbeddedMedium, config: Config, catalogue: Catalogue) -> Iterator[Assess]:
    log = medium.log
    with log.snapshot():
        progress = log.state("progress")
        if progress is None:
            return
        _check(log.state("config") or b"", config, catalogue)
        assess = Assess(config, catalogue, (), stored=False)
        assess.restore(progress, log.segments(), log.base(), held_effects(log))
    yield assess


def _on_kafka(medium: Medium, config: Config, catalogue: Catalogue, wanted: Sequence[Watched]) -> Iterator[Assess]:
    from streams.kafka_assess import PROGRESS_KEY, ProgressRow, parts_of

    ends = medium.ends(["assess-changelog"])
    needed = {_partition(product, catalogue, len(ends)) for _, product, _ in wanted}
    for origin, end in ends.items():
        if origin[1] not in needed:
            continue
        rows: dict[bytes, bytes] = {}
        for records in medium.read(origin, 0, end, 500):
            for record in records:
                if record.value is None:
                    rows.pop(record.key or b"", None)
                else:
                    rows[record.key or b""] = record.value
        if PROGRESS_KEY not in rows:
            continue
        with reading("the progress row"):
            progress = msgspec.msgpack.decode(rows[PROGRESS_KEY], type=ProgressRow)
        _check(progress.built_under.encode(), config, catalogue)
        _, *parts = parts_of(progress, rows)
        assess = Assess(config, catalogue, (), stored=False)
        assess.restore(progress.progress, *parts)
        yield assess


def _partition(product: str, catalogue: Catalogue, partitions: int) -> int:
    try:
        branch = catalogue.products.path(product)[0]
    except Rejection:
        branch = product
    return shard_of(branch) % partitions


def _check(held: bytes, config: Config, catalogue: Catalogue) -> None:
    now = built_under(config, catalogue)
    if held and held.decode("utf-8", "replace") != now:
        raise StoredStateError(
            f"the state was built under {held.decode('utf-8', 'replace')}, this board is under {now}"
        )
