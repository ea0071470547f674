"""The harness itself, and what the clients we build on can do with this broker."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from broker import PASSWORD, ROOT, USER, KafkaBroker, create_topics, deploy, produce, read_all, run_kcat
from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError
from kafka.net.compat import KafkaNetClient

pytestmark = pytest.mark.kafka

T = TypeVar("T")


def run(work: Awaitable[T], timeout: float = 90) -> T:
    async def limited() -> T:
        return await asyncio.wait_for(work, timeout)

    return asyncio.run(limited())


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone_within(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while alive(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


# ------------------------------------------------------------------------------------------- the two clients


def test_what_kafka_python_sends_both_clients_read(kafka: KafkaBroker, kcat: Path, topic_prefix: str) -> None:
    create_topics(kafka.bootstrap, topic_prefix, partitions=3)
    sent = [f"wert {number} äöü".encode() for number in range(300)]
    produce(kafka.bootstrap, topic_prefix, sent)
    consumer = KafkaConsumer(
        topic_prefix,
        bootstrap_servers=kafka.bootstrap,
        group_id=f"{topic_prefix}-group",
        auto_offset_reset="earliest",
        consumer_timeout_ms=20000,
    )
    try:
        got = []
        for message in consumer:
            got.append(message.value)
            if len(got) == len(sent):
                break
    finally:
        consumer.close()
    assert sorted(got) == sorted(sent)
    assert sorted(read_all(kcat, kafka.bootstrap, topic_prefix)) == sorted(sent)


def test_kcat_sends_key_headers_and_time(kafka: KafkaBroker, kcat: Path, topic_prefix: str) -> None:
    create_topics(kafka.bootstrap, topic_prefix)
    run_kcat(kcat, kafka.bootstrap, "-P", "-t", topic_prefix, "-K", "|", "-H", "kind=probe", given=b"k1|v1\n")
    out = run_kcat(kcat, kafka.bootstrap, "-C", "-q", "-J", "-e", "-o", "beginning", "-t", topic_prefix)
    message = json.loads(out)
    assert (message["key"], message["payload"]) == ("k1", "v1")
    assert message["headers"] == ["kind", "probe"]


def test_a_topic_nobody_created_does_not_appear(kafka: KafkaBroker, topic_prefix: str) -> None:
    consumer = KafkaConsumer(topic_prefix, bootstrap_servers=kafka.bootstrap, consumer_timeout_ms=500)
    try:
        assert list(consumer) == []
        assert topic_prefix not in consumer.topics()
    finally:
        consumer.close()


# ----------------------------------------------------------------------------------------------------- SASL


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_the_right_password_is_let_in_and_a_wrong_one_is_not(
    kafka: KafkaBroker, topic_prefix: str, mechanism: str
) -> None:
    def topics(password: str) -> Any:
        clients: list[KafkaNetClient] = []

        def network(**settings: Any) -> KafkaNetClient:
            clients.append(KafkaNetClient(**settings))
            return clients[-1]

        try:
            return listed(password, network)
        finally:
            # The client of a constructor that has failed: its thread would go on trying.
            for client in clients:
                client.close()

    def listed(password: str, network: Any) -> Any:
        admin = KafkaAdminClient(
            kafka_client=network,
            bootstrap_servers=kafka.sasl_bootstrap,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism=mechanism,
            sasl_plain_username=USER,
            sasl_plain_password=password,
            bootstrap_timeout_ms=3000,
            request_timeout_ms=5000,
        )
        try:
            return admin.list_topics()
        finally:
            admin.close()

    create_topics(kafka.bootstrap, topic_prefix)
    assert topic_prefix in str(topics(PASSWORD))
    refusals = kafka.log.read_text().count("Failed authentication")
    with pytest.raises(KafkaError):
        topics(PASSWORD + "x")
    # kafka-python reports a time-out here; that it was the password, only the broker's log tells.
    assert kafka.log.read_text().count("Failed authentication") > refusals


def test_kcat_is_refused_with_a_wrong_password(kafka: KafkaBroker, kcat: Path) -> None:
    def listing(password: str) -> bytes:
        login = ["security.protocol=SASL_PLAINTEXT", "sasl.mechanism=PLAIN", f"sasl.username={USER}"]
        options = [word for setting in [*login, f"sasl.password={password}"] for word in ("-X", setting)]
        return run_kcat(kcat, kafka.sasl_bootstrap, *options, "-L", "-m", "5")

    assert b"1 brokers" in listing(PASSWORD)
    with pytest.raises(RuntimeError, match="kcat ended"):
        listing("wrong")


# ------------------------------------------------------------------------------------- killing and its kin


def test_killed_and_started_again_it_keeps_records_and_ports(
    own_kafka: KafkaBroker, kcat: Path, topic_prefix: str
) -> None:
    create_topics(own_kafka.bootstrap, topic_prefix)
    before = own_kafka.bootstrap
    for round_number in range(2):
        produce(own_kafka.bootstrap, topic_prefix, [f"{round_number}-{n}".encode() for n in range(100)])
        own_kafka.kill()
        assert not own_kafka.running
        own_kafka.start()
    assert own_kafka.bootstrap == before
    expected = [f"{round_number}-{n}".encode() for round_number in range(2) for n in range(100)]
    assert read_all(kcat, own_kafka.bootstrap, topic_prefix) == expected
    own_kafka.restart()
    assert read_all(kcat, own_kafka.bootstrap, topic_prefix) == expected


def test_paused_it_answers_nothing_and_resumed_it_goes_on(
    own_kafka: KafkaBroker, kcat: Path, topic_prefix: str
) -> None:
    create_topics(own_kafka.bootstrap, topic_prefix)
    own_kafka.pause()
    assert own_kafka.running
    assert not deploy.answers(own_kafka.port, timeout=1)
    own_kafka.resume()
    produce(own_kafka.bootstrap, topic_prefix, [b"after"])
    assert read_all(kcat, own_kafka.bootstrap, topic_prefix) == [b"after"]


def test_stop_ends_a_paused_broker_and_close_leaves_no_files() -> None:
    broker = KafkaBroker()
    broker.start()
    pid, data = broker.pid, broker.data
    assert pid is not None
    broker.pause()
    broker.stop()
    assert not alive(pid)
    assert data.exists()
    broker.close()
    assert not data.exists()


def test_the_broker_dies_with_a_starter_that_was_killed() -> None:
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from broker import KafkaBroker\n"
        "b = KafkaBroker().start(); print(b.pid, b.data, flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(ROOT / "tests" / "integration")], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout is not None
        try:
            pid, data = starter.stdout.readline().split()
            assert alive(int(pid))
        finally:
            starter.kill()
        starter.wait()
        assert gone_within(int(pid), 10)
        end = time.monotonic() + 10
        while Path(data).exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not Path(data).exists()


def test_what_does_not_start_says_why() -> None:
    broker = KafkaBroker(settings={"log.retention.ms": "soon"})
    with pytest.raises(deploy.KafkaFailed, match=r"log\.retention\.ms"):
        broker.start()
    assert not broker.running
    broker.close()


def test_the_command_starts_names_and_stops_a_broker(tmp_path: Path) -> None:
    cache = deploy.cache_directory()
    environment = os.environ | {"TOCSIN_CACHE": str(cache)}
    program = [sys.executable, str(ROOT / "deploy" / "kafka.py")]
    name = ["--name", f"test-{os.getpid()}"]
    starter = subprocess.Popen(
        [*program, "start", *name, "--user", "a:b"], stdout=subprocess.PIPE, text=True, env=environment
    )
    with starter:
        try:
            assert starter.stdout is not None
            bootstrap = starter.stdout.readline().strip()
            assert bootstrap.startswith("127.0.0.1:")
            told = subprocess.run([*program, "env", *name], capture_output=True, text=True, env=environment, check=True)
            assert f"export KAFKA_BOOTSTRAP={bootstrap}" in told.stdout
            assert "export KAFKA_SASL_BOOTSTRAP=127.0.0.1:" in told.stdout
            subprocess.run([*program, "stop", *name], env=environment, check=True, timeout=60)
            assert starter.wait(30) == 0
        finally:
            if starter.poll() is None:
                starter.send_signal(signal.SIGTERM)
    assert not deploy.answers(int(bootstrap.rpartition(":")[2]), timeout=1)


# --------------------------------------------------------------------------------------------- transactions


async def committed_offset(bootstrap: str, group: str, partition: TopicPartition) -> int | None:
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=group, enable_auto_commit=False)
    await reader.start()
    try:
        offset: int | None = await reader.committed(partition)
        return offset
    finally:
        await reader.stop()


async def settled_offset(bootstrap: str, group: str, partition: TopicPartition, expected: int) -> int | None:
    """The committed offset, awaited: the broker acknowledges a commit before the offsets show it."""
    for _ in range(50):
        offset = await committed_offset(bootstrap, group, partition)
        if offset == expected:
            break
        await asyncio.sleep(0.1)
    return offset


async def values(bootstrap: str, topic: str, isolation: str, expected: int) -> list[bytes]:
    """The values of a topic's partition 0, up to its end as this isolation level sees it."""
    partition = TopicPartition(topic, 0)
    reader = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level=isolation, auto_offset_reset="earliest")
    await reader.start()
    try:
        reader.assign([partition])
        await reader.seek_to_beginning(partition)
        got: list[bytes] = []
        quiet = 0
        while quiet < 3:
            batch = await reader.getmany(partition, timeout_ms=500)
            found = [record.value for records in batch.values() for record in records]
            got += found
            quiet = 0 if found else quiet + 1
            if quiet and len(got) >= expected:
                quiet = 3
        return got
    finally:
        await reader.stop()


def test_a_transaction_moves_records_and_offsets_together(kafka: KafkaBroker, kcat: Path, topic_prefix: str) -> None:
    source, target, group = f"{topic_prefix}-in", f"{topic_prefix}-out", f"{topic_prefix}-group"
    create_topics(kafka.bootstrap, source, target)
    produce(kafka.bootstrap, source, [b"one", b"two", b"three"])
    partition = TopicPartition(source, 0)

    async def work() -> list[int | None]:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{topic_prefix}-tx")
        await producer.start()
        offsets: list[int | None] = []
        try:
            async with producer.transaction():
                await producer.send_and_wait(target, b"ONE")
                await producer.send_offsets_to_transaction({partition: 1}, group)
            offsets.append(await settled_offset(kafka.bootstrap, group, partition, 1))
            await producer.begin_transaction()
            await producer.send_and_wait(target, b"never")
            await producer.send_offsets_to_transaction({partition: 2}, group)
            await producer.abort_transaction()
            await asyncio.sleep(0.5)
            offsets.append(await committed_offset(kafka.bootstrap, group, partition))
            async with producer.transaction():
                await producer.send_and_wait(target, b"TWO")
                await producer.send_offsets_to_transaction({partition: 2}, group)
            offsets.append(await settled_offset(kafka.bootstrap, group, partition, 2))
        finally:
            await producer.stop()
        return offsets

    assert run(work()) == [1, 1, 2]
    assert run(values(kafka.bootstrap, target, "read_committed", 2)) == [b"ONE", b"TWO"]
    assert run(values(kafka.bootstrap, target, "read_uncommitted", 3)) == [b"ONE", b"never", b"TWO"]
    assert read_all(kcat, kafka.bootstrap, target) == [b"ONE", b"TWO"]
    assert read_all(kcat, kafka.bootstrap, target, committed=False) == [b"ONE", b"never", b"TWO"]


def test_offsets_read_after_a_successor_has_started_are_never_stale(kafka: KafkaBroker, topic_prefix: str) -> None:
    """Right after commit_transaction() aiokafka may still read the offset before it: it knows OffsetFetch
    only up to version 3, which cannot ask for stable offsets.  A producer of the same id starts only when
    the transaction before it is complete, so whoever reads offsets after starting it reads the truth.
    """
    source, target, group = f"{topic_prefix}-in", f"{topic_prefix}-out", f"{topic_prefix}-group"
    create_topics(kafka.bootstrap, source, target)
    partition = TopicPartition(source, 0)

    async def work() -> list[int | None]:
        seen: list[int | None] = []
        reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group, enable_auto_commit=False)
        await reader.start()
        producers = [
            AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{topic_prefix}-tx")
            for _ in range(21)
        ]
        try:
            await producers[0].start()
            for number in range(20):
                await producers[number].begin_transaction()
                await producers[number].send_and_wait(target, b"x")
                await producers[number].send_offsets_to_transaction({partition: number + 1}, group)
                await producers[number].commit_transaction()
                await producers[number + 1].start()
                seen.append(await reader.committed(partition))
        finally:
            for producer in producers:
                await producer.stop()
            await reader.stop()
        return seen

    assert run(work()) == list(range(1, 21))


def test_kafka_python_too_hides_aborted_records(kafka: KafkaBroker, topic_prefix: str) -> None:
    create_topics(kafka.bootstrap, topic_prefix)

    async def work() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{topic_prefix}-tx")
        await producer.start()
        try:
            await producer.begin_transaction()
            await producer.send_and_wait(topic_prefix, b"aborted")
            await producer.abort_transaction()
            async with producer.transaction():
                await producer.send_and_wait(topic_prefix, b"kept")
        finally:
            await producer.stop()

    run(work())
    consumer = KafkaConsumer(
        topic_prefix,
        bootstrap_servers=kafka.bootstrap,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        consumer_timeout_ms=3000,
    )
    try:
        assert [message.value for message in consumer] == [b"kept"]
    finally:
        consumer.close()


def test_a_newer_producer_of_the_same_id_fences_the_older_one(
    kafka: KafkaBroker, kcat: Path, topic_prefix: str
) -> None:
    create_topics(kafka.bootstrap, topic_prefix)

    async def work() -> None:
        identity = f"{topic_prefix}-tx"
        older = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=identity)
        newer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=identity)
        await older.start()
        await older.begin_transaction()
        await older.send_and_wait(topic_prefix, b"old, open")
        await newer.start()
        try:
            with pytest.raises(ProducerFenced):
                await older.send_and_wait(topic_prefix, b"old, late")
            with pytest.raises(ProducerFenced):
                await older.commit_transaction()
            async with newer.transaction():
                await newer.send_and_wait(topic_prefix, b"new")
        finally:
            await newer.stop()
            await older.stop()

    run(work())
    assert read_all(kcat, kafka.bootstrap, topic_prefix) == [b"new"]


def test_an_open_transaction_holds_back_read_committed_only(kafka: KafkaBroker, kcat: Path, topic_prefix: str) -> None:
    create_topics(kafka.bootstrap, topic_prefix)

    async def work() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{topic_prefix}-tx")
        await producer.start()
        try:
            await producer.begin_transaction()
            await producer.send_and_wait(topic_prefix, b"open")
            assert await values(kafka.bootstrap, topic_prefix, "read_committed", 0) == []
            assert await values(kafka.bootstrap, topic_prefix, "read_uncommitted", 1) == [b"open"]
            await producer.commit_transaction()
        finally:
            await producer.stop()

    run(work())
    assert read_all(kcat, kafka.bootstrap, topic_prefix) == [b"open"]


def test_a_producer_killed_inside_a_transaction_leaves_nothing_committed(
    kafka: KafkaBroker, kcat: Path, topic_prefix: str
) -> None:
    create_topics(kafka.bootstrap, topic_prefix)
    script = (
        "import asyncio, sys\nfrom aiokafka import AIOKafkaProducer\n"
        "async def main():\n"
        "    p = AIOKafkaProducer(bootstrap_servers=sys.argv[1], transactional_id=sys.argv[2] + '-tx')\n"
        "    await p.start()\n    await p.begin_transaction()\n"
        "    await p.send_and_wait(sys.argv[2], b'lost')\n    print('sent', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, kafka.bootstrap, topic_prefix], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "sent\n"
        child.kill()

    async def successor() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{topic_prefix}-tx")
        await producer.start()
        try:
            async with producer.transaction():
                await producer.send_and_wait(topic_prefix, b"again")
        finally:
            await producer.stop()

    run(successor())
    assert read_all(kcat, kafka.bootstrap, topic_prefix) == [b"again"]
    assert read_all(kcat, kafka.bootstrap, topic_prefix, committed=False) == [b"lost", b"again"]


def test_how_long_a_transaction_takes(
    kafka: KafkaBroker, topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    create_topics(kafka.bootstrap, topic_prefix, f"{topic_prefix}-in")
    partition = TopicPartition(f"{topic_prefix}-in", 0)

    async def work(with_offsets: bool) -> list[float]:
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=f"{topic_prefix}-tx")
        await producer.start()
        taken: list[float] = []
        try:
            for number in range(53):
                began = time.perf_counter()
                await producer.begin_transaction()
                await producer.send_and_wait(topic_prefix, b"x" * 200)
                if with_offsets:
                    await producer.send_offsets_to_transaction({partition: number}, f"{topic_prefix}-group")
                await producer.commit_transaction()
                taken.append(time.perf_counter() - began)
        finally:
            await producer.stop()
        return taken[3:]

    for with_offsets in (False, True):
        taken = run(work(with_offsets))
        with capsys.disabled():
            print(
                f"\ntransaction{' with offsets' if with_offsets else ''}: "
                f"median {statistics.median(taken) * 1000:.1f} ms, max {max(taken) * 1000:.1f} ms of 50"
            )
        assert statistics.median(taken) < 2
