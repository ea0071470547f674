"""Orders of whole numbers, digit by digit: NumPy sorts numbers of 16 bits by their digits, larger ones by comparing.

A digit of 16 bits costs some 5 ns a number, a comparing sort of a tick's numbers 40 to 60 ns.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["order_by_hash", "order_of", "starts_of"]

_DIGIT: Final = 16
_LONGEST: Final = 48
"""Beyond so many bits comparing is as fast."""
_FEW: Final = 1_000
"""So is it for fewer numbers."""
_UNLIKELY: Final = 2**15
"""Of fewer hashes hardly two have the same 32 bits, of more the same 48."""


def order_of(keys: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The stable order of integers that are not negative, ``[n]``."""
    bits = int(keys.max(initial=0)).bit_length()
    if len(keys) < _FEW or bits > _LONGEST:
        return np.argsort(keys, kind="stable")
    return _by_digits(keys, 0, bits)


def order_by_hash(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """The stable order of hashes, ``[n]``, mostly by their upper bits alone: those tell nearly all apart."""
    if len(keys) >= _FEW:
        order = _by_digits(keys, 32 if len(keys) < _UNLIKELY else 16, 64)
        ordered = keys.take(order)
        if not (ordered[1:] < ordered[:-1]).any():
            return order
    return np.argsort(keys, kind="stable")


def starts_of(keys: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Where each of the distinct values of sorted keys begins."""
    fresh = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    return np.flatnonzero(fresh)


def _by_digits(keys: npt.NDArray[Any], low: int, high: int) -> npt.NDArray[np.intp]:
    """The stable order by the bits from ``low`` to ``high``."""
    order = np.argsort((keys >> low).astype(np.uint16), kind="stable")
    for shift in range(low + _DIGIT, high, _DIGIT):
        digit = (keys >> shift).astype(np.uint16)
        order = order.take(np.argsort(digit.take(order), kind="stable"))
    return order
