"""Records in memory as a medium."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.log import LogRecord
from streams.medium import Outgoing
from streams.ticks import Origin


@dataclass
class Held:
    """Records by their partition; what is written is kept apart."""

    raw: dict[Origin, list[LogRecord]]
    written: list[tuple[str, Outgoing]] = field(default_factory=list)

    def ends(self, topics: Sequence[str]) -> dict[Origin, int]:
        return {origin: len(rows) for origin, rows in sorted(self.raw.items()) if origin[0] in topics}

    def read(self, origin: Origin, offset: int, end: int, batch: int) -> Iterator[list[LogRecord]]:
        for at in range(offset, end, batch):
            yield self.raw[origin][at : min(at + batch, end)]

    def write(self, topic: str, records: Sequence[Outgoing]) -> None:
        self.written += [(topic, record) for record in records]

    def follow(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None: ...
