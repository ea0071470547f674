"""What the report says, in Chinese and in English."""

from __future__ import annotations

from typing import Any, Final, Literal

from schemas.alerts import Text
from streams.wording import SUBJECTS

__all__ = ["WORDS", "Language", "Words"]

Language = Literal["zh", "en"]

WORDS: Final[dict[str, tuple[str, str]]] = {
    "title": ("质量安全风险报告", "Quality and safety risk report"),
    "period": ("报告期：{first} 至 {last}", "Period: {first} to {last}"),
    "unfinished": (
        "报告期尚未结束：截至 {last}；对比期取同样天数。",
        "The period has not ended: figures through {last}, compared with as many days.",
    ),
    "as-of": ("数据截至 {moment}", "What was known at {moment}"),
    "contents": ("目录", "Contents"),
    # Sections
    "summary": ("概要", "Summary"),
    "status": ("质量状况", "Quality status"),
    "matrix": ("地区与产品", "Districts and products"),
    "alerts": ("预警与处置", "Alerts and their disposal"),
    "charts": ("控制图", "Control charts"),
    "sources": ("数据质量", "Data quality"),
    "notes": ("说明", "How to read this"),
    # Indicators
    "pass": ("合格率", "Pass rate"),
    "satisfaction": ("满意度指数", "Satisfaction index"),
    "loss": ("质量损失率", "Quality-loss rate"),
    "injury": ("伤害报告", "Injuries"),
    "complaint": ("投诉举报", "Complaints"),
    "accident": ("质量事故", "Accidents"),
    # Figures
    "target": ("目标", "Target"),
    "value": ("本期", "Now"),
    "before": ("较上期", "vs before"),
    "year-before": ("较上年", "vs last year"),
    "was-before": ("上期", "Before"),
    "was-year-before": ("上年同期", "Last year"),
    "interval": ("95%区间", "95% interval"),
    "met": ("达标", "met"),
    "short": ("未达标，属偶然波动范围", "missed, within chance"),
    "below": ("未达标", "missed"),
    "none": ("无目标", "no target"),
    "no-data": ("无数据", "no data"),
    "falls": ("低于上年（{value}）", "below last year's {value}"),
    "points-change": ("{change}个百分点", "{change} pp"),
    "of-tested": ("检验 {n} 件，不合格 {x} 件", "{n} tested, {x} failed"),
    "of-asked": ("{n} 份答卷", "{n} answers"),
    "of-output": ("产值 {n} 元，损失 {x} 元", "loss of CNY {x} on CNY {n}"),
    "region": ("地区", "Region"),
    "product": ("产品", "Product"),
    "city": ("全市合计", "Whole city"),
    "everywhere": ("全部地区", "All regions"),
    "other": ("其他（超出编码上限）", "Other (codes beyond the bound)"),
    "rates-by-region": ("三项指标，按地区", "Three indicators, by district"),
    "changes": (
        "变化以百分点计，满意度以分计；样本量与95%区间见各数值的提示。",
        "Changes are in percentage points, of the index in points. The tip of a value tells its size and interval.",
    ),
    "counts-by-region": ("报告件数，按地区", "Reports, by district"),
    "worst": ("最差", "Worst"),
    "best": ("最好", "Best"),
    "worst-best": ("{indicator}：最差与最好的单元", "{indicator}: worst and best cells"),
    "of-cells": (
        "产品类别×区，共 {cells} 个单元样本量足够；按区间端点排序。",
        "Product group × district; {cells} cells are large enough. In the order of the interval's nearer end.",
    ),
    "no-cells": ("没有样本量足够的单元。", "No cell is large enough."),
    "cell": ("单元", "Cell"),
    "size": ("样本", "Size"),
    # Matrix
    "matrix-rate": (
        "合格率（%）。红：低于目标且非偶然；黄：低于目标但属偶然波动；绿：达标；灰：无目标。罗马数字：报告期内该单元（含其下）的最高预警级别。",
        "Pass rate in %. Red: under target, not by chance; yellow: under target, within chance; green: met; grey: no "
        "target. Roman numerals: the gravest alert in the period on the cell or below it.",
    ),
    "matrix-count": (
        "{indicator}件数。罗马数字：报告期内该单元（含其下）的最高预警级别。",
        "{indicator}: reports. Roman numerals: the gravest alert in the period on the cell or below it.",
    ),
    "matrix-left": (
        "另有 {regions} 个地区、{products} 个产品大类未列出。",
        "{regions} districts and {products} branches more are not shown.",
    ),
    # Alerts
    "grade": ("级别", "Grade"),
    "alert": ("预警", "Alert"),
    "opened": ("发布", "Opened"),
    "raised": ("升级", "Raised"),
    "lowered": ("降级", "Lowered"),
    "acknowledged": ("已受理", "Acknowledged"),
    "resolved": ("解除", "Resolved"),
    "standing": ("状态", "Status"),
    "open": ("未解除", "open"),
    "acknowledge": ("受理", "Acknowledged"),
    "assess": ("评估", "Assessed"),
    "dispose": ("处置", "Disposed"),
    "close": ("关闭", "Closed"),
    "duties": ("办理时限", "Duties"),
    "duty-overdue": ("{count} 项超期", "{count} overdue"),
    "duty-late": ("{count} 项迟办", "{count} late"),
    "duty-fine": ("无超期", "none overdue"),
    "no-alerts": ("报告期内没有预警。", "No alert stood in the period."),
    "alerts-left": (
        "另有 {count} 条较轻的预警未列出（--alerts 可调）。",
        "{count} milder alerts more are not listed (--alerts).",
    ),
    "charts-left": (
        "另有 {count} 条预警未作图（--charts 可调）：{why}。",
        "{count} alerts more have no chart here (--charts): {why}.",
    ),
    "charts-why": ("先列级别高、时间近的", "the gravest and newest stand first"),
    "timeline": ("时间线：颜色为级别", "Timeline; the colour is the grade"),
    "graves": ("重大单起事件（无时间序列）", "Single grave events (they have no series)"),
    "evidence": ("依据", "Evidence"),
    "no-series": ("现有记录中没有该单元的数据。", "The record holds nothing of this cell."),
    "legend-observed": ("实测", "observed"),
    "legend-expected": ("预期（参照）", "expected (reference)"),
    "legend-threshold": ("报警阈值", "threshold"),
    "legend-interval": ("95%区间", "95% interval"),
    "legend-mark": ("发布、升级、降级、解除", "opened, raised, lowered, resolved"),
    "legend-said": ("预警当时所述", "as the alert said"),
    "legend-out": ("越过阈值", "beyond the threshold"),
    "no-threshold": ("此类预警的阈值不以此量表示。", "The detector's threshold is not in these terms."),
    "chart-rate": ("{days}天滚动合格率，参照：{against}", "Pass rate over {days} days, against: {against}"),
    "chart-index": ("{days}天满意度指数，参照：{against}", "Satisfaction over {days} days, against: {against}"),
    "chart-count": ("每周件数，参照：{against}", "Reports a week, against: {against}"),
    "chart-drift": (
        "EWMA（每期4周，标准差），参照：{against}",
        "EWMA over periods of four weeks, in standard deviations, against: {against}",
    ),
    "chart-slide": (
        "LR-CUSUM（{days}天内逐周，对数似然比），参照：{against}",
        "LR-CUSUM by week over {days} days (log-likelihood ratio), against: {against}",
    ),
    "observed": ("实测", "Observed"),
    "expected": ("预期", "Expected"),
    "against": ("参照", "Against"),
    "window": ("窗口", "Window"),
    "days": ("{count} 天", "{count} days"),
    "p-value": ("p值（e值）", "p (or e)"),
    "detector": ("方法", "Method"),
    "contributors": ("主要涉及", "Contributors"),
    "lab": ("机构", "lab"),
    "producer": ("生产者", "producer"),
    "batch": ("批次", "batch"),
    "gtin": ("GTIN", "GTIN"),
    "history": ("经过", "History"),
    "target-ref": ("目标", "target"),
    "own-history-ref": ("自身历史", "own history"),
    "peers-ref": ("同类地区", "peers"),
    "baseline-ref": ("历史基线", "baseline"),
    "run-length-ref": ("受控过程", "in-control process"),
    "ladder-ref": ("事故分级", "accident ladder"),
    "independence-ref": ("独立假设", "independence"),
    # Data quality
    "by-kind": ("按数据类别", "By kind"),
    "topic": ("类别", "Kind"),
    "arrived": ("到达", "Arrived"),
    "counted": ("计入", "Counted"),
    "refused": ("拒收", "Refused"),
    "corrections": ("更正", "Corrections"),
    "withdrawn": ("撤回", "Withdrawn"),
    "delay": ("时滞（天）：中位｜九成以内", "Delay in days: median | nine of ten"),
    "by-source": ("按报送单位", "By source"),
    "source": ("单位", "Source"),
    "sends": ("报送", "Sends"),
    "tested": ("检验", "Tested"),
    "failed": ("不合格率", "Failed"),
    "last-report": ("最近一次报告", "Last report"),
    "quiet-for": ("{days} 天未报", "quiet for {days} days"),
    "sources-left": (
        "另有 {count} 个报送较少的单位未列出（--sources 可调）。",
        "{count} sources that sent less are not listed (--sources).",
    ),
    "why-refused": ("拒收原因", "Why refused"),
    "reason": ("原因", "Reason"),
    "field": ("字段", "Field"),
    "count": ("次数", "Times"),
    "reasons-left": ("另有 {count} 种原因未列出。", "{count} reasons more are not listed."),
    "nothing-refused": ("没有拒收的记录。", "Nothing was refused."),
    "source-alerts": ("中断、异常与判定偏移", "Silences, changes and labs that drift"),
    "no-source-alerts": ("报告期内没有此类预警。", "No such alert stood in the period."),
    "nothing-arrived": ("报告期内没有数据到达。", "Nothing arrived in the period."),
    "inspections": ("检验", "inspections"),
    "injuries": ("伤害", "injuries"),
    "complaints": ("投诉", "complaints"),
    "accidents": ("事故", "accidents"),
    "surveys": ("测评", "surveys"),
    "losses": ("损失", "losses"),
    # Summary
    "events": ("计入事件", "Events counted"),
    "alerts-opened": ("发布预警", "Alerts opened"),
    "alerts-open": ("期末未解除", "Open at the end"),
    "overdue": ("办理超期", "Duties overdue"),
    "refused-records": ("拒收记录", "Records refused"),
    "no-rate": ("报告期内无数据", "no data in the period"),
    # Provenance and notes
    "from": (
        "配置 {config}，产品与地区目录 {catalogue}，Tocsin {version}。同样的记录得出同样的报告。",
        "Configuration {config}, catalogue {catalogue}, Tocsin {version}. The same record gives the same report.",
    ),
    "other-config": (
        "部分预警在另一配置（{configs}）下产生：其控制图的阈值可能与当时不同。",
        "Some alerts were made under another configuration ({configs}): thresholds in their charts may differ.",
    ),
    "note-counting": (
        "每个事件只计一次，以最高修订号为准；撤回的不计。数据包括报告期之后到达的补报和更正；预警与处置只到报告期末。",
        "Each event counts once, by its highest revision; withdrawn ones do not. Figures take in what was reported or "
        "corrected after the period; alerts and their disposal end with it.",
    ),
    "note-target": (
        "目标针对产品，地区的目标按其检验（答卷）构成加权；没有目标的产品不参与与目标的比较。"
        "仅适用于某一环节（如出口、验收）的目标不在此比较。质量损失率的目标是低于上年。",
        "Targets are asked of products. A region's target is that of its own mix of items tested or answers given; "
        "what has no target is left out of that comparison. Targets of one stage alone (export, acceptance) are not "
        "compared here. The loss rate is to lie below the year before.",
    ),
    "note-interval": (
        "合格率为Jeffreys 95%区间，满意度为正态95%区间。“属偶然波动范围”指区间仍包含目标。",
        "Intervals are 95%: Jeffreys for pass rates, normal for satisfaction. Missed within chance: the interval still "
        "holds the target.",
    ),
    "note-charts": (
        "控制图按检测方法自身的窗口、参照与阈值，用现在所知的记录逐周重算；"
        "菱形为预警发布时所述的数值，二者之差即为此后的补报与更正。",
        "Charts are computed again week by week, by the detector's own windows, references and levels, from what is "
        "known now. The diamond is what the alert said when it was made: what differs was reported or corrected since.",
    ),
    "compared": (
        "上期：{before}；上年同期：{year}",
        "Period before: {before}; year before: {year}",
    ),
    "to": ("{first} 至 {last}", "{first} to {last}"),
    "begins": (
        "记录自 {first} 起：此前无可比数据。",
        "The record begins on {first}: with what lies before, nothing can be compared.",
    ),
    "nothing-before": ("记录中无可比的往期", "the record holds nothing to compare with"),
}


class Words:
    """The texts in one language."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._at = 0 if language == "zh" else 1

    @property
    def code(self) -> str:
        """For the attribute ``lang``."""
        return "zh-CN" if self.language == "zh" else "en"

    def __call__(self, key: str, **values: Any) -> str:
        text = WORDS[key][self._at]
        return text.format(**values) if values else text

    def of(self, text: Text) -> str:
        """A sentence that comes in both languages."""
        return text.zh if self.language == "zh" else text.en

    def pick(self, label: tuple[str, str]) -> str:
        """A name that comes in both languages."""
        return label[self._at]

    def kind(self, kind: str) -> str:
        """What an alert of a kind is about."""
        return self.of(SUBJECTS[kind])  # type: ignore[index]  # a kind that an alert bears

    @property
    def stop(self) -> str:
        return "。" if self.language == "zh" else ". "

    @property
    def colon(self) -> str:
        return "：" if self.language == "zh" else ": "
