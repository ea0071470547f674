"""The upload page: what it says, in both languages; what it must not do; and how it looks in a real browser."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from browser import Browser
from lims_export import MAPPING, build
from serving import CATALOGUE, EVENT, Client, records, running, service

from schemas.events import EVENT_TYPES, KINDS
from streams.api.kept import KeptReports
from streams.api.limits import Limits
from streams.api.page import POLICY, csv_lines, form_page, template_csv
from streams.api.page_text import FIELD_NAMES, TEXT
from streams.api.reasons import REASONS
from streams.api.submit import Verdict
from streams.mapping import Mapping
from streams.tokens import add_token

ROOT = Path(__file__).resolve().parents[3]
TAB, ENTER = "\ue004", "\ue007"
FIELDS = {"kind": "inspection", "encoding": "UTF-8"}
HEADER = ",".join(EVENT)


def table(*events: dict[str, Any]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(EVENT))
    writer.writeheader()
    writer.writerows(events)
    return out.getvalue().encode()


class _Page(HTMLParser):
    """Elements with their attributes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


# --- words ---------------------------------------------------------------------------------------------------------


def test_every_text_is_there_in_both_languages_and_with_the_same_gaps() -> None:
    assert TEXT["zh"].keys() == TEXT["en"].keys()
    for name, text in TEXT["en"].items():
        assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", TEXT["zh"][name])), name


def test_every_field_of_an_event_has_a_name_in_chinese() -> None:
    assert {one.name for kind in EVENT_TYPES.values() for one in msgspec.structs.fields(kind)} == FIELD_NAMES.keys()


def test_every_reason_for_which_a_row_can_be_refused_has_words() -> None:
    raised: set[str] = set()
    for folder in ("streams", "schemas"):
        for file in (ROOT / folder).rglob("*.py"):
            raised.update(re.findall(r'Rejection\(\s*"([a-z0-9-]+)"', file.read_text("utf-8")))
    raised |= {"bad-time", "unknown-value", "bad-length", "bad-text", "out-of-range", "wrong-type", "invalid"}
    assert len(raised) > 20
    assert raised <= REASONS.keys()


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_every_control_has_a_label_and_nothing_comes_from_elsewhere(lang: Any) -> None:
    page = _Page(form_page(lang, Limits(), {"lims": "inspection"}, secured=True))
    labels = {attrs["for"] for tag, attrs in page.elements if tag == "label"}
    ids = {attrs["id"] for tag, attrs in page.elements if "id" in attrs}
    controls = [attrs for tag, attrs in page.elements if tag in ("input", "select")]
    assert len(controls) == 5
    for attrs in controls:
        assert attrs["id"] in labels
        assert attrs.get("aria-describedby", attrs["id"]) in ids
    assert not [tag for tag, _ in page.elements if tag in ("script", "img", "iframe")]
    links = [attrs.get("href") or attrs.get("src") or attrs.get("action") or "" for _, attrs in page.elements]
    assert all(link.startswith(("/", "data:,")) for link in links if link)
    assert not any(name.startswith("on") or name == "style" for _, attrs in page.elements for name in attrs)


# --- the form ------------------------------------------------------------------------------------------------------


def test_the_page_answers_in_the_language_of_the_browser_or_of_the_address(tmp_path: Path) -> None:
    with running(service(tmp_path / "data")) as port:
        client = Client(port)
        for path, accept, lang in (("/", "zh-CN,zh", "zh-CN"), ("/", "en-GB", "en"), ("/?lang=en", "zh", "en"),
                                   ("/", "fr", "zh-CN"), ("/?lang=zh", "en", "zh-CN")):  # fmt: skip
            answer = client.get(path, Accept_Language=accept)
            assert f'<html lang="{lang}">' in answer.body.decode()
            assert answer.headers["content-security-policy"] == POLICY
            assert "unsafe" not in POLICY


def test_markup_and_formulas_in_a_file_stay_text(tmp_path: Path) -> None:
    evil = {**EVENT, "product": "<img src=x onerror=alert(1)>", "event_id": "=cmd|' /C calc'!A0"}
    with running(service(tmp_path / "data")) as port:
        client = Client(port)
        page = client.form(FIELDS, ("<b>.csv", table(EVENT, evil))).body.decode()
        assert "<img" not in page
        assert "&lt;img src=x" in page
        link = re.search(r'href="(/rejected/[^"]+)"', page)
        assert link is not None
        told = client.get(link[1])
    assert told.headers["content-disposition"].startswith("attachment")
    (row,) = csv.DictReader(io.StringIO(told.body.decode("utf-8-sig")))
    assert (row["line"], row["field"], row["reason"]) == ("3", "product", "unknown-code")


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "＝1"])
def test_no_cell_of_the_download_is_a_formula(start: str) -> None:
    (line,) = csv_lines([Verdict(line=2, verdict="rejected", reason=start, field=start, detail=f'{start}"x')])
    (cells,) = csv.reader(io.StringIO(line))
    assert not any(cell[:1] in tuple("=+-@\t\r＝") for cell in cells)
    assert cells[1] == f"'{start}"


def test_who_may_not_is_told_on_a_page_before_the_file_is_read(tmp_path: Path) -> None:
    _, token = add_token(tmp_path / "t.json", "o", ("submit",), kinds=("loss",))
    with running(service(tmp_path / "data", tmp_path / "t.json")) as port:
        client = Client(port)
        file = ("a.csv", table(EVENT))
        assert client.form(FIELDS, file).status == 401
        assert client.form({**FIELDS, "token": token}, file).status == 403
        assert client.form({**FIELDS, "token": "x" * 2_000}, file).status == 400
        answer = client.form({**FIELDS, "kind": "loss", "token": token}, ("a.exe", b"x"))
        assert answer.status == 415
        assert answer.headers["content-type"].startswith("text/html")
        assert client.form({**FIELDS, "kind": "<b>", "token": token}, file).status == 404
        assert client.form({**FIELDS, "token": token}, None).status == 400
        odd = client.ask("POST", "/", b"junk", {"Content-Type": "multipart/form-data; boundary=x"})
        assert odd.status == 400
        assert client.ask("POST", "/", b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}).status == 415
    assert records(tmp_path / "data", "inspections") == []


def test_an_empty_table_has_the_columns_of_its_kind(tmp_path: Path) -> None:
    with running(service(tmp_path / "data")) as port:
        for kind in KINDS:
            answer = Client(port).get(f"/templates/{kind}.csv")
            assert answer.body.decode() == template_csv(kind)
            assert answer.body.decode("utf-8-sig").startswith("event_id,source,reported_at,product,region")
        assert Client(port).get("/templates/none.csv").status == 404
        assert Client(port).get("/rejected/AAAA.csv").status == 404


def test_reports_are_kept_for_a_while_and_not_too_many(tmp_path: Path) -> None:
    now = 0.0
    kept = KeptReports(clock=lambda: now)

    def add() -> str:
        file = tmp_path / "verdicts"
        file.write_bytes(b"{}")
        return kept.add(file)

    first = add()
    assert kept.find(first) is not None
    more = [add() for _ in range(100)]
    assert kept.find(first) is None
    assert kept.find(more[0]) is not None
    now = 3_600.0
    assert kept.find(more[-1]) is None
    kept.close()


# --- in a browser --------------------------------------------------------------------------------------------------


def test_a_table_is_uploaded_by_keyboard_and_its_bad_rows_are_shown_on_wide_and_narrow_screens(
    tmp_path: Path, browser: Browser
) -> None:
    export = build(3, 700, share=0.04)
    file = tmp_path / "导出.csv"
    file.write_bytes(export.chinese())
    _, token = add_token(tmp_path / "t.json", "o", ("submit",), sources=("lab-07",), labs=("lab-07",))
    mappings = {"lims": Mapping.parse(MAPPING, "lims.toml")}
    with running(service(tmp_path / "data", tmp_path / "t.json", mappings=mappings, catalogue=CATALOGUE)) as port:
        browser.size(1_280, 900)
        browser.go(f"http://127.0.0.1:{port}/?lang=zh")
        _picture(browser, tmp_path, "form-zh")
        browser.type("#file", str(file))
        # From the head of the page: language, kind, token, mapping (one down), encoding, file, button.
        browser.keys(TAB, TAB, TAB, *token, TAB, "\ue015", TAB, TAB, TAB, ENTER)
        for _ in range(600):
            if "已接受" in browser.text("main"):
                break
        assert f"{export.good:,}" in browser.text("section[role=status]")
        assert browser.run("return document.documentElement.lang") == "zh-CN"
        assert browser.run("return document.querySelectorAll('table.rows tbody tr').length") == len(export.faults)
        _picture(browser, tmp_path, "result-zh")
        for width in (1_280, 360):
            browser.size(width, 740)
            overflow = browser.run("return document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, f"{width}: {overflow} pixels stand out"
        _picture(browser, tmp_path, "result-zh-narrow")
        browser.run("document.querySelector('table.rows').scrollIntoView()")
        _picture(browser, tmp_path, "rows-zh-narrow")
        browser.go(f"http://127.0.0.1:{port}/?lang=en")
        assert browser.run("return document.documentElement.scrollWidth - innerWidth") <= 0
        browser.click("summary")
        _picture(browser, tmp_path, "form-en-narrow")
        assert browser.log() == []
    assert len(records(tmp_path / "data", "inspections")) == export.good


def _picture(browser: Browser, folder: Path, name: str) -> None:
    """Take a picture; TOCSIN_PICTURES names a folder for those who want to look."""
    made = browser.picture(folder / f"{name}.png")
    assert made.read_bytes().startswith(b"\x89PNG")
    wanted = os.environ.get("TOCSIN_PICTURES")
    if wanted:
        shutil.copy(made, Path(wanted) / made.name)
