"""The job on stock Faust: an agent, and a table in RocksDB with its changelog topic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faust
from window import JOB, count, new_row

app = faust.App(
    JOB["group"],
    broker=f"kafka://{JOB['bootstrap']}",
    store="rocksdb://?driver=rocksdict",
    datadir=Path(JOB["state"]),
    topic_partitions=JOB["partitions"],
    topic_replication_factor=1,
    web_enabled=False,
)
inspections = app.topic(JOB["input"], value_serializer="json")
alerts = app.topic(JOB["output"], value_serializer="json")
cells = app.Table("cells", default=new_row)


@app.agent(inspections)
async def judge(events: Any) -> None:
    async for event in events:
        cell = f"{event['product']}/{event['region']}"
        row = cells[cell]
        alert = count(row, event)
        cells[cell] = row
        if alert is not None:
            await alerts.send(key=cell, value=alert)


if __name__ == "__main__":
    app.main()
