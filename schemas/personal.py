"""What may never come with an injury report or a complaint: fields for personal data, and numbers that name a person.

Tocsin counts injuries and complaints; it needs no names to do so. Fields for them are refused by their *key*, whatever
their value, so that a sender notices with the first record. Keys are compared without regard to case, separators and
width: ``patient_name``, ``PatientName``, ``Patient-Name`` and ``PATIENT NAME`` are the same; English, Chinese
characters and pinyin are known. What belongs to an organisation (``lab_name``, ``site_address``, ``shop_phone``) is no
person's and stays an unknown field like any other.

In free text two kinds of numbers are recognised: identity numbers (GB 11643: a date of birth and a check character)
and mobile numbers of mainland China. Names in free text cannot be told from other words; nobody should rely on that.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import date
from functools import lru_cache
from itertools import product
from typing import Final

from schemas.events import Kind

__all__ = ["FREE_TEXT", "PERSONAL_KINDS", "has_personal_number", "is_personal_key"]

FREE_TEXT: Final[dict[Kind, tuple[str, ...]]] = {"injury": ("injury", "body_part"), "complaint": ("category",)}
"""The kinds of events that are about persons, and the fields of each in which people write what they like."""
PERSONAL_KINDS: Final = frozenset(FREE_TEXT)

_LONGEST_KEY: Final = 64
_PERSONS: Final = (
    "patient", "victim", "complainant", "guardian", "caller", "person", "injured", "injuredperson", "contact", "parent",
    "mother", "father", "child", "consumer", "customer", "informant", "reporter", "user", "client",
)  # fmt: skip
_PARTICULARS: Final = (
    "name", "fullname", "realname", "firstname", "middlename", "lastname", "surname", "givenname", "familyname",
    "idnumber", "idno", "idcard", "idcardno", "idcardnumber", "identity", "identitynumber", "nationalid",
    "certificatenumber", "passport", "passportno", "passportnumber", "ssn", "phone", "phoneno", "phonenumber",
    "telephone", "tel", "telno", "mobile", "mobileno", "mobilephone", "mobilenumber", "cellphone", "email", "mail",
    "emailaddress", "wechat", "wechatid", "qq", "openid", "address", "homeaddress", "residence", "birthday",
    "birthdate", "dateofbirth", "dob", "photo", "portrait", "bankcard", "bankaccount", "username",
)  # fmt: skip
_ALONE: Final = (
    "patient", "victim", "complainant", "guardian", "caller", "injuredperson", "contact", "contactperson", "nextofkin",
    "licenseplate", "plateno", "platenumber", "medicalrecordnumber", "medicalrecordno", "mrn", "inpatientno",
    "insuranceno", "insurancenumber", "socialsecuritynumber", "patientid", "patientno", "citizenid",
)  # fmt: skip
_PERSONS_ZH: Final = (
    "", "患者", "病人", "伤者", "受害人", "受害者", "死者", "投诉人", "投诉者", "举报人", "报告人", "联系人", "消费者",
    "监护人", "家属", "家长", "本人", "当事人", "用户", "客户",
)  # fmt: skip
_PARTICULARS_ZH: Final = (
    "姓名", "名字", "姓氏", "身份证", "身份证号", "身份证号码", "证件号", "证件号码", "公民身份号码", "护照", "护照号",
    "护照号码", "手机", "手机号", "手机号码", "电话", "电话号码", "联系电话", "联系方式", "邮箱", "电子邮箱",
    "电子邮件", "微信", "微信号", "qq号", "地址", "住址", "家庭住址", "家庭地址", "现住址", "联系地址", "通讯地址",
    "户籍地址", "出生日期", "出生年月", "生日", "照片", "银行卡", "银行卡号", "车牌", "车牌号", "病历号", "住院号",
    "门诊号", "就诊卡号", "医保号", "医保卡号", "社保号", "社保卡号",
)  # fmt: skip
_PINYIN: Final = (
    "xingming", "mingzi", "huanzhe", "huanzhexingming", "bingren", "bingrenxingming", "tousuren", "tousurenxingming",
    "jubaoren", "lianxiren", "jianhuren", "shenfenzheng", "shenfenzhenghao", "shenfenzhenghaoma", "sfzh", "sfz",
    "zhengjianhao", "zhengjianhaoma", "huzhao", "huzhaohao", "shouji", "shoujihao", "shoujihaoma", "sjh", "dianhua",
    "dianhuahaoma", "lianxidianhua", "lxdh", "lianxifangshi", "youxiang", "weixin", "weixinhao", "dizhi", "zhuzhi",
    "jiatingzhuzhi", "jiatingdizhi", "lianxidizhi", "chushengriqi", "csrq", "shengri", "zhaopian", "yinhangka",
    "chepai", "chepaihao", "binglihao", "zhuyuanhao", "yibaokahao", "shebaokahao",
)  # fmt: skip
_KEYS: Final = frozenset((
    *_ALONE, *_PARTICULARS, *_PINYIN, *(name for name in _PERSONS_ZH if name),
    *map("".join, product(_PERSONS, _PARTICULARS)), *map("".join, product(_PERSONS_ZH, _PARTICULARS_ZH)),
))  # fmt: skip

# Six digits of the place of registration, the date of birth, three of a serial number, a check character.
_IDENTITY: Final = re.compile(r"(?<![0-9])[1-9][0-9]{5}((?:18|19|20)[0-9]{2})([0-9]{2})([0-9]{2})[0-9]{3}[0-9Xx](?!\w)")
_IDENTITY_WEIGHTS: Final = tuple(pow(2, 17 - place, 11) for place in range(17))
_MOBILE: Final = re.compile(r"(?<![0-9])(?:(?:\+|00)?86[- ]?)?1[3-9][0-9][- ]?[0-9]{4}[- ]?[0-9]{4}(?![0-9])")


def is_personal_key(key: str) -> bool:
    """Whether a field of this name is there to hold a person's data.

    Examples
    --------
    >>> is_personal_key("Patient-Name"), is_personal_key("患者姓名"), is_personal_key("lab_name")
    (True, True, False)
    """
    # Longer ones are no such key, and must not fill the cache.
    return len(key) <= _LONGEST_KEY and _is_personal(key)


@lru_cache(maxsize=4_096)
def _is_personal(key: str) -> bool:
    folded = unicodedata.normalize("NFKC", key).casefold()
    return "".join(character for character in folded if character.isalnum()) in _KEYS


def has_personal_number(text: str) -> bool:
    """Whether a text holds an identity number (GB 11643) or a mobile number of mainland China.

    Examples
    --------
    >>> has_personal_number("call 138-0013-8000"), has_personal_number("11010519491231002X")
    (True, True)
    >>> has_personal_number("GTIN 6901234567892")
    False
    """
    plain = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _MOBILE.search(plain) is not None or any(_is_identity(found) for found in _IDENTITY.finditer(plain))


def _is_identity(found: re.Match[str]) -> bool:
    try:
        date(*(int(part) for part in found.groups()))
    except ValueError:
        return False
    number = found.group().upper()
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], _IDENTITY_WEIGHTS, strict=True))
    return "10X98765432"[total % 11] == number[17]
