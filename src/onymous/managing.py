"""A listener of its own for what operators use: metrics and the console (rulings 16).

With `manage_port` set, these paths are answered there and nowhere else, and everything else is
answered on the public port only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from uvicorn.config import Config

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

#: where the paths of operators begin
MANAGED = ("/metrics", "/console", "/manage", "/platform")
#: answered on both
BOTH = ("/healthz", "/readyz", "/oauth/token")


def managed(path: str) -> bool:
    """Return whether a path is for operators."""
    return any(path == start or path.startswith(start + "/") for start in MANAGED)


def public_only(app: Asgi) -> Asgi:
    """Return the application without the paths of operators."""
    return _only(app, lambda path: not managed(path))


def managed_only(app: Asgi) -> Asgi:
    """Return the application with nothing but the paths of operators."""
    return _only(app, lambda path: managed(path) or path in BOTH)


def _only(app: Asgi, allowed: Callable[[str], bool]) -> Asgi:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not allowed(scope["path"]):
            scope = {**scope, "path": "/-", "raw_path": b"/-"}  # an unknown path: 404 as ever
        await app(scope, receive, send)

    return answer


def manager(app: Asgi, cert: str, key: str, http: type[asyncio.Protocol]) -> Config:
    """Return what the server of the operators' listener is made from; `http` is its protocol."""
    config = Config(
        managed_only(app),
        http=http,
        loop="none",
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
        ssl_certfile=cert or None,
        ssl_keyfile=key or None,
    )
    config.load()
    return config
