"""The upload page's side of the service: the form in, a page out, and the rejected rows as CSV."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import BodyPartReader, web

from streams.api.body import check_length
from streams.api.kept import KEPT_MINUTES, KeptReports
from streams.api.page import CSV_HEAD, POLICY, csv_lines, failure_page, form_page, result_page, template_csv
from streams.api.problems import Problem
from streams.api.reasons import Lang
from streams.api.requests import REQUEST_ID, known_kind
from streams.api.rows import CSV, NDJSON, TSV, media_type
from streams.api.sheets import XLSX
from streams.api.submit import Report, verdicts_of

if TYPE_CHECKING:
    from streams.api.service import Service

__all__ = ["Form"]

_LONGEST_FIELD: Final = 1_024
_MOST_FIELDS: Final = 8
_PIECE: Final = 1 << 16
_SUFFIXES: Final = {".csv": CSV, ".tsv": TSV, ".xlsx": XLSX, ".ndjson": NDJSON, ".jsonl": NDJSON}


class Form:
    """The handlers of the page."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._kept = KeptReports()

    def routes(self) -> list[web.RouteDef]:
        """What the page answers to."""
        return [
            web.get("/", self._show),
            web.post("/", self._send),
            web.get("/rejected/{name}.csv", self._download),
            web.get("/templates/{kind}.csv", self._template),
        ]

    async def close(self, _: web.Application) -> None:
        """Delete what was kept."""
        self._kept.close()

    async def _show(self, request: web.Request) -> web.Response:
        desk = self._service.desk
        mappings = {name: mapping.kind for name, mapping in desk.mappings.items()}
        secured = self._service.gate.secured
        page = form_page(_lang(request), desk.limits, mappings, secured=secured, kind=request.query.get("kind", ""))
        return _html(page, 200)

    async def _send(self, request: web.Request) -> web.StreamResponse:
        lang = _lang(request)
        try:
            with tempfile.TemporaryDirectory(prefix="tocsin-upload-") as name:
                report = await self._taken(request, Path(name))
                return self._result(lang, report)
        except Problem as problem:
            page = failure_page(lang, problem, request[REQUEST_ID])
            return self._service.failed(request, _html(page, problem.kind.status), problem)

    async def _taken(self, request: web.Request, folder: Path) -> Report:
        """Read the form: its fields, then its file, which comes last; so who sends it is known before it is read."""
        if request.content_type != "multipart/form-data":
            raise Problem("wrong-type", "the page's form is sent as multipart/form-data")
        limits = self._service.desk.limits
        check_length(request.content_length, limits)
        fields: dict[str, str] = {}
        try:
            async with asyncio.timeout(limits.idle_seconds):
                parts = await request.multipart()
                part = await parts.next()
                while isinstance(part, BodyPartReader) and part.name != "file" and len(fields) < _MOST_FIELDS:
                    fields[part.name or ""] = await _small(part)
                    part = await parts.next()
        except TimeoutError:
            raise Problem("too-slow", "the form came too slowly", {"Connection": "close"}) from None
        except ValueError as error:
            raise Problem("malformed-request", f"the form cannot be read ({error})") from None
        if not isinstance(part, BodyPartReader) or part.name != "file" or not part.filename:
            raise Problem("malformed-request", "no file is chosen")
        return await self._file(request, folder, fields, part)

    async def _file(self, request: web.Request, folder: Path, fields: dict[str, str], part: BodyPartReader) -> Report:
        service = self._service
        grant = service.gate.grant(fields.get("token", "").strip())
        kind = known_kind(fields.get("kind", ""))
        service.note(request, token=grant.id or "-")
        service.gate.check(grant, kind)
        name = (part.filename or "").lower()
        packed = name.endswith(".gz")
        suffix = Path(name.removesuffix(".gz")).suffix
        if suffix not in _SUFFIXES:
            raise Problem("wrong-type", f"send one of {', '.join(_SUFFIXES)}; an .xls file saved as .xlsx")
        encoding = fields.get("encoding", "") if _SUFFIXES[suffix] in (CSV, TSV) else ""
        media, charset = media_type(_SUFFIXES[suffix], encoding or None)
        mapping = service.desk.mapping(fields.get("mapping"), kind)
        upload = service.upload(request, folder, kind, media, charset, gzipped=packed, mapping=mapping)
        return await service.take(request, upload, grant, _pieces(part))

    def _result(self, lang: Lang, report: Report) -> web.Response:
        summary, verdicts, link = report.summary, report.verdicts, None
        if summary.rejected:
            name = self._kept.add(verdicts)
            found = self._kept.find(name)
            link = f"/rejected/{name}.csv"
            verdicts = found or verdicts
        page = result_page(lang, summary, verdicts_of(verdicts), link, KEPT_MINUTES)
        return _html(page, 422 if not summary.accepted else 207 if summary.rejected else 202)

    async def _download(self, request: web.Request) -> web.StreamResponse:
        file = self._kept.find(request.match_info["name"])
        if file is None:
            raise Problem("not-found", "this report is no longer kept; upload the file again, as nothing counts twice")
        response = web.StreamResponse(headers=_attachment("rejected-rows.csv"))
        async with asyncio.timeout(self._service.desk.limits.body_seconds):
            await response.prepare(request)
            waiting = CSV_HEAD
            for line in csv_lines(verdicts_of(file)):
                waiting += line
                if len(waiting) > _PIECE:
                    await response.write(waiting.encode())
                    waiting = ""
            await response.write(waiting.encode())
            await response.write_eof()
        return response

    async def _template(self, request: web.Request) -> web.Response:
        kind = known_kind(request.match_info["kind"])
        return web.Response(text=template_csv(kind), headers=_attachment(f"{kind}.csv"))


async def _small(part: BodyPartReader) -> str:
    """A field's text; Problem where it is too long for one."""
    data = b""
    while piece := await part.read_chunk():
        data += piece
        if len(data) > _LONGEST_FIELD:
            raise Problem("malformed-request", "a field of the form is too long")
    return data.decode("utf-8", "replace")


async def _pieces(part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await part.read_chunk(_PIECE):
        yield piece


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": f'attachment; filename="{name}"'}


def _html(page: str, status: int) -> web.Response:
    response = web.Response(text=page, status=status, content_type="text/html", charset="utf-8")
    response.headers["Content-Security-Policy"] = POLICY
    return response


def _lang(request: web.Request) -> Lang:
    """The language that the address says, else the one that the browser prefers."""
    asked = request.query.get("lang") or request.headers.get("Accept-Language") or "zh"
    return "en" if asked.lower().startswith("en") else "zh"
