"""Personal data in a record: where it stands, and the record without it.

A record of a kind that is about persons is refused when a field is there for personal data. A dead letter elsewhere
keeps the original bytes; here that would only copy the data to one more topic. So the dead letter of *any* record in
which such a field or number is seen, whatever it was refused for, keeps the names of the fields and no values but the
envelope's. The raw topic still has the record as it came: deleting it there is its owner's affair (deploy/SECURITY.md).
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgspec

from schemas.errors import Rejection
from schemas.events import EVENT_TYPES, AnyEvent, Kind
from schemas.personal import has_personal_number, is_personal_key

__all__ = [
    "KNOWN_FIELDS",
    "REASON",
    "TOP_FIELDS",
    "GuardedDecoder",
    "is_personal",
    "personal_field",
    "personal_rejection",
    "redacted",
]

REASON: Final = "personal-data"
REDACTED: Final = "[redacted]"
_ENVELOPE: Final = ("event_id", "source")
"""What tells the sender which record is meant."""
_LONGEST_KEPT: Final = 160
_MOST_KEYS: Final = 256
_KEY: Final = re.compile(r"""(["'])((?:[^"'\\]|\\.){1,64})\1\s*:""")
_OPENING: Final = (ord("{"), ord("["))
_UNKNOWN: Final = re.compile(r"unknown field `(?P<key>.*)`$", re.DOTALL)
_MOST_CLEARED: Final = 32
_LONGEST_CLEARED: Final = 64
TOP_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
"""A record's own fields by name; what is in them is left as it is."""
KNOWN_FIELDS: Final = {kind: frozenset(struct.__struct_fields__) for kind, struct in EVENT_TYPES.items()}


class GuardedDecoder:
    """Decodes the events of one kind that is about persons.

    A record without unknown fields has none for personal data, so it is decoded into a Struct that refuses unknown
    fields, which costs nothing more. The names of unknown fields that were found harmless become fields of that Struct,
    up to a bound, so that a newer producer's records cost little more; one that holds an object or a list is looked
    into each time. What is accepted depends on none of this.
    """

    def __init__(self, kind: Kind) -> None:
        self._kind: Kind = kind
        self._plain: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(EVENT_TYPES[kind])
        self._cleared: list[str] = []
        self._strict = self._without_other_fields()

    def decode(self, value: bytes, /) -> AnyEvent:
        """As msgspec's decoders do; a field for personal data is a Rejection, whatever else is wrong."""
        try:
            return self._strict.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            field = personal_field(value, self._kind)
            if field is not None:
                raise personal_rejection(field) from None
            self._clear(str(error))
        return self._plain.decode(value)

    def _clear(self, said: str) -> None:
        found = _UNKNOWN.search(said)
        name = found["key"] if found else ""
        if _is_learnable(name) and name not in self._cleared and len(self._cleared) < _MOST_CLEARED:
            self._cleared.append(name)
            self._strict = self._without_other_fields()

    def _without_other_fields(self) -> msgspec.json.Decoder[AnyEvent]:
        struct = EVENT_TYPES[self._kind]
        cleared = [
            (f"cleared_{number}", str | int | float | bool | None, msgspec.field(default=None, name=key))
            for number, key in enumerate(self._cleared)
        ]
        made = msgspec.defstruct(
            struct.__name__, cleared, bases=(struct,), forbid_unknown_fields=True, kw_only=True, gc=False
        )
        return msgspec.json.Decoder(cast("type[AnyEvent]", made))


def _is_learnable(name: str) -> bool:
    """Whether a Struct may have a field of that name: msgspec tells one up to its first NUL, and gives no field a name
    with a quote or a backslash. What is no text is not worth learning either."""
    return 0 < len(name) <= _LONGEST_CLEARED and name.isprintable() and '"' not in name and "\\" not in name


def personal_rejection(field: str) -> Rejection:
    """The one refusal of personal data. It says the field's name and never its value."""
    return Rejection(
        REASON,
        field,
        "personal data is not taken; leave this out (to delete it from the raw topic is its owner's task)",
    )


def personal_field(value: bytes, kind: Kind | None = None) -> str | None:
    """The path of the first field for personal data in a JSON record; None where there is none.

    Parameters
    ----------
    value
        The record. Of one that is no JSON object whatever looks like a key is looked at, as far as it can be read.
    kind
        Where it is known, its own fields (which name nobody) are not looked into.
    """
    known = KNOWN_FIELDS[kind] if kind is not None else frozenset()
    try:
        fields = TOP_FIELDS.decode(value)
        if fields.keys() <= known:
            return None
        for key, raw in fields.items():
            if key in known:
                continue
            if is_personal_key(key):
                return key
            if memoryview(raw)[0] in _OPENING:
                found = _below(msgspec.json.decode(raw))
                if found is not None:
                    return f"{key[:_LONGEST_KEPT]}.{found}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _in_text(value)
    return None


def _below(value: Any) -> str | None:
    """The personal key below a decoded value; the keys on the way to it may be data themselves and are not told."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key in value:
                if is_personal_key(key):
                    return str(key)
        waiting += (value.values() if isinstance(value, dict) else value) if isinstance(value, dict | list) else ()
    return None


def _in_text(value: bytes) -> str | None:
    for text in _readings(value):
        for found in _KEY.finditer(text):
            key = _unescaped(found[2])
            if is_personal_key(key):
                return key
    return None


def _readings(value: bytes) -> list[str]:
    """The bytes as text in the encodings that senders in China use by mistake."""
    readings = [value.decode("utf-8", "replace")]
    if "\N{REPLACEMENT CHARACTER}" in readings[0]:
        readings.append(value.decode("gb18030", "replace"))
    if b"\0" in value[:64]:
        readings += [value.decode(encoding, "replace") for encoding in ("utf-16-le", "utf-16-be")]
    return readings


def _unescaped(key: str) -> str:
    try:
        text: str = msgspec.json.decode(f'"{key}"', type=str)
    except (msgspec.DecodeError, UnicodeError):
        return key
    return text


def is_personal(value: bytes) -> bool:
    """Whether a record must not be copied as it is: a field for personal data, or a number that names a person."""
    return personal_field(value) is not None or any(map(has_personal_number, _readings(value)))


def redacted(value: bytes) -> bytes:
    """A record's top-level fields without their values, but for those of the envelope where they are harmless."""
    try:
        document = msgspec.json.decode(value, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.encode(REDACTED)
    keys = list(document)[:_MOST_KEYS]
    return msgspec.json.encode({key[:_LONGEST_KEPT]: _kept(key, document[key]) for key in keys})


def _kept(key: str, value: Any) -> Any:
    kept = (
        key in _ENVELOPE and isinstance(value, str) and len(value) <= _LONGEST_KEPT and not has_personal_number(value)
    )
    return value if kept else REDACTED
