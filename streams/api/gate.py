"""Who may come in: tokens, the sites that a browser comes from, how often; and what stands on every answer.

Without tokens the service is for this machine alone. A browser on this machine also shows pages of strangers, so such a
service takes requests only under the names of the machine itself (against DNS rebinding), and no service takes those
that a browser says were sent by another site. There is no CORS: no other site's script may read an answer.
"""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from schemas.errors import ConfigError
from schemas.events import Kind
from streams.api.limits import Limits, RateLimiter
from streams.api.problems import Problem
from streams.tokens import EVERYTHING, Grant, Role, TokenFile

__all__ = ["Gate", "is_loopback", "security_headers"]

_OWN_SITES: Final = ("same-origin", "none")
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="tocsin"'}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there.

    Examples
    --------
    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def security_headers(secure: bool) -> dict[str, str]:
    """What stands on every answer that does not say otherwise."""
    headers = {
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
    return {**headers, "Strict-Transport-Security": "max-age=31536000"} if secure else headers


class Gate:
    """Lets requests in.

    Parameters
    ----------
    tokens
        None: everybody on this machine may do everything.
    limits
        How often a token may come.
    """

    def __init__(self, tokens: TokenFile | None, limits: Limits) -> None:
        self._tokens = tokens
        self._rates = RateLimiter(limits.requests_per_minute, limits.burst)

    @property
    def secured(self) -> bool:
        """Whether tokens are asked for."""
        return self._tokens is not None

    def check_site(self, request: web.Request) -> None:
        """Refuse what a browser was made to send by another site; Problem ``other-site``."""
        if self._tokens is None and not is_loopback(_hostname(request.headers.get("Host", ""))):
            raise Problem("other-site", "without tokens only this machine is served; call it 127.0.0.1 or localhost")
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
        if request.method in ("GET", "HEAD"):
            return
        other = site not in _OWN_SITES if site is not None else origin is not None and not _same(origin, request)
        if other:
            raise Problem("other-site", "pages of other sites may not send events; use this site's own page")

    def bearer(self, request: web.Request) -> Grant:
        """The grant of a request's Authorization header; Problem ``no-token`` where there is none."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return self.grant(token.strip() if scheme.lower() == "bearer" else "")

    def grant(self, token: str) -> Grant:
        """The grant of a token; Problem ``no-token`` where it has none."""
        if self._tokens is None:
            return EVERYTHING
        try:
            found = self._tokens.grant(token)
        except ConfigError as error:
            raise Problem(
                "tokens-unavailable", "the tokens cannot be read; tell the operator", {"Retry-After": "60"}
            ) from error
        if found is None:
            raise Problem(
                "no-token", "send Authorization: Bearer and a token that is in force; ask the operator", _CHALLENGE
            )
        return found

    def check(self, grant: Grant, kind: Kind) -> None:
        """Whether a grant may submit a kind now; Problem ``not-allowed`` or ``too-many-requests``."""
        self._check_rate(grant)
        if not grant.may_submit(kind):
            raise Problem("not-allowed", f"this token may not submit {kind} events")

    def check_role(self, grant: Grant, role: Role) -> None:
        """Whether a grant is for something, now; Problem ``not-allowed`` or ``too-many-requests``."""
        self._check_rate(grant)
        if not grant.has(role):
            raise Problem("not-allowed", f"this token has not the role {role}; ask the operator for one that has")

    def _check_rate(self, grant: Grant) -> None:
        wait = self._rates.take(grant.id)
        if wait:
            raise Problem("too-many-requests", f"this token comes too often; wait {wait} s", {"Retry-After": str(wait)})


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same(origin: str, request: web.Request) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == request.headers.get("Host", "").lower()
    except ValueError:
        return False
