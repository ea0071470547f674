"""The API's own description: OpenAPI 3.1, made from the Structs and the tables that the service itself goes by."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final

import msgspec

from schemas.events import KINDS, Kind
from schemas.json_schema import schema_of
from streams.api.cloudevents import Attributes
from streams.api.limits import Limits
from streams.api.problems import PROBLEM_JSON, PROBLEMS, ProblemBody
from streams.api.rows import CLOUDEVENT, CLOUDEVENTS, CSV, JSON, NDJSON, TSV
from streams.api.sheets import XLSX
from streams.api.submit import Summary, Verdict
from streams.mapping import Mapping as ColumnMapping

__all__ = ["EXAMPLES", "document"]

_COMMON: Final[dict[str, Any]] = {
    "event_id": "R-2026-00017", "source": "lab-07", "reported_at": "2026-03-02T09:30:00+08:00", "product": "F0201",
    "region": "120110",
}  # fmt: skip
_MAKER: Final[dict[str, Any]] = {"producer": "91350100M000100Y43", "batch": "B2602", "gtin": "6901234567892"}
EXAMPLES: Final[dict[Kind, dict[str, Any]]] = {
    "inspection": {**_COMMON, **_MAKER, "lab": "lab-07", "verdict": "fail", "severity": "major"},
    "injury": {**_COMMON, **_MAKER, "site": "hospital-3", "severity": 2, "injury": "burn", "body_part": "hand"},
    "complaint": {**_COMMON, **_MAKER, "channel": "12315", "category": "off taste"},
    "accident": {**_COMMON, **_MAKER, "authority": "district bureau", "seriously_injured": 1},
    "survey": {**_COMMON, "surveyor": "statistics office", "score": 81.5, "respondents": 240},
    "loss": {**_COMMON, "producer": _MAKER["producer"], "loss_cny": 1_250.0, "output_cny": 98_000.0},
}
"""An event of each kind, with codes that the catalogue of Tianjin has."""

_TEXT: Final = f"""\
Events over HTTP, into the log that Tocsin reads. Each row of an upload gets a verdict.

* **202**: every row was accepted, and is durable (SQLite's commit, or acknowledged by all replicas in sync).
* **207**: some rows were rejected, the others are durable. The body is the same.
* **422**: all rows were rejected; problem details, with the verdicts.
* Any other status: problem details ({PROBLEM_JSON}), and, but for 503, nothing was taken.

Rows that are not listed in `verdicts` were accepted; `verdicts=all` lists every row. Rejected rows are also kept in
`dead-letters`. **Sending again is always safe**: an event is known by `source` and `event_id`, and counts once.
After 429 and 503 send the same again when `Retry-After` has passed. A body may be gzipped (`Content-Encoding: gzip`).
"""

_NAMES: Final[dict[int, str]] = {
    400: "The body or the request cannot be understood",
    401: "No token, or one that is unknown, expired or revoked",
    403: "The token does not allow this kind of event",
    408: "The body came too slowly",
    413: "Too many bytes or rows; nothing was taken",
    415: "The content type, its charset or the content encoding is not taken",
    429: "Too many requests with this token",
    500: "A fault of the service",
    503: "Too many uploads at once, or the log or the tokens cannot be had",
}


def document(limits: Limits, mappings: Mapping[str, ColumnMapping], *, secured: bool) -> dict[str, Any]:
    """The OpenAPI document of a service.

    Parameters
    ----------
    limits, mappings
        Those that the service goes by.
    secured
        Whether it asks for tokens.
    """
    (summary, verdict, problem, attributes), parts = msgspec.json.schema_components(
        [Summary, Verdict, ProblemBody, Attributes], ref_template="#/components/schemas/{name}"
    )
    schemas: dict[str, Any] = {name: _clean(part) for name, part in parts.items()}
    verdicts = {"type": "array", "items": verdict}
    schemas["Receipt"] = {
        "description": "What became of an upload. A row that is not in verdicts was accepted.",
        "allOf": [summary, {"type": "object", "properties": {"verdicts": verdicts}, "required": ["verdicts"]}],
    }
    schemas["Refusal"] = {
        "description": "Problem details of an upload whose rows were all rejected.",
        "allOf": [problem, {"$ref": "#/components/schemas/Receipt"}],
    }
    data = {"type": "object", "description": "The event; the attributes fill in event_id, source and reported_at."}
    schemas["CloudEvent"] = {
        "description": "A CloudEvent (1.0, JSON format) around an event.",
        "allOf": [attributes, {"type": "object", "properties": {"data": data}, "required": ["data"]}],
    }
    cloud = {"$ref": "#/components/schemas/CloudEvent"}
    paths: dict[str, Any] = {}
    for kind in KINDS:
        schemas.update(_event(kind))
        offered = sorted(name for name, mapping in mappings.items() if mapping.kind == kind)
        paths[f"/v1/events/{kind}"] = {"post": _submit(kind, offered, cloud, secured)}
    paths["/healthz"] = {"get": _plain("Whether the service answers", "health", {"type": "object"})}
    paths["/openapi.json"] = {"get": _plain("This document", "openapi", {"type": "object"})}
    components: dict[str, Any] = {"schemas": schemas}
    if secured:
        components["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "A token of `tocsin tokens add`."}
        }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tocsin intake",
            "version": version("tocsin"),
            "summary": "Quality and safety events from labs, hospitals, hotlines and authorities",
            "description": _TEXT + _bounds(limits),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "events"}, {"name": "service"}],
        "paths": paths,
        "components": components,
        "x-problems": {kind.type: {"status": kind.status, "title": kind.title} for kind in PROBLEMS.values()},
    }


def _bounds(limits: Limits) -> str:
    return (
        f"\nOf one upload {limits.body_bytes} bytes are taken ({limits.unpacked_bytes} unpacked, "
        f"{limits.document_bytes} of a JSON document) and {limits.rows} rows; of one token "
        f"{limits.requests_per_minute} requests a minute, and {limits.uploads_per_token} at once.\n"
    )


def _clean(schema: dict[str, Any]) -> dict[str, Any]:
    if "description" in schema:
        schema["description"] = " ".join(str(schema["description"]).split())
    return schema


def _event(kind: Kind) -> dict[str, Any]:
    """An event's published schema as components, its parts beside it."""
    schema = json.loads(json.dumps(copy.deepcopy(schema_of(kind))).replace('"#/$defs/', '"#/components/schemas/'))
    parts = schema.pop("$defs", {})
    for name in ("$schema", "$id"):
        schema.pop(name, None)
    return {schema["title"]: schema, **parts}


def _title(kind: Kind) -> str:
    return str(schema_of(kind)["title"])


def _submit(kind: Kind, offered: list[str], cloud: dict[str, Any], secured: bool) -> dict[str, Any]:
    event = {"$ref": f"#/components/schemas/{_title(kind)}"}
    text, example = {"type": "string", "minLength": 1}, EXAMPLES[kind]
    content: dict[str, Any] = {
        JSON: {
            "schema": {"anyOf": [event, {"type": "array", "minItems": 1, "items": event}]},
            "examples": {"one": {"value": example}, "several": {"value": [example, {**example, "event_id": "R-2"}]}},
        },
        NDJSON: {"schema": {**text, "description": "One event a line."}, "example": json.dumps(example) + "\n"},
        CSV: {
            "schema": {**text, "description": "Columns named like the fields, or those of a mapping."},
            "example": _lines(example, ","),
        },
        TSV: {"schema": {**text, "description": "As CSV, with tabulators."}, "example": _lines(example, "\t")},
        CLOUDEVENT: {"schema": cloud, "example": _wrapped(example, kind)},
        CLOUDEVENTS: {
            "schema": {"type": "array", "minItems": 1, "items": cloud},
            "example": [_wrapped(example, kind)],
        },
        XLSX: {"schema": {"type": "string", "description": "A workbook with one filled sheet; columns as in CSV."}},
    }
    parameters: list[dict[str, Any]] = [
        {
            "name": "verdicts", "in": "query", "description": "Verdicts on which rows.",
            "schema": {"enum": ["rejected", "all"], "type": "string", "default": "rejected"},
        }
    ]  # fmt: skip
    if offered:
        parameters.append({
            "name": "mapping", "in": "query", "description": "How the columns of a table become events.",
            "schema": {"enum": offered, "type": "string"},
        })  # fmt: skip
    receipt = {JSON: {"schema": {"$ref": "#/components/schemas/Receipt"}}}
    answers: dict[str, Any] = {
        "202": {"description": "Every row was accepted and is durable", "content": receipt},
        "207": {"description": "Some rows were rejected; the others are durable", "content": receipt},
        "422": {
            "description": "All rows were rejected",
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Refusal"}}},
        },
    }
    for status, said in _NAMES.items():
        answers[str(status)] = {
            "description": said,
            "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        if status in (429, 503):
            answers[str(status)]["headers"] = {
                "Retry-After": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}
            }
    for answer in answers.values():
        answer.setdefault("headers", {})["X-Request-Id"] = {"required": True, "schema": {"type": "string"}}
    if not secured:
        del answers["401"]
    operation: dict[str, Any] = {
        "operationId": f"submit_{kind}",
        "tags": ["events"],
        "summary": f"Submit {kind} events",
        "parameters": parameters,
        "requestBody": {"required": True, "content": content},
        "responses": dict(sorted(answers.items())),
    }
    if secured:
        operation["security"] = [{"token": []}]
    return operation


def _lines(event: dict[str, Any], between: str) -> str:
    """An event as a table: a line of names and one of values."""
    return f"{between.join(event)}\n{between.join(str(value) for value in event.values())}\n"


def _wrapped(event: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """An event as a CloudEvent that says by its attributes what its data then need not."""
    said = {"id": event["event_id"], "source": event["source"], "time": event["reported_at"]}
    rest = {name: value for name, value in event.items() if name not in ("event_id", "source", "reported_at")}
    return {"specversion": "1.0", "type": f"cn.tianjin.quality.{kind}", **said, "data": rest}


def _plain(summary: str, name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": ["service"],
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {JSON: {"schema": schema}}}},
    }
