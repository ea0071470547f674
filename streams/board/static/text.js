// The words of the board: Chinese, then English. Gaps are written {so}.

export const TEXT = {
  title: ["质量安全风险看板", "Quality and safety board"],
  skip: ["跳到预警列表", "Skip to the alerts"],
  other: ["English", "中文"],
  summary: ["概况", "Summary"],
  alerts: ["未解除的预警", "Open alerts"],
  grade: ["等级", "Grade"],
  alert: ["预警", "Alert"],
  since: ["发出时间", "Opened"],
  status: ["状态", "Status"],
  none: ["目前没有未解除的预警。", "No alert is open."],
  more: ["再显示 {n} 条", "Show {n} more"],
  "left-out": ["另有 {n} 条较轻的预警未显示。", "{n} less grave open alerts are not shown."],
  clear: ["显示全部", "Show all"],
  "of-cell": ["只显示：{what}", "Only {what}"],
  matrix: ["产品 × 地区", "Products × districts"],
  product: ["产品", "Product"],
  search: ["按名称或代码筛选产品", "Find products by name or code"],
  "search-hint": ["筛选产品", "Find products"],
  only: ["只看有预警的", "Only what has alerts"],
  "no-rows": ["没有符合条件的产品。", "No product matches."],
  legend: ["格内为最高等级；数字为预警条数；✓ 为均已确认。方向键在有预警的格之间移动。",
    "A cell shows its gravest grade, how many alerts if several, and ✓ where all are acknowledged. Arrow keys move among them."],
  cell: ["{product}，{region}：{n} 条预警，最高 {grade} 级", "{product}, {region}: {n} open, gravest grade {grade}"],
  "all-answered": ["，均已确认", ", all acknowledged"],
  grades: ["{grade} 级（{colour}）：{n} 条，其中 {m} 条未确认", "Grade {grade} ({colour}): {n}, {m} not acknowledged"],
  unanswered: ["未确认 {m}", "{m} to answer"],
  "colour-1": ["红", "red"], "colour-2": ["橙", "orange"], "colour-3": ["黄", "yellow"], "colour-4": ["蓝", "blue"],
  opened: ["新发", "new"], raised: ["升级", "raised"], lowered: ["降级", "lowered"],
  acknowledged: ["已确认", "acknowledged"], resolved: ["已解除", "resolved"],
  overdue: ["已超时", "overdue"],
  due: ["限 {when} 前处置", "due by {when}"],
  "on-its-way": ["{action}已提交，待本时段结束生效", "{action} sent; takes effect when its tick closes"],
  connecting: ["正在连接…", "Connecting…"],
  live: ["实时更新中", "Live"],
  "not-following": ["暂时读不到预警，正在重试；所示为此前情况", "The alerts cannot be read now; what is shown is from before"],
  lost: ["连接中断，正在重试；所示为此前情况", "Connection lost, trying again; what is shown is from before"],
  "no-read": ["该令牌没有查看权限（read），请联系管理员。", "This token has not the role read; ask the operator."],
  "new-alert": ["新预警，{grade} 级：{what}", "New alert, grade {grade}: {what}"],
  "raised-alert": ["预警升至 {grade} 级：{what}", "Alert raised to grade {grade}: {what}"],
  "acknowledged-alert": ["已确认：{what}", "Acknowledged: {what}"],
  "resolved-alert": ["已解除：{what}", "Resolved: {what}"],
  "and-more": ["另有 {n} 条变化", "and {n} more changes"],
  back: ["返回列表", "Back to the list"],
  loading: ["正在读取…", "Reading…"],
  gone: ["该预警已不在看板上。", "The board holds this alert no more."],
  failed: ["读取失败：{why}", "It could not be read: {why}"],
  region: ["地区", "District"], kind: ["类型", "Kind"], scope: ["范围", "Scope"], source: ["来源", "Source"],
  hazard: ["伤害类型", "Kind of injury"], "as-of": ["截至", "As of"], number: ["编号", "Id"],
  evidence: ["依据", "Evidence"], "no-evidence": ["无。", "None."],
  "more-evidence": ["其他依据（{n}）", "Further findings ({n})"],
  chart: ["控制图", "Control chart"], contributors: ["涉及", "Who and what contributes"],
  steps: ["处置步骤", "What to do"], history: ["经过", "History"],
  adverse: ["不良数", "Adverse"], code: ["代码", "Code"], role: ["类别", "Sort"],
  lab: ["机构", "lab or site"], producer: ["生产者", "producer"], batch: ["批号", "batch"], gtin: ["条码", "GTIN"],
  "pass-rate": ["合格率", "pass rate"], "injury-surge": ["伤害激增", "surge of injuries"],
  "complaint-surge": ["投诉激增", "surge of complaints"], satisfaction: ["满意度", "satisfaction"],
  "quality-loss": ["质量损失", "quality loss"], "new-hazard": ["新的伤害类型", "new kind of injury"],
  "lab-drift": ["机构判定偏移", "lab drift"], "silent-source": ["报送异常", "silent source"],
  "grave-event": ["重大单起事件", "grave event"],
  "scope-cell": ["单一产品与地区", "one product and district"], "scope-regional": ["区域性", "regional"],
  "scope-industry": ["行业性", "industry-wide"], "scope-systemic": ["系统性", "systemic"],
  "no-series": ["此类预警不针对某一产品与地区的计数，没有控制图。", "This alert is not about the counts of a cell; it has no control chart."],
  "no-counts": ["状态中还没有这一单元的计数。", "No counts of this cell are stored yet."],
  unreadable: ["暂时读不到计数（详见服务日志）。", "The counts cannot be read now; the service's log says why."],
  "chart-count": ["每周报告数", "Reports a week"],
  "chart-rate": ["合格率，{days} 天滚动", "Pass rate over {days} days"],
  "chart-index": ["满意度，{days} 天滚动", "Satisfaction over {days} days"],
  "chart-loss": ["质量损失率，{days} 天滚动", "Quality-loss rate over {days} days"],
  "chart-said": ["{what}，{from} 至 {to}。最近值 {last}，预期 {expected}，报警线 {limit}；其间 {n} 周报警。",
    "{what}, {from} to {to}. Last value {last}, expected {expected}, alarm line {limit}; {n} weeks in alarm."],
  observed: ["实际", "observed"], expected: ["预期", "expected"], limit: ["报警线", "alarm line"],
  "limit-count": ["报警线（超过即报警）", "alarm line (above it)"],
  "limit-rate": ["报警线（达到或低于即报警）", "alarm line (at or under it)"],
  interval: ["区间", "interval"], alarm: ["报警", "alarm"], signal: ["当时记录的信号", "signal on record"],
  "running-week": ["本周未结束", "the last week is not over"],
  figures: ["图中数据", "The figures"], week: ["截止日", "To"], tested: ["基数", "Of"],
  "chart-note": ["由检测器按现有数据逐周重算，含迟报与更正；当时的判断见信号标记。",
    "The detectors' own figures, week by week, from the counts as known now, late reports and corrections included; what was said at the time is marked as signals."],
  "chart-plain": ["按现有数据的计数，含迟报与更正；历史太短，或此类事件不按计数判断，故无预期与报警线。",
    "The counts as known now, late reports and corrections included. There is no expectation: the past is too short, or such events are not judged by counts."],
  acknowledge: ["确认", "Acknowledge"], assess: ["研判", "Assess"], dispose: ["处置", "Dispose"], close: ["关闭", "Close"],
  "ask-acknowledge": ["确认预警…", "Acknowledge…"], "ask-close": ["关闭预警…", "Close the alert…"],
  answer: ["答复预警", "Answer an alert"], action: ["操作", "Action"], name: ["姓名", "Your name"],
  reason: ["说明（可不填，请勿填写他人信息）", "Reason (optional; name no third person)"],
  effect: ["将以令牌所属单位名义记录，并在本时段结束时生效。", "It is recorded under your token's organisation, and takes effect when the tick closes."],
  cancel: ["取消", "Cancel"], send: ["提交", "Send"],
  "sent-until": ["已提交，{when} 生效。", "Sent; it takes effect at {when}."],
  "may-not": ["该令牌只能查看。", "This token may only read."],
  "sign-in": ["登录", "Sign in"], token: ["令牌", "Token"],
  "token-help": ["以 tocsin_ 开头；只保存在本标签页，关闭即清除。", "It begins with tocsin_; this tab alone keeps it, and forgets it when it is closed."],
  "wrong-token": ["令牌无效或已过期。", "The token is wrong or has ended."],
  go: ["进入", "Enter"], "sign-out": ["退出（{who}）", "Sign out ({who})"],
};

const asked = new URLSearchParams(location.search).get("lang") ?? sessionStorage.getItem("tocsin-lang");
let at = asked === "en" || (asked === null && !navigator.language.toLowerCase().startsWith("zh")) ? 1 : 0;

/** The words of that name in the language that is chosen, with the gaps filled. */
export function say(name, gaps = {}) {
  const text = TEXT[name]?.[at] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, gap) => (gap in gaps ? String(gaps[gap]) : whole));
}

/** A pair of texts as the service sends them. */
export const pick = (pair) => (at === 0 ? pair.zh : pair.en);

export const language = () => (at === 0 ? "zh-CN" : "en");

export function switchLanguage() {
  at = 1 - at;
  sessionStorage.setItem("tocsin-lang", at === 0 ? "zh" : "en");
}

export const number = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 6 });
