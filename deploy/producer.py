#!/usr/bin/env python3
"""Publishes simulated events to a broker as if they came now: the demo producer of Compose, and deploy/verify's feed.

    python deploy/producer.py --broker kafka://localhost:9092 --days 30 --rate 200 --forever

Every record is made up, and says so: its source begins with ``sim-``. The simulated days are moved by whole weeks, so
that weekdays stay what they are, and end today; with ``--forever`` the last week comes again and again, each event
under a new id. Security is set by the TOCSIN_KAFKA_* variables, as for every command.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    del sys.path[0]  # beside this file is a kafka.py, which is not kafka-python

import msgspec

from schemas.errors import TocsinError
from schemas.events import TOPICS
from streams.kafka_client import KafkaMedium
from streams.kafka_security import BrokerAddress, Security
from streams.medium import Outgoing
from streams.simulate import Record, simulate

_DAY_MS: Final = 86_400_000
_WEEK_MS: Final = 7 * _DAY_MS
CELL: Final = ("F0101", "120110")
"""Where :func:`incidents` happen: liquid milk in Dongli."""
_TIMES: Final = ("reported_at", "occurred_at", "sampled_at")


def moved(value: bytes, by: timedelta, mark: str = "") -> bytes:
    """The same event at another time, and under another id where it is to count again."""
    event = msgspec.json.decode(value)
    for name in _TIMES:
        if event.get(name):
            event[name] = (datetime.fromisoformat(event[name]) + by).isoformat()
    event["event_id"] += mark
    return msgspec.json.encode(event)


def last_days(now: datetime, days: int, scale: float, branch: bytes = b"") -> Iterator[Record]:
    """The first simulated days, so moved that the last is of the week before ``now``; of one branch, or of all."""
    events = simulate(scale=scale).events
    end = events[0].reported_at + days * _DAY_MS
    kept = [one for one in events if one.reported_at < end and one.key.startswith(branch)]
    weeks = (int(now.timestamp() * 1_000) - kept[-1].reported_at) // _WEEK_MS
    by = timedelta(weeks=weeks)
    for one in kept:
        yield one._replace(value=moved(one.value, by), reported_at=one.reported_at + weeks * _WEEK_MS)


def incidents(now: datetime) -> Iterator[Record]:
    """A district where tests of one product fail and injuries surge, an accident of grade I, and rubbish.

    All but the accident is of days that have ended.
    """
    product, region = CELL
    for number in range(60):
        at = now - timedelta(hours=44 - 0.3 * number)
        about: dict[str, Any] = {
            "source": "sim-live", "reported_at": at.isoformat(), "product": product, "region": region,
        }  # fmt: skip
        injury = {**about, "event_id": f"i-{number}", "site": f"sim-hospital-{number % 5}", "severity": 2}
        test = {**about, "event_id": f"t-{number}", "lab": f"sim-lab-{number % 4}", "tested": 20, "failed": 5}
        yield _record(TOPICS["injury"], injury, at)
        yield _record(TOPICS["inspection"], test, at)
    yield Record(TOPICS["injury"], b"", b"{rubbish", int(now.timestamp() * 1_000))
    yield accident(now, f"A-{now.timestamp():.0f}")


def accident(now: datetime, name: str) -> Record:
    """An accident with twelve deaths."""
    product, region = CELL
    event = {
        "event_id": name, "source": "sim-live", "reported_at": now.isoformat(), "product": product, "region": region,
        "authority": "sim-bureau", "deaths": 12,
    }  # fmt: skip
    return _record(TOPICS["accident"], event, now)


def _record(topic: str, event: dict[str, Any], at: datetime) -> Record:
    return Record(topic, event["product"].encode(), msgspec.json.encode(event), int(at.timestamp() * 1_000))


def send(medium: KafkaMedium, records: list[Record]) -> None:
    """Write records to their topics, those of each topic in order."""
    by_topic: dict[str, list[Outgoing]] = {}
    now = int(time.time() * 1_000)
    for one in records:
        by_topic.setdefault(one.topic, []).append(Outgoing(now, one.key, one.value))
    for topic, outgoing in by_topic.items():
        medium.write(topic, outgoing)


def feed(medium: KafkaMedium, records: list[Record], rate: float) -> None:
    """Send records, so many a second."""
    began, sent = time.monotonic(), 0
    step = max(1, int(rate / 5))
    for start in range(0, len(records), step):
        send(medium, records[start : start + step])
        sent += step
        time.sleep(max(0.0, sent / rate - (time.monotonic() - began)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy/producer.py", description="Publish simulated events as of now.")
    parser.add_argument("--broker", default=os.environ.get("TOCSIN_BROKER", "kafka://localhost:9092"))
    parser.add_argument("--prefix", default="", help="Stands before every topic's name.")
    parser.add_argument("--days", type=int, default=120, help="Simulated days to begin with, 1 to 366.")
    parser.add_argument("--scale", type=float, default=0.1, help="How many events, against 180,000 a year.")
    parser.add_argument("--rate", type=float, default=500.0, help="Events a second at most.")
    parser.add_argument("--forever", action="store_true", help="Go on with the last week, an event a second.")
    parser.add_argument("--incidents", action="store_true", help="And incidents: failing tests, injuries, a disaster.")
    given = parser.parse_args()
    if not (1 <= given.days <= 366 and given.rate > 0):
        parser.error("--days 1 to 366, --rate above 0")
    try:
        address = BrokerAddress.parse(given.broker)
        medium = KafkaMedium(address, given.prefix, Security.from_environment(os.environ, address))
        now = datetime.now(UTC)
        records = list(last_days(now, given.days, given.scale))
        feed(medium, [*records, *(incidents(now) if given.incidents else ())], given.rate)
        print(f"{len(records):,} simulated events published to {given.broker}", flush=True)
        turn = 0
        while given.forever:
            turn += 1
            last = [one for one in records if one.reported_at > records[-1].reported_at - _WEEK_MS]
            for one in last:
                behind = timedelta(milliseconds=int(time.time() * 1_000) - one.reported_at)
                send(medium, [one._replace(value=moved(one.value, behind, f"-{turn}"))])
                time.sleep(1.0)
        medium.close()
    except (TocsinError, ValueError) as error:
        print(f"producer.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
