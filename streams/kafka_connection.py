"""Reaching a broker, and saying in one line why that did not work."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from schemas.errors import TocsinError
from streams.kafka_security import VARIABLE, BrokerAddress, Security

__all__ = ["BATCH_BYTES", "MAX_RECORD_BYTES", "BrokerError", "Connection"]

MAX_RECORD_BYTES = 8 * 1024 * 1024
"""The largest record of an internal topic: one batch of packed columns."""
BATCH_BYTES = 256 * 1024
"""Of one partition's records in one request: well under the megabyte that a broker takes by default."""
REFUSED_SECONDS = 2.0
"""For so long a refused connection may be a broker that is just starting; then it is a wrong address."""
CLIENT = "tocsin"


class BrokerError(TocsinError):
    """The broker cannot be used, or refused something; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Connection:
    """How to get kafka-python's clients for one cluster, and their errors in plain words."""

    address: BrokerAddress
    security: Security
    timeout: float = 10.0

    @classmethod
    def of(cls, address: BrokerAddress, security: Security, timeout: float) -> Connection:
        # kafka-python warns of every lost connection on stderr, and its debug lines show passwords. What matters of
        # it reaches the user as a BrokerError.
        logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
        return cls(address, security.over(address), timeout)

    @property
    def patience(self) -> float:
        """Seconds to go on trying once a connection stood: a broker's restart, a new leader's election."""
        return 3 * self.timeout

    # --- clients ---------------------------------------------------------------------------------------------------

    def admin(self) -> Any:
        """A client for metadata, offsets and topics. It looks first whether anybody is there, which is quicker and
        says more than kafka-python's own attempts."""
        self._reach()
        return self._open(KafkaAdminClient)

    def producer(self) -> Any:
        """An idempotent producer."""
        return self._open(
            KafkaProducer,
            acks="all",
            enable_idempotence=True,
            batch_size=BATCH_BYTES,
            linger_ms=5,
            max_request_size=MAX_RECORD_BYTES + 64 * 1024,
            max_block_ms=self._ms(self.timeout),
            delivery_timeout_ms=self._ms(self.patience),
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def consumer(self, **settings: Any) -> Any:
        """A consumer without a group, of committed records only, that never jumps elsewhere by itself."""
        return self._open(
            KafkaConsumer,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            fetch_max_wait_ms=200,
            metrics_enabled=False,
            **settings,
        )

    def _common(self) -> dict[str, Any]:
        return {
            "bootstrap_servers": self.address.servers,
            "client_id": CLIENT,
            "bootstrap_timeout_ms": self._ms(self.timeout),
            "request_timeout_ms": self._ms(self.timeout),
            "reconnect_backoff_max_ms": 1_000,
            **self.security.kafka_python(),
        }

    def _open(self, kind: Callable[..., Any], **settings: Any) -> Any:
        """A client of this kind. Where its constructor gives up, the thread that it has started must end with it:
        kafka-python leaves it running, and it goes on knocking at the broker for as long as the process lives."""
        started: list[Any] = []

        def network(**configs: Any) -> Any:
            started.append(_client(**configs))
            return started[-1]

        try:
            return kind(**self._common(), kafka_client=network, **settings)
        except BaseException:
            for client in started:
                quietly(client.close)
            raise

    @staticmethod
    def _ms(seconds: float) -> int:
        return max(1_000, int(seconds * 1_000))

    # --- is anybody there? -----------------------------------------------------------------------------------------

    def _reach(self) -> None:
        """Connect to one of the brokers, with TLS where that is asked for; BrokerError where none can be reached."""
        context = self.security.ssl_context() if self.security.tls else None
        began = time.monotonic()
        while True:
            reasons = []
            for (host, port), name in zip(self.address.hosts, self.address.servers, strict=True):
                try:
                    self._try(host, port, context)
                    return
                except ssl.SSLError as error:
                    raise BrokerError(self._tls(name, error)) from None
                except OSError as error:
                    reasons.append(f"{name}: {_reason(error, self.timeout)}")
            if time.monotonic() - began > min(REFUSED_SECONDS, self.timeout):
                break
            time.sleep(0.2)
        tried = "; ".join(reasons)
        raise BrokerError(f"no Kafka broker can be reached ({tried}); is it running, and is this its address?")

    def _try(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        with socket.create_connection((host, port), timeout=self.timeout) as plain:
            if context is None:
                return
            try:
                with context.wrap_socket(plain, server_hostname=host):
                    return
            except (ConnectionError, TimeoutError):
                raise ssl.SSLError("the broker broke off") from None

    def _tls(self, name: str, error: ssl.SSLError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            mend = f"set {VARIABLE}CA_FILE to the authority that signed it"
            return f"{name}: the broker's certificate is not trusted ({error.verify_message}); {mend}"
        why = str(error.reason or error.args[-1]).replace("_", " ").lower()
        return (
            f"{name}: TLS failed ({why}); does this port speak TLS, or does it want a client certificate "
            f"({VARIABLE}CERT_FILE)?"
        )

    # --- errors ----------------------------------------------------------------------------------------------------

    @contextmanager
    def explained(self, topic: str = "") -> Iterator[None]:
        """Turn what the client library raises into a BrokerError; ``topic`` as it is named on the broker."""
        try:
            yield
        except (errors.KafkaError, OSError) as error:
            raise self.broker_error(error, topic) from None

    def broker_error(self, error: BaseException, topic: str = "", size: int | None = None) -> BrokerError:
        """One line about an error of the client library; ``size`` of the record in question, in bytes."""
        return BrokerError(self._sentence(error, topic, size))

    def _sentence(self, error: BaseException, topic: str, size: int | None) -> str:
        about = f"topic {topic}" if topic else "the broker"
        user = f"user {self.security.username!r}" if self.security.sasl else "this client"
        match error:
            case errors.UnknownTopicOrPartitionError() if topic:
                create = f"tocsin topics create --broker {self.address.url}"
                return f"{about} is absent on the broker; create it with `{create}`"
            case errors.SaslAuthenticationFailedError():
                names = f"{VARIABLE}USERNAME, {VARIABLE}PASSWORD and {VARIABLE}SASL_MECHANISM"
                return f"{self.address}: the broker does not accept {user} ({self.security.mechanism}); check {names}"
            case errors.UnsupportedSaslMechanismError() | errors.IllegalSaslStateError():
                return f"{self.address}: the broker does not offer {self.security}; check {VARIABLE}SASL_MECHANISM"
            case errors.KafkaError() if type(error) is errors.KafkaError and "AuthorizationFailed" in str(error):
                # Who may write to no topic at all is not even given a producer's id, and that error has no class.
                return (
                    f"{about}: {user} may not do this (it may write nothing); ask the broker's operator for the right"
                )
            case errors.AuthorizationError():
                return f"{about}: {user} may not do this ({_plain(error)}); ask the broker's operator for the right"
            case errors.MessageSizeTooLargeError() | errors.RecordListTooLargeError():
                what = "a record" if size is None else f"a record of {size} bytes"
                return f"{about}: {what} is too large; the topic's max.message.bytes is the limit"
            case errors.InvalidTimestampError():
                return f"{about}: a record's time lies too far ahead of the broker's clock, or before 1970; correct it"
            case errors.OffsetOutOfRangeError():
                return f"{about}: these records are no longer there (the topic's retention); read from the beginning"
            case errors.NotEnoughReplicasError() | errors.NotEnoughReplicasAfterAppendError():
                return f"{about}: too few of its replicas are in sync; nothing was acknowledged, try again later"
            case errors.KafkaTimeoutError() | errors.NodeNotReadyError() | errors.KafkaConnectionError():
                what = f"no answer as from a Kafka broker within {self.timeout:g} s ({self.security})"
                mend = "the address that the broker gives its clients (advertised.listeners)"
                return f"{self.address}: {what}; check {VARIABLE}SECURITY_PROTOCOL, and {mend}"
            case _:
                return f"{self.address}: {about} answered {_plain(error)}"


def _client(**configs: Any) -> Any:
    """kafka-python's network client, made to hear and to heed that the broker refuses the user.

    A broker says so and hangs up at once. kafka-python then throws away what it has read together with the end of the
    stream, tries again and again until its time is up, and in the end only says that it was.
    """
    client = KafkaNetClient(**configs)
    manager = client._manager
    refused: dict[Any, BaseException] = {}
    connect, build = manager.get_connection, manager._build_transport

    def get_connection(node: Any, *arguments: Any, **options: Any) -> Any:
        if node in refused:
            raise refused[node]
        connection = connect(node, *arguments, **options)
        if not connection.init_future.is_done:
            connection.init_future.add_errback(partial(_remember, refused, node))
        return connection

    async def build_transport(*arguments: Any, **options: Any) -> Any:
        transport = await build(*arguments, **options)
        transport._sock_recv = partial(_words_before_end, transport._sock_recv)
        return transport

    manager.get_connection, manager._build_transport = get_connection, build_transport
    return client


def _words_before_end(receive: Any) -> tuple[bytes, Any]:
    """What came, without the error after it: the next read meets that again."""
    received, error = receive()
    return received, None if received else error


def _remember(refused: dict[Any, BaseException], node: Any, error: BaseException) -> None:
    if isinstance(
        error,
        errors.SaslAuthenticationFailedError | errors.UnsupportedSaslMechanismError | errors.IllegalSaslStateError,
    ):
        refused[node] = error


def quietly(close: Any, *arguments: Any) -> None:
    """Close a client whose broker may be gone: what fails then has failed before."""
    with suppress(errors.KafkaError, OSError):
        close(*arguments)


def _reason(error: OSError, timeout: float) -> str:
    if isinstance(error, socket.gaierror):
        return "this name is not known"
    if isinstance(error, TimeoutError):
        return f"no answer within {timeout:g} s"
    return (error.strerror or str(error)).lower()


def _plain(error: BaseException) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else f"{words[:200]}..."
