"""Routes, limits on bodies, CORS on every answer, the error envelope; hot routes and ASGI alike."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import msgspec

from onymous.limits import Trusted
from onymous.rules.errors import (
    BadHttp,
    BodyTooLarge,
    Internal,
    MethodNotAllowed,
    NoSuchPath,
    Refusal,
    RequestTooSlow,
)
from onymous.web.calls import Call, client_address
from onymous.web.glance import PLAIN, SAMPLE, Glances
from onymous.web.hot import MOST_DISCARDED, HotTable
from onymous.web.hot_request import HotRequest
from onymous.web.identity import IdentityWeb, Respond, refused
from onymous.web.raw import CORS, raw
from onymous.web.wire import Reply

log = logging.getLogger("onymous.web")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
#: an application of its own
Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Handler = Callable[[Call], Awaitable[Reply]]
Start = Callable[[str, Call, Respond], None]
HotHandler = Callable[[HotRequest], None]
#: hears of each answer: operation, answer, seconds (below zero: not timed)
Observe = Callable[[str, Reply, float], None]
#: hears of each request as it begins (operation, request), and by what it returns of its answer
Watch = Callable[[str, Call], Callable[[Reply], None]]

#: where hot routes with a name in their path begin
_HOT_PATHS = (b"/v2/", b"/v3/", b"/s2s/", b"/webevents/", b"/nativeevents/", b"/userprofile/")

PREFLIGHT: tuple[tuple[bytes, bytes], ...] = (
    *CORS,
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"content-type, x-mp-key, accept, date, x-mp-signature, authorization, content-encoding",
    ),
    (b"access-control-max-age", b"86400"),
)


class Route(msgspec.Struct, frozen=True):
    """One operation: where it is, who answers, how large its body may be, what it is for."""

    method: str
    #: path templates: `{name}` is one segment
    paths: tuple[str, ...]
    handler: Handler
    name: str
    summary: str = ""
    max_body: int = 262_144
    ignore_case: bool = False
    #: answers without a task of its own where nothing is unusual; then the route is hot
    start: Start | None = None
    #: whether the names in the path exist, so that the path may be remembered
    remember: Callable[[dict[str, str]], bool] | None = None

    def patterns(self) -> list[re.Pattern[str]]:
        """Return the compiled paths."""
        flags = re.IGNORECASE if self.ignore_case else 0
        out = []
        for path in self.paths:
            parts = [
                f"(?P<{p[1:-1]}>[^/]+)" if p.startswith("{") else re.escape(p)
                for p in path.split("/")
            ]
            out.append(re.compile("/".join(parts) + "/?", flags))
        return out


class Application:
    """The whole HTTP surface as one ASGI application, and its hot routes."""

    def __init__(
        self,
        routes: Iterable[Route],
        identity: IdentityWeb,
        trusted: Trusted,
        *,
        observe: Observe | None = None,
        watch: Watch | None = None,
        glance: Glances | None = None,
    ) -> None:
        self.routes = list(routes)
        self._watch = watch
        self._identity, self._trusted, self._observe = identity, trusted, observe
        self.glance = glance
        self._table = [(p, route) for route in self.routes for p in route.patterns()]
        self._found: dict[tuple[bytes, bytes], tuple[HotHandler, int]] = {}
        #: answers paths under /console, where it is on
        self.console: Asgi | None = None

    # -- ASGI -------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one ASGI request."""
        if scope["type"] != "http":
            return
        if self.console is not None and f"{scope['path']}/".startswith("/console/"):
            client = (self._address(scope.get("client"), scope["headers"]), 0)
            await self.console({**scope, "client": client}, receive, send)
            return
        started = asyncio.get_running_loop().time()
        reply, name = await self._answer(scope, receive)
        if self._observe is not None:
            self._observe(name, reply, asyncio.get_running_loop().time() - started)
        if reply.stream is not None:
            await _stream(receive, send, reply, reply.stream)
        else:
            await _send(send, reply, head=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, receive: Receive) -> tuple[Reply, str]:
        method, path = scope["method"], scope["path"]
        if method == "OPTIONS":
            return Reply(204, b"", PREFLIGHT), "preflight"
        route, parts, allowed = self._find("GET" if method == "HEAD" else method, path)
        if route is None:
            refusal = MethodNotAllowed(allowed=", ".join(sorted(allowed))) if allowed else None
            return refused(refusal or NoSuchPath(), None), "unknown"
        try:
            body = await _body(receive, route.max_body)
            call = Call(
                method,
                path,
                scope["query_string"],
                scope["headers"],
                body,
                self._address(scope.get("client"), scope["headers"]),
                parts,
            )
            if self._watch is not None:
                return await _watched_answer(self._watch, route, call), route.name
            return await route.handler(call), route.name
        except Refusal as refusal:
            return refused(refusal, None), route.name
        except Exception as error:
            log.error("%s failed: %s", route.name, type(error).__name__, exc_info=_bare(error))
            return refused(Internal(), None), route.name

    def _find(self, method: str, path: str) -> tuple[Route | None, dict[str, str], set[str]]:
        allowed: set[str] = set()
        for pattern, route in self._table:
            match = pattern.fullmatch(path)
            if match:
                if route.method == method:
                    return route, match.groupdict(), allowed
                allowed.add(route.method)
        return None, {}, allowed

    def _address(self, client: Any, headers: Iterable[tuple[bytes, bytes]]) -> str:
        return client_address(self._trusted, client[0] if client else "", headers)

    # -- hot routes -------------------------------------------------------------------------

    def hot(self) -> HotTable:
        """Return the routes answered before ASGI: the four identity requests."""
        table: HotTable = {}
        for op in ("identify", "login", "logout", "search"):
            for path in (f"/v1/{op}", f"/identity/v1/{op}"):
                table[b"POST", path.encode()] = self._hot(op, path, {}, self._identity.start)
        return table

    def too_large(self, most: int) -> bytes:
        """Return the answer to a hot request whose body is over its bound, and count it."""
        reply = refused(BodyTooLarge(most=most), None)
        least = min(route.max_body for route in self.routes if route.start is not None)
        if self._observe is not None:
            self._observe("event_body" if most > least else "identity_body", reply, -1.0)
        return raw(reply)

    def too_slow(self, part: str) -> bytes:
        """Return the answer to a request whose head or body does not come, and count it."""
        reply = refused(RequestTooSlow(), None)
        if self._observe is not None:
            self._observe(part, reply, -1.0)
        return raw(reply)

    def find_hot(self, method: bytes, path: bytes) -> tuple[HotHandler, int] | None:
        """Return what answers a path that carries a name, if that is done before ASGI.

        Only paths whose names exist are remembered, so that strangers cannot fill the memory.
        """
        found = self._found.get((method, path))
        if found is None and path.startswith(_HOT_PATHS) and b"%" not in path:
            text = path.decode("latin-1")
            route, parts, _ = self._find(method.decode("latin-1"), text)
            if route is None or route.start is None:
                return None
            handler = self._hot(route.name, text, parts, route.start, route.method)
            found = (handler, route.max_body)
            if route.remember is not None and route.remember(parts):
                self._found[method, path] = found
        return found

    def _hot(
        self, op: str, path: str, parts: dict[str, str], start: Start, method: str = "POST"
    ) -> Callable[[HotRequest], None]:
        observe = self._observe
        timed = itertools.cycle([True] + [False] * (SAMPLE - 1)).__next__
        if self._watch is not None:
            start = _watched_start(self._watch, start)

        glance = self.glance if op in PLAIN else None

        def handle(request: HotRequest) -> None:
            if glance is not None and glance.take(op, request):
                return
            call = Call(
                method,
                path,
                request.query,
                request.headers,
                request.body,
                self._address((request.client,), request.headers),
                parts,
                True,
            )

            began = time.perf_counter() if timed() else 0.0

            def respond(reply: Reply) -> None:
                if observe is not None:
                    observe(op, reply, time.perf_counter() - began if began else -1.0)
                request.respond(raw(reply))

            try:
                start(op, call, respond)
            except Exception as error:
                log.error("%s failed: %s", op, type(error).__name__, exc_info=_bare(error))
                respond(refused(Internal(), None))

        return handle


def _watched_start(watch: Watch, start: Start) -> Start:
    """Return a start in whose context, and only there, what watches may leave its mark."""

    def watched(op: str, call: Call, respond: Respond) -> None:
        def inside() -> None:
            done = watch(op, call)

            def tell(reply: Reply) -> None:
                done(reply)
                respond(reply)

            start(op, call, tell)

        contextvars.copy_context().run(inside)

    return watched


async def _watched_answer(watch: Watch, route: Route, call: Call) -> Reply:
    done = watch(route.name, call)
    try:
        reply = await route.handler(call)
    except Refusal as refusal:
        reply = refused(refusal, None)
    except Exception:
        done(refused(Internal(), None))
        raise
    done(reply)
    return reply


def identity_handler(identity: IdentityWeb, op: str) -> Handler:
    """Return the ordinary handler of one identity request."""

    async def handle(call: Call) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def respond(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        start: Callable[[str, Call, Respond], None] = identity.start
        start(op, call, respond)
        return await future

    return handle


async def _body(receive: Receive, most: int) -> bytes:
    """Read a body of at most `most` bytes; a larger one is read to its end, but not kept."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadHttp()  # half a body is none
        part = message.get("body", b"")
        size += len(part)
        if size <= most:
            parts.append(part)
        else:
            parts.clear()
        if size > MOST_DISCARDED or not message.get("more_body"):
            if size > most:
                raise BodyTooLarge(most=most)
            return b"".join(parts)


async def _send(send: Send, reply: Reply, *, head: bool) -> None:
    headers = [(b"content-type", reply.content_type), *CORS, *reply.headers]
    if reply.status == 204:
        headers = list(reply.headers)
    elif reply.status != 304:  # its length would be that of the answer the client has
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else reply.body})


async def _stream(receive: Receive, send: Send, reply: Reply, stream: AsyncIterator[bytes]) -> None:
    """Send a body piece by piece until it ends or the client leaves."""
    headers = [(b"content-type", reply.content_type), *CORS, *reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def pieces() -> None:
        async for piece in stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = {asyncio.ensure_future(pieces()), asyncio.ensure_future(leaving())}
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await send({"type": "http.response.body", "body": b""})


def _bare(error: Exception) -> Exception:
    """Strip the message of an error for the log: it may hold identity values."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)
