"""What the commands share that serve HTTP until they are told to end: their log, their metrics, their signals."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from streams.commands.place import Place
from streams.commands.screen import note

if TYPE_CHECKING:
    from streams.api.front import Front
    from streams.api.meter import ServiceMetrics

__all__ = ["log_requests", "measured", "run_service"]


def measured(meter: ServiceMetrics, host: str, port: int) -> AbstractContextManager[Any]:
    """Serves the metrics while it is entered; not where the port is 0."""
    if not port:
        return nullcontext()
    from streams.health import HealthServer

    return HealthServer(meter, host, port)


async def run_service(service: Front, place: Place, host: str, port: int, tls: Any) -> None:
    """Serve until SIGTERM or SIGINT."""
    import asyncio
    import signal

    from streams.api.server import serve

    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ready: asyncio.Future[int] = loop.create_future()

    def tell(listening: asyncio.Future[int]) -> None:
        if not listening.cancelled():
            shown = f"[{host}]" if ":" in host else host
            scheme = "http" if tls is None else "https"
            note(f"serving {place} at {scheme}://{shown}:{listening.result()}/; Ctrl-C ends")

    ready.add_done_callback(tell)
    await serve(service, host, port, stop=stop, tls=tls, ready=ready)


def log_requests(log_format: str) -> None:
    """How requests are logged: ``text`` or ``json``, on standard error."""
    if log_format == "json":
        from streams.logs import to_json_lines

        to_json_lines()
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("tocsin.serve")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
