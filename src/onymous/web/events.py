"""Event, forwarding, audience and config endpoints of the SDKs.

Batches are durable and applied to their profiles before they are answered: 202 with `{}` for
everything accepted, also on the paths whose clients resend for ever after a 400 (rulings 18).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

import msgspec

from onymous.flows.diagnostics import Diagnostics
from onymous.flows.events import Events, Incoming, Taken, now
from onymous.flows.identity import Resolver
from onymous.flows.spool import Accepted, accept
from onymous.limits import Bounds
from onymous.rules.errors import (
    BadJson,
    BatchTooLarge,
    BodyTooLarge,
    InvalidData,
    MissingEventField,
    Refusal,
)
from onymous.rules.native_batches import from_native
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call
from onymous.web.identity import Respond, later, refused
from onymous.web.wire import Reply, decode, inflate, json_reply

#: batches in one bulk call
MOST_BATCHES = 100
_RATE = ((b"x-mp-rate-limit-percentage-used", b"0"),)
_any = msgspec.json.Decoder()
#: native SDKs: upload as long as the answer says so
_NATIVE = {"dt": "ac", "id": "onymous", "ct": 0, "dbg": False, "cue": True, "pmk": [], "eks": []}


def _answered(taken: Taken, server: bool) -> Reply:
    if taken.refusal is not None:
        return refused(taken.refusal, None)
    return Reply(202, b"{}", _RATE if server else ())


class EventsWeb:
    """What an SDK needs besides identity to live."""

    def __init__(
        self,
        resolver: Resolver,
        events: Events,
        authenticator: Authenticator,
        diagnostics: Diagnostics,
        bounds: Bounds,
    ) -> None:
        self._resolver, self._events, self._auth = resolver, events, authenticator
        self._diagnostics, self._bounds = diagnostics, bounds

    def _check(self, call: Call) -> tuple[Credentials, bytes]:
        """Authenticate a call and return its uncompressed body."""
        body = inflate(call.body, self._bounds.max_event_body_bytes)
        key = call.parts.get("key")
        who = self._auth.check(call.method, call.path, call.query, call.headers, body, key)
        return who, body

    # -- before ASGI ------------------------------------------------------------------------

    def start(self, name: str, call: Call, respond: Respond) -> None:
        """Take one batch without a task of its own; what is unusual goes the ordinary way."""
        server = name == "events"
        try:
            who, body = self._check(call)
            batch = decode(_any, body)
            if isinstance(batch, dict) and batch.get("dt") != "h":
                item = self._incoming(who, batch, body)
                self._events.take(item, lambda taken: respond(_answered(taken, server)))
                return
        except Refusal:
            pass  # said below, as the route says it
        handler = {"events": self.server, "web_events": self.web}.get(name, self.native)
        later(handler(call), respond)

    def known_key(self, parts: dict[str, str]) -> bool:
        """Return whether the key in a path exists."""
        return "key" not in parts or self._auth.knows(parts["key"])

    # -- server events ----------------------------------------------------------------------

    async def server(self, call: Call) -> Reply:
        """POST /v2/events: one batch, strict about what is stated."""
        who, body = self._check(call)
        batch = decode(_any, body)
        if not isinstance(batch, dict):
            raise InvalidData(what="expected one batch, a JSON object")
        await self._take(who, batch, body)
        return Reply(202, b"{}", _RATE)

    async def bulk(self, call: Call) -> Reply:
        """POST /v2/bulkevents: at most 100 batches; those that cannot be used are set aside."""
        return await self._bulk(call, historical=False)

    async def historical(self, call: Call) -> Reply:
        """POST /v2/bulkevents/historical: batches whose events are all at least 72 hours old."""
        return await self._bulk(call, historical=True)

    async def _bulk(self, call: Call, *, historical: bool) -> Reply:
        who, body = self._check(call)
        batches = decode(_any, body)
        if not isinstance(batches, list) or not all(isinstance(b, dict) for b in batches):
            raise InvalidData(what="expected a JSON array of batches")
        if len(batches) > MOST_BATCHES:
            raise InvalidData(what=f"more than {MOST_BATCHES} batches in one call")
        waits = []
        for batch in batches:
            text = msgspec.json.encode(batch)
            waits.append(self._take_or_keep(who, batch, text, historical=historical))
        for failed in await asyncio.gather(*waits, return_exceptions=True):
            if isinstance(failed, BaseException):
                raise failed
        return Reply(202, b"{}", _RATE)

    # -- SDK events ---------------------------------------------------------------------------

    async def web(self, call: Call) -> Reply:
        """POST /v3/JS/{key}/events: never 400; what cannot be used is set aside."""
        return await self._lenient(call)

    async def native(self, call: Call) -> Reply:
        """POST /v2/{key}/events of the native SDKs."""
        return await self._lenient(call)

    async def _lenient(self, call: Call) -> Reply:
        who = None
        try:
            who, body = self._check(call)
            batch = decode(_any, body)
            if not isinstance(batch, dict):
                raise InvalidData(what="expected one batch, a JSON object")
        except (BadJson, InvalidData, BodyTooLarge) as refusal:
            key = call.parts.get("key")
            who = who or self._auth.check(
                call.method, call.path, call.query, call.headers, b"", key
            )
            await self._quarantine(who, call.body, type(refusal).__name__, False)
            return Reply(202, b"{}")
        if batch.get("dt") == "h":
            batch = from_native(batch)
            body = msgspec.json.encode(batch)
        await self._take_or_keep(who, batch, body)
        return Reply(202, b"{}")

    async def _take(
        self, who: Credentials, batch: dict[str, Any], body: bytes, *, historical: bool = False
    ) -> None:
        """Take a batch; return when it is durable and applied."""
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()

        def done(taken: Taken) -> None:
            if not future.done():
                future.set_result(taken)

        self._events.take(self._incoming(who, batch, body, historical), done)
        taken = await future
        if taken.refusal is not None:
            raise taken.refusal

    def _incoming(
        self, who: Credentials, batch: dict[str, Any], body: bytes, historical: bool = False
    ) -> Incoming:
        return Incoming(
            caller=who.caller,
            raw=batch,
            body=body,
            now_ms=now(),
            historical=historical,
            max_values=self._bounds.max_identities_per_profile,
        )

    async def _take_or_keep(
        self, who: Credentials, batch: dict[str, Any], body: bytes, *, historical: bool = False
    ) -> None:
        """Take a batch; one that cannot be read is kept aside for a person to look at."""
        try:
            await self._take(who, batch, body, historical=historical)
        except (InvalidData, MissingEventField, BatchTooLarge) as refusal:
            development = batch.get("environment") == "development"
            await self._quarantine(who, body, type(refusal).__name__, development)

    async def _quarantine(
        self, who: Credentials, body: bytes, reason: str, development: bool
    ) -> None:
        caller = who.caller
        self._diagnostics.add(
            "batch_quarantined", now(), caller.workspace, caller.input, None, {"reason": reason}
        )
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(refusal: Refusal | None) -> None:
            if future.done():
                return
            if refusal is None:
                future.set_result(None)
            else:
                future.set_exception(refusal)

        item = Accepted(
            kind="quarantine",
            at_ms=now(),
            workspace=caller.workspace,
            input=caller.input,
            development=development,
            request=hashlib.blake2b(body, digest_size=16).hexdigest(),
            body=body,
        )
        accept(self._resolver.desk, item, done)
        await future

    async def forwarding(self, call: Call) -> Reply:
        """POST forwarding statistics of the web SDK: counted nowhere, accepted."""
        self._auth.check_path_key(call.parts["key"])
        return Reply(202, b"{}")

    # -- config and audiences -----------------------------------------------------------------

    async def web_config(self, call: Call) -> Reply:
        """GET /JS/v2/{key}/config of the web SDK; flag values are strings."""
        who = self._auth.check_path_key(call.parts["key"])
        flags = {
            "reportBatching": "True",
            "eventBatchingIntervalMillis": "1000",
            "offlineStorage": "0",
            "directURLRouting": "False",
            "cacheIdentity": "False",
            "audienceAPI": "False",
            **who.caller.config_flags,
        }
        body = {
            "appName": who.caller.name,
            "workspaceToken": f"w{who.caller.workspace}",
            "kitConfigs": [],
            "pixelConfigs": [],
            "minWebviewBridgeVersion": 1,
            "serviceUrl": "",
            "secureServiceUrl": "",
            "flags": flags,
        }
        return json_reply(200, body)

    async def native_config(self, call: Call) -> Reply:
        """GET /v4/{key}/config of the native SDKs, with the ETag they wait for."""
        who, _ = self._check(call)
        body = msgspec.json.encode({**_NATIVE, "flags": who.caller.config_flags})
        tag = hashlib.blake2b(body, digest_size=12).hexdigest()
        headers = ((b"etag", f'"{tag}"'.encode()), (b"cache-control", b"max-age=300"))
        if call.header(b"if-none-match") in (tag, f'"{tag}"'):
            return Reply(304, b"", headers)
        return Reply(200, body, headers)

    async def audiences(self, call: Call) -> Reply:
        """GET /v1/{key}/audience: memberships of a profile; none until audiences exist."""
        self._check(call)
        body = {"dt": "cam", "ct": time.time_ns() // 1_000_000, "id": "onymous"}
        return json_reply(200, {**body, "audience_memberships": []})
