"""What the tests of the board share: alerts, a data directory with events of today, and a board that serves it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builders import CHINA, GOOD_USCC, body
from small_world import succeeds, write_ndjson

from schemas.alerts import Alert, Provenance, Text
from streams.board.service import LIMITS, Board
from streams.config import Config
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium
from streams.outputs import latest_revisions, read_alerts
from streams.tokens import TokenFile

CONFIG = Config()
CATALOGUE = CONFIG.load_catalogue()
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


def surge_alert() -> Alert:
    """A surge of injuries by a product in a district."""
    return Alert(
        id="injury-surge-1", revision=1, status="opened", level=3, grade="III", colour="yellow", kind="injury-surge",
        scope="cell", product="F0101", product_name=Text("奶", "milk"), region="120101",
        region_name=Text("和平", "Heping"), onset=NOON, as_of=NOON, headline=Text("标题", "headline"),
        provenance=Provenance(config="c", version="v", catalogue="k"),
    )  # fmt: skip


def fill_today(data: Path, folder: Path) -> None:
    """Two months of inspections that end yesterday; in Dongli half of what was tested in the last days failed."""
    now = datetime.now(CHINA).replace(hour=9, minute=0, second=0, microsecond=0)
    events = []
    for ago in range(60, 0, -1):
        for number, region in enumerate(("120101", "120102", "120110", "120111")):
            at = int((now - timedelta(days=ago)).timestamp() * 1_000) + number * 60_000
            bad = region == "120110" and ago <= 10
            events.append(
                body(
                    "inspections",
                    f"i-{ago}-{region}",
                    at,
                    region=region,
                    tested=20,
                    failed=10 if bad else int(ago % 29 == 0),
                )
            )
    succeeds("publish", "inspections", write_ndjson(folder / "i.ndjson", events), "--data", data)
    succeeds("run", "--until-end", "--data", data)


def accident(data: Path, folder: Path, name: str, **changes: Any) -> None:
    """An accident with twelve deaths, reported now, and worked off."""
    now = int(datetime.now(UTC).timestamp() * 1_000)
    event = body("accidents", name, now, **{"producer": GOOD_USCC, "deaths": 12, "product": "N0101", **changes})
    succeeds("publish", "accidents", write_ndjson(folder / f"{name}.ndjson", [event]), "--data", data)
    succeeds("run", "--until-end", "--data", data)


def open_medium(data: Path) -> Any:
    """A data directory's topics, closed at the end."""
    return closing(EmbeddedMedium(SqliteLog(data, CONFIG.partitions)))


def board(data: Path, tokens: Path | None = None, **options: Any) -> Board:
    """A board for a data directory under the default configuration."""

    def opened() -> Any:
        return open_medium(data)

    return Board(
        CONFIG, CATALOGUE, opened, opened, None if tokens is None else TokenFile(tokens),
        limits=options.pop("limits", LIMITS), **options,
    )  # fmt: skip


def alerts_of(data: Path) -> Mapping[str, Alert]:
    """The last revision of each alert."""
    with open_medium(data) as medium:
        return {one.id: one for one in latest_revisions(read_alerts(medium))}
