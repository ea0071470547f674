"""The one law on real Apache Kafka: the same records give the same alerts, however they come to be worked off.

Three records: a simulated year with copies, corrections, retractions and dispositions strewn in, which always runs; the
City of Chicago's inspections and the FDA's reports (CAERS), where ../shared/data is beside the project and
``TOCSIN_LONG=1`` is set. For each, (a) the embedded runtime says what must come out, and (b) one worker, (c) several
that come, go and die, and (d) a replay of the topics must give the same bytes.
"""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from broker import KafkaBroker, read_all, run_kcat
from law import (
    LONG,
    ROOT,
    Dataset,
    Group,
    Outcome,
    caers,
    canonical,
    chicago,
    disturbed_year,
    embedded,
    identity,
    plain,
    replayed,
    same,
)
from worker_main import POINTS

from streams.config import Config

pytestmark = pytest.mark.kafka

Make = Callable[[], Dataset]
long = pytest.mark.skipif(not LONG, reason="takes minutes: set TOCSIN_LONG=1")
ALL = [
    pytest.param(disturbed_year, id="year"),
    pytest.param(chicago, id="chicago", marks=[long, pytest.mark.shared_data]),
    pytest.param(caers, id="caers", marks=[long, pytest.mark.shared_data]),
]


@functools.cache
def known(make: Make) -> Dataset:
    return make()


@pytest.fixture(scope="module")
def embedded_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Make], Outcome]:
    """(a) What the embedded runtime makes of a record: the measure of all other ways."""

    @functools.cache
    def run(make: Make) -> Outcome:
        return embedded(known(make), tmp_path_factory.mktemp("embedded"))

    return run


@pytest.fixture
def group_of(kafka: KafkaBroker, topic_prefix: str, tmp_path: Path) -> Iterator[Callable[[Dataset], Group]]:
    """Makes the group of a test, and ends its workers with it."""
    made: list[Group] = []

    def make(dataset: Dataset) -> Group:
        made.append(Group(kafka.bootstrap, topic_prefix, dataset, tmp_path))
        return made[-1]

    yield make
    for group in made:
        group.close()


GroupOf = Callable[[Dataset], Group]


def test_the_record_rings_every_bell_so_that_the_law_is_not_kept_in_silence(
    embedded_run: Callable[[Make], Outcome],
) -> None:
    outcome = embedded_run(disturbed_year)
    alerts = [json.loads(line) for line in outcome.alerts]
    kinds, statuses = {alert["kind"] for alert in alerts}, {alert["status"] for alert in alerts}
    assert kinds >= {"pass-rate", "complaint-surge", "grave-event"}
    assert statuses == {"opened", "raised", "lowered", "acknowledged", "resolved"}
    assert len(outcome.signals) > 500
    assert outcome.dead == []
    rows = known(disturbed_year).expected_rows()
    assert len(rows) < rows.total() < known(disturbed_year).records


@pytest.mark.parametrize("make", ALL)
def test_one_worker_and_a_replay_of_its_topics_give_what_the_embedded_run_gave(
    make: Make, group_of: GroupOf, embedded_run: Callable[[Make], Outcome], tmp_path: Path
) -> None:
    group = group_of(known(make)).fill()
    worker = group.start_command("--until-end")
    assert worker.process.wait(300) == 0, worker.tail()
    group.check(embedded_run(make))
    same(replayed(group.medium, group.config), embedded_run(make))
    # A worker under other rules must not go on where this one stopped.
    stranger = group.start(config={**group.config.to_dict(), "satisfaction": {"min_respondents": 99}})
    assert stranger.process.wait(60) == 1
    assert "built under another configuration" in stranger.log.read_text()
    # And the command, which writes files.
    out = tmp_path / "again"
    command = ["-m", "streams.cli", "replay", "--broker", group.address.url, "--out", str(out)]
    file = ["--config", str(tmp_path / "tocsin.toml")]
    subprocess.run([sys.executable, *command, *file], cwd=ROOT, check=True, capture_output=True, timeout=300)
    lines = (out / "alerts.ndjson").read_bytes().splitlines()
    assert canonical(map(plain, lines), [], []).alerts == embedded_run(make).alerts


@pytest.mark.parametrize("make", ALL)
def test_workers_that_join_and_leave_and_die_do_not_show(
    make: Make, group_of: GroupOf, embedded_run: Callable[[Make], Outcome]
) -> None:
    group = group_of(known(make)).fill()
    # Slow enough that each of them has a share of the work, whatever the machine.
    orders: dict[str, Any] = {
        "poll_records": max(100, group.dataset.records // 150),
        "slow": 0.15,
        "checkpoint_seconds": 0.2,
    }
    first = group.start(**orders)
    second = group.start(**orders)
    group.wait_for_share(0.1, alive=[first, second])
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    third = group.start(**orders)
    group.wait_for_share(0.35, alive=[second, third])
    assert second.stop(signal.SIGTERM) == 0, second.tail()
    fourth = group.start(**orders)
    group.wait_for_share(0.6, alive=[third, fourth])
    assert not group.done()
    fifth = group.start(**{**orders, "slow": 0.0})
    group.wait(group.done, 300, alive=[third, fourth, fifth])
    group.check(embedded_run(make))
    assert [worker.stop() for worker in (third, fourth, fifth)] == [0, 0, 0]
    assert all(worker.shares() for worker in group.workers)


def test_a_death_at_any_step_of_the_protocols_does_not_show(
    group_of: GroupOf, embedded_run: Callable[[Make], Outcome]
) -> None:
    group = group_of(known(disturbed_year)).fill()
    # A name of its own lets the next worker take up the partitions at once.
    orders = {"instance": "mortal", "poll_records": 300, "slow": 0.02, "checkpoint_seconds": 0.05, "settle": 0.5}
    for point in POINTS:
        # Grave events, dispositions and alerts are rare: the first will do. Else let it get into its stride.
        n = 1 if point in ("intake-first-sent", "escalate-open", "escalate-ending", "escalate-committed") else 3
        worker = group.start(**orders, crash=[point, n])
        assert worker.process.wait(90) == -signal.SIGKILL, f"{point}: {worker.tail()}"
    assert not group.done()
    last = group.start(**orders)
    group.wait(group.done, alive=[last])
    group.check(embedded_run(disturbed_year))
    assert last.stop() == 0


def test_a_worker_that_comes_back_from_the_dead_is_shut_out(
    group_of: GroupOf, embedded_run: Callable[[Make], Outcome]
) -> None:
    group = group_of(known(disturbed_year)).fill()
    orders = {"poll_records": 200, "slow": 0.1, "checkpoint_seconds": 0.2}
    zombie = group.start(**orders)
    group.wait_for_share(0.2, alive=[zombie])
    zombie.process.send_signal(signal.SIGSTOP)
    heir = group.start(**orders)
    group.wait_for_share(0.4, alive=[heir])
    zombie.process.send_signal(signal.SIGCONT)
    # It may die of having been fenced, loudly, or join again; it must not write.
    group.wait(group.done, alive=[heir])
    group.check(embedded_run(disturbed_year))
    assert zombie.process.poll() in (None, 1)
    assert heir.stop() == 0


def test_small_batches_do_not_show(group_of: GroupOf, embedded_run: Callable[[Make], Outcome]) -> None:
    group = group_of(known(disturbed_year)).fill()
    worker = group.start(fetch_bytes=1_024, poll_records=7)
    group.wait(group.done, 240, alive=[worker])
    group.check(embedded_run(disturbed_year))
    assert worker.stop() == 0


# --- live ----------------------------------------------------------------------------------------------------------

PRODUCT, REGION = "F0101", "120101"


def event(name: str, **fields: Any) -> bytes:
    """An event of this moment."""
    now = datetime.now(UTC).isoformat()
    common = {"event_id": name, "source": "live", "reported_at": now, "product": PRODUCT, "region": REGION}
    return json.dumps({**common, **fields}).encode()


def test_live_events_ring_within_seconds_and_ticks_close_by_the_brokers_clock(
    kafka: KafkaBroker, kcat: Path, group_of: GroupOf
) -> None:
    """kcat, which shares no code with us, produces the events and reads the alerts."""
    group = group_of(Dataset("live", Config().replace(tick_seconds=60), {})).create(history=False)
    prefix = group.config.topic_prefix
    sent: list[int] = []

    def send(topic: str, *events: bytes) -> float:
        run_kcat(kcat, kafka.bootstrap, "-P", "-t", f"{prefix}{topic}", given=b"\n".join(events) + b"\n")
        sent.extend(identity(topic, one)[0] for one in events)
        return time.monotonic()

    def alerts() -> list[dict[str, Any]]:
        return [json.loads(value) for value in read_all(kcat, kafka.bootstrap, f"{prefix}emergency-response")]

    def failures(start: int) -> list[bytes]:
        return [event(f"i{n}", lab="lab-1", verdict="fail") for n in range(start, start + 20)]

    worker = group.start()
    group.wait(lambda: "generation 1" in worker.log.read_text(), alive=[worker])
    began = send("accidents", event("a1", authority="bureau", deaths=3))
    group.wait(alerts, 20, alive=[worker])
    seconds = time.monotonic() - began
    assert seconds < 10
    (grave,) = alerts()
    assert (grave["kind"], grave["status"], grave["product"]) == ("grave-event", "opened", PRODUCT)

    send("inspections", *failures(0))
    worker.stop(signal.SIGKILL)
    send("inspections", *failures(20))
    worker = group.start()
    send("inspections", *failures(40))
    ended = time.time() * 1_000
    # Nothing comes any more: only the broker's clock can close the tick.
    group.wait(lambda: group.closed_through() > ended, 150, alive=[worker])
    group.wait(lambda: len(alerts()) > 1, 20, alive=[worker])
    group.wait(group.done, 20, alive=[worker])
    assert worker.stop() == 0
    print(f"live: the grave alert was there after {seconds:.2f} s")

    opened = {alert["kind"] for alert in alerts()}
    assert opened == {"grave-event", "pass-rate"}
    # The law, where arrival is the broker's time: a replay of the topics is the live run.
    group.check(replayed(group.medium, group.config), Counter(sent))
