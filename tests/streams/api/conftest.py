"""A real browser for the page, and a loud word where there is none: the page was then not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser as driver
import pytest
from lacking import need


@pytest.fixture
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[driver.Browser]:
    need(
        request.node, "Chromium", driver.find, driver.BrowserAbsent, unless="TOCSIN_ALLOW_NO_BROWSER",
        mend="apt-get install chromium chromium-driver",
    )  # fmt: skip
    with driver.browser(tmp_path) as window:
        yield window
