"""What both programs on Quix Streams begin with: the application, its state in RocksDB, and where alert records go."""

from __future__ import annotations

from quixstreams import Application
from window import JOB

app = Application(
    broker_address=JOB["bootstrap"],
    consumer_group=JOB["group"],
    auto_offset_reset="earliest",
    state_dir=JOB["state"],
    loglevel="WARNING",
)
alerts = app.topic(JOB["output"], value_serializer="json")
