"""The report in a real browser: in both languages, wide and narrow, without a network, and on paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import Browser
from small_world import fill, succeeds

_BOXES = """
return [...document.querySelectorAll('svg.chart')].map(svg => {
  const box = svg.getBoundingClientRect();
  return [box.width, box.height, svg.querySelectorAll('.dot, .bar').length];
});
"""
_OUT = """
const wide = document.documentElement.clientWidth;
return [...document.querySelectorAll('main *')].filter(one => !one.closest('.scroll, svg'))
  .filter(one => one.getBoundingClientRect().right > wide + 1).map(one => one.outerHTML.slice(0, 80));
"""
_FETCHED = "return performance.getEntriesByType('resource').map(one => one.name)"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record")
    made = fill(folder / "data", folder)
    succeeds("run", "--until-end", "--data", made)
    return made


def test_the_report_stands_in_a_browser_without_a_network_wide_and_narrow(
    browser: Browser, data: Path, tmp_path: Path
) -> None:
    browser.cdp("Network.enable")
    browser.cdp("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    for language in ("zh", "en"):
        page = tmp_path / f"{language}.html"
        succeeds("report", "--data", data, "--period", "2024-01", "--language", language, "--out", page)
        for width in (1280, 390):
            browser.size(width, 900)
            browser.go(page.as_uri())
            assert browser.run("return document.documentElement.scrollWidth") == width
            assert browser.run(_OUT) == []
            charts = browser.run(_BOXES)
            assert charts
            assert all(width_of > 250 and height > 100 and points for width_of, height, points in charts)
            assert browser.run(_FETCHED) == []
            title = browser.text("h1")
            assert title == ("天津市质量安全风险报告 2024-01" if language == "zh" else
                             "Tianjin Quality and safety risk report 2024-01")  # fmt: skip
            # Every link leads to a place on the page.
            assert browser.run(
                "return [...document.querySelectorAll('a')].every(a => document.getElementById("
                "decodeURIComponent(a.hash.slice(1))) !== null)"
            )
    assert browser.log() == []


def test_the_report_is_printed_by_the_browser(browser: Browser, data: Path, tmp_path: Path) -> None:
    page, pdf = tmp_path / "r.html", tmp_path / "r.pdf"
    said = succeeds("report", "--data", data, "--period", "2024-01", "--out", page, "--pdf", pdf).stdout
    assert f"{pdf}: printed" in said
    printed = pdf.read_bytes()
    assert printed.startswith(b"%PDF-")
    assert printed.rstrip().endswith(b"%%EOF")
    assert printed.count(b"/Type /Page\n") >= 2 or printed.count(b"/Type /Page") >= 2
