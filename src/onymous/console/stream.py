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
        """Show the page the stream fills: everything, or what one person does."""
        of = await self._of(visit)
        mpid = visit.request.query_params.get("of", "") if of is not None else ""
        return visit.page("live.html", where=visit.place.path, of=mpid)

    async def stream(self, visit: Visit) -> Response:
        """Send what arrives until the browser leaves or the session ends."""
        of = await self._of(visit)
        if self._open >= MOST_STREAMS:
            raise Problem(503, "Too many live pages are open", "Close one, or try again later.")
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        body = self._follow(visit, of)
        return StreamingResponse(body, 200, headers, media_type="text/event-stream")

    async def _of(self, visit: Visit) -> int | None:
        """Return whom the address asks for, or None for everybody; raises `Problem`."""
        asked, place = visit.request.query_params.get("of", ""), visit.place
        if not asked:
            return None
        pid = self._rooms.finder.number(asked)
        view = None
        if pid is not None:
            view = await self._rooms.profiles.profile(place.pool, pid, visit.now_ms)
        if view is None:
            raise Problem(404, "Nobody has this MPID here", "Search for the person again.")
        return view.pid

    async def _follow(self, visit: Visit, of: int | None) -> AsyncIterator[bytes]:
        self._open += 1
        checked = time.monotonic()
        try:
            place, ending = visit.place, self._rooms.ending
            async for group in self._rooms.live.follow(place.pool, ending, of):
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
