"""Evidence in words: what one detector found, as a sentence in Chinese and in English."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from schemas.alerts import AlertKind, Evidence, Text
from streams.wording import AGAINST_ZH

__all__ = ["evidence_words"]

_LEAST_FACTOR: Final = 1.05
"""Of the labs' severity: less is not worth a word."""
_DAYS_PER_YEAR: Final = 365.25
_LONGEST_YEARS: Final = 1_000_000
_AGAINST_EN: Final = {
    "target": "the target",
    "own-history": "its own history",
    "peers": "other districts",
    "baseline": "its baseline",
    "run-length": "a process in control",
    "ladder": "the accident ladder",
    "independence": "independence",
}
_LADDER: Final = {
    "deaths": ("死亡人数", "Deaths"),
    "seriously-injured": ("重伤人数", "Seriously injured"),
    "loss-cny": ("直接经济损失（元）", "Direct loss in CNY"),
}


def evidence_words(kind: AlertKind, one: Evidence, region: Callable[[str], Text] | None = None) -> Text:
    """The sentence for one piece of evidence of an alert of a kind; ``region`` tells the names of districts.

    Examples
    --------
    >>> surge = Evidence(detector="surge", against="baseline", window_days=7, observed=9.0, expected=1.5, threshold=5.0)
    >>> evidence_words("injury-surge", surge).en
    '9 reports in 7 days where 1.5 were expected (against its baseline); an alarm begins above 5.'
    """
    if one.against == "ladder":
        return _ladder(one)
    if one.rate is not None:
        zh, en = _share(kind, one)
    else:
        zh, en = _count(kind, one)
    more_zh, more_en = _how_sure(one, region or (lambda code: Text(zh=code, en=code)))
    return Text(zh="；".join([zh, *more_zh]) + "。", en="; ".join([en, *more_en]) + ".")


def _ladder(one: Evidence) -> Text:
    name = one.detector.rpartition(":")[2]
    if name == "single-death":
        return Text(zh="一起报告中有人死亡，立即报警。", en="One report tells of a death: it rings at once.")
    zh, en = _LADDER.get(name, (name, name))
    said_zh, said_en = f"{zh}{one.observed:,g}", f"{en} {one.observed:,g}"
    if one.threshold is None:
        return Text(zh=f"{said_zh}。", en=f"{said_en}.")
    least = f"{one.threshold:,g}"
    if one.observed >= one.threshold:
        return Text(
            zh=f"{said_zh}，达到该级事故标准（{least}及以上）。",
            en=f"{said_en}: this rung of the ladder begins at {least}.",
        )
    return Text(
        zh=f"{said_zh}（该级事故标准为{least}及以上）。", en=f"{said_en} (this rung of the ladder begins at {least})."
    )


def _share(kind: AlertKind, one: Evidence) -> tuple[str, str]:
    def said(value: float | None) -> str:
        if value is None:
            return "?"
        return f"{value:.1f}" if kind == "satisfaction" else f"{100 * value:.2f}%"

    tested = one.tested or 0
    between_zh = between_en = ""
    if one.lower is not None and one.upper is not None:
        between_zh = f"（区间{said(one.lower)}至{said(one.upper)}）"
        between_en = f" (interval {said(one.lower)} to {said(one.upper)})"
    aim_zh = f"{AGAINST_ZH[one.against]}为{said(one.reference)}"
    aim_en = f"against {_AGAINST_EN[one.against]}, {said(one.reference)}"
    if kind == "satisfaction":
        zh = f"近{one.window_days}天满意度{said(one.rate)}{between_zh}，{tested:,}人受访，{aim_zh}"
        en = f"satisfaction {said(one.rate)}{between_en} over {one.window_days} days, {tested:,} respondents, {aim_en}"
    elif kind == "quality-loss":
        zh = f"近{one.window_days}天质量损失率{said(one.rate)}{between_zh}，{aim_zh}"
        en = f"quality-loss rate {said(one.rate)}{between_en} over {one.window_days} days, {aim_en}"
    else:
        zh = (
            f"近{one.window_days}天检验{tested:,}件，不合格{one.observed:,g}件，合格率{said(one.rate)}{between_zh}，"
            f"{aim_zh}"
        )
        en = (
            f"{one.observed:,g} of {tested:,} items failed in {one.window_days} days: pass rate "
            f"{said(one.rate)}{between_en} {aim_en}"
        )
    return zh, en[0].upper() + en[1:]


def _count(kind: AlertKind, one: Evidence) -> tuple[str, str]:
    unit_zh, unit_en = ("件不合格", "failed items") if kind in ("pass-rate", "lab-drift") else ("起", "reports")
    expected = "?" if one.expected is None else f"{one.expected:,.3g}"
    zh = f"近{one.window_days}天{one.observed:,g}{unit_zh}，预期{expected}（{AGAINST_ZH[one.against]}）"
    en = (
        f"{one.observed:,g} {unit_en} in {one.window_days} days where {expected} were expected "
        f"(against {_AGAINST_EN[one.against]})"
    )
    if one.threshold is not None and one.against == "baseline":
        zh += f"，超过{one.threshold:,.4g}即报警"
        en += f"; an alarm begins above {one.threshold:,.4g}"
    return zh, en


def _how_sure(one: Evidence, region: Callable[[str], Text]) -> tuple[list[str], list[str]]:
    zh: list[str] = []
    en: list[str] = []
    if one.lab_factor is not None and one.lab_factor >= _LEAST_FACTOR:
        zh.append(f"检验机构偏严的影响（{one.lab_factor:.2g}倍）已扣除")
        en.append(f"that its labs find {one.lab_factor:.2g} times as much is allowed for")
    if one.regions:
        names = [region(code) for code in one.regions]
        zh.append(f"聚集于{'、'.join(name.zh for name in names)}")
        en.append(f"clustered in {', '.join(name.en for name in names)}")
    if one.e_value is not None:
        zh.append(f"e值{one.e_value:,.3g}")
        en.append(f"e-value {one.e_value:,.3g}")
    if one.recurrence_days is not None:
        every = _every(one.recurrence_days)
        zh.append(f"单一监测单元因偶然出现这样的结果，约{every[0]}一次")
        en.append(f"chance alone shows as much in one cell about once in {every[1]}")
    return zh, en


def _every(days: float) -> tuple[str, str]:
    """A recurrence interval in words.

    Examples
    --------
    >>> _every(30.0), _every(36_525.0), _every(1e12)
    (('30天', '30 days'), ('100年', '100 years'), ('百万年以上', 'more than a million years'))
    """
    if days < 2 * _DAYS_PER_YEAR:
        return f"{days:.0f}天", f"{days:.0f} days"
    years = days / _DAYS_PER_YEAR
    if years > _LONGEST_YEARS:
        return "百万年以上", "more than a million years"
    return f"{years:,.3g}年" if years < 1_000 else f"{years:,.0f}年", (
        f"{years:,.3g} years" if years < 1_000 else f"{years:,.0f} years"
    )
