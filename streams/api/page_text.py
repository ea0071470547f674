"""The words of the upload page, in Chinese and English."""

from __future__ import annotations

from typing import Final

from schemas.events import Kind
from streams.api.reasons import Lang

__all__ = ["FIELD_NAMES", "KIND_NAMES", "TEXT"]

KIND_NAMES: Final[dict[Kind, tuple[str, str]]] = {
    "inspection": ("检验结果", "Inspection results"),
    "injury": ("伤害报告", "Injury reports"),
    "complaint": ("投诉举报", "Complaints"),
    "accident": ("质量事故", "Accidents"),
    "survey": ("满意度调查", "Satisfaction surveys"),
    "loss": ("质量损失", "Quality losses"),
}

FIELD_NAMES: Final[dict[str, str]] = {
    "event_id": "编号", "source": "来源", "reported_at": "报告时间", "occurred_at": "发生时间", "revision": "修订次数",
    "withdrawn": "是否撤回", "kind": "类型", "product": "产品代码", "region": "行政区划代码", "lab": "检验机构",
    "producer": "统一社会信用代码", "batch": "批号", "gtin": "商品条码", "standard": "执行标准", "stage": "抽样环节",
    "scheme": "抽检类别", "items": "检验项目", "verdict": "结论", "severity": "严重程度", "tested": "抽检数",
    "failed": "不合格数", "site": "监测点", "subject": "对象", "outcome": "结局", "age": "年龄", "sex": "性别",
    "injury": "伤害类型", "body_part": "受伤部位", "weight": "权重", "channel": "渠道", "category": "类别",
    "authority": "主管部门", "structural": "是否结构性", "deaths": "死亡人数", "seriously_injured": "重伤人数",
    "loss_cny": "损失（元）", "surveyor": "调查单位", "score": "得分", "respondents": "受访人数",
    "output_cny": "产值（元）",
}  # fmt: skip
"""The fields of events in Chinese; in English they are their own names."""

_TEXT: Final[dict[str, tuple[str, str]]] = {
    "title": ("质量安全数据上传", "Upload quality and safety data"),
    "other": ("English", "中文"),
    "intro": (
        "上传表格文件，每行一条记录。合格的行立即写入；不合格的行逐行列出原因。同一文件可以重复上传，不会重复计数。",
        "Upload a table, one record a row. Good rows are stored at once; the others are listed with the reason. "
        "The same file may be sent again: nothing counts twice.",
    ),
    "kind": ("数据类型", "Kind of data"),
    "token": ("令牌", "Token"),
    "token-help": ("由管理员发给贵单位，以 tocsin_ 开头。", "Given to your organisation; it begins with tocsin_."),
    "file": ("文件", "File"),
    "file-help": (
        "CSV 或 Excel（.xlsx），第一行为列名；也可用 NDJSON。最多 {rows} 行、{size} MB。公式只取其结果。",
        "CSV or Excel (.xlsx) with column names in the first row; NDJSON too. At most {rows} rows and {size} MB. "
        "Of a formula its result is taken.",
    ),
    "encoding": ("CSV 编码", "Encoding of CSV"),
    "encoding-help": (
        "若由中文版 Excel 直接存为 CSV，请选 GB18030。",
        "Choose GB18030 for CSV saved by a Chinese Excel.",
    ),
    "mapping": ("列映射", "Columns"),
    "native": ("列名与字段名相同", "Named like the fields"),
    "send": ("上传", "Upload"),
    "columns": ("需要哪些列？", "Which columns?"),
    "columns-help": (
        "必填列用粗体表示，其余可以省略或留空。多余的列不会读取。",
        "Columns in bold are needed; the others may be left out or empty. Further columns are not read.",
    ),
    "template": ("下载空表", "Empty table"),
    "done": ("上传完成", "Upload complete"),
    "partly": ("上传完成，但有未接受的行", "Upload complete, with rejected rows"),
    "refused": ("没有任何一行被接受", "No row was accepted"),
    "failed": ("上传失败：", "The upload failed: "),
    "accepted": ("已接受并写入：", "Accepted and stored: "),
    "rejected": ("未接受：", "Rejected: "),
    "rows": ("行", "rows"),
    "what-now": (
        "请在原文件中改正下列各行，然后再次上传整个文件或仅上传这些行。",
        "Correct these rows in your file, then send the whole file again, or only these rows.",
    ),
    "download": ("下载未接受的行（CSV）", "Download the rejected rows (CSV)"),
    "kept": ("链接在 {minutes} 分钟内有效", "The link works for {minutes} minutes"),
    "by-reason": ("按原因汇总", "By reason"),
    "reason": ("原因", "Reason"),
    "count": ("行数", "Rows"),
    "list": ("未接受的行", "Rejected rows"),
    "first": ("以下为前 {shown} 行，共 {all} 行；全部见 CSV。", "The first {shown} of {all}; the CSV has them all."),
    "line": ("行号", "Line"),
    "field": ("字段", "Field"),
    "whole": ("整行", "whole row"),
    "again": ("再上传一个文件", "Upload another file"),
    "request": ("请求编号", "Request"),
}

TEXT: Final[dict[Lang, dict[str, str]]] = {
    "zh": {name: zh for name, (zh, _) in _TEXT.items()},
    "en": {name: en for name, (_, en) in _TEXT.items()},
}
"""The page's texts by language and name."""
