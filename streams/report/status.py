"""The sections on how things stand: the summary, the status by region, worst and best, the matrix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from streams.columns import INDICATORS
from streams.report.markup import badge, cell, code, head, row, signed, table, text
from streams.report.sources import refusals
from streams.report.standing import COUNTS, RATES, Cell, Figure, Standing, matrix, rank
from streams.report.view import View

__all__ = ["matrix_section", "status_section", "summary_section"]

_MARKS: Final = {"met": "●", "short": "◐", "below": "○", "none": ""}
"""So that the verdict does not hang on its colour alone."""


def shown(indicator: str, value: float | None, decimals: int = 2) -> str:
    """A rate for people; a dash for none."""
    if value is None:
        return "–"
    return f"{value:.{decimals}f}" if indicator == "satisfaction" else f"{100 * value:.{decimals}f}%"


def _size(view: View, indicator: str, one: Figure) -> str:
    key = {"pass": "of-tested", "satisfaction": "of-asked", "loss": "of-output"}[indicator]
    return view.words(key, n=f"{one.n:,}", x=f"{one.x:,}")


def _change(indicator: str, one: Figure, past: float | None) -> str:
    if one.value is None or past is None:
        return "–"
    return signed((one.value - past) * (1 if indicator == "satisfaction" else 100), 2)


def _said_change(view: View, indicator: str, one: Figure, past: float | None) -> str:
    change = _change(indicator, one, past)
    return change if indicator == "satisfaction" else view.words("points-change", change=change)


# --- summary -------------------------------------------------------------------------------------------------------


def summary_section(view: View, city: Standing | None) -> str:
    """Tiles: the three indicators of the city, and what the period brought."""
    words = view.words
    tiles = [_rate_tile(view, name, city) for name in RATES]
    span = view.period.days
    events = sum(len(view.record.rows(name, span)) for name in INDICATORS)
    opened = [case for case in view.cases if view.day_of(case.life.opened) >= span[0]]
    open_now = [case for case in view.cases if case.life.ended is None]
    late = sum(duty.state == "overdue" for case in view.cases for duty in case.duties)
    refused = sum(count for _, count in refusals(view.record, span))
    tiles += [
        _tile(words("events"), f"{events:,}"),
        _tile(words("alerts-opened"), f"{len(opened):,}", _grades(case.life.level for case in opened)),
        _tile(words("alerts-open"), f"{len(open_now):,}", _grades(case.last.level for case in open_now)),
        _tile(words("overdue"), f"{late:,}", kind="below" if late else ""),
        _tile(words("refused-records"), f"{refused:,}"),
    ]
    return f'<section id="summary"><h2>{words("summary")}</h2><div class="tiles">{"".join(tiles)}</div></section>'


def _tile(name: str, value: str, more: str = "", kind: str = "") -> str:
    extra = f"<span>{more}</span>" if more else ""
    return f'<div class="tile {kind}"><span class="name">{text(name)}</span><b>{value}</b>{extra}</div>'


def _rate_tile(view: View, indicator: str, city: Standing | None) -> str:
    words, one = view.words, None if city is None else city.rates.get(indicator)
    if one is None or one.value is None:
        return _tile(words(indicator), "–", words("no-rate"))
    asked = [_verdict(view, indicator, one)] if one.verdict != "none" else []
    past = [
        f"{words(key)} {_said_change(view, indicator, one, value)}"
        for key, value in (("before", one.before), ("year-before", one.year_before))
        if value is not None
    ]
    said = " · ".join(past) or words("nothing-before")
    return _tile(words(indicator), shown(indicator, one.value), "<br>".join([*asked, text(said)]), one.verdict)


def _grades(levels: Iterable[int]) -> str:
    held = list(levels)
    return " ".join(f"{badge(level)} {held.count(level)}" for level in sorted(set(held)))


def _verdict(view: View, indicator: str, one: Figure) -> str:
    words = view.words
    if one.verdict == "none":
        return f'<span class="v none">{words("none")}</span>'
    target = shown(indicator, one.target, 3 if indicator == "loss" else 1)
    aim = words("falls", value=target) if indicator == "loss" else f"{words('target')} {target}"
    return f'<span class="v {one.verdict}">{_MARKS[one.verdict]} {text(words(one.verdict))}</span> ({text(aim)})'


# --- status --------------------------------------------------------------------------------------------------------


def status_section(view: View, standings: list[Standing]) -> str:
    """Rates and counts by region; then the worst and best cells of each indicator that has any."""
    words = view.words
    shown_rates = [name for name in RATES if any(one.rates.get(name) for one in standings)]
    parts = [f'<section id="status"><h2>{words("status")}</h2>']
    if shown_rates:
        parts += [f"<h3>{words('rates-by-region')}</h3>", f'<p class="help">{text(words("changes"))}</p>']
        parts.append(_rates_table(view, standings, shown_rates))
    parts += [f"<h3>{words('counts-by-region')}</h3>", _counts_table(view, standings)]
    parts += [_ranked(view, name) for name in shown_rates]
    return "".join(parts) + "</section>"


def _label(view: View, region: str) -> str:
    return f'<th scope="row">{text(view.region(region))}</th>'


def _rates_table(view: View, standings: list[Standing], names: list[str]) -> str:
    words = view.words
    columns = (("value", ""), ("target", ""), ("before", "num"), ("year-before", "num"))
    top = "".join(f'<th class="group" colspan="4" scope="colgroup">{text(words(name))}</th>' for name in names)
    below = "".join(
        f'<th scope="col" class="{"first " if not at else ""}{kind}">{text(words(key))}</th>'
        for _ in names
        for at, (key, kind) in enumerate(columns)
    )
    header = f'<tr><th rowspan="2" scope="col">{words("region")}</th>{top}</tr><tr>{below}</tr>'
    rows = []
    for number, one in enumerate(standings):
        cells = [_label(view, one.region)]
        for name in names:
            cells += _rate_cells(view, name, one.rates.get(name))
        rows.append(row(cells, "total" if not number else ""))
    return table(header, rows)


def _rate_cells(view: View, indicator: str, one: Figure | None) -> list[str]:
    if one is None or one.value is None:
        return [cell(f'<span class="soft">{view.words("no-data")}</span>', "first"), cell(""), cell(""), cell("")]
    decimals = 3 if indicator == "loss" else 2
    tip = _size(view, indicator, one)
    if one.lower is not None and one.upper is not None:
        ends = f"{shown(indicator, one.lower)}–{shown(indicator, one.upper)}"
        tip += f"; {view.words('interval')} {ends}"
    mark = _MARKS[one.verdict]
    target = f'<span class="v {one.verdict}" title="{text(view.words(one.verdict))}">{mark} ' + (
        f"{shown(indicator, one.target, 3 if indicator == 'loss' else 1)}</span>"
        if one.target is not None
        else f"{view.words('none') if indicator != 'loss' else '–'}</span>"
    )
    return [
        f'<td class="first num" title="{text(tip)}">{shown(indicator, one.value, decimals)}</td>',
        cell(target),
        cell(_change(indicator, one, one.before), "num"),
        cell(_change(indicator, one, one.year_before), "num"),
    ]


def _counts_table(view: View, standings: list[Standing]) -> str:
    words = view.words
    columns = ("value", "was-before", "was-year-before")
    top = "".join(f'<th class="group" colspan="3" scope="colgroup">{text(words(name))}</th>' for name in COUNTS)
    below = "".join(
        f'<th scope="col" class="{"first " if not at else ""}num">{text(words(key))}</th>'
        for _ in COUNTS
        for at, key in enumerate(columns)
    )
    header = f'<tr><th rowspan="2" scope="col">{words("region")}</th>{top}</tr><tr>{below}</tr>'
    begins = view.record.first_day
    spans = (view.told_period.days, view.told_period.before, view.told_period.year_before)
    known = [begins is not None and span[1] > begins for span in spans]
    rows = []
    for number, one in enumerate(standings):
        cells = [_label(view, one.region)]
        for name in COUNTS:
            for at, (count, there) in enumerate(zip(one.counts[name], known, strict=True)):
                cells.append(cell(f"{count:,}" if there else "–", "num" if at else "first num"))
        rows.append(row(cells, "total" if not number else ""))
    return table(header, rows)


def _ranked(view: View, indicator: str) -> str:
    words = view.words
    found = rank(view.record, view.told_period, indicator, view.bounds.ranked)
    title = f"<h3>{text(words('worst-best', indicator=words(indicator)))}</h3>"
    if not found.worst:
        return f'{title}<p class="soft">{words("no-cells")}</p>'
    said = f'<p class="help">{text(words("of-cells", cells=f"{found.cells:,}"))}</p>'
    tables = "".join(
        f"<div>{_ranked_table(view, indicator, words(name), cells)}</div>"
        for name, cells in (("worst", found.worst), ("best", found.best))
    )
    return f'{title}{said}<div class="pair">{tables}</div>'


def _ranked_table(view: View, indicator: str, title: str, cells: tuple[Cell, ...]) -> str:
    words = view.words
    columns = [(title, ""), (words(indicator), "num")]
    if indicator != "loss":
        columns += [(words("interval"), "num"), (words("target"), "")]
    return table(head(*columns), (_ranked_row(view, indicator, one) for one in cells))


def _ranked_row(view: View, indicator: str, one: Cell) -> str:
    figure = one.figure
    name = f"{text(view.region(one.region))} · {text(view.product(one.product))} {code(one.product)}"
    value = shown(indicator, figure.value, 3 if indicator == "loss" else 2)
    cells = [cell(name, "text"), f'<td class="num" title="{text(_size(view, indicator, figure))}">{value}</td>']
    if figure.lower is not None and figure.upper is not None:
        ends = f"{shown(indicator, figure.lower, 1)}–{shown(indicator, figure.upper, 1)}"
        target = "–"
        if figure.target is not None:
            target = f'<span class="v {figure.verdict}">{_MARKS[figure.verdict]} '
            target += f"{shown(indicator, figure.target, 1)}</span>"
        cells += [cell(ends, "num"), cell(target)]
    return row(cells)


# --- matrix --------------------------------------------------------------------------------------------------------


def matrix_section(view: View) -> str:
    """Districts by branches, each cell with its rate or count and the gravest alert on it or below it."""
    words, bounds = view.words, view.bounds
    found = matrix(view.record, view.told_period, (bounds.regions, bounds.branches))
    parts = [f'<section id="matrix"><h2>{words("matrix")}</h2>']
    if not found.regions:
        return "".join(parts) + f'<p class="soft">{words("nothing-arrived")}</p></section>'
    rate, gravest = found.indicator == "pass", view.gravest()
    said = words("matrix-rate") if rate else words("matrix-count", indicator=words(found.indicator))
    header = "<tr><th></th>" + "".join(
        f'<th scope="col">{text(view.product(product))}</th>' for product in found.products
    )
    rows = []
    for number, region in enumerate(found.regions):
        cells = [_label(view, region)]
        for product in found.products:
            one = found.cells.get((region, product))
            level = gravest.get((region, product))
            cells.append(_matrix_cell(view, one, level, rate=rate))
        rows.append(row(cells, "total" if not number and len(found.regions) > 1 else ""))
    parts += [f'<p class="help">{text(said)}</p>', table(f"{header}</tr>", rows, "matrix")]
    if any(found.left_out):
        left = words("matrix-left", regions=f"{found.left_out[0]:,}", products=f"{found.left_out[1]:,}")
        parts.append(f'<p class="soft">{text(left)}</p>')
    return "".join(parts) + "</section>"


def _matrix_cell(view: View, one: Figure | None, level: int | None, *, rate: bool) -> str:
    ring = "" if level is None else badge(level)
    if one is None:
        return cell(ring or '<span class="soft">·</span>')
    value = f"{100 * one.value:.1f}" if rate and one.value is not None else f"{one.n:,}"
    tip = text(_size(view, "pass", one)) if rate else ""
    return f'<td class="{one.verdict}" title="{tip}">{value}{ring}</td>'
