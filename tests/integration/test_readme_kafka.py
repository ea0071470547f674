"""The README's lines for a broker are run, in their order, on a broker of their own (all others: test_readme_walk)."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from broker import KafkaBroker

from tests.streams.readme import Reader, commands

pytestmark = pytest.mark.kafka


def test_every_broker_command_of_the_readme_does_its_work(tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    complaint = {"source": "hotline", "reported_at": now, "product": "F0101", "region": "120101", "channel": "12315"}
    lines = [json.dumps({**complaint, "event_id": f"c{number}"}) for number in range(9)]
    (tmp_path / "new.ndjson").write_text("\n".join(lines))
    wanted = [line for line in commands("README.md") if "--broker kafka://" in line]
    assert [line.split()[1] for line in wanted] == ["topics", "run", "publish", "alerts"]
    said = {}
    with KafkaBroker() as broker, Reader(tmp_path) as reader:
        for line in wanted:
            reader.end()
            said[line.split()[1]] = reader.run(line.replace("localhost:9092", broker.bootstrap))
        reader.end()
        counted = reader.run(f"tocsin report --broker kafka://{broker.bootstrap} --language en --out page.html")
        report = (tmp_path / "page.html").read_text("utf-8")
    assert "page.html" in counted
    assert "Events counted" in report
