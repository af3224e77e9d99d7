"""How a process ends: what was accepted is answered, connections end politely; told twice, at once.

A client that keeps its connection may send a request at the very moment the server closes it, and
could not know whether it was taken. So connections are first told: for a moment every answer says
`connection: close`; only those that stayed silent are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

from uvicorn.config import Config
from uvicorn.server import Server

from onymous.web.hot import HotProtocol

log = logging.getLogger("onymous.stopping")

#: how long connections without a request stay open, so that their next answer can say good-bye
GRACE_S = 1.0


class Polite(Server):
    """uvicorn's server; signals are not its business, and it counts what it had to cut off."""

    #: requests that had no answer when waiting for them ended
    cut = 0

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.servers: list[asyncio.base_events.Server] = []

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: raised again at the end they would end the process too early."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, wait for answers under way, note what was cut off."""
        await super().shutdown(sockets)
        cycles = [getattr(c, "cycle", None) for c in self.server_state.connections]
        self.cut = sum(cycle is not None and not cycle.response_complete for cycle in cycles)

    async def on_tick(self, counter: int) -> bool:
        """Look, every few tenths of a second, for requests that take too long to come."""
        kind = self.config.http_protocol_class
        if issubclass(kind, HotProtocol):
            least = min(kind.head_timeout, kind.body_timeout)
            if counter % max(1, min(50, int(least * 2))) == 0:
                now = asyncio.get_running_loop().time()
                for connection in list(self.server_state.connections):
                    if isinstance(connection, HotProtocol):
                        connection.watch(now)
        return await super().on_tick(counter)

    async def let_go(self, protocol: type[HotProtocol]) -> None:
        """Take no new connections, and tell those there are that each answer is their last."""
        for server in self.servers:
            server.close()
        protocol.let_go()
        give_up = asyncio.get_running_loop().time() + GRACE_S
        while self.server_state.connections and asyncio.get_running_loop().time() < give_up:
            await asyncio.sleep(0.02)


class Ending:
    """Whether this process is asked to end; asked twice, it waits for nothing any more."""

    def __init__(self) -> None:
        self._times = 0
        self._asked = asyncio.Event()
        self._again = asyncio.Event()

    def __call__(self) -> bool:
        """Return whether this process is about to end."""
        return self._times > 0

    def ask(self) -> None:
        """Ask this process to end."""
        self._times += 1
        (self._again if self._times > 1 else self._asked).set()
        log.info("asked to end" if self._times == 1 else "asked to end at once")

    async def asked(self, times: int = 1) -> None:
        """Wait until this process was asked to end (so many times)."""
        await (self._again if times > 1 else self._asked).wait()

    async def asked_within(self, seconds: float) -> None:
        """Wait, unless asked to end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._asked.wait(), seconds)

    async def pause(self, seconds: float) -> None:
        """Wait, unless asked to end at once."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._again.wait(), seconds)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT as requests to end, as long as this lasts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def notify(state: str) -> None:
    """Tell systemd (`Type=notify`) about this process; nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    where = "\0" + address[1:] if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), where)
