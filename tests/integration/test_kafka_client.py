"""The commands' side of Kafka against a real broker: what goes in comes out, and what goes wrong says so in a line."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broker import PASSWORD, USER, KafkaBroker, certificate, run_kcat, tls_and_acls
from broker import create_topics as make

from schemas.topics import ALL_TOPICS, RAW_TOPICS
from streams.decode import Record
from streams.kafka_client import (
    MAX_RECORD_BYTES,
    BrokerAddress,
    BrokerError,
    KafkaMedium,
    Security,
    TopicProblems,
    check_topics,
    create_topics,
    describe,
)
from streams.log import partition_for
from streams.medium import Medium, Outgoing, headers_of

pytestmark = pytest.mark.kafka

T0 = 1_600_000_000_000
KEEP = {"retention.ms": "-1", "message.timestamp.type": "CreateTime"}


def at(bootstrap: str) -> BrokerAddress:
    return BrokerAddress.parse(f"kafka://{bootstrap}")


@pytest.fixture
def medium(kafka: Any, topic_prefix: str) -> Iterator[KafkaMedium]:
    made = KafkaMedium(at(kafka.bootstrap), topic_prefix, Security())
    yield made
    made.close()


def everything(medium: Medium, topic: str, batch: int = 500) -> dict[int, list[Record]]:
    return {
        origin[1]: [record for records in medium.read(origin, 0, end, batch) for record in records]
        for origin, end in medium.ends([topic]).items()
    }


def complaint(medium: Medium, topic: str = "losses") -> str:
    with pytest.raises(BrokerError) as caught:
        medium.write(topic, [Outgoing(T0, b"k", b"v")])
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- what goes in comes out -------------------------------------------------------------------------------------------


def test_records_come_back_as_they_went(medium: KafkaMedium, kafka: Any, topic_prefix: str) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses", partitions=3, config=KEEP)
    records = [
        Outgoing(T0 + 5, b"a", b"one", [("ce_id", b"1"), ("ce_id", b""), ("名", "值".encode())]),
        Outgoing(T0 + 3, b"b", None),
        Outgoing(T0 + 4, None, b"no key"),
        Outgoing(0, b"", b""),
        Outgoing(T0 + 9, b"a", b"\x00\xff" * 1000),
    ]
    medium.write("losses", records)
    medium.write("losses", [])
    found = everything(medium, "losses", batch=1)
    wanted: dict[int, list[tuple[Any, ...]]] = {0: [], 1: [], 2: []}
    for record in records:
        wanted[partition_for(record.key, 3)].append((record.time, record.key, record.value, tuple(record.headers)))
    told = {part: [(r.timestamp, r.key, r.value, headers_of(r)) for r in rows] for part, rows in found.items()}
    assert told == wanted
    assert [r.offset for rows in found.values() for r in rows] == [
        i for rows in wanted.values() for i in range(len(rows))
    ]
    assert medium.ends(["losses"]) == {("losses", part): len(rows) for part, rows in wanted.items()}


def test_keys_go_where_other_clients_send_them(medium: KafkaMedium, kafka: Any, topic_prefix: str, kcat: Path) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses", f"{topic_prefix}surveys", partitions=7)
    keys = [f"product-{n}{'é' * (n % 5)}" for n in range(200)]
    medium.write("losses", [Outgoing(T0, key.encode(), b"v") for key in keys])
    lines = "".join(f"{key}|v\n" for key in keys).encode()
    how = ["-P", "-t", f"{topic_prefix}surveys", "-K", "|", "-X", "topic.partitioner=murmur2_random"]
    run_kcat(kcat, kafka.bootstrap, *how, given=lines)

    def placed(topic: str) -> dict[int, set[bytes | None]]:
        return {part: {record.key for record in rows} for part, rows in everything(medium, topic).items()}

    assert placed("losses") == placed("surveys")
    assert min(len(found) for found in placed("losses").values()) > 0


def end_is(medium: KafkaMedium, end: int) -> bool:
    """Whether ``losses`` soon ends there: a broker says that a transaction is decided before its marker is written."""
    deadline = time.monotonic() + 30
    while (found := medium.ends(["losses"])) != {("losses", 0): end} and time.monotonic() < deadline:
        time.sleep(0.05)
    return found == {("losses", 0): end}


@pytest.fixture
def producer(kafka: Any, topic_prefix: str) -> Iterator[Any]:
    from kafka import KafkaProducer

    with contextlib.closing(
        KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=topic_prefix)
    ) as transactional:
        transactional.init_transactions()
        yield transactional


def test_a_bounded_read_ends_at_its_position(medium: KafkaMedium, kafka: Any, topic_prefix: str, producer: Any) -> None:
    name = f"{topic_prefix}losses"
    make(kafka.bootstrap, name)
    for number in range(6):
        producer.begin_transaction()
        for value in range(3):
            producer.send(name, b"%d-%d" % (number, value))
        producer.flush()
        (producer.commit_transaction if number % 2 == 0 else producer.abort_transaction)()
    # Every transaction is three records and a marker; the last one is aborted, so the topic ends in five offsets
    # without a record.
    origin = ("losses", 0)
    assert end_is(medium, 24)
    committed = [b"%d-%d" % (number, value) for number in (0, 2, 4) for value in range(3)]
    began = time.monotonic()
    assert [r.value for r in everything(medium, "losses")[0]] == committed
    assert [r.value for batch in medium.read(origin, 9, 18, 2) for r in batch] == committed[4:8]
    assert list(medium.read(origin, 20, 24, 2)) == []
    assert list(medium.read(origin, 24, 24, 2)) == []
    # A position past the end of the partition is not waited for, as on the embedded log.
    assert [r.value for batch in medium.read(origin, 17, 99, 9) for r in batch] == committed[7:]
    assert time.monotonic() - began < 5
    # What is not decided yet is not there yet.
    producer.begin_transaction()
    producer.send(name, b"open")
    producer.flush()
    assert medium.ends(["losses"]) == {origin: 24}
    producer.commit_transaction()
    assert end_is(medium, 26)


def test_compaction_leaves_gaps_and_an_end(topic_prefix: str) -> None:
    rolled = {"segment.ms": "200", "min.cleanable.dirty.ratio": "0.01", "cleanup.policy": "compact"}
    with (
        KafkaBroker(settings={"log.cleaner.backoff.ms": "200"}) as broker,
        contextlib.closing(KafkaMedium(at(broker.bootstrap), topic_prefix, Security())) as medium,
    ):
        make(broker.bootstrap, f"{topic_prefix}losses", config=rolled)
        now, origin = int(time.time() * 1000), ("losses", 0)
        medium.write("losses", [Outgoing(now, b"%d" % (n % 10), b"%d" % n) for n in range(200)])
        found: list[int] = []
        deadline = time.monotonic() + 60
        while found[:10] != [*range(190, 200)] and time.monotonic() < deadline:
            time.sleep(0.5)
            medium.write("losses", [Outgoing(int(time.time() * 1000), b"last", b"")])
            found = [r.offset for r in everything(medium, "losses")[0]]
        # Of "last", the cleaner may not have reached the newest copies; the newest of all is never taken out.
        assert found[:10] == [*range(190, 200)]
        assert found == sorted(set(found))
        assert found[-1] == medium.ends(["losses"])[origin] - 1
        assert [r.offset for batch in medium.read(origin, 5, 195, 500) for r in batch] == [*range(190, 195)]
        assert list(medium.read(origin, 5, 50, 500)) == []


def test_many_partitions_read_in_turns(medium: KafkaMedium, kafka: Any, topic_prefix: str) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses", partitions=4, config=KEEP)
    medium.write("losses", [Outgoing(T0 + n, b"%d" % n, b"v" * 300) for n in range(30_000)])
    readers = {origin: medium.read(origin, 0, end, 100) for origin, end in medium.ends(["losses"]).items()}
    times: dict[Any, list[int]] = {origin: [] for origin in readers}
    while readers:
        for origin in list(readers):
            batch = next(readers[origin], None)
            if batch is None:
                del readers[origin]
            else:
                assert 0 < len(batch) <= 100
                times[origin] += [record.timestamp for record in batch]
    assert all(found == sorted(found) for found in times.values())
    assert sorted(t for found in times.values() for t in found) == [T0 + n for n in range(30_000)]


def test_what_retention_took_is_said(medium: KafkaMedium, kafka: Any, topic_prefix: str) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    make(kafka.bootstrap, f"{topic_prefix}losses", config=KEEP)
    medium.write("losses", [Outgoing(T0, None, b"%d" % n) for n in range(10)])
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.delete_records({TopicPartition(f"{topic_prefix}losses", 0): 4})
    admin.close()
    assert medium.starts(["losses"]) == {("losses", 0): 4}
    assert [r.offset for r in everything(medium, "losses")[0]] == list(range(4, 10))
    with pytest.raises(BrokerError, match="no longer there"):
        list(medium.read(("losses", 0), 2, 10, 5))
    assert [r.offset for batch in medium.read(("losses", 0), 5, 10, 5) for r in batch] == list(range(5, 10))


def test_following_from_the_start_and_from_now(medium: KafkaMedium, kafka: Any, topic_prefix: str) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses", f"{topic_prefix}surveys", partitions=2, config=KEEP)
    medium.write("losses", [Outgoing(T0, b"%d" % n, b"old") for n in range(20)])
    old = list(medium.follow(["losses", "surveys"], lambda: True, from_start=True))
    assert sorted(record.key or b"" for _, record in old) == sorted(b"%d" % n for n in range(20))
    assert list(medium.follow(["losses"], lambda: True, from_start=False)) == []

    done = threading.Event()
    following = medium.follow(["losses", "surveys"], done.is_set, from_start=False)
    medium.write("surveys", [Outgoing(T0, b"x", b"new")])
    origin, record = next(following)
    assert (origin, record.value) == (("surveys", partition_for(b"x", 2)), b"new")
    medium.write("losses", [Outgoing(T0, b"y", b"newer")])
    assert next(following)[1].value == b"newer"
    done.set()
    assert list(following) == []


def test_following_finds_new_partitions(
    medium: KafkaMedium, kafka: Any, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kafka import KafkaAdminClient

    from streams import kafka_client

    monkeypatch.setattr(kafka_client, "REFRESH_SECONDS", 0.2)
    name = f"{topic_prefix}losses"
    make(kafka.bootstrap, name)
    seen: list[bytes | None] = []

    def enough() -> bool:
        return len(seen) >= 2

    following = medium.follow(["losses"], enough, from_start=True)
    medium.write("losses", [Outgoing(T0, None, b"first")])
    seen.append(next(following)[1].value)
    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    admin.create_partitions({name: 2})
    admin.close()
    medium._counts.clear()
    key = next(b"%d" % n for n in range(50) if partition_for(b"%d" % n, 2) == 1)
    deadline = time.monotonic() + 10
    while len(medium.ends(["losses"])) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    medium.write("losses", [Outgoing(T0, key, b"second")])
    origin, record = next(following)
    seen.append(record.value)
    assert (origin, seen) == (("losses", 1), [b"first", b"second"])
    assert list(following) == []


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_an_absent_topic(medium: KafkaMedium, kafka: Any, topic_prefix: str, capfd: Any) -> None:
    says = f"topic {topic_prefix}losses is absent on the broker; create it with `tocsin topics create --broker kafka://"
    assert complaint(medium).startswith(says)
    for ask in (
        lambda: medium.ends(["losses"]),
        lambda: list(medium.read(("losses", 0), 0, 1, 1)),
        lambda: medium.follow(["losses"], lambda: True, from_start=True),
    ):
        with pytest.raises(BrokerError, match="is absent on the broker"):
            ask()
    assert capfd.readouterr() == ("", "")


def test_records_too_large(medium: KafkaMedium, kafka: Any, topic_prefix: str, capfd: Any) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses", config={"max.message.bytes": "20000", **KEEP})
    small = Outgoing(T0, None, b"small")
    with pytest.raises(BrokerError, match="a record of 30000 bytes is too large; the topic's max"):
        medium.write("losses", [small, Outgoing(T0, None, b"x" * 30_000), small])
    with pytest.raises(BrokerError, match=f"a record of {MAX_RECORD_BYTES * 2} bytes is too large"):
        medium.write("losses", [Outgoing(T0, None, b"x" * MAX_RECORD_BYTES * 2)])
    # Many small ones are split by the client, and the producer goes on after a refusal.
    medium.write("losses", [Outgoing(T0, b"again", b"y" * 10_000)] * 20)
    assert sum(record.key == b"again" for record in everything(medium, "losses")[0]) == 20
    assert capfd.readouterr() == ("", "")


def test_records_no_topic_can_hold(medium: KafkaMedium, kafka: Any, topic_prefix: str) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses", config=KEEP)
    for record in (Outgoing(T0, None, None), Outgoing(-1, None, b"v")):
        with pytest.raises(BrokerError, match="a key or a value, and a time not before 1970"):
            medium.write("losses", [record])
    ahead = int(time.time() * 1000) + 86_400_000 * 30
    with pytest.raises(BrokerError, match="ahead of the broker's clock"):
        medium.write("losses", [Outgoing(ahead, None, b"v")])
    with pytest.raises(BrokerError, match="no partition 5"):
        list(medium.read(("losses", 5), 0, 1, 1))


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_passwords(kafka: Any, topic_prefix: str, mechanism: str, capfd: Any) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses")
    right = KafkaMedium(at(kafka.sasl_bootstrap), topic_prefix, Security("SASL_PLAINTEXT", mechanism, USER, PASSWORD))
    right.write("losses", [Outgoing(T0, b"k", b"v")])
    assert len(everything(right, "losses")[0]) == 1
    right.close()
    wrong = KafkaMedium(at(kafka.sasl_bootstrap), "", Security("SASL_PLAINTEXT", mechanism, USER, "guessed it"))
    began = time.monotonic()
    text = complaint(wrong)
    assert f"{kafka.sasl_bootstrap}: the broker does not accept user 'tocsin' ({mechanism})" in text
    assert "guessed" not in text
    assert time.monotonic() - began < 5
    wrong.close()
    assert capfd.readouterr() == ("", "")


def test_no_password_where_one_is_asked_for(kafka: Any, capfd: Any) -> None:
    nobody = KafkaMedium(at(kafka.sasl_bootstrap), "", Security(), timeout=2)
    assert "check TOCSIN_KAFKA_SECURITY_PROTOCOL" in complaint(nobody)
    assert capfd.readouterr() == ("", "")


def test_a_broker_that_goes_away(own_kafka: Any, topic_prefix: str, capfd: Any) -> None:
    make(own_kafka.bootstrap, f"{topic_prefix}losses", config=KEEP)
    medium = KafkaMedium(at(own_kafka.bootstrap), topic_prefix, Security(), timeout=2)
    medium.write("losses", [Outgoing(T0, None, b"before")])
    following = medium.follow(["losses"], lambda: False, from_start=True)
    assert next(following)[1].value == b"before"
    own_kafka.stop()
    began = time.monotonic()
    assert own_kafka.bootstrap in complaint(medium)
    with pytest.raises(BrokerError):
        medium.ends(["losses"])
    with pytest.raises(BrokerError):
        next(following)
    assert time.monotonic() - began < 40
    own_kafka.start()
    medium.write("losses", [Outgoing(T0, None, b"after")])
    values = [record.value for record in everything(medium, "losses")[0]]
    assert (values[0], values[-1]) == (b"before", b"after")
    medium.close()
    assert capfd.readouterr() == ("", "")


def test_tls_and_rights(topic_prefix: str, tmp_path: Path) -> None:
    """A broker of TLS, users and rights: the harness's second listener with another protocol under its name."""
    pem = certificate(tmp_path)
    with KafkaBroker(users={USER: PASSWORD}, settings=tls_and_acls(pem)) as broker:
        make(broker.bootstrap, f"{topic_prefix}losses")
        address = BrokerAddress.parse(f"kafka+ssl://{broker.sasl_bootstrap}")

        def medium(password: str = PASSWORD, ca: str = str(pem)) -> KafkaMedium:
            return KafkaMedium(
                address, topic_prefix, Security("SASL_PLAINTEXT", "PLAIN", USER, password, ca), timeout=3
            )

        assert "certificate is not trusted" in complaint(medium(ca=""))
        assert "does not accept user 'tocsin'" in complaint(medium("guessed it"))
        without = KafkaMedium(at(broker.sasl_bootstrap), "", Security(), timeout=2)
        assert "no answer as from a Kafka broker" in complaint(without)
        with contextlib.closing(medium()) as unprivileged:
            assert "user 'tocsin' may not do this" in complaint(unprivileged)
        with pytest.raises(BrokerError, match=f"topic {topic_prefix}.*: user 'tocsin' may not do this"):
            describe(address, topic_prefix, Security("SASL_SSL", "PLAIN", USER, PASSWORD, str(pem)))
        _allow(broker.bootstrap, USER, f"{topic_prefix}losses")
        trusted = medium()
        trusted.write("losses", [Outgoing(T0, b"k", b"v")])
        assert [record.value for record in everything(trusted, "losses")[0]] == [b"v"]
        trusted.close()


def _allow(bootstrap: str, user: str, topic: str) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

    pattern = ResourcePattern(ResourceType.TOPIC, topic)
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_acls([ACL(f"User:{user}", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, pattern)])
    admin.close()
    time.sleep(1)


# --- Tocsin's own topics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("history", [False, True])
def test_topics_are_made_once_and_as_needed(kafka: Any, topic_prefix: str, history: bool) -> None:
    where, security = at(kafka.bootstrap), Security()
    assert all("is absent" in line for line in check_topics(where, topic_prefix, 3, security, history=history))
    made = create_topics(where, topic_prefix, 3, security, history=history)
    assert made == [f"{topic_prefix}{spec.name}" for spec in ALL_TOPICS]
    assert create_topics(where, topic_prefix, 3, security, history=history) == []
    assert check_topics(where, topic_prefix, 3, security, history=None) == []
    states = describe(where, topic_prefix, security)
    assert list(states) == [spec.name for spec in ALL_TOPICS]
    for spec in ALL_TOPICS:
        state = states[spec.name]
        assert state.partitions == (spec.partitions or 3)
        assert state.cleanup_policy == ("compact" if spec.compacted else "delete")
        assert state.replicas == 1
        if spec.role != "internal":
            assert state.retention_ms == -1
        if spec.role == "raw":
            assert state.given_times is history
        else:
            assert state.max_message_bytes == MAX_RECORD_BYTES
    assert states["keyed-events"].timestamp_type == "LogAppendTime"
    assert states["keyed-events"].retention_ms == 7 * 86_400_000
    medium = KafkaMedium(where, topic_prefix, security)
    medium.write("keyed-events", [Outgoing(0, b"p", b"\x01" * (MAX_RECORD_BYTES - 200))])
    medium.write(RAW_TOPICS[0], [Outgoing(T0, b"p", b"{}")])
    records = [record for rows in everything(medium, RAW_TOPICS[0]).values() for record in rows]
    assert (records[0].timestamp == T0) is history
    assert sum(len(rows) for rows in everything(medium, "keyed-events").values()) == 1
    medium.close()


def test_topics_of_another_making_are_refused(kafka: Any, topic_prefix: str) -> None:
    where = at(kafka.bootstrap)
    make(kafka.bootstrap, f"{topic_prefix}losses", partitions=2, config={"cleanup.policy": "compact"})
    make(kafka.bootstrap, f"{topic_prefix}assess-changelog", partitions=3, config={"max.message.bytes": "1000"})
    with pytest.raises(TopicProblems) as caught:
        create_topics(where, topic_prefix, 3, Security(), history=False)
    assert "\n" not in str(caught.value)
    faults = [line.partition(": ") for line in caught.value.problems]
    assert [(name.removeprefix(f"topic {topic_prefix}"), fault.split(";")[0]) for name, _, fault in faults] == [
        ("losses", "it has 2 partitions, 3 are configured"),
        ("losses", "cleanup.policy is compact, delete is needed"),
        ("losses", "message.timestamp.type is CreateTime, LogAppendTime is needed"),
        ("assess-changelog", "cleanup.policy is delete, compact is needed"),
        ("assess-changelog", "max.message.bytes is 1000, 8388608 is needed"),
    ]
    assert set(describe(where, topic_prefix, Security())) == {"losses", "assess-changelog"}


def test_a_prefix_no_topic_may_have(kafka: Any) -> None:
    with pytest.raises(BrokerError) as caught:
        create_topics(at(kafka.bootstrap), "a b/", 1, Security(), history=False)
    assert "\n" not in str(caught.value)


def test_throughput(medium: KafkaMedium, kafka: Any, topic_prefix: str, capsys: Any) -> None:
    make(kafka.bootstrap, f"{topic_prefix}losses", partitions=4, config=KEEP)
    value = b'{"id": "%d", "product": "0306", "region": "120100", "reported_at": "2026-01-01T00:00:00+08:00"}'
    records = [Outgoing(T0 + n, b"product-%d" % (n % 500), value % n) for n in range(200_000)]
    began = time.perf_counter()
    medium.write("losses", records)
    written = time.perf_counter()
    count = 0
    for origin, end in medium.ends(["losses"]).items():
        count += sum(len(batch) for batch in medium.read(origin, 0, end, 500))
    took = time.perf_counter() - written
    assert count == len(records)
    with capsys.disabled():
        print(f"\nKafkaMedium: wrote {count / (written - began):,.0f}/s, read {count / took:,.0f}/s")
