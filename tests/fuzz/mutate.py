"""Good things made bad, by a seeded random generator: structures, texts, bytes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

MARKER = "Zhang-Wei-of-the-fuzzer"
"""What stands in fields for personal data: it must never come out again."""

PERSONAL = ("name", "patient_name", "Phone", "姓名", "身份证号", "shouji", "home-address")
_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 65_535, 65_536, 2**31, 2**53, 2**63, -(2**63), 2**64, 10**40, 0.5, -0.0, 1e-320,
    1e300, 1.0, 99.999, "", " ", "0", "null", "NaN", "\0", "\n", "\u2028", "\ufeff", "\u202e", "İ", "ß", "名", "😀",
    "a" * 19, "a" * 129, "x" * 201, "<script>", "'; drop table", "{}", "%s%n", "../../etc/passwd", "=1+1",
    "１２０１０１", [],
    {}, [[]], [None], {"": ""}, {"a": {"b": [1, {"c": None}]}}, "2024-02-30T00:00:00Z", "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00", "2024-01-01T00:00:00", "2024-01-01t00:00:00z", "2024-01-01 00:00:00.123456789+0800",
    "2024-06-30T23:59:60Z", "2024-01-01", "91350100M000100Y44", "6901234567893", "13800138000", "11010519491231002X",
)  # fmt: skip
_ODD_BYTES: tuple[bytes, ...] = (
    b"", b"\0", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", rb"\ud800",
    rb"\u0000", b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"NaN", b"Infinity", b"1e999", b"-", b"01", b"/*",
    b"\r\n", b"\n", b"\t", b"'", b"=", b"#", b"\xe5\x90", "姓名".encode("gb18030"), b"[" * 70, b'{"a":' * 70, b"null",
    b"true",
)  # fmt: skip


def odd_value(rng: random.Random) -> Any:
    return rng.choice(_ODD)


def mutated_text(text: str, rng: random.Random) -> str:
    """A text with a character changed, put in, doubled or left out, cut, or folded otherwise."""
    at = rng.randrange(len(text) + 1)
    other = rng.choice("0123456789AZaz _-/:.+\0\n\x7fé名😀١Ⅷ")
    return rng.choice((
        text[:at] + other + text[at + 1 :], text[:at] + other + text[at:], text[:at] + text[at + 1 :], text[:at],
        text[:at] * 2, text.lower(), text.upper(), text.swapcase(), f" {text}", f"{text}\n", text[::-1],
    ))  # fmt: skip


def mutated_value(value: Any, rng: random.Random) -> Any:
    """Another value for a field: near the old one, or odd."""
    choice = rng.randrange(4)
    if choice == 0:
        return odd_value(rng)
    if isinstance(value, str):
        return mutated_text(value, rng)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return rng.choice((-value, value + 1, value - 1, value * 10**9, value / 3, str(value), float(value)))
    if isinstance(value, list):
        return rng.choice(
            (value * 2, value[:-1], value * 300, [*value, odd_value(rng)], [mutated(v, rng) for v in value])
        )
    return mutated(value, rng) if isinstance(value, dict) else [value]


def mutated(value: Any, rng: random.Random) -> Any:
    """A JSON value with one to three changes of its structure."""
    if not isinstance(value, dict):
        return mutated_value(value, rng)
    made: dict[str, Any] = dict(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        keys = list(made) or ["a"]
        key, other = rng.choice(keys), rng.choice(keys)
        match rng.randrange(9):
            case 0:
                made.pop(key, None)
            case 1:
                made[mutated_text(key, rng)] = made.pop(key, None)
            case 2:
                made[key], made[other] = made.get(other), made.get(key)
            case 3:
                made[rng.choice(("note", "specversion", "x" * 100, "", "\0", "Item"))] = odd_value(rng)
            case 4:
                made[rng.choice(PERSONAL)] = MARKER
            case 5:
                made["more"] = {"deep": [{rng.choice(PERSONAL): MARKER}]}
            case _:
                made[key] = mutated_value(made.get(key), rng)
    return made


def dumped(value: Any, rng: random.Random) -> bytes:
    """JSON text in one of its many forms, a few of them wrong."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.3, separators=rng.choice(((",", ":"), (", ", ": "))))
    if rng.random() < 0.05 and isinstance(value, dict) and value:
        key = rng.choice(list(value))
        text = f"{text[:-1]}, {json.dumps(key)}: {json.dumps(odd_value(rng))}}}"  # the same key twice
    if rng.random() < 0.03:
        return text.encode(rng.choice(("utf-16", "utf-8-sig", "gb18030", "utf-32")), "replace")
    return text.encode("utf-8", "surrogatepass")


def mutated_bytes(value: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Bytes with one to four changes: bits, pieces, splices with another record, cuts."""
    made = bytearray(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(made) + 1)
        end = min(len(made), at + rng.choice((1, 1, 2, 8, 64)))
        match rng.randrange(7):
            case 0 if made:
                made[at % len(made)] ^= 1 << rng.randrange(8)
            case 1:
                made[at:at] = rng.choice(_ODD_BYTES)
            case 2:
                made[at:end] = rng.choice(_ODD_BYTES)
            case 3:
                del made[at:end]
            case 4:
                made[at:at] = made[at:end] * rng.choice((1, 2, 50))
            case 5 if others:
                other = rng.choice(others)
                made[at:] = other[rng.randrange(len(other) + 1) :]
            case _:
                made[at:at] = bytes([rng.randrange(256)])
    return bytes(made)


def mutated_lines(text: str, rng: random.Random) -> str:
    """A text file with lines left out, doubled, swapped or changed."""
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        line = lines[at]
        match rng.randrange(6):
            case 0:
                lines[at : at + 1] = []
            case 1:
                lines.insert(other, line)
            case 2:
                lines[at] = lines[other]
            case 3:
                lines[at] = mutated_text(line, rng)
            case _:
                lines[at] = _other_value(line, rng)
        lines = lines or [""]
    return "\n".join(lines)


_TOML_VALUES = (
    "0", "-1", "1e400", "nan", "inf", "true", '""', '"x"', "[]", "{}", "[1]", '["a"]', "1979-05-27",
    "10000000000000000000",
    "0.5", "'''a\nb'''", '"\\u0000"', "[[]]", "{ a = { b = 1 } }", '"../x.toml"', '"open"', '"none.toml"', "9" * 5_000,
)  # fmt: skip


def _other_value(line: str, rng: random.Random) -> str:
    head, found, _ = line.partition("=")
    return f"{head}= {rng.choice(_TOML_VALUES)}" if found else f"{line}{rng.choice(('x', ']', '= 1', '[a]'))}"
