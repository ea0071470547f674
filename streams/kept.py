"""What was worked out of cells' days up to some day, kept until one of these days changes.

At every tick of a day the same cells are judged over the same days, of which only the last few still change.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["Kept", "KeptTables"]

Rows = npt.NDArray[np.intp]
Values = npt.NDArray[Any]
_TABLES: Final = 8
"""Tables that are kept: four for the rules that are judged by, and some room."""


_FORWARD: Final = 8
"""So many days at the most are values brought forward: of more they are as well worked out anew."""


class Kept:
    """Values by row, ``[rows, *shape]``, that hang on nothing but the row's days up to one and, it may be, those of one
    other row."""

    __slots__ = ("_changed", "_now", "_through", "_values", "_worked", "until")

    def __init__(self, until: int, shape: tuple[int, ...], dtype: type) -> None:
        self.until = until
        self._values: Values = np.zeros((0, *shape), dtype)
        self._worked = np.zeros(0, np.int64)
        """When a row was last worked out, 0: never."""
        self._through = np.zeros(0, np.int64)
        """The day up to which it was."""
        self._changed = np.zeros(0, np.int64)
        """When a row last changed, 0: never."""
        self._now = 1

    @property
    def nbytes(self) -> int:
        return self._values.nbytes + self._worked.nbytes + self._through.nbytes + self._changed.nbytes

    def change(self, rows: Rows) -> None:
        """Days up to ``until`` of these rows have changed; those beyond the rows that were asked for do not matter."""
        self._changed[rows[rows < len(self._changed)]] = self._now
        self._now += 1

    def of(
        self,
        rows: Rows,
        work: Callable[[Rows], Values],
        others: Rows | None = None,
        forward: Callable[[Rows, int], Values] | None = None,
    ) -> Values:
        """Values ``[rows, *shape]`` of rows. Those that are not kept ``work`` must find; it is given their places in
        ``rows``. With ``others`` [rows] each hangs on that row too: always on the same.

        Of those that are kept up to a day before ``until``, ``forward`` must find what the days since add to them: it
        is given their places and the number of days. Without it they are worked out anew.
        """
        needed = rows if others is None else np.concatenate([rows, others])
        self._reserve(int(needed.max(initial=-1)) + 1)
        changed = self._changed[rows] if others is None else np.maximum(self._changed[rows], self._changed[others])
        behind = self.until - self._through[rows]
        kept = (self._worked[rows] > changed) & (behind <= (_FORWARD if forward is not None else 0))
        if forward is not None and behind.any():
            for days in np.unique(behind[kept & (behind > 0)]).tolist():
                at = np.flatnonzero(kept & (behind == days))
                self._keep(rows[at], self._values[rows[at]] + forward(at, days))
        missing = np.flatnonzero(~kept)
        if len(missing):
            self._keep(rows[missing], work(missing))
        return self._values[rows]

    def _keep(self, rows: Rows, values: Values) -> None:
        self._values[rows] = values
        self._worked[rows], self._through[rows] = self._now, self.until

    def _reserve(self, rows: int) -> None:
        """Have room for so many rows."""
        more = rows - len(self._worked)
        if more > 0:
            self._values, self._worked, self._through, self._changed = (
                np.concatenate([held, np.zeros((more + rows // 4, *held.shape[1:]), held.dtype)])
                for held in (self._values, self._worked, self._through, self._changed)
            )


class KeptTables:
    """Tables of one store, by what they hold."""

    def __init__(self) -> None:
        self._tables: dict[Hashable, Kept] = {}

    @property
    def nbytes(self) -> int:
        return sum(table.nbytes for table in self._tables.values())

    def table(self, name: Hashable, until: int, shape: tuple[int, ...], dtype: type) -> Kept:
        """The table of a name: empty when it is asked for first, or for an earlier day than before. The name tells all
        that its values hang on, besides the day and the counts."""
        table = self._tables.get(name)
        if table is not None and table.until <= until:
            table.until = until
        else:
            self._tables[name] = table = Kept(until, shape, dtype)
            if len(self._tables) > _TABLES:
                del self._tables[next(iter(self._tables))]
        return table

    def change(self, rows: Rows, days: npt.NDArray[np.int32]) -> None:
        """These days of these rows have changed."""
        if self._tables:
            oldest = int(days.min())
            for table in self._tables.values():
                if oldest <= table.until:
                    table.change(rows[days <= table.until])

    def forget(self) -> None:
        """Anything may have changed."""
        self._tables.clear()
