"""Replays of a part of a record, replays that were stopped, and replays at a pace onto a sandbox."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from builders import CHINA, DAY, START, build_world, numbered, world_config
from held import Held
from small_world import fails, fill, inspections, succeeds, write_ndjson

from schemas.errors import TocsinError
from streams.config import Config
from streams.keeper import FOLDER
from streams.log import LogRecord, SqliteLog
from streams.medium import EmbeddedMedium, Medium, Outgoing
from streams.paced import arrivals, claim_folder, claim_prefix, send_paced
from streams.reading import Crew
from streams.replay import prepare, replay
from streams.slices import Slice, Sliced, parse_range
from streams.ticks import Origin
from streams.trials import Record

RAW_TOPICS = ("injuries", "inspections", "complaints", "accidents", "surveys", "losses", "dispositions")


@pytest.fixture(scope="module")
def world() -> Held:
    return Held(build_world(3, days=80, scale=0.1).raw)


Result = tuple[bytes, list[bytes]]


def replayed(medium: Medium, folder: Path, **options: Any) -> tuple[bytes, list[bytes]]:
    """The alerts, and the signals in any order."""
    config = world_config()
    prepare(folder, config, resume=True)
    replay(medium, config, config.load_catalogue(), folder, **options)
    signals = (folder / "signals.ndjson").read_bytes().splitlines()
    return (folder / "alerts.ndjson").read_bytes(), sorted(signals)


@pytest.fixture(scope="module")
def straight(world: Held, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What a replay of all gives that is not stopped."""
    return replayed(world, tmp_path_factory.mktemp("straight") / "out")


def known_by(world: Held, until: int) -> Held:
    """What had arrived: each partition up to the first arrival at that time or later, by hand."""
    kept: dict[Origin, list[LogRecord]] = {}
    for origin, rows in world.raw.items():
        running = itertools.accumulate((row.timestamp for row in rows), max)
        kept[origin] = [row for row, latest in zip(rows, running, strict=True) if latest < until]
    return Held(kept)


# --- a part --------------------------------------------------------------------------------------------------------


def test_as_of_is_a_replay_of_what_had_arrived_with_the_ticks_before_it_closed(world: Held, tmp_path: Path) -> None:
    until = START + 60 * DAY + 3_600_000
    found = replayed(world, tmp_path / "slice", part=Slice(until=until))
    before = known_by(world, until)
    assert 0 < sum(map(len, before.raw.values())) < sum(map(len, world.raw.values()))
    config = world_config()
    prepare(tmp_path / "whole", config)
    replay(before, config, config.load_catalogue(), tmp_path / "whole", part=Slice(until=until))
    assert (tmp_path / "whole" / "alerts.ndjson").read_bytes() == found[0]
    moments = [datetime.fromisoformat(json.loads(line)["as_of"]) for line in found[0].splitlines()]
    assert all(moment.timestamp() * 1_000 <= until for moment in moments)


def test_what_was_known_then_is_the_beginning_of_what_is_known_now(
    world: Held, straight: Result, tmp_path: Path
) -> None:
    """Alerts as of a day are those of the whole record up to that day: later records cannot change them."""
    until = START + 70 * DAY
    then = replayed(world, tmp_path / "then", part=Slice(until=until))[0].splitlines()
    now = straight[0].splitlines()

    def statistical(lines: list[bytes]) -> list[bytes]:
        # A grave event bears the time of its report, not of its tick.
        told = [(json.loads(line), line) for line in lines]
        return [
            line for alert, line in told
            if alert["kind"] != "grave-event" and datetime.fromisoformat(alert["as_of"]).timestamp() * 1_000 <= until
        ]  # fmt: skip

    assert statistical(then) == statistical(now)
    assert 0 < len(then) < len(now)


def test_a_slice_begins_and_ends_where_it_says() -> None:
    times = [5, 3, 8, 7, 12, 9, 20]
    held = Held({("injuries", 0): numbered((time, b"x") for time in times), ("injuries", 1): []})

    def offsets(part: Slice, start: int = 0) -> list[int]:
        sliced = Sliced(held, part)
        end = sliced.ends(["injuries"])["injuries", 0]
        return [r.offset for rows in sliced.read(("injuries", 0), start, end, 2) for r in rows]

    assert offsets(Slice()) == list(range(7))
    assert offsets(Slice(since=8)) == [2, 3, 4, 5, 6]
    assert offsets(Slice(until=8)) == [0, 1]
    assert offsets(Slice(since=6, until=12)) == [2, 3]
    assert offsets(Slice(ranges={("injuries", 0): (2, 5)})) == [2, 3, 4]
    assert offsets(Slice(ranges={("injuries", None): (5, None)})) == [5, 6]
    assert offsets(Slice(ranges={("injuries", 1): (5, None)})) == list(range(7))
    assert offsets(Slice(since=8), start=4) == [4, 5, 6]
    with pytest.raises(TocsinError, match="only read"):
        Sliced(held, Slice()).write("injuries", [])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("injuries-0=100..2000", (("injuries", 0), (100, 2000))),
        ("injuries=..5", (("injuries", None), (0, 5))),
        ("losses-12=7..", (("losses", 12), (7, None))),
    ],
)
def test_ranges_are_read(text: str, wanted: Any) -> None:
    assert parse_range(text) == wanted


@pytest.mark.parametrize("text", ["injuries", "injurie-0=1..2", "injuries-0=5..2", "injuries-0=a..b", "signals-0=1..2"])
def test_a_range_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(TocsinError, match="--range"):
        parse_range(text)


# --- stopped -------------------------------------------------------------------------------------------------------


class Stopped(Exception):
    """A crash as a line in a test."""


def test_a_replay_that_is_stopped_again_and_again_ends_with_the_same_files(
    world: Held, straight: Result, tmp_path: Path
) -> None:
    calls, stops = itertools.count(1), 0

    def stop(done: int, total: int) -> None:
        # Each time enough to read a little of every partition: what waits for its tick is read again.
        if next(calls) % 45 == 0:
            raise Stopped

    folder = tmp_path / "stopped"
    while True:
        try:
            found = replayed(world, folder, batch=5, keep_seconds=0.0, progress=stop)
            break
        except Stopped:
            stops += 1
            assert (folder / FOLDER).exists()
            assert not (folder / "alerts.ndjson").exists()
    assert stops >= 2
    assert found == straight
    assert not (folder / FOLDER).exists()


def test_what_was_added_meanwhile_is_not_in_a_replay_that_goes_on(
    world: Held, straight: Result, tmp_path: Path
) -> None:

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Stopped

    with pytest.raises(Stopped):
        replayed(world, tmp_path / "out", batch=40, keep_seconds=0.0, progress=stop)
    grown = Held({origin: [*rows, *rows[:5]] for origin, rows in world.raw.items()})
    assert replayed(grown, tmp_path / "out", batch=40) == straight


def test_an_unfinished_replay_of_something_else_is_not_gone_on_with(
    world: Held, straight: Result, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        if done == total:
            raise Stopped

    out = tmp_path / "out"
    with pytest.raises(Stopped):
        replayed(world, out, keep_seconds=0.0, progress=stop, source="one")
    with pytest.raises(TocsinError, match="unfinished replay of another record or configuration"):
        replayed(world, out, source="two")
    with pytest.raises(TocsinError, match="go on with --resume"):
        prepare(out, Config())
    assert replayed(world, out, source="one") == straight


# --- at a pace -----------------------------------------------------------------------------------------------------


def test_records_go_out_in_the_order_of_arrival_at_the_pace(world: Held) -> None:
    now, naps = 0.0, list[float]()
    target = Held({})

    def sleep(seconds: float) -> None:
        nonlocal now
        naps.append(seconds)
        now += seconds

    class Timed(Held):
        def write(self, topic: str, records: Sequence[Outgoing]) -> None:
            super().write(topic, records)
            sent.extend((now, topic, record) for record in records)

    sent: list[tuple[float, str, Outgoing]] = []
    target = Timed({})
    speed = 86_400.0 * 20
    count = send_paced(world, world.ends(RAW_TOPICS), target, speed, clock=lambda: now, sleep=sleep)
    wanted = list(arrivals(world, world.ends(RAW_TOPICS)))
    assert count == len(wanted) == sum(map(len, world.raw.values()))
    assert [arrival for arrival, _, _ in wanted] == sorted(arrival for arrival, _, _ in wanted)
    assert now == pytest.approx((wanted[-1][0] - wanted[0][0]) / 1_000 / speed, rel=1e-3)
    assert max(naps) <= 0.2
    first = wanted[0][0]
    due = sorted((arrival - first) / 1_000 / speed for arrival, _, _ in wanted)
    assert all(at >= when - 1e-6 for at, when in zip(sorted(at for at, _, _ in sent), due, strict=True))
    assert sorted((t, r.time, r.value or b"") for _, t, r in sent) == sorted(
        (origin[0], record.timestamp, record.value or b"") for _, origin, record in wanted
    )


def test_a_sandbox_is_no_place_that_anybody_uses(tmp_path: Path) -> None:
    for prefix in ("", "prod.", "mysandbox."):
        with pytest.raises(TocsinError, match="prefix begins with sandbox"):
            claim_prefix(prefix, "")
    with pytest.raises(TocsinError, match="the record itself"):
        claim_prefix("sandbox.", "sandbox.")
    assert claim_prefix("sandbox.", "prod.") == "sandbox."
    used = fill(tmp_path / "data", tmp_path)
    with pytest.raises(TocsinError, match="the record itself"):
        claim_folder(used / ".." / "data", used)
    with pytest.raises(TocsinError, match="in use, not a sandbox"):
        claim_folder(used, tmp_path)
    assert claim_folder(claim_folder(tmp_path / "box", used), used) == tmp_path / "box"


def test_a_run_on_the_sandbox_rings_as_the_record_does(tmp_path: Path) -> None:
    data, box = fill(tmp_path / "data", tmp_path), tmp_path / "box"
    before = contents(data)
    told = succeeds("replay", "--data", data, "--speed", 1e9, "--onto", box).stdout
    assert told.startswith("121 records sent to")
    assert contents(data) == before
    for folder in (data, box):
        succeeds("run", "--until-end", "--data", folder)
        succeeds("alerts", "export", folder / "alerts.ndjson", "--data", folder)
    alerts = [
        [{k: v for k, v in json.loads(line).items() if k != "provenance"} for line in file.read_bytes().splitlines()]
        for file in (data / "alerts.ndjson", box / "alerts.ndjson")
    ]
    assert alerts[0] == alerts[1]
    assert len(alerts[0]) >= 2


def contents(data: Path) -> dict[Origin, int]:
    log = SqliteLog(data, 4)
    try:
        return EmbeddedMedium(log).ends([*RAW_TOPICS, "emergency-response", "signals", "dead-letters"])
    finally:
        log.close()


# --- the command ---------------------------------------------------------------------------------------------------


def test_the_command_takes_parts_and_goes_on(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    day = datetime.fromtimestamp((START + 15 * DAY) / 1_000, CHINA).date().isoformat()
    assert succeeds("replay", "--data", data, "--out", tmp_path / "a", "--as-of", day).stdout.startswith("61 records")
    assert succeeds("replay", "--data", data, "--out", tmp_path / "b", "--since", day).stdout.startswith("60 records")
    ranged = succeeds("replay", "--data", data, "--out", tmp_path / "c", "--range", "inspections=0..0")
    assert ranged.stdout.startswith("1 records")
    assert succeeds("replay", "--data", data, "--out", tmp_path / "d", "--resume").stdout.startswith("121 records")


def test_wrong_calls_are_one_line(tmp_path: Path) -> None:
    data, out = fill(tmp_path / "data", tmp_path), tmp_path / "out"
    args = ("replay", "--data", data)
    assert "name either a folder" in fails(*args).line
    assert "go together" in fails(*args, "--speed", 5).line
    assert "name either a folder" in fails(*args, "--speed", 5, "--onto", out, "--out", out).line
    assert "is no time; write it as" in fails(*args, "--out", out, "--as-of", "yesterday").line
    assert "does not lie after" in fails(*args, "--out", out, "--as-of", "2024-01-01", "--since", "2024-01-02").line
    assert "--range bad" in fails(*args, "--out", out, "--range", "bad").line
    assert "that is the record itself" in fails(*args, "--speed", 5, "--onto", data).line
    file = write_ndjson(tmp_path / "x.ndjson", inspections()[:1])
    assert "--resume is for" in fails("replay", f"inspections={file}", "--out", out, "--resume").line
    assert "publish files instead" in fails("replay", f"inspections={file}", "--speed", 5, "--onto", out).line


# --- read beside ---------------------------------------------------------------------------------------------------


def filled(world: Held, folder: Path) -> EmbeddedMedium:
    """A log on disk, for other processes to open."""
    log = SqliteLog(folder, 2)
    with log.transaction():
        for (topic, part), rows in world.raw.items():
            log.append(topic, [(part, row.timestamp, row.key, row.value, row.headers) for row in rows])
    return EmbeddedMedium(log)


def test_a_stopped_replay_goes_on_with_other_processes_beside(world: Held, tmp_path: Path) -> None:
    medium = filled(world, tmp_path / "data")
    config = world_config()
    one = replayed(medium, tmp_path / "one")

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    prepare(tmp_path / "two", config)
    crew = Crew(2, Record(tmp_path / "data", 2), Slice())
    with pytest.raises(KeyboardInterrupt):
        replay(medium, config, config.load_catalogue(), tmp_path / "two", batch=50, keep_seconds=0.0, crew=crew,
               progress=stop)  # fmt: skip
    assert (tmp_path / "two" / FOLDER).exists()
    assert replayed(medium, tmp_path / "two", batch=70, crew=crew) == one
    medium.close()


def test_what_goes_wrong_beside_is_said(world: Held, tmp_path: Path) -> None:
    config = world_config()
    prepare(tmp_path / "out", config)
    crew = Crew(1, Record(tmp_path / "data", 3), Slice())
    filled(world, tmp_path / "data").close()
    with pytest.raises(TocsinError, match="partitions is 2, the configuration says 3"):
        replay(world, config, config.load_catalogue(), tmp_path / "out", crew=crew)
