"""FDA adverse events 2004-2010 under the default configuration: the incidents that the public remembers are alerted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from schemas.alerts import Alert
from streams.config import Config
from streams.embedded import INPUTS, Pipeline
from streams.importers import import_rows
from streams.log import LogRecord, partition_for
from streams.mapping import Mapping
from streams.ticks import COMPLETE

CAERS = Path(__file__).resolve().parents[3] / "shared" / "data" / "fda_caers_2004_2010.parquet"
PARTITIONS = 4

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not CAERS.exists(), reason="../shared/data/fda_caers_2004_2010.parquet is absent"),
]

# Incident, what its alert's product must name, and the Monday of the week in which a simple threshold is first crossed.
INCIDENTS = [
    ("Peter Pan peanut butter", ("PETER PAN",), "2007-02-12"),
    ("Hydroxycut", ("HYDROXYCUT",), "2009-05-04"),
    ("Peanut Corporation of America", ("PEANUT", "AUSTIN", "CLIF", "NUTRI"), "2009-01-19"),
    ("Similac", ("SIMILAC",), "2010-09-27"),
    ("bagged spinach", ("Vegetables-Vegetable Products",), "2006-09-11"),
]


@cache
def alerts() -> tuple[Alert, ...]:
    """All alert revisions of a run with nothing tuned: the defaults, and product codes learned from the data."""
    config = Config(catalogue="open", utc_offset="+00:00")
    origins = [(topic, part) for topic in INPUTS for part in range(PARTITIONS)]
    records: dict[tuple[str, int], list[LogRecord]] = {origin: [] for origin in origins}
    for rows in import_rows(CAERS, Mapping.builtin("fda-caers")):
        for row in rows:
            assert row.rejection is None
            held = records[row.topic, partition_for(row.key, PARTITIONS)]
            held.append(LogRecord(len(held), row.reported_at_ms or 0, row.key, row.value))
    pipeline = Pipeline(config, config.load_catalogue(), origins)
    for origin in origins:
        if records[origin]:
            pipeline.feed(origin, records[origin])
        pipeline.mark(origin, COMPLETE)
    pipeline.close()
    step = pipeline.take()
    assert not step.dead
    return tuple(step.alerts)


@pytest.mark.parametrize(("incident", "names", "crossing"), INCIDENTS, ids=[row[0] for row in INCIDENTS])
def test_an_incident_is_alerted_no_later_than_a_week_after_the_first_crossing(
    incident: str, names: tuple[str, ...], crossing: str
) -> None:
    week = datetime.fromisoformat(crossing).replace(tzinfo=UTC)
    rung = [
        alert
        for alert in alerts()
        if alert.kind == "injury-surge"
        and alert.status in ("opened", "raised")
        and any(name in alert.product for name in names)
        and week <= alert.as_of < week + timedelta(days=14)
    ]
    assert rung, f"{incident}: no alert in the two weeks from {crossing}"


def test_the_vegetable_alert_of_september_2006_is_about_spinach() -> None:
    table = pq.read_table(CAERS, columns=["created_date", "industry", "product", "role"])
    chosen = pc.and_(
        pc.equal(table["industry"].cast("string"), "Vegetables/Vegetable Products"),
        pc.equal(table["role"].cast("string"), "Suspect"),
    )
    for bound in (
        pc.greater_equal(table["created_date"], datetime(2006, 9, 16)),
        pc.less(table["created_date"], datetime(2006, 9, 23)),
    ):
        chosen = pc.and_(chosen, bound)
    products = table.filter(chosen)["product"]

    def naming(word: str) -> int:
        return int(pc.sum(pc.match_substring(products, word)).as_py() or 0)

    # Botulism in carrot juice came in the same weeks: spinach is the larger part.
    assert naming("SPINACH") > 2 * naming("CARROT JUICE") > 0


def test_alerts_stay_few_over_seven_years() -> None:
    surges = [alert for alert in alerts() if alert.kind == "injury-surge" and alert.status == "opened"]
    deaths = [alert for alert in alerts() if alert.kind == "grave-event" and alert.status == "opened"]
    # 9,918 leaf codes, 84 months: fewer than two surges a month; and one alert for each of the 286 deaths.
    assert len(surges) < 2 * 84
    assert len(deaths) == 286
