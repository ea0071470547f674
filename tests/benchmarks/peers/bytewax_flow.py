"""The job on Bytewax: a stateful operator by cell, with recovery snapshots in its partition store every ten seconds."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main
from confluent_kafka import OFFSET_BEGINNING
from window import JOB, count, new_row

Alert = tuple[str, dict[str, Any]]


def keyed(message: KafkaSourceMessage[bytes, bytes]) -> tuple[str, dict[str, Any]]:
    event = json.loads(message.value)
    return f"{event['product']}/{event['region']}", event


def judge(row: dict[str, Any] | None, event: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    row = row or new_row()
    alert = count(row, event)
    return row, [] if alert is None else [alert]


def message(alert: Alert) -> KafkaSinkMessage[bytes, bytes]:
    return KafkaSinkMessage(alert[0].encode(), json.dumps(alert[1]).encode())


flow = Dataflow("job")
inspections = kop.input(
    "inspections", flow, brokers=[JOB["bootstrap"]], topics=[JOB["input"]], tail=True, starting_offset=OFFSET_BEGINNING
)
events = op.map("keyed", inspections.oks, keyed)
found = op.stateful_flat_map("judge", events, judge)
kop.output("alerts", op.map("message", found, message), brokers=[JOB["bootstrap"]], topic=JOB["output"])

if __name__ == "__main__":
    store = Path(JOB["state"])
    init_db_dir(store, 1)
    cli_main(flow, recovery_config=RecoveryConfig(store), epoch_interval=timedelta(seconds=10))
