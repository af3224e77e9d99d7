"""Merging profiles and undoing merges and aliases over HTTP (extensions)."""

from __future__ import annotations

import msgspec

from onymous.flows.merging import Actor, Merging
from onymous.flows.ties import Ties
from onymous.flows.undoing import Undoing
from onymous.limits import Bounds
from onymous.rules.errors import EnvironmentMissing
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call
from onymous.web.identity import ENVIRONMENTS
from onymous.web.operating import actor_of, environment_of
from onymous.web.wire import Reply, decode, inflate, json_reply


class MergeBody(msgspec.Struct, kw_only=True):
    """Body of a merge."""

    environment: str
    source_mpid: str | int
    destination_mpid: str | int
    reason: str
    dry_run: bool = False


class UndoBody(msgspec.Struct, kw_only=True):
    """Body of an undoing."""

    environment: str
    reason: str
    dry_run: bool = False


_merge = msgspec.json.Decoder(MergeBody)
_undo = msgspec.json.Decoder(UndoBody)


class MergesWeb:
    """Merges, aliases and single entries: done, listed and undone by hand."""

    def __init__(
        self,
        merging: Merging,
        undoing: Undoing,
        ties: Ties,
        authenticator: Authenticator,
        bounds: Bounds,
    ) -> None:
        self._merging, self._undoing, self._ties = merging, undoing, ties
        self._auth, self._bounds = authenticator, bounds

    async def merge(self, call: Call) -> Reply:
        """Merge two profiles, or show what a merge would make (`dry_run`)."""
        who, body = self._check(call, "merge")
        wanted: MergeBody = decode(_merge, body)
        actor = self._actor(who, wanted.environment, wanted.reason)
        plan, pool = who.caller.plan, who.caller.pool(wanted.environment)
        source, destination = wanted.source_mpid, wanted.destination_mpid
        if wanted.dry_run:
            seen = await self._merging.preview(plan, pool, source, destination)
            return json_reply(200, {"dry_run": True, "preview": seen})
        done = await self._merging.merge(plan, pool, source, destination, actor)
        return json_reply(200, done)

    async def undo(self, call: Call) -> Reply:
        """Undo a merge."""
        who, body = self._check(call, "merge")
        wanted: UndoBody = decode(_undo, body)
        actor = self._actor(who, wanted.environment, wanted.reason)
        pool = who.caller.pool(wanted.environment)
        return json_reply(200, await self._merging.undo_merge(pool, call.number(), actor))

    async def undo_alias(self, call: Call) -> Reply:
        """Undo an alias."""
        who, body = self._check(call, "alias:any")
        wanted: UndoBody = decode(_undo, body)
        actor = self._actor(who, wanted.environment, wanted.reason)
        number = call.number()
        await self._merging.undo_alias(who.caller.pool(wanted.environment), number, actor)
        return json_reply(200, {"id": number, "undone_ms": actor.now_ms})

    async def undo_entry(self, call: Call) -> Reply:
        """Undo one entry of a profile's history, or show what that would change."""
        who, body = self._check(call, "undo")
        wanted: UndoBody = decode(_undo, body)
        actor = self._actor(who, wanted.environment, wanted.reason)
        pool = who.caller.pool(wanted.environment)
        done = await self._undoing.undo(
            who.caller.plan,
            pool,
            call.parts["mpid"],
            call.number(),
            actor,
            dry_run=wanted.dry_run,
        )
        return json_reply(200, done)

    async def merges(self, call: Call) -> Reply:
        """List the merges in force into a profile."""
        who, _ = self._check(call, "merge")
        pool = who.caller.pool(environment_of(call))
        return json_reply(200, {"merges": await self._merging.merges(pool, call.parts["mpid"])})

    async def aliases(self, call: Call) -> Reply:
        """List the newest 100 aliases from or to a profile, with what became of each."""
        who, _ = self._check(call, "alias:any")
        pool = who.caller.pool(environment_of(call))
        pid = self._merging.parse(call.parts["mpid"])
        found = [] if pid is None else (await self._ties.of(pool, pid))[0]
        return json_reply(200, {"aliases": found})

    def _check(self, call: Call, permission: str) -> tuple[Credentials, bytes]:
        body = inflate(call.body, self._bounds.max_identity_body_bytes)
        who = self._auth.permitted(call, permission, body)
        return who, body

    def _actor(self, who: Credentials, environment: str, reason: str) -> Actor:
        if environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        return actor_of(who, reason)
