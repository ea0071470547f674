"""The cell store: daily integer counts for every product node x region node of one indicator.

A row is a cell, a column a local day. Days are held in blocks of 64, each block with as many rows as there were
cells when it was last written, so an old block never grows. All sums are of integers: no order of folding can show.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from streams.kept import KeptTables

__all__ = ["BlockPiece", "CellStore"]

BLOCK_DAYS = 64
_PIECE_ROWS = 4_096
Ints = npt.NDArray[np.int64]
Cell = tuple[str, str]


class BlockPiece(msgspec.Struct, array_like=True):
    """Some rows of a block as stored: the gaps between the places that are not zero, and what stands there."""

    number: int
    first: int
    gaps: bytes
    values: bytes


class CellStore:
    """Cells of one indicator.

    Parameters
    ----------
    fields
        How many integers a cell holds a day: 1 (x) for counts, 2 (x, n) for rates.
    """

    def __init__(self, fields: int) -> None:
        self._fields = fields
        self._dtype = np.int32 if fields == 1 else np.int64
        self._rows: dict[Cell, int] = {}
        self.cells: list[Cell] = []
        self._branch: list[str] = []
        self._blocks: dict[int, npt.NDArray[np.int32] | npt.NDArray[np.int64]] = {}
        self._first_day: dict[str, int] = {}
        self._wider: list[int] = []
        self._wider_rows = np.empty(0, np.intp)
        self._oldest: int | None = None
        """The oldest block that is kept; what belongs to an older one is passed over."""
        self.kept = KeptTables()
        """What whoever judges keeps of the counts."""

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def nbytes(self) -> int:
        return sum(block.nbytes for block in self._blocks.values()) + self.kept.nbytes

    def row(self, cell: Cell) -> int | None:
        """The row of a cell, None where nothing was ever counted."""
        return self._rows.get(cell)

    def rows_for(self, product: Sequence[str], region: Sequence[str]) -> list[int]:
        """Rows of a leaf and all its ancestors (made where new): product path x region path, leaf last."""
        return [self._row((p, r), product[0], region, depth) for p in product for depth, r in enumerate(region)]

    def _row(self, cell: Cell, branch: str, region: Sequence[str], depth: int) -> int:
        row = self._rows.get(cell)
        if row is None:
            row = self._rows[cell] = len(self.cells)
            self.cells.append(cell)
            self._branch.append(branch)
            self._wider.append(-1 if depth == 0 else self._rows[cell[0], region[depth - 1]])
        return row

    def branch(self, row: int) -> str:
        """The top node of the cell's product branch."""
        return self._branch[row]

    def wider(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Row of the same product in the next wider region, -1 at the widest."""
        if len(self._wider_rows) < len(self._wider):
            self._wider_rows = np.array(self._wider, np.intp)
        return self._wider_rows[rows]

    def first_day(self, branch: str) -> int | None:
        """First day on which the branch has any count."""
        return self._first_day.get(branch)

    def fold(self, rows: npt.NDArray[np.intp], days: npt.NDArray[np.int32], values: Ints) -> None:
        """Add ``values`` [events, fields] at (row, day); repeated pairs add up."""
        if not len(days):
            return
        chunk = days // BLOCK_DAYS
        one = chunk.min() == chunk.max()
        for number in chunk[:1].tolist() if one else np.unique(chunk).tolist():
            if self._oldest is not None and number < self._oldest:
                continue
            mine = slice(None) if one else chunk == number
            block = self._block(number, int(rows[mine].max()) + 1)
            place = (rows[mine].astype(np.int64) * BLOCK_DAYS + days[mine] % BLOCK_DAYS) * self._fields
            flat = block.reshape(-1)
            for field in range(self._fields):
                np.add.at(flat, place + field, values[mine, field].astype(self._dtype))
        self.kept.change(rows, days)

    def note_day(self, branch: str, day: int) -> None:
        """Remember the first day on which a branch has any count."""
        if day < self._first_day.get(branch, day + 1):
            self._first_day[branch] = day

    def _block(self, number: int, rows: int) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
        block = self._blocks.get(number)
        if block is None or len(block) < rows:
            held = 0 if block is None else len(block)
            # One that grows gets room to spare: rows that nobody has written take no memory yet.
            capacity = max(rows, len(self.cells) if block is None else held + held // 2 + 64)
            grown = np.zeros((capacity, BLOCK_DAYS, self._fields), self._dtype)
            if block is not None:
                grown[:held] = block
            self._blocks[number] = block = grown
        return block

    def daily(self, rows: npt.NDArray[np.intp], last_day: int, days: int) -> Ints:
        """Counts [rows, days, fields] of the ``days`` days that end with ``last_day``."""
        first = last_day - days + 1
        out = np.zeros((len(rows), days, self._fields), np.int64)
        for low, block in self._between(first, last_day):
            held = np.flatnonzero(rows < len(block))
            out[held, low - first : low - first + block.shape[1]] = block[rows[held]]
        return out

    def total(self, rows: npt.NDArray[np.intp], last_day: int, days: int) -> Ints:
        """The first field's sum [rows] over the ``days`` days that end with ``last_day``."""
        out = np.zeros(len(rows), np.int64)
        for _, block in self._between(last_day - days + 1, last_day):
            held = np.flatnonzero(rows < len(block))
            out[held] += block[rows[held], :, 0].sum(axis=1, dtype=np.int64)
        return out

    def _between(self, first: int, last: int) -> Iterator[tuple[int, npt.NDArray[np.int32] | npt.NDArray[np.int64]]]:
        """What is held of the days from one through another: first day and counts [rows, days, fields], in order."""
        for number in range(first // BLOCK_DAYS, last // BLOCK_DAYS + 1):
            block = self._blocks.get(number)
            if block is not None:
                start = number * BLOCK_DAYS
                low, high = max(first, start), min(last, start + BLOCK_DAYS - 1)
                yield low, block[:, low - start : high - start + 1]

    def weekly(self, rows: npt.NDArray[np.intp], last_day: int, weeks: int) -> Ints:
        """Counts [rows, weeks, fields] of the calendar weeks (Monday first) up to the one that holds ``last_day``."""
        sunday = last_day + (6 - (last_day + 3) % 7)
        daily = self.daily(rows, sunday, weeks * 7)
        sums: Ints = daily.reshape(len(rows), weeks, 7, self._fields).sum(axis=2)
        return sums

    def expire(self, before_day: int) -> None:
        """Forget whole blocks older than a day; what comes for them later is passed over."""
        oldest = before_day // BLOCK_DAYS
        self._oldest = oldest if self._oldest is None else max(oldest, self._oldest)
        for number in [n for n in self._blocks if n < self._oldest]:
            del self._blocks[number]
            self.kept.forget()

    def excerpt(self, cells: Sequence[Cell], first_day: int) -> CellStore:
        """A store of some cells, and the cells of the same products in the regions above, from a day's block on."""
        place: dict[int, int] = {}
        for cell in cells:
            row = self._rows.get(cell, -1)
            while row >= 0 and row not in place:
                place[row] = len(place)
                row = self._wider[row]
        rows = list(place)
        part = CellStore(self._fields)
        part.cells = [self.cells[row] for row in rows]
        part._rows = {cell: at for at, cell in enumerate(part.cells)}
        part._branch = [self._branch[row] for row in rows]
        part._wider = [place.get(self._wider[row], -1) for row in rows]
        part._first_day = {branch: self._first_day[branch] for branch in part._branch if branch in self._first_day}
        for number, block in self._blocks.items():
            if number >= first_day // BLOCK_DAYS:
                held = [row for row in rows if row < len(block)]
                part._blocks[number] = grown = np.zeros((len(rows), BLOCK_DAYS, self._fields), self._dtype)
                grown[[place[row] for row in held]] = block[held]
        return part

    # --- storing ---------------------------------------------------------------------------------------------------

    @property
    def first_days(self) -> dict[str, int]:
        """The first day of every branch, by name."""
        return dict(sorted(self._first_day.items()))

    def pieces(self) -> Iterator[BlockPiece]:
        """All counts, a few thousand cells of a block at a time; what is zero is left out."""
        for number, block in sorted(self._blocks.items()):
            for first in range(0, len(block), _PIECE_ROWS):
                flat = block[first : first + _PIECE_ROWS].reshape(-1)
                places = np.flatnonzero(flat)
                if len(places):
                    gaps = np.diff(places, prepend=0).astype(np.uint32)
                    packed = (zlib.compress(part.tobytes(), 1) for part in (gaps, flat[places].astype(np.int64)))
                    yield BlockPiece(number, first, *packed)

    def take_up(self, piece: BlockPiece) -> None:
        """Put a stored piece in its place. The rows must be there, numbered as they were."""
        places = np.cumsum(np.frombuffer(zlib.decompress(piece.gaps), np.uint32), dtype=np.int64)
        values = np.frombuffer(zlib.decompress(piece.values), np.int64)
        width = BLOCK_DAYS * self._fields
        block = self._block(piece.number, piece.first + int(places[-1]) // width + 1)
        block.reshape(-1)[piece.first * width + places] = values
        self.kept.forget()
