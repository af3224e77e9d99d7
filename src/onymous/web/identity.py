"""identify, login, logout, search, modify and history over HTTP."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable

import msgspec

from onymous.flows.answers import Answer, Question
from onymous.flows.history import Historian
from onymous.flows.identity import Resolver
from onymous.flows.modify import Wanted, change_identities
from onymous.flows.search import search_any
from onymous.limits import Bounds
from onymous.rules.errors import (
    BadRequest,
    EnvironmentMissing,
    Forbidden,
    Internal,
    NoIdentities,
    Refusal,
    TooManyIdentities,
)
from onymous.rules.trace import lines
from onymous.store.port import Store
from onymous.web.auth import Authenticator, Credentials
from onymous.web.calls import Call, flag
from onymous.web.guard import FREE, Guard
from onymous.web.wire import (
    IdentityBody,
    Reply,
    decode,
    error_body,
    identity_body,
    identity_decoder,
    inflate,
    json_reply,
    modify_body,
    modify_decoder,
)

Respond = Callable[[Reply], None]
ENVIRONMENTS = ("production", "development")


class IdentityWeb:
    """The Identity API."""

    def __init__(
        self,
        resolver: Resolver,
        store: Store,
        historian: Historian,
        authenticator: Authenticator,
        guard: Guard,
        bounds: Bounds,
    ) -> None:
        self._resolver, self._store, self._historian = resolver, store, historian
        self._auth, self._guard, self._bounds = authenticator, guard, bounds

    # -- identify, login, logout, search ------------------------------------------------------

    def start(self, op: str, call: Call, respond: Respond) -> None:
        """Answer one request: calls `respond` once, now or after the commit it needs."""
        request_id = None
        try:
            body = call.body if call.hot else self._plain(call)
            who = self._auth.check(call.method, call.path, call.query, call.headers, body)
            wanted: IdentityBody = decode(identity_decoder, body)
            request_id = bounded(wanted.request_id or wanted.requestId)
            question = self._question(op, call, who, wanted, body, request_id)
            params = call.params() if call.query else {}
            if params:
                self._options(question, who, params)
            self._guard.check(call.address, call.headers, who, op, question.known)
            if op == "search" and self._reach(who, params) == "any":
                self._search_any(who, question, params, respond)
                return
            matches = flag(params, "return_matches", True) if params else True
            headers = FREE if op == "search" else answer_headers(who.caller.max_age_s)
            if who.caller.requests_per_second:
                headers = (*headers[:-1], *self._guard.rates(who))

            def done(answer: Answer) -> None:
                if answer.created:
                    self._guard.created(call.address, who, answer)
                respond(identity_reply(answer, question, headers, matches))

            self._resolver.ask(question, done)
        except Refusal as refusal:
            respond(refused(refusal, request_id))

    def _plain(self, call: Call) -> bytes:
        most = self._bounds.max_identity_body_bytes
        for name, _ in call.headers:
            if name == b"content-encoding":
                return inflate(call.body, most)
        return call.body

    def _question(
        self,
        op: str,
        call: Call,
        who: Credentials,
        wanted: IdentityBody,
        body: bytes,
        request_id: str | None,
    ) -> Question:
        if wanted.environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        known = wanted.known_identities
        if not known:
            raise NoIdentities()
        if len(known) > self._bounds.max_identities_per_request:
            raise TooManyIdentities(most=self._bounds.max_identities_per_request)
        caller = who.caller
        if op == "search" and who.key_only and not caller.search_key_only:
            raise Forbidden(permission="search")
        return Question(
            op=op,
            caller=caller,
            environment=wanted.environment,
            known=known,
            now_ms=time.time_ns() // 1_000_000,
            previous=wanted.previous_mpid,
            request_id=request_id,
            body=body,
            key_only=who.key_only,
            max_values=self._bounds.max_identities_per_profile,
        )

    def _options(self, question: Question, who: Credentials, params: dict[str, str]) -> None:
        if flag(params, "read_only"):
            if who.key_only or not who.caller.allow_read_only:
                raise Forbidden(permission="read_only")
            question.read_only = True
        if flag(params, "explain"):
            who.need("explain")
            question.explain = True

    def _reach(self, who: Credentials, params: dict[str, str]) -> str:
        allowed = who.may("search:any")
        reach = params.get("reach", "any" if allowed else "protected")
        if reach not in ("any", "protected"):
            raise BadRequest(what="reach must be protected or any")
        if reach == "any" and not allowed:
            raise Forbidden(permission="search:any")
        return reach

    def _search_any(
        self, who: Credentials, question: Question, params: dict[str, str], respond: Respond
    ) -> None:
        page = number(params, "page", 0, 10_000)

        async def work() -> Reply:
            answer = await search_any(self._resolver, self._store, question, page or 0)
            return identity_reply(answer, question, self._guard.rates(who), True)

        later(work(), respond)

    # -- modify ---------------------------------------------------------------------------------

    async def modify(self, call: Call) -> Reply:
        """POST /v1/{mpid}/modify."""
        body = self._plain(call)
        who = self._auth.check(call.method, call.path, call.query, call.headers, body)
        wanted = decode(modify_decoder, body)
        if wanted.environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        if wanted.identity_changes is None:
            raise BadRequest(what="identity_changes is missing; send a list, it may be empty")
        if len(wanted.identity_changes) > self._bounds.max_identities_per_request:
            raise TooManyIdentities(most=self._bounds.max_identities_per_request)
        request_id = bounded(wanted.request_id or wanted.requestId)
        question = Question(
            op="modify",
            caller=who.caller,
            environment=wanted.environment,
            known={e.identity_type: e.new_value for e in wanted.identity_changes if e.new_value},
            now_ms=time.time_ns() // 1_000_000,
            request_id=request_id,
            body=body,
            key_only=who.key_only,
            max_values=self._bounds.max_identities_per_profile,
        )
        params = call.params()
        if flag(params, "explain"):
            who.need("explain")
            question.explain = True
        self._guard.check(call.address, call.headers, who, "modify", question.known)
        changes = [
            Wanted(e.identity_type, e.old_value, e.new_value) for e in wanted.identity_changes
        ]
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        change_identities(self._resolver, question, call.parts["mpid"], changes, settle(future))
        answer = await future
        if answer.refusal is not None:
            return refused(answer.refusal, request_id)
        return Reply(200, modify_body(answer), self._guard.rates(who))

    # -- history ----------------------------------------------------------------------------------

    async def history(self, call: Call) -> Reply:
        """GET /v1/{mpid}/history."""
        who = self._auth.permitted(call, "history:read")
        params = call.params()
        environment = params.get("environment", "production")
        if environment not in ENVIRONMENTS:
            raise EnvironmentMissing()
        question = Question(
            op="history",
            caller=who.caller,
            environment=environment,
            known={},
            now_ms=time.time_ns() // 1_000_000,
        )
        page = await self._historian.history(
            question,
            call.parts["mpid"],
            before=number(params, "before", 1, 1 << 62),
            at_ms=number(params, "at", 0, 1 << 53),
            limit=number(params, "limit", 1, 500) or 50,
        )
        return json_reply(200, page)


def settle(future: asyncio.Future[Answer]) -> Callable[[Answer], None]:
    """Return a callback that sets a future nobody may be waiting for any more."""

    def done(answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    return done


def later(work: object, respond: Respond) -> None:
    """Run a coroutine that makes a reply, and respond with it."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]

    def done(task: asyncio.Task[Reply]) -> None:
        error = task.exception()
        if isinstance(error, Refusal):
            respond(refused(error, None))
        elif error is not None:
            respond(refused(_internal(), None))
        else:
            respond(task.result())

    task.add_done_callback(done)


def _internal() -> Refusal:
    return Internal()


@functools.lru_cache(1_000)
def answer_headers(max_age_s: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers of answers that may be cached so long."""
    return (b"x-mp-max-age", b"%d" % max_age_s), *FREE


def identity_reply(
    answer: Answer,
    question: Question,
    headers: tuple[tuple[bytes, bytes], ...],
    matches: bool,
) -> Reply:
    """Make the reply of identify, login, logout and search."""
    if answer.refusal is not None:
        reply = refused(answer.refusal, question.request_id)
        if answer.trace is not None:
            body = msgspec.json.decode(reply.body)
            body["trace"], body["trace_text"] = answer.trace, lines(answer.trace)
            reply.body = msgspec.json.encode(body)
        return reply
    if question.read_only and answer.created:
        answer.mpid = None
    return Reply(200, identity_body(answer, matches=matches), headers)


def refused(refusal: Refusal, request_id: str | None) -> Reply:
    """Make the error reply of a refusal; 401 and 403 carry a body too, which SDKs ignore."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if refusal.status in (429, 503):
        wait = refusal.detail.get("retry_after_s", 1)
        headers = ((b"retry-after", b"%d" % int(str(wait))),)
        exceeded = refusal.detail.get("exceeded")
        if exceeded:
            headers += ((b"x-mp-rate-limit-exceeded", str(exceeded).encode("ascii", "replace")),)
    elif refusal.status == 405:
        headers = ((b"allow", str(refusal.detail.get("allowed", "")).encode("ascii")),)
    reason = type(refusal).__name__
    return Reply(refusal.status, error_body(refusal, request_id), headers, reason=reason)


def bounded(request_id: str | None) -> str | None:
    """Return a request id, or None; raises `BadRequest` for one of over 128 characters."""
    if not request_id:
        return None
    if len(request_id) > 128:
        raise BadRequest(what="request_id is longer than 128 characters")
    return request_id


def number(params: dict[str, str], name: str, least: int, most: int) -> int | None:
    """Return a whole-number query parameter within bounds, or None when absent."""
    value = params.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) < 20):
        raise BadRequest(what=f"{name} must be a whole number")
    out = int(value)
    if not least <= out <= most:
        raise BadRequest(what=f"{name} must be from {least} to {most}")
    return out
