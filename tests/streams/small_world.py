"""A month of events, small enough to run in a second: one product begins to fail in one district, and one accident."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from builders import DAY, HOUR, START, body
from click.testing import CliRunner, Result

from streams.cli import cli

DAYS = 30
BAD_FROM = 20


def invoke(*args: object, given: bytes | None = None, env: dict[str, str] | None = None) -> Result:
    """Run a command in this process; bugs surface as they are."""
    clean = {"TOCSIN_DATA": None, "TOCSIN_BROKER": None, **(env or {})}
    return CliRunner(env=clean).invoke(cli, [str(arg) for arg in args], input=given, catch_exceptions=False)


@dataclass(frozen=True)
class Failure:
    """How a command ended that should not have gone well."""

    status: int
    line: str


def fails(*args: object, given: bytes | None = None) -> Failure:
    """Run a command that must end with one line on stderr, nothing on stdout, and no success."""
    result = invoke(*args, given=given)
    assert result.exit_code != 0, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return Failure(result.exit_code, lines[0])


def succeeds(*args: object, given: bytes | None = None) -> Result:
    """Run a command that must go well."""
    result = invoke(*args, given=given)
    assert result.exit_code == 0, result.stderr
    return result


def inspections() -> list[dict[str, Any]]:
    """Four districts tested daily; from day 20 on half of what Dongli tests fails."""
    events = []
    for day in range(DAYS):
        for number, region in enumerate(("120101", "120102", "120110", "120111")):
            bad = region == "120110" and day >= BAD_FROM
            at = START + day * DAY + (8 + number) * HOUR
            events.append(
                body("inspections", f"i-{day}-{region}", at, region=region, tested=20, failed=10 if bad else 0)
            )
    return events


def accident(**changes: Any) -> dict[str, Any]:
    """An accident with three deaths."""
    return body("accidents", "a-1", START + 10 * DAY, **{"deaths": 3, "seriously_injured": 0, **changes})


def write_ndjson(path: Path, events: Sequence[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))
    return path


def fill(data: Path, folder: Path) -> Path:
    """Publish the month to a data directory."""
    succeeds("publish", "inspections", write_ndjson(folder / "i.ndjson", inspections()), "--data", data)
    succeeds("publish", "accidents", write_ndjson(folder / "a.ndjson", [accident()]), "--data", data)
    return data
