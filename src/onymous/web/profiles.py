"""The Profile API: one person's profile by MPID or by an immutable identity."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec

from onymous.flows.lifetime import Lifetime
from onymous.flows.profiles import Profiles, ProfileView
from onymous.flows.reads import Reads
from onymous.flows.tokens import Holder, Tokens, Workspace
from onymous.limits import Limits
from onymous.rules.errors import (
    BadRequest,
    EnvironmentMissing,
    NotFound,
    RateLimited,
    Refusal,
    Unauthorized,
)
from onymous.rules.identifiers import FOLDED, clean
from onymous.store.port import Probe, Store
from onymous.web.calls import Call, digits, flag
from onymous.web.identity import ENVIRONMENTS, Respond, later, refused
from onymous.web.profile_body import Shown, body, fields
from onymous.web.profile_memory import MOST_QUERY, Memory, given
from onymous.web.wire import Reply, decode, inflate

T = TypeVar("T")
MOST_BODY = 16_384
PERMISSION = "profile:read"
#: query strings whose meaning is remembered
_MOST_QUERIES = 1_024
_RATE = (b"x-mp-rate-limit-percentage-used", b"0")
_encode = msgspec.json.Encoder().encode


class ResolveBody(msgspec.Struct, kw_only=True):
    """Body of a resolve."""

    environment_type: str
    identity: ResolveIdentity


class ResolveIdentity(msgspec.Struct, kw_only=True):
    """The identity of a resolve."""

    type: str
    value: str


class Wanted(msgspec.Struct, frozen=True):
    """What the query of a read asks for."""

    fields: tuple[str, ...]
    #: the same as text, for the audit
    text: str
    as_text: bool
    #: whether worth is asked for, which is split by workspace
    worth: bool


_resolve = msgspec.json.Decoder(ResolveBody)


class ProfilesWeb:
    """GET and POST /userprofile/v1/{org}/{account}/{workspace}/{mpid}, POST .../resolve/..."""

    def __init__(
        self,
        store: Store,
        profiles: Profiles,
        tokens: Tokens,
        reads: Reads,
        limits: Limits,
        lifetime: Lifetime,
    ) -> None:
        self._store, self._profiles, self._tokens = store, profiles, tokens
        self._lifetime = lifetime
        self._reads, self._limits = reads, limits
        self._queries: dict[bytes, Wanted] = {}
        self._memory = Memory()
        self._places: dict[tuple[str, str, str], tuple[Holder, Workspace]] = {}
        #: whether reading never waits, so that a read needs no task of its own
        self._at_once = store.rows_now is not None and store.find_now is not None

    def start(self, op: str, call: Call, respond: Respond) -> None:
        """Answer one request: calls `respond` once, at once where the engine can."""
        now_ms = time.time_ns() // 1_000_000
        try:
            holder = self._tokens.check(bearer(call), now_ms)
            if op == "profile" and (again := self._again(call, holder, now_ms)) is not None:
                respond(again)
                return
            if self._at_once:
                respond(_now(self._answer(op, call, holder, now_ms)))
                return
        except Unauthorized:
            later(self.answer(op, call), respond)
        except Refusal as refusal:
            respond(refused(refusal, None))
        else:
            later(self._answer(op, call, holder, now_ms), respond)

    def _again(self, call: Call, holder: Holder, now_ms: int) -> Reply | None:
        """Answer as before if the profile still is what it was, or return None."""
        kept = self._memory.get(call.path, call.query, holder)
        if kept is None or self._profiles.rows_now(kept.pid) != kept.rows:
            return None
        self._count(holder)
        self._reads.note(
            holder.client_id, "profile.read", kept.mpid, kept.workspace.id, kept.asked, now_ms
        )
        return _tagged(call, kept.tag, kept.body)

    async def read(self, call: Call) -> Reply:
        """Read a profile by MPID."""
        return await self.answer("profile", call)

    async def resolve(self, call: Call) -> Reply:
        """Read a profile by an immutable identity."""
        return await self.answer("resolve", call)

    async def answer(self, op: str, call: Call) -> Reply:
        """Answer `profile` or `resolve`, also for a token other processes have just made."""
        now_ms = time.time_ns() // 1_000_000
        holder = await self._tokens.check_again(bearer(call), now_ms)
        return await self._answer(op, call, holder, now_ms)

    async def _answer(self, op: str, call: Call, holder: Holder, now_ms: int) -> Reply:
        holder.need(PERMISSION)
        self._count(holder)
        workspace = self._addressed(call, holder)
        wanted = self._wanted(call)
        if op == "resolve":
            view = await self._by_identity(call, workspace, now_ms)
        else:
            view = await self.by_mpid(call.parts["mpid"], workspace, now_ms)
        if view is None or await self._lifetime.over(view, now_ms):
            raise NotFound()
        self._reads.note(
            holder.client_id, "profile.read", view.mpid, workspace.id, wanted.text, now_ms
        )
        tag, raw = self._made(view, workspace, holder, wanted)
        if op == "profile" and self._at_once:
            made = given(view, holder, workspace, wanted.text, tag, raw)
            if made is not None:
                self._memory.put(call.path, call.query, made, now_ms)
        return _tagged(call, tag, raw)

    def _made(
        self, view: ProfileView, workspace: Workspace, holder: Holder, wanted: Wanted
    ) -> tuple[bytes, bytes]:
        """Return the tag and the body of a profile."""
        readable = self._readable(workspace, holder) if wanted.worth else {}
        raw = _encode(body(Shown(view, workspace, readable), wanted.fields, as_text=wanted.as_text))
        # changes of identities store nothing else, so the time alone would not tell them
        digest = hashlib.blake2b(raw, digest_size=6).hexdigest()
        return b'"%d-%b"' % (view.stored_ms, digest.encode()), raw

    def _readable(self, workspace: Workspace, holder: Holder) -> dict[int, Workspace]:
        """Return the workspaces of a scope that a credential may read."""
        found = ((n, self._tokens.workspaces.get(n)) for n in holder.workspaces)
        return {n: w for n, w in found if w is not None and w.scope == workspace.scope}

    async def by_mpid(self, text: str, workspace: Workspace, now_ms: int) -> ProfileView | None:
        """Return the profile of an MPID in either environment of a workspace's scope, or None.

        Raises `BadRequest` for what is no MPID at all.
        """
        pid = parse_mpid(self._profiles, text)
        if pid is None:
            return None
        return await self._profiles.shown(workspace.scope, pid, now_ms)

    async def _by_identity(
        self, call: Call, workspace: Workspace, now_ms: int
    ) -> ProfileView | None:
        given: ResolveBody = decode(_resolve, inflate(call.body, MOST_BODY))
        if given.environment_type not in ENVIRONMENTS:
            raise EnvironmentMissing()
        kind, plan = FOLDED.get(given.identity.type), workspace.plan
        if kind is None or not plan.immutable >> kind.code & 1:
            raise BadRequest(what="identity.type must be immutable in the scope of the workspace")
        cleaned = clean(
            {kind.name: given.identity.value},
            strict=False,
            folding=plan.folding,
            blocked=plan.blocked,
        )
        key = cleaned.keys.get(kind.name)
        if key is None:
            raise BadRequest(what="identity.value is nobody's: empty, too long or a placeholder")
        pool = workspace.scope * 2 + (given.environment_type == "development")
        found = (await self._store.find([Probe(pool, {kind.code: key})]))[0]
        holders = found.holders.get((kind.code, key), [])
        return await self._profiles.shown(workspace.scope, holders[0], now_ms) if holders else None

    def _addressed(self, call: Call, holder: Holder) -> Workspace:
        """Return the workspace of a path; the answer is kept for as long as the token is."""
        parts = call.parts
        key = (parts["org"], parts["account"], parts["workspace"])
        known = self._places.get(key)
        if known is not None and known[0] is holder:
            return known[1]
        workspace = addressed(self._tokens, call, holder)
        if len(self._places) >= _MOST_QUERIES:
            self._places.clear()
        self._places[key] = (holder, workspace)
        return workspace

    def _wanted(self, call: Call) -> Wanted:
        known = self._queries.get(call.query)
        if known is None:
            params = call.params()
            names = fields(params.get("fields"))
            text, worth = ",".join(names), "lifetime_value" in names
            known = Wanted(names, text, flag(params, "mpid_as_string"), worth)
            if len(self._queries) >= _MOST_QUERIES:
                self._queries.clear()
            if len(call.query) <= MOST_QUERY:
                self._queries[call.query] = known
        return known

    def _count(self, holder: Holder) -> None:
        limit = holder.requests_per_second
        if limit:
            # credentials and inputs count apart
            verdict = self._limits.input(-holder.id, limit)
            if not verdict.allowed:
                raise RateLimited(retry_after_s=verdict.retry_after_s, exceeded=verdict.exceeded)


def parse_mpid(profiles: Profiles, text: str) -> int | None:
    """Return the number of an MPID, or None for one that was never made.

    Raises `BadRequest` for what is no signed 64-bit number.
    """
    pid = profiles.parse(text)
    if pid is None:
        digits = text.removeprefix("-")
        fits = digits.isascii() and digits.isdigit() and len(digits) < 20 and digits[0] != "0"
        if not fits or not -(1 << 63) <= int(text) < 1 << 63:
            raise BadRequest(what="the MPID is a signed 64-bit number in decimal digits")
    return pid


def addressed(tokens: Tokens, call: Call, holder: Holder) -> Workspace:
    """Return the workspace of a path; raises `BadRequest` or `Forbidden`.

    Organization and account, where the path has them, must be those of the workspace.
    """
    numbers = {name: _number(call.parts[name]) for name in call.parts if name in _NUMBERS}
    workspace = tokens.workspace(numbers["workspace"], holder)
    if "org" in numbers:
        given = (numbers["org"], numbers["account"])
        tokens.belongs(workspace, *given)
    return workspace


_NUMBERS = ("org", "account", "workspace")


def _number(text: str) -> int:
    number = digits(text)
    if number is None:
        raise BadRequest(what="organization, account and workspace are numbers")
    return number


def bearer(call: Call) -> bytes | None:
    """Return the Authorization header."""
    for name, value in call.headers:
        if name == b"authorization":
            return value
    return None


def _tagged(call: Call, tag: bytes, raw: bytes) -> Reply:
    headers = ((b"etag", tag), (b"cache-control", b"private, no-cache"), _RATE)
    known = call.header(b"if-none-match")
    if known is not None and _matches(known, tag.decode()):
        return Reply(304, b"", headers)
    return Reply(200, raw, headers)


def _matches(given: str, tag: str) -> bool:
    tags = (part.strip().removeprefix("W/") for part in given.split(","))
    return any(part in ("*", tag) for part in tags)


def _now(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise AssertionError("this engine was said never to wait")
