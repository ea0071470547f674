"""A service that runs while it is entered, on a free port, over real sockets; and a plain client for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from builders import Cells, cells_of

from schemas.alerts import DeadLetter
from schemas.catalogue import Catalogue
from streams.api.limits import Limits
from streams.api.server import serve
from streams.api.service import Service
from streams.api.submit import Desk
from streams.config import Config
from streams.embedded import EmbeddedRuntime
from streams.log import SqliteLog
from streams.mapping import Mapping as ColumnMapping
from streams.medium import EmbeddedMedium
from streams.tokens import TokenFile

CONFIG = Config()
CATALOGUE = CONFIG.load_catalogue()
WAIT = 60.0
EVENT = {
    "event_id": "R-1", "source": "lab-07", "reported_at": "2026-03-02T09:30:00+08:00", "product": "F0201",
    "region": "120110", "lab": "lab-07", "verdict": "fail",
}  # fmt: skip
"""A good inspection."""


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The last part of a problem's type."""
        assert self.headers["content-type"] == "application/problem+json"
        return str(self.json()["type"]).rpartition(":")[2]


@dataclass
class Client:
    """Sends requests to a port, with a token if there is one."""

    port: int
    token: str | None = None
    base: Mapping[str, str] = field(default_factory=dict)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            every = {**self.base, **(headers or {})}
            if self.token is not None:
                every.setdefault("Authorization", f"Bearer {self.token}")
            connection.request(method, path, body, every, **options)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    def post(
        self, body: Any, content_type: str = "application/json", *, kind: str = "inspection", query: str = "",
        **headers: str,
    ) -> Answer:  # fmt: skip
        """Submit a body; what is not bytes goes as JSON."""
        sent = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return self.ask("POST", f"/v1/events/{kind}{query}", sent, {"Content-Type": content_type, **named})

    def form(self, fields: Mapping[str, str], file: tuple[str, bytes] | None, path: str = "/?lang=en") -> Answer:
        """Send the page's form."""
        edge = "----edge"
        parts = [
            f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
            for name, text in fields.items()
        ]
        if file is not None:
            head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{file[0]}"\r\n\r\n'
            parts.append(head.encode() + file[1] + b"\r\n")
        body = b"".join(parts) + f"--{edge}--\r\n".encode()
        return self.ask("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={edge}"})


@contextmanager
def running(service: Service) -> Iterator[int]:
    """The port of a service that serves from a thread."""
    begun = threading.Event()
    held: dict[str, Any] = {}

    async def main() -> None:
        held["loop"], held["stop"] = asyncio.get_running_loop(), asyncio.Event()
        ready: asyncio.Future[int] = held["loop"].create_future()

        def tell(port: asyncio.Future[int]) -> None:
            held["port"] = port.result()
            begun.set()

        ready.add_done_callback(tell)
        await serve(service, "127.0.0.1", 0, stop=held["stop"], ready=ready)

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="service")
    thread.start()
    try:
        assert begun.wait(WAIT)
        yield held["port"]
    finally:
        held["loop"].call_soon_threadsafe(held["stop"].set)
        thread.join(WAIT)
        assert not thread.is_alive()


@contextmanager
def medium(data: Path) -> Iterator[EmbeddedMedium]:
    """A data directory's topics."""
    opened = EmbeddedMedium(SqliteLog(data, CONFIG.partitions))
    try:
        yield opened
    finally:
        opened.close()


def desk(
    data: Path,
    *,
    limits: Limits | None = None,
    mappings: Mapping[str, ColumnMapping] | None = None,
    catalogue: Catalogue = CATALOGUE,
) -> Desk:
    """A desk for a data directory under the default configuration."""
    return Desk(CONFIG, catalogue, lambda: medium(data), mappings=mappings, limits=limits)


def service(data: Path, tokens: Path | None = None, **options: Any) -> Service:
    """A service for a data directory."""
    return Service(desk(data, **options), None if tokens is None else TokenFile(tokens))


def records(data: Path, topic: str) -> list[bytes]:
    """The values of a topic."""
    with medium(data) as opened:
        return [
            record.value or b""
            for origin, end in opened.ends([topic]).items()
            for batch in opened.read(origin, 0, end, 5_000)
            for record in batch
        ]


def letters(data: Path) -> list[DeadLetter]:
    """The dead letters of a data directory."""
    return [msgspec.json.decode(value, type=DeadLetter) for value in records(data, "dead-letters")]


def counted(data: Path) -> Cells:
    """What the stages count when they work off the directory."""
    log = SqliteLog(data, CONFIG.partitions)
    try:
        log.lock()
        runtime = EmbeddedRuntime(log, CONFIG, CATALOGUE)
        runtime.run_to_end()
        return {key: value for key, value in cells_of([runtime.pipeline.assess]).items() if np.any(value)}
    finally:
        log.close()
