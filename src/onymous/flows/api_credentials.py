"""API credentials: client id and secret with permissions and workspaces, for reading profiles.

The secret is shown once. It carries 256 bits of chance, so what is kept is a salted, keyed digest
that cannot be turned round.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import re
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from onymous.flows.credentials import MOST_TRIES, audit
from onymous.flows.tombstones import CLIENT_GONE, CLIENT_OFF, CLIENT_ON, Line, promised
from onymous.rules.errors import BadRequest, NoSuchThing
from onymous.store import credentials_sql as sql
from onymous.store.port import LostRace, Row, Session, Store, Transaction

T = TypeVar("T")
#: permission -> what it allows
PERMISSIONS = {
    "profile:read": "read profiles with the Profile API",
    "activity:read": "read the timeline of a person and raw batches",
    "platform:read": "read the configuration and its versions",
    "platform:admin": "change the configuration: scopes, workspaces, inputs",
}
#: permissions that mean nothing without workspaces
_NEED_WORKSPACES = {"profile:read", "activity:read"}
MOST_NAME = 100
_SALT = 16


class Granted(msgspec.Struct, kw_only=True):
    """What a credential may do."""

    permissions: tuple[str, ...]
    #: numbers of workspaces
    workspaces: tuple[int, ...] = ()
    #: requests in a second; 0: any number
    requests_per_second: int = 0


class ApiCredential(msgspec.Struct, kw_only=True):
    """A credential as it can be told; never its secret."""

    id: int
    client_id: str
    name: str
    granted: Granted
    active: bool
    created_ms: int
    used_ms: int | None = None


class IssuedClient(msgspec.Struct, kw_only=True):
    """A new credential. This is the only time the secret can be read."""

    credential: ApiCredential
    client_secret: str

    def __repr__(self) -> str:
        return f"IssuedClient({self.credential.client_id})"


_granted = msgspec.json.Decoder(Granted).decode


def hashed(secret: str, salt: bytes | None = None) -> bytes:
    """Return salt and digest of a secret of high entropy."""
    salt = secrets.token_bytes(_SALT) if salt is None else salt
    return salt + hmac.digest(salt, secret.encode("utf-8", "surrogatepass"), "sha256")


def fits(secret: str, kept: bytes) -> bool:
    """Return whether a secret is the one of a digest, in constant time."""
    return hmac.compare_digest(hashed(secret, kept[:_SALT]), kept)


def read_credential(row: Row) -> tuple[ApiCredential, bytes]:
    """Return a credential and the digest of its secret from its row."""
    number, client, name, digest, settings, active, created, used = row
    found = ApiCredential(
        id=number,
        client_id=client,
        name=name,
        granted=_granted(bytes(settings)),
        active=bool(active),
        created_ms=created,
        used_ms=used,
    )
    return found, bytes(digest)


async def transact(store: Store, name: str, work: Callable[[Transaction], Awaitable[T]]) -> T:
    """Run one change of credentials and count it, again if another process was faster."""
    for turn in range(MOST_TRIES):
        try:
            async with store.write(name) as tx:
                await tx.run(sql.VERSION_ONCE, b"0")
                version = int(bytes((await tx.rows(sql.VERSION_LOCK))[0][0]))
                done = await work(tx)
                await tx.run(sql.VERSION_SET, b"%d" % (version + 1))
                return done
        except LostRace:
            if turn == MOST_TRIES - 1:
                raise
            await asyncio.sleep(random.random() * min(0.005 * 2**turn, 0.2))
    raise AssertionError("unreachable")


async def issue(
    store: Store,
    name: str,
    permissions: Sequence[str],
    workspaces: Sequence[str],
    *,
    actor: str,
    now_ms: int,
    requests_per_second: int = 0,
) -> IssuedClient:
    """Issue a credential for workspaces given by name.

    Raises `BadRequest` for a name, permission or workspace that cannot be.
    """
    _check(name, permissions, workspaces, requests_per_second)

    async def work(tx: Transaction) -> IssuedClient:
        numbers = await _workspaces(tx, workspaces)
        granted = Granted(
            permissions=tuple(sorted(set(permissions))),
            workspaces=numbers,
            requests_per_second=requests_per_second,
        )
        client, secret = f"on-{secrets.token_hex(16)}", secrets.token_urlsafe(32)
        body = msgspec.json.encode(granted)
        rows = await tx.rows(
            sql.CREDENTIAL_ADD, client, name.strip(), hashed(secret), body, 1, now_ms
        )
        await audit(tx, now_ms, actor, "credential.issue", client, granted)
        made = ApiCredential(
            id=rows[0][0],
            client_id=client,
            name=name.strip(),
            granted=granted,
            active=True,
            created_ms=now_ms,
        )
        return IssuedClient(credential=made, client_secret=secret)

    return await transact(store, "credentials.issue", work)


def _check(
    name: str, permissions: Sequence[str], workspaces: Sequence[str], per_second: int
) -> None:
    """Raise `BadRequest` for what no credential can be."""
    if not 0 < len(name.strip()) <= MOST_NAME or not name.isprintable():
        raise BadRequest(what=f"a name is 1 to {MOST_NAME} printable characters")
    for permission in permissions:
        if permission not in PERMISSIONS:
            raise BadRequest(what=f"permissions are {', '.join(PERMISSIONS)}")
    if not permissions:
        raise BadRequest(what="a credential needs at least one permission")
    if _NEED_WORKSPACES & set(permissions) and not workspaces:
        raise BadRequest(what="name the workspaces this credential may read")
    if not 0 <= per_second <= 1_000_000:
        raise BadRequest(what="requests per second are 0 (any number) to 1000000")


async def activate(
    store: Store, client_id: str, active: bool, *, actor: str, now_ms: int
) -> ApiCredential:
    """Switch a credential on or off; off, its tokens are refused too. Raises `NotFound`.

    Every process knows within about a second.
    """

    async def work(tx: Transaction) -> ApiCredential:
        found = await one(tx, client_id)
        await tx.run(sql.CREDENTIAL_ACTIVE, int(active), found.id)
        action = "credential.activate" if active else "credential.revoke"
        await audit(tx, now_ms, actor, action, client_id, None)
        kind = CLIENT_ON if active else CLIENT_OFF
        await promised(tx, Line(kind, now_ms, name=client_id))
        found.active = active
        return found

    return await transact(store, "credentials.activate", work)


async def delete(store: Store, client_id: str, *, actor: str, now_ms: int) -> None:
    """Delete a credential for good; its tokens are refused too. Raises `NotFound`."""

    async def work(tx: Transaction) -> None:
        found = await one(tx, client_id)
        await tx.run(sql.CREDENTIAL_DROP, found.id)
        await audit(tx, now_ms, actor, "credential.delete", client_id, None)
        await promised(tx, Line(CLIENT_GONE, now_ms, name=client_id))

    await transact(store, "credentials.delete", work)


async def credentials(store: Store) -> list[ApiCredential]:
    """Return every credential, oldest first."""
    async with store.read() as session:
        return [read_credential(row)[0] for row in await session.rows(sql.CREDENTIALS)]


async def one(session: Session, client_id: str) -> ApiCredential:
    """Return a credential by its client id; raises `NotFound`."""
    if not re.fullmatch(r"on-[0-9a-f]{32}", client_id):
        raise NoSuchThing(what=f"credential {client_id}")
    rows = await session.rows(sql.CREDENTIAL_BY_CLIENT, client_id)
    if not rows:
        raise NoSuchThing(what=f"credential {client_id}")
    return read_credential(rows[0])[0]


async def _workspaces(session: Session, names: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of workspaces; raises `BadRequest` for one that does not exist."""
    known = {row[1]: int(row[0]) for row in await session.rows(sql.WORKSPACES)}
    for name in names:
        if name not in known:
            raise BadRequest(what=f"there is no workspace {name}")
    return tuple(sorted({known[name] for name in names}))
