"""Times written as RFC 3339 says, read for many places of a buffer at once.

Only the plain ones: ``2026-03-01T08:00:00`` with no fraction, three digits of it or six, then ``Z``, an offset, or
nothing (local time). Whatever else may be a time is left to whoever reads them one by one.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from streams.ticks import MS_PER_DAY
from streams.vocabulary import Buffer

__all__ = ["moments"]

_PAIRS: Final = (0, 2, 5, 8, 11, 14, 17)
"""Where two digits each of year, month, day, hour, minute and second begin."""
_MARKS: Final = tuple((at, ord(mark)) for at, mark in ((4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")))
_NAIVE: Final = 19
_FRACTIONS: Final = (0, 4, 7)
_FIRST_YEAR: Final = 1970
_MONTHS: Final = np.arange("1970-01", "2200-02", dtype="datetime64[M]").astype("datetime64[D]").astype(np.int64)
"""The day with which each month begins, to the first of the year after the last."""
_LONGEST: Final = 32
_HOURS_OFF: Final = 14
_ZERO: Final = ord("0")

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]


def moments(buffer: Buffer, starts: Ints, lengths: Ints, offset_ms: int) -> tuple[Ints, Bools]:
    """Epoch milliseconds, rounded down, of the times at some places, and which of them could be read, ``[starts]``.

    Parameters
    ----------
    offset_ms
        The offset in which a time without one is read.
    """
    found, good = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.bool_)
    for length in np.flatnonzero(np.bincount(np.minimum(lengths, _LONGEST + 1))).tolist():
        form = _form(length)
        if form is None:
            continue
        mine = np.flatnonzero(lengths == length)
        # One column of bytes for each place in the text.
        at = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(buffer.data, length)[starts[mine]].T)
        found[mine], good[mine] = _read(at, *form, offset_ms)
    return found, good


def _form(length: int) -> tuple[int, int] | None:
    """Bytes of the fraction (with its point) and of the offset in a time of so many bytes."""
    for fraction in _FRACTIONS:
        for zone in (0, 1, 6):
            if length == _NAIVE + fraction + zone:
                return fraction, zone
    return None


def _read(at: Bytes, fraction: int, zone: int, offset_ms: int) -> tuple[Ints, Bools]:
    """Of times of one form, ``at`` [bytes, times], with so many bytes of fraction and offset."""
    end = _NAIVE + fraction
    pairs = [*_PAIRS, *((end + 1, end + 4) if zone == 6 else ())]
    marks = [*_MARKS, *([(_NAIVE, ord("."))] if fraction else [])]
    if zone:
        marks.append((end, ord("Z")) if zone == 1 else (end + 3, ord(":")))
    places, wanted = np.array(marks).T
    good = (at[places] == wanted[:, None]).all(axis=0)
    digits = at - _ZERO  # unsigned: what is less than "0" is far more than 9
    rest = [*range(_NAIVE + 1, end)]
    good &= (digits[[*pairs, *(place + 1 for place in pairs), *rest]] <= 9).all(axis=0)
    tens, units = digits[pairs].astype(np.int64), digits[[place + 1 for place in pairs]]
    century, year, month, day, hour, minute, second, *ahead = tens * 10 + units
    good &= (hour < 24) & (minute < 60) & (second < 60)
    days, known = _days(century * 100 + year, month, day)
    ms = ((hour * 60 + minute) * 60 + second) * 1_000
    for place, weight in zip(rest, (100, 10, 1), strict=False):  # of six digits three are cut off
        ms += digits[place] * np.int64(weight)
    if zone == 6:
        sign = at[end]
        good &= ((sign == ord("+")) | (sign == ord("-"))) & (ahead[0] <= _HOURS_OFF) & (ahead[1] < 60)
        ms -= np.where(sign == ord("-"), -60_000, 60_000) * (ahead[0] * 60 + ahead[1])
    elif not zone:
        ms -= offset_ms
    return days * MS_PER_DAY + ms, good & known


def _days(year: Ints, month: Ints, day: Ints) -> tuple[Ints, Bools]:
    """Days since 1970-01-01 of the dates, and which of them there are."""
    at = (year - _FIRST_YEAR) * 12 + month - 1
    good = (month >= 1) & (month <= 12) & (at >= 0) & (at < len(_MONTHS) - 1)
    at = np.where(good, at, 0)
    begin = _MONTHS[at]
    good &= (day >= 1) & (day <= _MONTHS[at + 1] - begin)
    return begin + day - 1, good
