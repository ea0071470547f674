"""The board in a real browser: alerts come without a reload, are answered by keyboard, and come back from the run."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from board_world import accident, alerts_of, board, fill_today
from browser import Browser
from serving import running
from small_world import succeeds

from streams.tokens import add_token, revoke_token

TAB, ENTER, UP, RIGHT, DOWN = "\ue004", "\ue007", "\ue013", "\ue014", "\ue015"
EVIL = "<img src=x onerror=alert(1)>"
OVERFLOW = "return document.documentElement.scrollWidth - innerWidth"


def until(what: str, done: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def texts(browser: Browser, css: str) -> list[str]:
    found: list[str] = browser.run(
        "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)", css
    )
    return found


def focused(browser: Browser) -> str:
    return str(
        browser.run("const e = document.activeElement; return e.id || e.dataset.act || e.className || e.tagName")
    )


def picture(browser: Browser, folder: Path, name: str) -> None:
    """Take a picture; TOCSIN_PICTURES names a folder for those who want to look."""
    made = browser.picture(folder / f"{name}.png")
    assert made.read_bytes().startswith(b"\x89PNG")
    wanted = os.environ.get("TOCSIN_PICTURES")
    if wanted:
        shutil.copy(made, Path(wanted) / made.name)


def test_an_alert_appears_is_acknowledged_by_keyboard_and_comes_back_from_the_run(
    tmp_path: Path, browser: Browser
) -> None:
    data = tmp_path / "data"
    fill_today(data, tmp_path)
    _, token = add_token(tmp_path / "t.json", f"Duty room {EVIL}", ("read", "dispose"))
    with running(board(data, tmp_path / "t.json")) as port:
        browser.size(1_280, 900)
        browser.go(f"http://127.0.0.1:{port}/?lang=en")
        until("the dialogue for the token", lambda: browser.run("return document.querySelector('#sign-in').open"))
        browser.type("#token", "tocsin_wrong")
        browser.keys(ENTER)
        until("word of the wrong token", lambda: "wrong or has ended" in browser.text("#sign-in .wrong"))
        browser.type("#token", token)
        browser.keys(ENTER)
        until("the alert of the pass rate", lambda: "Dongli" in " ".join(texts(browser, "#alerts tbody td")))
        browser.run("window.sameDocument = true")
        assert texts(browser, "#state") == ["Live"]
        assert len(texts(browser, "#matrix button.cell")) == 1

        accident(data, tmp_path, "live")
        until("the accident", lambda: len(texts(browser, "#alerts tbody tr")) == 2)
        assert texts(browser, "#alerts .grade")[0] in ("I", "II"), "the gravest stands first"
        assert any("New alert" in line for line in texts(browser, "#live p"))
        picture(browser, tmp_path, "board-en")

        browser.run("document.querySelector('#alerts button.open').focus()")
        browser.keys(ENTER)
        until("its page", lambda: focused(browser) == "detail-title")
        until("word of its chart", lambda: "Reading" not in browser.text("#chart-place"))
        browser.keys(TAB, ENTER)  # Acknowledge
        until("the dialogue", lambda: focused(browser) == "name")
        browser.keys(*"Wang <b>Fang", TAB, *"team sent", ENTER)
        until("that it is on its way", lambda: any("takes effect" in one for one in texts(browser, "#alerts .way")))
        assert browser.run("return document.activeElement.closest('dialog')") is None

        succeeds("run", "--until-end", "--data", data)
        until("that it is acknowledged", lambda: texts(browser, "#alerts .status")[0] == "acknowledged")
        assert browser.run("return window.sameDocument"), "without a reload"
        who = texts(browser, "#alerts .who")[0]
        assert who == f"Wang <b>Fang (Duty room {EVIL})"
        assert browser.run("return document.querySelectorAll('img, b:not(#grades b), iframe').length") == 0
        picture(browser, tmp_path, "acknowledged-en")
        assert [line for line in browser.log() if "401" not in line] == []
    (live,) = [one for one in alerts_of(data).values() if one.kind == "grave-event"]
    assert (live.status, live.acknowledged_by, live.reason) == ("acknowledged", who, "team sent")


def test_the_chart_the_matrix_and_both_languages_on_wide_and_narrow_screens(tmp_path: Path, browser: Browser) -> None:
    data = tmp_path / "data"
    fill_today(data, tmp_path)
    accident(data, tmp_path, "a-1", region="120116")
    accident(data, tmp_path, "a-2", region="120101", product="N0102")
    with running(board(data)) as port:
        for lang, width in (("en", 1_280), ("zh", 1_280), ("zh", 390), ("en", 390)):
            browser.size(width, 900)
            browser.go(f"http://127.0.0.1:{port}/?lang={lang}&width={width}")
            until("the alerts", lambda: len(texts(browser, "#alerts tbody tr")) == 3)
            assert browser.run("return document.documentElement.lang") == {"en": "en", "zh": "zh-CN"}[lang]
            assert not [name for name in texts(browser, "[data-text]") if not name]
            assert browser.run(OVERFLOW) <= 0, f"{lang} {width}"
            picture(browser, tmp_path, f"board-{lang}-{width}")
            browser.click("#alerts button.open[data-id^=pass-rate]")
            until("the chart", lambda: texts(browser, "svg.chart title"))
            assert browser.run("return document.querySelectorAll('svg.chart .stroke.limit').length") > 0
            assert browser.run("return document.querySelectorAll('svg.chart .alarm').length") > 0
            rows = browser.run("return document.querySelectorAll('figure table tbody tr').length")
            assert rows == browser.run("return document.querySelectorAll('svg.chart circle.dot').length")
            assert browser.run(OVERFLOW) <= 0, f"{lang} {width}, one alert"
            picture(browser, tmp_path, f"alert-{lang}-{width}")
            browser.run("document.querySelector('svg.chart').scrollIntoView()")
            picture(browser, tmp_path, f"chart-{lang}-{width}")
        assert browser.log() == []


def test_the_matrix_is_a_table_that_arrow_keys_walk_and_a_cell_opens_its_alerts(
    tmp_path: Path, browser: Browser
) -> None:
    data = tmp_path / "data"
    for name, region, product in (("a", "120101", "N0101"), ("b", "120116", "N0101"), ("c", "120110", "N0102")):
        accident(data, tmp_path, name, region=region, product=product)
    accident(data, tmp_path, "d", region="120116", product="N0101")
    with running(board(data)) as port:
        browser.size(1_280, 900)
        browser.go(f"http://127.0.0.1:{port}/?lang=en")
        until("the matrix", lambda: len(texts(browser, "#matrix button.cell")) == 3)
        assert browser.run("return document.querySelectorAll('#matrix button[tabindex=\"0\"]').length") == 1
        head = browser.run("return [...document.querySelectorAll('#matrix th')].every((e) => e.scope)")
        assert head, "every head says of what it is one"
        assert browser.run("return document.querySelectorAll('#matrix tbody tr').length") == 2
        browser.run("document.querySelector('#matrix button[tabindex=\"0\"]').focus()")
        name = "return document.activeElement.getAttribute('aria-label')"
        assert "Heping: 1 open" in browser.run(name)
        browser.keys(RIGHT)
        assert "Binhai: 2 open" in browser.run(name)
        browser.keys(DOWN)
        assert "Dongli: 1 open" in browser.run(name)
        browser.keys(UP, RIGHT, ENTER)
        until("the alerts of the cell alone", lambda: len(texts(browser, "#alerts tbody tr")) == 2)
        assert "Binhai" in browser.text("#filter span")
        browser.click("#filter button")
        until("all", lambda: len(texts(browser, "#alerts tbody tr")) == 4)
        browser.click("#only")
        until("all products", lambda: len(texts(browser, "#matrix tbody tr")) == 238)
        browser.type("#search", "N0102")
        until("the one", lambda: len(texts(browser, "#matrix tbody tr:not([hidden])")) == 1)
        assert browser.log() == []


def test_an_address_with_an_alert_opens_it_and_the_language_is_switched_in_place(
    tmp_path: Path, browser: Browser
) -> None:
    data = tmp_path / "data"
    for name in ("a", "b"):
        accident(data, tmp_path, name)
    wanted = sorted(alerts_of(data))[1]
    with running(board(data)) as port:
        browser.go(f"http://127.0.0.1:{port}/?lang=en#{wanted}")
        until("the alert of the address", lambda: wanted in " ".join(texts(browser, "#detail dd")))
        assert browser.run("return document.querySelector('#alerts button[aria-current=true]').dataset.id") == wanted
        browser.run("window.sameDocument = true")
        browser.click("#language")
        until("Chinese", lambda: "重大单起事件" in browser.text("#detail-title"))
        assert browser.run("return [document.documentElement.lang, window.sameDocument]") == ["zh-CN", True]
        assert browser.text("#matrix thead th") == "产品"
        browser.run("document.querySelector('#detail [data-act=back]').click()")
        until("the list alone", lambda: browser.run("return document.querySelector('#detail').hidden"))
        assert browser.run("return document.activeElement.dataset.id") == wanted, "the focus is where it was"
        assert browser.log() == []


@pytest.mark.parametrize("lang", [0, 1])
def test_every_word_is_there_in_both_languages_with_the_same_gaps(tmp_path: Path, browser: Browser, lang: int) -> None:
    data = tmp_path / "data"
    accident(data, tmp_path, "a")
    with running(board(data)) as port:
        browser.go(f"http://127.0.0.1:{port}/?lang={('zh', 'en')[lang]}")
        until("the alert", lambda: texts(browser, "#alerts tbody tr"))
        known: dict[str, list[str]] = browser.run("return import('/static/text.js').then((module) => module.TEXT)")
        used = browser.run(
            "return Promise.all(['board', 'alerts', 'detail', 'chart', 'matrix'].map((name) =>"
            " fetch(`/static/${name}.js`).then((found) => found.text())))"
        )
    for name, pair in known.items():
        assert len(pair) == 2, name
        assert sorted(re.findall(r"{\w+}", pair[0])) == sorted(re.findall(r"{\w+}", pair[1])), name
    said = {name for text in used for name in re.findall(r'say\("([a-z-]+)"', text)}
    assert len(said) > 30
    assert said <= known.keys()


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_to_a_screen_reader_everything_that_can_be_worked_or_seen_has_a_name(
    tmp_path: Path, browser: Browser, lang: str
) -> None:
    data = tmp_path / "data"
    fill_today(data, tmp_path)
    with running(board(data)) as port:
        browser.go(f"http://127.0.0.1:{port}/?lang={lang}")
        until("the alert", lambda: texts(browser, "#alerts tbody tr"))
        browser.click("#alerts button.open")
        until("the chart", lambda: texts(browser, "svg.chart title"))
        named = tree(browser)
        assert nameless(named) == []
        assert {"button", "checkbox", "columnheader", "heading", "image", "log", "region", "rowheader", "searchbox",
                "status", "table"} <= {role for role, _ in named}  # fmt: skip
        cell = {"zh": "液体乳，东丽区：1 条预警，最高 ", "en": "Liquid milk, Dongli: 1 open, gravest grade "}[lang]
        assert any(role == "button" and name.startswith(cell) for role, name in named), "read in words"
        browser.click("[data-act=acknowledge]")
        until("the dialogue", lambda: focused(browser) == "name")
        named = tree(browser)
        assert nameless(named) == []
        assert {"dialog", "combobox", "textbox"} <= {role for role, _ in named}


def tree(browser: Browser) -> list[tuple[str, str]]:
    """Role and name of all that the browser tells a screen reader of."""
    nodes = browser.cdp("Accessibility.getFullAXTree")["nodes"]
    return [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored", False)
    ]


def nameless(named: list[tuple[str, str]]) -> list[str]:
    needed = ("button", "checkbox", "combobox", "dialog", "heading", "image", "link", "region", "searchbox", "textbox",
              "columnheader", "rowheader")  # fmt: skip
    return [role for role, name in named if role in needed and not name.strip()]


def test_a_lost_connection_is_told_and_made_good_and_who_may_only_read_gets_no_buttons(
    tmp_path: Path, browser: Browser
) -> None:
    data = tmp_path / "data"
    accident(data, tmp_path, "a")
    _, token = add_token(tmp_path / "t.json", "Readers", ("read",))
    with running(board(data, tmp_path / "t.json")) as port:
        browser.go(f"http://127.0.0.1:{port}/?lang=en")
        until("the dialogue for the token", lambda: browser.run("return document.querySelector('#sign-in').open"))
        browser.type("#token", token)
        browser.keys(ENTER)
        until("the alert", lambda: texts(browser, "#alerts tbody tr"))
        kept = browser.run("return [sessionStorage.length, localStorage.length, document.cookie, location.href]")
        assert kept[0] >= 1
        assert kept[1:3] == [0, ""]
        assert token not in kept[3]
        browser.click("#alerts button.open")
        until("its page", lambda: texts(browser, "#detail-title"))
        assert "may only read" in browser.text("#detail")
        assert texts(browser, "#detail [data-act=acknowledge], #detail [data-act=close]") == []

        browser.cdp("Network.enable")
        net = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        browser.cdp("Network.emulateNetworkConditions", offline=True, **net)
        accident(data, tmp_path, "b", product="N0102")  # the request that was under way may still bring it
        until("word of the loss", lambda: "Connection lost" in browser.text("#state"))
        accident(data, tmp_path, "c", product="F0101")
        assert len(texts(browser, "#alerts tbody tr")) < 3
        browser.cdp("Network.emulateNetworkConditions", offline=False, **net)
        until("the alerts that came meanwhile", lambda: len(texts(browser, "#alerts tbody tr")) == 3)
        assert texts(browser, "#state") == ["Live"]

        revoke_token(tmp_path / "t.json", token.split("_")[1])
        accident(data, tmp_path, "d", product="F0201")  # the answer to the page that waits is the last it gets
        until("the dialogue for the token", lambda: browser.run("return document.querySelector('#sign-in').open"))
        assert texts(browser, "#alerts tbody tr, #matrix td, #detail-body *, #live *") == []
