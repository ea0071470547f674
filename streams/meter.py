"""What a runtime tells of its work, to whoever measures it; here to nobody.

Both runtimes hold a :class:`Meter` and tell it once a batch, a tick or a checkpoint, never once an event.
:class:`streams.metrics.Metrics` is the one that listens. The stages know of neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from schemas.alerts import Alert, DeadLetter
    from streams.assess import Assess, Closed
    from streams.intake import IntakeResult
    from streams.ticks import Origin

__all__ = ["SILENT", "Meter", "Stage"]

Stage = Literal["intake", "assess", "escalate", "pipeline"]
"""``pipeline`` is the embedded runtime's checkpoint, which belongs to all stages at once."""


class Meter:
    """Hears everything and does nothing. Durations are in seconds, times in epoch milliseconds."""

    on: ClassVar[bool] = False
    """Whether it is worth asking for what costs something to know."""

    # --- the life of a worker --------------------------------------------------------------------------------------

    def beat(self) -> None:
        """The runtime's loop is turning."""

    def assigning(self) -> None:
        """Partitions come or go: nothing is served until :meth:`serving`."""

    def restoring(self, stage: Stage, partition: int, done: float) -> None:
        """A restore has come so far, from 0.0 to 1.0."""

    def serving(self, partitions: Mapping[Stage, int]) -> None:
        """State is restored: so many partitions of each stage are worked on from now on."""

    def positions(self, places: Mapping[Origin, tuple[int | None, int | None]]) -> None:
        """Of every input partition where it is read and where it ends; None while not known."""

    def watermarks(self, marks: Mapping[Origin, int]) -> None:
        """The watermark of every raw partition that has one; a partition that is exhausted is left out."""

    def changelogs(self, records: Mapping[Origin, int]) -> None:
        """How many records a restore of each changelog partition would have to read, at most."""

    # --- work ------------------------------------------------------------------------------------------------------

    def decoded(self, result: IntakeResult, records: int, seconds: float) -> None:
        """Intake has worked off a batch."""

    def refused(self, letters: Sequence[DeadLetter]) -> None:
        """Dead letters were written."""

    def late(self, events: int) -> None:
        """Events came after their tick was closed."""

    def took(self, stage: Stage, records: int, seconds: float) -> None:
        """A stage has taken a batch of records."""

    def closed(self, closed: Closed, assess: float, escalate: float | None = None) -> None:
        """Ticks were closed, and what they brought was escalated."""

    def checkpointed(self, stage: Stage, seconds: float, nbytes: int = 0) -> None:
        """A checkpoint is durable, with so many bytes of state in it."""

    def pushed(self, alerts: int, ok: bool) -> None:
        """Alertmanager was told of so many open alerts, or could not be told. From a thread of its own."""

    # --- what stands -----------------------------------------------------------------------------------------------

    def assessed(self, partition: int, assess: Assess) -> None:
        """The state of an assess partition at a checkpoint."""

    def arrived(self, alert_ids: Sequence[str | None], arrival_ms: int) -> None:
        """Grave events arrived, whose alerts will bear these ids."""

    def emitted(self, alerts: Sequence[Alert]) -> None:
        """Revisions of alerts were written."""

    def standing(self, alerts: Sequence[Alert]) -> None:
        """All open alerts."""


SILENT = Meter()
"""The meter of a runtime that nobody measures."""
