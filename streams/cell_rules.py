"""What one rule of a mapping does to one cell: its steps, in their stated order, as a function.

A step that meets a cell it cannot use raises :class:`Rejection`; :func:`guarded` turns that into a value that
names the cell, so that it can stay with its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, Final

import msgspec

from schemas.errors import Rejection
from streams.mapping import Case, Rule, Words

__all__ = [
    "Step",
    "Value",
    "cased",
    "code_part",
    "folded",
    "guarded",
    "limits_of",
    "normal_cell",
    "number_of",
    "steps_of",
    "text_of",
]

Value = Any
"""A cell: None when empty, str, int, float, datetime, a decoded JSON value; or the Rejection it earned."""

Step = Callable[[Value], Value]

_SHOWN: Final = 60
_APOSTROPHES = re.compile("['’`]")
_WORD = re.compile("[A-Z0-9]+")
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f]+")


def normal_cell(value: object) -> Value:
    """One cell in the form that the rules expect.

    Blank text and NaN are empty; a whole float is an integer (pandas stores integers with gaps as floats); a
    date is midnight of that day; a boolean is ``"true"`` or ``"false"``; nested values are JSON text.
    """
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value != value:
            return None
        return int(value) if value.is_integer() else value
    if isinstance(value, int):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip() or None
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return str(value)


def text_of(value: Value) -> str:
    """A cell as text: what a template or a text field takes."""
    if isinstance(value, str):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)


def folded(value: Value) -> str:
    return text_of(value).strip().casefold()


def cased(text: str, case: Case) -> str:
    return text.upper() if case == "upper" else text.lower() if case == "lower" else text


def code_part(cell: Value, case: Case) -> str:
    if cell is None or isinstance(cell, Rejection):
        return ""
    text = _BLANKS.sub(" ", text_of(cell)).replace("/", "-").strip()
    return cased(text, case)


def guarded(step: Step, cell: Value, rule: Rule) -> Value:
    """Apply a rule's steps to a cell, and name the cell when they refuse it."""
    if cell is None or isinstance(cell, Rejection):
        return cell
    if isinstance(cell, str) and "�" in cell:
        return Rejection("not-utf-8", "", f"{_shown(cell, rule)} has bytes that do not decode; say the file's encoding")
    try:
        return step(cell)
    except Rejection as refused:
        return Rejection(refused.reason, "", f"{_shown(cell, rule)} {refused.detail}")


def _shown(cell: Value, rule: Rule) -> str:
    text = text_of(cell)
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return f"{'/'.join(rule.reads[:3]) or 'constant'}: {cut!r}"


def steps_of(rule: Rule) -> Step:
    """The rule's steps as one function, in their stated order."""
    steps: list[Step] = []
    if rule.words is not None:
        steps.append(_words(rule.words))
    if rule.first_part is not None:
        steps.append(_first_part(rule.first_part))
    if rule.extract is not None:
        steps.append(_extract(rule.extract))
    if rule.case != "keep":
        steps.append(lambda value: cased(text_of(value), rule.case))
    if rule.date is not None:
        steps.append(_date(rule.date, rule.time))
    if rule.json:
        steps.append(_json)
    steps.extend(_numbersteps_of(rule))
    if rule.map is not None:
        steps.append(_map(rule))
    if rule.scale is not None:
        factor = rule.scale
        steps.append(lambda value: round(number_of(value) * factor, 6))
    if rule.scale_by is None:  # else the bounds wait until the other column has had its say
        steps.append(limits_of(rule))

    def run(value: Value) -> Value:
        for step in steps:
            if value is None:
                return None
            value = step(value)
        return value

    return run


def _numbersteps_of(rule: Rule) -> list[Step]:
    steps: list[Step] = []
    if rule.recode is not None:
        bands = sorted(rule.recode, key=lambda band: -band.at_least)

        def recode(value: Value) -> Value:
            number = number_of(value)
            band = next((one for one in bands if number >= one.at_least), None)
            return number if band is None else round((number - band.subtract) / band.divide, 6)

        steps.append(recode)
    if rule.grade is not None:
        grades = sorted(rule.grade, key=lambda grade: -grade.at_least)

        def grade(value: Value) -> Value:
            number = number_of(value)
            return next((one.value for one in grades if number >= one.at_least), None)

        steps.append(grade)
    return steps


def limits_of(rule: Rule) -> Step:
    def limits(value: Value) -> Value:
        if isinstance(value, Rejection) or (rule.clip is None and rule.within is None):
            return value
        number = number_of(value)
        if rule.clip is not None:
            number = min(max(number, rule.clip[0]), rule.clip[1])
        outside = rule.within is not None and not rule.within[0] <= number <= rule.within[1]
        return None if outside else number

    return limits


def number_of(value: Value) -> float:
    if isinstance(value, int | float):
        return value
    try:
        return float(text_of(value))
    except ValueError:
        raise Rejection("wrong-type", "", "is not a number; write digits, with a point for decimals") from None


def _words(spec: Words) -> Step:
    dropped = frozenset(word.upper() for word in spec.drop)

    def words(value: Value) -> Value:
        found = _WORD.findall(_APOSTROPHES.sub("", text_of(value).upper()))
        return " ".join([word for word in found if word not in dropped][: spec.take]) or None

    return words


def _first_part(separators: list[str]) -> Step:
    def first_part(value: Value) -> Value:
        text = text_of(value)
        for separator in separators:
            text = text.partition(separator)[0]
        return text.strip() or None

    return first_part


def _extract(pattern: str) -> Step:
    compiled = re.compile(pattern)

    def extract(value: Value) -> Value:
        found = compiled.search(text_of(value))
        return ((found[1] or "").strip() or None) if found else None

    return extract


def _date(formats: list[str], at: str | None) -> Step:
    default = time.fromisoformat(at) if at is not None else time()

    def parse(text: str) -> datetime:
        for form in formats:
            try:
                return datetime.strptime(text, form)
            except ValueError:
                continue
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            known = ", ".join([*map(repr, formats), "ISO 8601"])
            raise Rejection("bad-time", "", f"is not a time in any known form ({known})") from None

    def moment(value: Value) -> Value:
        found = value if isinstance(value, datetime) else parse(text_of(value))
        # Midnight on the dot is what a date without a time becomes.
        return datetime.combine(found.date(), default, found.tzinfo) if found.time() == time() else found

    return moment


def _json(value: Value) -> Value:
    try:
        return msgspec.json.decode(text_of(value))
    except (msgspec.DecodeError, RecursionError):
        raise Rejection("malformed-json", "", "is not JSON; write a JSON value into the cell") from None


def _map(rule: Rule) -> Step:
    table = {key.strip().casefold(): value for key, value in (rule.map or {}).items()}
    separator = rule.tokens

    def found(text: str) -> Value:
        if separator is None:
            return table.get(text.strip().casefold())
        tokens = {part.strip().casefold() for part in text.split(separator)}
        return next((meant for key, meant in table.items() if key in tokens), None)

    def look_up(value: Value) -> Value:
        meant = found(text_of(value))
        if meant is None and rule.unmapped == "reject":
            raise Rejection("unknown-value", "", "is not in the mapping's table; add it, or give a default")
        return value if meant is None and rule.unmapped == "keep" else meant

    return look_up
