"""The page on paper: Chromium's own print, where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from schemas.errors import TocsinError

__all__ = ["find_chromium", "print_pdf"]

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_SECONDS: Final = 300


def find_chromium() -> str:
    """The path of the browser.

    Raises
    ------
    TocsinError
        There is none on PATH.
    """
    found = next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)
    if found is None:
        raise TocsinError("--pdf: needs Chromium on PATH (chromium, google-chrome); install it, or print the HTML")
    return found


def print_pdf(chromium: str, page: Path, pdf: Path) -> None:
    """Print a page into a PDF. It is opened with no network, and has no script to run.

    Raises
    ------
    TocsinError
        Chromium made none; its last words are told.
    """
    with tempfile.TemporaryDirectory(prefix="tocsin-") as folder:
        made = Path(folder) / "report.pdf"
        command = [
            chromium, "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions",
            "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder}/profile",
            "--no-pdf-header-footer", f"--print-to-pdf={made}", page.resolve().as_uri(),
        ]  # fmt: skip
        if os.geteuid() == 0:  # it refuses its own sandbox there
            command.insert(1, "--no-sandbox")
        try:
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise TocsinError(f"--pdf: {chromium} did not print: {error}") from None
        if not made.is_file():
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise TocsinError(f"--pdf: {chromium} made no file (status {done.returncode}): {lines[-1]}")
        try:
            shutil.copyfile(made, pdf)
        except OSError as error:
            why = (error.strerror or "").lower()
            raise TocsinError(f"{pdf}: cannot be written ({why}); check the path and space") from None
