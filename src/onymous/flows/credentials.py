"""Secrets of inputs: issued, shown once, two live during rotation, revoked."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from onymous.crypto import MasterKey, new_key_pair
from onymous.flows import tenancy
from onymous.flows.tombstones import SECRET, Line, promised
from onymous.rules.errors import BadRequest, NoSuchThing
from onymous.store import sql as store_sql
from onymous.store import tenants_sql as sql
from onymous.store.port import LostRace, Store, Transaction

T = TypeVar("T")
#: live secrets of one input: the one in use and the one that replaces it
MOST_LIVE = 2
#: tries of a change of tenancy before a conflict with other processes is reported
MOST_TRIES = 20
_SECRET = re.compile(r"[\x21-\x7e]{16,256}")


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A new key and secret. This is the only time the secret can be read."""

    workspace: str
    input: str
    kind: str
    api_key: str
    secret: str
    #: number of the secret, for `revoke_secret`
    secret_id: int

    def __repr__(self) -> str:
        return f"Credential({self.workspace}/{self.input}, secret {self.secret_id})"


class Issued(msgspec.Struct, frozen=True):
    """What can be told about a secret afterwards."""

    secret_id: int
    created_ms: int
    revoked_ms: int | None
    #: to the minute; None: never
    used_ms: int | None = None


async def transact(store: Store, name: str, work: Callable[[Transaction], Awaitable[T]]) -> T:
    """Run one change of tenancy, again if another process was faster."""
    for turn in range(MOST_TRIES):
        try:
            async with store.write(name) as tx:
                await tenancy.lock(tx)
                return await work(tx)
        except LostRace:
            if turn == MOST_TRIES - 1:
                raise
            await asyncio.sleep(random.random() * min(0.005 * 2**turn, 0.2))
    raise AssertionError("unreachable")


async def issue_secret(
    store: Store,
    key: MasterKey,
    workspace: str,
    name: str,
    *,
    actor: str,
    now_ms: int,
    secret: str | None = None,
) -> Credential:
    """Issue another secret for an input; the older one stays valid until it is revoked.

    `secret` takes over one that clients in the field already carry (16 to 256 printable ASCII
    characters). Raises `NotFound` for an unknown input, `BadRequest` when two are live.
    """
    if secret is not None and not _SECRET.fullmatch(secret):
        raise BadRequest(what="a secret is 16 to 256 printable ASCII characters without spaces")

    async def work(tx: Transaction) -> Credential:
        number, kind, api_key = await _input(tx, workspace, name)
        live = [s for s in await _secrets(tx, number) if s.revoked_ms is None]
        if len(live) >= MOST_LIVE:
            raise BadRequest(what=f"{MOST_LIVE} secrets are live: revoke the older one first")
        await check_key(tx, key)
        text = secret or new_key_pair()[1]
        secret_id = await add_secret(tx, key, number, text, now_ms)
        await audit(tx, now_ms, actor, "secret.issue", f"{workspace}/{name}", secret_id)
        await tenancy.changed(tx)
        return Credential(
            workspace=workspace,
            input=name,
            kind=kind,
            api_key=api_key,
            secret=text,
            secret_id=secret_id,
        )

    return await transact(store, "tenants.issue_secret", work)


async def revoke_secret(
    store: Store, workspace: str, name: str, secret_id: int, *, actor: str, now_ms: int
) -> None:
    """Revoke a secret for good, also the last one: a leak cannot wait for its replacement.

    Processes refuse it once they have seen the change (about a second). Raises `NotFound` for
    an input or a live secret that does not exist.
    """

    async def work(tx: Transaction) -> None:
        number, _, _ = await _input(tx, workspace, name)
        known = await _secrets(tx, number)
        live = {s.secret_id for s in known if s.revoked_ms is None}
        if secret_id not in live:
            raise NoSuchThing(what=f"live secret {secret_id} of {workspace}/{name}")
        await tx.run(sql.SEALED_REVOKE, b"", now_ms, secret_id)
        made = next(s.created_ms for s in known if s.secret_id == secret_id)
        await promised(tx, Line(SECRET, now_ms, secret_id, made))
        await audit(tx, now_ms, actor, "secret.revoke", f"{workspace}/{name}", secret_id)
        await tenancy.changed(tx)

    await transact(store, "tenants.revoke_secret", work)


async def list_secrets(store: Store, workspace: str, name: str) -> list[Issued]:
    """Return the secrets of an input, oldest first, never their text; raises `NotFound`."""
    async with store.read() as session:
        rows = await session.rows(sql.INPUT_BY_NAME, workspace, name)
        if not rows:
            raise NoSuchThing(what=f"input {workspace}/{name}")
        return [Issued(*row) for row in await session.rows(sql.SECRETS_OF, rows[0][0])]


async def add_secret(
    tx: Transaction, key: MasterKey, input_id: int, secret: str, now_ms: int
) -> int:
    """Write a sealed secret and return its number."""
    sealed = tenancy.seal(key, input_id, secret)
    rows = await tx.rows(sql.SEALED_ADD, input_id, sealed, now_ms)
    return int(rows[0][0])


async def check_key(tx: Transaction, key: MasterKey) -> None:
    """Raise `KeyProblem` unless this is the key the live secrets were sealed with."""
    for _, input_id, sealed in (await tx.rows(sql.SECRETS_LIVE))[:1]:
        tenancy.unseal(key, input_id, sealed)


async def audit(
    tx: Transaction, now_ms: int, actor: str, action: str, subject: str, detail: object
) -> None:
    """Write who did what; `detail` holds no secrets and no identity values."""
    await tx.run(store_sql.AUDIT_ADD, now_ms, actor, action, subject, tenancy.encode(detail))


async def _input(tx: Transaction, workspace: str, name: str) -> tuple[int, str, str]:
    rows = await tx.rows(sql.INPUT_BY_NAME, workspace, name)
    if not rows:
        raise NoSuchThing(what=f"input {workspace}/{name}")
    number, kind, api_key = rows[0]
    return number, kind, api_key


async def _secrets(tx: Transaction, input_id: int) -> list[Issued]:
    return [Issued(*row) for row in await tx.rows(sql.SECRETS_OF, input_id)]
