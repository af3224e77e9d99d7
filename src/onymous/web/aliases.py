"""Aliases over HTTP, as the web SDK and the native SDKs send them."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec

from onymous.flows.aliases import AliasRequest, request_alias
from onymous.flows.answers import Question
from onymous.flows.identity import Resolver
from onymous.limits import Bounds
from onymous.rules.errors import BadJson, EnvironmentMissing, Forbidden, InvalidData
from onymous.store.port import Store
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call
from onymous.web.guard import Guard
from onymous.web.identity import ENVIRONMENTS, bounded, refused
from onymous.web.wire import Reply, decode, inflate


class AliasData(msgspec.Struct, kw_only=True):
    """`data` of an alias request."""

    source_mpid: str | int
    destination_mpid: str | int
    start_unixtime_ms: int | None = None
    end_unixtime_ms: int | None = None
    scope: str | None = None
    device_application_stamp: str | None = None
    #: extension: what goes over beside history (rulings 21)
    copy: list[Literal["attributes", "consent"]] = []


class AliasBody(msgspec.Struct, kw_only=True):
    """Body of an alias request; other fields are ignored."""

    data: AliasData
    environment: str | None = None
    request_id: str | None = None
    request_type: Any = None


_decoder = msgspec.json.Decoder(AliasBody)


class AliasWeb:
    """POST /v1/identity/{key}/alias."""

    def __init__(
        self,
        resolver: Resolver,
        store: Store,
        authenticator: Authenticator,
        bounds: Bounds,
        guard: Guard,
    ) -> None:
        self._resolver, self._store = resolver, store
        self._auth, self._bounds, self._guard = authenticator, bounds, guard

    async def alias(self, call: Call) -> Reply:
        """Accept an alias: 202, or 400 and 403 for what can be told at once."""
        body = inflate(call.body, self._bounds.max_identity_body_bytes)
        key = call.parts["key"]
        who = self._auth.check(call.method, call.path, call.query, call.headers, body, key)
        self._guard.batch(call, who)
        try:
            wanted: AliasBody = decode(_decoder, body)
        except BadJson as refusal:
            raise InvalidData(what=refusal.detail["what"]) from None
        if wanted.environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        data = self._allowed(who, wanted.data)
        question = Question(
            op="alias",
            caller=who.caller,
            environment=wanted.environment,
            known={},
            now_ms=time.time_ns() // 1_000_000,
            request_id=bounded(wanted.request_id),
            body=body,
            key_only=who.key_only,
        )
        asked = AliasRequest(
            source_mpid=data.source_mpid,
            destination_mpid=data.destination_mpid,
            start_unixtime_ms=data.start_unixtime_ms,
            end_unixtime_ms=data.end_unixtime_ms,
            scope=data.scope,
            device_application_stamp=data.device_application_stamp,
            signed=not who.key_only,
            copy=list(data.copy),
        )
        answer = await request_alias(self._resolver, self._store, question, asked)
        if answer.refusal is not None:
            return refused(answer.refusal, question.request_id)
        return Reply(202, b"", self._guard.rates(who))

    def _allowed(self, who: Credentials, data: AliasData) -> AliasData:
        if data.copy and not who.caller.server_side:
            raise Forbidden(permission="copy needs a server-side credential")
        return data
