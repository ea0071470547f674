"""Two runs over one record set side by side: alerts gained, lost, earlier, later, graver, milder.

An alert has a *subject* (kind, product, region, and the source or the kind of injury where it is about one; a grave
event is a subject of its own) and a *life*, from the moment at which it was opened to that at which it was resolved, or
without end. One run never has two alerts of one subject at a time.

An *episode* is all that belongs together: alerts of one subject, of either run, whose lives overlap, directly or
through each other. (An alert lives on for ``escalate.hold_days`` after its last evidence, so what follows within that
time is the same episode, with no further tolerance.) An episode in one run only was *lost* or *gained*; one in both is
told by its first alerts: *earlier* or *later* in the second run, or the *same*. So every alert is counted once, a run
against itself is all the same, and exchanging the runs exchanges lost with gained and earlier with later.

What one run tells of a cell, the other may tell of a wider or narrower one. Of an episode that is lost or gained,
``beside`` therefore names an alert of the other run: the first of the same kind whose life overlaps, and whose product
and region are the same, above or below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from schemas.alerts import Alert
from schemas.catalogue import Catalogue
from schemas.errors import Rejection
from streams.decode import EVERYWHERE

__all__ = ["CHANGES", "Change", "Episode", "Life", "compare", "lives"]

Change = Literal["lost", "gained", "earlier", "later", "same"]
CHANGES: Final[tuple[Change, ...]] = ("lost", "gained", "earlier", "later", "same")
Subject = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Life:
    """One alert as a whole: when it stood, how grave it became, and its first revision."""

    first: Alert
    level: int
    ended: datetime | None

    @property
    def opened(self) -> datetime:
        return self.first.as_of

    @property
    def subject(self) -> Subject:
        one = self.first
        about = one.id if one.kind == "grave-event" else one.source or one.hazard
        return one.kind, one.product, one.region, about

    def overlaps(self, other: Life) -> bool:
        """Whether both stood at some moment."""
        begins, ends = max(self.opened, other.opened), [one.ended for one in (self, other) if one.ended is not None]
        return not ends or begins <= min(ends)


@dataclass(slots=True)
class Episode:
    """The alerts of both runs that belong together, each list in the order of time."""

    before: list[Life] = field(default_factory=list)
    after: list[Life] = field(default_factory=list)
    beside: str = ""

    @property
    def change(self) -> Change:
        shift = self.shift
        if shift is None:
            return "lost" if self.before else "gained"
        return "same" if not shift else "earlier" if shift < timedelta(0) else "later"

    @property
    def shift(self) -> timedelta | None:
        """By how much the second run opened later (earlier: negative); None where one run has nothing."""
        if not self.before or not self.after:
            return None
        return self.after[0].opened - self.before[0].opened

    @property
    def alert(self) -> Alert:
        """The alert that stands for the episode: the first of the second run, else of the first."""
        return (self.after or self.before)[0].first

    @property
    def levels(self) -> tuple[int | None, int | None]:
        """The gravest level reached in either run."""
        before, after = (min((life.level for life in some), default=None) for some in (self.before, self.after))
        return before, after

    @property
    def level(self) -> int:
        """The gravest of all."""
        return min(life.level for life in (*self.before, *self.after))


def lives(alerts: Iterable[Alert]) -> list[Life]:
    """The alerts behind some revisions, in the order in which they were opened."""
    revisions: dict[str, list[Alert]] = {}
    for alert in alerts:
        revisions.setdefault(alert.id, []).append(alert)
    found = []
    for mine in revisions.values():
        mine.sort(key=lambda alert: alert.revision)
        ended = next((alert.as_of for alert in mine if alert.status == "resolved"), None)
        found.append(Life(mine[0], min(alert.level for alert in mine), ended))
    return sorted(found, key=lambda life: (life.opened, life.first.id))


def compare(before: Iterable[Alert], after: Iterable[Alert], catalogue: Catalogue | None = None) -> list[Episode]:
    """The episodes of two runs, in the order in which they began.

    Parameters
    ----------
    before, after
        All alert revisions of the first and of the second run.
    catalogue
        Tells which cells lie above others, for :attr:`Episode.beside`; None leaves that empty.
    """
    runs = lives(before), lives(after)
    by_subject: dict[Subject, list[tuple[Life, int]]] = {}
    for run, found in enumerate(runs):
        for life in found:
            by_subject.setdefault(life.subject, []).append((life, run))
    episodes: list[Episode] = []
    for subject in sorted(by_subject):
        episodes += _episodes(by_subject[subject])
    if catalogue is not None:
        for episode in episodes:
            if episode.shift is None:
                episode.beside = _beside(episode, runs[1] if episode.before else runs[0], catalogue)
    return sorted(episodes, key=lambda one: (min(life.opened for life in (*one.before, *one.after)), one.alert.id))


def _episodes(some: list[tuple[Life, int]]) -> list[Episode]:
    """The episodes of one subject: runs of lives in the order of time, each overlapping one before it."""
    found: list[Episode] = []
    reach: datetime | None = None
    endless = False
    for life, run in sorted(some, key=lambda one: (one[0].opened, one[1], one[0].first.id)):
        if not found or not (endless or (reach is not None and life.opened <= reach)):
            found.append(Episode())
            reach, endless = None, False
        (found[-1].after if run else found[-1].before).append(life)
        endless |= life.ended is None
        if life.ended is not None:
            reach = life.ended if reach is None else max(reach, life.ended)
    return found


def _beside(episode: Episode, others: Sequence[Life], catalogue: Catalogue) -> str:
    mine = episode.before or episode.after
    for other in others:
        same_kind = other.first.kind == episode.alert.kind and other.subject[3] == mine[0].subject[3]
        if same_kind and _in_line(episode.alert, other.first, catalogue) and any(map(other.overlaps, mine)):
            return other.first.id
    return ""


def _in_line(one: Alert, other: Alert, catalogue: Catalogue) -> bool:
    """Whether two cells are the same or above or below each other, in product and in region."""
    return all(
        _nested(tree.path, getattr(one, name), getattr(other, name))
        for name, tree in (("product", catalogue.products), ("region", catalogue.regions))
    )


def _nested(path: Callable[[str], tuple[str, ...]], one: str, other: str) -> bool:
    if one == other or EVERYWHERE in (one, other):
        return True
    try:
        long, short = path(one), path(other)
    except Rejection:  # the overflow leaf is in no catalogue
        return False
    depth = min(len(long), len(short))
    return long[:depth] == short[:depth]
