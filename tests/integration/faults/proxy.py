"""A network that can be cut: a TCP proxy in front of a broker's second listener, and the broker that advertises it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from broker import KafkaBroker, deploy

__all__ = ["ProxiedBroker", "Proxy"]

HOST = "127.0.0.1"


class Proxy:
    """Passes bytes between ``port`` and ``target``, until it is cut.

    A *reset* ends all connections and takes no new ones; else the cable is out: connections stand, nothing passes.
    """

    def __init__(self, port: int, target: int) -> None:
        self.port, self._target = port, target
        self._reset = False
        self._ends: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()
        self._open.set()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), name="proxy", daemon=True)
        self._thread.start()
        if not ready.wait(10):
            raise OSError(f"the proxy cannot listen on port {port}")

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, HOST, self.port))
        ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            if self._reset:
                return
            await self._open.wait()
            there, back = await asyncio.open_connection(HOST, self._target)
            self._ends.add(back)
            try:
                pumps = [asyncio.ensure_future(self._pump(*way)) for way in ((reader, back), (there, writer))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                for pump in pumps:
                    pump.cancel()
            finally:
                self._drop(back)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._drop(writer)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self._open.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            return

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._ends.discard(writer)
        writer.transport.abort()

    def _do(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(call)
        done.wait(10)

    def cut(self, *, reset: bool) -> None:
        """Cut the network."""

        def now() -> None:
            self._reset = reset
            self._open.clear()
            for writer in list(self._ends) if reset else ():
                self._drop(writer)

        self._do(now)

    def heal(self) -> None:
        """Let everything pass again."""

        def now() -> None:
            self._reset = False
            self._open.set()

        self._do(now)

    def close(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class ProxiedBroker(KafkaBroker):  # type: ignore[misc]
    """A broker with a second listener, which it advertises at the port of a proxy before it."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        port, self._behind = deploy.free_ports(2)
        self.proxy = Proxy(port, self._behind)

    @property
    def through_proxy(self) -> str:
        """The address of the listener behind the proxy."""
        return f"{HOST}:{self.proxy.port}"

    def _properties(self) -> str:
        more = {
            "listener.security.protocol.map": "PROXIED:PLAINTEXT",
            "listeners": f"PROXIED://{HOST}:{self._behind}",
            "advertised.listeners": f"PROXIED://{HOST}:{self.proxy.port}",
        }
        lines = []
        for line in super()._properties().splitlines():
            name, _, value = line.partition("=")
            lines.append(f"{name}={value},{more[name]}" if name in more else line)
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        super().close()
        self.proxy.close()
