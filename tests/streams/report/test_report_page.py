"""The page: complete in both languages, the same every time, closed to the outside, and deaf to what others wrote."""

from __future__ import annotations

import re
from datetime import date
from html.parser import HTMLParser

import msgspec
import pytest
from builders import DAY, START, Raw, body, encoded, numbered, world_config
from held import Held
from report_world import alerts_of, view_of, world_of

from schemas.alerts import Alert, Text
from schemas.catalogue import Catalogue
from schemas.errors import TocsinError
from streams.report.page import render
from streams.report.periods import between
from streams.report.record import gather
from streams.report.style import STYLE
from streams.report.view import Bounds, assemble
from streams.report.words import WORDS, Language

SPRING = between(date(2024, 3, 1), date(2024, 5, 15))
VOID = {"meta", "link", "br", "path", "circle", "rect"}
LANGUAGES: tuple[Language, ...] = ("zh", "en")


class Page(HTMLParser):
    """Elements with their attributes, and whether each that was opened was closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID or ((self.get_starttag_text() or "").endswith(">") and tag in ("path", "circle", "rect")):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def ids(self) -> list[str]:
        return [str(attrs["id"]) for _, attrs in self.elements if "id" in attrs]


def test_every_text_is_there_in_both_languages_and_with_the_same_gaps() -> None:
    for zh, en in WORDS.values():
        assert zh
        assert en
        assert set(re.findall(r"\{(\w+)\}", zh)) == set(re.findall(r"\{(\w+)\}", en))
    assert all(zh != en for key, (zh, en) in WORDS.items() if key != "gtin")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_has_every_section_and_leads_nowhere_else(language: Language) -> None:
    view = view_of(0, SPRING, language=language)
    text = render(view)
    page = Page(text)
    assert dict(page.elements)["html"]["lang"] == ("zh-CN" if language == "zh" else "en")
    assert {"summary", "status", "matrix", "alerts", "charts", "sources", "notes"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    for tag, attrs in page.elements:
        assert tag not in ("script", "iframe", "img", "object", "embed", "base", "form")
        assert not any(name.startswith("on") or name in ("style", "srcset", "action") for name in attrs)
        for name in ("href", "src", "xlink:href"):
            target = attrs.get(name)
            if target is not None:
                assert target == "data:," or (target.startswith("#") and target[1:] in page.ids), target
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "//" not in text.replace("<!doctype html>", "").replace("://", "") or "http" not in text
    graves = [case.last.id for case in view.cases if case.last.kind == "grave-event"]
    assert graves
    assert set(graves) <= set(page.ids)
    assert sum(tag == "article" for tag, _ in page.elements) == len(view.cases) - len(graves)
    assert sum(attrs.get("class") == "life" for _, attrs in page.elements) == len(view.cases)


def test_what_was_done_about_an_alert_stands_beside_it() -> None:
    view = view_of(0, SPRING)
    text = render(view)
    answered = [case for case in view.cases if case.answers]
    assert answered
    for case in answered:
        first = case.answers[0]
        assert f'{first.arrival:%Y-%m-%d}<br><span class="code">{first.disposition.by}</span>' in text
    overdue = sum(duty.state == "overdue" for case in view.cases for duty in case.duties)
    assert f'<span class="name">Duties overdue</span><b>{overdue:,}</b>' in text
    assert {duty.stage for case in view.cases for duty in case.duties} >= {"first-report", "assess", "dispose", "close"}


def test_the_matrix_bears_the_gravest_alert_on_each_cell_or_below_it() -> None:
    view = view_of(1, SPRING)
    found = view.gravest()
    for (region, product), level in found.items():
        mine = [case for case in view.cases if case.last.product.startswith(product) and case.last.region == region]
        assert min(case.life.level for case in mine) == level
    assert any(region == "120000" for region, _ in found)
    assert any(len(product) == 1 and region != "120000" for region, product in found)


def test_the_same_record_gives_the_same_bytes_however_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    first = render(view_of(1, SPRING))
    monkeypatch.setattr("streams.report.record._BATCH", 7)
    shuffled = dict(reversed(world_of(1).raw.items()))
    assert render(view_of(1, SPRING, raw=shuffled)) == first


def test_what_came_from_outside_is_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script>\"'&<u>"
    rows = [
        body("inspections", f"e{n}", START + n * DAY, lab=evil, product=f"{evil}x", region="r&<i>", batch=evil)
        for n in range(40)
    ]
    raw: Raw = {("inspections", 0): numbered([(START + n * DAY, encoded(row)) for n, row in enumerate(rows)])}
    catalogue = Catalogue.open("open")
    gathered = gather(Held(raw), world_config(catalogue="open"), catalogue)  # type: ignore[arg-type]
    sample = alerts_of(0)[0]
    alert = msgspec.structs.replace(
        sample, id=f"x{evil}", source=evil, headline=Text(zh=evil, en=evil), product=f"{evil}x", region="r&<i>",
        as_of=gathered.calendar.moment(START + 30 * DAY), onset=gathered.calendar.moment(START + 30 * DAY),
    )  # fmt: skip
    for language in LANGUAGES:
        view = assemble(gathered, [alert], between(date(2024, 1, 1), date(2024, 3, 1)), language, Bounds())
        text = render(view)
        page = Page(text)
        assert "<script" not in text
        assert "<u>" not in text
        assert "<i>" not in text
        assert any(evil in said for said in page.said)
        assert f"x{evil}" in page.ids


def test_what_there_is_no_room_for_is_counted() -> None:
    view = view_of(0, SPRING, bounds=Bounds(charts=2, alerts=3, sources=1))
    text = render(view)
    page = Page(text)
    assert len(view.cases) > 3
    assert sum(tag == "article" for tag, _ in page.elements) == 2
    assert f"{len(view.cases) - 3} milder alerts more are not listed" in text
    charted = [case for case in view.cases if case.last.kind != "grave-event"]
    assert f"{len(charted) - 2} alerts more have no chart here" in text
    assert "sources that sent less are not listed" in text
    levels = [case.life.level for case in view.cases]
    assert levels == sorted(levels)


def test_without_alerts_or_without_the_period_the_page_says_so() -> None:
    made = world_of(0)
    gathered = gather(Held(made.raw), made.config, made.catalogue)  # type: ignore[arg-type]
    quiet = assemble(gathered, [], SPRING, "en", Bounds())
    assert render(quiet).count("No alert stood in the period.") == 2
    with pytest.raises(TocsinError, match="the period begins on 2030-01-01; the record ends on"):
        assemble(gathered, [], between(date(2030, 1, 1), date(2031, 1, 1)), "en", Bounds())
    empty = gather(Held({("surveys", 0): []}), made.config, made.catalogue)  # type: ignore[arg-type]
    with pytest.raises(TocsinError, match="nothing to report"):
        assemble(empty, [], None, "en", Bounds())
    years_before = assemble(gathered, [], between(date(2020, 1, 1), date(2020, 2, 1)), "zh", Bounds())
    assert "报告期内没有数据到达" in render(years_before)


def test_by_default_the_page_is_about_the_quarter_of_the_last_event() -> None:
    made = world_of(0)
    gathered = gather(Held(made.raw), made.config, made.catalogue)  # type: ignore[arg-type]
    late = msgspec.structs.replace(alerts_of(0)[0], revision=99, status="resolved",
                                   as_of=gathered.calendar.moment(START + 900 * DAY))  # fmt: skip
    view = assemble(gathered, [*alerts_of(0), late], None, "en", Bounds())
    assert view.period.name == "2024-Q3"  # late copies and corrections come until July
    assert view.known > view.period.days[1]


def test_alerts_of_another_configuration_are_told() -> None:
    made = world_of(0)
    gathered = gather(Held(made.raw), made.config, made.catalogue)  # type: ignore[arg-type]
    first: Alert = next(one for one in alerts_of(0) if one.kind == "pass-rate")
    foreign = msgspec.structs.replace(
        first, provenance=msgspec.structs.replace(first.provenance, config="0123456789abcdef")
    )
    text = render(assemble(gathered, [foreign], None, "en", Bounds()))
    assert "made under another configuration (0123456789abcdef)" in text
