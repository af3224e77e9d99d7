"""Event, forwarding, audience and config endpoints of the SDKs.

Batches are durable and applied to their profiles before they are answered: 202 with `{}` for
everything accepted, also on the paths whose clients resend for ever after a 400 (rulings 18).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import msgspec

from onymous.flows.events import Events, Incoming, Taken, now
from onymous.flows.identity import Resolver
from onymous.limits import Bounds
from onymous.rules.errors import (
    BadJson,
    BatchTooLarge,
    BodyTooLarge,
    Forbidden,
    InvalidData,
    MissingEventField,
    RateLimited,
    Refusal,
    Unauthorized,
    WrongSecret,
)
from onymous.rules.native_batches import from_native
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call
from onymous.web.guard import Guard
from onymous.web.identity import Respond, later, refused
from onymous.web.repair import repaired
from onymous.web.wire import Reply, decode, inflate, json_reply

T = TypeVar("T")
#: batches in one bulk call
MOST_BATCHES = 100
_any = msgspec.json.Decoder()
#: native SDKs: upload as long as the answer says so
_NATIVE = {"dt": "ac", "id": "onymous", "ct": 0, "dbg": False, "cue": True, "pmk": [], "eks": []}


#: the elements of an array as they came
_elements = msgspec.json.Decoder(list[msgspec.Raw])


def _answered(taken: Taken, headers: tuple[tuple[bytes, bytes], ...]) -> Reply:
    if taken.refusal is not None:
        return refused(taken.refusal, None)
    return Reply(202, b"{}", headers)


class EventsWeb:
    """What an SDK needs besides identity to live."""

    def __init__(
        self,
        resolver: Resolver,
        events: Events,
        authenticator: Authenticator,
        guard: Guard,
        bounds: Bounds,
    ) -> None:
        self._resolver, self._events, self._auth = resolver, events, authenticator
        self._guard, self._bounds = guard, bounds

    def _check(self, call: Call, server: bool = False) -> tuple[Credentials, bytes]:
        """Authenticate a call and return its uncompressed body.

        Who shows no credentials is told so, who shows wrong ones that they are wrong. A public
        key is no credential of a server.
        """
        body = inflate(call.body, self._bounds.max_event_body_bytes)
        key = call.parts.get("key")
        try:
            who = self._auth.check(call.method, call.path, call.query, call.headers, body, key)
        except Unauthorized:
            if call.header(b"authorization") is not None:
                raise WrongSecret() from None
            raise
        if server and who.key_only:
            raise Unauthorized()
        return who, body

    # -- before ASGI ------------------------------------------------------------------------

    def start(self, name: str, call: Call, respond: Respond) -> None:
        """Take one batch without a task of its own; what is unusual goes the ordinary way."""
        server = name == "events"
        try:
            who, body = self._check(call, server)
            batch = decode(_any, body)
            if isinstance(batch, dict) and batch.get("dt") != "h":
                item = self._incoming(who, batch, body, server)
                item.gate = self._guard.batch(call, who)
                rates = self._guard.rates(who)
                self._events.take(item, lambda taken: respond(_answered(taken, rates)))
                return
        except (RateLimited, Forbidden) as refusal:
            respond(refused(refusal, None))
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
        who, body = self._check(call, server=True)
        self._guard.batch(call, who)
        batch = decode(_any, body)
        if not isinstance(batch, dict):
            raise InvalidData(what="expected one batch, a JSON object")
        taken = await self._take(self._incoming(who, batch, body, True))
        return _answered(taken, self._guard.rates(who))

    async def bulk(self, call: Call) -> Reply:
        """POST /v2/bulkevents: at most 100 batches; those that cannot be used are set aside."""
        return await self._bulk(call, historical=False)

    async def historical(self, call: Call) -> Reply:
        """POST /v2/bulkevents/historical: batches whose events are all at least 72 hours old."""
        return await self._bulk(call, historical=True)

    async def _bulk(self, call: Call, *, historical: bool) -> Reply:
        who, body = self._check(call, server=True)
        self._guard.batch(call, who)
        batches = decode(_elements, body)
        if len(batches) > MOST_BATCHES:
            raise InvalidData(what=f"more than {MOST_BATCHES} batches in one call")
        items: list[Incoming] = []

        def read() -> Iterator[Incoming]:
            # one at a time: each is worked on while it is at hand
            for text in map(bytes, batches):
                batch, text = _understood(text)
                item = self._incoming(who, batch, text, True)
                item.historical = historical
                items.append(item)
                yield item

        future: asyncio.Future[list[Taken]] = asyncio.get_running_loop().create_future()
        self._events.take_all(read(), len(batches), _settle(future))
        taken = await future
        failed = [t.refusal for t in taken if t.refusal is not None]
        if failed and not any(t.mpid or t.quarantined for t in taken):
            raise failed[0]
        for item, one in zip(items, taken, strict=True):
            if one.refusal is not None:
                # the others are there: this one must not bring them a second time
                await self._aside(item, type(one.refusal).__name__)
        return Reply(202, b"{}", self._guard.rates(who))

    # -- SDK events ---------------------------------------------------------------------------

    async def web(self, call: Call) -> Reply:
        """POST /v3/JS/{key}/events: never 400; what cannot be used is set aside."""
        return await self._lenient(call)

    async def native(self, call: Call) -> Reply:
        """POST /v2/{key}/events of the native SDKs."""
        return await self._lenient(call)

    async def _lenient(self, call: Call) -> Reply:
        try:
            who, body = self._check(call)
        except (BadJson, BodyTooLarge) as refusal:
            # damaged gzip: kept as it came, for callers whose key alone is enough
            key = call.parts.get("key")
            who = self._auth.check(call.method, call.path, call.query, call.headers, b"", key)
            self._guard.batch(call, who)
            await self._aside(self._incoming(who, None, call.body), type(refusal).__name__)
            return Reply(202, b"{}", self._guard.rates(who))
        gate = self._guard.batch(call, who)
        batch, text = _understood(body)
        item = self._incoming(who, batch, text)
        item.gate, item.notes = gate, () if text is body else ("text_repaired",)
        if not isinstance(batch, dict):
            await self._aside(item, "BadJson")
            return Reply(202, b"{}", self._guard.rates(who))
        if batch.get("dt") == "h":
            item.raw = from_native(batch)
            item.body = msgspec.json.encode(item.raw)
        try:
            taken = await self._take(item)
        except (InvalidData, MissingEventField, BatchTooLarge) as refusal:
            await self._aside(item, type(refusal).__name__)
            return Reply(202, b"{}", self._guard.rates(who))
        return _answered(taken, self._guard.rates(who))

    async def _take(self, item: Incoming) -> Taken:
        """Take a batch; return when it is durable and applied."""
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._events.take(item, _settle(future))
        return await future

    def _incoming(
        self, who: Credentials, batch: Any, body: bytes, server: bool = False
    ) -> Incoming:
        return Incoming(
            caller=who.caller,
            raw=batch,
            body=body,
            now_ms=now(),
            most_bytes=0 if server else self._bounds.max_event_body_bytes,
            max_values=self._bounds.max_identities_per_profile,
            key_only=who.key_only,
        )

    async def _aside(self, item: Incoming, reason: str) -> None:
        """Keep what cannot be used for a person to look at; return when that is durable."""
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        work = self._events.aside(item, reason, _settle(future))
        self._resolver.desk.submit_write(work)
        taken = await future
        if taken.refusal is not None:
            raise taken.refusal

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


def _settle(future: asyncio.Future[T]) -> Callable[[T], None]:
    """Return a callback that sets a future nobody may be waiting for any more."""

    def done(result: T) -> None:
        if not future.done():
            future.set_result(result)

    return done


def _understood(body: bytes) -> tuple[Any, bytes]:
    """Return what a body says and its text, broken characters replaced; None for no JSON."""
    try:
        return decode(_any, body), body
    except BadJson:
        text = repaired(body)
        if text is None:
            return None, body
    try:
        return decode(_any, text), text
    except BadJson:
        return None, body
