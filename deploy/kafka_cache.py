"""The cache directory of ``deploy/kafka.py``: where it is, who may write it now, and the programs that fill it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


class KafkaUnavailable(RuntimeError):
    """Kafka, or the Java it needs, cannot be had on this machine; the message says how to mend that."""


def cache_directory() -> Path:
    chosen = os.environ.get("TOCSIN_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "tocsin"


@contextlib.contextmanager
def locked(name: str) -> Iterator[Path]:
    """The cache directory, while no other process holds the lock of this name."""
    cache = cache_directory()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = (cache / f".{name}.lock").open("w")
    except OSError as error:
        raise KafkaUnavailable(f"the cache {cache} cannot be written ({error}); set TOCSIN_CACHE") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache


def say(text: str) -> None:
    print(f"kafka.py: {text}", file=sys.stderr, flush=True)


def run(command: Sequence[str], what: str, timeout: float = 900) -> str:
    """Run a helper program; its output, or KafkaUnavailable with the end of it."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KafkaUnavailable(f"{what} failed: {error}") from None
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if "ERROR" in line or line.startswith("E:")]
        last = (errors or done.stdout.splitlines() or [f"exit code {done.returncode}"])[0]
        raise KafkaUnavailable(f"{what} failed: {last[:400]}")
    return done.stdout
