"""What a test needs from outside (Kafka, kcat, promtool ...): without it the test is skipped, and said so loudly at the
end; where CI runs, it fails. What is said travels with the test's report, so that it arrives from other processes too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

_PROPERTY = "lacking"
_found: dict[str, Any] = {}
_lacking: dict[str, str] = {}


def _must_not_skip(exception: str) -> bool:
    automated = os.environ.get("CI", "").lower() in ("1", "true", "yes")
    return automated and os.environ.get(exception) != "1"


def need(
    item: pytest.Item, what: str, probe: Callable[[], Any], absent: type[Exception], *, unless: str, mend: str = ""
) -> Any:
    """What the probe yields (asked once); without it, skip the test, or fail it where CI runs.

    Parameters
    ----------
    absent
        What the probe raises where the thing cannot be had.
    unless
        Name of the environment variable that, set to 1, lets CI do without.
    mend
        How to get it, for the closing lines.
    """
    if what not in _found and what not in _lacking:
        try:
            _found[what] = probe()
        except absent as error:
            _lacking[what] = str(error)
    if what in _found:
        return _found[what]
    item.user_properties.append((_PROPERTY, [what, _lacking[what], mend]))
    if _must_not_skip(unless):
        pytest.fail(f"{what} is missing, and CI is set: {_lacking[what]}", pytrace=False)
    pytest.skip(f"no {what}: {_lacking[what]}")


def say_what_was_lacking(reporter: Any) -> None:
    """The closing lines: everything that was not there, and the tests that did not run for it."""
    lost: dict[str, tuple[str, str, dict[str, str]]] = {}
    for outcome in ("skipped", "failed", "error"):
        for report in reporter.stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == _PROPERTY:
                    what, why, mend = value
                    verdict = "NOT RUN" if outcome == "skipped" else "FAILED"
                    lost.setdefault(what, (why, mend, {}))[2][report.nodeid] = verdict
    for what, (why, mend, tests) in sorted(lost.items()):
        verdict = "FAILED" if "FAILED" in tests.values() else "NOT RUN"
        reporter.section(f"{what} MISSING: {len(tests)} tests {verdict}", sep="!", red=True, bold=True)
        reporter.line(f"Nothing below was checked against a real {what} in this run:")
        for test in tests:
            reporter.line(f"    {test}")
        reporter.line(f"Why: {why}")
        if mend:
            reporter.line(f"Mend it: {mend}")
        reporter.section(f"{what} MISSING", sep="!", red=True, bold=True)
