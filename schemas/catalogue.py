"""The catalogue: which products and regions exist, how they nest, and what the city asks of each.

A catalogue is a TOML file. Products and regions are trees, closed (every code is listed) or open (codes are
learned from the data, their ancestors read from a separator in the code). The file's grammar::

    name = "tianjin"
    version = "2024.1"

    [products]                      # likewise [regions]
    prefix_lengths = [1, 3, 5]      # closed: F0103 lies below F01, below F
    pad = "0"                       # only where short codes are filled up, as in GB/T 2260: 120000
    separator = "/"                 # open: "25/PETER" lies below "25"; excludes prefix_lengths
    [products.nodes]
    F01 = { zh = "乳制品", en = "Dairy", parent = "F" }   # parent only where the prefix does not say it
    [regions.neighbours]
    120101 = ["120102"]             # symmetric

    [[targets]]                     # stage only for targets that hold at one sampling stage
    products = ["F"]
    stage = "export"
    pass_rate = 1.0
    [[key_supervision]]
    zh = "食品药品"
    en = "Food and drugs"
    products = ["F", "B01"]
    [hotlines]
    12315 = { zh = "...", en = "..." }

Whatever is not in this grammar is an error that names the entry. ``Tree.path`` of a known code is one dict
lookup: it is called for every event.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Container, Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

import msgspec

from schemas.errors import CatalogueError, Rejection
from schemas.events import SamplingStage
from schemas.tree import MEMO_LIMIT, Label, Tree

__all__ = ["Catalogue", "Supervision", "Targets"]

_T = TypeVar("_T")


class Targets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of a product; None where nothing is.

    Parameters
    ----------
    pass_rate
        Least share of samples that pass, 0 to 1.
    satisfaction
        Least customer-satisfaction index, 0 to 100.
    structural_accidents
        Most major structural accidents in a year.
    loss_rate_falls
        Whether the quality-loss rate must fall from year to year.
    """

    pass_rate: float | None = None
    satisfaction: float | None = None
    structural_accidents: int | None = None
    loss_rate_falls: bool | None = None


class Supervision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One group of the list of products under key supervision: its name and the topmost codes in it."""

    zh: str
    en: str
    products: tuple[str, ...]


class _Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zh: str
    en: str
    parent: str | None = None


class _TreeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    nodes: dict[str, object] = {}
    prefix_lengths: tuple[int, ...] | None = None
    pad: str | None = None
    separator: str | None = None
    neighbours: dict[str, tuple[str, ...]] = {}


class _TargetRow(Targets, frozen=True, forbid_unknown_fields=True, kw_only=True):
    products: tuple[str, ...]
    stage: SamplingStage | None = None


class _Hotline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    zh: str
    en: str


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    version: str
    products: _TreeTable
    regions: _TreeTable
    targets: list[object] = []
    key_supervision: list[object] = []
    hotlines: dict[str, object] = {}


class Catalogue:
    """The products and regions of one deployment, their targets and the key-supervision list. Immutable.

    Attributes
    ----------
    name, version
        From the file.
    digest
        SHA-256 of the file's bytes (of name and separator for :meth:`open`): part of a configuration's hash.
    products, regions
        Trees.
    supervision
        The groups under key supervision.
    hotlines
        The complaint hotlines: number to label.
    """

    __slots__ = (
        "_key_memo",
        "_key_roots",
        "_target_memo",
        "_targets",
        "digest",
        "hotlines",
        "name",
        "products",
        "regions",
        "supervision",
        "version",
    )

    def __init__(
        self,
        name: str,
        version: str,
        products: Tree,
        regions: Tree,
        *,
        digest: str,
        targets: Mapping[tuple[str, SamplingStage | None], Targets] | None = None,
        supervision: tuple[Supervision, ...] = (),
        hotlines: Mapping[str, Label] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.digest = digest
        self.products = products
        self.regions = regions
        self.supervision = supervision
        self.hotlines: Mapping[str, Label] = MappingProxyType(dict(hotlines or {}))
        self._targets = dict(targets or {})
        self._key_roots = frozenset(code for group in supervision for code in group.products)
        self._target_memo: dict[tuple[str, SamplingStage | None], Targets] = {}
        self._key_memo: dict[str, bool] = {}

    @classmethod
    def load(cls, path: str | Path) -> Catalogue:
        """Read a catalogue file.

        Raises
        ------
        CatalogueError
            When the file cannot be read or breaks the grammar; the text names the entry and the mend.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise CatalogueError(f"{path}: cannot be read ({error.strerror}); give the path of a catalogue") from error
        return _parse(data, str(path))

    @classmethod
    def builtin(cls, name: str) -> Catalogue:
        """Read a catalogue that ships with the package: ``"tianjin"``.

        Raises
        ------
        CatalogueError
            When there is none of this name.
        """
        folder = resources.files("schemas") / "catalogues"
        known = sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))
        if name not in known:
            raise CatalogueError(f"no built-in catalogue {name!r}; there is {', '.join(known)}, or give a file's path")
        return _parse((folder / f"{name}.toml").read_bytes(), f"{name}.toml")

    @classmethod
    def open(cls, name: str, separator: str = "/") -> Catalogue:
        """A catalogue without lists: both trees are open, no targets."""
        digest = hashlib.sha256(f"open\n{name}\n{separator}".encode()).hexdigest()
        products, regions = (Tree(field, {}, {}, separator) for field in ("product", "region"))
        return cls(name, "open", products, regions, digest=digest)

    def targets_for(self, product_code: str, stage: SamplingStage | None = None) -> Targets:
        """What is asked of a product, at one sampling stage where the stage has targets of its own.

        Each indicator is looked up by itself. A target for the stage goes before one without a stage, and of
        either sort the nearest ancestor's wins.

        Raises
        ------
        Rejection
            As :meth:`Tree.path` does.
        """
        memo = self._target_memo.get((product_code, stage))
        if memo is not None:
            return memo
        upwards = self.products.path(product_code)[::-1]
        stages = (stage, None) if stage is not None else (None,)
        rows = [self._targets[code, at] for at in stages for code in upwards if (code, at) in self._targets]
        found = Targets(
            pass_rate=_first(row.pass_rate for row in rows),
            satisfaction=_first(row.satisfaction for row in rows),
            structural_accidents=_first(row.structural_accidents for row in rows),
            loss_rate_falls=_first(row.loss_rate_falls for row in rows),
        )
        if len(self._target_memo) < MEMO_LIMIT:
            self._target_memo[product_code, stage] = found
        return found

    def key_supervision(self, code: str) -> bool:
        """Whether a product or an ancestor is on the key-supervision list; raises as ``Tree.path``."""
        memo = self._key_memo.get(code)
        if memo is not None:
            return memo
        found = not self._key_roots.isdisjoint(self.products.path(code))
        if len(self._key_memo) < MEMO_LIMIT:
            self._key_memo[code] = found
        return found


def _first(values: Iterable[_T | None]) -> _T | None:
    return next((value for value in values if value is not None), None)


def _parse(data: bytes, where: str) -> Catalogue:
    """Turn a file's bytes into a catalogue; ``where`` names it in errors."""
    try:
        raw = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise CatalogueError(f"{where}: is not TOML in UTF-8 ({error}); mend it there") from error
    try:
        file = _convert(raw, _File, "the file")
        products = _tree(file.products, "product")
        regions = _tree(file.regions, "region")
        supervision = tuple(
            _convert(row, Supervision, f"key_supervision[{i}]") for i, row in enumerate(file.key_supervision)
        )
        for i, group in enumerate(supervision):
            _require_known(products, group.products, f"key_supervision[{i}]")
        hotlines = {no: _convert(row, _Hotline, f"hotlines.{no}") for no, row in file.hotlines.items()}
        return Catalogue(
            file.name,
            file.version,
            products,
            regions,
            digest=hashlib.sha256(data).hexdigest(),
            targets=_targets(file.targets, products),
            supervision=supervision,
            hotlines={no: (line.zh, line.en) for no, line in hotlines.items()},
        )
    except CatalogueError as error:
        raise CatalogueError(f"{where}: {error}") from error


def _convert(value: object, type_: type[_T], entry: str) -> _T:
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise CatalogueError(f"{entry}: {error}; correct or remove it") from error


def _tree(table: _TreeTable, field: str) -> Tree:
    entry = f"{field}s"
    _require_scheme(table, entry)
    nodes = {code: _convert(node, _Node, f"{entry}.nodes.{code}") for code, node in table.nodes.items()}
    if not nodes and table.separator is None:
        raise CatalogueError(f"{entry}.nodes: a closed tree lists its codes; add them, or give a separator")
    parents: dict[str, str] = {}
    for code, node in nodes.items():
        if node.parent is not None and table.separator is not None:
            raise CatalogueError(f"{entry}.nodes.{code}.parent: the separator says it in an open tree; remove it")
        parent = node.parent if node.parent is not None else _parent_by_code(code, table, nodes.keys(), entry)
        if parent is not None:
            if parent not in nodes:
                raise CatalogueError(f"{entry}.nodes.{code}: its parent {parent!r} is not listed; add it")
            parents[code] = parent
    labels = {code: (node.zh, node.en) for code, node in nodes.items()}
    tree = Tree(field, labels, parents, table.separator, table.neighbours)
    for code, near in table.neighbours.items():
        _require_known(tree, (code, *near), f"{entry}.neighbours.{code}")
        for other in near:
            if other == code or code not in table.neighbours.get(other, ()):
                raise CatalogueError(f"{entry}.neighbours.{code}: {other!r} must be another code and list {code!r} too")
    return tree


def _require_scheme(table: _TreeTable, entry: str) -> None:
    if table.prefix_lengths is not None and table.separator is not None:
        raise CatalogueError(f"{entry}: prefix_lengths and separator exclude each other; keep one")
    if table.prefix_lengths is not None and (not table.prefix_lengths or min(table.prefix_lengths) < 1):
        raise CatalogueError(f"{entry}.prefix_lengths: lists lengths of 1 or more, such as [1, 3, 5]; correct it")
    if table.separator == "":
        raise CatalogueError(f"{entry}.separator: is empty; give a character such as '/'")
    if table.pad is not None and (len(table.pad) != 1 or table.prefix_lengths is None):
        raise CatalogueError(f"{entry}.pad: is one character and goes with prefix_lengths; correct or remove it")


def _parent_by_code(code: str, table: _TreeTable, known: Container[str], entry: str) -> str | None:
    if table.separator is not None:
        return code.rsplit(table.separator, 1)[0] if table.separator in code else None
    lengths = table.prefix_lengths
    if lengths is None:
        return None
    if table.pad is not None:
        # Short codes are filled up, and levels may be left out: 120101 lies directly below 120000 in a city
        # that has no use for 120100.
        full = max(lengths)
        padded = {code[:length].ljust(full, table.pad): length for length in sorted(lengths, reverse=True)}
        above = [candidate for candidate in padded if candidate != code and candidate in known]
        return above[0] if above else None
    if len(code) not in lengths:
        raise CatalogueError(f"{entry}.nodes.{code}: has {len(code)} characters; prefix_lengths allows {list(lengths)}")
    shorter = [length for length in lengths if length < len(code)]
    return code[: max(shorter)] if shorter else None


def _targets(rows: list[object], products: Tree) -> dict[tuple[str, SamplingStage | None], Targets]:
    found: dict[tuple[str, SamplingStage | None], Targets] = {}
    for i, raw in enumerate(rows):
        entry = f"targets[{i}]"
        row = _convert(raw, _TargetRow, entry)
        _require_known(products, row.products, entry)
        _require_range(row, entry)
        plain = Targets(row.pass_rate, row.satisfaction, row.structural_accidents, row.loss_rate_falls)
        if plain == Targets():
            raise CatalogueError(f"{entry}: asks for nothing; give pass_rate, satisfaction or another indicator")
        for code in row.products:
            if (code, row.stage) in found:
                raise CatalogueError(f"{entry}: {code!r} has targets for this stage already; merge the two entries")
            found[code, row.stage] = plain
    return found


def _require_range(row: Targets, entry: str) -> None:
    if row.pass_rate is not None and not 0.0 < row.pass_rate <= 1.0:
        raise CatalogueError(f"{entry}.pass_rate: {row.pass_rate} is not a share; give 0.98 for 98 %")
    if row.satisfaction is not None and not 0.0 <= row.satisfaction <= 100.0:
        raise CatalogueError(f"{entry}.satisfaction: {row.satisfaction} is outside 0 to 100")
    if row.structural_accidents is not None and row.structural_accidents < 0:
        raise CatalogueError(f"{entry}.structural_accidents: is negative; give 0 or more")


def _require_known(tree: Tree, codes: Iterable[str], entry: str) -> None:
    for code in codes:
        try:
            tree.path(code)
        except Rejection as error:
            raise CatalogueError(f"{entry}: {error.detail}") from error
