"""What a request says of itself, read with care; and what is remembered of it until its line in the log."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from schemas.events import KINDS, Kind
from streams.api.problems import Problem

__all__ = ["FIELDS", "REQUEST_ID", "choice", "known_kind", "packed"]

REQUEST_ID: Final = web.RequestKey("request_id", str)
"""The request's id: in its answer, in the log, and in the dead letters of its rows."""
FIELDS: Final = web.RequestKey("fields", dict[str, object])
"""What its line in the log says beside."""


def known_kind(text: str) -> Kind:
    """The kind of that name; Problem ``not-found`` where there is none."""
    for kind in KINDS:
        if kind == text:
            return kind
    raise Problem("not-found", f"there is no such kind of event; there are {', '.join(KINDS)}")


def choice(request: web.Request, name: str, known: tuple[str, ...]) -> str:
    """A query parameter that is one of several, the first where it is absent."""
    found = request.query.get(name, known[0])
    if found not in known:
        raise Problem("malformed-request", f"query parameter {name} is one of {', '.join(known)}")
    return found


def packed(request: web.Request) -> bool:
    """Whether the body is gzip."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("identity", ""):
        return False
    if coding in ("gzip", "x-gzip"):
        return True
    raise Problem("wrong-type", "the content encoding is not taken; send gzip or none", {"Accept-Encoding": "gzip"})
