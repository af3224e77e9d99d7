"""One hot request, and what of it is remembered for the next one like it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onymous.web.calls import Headers

Handler = Callable[["HotRequest"], None]


class _NoEvent:
    """Stands for the event uvicorn sets on its own cycles."""

    def set(self) -> None:
        """Nobody waits."""


_NO_EVENT = _NoEvent()


class Head:
    """A head of a hot request that was parsed before: the same bytes mean the same again."""

    __slots__ = ("handler", "headers", "length", "most", "query")

    def __init__(self, request: HotRequest, length: int) -> None:
        self.handler, self.query, self.most = request.handler, request.query, request.most
        self.headers, self.length = Headers(request.headers), length


class HotRequest:
    """One hot request; the handler calls `respond` exactly once, now or later."""

    __slots__ = (
        "body",
        "client",
        "disconnected",
        "handler",
        "headers",
        "keep_alive",
        "message_event",
        "more_body",
        "most",
        "protocol",
        "query",
        "response_complete",
        "size",
    )

    def __init__(self, protocol: Any, handler: Handler, query: bytes, most: int) -> None:
        self.protocol, self.handler, self.query, self.most = protocol, handler, query, most
        self.headers: list[tuple[bytes, bytes]] = protocol.headers
        self.client: str = protocol.client[0] if protocol.client else ""
        self.body = b""
        self.size = 0
        self.more_body = True
        self.response_complete = self.disconnected = False
        self.keep_alive = True
        self.message_event = _NO_EVENT

    def respond(self, raw: bytes) -> None:
        """Send a complete HTTP answer; does nothing if the client is gone."""
        if self.response_complete:
            return
        self.response_complete = True
        protocol = self.protocol
        transport = protocol.transport
        if self.disconnected or transport is None or transport.is_closing():
            return
        if self.keep_alive:
            transport.write(raw)
            protocol.hot_done()
        else:
            last_words(transport, raw)


def last_words(transport: Any, raw: bytes, *, close: bool = True) -> None:
    """Send an answer after which the connection ends."""
    head, mark, rest = raw.partition(b"\r\n\r\n")
    transport.write(head + b"\r\nconnection: close" + mark + rest)
    if close:
        transport.close()
