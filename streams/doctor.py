"""What ``tocsin doctor`` says: facts in, findings out. Each finding is one check, its verdict, and how to mend it.

Nothing here asks anybody: :mod:`streams.doctor_embedded` and :mod:`streams.doctor_kafka` gather the facts, and change
nothing while they do.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from schemas.errors import TocsinError
from streams.config import Config
from streams.ticks import MS_PER_DAY

__all__ = [
    "Finding",
    "Verdict",
    "check_backlog",
    "check_built_under",
    "check_clock",
    "check_configuration",
    "check_letters",
    "check_python",
    "check_space",
    "failed",
    "worst",
]

Verdict = Literal["ok", "warning", "failure"]
_ORDER: Final = ("ok", "warning", "failure")
_LEAST_BYTES: Final = 256 << 20
_LITTLE_BYTES: Final = 2 << 30
_MUCH_LAG: Final = 100_000
_SKEW_MS: Final = 2_000
_BLAS: Final = ("openblas", "mkl", "accelerate", "blis", "flexiblas")


class Finding(msgspec.Struct, omit_defaults=True):
    """One check: what was looked at, how it is, what was seen, and what to do where it is not well."""

    check: str
    verdict: Verdict
    seen: str
    mend: str = ""


def worst(findings: Sequence[Finding]) -> Verdict:
    """The gravest verdict of all."""
    return max((one.verdict for one in findings), key=_ORDER.index, default="ok")


def failed(check: str, error: BaseException, mend: str = "") -> Finding:
    """A check that could not be made, or that ended in an error which says what to do itself."""
    return Finding(check, "failure", " ".join(str(error).split()), mend)


def check_configuration(config: Config) -> list[Finding]:
    """Whether catalogue and severity rules can be read; then their digests."""
    found = []
    try:
        catalogue = config.load_catalogue()
        seen = f"{catalogue.name}@{catalogue.digest[:12]}"
        found.append(Finding("catalogue", "ok", seen))
    except (TocsinError, OSError) as error:
        found.append(failed("catalogue", error, "name one that can be read with --catalogue, or mend the file"))
    try:
        rules = config.grades.load()
        found.append(Finding("severity", "ok", f"{config.grades.severity}, digest {rules.digest[:12]}"))
        found.append(Finding("configuration", "ok", f"digest {config.digest}"))
    except (TocsinError, OSError) as error:
        found.append(failed("severity", error, "name rules that can be read in grades.severity, or mend the file"))
    return found


def check_python(version: tuple[int, int] = sys.version_info[:2], blas: str | None = None) -> list[Finding]:
    """The interpreter, and the library under NumPy."""
    text = ".".join(map(str, version))
    python = Finding("python", "ok", text)
    if version < (3, 11):
        python = Finding("python", "failure", text, "install Python 3.11 or newer")
    name = _blas() if blas is None else blas
    if any(known in name.lower() for known in _BLAS):
        return [python, Finding("blas", "ok", name)]
    slow = "NumPy has no fast linear algebra: install its wheel from PyPI, which brings OpenBLAS"
    return [python, Finding("blas", "warning", name, slow)]


def _blas() -> str:
    import numpy as np

    about: Any = np.show_config(mode="dicts")
    found: Mapping[str, Any] = about.get("Build Dependencies", {}).get("blas", {})
    return f"{found.get('name', 'unknown')} {found.get('version', '')}".strip()


def check_built_under(where: str, held: str, now: str) -> Finding:
    """Whether a state came about under the present rules."""
    if not held or held == now:
        return Finding("state", "ok", f"{where}, built under {held or 'an unnamed configuration'}")
    return Finding(
        "state", "failure", f"{where} was built under {held}, the configuration is {now}",
        "run with the configuration and catalogue of then, or replay into another place; after an upgrade, "
        "`tocsin state rebuild`",
    )  # fmt: skip


def check_backlog(lag: Mapping[str, int], running: str | None) -> Finding:
    """How far a run is behind, by topic; ``running`` names who works, None where nobody does."""
    total = sum(lag.values())
    behind = ", ".join(f"{name} {count:,}" for name, count in sorted(lag.items()) if count)
    if not total:
        return Finding("lag", "ok", "all records are worked off")
    if running is None:
        return Finding("lag", "failure", f"{total:,} records wait, and nobody works ({behind})", "start `tocsin run`")
    if total > _MUCH_LAG:
        return Finding(
            "lag", "warning", f"{total:,} records wait ({behind})", "give it time, or start more workers on Kafka"
        )
    return Finding("lag", "ok", f"{total:,} records wait ({behind}); {running} works")


def check_letters(count: int, reasons: Mapping[str, int], records: int) -> Finding:
    """How much was refused; ``reasons`` are those of the letters, ``records`` how many there are in all."""
    if not count:
        return Finding("dead letters", "ok", "none")
    ranked = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))[:3]
    seen = f"{count:,} for {records:,} records" + (
        f" ({', '.join(f'{name} {n:,}' for name, n in ranked)})" if ranked else ""
    )
    mend = "see `tocsin dead-letters list`; once mended, `tocsin dead-letters requeue`"
    return Finding("dead letters", "warning", seen, mend)


def check_clock(now_ms: int, newest_ms: int | None, whose: str, skew_ms: int = _SKEW_MS) -> Finding:
    """This machine's clock against the newest time that was stamped elsewhere, which cannot lie in the future."""
    if newest_ms is None:
        return Finding("clock", "ok", "there is no record to compare it with")
    ahead = newest_ms - now_ms
    if ahead > skew_ms:
        return Finding(
            "clock", "failure", f"{whose} is {_span(ahead)} ahead of this machine's clock",
            "set the clocks by NTP; a record from the future holds later ones up until then",
        )  # fmt: skip
    return Finding("clock", "ok", f"{whose} is {_span(-ahead)} old")


def _span(ms: int) -> str:
    if abs(ms) < 120_000:
        return f"{ms / 1_000:.1f} s"
    return f"{ms / 3_600_000:.1f} h" if abs(ms) < 2 * MS_PER_DAY else f"{ms / MS_PER_DAY:,.0f} days"


def check_space(free: int, where: Path) -> Finding:
    """The space left for a log that only grows."""
    seen = f"{free / 2**30:,.1f} GiB free at {where}"
    if free < _LEAST_BYTES:
        return Finding("disk", "failure", seen, "make room now: without it nothing can be taken or alerted")
    if free < _LITTLE_BYTES:
        return Finding("disk", "warning", seen, "make room: the log keeps every record")
    return Finding("disk", "ok", seen)
