"""What the peers in Python share: a cell's rolling window, and when there is something to tell of it.

Plain dictionaries and lists, so that every engine can store them in its own way. The standard library only.
"""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

WINDOW_DAYS = 30

JOB: dict[str, Any] = json.loads(os.environ.get("PEER", "{}"))
LIMITS: list[int] = json.loads(Path(JOB["limits"]).read_text()) if JOB else []
"""The fewest failures among so many tests that put a cell under the target."""


def new_row() -> dict[str, Any]:
    """The state of a cell: sums over the window, the day for which an alert stands, and [day, tested, failed]..."""
    return {"tested": 0, "failed": 0, "told": -1, "days": []}


def count(row: dict[str, Any], event: dict[str, Any], limits: list[int] = LIMITS) -> dict[str, Any] | None:
    """Count an inspection; the alert record when the cell has come under the target on that day, or out again."""
    text = event["reported_at"][:10]
    day, failed = date.fromisoformat(text).toordinal(), event["verdict"] == "fail"
    days = row["days"]
    if not days or days[-1][0] != day:
        days.append([day, 0, 0])
        while days[0][0] <= day - WINDOW_DAYS:
            _, gone, gone_failed = days.pop(0)
            row["tested"] -= gone
            row["failed"] -= gone_failed
    days[-1][1] += 1
    days[-1][2] += failed
    row["tested"] += 1
    row["failed"] += failed
    below = row["failed"] >= limits[row["tested"]]
    if below == (row["told"] == day):
        return None
    row["told"] = day if below else -1
    return {
        "product": event["product"], "region": event["region"], "day": text,
        "tested": row["tested"], "failed": row["failed"], "below": below,
    }  # fmt: skip
