"""The upload page: one form, one result, no script. Everything that came from outside is escaped.

The page needs nothing but itself: its style stands in it, and the content security policy names that style by its hash
and forbids all else, so text of a file that slipped through as markup could still do nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from typing import Final

import msgspec

from schemas.events import EVENT_TYPES, KINDS, Kind
from streams.api.limits import Limits
from streams.api.page_text import FIELD_NAMES, KIND_NAMES, TEXT
from streams.api.problems import Problem
from streams.api.reasons import Lang, said
from streams.api.submit import Summary, Verdict

__all__ = ["CSV_HEAD", "POLICY", "SHOWN", "csv_lines", "failure_page", "form_page", "result_page", "template_csv"]

SHOWN: Final = 200
"""Rejected rows on the page; the CSV has all."""

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--tint:#f6f8fa;--act:#0b57a4;
--good:#116329;--bad:#a40e26;--part:#9a6700}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--line:#3d444d;--paper:#0d1117;--tint:#161b22;
--act:#79b8ff;--good:#56d364;--bad:#ff8a8a;--part:#d29922}}
*{box-sizing:border-box}
body{margin:0;font:1rem/1.6 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC",sans-serif;color:var(--ink);
background:var(--paper)}
header,main,footer{max-width:60rem;margin:0 auto;padding:1rem}
header{display:flex;justify-content:space-between;align-items:baseline;gap:1rem;border-bottom:1px solid var(--line)}
header a{white-space:nowrap}h1{font-size:1.35rem;line-height:1.3;margin:0}h2{font-size:1.15rem;margin:1.5rem 0 .5rem}
a{color:var(--act)}
form{max-width:36rem}
.row{margin:1.1rem 0}
label{display:block;font-weight:600}
.help{color:var(--soft);font-size:.9rem;margin:.15rem 0 .35rem}
select,input{width:100%;font:inherit;color:inherit;background:var(--paper);border:1px solid var(--soft);
border-radius:.35rem;padding:.5rem;min-height:2.75rem}
input[type=file]{border-style:dashed}
button{font:inherit;font-weight:600;color:var(--paper);background:var(--act);border:0;border-radius:.35rem;
padding:.6rem 1.6rem;min-height:2.75rem;cursor:pointer}
:focus-visible{outline:3px solid var(--act);outline-offset:2px}
details{margin:1.5rem 0;border:1px solid var(--line);border-radius:.35rem;padding:.5rem .9rem}
summary{cursor:pointer;font-weight:600}
details h3{font-size:1rem;margin:.9rem 0 .1rem}details p{margin:.1rem 0}
code{font-family:ui-monospace,Consolas,monospace;font-size:.92em;overflow-wrap:anywhere}
.box{border-left:.35rem solid var(--good);background:var(--tint);padding:.5rem 1rem;margin:1rem 0}
.box h2{margin:.2rem 0}.box.bad{border-color:var(--bad)}.box.part{border-color:var(--part)}.box p{margin:.3rem 0}
.num{font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap}
table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem}
caption{text-align:left;color:var(--soft);font-size:.9rem;padding-bottom:.3rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
th{background:var(--tint);white-space:nowrap}th.num{text-align:right}
.why{display:block}.said{display:block;color:var(--soft);font-size:.9rem}
footer{color:var(--soft);font-size:.85rem}
@media(min-width:40.01rem){.rows td:nth-child(2){white-space:nowrap}}
@media(max-width:40rem){
.rows thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.rows tr{display:block;border:1px solid var(--line);border-radius:.35rem;margin:.6rem 0;padding:.3rem .6rem}
.rows td{display:flex;gap:.6rem;border:0;padding:.15rem 0;text-align:left;white-space:normal}
.rows td::before{content:attr(data-name);flex:0 0 4.2rem;color:var(--soft);font-size:.9rem}
button{width:100%}}
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
"""The content security policy of the page."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
CSV_HEAD: Final = "\ufeffline,field,reason,原因,reason in English,detail\r\n"
"""The first line of the rejected rows as CSV; the mark tells Excel that it is UTF-8."""


def form_page(lang: Lang, limits: Limits, mappings: dict[str, Kind], *, secured: bool, kind: str = "") -> str:
    """The page with the form; ``mappings`` are those offered, with the kind of each."""
    text = TEXT[lang]
    return _page(lang, text["title"], f"<p>{text['intro']}</p>{_form(lang, limits, mappings, secured, kind)}")


def result_page(lang: Lang, summary: Summary, verdicts: Iterable[Verdict], download: str | None, minutes: int) -> str:
    """The page with an upload's verdicts; ``download`` is the address of all rejected rows, good for some minutes."""
    text = TEXT[lang]
    if not summary.rejected:
        title, mood = text["done"], ""
    else:
        title, mood = (text["partly"], " part") if summary.accepted else (text["refused"], " bad")
    body = [
        f'<section class="box{mood}" role="status"><h2>{title}</h2>'
        f"<p>{text['accepted']}<strong>{summary.accepted:,}</strong> {text['rows']}</p>"
        f"<p>{text['rejected']}<strong>{summary.rejected:,}</strong> {text['rows']}</p></section>"
    ]
    if summary.rejected:
        body.append(f"<p>{text['what-now']}</p>")
        if download is not None:
            kept = text["kept"].format(minutes=minutes)
            body.append(f'<p><a href="{escape(download)}" download>{text["download"]}</a> ({kept})</p>')
        body += [_by_reason(lang, summary), _rejected(lang, summary, verdicts)]
    body.append(f'<p><a href="/?lang={lang}&amp;kind={summary.kind}">{text["again"]}</a></p>')
    return _page(lang, title, "".join(body), summary.request_id)


def failure_page(lang: Lang, problem: Problem, request_id: str) -> str:
    """The page that says why an upload failed as a whole."""
    text, kind = TEXT[lang], problem.kind
    title = kind.title_zh if lang == "zh" else kind.title
    body = (
        f'<section class="box bad" role="alert"><h2>{text["failed"]}{escape(title)}</h2>'
        f'<p lang="en">{escape(problem.detail)}</p></section><p><a href="/?lang={lang}">{text["again"]}</a></p>'
    )
    return _page(lang, title, body, request_id)


def template_csv(kind: Kind) -> str:
    """An empty table of a kind: the line of column names, those that are needed first."""
    needed, other = _columns(kind)
    return "\ufeff" + ",".join([*needed, *other]) + "\r\n"


def csv_lines(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Rejected rows as lines of CSV, after :data:`CSV_HEAD`."""
    for one in verdicts:
        reason = one.reason or ""
        cells = (str(one.line), one.field or "", reason, said(reason, "zh"), said(reason, "en"), one.detail or "")
        yield ",".join(_cell(cell) for cell in cells) + "\r\n"


def _cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: whoever wrote the row may not be whoever opens this."""
    harmless = f"'{text}" if text.startswith(_FORMULA) else text
    return '"' + harmless.replace('"', '""') + '"'


def _page(lang: Lang, title: str, body: str, request_id: str = "") -> str:
    text = TEXT[lang]
    other: Lang = "en" if lang == "zh" else "zh"
    code, other_code = ("zh-CN", "en") if lang == "zh" else ("en", "zh-CN")
    foot = f"{text['request']} {escape(request_id)}" if request_id else "Tocsin"
    return (
        f'<!doctype html><html lang="{code}"><head><meta charset="utf-8"><title>{escape(title)} · Tocsin</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style></head><body><header><h1>{text['title']}</h1>"
        f'<a href="/?lang={other}" lang="{other_code}" hreflang="{other_code}">{text["other"]}</a></header>'
        f"<main>{body}</main><footer>{foot}</footer></body></html>"
    )


def _form(lang: Lang, limits: Limits, mappings: dict[str, Kind], secured: bool, chosen: str) -> str:
    text, at = TEXT[lang], 0 if lang == "zh" else 1
    kinds = "".join(
        f'<option value="{kind}"{" selected" if kind == chosen else ""}>{KIND_NAMES[kind][at]} ({kind})</option>'
        for kind in KINDS
    )
    rows = [_row("kind", text["kind"], "", f'<select id="kind" name="kind">{kinds}</select>')]
    if secured:
        rows.append(
            _row(
                "token",
                text["token"],
                text["token-help"],
                '<input id="token" name="token" type="password" required autocomplete="off" spellcheck="false" '
                'aria-describedby="token-help">',
            )
        )
    if mappings:
        options = "".join(f"<option>{escape(name)}</option>" for name in mappings)
        rows.append(
            _row(
                "mapping",
                text["mapping"],
                "",
                f'<select id="mapping" name="mapping"><option value="">{text["native"]}</option>{options}</select>',
            )
        )
    rows.append(
        _row(
            "encoding",
            text["encoding"],
            text["encoding-help"],
            '<select id="encoding" name="encoding" aria-describedby="encoding-help"><option>UTF-8</option>'
            "<option>GB18030</option></select>",
        )
    )
    help_text = text["file-help"].format(rows=f"{limits.rows:,}", size=limits.body_bytes >> 20)
    rows.append(
        _row(
            "file",
            text["file"],
            help_text,
            '<input id="file" name="file" type="file" required accept=".csv,.tsv,.xlsx,.ndjson,.jsonl,.gz" '
            'aria-describedby="file-help">',
        )
    )
    fields = "".join(rows)
    return (
        f'<form method="post" action="/?lang={lang}" enctype="multipart/form-data">{fields}'
        f'<div class="row"><button>{text["send"]}</button></div></form>{_column_help(lang)}'
    )


def _row(name: str, label: str, help_text: str, control: str) -> str:
    more = f'<p class="help" id="{name}-help">{help_text}</p>' if help_text else ""
    return f'<div class="row"><label for="{name}">{label}</label>{more}{control}</div>'


def _columns(kind: Kind) -> tuple[list[str], list[str]]:
    """The columns of a kind's table: those that are needed, and the others."""
    fields = [one for one in msgspec.structs.fields(EVENT_TYPES[kind]) if one.name != "kind"]
    needed = [one.name for one in fields if one.required]
    return needed, [one.name for one in fields if not one.required]


def _column_help(lang: Lang) -> str:
    text, at = TEXT[lang], 0 if lang == "zh" else 1
    parts = []
    for kind in KINDS:
        needed, other = _columns(kind)
        names = [f"<strong>{_field_name(one, lang)}<code>{one}</code></strong>" for one in needed]
        names += [f"{_field_name(one, lang)}<code>{one}</code>" for one in other]
        parts.append(
            f'<h3>{KIND_NAMES[kind][at]}</h3><p>{", ".join(names)}</p><p><a href="/templates/{kind}.csv" download>'
            f"{text['template']} ({kind}.csv)</a></p>"
        )
    return f"<details><summary>{text['columns']}</summary><p>{text['columns-help']}</p>{''.join(parts)}</details>"


def _field_name(field: str, lang: Lang) -> str:
    """A field's name in Chinese before its own, for those who read that."""
    name = FIELD_NAMES.get(field.partition("[")[0].partition(".")[0]) if lang == "zh" else None
    return f"{name} " if name else ""


def _by_reason(lang: Lang, summary: Summary) -> str:
    text = TEXT[lang]
    rows = "".join(
        f'<tr><td>{escape(said(reason, lang))} <code>{escape(reason)}</code></td><td class="num">{count:,}</td></tr>'
        for reason, count in sorted(summary.reasons.items(), key=lambda one: (-one[1], one[0]))
    )
    return (
        f'<h2>{text["by-reason"]}</h2><table><thead><tr><th scope="col">{text["reason"]}</th>'
        f'<th scope="col" class="num">{text["count"]}</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _rejected(lang: Lang, summary: Summary, verdicts: Iterable[Verdict]) -> str:
    text = TEXT[lang]
    rows, shown = [], 0
    for one in verdicts:
        if shown == SHOWN:
            break
        shown += 1
        field = f"{_field_name(one.field, lang)}<code>{escape(one.field)}</code>" if one.field else text["whole"]
        reason = one.reason or ""
        rows.append(
            f'<tr><td class="num" data-name="{text["line"]}">{one.line}</td>'
            f'<td data-name="{text["field"]}"><span>{field}</span></td>'
            f'<td data-name="{text["reason"]}"><span><span class="why">{escape(said(reason, lang))}</span>'
            f'<span class="said" lang="en">{escape(one.detail or "")}</span></span></td></tr>'
        )
    more = ""
    if summary.rejected > shown:
        more = text["first"].format(shown=f"{shown:,}", all=f"{summary.rejected:,}")
        more = f"<caption>{more}</caption>"
    return (
        f'<h2>{text["list"]}</h2><table class="rows">{more}<thead><tr><th scope="col" class="num">{text["line"]}</th>'
        f'<th scope="col">{text["field"]}</th><th scope="col">{text["reason"]}</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )
