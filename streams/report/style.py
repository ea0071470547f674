"""The page's style: light and dark, wide and narrow, screen and paper."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

__all__ = ["POLICY", "STYLE"]

STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--tint:#f6f8fa;--act:#0b57a4;
--good:#116329;--bad:#a40e26;--part:#8a5a00;--goodbg:#dcf3e1;--badbg:#ffdfe0;--partbg:#fff2cc;
--l1:#b3131b;--l2:#c25100;--l3:#a37500;--l4:#1f5fa8;--mean:#116329;--limit:#a40e26;--band:#0b57a426}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9da7b3;--line:#3d444d;--paper:#0d1117;--tint:#161b22;
--act:#79b8ff;--good:#56d364;--bad:#ff8a8a;--part:#e3b341;--goodbg:#12361d;--badbg:#4c1519;--partbg:#403107;
--l1:#e5484d;--l2:#e8792b;--l3:#c99a1e;--l4:#4d8fe0;--mean:#56d364;--limit:#ff8a8a;--band:#79b8ff33}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;font:1rem/1.55 system-ui,"PingFang SC","Microsoft YaHei","Noto Sans CJK SC","WenQuanYi Micro Hei",
sans-serif;color:var(--ink);background:var(--paper)}
header,main,footer{max-width:76rem;margin:0 auto;padding:1rem}
header{border-bottom:1px solid var(--line)}
h1{font-size:1.5rem;line-height:1.3;margin:0 0 .3rem}
h2{font-size:1.25rem;margin:2.2rem 0 .6rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}
h3{font-size:1.02rem;margin:1.3rem 0 .3rem}
p{margin:.35rem 0}a{color:var(--act)}
.soft,.help{color:var(--soft);font-size:.9rem}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;margin:.6rem 0 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.7rem;margin:.8rem 0}
.tile{border:1px solid var(--line);border-left:.35rem solid var(--line);border-radius:.35rem;padding:.5rem .8rem}
.tile b{display:block;font-size:1.6rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tile>span{display:block;color:var(--soft);font-size:.88rem}
.tile .name{color:var(--ink);font-weight:600;font-size:.95rem}
.tile.met{border-left-color:var(--good)}.tile.short{border-left-color:var(--part)}
.tile.below{border-left-color:var(--bad)}
.scroll{overflow-x:auto;margin:.4rem 0 1rem}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:.32rem .55rem;border-bottom:1px solid var(--line);
word-break:keep-all}
td.text{min-width:10.5rem;word-break:normal}
thead th{background:var(--tint);vertical-align:bottom}
tbody th{font-weight:600;white-space:nowrap;position:sticky;left:0;background:var(--paper)}
.num,td.num{font-variant-numeric:tabular-nums;text-align:right;white-space:nowrap}
th.num,th.group{text-align:right}th.group{text-align:center;border-left:1px solid var(--line)}
td.first{border-left:1px solid var(--line)}
tr.total>*{font-weight:700;border-bottom:2px solid var(--line)}
.v{white-space:nowrap}.v.met{color:var(--good)}.v.short{color:var(--part)}.v.below{color:var(--bad);font-weight:600}
.v.none{color:var(--soft)}
.code{color:var(--soft);font-size:.85em;font-weight:400;overflow-wrap:break-word;
display:inline-block;max-width:16rem;vertical-align:bottom}
.grade{display:inline-block;min-width:2rem;text-align:center;border-radius:.25rem;padding:0 .35rem;font-weight:700;
color:#fff;font-size:.85rem;line-height:1.5}
.grade.l1{background:var(--l1)}.grade.l2{background:var(--l2)}.grade.l3{background:var(--l3)}
.grade.l4{background:var(--l4)}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:0 1.5rem}.pair>div{min-width:0}
.matrix{width:auto}
.matrix td{text-align:center;font-variant-numeric:tabular-nums;min-width:3rem;padding:.25rem .3rem;
border:1px solid var(--line);white-space:nowrap}
.matrix thead th{white-space:normal;text-align:center;min-width:4rem;font-size:.78rem;
line-height:1.25;padding:.3rem .3rem;overflow-wrap:normal}
.matrix .met{background:var(--goodbg)}.matrix .short{background:var(--partbg)}.matrix .below{background:var(--badbg)}
.matrix .grade{min-width:1.4rem;margin-left:.2rem;font-size:.72rem;padding:0 .2rem}
.life{display:block;width:100%;height:1.15rem;background:var(--tint)}
.times{list-style:none;padding:0;margin:.6rem 0}
.times li{display:grid;grid-template-columns:2.6rem minmax(12rem,2fr) minmax(14rem,3fr);gap:.2rem .7rem;
align-items:center;padding:.22rem 0;border-bottom:1px solid var(--line);font-size:.92rem}
.times .axis{border:0;color:var(--soft);font-size:.82rem;padding:0}
.axis>span:last-child{grid-column:3;display:flex;justify-content:space-between}
.legend{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;font-size:.88rem;color:var(--soft);margin:.5rem 0}
.legend span{display:inline-flex;align-items:center;gap:.35rem}
.legend svg{width:26px;height:14px;flex:none}
.cards{display:grid;align-items:start;grid-template-columns:repeat(auto-fill,minmax(min(33rem,100%),1fr));gap:1rem}
.card{border:1px solid var(--line);border-radius:.4rem;padding:.7rem .9rem;min-width:0}
.card h3{margin:.1rem 0 .3rem;line-height:1.35}
.card table{font-size:.85rem}.card th,.card td{padding:.2rem .4rem}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.1rem .7rem;font-size:.88rem;margin:.4rem 0 0}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
.chart{display:block;width:100%;height:auto;font-size:12px}
.chart text,.legend text{fill:var(--soft)}.chart .end{text-anchor:end}.chart .mid{text-anchor:middle}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.band{fill:var(--band)}
.line{stroke:var(--act);stroke-width:1.6;fill:none}
.dot{fill:var(--act)}.dot.out,.bar.out{fill:var(--bad)}.bar{fill:var(--act);opacity:.75}.bar.out{opacity:1}
.mean{stroke:var(--mean);stroke-width:1.5;fill:none}
.limit{stroke:var(--limit);stroke-width:1.5;stroke-dasharray:5 3;fill:none}
.mark path{stroke-width:1.2;fill:none;stroke-dasharray:2 2}.mark .flag{stroke:none}
.mark .over{stroke-dasharray:none;fill:var(--paper)}
.l1 path,path.l1{stroke:var(--l1)}.l1 .flag,.piece.l1{fill:var(--l1)}
.l2 path,path.l2{stroke:var(--l2)}.l2 .flag,.piece.l2{fill:var(--l2)}
.l3 path,path.l3{stroke:var(--l3)}.l3 .flag,.piece.l3{fill:var(--l3)}
.l4 path,path.l4{stroke:var(--l4)}.l4 .flag,.piece.l4{fill:var(--l4)}
.said{fill:none;stroke:var(--ink);stroke-width:1.6}
footer{color:var(--soft);font-size:.85rem;border-top:1px solid var(--line);margin-top:2rem;overflow-wrap:anywhere}
:focus-visible{outline:3px solid var(--act);outline-offset:2px}
@media(max-width:44rem){
.pair{grid-template-columns:1fr}
.tiles{grid-template-columns:1fr 1fr;gap:.5rem}.tile{padding:.4rem .55rem}.tile b{font-size:1.3rem}
.times li{grid-template-columns:2.6rem 1fr}.times .life{grid-column:1/3}
.times .axis>span:last-child{grid-column:1/3}.axis>span:first-child{display:none}
.chart{font-size:15px}
.facts{grid-template-columns:1fr;gap:0}.facts dd{margin:0 0 .3rem}
.card{padding:.6rem .55rem}
th,td{padding:.3rem .4rem}
}
@media print{
:root{--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--tint:#f2f2f2;--act:#0b57a4;--good:#116329;--bad:#a40e26;
--part:#8a5a00;--goodbg:#dcf3e1;--badbg:#ffdfe0;--partbg:#fff2cc;--l1:#b3131b;--l2:#c25100;--l3:#a37500;--l4:#1f5fa8;
--mean:#116329;--limit:#a40e26;--band:#0b57a426}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}
body{font-size:9pt}header,main,footer{max-width:none;padding:0 0 .4rem}nav{display:none}
.scroll{overflow:visible}.cards{grid-template-columns:1fr 1fr;gap:.4rem}.card,.tile,tr,.times li{break-inside:avoid}
.card{padding:.4rem .5rem}.card h3,.facts{font-size:8pt}
.card table{font-size:6.5pt}footer{margin-top:.6rem}
h2,h3{break-after:avoid}thead{display:table-header-group}table{font-size:7.5pt}th,td{padding:.12rem .25rem}
.chart{max-width:15cm}.tiles{grid-template-columns:repeat(4,1fr)}.matrix td{min-width:0}
.matrix thead th{font-size:6.5pt;min-width:0}
a{color:inherit;text-decoration:none}
}
@page{size:A4;margin:14mm 12mm}
"""

_HASH: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY: Final = f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; base-uri 'none'; form-action 'none'"
"""What the page may do: show this style, and nothing else."""
