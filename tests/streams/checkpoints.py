"""What a runtime stores of the assess stage, kept in memory: segments and a base come and go as they do there."""

from __future__ import annotations

from dataclasses import dataclass, field

from streams.assess import Assess, Saved


@dataclass(slots=True)
class Store:
    """The stored state of one assess partition; ``deleted``, ``bases`` and ``comparisons`` count what
    has happened to it."""

    segments: list[tuple[int, bytes]] = field(default_factory=list)
    base: list[bytes] = field(default_factory=list)
    effects: list[bytes] = field(default_factory=list)
    progress: bytes | None = None
    deleted: int = 0
    bases: int = 0
    comparisons: int = 0

    def keep(self, saved: Saved) -> None:
        """Do what a checkpoint asks for."""
        self.segments = [*self.segments, *saved.segments]
        self.progress = saved.progress
        if saved.effects is not None:
            self.effects, self.comparisons = saved.effects, self.comparisons + 1
        if saved.base is None:
            return
        self.base, self.bases = saved.base, self.bases + 1
        before = saved.forgotten_before
        if before is not None:
            kept = [(last, data) for last, data in self.segments if last >= before]
            self.deleted += len(self.segments) - len(kept)
            self.segments = kept

    def restored(self, fresh: Assess) -> Assess:
        """A new stage that has taken up what is stored."""
        if self.progress is not None:
            fresh.restore(self.progress, [data for _, data in self.segments], self.base, self.effects)
        return fresh
