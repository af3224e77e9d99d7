"""User activity over HTTP: a person's timeline, and one batch as it was sent (extensions)."""

from __future__ import annotations

import re
import time

from onymous.flows.activity import MOST_PAGE, NEWEST, PAGE, Activity, Asked, Filter, Place
from onymous.flows.profiles import Profiles
from onymous.flows.reads import Reads
from onymous.flows.tenants import Directory
from onymous.flows.tokens import Holder, Tokens, Workspace
from onymous.rules.errors import BadRequest, NotFound
from onymous.web.calls import Call
from onymous.web.identity import number
from onymous.web.profiles import addressed, bearer, parse_mpid
from onymous.web.wire import Reply, json_reply

PERMISSION = "activity:read"
_MOST_MS = 1 << 53
_CURSOR = re.compile(r"(\d{1,18})\.([01])\.(\d{1,18})", re.ASCII)
_PRIVATE = ((b"cache-control", b"private, no-store"),)


class ActivityWeb:
    """GET /v1/activity/{workspace}/{mpid} and .../batches/{id}."""

    def __init__(
        self,
        activity: Activity,
        profiles: Profiles,
        tokens: Tokens,
        reads: Reads,
        directory: Directory,
    ) -> None:
        self._activity, self._profiles, self._tokens = activity, profiles, tokens
        self._reads, self._directory = reads, directory

    async def page(self, call: Call) -> Reply:
        """Return a page of a timeline, newest first."""
        holder, workspace, asked = await self._asked(call)
        params = call.params()
        after = _place(params.get("after"))
        limit = number(params, "limit", 1, MOST_PAGE) or PAGE
        wanted = self._filter(params, workspace)
        page = await self._activity.page(asked, wanted, after, limit)
        self._note(holder, page.mpid, workspace, "timeline", asked.now_ms)
        reply = json_reply(200, page)
        reply.headers = _PRIVATE
        return reply

    async def batch(self, call: Call) -> Reply:
        """Return one batch as it was sent."""
        holder, workspace, asked = await self._asked(call)
        number = call.number()
        mpid, body = await self._activity.batch(asked, number)
        self._note(holder, mpid, workspace, f"batch {call.parts['id']}", asked.now_ms)
        return Reply(200, body, _PRIVATE)

    async def _asked(self, call: Call) -> tuple[Holder, Workspace, Asked]:
        now_ms = time.time_ns() // 1_000_000
        holder = await self._tokens.check_again(bearer(call), now_ms)
        holder.need(PERMISSION)
        workspace = addressed(self._tokens, call, holder)
        pid = parse_mpid(self._profiles, call.parts["mpid"])
        if pid is None:
            raise NotFound()
        known = (self._tokens.workspaces.get(n) for n in holder.workspaces)
        asked = Asked(
            scope=workspace.scope,
            workspace=workspace.id,
            pid=pid,
            readable=frozenset(w.name for w in known if w is not None),
            now_ms=now_ms,
        )
        return holder, workspace, asked

    def _filter(self, params: dict[str, str], workspace: Workspace) -> Filter:
        from_ms = number(params, "from", 0, _MOST_MS)
        to_ms = number(params, "to", 0, _MOST_MS)
        return Filter(
            from_ms=from_ms or 0,
            to_ms=_MOST_MS if to_ms is None else to_ms,
            input=self._input(params.get("input"), workspace),
            device=params.get("device") or None,
            event_type=params.get("event_type") or None,
        )

    def _input(self, name: str | None, workspace: Workspace) -> int:
        if not name:
            return 0
        for caller in self._directory.callers():
            if caller.workspace == workspace.id and caller.name == name:
                return caller.input
        raise BadRequest(what="the workspace has no input of this name")

    def _note(
        self, holder: Holder, mpid: str, workspace: Workspace, asked: str, now_ms: int
    ) -> None:
        self._reads.note(holder.client_id, "activity.read", mpid, workspace.id, asked, now_ms)


def _place(cursor: str | None) -> Place:
    if cursor is None:
        return NEWEST
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise BadRequest(what="after is no cursor of a timeline")
    return int(match[1]), int(match[2]), int(match[3])
