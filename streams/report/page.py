"""The page as a whole. It needs nothing but itself: no script, no font, no picture from elsewhere, and its policy
forbids what might have slipped in."""

from __future__ import annotations

from typing import Final

from streams.escalate import VERSION
from streams.report.alert_sections import alerts_section, charts_section
from streams.report.markup import badge, cell, code, head, row, table, text
from streams.report.periods import Span, iso
from streams.report.sources import by_kind, refusals, reporters
from streams.report.standing import standings
from streams.report.status import matrix_section, status_section, summary_section
from streams.report.style import POLICY, STYLE
from streams.report.view import Case, View

__all__ = ["render"]

_SECTIONS: Final = ("summary", "status", "matrix", "alerts", "charts", "sources", "notes")
_SOURCE_KINDS: Final = ("silent-source", "lab-drift")
_QUIET_DAYS: Final = 14


def render(view: View) -> str:
    """The whole page: the same text for the same record."""
    words = view.words
    stand = standings(view.record, view.told_period)
    city = stand[0] if stand else None
    place = view.region(city.region) if city is not None else ""
    body = [
        summary_section(view, city),
        status_section(view, stand),
        matrix_section(view),
        alerts_section(view),
        charts_section(view),
        _sources_section(view),
        _notes_section(view),
    ]
    title = f"{place}{'' if words.language == 'zh' else ' '}{words('title')} {view.period.name}".strip()
    nav = "".join(f'<li><a href="#{name}">{text(words(name))}</a></li>' for name in _SECTIONS)
    return (
        f'<!doctype html>\n<html lang="{words.code}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{text(POLICY)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{text(title)} · Tocsin</title><style>{STYLE}</style></head>\n"
        f'<body><header><h1>{text(title)}</h1>{_dates(view)}<nav aria-label="{words("contents")}"><ul>{nav}</ul></nav>'
        f"</header>\n<main>{chr(10).join(body)}</main>\n<footer>{_provenance(view)}</footer></body></html>\n"
    )


def _said(view: View, span: Span) -> str:
    return view.words("to", first=iso(span[0]), last=iso(span[1] - 1))


def _dates(view: View) -> str:
    words, told = view.words, view.told_period
    lines = [words("period", first=iso(view.period.days[0]), last=iso(view.period.days[1] - 1))]
    lines.append(words("compared", before=_said(view, told.before), year=_said(view, told.year_before)))
    lines.append(words("as-of", moment=f"{view.record.calendar.moment(view.known_ms):%Y-%m-%d %H:%M}"))
    if told.days != view.period.days:
        lines.append(words("unfinished", last=iso(told.days[1] - 1)))
    begins = view.record.first_day
    if begins is not None and begins > min(told.before[0], told.year_before[0]):
        lines.append(words("begins", first=iso(begins)))
    return "".join(f"<p>{text(line)}</p>" if not at else f'<p class="soft">{text(line)}</p>'
                   for at, line in enumerate(lines))  # fmt: skip


def _provenance(view: View) -> str:
    record = view.record
    catalogue = f"{record.catalogue.name}@{record.catalogue.digest[:12]}"
    said = view.words("from", config=record.config.digest, catalogue=catalogue, version=VERSION)
    other = sorted({case.last.provenance.config for case in view.cases} - {record.config.digest})
    more = f"<p>{text(view.words('other-config', configs=', '.join(other[:5])))}</p>" if other else ""
    return f"<p>{text(said)}</p>{more}"


# --- data quality --------------------------------------------------------------------------------------------------


def _sources_section(view: View) -> str:
    words, span = view.words, view.told
    kinds = by_kind(view.record, span)
    parts = [f'<section id="sources"><h2>{words("sources")}</h2>']
    if not kinds:
        return "".join(parts) + f'<p class="soft">{words("nothing-arrived")}</p></section>'
    columns = ("arrived", "counted", "refused", "corrections", "withdrawn", "delay")
    header = head((words("topic"), ""), *((words(name), "num") for name in columns))
    rows = []
    for one in kinds:
        delay = "–" if one.median_delay is None else f"{one.median_delay} | {one.late_delay}"
        facts = (one.arrived, one.counted, one.refused, one.corrections, one.withdrawn)
        name = f'<th scope="row">{text(words(one.topic))}</th>'
        rows.append(row([name, *(cell(f"{fact:,}", "num") for fact in facts), cell(delay, "num")]))
    parts += [f"<h3>{words('by-kind')}</h3>", table(header, rows), _refused(view), _silences(view), _reporters(view)]
    return "".join(parts) + "</section>"


def _refused(view: View) -> str:
    words, some = view.words, refusals(view.record, view.told)
    parts = [f"<h3>{words('why-refused')}</h3>"]
    if not some:
        return parts[0] + f'<p class="soft">{words("nothing-refused")}</p>'
    header = head((words("topic"), ""), (words("reason"), ""), (words("field"), ""), (words("count"), "num"))
    rows = [
        row([cell(text(words(topic))), cell(code(reason)), cell(code(field)), cell(f"{count:,}", "num")])
        for (topic, reason, field), count in some[: view.bounds.reasons]
    ]
    parts.append(table(header, rows))
    if len(some) > view.bounds.reasons:
        parts.append(f'<p class="soft">{words("reasons-left", count=len(some) - view.bounds.reasons)}</p>')
    return "".join(parts)


def _silences(view: View) -> str:
    words = view.words
    mine = [case for case in view.cases if case.last.kind in _SOURCE_KINDS]
    if not mine:
        said = f'<p class="soft">{words("no-source-alerts")}</p>'
    else:
        said = f"<ul>{''.join(_silence(view, case) for case in mine[: view.bounds.alerts])}</ul>"
    return f"<h3>{words('source-alerts')}</h3>{said}"


def _silence(view: View, case: Case) -> str:
    first = case.life.first
    standing = view.words("open") if case.life.ended is None else f"{view.words('resolved')} {case.life.ended:%Y-%m-%d}"
    link = f'<a href="#{text(first.id)}">{text(view.words.of(first.headline))}</a>'
    return f"<li>{badge(case.life.level)} {first.as_of:%Y-%m-%d} {link} ({text(standing)})</li>"


def _reporters(view: View) -> str:
    words, span = view.words, view.told
    every = reporters(view.record, span)
    some = every[: view.bounds.sources]
    columns = (("source", ""), ("sends", ""), ("arrived", "num"), ("corrections", "num"), ("tested", "num"),
               ("failed", "num"), ("delay", "num"), ("last-report", ""))  # fmt: skip
    rows = []
    for one in some:
        quiet = span[1] - 1 - one.last_day
        last = iso(one.last_day) if one.last_day >= 0 else "–"
        if quiet >= _QUIET_DAYS:
            last += f'<br><span class="v short">{text(words("quiet-for", days=quiet))}</span>'
        failed = f"{100 * one.failed / one.tested:.2f}%" if one.tested else "–"
        rows.append(row([
            f'<th scope="row">{code(one.code)}</th>', cell(text(", ".join(words(topic) for topic in one.topics))),
            cell(f"{one.arrived:,}", "num"), cell(f"{one.corrections:,}", "num"),
            cell(f"{one.tested:,}" if one.tested else "–", "num"), cell(failed, "num"),
            cell(f"{one.median_delay} | {one.late_delay}", "num"), cell(last, "v"),
        ]))  # fmt: skip
    parts = [f"<h3>{words('by-source')}</h3>", table(head(*((words(key), kind) for key, kind in columns)), rows)]
    if len(every) > len(some):
        parts.append(f'<p class="soft">{text(words("sources-left", count=f"{len(every) - len(some):,}"))}</p>')
    return "".join(parts)


def _notes_section(view: View) -> str:
    words = view.words
    notes = "".join(f"<li>{text(words(f'note-{name}'))}</li>" for name in ("counting", "target", "interval", "charts"))
    marks = " · ".join(f"{mark} {words(name)}" for name, mark in (("met", "●"), ("short", "◐"), ("below", "○")))
    return f'<section id="notes"><h2>{words("notes")}</h2><p>{text(marks)}</p><ul class="help">{notes}</ul></section>'
