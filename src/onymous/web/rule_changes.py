"""Changes of rules applied to history over HTTP: listed, seen before they are undone, undone.

An undoing is one transaction, as long as the scope is large. It is promised and answered with 202;
where it stands is read from the change it undoes.
"""

from __future__ import annotations

import msgspec

from onymous.flows.rules_asked import Rules
from onymous.web.calls import Call
from onymous.web.operating import must_say
from onymous.web.platform import ADMIN, MOST_BODY, READ, PlatformWeb, now, private
from onymous.web.wire import Reply, decode, inflate


class RulesUndoBody(msgspec.Struct, kw_only=True):
    """Body of an undoing."""

    reason: str = ""
    keep_later: bool = False
    dry_run: bool = False


_undo = msgspec.json.Decoder(RulesUndoBody)


class RuleChangesWeb:
    """/platform/v2/organizations/{org}/rule_changes."""

    def __init__(self, rules: Rules, platform: PlatformWeb) -> None:
        self._rules, self._platform = rules, platform

    async def listed(self, call: Call) -> Reply:
        """Return changes of rules, newest first."""
        await self._platform.check(call, READ)
        return private({"rule_changes": await self._rules.all()})

    async def one(self, call: Call) -> Reply:
        """Return one change, and where its undoing stands."""
        await self._platform.check(call, READ)
        return private(await self._rules.one(call.number()))

    async def undo(self, call: Call) -> Reply:
        """Take a change back, or say what that would do."""
        holder = await self._platform.check(call, ADMIN)
        body: RulesUndoBody = decode(_undo, inflate(call.body, MOST_BODY))
        number = (await self._rules.one(call.number())).id
        if body.dry_run:
            seen = await self._rules.look(number, keep_later=body.keep_later)
            return private({"dry_run": True, "report": seen})
        reason = body.reason.strip()
        must_say("reason", reason)
        author = self._platform.author(holder, reason)
        told = await self._rules.undo(number, author, now(), keep_later=body.keep_later)
        reply = private(told)
        where = call.path.removesuffix("/").removesuffix("/undo").encode("latin-1", "replace")
        return Reply(202, reply.body, (*reply.headers, (b"location", where)))
