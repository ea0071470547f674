"""The socket: where the service listens, with which certificate, and how long a silent connection is borne.

aiohttp has no timeout for a connection that never comes with a request, nor a bound on how many there are. A watch
closes those that have no request under way for too long, and the longest idle ones when there are too many.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Final

from aiohttp import web

from schemas.errors import ConfigError
from streams.api.front import Front

__all__ = ["serve", "tls_context"]

_LOOK_SECONDS: Final = 1.0
_END_SECONDS: Final = 60.0
_LINE: Final = 8_190
_HEADERS: Final = 64


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and up with a certificate (and its chain) and its key, PEM.

    Raises
    ------
    ConfigError
        They cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(cert, key, password="")  # a key that asks for a password fails, and does not prompt
    except (OSError, ssl.SSLError) as error:
        why = error.strerror or str(error) or "they do not fit"
        raise ConfigError(f"--tls-cert {cert} and --tls-key {key} cannot be used ({why}); give PEM files") from None
    return context


async def serve(
    service: Front,
    host: str,
    port: int,
    *,
    stop: asyncio.Event,
    tls: ssl.SSLContext | None = None,
    ready: asyncio.Future[int] | None = None,
) -> None:
    """Serve until ``stop`` is set; then take nothing new, and finish what is under way.

    Parameters
    ----------
    ready
        Gets the port once it is listened on.

    Raises
    ------
    ConfigError
        The address cannot be had.
    """
    runner = web.AppRunner(
        service.application(),
        access_log=None,
        logger=_logger(),
        auto_decompress=False,  # we unpack ourselves, within limits
        keepalive_timeout=service.limits.head_seconds,
        lingering_time=2.0,
        max_line_size=_LINE,
        max_field_size=_LINE,
        max_headers=_HEADERS,
        shutdown_timeout=_END_SECONDS,
    )
    await runner.setup()
    watch = asyncio.create_task(_watch(runner, service))
    try:
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls).start()
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} cannot be listened on ({error.strerror}); choose another --host or --port"
            ) from None
        if ready is not None:
            ready.set_result(int(runner.addresses[0][1]))
        await stop.wait()
    finally:
        watch.cancel()
        await runner.cleanup()


def _logger() -> logging.Logger:
    """aiohttp's log of requests that are no HTTP: it would show the peer's address, and the bytes, with any token in
    them. That there was one is enough."""
    logger = logging.getLogger("tocsin.serve.http")
    if not logger.filters:
        logger.addFilter(_bare)
    return logger


def _bare(record: logging.LogRecord) -> bool:
    record.msg, record.args, record.exc_info, record.exc_text = "a request was no HTTP, or broke off", (), None, None
    return record.levelno >= logging.WARNING


async def _watch(runner: web.AppRunner, service: Front) -> None:
    limits = service.limits
    loop = asyncio.get_running_loop()
    idle: dict[web.RequestHandler, float] = {}
    while True:
        await asyncio.sleep(min(_LOOK_SECONDS, limits.head_seconds / 2))
        server, now = runner.server, loop.time()
        if server is None:
            return
        connections = server.connections
        idle = {one: idle.get(one, now) for one in connections if one not in service.active}
        many = len(connections) - limits.connections
        for place, (connection, since) in enumerate(sorted(idle.items(), key=lambda one: one[1])):
            if (place < many or now - since > limits.head_seconds) and connection.transport is not None:
                connection.transport.close()
