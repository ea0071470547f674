"""Worker processes of one command: started afresh, deaf to Ctrl-C, ended with the command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Final

from schemas.errors import TocsinError

__all__ = ["CONTEXT", "deaf", "pool"]

CONTEXT: Final = get_context("spawn")
"""Not by fork: the progress bar has a thread."""


@contextmanager
def pool(jobs: int, initializer: Callable[..., None] | None = None, *given: Any) -> Iterator[ProcessPoolExecutor]:
    """So many processes; what they have not begun when the block ends is dropped.

    Submit within :func:`deaf`: a process is started when there is work for it.
    """
    executor = ProcessPoolExecutor(jobs, mp_context=CONTEXT, initializer=initializer, initargs=given)
    try:
        yield executor
    except BrokenProcessPool:
        raise TocsinError("a worker process died, perhaps for lack of memory; try fewer --jobs") from None
    finally:
        executor.shutdown(cancel_futures=True)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes started here do not hear Ctrl-C: it ends the command, and the command ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
