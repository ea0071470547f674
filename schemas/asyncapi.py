"""An AsyncAPI 3.0 document of every topic that others write or read, made from the topic catalogue and the Structs.

It is for those who write producers and consumers: which topics there are, who writes them, what a message is. The
internal topics are not in it: their form is ours to change. The payloads are the JSON Schemas of
:mod:`schemas.json_schema`, contained in the document. Names are the short ones; a deployment's prefix stands before
them. ``python -m schemas`` writes it to ``schemas/asyncapi.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from schemas.events import KINDS, TOPICS
from schemas.json_schema import render, schema_of
from schemas.topics import ALL_TOPICS, TopicSpec

__all__ = ["FILE", "document", "stale_document", "write_document"]

FILE: Final = Path(__file__).with_name("asyncapi.json")
"""Where the document stands that the package ships."""

_MESSAGES: Final[dict[str, tuple[str, str]]] = {
    **{TOPICS[kind]: (str(kind), "An event, as JSON. The key may be anything; the product code is advised.")
       for kind in KINDS},
    "dispositions": ("disposition", "What operations did about an alert. Keyed by the alert's id."),
    "signals": ("signal", "Evidence for a cell at a tick. On Kafka records of other types travel here too, told apart "
                "by the header tocsin-type; signals bear signal or grave."),
    "emergency-response": ("alert", "One revision of an alert. Keyed by the alert's id; (id, revision) is unique."),
    "dead-letters": ("dead-letter", "A record that was refused: its bytes, the reason, the field. Keyed by reason."),
}  # fmt: skip
"""Topic -> the schema of its messages, and a sentence about them."""

_TITLES: Final = {
    "raw": "Written by labs, hospitals, hotlines and authorities; never rewritten.",
    "output": "Written by Tocsin.",
}


def document() -> dict[str, Any]:
    """The whole document as plain values."""
    public = [spec for spec in ALL_TOPICS if spec.role != "internal"]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tocsin",
            "version": "1.0.0",
            "description": "Topics of a stream processor that watches the quality and safety of products, works and "
            "services. Topic names take the prefix that a deployment configures.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {spec.name: _channel(spec) for spec in public},
        "operations": {_operation_name(spec): _operation(spec) for spec in public},
        "components": {
            "messages": {_MESSAGES[spec.name][0]: _message(spec) for spec in public},
            "schemas": {_MESSAGES[spec.name][0]: _contained(_MESSAGES[spec.name][0]) for spec in public},
        },
    }


def _channel(spec: TopicSpec) -> dict[str, Any]:
    name, said = _MESSAGES[spec.name]
    channel: dict[str, Any] = {
        "address": spec.name,
        "description": f"{_TITLES[spec.role]} {said}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }
    kafka: dict[str, Any] = {"topic": spec.name, "bindingVersion": "0.5.0"}
    if spec.partitions is not None:
        kafka["partitions"] = spec.partitions
    return channel | {"bindings": {"kafka": kafka}}


def _operation_name(spec: TopicSpec) -> str:
    return f"{'receive' if spec.role == 'raw' else 'send'}-{spec.name}"


def _operation(spec: TopicSpec) -> dict[str, Any]:
    """From Tocsin's side: it receives what is raw, and sends what comes out."""
    name, _ = _MESSAGES[spec.name]
    return {
        "action": "receive" if spec.role == "raw" else "send",
        "channel": {"$ref": f"#/channels/{spec.name}"},
        "summary": _TITLES[spec.role],
        "messages": [{"$ref": f"#/channels/{spec.name}/messages/{name}"}],
    }


def _message(spec: TopicSpec) -> dict[str, Any]:
    name, said = _MESSAGES[spec.name]
    return {
        "name": name,
        "title": name,
        "summary": said,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "bindings": {"kafka": {"key": {"type": "string"}, "bindingVersion": "0.5.0"}},
    }


def _contained(name: str) -> dict[str, Any]:
    """A schema as a part of the document: its own definitions stay with it, and references to them are made to lead
    there."""
    base = f"#/components/schemas/{name}/$defs/"

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: inner.replace("#/$defs/", base) if key == "$ref" and isinstance(inner, str) else moved(inner)
                for key, inner in value.items()
            }
        return [moved(inner) for inner in value] if isinstance(value, list) else value

    schema: dict[str, Any] = moved(schema_of(name))
    # AsyncAPI 3.0 schemas are a superset of JSON Schema draft 7; an identity of its own would move the references.
    return {key: value for key, value in schema.items() if key not in ("$schema", "$id")}


def write_document(file: Path = FILE) -> Path:
    """Write the document, the same bytes for the same Structs; returns where."""
    file.write_bytes(render(document()))
    return file


def stale_document(file: Path = FILE) -> list[str]:
    """One line when the file is missing or differs from the code."""
    if not file.exists():
        return [f"{file.name}: is missing; run python -m schemas"]
    if file.read_bytes() != render(document()):
        return [f"{file.name}: differs from the topics and Structs; run python -m schemas"]
    return []
