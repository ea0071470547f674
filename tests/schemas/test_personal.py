"""Which fields are there for a person's data, and which numbers name a person."""

from __future__ import annotations

import msgspec
import pytest

from schemas.events import EVENT_TYPES
from schemas.personal import FREE_TEXT, PERSONAL_KINDS, has_personal_number, is_personal_key


@pytest.mark.parametrize(
    "key",
    [
        "name", "Name", "NAME", "patient_name", "patientName", "Patient-Name", "PATIENT NAME", "patient.name",
        "ｐａｔｉｅｎｔ＿ｎａｍｅ", "id_number", "idCard", "phone", "contact_phone", "reporter_mobile", "home_address",
        "date_of_birth", "dob", "email", "wechat_id", "guardian", "姓名", "患者姓名", "患者 姓名", "身份证号", "手机号",
        "投诉人电话", "联系人", "家庭住址", "出生日期", "xingming", "Xing_Ming", "shenfenzhenghao", "sfzh",
        "lian-xi-dian-hua",
    ],
)  # fmt: skip
def test_a_field_for_a_persons_data_is_known_however_it_is_written(key: str) -> None:
    assert is_personal_key(key)


@pytest.mark.parametrize(
    "key",
    [
        "", "_", "lab_name", "site_name", "product_name", "hospital_address", "shop_phone", "企业名称", "产品名称",
        "biaoti", "nickname_of_batch", "filename", "names", "note", "x" * 65, "name" + "_" * 100,
    ],
)  # fmt: skip
def test_what_is_an_organisations_or_a_products_is_no_persons(key: str) -> None:
    assert not is_personal_key(key)


def test_no_field_of_any_event_is_one_for_personal_data() -> None:
    for struct in EVENT_TYPES.values():
        assert not [name for name in struct.__struct_fields__ if is_personal_key(name)]
    for kind in PERSONAL_KINDS:
        types = {field.name: field.type for field in msgspec.structs.fields(EVENT_TYPES[kind])}
        assert set(FREE_TEXT[kind]) <= set(types)


@pytest.mark.parametrize(
    "text",
    [
        "11010519491231002X",  # the example of GB 11643-1999
        "440524188001010014",  # its other one
        "ID 11010519491231002x.", "call 13800138000", "138 0013 8000", "138-0013-8000", "+8613800138000",
        "电话13800138000",
        "１３８００１３８０００", "(+86 138 0013 8000)",
    ],
)  # fmt: skip
def test_identity_and_mobile_numbers_are_seen(text: str) -> None:
    assert has_personal_number(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "fracture", "110105194912310021", "11010519491331002X", "11010519490230002X", "6901234567892", "12345",
        "91350100M000100Y43", "113800138000", "1380013800", "138001380001", "2024-01-01T00:00:00", "12800138000",
    ],
)  # fmt: skip
def test_other_numbers_are_not(text: str) -> None:
    assert not has_personal_number(text)
