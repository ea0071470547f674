"""Alerts in words: headlines and what to do, in Chinese and English."""

from __future__ import annotations

from typing import Final

from schemas.alerts import Action, AlertKind, Evidence, Signal, Text
from streams.config import GradeRules

__all__ = ["AGAINST_ZH", "COLOURS", "GRADES", "SUBJECTS", "actions", "headline"]

GRADES: Final = ("I", "II", "III", "IV")
COLOURS: Final = ("red", "orange", "yellow", "blue")

_PLAYBOOK: Final[dict[AlertKind, tuple[tuple[str, str], ...]]] = {
    "pass-rate": (
        ("核对检验机构与样品，复检留样", "check the labs and samples, retest the retained ones"),
        (
            "按批次与生产者追溯，必要时封存、下架并启动召回",
            "trace by batch and producer; seal, withdraw and recall where needed",
        ),
    ),
    "injury-surge": (
        ("核实病例与涉事产品，向哨点医院追加询问", "verify the cases and the product with the sentinel sites"),
        (
            "发布消费警示，责令停止销售并启动缺陷调查",
            "issue a consumer warning, stop sales, open a defect investigation",
        ),
    ),
    "complaint-surge": (
        ("归并热线工单，派员现场核查", "merge the hotline cases, inspect on the spot"),
        ("抽检涉事产品，必要时发布消费警示", "sample the product; issue a consumer warning where needed"),
    ),
    "satisfaction": (
        ("约谈服务主体，核对测评样本并提出整改", "call in the provider, check the survey, demand a plan"),
    ),
    "quality-loss": (
        ("核对企业质量损失与产值报表", "check the producers' loss and output returns"),
        (
            "约谈损失率上升的企业，分析返工、报废与索赔",
            "call in the producers whose loss rate rose; analyse rework, scrap and claims",
        ),
    ),
    "new-hazard": (
        (
            "复核病例记录，确认产品与伤害的关联",
            "review the case records, confirm that product and injury belong together",
        ),
        (
            "开展缺陷产品风险评估，必要时发布消费警示",
            "assess the product's risk; issue a consumer warning where needed",
        ),
    ),
    "lab-drift": (
        ("对该机构开展能力验证与留样复检", "send the lab proficiency samples and retest its retained ones"),
        ("复核其近期结论，必要时暂停采信", "review its recent findings; suspend reliance on them where needed"),
    ),
    "silent-source": (
        ("联系报送单位，查明中断或变化原因", "call the source and find out why it stopped or changed"),
        ("督促补报，期间改由其他渠道监测", "have the missing reports sent; watch by other channels meanwhile"),
    ),
    "grave-event": (
        ("立即首报，赶赴现场救援并控制危险源", "report at once, rescue and contain the hazard"),
        ("暂停同类产品、工程或服务并排查", "suspend and inspect like products, works or services"),
    ),
}

_SUBJECT: Final[dict[AlertKind, tuple[str, str]]] = {
    "pass-rate": ("合格率异常", "pass rate"),
    "injury-surge": ("伤害报告激增", "surge of injuries"),
    "complaint-surge": ("投诉激增", "surge of complaints"),
    "satisfaction": ("满意度低于目标", "satisfaction below target"),
    "quality-loss": ("质量损失率上升", "quality-loss rate rising"),
    "new-hazard": ("产品与伤害类型异常关联", "unusual kind of injury"),
    "lab-drift": ("检验机构判定偏移", "lab judges unlike its peers"),
    "silent-source": ("报送中断或异常", "source silent or changed"),
    "grave-event": ("重大单起事件", "grave event"),
}

SUBJECTS: Final = {kind: Text(zh=zh, en=en) for kind, (zh, en) in _SUBJECT.items()}
"""What an alert of each kind is about, in a few words."""

AGAINST_ZH: Final = {
    "target": "目标",
    "own-history": "自身历史",
    "peers": "同类地区",
    "baseline": "历史基线",
    "run-length": "受控过程",
    "ladder": "事故分级",
    "independence": "独立假设",
}


def actions(kind: AlertKind, level: int, rules: GradeRules, severity: int = 0) -> list[Action]:
    """What to do, and by when.

    The playbook's steps, the first by the deadline of the first report, then every further duty to report, each within
    its hours (a day counts as 24, so that no deadline is overstated; its text has it in days).

    Parameters
    ----------
    kind, level
        The alert's.
    rules
        They name the severity rules with the deadlines.
    severity
        The gravest injury behind the alert, 0 (unknown) to 4: some duties hold from a severity on.
    """
    law = rules.load()
    steps = [Action(text=Text(zh=zh, en=en)) for zh, en in _PLAYBOOK[kind]]
    steps[0].deadline_hours = law.hours_to_first_report(kind, level)
    duties = (one for one in law.deadlines_for(kind, level, severity) if one.stage != "first-report")
    return steps + [Action(text=one.text, deadline_hours=one.least_hours) for one in duties]


def headline(signal: Signal, product: Text, region: Text) -> Text:
    """One sentence: what, where, and the strongest evidence."""
    zh, en = _SUBJECT[signal.kind]
    best = min(signal.evidence, key=lambda e: e.p_value if e.p_value is not None else 1.0, default=None)
    said_zh, said_en = _said(signal, best) if best is not None else ("", "")
    if signal.source:
        return Text(zh=f"{signal.source}：{zh}{said_zh}", en=f"{signal.source}: {en}{said_en}")
    if signal.hazard:
        zh, en = f"{zh}（{signal.hazard}）", f"{en} ({signal.hazard})"
    return Text(zh=f"{region.zh}·{product.zh}：{zh}{said_zh}", en=f"{product.en}, {region.en}: {en}{said_en}")


def _said(signal: Signal, best: Evidence) -> tuple[str, str]:
    if signal.kind == "grave-event":
        facts = ", ".join(f"{e.detector.rpartition(':')[2]} {e.observed:g}" for e in signal.evidence)
        return f"（{facts}）", f" ({facts})"
    against = best.against.replace("-", " ")
    if best.rate is not None:
        share, aim = _share(signal.kind, best.rate), _share(signal.kind, best.reference)
        return (
            f"，近{best.window_days}天{share}，{AGAINST_ZH[best.against]}{aim}",
            f" {share} over {best.window_days} days against {aim} ({against})",
        )
    expected = f"{best.expected:.3g}" if best.expected is not None else "?"
    if signal.kind == "new-hazard":
        return (
            f"，{best.observed:g}起，独立预期{expected}起",
            f", {best.observed:g} reports where chance explains {expected}",
        )
    return (
        f"，近{best.window_days}天{best.observed:g}起，预期{expected}起",
        f", {best.observed:g} in {best.window_days} days where {expected} were expected ({against})",
    )


def _share(kind: AlertKind, value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.1f}" if kind == "satisfaction" else f"{100 * value:.2f}%"
