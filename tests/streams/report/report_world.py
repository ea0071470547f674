"""A world of records with alerts, and the report's view of it."""

from __future__ import annotations

from functools import cache

from builders import Raw, World, add_dispositions, build_world, feed_all, refused_in
from held import Held

from schemas.alerts import Alert
from streams.embedded import Pipeline
from streams.medium import Medium
from streams.report.periods import Period
from streams.report.record import gather
from streams.report.view import Bounds, View, assemble
from streams.report.words import Language
from streams.ticks import Origin

__all__ = ["alerts_of", "refused_of", "view_of", "world_of"]


@cache
def world_of(seed: int) -> World:
    """A world whose alerts were answered, some of them."""
    made = build_world(seed, scale=0.6)
    pipeline = Pipeline(made.config, made.catalogue, tuple(made.raw))
    add_dispositions(made, feed_all(pipeline, made.raw).alerts, seed)
    return made


@cache
def alerts_of(seed: int) -> tuple[Alert, ...]:
    """Every revision that the whole pipeline makes of it."""
    made = world_of(seed)
    return tuple(feed_all(Pipeline(made.config, made.catalogue, tuple(made.raw)), made.raw).alerts)


@cache
def refused_of(seed: int) -> frozenset[tuple[Origin, int]]:
    return frozenset(refused_in(world_of(seed)))


def view_of(
    seed: int,
    period: Period | None = None,
    *,
    raw: Raw | None = None,
    medium: Medium | None = None,
    language: Language = "en",
    bounds: Bounds | None = None,
    as_of: int | None = None,
) -> View:
    """The report on a world, or on other records under its configuration."""
    made = world_of(seed)
    source: Medium = Held(made.raw if raw is None else raw) if medium is None else medium  # type: ignore[assignment]
    gathered = gather(source, made.config, made.catalogue)
    return assemble(gathered, alerts_of(seed), period, language, bounds or Bounds(), as_of)
