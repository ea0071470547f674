"""The sections on alerts: the timeline, what was done about each, and its control chart."""

from __future__ import annotations

from typing import Final

from schemas.alerts import Alert
from streams.report.charts import Chart, chart_of, strongest
from streams.report.markup import badge, cell, code, head, row, table, text
from streams.report.periods import iso
from streams.report.svg import Bar, Mark, bar, draw
from streams.report.view import Case, View

__all__ = ["alerts_section", "charts_section"]

_ANSWERS: Final = ("acknowledge", "assess", "dispose", "close")
_CONTRIBUTORS: Final = 6
_REVISIONS: Final = 8
_DAY_MS: Final = 86_400_000.0


def _title(view: View, alert: Alert) -> str:
    return text(view.words.of(alert.headline))


def alerts_section(view: View) -> str:
    """The timeline of the alerts that stood in the period, and how each was disposed of."""
    words, cases = view.words, view.cases[: view.bounds.alerts]
    parts = [f'<section id="alerts"><h2>{words("alerts")}</h2>']
    if not cases:
        return "".join(parts) + f'<p class="soft">{words("no-alerts")}</p></section>'
    parts += [f"<h3>{words('timeline')}</h3>", _timeline(view, cases), _disposal(view, cases)]
    if len(view.cases) > len(cases):
        left = words("alerts-left", count=f"{len(view.cases) - len(cases):,}")
        parts.append(f'<p class="soft">{text(left)}</p>')
    return "".join(parts) + "</section>"


def _timeline(view: View, cases: list[Case]) -> str:
    span = view.period.days
    months = [iso(span[0]), iso((span[0] + span[1]) // 2), iso(span[1] - 1)]
    axis = "".join(f"<span>{day}</span>" for day in months)
    items = [f'<li class="axis"><span></span><span>{axis}</span></li>']
    for case in sorted(cases, key=lambda one: (one.life.opened, one.life.first.id)):
        link = f'<a href="#{text(case.life.first.id)}">{_title(view, case.life.first)}</a>'
        items.append(f"<li>{badge(case.life.level)}<span>{link}</span>{bar(_bar(view, case), span)}</li>")
    return f'<ol class="times">{"".join(items)}</ol>'


def _bar(view: View, case: Case) -> Bar:
    """The alert's levels from its first revision to its end, or to the end of what is known."""
    end = float(view.told[1])
    moments = [_moment(view, one) for one in case.revisions]
    closed = [*moments[1:], end]
    pieces = tuple(
        (begin, until, one.level)
        for one, begin, until in zip(case.revisions, moments, closed, strict=True)
        if one.status != "resolved"
    )
    said = "; ".join(f"{one.as_of:%Y-%m-%d} {view.words(one.status)} {one.grade}" for one in case.revisions)
    return Bar(pieces, said)


def _moment(view: View, alert: Alert) -> float:
    """Days and parts of one since 1970-01-01."""
    return (view.record.calendar.epoch_ms(alert.as_of) + view.record.config.offset_ms) / _DAY_MS


def _disposal(view: View, cases: list[Case]) -> str:
    words = view.words
    header = head(
        (words("grade"), ""), (words("alert"), ""), (words("opened"), ""), (words("standing"), ""),
        *((words(name), "") for name in _ANSWERS), (words("duties"), ""),
    )  # fmt: skip
    rows = []
    for case in cases:
        first, last = case.life.first, case.last
        ended = case.life.ended
        standing = words("open") if ended is None else f"{words('resolved')} {ended:%Y-%m-%d}"
        answers = [case.first_answer(name) for name in _ANSWERS]
        rows.append(row([
            cell(badge(case.life.level)),
            cell(f'<a href="#{text(first.id)}">{text(words.kind(last.kind))}</a><br>'
                 f"{text(_about(view, last))} {code(first.id)}", "text"),
            cell(f"{first.as_of:%Y-%m-%d %H:%M}", "v"),
            cell(text(standing), "v"),
            *(cell("–" if one is None else f"{one.arrival:%Y-%m-%d}<br>{code(one.disposition.by)}") for one in answers),
            cell(_duties(view, case), "v"),
        ]))  # fmt: skip
    return table(header, rows)


def _about(view: View, alert: Alert) -> str:
    if alert.source:
        return alert.source
    where = f"{view.words.of(alert.region_name)} · {view.words.of(alert.product_name)}"
    return f"{where} · {alert.hazard}" if alert.hazard else where


def _duties(view: View, case: Case) -> str:
    overdue = sum(duty.state == "overdue" for duty in case.duties)
    late = sum(duty.state == "late" for duty in case.duties)
    if overdue:
        return f'<span class="v below">{text(view.words("duty-overdue", count=overdue))}</span>'
    if late:
        return f'<span class="v short">{text(view.words("duty-late", count=late))}</span>'
    return f'<span class="v met">{view.words("duty-fine")}</span>' if case.duties else "–"


# --- charts --------------------------------------------------------------------------------------------------------


def charts_section(view: View) -> str:
    """A card for each alert with a series: its control chart, its evidence, who contributes, what happened. Then the
    single grave events, which have none, as a table."""
    words = view.words
    parts = [f'<section id="charts"><h2>{words("charts")}</h2>']
    if not view.cases:
        return "".join(parts) + f'<p class="soft">{words("no-alerts")}</p></section>'
    some = [case for case in view.cases if case.last.kind != "grave-event"]
    cases = some[: view.bounds.charts]
    if cases:
        parts.append(_legend(view))
        parts.append(f'<div class="cards">{"".join(_card(view, case) for case in cases)}</div>')
    if len(some) > len(cases):
        left = words("charts-left", count=f"{len(some) - len(cases):,}", why=words("charts-why"))
        parts.append(f'<p class="soft">{text(left)}</p>')
        # The timeline links to every alert it lists: those without a card lead here.
        parts += [f'<span id="{text(case.life.first.id)}"></span>' for case in some[len(cases) :]]
    return "".join(parts) + _graves(view) + "</section>"


def _graves(view: View) -> str:
    words = view.words
    cases = [case for case in view.cases if case.last.kind == "grave-event"]
    if not cases:
        return ""
    header = head((words("grade"), ""), (words("alert"), ""), (words("evidence"), ""), (words("history"), ""))
    rows = []
    for case in cases[: view.bounds.alerts]:
        facts = "; ".join(f"{one.detector} {_number(one.observed)}" for one in case.last.evidence)
        rows.append(
            f'<tr id="{text(case.last.id)}">'
            + cell(badge(case.life.level)) + cell(f"{_title(view, case.last)}<br>{code(case.last.id)}", "text")
            + cell(text(facts)) + cell(text(_history(view, case)), "text") + "</tr>"
        )  # fmt: skip
    left = [case.last.id for case in cases[view.bounds.alerts :]]
    rest = "".join(f'<span id="{text(name)}"></span>' for name in left)
    return f"<h3>{words('graves')}</h3>{table(header, rows)}{rest}"


def _legend(view: View) -> str:
    samples = (
        ("observed", '<path class="line" d="M0 7h26"/><circle class="dot" cx="13" cy="7" r="2.5"/>'),
        ("out", '<circle class="dot out" cx="13" cy="7" r="3.5"/>'),
        ("expected", '<path class="mean" d="M0 7h26"/>'),
        ("threshold", '<path class="limit" d="M0 7h26"/>'),
        ("interval", '<rect class="band" x="0" y="2" width="26" height="10"/>'),
        ("mark", '<g class="mark l3"><path d="M13 5v9"/><path class="flag" d="M13 8l-5 -8h10z"/></g>'),
        ("said", '<path class="said" d="M13 2l5 5l-5 5l-5 -5z"/>'),
    )
    items = (
        f'<span><svg viewBox="0 0 26 14" aria-hidden="true">{drawn}</svg>{text(view.words(f"legend-{name}"))}</span>'
        for name, drawn in samples
    )  # fmt: skip
    return f'<div class="legend">{"".join(items)}</div>'


def _card(view: View, case: Case) -> str:
    alert, words = case.last, view.words
    body = [
        f'<article class="card" id="{text(alert.id)}"><h3>{badge(case.life.level)} {_title(view, alert)}</h3>',
        _drawn(view, case),
        _evidence(view, alert),
        _facts(view, case),
        "</article>",
    ]
    if case.life.first.headline != alert.headline:
        body.insert(1, f'<p class="help">{words("opened")}{words.colon}{_title(view, case.life.first)}</p>')
    return "".join(body)


def _drawn(view: View, case: Case) -> str:
    words = view.words
    chart = chart_of(view.record, case.revisions, view.known)
    if chart is None:
        return f'<p class="soft">{words("no-series")}</p>'
    caption = _caption(view, chart)
    marks = [
        Mark(view.day_of(one.as_of), one.level, f"{one.as_of:%Y-%m-%d} {words(one.status)} {one.grade}",
             one.status == "resolved")
        for one in case.revisions
    ]  # fmt: skip
    said = caption if chart.threshold is not None else f"{caption}{words.stop}{words('no-threshold')}"
    label = f"{words.of(case.last.headline)}{words.colon}{caption}"
    drawn = draw(chart, marks, label, lambda day, value: f"{iso(day)}: {value}")
    return f'<p class="help">{text(said)}</p>{drawn}'


def _caption(view: View, chart: Chart) -> str:
    key = {"percent": "chart-rate", "points": "chart-index", "count": "chart-count", "deviations": "chart-drift",
           "ratio": "chart-slide"}  # fmt: skip
    against = view.words(f"{chart.against}-ref")
    return view.words(key[chart.unit], days=chart.window_days, against=against)


def _evidence(view: View, alert: Alert) -> str:
    words = view.words
    if not alert.evidence:
        return ""
    best = strongest(alert)
    header = head(
        (words("detector"), ""), (words("against"), ""), (words("window"), "num"), (words("observed"), "num"),
        (words("expected"), "num"), (words("p-value"), "num"),
    )  # fmt: skip
    rows = []
    told = [one for one in alert.evidence if one is best or one.tested != 0]
    for one in sorted(told, key=lambda one: one is not best)[:3]:
        observed = _number(one.observed) + ("" if one.tested is None else f"/{one.tested:,}")
        chance = "–" if one.p_value is None else f"{one.p_value:.2g}"
        if one.p_value is None and one.e_value is not None:
            chance = f"e {one.e_value:.3g}"
        rows.append(row([
            cell(code(one.detector)), cell(text(words(f"{one.against}-ref"))),
            cell(text(words("days", count=one.window_days)) if one.window_days else "–", "num"),
            cell(observed, "num"), cell("–" if one.expected is None else _number(one.expected), "num"),
            cell(chance, "num"),
        ]))  # fmt: skip
    return table(header, rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _facts(view: View, case: Case) -> str:
    words, alert = view.words, case.last
    facts = [(words("history"), _history(view, case))]
    some = alert.contributors
    if some:
        ranked = sorted(some, key=lambda one: (-one.adverse, one.role, one.code))[:_CONTRIBUTORS]
        said = "; ".join(f"{words(one.role)} {one.code} ({one.adverse:,})" for one in ranked)
        facts.append((words("contributors"), said))
    facts.append(("ID", alert.id))
    items = "".join(f"<dt>{text(name)}</dt><dd>{text(said)}</dd>" for name, said in facts)
    return f'<dl class="facts">{items}</dl>'


def _history(view: View, case: Case) -> str:
    shown = case.revisions[-_REVISIONS:]
    return "; ".join(f"{one.as_of:%Y-%m-%d} {view.words(one.status)} {one.grade}" for one in shown)
