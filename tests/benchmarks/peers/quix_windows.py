"""The job on Quix Streams with its own windows: a product's counts of the day in a tumbling window, and behind it what
the 30 days up to that one come to, in a stateful function."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from quix_app import alerts, app
from quixstreams import State
from window import JOB, LIMITS, WINDOW_DAYS, new_row

OFFSET_MS = timedelta(hours=8) // timedelta(milliseconds=1)


def local(value: Any, headers: Any, timestamp: int, kind: Any) -> int:
    """Windows begin with days of UTC; days of the city begin earlier."""
    return timestamp + OFFSET_MS


inspections = app.topic(JOB["input"], value_deserializer="json", timestamp_extractor=local)


def first(event: dict[str, Any]) -> dict[str, Any]:
    return add({"product": event["product"], "region": "", "counts": {}}, event)


def add(day: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """A day of a product: of each region tested and failed, and which of them came last."""
    counts = day["counts"].setdefault(event["region"], [0, 0])
    counts[0] += 1
    counts[1] += event["verdict"] == "fail"
    day["region"] = event["region"]
    return day


def judge(window: dict[str, Any], state: State) -> dict[str, Any] | None:
    """The alert record when the cell that came last has come under the target on that day, or out again."""
    product, region = window["value"]["product"], window["value"]["region"]
    day = date(1970, 1, 1) + timedelta(milliseconds=window["start"])
    row, number = state.get(region) or new_row(), day.toordinal()
    row["days"] = [one for one in row["days"] if number - WINDOW_DAYS < one[0] < number]
    row["days"].append([number, *window["value"]["counts"][region]])
    row["tested"], row["failed"] = (sum(one[field] for one in row["days"]) for field in (1, 2))
    below = row["failed"] >= LIMITS[row["tested"]]
    before, row["told"] = row["told"], number if below else -1
    state.set(region, row)
    if below == (before == number):
        return None
    return {
        "product": product, "region": region, "day": day.isoformat(),
        "tested": row["tested"], "failed": row["failed"], "below": below,
    }  # fmt: skip


stream = app.dataframe(inspections)
stream = stream.tumbling_window(timedelta(days=1), grace_ms=0).reduce(reducer=add, initializer=first).current()
stream = stream.apply(judge, stateful=True).filter(lambda alert: alert is not None)
stream.to_topic(alerts)

if __name__ == "__main__":
    app.run()
