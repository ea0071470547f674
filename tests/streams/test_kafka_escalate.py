"""Escalate's state on Kafka: a snapshot of any size goes into rows and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from hashlib import blake2b
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from builders import DAY, START
from compacted import Compacted
from test_escalate import CALENDAR, CONFIG, T0, grave

from streams import kafka_escalate
from streams.kafka_escalate import KafkaEscalate
from streams.stored import StoredStateError
from streams.tally import DELAY_EDGES, SourceCount, Tally
from streams.transport import RecordBatch
from streams.wire import header

CATALOGUE = CONFIG.load_catalogue()


@pytest.fixture
def changelog(monkeypatch: pytest.MonkeyPatch) -> Compacted:
    held = Compacted("escalate-changelog")
    monkeypatch.setattr(kafka_escalate, "read_changelog", held.read)
    monkeypatch.setattr(kafka_escalate, "_PIECE_BYTES", 10_000)
    return held


def escalate() -> KafkaEscalate:
    return KafkaEscalate(CONFIG, CATALOGUE, 1, "group")


def filled(alerts: int) -> KafkaEscalate:
    stage = escalate()
    for number in range(alerts):
        stage.stage.grave(grave(f"grave-{number}"))
    return stage


def test_a_snapshot_of_any_size_comes_back_and_leaves_no_row_behind_when_it_shrinks(changelog: Compacted) -> None:
    first = filled(100)
    asyncio.run(first.checkpoint(changelog))
    large = len(changelog.rows)
    assert large > 5
    assert max(map(len, changelog.rows.values())) < 11_000
    second = escalate()
    asyncio.run(second.restore({}))
    assert second.stage.snapshot() == first.stage.snapshot()
    # The alerts run out, and two years later the ids too.
    for days in (CONFIG.escalate.grave_hold_days, CONFIG.state.remember_days):
        second.stage.offer(0, CALENDAR.tick(START + (days + 1) * DAY), ())
        second.stage.close()
        asyncio.run(second.checkpoint(changelog))
    assert set(changelog.rows) - {b"oversight"} == {b"state"}
    third = escalate()
    asyncio.run(third.restore({}))
    assert third.stage.snapshot() == second.stage.snapshot()
    assert third.stage.through is not None
    assert third.stage.through > T0


def test_a_snapshot_of_which_a_piece_is_lost_is_refused(changelog: Compacted) -> None:
    asyncio.run(filled(100).checkpoint(changelog))
    del changelog.rows[b"state-1"]
    with pytest.raises(StoredStateError, match=r"escalate-changelog: .*`tocsin state rebuild --broker \.\.\.`"):
        asyncio.run(escalate().restore({}))


def many_sources(count: int) -> KafkaEscalate:
    """Oversight that watches so many."""
    stage = escalate()
    delays = (1, *[0] * len(DELAY_EDGES))
    reports = [
        SourceCount(1, f"source-{blake2b(b'%d' % number).hexdigest()[:64]}", 1, delays) for number in range(count)
    ]
    stage.stage.offer(0, None, (), [(T0, Tally(CALENDAR.day_of_tick(T0) - 1, reports, [], [], {}))])
    return stage


def test_what_oversight_holds_comes_back_whatever_its_size(changelog: Compacted) -> None:
    first = many_sources(1_000)
    asyncio.run(first.checkpoint(changelog))
    assert len([key for key in changelog.rows if key.startswith(b"oversight-")]) > 3
    assert max(map(len, changelog.rows.values())) < 11_000
    second = escalate()
    asyncio.run(second.restore({}))
    held = first.stage.oversight, second.stage.oversight
    for one in held:
        one._changed = True
    assert held[0].snapshot() == held[1].snapshot()
    # Silent for so long, they have ceased to be sources.
    second.stage.offer(0, CALENDAR.tick(START + CONFIG.sources.forget_days * 3 * DAY), ())
    second.stage.close()
    asyncio.run(second.checkpoint(changelog))
    assert set(changelog.rows) == {b"state", b"oversight"}
    third = escalate()
    asyncio.run(third.restore({}))
    assert not third.stage.oversight._sources.watched


def test_a_piece_of_oversight_that_is_lost_is_told_with_the_way_to_mend_it(changelog: Compacted) -> None:
    asyncio.run(many_sources(1_000).checkpoint(changelog))
    del changelog.rows[b"oversight-1"]
    with pytest.raises(StoredStateError, match=r"escalate-changelog: .*oversight.*`tocsin state rebuild"):
        asyncio.run(escalate().restore({}))


def row(offset: int, value: bytes | None, kind: str | None) -> Any:
    headers = [] if kind is None else header(kind, 0)
    return SimpleNamespace(offset=offset, timestamp=T0, key=None, value=value, headers=headers)


def test_what_others_write_into_signals_is_passed_over_and_told(caplog: pytest.LogCaptureFixture) -> None:
    ours = msgspec.json.encode(grave("grave-1"))
    records = [
        row(3, b"{", "signal"), row(4, b"\xff", "grave"), row(5, ours, "grave"), row(6, b"[]", "closed"),
        row(7, b"{}", "tally"), row(8, b"7", "disposition"), row(9, None, "signal"), row(10, b"?", None),
    ]  # fmt: skip
    stage = escalate()
    stage.take(RecordBatch("signals", 0, 1, 1, records, next_offset=11))
    assert [alert.id for alert in stage._alerts] == ["grave-1"]
    assert stage.offset == 11
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" ")[0] for text in said] == [f"signals-0@{at}" for at in (3, 4, 6, 7, 8)]
    assert all("let nobody but tocsin write to this topic" in text for text in said)


def written_before(monkeypatch: pytest.MonkeyPatch, alerts: list[bytes | None], signals: int) -> None:
    """Let there be these alerts, so many signals, and no state."""

    async def read(client: object, topic: str, partition: int) -> AsyncIterator[Any]:
        for offset, value in enumerate(alerts):
            yield row(offset, value, None)

    async def end(*_: object) -> int:
        return signals

    monkeypatch.setattr(kafka_escalate, "read_committed", read)
    monkeypatch.setattr(kafka_escalate, "end_of", end)


def test_what_was_written_before_a_rebuild_is_not_written_again_and_is_forgotten_when_all_was_read_again(
    changelog: Compacted, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(kafka_escalate, "log_alert", lambda alert: sent.append(alert.id))
    written_before(monkeypatch, [b'{"id": "a", "revision": 1}', b'{"id": "b", "revision": 1}'], 3)
    stage = escalate()
    asyncio.run(stage.restore({}))
    for offset, name in enumerate(("a", "b", "c")):
        record = row(offset, msgspec.json.encode(grave(name)), "grave")
        stage.take(RecordBatch("signals", 0, 1, 1, [record], next_offset=offset + 1))
        asyncio.run(stage.checkpoint(changelog))
        assert bool(stage._written) == (offset < 2)
    assert sent == ["c"]


def test_what_others_write_among_the_alerts_is_passed_over_when_the_state_is_built_anew(
    changelog: Compacted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written_before(monkeypatch, [b"hello", None, b'{"id": "a", "revision": 2}', b'{"id": 7}'], 9)
    stage = escalate()
    assert asyncio.run(stage.restore({})) == 0
    assert stage._written == {("a", 2)}
    assert [record.getMessage().split(" ")[0] for record in caplog.records] == [
        f"emergency-response-0@{at}" for at in (0, 1, 3)
    ]
