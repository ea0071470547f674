"""Everything that is stored: of the next version, of the one before, damaged. Each is one line that says what to do."""

from __future__ import annotations

import asyncio
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from builders import START, World, body, build_world, encoded, world_config
from small_world import fails, fill, succeeds
from test_embedded import in_sessions, put, runtime

from schemas.errors import TocsinError
from schemas.events import EVENT_TYPES
from schemas.topics import kind_of_topic
from streams import kafka_assess, kafka_escalate
from streams.assess import PROGRESS_VERSION
from streams.columns import COLUMNS_VERSION, EventColumns
from streams.config import built_under
from streams.decode import has_unknown_fields
from streams.escalate import STATE_VERSION
from streams.intake import SAMPLE
from streams.kafka_assess import KafkaAssess
from streams.kafka_escalate import KafkaEscalate
from streams.log import SqliteLog
from streams.metrics import Metrics
from streams.oversight import OVERSIGHT_VERSION
from streams.stored import StoredStateError
from streams.transport import RecordBatch
from streams.wire import KEYED_VERSION

CONFIG = world_config(partitions=2, tick_seconds=43_200)
CATALOGUE = CONFIG.load_catalogue()
ORIGINS = (("injuries", 0),)
Spoil = Any


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with every kind of state in it."""
    folder = tmp_path_factory.mktemp("stored")
    world: World = build_world(5, days=45, scale=0.1)
    log = SqliteLog(folder, 2)
    put(log, in_sessions(world, 1)[0])
    runtime(log).run_to_end()
    log.close()
    return folder


def of_version(number: int) -> Spoil:
    """The same bytes with another version in the first place."""

    def spoil(data: bytes) -> bytes:
        fields = msgspec.msgpack.decode(data)
        return msgspec.msgpack.encode([number, *fields[1:]])

    return spoil


def of_other_layout(number: int) -> Spoil:
    """Another version, and nothing behind it that this one could decode."""
    return lambda data: msgspec.msgpack.encode([number, {"quite": "another"}, None, 7])


def cut(share: float) -> Spoil:
    return lambda data: data[: int(len(data) * share)]


def unchanged_version_other_fields(data: bytes) -> bytes:
    return msgspec.msgpack.encode([msgspec.msgpack.decode(data)[0], "?", [], {}])


def bits_turned(data: bytes) -> bytes:
    return bytes(255 - byte for byte in data)


DAMAGES = [
    (cut(0.0), "cannot be read"), (cut(0.9), "cannot be read"),
    (unchanged_version_other_fields, "cannot be read"), (bits_turned, "cannot be read"),
]  # fmt: skip


def versions(current: int) -> list[tuple[Spoil, str]]:
    newer, older = f"of version {current + 1}", f"of version {current - 1}"
    return [
        (of_version(current + 1), f"{newer}, this tocsin reads version {current}: a newer one wrote it"),
        (of_version(current - 1), f"{older}, this tocsin reads version {current}: an older one wrote it"),
        (of_other_layout(current + 1), f"{newer}, this tocsin reads version {current}"),
        (of_other_layout(current - 1), f"{older}, this tocsin reads version {current}"),
    ]


def zipped(spoil: Spoil) -> Spoil:
    return lambda data: zlib.compress(spoil(zlib.decompress(data)))


def in_segment(spoil: Spoil) -> Spoil:
    """A change of the event columns in a segment."""

    def change(data: bytes) -> bytes:
        (ticks,) = msgspec.msgpack.decode(data)
        return msgspec.msgpack.encode([[(ticks[0][0], spoil(ticks[0][1])), *ticks[1:]]])

    return change


CASES: list[tuple[str, Spoil, str]] = [
    *(("progress", spoil, said) for spoil, said in [*versions(PROGRESS_VERSION), *DAMAGES]),
    *(("escalate", spoil, said) for spoil, said in [*versions(STATE_VERSION), *DAMAGES]),
    *(("oversight", zipped(spoil), said) for spoil, said in [*versions(OVERSIGHT_VERSION)[:2], *DAMAGES[1:]]),
    ("oversight", *DAMAGES[1]),
    *(("segment", in_segment(spoil), said) for spoil, said in [*versions(COLUMNS_VERSION)[:2], *DAMAGES[1:]]),
    ("segment", *DAMAGES[1]),
]


def spoilt(folder: Path, what: str, spoil: Spoil) -> SqliteLog:
    """An open copy of a directory in which one thing is spoilt."""
    log = SqliteLog(folder, 2)
    if what == "segment":
        ((seq, value),) = log._db.execute("SELECT seq, value FROM segments ORDER BY seq LIMIT 1").fetchall()
        log._db.execute("UPDATE segments SET value = ? WHERE seq = ?", (spoil(value), seq))
    else:
        held = log.state(what)
        assert held is not None
        log.set_state(what, spoil(held))
    return log


@pytest.mark.parametrize(("what", "spoil", "said"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_embedded_run_refuses_it_in_one_line_that_says_what_to_do(
    filled: Path, tmp_path: Path, what: str, spoil: Spoil, said: str
) -> None:
    for file in filled.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    log = spoilt(tmp_path, what, spoil)
    with pytest.raises(StoredStateError) as caught:
        runtime(log)
    log.close()
    text = str(caught.value)
    assert said in text
    assert text.startswith(f"{tmp_path}: ")
    assert f"`tocsin state rebuild --data {tmp_path}` builds it anew" in text
    assert "\n" not in text


@pytest.mark.parametrize("bad", [b"", b"\xc1", msgspec.msgpack.encode([b"?"]), msgspec.msgpack.encode([[1]])])
def test_effects_of_labs_that_cannot_be_read_are_refused_likewise(filled: Path, tmp_path: Path, bad: bytes) -> None:
    for file in filled.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    log = SqliteLog(tmp_path, 2)
    log.set_state("effects", bad)
    with pytest.raises(StoredStateError, match=r"the effects of the labs cannot be read.*`tocsin state rebuild --data"):
        runtime(log)
    log.close()


def test_the_command_says_so_and_the_command_that_it_names_mends_it(tmp_path: Path) -> None:
    data = fill(tmp_path / "data", tmp_path)
    succeeds("run", "--until-end", "--data", data)
    alerts = succeeds("alerts", "list", "--canonical", "--data", data).stdout
    for what, spoil in (("progress", of_version(PROGRESS_VERSION + 1)), ("segment", cut(0.5))):
        log = SqliteLog(data, 4)
        if what == "segment":
            log._db.execute("UPDATE segments SET value = x'93'")
        else:
            log.set_state(what, spoil(log.state(what) or b""))
        log.close()
        failure = fails("run", "--until-end", "--data", data)
        assert failure.status == 1
        assert "tocsin state rebuild" in failure.line
        succeeds("state", "rebuild", "--data", data)
        assert succeeds("run", "--until-end", "--data", data).stdout == ""
        assert succeeds("alerts", "list", "--canonical", "--data", data).stdout == alerts


# --- Kafka ---------------------------------------------------------------------------------------------------------


def changelog(filled: Path) -> dict[str, bytes]:
    """The embedded state as the rows that Kafka's changelogs hold."""
    log = SqliteLog(filled, 2)
    under = built_under(CONFIG, CATALOGUE)
    progress, escalate, oversight = (log.state(name) or b"" for name in ("progress", "escalate", "oversight"))
    rows = {
        "segment-0-0": next(log.segments()),
        "progress": msgspec.msgpack.encode([progress, 5, 1, under]),
        "state": msgspec.msgpack.encode([escalate, 5, under]),
        "oversight": oversight,
    }
    log.close()
    return rows


def restored(rows: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """The offsets at which the stages go on after having read those rows."""

    async def read(client: dict[str, Any], topic: str, partition: int, progress: Any = None) -> Any:
        names = ("state", "oversight") if topic.endswith("escalate-changelog") else ("segment-0-0", "progress")
        return {name.encode(): rows[name] for name in names}

    monkeypatch.setattr(kafka_assess, "read_changelog", read)
    monkeypatch.setattr(kafka_escalate, "read_changelog", read)
    assess = KafkaAssess(CONFIG, CATALOGUE, ORIGINS, 0, "g")
    escalate = KafkaEscalate(CONFIG, CATALOGUE, 1, "g")
    return asyncio.run(assess.restore({})), asyncio.run(escalate.restore({}))


def test_the_rows_as_they_are_can_be_read(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert restored(changelog(filled), monkeypatch) == (5, 5)


def in_row(spoil: Spoil) -> Spoil:
    def change(data: bytes) -> bytes:
        first, *rest = msgspec.msgpack.decode(data)
        return msgspec.msgpack.encode([spoil(first), *rest])

    return change


KAFKA_CASES: list[tuple[str, Spoil, str]] = [
    *(("progress", in_row(spoil), said) for spoil, said in versions(PROGRESS_VERSION)),
    *(("state", in_row(spoil), said) for spoil, said in versions(STATE_VERSION)[:2]),
    *(("oversight", zipped(spoil), said) for spoil, said in versions(OVERSIGHT_VERSION)[:2]),
    *(("segment-0-0", in_segment(spoil), said) for spoil, said in versions(COLUMNS_VERSION)[:2]),
    *((name, spoil, said) for name in ("progress", "state", "segment-0-0") for spoil, said in (DAMAGES[1], DAMAGES[3])),
]


@pytest.mark.parametrize(("what", "spoil", "said"), KAFKA_CASES, ids=lambda one: one if isinstance(one, str) else "")
def test_a_kafka_worker_refuses_it_in_one_line_that_says_what_to_do(
    filled: Path, monkeypatch: pytest.MonkeyPatch, what: str, spoil: Spoil, said: str
) -> None:
    rows = changelog(filled)
    rows[what] = spoil(rows[what])
    with pytest.raises(StoredStateError) as caught:
        restored(rows, monkeypatch)
    text = str(caught.value)
    assert said in text
    assert text.startswith(("assess-changelog-0: ", "escalate-changelog: "))
    assert "`tocsin state rebuild --broker ...`" in text
    assert "\n" not in text


class _Message:
    offset = 17
    timestamp = 0
    headers = ()

    def __init__(self, value: bytes) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (msgspec.msgpack.encode([KEYED_VERSION + 1, [], None, b""]), f"of version {KEYED_VERSION + 1}"),
        (msgspec.msgpack.encode([KEYED_VERSION - 1, "?"]), f"of version {KEYED_VERSION - 1}"),
        (b"", "cannot be read"),
        (
            msgspec.msgpack.encode([KEYED_VERSION, [], ("injuries", 0), EventColumns.empty().pack()[:-9]]),
            "cannot be read",
        ),
    ],
)
def test_keyed_events_of_another_version_are_refused_in_one_line(value: bytes, said: str) -> None:
    batch = RecordBatch("keyed-events", 3, 1, 0, [_Message(value)], 18, 18, 0)  # type: ignore[list-item]
    with pytest.raises(TocsinError) as caught:
        KafkaAssess(CONFIG, CATALOGUE, ORIGINS, 3, "g").take(batch)
    assert str(caught.value).startswith("keyed-events-3@17: ")
    assert said in str(caught.value)
    assert "`tocsin state rebuild --broker ...`" in str(caught.value)


def test_watermarks_alone_are_checkpointed_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("streams.kafka_assess.time.monotonic", lambda: now)
    part = KafkaAssess(CONFIG, CATALOGUE, ORIGINS, 3, "g")
    now += 100
    assert not part.due(1.0)
    part = KafkaAssess(CONFIG, CATALOGUE, ORIGINS, 3, "g")
    marks = msgspec.msgpack.encode([KEYED_VERSION, [(*ORIGINS[0], 5, 5)], None, b""])
    part.take(RecordBatch("keyed-events", 3, 1, 0, [_Message(marks)], 18, 18, 0))  # type: ignore[list-item]
    now += 9
    assert not part.due(1.0)
    now += 1
    assert part.due(1.0)


# --- events of newer producers -------------------------------------------------------------------------------------


def test_fields_that_this_version_does_not_know_are_ignored_kept_and_counted(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, 2)
    sent = [
        encoded(body("injuries", f"i{n}", START, **({"new_field": {"a": [n]}} if n < 20 or n % 2 else {})))
        for n in range(64)
    ]
    put(log, [("injuries", 0, START, value) for value in sent])
    metrics = Metrics(CONFIG, CATALOGUE, "embedded")
    running = runtime(log, meter=metrics)
    running.run_to_end()
    assert len(running.pipeline.assess.state.ledger) == 64
    assert [record.value for record in log.read(("injuries", 0), 0, 100)] == sent

    def count(name: str, topic: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"topic": topic})

    assert count("tocsin_events_looked_into_total", "injuries") == 64 / SAMPLE
    # Of the offsets 0, 16, 32 and 48 the first two have the new field.
    assert count("tocsin_events_unknown_fields_total", "injuries") == 2
    assert count("tocsin_events_unknown_fields_total", "losses") == 0


@pytest.mark.parametrize("topic", ["inspections", "injuries", "complaints", "accidents", "surveys", "losses"])
def test_no_field_of_ours_is_unknown(topic: str) -> None:
    kind = kind_of_topic(topic)
    every = dict.fromkeys(EVENT_TYPES[kind].__struct_fields__)
    assert not has_unknown_fields(kind, encoded(every))
    assert has_unknown_fields(kind, encoded({**every, "Product": 1}))
