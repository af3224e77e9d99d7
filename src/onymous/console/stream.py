"""The live page: what arrives, as it is committed, values masked; server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import Response, StreamingResponse

from onymous.console.site import HEADERS, Problem, Site, Visit
from onymous.console.view import Shown, sent, told
from onymous.flows.live import Arrived

#: streams of one process; seconds after which the right to look is checked again
MOST_STREAMS, CHECK_S = 32, 15.0


class Stream:
    """GET live and live/stream."""

    def __init__(self, site: Site) -> None:
        self._site, self._rooms = site, site.rooms
        self._open = 0

    async def page(self, visit: Visit) -> Response:
        """Show the page the stream fills."""
        return visit.page("live.html", where=visit.place.path)

    async def stream(self, visit: Visit) -> Response:
        """Send what arrives until the browser leaves or the session ends."""
        _ = visit.place
        if self._open >= MOST_STREAMS:
            raise Problem(503, "Too many live pages are open", "Close one, or try again later.")
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        return StreamingResponse(self._follow(visit), 200, headers, media_type="text/event-stream")

    async def _follow(self, visit: Visit) -> AsyncIterator[bytes]:
        self._open += 1
        checked = time.monotonic()
        try:
            async for group in self._rooms.live.follow(visit.place.pool, self._rooms.ending):
                if time.monotonic() - checked > CHECK_S:
                    checked = time.monotonic()
                    user = await self._rooms.people.by_id(visit.user.id)
                    if user is None or user.generation != visit.user.generation:
                        yield b"event: over\ndata: {}\n\n"
                        return
                if not group:
                    yield b": still here\n\n"
                for arrived in group:
                    yield b"data: " + json.dumps(self._line(arrived)).encode() + b"\n\n"
        finally:
            self._open -= 1

    def _line(self, arrived: Arrived) -> dict[str, Any]:
        """Return what the page shows of something that arrived; no value leaves unmasked."""
        out: dict[str, Any] = {"at": arrived.at_ms, "mpid": arrived.mpid}
        if arrived.batch is not None:
            facts = sent(arrived.batch)
            out |= {k: facts[k] for k in ("kind", "title", "from", "batch")}
            out["lines"] = [
                " ".join(p for p in (e["kind"], e["name"], _times(e["count"])) if p)
                for e in facts["events"]
            ]
        elif arrived.change is not None:
            facts = told(arrived.change, Shown(self._site.handles, "", frozenset()))
            out |= {k: facts[k] for k in ("kind", "title", "from", "why")}
            out["lines"] = [_words(c) for c in facts["changes"]]
        return out


def _times(count: int) -> str:
    return f"× {count}" if count > 1 else ""


def _words(c: dict[str, Any]) -> str:
    value = c["value"]["text"] if c["value"] else ""
    return " ".join(p for p in (c["word"], c["label"], value, c["join"], c["mpid"]) if p)
