"""Hot routes: the few requests that make up the traffic are answered before ASGI.

A hot request takes the place of uvicorn's own request cycle on its connection, so that pipelining,
keep-alive, disconnects and graceful shutdown are still uvicorn's. Whatever is unusual about a
request (a pipelined one, gzip, `Expect`, an unknown path) goes the ordinary way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from onymous.web.hot_request import Handler, Head, HotRequest, last_words

#: (method, path) -> handler
HotTable = dict[tuple[bytes, bytes], Handler]
#: (method, path) -> handler and largest body, for paths that carry a name
Finder = Callable[[bytes, bytes], tuple[Handler, int] | None]

#: bytes of a too large body that are read before the connection is closed
MOST_DISCARDED = 64 << 20
#: heads remembered, and the longest one
MOST_HEADS, MOST_HEAD = 2_000, 2_048
#: bytes of a head (address and headers) that arrives in pieces, or that one piece may have
MOST_HEADERS = 65_536
#: bytes of a body that earn it another second
BODY_RATE = 1024
#: seconds in which the last answer of a connection can be read
LAST_WORDS_S = 2.0
#: seconds nobody may read what is written
UNREAD_S = 60.0
#: requests of a connection that may wait for the answer before theirs
MOST_PIPELINED = 500
#: offers to speak HTTP/2 instead, which clients may make with any request: the parser would take
#: what follows for the other protocol
_UPGRADE = re.compile(rb"\r\n(?:upgrade|http2-settings):[^\r\n]*(?=\r\n)", re.IGNORECASE)
#: headers that send a request the ordinary way
_UNUSUAL = {b"content-encoding", b"expect", b"upgrade", b"x-http-method-override"}


def _nothing(method: bytes, path: bytes) -> None:
    """Find no handler."""


def _no_answer(most: int) -> bytes:
    """Stand for the answer to a body of over `most` bytes."""
    return b""


def _no_slow_answer(part: str) -> bytes:
    """Stand for the answer to a head or body that does not come."""
    return b""


class HotProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with hot routes."""

    table: ClassVar[HotTable] = {}
    max_body: ClassVar[int] = 0
    too_large: ClassVar[Callable[[int], bytes]] = staticmethod(_no_answer)
    #: answers to a head that is too large, and to what is no HTTP
    head_too_large: ClassVar[bytes] = b""
    bad_http: ClassVar[bytes] = b""
    #: seconds a head and a body may take, and the answer where they took longer
    head_timeout: ClassVar[float] = 20.0
    body_timeout: ClassVar[float] = 20.0
    too_slow: ClassVar[Callable[[str], bytes]] = staticmethod(_no_slow_answer)
    find: ClassVar[Finder] = staticmethod(_nothing)
    _hot: HotRequest | None = None
    heads: ClassVar[dict[bytes, Head]] = {}
    #: every answer is the last one of its connection
    leaving: ClassVar[bool] = False
    _active = 0.0
    #: the parser is inside a message
    _inside = False
    #: the parser is inside a head, of which so many bytes came before
    _in_head = False
    #: the last answer of the connection is given; what still comes is not read
    _gone = False
    _head = 0
    #: since when `watch` sees a request unfinished, in which part, and bytes that came since
    _since, _part, _got = 0.0, "", 0
    #: the latest hot request that was complete
    _whole: HotRequest | None = None
    #: the latest request that went the ordinary way and began
    _running: RequestResponseCycle | None = None
    #: bytes inside a message since the last of its body: trailers and the like
    _loose = 0

    def data_received(self, data: bytes) -> None:
        """Take data: a request whose head is remembered goes straight to its handler."""
        cycle = self.cycle
        if self._inside or (cycle is not None and not cycle.response_complete):
            self._got += len(data)
            self._parse(data)
            return
        end = data.find(b"\r\n\r\n") + 4
        start = data[:end]
        head, length = self.heads.get(start), len(data) - end
        if head is not None and length == head.length:
            hot = HotRequest(self, head.handler, head.query, head.most)
            hot.headers, hot.body, hot.more_body = head.headers, data[end:], False
            self.cycle = hot  # type: ignore[assignment]
            head.handler(hot)
            return
        self._whole = None
        self._parse(_UPGRADE.sub(b"", start) + data[end:] if b"pgrade" in start else data)
        hot_one = self._whole
        if hot_one is not None and not self._inside and end <= MOST_HEAD:
            self._remember(start, hot_one, length)

    def _remember(self, start: bytes, hot: HotRequest, length: int) -> None:
        """Remember a head, if the data was exactly one plain request of a stated length."""
        names = [name for name, _ in hot.headers]
        stated = [value for name, value in hot.headers if name == b"content-length"]
        if (
            hot.size == length
            and length <= hot.most
            and hot.keep_alive
            and (stated == [b"%d" % length] or (not length and not stated))
            and b"transfer-encoding" not in names
        ):
            if len(self.heads) >= MOST_HEADS:
                self.heads.clear()
            self.heads[start] = Head(hot, length)

    def on_message_begin(self) -> None:
        """Note that the parser is inside a message."""
        self._inside = self._in_head = True
        self._since, self._loose = 0.0, 0
        super().on_message_begin()

    def on_chunk_header(self) -> None:
        """Let trailers be read by nobody: they come after the checks of whoever passes them on."""
        self.headers = []

    def watch(self, now: float) -> None:
        """End a connection on which a request takes too long to come; called now and then.

        Nothing is counted for requests that come in one piece.
        """
        flow = self.flow
        if flow.write_paused:
            part = "answer"
        elif self._inside:
            part = "head" if self._in_head else "body"
        else:  # who says nothing on a new connection has as long as on a used one
            part = "nothing" if self.cycle is None else ""
        if not part or (part != "answer" and (self._gone or flow.read_paused)):
            self._since = 0.0
        elif not self._since or part != self._part:
            self._since, self._part, self._got = now, part, 0
        elif now - self._since > self._most_seconds(part):
            self._end_slow(part)

    def _most_seconds(self, part: str) -> float:
        if part in ("head", "answer"):
            return self.head_timeout if part == "head" else UNREAD_S
        idle: float = self.timeout_keep_alive
        return idle if part == "nothing" else self.body_timeout + self._got / BODY_RATE

    def _end_slow(self, part: str) -> None:
        if part == "head":
            self._give_up(type(self).too_slow(part))
        elif part == "body":
            self._end(type(self).too_slow(part))
        elif part == "answer":
            self.transport.abort()
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        """Read no more requests while their answers are not read."""
        super().pause_writing()
        self.flow.pause_reading()

    def resume_writing(self) -> None:
        """Read on."""
        super().resume_writing()
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def _end(self, answer: bytes) -> None:
        """End a connection inside a body; only a hot request that waits for it is answered."""
        hot = self._hot
        if hot is not None and not hot.response_complete:
            self._cut(hot, answer)
        else:
            self.transport.close()

    def _parse(self, data: bytes) -> None:
        """Parse data; the keep-alive timer looks at the clock instead of being reset."""
        if self._gone:
            return
        if self._in_head:
            end = data.find(b"\r\n\r\n")  # what follows may be other requests
            self._head += len(data) if end < 0 else end
        elif self._inside:
            self._loose += len(data)
        if self._head > MOST_HEADERS or (
            len(data) > MOST_HEADERS
            and not self._inside
            and data.find(b"\r\n\r\n", 0, MOST_HEADERS) < 0
        ):
            self._give_up(self.head_too_large)
            return
        task, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if self._in_head and not self._head and data.find(b"\r\n\r\n") < 0:
            self._head = len(data)
        if self.timeout_keep_alive_task is None and self.parser is not None:
            self.timeout_keep_alive_task = task
        elif task is not None:
            task.cancel()
        if self._loose > MOST_HEADERS and self._inside:
            self._end(self.bad_http)

    def on_headers_complete(self) -> None:
        """Take a hot request, or pass on."""
        self._in_head, self._head = False, 0
        self._hot = None
        busy = self.cycle is not None and not self.cycle.response_complete
        method = self.parser.get_method()
        if not busy and (method == b"POST" or method == b"GET"):
            path, _, query = self.url.partition(b"?")
            handler, most = self.table.get((method, path)), self.max_body
            if handler is None and (found := type(self).find(method, path)) is not None:
                handler, most = found
            if handler is not None and not any(n in _UNUSUAL for n, _ in self.headers):
                hot = HotRequest(self, handler, query, most)
                hot.keep_alive = (
                    self.parser.get_http_version() != "1.0"
                    and self.parser.should_keep_alive()
                    and not self.leaving
                )
                self._hot = hot
                self.cycle = hot  # type: ignore[assignment]
                return
        if len(self.pipeline) >= MOST_PIPELINED:
            self._drop()
            return
        super().on_headers_complete()
        if self.leaving and self.cycle is not None:
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, in the words and headers of every other refusal."""
        self._give_up(self.bad_http)

    def _give_up(self, answer: bytes) -> None:
        """End a connection whose request cannot be read."""
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            # an answer now would pass for that of the request before
            self._drop()
            return
        self._say_last(answer)

    def _drop(self) -> None:
        """End a connection and what runs and waits on it."""
        self._gone = True
        if self._running is not None:
            self._running.disconnected = True
        self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _cut(self, hot: HotRequest, answer: bytes) -> None:
        """Answer a request whose body is still coming, and end the connection."""
        hot.response_complete = True
        if not self.transport.is_closing():
            self._say_last(answer)

    def _say_last(self, answer: bytes) -> None:
        self._gone, self._inside = True, True
        last_words(self.transport, answer, close=False)
        # who is still sending could not read the answer if the connection were closed at once
        self.loop.call_later(LAST_WORDS_S, self.transport.close)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    @classmethod
    def let_go(cls) -> None:
        """From now on every answer says that it is the last one of its connection."""
        cls.leaving = True
        cls.heads.clear()  # what is remembered stays open

    def on_body(self, body: bytes) -> None:
        """Collect the body within its bound."""
        self._loose = 0
        hot = self._hot
        if hot is None:
            super().on_body(body)
        elif not hot.response_complete:
            hot.size += len(body)
            if hot.size <= hot.most:
                hot.body = hot.body + body if hot.body else body
            elif hot.size > MOST_DISCARDED:
                self._cut(hot, type(self).too_large(hot.most))

    def on_message_complete(self) -> None:
        """Hand a complete hot request to its handler."""
        self._inside = self._gone
        hot = self._hot
        if hot is None:
            super().on_message_complete()
            return
        self._hot = None
        self._whole = hot
        if hot.response_complete:
            return
        hot.more_body = False
        if hot.size > hot.most:
            hot.respond(type(self).too_large(hot.most))
        else:
            hot.handler(hot)

    def hot_done(self) -> None:
        """Go on after a hot answer: pipelined requests, keep-alive."""
        self.server_state.total_requests += 1
        self._active = self.loop.time()
        if self.pipeline:
            self.flow.resume_reading()
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self.timeout_keep_alive_task is None:
            self._arm(self.timeout_keep_alive)

    def _arm(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            seconds, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for the whole time."""
        self.timeout_keep_alive_task = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._arm(self.timeout_keep_alive)
            return
        idle = self.loop.time() - self._active
        if self._active and idle < self.timeout_keep_alive:
            self._arm(self.timeout_keep_alive - idle)
        else:
            self.transport.close()


def hot_protocol(
    table: HotTable,
    max_body: int,
    find: Finder,
    *,
    too_large: Callable[[int], bytes],
    head_too_large: bytes = b"",
    bad_http: bytes = b"",
    too_slow: tuple[float, float, Callable[[str], bytes]] = (20.0, 20.0, _no_slow_answer),
) -> type[HotProtocol]:
    """Return the protocol class that answers `table`, and what `find` finds, before ASGI.

    Bodies over `max_body` bytes are read to their end, not kept, and answered with what
    `too_large` returns for their bound: a client that is still sending could not read the answer.
    Over `MOST_DISCARDED` the connection is closed. `too_slow` is seconds for a head, seconds for a
    body, and what answers the part (head or body) that took longer.
    """
    attributes: dict[str, Any] = {
        "heads": {},
        "table": table,
        "max_body": max_body,
        "too_large": staticmethod(too_large),
        "head_too_large": head_too_large,
        "bad_http": bad_http,
    }
    names = ("head_timeout", "body_timeout", "too_slow")
    attributes |= dict(zip(names, (*too_slow[:2], staticmethod(too_slow[2])), strict=True))
    attributes["find"] = staticmethod(find)
    return type("ServedProtocol", (HotProtocol,), attributes)
