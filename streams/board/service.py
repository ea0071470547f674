"""The board's service: the page, what stands, what is behind it, and dispositions from those who may.

The page asks for news and waits (a long poll): any proxy lets it through, the token goes in a header as everywhere, and
after a broken connection it goes on from the version that it knows. A token is never in an address or a cookie, so that
no other site can make a browser send it.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import msgspec
from aiohttp import web

from schemas.alerts import Alert, Disposition, Text
from schemas.catalogue import Catalogue
from schemas.errors import Rejection, TocsinError
from streams.api.front import Front
from streams.api.limits import Busy, Limits, Slots
from streams.api.meter import ServiceMetrics
from streams.api.problems import Problem
from streams.api.rows import JSON
from streams.board.axes import Axes, axes
from streams.board.evidence import EvidenceDesk
from streams.board.requests import Asked, disposition_of
from streams.board.situation import News, Situation
from streams.board.watch import Watch
from streams.config import Config
from streams.decode import Record
from streams.medium import Medium
from streams.publish import disposition_record
from streams.ticks import Calendar
from streams.tokens import Grant, Role, TokenFile

__all__ = ["POLICY", "Board"]

logger = logging.getLogger("tocsin.serve")

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The content security policy of the page: its own scripts and style, and text never becomes markup."""
LIMITS: Final = Limits(requests_per_minute=1_200, burst=300, connections=512, uploads=8, uploads_per_token=4)
MAX_CLIENTS: Final = 200
MAX_CLIENTS_PER_TOKEN: Final = 60
_LONGEST_WAIT: Final = 25.0
_GATHER_SECONDS: Final = 0.2
_BODY_BYTES: Final = 4_096
_BODY_SECONDS: Final = 10.0
_COMPRESSED_FROM: Final = 2_048
_STATIC: Final = {
    "board.css": "text/css", "board.js": "text/javascript", "text.js": "text/javascript",
    "dom.js": "text/javascript", "matrix.js": "text/javascript", "alerts.js": "text/javascript",
    "chart.js": "text/javascript", "detail.js": "text/javascript", "server.js": "text/javascript",
}  # fmt: skip
_ENCODE: Final = msgspec.json.Encoder().encode


class About(msgspec.Struct, kw_only=True):
    """What a page has to know once: who it speaks for, and the axes of the matrix."""

    secured: bool
    organisation: str
    roles: Sequence[Role]
    tick_seconds: int
    utc_offset: str
    axes: Axes


class Board(Front):
    """The board of one place.

    Parameters
    ----------
    config, catalogue
        The workers' own.
    following, reading
        Open the place's topics: for the thread that follows them, and for whoever reads or writes once.
    tokens
        Who may read and dispose; None for everybody on this machine.
    tls
        Whether it is spoken to in TLS.
    limits
        How often a token may come; how many ask for evidence at once.
    clock
        Gives epoch seconds.
    """

    lost = "the board is at /"

    def __init__(
        self,
        config: Config,
        catalogue: Catalogue,
        following: Callable[[], AbstractContextManager[Medium]],
        reading: Callable[[], AbstractContextManager[Medium]],
        tokens: TokenFile | None,
        *,
        tls: bool = False,
        limits: Limits = LIMITS,
        meter: ServiceMetrics | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(limits, tokens, tls=tls, meter=meter or ServiceMetrics("board"))
        self._config = config
        self._catalogue = catalogue
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._reading = reading
        self._clock = clock
        self._axes = axes(catalogue)
        self._evidence = EvidenceDesk(reading, config, catalogue)
        self._watch = Watch(following, self._came, self._followed, self._restarted)
        # An answer must not wait behind charts, which may take seconds.
        self._readers, self._writers = (ThreadPoolExecutor(2, thread_name_prefix=name) for name in ("chart", "answer"))
        self._reads, self._writes = (Slots(limits.uploads, limits.uploads_per_token) for _ in range(2))
        self._clients = Slots(MAX_CLIENTS, MAX_CLIENTS_PER_TOKEN)
        self._waiting = 0
        self._files = {name: _static(name) for name in ("board.html", *_STATIC)}
        self._situation = Situation(self._region_name)
        self._coming: Situation | None = Situation(self._region_name)
        """What is being read from the beginning; nobody sees it before it is whole."""
        self._encoded: tuple[News, bytes] | None = None
        """What those get who know nothing yet, encoded once for all of them."""
        self._news = asyncio.Event()
        self._ends = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._alerts = msgspec.json.Decoder(Alert)
        self._dispositions = msgspec.json.Decoder(Disposition)

    def routes(self) -> list[web.RouteDef]:
        """What the board answers to."""
        return [
            web.get("/", self._page),
            web.get("/static/{name}", self._file),
            web.get("/healthz", self._health),
            web.get("/v1/board", self._about),
            web.get("/v1/board/news", self._tell_news),
            web.get("/v1/board/alerts/{id}", self._detail),
            web.get("/v1/board/alerts/{id}/evidence", self._behind),
            web.post("/v1/board/alerts/{id}/dispositions", self._dispose),
        ]

    async def opened(self, app: web.Application) -> None:
        """Begin to follow the topics."""
        self._loop = asyncio.get_running_loop()
        self._watch.start()

    async def ending(self, app: web.Application) -> None:
        """Let those who wait go."""
        self._ends = True
        self._ring()

    async def closed(self, app: web.Application) -> None:
        """Stop to follow."""
        await asyncio.get_running_loop().run_in_executor(None, self._watch.stop)
        for pool in (self._readers, self._writers):
            pool.shutdown(wait=True)

    def _region_name(self, code: str) -> Text:
        return Text(*self._catalogue.regions.label(code))

    # --- what comes from the topics --------------------------------------------------------------------------------

    def _came(self, topic: str, records: Sequence[Record]) -> None:
        """Records that the watching thread has read: decoded there, taken over in the loop."""
        if topic == "dispositions":
            told = [(record.timestamp, said) for record in records if (said := self._disposition(record)) is not None]
            self._call(lambda: self._take_dispositions(told))
        else:
            alerts = [one for record in records if (one := self._revision(record)) is not None]
            self._call(lambda: self._take_alerts(alerts))

    def _revision(self, record: Record) -> Alert | None:
        if record.value is None:
            return None
        try:
            return self._alerts.decode(record.value)
        except msgspec.DecodeError as error:
            logger.warning("emergency-response, offset %d: not an alert of this version: %s", record.offset, error)
            return None

    def _disposition(self, record: Record) -> Disposition | None:
        try:
            return self._dispositions.decode(record.value or b"")
        except msgspec.DecodeError:  # a dead letter tells of it
            return None

    def _call(self, what: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _take_alerts(self, alerts: Sequence[Alert]) -> None:
        situation = self._coming or self._situation
        for alert in alerts:
            situation.take(alert)
        self._changed()

    def _take_dispositions(self, told: Sequence[tuple[int, Disposition]]) -> None:
        situation = self._coming or self._situation
        for arrival, disposition in told:
            situation.dispose(self._calendar.moment(arrival), disposition)
        self._changed()

    def _followed(self, well: bool) -> None:
        def take() -> None:
            before = self._situation.version
            if well and self._coming is not None:
                self._situation, self._coming = self._coming, None
            self._situation.follow(well)
            self.meter.following(well)
            if self._situation.version != before:
                self._changed()

        self._call(take)

    def _restarted(self) -> None:
        def take() -> None:
            self._coming = Situation(self._region_name)

        self._call(take)

    def _changed(self) -> None:
        self.meter.standing(self._situation.held, self._situation.count - self._situation.held)
        self._ring()

    def _ring(self) -> None:
        rung, self._news = self._news, asyncio.Event()
        rung.set()

    # --- the page --------------------------------------------------------------------------------------------------

    async def _page(self, _: web.Request) -> web.Response:
        response = web.Response(body=self._files["board.html"], content_type="text/html", charset="utf-8")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in _STATIC:
            raise Problem("not-found", self.lost)
        return web.Response(body=self._files[name], content_type=_STATIC[name], charset="utf-8")

    async def _health(self, _: web.Request) -> web.Response:
        well = self._situation.following
        return web.json_response({"status": "ok" if well else "not following"}, status=200 if well else 503)

    # --- reading ---------------------------------------------------------------------------------------------------

    def _grant(self, request: web.Request, role: Role) -> Grant:
        grant = self.gate.bearer(request)
        self.note(request, token=grant.id or "-")
        self.gate.check_role(grant, role)
        return grant

    async def _about(self, request: web.Request) -> web.Response:
        grant = self._grant(request, "read")
        return _json(
            About(
                secured=self.gate.secured, organisation=grant.organisation, roles=grant.roles,
                tick_seconds=self._config.tick_seconds, utc_offset=self._config.utc_offset, axes=self._axes,
            )
        )  # fmt: skip

    async def _tell_news(self, request: web.Request) -> web.Response:
        """What has changed since a version; waits for a change, up to the seconds that ``wait`` says."""
        grant = self._grant(request, "read")
        since, wait = request.query.get("since", ""), _seconds(request.query.get("wait", "0"))
        try:
            async with self._clients.one(grant.id):
                self._count(1)
                try:
                    if wait and since == self._situation.version:
                        await self._wait(wait)
                finally:
                    self._count(-1)
        except Busy:
            raise Problem("busy", "too many pages are open; close some", {"Retry-After": "30"}) from None
        news = self._situation.news(since)
        if not news.whole:
            return _json(news)
        if self._encoded is None or self._encoded[0] is not news:
            self._encoded = (news, _ENCODE(news))
        return _json(self._encoded[1])

    def _count(self, more: int) -> None:
        self._waiting += more
        self.meter.clients(self._waiting)

    async def _wait(self, seconds: float) -> None:
        if self._ends:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return
        if not self._ends:
            await asyncio.sleep(_GATHER_SECONDS)  # what comes together is told together

    def _alert(self, request: web.Request) -> Alert:
        found = self._situation.alert(request.match_info["id"])
        if found is None:
            raise Problem("not-found", "the board holds no such alert; it may have ended long ago")
        return found

    async def _detail(self, request: web.Request) -> web.Response:
        self._grant(request, "read")
        alert = self._alert(request)
        return _json(self._situation.detail(alert.id))

    async def _behind(self, request: web.Request) -> web.Response:
        grant = self._grant(request, "read")
        alert, others = self._alert(request), self._situation.open_alerts
        began = time.monotonic()
        found = await _in_thread(self._readers, self._reads, grant, lambda: self._evidence.behind(alert, others))
        self.meter.charted(time.monotonic() - began)
        return _json(found)

    # --- disposing -------------------------------------------------------------------------------------------------

    async def _dispose(self, request: web.Request) -> web.Response:
        grant = self._grant(request, "dispose")
        if request.content_type != JSON:  # what a form of another site could send is none
            raise Problem("wrong-type", f"a disposition is sent as {JSON}")
        alert = self._alert(request)
        self._check_region(grant, alert)
        asked = await _body(request)
        disposition = disposition_of(asked, alert.id, grant, datetime.fromtimestamp(self._clock(), UTC))
        if alert.status == "resolved":
            raise Problem("malformed-request", "the alert has ended; nothing can be done about it any more")
        await _in_thread(self._writers, self._writes, grant, lambda: self._write(disposition))
        self.meter.disposed(disposition.action)
        self.note(request, alert=alert.id, action=disposition.action)
        return _json({"disposition_id": disposition.disposition_id, "takes_effect": self._effect()}, 202)

    def _check_region(self, grant: Grant, alert: Alert) -> None:
        if grant.regions is None:
            return
        try:
            path = self._catalogue.regions.path(alert.region)
        except Rejection:
            path = ()
        if not any(code in grant.regions for code in path):
            raise Problem("not-allowed", "this token may not dispose of alerts of this region")

    def _write(self, disposition: Disposition) -> None:
        try:
            with self._reading() as medium:
                medium.write("dispositions", [disposition_record(disposition, self._clock())])
        except (TocsinError, sqlite3.Error, OSError) as error:
            raise Problem(
                "log-unavailable", "the log could not be written; try again", {"Retry-After": "5"}
            ) from error  # fmt: skip

    def _effect(self) -> datetime:
        """When a disposition that arrives now takes effect: at the end of its tick."""
        now = int(self._clock() * 1_000)
        return self._calendar.moment(self._calendar.tick_end(self._calendar.tick(now)))


async def _in_thread(pool: ThreadPoolExecutor, slots: Slots, grant: Grant, work: Callable[[], Any]) -> Any:
    """What the work returns; Problem ``busy`` where too much goes on already."""
    try:
        async with slots.one(grant.id):
            running = asyncio.get_running_loop().run_in_executor(pool, work)
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:  # who hangs up does not free the thread
                await asyncio.wait([running])
                raise
    except Busy:
        raise Problem("busy", "too many ask at once; try again in a while", {"Retry-After": "3"}) from None


async def _body(request: web.Request) -> Asked:
    """The body of a disposition; Problem where it is too long, too slow or none."""
    data = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while piece := await request.content.read(_BODY_BYTES + 1 - len(data)):
                data += piece
                if len(data) > _BODY_BYTES:
                    raise Problem(
                        "too-large", f"a disposition has at most {_BODY_BYTES} bytes", {"Connection": "close"}
                    )
    except TimeoutError:
        raise Problem("too-slow", "the body came too slowly", {"Connection": "close"}) from None
    try:
        return msgspec.json.decode(data, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("malformed-body", f"not a disposition: {error}") from None


def _seconds(text: str) -> float:
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise Problem("malformed-request", f"query parameter wait is a number of seconds, at most {_LONGEST_WAIT:g}")
    return min(float(text), _LONGEST_WAIT)


def _json(what: object, status: int = 200) -> web.Response:
    body = what if isinstance(what, bytes) else _ENCODE(what)
    response = web.Response(body=body, status=status, content_type=JSON, zlib_executor_size=1 << 20)
    if len(body) > _COMPRESSED_FROM:
        response.enable_compression()
    return response


def _static(name: str) -> bytes:
    return (resources.files("streams.board") / "static" / name).read_bytes()
