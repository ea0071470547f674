"""What never changes about the cells of a store, as arrays that grow with it: branch, product, target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from streams.cells import CellStore

__all__ = ["RowFacts"]

Rows = npt.NDArray[np.intp]


class RowFacts:
    """Branch, product and target of every row of a store, each looked up once.

    Parameters
    ----------
    store
        The cells of one indicator; it only ever grows.
    target_of
        The target of a product, NaN where there is none.
    """

    def __init__(self, store: CellStore, target_of: Callable[[str], float]) -> None:
        self._store = store
        self._target_of = target_of
        self._branch_number: dict[str, int] = {}
        self._product_number: dict[str, int] = {}
        self.products: list[str] = []
        """The products by number."""
        self._targets: list[float] = []
        self._branch = np.empty(0, np.intp)
        self._product = np.empty(0, np.intp)

    @property
    def branch_count(self) -> int:
        """How many branches have a number."""
        self._grow()
        return len(self._branch_number)

    def branches(self, rows: Rows) -> Rows:
        """Numbers of the branches that rows lie in."""
        self._grow()
        return self._branch[rows]

    def product_numbers(self, rows: Rows) -> Rows:
        """Numbers of the rows' products in :attr:`products`."""
        self._grow()
        return self._product[rows]

    def targets(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The targets of the rows' products, NaN where there is none."""
        self._grow()
        return np.array(self._targets, np.float64)[self._product[rows]]

    def _grow(self) -> None:
        first, count = len(self._branch), len(self._store)
        if first == count:
            return
        numbers = self._branch_number
        branches = [numbers.setdefault(self._store.branch(row), len(numbers)) for row in range(first, count)]
        names = self._product_number
        products = [names.setdefault(product, len(names)) for product, _ in self._store.cells[first:count]]
        for product in list(names)[len(self.products) :]:
            self.products.append(product)
            self._targets.append(self._target_of(product))
        self._branch = np.concatenate([self._branch, np.array(branches, np.intp)])
        self._product = np.concatenate([self._product, np.array(products, np.intp)])
