"""The quarantine over HTTP (extension): batches set aside are read, tried again, thrown away."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from onymous.flows.merging import Actor
from onymous.flows.quarantine import Spool, Spooled, Where
from onymous.flows.tenants import Directory
from onymous.limits import Bounds
from onymous.rules.errors import BadRequest, EnvironmentMissing
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call
from onymous.web.identity import ENVIRONMENTS, number
from onymous.web.operating import actor_of, environment_of
from onymous.web.wire import Reply, decode, inflate, json_reply

#: batches on a page and in a call
MOST = 500
_LAST = (1 << 62) - 1
Id = Annotated[int, msgspec.Meta(ge=1, le=_LAST)]


class ChooseBody(msgspec.Struct, kw_only=True):
    """Body of a replay or a drop: which batches."""

    environment: str
    reason: str
    ids: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MOST)] | None = None
    #: replay without ids: those after this one
    after: Annotated[int, msgspec.Meta(ge=0, le=_LAST)] = 0
    #: who does it, where several people share the input
    operator: str | None = None


_choose = msgspec.json.Decoder(ChooseBody)


class QuarantineWeb:
    """GET /v1/quarantine and its batches; POST replay and drop."""

    def __init__(
        self, spool: Spool, directory: Directory, auth: Authenticator, bounds: Bounds
    ) -> None:
        self._spool, self._directory, self._auth, self._bounds = spool, directory, auth, bounds

    async def page(self, call: Call) -> Reply:
        """List batches of the caller's workspace that were set aside; never what they say."""
        who = self._auth.permitted(call, "quarantine")
        params = call.params()
        after, limit = number(params, "after", 0, _LAST), number(params, "limit", 1, MOST)
        where = _where(who, environment_of(call))
        rows, more = await self._spool.page(where, after or 0, limit or 100)
        return json_reply(200, {"quarantined": [self._told(r) for r in rows], "next": more})

    async def show(self, call: Call) -> Reply:
        """Show one batch as it came in; this is audited."""
        who = self._auth.permitted(call, "quarantine")
        number = call.number()
        where = _where(who, environment_of(call))
        row = await self._spool.show(where, number, actor_of(who, "read over HTTP"))
        body = row.body.decode("utf-8", "replace")
        return json_reply(200, {**self._told(row), "body": body})

    async def replay(self, call: Call) -> Reply:
        """Try batches once more: those named, or the next ones."""
        where, actor, wanted = self._wanted(call)
        args = (wanted.ids, wanted.after, MOST, actor)
        done, more = await self._spool.replay_of(where, *args)
        return json_reply(200, {**msgspec.structs.asdict(done), "next": more})

    async def drop(self, call: Call) -> Reply:
        """Throw batches away for good."""
        where, actor, wanted = self._wanted(call)
        if wanted.ids is None:
            raise BadRequest(what="ids is required: the batches to throw away")
        return json_reply(200, {"dropped": await self._spool.drop_of(where, wanted.ids, actor)})

    def _wanted(self, call: Call) -> tuple[Where, Actor, ChooseBody]:
        body = inflate(call.body, self._bounds.max_identity_body_bytes)
        who = self._auth.permitted(call, "quarantine", body)
        wanted: ChooseBody = decode(_choose, body)
        actor = actor_of(who, wanted.reason, wanted.operator)
        return _where(who, wanted.environment), actor, wanted

    def _told(self, row: Spooled) -> dict[str, Any]:
        return {
            "id": row.id,
            "at_ms": row.at_ms,
            "input": self._directory.names.input(row.input),
            "bytes": len(row.body),
            "reason": row.reason,
        }


def _where(who: Credentials, environment: str) -> Where:
    if environment not in ENVIRONMENTS:
        raise EnvironmentMissing()
    return Where(who.caller.workspace, environment == "development")
