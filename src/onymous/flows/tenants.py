"""Tenancy: one document says what shall be; applying it creates what is missing.

Everything happens in one transaction with its audit entries. Secrets are generated here, returned
once, and kept sealed under the operator's key.
"""

from __future__ import annotations

import msgspec

from onymous.crypto import MasterKey, new_key_pair
from onymous.flows import documents
from onymous.flows.callers import Caller, Directory, Names, has_data, read_state
from onymous.rules.documents import advice, decode
from onymous.rules.tenants import Document, InputConfig, Step, diff
from onymous.rules.wording import Problem
from onymous.store import sql
from onymous.store import tenants_sql as tsql
from onymous.store.port import Session, Store, Transaction

__all__ = [
    "Applied",
    "Caller",
    "Credential",
    "Directory",
    "Names",
    "apply",
    "has_data",
    "issue_secret",
    "revoke_secrets",
]

_encode = msgspec.msgpack.Encoder().encode
#: how many secrets of an input may be live at once
MOST_LIVE = 2


class Credential(msgspec.Struct, frozen=True):
    """A new key and secret; the secret is shown this once and never again."""

    input: str
    api_key: str
    secret: str


class Applied(msgspec.Struct, kw_only=True):
    """What applying a document did, or would do."""

    steps: list[Step] = []
    #: mistakes; with any of them nothing was applied
    problems: list[Problem] = []
    warnings: list[Problem] = []
    credentials: list[Credential] = []
    dry_run: bool = False

    @property
    def refused(self) -> bool:
        """Return whether the document was refused as a whole."""
        return bool(self.problems) or any(s.action == "refuse" for s in self.steps)


async def apply(
    store: Store,
    key: MasterKey,
    document: str,
    *,
    dry_run: bool = False,
    actor: str = "operator",
    now_ms: int,
) -> Applied:
    """Apply a YAML document: create what is missing, refuse unsafe changes, change nothing else.

    One refused step refuses the whole document. Applying it twice changes nothing the second time.
    """
    try:
        data, lines = documents.read(document)
    except documents.Unreadable as error:
        return Applied(problems=[error.problem], dry_run=dry_run)
    wanted, problems = decode(data, lines)
    if wanted is None:
        return Applied(problems=problems, dry_run=dry_run)
    out = Applied(warnings=advice(wanted), dry_run=dry_run)
    async with store.write("apply") as tx:
        # the version row is written first: on every engine it makes two applies take turns
        version = await _take_version(tx)
        out.steps = diff((await read_state(tx)).state, wanted)
        if out.refused or dry_run or not any(s.action in _DOING for s in out.steps):
            return out
        work = _Work(tx, key, wanted, actor, now_ms)
        for step in out.steps:
            if step.action in _DOING:
                await work.carry_out(step)
        out.credentials = work.credentials
        await tx.run(sql.META_PUT, "tenants_version", str(version + 1).encode())
    return out


_DOING = ("create", "update")


async def _take_version(tx: Transaction) -> int:
    await tx.run(sql.META_ONCE, "tenants_version", b"0")
    rows = await tx.rows(sql.META_GET, "tenants_version")
    version = bytes(rows[0][0])
    await tx.run(sql.META_PUT, "tenants_version", version)
    return int(version)


class _Work:
    """Carries out the steps of one document, in order."""

    def __init__(
        self, tx: Transaction, key: MasterKey, wanted: Document, actor: str, now_ms: int
    ) -> None:
        self._tx, self._key, self._wanted = tx, key, wanted
        self._actor, self._now = actor, now_ms
        self.credentials: list[Credential] = []

    async def carry_out(self, step: Step) -> None:
        """Do one step and write its audit entry."""
        await getattr(self, f"_{step.action}_{step.noun}")(step.name)
        detail = msgspec.json.encode({"changes": step.changes})
        subject = f"{step.noun} {step.name}"
        await self._tx.run(sql.AUDIT_ADD, self._now, self._actor, step.action, subject, detail)

    async def _id(self, statement: str, name: str) -> int:
        for row in await self._tx.rows(statement):
            if row[1] == name:
                return int(row[0])
        raise KeyError(name)

    async def _create_organization(self, name: str) -> None:
        await self._tx.rows(tsql.ORGANIZATION_ADD, name)

    async def _create_account(self, name: str) -> None:
        organization = await self._id(tsql.ORGANIZATIONS, self._wanted.organization)
        await self._tx.rows(tsql.ACCOUNT_ADD, organization, name)

    async def _create_scope(self, name: str) -> None:
        config = _encode(self._wanted.scopes[name])
        await self._tx.rows(tsql.SCOPE_ADD, name, config, self._now)

    async def _update_scope(self, name: str) -> None:
        config = _encode(self._wanted.scopes[name])
        await self._tx.run(tsql.SCOPE_SET, config, self._now, name)

    async def _create_workspace(self, name: str) -> None:
        workspace = self._wanted.workspaces[name]
        account = await self._id(tsql.ACCOUNTS, workspace.account)
        scope = await self._id(tsql.SCOPES, workspace.scope)
        await self._tx.rows(tsql.WORKSPACE_ADD, name, account, scope, _encode({}))

    async def _update_workspace(self, name: str) -> None:
        workspace = self._wanted.workspaces[name]
        account = await self._id(tsql.ACCOUNTS, workspace.account)
        scope = await self._id(tsql.SCOPES, workspace.scope)
        await self._tx.run(tsql.WORKSPACE_SET, account, scope, name)

    def _config(self, full: str) -> tuple[str, str, InputConfig]:
        workspace, _, name = full.partition("/")
        return workspace, name, self._wanted.workspaces[workspace].inputs[name].resolved()

    async def _create_input(self, full: str) -> None:
        workspace, name, config = self._config(full)
        place = await self._id(tsql.WORKSPACES, workspace)
        generated, secret = new_key_pair()
        key = config.api_key or generated
        settings = _encode(msgspec.structs.replace(config, api_key=key))
        rows = await self._tx.rows(
            tsql.INPUT_ADD, name, place, config.kind, key, settings, int(config.active)
        )
        sealed = self._key.seal(secret.encode(), _context(int(rows[0][0])))
        await self._tx.run(tsql.SECRET_ADD, int(rows[0][0]), sealed, self._now)
        self.credentials.append(Credential(full, key, secret))

    async def _update_input(self, full: str) -> None:
        workspace, name, config = self._config(full)
        place = await self._id(tsql.WORKSPACES, workspace)
        key = await _key_of(self._tx, place, name)
        settings = _encode(msgspec.structs.replace(config, api_key=key))
        await self._tx.run(tsql.INPUT_SET, settings, int(config.active), place, name)


async def _key_of(session: Session, workspace: int, name: str) -> str:
    for row in await session.rows(tsql.INPUTS):
        if (row[1], row[2]) == (name, workspace):
            return str(row[4])
    raise KeyError(name)


def _context(input_id: int) -> bytes:
    """What a sealed secret is bound to: it opens as the secret of no other input."""
    return b"input:%d" % input_id


async def issue_secret(
    store: Store, key: MasterKey, input_id: int, *, actor: str, now_ms: int
) -> str:
    """Issue another secret for an input and return it, once; at most two are live.

    Raises ValueError where two are live already.
    """
    _, secret = new_key_pair()
    async with store.write("secret") as tx:
        await _take_version(tx)
        if len(await tx.rows(tsql.SECRETS_OF, input_id)) >= MOST_LIVE:
            raise ValueError("two secrets are live already: revoke the older one first")
        await tx.run(
            tsql.SECRET_ADD, input_id, key.seal(secret.encode(), _context(input_id)), now_ms
        )
        await _bump(tx, actor, "issue_secret", input_id, now_ms)
    return secret


async def revoke_secrets(store: Store, input_id: int, *, actor: str, now_ms: int) -> int:
    """Revoke all live secrets of an input but the newest; return how many."""
    async with store.write("secret") as tx:
        await _take_version(tx)
        live = [int(row[0]) for row in await tx.rows(tsql.SECRETS_OF, input_id)]
        for old in live[:-1]:
            await tx.run(tsql.SECRET_REVOKE, now_ms, old)
        await _bump(tx, actor, "revoke_secrets", input_id, now_ms)
    return max(0, len(live) - 1)


async def _bump(tx: Transaction, actor: str, action: str, input_id: int, now_ms: int) -> None:
    version = await _take_version(tx)
    await tx.run(sql.META_PUT, "tenants_version", str(version + 1).encode())
    await tx.run(sql.AUDIT_ADD, now_ms, actor, action, f"input {input_id}", b"{}")
