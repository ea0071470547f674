"""Codes against published examples, and every single wrong character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codes import (
    USCC_ALPHABET,
    check_gtin,
    check_region_shape,
    check_uscc,
    gtin_with_check,
    uscc_with_check,
)
from schemas.errors import Rejection

# The example usually quoted for GB 32100-2015, and codes of well-known companies, all quoted from memory:
# six independent codes would all pass a wrong algorithm by chance once in 31**6.
REAL_USCC = [
    "91350100M000100Y43",
    "914403001922038216",
    "9144030071526726XG",
    "91330100799655058B",
    "91110000802100433B",
    "91110108551385082Q",
]
# Widely printed examples of GTIN-8, -12, -13 and -14.
REAL_GTIN = ["96385074", "036000291452", "6901234567892", "4006381333931", "10614141000415"]

bodies = st.from_regex(rf"[{USCC_ALPHABET}]{{2}}[0-9]{{6}}[{USCC_ALPHABET}]{{9}}", fullmatch=True)


@pytest.mark.parametrize("code", REAL_USCC)
def test_registered_companies_pass(code: str) -> None:
    check_uscc(code)
    assert uscc_with_check(code[:17]) == code


@pytest.mark.parametrize("code", REAL_GTIN)
def test_known_gtins_pass(code: str) -> None:
    check_gtin(code)
    assert gtin_with_check(code[:-1]) == code


@given(bodies, st.integers(0, 17), st.sampled_from(USCC_ALPHABET))
def test_one_wrong_character_of_a_uscc_is_found(body: str, place: int, wrong: str) -> None:
    code = uscc_with_check(body)
    if code[place] == wrong:
        check_uscc(code)
        return
    with pytest.raises(Rejection):
        check_uscc(code[:place] + wrong + code[place + 1 :])


@given(st.sampled_from([7, 11, 12, 13]), st.data())
def test_one_wrong_digit_of_a_gtin_is_found(length: int, data: st.DataObject) -> None:
    code = gtin_with_check(data.draw(st.text("0123456789", min_size=length, max_size=length)))
    check_gtin(code)
    place = data.draw(st.integers(0, length))
    wrong = str((int(code[place]) + data.draw(st.integers(1, 9))) % 10)
    with pytest.raises(Rejection) as refusal:
        check_gtin(code[:place] + wrong + code[place + 1 :])
    assert refusal.value.reason == "bad-check-digit"


@pytest.mark.parametrize(
    "code",
    [
        "",
        "91350100M000100Y4",
        "91350100M000100Y430",
        "9135010OM000100Y43",
        "91350100m000100Y43",
        "９1350100M000100Y43",
    ],
)
def test_a_misshapen_uscc_is_a_bad_code(code: str) -> None:
    with pytest.raises(Rejection) as refusal:
        check_uscc(code)
    assert (refusal.value.reason, refusal.value.field) == ("bad-code", "producer")


@pytest.mark.parametrize("code", ["", "123456789", "69012345678X2", "٦٩٠١٢٣٤٥٦٧٨٩٢", "6901234567892\n"])
def test_a_misshapen_gtin_is_a_bad_code(code: str) -> None:
    with pytest.raises(Rejection) as refusal:
        check_gtin(code)
    assert (refusal.value.reason, refusal.value.field) == ("bad-code", "gtin")


@pytest.mark.parametrize("code", ["12010", "1201011", "012010", "12010a", "120101\n", ""])
def test_a_misshapen_region_is_a_bad_code(code: str) -> None:
    with pytest.raises(Rejection) as refusal:
        check_region_shape(code)
    assert (refusal.value.reason, refusal.value.field) == ("bad-code", "region")


def test_a_rejection_names_the_expected_check_character() -> None:
    with pytest.raises(Rejection, match="is 4, 3 would fit") as refusal:
        check_uscc("91350100M000100Y44")
    assert refusal.value.reason == "bad-check-digit"


@pytest.mark.parametrize("body", ["", "91350100M000100Y", "9135010XM000100Y4", "91350100M000100I4"])
def test_a_bad_body_has_no_check_character(body: str) -> None:
    with pytest.raises(ValueError, match="17 characters"):
        uscc_with_check(body)
    with pytest.raises(ValueError, match="leading digits"):
        gtin_with_check(body)
