"""Why rows are refused, for people: each stable reason in Chinese and English, with the way to mend it."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["REASONS", "Lang", "said"]

Lang = Literal["zh", "en"]

REASONS: Final[dict[str, tuple[str, str]]] = {
    "missing-field": ("缺少必填字段，请补上", "A required field is missing; fill it in"),
    "unknown-code": ("代码不在目录中，请核对代码", "The code is not in the catalogue; check it"),
    "bad-code": ("代码格式不正确，请核对代码", "The code is not well formed; check it"),
    "bad-check-digit": ("代码的校验位不符，多为抄写错误，请核对", "The check digit is wrong: look for a typing error"),
    "bad-time": ("时间格式不正确，请写成 2026-03-02T09:30:00", "Not a time; write 2026-03-02T09:30:00"),
    "bad-length": ("文字过长或为空", "The text is too long, or empty"),
    "bad-text": ("文字含有控制字符，请删除", "The text has control characters; delete them"),
    "clock-ahead": ("时间晚于现在，请核对日期与时区", "The time lies in the future; check date and UTC offset"),
    "too-late": ("报告时间过早，已超过允许的延迟", "Reported longer ago than is taken"),
    "inconsistent": ("几个字段互相矛盾，请核对", "Fields contradict each other; check them"),
    "out-of-range": ("数值超出允许范围", "The number is out of range"),
    "unknown-value": ("不是允许的取值", "Not one of the values that are taken"),
    "unknown-kind": ("没有这种事件类型", "There is no such kind of event"),
    "wrong-topic": ("事件类型与上传地址不符", "The event is of another kind than this upload"),
    "wrong-type": ("值的类型不对（例如应为数字）", "A value of the wrong type (a number is wanted, say)"),
    "malformed-row": ("此行的列数与表头不符或引号未闭合", "The row does not fit the header, or a quote is open"),
    "malformed-json": ("不是有效的 JSON", "Not valid JSON"),
    "not-utf-8": ("文字编码不对，请选择正确的编码或另存为 UTF-8", "Wrong encoding; choose it, or save as UTF-8"),
    "too-large": ("此行过长", "The row is too long"),
    "empty-record": ("记录为空", "The record is empty"),
    "tombstone": ("记录为空值", "The record is null"),
    "not-allowed": ("该令牌无权提交此记录（机构、地区或来源）", "The token may not submit this lab, region or source"),
    "invalid": ("不符合要求", "Not as required"),
}
"""Every reason that a row can be refused for."""


def said(reason: str, lang: Lang) -> str:
    """The reason in a language; a reason without words stands for itself."""
    zh, en = REASONS.get(reason, (reason, reason))
    return zh if lang == "zh" else en
