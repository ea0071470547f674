"""The axes of the matrix: the districts and products that the catalogue lists, each with its depth in its tree.

Codes that an open tree learns are not listed anywhere; the page adds those that alerts name.
"""

from __future__ import annotations

from typing import Final

import msgspec

from schemas.alerts import Text
from schemas.catalogue import Catalogue
from schemas.tree import Tree

__all__ = ["MAX_PRODUCTS", "MAX_REGIONS", "Axes", "Node", "axes"]

MAX_PRODUCTS: Final = 2_000
MAX_REGIONS: Final = 100


class Node(msgspec.Struct, frozen=True):
    """A listed code: its name, and how many codes lie above it."""

    code: str
    name: Text
    depth: int


class Axes(msgspec.Struct, frozen=True):
    """Products and regions in the order of their trees; ``left_out`` says how many of both were too many."""

    products: list[Node]
    regions: list[Node]
    left_out: tuple[int, int]


def axes(catalogue: Catalogue) -> Axes:
    """The axes for a catalogue."""
    products, regions = _nodes(catalogue.products), _nodes(catalogue.regions)
    left_out = max(0, len(products) - MAX_PRODUCTS), max(0, len(regions) - MAX_REGIONS)
    return Axes(products[:MAX_PRODUCTS], regions[:MAX_REGIONS], left_out)


def _nodes(tree: Tree) -> list[Node]:
    return [
        Node(code, Text(*tree.label(code)), len(path) - 1)
        for path, code in sorted((tree.path(code), code) for code in tree.codes)
    ]
