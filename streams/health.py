"""The HTTP endpoint of a worker: ``/metrics``, ``/healthz``, ``/readyz``; of an HTTP service ``/metrics`` alone.

It answers from a thread with an event loop of its own, so that a worker that computes, restores or hangs still answers;
what it then says is the point. It tells nobody who does not ask, and nothing that is not in the metrics: bind it to an
inner interface all the same, for it asks nobody who he is.

``/healthz``
    200 while the worker's loop turns, else 503: restart the process.
``/readyz``
    200 once the worker has restored its state and caught up, else 503. A rebalance makes it unready again.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Final, Protocol

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from schemas.errors import ConfigError
from streams.readiness import Readiness

__all__ = ["HealthServer", "Measured", "application"]

_START_SECONDS: Final = 30.0


class Measured(Protocol):
    """A process that is measured; whether it is ready only a worker says here."""

    @property
    def registry(self) -> CollectorRegistry: ...

    @property
    def readiness(self) -> Readiness | None: ...


def application(metrics: Measured) -> web.Application:
    """The aiohttp application of a process's metrics."""
    readiness = metrics.readiness

    async def exposition(request: web.Request) -> web.Response:
        # OpenMetrics where the scraper asks for it, else the classic text.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(metrics.registry), headers={"Content-Type": content_type})

    app = web.Application()
    app.add_routes([web.get("/metrics", exposition)])
    if readiness is None:
        return app

    async def healthz(_: web.Request) -> web.Response:
        alive, silent = readiness.alive, readiness.silent_seconds
        said = {"status": "ok" if alive else "stalled", "seconds_since_last_turn": round(silent, 1)}
        return web.json_response(said, status=200 if alive else 503)

    async def readyz(_: web.Request) -> web.Response:
        said = {"status": readiness.state, "records_left": readiness.left}
        return web.json_response(said, status=200 if readiness.ready and readiness.alive else 503)

    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


class HealthServer:
    """Serves the endpoint while it is entered.

    Parameters
    ----------
    metrics
        What to tell.
    host, port
        Where to listen; port 0 takes a free one.

    Raises
    ------
    ConfigError
        On entering: the address is taken, or is not ours.
    """

    def __init__(self, metrics: Measured, host: str, port: int) -> None:
        self._metrics = metrics
        self._place = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="metrics", daemon=True)
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; 0 before."""
        addresses = self._runner.addresses if self._runner is not None else []
        return int(addresses[0][1]) if addresses else 0

    async def _start(self) -> None:
        # A scrape that never ends must not hold up the end of the worker.
        self._runner = web.AppRunner(application(self._metrics), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self._place).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def __enter__(self) -> HealthServer:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_SECONDS)
        except OSError as error:
            self._end()
            host, port = self._place
            raise ConfigError(
                f"metrics cannot be served on {host}:{port} ({error.strerror}); give each process of a machine a "
                "--metrics-port of its own"
            ) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
        self._loop.close()
