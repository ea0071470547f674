"""Where the broker is, and how to prove who we are: the address and the environment's ``TOCSIN_KAFKA_*`` variables.

Passwords come from the environment or from a file, never from a command line, which every user of the machine can
read. No text made here ever holds one. A file with a password or a key that everybody may read gets a warning.
"""

from __future__ import annotations

import logging
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from schemas.errors import ConfigError

__all__ = ["MECHANISMS", "PROTOCOLS", "BrokerAddress", "Security"]

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
VARIABLE = "TOCSIN_KAFKA_"
logger = logging.getLogger("tocsin.security")
_WITH_TLS = {"PLAINTEXT": "SSL", "SASL_PLAINTEXT": "SASL_SSL"}
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """One or more brokers of one cluster; ``tls`` where the address begins with ``kafka+ssl://``."""

    hosts: tuple[tuple[str, int], ...]
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``kafka://host:port,host:port``, ``kafka+ssl://...`` or plain ``host:port``; else ConfigError."""
        if "@" in text:
            # Not quoted: what stands before the @ is a password more often than not.
            raise ConfigError(
                f"the broker's address holds an @; leave user and password out of it and set {VARIABLE}USERNAME and "
                f"{VARIABLE}PASSWORD_FILE"
            )
        schemes, hosts = set(), []
        for part in text.split(","):
            scheme, found, rest = part.strip().rpartition("://")
            if found:
                schemes.add(scheme.lower())
            hosts.append(_host(rest.rstrip("/"), text))
        unknown = sorted(schemes - {"kafka", "kafka+ssl"})
        if unknown:
            raise ConfigError(f"broker address {text!r}: {unknown[0]}:// is not known; write kafka:// or kafka+ssl://")
        if len(schemes) > 1:
            raise ConfigError(f"broker address {text!r}: kafka:// and kafka+ssl:// are mixed; use one of them for all")
        return cls(tuple(hosts), "kafka+ssl" in schemes)

    @property
    def servers(self) -> list[str]:
        """``host:port`` each, as client libraries want them."""
        return [f"{f'[{host}]' if ':' in host else host}:{port}" for host, port in self.hosts]

    def __str__(self) -> str:
        return ",".join(self.servers)

    @property
    def url(self) -> str:
        """The address as a person gives it to a command."""
        return f"kafka{'+ssl' if self.tls else ''}://{self}"


def _host(text: str, whole: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None:
        hint = f"{text}:9092" if re.fullmatch(r"[A-Za-z0-9._-]+", text) else "kafka://host:9092,host:9092"
        raise ConfigError(f"broker address {whole!r}: {text!r} is not host:port; write {hint}")
    port = int(found["port"])
    if not 0 < port < 65536:
        raise ConfigError(f"broker address {whole!r}: port {port} is not between 1 and 65535")
    return found["host"].strip("[]"), port


@dataclass(frozen=True, slots=True)
class Security:
    """How to talk to a broker: protocol, user and TLS files. The password shows in no text made of it."""

    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @classmethod
    def from_environment(cls, env: Mapping[str, str], address: BrokerAddress | None = None) -> Self:
        """Read ``TOCSIN_KAFKA_SECURITY_PROTOCOL``, ``_SASL_MECHANISM``, ``_USERNAME``, ``_PASSWORD`` or
        ``_PASSWORD_FILE``, ``_CA_FILE``, ``_CERT_FILE`` and ``_KEY_FILE``.

        Parameters
        ----------
        env
            Usually ``os.environ``; an empty value counts as absent.
        address
            Where it is ``kafka+ssl://``, the protocol need not be said.
        """

        def of(name: str) -> str:
            return env.get(VARIABLE + name, "").strip()

        tls = address is not None and address.tls
        username, certificate = of("USERNAME"), of("CA_FILE") or of("CERT_FILE")
        protocol = of("SECURITY_PROTOCOL").upper() or _protocol(tls, username, certificate)
        if protocol not in PROTOCOLS:
            raise ConfigError(f"{VARIABLE}SECURITY_PROTOCOL is {protocol!r}; use one of {', '.join(PROTOCOLS)}")
        sasl = protocol.startswith("SASL")
        mechanism = of("SASL_MECHANISM").upper() or MECHANISMS[0]
        if mechanism not in MECHANISMS:
            raise ConfigError(f"{VARIABLE}SASL_MECHANISM is {mechanism!r}; use one of {', '.join(MECHANISMS)}")
        if sasl and not username:
            raise ConfigError(f"{VARIABLE}USERNAME is not set; {protocol} needs a user")
        if of("KEY_FILE") and not of("CERT_FILE"):
            raise ConfigError(f"{VARIABLE}KEY_FILE is set without {VARIABLE}CERT_FILE; name that key's certificate too")
        made = cls(
            protocol,
            mechanism if sasl else "",
            username if sasl else "",
            _password(env) if sasl else "",
            of("CA_FILE"),
            of("CERT_FILE"),
            of("KEY_FILE"),
        )
        if made.cert_file:
            # A certificate's file may hold its key too.
            _warn_if_open(f"{VARIABLE}{'KEY' if made.key_file else 'CERT'}_FILE", made.key_file or made.cert_file)
        return made if address is None else made.over(address)

    def over(self, address: BrokerAddress) -> Self:
        """The same, with TLS where the address asks for it."""
        return replace(self, protocol=_WITH_TLS.get(self.protocol, self.protocol)) if address.tls else self

    @property
    def tls(self) -> bool:
        return self.protocol.endswith("SSL")

    @property
    def sasl(self) -> bool:
        return self.protocol.startswith("SASL")

    def __str__(self) -> str:
        return f"{self.protocol}, {self.mechanism}, user {self.username!r}" if self.sasl else self.protocol

    def ssl_context(self) -> ssl.SSLContext:
        """Certificates and host names are always checked; ConfigError where a file cannot be used."""
        context = ssl.create_default_context()
        if self.ca_file:
            # Only this authority: whoever names one does not mean the operating system's hundred others besides.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:
                raise ConfigError(f"{VARIABLE}CA_FILE {self.ca_file}: {_why(error)}; give a PEM certificate") from None
        if self.cert_file:
            try:
                # A passphrase of our own choosing, or OpenSSL asks the terminal for one.
                context.load_cert_chain(self.cert_file, self.key_file or None, password="-")  # noqa: S106
            except OSError as error:
                raise ConfigError(
                    f"{VARIABLE}CERT_FILE {self.cert_file}: {_why(error)}; a PEM certificate and its key without a "
                    f"passphrase are needed"
                ) from None
        return context

    def kafka_python(self) -> dict[str, Any]:
        """Keyword arguments for kafka-python's (and aiokafka's) clients. Holds the password: do not print it."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls:
            options["ssl_context"] = self.ssl_context()
        if self.sasl:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options

    def faust(self) -> Any:
        """Faust's ``broker_credentials``; None where the broker asks for nothing."""
        import faust  # seconds to import, and commands do without it

        context = self.ssl_context() if self.tls else None
        if self.sasl:
            return faust.SASLCredentials(
                username=self.username, password=self.password, mechanism=self.mechanism, ssl_context=context
            )
        return None if context is None else faust.SSLCredentials(context)


def _protocol(tls: bool, username: str, certificate: str) -> str:
    """The protocol where none is named. Guessing one that sends a password in the clear is not for us to do."""
    if tls:
        return "SASL_SSL" if username else "SSL"
    if username or certificate:
        known = "USERNAME" if username else "CA_FILE or CERT_FILE"
        wanted = "SASL_SSL (SASL_PLAINTEXT on a trusted network)" if username else "SSL"
        raise ConfigError(f"{VARIABLE}{known} is set without {VARIABLE}SECURITY_PROTOCOL; set that to {wanted}")
    return "PLAINTEXT"


def _password(env: Mapping[str, str]) -> str:
    given, file = env.get(f"{VARIABLE}PASSWORD", ""), env.get(f"{VARIABLE}PASSWORD_FILE", "").strip()
    if given and file:
        raise ConfigError(f"{VARIABLE}PASSWORD and {VARIABLE}PASSWORD_FILE are both set; leave one out")
    if file:
        try:
            # An editor's newline at the end is not part of a password; spaces are.
            given = Path(file).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{VARIABLE}PASSWORD_FILE {file}: {_why(error)}") from None
        _warn_if_open(f"{VARIABLE}PASSWORD_FILE", file)
    if not given:
        raise ConfigError(f"no password: set {VARIABLE}PASSWORD_FILE to a file with it, or {VARIABLE}PASSWORD")
    return given


def _warn_if_open(variable: str, file: str) -> None:
    """Say that everybody on the machine may read a secret; what is not there is told where it is used."""
    try:
        mode = Path(file).stat().st_mode
    except OSError:
        return
    if stat.S_ISREG(mode) and mode & 0o007:
        logger.warning("%s %s may be read by everybody (mode %o); chmod o-rwx it", variable, file, mode & 0o777)


def _why(error: Exception) -> str:
    """The reason without paths, numbers and OpenSSL's source lines."""
    if isinstance(error, ssl.SSLError):
        return str(error.reason or "not usable").replace("_", " ").lower()
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return str(getattr(error, "strerror", None) or error)
