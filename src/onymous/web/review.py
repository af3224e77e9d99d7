"""The review over HTTP (extension): what was held back is accepted, or refused with a reason."""

from __future__ import annotations

import msgspec

from onymous.flows.merging import Actor
from onymous.flows.review import Pools, Review
from onymous.limits import Bounds
from onymous.rules.errors import EnvironmentMissing
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call
from onymous.web.identity import ENVIRONMENTS, number
from onymous.web.operating import actor_of, environment_of
from onymous.web.wire import Reply, decode, inflate, json_reply

MOST = 500


class DecideBody(msgspec.Struct, kw_only=True):
    """Body of a decision."""

    environment: str
    reason: str
    #: who does it, where several people share the input
    operator: str | None = None
    #: conflicts: the MPID that stays
    into: str | int | None = None


_decide = msgspec.json.Decoder(DecideBody)


class ReviewWeb:
    """GET /v1/review, and its entries: shown, accepted, refused."""

    def __init__(self, review: Review, authenticator: Authenticator, bounds: Bounds) -> None:
        self._review, self._auth, self._bounds = review, authenticator, bounds

    async def page(self, call: Call) -> Reply:
        """List what waits in the caller's scope; types and MPIDs, never values."""
        who = self._auth.permitted(call, "review")
        limit = number(call.params(), "limit", 1, MOST) or 100
        after = call.params().get("after")
        found, last = await self._review.page(_pools(who, environment_of(call)), after, limit)
        return json_reply(200, {"review": found, "next": last})

    async def show(self, call: Call) -> Reply:
        """Show one entry with its values."""
        who = self._auth.permitted(call, "review")
        pools = _pools(who, environment_of(call))
        return json_reply(200, await self._review.show(pools, call.parts["id"]))

    async def accept(self, call: Call) -> Reply:
        """Do what was held back."""
        pools, actor, wanted = self._wanted(call)
        into = "" if wanted.into is None else str(wanted.into)
        return json_reply(200, await self._review.accept(pools, call.parts["id"], actor, into))

    async def refuse(self, call: Call) -> Reply:
        """Take an entry off the queue for good."""
        pools, actor, _ = self._wanted(call)
        return json_reply(200, await self._review.refuse(pools, call.parts["id"], actor))

    def _wanted(self, call: Call) -> tuple[Pools, Actor, DecideBody]:
        body = inflate(call.body, self._bounds.max_identity_body_bytes)
        who = self._auth.permitted(call, "review", body)
        wanted: DecideBody = decode(_decide, body)
        if wanted.environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        actor = actor_of(who, wanted.reason, wanted.operator)
        return _pools(who, wanted.environment), actor, wanted


def _pools(who: Credentials, environment: str) -> Pools:
    pool = who.caller.pool(environment)
    return pool, pool
