"""Loaded by the schemathesis command: how the media types that it does not know go on the wire."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.serializer(
    "application/x-ndjson",
    "text/csv",
    "text/tab-separated-values",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
)
def text(_: Any, value: Any) -> bytes:
    """A text as it is; what is no text, as JSON: it is wrong on purpose."""
    return _bytes(value)
