"""The configuration over HTTP for operators: read, checked, changed, brought back (extensions).

The same document, checks and versions as `onymous apply`; a credential with `platform:read` or
`platform:admin`. A change names the version it was made for (If-Match), so that two operators do
not overwrite each other.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from onymous.crypto import MasterKey
from onymous.flows import versions
from onymous.flows.configure import Applied, BadDocument, ChangeRefused, apply, export, rollback
from onymous.flows.documents import read
from onymous.flows.scopes import put_scopes, scope, scopes
from onymous.flows.tenants import Directory
from onymous.flows.tokens import Holder, Tokens
from onymous.flows.versions import MOST_PAGE, Author
from onymous.rules.errors import BadJson, BadRequest, Forbidden, NoSuchPath, VersionNeeded
from onymous.store.port import Store
from onymous.web.calls import Call, digits, flag
from onymous.web.identity import number
from onymous.web.profiles import bearer
from onymous.web.wire import Reply, decode, error_body, inflate

#: largest body: a document of a million characters, escaped
MOST_BODY = 4 << 20
READ, ADMIN = "platform:read", "platform:admin"
_encode = msgspec.json.Encoder().encode


class RollbackBody(msgspec.Struct, kw_only=True):
    """Body of a rollback."""

    version: int
    reason: str = ""
    dry_run: bool = False


class ScopesBody(msgspec.Struct, kw_only=True):
    """Body that changes several scopes."""

    identity_scopes: list[dict[str, Any]]
    reason: str = ""
    dry_run: bool = False


_rollback = msgspec.json.Decoder(RollbackBody)
_scopes = msgspec.json.Decoder(ScopesBody)
_scope = msgspec.json.Decoder(dict[str, Any])


class PlatformWeb:
    """/platform/v2/organizations/{org}: configuration, its versions, identity scopes."""

    def __init__(self, store: Store, key: MasterKey, directory: Directory, tokens: Tokens) -> None:
        self._store, self._key = store, key
        self._directory, self._tokens = directory, tokens

    # -- reading ------------------------------------------------------------------------------

    async def read(self, call: Call) -> Reply:
        """Return the configuration in force, as a document and as values."""
        await self.check(call, READ)
        while True:
            before = await self._newest()
            text = await export(self._store)
            if await self._newest() == before:
                break
        values, _ = read(text)
        return private({"version": before, "document": text, "configuration": values}, before)

    async def versions(self, call: Call) -> Reply:
        """Return versions, newest first."""
        await self.check(call, READ)
        params = call.params()
        limit = number(params, "limit", 1, MOST_PAGE) or 50
        before = number(params, "before", 1, 1 << 62)
        found = await versions.versions(self._store, before, limit)
        return private({"versions": found})

    async def version(self, call: Call) -> Reply:
        """Return one version with its document."""
        await self.check(call, READ)
        return private(await versions.version(self._store, _number(call.parts["version"])))

    async def scopes(self, call: Call) -> Reply:
        """Return every identity scope."""
        await self.check(call, READ)
        version, found = await scopes(self._store)
        return private({"version": version, "identity_scopes": found}, version)

    async def scope(self, call: Call) -> Reply:
        """Return one identity scope."""
        await self.check(call, READ)
        version, found = await scope(self._store, _number(call.parts["id"]))
        return private(found, version)

    # -- changing -----------------------------------------------------------------------------

    async def put(self, call: Call) -> Reply:
        """Apply a document, YAML or JSON."""
        return await self._apply(call, flag(call.params(), "dry_run"))

    async def dry_run(self, call: Call) -> Reply:
        """Say what applying a document would do."""
        return await self._apply(call, True)

    async def _apply(self, call: Call, dry_run: bool) -> Reply:
        holder = await self.check(call, ADMIN)
        body = inflate(call.body, MOST_BODY)
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            raise BadJson(what="invalid UTF-8") from None
        author = self.author(holder, call.params().get("reason", ""))
        expected = _expected(call, dry_run)
        return await self._told(
            apply(
                self._store,
                self._key,
                text,
                dry_run=dry_run,
                actor=author.name,
                reason=author.reason,
                now_ms=now(),
                expected=expected,
            )
        )

    async def rollback(self, call: Call) -> Reply:
        """Apply an older version again."""
        holder = await self.check(call, ADMIN)
        wanted: RollbackBody = decode(_rollback, inflate(call.body, MOST_BODY))
        author = self.author(holder, wanted.reason)
        expected = _expected(call, wanted.dry_run)
        return await self._told(
            rollback(
                self._store,
                self._key,
                wanted.version,
                dry_run=wanted.dry_run,
                actor=author.name,
                reason=author.reason,
                now_ms=now(),
                expected=expected,
            )
        )

    async def put_scopes(self, call: Call) -> Reply:
        """Change identity scopes by name; others stay as they are."""
        holder = await self.check(call, ADMIN)
        wanted: ScopesBody = decode(_scopes, inflate(call.body, MOST_BODY))
        author = self.author(holder, wanted.reason)
        return await self._put(call, wanted.identity_scopes, author, wanted.dry_run)

    async def put_scope(self, call: Call) -> Reply:
        """Change one identity scope."""
        holder = await self.check(call, ADMIN)
        wanted: dict[str, Any] = decode(_scope, inflate(call.body, MOST_BODY))
        _, there = await scope(self._store, _number(call.parts["id"]))
        params = call.params()
        author = self.author(holder, params.get("reason", ""))
        given = {"name": there["name"], **wanted}
        if given["name"] != there["name"]:
            raise BadRequest(what="a scope keeps its name")
        return await self._put(
            call, [{**given, "id": there["id"]}], author, flag(params, "dry_run")
        )

    async def _put(
        self, call: Call, wanted: list[dict[str, Any]], author: Author, dry_run: bool
    ) -> Reply:
        expected = _expected(call, dry_run)
        return await self._told(
            put_scopes(
                self._store,
                self._key,
                wanted,
                author,
                now(),
                expected=expected,
                dry_run=dry_run,
            )
        )

    # -- pieces -------------------------------------------------------------------------------

    async def check(self, call: Call, permission: str) -> Holder:
        """Return who asks; raises unless they may, of the organization of this database."""
        holder = await self._tokens.check_again(bearer(call), now())
        if ADMIN not in holder.permissions and permission not in holder.permissions:
            raise Forbidden(permission=permission)
        wanted = _number(call.parts["org"])
        if wanted not in {w.organization for w in self._tokens.workspaces.values()}:
            raise NoSuchPath()
        return holder

    def author(self, holder: Holder, reason: str) -> Author:
        """Return a credential as the author of a change."""
        name = self._tokens.name_of(holder)
        return Author(name=f"{name[:60]} ({holder.client_id})", reason=reason)

    async def _newest(self) -> int:
        async with self._store.read() as session:
            return await versions.newest(session)

    async def _told(self, work: Any) -> Reply:
        """Carry out a change and tell it; what is not right is told in full."""
        try:
            done: Applied = await work
        except BadDocument as bad:
            return _refused(bad, {"problems": bad.problems})
        except ChangeRefused as bad:
            return _refused(bad, {"refused": bad.refused})
        if done.changed and not done.dry_run:
            await self._directory.refresh_if_changed()
            await self._tokens.refresh_if_changed(now())
        body = msgspec.to_builtins(done) | {"changed": done.changed, "lines": done.lines()}
        return private(body, done.version)


def _expected(call: Call, dry_run: bool) -> int | None:
    """Return the version of `If-Match`; `*` is any. Raises `VersionNeeded` where a change has none.

    A dry run needs none.
    """
    given = call.header(b"if-match")
    if given is None and not dry_run:
        raise VersionNeeded()
    text = (given or "*").strip().removeprefix("W/").strip('"')
    if text == "*":
        return None
    return _number(text)


def _number(text: str) -> int:
    number = digits(text)
    if number is None:
        raise BadRequest(what="organizations, scopes and versions are numbers")
    return number


def private(value: object, version: int | None = None) -> Reply:
    """Make a JSON reply nobody may keep; with the version it is of."""
    tag = () if version is None else ((b"etag", b'"%d"' % version),)
    return Reply(200, _encode(value), (*tag, (b"cache-control", b"private, no-store")))


def _refused(refusal: BadDocument | ChangeRefused, more: dict[str, Any]) -> Reply:
    body = msgspec.json.decode(error_body(refusal)) | more
    return Reply(refusal.status, _encode(body), ((b"cache-control", b"private, no-store"),))


def now() -> int:
    """Return the time in milliseconds."""
    return time.time_ns() // 1_000_000
