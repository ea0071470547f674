"""The embedded runtime: killed anywhere and going on, sealed ticks, dead letters once each."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import (
    DAY,
    HOUR,
    ORIGINS,
    START,
    Raw,
    World,
    add_dispositions,
    alert_texts,
    body,
    build_world,
    cells_of,
    encoded,
    feed_all,
    iso,
    numbered,
    oracle_cells,
    outcome,
    plain_run,
    refused_in,
    world_config,
)

from schemas.alerts import Alert
from schemas.errors import ConfigError
from streams.config import Config
from streams.embedded import INPUTS, EmbeddedRuntime, Pipeline
from streams.log import SqliteLog
from streams.medium import EmbeddedMedium, Outgoing

CONFIG = world_config(partitions=2, tick_seconds=43_200)
CATALOGUE = CONFIG.load_catalogue()
Rows = list[tuple[str, int, int, bytes | None]]


class Killed(BaseException):
    """What stands for ``kill -9``: nothing catches it."""


def put(log: SqliteLog, rows: Rows) -> None:
    with log.transaction():
        for topic, part, time, value in rows:
            log.append(topic, [(part, time, None, value, ())])


def fill(log: SqliteLog, raw: Raw) -> None:
    with log.transaction():
        for (topic, part), records in sorted(raw.items()):
            log.append(topic, [(part, r.timestamp, r.key, r.value, r.headers) for r in records])


def raw_of(log: SqliteLog) -> Raw:
    return {origin: log.read(origin, 0, 10**6) for origin in log.ends(INPUTS)}


def written(log: SqliteLog, topic: str) -> list[Any]:
    return [json.loads(record.value or b"") for record in log.read((topic, 0), 0, 10**6)]


def response(log: SqliteLog) -> list[str]:
    """The topic emergency-response without the wall clock, by id and revision; each revision must be there once."""
    alerts = [msgspec.json.decode(r.value or b"", type=Alert) for r in log.read(("emergency-response", 0), 0, 10**6)]
    assert all(alert.emitted_at is not None for alert in alerts)
    keys = [(alert.id, alert.revision) for alert in alerts]
    assert len(set(keys)) == len(keys), "a revision was written twice"
    assert all(revision == 1 or keys.index((name, revision - 1)) < at for at, (name, revision) in enumerate(keys))
    return alert_texts(alerts)


def letters(log: SqliteLog) -> list[str]:
    return sorted(json.dumps(letter, sort_keys=True) for letter in written(log, "dead-letters"))


def runtime(log: SqliteLog, **more: Any) -> EmbeddedRuntime:
    return EmbeddedRuntime(log, CONFIG, CATALOGUE, **more)


@pytest.fixture(scope="module")
def world() -> World:
    made = build_world(5, days=80, scale=0.35)
    made.config = CONFIG
    add_dispositions(made, plain_run(made)[1], 5)
    return made


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    log = SqliteLog(tmp_path_factory.mktemp("plain"), 2)
    fill(log, world.raw)
    runtime(log).run_to_end()
    return response(log), letters(log)


def test_an_undisturbed_run_says_what_the_stages_say(world: World, undisturbed: tuple[list[str], list[str]]) -> None:
    expected, _ = plain_run(world)
    assert undisturbed[0] == expected.alerts
    assert len(undisturbed[0]) > 20
    assert undisturbed[1] == sorted(json.dumps(json.loads(letter), sort_keys=True) for letter in expected.dead)


# --- killed --------------------------------------------------------------------------------------------------------


def after_steps(log: SqliteLog, count: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    """Die after a checkpoint was committed and before anything else."""
    left = [count]

    def on_step(step: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return on_step


def in_transaction(before_commit: bool) -> Callable[[SqliteLog, int, pytest.MonkeyPatch], None]:
    """Die in a transaction, just before or just after its COMMIT."""

    def arrange(log: SqliteLog, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
        left, honest = [count], log.transaction

        @contextmanager
        def transaction() -> Iterator[None]:
            left[0] -= 1
            with honest():
                yield
                if before_commit and left[0] < 0:
                    raise Killed
            if left[0] < 0:
                raise Killed

        monkeypatch.setattr(log, "transaction", transaction)

    return arrange


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    "arrange", [after_steps, in_transaction(True), in_transaction(False)],
    ids=["between checkpoints", "before commit", "after commit"],
)  # fmt: skip
def test_killed_again_and_again_it_writes_every_revision_once(
    world: World, undisturbed: tuple[list[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[..., Any], seed: int,
) -> None:  # fmt: skip
    rng = random.Random(seed)
    log = SqliteLog(tmp_path, 2)
    fill(log, world.raw)
    log.close()
    kills = 0
    for _ in range(12):
        log = SqliteLog(tmp_path, 2)
        on_step = arrange(log, rng.randrange(2, 9), monkeypatch)
        try:
            runtime(log, batch=rng.choice((15, 60, 200)), checkpoint_seconds=0.0, on_step=on_step).run_to_end()
            break
        except Killed:
            kills += 1
            log.close()
    else:
        log = SqliteLog(tmp_path, 2)
        runtime(log).run_to_end()
    assert kills > 2
    assert (response(log), letters(log)) == undisturbed


_CHILD = """
import os, signal, sys
from pathlib import Path
from streams.config import Config
from streams.embedded import EmbeddedRuntime
from streams.log import SqliteLog
import msgspec
config = Config.parse(msgspec.json.decode(sys.argv[2]), "test")
left = [int(sys.argv[3])]
def on_step(step):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
log = SqliteLog(Path(sys.argv[1]), 2)
log.lock()
EmbeddedRuntime(log, config, config.load_catalogue(), batch=40, checkpoint_seconds=0.0, on_step=on_step).run_to_end()
"""


def test_a_real_kill_loses_and_doubles_nothing(
    world: World, undisturbed: tuple[list[str], list[str]], tmp_path: Path
) -> None:
    log = SqliteLog(tmp_path, 2)
    fill(log, world.raw)
    log.close()
    codes = []
    for steps in (9, 10_000):
        arguments = [str(tmp_path), msgspec.json.encode(CONFIG.to_dict()).decode(), str(steps)]
        codes.append(subprocess.run([sys.executable, "-c", _CHILD, *arguments], check=False, timeout=60).returncode)
    assert codes == [-signal.SIGKILL, 0]
    log = SqliteLog(tmp_path, 2)
    assert (response(log), letters(log)) == undisturbed


# --- sessions ------------------------------------------------------------------------------------------------------


def in_sessions(world: World, sessions: int) -> list[Rows]:
    """The world's records in the order of their given times, in a few portions: later ones hold earlier times too."""
    rng = random.Random(3)
    rows = [
        (topic, part, record.timestamp, record.value)
        for (topic, part), records in sorted(world.raw.items())
        for record in records
    ]
    rows.sort(key=lambda row: row[2] + rng.randrange(6 * DAY))
    size = len(rows) // sessions + 1
    return [rows[at : at + size] for at in range(0, len(rows), size)]


def replayed(log: SqliteLog) -> list[str]:
    """What a replay of the log's records says."""
    raw = raw_of(log)
    pipeline = Pipeline(CONFIG, CATALOGUE, tuple(raw))
    step = feed_all(pipeline, raw)
    return outcome(step.alerts, step.signals, step.dead, [pipeline.assess]).alerts


def test_published_and_run_in_sessions_it_says_what_a_replay_of_the_log_says(world: World, tmp_path: Path) -> None:
    for rows in in_sessions(world, 5):
        log = SqliteLog(tmp_path, 2)
        put(log, rows)
        last = runtime(log, batch=70)
        last.run_to_end()
        log.close()
    log = SqliteLog(tmp_path, 2)
    assert response(log) == replayed(log)
    raw = raw_of(log)
    assert cells_of([last.pipeline.assess]) == oracle_cells(raw, refused_in(World(CONFIG, CATALOGUE, raw)))


def test_one_runtime_may_run_to_the_end_twice(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, [("injuries", 0, START, encoded(body("injuries", "a", START)))])
    running = runtime(log)
    running.run_to_end()
    put(log, [
        ("complaints", 0, START + 20 * DAY, encoded(body("complaints", "b", START))),
        ("injuries", 0, START + 3 * DAY, encoded(body("injuries", "c", START))),
        ("injuries", 1, START + 3 * DAY, encoded(body("injuries", "d", START))),
    ])  # fmt: skip
    running.run_to_end()
    assert len(running.pipeline.assess.state.ledger) == 4


def test_watching_while_others_publish_says_what_a_replay_of_the_log_says(world: World, tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    portions = in_sessions(world, 12)

    def stop() -> bool:
        # Between any two rounds somebody publishes, then there is nothing new for a round or two.
        calls[0] += 1
        if calls[0] % 2 and portions:
            put(log, portions.pop(0))
        return calls[0] > 30

    calls = [0]
    watching = runtime(log, batch=40)
    watching.watch(stop, settle=0.0, poll=0.0)
    assert not portions
    assert watching.pipeline.assess.waiting() == 0
    assert response(log) == replayed(log)


def test_what_is_appended_after_a_run_arrives_not_before_the_ticks_that_were_closed(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, [("injuries", 0, START + 9 * DAY, encoded(body("injuries", "a", START)))])
    first = runtime(log)
    first.run_to_end()
    through = first.pipeline.assess.closed_through
    assert through is not None
    put(log, [("injuries", 1, START + DAY, encoded(body("injuries", "b", START)))])
    second = runtime(log)
    second.run_to_end()
    (late,) = log.read(("injuries", 1), 0, 9)
    assert late.timestamp == second.pipeline.calendar.tick_end(through)
    assert len(second.pipeline.assess.state.ledger) == 2
    assert second.pipeline.assess.closed_through == through + 1


def test_a_run_of_nothing_ends_and_leaves_nothing(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    runtime(log).run_to_end()
    runtime(log).run_to_end()
    assert (response(log), letters(log)) == ([], [])


def test_poison_alone_is_dead_lettered_once_over_several_runs(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, [(topic, 0, START + n * HOUR, b"\xff") for n, (topic, part) in enumerate(ORIGINS) if part == 0])
    for _ in range(3):
        runtime(log, batch=1).run_to_end()
    assert len(letters(log)) == len({topic for topic, _ in ORIGINS})


def test_poison_behind_an_event_that_waits_is_dead_lettered_once_though_it_is_read_again(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, [
        ("injuries", 0, START, encoded(body("injuries", "a", START))),
        ("injuries", 0, START + 1, b"{"),
        ("injuries", 0, START + 2, encoded(body("injuries", "b", START))),
        *(("complaints", 0, START + n, encoded(body("complaints", f"c{n}", START))) for n in range(6)),
    ])  # fmt: skip
    for left in (2, 3, 5, 99):
        steps = [left]

        def on_step(step: Any, steps: list[int] = steps) -> None:
            steps[0] -= 1
            if steps[0] < 0:
                raise Killed

        try:
            runtime(log, batch=1, checkpoint_seconds=0.0, on_step=on_step).run_to_end()
        except Killed:
            log.close()
            log = SqliteLog(tmp_path, 2)
    assert [letter["offset"] for letter in written(log, "dead-letters")] == [1]
    assert [letter["value"] for letter in written(log, "dead-letters")] == ["ew=="]


@pytest.mark.parametrize("moment", [-20 * 365 * DAY, -DAY, -1, 0])
def test_reports_from_before_1970_are_refused_and_the_run_goes_on(tmp_path: Path, moment: int) -> None:
    log = SqliteLog(tmp_path, 2)
    early = body("injuries", "a", START, reported_at=iso(moment))
    put(log, [
        ("injuries", 0, moment, encoded(early)),
        ("injuries", 0, moment + 2 * DAY, encoded({**early, "event_id": "b", "product": "N0101"})),
        ("injuries", 1, START, encoded(body("injuries", "c", START))),
    ])  # fmt: skip
    running = runtime(log)
    running.run_to_end()
    refused = [(letter["offset"], letter["reason"], letter["field"]) for letter in written(log, "dead-letters")]
    assert refused == [(0, "out-of-range", "reported_at"), (1, "out-of-range", "reported_at")]
    assert len(running.pipeline.assess.state.ledger) == 1
    assert cells_of([running.pipeline.assess]) == oracle_cells(
        raw_of(log), {(("injuries", 0), 0), (("injuries", 0), 1)}
    )


@pytest.mark.parametrize("moment", [10**15, 2**63 - 1, -(10**15), -(2**63)])
def test_given_times_beyond_all_calendars_do_not_stop_the_run(moment: int) -> None:
    def run(alert_id: str) -> tuple[list[Alert], list[str]]:
        row = {"disposition_id": "d", "alert_id": alert_id, "action": "acknowledge", "by": "x", "at": iso(START)}
        raw: Raw = {origin: [] for origin in ORIGINS}
        raw["injuries", 0] = numbered([(START, death)])
        raw["injuries", 1] = numbered([(moment, encoded(body("injuries", "b", START)))])
        raw["dispositions", 0] = numbered([(moment, row)])
        step = feed_all(Pipeline(CONFIG, CATALOGUE, ORIGINS), raw)
        return step.alerts, [letter.reason for letter in step.dead]

    death = encoded(body("injuries", "a", START, outcome="died"))
    alerts, dead = run("unknown")
    assert dead == ["too-late" if moment > 0 else "clock-ahead"]
    assert [alert.status for alert in alerts][:1] == ["opened"]
    answered, _ = run(alerts[0].id)
    # From the far future the answer comes after the alert has run out; from the far past it comes before everything.
    assert answered[1].status == ("resolved" if moment > 0 else "acknowledged")
    assert msgspec.json.decode(msgspec.json.encode(answered[1]), type=Alert).as_of == answered[1].as_of


@pytest.mark.parametrize("seed", [None, *range(5)])
def test_the_last_copy_of_a_grave_event_that_is_taken_rings_no_second_alert_in_any_order(seed: int | None) -> None:
    """The shortest memory that the configuration allows; beyond it a copy is refused for its age."""
    config = world_config(tick_seconds=43_200, intake={"lateness_days": 400}, state={"remember_days": 400})
    death = encoded(body("injuries", "a", START, outcome="died"))
    last = START + 400 * DAY
    raw: Raw = {origin: [] for origin in ORIGINS}
    raw["injuries", 0] = numbered([(START, death), (last - DAY, death), (last, death), (last + 1, death)])
    raw["injuries", 1] = numbered([(START + 30 * DAY, death), (last, death), (last + 300 * DAY, death)])
    # Others close the ticks on the way.
    raw["complaints", 0] = numbered(
        (START + n * DAY, body("complaints", f"c{n}", START + n * DAY)) for n in range(1, 500)
    )
    step = feed_all(Pipeline(config, CATALOGUE, ORIGINS), raw, batch=1, seed=seed)
    graves = [alert for alert in step.alerts if alert.kind == "grave-event"]  # and one of silence
    assert [(alert.status, alert.revision) for alert in graves] == [("opened", 1), ("resolved", 2)]
    assert [(letter.reason, letter.stage) for letter in step.dead] == [("too-late", "intake")] * 2


def test_what_comes_after_its_tick_was_closed_goes_to_the_dead_letters_once() -> None:
    def reasons(pipeline: Pipeline, *names: str, seen: int = 0) -> list[tuple[str, int]]:
        rows = numbered((START + DAY, body("injuries", name, START)) for name in names)
        pipeline.feed(("injuries", 1), rows, seen=seen)
        pipeline.close()
        return [(letter.reason, letter.offset) for letter in pipeline.take().dead]

    pipeline = Pipeline(CONFIG, CATALOGUE, ORIGINS)
    pipeline.feed(("injuries", 0), numbered([(START + DAY, body("injuries", "a", START))]))
    for origin in ORIGINS:
        pipeline.mark(origin, START + 9 * DAY)
    pipeline.close()
    pipeline.take()
    # What is folded already is sent again after a crash and passed over; what was said before is not said again.
    assert reasons(pipeline, "a", "b") == [("arrived-too-late", 1)]
    assert reasons(pipeline, "a", "b", "c", seen=2) == [("arrived-too-late", 2)]
    assert len(pipeline.assess.state.ledger) == 1


@pytest.mark.parametrize("known", [True, False], ids=["a known alert", "an unknown alert"])
def test_a_disposition_while_watching_takes_effect_and_does_not_stop_the_run(tmp_path: Path, known: bool) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, [("injuries", 0, START, encoded(body("injuries", "a", START, outcome="died")))])
    desk = EmbeddedMedium(SqliteLog(tmp_path, 2))
    calls = [0]

    def stop() -> bool:
        calls[0] += 1
        if calls[0] == 4:
            alert_id = written(log, "emergency-response")[0]["id"] if known else "injury-surge-0"
            answer = {
                "disposition_id": "d",
                "alert_id": alert_id,
                "action": "acknowledge",
                "by": "desk",
                "at": iso(START),
            }
            desk.write("dispositions", [Outgoing(START + 2 * DAY, None, encoded(answer))])
        if calls[0] == 8:
            later = encoded(body("injuries", "b", START + 4 * DAY, outcome="died"))
            desk.write("injuries", [Outgoing(START + 4 * DAY, None, later)])
        return calls[0] > 12

    runtime(log).watch(stop, settle=0.0, poll=0.0)
    said = [(alert["status"], alert.get("acknowledged_by")) for alert in written(log, "emergency-response")]
    answered = [("acknowledged", "desk")] if known else []
    assert said == [("opened", None), *answered, ("opened", None)]
    assert letters(log) == []
    assert response(log) == replayed(log)


def test_state_of_another_configuration_is_refused_with_the_way_out(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    put(log, [("injuries", 0, START, encoded(body("injuries", "a", START)))])
    runtime(log).run_to_end()
    with pytest.raises(ConfigError, match=r"another configuration .* new directory"):
        EmbeddedRuntime(log, Config(partitions=2), CATALOGUE)
    renamed = CONFIG.replace(name="another name", topic_prefix="x.")
    EmbeddedRuntime(log, renamed, CATALOGUE)
