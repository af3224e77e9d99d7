"""Joins and splits of scopes over HTTP: seen, begun, followed, taken back (extensions)."""

from __future__ import annotations

import msgspec

from onymous.flows.identity import Mpids
from onymous.flows.scope_log import changes
from onymous.flows.scope_planning import Wanted, begin, look, wanted_undo
from onymous.flows.tenants import Directory
from onymous.flows.tokens import Holder
from onymous.store.port import Store
from onymous.web.calls import Call
from onymous.web.platform import ADMIN, MOST_BODY, READ, PlatformWeb, now, private
from onymous.web.wire import Reply, decode, inflate


class ChangeBody(msgspec.Struct, kw_only=True):
    """Body of a join or split."""

    kind: str
    source: str
    target: str
    workspaces: list[str] = []
    #: type name -> target, source or drop
    resolve: dict[str, str] = {}
    #: MPID that comes over -> target, source or drop
    choose: dict[str, str] = {}
    reason: str = ""
    dry_run: bool = False


class UndoBody(msgspec.Struct, kw_only=True):
    """Body of an undoing."""

    resolve: dict[str, str] = {}
    reason: str = ""
    dry_run: bool = False


_change = msgspec.json.Decoder(ChangeBody)
_undo = msgspec.json.Decoder(UndoBody)


class ScopeChangesWeb:
    """/platform/v2/organizations/{org}/scope_changes."""

    def __init__(
        self, store: Store, mpids: Mpids, directory: Directory, platform: PlatformWeb
    ) -> None:
        self._store, self._mpids = store, mpids
        self._directory, self._platform = directory, platform

    async def listed(self, call: Call) -> Reply:
        """Return joins and splits, newest first."""
        await self._platform.check(call, READ)
        return private({"scope_changes": await changes(self._store)})

    async def change(self, call: Call) -> Reply:
        """Say what a join or split would do, or begin it."""
        holder = await self._platform.check(call, ADMIN)
        body: ChangeBody = decode(_change, inflate(call.body, MOST_BODY))
        kind = body.kind if body.kind in ("join", "split") else "unknown"
        wanted = Wanted(
            kind=kind,
            source=body.source,
            target=body.target,
            workspaces=body.workspaces,
            types=body.resolve,
            people=body.choose,
        )
        return await self._do(holder, wanted, body.reason, body.dry_run)

    async def undo(self, call: Call) -> Reply:
        """Take a join or split back, or say what that would do."""
        holder = await self._platform.check(call, ADMIN)
        body: UndoBody = decode(_undo, inflate(call.body, MOST_BODY))
        wanted = await wanted_undo(self._store, call.number(), body.resolve)
        return await self._do(holder, wanted, body.reason, body.dry_run)

    async def _do(self, holder: Holder, wanted: Wanted, reason: str, dry_run: bool) -> Reply:
        author = self._platform.author(holder, reason)
        report = await look(self._store, self._mpids, wanted)
        if dry_run:
            return private({"dry_run": True, "report": report})
        change = await begin(self._store, self._mpids, wanted, author, now())
        await self._directory.refresh_if_changed()
        return private({"id": change.id, "state": change.state, "report": report})
