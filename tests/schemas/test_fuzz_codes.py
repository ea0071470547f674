"""Codes of any text: refused with a reason, or right by a rule that does not share the code under test."""

from __future__ import annotations

import pytest
from fuzz.targets import CodesTarget
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codes import check_gtin, check_region_shape, check_uscc, gtin_with_check, uscc_with_check
from schemas.errors import Rejection

BODY = st.text("0123456789ABCDEFGHJKLMNPQRTUWXY", min_size=9, max_size=9)
TEXT = st.text(max_size=24) | st.text("0123456789ABCXYZ０１٣ ", max_size=20)


@given(TEXT, st.sampled_from([check_uscc, check_gtin, check_region_shape]))
@settings(max_examples=300, deadline=None)
def test_any_text_is_refused_with_a_reason_or_right(text: str, check: object) -> None:
    assert CodesTarget._judged(check, text) in ("accepted", "bad-code", "bad-check-digit")  # type: ignore[arg-type]


@given(BODY, st.integers(0, 999_999), st.integers(0, 17), st.sampled_from("0123456789ABCDEFGHJKLMNPQRTUWXY"))
@settings(max_examples=200, deadline=None)
def test_a_uscc_with_one_other_character_is_refused(body: str, region: int, at: int, other: str) -> None:
    good = uscc_with_check(f"91{region:06}{body}")
    check_uscc(good)
    changed = good[:at] + other + good[at + 1 :]
    if changed != good:
        with pytest.raises(Rejection):
            check_uscc(changed)


@given(st.sampled_from([7, 11, 12, 13]), st.integers(0, 10**13 - 1), st.integers(0, 13), st.sampled_from("0123456789"))
@settings(max_examples=200, deadline=None)
def test_a_gtin_with_one_other_digit_is_refused(length: int, number: int, at: int, other: str) -> None:
    good = gtin_with_check(f"{number:013}"[-length:])
    check_gtin(good)
    changed = good[: at % len(good)] + other + good[at % len(good) + 1 :]
    if changed != good:
        with pytest.raises(Rejection):
            check_gtin(changed)
