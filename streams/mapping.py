"""What a mapping file says: how the rows of somebody's table become events. Parsed, checked, frozen.

A mapping is TOML, so that anybody can write one for his own files::

    name = "clinic"
    kind = "injury"

    [columns]                              # names for the file's columns: the first header that it has
    case = ["Case No", "case_number"]
    seen = "Date seen"
    brand = { column = "Product", words = { take = 1 } }      # or worked out from another column

    [[when]]                               # rows that meet every filter are imported, others left out
    column = "Role"
    equals = "Suspect"

    [fields]
    event_id = { template = "{case}-{brand}" }
    source = { const = "CLINIC" }
    reported_at = { column = "seen", date = ["%m/%d/%Y"], time = "12:00" }
    product = { code = { parts = ["Category", "brand"], case = "upper" } }
    region = { first_of = ["District", "Town"], default = "unknown" }
    site = { const = "CLINIC" }
    severity = { column = "Severity", map = { light = 1, serious = 3 }, default = 1 }
    age = { column = "Age", recode = [{ at_least = 200, subtract = 200, divide = 12 }], within = [0, 130] }

    [distinct]                             # of rows that agree on these only the first is imported
    on = ["case", "brand"]

    [file]
    order_by = "reported_at"

    [catalogue]
    products = "open"                      # codes are learned from the data
    regions = "open"
    names = { file = "names.csv", code = "code", title = "title" }

A name in ``column``, ``first_of``, ``template``, ``parts`` or ``on`` is one declared in ``[columns]`` above
it, or else a header of the file. Where one rule does not do, a field takes a list of rules and the first that
yields a value counts (``[[fields.severity]]``). The steps of a rule run in the order of :class:`Rule`'s
attributes; a step that meets a cell it cannot use refuses that row and names the cell. Filters, ``map`` and
``tokens`` compare text without regard to case and outer blanks.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from datetime import datetime, time
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from schemas.errors import ConfigError
from schemas.events import EVENT_TYPES, Kind

__all__ = ["TEMPLATE_NAME", "CatalogueNeeds", "Code", "Filter", "Mapping", "Names", "Rule", "builtin_names"]

Scalar = str | int | float | bool
Case = Literal["keep", "upper", "lower"]

TEMPLATE_NAME = re.compile(r"\{([^{}]*)\}")

_T = TypeVar("_T")
_UNKNOWN_KEY = re.compile(r"unknown field `(?P<key>[^`]+)`")
_PATH = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    pass


class Code(_Strict, frozen=True, kw_only=True):
    """A hierarchical code out of several columns, joined by ``/``; empty parts drop out, a ``/`` in one
    becomes ``-``."""

    parts: list[str]
    case: Case = "keep"


class Words(_Strict, frozen=True, kw_only=True):
    """The first ``take`` words, upper-cased, of letters and digits only, without those in ``drop``."""

    take: int
    drop: list[str] = []


class Recode(_Strict, frozen=True, kw_only=True):
    """A number of ``at_least`` or more stands for ``(number - subtract) / divide``."""

    at_least: float
    subtract: float = 0
    divide: float = 1


class Grade(_Strict, frozen=True, kw_only=True):
    """A number of ``at_least`` or more becomes ``value``; below every grade there is none."""

    at_least: float
    value: Scalar


class ScaleBy(_Strict, frozen=True, kw_only=True):
    """Multiply by what ``map`` says for another column's cell; with a cell it does not list there is no
    value."""

    column: str
    map: dict[str, float]


class Rule(_Strict, frozen=True, kw_only=True):
    """How a value is made: exactly one source (the first five), then the steps, in this order."""

    column: str | None = None
    first_of: list[str] | None = None
    const: Scalar | None = None
    template: str | None = None
    code: Code | None = None

    words: Words | None = None
    first_part: list[str] | None = None
    """Separators: what stands before the first of them."""
    extract: str | None = None
    """A regular expression with one group: what the group matches, or nothing."""
    case: Case = "keep"
    date: list[str] | None = None
    """strptime formats, tried in turn; ISO 8601 is always understood."""
    time: str | None = None
    """The time of day of a date without one (``"12:00"``); midnight otherwise."""
    json: bool = False
    """The cell holds JSON."""
    tokens: str | None = None
    """A separator: the cell is a list, and the first entry of ``map`` that is in the list counts."""
    recode: list[Recode] | None = None
    grade: list[Grade] | None = None
    map: dict[str, Scalar] | None = None
    unmapped: Literal["reject", "keep", "absent"] = "reject"
    """A value that ``map`` does not list refuses the row unless the next rule or ``default`` knows better,
    stays as it is, or counts as an empty cell."""
    scale: float | None = None
    scale_by: ScaleBy | None = None
    clip: list[float] | None = None
    """[least, most]: what lies outside is moved to the bound."""
    within: list[float] | None = None
    """[least, most]: what lies outside is left out."""
    not_after: str | None = None
    """Another field: a later time than that is left out."""
    default: Scalar | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns that must be there for the rule to yield anything but its default."""
        if self.column is not None:
            return (self.column,)
        if self.template is not None:
            return tuple(TEMPLATE_NAME.findall(self.template))
        return ()

    @property
    def any_source(self) -> tuple[str, ...]:
        """The columns of which one must be there."""
        if self.first_of is not None:
            return tuple(self.first_of)
        return tuple(self.code.parts) if self.code is not None else ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Every column that the rule looks at."""
        more = (self.scale_by.column,) if self.scale_by is not None else ()
        return (*self.sources, *self.any_source, *more)


class Filter(_Strict, frozen=True, kw_only=True):
    """A row is imported only where the cell equals a text, is one of several, or is there at all."""

    column: str
    equals: Scalar | None = None
    one_of: list[Scalar] | None = msgspec.field(default=None, name="in")
    not_null: bool = False
    if_present: bool = False
    """Where the file has no such column, let every row pass."""


class Distinct(_Strict, frozen=True, kw_only=True):
    """Of rows that agree on ``on``, only the first is imported: in the whole file, or of those that
    adjoin."""

    on: list[str]
    within: Literal["file", "adjacent"] = "file"


class Names(_Strict, frozen=True, kw_only=True):
    """A CSV file of names for codes, looked for beside the imported file; nothing is amiss when it is
    absent."""

    file: str
    code: str = "code"
    title: str = "title"


class CatalogueNeeds(_Strict, frozen=True, kw_only=True):
    """Which trees of the catalogue must be open for these codes, and where names may be found."""

    products: Literal["open", "closed"] = "open"
    regions: Literal["open", "closed"] = "open"
    names: Names | None = None


class _File(_Strict, frozen=True, kw_only=True):
    encoding: str = "utf-8"
    delimiter: str | None = None
    order_by: str | None = None


class _Document(_Strict, frozen=True, kw_only=True):
    name: str
    kind: Kind
    title: str = ""
    columns: dict[str, Any] = {}
    when: list[Filter] = []
    fields: dict[str, Any]
    distinct: Distinct | None = None
    file: _File = _File()
    catalogue: CatalogueNeeds = CatalogueNeeds()


Column = tuple[str, ...] | tuple[Rule, ...]
"""A declared column: the headers it may have, or rules that work it out."""


class Mapping(msgspec.Struct, frozen=True, kw_only=True):
    """A checked mapping; see the module's text for the format."""

    name: str
    kind: Kind
    title: str = ""
    columns: dict[str, Column] = {}
    when: tuple[Filter, ...] = ()
    fields: dict[str, tuple[Rule, ...]]
    distinct: Distinct | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    order_by: str | None = None
    catalogue: CatalogueNeeds = CatalogueNeeds()

    @classmethod
    def load(cls, path: str | Path) -> Mapping:
        """Read a mapping from a TOML file.

        Raises
        ------
        ConfigError
            Naming the file, the key, and how to mend it.
        """
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); give the path of a mapping, in UTF-8") from None
        return cls.parse(text, str(path))

    @classmethod
    def builtin(cls, name: str) -> Mapping:
        """A mapping that comes with Tocsin: one of :func:`builtin_names`."""
        known = builtin_names()
        if name not in known:
            raise ConfigError(f"no mapping is called {name!r}{_hint(name, known)}; known are {', '.join(known)}")
        file = resources.files("streams") / "mappings" / f"{name}.toml"
        return cls.parse(file.read_text("utf-8"), f"{name}.toml")

    @classmethod
    def parse(cls, text: str, where: str) -> Mapping:
        """Read a mapping from TOML text; ``where`` stands for it in errors."""
        try:
            raw = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where}: is not TOML ({error})") from None
        document = _convert(raw, _Document, where, "")
        mapping = cls(
            name=document.name,
            kind=document.kind,
            title=document.title,
            columns={name: _column(value, where, f"columns.{name}") for name, value in document.columns.items()},
            when=tuple(document.when),
            fields={name: _rules(value, where, f"fields.{name}") for name, value in document.fields.items()},
            distinct=document.distinct,
            encoding=document.file.encoding,
            delimiter=document.file.delimiter,
            order_by=document.file.order_by,
            catalogue=document.catalogue,
        )
        _check(mapping, where)
        return mapping

    def headers(self) -> frozenset[str]:
        """Every name that may be a header of the file: what a reader has to read."""
        used: set[str] = {one.column for one in self.when} | set(self.distinct.on if self.distinct else ())
        for rules in self.fields.values():
            used.update(name for rule in rules for name in rule.reads)
        for column in self.columns.values():
            for entry in column:
                used.update((entry,) if isinstance(entry, str) else entry.reads)
        return frozenset(used)


def builtin_names() -> tuple[str, ...]:
    """The mappings that come with Tocsin."""
    files = (resources.files("streams") / "mappings").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def _column(value: object, where: str, key: str) -> Column:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        return tuple(value)
    return _rules(value, where, key)


def _rules(value: object, where: str, key: str) -> tuple[Rule, ...]:
    if isinstance(value, dict):
        rules = [_convert(value, Rule, where, key)]
    elif isinstance(value, list) and value:
        rules = [_convert(one, Rule, where, f"{key}[{place}]") for place, one in enumerate(value)]
    else:
        raise ConfigError(f'{where}: {key}: must be a rule such as {{ column = "Name" }}, or a list of rules')
    for rule in rules:
        _check_rule(rule, where, key)
    return tuple(rules)


def _convert(value: object, type_: type[_T], where: str, key: str) -> _T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        text = str(error)
        found = _PATH.search(text)
        path = ".".join(part for part in (key, found["path"] if found else "") if part)
        said = text[: found.start()] if found else text
        unknown = _UNKNOWN_KEY.search(said)
        if unknown is None:
            raise ConfigError(f"{where}: {path or 'top level'}: {said}") from None
        allowed = _keys_at(type_, found["path"] if found else "")
        name = f"{path}.{unknown['key']}" if path else unknown["key"]
        hint = _hint(unknown["key"], allowed)
        raise ConfigError(f"{where}: {name}: there is no such key{hint}; allowed here: {', '.join(allowed)}") from None


def _keys_at(type_: type, path: str) -> tuple[str, ...]:
    """The keys of the Struct at a path such as ``file`` or ``recode[0]`` inside ``type_``."""
    for part in filter(None, re.split(r"[.\[]", path)):
        field = next((one for one in msgspec.structs.fields(type_) if one.encode_name == part), None)
        if field is not None:
            type_ = next(_structs_in(field.type), type_)
    return tuple(field.encode_name for field in msgspec.structs.fields(type_))


def _structs_in(type_: Any) -> Iterator[type]:
    if isinstance(type_, type) and issubclass(type_, msgspec.Struct):
        yield type_
    for argument in getattr(type_, "__args__", ()):
        yield from _structs_in(argument)


def _hint(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f", did you mean {near[0]!r}?" if near else ""


def _check_rule(rule: Rule, where: str, key: str) -> None:
    def refuse(what: str) -> None:
        raise ConfigError(f"{where}: {key}{what}")

    given = [name for name in ("column", "first_of", "const", "template", "code") if getattr(rule, name) is not None]
    if len(given) != 1:
        said = " and ".join(given) or "none"
        refuse(f": needs exactly one of column, first_of, const, template, code; found {said}")
    if rule.template is not None and re.search(r"[{}]", TEMPLATE_NAME.sub("", rule.template)):
        refuse(".template: has a stray brace; write column names as {name}")
    if rule.template is not None and any(not name.strip() for name in TEMPLATE_NAME.findall(rule.template)):
        refuse(".template: has {} without a column's name in it")
    if rule.extract is not None and _groups(rule.extract) != 1:
        refuse(".extract: must be a regular expression with exactly one group")
    if rule.tokens is not None and (not rule.tokens or rule.map is None):
        refuse(".tokens: is a separator, and needs a map of what its entries mean")
    if rule.unmapped != "reject" and rule.map is None:
        refuse(".unmapped: goes with a map")
    if rule.words is not None and rule.words.take < 1:
        refuse(".words.take: must be 1 or more")
    for name in ("clip", "within"):
        bounds = getattr(rule, name)
        if bounds is not None and (len(bounds) != 2 or bounds[0] > bounds[1]):
            refuse(f".{name}: must be [least, most]")
    _check_times(rule, refuse)
    if rule.recode is not None and any(step.divide == 0 for step in rule.recode):
        refuse(".recode.divide: must not be 0")


def _check_times(rule: Rule, refuse: Any) -> None:
    for form in rule.date or ():
        try:
            datetime.strptime(datetime(2001, 2, 3, 4, 5, 6).strftime(form), form)
        except ValueError:
            refuse(f'.date: {form!r} is not a strptime format such as "%m/%d/%Y"')
    if rule.time is not None:
        try:
            time.fromisoformat(rule.time)
        except ValueError:
            refuse(f'.time: {rule.time!r} is not a time of day such as "12:00"')
        if rule.date is None:
            refuse(".time: goes with date, the formats of the column (an empty list for ISO 8601)")


def _groups(pattern: str) -> int:
    try:
        return re.compile(pattern).groups
    except re.error:
        return -1


def _check(mapping: Mapping, where: str) -> None:
    """What single rules cannot say: fields that the kind has not, or misses, and filters that say nothing."""
    fields = {field.name: field for field in msgspec.structs.fields(EVENT_TYPES[mapping.kind])}
    for name in mapping.fields:
        if name not in fields:
            known = tuple(fields)
            raise ConfigError(
                f"{where}: fields.{name}: {mapping.kind} events have no such field{_hint(name, known)}; "
                f"they have {', '.join(known)}"
            )
    for name, field in fields.items():
        if field.required and name not in mapping.fields:
            raise ConfigError(f"{where}: fields.{name}: is missing; every {mapping.kind} event needs it")
    for place, one in enumerate(mapping.when):
        said = [one.equals is not None, one.one_of is not None, one.not_null]
        if sum(said) != 1:
            raise ConfigError(f"{where}: when[{place}]: needs exactly one of equals, in, not_null = true")
    if mapping.distinct is not None and not mapping.distinct.on:
        raise ConfigError(f"{where}: distinct.on: must name at least one column")
    if mapping.order_by is not None and mapping.order_by not in mapping.fields:
        raise ConfigError(f"{where}: file.order_by: {mapping.order_by!r} is not among [fields]; reported_at is usual")
    for name, rules in mapping.fields.items():
        for rule in rules:
            if rule.not_after is not None and (rule.not_after not in mapping.fields or rule.not_after == name):
                raise ConfigError(f"{where}: fields.{name}.not_after: must name another of [fields]")
    try:
        "".encode(mapping.encoding)
    except LookupError:
        raise ConfigError(f"{where}: file.encoding: Python knows no encoding {mapping.encoding!r}") from None
    if mapping.delimiter is not None and len(mapping.delimiter) != 1:
        raise ConfigError(f"{where}: file.delimiter: must be one character")
