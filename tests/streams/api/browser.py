"""A real browser for the page: headless Chromium, driven over WebDriver, the protocol that chromedriver speaks."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
)
TIMEOUT = 300


class BrowserAbsent(RuntimeError):
    """There is no browser, and none could be installed; the text says why."""


def find() -> None:
    """Make sure that there is a browser: where CI runs as root, Debian's is installed."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if absent and os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = ["apt-get", "-qq", "-o", "Dpkg::Use-Pty=0"]
        subprocess.run([*quiet, "update"], check=False, timeout=300, capture_output=True)
        install = [*quiet, "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"]
        subprocess.run(install, check=False, timeout=600, capture_output=True)
        absent = [name for name in absent if shutil.which(name) is None]
    if absent:
        raise BrowserAbsent(f"{' and '.join(absent)} not on PATH")


class Browser:
    """One window."""

    def __init__(self, base: str, session: str) -> None:
        self._url = f"{base}/session/{session}"

    def go(self, url: str) -> None:
        _call("POST", f"{self._url}/url", {"url": url})

    def size(self, width: int, height: int) -> None:
        """The size of what is shown, whatever the window's frame."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def cdp(self, command: str, **params: Any) -> Any:
        return _call("POST", f"{self._url}/goog/cdp/execute", {"cmd": command, "params": params})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns; the page's policy does not bind the driver."""
        return _call("POST", f"{self._url}/execute/sync", {"script": script, "args": list(arguments)})

    def find(self, css: str) -> str:
        return str(_call("POST", f"{self._url}/element", {"using": "css selector", "value": css})[_ELEMENT])

    def type(self, css: str, text: str) -> None:
        _call("POST", f"{self._url}/element/{self.find(css)}/value", {"text": text})

    def click(self, css: str) -> None:
        _call("POST", f"{self._url}/element/{self.find(css)}/click", {})

    def text(self, css: str) -> str:
        """What is seen of an element's text; in one step, as a page may put another element in its place meanwhile."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", css))

    def keys(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = [
            step for key in keys for step in ({"type": "keyDown", "value": key}, {"type": "keyUp", "value": key})
        ]
        _call("POST", f"{self._url}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def log(self) -> list[str]:
        """What the browser complained of: errors of the page, and what its policy forbade."""
        return [entry["message"] for entry in _call("POST", f"{self._url}/se/log", {"type": "browser"})]

    def picture(self, path: Path) -> Path:
        """What is seen, as a picture."""
        found = self.cdp("Page.captureScreenshot")
        path.write_bytes(base64.b64decode(found["data"]))
        return path


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in a folder."""
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder
    )
    assert driver.stdout is not None
    try:
        found = next(match for line in driver.stdout if (match := re.search(r"successfully on port (\d+)", line)))
        base = f"http://127.0.0.1:{found[1]}"
        options = {"args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"], "binary": shutil.which("chromium")}
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"pageLoad": TIMEOUT * 1_000},
        }
        session = _call("POST", f"{base}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield Browser(base, session)
        finally:
            _call("DELETE", f"{base}/session/{session}")
    finally:
        driver.terminate()
        driver.wait(30)
        driver.stdout.close()


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
