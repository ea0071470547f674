"""The routes: who asks is settled first, then the body goes to a file, then a thread takes its rows.

Nothing is read of a body before its sender is known, the rate allows it and a place is free. An upload has a folder of
its own, gone when its answer is. What is around all that, the log for one, is :class:`streams.api.front.Front`'s.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

from schemas.events import KINDS, Kind
from streams.api.body import check_length, spool
from streams.api.cloudevents import Attributes, attributes_of_headers
from streams.api.form import Form
from streams.api.front import Front
from streams.api.limits import Busy, Slots
from streams.api.openapi import document
from streams.api.problems import PROBLEM_JSON, PROBLEMS, Problem
from streams.api.requests import REQUEST_ID, choice, known_kind, packed
from streams.api.rows import JSON, Upload, media_type
from streams.api.submit import Desk, Report
from streams.mapping import Mapping
from streams.tokens import Grant, TokenFile

__all__ = ["Service"]

_PIECE: Final = 1 << 16
_BUSY_SECONDS: Final = "5"


class Service(Front):
    """The HTTP service of one place.

    Parameters
    ----------
    desk
        Takes the uploads.
    tokens
        Who may; None for everybody on this machine.
    tls
        Whether it is spoken to in TLS.
    """

    lost = f"events go to /v1/events/ and one of {', '.join(KINDS)}"

    def __init__(self, desk: Desk, tokens: TokenFile | None, *, tls: bool = False) -> None:
        super().__init__(desk.limits, tokens, tls=tls, meter=desk.meter)
        self.desk = desk
        self._form = Form(self)
        self._slots = Slots(desk.limits.uploads, desk.limits.uploads_per_token)
        self._pool = ThreadPoolExecutor(desk.limits.uploads, thread_name_prefix="upload")
        described = document(desk.limits, desk.mappings, secured=self.gate.secured)
        self._document = msgspec.json.encode(described)

    def routes(self) -> list[web.RouteDef]:
        """What the service answers to."""
        return [
            web.post("/v1/events/{kind}", self._events),
            web.get("/openapi.json", self._openapi),
            web.get("/healthz", self._health),
            *self._form.routes(),
        ]

    async def closed(self, app: web.Application) -> None:
        """Finish what is under way, and delete what was kept."""
        await self._slots.idle()
        self._pool.shutdown(wait=True)
        await self._form.close(app)

    # --- routes ----------------------------------------------------------------------------------------------------

    async def _openapi(self, _: web.Request) -> web.Response:
        return web.Response(body=self._document, content_type=JSON)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        kind = known_kind(request.match_info["kind"])
        grant = self.gate.bearer(request)
        self.note(request, token=grant.id or "-")
        self.gate.check(grant, kind)
        attributes = attributes_of_headers(request.headers)
        media, charset = media_type(request.content_type, request.charset)
        if attributes is not None and media != JSON:
            raise Problem("wrong-type", "the data of a CloudEvent in binary mode is taken as application/json")
        every = choice(request, "verdicts", ("rejected", "all")) == "all"
        mapping = self.desk.mapping(request.query.get("mapping"), kind)
        check_length(request.content_length, self.desk.limits)
        gzipped = packed(request)
        with tempfile.TemporaryDirectory(prefix="tocsin-upload-") as name:
            upload = self.upload(
                request, Path(name), kind, media, charset, gzipped=gzipped, mapping=mapping, attributes=attributes
            )
            report = await self.take(request, upload, grant, request.content.iter_chunked(_PIECE), every=every)
            return await self._told(request, report)

    # --- an upload -------------------------------------------------------------------------------------------------

    @staticmethod
    def upload(
        request: web.Request,
        folder: Path,
        kind: Kind,
        media: str,
        charset: str,
        *,
        gzipped: bool = False,
        mapping: Mapping | None = None,
        attributes: Attributes | None = None,
    ) -> Upload:
        """The upload of a request; in dead letters it goes by the request's id."""
        name = f"upload-{request[REQUEST_ID]}"
        return Upload(folder, name, media, kind, charset, gzipped, mapping, attributes)

    async def take(
        self, request: web.Request, upload: Upload, grant: Grant, pieces: AsyncIterator[bytes], *, every: bool = False
    ) -> Report:
        """Read a body to its end and publish its rows; returns when they are durable.

        Raises
        ------
        Problem
            It cannot be taken.
        """
        try:
            async with self._slots.one(grant.id):
                size = await spool(pieces, upload.folder / "body", self.desk.limits)
                work = asyncio.get_running_loop().run_in_executor(
                    self._pool, lambda: self.desk.submit(upload, grant, request[REQUEST_ID], every=every)
                )
                # Who hangs up does not end the work: the folder must stay until the thread is done with it.
                try:
                    report = await asyncio.shield(work)
                except asyncio.CancelledError:
                    await asyncio.wait([work])
                    raise
        except Busy:
            raise Problem(
                "busy", "too many uploads at once; send it again in a while", {"Retry-After": _BUSY_SECONDS}
            ) from None
        except web.RequestPayloadError as error:
            raise Problem("malformed-body", f"the body is damaged or cut short ({error})") from None
        summary = report.summary
        self.note(request, bytes=size, accepted=summary.accepted, rejected=summary.rejected)
        return report

    async def _told(self, request: web.Request, report: Report) -> web.StreamResponse:
        """The receipt, or the refusal, with its verdicts streamed from their file."""
        summary = report.summary
        known: dict[str, object] = msgspec.to_builtins(summary)
        status, content_type = (202 if not summary.rejected else 207), JSON
        if not summary.accepted:
            refusal = Problem("all-refused", f"all {summary.rejected} rows were rejected; verdicts say why")
            status, content_type = refusal.kind.status, PROBLEM_JSON
            known = {**msgspec.to_builtins(refusal.body(summary.request_id)), **known}
            self.note(request, problem=PROBLEMS["all-refused"].name)
        response = web.StreamResponse(status=status, headers={"Content-Type": content_type})
        async with asyncio.timeout(self.desk.limits.body_seconds):
            await response.prepare(request)
            await response.write(msgspec.json.encode(known)[:-1] + b',"verdicts":[')
            with report.verdicts.open("rb") as file:
                comma = b""
                while lines := file.readlines(_PIECE):
                    await response.write(comma + b",".join(line[:-1] for line in lines))
                    comma = b","
            await response.write(b"]}")
            await response.write_eof()
        return response
