"""CloudEvents 1.0 over HTTP: the event inside, and what its attributes add.

The last part of ``type`` says the kind (``cn.example.inspection``), as on Kafka. ``data`` is our event; where it lacks
``event_id``, ``source`` or ``reported_at``, the attributes ``id``, ``source`` and ``time`` fill in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
from msgspec import Meta

from schemas.errors import Rejection
from schemas.events import KINDS, Kind
from streams.api.problems import Problem
from streams.decode import _explain as explain

__all__ = ["Attributes", "attributes_of_headers", "unwrap", "with_attributes"]

_Text = Annotated[str, Meta(min_length=1, max_length=1_024)]
_FILLED: Final = (("event_id", "id"), ("source", "source"), ("reported_at", "time"))


class Attributes(msgspec.Struct, kw_only=True):
    """The context attributes of a CloudEvent that matter here; extensions are ignored."""

    specversion: Literal["1.0"]
    id: _Text
    source: _Text
    type: _Text
    time: _Text | None = None
    datacontenttype: str | None = None


class _Structured(Attributes, kw_only=True):
    """A CloudEvent in structured JSON."""

    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str | None = None


_DECODER: Final = msgspec.json.Decoder(_Structured)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def unwrap(raw: bytes, kind: Kind) -> bytes:
    """The event in a structured CloudEvent.

    Raises
    ------
    Rejection
        It is no CloudEvent, or none of this kind, or its data is not JSON.
    """
    try:
        found = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        refused = explain(raw, error)
        raise Rejection(refused.reason, refused.field, refused.detail.replace(
            "see the JSON Schema of this kind", "see CloudEvents 1.0, JSON format"
        )) from None  # fmt: skip
    if found.data_base64 is not None:
        raise Rejection("wrong-type", "data_base64", "data is taken as JSON; send it in data")
    if not _is_json(found.datacontenttype):
        raise Rejection("wrong-type", "datacontenttype", "data is taken as application/json only")
    if not bytes(found.data):
        raise Rejection("missing-field", "data", "required field data is absent; put the event there")
    return with_attributes(bytes(found.data), found, kind)


def with_attributes(data: bytes, attributes: Attributes, kind: Kind) -> bytes:
    """The event in ``data``, with what it lacks taken from the attributes; Rejection as for :func:`unwrap`."""
    said = attributes.type.rsplit(".", 1)[-1]
    if said not in KINDS:
        raise Rejection("unknown-kind", "type", f"no event kind {said[:64]!r}; known: {', '.join(KINDS)}")
    if said != kind:
        raise Rejection("wrong-topic", "type", f"the type says {said}, this address takes {kind} events")
    try:
        event = _OBJECT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise explain(data, error) from None
    absent = {
        field: getattr(attributes, name)
        for field, name in _FILLED
        if field not in event and getattr(attributes, name) is not None
    }
    if not absent:
        return data
    return msgspec.json.encode({**event, **absent})


def attributes_of_headers(headers: Mapping[str, str]) -> Attributes | None:
    """The attributes of binary mode, in headers; None where the request is no CloudEvent.

    Raises
    ------
    Problem
        ``malformed-request``: there are ``ce-`` headers, and not all that are needed.
    """
    found: dict[str, Any] = {
        name.lower().removeprefix("ce-"): unquote(text) for name, text in headers.items() if name.lower()[:3] == "ce-"
    }
    if not found:
        return None
    try:
        return msgspec.convert(found, Attributes)
    except msgspec.ValidationError as error:
        raise Problem("malformed-request", f"the ce- headers are not those of CloudEvents 1.0: {error}") from None


def _is_json(content_type: str | None) -> bool:
    base = "application/json" if content_type is None else content_type.partition(";")[0].strip().lower()
    return base == "application/json" or base.endswith("+json")
