"""Check characters and shapes of the codes that events carry.

- USCC, the unified social credit code of a producer: GB 32100-2015, 18 characters, check character modulo 31;
- GTIN, the number under a barcode: GS1 General Specifications, 8, 12, 13 or 14 digits, check digit modulo 10;
- region, the administrative division: GB/T 2260, six digits. Which of them exist is the catalogue's affair.

Each ``check_`` function returns None for a good code and raises :class:`schemas.errors.Rejection` otherwise,
with reason ``"bad-code"`` for a wrong shape and ``"bad-check-digit"`` for a right shape whose check fails.
"""

from __future__ import annotations

import re

from schemas.errors import Rejection

__all__ = [
    "USCC_ALPHABET",
    "check_gtin",
    "check_region_shape",
    "check_uscc",
    "gtin_with_check",
    "uscc_with_check",
]

USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
"""The 31 characters of a USCC: digits and capitals without I, O, S, V and Z, which are misread too easily."""

_USCC_VALUES = {character: value for value, character in enumerate(USCC_ALPHABET)}
_USCC_WEIGHTS = tuple(pow(3, place, 31) for place in range(17))
# One character each for the registering authority and the kind of body, six digits for the region of
# registration, nine for the body itself, one check character.
_USCC = re.compile(rf"[{USCC_ALPHABET}]{{2}}[0-9]{{6}}[{USCC_ALPHABET}]{{10}}")
_GTIN = re.compile(r"[0-9]{8}|[0-9]{12,14}")
_REGION = re.compile(r"[1-9][0-9]{5}")


def _uscc_check_character(body: str) -> str:
    total = sum(_USCC_VALUES[character] * weight for character, weight in zip(body, _USCC_WEIGHTS, strict=True))
    return USCC_ALPHABET[-total % 31]


def _gtin_check_digit(body: str) -> str:
    # The digit beside the check digit weighs 3, whatever the length: count from the right.
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(body)))
    return str(-total % 10)


def check_uscc(code: str, field: str = "producer") -> None:
    """Check a unified social credit code (GB 32100-2015).

    Raises
    ------
    Rejection
        ``"bad-code"`` for a wrong length or alphabet, ``"bad-check-digit"`` for a wrong eighteenth character.

    Examples
    --------
    >>> check_uscc("91350100M000100Y43")
    """
    if _USCC.fullmatch(code) is None:
        raise Rejection(
            "bad-code",
            field,
            f"{code!r} is no unified social credit code: give 18 digits and capitals, without I O S V Z",
        )
    expected = _uscc_check_character(code[:17])
    if code[17] != expected:
        raise Rejection(
            "bad-check-digit",
            field,
            f"the check character of {code!r} is {code[17]}, {expected} would fit: look for a typing error",
        )


def check_gtin(code: str, field: str = "gtin") -> None:
    """Check a GTIN-8, GTIN-12 (UPC), GTIN-13 (EAN) or GTIN-14.

    Raises
    ------
    Rejection
        ``"bad-code"`` for anything but 8, 12, 13 or 14 digits, ``"bad-check-digit"`` for a wrong last digit.

    Examples
    --------
    >>> check_gtin("6901234567892")
    """
    if _GTIN.fullmatch(code) is None:
        raise Rejection("bad-code", field, f"{code!r} is no GTIN: give 8, 12, 13 or 14 digits")
    expected = _gtin_check_digit(code[:-1])
    if code[-1] != expected:
        raise Rejection(
            "bad-check-digit",
            field,
            f"the check digit of {code!r} is {code[-1]}, {expected} would fit: look for a typing error",
        )


def check_region_shape(code: str, field: str = "region") -> None:
    """Check that a region code has the shape of GB/T 2260: six digits, the first not 0.

    Raises
    ------
    Rejection
        ``"bad-code"``.

    Examples
    --------
    >>> check_region_shape("120116")
    """
    if _REGION.fullmatch(code) is None:
        raise Rejection("bad-code", field, f"{code!r} is no region code: GB/T 2260 has six digits, such as 120101")


def uscc_with_check(body17: str) -> str:
    """The 18 characters of a USCC from its first 17.

    Raises
    ------
    ValueError
        When the body has not 17 characters of the alphabet, or a letter in places 3 to 8.

    Examples
    --------
    >>> uscc_with_check("91350100M000100Y4")
    '91350100M000100Y43'
    """
    if _USCC.fullmatch(body17 + "0") is None:
        raise ValueError(f"{body17!r} is not the first 17 characters of a unified social credit code")
    return body17 + _uscc_check_character(body17)


def gtin_with_check(body: str) -> str:
    """A GTIN from its 7, 11, 12 or 13 leading digits.

    Raises
    ------
    ValueError
        When the body is not so many digits.

    Examples
    --------
    >>> gtin_with_check("690123456789")
    '6901234567892'
    """
    if _GTIN.fullmatch(body + "0") is None:
        raise ValueError(f"{body!r} is not the 7, 11, 12 or 13 leading digits of a GTIN")
    return body + _gtin_check_digit(body)
