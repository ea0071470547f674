"""An upload's file to rows: by its media type, through the readers that ``tocsin publish`` has.

A row's number is the line in NDJSON and CSV (the header of CSV is line 1), the row of a sheet, and the place in a JSON
array, from 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from schemas.errors import Rejection
from schemas.events import TOPICS, Kind
from streams.api.body import CHARSETS, count_lines, to_utf8, unpack
from streams.api.cloudevents import Attributes, unwrap, with_attributes
from streams.api.limits import Limits
from streams.api.problems import Problem
from streams.api.sheets import XLSX, sheet_to_csv
from streams.mapping import Mapping
from streams.publish import BATCH, Candidate, read_candidates

__all__ = ["CLOUDEVENT", "CLOUDEVENTS", "CSV", "JSON", "MEDIA_TYPES", "NDJSON", "TSV", "Upload", "media_type", "read"]

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
CSV: Final = "text/csv"
TSV: Final = "text/tab-separated-values"
CLOUDEVENT: Final = "application/cloudevents+json"
CLOUDEVENTS: Final = "application/cloudevents-batch+json"
MEDIA_TYPES: Final = (JSON, NDJSON, CSV, TSV, CLOUDEVENT, CLOUDEVENTS, XLSX)
"""What is taken; the first of them are documented first."""

_ALIASES: Final = {"application/ndjson": NDJSON, "application/jsonl": NDJSON, "application/jsonlines": NDJSON}
_MAPPED: Final = (NDJSON, CSV, TSV, XLSX)
_DOCUMENT: Final = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw])
_WHITE: Final = b" \t\r\n"


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that lies in a file, and what was said of it.

    Parameters
    ----------
    folder
        A folder of its own, in which the work is done; the body is the file ``body`` in it.
    name
        Stands for the upload in dead letters.
    media, charset
        What it is.
    packed
        Whether it is gzip.
    kind, mapping
        The events that it holds, and how its columns become such.
    attributes
        Those of a CloudEvent in binary mode.
    """

    folder: Path
    name: str
    media: str
    kind: Kind
    charset: str = "utf-8"
    packed: bool = False
    mapping: Mapping | None = None
    attributes: Attributes | None = field(default=None)


def media_type(content_type: str, charset: str | None) -> tuple[str, str]:
    """The media type and the encoding of a body, by the names used here.

    Raises
    ------
    Problem
        ``wrong-type``: one of them is not taken.
    """
    media = _ALIASES.get(content_type, content_type)
    if media not in MEDIA_TYPES:
        raise Problem("wrong-type", f"send one of {', '.join(MEDIA_TYPES)}", {"Accept": ", ".join(MEDIA_TYPES)})
    found = CHARSETS.get((charset or "utf-8").lower())
    if found is None or (found != "utf-8" and media not in (CSV, TSV)):
        raise Problem("wrong-type", "send UTF-8; CSV is taken in GB 18030 too (charset=gb18030)")
    return media, found


def read(upload: Upload, limits: Limits, utc_offset_minutes: int) -> Iterator[list[Candidate]]:
    """The rows of an upload, in batches. Nothing comes before the whole is known to be within the limits.

    Raises
    ------
    Problem
        The body is too large, or is not what it is said to be.
    UnreadableFile, ConfigError
        As :func:`streams.publish.read_candidates`.
    """
    path = upload.folder / "body"
    if upload.packed:
        packed, path = path, upload.folder / "unpacked"
        unpack(packed, path, limits)
    if upload.mapping is not None and upload.media not in _MAPPED:
        raise Problem("malformed-request", "a mapping reads tables and NDJSON; leave mapping out")
    if upload.media == JSON and upload.attributes is not None:
        return _binary(path, upload, upload.attributes, limits)
    if upload.media in (JSON, CLOUDEVENT, CLOUDEVENTS):
        return _document(path, upload, limits)
    return _lines(path, upload, limits, utc_offset_minutes)


def _lines(path: Path, upload: Upload, limits: Limits, minutes: int) -> Iterator[list[Candidate]]:
    suffix = {NDJSON: "ndjson", TSV: "tsv"}.get(upload.media, "csv")
    named = upload.folder / f"{upload.name}.{suffix}"
    if upload.media == XLSX:
        sheet_to_csv(path, named, limits)
    elif upload.charset != "utf-8":
        to_utf8(path, named, upload.charset)
    else:
        path.rename(named)
    count_lines(named, limits.rows + 1)
    return read_candidates(
        str(named),
        TOPICS[upload.kind],
        mapping=upload.mapping,
        format="ndjson" if suffix == "ndjson" else "csv",
        utc_offset_minutes=minutes,
    )


def _taken(path: Path, limits: Limits) -> bytes:
    if path.stat().st_size > limits.document_bytes:
        raise Problem(
            "too-large", f"a JSON document may have {limits.document_bytes} bytes; send {NDJSON}, one event a line"
        )
    return path.read_bytes()


def _binary(path: Path, upload: Upload, attributes: Attributes, limits: Limits) -> Iterator[list[Candidate]]:
    return iter([[_unwrapped(f"{upload.name}:1", _taken(path, limits), upload, attributes)]])


def _document(path: Path, upload: Upload, limits: Limits) -> Iterator[list[Candidate]]:
    data = _taken(path, limits)
    try:
        found = _DOCUMENT.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("malformed-body", f"send a JSON object or an array of them: {error}") from None
    single = isinstance(found, dict)
    if upload.media != JSON and single != (upload.media == CLOUDEVENT):
        raise Problem("malformed-body", f"{CLOUDEVENT} is one object, {CLOUDEVENTS} an array of them")
    events = [data.strip(_WHITE)] if isinstance(found, dict) else [bytes(one) for one in found]
    if len(events) > limits.rows:
        raise Problem("too-large", f"the upload has more than {limits.rows} events; split it")
    return _batches(events, upload)


def _batches(events: list[bytes], upload: Upload) -> Iterator[list[Candidate]]:
    wrapped = upload.media != JSON
    for start in range(0, len(events), BATCH):
        batch = []
        for number, raw in enumerate(events[start : start + BATCH], start + 1):
            origin = f"{upload.name}:{number}"
            batch.append(_unwrapped(origin, raw, upload, None) if wrapped else Candidate(origin, raw, raw))
        yield batch


def _unwrapped(origin: str, raw: bytes, upload: Upload, attributes: Attributes | None) -> Candidate:
    try:
        value = unwrap(raw, upload.kind) if attributes is None else with_attributes(raw, attributes, upload.kind)
    except Rejection as error:
        return Candidate(origin, raw, raw, error)
    return Candidate(origin, value, raw)
