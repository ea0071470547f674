"""What holds for every test of this project."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from lacking import say_what_was_lacking


def pytest_terminal_summary(terminalreporter: Any) -> None:
    say_what_was_lacking(terminalreporter)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Let what is left behind warn now: amid the import of a plugin CPython 3.11 would take it for an error of its own
    (gh-106905), and end the session with it."""
    gc.collect()


GRACE_SECONDS = 5.0
"""A thread that has been told to end may need a moment for it."""


@pytest.fixture(autouse=True)
def no_thread_is_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """A thread that outlives its test disturbs others, and in a worker it would be a leak."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + GRACE_SECONDS
    while left := [thread for thread in threading.enumerate() if thread not in before]:
        if time.monotonic() > deadline:
            pytest.fail(f"{request.node.nodeid} leaves threads running: {[thread.name for thread in left]}")
        time.sleep(0.01)
