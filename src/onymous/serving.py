"""Serve an application with uvicorn, with the hot routes before ASGI."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from onymous.app import Core, application
from onymous.observe import Metrics
from onymous.rules.errors import BodyTooLarge
from onymous.settings import SettingError, Settings
from onymous.web.hot import hot_protocol
from onymous.web.identity import refused
from onymous.web.server import raw


def listen(settings: Settings) -> socket.socket:
    """Open the listening socket; raises `SettingError` if the address is taken."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((settings.host, settings.port))
    except OSError as error:
        sock.close()
        raise SettingError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror};"
            " choose another --port"
        ) from None
    sock.listen(2048)
    sock.setblocking(False)
    return sock


class Server:
    """One serving process: a core, its HTTP application and a socket."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.core = Core(settings)
        self.metrics = Metrics()

    async def run(self, sock: socket.socket, started: Callable[[], None] | None = None) -> None:
        """Serve until told to stop (SIGINT, SIGTERM or `stop`), then answer what waits."""
        await self.core.start()
        try:
            self._uvicorn = self._server(sock)
            ready = asyncio.create_task(self._tell(started))
            await self._uvicorn.serve(sockets=[sock])
            ready.cancel()
        finally:
            await self.core.close()

    def stop(self) -> None:
        """Stop accepting, answer what is under way, return from `run`."""
        self._uvicorn.should_exit = True

    async def _tell(self, started: Callable[[], None] | None) -> None:
        while not self._uvicorn.started:
            await asyncio.sleep(0.005)
        if started is not None:
            started()

    def _server(self, sock: socket.socket) -> uvicorn.Server:
        s = self.settings
        app = application(self.core, self.metrics)
        too_large = raw(refused(BodyTooLarge(most=s.max_identity_body_bytes), None))
        protocol = hot_protocol(app.hot(), s.max_identity_body_bytes, lambda: too_large)
        config = uvicorn.Config(
            app,
            http=protocol,
            loop="none",
            lifespan="off",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=15,
            ssl_certfile=s.tls_cert or None,
            ssl_keyfile=s.tls_key or None,
        )
        return uvicorn.Server(config)
