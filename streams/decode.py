"""From bytes to a checked event: decoding, codes, clocks, and what is said of a record that is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

import msgspec

from schemas.alerts import Disposition
from schemas.catalogue import Catalogue
from schemas.codes import check_gtin, check_uscc
from schemas.errors import Rejection
from schemas.events import EVENT_TYPES, AnyEvent, Kind, QualityLoss, Survey, check
from schemas.personal import FREE_TEXT, PERSONAL_KINDS, has_personal_number
from streams.config import Config
from streams.privacy import KNOWN_FIELDS, TOP_FIELDS, GuardedDecoder, personal_rejection
from streams.ticks import MS_PER_DAY, Calendar

__all__ = [
    "EVERYWHERE",
    "LAST_MS",
    "MANY_BRACKETS",
    "Decoded",
    "EventDecoder",
    "Record",
    "has_unknown_fields",
    "kind_in",
]

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")
EVERYWHERE = "*"
"""The root above all learned regions."""
_CACHE_BOUND = 200_000
MANY_BRACKETS = 64
"""A record with more of them is looked into for how deep they nest."""
_MAX_DEPTH = 64
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_TEXTS = {kind: attrgetter(*fields) for kind, fields in FREE_TEXT.items()}
LAST_MS = 230 * 365 * MS_PER_DAY
"""Reports must come before it (epoch milliseconds): the year 2200, nearly."""


class Record(Protocol):
    """What intake needs of a record; both runtimes' records have it."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class _Decodes(Protocol):
    def decode(self, value: bytes, /) -> Any: ...


@dataclass(slots=True)
class Decoded:
    """A checked event with its times in epoch milliseconds and the paths of its codes in the two trees."""

    event: AnyEvent
    reported_ms: int
    product: tuple[str, ...]
    region: tuple[str, ...]


class EventDecoder:
    """Decode and check records of every kind against one configuration and one catalogue."""

    def __init__(self, config: Config, catalogue: Catalogue) -> None:
        self._rules = config.intake
        self._calendar = Calendar(config.tick_ms, config.offset_ms)
        self._catalogue = catalogue
        self._decoders: dict[Kind, _Decodes] = {
            kind: GuardedDecoder(kind) if kind in PERSONAL_KINDS else msgspec.json.Decoder(struct)
            for kind, struct in EVENT_TYPES.items()
        }
        self.is_open = catalogue.products.is_open or catalogue.regions.is_open
        self._disposition_decoder = msgspec.json.Decoder(Disposition)
        self._products: dict[str, tuple[str, ...]] = {}
        self._regions: dict[str, tuple[str, ...]] = {}
        self._good_producers: set[str] = set()
        self._good_gtins: set[str] = set()
        self._good_texts: set[Any] = set()

    def decode(self, kind: Kind, value: bytes | None, arrival_ms: int | None = None) -> Decoded:
        """One record; with ``arrival_ms`` its clocks are checked against its arrival too.

        Raises
        ------
        Rejection
            Naming the reason, the field and the way to mend it.
        """
        event = self._struct(kind, value)
        if event.kind is not None and event.kind != kind:
            raise Rejection("wrong-topic", "kind", f"the record says {event.kind}, its topic carries {kind} events")
        if kind in PERSONAL_KINDS and (texts := _TEXTS[kind](event)) not in self._good_texts:
            self._check_texts(kind, texts)
        check(event)
        self._check_codes(event)
        reported = self._check_times(event, arrival_ms)
        return Decoded(event, reported, self._product(event.product), self._region(event.region))

    def paths(self, product: str, region: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The paths of two codes in their trees, branch first."""
        return self._product(product), self._region(region)

    def branch(self, product: str) -> str:
        """The branch of a product code: the first of its path."""
        return self._product(product)[0]

    # --- the same rules as questions, for those who look at each distinct value once (streams.bulk) -----------------

    def branch_of(self, product: str) -> str | None:
        """The branch of a product code; None where the code is not known."""
        try:
            return self._product(product)[0]
        except Rejection:
            return None

    def is_region(self, code: str) -> bool:
        """Whether the catalogue has the region."""
        return _holds(self._region, code)

    def is_producer(self, code: str) -> bool:
        """Whether it is a good unified social credit code."""
        return code in self._good_producers or _holds(self._check_producer, code)

    def is_gtin(self, code: str) -> bool:
        """Whether it is a good GTIN."""
        return code in self._good_gtins or _holds(self._check_gtin, code)

    def disposition(self, value: bytes | None) -> Disposition:
        """Decode one disposition; Rejection as for events."""
        decoded: Disposition = self._read(self._disposition_decoder, value)
        return decoded

    def _struct(self, kind: Kind, value: bytes | None) -> AnyEvent:
        event: AnyEvent = self._read(self._decoders[kind], value)
        return event

    def _read(self, decoder: _Decodes, value: bytes | None) -> Any:
        if value is None:
            raise Rejection("tombstone", "", "the record has a null value; withdraw an event by a higher revision")
        if not value:
            raise Rejection("empty-record", "", "the record is empty; send one JSON event a record")
        if len(value) > self._rules.max_record_bytes:
            raise Rejection(
                "too-large", "", f"the record has {len(value)} bytes, at most {self._rules.max_record_bytes} are taken"
            )
        if value.count(b"[") + value.count(b"{") > MANY_BRACKETS and _depth(value) > _MAX_DEPTH:
            # Else the interpreter's recursion limit would decide, and with it the depth of the caller's stack.
            raise Rejection("malformed-json", "", f"nested more than {_MAX_DEPTH} deep; send one flat JSON object")
        if not value.isascii():
            _check_text(value)
        try:
            return decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _explain(value, error) from None

    def _check_texts(self, kind: Kind, texts: Any) -> None:
        """What people wrote, where it was not seen before: the same words come again and again."""
        for field, text in zip(FREE_TEXT[kind], texts if isinstance(texts, tuple) else (texts,), strict=True):
            if text is not None and has_personal_number(text):
                raise personal_rejection(field)
        if len(self._good_texts) >= _CACHE_BOUND:
            self._good_texts.clear()
        self._good_texts.add(texts)

    def _check_codes(self, event: AnyEvent) -> None:
        producer = event.producer
        if producer is not None and producer not in self._good_producers:
            self._check_producer(producer)
        if isinstance(event, Survey | QualityLoss):
            return
        gtin = event.gtin
        if gtin is not None and gtin not in self._good_gtins:
            self._check_gtin(gtin)

    def _check_producer(self, code: str) -> None:
        check_uscc(code)
        _remember(self._good_producers, code)

    def _check_gtin(self, code: str) -> None:
        check_gtin(code)
        _remember(self._good_gtins, code)

    def _check_times(self, event: AnyEvent, arrival_ms: int | None) -> int:
        reported = self._calendar.epoch_ms(event.reported_at)
        if event.occurred_at is not None and self._calendar.epoch_ms(event.occurred_at) > reported + MS_PER_DAY:
            raise Rejection("inconsistent", "occurred_at", "the event occurred after it was reported; check both dates")
        if arrival_ms is not None:
            self._check_arrival(event, reported, arrival_ms)
        if not MS_PER_DAY <= reported < LAST_MS:
            raise Rejection("out-of-range", "reported_at", "the year is not between 1970 and 2200; check the date")
        return reported

    def _check_arrival(self, event: AnyEvent, reported: int, arrival_ms: int) -> None:
        if reported > arrival_ms + self._rules.clock_skew_seconds * 1_000:
            raise Rejection(
                "clock-ahead",
                "reported_at",
                f"reported_at {event.reported_at.isoformat()} lies after the record's arrival "
                f"{self._calendar.moment(arrival_ms).isoformat()}; set the sender's clock or offset",
            )
        if reported < arrival_ms - self._rules.lateness_days * MS_PER_DAY:
            raise Rejection(
                "too-late",
                "reported_at",
                f"reported more than {self._rules.lateness_days} days before it arrived; import history with its own "
                "times, or raise intake.lateness_days",
            )

    def _product(self, code: str) -> tuple[str, ...]:
        path = self._products.get(code)
        if path is None:
            path = self._path("product", code)
            if len(self._products) >= _CACHE_BOUND:
                self._products.clear()
            self._products[code] = path
        return path

    def _region(self, code: str) -> tuple[str, ...]:
        path = self._regions.get(code)
        if path is None:
            path = self._path("region", code)
            if len(self._regions) >= _CACHE_BOUND:
                self._regions.clear()
            self._regions[code] = path
        return path

    def _path(self, field: str, code: str) -> tuple[str, ...]:
        tree = self._catalogue.products if field == "product" else self._catalogue.regions
        try:
            path = tree.path(code)
        except Rejection as error:
            raise Rejection(error.reason, field, error.detail) from None
        # An open region tree has no root of its own; peers and totals need one.
        return (EVERYWHERE, *path) if field == "region" and tree.is_open else path


def _remember(known: set[str], code: str) -> None:
    if len(known) >= _CACHE_BOUND:
        known.clear()
    known.add(code)


def _holds(rule: Callable[[str], object], code: str) -> bool:
    try:
        rule(code)
    except Rejection:
        return False
    return True


def kind_in(ce_type: bytes) -> str:
    """The kind that a CloudEvents type names: the last of its parts."""
    return ce_type.decode("utf-8", "replace").rsplit(".", 1)[-1]


def has_unknown_fields(kind: Kind, value: bytes) -> bool:
    """Whether a well-formed event has fields that this version ignores; those within its items are not looked at."""
    return not KNOWN_FIELDS[kind].issuperset(TOP_FIELDS.decode(value))


def _check_text(value: bytes) -> None:
    """Whether all of a record is UTF-8: msgspec does not look into fields that it does not know."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError as bad:
        raise Rejection("not-utf-8", "", f"byte {bad.start} is not UTF-8; send JSON as UTF-8") from None


def _depth(value: bytes) -> int:
    """How deep brackets nest, those within strings left out."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[{\]}]", _STRING.sub(b"", value)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _explain(value: bytes, error: Exception) -> Rejection:
    """Turn a decoder's complaint into a reason, a field and a sentence."""
    try:
        _check_text(value)
    except Rejection as bad:
        return bad
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return Rejection("malformed-json", "", f"{text}; send one JSON object a record")
    found = _AT.search(text)
    path = found["path"] if found else ""
    said = text[: found.start()] if found else text
    missing = _MISSING.search(said)
    if missing:
        name = f"{path}.{missing['name']}" if path else missing["name"]
        return Rejection("missing-field", name, f"required field {missing['name']} is absent; add it")
    return Rejection(_reason(said, path), path, f"{said}; see the JSON Schema of this kind")


def _reason(said: str, path: str) -> str:
    lowered = said.lower()
    rules: Iterable[tuple[str, str]] = (
        ("rfc3339", "bad-time"),
        ("invalid enum", "unknown-kind" if path == "kind" else "unknown-value"),
        (" of length ", "bad-length"),
        ("matching regex", "bad-text"),
        (">=", "out-of-range"),
        ("<=", "out-of-range"),
        ("> ", "out-of-range"),
        ("out of range", "out-of-range"),
        ("got `", "wrong-type"),
    )
    return next((reason for mark, reason in rules if mark in lowered), "invalid")
