"""What stands around every request of an HTTP service: its id, its headers, its line in the log, its metrics.

Whatever goes wrong below becomes a problem. What is logged of a request is its id, what was asked, how it ended and
which token: no address, no name, no field of an event.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

import msgspec
from aiohttp import web

from streams.api.gate import Gate, security_headers
from streams.api.limits import Limits
from streams.api.meter import ServiceMetrics
from streams.api.problems import PROBLEM_JSON, Problem
from streams.api.requests import FIELDS, REQUEST_ID
from streams.tokens import TokenFile

__all__ = ["Front", "Handler"]

logger = logging.getLogger("tocsin.serve")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Front:
    """A service's front; the service adds its routes.

    Parameters
    ----------
    limits
        How often a token may come, and what connections are borne.
    tokens
        Who may; None for everybody on this machine.
    tls
        Whether it is spoken to in TLS.
    meter
        Hears of every request.
    """

    lost: ClassVar[str] = "there is nothing at this address"
    """What is said of an address that there is not."""

    def __init__(
        self, limits: Limits, tokens: TokenFile | None, *, tls: bool = False, meter: ServiceMetrics | None = None
    ) -> None:
        self.limits = limits
        self.gate = Gate(tokens, limits)
        self.meter = meter or ServiceMetrics()
        self.active: dict[object, float] = {}
        self._headers = security_headers(tls)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._answered, self._watched])
        app.add_routes(self.routes())
        app.on_response_prepare.append(self._dress)
        app.on_startup.append(self.opened)
        app.on_shutdown.append(self.ending)
        app.on_cleanup.append(self.closed)
        return app

    def routes(self) -> Sequence[web.AbstractRouteDef]:
        """What the service answers to."""
        raise NotImplementedError

    async def opened(self, app: web.Application) -> None:
        """Before the first request."""

    async def ending(self, app: web.Application) -> None:
        """Once nothing new is taken: what waits is to come to an end."""

    async def closed(self, app: web.Application) -> None:
        """After the last request."""

    async def _dress(self, request: web.Request, response: web.StreamResponse) -> None:
        for name, value in self._headers.items():
            response.headers.setdefault(name, value)
        response.headers["X-Request-Id"] = request.get(REQUEST_ID, "-")
        response.headers["Server"] = "tocsin"

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give the request its id, and tell log and metrics how it ended."""
        request[REQUEST_ID] = secrets.token_hex(8)
        request[FIELDS] = {}
        began, status = time.monotonic(), 0
        self.active[request.protocol] = began
        try:
            response = await handler(request)
            status = response.status
            return response
        finally:
            self.active.pop(request.protocol, None)
            self._tell(request, status, time.monotonic() - began)

    def _tell(self, request: web.Request, status: int, seconds: float) -> None:
        resource = request.match_info.route.resource
        route = "-" if resource is None else resource.canonical
        self.meter.answered(route, status, seconds)
        fields = {
            "request_id": request[REQUEST_ID],
            "method": request.method if request.method in ("GET", "HEAD", "POST") else "other",
            "route": route,
            "status": status,
            "seconds": round(seconds, 3),
            **request[FIELDS],
        }
        said = " ".join(f"{name}={value}" for name, value in fields.items())
        logger.info("%s", said, extra={"fields": fields})

    @web.middleware
    async def _watched(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn whatever goes wrong into a problem."""
        try:
            self.gate.check_site(request)
            return await handler(request)
        except Problem as problem:
            return self._problem(request, problem)
        except web.HTTPNotFound:
            return self._problem(request, Problem("not-found", self.lost))
        except web.HTTPMethodNotAllowed as error:
            allow = ", ".join(sorted(error.allowed_methods))
            return self._problem(request, Problem("wrong-method", f"use {allow}", {"Allow": allow}))
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return self._problem(request, Problem("malformed-request", error.reason))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            logger.exception("request %s failed", request[REQUEST_ID])
            return self._problem(request, Problem("internal-error", "a fault of the service; it is in its log"))

    def _problem(self, request: web.Request, problem: Problem) -> web.Response:
        body = msgspec.json.encode(problem.body(request[REQUEST_ID]))
        response = web.Response(body=body, status=problem.kind.status, content_type=PROBLEM_JSON)
        return self.failed(request, response, problem)

    def failed(self, request: web.Request, response: web.Response, problem: Problem) -> web.Response:
        """The answer with the headers that a problem asks for; our own faults are told in the log."""
        self.note(request, problem=problem.kind.name)
        if problem.__cause__ is not None:
            logger.error("request %s: %s", request[REQUEST_ID], problem.__cause__)
        for name, value in problem.headers.items():
            if name == "Connection":
                response.force_close()
            else:
                response.headers[name] = value
        return response

    @staticmethod
    def note(request: web.Request, **fields: object) -> None:
        """What the request's line in the log shall say beside."""
        request[FIELDS].update(fields)
