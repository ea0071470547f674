"""The transport's book, its commits against a client that misbehaves, the settings of its app; no broker."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from aiokafka import errors
from faust.types import TP
from mode.threads import WorkerThread

from streams.transport import RecordBatch, Transport, make_app
from streams.transport_client import ClientThread
from streams.transport_ledger import Fetched, Ledger

A, B = TP("t", 0), TP("t", 1)


def batch(ledger: Ledger, tp: TP, first: int, count: int = 10, next_offset: int | None = None) -> RecordBatch:
    """A batch as it would be fetched now."""
    records = [SimpleNamespace(offset=n) for n in range(first, first + count)]
    following = first + count if next_offset is None else next_offset
    return RecordBatch(*tp, ledger.generation, ledger.runs()[tp], records, following, 1000, 100)


def answer(ledger: Ledger, *batches: RecordBatch, **positions: int) -> Fetched:
    """A poll's answer with these batches."""
    at = {b.tp: b.next_offset for b in batches}
    return Fetched(batches, at, dict.fromkeys(at, 1000), ledger.runs())


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger(max_batches=3, max_bytes=250)
    ledger.begin({A, B}, 7)
    ledger.open = True
    return ledger


def test_a_generation_begins_closed_and_may_commit() -> None:
    ledger = Ledger()
    assert not ledger.may_commit(0)
    generation = ledger.begin({A}, 3)
    assert ledger.fetchable() == set()
    assert ledger.may_commit(generation)
    assert not ledger.may_commit(generation - 1)


def test_a_closed_generation_takes_no_batches_and_may_still_commit(ledger: Ledger) -> None:
    late = answer(ledger, batch(ledger, A, 0))
    ledger.close()
    assert list(ledger.accept(late)) == []
    assert ledger.may_commit(ledger.generation)
    ledger.end()
    assert not ledger.may_commit(ledger.generation)
    assert ledger.tps == frozenset()


def test_batches_of_an_older_generation_are_dropped(ledger: Ledger) -> None:
    old = batch(ledger, A, 0)
    late = answer(ledger, old)
    ledger.begin({A}, 8)
    ledger.open = True
    assert list(ledger.accept(late)) == []
    assert not ledger.is_current(old)
    assert ledger.position(A) is None
    ledger.finish(old)
    assert ledger.unfinished(A) == 0


def test_a_worker_is_at_rest_once_all_is_read_to_its_end_and_finished(ledger: Ledger) -> None:
    def polled(a: int, b: int, *batches: RecordBatch) -> None:
        list(ledger.accept(Fetched(batches, {A: a, B: b}, {A: 10, B: 0}, ledger.runs())))

    assert not ledger.at_rest  # nothing is known yet
    polled(0, 0)
    assert not ledger.at_rest  # ten records are still to be read
    last = batch(ledger, A, 0)
    polled(10, 0, last)
    assert not ledger.at_rest  # an agent has them in hand
    ledger.finish(last)
    assert ledger.at_rest
    ledger.new_run(B)
    assert not ledger.at_rest  # a seek, and nobody knows yet to where
    polled(10, 0)
    assert ledger.at_rest
    ledger.close()
    assert not ledger.at_rest


def test_batches_from_before_a_seek_are_dropped(ledger: Ledger) -> None:
    held, late = batch(ledger, A, 0), batch(ledger, A, 10)
    assert list(ledger.accept(answer(ledger, held))) == [held]
    fetched = answer(ledger, late)
    run = ledger.new_run(A)
    ledger.sought(A, run, 500)
    assert list(ledger.accept(fetched)) == []
    assert not ledger.is_current(held)
    assert ledger.position(A) == 500
    assert ledger.unfinished(A) == 0


def test_where_a_seek_went_does_not_overwrite_what_was_read_since(ledger: Ledger) -> None:
    run = ledger.new_run(A)
    list(ledger.accept(answer(ledger, batch(ledger, A, 500))))
    ledger.sought(A, run, 500)
    ledger.finish(next(iter(ledger._readings[A].unfinished)))
    assert ledger.position(A) == 510
    ledger.sought(A, run - 1, 3)
    assert ledger.position(A) == 510


def test_a_position_waits_for_the_oldest_unfinished_batch(ledger: Ledger) -> None:
    first, second = batch(ledger, A, 5), batch(ledger, A, 15, next_offset=30)
    list(ledger.accept(answer(ledger, first, second)))
    assert ledger.position(A) == 5
    ledger.finish(second)
    assert ledger.position(A) == 5
    ledger.finish(first)
    assert ledger.position(A) == 30  # behind the markers after the last record


def test_a_poll_without_records_moves_the_position_and_the_end(ledger: Ledger) -> None:
    list(ledger.accept(Fetched((), {A: 12}, {A: 14}, ledger.runs())))
    assert (ledger.position(A), ledger.end_offset(A)) == (12, 14)
    assert (ledger.position(B), ledger.end_offset(B)) == (None, None)


@pytest.mark.parametrize(("max_batches", "max_bytes"), [(3, 10**9), (10**9, 250)])
def test_a_partition_is_not_polled_while_its_agents_lag(max_batches: int, max_bytes: int) -> None:
    ledger = Ledger(max_batches, max_bytes)
    ledger.begin({A, B}, 1)
    ledger.open = True
    held = deque(batch(ledger, A, 10 * n) for n in range(3))
    list(ledger.accept(answer(ledger, *held)))
    assert ledger.fetchable() == {B}
    ledger.finish(held.popleft())
    assert ledger.fetchable() == {A, B}


# -- commits


class Coordinator:
    """aiokafka's, as far as commits go: answers each request as told."""

    def __init__(self, *answers: Any, generation: int = 7) -> None:
        self.answers, self.generation, self.sent = deque(answers), generation, []

    async def ensure_coordinator_known(self) -> None:
        pass

    async def _do_commit_offsets(self, assignment: Any, offsets: Any) -> None:
        self.sent.append((self.generation, dict(offsets)))
        answer = self.answers.popleft()
        if callable(answer):
            answer = answer(self)
        if isinstance(answer, Exception):
            raise answer


def commit(coordinator: Coordinator, may: Any = lambda: True) -> bool:
    async def run() -> bool:
        thread = SimpleNamespace(
            _ensure_consumer=lambda: SimpleNamespace(_coordinator=coordinator), _committing=asyncio.Lock()
        )
        return await ClientThread._commit_offsets(thread, {A: (5, "note")}, 7, may)  # type: ignore[arg-type]

    return asyncio.run(run())


def test_a_commit_carries_offset_and_metadata() -> None:
    coordinator = Coordinator(None)
    assert commit(coordinator)
    assert coordinator.sent == [(7, {A: (5, "note")})]


@pytest.mark.parametrize(
    "error", [errors.IllegalGenerationError, errors.UnknownMemberIdError, errors.RebalanceInProgressError]
)
def test_a_commit_of_a_lost_membership_is_refused(error: type[Exception]) -> None:
    assert not commit(Coordinator(error()))


def test_a_commit_is_not_sent_in_another_kafka_generation() -> None:
    coordinator = Coordinator(None, generation=8)
    assert not commit(coordinator)
    assert coordinator.sent == []


def test_a_commit_is_not_retried_into_the_next_generation() -> None:
    def lose(coordinator: Coordinator) -> Exception:
        coordinator.generation += 1
        return errors.GroupCoordinatorNotAvailableError()

    coordinator = Coordinator(lose, None)
    assert not commit(coordinator)
    assert len(coordinator.sent) == 1


def test_a_commit_is_retried_when_that_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.transport_client.RETRY_SECONDS", 0)
    assert commit(Coordinator(errors.GroupCoordinatorNotAvailableError(), None))


def test_a_commit_that_the_broker_refuses_for_good_raises() -> None:
    with pytest.raises(errors.GroupAuthorizationFailedError):
        commit(Coordinator(errors.GroupAuthorizationFailedError()))


def test_a_commit_is_dropped_when_the_generation_ended_meanwhile() -> None:
    coordinator = Coordinator(None)
    assert not commit(coordinator, may=lambda: False)
    assert coordinator.sent == []


# -- the client's thread


class LateThread(WorkerThread):
    """A thread that gets its turn late, as on a busy machine; what is left of it does not hold up the process."""

    def __init__(self, service: Any) -> None:
        super().__init__(service)
        self.daemon = True

    def run(self) -> None:
        time.sleep(0.2)
        super().run()


class WithoutBroker(ClientThread):
    Worker = LateThread

    async def on_start(self) -> None:
        pass


@pytest.mark.parametrize("told_first", [False, True])
def test_a_client_thread_told_to_end_before_it_lives_ends(told_first: bool) -> None:
    async def run() -> bool:
        app = make_app("unit", "one:9092")
        thread = WithoutBroker(app.consumer, loop=asyncio.get_running_loop())
        if told_first:
            await thread.stop()
        starting = asyncio.create_task(thread.start())
        await asyncio.sleep(0)  # the thread is there now, and has not begun to serve
        await asyncio.wait_for(thread.stop(), 10)
        await starting
        lives = thread._thread is not None and thread._thread.is_alive()
        for one in (app.consumer._thread, *([] if lives else [thread])):
            one.thread_loop.close()
        return lives

    assert not asyncio.run(run())


# -- what is read


def test_what_was_drained_is_stamped_with_the_run_of_that_moment() -> None:
    def state(position: int | None) -> SimpleNamespace:
        return SimpleNamespace(has_valid_position=position is not None, position=position, lso=99)

    record = SimpleNamespace(offset=40, key=None, value=b"abc")
    thread = SimpleNamespace(_generation=2, _runs={A: 5, B: 6}, _states=lambda tps: {A: state(44), B: state(None)})
    fetched = ClientThread._stamp(thread, {A: [record], B: [record]})  # type: ignore[arg-type]
    (only,) = fetched.batches
    assert (only.tp, only.generation, only.run, only.next_offset, only.end_offset) == (A, 2, 5, 44, 99)
    assert (fetched.positions, fetched.ends) == ({A: 44}, {A: 99, B: 99})


# -- the app


class Owner:
    async def on_assigned(self, tps: frozenset[TP], generation: int) -> dict[TP, int]:
        return {}

    async def on_revoked(self, tps: frozenset[TP]) -> None:
        pass

    async def on_end(self) -> None:
        pass


def test_the_app_leaves_nothing_to_faust() -> None:
    owner = Owner()
    credentials = faust.SASLCredentials(username="u", password="p", mechanism="PLAIN")
    app = make_app("unit", "one:9092, two:9093", owner=owner, credentials=credentials, group_instance_id="w1")
    assert isinstance(app.transport, Transport)
    assert app.transport.owner is owner
    assert [str(url) for url in app.conf.broker] == ["tocsin://one:9092", "tocsin://two:9093"]
    conf = app.conf
    assert conf.broker_credentials is credentials
    assert conf.consumer_group_instance_id == "w1"
    assert (conf.web_enabled, conf.stream_wait_empty, conf.topic_allow_declare) == (False, False, False)
    assert not app.topics.acks_enabled_for("any")


@pytest.mark.parametrize("value", [None, b"\xff\x00not json"])
def test_values_pass_undecoded(value: bytes | None) -> None:
    app = make_app("unit", "nowhere:1")
    topic = app.topic("t")
    message = SimpleNamespace(key=b"k", value=value, headers={})
    event = asyncio.run(topic.decode(message))
    assert event.value is value
