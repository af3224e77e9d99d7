"""The feed of identity changes over HTTP: pages, long polls and server-sent events (extension)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

import msgspec

from onymous.flows.changes import MOST, MOST_WAIT_S, Changes, Page
from onymous.rules.errors import BadRequest, EnvironmentMissing, Unauthorized
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call, digits
from onymous.web.identity import ENVIRONMENTS, number
from onymous.web.wire import Reply, json_reply

#: seconds between signs of life on a stream
BEAT_S = 15.0
PERMISSION = "history:read"
_encode = msgspec.json.Encoder().encode


class ChangesWeb:
    """GET /v1/changes and /v1/changes/stream."""

    def __init__(
        self, changes: Changes, authenticator: Authenticator, ending: Callable[[], bool]
    ) -> None:
        self._changes, self._auth, self._ending = changes, authenticator, ending

    async def page(self, call: Call) -> Reply:
        """Return changes after a cursor; waits for the first one if asked to."""
        who, pool, after = self._asked(call)
        params = call.params()
        limit = number(params, "limit", 1, MOST) or 100
        wait = number(params, "wait", 0, MOST_WAIT_S) or 0
        page = await self._changes.page(pool, after, limit, wait, self._ending)
        if not self._auth.still(who, PERMISSION):
            raise Unauthorized()
        return json_reply(200, page)

    async def stream(self, call: Call) -> Reply:
        """Follow changes as server-sent events; `Last-Event-ID` takes the feed up again."""
        who, pool, after = self._asked(call)
        last = call.header(b"last-event-id")
        if last is not None:
            after = digits(last)
            if after is None:
                raise BadRequest(what="Last-Event-ID is not a cursor of this feed")
        first = await self._changes.page(pool, after, MOST, 0)
        headers = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
        return Reply(200, b"", headers, b"text/event-stream", stream=self._follow(who, pool, first))

    async def _follow(self, who: Credentials, pool: int, page: Page) -> AsyncIterator[bytes]:
        yield b": following\n\n"
        beat = time.monotonic()
        while not self._ending() and self._auth.still(who, PERMISSION):
            for change in page.changes:
                body = _encode(change)
                yield b"id: %b\nevent: change\ndata: %b\n\n" % (change.cursor.encode(), body)
            if time.monotonic() - beat > BEAT_S:
                beat = time.monotonic()
                yield b": still here\n\n"
            page = await self._changes.page(pool, int(page.next), MOST, 1)

    def _asked(self, call: Call) -> tuple[Credentials, int, int | None]:
        who = self._auth.permitted(call, PERMISSION)
        params = call.params()
        environment = params.get("environment", "production")
        if environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        return who, who.caller.pool(environment), number(params, "after", 0, 1 << 62)
