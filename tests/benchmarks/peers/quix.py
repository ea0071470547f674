"""The job on Quix Streams: a stateful function over its state in RocksDB with a changelog topic."""

from __future__ import annotations

from typing import Any

from quix_app import alerts, app
from quixstreams import State
from window import JOB, count, new_row

inspections = app.topic(JOB["input"], value_deserializer="json")


def judge(event: dict[str, Any], state: State) -> dict[str, Any] | None:
    # The record's key is the product, and state goes by it: the regions are keys below.
    row = state.get(event["region"]) or new_row()
    alert = count(row, event)
    state.set(event["region"], row)
    return alert


stream = app.dataframe(inspections)
stream = stream.apply(judge, stateful=True).filter(lambda alert: alert is not None)
stream.to_topic(alerts)

if __name__ == "__main__":
    app.run()
