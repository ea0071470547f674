"""Addresses and secrets of a broker: what is read, what is refused with which words, and what never shows."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from schemas.errors import ConfigError
from streams.cli import cli
from streams.kafka_client import BrokerError, KafkaMedium
from streams.kafka_security import BrokerAddress, Security

SECRET = "s3cret wörd"
V = "TOCSIN_KAFKA_"


@pytest.mark.parametrize(
    ("text", "servers", "tls"),
    [
        ("localhost:9092", ["localhost:9092"], False),
        ("kafka://localhost:9092", ["localhost:9092"], False),
        ("kafka://a:1,b.example:2", ["a:1", "b.example:2"], False),
        ("kafka://a:1, kafka://b:2/", ["a:1", "b:2"], False),
        ("kafka+ssl://a:9093", ["a:9093"], True),
        ("KAFKA+SSL://a:9093,b:9093", ["a:9093", "b:9093"], True),
        ("kafka://[::1]:9092", ["[::1]:9092"], False),
    ],
)
def test_an_address_is_read(text: str, servers: list[str], tls: bool) -> None:
    address = BrokerAddress.parse(text)
    assert (address.servers, address.tls) == (servers, tls)
    assert BrokerAddress.parse(address.url) == address


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write kafka://host:9092"),
        ("localhost", "write localhost:9092"),
        ("kafka://localhost", "write localhost:9092"),
        ("kafka://a:1,", "write kafka://host:9092"),
        ("http://a:1", "http:// is not known"),
        ("kafka://a:1,kafka+ssl://b:2", "are mixed"),
        ("a:0", "between 1 and 65535"),
        ("a:99999", "between 1 and 65535"),
        ("a b:1", "write kafka://host:9092"),
    ],
)
def test_a_bad_address_is_refused_with_a_way_to_mend_it(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        BrokerAddress.parse(text)
    assert "\n" not in str(caught.value)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match=f"{V}PASSWORD_FILE") as caught:
        BrokerAddress.parse(f"kafka://me:{SECRET}@host:9092")
    assert SECRET not in str(caught.value)


def test_an_empty_environment_is_plaintext() -> None:
    for env in ({}, {f"{V}USERNAME": "", f"{V}SECURITY_PROTOCOL": " "}):
        security = Security.from_environment(env)
        assert security == Security()
        assert security.kafka_python() == {"security_protocol": "PLAINTEXT"}
        assert security.faust() is None


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_secret_that_everybody_may_read_gets_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(mode)
    user = {f"{V}SECURITY_PROTOCOL": "SASL_SSL", f"{V}USERNAME": "me", f"{V}PASSWORD_FILE": str(secret)}
    Security.from_environment(user)
    Security.from_environment({f"{V}SECURITY_PROTOCOL": "SSL", f"{V}CERT_FILE": "/c", f"{V}KEY_FILE": str(secret)})
    said = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in said] == ([f"{V}PASSWORD_FILE", f"{V}KEY_FILE"] if warned else [])
    assert all(f"mode {mode:o}" in line and SECRET not in line for line in said)


def test_no_command_takes_a_password() -> None:
    """What stands on a command line is read by every user of the machine."""
    pages = [CliRunner().invoke(cli, [name, "--help"]).output for name in cli.list_commands(None)]
    assert all("Usage" in page for page in pages)
    # --tokens names a file of hashes.
    secret = re.compile(r"--[a-z-]*(password|secret|token|credential)(?!-file|s\b)")
    assert not [page for page in pages if secret.search(page)]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_user_reaches_both_client_libraries(mechanism: str, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n", "utf-8")
    env = {f"{V}SECURITY_PROTOCOL": "sasl_plaintext", f"{V}SASL_MECHANISM": mechanism, f"{V}USERNAME": "me"}
    security = Security.from_environment({**env, f"{V}PASSWORD_FILE": str(file)})
    assert security == Security.from_environment({**env, f"{V}PASSWORD": SECRET})
    assert security.kafka_python() == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "me",
        "sasl_plain_password": SECRET,
    }
    faust = security.faust()
    assert (faust.username, faust.password, faust.mechanism.value) == ("me", SECRET, mechanism)
    assert faust.protocol.value == "SASL_PLAINTEXT"


def test_the_strongest_mechanism_is_the_default() -> None:
    env = {f"{V}SECURITY_PROTOCOL": "SASL_SSL", f"{V}USERNAME": "me", f"{V}PASSWORD": SECRET}
    security = Security.from_environment(env)
    assert security.mechanism == "SCRAM-SHA-512"
    faust = security.faust()
    assert faust.protocol.value == "SASL_SSL"
    assert faust.ssl_context.verify_mode is ssl.CERT_REQUIRED


def test_the_scheme_turns_tls_on() -> None:
    address = BrokerAddress.parse("kafka+ssl://a:1")
    assert Security.from_environment({}, address).protocol == "SSL"
    user = {f"{V}USERNAME": "me", f"{V}PASSWORD": SECRET}
    assert Security.from_environment(user, address).protocol == "SASL_SSL"
    assert (
        Security.from_environment({**user, f"{V}SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, address).protocol == "SASL_SSL"
    )
    assert Security.from_environment({f"{V}SECURITY_PROTOCOL": "SSL"}, BrokerAddress.parse("a:1")).tls


def test_a_password_shows_nowhere(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    env = {f"{V}SECURITY_PROTOCOL": "SASL_PLAINTEXT", f"{V}USERNAME": "me", f"{V}PASSWORD": SECRET}
    security = Security.from_environment(env)
    assert SECRET not in f"{security} {security!r} {security.faust()!r}"
    with caplog.at_level(logging.DEBUG), pytest.raises(BrokerError) as caught:
        KafkaMedium(BrokerAddress.parse(f"127.0.0.1:{_unused_port()}"), "", security, timeout=1).ends(["losses"])
    assert SECRET not in caplog.text + str(caught.value)


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"SECURITY_PROTOCOL": "TLS"}, "SECURITY_PROTOCOL is 'TLS'; use one of PLAINTEXT, SSL"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "SASL_MECHANISM": "GSSAPI", "USERNAME": "me"}, "SASL_MECHANISM is 'GSSAPI'"),
        ({"SECURITY_PROTOCOL": "SASL_SSL"}, "USERNAME is not set"),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "USERNAME": "me"}, "no password"),
        ({"USERNAME": "me", "PASSWORD": SECRET}, "set that to SASL_SSL"),
        ({"CA_FILE": "/ca.pem"}, "set that to SSL"),
        ({"SECURITY_PROTOCOL": "SSL", "KEY_FILE": "/key.pem"}, "KEY_FILE is set without"),
        (
            {"SECURITY_PROTOCOL": "SASL_SSL", "USERNAME": "me", "PASSWORD": SECRET, "PASSWORD_FILE": "/p"},
            "are both set",
        ),
        ({"SECURITY_PROTOCOL": "SASL_SSL", "USERNAME": "me", "PASSWORD_FILE": "/absent"}, "/absent: No such file"),
    ],
)
def test_a_wrong_environment_is_refused_with_a_way_to_mend_it(env: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Security.from_environment({V + name: value for name, value in env.items()})
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    for options, says in [
        ({"ca_file": str(tmp_path / "absent.pem")}, "CA_FILE .*absent.pem: No such file"),
        ({"ca_file": str(junk)}, "CA_FILE .*junk.pem: no certificate"),
        ({"cert_file": str(junk)}, "CERT_FILE .*junk.pem"),
    ]:
        with pytest.raises(ConfigError, match=says) as caught:
            Security("SSL", **options).kafka_python()
        assert "\n" not in str(caught.value)


# --- who does not answer as a broker ----------------------------------------------------------------------------------


def _unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class _Server:
    """A port of our own that does with each connection as it is told."""

    def __init__(self, treat: Any) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._treat = treat
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._treat(connection)

    def close(self) -> None:
        # Closing alone does not wake a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate of 127.0.0.1 that signs itself, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "k"), "-out", str(folder / "c")]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("no openssl")
    both = folder / "both.pem"
    both.write_text((folder / "k").read_text() + (folder / "c").read_text())
    return both


@pytest.fixture
def tls_port(certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = _Server(lambda connection: context.wrap_socket(connection, server_side=True).close())
    yield server.port
    server.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    server = _Server(lambda connection: time.sleep(3))
    yield server.port
    server.close()


@pytest.fixture
def hanging_up_port() -> Iterator[int]:
    server = _Server(lambda connection: connection.recv(1000))
    yield server.port
    server.close()


def _complaint(port: int, security: Security) -> str:
    medium = KafkaMedium(BrokerAddress.parse(f"127.0.0.1:{port}"), "", security, timeout=1)
    with pytest.raises(BrokerError) as caught:
        medium.ends(["losses"])
    text = str(caught.value)
    assert "\n" not in text
    assert f"127.0.0.1:{port}" in text
    return text


def test_a_port_nobody_listens_on(capfd: pytest.CaptureFixture[str]) -> None:
    assert "connection refused" in _complaint(_unused_port(), Security())
    assert capfd.readouterr() == ("", "")


def test_a_name_nobody_knows() -> None:
    with pytest.raises(BrokerError, match=r"nowhere\.invalid:9092: this name is not known"):
        KafkaMedium(BrokerAddress.parse("nowhere.invalid:9092"), "", Security(), timeout=1).ends(["losses"])


def test_a_certificate_from_a_stranger(tls_port: int, certificate: Path) -> None:
    assert "certificate is not trusted" in _complaint(tls_port, Security("SSL"))


def test_a_certificate_that_is_trusted_but_no_broker_behind_it(tls_port: int, certificate: Path) -> None:
    assert "no answer as from a Kafka broker" in _complaint(tls_port, Security("SSL", ca_file=str(certificate)))


def test_a_port_without_tls(hanging_up_port: int) -> None:
    assert "TLS failed" in _complaint(hanging_up_port, Security("SSL"))


def test_a_port_that_is_no_broker(hanging_up_port: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert "no answer as from a Kafka broker within 1 s (PLAINTEXT)" in _complaint(hanging_up_port, Security())
    assert capfd.readouterr() == ("", "")


def test_a_port_that_says_nothing(silent_port: int) -> None:
    began = time.monotonic()
    _complaint(silent_port, Security())
    assert time.monotonic() - began < 8
