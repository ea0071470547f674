"""Who may do what over HTTP: one file of tokens, of which only hashes are kept.

A token belongs to an organisation and carries a *grant*: roles (``submit`` events, ``dispose`` of alerts, ``read``) and
bounds on the events that it may submit: kinds, regions (with all below them), labs, sources. What a bound does not name
is refused row by row with the reason ``not-allowed``.

An event is known by its source and id, and a higher revision replaces it wherever it counted. So who may write a source
may correct or withdraw all that this source ever said: a grant names its sources, or says on purpose that it has all.

A token is ``tocsin_ID_SECRET``. The secret is 256 random bits, so there is nothing to guess and no dictionary to try:
plain SHA-256 protects it as well as any slow hash would, and costs an attacker who sends rubbish nothing of our time.
The id is not secret; it finds the entry, and stands in logs. Digests are compared in constant time, also where there is
no such id. The file is replaced as a whole, and a service reads it again when it has changed: revoking works at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from schemas.errors import ConfigError, Rejection
from schemas.events import KINDS, Kind, QualityLoss
from streams.decode import Decoded
from streams.intake import reporter

__all__ = ["EVERYTHING", "ROLES", "Grant", "Role", "TokenFile", "add_token", "revoke_token", "stored_tokens"]

Role = Literal["submit", "dispose", "read"]
ROLES: Final[tuple[Role, ...]] = ("submit", "dispose", "read")

_SHAPE: Final = re.compile(r"tocsin_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOBODY: Final = hashlib.sha256(b"nobody").digest()
_MOST_BYTES: Final = 16 << 20
_HIDDEN: Final = 40

_Name = Annotated[str, Meta(min_length=1, max_length=160)]


class Grant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the holder of a token may do. A bound that is None is no bound.

    Parameters
    ----------
    id
        The token's id: not secret, safe in logs.
    organisation
        Whose token it is.
    roles
        What it is for.
    kinds, regions, labs, sources
        Which events it may submit. ``regions`` holds codes, each with all that lies below it, and bounds the alerts
        that it may dispose of likewise; ``labs`` holds the lab of an inspection, and the site, channel, authority or
        surveyor of the other kinds (a quality loss has none).
    """

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{12}$|^$")]
    organisation: Annotated[str, Meta(min_length=1, max_length=200)]
    roles: tuple[Role, ...]
    kinds: tuple[Kind, ...] | None = None
    regions: tuple[_Name, ...] | None = None
    labs: tuple[_Name, ...] | None = None
    sources: tuple[_Name, ...] | None = None

    def has(self, role: Role) -> bool:
        """Whether the token is for this."""
        return role in self.roles

    def may_submit(self, kind: Kind) -> bool:
        """Whether it may submit events of a kind at all."""
        return self.has("submit") and (self.kinds is None or kind in self.kinds)

    def check(self, decoded: Decoded) -> None:
        """Whether it may submit this event.

        Raises
        ------
        Rejection
            ``not-allowed``, with the field that lies outside the grant.
        """
        event = decoded.event
        if self.sources is not None and event.source not in self.sources:
            raise _outside("source", event.source)
        if self.regions is not None and not any(code in self.regions for code in decoded.region):
            raise _outside("region", event.region)
        if self.labs is not None and not isinstance(event, QualityLoss):
            field, name = reporter(event)
            if name not in self.labs:
                raise _outside(field, name)


EVERYTHING: Final = Grant(id="", organisation="this machine", roles=ROLES)
"""For a service without tokens, which listens on the loopback interface only."""


def _outside(field: str, found: str) -> Rejection:
    shown = found if len(found) <= _HIDDEN else found[:_HIDDEN] + "..."
    return Rejection(
        "not-allowed", field, f"this token may not submit events of {field} {shown!r}; correct it, or ask for a token"
    )


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A token as the file keeps it."""

    grant: Grant
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    created: datetime
    expires: datetime | None = None

    def live(self, now: float) -> bool:
        return self.expires is None or self.expires.timestamp() > now


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1] = 1
    tokens: list[_Stored] = []


# --- asking --------------------------------------------------------------------------------------------------------


class TokenFile:
    """The tokens of a running service: read when the file has changed, from any thread.

    A file that is gone or broken lets nobody in: :meth:`grant` raises ConfigError.

    Parameters
    ----------
    path
        The file.
    clock
        Gives epoch seconds, for expiry.

    Raises
    ------
    ConfigError
        The file cannot be read, holds no tokens file, or others may write it.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._held: dict[str, _Stored] = {}
        self._refresh()

    def grant(self, token: str) -> Grant | None:
        """The grant of a token; None for one that is unknown, wrong, expired or revoked."""
        found = _SHAPE.fullmatch(token)
        held = self._refresh()
        stored = held.get(found[1]) if found else None
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        expected = _NOBODY if stored is None else bytes.fromhex(stored.sha256)
        # The comparison comes first: how long the answer takes does not tell whether the id exists.
        if not hmac.compare_digest(digest, expected) or stored is None or not stored.live(self._clock()):
            return None
        return stored.grant

    def _refresh(self) -> dict[str, _Stored]:
        with self._lock:
            try:
                now = self._path.stat()
            except OSError as error:
                self._seen = None
                raise _unreadable(self._path, error.strerror or str(error)) from None
            seen = (now.st_mtime_ns, now.st_size, now.st_ino)
            if seen != self._seen:
                self._seen = None  # a broken file is looked at again each time, and each time refused
                self._held = {one.grant.id: one for one in _read(self._path).tokens}
                self._seen = seen
            return self._held


def stored_tokens(path: Path) -> list[tuple[Grant, datetime, datetime | None]]:
    """The grants of a file, each with when it was made and when it ends."""
    return [(one.grant, one.created, one.expires) for one in _read(path).tokens]


# --- changing ------------------------------------------------------------------------------------------------------


def add_token(
    path: Path,
    organisation: str,
    roles: tuple[Role, ...],
    *,
    kinds: tuple[Kind, ...] | None = None,
    regions: tuple[str, ...] | None = None,
    labs: tuple[str, ...] | None = None,
    sources: tuple[str, ...] | None = None,
    expires: datetime | None = None,
    now: datetime | None = None,
) -> tuple[Grant, str]:
    """Make a token and add its hash to the file, which is made where absent; returns the grant and the token, which is
    nowhere else.

    Raises
    ------
    ConfigError
        The file cannot be used, or the grant cannot.
    """
    known = [kind for kind in KINDS if kinds is not None and kind in kinds]
    made = {
        "id": secrets.token_hex(6), "organisation": organisation, "roles": [r for r in ROLES if r in roles],
        "kinds": None if kinds is None else known, "regions": regions, "labs": labs, "sources": sources,
    }  # fmt: skip
    try:
        grant = msgspec.convert(made, Grant)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the token cannot be made: {error}") from None
    token = f"tocsin_{grant.id}_{secrets.token_urlsafe(32)}"
    entry = _Stored(
        grant=grant,
        sha256=hashlib.sha256(token.encode()).hexdigest(),
        created=(now or datetime.now(UTC)).replace(microsecond=0),
        expires=expires,
    )
    with _changing(path) as tokens:
        tokens.append(entry)
    return grant, token


def revoke_token(path: Path, token_id: str) -> Grant:
    """Take a token out of the file; ConfigError where it is not in there."""
    if not path.exists():
        raise _unreadable(path, "there is no such file")
    with _changing(path) as tokens:
        found = next((one for one in tokens if one.grant.id == token_id), None)
        if found is None:
            raise ConfigError(f"{path}: no token has the id {token_id[:20]!r}; see `tocsin tokens list`")
        tokens.remove(found)
    return found.grant


@contextmanager
def _changing(path: Path) -> Iterator[list[_Stored]]:
    """The file's entries, to be changed in place; written as a whole at the end, one writer at a time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = _read(path).tokens if path.exists() else []
            yield tokens
            _write(path, tokens)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); check its owner and folder") from None


def _write(path: Path, tokens: list[_Stored]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tokens-")  # of mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(_Document(tokens=tokens)), indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(path: Path) -> _Document:
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
                raise ConfigError(f"{path}: others may write it, and so give themselves tokens; chmod go-w {path}")
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from None
    try:
        if len(data) > _MOST_BYTES:
            raise ConfigError(f"{path}: has more than {_MOST_BYTES} bytes; this is no tokens file")
        return msgspec.json.decode(data, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is no tokens file ({error}); `tocsin tokens add` makes one") from None


def _unreadable(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path}: the tokens cannot be read ({why.lower()}); make them with `tocsin tokens add`")
