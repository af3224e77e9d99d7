"""What operators ask of the past: explained, diagnosed, undone (extensions)."""

from __future__ import annotations

import time

import msgspec

from onymous.flows.diagnostics import MOST, MOST_WAIT_S, follow_diagnostics
from onymous.flows.explaining import Explainer
from onymous.flows.merging import Actor
from onymous.flows.undoing import Undoing
from onymous.flows.whose import Whose
from onymous.limits import Bounds
from onymous.rules.errors import BadRequest, CannotUndo, EnvironmentMissing, InvalidData
from onymous.rules.undoing import concerns_values
from onymous.store.port import Store
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call, digits
from onymous.web.identity import ENVIRONMENTS, bounded, number
from onymous.web.wire import Reply, decode, inflate, json_reply

#: longest reason, and name of an operator
MOST_REASON = 500


class UndoBody(msgspec.Struct, kw_only=True):
    """Body of an undoing: of one entry, or of what one request changed."""

    environment: str
    reason: str
    entry: str | int | None = None
    request_id: str | None = None
    #: whose request is meant, where several inputs used its id
    input: str = ""
    workspace: str = ""
    dry_run: bool = False
    #: who does it, where several people share the input
    operator: str | None = None


_undo = msgspec.json.Decoder(UndoBody)


def environment_of(call: Call) -> str:
    """Return the environment a query names; production where it names none."""
    environment = call.params().get("environment", "production")
    if environment not in ENVIRONMENTS:
        raise EnvironmentMissing()
    return environment


def must_say(name: str, text: str) -> None:
    """Raise `InvalidData` where a text of the audit is missing, too long or not printable."""
    if not text.strip() or len(text) > MOST_REASON or not text.isprintable():
        raise InvalidData(what=f"{name} is 1 to {MOST_REASON} printable characters")


def actor_of(who: Credentials, reason: str, operator: str | None = None) -> Actor:
    """Return who does something by hand and why; raises `InvalidData` without a reason."""
    must_say("reason", reason)
    must_say("operator", operator or "x")
    caller = who.caller
    name = f"{caller.workspace_name}/{caller.name}"
    return Actor(
        name=f"{name} ({operator.strip()})" if operator else name,
        reason=reason.strip(),
        now_ms=time.time_ns() // 1_000_000,
        workspace=caller.workspace,
        input=caller.input,
    )


class OperatingWeb:
    """GET /v1/explain, GET /v1/diagnostics, POST /v1/undo."""

    def __init__(
        self,
        store: Store,
        explainer: Explainer,
        undoing: Undoing,
        authenticator: Authenticator,
        bounds: Bounds,
    ) -> None:
        self._store, self._explainer, self._undoing = store, explainer, undoing
        self._auth, self._bounds = authenticator, bounds

    async def explain(self, call: Call) -> Reply:
        """Tell the answer to a past request again."""
        who = self._auth.permitted(call, "explain")
        request_id = bounded(call.params().get("request_id"))
        if request_id is None:
            raise BadRequest(what="request_id is missing: name the request to explain")
        params = call.params()
        whose = Whose(input=params.get("input", ""), workspace=params.get("workspace", ""))
        told = await self._explainer.explain(who.caller, environment_of(call), request_id, whose)
        return json_reply(200, told)

    async def diagnostics(self, call: Call) -> Reply:
        """What was not done in the caller's workspace, and why; never identity values."""
        who = self._auth.permitted(call, "history:read")
        params = call.params()
        after = number(params, "after", 0, 1 << 62)
        found = await follow_diagnostics(
            self._store,
            who.caller.workspace,
            after=after,
            kind=params.get("kind", ""),
            limit=number(params, "limit", 1, MOST) or 100,
            wait_s=number(params, "wait", 0, MOST_WAIT_S) or 0,
        )
        names = self._explainer.names
        told = [
            {
                "id": d.id,
                "at_ms": d.at_ms,
                "kind": d.kind,
                "input": names.input(d.input),
                "request_id": d.request_id,
                "detail": d.detail,
            }
            for d in found
        ]
        return json_reply(200, {"diagnostics": told, "next": found[-1].id if found else after or 0})

    async def undo(self, call: Call) -> Reply:
        """Undo an entry of the ledger, or what a request changed."""
        body = inflate(call.body, self._bounds.max_identity_body_bytes)
        who = self._auth.permitted(call, "undo", body)
        wanted: UndoBody = decode(_undo, body)
        if wanted.environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        actor = actor_of(who, wanted.reason, wanted.operator)
        pool = who.caller.pool(wanted.environment)
        entry = await self._entry(who, pool, wanted)
        done = await self._undoing.undo(
            who.caller.plan, pool, None, entry, actor, dry_run=wanted.dry_run
        )
        return json_reply(200, done)

    async def _entry(self, who: Credentials, pool: int, wanted: UndoBody) -> int:
        if (wanted.entry is None) == (wanted.request_id is None):
            raise BadRequest(what="name either entry or request_id")
        if wanted.entry is not None:
            entry = digits(str(wanted.entry))
            if entry is None:
                raise BadRequest(what="entry must be a number, as a history names it")
            return entry
        request = bounded(wanted.request_id)
        if request is None:
            raise BadRequest(what="request_id is empty")
        whose = Whose(input=wanted.input, workspace=wanted.workspace)
        found = await self._explainer.entries(who.caller, pool, request, whose)
        lines = [line for _, line in found]
        if not lines:
            raise CannotUndo(what="the request changed nothing")
        # an entry that says why it cannot be undone is better than none
        return next((line.seq for line in lines if concerns_values(line)), lines[0].seq)
