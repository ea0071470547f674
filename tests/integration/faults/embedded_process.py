"""The processes of an embedded run: ``tocsin run`` with hooks, and a publisher that says what is acknowledged.

    python embedded_process.py run '{"data": DIR, "settle": S, "mutation": ..., "clock": [...]}'
    python embedded_process.py publish '{"data": DIR, "chunks": FILE, "acknowledged": FILE, "gate": FILE, "pace": S}'

A run closes the ticks of history when its publishers have been quiet for ``settle`` seconds: two by default, which is
long where a run lives for three; so these runs look more often, and believe sooner that a day is over.

The publisher appends chunk by chunk, one every S seconds and as many as the gate's file says, and notes the number of
each in the file of acknowledgements, durably, once the log has taken it; a publisher that starts again goes on after
the last number there. One that was killed between the two sends a chunk again: a sender that does not know must.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[2]), str(HERE.parent)]


def run(orders: dict[str, Any]) -> None:
    from streams.cli import cli

    if "settle" in orders:
        from streams.embedded import EmbeddedRuntime

        defaults: dict[str, Any] = EmbeddedRuntime.watch.__kwdefaults__
        defaults |= {"settle": orders["settle"], "poll": orders["settle"] / 2}
    if "clock" in orders:
        from faults.hooks import bend_clock

        bend_clock(*orders["clock"])
    if "mutation" in orders:
        from faults.hooks import mutate

        mutate(orders["mutation"])
    cli.main(["run", "--data", orders["data"], "--lang", "en", *orders.get("options", [])], "tocsin")


def publish(orders: dict[str, Any]) -> None:
    import msgspec

    from schemas.topics import partitions_of
    from streams.config import Config
    from streams.log import SqliteLog, partition_for
    from streams.medium import Outgoing

    chunks = msgspec.msgpack.decode(
        Path(orders["chunks"]).read_bytes(), type=list[list[tuple[str, list[tuple[int, bytes, bytes | None, Any]]]]]
    )
    folder = Path(orders["data"])
    log = SqliteLog(folder, Config.load(folder / "tocsin.toml").partitions)
    with open(orders["acknowledged"], "a+b", buffering=0) as acknowledged:
        acknowledged.seek(0)
        numbers = [line for line in acknowledged.read().split(b"\n")[:-1] if line]
        for number in range(int(numbers[-1]) + 1 if numbers else 0, len(chunks)):
            while int(Path(orders["gate"]).read_text() or 0) <= number:
                time.sleep(0.02)
            with log.transaction():
                for topic, records in chunks[number]:
                    parts = partitions_of(topic, log.partitions)
                    rows = (Outgoing(*record) for record in records)
                    log.append(topic, [(partition_for(r.key, parts), r.time, r.key, r.value, r.headers) for r in rows])
            os.write(acknowledged.fileno(), b"%d\n" % number)
            os.fsync(acknowledged.fileno())
            time.sleep(orders["pace"])
    log.close()


if __name__ == "__main__":
    {"run": run, "publish": publish}[sys.argv[1]](json.loads(sys.argv[2]))
