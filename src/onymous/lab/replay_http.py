"""A small keep-alive HTTP/1.1 client for load: one connection, one request at a time.

It exists because the client must not be slower than the server it drives: a general client takes
several times the server's own time per request. It sends bytes that are ready and gives back
status, body and the pause the server asks for; nothing else of HTTP.
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools


class ServerUnreachable(Exception):
    """The server does not answer, or not in HTTP; the message says where and what happened."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the server."""

    status: int
    body: bytes
    retry_after: float | None
    """Seconds, from `Retry-After`; None where the header is missing or not a number."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go. `prefix` is put before every path (no slash at its end)."""

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None

    @classmethod
    def parse(cls, url: str, tls: ssl.SSLContext | None = None) -> "Target":
        """From `http://host:port/prefix`; `https` uses `tls` or the system's certificates.

        ValueError for another scheme, or a missing host.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the address must look like http://127.0.0.1:8080")
        secure = parts.scheme == "https"
        context = (tls or ssl.create_default_context()) if secure else None
        port = parts.port or (443 if secure else 80)
        return cls(parts.hostname, port, parts.path.rstrip("/"), context)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class _Wire(asyncio.Protocol):
    """The connection: feeds bytes to the parser, and one future with the answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[Reply] | None = None
        self.parts: list[bytes] = []
        self.retry_after: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not to be asserted: the transports of uvloop are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.fail(exc or ConnectionResetError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(ServerUnreachable(f"the answer is not HTTP: {type(error).__name__}"))
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after" and value.strip().isdigit():
            self.retry_after = float(value)

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        reply = Reply(self.parser.get_status_code(), b"".join(self.parts), self.retry_after)
        self.parts, self.retry_after = [], None
        if not self.parser.should_keep_alive():
            self.close()
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(reply)

    def fail(self, error: Exception) -> None:
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()
            self.transport = None


class Line:
    """One connection that comes back when it was lost. Not for use by two tasks at a time."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target, self._timeout_s = target, timeout_s
        self._wire: _Wire | None = None

    async def exchange(self, data: bytes) -> Reply:
        """Send one whole request, give its answer.

        A lost connection is opened again and the request is sent once more, so it must be safe to
        repeat. ServerUnreachable when that does not help either, or after the time limit.
        """
        for attempt in (1, 2):
            wire = await self._open()
            try:
                return await self._once(wire, data)
            except OSError as error:
                if attempt == 2:
                    raise self._unreachable(error) from error
        raise AssertionError("not reached")

    async def _once(self, wire: _Wire, data: bytes) -> Reply:
        if wire.transport is None:
            raise ConnectionResetError("the connection was closed")
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Reply] = loop.create_future()
        wire.waiter = waiter
        alarm = loop.call_later(self._timeout_s, self._expire, wire)
        try:
            wire.transport.write(data)
            return await waiter
        finally:
            alarm.cancel()

    def _expire(self, wire: _Wire) -> None:
        wire.fail(self._unreachable(TimeoutError(f"no answer within {self._timeout_s:g} s")))
        wire.close()

    async def _open(self) -> _Wire:
        wire = self._wire
        if wire is not None and wire.transport is not None:
            return wire
        target, loop = self._target, asyncio.get_running_loop()
        opening = loop.create_connection(_Wire, target.host, target.port, ssl=target.tls)
        try:
            _, opened = await asyncio.wait_for(opening, self._timeout_s)
        except OSError as error:
            raise self._unreachable(error) from error
        self._wire = opened
        return opened

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        return ServerUnreachable(f"no answer from {self._target.authority}: {error}")

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self._wire is not None:
            self._wire.close()
